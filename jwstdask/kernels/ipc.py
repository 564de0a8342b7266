"""Correction of inter-pixel capacitance by convolution with a small kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np


def convolve(
    sci: np.ndarray,
    kernel: np.ndarray,
    science: tuple[slice, slice],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve the light-sensitive part of every group with a kernel.

    Reference pixels are neither changed nor used; beyond the edge of the light-sensitive part the signal is zero. The
    central element is added last, since it is the largest.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    kernel
        float32 (row, column), or (row, column, y, x) with a kernel for each pixel.
    science
        Rows and columns of the light-sensitive part that lies in ``sci``.
    out
        Where to write; may be ``sci``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``sci`` [DN].
    """
    if out is None:
        out = sci.copy()
    elif out is not sci:
        out[...] = sci
    rows, columns = science
    limits = (rows.start, rows.stop, columns.start, columns.stop)
    if limits[0] < limits[1] and limits[2] < limits[3]:
        fixed = kernel.ndim == 2
        if fixed:
            kernel = kernel[:, :, np.newaxis, np.newaxis]
        _convolver(*kernel.shape[:2], fixed)(out, np.ascontiguousarray(kernel), limits)
    return out


# The compiler keeps the sum in registers and works on many pixels at once only if it knows the size of the kernel:
# functions are made for each size.


@lru_cache(maxsize=32)
def _convolver(height: int, width: int, fixed: bool) -> Callable[..., None]:
    middle_row, middle_column = height // 2, width // 2

    @numba.njit(cache=True, nogil=True)
    def run(data, kernel, limits):
        y0, y1, x0, x1 = limits
        integrations, groups = data.shape[:2]
        ny, nx = y1 - y0, x1 - x0
        # A border of zeros spares all tests at the edges.
        padded = np.zeros((ny + height - 1, nx + width - 1), np.float32)
        for integration in range(integrations):
            for group in range(groups):
                image = data[integration, group]
                for y in range(ny):
                    for x in range(nx):
                        padded[y + middle_row, x + middle_column] = image[y0 + y, x0 + x]
                for y in range(ny):
                    for x in range(nx):
                        total = np.float32(0)
                        for row in range(height):
                            for column in range(width):
                                if row != middle_row or column != middle_column:
                                    weight = kernel[row, column, 0 if fixed else y0 + y, 0 if fixed else x0 + x]
                                    total += weight * padded[y + height - 1 - row, x + width - 1 - column]
                        weight = kernel[middle_row, middle_column, 0 if fixed else y0 + y, 0 if fixed else x0 + x]
                        image[y0 + y, x0 + x] = total + weight * padded[y + middle_row, x + middle_column]

    return run
