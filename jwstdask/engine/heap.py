"""What becomes of memory that is freed."""

from __future__ import annotations

import contextlib
import ctypes
import functools

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_BLOCK = 64 << 20
_MOST_KEPT = 128 << 20


@functools.cache
def keep_freed_memory() -> None:
    """Have this process use memory again rather than give it back, where its allocator is that of glibc.

    Tiles come and go some hundred times an exposure. Otherwise the pages of each would be given back to the system and
    be asked for again, one by one and filled with zeros: a tenth of the CPU time of a long time series, and more
    in workers, which Dask has give back all they can.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (elsewhere the numbers mean something else, or nothing)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        library.mallopt(_TRIM_THRESHOLD, _MOST_KEPT)
