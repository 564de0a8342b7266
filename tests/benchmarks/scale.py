"""Many exposures: ``python -m tests.benchmarks.scale [--exposures 1 100 10000] [--update cluster/README.md]``.

Whole programs of that many exposures, planned from the headers of as many files and run with the real planner, journal,
records, executor and scheduler on two workers; only the work on pixels is left out: a worker answers with an outcome.
The files are those of one small exposure, their pixels holes in the file.

CPU is that of this process, in which client, scheduler and journal live. Its memory is sampled while tasks arrive, and
a line is fitted. The machine may be shared: wall times are the best of ``--repeat`` runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from astropy.io import fits

from jwstdask.core.plan import ExposurePlan, Outcome, StepRecord
from jwstdask.core.settings import Settings
from jwstdask.engine.clusters import local_cluster
from jwstdask.engine.executor import Cluster, Executor
from jwstdask.pipelines.inputs import find_inputs
from jwstdask.pipelines.program_plan import ProgramPlan, plan_program
from jwstdask.pipelines.resume import Ledger, Resume, witness
from jwstdask.pipelines.run import run_program
from jwstdask.program.journal import journal_path
from tests.benchmarks.measure import anonymous, between

FLAGS = ("DO_NOT_USE", "SATURATED", "JUMP_DET", "NON_SCIENCE", "REFERENCE_PIXEL", "DEAD", "HOT", "NO_FLAT_FIELD")


def nothing(plan: ExposurePlan, executor: Executor | None = None) -> Outcome:
    """An exposure without its work; what is told of it is as much as of one that was done."""
    steps = tuple(StepRecord(item.name, "COMPLETE", item.skip or "", 0.1234) for item in plan.steps)
    counts = {name: 1000 + number for number, name in enumerate((*FLAGS, "any", "all"))}
    census = {name: dict(counts) for name in ("groups", "mask", *plan.products)}
    return Outcome(plan.path, plan.pipeline, dict(plan.products), steps, wall=1.0, cpu=1.0, census=census)


@contextlib.contextmanager
def without_pixels() -> Iterator[None]:
    """Programs whose exposures are not worked on."""
    before = Ledger.work
    Ledger.work = property(lambda self: partial(witness, folder=self.folder, command=self.command, work=nothing))  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        Ledger.work = before  # type: ignore[method-assign]


def files(source: Path, folder: Path, count: int) -> None:
    """As many exposures as that, with the headers of one and pixels that take no room."""
    data = source.read_bytes()
    with fits.open(source) as hdus:
        places = [(hdu.fileinfo()["datLoc"], hdu.fileinfo()["datSpan"], hdu.name) for hdu in hdus]
    holes = [(start, start + span) for start, span, name in places if name == "SCI"]
    kept, position = [], 0
    for start, stop in [*holes, (len(data), len(data))]:
        kept.append((position, data[position:start]))
        position = stop
    old = data.index(b"FILENAME")
    folder.mkdir()
    for number in range(count):
        visit, exposure = divmod(number, 10_000)
        name = f"jw01234{visit + 1:03d}001_02101_{exposure + 1:05d}_nrca3_uncal.fits"
        card = f"FILENAME= '{name}'".ljust(80).encode()
        with open(folder / name, "wb") as file:
            file.truncate(len(data))
            for start, piece in kept:
                file.seek(start)
                file.write(piece)
            file.seek(old)
            file.write(card)


@dataclass
class Found:
    """What a program cost: seconds, bytes."""

    count: int
    planned: float
    ran: float
    cpu: float
    memory: float | None
    journal: int
    known: int

    def line(self) -> str:
        """A row of the table."""
        memory = "" if self.memory is None else f"{self.memory / 1e3:.1f} kB"
        each = (f"{1e3 * value / self.count:.2f} ms" for value in (self.planned, self.cpu, self.ran))
        values = (f"{self.planned:.1f} s", *each, memory, f"{self.journal / self.count:.0f} bytes", str(self.known))
        return f"| {self.count:,} | {' | '.join(values)} |"


NAMES = (
    "exposures",
    "planned in",
    "planning, each",
    "CPU of client and scheduler, each",
    "wall, each",
    "memory, each",
    "journal, each",
    "most tasks in the scheduler",
)


def program(folder: Path, output: Path, executor: Cluster) -> Found:
    """Plan and run the exposures of a folder."""
    settings = Settings((), output_dir=str(output))
    samples: list[tuple[int, int]] = []
    known = [0]
    began = [0.0, 0.0]

    def planned(plan: ProgramPlan) -> None:
        began[:] = time.perf_counter(), time.process_time()

    def arrived(outcome: Outcome) -> None:
        if outcome.error is not None:
            raise RuntimeError(outcome.error)
        known.append(len(executor.owner.scheduler.tasks))
        if len(known) % 20 == 0:
            samples.append((len(known), anonymous(os.getpid())))

    started = time.perf_counter()
    with without_pixels():
        result = run_program(
            [str(folder)], 1, settings, executor, report=arrived, planned=planned, resume=Resume(), grain="exposure"
        )
    ended, cpu = time.perf_counter(), time.process_time()
    slope = None
    if len(samples) > 50:
        late = np.array(samples[len(samples) // 10 :], float)
        slope = float(np.polyfit(late[:, 0], late[:, 1], 1)[0])
    size = os.path.getsize(journal_path(output))
    return Found(len(result.outcomes), began[0] - started, ended - began[0], cpu - began[1], slope, size, max(known))


def table(counts: Sequence[int], repeat: int, source: Path, scratch: Path, say: Callable[[str], None]) -> list[str]:
    """A row for each number of exposures, the best of some runs."""
    lines = [f"| {' | '.join(NAMES)} |", "|---" * len(NAMES) + "|"]
    for count in counts:
        folder = scratch / f"uncal{count}"
        files(source, folder, count)
        found = []
        for number in range(repeat if count < 5000 else 1):
            output = scratch / f"products{count}_{number}"
            executor = local_cluster(2)
            try:
                found.append(program(folder, output, executor))
            finally:
                executor.close()
            shutil.rmtree(output)
            say(found[-1].line())
        shutil.rmtree(folder)
        best = min(found, key=lambda item: item.ran)
        best.planned, best.cpu = min(item.planned for item in found), min(item.cpu for item in found)
        lines.append(best.line())
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exposures", type=int, nargs="+", default=[1, 100, 10_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--update", metavar="FILE", help="put the table into this file")
    options = parser.parse_args()
    from jwstdask.simulate import make_cache, make_program

    with tempfile.TemporaryDirectory(prefix="jwstdask-scale-") as scratch:
        folder = Path(scratch)
        cache = make_cache(folder / "cache", detectors=("nrca3",), size="small", subarray="SUB64P", filters=("F200W",))
        made = make_program(folder / "program", cache, subarray="SUB64P", readpatt="RAPID", ngroups=2, dithers=1)
        os.environ.update(cache.environment)
        # Imports, and what is read once.
        plan_program(find_inputs([str(made.uncals[0])]), 1, Settings(()), {})
        lines = table(options.exposures, options.repeat, Path(made.uncals[0]), folder, partial(print, flush=True))
    print("\n".join(lines))
    if options.update:
        between(Path(options.update), "<!-- scale table -->\n", "\n".join(lines))


if __name__ == "__main__":
    # Functions of a module that is run are sent to workers as code, each time.
    from tests.benchmarks import scale

    scale.main()
