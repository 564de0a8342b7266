"""Arrays whose users are not counted."""

import numba
import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

from jwstdask.kernels.borrowed import borrowed, held


@numba.njit
def _through_parts(array, rounds):
    own = np.zeros(array.shape[1])
    total = borrowed(own)
    rows = borrowed(array)
    for _ in range(rounds):
        for row in range(array.shape[0]):
            part = rows[row]
            for column in range(part.size):
                total[column] += part[column]
    result = total.copy()
    held(own)
    return result


@numba.njit
def _write(array):
    rows = borrowed(array)
    for row in range(rows.shape[0]):
        rows[row][:] = row


def test_parts_are_those_of_the_array():
    array = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(_through_parts(array, 5), 5 * array.sum(0))
    _write(array)
    np.testing.assert_array_equal(array, np.repeat([[0.0], [1.0], [2.0]], 4, axis=1))


@pytest.fixture
def counted():
    """Blocks of memory of compiled functions are counted."""
    _nrt_python.memsys_enable_stats()
    yield
    _nrt_python.memsys_disable_stats()


def test_memory_is_held_and_given_back(counted):
    """What a kernel makes itself is there until ``held``, and no longer; that of the caller stays."""
    array = np.ones((50, 2_000))
    before = rtsys.get_allocation_stats()
    for _ in range(20):
        np.testing.assert_array_equal(_through_parts(array, 1), 50)
    after = rtsys.get_allocation_stats()
    assert after.alloc - before.alloc == after.free - before.free > 0
