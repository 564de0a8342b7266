"""Memory is scheduled; what goes wrong is tried again by rule: lost workers, too little memory, transient errors."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
import time
from collections import Counter
from functools import partial

import numpy as np
import psutil
import pytest

from jwstdask.core.errors import InputError, JwstdaskError
from jwstdask.core.plan import Cost, ExposurePlan, Outcome
from jwstdask.engine import executor as executor_module
from jwstdask.engine.clusters import local_cluster
from jwstdask.engine.executor import Cluster, Serial, Threads
from jwstdask.engine.outcome import measured
from jwstdask.engine.resources import INTERPRETER_BYTES, MEMORY, SHARE, Needs, worker_resources
from jwstdask.io import transient
from jwstdask.pipelines.run import run_chains

MB = 1_000_000


def needs(memory, short=lambda result: False):
    return Needs(lambda item: memory, short, lambda item, error: f"{item}: {error}")


def given():
    """Memory that the task in which this is called was given."""
    from distributed import get_worker

    worker = get_worker()
    found = worker.state.tasks[worker.get_current_task()].resource_restrictions or {}
    return found.get(MEMORY)


@pytest.fixture(scope="module")
def threads_for_workers():
    """Two workers of three threads in this process, which declare 100 MB and 400 MB."""
    from distributed import Client, LocalCluster

    options = {"threads_per_worker": 3, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, resources={MEMORY: 100 * MB}, **options) as owner:
        owner.new_spec["options"] = {**owner.new_spec["options"], "resources": {MEMORY: 400 * MB}}
        owner.scale(2)
        with Client(owner, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=20)
            yield Cluster(client)


class Crowd:
    """Counts how many are at work at once, by place."""

    def __init__(self):
        self.now, self.most, self.guard = Counter(), Counter(), threading.Lock()

    def work(self, place):
        with self.guard:
            self.now[place] += 1
            self.most[place] = max(self.most[place], self.now[place])
        time.sleep(0.02)
        with self.guard:
            self.now[place] -= 1


crowd = Crowd()


def crowded(item):
    from distributed import get_worker

    crowd.work(get_worker().state.total_resources[MEMORY])
    return item


def test_no_worker_takes_more_than_fits(threads_for_workers):
    crowd.most.clear()
    assert threads_for_workers.map(crowded, range(40), needs=needs(80 * MB)) == list(range(40))
    # Three threads each; 100 MB are enough for one task, 400 MB for more than three.
    assert crowd.most == {100 * MB: 1, 400 * MB: 3}
    assert threads_for_workers.map(crowded, range(8)) == list(range(8))


def test_a_task_that_fits_nowhere_says_what_it_needs(threads_for_workers):
    memory = {0: 50 * MB, 1: 500 * MB, 2: 50 * MB}
    wanted = Needs(memory.__getitem__, failed=lambda item, error: str(error))
    first, second, third = threads_for_workers.map(abs, range(3), needs=wanted)
    assert (first, third) == (0, 2)
    assert second == (
        "500 MB of memory are predicted, and no worker has more than 400 MB for tasks. Give workers more memory "
        "(1.00 GB each); on this machine take fewer --workers or --threads"
    )
    with pytest.raises(JwstdaskError, match="500 MB of memory are predicted"):
        threads_for_workers.map(abs, range(3), needs=Needs(memory.__getitem__))


def lacking(enough, item):
    if given() < enough:
        raise MemoryError("Unable to allocate")
    return given()


def test_too_little_memory_is_doubled_up_to_the_largest_worker(threads_for_workers):
    # In classes of 16 MiB.
    (found,) = threads_for_workers.map(partial(lacking, 150 * MB), [0], needs=needs(50 * MB))
    assert 200 * MB <= found < 200 * MB + (16 << 20)
    (found,) = threads_for_workers.map(partial(lacking, 390 * MB), [0], needs=needs(150 * MB))
    assert found == 400 * MB
    (found,) = threads_for_workers.map(partial(lacking, 500 * MB), [0], needs=needs(50 * MB))
    assert found == (
        "0: there is not enough memory (Unable to allocate, 400 MB of memory given to it). Give workers more memory, "
        "or let fewer share a machine"
    )


def told_short(enough, item):
    return given() >= enough


def test_results_that_say_so_are_tried_with_more_memory(threads_for_workers):
    short = needs(50 * MB, lambda result: not result)
    assert threads_for_workers.map(partial(told_short, 150 * MB), [0, 1], needs=short) == [True, True]
    assert threads_for_workers.map(partial(told_short, 500 * MB), [0], needs=short) == [False]


calls: Counter = Counter()


def failing(kind, failures, item):
    calls[item] += 1
    if calls[item] <= failures:
        raise OSError(errno.ESTALE, "stale file handle") if kind == "stale" else InputError("jw1.fits", "truncated")
    return item


def test_rules_of_a_cluster(threads_for_workers, monkeypatch):
    monkeypatch.setattr(transient, "PAUSES", (0.0, 0.0, 0.0))
    calls.clear()
    assert threads_for_workers.map(partial(failing, "stale", 2), range(3)) == [0, 1, 2]
    assert calls == {0: 3, 1: 3, 2: 3}
    calls.clear()
    with pytest.raises(InputError, match="truncated"):
        threads_for_workers.map(partial(failing, "data", 2), [0])
    assert calls == {0: 1}
    calls.clear()
    with pytest.raises(OSError, match="stale"):
        threads_for_workers.map(partial(failing, "stale", 99), [0])
    assert calls == {0: transient.TRIES}


def unannotated(item):
    return given()


def test_workers_that_declare_nothing_are_asked_for_nothing():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as owner,
        Client(owner, set_as_default=False) as client,
    ):
        assert Cluster(client).map(unannotated, [0, 1], needs=needs(10**15)) == [None, None]


def deadly(folder, item):
    """Ends its worker: item 1 the first time, item 2 each time."""
    mark = folder / str(item)
    count = len(mark.read_text()) if mark.exists() else 0
    mark.write_text("x" * (count + 1))
    if item == 2 or (item == 1 and count == 0):
        # As a machine does that runs out of memory.
        os.kill(os.getpid(), signal.SIGKILL)
    return given()


def greedy(item):
    """Takes 200 MB in a process that can have so much more than it was given only then."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (taken + given(), before[1]))
    try:
        return int(np.ones(200 * MB, np.uint8)[-1]) * given()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_worker_that_really_lacks_memory_gives_the_task_twice_as_much():
    executor = local_cluster(1, memory=2_000 * MB, insecure=True)
    try:
        # 64, 128, 256 MiB, or 112, 224.
        assert executor.map(greedy, [0], needs=needs(64 << 20)) == [256 << 20]
        assert executor.map(greedy, [0], needs=needs(112 << 20)) == [224 << 20]
    finally:
        executor.close()


def test_lost_workers_cost_time_and_those_who_end_them_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(executor_module, "LIVES", 2)
    executor = local_cluster(2, memory=2_000 * MB, insecure=True)
    try:
        asked = 100 << 20
        wanted = Needs(lambda item: asked, failed=lambda item, error: f"{item}: {error}")
        found = executor.map(partial(deadly, tmp_path), [0, 1, 3, 4], needs=wanted)
        assert found[1] >= 2 * asked
        assert min(found) >= asked
        (reason,) = executor.map(partial(deadly, tmp_path), [2], needs=wanted)
        # Its lives, and once more with all the memory that the largest worker has.
        assert len((tmp_path / "2").read_text()) == 3
        assert reason.startswith("2: 3 workers were lost while they did it (the last was tcp://127.0.0.1:")
        assert "1300 MB of memory given to it" in reason
        assert executor.map(partial(deadly, tmp_path), [5], needs=wanted) == [112 << 20]
    finally:
        executor.close()


def test_what_a_worker_declares():
    assert worker_resources(2_000 * MB) == {MEMORY: SHARE * 2_000 * MB - INTERPRETER_BYTES}
    assert worker_resources(None) == worker_resources(0) == {}
    assert worker_resources(1)[MEMORY] > 0


@pytest.mark.parametrize(("memory", "most"), [(100, 1), (250, 2), (10_000, 4)])
def test_threads_share_memory(memory, most):
    found = Crowd()
    executor = Threads(4, memory=memory * MB)
    executor.map(lambda item: found.work(""), range(24), needs=needs(100 * MB))
    assert found.most[""] == most


def test_threads_give_more_to_who_had_too_little():
    tries = Counter()

    def work(item):
        tries[item] += 1
        return tries[item] > 2

    executor = Threads(3, memory=1000 * MB)
    assert executor.map(work, range(5), needs=needs(100 * MB, lambda result: not result)) == [True] * 5
    assert set(tries.values()) == {3}
    # 100, 200 ... 800 MB, all.
    tries.clear()
    assert executor.map(lambda item: tries.update([item]), [0], needs=needs(100 * MB, lambda _: True)) == [None]
    assert tries[0] == 5
    assert "500 MB of memory are predicted" in Threads(2, memory=MB).map(abs, [1, 2], needs=needs(500 * MB))[0]


def test_an_error_in_a_thread_lets_nobody_wait():
    started = []

    def work(item):
        started.append(item)
        time.sleep(0.05)
        raise ValueError(str(item))

    with pytest.raises(ValueError, match="0"):
        Threads(3, memory=100).map(work, range(9), needs=Needs(lambda item: 100))
    count = len(started)
    time.sleep(0.1)
    assert len(started) == count < 9


def plan(name, memory=1):
    return ExposurePlan(f"{name}_uncal.fits", "calwebb_detector1", cost=Cost(memory=memory))


def starved(plan, executor=None):
    def work():
        if "starved" in plan.path:
            try:
                raise MemoryError("Unable to allocate 8 GiB")
            except MemoryError as error:
                raise JwstdaskError(f"{plan.path}: jump: MemoryError") from error
        return Outcome(plan.path, plan.pipeline)

    return measured(plan, work)


@pytest.mark.parametrize("workers", [1, 2])
def test_exposures_that_do_not_fit_fail_alone(workers):
    chains = [[plan("jw1")], [plan("large", 900 * MB)], [plan("starved")], [plan("jw2")]]
    outcomes = run_chains(chains, Threads(workers, memory=100 * MB), grain="exposure", work=starved)
    first, large, hungry, last = outcomes
    assert first.error is last.error is None
    assert large.error.startswith(
        "large_uncal.fits: 900 MB of memory are predicted, and no worker has more than 100 MB"
    )
    assert hungry.error == (
        "starved_uncal.fits: jump: MemoryError. 0 MB were predicted. Give workers more memory, or let fewer of them, "
        "or fewer threads, share this machine"
    )
    assert hungry.short and not large.short


def test_a_task_tries_again_what_is_transient(monkeypatch):
    monkeypatch.setattr(transient, "PAUSES", (0.0, 0.0, 0.0))
    calls.clear()

    def work():
        failing("stale", 3, "x")
        return Outcome("x", "jump")

    assert measured(plan("jw1"), work).error is None
    assert calls["x"] == 4
    calls.clear()
    outcome = measured(plan("jw1"), partial(failing, "data", 9, "x"))
    assert "truncated" in outcome.error
    assert calls["x"] == 1


def test_serial_needs_nothing():
    assert Serial().map(abs, [-1], needs=needs(10**15)) == [1]
