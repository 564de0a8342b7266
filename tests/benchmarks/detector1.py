"""Stage 1 beside the oracle: ``python -m tests.benchmarks.detector1 [CASE ...] [--folder DIR] [--update README.md]``.

Every case is measured as in :mod:`tests.benchmarks.imaging`: *marginal* is the cost of one more exposure in the same
command, *command* that of one command for one exposure. Parameter references are on, numba's cache is warm, one
thread.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import HEADER, ORACLE, OURS, STRUN, Cost, between, folder_of, line, marginal, parser, run

PIPELINE = "calwebb_detector1"


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes
    ----------
    title
        What it is.
    cache, program
        Arguments of the simulator.
    goal
        Wanted ratio of marginal CPU time.
    options
        Step parameters of both.
    theirs, ours
        Exposures in the longer of two runs.
    """

    title: str
    cache: Mapping[str, Any]
    program: Mapping[str, Any]
    goal: int
    options: Mapping[str, Any] = field(default_factory=dict)
    theirs: int = 2
    ours: int = 4


_NIRCAM = {"detectors": ("nrca1",), "size": "full", "subarray": "FULL", "filters": ("F200W",)}
_PLAIN = {"steps.jump.expand_large_events": False}
_CASES = {
    "nircam": Case("NIRCam full frame, 1 x 10", _NIRCAM, {"readpatt": "BRIGHT2", "ngroups": 10}, 40, _PLAIN, theirs=3),
    "snowballs": Case(
        "the same, snowballs on, crowded field",
        _NIRCAM,
        {"readpatt": "BRIGHT2", "ngroups": 10, "stars": 20_000},
        60,
        {"steps.jump.expand_large_events": True},
        theirs=3,
    ),
    "integrations": Case(
        "NIRCam full frame, 4 x 10", _NIRCAM, {"readpatt": "BRIGHT2", "ngroups": 10, "nints": 4}, 40, _PLAIN
    ),
    "series": Case(
        "NIRCam 256 x 2048, 200 x 8",
        {"detectors": ("nrcalong",), "subarray": "SUBGRISM256", "filters": ("F444W",)},
        {
            "readpatt": "RAPID",
            "ngroups": 8,
            "nints": 200,
            "filter": "F444W",
            "subarray": "SUBGRISM256",
            "exp_type": "NRC_TSGRISM",
            "tso": True,
        },
        15,
    ),
    "miri": Case(
        "MIRI full frame, 1 x 40, emicorr and showers",
        {"instrument": "miri", "detectors": ("mirimage",), "size": "full", "subarray": "FULL", "dark_groups": 40},
        {"readpatt": "FASTR1", "ngroups": 40, "subarray": "FULL"},
        15,
        {"steps.emicorr.skip": False, "steps.jump.find_showers": True},
    ),
    "irs2": Case(
        "NIRSpec IRS2 full frame, 1 x 20",
        {"instrument": "nirspec", "size": "full", "subarray": "FULL", "readpatt": "NRSIRS2RAPID"},
        {"readpatt": "NRSIRS2RAPID", "ngroups": 20, "subarray": "FULL"},
        15,
    ),
    "soss": Case(
        "NIRISS SOSS SUBSTRIP256, 500 x 5",
        {"instrument": "niriss", "detectors": ("nis",), "subarray": "SUBSTRIP256"},
        {
            "readpatt": "NISRAPID",
            "ngroups": 5,
            "nints": 500,
            "subarray": "SUBSTRIP256",
            "exp_type": "NIS_SOSS",
            "tso": True,
        },
        15,
    ),
    "likely": Case(
        "NIRCam full frame, 1 x 10, LIKELY",
        _NIRCAM,
        {"readpatt": "BRIGHT2", "ngroups": 10},
        20,
        {**_PLAIN, "steps.ramp_fit.algorithm": "LIKELY"},
    ),
}


def prepare(case: Case, folder: Path) -> tuple[dict[str, str], list[Path]]:
    """CRDS variables and uncal files of a case, made once; the exposures are one and the same under several names."""
    from jwstdask.simulate import Cache, Program, make_cache, make_program

    made = folder / "program" / "simulation.json"
    if made.exists():
        cache, program = Cache.open(folder / "cache"), Program.open(folder / "program")
    else:
        cache = make_cache(folder / "cache", **case.cache)
        program = make_program(folder / "program", cache, dithers=1, **case.program)
    first = Path(program.uncals[0])
    uncals = [first]
    for number in range(2, max(case.theirs, case.ours) + 1):
        uncals.append(folder / first.name.replace("_00001_", f"_{number:05d}_"))
        if not uncals[-1].exists():
            os.link(first, uncals[-1])
    return dict(cache.environment), uncals


def measure(case: Case, folder: Path) -> tuple[dict[str, tuple[Cost, Cost]], int]:
    """Costs of both programs by kind, and the size of the raw file [bytes]."""
    folder.mkdir(parents=True, exist_ok=True)
    environment, uncals = prepare(case, folder)
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ours, theirs = folder / "ours", folder / "theirs"
    for path in (ours, theirs):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    words = [f"--{name}={value}" for name, value in case.options.items()]

    def cost(name: str, command: list[str]) -> Cost:
        print(f"  {name} ...", file=sys.stderr, flush=True)
        return run(command, environment, folder, folder / "log.txt")

    def mine(count: int) -> list[str]:
        inputs = map(str, uncals[:count])
        return [*OURS, "run", PIPELINE, *inputs, *words, f"--output_dir={ours}", "--threads=1"]

    cost("warm-up", mine(1))
    command = [STRUN, PIPELINE, str(uncals[0]), *words, "--save_results=true", f"--output_dir={theirs}"]
    single = cost("strun", command)
    loops = [
        cost(f"jwst x {count}", [*ORACLE, PIPELINE, str(theirs), *map(str, uncals[:count]), *words])
        for count in (1, case.theirs)
    ]
    runs = [cost(f"jwstdask x {count}", mine(count)) for count in (1, case.ours)]
    pairs = {
        "one more exposure": (marginal(*loops, case.theirs), marginal(*runs, case.ours)),
        "one command": (single, runs[0]),
    }
    return pairs, uncals[0].stat().st_size


def rows(case: Case, pairs: Mapping[str, tuple[Cost, Cost]], raw: int) -> list[str]:
    """Lines of the table."""
    return [
        line(
            f"{case.title} ({raw / 1e6:.0f} MB): {kind}",
            *costs,
            goal=f" (goal {case.goal})" if kind == "one more exposure" else "",
        )
        for kind, costs in pairs.items()
    ]


def main() -> None:
    options_parser = parser(__doc__)
    options_parser.add_argument("cases", nargs="*", default=list(_CASES), metavar="CASE", help=", ".join(_CASES))
    options = options_parser.parse_args()
    lines = [HEADER]
    with folder_of(options) as parent:
        for name in options.cases:
            print(name, file=sys.stderr)
            folder = parent / name
            lines += rows(_CASES[name], *measure(_CASES[name], folder))
            print("\n".join(lines[-2:]), file=sys.stderr, flush=True)
    print("\n".join(lines))
    if options.update:
        between(options.update, "<!-- stage 1 speed table -->\n", "\n".join(lines))


if __name__ == "__main__":
    main()
