"""Kernels of clean_flicker_noise against slow references and the oracle's functions."""

from __future__ import annotations

import types
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jwstdask.core import dq
from jwstdask.kernels import clean_flicker_noise as kernels
from jwstdask.kernels.clean_flicker_noise import CleaningError, Method

FLOATS = st.floats(-1e4, 1e4, width=32)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def image(seed, shape, stripes=3.0, axis=0, level=20.0):
    """Background with a slope, stripes along an axis, sources, outliers and NaN; and a mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    values = rng.normal(level, 5, shape) + 0.01 * y
    values += rng.normal(0, stripes, (1, shape[1]) if axis == 0 else (shape[0], 1))
    for _ in range(max(values.size // 3000, 3)):
        distance = (y - rng.uniform(0, shape[0])) ** 2 + (x - rng.uniform(0, shape[1])) ** 2
        values += rng.exponential(300) * np.exp(-distance / 8)
    values[rng.random(shape) < 0.001] = -300
    values[rng.random(shape) < 0.01] = np.nan
    return values.astype(np.float32), rng.random(shape) > 0.2


# -- limits


def limits(values, lower, upper, lower_half):
    """By sigma-clipped statistics of the values themselves."""
    from astropy.stats import sigma_clipped_stats

    values = values.astype(np.float64)
    _, center, sigma = sigma_clipped_stats(values)
    if lower_half:
        distance = values[values <= center] - center
        _, center, sigma = sigma_clipped_stats(np.concatenate((distance, -distance)) + center)
    return center - lower * sigma, center + upper * sigma


@pytest.mark.parametrize("lower_half", [False, True])
@settings(max_examples=60, deadline=None)
@given(values=arrays.arrays(np.float32, st.integers(1, 80), elements=FLOATS))
def test_limits_are_those_of_clipped_statistics(lower_half, values):
    """To the rounding of double precision, since the sums are taken in another order."""
    found = kernels.background_limits(np.sort(values), 3.0, 2.0, lower_half)
    np.testing.assert_allclose(found, limits(values, 3.0, 2.0, lower_half), rtol=1e-12, atol=1e-9)


def test_no_values_have_no_limits():
    assert kernels.background_limits(np.empty(0, np.float32), 3.0, 3.0) == (-np.inf, np.inf)


@pytest.mark.parametrize("lower_half", [False, True])
@pytest.mark.parametrize("fit_histogram", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_same_mask_as_the_oracle(seed, fit_histogram, lower_half):
    from jwst.clean_flicker_noise.background_level import clip_to_background

    values, mask = image(seed, (150, 120))
    values[3, 4] = np.inf
    expected = mask.copy()
    clip_to_background(values, expected, fit_histogram=fit_histogram, lower_half_only=lower_half)
    kernels.clip_to_background(values, mask, fit_histogram=fit_histogram, lower_half=lower_half)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("fit_histogram", [False, True])
def test_an_image_of_one_value_as_in_the_oracle(fit_histogram):
    from jwst.clean_flicker_noise.background_level import clip_to_background

    values = np.full((10, 10), 7, np.float32)
    values[0, 0], values[1, 1] = 8, 6
    mask = np.ones(values.shape, bool)
    expected = mask.copy()
    clip_to_background(values, expected, fit_histogram=fit_histogram)
    kernels.clip_to_background(values, mask, fit_histogram=fit_histogram)
    np.testing.assert_array_equal(mask, expected)


# -- medians


@settings(max_examples=80, deadline=None)
@given(data=st.data(), axis=st.sampled_from([0, 1]))
def test_lines_lose_their_median(data, axis):
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 140)))
    values = data.draw(arrays.arrays(np.float32, shape, elements=FLOATS))
    mask = data.draw(arrays.arrays(np.bool_, shape))
    expected = values.copy()
    stripes = np.ma.median(np.ma.array(values, mask=~mask), axis=axis, keepdims=True)
    expected -= np.ma.filled(stripes, 0.0).astype(np.float32)
    kernels.median_clean(values, mask, axis)
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_medians_by_channel(axis):
    shape = (2048, 8) if axis == 0 else (8, 2048)
    values, mask = image(0, shape)
    values = np.nan_to_num(values)
    whole = np.split(values.copy(), 4, axis)
    for part, usable in zip(whole, np.split(mask, 4, axis), strict=True):
        kernels.median_clean(part, usable, axis)
    kernels.median_clean(values, mask, axis, fit_by_channel=True)
    np.testing.assert_array_equal(values, np.concatenate(whole, axis))


def test_channels_are_those_of_a_full_frame():
    values, mask = (np.nan_to_num(array) for array in image(0, (8, 512)))
    other = values.copy()
    kernels.median_clean(values, mask, 1, fit_by_channel=True)
    kernels.median_clean(other, mask, 1)
    np.testing.assert_array_equal(values, other)


@settings(max_examples=40, deadline=None)
@given(values=arrays.arrays(np.float32, (5, 2, 3, 4), elements=FLOATS | st.just(np.float32(np.nan))))
def test_medians_of_integrations(values):
    np.testing.assert_array_equal(kernels.median_of_integrations(values), np.nanmedian(values, axis=0))


# -- background and whole images


@pytest.mark.parametrize(("shape", "box"), [((64, 96), (32, 32)), ((61, 96), (1, 32)), ((50, 33), (25, 11))])
def test_default_box(shape, box):
    assert kernels.default_box(shape) == box


def clean_as_oracle(values, mask, method, flat=None, detector="NRS1"):
    from jwst.clean_flicker_noise.clean_flicker_noise import _clean_one_image

    return _clean_one_image(
        values,
        mask,
        method.background_method,
        method.background_box_size,
        method.n_sigma,
        method.fit_method,
        detector,
        method.frequencies,
        method.axis + 1,
        method.fit_by_channel,
        flat,
    )


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("n_sigma", [0.0, 2.0])
@pytest.mark.parametrize("background_method", ["median", "model", None])
@pytest.mark.parametrize("with_flat", [False, True])
def test_same_bits_as_the_oracle(axis, n_sigma, background_method, with_flat):
    values, mask = image(axis, (96, 80), axis=axis)
    flat = np.random.default_rng(1).normal(1, 0.05, values.shape).astype(np.float32) if with_flat else None
    method = Method(axis=axis, n_sigma=n_sigma, background_method=background_method)
    expected_mask = mask.copy()
    expected, expected_background, _ = clean_as_oracle(values, expected_mask, method, flat)
    cleaned, background = kernels.clean_image(values, mask, method, flat)
    np.testing.assert_array_equal(cleaned, expected)
    np.testing.assert_array_equal(mask, expected_mask)
    np.testing.assert_array_equal(background, expected_background)


def test_an_image_without_background_is_not_cleaned():
    values, _ = image(0, (20, 20))
    assert kernels.clean_image(values, np.isnan(values), Method()) is None


def test_a_background_model_of_an_image_without_usable_pixels_is_a_number():
    """photutils refuses a mask of all pixels; the median of no values is NaN."""
    values, mask = np.ones((7, 7), np.float32), np.zeros((7, 7), bool)
    assert np.isnan(kernels.background_model(values, mask))


# -- fits in frequency space


@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
@pytest.mark.parametrize(("shape", "frequencies"), [((48, 200), None), ((120, 40), kernels.FREQUENCIES_ALLSLITS)])
def test_subarrays_as_the_oracle(detector, shape, frequencies):
    """Within 1e-5 of the noise of 5 DN, or the rounding of the value: the oracle's Fourier vectors are complex64."""
    from jwst.clean_flicker_noise.clean_flicker_noise import fft_clean_subarray

    frequencies = frequencies or kernels.FREQUENCIES
    values, mask = image(1, shape, level=0.0)
    values, mask = np.nan_to_num(values), mask & np.isfinite(values)
    mask[:, shape[1] // 3 : shape[1] // 2] = False
    mask[shape[0] // 2 : shape[0] // 2 + 9] = False
    expected = fft_clean_subarray(values.copy(), mask.copy(), detector, fc=frequencies)
    found = kernels.fourier_clean_subarray(values.copy(), mask.copy(), detector != "NRS1", frequencies)
    assert (np.abs(found - expected) <= 1e-5 * 5 + 2 * np.spacing(np.abs(values))).all()
    assert np.std(expected - values) > 0.5


def frame(seed):
    """A square frame with a mask of bands; some lines have few background pixels, some no neighbours with any."""
    values, mask = image(seed, (256, 256), level=0.0)
    values = np.nan_to_num(values)
    for row in range(0, 256, 30):
        mask[row : row + 17] = False
    mask[:, 100] = False
    mask[:, 180:184] = False
    mask[20:, 101] = False
    return values, mask


@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
def test_full_frames_as_the_oracle(detector, monkeypatch):
    """Frames of 256 x 256 with the filter of 2048, stretched: within 1e-5 of the noise of 5 DN.

    As above; lines that the oracle's single precision spoils are computed as it does.
    """
    from jwst.clean_flicker_noise.nsclean import NSClean

    monkeypatch.setattr(kernels, "_CUTOFF", 1 / 32)
    monkeypatch.setattr(kernels, "_ROLLOFF", 1 / 128)
    values, mask = frame(2)
    expected = NSClean(detector, mask, fc=1 / 32, kill_width=1 / 128).clean(values.copy(), buff=True)
    found = values.copy()
    kernels.fourier_clean_frame(found, mask, detector != "NRS1")
    assert (np.abs(found - expected) <= 1e-5 * 5 + 2 * np.spacing(np.abs(values))).all()
    assert np.std(expected - values) > 0.5


def test_noise_of_low_frequency_is_subtracted(monkeypatch):
    """A slow wave along the fast axis is gone.

    The smoothing across lines leaves a wave that is the same in all lines as it is, but for the one pixel by which the
    correction is moved, as in jwst: 2 pi / 256 of the amplitude.
    """
    monkeypatch.setattr(kernels, "_CUTOFF", 1 / 32)
    monkeypatch.setattr(kernels, "_ROLLOFF", 1 / 128)
    wave = 10 * np.cos(2 * np.pi * np.arange(256) / 256).astype(np.float32)
    values = np.repeat(wave[:, np.newaxis], 256, axis=1)
    found = values.copy()
    kernels.fourier_clean_frame(found, np.ones(values.shape, bool), False)
    # Without the lines of reference pixels at both ends, as far as the smoothing reaches.
    moved = values - np.roll(values, 1, axis=0)
    np.testing.assert_allclose(found[:, 20:-20], moved[:, 20:-20], atol=1e-4)


def test_a_subarray_without_background_cannot_be_fitted():
    values, _ = image(0, (32, 64))
    with pytest.raises(CleaningError, match="no background"):
        kernels.fourier_clean_subarray(np.nan_to_num(values), np.zeros(values.shape, bool), False)


# -- ramps


def chain(sci, groupdq, mask, method):
    """Group by group with the oracle's function, as its documentation says."""
    out, before = sci.copy(), sci
    for group in range(1, len(sci)):
        usable = mask & ((groupdq[group] & (dq.DO_NOT_USE | dq.JUMP_DET)) == 0)
        cleaned, _, _ = clean_as_oracle(before[group] - before[group - 1], usable, method)
        if cleaned is not None:
            out[group] = out[group - 1] + cleaned
    return out


@pytest.mark.parametrize("seed", [0, 1])
def test_cleaned_differences_are_chained(seed):
    rng = np.random.default_rng(seed)
    planes = [image(seed + k, (40, 60))[0] for k in range(5)]
    sci = np.cumsum(planes, axis=0, dtype=np.float32)
    groupdq = rng.choice([0, dq.JUMP_DET, dq.DO_NOT_USE, dq.SATURATED], sci.shape, p=[0.7, 0.1, 0.1, 0.1]).astype(
        np.uint8
    )
    # A group without any background stays as it is, and the next one is chained to it.
    groupdq[2] |= dq.DO_NOT_USE
    mask = rng.random(sci.shape[1:]) > 0.3
    expected = chain(sci, groupdq, mask, Method())
    before = mask.copy()
    assert kernels.clean_ramp(sci, groupdq, mask, Method()) == [2]
    np.testing.assert_array_equal(sci, expected)
    np.testing.assert_array_equal(mask, before)


def test_the_background_is_given():
    sci = np.cumsum([image(k, (40, 60))[0] for k in range(3)], axis=0, dtype=np.float32)
    background = np.full_like(sci, -1)
    kernels.clean_ramp(
        sci, np.zeros(sci.shape, np.uint8), np.ones(sci.shape[1:], bool), Method(), background=background
    )
    assert (background[0] == -1).all()
    assert (np.abs(background[1:] - 20) < 3).all()


# -- masks and flats


def test_scene_mask_of_integrations():
    rate = np.stack([image(k, (60, 70))[0] for k in range(3)])
    rate[1, 5, 6] = 0
    masks = kernels.scene_mask(rate, single_mask=False)
    assert not masks[1, 5, 6] and not masks[np.isnan(rate)].any()
    for plane, values in zip(masks, rate, strict=True):
        np.testing.assert_array_equal(plane, kernels.scene_mask(values))
    np.testing.assert_array_equal(kernels.scene_mask(rate), masks.all(axis=0))
    np.testing.assert_array_equal(
        kernels.scene_mask(rate, n_sigma=0, single_mask=False), np.isfinite(rate) & (rate != 0)
    )
    excluded = np.zeros((60, 70), bool)
    excluded[:30] = True
    assert not kernels.scene_mask(rate, excluded)[:30].any()


def soss_model():
    """A reference of three orders: curved traces, and polynomials of wavelength in column and angle."""
    rng = np.random.default_rng(7)
    x = np.arange(0.0, 2048.0, 4)
    traces, calibrations = [], []
    for order, degree in ((1, 5), (2, 3), (3, 3)):
        y = 60 * order + 40 * ((x - 1000) / 1000) ** 2 + (1500 / order - x) * 0.01
        pivot = {"pivot_x": 189.0 - 20 * order, "pivot_y": 5.0 + 15 * order}
        traces.append({"spectral_order": order, "cutoff": 2048, "trace": np.stack([x, y], axis=1), **pivot})
        coefficients = rng.normal(0, 0.003, (degree + 1) * (degree + 2) // 2)
        coefficients[:2] = 2.8 / order, -2.0 / order
        extents = [[0, -0.1], [2048, 0.16]]
        calibrations.append(
            {"coefficients": coefficients.tolist(), "polynomial_degree": degree, "scale_extents": extents}
        )
    meta = {"pwcpos_bounds": [245.54, 246.04], "pwcpos_cmd": 245.76, "soss_xdim": 2048, "soss_ydim": 300}
    meta |= {"subarray_ymin": 1792, "wavemap_nwl": 5001, "wavemap_wlmin": 0.5, "wavemap_wlmax": 5.5}
    return {"meta": meta, "traces": traces, "wavecal_models": calibrations}


@pytest.mark.parametrize(("subarray", "rows"), [("SUBSTRIP256", 256), ("SUBSTRIP96", 96)])
@pytest.mark.parametrize("angle", [245.6, 245.76, 246.0])
def test_traces_of_soss_as_the_oracle(monkeypatch, subarray, rows, angle):
    from jwst.clean_flicker_noise.clean_flicker_noise import mask_soss_traces
    from jwst.extract_1d.soss_extract import pastasoss
    from stdatamodels.jwst.datamodels import ImageModel, PastasossModel

    # The map of wavelengths, slow, is not used.
    monkeypatch.setattr(pastasoss, "_calc_2d_wave_map", lambda *_, **__: np.zeros((2048, 2048)))
    tree = soss_model()
    reference = PastasossModel()
    for name, value in tree["meta"].items():
        setattr(reference.meta, name, value)
    reference.traces, reference.wavecal_models = tree["traces"], tree["wavecal_models"]
    science = ImageModel(data=np.zeros((rows, 2048), np.float32))
    science.meta.instrument.pupil_position, science.meta.subarray.name = angle, subarray
    expected = mask_soss_traces(science, np.ones((rows, 2048), bool), soss_refmodel=reference)
    covered = kernels.soss_traces((rows, 2048), tree, angle, subarray)
    np.testing.assert_array_equal(covered, ~expected)
    assert 0.05 < covered.mean() < 0.9


def test_an_angle_that_the_traces_do_not_know():
    with pytest.raises(CleaningError, match=r"outside of 245\.54 to 246\.04"):
        kernels.soss_traces((256, 2048), soss_model(), 250.0, "SUBSTRIP256")


@pytest.mark.parametrize("seed", [0, 1])
def test_flats_are_filled_as_in_the_oracle(tmp_path, seed):
    from jwst.clean_flicker_noise.clean_flicker_noise import read_flat_file
    from stdatamodels.jwst.datamodels import FlatModel, ImageModel

    rng = np.random.default_rng(seed)
    flat = rng.normal(1, 0.05, (64, 96)).astype(np.float32)
    flat[rng.random(flat.shape) < 0.05] = np.nan
    flat[rng.random(flat.shape) < 0.05] = 0
    model, science = FlatModel(data=flat.copy()), ImageModel(data=flat)
    for item in (model, science):
        sizes = {"xstart": 1, "ystart": 1, "xsize": 96, "ysize": 64, "fastaxis": 1, "slowaxis": 2}
        for name, value in sizes.items():
            item[f"meta.subarray.{name}"] = value
    model.save(tmp_path / "flat.fits")
    before = flat.copy()
    np.testing.assert_array_equal(kernels.fill_flat(flat), read_flat_file(science, str(tmp_path / "flat.fits")))
    np.testing.assert_array_equal(flat, before)


def test_a_flat_without_gaps_is_itself():
    flat = np.ones((5, 6), np.float32)
    assert kernels.fill_flat(flat) is flat


# -- scales of median images


def test_fluxes_are_scaled_by_their_median():
    np.testing.assert_allclose(kernels.flux_scale(np.array([1.0, 2.0, 4.0])), [0.5, 1, 2])
    np.testing.assert_allclose(kernels.flux_scale(np.array([1.0, np.nan, 3.0, 2.0])), [0.5, 1, 1.5, 1])
    with pytest.raises(CleaningError, match="no integration has a flux"):
        kernels.flux_scale(np.array([np.nan, np.nan]))


# -- choice of parameters


@pytest.mark.parametrize(("instrument", "axis", "name"), [("NIRCAM", 1, "nircam"), ("NIRISS", 0, "niriss")])
@pytest.mark.parametrize("seed", range(4))
def test_choices_of_the_oracle(monkeypatch, instrument, axis, name, seed):
    """Measures identical to the bit, and what follows from them."""
    from jwst.clean_flicker_noise import autoparam
    from stdatamodels.jwst.datamodels import ImageModel

    rng = np.random.default_rng(seed)
    values, _ = image(seed, (160, 192), axis=axis, level=0.0)
    y, x = np.mgrid[:160, :192]
    values = (values * 10.0 ** -rng.integers(0, 4) + x * rng.choice([0, 1e-5, 1e-3]) + y * 1e-4).astype(np.float32)
    seen = {}
    original = autoparam._image_decision_tree

    def tree(parameters, limits, *measures):
        seen["measures"] = measures
        original(parameters, limits, *measures)

    monkeypatch.setattr(autoparam, "_image_decision_tree", tree)
    model = ImageModel(data=values.copy())
    model.meta.subarray.slowaxis = axis + 1
    expected = getattr(autoparam, f"{name}_image_parameters")(model, None)
    levels = kernels.measure(values, axis, instrument)
    assert (levels.masked, levels.offset, levels.high_slope, levels.ratio, levels.scatter) == seen["measures"]
    choice = kernels.choose(levels, kernels.LIMITS[instrument])
    assert choice == (expected["background_method"], expected["fit_by_channel"])


@pytest.mark.parametrize("instrument", ["NIRCAM", "NIRISS"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_decisions_of_the_oracle(instrument, data):
    """Measures below, at and above each limit in all combinations."""
    from jwst.clean_flicker_noise import autoparam

    limits = kernels.LIMITS[instrument]

    def around(limit):
        return st.sampled_from([0.0, limit / 2, limit, limit * 2])

    masked, offset, ratio, scatter = (
        data.draw(around(value)) for value in (limits.masked, limits.offset, limits.ratio, limits.scatter)
    )
    slope = data.draw(around(limits.low_slope) | around(limits.high_slope))
    expected = {"background_method": "median", "fit_by_channel": False}
    theirs = {
        "mask_frac": limits.masked,
        "max_offset_high_mask": limits.offset,
        "max_slope_low_offset": limits.low_slope,
        "max_slope_high_offset": limits.high_slope,
        "slope_ratio": limits.ratio,
        "channel_sigma": limits.scatter,
    }
    autoparam._image_decision_tree(expected, theirs, masked, offset, slope, ratio, scatter)
    found = kernels.choose(kernels.Levels(masked, offset, slope, slope, ratio, scatter), limits)
    assert types.SimpleNamespace(**expected) == types.SimpleNamespace(**found._asdict())


def test_steps_between_amplifiers():
    """A full line of 2048 pixels, the third amplifier 0.5 above the others."""
    values = np.random.default_rng(0).normal(0, 0.01, 2048)
    values[1024:1536] += 0.5
    # Means of 512 pixels of scatter 0.01: 4e-4 each.
    assert abs(kernels._channel_step(values) - 0.5) < 5e-3
    assert kernels._channel_step(values[:1024]) == 0
