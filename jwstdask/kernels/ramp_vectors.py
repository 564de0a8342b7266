"""Inner loops of ramps that would write what they add up to memory after each group, with it held in registers.

Both work on the memory of a ramp, float32 in one dimension, in which groups are ``distance`` values apart and pixels
lie side by side.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from jwstdask.kernels.extrema import instruction, repeated
from jwstdask.kernels.networks import LARGEST, by_size, compare, vector_at

LONGEST = LARGEST + 1
"""Groups of the longest ramp whose median difference is taken here."""

MEDIANS = 4
"""Pixels of which :func:`median_difference` is taken at once."""

SUMS = 8
"""Pixels of which :func:`sum_differences` are taken at once."""

LANES = 64
"""Pixels that are fitted together."""

_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()


def _memory(context: Any, builder: Any, array: Any, value: Any) -> Any:
    return context.make_array(array)(context, builder, value).data


@intrinsic
def copy_line(typingctx: Any, source: Any, target: Any) -> Any:
    """Copy the first ``LANES`` values of an array in one dimension to another.

    A loop would do it value by value, since a compiler cannot know that the two do not overlap.
    """
    if source.dtype != target.dtype:
        return None

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.VectorType(context.get_value_type(source.dtype), LANES)
        zero = ir.Constant(ir.IntType(64), 0)
        here, there = (
            vector_at(builder, kind, _memory(context, builder, array, value), zero)
            for array, value in zip((source, target), values, strict=True)
        )
        builder.store(builder.load(here, align=1), there, align=1)
        return context.get_dummy_value()

    return types.none(source, target), generate


@intrinsic
def median_difference(
    typingctx: Any, ramp: Any, start: Any, distance: Any, differences: Any, divisor: Any, reciprocal: Any, medians: Any,
    place: Any,
) -> Any:  # fmt: skip
    """Median of the differences of neighbouring groups, each divided by ``divisor`` before, of ``MEDIANS`` pixels.

    Those at ``start`` and beside it, with 2 to ``LONGEST`` - 1 ``differences``. It is put into ``medians`` (float64) at
    ``place``. Quotients are rounded as those of :func:`jwstdask.kernels.ramp_lines.quotient`.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = _memory(context, builder, ramp, values[0])
        single, double = ir.VectorType(_FLOAT, MEDIANS), ir.VectorType(_DOUBLE, MEDIANS)
        of, by = (repeated(builder, value, MEDIANS) for value in (values[4], values[5]))

        def emit(count: int) -> None:
            steps = []
            before = None
            for group in range(count + 1):
                offset = builder.mul(values[2], ir.Constant(values[2].type, group))
                value = builder.load(vector_at(builder, single, data, builder.add(values[1], offset)), align=4)
                wide = builder.fpext(value, double)
                guess = builder.fmul(wide, by)
                rest = instruction(builder, "fma", (builder.fneg(guess), of, wide))
                rate = instruction(builder, "fma", (rest, by, guess))
                if before is not None:
                    steps.append(builder.fsub(rate, before))
                before = rate
            compare(builder, steps)
            both = builder.fadd(steps[(count - 1) // 2], steps[count // 2])
            half = repeated(builder, ir.Constant(_DOUBLE, 0.5), MEDIANS)
            into = vector_at(builder, double, _memory(context, builder, medians, values[6]), values[7])
            builder.store(builder.fmul(both, half), into, align=8)

        by_size(builder, values[3], LARGEST, emit)
        return context.get_dummy_value()

    arguments = ramp, start, distance, differences, types.float64, types.float64, medians, place
    return types.none(*arguments), generate


@intrinsic
def sum_differences(
    typingctx: Any, ramp: Any, low: Any, high: Any, distance: Any, pairs: Any, coefficients: Any, first: Any,
    kinds: Any, kind: Any, sums: Any, place: Any,
) -> Any:  # fmt: skip
    """Sum of differences of groups, each times a coefficient, of ``SUMS`` pixels.

    Of the group at ``high`` minus that at ``low``, then of the group before the one minus the group after the other,
    and so on; ``coefficients`` (float64) from ``first`` on. Put into ``sums`` (float64) at ``place`` for those pixels
    only whose ``kinds`` (float64) are ``kind``.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = _memory(context, builder, ramp, values[0])
        numbers = _memory(context, builder, coefficients, values[5])
        single, double = ir.VectorType(_FLOAT, SUMS), ir.VectorType(_DOUBLE, SUMS)
        total = cgutils.alloca_once_value(builder, ir.Constant(double, None))
        with cgutils.for_range(builder, values[4]) as loop:
            offset = builder.mul(values[3], loop.index)
            places = builder.sub(values[2], offset), builder.add(values[1], offset)
            above, below = (
                builder.fpext(builder.load(vector_at(builder, single, data, at), align=4), double) for at in places
            )
            number = builder.load(builder.gep(numbers, [builder.add(values[6], loop.index)]))
            part = instruction(
                builder, "fma", (builder.fsub(above, below), repeated(builder, number, SUMS), builder.load(total))
            )
            builder.store(part, total)
        of, into = (
            vector_at(builder, double, _memory(context, builder, array, values[at]), values[10])
            for array, at in ((kinds, 7), (sums, 9))
        )
        chosen = builder.fcmp_ordered("==", builder.load(of, align=8), repeated(builder, values[8], SUMS))
        builder.store(builder.select(chosen, builder.load(total), builder.load(into, align=8)), into, align=8)
        return context.get_dummy_value()

    arguments = ramp, low, high, distance, pairs, coefficients, first, kinds, types.float64, sums, place
    return types.none(*arguments), generate
