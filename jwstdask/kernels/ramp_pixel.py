"""One integration of one pixel: its segments, their weighted straight lines, and what they give together.

Compiled in place where they are used (`jwstdask.kernels.ramp_fit`, `jwstdask.kernels.ramp_segments`), since calls would
take a quarter of the time of a ramp.
"""

from __future__ import annotations

from math import sqrt

import numba
import numpy as np

from jwstdask.core.dq import CHARGELOSS, DO_NOT_USE, JUMP_DET, PERSISTENCE, SATURATED
from jwstdask.kernels.compiled import INLINE, UNCOUNTED

LARGE_VARIANCE = 1.0e6
"""Variances from here on mean "unknown" and are written as 0 [(DN/s)^2]."""

POWERS = (0.0, 0.4, 1.0, 3.0, 6.0, 10.0)
"""Of the weights, by classes of signal-to-noise ratio."""


@numba.njit(**UNCOUNTED)
def weight_of(position, length, power):
    """Weight of a group in a segment before division by the squared read noise.

    Both the base and the power are float32, and so is the result.
    """
    middle = (length - 1) / 2.0
    return np.float64(np.float32(abs((position - middle) * (1.0 / middle))) ** np.float32(power))


@numba.njit(**UNCOUNTED)
def weights_of_length(length, powers, out):
    """Fill ``out`` (power, position) with the weights of segments of ``length`` groups."""
    for kind in range(powers.size):
        for position in range(length):
            out[kind, position] = weight_of(position, length, powers[kind])


@numba.njit(**INLINE)
def load(sci, groupdq, zeroframe, integration, y, x, first, last, suppress, data, dq, original, counts):
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


@numba.njit(**UNCOUNTED)
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


@numba.njit(**INLINE)
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


@numba.njit(**INLINE)
def find_segments(dq, size, starts, lengths):
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


@numba.njit(**INLINE)
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


@numba.njit(**INLINE)
def read_variance(noise, gain, length, time):
    """Variance of a slope by read noise [(DN/s)^2]; ``length`` groups, ``time`` [s] apart."""
    if length > 2 and not gain > 0.0:
        return 0.0
    each = noise / time
    length = max(float(length), 2.0)
    return 12.0 * each * each / ((length * length * length - length) * gain * gain)


@numba.njit(**INLINE)
def poisson_variance(rate, dark, gain, length, time):
    """Variance of a slope by photon noise [(DN/s)^2]; ``rate`` [DN/s] counts if positive."""
    scale = time * gain * max(length - 1.0, 1.0)
    return (rate + dark) / scale if rate > 0.0 else dark / scale


@numba.njit(**INLINE)
def fit_segment(data, start, length, origin, gain, noise, time, table):
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
            weight = weight_of(position, length, POWERS[kind]) * scale
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


@numba.njit(**UNCOUNTED)
def read_weight_with_chargeloss(original, size, gain, noise, group_time, single_time, starts, lengths):
    """Sum of inverse read-noise variances with the groups given up to charge migration taken back."""
    for group in range(size):
        if original[group] & CHARGELOSS:
            original[group] ^= DO_NOT_USE | CHARGELOSS
    count, _ = find_segments(original, size, starts, lengths)
    total = 0.0
    for segment in range(count):
        time = single_time if lengths[segment] == 1 else group_time
        variance = read_variance(noise, gain, lengths[segment], time)
        if variance > 0.0:
            total += 1.0 / variance
    return total


@numba.njit(**INLINE)
def capped(variance):
    return 0.0 if variance >= LARGE_VARIANCE else variance


@numba.njit(**INLINE)
def add_segment(slope, length, gain, noise, dark, rate, time, sums):
    """Add slope / var_rnoise, 1 / var_poisson, 1 / var_rnoise and 1 / (their sum) of a segment to ``sums``."""
    read = read_variance(noise, gain, length, time)
    poisson = poisson_variance(rate, dark, gain, length, time)
    sums[0] += slope / read
    if poisson > 0.0:
        sums[1] += 1.0 / poisson
    sums[2] += 1.0 / read
    sums[3] += 1.0 / (poisson + read)


@numba.njit(**INLINE)
def fit_ramp(
    data, dq, counts, origin, pixel_dq, gain, noise, dark, rate, group_time, single_time, table, starts, lengths, sums
):
    """Fit one integration of one pixel.

    Returns
    -------
    bits
        Flags of the integration, before it is marked as partly saturated.
    slope, error, var_poisson, var_rnoise
        Results of the integration; ``sums`` gets those of :func:`add_segment`.
    count
        Number of segments in ``starts`` and ``lengths``.
    places
        See :func:`find_segments`.
    """
    bits = pixel_dq | np.uint32(counts[0] & (JUMP_DET | PERSISTENCE))
    count = 0
    places = 0
    if dq[0] & SATURATED:
        bits |= np.uint32(DO_NOT_USE | SATURATED)
    else:
        count, places = find_segments(dq, dq.size, starts, lengths)
    if counts[1] == dq.size:
        bits |= np.uint32(DO_NOT_USE)
        if counts[2] == dq.size:
            bits |= np.uint32(SATURATED)
        count = 0
    sums[:] = 0.0
    for segment in range(count):
        length = lengths[segment]
        time = single_time if length == 1 else group_time
        slope, _, _, _ = fit_segment(data, starts[segment], length, origin, gain, noise, time, table)
        add_segment(slope, length, gain, noise, dark, rate, time, sums)
    slope = 0.0
    error = 0.0
    poisson = 0.0
    read = 0.0
    if bits & np.uint32(DO_NOT_USE | SATURATED):
        slope = np.nan
    elif count > 0:
        if sums[1] > 0.0:
            poisson = capped(1.0 / sums[1])
        read = capped(1.0 / sums[2])
        slope = sums[0] * read
        variance = 1.0 / sums[3]
        error = 0.0 if variance > LARGE_VARIANCE else np.sqrt(variance)
    return bits, slope, error, poisson, read, count, places


@numba.njit(**INLINE)
def time_of_single(start, group_time, frame_time, one_group_time):
    """Exposure of a lone group: half way through group 0, the zero frame, or a whole group."""
    return one_group_time if start == 1 else (frame_time if start == 2 else group_time)


@numba.njit(**INLINE)
def median_rate(data, dq, start, group_time, frame_time, one_group_time, scratch):
    """Rate of one integration by its median difference [DN/s], 0 if there is none."""
    if dq.size == 1:
        return data[0] / one_group_time
    if start > 0:
        value = data[0] / time_of_single(start, group_time, frame_time, one_group_time)
    else:
        value = _median_difference(data, dq, dq.size, group_time, scratch)
    return 0.0 if np.isnan(value) else value
