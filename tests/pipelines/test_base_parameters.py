"""Parameters that every step and pipeline has: names of what is saved, and what is refused."""

from __future__ import annotations

import os

import pytest

from jwstdask.core.errors import ParameterError
from jwstdask.core.settings import Layer, Settings
from jwstdask.pipelines.configure import check_layers
from jwstdask.pipelines.planner import Request, plan_exposures
from jwstdask.pipelines.registry import PIPELINES
from tests.using import crds_of

DETECTOR1 = PIPELINES["calwebb_detector1"]


@pytest.mark.parametrize(
    ("own", "step", "name"),
    [
        ({}, {"save_results": True}, "{stem}_jump.fits"),
        ({}, {"output_file": "other_x.fits"}, "other_x_jump.fits"),
        ({"output_file": "mine.fits"}, {"save_results": True}, "mine_jump.fits"),
        ({"output_file": "mine.fits"}, {"save_results": True, "output_use_model": True}, "{stem}_jump.fits"),
        ({"output_file": "mine.fits"}, {"save_results": True, "search_output_file": False}, "{stem}_jump.fits"),
        ({}, {"save_results": True, "suffix": "flags", "output_use_index": False}, "{stem}_flags.fits"),
    ],
)
def test_names_of_what_a_step_saves(programs, own, step, name):
    """As jwst's steps make them, which the second part asks."""
    from jwst.pipeline import Detector1Pipeline

    program = programs("bright2")
    uncal = str(program.uncals[0])
    stem = os.path.basename(uncal).removesuffix("_uncal.fits")
    with crds_of(programs.cache("bright2")):
        layers = (Layer("test", own, {"jump": step}),)
        (plan,) = plan_exposures(DETECTOR1, [Request(uncal)], Settings(layers))
    assert plan.error is None
    assert plan.taps == {"jump": name.format(stem=stem)}

    theirs = Detector1Pipeline(steps={"jump": step}, **own)
    theirs.set_primary_input(uncal)
    given = theirs.jump.output_file
    if theirs.jump.output_use_model or (given is None and not theirs.jump.search_output_file):
        given = os.path.basename(uncal)
    theirs.jump.suffix = theirs.jump.suffix or theirs.jump.default_suffix()
    assert theirs.jump.make_output_path(basepath=given) == plan.taps["jump"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"output_ext": ".asdf"}, "products are FITS files"), ({"input_dir": "elsewhere"}, "inputs are sought where")],
)
def test_what_is_refused(parameters, words):
    for layer in (Layer("test", parameters), Layer("test", {}, {"jump": parameters})):
        with pytest.raises(ParameterError, match=words):
            check_layers(DETECTOR1, [layer])


@pytest.mark.parametrize("parameters", [{"output_ext": "fits"}, {"output_ext": ".fits"}, {"input_dir": None}])
def test_what_says_nothing_new_is_accepted(parameters):
    check_layers(DETECTOR1, [Layer("test", parameters)])
