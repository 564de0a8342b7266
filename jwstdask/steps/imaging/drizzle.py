"""Tiles of a combined image from the exposures that touch them, for the steps that drizzle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jwstdask.core import dq as flags
from jwstdask.core.block import Window
from jwstdask.core.errors import ParameterError, StepError
from jwstdask.kernels import chebyshev, overlap
from jwstdask.kernels import resample as kernel
from jwstdask.wcs.mosaic import OutputGrid
from jwstdask.wcs.pixelmap import PixelMap, exact

MAX_MAP_ERROR = 2e-7
"""Largest error of a pixel position [output pixel]."""
MAX_OUTPUT_PIXELS = 4_000_000_000
"""Largest image that is made unless the caller allows more: 16 GB an array."""
VARIANCES = ("var_rnoise", "var_flat", "var_poisson")

_TILE_PIXELS = 1 << 20
_BAND = 32  # input rows and columns of the cells whose place in the output is bounded together
_FAR = 1e9  # a position beyond any image
OTHER_REACH = 512
"""Output rows around a tile from which kernels of the drizzle package may take pixels."""
_ALIGNED_ROWS = 128  # kernels of the drizzle package work on output rows from fixed multiples of this


def bad_bits(good_bits: int | str | None) -> int:
    """Data-quality bits that exclude a pixel.

    Parameters
    ----------
    good_bits
        Bits to ignore: a number, names or numbers separated by ``+``, ``,`` or ``|``; with a leading ``~`` all others.
        None ignores all.

    Raises
    ------
    ParameterError
        If a name is unknown.
    """
    everything = (1 << 32) - 1
    if good_bits is None or (isinstance(good_bits, str) and good_bits.strip().upper() in ("", "NONE", "~0")):
        return 0
    if isinstance(good_bits, int):
        return everything & ~good_bits
    text = good_bits.strip()
    inverted = text.startswith("~")
    total = 0
    for word in text.lstrip("~").strip("() ").replace("|", ",").replace("+", ",").split(","):
        word = word.strip()
        value = int(word) if word.isdigit() else getattr(flags, word.upper(), None)
        if not isinstance(value, int):
            raise ParameterError(f"{word!r} is not a data-quality flag", f"in good_bits={good_bits!r}")
        total |= value
    return total if inverted else everything & ~total


def fill_value(fillval: str | float | None) -> float:
    """Value of pixels without data: NaN for ``NAN`` and ``INDEF``."""
    if fillval is None or (isinstance(fillval, str) and fillval.strip().upper() in ("", "INDEF", "NAN", "NONE")):
        return math.nan
    try:
        return float(fillval)
    except ValueError:
        raise ParameterError(f"fillval must be a number, NAN or INDEF, not {fillval!r}") from None


def group_id(meta: Mapping[str, Any], index: int) -> str:
    """Name shared by the images of one exposure on several detectors; a name of its own if keywords are missing."""
    given = meta.get("meta.group_id")
    if given:
        return str(given)
    names = ("program_number", "observation_number", "visit_number", "visit_group", "sequence_id", "activity_id")
    parts = [meta.get(f"meta.observation.{name}") for name in (*names, "exposure_number")]
    if any(part is None for part in parts):
        return f"exposure_{index + 1:04d}"
    return f"jw{parts[0]}{parts[1]}{parts[2]}_{parts[3]}{parts[4]}{parts[5]}_{parts[6]}"


def measured_time(meta: Mapping[str, Any]) -> float | None:
    """Measurement time [s], else exposure time."""
    time = meta.get("meta.exposure.measurement_time")
    return time if time is not None else meta.get("meta.exposure.exposure_time")


class SteppedMap:
    """Pixel map interpolated between every ``stepsize``-th pixel, as the parameters ``pixmap_*`` ask.

    ``PixelMap`` is faster and has a bounded error; this one is for those who want the coarse map of jwst.
    """

    def __init__(self, whole: PixelMap, shape: tuple[int, int], stepsize: float, order: int, wcs_in: Any, wcs_out: Any):
        from scipy.interpolate import RectBivariateSpline

        (x_low, x_high), (y_low, y_high) = whole.x_limits, whole.y_limits
        self.x = max(0, math.ceil(x_low)), min(shape[1] - 1, math.floor(x_high))
        self.y = max(0, math.ceil(y_low)), min(shape[0] - 1, math.floor(y_high))
        nodes = []
        for first, last in (self.x, self.y):
            n = last - first + 1
            nodes.append(np.linspace(first, last, max(math.ceil(n / stepsize), min(10, n))))
        places = exact(wcs_in, wcs_out, *np.meshgrid(*nodes))
        self.whole = whole
        self.finite = bool(np.isfinite(places).all())
        if self.finite:
            self.splines = [RectBivariateSpline(nodes[1], nodes[0], place, kx=order, ky=order) for place in places]

    def __call__(self, window: Window) -> NDArray[np.float64]:
        out = self.whole(window)
        if self.finite:
            y = np.arange(max(window.y0, self.y[0]), min(window.y1, self.y[1] + 1))
            x = np.arange(max(window.x0, self.x[0]), min(window.x1, self.x[1] + 1))
            if y.size and x.size:
                part = out[y[0] - window.y0 : y[-1] + 1 - window.y0, x[0] - window.x0 : x[-1] + 1 - window.x0]
                for k, spline in enumerate(self.splines):
                    part[..., k] = spline(y, x)
        return out


@dataclass(frozen=True)
class Source:
    """One exposure and its place on the output grid.

    Attributes
    ----------
    exposure
        Handle with ``read(name, rows, columns)``.
    shape
        (y, x) of its frame.
    pixel_map
        Called with a window, gives float64 (y, x, 2) positions on the output grid.
    low, high
        float32 (cell row, cell column, 2): bounds of the positions of the pixels of each 32 x 32 cell, with their
        extent.
    spans
        int64 (y, 2), columns of each row that the output image takes.
    background
        Level to subtract from ``sci``, or None.
    time
        Measurement time [s].
    arrays
        Names that the exposure has.
    """

    exposure: Any
    shape: tuple[int, int]
    pixel_map: Any
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    spans: NDArray[np.int64]
    background: float | None
    time: float | None
    arrays: frozenset[str]

    @classmethod
    def of(cls, exposure: Any, grid: OutputGrid, *, stepsize: float = 1.0, order: int = 1) -> Source:
        """The exposure on a grid.

        Raises
        ------
        StepError
            If the exposure is not a two-dimensional image.
        """
        if len(exposure.shape) != 2:
            raise StepError(
                str(exposure.path),
                "resample",
                f"not a 2-D image but {len(exposure.shape)}-D",
                "use the rate or cal product, not rateints or calints",
            )
        shape = tuple(exposure.shape)
        wcs = exposure.wcs
        if wcs is None:
            raise StepError(str(exposure.path), "resample", "the exposure has no WCS", "run assign_wcs first")
        fitted = PixelMap.fit(wcs, grid.wcs, MAX_MAP_ERROR, shape=shape)
        low, high = _cell_bounds(fitted, shape)
        pixel_map: Any = fitted
        if stepsize > 1 and max(shape) > 10:
            pixel_map = SteppedMap(fitted, shape, stepsize, order, wcs, grid.wcs)
        taken = overlap.spans(lambda x, y: pixel_map(Window.plain(y, y + 2, x, x + 2)), shape, grid.shape)
        meta = exposure.meta
        level = meta.get("meta.background.level")
        background = level if level is not None and not meta.get("meta.background.subtracted") else None
        present = frozenset(name for name in ("sci", "err", "dq", *VARIANCES) if name in exposure)
        return cls(exposure, shape, pixel_map, low, high, taken, background, measured_time(meta), present)

    def touches(self, rows: slice) -> bool:
        """Whether the exposure may touch rows of the output grid."""
        return bool(self.high[..., 1].max() > rows.start - 0.5 and self.low[..., 1].min() < rows.stop - 0.5)

    def extent(self, grid: OutputGrid) -> tuple[slice, slice] | None:
        """Rows and columns of the output grid that the exposure may touch; None if it misses it."""
        low = np.floor(self.low.min(axis=(0, 1)))
        high = np.ceil(self.high.max(axis=(0, 1))) + 1
        x0, y0 = (max(0, int(value)) for value in low)
        x1, y1 = min(grid.shape[1], int(high[0])), min(grid.shape[0], int(high[1]))
        return (slice(y0, y1), slice(x0, x1)) if y0 < y1 and x0 < x1 else None

    def _touching(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Cells that may touch a part of the output grid, bool (cell row, cell column)."""
        return (
            (self.high[..., 0] > columns.start - 0.5)
            & (self.low[..., 0] < columns.stop - 0.5)
            & (self.high[..., 1] > rows.start - 0.5)
            & (self.low[..., 1] < rows.stop - 0.5)
        )

    def touched(self, rows: slice, columns: slice) -> tuple[slice, slice] | None:
        """The part of a tile that the exposure may touch, relative to the tile; None if it misses it."""
        touching = self._touching(rows, columns)
        if not touching.any():
            return None
        x0, y0 = np.floor(self.low[touching].min(axis=0))
        x1, y1 = np.ceil(self.high[touching].max(axis=0)) + 1
        return (
            slice(max(0, int(y0) - rows.start), min(rows.stop, int(y1)) - rows.start),
            slice(max(0, int(x0) - columns.start), min(columns.stop, int(x1)) - columns.start),
        )

    def bands(self, rows: slice, columns: slice, height: int = 2) -> Iterator[Window]:
        """Windows of the frame, in the order of rows, that hold all pixels touching a part of the output grid."""
        touching = self._touching(rows, columns)
        for first in range(0, len(touching), height):
            part = touching[first : first + height]
            cell_rows, cell_columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
            if cell_rows.size:
                yield Window.around(
                    (first + cell_rows[0]) * _BAND,
                    min((first + cell_rows[-1] + 1) * _BAND, self.shape[0]),
                    cell_columns[0] * _BAND,
                    min((cell_columns[-1] + 1) * _BAND, self.shape[1]),
                    halo=1,
                    shape=self.shape,
                )


def _cell_bounds(pixel_map: PixelMap, shape: tuple[int, int]) -> tuple[NDArray, NDArray]:
    """Bounds of the positions of each cell of pixels, from those of its corners.

    Between the corners a position departs from linear by the curvature of the distortion, below 0.01 pixel over 32
    pixels; half a cell's slope is added for the extent of pixels, and a pixel for safety.
    """
    ends = [np.append(np.arange(0, n, _BAND, dtype=float), n) - 0.5 for n in shape]
    if pixel_map.series is None:
        x, y = np.meshgrid(ends[1], ends[0])
        place = np.stack(exact(pixel_map.wcs_in, pixel_map.wcs_out, x, y), axis=-1)
    else:
        unit = [
            (end - 0.5 * sum(limit)) / (0.5 * (limit[1] - limit[0]))
            for end, limit in zip(ends, (pixel_map.y_limits, pixel_map.x_limits))
        ]
        count = pixel_map.series.shape[-1]
        basis = [chebyshev.basis(value, count) for value in unit]
        place = np.einsum("cjk,jy,kx->yxc", pixel_map.series, *basis)
    corners = np.stack((place[:-1, :-1], place[:-1, 1:], place[1:, :-1], place[1:, 1:]))
    low, high = corners.min(axis=0), corners.max(axis=0)
    margin = 1.0 + (high - low) / _BAND
    # A cell with a corner that has no position may touch anything.
    return (
        np.nan_to_num(low - margin, nan=-_FAR).astype(np.float32),
        np.nan_to_num(high + margin, nan=_FAR).astype(np.float32),
    )


def output_limit(grid: OutputGrid, members: Sequence[Any], footprints: Sequence[np.ndarray], largest: int) -> None:
    """Refuse a grid of more than ``largest`` pixels, naming the exposure that is farthest from the others.

    Raises
    ------
    StepError
        If the grid is too large.
    """
    ny, nx = grid.shape
    if ny * nx <= largest:
        return
    ra, dec = np.deg2rad(np.array([corners.mean(axis=0) for corners in footprints])).T
    unit = np.stack((np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)), axis=1)
    distance = np.linalg.norm(unit - np.median(unit, axis=0), axis=1)
    farthest = int(distance.argmax())
    raise StepError(
        str(members[farthest].path),
        "resample",
        f"the combined image would have {nx} x {ny} pixels, more than {largest}; "
        f"this exposure lies {math.degrees(distance[farthest]):.3g} degrees from the middle of the others",
        "check its pointing or remove it from the association, set output_shape, or allow more pixels",
    )


@dataclass(frozen=True)
class Recipe:
    """How exposures are drizzled.

    Attributes
    ----------
    images
        Names combined over exposures: ``sci`` and, if wanted, ``err``.
    variances
        Names of variances to propagate.
    planes
        Planes of the context image, one for each 32 exposures; 0 for none.
    dq
        Make a data-quality image.
    match
        Leave out pixels that are NaN in any array.
    """

    kernel: str
    pixfrac: float
    fill: float
    weight_type: str | None
    bad_bits: int
    pixel_scale_ratio: float | None
    images: tuple[str, ...] = ("sci",)
    variances: tuple[str, ...] = ()
    planes: int = 0
    dq: bool = False
    match: bool = False

    @property
    def is_square(self) -> bool:
        """Whether this package's own kernel does it."""
        return self.kernel == "square" and self.pixfrac > kernel.POINT_PIXFRAC


def tiles(shape: tuple[int, int], planes: int = 1) -> list[slice]:
    """Rows of the tiles of an image (y, x): all columns, about a million values a tile."""
    rows = max(1, _TILE_PIXELS // (shape[1] * planes))
    rows = max(1, rows // _ALIGNED_ROWS) * _ALIGNED_ROWS if rows >= _ALIGNED_ROWS // 2 else rows
    return [slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


def drizzle_tile(
    sources: Sequence[tuple[int, Source]], recipe: Recipe, grid: OutputGrid, rows: slice, columns: slice
) -> dict[str, NDArray]:
    """One tile of the combined image; the same bits for any tiling.

    Memory depends on the tile, not on the number of exposures: of each exposure the rows that touch the tile are read,
    64 at a time.

    Parameters
    ----------
    sources
        Exposures that may touch the tile, each with its number in the association: its bit in the context.
    rows, columns
        The tile on the output grid.

    Returns
    -------
    arrays
        float32 (y, x) under the names of ``recipe.images`` and ``recipe.variances``, ``wht``; int32 (plane, y, x)
        ``con`` and uint32 (y, x) ``dq`` if asked for.
    """
    if recipe.is_square:
        return _drizzle(sources, recipe, grid, rows, columns)
    # The drizzle package rounds in the coordinates of the array it is given: fixed rows, whole width.
    halo = 4 + math.ceil(4 / (recipe.pixel_scale_ratio or 1.0))
    parts = []
    for start in range(rows.start - rows.start % _ALIGNED_ROWS, rows.stop, _ALIGNED_ROWS):
        around = slice(max(0, start - halo), min(grid.shape[0], start + _ALIGNED_ROWS + halo))
        part = _drizzle(sources, recipe, grid, around, slice(0, grid.shape[1]))
        wanted = slice(max(start, rows.start) - around.start, min(start + _ALIGNED_ROWS, rows.stop) - around.start)
        parts.append({name: array[..., wanted, columns] for name, array in part.items()})
    return {name: np.concatenate([part[name] for part in parts], axis=-2) for name in parts[0]}


def _drizzle(
    sources: Sequence[tuple[int, Source]], recipe: Recipe, grid: OutputGrid, rows: slice, columns: slice
) -> dict[str, NDArray]:
    """Drizzle onto ``rows`` and ``columns``."""
    shape = rows.stop - rows.start, columns.stop - columns.start
    n_images, n_variances = len(recipe.images), len(recipe.variances)
    out = np.full((n_images + n_variances, *shape), recipe.fill, np.float32)
    weight = np.zeros((2, *shape), np.float32)
    context = np.zeros((recipe.planes, *shape), np.int32)
    no_context = np.zeros((0, 0), np.int32)
    dq = np.zeros(shape if recipe.dq else (0, 0), np.uint32)
    total = np.full((n_variances, *shape), np.nan, np.float32)
    total_weight = np.zeros((n_variances, *shape), np.float32)

    for index, source in sources:
        part = source.touched(rows, columns)
        if part is None:
            continue
        if not recipe.is_square:  # other kernels reach beyond the pixel
            part = slice(0, shape[0]), slice(0, shape[1])
        variances = [name for name in recipe.variances if name in source.arrays]
        layers = out[: n_images + len(variances)]
        plane = context[index // 32] if recipe.planes else no_context
        bit = np.uint32(1 << (index % 32)).astype(np.int32)
        if variances:
            weight[1][part] = 0.0
            layers[(slice(n_images, None), *part)] = np.nan
        for window in source.bands(rows, columns):
            positions = source.pixel_map(window)
            images, good, pixel_dq = _images(source, recipe, variances, window)
            if recipe.is_square:
                kernel.drizzle_square(
                    positions, (window.y0, window.x0), source.shape,
                    (window.inner_y0, window.inner_y1), (window.inner_x0, window.inner_x1),
                    images, good, recipe.pixfrac, layers, weight, n_images, plane, bit, pixel_dq, dq,
                    (rows.start, columns.start), source.spans,
                )  # fmt: skip
            else:
                inner = (*window.inner, slice(None))
                kernel.drizzle_other(
                    "point" if recipe.kernel == "square" else recipe.kernel,
                    positions[inner] - np.array((columns.start, rows.start), float), images, good, recipe.pixfrac,
                    recipe.pixel_scale_ratio or 1.0, layers, weight, n_images, plane, bit, pixel_dq, dq,
                )  # fmt: skip
        if variances:
            rnoise = variances.index("var_rnoise") if recipe.weight_type == "ivm" and "var_rnoise" in variances else -1
            exposure_weight = float(source.time or 0.0) if recipe.weight_type == "exptime" else 1.0
            present = [recipe.variances.index(name) for name in variances]
            # A copy only if an exposure lacks a variance.
            whole = len(present) == n_variances
            sums, weights = (total, total_weight) if whole else (total[present], total_weight[present])
            reach = [(axis.start, axis.stop) for axis in part]
            kernel.add_variances(layers[n_images:], weight[1], rnoise, exposure_weight, *reach, sums, weights)
            if not whole:
                total[present], total_weight[present] = sums, weights

    result: dict[str, NDArray] = dict(zip(recipe.images, out))
    result["wht"] = weight[0]
    if n_variances:
        result.update(zip(recipe.variances, kernel.finish_variances(total, total_weight, recipe.pixel_scale_ratio)))
    if recipe.planes:
        result["con"] = context
    if recipe.dq:
        result["dq"] = dq
    return result


def _images(
    source: Source, recipe: Recipe, variances: Sequence[str], window: Window
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint32]]:
    """Images to drizzle (image, y, x), their weight and their data quality, of the inner part of a window."""
    rows, columns = slice(window.inner_y0, window.inner_y1), slice(window.inner_x0, window.inner_x1)
    shape = rows.stop - rows.start, columns.stop - columns.start

    def read(name: str) -> NDArray:
        return np.asarray(source.exposure.read(name, rows, columns), np.float32)

    if "dq" in source.arrays:
        dq = np.asarray(source.exposure.read("dq", rows, columns), np.uint32)
    else:
        dq = np.zeros(shape, np.uint32)
    cache = {name: read(name) for name in {*recipe.images, *variances}}
    if recipe.weight_type == "ivm" and "var_rnoise" in source.arrays:
        cache.setdefault("var_rnoise", read("var_rnoise") if "var_rnoise" not in cache else None)
    if recipe.match:
        missing = np.zeros(shape, bool)
        for name in ("sci", "err", *VARIANCES):
            if name in source.arrays:
                missing |= np.isnan(cache[name] if name in cache else read(name))
        dq = np.where(missing, dq | np.uint32(flags.DO_NOT_USE), dq)
    time = source.time if recipe.weight_type == "exptime" else None
    if recipe.weight_type == "exptime" and time is None:
        raise StepError(str(source.exposure.path), "resample", "no exposure time to weight with", "use weight_type=ivm")
    weight = kernel.driz_weight(
        dq, recipe.bad_bits, cache.get("var_rnoise") if recipe.weight_type == "ivm" else None, time
    )
    images = np.empty((len(recipe.images) + len(variances), *shape), np.float32)
    for k, name in enumerate(recipe.images):
        images[k] = cache[name]
        if name == "sci" and source.background is not None:
            images[k] -= np.float32(source.background)
    with np.errstate(invalid="ignore"):
        for k, name in enumerate(variances):
            np.sqrt(cache[name], out=images[len(recipe.images) + k])
    return images, weight, dq
