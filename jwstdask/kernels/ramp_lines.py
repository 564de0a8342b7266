"""Ramps of a line of pixels, side by side.

What belongs to a group of all of them is a row of ``LANES`` numbers. A row is gone through by loops that know its
length and touch few others, since that is what a compiler makes vector instructions of.

A slope is a sum of differences of groups, with coefficients that depend on the length of the ramp and on its class of
signal-to-noise ratio alone. In exact arithmetic that is what the sums of the weighted fit give; in float64 the two
differ by less than a bound that is known. A slope that rounds to the same float32 from both ends of that bound is the
one that the sums would have given, to the last bit; the others, some in ten thousand, are left to those sums (the test
of Ziv 1991, ACM TOMS 17, 410, by which correctly rounded functions are made).
"""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np
from numba.extending import intrinsic

from jwstdask.kernels.networks import bring_middle
from jwstdask.kernels.ramp_pixel import POWERS, weights_of_length

LANES = 64
"""Pixels that are fitted together."""

_TABLE = 64  # segments up to this length take their weights from a table

_MAGNITUDE = np.uint32(0x7FFFFFFF)

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
        (power, pair), an even number of pairs: coefficient of the last minus the first group, of the last but one minus
        the second, and so on [1/s].
    bound
        How far at most such a slope is from that by weighted sums with abscissae counted from ``origin``, for groups of
        up to 1 DN [DN/s]. Sums of n products in float64 are in error by no more than (n + 2) 2^-53 of the sum of their
        absolute values (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1).
    """
    pairs = ngroups // 2
    coefficients = np.zeros((len(POWERS), (pairs + 1) // 2 * 2))
    if ngroups == 1:
        return coefficients, 0.0
    groups = np.arange(ngroups)
    centred = groups - (ngroups - 1) / 2
    # As in the sums, but for the scale of the weights, which cancels out.
    places = (groups - origin).astype(float)
    worst = 0.0
    for power, weight in enumerate(whole_weights(ngroups)):
        each = centred * weight / np.sum(weight * centred**2) / group_time
        coefficients[power, :pairs] = each[::-1][:pairs]
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


@numba.njit(**_INLINE)
def write(values, out):
    for lane in range(out.size):
        out[lane] = values[lane]


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
def magnitudes(bits, i, y, line, first, size, greatest):
    """Bits of the greatest absolute values of a line of ramps, from the ``bits`` of their float32 values."""
    for lane in range(LANES):
        greatest[lane] = 0
    for group in range(size):
        row = bits[i, first + group, y, line]
        for lane in range(LANES):
            value = row[lane] & _MAGNITUDE
            greatest[lane] = value if value > greatest[lane] else greatest[lane]


@numba.njit(**_INLINE)
def middle(steps, network, size):
    """Two rows of ``steps`` the mean of which is the median difference."""
    bring_middle(steps, size - 1, network)
    return steps[(size - 2) // 2], steps[(size - 1) // 2]


@numba.njit(**_INLINE)
def slopes(sci, i, y, line, first, size, gain, noise, coefficients, kind, other, slope):
    """Slopes of a line of ramps without flags, of two groups or more, by their differences.

    ``coefficients`` are those of :func:`slope_coefficients`.
    """
    head = sci[i, first, y, line]
    tail = sci[i, first + size - 1, y, line]
    met = 0
    for lane in range(LANES):
        signal = (np.float64(tail[lane]) - np.float64(head[lane])) * gain[lane]
        above = power_class(signal, noise[lane] * noise[lane] + signal)
        kind[lane] = above
        met |= 1 << np.int64(above)
    found = False
    for power in range(len(POWERS)):
        if not met & (1 << power):
            continue
        target = other if found else slope
        for lane in range(LANES):
            target[lane] = 0.0
        # Two pairs at a time: the sums would else be written more often than is needed.
        for pair in range(0, coefficients.shape[1], 2):
            outer, inner = coefficients[power, pair], coefficients[power, pair + 1]
            low, high = sci[i, first + pair, y, line], sci[i, first + size - 1 - pair, y, line]
            next_low = sci[i, first + min(pair + 1, size - 1), y, line]
            next_high = sci[i, first + max(size - 2 - pair, 0), y, line]
            for lane in range(LANES):
                total = target[lane] + outer * (np.float64(high[lane]) - np.float64(low[lane]))
                target[lane] = total + inner * (np.float64(next_high[lane]) - np.float64(next_low[lane]))
        if found:
            for lane in range(LANES):
                slope[lane] = other[lane] if kind[lane] == power else slope[lane]
        found = True


@numba.njit(**_INLINE)
def doubtful(value, margin):
    """Whether a float64 value within ``margin`` of the one sought may round to another float32, or is NaN."""
    return np.float32(value - margin) != np.float32(value + margin)
