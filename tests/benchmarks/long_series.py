"""A time series larger than memory: ``python -m tests.benchmarks.long_series [--integrations 100000] [--size 16]``.

A raw file of that many integrations of a small subarray goes through ``calwebb_detector1`` in a process of its own,
whose anonymous memory is sampled. The file is sparse: its first integrations are those of a simulated exposure, the
others empty (a constant). Prints the sizes of the files, the predicted and measured peak above what the process had
after a short exposure, and the time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

_MEASURE = Path(__file__).parent.parent / "promises" / "measure_memory.py"
_BLOCK = 2880


def make(source: Path, path: Path, integrations: int, size: int, repeat: bool = False) -> Path:
    """A raw file of many integrations.

    Parameters
    ----------
    source
        A simulated exposure, whose first rows and columns are used.
    path
        Of the file.
    integrations
        How many.
    size
        Rows and columns.
    repeat
        Repeat the integrations of the source until the end, so that all of them hold signal; else leave a hole.
    """
    with fits.open(source) as hdus:
        raw = hdus["SCI"].data[..., :size, :size]
        nints, ngroups = raw.shape[:2]
        primary, science, times = hdus[0].copy(), hdus["SCI"].header.copy(), hdus["INT_TIMES"].data
        rows = np.resize(times, integrations)
        rows["integration_number"] = np.arange(1, integrations + 1)
        table = fits.BinTableHDU(rows, name="INT_TIMES")
    primary.header.update(NINTS=integrations, SUBSIZE1=size, SUBSIZE2=size, INTEND=integrations)
    science.update(NAXIS1=size, NAXIS2=size, NAXIS4=integrations)
    stored = (raw.astype(np.int32) - 32768).astype(">i2")
    length = integrations * stored[0].nbytes
    primary.writeto(path)
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(science.tostring(padding=True).encode())
        start = file.tell()
        for first in range(0, integrations if repeat else min(nints, integrations), nints):
            file.write(stored[: integrations - first].tobytes())
        file.truncate(start + -(-length // _BLOCK) * _BLOCK)
    fits.append(path, table.data, table.header)
    assert ngroups == fits.getval(path, "NGROUPS")
    return path


def cut_dark(dark: Path, path: Path, size: int) -> Path:
    """The first rows and columns of a dark reference: darks are not cut by the step."""
    with fits.open(dark) as hdus:
        for hdu in hdus:
            if hdu.is_image and hdu.data is not None:
                hdu.data = hdu.data[..., :size, :size]
        hdus[0].header.update(SUBSIZE1=size, SUBSIZE2=size)
        hdus.writeto(path)
    return path


def measure(path: Path, folder: Path, warm: Path | None = None, **parameters: Any) -> dict[str, Any]:
    """Predicted and measured peak, and what the process held before [bytes]; wall and CPU seconds."""
    work = {
        "path": str(path),
        "warm": str(warm or path),
        "times": 1,
        "pipeline": "calwebb_detector1",
        "parameters": parameters,
        "output_dir": str(folder),
    }
    done = subprocess.run([sys.executable, str(_MEASURE), json.dumps(work)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def simulated(folder: Path) -> tuple[Path, Path]:
    """A short time series and its dark; the CRDS cache goes into the environment."""
    from jwstdask.simulate import make_cache, make_program

    cache = make_cache(folder / "cache", detectors=("nrcb1",), size="small", subarray="SUB64P", filters=("F200W",))
    options: dict[str, Any] = {"exp_type": "NRC_TSIMAGE", "tso": True, "detectors": ("nrcb1",), "filter": "F200W"}
    program = make_program(
        folder / "program", cache, subarray="SUB64P", readpatt="RAPID", ngroups=5, nints=110, dithers=1, **options
    )
    os.environ.update(cache.environment)
    return Path(program.uncals[0]), Path(cache.reference("nrcb1", "dark:SUB64P"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--integrations", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=16, help="rows and columns (at most 64)")
    parser.add_argument("--folder", type=Path, help="where files are kept (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jwstdask-benchmark-", dir=options.folder) as scratch:
        folder = Path(scratch)
        source, dark = simulated(folder)
        dark = cut_dark(dark, folder / "dark.fits", options.size)
        name = source.name.partition("_nrc")[0][:-5]
        paths = [
            make(source, folder / f"{name}0000{number}_nrcb1_uncal.fits", integrations, options.size)
            for number, integrations in ((2, 110), (3, options.integrations))
        ]
        path = paths[1]
        found = measure(path, folder / "products", warm=paths[0], dark_current={"override_dark": str(dark)})
        rate = next((folder / "products").glob("*00003*_rateints.fits"))
        with fits.open(rate) as hdus:
            print(f"rateints {hdus['SCI'].shape}: {rate.stat().st_size / 1e6:,.0f} MB")
        print(
            f"uncal: {path.stat().st_size / 1e6:,.0f} MB, {path.stat().st_blocks * 512 / 1e6:,.0f} MB of them on disk"
        )
        print(", ".join(f"{name} {found[name] / 1e6:,.0f} MB" for name in ("predicted", "peak", "base")))
        print(f"{found['seconds']:.0f} s, {found['cpu']:.0f} s of CPU; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
