"""Background and what of an image it is, against slow references and the oracle's functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jwstdask.kernels import background
from tests.kernels.flicker import image

pytestmark = pytest.mark.filterwarnings("ignore")

FLOATS = st.floats(-1e4, 1e4, width=32)


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
    found = background.background_limits(np.sort(values), 3.0, 2.0, lower_half)
    np.testing.assert_allclose(found, limits(values, 3.0, 2.0, lower_half), rtol=1e-12, atol=1e-9)


def test_no_values_have_no_limits():
    assert background.background_limits(np.empty(0, np.float32), 3.0, 3.0) == (-np.inf, np.inf)


@pytest.mark.parametrize("lower_half", [False, True])
@pytest.mark.parametrize("fit_histogram", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_same_mask_as_the_oracle(seed, fit_histogram, lower_half):
    from jwst.clean_flicker_noise.background_level import clip_to_background

    values, mask = image(seed, (150, 120))
    values[3, 4] = np.inf
    expected = mask.copy()
    clip_to_background(values, expected, fit_histogram=fit_histogram, lower_half_only=lower_half)
    background.clip_to_background(values, mask, fit_histogram=fit_histogram, lower_half=lower_half)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("fit_histogram", [False, True])
def test_an_image_of_one_value_as_in_the_oracle(fit_histogram):
    from jwst.clean_flicker_noise.background_level import clip_to_background

    values = np.full((10, 10), 7, np.float32)
    values[0, 0], values[1, 1] = 8, 6
    mask = np.ones(values.shape, bool)
    expected = mask.copy()
    clip_to_background(values, expected, fit_histogram=fit_histogram)
    background.clip_to_background(values, mask, fit_histogram=fit_histogram)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(("shape", "box"), [((64, 96), (32, 32)), ((61, 96), (1, 32)), ((50, 33), (25, 11))])
def test_default_box(shape, box):
    assert background.default_box(shape) == box


def test_a_background_model_of_an_image_without_usable_pixels_is_a_number():
    """photutils refuses a mask of all pixels; the median of no values is NaN."""
    values, mask = np.ones((7, 7), np.float32), np.zeros((7, 7), bool)
    assert np.isnan(background.background_model(values, mask))


def test_scene_mask_of_integrations():
    rate = np.stack([image(k, (60, 70))[0] for k in range(3)])
    rate[1, 5, 6] = 0
    masks = background.scene_mask(rate, single_mask=False)
    assert not masks[1, 5, 6] and not masks[np.isnan(rate)].any()
    for plane, values in zip(masks, rate, strict=True):
        np.testing.assert_array_equal(plane, background.scene_mask(values))
    np.testing.assert_array_equal(background.scene_mask(rate), masks.all(axis=0))
    np.testing.assert_array_equal(
        background.scene_mask(rate, n_sigma=0, single_mask=False), np.isfinite(rate) & (rate != 0)
    )
    excluded = np.zeros((60, 70), bool)
    excluded[:30] = True
    assert not background.scene_mask(rate, excluded)[:30].any()


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
    np.testing.assert_array_equal(background.fill_flat(flat), read_flat_file(science, str(tmp_path / "flat.fits")))
    np.testing.assert_array_equal(flat, before)


def test_a_flat_without_gaps_is_itself():
    flat = np.ones((5, 6), np.float32)
    assert background.fill_flat(flat) is flat
