"""Fits of the single segments of ramps (the ``fitopt`` product)."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from jwstdask.core.dq import DO_NOT_USE, JUMP_DET, NO_GAIN_VALUE, SATURATED
from jwstdask.kernels.ramp_fit import common_arguments
from jwstdask.kernels.ramp_lines import weight_table
from jwstdask.kernels.ramp_pixel import (
    fit_ramp,
    fit_segment,
    load,
    median_rate,
    poisson_variance,
    read_variance,
    time_of_single,
)


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


@numba.njit(cache=True, nogil=True, error_model="numpy")
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
    sums = np.empty(4)
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
                load(
                    sci, groupdq, zeroframe, i, y, x, first, last, suppress, data[i], dq[i], original, counts[i]
                )  # fmt: skip
                start = counts[i, 3]
                rate += median_rate(data[i], dq[i], start, group_time, frame_time, one_group_time, scratch)
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
                single_time = time_of_single(counts[i, 3], group_time, frame_time, one_group_time)
                bits, slope, _, _, _, count, places = fit_ramp(
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
                    slope, sigslope, yint, sigyint = fit_segment(
                        data[i], starts[segment], length, 0, g, noise, time, table
                    )
                    read = read_variance(noise, g, length, time)
                    slopes[i, segment, y, x] = slope
                    sigslopes[i, segment, y, x] = sigslope
                    poissons[i, segment, y, x] = poisson_variance(rate, dark_rate, g, length, time)
                    rnoises[i, segment, y, x] = read
                    yints[i, segment, y, x] = yint
                    sigyints[i, segment, y, x] = sigyint
                    weights[i, segment, y, x] = 1.0 / read
    return most_segments, most_jumps


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

    Other parameters as in :func:`jwstdask.kernels.ramp_fit.ramp_fit`.

    Returns
    -------
    Segments
        Their second dimension is as long as the most segments (jumps) in any integration of the pixels fitted;
        outside ``inner`` they are 0.
    """
    common = common_arguments(
        sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark_current, group_time, frame_time, nframes,
        suppress_one_group, first_group, last_group,
    )  # fmt: skip
    rows, columns = inner or (slice(None), slice(None))
    y0, y1, _ = rows.indices(sci.shape[2])
    x0, x1, _ = columns.indices(sci.shape[3])
    pedestal_groups = ((nframes + 1) / 2.0 + drop_frames1) / (nframes + groupgap)
    arguments = (*common, y0, y1, x0, x1, pedestal_groups, weight_table(common[-1] - common[-2]))
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
