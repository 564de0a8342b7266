"""Headers of many files, read side by side where files make wait."""

from __future__ import annotations

import threading
import time

import pytest

from jwstdask.engine.readers import _READERS, _TRIED, in_parallel


def slow(item):
    time.sleep(0.005)
    return str(item)


@pytest.mark.parametrize("function", [str, slow])
@pytest.mark.parametrize("count", [0, 1, _TRIED, _TRIED + 1, _TRIED + _READERS - 1, _TRIED + _READERS, 100])
def test_results_are_in_the_order_of_the_items(count, function):
    assert in_parallel(function, range(count)) == [str(item) for item in range(count)]


def test_files_that_make_wait_are_read_side_by_side():
    """All must have begun before any goes on."""
    everyone = threading.Barrier(_READERS, timeout=30)

    def wait(item):
        if item < _TRIED:
            time.sleep(0.02)
        else:
            everyone.wait()
        return item

    assert in_parallel(wait, range(_TRIED + _READERS)) == list(range(_TRIED + _READERS))


def test_files_at_hand_are_read_one_by_one():
    assert set(in_parallel(lambda _: threading.get_ident(), range(100))) == {threading.get_ident()}


@pytest.mark.parametrize("bad", [0, _TRIED + 1])
def test_an_error_is_that_of_the_function(bad):
    def fail(item):
        return slow(1 / (item - bad))

    with pytest.raises(ZeroDivisionError):
        in_parallel(fail, range(_TRIED + 3))
