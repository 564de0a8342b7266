"""``jwstdask diff``: how two products, or two folders of products, differ."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jwstdask.cli.arguments import cluster_options, executor_of
from jwstdask.core.errors import JwstdaskError, ParameterError

if TYPE_CHECKING:
    from jwstdask.program.difference import ArrayDifference, ProductDifference, Tolerance

_EPILOG = """
Of two folders, products with the same name are compared, whatever sub-folders they are in; of a product and a folder,
the product and the one of its name in the folder.

A value is the same if it is equal or NaN in both, or if it is within --rtol or --max-sigma. Products are the same if
--min-identical of the values of each array and column are, all keywords and metadata are, and nothing is missing.
Exit status: 0 the same, 1 different, 2 something could not be compared.

examples:
  jwstdask diff old/jw..._rate.fits new/jw..._rate.fits --plot difference.png
  jwstdask diff mine mastDownload --common --max-sigma 0.1 --min-identical 0.999 --ignore 'R_*' CRDS_CTX
"""
_SHOWN = 12
"""Lines of a kind that are printed before the rest is only counted."""


def main(argv: Sequence[str]) -> int:
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except ParameterError:
        raise
    except JwstdaskError as error:
        print(f"jwstdask diff: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "jwstdask diff",
        description="Compare two products, or two folders of products.\n" + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("a", metavar="A", help="product or folder: before")
    parser.add_argument("b", metavar="B", help="product or folder: after")
    limits = parser.add_argument_group("what counts as the same")
    limits.add_argument("--rtol", type=_positive, default=0.0, metavar="R", help="relative difference of numbers")
    limits.add_argument(
        "--max-sigma", type=_positive, default=0.0, metavar="S", help="difference of pixels in units of their error"
    )
    limits.add_argument(
        "--min-identical", type=_share, default=1.0, metavar="SHARE", help="share of the values, 0 to 1 (default: 1)"
    )
    limits.add_argument("--max-shift", type=_positive, default=None, metavar="PIXEL", help="shift of the WCS")
    limits.add_argument(
        "--ignore",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEYWORD",
        help="keywords, columns and dotted names not to compare, with wildcards; dates and versions never are",
    )
    limits.add_argument("--ignore-nothing", action="store_true", help="compare dates and versions, too")
    limits.add_argument("--common", action="store_true", help="folders: leave out what only one of them has")
    show = parser.add_argument_group("what is shown")
    show.add_argument("--json", action="store_true", help="print everything as JSON")
    show.add_argument("-q", "--quiet", action="store_true", help="one line a product")
    show.add_argument("-a", "--all", action="store_true", help="print every line; of folders: all about each product")
    show.add_argument("--plot", metavar="FILE", help="draw the difference; of folders: a folder of pictures")
    show.add_argument("--dry-run", action="store_true", help="draw nothing, and say where it would be")
    run = parser.add_argument_group("where and how")
    run.add_argument("--threads", type=int, metavar="N", help="threads in this process (default: all cores)")
    cluster_options(run)
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError("it must not be negative")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("a share is 0 to 1")
    return value


def _run(options: argparse.Namespace) -> int:
    from jwstdask.program.difference import compare_folders, compare_products, match_products

    tolerance = _tolerance(options)
    folders = os.path.isdir(options.a), os.path.isdir(options.b)
    if all(folders):
        pairs = match_products(options.a, options.b, options.common)
        executor = executor_of(options)
        try:
            found = compare_folders(pairs, tolerance, executor)
        finally:
            executor.close()
    else:
        a, b = options.a, options.b
        if folders[0]:
            a = os.path.join(a, os.path.basename(b))
        if folders[1]:
            b = os.path.join(b, os.path.basename(a))
        found = [compare_products(a, b, tolerance)]
    if options.plot and options.dry_run:
        print(f"{options.plot} is not drawn", file=sys.stderr)
    elif options.plot:
        _plot(options.plot, found, all(folders))
    if options.json:
        print(json.dumps(_document(found), indent=1))
    else:
        for line in _report(found, options, all(folders)):
            print(line)
    return max(item.status for item in found)


def _tolerance(options: argparse.Namespace) -> Tolerance:
    from jwstdask.program.difference import Tolerance

    default = Tolerance()
    return Tolerance(
        options.rtol,
        options.max_sigma,
        options.min_identical,
        default.max_shift if options.max_shift is None else options.max_shift,
        (*(() if options.ignore_nothing else default.ignore), *options.ignore),
    )


def _plot(path: str, found: Sequence[ProductDifference], many: bool) -> None:
    from jwstdask.report.difference import draw_difference

    if not many:
        item = found[0]
        assert item.a is not None and item.b is not None
        draw_difference(item.a, item.b, path, _place(item))
        return
    os.makedirs(path, exist_ok=True)
    for item in found:
        if item.a is not None and item.b is not None and any(array.different for array in item.arrays.values()):
            stem = os.path.splitext(item.name)[0]
            draw_difference(item.a, item.b, os.path.join(path, f"{stem}.png"), _place(item))


def _place(item: ProductDifference) -> tuple[int, ...] | None:
    image = item.arrays.get("SCI") or next(iter(item.arrays.values()), None)
    return None if image is None else image.place


def _document(found: Sequence[ProductDifference]) -> dict[str, Any]:
    """Everything as plain values; what JSON has no number for is text."""
    products = []
    for item in found:
        entry: dict[str, Any] = {"name": item.name, "status": ("same", "different", "not compared")[item.status]}
        entry |= dataclasses.asdict(item)
        for name, array in item.arrays.items():
            entry["arrays"][name] |= {"different": array.different, "identical_share": array.share}
        for kind in ("keywords", "metadata"):
            entry[kind] = {name: {"a": a, "b": b} for name, (a, b) in entry[kind].items()}
        products.append(_plain(entry))
    from jwstdask.program.difference import census

    return {"products": products, "census": dict(census(found)), "status": max(item.status for item in found)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def _report(found: Sequence[ProductDifference], options: argparse.Namespace, many: bool) -> Iterator[str]:
    from jwstdask.program.difference import census

    for item in found:
        if options.quiet or (many and not options.all) or item.a is None or item.b is None:
            yield one_line(item)
        else:
            yield from _details(item, options)
    if many:
        counts = ", ".join(f"{count} {name}" for name, count in census(found).items())
        yield f"{len(found)} product{'s' * (len(found) != 1)}: {counts}"


def one_line(item: ProductDifference) -> str:
    """What differs, in a line."""
    if item.error is not None:
        return f"{item.name}: not compared: {item.error}"
    parts = list(item.structure[:2])
    if len(item.structure) > 2:
        parts.append(f"{len(item.structure) - 2} more in structure")
    changed = {name: array for name, array in item.arrays.items() if array.different}
    for name, array in changed.items():
        if name == "SCI":
            sigma = "" if array.sigma is None else f", at most {array.sigma:.3g} errors"
            parts.append(f"SCI {_percent(array.share)} identical{sigma}")
        elif array.flags:
            flags = {flag: (change.gained, change.lost) for flag, change in array.flags.items()}
            counts = [f"{flag} +{gained} -{lost}" for flag, (gained, lost) in flags.items() if gained or lost]
            parts.append(f"{name} {', '.join(counts)}")
    others = [name for name, array in changed.items() if name != "SCI" and not array.flags]
    if others:
        parts.append(f"also {', '.join(others)}")
    columns = [cells for table in item.tables.values() for cells in table.values() if cells.identical != cells.size]
    if columns:
        parts.append(f"{len(columns)} column{'s' * (len(columns) > 1)}")
    if item.shift is not None and item.shift > 0:
        parts.append(f"WCS by {item.shift:.3g} pixel")
    count = len(item.keywords) + len(item.metadata)
    if count:
        parts.append(f"{count} keyword{'s' * (count > 1)}")
    state = "different" if item.failures else "the same within the tolerance" if parts else "the same"
    return f"{item.name}: {state}" + (f": {'; '.join(parts)}" if parts else "")


def _details(item: ProductDifference, options: argparse.Namespace) -> Iterator[str]:
    if item.error is not None:
        yield one_line(item)
        return
    yield f"{item.name}: {'different' if item.failures else 'the same'}"
    yield f"  A {item.a}"
    yield f"  B {item.b}"
    shown = None if options.all else _SHOWN
    yield from (f"  {line}" for line in item.structure)
    for name, array in item.arrays.items():
        yield from _array_lines(name, array)
    for name, columns in item.tables.items():
        lines = [
            f"{column}: {cells.size - cells.identical} of {cells.size} cells differ"
            + (f", relative at most {cells.relative:.3g}" if cells.relative else "")
            for column, cells in columns.items()
            if cells.identical != cells.size
        ]
        equal = len(columns) - len(lines)
        yield f"  {name or 'catalogue'}: {equal} of {len(columns)} columns identical"
        yield from _limited(lines, shown)
    if item.shift is not None:
        yield f"  WCS: {'identical' if item.shift == 0 else f'shifted by up to {item.shift:.3g} pixel'}"
    for title, values in (("keywords", item.keywords), ("metadata", item.metadata)):
        if values:
            yield f"  {title}: {len(values)} differ"
            yield from _limited((f"{name}: {_value(a)} -> {_value(b)}" for name, (a, b) in values.items()), shown)
    if not (item.failures or item.keywords or item.metadata):
        yield "  keywords and metadata: the same"


def _array_lines(name: str, array: ArrayDifference) -> Iterator[str]:
    kind = f"  {name:12} {list(array.shape)} {array.dtype}"
    if not array.different:
        yield f"{kind}: identical"
    else:
        yield f"{kind}: {_percent(array.share)} identical, {array.different} differ"
        if array.only_a or array.only_b:
            yield f"      finite in A only: {array.only_a}, in B only: {array.only_b}"
        where = "" if array.place is None else f" at {list(array.place)}"
        if array.sigma is not None:
            unit = "ERR²" if name.startswith("VAR_") else "ERR"
            yield (
                f"      in units of {unit}: largest {array.sigma:.3g}{where}, RMS {array.sigma_rms:.3g}, "
                f"one in a thousand above {array.sigma_999:.3g}"
            )
            where = ""
        if not array.flags:
            yield f"      absolute: largest {array.largest:.3g}{where}, RMS {array.rms:.3g}"
            yield f"      relative: largest {array.relative:.3g}, RMS {array.relative_rms:.3g}"
    if array.flags and array.different:
        yield f"      {'flag':18}{'A':>12}{'B':>12}{'gained':>12}{'lost':>12}"
        for flag, change in array.flags.items():
            yield f"      {flag:18}{change.before:12}{change.after:12}{change.gained:12}{change.lost:12}"
        bad = array.flags.get("DO_NOT_USE")
        if bad is not None:
            before, after = (1 - count / array.size for count in (bad.before, bad.after))
            yield f"      good (not DO_NOT_USE): {_percent(before)} -> {_percent(after)}"


def _percent(share: float) -> str:
    """A share in percent that says 100 and 0 only where it is."""
    text = f"{100 * share:.3f}"
    if share < 1 and text == "100.000":
        return ">99.999 %"
    return f"{text} %" if share == 0 or text != "0.000" else "<0.001 %"


def _limited(lines: Iterable[str], limit: int | None) -> Iterator[str]:
    lines = list(lines)
    yield from (f"      {line}" for line in lines[:limit])
    if limit is not None and len(lines) > limit:
        yield f"      and {len(lines) - limit} more (--all shows them)"


def _value(value: Any) -> str:
    if value is None:
        return "absent"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
