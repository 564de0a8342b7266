"""Polynomials of pixels, evaluated one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.core import dq
from jwstdask.kernels import linearity


def horner(coefficients, value):
    total = coefficients[-1] * value
    for coefficient in coefficients[-2:0:-1]:
        total = (total + coefficient) * value
    return total + coefficients[0]


@st.composite
def cases(draw, least_groups=1):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 20))
    sci = rng.uniform(-100, 60000, (draw(st.integers(1, 2)), draw(st.integers(least_groups, 5)), *shape))
    groupdq = rng.choice([0, dq.SATURATED, dq.JUMP_DET], sci.shape, p=[0.6, 0.3, 0.1])
    # Functions are compiled for each number of coefficients.
    count = draw(st.sampled_from([2, 3, 5]))
    coefficients = rng.normal(0, 1, (2, count, *shape)) * (1e-5 ** np.arange(-1, count - 1))[:, None, None]
    coefficients[:, 1] = rng.uniform(0.9, 1.1, shape)
    return sci.astype(np.float32), groupdq.astype(np.uint8), coefficients.astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_polynomials_round_to_float32_at_each_operation(case):
    sci, groupdq, (coefficients, _) = case
    expected = sci.copy()
    for i, g, y, x in np.ndindex(*sci.shape):
        if not groupdq[i, g, y, x] & dq.SATURATED:
            expected[i, g, y, x] = horner(coefficients[:, y, x], sci[i, g, y, x])
    before, flags = sci.copy(), np.zeros(sci.shape[2:], np.uint32)
    np.testing.assert_array_equal(linearity.correct(sci, groupdq, coefficients, flags), expected)
    np.testing.assert_array_equal(sci, before)
    np.testing.assert_array_equal(linearity.correct(sci, groupdq, coefficients, flags, out=sci), expected)
    assert sci.dtype == np.float32


@settings(max_examples=100, deadline=None)
@given(cases(least_groups=2), st.sampled_from([1, 2, 4, 8]))
def test_frames_of_a_group_are_corrected_one_by_one(case, nframes):
    sci, groupdq, (coefficients, inverse) = case
    expected = sci.copy()
    groups = sci.shape[1]
    times = np.arange(1, groups * nframes + 1).reshape(groups, nframes)
    means = np.array([np.mean(row) for row in times])
    for i, y, x in np.ndindex(sci.shape[0], *sci.shape[2:]):
        ramp, saturated = sci[i, :, y, x], (groupdq[i, :, y, x] & dq.SATURATED) != 0
        forward, backward = coefficients[:, y, x], inverse[:, y, x]
        last = max(np.count_nonzero(~saturated) - 1, 2) - 1
        ends = [ramp[k] if saturated[k] else horner(forward, ramp[k]) for k in (0, last)]
        rate = np.float64(ends[1] - ends[0]) / (means[last] - means[0])
        for g in np.flatnonzero(~saturated):
            linear = [np.float64(ends[0]) + rate * (time - means[0]) for time in times[g]]
            reads = np.array([horner(backward, value) for value in linear])
            reads += np.float64(ramp[g]) - sum(reads) / nframes
            expected[i, g, y, x] = sum(horner(forward, value) for value in reads) / nframes
    result = linearity.correct_reads(sci, groupdq, coefficients, inverse, nframes)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(linearity.correct_reads(sci, groupdq, coefficients, inverse, nframes, sci), expected)


@pytest.mark.parametrize("kind", (">f4", "<f4", ">f8"))
def test_unusable_polynomials_become_the_identity(kind):
    # part of a larger image, in more rows than are done at a time
    shape = 3, 5000
    stored = np.tile(np.array([5, 1.1, 1e-5], np.float32)[:, None, None], (1, 5, 5002)).astype(kind)[:, 1:4, 2:]
    flags = np.zeros(shape, np.uint32)
    flags[0, 0] = dq.NO_LIN_CORR | dq.HOT
    stored[2, 0, 1] = np.nan
    stored[0, 2, 3] = np.nan
    stored[1, 0, 2] = -0.0
    before, flags_too = stored.copy(), flags.copy()
    coefficients = linearity.usable_coefficients(stored, flags)
    np.testing.assert_array_equal(stored, before)
    unusable = np.zeros(shape, bool)
    unusable[0, :3] = unusable[2, 3] = True
    expected = np.where(unusable, np.array([0, 1, 0])[:, None, None], np.array([5, 1.1, 1e-5])[:, None, None])
    np.testing.assert_array_equal(coefficients, expected.astype(np.float32))
    np.testing.assert_array_equal((flags & dq.NO_LIN_CORR) != 0, unusable)
    assert flags[0, 0] & dq.HOT

    sci = np.random.default_rng(8).uniform(-9, 60000, (2, 2, *shape)).astype(np.float32)
    zeroframe = sci[:, 0].copy()
    clean = np.zeros(sci.shape, np.uint8)
    found = linearity.correct(sci, clean, stored, flags_too, zeroframe=zeroframe)
    np.testing.assert_array_equal(found, horner(coefficients, sci))
    np.testing.assert_array_equal(zeroframe, found[:, 0])
    np.testing.assert_array_equal(flags_too, flags)


@pytest.mark.parametrize("shape", ((0, 7), (7, 0)))
def test_no_pixels(shape):
    sci = np.zeros((1, 2, *shape), np.float32)
    arguments = sci, sci.astype(np.uint8), np.zeros((3, *shape), np.float32), np.zeros(shape, np.uint32)
    assert linearity.correct(*arguments, zeroframe=sci[:, 0].copy()).shape == sci.shape


@pytest.mark.parametrize("alone", (True, False))
def test_zeros_of_the_zeroth_frame_stay(alone):
    zeroframe = np.array([[[0, 100, -3]]], np.float32)
    coefficients = np.tile(np.array([5, 2], np.float32)[:, None, None], (1, 1, 3))
    flags = np.zeros((1, 3), np.uint32)
    if alone:
        linearity.correct_zeroframe(zeroframe, coefficients, flags)
    else:
        sci = np.ones((1, 1, 1, 3), np.float32)
        linearity.correct(sci, np.zeros(sci.shape, np.uint8), coefficients, flags, zeroframe=zeroframe)
    np.testing.assert_array_equal(zeroframe, [[[0, 205, -1]]])
