"""Parameters of clean_flicker_noise that suit an image of NIRCam or NIRISS.

An image is cleaned quickly, and what is left of slopes across it, of steps between amplifiers and of stripes decides.

Source: JWST pipeline documentation, "clean_flicker_noise", parameter autoparam.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from jwstdask.kernels.background import background_model, clip_to_background, subtract_background
from jwstdask.kernels.clean_flicker_noise import CHANNELS, FULL, median_clean

_CLIP = 3.0
"""Clipping level [sigma] of statistics."""


class Choice(NamedTuple):
    """Parameters that suit an image."""

    background_method: str
    fit_by_channel: bool


class Levels(NamedTuple):
    """Measures of an image, or limits of them, that decide on parameters.

    Attributes
    ----------
    masked
        Fraction of pixels that are no background.
    offset
        Greatest step between means of neighbouring amplifiers [DN/s].
    low_slope, high_slope
        Greatest slope across the center [DN/s/pixel]; the limits apply where the step is low or high.
    ratio
        Of the slopes along both axes.
    scatter
        Of means of lines along the fast axis, about a straight line [DN/s].
    """

    masked: float
    offset: float
    low_slope: float
    high_slope: float
    ratio: float
    scatter: float


LIMITS = {
    "NIRISS": Levels(0.07, 0.07, 1e-5, 1e-4, 5.0, 0.02),
    "NIRCAM": Levels(0.1, 0.07, 1e-5, 1e-5, 3.0, 0.02),
}


def quick_clean(image: np.ndarray, axis: int, flat: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Clean a rate image by medians along lines.

    Parameters
    ----------
    image
        float32 (y, x).
    axis
        Array axis along which medians are taken.
    flat
        float32 (y, x) by which the image is divided for good.

    Returns
    -------
    cleaned, mask
        float32 (y, x), and bool (y, x), True for background.
    """
    image = image.copy() if flat is None else image / flat
    mask = np.ones(image.shape, np.bool_)
    clip_to_background(image, mask)
    invalid = np.isnan(image)
    image[invalid] = 0.0
    mask &= ~invalid
    background = subtract_background(image, mask, "median", 0.0)
    clip_to_background(image, mask, lower_half=True)
    median_clean(image, mask, axis)
    image += background
    image[invalid] = np.nan
    return image, mask


def _line(values: np.ndarray) -> tuple[float, float]:
    """Slope of a straight line through values, and the scatter about it."""
    from astropy.stats import sigma_clipped_stats

    x, good = np.arange(values.size), np.isfinite(values)
    line = np.polynomial.Polynomial.fit(x[good], values[good], deg=1)
    slope = (*line.convert().coef, 0.0)[1]
    return slope, sigma_clipped_stats(values[good] - line(x[good]), sigma=10.0)[2]


def _channel_step(values: np.ndarray) -> float:
    """Greatest difference of means of neighbouring amplifiers; 0 for a subarray."""
    from astropy.stats import sigma_clipped_stats

    if values.size != FULL:
        return 0.0
    means = [sigma_clipped_stats(part, sigma=_CLIP)[0] for part in values.reshape(CHANNELS, -1)]
    return np.max(np.abs(np.diff(means)))


def _part(length: int, start: Fraction, stop: Fraction) -> slice:
    return slice(round(start * length), round(stop * length))


def measure(image: np.ndarray, axis: int, instrument: str, flat: np.ndarray | None = None) -> Levels:
    """What decides on the parameters for an image of NIRCam or NIRISS; see :class:`Levels`.

    Parameters
    ----------
    image
        float32 (y, x), a rate [DN/s].
    axis
        Array axis along which medians are taken: the slow axis.
    instrument
        ``NIRCAM`` or ``NIRISS``: the slow axis is x, or y.
    flat
        float32 (y, x) by which the image is divided.
    """
    image, mask = quick_clean(image, axis, flat)
    clip_to_background(image, mask, _CLIP, _CLIP, lower_half=True)
    smooth = background_model(image, mask)
    image[~mask] = np.broadcast_to(smooth, image.shape)[~mask]
    ny, nx = image.shape
    center = Fraction(3, 8), Fraction(5, 8)
    over_rows = np.nanmean(image[_part(ny, *center)], axis=0)
    over_columns = np.nanmean(image[:, _part(nx, *center)], axis=1)
    column_slope, scatter = _line(over_rows)
    row_slope, _ = _line(over_columns)
    steps = over_rows
    if instrument == "NIRISS":
        # The first amplifier, near the top, may differ from the others.
        _, scatter = _line(np.nanmean(image[_part(ny, Fraction(10, 12), Fraction(11, 12))], axis=0))
        steps = over_columns
    slopes = np.abs([row_slope, column_slope])
    with np.errstate(divide="ignore"):
        ratio = slopes.max() / slopes.min()
    slope = slopes.max()
    return Levels(np.sum(~mask) / mask.size, _channel_step(steps), slope, slope, ratio, scatter)


def choose(levels: Levels, limits: Levels) -> Choice:
    """Parameters by what was measured in an image: see :func:`measure` and :data:`LIMITS`."""
    high = Levels(*(value >= limit for value, limit in zip(levels, limits, strict=True)))
    if high.masked:
        steep = high.high_slope if high.offset else high.low_slope
        return Choice("model" if steep else "median", False)
    if high.offset:
        return Choice("median", True)
    model = high.high_slope or (high.low_slope and not high.ratio)
    return Choice("model" if model else "median", bool(levels.offset > 0 and high.scatter))
