"""Scaling and overhead: ``python -m tests.benchmarks.scaling [--exposures 16] [--tasks 10000] [--update README.md]``.

*Scaling*: the same exposures through ``calwebb_detector1`` on one worker process and on two, each time in a process
that has just started, and once more with workers that are warm; pixels are compared. *Overhead*: 1, 100 and 10,000
plans of real size go through the executor to a worker that does nothing with them but return an outcome; the memory of
this process, in which the scheduler runs, is sampled. The machine may be shared: best of ``--repeat``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from astropy.io import fits

from jwstdask.core.plan import ExposurePlan, Outcome
from jwstdask.core.settings import Settings
from jwstdask.engine import forks
from jwstdask.engine.clusters import local_cluster
from jwstdask.engine.executor import Cluster, Executor
from jwstdask.engine.exposure import run_exposure
from jwstdask.pipelines.planner import Request, plan_exposures
from jwstdask.pipelines.registry import find
from jwstdask.pipelines.run import run_chains
from tests.benchmarks.measure import anonymous, between


def plans_of(paths: Sequence[Path], folder: Path) -> list[ExposurePlan]:
    """Stage 1 plans that write into a folder."""
    settings = Settings((), output_dir=str(folder))
    return plan_exposures(find("calwebb_detector1"), [Request(str(path)) for path in paths], settings)


def pixels(folder: Path) -> dict[str, str]:
    """Digest of the images of each product of a folder."""
    found = {}
    for path in sorted(folder.glob("*.fits")):
        digest = hashlib.sha256()
        with fits.open(path) as hdus:
            for hdu in hdus[1:]:
                if hdu.is_image and hdu.data is not None:
                    digest.update(hdu.data.tobytes())
        found[path.name] = digest.hexdigest()
    return found


def noted(folder: str, plan: ExposurePlan, executor: Executor | None = None) -> Outcome:
    """Do a plan, and note when it ran and what CPU it took."""
    started, cpu = time.time(), time.process_time()
    outcome = run_exposure(plan, executor)
    note = {"started": started, "ended": time.time(), "cpu": time.process_time() - cpu}
    Path(folder, f"{uuid.uuid4()}.json").write_text(json.dumps(note))
    return outcome


@dataclass(frozen=True)
class Run:
    """What the exposures took on some workers.

    Attributes
    ----------
    workers
        How many.
    started
        Seconds until there were workers: imports, processes, keys.
    cold, warm
        Seconds from the start of this process to the last product; and with workers that have done it all once.
    busy
        Part of the time with warm workers in which these were at work on exposures.
    cpu
        CPU seconds of an exposure.
    digests
        Of the pixels of all products.
    """

    workers: int
    started: float
    cold: float
    warm: float
    busy: float
    cpu: float
    digests: dict[str, str]


def measured(paths: Sequence[str], folder: Path, count: int) -> Run:
    """The exposures, on a cluster that is started for them; this process has just begun."""
    born = psutil.Process().create_time()
    notes = folder / "notes"
    notes.mkdir(parents=True)
    forks.prepare(stage1=True)
    chains = [[plan] for plan in plans_of([Path(path) for path in paths], folder / "products")]
    executor = local_cluster(count)
    started = time.time()
    try:
        ended = [born]
        for _ in range(2):
            begun = time.time()
            outcomes = run_chains(chains, executor, grain="exposure", work=partial(noted, str(notes)))
            ended.append(time.time())
            errors = [outcome.error for outcome in outcomes if outcome.error is not None]
            if errors:
                raise RuntimeError(errors[0])
    finally:
        executor.close()
    found = [json.loads(path.read_text()) for path in notes.glob("*.json")]
    late = [note for note in found if note["started"] >= begun]
    warm = ended[-1] - begun
    busy = sum(note["ended"] - note["started"] for note in late) / (count * warm)
    cpu = sum(note["cpu"] for note in late) / len(late)
    return Run(count, started - born, ended[1] - born, warm, busy, cpu, pixels(folder / "products"))


def scaling(paths: Sequence[Path], folder: Path, repeat: int, counts: Sequence[int] = (1, 2)) -> list[str]:
    """A line for each number of workers; each measured in processes of its own."""
    names = ("workers", "workers are there", "wall, all in all", "wall, warm", "busy", "CPU of an exposure")
    names = (*names, "efficiency, all in all", "efficiency, warm", "same bits")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    first: Run | None = None
    for count in counts:
        runs = []
        for number in range(repeat):
            place = folder / f"{count}_{number}"
            command = [sys.executable, "-m", "tests.benchmarks.scaling", "--one", str(count), str(place)]
            done = subprocess.run([*command, *map(str, paths)], check=True, capture_output=True, text=True)
            runs.append(Run(**json.loads(done.stdout)))
            shutil.rmtree(place)
        cold, warm = (min(runs, key=lambda item, name=name: getattr(item, name)) for name in ("cold", "warm"))
        best = replace(cold, warm=warm.warm, busy=warm.busy, cpu=min(item.cpu for item in runs))
        first = first or best
        efficiency = [getattr(first, name) / getattr(best, name) / count for name in ("cold", "warm")]
        same = "yes" if all(item.digests == first.digests for item in runs) else "NO"
        values = [f"{value:.2f} s" for value in (best.started, best.cold, best.warm)]
        values += [f"{100 * best.busy:.0f} %", f"{best.cpu:.2f} s", *(f"{100 * value:.0f} %" for value in efficiency)]
        lines.append(f"| {count} | {' | '.join(values)} | {same} |")
    return lines


def nothing(chain: Sequence[ExposurePlan]) -> list[Outcome]:
    """Outcomes of a chain as a worker returns them, without any work."""
    return [Outcome(plan.path, plan.pipeline, dict(plan.products), ()) for plan in chain]


def _sample(
    executor: Cluster, samples: list[tuple[int, int]], known: list[int], every: int, index: int, result: object
) -> None:
    known.append(len(executor.owner.scheduler.tasks))
    if len(known) % every == 0:
        samples.append((len(known), anonymous(os.getpid())))


@dataclass(frozen=True)
class _Chains:
    """As many chains of a plan, made one by one: what is held is what the executor holds."""

    plan: ExposurePlan
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[ExposurePlan]]:
        return ([replace(self.plan, path=f"{self.plan.path}.{index}")] for index in range(self.count))


def overhead(plan: ExposurePlan, executor: Cluster, counts: Sequence[int]) -> list[str]:
    """A line for each number of tasks; memory is sampled a hundred times, and a line fitted."""
    lines = ["| tasks | wall | per task | memory per task | tasks known to the scheduler |", "|---|---|---|---|---|"]
    executor.map(nothing, [[plan]] * 8)
    for count in counts:
        samples: list[tuple[int, int]] = []
        known = [0]
        note = partial(_sample, executor, samples, known, max(count // 100, 50))
        started = time.perf_counter()
        executor.map(nothing, _Chains(plan, count), note)
        wall = time.perf_counter() - started
        slope = ""
        if len(samples) > 50:
            late = np.array(samples[len(samples) // 10 :], float)
            slope = f"{np.polyfit(late[:, 0], late[:, 1], 1)[0] / 1e3:.1f} kB"
        lines.append(f"| {count:,} | {wall:.2f} s | {1000 * wall / count:.1f} ms | {slope} | {max(known)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exposures", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--update", metavar="FILE", help="put the table of scaling into this file")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        count, folder, *paths = options.one
        print(json.dumps(asdict(measured(paths, Path(folder), int(count)))))
        return
    from jwstdask.simulate import make_cache, make_program

    with tempfile.TemporaryDirectory(prefix="jwstdask-benchmark-") as scratch:
        folder = Path(scratch)
        cache = make_cache(folder / "cache", detectors=("nrca1",), size="small", subarray="SUB640", filters=("F200W",))
        made = make_program(
            folder / "program", cache, subarray="SUB640", readpatt="RAPID", ngroups=10, nints=4, dithers=1
        )
        os.environ.update(cache.environment)
        source = Path(made.uncals[0])
        paths = []
        for number in range(options.exposures):
            paths.append(folder / f"jw01234001001_02101_{number + 1:05d}_nrca1_uncal.fits")
            paths[-1].symlink_to(source)
        print(f"load {os.getloadavg()[0]:.1f}\n")
        lines = scaling(paths, folder, options.repeat)
        print("\n".join(lines), "\n", flush=True)
        if options.update:
            between(Path(options.update), "<!-- scaling table -->\n", "\n".join(lines))
        executor = local_cluster(2)
        try:
            print("\n".join(overhead(plans_of(paths[:1], folder)[0], executor, (1, 100, options.tasks))))
        finally:
            executor.close()
        print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
