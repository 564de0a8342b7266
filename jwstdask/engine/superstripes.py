"""Exposures in superstripes: their integrations, of different rows each, are put together to those of a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.dq import REFERENCE_PIXEL
from jwstdask.engine.frames import mapped
from jwstdask.engine.sources import FileArrays
from jwstdask.io.layout import FitsLayout
from jwstdask.io.product import ProductWriter
from jwstdask.refs.stripes import Superstripes

Shapes = dict[str, tuple[tuple[int, ...], str]]

Write = Callable[[str, tuple[int, ...], np.ndarray], None]
"""Takes the name of an array, an index along its leading axes, and (y, x)."""


def shapes(stripes: Superstripes, meta: Mapping[str, Any], shape: tuple[int, ...]) -> Shapes:
    """Shapes and dtypes of the arrays of the frame, of the shape of the exposure."""
    frame = stripes.shape(shape)
    found: Shapes = {"sci": (frame, "float32"), "pixeldq": (frame[2:], "uint32"), "groupdq": (frame, "uint8")}
    if meta.get("meta.exposure.zero_frame"):
        found["zeroframe"] = ((frame[0], *frame[2:]), "float32")
    return found


def join(stripes: Superstripes, meta: Mapping[str, Any], block: RampBlock, write: Write) -> None:
    """Hand the planes of the frame to ``write``, one after the other.

    Rows that no superstripe reads are NaN and flagged as reference pixels.

    Parameters
    ----------
    block
        The whole exposure; its arrays may be memory-mapped.
    """
    passes, count = len(stripes.slabs), stripes.count
    nints, ngroups, ny, nx = stripes.shape(block.sci.shape)

    def plane(fill: Any, dtype: type, times: range, planes: np.ndarray) -> np.ndarray:
        """Rows of ``planes`` (superstripe, y, x), read at some of the times that rows are read within a group."""
        image: np.ndarray = np.full((ny, nx), fill, dtype)
        for time in times:
            for index, (source, target, number) in enumerate(stripes.slabs[time]):
                rows, own = slice(target, target + number), slice(source, source + number)
                if stripes.along_y:
                    image[rows] = planes[index, own]
                else:
                    image[:, rows] = planes[index, :, own]
        return image

    every = range(passes)
    write("pixeldq", (), plane(REFERENCE_PIXEL, np.uint32, every, block.pixeldq))
    for integration in range(nints):
        own = slice(integration * count, (integration + 1) * count)
        for group in range(ngroups):
            given, time = divmod(group, passes)
            once = range(time, time + 1)
            write("sci", (integration, group), plane(np.nan, np.float32, once, block.sci[own, given]))
            write("groupdq", (integration, group), plane(0, np.uint8, once, block.groupdq[own, given]))
        if meta.get("meta.exposure.zero_frame"):
            # As in jwst, of rows that are read several times the last time is kept.
            frames = block.zeroframe
            image = (
                np.full((ny, nx), np.nan, np.float32)
                if frames is None
                else plane(np.nan, np.float32, every, frames[own])
            )
            write("zeroframe", (integration,), image)


def join_in_file(
    stripes: Superstripes, meta: Mapping[str, Any], source: str, tables: FitsLayout, target: str
) -> FileArrays:
    """Put a file's superstripes together in another file.

    Parameters
    ----------
    meta
        Metadata of the exposure.
    source
        Path of the exposure's arrays.
    tables
        The file that has its tables.
    target
        Path to write.
    """
    block = mapped(source)
    assert isinstance(block, RampBlock)
    times = tables.table("INT_TIMES") if "INT_TIMES" in tables else None
    found = stripes.tables(meta, times)
    arrays = shapes(stripes, meta, block.sci.shape)
    with ProductWriter(target, "RampModel", {}, arrays, found, sync=False) as writer:

        def write(name: str, index: tuple[int, ...], image: np.ndarray) -> None:
            leading = tuple(slice(number, number + 1) for number in index)
            writer.write(name, image[(np.newaxis,) * len(index)], leading=leading)

        join(stripes, meta, block, write)
        writer.finish()
    return FileArrays.open(target)


def join_in_memory(stripes: Superstripes, meta: Mapping[str, Any], block: RampBlock) -> dict[str, np.ndarray]:
    """The arrays of the frame, by lower-case name."""
    found = {name: np.empty(*item) for name, item in shapes(stripes, meta, block.sci.shape).items()}

    def write(name: str, index: tuple[int, ...], image: np.ndarray) -> None:
        found[name][index] = image

    join(stripes, meta, block, write)
    return found
