"""Promise: steps, plans and tasks are small, travel to workers, and are equal where their parameters are."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from dask.base import tokenize

from jwstdask.core.errors import (
    InputError,
    JwstdaskError,
    ParameterError,
    PlanError,
    ProductError,
    ReferenceFileError,
    StepError,
)
from jwstdask.core.params import declared
from jwstdask.core.settings import Settings
from jwstdask.engine.exposure import StripTask
from jwstdask.engine.parcel import Parcel
from jwstdask.io.product import ProductWriter
from jwstdask.pipeline import Detector1Pipeline, Image2Pipeline
from jwstdask.pipelines.associate import plan_association
from jwstdask.pipelines.planner import Request, plan_exposures
from jwstdask.pipelines.registry import PIPELINES
from jwstdask.program.associations import read_association
from jwstdask.steps.registry import CLASSES, step_class

LARGEST_PLAN = 50_000

TARGETS = [*CLASSES, *PIPELINES]


def target_of(name):
    return PIPELINES.get(name) or step_class(name)


def another(kind, value):
    """Another value of a parameter's type that is in its range."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple):
        return (*value, "x")
    return "x" if value is None else value


@pytest.mark.parametrize("name", TARGETS)
def test_pickle_hash_and_token(name):
    target = target_of(name)
    one, same = target(), target()
    assert pickle.loads(pickle.dumps(one)) == one
    assert one == same and hash(one) == hash(same)
    assert tokenize(one) == tokenize(same) == tokenize(pickle.loads(pickle.dumps(one)))
    for parameter, (kind, _, default) in declared(target).items():
        # Not through coerce: that two values differ is all that counts here.
        other = replace(one, **{parameter: another(kind, default)})
        assert other != one, parameter
        assert tokenize(other) != tokenize(one), parameter
        hash(other)


def test_tokens_tell_steps_apart():
    """Steps of other classes with equal parameters are other steps."""
    tokens = [tokenize(target_of(name)()) for name in TARGETS]
    assert len(set(tokens)) == len(tokens)


def test_tokens_are_those_of_another_process(tmp_path):
    import subprocess
    import sys

    code = (
        "from dask.base import tokenize; from jwstdask.steps.registry import *; print(tokenize(step_class('jump')()))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == tokenize(step_class("jump")())


def test_plans_are_small(uncal, products, program):
    first = plan_exposures(Detector1Pipeline.target, [Request(uncal)], Settings())[0]
    rate = str(next(products.glob("*_rate.fits")))
    second = plan_exposures(Image2Pipeline.target, [Request(rate)], Settings())[0]
    for plan in (first, second):
        assert plan.error is None
        data = pickle.dumps(plan)
        assert len(data) < LARGEST_PLAN
        assert pickle.loads(data) == plan


def test_association_plans_are_small(programs, products, tmp_path):
    import json
    import os

    asn = json.loads(programs("bright2").associations["image3"].read_text())
    cal = str(next(products.glob("*_cal.fits")))
    asn["products"][0]["members"] = [{"expname": os.path.abspath(cal), "exptype": "science"}]
    path = tmp_path / "image3_asn.json"
    path.write_text(json.dumps(asn))
    (plan,) = plan_association(PIPELINES["calwebb_image3"], read_association(str(path)), Settings())
    assert plan.error is None
    assert len(pickle.dumps(plan)) < LARGEST_PLAN
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_what_a_strip_needs_is_small(uncal, tmp_path):
    """Plan, metadata, handles of products: also where much was gathered of the frame."""
    from jwstdask.engine.sources import FileArrays
    from jwstdask.io.metadata import read_metadata

    plan = plan_exposures(Detector1Pipeline.target, [Request(uncal)], Settings(output_dir=str(tmp_path)))[0]
    meta = read_metadata(FileArrays.open(uncal).layout, complete=True)
    writer = ProductWriter(tmp_path / "jw1_rate.fits", "ImageModel", meta, {"sci": ((160, 160), "float32")})
    gathered = Parcel.of({"refpix": np.zeros((500, 5, 2048))}, tmp_path)
    task = StripTask(plan, meta, gathered, {"rate": writer.handle}, {})
    writer.abort()
    assert len(pickle.dumps(task)) < LARGEST_PLAN


@pytest.mark.parametrize(
    "error",
    [
        JwstdaskError("It is broken", "mend it"),
        InputError("jw1_uncal.fits", "truncated", "download it again"),
        ReferenceFileError("gain.fits", "truncated", "fetch it again"),
        ProductError("jw1_rate.fits", "the disk is full", "make room"),
        ParameterError("jump.rejection_threshold must be >= 0"),
        PlanError("There is nothing to process"),
        StepError("jw1_uncal.fits", "jump", "failed", "skip it", place="rows 0:16"),
    ],
)
def test_errors_travel(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)
