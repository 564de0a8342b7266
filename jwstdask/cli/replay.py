"""``jwstdask replay``: make a product again from its record, and say whether it is the same bits."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence

from jwstdask.cli.arguments import executor_of, parser
from jwstdask.cli.run import start_log


def main(argv: Sequence[str]) -> int:
    options_parser = parser("replay", "Make a product again and compare it with what was recorded.")
    options_parser.add_argument("record", help="record in .jwstdask/records, or a product that has one")
    options_parser.add_argument("--output_dir", metavar="DIR", help="keep the products made again here")
    options = options_parser.parse_args(argv)
    start_log(options.verbose)
    from jwstdask.pipelines.replay import prepared, replay
    from jwstdask.program.record import all_products, read_record

    record = read_record(options.record)
    named = record["plan"].get("path") or record["plan"].get("name")
    print(f"{record['plan'].get('pipeline')} {os.path.basename(str(named))}")
    if options.dry_run:
        plan, notes = prepared(record, options.output_dir or "a temporary folder")
        for line in (*notes, *(f"-> {path}" for path in all_products(plan).values())):
            print(f"  {line}")
        return 0
    executor = executor_of(options)
    try:
        with tempfile.TemporaryDirectory(prefix="jwstdask-replay-") as temporary:
            found = replay(record, options.output_dir or temporary, executor)
    finally:
        executor.close()
    for note in found.notes:
        print(f"  {note}")
    if found.outcome.error is not None:
        print(f"  FAILED {found.outcome.error}", file=sys.stderr)
        return 1
    for name in found.compared:
        parts = found.differences.get(name)
        print(f"  {name}: " + ("same bits" if parts is None else f"differs in {', '.join(parts)}"))
    return 1 if found.differences else 0
