"""The commands do what they say, on a small program."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import jwstdask
from jwstdask.core.errors import JwstdaskError
from jwstdask.pipeline import Detector1Pipeline
from jwstdask.pipelines import planner, program_plan
from jwstdask.simulate import Cache
from jwstdask.step import JumpStep, SaturationStep
from jwstdask.testing import assert_same_bits
from tests.using import crds_of


def names(folder):
    """Names of the products; the journal of a program stands beside them."""
    return sorted(
        item.name.split("_02101_0000")[-1] for item in folder.iterdir() if item.name not in (".jwstdask", "logs")
    )


def test_several_inputs(command, program, tmp_path):
    status, printed = command("run", "calwebb_detector1", *program.uncals[:2], f"--output_dir={tmp_path}")
    assert status == 0, printed
    assert names(tmp_path) == [f"{k}_nrcb1_{kind}.fits" for k in (1, 2) for kind in ("rate", "rateints")]
    assert "[1/2] calwebb_detector1" in printed and "[2/2] calwebb_detector1" in printed
    assert re.search(rf"^2 of 2 done in \S+ \S+, products in {re.escape(str(tmp_path))}$", printed, re.MULTILINE)


def test_pipelines_one_after_the_other_are_through(command, program, uncal, tmp_path):
    one, both, report = tmp_path / "one", tmp_path / "both", tmp_path / "report.html"
    assert command("run", "Detector1Pipeline", uncal, "--output_dir", one)[0] == 0
    rate = one / os.path.basename(uncal).replace("uncal", "rate")
    assert command("run", "calwebb_image2", rate, f"--output_dir={one}")[0] == 0
    status, printed = command("run", uncal, "--through", "2", f"--output_dir={both}", "--report", report)
    assert status == 0, printed
    assert "2 of 2 done" in printed and f"report: {report}" in printed
    assert "<html" in report.read_text().lower()
    assert names(one) == names(both) == [f"1_nrcb1_{kind}.fits" for kind in ("cal", "i2d", "rate", "rateints")]
    for name in os.listdir(one):
        assert_same_bits(jwstdask.open_exposure(one / name), jwstdask.open_exposure(both / name))


def test_stage_1_only(command, program, tmp_path):
    status, printed = command("run", program.path, "--through", "1", f"--output_dir={tmp_path}", "--no-report")
    assert status == 0, printed
    assert names(tmp_path) == [f"{k}_nrcb1_{kind}.fits" for k in (1, 2, 3) for kind in ("rate", "rateints")]


def test_associations_of_stage_2(command, program, uncal, tmp_path):
    status, printed = command("run", "calwebb_detector1", uncal, f"--output_dir={tmp_path}")
    assert status == 0, printed
    name = os.path.basename(uncal).replace("_uncal.fits", "")
    given = json.loads(program.associations[f"image2_{name}"].read_text())
    given["products"][0]["name"] = "another_name"
    path = tmp_path / "image2_asn.json"
    path.write_text(json.dumps(given))
    status, printed = command("run", "calwebb_image2", path, f"--output_dir={tmp_path}")
    assert status == 0, printed
    cal = jwstdask.open_exposure(tmp_path / "another_name_cal.fits")
    assert cal.attrs["meta.asn.table_name"] == "image2_asn.json"


def test_a_step_by_its_alias(command, uncal, tmp_path):
    status, printed = command("run", "saturation", uncal, "--n_pix_grow_sat=2", f"--output_dir={tmp_path}")
    assert status == 0, printed
    (path,) = tmp_path.iterdir()
    found = jwstdask.open_exposure(path)
    assert found.attrs["meta.cal_step.saturation"] == "COMPLETE"
    assert_same_bits(found, SaturationStep.call(uncal, n_pix_grow_sat=2))


def test_skip_reasons_stand_in_the_plan(command, programs, uncal, tmp_path):
    arguments = ["run", "calwebb_detector1", uncal, "--steps.refpix.skip=true", "--dry-run", f"--output_dir={tmp_path}"]
    status, printed = command(*arguments)
    assert status == 0, printed
    lines = {line.split()[0]: line for line in printed.splitlines() if line.startswith("  ") and line.split()}
    assert lines["refpix"].split(maxsplit=1)[1] == "skipped: skip is set"
    assert "skipped: " in lines["gain_scale"] or "gain=" in lines["gain_scale"]
    assert lines["jump"].split(maxsplit=1)[1].startswith("gain=")
    assert "NRC_IMAGE, branch NIR" in printed and "-> " in printed and "memory" in printed
    assert list(tmp_path.iterdir()) == []


def test_too_few_groups_are_a_reason(command, programs):
    """The reason is that of the step, and the exposure is calibrated all the same."""
    status, printed = command("plan", programs("one_group").uncals[0], "--through", "1")
    assert status == 0, printed
    assert "skipped: needs more than two groups, has 1" in printed


def test_plan_of_a_program(command, program):
    status, printed = command("plan", program.path, "--steps.jump.rejection_threshold=6")
    assert status == 0, printed
    assert "calwebb_detector1" in printed and "calwebb_image2" in printed
    assert "8 tasks" in printed
    assert "rejection_threshold = 6.0 (command line)" in printed
    assert ".asdf)" in printed
    # Of few exposures each has its mode.
    assert re.search(r"_uncal\.fits \[\d+, \d+, \d+, \d+\]: NIRCAM F200W .*, \d+ MB memory", printed)
    assert "same exposure" not in printed


def test_an_exposure_given_twice_is_told(command, program, tmp_path):
    """Under another name it would count twice in a mosaic."""
    first = Path(program.uncals[0])
    shutil.copy(first, tmp_path / "copy_uncal.fits")
    shutil.copy(first, tmp_path)
    shutil.copy(program.uncals[1], tmp_path)
    status, printed = command("plan", tmp_path, "--through=1")
    assert status == 0, printed
    (line,) = [line for line in printed.splitlines() if "same exposure" in line]
    assert f"mosaics: copy_uncal.fits, {first.name}. Give one of each" in line


@pytest.mark.parametrize("words", [[], ["calwebb_detector1"]])
def test_ctrl_c_is_not_forgotten(command, uncal, tmp_path, monkeypatch, words):
    """Libraries that try imports may take it for a failure of theirs while a program is planned."""
    plan = planner.plan_exposures

    def careless(*arguments):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return plan(*arguments)

    for module in (planner, program_plan):
        monkeypatch.setattr(module, "plan_exposures", careless)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status, printed = command("run", *words, uncal, f"--output_dir={tmp_path / 'out'}")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 130, printed
    assert "Interrupted. Finished products are complete" in printed
    assert not (tmp_path / "out").exists()


def test_refs_check(command, programs, uncal, tmp_path):
    # A cache of its own: others are at work with the shared one at the same time.
    shared = programs.cache("bright2").path
    own = Cache.open(shutil.copytree(shared, tmp_path / "cache", copy_function=os.symlink))
    with crds_of(own):
        _check_refs(command, own.reference("nrcb1", "gain"), uncal)


def _check_refs(command, gain, uncal):
    status, printed = command("refs", "check", uncal, "--through", "2")
    assert status == 0, printed
    assert "jwst_nircam_gain" in printed
    gain.unlink()
    status, printed = command("refs", "check", uncal, "--through", "2")
    assert status == 1
    assert "missing" in next(line for line in printed.splitlines() if gain.name in line)
    status, printed = command("run", "calwebb_detector1", uncal)
    assert status == 1
    assert f"needs {gain.name} (gain), which is not in the cache" in printed and "refs sync" in printed


def test_from_cmdline(uncal, tmp_path):
    JumpStep.from_cmdline([uncal, f"--output_dir={tmp_path}"])
    assert len(list(tmp_path.iterdir())) == 1


def test_installed_command(uncal, tmp_path):
    """The same through ``python -m jwstdask``: what is printed goes to the right streams."""
    command = [sys.executable, "-m", "jwstdask", "explain", "saturation"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("saturation (") and done.stderr == ""


def test_relative_paths_and_expanded_folders(command, uncal, tmp_path, monkeypatch):
    monkeypatch.chdir(os.path.dirname(uncal))
    monkeypatch.setenv("PRODUCTS", str(tmp_path))
    status, printed = command("run", "dq_init", os.path.basename(uncal), "--output_dir=$PRODUCTS/new")
    assert status == 0, printed
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_products_go_to_the_current_folder_by_default(command, uncal, tmp_path, monkeypatch):
    """As strun's do."""
    monkeypatch.chdir(tmp_path)
    assert command("run", "calwebb_detector1", uncal)[0] == 0
    assert names(tmp_path) == [f"1_nrcb1_{kind}.fits" for kind in ("rate", "rateints")]


def test_output_file_and_suffix(command, uncal, tmp_path):
    """As in jwst, the pipeline sets the suffix by what has been done."""
    options = ["--output_file=mine.fits", "--suffix=other", f"--output_dir={tmp_path}"]
    assert command("run", "calwebb_detector1", uncal, *options)[0] == 0
    assert sorted(item.name for item in tmp_path.iterdir()) == ["mine_rate.fits", "mine_rateints.fits"]


@pytest.mark.parametrize("way", ["another folder", "one name"])
def test_only_one_exposure_writes_a_product(command, program, tmp_path, way):
    first, second = program.uncals[:2]
    options = [f"--output_dir={tmp_path / 'products'}"]
    if way == "one name":
        options.append("--output_file=mine")
    else:
        second = shutil.copy(first, tmp_path)
    status, printed = command("run", "calwebb_detector1", first, second, *options)
    assert status == 1
    assert f"{second}: " in printed and f"is written of {first}, too. Give one of them alone" in printed
    assert len(list((tmp_path / "products").iterdir())) == 2
    assert "1 of 2 failed" in printed
    with crds_of(program.cache), pytest.raises(JwstdaskError, match="is written of"):
        Detector1Pipeline.call([first, second], save_results=True, output_dir=str(tmp_path), output_file="mine")


def test_a_file_given_twice_is_calibrated_once(command, uncal, tmp_path):
    status, printed = command("run", "calwebb_detector1", uncal, uncal, f"--output_dir={tmp_path}")
    assert status == 0
    assert f"{uncal} is given 2 times and calibrated once" in printed and "[1/1]" in printed


def test_a_folder_is_no_exposure(command, uncal, tmp_path):
    """The others go on."""
    folder = tmp_path / "folder_uncal.fits"
    folder.mkdir()
    status, printed = command("run", "calwebb_detector1", folder, uncal, f"--output_dir={tmp_path / 'products'}")
    assert status == 1
    assert f"{folder}: this is a folder" in printed and "1 of 2 failed" in printed
    assert len(list((tmp_path / "products").iterdir())) == 2


@pytest.mark.parametrize("reference", ["jump.override_gain", "jump.override_readnoise", "ramp_fit.override_readnoise"])
def test_steps_that_need_their_references(command, uncal, tmp_path, reference):
    """jwst fails, too, where these do not apply; it does without others."""
    status, printed = command("run", "calwebb_detector1", uncal, f"--steps.{reference}=N/A", f"--output_dir={tmp_path}")
    step, _, kind = reference.partition(".override_")
    assert status == 1 and f"{step} cannot do without a {kind} reference, and override says N/A" in printed
    assert not list(tmp_path.iterdir())


def test_what_ramp_fit_and_gain_scale_save(command, uncal, tmp_path):
    """Of both products, in files and in memory the same; what they hold is compared with jwst elsewhere."""
    options = ["--steps.ramp_fit.save_results=True", "--steps.gain_scale.save_results=True"]
    assert command("run", "calwebb_detector1", uncal, *options, f"--output_dir={tmp_path}")[0] == 0
    kinds = ["0_ramp_fit", "1_ramp_fit", "gain_scale", "gain_scaleints", "rate", "rateints"]
    assert names(tmp_path) == [f"1_nrcb1_{kind}.fits" for kind in kinds]
    opened = {kind: jwstdask.open_exposure(next(tmp_path.glob(f"*_nrcb1_{kind}.fits"))) for kind in kinds}
    for kind, product in (("0_ramp_fit", "rate"), ("gain_scaleints", "rateints")):
        np.testing.assert_array_equal(opened[kind]["sci"], opened[product]["sci"])
        assert opened[kind].attrs["meta.model_type"] == opened[product].attrs["meta.model_type"]
    assert "meta.cal_step.gain_scale" not in opened["1_ramp_fit"].attrs
    assert "meta.cal_step.gain_scale" in opened["gain_scale"].attrs


def test_override(command, programs, uncal, tmp_path):
    """A reference of one's own is used and recorded; twice the noise is four times the variance."""
    readnoise = tmp_path / "my_readnoise.fits"
    with fits.open(programs.cache("bright2").reference("nrcb1", "readnoise")) as hdus:
        hdus["SCI"].data = hdus["SCI"].data * 2
        hdus.writeto(readnoise)
    rates = {}
    for name, options in (("default", []), ("mine", [f"--steps.ramp_fit.override_readnoise={readnoise}"])):
        folder = tmp_path / name
        assert command("run", "calwebb_detector1", uncal, *options, f"--output_dir={folder}")[0] == 0
        rates[name] = jwstdask.open_exposure(next(folder.glob("*_rate.fits")))
    assert rates["mine"].attrs["meta.ref_file.readnoise.name"] == str(readnoise)
    assert rates["default"].attrs["meta.ref_file.readnoise.name"].startswith("crds://")
    mine, default = rates["mine"]["var_rnoise"].values, rates["default"]["var_rnoise"].values
    good = np.isfinite(mine) & np.isfinite(default)
    # Exact: a power of two scales a float.
    np.testing.assert_array_equal(mine[good], 4 * default[good])
