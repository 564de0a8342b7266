"""NIRCam imaging beside the oracle: ``python -m tests.benchmarks.imaging [--folder DIR] [--update README.md]``.

Full-frame exposures of 1 integration and 10 groups, parameter references on (the snowball search too), warm numba
cache, one thread. *Marginal* is the cost of one more exposure: that of four in one command less that of one, divided
by three; the oracle runs by ``.call`` in a loop in one process. *Command* is one command for one exposure, start-up
and imports included; the oracle's is ``strun``. Both read the raw file and write all products.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from tests.benchmarks.measure import HEADER, ORACLE, OURS, STRUN, Cost, between, folder_of, line, marginal, parser, run

COUNT = 4


def program(folder: Path) -> tuple[dict[str, str], list[Path]]:
    """The synthetic program, made once in ``folder``: CRDS variables and uncal files."""
    from jwstdask.simulate import Cache, Program, make_cache, make_program

    if not (folder / "program" / "simulation.json").exists():
        cache = make_cache(folder / "cache", detectors=("nrca1",), size="full", subarray="FULL", filters=("F200W",))
        made = make_program(folder / "program", cache, dithers=COUNT, readpatt="BRIGHT2", ngroups=10)
    else:
        cache, made = Cache.open(folder / "cache"), Program.open(folder / "program")
    return dict(cache.environment), sorted(map(Path, made.uncals))


def association(folder: Path, cals: list[Path]) -> Path:
    """An image3 association of calibrated exposures."""
    members = [{"expname": path.name, "exptype": "science"} for path in cals]
    tree = {
        "asn_type": "image3",
        "asn_rule": "DMS_Level3_Base",
        "asn_id": "o001",
        "asn_pool": "none",
        "program": "01234",
        "products": [{"name": "mosaic", "members": members}],
    }
    path = folder / "mosaic_asn.json"
    path.write_text(json.dumps(tree))
    return path


def compare(folder: Path) -> list[str]:
    """Measure every case; a line of the table each."""
    environment, uncals = program(folder)
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    rows = []
    ours, theirs = folder / "ours", folder / "theirs"
    for path in (ours, theirs):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()

    def measure(name: str, command: list[str]) -> Cost:
        print(f"{name} ...", file=sys.stderr, flush=True)
        return run(command, environment, folder, folder / "log.txt")

    # Once more than is measured: compiles the kernels, reads the references from disk.
    measure("warm-up", [*OURS, "run", "calwebb_detector1", str(uncals[0]), f"--output_dir={ours}", "--threads=1"])
    measure(
        "warm-up", [*OURS, "run", "calwebb_image2", str(_rate(ours, uncals[0])), f"--output_dir={ours}", "--threads=1"]
    )
    for pipeline, inputs in (
        ("calwebb_detector1", [[path, path] for path in uncals]),
        ("calwebb_image2", [[_rate(ours, path), _rate(theirs, path)] for path in uncals]),
    ):
        mine = [str(pair[0]) for pair in inputs]
        its = [str(pair[1]) for pair in inputs]
        # Other order than in the file system cache: the oracle first.
        single = measure(
            f"strun {pipeline}", [STRUN, pipeline, its[0], "--save_results=true", f"--output_dir={theirs}"]
        )
        one = measure(f"oracle {pipeline} x 1", [*ORACLE, pipeline, str(theirs), its[0]])
        four = measure(f"oracle {pipeline} x {COUNT}", [*ORACLE, pipeline, str(theirs), *its])
        arguments = [f"--output_dir={ours}", "--threads=1"]
        my_one = measure(f"jwstdask {pipeline} x 1", [*OURS, "run", pipeline, mine[0], *arguments])
        my_four = measure(f"jwstdask {pipeline} x {COUNT}", [*OURS, "run", pipeline, *mine, *arguments])
        rows.append(
            line(f"{pipeline}, one more exposure", marginal(one, four, COUNT), marginal(my_one, my_four, COUNT))
        )
        rows.append(line(f"{pipeline}, one command", single, my_one))
    for path in (ours, theirs):
        association(path, sorted(path.glob("*_cal.fits")))
    mosaic = f"calwebb_image3 of {COUNT}, one command"
    their_mosaic = measure(mosaic, [STRUN, "calwebb_image3", str(theirs / "mosaic_asn.json"), f"--output_dir={theirs}"])
    my_mosaic = measure(
        mosaic, [*OURS, "run", "calwebb_image3", str(ours / "mosaic_asn.json"), f"--output_dir={ours}", "--threads=1"]
    )
    rows.append(line(mosaic, their_mosaic, my_mosaic))
    return rows


def _rate(folder: Path, uncal: Path) -> Path:
    return folder / uncal.name.replace("_uncal", "_rate")


def main() -> None:
    options = parser(__doc__).parse_args()
    with folder_of(options) as folder:
        text = "\n".join([HEADER, *compare(folder)])
    cores = os.cpu_count()
    print(text)
    print(f"\n{cores} cores; load before {os.getloadavg()[2]:.1f}", file=sys.stderr)
    if options.update:
        between(options.update, "<!-- speed table -->\n", text)


if __name__ == "__main__":
    main()
