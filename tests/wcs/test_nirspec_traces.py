"""What light of slits, slices and shutters of NIRSpec covers of the detector, beside jwst."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from jwstdask.core.dq import MSA_FAILED_OPEN
from jwstdask.refs.reference import open_reference
from jwstdask.simulate import nirspec as optics_of
from jwstdask.wcs import nirspec, nirspec_traces
from jwstdask.wcs.errors import NoSlitError
from tests.wcs.test_nirspec import FULL, metadata, optics, oracle, paths, references_of

__all__ = ["paths"]


@pytest.mark.parametrize(("detector", "grating"), [("NRS1", "G235M"), ("NRS2", "G395H"), ("NRS1", "PRISM")])
def test_light_of_failed_shutters_as_the_oracle(paths, detector, grating):
    from jwst.msaflagopen import msaflag_open

    meta = metadata(detector, grating, "NRS_IFU")
    files = references_of(paths, grating)
    model = datamodels.ImageModel(data=np.ones(FULL, np.float32))
    model.dq = np.zeros(FULL, np.uint32)
    for name, value in meta.items():
        model[name] = value
    result = msaflag_open.do_correction(model, str(files["msaoper"]), {kind: str(path) for kind, path in files.items()})
    shutters = nirspec.failed_open_shutters(open_reference(files["msaoper"], "msaoper").json)
    assert len(shutters) == len(optics_of.FAILED_OPEN)
    mask = nirspec_traces.failed_open_mask(optics(meta, files), shutters, FULL)
    np.testing.assert_array_equal(mask, (result.dq & MSA_FAILED_OPEN) != 0)
    assert 1000 < mask.sum() < 100000


@pytest.mark.parametrize(
    ("grating", "filter_"), [("G140M", "F100LP"), ("G235M", "F170LP"), ("G395M", "F290LP"), ("G140H", "F070LP")]
)
def test_modes_without_slices_on_the_second_detector(grating, filter_):
    meta = {
        "meta.instrument.detector": "NRS2",
        "meta.instrument.grating": grating,
        "meta.instrument.filter": filter_,
        "meta.exposure.type": "NRS_IFU",
    }
    trees = {"wavelengthrange": optics_of.tree_of("wavelengthrange")}
    with pytest.raises(NoSlitError, match="NRS2"):
        nirspec_traces.slices_mask(nirspec.Optics(meta, trees), FULL)


def test_a_slit_off_the_detector_is_left_out(paths):
    """S200B1 falls on NRS2 alone with this grating."""
    files = references_of(paths, "G235M")
    for detector, expected in (("NRS1", False), ("NRS2", True)):
        meta = metadata(detector, "G235M", "NRS_FIXEDSLIT")
        slits = nirspec_traces.on_detector(optics(meta, files), nirspec.fixed_slits(meta))
        assert ("S200B1" in {slit.name for slit in slits}) is expected
    meta = metadata("NRS1", "G235M", "NRS_FIXEDSLIT", subarray__name="SUBS200B1")
    with pytest.raises(NoSlitError, match="NRS1"):
        nirspec_traces.on_detector(optics(meta, files), nirspec.fixed_slits(meta))


@pytest.mark.skipif(not os.environ.get("JWSTDASK_REALDATA"), reason="JWSTDASK_REALDATA is not set")
def test_slices_of_real_references_as_the_oracle():
    from jwst.clean_flicker_noise.clean_flicker_noise import mask_ifu_slices

    root = Path(os.environ["JWSTDASK_REALDATA"])
    names = {
        "camera": 4, "collimator": 4, "disperser": 37, "fore": 27, "fpa": 5, "ifufore": 3, "ifupost": 4, "ifuslicer": 3,
        "ote": 5, "wavelengthrange": 4,
    }  # fmt: skip
    folder = root / "crds_contexts/references/jwst/nirspec"
    files = {kind: folder / f"jwst_nirspec_{kind}_{number:04d}.asdf" for kind, number in names.items()}
    files["chromcorr"] = root / "refs/own_chromcorr_identity.asdf"
    meta = metadata("NRS1", "G235M", "NRS_IFU")
    mask = nirspec_traces.slices_mask(optics(meta, files), FULL)
    np.testing.assert_array_equal(mask, ~mask_ifu_slices(oracle(meta, files), np.ones(FULL, np.bool_)))
    assert mask.sum() > 100_000
