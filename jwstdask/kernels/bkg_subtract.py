"""Average of background exposures by sigma clipping, and its subtraction.

Source: JWST pipeline documentation, "bkg_subtract" (imaging and all modes without a model of the background).
"""

from __future__ import annotations

import math

import numba
import numpy as np

# Above this many values numpy's sort is faster than insertion.
_SHORT = 32


@numba.njit(cache=True, nogil=True)
def _median(values, count, scratch):
    """Median of the first ``count`` values; ``scratch`` is overwritten."""
    scratch[:count] = values[:count]
    if count > _SHORT:
        scratch[:count] = np.sort(scratch[:count])
    else:
        for i in range(1, count):
            value, j = scratch[i], i
            while j > 0 and scratch[j - 1] > value:
                scratch[j] = scratch[j - 1]
                j -= 1
            scratch[j] = value
    middle = count // 2
    return scratch[middle] if count % 2 else 0.5 * (scratch[middle - 1] + scratch[middle])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _clipped_mean(values, variances, sigma, max_iterations, zero, mean, variance):
    count, ny, nx = values.shape
    kept, scratch = np.empty(count), np.empty(count)
    for y in range(ny):
        for x in range(nx):
            n = 0
            for i in range(count):
                if np.isfinite(values[i, y, x]):
                    kept[n] = values[i, y, x]
                    n += 1
            low, high = -np.inf, np.inf
            iteration = 0
            while n > 0:
                median = _median(kept, n, scratch)
                centre = 0.0
                for i in range(n):
                    centre += kept[i]
                centre /= n
                spread = 0.0
                for i in range(n):
                    spread += (kept[i] - centre) * (kept[i] - centre)
                spread = math.sqrt(spread / n)
                low, high = median - sigma * spread, median + sigma * spread
                left = 0
                for i in range(n):
                    if low <= kept[i] <= high:
                        kept[left] = kept[i]
                        left += 1
                iteration += 1
                if left == n or left == 0 or iteration == max_iterations:
                    break
                n = left
            # The sum is made in the precision of the values.
            total, total_variance, used = zero, 0.0, 0
            for i in range(count):
                value = values[i, y, x]
                if np.isfinite(value) and low <= value <= high:
                    total += value
                    total_variance += variances[i, y, x]
                    used += 1
            mean[y, x] = total / used if used else 0.0
            variance[y, x] = total_variance / (float(used) * used) if used else 0.0


def clipped_mean(
    values: np.ndarray, variances: np.ndarray | None = None, sigma: float = 3.0, maxiters: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the first axis without outliers, pixel by pixel.

    A value is left out if it is not finite or further than ``sigma`` standard deviations from the median; both are
    computed anew from the remaining values until nothing changes or ``maxiters`` times.

    Parameters
    ----------
    values
        float32 or float64 (exposure or integration, y, x); added up in this precision.
    variances
        Variances of ``values``; None for zeros.
    sigma
        Clipping threshold.
    maxiters
        Number of iterations; None or 0 for as many as it takes.

    Returns
    -------
    mean, variance
        float64 (y, x): mean of the values kept, and its variance (sum of variances) / number^2; both 0 where none is
        left.
    """
    mean, variance = np.empty(values.shape[1:]), np.empty(values.shape[1:])
    if variances is None:
        variances = np.zeros_like(values)
    _clipped_mean(values, variances, float(sigma), maxiters or -1, values.dtype.type(0), mean, variance)
    return mean, variance
