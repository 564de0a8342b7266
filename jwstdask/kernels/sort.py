"""Sorting of many columns side by side, and order statistics of one."""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.kernels.extrema import greater, smaller


@numba.njit(cache=True, nogil=True)
def _exchange(lower, upper):
    for index in range(lower.size):
        first = lower[index]
        second = upper[index]
        lower[index] = smaller(first, second)
        upper[index] = greater(first, second)


@numba.njit(cache=True, nogil=True)
def sort_columns(keys, count, lanes):
    """Sort ``lanes`` columns of ``count`` values in place, of which value k of column l is ``keys[k * lanes + l]``.

    A column with NaN may hold anything afterwards.
    """
    # Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2 M): the comparators do not depend on
    # the data, and a run of them is one vectorised loop over neighbouring rows of all lanes.
    top = 1
    while 2 * top < count:
        top *= 2
    step = top if count > 1 else 0
    while step > 0:
        reach = top
        offset = 0
        distance = step
        while distance > 0:
            for start in range(offset, count - distance, 2 * step):
                stop = min(start + step, count - distance)
                _exchange(
                    keys[start * lanes : stop * lanes], keys[(start + distance) * lanes : (stop + distance) * lanes]
                )
            distance = reach - step
            reach //= 2
            offset = step
        step //= 2


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def median(values, count):
    """Median of the first ``count`` values, which are permuted."""
    if count % 2:
        return select(values, count, count // 2)
    upper = select(values, count, count // 2)
    return 0.5 * (upper + select(values, count, count // 2 - 1))
