"""Kernels that count no users of arrays."""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.kernels.compiled import INLINE, UNCOUNTED

_UNCOUNTED = {**UNCOUNTED, "cache": False}


@numba.njit(**{**INLINE, "cache": False})
def _add(row, total):
    for x in range(row.size):
        total[x] += row[x]


@numba.njit(**_UNCOUNTED)
def _add_rows(array, total):
    for y in range(array.shape[0]):
        row = array[y]
        _add(row, total)


def test_no_user_is_counted() -> None:
    array, total = np.arange(12.0).reshape(3, 4), np.zeros(4)
    _add_rows(array, total)
    np.testing.assert_array_equal(total, array.sum(axis=0))
    (code,) = _add_rows.inspect_llvm().values()
    assert "NRT_incref" not in code
    assert "NRT_decref" not in code
