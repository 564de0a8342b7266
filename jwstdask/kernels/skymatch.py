"""Sky levels: overlaps of outlines on the sky, the pixels inside of them, and clipped statistics of those.

Pixels and statistics follow, to the last bit, the arithmetic of the libraries that jwst uses (gwcs for the polygon,
stsci.imagestats for the statistics), so that the same pixels give the same level. They hold no lock, so that images are
measured in parallel.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

_ONE_BIN = 10.0 * float(np.finfo(np.float32).eps)  # [data units] a distribution narrower than this is one bin
_TOUCHING = 1e-9  # of the size of the polygons: 2e-6 pixel of a detector


def convex_overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """Intersection of two convex polygons on the sphere, small against it.

    Parameters
    ----------
    one, other
        float64 (vertex, 3): unit vectors, the first repeated at the end, in the same sense of rotation.

    Returns
    -------
    numpy.ndarray or None
        Vertices as of ``one``, in its sense of rotation; (0, 3) if there is no overlap. None where doubles cannot tell:
        a polygon that is not convex, or a vertex of one on the (extended) edge of the other.

    Notes
    -----
    Source: Sutherland & Hodgman 1974, Communications of the ACM 17, 32, in the gnomonic projection, where great circles
    are straight. Coordinates are small there, so that vertices are as exact as unit vectors can be.
    """
    centre = one[:-1].mean(axis=0)
    centre /= np.linalg.norm(centre)
    across = np.cross(centre, np.eye(3)[np.argmin(np.abs(centre))])
    across /= np.linalg.norm(across)
    axes = np.stack([across, np.cross(centre, across)])
    depth = other @ centre
    if depth.min() < 0.5:
        return None
    flat = ((one - centre) @ axes.T / (one @ centre)[:, None]).tolist()
    clip = ((other - centre) @ axes.T / depth[:, None]).tolist()
    size = max(abs(value) for point in flat for value in point)
    sense = _sense(flat)
    if sense == 0 or sense != _sense(clip):
        return None
    vertices = flat[:-1]
    for (x, y), (next_x, next_y) in itertools.pairwise(clip):
        step_x, step_y = next_x - x, next_y - y
        length = sense * math.hypot(step_x, step_y)
        inside = [(step_x * (v - y) - step_y * (u - x)) / length for u, v in vertices]
        if any(abs(distance) <= _TOUCHING * size for distance in inside):
            return None
        kept = []
        for k, (point, distance) in enumerate(zip(vertices, inside)):
            before, earlier = vertices[k - 1], inside[k - 1]
            if (distance > 0) != (earlier > 0):
                part = earlier / (earlier - distance)
                kept.append([before[i] + part * (point[i] - before[i]) for i in (0, 1)])
            if distance > 0:
                kept.append(point)
        vertices = kept
        if not vertices:
            return np.empty((0, 3))
    found = centre + np.array([*vertices, vertices[0]]) @ axes
    return found / np.linalg.norm(found, axis=1)[:, None]


def _sense(points: list[list[float]]) -> int:
    """1 or -1 for a convex polygon by its sense of rotation, 0 for others."""
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(points)]
    turns = [a[0] * b[1] - a[1] * b[0] for a, b in zip(steps, [*steps[1:], steps[0]])]
    return 1 if min(turns) > 0 else -1 if max(turns) < 0 else 0


@numba.njit(cache=True, nogil=True)
def _fill(x, y, shift_x, shift_y, out):
    rows, columns = out.shape
    left, right = x.min(), x.max()
    last = y.max()
    if right <= left:
        return
    crossings = np.empty(len(x), np.int64)
    for row in range(y.min(), last + 1):
        target = row + shift_y
        if target < 0 or target >= rows:
            continue
        # An edge owns its lower end; the top row is crossed by the edges of the row below it.
        at = min(row, last - 1)
        count = 0
        for k in range(len(x) - 1):
            low, high = min(y[k], y[k + 1]), max(y[k], y[k + 1])
            if low <= at < high:
                along = (row - y[k]) / (y[k + 1] - y[k])
                crossings[count] = math.ceil(along * (x[k + 1] - x[k]) + x[k])
                count += 1
        crossings[:count].sort()
        for k in range(0, count - 1, 2):
            first = max(0, crossings[k] + shift_x)
            stop = min(crossings[k + 1] + shift_x, columns - 1) + 1
            # jwst's scan counts a span that ends left of the image from its right side.
            if stop < 0:
                stop += columns
            for column in range(first, stop):
                out[target, column] = True


def fill_polygon(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Mark the pixels of a polygon, by scan lines through its vertices rounded to pixels.

    Parameters
    ----------
    x, y
        Vertices [pixel], the first repeated at the end; at least four. They may lie outside the image.
    out
        bool (y, x), changed: pixels of the polygon become True, others stay.

    Returns
    -------
    numpy.ndarray
        ``out``.

    Notes
    -----
    Source: polygon filling by an active edge table (Foley et al. 1990, Computer Graphics, 3.6). Borders on both sides
    are included.
    """
    # Rounding is of coordinates counted from the polygon's own corner where that is outside of the image.
    corner_x, corner_y = min(0.0, float(np.min(x))), min(0.0, float(np.min(y)))
    columns = np.array([round(float(value) - corner_x) for value in x], np.int64)
    rows = np.array([round(float(value) - corner_y) for value in y], np.int64)
    _fill(columns, rows, round(corner_x), round(corner_y), out)
    return out


@numba.njit(cache=True, nogil=True)
def _count(mask):
    total = 0
    for value in mask.ravel():
        total += value
    return total


@numba.njit(cache=True, nogil=True)
def _select(image, mask, out):
    count = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if mask[y, x]:
                out[count] = image[y, x]
                count += 1


def select(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Values of ``image`` (y, x) where ``mask`` is True, in the order of rows; float32."""
    out = np.empty(_count(mask), np.float32)
    _select(image, mask, out)
    return out


@numba.njit(cache=True, nogil=True)
def good_pixels(image: np.ndarray, dq: np.ndarray, bad: int) -> np.ndarray:
    """bool (y, x): finite pixels without any of the data-quality bits ``bad``."""
    mask = np.empty(image.shape, np.bool_)
    bits = np.uint32(bad)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            mask[y, x] = (dq[y, x] & bits) == 0 and np.isfinite(image[y, x])
    return mask


@numba.njit(cache=True, nogil=True)
def _moments(values, low, high):
    """Count, mean, standard deviation, least and greatest of the values within limits; float32 but for the sums.

    The sums are of four interleaved parts: their rounding is far below that of their float32 results.
    """
    first = values[0]
    # If the first value is beyond a limit, that limit counts as the extreme value; the histogram starts there.
    least, greatest = max(low, first), min(high, first)
    count = 0
    sums = np.zeros(4)
    for k in range(len(values)):
        value = values[k]
        if low <= value <= high:
            count += 1
            sums[k & 3] += value
            least, greatest = min(least, value), max(greatest, value)
    if count == 0:
        return 0, np.float32(0), np.float32(0), least, greatest
    mean = np.float32((sums[0] + sums[1] + sums[2] + sums[3]) / count)
    sums[:] = 0
    for k in range(len(values)):
        value = values[k]
        if least <= value <= greatest:
            difference = value - mean
            sums[k & 3] += np.float32(difference * difference)
    if count == 1:
        return count, mean, np.float32(np.nan), least, greatest
    return count, mean, np.float32(np.sqrt((sums[0] + sums[1] + sums[2] + sums[3]) / (count - 1))), least, greatest


@numba.njit(cache=True, nogil=True)
def _histogram(values, count, width, least):
    """Values in ``count`` bins of ``width`` from ``least`` on, all float32."""
    bins = np.zeros(count, np.int64)
    scale = np.float32(1) / width
    end = np.float32(least + np.float32(width * np.float32(count)))
    limit, closed = end, False
    if int(np.float32(scale * np.float32(end - least))) == count:  # the right edge would fall into a bin too many
        limit = np.float32(end * np.float32(np.float32(1) - np.finfo(np.float32).eps))
        limit = min(limit, end)
        closed = True
    for value in values:
        if value >= least and (value < limit or (closed and value == limit)):
            index = int(np.float32(scale * np.float32(value - least)))
            if index < count:
                bins[index] += 1
    return bins


@dataclass(frozen=True)
class SkyStatistic:
    """A clipped statistic of sky pixels.

    Attributes
    ----------
    skystat
        ``mode`` (parabola through the highest bin of the histogram and its neighbours), ``midpt`` (median by the
        histogram), ``median`` or ``mean``.
    lower, upper
        Limits of good values [data units]; None for no limit.
    nclip
        Number of clippings.
    lsigma, usigma
        Limits of a clipping below and above the mean [standard deviation].
    binwidth
        Width of a bin of the histogram [standard deviation].
    """

    skystat: str = "mode"
    lower: float | None = None
    upper: float | None = None
    nclip: int = 5
    lsigma: float = 4.0
    usigma: float = 4.0
    binwidth: float = 0.1

    def __call__(self, values: np.ndarray) -> tuple[Any, int]:
        """Statistic of values.

        Parameters
        ----------
        values
            float32 (pixel), finite.

        Returns
        -------
        sky
            Number of the type that jwst's statistic has (it decides how a subtraction rounds); None if no pixel is
            within the limits or they do not have a deviation.
        count
            Number of pixels used.

        Notes
        -----
        Source: IRAF ``imstatistics``, as in stsci.imagestats. A distribution within one bin has its mode and ``midpt``
        in the middle of that bin (stsci.imagestats gives its number of pixels as ``midpt``).
        """
        if values.size == 0 or min(self.lsigma, self.usigma, self.binwidth) <= 0:
            return None, 0
        lower = float(values.min()) if self.lower is None else self.lower
        upper = float(values.max()) if self.upper is None else self.upper
        low, high = lower, upper
        previous = None
        for clip in range(self.nclip + 1):
            limits = np.float32(low), np.float32(high)
            if limits != previous:
                count, mean, deviation, least, greatest = _moments(values, *limits)
            previous = limits
            if count == 0:
                return None, 0
            if clip < self.nclip:
                # A deviation of NaN (one pixel) leaves the limits.
                low = max(lower, float(mean) - self.lsigma * float(deviation))
                high = min(upper, float(mean) + self.usigma * float(deviation))
        sky: Any
        if self.skystat == "mean":
            sky = float(mean)
        elif self.skystat == "median":
            kept = values[(values <= limits[1]) & (values >= limits[0])] if self.nclip > 0 else values
            sky = np.median(kept)
        else:
            sky = self._by_histogram(values, float(deviation), float(least), float(greatest))
        return (sky, int(count)) if np.isfinite(sky) else (None, 0)

    def _by_histogram(self, values: np.ndarray, deviation: float, least: float, greatest: float) -> Any:
        width, span = self.binwidth * deviation, greatest - least
        if math.isnan(width) or width < _ONE_BIN or abs(span) < _ONE_BIN or width > span:
            return least + 0.5 * width
        count = int(span / width) + 1
        bins = _histogram(values, count, np.float32(span / (count - 1)), np.float32(least))
        return least + self._peak(bins) * width if self.skystat == "mode" else _middle(bins, width, least)

    @staticmethod
    def _peak(bins: np.ndarray) -> Any:
        """Place of the highest bin, counted in bins from the left edge of the first."""
        if len(bins) == 2:
            return 0.5 if bins[0] > bins[1] else 1.5 if bins[0] < bins[1] else 1.0
        peak = int(np.argmax(bins))
        if peak in (0, len(bins) - 1):
            return peak + 0.5
        left, right = int(bins[peak] - bins[peak - 1]), int(bins[peak] - bins[peak + 1])
        if left + right == 0:
            return peak + 0.5
        return peak + 1 + np.float64(0.5 * (left - right)) / (left + right) - 0.5


def _middle(bins: np.ndarray, width: float, least: float) -> Any:
    """Value with half of the histogram below it."""
    total = np.cumsum(bins).astype(np.float32)
    total = total / total[-1]
    bin_ = int(np.argmax(total >= 0.5))
    below = total[bin_ - 1] if bin_ > 0 else np.float32(0)
    within = total[bin_] - below
    edge = np.float64(least + bin_ * width)
    if within == 0:
        return edge
    return edge + (np.float32(0.5) - below) / within * width
