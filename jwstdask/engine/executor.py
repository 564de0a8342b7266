"""Where tasks run: in this thread, on dask's threads, or on a dask cluster. One interface for all three.

What goes wrong has three rules. A *transient* error (network, busy server, stale file handle) is tried again after a
pause, by the task itself (`jwstdask.io.transient`). A *lost worker* or *too little memory* costs time only: the task is
done again, with more memory where memory is declared (`jwstdask.engine.resources`). Anything else is the same at the
next try, and is not tried again.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from jwstdask.core.errors import ClusterError, JwstdaskError
from jwstdask.engine.events import hear, unsent
from jwstdask.engine.limits import available_cores, available_memory
from jwstdask.engine.resources import (
    MEMORY,
    MULTIPLIER,
    Budget,
    Needs,
    for_tasks,
    lacked_memory,
    too_large,
)
from jwstdask.io.transient import patiently

T = TypeVar("T")

Function = Callable[[Any], Any]
Notify = Callable[[int, Any], None]
After = Mapping[int, int]
"""Index of an item to the index, a smaller one, of the item that must be done before it."""


class Executor(Protocol):
    """Maps a function over items; results come back in the order of the items."""

    workers: int

    def map(
        self,
        function: Function,
        items: Iterable[Any],
        notify: Notify | None = None,
        after: After | None = None,
        needs: Needs | None = None,
    ) -> list[Any]:
        """Results of ``function`` on each item; ``notify(index, result)`` is called as each one arrives.

        The first exception ends the map and is raised. Tasks whose ``needs`` are known run side by side as far as there
        is memory for them.
        """

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call ``function``, which may be called again, on every machine; what fails elsewhere is not told."""

    def close(self) -> None:
        """Release what the executor holds."""


class Serial:
    """Tasks one after the other in the calling thread."""

    workers = 1

    def map(
        self,
        function: Function,
        items: Iterable[Any],
        notify: Notify | None = None,
        after: After | None = None,
        needs: Needs | None = None,
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
    """Tasks on dask's threaded scheduler in this process: no start-up, shared memory.

    Parameters
    ----------
    workers
        Threads; all cores by default.
    memory
        Bytes that tasks may take together; what this process may use by default.
    """

    def __init__(self, workers: int | None = None, memory: int | None = None) -> None:
        self.workers = workers or available_cores()
        self.memory = for_tasks(available_memory()) if memory is None else memory

    def map(
        self,
        function: Function,
        items: Iterable[Any],
        notify: Notify | None = None,
        after: After | None = None,
        needs: Needs | None = None,
    ) -> list[Any]:
        items = list(items)
        budget = Budget(self.memory)
        if needs is not None:
            function = partial(_within, budget, needs, function)
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
        try:
            return list(get(graph, keys, num_workers=self.workers))
        finally:
            budget.close()

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(*arguments)

    def close(self) -> None:
        pass


def _within(budget: Budget, needs: Needs, function: Function, item: Any) -> Any:
    """Do a task when there is memory for it; again with more, at last alone, if that was too little."""
    memory = needs.memory(item)
    if memory > budget.total:
        return _failed(needs, item, too_large(memory, budget.total))
    while True:
        with budget.given(memory):
            result = function(item)
        if not needs.short(result) or memory >= budget.total:
            return result
        memory = min(MULTIPLIER * memory, budget.total)


def _failed(needs: Needs | None, item: Any, error: Exception) -> Any:
    if needs is None or needs.failed is None or not isinstance(error, JwstdaskError):
        raise error
    return needs.failed(item, error)


LIVES = 4
"""Workers that a task may lose before it counts as the cause."""

_CAPACITY_SECONDS = 5.0
"""How long what workers have is believed."""

_MOST_AT_ONCE = 500
"""Tasks in a message."""

_LINGER, _LOOK = 0.1, 0.02
"""Seconds that results wait for others to be fetched with, and between looks."""

_ANSWER_SECONDS = 5.0
"""How long workers are waited for that are asked for their logs."""

_BUNDLE_SECONDS, _LARGEST_BUNDLE = 0.25, 32
"""Short tasks go to a worker together: as many as take so long, and no more than that."""


@dataclass
class _Flight:
    """A task on its way.

    Attributes
    ----------
    index, item
        The item.
    memory
        Bytes that it is given.
    lost
        Workers lost with it.
    alone
        Whether it goes by itself: something went wrong with it, or with others beside it.
    """

    index: int
    item: Any
    memory: int = 0
    lost: int = 0
    alone: bool = False


class _Pace:
    """How many short tasks go to a worker together: each message costs client and scheduler as much as 2 ms.

    Parameters
    ----------
    total
        Number of items; None where nobody knows, and each goes by itself.
    """

    def __init__(self, total: int | None) -> None:
        self._total, self._taken, self._seconds = total, 0, math.inf

    def took(self, seconds: float, count: int) -> None:
        """Some have been done together. What they took lately counts most."""
        each = seconds / max(count, 1)
        self._seconds = each if self._seconds == math.inf else max(each, 0.7 * self._seconds + 0.3 * each)

    def size(self, threads: int, begun: int) -> int:
        """How many go together; few towards the end, so that all workers have some."""
        if self._total is None:
            return 1
        enough = _BUNDLE_SECONDS / max(self._seconds, _BUNDLE_SECONDS / _LARGEST_BUNDLE)
        return max(int(min(enough, (self._total - begun) // (4 * threads))), 1)


class Cluster:
    """Tasks on a dask.distributed cluster, submitted with a sliding window so that the scheduler stays small.

    Those that are much shorter than it takes to submit them go to a worker together. What fails, and all that is lost
    with a worker, goes by itself the next time.

    Parameters
    ----------
    client
        A connected ``distributed.Client``.
    owner
        A cluster to close with the executor, if this program started it.
    window
        Tasks in flight for every worker thread.
    """

    def __init__(self, client: Any, owner: Any = None, window: int = 8) -> None:
        self.client, self.owner, self.window = client, owner, window
        self._address = getattr(getattr(client, "scheduler", None), "address", "")
        self._calls: dict[Any, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self._capacity: tuple[int, int | None] = (1, None)
        self._known = -_CAPACITY_SECONDS

    @property
    def workers(self) -> int:
        return max(sum(self.client.nthreads().values()), 1)

    def capacity(self) -> tuple[int, int | None]:
        """Threads of all workers, and the memory of the largest; None if not every worker declares it."""
        if time.monotonic() - self._known > _CAPACITY_SECONDS:
            found = list(self.client.scheduler_info(n_workers=-1)["workers"].values())
            memory = [int(worker.get("resources", {}).get(MEMORY, 0)) for worker in found]
            threads = max(sum(worker["nthreads"] for worker in found), 1)
            # Where all workers are lost at the moment, those that come will be as they were.
            largest = self._capacity[1] if not memory else max(memory) if all(memory) else None
            self._capacity = threads, largest
            self._known = time.monotonic()
        return self._capacity

    def map(
        self,
        function: Function,
        items: Iterable[Any],
        notify: Notify | None = None,
        after: After | None = None,
        needs: Needs | None = None,
    ) -> list[Any]:
        from distributed import as_completed
        from distributed.protocol import pickle

        pending = iter(enumerate(items))
        pace = _Pace(len(items) if isinstance(items, Sized) else None)
        results: dict[int, Any] = {}
        flights: dict[Any, list[_Flight]] = {}
        running = as_completed(loop=self.client.loop)
        after, held = after or {}, defaultdict[int, list[_Flight]](list)
        ready: list[_Flight] = []
        taken = 0
        self._known = -_CAPACITY_SECONDS

        def done(flight: _Flight, result: Any) -> None:
            results[flight.index] = result
            ready.extend(held.pop(flight.index, ()))
            if notify is not None:
                notify(flight.index, result)

        def fill() -> None:
            """Have as many tasks in flight as the window takes."""
            nonlocal taken
            threads, largest = self.capacity()
            room = self.window * threads - len(flights)
            # A message for a few tasks at once: those that workers have at hand last meanwhile.
            if flights and room < max(self.window * threads // 4, 1):
                room = 0
            size = pace.size(threads, taken)
            room *= size
            while len(ready) < room and (pair := next(pending, None)) is not None:
                taken += 1
                flight = _Flight(*pair)
                if needs is not None:
                    flight.memory = needs.memory(flight.item)
                if after.get(flight.index, flight.index) in (flight.index, *results):
                    ready.append(flight)
                else:
                    held[after[flight.index]].append(flight)
            sent, ready[:] = ready[:room], ready[room:]
            classes: dict[int, list[_Flight]] = defaultdict(list)
            for flight in sent:
                if largest is None or not flight.memory:
                    classes[0].append(flight)
                elif flight.memory <= largest:
                    classes[_rounded(flight.memory, largest)].append(flight)
                else:
                    done(flight, _failed(needs, flight.item, too_large(flight.memory, largest)))
            for memory, members in classes.items():
                resources = {MEMORY: memory} if memory else None
                bundles = [[flight] for flight in members if flight.alone]
                bundles += _in_pieces([flight for flight in members if not flight.alone], size)
                for few in _in_pieces(bundles, _MOST_AT_ONCE):
                    # Not pure: the same plan run again must run again.
                    futures = self.client.map(
                        partial(_tasks, function),
                        [pickle.dumps([flight.item for flight in bundle]) for bundle in few],
                        key=_name(function),
                        pure=False,
                        resources=resources,
                    )
                    flights.update(zip(futures, few, strict=True))
                    running.update(futures)

        def again(flight: _Flight) -> None:
            flight.alone = True
            ready.append(flight)

        def landed(bundle: list[_Flight], found: _Found) -> None:
            """What became of the items of a task."""
            pace.took(found.seconds, len(found.results))
            for flight, result in zip(bundle, found.results, strict=False):
                if needs is None or not needs.short(result) or not self._more(flight):
                    done(flight, result)
                else:
                    again(flight)
            rest = bundle[len(found.results) :]
            if rest and found.failed:
                again(rest.pop(0))
            ready[:0] = rest

        try:
            while True:
                fill()
                if not flights:
                    if ready or held:
                        continue
                    break
                batch = self._batch(running, len(flights))
                arrived = self.client.gather({future: future for future in batch}, errors="skip")
                said = [message for found in arrived.values() if found is not None for message in found.said]
                if said:
                    hear(said)
                for future in batch:
                    bundle = flights.pop(future)
                    # A result that was lost with its worker may have failed the second time.
                    if future.status == "finished":
                        landed(bundle, arrived[future])
                        continue
                    error = _error_of(future)
                    for flight in bundle:
                        # Which one ended the worker is known when each goes by itself.
                        if self._again(flight, error):
                            again(flight)
                        else:
                            done(flight, _failed(needs, flight.item, _told(flight, error)))
                # What is done is forgotten.
                del future, batch, arrived
        except BaseException as error:
            if self.client.status != "running" and not isinstance(error, KeyboardInterrupt | JwstdaskError):
                raise ClusterError(
                    f"the scheduler {self._address} is lost",
                    "see its log, start one again, and give the same command: what is finished is not done again",
                ) from error
            self.client.cancel(list(flights), force=True)
            raise
        return [results[index] for index in range(len(results))]

    def _batch(self, running: Any, count: int) -> list[Any]:
        """Tasks that have ended; several together, as long as workers have others at hand."""
        threads = self.capacity()[0]
        enough = self.window * threads // 4
        found = running.next_batch()
        ended = time.monotonic() + _LINGER
        while len(found) < enough and count - len(found) > 2 * threads and time.monotonic() < ended:
            time.sleep(_LOOK)
            found += running.next_batch(block=False)
        return list(found)

    def _more(self, flight: _Flight) -> bool:
        """Give a task more memory; False if there is no more."""
        largest = self.capacity()[1]
        if largest is None or not flight.memory or flight.memory >= largest:
            return False
        flight.memory = min(MULTIPLIER * flight.memory, largest)
        return True

    def _again(self, flight: _Flight, error: BaseException) -> bool:
        """Whether a task that ended with an error is to be done again."""
        from distributed import KilledWorker

        if isinstance(error, MemoryError):
            return self._more(flight)
        if not isinstance(error, KilledWorker):
            return False
        flight.lost += error.allowed_failures + 1
        # Whether it was for memory, nobody tells.
        given = self._more(flight)
        if flight.lost < LIVES:
            return True
        if given:
            flight.memory = self.capacity()[1] or flight.memory
        return given

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(*arguments)
        if self.owner is None:
            with contextlib.suppress(Exception):
                self.client.run(function, *arguments, on_error="ignore")
        else:
            self._calls[function, repr(arguments)] = function, arguments

    def worker_logs(self) -> dict[str, list[str]]:
        """What Dask said on the workers that are there and by their keepers, in order of time; what is to be had."""
        found: dict[str, list[str]] = defaultdict(list)
        for nanny in (False, True):
            with contextlib.suppress(Exception):
                ask = self.client.scheduler.worker_logs
                told = self.client.sync(ask, n=None, workers=None, nanny=nanny, callback_timeout=_ANSWER_SECONDS)
                for address, lines in told.items():
                    found[address] += [text for _, text in lines]
        return {address: sorted(lines) for address, lines in found.items()}

    def close(self) -> None:
        try:
            self.client.close()
        except RuntimeError:
            # Dask cancels an attempt to reach a scheduler that is lost, and fails if it ends by itself at that moment.
            self.client.close()
        if self.owner is not None:
            self.owner.close()
            # Workers that were busy have been killed: what is done everywhere is due once more.
            for function, arguments in self._calls.values():
                function(*arguments)


@dataclass(frozen=True)
class _Found:
    """What a worker did of a map.

    Attributes
    ----------
    results
        Of the items that it came to: all, unless one failed or they took too long.
    failed
        Whether the next one failed, which is tried again by itself.
    seconds
        What they took.
    said
        Messages that have been told and are not on their way yet.
    """

    results: list[Any]
    failed: bool
    seconds: float
    said: list[str]


def _tasks(function: Function, packed: bytes) -> _Found:
    """What a worker does of a map: items one after the other."""
    from distributed.protocol import pickle

    items = pickle.loads(packed)
    started = time.perf_counter()
    results: list[Any] = []
    failed = False
    for item in items:
        if results and time.perf_counter() - started > 2 * _BUNDLE_SECONDS:
            # They are longer than those before: others may help.
            break
        try:
            results.append(patiently(partial(function, item)))
        except Exception as error:
            if len(items) > 1:
                failed = True
                break
            if lacked_memory(error) and not isinstance(error, MemoryError):
                raise MemoryError(str(error)) from error
            raise
    return _Found(results, failed, time.perf_counter() - started, unsent())


def _in_pieces(members: list[T], size: int) -> Iterator[list[T]]:
    for first in range(0, len(members), size):
        yield members[first : first + size]


def _name(function: Any) -> str:
    """Name of a function, for the dashboard."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _rounded(memory: int, largest: int) -> int:
    """Classes of memory, so that many tasks are of one."""
    return min(-(-memory // _CLASS) * _CLASS, largest)


_CLASS = 16 << 20


def _error_of(future: Any) -> BaseException:
    try:
        future.result()
    except BaseException as error:
        return error
    raise AssertionError(future)


def _told(flight: _Flight, error: BaseException) -> Exception:
    """An error of a task in the user's words."""
    from distributed import KilledWorker

    given = f", {flight.memory / 1e6:.0f} MB of memory given to it" if flight.memory else ""
    if isinstance(error, KilledWorker):
        return JwstdaskError(
            f"{flight.lost} workers were lost while they did it (the last was {error.last_worker.address}{given})",
            "see the logs of workers and batch system; if workers run out of memory, give them more",
        )
    if isinstance(error, MemoryError):
        return JwstdaskError(
            f"there is not enough memory ({error}{given})", "give workers more memory, or let fewer share a machine"
        )
    if not isinstance(error, Exception):
        raise error
    return error
