"""Arrays with the values of each pixel side by side, in temporary files.

A tile of a long series is a few pixels of all integrations, which lie all over a file. Where that file does not fit
into memory, each tile would have the disk read, or written, from its beginning to its end. Files that are gone through
twice instead, in both orders, have to be read and written as often as that only.
"""

from __future__ import annotations

import math
import os

import numpy as np

from jwstdask.io.hdus import STORED, Place
from jwstdask.io.pages import write_at
from jwstdask.io.product import MappedImages
from jwstdask.io.temporary import temporary_path

_CHUNK_BYTES = 8_000_000


def turned_array(folder: str | os.PathLike[str], shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
    """An array (..., y, x) in a file without a name, where the last two axes come first.

    Raises
    ------
    OSError
        If the disk is full.
    """
    dtype = np.dtype(dtype)
    os.makedirs(folder, exist_ok=True)
    path = temporary_path(os.path.join(os.path.abspath(folder), "jwstdask-turned"))
    with open(path, "w+b") as file:
        os.unlink(path)
        size = math.prod(shape) * dtype.itemsize
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        image = np.memmap(file, dtype, "r+", shape=(*shape[-2:], *shape[:-2]))
    return np.moveaxis(image.view(np.ndarray), (0, 1), (-2, -1))


def turn(folder: str | os.PathLike[str], array: np.ndarray) -> np.ndarray:
    """A copy of an array (integration, ..., y, x), some integrations at a time.

    Raises
    ------
    OSError
        If the disk is full.
    """
    out = turned_array(folder, array.shape, array.dtype)
    count = max(_CHUNK_BYTES // max(array[:1].nbytes, 1), 1)
    for start in range(0, len(array), count):
        # Read before it is turned: in the order of the file.
        out[start : start + count] = np.array(array[start : start + count])
    return out


class TurnedImages(MappedImages):
    """Rows of images of products under construction, held turned until all of them are there.

    Parameters
    ----------
    rows
        The rows that will be written, all of them.
    folder
        For temporary files.
    """

    def __init__(self, rows: slice, folder: str | os.PathLike[str]) -> None:
        super().__init__(rows)
        self.folder = folder
        self._turned: dict[tuple[str, int], tuple[Place, np.ndarray]] = {}

    def image(self, path: str, place: Place) -> tuple[np.ndarray, int]:
        if len(place.shape) < 3:
            return super().image(path, place)
        assert self.rows is not None
        key = path, place.offset
        if key not in self._turned:
            shape = (*place.shape[:-2], self.rows.stop - self.rows.start, place.shape[-1])
            self._turned[key] = place, turned_array(self.folder, shape, STORED[place.dtype][1])
        return self._turned[key][1], self.rows.start

    def finish(self) -> None:
        """Put the images into their products."""
        assert self.rows is not None
        for (path, offset), (place, image) in self._turned.items():
            planes = math.prod(place.shape[:-2])
            line = image.dtype.itemsize * place.shape[-1]
            whole = image.shape[-2] == place.shape[-2]
            images = image.reshape(planes, *image.shape[-2:])
            count = max(_CHUNK_BYTES // (line * image.shape[-2]), 1)
            descriptor = os.open(path, os.O_WRONLY)
            try:
                for start in range(0, planes, count):
                    part = np.ascontiguousarray(images[start : start + count])
                    runs = part.reshape(1, -1) if whole else part.reshape(len(part), -1)
                    for number, run in enumerate(runs):
                        first = (start + number) * place.shape[-2] + self.rows.start
                        write_at(descriptor, run.view(np.uint8).data, offset + first * line)
            finally:
                os.close(descriptor)
        self._turned.clear()
