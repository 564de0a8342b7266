"""Wrong parameters are refused before anything is opened, with the nearest right name: exit status 2."""

from __future__ import annotations

import pytest

import jwstdask.io.layout
from jwstdask.core.errors import ParameterError, PlanError
from jwstdask.pipeline import Detector1Pipeline
from jwstdask.pipelines.registry import PIPELINES, find
from jwstdask.step import JumpStep
from jwstdask.steps.registry import CLASSES, step_class


@pytest.fixture(autouse=True)
def nothing_is_opened(monkeypatch):
    """Opening any file fails the test."""

    def opened(path, *arguments):
        raise AssertionError(f"{path} was opened")

    for module in ("jwstdask.pipelines.planner", "jwstdask.pipelines.program_plan", "jwstdask.engine.sources"):
        monkeypatch.setattr(f"{module}.open_layout", opened)
    monkeypatch.setattr(jwstdask.io.layout, "open_layout", opened)


WRONG = [
    (["calwebb_detector1", "x_uncal.fits", "--steps.jump.rejection_treshold=5"], "rejection_threshold"),
    (["calwebb_detector1", "x_uncal.fits", "--steps.jumb.rejection_threshold=5"], "jump"),
    (["calwebb_detector1", "x_uncal.fits", "--save_calibrated_ram=true"], "save_calibrated_ramp"),
    (["calwebb_detector1", "x_uncal.fits", "--steps.jump.override_gian=x.fits"], "override_gain"),
    (["calwebb_detektor1", "x_uncal.fits"], "calwebb_detector1"),
    (["jumpstep", "x_uncal.fits"], "JumpStep"),
    (["jump", "x_ramp.fits", "--rejection_threshold=high"], "must be float"),
    (["jump", "x_ramp.fits", "--rejection_threshold=-1"], ">= 0"),
    (["jump", "x_ramp.fits", "--expand_large_events=perhaps"], "must be bool"),
    (["saturation", "x_uncal.fits", "--n_pix_grow_sat=1.5"], "must be int"),
    (["ramp_fit", "x_ramp.fits", "--algorithm=OLS"], "OLS_C"),
    (["jump", "x_ramp.fits", "--steps.jump.rejection_threshold=5"], "no step"),
    (["jump", "x_ramp.fits", "--rejection_threshold"], "has no value"),
    (["calwebb_detector1", "x_uncal.fits", "--jump.rejection_threshold=5"], "--steps.STEP.PARAMETER"),
    (["calwebb_detector1", "x_uncal.fits", "--pre_hooks=print"], "file to file"),
    (["calwebb_detector1", "x_uncal.fits", "--steps.jump.post_hooks=print"], "file to file"),
    (["calwebb_detector1"], "no input"),
    (["folder_of_files.fits", "--steps.jumb.skip=true"], "jump"),
    (["folder_of_files.fits", "--rejection_threshold=4"], "whole program"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_on_the_command_line(command, arguments, says):
    status, printed = command("run", *arguments)
    assert status == 2, printed
    assert says in printed
    assert "Traceback" not in printed


def test_commands(command):
    status, printed = command("rum", "x.fits")
    assert status == 2 and "Did you mean 'run'?" in printed
    assert command()[0] == 2
    assert command("--help")[0] == 0
    assert command("--version") == (0, f"jwstdask {jwstdask.__version__}\n")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: JumpStep.call("x.fits", rejection_treshold=5), "Did you mean 'rejection_threshold'"),
        (lambda: JumpStep.call("x.fits", rejection_threshold="high"), "must be float"),
        (lambda: JumpStep.call("x.fits", rejection_threshold=-1), ">= 0"),
        (lambda: JumpStep(rejection_treshold=5), "Did you mean 'rejection_threshold'"),
        (lambda: JumpStep(expand_large_events="perhaps"), "must be bool"),
        (lambda: setattr(JumpStep(), "rejection_treshold", 5), "Did you mean 'rejection_threshold'"),
        (lambda: Detector1Pipeline.call("x.fits", steps={"jumb": {"skip": True}}), "Did you mean 'jump'"),
        (lambda: Detector1Pipeline.call("x.fits", steps={"jump": {"skipp": True}}), "Did you mean 'skip'"),
        (lambda: Detector1Pipeline(steps={"jumb": {"skip": True}}), "Did you mean 'jump'"),
        (lambda: Detector1Pipeline().call("x.fits", save_result=True), "Did you mean 'save_results'"),
        (lambda: Detector1Pipeline.call("x.fits", steps={"jump": {"override_gian": "g"}}), "override_gain"),
        (lambda: Detector1Pipeline.call("x.fits", steps={"jump": {"pre_hooks": [print]}}), "one by one"),
        (lambda: JumpStep.call("x.fits", pre_hooks=["print"]), "not callable"),
    ],
)
def test_in_python(call, says):
    with pytest.raises((ParameterError, PlanError), match=says):
        call()


def test_attributes_that_are_no_parameters():
    with pytest.raises(AttributeError, match="Did you mean 'rejection_threshold'"):
        JumpStep().rejection_treshold
    with pytest.raises(AttributeError, match="no attribute"):
        import jwstdask.pipeline

        jwstdask.pipeline.Detektor1
    assert JumpStep().rejection_threshold == 4.0
    assert Detector1Pipeline().jump.rejection_threshold == 4.0
    assert "rejection_threshold" in dir(JumpStep())


@pytest.mark.parametrize("name", [*PIPELINES, *CLASSES])
def test_names(name):
    """Alias, jwst's class name, and jwst's class name with its module all name the same."""
    target = find(name)
    assert find(target.class_name) is target
    assert find(f"jwst.step.{target.class_name}") is target


def test_every_step_says_what_it_is():
    for alias in CLASSES:
        step = step_class(alias)
        assert step.alias == alias and step.class_name == CLASSES[alias]
        assert step.kind in ("block", "frame", "metadata", "association")
        assert step.__doc__ and step.status
