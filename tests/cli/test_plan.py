"""``jwstdask plan`` takes what run takes, and says what run will do."""

from __future__ import annotations

import os

import pytest

from jwstdask.core.settings import Layer, Settings
from jwstdask.engine import exposure
from jwstdask.engine.executor import Serial
from jwstdask.engine.passes import tile_shape
from jwstdask.pipelines.planner import Request, plan_exposures
from jwstdask.pipelines.registry import find
from jwstdask.pipelines.run import run_chains
from jwstdask.pipelines.settings import program_settings
from jwstdask.refs.parameters import read_parameters, write_parameters


@pytest.fixture
def files(tmp_path):
    """Parameter files: of a pipeline, of a step in ASDF and of one as text."""
    pipeline, step, text = tmp_path / "mine.asdf", tmp_path / "jump.asdf", tmp_path / "fit.cfg"
    steps = {"jump": ("JumpStep", {"rejection_threshold": 7.0, "after_jump_flag_dn1": 5.0})}
    write_parameters(pipeline, "Detector1Pipeline", "Detector1Pipeline", {"save_calibrated_ramp": True}, steps)
    write_parameters(step, "JumpStep", "jump", {"rejection_threshold": 8.0})
    text.write_text('name = "ramp_fit"\nclass = "jwst.ramp_fitting.ramp_fit_step.RampFitStep"\nsave_opt = True\n')
    return pipeline, step, text


@pytest.mark.parametrize(
    "words",
    [
        ["calwebb_detector1", "UNCAL", "--steps.jump.rejection_threshold=5"],
        ["jump", "UNCAL", "--rejection_threshold=5"],
        ["UNCAL", "--through", "2", "--steps.jump.rejection_threshold=5"],
        ["MINE", "UNCAL", "--steps.jump.rejection_threshold=5"],
    ],
)
def test_the_words_of_run(command, uncal, files, words, tmp_path):
    words = [{"UNCAL": uncal, "MINE": str(files[0])}.get(word, word) for word in words]
    status, printed = command("plan", *words, f"--output_dir={tmp_path / 'out'}")
    assert status == 0, printed
    assert "rejection_threshold = 5.0 (command line)" in printed
    assert command("run", *words, f"--output_dir={tmp_path / 'out'}", "--dry-run") == (status, printed)
    assert not (tmp_path / "out").exists()


def test_parameter_files_of_a_program(command, program, files):
    """Files of pipelines and steps in order, parameters above them; each goes where it belongs."""
    status, printed = command("plan", program.path, *files, "--through=1", "--steps.jump.after_jump_flag_time1=3")
    assert status == 0, printed
    assert "rejection_threshold = 8.0 (jump.asdf)" in printed
    assert "after_jump_flag_dn1 = 5.0 (mine.asdf)" in printed
    assert "after_jump_flag_time1 = 3.0 (command line)" in printed
    assert "save_opt = True (fit.cfg)" in printed
    assert "_ramp.fits" in printed and "_fitopt.fits" in printed
    status, reverse = command("plan", files[1], files[0], program.path, "--through=1")
    assert status == 0, reverse
    assert "rejection_threshold = 7.0 (mine.asdf)" in reverse


def test_wrong_parameter_files(command, program, tmp_path):
    path = tmp_path / "x.asdf"
    write_parameters(path, "JumpStep", "jump", {"rejection_treshold": 8.0})
    status, printed = command("plan", program.path, path)
    assert status == 2 and "rejection_threshold" in printed and "x.asdf" in printed
    write_parameters(path, "JumbStep", "jump", {})
    status, printed = command("plan", program.path, path)
    assert status == 2 and "Did you mean 'JumpStep'" in printed


def test_one_way_to_split_parameters():
    """Steps that two pipelines have get their parameters in both; the files lie below."""
    requests = program_settings(Settings(output_dir="d"), "test", {"resample": {"pixfrac": 0.5}, "jump": {}})
    assert {name for name, item in requests.items() if item.layers[-1].steps.get("resample")} == {
        "calwebb_image2",
        "calwebb_image3",
    }
    assert all(item.output_dir == "d" and item.layers[-1].origin == "test" for item in requests.values())


def test_an_override_that_is_not_there(command, uncal):
    option = "--steps.superbias.override_superbias=nowhere.fits"
    status, printed = command("plan", uncal, "--through=1", option)
    assert status == 1
    assert f"superbias.override_superbias: there is no file {os.path.abspath('nowhere.fits')}" in printed
    assert "superbias=nowhere.fits (missing)" in printed
    assert "superbias=N/A" not in printed
    status, printed = command("plan", uncal, "--through=1", "--steps.superbias.override_superbias=N/A")
    assert status == 0
    assert "superbias=N/A" in printed and "ERROR" not in printed


CASES = {
    "rates": ("calwebb_detector1", {}),
    "ramps saved": (
        "calwebb_detector1",
        {"save_calibrated_ramp": True, "steps": {"saturation": {"save_results": True}}},
    ),
    "optional results": ("calwebb_detector1", {"steps": {"ramp_fit": {"save_opt": True}}}),
    "likelihood": ("calwebb_detector1", {"steps": {"ramp_fit": {"save_opt": True, "algorithm": "LIKELY"}}}),
    "no fit": ("calwebb_detector1", {"steps": {"ramp_fit": {"skip": True}}}),
    "one step": ("saturation", {}),
}


@pytest.mark.parametrize("strip_bytes", [8_000_000, 1_000_000, 400_000])
@pytest.mark.parametrize("case", CASES)
def test_chunks_are_those_of_the_run(uncal, tmp_path, monkeypatch, case, strip_bytes):
    """Strips and tiles that the plan names are walked. Nothing of the exposure is compared: one strip is done."""
    monkeypatch.setattr(exposure, "STRIP_BYTES", strip_bytes)
    seen = []

    class Stop(Exception):
        pass

    def walks(work, strip, executor, row_ranges, frame):
        seen.append((row_ranges, tile_shape(work.shape, work.halo), work.halo))
        raise Stop

    monkeypatch.setattr(exposure, "walks", walks)
    name, options = CASES[case]
    steps = options.get("steps", {})
    own = {key: value for key, value in options.items() if key != "steps"}
    settings = Settings((Layer("test", own, steps),), output_dir=str(tmp_path))
    (plan,) = plan_exposures(find(name), [Request(uncal)], settings)
    (outcome,) = run_chains([[plan]], Serial(), grain="exposure")
    assert "Stop" in outcome.error
    ((rows, tile, halo),) = seen
    found = plan.cost.chunks
    assert (found.strips, found.tile, found.halo) == (len(rows), tile, halo)
    assert found.rows == rows[0][1] - rows[0][0]


def test_chunks_are_printed(command, uncal):
    status, printed = command("plan", "calwebb_detector1", uncal)
    assert status == 0
    assert "2 strips of 128 rows, tiles of 64 x 160, " in printed
    assert "NRC_IMAGE, branch NIR" in printed
    line = next(line for line in printed.splitlines() if "_uncal.fits [2, 6, 160, 160]" in line)
    for what in ("memory", " in, ", " out, ", "CPU"):
        assert what in line


def test_stage_3_of_calibrated_images(command, program, uncal, tmp_path):
    status, printed = command("run", uncal, "--through=2", f"--output_dir={tmp_path}", "--no-report")
    assert status == 0, printed
    cal = next(tmp_path.glob("*_cal.fits"))
    status, printed = command("plan", cal, f"--output_dir={tmp_path}", "--steps.tweakreg.skip=true")
    assert status == 0, printed
    assert "calwebb_image3" in printed and "1 members" in printed
    assert "skipped: skip is set" in printed
    assert not list(tmp_path.glob("*t001*"))


def test_own_parameters_are_left_out_of_parameter_files(command, tmp_path):
    """strun reads the file as long as none of them is used."""
    for words, named in ((), False), (("--as_jwst=false",), True):
        path = tmp_path / "guider.asdf"
        assert command("run", "guider_cds", f"--save-parameters={path}", *words)[0] == 0
        assert ("as_jwst" in read_parameters(path).parameters) == named
