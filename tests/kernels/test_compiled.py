"""Kernels that count no users of arrays."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

from jwstdask import kernels
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


def _dispatchers() -> Iterator[tuple[str, Dispatcher]]:
    for found in pkgutil.iter_modules(kernels.__path__):
        module = importlib.import_module(f"{kernels.__name__}.{found.name}")
        for name, value in vars(module).items():
            if isinstance(value, Dispatcher) and value.py_func.__module__ == module.__name__:
                yield f"{found.name}.{name}", value


def _counts(function: Dispatcher) -> bool:
    return function.targetoptions.get("_nrt", True)


def test_uncounted_kernels_call_only_their_like() -> None:
    """An array that another kernel makes for them would never be given back."""
    uncounted = {name: function for name, function in _dispatchers() if not _counts(function)}
    assert len(uncounted) > 100
    wrong = [
        f"{name} calls {called}"
        for name, function in uncounted.items()
        for called in function.py_func.__code__.co_names
        if isinstance(callee := function.py_func.__globals__.get(called), Dispatcher) and _counts(callee)
    ]
    assert not wrong
