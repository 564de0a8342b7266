"""Ramps of a line of pixels, side by side.

What belongs to a group of all of them is a row of ``LANES`` numbers. A row is gone through by loops that know its
length and touch few others, since that is what a compiler makes vector instructions of.

A slope is a sum of differences of groups, with coefficients that depend on the length of the ramp and on its class of
signal-to-noise ratio alone. In exact arithmetic that is what the sums of the weighted fit give; in float64 the two
differ by less than a bound that is known. A slope that rounds to the same float32 from both ends of that bound is the
one that the sums would have given, to the last bit; the others, one in 75,000 of a simulated frame of ten groups, are
left to those sums (the test of Ziv 1991, ACM TOMS 17, 410, by which correctly rounded functions are made).
"""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np
from numba.extending import intrinsic

from jwstdask.kernels.compiled import INLINE
from jwstdask.kernels.networks import exchange_rows
from jwstdask.kernels.ramp_pixel import POWERS, weights_of_length
from jwstdask.kernels.ramp_vectors import (
    LANES,
    LONGEST,
    MEDIANS,
    SUMS,
    copy_line,
    median_difference,
    sum_differences,
)

_TABLE = 64  # segments up to this length take their weights from a table

_MAGNITUDE = np.uint32(0x7FFFFFFF)

INFINITE = np.uint32(0x7F800000)
"""Bits of infinity; greater ones are not a number."""


@intrinsic
def _fma(typingctx, a, b, c):
    """``a * b + c``, rounded once."""
    return a(a, b, c), lambda context, builder, signature, values: builder.fma(*values)


@numba.njit(**INLINE)
def quotient(value, divisor, reciprocal):
    """``value / divisor`` of float32 numbers in float64, the same bits in a third of the time.

    A quotient of two numbers of 24 bits is never closer than 2^-25 of its last bit to where its rounding changes, and
    what is added to the first guess is known to 2^-52 of it.
    """
    guess = value * reciprocal
    return _fma(_fma(-guess, divisor, value), reciprocal, guess)


@lru_cache(maxsize=16)
def whole_weights(ngroups: int) -> np.ndarray:
    """Weights of whole ramps, (power, position)."""
    weights = np.ones((len(POWERS), ngroups))
    if ngroups > 2:
        weights_of_length(ngroups, np.array(POWERS), weights)
    return weights


@lru_cache(maxsize=16)
def slope_coefficients(ngroups: int, origin: int, group_time: float) -> tuple[np.ndarray, float]:
    """Slopes of whole ramps as sums of differences.

    Returns
    -------
    coefficients
        float64 (power, pair): coefficient of the last minus the first group, of the last but one minus the second, and
        so on [1/s].
    bound
        How far at most such a slope is from that by weighted sums with abscissae counted from ``origin``, for groups of
        up to 1 DN [DN/s]. Sums of n products in float64 are in error by no more than (n + 2) 2^-53 of the sum of their
        absolute values (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1).
    """
    pairs = ngroups // 2
    coefficients = np.zeros((len(POWERS), pairs))
    if ngroups == 1:
        return coefficients, 0.0
    groups = np.arange(ngroups)
    centred = groups - (ngroups - 1) / 2
    # As in the sums, but for the scale of the weights, which cancels out.
    places = (groups - origin).astype(float)
    worst = 0.0
    for power, weight in enumerate(whole_weights(ngroups)):
        each = centred * weight / np.sum(weight * centred**2) / group_time
        coefficients[power] = each[::-1][:pairs]
        total, first, second = np.sum(weight), np.sum(weight * abs(places)), np.sum(weight * places**2)
        spread = total * np.sum(weight * centred**2)
        terms = 2 * total * first / spread / group_time
        condition = (total * second + first**2) / spread
        worst = max(worst, terms + (condition + 8) * np.sum(abs(each)))
    return coefficients, 4 * (ngroups + 8) * 2.0**-53 * worst


@lru_cache(maxsize=16)
def weight_table(ngroups: int) -> np.ndarray:
    """Weights of segments up to ``_TABLE`` groups, (length, power, position)."""
    longest = min(ngroups, _TABLE)
    table = np.zeros((longest + 1, len(POWERS), max(longest, 1)))
    for length in range(3, longest + 1):
        weights_of_length(length, np.array(POWERS), table[length])
    return table


@numba.njit(**INLINE)
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


@numba.njit(**INLINE)
def copy_ramps(sci, bits, groupdq, i, y, line, first, size, ramps, greatest, union):
    """Copy a line of ramps to ``ramps``, (group, lane) in one dimension.

    Groups of a large array lie a multiple of 4096 bytes apart, where few of them have room in the first-level cache at
    a time. ``greatest`` gets the bits of the greatest absolute values (``INFINITE`` or more if any is not finite), from
    the ``bits`` of ``sci``; ``union`` all flags.
    """
    for lane in range(LANES):
        greatest[lane] = 0
        union[lane] = 0
    for group in range(size):
        row = sci[i, first + group, y, line]
        row_bits = bits[i, first + group, y, line]
        flags = groupdq[i, first + group, y, line]
        copy_line(row, ramps[group * LANES : (group + 1) * LANES])
        for lane in range(LANES):
            value = row_bits[lane] & _MAGNITUDE
            greatest[lane] = value if value > greatest[lane] else greatest[lane]
        for lane in range(LANES):
            union[lane] |= flags[lane]


@numba.njit(**INLINE)
def median_differences(ramps, size, group_time, network, before, steps, median):
    """Median difference [DN/s] of a line of ramps of two groups or more.

    ``ramps`` are those of :func:`copy_ramps`, ``network`` the :func:`jwstdask.kernels.networks.median_network` of
    ``size`` - 1.
    """
    reciprocal = 1.0 / group_time
    if 2 < size <= LONGEST:
        for lane in range(0, LANES, MEDIANS):
            median_difference(ramps, lane, LANES, size - 1, group_time, reciprocal, median, lane)
        return
    for group in range(size):
        row = ramps[group * LANES : (group + 1) * LANES]
        step = steps[max(group - 1, 0)]
        for lane in range(LANES):
            value = quotient(np.float64(row[lane]), group_time, reciprocal)
            step[lane] = value - before[lane]
            before[lane] = value
    exchange_rows(steps, network, LANES)
    lower, upper = steps[(size - 2) // 2], steps[(size - 1) // 2]
    for lane in range(LANES):
        # Halves are exact, and twice a value is: the mean of one and the same is that.
        median[lane] = (lower[lane] + upper[lane]) * 0.5


@numba.njit(**INLINE)
def slopes(ramps, size, gain, noise, coefficients, kind, slope):
    """Slopes of a line of ramps without flags, of two groups or more, by their differences.

    ``ramps`` are those of :func:`copy_ramps`, ``coefficients`` those of :func:`slope_coefficients` in one dimension.
    """
    end = (size - 1) * LANES
    head, tail = ramps[:LANES], ramps[end : end + LANES]
    for lane in range(LANES):
        signal = (np.float64(tail[lane]) - np.float64(head[lane])) * gain[lane]
        kind[lane] = power_class(signal, noise[lane] * noise[lane] + signal)
    pairs = size // 2
    for lane in range(0, LANES, SUMS):
        # Mostly one class, faint ramps.
        met = 0
        for other in range(lane, lane + SUMS):
            met |= 1 << int(kind[other])
        for power in range(len(POWERS)):
            if met & (1 << power):
                sum_differences(
                    ramps, lane, end + lane, LANES, pairs, coefficients, power * pairs, kind, power, slope, lane
                )


@numba.njit(**INLINE)
def doubtful(value, margin):
    """Whether a float64 value within ``margin`` of the one sought may round to another float32, or is NaN."""
    return np.float32(value - margin) != np.float32(value + margin)
