"""Plans that are saved, changed and done."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest
import yaml
from astropy.io import fits

from jwstdask.program.generation.generate import generate
from jwstdask.program.pool import pool_from_headers, read_pool, write_pool
from jwstdask.refs.parameters import write_parameters
from jwstdask.simulate import Cache
from tests.program.conftest import EXPOSURES, tasks_of


def name(number: int, kind: str) -> str:
    return f"jw01234001001_02101_{number:05d}_nrcb1_{kind}.fits"


@pytest.fixture
def out(field_of):
    return field_of.folder / "out"


@pytest.fixture
def saved(field_of, out, command):
    """Saves the plan of the field, changed by a function of its tree; its path."""

    def save(change=lambda tree: None, *words, suffix="yaml"):
        path = field_of.folder / f"plan.{suffix}"
        status, printed = command("plan", field_of.inputs, f"--output_dir={out}", f"--output={path}", *words)
        assert status == 0, printed
        assert f"plan written to {path}" in printed
        tree = yaml.safe_load(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree) if suffix == "json" else yaml.safe_dump(tree, sort_keys=False))
        return path

    return save


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_nothing_but_what_the_words_do(field_of, saved, complete, command, suffix):
    """A run of the plan after a run of the words has nothing to do in Stages 1 and 2."""
    assert complete == field_of.folder / "out"
    path = saved(suffix=suffix)
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} are up to date" in command("plan", path)[1]
    status, printed = command("run", path, "--threads=1", "--no-report")
    assert status == 0, printed
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} are up to date" in printed
    assert [task.split()[0] for task in tasks_of(complete, "started")] == ["calwebb_image3"]
    # and the other way round
    words = ("--through=3", f"--output_dir={complete}", "--threads=1", "--no-report")
    assert "9 of 9 done" in command("run", field_of.inputs, *words)[1]
    assert tasks_of(complete, "started") == []


def test_what_is_in_it(field_of, saved):
    tree = yaml.safe_load(saved(lambda tree: None, "--steps.jump.rejection_threshold=5").read_text())
    assert tree["jwstdask_plan"] == 1 and tree["context"] == field_of.cache.environment["CRDS_CONTEXT"]
    assert [os.path.basename(item["path"]) for item in tree["exposures"]] == [name(k, "uncal") for k in (1, 2, 3, 4)]
    first = tree["exposures"][0]
    assert first["mtime"] == os.stat(first["path"]).st_mtime_ns and first["ways"] == [1, 2]
    assert first["products"] == [name(1, kind) for kind in ("rate", "rateints", "cal", "i2d")]
    way = tree["ways"][1]
    assert way["pipeline"] == "calwebb_detector1"
    jump = way["steps"]["jump"]
    assert jump["parameters"]["command line"] == {"rejection_threshold": 5.0}
    assert jump["parameters"]["jwst_nircam_pars-jumpstep_0001.asdf"]["expand_large_events"] is True
    assert jump["references"] == {"gain": "jwst_nircam_gain_0001.fits", "readnoise": "jwst_nircam_readnoise_0001.fits"}
    assert "correction not needed" in way["steps"]["group_scale"]["skipped"]
    (association,) = tree["associations"]
    assert [os.path.basename(item["path"]) for item in association["members"]] == [name(k, "cal") for k in (1, 2, 3, 4)]
    assert tree["ways"][association["way"]]["pipeline"] == "calwebb_image3"


def test_changed_by_hand(field_of, saved, out, command):
    """Exposures taken out, parameters and references of some: these are what is done."""
    dark = field_of.folder / "my_dark.fits"
    (source,) = field_of.cache.path.rglob("jwst_nircam_dark_0001.fits")
    shutil.copy(source, dark)

    def change(tree):
        del tree["exposures"][2:]
        tree["ways"][9] = json.loads(json.dumps(tree["ways"][1]))
        tree["ways"][9]["steps"]["jump"]["parameters"]["mine"] = {"rejection_threshold": "6.5"}
        tree["ways"][9]["steps"]["dark_current"]["references"]["dark"] = str(dark)
        tree["exposures"][1]["ways"][0] = 9
        tree["associations"][0]["members"].pop(0)

    path = saved(change)
    status, printed = command("plan", path)
    assert status == 0, printed
    assert "rejection_threshold = 6.5 (mine; plan.yaml, way 9)" in printed and "dark=my_dark.fits" in printed
    assert "1 members" in printed
    status, printed = command("run", path, "--threads=1", "--no-report")
    assert status == 0, printed
    assert "5 of 5 done" in printed
    assert sorted(item.name for item in out.glob("*_cal.fits")) == [name(1, "cal"), name(2, "cal")]
    assert len(list(out.glob("*-o001_*_i2d.fits"))) == 1 and len(list(out.glob("*_crf.fits"))) == 1
    darks = [fits.getval(out / name(k, "rate"), "R_DARK") for k in (1, 2)]
    assert darks == ["crds://jwst_nircam_dark_0001.fits", str(dark)]


def set_in(*keys):
    """A change of the tree: the last of the words is put where the others lead."""

    def change(tree):
        place = tree
        for key in keys[:-2]:
            place = place[key]
        place[keys[-2]] = keys[-1]

    return change


WRONG = {
    "parameter": (
        set_in("ways", 1, "steps", "jump", "parameters", "mine", {"rejection_treshold": 5}),
        "jump has no parameter 'rejection_treshold' (from mine; plan.yaml, way 1). Did you mean 'rejection_threshold'?",
    ),
    "value": (
        set_in("ways", 1, "steps", "jump", "parameters", "mine", {"rejection_threshold": "many"}),
        "jump.rejection_threshold must be float, not 'many' (from mine; plan.yaml, way 1)",
    ),
    "no origin": (
        set_in("ways", 1, "steps", "jump", "parameters", "rejection_threshold", 5.0),
        "parameters stand under their origin, not 5.0. Write `mine: {NAME: VALUE}`",
    ),
    "step": (set_in("ways", 1, "steps", "jumb", {}), "has no step 'jumb' (plan.yaml, way 1). Did you mean 'jump'?"),
    "reference": (
        set_in("ways", 1, "steps", "jump", "references", "gian", "x.fits"),
        "jump has no parameter 'override_gian' (from plan.yaml, way 1). Did you mean 'override_gain'?",
    ),
    "pipeline": (set_in("ways", 1, "pipeline", "calwebb_detector"), "Did you mean 'calwebb_detector1'?"),
    "entry": (set_in("ways", 1, "step", {}), "there is no entry 'step'. Did you mean 'steps'?"),
    "way": (set_in("exposures", 0, "ways", [1, 7]), "nrcb1_uncal.fits: there is no way 7. There are 1, 2, 3."),
    "version": (set_in("jwstdask_plan", 2), "has version 2 of the format, this program knows 1"),
    "suffix": (
        set_in("ways", 1, "parameters", {"mine": {"suffix": "../evil"}}),
        "calwebb_detector1.suffix (from mine; plan.yaml, way 1)",
    ),
}


def test_wrong_by_hand(saved, out, command):
    """Everything that is wrong is told as on the command line, before anything is done."""
    path = saved()
    text = path.read_text()
    for case, (change, message) in WRONG.items():
        tree = yaml.safe_load(text)
        change(tree)
        path.write_text(yaml.safe_dump(tree))
        status, printed = command("run", path, "--threads=1")
        assert status == (1 if case == "version" else 2), (case, printed)
        assert message in printed, (case, printed)
    assert not out.exists()


@pytest.mark.parametrize("mark", ["exposures:", "associations:", "complete:"])
def test_half_a_plan_is_none(saved, out, command, mark):
    """A file that lost its end would do less than was planned."""
    path = saved()
    text = path.read_text()
    path.write_text(text[: text.rindex(mark)])
    status, printed = command("run", path, "--threads=1")
    assert status == 1 and "is cut off: its last entry, `complete: true`, is missing. Make the plan again" in printed
    assert not out.exists()


def test_a_reference_that_is_not_there(saved, command):
    path = saved(set_in("ways", 1, "steps", "jump", "references", "gain", "jwst_nircam_gain_0077.fits"))
    status, printed = command("plan", path)
    assert status == 1 and "jwst_nircam_gain_0077.fits" in printed and "there is no file" in printed


def test_inputs_that_have_changed(field_of, saved, out, command):
    """Other headers are an error of the exposure; the time alone is a note; one that is gone is an error."""
    path = saved()
    with fits.open(field_of.inputs / name(1, "uncal"), "update") as hdus:
        hdus[0].header["SUBARRAY"] = "SUB160"
    now = time.time()
    os.utime(field_of.inputs / name(2, "uncal"), (now, now))
    (field_of.inputs / name(3, "uncal")).unlink()
    status, printed = command("plan", path)
    assert status == 1
    assert f"{name(1, 'uncal')}: has changed since {path} was made. Make the plan again, or take `bytes`" in printed
    assert f"1 inputs were written again since {path} was made, with the same headers ({name(2, 'uncal')})" in printed
    assert f"{name(3, 'uncal')}: there is no such file" in printed
    assert "2 exposures" in printed.split("calwebb_image2")[1].splitlines()[0]
    assert not out.exists()


def test_a_member_that_nobody_makes(field_of, saved, command):
    """Of an association that was given, it is an error that names it; one made here takes what is there."""

    def given(tree):
        tree["associations"][0]["file"] = "given_asn.json"
        del tree["exposures"][0]

    status, printed = command("plan", saved(given))
    assert status == 1
    assert f"1 of 4 members are neither there nor made ({field_of.folder / 'out' / name(1, 'cal')})" in printed
    status, printed = command("plan", saved(given), "--min-members=2")
    assert status == 0 and "3 members" in printed
    status, printed = command("plan", saved(lambda tree: tree["exposures"].pop(0)))
    assert status == 0 and "3 members" in printed


def test_one_pipeline_or_step(field_of, command, out):
    """Plans of single pipelines and steps, with their own parameters and suffixes."""
    path, cfg = field_of.folder / "plan.yaml", field_of.folder / "mine.asdf"
    write_parameters(cfg, "JumpStep", "my_jump", {"rejection_threshold": 7.0})
    uncal = field_of.inputs / name(1, "uncal")
    words = ("--output", path, f"--output_dir={out}")
    assert command("plan", "calwebb_detector1", uncal, "--save_calibrated_ramp=true", *words)[0] == 0
    status, printed = command("run", path, "--threads=1", "--no-report")
    assert status == 0 and (out / name(1, "ramp")).exists(), printed
    for target in (cfg, "jump"):
        status, printed = command("plan", target, out / name(1, "ramp"), *words)
        assert status == 0, printed
        status, printed = command("run", path, "--threads=1", "--no-report")
        assert status == 0, printed
    assert {name(1, "my_jump"), name(1, "jump")} <= {item.name for item in out.iterdir()}


def test_words_that_do_not_go_together(field_of, saved, command):
    path = saved()
    for words in (["--steps.jump.skip=true"], [field_of.inputs], ["--context=jwst_0001.pmap"], ["--through=1"]):
        status, printed = command("run", path, *words)
        assert status == 2 and "is a whole plan" in printed and "change them in the plan" in printed.lower()
    status, printed = command("plan", field_of.inputs, "--output", field_of.folder / "plan.txt")
    assert status == 2 and "a plan is a .yaml or a .json file" in printed


def test_patterns_and_pools(field_of, command, out, monkeypatch):
    monkeypatch.chdir(field_of.folder)
    status, printed = command("plan", "in/*_0000[12]_*_uncal.fits", "--through=1", f"--output_dir={out}")
    assert status == 0 and printed.startswith("2 exposures, "), printed
    status, printed = command("plan", "in/*_rate.fits", "--through=1")
    assert status == 1 and "nothing matches this pattern" in printed
    pool = field_of.inputs / "jw01234_pool.csv"
    write_pool(pool_from_headers(sorted(map(str, field_of.inputs.glob("*_uncal.fits")))), pool)
    (field_of.inputs / name(4, "uncal")).unlink()
    status, printed = command("plan", pool, f"--output_dir={out}")
    assert status == 0, printed
    assert "1 of 4 exposures of " in printed and "3 exposures, " in printed
    expected = {item.products[0].name for item in generate(read_pool(pool)) if item.asn_type == "image3"}
    for product in expected:
        assert f"{product}: 3 members" in printed
    assert expected


def test_two_files_of_one_name(field_of, command, out):
    """They would write the same products: the second one is refused, the first one done."""
    other = field_of.folder / "other"
    other.mkdir()
    shutil.copy(field_of.inputs / name(1, "uncal"), other)
    words = (field_of.inputs / name(1, "uncal"), other / name(1, "uncal"))
    status, printed = command("run", *words, "--through=1", f"--output_dir={out}", "--no-report", "--threads=1")
    assert status == 1 and "1 of 2 failed" in printed
    assert f"{other / name(1, 'uncal')}: {out / name(1, 'rate')} is written of {words[0]}, too" in printed


def test_a_table_of_many(field_of, command, out):
    """A line a mode; --verbose lists the exposures; the missing references are named with the rest counted."""
    folder = field_of.folder / "many"
    folder.mkdir()
    for number in range(1, 31):
        os.link(field_of.inputs / name(1, "uncal"), folder / name(number, "uncal"))
    cache = field_of.cache
    field_of.cache = Cache.open(shutil.copytree(cache.path, field_of.folder / "cache"))
    (flat,) = field_of.cache.path.rglob("jwst_nircam_flat_0001.fits")
    flat.unlink()
    status, printed = command("plan", folder, f"--output_dir={out}", "--through=2", "--threads=4")
    assert status == 1
    assert len(printed.splitlines()) < 70
    (line,) = [line for line in printed.splitlines() if "  1x4x64x64  " in line]
    assert line.split()[:8] == [
        "NIRCAM",
        "F200W",
        "SHORT",
        "SUB64P",
        "RAPID",
        "1x4x64x64",
        "30",
        "1",
    ] and line.endswith("60 (rate, rateints)")
    assert "  missing: jwst_nircam_flat_0001.fits" in printed
    assert "ERROR and 29 more of this kind (--verbose lists them)" in printed
    assert "  30 of 30 exposures cannot be run" in printed
    assert "; 30 of 60 tasks cannot be run\n" in printed and "; 1 reference missing\n" in printed
    status, printed = command("plan", folder, f"--output_dir={out}", "--through=2", "--verbose")
    assert all(f"  {name(number, 'uncal')} [1, 4, 64, 64]: " in printed for number in range(1, 31))
    assert printed.count("ERROR") == 30


def test_stage_3_is_foreseen(field_of, quiet, command):
    """Before its members are written, Stage 3 is planned as it will be done."""
    status, printed = command("plan", field_of.inputs, "--output_dir=out", "--through=3")
    assert status == 0, printed
    shutil.copytree(quiet / "out", field_of.folder / "cals")
    cals = sorted((field_of.folder / "cals").glob("*_cal.fits"))
    status, later = command("plan", *cals, "--output_dir=out", "--through=3")
    assert status == 0, later

    def third(text):
        return text[text.index("calwebb_image3") : text.index("  references")]

    assert third(printed) == third(later)
