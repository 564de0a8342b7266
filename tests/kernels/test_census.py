"""Counts of flags."""

from __future__ import annotations

import numpy as np
import pytest

from jwstdask.kernels.census import count_flags


def slow(flags: np.ndarray) -> list[int]:
    """By the definition, bit after bit."""
    values = [int(value) for value in flags.ravel()]
    bits = [sum(value >> bit & 1 for value in values) for bit in range(32)]
    return [*bits, sum(value != 0 for value in values), len(values)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7), (2, 3, 5, 7), (1, 0, 4, 4)])
def test_like_the_definition(dtype, shape) -> None:
    flags = np.random.default_rng(len(shape)).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    flags[flags % 3 == 0] = 0
    before = flags.copy()
    assert count_flags(flags).tolist() == slow(flags)
    np.testing.assert_array_equal(flags, before)
    inner = flags[..., 1:-1, 2:]
    assert count_flags(inner).tolist() == slow(inner)


def test_the_last_bit() -> None:
    found = count_flags(np.full((1, 2), 1 << 31, np.uint32))
    assert found[31] == found[32] == found[33] == 2 and found[:31].sum() == 0
