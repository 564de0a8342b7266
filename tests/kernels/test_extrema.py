"""Smaller and greater of two floats, as numpy has them."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from jwstdask.kernels.extrema import greater, smaller


@numba.njit
def exchange(low, high):
    for place in range(low.size):
        a, b = low[place], high[place]
        low[place] = smaller(a, b)
        high[place] = greater(a, b)


@numba.njit
def of_integers(a, b):
    return smaller(a, b)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_pairs_are_in_order(kind):
    rng = np.random.default_rng(3)
    low, high = rng.normal(size=(2, 1003)).astype(kind)
    low[:4], high[:4] = (np.inf, -np.inf, 1.0, 0.0), (1.0, 2.0, 1.0, -np.inf)
    expected = np.minimum(low, high), np.maximum(low, high)
    exchange(low, high)
    np.testing.assert_array_equal((low, high), expected)


def test_what_is_not_a_number_stays_beside_the_others():
    """A lane with NaN says nothing about its neighbours."""
    low, high = np.array([3.0, np.nan, 5.0, 2.0]), np.array([1.0, 2.0, np.nan, 4.0])
    exchange(low, high)
    np.testing.assert_array_equal((low[[0, 3]], high[[0, 3]]), [[1.0, 2.0], [3.0, 4.0]])


def test_floats_only():
    with pytest.raises(numba.TypingError):
        of_integers(1, 2)
