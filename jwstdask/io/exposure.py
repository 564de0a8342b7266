"""A handle on an exposure: metadata and WCS at hand, pixels read on demand. Small enough to send to a worker."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from jwstdask.core.dq import DO_NOT_USE, OUTLIER
from jwstdask.io.layout import FitsLayout, open_layout
from jwstdask.io.metadata import read_metadata, read_wcs


class Exposure:
    """A calibrated exposure on its way through the steps of an association.

    Parameters
    ----------
    path
        File or URL.

    Attributes
    ----------
    meta
        Metadata under jwst's dotted names; steps change it.
    masks
        Files (``.npy``, bool (y, x)) of pixels that outlier detection threw out: they read as NaN, with OUTLIER and
        DO_NOT_USE set.
    offsets
        Constants [unit of SCI] to subtract from SCI, one after the other: a sky level.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.layout: FitsLayout = open_layout(path)
        self.path = self.layout.path
        self.shape: tuple[int, ...] = tuple(self.layout.check_exposure().shape)
        self.meta: dict[str, Any] = read_metadata(self.layout, complete=True)
        self.masks: list[str] = []
        self.offsets: list[Any] = []
        self._wcs: Any = ...

    def __repr__(self) -> str:
        return f"Exposure({self.path!r}, shape={self.shape})"

    @property
    def name(self) -> str:
        """File name."""
        return os.path.basename(self.path)

    @property
    def wcs(self) -> Any:
        """The gwcs object; None where the file has none."""
        if self._wcs is ...:
            self._wcs = read_wcs(self.layout)
        return self._wcs

    @wcs.setter
    def wcs(self, value: Any) -> None:
        self._wcs = value

    def __contains__(self, name: str) -> bool:
        return name in self.layout and self.layout.hdu(name).size > 0

    @property
    def mask(self) -> np.ndarray | None:
        """bool (y, x) of the pixels thrown out, or None."""
        found = None
        for path in self.masks:
            mask = np.load(path, mmap_mode="r")
            found = mask if found is None else found | mask
        return found

    def read(self, name: str, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Part of an array (..., y, x) in native byte order, offsets and outliers applied."""
        array = self.layout.read(name, rows, columns)
        if name == "sci":
            for offset in self.offsets:
                array -= offset
        mask = self.mask
        if mask is not None:
            mask = mask[rows, columns]
            if name == "dq":
                array[..., mask] |= DO_NOT_USE | OUTLIER
            elif array.dtype.kind == "f" and name in ("sci", "err", "var_poisson", "var_rnoise", "var_flat"):
                array[..., mask] = np.nan
        return array
