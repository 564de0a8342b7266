"""Stage 2 equals jwst's: images, integrations of time series, associations with backgrounds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RECIPES
from tests.oracle.compare import Comparison, compare, row
from tests.oracle.conftest import Call, same_names

CAL = 2e-6
"""Relative: twenty units in the last place of a 32-bit number."""

KEYWORD = 1e-9
"""Relative, for the numbers that describe the grid of a resampled image: they come out of a fit of double precision."""

RESAMPLED = 1e-5
"""Of ERR, for 99.9 % of the pixels of a resampled image; relative for its other arrays."""


def resampled_differs(result: Comparison) -> list[str]:
    """Arrays of a resampled image that differ by more than is allowed."""
    return [
        f"{name}: {item}"
        for name, item in result.arrays.items()
        if (item.relative_999 if item.sigma is None else item.sigma_999) > RESAMPLED
    ]


def check(ours: Path, oracle: Path, mode: str, record_property) -> set[str]:
    """Every product of one folder equals that of the other; the kinds of products."""
    rows, wrong = [], Counter()
    for name in same_names(ours, oracle):
        resampled = name.endswith("_i2d.fits")
        result = compare(ours / name, oracle / name, KEYWORD if resampled else 0.0)
        kind = name.removesuffix(".fits").rpartition("_")[2]
        rows.append(row("calwebb_image2", mode, kind, result))
        wrong.update(f"{kind}: {text}" for text in result.headers)
        if resampled:
            wrong.update(f"{kind}: {text}" for text in resampled_differs(result))
        else:
            wrong.update(f"{kind}: {name}: {item}" for name, item in result.arrays.items() if item.relative > CAL)
        assert result.arrays
    record_property("parity", rows)
    assert not wrong, "\n".join(f"{count} x {text}" for text, count in sorted(wrong.items()))
    assert sum(item["flags"] or 0 for item in rows) == 0
    return {item["product"] for item in rows}


def same_wcs(ours: Path, oracle: Path) -> None:
    """The WCS agree everywhere, both ways, and so do their bounding boxes."""
    from stdatamodels.jwst import datamodels

    with datamodels.open(ours) as left, datamodels.open(oracle) as right:
        a, b = left.meta.wcs, right.meta.wcs
        assert a.available_frames == b.available_frames
        assert a.bounding_box.bounding_box(order="F") == b.bounding_box.bounding_box(order="F")
        x, y = np.meshgrid(*(np.linspace(-0.5, size - 0.5, 17) for size in right.data.shape[:-3:-1]))
        sky = b(x, y, with_bounding_box=False)
        # the same transforms in double precision: 1e-11 degrees are 4e-5 milliarcseconds
        np.testing.assert_allclose(a(x, y, with_bounding_box=False), sky, rtol=0, atol=1e-11)
        back = b.invert(*sky, with_bounding_box=False)
        np.testing.assert_allclose(a.invert(*sky, with_bounding_box=False), back, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["bright2", "medium8", "shallow4", "saturated", "timeseries", "short_timeseries"])
def test_products_equal_the_oracles(products, name, record_property):
    ours, oracle = products.image2("ours", name), products.image2("jwst", name)
    kinds = check(ours, oracle, RECIPES[name].mode, record_property)
    assert kinds == ({"calints"} if "timeseries" in name else {"cal", "i2d"})
    for path in ours.glob("*_cal*.fits"):
        same_wcs(path, oracle / path.name)


def test_backgrounds_of_an_association(products, record_property):
    program = products.programs("bright2")
    folders = []
    for who in ("ours", "jwst"):
        rates = products.rates(who, "bright2")
        members = [{"expname": str(path), "exptype": "background"} for path in rates]
        members[0]["exptype"] = "science"
        table = {
            "asn_type": "image2",
            "asn_rule": "Asn_Lv2Image",
            "asn_pool": "jw01234_00001_pool.csv",
            "asn_id": "o001",
            "program": "01234",
            "products": [{"name": rates[0].name.removesuffix("_rate.fits"), "members": members}],
        }

        def work(folder, table=table):
            path = folder / "jw01234-o001_image2_00001_asn.json"
            path.write_text(json.dumps(table))
            options = {"steps": {"bkg_subtract": {"save_results": True, "sigma": 2.5}}}
            return [Call("calwebb_image2", "jwst.pipeline.Image2Pipeline", path, options)]

        folders.append(products.make(who, "image2_background", work, program.cache.environment))
    assert check(*folders, f"{RECIPES['bright2'].mode}, backgrounds", record_property) == {"bsub", "cal", "i2d"}
