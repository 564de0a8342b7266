"""Byte order and offsets of FITS pixels, undone and done while a tile is in cache."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from jwstdask.kernels.compiled import COMPILED, UNCOUNTED
from jwstdask.kernels.prefetch import LINE
from jwstdask.kernels.runs import flat

_SHORT = 1024
"""Bytes of a run from which on the processor fetches ahead by itself.

The runs of a tile of a long time series are shorter, and each lies on another page: to load one element of each line
first, many at a time, takes a quarter of the time of waiting for them one after the other. What is loaded goes into a
result, so that it is not optimised away.
"""


@numba.njit(**UNCOUNTED)
def swapped(word):
    """A word of 32 bits with its bytes reversed."""
    return np.uint32(
        (word << np.uint32(24))
        | ((word & np.uint32(0xFF00)) << np.uint32(8))
        | ((word >> np.uint32(8)) & np.uint32(0xFF00))
        | (word >> np.uint32(24))
    )


@numba.njit(**UNCOUNTED)
def stored_float(word):
    """The float32 that a word of a FITS file stands for."""
    return np.uint32(swapped(word)).view(np.float32)


@numba.njit(**UNCOUNTED)
def _decode_uint16(raw, strides, out):
    ny, nx = out.shape[2:]
    fetch = nx > 0 and 2 * nx < _SHORT
    seen = np.uint16(0)
    for integration in range(out.shape[0]):
        ramp = integration * strides[0]
        if fetch:
            for y in range(ny):
                for group in range(out.shape[1]):
                    first = ramp + group * strides[1] + y * strides[2]
                    seen ^= raw[first + nx - 1]
                    for x in range(first, first + nx, LINE // 2):
                        seen ^= raw[x]
        for group in range(out.shape[1]):
            for y in range(ny):
                first = ramp + group * strides[1] + y * strides[2]
                row = raw[first : first + nx]
                for x in range(nx):
                    word = row[x]
                    out[integration, group, y, x] = np.float32(np.uint16((word << 8) | (word >> 8)) ^ np.uint16(0x8000))
    return seen


@numba.njit(**UNCOUNTED)
def _swap32(raw, raw_strides, out, out_strides, shape, flip):
    planes, ny, nx = shape
    fetch = nx > 0 and 4 * nx < _SHORT
    seen = np.uint32(0)
    for plane in range(planes):
        if fetch:
            for y in range(ny):
                source, target = (
                    plane * raw_strides[0] + y * raw_strides[1],
                    plane * out_strides[0] + y * out_strides[1],
                )
                seen ^= raw[source + nx - 1] ^ out[target + nx - 1]
                for x in range(0, nx, LINE // 4):
                    seen ^= raw[source + x] ^ out[target + x]
        for y in range(ny):
            source, target = plane * raw_strides[0] + y * raw_strides[1], plane * out_strides[0] + y * out_strides[1]
            words, target_words = raw[source : source + nx], out[target : target + nx]
            for x in range(nx):
                target_words[x] = swapped(words[x]) ^ flip
    return seen


@intrinsic
def _put_line(typing_context, source, start, target, place):
    """Copy the words of a line to where a line begins in memory, past the caches."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line = ir.VectorType(ir.IntType(32), LINE // 4)
        ends = []
        for array, index in ((0, 1), (2, 3)):
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            ends.append(builder.bitcast(builder.gep(data, [arguments[index]]), line.as_pointer()))
        put = builder.store(builder.load(ends[0], align=4), ends[1], align=LINE)
        put.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(source, start, target, place), generate


@numba.njit(**UNCOUNTED)
def _stream32(raw, raw_strides, out, out_strides, shape, flip, turned):
    planes, ny, nx = shape
    for plane in range(planes):
        for y in range(ny):
            source, target = plane * raw_strides[0] + y * raw_strides[1], plane * out_strides[0] + y * out_strides[1]
            words = raw[source : source + nx]
            for x in range(nx):
                turned[x] = swapped(words[x]) ^ flip
            for x in range(0, nx, LINE // 4):
                _put_line(turned, x, out, target + x)  # type: ignore[call-arg]


def _of_lines(array: np.ndarray) -> bool:
    """Whether each row of an array is made up of whole lines of the caches."""
    lengths = (array.__array_interface__["data"][0], array.itemsize * array.shape[-1], *array.strides[:-1])
    return not any(length % LINE for length in lengths)


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
    lead = (None,) * (4 - raw.ndim)
    _decode_uint16(*flat(raw.view(np.uint16)[lead]), out[lead])
    return out


def swap32(
    raw: np.ndarray,
    out: np.ndarray | None = None,
    dtype: np.dtype | type = np.float32,
    flip: int = 0,
    stream: bool = False,
) -> np.ndarray:
    """Four-byte words with their bytes reversed: FITS order to native order or back.

    Parameters
    ----------
    raw
        (..., y, x), any dtype of 4 bytes.
    out
        Array of the same shape, any dtype of 4 bytes, its last axis contiguous; allocated with ``dtype`` if None.
    flip
        Bits of the result that change: 0x80000000 from, or 0x80 to, unsigned words that FITS stores as signed ones.
    stream
        Nobody reads ``out`` soon: where its rows are whole lines of the caches, they go to memory without being fetched
        from there first, which takes half the time.

    Raises
    ------
    ValueError
        If the elements of a row of ``out`` do not lie side by side.
    """
    bits = np.uint32(flip)
    if out is None:
        out = np.empty(raw.shape, dtype)
    if out.size and out.strides[-1] != out.itemsize:
        raise ValueError("the last axis of the array to write to is not contiguous")
    source, target = raw.view(np.uint32), out.view(np.uint32)
    past_caches = stream and _of_lines(out)
    if not past_caches and raw.flags.c_contiguous and out.flags.c_contiguous:
        # One run, whatever the shape.
        _swap32(source.reshape(-1), (0, 0), target.reshape(-1), (0, 0), (1, 1, raw.size), bits)
        return out
    lead = (None,) * (3 - raw.ndim)
    for index in np.ndindex(*raw.shape[:-3]):
        part = source[index][lead], target[index][lead]
        whole = *flat(part[0]), *flat(part[1]), part[0].shape, bits
        if past_caches:
            _stream32(*whole, np.empty(raw.shape[-1], np.uint32))
        else:
            _swap32(*whole)
    return out


def native_floats(stored: np.ndarray) -> np.ndarray:
    """A part of an image of floats, as it stands in a FITS file or otherwise, to be calculated with.

    Parameters
    ----------
    stored
        (..., y, x), floating point of any byte order.

    Returns
    -------
    numpy.ndarray
        float32, the shape of ``stored``, contiguous; a copy.
    """
    if stored.dtype == ">f4" and all(stride >= 0 for stride in stored.strides):
        return swap32(stored)
    return np.array(stored, np.float32, order="C")


def words_of(stored: np.ndarray) -> tuple[np.ndarray, tuple[int, ...], bool]:
    """A part of an image of floats, for kernels that read it as it stands in a FITS file.

    Parameters
    ----------
    stored
        (..., x), floating point of any byte order.

    Returns
    -------
    words, strides, turned
        Words of 32 bits from the first to the last element, with the strides of all axes but the last, in elements, as
        from `jwstdask.kernels.runs.flat`; whether their bytes are reversed.
    """
    if stored.dtype == ">f4" and all(stride >= 0 for stride in stored.strides):
        return *flat(stored.view(np.ndarray).view(np.uint32)), True
    return *flat(np.array(stored, np.float32, order="C").view(np.uint32)), False


_RUN = 64
"""Words of flags that are looked at together: most have none."""


@numba.njit(**UNCOUNTED)
def _moved(word, low, high):
    flags = low[word & np.uint32(0xFFFF)]
    return flags | high[word >> np.uint32(16)] if high.size else flags


@numba.njit(**UNCOUNTED)
def _add_words(memory, stride, sign, low, high, out):
    ny, nx = out.shape
    stored_sign = swapped(sign)
    for y in range(ny):
        for first in range(0, nx, _RUN):
            last = min(first + _RUN, nx)
            run = memory[y * stride + first : y * stride + last]
            target = out[y, first:last]
            union = np.uint32(0)
            for x in range(run.size):
                union = np.uint32(union | (run[x] ^ stored_sign))
            if union == 0:
                continue
            for x in range(run.size):
                word = np.uint32(swapped(run[x]) ^ sign)
                target[x] |= _moved(word, low, high) if low.size else word


@numba.njit(**UNCOUNTED)
def _add_bytes(memory, stride, low, out):
    ny, nx = out.shape
    for y in range(ny):
        for first in range(0, nx, _RUN):
            last = min(first + _RUN, nx)
            run = memory[y * stride + first : y * stride + last]
            target = out[y, first:last]
            union = np.uint8(0)
            for x in range(run.size):
                union = np.uint8(union | run[x])
            if union == 0:
                continue
            for x in range(run.size):
                target[x] |= low[run[x]] if low.size else np.uint32(run[x])


def standard_flags(
    raw: np.ndarray,
    sign: int = 0,
    tables: tuple[np.ndarray, np.ndarray | None] | None = None,
    out: np.ndarray | None = None,
) -> Any:
    """Flags of an image as it stands in a FITS file.

    Parameters
    ----------
    raw
        (..., y, x), bytes or big-endian words of 32 bits.
    sign
        Bit that undoes BZERO, of words.
    tables
        As in `moved_flags`; None if bits stay where they are.
    out
        Flags to which these are added, contiguous; none if None.

    Returns
    -------
    numpy.ndarray
        uint32, the shape of ``raw``.
    """
    low, high = tables or (_NO_TABLE, None)
    high = _NO_TABLE if high is None else high
    if out is None:
        out = np.zeros(raw.shape, np.uint32)
    words = raw.view(np.uint8 if raw.itemsize == 1 else np.uint32)
    for index in np.ndindex(*raw.shape[:-2]) if raw.ndim > 2 else [()]:
        memory, (stride,) = flat(words[index])
        if raw.itemsize == 1:
            _add_bytes(memory, stride, low, out[index])
        else:
            _add_words(memory, stride, np.uint32(sign), low, high, out[index])
    return out


_NO_TABLE = np.zeros(0, np.uint32)


@numba.njit(**COMPILED)
def _moved_flags(words, low, high, out):
    for first in range(0, words.size, _RUN):
        run, target = words[first : first + _RUN], out[first : first + _RUN]
        union = np.uint32(0)
        for index in range(run.size):
            union = np.uint32(union | run[index])
        if union == 0:
            target[:] = np.uint32(0)
            continue
        for index in range(run.size):
            target[index] = _moved(run[index], low, high)


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
