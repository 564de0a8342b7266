"""PBS as far as its commands go, which Slurm has, too: jobs are submitted, listed and cancelled by them."""

from __future__ import annotations

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


def test_lost_jobs_come_back(slurm, profile_file, capsys):
    """The list has those that have ended, too."""
    options = {"resource_spec": "nodes=1:ppn=1"}
    executor = start(read_profile(profile_file("pbs", interface="lo", workers="3", options=options)))
    try:
        executor.client.wait_for_workers(2)
        (pending,) = (job for job, state in slurm.jobs().items() if state == "PENDING")
        running = next(job for job, state in slurm.jobs().items() if state == "RUNNING")
        subprocess.run(["qdel", pending, running], check=True)
        wait_for(lambda: len(slurm.jobs()) == 3 and not {pending, running} & set(slurm.jobs()))
        assert executor.map(abs, range(-20, 0)) == list(range(20, 0, -1))
    finally:
        executor.close()
    wait_for(lambda: not slurm.jobs())
    assert "submitted again" in capsys.readouterr().err
