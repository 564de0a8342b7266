"""Subtraction of dark current with the time sampling of the exposure."""

from __future__ import annotations

import math

import numba
import numpy as np

from jwstdask.kernels.compiled import UNCOUNTED
from jwstdask.kernels.decode import stored_float
from jwstdask.kernels.runs import flat, to_change

_LINE = 512
"""Pixels done at a time: what is worked on stays in the first-level cache."""


def missing_groups(ngroups: int, nframes: int, groupgap: int, dark_ngroups: int, dark_nframes: int, dark_groupgap: int):
    """Groups to add to a dark that is shorter than the exposure.

    Parameters
    ----------
    ngroups, nframes, groupgap
        Groups, frames averaged into a group and frames dropped between groups, of the exposure.
    dark_ngroups, dark_nframes, dark_groupgap
        The same of the dark.

    Returns
    -------
    int
        Zero if the dark is long enough.
    """
    frames = ngroups * nframes + (ngroups - 1) * groupgap
    dark_frames = dark_ngroups * dark_nframes + (dark_ngroups - 1) * dark_groupgap
    if frames <= dark_frames:
        return 0
    return math.ceil((frames - dark_frames + dark_groupgap) / (dark_nframes + dark_groupgap))


def frames_of_groups(ngroups: int, nframes: int, groupgap: int, available: int) -> list[range]:
    """Planes of a dark of ``available`` planes that are averaged for each group; empty where it has none."""
    starts = [group * (nframes + groupgap) for group in range(ngroups)]
    return [range(min(start, available), min(start + nframes, available)) for start in starts]


def subtract(
    sci: np.ndarray,
    dark: np.ndarray,
    groups: list[range],
    averaged: bool,
    rows: slice = slice(None),
    columns: slice = slice(None),
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Subtract from each group the average of its planes of a dark; NaN in a plane counts as zero.

    Beyond its end a dark goes on with its last difference, and all of it counts as float64.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    dark
        Floating point of any byte order (plane, y, x) [DN], at least two planes if one beyond the end is asked for.
    groups
        From :func:`frames_of_groups`. A group without planes becomes NaN.
    averaged
        Round the average to float32, as a dark resampled to the exposure; otherwise each group has one plane.
    rows, columns
        Part of the dark that ``sci`` covers.
    out
        Where to write; may be ``sci``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``sci`` [DN].

    Raises
    ------
    ValueError
        If ``groups`` is not as long as the ramp.
    """
    if len(groups) != sci.shape[1]:
        raise ValueError(f"the dark is sampled for {len(groups)} groups, the ramp has {sci.shape[1]}")
    out = to_change(sci, out)
    count = dark.shape[0]
    extrapolated = any(plane >= count for group in groups for plane in group)
    if not extrapolated and dark.dtype == ">f4":
        words, strides = flat(dark.view(np.ndarray)[:, rows, columns].view(np.uint32))
        ranges = np.array([(each.start, each.stop) for each in groups])
        _subtract_stored(out, words, strides, ranges, averaged, np.empty(_LINE, np.float32))
        return out
    last = rate = None
    if extrapolated:
        last = np.asarray(dark[count - 1, rows, columns], np.float32)
        rate = last - np.asarray(dark[count - 2, rows, columns], np.float32)
    # One group at a time: a dark as large as the tile would push the tile out of the cache.
    planes = np.empty((max(map(len, groups)), *sci.shape[2:]), np.float64 if extrapolated else np.float32)
    level = np.empty(sci.shape[-1], planes.dtype)
    for group, wanted in enumerate(groups):
        for index, plane in enumerate(wanted):
            if plane < count:
                planes[index] = dark[plane, rows, columns]
            else:
                planes[index] = np.float64(plane - count + 1) * rate + last
        _subtract(out, group, planes[: len(wanted)], averaged, level)
    return out


@numba.njit(**UNCOUNTED)
def _finish(sci, group, y, left, level, count, averaged):
    # Divide a line of sums by their number and subtract it from the pixels from ``left`` on.
    size = level.size
    if averaged and count > 1 and count & (count - 1) == 0:
        # A power of two: multiplying, which is faster, rounds in the same way.
        scale = level.dtype.type(1.0 / count)
        for x in range(size):
            level[x] = np.float32(level[x] * scale)
    elif averaged and count > 1:
        # The average is a float32 image even where the planes are float64.
        for x in range(size):
            level[x] = np.float32(level[x] / count)
    elif averaged:
        for x in range(size):
            level[x] = np.float32(level[x])
    for integration in range(len(sci)):
        values = sci[integration, group, y, left : left + size]
        for x in range(size):
            values[x] -= level[x]


@numba.njit(**UNCOUNTED)
def _add_one(words, level):
    for x in range(level.size):
        value = stored_float(words[x])
        level[x] += value if value == value else np.float32(0)


@numba.njit(**UNCOUNTED)
def _add_two(words, more, level):
    for x in range(level.size):
        value = stored_float(words[x])
        second = stored_float(more[x])
        total = level[x] + (value if value == value else np.float32(0))
        level[x] = total + (second if second == second else np.float32(0))


@numba.njit(**UNCOUNTED)
def _subtract_stored(sci, words, strides, groups, averaged, sums):
    # As below, of a dark as it stands in a FITS file: its bytes are swapped on the way. All groups, (first, end) plane.
    ny, nx = sci.shape[2:]
    for group in range(len(groups)):
        first, end = groups[group]
        for y in range(ny):
            for left in range(0, nx, sums.size):
                size = min(sums.size, nx - left)
                level = sums[:size]
                level[:] = np.float32(0 if first < end else np.nan)
                for plane in range(first, end, 2):
                    start = plane * strides[0] + y * strides[1] + left
                    if plane + 1 < end:
                        after = start + strides[0]
                        _add_two(words[start : start + size], words[after : after + size], level)
                    else:
                        _add_one(words[start : start + size], level)
                _finish(sci, group, y, left, level, end - first, averaged)


@numba.njit(**UNCOUNTED)
def _subtract(sci, group, planes, averaged, level):
    count, ny, nx = planes.shape
    zero = planes.dtype.type(0)
    for y in range(ny):
        level[:] = zero
        for plane in range(count):
            for x in range(nx):
                value = planes[plane, y, x]
                level[x] += value if value == value else zero
        if count == 0:
            level[:] = np.nan
        _finish(sci, group, y, 0, level, count, averaged)
