"""Slopes of ramps: ordinary least squares on the pieces between flagged groups, with optimal weights.

Method: Fixsen et al. 2000 (PASP 112, 1350) for the weights, Robberto 2009 (JWST-STScI-001853) for the variances of
segment slopes; choices of detail follow the JWST pipeline's algorithm ``OLS_C``, described in its documentation under
"Slope and variance calculations".

A *segment* is a run of good groups; it takes in the group before it if that group carries the jump flag and nothing
else, since a jump adds its charge before that group is read. Segments are combined with their read-noise
variances as weights. Two paths give the same arithmetic, operation by operation (but for reciprocals of reciprocals
under the root of an error), since what lies half way between two results, as of integers it often does, would be
rounded otherwise:

* integrations of a pixel without any flag: one segment of known length, computed for a line of pixels at once;
* everything else: pixel by pixel.

All arithmetic is float64 on float32 input, except the times of a group and of a frame and the power in the weights,
which the pipeline holds as float32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba.extending import intrinsic

from jwstdask.core.dq import CHARGELOSS, DO_NOT_USE, JUMP_DET, NO_GAIN_VALUE, PERSISTENCE, SATURATED
from jwstdask.kernels.extrema import greater, smaller
from jwstdask.kernels.ramp_pixel import (
    LARGE_VARIANCE,
    POWERS,
    capped,
    fit_ramp,
    load,
    median_rate,
    read_weight_with_chargeloss,
    time_of_single,
    weights_of_length,
)

_LANES = 64  # pixels of a line that are fitted together
_ROWS = 32  # lines of which one integration after the other is read
_SERIES = 16  # integrations from which on this is worth while
_TABLE = 64  # segments up to this length take their weights from a table

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
_INLINE = {**_OPTIONS, "forceinline": True}


class Slopes(NamedTuple):
    """Count rates of one product.

    Attributes
    ----------
    sci
        float32 ([integration,] y, x), rate [DN/s].
    err
        float32, standard deviation [DN/s].
    dq
        uint32, data-quality flags.
    var_poisson, var_rnoise
        float32, variances by photon and read noise [(DN/s)^2].
    """

    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> Slopes:
        """Zeros of ``shape``."""
        kinds = (np.float32, np.float32, np.uint32, np.float32, np.float32)
        return cls(*(np.zeros(shape, kind) for kind in kinds))

    @classmethod
    def zeros_outside(cls, shape: tuple[int, ...], y0: int, y1: int, x0: int, x1: int) -> Slopes:
        """Zeros of ``shape``, but for rows y0:y1, columns x0:x1, which may hold anything."""
        kinds = (np.float32, np.float32, np.uint32, np.float32, np.float32)
        slopes = cls(*(np.empty(shape, kind) for kind in kinds))
        for image in slopes:
            image[..., :y0, :] = 0
            image[..., y1:, :] = 0
            image[..., y0:y1, :x0] = 0
            image[..., y0:y1, x1:] = 0
        return slopes


# Tables ---------------------------------------------------------------------------------------------------------------


@intrinsic
def _fma(typingctx, a, b, c):
    """``a * b + c``, rounded once."""
    return a(a, b, c), lambda context, builder, signature, values: builder.fma(*values)


@numba.njit(**_INLINE)
def _quotient(value, divisor, reciprocal):
    """``value / divisor`` of float32 numbers in float64, the same bits in a third of the time.

    A quotient of two numbers of 24 bits is never closer than 2^-25 of its last bit to where its rounding changes, and
    what is added to the first guess is known to 2^-52 of it.
    """
    guess = value * reciprocal
    return _fma(_fma(-guess, divisor, value), reciprocal, guess)


@lru_cache(maxsize=16)
def _whole_weights(ngroups: int) -> np.ndarray:
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


def _batcher(size: int) -> list[tuple[int, int]]:
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
def _median_network(size: int) -> np.ndarray:
    """Comparators, (n, 2), that bring the middle one or two of ``size`` values to their places."""
    needed = {(size - 1) // 2, size // 2}
    kept = []
    for low, high in reversed(_batcher(size)):
        if low in needed or high in needed:
            needed |= {low, high}
            kept.append((low, high))
    return np.array(kept[::-1], dtype=np.int64).reshape(-1, 2)


# A line of pixels -----------------------------------------------------------------------------------------------------


@numba.njit(**_OPTIONS)
def _unite(groupdq, first, last, y0, y1, x0, x1, out):
    """All flags of each ramp together."""
    for i in range(out.shape[0]):
        for group in range(first, last):
            for y in range(y0, y1):
                union = out[i, y, x0:x1]
                bits = groupdq[i, group, y, x0:x1]
                if group == first:
                    for x in range(union.size):
                        union[x] = bits[x]
                else:
                    for x in range(union.size):
                        union[x] |= bits[x]


@numba.njit(**_INLINE)
def _write(values, out):
    for lane in range(out.size):
        out[lane] = values[lane]


@numba.njit(**_INLINE)
def _exchange(low, high):
    """Smaller values to ``low``, greater ones to ``high``."""
    for lane in range(_LANES):
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
def _fit_line(sci, i, y, line, first, size, origin, group_time, whole, gain, noise, scale, kind, sums, slope):
    """Slopes of a line of ramps without flags, of two groups or more."""
    head = sci[i, first, y, line]
    tail = sci[i, first + size - 1, y, line]
    if size == 2:
        for lane in range(_LANES):
            slope[lane] = (np.float64(tail[lane]) - np.float64(head[lane])) / group_time
        return
    sumw, sumx, sumxx, sumy, sumxy = sums[0], sums[1], sums[2], sums[3], sums[4]
    for lane in range(_LANES):
        signal = (np.float64(tail[lane]) - np.float64(head[lane])) * gain[lane]
        variance = noise[lane] * noise[lane] + signal
        # The class by the squared ratio: neither root nor division.
        square = signal * abs(signal)
        square = -1.0 if variance <= 0.0 else square
        variance = 1.0 if variance <= 0.0 else variance
        above = 0.0 if square < 25.0 * variance else 1.0
        above += 0.0 if square < 100.0 * variance else 1.0
        above += 0.0 if square < 400.0 * variance else 1.0
        above += 0.0 if square < 2500.0 * variance else 1.0
        above += 0.0 if square < 10000.0 * variance else 1.0
        kind[lane] = above
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
        for lane in range(_LANES):
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
        for lane in range(_LANES):
            weight = _choose(kind[lane], w0, w1, w2, w3, w4, w5) * scale[lane]
            leverage = position * weight
            value = np.float64(row[lane])
            sumw[lane] += weight
            sumx[lane] += leverage
            sumxx[lane] += position * leverage
            sumy[lane] += value * weight
            sumxy[lane] += value * leverage
    for lane in range(_LANES):
        inverse = 1.0 / (sumw[lane] * sumxx[lane] - sumx[lane] * sumx[lane])
        slope[lane] = (sumw[lane] * sumxy[lane] - sumx[lane] * sumy[lane]) * inverse / group_time


@numba.njit(**_INLINE)
def _differences(sci, i, y, line, first, size, group_time, before, steps, finite):
    """First differences [DN/s] of a line of ramps; ``finite`` gets 0 where all groups are finite."""
    reciprocal = 1.0 / group_time
    row = sci[i, first, y, line]
    for lane in range(_LANES):
        finite[lane] = row[lane] - row[lane]
        before[lane] = _quotient(np.float64(row[lane]), group_time, reciprocal)
    for group in range(1, size):
        row = sci[i, first + group, y, line]
        step = steps[group - 1]
        for lane in range(_LANES):
            value = _quotient(np.float64(row[lane]), group_time, reciprocal)
            step[lane] = value - before[lane]
            before[lane] = value
            finite[lane] += row[lane] - row[lane]


@numba.njit(**_INLINE)
def _middle(steps, network, size):
    """Two rows of ``steps`` the mean of which is the median difference."""
    for n in range(network.shape[0]):
        _exchange(steps[network[n, 0]], steps[network[n, 1]])
    return steps[(size - 2) // 2], steps[(size - 1) // 2]


@numba.njit(**_OPTIONS)
def _fit_rows(
    sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark, group_time, frame_time, nframes, suppress, first, last,
    y0, y1, x0, x1, origin, whole, table, network,
    rate_sci, rate_err, rate_dq, rate_poisson, rate_rnoise, ints_sci, ints_err, ints_dq, ints_poisson, ints_rnoise,
):  # fmt: skip
    """Fit rows y0:y1, columns x0:x1, at least ``_LANES`` of them; arrays as in :func:`ramp_fit`."""
    integrations = sci.shape[0]
    size = last - first
    one_group_time = (np.float64(np.float32(nframes)) + 1.0) * frame_time / 2.0
    root = np.sqrt(2.0 * nframes)
    reciprocal = 1.0 / group_time
    invalid = np.uint32(DO_NOT_USE | SATURATED)

    # One pixel at a time; with one integration the flagged ramps of a line are kept from the median to the fit.
    places = _LANES if integrations == 1 else 1
    ramps = np.empty((places, size))
    ramps_dq = np.empty((places, size), np.uint8)
    ramps_original = np.empty((places, size), np.uint8)
    counts = np.empty((places, 4), np.int64)
    starts = np.empty(size, np.int64)
    lengths = np.empty(size, np.int64)
    scratch = np.empty(size)
    sums = np.empty(3)
    flagged = np.empty((integrations, *sci.shape[2:]), np.uint8)
    _unite(groupdq, first, last, y0, y1, x0, x1, flagged)

    # Lines of pixels. What is kept of them are parts of one array the shape of which is known, so that no test of
    # whether they overlap is needed; one row more than is used keeps the parts from falling on the same places of the
    # first-level cache. A series is read some rows at a time: rows of one integration lie side by side.
    rows = 1 if integrations < _SERIES else min(_ROWS, max(y1 - y0, 1))
    work = np.empty((15, _ROWS + 1, _LANES))
    pixel_gain, pixel_noise, pixel_dark, scale, median = work[0], work[1], work[2], work[3], work[4]
    full_variance, full_rnoise, full_read_weight = work[5], work[6], work[7]
    full_err, full_poisson, full_poisson_weight = work[8], work[9], work[10]
    weighted, poisson_weight, read_weight, recovered = work[11], work[12], work[13], work[14]
    marks = np.empty((6, _ROWS + 1, _LANES), np.uint32)
    pixel_dq, flags, dead, filled, partly, has_chargeloss = marks[0], marks[1], marks[2], marks[3], marks[4], marks[5]
    constant = np.empty((3, _ROWS + 1, _LANES), np.float32)
    out_err, out_poisson, out_rnoise = constant[0], constant[1], constant[2]
    any_chargeloss = np.empty(rows, np.bool_)
    clean = np.empty((integrations, rows, _LANES), np.uint8)
    numbers = np.empty((integrations, rows), np.int64)
    finite = np.empty(_LANES, np.float32)
    steps = np.empty((max(size - 1, 1), _LANES))
    before, kind, slope = np.empty(_LANES), np.empty(_LANES), np.empty(_LANES)
    line_sums = np.empty((5, _LANES))

    for top, begin in [(top, begin) for top in range(y0, y1, rows) for begin in range(x0, x1, _LANES)]:
        height = min(rows, y1 - top)
        # The last line of a row begins within the one before.
        left = min(begin, x1 - _LANES)
        line = slice(left, left + _LANES)

        for r in range(height):
            y = top + r
            row_gain = gain[y, line]
            row_noise = readnoise[y, line]
            row_dq = pixeldq[y, line]
            for lane in range(_LANES):
                pixel_gain[r, lane] = np.float64(row_gain[lane])
            for lane in range(_LANES):
                noise = np.float64(np.float32(np.float64(row_noise[lane]) * (pixel_gain[r, lane] / root)))
                pixel_noise[r, lane] = noise
                scale[r, lane] = 1.0 / (noise * noise)
            if dark.size > 1:
                row_dark = dark[y, line]
                for lane in range(_LANES):
                    pixel_dark[r, lane] = row_dark[lane]
            else:
                pixel_dark[r, :] = dark[0, 0]
            for lane in range(_LANES):
                no_gain = np.uint32(0) if pixel_gain[r, lane] > 0.0 else np.uint32(DO_NOT_USE | NO_GAIN_VALUE)
                pixel_dq[r, lane] = row_dq[lane] | no_gain
            for lane in range(_LANES):
                median[r, lane] = 0.0
                weighted[r, lane] = 0.0
                poisson_weight[r, lane] = 0.0
                read_weight[r, lane] = 0.0
                recovered[r, lane] = 0.0
            for lane in range(_LANES):
                flags[r, lane] = pixel_dq[r, lane]
                dead[r, lane] = 0
                filled[r, lane] = 0
                partly[r, lane] = 0
                has_chargeloss[r, lane] = 0
            any_chargeloss[r] = False

        # Median rate: the mean over integrations of the median difference.
        for i in range(integrations):
            for r in range(height):
                y = top + r
                ok = clean[i, r]
                union = flagged[i, y, line]
                _differences(sci, i, y, line, first, size, group_time, before, steps, finite)
                number = 0
                for lane in range(_LANES):
                    usable = (union[lane] == 0) & ((pixel_dq[r, lane] & invalid) == 0) & (size > 1)
                    ok[lane] = usable & (finite[lane] == 0.0)
                    number += ok[lane]
                numbers[i, r] = number
                if number > 0:
                    lower, upper = _middle(steps, network, size)
                    for lane in range(_LANES):
                        # Halves are exact, and twice a value is: the mean of one and the same is that.
                        middle = (lower[lane] + upper[lane]) * 0.5
                        median[r, lane] += middle if ok[lane] else 0.0
                if number < _LANES:
                    for lane in range(_LANES):
                        if ok[lane]:
                            continue
                        place = lane % places
                        data, dq, count = ramps[place], ramps_dq[place], counts[place]
                        load(
                            sci, groupdq, zeroframe, i, y, left + lane, first, last, suppress,
                            data, dq, ramps_original[place], count,
                        )  # fmt: skip
                        start = count[3]
                        if count[0] & CHARGELOSS:
                            any_chargeloss[r] = True
                        median[r, lane] += median_rate(
                            data, dq, start, group_time, frame_time, one_group_time, scratch
                        )  # fmt: skip

        # What a whole ramp without flags gives, apart from its slope, is the same for all integrations.
        length = float(size)
        full = (length * length * length - length) if size > 2 else 6.0
        for r in range(height):
            for lane in range(_LANES):
                g = pixel_gain[r, lane]
                median[r, lane] /= np.float64(integrations)
                each = _quotient(pixel_noise[r, lane], group_time, reciprocal)
                variance = 12.0 * each * each / (full * g * g)
                photons = median[r, lane] + pixel_dark[r, lane] if median[r, lane] > 0.0 else pixel_dark[r, lane]
                poisson = photons / (group_time * g * (length - 1.0))
                full_variance[r, lane] = variance
                full_read_weight[r, lane] = 1.0 / variance
                inverse = 1.0 / full_read_weight[r, lane]
                full_rnoise[r, lane] = 0.0 if inverse >= LARGE_VARIANCE else inverse
                full_poisson_weight[r, lane] = 1.0 / poisson if poisson > 0.0 else 0.0
                inverse = 1.0 / full_poisson_weight[r, lane] if full_poisson_weight[r, lane] > 0.0 else 0.0
                full_poisson[r, lane] = 0.0 if inverse >= LARGE_VARIANCE else inverse
                total = poisson + variance
                full_err[r, lane] = 0.0 if total > LARGE_VARIANCE else np.sqrt(total)
            for lane in range(_LANES):
                out_err[r, lane] = full_err[r, lane]
                out_poisson[r, lane] = full_poisson[r, lane]
                out_rnoise[r, lane] = full_rnoise[r, lane]

        for i in range(integrations):
            for r in range(height):
                y = top + r
                ok = clean[i, r]
                if numbers[i, r] > 0:
                    _fit_line(
                        sci, i, y, line, first, size, origin, group_time, whole,
                        pixel_gain[r], pixel_noise[r], scale[r], kind, line_sums, slope,
                    )  # fmt: skip
                    for lane in range(_LANES):
                        part = slope[lane] / full_variance[r, lane]
                        slope[lane] = part * full_rnoise[r, lane]
                        weighted[r, lane] += part if ok[lane] else 0.0
                        poisson_weight[r, lane] += full_poisson_weight[r, lane] if ok[lane] else 0.0
                        read_weight[r, lane] += full_read_weight[r, lane] if ok[lane] else 0.0
                    _write(slope, ints_sci[i, y, line])
                    _write(out_err[r], ints_err[i, y, line])
                    _write(pixel_dq[r], ints_dq[i, y, line])
                    _write(out_poisson[r], ints_poisson[i, y, line])
                    _write(out_rnoise[r], ints_rnoise[i, y, line])
                    if any_chargeloss[r]:
                        for lane in range(_LANES):
                            if ok[lane] and full_rnoise[r, lane] > 0.0:
                                recovered[r, lane] += 1.0 / full_rnoise[r, lane]
                if numbers[i, r] == _LANES:
                    continue

                for lane in range(_LANES):
                    if ok[lane]:
                        continue
                    place = lane % places
                    data, dq, original = ramps[place], ramps_dq[place], ramps_original[place]
                    if integrations > 1:
                        load(
                            sci, groupdq, zeroframe, i, y, left + lane, first, last, suppress,
                            data, dq, original, counts[0],
                        )  # fmt: skip
                    found, _, saturated, start = counts[place]
                    g = pixel_gain[r, lane]
                    noise = pixel_noise[r, lane]
                    single_time = time_of_single(start, group_time, frame_time, one_group_time)
                    flags[r, lane] |= pixel_dq[r, lane] | np.uint32(found & (JUMP_DET | PERSISTENCE))
                    bits, value, error, poisson, variance, _, _ = fit_ramp(
                        data, dq, counts[place], origin, pixel_dq[r, lane], g, noise, pixel_dark[r, lane],
                        median[r, lane], group_time, single_time, table, starts, lengths, sums,
                    )  # fmt: skip
                    weighted[r, lane] += sums[0]
                    poisson_weight[r, lane] += sums[1]
                    read_weight[r, lane] += sums[2]
                    if bits & np.uint32(DO_NOT_USE):
                        dead[r, lane] += 1
                    if bits & np.uint32(SATURATED):
                        filled[r, lane] += 1
                    if saturated > 0:
                        bits |= np.uint32(SATURATED)
                        partly[r, lane] = 1
                    if found & CHARGELOSS:
                        has_chargeloss[r, lane] = 1
                        total = read_weight_with_chargeloss(
                            original, size, g, noise, group_time, single_time, starts, lengths
                        )
                        recovered[r, lane] += total
                        variance = capped(1.0 / total)
                    elif variance > 0.0:
                        recovered[r, lane] += 1.0 / variance
                    ints_sci[i, y, left + lane] = value
                    ints_err[i, y, left + lane] = error
                    ints_dq[i, y, left + lane] = bits
                    ints_poisson[i, y, left + lane] = poisson
                    ints_rnoise[i, y, left + lane] = variance

        # The exposure.
        for r in range(height):
            y = top + r
            for lane in range(_LANES):
                bits = flags[r, lane]
                bits |= np.uint32(DO_NOT_USE) if dead[r, lane] == integrations else np.uint32(0)
                bits |= np.uint32(SATURATED) if filled[r, lane] == integrations else np.uint32(0)
                flags[r, lane] = bits
                partly[r, lane] = bits | (np.uint32(SATURATED) if partly[r, lane] else np.uint32(0))
            for lane in range(_LANES):
                weight = poisson_weight[r, lane]
                poisson = 1.0 / weight if weight > 0.0 else weight
                poisson = 0.0 if (poisson >= LARGE_VARIANCE or poisson < 0.0) else poisson
                weight = read_weight[r, lane]
                variance = 1.0 / weight if weight > 0.0 else weight
                variance = 0.0 if variance >= LARGE_VARIANCE else variance
                usable = (flags[r, lane] & invalid) == 0
                weighted[r, lane] = weighted[r, lane] * variance if usable else np.nan
                full_err[r, lane] = np.sqrt(poisson + variance) if usable else 0.0
                full_poisson[r, lane] = poisson if usable else 0.0
                full_rnoise[r, lane] = variance if usable else 0.0
            _write(weighted[r], rate_sci[y, line])
            _write(full_err[r], rate_err[y, line])
            _write(partly[r], rate_dq[y, line])
            _write(full_poisson[r], rate_poisson[y, line])
            _write(full_rnoise[r], rate_rnoise[y, line])
            if any_chargeloss[r]:
                line_rnoise = rate_rnoise[y, line]
                for lane in range(_LANES):
                    if has_chargeloss[r, lane] and recovered[r, lane] > 0.0:
                        line_rnoise[lane] = capped(1.0 / recovered[r, lane])


# Public ---------------------------------------------------------------------------------------------------------------


def _native(array, kind) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=kind)


def common_arguments(
    sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark_current, group_time, frame_time, nframes, suppress,
    first_group, last_group,
) -> tuple:  # fmt: skip
    """The arguments that both numba kernels begin with."""
    last = sci.shape[1] if last_group is None else last_group
    if not 0 <= first_group < last <= sci.shape[1]:
        raise ValueError(f"groups {first_group}:{last} of a ramp of {sci.shape[1]} groups")
    if zeroframe is None:
        zeroframe = np.empty((0, 0, 0), np.float32)
    return (
        _native(sci, np.float32),
        _native(groupdq, np.uint8),
        _native(pixeldq, np.uint32),
        _native(zeroframe, np.float32),
        _native(gain, np.float32),
        _native(readnoise, np.float32),
        np.atleast_2d(_native(dark_current, np.float32)),
        float(np.float32(group_time)),
        float(np.float32(frame_time)),
        int(nframes),
        bool(suppress),
        int(first_group),
        int(last),
    )


def _in_a_line(argument, rows: slice, columns: slice, frame: tuple[int, ...]):
    """Pixels of an image of the ``frame`` one after the other, the last again up to ``_LANES``; others as they are."""
    if not isinstance(argument, np.ndarray) or argument.shape[-2:] != frame:
        return argument
    part = argument[..., rows, columns]
    line = part.reshape(*part.shape[:-2], 1, -1)
    missing = max(_LANES - line.shape[-1], 0)
    return np.pad(line, [(0, 0)] * (line.ndim - 1) + [(0, missing)], mode="edge")


def ramp_fit(
    sci: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    *,
    group_time: float,
    frame_time: float,
    nframes: int,
    zeroframe: np.ndarray | None = None,
    dark_current: np.ndarray | float = 0.0,
    suppress_one_group: bool = True,
    first_group: int = 0,
    last_group: int | None = None,
    origin: int = 0,
    inner: tuple[slice, slice] | None = None,
    out: tuple[Slopes, Slopes] | None = None,
) -> tuple[Slopes, Slopes]:
    """Count rates of a ramp by least squares with optimal weights.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x), corrected ramp [DN].
    groupdq
        uint8 (integration, group, y, x).
    pixeldq
        uint32 (y, x).
    gain
        float32 (y, x) [e-/DN]; pixels whose gain is NaN or not positive get NO_GAIN_VALUE and DO_NOT_USE.
    readnoise
        float32 (y, x), noise of the difference of two single frames (CDS) [DN].
    group_time, frame_time
        Time between groups and of one frame [s].
    nframes
        Number of frames averaged in a group.
    zeroframe
        float32 (integration, y, x), first frame alone [DN], 0 where unusable; replaces group 0 of integrations
        without a good group, unless ``suppress_one_group``.
    dark_current
        float32 (y, x) or scalar, dark current that adds photon noise.
    suppress_one_group
        Treat integrations with one good group as having none (never in ramps of one group).
    first_group, last_group
        Groups to use, end exclusive; the others are taken to be DO_NOT_USE in the whole frame (MIRI's first and last).
    origin
        Group from which abscissae are counted, relative to ``first_group``; it changes nothing but the last bit of the
        rounding.
    inner
        Rows and columns to fit; the whole of the arrays if None. Elsewhere the results are 0, or what ``out`` held.
    out
        Where to write: slopes of the exposure (y, x) and of the integrations (integration, y, x).

    Returns
    -------
    rate, rateints
        Slopes of the exposure (y, x) and of its integrations (integration, y, x).

    Raises
    ------
    ValueError
        If the groups to use are not in the ramp.

    Notes
    -----
    Sources: Fixsen et al. 2000 (PASP 112, 1350); JWST pipeline documentation, "ramp_fitting". Rates of segments are
    combined with weights 1 / var_rnoise. ``var_rnoise`` of integrations with CHARGELOSS groups is that of the ramp with
    these groups included. Groups that are SATURATED are never used.
    """
    common = common_arguments(
        sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark_current, group_time, frame_time, nframes,
        suppress_one_group, first_group, last_group,
    )  # fmt: skip
    size = common[-1] - common[-2]
    rows, columns = inner or (slice(None), slice(None))
    y0, y1, _ = rows.indices(sci.shape[2])
    x0, x1, _ = columns.indices(sci.shape[3])
    if out is None:
        shape = sci.shape[2:]
        out = tuple(Slopes.zeros_outside(found, y0, y1, x0, x1) for found in (shape, (sci.shape[0], *shape)))
    tables = int(origin), _whole_weights(size), weight_table(size), _median_network(size - 1)
    if x1 - x0 >= _LANES:
        _fit_rows(*common, y0, y1, x0, x1, *tables, *out[0], *out[1])
    elif x1 > x0 and y1 > y0:
        # Pixels do not know of each other.
        count = (y1 - y0) * (x1 - x0)
        width = max(count, _LANES)
        lines = tuple(_in_a_line(argument, slice(y0, y1), slice(x0, x1), sci.shape[2:]) for argument in common)
        wide = tuple(Slopes.zeros((*found.sci.shape[:-2], 1, width)) for found in out)
        _fit_rows(*lines, 0, 1, 0, width, *tables, *wide[0], *wide[1])
        for found, given in zip((*wide[0], *wide[1]), (*out[0], *out[1]), strict=True):
            given[..., y0:y1, x0:x1] = found[..., 0, :count].reshape(*found.shape[:-2], y1 - y0, x1 - x0)
    return out
