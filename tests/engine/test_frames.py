"""Steps on whole frames: from file to file, in memory, lazily, on threads and processes; failures."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from astropy.io import fits

import jwstdask
from jwstdask.core.errors import JwstdaskError, StepError, StepUndone
from jwstdask.engine.clusters import local_cluster
from jwstdask.engine.executor import Serial, Threads
from jwstdask.io.layout import open_layout
from jwstdask.pipeline import Detector1Pipeline
from jwstdask.steps.detector.clean_flicker_noise import CleanFlickerNoiseStep
from jwstdask.testing import assert_same_products
from tests.using import crds_of

SAVES = ("save_mask", "save_background", "save_noise")
BESIDES = ("mask", "flicker_bkg", "flicker_noise")
STEPS = {
    "jump": {"expand_large_events": True, "save_results": True},
    "clean_flicker_noise": {"skip": False, "single_mask": False, "save_results": True} | dict.fromkeys(SAVES, True),
    "ramp_fit": {"save_opt": True},
}
KINDS = ("clean_flicker_noise", "fitopt", "jump", "ramp", "rate", "rateints", *BESIDES)


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
    return {kind: path for path in folder.iterdir() for kind in KINDS if path.stem.endswith(f"_{kind}")}


@pytest.fixture(scope="module")
def expected(uncal, module_folder):
    folder = module_folder("frames") / "products"
    run(uncal, folder)
    return folder


def besides(uncal):
    """Names of what is saved besides the products."""
    stem = open_layout(uncal).header()["FILENAME"].replace("_uncal.fits", "")
    return {f"{stem}_{kind}.fits" for kind in BESIDES}


def test_products_and_nothing_else(uncal, expected):
    stem = open_layout(uncal).header()["FILENAME"].replace("_uncal.fits", "")
    assert {path.name for path in expected.iterdir()} == {f"{stem}_{kind}.fits" for kind in KINDS}


def test_what_each_product_holds(expected):
    found = {kind: open_layout(str(next(expected.glob(f"*_{kind}.fits")))) for kind in KINDS}
    status = {kind: layout.header().get("S_CLNFNS") for kind, layout in found.items()}
    assert status == dict.fromkeys(("jump", *BESIDES)) | dict.fromkeys(
        ("clean_flicker_noise", "fitopt", "ramp", "rate", "rateints"), "COMPLETE"
    )
    cleaned, jump = found["clean_flicker_noise"].read("SCI"), found["jump"].read("SCI")
    np.testing.assert_array_equal(cleaned, found["ramp"].read("SCI"))
    np.testing.assert_array_equal(cleaned[:, 0], jump[:, 0])
    assert np.mean(cleaned[:, 1:] != jump[:, 1:]) > 0.9
    for name in ("GROUPDQ", "PIXELDQ"):
        np.testing.assert_array_equal(found["clean_flicker_noise"].read(name), found["jump"].read(name))


def test_the_pipeline_as_the_oracle(uncal, expected, tmp_path):
    """Identical flags; count rates identical but for the last bits of a few, as without the step.

    What is saved besides is identical.
    """
    from jwst.pipeline import Detector1Pipeline as Oracle

    steps = {
        name: {key: value for key, value in values.items() if key in SAVES or not key.startswith("save")}
        for name, values in STEPS.items()
    }
    rate = Oracle.call(uncal, output_dir=str(tmp_path), steps=steps)
    assert {path.name for path in tmp_path.iterdir()} == besides(uncal)
    for path in tmp_path.iterdir():
        own, theirs = open_layout(str(expected / path.name)), fits.open(path)
        np.testing.assert_array_equal(own.read("SCI"), theirs["SCI"].data)
        assert own.header()["DATAMODL"] == theirs[0].header["DATAMODL"]
        assert own.header()["FILENAME"] == theirs[0].header["FILENAME"]
    found = open_layout(str(next(expected.glob("*_rate.fits"))))
    assert rate.meta.cal_step.clean_flicker_noise == "COMPLETE"
    np.testing.assert_array_equal(found.read("DQ"), rate.dq)
    np.testing.assert_allclose(found.read("SCI"), rate.data, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.read("ERR"), rate.err, rtol=1e-6)


@pytest.mark.parametrize("executor", [Threads(2), "cluster"], ids=["threads", "processes"])
def test_the_same_bits_wherever_tasks_run(uncal, expected, tmp_path, executor):
    if executor == "cluster":
        executor = local_cluster(2)
    try:
        run(uncal, tmp_path / "products", executor)
    finally:
        executor.close()
    assert_same_products(expected, tmp_path / "products")


def test_the_same_bits_in_memory_and_lazily(uncal, expected, tmp_path):
    rate = open_layout(str(next(expected.glob("*_rate.fits"))))
    steps = {name: {**values, "save_results": False} for name, values in STEPS.items()}
    called = Detector1Pipeline.call(uncal, output_dir=str(tmp_path / "called"), steps=steps)
    assert {path.name for path in (tmp_path / "called").iterdir()} == besides(uncal)
    assert_same_products(expected, tmp_path / "called", sorted(besides(uncal)))
    pipeline = Detector1Pipeline(steps=steps, output_dir=str(tmp_path / "lazy"))
    lazy = pipeline.apply(jwstdask.open_exposure(uncal, chunks={"y": 64}), parameter_references=True)
    for found in (called, lazy["rate"]):
        np.testing.assert_array_equal(found["sci"].values, rate.read("SCI"))
        np.testing.assert_array_equal(found["dq"].values, rate.read("DQ"))
        assert found.attrs["meta.cal_step.clean_flicker_noise"] == "COMPLETE"
    assert not (tmp_path / "lazy").exists()


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


def test_a_step_may_say_what_is_recorded(uncal, tmp_path, monkeypatch):
    def fail(self, meta, prepared, exposure):
        raise StepUndone("there is nothing to clean", "SKIPPED")

    monkeypatch.setattr(CleanFlickerNoiseStep, "frame_shared", fail)
    assert open_layout(str(run(uncal, tmp_path / "undone")["rate"])).header()["S_CLNFNS"] == "SKIPPED"
    error = pickle.loads(pickle.dumps(StepUndone("there is nothing to clean", "SKIPPED")))
    assert (str(error), error.status) == ("there is nothing to clean", "SKIPPED")


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
