"""Small pictures of products for the report."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from jwstdask.io.layout import FitsLayout, open_layout

_SIDE = 300
"""Largest side of a thumbnail [pixel]."""


def thumbnail_data(layout: FitsLayout, side: int = _SIDE) -> np.ndarray:
    """The science image of a product, thinned out to at most ``side`` pixels; of a cube the first plane.

    Every n-th row is read, so that a thumbnail of a large mosaic costs little.
    """
    hdu = layout.hdu("SCI")
    ny, nx = hdu.shape[-2:]
    stride = max(-(-max(ny, nx) // side), 1)
    leading = tuple(slice(0, 1) for _ in hdu.shape[:-2])
    rows = [
        layout.read("SCI", rows=slice(y, y + 1), leading=leading).reshape(nx)[::stride] for y in range(0, ny, stride)
    ]
    return np.array(rows, np.float32)


def stretch(image: np.ndarray) -> np.ndarray:
    """Brightness 0 to 1: asinh between the background and the 99.5th percentile; NaN stays NaN."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return np.full(image.shape, np.nan, np.float32)
    low, middle, high = np.percentile(finite, (1.0, 50.0, 99.5))
    scale = max(middle - low, (high - low) / 50.0, 1e-30)
    top = np.arcsinh((high - low) / scale)
    return np.clip(np.arcsinh((image - low) / scale) / max(top, 1e-30), 0.0, 1.0).astype(np.float32)


def thumbnail(path: str, catalog: str | None = None, side: int = _SIDE) -> str:
    """A product as a PNG data URI, sources of its catalogue marked if one is given.

    Parameters
    ----------
    path
        Product with SCI ([..., ]y, x).
    catalog
        ECSV catalogue with ``xcentroid`` and ``ycentroid``.
    side
        Largest side [pixel].
    """
    layout = open_layout(path)
    data = stretch(thumbnail_data(layout, side))
    ny, nx = layout.hdu("SCI").shape[-2:]
    return encode(data, _sources(catalog), max(-(-max(ny, nx) // side), 1), side)


def _sources(catalog: str | None) -> Any:
    if catalog is None:
        return None
    from astropy.table import Table

    table = Table.read(catalog, format="ascii.ecsv")
    names = [("xcentroid", "ycentroid"), ("x_centroid", "y_centroid")]
    for x, y in names:
        if x in table.colnames:
            return np.asarray(table[x], float), np.asarray(table[y], float)
    return None


def encode(data: np.ndarray, sources: Any, stride: int, side: int = _SIDE) -> str:
    """An image with values 0 to 1 as a PNG data URI; NaN is drawn in red-brown."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    zoom = max(side // max(data.shape), 1)
    height, width = data.shape[0] * zoom / 100, data.shape[1] * zoom / 100
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    colors = colormaps["inferno"].with_extremes(bad="#3b4a5a")
    axes.imshow(data, origin="lower", cmap=colors, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    if sources is not None:
        axes.scatter(
            sources[0] / stride, sources[1] / stride, s=26, facecolors="none", edgecolors="#5ce1e6", linewidths=0.6
        )
        axes.set_xlim(-0.5, data.shape[1] - 0.5)
        axes.set_ylim(-0.5, data.shape[0] - 0.5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
