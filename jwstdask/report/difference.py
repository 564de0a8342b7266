"""A picture of how two products differ: both images, the difference in units of the error, and its histogram."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from jwstdask.core.errors import InputError, ProductError
from jwstdask.io.layout import FitsLayout, open_layout
from jwstdask.io.temporary import replacing
from jwstdask.program.difference import strips
from jwstdask.report.quicklook import stretch

_SIDE = 700
"""Largest side of a panel [pixel of the picture]."""
_BINS = 81


class _Panels:
    """Images of one plane thinned to a grid of cells, and the histogram of the difference of the whole plane."""

    def __init__(self, a: FitsLayout, b: FitsLayout, name: str, plane: tuple[int, ...]) -> None:
        shape = a.hdu(name).shape
        ny, nx = shape[-2:]
        step = self.step = max(-(-max(ny, nx) // _SIDE), 1)
        cells = (-(-ny // step), -(-nx // step))
        self.a, self.b, self.apart = (np.full(cells, np.nan, np.float32) for _ in range(3))
        self.only = np.zeros(cells, bool)
        errors = [layout for layout in (a, b) if name == "SCI" and _has_error(layout, shape)]
        self.in_errors = bool(errors)
        values = []
        self.equal = self.size = 0
        # Whole rows of cells at a time.
        for _, rows in strips((-(-ny // step), step * nx)):
            y = slice(rows.start * step, min(rows.stop * step, ny))
            leading = tuple(slice(i, i + 1) for i in plane)
            one, other = (layout.read(name, y, leading=leading).reshape(-1, nx).astype(float) for layout in (a, b))
            apart = other - one
            self.size += apart.size
            self.equal += int(np.count_nonzero((one == other) | (np.isnan(one) & np.isnan(other))))
            if errors:
                apart = apart / _error(errors, y, leading, nx)
            only = np.isfinite(one) != np.isfinite(other)
            changed = apart[np.isfinite(apart) & (apart != 0)]
            values.append(changed.astype(np.float32))
            for target, image, reduce in (
                (self.a, one, _mean),
                (self.b, other, _mean),
                (self.apart, apart, _extreme),
                (self.only, only, _any),
            ):
                target[rows] = reduce(_cells(image, step))
        self.values = np.concatenate(values)


def _has_error(layout: FitsLayout, shape: tuple[int, ...]) -> bool:
    return (
        "ERR" in layout and layout.hdu("ERR").ndim >= 2 and layout.hdu("ERR").shape == shape[-layout.hdu("ERR").ndim :]
    )


def _error(layouts: list[FitsLayout], rows: slice, leading: tuple[slice, ...], nx: int) -> np.ndarray:
    """Errors of A, of B where A has none, NaN where neither has."""
    found = np.full((rows.stop - rows.start, nx), np.nan)
    for layout in reversed(layouts):
        own = layout.hdu("ERR").ndim - 2
        part = layout.read("ERR", rows, leading=leading[len(leading) - own :]).reshape(-1, nx)
        usable = np.isfinite(part) & (part > 0)
        found[usable] = part[usable]
    return found


def _cells(image: np.ndarray, step: int) -> np.ndarray:
    """Pixels of each cell along the last axis; the edges are filled up with NaN or False."""
    ny, nx = image.shape
    high, wide = -(-ny // step), -(-nx // step)
    padded = np.full((high * step, wide * step), False if image.dtype == bool else np.nan, image.dtype)
    padded[:ny, :nx] = image
    return padded.reshape(high, step, wide, step).swapaxes(1, 2).reshape(high, wide, step * step)


def _mean(cells: np.ndarray) -> np.ndarray:
    finite = np.isfinite(cells)
    count = finite.sum(axis=-1)
    total = np.where(finite, cells, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _extreme(cells: np.ndarray) -> np.ndarray:
    """The value farthest from zero, so that a single pixel that changed is seen in any mosaic."""
    place = np.where(np.isfinite(cells), np.abs(cells), -1.0).argmax(axis=-1)
    return np.take_along_axis(cells, place[..., None], axis=-1)[..., 0]


def _any(cells: np.ndarray) -> np.ndarray:
    return cells.any(axis=-1)


def scale_of(values: np.ndarray) -> float:
    """Symmetric end of a colour scale: 99.5 % of the values that differ lie within, rounded up to 1, 2 or 5."""
    if values.size == 0:
        return 1.0
    top = float(np.percentile(np.abs(values), 99.5))
    decade = 10.0 ** np.floor(np.log10(top))
    return float(next(step * decade for step in (1.0, 2.0, 5.0, 10.0) if step * decade >= top * (1 - 1e-9)))


def draw_difference(a: str, b: str, path: str, place: tuple[int, ...] | None = None, name: str = "SCI") -> str:
    """Draw two products and how they differ.

    Parameters
    ----------
    a, b
        FITS products with an image of the same shape.
    path
        The picture; its extension says the format (.png, .pdf, .svg).
    place
        Index of the pixel to mark; of a cube its plane is shown, the first one by default.
    name
        HDU to draw; the first image if there is none of this name.

    Raises
    ------
    InputError
        If there is no such image, or the shapes differ.
    ProductError
        If the picture cannot be written.
    """
    first, second = open_layout(a), open_layout(b)
    if name not in first:
        name = next((hdu.name for hdu in first if hdu.kind == "image" and hdu.ndim >= 2), name)
    shape = first.hdu(name).shape
    if first.hdu(name).kind != "image" or len(shape) < 2 or second.hdu(name).shape != shape:
        raise InputError(b, f"{name} of {a} has another shape: there is no picture of their difference", "")
    plane = tuple(place[: len(shape) - 2]) if place is not None else (0,) * (len(shape) - 2)
    figure = _figure(_Panels(first, second, name, plane), first, second, name, plane, place)
    form = os.path.splitext(path)[1][1:].lower() or "png"
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, format=form, dpi=110)
    except (OSError, ValueError) as error:
        raise ProductError(
            path, f"the picture cannot be written ({error})", "give a .png in a folder that exists"
        ) from (error)
    return path


def _figure(
    panels: _Panels,
    first: FitsLayout,
    second: FitsLayout,
    name: str,
    plane: tuple[int, ...],
    place: tuple[int, ...] | None,
) -> Any:
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ny, nx = first.hdu(name).shape[-2:]
    high = min(max(10.0 * ny / nx, 5.5), 14.0) + 1.0 if ny > nx / 6 else 7.0
    figure = Figure(figsize=(12, high), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.1)  # type: ignore[union-attr]
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    unit = str(first.header(name).get("BUNIT") or "")
    ends = tuple(end - 0.5 for size in panels.a.shape[::-1] for end in (0, size * panels.step))
    flat = {"origin": "lower", "interpolation": "nearest", "extent": ends, "aspect": "equal" if ny > nx / 6 else "auto"}
    # One stretch for both: what looks different is different.
    both = stretch(np.concatenate([panels.a, panels.b]))
    images = both[: len(panels.a)], both[len(panels.a) :]
    for axis, image, layout, letter in zip(axes[0], images, (first, second), "AB"):
        axis.imshow(image, cmap=colormaps["inferno"].with_extremes(bad="#3b4a5a"), vmin=0, vmax=1, **flat)
        axis.set_title(f"{letter}: {_short(layout.path)}", fontsize=9)
    end = scale_of(panels.values)
    label = "(B - A) / ERR" if panels.in_errors else f"B - A [{unit}]" if unit else "B - A"
    shown = axes[1][0].imshow(
        panels.apart, cmap=colormaps["RdBu_r"].with_extremes(bad="#c9c9c9"), vmin=-end, vmax=end, **flat
    )
    figure.colorbar(shown, ax=axes[1][0], label=label, extend="both", shrink=0.85)
    y, x = np.nonzero(panels.only)
    if x.size:
        axes[1][0].plot(
            (x + 0.5) * panels.step - 0.5, (y + 0.5) * panels.step - 0.5, ".", color="#2ca02c", ms=3, label="NaN in one"
        )
    if place is not None and panels.values.size:
        axes[1][0].plot(place[-1], place[-2], "o", mec="#111111", mfc="none", ms=14, mew=1.2, label="largest")
    if x.size or (place is not None and panels.values.size):
        axes[1][0].legend(loc="upper right", fontsize=8, framealpha=0.85)
    index = "".join(f"[{i}]" for i in plane)
    axes[1][0].set_title(
        f"difference of {name}{index}; of each cell of {panels.step} x {panels.step} the largest", fontsize=9
    )
    if panels.step == 1:
        axes[1][0].set_title(f"difference of {name}{index}", fontsize=9)
    for axis in (axes[0][0], axes[0][1], axes[1][0]):
        axis.set_xlim(-0.5, nx - 0.5)
        axis.set_ylim(-0.5, ny - 0.5)
        axis.tick_params(labelsize=8)
    _histogram(axes[1][1], panels, end, label)
    return figure


def _histogram(axis: Any, panels: _Panels, end: float, label: str) -> None:
    values = panels.values
    axis.set_title(f"{panels.equal} of {panels.size} pixels are identical", fontsize=9)
    if values.size == 0:
        axis.text(0.5, 0.5, "no finite value differs", ha="center", va="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    edges = np.linspace(-end, end, _BINS + 1)
    counts, _, _ = axis.hist(np.clip(values, -end, end), edges, color="#4878a8")
    axis.set_xlim(-end, end)
    if counts.max() > 30:
        axis.set_yscale("log")
        axis.set_ylim(0.7)
    axis.set_xlabel(f"{label}, where it is not 0; the outermost bins hold all beyond", fontsize=9)
    axis.set_ylabel("pixels", fontsize=9)
    middle, spread = np.median(values), 1.4826 * np.median(np.abs(values - np.median(values)))
    text = f"median {middle:.3g}\nspread (MAD) {spread:.3g}\nfrom {values.min():.3g} to {values.max():.3g}"
    axis.text(0.02, 0.98, text, ha="left", va="top", fontsize=9, family="monospace", transform=axis.transAxes)
    axis.tick_params(labelsize=8)


def _short(path: str) -> str:
    """The end of a path: folder and name."""
    return os.path.join(os.path.basename(os.path.dirname(path)), os.path.basename(path))
