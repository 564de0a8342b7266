"""Executors: results in order, errors told, notified of each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial

import pytest

from jwstdask.core.errors import ClusterError, InputError
from jwstdask.engine.clusters import connect, local_cluster
from jwstdask.engine.events import Inbox, listening, tell
from jwstdask.engine.executor import Cluster, Serial, Threads, available_cores
from jwstdask.engine.resources import Needs
from jwstdask.pipelines.run import choose_grain


def double(item):
    time.sleep(0.002 * (7 - item % 7))
    return 2 * item


def fail(item):
    if item == 3:
        raise ValueError("three")
    return item


@pytest.fixture(scope="module", params=["serial", "one thread", "threads", "cluster"])
def executor(request):
    if request.param == "cluster":
        from distributed import Client, LocalCluster

        # Threads for workers: what is tested is the sliding window, not the processes.
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as owner,
            Client(owner, set_as_default=False) as client,
        ):
            yield Cluster(client, owner, window=2)
    else:
        yield {"serial": Serial(), "one thread": Threads(1), "threads": Threads(3)}[request.param]


def test_results_in_order(executor):
    notified = {}
    assert executor.map(double, range(20), notified.__setitem__) == [2 * item for item in range(20)]
    assert notified == {item: 2 * item for item in range(20)}
    assert executor.map(double, []) == []
    assert executor.map(double, [4]) == [8]
    assert executor.map(double, iter([1, 2])) == [2, 4]


def stamp(item):
    started = time.monotonic()
    time.sleep(0.01)
    return started, time.monotonic()


def test_items_that_wait_for_others(executor):
    """Two sequences and a single item, whatever the window of the cluster: an item starts after its predecessor."""
    after = {index: index - 2 for index in range(2, 18)}
    times = executor.map(stamp, range(19), after=after)
    for index, before in after.items():
        assert times[before][1] <= times[index][0]
    assert executor.map(double, range(5), after={4: 0, 3: 0}) == [0, 2, 4, 6, 8]


def test_errors_end_the_map(executor):
    with pytest.raises(ValueError, match="three"):
        executor.map(fail, range(8))
    assert executor.map(double, [1]) == [2]


def test_a_cluster_is_given_tasks_by_a_sliding_window():
    """However many items there are, few are taken, few are known to the scheduler, and none is kept."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as owner,
        Client(owner, set_as_default=False) as client,
    ):
        executor = Cluster(client, owner, window=3)
        taken = done = 0
        ahead, known = [], []

        def items():
            nonlocal taken
            for item in range(150):
                taken += 1
                yield item

        def note(index, result):
            nonlocal done
            ahead.append(taken - done)
            known.append(len(owner.scheduler.tasks))
            done += 1

        assert executor.map(abs, items(), note) == list(range(150))
        # Three for each of two workers.
        assert max(ahead) == 6
        # Tasks that are done are forgotten a moment later.
        assert max(known) <= 5 * 6
        deadline = time.monotonic() + 20
        while owner.scheduler.tasks and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not owner.scheduler.tasks


@pytest.fixture(scope="module")
def two_workers():
    """Two processes of one thread, without encryption."""
    executor = local_cluster(2, insecure=True)
    yield executor
    executor.close()


def test_others_do_not_compute_there(two_workers):
    """Arrays of the user go on being computed where they were: a cluster is for the program it was made for."""
    import dask
    from distributed import default_client

    assert dask.config.get("scheduler", None) != "dask.distributed"
    with pytest.raises(ValueError, match="No client"):
        default_client()
    assert dask.delayed(os.getpid)().compute() == os.getpid()


def alone(folder, item):
    """Process and task in which an item is done. Item 141 ends its worker the first time, 42 takes long."""
    from distributed import get_worker

    mark = folder / f"{item}"
    count = len(mark.read_text()) if mark.exists() else 0
    mark.write_text("x" * (count + 1))
    if item == 141 and count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if item == 42:
        time.sleep(0.7)
    return os.getpid(), get_worker().get_current_task()


def test_short_tasks_go_to_a_worker_together(two_workers, tmp_path):
    """Many in one task of the scheduler, each with its own result; what is lost goes by itself the next time."""
    order = []
    found = two_workers.map(partial(alone, tmp_path), range(300), lambda index, result: order.append(index))
    assert sorted(order) == list(range(300))
    together = Counter(task for _, task in found)
    assert len(together) < 200
    assert max(together.values()) > 4
    # What ended a worker, and what had been on its way with it, went by itself.
    assert len((tmp_path / "141").read_text()) == 2
    assert together[found[141][1]] == 1
    # One that takes long does not hold up those that would have come after it.
    assert found[42][1] not in {task for _, task in found[43:]}
    # Where few are left, all workers have some.
    found = two_workers.map(partial(alone, tmp_path), range(300, 400))
    assert max(Counter(task for _, task in found).values()) <= 100 // 4


def sometimes(item):
    if item == 150:
        raise ValueError("bad")
    return item


def test_what_fails_among_others_fails_by_itself(two_workers):
    done = []
    with pytest.raises(ValueError, match="bad"):
        two_workers.map(sometimes, range(300), lambda index, result: done.append(index))
    assert 150 not in done
    kept = Needs(lambda item: 1, failed=lambda item, error: f"{item}: {error}")
    assert two_workers.map(refused, range(200), needs=kept) == [
        "150: jw150.fits: truncated" if item == 150 else item for item in range(200)
    ]


def refused(item):
    if item == 150:
        raise InputError("jw150.fits", "truncated")
    return item


def test_a_scheduler_that_is_lost_is_told(tmp_path):
    """At once in words, not by what Dask meets when it looks for it."""
    import dask

    file = tmp_path / "scheduler.json"
    words = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file)]
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *words], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not file.exists() or not file.read_text().strip():
            assert time.monotonic() < deadline and scheduler.poll() is None
            time.sleep(0.05)
        with dask.config.set({"distributed.comm.timeouts.connect": "3 s"}):
            executor = connect(str(file), insecure=True)
            try:
                # There are no workers: tasks wait.
                threading.Timer(0.5, scheduler.kill).start()
                with pytest.raises(ClusterError, match=r"the scheduler tcp://127\.0\.0\.1:\d+ is lost\. See its log"):
                    executor.map(abs, [1, 2])
            finally:
                executor.close()
    finally:
        scheduler.kill()
        scheduler.wait()


def test_an_attempt_to_connect_that_ends_while_dask_cancels_it(monkeypatch):
    """`asyncio.Timeout.reschedule` refuses a time-out that has just expired, and closing the client with it."""
    executor = local_cluster(1)
    pool = executor.client.rpc
    close, failed = pool.close, []

    async def fail_once():
        if not failed:
            failed.append(True)
            raise RuntimeError("Cannot change state of expiring Timeout")
        await close()

    monkeypatch.setattr(pool, "close", fail_once)
    executor.close()
    assert failed and executor.client.status == "closed"


def said(folder, item):
    """Tells something, and more after a while."""
    tell(f"begun {item}")
    if item % 2:
        time.sleep(0.7)
    tell(f"ended {item}")
    return item


def test_messages_are_there_before_the_results(executor, tmp_path):
    """Each once and in order; those of short tasks come with their results, those of long ones while they last."""
    heard, late = [], []

    def arrived(index, result):
        handle()
        if f"ended {result}" not in heard or f"begun {result}" not in heard:
            late.append(result)

    with listening(executor, heard.extend) as handle:
        assert executor.map(partial(said, tmp_path), range(6), arrived) == list(range(6))
    assert not late
    assert sorted(heard) == sorted(f"{word} {item}" for word in ("begun", "ended") for item in range(6))
    assert all(heard.index(f"begun {item}") < heard.index(f"ended {item}") for item in range(6))


def test_messages_that_cannot_be_written_are_met_by_who_leads():
    tried = []

    def full(messages):
        tried.append(list(messages))
        raise OSError("the disk is full")

    inbox = Inbox(full)
    try:
        inbox.put(["one"])
        inbox.put(["two"])
        with pytest.raises(OSError, match="full"):
            inbox.handle()
        assert tried[-1] == ["one", "two"]
    finally:
        inbox.close()


def test_local_workers_keep_no_call_stacks():
    """dask would sample them for an hour: memory that grows with time."""
    import dask

    executor = local_cluster(1)
    try:
        (found,) = executor.client.run(dask.config.get, "distributed.worker.profile.enabled").values()
        assert found is False
    finally:
        executor.close()


def test_everywhere(executor, tmp_path):
    executor.everywhere(os.mkdir, str(tmp_path / "made"))
    assert (tmp_path / "made").is_dir()


def test_workers(executor):
    assert executor.workers in (1, 2, 3)


def test_threads_start_in_order():
    """The first exposure first: reports and progress are read from top to bottom."""
    started = []

    def note(item):
        started.append(item)
        time.sleep(0.01)

    Threads(2).map(note, range(6))
    assert [item // 2 for item in started] == [0, 0, 1, 1, 2, 2]


def test_available_cores(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    cores = available_cores()
    assert 1 <= cores <= (os.cpu_count() or 1)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert available_cores() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "many")
    assert available_cores() == cores


@pytest.mark.parametrize(("exposures", "workers", "grain"), [(1, 2, "strip"), (2, 2, "exposure"), (8, 1, "exposure")])
def test_grain(exposures, workers, grain):
    assert choose_grain(exposures, workers) == grain


def test_connect_by_scheduler_file(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as owner:
        file = tmp_path / "scheduler.json"
        import json

        file.write_text(json.dumps(owner.scheduler.identity()))
        for address in (str(file), owner.scheduler_address):
            executor = connect(address, insecure=True)
            assert executor.map(double, [5]) == [10]
            executor.close()
