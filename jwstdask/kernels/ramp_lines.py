"""Ramps of a line of pixels, side by side.

What belongs to a group of all of them is a row of ``LANES`` numbers. A row is gone through by loops that know its
length and touch few others, since that is what a compiler makes vector instructions of.
"""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np
from numba.extending import intrinsic

from jwstdask.kernels.extrema import greater, smaller
from jwstdask.kernels.ramp_pixel import POWERS, weights_of_length

LANES = 64
"""Pixels that are fitted together."""

_TABLE = 64  # segments up to this length take their weights from a table

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
_INLINE = {**_OPTIONS, "forceinline": True}


@intrinsic
def _fma(typingctx, a, b, c):
    """``a * b + c``, rounded once."""
    return a(a, b, c), lambda context, builder, signature, values: builder.fma(*values)


@numba.njit(**_INLINE)
def quotient(value, divisor, reciprocal):
    """``value / divisor`` of float32 numbers in float64, the same bits in a third of the time.

    A quotient of two numbers of 24 bits is never closer than 2^-25 of its last bit to where its rounding changes, and
    what is added to the first guess is known to 2^-52 of it.
    """
    guess = value * reciprocal
    return _fma(_fma(-guess, divisor, value), reciprocal, guess)


@lru_cache(maxsize=16)
def whole_weights(ngroups: int) -> np.ndarray:
    """Weights of whole ramps, (position, power)."""
    weights = np.ones((len(POWERS), ngroups))
    if ngroups > 2:
        weights_of_length(ngroups, np.array(POWERS), weights)
    return np.ascontiguousarray(weights.T)


@lru_cache(maxsize=16)
def weight_table(ngroups: int) -> np.ndarray:
    """Weights of segments up to ``_TABLE`` groups, (length, power, position)."""
    longest = min(ngroups, _TABLE)
    table = np.zeros((longest + 1, len(POWERS), max(longest, 1)))
    for length in range(3, longest + 1):
        weights_of_length(length, np.array(POWERS), table[length])
    return table


def batcher(size: int) -> list[tuple[int, int]]:
    """Comparators of Batcher's odd-even merge sort (Knuth, TAOCP 3, algorithm 5.2.2M)."""
    comparators = []
    top = 1 << max(size - 1, 1).bit_length() - 1
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            comparators.extend((i, i + d) for i in range(size - d) if i & p == r)
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return comparators


@lru_cache(maxsize=16)
def median_network(size: int) -> np.ndarray:
    """Comparators, (n, 2), that bring the middle one or two of ``size`` values to their places."""
    needed = {(size - 1) // 2, size // 2}
    kept = []
    for low, high in reversed(batcher(size)):
        if low in needed or high in needed:
            needed |= {low, high}
            kept.append((low, high))
    return np.array(kept[::-1], dtype=np.int64).reshape(-1, 2)


@numba.njit(**_INLINE)
def write(values, out):
    for lane in range(out.size):
        out[lane] = values[lane]


@numba.njit(**_INLINE)
def exchange(low, high, width):
    """Smaller values to ``low``, greater ones to ``high``."""
    for lane in range(width):
        a = low[lane]
        b = high[lane]
        low[lane] = smaller(a, b)
        high[lane] = greater(a, b)


@numba.njit(**_INLINE)
def _weights_of_group(whole, group):
    return whole[group, 0], whole[group, 1], whole[group, 2], whole[group, 3], whole[group, 4], whole[group, 5]


@numba.njit(**_INLINE)
def _choose(kind, w0, w1, w2, w3, w4, w5):
    """Weight of a class of signal-to-noise ratio."""
    weight = w4 if kind < 5.0 else w5
    weight = w3 if kind < 4.0 else weight
    weight = w2 if kind < 3.0 else weight
    weight = w1 if kind < 2.0 else weight
    return w0 if kind < 1.0 else weight


@numba.njit(**_INLINE)
def power_class(signal, variance):
    """Class of a signal-to-noise ratio, as a float; by the squared ratio, which takes neither root nor division."""
    square = signal * abs(signal)
    square = -1.0 if variance <= 0.0 else square
    variance = 1.0 if variance <= 0.0 else variance
    above = 0.0 if square < 25.0 * variance else 1.0
    above += 0.0 if square < 100.0 * variance else 1.0
    above += 0.0 if square < 400.0 * variance else 1.0
    above += 0.0 if square < 2500.0 * variance else 1.0
    above += 0.0 if square < 10000.0 * variance else 1.0
    return above


@numba.njit(**_INLINE)
def fit_line(sci, i, y, line, first, size, origin, group_time, whole, gain, noise, scale, kind, sums, slope):
    """Slopes of a line of ramps without flags, of two groups or more."""
    head = sci[i, first, y, line]
    tail = sci[i, first + size - 1, y, line]
    if size == 2:
        for lane in range(LANES):
            slope[lane] = (np.float64(tail[lane]) - np.float64(head[lane])) / group_time
        return
    sumw, sumx, sumxx, sumy, sumxy = sums[0], sums[1], sums[2], sums[3], sums[4]
    for lane in range(LANES):
        signal = (np.float64(tail[lane]) - np.float64(head[lane])) * gain[lane]
        variance = noise[lane] * noise[lane] + signal
        kind[lane] = power_class(signal, variance)
        sumw[lane] = 0.0
        sumx[lane] = 0.0
        sumxx[lane] = 0.0
        sumy[lane] = 0.0
        sumxy[lane] = 0.0
    # Two groups at a time: the sums would else be written more often than is needed.
    for group in range(0, size - 1, 2):
        v0, v1, v2, v3, v4, v5 = _weights_of_group(whole, group)
        w0, w1, w2, w3, w4, w5 = _weights_of_group(whole, group + 1)
        row = sci[i, first + group, y, line]
        next_row = sci[i, first + group + 1, y, line]
        position = float(group - origin)
        next_position = float(group + 1 - origin)
        for lane in range(LANES):
            k = kind[lane]
            factor = scale[lane]
            weight = _choose(k, v0, v1, v2, v3, v4, v5) * factor
            leverage = position * weight
            value = np.float64(row[lane])
            next_weight = _choose(k, w0, w1, w2, w3, w4, w5) * factor
            next_leverage = next_position * next_weight
            next_value = np.float64(next_row[lane])
            sumw[lane] = sumw[lane] + weight + next_weight
            sumx[lane] = sumx[lane] + leverage + next_leverage
            sumxx[lane] = sumxx[lane] + position * leverage + next_position * next_leverage
            sumy[lane] = sumy[lane] + value * weight + next_value * next_weight
            sumxy[lane] = sumxy[lane] + value * leverage + next_value * next_leverage
    if size % 2:
        w0, w1, w2, w3, w4, w5 = _weights_of_group(whole, size - 1)
        row = sci[i, first + size - 1, y, line]
        position = float(size - 1 - origin)
        for lane in range(LANES):
            weight = _choose(kind[lane], w0, w1, w2, w3, w4, w5) * scale[lane]
            leverage = position * weight
            value = np.float64(row[lane])
            sumw[lane] += weight
            sumx[lane] += leverage
            sumxx[lane] += position * leverage
            sumy[lane] += value * weight
            sumxy[lane] += value * leverage
    for lane in range(LANES):
        inverse = 1.0 / (sumw[lane] * sumxx[lane] - sumx[lane] * sumx[lane])
        slope[lane] = (sumw[lane] * sumxy[lane] - sumx[lane] * sumy[lane]) * inverse / group_time


@numba.njit(**_INLINE)
def differences(sci, i, y, line, first, size, group_time, before, steps, finite):
    """First differences [DN/s] of a line of ramps; ``finite`` gets 0 where all groups are finite."""
    reciprocal = 1.0 / group_time
    row = sci[i, first, y, line]
    for lane in range(LANES):
        finite[lane] = row[lane] - row[lane]
        before[lane] = quotient(np.float64(row[lane]), group_time, reciprocal)
    for group in range(1, size):
        row = sci[i, first + group, y, line]
        step = steps[group - 1]
        for lane in range(LANES):
            value = quotient(np.float64(row[lane]), group_time, reciprocal)
            step[lane] = value - before[lane]
            before[lane] = value
            finite[lane] += row[lane] - row[lane]


@numba.njit(**_INLINE)
def middle(steps, network, size):
    """Two rows of ``steps`` the mean of which is the median difference."""
    for n in range(network.shape[0]):
        exchange(steps[network[n, 0]], steps[network[n, 1]], LANES)
    return steps[(size - 2) // 2], steps[(size - 1) // 2]
