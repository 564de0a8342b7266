"""Jobs compared with a queue's own list: what is submitted again, and when that ends. No batch system is needed."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from jwstdask.core.errors import ClusterError
from jwstdask.engine.jobs import SYSTEMS, Jobs, Watch, job_script, listed
from jwstdask.engine.profiles import Profile

SLURM = "  7 PD\n8 R\n9 CG\n"
PBS = """Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
17.server         jwstdask         me                00:00:00 R workq
18.server         jwstdask         me                       0 Q workq
19.server         jwstdask         me                00:00:01 C workq
20.server         jwstdask         me                00:00:01 F workq
"""
SGE = """job-ID  prior   name       user         state submit/start at     queue                          slots
-----------------------------------------------------------------------------------------------------------------
     31 0.55500 jwstdask   me           r     11/21/2026 10:00:00 all.q@node1                        4
     32 0.00000 jwstdask   me           qw    11/21/2026 10:00:00                                    4
     33 0.00000 jwstdask   me           Eqw   11/21/2026 10:00:00                                    4
"""


@pytest.mark.parametrize(
    ("kind", "text", "numbers"),
    [
        ("slurm", SLURM, {"7", "8", "9"}),
        ("slurm", "", set()),
        ("pbs", PBS, {"17", "18"}),
        ("pbs", "", set()),
        ("sge", SGE, {"31", "32"}),
    ],
)
def test_lists_of_queues(kind, text, numbers):
    assert listed(SYSTEMS[kind], text) == numbers


class FakeJob:
    def __init__(self, number):
        self.job_id, self.closed = number, False

    async def close(self):
        self.closed = True


class FakeCluster:
    """A cluster of dask-jobqueue with as many jobs as there are names, and a queue that knows them."""

    def __init__(self, count):
        self._i, self.numbers, self.queue, self.submitted = count - 1, 100, set(), []
        self.worker_spec = {f"c-{index}": None for index in range(count)}
        self.workers = {}
        self.scheduler = SimpleNamespace(workers={})
        self.scale(jobs=count)

    def scale(self, jobs):
        while len(self.worker_spec) < jobs:
            self.worker_spec[f"c-{self._i}"] = None
            self._i += 1
        for name in set(self.worker_spec) - set(self.workers):
            self.numbers += 1
            self.workers[name] = FakeJob(str(self.numbers))
            self.queue.add(str(self.numbers))
            self.submitted.append(str(self.numbers))

    def sync(self, function, *arguments):
        asyncio.run(function(*arguments))

    def report(self, name):
        """Its worker reports to the scheduler."""
        self.scheduler.workers[name] = SimpleNamespace(name=name)


class FakeWatch(Watch):
    def __init__(self, cluster, logs):
        self.said = []
        super().__init__(SYSTEMS["slurm"], 0.01, logs, self.said.append)
        self.cluster = cluster
        self.answers = True

    def _queued(self):
        return set(self.cluster.queue) if self.answers else None


def test_what_is_missed_twice_is_submitted_again(tmp_path):
    cluster = FakeCluster(3)
    watch = FakeWatch(cluster, tmp_path)
    cluster.report("c-0")
    watch.look()
    watch.look()
    assert len(cluster.submitted) == 3

    # One that waits is cancelled; one look may have come too early for the list.
    lost = cluster.workers["c-1"]
    cluster.queue.remove(lost.job_id)
    watch.look()
    assert len(cluster.submitted) == 3
    watch.look()
    assert len(cluster.submitted) == 4
    assert lost.closed
    assert len(cluster.workers) == 3
    # A new name: dask cancels what has the name of a lost worker a while later.
    assert "c-1" not in cluster.workers
    assert watch.said == [f"jobs {lost.job_id} are gone; submitted again"]


def test_a_worker_that_has_reported_is_not_missed(tmp_path):
    """Whatever the list says: a list may be behind."""
    cluster = FakeCluster(2)
    watch = FakeWatch(cluster, tmp_path)
    cluster.report("c-0")
    cluster.report("c-1-3")  # one of several workers of a job
    cluster.queue.clear()
    for _ in range(4):
        watch.look()
    assert len(cluster.submitted) == 2


def test_a_queue_that_does_not_answer_says_nothing(tmp_path):
    cluster = FakeCluster(2)
    watch = FakeWatch(cluster, tmp_path)
    cluster.queue.clear()
    watch.answers = False
    for _ in range(4):
        watch.look()
    assert len(cluster.submitted) == 2


def test_what_dask_forgot_is_submitted_again(tmp_path):
    """A worker that was lost: dask drops its job, and keeps the name."""
    cluster = FakeCluster(2)
    watch = FakeWatch(cluster, tmp_path)
    cluster.report("c-0")
    del cluster.workers["c-1"]
    watch.look()
    assert len(cluster.submitted) == 3


def test_jobs_that_end_in_vain_end_it(tmp_path):
    cluster = FakeCluster(2)
    watch = FakeWatch(cluster, tmp_path)
    (tmp_path / "jwstdask-101.err").write_text("module: not found\n")
    failed = []
    watch.on_failure = lambda: failed.append(watch.failure)
    for _ in range(12):
        if watch.failure is None:
            for job in cluster.submitted:
                (tmp_path / f"jwstdask-{job}.err").write_text("module: not found\n")
            cluster.queue.clear()
            watch.look()
    assert failed == [watch.failure]
    assert "6 jobs ended before their worker had reported" in str(watch.failure)
    assert "module: not found" in str(watch.failure)
    assert len(cluster.submitted) == 6


def test_jobs_whose_workers_have_reported_end_in_no_vain(tmp_path):
    """A time limit may end jobs as often as it likes."""
    cluster = FakeCluster(1)
    watch = FakeWatch(cluster, tmp_path)
    for _ in range(10):
        (name,) = cluster.workers
        cluster.report(name)
        watch.look()
        cluster.scheduler.workers.clear()
        cluster.queue.clear()
        watch.look()
        watch.look()
    assert watch.failure is None
    assert len(cluster.submitted) == 11


def test_refused_while_it_runs_is_tried_again(tmp_path):
    """A queue that is closed for an hour, and takes no jobs in the meantime."""
    cluster = FakeCluster(2)
    watch = FakeWatch(cluster, tmp_path)
    cluster.report("c-0")
    cluster.workers["c-1"].job_id = None
    watch.refusals.append("the queue is closed")
    watch.look()
    assert len(cluster.submitted) == 3
    assert watch.failure is None
    assert "the queue is closed" in watch.said[0]


def test_no_more_workers_end_a_map(tmp_path):
    """The error is raised, with no task counted as failed."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as owner,
        Client(owner, set_as_default=False) as client,
    ):
        watch = FakeWatch(FakeCluster(1), tmp_path)
        executor = Jobs(client, None, watch)
        done = []

        def fail():
            while not client.futures:
                time.sleep(0.01)
            watch._fail(["1"])

        watch._vain = 5
        thread = threading.Thread(target=fail)
        thread.start()
        with pytest.raises(ClusterError, match="5 jobs ended"):
            executor.map(abs, range(3), lambda *result: done.append(result))
        thread.join()
        assert done == []
        with pytest.raises(ClusterError, match="5 jobs ended"):
            executor.map(abs, range(3))


@pytest.mark.parametrize("kind", ["slurm", "pbs", "sge"])
def test_scripts(kind, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", "/crds cache")
    profile = Profile(
        kind=kind,
        workers="8",
        workers_per_job=4,
        memory="2 GiB",
        walltime="02:30:00",
        queue="night",
        account="jwst",
        python="/opt/python",
        prologue=("module load python",),
        directives=("--extra=1",),
        environment={"NUMBA_CACHE_DIR": "/tmp/numba"},
    )
    script = job_script(profile)
    mark = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$"}[kind]
    expected = {
        "slurm": ["-p night", "-A jwst", "--cpus-per-task=4", "--mem=8G", "-t 02:30:00"],
        "pbs": ["-q night", "-A jwst", "-l select=1:ncpus=4:mem=8192MB", "-l walltime=02:30:00", "-V"],
        "sge": ["-q night", "-P jwst", "-l h_rt=02:30:00", "-V"],
    }[kind]
    lines = script.splitlines()
    for item in [*expected, "--extra=1"]:
        assert f"{mark} {item}" in lines
    assert "module load python" in lines
    assert "export CRDS_PATH='/crds cache'" in lines
    assert "export NUMBA_CACHE_DIR=/tmp/numba" in lines
    assert "export DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP='15 s'" in lines
    assert "export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True" in lines
    assert lines.index("module load python") < len(lines) - 1
    command = lines[-1]
    assert command.startswith("/opt/python -m jwstdask.engine.worker tls://SCHEDULER ")
    assert "--nworkers 4" in command
    assert "--nthreads 1" in command
    assert "--memory-limit 2.00GiB" in command
    assert "--resources memory=" in command
    assert "BEGIN" not in script


def test_what_is_said_in_dasks_configuration_counts():
    """Users of dask-jobqueue have said once what their queue is."""
    import dask
    import dask_jobqueue  # noqa: F401

    with dask.config.set({"jobqueue.slurm.queue": "mine", "jobqueue.slurm.memory": "12 GiB"}):
        assert "#SBATCH -p mine" in job_script(Profile(kind="slurm"))
        assert "#SBATCH --mem=12G" in job_script(Profile(kind="slurm"))
        assert "#SBATCH -p other" in job_script(Profile(kind="slurm", queue="other"))
    assert "#SBATCH --mem=4G" in job_script(Profile(kind="slurm"))


def test_what_dask_jobqueue_refuses():
    with pytest.raises(ClusterError, match="no_such_option"):
        job_script(Profile(kind="slurm", options={"no_such_option": 1}))
