"""Where blocks come from: a FITS file, read by strips and in place, or a Dataset."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from jwstdask.core.block import GuiderBlock, ImageBlock, RampBlock, Window
from jwstdask.core.errors import InputError
from jwstdask.io.layout import FitsLayout, is_url, open_layout
from jwstdask.io.turned import turn
from jwstdask.kernels.decode import decode_uint16, swap32

_IMAGE_ARRAYS = ("err", "dq", "var_poisson", "var_rnoise", "var_flat")


class Arrays:
    """Reads named arrays of an exposure by windows; subclasses say from where."""

    name: str
    shape: tuple[int, ...]
    in_parts: bool = True

    def __contains__(self, name: str) -> bool:
        raise NotImplementedError

    def read(self, name: str, window: Window, dtype: type, integrations: slice = slice(None)) -> np.ndarray:
        """A fresh array (..., y, x) of the window in native byte order; of some integrations, where it has any."""
        raise NotImplementedError

    def block(self, window: Window, integrations: slice = slice(None)) -> RampBlock | ImageBlock:
        """A fresh block of the window: a ramp (of some integrations) for four dimensions, an image for two or three."""
        if len(self.shape) == 4:
            return self._ramp(window, integrations)
        sci = self.read("sci", window, np.float32)
        found: dict[str, Any] = {
            name: self.read(name, window, np.uint32 if name == "dq" else np.float32)
            for name in _IMAGE_ARRAYS
            if name in self
        }
        found.setdefault("dq", np.zeros(sci.shape, np.uint32))
        for name in ("err", "var_poisson", "var_rnoise"):
            found.setdefault(name, np.zeros(sci.shape, np.float32))
        return ImageBlock(window, sci, **found)

    def guider_block(self, window: Window) -> GuiderBlock | ImageBlock:
        """A fresh block of an exposure of the guiders: reads for four dimensions, count rates for three."""
        sci = self.read("sci", window, np.float32)
        dq = self.read("dq", window, np.uint32) if "dq" in self else np.zeros(window.shape, np.uint32)
        err = self.read("err", window, np.float32) if "err" in self else None
        if len(self.shape) == 4:
            return GuiderBlock(window, sci, np.empty((0, 0, *window.shape), np.uint8), dq, err=err)
        return ImageBlock(window, sci, np.zeros_like(sci) if err is None else err, dq)

    def _ramp(self, window: Window, integrations: slice) -> RampBlock:
        sci = self.read("sci", window, np.float32, integrations)
        if "groupdq" in self:
            groupdq = self.read("groupdq", window, np.uint8, integrations)
        else:
            groupdq = np.zeros(sci.shape, np.uint8)
        pixeldq = self.read("pixeldq", window, np.uint32) if "pixeldq" in self else np.zeros(window.shape, np.uint32)
        zeroframe = self.read("zeroframe", window, np.float32, integrations) if "zeroframe" in self else None
        dark = self.read("avdrkcur", window, np.float32) if "avdrkcur" in self else None
        return RampBlock(window, sci, groupdq, pixeldq, zeroframe, dark)


_BAND = 128
"""Rows of a remote array that are read at a time where more are wanted."""
_SMALL = 32 << 20
"""Remote arrays of no more bytes are kept as they are read, so that what is walked over twice is not read twice."""
_EDGE = 16
"""Columns on the left and on the right that are kept of a remote array."""


class FileArrays(Arrays):
    """Arrays of a FITS file. A local file is mapped; a remote one is read by bands of whole rows.

    Parameters
    ----------
    layout
        Of the file.

    Raises
    ------
    InputError
        If there is no science array, or the arrays do not fit each other.
    """

    def __init__(self, layout: FitsLayout) -> None:
        self.layout = layout
        self.name = os.path.basename(layout.path)
        self.shape = tuple(layout.check_exposure().shape)
        self._maps: dict[str, np.ndarray] = {}
        self._band = threading.local()
        self._edges: dict[str, np.ndarray] = {}
        self._kept: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._guard = threading.Lock()
        self._remote = is_url(layout.path)
        self.in_parts = not self._remote

    @classmethod
    def open(cls, path: str) -> FileArrays:
        return cls(open_layout(path))

    def __contains__(self, name: str) -> bool:
        return name in self.layout and self.layout.hdu(name).size > 0

    def _map(self, name: str) -> np.ndarray:
        if name not in self._maps:
            self._maps[name] = self.layout.raw(name)
        return self._maps[name]

    def turn(self, folder: str | os.PathLike[str]) -> None:
        """Read series from turned copies in ``folder`` from now on: for tiles of few pixels.

        Raises
        ------
        OSError
            If the disk is full.
        """
        for name in ("sci", "groupdq", "zeroframe"):
            if name in self:
                self._maps[name] = turn(folder, self._map(name))

    def read(self, name: str, window: Window, dtype: type, integrations: slice = slice(None)) -> np.ndarray:
        hdu = self.layout.hdu(name)
        part = (integrations, ..., window.rows, window.columns) if len(hdu.shape) > 2 else (window.rows, window.columns)
        if self._remote:
            return self._fetch(name, window, dtype)[part[:-2]]
        raw = self._map(name)[part]
        unsigned_word = hdu.dtype == np.uint16 and raw.dtype == np.dtype(">i2")
        if unsigned_word and dtype == np.float32:
            return decode_uint16(raw)
        plain = hdu.bscale == 1 and hdu.bzero == 0
        if plain and raw.dtype == np.dtype(">f4") and dtype == np.float32:
            return swap32(raw)
        if raw.dtype == np.uint8 and dtype == np.uint8:
            return np.array(raw)
        if raw.dtype == np.dtype(">i4") and hdu.dtype == np.uint32 and dtype == np.uint32:
            return swap32(raw, dtype=np.uint32, flip=0x80000000)
        leading = part[:1] if len(hdu.shape) > 2 else ()
        return self.layout.read(name, window.rows, window.columns, leading=leading).astype(dtype, copy=False)

    def _fetch(self, name: str, window: Window, dtype: type) -> np.ndarray:
        width = self.shape[-1]
        hdu = self.layout.hdu(name)
        if hdu.size * hdu.dtype.itemsize <= _SMALL:
            return np.array(self._known_rows(name, window)[..., window.columns], dtype)
        if window.y1 - window.y0 <= _BAND:
            return np.array(self._rows(name, window)[..., window.columns], dtype)
        if window.x1 <= _EDGE or window.x0 >= width - _EDGE:
            edges = self._sides(name)[..., window.rows, :]
            start = 0 if window.x1 <= _EDGE else width - edges.shape[-1]  # the last columns come last
            return np.array(edges[..., window.x0 - start : window.x1 - start], dtype)
        out: np.ndarray = np.empty((*hdu.shape[:-2], *window.shape), dtype)
        for y0 in range(window.y0, window.y1, _BAND):
            rows = slice(y0, min(y0 + _BAND, window.y1))
            part = self.layout.read(name, rows)
            out[..., y0 - window.y0 : rows.stop - window.y0, :] = part[..., window.columns]
        return out

    def _known_rows(self, name: str, window: Window) -> np.ndarray:
        """Whole rows of a small remote array: each is read once, when it is asked for, and kept."""
        with self._guard:
            if name not in self._kept:
                hdu = self.layout.hdu(name)
                self._kept[name] = np.empty(hdu.shape, hdu.dtype), np.zeros(hdu.shape[-2], bool)
            array, known = self._kept[name]
            absent = np.flatnonzero(~known[window.rows]) + window.y0
            for run in np.split(absent, np.flatnonzero(np.diff(absent) > 1) + 1):
                if run.size:
                    rows = slice(int(run[0]), int(run[-1]) + 1)
                    array[..., rows, :] = self.layout.read(name, rows)
                    known[rows] = True
            return array[..., window.rows, :]

    def _sides(self, name: str) -> np.ndarray:
        """The first and last columns of all rows of a remote array, read band by band and kept: reference pixels.

        Rows come whole, since a range for each row would be a request for each row.
        """
        with self._guard:
            if name not in self._edges:
                shape = self.layout.hdu(name).shape
                first, last = slice(0, min(_EDGE, shape[-1])), slice(max(shape[-1] - _EDGE, 0), shape[-1])
                bands = []
                for y0 in range(0, shape[-2], _BAND):
                    part = self.layout.read(name, slice(y0, min(y0 + _BAND, shape[-2])))
                    bands.append(np.concatenate([part[..., first], part[..., last]], axis=-1))
                self._edges[name] = np.concatenate(bands, axis=-2)
            return self._edges[name]

    def _rows(self, name: str, window: Window) -> np.ndarray:
        """Whole rows of a remote array; those of the last window are kept, since tiles walk along rows and overlap."""
        bands = self._band.__dict__.setdefault("bands", {})
        y0, y1 = window.y0, window.y1
        start, kept = bands.get(name, (0, None))
        stop = start + (0 if kept is None else kept.shape[-2])
        if kept is None or not start <= y0 <= stop:
            start, stop, kept = y0, y0, None
        if y1 > stop:
            new = self.layout.read(name, slice(stop, y1))
            kept = new if kept is None or y0 == stop else np.concatenate([kept[..., y0 - start :, :], new], axis=-2)
            start = y0
            bands[name] = (start, kept)
        return kept[..., y0 - start : y1 - start, :]

    def __getstate__(self) -> dict[str, Any]:
        return {"layout": self.layout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["layout"])  # type: ignore[misc]


class MemoryArrays(Arrays):
    """Arrays of a Dataset or of a mapping, in memory.

    Parameters
    ----------
    arrays
        Lower-case name to array (..., y, x).
    name
        How messages call the exposure.
    """

    def __init__(self, arrays: dict[str, np.ndarray], name: str = "dataset") -> None:
        if "sci" not in arrays:
            raise InputError(name, "there is no sci array", "an exposure needs a variable called sci")
        self.arrays, self.name = arrays, name
        self.shape = tuple(arrays["sci"].shape)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def read(self, name: str, window: Window, dtype: type, integrations: slice = slice(None)) -> np.ndarray:
        array = self.arrays[name]
        if array.ndim > 2:
            array = array[integrations]
        return np.array(array[..., window.rows, window.columns], dtype, order="C")
