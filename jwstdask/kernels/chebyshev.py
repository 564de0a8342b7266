"""Tensor-product Chebyshev series on a pixel grid.

Source: Trefethen, "Approximation Theory and Approximation Practice" (2013), chapters 3 and 4.
"""

from __future__ import annotations

import numba
import numpy as np


def nodes(count: int) -> np.ndarray:
    """Chebyshev points of the first kind on (-1, 1), float64 (count,), descending."""
    return np.cos(np.pi * (np.arange(count) + 0.5) / count)


def basis(position: np.ndarray, count: int) -> np.ndarray:
    """Chebyshev polynomials of degree 0 to ``count - 1``.

    Parameters
    ----------
    position
        float64 (n,), within [-1, 1]; outside, the polynomials grow quickly but stay defined.
    count
        Number of polynomials.

    Returns
    -------
    numpy.ndarray
        float64 (count, n), by the three-term recurrence.
    """
    values = np.empty((count, position.size))
    values[0] = 1.0
    if count > 1:
        values[1] = position
    for degree in range(2, count):
        values[degree] = 2.0 * position * values[degree - 1] - values[degree - 2]
    return values


def coefficients(samples: np.ndarray) -> np.ndarray:
    """Series that interpolates samples taken at :func:`nodes` along the last two axes.

    Parameters
    ----------
    samples
        float64 (..., y, x), node order along both axes.

    Returns
    -------
    numpy.ndarray
        float64 (..., degree in y, degree in x).
    """
    series = samples
    for axis in (-2, -1):
        count = series.shape[axis]
        # The points of the first kind are orthogonal under the discrete cosine transform.
        transform = basis(nodes(count), count) * (2.0 / count)
        transform[0] *= 0.5
        series = np.moveaxis(np.tensordot(transform, series, axes=(1, axis)), 0, axis)
    return series


@numba.njit(cache=True, nogil=True)
def evaluate(series, basis_y, basis_x, out):
    """Sum a series of two components on a grid.

    The order of the sums at a pixel does not depend on the grid, so any cut of the frame gives the same bits.

    Parameters
    ----------
    series
        float64 (component, degree in y, degree in x).
    basis_y, basis_x
        float64 (degree, y) and (degree, x), from :func:`basis`.
    out
        float64 (y, x, component), overwritten.
    """
    component_count, degree_y, degree_x = series.shape
    ny, nx = basis_y.shape[1], basis_x.shape[1]
    row_series = np.empty(degree_x)
    line = np.empty(nx)
    for component in range(component_count):
        for y in range(ny):
            for k in range(degree_x):
                total = 0.0
                for j in range(degree_y):
                    total += series[component, j, k] * basis_y[j, y]
                row_series[k] = total
            line[:] = 0.0
            for k in range(degree_x):
                factor = row_series[k]
                for x in range(nx):
                    line[x] += factor * basis_x[k, x]
            for x in range(nx):
                out[y, x, component] = line[x]
