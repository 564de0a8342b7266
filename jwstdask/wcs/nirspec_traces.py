"""Where slits and slices of NIRSpec fall on a detector: bounding boxes, masks, and what is cut out around a spectrum.

The edges of a slit are followed through the optics over all wavelengths; pixels between them are in the slit if the way
back ends there. A cut-out of a slit knows besides where the light of a source in it falls.

Sources: the optics are those of :mod:`jwstdask.wcs.nirspec`; JWST pipeline documentation, "assign_wcs", "extract_2d"
and "msaflagopen".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import gwcs
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.modeling.core import Model
from astropy.modeling.models import Identity
from astropy.modeling.models import Mapping as Select
from gwcs.utils import to_index
from gwcs.wcstools import grid_from_bounding_box
from scipy.interpolate import interp1d
from stdatamodels.jwst.transforms.models import IdealToV2V3, Slit

from jwstdask.wcs.errors import NoSlitError
from jwstdask.wcs.imaging import Box
from jwstdask.wcs.nirspec import SIDE, SLICES, Y_RANGE, Optics, slits_wcs

_WAVELENGTH_STEP = 1e-10  # m, at which edges of slits are followed


class Trace:
    """Where one slit or slice falls on the detector.

    Parameters
    ----------
    optics
        Of the exposure.
    model
        Direction at the wheel to place and wavelength.
    y_range
        Edges of the slit.
    """

    def __init__(self, optics: Optics, model: Model, y_range: tuple[float, float]) -> None:
        self.optics = optics
        self.forward = optics.array_to_sensor() | optics.sensor_to_grating() | model
        self.y_range = y_range

    @cached_property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y [pixel] of the lower and then of the upper edge, from the shortest wavelength to the longest."""
        return _edges(self.forward.inverse, self.y_range, self.optics.wavelengths)

    @cached_property
    def _inside(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the pixels around the edges whose middle is in the slit."""
        box = _box(*self.edges)
        if any(low > high for low, high in box):
            return np.empty(0), np.empty(0)
        x, y = grid_from_bounding_box(box)
        inside = np.isfinite(self.forward(x, y)[2])
        return x[inside], y[inside]

    @property
    def box(self) -> Box:
        """Bounding box: around the edges in x, around the pixels in the slit in y."""
        x, y = self.edges
        rows = self._inside[1]
        return _box(x, rows if rows.size else y)

    def mark(self, mask: np.ndarray) -> None:
        """Set the pixels in the slit, of an array bool (y, x)."""
        x, y = self._inside
        (left, right), (low, high) = self.box
        inside = (left <= x) & (x <= right) & (low <= y) & (y <= high) & (y < mask.shape[0]) & (x < mask.shape[1])
        mask[y[inside].astype(int), x[inside].astype(int)] = True


def _edges(
    to_detector: Model, y_range: tuple[float, float], wavelengths: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    low, high = wavelengths
    grid = np.linspace(low, high, int((high - low) / _WAVELENGTH_STEP))
    found = [to_detector(np.zeros(grid.shape), np.full(grid.shape, float(y)), grid) for y in y_range]
    return np.hstack([x for x, _ in found]), np.hstack([y for _, y in found])


def _box(x: np.ndarray, y: np.ndarray) -> Box:
    """Ten columns and two rows more on each side, cut at the detector. Positions count from 1 here, as in jwst."""

    def span(values: np.ndarray, margin: int) -> tuple[float, float]:
        return max(0, values.min() - 1 - margin) - 0.5, min(SIDE - 1, values.max() - 1 + margin) + 0.5

    return span(x, 10), span(y, 2)


def on_detector(optics: Optics, slits: Sequence[Slit]) -> list[Slit]:
    """The slits that fall on the detector.

    Raises
    ------
    NoSlitError
        If none does.
    """
    back = (optics.array_to_sensor() | optics.sensor_to_grating()).inverse
    entrance, grating = optics.entrance_to_grating(), optics.angles_out(velocity=False)

    def falls(slit: Slit) -> bool:
        to_grating = optics.slit_to_entrance(slit) | entrance
        model = to_grating & Identity(1) | Select((3, 0, 1, 2)) | grating | back
        (left, right), (low, high) = _box(*_edges(model, (slit.ymin, slit.ymax), optics.wavelengths))
        outside = left >= SIDE or low >= SIDE or right <= 0 or high <= 0
        return not (outside or right - left < 2 or high - low < 1)

    found = [slit for slit in slits if falls(slit)]
    if not found:
        raise NoSlitError(f"no open slit falls on detector {optics.meta['meta.instrument.detector']}")
    return found


def slit_boxes(optics: Optics, slits: Sequence[Slit]) -> dict[int, Box]:
    """Bounding box of each slit."""
    return {slit.slit_id: _slit_trace(optics, slit).box for slit in slits}


def _slit_trace(optics: Optics, slit: Slit) -> Trace:
    return Trace(optics, optics.grating_to_slit(slit), (slit.ymin, slit.ymax))


class Cutout:
    """The part of an exposure that the spectrum of one slit falls on, and where its source is.

    Parameters
    ----------
    optics
        Of the exposure; its wavelengths are those of the sky.
    slit
        Which.
    shape
        Of the science array (y, x).

    Raises
    ------
    NoSlitError
        If it falls beside the science array.
    """

    def __init__(self, optics: Optics, slit: Slit, shape: tuple[int, int]) -> None:
        self.optics, self.slit = optics, slit
        trace = _slit_trace(optics, slit)
        self._forward = trace.forward
        (left, right), (low, high) = trace.box
        self.columns = slice(to_index(left), min(to_index(right), shape[1]))
        self.rows = slice(to_index(low), min(to_index(high), shape[0]))
        ny, nx = (part.stop - part.start for part in (self.rows, self.columns))
        if ny <= 0 or nx <= 0:
            raise NoSlitError(f"slit {slit.name} falls beside the subarray")
        self.shape = ny, nx

    def _to_slit(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._forward(np.asarray(x, float) + self.columns.start, np.asarray(y, float) + self.rows.start)

    def _to_pixel(self, x: Any, y: Any, wavelength: Any) -> tuple[np.ndarray, np.ndarray]:
        column, row = self._forward.inverse(x, y, wavelength)
        return column - self.columns.start, row - self.rows.start

    @cached_property
    def _grid(self) -> np.ndarray:
        y, x = np.indices(self.shape, float)
        return self._to_slit(x, y)[2]

    @property
    def wavelengths(self) -> np.ndarray:
        """Of each pixel [um], float32 (y, x); NaN outside of the slit."""
        return (self._grid * 1e6).astype(np.float32)

    @cached_property
    def _wcs(self) -> gwcs.WCS:
        return slits_wcs(self.optics, [self.slit])

    def source(self) -> tuple[float, float]:
        """Where the target is in the slit [its size], by the offsets of the dither; its middle without these."""
        meta = self.optics.meta
        offsets = [meta.get(f"meta.dither.{axis}_offset") for axis in "xy"]
        if None in offsets:
            return 0.0, 0.0
        frame = IdealToV2V3(*(meta[f"meta.wcsinfo.{name}"] for name in ("v3yangle", "v2_ref", "v3_ref", "vparity")))
        # Any wavelength serves.
        place = self._wcs.get_transform("v2v3", "slit_frame")(*frame(*offsets), 2.0, self.slit.slit_id)
        return float(place[1]), float(place[2])

    def trace(self, source: tuple[float, float]) -> tuple[int, float, np.ndarray] | None:
        """Where the light of a source falls.

        Parameters
        ----------
        source
            x and y in the slit [its size].

        Returns
        -------
        column, row
            The column in the middle of the cutout, and the row of the source there.
        rows
            Row of the source in each column, float (x,).
            None instead of all three for a source beside the slit.
        """
        ny, nx = self.shape
        middle = (nx - 1) / 2.0
        _, wavelengths = self._middle_column()
        if not np.isfinite(wavelengths).any():
            return None
        row = float(self._to_pixel(*source, np.nanmean(wavelengths) * 1e-6)[1])
        if not -0.5 <= row <= ny - 0.5:
            return None
        return int(np.round(middle)), row, self._rows_of(source)

    def _rows_of(self, source: tuple[float, float]) -> np.ndarray:
        """Row of a source in each column, float (x,)."""
        nx = self.shape[1]
        light = np.linspace(np.nanmin(self._grid), np.nanmax(self._grid), nx)
        places = self._to_pixel(*(np.full(nx, value) for value in source), light)
        return interp1d(*places, fill_value="extrapolate")(np.arange(nx))

    def middle_trace(self) -> np.ndarray:
        """Row in each column of a source in the middle of the cutout, float (x,)."""
        middle = (self.shape[1] - 1) / 2.0
        rows, wavelengths = self._middle_column()
        known = np.isfinite(wavelengths)
        row = float(rows.mean())
        if known.any():
            mean = np.nanmean(wavelengths)
            if not np.allclose(wavelengths, mean):
                order = np.argsort(wavelengths)
                order = order[known[order]]
                row = float(np.interp(mean, wavelengths[order], rows[order]))
        x, y, _ = self._to_slit(middle, row)
        return self._rows_of((float(x), float(y)))

    def _middle_column(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the column in the middle, and their wavelengths [um]."""
        # Half a row is rounded to the even one.
        rows = np.arange(round(self.shape[0] - 0.5), dtype=float)
        return rows, self._to_slit(np.full(rows.shape, (self.shape[1] - 1) / 2.0), rows)[2] * 1e6

    def row_scale(self, row: float, column: float, wavelength: float) -> float:
        """Length of a pixel across the dispersion on the sky [arcsec].

        Parameters
        ----------
        row, column
            Where; the place on the sky is taken to ``wavelength`` [um].
        """
        to_sky = self._wcs.get_transform("detector", "world")
        name = self.slit.slit_id
        place = to_sky(column + self.columns.start, row + self.rows.start, name)[:2]
        x, y = to_sky.inverse(*place, wavelength, name)[:2]
        here, there = (SkyCoord(*to_sky(x, y + step, name)[:2], unit="deg") for step in (0, 1))
        return float(here.separation(there).arcsec)


def check_slices(meta: Mapping[str, Any]) -> None:
    """Whether light of the slices of the IFU falls on the detector.

    Raises
    ------
    NoSlitError
        If filter and grating leave nothing for it.
    """
    grating, filter_ = (str(meta.get(f"meta.instrument.{name}")) for name in ("grating", "filter"))
    if meta["meta.instrument.detector"].upper() == "NRS2" and (
        grating.endswith("M") or (grating, filter_) == ("G140H", "F070LP")
    ):
        raise NoSlitError("no slice falls on detector NRS2")


def slice_traces(optics: Optics, y_range: tuple[float, float] = Y_RANGE) -> Iterator[Trace]:
    """Where each slice of the IFU falls.

    Raises
    ------
    NoSlitError
        If filter and grating leave nothing for the detector.
    """
    check_slices(optics.meta)
    for number in range(SLICES):
        yield Trace(optics, optics.grating_to_slice(number, y_range), Y_RANGE)


def slices_mask(optics: Optics, shape: tuple[int, int]) -> np.ndarray:
    """Pixels in slices of the IFU, bool (y, x)."""
    mask = np.zeros(shape, np.bool_)
    for trace in slice_traces(optics):
        trace.mark(mask)
    if not mask.any():
        raise NoSlitError(f"no slice falls on detector {optics.meta['meta.instrument.detector']}")
    return mask


def slits_mask(optics: Optics, slits: Sequence[Slit], shape: tuple[int, int]) -> np.ndarray:
    """Pixels in the bounding boxes of slits, bool (y, x)."""
    mask = np.zeros(shape, np.bool_)
    for (left, right), (low, high) in slit_boxes(optics, slits).values():
        mask[to_index(low) : to_index(high), to_index(left) : to_index(right)] = True
    return mask


def failed_open_mask(optics: Optics, shutters: Sequence[Slit], shape: tuple[int, int]) -> np.ndarray:
    """Pixels that light of shutters that cannot be closed falls on, bool (y, x)."""
    mask = np.zeros(shape, np.bool_)
    if optics.is_mirror:
        wcs = slits_wcs(optics, shutters).forward_transform
    for shutter in shutters:
        trace = _slit_trace(optics, shutter)
        if not optics.is_mirror:
            trace.mark(mask)
            continue
        # Light that a mirror reflects has no wavelength: the last frame that does without it tells.
        with np.errstate(all="ignore"):
            (left, right), (low, high) = trace.box
            x = np.arange(max(np.ceil(left), 0), min(np.floor(right) + 1, shape[1]), dtype=np.intp)
            y = np.arange(max(np.ceil(low), 0), min(np.floor(high) + 1, shape[0]), dtype=np.intp)
            if x.size and y.size:
                place = wcs(*np.meshgrid(x, y), shutter.slit_id)[0]
                mask[np.ix_(y, x)] |= ~np.isnan(place)
    return mask
