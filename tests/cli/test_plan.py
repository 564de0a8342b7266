"""``jwstdask plan`` takes what run takes, and says what run will do."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from astropy.io import fits

from jwstdask.cli.plan import Workers, print_program
from jwstdask.cli.progress import duration
from jwstdask.core.plan import Cost, ExposurePlan
from jwstdask.core.settings import Layer, Settings
from jwstdask.engine import exposure
from jwstdask.engine.executor import Serial
from jwstdask.engine.limits import available_cores
from jwstdask.engine.passes import tile_shape
from jwstdask.engine.resources import for_tasks
from jwstdask.pipelines.cost import PROCESS_BYTES, START_SECONDS, THREAD_BYTES, UNSHARED
from jwstdask.pipelines.planner import Request, plan_exposures
from jwstdask.pipelines.program_plan import ProgramPlan
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
    assert (
        re.search(r"^  superbias +skipped: No SUPERBIAS reference file", printed, re.MULTILINE)
        and "ERROR" not in printed
    )


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
    assert (
        "    read and written in 2 strips of 128 rows; tile after tile of 64 x 160 pixels, and 3 around it, " in printed
    )
    assert "NRC_IMAGE, branch NIR" in printed
    line = next(line for line in printed.splitlines() if "_uncal.fits [2, 6, 160, 160]" in line)
    for what in ("MB memory beside the interpreter's", " in, ", " out, ", "CPU"):
        assert what in line


MB = 1_000_000


def printed_total(capsys, costs, workers, **changes):
    """What is printed in the end about exposures of a memory [MB] and a time [s]."""
    plans = [
        ExposurePlan(f"{number}.fits", "p", cost=Cost(memory * MB, 0, 0, seconds), **changes)
        for number, (memory, seconds) in enumerate(costs)
    ]
    print_program(ProgramPlan([[plan] for plan in plans]), workers)
    return capsys.readouterr().out


def memories(printed):
    """Memory of a process, and what it says to allow [MB]."""
    found = re.search(r"^(\d+) MB memory a process .* allow (\d+) MB a process", printed, re.MULTILINE)
    assert found is not None, printed
    return int(found[1]) - PROCESS_BYTES // MB, int(found[2])


@pytest.mark.parametrize(
    ("workers", "tasks"),
    [
        pytest.param(Workers(1, True), 100, id="one thread"),
        pytest.param(Workers(2, True), 170, id="the two largest"),
        pytest.param(Workers(3, True), 200, id="all"),
        pytest.param(Workers(2), 100, id="one a worker"),
        pytest.param(Workers(), 100, id="a cluster"),
        pytest.param(Workers(8, True), 100 + 7 * THREAD_BYTES // MB, id="strips of one exposure"),
        pytest.param(Workers(8), 100, id="a strip a worker"),
        pytest.param(Workers(8, True, "exposure"), 200, id="exposures are wanted"),
        pytest.param(Workers(2, True, "strip"), 100 + THREAD_BYTES // MB, id="strips are wanted"),
    ],
)
def test_memory_of_a_process(capsys, workers, tasks):
    """What a process does at once, and the interpreter; a run takes tasks with the limit that is named."""
    printed = printed_total(capsys, [(100, 1), (30, 1), (70, 1)], workers)
    found, limit = memories(printed)
    assert found == tasks
    assert for_tasks(limit * MB) >= tasks * MB > for_tasks((limit - 10) * MB)


def test_memory_of_threads_that_resample(capsys):
    """Each has tiles of its own."""
    printed = printed_total(capsys, [(60, 1)], Workers(3, True), products={"i2d": "x_i2d.fits"})
    assert memories(printed)[0] == 180


@pytest.mark.parametrize(
    ("costs", "workers", "seconds"),
    [
        pytest.param([(1, 4)] * 5, Workers(1, True), 20, id="one thread"),
        pytest.param([(1, 4)] * 5, Workers(2, True), 10, id="side by side"),
        pytest.param([(1, 20), (1, 4), (1, 4)], Workers(3), 20, id="none is faster than itself"),
        pytest.param([(1, 20)], Workers(2, True), 20 * (1 + UNSHARED) / 2, id="strips of one"),
        pytest.param([(1, 20)], Workers(1000), 20 * UNSHARED, id="what is not shared"),
    ],
)
def test_time(capsys, costs, workers, seconds):
    printed = printed_total(capsys, costs, workers)
    where = f"in this process with {workers.number} thread" if workers.threads else f"on {workers.number} workers"
    assert f"; about {duration(seconds + START_SECONDS)} {where}" in printed
    assert f", {duration(START_SECONDS)} of it to start" in printed


def test_no_time_where_workers_are_not_known(capsys):
    assert "about" not in printed_total(capsys, [(1, 4)], Workers())


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["--threads=1"], "in this process with 1 thread,"),
        (["--threads=3"], "in this process with 3 threads,"),
        (["--workers=3"], "on 3 workers,"),
        (["--workers=2:5"], "on 5 workers,"),
        ([], f"in this process with {available_cores()} thread"),
    ],
)
def test_where_it_runs(command, uncal, words, where):
    status, printed = command("plan", "calwebb_detector1", uncal, *words)
    assert status == 0
    assert where in printed


def test_a_scheduler_is_not_asked(command, uncal):
    status, printed = command("plan", "calwebb_detector1", uncal, "--scheduler=tcp://nowhere:1")
    assert status == 0
    assert "1 task, " in printed and " about " not in printed


def test_what_cannot_be_run_costs_nothing(command, uncal):
    """Its error stands where its cost would, once; the total is that of the others."""
    total = re.compile(r"^1 task, .*", re.MULTILINE)
    alone = total.search(command("plan", "calwebb_detector1", uncal, "--grain=exposure")[1])[0]
    status, printed = command("plan", "calwebb_detector1", uncal, "nothing.fits", "no.fits", "--grain=exposure")
    assert status == 1
    assert total.search(printed)[0] == f"{alone}; 2 of 3 exposures cannot be run"
    status, printed = command("plan", "calwebb_detector1", uncal, "--steps.superbias.override_superbias=nowhere.fits")
    assert status == 1
    (line,) = [line for line in printed.splitlines() if "_uncal.fits" in line]
    assert line.startswith("  ERROR ") and "there is no file" in line
    assert printed.count("ERROR") == 1
    assert "0 tasks, 0.0 s CPU; 1 of 1 exposure cannot be run" in printed
    assert "about" not in printed and "memory" not in printed and "strips" not in printed


def test_an_error_found_after_the_cost(capsys):
    """Two files of the same product: the second one is refused with its cost predicted."""
    printed = printed_total(capsys, [(100, 50)], Workers(1, True), error="0.fits: is refused")
    assert "0 tasks, 0.0 s CPU; 1 of 1 exposure cannot be run" in printed
    assert "  ERROR 0.fits: is refused" in printed


def test_stage_3_of_calibrated_images(command, program, uncal, tmp_path):
    status, printed = command("run", uncal, "--through=2", f"--output_dir={tmp_path}", "--no-report")
    assert status == 0, printed
    cal = next(tmp_path.glob("*_cal.fits"))
    status, printed = command("plan", cal, f"--output_dir={tmp_path}", "--steps.tweakreg.skip=true")
    assert status == 0, printed
    assert "calwebb_image3" in printed and "1 members" in printed
    assert "skipped: skip is set" in printed
    assert not list(tmp_path.glob("*t001*"))


@pytest.mark.parametrize("factor", [None, 1.5])
def test_steps_that_their_references_skip(command, uncal, tmp_path, factor):
    """The plan says it before the run does."""
    _, printed = command("plan", "calwebb_detector1", uncal)
    reference = re.search(r"gain=(\S+?),", printed)[1]
    path = next(Path(os.environ["CRDS_PATH"]).rglob(reference))
    gain = shutil.copy(path, tmp_path / "gain.fits")
    if factor is not None:
        fits.setval(gain, "GAINFACT", value=factor)
    override = f"--steps.gain_scale.override_gain={gain}"
    _, printed = command("plan", "calwebb_detector1", uncal, override)
    (line,) = [line for line in printed.splitlines() if line.startswith("  gain_scale")]
    assert line.split(maxsplit=1)[1] == (
        "skipped: GAINFACT not found in gain reference file" if factor is None else "gain=gain.fits"
    )
    assert command("run", "calwebb_detector1", uncal, override, f"--output_dir={tmp_path}")[0] == 0
    status = fits.getval(next(tmp_path.glob("*_rate.fits")), "S_GANSCL")
    assert status == ("SKIPPED" if factor is None else "COMPLETE")


def test_own_parameters_are_left_out_of_parameter_files(command, tmp_path):
    """strun reads the file as long as none of them is used."""
    for words, named in ((), False), (("--as_jwst=false",), True):
        path = tmp_path / "guider.asdf"
        assert command("run", "guider_cds", f"--save-parameters={path}", *words)[0] == 0
        assert ("as_jwst" in read_parameters(path).parameters) == named
