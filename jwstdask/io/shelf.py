"""Byte strings put aside in a file without a name, so that memory does not grow with their number."""

from __future__ import annotations

import os
import tempfile
import threading
import zlib
from dataclasses import dataclass
from typing import IO


class Shelf:
    """Keeps byte strings, compressed, until the last one who may ask for them is gone. Threads may share it.

    Where the temporary folder takes nothing more they stay in memory.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._file: IO[bytes] | None = None
        self._size = 0

    def put(self, data: bytes) -> Kept:
        """Keep a byte string."""
        packed = zlib.compress(data, 1)
        with self._guard:
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(prefix="jwstdask-", buffering=0)
                if os.pwrite(self._file.fileno(), packed, self._size) < len(packed):
                    return Kept(packed)
            except OSError:
                return Kept(packed)
            kept = Kept(None, self._file, self._size, len(packed))
            self._size += len(packed)
            return kept


@dataclass(frozen=True, slots=True)
class Kept:
    """A byte string on a `Shelf`, or beside it."""

    packed: bytes | None
    file: IO[bytes] | None = None
    offset: int = 0
    size: int = 0

    def read(self) -> bytes:
        """The byte string."""
        packed = self.packed
        if packed is None and self.file is not None:
            packed = os.pread(self.file.fileno(), self.size, self.offset)
        return zlib.decompress(packed or b"")
