"""The rules of saturation, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.core import dq
from jwstdask.kernels import saturation

SAT, DNU, FLOOR = dq.SATURATED, dq.DO_NOT_USE, dq.AD_FLOOR


def near(y, x, layers, shape):
    for row in range(max(y - layers, 0), min(y + layers + 1, shape[0])):
        for column in range(max(x - layers, 0), min(x + layers + 1, shape[1])):
            yield row, column


def slow_flag(sci, groupdq, threshold, unchecked, layers, nframes, bias):
    flags = groupdq.astype(int)
    integrations, groups, ny, nx = sci.shape
    shape = ny, nx
    pixels = [(y, x) for y in range(ny) for x in range(nx)]
    for i in range(integrations):
        for g in range(groups):
            for y, x in pixels:
                if any(sci[i, k, y, x] >= threshold[y, x] for k in range(g + 1)):
                    flags[i, g, y, x] |= SAT
                if sci[i, g, y, x] <= 0:
                    flags[i, g, y, x] |= FLOOR | DNU
            bearers = [(y, x) for y, x in pixels if flags[i, g, y, x] & SAT]
            for y, x in bearers:
                for place in near(y, x, layers, shape):
                    flags[(i, g, *place)] |= SAT
        if nframes is None:
            continue
        for g in reversed(range(groups - 1)):
            last = (g + 1) * nframes
            dilution = np.mean(np.arange(last - nframes + 1, last + 1)) / last
            if dilution == 1:
                continue
            hidden = []
            for y, x in pixels:
                level = float(threshold[y, x]) * (1 if unchecked[y, x] else dilution)
                free = not flags[i, g, y, x] & (SAT | DNU)
                if sci[i, g, y, x] >= level and free and flags[i, g + 1, y, x] & SAT:
                    hidden.append((y, x))
            for y, x in hidden:
                for place in near(y, x, layers, shape):
                    flags[(i, g, *place)] |= DNU
        if groups < 3:
            continue
        for y, x in pixels:
            if not flags[i, 2, y, x] & SAT or flags[i, 1, y, x] & SAT:
                continue
            first, second = sci[i, 0, y, x], sci[i, 1, y, x]
            mean = np.mean(np.arange(1, nframes + 1))
            predicted = float(first - bias[y, x]) / mean * (3 * nframes) + float(bias[y, x])
            if predicted < threshold[y, x] and second - first > (threshold[y, x] - first) / np.float32(nframes):
                flags[i, 1, y, x] |= DNU
    return flags.astype(np.uint8)


@st.composite
def cases(draw):
    integrations, groups = draw(st.integers(1, 2)), draw(st.integers(1, 5))
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # Levels of 100 and values on a grid of 10, so that equality and every rule occur often.
    sci = rng.integers(-1, 12, (integrations, groups, *shape)) * 10
    sci = np.where(rng.random(sci.shape) < 0.5, np.sort(sci, axis=1), sci).astype(np.float32)
    threshold = rng.choice([60, 100, np.nan], shape, p=[0.3, 0.6, 0.1]).astype(np.float32)
    flags = rng.choice([0, dq.NO_SAT_CHECK, dq.HOT], shape, p=[0.8, 0.1, 0.1]).astype(np.uint32)
    groupdq = rng.choice([0, SAT, DNU], sci.shape, p=[0.94, 0.02, 0.04]).astype(np.uint8)
    bias = rng.choice([0, 5, np.nan], shape).astype(np.float32)
    return sci, groupdq, threshold, flags, bias, draw(st.integers(0, 3)), draw(st.sampled_from([None, 1, 2, 4]))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_flags_follow_the_rules(case):
    sci, groupdq, threshold, flags, bias, layers, nframes = case
    level, unchecked, _ = saturation.levels(threshold, flags)
    expected = slow_flag(sci, groupdq, level, unchecked, layers, nframes, bias)
    result = groupdq.copy()
    union = saturation.flag(sci, result, level, unchecked, n_pix_grow_sat=layers, nframes=nframes, bias=bias)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(union, np.bitwise_or.reduce(expected, axis=(0, 1)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 210), st.sampled_from([0, 1, 3, 70, 10**6]), st.sampled_from([None, 4]))
def test_few_saturated_pixels_of_wide_rows(seed, columns, layers, nframes):
    rng = np.random.default_rng(seed)
    sci = np.full((1, 4, 3, columns), 20, np.float32)
    for _ in range(rng.integers(0, 4)):
        sci[0, :, rng.integers(3), rng.integers(columns)] = np.sort(rng.integers(1, 12, 4) * 10)
    groupdq, bias = np.zeros(sci.shape, np.uint8), np.zeros(sci.shape[2:], np.float32)
    level, unchecked, _ = saturation.levels(np.full(bias.shape, 100, np.float32), np.zeros(bias.shape, np.uint32))
    expected = slow_flag(sci, groupdq, level, unchecked, layers, nframes, bias)
    union = saturation.flag(sci, groupdq, level, unchecked, n_pix_grow_sat=layers, nframes=nframes)
    np.testing.assert_array_equal(groupdq, expected)
    np.testing.assert_array_equal(union, np.bitwise_or.reduce(expected, axis=(0, 1)))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_zeroframe_is_cleared_at_flagged_pixels(case):
    sci, groupdq, threshold, flags, _, layers, _ = case
    level, unchecked, _ = saturation.levels(threshold, flags)
    expected = slow_flag(sci[:, :1], np.zeros_like(groupdq[:, :1]), level, unchecked, layers, None, None)[:, 0]
    zeroframe = sci[:, 0].copy()
    saturation.flag(sci, groupdq, level, unchecked, n_pix_grow_sat=layers, zeroframe=zeroframe)
    np.testing.assert_array_equal(zeroframe, np.where(expected != 0, 0, sci[:, 0]))


@pytest.mark.parametrize("shape", ((0, 7), (7, 0)))
def test_no_pixels(shape):
    level, unchecked, flags = saturation.levels(np.zeros(shape, ">f4"), np.zeros(shape, np.uint32))
    sci = np.zeros((1, 4, *shape), np.float32)
    assert saturation.flag(sci, sci.astype(np.uint8), level, unchecked, nframes=2).shape == flags.shape == shape


def test_levels_of_unknown_pixels_are_out_of_reach():
    threshold = np.array([[50000, np.nan, 40000]], np.float32)
    flags = np.array([[dq.HOT, 0, dq.NO_SAT_CHECK]], np.uint32)
    level, unchecked, added = saturation.levels(threshold, flags)
    np.testing.assert_array_equal(level, [[50000, 65536, 65536]])
    np.testing.assert_array_equal(unchecked, [[False, True, True]])
    np.testing.assert_array_equal(added, [[dq.HOT, dq.NO_SAT_CHECK, dq.NO_SAT_CHECK]])
    assert np.isnan(threshold[0, 1])


@pytest.mark.parametrize("name", ["sci", "threshold", "bias"])
def test_inputs_are_unchanged(name):
    rng = np.random.default_rng(0)
    arrays = {
        "sci": rng.normal(50000, 9000, (1, 4, 9, 9)).astype(np.float32),
        "threshold": np.full((9, 9), 55000, np.float32),
        "bias": np.ones((9, 9), np.float32),
    }
    before = arrays[name].copy()
    groupdq = np.zeros((1, 4, 9, 9), np.uint8)
    saturation.flag(arrays["sci"], groupdq, arrays["threshold"], np.zeros((9, 9), bool), nframes=4, bias=arrays["bias"])
    np.testing.assert_array_equal(arrays[name], before)
