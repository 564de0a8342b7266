"""Promise: files and Datasets that are given are left as they are."""

from __future__ import annotations

import hashlib

import pytest

import jwstdask
from jwstdask.pipeline import Detector1Pipeline, Image2Pipeline
from jwstdask.pipelines.registry import PIPELINES
from jwstdask.step import DarkCurrentStep, DQInitStep, JumpStep, RampFitStep, SaturationStep
from jwstdask.steps.registry import CLASSES, step_class
from jwstdask.testing import assert_same_bits


def checksum(path):
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns


def test_files_are_unchanged(programs, program, products):
    """Raw exposures and references, after the products have been made of them."""
    from jwstdask.simulate import make_program

    cache = programs.cache("bright2")
    files = [*program.path.glob("*.fits"), *program.path.glob("*.json"), *cache.references.glob("*")]
    before = {path: checksum(path) for path in files}
    for path in program.uncals[:1]:
        Detector1Pipeline.call(str(path), save_results=True, output_dir=str(products / "again"))
        Image2Pipeline.call(next((products / "again").glob("*_rate.fits")))
    assert {path: checksum(path) for path in files} == before
    # What was on disk before any test is what the simulator writes from the same seed.
    recipe = programs.recipe("bright2")
    again = make_program(
        products / "simulated",
        cache,
        detectors=recipe.detectors,
        filter=recipe.filter,
        subarray=recipe.subarray,
        readpatt=recipe.readpatt,
        ngroups=recipe.ngroups,
        nints=recipe.nints,
        dithers=recipe.dithers,
        seed=recipe.seed,
    )
    assert [checksum(path)[0] for path in again.uncals] == [checksum(path)[0] for path in program.uncals]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    "step", [DQInitStep, SaturationStep, DarkCurrentStep, JumpStep, RampFitStep, Detector1Pipeline]
)
def test_datasets_are_unchanged(uncal, step, lazy):
    ds = jwstdask.open_exposure(uncal).load()
    if step is RampFitStep:
        ds = DQInitStep.call(ds)
    before, attributes = ds.copy(deep=True), dict(ds.attrs)
    if lazy:
        result = step().apply(ds)
        result.compute()
    else:
        step.call(ds)
    assert_same_bits(before, ds)
    assert ds.attrs == attributes
    assert list(ds.variables) == list(before.variables)


def test_products_share_no_memory_with_the_input(uncal):
    import numpy as np

    ds = jwstdask.open_exposure(uncal).load()
    result = DQInitStep.call(ds)
    assert not any(
        np.shares_memory(result[name].values, ds[name].values) for name in ds.data_vars if name in result.data_vars
    )


def test_steps_and_pipelines_are_frozen():
    for target in [*PIPELINES.values(), *map(step_class, CLASSES)]:
        with pytest.raises(AttributeError):
            target().skip = True
