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
_SAMPLE = 63  # values of a long column from which its median is bracketed
_SAMPLE_STEPS = (20, 26, 31, 36, 42)  # those of the sorted sample of which two neighbours are to be the bracket
_SAMPLE_SIGMA = 9  # the same of one sigma below the median
_LINE = 160  # most pixels that are searched together by sigma clipping
# Lines of what is known of them, of which that of the first value below the steps has four others after it, as have
# the steps themselves.
_TOTAL, _SQUARE, _INSIDE, _NUMBER, _ODD, _BELOW = range(6)
_LOW_EDGE, _HIGH_EDGE, _CENTRE, _STEP = range(10, 14)
_LOWER, _UPPER, _UNDER, _OVER = range(18, 22)
_MOST = np.finfo(np.float32).max
_COLUMNS = 160_000  # float32 values of columns that are loaded together: they must stay in the second-level cache
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
def _load_differences(sci, groupdq, gain, y, x, lanes, absolute, keys, previous, usable):
    # One row of `lanes` pixels: differences of all integrations, unusable ones as +inf so that they sort last.
    scale = gain[y, x : x + lanes]
    usable[:] = 0
    row = 0
    for integration in range(sci.shape[0]):
        for group in range(sci.shape[1]):
            values = sci[integration, group, y, x : x + lanes]
            dq = groupdq[integration, group, y, x : x + lanes]
            if group == 0:
                for lane in range(lanes):
                    value = values[lane] * scale[lane]
                    previous[lane] = _NAN if dq[lane] & _UNUSABLE else value
                continue
            target = keys[row * lanes : (row + 1) * lanes]
            if absolute:
                for lane in range(lanes):
                    value = values[lane] * scale[lane]
                    value = _NAN if dq[lane] & _UNUSABLE else value
                    difference = abs(value - previous[lane])
                    previous[lane] = value
                    good = difference == difference
                    target[lane] = difference if good else _INF
                    usable[lane] += np.int32(good)
            else:
                for lane in range(lanes):
                    value = values[lane] * scale[lane]
                    value = _NAN if dq[lane] & _UNUSABLE else value
                    difference = value - previous[lane]
                    previous[lane] = value
                    good = difference == difference
                    target[lane] = difference if good else _INF
                    usable[lane] += np.int32(good)
            row += 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _noise(readnoise, gain, frames):
    # Variance of a difference by read noise [electron^2].
    scaled = readnoise * gain
    return np.float64(scaled * scaled) / frames


@numba.njit(cache=True, nogil=True)
def _append(places, count, integration, group, y, x):
    if count == len(places):
        larger = np.empty((2 * count, 4), np.int32)
        larger[:count] = places
        places = larger
    places[count, 0] = integration
    places[count, 1] = group
    places[count, 2] = y
    places[count, 3] = x
    return places, count + 1


@numba.njit(cache=True, nogil=True)
def _look_closer(usable, typical, lowest, first, second, highest, readnoise, gain, factor, limit, doubtful):
    # Pixels that may have a jump, from rows of sorted differences: those around the median, the lowest and the highest.
    # It never misses one: what comes closer than 1e-5 to the threshold, or is NaN, is doubtful. So are all pixels with
    # other than the typical number of differences, for which these are not the right rows.
    for lane in range(usable.size):
        median = 0.5 * (np.float64(first[lane]) + np.float64(second[lane]))
        above = np.float64(highest[lane]) - median
        below = median - np.float64(lowest[lane])
        worst = above if above > below else below
        scaled = readnoise[lane] * gain[lane]
        variance = abs(median) + factor * np.float64(scaled * scaled)
        doubtful[lane] = not worst * worst < limit * variance or usable[lane] != typical


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
def _search_iterative(sci, groupdq, gain, readnoise, frames, threshold, threshold3, threshold2, greatest):
    # Returns the jumps as (integration, group, y, x). The median of the differences of a pixel is at most `greatest`,
    # their upper median regardless of sign, and at least its negative.
    nints, ngroups, ny, nx = sci.shape
    count = nints * (ngroups - 1)
    width = min(max(_BUFFER // count // 16 * 16, 32), 256)
    keys = np.empty(count * width, np.float32)
    previous = np.empty(width, np.float32)
    usable = np.empty(width, np.int32)
    padded = np.zeros((width + 7) // 8 * 8, np.bool_)
    words = padded.view(np.uint64)
    jumps = np.empty((256, 4), np.int32)
    found = 0
    for y in range(ny):
        for x in range(0, nx, width):
            lanes = min(width, nx - x)
            _load_differences(sci, groupdq, gain, y, x, lanes, True, keys, previous, usable)
            sort_columns(keys, count, lanes)
            typical = 0
            for lane in range(lanes):
                typical = max(typical, usable[lane])
            greatest[y, x : x + lanes] = keys[typical // 2 * lanes : (typical // 2 + 1) * lanes]
            # The median without the largest one, see _peel.
            top = max(typical - 1, 0)
            second = top // 2 if typical >= 4 else max(typical - 2, 0)
            first = (top - 1) // 2 if typical >= 4 else second
            limit = threshold if typical >= 4 else threshold3 if typical == 3 else threshold2
            padded[lanes:] = False
            _look_closer(
                usable[:lanes], typical, keys[:lanes], keys[first * lanes : (first + 1) * lanes],
                keys[second * lanes : (second + 1) * lanes], keys[top * lanes : (top + 1) * lanes],
                readnoise[y, x : x + lanes], gain[y, x : x + lanes], 1.0 / frames, limit * limit * 0.99999, padded,
            )  # fmt: skip
            if typical >= 4:
                for lane in range(lanes):
                    padded[lane] |= keys[top * lanes + lane] == keys[(top - 1) * lanes + lane]
            for word in range(words.size):
                if words[word] == 0:
                    continue
                for lane in range(8 * word, min(8 * word + 8, lanes)):
                    number = usable[lane]
                    if not padded[lane]:
                        continue
                    greatest[y, x + lane] = keys[number // 2 * lanes + lane] if number else _INF
                    if number < 2:
                        continue
                    noise = _noise(readnoise[y, x + lane], gain[y, x + lane], frames)
                    low, high = _peel(keys, lane, lanes, number, noise, threshold, threshold3, threshold2)
                    if low == 0 and high == number:
                        continue
                    least = keys[low * lanes + lane] if high > low else _INF
                    most = keys[(high - 1) * lanes + lane] if high > low else -_INF
                    for integration in range(nints):
                        before = _NAN
                        for group in range(ngroups):
                            value = sci[integration, group, y, x + lane] * gain[y, x + lane]
                            if groupdq[integration, group, y, x + lane] & _UNUSABLE:
                                value = _NAN
                            difference = abs(value - before)
                            if difference > most or difference < least:
                                groupdq[integration, group, y, x + lane] |= _JUMP
                                jumps, found = _append(jumps, found, integration, group, y, x + lane)
                            before = value
    return jumps[:found]


@numba.njit(cache=True, nogil=True)
def _search_single_pass(sci, groupdq, gain, readnoise, frames, threshold, least, greatest):
    # Returns the jumps as (integration, group, y, x). `least` and `greatest` get the differences around the median.
    nints, ngroups, ny, nx = sci.shape
    count = nints * (ngroups - 1)
    width = min(max(_BUFFER // count // 16 * 16, 32), 256)
    keys = np.empty(count * width, np.float32)
    previous = np.empty(width, np.float32)
    usable = np.empty(width, np.int32)
    padded = np.zeros((width + 7) // 8 * 8, np.bool_)
    words = padded.view(np.uint64)
    jumps = np.empty((256, 4), np.int32)
    found = 0
    for y in range(ny):
        for x in range(0, nx, width):
            lanes = min(width, nx - x)
            _load_differences(sci, groupdq, gain, y, x, lanes, False, keys, previous, usable)
            sort_columns(keys, count, lanes)
            typical = 0
            for lane in range(lanes):
                typical = max(typical, usable[lane])
            top = max(typical - 1, 0)
            first, second = top // 2, min(typical // 2, top)
            least[y, x : x + lanes] = keys[first * lanes : (first + 1) * lanes]
            greatest[y, x : x + lanes] = keys[second * lanes : (second + 1) * lanes]
            padded[lanes:] = False
            _look_closer(
                usable[:lanes], typical, keys[:lanes], keys[first * lanes : (first + 1) * lanes],
                keys[second * lanes : (second + 1) * lanes], keys[top * lanes : (top + 1) * lanes],
                readnoise[y, x : x + lanes], gain[y, x : x + lanes], 1.0 / frames, threshold * threshold * 0.99999,
                padded,
            )  # fmt: skip
            for word in range(words.size):
                if words[word] == 0:
                    continue
                for lane in range(8 * word, min(8 * word + 8, lanes)):
                    number = usable[lane]
                    if not padded[lane] or number == 0:
                        continue
                    least[y, x + lane] = keys[(number - 1) // 2 * lanes + lane]
                    greatest[y, x + lane] = keys[number // 2 * lanes + lane]
                    median = _middle(keys, lane, lanes, 0, number)
                    sigma = np.sqrt(abs(median) + _noise(readnoise[y, x + lane], gain[y, x + lane], frames))
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
                                jumps, found = _append(jumps, found, integration, group, y, x + lane)
                            before = value
    return jumps[:found]


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
def _kept_within(number, shift, spread, error, threshold, low, high):
    # How far from its median values of a column are certainly kept, and from where on certainly clipped, given sums of
    # the offsets of its values and of their squares with the relative errors `error`: by the inequality of Cauchy and
    # Schwarz that of the variance is at most four times as large, relative to the mean square. What is added is for
    # squares that are too small for float32, and far above the rounding errors of float64.
    mean = shift / number
    square = spread / number
    variance = square - mean * mean
    error = 4.0 * error * square + 2e-45
    least = threshold * np.sqrt(max(variance - error, 0.0))
    most = threshold * np.sqrt(max(variance + error, 0.0))
    margin = 1e-7 * most + 1e-12 * (abs(low) + abs(high))
    return least - margin, most + margin


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _clip_few(values, dropped, count, inside, total, square, error, centre, low, high, edges, below, above, threshold):
    # Sigma clipping of a column of which only `count` values can be clipped: `inside` others lie between `edges`, with
    # the sum `total` and sum of squares `square` about `centre`. The median lies between `low` and `high` as long as
    # not too many values lie outside of those (`below`, `above`). Marks what is clipped in `dropped`; False if this
    # knowledge does not decide it.
    dropped[:count] = False
    kept = 0.0
    clipped = 0.0
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
        if below > (number - 1) // 2 or above > (number - 1) // 2 or not spread < np.inf:
            return False
        kept, clipped = _kept_within(number, shift, spread, error, threshold, low, high)
        if not (high - kept < edges[0] and low + kept > edges[1]):
            return False
        changed = False
        for index in range(count):
            if not dropped[index]:
                value = np.float64(values[index])
                if value < low - clipped or value > high + clipped:
                    dropped[index] = True
                    changed = True
                elif not (value > high - kept and value < low + kept):
                    return False
        if not changed:
            break
    # The last bounds judge all values, also those dropped earlier.
    for index in range(count):
        value = np.float64(values[index])
        if value < low - clipped or value > high + clipped:
            dropped[index] = True
        elif value > high - kept and value < low + kept:
            dropped[index] = False
        else:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _bracket(values, lane, lanes, rows, low, high, below, number, few, middle):
    # Order statistics of a column that enclose its median, also when up to `few` of its values are left out. `low` and
    # `high` enclose the median, `below` values are less than `low`; `middle` is room for what lies between them.
    count = 0
    for row in range(rows):
        value = values[row * lanes + lane]
        middle[count] = value
        count += value >= low and value <= high
    first = max((number - 1 - few) // 2 - 1 - below, 0)
    last = min((number + few) // 2 + 1 - below, count - 1)
    if first > last:
        return low, high, below, number
    _select(middle, count, first)
    nearest = middle[first]
    # What stands after it is not less.
    _select(middle[first:], count - first, last - first)
    return nearest, middle[last], below + first, number - 1 - below - last


@numba.njit(cache=True, nogil=True)
def _collect(values, lane, lanes, rows, edges, centre, few, few_rows):
    # Values of a column outside of edges and their rows, of which there may be more than there is room for; how many
    # lie inside, the sum of their offsets from the centre and that of the squares.
    count = 0
    inside = 0
    total = 0.0
    square = 0.0
    for row in range(rows):
        value = np.float64(values[row * lanes + lane])
        if value >= edges[0] and value <= edges[1]:
            inside += 1
            total += value - centre
            square += (value - centre) * (value - centre)
        elif abs(value) < np.inf:
            if count < few.size:
                few[count] = value
                few_rows[count] = row
            count += 1
    return count, inside, total, square


@numba.njit(cache=True, nogil=True)
def _load_columns(sci, groupdq, gain, y, x, lanes, width, first, last, by_integration, by_group, before, values):
    # Differences of groups first..last and those before them, of one row of `lanes` pixels; NaN where unusable.
    scale = gain[y, x : x + lanes]
    for integration in range(sci.shape[0]):
        for group in range(first - 1, last + 1):
            sample = sci[integration, group, y, x : x + lanes]
            dq = groupdq[integration, group, y, x : x + lanes]
            if group == first - 1:
                for lane in range(lanes):
                    value = sample[lane] * scale[lane]
                    before[lane] = _NAN if dq[lane] & _UNUSABLE else value
                continue
            row = integration * by_integration + (group - first) * by_group
            target = values[row * width : row * width + lanes]
            for lane in range(lanes):
                value = sample[lane] * scale[lane]
                value = _NAN if dq[lane] & _UNUSABLE else value
                target[lane] = value - before[lane]
                before[lane] = value


@numba.njit(cache=True, nogil=True, forceinline=True)
def _at(line, lane):
    # Without a sign, a place is not taken for one counted from the end, which would not be vectorised.
    return np.uint64(line * _LINE) + lane


@numba.njit(cache=True, nogil=True)
def _survey(values, rows, lanes, within, sample, work):
    # Order statistics of a sample of each column, and edges between which nothing can be clipped.
    for index in range(_SAMPLE):
        row = index * rows // _SAMPLE
        target = sample[index * lanes : (index + 1) * lanes]
        source = values[row * lanes : (row + 1) * lanes]
        for lane in range(lanes):
            target[lane] = source[lane] if source[lane] == source[lane] else _INF
    sort_columns(sample, _SAMPLE, lanes)
    for index in range(lanes):
        lane = np.uint64(index)
        # The ends of the spread are about one sigma from the centre for Gaussian noise.
        spread = sample[(_SAMPLE - 1 - _SAMPLE_SIGMA) * lanes + index] - sample[_SAMPLE_SIGMA * lanes + index]
        low, high = sample[_SAMPLE_STEPS[1] * lanes + index], sample[_SAMPLE_STEPS[3] * lanes + index]
        work[_at(_CENTRE, lane)] = np.float32(0.5) * low + np.float32(0.5) * high
        work[_at(_LOW_EDGE, lane)] = low - within * spread
        work[_at(_HIGH_EDGE, lane)] = high + within * spread
    for step in range(len(_SAMPLE_STEPS)):
        row = _SAMPLE_STEPS[step]
        work[(_STEP + step) * _LINE : (_STEP + step) * _LINE + lanes] = sample[row * lanes : (row + 1) * lanes]


@numba.njit(cache=True, nogil=True, forceinline=True)
def _many(first, second, third, fourth):
    one, zero = np.float32(1.0), np.float32(0.0)
    return ((one if first else zero) + (one if second else zero)) + (
        (one if third else zero) + (one if fourth else zero)
    )


@numba.njit(cache=True, nogil=True)
def _add_rows(row0, row1, row2, row3, work, outside):
    # Four rows to the sums. All of these are parts of one array, a constant apart, which makes it one vectorised loop;
    # counts are exact in float32 up to 2^24.
    zero = np.float32(0.0)
    for index in range(row0.size):
        lane = np.uint64(index)
        low, high, centre = work[_at(_LOW_EDGE, lane)], work[_at(_HIGH_EDGE, lane)], work[_at(_CENTRE, lane)]
        value0, value1, value2, value3 = row0[lane], row1[lane], row2[lane], row3[lane]
        near0, near1 = value0 >= low and value0 <= high, value1 >= low and value1 <= high
        near2, near3 = value2 >= low and value2 <= high, value3 >= low and value3 <= high
        offset0, offset1 = value0 - centre if near0 else zero, value1 - centre if near1 else zero
        offset2, offset3 = value2 - centre if near2 else zero, value3 - centre if near3 else zero
        work[_at(_TOTAL, lane)] += (offset0 + offset1) + (offset2 + offset3)
        work[_at(_SQUARE, lane)] += (offset0 * offset0 + offset1 * offset1) + (offset2 * offset2 + offset3 * offset3)
        inside = _many(near0, near1, near2, near3)
        work[_at(_INSIDE, lane)] += inside
        size0, size1, size2, size3 = abs(value0), abs(value1), abs(value2), abs(value3)
        number = _many(size0 < _INF, size1 < _INF, size2 < _INF, size3 < _INF)
        work[_at(_NUMBER, lane)] += number
        work[_at(_ODD, lane)] += _many(size0 == _INF, size1 == _INF, size2 == _INF, size3 == _INF)
        for step in range(5):
            limit = work[_at(_STEP + step, lane)]
            work[_at(_BELOW + step, lane)] += _many(value0 < limit, value1 < limit, value2 < limit, value3 < limit)
        outside[lane] = number != inside


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _settle(work, error, threshold, open_lanes):
    # Brackets of the medians, proven by counts, also when the values outside of the edges are left out; -inf and inf
    # where there are none. What remains to be looked at: columns of which a value may be clipped.
    for index in range(open_lanes.size):
        lane = np.uint64(index)
        number, inside = work[_at(_NUMBER, lane)], work[_at(_INSIDE, lane)]
        most = np.float32(0.5) * (inside - np.float32(1.0))
        lower, upper, under, over = -_INF, _INF, np.float32(0.0), np.float32(0.0)
        for step in range(5):
            below = work[_at(_BELOW + step, lane)]
            lower = work[_at(_STEP + step, lane)] if below <= most else lower
            under = below if below <= most else under
        for step in range(4, -1, -1):
            above = number - work[_at(_BELOW + step, lane)]
            upper = work[_at(_STEP + step, lane)] if above <= most else upper
            over = above if above <= most else over
        odd = work[_at(_ODD, lane)] != 0.0
        lower, upper = -_INF if odd else lower, _INF if odd else upper
        work[_at(_LOWER, lane)], work[_at(_UPPER, lane)] = lower, upper
        work[_at(_UNDER, lane)], work[_at(_OVER, lane)] = (
            np.float32(0.0) if odd else under,
            np.float32(0.0) if odd else over,
        )
        total, square = np.float64(work[_at(_TOTAL, lane)]), np.float64(work[_at(_SQUARE, lane)])
        low, high = np.float64(lower), np.float64(upper)
        kept, _ = _kept_within(np.float64(number), total, square, error, threshold, low, high)
        all_kept = high - kept < np.float64(work[_at(_LOW_EDGE, lane)]) and low + kept > np.float64(
            work[_at(_HIGH_EDGE, lane)]
        )
        settled = number == inside and square < np.inf and all_kept
        open_lanes[lane] = (number != 0.0 and not settled) or odd


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _search_sigma_clip(sci, groupdq, gain, threshold, together, least, greatest):
    # Values near the middle of a column can neither be clipped nor need they be sorted: their sums are taken in one
    # vectorised pass, and what is clipped of the few others is decided from those sums and from a bracket of the
    # median: two order statistics of a sample, or, where these do not decide, closer ones of the column. Where these
    # do not decide either, `_clip_bounds` does. `least` and `greatest` get bounds of the median of all differences of a
    # pixel, which lies between the least and the greatest median of its columns. Returns the jumps as (integration,
    # group, y, x).
    nints, ngroups, ny, nx = sci.shape
    rows = nints * (ngroups - 1) if together else nints
    sets = 1 if together else ngroups - 1
    # Runs of equal length: one of few pixels takes as long as one of many.
    runs = (nx + _LINE - 1) // _LINE
    step = (nx + runs - 1) // runs
    width = (step + 15) // 16 * 16
    padded = (rows + 3) // 4 * 4
    batch = min(max(_COLUMNS // (padded * width), 1), sets)
    most = 64
    within = np.float32(0.34 * threshold)
    # Of sums in float32, twice the bound of any order of summation.
    error = 1.2e-7 * (rows + 12)
    error = error if error < 0.1 else np.inf
    values = np.full(batch * padded * width, _NAN)
    sample = np.empty(_SAMPLE * width, np.float32)
    before = np.empty(width, np.float32)
    column = np.empty(rows, np.float64)
    middle = np.empty(rows, np.float32)
    work = np.empty(22 * _LINE, np.float32)
    lines = work.reshape(22, _LINE)
    few = np.empty((width, most), np.float32)
    few_rows = np.empty((width, most), np.int32)
    few_count = np.empty(width, np.int32)
    dropped = np.empty(most, np.bool_)
    outside = np.zeros(width, np.bool_)
    words = outside.view(np.uint64)
    jumps = np.empty((256, 4), np.int32)
    found = 0
    for y in range(ny):
        for x in range(0, nx, step):
            lanes = min(step, nx - x)
            for loaded in range(sets):
                if loaded % batch == 0:
                    first, last = loaded + 1, min(loaded + batch, sets)
                    if together:
                        last = ngroups - 1
                    by_integration, by_group = ngroups - 1 if together else 1, 1 if together else padded
                    _load_columns(
                        sci, groupdq, gain, y, x, lanes, width, first, last, by_integration, by_group, before, values
                    )
                start = loaded % batch * padded * width
                columns = values[start : start + padded * width]
                columns[rows * width :] = _NAN
                _survey(columns, rows, width, within, sample, work)
                work[: 10 * _LINE] = 0.0
                few_count[:] = 0
                for row in range(0, padded, 4):
                    piece = columns[row * width : (row + 4) * width]
                    _add_rows(
                        piece[:width], piece[width : 2 * width], piece[2 * width : 3 * width], piece[3 * width :],
                        work, outside,
                    )  # fmt: skip
                    for word in range(words.size):
                        if words[word] == 0:
                            continue
                        for lane in range(8 * word, min(8 * word + 8, lanes)):
                            if not outside[lane]:
                                continue
                            for later in range(4):
                                value = piece[later * width + lane]
                                if abs(value) < _INF and not (
                                    value >= lines[_LOW_EDGE, lane] and value <= lines[_HIGH_EDGE, lane]
                                ):
                                    if few_count[lane] < most:
                                        few[lane, few_count[lane]] = value
                                        few_rows[lane, few_count[lane]] = row + later
                                    few_count[lane] += 1
                _settle(work, error, threshold, outside)
                for word in range(words.size):
                    if words[word] == 0:
                        continue
                    for lane in range(8 * word, min(8 * word + 8, lanes)):
                        number = np.int64(lines[_NUMBER, lane])
                        if not outside[lane] or number == 0:
                            continue
                        lower, upper = lines[_LOWER, lane], lines[_UPPER, lane]
                        under, over = np.int64(lines[_UNDER, lane]), np.int64(lines[_OVER, lane])
                        inside, centre = np.int64(lines[_INSIDE, lane]), np.float64(lines[_CENTRE, lane])
                        total, square = np.float64(lines[_TOTAL, lane]), np.float64(lines[_SQUARE, lane])
                        edges = (np.float64(lines[_LOW_EDGE, lane]), np.float64(lines[_HIGH_EDGE, lane]))
                        decided = few_count[lane] <= most and _clip_few(
                            few[lane], dropped, few_count[lane], inside, total, square, error, centre,
                            np.float64(lower), np.float64(upper), edges, under, over, threshold,
                        )  # fmt: skip
                        if not decided:
                            lower, upper, under, over = _bracket(
                                columns, lane, width, rows, max(lower, -_MOST), min(upper, _MOST), under, number,
                                few_count[lane], middle,
                            )  # fmt: skip
                            if lines[_ODD, lane] == 0.0:
                                lines[_LOWER, lane], lines[_UPPER, lane] = lower, upper
                            # The spread of the sample may have been too large, and the edges too far apart.
                            edges = (centre + 0.75 * (edges[0] - centre), centre + 0.75 * (edges[1] - centre))
                            few_count[lane], inside, total, square = _collect(
                                columns, lane, width, rows, edges, centre, few[lane], few_rows[lane]
                            )
                            decided = few_count[lane] <= most and _clip_few(
                                few[lane], dropped, few_count[lane], inside, total, square, 0.0, centre,
                                np.float64(lower), np.float64(upper), edges, under, over, threshold,
                            )  # fmt: skip
                        if decided:
                            for index in range(few_count[lane]):
                                if dropped[index]:
                                    row = few_rows[lane, index]
                                    integration = row // (ngroups - 1) if together else row
                                    group = row % (ngroups - 1) + 1 if together else loaded + 1
                                    groupdq[integration, group, y, x + lane] |= _JUMP
                                    jumps, found = _append(jumps, found, integration, group, y, x + lane)
                            continue
                        count = 0
                        for row in range(rows):
                            value = columns[row * width + lane]
                            if abs(value) < _INF:
                                column[count] = value
                                count += 1
                        lowest, highest = _clip_bounds(column, count, threshold)
                        for row in range(rows):
                            value = np.float64(columns[row * width + lane])
                            if abs(value) < np.inf and (value < lowest or value > highest):
                                integration = row // (ngroups - 1) if together else row
                                group = row % (ngroups - 1) + 1 if together else loaded + 1
                                groupdq[integration, group, y, x + lane] |= _JUMP
                                jumps, found = _append(jumps, found, integration, group, y, x + lane)
                for lane in range(lanes):
                    if lines[_NUMBER, lane] != 0.0 or lines[_ODD, lane] != 0.0:
                        least[y, x + lane] = min(least[y, x + lane], lines[_LOWER, lane])
                        greatest[y, x + lane] = max(greatest[y, x + lane], lines[_UPPER, lane])
    return jumps[:found]


@numba.njit(cache=True, nogil=True)
def _any_flagged(flags):
    # Whether there is a JUMP_DET at all, in flags in one dimension.
    for start in range(0, flags.size, 8192):
        together = np.uint8(0)
        for flag in flags[start : start + 8192]:
            together |= flag
        if together & _JUMP:
            return True
    return False


@numba.njit(cache=True, nogil=True)
def _flagged(groupdq):
    # Places of JUMP_DET as (integration, group, y, x).
    nints, ngroups, ny, nx = groupdq.shape
    places = np.empty((256, 4), np.int32)
    count = 0
    for integration in range(nints):
        for group in range(ngroups):
            for y in range(ny):
                for x in range(nx):
                    if groupdq[integration, group, y, x] & _JUMP:
                        places, count = _append(places, count, integration, group, y, x)
    return places[:count]


@numba.njit(cache=True, nogil=True)
def _pixel_median(sci, groupdq, gain, y, x, scratch):
    # Median of the usable differences of one pixel; NaN if there is none.
    count = 0
    for integration in range(sci.shape[0]):
        before = _NAN
        for group in range(sci.shape[1]):
            value = sci[integration, group, y, x] * gain[y, x]
            if groupdq[integration, group, y, x] & _UNUSABLE:
                value = _NAN
            difference = value - before
            before = value
            if group > 0 and difference == difference:
                scratch[count] = difference
                count += 1
    return _median(scratch, count) if count else np.nan


@numba.njit(cache=True, nogil=True)
def _difference(sci, groupdq, gain, integration, group, y, x):
    # That of a group and the one before it; NaN where one of them is unusable.
    if (groupdq[integration, group, y, x] | groupdq[integration, group - 1, y, x]) & _UNUSABLE:
        return np.nan
    scale = gain[y, x]
    return np.float64(sci[integration, group, y, x] * scale - sci[integration, group - 1, y, x] * scale)


@numba.njit(cache=True, nogil=True)
def _exact_median(sci, groupdq, gain, y, x, known, scratch):
    # Median of the differences of a pixel, taken once. `known` is empty until the first.
    if not known.size:
        known = np.full(gain.shape, np.nan)
    if known[y, x] != known[y, x]:
        known[y, x] = _pixel_median(sci, groupdq, gain, y, x, scratch)
    return known[y, x], known


@numba.njit(cache=True, nogil=True)
def _bounds(least, greatest, y, x):
    # Those of the median of a pixel.
    high = np.float64(greatest[y, x])
    return np.float64(least[y, x]) if least.size else -high, high


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _find_sources(sci, groupdq, gain, readnoise, frames, lowest, highest, least, greatest, exact, places):
    # Jumps whose neighbours are to be flagged. Bounds of the median decide nearly every jump; the median itself is
    # taken for the others only.
    scratch = np.empty(sci.shape[0] * sci.shape[1], np.float32)
    sources = np.empty((256, 4), np.int32)
    margin = 1e-6
    count = 0
    for index in range(len(places)):
        integration, group, y, x = places[index]
        if group == 0:
            continue
        difference = _difference(sci, groupdq, gain, integration, group, y, x)
        if not abs(difference) < np.inf:
            continue
        median = np.nan
        noise = _noise(readnoise[y, x], gain[y, x], frames)
        low, high = _bounds(least, greatest, y, x)
        if low == high:
            median = low
        elif low < high:
            larger = max(abs(low), abs(high))
            smaller = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
            nearest = max(max(difference - high, low - difference), 0.0)
            farthest = max(abs(difference - low), abs(difference - high))
            at_least = nearest / np.sqrt(larger + noise)
            at_most = farthest / np.sqrt(smaller + noise)
            if at_most < lowest * (1.0 - margin) or at_least > highest * (1.0 + margin):
                continue
            if at_least > lowest * (1.0 + margin) and at_most < highest * (1.0 - margin):
                sources, count = _append(sources, count, integration, group, y, x)
                continue
        if median != median:
            median, exact = _exact_median(sci, groupdq, gain, y, x, exact, scratch)
        sigma = np.sqrt(abs(median) + noise)
        ratio = abs(difference - median) / sigma
        if sigma != 0.0 and ratio < highest and ratio > lowest:
            sources, count = _append(sources, count, integration, group, y, x)
    return sources[:count], exact


@numba.njit(cache=True, nogil=True)
def _flag_neighbors(groupdq, sources, places):
    # Returns the places together with those newly flagged.
    ny, nx = groupdq.shape[2:]
    count = len(places)
    more = np.empty((count + 4 * len(sources), 4), np.int32)
    more[:count] = places
    for index in range(len(sources)):
        integration, group, y, x = sources[index]
        for side in range(4):
            row = y + (side == 0) - (side == 1)
            column = x + (side == 2) - (side == 3)
            if 0 <= row < ny and 0 <= column < nx:
                flags = groupdq[integration, group, row, column]
                if not flags & (_UNUSABLE | _JUMP):
                    groupdq[integration, group, row, column] = flags | _JUMP
                    more, count = _append(more, count, integration, group, row, column)
    return more[:count]


@numba.njit(cache=True, nogil=True)
def _reach(size, electrons1, groups1, electrons2, groups2):
    # Groups to flag after a jump.
    reach = groups1 if size >= electrons1 else 0
    return max(reach, groups2) if size >= electrons2 else reach


@numba.njit(cache=True, nogil=True)
def _flag_after(sci, groupdq, gain, electrons1, groups1, electrons2, groups2, least, greatest, exact, places):
    # `places` are those of the jumps before any is followed by flags. As far as bounds of the median decide, they do.
    ngroups = sci.shape[1]
    scratch = np.empty(sci.shape[0] * ngroups, np.float32)
    for index in range(len(places)):
        integration, group, y, x = places[index]
        if group == 0:
            continue
        difference = _difference(sci, groupdq, gain, integration, group, y, x)
        if difference != difference:
            continue
        low, high = _bounds(least, greatest, y, x)
        at_least = _reach(difference - high, electrons1, groups1, electrons2, groups2)
        reach = _reach(difference - low, electrons1, groups1, electrons2, groups2)
        if at_least != reach:
            median, exact = _exact_median(sci, groupdq, gain, y, x, exact, scratch)
            reach = _reach(difference - median, electrons1, groups1, electrons2, groups2)
        for later in range(group + 1, min(group + reach + 1, ngroups)):
            if not groupdq[integration, later, y, x] & _UNUSABLE:
                groupdq[integration, later, y, x] |= _JUMP


@numba.njit(cache=True, nogil=True)
def _count_within(places, y0, y1, x0, x1):
    count = 0
    for index in range(len(places)):
        count += y0 <= places[index, 2] < y1 and x0 <= places[index, 3] < x1
    return count


@numba.njit(cache=True, nogil=True)
def _drop_redundant(flags):
    # JUMP_DET of groups that were unusable when they came; flags in one dimension.
    for index in range(flags.size):
        flag = flags[index]
        flags[index] = flag & ~_JUMP if flag & _UNUSABLE else flag


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
    readnoise = np.ascontiguousarray(readnoise, np.float32)
    frames = 0.5 * (2.0 * detection.nframes)
    threshold = float(detection.rejection_threshold)
    nints, ngroups = sci.shape[:2]
    flooded = np.zeros((nints, ngroups), bool)
    came, dropped = _any_flagged(flags.reshape(-1)), False
    # Bounds of the median of each pixel; without `least`, it is the negative of `greatest`.
    least, greatest = np.empty((0, 0), np.float32), np.empty(gain.shape, np.float32)
    places = np.empty((0, 4), np.int32)

    if ngroups < 2 or detection.regime == NONE:
        pass
    elif detection.regime == ITERATIVE:
        threshold3 = float(detection.four_group_rejection_threshold)
        threshold2 = float(detection.three_group_rejection_threshold)
        places = _search_iterative(sci, flags, gain, readnoise, frames, threshold, threshold3, threshold2, greatest)
    elif detection.regime == SINGLE_PASS:
        least = np.empty_like(greatest)
        places = _search_single_pass(sci, flags, gain, readnoise, frames, threshold, least, greatest)
    else:
        least, greatest = np.full_like(greatest, np.inf), np.full_like(greatest, -np.inf)
        # Rows do not matter: runs of pixels may be longer than one.
        flat = (nints, ngroups, 1, -1)
        places = _search_sigma_clip(
            sci.reshape(flat), flags.reshape(flat), gain.reshape(1, -1), threshold, not detection.only_use_ints,
            least.reshape(1, -1), greatest.reshape(1, -1),
        )  # fmt: skip
        places[:, 2], places[:, 3] = np.divmod(places[:, 3], gain.shape[1])
        flooded = whole_planes(flags[:, :, inner[0], inner[1]], JUMP_DET | DO_NOT_USE)
        for integration, group in np.argwhere(flooded) if cleared is None else cleared:
            plane = flags[integration, group]
            plane[plane == JUMP_DET] = 0
            dropped = True

    if came or dropped:
        places = _flagged(flags)
    (y0, y1, _), (x0, x1, _) = inner[0].indices(gain.shape[0]), inner[1].indices(gain.shape[1])
    primary = _count_within(places, y0, y1, x0, x1)
    if detection.regime != NONE and ngroups > 1 and len(places):
        exact = np.empty((0, 0))
        if detection.flag_4_neighbors:
            lowest, highest = float(detection.min_jump_to_flag_neighbors), float(detection.max_jump_to_flag_neighbors)
            # All sources before the first flag: a flagged neighbour is not itself a source.
            sources, exact = _find_sources(
                sci, flags, gain, readnoise, frames, lowest, highest, least, greatest, exact, places
            )
            places = _flag_neighbors(flags, sources, places)
        if max(detection.after_jump_groups) > 0:
            (electrons1, electrons2), (groups1, groups2) = detection.after_jump_electrons, detection.after_jump_groups
            after = float(electrons1), groups1, float(electrons2), groups2
            _flag_after(sci, flags, gain, *after, least, greatest, exact, places)
    if came:
        _drop_redundant(flags.reshape(-1))
    if flags is not out:
        out[...] = flags
    return out, primary, flooded
