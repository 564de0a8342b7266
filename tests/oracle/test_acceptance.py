"""Products go into the oracle's next stage and give what its own products give; stdatamodels finds nothing wrong."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest
from astropy.io import fits

from jwstdask.core.dq import OUTLIER
from tests.conftest import RECIPES, once
from tests.oracle.compare import compare, row, shift
from tests.oracle.conftest import Call
from tests.oracle.test_image2 import CAL, KEYWORD, RESAMPLED, resampled_differs


def test_rates_go_into_the_oracles_stage_2(products):
    program = products.programs("bright2")
    rate = products.rates("ours", "bright2")[0]
    call = Call("", "jwst.pipeline.Image2Pipeline", rate)
    folder = products.make("jwst", "image2_of_ours", lambda _: [call], program.cache.environment)
    own = products.image2("jwst", "bright2")
    for kind in ("cal", "i2d"):
        name = rate.name.replace("_rate", f"_{kind}")
        result = compare(folder / name, own / name, KEYWORD if kind == "i2d" else 0.0, ignore=["JDASKVER"])
        assert not result.headers
        assert result.flags == 0
        assert not resampled_differs(result) if kind == "i2d" else result.relative < CAL


HITS = 300
"""Cosmic rays put into each calibrated image: those that were simulated are found in Stage 1 already."""


def _with_hits(products):
    """Our calibrated images of a detector with cosmic rays that Stage 1 has missed."""

    def build(folder):
        for number, path in enumerate(sorted(products.program().glob("*nrca1_cal.fits"))):
            shutil.copy(path, folder)
            rng = np.random.default_rng(number)
            with fits.open(folder / path.name, mode="update", memmap=False) as hdus:
                sci = hdus["SCI"].data
                y, x = (rng.integers(0, size, HITS) for size in sci.shape)
                sci[y, x] += rng.uniform(5, 200, HITS).astype("f4") * np.nanmedian(hdus["ERR"].data)

    return sorted(once(products.folder / "hit", build).glob("*_cal.fits"))


def test_calibrated_images_go_into_the_oracles_stage_3(products, record_property):
    """The oracle's Stage 3 on our images equals ours on the same, outliers included."""
    members = _with_hits(products)
    oracle = products.image3("jwst", members, "image3_nrca1", "image3_of_ours")
    ours = products.image3("ours", members, "image3_nrca1", "image3_nrca1")
    (name,) = (path.name for path in oracle.glob("*_i2d.fits"))
    result = compare(ours / name, oracle / name, 1e-8)
    assert not result.headers
    assert result.arrays["SCI"].sigma_999 < RESAMPLED
    found = sorted(path.name for path in oracle.glob("*_crf.fits"))
    assert len(found) == 4
    rows = []
    for name in found:
        assert shift(ours / name, oracle / name) < 1e-3
        rows.append(
            row(
                "calwebb_image3",
                f"NRCA1 of {RECIPES['mosaic'].mode} with hits",
                "crf",
                compare(ours / name, oracle / name, 1e-4),
            )
        )
        # nearly all hits that exceed their surroundings by many errors
        assert np.count_nonzero(fits.getdata(oracle / name, "DQ") & OUTLIER) > HITS / 2
    record_property("parity", rows)
    assert sum(item["flags"] for item in rows) == 0


@pytest.mark.parametrize(
    ("folder", "kinds"),
    [
        ("detector1", ("rate", "rateints", "ramp", "fitopt", "jump", "dq_init", "refpix")),
        ("image2", ("cal", "i2d")),
        ("program", ("rate", "rateints", "cal", "i2d", "crf", "segm")),
        ("timeseries", ("calints",)),
    ],
)
def test_products_are_valid(products, folder, kinds):
    from stdatamodels.jwst import datamodels

    where = {
        "detector1": lambda: products.detector1("ours", "bright2"),
        "image2": lambda: products.image2("ours", "bright2"),
        "program": products.program,
        "timeseries": lambda: products.image2("ours", "timeseries"),
    }[folder]()
    for kind in kinds:
        paths = sorted(where.glob(f"*_{kind}.fits"))
        assert paths, kind
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with datamodels.open(paths[0], strict_validation=True, validate_on_assignment=True) as model:
                model.validate()
                assert model.meta.model_type == type(model).__name__
