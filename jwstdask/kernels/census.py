"""How many elements have each data-quality flag."""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.kernels.compiled import UNCOUNTED
from jwstdask.kernels.flag_lines import any_flag, count_any, count_flag, lowest, union_of
from jwstdask.kernels.prefetch import LINE
from jwstdask.kernels.runs import flat


@numba.njit(**UNCOUNTED)
def _count_line(flags, start, counts):
    # Most have no flags.
    if any_flag(flags, start):
        counts[32] += count_any(flags, start)
        union = np.uint32(union_of(flags, start))
        while union:
            bit = lowest(union)
            counts[bit] += count_flag(flags, start, bit)
            union = np.uint32(union & (union - np.uint32(1)))


@numba.njit(**UNCOUNTED)
def _count(flags, strides, shape, counts, rest):
    nx = shape[3]
    width = rest.size
    whole = nx - nx % width
    for i in range(shape[0]):
        for j in range(shape[1]):
            for y in range(shape[2]):
                start = i * strides[0] + j * strides[1] + y * strides[2]
                for first in range(start, start + whole, width):
                    _count_line(flags, first, counts)
                if whole < nx:
                    for x in range(nx - whole):
                        rest[x] = flags[start + whole + x]
                    _count_line(rest, 0, counts)


def count_flags(flags: np.ndarray) -> np.ndarray:
    """Elements with each flag.

    Parameters
    ----------
    flags
        uint8 or uint32, up to four dimensions (..., y, x).

    Returns
    -------
    counts
        int64 (34,): elements with bit 0 to 31, with any flag, and all elements.
    """
    counts = np.zeros(34, np.int64)
    whole = flags[(None,) * (4 - flags.ndim)]
    _count(*flat(whole), whole.shape, counts, np.zeros(LINE // flags.itemsize, flags.dtype))
    counts[33] = flags.size
    return counts
