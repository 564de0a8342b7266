"""Blocks: the part of an exposure that goes through the steps of a pass while it is in cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Window:
    """A rectangle of the science frame, with the halo it needs around the part it is responsible for.

    Attributes
    ----------
    y0, y1, x0, x1
        What the block holds, halo included (0-indexed, end exclusive).
    inner_y0, inner_y1, inner_x0, inner_x1
        The part whose results count, in the same frame.
    """

    y0: int
    y1: int
    x0: int
    x1: int
    inner_y0: int
    inner_y1: int
    inner_x0: int
    inner_x1: int

    @classmethod
    def plain(cls, y0: int, y1: int, x0: int, x1: int) -> Window:
        """A window without halo."""
        return cls(y0, y1, x0, x1, y0, y1, x0, x1)

    @classmethod
    def around(cls, y0: int, y1: int, x0: int, x1: int, halo: int, shape: tuple[int, int]) -> Window:
        """The window whose inner part is y0:y1, x0:x1, with a halo clipped at the frame of ``shape`` (y, x)."""
        return cls(
            max(y0 - halo, 0), min(y1 + halo, shape[0]), max(x0 - halo, 0), min(x1 + halo, shape[1]), y0, y1, x0, x1
        )

    def with_inner(self, other: Window) -> Window:
        """This window with the inner part of another one."""
        return Window(
            self.y0, self.y1, self.x0, self.x1, other.inner_y0, other.inner_y1, other.inner_x0, other.inner_x1
        )

    @property
    def rows(self) -> slice:
        return slice(self.y0, self.y1)

    @property
    def columns(self) -> slice:
        return slice(self.x0, self.x1)

    @property
    def shape(self) -> tuple[int, int]:
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def inner(self) -> tuple[slice, slice]:
        """The inner part relative to the block's own arrays."""
        return (
            slice(self.inner_y0 - self.y0, self.inner_y1 - self.y0),
            slice(self.inner_x0 - self.x0, self.inner_x1 - self.x0),
        )

    @property
    def inner_absolute(self) -> tuple[slice, slice]:
        """The inner part in the science frame."""
        return slice(self.inner_y0, self.inner_y1), slice(self.inner_x0, self.inner_x1)


def tiles(rows: tuple[int, int], shape: tuple[int, int], tile: tuple[int, int], halo: int) -> Iterator[Window]:
    """Windows that cover ``rows`` of a frame.

    Parameters
    ----------
    rows
        First and last row (end exclusive) to cover.
    shape
        Frame (y, x).
    tile
        Largest inner part (y, x) of a window.
    halo
        Pixels of neighbours around the inner part, clipped at the frame.
    """
    for y in range(rows[0], rows[1], tile[0]):
        for x in range(0, shape[1], tile[1]):
            yield Window.around(y, min(y + tile[0], rows[1]), x, min(x + tile[1], shape[1]), halo, shape)


@dataclass(frozen=True, eq=False)
class KeptRows:
    """The rows of a file that make up a detector's frame, where reference samples lie between them (NIRSpec IRS2).

    Attributes
    ----------
    rows
        int64 (row,), increasing: the row of the file for each row of the frame.
    size
        Rows of the file.
    whole
        Windows of the frame cover all rows of the file: those between two rows of the frame belong to the first of
        them, those before the first row to that one. Otherwise windows begin and end with rows of the frame.
    """

    rows: np.ndarray
    size: int
    whole: bool = False

    def outer(self, window: Window) -> Window:
        """The window of the file's rows for a window of the frame."""
        y0, y1 = self.span((window.y0, window.y1))
        inner_y0, inner_y1 = self.span((window.inner_y0, window.inner_y1))
        return Window(y0, y1, window.x0, window.x1, inner_y0, inner_y1, window.inner_x0, window.inner_x1)

    def span(self, rows: tuple[int, int]) -> tuple[int, int]:
        """First and last row of the file, end exclusive, for those of the frame."""
        start, stop = rows
        if not self.whole:
            return int(self.rows[start]), int(self.rows[stop - 1]) + 1
        bounds = np.concatenate(([0], self.rows[1:], [self.size]))
        return int(bounds[start]), int(bounds[stop])


@dataclass
class ImageBlock:
    """One window of a rate, calibrated or other image product.

    Attributes
    ----------
    window
        Which part of the frame.
    sci, err, var_poisson, var_rnoise, var_flat
        float32 ([integration,] y, x), or None where the product has no such array.
    dq
        uint32 ([integration,] y, x).
    extra
        Further arrays of the product by lower-case name, such as ``area``.
    """

    window: Window
    sci: np.ndarray
    err: np.ndarray | None = None
    dq: np.ndarray | None = None
    var_poisson: np.ndarray | None = None
    var_rnoise: np.ndarray | None = None
    var_flat: np.ndarray | None = None
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    tally: dict[str, Any] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are present, by lower-case name."""
        names = ("sci", "err", "dq", "var_poisson", "var_rnoise", "var_flat")
        present = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return present | self.extra


@dataclass
class RampBlock:
    """One window of a ramp, all integrations and groups; steps change it in place.

    Attributes
    ----------
    window
        Which part of the frame.
    sci
        float32 (integration, group, y, x) [DN].
    groupdq
        uint8 (integration, group, y, x).
    pixeldq
        uint32 (y, x); (superstripe, y, x) where successive integrations are of different rows of the detector, one of
        so many superstripes each.
    zeroframe
        float32 (integration, y, x) [DN], or None.
    average_dark_current
        Dark current that enters the Poisson variance: a number or float32 (y, x) [DN/s]; None before dark_current.
    tally
        Counts over the inner part, numbers or arrays, summed by the engine over all blocks for ``Step.finish``.
    products
        Filled by ramp_fit: ``rate``, ``rateints`` and, on request, ``fitopt``.
    references
        What steps have read of reference images, for those that read the same: `jwstdask.refs.images.floats_under`.
    """

    window: Window
    sci: np.ndarray
    groupdq: np.ndarray
    pixeldq: np.ndarray
    zeroframe: np.ndarray | None = None
    average_dark_current: np.ndarray | float | None = None
    tally: dict[str, Any] = field(default_factory=dict)
    products: dict[str, ImageBlock] = field(default_factory=dict)
    references: dict[Any, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def superstripes(self) -> Iterator[tuple[Any, RampBlock]]:
        """The integrations of each superstripe, as views, and their index into arrays (superstripe, y, x).

        The block itself, and an index that takes the whole of arrays (y, x), where there are no superstripes.
        """
        if self.pixeldq.ndim == 2:
            yield ..., self
            return
        count = len(self.pixeldq)
        for index in range(count):
            own = slice(index, None, count)
            zeroframe = None if self.zeroframe is None else self.zeroframe[own]
            yield index, RampBlock(self.window, self.sci[own], self.groupdq[own], self.pixeldq[index], zeroframe)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are present, by lower-case name."""
        found = {"sci": self.sci, "pixeldq": self.pixeldq, "groupdq": self.groupdq}
        if self.zeroframe is not None:
            found["zeroframe"] = self.zeroframe
        if self.average_dark_current is not None:
            found["avdrkcur"] = np.broadcast_to(np.float32(self.average_dark_current), self.pixeldq.shape)
        return found


@dataclass
class GuiderBlock(RampBlock):
    """One window of an exposure of the guiders: one array of flags, ``pixeldq``, and no flags of groups.

    Attributes
    ----------
    err
        float32 (integration, group, y, x), of no use, or None.
    """

    err: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are present, by lower-case name; those of the count rates once there are any."""
        if "cal" in self.products:
            return self.products["cal"].arrays()
        err = np.broadcast_to(np.float32(0), self.sci.shape) if self.err is None else self.err
        return {"sci": self.sci, "err": err, "dq": self.pixeldq}
