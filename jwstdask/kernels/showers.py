"""Showers: faint, extended cosmic-ray events of the MIRI imager and spectrographs.

A shower spreads little charge over many pixels, too little in each for the two-point difference. The deviations of a
plane of differences from the medians of their pixels, in units of their noise, are smoothed with a ring; regions above
a threshold that are large enough are enclosed in ellipses and flagged as jumps for some time. Where that changes the
rate of a pixel by more than a shower could, the flags of the pixel are put back. Source: JWST pipeline documentation,
"jump", section on large events.

Arithmetic: deviations, noise and rates are float32, the smoothing is float64.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numba
import numpy as np

from jwstdask.core.dq import DO_NOT_USE, JUMP_DET, REFERENCE_PIXEL, SATURATED
from jwstdask.kernels.compiled import COMPILED, UNCOUNTED
from jwstdask.kernels.jump import whole_planes
from jwstdask.kernels.networks import sort_columns
from jwstdask.kernels.snowballs import Regions, grown, outline_of

_JUMP = np.uint8(JUMP_DET)
_SATURATED = np.uint8(SATURATED)
_UNUSABLE = np.uint8(DO_NOT_USE | SATURATED)
_ANY = np.uint8(DO_NOT_USE | SATURATED | JUMP_DET)
_NAN = np.float32(np.nan)
_INF = np.float32(np.inf)
_BAND = 32  # rows of a plane searched together
_FEWEST_DIFFERENCES = 10
_STRIP_VALUES = 2**22  # differences sigma-clipped at a time


@dataclass(frozen=True)
class Showers:
    """Constants of the shower search; names as the parameters of the jump step.

    Attributes
    ----------
    nframes
        Frames averaged in a group.
    extend_snr_threshold
        Least smoothed deviation [sigma] of a shower.
    extend_min_area
        Least area [pixel], holes filled.
    extend_inner_radius, extend_outer_radius
        Radius of the hole and width of the ring [pixel] that smooths.
    extend_ellipse_expand_ratio
        Growth of the ellipse.
    groups_after
        Groups flagged after the one with the shower.
    max_extended_radius
        Greatest radius of a grown ellipse [pixel].
    greatest_change
        Greatest change of a pixel's mean difference [electron] that is believed.
    clip_over_integrations
        Median and noise of a difference from its values in all integrations, sigma-clipped.
    searched
        False if the search for jumps found too few groups.
    """

    nframes: int
    greatest_change: float
    extend_snr_threshold: float = 1.2
    extend_min_area: float = 90
    extend_inner_radius: float = 1.0
    extend_outer_radius: float = 2.6
    extend_ellipse_expand_ratio: float = 1.1
    groups_after: int = 0
    max_extended_radius: int = 200
    clip_over_integrations: bool = False
    searched: bool = True


def ring_of(inner: float, width: float) -> np.ndarray:
    """Offsets (dy, dx) of the pixels of a ring around a pixel, int64 (pixel, 2)."""
    reach = int(np.ceil(inner + width))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    square = dy**2 + dx**2
    return np.argwhere((square >= inner**2) & (square <= (inner + width) ** 2)) - reach


@numba.njit(**UNCOUNTED)
def _ignored(flags, searched):
    # Groups that take no part: unusable ones, and those with no other flag than a jump.
    return 1 <= flags <= 5 or (searched and (flags & _UNUSABLE) != 0)


@numba.njit(**UNCOUNTED)
def _row_differences(sci, groupdq, gain, y, searched, out):
    # out: float32 (integration, difference, x), NaN where a group is ignored.
    for integration in range(sci.shape[0]):
        for group in range(1, sci.shape[1]):
            for x in range(sci.shape[3]):
                before = sci[integration, group - 1, y, x] * gain[y, x]
                after = sci[integration, group, y, x] * gain[y, x]
                if _ignored(groupdq[integration, group - 1, y, x], searched):
                    before = _NAN
                if _ignored(groupdq[integration, group, y, x], searched):
                    after = _NAN
                out[integration, group - 1, x] = after - before


@numba.njit(**COMPILED)
def _medians(sci, groupdq, gain, searched, out):
    # float32 (y, x) median of all differences of a pixel.
    nints, ngroups, ny, nx = sci.shape
    count = nints * (ngroups - 1)
    width = 64
    keys = np.empty(count * width, np.float32)
    previous = np.empty(width, np.float32)
    usable = np.empty(width, np.int32)
    for y in range(ny):
        for x in range(0, nx, width):
            lanes = min(width, nx - x)
            scale = gain[y, x : x + lanes]
            usable[:] = 0
            row = 0
            for integration in range(nints):
                previous[:] = _NAN
                for group in range(ngroups):
                    values = sci[integration, group, y, x : x + lanes]
                    dq = groupdq[integration, group, y, x : x + lanes]
                    target = keys[row * lanes : (row + 1) * lanes]
                    for lane in range(lanes):
                        value = values[lane] * scale[lane]
                        value = _NAN if _ignored(dq[lane], searched) else value
                        difference = value - previous[lane]
                        previous[lane] = value
                        good = difference == difference
                        if group > 0:
                            target[lane] = difference if good else _INF
                            usable[lane] += np.int32(good)
                    row += group > 0
            sort_columns(keys, count, lanes)
            for lane in range(lanes):
                number = usable[lane]
                if number == 0:
                    out[y, x + lane] = _NAN
                elif number % 2:
                    out[y, x + lane] = keys[number // 2 * lanes + lane]
                else:
                    upper = keys[number // 2 * lanes + lane]
                    out[y, x + lane] = (upper + keys[(number // 2 - 1) * lanes + lane]) / np.float32(2.0)


@numba.njit(**UNCOUNTED)
def _noise(middle, gain, nframes, noise):
    # float32 (y, x) noise of a difference, of the photons of its median and of the reads, in place of that of a read.
    for y in range(noise.shape[0]):
        for x in range(noise.shape[1]):
            read = noise[y, x] * gain[y, x]
            noise[y, x] = np.sqrt(abs(middle[y, x]) + read * read / nframes)


@numba.njit(**UNCOUNTED)
def _deviations(sci, groupdq, gain, integration, group, searched, masked, middle, sigma, reach, top, value, good):
    # |difference - median| / sigma of rows of a plane from `top - reach` on, inside a margin of `reach` columns: zero
    # and not good where masked, zero and good beyond the frame.
    ny, nx = sci.shape[2:]
    for row in range(len(value)):
        y = top + row - reach
        if not 0 <= y < ny:
            for column in range(value.shape[1]):
                value[row, column] = 0.0
                good[row, column] = 1
            continue
        for x in range(nx):
            before = sci[integration, group - 1, y, x] * gain[y, x]
            after = sci[integration, group, y, x] * gain[y, x]
            ratio = abs(after - before - middle[y, x]) / sigma[y, x]
            usable = (
                not masked[y, x]
                and (groupdq[integration, group, y, x] & _ANY) == 0
                and not _ignored(groupdq[integration, group - 1, y, x], searched)
                and ratio < np.inf
            )
            value[row, x + reach] = ratio if usable else np.float32(0.0)
            good[row, x + reach] = usable


@numba.njit(**COMPILED)
def _smooth_above(value, good, reach, ring, threshold, out):
    # Mean over the good pixels of the ring, of rows of a plane.
    ny, nx = out.shape
    total = np.empty(nx, np.float64)
    weight = np.empty(nx, np.int32)
    for y in range(ny):
        total[:] = 0.0
        weight[:] = 0
        for index in range(len(ring)):
            row = y + reach + ring[index, 0]
            column = reach + ring[index, 1]
            values = value[row, column : column + nx]
            goods = good[row, column : column + nx]
            for x in range(nx):
                total[x] += np.float64(values[x])
                weight[x] += goods[x]
        centre = good[y + reach, reach : reach + nx]
        for x in range(nx):
            out[y, x] = centre[x] != 0 and weight[x] > 0 and total[x] / weight[x] > threshold


@numba.njit(**UNCOUNTED)
def _draw_jumps(cube, first, last, limits, y, x, y_radius, x_radius, cosine, sine):
    # From group to group until a pixel saturates.
    for row in range(limits[0], limits[1]):
        for column in range(limits[2], limits[3]):
            dy = np.float64(row) - np.float64(y)
            dx = np.float64(column) - np.float64(x)
            along = (dy * cosine + dx * sine) / y_radius
            across = (dy * sine - dx * cosine) / x_radius
            if along * along + across * across < 1.0:
                for group in range(first, last):
                    if cube[group, row, column] & _SATURATED:
                        break
                    cube[group, row, column] |= _JUMP


@numba.njit(**UNCOUNTED)
def _mean_difference(ramp, flags, scale):
    total = np.float32(0.0)
    count = 0
    before = _NAN
    for group in range(len(ramp)):
        after = ramp[group] * scale
        if flags[group] & _ANY:
            after = _NAN
        difference = after - before
        if difference == difference:
            total += difference
            count += 1
        before = after
    return np.float32(np.float64(total) / count) if count else _NAN


@numba.njit(**COMPILED)
def _put_back(cube, before, rows, columns, ramps, gain, reference, limit):
    # before, ramps: (group, pixel) flags and values of the pixels that ellipses cover.
    for index in range(len(rows)):
        y = rows[index]
        x = columns[index]
        changed = False
        for group in range(cube.shape[0]):
            changed |= cube[group, y, x] != before[group, index]
        if not changed:
            continue
        old = _mean_difference(ramps[:, index], before[:, index], gain[y, x])
        new = _mean_difference(ramps[:, index], cube[:, y, x], gain[y, x])
        change = abs(old - new)
        if not change < np.inf or change > limit or reference[y, x]:
            cube[:, y, x] = before[:, index]


def _clipped(sci, groupdq, gain, search: Showers) -> tuple[np.ndarray, np.ndarray]:
    """Median and noise (difference, y, x) of each difference over the integrations, a strip of rows at a time."""
    from astropy.stats import sigma_clipped_stats

    nints, ngroups, ny, nx = sci.shape
    rows = max(_STRIP_VALUES // (nints * ngroups * nx), 1)
    middle, spread = [], []
    for start in range(0, ny, rows):
        strip = range(start, min(start + rows, ny))
        differences = np.empty((len(strip), nints, ngroups - 1, nx), np.float32)
        for row, y in enumerate(strip):
            _row_differences(sci, groupdq, gain, y, search.searched, differences[row])
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = sigma_clipped_stats(np.moveaxis(differences, 0, 2), sigma=5, axis=0)
        middle.append(found[1])
        spread.append(found[2])
    return np.concatenate(middle, axis=1), np.concatenate(spread, axis=1)


@numba.njit(**UNCOUNTED)
def _any_usable(plane, reference):
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            if not (plane[y, x] & DO_NOT_USE or reference[y, x]):
                return True
    return False


def flag_showers(
    sci: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    search: Showers,
    *,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Flag showers, plane by plane.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) of the whole frame [DN]; may be memory-mapped.
    groupdq
        uint8 (integration, group, y, x), after :func:`jwstdask.kernels.jump.detect_jumps`; may be memory-mapped.
    pixeldq
        uint32 (y, x).
    gain, readnoise
        float32 (y, x) [electron/DN], [DN].
    search
        The constants of the search.
    out
        uint8 array for the flags; may be ``groupdq`` itself.

    Returns
    -------
    out, events
        The flags, and the number of showers found (also of those whose flags were all put back).
    """
    if out is None:
        out = groupdq.copy()
    elif out is not groupdq:
        out[...] = groupdq
    flags, sci = np.asarray(out), np.asarray(sci)
    nints, ngroups, ny, nx = flags.shape
    if nints * (ngroups - 1) - int(whole_planes(flags, DO_NOT_USE).sum()) < _FEWEST_DIFFERENCES:
        return out, 0

    gain = np.ascontiguousarray(gain, np.float32)
    reference = pixeldq == REFERENCE_PIXEL
    masked = (pixeldq.astype(np.uint8) & _ANY != 0) | reference
    if search.clip_over_integrations:
        middle, sigma = _clipped(sci, flags, gain, search)
    else:
        middle = np.empty((1, ny, nx), np.float32)
        _medians(sci, flags, gain, search.searched, middle[0])
        sigma = np.array(readnoise, np.float32)[np.newaxis]
        _noise(middle[0], gain, np.float32(search.nframes), sigma[0])

    ring = ring_of(search.extend_inner_radius, search.extend_outer_radius)
    reach = int(np.abs(ring).max(initial=0))
    # A band of rows, which stays in the caches.
    value = np.zeros((_BAND + 2 * reach, nx + 2 * reach), middle.dtype)
    good = np.ones(value.shape, np.uint8)
    bright = np.empty((ny, nx), np.uint8)
    threshold = float(search.extend_snr_threshold)
    widest = 2 * search.max_extended_radius
    known: dict = {}
    events = 0
    for integration, cube in enumerate(flags):
        found = []
        first = next((group for group, plane in enumerate(cube) if _any_usable(plane, reference)), 0)
        for group in range(first + 1, ngroups):
            index = group - 1 if len(middle) > 1 else 0
            deviation = middle[index], sigma[index], reach
            for top in range(0, ny, _BAND):
                plane = integration, group, search.searched, masked, *deviation, top
                _deviations(sci, flags, gain, *plane, value, good)
                _smooth_above(value, good, reach, ring, threshold, bright[top : top + _BAND])
            regions = Regions(bright, None, 1, search.extend_min_area)
            for number in range(len(regions)):
                ellipse = regions.ellipse(number, known)
                events += 1
                if outline := outline_of(
                    ellipse, *grown(ellipse, search.extend_ellipse_expand_ratio, widest), (ny, nx)
                ):
                    found.append((group, outline))
        if not found:
            continue
        # Flags wait until the integration has been searched: those of later groups would hide showers.
        covered = np.zeros((ny, nx), bool)
        for _, outline in found:
            limits = np.maximum(outline[0], 0)
            covered[limits[0] : limits[1], limits[2] : limits[3]] = True
        y_of, x_of = np.nonzero(covered)
        before, ramps = cube[:, y_of, x_of], sci[integration][:, y_of, x_of]
        for group, outline in found:
            _draw_jumps(cube, group, min(group + search.groups_after + 1, ngroups), *outline)
        _put_back(cube, before, y_of, x_of, ramps, gain, reference, np.float32(search.greatest_change))
    return out, events
