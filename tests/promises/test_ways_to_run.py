"""The ways to run of jwst: .call, .run, attributes, lists, associations, hooks; files or Datasets."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import xarray as xr

import jwstdask
from jwstdask.core.errors import InputError, JwstdaskError, ParameterError, PlanError
from jwstdask.engine.executor import Serial, Threads
from jwstdask.pipeline import Detector1Pipeline, Image2Pipeline, Image3Pipeline
from jwstdask.step import DQInitStep, JumpStep, RampFitStep, ResampleStep, SaturationStep
from jwstdask.testing import assert_same_bits

WITHOUT_REFERENCES = {"jump": {"expand_large_events": False}}


@pytest.fixture
def rate(products):
    return str(next(products.glob("*_rate.fits")))


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path, monkeypatch):
    """Products without a folder would go to the current one, as jwst's."""
    monkeypatch.chdir(tmp_path)


def test_call_without_saving_writes_nothing(uncal, products, tmp_path):
    found = Detector1Pipeline.call(uncal)
    assert_same_bits(jwstdask.open_exposure(next(products.glob("*_rate.fits"))), found)
    assert found["sci"].chunks is None
    assert list(tmp_path.iterdir()) == []


def test_call_saves_where_it_is_told(uncal, products, tmp_path):
    found = Detector1Pipeline.call(uncal, save_results=True, output_dir=str(tmp_path / "new"))
    assert sorted(os.listdir(tmp_path)) == ["new"]
    assert sorted(name.split("_")[-1] for name in os.listdir(tmp_path / "new")) == ["rate.fits", "rateints.fits"]
    assert found.encoding["source"].startswith(str(tmp_path / "new"))
    assert_same_bits(jwstdask.open_exposure(next(products.glob("*_rate.fits"))), found)


@pytest.mark.parametrize("opened", [False, True], ids=["file", "dataset"])
def test_a_step_saves_its_result_whatever_the_pipeline_does(uncal, tmp_path, opened):
    steps = {"jump": {"save_results": True}}
    given = jwstdask.open_exposure(uncal) if opened else uncal
    Detector1Pipeline.call(given, steps=steps, output_dir=str(tmp_path / "some"))
    Detector1Pipeline.call(uncal, steps=steps, output_dir=str(tmp_path / "all"), save_results=True)
    assert [name.split("_")[-1] for name in os.listdir(tmp_path / "some")] == ["jump.fits"]
    (some,), (alike,) = ((tmp_path / name).glob("*_jump.fits") for name in ("some", "all"))
    assert_same_bits(jwstdask.open_exposure(some), jwstdask.open_exposure(alike))


def test_a_dataset_is_saved_as_a_file_is(uncal, products, tmp_path):
    from jwstdask.testing import assert_same_products

    Detector1Pipeline.call(jwstdask.open_exposure(uncal), save_results=True, output_dir=str(tmp_path))
    names = sorted(os.listdir(tmp_path))
    assert [name.split("_")[-1] for name in names] == ["rate.fits", "rateints.fits"]
    assert assert_same_products(products, tmp_path, names) == names


def test_intermediate_products_of_a_dataset(uncal, tmp_path):
    options = {"save_results": True, "steps": {"jump": {"save_results": True}}}
    Detector1Pipeline.call(uncal, output_dir=str(tmp_path / "file"), **options)
    Detector1Pipeline.call(jwstdask.open_exposure(uncal), output_dir=str(tmp_path / "memory"), **options)
    (file,), (memory,) = ((tmp_path / folder).glob("*_jump.fits") for folder in ("file", "memory"))
    assert_same_bits(jwstdask.open_exposure(file), jwstdask.open_exposure(memory))


def test_run_uses_attributes_and_no_parameter_references(uncal):
    """.call applies the references' parameters, which search for snowballs; .run the instance's."""
    pipeline = Detector1Pipeline()
    pipeline.jump.rejection_threshold = 20
    by_run = pipeline.run(uncal)
    assert_same_bits(by_run, pipeline(uncal))
    assert_same_bits(by_run, Detector1Pipeline(steps={"jump": {"rejection_threshold": 20}}).run(uncal))
    tree = pipeline.apply(uncal)
    assert_same_bits(by_run, tree["rate"].to_dataset())
    default = Detector1Pipeline().run(uncal)
    assert (default["dq"].values != by_run["dq"].values).any()
    assert pipeline.get_pars()["steps"]["jump"]["rejection_threshold"] == 20
    assert repr(JumpStep(rejection_threshold=7)) == "JumpStep(rejection_threshold=7.0)"


def test_steps_of_call(uncal):
    high = Detector1Pipeline.call(uncal, steps={"jump": {"rejection_threshold": 1000.0}})
    low = Detector1Pipeline.call(uncal, steps={"jump": {"rejection_threshold": 3.0}})
    jumps = [int(item.jwst.flagged("JUMP_DET").sum()) for item in (high, low)]
    assert jumps[0] < jumps[1]


def test_lists_come_back_in_order(program):
    found = Detector1Pipeline.call([program.uncals[1], str(program.uncals[0])])
    names = [item.attrs["meta.filename"] for item in found]
    assert [name.split("_")[2] for name in names] == ["00002", "00001"]


def test_stage_2_gives_lists(rate):
    (cal,) = Image2Pipeline.call(rate)
    assert cal.attrs["meta.cal_step.photom"] == "COMPLETE"
    assert cal.jwst.stage == 2


def test_stage_2_of_an_association(program, products, rate, tmp_path):
    given = json.loads(program.associations[f"image2_{os.path.basename(rate).removesuffix('_rate.fits')}"].read_text())
    given["products"][0]["members"][0]["expname"] = rate
    path = tmp_path / "jw1_image2_asn.json"
    path.write_text(json.dumps(given))
    (cal,) = Image2Pipeline.call(str(path))
    assert cal.attrs["meta.asn.table_name"] == path.name
    assert_same_bits(jwstdask.open_exposure(next(products.glob("*_cal.fits"))), cal)


@pytest.mark.parametrize("executor", [Serial(), Threads(2)])
def test_executors(uncal, products, executor):
    expected = jwstdask.open_exposure(next(products.glob("*_rate.fits")))
    assert_same_bits(expected, Detector1Pipeline.call(uncal, executor=executor))


def test_context(uncal):
    with pytest.raises(JwstdaskError, match=r"jwst_0001\.pmap"):
        Detector1Pipeline.call(uncal, context="jwst_0001.pmap")


def test_override_of_a_reference(programs, uncal, tmp_path):
    missing = str(tmp_path / "gain.fits")
    with pytest.raises(JwstdaskError, match=r"gain\.fits.*Correct the path"):
        JumpStep.call(uncal, override_gain=missing)
    step = JumpStep()
    step.override_gain = missing
    with pytest.raises(JwstdaskError, match=r"gain\.fits.*Correct the path"):
        step.run(uncal)


# Hooks --------------------------------------------------------------------------------------------------------------


def test_hooks_run_before_and_after(uncal):
    """A hook gets the Dataset and may return another; None keeps it."""
    calls = []

    def look(ds):
        calls.append((ds["sci"].ndim, ds.attrs.get("meta.cal_step.dq_init")))

    def brighter(ds):
        return ds.assign(sci=ds["sci"] + np.float32(1))

    found = DQInitStep.call(uncal, pre_hooks=[brighter, look], post_hooks=[look, brighter])
    plain = DQInitStep.call(uncal)
    assert calls == [(4, None), (4, "COMPLETE")]
    np.testing.assert_array_equal(found["sci"], plain["sci"] + np.float32(2))


def test_hooks_of_a_pipeline_lazily_and_not(uncal, tmp_path):
    def bright(ds):
        return ds.assign(sci=ds["sci"] * np.float32(2))

    pipeline = Detector1Pipeline(post_hooks=[bright])
    lazy = pipeline.apply(uncal)
    assert_same_bits(lazy["rate"].to_dataset(), pipeline.run(uncal))
    saved = Detector1Pipeline.call(uncal, post_hooks=bright, save_results=True, output_dir=str(tmp_path))
    written = jwstdask.open_exposure(next(tmp_path.glob("*_rate.fits")))
    assert_same_bits(saved, written)
    plain = Detector1Pipeline.call(uncal)
    np.testing.assert_array_equal(written["sci"], plain["sci"] * np.float32(2))


def test_hooks_that_cannot_be(uncal, rate):
    with pytest.raises(ParameterError, match="one by one"):
        Detector1Pipeline.call(uncal, steps={"jump": {"post_hooks": [print]}})
    with pytest.raises(ParameterError, match="not callable"):
        JumpStep.call(uncal, post_hooks=["print"])
    with pytest.raises(ParameterError, match="from file to file"):
        Image3Pipeline.call([rate], pre_hooks=[print])


# What cannot be done --------------------------------------------------------------------------------------------------


def test_datasets_that_are_no_exposures(uncal):
    with pytest.raises(InputError, match="no variable sci"):
        DQInitStep.call(xr.Dataset())
    ds = jwstdask.open_exposure(uncal)
    with pytest.raises(InputError, match="DETECTOR is missing"):
        DQInitStep.call(ds.assign_attrs({"meta.instrument.detector": None}))
    with pytest.raises(InputError, match=r"7 groups \(NGROUPS\) and SCI has 6"):
        Detector1Pipeline().apply(ds.assign_attrs({"meta.exposure.ngroups": 7}))
    with pytest.raises(InputError, match="Give a Dataset of one exposure"):
        DQInitStep.call(xr.DataTree(ds))


def test_stage_3_needs_files(uncal, rate):
    ds = jwstdask.open_exposure(rate)
    for target in (Image3Pipeline, ResampleStep):
        with pytest.raises(PlanError, match="write_exposure"):
            target.call(ds)
        with pytest.raises(PlanError, match=r"combines exposures"):
            target().apply(ds)


def test_errors_name_the_exposure(tmp_path):
    with pytest.raises(JwstdaskError, match=r"absent_uncal\.fits: there is no such file"):
        Detector1Pipeline.call(str(tmp_path / "absent_uncal.fits"))
    with pytest.raises(InputError, match=r"absent_uncal\.fits"):
        Detector1Pipeline().apply(str(tmp_path / "absent_uncal.fits"))


def test_nothing_to_do(rate):
    """A skipped step that runs alone does its work, as in jwst; ramp_fit of an image has nothing to fit."""
    with pytest.raises(JwstdaskError):
        RampFitStep.call(rate)


def test_saturation_alone_is_saturation_in_the_pipeline(uncal, tmp_path):
    """The product that the pipeline saves after a step is what the steps give one after the other."""
    steps = {"saturation": {"save_results": True}, "ipc": {"skip": True}}
    Detector1Pipeline.call(uncal, save_results=True, output_dir=str(tmp_path), steps=steps)
    saved = jwstdask.open_exposure(next(tmp_path.glob("*_saturation.fits")))
    alone = SaturationStep.call(DQInitStep.call(uncal))
    assert_same_bits(saved, alone)
