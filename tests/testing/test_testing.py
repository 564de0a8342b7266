"""The helpers fail where they should."""

from __future__ import annotations

import datetime
import os
import shutil

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings

import jwstdask
from jwstdask.core.block import RampBlock
from jwstdask.testing import (
    assert_chunk_invariant,
    assert_lazy,
    assert_same_bits,
    assert_same_products,
    chunkings,
    product_bytes,
)
from jwstdask.testing.strategies import ramps


@pytest.fixture
def exposure(tmp_path):
    """A small rate file."""
    ds = xr.Dataset(
        {"sci": (("y", "x"), np.arange(48, dtype=np.float32).reshape(6, 8))},
        attrs={"meta.instrument.name": "NIRCAM", "meta.telescope": "JWST"},
    )
    (tmp_path / "one").mkdir()
    return jwstdask.write_exposure(ds, tmp_path / "one" / "jw1_rate.fits", model="ImageModel")


def test_assert_lazy_counts_computations():
    array = da.ones((4, 4), chunks=2)
    with assert_lazy():
        array + 1
    with pytest.raises(AssertionError, match="1 computations were started, 0 allowed"), assert_lazy():
        array.compute()
    with assert_lazy(computes=2) as counts:
        array.compute()
        (array + 1).compute()
    assert counts.computes == 2


def test_assert_lazy_counts_pixels(exposure):
    with assert_lazy(files=[exposure]):
        ds = jwstdask.open_exposure(exposure)
    with pytest.raises(AssertionError, match="48 pixels"), assert_lazy(computes=1, files=[exposure]):
        ds.load()
    with assert_lazy() as counts:
        jwstdask.open_exposure(exposure, chunks=False)["sci"][2:4].values
    assert counts.samples_of(exposure) == 16
    with pytest.raises(KeyError), assert_lazy():
        raise KeyError("errors inside are told first")


@pytest.mark.parametrize("value", [1.0, np.nan, -0.0])
def test_assert_same_bits(value):
    one = xr.Dataset({"sci": (("y", "x"), np.full((3, 2), value, np.float32))})
    other = one.copy(deep=True)
    assert_same_bits(one, other)
    assert_same_bits({"a": one}, {"a": other.chunk(y=1)})
    bits = other["sci"].values.view(np.uint32)
    bits[1, 1] ^= 1
    with pytest.raises(AssertionError, match=r"1 of 6 values differ, the first at \(1, 1\)"):
        assert_same_bits(one, other)
    with pytest.raises(AssertionError, match="float32 against float64"):
        assert_same_bits(one, one.astype(np.float64))
    with pytest.raises(AssertionError, match=r"\(3, 2\) against \(2, 2\)"):
        assert_same_bits(one, one.isel(y=slice(0, 2)))
    with pytest.raises(AssertionError):
        assert_same_bits(one, one.rename(sci="err"))


def test_zeros_of_both_signs_differ():
    one, other = (xr.Dataset({"sci": (("y", "x"), np.full((2, 2), zero))}) for zero in (0.0, -0.0))
    with pytest.raises(AssertionError):
        assert_same_bits(one, other)


def test_assert_chunk_invariant():
    ds = xr.Dataset({"sci": (("y", "x"), np.random.default_rng(1).normal(size=(12, 5)))})
    assert len({str(way) for way in chunkings(ds)}) == 4
    assert_chunk_invariant(lambda ds: ds * 2, ds)

    def depends(ds):
        chunks = ds["sci"].chunks
        return ds + (0 if chunks is None else len(chunks[0]))

    with pytest.raises(AssertionError, match="values differ"):
        assert_chunk_invariant(depends, ds)

    def spoils(ds):
        ds["sci"].values[0, 0] = 7
        return ds.copy(deep=True)

    with pytest.raises(AssertionError, match="input was changed"):
        assert_chunk_invariant(spoils, ds, [None])

    def spoils_attributes(ds):
        ds.attrs["meta.filename"] = "mine"
        return ds

    with pytest.raises(AssertionError, match="attributes of the input"):
        assert_chunk_invariant(spoils_attributes, ds.copy(deep=True), [None])


def _rewritten(path, **attributes):
    ds = jwstdask.open_exposure(path).load()
    return jwstdask.write_exposure(ds.assign_attrs(attributes), path, model="ImageModel")


def test_assert_same_products(exposure, tmp_path):
    """Only the time of writing may differ."""
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "one", other)
    path = _rewritten(other / "jw1_rate.fits")
    assert open(path, "rb").read() != open(exposure, "rb").read()
    assert assert_same_products(tmp_path / "one", other) == ["jw1_rate.fits"]
    _rewritten(path, **{"meta.instrument.name": "MIRI"})
    with pytest.raises(AssertionError, match="the header of PRIMARY differs"):
        assert_same_products(tmp_path / "one", other)
    shutil.copy(exposure, path)
    data = bytearray(open(path, "rb").read())
    position = data.index(np.array([17], ">f4").tobytes())
    data[position] ^= 1
    open(path, "wb").write(data)
    with pytest.raises(AssertionError, match="the data of SCI differ"):
        assert_same_products(tmp_path / "one", other)
    (other / "more.fits").write_bytes(b"")
    with pytest.raises(AssertionError, match=r"more\.fits.* in one of the folders only"):
        assert_same_products(tmp_path / "one", other)


def test_other_times_are_compared(exposure):
    """A time in the header that is not about now stays in the bytes."""
    start = "2023-07-15T03:20:11.000"
    path = _rewritten(exposure, **{"meta.observation.date_beg": start})
    assert start.encode() in product_bytes(path)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M")
    assert now.encode() not in product_bytes(path)
    assert os.path.getsize(path) == len(product_bytes(path))


@settings(max_examples=30, deadline=None)
@given(ramps(integrations=(1, 2), groups=(2, 6), rows=(3, 5), columns=(1, 4)))
def test_ramps(ramp):
    nints, ngroups, ny, nx = ramp.sci.shape
    assert 1 <= nints <= 2 and 2 <= ngroups <= 6 and 3 <= ny <= 5 and 1 <= nx <= 4
    assert ramp.groupdq.shape == ramp.sci.shape and ramp.pixeldq.shape == ramp.rate.shape == (ny, nx)
    assert (ramp.sci.dtype, ramp.groupdq.dtype, ramp.pixeldq.dtype) == (np.float32, np.uint8, np.uint32)
    assert np.isfinite(ramp.sci).all()
    saturated = ramp.groupdq & 2 != 0
    assert (np.logical_or.accumulate(saturated, axis=1) == saturated).all()
    block = ramp.block()
    assert isinstance(block, RampBlock) and not np.shares_memory(block.sci, ramp.sci)
    ds = ramp.dataset(exposure__type="NRC_IMAGE")
    assert ds.attrs["meta.exposure.type"] == "NRC_IMAGE" and ds.attrs["meta.exposure.ngroups"] == ngroups
    assert ds["groupdq"].dims == ("integration", "group", "y", "x")


@settings(max_examples=10, deadline=None)
@given(ramps(flagged=False))
def test_clean_ramps(ramp):
    assert not ramp.groupdq.any() and not ramp.pixeldq.any()
