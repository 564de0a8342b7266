"""Promise: the same bits of Stage 3 for any number of workers, threads or processes."""

from __future__ import annotations

import re

import pytest

from jwstdask.engine.executor import Serial, Threads
from jwstdask.testing import assert_same_products
from tests.promises.program import run
from tests.using import crds_of


@pytest.fixture(scope="module")
def mosaic(programs, module_folder):
    """Products of three dithers through Stage 3, in one thread."""
    folder = module_folder("mosaic")
    with crds_of(programs.cache("bright2")):
        names = run(programs("bright2"), folder, Serial(), exposures=3, through=3)
    kinds = {re.split(r"[_.]", name)[-2] for name in names}
    assert {"crf", "i2d", "segm", "cat"} <= kinds, kinds
    return folder


def assert_same_catalogs(first, second):
    """The same text but for the time of writing and the versions that photutils notes."""
    for path in first.glob("*_cat.ecsv"):
        lines, others = (
            [line for line in (folder / path.name).read_text().splitlines() if "date" not in line.lower()]
            for folder in (first, second)
        )
        assert lines == others
        assert len(lines) > 30


@pytest.mark.parametrize("where", ["three threads", "two processes"])
def test_mosaic(program, mosaic, cluster, tmp_path, where):
    executor = Threads(3) if where == "three threads" else cluster(2)
    run(program, tmp_path, executor, exposures=3, through=3)
    names = assert_same_products(mosaic, tmp_path)
    assert sum(name.endswith("_i2d.fits") for name in names) == 4
    assert_same_catalogs(mosaic, tmp_path)
