"""Flicker (1/f) noise of NIRSpec images by fits in frequency space.

Fourier vectors are fitted to background pixels, in a full frame to each line by itself, in a subarray to the time line
of all lines, and what passes a filter is subtracted. Fits are in detector coordinates: the fast axis is x, lines are
read one after the other.

Source: Rauscher, "NSClean: An algorithm for removing correlated noise from JWST NIRSpec images", PASP 136, 015001
(2024).
"""

from __future__ import annotations

import math

import numba
import numpy as np

from jwstdask.kernels.compiled import COMPILED, UNCOUNTED
from jwstdask.kernels.errors import CleaningError
from jwstdask.kernels.medians import median_of_first

FREQUENCIES = (1061.0, 1211.0, 49943.0, 49957.0)
"""Frequencies [Hz] of the filter for subarrays: it passes below the first and above the last one."""
FREQUENCIES_ALLSLITS = (150.0, 200.0, 49943.0, 49957.0)
"""The same for subarray ALLSLITS."""

_CLIP = 3.0
"""Samples this far from the median of a line are replaced by it [sigma]."""
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


@numba.njit(**UNCOUNTED)
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


@numba.njit(**COMPILED)
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
        middle = median_of_first(distance, samples)
        for index in range(samples):
            distance[index] = abs(values[index] - middle)
        width = np.float32(level) * (np.float32(1.4826) * median_of_first(distance, samples))
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


@numba.njit(**COMPILED)
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
        The slow axis runs against the y or x axis of the image.

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
    flipped
        As of :func:`fourier_clean_frame`.
    frequencies
        Of the filter [Hz].

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
