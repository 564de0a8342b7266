"""Byte order and offsets of FITS pixels, undone and done while a tile is in cache."""

from __future__ import annotations

import numba
import numpy as np


_LINE = 64
"""Bytes of a line of the caches."""

_SHORT = 1024
"""Bytes of a run from which on the processor fetches ahead by itself.

The runs of a tile of a long time series are shorter, and each lies on another page: to load one element of each line
first, many at a time, takes a quarter of the time of waiting for them one after the other. What is loaded goes into a
result, so that it is not optimised away.
"""


@numba.njit(cache=True, nogil=True)
def _decode_uint16(raw, out):
    ngroups, ny, nx = raw.shape[1:]
    fetch = nx > 0 and 2 * nx < _SHORT
    seen = np.uint16(0)
    for integration in range(raw.shape[0]):
        if fetch:
            for y in range(ny):
                for group in range(ngroups):
                    seen ^= raw[integration, group, y, nx - 1]
                    for x in range(0, nx, _LINE // 2):
                        seen ^= raw[integration, group, y, x]
        for group in range(ngroups):
            for y in range(ny):
                for x in range(nx):
                    word = raw[integration, group, y, x]
                    out[integration, group, y, x] = np.float32(np.uint16((word << 8) | (word >> 8)) ^ np.uint16(0x8000))
    return seen


@numba.njit(cache=True, nogil=True)
def _swap32(raw, out, flip):
    ny, nx = raw.shape[1:]
    fetch = nx > 0 and 4 * nx < _SHORT
    seen = np.uint32(0)
    for plane in range(raw.shape[0]):
        if fetch:
            for y in range(ny):
                seen ^= raw[plane, y, nx - 1] ^ out[plane, y, nx - 1]
                for x in range(0, nx, _LINE // 4):
                    seen ^= raw[plane, y, x] ^ out[plane, y, x]
        for y in range(ny):
            for x in range(nx):
                word = raw[plane, y, x]
                out[plane, y, x] = (
                    (word << np.uint32(24))
                    | ((word & np.uint32(0xFF00)) << np.uint32(8))
                    | ((word >> np.uint32(8)) & np.uint32(0xFF00))
                    | (word >> np.uint32(24))
                ) ^ flip
    return seen


def decode_uint16(raw: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Raw counts as float32.

    Parameters
    ----------
    raw
        FITS words of an unsigned 16-bit image (big-endian, BZERO 32768), any integer dtype of 2 bytes,
        (integration, group, y, x) or fewer leading axes.
    out
        float32 array of the same shape.

    Returns
    -------
    out
        float32 [DN], exact.
    """
    if out is None:
        out = np.empty(raw.shape, np.float32)
    words = raw.view(np.uint16)
    lead = (1,) * (4 - raw.ndim)
    _decode_uint16(words.reshape(lead + raw.shape), out.reshape(lead + raw.shape))
    return out


def swap32(
    raw: np.ndarray, out: np.ndarray | None = None, dtype: np.dtype | type = np.float32, flip: int = 0
) -> np.ndarray:
    """Four-byte words with their bytes reversed: FITS order to native order or back.

    Parameters
    ----------
    raw
        (..., y, x), any dtype of 4 bytes.
    out
        Array of the same shape, any dtype of 4 bytes; allocated with ``dtype`` if None.
    flip
        Bits of the result that change: 0x80000000 from, or 0x80 to, unsigned words that FITS stores as signed ones.
    """
    bits = np.uint32(flip)
    if out is None:
        out = np.empty(raw.shape, dtype)
    planes = (-1, *raw.shape[-2:])
    source, target = raw.view(np.uint32), out.view(np.uint32)
    if raw.ndim <= 3:
        lead = (1,) * (3 - raw.ndim)
        _swap32(source.reshape(lead + raw.shape), target.reshape(lead + raw.shape), bits)
        return out
    for index in np.ndindex(*raw.shape[:-3]):
        _swap32(source[index].reshape(planes), target[index].reshape(planes), bits)
    return out


@numba.njit(cache=True, nogil=True)
def _moved_flags(words, low, high, out):
    for index in range(words.size):
        word = words[index]
        flags = np.uint32(0)
        # Most pixels have none.
        if word != 0:
            flags = low[word & np.uint32(0xFFFF)]
            if high.size:
                flags |= high[word >> np.uint32(16)]
        out[index] = flags


def moved_flags(words: np.ndarray, low: np.ndarray, high: np.ndarray | None) -> np.ndarray:
    """Flags with their bits moved.

    Parameters
    ----------
    words
        uint32, any shape.
    low, high
        uint32 (65536,): what the lower and the upper half of a word mean; None where the upper one means nothing.
        No flag means none.

    Returns
    -------
    numpy.ndarray
        uint32, the shape of ``words``.
    """
    words = np.ascontiguousarray(words)
    out = np.empty(words.shape, np.uint32)
    _moved_flags(words.ravel(), low, low[:0] if high is None else high, out.ravel())
    return out
