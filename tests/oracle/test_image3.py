"""Stage 3 equals jwst's: alignment, levels of the sky, outliers, mosaic, catalogue; a program by one command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from tests.conftest import RECIPES
from tests.oracle.compare import compare, row, shift
from tests.oracle.conftest import same_names
from tests.oracle.test_image2 import CAL, KEYWORD, resampled_differs

MODE = RECIPES["mosaic"].mode

SHIFT = 1e-3
"""Pixels by which the alignment of an exposure may differ."""

LEVEL = 1e-4
"""Relative, of the levels of the sky."""


@pytest.fixture
def folders(products) -> tuple[Path, Path]:
    """The program through three stages by one command, and the oracle's Stage 3."""
    members = sorted(products.image2("jwst", "mosaic").glob("*_cal.fits"))
    return products.program(), products.image3("jwst", members)


def names(folder: Path, suffix: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"*_{suffix}"))


@pytest.mark.parametrize("kind", ["rate", "rateints", "cal", "i2d"])
def test_exposures_equal_the_oracles(products, folders, kind, record_property):
    stage = "calwebb_detector1" if kind.startswith("rate") else "calwebb_image2"
    oracle = products.detector1("jwst", "mosaic") if kind.startswith("rate") else products.image2("jwst", "mosaic")
    rows, wrong = [], []
    for name in same_names(folders[0], oracle, f"*_0000?_nrc??_{kind}.fits"):
        result = compare(folders[0] / name, oracle / name, KEYWORD if kind == "i2d" else 0.0)
        rows.append(row(stage, MODE, kind, result))
        wrong += [f"{name}: {text}" for text in result.headers]
        if kind == "i2d":
            wrong += resampled_differs(result)
        else:
            wrong += [f"{name}: {array}: {item}" for array, item in result.arrays.items() if item.relative > CAL]
    record_property("parity", rows)
    assert not wrong, "\n".join(wrong)
    assert len(rows) == 8
    assert sum(item["flags"] or 0 for item in rows) == 0


def test_alignment(products, folders):
    ours, oracle = folders
    found = same_names(ours, oracle, "*_crf.fits")
    corrections, apart = [], []
    for name in found:
        apart.append(shift(ours / name, oracle / name))
        cal = name.replace("_o001_crf", "_cal")
        corrections.append(shift(oracle / name, products.image2("jwst", "mosaic") / cal))
        assert fits.getval(ours / name, "S_TWKREG") == fits.getval(oracle / name, "S_TWKREG") == "COMPLETE"
    assert len(found) == 8
    # the headers' pointing is wrong by two thirds of a pixel: there is something to correct
    assert max(corrections) > 0.3
    assert max(apart) < SHIFT, apart


def test_levels_of_the_sky(folders):
    ours, oracle = folders
    levels = [
        [fits.getval(folder / name, "BKGLEVEL") for name in names(folder, "crf.fits")] for folder in (ours, oracle)
    ]
    assert max(levels[1]) > 0
    np.testing.assert_allclose(levels[0], levels[1], rtol=LEVEL, atol=LEVEL * max(levels[1]))


def test_exposures_with_outlier_flags(folders, record_property):
    ours, oracle = folders
    rows, wrong = [], []
    for name in same_names(ours, oracle, "*_crf.fits"):
        result = compare(ours / name, oracle / name, LEVEL)
        rows.append(row("calwebb_image3", MODE, "crf", result))
        wrong += [f"{name}: {text}" for text in result.headers]
        wrong += [f"{name}: {array}: {item}" for array, item in result.arrays.items() if item.relative > CAL]
    record_property("parity", rows)
    assert not wrong, "\n".join(wrong)
    assert len(rows) == 8
    assert sum(item["flags"] for item in rows) == 0


def test_mosaic(folders, record_property):
    ours, oracle = folders
    (name,) = names(oracle, "i2d.fits")
    result = compare(ours / name, oracle / name, 1e-8)
    record_property("parity", [row("calwebb_image3", MODE, "i2d", result)])
    assert not result.headers
    assert not resampled_differs(result)
    assert result.arrays["SCI"].size > 200_000


def test_catalogue_and_segmentation(folders, record_property):
    ours, oracle = folders
    (name,) = names(oracle, "cat.ecsv")
    left, right = (Table.read(folder / name, format="ascii.ecsv") for folder in folders)
    assert left.colnames == right.colnames
    assert len(left) == len(right)
    assert len(right) > 50
    differing, different, largest = [], 0, 0.0
    for column in right.colnames:
        a, b = left[column], right[column]
        assert str(getattr(a, "unit", None)) == str(getattr(b, "unit", None)), column
        assert a.info.description == b.info.description, column
        if hasattr(b, "separation"):
            if b.separation(a).to_value("mas").max() > 1e-2:
                differing.append(column)
            continue
        a, b = np.asarray(a), np.asarray(b)
        if b.dtype.kind != "f":
            if not np.array_equal(a, b):
                differing.append(column)
            continue
        # the mosaics differ by 1e-5 of their errors, and so do sums over them
        if not np.allclose(a, b, rtol=1e-4, atol=1e-6 * np.nanmax(np.abs(b)), equal_nan=True):
            differing.append(column)
        apart = np.abs(a - b) / np.abs(b)
        largest = max(largest, float(np.nanmax(apart, initial=0.0)))
        different += int(np.count_nonzero((a != b) & ~(np.isnan(a) & np.isnan(b))))
    (segm,) = names(oracle, "segm.fits")
    result = compare(ours / segm, oracle / segm, 1e-8)
    parity = row("calwebb_image3", MODE, "segm", result)
    table = {**parity, "product": "cat", "flags": None, "sigma": None, "header": len(differing)}
    table |= {"values": len(right) * len(right.colnames), "different": different, "relative": largest}
    record_property("parity", [parity, table])
    assert not differing
    assert not result.headers
    assert all(item.count == 0 for item in result.arrays.values())
