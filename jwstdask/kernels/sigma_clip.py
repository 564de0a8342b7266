"""Jumps by sigma clipping: a difference of two groups against the same difference of all other integrations."""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.core.dq import DO_NOT_USE, JUMP_DET, SATURATED
from jwstdask.kernels.compiled import COMPILED, INLINE, UNCOUNTED
from jwstdask.kernels.networks import sort_columns
from jwstdask.kernels.sort import median as median_of
from jwstdask.kernels.sort import select

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


@numba.njit(**COMPILED)
def with_room(places, count, more):
    """An array with the first ``count`` of some places and room for ``more``."""
    if count + more <= len(places):
        return places
    larger = np.empty((2 * count + more, 4), np.int32)
    larger[:count] = places[:count]
    return larger


@numba.njit(**UNCOUNTED)
def append_place(places, count, integration, group, y, x):
    """Put a place after the first ``count``, where there must be room; the new count."""
    places[count, 0] = integration
    places[count, 1] = group
    places[count, 2] = y
    places[count, 3] = x
    return count + 1


@numba.njit(**UNCOUNTED)
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
        median = median_of(values, count)
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


@numba.njit(**UNCOUNTED)
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


@numba.njit(**UNCOUNTED)
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


@numba.njit(**UNCOUNTED)
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
    select(middle, count, first)
    nearest = middle[first]
    # What stands after it is not less.
    select(middle[first:], count - first, last - first)
    return nearest, middle[last], below + first, number - 1 - below - last


@numba.njit(**UNCOUNTED)
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


@numba.njit(**UNCOUNTED)
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


@numba.njit(**INLINE)
def _at(line, lane):
    # Without a sign, a place is not taken for one counted from the end, which would not be vectorised.
    return np.uint64(line * _LINE) + lane


@numba.njit(**UNCOUNTED)
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
        source = sample[_SAMPLE_STEPS[step] * lanes :]
        target = work[(_STEP + step) * _LINE :]
        for lane in range(lanes):
            target[lane] = source[lane]


@numba.njit(**INLINE)
def _many(first, second, third, fourth):
    one, zero = np.float32(1.0), np.float32(0.0)
    return ((one if first else zero) + (one if second else zero)) + (
        (one if third else zero) + (one if fourth else zero)
    )


@numba.njit(**UNCOUNTED)
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


@numba.njit(**UNCOUNTED)
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


@numba.njit(**UNCOUNTED)
def _search_run(
    sci, groupdq, gain, y, x, lanes, rows, width, threshold, together, least, greatest, values, sample, before, column,
    middle, work, few, few_rows, few_count, dropped, outside, jumps, found,
):  # fmt: skip
    # Search some pixels of a row; the new number of jumps.
    nints, ngroups = sci.shape[:2]
    sets = (ngroups - 1) * nints // rows
    padded = (rows + 3) // 4 * 4
    batch = values.size // (padded * width)
    most = dropped.size
    within = np.float32(0.34 * threshold)
    # Of sums in float32, twice the bound of any order of summation.
    error = 1.2e-7 * (rows + 12)
    error = error if error < 0.1 else np.inf
    lines = work.reshape(22, _LINE)
    words = outside.view(np.uint64)
    for loaded in range(sets):
        if loaded % batch == 0:
            first, last = loaded + 1, min(loaded + batch, sets)
            if together:
                last = ngroups - 1
            by_integration, by_group = ngroups - 1 if together else 1, 1 if together else padded
            _load_columns(sci, groupdq, gain, y, x, lanes, width, first, last, by_integration, by_group, before, values)
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
                            found = append_place(jumps, found, integration, group, y, x + lane)
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
                        found = append_place(jumps, found, integration, group, y, x + lane)
        for lane in range(lanes):
            if lines[_NUMBER, lane] != 0.0 or lines[_ODD, lane] != 0.0:
                least[y, x + lane] = min(least[y, x + lane], lines[_LOWER, lane])
                greatest[y, x + lane] = max(greatest[y, x + lane], lines[_UPPER, lane])
    return found


@numba.njit(**COMPILED)
def search_sigma_clip(sci, groupdq, gain, threshold, together, least, greatest):
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
    values = np.full(batch * padded * width, _NAN)
    sample = np.empty(_SAMPLE * width, np.float32)
    before = np.empty(width, np.float32)
    column = np.empty(rows, np.float64)
    middle = np.empty(rows, np.float32)
    work = np.empty(22 * _LINE, np.float32)
    few = np.empty((width, most), np.float32)
    few_rows = np.empty((width, most), np.int32)
    few_count = np.empty(width, np.int32)
    dropped = np.empty(most, np.bool_)
    outside = np.zeros(width, np.bool_)
    jumps = np.empty((256, 4), np.int32)
    found = 0
    for y in range(ny):
        for x in range(0, nx, step):
            lanes = min(step, nx - x)
            jumps = with_room(jumps, found, nints * (ngroups - 1) * lanes)
            found = _search_run(
                sci, groupdq, gain, y, x, lanes, rows, width, threshold, together, least, greatest, values, sample,
                before, column, middle, work, few, few_rows, few_count, dropped, outside, jumps, found,
            )  # fmt: skip
    return jumps[:found]
