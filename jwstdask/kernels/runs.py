"""Views of arrays as runs of elements that lie side by side.

What is compiled for a part of a larger array, whose last axis could have any stride, handles one element at a time.
Given the memory of the part as a contiguous array of one dimension and the strides of the other axes, it handles as
many as the processor can.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided


def flat(view: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """The memory of a view from its first to its last element.

    Parameters
    ----------
    view
        (..., x), with strides that are not negative; it is copied if its last axis is not contiguous.

    Returns
    -------
    memory
        Contiguous, one dimension, of the same dtype: element (..., i, j, x) of the view is at
        ``... + i * strides[-2] + j * strides[-1] + x``.
    strides
        Of all axes but the last, in elements.
    """
    itemsize = view.itemsize
    if view.flags.c_contiguous:
        return view.reshape(-1), tuple(stride // itemsize for stride in view.strides[:-1])
    if view.size == 0 or view.strides[-1] != itemsize or any(stride % itemsize for stride in view.strides):
        view = np.ascontiguousarray(view)
    strides = tuple(stride // itemsize for stride in view.strides[:-1])
    if view.size == 0:
        return view.reshape(-1), strides
    span = view.shape[-1] + sum((size - 1) * stride for size, stride in zip(view.shape[:-1], strides, strict=True))
    return as_strided(view.view(np.ndarray), (span,), (itemsize,)), strides


def to_change(array: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """What holds the values of an array and is changed in place.

    A compiler knows that a value goes to where it came from, but not whether ``out`` is ``array`` or a shifted part of
    it: through a line of its own, which tells it, memory is gone through at half the speed.

    Parameters
    ----------
    array
        Any.
    out
        Of the same shape, may be ``array``; a copy is made if None.
    """
    if out is None:
        return array.copy()
    if out is not array:
        out[...] = array
    return out
