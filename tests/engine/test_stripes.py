"""Exposures read in stripes: the same bits for any tiling and any way to run, inputs untouched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from astropy.io import fits

from jwstdask import open_exposure
from jwstdask.core.errors import JwstdaskError
from jwstdask.core.settings import Settings
from jwstdask.engine import exposure, passes
from jwstdask.engine.clusters import local_cluster
from jwstdask.engine.executor import Serial, Threads
from jwstdask.pipeline import Detector1Pipeline
from jwstdask.pipelines.detector1 import Detector1Pipeline as Detector1
from jwstdask.pipelines.planner import Request, plan_exposures
from jwstdask.pipelines.program_plan import second_request
from jwstdask.simulate.stripes import READOUTS, StripedExposure, make_striped
from jwstdask.step import DQInitStep, LinearityStep, RefPixStep
from jwstdask.testing import assert_same_bits, assert_same_products
from tests.conftest import once
from tests.using import crds_of

EXPOSURES = {
    "stripes": StripedExposure(READOUTS["SUB164STRIPE4_DHS"], (1980, 69), nframes=2, ngroups=5),
    "superstripes": StripedExposure(READOUTS["FULL_SUPSTP510"], (1, 40), nframes=2, ngroups=5, seed=2),
    "superstripes read several times": StripedExposure(READOUTS["SUB64P_SUPSTP002"], seed=3),
}
SAVED = ("saturation", "refpix", "jump")
STEPS = {name: {"save_results": True} for name in SAVED}


@pytest.fixture(scope="module")
def made(session_folder):
    """Exposures and their references."""

    def build(folder: Path) -> None:
        found = make_striped(folder, list(EXPOSURES.values()))
        names = [path.name for path in found.uncals]
        (folder / "made.json").write_text(json.dumps({"uncals": names, "environment": found.environment}))

    folder = once(session_folder / "engine_stripes", build)
    found = json.loads((folder / "made.json").read_text())
    with crds_of(SimpleNamespace(environment=found["environment"])):
        yield dict(zip(EXPOSURES, (folder / name for name in found["uncals"]), strict=True))


def run(uncal, folder, executor):
    folder.mkdir()
    options = {**STEPS, "jump": {"save_results": True, "expand_large_events": True}}
    Detector1Pipeline.call(str(uncal), save_results=True, output_dir=str(folder), steps=options, executor=executor)
    assert sorted(path.name for path in folder.parent.iterdir() if path.name.startswith(".")) == []
    return folder


@pytest.fixture(scope="module")
def expected(made, module_folder):
    """Products of each exposure, made in one thread."""
    folder = module_folder("expected")
    found = {kind: run(path, folder / str(number), Serial()) for number, (kind, path) in enumerate(made.items())}
    for products in found.values():
        assert len(list(products.iterdir())) == len(SAVED) + 2
    return found


@pytest.mark.parametrize("kind", EXPOSURES)
@pytest.mark.parametrize(
    ("strip_bytes", "tile_bytes", "executor"),
    [
        pytest.param(1, 800_000, Serial(), id="strips of 16 rows"),
        pytest.param(10**9, 20_000, Serial(), id="small tiles"),
        pytest.param(1, 10**9, Threads(3), id="three threads"),
    ],
)
def test_same_bits_for_any_tiling(made, expected, kind, tmp_path, monkeypatch, strip_bytes, tile_bytes, executor):
    before = hashlib.sha1(made[kind].read_bytes()).hexdigest()
    monkeypatch.setattr(exposure, "STRIP_BYTES", strip_bytes)
    monkeypatch.setattr(passes, "TILE_BYTES", tile_bytes)
    assert_same_products(expected[kind], run(made[kind], tmp_path / "found", executor))
    assert hashlib.sha1(made[kind].read_bytes()).hexdigest() == before


@pytest.mark.parametrize("kind", EXPOSURES)
def test_same_bits_in_memory_and_lazily(made, expected, kind):
    options = {"jump": {"expand_large_events": True}}
    (path,) = expected[kind].glob("*_rateints.fits")
    with open_exposure(str(made[kind])) as ds:
        given = ds.copy(deep=True)
        found = Detector1Pipeline.call(given, steps=options, executor=Serial())
        # jwst's return value is the rate alone.
        (rate,) = expected[kind].glob("*_rate.fits")
        assert_same_bits(open_exposure(rate), found)
        assert_same_bits(ds.load(), given)
    lazy = Detector1Pipeline(steps=options).apply(open_exposure(str(made[kind])))
    assert_same_bits(open_exposure(path), lazy["rateints"].to_dataset().compute())


def test_steps_one_by_one(made, expected, tmp_path):
    """In memory, an exposure in superstripes has flags for each of them until refpix puts them together."""
    kind = "superstripes"
    flagged = DQInitStep.call(str(made[kind]))
    assert flagged["pixeldq"].dims == ("superstripe", "y", "x")
    assert flagged.attrs["meta.model_type"] == "SuperstripeRampModel"
    (before,) = expected[kind].glob("*_saturation.fits")
    with fits.open(before) as file:
        assert file[0].header["DATAMODL"] == "SuperstripeRampModel"
        assert file["PIXELDQ"].shape == (4, 514, 40)
    found = RefPixStep.call(str(before))
    assert found["sci"].shape == (2, 5, 2040, 40)
    assert found.attrs["meta.model_type"] == "RampModel"
    assert "meta.subarray.num_superstripe" not in found.attrs
    assert found["int_times_stripe"].size == 4 * found["int_times"].size == 8


def test_later_steps_refuse_superstripes(made, expected):
    (before,) = expected["superstripes"].glob("*_saturation.fits")
    with pytest.raises(JwstdaskError, match=r"linearity cannot work on superstripes as they are read.*refpix"):
        LinearityStep.call(str(before))
    with pytest.raises(JwstdaskError, match=r"linearity cannot work on superstripes as they are read.*refpix"):
        Detector1Pipeline.call(str(made["superstripes"]), steps={"refpix": {"skip": True}})


def test_same_bits_on_processes(made, expected, tmp_path):
    """Superstripes are put together in a file that all workers see."""
    executor = local_cluster(1)
    try:
        kind = "superstripes read several times"
        assert_same_products(expected[kind], run(made[kind], tmp_path / "found", executor))
    finally:
        executor.close()


def test_stage_2_is_planned_for_the_frame(made):
    (plan,) = plan_exposures(Detector1, [Request(str(made["superstripes"]))], Settings())
    assert plan.shape == (8, 5, 514, 40)
    request = second_request(plan)
    assert request.shape == (2040, 40)
    assert request.meta["meta.subarray.ysize"] == 2040
    assert request.meta["meta.exposure.nints"] == 2
    assert "meta.subarray.num_superstripe" not in request.meta
