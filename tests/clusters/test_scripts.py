"""Batch scripts that are shipped, each given to a queue as a user does; those of PBS by Slurm's commands for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jwstdask.cli.main import main
from jwstdask.testing import assert_same_products
from tests.clusters.probe import ROOT
from tests.clusters.test_mpi import ON_ONE_MACHINE
from tests.clusters.test_slurm import wait_for

pytestmark = pytest.mark.xdist_group("clusters")

# A node of the tests has one core and 2000 MB. Words of the command line of a script are in WORDS for PBS.
SBATCH = ["sbatch", "--time=10"]
QSUB = ["qsub", "-V", "-j", "oe", "-l", "walltime=00:10:00,mem=1500mb,ncpus=1"]
LIMITS = {
    "slurm_one_job.sh": [*SBATCH, "--cpus-per-task=1", "--mem=1500"],
    "slurm_workers_as_jobs.sh": [*SBATCH, "--mem=1500"],
    "slurm_mpi.sh": [*SBATCH, "--nodes=1", "--ntasks=3", "--overcommit", "--mem-per-cpu=1900"],
    "pbs_one_job.sh": QSUB,
    "pbs_workers_as_jobs.sh": QSUB,
}


@pytest.fixture(scope="module")
def products(program, module_folder):
    """The draft rate of one exposure, made by the command in one process."""
    folder = module_folder("products")
    assert main(["run", str(program.uncals[0]), "--through=1", f"--output_dir={folder}", "--no-report"]) == 0
    return folder


def test_each_is_tried():
    assert sorted(path.name for path in (ROOT / "cluster").glob("*.sh")) == sorted(LIMITS)


@pytest.mark.parametrize("script", LIMITS)
def test_a_program(script, slurm, profile_file, program, products, tmp_path):
    """The same bits as without a queue; jobs that start workers as jobs run beside those."""
    queue = script.partition("_")[0]
    if queue == "pbs" and shutil.which("qsub") is None:
        pytest.skip("qsub not installed: apt-get install slurm-wlm-torque")
    if "mpi" in script and shutil.which("mpirun") is None:
        pytest.skip("mpirun not installed: apt-get install openmpi-bin")
    words = [str(program.uncals[0]), "--through=1", f"--output_dir={tmp_path}", "--no-report"]
    if "workers_as_jobs" in script:
        options = {"options": {"resource_spec": "nodes=1:ppn=1"}} if queue == "pbs" else {}
        words += ["--cluster", profile_file(queue, interface="lo", workers="1", **options)]
    command = [*LIMITS[script], "-o", str(tmp_path / "log"), str(ROOT / "cluster" / script)]
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"} | ON_ONE_MACHINE
    if queue == "pbs":
        environment["WORDS"] = " ".join(words)
    else:
        command += words
    subprocess.run(command, env=os.environ | environment, cwd=tmp_path, timeout=60, check=True)
    if "workers_as_jobs" in script:
        wait_for(lambda: list(slurm.jobs().values()) == ["RUNNING", "RUNNING"])
    wait_for(lambda: not slurm.jobs(), 120)
    said = (tmp_path / "log").read_text()
    assert "1 task on 1 worker\n" in said
    names = sorted(path.name for path in products.glob("*.fits"))
    assert sorted(path.name for path in tmp_path.glob("*.fits")) == names
    assert_same_products(products, tmp_path, names)
