"""Cosmic-ray jumps in ramps by the two-point difference method.

Source: Anderson & Gordon 2011 (PASP 123, 1237), as the JWST pipeline applies it: JWST pipeline documentation, "jump". A
difference of two neighbouring groups is a jump if it lies too many sigma from the median difference of its pixel,

    |difference - median| > threshold * sigma,      sigma^2 = |median| + readnoise^2 / nframes      [electrons]

in one of three regimes, chosen once an exposure from counts over the whole frame (:func:`choose_regime`):

``iterative``
    Few differences. The largest outlier of the absolute differences is removed, the median (which leaves out the
    largest difference while four or more remain) and sigma are taken again, until nothing exceeds the threshold.
``single_pass``
    Many differences: one median, one sigma, one look at every difference.
``sigma_clip``
    Many integrations: each difference is compared with the same difference of the other integrations by sigma clipping
    about the median (at most five rounds), without a noise model.

Arithmetic: differences are float32, sigma and the test are float64; the flags depend on it to the last bit. In the
iterative regime the deviation from the median, and the median itself from the second round on, are rounded to float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numba
import numpy as np

from jwstdask.core.dq import DO_NOT_USE, JUMP_DET, SATURATED

ITERATIVE, SINGLE_PASS, SIGMA_CLIP, NONE = "iterative", "single_pass", "sigma_clip", "none"
"""The regimes; ``none`` means too few usable groups to search at all."""

_UNUSABLE = np.uint8(DO_NOT_USE | SATURATED)
_JUMP = np.uint8(JUMP_DET)
_NAN = np.float32(np.nan)
_INF = np.float32(np.inf)
_LONG = 256  # groups of a pixel, all integrations together, that make a ramp long
_SAMPLE_LOW = 24  # the lower end of the bracket in the sorted sample; the upper end lies opposite
_SAMPLE = 63  # values of a long column from which its median is bracketed
_BUFFER = 8192  # float32 values of a sort buffer: it must stay in the first-level cache


@dataclass(frozen=True)
class Detection:
    """Constants of the search, the same for all pixels of an exposure.

    Attributes
    ----------
    regime
        ``iterative``, ``single_pass``, ``sigma_clip`` or ``none``, see :func:`choose_regime`.
    nframes
        Frames averaged in a group; read noise is that of a correlated double sample.
    rejection_threshold, four_group_rejection_threshold, three_group_rejection_threshold
        Thresholds [sigma] for four or more, three, and two usable differences.
    flag_4_neighbors, min_jump_to_flag_neighbors, max_jump_to_flag_neighbors
        Whether the four neighbours of a jump are flagged too, and between which sizes [sigma] of the jump.
    after_jump_electrons, after_jump_groups
        Twice: jumps of at least so many electrons are followed by so many flagged groups.
    only_use_ints
        Sigma clipping compares the same difference of all integrations; if False, all differences of a pixel.
    """

    regime: str
    nframes: int
    rejection_threshold: float = 4.0
    four_group_rejection_threshold: float = 5.0
    three_group_rejection_threshold: float = 6.0
    flag_4_neighbors: bool = True
    min_jump_to_flag_neighbors: float = 10.0
    max_jump_to_flag_neighbors: float = 1000.0
    after_jump_electrons: tuple[float, float] = (0.0, 0.0)
    after_jump_groups: tuple[int, int] = (0, 0)
    only_use_ints: bool = True


def choose_regime(
    ngroups: int,
    unusable_groups: np.ndarray,
    *,
    min_diffs_single_pass: int,
    minimum_sigclip_groups: int,
    only_use_ints: bool,
    minimum_groups: int = 3,
) -> str:
    """How an exposure is searched for jumps.

    Parameters
    ----------
    ngroups
        Groups of an integration.
    unusable_groups
        (integration,) number of groups in which *every* pixel of the frame is DO_NOT_USE.
    min_diffs_single_pass, minimum_sigclip_groups, only_use_ints, minimum_groups
        See the parameters of the step.

    Returns
    -------
    regime
        ``iterative``, ``single_pass``, ``sigma_clip`` or ``none``.
    """
    nints = len(unusable_groups)
    usable = ngroups - int(np.max(unusable_groups))
    if (nints if only_use_ints else nints * ngroups - int(np.sum(unusable_groups))) >= minimum_sigclip_groups:
        return SIGMA_CLIP
    if usable < minimum_groups:
        return NONE
    return SINGLE_PASS if usable - 1 >= min_diffs_single_pass else ITERATIVE


@numba.njit(cache=True, nogil=True)
def _exchange(lower, upper):
    for index in range(lower.size):
        first = lower[index]
        second = upper[index]
        lower[index] = first if first < second else second
        upper[index] = second if first < second else first


@numba.njit(cache=True, nogil=True)
def sort_columns(keys, count, lanes):
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
def _load_differences(sci, groupdq, gain, y, x, lanes, absolute, keys, previous, usable, flags):
    # One row of `lanes` pixels: differences of all integrations, unusable ones as +inf so that they sort last.
    scale = gain[y, x : x + lanes]
    usable[:] = 0
    flags[:] = 0
    row = 0
    for integration in range(sci.shape[0]):
        for group in range(sci.shape[1]):
            values = sci[integration, group, y, x : x + lanes]
            dq = groupdq[integration, group, y, x : x + lanes]
            if group == 0:
                for lane in range(lanes):
                    flags[lane] |= dq[lane]
                    value = values[lane] * scale[lane]
                    previous[lane] = _NAN if dq[lane] & _UNUSABLE else value
                continue
            target = keys[row * lanes : (row + 1) * lanes]
            if absolute:
                for lane in range(lanes):
                    flags[lane] |= dq[lane]
                    value = values[lane] * scale[lane]
                    value = _NAN if dq[lane] & _UNUSABLE else value
                    difference = abs(value - previous[lane])
                    previous[lane] = value
                    good = difference == difference
                    target[lane] = difference if good else _INF
                    usable[lane] += np.int32(good)
            else:
                for lane in range(lanes):
                    flags[lane] |= dq[lane]
                    value = values[lane] * scale[lane]
                    value = _NAN if dq[lane] & _UNUSABLE else value
                    difference = value - previous[lane]
                    previous[lane] = value
                    good = difference == difference
                    target[lane] = difference if good else _INF
                    usable[lane] += np.int32(good)
            row += 1


@numba.njit(cache=True, nogil=True)
def _middle(keys, first, stride, low, high):
    # Median of the sorted column entries low..high-1.
    half = (low + high) // 2
    if (high - low) % 2:
        return np.float64(keys[first + half * stride])
    return (np.float64(keys[first + (half - 1) * stride]) + np.float64(keys[first + half * stride])) / 2.0


@numba.njit(cache=True, nogil=True)
def _peel(keys, first, stride, usable, noise, threshold, threshold3, threshold2):
    # Sorted absolute differences of a pixel; entries low..high-1 survive the removal of outliers from both ends.
    low = 0
    high = usable
    rounds = 0
    while high - low >= 2:
        top = keys[first + (high - 1) * stride]
        if high - low >= 4:
            limit = threshold
            below_top = high
            while below_top > low and keys[first + (below_top - 1) * stride] == top:
                below_top -= 1
            if below_top == low:
                break
            median = _middle(keys, first, stride, low, below_top)
        elif high - low == 3:
            limit = threshold3
            median = np.float64(keys[first + (low + 1) * stride])
        else:
            limit = threshold2
            median = np.float64(keys[first + low * stride])
        if rounds > 0:
            median = np.float64(np.float32(median))
        sigma = np.sqrt(abs(median) + noise)
        above = abs(np.float32(np.float64(top) - median))
        below = abs(np.float32(np.float64(keys[first + low * stride]) - median))
        worst = above if above > below else below
        # No noise at all is no evidence; a comparison with NaN is False as well.
        if sigma == 0.0 or not np.float64(worst) / sigma > limit:
            break
        while high > low and abs(np.float32(np.float64(keys[first + (high - 1) * stride]) - median)) == worst:
            high -= 1
        while low < high and abs(np.float32(np.float64(keys[first + low * stride]) - median)) == worst:
            low += 1
        rounds += 1
    return low, high


@numba.njit(cache=True, nogil=True)
def _search_iterative(sci, groupdq, gain, noise, threshold, threshold3, threshold2, hit):
    nints, ngroups, ny, nx = sci.shape
    count = nints * (ngroups - 1)
    width = min(max(_BUFFER // count // 16 * 16, 32), 256)
    keys = np.empty(count * width, np.float32)
    previous = np.empty(width, np.float32)
    usable = np.empty(width, np.int32)
    flags = np.empty(width, np.uint8)
    for y in range(ny):
        for x in range(0, nx, width):
            lanes = min(width, nx - x)
            _load_differences(sci, groupdq, gain, y, x, lanes, True, keys, previous, usable, flags)
            sort_columns(keys, count, lanes)
            for lane in range(lanes):
                if flags[lane] & _JUMP:
                    hit[y, x + lane] = 2
                number = usable[lane]
                if number < 2:
                    continue
                # A cheap test that never misses a jump; the exact one follows for the few that pass.
                top = np.float64(keys[(number - 1) * lanes + lane])
                if number >= 4:
                    limit = threshold
                    median = _middle(keys, lane, lanes, 0, number - 1)
                else:
                    limit = threshold3 if number == 3 else threshold2
                    median = np.float64(keys[(number - 2) * lanes + lane])
                worst = max(top - median, median - np.float64(keys[lane]))
                tie = number >= 4 and keys[(number - 2) * lanes + lane] == top
                if not tie and worst * worst < limit * limit * (median + noise[y, x + lane]) * 0.99999:
                    continue
                low, high = _peel(keys, lane, lanes, number, noise[y, x + lane], threshold, threshold3, threshold2)
                if low == 0 and high == number:
                    continue
                hit[y, x + lane] |= 1
                least = keys[low * lanes + lane] if high > low else _INF
                greatest = keys[(high - 1) * lanes + lane] if high > low else -_INF
                for integration in range(nints):
                    before = _NAN
                    for group in range(ngroups):
                        value = sci[integration, group, y, x + lane] * gain[y, x + lane]
                        if groupdq[integration, group, y, x + lane] & _UNUSABLE:
                            value = _NAN
                        difference = abs(value - before)
                        if difference > greatest or difference < least:
                            groupdq[integration, group, y, x + lane] |= _JUMP
                        before = value


@numba.njit(cache=True, nogil=True)
def _search_single_pass(sci, groupdq, gain, noise, threshold, hit):
    nints, ngroups, ny, nx = sci.shape
    count = nints * (ngroups - 1)
    width = min(max(_BUFFER // count // 16 * 16, 32), 256)
    keys = np.empty(count * width, np.float32)
    previous = np.empty(width, np.float32)
    usable = np.empty(width, np.int32)
    flags = np.empty(width, np.uint8)
    for y in range(ny):
        for x in range(0, nx, width):
            lanes = min(width, nx - x)
            _load_differences(sci, groupdq, gain, y, x, lanes, False, keys, previous, usable, flags)
            sort_columns(keys, count, lanes)
            for lane in range(lanes):
                if flags[lane] & _JUMP:
                    hit[y, x + lane] = 2
                number = usable[lane]
                if number == 0:
                    continue
                median = _middle(keys, lane, lanes, 0, number)
                worst = max(np.float64(keys[(number - 1) * lanes + lane]) - median, median - np.float64(keys[lane]))
                variance = abs(median) + noise[y, x + lane]
                if worst * worst < threshold * threshold * variance * 0.99999:
                    continue
                sigma = np.sqrt(variance)
                if sigma == 0.0:
                    continue
                for integration in range(nints):
                    before = _NAN
                    for group in range(ngroups):
                        value = sci[integration, group, y, x + lane] * gain[y, x + lane]
                        if groupdq[integration, group, y, x + lane] & _UNUSABLE:
                            value = _NAN
                        difference = value - before
                        ratio = abs(np.float64(difference) - median) / sigma
                        if ratio > threshold and abs(difference) < _INF:
                            groupdq[integration, group, y, x + lane] |= _JUMP
                            hit[y, x + lane] |= 1
                        before = value


@numba.njit(cache=True, nogil=True)
def _select(values, count, rank):
    # Hoare's FIND: values[rank] becomes what it would be in sorted order; the others are permuted.
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
def _median(values, count):
    if count % 2:
        return _select(values, count, count // 2)
    upper = _select(values, count, count // 2)
    return 0.5 * (upper + _select(values, count, count // 2 - 1))


@numba.njit(cache=True, nogil=True)
def _clip_bounds(values, count, threshold):
    # Sigma clipping about the median, sums in the order the values stand in (the median permutes them): the bounds
    # are reproducible to the last bit. `values` is overwritten.
    lower = np.nan
    upper = np.nan
    for _ in range(5):
        if count == 0:
            break
        mean = 0.0
        for index in range(count):
            mean += values[index]
        mean /= count
        square = 0.0
        for index in range(count):
            square += (mean - values[index]) * (mean - values[index])
        sigma = np.sqrt(square / count)
        median = _median(values, count)
        lower = median - threshold * sigma
        upper = median + threshold * sigma
        kept = 0
        for index in range(count):
            if values[index] >= lower and values[index] <= upper:
                values[kept] = values[index]
                kept += 1
        if kept == count:
            break
        count = kept
    return lower, upper


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _clip_few(values, dropped, count, inside, total, square, centre, low, high, edges, below, above, threshold):
    # Sigma clipping of a column of which only `count` values can be clipped: `inside` others lie between `edges`, with
    # the sum `total` and sum of squares `square` about `centre`. The median lies between `low` and `high` as long as
    # not too many values lie outside of those (`below`, `above`). Marks what is clipped in `dropped`; False if this
    # knowledge does not decide it. The margin is far above rounding errors.
    dropped[:count] = False
    sigma = 0.0
    margin = 0.0
    for _ in range(5):
        number = inside
        shift = total
        spread = square
        for index in range(count):
            if not dropped[index]:
                offset = np.float64(values[index]) - centre
                number += 1
                shift += offset
                spread += offset * offset
        if below > (number - 1) // 2 or above > (number - 1) // 2:
            return False
        mean = shift / number
        sigma = threshold * np.sqrt(max(spread / number - mean * mean, 0.0))
        margin = 1e-7 * sigma + 1e-12 * (abs(low) + abs(high))
        if not (high - sigma + margin < edges[0] and low + sigma - margin > edges[1]):
            return False
        changed = False
        for index in range(count):
            if not dropped[index]:
                value = np.float64(values[index])
                if value < low - sigma - margin or value > high + sigma + margin:
                    dropped[index] = True
                    changed = True
                elif not (value > high - sigma + margin and value < low + sigma - margin):
                    return False
        if not changed:
            break
    # The last bounds judge all values, also those dropped earlier.
    for index in range(count):
        value = np.float64(values[index])
        if value < low - sigma - margin or value > high + sigma + margin:
            dropped[index] = True
        elif value > high - sigma + margin and value < low + sigma - margin:
            dropped[index] = False
        else:
            return False
    return True


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _search_sigma_clip(sci, groupdq, gain, threshold, together, hit):
    # Values near the middle of a column can neither be clipped nor need they be sorted: their sums are taken in one
    # vectorised pass, and what is clipped of the few others is decided from those sums and from a bracket of the
    # median (two order statistics of a sample). Where that does not decide, `_clip_bounds` does.
    nints, ngroups, ny, nx = sci.shape
    rows = nints * (ngroups - 1) if together else nints
    width = 64
    most = 64
    values = np.empty(rows * width, np.float32)
    sample = np.empty(_SAMPLE * width, np.float32)
    column = np.empty(rows, np.float64)
    number = np.empty(width, np.int32)
    inside = np.empty(width, np.int32)
    below = np.empty(width, np.int32)
    above = np.empty(width, np.int32)
    total = np.empty(width, np.float64)
    square = np.empty(width, np.float64)
    centre = np.empty(width, np.float64)
    low_edge = np.empty(width, np.float32)
    high_edge = np.empty(width, np.float32)
    few = np.empty((width, most), np.float32)
    few_rows = np.empty((width, most), np.int32)
    few_count = np.empty(width, np.int32)
    dropped = np.empty(most, np.bool_)
    for y in range(ny):
        for x in range(0, nx, width):
            lanes = min(width, nx - x)
            scale = gain[y, x : x + lanes]
            for start in range(1, 2 if together else ngroups):
                number[:] = 0
                row = 0
                for integration in range(nints):
                    for group in range(start, ngroups if together else start + 1):
                        values0 = sci[integration, group - 1, y, x : x + lanes]
                        values1 = sci[integration, group, y, x : x + lanes]
                        dq0 = groupdq[integration, group - 1, y, x : x + lanes]
                        dq1 = groupdq[integration, group, y, x : x + lanes]
                        target = values[row * lanes : (row + 1) * lanes]
                        for lane in range(lanes):
                            difference = values1[lane] * scale[lane] - values0[lane] * scale[lane]
                            good = (((dq0[lane] | dq1[lane]) & _UNUSABLE) == 0) and abs(difference) < _INF
                            target[lane] = difference if good else _INF
                            number[lane] += np.int32(good)
                        row += 1
                for index in range(_SAMPLE):
                    row = index * rows // _SAMPLE
                    sample[index * lanes : (index + 1) * lanes] = values[row * lanes : (row + 1) * lanes]
                sort_columns(sample, _SAMPLE, lanes)
                low = sample[_SAMPLE_LOW * lanes : (_SAMPLE_LOW + 1) * lanes]
                high = sample[(_SAMPLE - 1 - _SAMPLE_LOW) * lanes : (_SAMPLE - _SAMPLE_LOW) * lanes]
                for lane in range(lanes):
                    # About 2.6 sigma from the centre for Gaussian noise.
                    reach = np.float32(4.0) * (high[lane] - low[lane])
                    low_edge[lane] = low[lane] - reach
                    high_edge[lane] = high[lane] + reach
                    centre[lane] = 0.5 * (np.float64(low[lane]) + np.float64(high[lane]))
                inside[:] = 0
                below[:] = 0
                above[:] = 0
                total[:] = 0.0
                square[:] = 0.0
                few_count[:] = 0
                for row in range(rows):
                    target = values[row * lanes : (row + 1) * lanes]
                    outside = np.int32(0)
                    for lane in range(lanes):
                        value = target[lane]
                        near = value >= low_edge[lane] and value <= high_edge[lane]
                        offset = np.float64(value) - centre[lane]
                        offset = offset if near else 0.0
                        total[lane] += offset
                        square[lane] += offset * offset
                        inside[lane] += np.int32(near)
                        outside += np.int32(not near)
                        below[lane] += np.int32(value < low[lane])
                        above[lane] += np.int32(value > high[lane])
                    if outside:
                        for lane in range(lanes):
                            value = target[lane]
                            if value < _INF and not (value >= low_edge[lane] and value <= high_edge[lane]):
                                if few_count[lane] < most:
                                    few[lane, few_count[lane]] = value
                                    few_rows[lane, few_count[lane]] = row
                                few_count[lane] += 1
                for lane in range(lanes):
                    if number[lane] == 0:
                        continue
                    if few_count[lane] <= most and _clip_few(
                        few[lane],
                        dropped,
                        few_count[lane],
                        inside[lane],
                        total[lane],
                        square[lane],
                        centre[lane],
                        np.float64(low[lane]),
                        np.float64(high[lane]),
                        (np.float64(low_edge[lane]), np.float64(high_edge[lane])),
                        below[lane],
                        above[lane] - (rows - number[lane]),
                        threshold,
                    ):
                        for index in range(few_count[lane]):
                            if dropped[index]:
                                integration = few_rows[lane, index] // (ngroups - 1 if together else 1)
                                group = few_rows[lane, index] % (ngroups - 1) + 1 if together else start
                                groupdq[integration, group, y, x + lane] |= _JUMP
                                hit[y, x + lane] |= 1
                        continue
                    count = 0
                    for row in range(rows):
                        value = values[row * lanes + lane]
                        if value < _INF:
                            column[count] = value
                            count += 1
                    lower, upper = _clip_bounds(column, count, threshold)
                    row = 0
                    for integration in range(nints):
                        for group in range(start, ngroups if together else start + 1):
                            value = np.float64(values[row * lanes + lane])
                            if value < np.inf and (value < lower or value > upper):
                                groupdq[integration, group, y, x + lane] |= _JUMP
                                hit[y, x + lane] |= 1
                            row += 1


@numba.njit(cache=True, nogil=True)
def _mark_flagged(groupdq, hit):
    # Pixels that came with JUMP_DET already set.
    for integration in range(groupdq.shape[0]):
        for group in range(groupdq.shape[1]):
            for y in range(groupdq.shape[2]):
                for x in range(groupdq.shape[3]):
                    hit[y, x] |= np.uint8((groupdq[integration, group, y, x] & _JUMP) >> 1)


@numba.njit(cache=True, nogil=True)
def _pixel_differences(sci, groupdq, gain, y, x, differences, scratch):
    # Differences of one pixel (NaN where unusable) and their median; NaN if there is none.
    ngroups = sci.shape[1]
    count = 0
    for integration in range(sci.shape[0]):
        before = _NAN
        for group in range(ngroups):
            value = sci[integration, group, y, x] * gain[y, x]
            if groupdq[integration, group, y, x] & _UNUSABLE:
                value = _NAN
            difference = value - before
            differences[integration, group] = difference
            before = value
            if group > 0 and difference == difference:
                scratch[count] = difference
                count += 1
    return _median(scratch, count) if count else np.nan


@numba.njit(cache=True, nogil=True)
def _append(sources, count, integration, group, y, x):
    if count == len(sources):
        larger = np.empty((2 * count, 4), np.int32)
        larger[:count] = sources
        sources = larger
    sources[count, 0] = integration
    sources[count, 1] = group
    sources[count, 2] = y
    sources[count, 3] = x
    return sources, count + 1


@numba.njit(cache=True, nogil=True)
def _find_sources(sci, groupdq, gain, noise, lowest, highest, hit):
    # Jumps whose neighbours are to be flagged, as (integration, group, y, x).
    nints, ngroups, ny, nx = sci.shape
    differences = np.empty((nints, ngroups), np.float32)
    scratch = np.empty(nints * ngroups, np.float32)
    sources = np.empty((256, 4), np.int32)
    count = 0
    for y in range(ny):
        for x in range(nx):
            if not hit[y, x]:
                continue
            median = _pixel_differences(sci, groupdq, gain, y, x, differences, scratch)
            sigma = np.sqrt(abs(median) + noise[y, x])
            if sigma == 0.0:
                continue
            for integration in range(nints):
                for group in range(1, ngroups):
                    if groupdq[integration, group, y, x] & _JUMP:
                        ratio = abs(np.float64(differences[integration, group]) - median) / sigma
                        if ratio < highest and ratio > lowest:
                            sources, count = _append(sources, count, integration, group, y, x)
    return sources[:count]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _find_sources_in_long_ramps(sci, groupdq, gain, noise, lowest, highest, hit):
    # The same where a pixel has very many differences: two order statistics of a sample bracket the median (proved by
    # counting), which decides nearly every jump; the exact median is taken for the others only.
    nints, ngroups, ny, nx = sci.shape
    rows = nints * (ngroups - 1)
    width = 32
    keys = np.empty(rows * width, np.float32)
    sample = np.empty(_SAMPLE * width, np.float32)
    previous = np.empty(width, np.float32)
    usable = np.empty(width, np.int32)
    flags = np.empty(width, np.uint8)
    below = np.empty(width, np.int32)
    above = np.empty(width, np.int32)
    exact = np.empty(width, np.float64)
    differences = np.empty((nints, ngroups), np.float32)
    scratch = np.empty(nints * ngroups, np.float32)
    sources = np.empty((256, 4), np.int32)
    count = 0
    for y in range(ny):
        for x in range(0, nx, width):
            lanes = min(width, nx - x)
            if not np.any(hit[y, x : x + lanes]):
                continue
            _load_differences(sci, groupdq, gain, y, x, lanes, False, keys, previous, usable, flags)
            for index in range(_SAMPLE):
                row = index * rows // _SAMPLE
                sample[index * lanes : (index + 1) * lanes] = keys[row * lanes : (row + 1) * lanes]
            sort_columns(sample, _SAMPLE, lanes)
            low = sample[_SAMPLE_LOW * lanes : (_SAMPLE_LOW + 1) * lanes]
            high = sample[(_SAMPLE - 1 - _SAMPLE_LOW) * lanes : (_SAMPLE - _SAMPLE_LOW) * lanes]
            below[:] = 0
            above[:] = 0
            exact[:] = np.nan
            for row in range(rows):
                key = keys[row * lanes : (row + 1) * lanes]
                for lane in range(lanes):
                    below[lane] += np.int32(key[lane] < low[lane])
                    above[lane] += np.int32(key[lane] > high[lane])
            for integration in range(nints):
                for group in range(1, ngroups):
                    dq = groupdq[integration, group, y, x : x + lanes]
                    found = np.uint8(0)
                    for lane in range(lanes):
                        found |= dq[lane]
                    if not found & _JUMP:
                        continue
                    for lane in range(lanes):
                        if not dq[lane] & _JUMP:
                            continue
                        difference = np.float64(keys[(integration * (ngroups - 1) + group - 1) * lanes + lane])
                        if not difference < np.inf:
                            continue
                        number = usable[lane]
                        unusable = rows - number
                        least = np.float64(low[lane])
                        greatest = np.float64(high[lane])
                        margin = 1e-6
                        if below[lane] <= (number - 1) // 2 and above[lane] - unusable <= (number - 1) // 2:
                            larger = max(abs(least), abs(greatest))
                            smaller = 0.0 if least <= 0.0 <= greatest else min(abs(least), abs(greatest))
                            nearest = max(max(difference - greatest, least - difference), 0.0)
                            farthest = max(abs(difference - least), abs(difference - greatest))
                            at_least = nearest / np.sqrt(larger + noise[y, x + lane])
                            at_most = farthest / np.sqrt(smaller + noise[y, x + lane])
                            if at_most < lowest * (1.0 - margin) or at_least > highest * (1.0 + margin):
                                continue
                            if at_least > lowest * (1.0 + margin) and at_most < highest * (1.0 - margin):
                                sources, count = _append(sources, count, integration, group, y, x + lane)
                                continue
                        if exact[lane] != exact[lane]:
                            exact[lane] = _pixel_differences(sci, groupdq, gain, y, x + lane, differences, scratch)
                        sigma = np.sqrt(abs(exact[lane]) + noise[y, x + lane])
                        ratio = abs(difference - exact[lane]) / sigma
                        if sigma != 0.0 and ratio < highest and ratio > lowest:
                            sources, count = _append(sources, count, integration, group, y, x + lane)
    return sources[:count]


@numba.njit(cache=True, nogil=True)
def _flag_neighbors(groupdq, sources):
    ny, nx = groupdq.shape[2:]
    for index in range(len(sources)):
        integration, group, y, x = sources[index]
        for side in range(4):
            row = y + (side == 0) - (side == 1)
            column = x + (side == 2) - (side == 3)
            if 0 <= row < ny and 0 <= column < nx and not groupdq[integration, group, row, column] & _UNUSABLE:
                groupdq[integration, group, row, column] |= _JUMP


@numba.njit(cache=True, nogil=True)
def _flag_after(sci, groupdq, gain, electrons1, groups1, electrons2, groups2):
    nints, ngroups, ny, nx = sci.shape
    differences = np.empty((nints, ngroups), np.float32)
    scratch = np.empty(nints * ngroups, np.float32)
    for y in range(ny):
        for x in range(nx):
            found = np.uint8(0)
            for integration in range(nints):
                for group in range(1, ngroups):
                    found |= groupdq[integration, group, y, x]
            if not found & _JUMP:
                continue
            median = _pixel_differences(sci, groupdq, gain, y, x, differences, scratch)
            for integration in range(nints):
                # From the last group back: flags set here must not count as jumps.
                for group in range(ngroups - 1, 0, -1):
                    if not groupdq[integration, group, y, x] & _JUMP:
                        continue
                    size = np.float64(differences[integration, group]) - median
                    reach = 0
                    if size >= electrons1:
                        reach = groups1
                    if size >= electrons2:
                        reach = max(reach, groups2)
                    for later in range(group + 1, min(group + reach + 1, ngroups)):
                        if not groupdq[integration, later, y, x] & _UNUSABLE:
                            groupdq[integration, later, y, x] |= _JUMP


@numba.njit(cache=True, nogil=True)
def _count_flagged(groupdq, hit):
    count = 0
    for y in range(hit.shape[0]):
        for x in range(hit.shape[1]):
            if hit[y, x]:
                for integration in range(groupdq.shape[0]):
                    for group in range(groupdq.shape[1]):
                        count += (groupdq[integration, group, y, x] & _JUMP) != 0
    return count


@numba.njit(cache=True, nogil=True)
def _drop_redundant(groupdq, hit):
    for y in range(hit.shape[0]):
        for x in range(hit.shape[1]):
            if hit[y, x] & 2:
                for integration in range(groupdq.shape[0]):
                    for group in range(groupdq.shape[1]):
                        if groupdq[integration, group, y, x] & _UNUSABLE:
                            groupdq[integration, group, y, x] &= ~_JUMP


@numba.njit(cache=True, nogil=True)
def _all_have(plane, bits):
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            if not plane[y, x] & bits:
                return False
    return True


@numba.njit(cache=True, nogil=True)
def _whole_planes(groupdq, bits, whole):
    for integration in range(groupdq.shape[0]):
        for group in range(groupdq.shape[1]):
            whole[integration, group] = _all_have(groupdq[integration, group], bits)


def whole_planes(groupdq: np.ndarray, bits: int) -> np.ndarray:
    """Planes in which every pixel has at least one of some flags.

    Parameters
    ----------
    groupdq
        uint8 (integration, group, y, x).
    bits
        Group flags.

    Returns
    -------
    whole
        bool (integration, group).
    """
    whole = np.empty(groupdq.shape[:2], bool)
    _whole_planes(np.asarray(groupdq), np.uint8(bits), whole)
    return whole


def detect_jumps(
    sci: np.ndarray,
    groupdq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    detection: Detection,
    *,
    out: np.ndarray | None = None,
    inner: tuple[slice, slice] = (slice(None), slice(None)),
    cleared: Iterable[tuple[int, int]] | None = (),
) -> tuple[np.ndarray, int, np.ndarray]:
    """Flag jumps, their neighbours and the groups after them.

    Pixels depend on their four neighbours: a tile needs a halo of one pixel for the flags of its inner part.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    groupdq
        uint8 (integration, group, y, x). Groups with DO_NOT_USE or SATURATED take no part and are never flagged; an
        earlier JUMP_DET is kept, except there.
    gain
        float32 (y, x) [electron/DN].
    readnoise
        float32 (y, x) [DN], of a difference of two single frames.
    detection
        The constants of the search.
    out
        uint8 array for the flags; may be ``groupdq`` itself.
    inner
        The part of the tile over which primary jumps are counted.
    cleared
        Planes (integration, group) whose jumps are dropped after sigma clipping, because every pixel of the *frame* was
        flagged or unusable there. None: judge from these arrays, which are then the whole frame.

    Returns
    -------
    out, primary, flooded
        The flags, the number of flagged (integration, group, pixel) before neighbours are added, and bool
        (integration, group), True where all pixels of ``inner`` were JUMP_DET or DO_NOT_USE after sigma clipping
        (all False in the other regimes).
    """
    if out is None:
        out = groupdq.copy()
    elif out is not groupdq:
        out[...] = groupdq
    flags = np.ascontiguousarray(out)
    sci = np.ascontiguousarray(sci, np.float32)
    gain = np.ascontiguousarray(gain, np.float32)
    scaled = np.asarray(readnoise, np.float32) * gain
    with np.errstate(over="ignore"):
        noise = (scaled * scaled).astype(np.float64) / (0.5 * (2.0 * detection.nframes))
    hit = np.zeros(sci.shape[2:], np.uint8)
    threshold = float(detection.rejection_threshold)
    nints, ngroups = sci.shape[:2]
    flooded = np.zeros((nints, ngroups), bool)

    if ngroups < 2 or detection.regime == NONE:
        _mark_flagged(flags, hit)
    elif detection.regime == ITERATIVE:
        threshold3 = float(detection.four_group_rejection_threshold)
        threshold2 = float(detection.three_group_rejection_threshold)
        _search_iterative(sci, flags, gain, noise, threshold, threshold3, threshold2, hit)
    elif detection.regime == SINGLE_PASS:
        _search_single_pass(sci, flags, gain, noise, threshold, hit)
    else:
        _mark_flagged(flags, hit)
        _search_sigma_clip(sci, flags, gain, threshold, not detection.only_use_ints, hit)
        flooded = whole_planes(flags[:, :, inner[0], inner[1]], JUMP_DET | DO_NOT_USE)
        for integration, group in np.argwhere(flooded) if cleared is None else cleared:
            plane = flags[integration, group]
            plane[plane == JUMP_DET] = 0

    primary = _count_flagged(flags[:, :, inner[0], inner[1]], hit[inner])
    if detection.regime != NONE and ngroups > 1:
        if detection.flag_4_neighbors:
            lowest, highest = float(detection.min_jump_to_flag_neighbors), float(detection.max_jump_to_flag_neighbors)
            find = _find_sources if nints * ngroups <= _LONG else _find_sources_in_long_ramps
            # All sources before the first flag: a flagged neighbour is not itself a source.
            _flag_neighbors(flags, find(sci, flags, gain, noise, lowest, highest, hit))
        if max(detection.after_jump_groups) > 0:
            (electrons1, electrons2), (groups1, groups2) = detection.after_jump_electrons, detection.after_jump_groups
            _flag_after(sci, flags, gain, float(electrons1), groups1, float(electrons2), groups2)
    _drop_redundant(flags, hit)
    if flags is not out:
        out[...] = flags
    return out, primary, flooded
