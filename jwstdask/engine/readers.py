"""Headers of many files, read side by side where files make wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from jwstdask.engine.executor import Threads

_READERS = 16
"""Files read at a time, at most: the waiting for network file systems and object stores adds up otherwise."""

_TRIED = 4
"""Files read first, that tell how much of the time is waiting."""

_RESOLUTION = 1e-4
"""Seconds that clocks of CPU time tell apart."""


def in_parallel(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Results of a function that reads headers, in the order of the items.

    As many readers as it takes until one always works while the others wait: one for files at hand, whose headers take
    longer to parse than to read, so that readers only got in each other's way. Each takes its share of the items, since
    a task for each would take longer than a header.
    """
    found: list[Any] = []
    waits: list[float] = []
    for item in items[:_TRIED]:
        wall, cpu = time.perf_counter(), time.thread_time()
        found.append(function(item))
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
        waits.append(wall / max(cpu, _RESOLUTION))
    rest = items[_TRIED:]
    count = min(_READERS, len(rest), round(median(waits))) if rest else 0
    if count < 2:
        return found + [function(item) for item in rest]

    def share(first: int) -> list[Any]:
        return [function(item) for item in rest[first::count]]

    others: list[Any] = [None] * len(rest)
    for first, results in enumerate(Threads(count, memory=0).map(share, range(count))):
        others[first::count] = results
    return found + others
