"""Flags for groups that reached the saturation level, or the floor of the analogue-to-digital converter."""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np

from jwstdask.core import dq
from jwstdask.kernels.compiled import COMPILED, INLINE, UNCOUNTED
from jwstdask.kernels.decode import swapped, words_of
from jwstdask.kernels.flag_lines import any_flag
from jwstdask.kernels.prefetch import LINE

UNREACHABLE = np.float32(65536.0)
"""A level that no 16-bit count reaches, for pixels without a known saturation level [DN]."""

_SATURATED = np.uint8(dq.SATURATED)
_DO_NOT_USE = np.uint8(dq.DO_NOT_USE)
_FLOOR = np.uint8(dq.AD_FLOOR | dq.DO_NOT_USE)
_NO_USE = np.uint8(dq.SATURATED | dq.DO_NOT_USE)
_ZERO = np.uint8(0)
_FLOOR_LEVEL = np.float32(0)
_NO_SAT_CHECK = np.uint32(dq.NO_SAT_CHECK)


def levels(stored: np.ndarray, threshold_dq: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Saturation levels for :func:`flag`, from a reference.

    Parameters
    ----------
    stored
        Floating point of any byte order (y, x) [DN]; NaN where unknown.
    threshold_dq
        uint32 (y, x); NO_SAT_CHECK where the level must not be used.

    Returns
    -------
    threshold, unchecked, threshold_dq
        float32 (y, x) with :data:`UNREACHABLE` where the level is not used; bool (y, x), true there; uint32 (y, x) with
        NO_SAT_CHECK added where the level is NaN.
    """
    level, flags = np.empty(stored.shape, np.float32), np.empty(stored.shape, np.uint32)
    unchecked = np.empty(stored.shape, np.bool_)
    words, (stride,), turned = words_of(stored)
    _levels(words, stride, turned, threshold_dq, level, unchecked, flags)
    return level, unchecked, flags


@numba.njit(**UNCOUNTED)
def _levels(words, stride, turned, threshold_dq, level, unchecked, flags):
    ny, nx = level.shape
    for y in range(ny):
        row = words[y * stride : y * stride + nx]
        given, target, marks, bits_of_row = threshold_dq[y], level[y], unchecked[y], flags[y]
        for x in range(nx):
            value = np.uint32(swapped(row[x]) if turned else row[x]).view(np.float32)
            bits = np.uint32(given[x] | (np.uint32(0) if value == value else _NO_SAT_CHECK))
            unused = np.uint32(bits & _NO_SAT_CHECK) != np.uint32(0)
            bits_of_row[x] = bits
            marks[x] = unused
            target[x] = UNREACHABLE if unused else value


def flag(
    sci: np.ndarray,
    groupdq: np.ndarray,
    threshold: np.ndarray,
    unchecked: np.ndarray,
    *,
    n_pix_grow_sat: int = 1,
    nframes: int | None = None,
    bias: np.ndarray | None = None,
    zeroframe: np.ndarray | None = None,
) -> np.ndarray:
    """Flag saturated groups and groups at the converter's floor.

    A pixel is SATURATED from the first group at or above its level to the end of the integration; in each group the
    flag also goes to the neighbours of its bearers. A group at or below zero is AD_FLOOR and DO_NOT_USE.

    If groups are averages of frames, a pixel may saturate within a group whose average stays below the level. Such a
    group is DO_NOT_USE, with its neighbours, when the next one is saturated and its average reaches the level scaled by
    mean over last frame number. The second of three groups is DO_NOT_USE too when the third is saturated although the
    first (above the bias) predicts that it should not, and the rise to the second would take a single saturated frame.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN], bias included.
    groupdq
        uint8 (integration, group, y, x), changed in place.
    threshold, unchecked
        float32 and bool (y, x) from :func:`levels`.
    n_pix_grow_sat
        Layers of neighbours flagged around a saturated pixel.
    nframes
        Frames averaged into a group; None leaves out the rules for averaged groups.
    bias
        float32 (y, x) [DN], zero if None.
    zeroframe
        float32 (integration, y, x) [DN]; saturated values with their neighbours, and values at the floor, are set to
        zero in place.

    Returns
    -------
    numpy.ndarray
        uint8 (y, x), all flags met over integrations and groups.
    """
    dilution, expected = _sampling(sci.shape[1], nframes)
    if bias is None:
        bias = np.zeros(threshold.shape, np.float32)
    union = np.zeros(threshold.shape, np.uint8)
    _flag(sci, groupdq, threshold, unchecked, n_pix_grow_sat, dilution, expected, bias, union)
    if zeroframe is not None:
        _clear_zeroframe(zeroframe, threshold, n_pix_grow_sat)
    return union


def flag_interleaved(
    sci: np.ndarray,
    groupdq: np.ndarray,
    threshold: np.ndarray,
    *,
    n_pix_grow_sat: int = 1,
    nframes: int | None = None,
    bias: np.ndarray | None = None,
    zeroframe: np.ndarray | None = None,
) -> np.ndarray:
    """Flag saturated groups and groups at the converter's floor of a ramp read in IRS2 mode, without its references.

    As :func:`flag`, but flags that were there before have no part in it, averaged groups are not searched backwards,
    and where the second of three groups hides saturation, it and its neighbours are SATURATED instead of DO_NOT_USE.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN], bias included.
    groupdq
        uint8 (integration, group, y, x), changed in place.
    threshold
        float32 (y, x) from :func:`levels`.
    n_pix_grow_sat
        Layers of neighbours flagged around a saturated pixel.
    nframes
        Frames averaged into a group; None leaves out the rule for the second group.
    bias
        float32 (y, x) [DN], zero if None.
    zeroframe
        float32 (integration, y, x) [DN]; saturated values with their neighbours, and values at the floor, are set to
        zero in place.

    Returns
    -------
    numpy.ndarray
        uint8 (y, x), all flags met over integrations and groups.
    """
    _, expected = _sampling(sci.shape[1], nframes)
    if bias is None:
        bias = np.zeros(threshold.shape, np.float32)
    union = np.zeros(threshold.shape, np.uint8)
    _flag_interleaved(sci, groupdq, threshold, n_pix_grow_sat, expected, bias, union)
    if zeroframe is not None:
        _clear_zeroframe(zeroframe, threshold, n_pix_grow_sat)
    return union


@lru_cache(maxsize=64)
def _sampling(groups: int, nframes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean over last frame number of each group; mean of the first group, last of the third, frames in a group.

    Ones, and zeros, if there is no rule for averaged groups. Frame numbers count from one and leave out the gaps.
    """
    if nframes is None:
        return np.ones(groups), np.zeros(3)
    frames = [np.arange(1, nframes + 1) + group * nframes for group in range(max(groups, 3))]
    dilution = np.array([np.mean(frames[group]) / frames[group][-1] for group in range(groups)])
    return dilution, np.array([np.mean(frames[0]), float(frames[2][-1]), float(nframes)])


@numba.njit(**INLINE)
def _marked(row, start):
    # Whether one of the next marks of a row, as many as fill a line of the caches, is not zero.
    if start + LINE <= row.size:
        return any_flag(row, start)
    bits = _ZERO
    for x in range(start, row.size):
        bits = np.uint8(bits | row[x])
    return bits != 0


@numba.njit(**INLINE)
def _next_run(row, start):
    # From a column that begins a line of the caches on: first and last column of the next lines with marks.
    nx = row.size
    first = start
    while first < nx and not _marked(row, first):
        first += LINE
    last = first
    while last < nx and _marked(row, last):
        last += LINE
    return first, min(last, nx)


@numba.njit(**UNCOUNTED)
def _grow(marks, marked_rows, layers, bit, flags, flagged_rows, line):
    """Set ``bit`` in ``flags`` (y, x) within ``layers`` pixels of each nonzero of ``marks`` (y, x).

    Rows without marks have ``marked_rows`` false and are not read.
    """
    ny, nx = marks.shape
    layers = min(layers, max(ny, nx) - 1)
    for y in range(ny):
        if not marked_rows[y]:
            continue
        row = marks[y]
        bottom, top = max(y - layers, 0), min(y + layers + 1, ny)
        flagged_rows[bottom:top] = True
        first, last = _next_run(row, 0)
        while first < nx:
            left, right = max(first - layers, 0), min(last + layers, nx)
            wide = line[: right - left]
            wide[:] = 0
            for shift in range(-layers, layers + 1):
                begin, end = max(first, -shift), min(last, nx - shift)
                source, target = row[begin:end], line[begin + shift - left : end + shift - left]
                # Without these casts flags of 64 bits would be joined, an eighth as many at a time.
                for x in range(source.size):
                    target[x] = np.uint8(target[x] | source[x])
            for near in range(bottom, top):
                target = flags[near, left:right]
                for x in range(wide.size):
                    target[x] = np.uint8(target[x] | np.uint8(wide[x] & bit))
            first, last = _next_run(row, last)


@numba.njit(**COMPILED)
def _flag(sci, groupdq, threshold, unchecked, layers, dilution, expected, bias, union):
    _, groups, ny, nx = sci.shape
    room = (
        np.empty(nx, np.uint8), np.empty(nx, np.uint8), np.empty((ny, nx), np.uint8), np.empty(ny, np.bool_),
        np.empty(ny, np.bool_), np.empty((groups, ny), np.bool_),
    )  # fmt: skip
    _flag_integrations(sci, groupdq, threshold, unchecked, layers, dilution, expected, bias, union, room)


@numba.njit(**UNCOUNTED)
def _flag_integrations(sci, groupdq, threshold, unchecked, layers, dilution, expected, bias, union, room):
    integrations, groups, ny, nx = sci.shape
    reached, line, marks, marked_rows, unneeded, rows = room
    for integration in range(integrations):
        for y in range(ny):
            reached[:] = 0
            for group in range(groups):
                values, flags = sci[integration, group, y], groupdq[integration, group, y]
                bits = _ZERO
                for x in range(nx):
                    # Without these casts numbers of 64 bits would be compared and joined, an eighth as many at a time.
                    since = np.uint8(reached[x] | (_SATURATED if values[x] >= threshold[y, x] else _ZERO))
                    reached[x] = since
                    new = np.uint8(flags[x] | since | (_FLOOR if values[x] <= _FLOOR_LEVEL else _ZERO))
                    flags[x] = new
                    bits = np.uint8(bits | new)
                rows[group, y] = (bits & _SATURATED) != 0
        for group in range(groups):
            flags = groupdq[integration, group]
            met = False
            for y in range(ny):
                marked_rows[y] = rows[group, y]
                met |= marked_rows[y]
                if marked_rows[y]:
                    for x in range(nx):
                        marks[y, x] = np.uint8(flags[y, x] & _SATURATED)
            if met and layers > 0:
                _grow(marks, marked_rows, layers, _SATURATED, flags, rows[group], line)

        # From the last group back: saturation hidden in the average of a group before the first saturated one.
        for group in range(groups - 2, -1, -1):
            if dilution[group] == 1:
                continue
            values = sci[integration, group]
            flags = groupdq[integration, group]
            following = groupdq[integration, group + 1]
            met = False
            for y in range(ny):
                marked_rows[y] = False
                if not rows[group + 1, y]:
                    continue
                row, line_of_flags, line_after = marks[y], flags[y], following[y]
                for x in range(nx):
                    early = np.uint8(line_of_flags[x] & _NO_USE)
                    row[x] = np.uint8(line_after[x] & _SATURATED) if early == _ZERO else _ZERO
                bits = _ZERO
                first, last = _next_run(row, 0)
                while first < nx:
                    for x in range(first, last):
                        level = np.float64(threshold[y, x])
                        if not unchecked[y, x]:
                            level = level * dilution[group]
                        row[x] = _DO_NOT_USE if row[x] != 0 and values[y, x] >= level else _ZERO
                        bits = np.uint8(bits | row[x])
                    first, last = _next_run(row, last)
                marked_rows[y] = bits != 0
                met |= marked_rows[y]
            if met:
                # The rows in which this rule sets DO_NOT_USE are of no use to any later rule.
                _grow(marks, marked_rows, layers, _DO_NOT_USE, flags, unneeded, line)

        if groups > 2 and expected[2] > 0:
            share = np.float32(expected[2])
            for y in range(ny):
                if not rows[2, y]:
                    continue
                second, third = groupdq[integration, 1, y], groupdq[integration, 2, y]
                bits = _ZERO
                for x in range(nx):
                    bits = np.uint8(bits | np.uint8(third[x] & np.uint8(~second[x])))
                if (bits & _SATURATED) == 0:
                    continue
                for x in range(nx):
                    if (third[x] & ~second[x] & _SATURATED) != 0:
                        start = sci[integration, 0, y, x]
                        offset = bias[y, x]
                        predicted = np.float64(start - offset) / expected[0] * expected[1] + np.float64(offset)
                        rise = sci[integration, 1, y, x] - start
                        if predicted < threshold[y, x] and rise > (threshold[y, x] - start) / share:
                            groupdq[integration, 1, y, x] |= _DO_NOT_USE

        for group in range(groups):
            for y in range(ny):
                row, line_of_flags = union[y], groupdq[integration, group, y]
                for x in range(nx):
                    row[x] = np.uint8(row[x] | line_of_flags[x])


@numba.njit(**COMPILED)
def _flag_interleaved(sci, groupdq, threshold, layers, expected, bias, union):
    integrations, groups, ny, nx = sci.shape
    saturated = np.empty((ny, nx), np.uint8)
    marks = np.empty((ny, nx), np.uint8)
    marked_rows = np.empty(ny, np.bool_)
    flagged_rows = np.empty(ny, np.bool_)
    line = np.empty(nx, np.uint8)
    share = np.float32(expected[2])
    for integration in range(integrations):
        saturated[:] = 0
        marked_rows[:] = False
        for group in range(groups):
            values, flags = sci[integration, group], groupdq[integration, group]
            met = False
            for y in range(ny):
                bits = _ZERO
                for x in range(nx):
                    value = values[y, x]
                    reached = np.uint8(saturated[y, x] | (_SATURATED if value >= threshold[y, x] else _ZERO))
                    saturated[y, x] = reached
                    bits = np.uint8(bits | reached)
                    flags[y, x] |= reached | (_FLOOR if value <= _FLOOR_LEVEL else _ZERO)
                marked_rows[y] = bits != 0
                met |= marked_rows[y]
            if met and layers > 0:
                for y in range(ny):
                    if marked_rows[y]:
                        marks[y] = saturated[y]
                _grow(marks, marked_rows, layers, _SATURATED, flags, flagged_rows, line)

        if groups > 2 and expected[2] > 0:
            second = groupdq[integration, 1]
            met = False
            for y in range(ny):
                marked_rows[y] = False
                for x in range(nx):
                    marks[y, x] = _ZERO
                    if sci[integration, 2, y, x] >= threshold[y, x]:
                        start = sci[integration, 0, y, x]
                        offset = bias[y, x]
                        predicted = np.float64(start - offset) / expected[0] * expected[1] + np.float64(offset)
                        rise = sci[integration, 1, y, x] - start
                        if predicted < threshold[y, x] and rise > (threshold[y, x] - start) / share:
                            marks[y, x] = _SATURATED
                            second[y, x] |= _SATURATED
                            marked_rows[y] = True
                            met = True
            if met and layers > 0:
                _grow(marks, marked_rows, layers, _SATURATED, second, flagged_rows, line)

        for group in range(groups):
            for y in range(ny):
                for x in range(nx):
                    union[y, x] |= groupdq[integration, group, y, x]


@numba.njit(**COMPILED)
def _clear_zeroframe(zeroframe, threshold, layers):
    integrations, ny, nx = zeroframe.shape
    marks = np.empty((ny, nx), np.uint8)
    grown = np.empty((ny, nx), np.uint8)
    marked_rows = np.empty(ny, np.bool_)
    cleared_rows = np.empty(ny, np.bool_)
    line, values = np.empty(nx, np.uint8), np.empty(nx, np.float32)
    for integration in range(integrations):
        for y in range(ny):
            bits = _ZERO
            for x in range(nx):
                value = zeroframe[integration, y, x]
                mark = _SATURATED if value >= threshold[y, x] else _ZERO
                marks[y, x] = mark
                grown[y, x] = mark | (_FLOOR if value <= _FLOOR_LEVEL else _ZERO)
                bits = np.uint8(bits | mark)
            marked_rows[y] = bits != 0
        if layers > 0:
            _grow(marks, marked_rows, layers, _SATURATED, grown, cleared_rows, line)
        for y in range(ny):
            # Through a line of its own: to store some of the values is slower than to store all.
            for x in range(nx):
                values[x] = zeroframe[integration, y, x] if grown[y, x] == 0 else np.float32(0)
            for x in range(nx):
                zeroframe[integration, y, x] = values[x]
