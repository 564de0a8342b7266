"""Kernels of clean_flicker_noise against slow references and the oracle's functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jwstdask.core import dq
from jwstdask.kernels import clean_flicker_noise as kernels
from jwstdask.kernels.clean_flicker_noise import Method
from tests.kernels.flicker import image

pytestmark = pytest.mark.filterwarnings("ignore")

FLOATS = st.floats(-1e4, 1e4, width=32)


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


# -- whole images


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
