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
from jwstdask.kernels.compiled import COMPILED, UNCOUNTED
from jwstdask.kernels.networks import sort_columns
from jwstdask.kernels.prefetch import prefetch
from jwstdask.kernels.sigma_clip import append_place, search_sigma_clip, with_room
from jwstdask.kernels.sort import median as median_of

ITERATIVE, SINGLE_PASS, SIGMA_CLIP, NONE = "iterative", "single_pass", "sigma_clip", "none"
"""The regimes; ``none`` means too few usable groups to search at all."""

_UNUSABLE = np.uint8(DO_NOT_USE | SATURATED)
_JUMP = np.uint8(JUMP_DET)
_NAN = np.float32(np.nan)
_INF = np.float32(np.inf)
_BRIGHT = np.float32(1e7)  # variance up to which float32 tells what is no jump, by the squared threshold [electron^2]
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


@numba.njit(**UNCOUNTED)
def _load_differences(sci, groupdq, gain, y, x, lanes, absolute, keys, previous, usable):
    # One row of `lanes` pixels: differences of all integrations, unusable ones as +inf so that they sort last.
    scale = gain[y, x : x + lanes]
    usable[:] = 0
    row = 0
    for integration in range(sci.shape[0]):
        for group in range(sci.shape[1]):
            values = sci[integration, group, y, x : x + lanes]
            dq = groupdq[integration, group, y, x : x + lanes]
            prefetch(values, lanes, lanes)
            prefetch(dq, lanes, lanes)
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


@numba.njit(**UNCOUNTED)
def _noise(readnoise, gain, frames):
    # Variance of a difference by read noise [electron^2].
    scaled = readnoise * gain
    return np.float64(scaled * scaled) / frames


@numba.njit(**UNCOUNTED)
def _look_closer(usable, typical, lowest, first, second, highest, readnoise, gain, factor, limit, doubtful):
    # Pixels that may have a jump, from rows of sorted differences: those around the median, the lowest and the highest.
    # It never misses one: what comes closer than 1e-3 to the threshold, or is NaN, is doubtful. So are all pixels with
    # other than the typical number of differences, for which these are not the right rows. In float32 the deviation is
    # known to 2^-23 of the median, which is less than 5e-4 of the threshold for variances up to _BRIGHT of its square.
    for lane in range(usable.size):
        median = np.float32(0.5) * first[lane] + np.float32(0.5) * second[lane]
        above = highest[lane] - median
        below = median - lowest[lane]
        worst = above if above > below else below
        scaled = readnoise[lane] * gain[lane]
        variance = abs(median) + factor * (scaled * scaled)
        sure = (worst * worst < limit * variance) & (variance < _BRIGHT * limit)
        doubtful[lane] = not sure or usable[lane] != typical


@numba.njit(**UNCOUNTED)
def _middle(keys, first, stride, low, high):
    # Median of the sorted column entries low..high-1.
    half = (low + high) // 2
    if (high - low) % 2:
        return np.float64(keys[first + half * stride])
    return (np.float64(keys[first + (half - 1) * stride]) + np.float64(keys[first + half * stride])) / 2.0


@numba.njit(**UNCOUNTED)
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


@numba.njit(**UNCOUNTED)
def _sorted_differences(sci, groupdq, gain, y, x, lanes, absolute, keys, previous, usable):
    # Those of some pixels of a row; how many most of them have.
    _load_differences(sci, groupdq, gain, y, x, lanes, absolute, keys, previous, usable)
    sort_columns(keys, sci.shape[0] * (sci.shape[1] - 1), lanes)
    typical = 0
    for lane in range(lanes):
        typical = max(typical, usable[lane])
    return typical


@numba.njit(**UNCOUNTED)
def _mark_doubtful(gain, readnoise, frames, limit, y, x, lanes, keys, usable, typical, first, second, doubtful):
    # Those of some pixels of a row that _look_closer finds, given the rows around the median.
    top = max(typical - 1, 0)
    doubtful[lanes:] = False
    _look_closer(
        usable[:lanes], typical, keys[:lanes], keys[first * lanes : (first + 1) * lanes],
        keys[second * lanes : (second + 1) * lanes], keys[top * lanes : (top + 1) * lanes],
        readnoise[y, x : x + lanes], gain[y, x : x + lanes], np.float32(1.0 / frames),
        np.float32(limit * limit * 0.999), doubtful,
    )  # fmt: skip


@numba.njit(**UNCOUNTED)
def _iterative_run(
    sci, groupdq, gain, readnoise, frames, thresholds, greatest, y, x, lanes, keys, previous, usable, padded, jumps,
    found,
):  # fmt: skip
    # Search some pixels of a row until no outlier is left; the new number of jumps.
    nints, ngroups = sci.shape[:2]
    threshold, threshold3, threshold2 = thresholds
    words = padded.view(np.uint64)
    typical = _sorted_differences(sci, groupdq, gain, y, x, lanes, True, keys, previous, usable)
    row_greatest, middle = greatest[y, x:], keys[typical // 2 * lanes :]
    for lane in range(lanes):
        row_greatest[lane] = middle[lane]
    # The median without the largest one, see _peel.
    top = max(typical - 1, 0)
    second = top // 2 if typical >= 4 else max(typical - 2, 0)
    first = (top - 1) // 2 if typical >= 4 else second
    limit = threshold if typical >= 4 else threshold3 if typical == 3 else threshold2
    _mark_doubtful(gain, readnoise, frames, limit, y, x, lanes, keys, usable, typical, first, second, padded)
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
                        found = append_place(jumps, found, integration, group, y, x + lane)
                    before = value
    return found


@numba.njit(**UNCOUNTED)
def _single_pass_run(
    sci, groupdq, gain, readnoise, frames, thresholds, least, greatest, y, x, lanes, keys, previous, usable, padded,
    jumps, found,
):  # fmt: skip
    # Search some pixels of a row by one median each; the new number of jumps.
    nints, ngroups = sci.shape[:2]
    threshold = thresholds[0]
    words = padded.view(np.uint64)
    typical = _sorted_differences(sci, groupdq, gain, y, x, lanes, False, keys, previous, usable)
    top = max(typical - 1, 0)
    first, second = top // 2, min(typical // 2, top)
    row_least, row_greatest = least[y, x:], greatest[y, x:]
    lower, upper = keys[first * lanes :], keys[second * lanes :]
    for lane in range(lanes):
        row_least[lane] = lower[lane]
    for lane in range(lanes):
        row_greatest[lane] = upper[lane]
    _mark_doubtful(gain, readnoise, frames, threshold, y, x, lanes, keys, usable, typical, first, second, padded)
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
                        found = append_place(jumps, found, integration, group, y, x + lane)
                    before = value
    return found


@numba.njit(**COMPILED)
def _search(sci, groupdq, gain, readnoise, frames, thresholds, iterative, least, greatest):
    # Returns the jumps as (integration, group, y, x). `least` and `greatest` get the differences around the median of
    # each pixel; of the iterative search `greatest` alone: the median is at most that, their upper median regardless of
    # sign, and at least its negative.
    nints, ngroups, ny, nx = sci.shape
    count = nints * (ngroups - 1)
    width = min(max(_BUFFER // count // 16 * 16, 32), 256)
    keys = np.empty(count * width, np.float32)
    previous = np.empty(width, np.float32)
    usable = np.empty(width, np.int32)
    padded = np.zeros((width + 7) // 8 * 8, np.bool_)
    jumps = np.empty((256, 4), np.int32)
    found = 0
    for y in range(ny):
        for x in range(0, nx, width):
            lanes = min(width, nx - x)
            jumps = with_room(jumps, found, count * lanes)
            if iterative:
                found = _iterative_run(
                    sci, groupdq, gain, readnoise, frames, thresholds, greatest, y, x, lanes, keys, previous, usable,
                    padded, jumps, found,
                )  # fmt: skip
            else:
                found = _single_pass_run(
                    sci, groupdq, gain, readnoise, frames, thresholds, least, greatest, y, x, lanes, keys, previous,
                    usable, padded, jumps, found,
                )  # fmt: skip
    return jumps[:found]


@numba.njit(**UNCOUNTED)
def _any_flagged(flags):
    # Whether there is a JUMP_DET at all, in flags in one dimension.
    for start in range(0, flags.size, 8192):
        together = np.uint8(0)
        for flag in flags[start : start + 8192]:
            together = np.uint8(together | flag)
        if together & _JUMP:
            return True
    return False


@numba.njit(**COMPILED)
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
                        places = with_room(places, count, 1)
                        count = append_place(places, count, integration, group, y, x)
    return places[:count]


@numba.njit(**UNCOUNTED)
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
    return median_of(scratch, count) if count else np.nan


@numba.njit(**UNCOUNTED)
def _difference(sci, groupdq, gain, integration, group, y, x):
    # That of a group and the one before it; NaN where one of them is unusable.
    if (groupdq[integration, group, y, x] | groupdq[integration, group - 1, y, x]) & _UNUSABLE:
        return np.nan
    scale = gain[y, x]
    return np.float64(sci[integration, group, y, x] * scale - sci[integration, group - 1, y, x] * scale)


@numba.njit(**COMPILED)
def _exact_median(sci, groupdq, gain, y, x, known, scratch):
    # Median of the differences of a pixel, taken once. `known` is empty until the first.
    if not known.size:
        known = np.full(gain.shape, np.nan)
    if known[y, x] != known[y, x]:
        known[y, x] = _pixel_median(sci, groupdq, gain, y, x, scratch)
    return known[y, x], known


@numba.njit(**UNCOUNTED)
def _bounds(least, greatest, y, x):
    # Those of the median of a pixel.
    high = np.float64(greatest[y, x])
    return np.float64(least[y, x]) if least.size else -high, high


@numba.njit(**COMPILED)
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
                sources = with_room(sources, count, 1)
                count = append_place(sources, count, integration, group, y, x)
                continue
        if median != median:
            median, exact = _exact_median(sci, groupdq, gain, y, x, exact, scratch)
        sigma = np.sqrt(abs(median) + noise)
        ratio = abs(difference - median) / sigma
        if sigma != 0.0 and ratio < highest and ratio > lowest:
            sources = with_room(sources, count, 1)
            count = append_place(sources, count, integration, group, y, x)
    return sources[:count], exact


@numba.njit(**COMPILED)
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
                    count = append_place(more, count, integration, group, row, column)
    return more[:count]


@numba.njit(**UNCOUNTED)
def _reach(size, electrons1, groups1, electrons2, groups2):
    # Groups to flag after a jump.
    reach = groups1 if size >= electrons1 else 0
    return max(reach, groups2) if size >= electrons2 else reach


@numba.njit(**COMPILED)
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


@numba.njit(**UNCOUNTED)
def _count_within(places, y0, y1, x0, x1):
    count = 0
    for index in range(len(places)):
        count += y0 <= places[index, 2] < y1 and x0 <= places[index, 3] < x1
    return count


@numba.njit(**UNCOUNTED)
def _drop_redundant(flags):
    # JUMP_DET of groups that were unusable when they came; flags in one dimension.
    for index in range(flags.size):
        flag = flags[index]
        flags[index] = flag & ~_JUMP if flag & _UNUSABLE else flag


@numba.njit(**UNCOUNTED)
def _all_have(plane, bits):
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            if not plane[y, x] & bits:
                return False
    return True


@numba.njit(**UNCOUNTED)
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
    elif detection.regime in (ITERATIVE, SINGLE_PASS):
        iterative = detection.regime == ITERATIVE
        if not iterative:
            least = np.empty_like(greatest)
        fewer = float(detection.four_group_rejection_threshold), float(detection.three_group_rejection_threshold)
        places = _search(sci, flags, gain, readnoise, frames, (threshold, *fewer), iterative, least, greatest)
    else:
        least, greatest = np.full_like(greatest, np.inf), np.full_like(greatest, -np.inf)
        # Rows do not matter: runs of pixels may be longer than one.
        flat = (nints, ngroups, 1, -1)
        places = search_sigma_clip(
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
