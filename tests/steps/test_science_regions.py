"""Regions with spectra of NIRSpec, as masks of the steps that clean rates, beside jwst's."""

from __future__ import annotations

import types
import warnings
from dataclasses import replace

import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.core.block import ImageBlock, Window
from jwstdask.core.errors import StepError, StepUndone
from jwstdask.refs.reference import open_reference
from jwstdask.simulate import nirspec as optics_of
from jwstdask.steps.detector.clean_flicker_noise import CleanFlickerNoiseStep
from jwstdask.steps.detector.picture_frame import PictureFrameStep
from jwstdask.steps.detector.science_regions import NoSlitError, msa_metadata_path, science_regions
from tests.steps.fakes import FakeReference
from tests.wcs.test_nirspec import metadata, paths, references_of

__all__ = ["paths"]

ORACLE = "jwst.clean_flicker_noise.clean_flicker_noise"
SHAPES = {"FULL": (2048, 2048), "SUB512": (32, 512)}


def exposure(detector, grating, exposure_type, **more):
    """A rate with sources, noise of columns and a few pixels that light of a shutter is known to fall on."""
    meta = metadata(detector, grating, exposure_type, **more)
    shape = SHAPES[meta["meta.subarray.name"]]
    meta |= {
        "meta.subarray.xsize": shape[1],
        "meta.subarray.ysize": shape[0],
        "meta.subarray.fastaxis": 2,
        "meta.subarray.slowaxis": 1,
        "meta.cal_step.ramp_fit": "COMPLETE",
    }
    rng = np.random.default_rng(5)
    sci = rng.normal(0, 0.02, shape) + rng.normal(0, 0.03, shape[1])
    sci[rng.random(shape) < 0.03] += 1.0
    sci[rng.random(shape) < 0.001] = np.nan
    flags = np.where(rng.random(shape) < 0.001, dq.MSA_FAILED_OPEN, 0).astype(np.uint32)
    window = Window.plain(0, shape[0], 0, shape[1])
    variance = np.full(shape, 0.0004, np.float32)
    return meta, ImageBlock(window, sci.astype(np.float32), dq=flags, var_poisson=variance, var_rnoise=variance)


def oracle_model(meta, block):
    from stdatamodels.jwst import datamodels

    model = (datamodels.IFUImageModel if meta["meta.exposure.type"] == "NRS_IFU" else datamodels.ImageModel)(
        data=block.sci.copy()
    )
    model.dq = block.dq.copy()
    for name, value in meta.items():
        model[name] = value
    return model


@pytest.fixture
def oracle_steps(monkeypatch):
    """jwst's steps that find the regions, with references given."""

    def give(files):
        from jwst.assign_wcs import AssignWcsStep
        from jwst.msaflagopen import MSAFlagOpenStep, msaflagopen_step

        names = {kind: str(path) for kind, path in files.items() if kind != "msametafile"}

        def made(cls):
            def make():
                step = cls()
                step.get_reference_file = lambda model, kind: names.get(kind, "N/A")
                step.run = step.process
                return step

            return make

        monkeypatch.setattr(f"{ORACLE}.AssignWcsStep", made(AssignWcsStep))
        monkeypatch.setattr(f"{ORACLE}.MSAFlagOpenStep", made(MSAFlagOpenStep))
        monkeypatch.setattr(msaflagopen_step, "create_reference_filename_dictionary", lambda model: names)

    return give


def opened(step, meta, files):
    """References of the step, and the step as it is planned."""
    step.check(meta)
    references = {
        kind: None if kind not in files else open_reference(files[kind], kind) for kind in step.references_for(meta)
    }
    planned = step.of_exposure(meta, str(files["msametafile"].parent / "exposure_rate.fits"))
    return planned, references


MODES = [
    ("NRS1", "G235M", "NRS_IFU", "shutters", {}),
    ("NRS2", "G395H", "NRS_MSASPEC", "shutters", {}),
    ("NRS1", "G235M", "NRS_MSASPEC", "with_fixed_slit", {}),
    ("NRS1", "G235M", "NRS_FIXEDSLIT", "shutters", {}),
    ("NRS1", "PRISM", "NRS_BRIGHTOBJ", "shutters", {
        "subarray__name": "SUB512", "subarray__xstart": 1025, "subarray__ystart": 967,
    }),
]  # fmt: skip


@pytest.mark.parametrize(("detector", "grating", "exposure_type", "slits", "more"), MODES)
def test_flicker_noise_beside_spectra_as_the_oracle(oracle_steps, paths, detector, grating, exposure_type, slits, more):
    from jwst.clean_flicker_noise.clean_flicker_noise import do_correction

    files = references_of(paths, grating, slits)
    name = files["msametafile"].name
    meta, block = exposure(detector, grating, exposure_type, instrument__msa_metadata_file=name, **more)
    oracle_steps(files)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        model, mask, _, _, status = do_correction(
            oracle_model(meta, block),
            input_dir=str(files["msametafile"].parent),
            mask_science_regions=True,
            save_mask=True,
        )
    assert status == "COMPLETE"
    step, references = opened(CleanFlickerNoiseStep(skip=False, mask_science_regions=True), meta, files)
    shared = step.frame_shared(meta, step.prepare(meta, references), block)
    np.testing.assert_array_equal(shared.mask, mask.data.astype(bool))
    before = block.sci.copy()
    step.frame_integration(meta, None, shared, block, 0)
    np.testing.assert_array_equal(block.sci, model.data)
    assert np.nanmax(np.abs(block.sci - before)) > 0.05
    rows = slice(922, 1116)
    if exposure_type == "NRS_IFU" or (exposure_type == "NRS_MSASPEC" and slits == "shutters"):
        assert not shared.mask[rows].any()
    elif exposure_type == "NRS_MSASPEC":
        assert shared.mask[rows].any() and not shared.mask[rows].all()


@pytest.mark.parametrize(("detector", "exposure_type"), [("NRS2", "NRS_IFU"), ("NRS1", "NRS_FIXEDSLIT")])
def test_picture_frame_beside_spectra_as_the_oracle(oracle_steps, paths, detector, exposure_type):
    """Nothing of the IFU falls on NRS2 with this grating: sources are then masked by their signal alone."""
    from jwst.picture_frame.picture_frame import correct_picture_frame

    files = references_of(paths, "G235M")
    meta, block = exposure(detector, "G235M", exposure_type)
    frame = np.random.default_rng(3).normal(1, 0.2, block.sci.shape).astype(np.float32)
    frame[500:1500, 500:1500] += 2
    oracle_steps(files)
    reference = types.SimpleNamespace(data=frame)
    model, mask, _, status = correct_picture_frame(oracle_model(meta, block), reference, save_mask=True)
    assert status == "COMPLETE"
    step, references = opened(PictureFrameStep(skip=False), meta, files)
    references["pictureframe"] = FakeReference({"sci": frame})
    prepared = step.prepare(meta, references)
    shared = step.frame_shared(meta, prepared, block)
    np.testing.assert_array_equal(shared.mask, mask.data.astype(bool))
    step.frame_integration(meta, prepared, shared, block, 0)
    np.testing.assert_array_equal(block.sci, model.data)


@pytest.fixture(scope="module")
def mirror(paths):
    """A wheel without grooves, whose image of the shutters falls on the detectors."""
    import asdf

    meta = {"telescope": "JWST", "author": "tests", "pedigree": "DUMMY", "useafter": "2022-01-01T00:00:00",
            "reftype": "disperser", "instrument": {"name": "NIRSPEC"}, "exposure": {"type": "N/A"}}  # fmt: skip
    flat = dict.fromkeys(("theta_x", "theta_y", "theta_z", "tilt_x", "tilt_y", "groovedensity"), 0.0)
    path = paths["msa"].parent / "jwst_nirspec_disperser_0099.asdf"
    asdf.AsdfFile({**optics_of.disperser("G235M"), **flat, "meta": meta}).write_to(path)
    return path


OTHERS = {
    "image": ("NRS1", "NRS_MSATA", {"instrument__grating": "MIRROR", "instrument__filter": "CLEAR"}, 0),
    "image of a lamp": (
        "NRS2", "NRS_TASLIT",
        {"instrument__grating": "MIRROR", "instrument__filter": "OPAQUE", "instrument__lamp_state": "TEST"}, 20,
    ),
    "dark": ("NRS1", "NRS_DARK", {"instrument__filter": "OPAQUE", "instrument__lamp_state": "LINE2"}, 1000),
    "lamp on shutters": ("NRS1", "NRS_AUTOWAVE", {"instrument__lamp_mode": "MSASPEC"}, 1000),
    "lamp on a slit that the detector does not see": (
        "NRS1", "NRS_LAMP", {"instrument__lamp_mode": "FIXEDSLIT", "subarray__name": "SUBS200B1"}, None,
    ),
    "lamp on slices that the detector does not see": ("NRS2", "NRS_LAMP", {"instrument__lamp_mode": "IFU"}, None),
    "flat without metadata": ("NRS1", "NRS_AUTOFLAT", {"instrument__lamp_mode": "MSASPEC"}, "FAILED"),
}  # fmt: skip
"""Detector, EXP_TYPE, keywords, and the least number of pixels that are masked; None if no slit is on the detector."""


@pytest.mark.parametrize(("detector", "exposure_type", "more", "least"), OTHERS.values(), ids=OTHERS)
def test_lamps_darks_and_images_as_the_oracle(
    oracle_steps, monkeypatch, paths, mirror, detector, exposure_type, more, least
):
    """Only shutters that cannot be closed are masked, and of images light without a wavelength where it ends there."""
    from jwst.assign_wcs.util import MSAFileError, NoDataOnDetectorError
    from jwst.clean_flicker_noise.clean_flicker_noise import create_mask, post_process_rate
    from stdatamodels.jwst import datamodels

    lamp = {"instrument__filter": "OPAQUE", "instrument__lamp_state": "LINE2"} if "LAMP" in exposure_type else {}
    lamp |= {"instrument__filter": "OPAQUE", "instrument__lamp_state": "FLAT1"} if "AUTO" in exposure_type else {}
    meta = metadata(detector, "G235M", exposure_type, **(lamp | more))
    files = references_of(paths, "G235M")
    if more.get("instrument__grating") == "MIRROR":
        files["disperser"] = mirror
    if exposure_type == "NRS_AUTOWAVE":
        # jwst takes the path as it is.
        meta["meta.instrument.msa_metadata_file"] = str(files["msametafile"])
    oracle_steps(files)
    # What FITS keywords say of the WCS of an image is not of interest here.
    monkeypatch.setattr("jwst.assign_wcs.assign_wcs_step.update_fits_wcsinfo", lambda *_, **__: None)
    model = datamodels.ImageModel(data=np.ones((2048, 2048), np.float32))
    model.dq = np.zeros(model.data.shape, np.uint32)
    for name, value in meta.items():
        model[name] = value
    step, references = opened(PictureFrameStep(skip=False), meta, files)
    arguments = "picture_frame", meta, references, step.msa_metadata_path, (2048, 2048)

    def theirs():
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return post_process_rate(model, assign_wcs=True, msaflagopen=True)

    if least is None:
        with pytest.raises(NoDataOnDetectorError):
            theirs()
        with pytest.raises(NoSlitError, match=f"falls on detector {detector}"):
            science_regions(*arguments, failed_open=True)
        return
    if least == "FAILED":
        with pytest.raises(MSAFileError):
            theirs()
        with pytest.raises(StepUndone, match="slits of the MSA are not known") as caught:
            science_regions(*arguments, failed_open=True)
        assert caught.value.status == "FAILED"
        return
    expected = ~create_mask(theirs(), mask_science_regions=True, n_sigma=0)
    own = science_regions(*arguments, failed_open=True)
    np.testing.assert_array_equal(own, expected)
    assert own.sum() >= least and (own.any() == (least > 0))


def test_lamps_without_a_list_of_shutters(paths):
    """Only slits that a lamp lights take references then."""
    files = references_of(paths, "G235M")
    for exposure_type, lamp_mode, needed in (("NRS_DARK", None, False), ("NRS_LAMP", "FIXEDSLIT", True)):
        more = {"instrument__lamp_mode": lamp_mode, "instrument__lamp_state": "LINE2", "instrument__filter": "OPAQUE"}
        meta = metadata("NRS1", "G235M", exposure_type, **more)
        _, references = opened(PictureFrameStep(skip=False), meta, files)
        few = {"wavelengthrange": references["wavelengthrange"]}
        if needed:
            with pytest.raises(StepError, match="no camera, collimator"):
                science_regions("picture_frame", meta, few, None, (2048, 2048), failed_open=True)
        few = few if not needed else {**references, "msaoper": None}
        assert not science_regions("picture_frame", meta, few, None, (2048, 2048), failed_open=True).any()


@pytest.mark.parametrize("name", ["missing_msa.fits", None])
@pytest.mark.parametrize(
    "step", [CleanFlickerNoiseStep(skip=False, mask_science_regions=True), PictureFrameStep(skip=False)]
)
def test_without_msa_metadata_the_step_fails_and_the_exposure_is_left(paths, step, name):
    files = references_of(paths, "G235M")
    meta, block = exposure("NRS1", "G235M", "NRS_MSASPEC", instrument__msa_metadata_file=name)
    step, references = opened(step, meta, files)
    references["pictureframe"] = FakeReference({"sci": np.ones((4, 4), np.float32)})
    with pytest.raises(StepUndone, match=r"slits of the MSA are not known.*(missing_msa|MSAMETFL)") as caught:
        step.frame_shared(meta, step.prepare(meta, references), block)
    assert (caught.value.status or step.status_if_undone) == "FAILED"


def test_flicker_noise_is_left_where_no_slice_falls_on_the_detector(paths):
    meta, block = exposure("NRS2", "G235M", "NRS_IFU")
    files = references_of(paths, "G235M")
    step, references = opened(CleanFlickerNoiseStep(skip=False, mask_science_regions=True), meta, files)
    with pytest.raises(StepUndone, match="no slice falls on detector NRS2"):
        step.frame_shared(meta, step.prepare(meta, references), block)


def test_a_missing_reference_is_named(paths):
    files = {kind: path for kind, path in references_of(paths, "PRISM").items() if kind not in ("camera", "msa")}
    where = {"subarray__name": "SUB512", "subarray__xstart": 1025, "subarray__ystart": 967}
    meta, block = exposure("NRS1", "PRISM", "NRS_BRIGHTOBJ", **where)
    step, references = opened(CleanFlickerNoiseStep(skip=False, mask_science_regions=True), meta, files)
    with pytest.raises(StepError, match=r"exposure_rate.fits.*clean_flicker_noise.*no camera, msa reference"):
        step.frame_shared(meta, step.prepare(meta, references), block)


def test_references_that_are_needed_and_named():
    meta = {"meta.exposure.type": "NRS_IFU", "meta.cal_step.ramp_fit": "COMPLETE"}
    masking = CleanFlickerNoiseStep(mask_science_regions=True)
    assert {"ifuslicer", "camera", "msa", "msaoper"} <= set(masking.references_for(meta))
    assert masking.stated_references(meta) == ()
    assert replace(masking, user_mask="mask.fits").references_for(meta) == ()
    fixed = {**meta, "meta.exposure.type": "NRS_FIXEDSLIT"}
    assert "msaoper" not in masking.references_for(fixed) and "msa" in masking.references_for(fixed)
    assert masking.references_for({**meta, "meta.exposure.type": "NRS_DARK"}) == ()
    # The picture frame step lets failed shutters count for fixed slits, too.
    assert "msaoper" in PictureFrameStep().references_for(fixed)
    assert PictureFrameStep().stated_references(fixed) == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jw1_msa.fits", "data/jw1_msa.fits"),
        ("other/jw1_msa.fits", "other/jw1_msa.fits"),
        ("s3://bucket/jw1_msa.fits", "s3://bucket/jw1_msa.fits"),
        ("N/A", None),
        (None, None),
    ],
)
def test_where_the_msa_metadata_are(name, expected):
    meta = {"meta.exposure.type": "NRS_MSASPEC", "meta.instrument.msa_metadata_file": name}
    assert msa_metadata_path(meta, "data/jw1_uncal.fits") == expected
    assert msa_metadata_path({**meta, "meta.exposure.type": "NRS_IFU"}, "data/jw1_uncal.fits") is None


def test_simulated_shutters_are_on_the_msa():
    for slitlet in optics_of.SLITLETS:
        assert 1 <= slitlet.column <= optics_of.SHUTTERS[0]
        assert all(1 <= row <= optics_of.SHUTTERS[1] for row in slitlet.rows)
