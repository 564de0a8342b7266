"""``jwstdask asn``: associations from a pool, from a list of files, and pools from headers.

The options are those of jwst's ``asn_generate``, ``asn_from_list`` and ``asn_make_pool``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jwstdask import __version__
from jwstdask.core.errors import ParameterError, ProductError

if TYPE_CHECKING:
    from jwstdask.program.generation.closing import MadeAssociation
    from jwstdask.program.pool import Pool, Row


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("jwstdask asn", description=__doc__.splitlines()[0], allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True, metavar="{generate,from-list,pool}")
    _generate_options(actions.add_parser("generate", help="associations from a pool", allow_abbrev=False))
    _list_options(actions.add_parser("from-list", help="an association from a list of files", allow_abbrev=False))
    _pool_options(actions.add_parser("pool", help="a pool from the headers of exposures", allow_abbrev=False))
    options = parser.parse_args(argv)
    return {"generate": _generate, "from-list": _from_list, "pool": _pool}[options.action](options)


def _generate_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("pool", help="the pool")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-i", "--ids", nargs="+", metavar="ID", help="only these association candidates")
    what.add_argument("--discover", action="store_true", help="only what is discovered in the whole pool")
    what.add_argument("--all-candidates", action="store_true", help="only those of the association candidates")
    add("-p", "--path", type=Path, default=Path(), help="folder of the associations")
    add("--save-orphans", nargs="?", const="orphaned.csv", metavar="FILE", help="pool of exposures in no association")
    add("--version-id", nargs="?", const=True, help="tag of the names; the time if it is given without a value")
    add("--dry-run", action="store_true", help="write nothing")
    add("-d", "--delimiter", default="|", help="what divides the columns of the pool")
    add("--pool-format", default="ascii", help="format of the pool: any of astropy's tables")
    add("--format", choices=("json",), default="json", help="format of the associations")
    add("--no-finalize", action="store_true", help="leave nods, direct images and duplicates as they are found")
    add("--merge", action="store_true", help="one Stage 2 association of many products a candidate and type")
    add("--no-merge", action="store_true", help=argparse.SUPPRESS)
    add("--DMS", action="store_true", help="with --ids: drop what background candidates have as well")
    add("-v", "--verbose", action="store_true", help="list the associations")
    add("-D", "--debug", action="store_true", help="list them, and keep duplicates under names of their own")
    add("--version", action="version", version=f"jwstdask {__version__}, rules of jwst 3.0.0")
    # Known to jwst, but they need its own classes.
    add("-r", "--rules", action="append", help=argparse.SUPPRESS)
    add("--ignore-default", action="store_true", help=argparse.SUPPRESS)
    add("--per-pool-algorithm", action="store_true", help=argparse.SUPPRESS)


def _generate(options: argparse.Namespace) -> int:
    from jwstdask.program.generation.generate import choose_candidates, generate, orphans, timestamp
    from jwstdask.program.pool import read_pool

    for name in ("rules", "ignore_default", "per_pool_algorithm"):
        if getattr(options, name):
            raise ParameterError(
                f"--{name.replace('_', '-')} is not offered",
                "the rules are those of jwst 3.0.0, applied to each candidate",
            )
    pool = read_pool(options.pool, options.delimiter, options.pool_format)
    if pool.rows and "asn_candidate" not in pool.columns:
        raise ParameterError(
            f"{options.pool}: the pool has no column asn_candidate", "make one with `jwstdask asn pool`"
        )
    everything = not (options.discover or options.all_candidates or options.ids)
    for name in choose_candidates(pool, options.ids or [])[1]:
        print(f"jwstdask asn: the pool has no candidate {name}", file=sys.stderr)
    made = generate(
        pool,
        ids=options.ids,
        all_candidates=everything or options.all_candidates,
        discover=everything or options.discover,
        version_id=timestamp() if options.version_id is True else options.version_id,
        finalize=not options.no_finalize,
        merged=options.merge,
        keep_duplicates=options.debug,
        with_backgrounds=options.DMS,
    )
    left = orphans(pool, made)
    if not options.dry_run:
        _save(options, pool, made, left)
    if options.verbose or options.debug:
        for association in made:
            for product in association.products:
                print(f"{association.name} {association.rule}: {product.name}, {len(product.members)} members")
    print(f"{len(made)} associations of {len(pool)} exposures; {len(left)} exposures in none")
    return 0


def _save(options: argparse.Namespace, pool: Pool, made: Sequence[MadeAssociation], left: Sequence[Row]) -> None:
    from jwstdask.program.pool import write_pool

    for association in made:
        _write(options.path / f"{association.name}.json", association.dump())
    if options.save_orphans:
        write_pool([row.values for row in left], options.path / options.save_orphans, columns=pool.columns)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise ProductError(path, f"cannot be written ({error.strerror})", "give another folder") from None


def _list_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-o", "--output-file", required=True, type=Path, help="file to write")
    add("-f", "--format", choices=("json",), default="json", help="format of the association")
    add("--product-name", help="name of the product of a Stage 3 association")
    add("-r", "--rule", default="DMS_Level3_Base", help="rule of the association")
    add("-i", "--id", default="o999", dest="acid", help="candidate of a Stage 2 association")
    add("--dry-run", action="store_true", help="print the association, write nothing")
    add("filelist", nargs="+", help="files")


def _from_list(options: argparse.Namespace) -> int:
    import json

    from jwstdask.program.generation.from_list import association_from_list

    tree = association_from_list(options.filelist, options.rule, options.product_name, options.acid)
    if options.dry_run:
        print(json.dumps(tree, indent=4))
    else:
        _write(options.output_file, json.dumps(tree, indent=4))
    return 0


def _pool_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("pool", type=Path, help="file to write")
    add("data", nargs="+", help="exposures")
    add("--asn-candidate", help="candidates beside the observation, such as \"[('c1000', 'mosaic')]\"")
    add("--dms-note", default="", help="note on the exposures")
    add("--is-imprt", default="f", help="t: these are imprint exposures")
    add("--pntgtype", default="science", help="class of the exposures")
    add("--dry-run", action="store_true", help="write nothing")
    add("-v", "--verbose", action="count", default=0, help="say what is written")


def _pool(options: argparse.Namespace) -> int:
    from jwstdask.program.pool import pool_from_headers, write_pool

    rows = pool_from_headers(options.data, options.asn_candidate, options.dms_note, options.is_imprt, options.pntgtype)
    targets = {(row["targname"], row["targetid"]) for row in rows}
    if len(targets) > len({name for name, _ in targets}):
        print(
            "jwstdask asn: exposures of one target have several target numbers, as jwst counts them; give the files "
            "in order of their targets",
            file=sys.stderr,
        )
    if not options.dry_run:
        write_pool(rows, options.pool)
    if options.verbose or options.dry_run:
        print(f"{options.pool}: {len(rows)} exposures, {len(rows[0])} columns")
    return 0
