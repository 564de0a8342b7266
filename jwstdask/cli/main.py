"""The command ``jwstdask``."""

from __future__ import annotations

import atexit
import gc
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from jwstdask import __version__

COMMANDS = {
    "run": "calibrate exposures or a whole program",
    "plan": "show what run would do; no pixel is read",
    "status": "show how far a program is, while it runs or after",
    "report": "write an HTML page about a program, while it runs or after",
    "replay": "make a product again from its record and compare it",
    "explain": "say what a step or pipeline does, its parameters and references",
    "refs": "check, fetch or pack reference files",
    "diff": "compare two products, or two folders of products",
    "asn": "make associations from a pool, a list of files, or pools from headers",
    "clusters": "list profiles of clusters, show the script of a job, try one",
    "demo": "make a small synthetic program and calibrate it",
    "warmup": "compile the numerical kernels, once after installation",
}

_USAGE = "usage: jwstdask COMMAND ...\n\ncommands:\n" + "\n".join(
    f"  {name:9}{text}" for name, text in COMMANDS.items()
)
_USAGE += "\n\n`jwstdask COMMAND --help` says more."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    status
        0 if all went well, 1 if an exposure failed, 2 if the command was wrong, 130 after Ctrl-C.
    """
    if argv is None:
        # What modules are made of, some 10^5 objects, lives as long as the process and need not be looked at often.
        gc.set_threshold(10_000)
        # Nor when it ends, where the collector looks at everything several times.
        atexit.register(gc.freeze)
        # The work is done by then: Ctrl-C does not change what is told of it.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"jwstdask {__version__}")
        return 0
    command = arguments[0]
    if command not in COMMANDS:
        from jwstdask.core.params import suggest

        print(f"jwstdask: there is no command {command!r}. {suggest(command, COMMANDS)}", file=sys.stderr)
        return 2
    from jwstdask.core.errors import JwstdaskError, ParameterError, PlanError

    try:
        return int(import_module(f"jwstdask.cli.{command}").main(arguments[1:]) or 0)
    except (ParameterError, PlanError) as error:
        print(f"jwstdask {command}: {error}", file=sys.stderr)
        return 2
    except JwstdaskError as error:
        print(f"jwstdask {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nInterrupted. Finished products are complete. Give the same command again: a whole program goes on where "
            "it stopped.",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
