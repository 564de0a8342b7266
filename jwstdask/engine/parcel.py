"""Objects that go to several processes: large arrays in them travel in a file that all see, not in each message."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.io.temporary import FileArray

LARGEST_IN_MESSAGE = 100_000
"""Bytes of all arrays in an object from which on they are in a file."""

_ALIGNMENT = 64


@dataclass(frozen=True)
class Parcel:
    """An object on its way to other processes; as long as the one that was packed lives.

    Attributes
    ----------
    pickled
        The object but for its arrays (PEP 574).
    arrays
        First and last byte of each array in ``file``.
    file
        The arrays one after the other; None where they are in ``pickled``.
    """

    pickled: bytes
    arrays: tuple[tuple[int, int], ...] = ()
    file: FileArray | None = None

    @classmethod
    def of(cls, item: Any, folder: str | os.PathLike[str]) -> Parcel:
        """Pack an object; ``folder`` is one that all workers see, made where it is needed.

        Raises
        ------
        OSError
            If the arrays cannot be written.
        """
        found: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(item, protocol=5, buffer_callback=found.append)
        views = [buffer.raw() for buffer in found]
        if sum(view.nbytes for view in views) <= LARGEST_IN_MESSAGE:
            # Within the message after all.
            return cls(pickle.dumps(item, protocol=5))
        starts = np.cumsum([0, *(-(-view.nbytes // _ALIGNMENT) * _ALIGNMENT for view in views)]).tolist()
        file = FileArray(folder, (starts[-1],), np.uint8)
        for start, view in zip(starts, views):
            file.write((start,), np.frombuffer(view, np.uint8))
        return cls(pickled, tuple((start, start + view.nbytes) for start, view in zip(starts, views)), file)

    def open(self) -> Any:
        """The object; its arrays are read from the file where they are looked at, and may be written to."""
        buffers = []
        if self.file is not None:
            held = np.memmap(self.file.path, np.uint8, "c")
            buffers = [held[start:stop] for start, stop in self.arrays]
        return pickle.loads(self.pickled, buffers=buffers)
