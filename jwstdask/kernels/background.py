"""What of an image is background, and a smooth model of it.

Pixels are background within some standard deviations of the center of the clipped values, or of a Gaussian fitted to
their histogram. The background is their median, or the clipped medians of boxes with a spline through them.

Source: JWST pipeline documentation, "clean_flicker_noise"; the model is Background2D of photutils.
"""

from __future__ import annotations

import math
import warnings

import numba
import numpy as np

_CLIP = 3.0
"""Clipping level [sigma] of statistics."""
_CLIP_ITERATIONS = 5
_BINS = 2000
"""Bins of the histogram to which a Gaussian is fitted."""

# -- statistics of values in ascending order


@numba.njit(cache=True, nogil=True)
def _bisect(values, bound, first, last, right):
    """Place of the first value not less than ``bound`` (or, to the right, greater than it) in first:last."""
    while first < last:
        middle = (first + last) // 2
        value = np.float64(values[middle])
        if value < bound or (right and value == bound):
            first = middle + 1
        else:
            last = middle
    return first


@numba.njit(cache=True, nogil=True)
def _middle(values, first, last):
    count = last - first
    return (np.float64(values[first + (count - 1) // 2]) + np.float64(values[first + count // 2])) / 2.0


@numba.njit(cache=True, nogil=True)
def _mean_and_square(values, first, last, center):
    """Mean, and mean square of the distance from ``center`` (from the mean if that is NaN)."""
    total = 0.0
    for index in range(first, last):
        total += np.float64(values[index])
    mean = total / (last - first)
    if center != center:
        center = mean
    total = 0.0
    for index in range(first, last):
        distance = np.float64(values[index]) - center
        total += distance * distance
    return mean, total / (last - first)


@numba.njit(cache=True, nogil=True)
def _clipped(values, first, last, level, iterations):
    """Range of values within ``level`` standard deviations of the median, with their mean, median and deviation."""
    for _ in range(iterations):
        center = _middle(values, first, last)
        deviation = math.sqrt(_mean_and_square(values, first, last, np.nan)[1])
        start = _bisect(values, center - deviation * level, first, last, False)
        stop = _bisect(values, center + deviation * level, first, last, True)
        unchanged = start == first and stop == last
        first, last = start, stop
        if unchanged:
            break
    mean, square = _mean_and_square(values, first, last, np.nan)
    return first, last, mean, _middle(values, first, last), math.sqrt(square)


@numba.njit(cache=True, nogil=True)
def _deviation_below(values, center, level, iterations):
    """Clipped standard deviation of the values up to ``center`` and their mirror images; NaN if there are none."""
    first, last = 0, _bisect(values, center, 0, len(values), True)
    deviation = np.nan
    for _ in range(iterations):
        if first == last:
            return np.nan
        deviation = math.sqrt(_mean_and_square(values, first, last, center)[1])
        start = _bisect(values, center - deviation * level, first, last, False)
        if start == first:
            return deviation
        first = start
    return math.sqrt(_mean_and_square(values, first, last, center)[1]) if first < last else np.nan


def _gaussian(x: np.ndarray, peak: float, center: float, width: float) -> np.ndarray:
    return peak * np.exp(-0.5 * ((x - center) / width) ** 2)


def _fit_gaussian(values: np.ndarray, center: float, deviation: float) -> tuple[float, float]:
    """Center and width of a Gaussian fitted to the histogram of ``values``; what was given if that fails."""
    from scipy.optimize import curve_fit

    try:
        counts, edges = np.histogram(values, bins=_BINS, range=(center - 4.0 * deviation, center + 4.0 * deviation))
    except ValueError:
        return center, deviation
    x = (edges[1:] + edges[:-1]) / 2.0
    best = int(np.argmax(counts))
    bounds = (0, x[0], 0), (np.inf, x[-1], x[-1] - x[0])
    try:
        fit, _ = curve_fit(_gaussian, x, counts, p0=(counts[best], x[best], deviation), bounds=bounds)
    except RuntimeError:
        return center, deviation
    return float(fit[1]), float(fit[2])


def background_limits(
    values: np.ndarray,
    n_sigma_lower: float,
    n_sigma_upper: float,
    lower_half: bool = False,
    fit_histogram: bool = False,
) -> tuple[float, float]:
    """Between which values there is only background.

    Parameters
    ----------
    values
        float32, finite, in ascending order.
    n_sigma_lower, n_sigma_upper
        Distances of the limits from the center [sigma].
    lower_half
        Take sigma from the values below the center, mirrored: sources do not broaden it.
    fit_histogram
        Take center and sigma from a Gaussian fitted to the histogram.

    Returns
    -------
    lower, upper
        The limits; infinite if there are no values.
    """
    if values.size == 0:
        return -math.inf, math.inf
    _, _, mean, median, deviation = _clipped(values, 0, values.size, _CLIP, _CLIP_ITERATIONS)
    center = mean if fit_histogram else median
    if lower_half:
        deviation = _deviation_below(values, center, _CLIP, _CLIP_ITERATIONS)
    if fit_histogram:
        sample = values.astype(np.float64)
        if lower_half:
            distance = sample[: _bisect(values, center, 0, values.size, True)] - center
            sample = np.concatenate((distance, -distance)) + center
        center, deviation = _fit_gaussian(sample, center, deviation)
    return center - n_sigma_lower * deviation, center + n_sigma_upper * deviation


# -- images


@numba.njit(cache=True, nogil=True)
def _collect(image, mask, out):
    count = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            value = image[y, x]
            # Infinite values and NaN are left out.
            if mask[y, x] and value - value == 0:
                out[count] = value
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _keep_within(image, mask, lower, upper):
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if image[y, x] < lower or image[y, x] > upper:
                mask[y, x] = False


@numba.njit(cache=True, nogil=True)
def _subtract_within(image, mask, lower, upper, background, lower_again, upper_again):
    """Subtract a background in place; keep the mask where the value is within limits, before and after."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            value = image[y, x]
            rest = value - background
            image[y, x] = rest
            if value < lower or value > upper or rest < lower_again or rest > upper_again:
                mask[y, x] = False


def _sorted_values(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Finite values under the mask in ascending order."""
    values = np.empty(image.size, np.float32)
    values = values[: _collect(image, mask, values)]
    values.sort()
    return values


def clip_to_background(
    image: np.ndarray,
    mask: np.ndarray,
    n_sigma_lower: float = 3.0,
    n_sigma_upper: float = 2.0,
    lower_half: bool = False,
    fit_histogram: bool = False,
) -> None:
    """Leave out of a mask, in place, what is no background.

    Parameters
    ----------
    image
        float32 (y, x).
    mask
        bool (y, x), True for background.
    n_sigma_lower, n_sigma_upper, lower_half, fit_histogram
        As of :func:`background_limits`.
    """
    limits = background_limits(_sorted_values(image, mask), n_sigma_lower, n_sigma_upper, lower_half, fit_histogram)
    _keep_within(image, mask, *limits)


def _median_of(values: np.ndarray) -> np.float32:
    """Median of float32 values in ascending order, rounded to float32 at each operation."""
    if values.size == 0:
        return np.float32(np.nan)
    half = values.size // 2
    return values[half] if values.size % 2 else np.float32(np.float32(values[half - 1] + values[half]) / np.float32(2))


def default_box(shape: tuple[int, ...]) -> tuple[int, int]:
    """The largest box of at most 32 pixels a side that divides an image evenly."""
    y, x = (max(size for size in range(1, 33) if length % size == 0) for length in shape[-2:])
    return y, x


def background_model(
    image: np.ndarray, mask: np.ndarray, box: tuple[int, int] | None = None
) -> np.ndarray | np.float32:
    """Smooth background: clipped medians of boxes, filtered by the median of 5 x 5 boxes, and a cubic spline.

    Parameters
    ----------
    image
        float32 (y, x).
    mask
        bool (y, x), True for background, already clipped.
    box
        Size of boxes (y, x); None chooses it by :func:`default_box`.

    Returns
    -------
    background
        float32 (y, x); the median (float32) where no box has usable pixels.
    """
    from astropy.stats import SigmaClip
    from astropy.utils.exceptions import AstropyUserWarning
    from photutils.background import Background2D, MedianBackground

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyUserWarning)
            found = Background2D(
                image,
                box_size=default_box(image.shape) if box is None else tuple(box),
                filter_size=(5, 5),
                mask=~mask,
                sigma_clip=SigmaClip(sigma=_CLIP, maxiters=_CLIP_ITERATIONS),
                bkg_estimator=MedianBackground(),
            )
        return found.background
    except ValueError:
        return _median_of(_sorted_values(image, mask))


def subtract_background(
    image: np.ndarray, mask: np.ndarray, method: str | None, n_sigma: float, box: tuple[int, int] | None = None
) -> np.ndarray | np.float32:
    """Subtract a background and clip what rises above it.

    Parameters
    ----------
    image
        float32 (y, x), finite; changed in place.
    mask
        bool (y, x), True for background; changed in place.
    method
        ``median``, ``model`` or None for no background.
    n_sigma
        Clipping level of what is not background; 0 for none.
    box
        Of :func:`background_model`.

    Returns
    -------
    background
        What was subtracted: float32 (y, x) or a single number.
    """
    if method is None:
        return np.float32(0)
    values = _sorted_values(image, mask)
    lower, upper = background_limits(values, _CLIP, _CLIP, lower_half=True)
    if method == "median":
        # Values remain in order when the median is subtracted: they need not be sorted again.
        start = _bisect(values, lower, 0, values.size, False)
        stop = _bisect(values, upper, 0, values.size, True)
        background = _median_of(values[start:stop])
        rest = values[start:stop] - background
        again = background_limits(rest, n_sigma, n_sigma, lower_half=True) if n_sigma > 0 else (-math.inf, math.inf)
        _subtract_within(image, mask, lower, upper, background, *again)
        return background
    _keep_within(image, mask, lower, upper)
    model = background_model(image, mask, box)
    image -= model
    if n_sigma > 0:
        clip_to_background(image, mask, n_sigma, n_sigma, lower_half=True)
    return model


def scene_mask(
    rate: np.ndarray,
    excluded: np.ndarray | None = None,
    n_sigma: float = 2.0,
    fit_histogram: bool = False,
    single_mask: bool = True,
) -> np.ndarray:
    """Where there is only background.

    Parameters
    ----------
    rate
        float32 ([integration,] y, x). Pixels that are NaN or zero are left out.
    excluded
        bool, True for pixels known to see sources; its shape broadcasts to that of ``rate``.
    n_sigma
        Pixels this far above the background, or 3 sigma below it, are left out; 0 to leave out none.
    fit_histogram
        See :func:`background_limits`.
    single_mask
        One mask for all integrations: what is background in all of them.

    Returns
    -------
    mask
        bool ([integration,] y, x), True for background.
    """
    mask = ~(np.isnan(rate) | (rate == 0))
    if excluded is not None:
        mask &= ~excluded
    if n_sigma > 0:
        for image, plane in zip(rate, mask, strict=True) if rate.ndim == 3 else [(rate, mask)]:
            clip_to_background(image, plane, n_sigma_upper=n_sigma, fit_histogram=fit_histogram)
    return mask.all(axis=0) if single_mask and mask.ndim == 3 else mask


def fill_flat(flat: np.ndarray) -> np.ndarray:
    """A flat, float32 (y, x), with smooth values where it is zero or not finite."""
    return fill_smoothly(flat, (flat == 0) | ~np.isfinite(flat))


def fill_smoothly(image: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """An image, float32 (y, x), with a model of its background where it is bad: the image itself if it is not."""
    if not bad.any():
        return image
    mask = ~bad
    filled = image.copy()
    clip_to_background(image, mask, _CLIP, _CLIP, lower_half=True)
    smooth = background_model(image, mask)
    filled[bad] = np.broadcast_to(smooth, image.shape)[bad]
    return filled
