"""Which input pixels a resampled image takes: those inside the outline that both images share.

The drizzle package, whose products are to be matched, does not ask of each pixel whether it falls into the output. It
maps the corners of the input image onto the output, cuts that quadrilateral with the border of the output, and maps the
corners of what is left back. Rows are then filled between the straight edges of this polygon. Where the distortion
bends an edge, or where a corner is found back only approximately, that decides over pixels at the border.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.03
"""To what a corner is mapped back, and by how much a pixel may miss an edge [input pixel], as in the package."""

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_SAME = 1e-12
_MOST_STEPS = 50

Point = tuple[float, float]
Place = Callable[[int, int], NDArray[np.float64]]


def spans(place: Place, shape: tuple[int, int], out_shape: tuple[int, int]) -> NDArray[np.int64]:
    """First and past-the-last column of each input row that an output image takes.

    Parameters
    ----------
    place
        Given column and row of an input pixel, the positions (x, y) on the output of it and the three pixels after it,
        (row, column, 2); NaN without.
    shape
        (y, x) shape of the input image, at least 2 by 2.
    out_shape
        (y, x) shape of the output image.

    Returns
    -------
    numpy.ndarray
        int64 (y, 2); rows that are not taken have 0, 0.
    """
    ny, nx = shape
    outline = [(-0.5, -0.5), (nx - 0.5, -0.5), (nx - 0.5, ny - 0.5), (-0.5, ny - 0.5)]
    mapped = [_interpolated(place, shape, *corner) for corner in outline]
    if not np.isnan(mapped).any():
        shared = _shared(mapped, out_shape)
        if len(shared) < 3:
            return np.zeros((ny, 2), np.int64)
        outline = [_mapped_back(place, shape, *corner) for corner in shared]
    return _rows(_counter_clockwise(outline), shape)


def _interpolated(place: Place, shape: tuple[int, int], x: float, y: float) -> Point:
    """Output position of a point between input pixels: bilinear, extrapolated beyond the image."""
    column, row = (min(max(int(value), 0), size - 2) for value, size in ((x, shape[1]), (y, shape[0])))
    right, up = x - column, y - row
    left, down = 1.0 - right, 1.0 - up
    (a, b), (c, d) = place(column, row).tolist()
    # In this order: a search compares distances that may be equal but for rounding.
    first, second = (
        a[axis] * left * down + b[axis] * right * down + c[axis] * left * up + d[axis] * right * up for axis in (0, 1)
    )
    return first, second


def _mapped_back(place: Place, shape: tuple[int, int], x: float, y: float) -> Point:
    """Input position of an output position: golden-section search in two dimensions.

    Of four points in a rectangle the one whose position is closest tells the part of it to go on with. It ends as in
    the package: where within the tolerance it does may decide over a row.
    """

    def distance(column: float, row: float) -> float:
        found = _interpolated(place, shape, column, row)
        return (found[0] - x) ** 2 + (found[1] - y) ** 2

    low = [-0.5, -0.5]
    high = [shape[1] - 0.5, shape[0] - 0.5]
    extent = [high[0] - low[0], high[1] - low[1]]
    for _ in range(_MOST_STEPS):
        if max(extent) <= TOLERANCE:
            break
        lower = [high[axis] - _GOLDEN * extent[axis] for axis in (0, 1)]
        upper = [low[axis] + _GOLDEN * extent[axis] for axis in (0, 1)]
        probes = {
            (right, above): distance(upper[0] if right else lower[0], upper[1] if above else lower[1])
            for right in (False, True)
            for above in (False, True)
        }
        closest = min(probes, key=lambda part: probes[part])
        if sum(value == probes[closest] for value in probes.values()) > 1:
            closest = (True, True)
        for axis, far in enumerate(closest):
            if far:
                low[axis] = lower[axis]
            else:
                high[axis] = upper[axis]
            extent[axis] = high[axis] - low[axis]
    return 0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1])


def _cross(a: Point, b: Point) -> float:
    return a[0] * b[1] - a[1] * b[0]


def _minus(a: Point, b: Point) -> Point:
    return a[0] - b[0], a[1] - b[1]


def _counter_clockwise(polygon: Sequence[Point]) -> list[Point]:
    middle = sum(x for x, _ in polygon) / len(polygon), sum(y for _, y in polygon) / len(polygon)
    turned = _cross(_minus(polygon[0], middle), _minus(polygon[1], middle)) < 0.0
    return list(reversed(polygon)) if turned else list(polygon)


def _shared(polygon: Sequence[Point], out_shape: tuple[int, int]) -> list[Point]:
    """A convex polygon cut with the border of the output image (Sutherland & Hodgman 1974, CACM 17, 32)."""
    ny, nx = out_shape
    window = [(-0.5, -0.5), (nx - 0.5, -0.5), (nx - 0.5, ny - 0.5), (-0.5, ny - 0.5)]
    found = _counter_clockwise(polygon)
    for before, corner in zip([window[-1], *window[:-1]], window, strict=True):
        edge = _minus(corner, before)
        given, found = found, []
        for index, point in enumerate(given):
            last = given[index - 1]
            inside, last_inside = (_cross(edge, _minus(each, before)) > 0.0 for each in (point, last))
            if inside != last_inside:
                step = _minus(point, last)
                scale = _cross(step, edge)
                ends = _cross(point, last), _cross(corner, before)
                _add(found, tuple((ends[0] * edge[axis] - ends[1] * step[axis]) / scale for axis in (0, 1)))
            if inside:
                _add(found, point)
        if not found:
            return []
    found = _counter_clockwise(found)
    around = [(found[index - 1], point, found[(index + 1) % len(found)]) for index, point in enumerate(found)]
    return [point for last, point, following in around if _cross(_minus(following, last), _minus(point, last)) != 0.0]


def _add(polygon: list[Point], point: Point) -> None:
    """Append a corner unless it repeats the first or the last one."""
    for known in (polygon[-1], polygon[0]) if polygon else ():
        if abs(known[0] - point[0]) < _SAME and abs(known[1] - point[1]) < _SAME:
            return
    polygon.append(point)


@dataclass(frozen=True)
class _Edge:
    """An edge x = slope * y + inset up to row ``top``; ``inset`` keeps whole pixels inside."""

    slope: float
    inset: float
    top: float

    @classmethod
    def between(cls, low: Point, high: Point, side: float) -> _Edge:
        # A level edge between others is infinitely steep, and decides nothing.
        height = high[1] - low[1] or math.copysign(1e-300, high[0] - low[0])
        slope = (high[0] - low[0]) / height
        return cls(slope, (low[0] * high[1] - low[1] * high[0]) / height - side * (0.5 + 0.5 * abs(slope)), high[1])

    def at(self, row: int) -> float:
        return self.slope * row + self.inset


def _chains(polygon: Sequence[Point]) -> tuple[list[_Edge], list[_Edge]]:
    """Left and right edges of a counter-clockwise polygon, from the bottom up."""
    count = len(polygon)
    heights = [y for _, y in polygon]

    def level(first: int, lowest: bool) -> tuple[int, int]:
        """Left and right corner of a level bottom or top; the same one twice if it is a point."""
        sign = 1.0 if lowest else -1.0
        neighbours = (first - 1) % count, (first + 1) % count
        pick = 0 if sign * heights[neighbours[0]] < sign * heights[neighbours[1]] else 1
        other, limit = neighbours[pick], heights[first]
        if sign * heights[other] > sign * (limit * (1.0 + sign * math.copysign(_SAME, limit))):
            return first, first
        left, right = sorted((first, other), key=lambda index: polygon[index][0])
        return left, right

    bottom_left, bottom_right = level(heights.index(min(heights)), True)
    top_left, top_right = level(heights.index(max(heights)), False)
    left, right = [], []
    for step in range((bottom_left - top_left) % count):
        index = bottom_left - step
        left.append(_Edge.between(polygon[index % count], polygon[(index - 1) % count], -1.0))
    for step in range((top_right - bottom_right) % count):
        index = bottom_right + step
        right.append(_Edge.between(polygon[index % count], polygon[(index + 1) % count], 1.0))
    return left, right


def _rows(polygon: Sequence[Point], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Columns of each row between the edges of a polygon; pixels reach half a pixel beyond their centre."""
    ny, nx = shape
    found = np.zeros((ny, 2), np.int64)
    heights = [y for _, y in polygon]
    lowest, highest = min(heights), max(heights)
    chains = _chains(polygon)
    if not all(chains):
        return found
    places = [0, 0]
    for row in range(max(0, int(lowest + 0.5 + 2.0 * TOLERANCE)), min(ny - 1, int(highest + 2.0 * TOLERANCE)) + 1):
        if row + 0.5 <= lowest or row - 0.5 >= highest + 1.0:
            continue
        limits: list[list[float]] = []
        # The edges at the lower and at the upper side of the row of pixels.
        for reach in (row - 0.5, row - TOLERANCE):
            for side, chain in enumerate(chains):
                while reach > chain[places[side]].top:
                    places[side] += 1
                    if places[side] == len(chain):
                        return found
            left, right = (chain[place].at(row) for chain, place in zip(chains, places, strict=True))
            limits.append([max(left - TOLERANCE, 0.0), min(right + TOLERANCE, nx - 1.0)])
        (left, right), (upper_left, upper_right) = limits
        if upper_left < upper_right:
            if left < right:
                left, right = max(left, upper_left), min(right, upper_right)
            else:
                left, right = upper_left, upper_right
        elif left >= right:
            continue
        first, last = math.floor(left + 0.5), math.floor(right + 0.5)
        if first <= last:
            found[row] = first, last + 1
    return found
