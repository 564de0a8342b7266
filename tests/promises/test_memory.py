"""Promise: the predicted peak memory of a full frame is within 25 % of what is measured, and small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from astropy.io import fits

from jwstdask.pipeline import Detector1Pipeline
from tests.using import crds_of

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")


def measure(path, folder, pipeline="calwebb_detector1", **parameters):
    work = {"path": str(path), "pipeline": pipeline, "parameters": parameters, "output_dir": str(folder)}
    script = Path(__file__).with_name("measure_memory.py")
    done = subprocess.run([sys.executable, str(script), json.dumps(work)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def full(programs, module_folder):
    """A full frame of five groups, and the same with two integrations."""
    folder = module_folder("full")
    paths = {}
    with fits.open(programs("full").uncals[0]) as hdus:
        del hdus["ASDF"]
        groups = hdus["SCI"].data
        groups = groups[:, [*range(groups.shape[1]), groups.shape[1] - 1]][:, :5]
        for nints in (1, 2):
            paths[nints] = folder / f"jw01234001001_02101_0000{nints}_nrca1_uncal.fits"
            hdus["SCI"].data = groups.repeat(nints, axis=0)
            hdus[0].header.update(NINTS=nints, NGROUPS=5)
            hdus.writeto(paths[nints])
    return folder, paths


@pytest.fixture(autouse=True)
def references(programs):
    """The CRDS cache of full frames, in use."""
    with crds_of(programs.cache("full")):
        yield


@pytest.mark.parametrize(("nints", "large_events"), [(1, False), (1, True), (2, True)])
def test_stage_1(full, nints, large_events):
    folder, paths = full
    found = measure(paths[nints], folder, jump={"expand_large_events": large_events})
    assert abs(found["predicted"] / found["peak"] - 1) < 0.25, found
    # Twice the raw file is what the design allows.
    assert found["peak"] < 2 * paths[nints].stat().st_size


@pytest.mark.parametrize("large_events", [False, True])
def test_a_step_alone(full, tmp_path, large_events):
    """Of a ramp of float32, flags and all that is written."""
    _, paths = full
    found = measure(paths[2], tmp_path, "jump", expand_large_events=large_events)
    assert abs(found["predicted"] / found["peak"] - 1) < 0.25, found


def test_stage_2(full, tmp_path):
    _, paths = full
    Detector1Pipeline.call(str(paths[1]), save_results=True, output_dir=str(tmp_path))
    rate = tmp_path / paths[1].name.replace("uncal", "rate")
    found = measure(rate, tmp_path, "calwebb_image2")
    assert abs(found["predicted"] / found["peak"] - 1) < 0.25, found
