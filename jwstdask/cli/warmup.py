"""``jwstdask warmup``: compile the numerical kernels once, so that the first exposure does not wait for it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("jwstdask warmup", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="say where compiled kernels are kept, and stop")
    if parser.parse_args(argv).dry_run:
        print(f"kernels would be compiled into {_place()}")
        return 0
    started = time.perf_counter()
    print("compiling the kernels (about half a minute the first time) ...", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="jwstdask-warmup-") as folder:
        errors = warm(Path(folder))
    for error in errors:
        print(error, file=sys.stderr)
    print(f"done in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return 1 if errors else 0


def _place() -> str:
    """Where numba keeps what it compiles."""
    from jwstdask import kernels

    return os.environ.get("NUMBA_CACHE_DIR") or str(Path(*kernels.__path__) / "__pycache__")


def warm(folder: Path) -> list[str]:
    """Calibrate one tiny synthetic exposure of each kind; errors, if any."""
    from jwstdask.cli.demo import crds_environment
    from jwstdask.core.settings import Settings
    from jwstdask.engine.executor import Serial
    from jwstdask.pipelines.run import outcome_errors, run_program
    from jwstdask.simulate import make_cache, make_program

    errors: list[str] = []
    cache = make_cache(folder / "cache", detectors=("nrca1",), size="small", subarray="SUB64P", filters=("F200W",))
    with crds_environment(cache.environment):
        for readpatt, nints in (("BRIGHT2", 1), ("RAPID", 2)):
            program = make_program(
                folder / readpatt, cache, dithers=1, readpatt=readpatt, ngroups=6, nints=nints, seed=1
            )
            settings = Settings(output_dir=str(folder / f"{readpatt}_products"))
            result = run_program([str(path) for path in program.uncals], 2, settings, Serial())
            errors += outcome_errors(result.outcomes)
    return errors
