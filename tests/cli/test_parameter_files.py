"""Parameter files go both ways between jwst and jwstdask, in both forms."""

from __future__ import annotations

import pytest
from configobj import ConfigObj
from jwst.pipeline import Detector1Pipeline as OracleDetector1
from jwst.step import JumpStep as OracleJump
from jwst.stpipe import Step as OracleStep

import jwstdask
from jwstdask.core.errors import JwstdaskError
from jwstdask.core.params import declared
from jwstdask.core.settings import Settings
from jwstdask.pipeline import Detector1Pipeline
from jwstdask.pipelines.facade import file_layer
from jwstdask.pipelines.planner import Request, plan_exposures
from jwstdask.pipelines.registry import find
from jwstdask.step import JumpStep, SaturationStep

CHANGED = {
    "jump": {"rejection_threshold": 5.5, "expand_large_events": True, "min_jump_area": 12.0},
    "saturation": {"n_pix_grow_sat": 2, "use_readpatt": False},
    "refpix": {"skip": True},
    "ramp_fit": {"suppress_one_group": False, "firstgroup": 1},
}

CFG = """
name = "calwebb_detector1"
class = "jwst.pipeline.Detector1Pipeline"
save_calibrated_ramp = True   # a comment
    [steps]
      [[jump]]
        rejection_threshold = 5.5
        expand_large_events = True
        min_jump_area = 12.0
      [[saturation]]
        n_pix_grow_sat = 2
        use_readpatt = False
      [[refpix]]
        skip = True
      [[ramp_fit]]
        suppress_one_group = False
        firstgroup = 1
"""


@pytest.fixture(params=["asdf", "cfg", "oracle's cfg"])
def parameter_file(request, tmp_path):
    """The same parameters in a file that jwst wrote or reads."""
    if request.param == "cfg":
        path = tmp_path / "calwebb_detector1.cfg"
        path.write_text(CFG)
        return path
    pipeline = OracleDetector1(steps=CHANGED)
    pipeline.save_calibrated_ramp = True
    if request.param == "asdf":
        path = tmp_path / "parameters.asdf"
        pipeline.export_config(path, include_metadata=True)
        return path
    path = tmp_path / "parameters.cfg"
    config = ConfigObj(str(path), unrepr=False)
    config.filename = str(path)
    values = pipeline.get_pars()
    steps = values.pop("steps")
    config.update({"name": "Detector1Pipeline", "class": "jwst.pipeline.Detector1Pipeline", **values, "steps": steps})
    config.write()
    return path


def planned(uncal, layers):
    settings = Settings(tuple(layers), parameter_references=False)
    plan = plan_exposures(Detector1Pipeline.target, [Request(uncal)], settings)[0]
    assert plan.error is None
    return {item.name: item for item in plan.steps}


def test_a_file_of_the_oracle_sets_every_parameter(uncal, parameter_file):
    steps = planned(uncal, [file_layer(parameter_file)])
    oracle = OracleDetector1(steps=CHANGED)
    for name, item in steps.items():
        for parameter in declared(type(item.step)):
            if parameter == "as_jwst":  # Our own, which the oracle has not.
                continue
            expected = getattr(getattr(oracle, name), parameter)
            found = getattr(item.step, parameter)
            if isinstance(expected, list):
                expected = tuple(expected)
            if parameter == "input_dir":
                # An instance of jwst has an empty text where its specification has None.
                expected = expected or None
            assert found == expected, f"{name}.{parameter}"
    assert steps["refpix"].skip == "skip is set"
    assert steps["jump"].origins["rejection_threshold"] == parameter_file.name


def test_the_oracle_reads_what_we_save(command, uncal, tmp_path, programs):
    path = tmp_path / "saved.asdf"
    given = [f"--steps.{step}.{name}={value}" for step, values in CHANGED.items() for name, value in values.items()]
    status, printed = command("run", "calwebb_detector1", *given, f"--save-parameters={path}")
    assert status == 0, printed
    oracle = OracleStep.from_config_file(str(path))
    assert type(oracle) is OracleDetector1
    expected = OracleDetector1(steps=CHANGED)
    for name in Detector1Pipeline.target.step_defs:
        ours, theirs = getattr(oracle, name).get_pars(), getattr(expected, name).get_pars()
        assert ours == theirs, name
    again = planned(uncal, [file_layer(path)])
    assert again["jump"].step.rejection_threshold == 5.5
    assert again["ramp_fit"].step.firstgroup == 1


def test_saved_with_an_input_holds_the_parameter_references(command, uncal, tmp_path):
    """As strun does, which goes on to run."""
    path = tmp_path / "saved.asdf"
    options = ["--steps.jump.skip=true", f"--output_dir={tmp_path}", f"--save-parameters={path}"]
    status, printed = command("run", "calwebb_detector1", uncal, *options)
    assert status == 0, printed
    assert {item.name.split("_nrcb1_")[-1] for item in tmp_path.iterdir()} == {
        "saved.asdf",
        "rate.fits",
        "rateints.fits",
    }
    oracle = OracleStep.from_config_file(str(path))
    references = OracleDetector1.get_config_from_reference(uncal)
    assert references["steps"]["jump"], "the cache has no parameter reference to test with"
    assert str(oracle.jump.expand_large_events) == str(references["steps"]["jump"]["expand_large_events"])
    assert oracle.jump.skip is True


def test_a_step_alone(command, uncal, tmp_path):
    path = tmp_path / "jump.asdf"
    assert command("run", "jump", "--rejection_threshold=7", f"--save-parameters={path}")[0] == 0
    oracle = OracleStep.from_config_file(str(path))
    assert type(oracle) is OracleJump and oracle.rejection_threshold == 7.0
    oracle.rejection_threshold = 8.0
    oracle.export_config(path)
    assert file_layer(path).parameters["rejection_threshold"] == 8.0


def test_the_file_names_the_pipeline(command, uncal, tmp_path, parameter_file):
    """``jwstdask run parameters.asdf exposure``, and what the command line says wins."""
    status, printed = command(
        "run", parameter_file, uncal, "--steps.jump.rejection_threshold=6", "--dry-run", f"--output_dir={tmp_path}"
    )
    assert status == 0, printed
    assert "rejection_threshold = 6.0 (command line)" in printed
    assert f"n_pix_grow_sat = 2 ({parameter_file.name})" in printed
    assert "-> " + str(tmp_path) in printed


def test_config_file_of_call(uncal, tmp_path):
    path = tmp_path / "saturation.asdf"
    path.write_bytes(b"")
    with pytest.raises(JwstdaskError, match=r"saturation\.asdf"):
        SaturationStep.call(uncal, config_file=path)
    from jwst.step import SaturationStep as Oracle

    step = Oracle()
    step.n_pix_grow_sat = 0
    step.export_config(path)
    ramp = jwstdask.open_exposure(uncal)
    by_file = SaturationStep.call(ramp, config_file=path)
    by_keyword = SaturationStep.call(ramp, n_pix_grow_sat=0)
    both = SaturationStep.call(ramp, config_file=path, n_pix_grow_sat=1)
    default = SaturationStep.call(ramp)
    assert (by_file["groupdq"].values == by_keyword["groupdq"].values).all()
    assert (both["groupdq"].values == default["groupdq"].values).all()
    assert (by_file["groupdq"].values != default["groupdq"].values).any()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 'x'\nsave_results = True\n", "class"),
        ("class = 'jwst.pipeline.Detektor1Pipeline'\n", "Detector1Pipeline"),
        ("class = 'jwst.step.JumpStep'\nrejection_treshold = 4\n", "Did you mean 'rejection_threshold'"),
        ("class = 'jwst.step.JumpStep'\nrejection_threshold = high\n", "must be float"),
        ("class = 'jwst.step.JumpStep'\n[steps\n", ""),
    ],
)
def test_wrong_files(command, uncal, tmp_path, text, says):
    path = tmp_path / "wrong.cfg"
    path.write_text(text)
    status, printed = command("run", path, uncal)
    assert status in (1, 2) and "wrong.cfg" in printed and says in printed
    assert "Traceback" not in printed


def test_precedence(uncal, programs):
    """default < parameter reference < file < keyword; attributes and .run use no parameter references."""
    import asdf  # noqa: F401  (the reference is one)

    reference = plan_exposures(Detector1Pipeline.target, [Request(uncal)], Settings())[0]
    jump = next(item for item in reference.steps if item.name == "jump")
    assert jump.origins["expand_large_events"].endswith(".asdf")
    assert jump.step.expand_large_events is not JumpStep().expand_large_events
    without = planned(uncal, [])
    assert without["jump"].step == find("jump")()
