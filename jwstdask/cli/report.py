"""``jwstdask report``: the page about a program, from its journal alone, while it runs or after."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jwstdask.core.errors import ParameterError, PlanError
from jwstdask.io.remote import join

if TYPE_CHECKING:
    from jwstdask.report.data import ReportData

_EPILOG = """
The page is one file without references to others: it can be sent, and read without a network.

examples:
  jwstdask report products
  jwstdask report products --compare products_of_last_year -o /tmp/changes.html
"""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "jwstdask report",
        description="Write an HTML page about a program, also while it runs.\n" + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", help="folder of the products (output_dir of the run)")
    parser.add_argument("-o", "--output", metavar="FILE", help="HTML file (default: report.html in the folder)")
    parser.add_argument("--compare", metavar="FOLDER", help="products of an earlier run to compare with")
    parser.add_argument(
        "--differences", type=int, default=20, metavar="N", help="changed products that are compared value by value"
    )
    parser.add_argument("--thumbnails", type=int, default=200, metavar="N", help="most exposures with pictures")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and stop")
    options = parser.parse_args(argv)
    for name in ("differences", "thumbnails"):
        if getattr(options, name) < 0:
            raise ParameterError(f"--{name} must not be negative", "give 0 for none")
    from jwstdask.report.html import write_page

    data = _read(options.folder)
    place = options.output or join(options.folder, "report.html")
    if options.dry_run:
        print(f"a report of {len(data.tasks)} tasks would be written to {place}")
        return 0
    comparison = None if options.compare is None else _compared(_read(options.compare), data, options.differences)
    path = write_page(place, data, comparison, options.thumbnails)
    print(f"report: {path}", file=sys.stderr)
    return 0


def _read(folder: str) -> ReportData:
    from jwstdask.report.data import read_program
    from jwstdask.report.html import has_journal

    if not has_journal(folder):
        raise PlanError(f"{folder} has no journal", "give the output_dir of a whole program")
    return read_program(folder)


def _compared(before: ReportData, after: ReportData, most: int) -> dict[str, Any]:
    """The comparison, with lines about some of the changed products."""
    from jwstdask.cli.diff import one_line
    from jwstdask.core.errors import JwstdaskError
    from jwstdask.program.difference import compare_products
    from jwstdask.report.data import changed_pairs, compare

    found = compare(before, after)
    lines = []
    for a, b in changed_pairs(before, after, found["products"]["changed"])[:most]:
        name = os.path.basename(b)
        try:
            lines.append([name, one_line(compare_products(a, b)).removeprefix(f"{name}: ")])
        except (JwstdaskError, OSError) as error:
            lines.append([name, f"not compared: {error}"])
    return {**found, "lines": lines}
