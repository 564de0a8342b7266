"""Byte strings put aside in a file without a name, so that memory does not grow with their number."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
import zlib
from dataclasses import dataclass


class _Room:
    """A file without a name, closed with the last who has this."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile(prefix="jwstdask-") as file:
            self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)


class Shelf:
    """Keeps byte strings, compressed, until the last one who may ask for them is gone. Threads may share it.

    Where the temporary folder takes nothing more they stay in memory.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._room: _Room | None = None
        self._size = 0

    def put(self, data: bytes) -> Kept:
        """Keep a byte string."""
        packed = zlib.compress(data, 1)
        with self._guard:
            try:
                if self._room is None:
                    self._room = _Room()
                if os.pwrite(self._room.descriptor, packed, self._size) < len(packed):
                    return Kept(packed)
            except OSError:
                return Kept(packed)
            kept = Kept(None, self._room, self._size, len(packed))
            self._size += len(packed)
            return kept


@dataclass(frozen=True, slots=True)
class Kept:
    """A byte string on a `Shelf`, or beside it."""

    packed: bytes | None
    room: _Room | None = None
    offset: int = 0
    size: int = 0

    def read(self) -> bytes:
        """The byte string."""
        packed = self.packed
        if packed is None and self.room is not None:
            packed = os.pread(self.room.descriptor, self.size, self.offset)
        return zlib.decompress(packed or b"")
