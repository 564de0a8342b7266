"""Memory of views as one run."""

from __future__ import annotations

import numpy as np
import pytest

from jwstdask.kernels.decode import swap32
from jwstdask.kernels.runs import flat, to_change


@pytest.mark.parametrize("seed", range(20))
def test_every_element_is_where_the_strides_say(seed):
    """Random parts of random arrays, also with steps and with their axes exchanged."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 7, rng.integers(1, 5)))
    array = rng.integers(0, 1000, shape).astype(rng.choice(["u1", "u2", "f4", ">f4"]))
    if seed % 3 == 0:
        array = array.T
    edges = [np.sort(rng.integers(0, size + 1, 2)) for size in array.shape]
    view = array[tuple(slice(int(low), int(high), int(rng.integers(1, 3))) for low, high in edges)]
    memory, strides = flat(view)
    assert memory.flags.c_contiguous and memory.dtype == view.dtype and len(strides) == view.ndim - 1
    for index in np.ndindex(view.shape):
        place = sum(i * stride for i, stride in zip(index[:-1], strides, strict=True)) + index[-1]
        assert memory[place] == view[index]
    assert memory.size == 0 or view.strides[-1] != view.itemsize or np.shares_memory(memory, view)


def test_rows_that_are_not_contiguous_are_not_written_to():
    """What would go into a copy is refused."""
    out = np.zeros((4, 6), np.float32)
    with pytest.raises(ValueError, match="not contiguous"):
        swap32(np.ones((4, 3), ">f4"), out[:, ::2])


def test_what_is_changed_in_place_is_a_copy_or_what_was_given():
    array = np.arange(6.0).reshape(2, 3)
    copy = to_change(array, None)
    assert not np.shares_memory(copy, array)
    assert to_change(array, array) is array
    out = np.zeros((2, 3))
    assert to_change(array, out) is out
    for changed in (copy, out):
        np.testing.assert_array_equal(changed, array)
