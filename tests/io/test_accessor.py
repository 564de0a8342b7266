"""``ds.jwst``: metadata, flags, stage, WCS; nothing can be changed through it."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from jwstdask.core import dq
from jwstdask.io import backend  # registers the accessor
from jwstdask.testing import assert_lazy

assert backend.JwstBackend


@pytest.fixture
def ramp():
    groupdq = np.zeros((2, 3, 4, 5), np.uint8)
    groupdq[0, 1, 2, 3] = dq.JUMP_DET
    groupdq[1, 2, 0, 0] = dq.SATURATED | dq.DO_NOT_USE
    pixeldq = np.zeros((4, 5), np.uint32)
    pixeldq[1, 1] = dq.HOT
    pixeldq[3] = dq.REFERENCE_PIXEL | dq.DO_NOT_USE
    dims = ("integration", "group", "y", "x")
    attrs = {"meta.exposure.type": "NRC_IMAGE", "meta.telescope": "JWST", "extra_fits.PRIMARY": [["A", 1, ""]]}
    variables = {"sci": (dims, np.zeros(groupdq.shape)), "groupdq": (dims, groupdq), "pixeldq": (dims[2:], pixeldq)}
    return xr.Dataset(variables, attrs=attrs)


@pytest.fixture
def image():
    return xr.Dataset({"dq": (("y", "x"), np.array([[0, 1], [4, 2**31]], np.uint32))})


def test_metadata(ramp):
    meta = ramp.jwst.meta
    assert meta.exposure.type == meta["exposure.type"] == meta["meta.exposure.type"] == "NRC_IMAGE"
    assert meta.telescope == "JWST"
    assert dict(meta) == {"exposure.type": "NRC_IMAGE", "telescope": "JWST"} and len(meta) == 2
    assert dict(meta.exposure) == {"type": "NRC_IMAGE"}
    assert "exposure" in dir(meta) and "meta.telescope = 'JWST'" in repr(meta)
    assert meta.get("exposure.nints") is None
    with pytest.raises(AttributeError, match=r"there is no meta\.exposure\.typ"):
        meta.exposure.typ
    with pytest.raises(AttributeError, match=r"ds\.attrs"):
        meta.telescope = "HST"
    with pytest.raises(KeyError):
        meta["extra_fits.PRIMARY"]
    assert meta.exposure.type == ramp.attrs["meta.exposure.type"]


def test_flags_of_a_ramp(ramp):
    flagged = ramp.jwst.flagged
    assert np.argwhere(flagged("JUMP_DET").values).tolist() == [[0, 1, 2, 3]]
    assert np.argwhere(flagged("SATURATED+JUMP_DET").values).tolist() == [[0, 1, 2, 3], [1, 2, 0, 0]]
    assert np.argwhere(flagged("HOT").values).tolist() == [[1, 1]]
    assert flagged("DO_NOT_USE").dims == ("integration", "group", "y", "x")
    assert int(flagged("DO_NOT_USE", "pixeldq").sum()) == 5
    assert flagged("REFERENCE_PIXEL").dims == ("y", "x") and int(flagged(dq.REFERENCE_PIXEL).sum()) == 5
    assert flagged("JUMP_DET").dtype == bool and flagged("JUMP_DET").attrs == {}
    with pytest.raises(KeyError, match="groupdq, pixeldq"):
        ramp.jwst.flags()
    with pytest.raises(ValueError, match="'JUMP' is not a data-quality flag"):
        flagged("JUMP")


def test_flags_of_an_image(image):
    assert image.jwst.flagged("JUMP_DET").values.tolist() == [[False, False], [True, False]]
    assert image.jwst.flagged("REFERENCE_PIXEL+DO_NOT_USE").values.tolist() == [[False, True], [False, True]]
    assert image.jwst.flags().name == "dq"
    with pytest.raises(KeyError, match="say which flags: dq"):
        image.jwst.flagged("HOT", "groupdq")
    with pytest.raises(KeyError, match="there are none"):
        xr.Dataset().jwst.flagged("HOT")


def test_flags_stay_lazy(image):
    with assert_lazy():
        found = image.chunk(y=1).jwst.flagged("JUMP_DET")
    assert found.chunks is not None and bool(found[1, 0])


@pytest.mark.parametrize(
    ("steps", "stage"),
    [
        ({}, 0),
        ({"dq_init": "COMPLETE", "jump": "COMPLETE"}, 0),
        ({"jump": "COMPLETE", "ramp_fit": "COMPLETE", "flat_field": "SKIPPED"}, 1),
        ({"ramp_fit": "COMPLETE", "assign_wcs": "COMPLETE"}, 2),
        ({"ramp_fit": "COMPLETE", "photom": "COMPLETE", "tweakreg": "COMPLETE"}, 3),
    ],
)
def test_stage(steps, stage):
    ds = xr.Dataset(attrs={f"meta.cal_step.{name}": status for name, status in steps.items()})
    assert ds.jwst.stage == stage


def test_wcs(image):
    assert image.jwst.wcs is None
    marker = object()
    array = np.empty((), object)
    array[()] = marker
    assert image.assign_coords(wcs=xr.Variable((), array)).jwst.wcs is marker


def test_read_only(image):
    for name in ("meta", "wcs", "stage"):
        with pytest.raises(AttributeError):
            setattr(image.jwst, name, 1)
