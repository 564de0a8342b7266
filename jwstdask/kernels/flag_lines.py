"""Flags a line of the caches at a time: 64 of a byte, 16 of four.

What the compiler makes of loops that do the same takes six times as long: it does not know of the instruction that
counts bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from jwstdask.kernels.extrema import repeated
from jwstdask.kernels.prefetch import LINE


def _load(context: Any, builder: Any, kind: Any, array: Any, start: Any) -> Any:
    """The line that begins at an element, as a vector of flags, and how many these are."""
    data = context.make_array(kind)(context, builder, array).data
    flag = data.type.pointee
    vector = ir.VectorType(flag, LINE * 8 // flag.width)
    place = builder.bitcast(builder.gep(data, [start]), vector.as_pointer())
    return builder.load(place, align=flag.width // 8), vector


def _number_of(builder: Any, chosen: Any, count: int) -> Any:
    """How many of a vector of booleans are true."""
    bits = ir.IntType(count)
    return builder.zext(builder.ctpop(builder.bitcast(chosen, bits)), ir.IntType(64))


@intrinsic
def any_flag(typingctx: Any, flags: Any, start: Any) -> Any:
    """Whether any flag of a line is set."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line, _ = _load(context, builder, flags, values[0], values[1])
        whole = ir.IntType(8 * LINE)
        return builder.icmp_unsigned("!=", builder.bitcast(line, whole), whole(0))

    return types.boolean(flags, start), generate


@intrinsic
def union_of(typingctx: Any, flags: Any, start: Any) -> Any:
    """All flags of a line together."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line, vector = _load(context, builder, flags, values[0], values[1])
        name = f"llvm.vector.reduce.or.v{vector.count}{vector.element.intrinsic_name}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector.element, [vector]), name)
        return builder.call(function, [line])

    return flags.dtype(flags, start), generate


@intrinsic
def count_any(typingctx: Any, flags: Any, start: Any) -> Any:
    """How many elements of a line have a flag."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line, vector = _load(context, builder, flags, values[0], values[1])
        return _number_of(builder, builder.icmp_unsigned("!=", line, ir.Constant(vector, None)), vector.count)

    return types.int64(flags, start), generate


@intrinsic
def count_flag(typingctx: Any, flags: Any, start: Any, bit: Any) -> Any:
    """How many elements of a line have the flag whose place among the bits is ``bit``."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        line, vector = _load(context, builder, flags, values[0], values[1])
        shift = builder.trunc(values[2], vector.element)
        mask = repeated(builder, builder.shl(vector.element(1), shift), vector.count)
        found = builder.icmp_unsigned("!=", builder.and_(line, mask), ir.Constant(vector, None))
        return _number_of(builder, found, vector.count)

    return types.int64(flags, start, types.int64), generate


@intrinsic
def lowest(typingctx: Any, flags: Any) -> Any:
    """Place of the lowest bit that is set; there must be one."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.zext(builder.cttz(values[0], ir.IntType(1)(1)), ir.IntType(64))

    return types.int64(flags), generate
