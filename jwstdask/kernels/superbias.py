"""Subtraction of the bias pattern of a detector."""

from __future__ import annotations

import numpy as np


def subtract(sci: np.ndarray, bias: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Subtract a bias image from every group; NaN in the bias counts as zero.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    bias
        float32 (y, x) [DN].
    out
        Where to write; may be ``sci``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``sci`` [DN].
    """
    return np.subtract(sci, np.where(np.isnan(bias), np.float32(0), bias), out=out)


def subtract_zeroframe(zeroframe: np.ndarray, bias: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Subtract a bias image from the zeroth frame, where an exact zero stays the mark of an unusable value.

    Parameters
    ----------
    zeroframe
        float32 (integration, y, x) [DN].
    bias
        float32 (y, x) [DN].
    out
        Where to write; may be ``zeroframe``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``zeroframe`` [DN].
    """
    unusable = zeroframe == 0
    result = subtract(zeroframe, bias, out=out)
    result[unusable] = 0
    return result
