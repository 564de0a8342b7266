"""Command lines of jwstdask in a process of their own: ``python run_ours.py COMMANDS.json``, lists of words."""

from __future__ import annotations

import json
import sys

from jwstdask.cli.main import main


def run(path: str) -> int:
    """Do all of them; the number of those that failed."""
    failed = 0
    for arguments in json.load(open(path)):
        if (code := main([*arguments, "--debug"])) != 0:
            print(f"exit code {code} of: jwstdask {' '.join(arguments)}", file=sys.stderr)
            failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
