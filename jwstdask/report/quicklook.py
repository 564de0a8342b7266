"""Small pictures of products for the report."""

from __future__ import annotations

import base64
import functools
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
    """A product as a JPEG data URI, sources of its catalogue marked if one is given.

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
    """An image with values 0 to 1 as a data URI, first row below; NaN is drawn in blue-grey, sources as rings."""
    from PIL import Image, ImageDraw

    zoom = max(side // max(data.shape), 1)
    levels = np.where(np.isfinite(data), np.nan_to_num(data) * 254.0, 255.0).astype(np.uint8)
    levels = np.repeat(np.repeat(levels[::-1], zoom, axis=0), zoom, axis=1)
    image = Image.fromarray(_colors()[levels], "RGB")
    if sources is not None:
        draw, radius = ImageDraw.Draw(image), max(5, 4 * zoom)
        for x, y in zip(*sources, strict=True):
            column, row = (x / stride + 0.5) * zoom, image.height - (y / stride + 0.5) * zoom
            draw.ellipse((column - radius, row - radius, column + radius, row + radius), outline="#5ce1e6")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@functools.cache
def _colors() -> np.ndarray:
    """Colours of levels 0 to 254, and of no value: uint8 (256, 3)."""
    from matplotlib import colormaps

    colors = (np.asarray(colormaps["inferno"](np.linspace(0, 1, 256)))[:, :3] * 255).astype(np.uint8)
    colors[255] = (0x3B, 0x4A, 0x5A)
    return colors
