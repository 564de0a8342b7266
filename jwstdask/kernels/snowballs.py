"""Large cosmic-ray events of the near-infrared detectors: snowballs.

A snowball is a connected region of jumps around a core that saturates. Its jump flags are grown to an enlarged
ellipse, its saturated core is grown as well and stays flagged for the rest of the integration and, as a jump, in the
first groups of the next one. Source: JWST pipeline documentation, "jump", section on large events.

Regions are 8-connected. The ellipse of a region has the second moments of the region (Burger & Burge 2009, "Principles
of Digital Image Processing"): full axes 4 sqrt(eigenvalue of the covariance), here less one pixel. Whether a pixel
belongs to a drawn ellipse hangs on the last bits of its angle and axes (a circle of integer radius passes through pixel
centres), so the few ellipses that matter are computed in one fixed order of operations, :func:`ellipse_of`; everything
else uses exact integer moments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

from jwstdask.core.dq import JUMP_DET, SATURATED
from jwstdask.kernels.compiled import COMPILED, UNCOUNTED

_JUMP = np.uint8(JUMP_DET)
_SATURATED = np.uint8(SATURATED)
_WORDS = 16  # of eight pixels, looked at together


@dataclass(frozen=True)
class Snowballs:
    """Constants of the snowball search; names as the parameters of the jump step.

    Attributes
    ----------
    min_jump_area, min_sat_area
        Least area [pixel], holes filled, of a region of jumps and of a region of new saturation.
    expand_factor
        Growth of the ellipse of jumps.
    sat_required_snowball
        A region of jumps is a snowball only if the centre of new saturation lies inside its ellipse.
    min_sat_radius_extend
        Saturated cores with a longer minor axis than this [pixel] are grown.
    sat_expand
        Growth of the radius of a saturated core [pixel].
    edge_size
        Regions of jumps centred within so many pixels of the frame's edge need no saturated core.
    max_extended_radius
        Greatest radius of a grown ellipse [pixel].
    persistent_groups
        First groups of the next integration, counted from its group 0 (which is not flagged), in which saturated cores
        are flagged as jumps; 0 for none.
    """

    min_jump_area: float = 5.0
    min_sat_area: float = 1.0
    expand_factor: float = 2.0
    sat_required_snowball: bool = True
    min_sat_radius_extend: float = 2.5
    sat_expand: int = 2
    edge_size: int = 25
    max_extended_radius: int = 200
    persistent_groups: int = 0


class Ellipse(NamedTuple):
    """Centre [pixel], full axes (minor, major) less one pixel, angle [degree] between the major axis and rows."""

    x: float
    y: float
    minor: float
    major: float
    angle: float


@numba.njit(**COMPILED)
def _larger(runs):
    larger = np.empty((2 * len(runs), 3), np.int32)
    larger[: len(runs)] = runs
    return larger


@numba.njit(**COMPILED)
def _find_runs(plane, words, previous, previous_words, bit, fresh):
    # Horizontal runs of pixels with `bit` (if `fresh`: and without it in `previous`), as (y, first x, end x). Most
    # pixels have no flags, so eight are looked at together, as a word, and many words before each of them.
    ny, nx = plane.shape
    bits = np.uint64(bit) * np.uint64(0x0101010101010101)
    runs = np.empty((1024, 3), np.int32)
    count = 0
    for y in range(ny):
        start = -1
        empty = 0
        for word in range(words.shape[1] + 1):
            if word < empty:
                continue
            if start < 0 and word % _WORDS == 0 and word + _WORDS <= words.shape[1]:
                together = np.uint64(0)
                if fresh:
                    for index in range(word, word + _WORDS):
                        together |= words[y, index] & ~previous_words[y, index]
                else:
                    for index in range(word, word + _WORDS):
                        together |= words[y, index]
                if together & bits == 0:
                    empty = word + _WORDS
                    continue
            x0 = 8 * word
            x1 = nx
            if word < words.shape[1]:
                found = words[y, word] & bits
                if fresh:
                    found &= ~previous_words[y, word]
                if found == (bits if start >= 0 else np.uint64(0)):
                    continue
                x1 = x0 + 8
            for x in range(x0, x1):
                inside = (plane[y, x] & bit) != 0 and not (fresh and (previous[y, x] & bit) != 0)
                if inside and start < 0:
                    start = x
                elif not inside and start >= 0:
                    if count == len(runs):
                        runs = _larger(runs)
                    runs[count, 0] = y
                    runs[count, 1] = start
                    runs[count, 2] = x
                    count += 1
                    start = -1
        if start >= 0:
            if count == len(runs):
                runs = _larger(runs)
            runs[count, 0] = y
            runs[count, 1] = start
            runs[count, 2] = nx
            count += 1
    return runs[:count]


def _words(plane):
    # Whole words of each row.
    return plane[:, : plane.shape[1] // 8 * 8].view(np.uint64)


@numba.njit(**UNCOUNTED)
def _root(parent, index):
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


@numba.njit(**COMPILED)
def _join_runs(runs):
    # Region number of every run (8-connectivity) and the number of regions; union-find over runs of touching rows.
    count = len(runs)
    parent = np.arange(count)
    above = 0
    for index in range(count):
        y, start, stop = runs[index]
        while above < index and (runs[above, 0] < y - 1 or (runs[above, 0] == y - 1 and runs[above, 2] < start)):
            above += 1
        other = above
        while other < index and runs[other, 0] == y - 1 and runs[other, 1] <= stop:
            first = _root(parent, other)
            second = _root(parent, index)
            parent[max(first, second)] = min(first, second)
            other += 1
    label = np.empty(count, np.int64)
    regions = 0
    for index in range(count):
        root = _root(parent, index)
        if root == index:
            label[index] = regions
            regions += 1
        else:
            label[index] = label[root]
    return label, regions


@numba.njit(**COMPILED)
def _measure(runs, label, regions):
    # Exact integer moments about the origin and bounding boxes.
    moments = np.zeros((regions, 6), np.int64)  # area, y, x, yy, yx, xx
    box = np.empty((regions, 4), np.int64)
    box[:, 0] = np.iinfo(np.int64).max
    box[:, 1] = 0
    box[:, 2] = np.iinfo(np.int64).max
    box[:, 3] = 0
    for index in range(len(runs)):
        region = label[index]
        y = np.int64(runs[index, 0])
        for column in range(runs[index, 1], runs[index, 2]):
            x = np.int64(column)
            moments[region, 0] += 1
            moments[region, 1] += y
            moments[region, 2] += x
            moments[region, 3] += y * y
            moments[region, 4] += y * x
            moments[region, 5] += x * x
        box[region, 0] = min(box[region, 0], y)
        box[region, 1] = max(box[region, 1], y + 1)
        box[region, 2] = min(box[region, 2], runs[index, 1])
        box[region, 3] = max(box[region, 3], runs[index, 2])
    return moments, box


@numba.njit(**COMPILED)
def _paint(runs, order, begin, end, box):
    mask = np.zeros((box[1] - box[0], box[3] - box[2]), np.uint8)
    for position in range(begin, end):
        y, start, stop = runs[order[position]]
        mask[y - box[0], start - box[2] : stop - box[2]] = 1
    return mask


@numba.njit(**COMPILED)
def _filled_area(mask):
    # Area with holes filled; the outside spreads over all eight neighbours from beyond the bounding box.
    ny, nx = mask.shape
    outside = np.zeros((ny + 2, nx + 2), np.bool_)
    stack = np.empty(((ny + 2) * (nx + 2), 2), np.int64)
    stack[0, 0] = 0
    stack[0, 1] = 0
    outside[0, 0] = True
    size = 1
    reached = 1
    while size > 0:
        size -= 1
        y = stack[size, 0]
        x = stack[size, 1]
        for row in range(max(y - 1, 0), min(y + 2, ny + 2)):
            for column in range(max(x - 1, 0), min(x + 2, nx + 2)):
                if outside[row, column]:
                    continue
                if 1 <= row <= ny and 1 <= column <= nx and mask[row - 1, column - 1]:
                    continue
                outside[row, column] = True
                reached += 1
                stack[size, 0] = row
                stack[size, 1] = column
                size += 1
    return (ny + 2) * (nx + 2) - reached


@numba.njit(**COMPILED)
def _large_enough(runs, order, begin, moments, box, least):
    keep = np.empty(len(moments), np.bool_)
    for region in range(len(moments)):
        area = moments[region, 0]
        keep[region] = area >= least
        inside = (box[region, 1] - box[region, 0] - 2) * (box[region, 3] - box[region, 2] - 2)
        # A hole takes at least eight pixels to enclose.
        if not keep[region] and area >= 8 and area + inside >= least:
            mask = _paint(runs, order, begin[region], begin[region + 1], box[region])
            keep[region] = _filled_area(mask) >= least
    return keep


def ellipse_of(mask: np.ndarray) -> tuple[float, float, float]:
    """Axes and angle of the ellipse with the second moments of a region.

    Parameters
    ----------
    mask
        uint8 (y, x), 1 inside the region, cut to its bounding box.

    Returns
    -------
    minor, major, angle
        Full axes less one pixel, angle [degree] between the major axis and the direction of rows.
    """
    area = float(mask.sum())
    rows, columns = np.arange(mask.shape[0], dtype=float), np.arange(mask.shape[1], dtype=float)
    centre = float(mask.sum(axis=1) @ rows) / area, float(mask.sum(axis=0) @ columns) / area
    # Powers by `**` and sums by einsum in this order and extent: other ways differ in the last bit.
    powers = [(axis - middle)[:, np.newaxis] ** np.arange(4.0) for axis, middle in zip((rows, columns), centre)]
    moment = np.einsum(mask.astype(float), [2, 1], powers[0], [2, 3], [3, 1], optimize="greedy")
    moment = np.einsum(moment, [0, 2], powers[1], [2, 3], [0, 3], optimize="greedy")
    total = moment[2, 0] + moment[0, 2]
    yy, xx = (total - moment[2, 0]) / moment[0, 0], (total - moment[0, 2]) / moment[0, 0]
    yx = -moment[1, 1] / moment[0, 0]
    smaller, larger = np.clip(np.linalg.eigvalsh(np.array([[yy, yx], [yx, xx]])), 0.0, None)
    if yy - xx == 0:
        angle = math.pi / 4.0 if yx < 0 else -math.pi / 4.0
    else:
        angle = 0.5 * math.atan2(-2 * yx, xx - yy)
    return 4 * math.sqrt(smaller) - 1, 4 * math.sqrt(larger) - 1, float(np.degrees(angle))


class Regions:
    """Connected regions of a plane that are large enough, in exact integers; ellipses on demand."""

    def __init__(self, plane: np.ndarray, previous: np.ndarray | None, bit: np.uint8, least: float) -> None:
        before = plane if previous is None else previous
        self._runs = _find_runs(plane, _words(plane), before, _words(before), bit, previous is not None)
        label, regions = _join_runs(self._runs)
        moments, box = _measure(self._runs, label, regions)
        self._order = np.argsort(label, kind="stable")
        self._begin = np.concatenate([[0], np.cumsum(np.bincount(label, minlength=regions))])
        keep = _large_enough(self._runs, self._order, self._begin, moments, box, float(least))
        self._index = np.flatnonzero(keep)
        self._box = box
        area, y, x, yy, yx, xx = moments[keep].T
        self.y = y / np.maximum(area, 1)
        self.x = x / np.maximum(area, 1)
        # Axes to about nine digits, from central moments in exact integers.
        with np.errstate(invalid="ignore"):
            square = np.maximum(area.astype(float) ** 2, 1.0)
            vyy, vxx, vyx = (area * yy - y * y) / square, (area * xx - x * x) / square, (area * yx - y * x) / square
            root = np.sqrt((vyy - vxx) ** 2 + 4 * vyx**2)
            self.major = 4 * np.sqrt(np.maximum((vyy + vxx + root) / 2, 0)) - 1
            self.minor = 4 * np.sqrt(np.maximum((vyy + vxx - root) / 2, 0)) - 1

    def __len__(self) -> int:
        return len(self._index)

    def ellipse(self, number: int, known: dict[tuple[tuple[int, ...], bytes], tuple[float, float, float]]) -> Ellipse:
        """The exact ellipse of a region; ``known`` remembers shapes already measured."""
        region = self._index[number]
        mask = _paint(self._runs, self._order, self._begin[region], self._begin[region + 1], self._box[region])
        key = (mask.shape, mask.tobytes())
        if key not in known:
            known[key] = ellipse_of(mask)
        minor, major, angle = known[key]
        return Ellipse(float(self.x[number]), float(self.y[number]), minor, major, angle)


def contains(ellipse: Ellipse, x: float, y: float) -> bool:
    """True if a point lies inside an ellipse or on it."""
    angle = np.radians(180 - ellipse.angle)
    cosine, sine = np.cos(angle), np.sin(angle)
    dx, dy = x - ellipse.x, y - ellipse.y
    along, across = dx * cosine - dy * sine, dx * sine + dy * cosine
    semi = sorted((ellipse.minor * 0.5, ellipse.major * 0.5))
    with np.errstate(divide="ignore", invalid="ignore"):
        return bool((along**2 / np.float64(semi[1] ** 2)) + (across**2 / np.float64(semi[0] ** 2)) <= 1)


@numba.njit(**UNCOUNTED)
def _inside(row, column, y, x, y_radius, x_radius, cosine, sine):
    dy = np.float64(row) - np.float64(y)
    dx = np.float64(column) - np.float64(x)
    first = (dy * cosine + dx * sine) / y_radius
    second = (dy * sine - dx * cosine) / x_radius
    return first * first + second * second < 1.0


@numba.njit(**UNCOUNTED)
def _draw_jump(plane, limits, y, x, y_radius, x_radius, cosine, sine):
    for row in range(limits[0], limits[1]):
        for column in range(limits[2], limits[3]):
            flags = plane[row, column]
            if flags & _SATURATED or flags & _JUMP:
                continue
            if _inside(row, column, y, x, y_radius, x_radius, cosine, sine):
                plane[row, column] = flags | _JUMP


@numba.njit(**UNCOUNTED)
def _draw_saturation(cube, first_group, limits, y, x, y_radius, x_radius, cosine, sine):
    for row in range(limits[0], limits[1]):
        for column in range(limits[2], limits[3]):
            if _inside(row, column, y, x, y_radius, x_radius, cosine, sine):
                for group in range(first_group, cube.shape[0]):
                    # SATURATED takes the place of all other flags.
                    cube[group, row, column] = _SATURATED


@numba.njit(**UNCOUNTED)
def _draw_mask(mask, limits, y, x, y_radius, x_radius, cosine, sine):
    for row in range(limits[0], limits[1]):
        for column in range(limits[2], limits[3]):
            if _inside(row, column, y, x, y_radius, x_radius, cosine, sine):
                mask[row, column] = True


def outline_of(
    ellipse: Ellipse, y_radius: int, x_radius: int, shape: tuple[int, int]
) -> tuple[np.ndarray, int, int, float, float, float, float] | None:
    """Rows and columns in which pixels of a grown ellipse may lie, its integer centre and radii, cosine and sine."""
    if y_radius == 0 or x_radius == 0:
        return None
    y, x = round(ellipse.y), round(ellipse.x)
    reach = max(x_radius, y_radius) + 2
    rotation = np.radians(ellipse.angle) % np.pi
    cosine, sine = np.cos(rotation), np.sin(rotation)
    half_y = abs(y_radius * cosine) + x_radius * sine
    half_x = y_radius * sine + abs(x_radius * cosine)
    limits = []
    for centre, half, size in ((y, half_y, shape[0]), (x, half_x, shape[1])):
        corner = max(centre - reach, 0)
        end = min(centre + reach + 1, size)
        limits += [
            corner + max(math.ceil(centre - corner - half), 0),
            corner + min(math.floor(centre - corner + half), end - corner - 1) + 1,
        ]
    return np.array(limits), y, x, float(y_radius), float(x_radius), float(cosine), float(sine)


def grown(ellipse: Ellipse, factor: float, widest: float) -> tuple[int, int]:
    """Radii (y, x) of a jump ellipse whose minor axis grows by a factor and whose major axis by as many pixels."""
    if ellipse.major < ellipse.minor:
        first, second = ellipse.minor + (factor - 1.0) * ellipse.major, ellipse.major * factor
    else:
        first, second = ellipse.minor * factor, ellipse.major + (factor - 1.0) * ellipse.minor
    return round(min(second, widest) / 2), round(min(first, widest) / 2)


def _snowballs_in(jumps: Regions, cores: list[Regions], search: Snowballs, nrows: int, known: dict) -> list[Ellipse]:
    """Ellipses of the regions of jumps that are snowballs."""
    if not len(jumps):
        return []
    if not search.sat_required_snowball:
        return [jumps.ellipse(number, known) for number in range(len(jumps))]
    # The far edge is that of the rows on both axes.
    low, high = search.edge_size, max(0, nrows - search.edge_size)
    edge = (jumps.x < low) | (jumps.y < low) | (jumps.x > high) | (jumps.y > high)
    found = [jumps.ellipse(number, known) for number in np.flatnonzero(edge)]
    centres = np.concatenate([np.stack([core.y, core.x], axis=1) for core in cores])
    inner = np.flatnonzero(~edge)
    if len(centres) and len(inner):
        # Few cores lie within the rows of a jump.
        centres = centres[np.argsort(centres[:, 0])]
        radius = np.maximum(np.abs(jumps.major), np.abs(jumps.minor))[inner] / 2 + 1e-3
        first = np.searchsorted(centres[:, 0], jumps.y[inner] - radius)
        last = np.searchsorted(centres[:, 0], jumps.y[inner] + radius, side="right")
        for place in np.flatnonzero(last > first):
            number = inner[place]
            near = centres[first[place] : last[place]]
            near = near[np.abs(near[:, 1] - jumps.x[number]) <= radius[place]]
            if len(near):
                ellipse = jumps.ellipse(number, known)
                if any(contains(ellipse, float(x), float(y)) for y, x in near):
                    found.append(ellipse)
    return found


def flag_snowballs(groupdq: np.ndarray, search: Snowballs, *, out: np.ndarray | None = None):
    """Grow the flags of snowballs, plane by plane.

    Parameters
    ----------
    groupdq
        uint8 (integration, group, y, x) of the whole frame, after :func:`jwstdask.kernels.jump.detect_jumps`; may be
        memory-mapped.
    search
        The constants of the search.
    out
        uint8 array for the flags; may be ``groupdq`` itself.

    Returns
    -------
    out, events
        The flags, and the number of snowballs.
    """
    if out is None:
        out = groupdq.copy()
    elif out is not groupdq:
        out[...] = groupdq
    flags = np.asarray(out)
    _, ngroups, ny, nx = flags.shape
    known: dict[tuple[tuple[int, ...], bytes], tuple[float, float, float]] = {}
    widest = 2 * search.max_extended_radius
    lasting: list[np.ndarray] = []
    events = 0
    for cube in flags:
        core_mask = np.zeros((ny, nx), bool)
        ahead = None
        for group in range(1, ngroups):
            cores = ahead
            if cores is None:
                cores = Regions(cube[group], cube[group - 1], _SATURATED, search.min_sat_area)
            centres, ahead = [cores], None
            if group < ngroups - 1 and search.sat_required_snowball:
                ahead = Regions(cube[group + 1], cube[group], _SATURATED, search.min_sat_area)
                centres.append(ahead)
            jumps = Regions(cube[group], None, _JUMP, search.min_jump_area)
            found = _snowballs_in(jumps, centres, search, ny, known)
            events += len(found)
            if search.sat_required_snowball:
                for number in np.flatnonzero(cores.minor > search.min_sat_radius_extend - 1e-3):
                    ellipse = cores.ellipse(number, known)
                    if min(ellipse.minor, ellipse.major) <= search.min_sat_radius_extend:
                        continue
                    radii = [
                        round(min(axis + 2 * search.sat_expand, widest) / 2) for axis in (ellipse.major, ellipse.minor)
                    ]
                    if outline := outline_of(ellipse, *radii, (ny, nx)):
                        _draw_saturation(cube, group, *outline)
                        ahead = None  # other pixels may be newly saturated then
                    if outline := outline_of(ellipse, round(ellipse.major / 2), round(ellipse.minor / 2), (ny, nx)):
                        _draw_mask(core_mask, *outline)
            for ellipse in found:
                if outline := outline_of(ellipse, *grown(ellipse, search.expand_factor, widest), (ny, nx)):
                    _draw_jump(cube[group], *outline)
        lasting.append(np.flatnonzero(core_mask))
    # Only after all integrations have been searched: these flags are not searched themselves.
    last = min(search.persistent_groups, ngroups)
    for cube, pixels in zip(flags[1:], lasting):
        for plane in cube[1:last]:
            plane.reshape(-1)[pixels] |= _JUMP
    return out, events
