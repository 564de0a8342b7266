"""Scaling and overhead: ``python -m tests.benchmarks.scaling [--exposures 12] [--tasks 10000]``.

*Scaling*: the same exposures through ``calwebb_detector1`` on one worker process and on two, with and without the time
until the workers are warm; pixels are compared. *Overhead*: 1, 100 and 10,000 plans of real size go through the
executor to a worker that does nothing with them but return an outcome; the memory of this process, in which the
scheduler runs, is sampled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from astropy.io import fits

from jwstdask.core.plan import ExposurePlan, Outcome
from jwstdask.core.settings import Settings
from jwstdask.engine.clusters import local_cluster
from jwstdask.engine.executor import Cluster, Executor
from jwstdask.engine.exposure import run_exposure
from jwstdask.pipelines.planner import Request, plan_exposures
from jwstdask.pipelines.registry import find
from jwstdask.pipelines.run import run_chain, run_chains
from tests.benchmarks.measure import anonymous


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


def scaling(paths: Sequence[Path], folder: Path, counts: Sequence[int] = (1, 2)) -> list[str]:
    """A line for each number of workers.

    *Start-up* is until every worker has done an exposure: processes, imports, compiled kernels, references. *Busy* is
    the part of the wall time after it in which the workers were at work on exposures: the rest is what the engine
    costs. It hardly depends on what else the machine does, unlike the efficiencies, which compare wall times.
    """
    names = ("workers", "start-up", "wall", "busy", "CPU per exposure", "efficiency", "with start-up", "same bits")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    first: tuple[float, float, dict[str, str]] | None = None
    for count in counts:
        output = folder / f"workers{count}"
        chains = [[plan] for plan in plans_of(paths, output)]
        notes = folder / f"notes{count}"
        notes.mkdir()
        began = time.time()
        executor = local_cluster(count)
        try:
            workers = list(executor.client.scheduler_info(n_workers=-1)["workers"])
            executor.client.gather(
                [
                    executor.client.submit(run_chain, chain, workers=[worker], pure=False)
                    for chain, worker in zip(chains, workers, strict=False)
                ]
            )
            started = time.time()
            outcomes = run_chains(chains, executor, grain="exposure", work=partial(noted, str(notes)))
            wall = time.time() - started
        finally:
            executor.close()
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors:
            raise RuntimeError(errors[0])
        found = [json.loads(path.read_text()) for path in notes.glob("*.json")]
        busy = sum(note["ended"] - note["started"] for note in found) / (count * wall)
        cpu = sum(note["cpu"] for note in found) / len(found)
        total = wall + started - began
        first = first or (wall * count, total * count, pixels(output))
        efficiency, both = first[0] / (wall * count), first[1] / (total * count)
        same = "yes" if pixels(output) == first[2] else "NO"
        values = (f"{started - began:.2f} s", f"{wall:.2f} s", f"{100 * busy:.0f} %", f"{cpu:.2f} s")
        lines.append(f"| {count} | {' | '.join(values)} | {100 * efficiency:.0f} % | {100 * both:.0f} % | {same} |")
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


def overhead(plan: ExposurePlan, executor: Cluster, counts: Sequence[int]) -> list[str]:
    """A line for each number of tasks; memory is sampled a hundred times, and a line fitted."""
    lines = ["| tasks | wall | per task | memory per task | tasks known to the scheduler |", "|---|---|---|---|---|"]
    executor.map(nothing, [[plan]] * 8)
    for count in counts:
        # Made one by one: what is held is what the executor holds.
        chains = ([replace(plan, path=f"{plan.path}.{index}")] for index in range(count))
        samples: list[tuple[int, int]] = []
        known = [0]
        note = partial(_sample, executor, samples, known, max(count // 100, 50))
        started = time.perf_counter()
        executor.map(nothing, chains, note)
        wall = time.perf_counter() - started
        slope = ""
        if len(samples) > 50:
            late = np.array(samples[len(samples) // 10 :], float)
            slope = f"{np.polyfit(late[:, 0], late[:, 1], 1)[0] / 1e3:.1f} kB"
        lines.append(f"| {count:,} | {wall:.2f} s | {1000 * wall / count:.1f} ms | {slope} | {max(known)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exposures", type=int, default=12)
    parser.add_argument("--tasks", type=int, default=10_000)
    options = parser.parse_args()
    from jwstdask.simulate import make_cache, make_program

    with tempfile.TemporaryDirectory(prefix="jwstdask-benchmark-") as scratch:
        folder = Path(scratch)
        cache = make_cache(folder / "cache", detectors=("nrca1",), size="small", subarray="SUB320", filters=("F200W",))
        made = make_program(
            folder / "program", cache, subarray="SUB320", readpatt="RAPID", ngroups=10, nints=4, dithers=1
        )
        os.environ.update(cache.environment)
        source = Path(made.uncals[0])
        paths = []
        for number in range(options.exposures):
            paths.append(folder / f"jw01234001001_02101_{number + 1:05d}_nrca1_uncal.fits")
            paths[-1].symlink_to(source)
        print(f"load {os.getloadavg()[0]:.1f}\n")
        print("\n".join(scaling(paths, folder)), "\n", flush=True)
        executor = local_cluster(2)
        try:
            print("\n".join(overhead(plans_of(paths[:1], folder)[0], executor, (1, 100, options.tasks))))
        finally:
            executor.close()
        print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
