"""Promise: nothing is read or computed before a result is, and then only what the result needs."""

from __future__ import annotations

from unittest import mock

import dask
import numpy as np
import pytest
import xarray as xr

import jwstdask
from jwstdask.core.block import Window
from jwstdask.core.errors import StepError
from jwstdask.core.settings import Settings
from jwstdask.engine import lazy
from jwstdask.engine.passes import Pass
from jwstdask.pipeline import Detector1Pipeline, Image2Pipeline
from jwstdask.pipelines import facade
from jwstdask.step import AssignWcsStep, DQInitStep, FlatFieldStep, JumpStep, RampFitStep
from jwstdask.steps.detector.refpix import RefPixStep
from jwstdask.testing import assert_chunk_invariant, assert_lazy, assert_same_bits

_COUNTED = ("meta.exposure.primary_cosmic_rays", "meta.exposure.extended_emission_events")


@pytest.fixture
def rate(products, program):
    return str(products / program.uncals[0].name.replace("_uncal", "_rate"))


@pytest.fixture
def strips(monkeypatch):
    """Row ranges of the strips that are done, and of those done for their flags alone."""
    done: dict[bool, list] = {False: [], True: []}
    original = Pass.strip

    def strip(work, rows, sink, frame=None, revised=False):
        done[frame is not None and not revised].append(rows)
        return original(work, rows, sink, frame, revised)

    monkeypatch.setattr(Pass, "strip", strip)
    # In this process, whatever cluster other tests have started.
    with dask.config.set(scheduler="threads"):
        yield done


@pytest.mark.parametrize("chunks", [None, False, {"y": 50}])
def test_opening_reads_no_pixel(uncal, chunks):
    with assert_lazy(files=[uncal]):
        ds = jwstdask.open_exposure(uncal, chunks=chunks)
        assert ds.sizes["y"] == 160
        repr(ds)


def test_opening_through_xarray_reads_no_pixel(uncal):
    with assert_lazy(files=[uncal]):
        xr.open_dataset(uncal, engine="jwst", chunks={})


@pytest.mark.parametrize("parameter_references", [False, True])
@pytest.mark.parametrize("chunks", [None, False])
def test_applying_a_pipeline_reads_no_pixel(uncal, chunks, parameter_references):
    ds = jwstdask.open_exposure(uncal, chunks=chunks)
    with assert_lazy(files=[uncal]):
        tree = Detector1Pipeline().apply(ds, parameter_references=parameter_references)
    assert isinstance(tree, xr.DataTree)
    assert sorted(tree.children) == ["rate", "rateints"]
    assert all(dask.is_dask_collection(item.data) for item in tree["rate"].data_vars.values())
    assert tree["rateints"]["sci"].dims == ("integration", "y", "x")


def test_one_product_is_a_dataset(uncal, rate):
    with assert_lazy(files=[uncal, rate]):
        ramp = DQInitStep().apply(uncal)
        cal = Image2Pipeline().apply(rate)
    assert isinstance(ramp, xr.Dataset) and ramp["sci"].ndim == 4
    assert isinstance(cal, xr.Dataset) and cal.attrs["meta.cal_step.photom"] == "COMPLETE"


def test_a_corner_computes_its_strip_alone(uncal, strips):
    """One task a strip: of five strips one runs, and of the rest of the frame only what the steps gather is read."""
    tree = Detector1Pipeline().apply(uncal, rows=32)
    corner = tree["rate"]["sci"][:20, :30]
    with assert_lazy(computes=1) as counts:
        corner.compute()
    assert strips[False] == [(0, 32)]
    settings = Settings(parameter_references=False)
    plan, ds = facade._plan_dataset(Detector1Pipeline.target, jwstdask.open_exposure(uncal), settings)
    halo = sum(item.step.halo for item in plan.active)
    windows = [*lazy._demand(plan, ds.attrs, plan.shape), Window.around(0, 32, 0, 160, halo, (160, 160))]
    planes = plan.shape[0] * (plan.shape[1] + 1)
    # The ramp and its ZEROFRAME; the windows are those of reference pixels and of the rows that jump looks at.
    assert counts.samples_of(uncal) == planes * sum(np.prod(window.shape) for window in windows)
    strips[False].clear()
    tree["rate"]["sci"].compute()
    assert sorted(strips[False]) == [(0, 32), (32, 64), (64, 96), (96, 128), (128, 160)]


def test_a_strip_is_one_task_for_all_products(uncal, strips):
    """All variables of both products come from the same five tasks."""
    tree = Detector1Pipeline().apply(uncal, rows=32)
    gathers = mock.patch.object(RefPixStep, "gather", autospec=True, side_effect=RefPixStep.gather)
    with assert_lazy(computes=1), gathers as gather:
        dask.compute(tree["rate"].to_dataset(), tree["rateints"].to_dataset())
    assert len(strips[False]) == 5
    assert gather.call_count == 1


def test_large_events_need_the_flags_of_the_frame_only_once(uncal, strips):
    tree = Detector1Pipeline(steps={"jump": {"expand_large_events": True}}).apply(uncal, rows=32)
    tree["rate"]["sci"][:4, :4].compute()
    assert len(strips[True]) == 5
    assert strips[False] == [(0, 32)]


@pytest.mark.parametrize("rows", [16, 50, 160])
def test_lazy_products_are_those_of_the_files(uncal, products, rows):
    """With the parameter references, which search for snowballs, as the files were made."""
    tree = Detector1Pipeline().apply(uncal, parameter_references=True, rows=rows)
    for kind in ("rate", "rateints"):
        path = next(products.glob(f"*_{kind}.fits"))
        expected = jwstdask.open_exposure(path)
        found = tree[kind].to_dataset()
        assert_same_bits(expected, found)
        different = {
            name for name in {*expected.attrs, *found.attrs} if expected.attrs.get(name) != found.attrs.get(name)
        }
        assert different == {"meta.date", *_COUNTED}
        assert not set(_COUNTED) & set(found.attrs)
        for name in expected.data_vars:
            assert found[name].dims == expected[name].dims
            assert str(found[name].attrs) == str(expected[name].attrs)


def test_stage_2_in_memory(rate, products):
    cal = Image2Pipeline().apply(rate, parameter_references=True, rows=64)
    expected = jwstdask.open_exposure(next(products.glob("*_cal.fits")))
    assert_same_bits(expected, cal)
    pixels = (np.array([3.0, 70.0]), np.array([5.0, 150.0]))
    np.testing.assert_array_equal(cal.jwst.wcs(*pixels), expected.jwst.wcs(*pixels))


@pytest.mark.parametrize("large_events", [False, True])
def test_chunks_of_the_input_change_nothing(uncal, large_events):
    ways = [None, {"y": 37}, {"integration": 1, "group": 2, "y": 80, "x": 90}]
    pipeline = Detector1Pipeline(steps={"jump": {"expand_large_events": large_events}})
    assert_chunk_invariant(lambda ds: pipeline.apply(ds, rows=64), jwstdask.open_exposure(uncal), ways)


def test_stages_without_files_between(uncal, products):
    rate = Detector1Pipeline().apply(uncal, parameter_references=True)["rate"].to_dataset()
    with assert_lazy(files=[uncal]):
        cal = Image2Pipeline().apply(rate, parameter_references=True)
    assert_same_bits(jwstdask.open_exposure(next(products.glob("*_cal.fits"))), cal)


def test_step_by_step_is_the_pipeline(rate, products):
    """Steps of Stage 2 do the same alone, one after the other."""
    ds = jwstdask.open_exposure(rate)
    for step in (AssignWcsStep(), FlatFieldStep()):
        ds = step.apply(ds)
    both = Image2Pipeline(steps={"photom": {"skip": True}}).apply(rate)
    assert_same_bits(both, ds)


def test_written_lazily(uncal, products, tmp_path):
    rate = Detector1Pipeline().apply(uncal, parameter_references=True, rows=40)["rate"].to_dataset()
    path = jwstdask.write_exposure(rate, tmp_path / "jw1_rate.fits")
    assert_same_bits(jwstdask.open_exposure(next(products.glob("*_rate.fits"))), jwstdask.open_exposure(path))


def _misleading(uncal):
    """A ramp in which group 2 is unusable in the rows that jump looks at first, and usable elsewhere.

    With it 5 of 6 groups are left there, which is another way to search than with 6.
    """
    ds = DQInitStep().apply(jwstdask.open_exposure(uncal)).load()
    sampled = sorted({(2 * k + 1) * 160 // 16 for k in range(8)})
    ds["groupdq"][:, 2, sampled] |= np.uint8(1)
    return ds


def test_what_a_strip_contradicts_is_refused(uncal):
    """jump judges by some rows which groups are unusable everywhere; a frame unlike them must be walked again."""
    ds = _misleading(uncal)
    parameters = {"min_diffs_single_pass": 5}
    late = JumpStep(**parameters).apply(ds, rows=32)
    with pytest.raises(StepError, match=r"jump: .*once more.*use \.call"):
        late["groupdq"].compute()


def test_call_walks_again(uncal):
    """The remedy gives what an exposure gives whose rows do not mislead."""
    ds = _misleading(uncal)
    found = JumpStep.call(ds, min_diffs_single_pass=5)
    honest = ds.copy(deep=True)
    sampled = sorted({(2 * k + 1) * 160 // 16 for k in range(8)})
    honest["groupdq"][:, 2, sampled[0], :3] = 0
    expected = JumpStep.call(honest, min_diffs_single_pass=5)
    rows = slice(sampled[0] + 3, None)
    np.testing.assert_array_equal(found["groupdq"][:, :, rows], expected["groupdq"][:, :, rows])


def test_call_on_a_dataset_is_call_on_its_file(uncal, products):
    ds = jwstdask.open_exposure(uncal)
    rate = Detector1Pipeline.call(ds)
    expected = jwstdask.open_exposure(next(products.glob("*_rate.fits")))
    assert_same_bits(expected, rate)
    assert {name for name in expected.attrs if expected.attrs[name] != rate.attrs.get(name)} == {"meta.date"}


def test_ramp_fit_gives_both(uncal):
    ramp = Detector1Pipeline(steps={"ramp_fit": {"skip": True}}).apply(uncal)
    assert isinstance(ramp, xr.Dataset)
    tree = RampFitStep().apply(ramp, parameter_references=True)
    assert sorted(tree.children) == ["rate", "rateints"]
    rate, rateints = RampFitStep.call(ramp)
    assert_same_bits(tree["rate"].to_dataset(), rate)
    assert_same_bits(tree["rateints"].to_dataset(), rateints)
