"""Headers of many files, read side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jwstdask.engine.executor import Threads

_READERS = 16
"""Files read at a time: the waiting for network file systems and object stores adds up otherwise."""


def in_parallel(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Results of a function that reads headers, in the order of the items.

    Each reader takes its share of the items, since a task for each would take longer than a header of a local file.
    """
    count = min(_READERS, len(items))
    if count < 2:
        return [function(item) for item in items]

    def share(first: int) -> list[Any]:
        return [function(item) for item in items[first::count]]

    found: list[Any] = [None] * len(items)
    for first, results in enumerate(Threads(count, memory=0).map(share, range(count))):
        found[first::count] = results
    return found
