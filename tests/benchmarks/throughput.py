"""Many small exposures: ``python -m tests.benchmarks.throughput [--exposures 40] [--through 1] [--update README.md]``.

The same exposures (320 x 320 pixels, 10 groups) three ways: a shell loop over the oracle's ``strun``, ``xargs`` with
several of these at a time, and one ``jwstdask run`` with as many workers. Each way starts from the raw files and writes
all products, start-up included; numba's cache is warm, parameter references are on, libraries get one thread. Memory is
sampled: the highest sum over all processes, anonymous pages only (shared ones are not counted twice), and the largest
process with all it maps.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from tests.benchmarks.measure import OURS, STRUN, Cost, between, folder_of, parser, run

MARKER = "<!-- throughput table -->\n"
HEADER = """\
| way | at a time | exposures | wall | an exposure | CPU | all processes | largest process |
|---|---|---|---|---|---|---|---|"""
PIPELINES = ("calwebb_detector1", "calwebb_image2")


def program(folder: Path, count: int) -> tuple[dict[str, str], list[Path]]:
    """Dithered exposures: CRDS variables and uncal files."""
    from jwstdask.simulate import Cache, Program, make_cache, make_program

    if not (folder / "program" / "simulation.json").exists():
        cache = make_cache(folder / "cache", detectors=("nrca1",), size="small", subarray="SUB320", filters=("F200W",))
        made = make_program(folder / "program", cache, readpatt="RAPID", ngroups=10, nints=1, dithers=count)
    else:
        cache, made = Cache.open(folder / "cache"), Program.open(folder / "program")
    return dict(cache.environment), sorted(map(Path, made.uncals))


def script(path: Path, through: int, output: Path) -> Path:
    """A shell script that takes one exposure through the oracle's pipelines."""
    lines = ["set -e"]
    source = '"$1"'
    for pipeline, suffix in zip(PIPELINES[:through], ("rate", "cal")):
        command = shlex.join([STRUN, pipeline]), source, f"--save_results=true {shlex.quote(f'--output_dir={output}')}"
        lines.append(" ".join(command))
        source = f'{shlex.quote(str(output))}/"$(basename "$1" uncal.fits)"{suffix}.fits'
    path.write_text("\n".join(lines) + "\n")
    return path


def line(title: str, at_a_time: int, count: int, cost: Cost) -> str:
    """A line of the table."""
    return (
        f"| {title} | {at_a_time} | {count} | {cost.wall:.1f} s | {cost.wall / count:.2f} s | {cost.cpu:.1f} s "
        f"| {cost.anonymous / 1e6:.0f} MB | {cost.resident / 1e6:.0f} MB |"
    )


def compare(folder: Path, exposures: int, oracle: int, workers: int, through: int) -> list[str]:
    """A line for each way.

    Raises
    ------
    RuntimeError
        If a way fails or makes other products than the rest.
    """
    environment, uncals = program(folder, exposures)
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    made: dict[str, set[str]] = {}
    lines: list[str] = []

    def measure(title: str, at_a_time: int, paths: list[Path], output: Path, command: list[str]) -> None:
        print(f"{title} ...", file=sys.stderr, flush=True)
        cost = run(command, environment, folder, folder / "log.txt")
        made[title] = {path.name for path in output.glob("*.fits")}
        missing = {path.name.replace("uncal", "rate") for path in paths} - made[title]
        if missing:
            raise RuntimeError(f"{title} did not make {', '.join(sorted(missing))}")
        lines.append(line(title, at_a_time, len(paths), cost))
        print(lines[-1], file=sys.stderr, flush=True)
        shutil.rmtree(output)

    some = uncals[:oracle]
    listed = folder / "exposures.txt"
    listed.write_text("".join(f"{path}\n" for path in some))
    for title, at_a_time, words in (
        ("shell loop over `strun`", 1, "while read exposure; do sh {script} $exposure; done < {listed}"),
        (f"`xargs -P {workers}` of `strun`", workers, f"xargs -a {{listed}} -n 1 -P {workers} sh {{script}}"),
    ):
        output = folder / "theirs"
        output.mkdir()
        one = script(folder / "one.sh", through, output)
        command = words.format(script=shlex.quote(str(one)), listed=shlex.quote(str(listed)))
        measure(title, at_a_time, some, output, ["sh", "-ec", command])
    ours = [*OURS, "run", f"--through={through}", f"--workers={workers}"]
    warm = folder / "warm"
    run([*ours, str(uncals[0]), f"--output_dir={warm}"], environment, folder, folder / "log.txt")
    output = folder / "ours"
    title = f"`jwstdask run --workers {workers}`"
    measure(title, workers, uncals, output, [*ours, str(folder / "program"), f"--output_dir={output}"])
    for other, names in made.items():
        share = len(uncals if other == title else some)
        if names - made[title] or len(names) * len(uncals) != len(made[title]) * share:
            raise RuntimeError(f"{title} and {other} made other products: {sorted(names ^ made[title])}")
    return lines


def main() -> None:
    options_parser = parser(__doc__)
    options_parser.add_argument("--exposures", type=int, default=40)
    options_parser.add_argument("--oracle", type=int, metavar="N", help="exposures the oracle gets (default: all)")
    options_parser.add_argument("--workers", type=int, default=2)
    options_parser.add_argument("--through", type=int, default=1, choices=(1, 2), help="last stage")
    options = options_parser.parse_args()
    with folder_of(options) as folder:
        count = options.oracle or options.exposures
        place = folder / f"throughput{options.exposures}"
        rows = compare(place, options.exposures, count, options.workers, options.through)
    text = "\n".join([HEADER, *rows])
    print(text)
    print(f"\n{os.cpu_count()} cores; load before {os.getloadavg()[2]:.1f}", file=sys.stderr)
    if options.update:
        between(options.update, MARKER, text)


if __name__ == "__main__":
    main()
