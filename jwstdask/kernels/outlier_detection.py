"""Outliers among dithered images: median of the drizzled images, taken back to each image and compared.

The method is that of Fruchter & Hook (2002, PASP 114, 144, section 5): where the median of several dithered images,
interpolated at the position of a pixel, differs from the pixel by more than its noise and the local gradient of the
median allow, the pixel is an outlier.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


def weight_threshold(weight: NDArray[np.floating], maskpt: float) -> float:
    """Weight below which pixels of an image do not enter the median.

    Parameters
    ----------
    weight
        Weights, any shape; zeros and values that are not finite are left out.
    maskpt
        Fraction of the mean weight.

    Returns
    -------
    threshold
        ``maskpt`` times the mean weight, clipped at 3 standard deviations about the median at most 5 times; NaN if
        there is no weight.
    """
    kept = np.sort(weight[np.isfinite(weight) & (weight != 0)])
    for _ in range(5):
        if kept.size == 0:
            break
        middle = kept.size // 2
        median = float(kept[middle]) if kept.size % 2 else 0.5 * (float(kept[middle - 1]) + float(kept[middle]))
        spread = 3.0 * float(kept.std(dtype=np.float64))
        first = np.searchsorted(kept, np.float64(median - spread), side="left")
        last = np.searchsorted(kept, np.float64(median + spread), side="right")
        if last - first == kept.size:
            break
        kept = kept[first:last]
    return float(kept.mean(dtype=np.float64) * maskpt) if kept.size else float("nan")


@numba.njit(cache=True, nogil=True)
def median_of_images(images, weights, thresholds, out):
    """Median over the first dimension of the pixels that are not NaN and have enough weight.

    Parameters
    ----------
    images
        float32 (image, y, x).
    weights
        float32 (image, y, x).
    thresholds
        float64 (image,), least weight of each image.
    out
        float32 (y, x), filled; NaN where no image is good.
    """
    n, ny, nx = images.shape
    values = np.empty(n, np.float32)
    for y in range(ny):
        for x in range(nx):
            count = 0
            for k in range(n):
                value = images[k, y, x]
                if value != value or weights[k, y, x] < thresholds[k]:
                    continue
                place = count
                while place > 0 and values[place - 1] > value:
                    values[place] = values[place - 1]
                    place -= 1
                values[place] = value
                count += 1
            if count == 0:
                out[y, x] = np.nan
            elif count % 2:
                out[y, x] = values[count // 2]
            else:
                out[y, x] = (values[count // 2 - 1] + values[count // 2]) * np.float32(0.5)


@numba.njit(cache=True, nogil=True)
def reach(pixel_map, shape):
    """First and past-the-last row and column of an image (y, x) of ``shape`` that :func:`blot` needs.

    ``pixel_map`` is float64 (y, x, 2). All four are 0 if no position lies in the image.
    """
    x_low = y_low = np.inf
    x_high = y_high = -np.inf
    for j in range(pixel_map.shape[0]):
        for i in range(pixel_map.shape[1]):
            x = pixel_map[j, i, 0]
            y = pixel_map[j, i, 1]
            # A pixel more than blot's own test: it rounds positions.
            if x > -1.0 and x < shape[1] + 1.0 and y > -1.0 and y < shape[0] + 1.0:
                x_low, x_high = min(x, x_low), max(x, x_high)
                y_low, y_high = min(y, y_low), max(y, y_high)
    if not x_high > -np.inf:
        return 0, 0, 0, 0
    return (
        max(0, int(y_low) - 1),
        min(shape[0], int(y_high) + 3),
        max(0, int(x_low) - 1),
        min(shape[1], int(x_high) + 3),
    )


@numba.njit(cache=True, nogil=True)
def blot(pixel_map, image, image_origin, image_shape, out):
    """Interpolate an image linearly at the positions of an exposure's pixels.

    Positions are rounded to float32, as in the drizzle package.

    Parameters
    ----------
    pixel_map
        float64 (y, x, 2), positions (x, y) in the image; NaN where there is none.
    image
        float32 (y, x), rows of the image that the positions need.
    image_origin
        (y, x) of the first pixel of ``image`` in the whole image.
    image_shape
        (y, x) shape of the whole image.
    out
        float32 (y, x), filled; NaN outside the image.
    """
    ny, nx = image_shape
    y0, x0 = image_origin
    one = np.float32(1.0)
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            x = np.float32(pixel_map[j, i, 0])
            y = np.float32(pixel_map[j, i, 1])
            if not (x >= 0.0 and x < nx and y >= 0.0 and y < ny):
                out[j, i] = np.nan
                continue
            column = int(x)
            row = int(y)
            sx = x - np.float32(column)
            sy = y - np.float32(row)
            r = row - y0
            c = column - x0
            here = image[r, c]
            if column == nx - 1 and row == ny - 1:
                out[j, i] = here
            elif column == nx - 1:
                out[j, i] = (one - sy) * here + sy * image[r + 1, c]
            elif row == ny - 1:
                out[j, i] = (one - sx) * here + sx * image[r, c + 1]
            else:
                tx = one - sx
                ty = one - sy
                out[j, i] = (
                    tx * ty * here
                    + sx * ty * image[r, c + 1]
                    + sy * tx * image[r + 1, c]
                    + sx * sy * image[r + 1, c + 1]
                )


@numba.njit(cache=True, nogil=True)
def gradient(image, out):
    """Largest absolute difference of each pixel from its 4 neighbours.

    Parameters
    ----------
    image
        float32 (y, x).
    out
        float32 (y, x), filled; NaN where the pixel is, 0 where all neighbours are NaN.
    """
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            here = image[y, x]
            if here != here:
                out[y, x] = here
                continue
            largest = np.float32(0.0)
            if y > 0:
                difference = abs(here - image[y - 1, x])
                if difference > largest and difference < np.inf:
                    largest = difference
            if y < ny - 1:
                difference = abs(image[y + 1, x] - here)
                if difference > largest:
                    largest = difference
            if x > 0:
                difference = abs(here - image[y, x - 1])
                if difference > largest:
                    largest = difference
            if x < nx - 1:
                difference = abs(image[y, x + 1] - here)
                if difference > largest:
                    largest = difference
            out[y, x] = largest


@numba.njit(cache=True, nogil=True)
def _noise(err):
    """Error for a threshold: 0 where unknown, the largest number where infinite."""
    if err != err:
        return np.float32(0.0)
    largest = np.float32(3.4028234663852886e38)
    return min(max(err, -largest), largest)


@numba.njit(cache=True, nogil=True)
def flag_resampled(sci, err, reference, snr, scale, backg, rows, out):
    """Outliers of an image against the interpolated median.

    A pixel is flagged if |sci - reference - backg| > scale[1] * gradient + snr[1] * err there, and the same with
    scale[0], snr[0] holds somewhere in the 3 x 3 pixels around it.

    Parameters
    ----------
    sci, err, reference
        float32 (y, x); two rows more than ``rows`` on each side that the image has.
    snr, scale
        Pairs of numbers.
    backg
        Background that ``sci`` has and ``reference`` has not.
    rows
        First and past-the-last row to decide.
    out
        bool (y, x) of ``rows``, filled.
    """
    ny, nx = sci.shape
    snr0, snr1 = np.float32(snr[0]), np.float32(snr[1])
    scale0, scale1 = np.float32(scale[0]), np.float32(scale[1])
    background = np.float32(backg)
    slope = np.empty((ny, nx), np.float32)
    gradient(reference, slope)
    first = np.zeros((ny, nx), np.bool_)
    second = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        for x in range(nx):
            difference = abs((sci[y, x] - reference[y, x]) - background)
            noise = _noise(err[y, x])
            first[y, x] = difference > scale0 * slope[y, x] + snr0 * noise
            second[y, x] = difference > scale1 * slope[y, x] + snr1 * noise
    for y in range(rows[0], rows[1]):
        for x in range(nx):
            flagged = False
            if second[y, x]:
                for v in range(max(y - 1, 0), min(y + 2, ny)):
                    for u in range(max(x - 1, 0), min(x + 2, nx)):
                        flagged |= first[v, u]
            out[y - rows[0], x] = flagged


@numba.njit(cache=True, nogil=True)
def flag_plain(sci, err, reference, snr, out):
    """Outliers of an image against the median of images on the same pixels: |sci - reference| > snr * err.

    Parameters
    ----------
    sci, err, reference
        float32 (y, x).
    snr
        Number of standard deviations.
    out
        bool (y, x), filled.
    """
    threshold = np.float32(snr)
    for y in range(sci.shape[0]):
        for x in range(sci.shape[1]):
            out[y, x] = abs(sci[y, x] - reference[y, x]) > threshold * _noise(err[y, x])
