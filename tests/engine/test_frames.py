"""Steps on whole frames: from file to file, in memory, lazily, on threads and processes; failures."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import jwstdask
from jwstdask.core.errors import JwstdaskError, StepError, StepUndone
from jwstdask.engine.executor import Serial, Threads, local_cluster
from jwstdask.io.layout import open_layout
from jwstdask.pipeline import Detector1Pipeline
from jwstdask.steps.detector.clean_flicker_noise import CleanFlickerNoiseStep
from jwstdask.testing import assert_same_products
from tests.using import crds_of

STEPS = {
    "jump": {"expand_large_events": True, "save_results": True},
    "clean_flicker_noise": {"skip": False, "single_mask": False, "save_results": True},
    "ramp_fit": {"save_opt": True},
}
KINDS = ("clean_flicker_noise", "fitopt", "jump", "ramp", "rate", "rateints")


@pytest.fixture(scope="module")
def uncal(programs):
    """One exposure of NRCB1, 160 x 160, 2 x 6 groups of BRIGHT2; its CRDS cache is in use."""
    with crds_of(programs.cache("bright2")):
        yield str(programs("bright2").uncals[0])


def run(uncal, folder, executor=None, **steps):
    """Products of Stage 1: kind to path."""
    folder.mkdir(exist_ok=True)
    Detector1Pipeline.call(
        uncal,
        save_results=True,
        output_dir=str(folder),
        executor=executor or Serial(),
        steps=STEPS | steps,
        save_calibrated_ramp=True,
    )
    return {
        path.stem.rpartition("_")[2] if "flicker" not in path.stem else "clean_flicker_noise": path
        for path in folder.iterdir()
    }


@pytest.fixture(scope="module")
def expected(uncal, tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames") / "products"
    run(uncal, folder)
    return folder


def test_products_and_nothing_else(uncal, expected):
    stem = open_layout(uncal).header()["FILENAME"].replace("_uncal.fits", "")
    assert {path.name for path in expected.iterdir()} == {f"{stem}_{kind}.fits" for kind in KINDS}


def test_what_each_product_holds(expected):
    found = {kind: open_layout(str(next(expected.glob(f"*_{kind}.fits")))) for kind in KINDS}
    status = {kind: layout.header().get("S_CLNFNS") for kind, layout in found.items()}
    assert status == {"jump": None} | dict.fromkeys(
        ("clean_flicker_noise", "fitopt", "ramp", "rate", "rateints"), "COMPLETE"
    )
    cleaned, jump = found["clean_flicker_noise"].read("SCI"), found["jump"].read("SCI")
    np.testing.assert_array_equal(cleaned, found["ramp"].read("SCI"))
    np.testing.assert_array_equal(cleaned[:, 0], jump[:, 0])
    assert np.mean(cleaned[:, 1:] != jump[:, 1:]) > 0.9
    for name in ("GROUPDQ", "PIXELDQ"):
        np.testing.assert_array_equal(found["clean_flicker_noise"].read(name), found["jump"].read(name))


@pytest.mark.parametrize("executor", [Threads(2), "cluster"], ids=["threads", "processes"])
def test_the_same_bits_wherever_tasks_run(uncal, expected, tmp_path, executor):
    if executor == "cluster":
        executor = local_cluster(2)
    try:
        run(uncal, tmp_path / "products", executor)
    finally:
        executor.close()
    assert_same_products(expected, tmp_path / "products")


def test_the_same_bits_in_memory_and_lazily(uncal, expected):
    rate = open_layout(str(next(expected.glob("*_rate.fits"))))
    steps = {name: {**values, "save_results": False} for name, values in STEPS.items()}
    called = Detector1Pipeline.call(uncal, steps=steps)
    pipeline = Detector1Pipeline(steps=steps)
    lazy = pipeline.apply(jwstdask.open_exposure(uncal, chunks={"y": 64}), parameter_references=True)
    for found in (called, lazy["rate"]):
        np.testing.assert_array_equal(found["sci"].values, rate.read("SCI"))
        np.testing.assert_array_equal(found["dq"].values, rate.read("DQ"))
        assert found.attrs["meta.cal_step.clean_flicker_noise"] == "COMPLETE"


def test_an_exposure_that_cannot_be_cleaned_is_left_as_it_was(uncal, tmp_path, monkeypatch):
    """The second integration fails when the first one has been changed."""
    original = CleanFlickerNoiseStep.frame_integration

    def fail(self, meta, prepared, shared, exposure, integration):
        if integration == 1:
            raise StepUndone("no background is left")
        original(self, meta, prepared, shared, exposure, integration)

    skipped = run(uncal, tmp_path / "skipped", clean_flicker_noise={"skip": True})
    monkeypatch.setattr(CleanFlickerNoiseStep, "frame_integration", fail)
    failed = run(uncal, tmp_path / "failed")
    for kind in ("ramp", "rate", "rateints"):
        one, two = open_layout(str(failed[kind])), open_layout(str(skipped[kind]))
        assert one.header()["S_CLNFNS"] == "FAILED"
        assert two.header()["S_CLNFNS"] == "SKIPPED"
        np.testing.assert_array_equal(one.read("SCI"), two.read("SCI"))
    in_memory = Detector1Pipeline.call(uncal, steps={"clean_flicker_noise": {"skip": False}})
    assert in_memory.attrs["meta.cal_step.clean_flicker_noise"] == "FAILED"
    with pytest.raises(StepError, match="no background is left"):
        Detector1Pipeline(steps={"clean_flicker_noise": {"skip": False}}).apply(
            jwstdask.open_exposure(uncal, chunks={})
        )["rate"]["sci"].values


def test_what_does_not_suit_the_exposure_has_failed(uncal, tmp_path):
    products = run(uncal, tmp_path / "products", clean_flicker_noise={"skip": False, "fit_method": "fft"})
    assert open_layout(str(products["rate"])).header()["S_CLNFNS"] == "FAILED"


def test_errors_name_the_exposure_and_leave_nothing(uncal, tmp_path, monkeypatch):
    def fail(self, meta, prepared, shared, exposure, integration):
        raise ValueError("of all things")

    monkeypatch.setattr(CleanFlickerNoiseStep, "frame_integration", fail)
    shutil.copy(uncal, tmp_path / "exposure_uncal.fits")
    with pytest.raises(JwstdaskError, match=r"exposure_uncal.fits: clean_flicker_noise: .*of all things"):
        run(str(tmp_path / "exposure_uncal.fits"), tmp_path / "products", jump={})
    assert list((tmp_path / "products").iterdir()) == []
