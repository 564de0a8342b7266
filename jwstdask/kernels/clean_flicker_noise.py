"""Remove flicker (1/f) noise from images.

The noise is common to all pixels read at nearly the same time: to a row or column along the fast axis of the detector.
It is measured where there is only background, and subtracted.

Sources: JWST pipeline documentation, "clean_flicker_noise"; for the medians along lines, Willott's "image1overf".
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from jwstdask.core import dq as flags
from jwstdask.kernels.background import subtract_background
from jwstdask.kernels.fourier_clean import FREQUENCIES, fourier_clean_frame, fourier_clean_subarray
from jwstdask.kernels.medians import median_of_first

CHANNELS = 4
"""Amplifiers of a full near-infrared frame."""
FULL = 2048

_UNUSABLE = np.uint8(flags.DO_NOT_USE | flags.JUMP_DET)


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


# -- medians along lines


@numba.njit(cache=True, nogil=True)
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
                stripe = median_of_first(values, count)
                for x in range(start, start + width):
                    image[y, x] -= stripe


@numba.njit(cache=True, nogil=True)
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
                stripes[x] = median_of_first(values[x], counts[x]) if counts[x] else np.float32(0)
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
    if fit_by_channel and length == FULL:
        length //= CHANNELS
    (_subtract_row_medians if axis == 1 else _subtract_column_medians)(image, mask, length)


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
    background = subtract_background(image, mask, method.background_method, method.n_sigma, method.background_box_size)
    if method.fit_method == "median":
        median_clean(image, mask, method.axis, method.fit_by_channel)
    elif image.shape == (FULL, FULL):
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
