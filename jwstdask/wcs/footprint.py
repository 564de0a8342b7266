"""Footprints on the sky and the S_REGION keyword (STC-S polygon, IVOA)."""

from __future__ import annotations

from typing import Any

import numpy as np

from jwstdask.wcs.pixelmap import limits


def footprint(wcs: Any, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Sky position of the corners of an image's bounding box.

    Parameters
    ----------
    wcs
        gwcs of an image.
    shape
        Shape (y, x), needed only if the WCS has neither bounding box nor array shape.

    Returns
    -------
    numpy.ndarray
        float64 (4, 2): right ascension in [0, 360) and declination [degree] of the corners (x low, y low),
        (x low, y high), (x high, y high), (x high, y low): outer edges of the pixels, not centres.
    """
    (x_low, x_high), (y_low, y_high) = limits(wcs, shape)
    x, y = np.array([x_low, x_low, x_high, x_high]), np.array([y_low, y_high, y_high, y_low])
    ra, dec = wcs(x, y)[:2]
    return np.stack([np.mod(ra, 360), dec], axis=1)


def s_region(corners: np.ndarray) -> str | None:
    """S_REGION of a polygon (n, 2) [degree], or None if a corner is not finite (the keyword then keeps its value)."""
    if np.isnan(corners).any():
        return None
    return "POLYGON ICRS  " + " ".join(f"{value:.9f}" for value in np.ravel(corners))


def parse_s_region(text: str) -> np.ndarray:
    """Corners of an S_REGION, float64 (n, 2) [degree].

    Raises
    ------
    ValueError
        If the text is not a polygon.
    """
    words = text.split()
    if not words or words[0].upper() != "POLYGON":
        raise ValueError(f"{text!r} is not a polygon")
    numbers = [float(word) for word in words[1:] if not word.isalpha()]
    return np.array(numbers).reshape(-1, 2)
