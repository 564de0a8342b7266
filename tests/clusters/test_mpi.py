"""Ranks of a real MPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from jwstdask.testing import assert_same_products
from tests.clusters.probe import ROOT

pytestmark = [
    pytest.mark.xdist_group("clusters"),
    pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun not installed: apt-get install openmpi-bin"),
]


# More ranks than cores, as root, and without what is on the network.
ON_ONE_MACHINE = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_btl": "self,vader",
    "OMPI_MCA_oob_tcp_if_include": "lo",
}


def mpirun(ranks, *words):
    """The command under MPI."""
    return subprocess.run(
        ["mpirun", "-n", str(ranks), sys.executable, "-m", "jwstdask.cli.main", *words],
        cwd=ROOT,
        env=os.environ | ON_ONE_MACHINE | {"OMPI_MCA_plm": "isolated"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_a_program(program, expected, tmp_path):
    """Two exposures on two workers: the same bits, a status of 0, and no noise at the end."""
    steps = [
        "--steps.dark_current.save_results=true",
        "--steps.jump.save_results=true",
        "--steps.ramp_fit.save_opt=true",
    ]
    steps.append("--steps.jump.expand_large_events=true")
    uncals = [str(item) for item in program.uncals[:2]]
    done = mpirun(4, "run", "calwebb_detector1", *uncals, *steps, f"--output_dir={tmp_path}", "--cluster", "mpi")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    stage1 = tmp_path.parent / f"{tmp_path.name}-expected"
    stage1.mkdir()
    for path in expected.iterdir():
        if path.stem.rpartition("_")[2] not in ("cal", "i2d", "field"):
            shutil.copy(path, stage1)
    assert_same_products(stage1, tmp_path)


def test_too_few_ranks():
    done = mpirun(2, "run", "calwebb_detector1", "absent_uncal.fits", "--cluster", "mpi")
    assert done.returncode == 1
    assert done.stderr.count("there are 2 ranks of MPI") == 1
