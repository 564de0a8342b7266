"""Means and medians of reference pixels against numpy and scipy, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import sigmaclip

from jwstdask.core import dq
from jwstdask.kernels import refpix

KINDS = [np.float32, np.float64]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 127, 128, 129, 136, 1000, 1024, 2047, 2048, 8192, 8200])
def test_mean_is_summed_as_numpy_does(kind, count):
    values = np.random.default_rng(count).normal(1000, 300, count).astype(kind)
    # A limit beyond all values: nothing is rejected.
    mean, _ = refpix.clipped_mean(values.copy(), count, 1e6)
    assert mean == values.mean()


@settings(max_examples=200, deadline=None)
@given(
    st.integers(2, 1100),
    st.integers(0, 2**32),
    st.sampled_from(KINDS),
    st.floats(1, 5),
    st.floats(0, 0.3),
)
def test_clipped_mean_is_that_of_scipy(count, seed, kind, limit, share):
    rng = np.random.default_rng(seed)
    values = rng.normal(1000, 9, count)
    values[rng.random(count) < share] += rng.normal(0, 300)
    values = values.astype(kind)
    mean, equal = refpix.clipped_mean(values.copy(), count, limit)
    assert not equal
    assert mean == sigmaclip(values, limit, limit)[0].mean()


def test_clipped_mean_of_special_values():
    assert refpix.clipped_mean(np.full(9, 1 / 3, np.float32), 9, 3.0) == (np.float64(np.float32(1 / 3)), True)
    assert np.isnan(refpix.clipped_mean(np.empty(3, np.float32), 0, 3.0)[0])
    assert np.isnan(refpix.clipped_mean(np.array([1, np.nan, 2], np.float32), 3, 3.0)[0])


def slow_running_median(side, flags, first_row, length):
    result = np.full(side.shape[0], np.nan)
    for row in range(side.shape[0]):
        window = []
        for step in range(length):
            position = abs(row + first_row - length // 2 + step)
            position = min(position, 2 * (refpix.SIZE - 1) - position) - first_row
            if 0 <= position < side.shape[0]:
                window.extend(side[position][(flags[position] & dq.DO_NOT_USE) == 0])
        if window:
            result[row] = np.median(np.array(window, side.dtype))
    return result


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(0, 4),
    st.sampled_from(["start", "middle", "end"]),
    st.integers(1, 25),
    st.integers(0, 2**32),
    st.sampled_from(KINDS),
    st.sampled_from([0.0, 0.2, 0.9]),
)
def test_running_median_is_numpys_in_each_window(rows, columns, place, length, seed, kind, bad):
    rng = np.random.default_rng(seed)
    first_row = {"start": 0, "middle": 700, "end": refpix.SIZE - rows}[place]
    # Few different values, so that equal ones enter and leave the window.
    side = (rng.integers(0, 30, (rows, columns)) / 7).astype(kind)
    side[rng.random(side.shape) < 0.02] = np.nan
    flags = np.where(rng.random(side.shape) < bad, dq.DO_NOT_USE, dq.HOT).astype(np.uint32)
    np.testing.assert_array_equal(
        refpix.running_median(side, flags, first_row, length), slow_running_median(side, flags, first_row, length)
    )


@pytest.mark.parametrize(("fast", "slow"), [(1, 2), (-1, 2), (1, -2), (2, 1), (-2, -1), (2, -1)])
def test_detector_orientation_reads_along_the_fast_axis(fast, slow):
    y, x = np.indices((3, 5))
    coordinates = {1: x, 2: y}
    column = refpix.to_detector(coordinates[abs(fast)], fast, slow)
    row = refpix.to_detector(coordinates[abs(slow)], fast, slow)
    assert np.all(np.diff(column, axis=1) == np.sign(fast))
    assert np.all(np.diff(row, axis=0) == np.sign(slow))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.booleans(), st.integers(0, 2030), st.sampled_from([1, 4]))
def test_levels_are_subtracted_in_the_right_precision(seed, along_x, single, start, amplifiers):
    rng = np.random.default_rng(seed)
    sci = rng.normal(1000, 9, (2, 2, 5, 6)).astype(np.float32)
    levels, rows = rng.normal(900, 9, (2, 2, 4, 2)), rng.normal(0, 3, (2, 2, amplifiers, 20))
    fast_count, slow_count = (6, 5) if along_x else (5, 6)
    fast, slow = start + np.arange(fast_count), rng.permutation(20)[:slow_count]
    expected = np.empty_like(sci)
    for i, g, y, x in np.ndindex(*sci.shape):
        column, row = (fast[x], slow[y]) if along_x else (fast[y], slow[x])
        value = np.float64(sci[i, g, y, x]) - levels[i, g, column // 512, column % 2]
        if single and i == g == 0:
            value = np.float64(np.float32(value))
        expected[i, g, y, x] = value - rows[i, g, column // 512 if amplifiers > 1 else 0, row]
    before = sci.copy()
    out = np.empty_like(sci)
    refpix.subtract_levels(sci, levels, rows, along_x, fast, slow, single, out)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(sci, before)
    refpix.subtract_levels(sci, levels, rows, along_x, fast, slow, single, sci)
    np.testing.assert_array_equal(sci, expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 9), st.integers(0, 9))
def test_interleaved_levels_are_relative_to_the_first_group(seed, first_row, first_column):
    rng = np.random.default_rng(seed)
    sci = rng.normal(1000, 9, (2, 3, 5, 6)).astype(np.float32)
    levels = rng.normal(0, 9, (2, 3, 4, 2))
    levels[:, 0] = 0
    expected = np.empty_like(sci)
    for i, g, y, x in np.ndindex(*sci.shape):
        first = sci[i, 0, y, x]
        change = np.float32(
            np.float64(sci[i, g, y, x] - first) - levels[i, g, (first_column + x) % 4, (first_row + y) % 2]
        )
        expected[i, g, y, x] = np.float64(change) + np.float64(first)
    refpix.subtract_interleaved(sci, levels, first_row, first_column, sci)
    np.testing.assert_array_equal(sci, expected)
