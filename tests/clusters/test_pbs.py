"""PBS as far as its commands go, which Slurm has, too: jobs are submitted, listed and cancelled by them."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from jwstdask.engine.clusters import start
from jwstdask.engine.profiles import read_profile
from tests.clusters.test_slurm import wait_for

pytestmark = [
    pytest.mark.xdist_group("clusters"),
    pytest.mark.skipif(shutil.which("qsub") is None, reason="qsub not installed: apt-get install slurm-wlm-torque"),
]


def test_lost_jobs_come_back(slurm, profile_file, capsys, tmp_path, monkeypatch):
    """The list has those that have ended, too; what jobs say is in its folder, and jobs are in that of the command."""
    here, logs = tmp_path / "here", tmp_path / "logs"
    here.mkdir()
    monkeypatch.chdir(here)
    options = {"resource_spec": "nodes=1:ppn=1"}
    profile = profile_file("pbs", interface="lo", workers="3", options=options, log_directory=str(logs))
    executor = start(read_profile(profile))
    try:
        executor.client.wait_for_workers(2)
        (pending,) = (job for job, state in slurm.jobs().items() if state == "PENDING")
        running = next(job for job, state in slurm.jobs().items() if state == "RUNNING")
        subprocess.run(["qdel", pending, running], check=True)
        wait_for(lambda: len(slurm.jobs()) == 3 and not {pending, running} & set(slurm.jobs()))
        assert executor.map(abs, range(-20, 0)) == list(range(20, 0, -1))
        assert set(executor.client.run(os.getcwd).values()) == {str(here)}
    finally:
        executor.close()
    wait_for(lambda: not slurm.jobs())
    assert "submitted again" in capsys.readouterr().err
    assert any("distributed" in path.read_text() for path in logs.iterdir())
    assert list(here.iterdir()) == []
