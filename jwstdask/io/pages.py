"""Pages of files that are written to through their maps, here a little and there a little."""

from __future__ import annotations

import contextlib
import mmap
import os

_ZEROS = 1 << 20
_MADV_POPULATE_WRITE = 23


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset`` of a file."""
    view = memoryview(data)
    while len(view):
        count = os.pwrite(descriptor, view, offset)
        view = view[count:]
        offset += count


def make_ready(descriptor: int, memory: mmap.mmap, first: int, size: int, shift: int = 0) -> None:
    """Have a part of a map ready, as zeros, rather than one page after the other as each is first written.

    A write call makes large pages of the cache, many at a time, and mapping these takes a quarter of the time of having
    the mapping itself make small ones. A full disk is an error here, where it would kill the process later.

    Parameters
    ----------
    descriptor
        Of the file.
    memory
        The map.
    first, size
        Bytes of the file.
    shift
        Where in the file the map begins.

    Raises
    ------
    OSError
        If the disk is full.
    """
    zeros = memoryview(bytes(min(size, _ZEROS)))
    for start in range(0, size, len(zeros) or 1):
        write_at(descriptor, zeros[: size - start], first + start)
    map_ready(memory, first, size, shift)


def map_ready(memory: mmap.mmap, first: int, size: int, shift: int = 0) -> None:
    """Have a part of a map ready as it stands; parameters as of :func:`make_ready`."""
    with contextlib.suppress(OSError, AttributeError):
        # Before Linux 5.14, and elsewhere, pages are mapped one after the other.
        page = (first - shift) // mmap.PAGESIZE * mmap.PAGESIZE
        memory.madvise(_MADV_POPULATE_WRITE, page, first - shift + size - page)
