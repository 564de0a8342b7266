"""Medians: of a few values by selection (Hoare 1961, "Algorithm 65: find", Communications of the ACM 4, 321), and of an
image by counting.
"""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.kernels.compiled import COMPILED, UNCOUNTED
from jwstdask.kernels.decode import swapped
from jwstdask.kernels.runs import flat


@numba.njit(**UNCOUNTED)
def median_of_first(values, count):
    """Median of values[:count], whose order is changed; rounded to float32 at each operation."""
    target, low, high = count // 2, 0, count - 1
    while low < high:
        middle = (low + high) // 2
        if values[middle] < values[low]:
            values[low], values[middle] = values[middle], values[low]
        if values[high] < values[low]:
            values[low], values[high] = values[high], values[low]
        if values[high] < values[middle]:
            values[middle], values[high] = values[high], values[middle]
        pivot = values[middle]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if target <= right:
            high = right
        elif target >= left:
            low = left
        else:
            break
    upper = values[target]
    if count % 2:
        return upper
    lower = values[0]
    for index in range(1, target):
        lower = max(lower, values[index])
    return np.float32(np.float32(lower + upper) / np.float32(2))


@numba.njit(**UNCOUNTED)
def _key(word):
    """Words of float32 numbers as integers of the same order; NaN is the greatest."""
    if (word & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):
        return np.uint32(0xFFFFFFFF)
    return np.uint32(~word) if word >> np.uint32(31) else np.uint32(word | np.uint32(0x80000000))


@numba.njit(**COMPILED)
def _count_upper(memory, stride, ny, nx, stored):
    """How often each upper half of a key occurs; by four counters in turn, since one would wait for itself."""
    counts = np.zeros((4, 1 << 16), np.uint32)
    for y in range(ny):
        row = memory[y * stride : y * stride + nx]
        for x in range(nx):
            word = swapped(row[x]) if stored else row[x]
            counts[x & 3, _key(word) >> np.uint32(16)] += np.uint32(1)
    return counts


@numba.njit(**COMPILED)
def _count_lower(memory, stride, ny, nx, stored, first, second):
    """How often each lower half occurs among keys with two upper halves."""
    counts = np.zeros((2, 1 << 16), np.uint32)
    for y in range(ny):
        row = memory[y * stride : y * stride + nx]
        for x in range(nx):
            key = _key(swapped(row[x]) if stored else row[x])
            upper = key >> np.uint32(16)
            if upper == first:
                counts[0, key & np.uint32(0xFFFF)] += np.uint32(1)
            elif upper == second:
                counts[1, key & np.uint32(0xFFFF)] += np.uint32(1)
    return counts


def nan_median(image: np.ndarray) -> np.float32:
    """Median of the values of an image that are not NaN, in place: it may be a file that is mapped.

    Parameters
    ----------
    image
        (..., y, x), float32 of either byte order; other numbers are converted.

    Returns
    -------
    numpy.float32
        As of `numpy.nanmedian`: the mean of the middle two, rounded to float32 at each operation; NaN if there is none.
    """
    if image.dtype.newbyteorder("=") != np.float32:
        image = np.asarray(image, np.float32)
    image = image.reshape(-1, image.shape[-1])
    stored = not image.dtype.isnative
    memory, (stride,) = flat(image.view(np.uint32))
    found = _count_upper(memory, stride, *image.shape, stored).sum(axis=0, dtype=np.int64)
    number = int(found[:-1].sum()) if image.size else 0
    # No number has a key so great but NaN.
    if number == 0:
        return np.float32(np.nan)
    ranks = np.array([(number - 1) // 2, number // 2])
    total = np.cumsum(found)
    uppers = np.searchsorted(total, ranks, side="right")
    below = ranks - (total[uppers] - found[uppers])
    lower = _count_lower(memory, stride, *image.shape, stored, np.uint32(uppers[0]), np.uint32(uppers[1]))
    counts = (lower[0], lower[0] if uppers[0] == uppers[1] else lower[1])
    keys = [
        int(upper) << 16 | int(np.searchsorted(np.cumsum(count), rank, side="right"))
        for upper, count, rank in zip(uppers, counts, below, strict=True)
    ]
    words = np.array([key ^ (0x80000000 if key >> 31 else 0xFFFFFFFF) for key in keys], np.uint32)
    first, second = words.view(np.float32)
    return np.float32(np.float32(first + second) / np.float32(2))
