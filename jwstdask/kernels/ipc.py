"""Correction of inter-pixel capacitance by convolution with a small kernel."""

from __future__ import annotations

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
        if kernel.ndim == 2:
            kernel = kernel[:, :, np.newaxis, np.newaxis]
        _convolve(out, np.ascontiguousarray(kernel), limits)
    return out


@numba.njit(cache=True, nogil=True)
def _convolve(data, kernel, limits):
    y0, y1, x0, x1 = limits
    integrations, groups = data.shape[:2]
    height, width = kernel.shape[:2]
    fixed = kernel.shape[2] == 1 and kernel.shape[3] == 1
    middle_row, middle_column = height // 2, width // 2
    ny, nx = y1 - y0, x1 - x0
    # A border of zeros spares all tests at the edges.
    padded = np.zeros((ny + height - 1, nx + width - 1), np.float32)
    line = np.empty(nx, np.float32)
    for integration in range(integrations):
        for group in range(groups):
            image = data[integration, group]
            for y in range(ny):
                for x in range(nx):
                    padded[y + middle_row, x + middle_column] = image[y0 + y, x0 + x]
            for y in range(ny):
                for x in range(nx):
                    line[x] = 0
                for element in range(height * width + 1):
                    row, column = element // width, element % width
                    if element == height * width:
                        row, column = middle_row, middle_column
                    elif row == middle_row and column == middle_column:
                        continue
                    source = padded[y + height - 1 - row]
                    first = width - 1 - column
                    if fixed:
                        weight = kernel[row, column, 0, 0]
                        for x in range(nx):
                            line[x] += weight * source[first + x]
                    else:
                        weights = kernel[row, column, y0 + y]
                        for x in range(nx):
                            line[x] += weights[x0 + x] * source[first + x]
                for x in range(nx):
                    image[y0 + y, x0 + x] = line[x]
