"""The median of a few values, by selection (Hoare 1961, "Algorithm 65: find", Communications of the ACM 4, 321)."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
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
