"""Remove flicker (1/f) noise from images.

The noise is common to all pixels read at nearly the same time: to a row or column along the fast axis of the detector.
It is measured where there is only background, and subtracted.

Sources: JWST pipeline documentation, "clean_flicker_noise"; for the medians along lines, Willott's "image1overf"; for
the fit in frequency space, Rauscher, "NSClean: An algorithm for removing correlated noise from JWST NIRSpec images",
PASP 136, 015001 (2024).
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numba
import numpy as np

from jwstdask.core import dq as flags

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True}

_CLIP = 3.0
"""Clipping level [sigma] of statistics."""
_CLIP_ITERATIONS = 5
_BINS = 2000
"""Bins of the histogram to which a Gaussian is fitted."""
_CHANNELS = 4
"""Amplifiers of a full near-infrared frame."""
_FULL = 2048

_UNUSABLE = np.uint8(flags.DO_NOT_USE | flags.JUMP_DET)

FREQUENCIES = (1061.0, 1211.0, 49943.0, 49957.0)
"""Frequencies [Hz] of the filter for subarrays: it passes below the first and above the last one."""
FREQUENCIES_ALLSLITS = (150.0, 200.0, 49943.0, 49957.0)
"""The same for subarray ALLSLITS."""


class CleaningError(Exception):
    """The noise of an image cannot be fitted: the mask does not suit the data."""


@dataclass(frozen=True)
class Method:
    """How an image is cleaned.

    Attributes
    ----------
    fit_method
        ``median`` or ``fft``.
    axis
        Array axis along which the median is taken: 0 (y) or 1 (x).
    fit_by_channel
        Take medians of each amplifier of a full frame by itself.
    background_method
        ``median``, ``model`` or None: what is taken off before and put back after.
    background_box_size
        Box (y, x) of the background model; None chooses one.
    n_sigma
        Clipping level of what is not background; 0 for none.
    flipped
        The slow axis runs against the y or x axis of the image (all NIRSpec detectors but NRS1), for ``fft``.
    frequencies
        Of the filter for ``fft`` of subarrays [Hz].
    """

    fit_method: str = "median"
    axis: int = 0
    fit_by_channel: bool = False
    background_method: str | None = "median"
    background_box_size: tuple[int, int] | None = None
    n_sigma: float = 2.0
    flipped: bool = False
    frequencies: tuple[float, float, float, float] = FREQUENCIES


# -- statistics of values in ascending order


@numba.njit(**_OPTIONS)
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


@numba.njit(**_OPTIONS)
def _middle(values, first, last):
    count = last - first
    return (np.float64(values[first + (count - 1) // 2]) + np.float64(values[first + count // 2])) / 2.0


@numba.njit(**_OPTIONS)
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


@numba.njit(**_OPTIONS)
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


@numba.njit(**_OPTIONS)
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


@numba.njit(**_OPTIONS)
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


@numba.njit(**_OPTIONS)
def _keep_within(image, mask, lower, upper):
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if image[y, x] < lower or image[y, x] > upper:
                mask[y, x] = False


@numba.njit(**_OPTIONS)
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


def subtract_background(image: np.ndarray, mask: np.ndarray, method: Method) -> np.ndarray | np.float32:
    """Subtract a background and clip what rises above it.

    Parameters
    ----------
    image
        float32 (y, x), finite; changed in place.
    mask
        bool (y, x), True for background; changed in place.
    method
        Of the background, with the clipping level.

    Returns
    -------
    background
        What was subtracted: float32 (y, x) or a single number.
    """
    if method.background_method is None:
        return np.float32(0)
    values = _sorted_values(image, mask)
    lower, upper = background_limits(values, _CLIP, _CLIP, lower_half=True)
    level = method.n_sigma
    if method.background_method == "median":
        # Values remain in order when the median is subtracted: they need not be sorted again.
        start = _bisect(values, lower, 0, values.size, False)
        stop = _bisect(values, upper, 0, values.size, True)
        background = _median_of(values[start:stop])
        rest = values[start:stop] - background
        again = background_limits(rest, level, level, lower_half=True) if level > 0 else (-math.inf, math.inf)
        _subtract_within(image, mask, lower, upper, background, *again)
        return background
    _keep_within(image, mask, lower, upper)
    model = background_model(image, mask, method.background_box_size)
    image -= model
    if level > 0:
        clip_to_background(image, mask, level, level, lower_half=True)
    return model


# -- medians along lines


@numba.njit(**_OPTIONS)
def _median(values, count):
    """Median of values[:count], whose order is changed; rounded to float32 at each operation."""
    target, low, high = count // 2, 0, count - 1
    while low < high:
        middle = (low + high) // 2
        if values[middle] < values[low]:
            values[low], values[middle] = values[middle], values[low]
        if values[high] < values[low]:
            values[low], values[high] = values[high], values[low]
        if values[high] < values[middle]:
            values[middle], values[high] = values[high], values[middle]
        pivot = values[middle]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if target <= right:
            high = right
        elif target >= left:
            low = left
        else:
            break
    upper = values[target]
    if count % 2:
        return upper
    lower = values[0]
    for index in range(1, target):
        lower = max(lower, values[index])
    return np.float32(np.float32(lower + upper) / np.float32(2))


@numba.njit(**_OPTIONS)
def _subtract_row_medians(image, mask, width):
    ny, nx = image.shape
    values = np.empty(width, np.float32)
    for y in range(ny):
        for start in range(0, nx, width):
            count = 0
            for x in range(start, start + width):
                if mask[y, x]:
                    values[count] = image[y, x]
                    count += 1
            if count:
                stripe = _median(values, count)
                for x in range(start, start + width):
                    image[y, x] -= stripe


@numba.njit(**_OPTIONS)
def _subtract_column_medians(image, mask, height):
    ny, nx = image.shape
    # Some columns at a time, so that memory is read along rows.
    wide = min(64, nx)
    values = np.empty((wide, height), np.float32)
    counts, stripes = np.empty(wide, np.int64), np.empty(wide, np.float32)
    for start in range(0, ny, height):
        for left in range(0, nx, wide):
            right = min(left + wide, nx)
            counts[:] = 0
            for y in range(start, start + height):
                for x in range(left, right):
                    if mask[y, x]:
                        values[x - left, counts[x - left]] = image[y, x]
                        counts[x - left] += 1
            for x in range(right - left):
                stripes[x] = _median(values[x], counts[x]) if counts[x] else np.float32(0)
            for y in range(start, start + height):
                for x in range(left, right):
                    image[y, x] -= stripes[x - left]


def median_clean(image: np.ndarray, mask: np.ndarray, axis: int, fit_by_channel: bool = False) -> None:
    """Subtract from each line its median, in place.

    Parameters
    ----------
    image
        float32 (y, x), finite under the mask.
    mask
        bool (y, x), True for background. Lines without any are left as they are.
    axis
        Array axis along which the median is taken.
    fit_by_channel
        Take it separately in each quarter of the axis if that is 2048 pixels long.
    """
    length = image.shape[axis]
    if fit_by_channel and length == _FULL:
        length //= _CHANNELS
    (_subtract_row_medians if axis == 1 else _subtract_column_medians)(image, mask, length)


# -- fits in frequency space (detector coordinates: the fast axis is x, lines are read one after the other)

_CUTOFF = 1 / 256
"""Half-power frequency of the low-pass filter of a full frame [1/pixel]."""
_ROLLOFF = 1 / 1024
"""Width of its cosine roll-off [1/pixel]."""
_DENSITY_SIGMA = 32
"""Width of the Gaussian by which the density of background samples is smoothed [pixel]."""
_BLUR_SIGMA = 1.5
"""Width of the Gaussian across lines by which the noise of a full frame is smoothed [pixel]."""
_BORDER = 4
"""Lines of reference pixels at both ends of a full frame."""
_LEAST_PIVOT = 0.02
"""Ratio of the least to the greatest pivot below which equations are so ill-conditioned that jwst's rounding shows."""
_LINE_OVERHEAD = 12
"""Pixel times between lines of a subarray."""
_PIXEL_TIME = 1e-5
"""[s]"""
_SAMPLES = 512
"""Background samples that are fitted together in a subarray."""
_LEAST_FRACTION = 0.05
"""Least fraction of background samples for a fit."""
_OUTLIER = 4
"""Samples this far from the median of a subarray are left out [sigma]."""


def _to_detector(array: np.ndarray, flipped: bool) -> np.ndarray:
    """A view in detector coordinates."""
    return array.T[::-1] if flipped else array.T


def _low_pass(length: int) -> np.ndarray:
    """Filter of a line at the frequencies of its real Fourier transform, float64."""
    frequency = np.fft.rfftfreq(length)
    fall = (1 + np.cos(np.pi * (frequency - _CUTOFF) / _ROLLOFF + np.pi / 2)) / 2
    gain = np.where(frequency <= _CUTOFF - _ROLLOFF / 2, 1, fall)
    return np.where(frequency <= _CUTOFF + _ROLLOFF / 2, gain, 0)


def _waves(ticks: np.ndarray, frequencies: np.ndarray, length: int) -> np.ndarray:
    """Fourier vectors, complex128 (tick, frequency); the order of products is that of jwst."""
    return np.exp(2 * np.pi * 1j * ticks[:, np.newaxis] * frequencies / length)


def _inverse_density(mask: np.ndarray) -> np.ndarray:
    """Weight of each sample: one over the density of samples around, float32 (y, x).

    As in jwst the density is that one pixel further in both directions, by the transform of the Gaussian. The transform
    is that of the whole frame in single precision: where there are no samples around, its rounding decides.
    """
    ny, nx = mask.shape
    kernel = np.zeros((ny, nx), np.float32)
    distance = np.arange(nx) - (nx // 2 + 1)
    norm = _DENSITY_SIGMA * math.sqrt(2 * math.pi)
    kernel[ny // 2 + 1] = np.exp(-(distance**2) / _DENSITY_SIGMA**2 / 2) / norm
    spectrum = np.fft.rfft2(np.fft.ifftshift(kernel))
    with np.errstate(divide="ignore"):
        weight = 1 / np.fft.irfft2(np.fft.rfft2(mask.astype(np.float32)) * spectrum, (ny, nx))
    weight[~mask | ~np.isfinite(weight)] = 0.0
    return weight


@numba.njit(**_OPTIONS)
def _solve(matrix, right):
    """Solve equations in place by elimination with pivots.

    Returns
    -------
    ratio
        Of the least to the greatest pivot; 0 if the equations are singular.
    """
    size = len(right)
    least, greatest = np.inf, 0.0
    for column in range(size):
        best = column
        for row in range(column + 1, size):
            if abs(matrix[row, column]) > abs(matrix[best, column]):
                best = row
        pivot = abs(matrix[best, column])
        if not pivot > 0:
            return 0.0
        least, greatest = min(least, pivot), max(greatest, pivot)
        if best != column:
            for k in range(size):
                matrix[best, k], matrix[column, k] = matrix[column, k], matrix[best, k]
            right[best], right[column] = right[column], right[best]
        for row in range(column + 1, size):
            factor = matrix[row, column] / matrix[column, column]
            if factor != 0:
                for k in range(column, size):
                    matrix[row, k] -= factor * matrix[column, k]
                right[row] -= factor * right[column]
    for row in range(size - 1, -1, -1):
        for k in range(row + 1, size):
            right[row] -= matrix[row, k] * right[k]
        right[row] /= matrix[row, row]
    return least / greatest


@numba.njit(**_OPTIONS)
def _fit_lines(image, mask, weight, waves, gain, level, first, last, model, ratio):
    """Low-frequency noise of each line by weighted least squares, and how well the equations are conditioned.

    Normal equations in one-sided Fourier vectors: their matrix depends only on differences of frequencies. ``ratio`` is
    1 for lines without samples.
    """
    nx, count = waves.shape
    values, distance, places = np.empty(nx, np.float32), np.empty(nx, np.float32), np.empty(nx, np.int64)
    sums, right = np.empty(count, np.complex128), np.empty(count, np.complex128)
    matrix = np.empty((count, count), np.complex128)
    for y in range(first, last):
        samples = 0
        for x in range(nx):
            if mask[y, x]:
                values[samples], places[samples] = image[y, x], x
                samples += 1
        if samples == 0:
            continue
        distance[:samples] = values[:samples]
        middle = _median(distance, samples)
        for index in range(samples):
            distance[index] = abs(values[index] - middle)
        width = np.float32(level) * (np.float32(1.4826) * _median(distance, samples))
        sums[:], right[:] = 0, 0
        for index in range(samples):
            x, value = places[index], values[index]
            if not (middle - width <= value and value <= middle + width):
                value = middle
            square = np.float64(weight[y, x]) * np.float64(weight[y, x])
            for k in range(count):
                term = square * waves[x, k]
                sums[k] += term
                right[k] += term.conjugate() * value
        for row in range(count):
            for column in range(count):
                matrix[row, column] = sums[column - row] if column >= row else sums[row - column].conjugate()
        ratio[y] = _solve(matrix, right)
        # The real transform counts all frequencies but zero twice.
        for x in range(nx):
            total = gain[0] * right[0].real
            for k in range(1, count):
                total += 2.0 * gain[k] * (right[k].real * waves[x, k].real - right[k].imag * waves[x, k].imag)
            model[y, x] = total


def _fit_line(
    image: np.ndarray, mask: np.ndarray, weight: np.ndarray, waves: np.ndarray, gain: np.ndarray, level: float
) -> np.ndarray:
    """The same for one line, in single precision and by the inverse of the matrix, since here its rounding shows."""
    values, weight = image[mask], weight[mask]
    middle = np.median(values)
    width = level * (1.4826 * np.median(np.abs(values - middle)))
    values = np.where((middle - width <= values) & (values <= middle + width), values, middle)
    vectors = (waves[mask] / values.size).astype(np.complex64) * weight[:, np.newaxis]
    adjoint = np.conjugate(vectors.T)
    try:
        inverse = np.linalg.inv(adjoint @ vectors) @ adjoint
    except np.linalg.LinAlgError as error:
        raise CleaningError("the mask leaves a line with too few samples") from error
    spectrum = np.zeros(mask.size // 2 + 1, np.complex64)
    spectrum[: gain.size] = inverse @ (weight * values)
    spectrum *= mask.size / values.size
    spectrum[: gain.size] *= gain
    return np.fft.irfft(spectrum, mask.size)


@numba.njit(**_OPTIONS)
def _blur(model, taps, out):
    """Smooth across lines; as in jwst the result is moved by one pixel in both directions."""
    ny, nx = model.shape
    half = len(taps) // 2
    line = np.empty(nx, np.float64)
    for y in range(ny):
        line[:] = 0.0
        for index in range(len(taps)):
            source = model[(y - 1 + index - half) % ny]
            for x in range(nx):
                line[x] += taps[index] * source[x]
        out[y, 0] = line[nx - 1]
        for x in range(1, nx):
            out[y, x] = line[x - 1]


def fourier_clean_frame(image: np.ndarray, mask: np.ndarray, flipped: bool) -> None:
    """Subtract the low-frequency noise of each line of a NIRSpec full frame, in place.

    Parameters
    ----------
    image
        float32 (y, x).
    mask
        bool (y, x), True for background.
    flipped
        See :class:`Method`.

    Raises
    ------
    CleaningError
        If a line cannot be fitted.
    """
    frame = np.ascontiguousarray(_to_detector(image, flipped))
    usable = np.ascontiguousarray(_to_detector(mask, flipped))
    ny, nx = frame.shape
    gain = _low_pass(nx)
    gain = gain[gain > 0]
    waves = _waves(np.arange(nx), np.arange(gain.size), nx)
    model = np.zeros((ny, nx), np.float32)
    weight = _inverse_density(usable)
    ratio = np.ones(ny)
    _fit_lines(frame, usable, weight, waves, gain, _CLIP, _BORDER, ny - _BORDER, model, ratio)
    for y in np.flatnonzero(~(ratio > _LEAST_PIVOT)):
        model[y] = _fit_line(frame[y], usable[y], weight[y], waves, gain, _CLIP)
    # Beyond 12 sigma the Gaussian is zero in single precision.
    distance = np.arange(-18, 19) / _BLUR_SIGMA
    taps = np.exp(-(distance**2) / 2) / _BLUR_SIGMA / math.sqrt(2 * math.pi)
    smooth = np.empty_like(model)
    _blur(model, taps, smooth)
    image -= (smooth[::-1] if flipped else smooth).T


def _without_outliers(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask without pixels far from the median, and without their four neighbours."""
    values = image[mask]
    distance = np.abs(image - np.median(values)) if values.size else np.zeros_like(image)
    width = 1.4825 * np.median(distance[mask]) if values.size else np.float32(0)
    far = mask & (distance > _OUTLIER * width)
    near = far.copy()
    near[1:] |= far[:-1]
    near[:-1] |= far[1:]
    near[:, 1:] |= far[:, :-1]
    near[:, :-1] |= far[:, 1:]
    return mask & ~near


def _band_pass(ticks: int, frequencies: tuple[float, float, float, float]) -> np.ndarray:
    """Filter of a subarray at the frequencies of the real Fourier transform of its time line, float32."""
    fall, fallen, rise, risen = (np.float32(value) for value in frequencies)
    frequency = np.fft.rfftfreq(np.int32(ticks), np.float32(_PIXEL_TIME)).astype(np.float32)
    falling = 0.5 * (np.cos(np.pi / (fallen - fall) * (frequency - fall)) + 1)
    rising = 0.5 * (np.cos(np.pi / (risen - rise) * (frequency - rise) + np.pi) + 1)
    gain = np.select(
        [frequency < fall, frequency < fallen, frequency < rise, frequency < risen], [1, falling, 0, rising], 1
    )
    return gain.astype(np.float32)


def _section_noise(image: np.ndarray, mask: np.ndarray, frequencies: tuple[float, float, float, float]) -> np.ndarray:
    """Noise of successive lines, as one time line, by weighted least squares; float32 (y, x)."""
    ny, nx = image.shape
    line = nx + _LINE_OVERHEAD
    ticks = ny * line
    gain = _band_pass(ticks, frequencies)
    used = np.zeros((ny, line), np.bool_)
    used[:, :nx] = mask
    used = used.ravel()

    center = np.float32(ticks // 2 + 1)
    # In single precision as in jwst.
    width = np.float32(1 / ((frequencies[0] + frequencies[1]) / 2)) / np.float32(_PIXEL_TIME) / 2 / 4
    distance = np.arange(ticks, dtype=np.float32) - center
    kernel = np.exp(-(distance**2) / width**2 / 2) / width / np.sqrt(2 * np.pi)
    density = np.fft.irfft(np.fft.rfft(used.astype(np.float32)) * np.fft.rfft(np.fft.ifftshift(kernel)), ticks)
    with np.errstate(divide="ignore"):
        weight = np.where(used, 1 / density, 0.0)
    weight[~np.isfinite(weight)] = 0.0

    index = np.flatnonzero(gain > 0)
    full = np.zeros(gain.size, np.complex64)
    full[index] = _spectrum(image[mask], used, weight[used], index)
    full *= np.float64(ticks / np.count_nonzero(used))
    return np.fft.irfft(full * gain, ticks).reshape(ny, line)[:, :nx]


def _spectrum(values: np.ndarray, used: np.ndarray, weight: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Coefficients of Fourier vectors over the number of samples.

    By the inverse of the matrix of the normal equations in single precision, as in jwst: where the samples leave it
    all but singular, its rounding is what the coefficients are made of.
    """
    vectors = (_waves(np.flatnonzero(used), index, used.size) / values.size).astype(np.complex64)
    weighted = weight[:, np.newaxis] * vectors
    adjoint = np.conjugate(weighted.T)
    try:
        inverse = np.linalg.inv(adjoint @ weighted) @ adjoint
    except np.linalg.LinAlgError as error:
        raise CleaningError("the mask leaves too few samples") from error
    return (inverse * weight) @ values


def _sections(mask: np.ndarray) -> list[tuple[int, int]]:
    """Overlapping ranges of lines, each with about the number of samples that are fitted together."""
    counts = np.concatenate(([0], np.cumsum(mask.sum(axis=1))))
    used = np.flatnonzero(np.diff(counts))
    if used.size == 0:
        raise CleaningError("no background is left")
    start, end = int(used[0]), int(used[-1]) + 1
    sections = []
    while True:
        enough = np.flatnonzero(counts[start + 1 : end + 1] - counts[start] > _SAMPLES)
        stop = end
        # What remains is fitted together if it is not much more.
        if enough.size and counts[-1] - counts[start] > 1.5 * _SAMPLES:
            stop = start + 1 + int(enough[0])
        sections.append((start, stop))
        if stop == end:
            return sections
        start += max(round((stop - start) / 2), 1)


def fourier_clean_subarray(
    image: np.ndarray,
    mask: np.ndarray,
    flipped: bool,
    frequencies: tuple[float, float, float, float] = FREQUENCIES,
) -> np.ndarray:
    """Subtract the noise at low frequencies and at the highest one from a NIRSpec subarray.

    Parameters
    ----------
    image
        float32 (y, x).
    mask
        bool (y, x), True for background.
    flipped, frequencies
        See :class:`Method`.

    Returns
    -------
    cleaned
        float64 (y, x).

    Raises
    ------
    CleaningError
        If there is no background, or it cannot be fitted.
    """
    frame = _to_detector(image, flipped)
    usable = _without_outliers(frame, _to_detector(mask, flipped))
    noise, total = np.zeros(frame.shape), np.zeros(frame.shape)
    for start, stop in _sections(usable):
        lines = slice(start, stop)
        # Fits count most in the middle of their section.
        weight = 1.001 - np.abs(np.linspace(-1, 1, stop - start))[:, np.newaxis]
        total[lines] += weight
        if usable[lines].mean() > _LEAST_FRACTION:
            noise[lines] += weight * _section_noise(frame[lines], usable[lines], frequencies)
    total[noise == 0] = 1
    cleaned = frame - noise / total
    return cleaned[::-1].T if flipped else cleaned.T


# -- a whole image, a whole ramp


def clean_image(
    image: np.ndarray, mask: np.ndarray, method: Method, flat: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | np.float32] | None:
    """Clean one image.

    Parameters
    ----------
    image
        float32 (y, x); changed.
    mask
        bool (y, x), True for background; changed.
    method
        How to clean.
    flat
        float32 (y, x) by which the image is divided meanwhile.

    Returns
    -------
    cleaned, background
        float32 or float64 (y, x), with what was taken for background (a number or float32 (y, x)); None if there is no
        background, whereupon the image stays as it is.

    Raises
    ------
    CleaningError
        If the noise cannot be fitted.
    """
    if flat is not None:
        image /= flat
    invalid = np.isnan(image)
    image[invalid] = 0.0
    mask &= ~invalid
    if not mask.any():
        return None
    background = subtract_background(image, mask, method)
    if method.fit_method == "median":
        median_clean(image, mask, method.axis, method.fit_by_channel)
    elif image.shape == (_FULL, _FULL):
        fourier_clean_frame(image, mask, method.flipped)
    else:
        image = fourier_clean_subarray(image, mask, method.flipped, method.frequencies)
    image += background
    if flat is not None:
        image *= flat
    image[invalid] = np.nan
    return image, background


def clean_ramp(
    sci: np.ndarray,
    groupdq: np.ndarray,
    mask: np.ndarray,
    method: Method,
    flat: np.ndarray | None = None,
    median: np.ndarray | None = None,
    scale: np.floating | float = 1.0,
    background: np.ndarray | None = None,
) -> list[int]:
    """Clean the groups of one integration, in place.

    What is cleaned is the difference to the group before; it is added to that group as cleaned. A group whose
    difference has no background stays as it is.

    Parameters
    ----------
    sci
        float32 of any byte order (group, y, x) [DN], read and written one group at a time.
    groupdq
        uint8 (group, y, x); pixels that are DO_NOT_USE or JUMP_DET in a group are no background in its difference.
    mask
        bool (y, x), True for background.
    method
        How to clean.
    flat
        float32 (y, x) by which the differences are divided meanwhile.
    median
        Median of integrations, float32 (group, y, x): each group is cleaned of its difference to ``scale`` times that
        instead, whatever its flags.
    scale
        Of the median.
    background
        float32 (group, y, x) to receive what was taken for background; left where nothing is cleaned.

    Returns
    -------
    skipped
        Groups that stay as they are, since there was no background.

    Raises
    ------
    CleaningError
        If the noise cannot be fitted; ``sci`` is then partly cleaned.
    """
    if median is not None:
        return clean_cube(sci, mask, method, flat, median, scale, background)
    skipped = []
    before = last = np.array(sci[0], np.float32)
    for group in range(1, len(sci)):
        current = np.array(sci[group], np.float32)
        found = clean_image(current - before, mask & ((groupdq[group] & _UNUSABLE) == 0), method, flat)
        before = current
        if found is None:
            skipped.append(group)
            last = current
            continue
        last = (last + found[0]).astype(np.float32)
        sci[group] = last
        if background is not None:
            background[group] = found[1]
    return skipped


def clean_cube(
    sci: np.ndarray,
    mask: np.ndarray,
    method: Method,
    flat: np.ndarray | None = None,
    median: np.ndarray | None = None,
    scale: np.floating | float = 1.0,
    background: np.ndarray | None = None,
) -> list[int]:
    """Clean images, each by itself, in place.

    Parameters
    ----------
    sci
        float32 of any byte order (image, y, x), read and written one image at a time.
    mask
        bool (y, x), True for background.
    method, flat, median, scale, background
        As of :func:`clean_ramp`; ``median`` is (image, y, x).

    Returns
    -------
    skipped
        Images that stay as they are, since there was no background.

    Raises
    ------
    CleaningError
        If the noise cannot be fitted; ``sci`` is then partly cleaned.
    """
    skipped = []
    for index in range(len(sci)):
        image = np.array(sci[index], np.float32)
        level = None if median is None else scale * median[index]
        rest = image if level is None else (image - level).astype(np.float32)
        found = clean_image(rest, mask.copy(), method, flat)
        if found is None:
            skipped.append(index)
            continue
        sci[index] = found[0] if level is None else level + found[0]
        if background is not None:
            background[index] = found[1] if level is None else level
    return skipped


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


def soss_traces(
    shape: tuple[int, int], model: Mapping[str, Any], pupil_position: float, subarray: str, half_width: int = 16
) -> np.ndarray:
    """Where the orders of a NIRISS SOSS exposure fall.

    Parameters
    ----------
    shape
        Of the frame (y, x).
    model
        The pastasoss reference: ``traces`` and ``wavecal_models`` of each order, and ``meta``.
    pupil_position
        Angle of the pupil wheel [degree], which turns the traces about a pivot.
    subarray
        Its name; SUBSTRIP96 begins 10 rows higher.
    half_width
        Pixels above and below a trace that belong to it.

    Returns
    -------
    covered
        bool (y, x).

    Raises
    ------
    CleaningError
        If the reference does not know the angle.
    """
    wavelengths = soss_wavelengths(model)
    rows = np.arange(shape[0])[:, np.newaxis]
    covered = np.zeros(shape, np.bool_)
    for number in range(len(model["traces"])):
        x, y, own = soss_trace(model, number, pupil_position, subarray)
        columns, centers = extrapolated(wavelengths, own, x), extrapolated(wavelengths, own, y)
        order = np.argsort(columns)
        center = np.interp(np.arange(shape[1]), columns[order], centers[order])
        covered |= (rows >= np.floor(center - half_width)) & (rows <= np.ceil(center + half_width))
    return covered


def soss_wavelengths(model: Mapping[str, Any]) -> np.ndarray:
    """Wavelengths [um] at which traces are evaluated."""
    meta = model["meta"]
    return np.linspace(meta["wavemap_wlmin"], meta["wavemap_wlmax"], meta["wavemap_nwl"])


def soss_trace(
    model: Mapping[str, Any], number: int, pupil_position: float, subarray: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns, rows and wavelengths [um] of the trace of an order, counted from 0; see :func:`soss_traces`."""
    bounds = model["meta"]["pwcpos_bounds"]
    if not bounds[0] <= pupil_position <= bounds[1]:
        raise CleaningError(f"the pupil wheel at {pupil_position} degrees is outside of {bounds[0]} to {bounds[1]}")
    turn = pupil_position - model["meta"]["pwcpos_cmd"]
    trace = model["traces"][number]
    x, y = np.array(trace["trace"], np.float64).T
    if subarray == "SUBSTRIP96":
        y = y - 10
    x, y = _turned(x, y, turn, (trace["pivot_x"], trace["pivot_y"]))
    return x, y, _wavelengths(x, turn, model["wavecal_models"][number])


def _turned(x: np.ndarray, y: np.ndarray, angle: float, pivot: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A trace turned by an angle [degree], at the same columns as far as it is below row 256."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    dx, dy = x - pivot[0], y - pivot[1]
    turned_x, turned_y = cosine * dx - sine * dy + pivot[0], sine * dx + cosine * dy + pivot[1]
    order = np.argsort(turned_x)
    place = extrapolated(x, turned_x[order], turned_y[order])
    inside = place <= 255.0
    return x[inside], place[inside]


def extrapolated(where: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Linear interpolation, beyond both ends along the outermost pieces."""
    order = np.argsort(x)
    x, y = x[order], y[order]
    values = np.interp(where, x, y)
    low, high = where < x[0], where > x[-1]
    values[low] = y[0] + (where[low] - x[0]) * (y[1] - y[0]) / (x[1] - x[0])
    values[high] = y[-1] + (where[high] - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])
    return values


def _wavelengths(x: np.ndarray, turn: float, calibration: Mapping[str, Any]) -> np.ndarray:
    """Wavelength at columns of a trace: a polynomial in scaled column and angle, by ascending degree."""
    (x_low, turn_low), (x_high, turn_high) = calibration["scale_extents"]
    x, turn = (x - x_low) / (x_high - x_low), (turn - turn_low) / (turn_high - turn_low)
    powers = ((degree - k, k) for degree in itertools.count() for k in range(degree + 1))
    return sum(c * x**i * turn**k for c, (i, k) in zip(calibration["coefficients"], powers, strict=False))


def fill_flat(flat: np.ndarray) -> np.ndarray:
    """A flat, float32 (y, x), with smooth values where it is zero or not finite."""
    return fill_smoothly(flat, (flat == 0) | ~np.isfinite(flat))


def fill_smoothly(image: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """An image, float32 (y, x), with a model of its background where it is bad: the image itself if it is not."""
    if not bad.any():
        return image
    mask = ~bad
    filled = image.copy()
    _keep_within(image, mask, *background_limits(_sorted_values(image, mask), _CLIP, _CLIP, lower_half=True))
    smooth = background_model(image, mask)
    filled[bad] = np.broadcast_to(smooth, image.shape)[bad]
    return filled


# -- medians of integrations


def flux_scale(flux: np.ndarray) -> np.ndarray:
    """Flux of each integration over the median of all, 1 where it is not finite.

    Parameters
    ----------
    flux
        float (integration,).

    Raises
    ------
    CleaningError
        If no flux is finite.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        scale = flux / np.nanmedian(flux)
    invalid = ~np.isfinite(scale)
    if invalid.all():
        raise CleaningError("no integration has a flux to scale the median image with")
    scale[invalid] = np.median(scale[~invalid])
    return scale


def median_fluxes(rateints: np.ndarray) -> np.ndarray:
    """Median of each integration of a cube (integration, y, x), NaN left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.array([np.nanmedian(image) for image in rateints])


@numba.njit(**_OPTIONS)
def _medians_of_first(values, out):
    integrations, groups, ny, nx = values.shape
    sample = np.empty(integrations, np.float32)
    for group in range(groups):
        for y in range(ny):
            for x in range(nx):
                count = 0
                for integration in range(integrations):
                    value = values[integration, group, y, x]
                    if value == value:
                        sample[count] = value
                        count += 1
                out[group, y, x] = _median(sample, count) if count else np.float32(np.nan)


def median_of_integrations(sci: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Median over integrations, NaN left out.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x).
    out
        float32 (group, y, x) to fill.
    """
    if out is None:
        out = np.empty(sci.shape[1:], np.float32)
    _medians_of_first(sci, out)
    return out


# -- choice of parameters


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
    background = subtract_background(image, mask, Method(n_sigma=0.0))
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

    if values.size != _FULL:
        return 0.0
    means = [sigma_clipped_stats(part, sigma=_CLIP)[0] for part in values.reshape(_CHANNELS, -1)]
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
    _keep_within(image, mask, *background_limits(_sorted_values(image, mask), _CLIP, _CLIP, lower_half=True))
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
