"""Sorting networks: by the zero-one principle, and in registers against numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jwstdask.kernels.networks import median_network, sort_columns, sort_rows, sorting_network


@pytest.mark.parametrize("size", range(1, 12))
def test_the_network_finds_the_median_of_every_zero_one_sequence(size):
    """By the zero-one principle a comparator network that does so finds the median of any values."""
    network = median_network(size)
    values = np.array(list(itertools.product((0, 1), repeat=size))).T.copy()
    expected = np.sort(values, axis=0)
    for low, high in network:
        values[[low, high]] = np.minimum(values[low], values[high]), np.maximum(values[low], values[high])
    for place in ((size - 1) // 2, size // 2):
        np.testing.assert_array_equal(values[place], expected[place])


@pytest.mark.parametrize("size", [19, 32, 99, 255])
def test_the_network_finds_the_median_of_long_ramps(size):
    values = np.random.default_rng(size).normal(size=(size, 50))
    expected = np.median(values, axis=0)
    for low, high in median_network(size):
        values[[low, high]] = np.minimum(values[low], values[high]), np.maximum(values[low], values[high])
    np.testing.assert_array_equal((values[(size - 1) // 2] + values[size // 2]) / 2, expected)


@pytest.mark.parametrize("size", range(12))
def test_the_sorting_network_sorts_every_zero_one_sequence(size):
    values = np.array(list(itertools.product((0, 1), repeat=size))).T.copy()
    expected = np.sort(values, axis=0)
    for low, high in sorting_network(size):
        values[[low, high]] = np.minimum(values[low], values[high]), np.maximum(values[low], values[high])
    np.testing.assert_array_equal(values, expected)


def columns(size, lanes, kind):
    """Columns of numbers, some of them equal and some infinite."""
    values = np.random.default_rng(size * lanes).normal(size=(size, lanes)).astype(kind)
    values[:, ::3] = np.round(values[:, ::3])
    values[values > 1.5] = np.inf
    return values


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("lanes", [1, 7, 8, 13, 64])
def test_columns_are_sorted(kind, lanes):
    for size in range(1, 44):
        values = columns(size, lanes, kind)
        keys = values.reshape(-1).copy()
        sort_columns(keys, size, lanes)
        np.testing.assert_array_equal(keys.reshape(size, lanes), np.sort(values, axis=0))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rows_are_sorted_up_to_a_width(kind):
    for size in (0, 1, 2, 5, 16, 17, 33, 40, 41):
        values = columns(size + 2, 64, kind)
        rows = values.copy()
        sort_rows(rows, size, 24, sorting_network(size))
        np.testing.assert_array_equal(rows[:size, :24], np.sort(values[:size, :24], axis=0))
        np.testing.assert_array_equal(rows[:, 24:], values[:, 24:])
        np.testing.assert_array_equal(rows[size:], values[size:])
