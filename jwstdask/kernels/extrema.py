"""Smaller and greater of two numbers in one instruction each."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def instruction(builder: Any, name: str, values: Any, fastmath: tuple[str, ...] = ()) -> Any:
    """LLVM's instruction ``name`` (such as ``minnum``) for values of one type, floats or vectors of them."""
    kind = values[0].type
    one = kind.element if isinstance(kind, ir.VectorType) else kind
    full = f"llvm.{name}.{f'v{kind.count}' if one is not kind else ''}{one.intrinsic_name}"
    function = builder.module.globals.get(full)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(kind, [kind] * len(values)), full)
    return builder.call(function, values, fastmath=fastmath)


def repeated(builder: Any, value: Any, count: int) -> Any:
    """A vector all parts of which are one value."""
    one = builder.insert_element(ir.Constant(ir.VectorType(value.type, count), ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count))


def extremum(builder: Any, name: str, values: Any) -> Any:
    """The smaller (``minnum``) or greater (``maxnum``) of two values that are numbers."""
    return instruction(builder, name, values, ("nnan",))


def _instruction(name: str, doc: str) -> Any:
    @intrinsic
    def one(typingctx: Any, a: Any, b: Any) -> Any:
        if not isinstance(a, types.Float) or a != b:
            return None

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return extremum(builder, name, values)

        return a(a, b), generate

    one.__doc__ = doc
    return one


# Written as a condition, the store of what stands at its place already becomes one under a mask in a vectorised loop:
# without AVX-512 an exchange of two rows takes several times as long so.
smaller = _instruction("minnum", "The smaller of two floats of one type; any number where one of them is NaN.")
greater = _instruction("maxnum", "The greater of two floats of one type; any number where one of them is NaN.")
