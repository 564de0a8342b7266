"""Subtraction of the bias pattern of a detector."""

from __future__ import annotations

import numba
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
    if out is None:
        out = np.empty_like(sci)
    _subtract(sci, bias, out)
    return out


@numba.njit(cache=True, nogil=True)
def _subtract(sci, bias, out):
    integrations, groups, ny, nx = sci.shape
    # Through a line of its own, since ``out`` may be ``sci``.
    level, line = np.empty(nx, np.float32), np.empty(nx, np.float32)
    for y in range(ny):
        for x in range(nx):
            level[x] = np.float32(0) if np.isnan(bias[y, x]) else bias[y, x]
        for integration in range(integrations):
            for group in range(groups):
                values, target = sci[integration, group, y], out[integration, group, y]
                for x in range(nx):
                    line[x] = values[x] - level[x]
                for x in range(nx):
                    target[x] = line[x]


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
    result = subtract(zeroframe[:, np.newaxis], bias, out=None if out is None else out[:, np.newaxis])[:, 0]
    result[unusable] = 0
    return result
