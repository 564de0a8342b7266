"""Detection of stars: maps of the background from its mesh, and local maxima of a filtered image.

Both give the numbers of photutils and scipy.ndimage, at a cost that does not depend on the noise.
"""

from __future__ import annotations

import numba
import numpy as np
from scipy import ndimage


def _spline_positions(cells: int, step: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the cubic B-splines that make up each sample lie, and their values.

    Returns
    -------
    nodes, values
        int64 and float64 (count, 4). Nodes beyond the ends are reflected at the outer edges of the cells.
    """
    # Samples and cells cover the same range, so that cell k is centred on sample (k + 1/2) step - 1/2.
    position = (np.arange(count, dtype=np.float64) + 0.5) * (cells / (cells * step)) - 0.5
    # Reflection at the outer edge; the least distance keeps rounding from choosing another cell.
    position = np.where(position < 0, np.maximum(-position, 1e-15) - 1, position)
    if cells == 1:
        position[:] = 0
    first = np.floor(position).astype(np.int64) - 1
    near = position - np.floor(position)
    far = 1.0 - near
    values = np.empty((count, 4))
    values[:, 0] = far * far * far / 6.0
    values[:, 1] = (near * near * (near - 2.0) * 3.0 + 4.0) / 6.0
    values[:, 2] = (far * far * (far - 2.0) * 3.0 + 4.0) / 6.0
    values[:, 3] = 1.0 - values[:, 0] - values[:, 1] - values[:, 2]
    nodes = np.mod(first[:, None] + np.arange(4), 2 * cells)
    return np.where(nodes < cells, nodes, 2 * cells - 1 - nodes), values


@numba.njit(cache=True, nogil=True)
def _evaluate(coefficients, rows, row_values, columns, column_values, low, high, mask, out):
    cells = coefficients.shape[1]
    line = np.empty((4, cells))
    for y in range(out.shape[0]):
        for i in range(4):
            for k in range(cells):
                line[i, k] = coefficients[rows[y, i], k] * row_values[y, i]
        for x in range(out.shape[1]):
            if mask[y, x]:
                out[y, x] = 0
                continue
            total = 0.0
            for i in range(4):
                for j in range(4):
                    total += line[i, columns[x, j]] * column_values[x, j]
            value = out.dtype.type(total)
            out[y, x] = low if value < low else high if value > high else value


def mesh_to_image(
    mesh: np.ndarray, box: tuple[int, int], mask: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """A smooth image through the values of a coarse mesh: bicubic spline, clipped to the range of the mesh.

    Parameters
    ----------
    mesh
        Float (row, column): value of each box; the boxes cover at least the image.
    box
        Height and width of a box [pixel].
    mask
        bool (y, x): pixels set to 0.
    out
        Result, (y, x), of the type of ``mesh``; allocated if None.

    Returns
    -------
    numpy.ndarray
        Bit for bit what ``scipy.ndimage.zoom(mesh, box, order=3, mode="reflect", grid_mode=True)`` gives inside the
        image, clipped.

    Notes
    -----
    Source: Unser 1999, IEEE Signal Processing Magazine 16, 22 (interpolation by B-splines).
    """
    out = np.empty(mask.shape, mesh.dtype) if out is None else out
    low, high = mesh.min(), mesh.max()
    if low == high:
        out[...] = np.where(mask, mesh.dtype.type(0), low)
        return out
    coefficients = ndimage.spline_filter(mesh, 3, output=np.float64, mode="reflect")
    rows = _spline_positions(mesh.shape[0], box[0], mask.shape[0])
    columns = _spline_positions(mesh.shape[1], box[1], mask.shape[1])
    _evaluate(coefficients, *rows, *columns, low, high, mask, out)
    return out


@numba.njit(cache=True, nogil=True)
def _is_peak(image, y, x, offsets):
    ny, nx = image.shape
    value = image[y, x]
    for k in range(offsets.shape[0]):
        v, u = y + offsets[k, 0], x + offsets[k, 1]
        if v < 0 or v >= ny or u < 0 or u >= nx:
            if value < 0:  # beyond the border there is sky
                return False
        elif image[v, u] > value:  # False for NaN
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _find(image, threshold, mask, offsets):
    found = [
        (x, y)
        for y in range(image.shape[0])
        for x in range(image.shape[1])
        if image[y, x] > threshold and not mask[y, x] and _is_peak(image, y, x, offsets)
    ]
    result = np.empty((len(found), 2), np.int64)
    for k in range(len(found)):
        result[k, 0], result[k, 1] = found[k]
    return result


def local_maxima(image: np.ndarray, threshold: float, radius: int, mask: np.ndarray) -> np.ndarray:
    """Pixels above a threshold that no pixel within a radius exceeds.

    Only pixels above the threshold are compared with their neighbours, so that the noise costs nothing.

    Parameters
    ----------
    image
        Float (y, x); NaN is no peak and does not hide one. Beyond the border there is 0.
    threshold
        Peaks exceed it.
    radius
        Pixels up to this distance, inclusive, are compared; ties are all peaks.
    mask
        bool (y, x): pixels that are no peaks (but hide others).

    Returns
    -------
    numpy.ndarray
        int64 (peak, 2): x and y, in the order of rows, then columns. Empty if the image is constant.
    """
    steps = np.arange(-radius, radius + 1)
    dy, dx = np.meshgrid(steps, steps, indexing="ij")
    inside = dy**2 + dx**2 <= radius**2
    offsets = np.stack([dy[inside], dx[inside]], axis=1)
    if image.size == 0 or (image[0, 0] == image[-1, -1] and np.all(image == image[0, 0])):
        return np.empty((0, 2), np.int64)
    return _find(image, float(threshold), mask, offsets)
