"""Subtraction of the bias pattern of a detector."""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.kernels.compiled import UNCOUNTED
from jwstdask.kernels.runs import to_change


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
    out = to_change(sci, out)
    _subtract(out, bias, np.empty(out.shape[-1], np.float32))
    return out


@numba.njit(**UNCOUNTED)
def _subtract(sci, bias, level):
    integrations, groups, ny, nx = sci.shape
    for y in range(ny):
        for x in range(nx):
            level[x] = np.float32(0) if np.isnan(bias[y, x]) else bias[y, x]
        for integration in range(integrations):
            for group in range(groups):
                values = sci[integration, group, y]
                for x in range(nx):
                    values[x] -= level[x]


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
    out = to_change(zeroframe, out)
    _subtract_zeroframe(out, bias)
    return out


@numba.njit(**UNCOUNTED)
def _subtract_zeroframe(zeroframe, bias):
    integrations, ny, nx = zeroframe.shape
    zero = np.float32(0)
    for integration in range(integrations):
        for y in range(ny):
            values, levels = zeroframe[integration, y], bias[y]
            for x in range(nx):
                level = levels[x] if levels[x] == levels[x] else zero
                values[x] = values[x] - level if values[x] != zero else zero
