"""Headers of many files, read side by side."""

from __future__ import annotations

import threading

import pytest

from jwstdask.engine.readers import in_parallel


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 100])
def test_results_are_in_the_order_of_the_items(count):
    assert in_parallel(str, range(count)) == [str(item) for item in range(count)]


def test_one_waits_beside_the_others():
    """All must have begun before any goes on."""
    everyone = threading.Barrier(5, timeout=30)
    assert sorted(in_parallel(lambda _: everyone.wait(), range(5))) == list(range(5))


def test_an_error_is_that_of_the_function():
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda item: 1 / item, [3, 2, 1, 0, 1])
