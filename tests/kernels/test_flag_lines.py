"""Flags a line at a time."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.kernels.flag_lines import any_flag, count_any, count_flag, lowest, union_of
from jwstdask.kernels.prefetch import LINE


@numba.njit
def _looked_at(flags, start, bit):
    return (
        any_flag(flags, start),
        union_of(flags, start),
        count_any(flags, start),
        count_flag(flags, start, bit),
    )


@numba.njit
def _lowest(flags):
    return lowest(flags)


@pytest.mark.parametrize("kind", (np.uint8, np.uint32))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_line_is_counted(kind, data):
    width = LINE // np.dtype(kind).itemsize
    bits = 8 * np.dtype(kind).itemsize
    flags = np.zeros(width + 5, kind)
    for place in data.draw(st.lists(st.integers(0, width + 4), max_size=12)):
        flags[place] |= kind(1 << data.draw(st.integers(0, bits - 1)))
    start = data.draw(st.integers(0, 5))
    bit = data.draw(st.integers(0, bits - 1))
    line = flags[start : start + width]
    expected = (
        bool(line.any()),
        np.bitwise_or.reduce(line),
        np.count_nonzero(line),
        np.count_nonzero(line & kind(1 << bit)),
    )
    assert _looked_at(flags, start, bit) == expected


@pytest.mark.parametrize("kind", (np.uint8, np.uint32))
def test_the_lowest_bit_is_found(kind):
    for bit in range(8 * np.dtype(kind).itemsize):
        assert _lowest(kind(1 << bit)) == bit
        assert _lowest(kind(1 << bit | np.iinfo(kind).max << bit & np.iinfo(kind).max)) == bit
