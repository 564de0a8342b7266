"""``jwstdask demo``: a small synthetic NIRCam program, made, calibrated and left to look at."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jwstdask.cli.progress import Progress, duration


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("jwstdask demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", choices=("small", "full"), default="small", help="frames of 320 x 320 or 2048 x 2048")
    parser.add_argument(
        "--keep", metavar="DIR", help="folder for everything (default: a new one in the current folder)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="worker processes (default: one a core)")
    parser.add_argument("--seed", type=int, default=1, help="another sky and other noise")
    parser.add_argument("--dry-run", action="store_true", help="say what would be made, and stop")
    options = parser.parse_args(argv)
    if options.dry_run:
        place = options.keep or "a new folder jwstdask-demo-... here"
        print(f"a {options.size} synthetic program, its references, products of Stages 1 to 3 and a report in {place}")
        return 0
    folder = Path(options.keep or tempfile.mkdtemp(prefix="jwstdask-demo-", dir="."))
    folder.mkdir(parents=True, exist_ok=True)
    return run_demo(folder.resolve(), options.size, options.workers, options.seed)


@contextlib.contextmanager
def crds_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """CRDS variables set for a while; `crds` reads them when it is asked."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run_demo(folder: Path, size: str, workers: int | None, seed: int) -> int:
    """Make and calibrate the program in ``folder``; the exit status."""
    from jwstdask.core.settings import Settings
    from jwstdask.engine.clusters import local_cluster
    from jwstdask.engine.executor import available_cores
    from jwstdask.pipelines.program_plan import ProgramPlan
    from jwstdask.pipelines.resume import Resume
    from jwstdask.pipelines.run import run_program
    from jwstdask.report.html import write_run_report
    from jwstdask.simulate import make_cache, make_program

    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"{duration(time.perf_counter() - started):>9}  {text}", file=sys.stderr, flush=True)

    say("making a synthetic CRDS cache and a NIRCam program of two detectors and four dithers")
    subarray = "SUB320" if size == "small" else "FULL"
    cache = make_cache(
        folder / "crds_cache",
        detectors=("nrcb1", "nrcb2"),
        size=size,
        subarray=subarray,
        filters=("F200W",),
        seed=seed,
        progress=say,
    )
    program = make_program(folder / "uncal", cache, dithers=4, readpatt="BRIGHT2", ngroups=8, seed=seed, progress=say)
    say("starting a Dask cluster on this machine")
    products = folder / "products"
    with crds_environment(cache.environment):
        executor = local_cluster(workers or available_cores())
        progress = Progress(0)

        def planned(plan: ProgramPlan) -> None:
            count = sum(len(chain) for chain in plan.chains)
            progress.add(count)
            say(f"calibrating {len(plan.chains)} exposures; the first run on a machine compiles the kernels first")

        try:
            result = run_program(
                [*map(str, program.uncals), str(program.associations["image3"])],
                3,
                Settings(output_dir=str(products)),
                executor,
                report=progress,
                planned=planned,
                more=progress.add,
                resume=Resume(command=("jwstdask", "demo"), context=cache.environment["CRDS_CONTEXT"]),
            )
        finally:
            progress.close()
            executor.close()
    report = products / "report.html"
    plans = [item for chain in result.plan.chains for item in chain]
    write_run_report(str(report), str(products), plans, result.plan.associations, result.outcomes)
    environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in cache.environment.items())
    mosaic = next((item.products["i2d"] for item in reversed(result.outcomes) if "i2d" in item.products), products)
    done, total = len(result.outcomes) - len(result.failed), len(result.outcomes)
    uncal, first, again = (shlex.quote(str(path)) for path in (folder / "uncal", program.uncals[0], folder / "again"))
    print(
        f"""
{done} of {total} tasks done in {duration(time.perf_counter() - started)}.
raw exposures   {folder / "uncal"}
products        {products}
mosaic          {mosaic}
report          {report}

Next:
  open {report} in a browser
  jwstdask status {shlex.quote(str(products))}
  python -c "import jwstdask; print(jwstdask.open_exposure('{mosaic}'))"
  export {environment}
  jwstdask plan {uncal}
  jwstdask run calwebb_detector1 {first} --steps.jump.rejection_threshold=5 --output_dir={again}"""
    )
    return 1 if result.failed else 0
