"""Where tasks run: in this thread, on dask's threads, or on a dask cluster. One interface for all three."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

Function = Callable[[Any], Any]
Notify = Callable[[int, Any], None]
After = Mapping[int, int]
"""Index of an item to the index, a smaller one, of the item that must be done before it."""


class Executor(Protocol):
    """Maps a function over items; results come back in the order of the items."""

    workers: int

    def map(
        self, function: Function, items: Iterable[Any], notify: Notify | None = None, after: After | None = None
    ) -> list[Any]:
        """Results of ``function`` on each item; ``notify(index, result)`` is called as each one arrives.

        The first exception ends the map and is raised.
        """

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call ``function``, which may be called again, on every machine; what fails elsewhere is not told."""

    def close(self) -> None:
        """Release what the executor holds."""


class Serial:
    """Tasks one after the other in the calling thread."""

    workers = 1

    def map(
        self, function: Function, items: Iterable[Any], notify: Notify | None = None, after: After | None = None
    ) -> list[Any]:
        results = []
        for index, item in enumerate(items):
            results.append(function(item))
            if notify is not None:
                notify(index, results[-1])
        return results

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(*arguments)

    def close(self) -> None:
        pass


class Threads:
    """Tasks on dask's threaded scheduler in this process: no start-up, shared memory."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or available_cores()

    def map(
        self, function: Function, items: Iterable[Any], notify: Notify | None = None, after: After | None = None
    ) -> list[Any]:
        items = list(items)
        if self.workers == 1 or len(items) == 1:
            return Serial().map(function, items, notify)
        from dask.threaded import get

        def call(index: int, *_: Any) -> Any:
            result = function(items[index])
            if notify is not None:
                notify(index, result)
            return result

        # dask takes the last of equal tasks first.
        keys = [("task", len(items) - index) for index in range(len(items))]
        graph: dict[Any, Any] = {key: (call, index) for index, key in enumerate(keys)}
        for index, before in (after or {}).items():
            graph[keys[index]] = (call, index, keys[before])
        return list(get(graph, keys, num_workers=self.workers))

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(*arguments)

    def close(self) -> None:
        pass


class Cluster:
    """Tasks on a dask.distributed cluster, submitted with a sliding window so that the scheduler stays small.

    Parameters
    ----------
    client
        A connected ``distributed.Client``.
    owner
        A cluster to close with the executor, if this program started it.
    window
        Tasks in flight for every worker thread.
    """

    def __init__(self, client: Any, owner: Any = None, window: int = 4) -> None:
        self.client, self.owner, self.window = client, owner, window
        self._calls: dict[Any, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    @property
    def workers(self) -> int:
        return max(sum(self.client.nthreads().values()), 1)

    def map(
        self, function: Function, items: Iterable[Any], notify: Notify | None = None, after: After | None = None
    ) -> list[Any]:
        from distributed import as_completed

        after = after or {}
        awaited = set(after.values())
        unfinished: dict[int, Any] = {}

        pending = iter(enumerate(items))
        results: dict[int, Any] = {}
        index_of: dict[Any, int] = {}

        def submit(index: int, item: Any) -> Any:
            # Not pure: the same plan run again must run again.
            before = unfinished.get(after.get(index, -1))
            if before is None:
                future = self.client.submit(function, item, pure=False, retries=2)
            else:
                future = self.client.submit(_call_after, before, function, item, pure=False, retries=2)
            index_of[future] = index
            if index in awaited:
                unfinished[index] = future
            return future

        running = as_completed(submit(*pair) for pair in itertools.islice(pending, self.window * self.workers))
        try:
            for future in running:
                index = index_of.pop(future)
                unfinished.pop(index, None)
                results[index] = future.result()
                if notify is not None:
                    notify(index, results[index])
                following = next(pending, None)
                if following is not None:
                    running.add(submit(*following))
        except BaseException:
            self.client.cancel(list(index_of), force=True)
            raise
        return [results[index] for index in range(len(results))]

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(*arguments)
        if self.owner is None:
            with contextlib.suppress(Exception):
                self.client.run(function, *arguments, on_error="ignore")
        else:
            self._calls[function, repr(arguments)] = function, arguments

    def close(self) -> None:
        self.client.close()
        if self.owner is not None:
            self.owner.close()
            # Workers that were busy have been killed: what is done everywhere is due once more.
            for function, arguments in self._calls.values():
                function(*arguments)


def _call_after(_: Any, function: Function, item: Any) -> Any:
    return function(item)


def available_cores() -> int:
    """Cores this process may use: affinity, cgroup and ``SLURM_CPUS_PER_TASK`` honoured."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    allotted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if allotted.isdigit():
        cores = min(cores, int(allotted))
    try:
        with open("/sys/fs/cgroup/cpu.max") as quota:
            limit, period = quota.read().split()
        if limit != "max":
            cores = min(cores, max(int(limit) // int(period), 1))
    except (OSError, ValueError):
        pass
    return max(cores, 1)
