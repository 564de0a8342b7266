"""Slopes of ramps: ordinary least squares on the pieces between flagged groups, with optimal weights.

Method: Fixsen et al. 2000 (PASP 112, 1350) for the weights, Robberto 2009 (JWST-STScI-001853) for the variances of
segment slopes; choices of detail follow the JWST pipeline's algorithm ``OLS_C``, described in its documentation under
"Slope and variance calculations".

A *segment* is a run of good groups; it takes in the group before it if that group carries the jump flag and nothing
else, since a jump adds its charge before that group is read. Segments are combined with their read-noise
variances as weights. Two paths give the same arithmetic, operation by operation:

* integrations of a pixel without any flag: one segment of known length, computed for a line of pixels at once;
* everything else: pixel by pixel.

All arithmetic is float64 on float32 input, except the times of a group and of a frame and the power in the weights,
which the pipeline holds as float32.
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import NamedTuple

import numba
import numpy as np
from numba.extending import intrinsic

from jwstdask.core.dq import CHARGELOSS, DO_NOT_USE, JUMP_DET, NO_GAIN_VALUE, PERSISTENCE, SATURATED

LARGE_VARIANCE = 1.0e6
"""Variances from here on mean "unknown" and are written as 0 [(DN/s)^2]."""

_POWERS = (0.0, 0.4, 1.0, 3.0, 6.0, 10.0)
_CLASSES = len(_POWERS)
_LANES = 64  # pixels of a line that are fitted together
_ROWS = 32  # lines of which one integration after the other is read
_SERIES = 16  # integrations from which on this is worth while
_TABLE = 64  # segments up to this length take their weights from a table

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
_INLINE = {
    **_OPTIONS,
    "forceinline": True,
}  # what is done for each flagged ramp: calls would take a quarter of its time


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


class Segments(NamedTuple):
    """Fits of single segments (the ``fitopt`` product); unused places are 0.

    Attributes
    ----------
    slope, sigslope, var_poisson, var_rnoise, yint, sigyint, weights
        float32 (integration, segment, y, x): slope [DN/s] and its formal error, variances [(DN/s)^2], intercept [DN]
        and its formal error, inverse read-noise variance. The formal errors follow the weights, which are in
        units of the scaled read noise, and are those of a group, not a second.
    pedestal
        float32 (integration, y, x), signal at the start of the integration [DN].
    crmag
        float32 (integration, jump, y, x), steps at the groups flagged as jumps [DN].
    """

    slope: np.ndarray
    sigslope: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray
    yint: np.ndarray
    sigyint: np.ndarray
    pedestal: np.ndarray
    weights: np.ndarray
    crmag: np.ndarray


# Tables ---------------------------------------------------------------------------------------------------------------


@numba.njit(**_OPTIONS)
def _weight(position, length, power):
    """Weight of a group in a segment before division by the squared read noise.

    Both the base and the power are float32, and so is the result.
    """
    middle = (length - 1) / 2.0
    return np.float64(np.float32(abs((position - middle) * (1.0 / middle))) ** np.float32(power))


@numba.njit(**_OPTIONS)
def _weights_of_length(length, powers, out):
    """Fill ``out`` (power, position) with the weights of segments of ``length`` groups."""
    for kind in range(powers.size):
        for position in range(length):
            out[kind, position] = _weight(position, length, powers[kind])


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
def _weight_tables(ngroups: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of whole ramps, (position, power), and of segments up to ``_TABLE`` groups, (length, power, position)."""
    powers = np.array(_POWERS)
    whole = np.ones((_CLASSES, ngroups))
    longest = min(ngroups, _TABLE)
    table = np.zeros((longest + 1, _CLASSES, max(longest, 1)))
    if ngroups > 2:
        _weights_of_length(ngroups, powers, whole)
    for length in range(3, longest + 1):
        _weights_of_length(length, powers, table[length])
    return np.ascontiguousarray(whole.T), table


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


# One pixel ------------------------------------------------------------------------------------------------------------


@numba.njit(**_INLINE)
def _load(sci, groupdq, zeroframe, integration, y, x, first, last, suppress, data, dq, original, counts):
    """Copy a ramp to ``data`` and ``dq`` (its flags as the fit sees them) and ``original`` (its flags as they came).

    ``counts`` gets all flags of the ramp together; the number of groups that are DO_NOT_USE or SATURATED; of those that
    are SATURATED; and 1 if only group 0 is good, 2 if group 0 was replaced by the zero frame, else 0.
    """
    size = last - first
    suppress = suppress and groupdq.shape[1] > 1
    usable = 0
    good = 0
    union = 0
    unusable = 0
    saturated = 0
    for group in range(size):
        bits = int(groupdq[integration, first + group, y, x])
        original[group] = bits
        usable += (bits & ~PERSISTENCE) == 0
        if group == 0 and first > 0:
            # A jump into the first group in use says nothing about the groups after it.
            bits &= ~JUMP_DET
        dq[group] = bits
        union |= bits
        good += bits == 0
        unusable += (bits & (DO_NOT_USE | SATURATED)) != 0
        saturated += (bits & SATURATED) != 0
        data[group] = np.nan if bits & SATURATED else np.float64(sci[integration, first + group, y, x])
    if suppress and usable == 1:
        for group in range(size):
            dq[group] |= DO_NOT_USE
        union |= DO_NOT_USE
        unusable = size
    start = 0
    if not suppress:
        if good == 1 and dq[0] == 0:
            start = 1
        elif good == 0 and zeroframe.size > 0:
            value = zeroframe[integration, y, x]
            if value != 0.0:
                data[0] = value
                dq[0] = 0
                unusable -= 1
                if saturated == size:
                    saturated -= 1
                start = 2
    counts[0] = union
    counts[1] = unusable
    counts[2] = saturated
    counts[3] = start


@numba.njit(**_OPTIONS)
def _sort(values, count):
    """Sort ``values[:count]`` in place (Shell sort)."""
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, count):
            value = values[i]
            j = i
            while j >= gap and values[j - gap] > value:
                values[j] = values[j - gap]
                j -= gap
            values[j] = value
        gap //= 3


@numba.njit(**_INLINE)
def _median_difference(data, dq, size, group_time, scratch):
    """Median of the usable first differences [DN/s], or the first group (NaN if unusable) if there are none."""
    count = 0
    first = np.nan
    before = np.nan
    for group in range(size):
        value = np.nan if dq[group] & DO_NOT_USE else data[group] / group_time
        if group == 0:
            first = value
        elif dq[group] & JUMP_DET == 0 and not np.isnan(value - before):
            scratch[count] = value - before
            count += 1
        before = value
    if count == 0:
        return first
    _sort(scratch, count)
    middle = count // 2
    return scratch[middle] if count % 2 else (scratch[middle - 1] + scratch[middle]) / 2.0


@numba.njit(**_INLINE)
def _find_segments(dq, size, starts, lengths):
    """Segments of a ramp.

    Segments of one group count only if there is no longer one, and then only the first of them.

    Returns
    -------
    count
        Number of segments written to ``starts`` and ``lengths``.
    found
        Number of places the segments take in the ``fitopt`` product, which reserves one for each single group.
    """
    count = 0
    longest = 0
    begin = -1
    for group in range(size + 1):
        if group < size and dq[group] & ~PERSISTENCE == 0:
            if begin < 0:
                begin = group
                if group > 0 and dq[group - 1] & ~PERSISTENCE == JUMP_DET:
                    begin -= 1
        elif begin >= 0:
            length = group - begin
            if length > 1 or longest <= 1:
                starts[count] = begin
                lengths[count] = length
                count += 1
                longest = max(longest, length)
            begin = -1
    if longest <= 1:
        return min(count, 1), count
    kept = 0
    for segment in range(count):
        if lengths[segment] > 1:
            starts[kept] = starts[segment]
            lengths[kept] = lengths[segment]
            kept += 1
    return kept, kept


@numba.njit(**_INLINE)
def _power_class(signal, gain, noise):
    """Index of the power of the weights, from the signal-to-noise ratio of a segment.

    Parameters
    ----------
    signal
        Last minus first group [DN].
    gain
        [e-/DN].
    noise
        Read noise [e-].
    """
    variance = noise * noise + signal * gain
    ratio = 0.0
    if not (variance <= 0.0 or gain == 0.0):
        ratio = signal * gain / sqrt(variance)
    # A ratio that is NaN gets the steepest weights.
    return 5 - (ratio < 5.0) - (ratio < 10.0) - (ratio < 20.0) - (ratio < 50.0) - (ratio < 100.0)


@numba.njit(**_INLINE)
def _read_variance(noise, gain, length, time):
    """Variance of a slope by read noise [(DN/s)^2]; ``length`` groups, ``time`` [s] apart."""
    if length > 2 and not gain > 0.0:
        return 0.0
    each = noise / time
    length = max(float(length), 2.0)
    return 12.0 * each * each / ((length * length * length - length) * gain * gain)


@numba.njit(**_INLINE)
def _poisson_variance(rate, dark, gain, length, time):
    """Variance of a slope by photon noise [(DN/s)^2]; ``rate`` [DN/s] counts if positive."""
    scale = time * gain * max(length - 1.0, 1.0)
    return (rate + dark) / scale if rate > 0.0 else dark / scale


@numba.njit(**_INLINE)
def _fit_segment(data, start, length, origin, gain, noise, time, table):
    """Weighted straight line through groups ``start`` to ``start + length - 1``; ``time`` is that of a group.

    Abscissae are counted from ``origin``.

    Returns
    -------
    slope, sigslope, yint, sigyint
        See :class:`Segments`.
    """
    if length == 1:
        return data[start] / time, 0.0, 0.0, 0.0
    if length == 2:
        sigma = 1.41421356 * noise
        second = start - origin + 1.0
        intercept = data[start + 1] * (1.0 - second) + data[start] * second
        return (data[start + 1] - data[start]) / time, sigma, intercept, sigma
    kind = _power_class(data[start + length - 1] - data[start], gain, noise)
    scale = 1.0 / (noise * noise)
    tabulated = length < table.shape[0]
    sumw = 0.0
    sumx = 0.0
    sumxx = 0.0
    sumy = 0.0
    sumxy = 0.0
    for position in range(length):
        if tabulated:
            weight = table[length, kind, position] * scale
        else:
            weight = _weight(position, length, _POWERS[kind]) * scale
        group = float(start - origin + position)
        value = data[start + position]
        if np.isnan(value):
            value = 0.0
        leverage = group * weight
        sumw += weight
        sumx += leverage
        sumxx += group * leverage
        sumy += value * weight
        sumxy += value * leverage
    inverse = 1.0 / (sumw * sumxx - sumx * sumx)
    slope = (sumw * sumxy - sumx * sumy) * inverse / time
    return slope, np.sqrt(sumw * inverse), (sumxx * sumy - sumx * sumxy) * inverse, np.sqrt(sumxx * inverse)


@numba.njit(**_OPTIONS)
def _read_weight_with_chargeloss(original, size, gain, noise, group_time, single_time, starts, lengths):
    """Sum of inverse read-noise variances with the groups given up to charge migration taken back."""
    for group in range(size):
        if original[group] & CHARGELOSS:
            original[group] ^= DO_NOT_USE | CHARGELOSS
    count, _ = _find_segments(original, size, starts, lengths)
    total = 0.0
    for segment in range(count):
        time = single_time if lengths[segment] == 1 else group_time
        variance = _read_variance(noise, gain, lengths[segment], time)
        if variance > 0.0:
            total += 1.0 / variance
    return total


@numba.njit(**_INLINE)
def _capped(variance):
    return 0.0 if variance >= LARGE_VARIANCE else variance


@numba.njit(**_INLINE)
def _fit_ramp(
    data, dq, counts, origin, pixel_dq, gain, noise, dark, rate, group_time, single_time, table, starts, lengths, sums
):
    """Fit one integration of one pixel.

    Returns
    -------
    bits
        Flags of the integration, before it is marked as partly saturated.
    slope, error, var_poisson, var_rnoise
        Results of the integration; ``sums`` gets what it adds to those of the exposure: slope / var_rnoise,
        1 / var_poisson, 1 / var_rnoise.
    count
        Number of segments in ``starts`` and ``lengths``.
    places
        See :func:`_find_segments`.
    """
    bits = pixel_dq | np.uint32(counts[0] & (JUMP_DET | PERSISTENCE))
    count = 0
    places = 0
    if dq[0] & SATURATED:
        bits |= np.uint32(DO_NOT_USE | SATURATED)
    else:
        count, places = _find_segments(dq, dq.size, starts, lengths)
    if counts[1] == dq.size:
        bits |= np.uint32(DO_NOT_USE)
        if counts[2] == dq.size:
            bits |= np.uint32(SATURATED)
        count = 0
    sums[:] = 0.0
    total = 0.0
    for segment in range(count):
        length = lengths[segment]
        time = single_time if length == 1 else group_time
        slope, _, _, _ = _fit_segment(data, starts[segment], length, origin, gain, noise, time, table)
        read = _read_variance(noise, gain, length, time)
        poisson = _poisson_variance(rate, dark, gain, length, time)
        sums[0] += slope / read
        if poisson > 0.0:
            sums[1] += 1.0 / poisson
        sums[2] += 1.0 / read
        total += 1.0 / (poisson + read)
    slope = 0.0
    error = 0.0
    poisson = 0.0
    read = 0.0
    if bits & np.uint32(DO_NOT_USE | SATURATED):
        slope = np.nan
    elif count > 0:
        if sums[1] > 0.0:
            poisson = _capped(1.0 / sums[1])
        read = _capped(1.0 / sums[2])
        slope = sums[0] * read
        variance = 1.0 / total
        error = 0.0 if variance > LARGE_VARIANCE else np.sqrt(variance)
    return bits, slope, error, poisson, read, count, places


@numba.njit(**_INLINE)
def _single_time(start, group_time, frame_time, one_group_time):
    """Exposure of a lone group: half way through group 0, the zero frame, or a whole group."""
    return one_group_time if start == 1 else (frame_time if start == 2 else group_time)


@numba.njit(**_INLINE)
def _median_rate(data, dq, start, group_time, frame_time, one_group_time, scratch):
    """Rate of one integration by its median difference [DN/s], 0 if there is none."""
    if dq.size == 1:
        return data[0] / one_group_time
    if start > 0:
        value = data[0] / _single_time(start, group_time, frame_time, one_group_time)
    else:
        value = _median_difference(data, dq, dq.size, group_time, scratch)
    return 0.0 if np.isnan(value) else value


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
        low[lane] = a if a < b else b
        high[lane] = b if a < b else a


@numba.njit(**_INLINE)
def _weights_of_group(whole, group):
    return whole[group, 0], whole[group, 1], whole[group, 2], whole[group, 3], whole[group, 4], whole[group, 5]


@numba.njit(**_INLINE)
def _choose(ratio, w0, w1, w2, w3, w4, w5):
    """Weight by signal-to-noise ratio; a ratio that is NaN gets the steepest, as in :func:`_power_class`."""
    weight = w4 if ratio < 100.0 else w5
    weight = w3 if ratio < 50.0 else weight
    weight = w2 if ratio < 20.0 else weight
    weight = w1 if ratio < 10.0 else weight
    return w0 if ratio < 5.0 else weight


@numba.njit(**_INLINE)
def _fit_line(sci, i, y, line, first, size, origin, group_time, whole, gain, noise, scale, ratio, sums, slope):
    """Slopes of a line of ramps without flags, of more than two groups."""
    sumw, sumx, sumxx, sumy, sumxy = sums[0], sums[1], sums[2], sums[3], sums[4]
    head = sci[i, first, y, line]
    tail = sci[i, first + size - 1, y, line]
    for lane in range(_LANES):
        signal = np.float64(tail[lane]) - np.float64(head[lane])
        variance = noise[lane] * noise[lane] + signal * gain[lane]
        value = signal * gain[lane] / np.sqrt(variance)
        ratio[lane] = 0.0 if variance <= 0.0 else value
        sumw[lane] = 0.0
        sumx[lane] = 0.0
        sumxx[lane] = 0.0
        sumy[lane] = 0.0
        sumxy[lane] = 0.0
    # Two groups at a time: what the sums are would else be written more often than is needed.
    for group in range(0, size - 1, 2):
        v0, v1, v2, v3, v4, v5 = _weights_of_group(whole, group)
        w0, w1, w2, w3, w4, w5 = _weights_of_group(whole, group + 1)
        row = sci[i, first + group, y, line]
        next_row = sci[i, first + group + 1, y, line]
        position = float(group - origin)
        next_position = float(group + 1 - origin)
        for lane in range(_LANES):
            r = ratio[lane]
            factor = scale[lane]
            weight = _choose(r, v0, v1, v2, v3, v4, v5) * factor
            leverage = position * weight
            value = np.float64(row[lane])
            next_weight = _choose(r, w0, w1, w2, w3, w4, w5) * factor
            next_leverage = next_position * next_weight
            next_value = np.float64(next_row[lane])
            sumw[lane] = sumw[lane] + weight + next_weight
            sumx[lane] = sumx[lane] + leverage + next_leverage
            sumxx[lane] = sumxx[lane] + position * leverage + next_position * next_leverage
            sumy[lane] = sumy[lane] + value * weight + next_value * next_weight
            sumxy[lane] = sumxy[lane] + value * leverage + next_value * next_leverage
    if size % 2:
        group = size - 1
        w0, w1, w2, w3, w4, w5 = _weights_of_group(whole, group)
        row = sci[i, first + group, y, line]
        position = float(group - origin)
        for lane in range(_LANES):
            weight = _choose(ratio[lane], w0, w1, w2, w3, w4, w5) * scale[lane]
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
    before, ratio, slope = np.empty(_LANES), np.empty(_LANES), np.empty(_LANES)
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
                for lane in range(_LANES):
                    finite[lane] = 0.0
                union = flagged[i, y, line]
                for group in range(size):
                    row = sci[i, first + group, y, line]
                    for lane in range(_LANES):
                        finite[lane] += row[lane] - row[lane]
                    if group == 0:
                        for lane in range(_LANES):
                            before[lane] = _quotient(np.float64(row[lane]), group_time, reciprocal)
                    else:
                        step = steps[group - 1]
                        for lane in range(_LANES):
                            value = _quotient(np.float64(row[lane]), group_time, reciprocal)
                            step[lane] = value - before[lane]
                            before[lane] = value
                number = 0
                for lane in range(_LANES):
                    ok[lane] = (
                        union[lane] == 0 and finite[lane] == 0.0 and (pixel_dq[r, lane] & invalid) == 0 and size > 1
                    )
                    number += ok[lane]
                numbers[i, r] = number
                if number > 0:
                    for n in range(network.shape[0]):
                        _exchange(steps[network[n, 0]], steps[network[n, 1]])
                    upper = steps[(size - 1) // 2]
                    lower = steps[(size - 2) // 2]
                    if size % 2 == 0:
                        for lane in range(_LANES):
                            median[r, lane] += upper[lane] if ok[lane] else 0.0
                    else:
                        for lane in range(_LANES):
                            median[r, lane] += (lower[lane] + upper[lane]) / 2.0 if ok[lane] else 0.0
                if number < _LANES:
                    for lane in range(_LANES):
                        if ok[lane]:
                            continue
                        place = lane % places
                        data, dq, count = ramps[place], ramps_dq[place], counts[place]
                        _load(
                            sci, groupdq, zeroframe, i, y, left + lane, first, last, suppress,
                            data, dq, ramps_original[place], count,
                        )  # fmt: skip
                        start = count[3]
                        if count[0] & CHARGELOSS:
                            any_chargeloss[r] = True
                        median[r, lane] += _median_rate(
                            data, dq, start, group_time, frame_time, one_group_time, scratch
                        )  # fmt: skip

        # What a whole ramp without flags gives, apart from its slope, is the same for all integrations.
        length = float(size)
        full = (length * length * length - length) if size > 2 else 6.0
        for r in range(height):
            for lane in range(_LANES):
                g = pixel_gain[r, lane]
                median[r, lane] /= np.float64(integrations)
                each = pixel_noise[r, lane] / group_time
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
                total = 1.0 / (1.0 / (poisson + variance))
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
                    if size == 2:
                        head = sci[i, first, y, line]
                        tail = sci[i, last - 1, y, line]
                        for lane in range(_LANES):
                            slope[lane] = (np.float64(tail[lane]) - np.float64(head[lane])) / group_time
                    else:
                        _fit_line(
                            sci, i, y, line, first, size, origin, group_time, whole,
                            pixel_gain[r], pixel_noise[r], scale[r], ratio, line_sums, slope,
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
                        _load(
                            sci, groupdq, zeroframe, i, y, left + lane, first, last, suppress,
                            data, dq, original, counts[0],
                        )  # fmt: skip
                    found, _, saturated, start = counts[place]
                    g = pixel_gain[r, lane]
                    noise = pixel_noise[r, lane]
                    single_time = _single_time(start, group_time, frame_time, one_group_time)
                    flags[r, lane] |= pixel_dq[r, lane] | np.uint32(found & (JUMP_DET | PERSISTENCE))
                    bits, value, error, poisson, variance, _, _ = _fit_ramp(
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
                        total = _read_weight_with_chargeloss(
                            original, size, g, noise, group_time, single_time, starts, lengths
                        )
                        recovered[r, lane] += total
                        variance = _capped(1.0 / total)
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
                        line_rnoise[lane] = _capped(1.0 / recovered[r, lane])


# Single segments ------------------------------------------------------------------------------------------------------


@numba.njit(**_OPTIONS)
def _visit_segments(
    sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark, group_time, frame_time, nframes, suppress, first, last,
    y0, y1, x0, x1, pedestal_groups, table, fill,
    slopes, sigslopes, poissons, rnoises, yints, sigyints, pedestals, weights, crmags,
):  # fmt: skip
    """Most segments and most jumps of an integration; with ``fill``, write the fits of the segments."""
    integrations = sci.shape[0]
    size = last - first
    one_group_time = (np.float64(np.float32(nframes)) + 1.0) * frame_time / 2.0
    root = np.sqrt(2.0 * nframes)
    data = np.empty((integrations, size))
    dq = np.empty((integrations, size), np.uint8)
    original = np.empty(size, np.uint8)
    counts = np.empty((integrations, 4), np.int64)
    starts = np.empty(size, np.int64)
    lengths = np.empty(size, np.int64)
    scratch = np.empty(size)
    sums = np.empty(3)
    most_segments = 0
    most_jumps = 0
    for y in range(y0, y1):
        for x in range(x0, x1):
            g = np.float64(gain[y, x])
            noise = np.float64(np.float32(np.float64(readnoise[y, x]) * (g / root)))
            dark_rate = np.float64(dark[y, x] if dark.size > 1 else dark[0, 0])
            pixel_bits = pixeldq[y, x] if g > 0.0 else pixeldq[y, x] | np.uint32(DO_NOT_USE | NO_GAIN_VALUE)
            rate = 0.0
            for i in range(integrations):
                _load(
                    sci, groupdq, zeroframe, i, y, x, first, last, suppress, data[i], dq[i], original, counts[i]
                )  # fmt: skip
                start = counts[i, 3]
                rate += _median_rate(data[i], dq[i], start, group_time, frame_time, one_group_time, scratch)
                jumps = 0
                for group in range(1, size):
                    if dq[i, group] & JUMP_DET:
                        if fill:
                            step = data[i, group] - data[i, group - 1]
                            if group == 1 and start == 2:
                                # The jump is that of the ramp, not the one from the zero frame.
                                step = data[i, 1] - np.float64(sci[i, first, y, x])
                                if original[0] & SATURATED:
                                    step = np.nan
                            crmags[i, jumps, y, x] = step
                        jumps += 1
                most_jumps = max(most_jumps, jumps)
            rate /= np.float64(integrations)
            for i in range(integrations):
                single_time = _single_time(counts[i, 3], group_time, frame_time, one_group_time)
                bits, slope, _, _, _, count, places = _fit_ramp(
                    data[i], dq[i], counts[i], 0, pixel_bits, g, noise, dark_rate, rate, group_time, single_time,
                    table, starts, lengths, sums,
                )  # fmt: skip
                most_segments = max(most_segments, places)
                if not fill:
                    continue
                pedestal = data[i, 0] - slope * pedestal_groups
                pedestals[i, y, x] = 0.0 if bits & np.uint32(SATURATED) or np.isnan(pedestal) else pedestal
                for segment in range(count):
                    length = lengths[segment]
                    time = single_time if length == 1 else group_time
                    slope, sigslope, yint, sigyint = _fit_segment(
                        data[i], starts[segment], length, 0, g, noise, time, table
                    )
                    read = _read_variance(noise, g, length, time)
                    slopes[i, segment, y, x] = slope
                    sigslopes[i, segment, y, x] = sigslope
                    poissons[i, segment, y, x] = _poisson_variance(rate, dark_rate, g, length, time)
                    rnoises[i, segment, y, x] = read
                    yints[i, segment, y, x] = yint
                    sigyints[i, segment, y, x] = sigyint
                    weights[i, segment, y, x] = 1.0 / read
    return most_segments, most_jumps


# Public ---------------------------------------------------------------------------------------------------------------


def _native(array, kind) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=kind)


def _common(sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark_current, group_time, frame_time, nframes, suppress,
            first_group, last_group) -> tuple:  # fmt: skip
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
    common = _common(
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
    whole, table = _weight_tables(size)
    tables = int(origin), whole, table, _median_network(size - 1)
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


def fit_segments(
    sci: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    *,
    group_time: float,
    frame_time: float,
    nframes: int,
    groupgap: int = 0,
    drop_frames1: int = 0,
    zeroframe: np.ndarray | None = None,
    dark_current: np.ndarray | float = 0.0,
    suppress_one_group: bool = True,
    first_group: int = 0,
    last_group: int | None = None,
    inner: tuple[slice, slice] | None = None,
) -> Segments:
    """Fits of the single segments of every integration.

    Parameters
    ----------
    groupgap
        Frames dropped between groups.
    drop_frames1
        Frames dropped before the first group.

    Other parameters as in :func:`ramp_fit`.

    Returns
    -------
    Segments
        Their second dimension is as long as the most segments (jumps) in any integration of the pixels fitted;
        outside ``inner`` they are 0.
    """
    common = _common(
        sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark_current, group_time, frame_time, nframes,
        suppress_one_group, first_group, last_group,
    )  # fmt: skip
    rows, columns = inner or (slice(None), slice(None))
    y0, y1, _ = rows.indices(sci.shape[2])
    x0, x1, _ = columns.indices(sci.shape[3])
    pedestal_groups = ((nframes + 1) / 2.0 + drop_frames1) / (nframes + groupgap)
    arguments = (*common, y0, y1, x0, x1, pedestal_groups, _weight_tables(common[-1] - common[-2])[1])
    none, empty = np.empty((0, 0, 0), np.float32), np.empty((0, 0, 0, 0), np.float32)
    segments, jumps = _visit_segments(*arguments, False, *(empty,) * 6, none, empty, empty)
    integrations, shape = sci.shape[0], sci.shape[2:]
    result = Segments(
        *(np.zeros((integrations, segments, *shape), np.float32) for _ in range(6)),
        np.zeros((integrations, *shape), np.float32),
        np.zeros((integrations, segments, *shape), np.float32),
        np.zeros((integrations, jumps, *shape), np.float32),
    )
    _visit_segments(*arguments, True, *result)
    return result


def unused_groups(groupdq: np.ndarray, suppress_one_group: bool = False, used: slice = slice(None)) -> tuple[int, int]:
    """Number of leading groups, and of the trailing group (0 or 1), that no ramp uses.

    Parameters
    ----------
    groupdq
        uint8 (integration, group, y, x).
    suppress_one_group
        Ramps with one good group use none.
    used
        Groups that count; the others are as if they were DO_NOT_USE.

    Returns
    -------
    leading, trailing
        If no group is left, ``leading + trailing`` is the number of groups.
    """
    size = groupdq.shape[1]
    counted = range(*used.indices(size))

    def lone(ramps: np.ndarray) -> np.ndarray:
        return (
            np.count_nonzero((ramps[:, counted.start : counted.stop] & np.uint8(255 - PERSISTENCE)) == 0, axis=1) == 1
        )

    def unused(group: int) -> bool:
        if group not in counted:
            return True
        kept = (groupdq[:, group] & DO_NOT_USE) == 0
        first = tuple(np.unravel_index(np.argmax(kept), kept.shape))
        if not kept[first]:
            return True
        # one ramp tells of most groups that they are used
        ramps = np.moveaxis(groupdq, 1, -1)
        return suppress_one_group and bool(lone(ramps[first][np.newaxis])[0] and lone(ramps[kept]).all())

    leading = 0
    while leading < size and unused(leading):
        leading += 1
    return leading, int(leading < size and unused(size - 1))


@numba.njit(**_OPTIONS)
def _count_dependent(sci, groupdq, pixeldq, suppress, first, last, y0, y1, x0, x1):
    ngroups = groupdq.shape[1]
    telling = JUMP_DET | SATURATED | PERSISTENCE | CHARGELOSS
    number = 0
    for i in range(groupdq.shape[0]):
        for y in range(y0, y1):
            for x in range(x0, x1):
                bits = 0
                for group in range(first + 1):
                    bits |= groupdq[i, group, y, x]
                for group in range(last, ngroups):
                    bits |= groupdq[i, group, y, x]
                if bits & telling:
                    number += 1
                    continue
                if pixeldq[y, x] & DO_NOT_USE:
                    continue
                clear = 0
                good = 0
                for group in range(first, last):
                    clear += groupdq[i, group, y, x] == 0
                    good += (groupdq[i, group, y, x] & ~PERSISTENCE) == 0
                if not suppress and clear <= 1:
                    # Whether a lone group is group 0 decides on its time; the zero frame replaces group 0.
                    number += 1
                    continue
                if groupdq[i, first, y, x] & DO_NOT_USE or (suppress and good == 1):
                    continue
                # Without a usable difference, the first group in use stands for the rate.
                usable = False
                for group in range(first + 1, last):
                    here, before = groupdq[i, group, y, x], groupdq[i, group - 1, y, x]
                    step = sci[i, group, y, x] - sci[i, group - 1, y, x]
                    if (here | before) & (DO_NOT_USE | SATURATED) == 0 and here & JUMP_DET == 0 and not np.isnan(step):
                        usable = True
                        break
                number += not usable
    return number


def count_dependent(
    sci: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    first_group: int,
    last_group: int,
    suppress_one_group: bool = True,
    inner: tuple[slice, slice] | None = None,
) -> int:
    """Number of ramps whose results depend on whether the groups outside first_group:last_group are left out.

    These groups must be DO_NOT_USE in all pixels of ``inner``. Leaving them out or not is then the same but for the
    flags they and the first group in use carry, for ramps without any usable difference and for lone groups. Some more
    ramps may be counted.

    Parameters
    ----------
    sci, groupdq
        float32 and uint8 (integration, group, y, x).
    pixeldq
        uint32 (y, x).
    first_group, last_group, suppress_one_group, inner
        As in :func:`ramp_fit`.
    """
    rows, columns = inner or (slice(None), slice(None))
    y0, y1, _ = rows.indices(sci.shape[2])
    x0, x1, _ = columns.indices(sci.shape[3])
    return _count_dependent(sci, groupdq, pixeldq, suppress_one_group, first_group, last_group, y0, y1, x0, x1)
