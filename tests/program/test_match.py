"""`jwstdask run --match PRODUCT`: the same again as somebody else's product, as far as its header tells how."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from jwstdask.cli.main import main
from jwstdask.io.layout import open_layout
from jwstdask.pipelines.match import read_match
from jwstdask.pipelines.registry import find
from tests.conftest import once
from tests.program.conftest import contents
from tests.using import crds_of

STEPS = {"jump": {"rejection_threshold": 5.5, "expand_large_events": False}, "dark_current": {"skip": True}}


@pytest.fixture(scope="module")
def theirs(dithers, tmp_path_factory) -> Path:
    """Folder with a rate and a cal of jwst, made with parameters that are no defaults."""
    program, cache = dithers

    def build(folder: Path) -> None:
        from jwst.pipeline import Detector1Pipeline, Image2Pipeline
        from jwst.stpipe import _cal_logs

        # jwst blanks every record that contains the name of user or host, such as "vm" in "ivm".
        before = _cal_logs._USER, _cal_logs._HOSTNAME
        _cal_logs._USER = _cal_logs._HOSTNAME = "nobody-of-this-name"
        try:
            with crds_of(cache):
                uncal = str(program.uncals[0])
                Detector1Pipeline.call(uncal, save_results=True, output_dir=str(folder), steps=STEPS)
                rate = str(next(folder.glob("*_rate.fits")))
                steps = {"resample": {"pixfrac": 0.8}, "photom": {"skip": False}}
                Image2Pipeline.call(rate, save_results=True, output_dir=str(folder), steps=steps)
        finally:
            _cal_logs._USER, _cal_logs._HOSTNAME = before

    return once(tmp_path_factory.getbasetemp() / "theirs", build)


@pytest.fixture
def command(capsys, dithers):
    def run(*arguments, cache=dithers[1]):
        with crds_of(cache):
            status = main([str(argument) for argument in (*arguments, "--threads=1")])
        return status, capsys.readouterr()

    return run


def the(folder, kind):
    return next(folder.glob(f"*_{kind}.fits"))


def assert_same_arrays(first, second):
    """But for AREA, which jwst leaves empty where the reference is that of a subarray."""
    with fits.open(first) as a, fits.open(second) as b:
        names = [hdu.name for hdu in a if hdu.is_image and hdu.size and hdu.name != "AREA"]
        assert names and names == [hdu.name for hdu in b if hdu.is_image and hdu.size and hdu.name != "AREA"]
        for name in names:
            np.testing.assert_array_equal(a[name].data, b[name].data)


def changed(source: Path, target: Path, **cards: str) -> Path:
    """A copy of a product with other keywords, the ASDF extension left out: there the old ones stand, too."""
    with fits.open(source) as hdus:
        del hdus["ASDF"]
        hdus[0].header.update(cards)
        hdus.writeto(target)
    return target


@pytest.mark.parametrize("product", ["rate", "cal"])
def test_stage_1_as_it_was_made(dithers, theirs, command, tmp_path, product):
    uncal = dithers[0].uncals[0]
    status, printed = command(
        "run", "calwebb_detector1", uncal, f"--output_dir={tmp_path}", f"--match={the(theirs, product)}"
    )
    assert status == 0, printed.err
    assert theirs.name not in printed.err and "not recorded" not in printed.err
    assert_same_arrays(the(theirs, "rate"), the(tmp_path, "rate"))
    # The command line has the last word.
    match = f"--match={the(theirs, product)}"
    parameters = ("--steps.jump.rejection_threshold=50", "--steps.dark_current.skip=false")
    status, printed = command("run", "calwebb_detector1", uncal, f"--output_dir={tmp_path / 'b'}", match, *parameters)
    assert status == 0, printed.err
    assert open_layout(the(tmp_path / "b", "rate")).header().get("S_DARK") == "COMPLETE"


def test_program_as_it_was_made(dithers, theirs, command, tmp_path):
    """Both stages from one product; what follows is up to date if the same product is matched again."""
    (tmp_path / "in").mkdir()
    shutil.copy(dithers[0].uncals[0], tmp_path / "in")
    out = tmp_path / "out"
    arguments = ("run", tmp_path / "in", "--through=2", f"--output_dir={out}", f"--match={the(theirs, 'cal')}")
    status, printed = command(*arguments)
    assert status == 0, printed.err
    assert "calwebb_dark" not in printed.err
    for kind in ("rate", "cal"):
        assert_same_arrays(the(theirs, kind), the(out, kind))
    assert open_layout(the(out, "i2d")).header().get("PIXFRAC") == 0.8
    assert "2 of 2 are up to date" in command(*arguments)[1].err


def test_dry_run_shows_where_parameters_come_from(dithers, theirs, command, tmp_path):
    product = the(theirs, "cal")
    status, printed = command(
        *("run", "calwebb_detector1", dithers[0].uncals[0], f"--output_dir={tmp_path}", f"--match={product}"),
        "--dry-run",
    )
    assert status == 0
    assert f"rejection_threshold = 5.5 ({product.name})" in printed.out
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_are_not_recorded(dithers, theirs, command, tmp_path):
    """Without the log only what was skipped is known, and so it is told."""
    product = changed(the(theirs, "rate"), tmp_path / "x_rate.fits", CAL_VER="1.12.5")
    uncal = dithers[0].uncals[0]
    status, printed = command(
        "run", "calwebb_detector1", uncal, f"--output_dir={tmp_path / 'out'}", f"--match={product}"
    )
    assert status == 0, printed.err
    assert "x_rate.fits: the parameters of calwebb_detector1 are not recorded: only which" in printed.err
    assert "x_rate.fits: it was made by version 1.12.5 of jwst; products equal those of 3.0.0" in printed.err
    header = open_layout(the(tmp_path / "out", "rate")).header()
    assert header.get("S_DARK") == "SKIPPED" and header.get("S_JUMP") == "COMPLETE"


def test_references_that_the_context_does_not_give(dithers, theirs, command, tmp_path):
    program, cache = dithers
    own = replace(cache, path=tmp_path / "cache")
    shutil.copytree(cache.path, own.path)
    gain = cache.reference("nrcb1", "gain")
    other = Path(str(own.path) + str(gain).removeprefix(str(cache.path))).with_name("jwst_nircam_gain_0099.fits")
    with fits.open(gain) as hdus:
        hdus["SCI"].data *= 1.5
        hdus.writeto(other)
    uncal = program.uncals[0]
    product = changed(
        the(theirs, "rate"),
        tmp_path / "x_rate.fits",
        R_GAIN="crds://jwst_nircam_gain_0099.fits",
        R_MASK="crds://jwst_nircam_mask_0098.fits",
        R_LINEAR="mine.fits",
        R_SUPERB="N/A",
    )
    status, printed = command(
        *("run", "calwebb_detector1", uncal, f"--output_dir={tmp_path / 'out'}", f"--match={product}"), cache=own
    )
    assert status == 0, printed.err
    assert "mask: jwst_nircam_mask_0098.fits is not in the cache, jwst_nircam_mask_0001.fits is used" in printed.err
    assert "linearity: mine.fits was a file of the user's own" in printed.err
    assert "superbias: the product was made without one" in printed.err
    assert "gain" not in printed.err
    options = (f"--steps.jump.override_gain={other}", f"--steps.ramp_fit.override_gain={other}")
    skip = "--steps.dark_current.skip=true"
    status, printed = command(
        "run", "calwebb_detector1", uncal, f"--output_dir={tmp_path / 'by_hand'}", skip, *options, cache=own
    )
    assert status == 0, printed.err
    assert open_layout(the(tmp_path / "out", "rate")).header().get("R_GAIN").endswith("jwst_nircam_gain_0099.fits")
    first, second = contents(tmp_path / "out"), contents(tmp_path / "by_hand")
    assert {name: found["SCI"] for name, found in first.items()} == {
        name: found["SCI"] for name, found in second.items()
    }


def test_context(theirs, dithers):
    match = read_match(str(the(theirs, "cal")))
    assert match.context == dithers[1].environment["CRDS_CONTEXT"]
    assert set(match.logs) == {"calwebb_detector1", "calwebb_image2"}
    assert match.references["flat"].startswith("crds://jwst_nircam_flat")
    layer = match.layer(find("calwebb_image2"))
    assert layer.steps["resample"]["pixfrac"] == 0.8 and "save_results" not in layer.steps["resample"]
    assert match.notes == []


def test_parameters_of_another_version(theirs):
    match = read_match(str(the(theirs, "cal")))
    values = (
        "  skip: False\n  old: 1\n  steps:\n    photom:\n      gone: 2\n      inverse: maybe\n    lost:\n      a: 1\n"
    )
    match.logs["calwebb_image2"] = ["Step Image2Pipeline parameters are:\n" + values]
    layer = match.layer(find("calwebb_image2"))
    assert layer.steps == {"photom": {}}
    notes = "\n".join(match.notes)
    for says in (
        "no parameter old (it was 1)",
        "photom has no parameter gone (it was 2)",
        "has no step lost",
        "inverse",
    ):
        assert says in notes


def test_no_product(dithers, command, tmp_path):
    uncal = changed(dithers[0].uncals[0], tmp_path / "x_uncal.fits")
    with fits.open(uncal, mode="update") as hdus:
        for keyword in ("CAL_VER", "CRDS_CTX"):
            hdus[0].header.remove(keyword, ignore_missing=True)
    status, printed = command("run", "calwebb_detector1", uncal, f"--match={uncal}")
    assert status == 1 and "no pipeline has made it" in printed.err
