"""Promise: a time series of any number of integrations is calibrated in little memory, with the same bits."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from jwstdask.core.block import tiles
from jwstdask.core.errors import JwstdaskError
from jwstdask.engine import exposure, passes
from jwstdask.engine.executor import Serial
from jwstdask.io import product, turned
from jwstdask.io.turned import turned_array
from jwstdask.pipeline import Detector1Pipeline
from tests.benchmarks.long_series import cut_dark, make, measure
from tests.using import crds_of


@pytest.fixture(autouse=True)
def references(programs):
    with crds_of(programs.cache("timeseries")):
        yield


def series(programs, folder, number, integrations, size, repeat):
    source = Path(programs("timeseries").uncals[0])
    path = folder / f"jw01234001001_02101_0000{number}_nrcb1_uncal.fits"
    return make(source, path, integrations, size, repeat)


def dark_of(programs, folder, size):
    return cut_dark(Path(programs.cache("timeseries").reference("nrcb1", "dark:SUB64P")), folder / "dark.fits", size)


@pytest.mark.parametrize(("cached", "kept"), [(0.5, 1.0), (0.5, 0.0), (0.0, 1.0)], ids=["cached", "sent", "turned"])
@pytest.mark.parametrize("pixels", [30, 90])
def test_tiles_of_a_few_pixels_give_the_same_bits(programs, tmp_path, monkeypatch, pixels, cached, kept):
    """Tiles of one row or column, or of a few rows that are finished two by two, written through mapped memory.

    Of a file larger than memory, they come from a turned copy, and products are turned back. Large products are sent to
    the disk while they are made.
    """
    path = series(programs, tmp_path, 1, 150, 12, repeat=True)
    steps = {"dark_current": {"override_dark": str(dark_of(programs, tmp_path, 12))}, "ramp_fit": {"save_opt": True}}
    options = {"save_results": True, "steps": steps, "executor": Serial()}
    Detector1Pipeline.call(str(path), output_dir=str(tmp_path / "usual"), **options)
    sizes = []

    def noted(rows, shape, tile, halo):
        sizes.append(tile)
        return tiles(rows, shape, tile, halo)

    monkeypatch.setattr(passes, "LONG_TILE_BYTES", 4 * 150 * 5 * pixels)
    monkeypatch.setattr(passes, "_LONG_BYTES", 0)
    monkeypatch.setattr(passes, "band_height", lambda shape: 2)
    monkeypatch.setattr(passes, "tiles", noted)
    monkeypatch.setattr(exposure, "_LONGEST_STRIP", 0)
    monkeypatch.setattr(product, "_MANY_RUNS", 100)
    monkeypatch.setattr(exposure, "_CACHED", cached)
    monkeypatch.setattr(exposure, "_KEPT", kept)
    monkeypatch.setattr(turned, "_CHUNK_BYTES", 10_000)
    copies, sent, send = [], [], product.ProductHandle.send
    monkeypatch.setattr(product.ProductHandle, "send", lambda handle, rows: sent.append(rows) or send(handle, rows))
    monkeypatch.setattr(turned, "turned_array", lambda *given: copies.append(given[1]) or turned_array(*given))
    Detector1Pipeline.call(str(path), output_dir=str(tmp_path / "long"), **options)
    assert sizes
    assert bool(copies) is (cached == 0.0)
    assert bool(sent) is (kept == 0.0)
    assert [entry.suffix for entry in (tmp_path / "long").iterdir()] == [".fits"] * 3
    assert all(height * width < pixels for height, width in sizes)
    names = sorted(file.name for file in (tmp_path / "usual").glob("*.fits"))
    assert [name.split("nrcb1_")[1] for name in names] == ["fitopt.fits", "rate.fits", "rateints.fits"]
    for name in names:
        with fits.open(tmp_path / "usual" / name) as usual, fits.open(tmp_path / "long" / name) as other:
            for one in usual[1:]:
                if one.is_image and one.data is not None:
                    np.testing.assert_array_equal(one.data, other[one.name].data, err_msg=f"{name} {one.name}")
            assert np.isfinite(usual["SLOPE" if "fitopt" in name else "SCI"].data).any()


def test_no_room_for_turned_copies(programs, tmp_path, monkeypatch):
    """A clear error of that exposure, and nothing is left."""

    def full(folder, shape, dtype):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = series(programs, tmp_path, 1, 150, 12, repeat=True)
    monkeypatch.setattr(passes, "_LONG_BYTES", 0)
    monkeypatch.setattr(exposure, "_CACHED", 0.0)
    monkeypatch.setattr(turned, "turned_array", full)
    steps = {"dark_current": {"override_dark": str(dark_of(programs, tmp_path, 12))}}
    with pytest.raises(JwstdaskError, match=r"00001_nrcb1_uncal.fits: .*[Nn]o space left on device|disk is full"):
        Detector1Pipeline.call(
            str(path), output_dir=str(tmp_path / "long"), save_results=True, steps=steps, executor=Serial()
        )
    assert not list((tmp_path / "long").iterdir())


@pytest.mark.parametrize("planes", [1, 10, 1_000, 25_000, 500_000, 10**8])
@pytest.mark.parametrize("frame", [(8, 8), (64, 64), (2048, 2048)])
@pytest.mark.parametrize("halo", [0, 1, 3])
def test_no_tile_is_larger_than_allowed(planes, frame, halo):
    """But a tile of one pixel and its halo, and those that fit into a cache anyway."""
    rows, columns = passes.tile_shape((planes, 1, *frame), halo)
    assert 1 <= rows <= frame[0]
    assert 1 <= columns <= frame[1]
    held = 4 * planes * (rows + 2 * halo) * (columns + 2 * halo)
    assert held <= passes.LONG_TILE_BYTES or (rows, columns) == (1, 1)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_is_bounded_and_foreseen(programs, tmp_path):
    """12,000 integrations of 16 x 16 pixels, whose ramp and products have 140 MB; and the prediction within 25 %."""
    paths = [series(programs, tmp_path, number, nints, 16, repeat=False) for number, nints in ((1, 110), (2, 12_000))]
    dark = {"override_dark": str(dark_of(programs, tmp_path, 16))}
    found = measure(paths[1], tmp_path / "products", warm=paths[0], dark_current=dark)
    assert found["peak"] < 110e6, found
    assert abs(found["predicted"] / found["peak"] - 1) < 0.25, found
    (rateints,) = (tmp_path / "products").glob("*_00002_*_rateints.fits")
    with fits.open(rateints) as hdus:
        assert hdus["SCI"].shape == hdus["DQ"].shape == (12_000, 16, 16)
    with fits.open(str(rateints).replace("rateints", "rate")) as hdus:
        assert hdus["SCI"].shape == (16, 16)
        assert np.isfinite(hdus["SCI"].data).mean() > 0.9
