"""Removal of the thermal picture frame of NIRSpec detectors: a pattern along the edges that drifts with temperature.

The pattern is known from a reference image. How strong it is in an image follows from the medians of background pixels
in the middle and along the edges.

Source: JWST pipeline documentation, "Picture Frame Correction".
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

_LOWER_EDGE = (4, 75)
_UPPER_EDGE = (1985, 2043)
_MIDDLE = (76, 1984)
"""First and last pixel (end exclusive) of the zones along each axis of a full frame."""


def zones(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Background pixels in the middle and along the edges.

    Parameters
    ----------
    mask
        bool (y, x), true for background.

    Returns
    -------
    middle, edge
        bool (y, x).
    """
    y, x = (np.arange(size) for size in mask.shape)
    middle = mask & np.logical_and.outer(_within(y, _MIDDLE), _within(x, _MIDDLE))
    border = np.logical_or.outer(*(_within(axis, _LOWER_EDGE) | _within(axis, _UPPER_EDGE) for axis in (y, x)))
    # The outermost pixels are reference pixels.
    inside = np.logical_and.outer(*(_within(axis, (_LOWER_EDGE[0], _UPPER_EDGE[1])) for axis in (y, x)))
    return middle, mask & border & inside


def _within(index: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    return (index >= limits[0]) & (index < limits[1])


@dataclass(frozen=True)
class Pattern:
    """The pattern of a detector.

    Attributes
    ----------
    difference
        float32 (y, x), the reference image above its level along the edges.
    contrast
        Its level in the middle above that along the edges.
    middle, edge
        bool (y, x) of :func:`zones`.
    """

    difference: np.ndarray
    contrast: np.float32
    middle: np.ndarray
    edge: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, mask: np.ndarray) -> Pattern:
        """The pattern from a reference image, float32 (y, x), given where there is only background.

        Raises
        ------
        ValueError
            If there is no background in one of the zones.
        """
        middle, edge = zones(mask)
        if not middle.any() or not edge.any():
            raise ValueError("there are no background pixels")
        levels = [median(image, zone) for zone in (middle, edge)]
        return cls((image - levels[1]).astype(np.float32), np.float32(levels[0] - levels[1]), middle, edge)

    def remove(self, image: np.ndarray, zero: np.ndarray | None, out: np.ndarray) -> None:
        """Subtract the pattern from an image.

        Parameters
        ----------
        image
            float32 (y, x).
        zero
            float32 (y, x): the first group, above which the pattern is measured; None for none.
        out
            float32 (y, x), may be ``image``.
        """
        above = image if zero is None else image - zero
        levels = [median(above, zone) for zone in (self.middle, self.edge)]
        scale = np.float32((levels[0] - levels[1]) / self.contrast)
        if zero is None:
            _remove(image, self.difference, scale, levels[1], out)
        else:
            _remove_above(image, zero, self.difference, scale, levels[1], out)


def median(image: np.ndarray, zone: np.ndarray) -> np.float32:
    """Median of the pixels of a zone that are not NaN, rounded to float32 at each operation; NaN if there is none.

    Parameters
    ----------
    image
        float32 (y, x).
    zone
        bool (y, x).
    """
    values = image[zone]
    values = values[~np.isnan(values)]
    if not values.size:
        return np.float32(np.nan)
    half = values.size // 2
    if values.size % 2:
        return np.partition(values, half)[half]
    low, high = np.partition(values, (half - 1, half))[half - 1 : half + 1]
    return np.float32(np.float32(low + high) / np.float32(2))


@numba.njit(cache=True, nogil=True)
def _remove(image, difference, scale, offset, out):
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            out[y, x] = image[y, x] - (scale * difference[y, x] + offset)


@numba.njit(cache=True, nogil=True)
def _remove_above(image, zero, difference, scale, offset, out):
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            above = image[y, x] - zero[y, x]
            out[y, x] = above + (zero[y, x] - (scale * difference[y, x] + offset))
