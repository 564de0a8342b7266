"""Promise: the same bits for any chunking, any number of workers, both grains, and again tomorrow."""

from __future__ import annotations

import pytest

import jwstdask
from jwstdask.engine import exposure, passes
from jwstdask.engine.executor import Serial, Threads
from jwstdask.pipeline import Detector1Pipeline
from jwstdask.testing import assert_same_bits, assert_same_products
from tests.promises.program import run


def test_twice_the_same(program, expected, tmp_path):
    run(program, tmp_path, Serial())
    assert_same_products(expected, tmp_path)


@pytest.mark.parametrize(
    ("strip_bytes", "tile_bytes"),
    [
        pytest.param(1, 300_000, id="strips of 16 rows"),
        pytest.param(80 * 160 * 120, 60_000, id="small tiles"),
        pytest.param(10**9, 10**9, id="one tile"),
    ],
)
def test_strips_and_tiles(program, expected, tmp_path, monkeypatch, strip_bytes, tile_bytes):
    monkeypatch.setattr(exposure, "STRIP_BYTES", strip_bytes)
    monkeypatch.setattr(passes, "TILE_BYTES", tile_bytes)
    run(program, tmp_path, Serial())
    assert_same_products(expected, tmp_path)


@pytest.mark.parametrize(("threads", "grain"), [(2, "strip"), (3, "exposure"), (3, "strip")])
def test_threads(program, expected, tmp_path, threads, grain):
    run(program, tmp_path, Threads(threads), grain)
    assert_same_products(expected, tmp_path)


@pytest.mark.parametrize(("workers", "grain"), [(3, "strip"), (3, "exposure"), (2, "exposure"), (1, "strip")])
def test_processes(program, expected, tmp_path, cluster, workers, grain):
    run(program, tmp_path, cluster(workers), grain)
    assert_same_products(expected, tmp_path)


def test_lazy_on_processes(uncal, products, cluster):
    """The graph of .apply on workers, that share nothing with this process but files."""
    tree = Detector1Pipeline().apply(uncal, parameter_references=True, rows=40)
    found = tree["rateints"].to_dataset().compute(scheduler=cluster(2).client)
    assert_same_bits(jwstdask.open_exposure(next(products.glob("*_rateints.fits"))), found)


def test_tiles_differ_in_the_test_itself(monkeypatch):
    """The tile sizes above are different tilings of a frame of 160 x 160 with 12 planes."""
    shapes = set()
    for size in (300_000, 60_000, 10**9):
        monkeypatch.setattr(passes, "TILE_BYTES", size)
        shapes.add(passes.tile_shape((2, 6, 160, 160), 4))
    assert len(shapes) == 3
