"""Sorting networks on values that lie side by side, held in registers.

A network is a list of comparators, pairs of rows (low, high): what is smaller goes to the row ``low``. Which ones there
are does not depend on the values, so a few columns at a time can be loaded, sorted with two instructions a comparator,
and stored.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from jwstdask.kernels.extrema import extremum, greater, smaller

LARGEST = 16
"""Rows that are sorted in registers; more would not fit."""

_VECTOR = 32  # bytes of a vector: those of AVX2, and what compilers prefer where there are longer ones


def batcher(size: int) -> list[tuple[int, int]]:
    """Comparators of Batcher's odd-even merge sort (Knuth, TAOCP 3, algorithm 5.2.2M)."""
    comparators = []
    top = 1 << max(size - 1, 1).bit_length() - 1
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            comparators.extend((i, i + d) for i in range(size - d) if i & p == r)
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return comparators


@lru_cache(maxsize=16)
def sorting_network(size: int) -> np.ndarray:
    """Comparators, (n, 2), that sort ``size`` values."""
    return np.array(batcher(size), dtype=np.int64).reshape(-1, 2)


@lru_cache(maxsize=16)
def median_network(size: int) -> np.ndarray:
    """Comparators, (n, 2), that bring the middle one or two of ``size`` values to their places."""
    needed = {(size - 1) // 2, size // 2}
    kept = []
    for low, high in reversed(batcher(size)):
        if low in needed or high in needed:
            needed |= {low, high}
            kept.append((low, high))
    return np.array(kept[::-1], dtype=np.int64).reshape(-1, 2)


def _in_registers(wanted: Any, doc: str) -> Any:
    """An intrinsic that sorts ``_VECTOR`` bytes of columns; only the rows ``wanted(size)`` are stored.

    Its arguments are an array in one dimension, the index of the first value, the distance of rows, and their number,
    2 to ``LARGEST``; with any other number it does nothing.
    """

    @intrinsic
    def arrange(typingctx: Any, array: Any, start: Any, distance: Any, size: Any) -> Any:
        if not isinstance(array, types.Array) or array.ndim != 1 or not isinstance(array.dtype, types.Float):
            return None

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kind = context.get_value_type(array.dtype)
            bytes_of_one = array.dtype.bitwidth // 8
            vector = ir.VectorType(kind, _VECTOR // bytes_of_one)
            data = context.make_array(array)(context, builder, values[0]).data
            first = builder.gep(data, [values[1]])
            done = builder.append_basic_block("arranged")
            choice = builder.switch(values[3], done)
            for count in range(2, LARGEST + 1):
                block = builder.append_basic_block(f"rows{count}")
                choice.add_case(ir.Constant(values[3].type, count), block)
                builder.position_at_end(block)
                places, rows = [], []
                for row in range(count):
                    offset = builder.mul(values[2], ir.Constant(values[2].type, row))
                    place = builder.bitcast(builder.gep(first, [offset]), vector.as_pointer())
                    places.append(place)
                    rows.append(builder.load(place, align=bytes_of_one))
                for low, high in batcher(count):
                    pair = rows[low], rows[high]
                    rows[low], rows[high] = extremum(builder, "minnum", pair), extremum(builder, "maxnum", pair)
                for row in wanted(count):
                    builder.store(rows[row], places[row], align=bytes_of_one)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.none(array, start, distance, size), generate

    arrange.__doc__ = doc
    return arrange


_sort = _in_registers(range, "Sort columns.")
_bring_middle = _in_registers(
    lambda size: {(size - 1) // 2, size // 2}, "Bring the middle one or two of each column to their places."
)


@numba.njit(cache=True, nogil=True)
def _exchange(low, high):
    for index in range(low.size):
        first = low[index]
        second = high[index]
        low[index] = smaller(first, second)
        high[index] = greater(first, second)


@numba.njit(cache=True, nogil=True)
def _exchange_rows(rows, network, width):
    for n in range(network.shape[0]):
        _exchange(rows[network[n, 0], :width], rows[network[n, 1], :width])


@numba.njit(cache=True, nogil=True)
def sort_rows(rows, size, width, network):
    """Sort the first ``width`` columns of the first ``size`` rows of ``rows`` (row, column) in place.

    ``network`` is :func:`sorting_network` of the size. The columns must be some whole vectors of 32 bytes; a column
    with NaN may hold anything afterwards.
    """
    if size > LARGEST:
        _exchange_rows(rows, network, width)
        return
    flat = rows.reshape(-1)
    for start in range(0, width, _VECTOR // rows.itemsize):
        _sort(flat, start, rows.shape[1], size)


@numba.njit(cache=True, nogil=True)
def bring_middle(rows, size, network):
    """Bring the middle one or two of the first ``size`` values of each column to their rows, as :func:`sort_rows`.

    ``network`` is :func:`median_network` of the size.
    """
    if size > LARGEST:
        _exchange_rows(rows, network, rows.shape[1])
        return
    flat = rows.reshape(-1)
    for start in range(0, rows.shape[1], _VECTOR // rows.itemsize):
        _bring_middle(flat, start, rows.shape[1], size)


@numba.njit(cache=True, nogil=True)
def sort_columns(keys, count, lanes):
    """Sort ``lanes`` columns of ``count`` values in place, of which value k of column l is ``keys[k * lanes + l]``.

    A column with NaN may hold anything afterwards.
    """
    width = _VECTOR // keys.itemsize
    if count <= LARGEST and lanes >= width:
        for start in range(0, lanes, width):
            # The last columns may be sorted already.
            _sort(keys, min(start, lanes - width), lanes, count)
        return
    # Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2 M): the comparators do not depend on
    # the data, and a run of them is one vectorised loop over neighbouring rows of all lanes.
    top = 1
    while 2 * top < count:
        top *= 2
    step = top if count > 1 else 0
    while step > 0:
        reach = top
        offset = 0
        distance = step
        while distance > 0:
            for start in range(offset, count - distance, 2 * step):
                stop = min(start + step, count - distance)
                _exchange(
                    keys[start * lanes : stop * lanes], keys[(start + distance) * lanes : (stop + distance) * lanes]
                )
            distance = reach - step
            reach //= 2
            offset = step
        step //= 2
