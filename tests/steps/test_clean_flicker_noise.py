"""CleanFlickerNoiseStep against jwst's."""

from __future__ import annotations

import types
import warnings

import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.core.block import ImageBlock, RampBlock, Window
from jwstdask.core.errors import StepUndone
from jwstdask.kernels.fourier_clean import FREQUENCIES_ALLSLITS
from jwstdask.kernels.soss_trace import soss_traces
from jwstdask.steps.detector.clean_flicker_noise import CleanFlickerNoiseStep
from tests.kernels.test_soss_trace import soss_model
from tests.steps.fakes import FakeReference, Ramp, metadata, oracle_ramp
from tests.steps.images import Image

READ_NOISE = 12.0
ORACLE = "jwst.clean_flicker_noise.clean_flicker_noise"


def ramps(seed, shape, axis=0, jumps=0.01):
    """Ramps with sources, a sloping background, 1/f noise along an axis, jumps, saturated and unusable groups."""
    rng = np.random.default_rng(seed)
    integrations, groups, ny, nx = shape
    y, x = np.mgrid[:ny, :nx]
    rate = 20 + 0.05 * x + 0.02 * y
    for _ in range(max(ny * nx // 1500, 3)):
        distance = (y - rng.uniform(0, ny)) ** 2 + (x - rng.uniform(0, nx)) ** 2
        rate += rng.exponential(800) * np.exp(-distance / 8)
    noise = rng.normal(0, READ_NOISE, shape)
    stripes = rng.normal(0, 8, (integrations, groups, 1, nx) if axis == 0 else (integrations, groups, ny, 1))
    sci = rate * np.arange(1, groups + 1)[:, np.newaxis, np.newaxis] + noise + stripes
    groupdq = np.zeros(shape, np.uint8)
    hit = rng.random((integrations, ny, nx)) < jumps
    for integration in range(integrations):
        after = rng.integers(1, groups)
        sci[integration, after:, hit[integration]] += 3000
        groupdq[integration, after, hit[integration]] |= dq.JUMP_DET
    groupdq[rng.random(shape) < 0.003] |= dq.DO_NOT_USE
    full = rng.random((ny, nx)) < 0.004
    groupdq[:, groups // 2 :, full] |= dq.SATURATED
    sci = sci.astype(np.float32)
    sci[:, :, rng.random((ny, nx)) < 0.002] = np.nan
    pixeldq = np.where(rng.random((ny, nx)) < 0.01, dq.DO_NOT_USE, 0).astype(np.uint32)
    return Ramp(sci, groupdq, pixeldq)


def references(seed, shape):
    rng = np.random.default_rng(seed + 100)
    flat = rng.normal(1, 0.04, shape).astype(np.float32)
    flat[rng.random(shape) < 0.01] = np.nan
    flat[rng.random(shape) < 0.01] = 0
    err = np.full(shape, 0.01, np.float32)
    flat_dq = np.where(rng.random(shape) < 0.02, dq.DO_NOT_USE | dq.NO_FLAT_FIELD, 0).astype(np.uint32)
    flat_dq[: shape[0] // 4] |= dq.NON_SCIENCE
    return {
        "gain": FakeReference({"sci": np.full(shape, 1.8, np.float32)}),
        "readnoise": FakeReference({"sci": np.full(shape, READ_NOISE, np.float32)}),
        "flat": FakeReference({"sci": flat, "err": err}, flat_dq),
    }


def exposure(seed, shape, axis=0, **more):
    values = {
        "exposure__ngroups": shape[1],
        "exposure__nints": shape[0],
        "exposure__group_time": 10.73677,
        "exposure__frame_time": 10.73677,
        "exposure__type": "NRC_IMAGE",
        "subarray__slowaxis": axis + 1,
        "subarray__fastaxis": 2 - axis,
        "filename": "exposure_ramp.fits",
    }
    return ramps(seed, shape, axis), metadata(shape[-2:], **(values | more)), references(seed, shape[-2:])


def block_of(data):
    window = Window.plain(0, data.sci.shape[-2], 0, data.sci.shape[-1])
    if isinstance(data, Ramp):
        return RampBlock(window, data.sci.copy(), data.groupdq.copy(), data.pixeldq.copy(), data.zeroframe)
    return ImageBlock(window, data.sci.copy(), data.err, data.dq, data.var_poisson, data.var_rnoise)


def clean(step, meta, references, data):
    """The exposure after the step."""
    assert step.skip_reason(meta) is None
    step.check(meta)
    used = {name: references.get(name) for name in step.references_for(meta)}
    assert step.reference_skip_reason(meta, used) is None
    prepared = step.prepare(meta, used)
    block = block_of(data)
    shared = step.frame_shared(meta, prepared, block)
    for integration in range(block.sci.shape[0] if block.sci.ndim > 2 else 1):
        step.frame_integration(meta, prepared, shared, block, integration)
    step.frame_finish(meta, shared, True)
    return block, shared


class References:
    """jwst's steps that the oracle calls inside, with references given."""

    def __init__(self, monkeypatch, meta, references):
        from stdatamodels.jwst import datamodels

        arrays = references["flat"].arrays
        self.models = {
            "gain": datamodels.GainModel(data=references["gain"].arrays["sci"].copy()),
            "readnoise": datamodels.ReadnoiseModel(data=references["readnoise"].arrays["sci"].copy()),
            "flat": datamodels.FlatModel(data=arrays["sci"].copy(), err=arrays["err"].copy()),
        }
        self.models["flat"].dq = references["flat"].dq.copy()
        for model in self.models.values():
            for name in ("xstart", "ystart", "xsize", "ysize", "fastaxis", "slowaxis"):
                model[f"meta.subarray.{name}"] = meta[f"meta.subarray.{name}"]
        for name in ("RampFitStep", "FlatFieldStep"):
            monkeypatch.setattr(f"{ORACLE}.{name}", self.factory(name))
        # The WCS is assigned for median images of any kind, and used for few.
        monkeypatch.setattr(f"{ORACLE}.AssignWcsStep", self.nothing)

    @staticmethod
    def nothing():
        return types.SimpleNamespace(run=lambda model: model)

    def factory(self, name):
        import jwst.flatfield
        import jwst.ramp_fitting

        step_class = {"RampFitStep": jwst.ramp_fitting.RampFitStep, "FlatFieldStep": jwst.flatfield.FlatFieldStep}[name]

        def make():
            step = step_class()
            # Copies, since the fit changes them.
            step.get_reference_file = lambda model, kind: self.models[kind].copy() if kind in self.models else "N/A"
            step.run = lambda model: step.process(model.copy())
            return step

        return make


def oracle(monkeypatch, tmp_path, step, meta, references, data):
    """jwst's model after its step, and its draft mask."""
    from jwst.clean_flicker_noise import CleanFlickerNoiseStep as Oracle
    from stdatamodels.jwst import datamodels

    given = References(monkeypatch, meta, references)
    if isinstance(data, Ramp):
        model = oracle_ramp(data, meta)
    else:
        kind = datamodels.ImageModel if data.sci.ndim == 2 else datamodels.CubeModel
        model = kind(data=data.sci.copy())
        model.dq = data.dq.copy()
        model.var_poisson, model.var_rnoise, model.err = data.var_poisson, data.var_rnoise, data.err
        for name, value in meta.items():
            model[name] = value
    theirs = Oracle()
    for name in (
        "autoparam fit_method fit_by_channel background_method background_box_size mask_science_regions "
        "apply_flat_field n_sigma fit_histogram single_mask user_mask save_mask save_background save_noise"
    ).split():
        value = getattr(step, name)
        setattr(theirs, name, list(value) if isinstance(value, tuple) else value)
    path = str(tmp_path / "flat.fits")
    given.models["flat"].save(path)
    theirs.get_reference_file = lambda model, kind: path if kind == "flat" else "N/A"
    monkeypatch.setattr(
        Oracle, "make_output_path", lambda self, basepath, suffix: str(tmp_path / f"jwst_{suffix}.fits")
    )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return theirs.process(model)


def assert_same(block, model):
    """Identical bits; NaN at the same places."""
    np.testing.assert_array_equal(block.sci, model.data)
    if isinstance(block, RampBlock):
        np.testing.assert_array_equal(block.groupdq, model.groupdq)
        np.testing.assert_array_equal(block.pixeldq, model.pixeldq)


SHAPE = (2, 4, 96, 128)


@pytest.mark.parametrize(
    ("seed", "axis", "parameters"),
    [
        (0, 0, {}),
        (1, 1, {}),
        (2, 1, {"background_method": "model"}),
        (3, 0, {"background_method": "model", "background_box_size": (20, 30)}),
        (4, 1, {"background_method": None, "n_sigma": 3.0}),
        (5, 0, {"n_sigma": 0.0}),
        (6, 1, {"single_mask": False}),
        (7, 0, {"fit_histogram": True}),
        (8, 1, {"apply_flat_field": True}),
        (9, 0, {"apply_flat_field": True, "background_method": "model", "single_mask": False}),
        (10, 1, {"background_method": "median_image"}),
        (11, 0, {"background_method": "median_image", "apply_flat_field": True}),
        (12, 1, {"fit_by_channel": True}),
        (13, 1, {"autoparam": True}),
    ],
)
def test_same_bits_as_the_oracle(monkeypatch, tmp_path, seed, axis, parameters):
    """An imaging subarray in each branch."""
    ramp, meta, references = exposure(seed, SHAPE, axis)
    step = CleanFlickerNoiseStep(**parameters)
    block, _ = clean(step, meta, references, ramp)
    model = oracle(monkeypatch, tmp_path, step, meta, references, ramp)
    assert model.meta.cal_step.clean_flicker_noise == "COMPLETE"
    assert_same(block, model)
    changed = np.nanstd(block.sci - ramp.sci)
    assert changed > 2


@pytest.mark.parametrize("by_channel", [False, True])
def test_same_bits_on_the_lines_of_a_full_frame(monkeypatch, tmp_path, by_channel):
    ramp, meta, references = exposure(0, (1, 3, 32, 2048), 1, subarray__name="FULL")
    step = CleanFlickerNoiseStep(fit_by_channel=by_channel)
    block, shared = clean(step, meta, references, ramp)
    assert shared.method.fit_by_channel == by_channel
    assert_same(block, oracle(monkeypatch, tmp_path, step, meta, references, ramp))


@pytest.mark.parametrize(
    "parameters", [{}, {"mask_science_regions": True}, {"fit_by_channel": True, "mask_science_regions": True}]
)
def test_same_bits_for_miri(monkeypatch, tmp_path, parameters):
    """The noise of MIRI runs along y; what is no science in the flat can be masked."""
    ramp, meta, references = exposure(
        1,
        (2, 5, 96, 104),
        0,
        instrument__name="MIRI",
        instrument__detector="MIRIMAGE",
        exposure__type="MIR_IMAGE",
        subarray__name="FULL",
        subarray__slowaxis=2,
        subarray__fastaxis=1,
    )
    # Unusable first and last groups, as after firstframe and lastframe.
    ramp.groupdq[:, 0] |= dq.DO_NOT_USE
    ramp.groupdq[:, -1] |= dq.DO_NOT_USE
    step = CleanFlickerNoiseStep(**parameters)
    block, shared = clean(step, meta, references, ramp)
    assert_same(block, oracle(monkeypatch, tmp_path, step, meta, references, ramp))
    assert shared.mask[:24].any() != bool(parameters)


def test_same_bits_for_niriss(monkeypatch, tmp_path):
    ramp, meta, references = exposure(
        2, SHAPE, 0, instrument__name="NIRISS", instrument__detector="NIS", exposure__type="NIS_IMAGE"
    )
    step = CleanFlickerNoiseStep(autoparam=True)
    block, shared = clean(step, meta, references, ramp)
    assert shared.flat is not None
    assert_same(block, oracle(monkeypatch, tmp_path, step, meta, references, ramp))


def test_traces_of_soss_are_masked():
    """What is masked is compared in the tests of the kernels."""
    ramp, meta, references = exposure(
        4,
        (1, 3, 96, 256),
        0,
        instrument__name="NIRISS",
        exposure__type="NIS_SOSS",
        subarray__name="SUBSTRIP96",
        instrument__pupil_position=245.8,
    )
    references["pastasoss"] = FakeReference(asdf=soss_model())
    step = CleanFlickerNoiseStep(mask_science_regions=True)
    _, shared = clean(step, meta, references, ramp)
    covered = soss_traces((96, 256), soss_model(), 245.8, "SUBSTRIP96")
    assert covered.any() and not covered.all()
    assert not shared.mask[covered].any() and shared.mask[~covered].mean() > 0.5
    with pytest.raises(StepUndone, match="no pastasoss reference"):
        clean(step, meta, references | {"pastasoss": None}, ramp)


@pytest.mark.parametrize(
    ("seed", "detector", "exposure_type", "subarray"),
    [
        (0, "NRS1", "NRS_FIXEDSLIT", "ALLSLITS"),
        (1, "NRS2", "NRS_FIXEDSLIT", "SUBS200A1"),
        (2, "NRS2", "NRS_BRIGHTOBJ", "SUB2048"),
        (3, "NRS1", "NRS_IFU", "FULL"),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_fourier_fit_as_the_oracle(monkeypatch, tmp_path, seed, detector, exposure_type, subarray, given):
    ramp, meta, references = exposure(
        seed,
        (1, 3, 64, 160),
        0,
        instrument__name="NIRSPEC",
        instrument__detector=detector,
        exposure__type=exposure_type,
        subarray__name=subarray,
    )
    user_mask = None
    if given:
        from stdatamodels.jwst.datamodels import ImageModel

        mask = np.ones((64, 160), np.float32)
        mask[20:44] = 0
        user_mask = str(tmp_path / "mask.fits")
        ImageModel(data=mask).save(user_mask)
    step = CleanFlickerNoiseStep(fit_method="fft", user_mask=user_mask)
    block, shared = clean(step, meta, references, ramp)
    if given:
        np.testing.assert_array_equal(shared.mask, mask == 1)
    np.testing.assert_array_equal(block.sci, oracle(monkeypatch, tmp_path, step, meta, references, ramp).data)
    assert np.nanstd(block.sci - ramp.sci) > 1


@pytest.mark.parametrize("shape", [(96, 128), (3, 96, 128)], ids=["rate", "rateints"])
@pytest.mark.parametrize(
    "parameters",
    [{}, {"apply_flat_field": True, "single_mask": False}, {"autoparam": True}, {"background_method": "median_image"}],
)
def test_rates_as_the_oracle(monkeypatch, tmp_path, shape, parameters):
    """In Stage 2 the step cleans rates."""
    if len(shape) == 2 and parameters.get("background_method") == "median_image":
        pytest.skip("a median image needs integrations")
    _, meta, references = exposure(0, (1, 2, *shape[-2:]), 1, cal_step__ramp_fit="COMPLETE")
    sci = ramps(3, (shape[0] if len(shape) == 3 else 1, 2, *shape[-2:]), 1).sci[:, 0].reshape(shape) / np.float32(10)
    quiet = np.ones_like(sci)
    image = Image(sci, quiet, np.zeros(shape, np.uint32), quiet, quiet)
    step = CleanFlickerNoiseStep(**parameters)
    block, _ = clean(step, meta, references, image)
    assert_same(block, oracle(monkeypatch, tmp_path, step, meta, references, image))


@pytest.mark.parametrize(
    ("background_method", "single_mask"), [("median", True), ("model", False), ("median_image", False)]
)
def test_mask_background_and_noise_as_the_oracle_saves_them(monkeypatch, tmp_path, background_method, single_mask):
    from astropy.io import fits

    ramp, meta, references = exposure(3, (2, 3, 64, 96), 1)
    step = CleanFlickerNoiseStep(
        background_method=background_method,
        single_mask=single_mask,
        save_mask=True,
        save_background=True,
        save_noise=True,
    ).with_side_products(lambda suffix, _: str(tmp_path / f"own_{suffix}.fits"))
    clean(step, meta, references, ramp)
    oracle(monkeypatch, tmp_path, step, meta, references, ramp)
    for suffix in ("mask", "flicker_bkg", "flicker_noise"):
        own, theirs = fits.open(tmp_path / f"own_{suffix}.fits"), fits.open(tmp_path / f"jwst_{suffix}.fits")
        # An HDU ERR without data stands beside a mask that is one image, for its unit.
        assert [hdu.name for hdu in own] == [hdu.name for hdu in theirs]
        assert own[0].header["DATAMODL"] == theirs[0].header["DATAMODL"]
        for hdu in own[1:-1]:
            assert (hdu.data is None) == (theirs[hdu.name].data is None)
            if hdu.data is None:
                continue
            np.testing.assert_array_equal(hdu.data, theirs[hdu.name].data)
            assert hdu.data.dtype == theirs[hdu.name].data.dtype
    assert len(list(tmp_path.iterdir())) == 7
    assert np.nanstd(fits.getdata(tmp_path / "own_flicker_noise.fits")[:, 1:]) > 2


def test_nothing_is_saved_of_an_exposure_that_is_not_cleaned(tmp_path):
    ramp, meta, references = exposure(3, (1, 3, 64, 96), 1)
    step = CleanFlickerNoiseStep(save_mask=True, save_background=True, save_noise=True)
    step = step.with_side_products(lambda suffix, _: str(tmp_path / f"own_{suffix}.fits"))
    prepared = step.prepare(meta, {name: references[name] for name in step.references_for(meta)})
    shared = step.frame_shared(meta, prepared, block_of(ramp))
    assert len(list(tmp_path.iterdir())) == 2
    step.frame_finish(meta, shared, False)
    assert list(tmp_path.iterdir()) == []


def test_the_zeroframe_stays():
    ramp, meta, references = exposure(0, (1, 3, 64, 64))
    ramp.zeroframe = ramp.sci[:, 0] / 2
    block, _ = clean(CleanFlickerNoiseStep(), meta, references, ramp)
    np.testing.assert_array_equal(block.zeroframe, ramp.sci[:, 0] / 2)


def test_noise_is_removed():
    """Stripes of 8 DN are gone but for the noise of a median of some hundred pixels of a group difference.

    Its standard deviation is sqrt(pi / 2 / 128) * sqrt(2) * 12 DN = 1.9 DN a difference; clipping makes it less sure.
    """
    ramp, meta, references = exposure(5, (1, 2, 128, 128), 0)
    block, _ = clean(CleanFlickerNoiseStep(background_method="model"), meta, references, ramp)
    before, after = (np.nanmedian(data.sci[0, 1] - data.sci[0, 0], axis=0) for data in (ramp, block))
    assert np.std(before) > 10
    assert np.std(after) < 3


# -- refusals


def test_the_exposure_is_left_where_there_is_no_integration_to_compare():
    ramp, meta, references = exposure(0, (1, 3, 64, 64))
    with pytest.raises(StepUndone, match="more than one integration"):
        clean(CleanFlickerNoiseStep(background_method="median_image"), meta, references, ramp)


def test_series_of_images_are_scaled_with_the_light_of_the_source():
    """A source that brightens by a third is left alone, apart from the noise of lines."""
    shape = (4, 3, 64, 96)
    ramp, meta, references = exposure(
        6,
        shape,
        exposure__type="NRC_TSIMAGE",
        exposure__integration_time=40.0,
        visit__tsovisit=True,
        wcsinfo__siaf_xref_sci=50.0,
        wcsinfo__siaf_yref_sci=30.0,
    )
    light = np.linspace(1, 4 / 3, 4)
    y, x = np.mgrid[:64, :96]
    source = 9000 * np.exp(-0.5 * ((x - 49) ** 2 + (y - 29) ** 2) / 4)
    ramp.sci[:] = np.random.default_rng(1).normal(0, 2, shape)
    ramp.sci += (light[:, None, None, None] * np.arange(1, 4)[:, None, None] * source).astype(np.float32)
    ramp.groupdq[:] = 0
    step = CleanFlickerNoiseStep(background_method="median_image")
    assert "pars-tsophotometrystep" in step.references_for(meta)
    assert step.stated_references(meta) == ()
    block, shared = clean(step, meta, references, ramp)
    np.testing.assert_allclose(shared.median.scale / shared.median.scale[0], light, rtol=0.01)
    # A line of 64 pixels has a median of 2.5 / 8 DN; the largest of 1152 is within six times that.
    assert np.abs(block.sci - ramp.sci).max() < 6 * 2.5 / 8


def test_soss_subarrays_without_a_spectrum():
    ramp, meta, references = exposure(0, (2, 3, 64, 64), exposure__type="NIS_SOSS", subarray__name="FULL")
    with pytest.raises(StepUndone, match="not available for SOSS subarray FULL"):
        clean(CleanFlickerNoiseStep(background_method="median_image"), meta, references, ramp)


def test_a_mask_of_another_shape(tmp_path):
    from stdatamodels.jwst.datamodels import ImageModel

    ramp, meta, references = exposure(0, (1, 3, 64, 64))
    ImageModel(data=np.ones((64, 60), np.float32)).save(tmp_path / "mask.fits")
    with pytest.raises(StepUndone, match="does not match the shape"):
        clean(CleanFlickerNoiseStep(user_mask=str(tmp_path / "mask.fits")), meta, references, ramp)


@pytest.mark.parametrize(
    ("exposure_type", "fit_method", "reason"),
    [
        ("MIR_LRS-FIXEDSLIT", "median", "not supported"),
        ("NRC_IMAGE", "fft", "cannot be applied"),
        ("NRS_IFU", "fft", ""),
    ],
)
def test_what_is_skipped(exposure_type, fit_method, reason):
    found = CleanFlickerNoiseStep(fit_method=fit_method).skip_reason({"meta.exposure.type": exposure_type})
    assert (found is None) == (reason == "") and reason in (found or "")


def test_references_that_are_needed():
    meta = {"meta.exposure.type": "NRC_IMAGE", "meta.exposure.ngroups": 5}
    assert set(CleanFlickerNoiseStep().references_for(meta)) == {"gain", "readnoise"}
    assert set(CleanFlickerNoiseStep(autoparam=True).references_for(meta)) == {"flat", "gain", "readnoise"}
    assert CleanFlickerNoiseStep().references_for({**meta, "meta.cal_step.ramp_fit": "COMPLETE"}) == ()


def test_kernels_and_step_agree_on_the_frequencies():
    ramp, meta, references = exposure(0, (1, 3, 64, 64), subarray__name="ALLSLITS", exposure__type="NRS_FIXEDSLIT")
    _, shared = clean(CleanFlickerNoiseStep(), meta, references, ramp)
    assert shared.method.frequencies == FREQUENCIES_ALLSLITS
