"""A reference in memory and an engine of one loop, for tests of single steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jwstdask.core.block import KeptRows, RampBlock, Window, tiles


@dataclass
class FakeReference:
    """What a step sees of a reference file."""

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    dq: np.ndarray | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    asdf: Mapping[str, Any] = field(default_factory=dict)
    path: str = "fake.fits"

    tables: Mapping[str, Any] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays or name in self.tables

    def table(self, name: str) -> Any:
        return self.tables[name]

    def column(self, name: str, column: str) -> np.ndarray:
        return self.tables[name][column]

    def array(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def median(self, name: str) -> np.float32:
        return np.float32(np.nanmedian(self.arrays[name]))

    @property
    def flags(self) -> np.ndarray | None:
        return self.dq

    def match(self, meta: Mapping[str, Any]) -> FakeReference:
        return self


@dataclass
class Ramp:
    """A whole exposure: float32 (integration, group, y, x) with its flags."""

    sci: np.ndarray
    groupdq: np.ndarray
    pixeldq: np.ndarray
    zeroframe: np.ndarray | None = None
    tally: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, sci: np.ndarray, **arrays: Any) -> Ramp:
        values = {"groupdq": np.zeros(sci.shape, np.uint8), "pixeldq": np.zeros(sci.shape[-2:], np.uint32)}
        return cls(sci, **(values | arrays))

    def copy(self) -> Ramp:
        zeroframe = None if self.zeroframe is None else self.zeroframe.copy()
        return Ramp(self.sci.copy(), self.groupdq.copy(), self.pixeldq.copy(), zeroframe)

    def rows(self, rows: np.ndarray) -> Ramp:
        zeroframe = None if self.zeroframe is None else self.zeroframe[:, rows]
        return Ramp(self.sci[:, :, rows], self.groupdq[:, :, rows], self.pixeldq[rows], zeroframe)

    def block(self, window: Window) -> RampBlock:
        tile = (..., window.rows, window.columns)
        zeroframe = None if self.zeroframe is None else self.zeroframe[tile].copy()
        return RampBlock(window, self.sci[tile].copy(), self.groupdq[tile].copy(), self.pixeldq[tile].copy(), zeroframe)


def metadata(shape: tuple[int, int], **more: Any) -> dict[str, Any]:
    """Metadata of a full-frame-like NIRCam exposure of ``shape``; keys are given with ``__`` for dots, without meta."""
    values = {
        "meta.instrument.name": "NIRCAM",
        "meta.instrument.detector": "NRCA1",
        "meta.subarray.name": "SUB160",
        "meta.subarray.xstart": 1,
        "meta.subarray.ystart": 1,
        "meta.subarray.xsize": shape[1],
        "meta.subarray.ysize": shape[0],
        "meta.subarray.fastaxis": -1,
        "meta.subarray.slowaxis": 2,
        "meta.exposure.nframes": 1,
        "meta.exposure.groupgap": 0,
    }
    return values | {"meta." + name.replace("__", "."): value for name, value in more.items()}


def walk(
    step: Any,
    meta: Mapping[str, Any],
    references: Mapping[str, Any],
    ramp: Ramp,
    tile: tuple[int, int] = (10**6, 10**6),
) -> Ramp:
    """The exposure after a step, or after what is left of it without references, that works through it in tiles."""
    assert step.skip_reason(meta) is None
    if step.reference_skip_reason(meta, references) is not None:
        step = step.left_over(meta, references)
        assert step is not None
    step.check(meta)
    prepared = step.prepare(meta, references)
    gathered = None
    if windows := step.gather_windows(meta):
        if step.streams:

            def blocks(chosen=lambda window: True):
                return (ramp.block(window) for window in windows if chosen(window))

            gathered = step.gather_stream(meta, prepared, blocks)
        else:
            gathered = step.gather(meta, prepared, [ramp.block(window) for window in windows])
    result = ramp.copy()
    shape = ramp.sci.shape[-2:]
    outer = None
    if (kept := step.kept_rows(meta)) is not None:
        outer = KeptRows(kept, shape[0], whole=not step.drops_rows(meta)).outer
        shape = kept.size, shape[1]
        if step.drops_rows(meta):
            result = result.rows(kept)
    for window in tiles((0, shape[0]), shape, tile, step.halo):
        block = ramp.block(window if outer is None else outer(window))
        step.apply(block, prepared, gathered)
        inner, absolute = (..., *block.window.inner), (..., *block.window.inner_absolute)
        for name, array in block.arrays().items():
            if name == "avdrkcur":
                continue  # a number, not kept with the ramp
            getattr(result, name)[absolute] = array[inner]
        for name, value in block.tally.items():
            result.tally[name] = result.tally.get(name, 0.0) + value
    step.write_side_products(meta, prepared)
    return result


def oracle_ramp(ramp: Ramp, meta: Mapping[str, Any]) -> Any:
    """The exposure as jwst's RampModel."""
    from stdatamodels.jwst.datamodels import RampModel

    model = RampModel(data=ramp.sci.copy())
    model.groupdq = ramp.groupdq.copy()
    model.pixeldq = ramp.pixeldq.copy()
    if ramp.zeroframe is not None:
        model.zeroframe = ramp.zeroframe.copy()
        model.meta.exposure.zero_frame = True
    model.meta.exposure.ngroups, model.meta.exposure.nints = ramp.sci.shape[1], ramp.sci.shape[0]
    for name, value in meta.items():
        model[name] = value
    return model


def assert_same(result: Ramp, model: Any) -> None:
    """Identical bits in the values (NaN at the same places), identical flags."""
    np.testing.assert_array_equal(result.sci, model.data)
    np.testing.assert_array_equal(result.groupdq, model.groupdq)
    np.testing.assert_array_equal(result.pixeldq, model.pixeldq)
    if result.zeroframe is not None:
        np.testing.assert_array_equal(result.zeroframe, model.zeroframe)


TILES = [(10**6, 10**6), (16, 24), (7, 10**6), (33, 5)]
"""Tile shapes (y, x) that must all give the same bits."""
