"""Differences of products: figures against plain NumPy, flags, tables, metadata, tolerances; strips do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from jwstdask.core.errors import InputError
from jwstdask.engine.executor import Threads
from jwstdask.program import difference
from jwstdask.program.difference import (
    Tolerance,
    compare_folders,
    compare_products,
    match_products,
    same_value,
    strips,
)
from jwstdask.report.difference import draw_difference, scale_of


def write(path, **arrays):
    """A FITS file of images; a leading underscore means no data."""
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(data, name=name) for name, data in arrays.items())]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return str(path)


@pytest.fixture(params=[(40, 30), (3, 40, 30), (2, 5, 16, 30)], ids=str)
def images(request, rng):
    """Two images and their errors, with every kind of difference."""
    shape = request.param
    a = rng.normal(10, 3, shape).astype(np.float32)
    b = a.copy()
    changed = rng.random(shape) < 0.2
    b[changed] += rng.normal(0, 1, changed.sum()).astype(np.float32)
    a[rng.random(shape) < 0.05] = np.nan
    b[rng.random(shape) < 0.05] = np.nan
    err = rng.uniform(0.5, 2, (2, *shape)).astype(np.float32)
    err[0][rng.random(shape) < 0.1] = np.nan
    return a, b, err


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("size", [1 << 18, 90, 7])
def test_figures_are_those_of_the_whole_arrays(images, size, tmp_path, monkeypatch):
    """Strips of any size. Tolerance: sums of float64 in another order, 1e-12."""
    monkeypatch.setattr(difference.strips, "__defaults__", (size,))
    a, b, err = images
    found = compare_products(
        write(tmp_path / "a.fits", SCI=a, ERR=err[0], WHT=a), write(tmp_path / "b.fits", SCI=b, ERR=err[1], WHT=b)
    )
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    apart = np.abs(b.astype(float) - a.astype(float))[finite]
    relative = apart / np.maximum(np.abs(a), np.abs(b)).astype(float)[finite]
    error = np.where(np.isfinite(err[0]), err[0], err[1]).astype(float)
    sigma = np.abs(b.astype(float) - a) / error
    for name in ("SCI", "WHT"):
        item = found.arrays[name]
        assert (item.size, item.identical, item.same) == (a.size, same.sum(), same.sum())
        assert (item.only_a, item.only_b) == (
            (np.isfinite(a) & np.isnan(b)).sum(),
            (np.isfinite(b) & np.isnan(a)).sum(),
        )
        assert item.largest == apart.max()
        assert item.relative == relative.max()
        assert item.rms == pytest.approx(np.sqrt(np.mean(apart**2)), rel=1e-12)
        assert item.relative_rms == pytest.approx(np.sqrt(np.mean(relative**2)), rel=1e-12)
    assert found.arrays["WHT"].sigma is None
    assert found.arrays["WHT"].place == np.unravel_index(np.nanargmax(np.abs(b - a)), a.shape)
    item = found.arrays["SCI"]
    assert item.sigma == np.nanmax(sigma)
    assert item.sigma_rms == pytest.approx(np.sqrt(np.nanmean(sigma**2)), rel=1e-12)
    assert item.place == np.unravel_index(np.nanargmax(sigma), a.shape)
    assert isinstance(item.place[0], int)


def test_one_in_a_thousand(tmp_path, rng):
    a = np.zeros((200, 200), np.float32)
    b = rng.normal(0, 1, a.shape).astype(np.float32)
    err = np.ones_like(a)
    found = compare_products(
        write(tmp_path / "a.fits", SCI=a, ERR=err), write(tmp_path / "b.fits", SCI=b, ERR=err)
    ).arrays["SCI"]
    # bins of the histogram are 10^(1/16) wide
    assert 1 <= found.sigma_999 / np.quantile(np.abs(b), 0.999) < 1.155


def test_variances_are_in_squared_errors(tmp_path):
    err = np.full((8, 8), 2, np.float32)
    var = np.full((8, 8), 3, np.float32)
    a = write(tmp_path / "a.fits", SCI=var, ERR=err, VAR_POISSON=var)
    b = write(tmp_path / "b.fits", SCI=var, ERR=err, VAR_POISSON=var + 1)
    assert compare_products(a, b).arrays["VAR_POISSON"].sigma == 0.25


def test_errors_of_an_image_serve_all_integrations(tmp_path):
    data = np.zeros((3, 8, 8), np.float32)
    err = np.arange(1, 65, dtype=np.float32).reshape(8, 8)
    other = data.copy()
    other[2, 7, 7] = 32
    found = compare_products(
        write(tmp_path / "a.fits", SCI=data, ERR=err), write(tmp_path / "b.fits", SCI=other, ERR=err)
    )
    assert found.arrays["SCI"].sigma == 0.5
    assert found.arrays["SCI"].place == (2, 7, 7)


def test_strips_cover_every_value_once():
    for shape in [(7,), (10, 8), (3, 10, 8), (2, 5, 4, 3), (100, 2, 2)]:
        for size in (1, 20, 1000):
            seen = np.zeros(shape, int)
            for leading, rows in strips(shape, size):
                part = seen[(*leading, rows)] if len(shape) > 1 else seen
                assert part.size <= max(size, shape[-1])
                part += 1
            assert (seen == 1).all(), (shape, size)


@pytest.mark.parametrize(("name", "dtype"), [("DQ", np.uint32), ("GROUPDQ", np.uint8)])
def test_flags(name, dtype, tmp_path, rng):
    bits = 32 if dtype is np.uint32 else 8
    a, b = (rng.integers(0, 2**bits, (2, 20, 20), dtype=np.uint64).astype(dtype) for _ in range(2))
    b[0] = a[0]
    found = compare_products(write(tmp_path / "a.fits", **{name: a}), write(tmp_path / "b.fits", **{name: b}))
    flags = found.arrays[name].flags
    assert len(flags) == (32 if bits == 32 else 7)
    assert ("OUTLIER" in flags) == (bits == 32)
    from jwstdask.core import dq

    for flag, change in flags.items():
        before, after = (a & dtype(dq.PIXEL[flag]) != 0), (b & dtype(dq.PIXEL[flag]) != 0)
        assert (change.before, change.after) == (before.sum(), after.sum())
        assert (change.gained, change.lost) == ((after & ~before).sum(), (before & ~after).sum())


def test_flags_that_are_never_set_are_left_out(tmp_path):
    data = np.full((4, 4), 5, np.uint32)
    flags = (
        compare_products(write(tmp_path / "a.fits", DQ=data), write(tmp_path / "b.fits", DQ=data)).arrays["DQ"].flags
    )
    assert set(flags) == {"DO_NOT_USE", "JUMP_DET"}


def test_structure(tmp_path):
    image = np.zeros((4, 5), np.float32)
    a = write(tmp_path / "a.fits", SCI=image, ERR=image, WHT=image, AREA=image)
    b = write(tmp_path / "b.fits", SCI=image, ERR=image[:3], WHT=image.astype(float), DQ=image.astype(np.uint32))
    found = compare_products(a, b)
    assert found.structure == [
        "ERR has shape (4, 5) in A, (3, 5) in B",
        "WHT is float32 in A, float64 in B",
        "only A has HDU AREA",
        "only B has HDU DQ",
    ]
    assert found.arrays["WHT"].identical == 20
    assert found.status == 1


TABLE = np.array(
    [(1, 0.5, "one", True), (2, np.nan, "two", False), (3, 1.5, "", True)],
    dtype=[("number", "i4"), ("value", "f8"), ("text", "U5"), ("flag", bool)],
)


def table_file(path, rows):
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(rows, name="TAB")]).writeto(path, overwrite=True)
    return str(path)


@pytest.mark.parametrize("step", [1 << 14, 1])
def test_tables(step, tmp_path, monkeypatch):
    monkeypatch.setattr(difference, "_ROWS", step)
    other = TABLE.copy()
    other["value"][0] = 0.500001
    other["text"][2] = "three"
    other["flag"][1] = True
    a, b = table_file(tmp_path / "a.fits", TABLE), table_file(tmp_path / "b.fits", other)
    found = compare_products(a, b)
    columns = found.tables["TAB"]
    assert {name: (item.size, item.identical) for name, item in columns.items()} == {
        "number": (3, 3),
        "value": (3, 2),
        "text": (3, 2),
        "flag": (3, 2),
    }
    assert columns["value"].relative == pytest.approx(2e-6, rel=1e-3)  # 1e-6 of 0.5, given to three digits
    assert found.failures == [f"TAB.{name}: 1 of 3 cells differ" for name in ("value", "text", "flag")]
    assert compare_products(a, b, Tolerance(rtol=1e-5)).failures == found.failures[1:]
    assert compare_products(a, b, Tolerance(ignore=("VALUE", "text", "fl*"))).status == 0


def test_rows_and_columns_of_tables(tmp_path):
    a = table_file(tmp_path / "a.fits", TABLE)
    assert compare_products(a, table_file(tmp_path / "b.fits", TABLE[:2])).structure == ["TAB has 3 rows in A, 2 in B"]
    from numpy.lib.recfunctions import drop_fields

    found = compare_products(a, table_file(tmp_path / "b.fits", drop_fields(TABLE, "value", usemask=False)))
    assert found.structure[0] == "TAB: only A has column value"


def with_keywords(path, **keywords):
    hdu = fits.PrimaryHDU()
    hdu.header.update(keywords)
    hdu.writeto(path, overwrite=True)
    return str(path)


def test_keywords(tmp_path):
    shared = {"FILTER": "F200W", "DATE": "2026-01-01", "CAL_VER": "1"}
    a = with_keywords(tmp_path / "a.fits", **shared, OLD=1, EXPTIME=10.0, ZERO=0, FLAG=True)
    shared |= {"DATE": "2027-01-01", "CAL_VER": "2"}
    b = with_keywords(tmp_path / "b.fits", **shared, NEW="x", EXPTIME=10.0001, ZERO=0.0, FLAG=1)
    found = compare_products(a, b)
    assert found.keywords == {
        "PRIMARY.OLD": (1, None),
        "PRIMARY.EXPTIME": (10.0, 10.0001),
        "PRIMARY.FLAG": (True, 1),
        "PRIMARY.NEW": (None, "x"),
    }
    assert found.failures == ["4 keywords differ"]
    tolerance = Tolerance(rtol=1e-4, ignore=(*difference.IGNORED, "old", "new", "FL?G"))
    assert compare_products(a, b, tolerance).status == 0
    assert {"PRIMARY.DATE", "PRIMARY.CAL_VER"} <= set(compare_products(a, b, Tolerance(ignore=())).keywords)


@pytest.mark.parametrize(
    ("a", "b", "rtol", "same"),
    [
        (1, 1.0, 0, True),
        (1, True, 0, False),
        (True, True, 0, True),
        (float("nan"), float("nan"), 0, True),
        (1.0, 1.001, 1e-2, True),
        (1.0, 1.001, 1e-4, False),
        ("1", 1, 0, False),
        (None, "", 0, False),
        ([1, 2], (1, 2.0), 0, True),
        ([1, 2], [1], 0, False),
        ({"a": [1.0]}, {"a": [1.001]}, 1e-2, True),
        ({"a": 1}, {"b": 1}, 0, False),
        (np.arange(3), [0, 1, 2], 0, True),
        (np.arange(3), np.arange(4), 0, False),
    ],
)
def test_values(a, b, rtol, same):
    assert same_value(a, b, rtol) is same


def test_tolerance_of_pixels(tmp_path):
    """A value is the same within rtol or within max_sigma; min_identical says how many must be."""
    a = np.full((10, 10), 100, np.float32)
    b = a.copy()
    b[0, 0] = 101  # 1 % , 0.1 error
    b[0, 1] = 105  # 5 %, 0.5 error
    err = np.full_like(a, 10)
    files = write(tmp_path / "a.fits", SCI=a, ERR=err), write(tmp_path / "b.fits", SCI=b, ERR=err)

    def status(**options):
        return compare_products(*files, Tolerance(**options)).status

    assert status() == 1
    assert status(rtol=0.02) == 1
    assert status(rtol=0.02, max_sigma=0.5) == 0
    assert status(max_sigma=0.1, min_identical=0.99) == 0
    assert status(max_sigma=0.09, min_identical=0.99) == 1
    assert status(min_identical=0.98) == 0
    b[5, 5] = np.nan
    write(tmp_path / "b.fits", SCI=b, ERR=err)
    assert status(max_sigma=100, rtol=1) == 1  # what is NaN in one is never the same


def test_pixels_without_error_are_judged_by_their_values(tmp_path):
    a = np.ones((4, 4), np.float32)
    err = np.zeros_like(a)
    files = write(tmp_path / "a.fits", SCI=a, ERR=err), write(tmp_path / "b.fits", SCI=a * 2, ERR=err)
    assert compare_products(*files, Tolerance(max_sigma=1e9)).arrays["SCI"].same == 0
    assert compare_products(*files, Tolerance(rtol=0.5)).status == 0


def test_catalogues(tmp_path):
    from astropy import units
    from astropy.coordinates import SkyCoord
    from astropy.table import QTable

    def catalogue(path, shift=0.0, meta=None, rows=3, unit=units.Jy):
        sky = SkyCoord([1.0, 2.0, 3.0 + shift][:rows] * units.deg, [0.0, 0.5, 1.0][:rows] * units.deg)
        table = QTable({"label": [1, 2, 3][:rows], "sky": sky, "flux": [1.0, np.nan, 3.0][:rows] * unit})
        table.meta.update({"date": path.name, "version": {"photutils": path.name}, **(meta or {"seeing": 1.0})})
        table.write(path, format="ascii.ecsv")
        return str(path)

    a = catalogue(tmp_path / "a.ecsv")
    assert compare_products(a, catalogue(tmp_path / "b.ecsv")).status == 0
    found = compare_products(a, catalogue(tmp_path / "c.ecsv", 0.1, {"seeing": 2.0}))
    assert {name for name, item in found.tables[""].items() if item.identical < 3} == {"sky.ra"}
    assert found.metadata == {"seeing": (1.0, 2.0)}
    assert compare_products(a, catalogue(tmp_path / "d.ecsv", rows=2)).structure == [
        "the catalogue has 3 rows in A, 2 in B"
    ]
    assert compare_products(a, catalogue(tmp_path / "e.ecsv", unit=units.mJy)).structure == [
        "column flux is in Jy in A, mJy in B"
    ]


def test_what_cannot_be_compared(tmp_path):
    good = write(tmp_path / "a.fits", SCI=np.zeros((4, 4), np.float32))
    text = tmp_path / "b.fits"
    text.write_text("no FITS")
    catalogue = tmp_path / "c.ecsv"
    catalogue.write_text("no ECSV")
    for first, second, words in (
        (good, str(text), "not a FITS file"),
        (good, str(tmp_path / "none.fits"), "no such file"),
        (good, str(catalogue), "cannot be compared"),
        (str(catalogue), str(catalogue), "not an ECSV catalogue"),
    ):
        with pytest.raises(InputError, match=words):
            compare_products(first, second)


def test_folders(tmp_path):
    image = np.zeros((4, 4), np.float32)
    for folder in ("a/x", "b", "c"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("same", "changed", "gone", "broken"):
        write(tmp_path / f"a/x/{name}.fits", SCI=image)
    for name in ("same", "new", "broken"):
        write(tmp_path / f"b/{name}.fits", SCI=image)
    write(tmp_path / "b/changed.fits", SCI=image + 1)
    (tmp_path / "b/broken.fits").write_text("no FITS")
    (tmp_path / "b/.hidden.fits").write_text("")
    pairs = match_products(str(tmp_path / "a"), str(tmp_path / "b"))
    assert [[item is not None for item in pair] for pair in pairs] == [
        [True, True],
        [True, True],
        [True, False],
        [False, True],
        [True, True],
    ]
    found = compare_folders(pairs, executor=Threads(2))
    assert {item.name: item.status for item in found} == {
        "broken.fits": 2,
        "changed.fits": 1,
        "gone.fits": 1,
        "new.fits": 1,
        "same.fits": 0,
    }
    assert len(match_products(str(tmp_path / "a"), str(tmp_path / "b"), common=True)) == 3
    with pytest.raises(InputError, match="no product in this folder"):
        match_products(str(tmp_path / "a"), str(tmp_path / "c"))
    write(tmp_path / "a/same.fits", SCI=image)
    with pytest.raises(InputError, match="has the same name"):
        match_products(str(tmp_path / "a"), str(tmp_path / "b"))


def test_memory_is_that_of_strips(tmp_path):
    """Four arrays of 17 MB that differ everywhere: at no time are 20 MB taken."""
    import tracemalloc

    image = np.ones((2048, 2048), np.float32)
    files = write(tmp_path / "a.fits", SCI=image, ERR=image), write(tmp_path / "b.fits", SCI=image + 1, ERR=image)
    compare_products(*files)
    tracemalloc.start()
    try:
        compare_products(*files)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6


def test_picture(tmp_path, rng):
    """It has the right size, and a pixel that changed is seen in a frame far larger than the picture."""
    from matplotlib.image import imread

    a = rng.normal(0, 1, (1500, 2000)).astype(np.float32)
    b = a.copy()
    b[1201, 907] += 50
    err = np.ones_like(a)
    files = write(tmp_path / "a.fits", SCI=a, ERR=err), write(tmp_path / "b.fits", SCI=b, ERR=err)
    draw_difference(*files, str(tmp_path / "one.png"), (1201, 907))
    picture = imread(tmp_path / "one.png")[..., :3]
    assert picture.shape[1] == 1320
    red = (picture[..., 0] > 0.3) & (picture[..., 1] < 0.15) & (picture[..., 2] < 0.25)
    left = red[picture.shape[0] // 2 :, : int(0.4 * picture.shape[1])]
    assert left.any()
    draw_difference(files[0], files[0], str(tmp_path / "none.png"))
    same = imread(tmp_path / "none.png")[..., :3]
    red = (same[..., 0] > 0.3) & (same[..., 1] < 0.15) & (same[..., 2] < 0.25)
    assert not red[same.shape[0] // 2 :, : int(0.4 * same.shape[1])].any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fits", "b.fits", "none.png", "one.png"]


@pytest.mark.parametrize(("top", "end"), [(0.7, 1.0), (1.0, 1.0), (1.1, 2.0), (4.0, 5.0), (60.0, 100.0), (3e-9, 5e-9)])
def test_scale(top, end):
    assert scale_of(np.array([top, -top])) == pytest.approx(end)  # powers of ten are not exact
