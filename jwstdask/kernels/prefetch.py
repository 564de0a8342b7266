"""Memory that is read soon."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 64
"""Bytes of a line of the caches."""


@intrinsic
def prefetch(typingctx: Any, array: Any, start: Any, count: Any) -> Any:
    """Have elements from ``start`` on brought into the caches.

    They need not be elements of the array: nothing is read, and memory that is not there is left alone. A processor
    sees by itself what a long row is read on to, but not that many short ones, each on its own page, go on.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(array)(context, builder, values[0]).data
        byte, number = ir.IntType(8), ir.IntType(32)
        fetch = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte.as_pointer()], ir.FunctionType(ir.VoidType(), [byte.as_pointer(), *[number] * 3])
        )
        first = builder.bitcast(builder.gep(data, [values[1]]), byte.as_pointer())
        size = builder.mul(values[2], ir.Constant(values[2].type, context.get_abi_sizeof(data.type.pointee)))
        lines = builder.udiv(builder.add(size, ir.Constant(size.type, LINE - 1)), ir.Constant(size.type, LINE))
        with cgutils.for_range(builder, lines) as loop:
            place = builder.gep(first, [builder.mul(loop.index, ir.Constant(size.type, LINE))])
            builder.call(fetch, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64), generate
