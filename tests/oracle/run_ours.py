"""Command lines of jwstdask in a process of their own: ``python run_ours.py COMMANDS.json``.

The file holds a list of commands: ``words`` and, if it is not that of the process, the CRDS ``environment``.
"""

from __future__ import annotations

import json
import sys

from caches import use

from jwstdask.cli.main import main


def run(path: str) -> int:
    """Do all of them; the number of those that failed."""
    failed = 0
    for command in json.load(open(path)):
        use(command.get("environment"))
        arguments = command["words"]
        if (code := main([*arguments, "--debug"])) != 0:
            print(f"exit code {code} of: jwstdask {' '.join(arguments)}", file=sys.stderr)
            failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
