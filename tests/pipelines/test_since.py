"""What has to be done again since an earlier run: exposures with other references or parameters, and what follows."""

from __future__ import annotations

import os
import shutil

import pytest
from astropy.io import fits

from jwstdask.refs.parameters import read_parameters, write_parameters
from jwstdask.simulate.contexts import copied, newer_context
from tests.program.conftest import EXPOSURES, contents, tasks_of

LATE = "2023-07-15 03:21:40"
"""Between the second and the third exposure."""


@pytest.fixture
def field(field_of):
    """The field with a cache of its own, which tests change."""
    field_of.cache = copied(field_of.cache, field_of.folder / "cache")
    return field_of


@pytest.fixture
def earlier(field, quiet):
    """A folder of its own with the products of all three stages."""
    out = field.folder / "out"
    shutil.copytree(quiet / "out", out)
    return out


def name(number: int, kind: str) -> str:
    return f"jw01234001001_02101_{number:05d}_nrcb1_{kind}.fits"


def test_nothing_changed(field, earlier, command):
    context = newer_context(field.cache, {})
    status, printed = command("plan", field.inputs, "--since", earlier, "--context", context, f"--output_dir={earlier}")
    assert status == 0, printed
    assert "0 tasks are done again, 9 are as they were" in printed
    assert "0 tasks, " in printed


def test_other_flat_of_some_exposures(field, earlier, command):
    """Stage 2 of the late exposures and Stage 3, nothing else, is planned and done."""
    context = newer_context(field.cache, {"flat": LATE})
    words = ("--since", earlier, "--context", context, f"--output_dir={earlier}")
    before = contents(earlier)
    status, printed = command("plan", field.inputs, *words)
    assert status == 0, printed
    assert "3 tasks are done again, 6 are as they were" in printed
    assert "flat jwst_nircam_flat_0001.fits -> jwst_nircam_flat_0002.fits: 2 tasks" in printed
    assert [number for number in range(1, 5) if f"    {name(number, 'rate')}\n" in printed] == [3, 4]
    assert "calwebb_image3, members are made again: 1 task" in printed
    assert "calwebb_detector1" not in printed
    status, printed = command("run", field.inputs, *words, "--threads=1", "--no-report")
    assert status == 0, printed
    begun = tasks_of(earlier, "started")
    assert [task for task in begun if "image2" in task] == [f"calwebb_image2 {name(k, 'cal')}" for k in (3, 4)]
    assert len(begun) == 3 and sum("image3" in task for task in begun) == 1
    after = contents(earlier)
    changed = {path for path in after if after[path] != before[path] and path != "report.html"}
    assert {name(1, "rate"), name(3, "rate"), name(1, "cal"), name(1, "i2d")}.isdisjoint(changed)
    assert {name(3, "cal"), name(4, "i2d")} <= changed
    # nothing is left to do under the new context
    status, printed = command("run", field.inputs, *words[2:], "--threads=1", "--no-report")
    assert "9 of 9 done" in printed and tasks_of(earlier, "started") == []


def test_into_another_folder(field, earlier, command):
    """What is as it was is taken from the earlier run; products are those of a whole run under the new context."""
    context = newer_context(field.cache, {"superbias": "2023-07-15 03:22:40"})
    again, whole = field.folder / "again", field.folder / "whole"
    status, printed = command(
        "run",
        field.inputs,
        "--since",
        earlier,
        "--context",
        context,
        f"--output_dir={again}",
        "--threads=1",
        "--no-report",
    )
    assert status == 0, printed
    assert "superbias jwst_nircam_superbias_0001.fits -> jwst_nircam_superbias_0002.fits: 1 task\n" in printed
    assert "calwebb_image2, follows from calwebb_detector1: 1 task" in printed
    assert sorted(path.name for path in again.glob("*_cal.fits")) == [name(4, "cal")]
    status, printed = command(
        "run", field.inputs, "--context", context, f"--output_dir={whole}", "--threads=1", "--no-report"
    )
    assert status == 0, printed
    here, there = contents(again), contents(whole)
    mosaics = [path for path in here if path.endswith("_i2d.fits") and "-o001" in path]
    assert len(mosaics) == 1
    for path in [name(4, "rate"), name(4, "cal"), *mosaics]:
        assert without_header(here[path]) == without_header(there[path]), path


def without_header(parts):
    """Names of the references of unchanged exposures' context stand in headers and tables of headers."""
    return {key: value for key, value in parts.items() if key not in ("header", "HDRTAB", "ASDF")}


def test_other_parameters(field, earlier, command):
    """Of a parameter reference: all exposures, from Stage 1 on."""
    context = newer_context(field.cache, {"pars-jumpstep": "2022-05-01 00:00:00"})
    (path,) = field.cache.path.rglob("jwst_nircam_pars-jumpstep_0002.asdf")
    found = read_parameters(path)
    write_parameters(path, found.class_name, found.name, {**found.parameters, "rejection_threshold": 5.5})
    status, printed = command("plan", field.inputs, "--since", earlier, "--context", context, f"--output_dir={earlier}")
    assert status == 0, printed
    assert "jump.rejection_threshold 4.0 -> 5.5: 4 tasks" in printed
    assert f"{2 * EXPOSURES + 1} tasks are done again, 0 are as they were" in printed


def test_other_content_of_a_reference(field, earlier, command):
    (path,) = field.cache.path.rglob("jwst_nircam_flat_0001.fits")
    with fits.open(path, "update") as hdus:
        hdus["SCI"].data[3, 3] *= 1.5
    status, printed = command("plan", field.inputs, "--since", earlier, f"--output_dir={earlier}")
    assert status == 0, printed
    assert "flat jwst_nircam_flat_0001.fits -> jwst_nircam_flat_0001.fits (other content): 4 tasks" in printed


def test_new_and_lost(field, earlier, command):
    """What the earlier run has not done, and what is no more there."""
    shutil.copy(field.inputs / name(1, "uncal"), field.inputs / name(7, "uncal"))
    (earlier / name(2, "cal")).unlink()
    status, printed = command("plan", field.inputs, "--since", earlier, f"--output_dir={earlier}")
    assert status == 0, printed
    assert "calwebb_detector1, was not done in it: 1 task" in printed
    assert "calwebb_image2, a product of it is gone: 1 task" in printed


def test_words_of_the_earlier_run(field, command, monkeypatch):
    """Without inputs, those of the earlier run hold, with its parameters; also from another folder."""
    out = field.folder / "own"
    monkeypatch.chdir(field.folder)
    words = ("in", "--through=1", "--steps.jump.rejection_threshold=4.5", "--output_dir=own", "--threads=1")
    status, printed = command("run", *words, "--no-report")
    assert status == 0, printed
    context = newer_context(field.cache, {"gain": LATE})
    (field.folder / "elsewhere").mkdir()
    monkeypatch.chdir(field.folder / "elsewhere")
    status, printed = command("plan", "--since", out, "--context", context)
    assert status == 0, printed
    assert "gain jwst_nircam_gain_0001.fits -> jwst_nircam_gain_0002.fits: 2 tasks" in printed
    assert "2 tasks are done again, 2 are as they were" in printed
    assert "rejection_threshold = 4.5 (command line)" in printed
    assert f"-> {out}/" in printed
    status, printed = command("plan", "--since", out, "--context", context, "--steps.jump.rejection_threshold=6")
    assert "jump.rejection_threshold 4.5 -> 6.0: 4 tasks" in printed


def test_a_saved_plan_of_what_is_to_be_done_again(field, earlier, command):
    context = newer_context(field.cache, {"flat": LATE})
    plan = field.folder / "plan.yaml"
    status, printed = command(
        "plan", field.inputs, "--since", earlier, "--context", context, f"--output_dir={earlier}", "--output", plan
    )
    assert status == 0, printed
    status, printed = command("run", plan, "--threads=1", "--no-report")
    assert status == 0, printed
    assert [task for task in tasks_of(earlier, "started") if "image2" in task] == [
        f"calwebb_image2 {name(k, 'cal')}" for k in (3, 4)
    ]
    assert len(tasks_of(earlier, "started")) == 3


def test_no_earlier_run(field, command, tmp_path):
    status, printed = command("plan", field.inputs, "--since", tmp_path / "nowhere")
    assert status == 2 and "has no journal of a run" in printed
    status, printed = command("plan", "--since", tmp_path / "nowhere")
    assert status == 2 and "has no journal that tells its inputs. Give the inputs" in printed
    uncal = field.inputs / name(1, "uncal")
    status, printed = command("plan", "calwebb_detector1", uncal, "--since", tmp_path)
    assert status == 2 and "--since is for whole programs" in printed
    assert not os.path.exists(tmp_path / "nowhere")
