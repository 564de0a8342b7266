"""Subtraction of dark current with the time sampling of the exposure."""

from __future__ import annotations

import math

import numba
import numpy as np


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


def read_frames(dark: np.ndarray, groups: list[range], rows: slice, columns: slice) -> np.ndarray:
    """The planes needed of a dark, extrapolated with its last difference where it ends.

    Parameters
    ----------
    dark
        Floating point of any byte order (group, y, x) [DN], at least two groups if any plane lies beyond the end.
    groups
        From :func:`frames_of_groups`.
    rows, columns
        Part of the frame.

    Returns
    -------
    numpy.ndarray
        (frame, y, x) [DN], the planes of all groups one after another; float64 if one is extrapolated, else float32.
    """
    planes = [plane for group in groups for plane in group]
    count = dark.shape[0]
    extrapolated = any(plane >= count for plane in planes)
    shape = (len(planes), *dark[0, rows, columns].shape)
    frames = np.empty(shape, np.float64 if extrapolated else np.float32)
    if extrapolated:
        last = np.asarray(dark[count - 1, rows, columns], np.float32)
        rate = last - np.asarray(dark[count - 2, rows, columns], np.float32)
    for index, plane in enumerate(planes):
        if plane < count:
            frames[index] = dark[plane, rows, columns]
        else:
            frames[index] = np.float64(plane - count + 1) * rate + last
    return frames


def subtract(
    sci: np.ndarray, frames: np.ndarray, groups: list[range], averaged: bool, out: np.ndarray | None = None
) -> np.ndarray:
    """Subtract from each group the average of its dark frames; NaN in a frame counts as zero.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    frames
        float32 or float64 (frame, y, x) [DN] from :func:`read_frames`.
    groups
        From :func:`frames_of_groups`. A group without frames becomes NaN.
    averaged
        Round the average to float32, as a dark resampled to the exposure; otherwise each group has one frame.
    out
        Where to write; may be ``sci``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``sci`` [DN].
    """
    if out is None:
        out = np.empty_like(sci)
    _subtract(sci, frames, np.array([len(group) for group in groups]), averaged, out)
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _subtract(sci, frames, counts, averaged, out):
    integrations, groups, ny, nx = sci.shape
    level = np.empty(nx, frames.dtype)
    zero = frames.dtype.type(0)
    start = 0
    for group in range(groups):
        count = counts[group]
        for y in range(ny):
            for x in range(nx):
                level[x] = zero
            for frame in range(start, start + count):
                for x in range(nx):
                    value = frames[frame, y, x]
                    level[x] += value if value == value else zero
            if count == 0:
                for x in range(nx):
                    level[x] = np.nan
            elif averaged:
                # The average is a float32 image even where the frames are float64.
                for x in range(nx):
                    level[x] = np.float32(level[x] / count)
            for integration in range(integrations):
                for x in range(nx):
                    out[integration, group, y, x] = sci[integration, group, y, x] - level[x]
        start += count
