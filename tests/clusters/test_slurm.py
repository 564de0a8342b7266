"""A real Slurm: workers as jobs, some of which are lost."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from jwstdask.core.errors import ClusterError
from jwstdask.engine.clusters import start
from jwstdask.engine.profiles import read_profile
from jwstdask.testing import assert_same_products
from tests.clusters.probe import ROOT, probe
from tests.clusters.sockets import exposed, listening, tree
from tests.promises.program import run

pytestmark = pytest.mark.xdist_group("clusters")


def wait_for(condition, seconds=90.0):
    """What a condition gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def job_processes():
    """Processes of jobs on this machine: they know the number of their job, and are none of ours."""
    found = []
    for process in psutil.process_iter():
        try:
            if "SLURM_JOB_ID" in process.environ() and "jwstdask.engine.worker" in " ".join(process.cmdline()):
                found += tree(process.pid)
        except psutil.Error:
            continue
    return found


def where():
    return os.getpid(), os.environ["SLURM_JOB_ID"]


class Canceller(threading.Thread):
    """Cancels the job whose worker writes a product first."""

    def __init__(self, slurm, folder, jobs):
        super().__init__(daemon=True)
        self.slurm, self.folder, self.jobs, self.cancelled, self.stopped = slurm, folder, jobs, None, False

    def run(self):
        while self.cancelled is None and not self.stopped:
            for path in self.folder.glob(".*_rate.fits.*.part"):
                writer = int(re.search(r"-(\d+)-[0-9a-f]{8}\.part$", path.name)[1])
                if writer in self.jobs:
                    self.slurm.command("scancel", self.jobs[writer])
                    self.cancelled = self.jobs[writer]
                    return
            time.sleep(0.001)


def test_a_program_whose_jobs_are_cancelled(slurm, profile_file, program, expected, tmp_path, capsys):
    """One that waits, one that is at work: both come back, and the products are the same bits."""
    executor = start(read_profile(profile_file("slurm", interface="lo", workers="3")))
    try:
        executor.client.wait_for_workers(2)
        jobs = slurm.jobs()
        assert sorted(jobs.values()) == ["PENDING", "RUNNING", "RUNNING"]
        (pending,) = (job for job, state in jobs.items() if state == "PENDING")
        slurm.command("scancel", pending)
        wait_for(lambda: len(slurm.jobs()) == 3 and pending not in slurm.jobs())

        workers = list(executor.client.scheduler_info()["workers"])
        assert all(address.startswith("tls://127.0.0.1:") for address in workers)
        assert exposed(listening([*tree(), *job_processes()])) == []
        assert len(listening(job_processes())) >= 4
        attempts = probe(executor.client.scheduler.address, *workers)
        assert not [way for way, said in attempts.items() if said.startswith(("uid", "no handler"))], attempts

        canceller = Canceller(slurm, tmp_path, dict(executor.client.run(where).values()))
        canceller.start()
        run(program, tmp_path, executor, exposures=2)
        canceller.stopped = True
        canceller.join()
        assert canceller.cancelled in jobs, "nothing was cancelled: the test shows nothing"
        wait_for(lambda: len(slurm.jobs()) == 3 and canceller.cancelled not in slurm.jobs())
        assert_same_products(expected, tmp_path)
        assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []
        said = capsys.readouterr().err
        assert f"jobs {pending} are gone; submitted again" in said
        assert f"jobs {canceller.cancelled} are gone; submitted again" in said
    finally:
        executor.close()
    wait_for(lambda: not slurm.jobs())


def test_from_the_command_line(slurm, profile_file, program, expected, tmp_path):
    """Keys lie in a private folder while it runs, nowhere on a command line, and are gone afterwards."""
    path = profile_file("slurm", interface="lo", workers="1:2", workers_per_job=1, idle="5 s")
    shared = Path(read_profile(path).shared_folder)
    uncals = [str(item) for item in program.uncals[:2]]
    words = ["run", *uncals, "--through=1", f"--output_dir={tmp_path}", "--cluster", path]
    command = subprocess.Popen(
        [sys.executable, "-m", "jwstdask.cli.main", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: any(state == "RUNNING" for state in slurm.jobs().values()))
        (folder,) = shared.glob(".cluster*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        key = (folder / "key.pem").read_text().splitlines()[1]
        assert exposed(listening([*tree(command.pid), *job_processes()])) == []
        for process in job_processes():
            assert key not in "".join(process.cmdline())
        told, _ = command.communicate(timeout=120)
    finally:
        command.kill()
        command.wait()
    assert command.returncode == 0, told
    assert "scheduler tls://127.0.0.1:" in told
    assert list(shared.glob(".cluster*")) == []
    # What jobs said has come home.
    said = [file.read_text() for file in (tmp_path / "logs" / "workers").iterdir()]
    assert any("Registered to:" in text for text in said)
    for product in tmp_path.glob("*_rate.fits"):
        (tmp_path / "same").mkdir(exist_ok=True)
        product.rename(tmp_path / "same" / product.name)
    assert len(list((tmp_path / "same").iterdir())) == 2
    wait_for(lambda: not slurm.jobs())


def test_as_many_workers_as_there_is_work_for(slurm, profile_file):
    executor = start(read_profile(profile_file("slurm", interface="lo", workers="1:2", idle="2 s")))
    try:
        assert executor.map(time.sleep, [1.0] * 8) == [None] * 8
        assert len(slurm.jobs()) == 2
        wait_for(lambda: len([state for state in slurm.jobs().values() if state == "RUNNING"]) == 1)
    finally:
        executor.close()
    wait_for(lambda: not slurm.jobs())


def test_a_refused_job_is_an_error_at_once(slurm, profile_file):
    """Not after a time-out; and nothing is left."""
    profile = read_profile(profile_file("slurm", interface="lo", workers="2", queue="absent"))
    with pytest.raises(ClusterError, match=r"(?s)sbatch refuses the job: .*invalid partition.*jwstdask clusters"):
        start(profile)
    assert list(Path(profile.shared_folder).glob(".cluster*")) == []
    assert not slurm.jobs()


def test_jobs_that_end_in_vain_are_an_error(slurm, profile_file):
    """A python that is not there: after some jobs, not for ever, with what the job said."""
    profile = read_profile(profile_file("slurm", interface="lo", workers="2", python="/absent/python", check="0.2 s"))
    with pytest.raises(ClusterError, match=r"(?s)jobs ended before.*/absent/python: No such file"):
        start(profile)
    wait_for(lambda: not slurm.jobs())


def test_no_worker_in_time_is_an_error(slurm, profile_file):
    content = {"directives": ["--begin=now+1hour"], "start_timeout": "1 s"}
    profile = read_profile(profile_file("slurm", interface="lo", workers="1", **content))
    with pytest.raises(ClusterError, match="no worker has reported after 1 s"):
        start(profile)
    wait_for(lambda: not slurm.jobs())
