"""Promise: the memory of a worker does not grow from exposure to exposure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.using import crds_of

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")

EXPOSURES, WARM_UP = 200, 20


@pytest.fixture(autouse=True)
def references(programs):
    with crds_of(programs.cache("three_groups")):
        yield


def test_memory_does_not_grow_with_the_number_of_exposures(programs, tmp_path):
    """Exposures of one command through one worker. The bound is 0.2 MB an exposure; what is sampled while the worker
    is busy with the next ones scatters by some MB, which moves the slope by 0.01 MB.
    """
    uncal = programs("three_groups").uncals[0]
    paths = []
    for number in range(EXPOSURES):
        path = tmp_path / f"jw01234001001_02101_{number + 1:05d}_nrca5_uncal.fits"
        path.symlink_to(uncal)
        paths.append(str(path))
    work = {"paths": paths, "workers": 1, "output_dir": str(tmp_path / "products")}
    script = Path(__file__).with_name("measure_growth.py")
    done = subprocess.run([sys.executable, str(script), json.dumps(work)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout.splitlines()[-1])) / 1e6
    assert found.shape == (EXPOSURES,)
    assert len(list((tmp_path / "products").glob("*_rateints.fits"))) == EXPOSURES
    slope = np.polyfit(np.arange(WARM_UP, EXPOSURES), found[WARM_UP:], 1)[0]
    assert slope < 0.2, found
