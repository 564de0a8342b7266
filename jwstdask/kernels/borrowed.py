"""Arrays whose users are not counted."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic


@intrinsic
def borrowed(typingctx: Any, array: Any) -> Any:
    """An array that nobody counts the users of, in the memory of one that is held for as long.

    numba counts each part that is taken of an array, and each that is done with, by an atomic instruction: a tenth of
    the time of a fit whose lines are short. Arguments of a kernel are held by its caller; what it makes itself must be
    given to :func:`held` after the last use of the borrowed array.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        view = context.make_array(array)(context, builder, values[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), generate


@intrinsic
def held(typingctx: Any, array: Any) -> Any:
    """Nothing is done, but the memory of an array is not given back before."""
    return types.none(array), lambda context, builder, signature, values: context.get_dummy_value()
