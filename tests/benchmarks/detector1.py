"""Stage 1 beside the oracle: ``python -m tests.benchmarks.detector1 [CASE ...] [--folder DIR] [--update README.md]``.

*One more exposure* is the cost of one more exposure in the same command or, of the oracle, in the same process;
*one command* that of one command or process for one exposure. Parameter references are on, numba's cache is warm, one
thread. The speed of a shared machine changes from minute to minute: ours is measured three times, before and after the
oracle, and the median by CPU time is shown, as of the oracle where it is given several exposures. It is given one where
that takes minutes, after a very small one; of long series, of which it keeps many times the raw file in memory, one of
fewer integrations, and its cost is scaled by their number.

The *floor* is what moving the bytes alone would take: raw file, references and products, once each, at the measured
bandwidth of a copy. ``--update`` also puts the numbers into chapter 4 of the book, which plots them.

``--prepare`` makes the exposures, runs each case once and measures nothing; ``--folder`` keeps them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import (
    HEADER,
    ORACLE,
    OURS,
    Cost,
    between,
    copy_bandwidth,
    folder_of,
    line,
    marginal,
    median,
    parser,
    run,
)

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
        Exposures of the oracle, and in the longer of two runs.
    fewer
        Integrations of the exposure that the oracle is given; 0 for all.
    """

    title: str
    cache: Mapping[str, Any]
    program: Mapping[str, Any]
    goal: int
    options: Mapping[str, Any] = field(default_factory=dict)
    theirs: int = 4
    ours: int = 8
    fewer: int = 0

    @property
    def scale(self) -> float:
        """By what the oracle's cost is multiplied."""
        return self.program["nints"] / self.fewer if self.fewer else 1.0


_NIRCAM = {"detectors": ("nrca1",), "size": "full", "subarray": "FULL", "filters": ("F200W",)}
_PLAIN = {"steps.jump.expand_large_events": False}
_CASES = {
    "nircam": Case("NIRCam full frame, 1 x 10", _NIRCAM, {"readpatt": "BRIGHT2", "ngroups": 10}, 40, _PLAIN),
    "snowballs": Case(
        "the same, snowballs on, crowded field",
        _NIRCAM,
        # Of 12,000 stars, some 2,000 saturate before the end of the ramp.
        {"readpatt": "BRIGHT2", "ngroups": 10, "stars": 12_000, "separation": 0.06, "rates": (30.0, 3000.0)},
        60,
        # jwst's own thresholds: 1,800 jumps in each group are looked at for 2 to 1,600 cores that saturate.
        {
            "steps.jump.expand_large_events": True,
            "steps.jump.min_jump_area": 5.0,
            "steps.jump.min_sat_area": 1.0,
        },
        theirs=1,
    ),
    "integrations": Case(
        "NIRCam full frame, 4 x 10",
        _NIRCAM,
        {"readpatt": "BRIGHT2", "ngroups": 10, "nints": 4},
        40,
        _PLAIN,
        theirs=1,
        ours=4,
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
        theirs=1,
        ours=2,
        fewer=100,
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
        theirs=1,
        ours=2,
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
        theirs=1,
        ours=2,
        fewer=100,
    ),
    "likely": Case(
        "NIRCam full frame, 1 x 10, LIKELY",
        _NIRCAM,
        {"readpatt": "BRIGHT2", "ngroups": 10},
        20,
        {**_PLAIN, "steps.ramp_fit.algorithm": "LIKELY"},
        theirs=3,
    ),
}


_CHAPTER = "notebooks/04-stage-1-near-infrared.ipynb"
_CELL = "speed"


@dataclass(frozen=True)
class Exposures:
    """Raw files of a case.

    Attributes
    ----------
    environment
        CRDS variables.
    ours, theirs
        What both are given; one and the same exposure under several names, but of fewer integrations where the case
        says so.
    small
        A very small one.
    """

    environment: Mapping[str, str]
    ours: tuple[Path, ...]
    theirs: tuple[Path, ...]
    small: Path


def prepare(case: Case, folder: Path) -> Exposures:
    """The exposures of a case, made once."""
    from jwstdask.simulate import Cache, Program, make_cache, make_program

    folder.mkdir(parents=True, exist_ok=True)
    made = (folder / "cache").exists() and (folder / "program" / "simulation.json").exists()
    cache = Cache.open(folder / "cache") if made else make_cache(folder / "cache", **case.cache)

    def uncal(name: str, **changes: Any) -> Path:
        path = folder / name
        if (path / "simulation.json").exists():
            return Path(Program.open(path).uncals[0])
        return Path(make_program(path, cache, dithers=1, **{**case.program, **changes}).uncals[0])

    def copies(first: Path, count: int) -> tuple[Path, ...]:
        paths = [first]
        for number in range(2, count + 1):
            paths.append(folder / first.name.replace("_00001_", f"_{number:05d}_"))
            if not paths[-1].exists():
                os.link(first, paths[-1])
        return tuple(paths)

    first = uncal("program")
    theirs = (uncal("fewer", nints=case.fewer),) if case.fewer else copies(first, case.theirs)
    small = uncal("small", nints=1, ngroups=3, stars=10) if case.theirs == 1 else theirs[0]
    return Exposures(dict(cache.environment), copies(first, case.ours), theirs, small)


_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _words(case: Case) -> list[str]:
    return [f"--{name}={value}" for name, value in case.options.items()]


def run_ours(case: Case, exposures: Exposures, folder: Path, count: int) -> Cost:
    """Cost of one command for so many exposures."""
    print(f"  jwstdask x {count} ...", file=sys.stderr, flush=True)
    inputs = map(str, exposures.ours[:count])
    command = [*OURS, "run", PIPELINE, *inputs, *_words(case), f"--output_dir={folder / 'ours'}", "--threads=1"]
    return run(command, {**exposures.environment, **_THREAD}, folder, folder / "log.txt")


def run_pair(case: Case, exposures: Exposures, folder: Path) -> tuple[Cost, Cost]:
    """Cost of one command for one exposure, and of one more exposure."""
    one, many = (run_ours(case, exposures, folder, count) for count in (1, case.ours))
    return one, marginal(one, many, case.ours)


def run_theirs(case: Case, exposures: Exposures, folder: Path) -> tuple[Cost, Cost | None]:
    """Cost of one more exposure and, if there are several, of one process for one exposure."""
    inputs = list(exposures.theirs) if exposures.small in exposures.theirs else [exposures.small, *exposures.theirs]
    print(f"  jwst x {len(exposures.theirs)} ...", file=sys.stderr, flush=True)
    costs = folder / "costs.txt"
    costs.unlink(missing_ok=True)
    command = [*ORACLE, PIPELINE, str(folder / "theirs"), *map(str, inputs), *_words(case), f"--costs={costs}"]
    whole = run(command, {**exposures.environment, **_THREAD}, folder, folder / "log.txt")
    times = [tuple(map(float, text.split())) for text in costs.read_text().splitlines()]
    memory = int(whole.anonymous * case.scale), int(whole.resident * case.scale)

    def between_two(before: tuple[float, ...], after: tuple[float, ...]) -> Cost:
        return Cost(*(case.scale * (end - start) for start, end in zip(before, after, strict=True)), *memory)

    more = median([between_two(*pair) for pair in pairwise(times)])
    return more, None if exposures.small not in exposures.theirs else Cost(*times[0], *memory)


def moved(uncal: Path, products: Path, cache: Path) -> int:
    """Bytes of an exposure, its products and the references that these name."""
    from astropy.io import fits

    made = list(products.glob(f"{uncal.name.removesuffix('_uncal.fits')}_*.fits"))
    names = {
        value.removeprefix("crds://")
        for path in made
        for value in fits.getheader(path).values()
        if isinstance(value, str) and value.startswith("crds://")
    }
    references = [path for path in cache.rglob("*") if path.name in names]
    return sum(path.stat().st_size for path in (uncal, *made, *references))


def measure(case: Case, folder: Path) -> tuple[dict[str, tuple[Cost, Cost]], int, int]:
    """Costs of both programs by kind, and bytes of the raw file and of all that is moved."""
    exposures = prepare(case, folder)
    for path in (folder / "ours", folder / "theirs"):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    pairs = [run_pair(case, exposures, folder)]
    theirs, command = run_theirs(case, exposures, folder)
    shutil.rmtree(folder / "theirs")
    # Brings back from disk what the other program has displaced.
    run_ours(case, exposures, folder, 1)
    pairs += [run_pair(case, exposures, folder) for _ in range(2)]
    size = moved(exposures.ours[0], folder / "ours", folder / "cache")
    shutil.rmtree(folder / "ours")
    found = {"one more exposure": (theirs, median([more for _, more in pairs]))}
    if command is not None:
        found["one command"] = (command, median([one for one, _ in pairs]))
    return found, exposures.ours[0].stat().st_size, size


def rows(case: Case, pairs: Mapping[str, tuple[Cost, Cost]], raw: int, floor: float) -> list[str]:
    """Lines of the table."""
    scaled = f"; jwst: {case.fewer} integrations, scaled" if case.fewer else ""
    return [
        line(
            f"{case.title} ({raw / 1e6:.0f} MB, floor {floor:.2f} s{scaled}): {kind}",
            *costs,
            goal=f" (goal {case.goal})" if kind == "one more exposure" else "",
        )
        for kind, costs in pairs.items()
    ]


def into_chapter(path: Path, found: list[str]) -> None:
    """Put the numbers, a line a case, into the cell of a chapter that plots them."""
    import nbformat

    book = nbformat.read(path, as_version=4)
    cell = next(cell for cell in book.cells if cell.id == _CELL)
    before, opening, rest = cell.source.partition('"""\n')
    _, closing, after = rest.partition('"""')
    cell.source = before + opening + "".join(f"{line}\n" for line in found) + closing + after
    nbformat.write(book, path)


def main() -> None:
    options_parser = parser(__doc__)
    options_parser.add_argument("cases", nargs="*", default=list(_CASES), metavar="CASE", help=", ".join(_CASES))
    options_parser.add_argument("--prepare", action="store_true", help="make the exposures, compile the kernels")
    options = options_parser.parse_args()
    lines, found, bandwidth = [HEADER], list[str](), copy_bandwidth()
    with folder_of(options) as parent:
        for name in options.cases:
            print(name, file=sys.stderr)
            case, folder = _CASES[name], parent / name
            # Once more than is measured: compiles the kernels, reads the references from disk.
            if options.prepare or not options.folder:
                run_ours(case, prepare(case, folder), folder, 1)
                shutil.rmtree(folder / "ours")
            if not options.prepare:
                pairs, raw, size = measure(case, folder)
                lines += rows(case, pairs, raw, size / bandwidth)
                theirs, own = pairs["one more exposure"]
                found.append(f"{theirs.cpu:7.2f} {own.cpu:7.3f} {size / bandwidth:7.3f} {case.goal:4d}  {case.title}")
                print(lines[-1], file=sys.stderr, flush=True)
    if options.prepare:
        return
    print("\n".join(lines))
    if options.update:
        into_chapter(options.update.resolve().parent / _CHAPTER, found)
        between(options.update, "<!-- stage 1 speed table -->\n", "\n".join(lines))


if __name__ == "__main__":
    main()
