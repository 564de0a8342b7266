"""Order statistics of a list."""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.kernels.compiled import UNCOUNTED


@numba.njit(**UNCOUNTED)
def select(values, count, rank):
    """The value that would stand at ``rank`` if the first ``count`` were sorted; they are permuted (Hoare's FIND)."""
    left = 0
    right = count - 1
    while left < right:
        pivot = values[rank]
        i = left
        j = right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                swap = values[i]
                values[i] = values[j]
                values[j] = swap
                i += 1
                j -= 1
        if j < rank:
            left = i
        if rank < i:
            right = j
    return np.float64(values[rank])


@numba.njit(**UNCOUNTED)
def median(values, count):
    """Median of the first ``count`` values, which are permuted."""
    if count % 2:
        return select(values, count, count // 2)
    upper = select(values, count, count // 2)
    return 0.5 * (upper + select(values, count, count // 2 - 1))
