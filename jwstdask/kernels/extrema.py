"""Smaller and greater of two numbers in one instruction each."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _instruction(name: str, doc: str) -> Any:
    @intrinsic
    def extremum(typingctx: Any, a: Any, b: Any) -> Any:
        if not isinstance(a, types.Float) or a != b:
            return None

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kind = values[0].type
            function = builder.module.declare_intrinsic(name, [kind], ir.FunctionType(kind, [kind, kind]))
            return builder.call(function, values, fastmath=("nnan",))

        return a(a, b), generate

    extremum.__doc__ = doc
    return extremum


# Written as a condition, the store of what stands at its place already becomes one under a mask in a vectorised loop:
# without AVX-512 an exchange of two rows takes several times as long so.
smaller = _instruction("llvm.minnum", "The smaller of two floats of one type; any number where one of them is NaN.")
greater = _instruction("llvm.maxnum", "The greater of two floats of one type; any number where one of them is NaN.")
