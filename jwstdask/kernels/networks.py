"""Sorting networks on values that lie side by side, held in registers, or some of them on the stack.

A network is a list of comparators, pairs of rows (low, high): what is smaller goes to the row ``low``. Which ones there
are does not depend on the values, so a few columns at a time can be loaded, sorted with two instructions a comparator,
and stored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

from jwstdask.kernels.compiled import UNCOUNTED
from jwstdask.kernels.extrema import extremum, greater, smaller

LARGEST = 16
"""Rows that are sorted in registers; more would not fit."""

_LARGEST_SPILLED = 40
"""Rows of float32 whose comparators are written out as well: the compiler keeps those that do not fit on the stack.

A third of the time that rows take which are exchanged in memory, two by two.
"""

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


def vector_at(builder: Any, kind: Any, data: Any, index: Any) -> Any:
    """Pointer to a vector of a ``kind``, the first value of which is ``data[index]``."""
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def by_size(builder: Any, size: Any, largest: int, emit: Callable[[int], None]) -> None:
    """Code for each number of rows, 2 to ``largest``, of which that for ``size`` is run, or none."""
    done = builder.append_basic_block("done")
    choice = builder.switch(size, done)
    for count in range(2, largest + 1):
        block = builder.append_basic_block(f"rows{count}")
        choice.add_case(ir.Constant(size.type, count), block)
        builder.position_at_end(block)
        emit(count)
        builder.branch(done)
    builder.position_at_end(done)


def compare(builder: Any, rows: list[Any]) -> None:
    """Sort vectors; comparators of which nobody needs the results are left out by the compiler."""
    for low, high in batcher(len(rows)):
        pair = rows[low], rows[high]
        rows[low], rows[high] = extremum(builder, "minnum", pair), extremum(builder, "maxnum", pair)


@register_jitable
def _largest(itemsize: int) -> int:
    """Rows of values of so many bytes whose comparators are written out."""
    return _LARGEST_SPILLED if itemsize == 4 else LARGEST


@intrinsic
def _sort(typingctx: Any, array: Any, start: Any, distance: Any, size: Any) -> Any:
    """Sort columns, ``_VECTOR`` bytes of them, of an array in one dimension.

    They have ``size`` rows, the first at ``start``, ``distance`` apart. Of other than 2 to ``LARGEST``, of float32
    ``_LARGEST_SPILLED``, nothing is done.
    """
    if not isinstance(array, types.Array) or array.ndim != 1 or not isinstance(array.dtype, types.Float):
        return None

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(array)(context, builder, values[0]).data
        itemsize = array.dtype.bitwidth // 8
        kind = ir.VectorType(context.get_value_type(array.dtype), _VECTOR // itemsize)

        def emit(count: int) -> None:
            offsets = [builder.mul(values[2], ir.Constant(values[2].type, row)) for row in range(count)]
            places = [vector_at(builder, kind, data, builder.add(values[1], offset)) for offset in offsets]
            rows = [builder.load(place, align=itemsize) for place in places]
            compare(builder, rows)
            for row, place in zip(rows, places, strict=True):
                builder.store(row, place, align=itemsize)

        by_size(builder, values[3], _largest(itemsize), emit)
        return context.get_dummy_value()

    return types.none(array, start, distance, size), generate


@numba.njit(**UNCOUNTED)
def _exchange(low, high):
    for index in range(low.size):
        first = low[index]
        second = high[index]
        low[index] = smaller(first, second)
        high[index] = greater(first, second)


@numba.njit(**UNCOUNTED)
def exchange_rows(rows, network, width):
    """Run a network, (n, 2), on the first ``width`` columns of ``rows`` (row, column)."""
    for n in range(network.shape[0]):
        _exchange(rows[network[n, 0], :width], rows[network[n, 1], :width])


@numba.njit(**UNCOUNTED)
def sort_rows(rows, size, width, network):
    """Sort the first ``width`` columns of the first ``size`` rows of ``rows`` (row, column) in place.

    ``network`` is :func:`sorting_network` of the size. The columns must be some whole vectors of 32 bytes; a column
    with NaN may hold anything afterwards.
    """
    if size > _largest(rows.itemsize):
        exchange_rows(rows, network, width)
        return
    flat = rows.reshape(-1)
    for start in range(0, width, _VECTOR // rows.itemsize):
        _sort(flat, start, rows.shape[1], size)


@numba.njit(**UNCOUNTED)
def sort_columns(keys, count, lanes):
    """Sort ``lanes`` columns of ``count`` values in place, of which value k of column l is ``keys[k * lanes + l]``.

    A column with NaN may hold anything afterwards.
    """
    width = _VECTOR // keys.itemsize
    if count <= _largest(keys.itemsize) and lanes >= width:
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
