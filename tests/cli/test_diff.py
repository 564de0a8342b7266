"""``jwstdask diff``: exit status, what is printed, JSON, pictures; against products of jwst."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
from astropy.io import fits


@pytest.fixture(scope="module")
def products(program, programs, module_folder):
    """Folders of products: through Stage 2; a copy with rates made again; with another parameter; by jwst."""
    from jwst.pipeline import Detector1Pipeline

    from jwstdask.cli.main import main
    from tests.using import crds_of

    folder = module_folder("diff")
    uncals = list(map(str, program.uncals[:2]))
    with crds_of(programs.cache("bright2")):
        for name, inputs, options in (
            ("first", uncals, []),
            ("other", uncals[:1], ["--steps.jump.rejection_threshold=3.5"]),
        ):
            given = ["run", *inputs, "--through=2", f"--output_dir={folder / name}", "--threads=1", "--no-report"]
            assert main([*given, *options]) == 0
        shutil.copytree(folder / "first", folder / "again")
        assert main(["run", "calwebb_detector1", *uncals, f"--output_dir={folder / 'again'}", "--threads=1"]) == 0
        (folder / "jwst").mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Detector1Pipeline.call(str(program.uncals[0]), output_dir=str(folder / "jwst"), save_results=True)
    return folder


def test_the_same(products, command):
    status, printed = command("diff", products / "first", products / "again")
    assert status == 0
    assert printed.splitlines()[-1].endswith(" same")
    assert "_cal.fits: the same" in printed and "_i2d.fits: the same" in printed


def test_workers(products, command):
    """Another executor, the same text."""
    pair = products / "first", products / "other"
    assert command("diff", *pair, "--workers", "2") == command("diff", *pair, "--threads", "1")


def test_different_folders(products, command):
    status, printed = command("diff", products / "first", products / "other", "--common")
    assert status == 1
    assert "JUMP_DET +" in printed
    assert "only A" not in printed
    status, printed = command("diff", products / "first", products / "other")
    assert "_00002_nrcb1_cal.fits: different: only A has this product" in printed
    assert "only in A" in printed.splitlines()[-1]


def test_details_of_a_product(products, program, command):
    name = program.uncals[0].name.replace("uncal", "rate")
    status, printed = command("diff", products / "first" / name, products / "other")
    assert status == 1
    a, b = (fits.getdata(products / folder / name, "DQ") for folder in ("first", "other"))
    before, after = (int(np.count_nonzero(data & 4)) for data in (a, b))
    gained = int(np.count_nonzero(b & ~a & 4))
    (line,) = (line for line in printed.splitlines() if "JUMP_DET" in line)
    assert line.split() == ["JUMP_DET", str(before), str(after), str(gained), str(before + gained - after)]
    assert f"{np.mean(a == b) * 100:.3f} % identical" in printed
    assert "PRIMARY.PRIMECRS" in printed


def test_json(products, program, command):
    name = program.uncals[0].name.replace("uncal", "rate")
    status, printed = command("diff", products / "first" / name, products / "other" / name, "--json")
    found = json.loads(printed)
    (product,) = found["products"]
    assert status == found["status"] == 1
    assert product["status"] == "different"
    sci = product["arrays"]["SCI"]
    assert sci["different"] == sci["size"] - sci["identical"] > 0
    assert sci["sigma"] >= sci["sigma_rms"] > 0
    assert product["arrays"]["DQ"]["flags"]["JUMP_DET"]["gained"] > 0
    assert product["keywords"]["PRIMARY.PRIMECRS"]["a"] != product["keywords"]["PRIMARY.PRIMECRS"]["b"]


def test_thresholds(products, program, command):
    name = program.uncals[0].name.replace("uncal", "rate")
    pair = products / "first" / name, products / "other" / name
    ignore = ["--ignore", "PRIMECRS"]
    assert command("diff", *pair, "--max-sigma", "1e6", *ignore)[0] == 1  # flags differ, too
    assert command("diff", *pair, "--min-identical", "0.9", *ignore)[0] == 0
    assert command("diff", *pair, "--min-identical", "0.9")[0] == 1
    assert command("diff", *pair, "--min-identical", "1", *ignore)[0] == 1


def test_wcs(products, program, command, tmp_path):
    """The WCS of another dither is elsewhere, whatever the keywords say."""
    names = [item.name.replace("uncal", "cal") for item in program.uncals[:2]]
    status, printed = command("diff", *(products / "first" / name for name in names), "--json")
    assert status == 1
    assert json.loads(printed)["products"][0]["shift"] > 1
    _, printed = command("diff", products / "first" / names[0], products / "other" / names[0])
    assert "WCS: identical" in printed


def test_product_of_jwst(products, program, command):
    """Ours beside the oracle's: nothing is missing, no metadata differs."""
    name = program.uncals[0].name.replace("uncal", "rate")
    status, printed = command(
        "diff", products / "jwst" / name, products / "first" / name, "--json", "--max-sigma", "1e-4", "--rtol", "1e-6"
    )
    (product,) = json.loads(printed)["products"]
    assert product["structure"] == []
    assert product["keywords"] == {}
    assert product["metadata"] == {}
    assert product["arrays"]["DQ"]["different"] == 0
    assert status == 0


def test_ignore_nothing(products, program, command):
    name = program.uncals[0].name.replace("uncal", "rate")
    pair = products / "first" / name, products / "again" / name
    assert command("diff", *pair)[0] == 0
    status, printed = command("diff", *pair, "--ignore-nothing")
    assert status == 1
    assert "PRIMARY.DATE" in printed


def test_pictures(products, program, command, tmp_path):
    name = program.uncals[0].name.replace("uncal", "rate")
    picture = tmp_path / "one.png"
    command("diff", products / "first" / name, products / "other" / name, "--plot", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    command("diff", products / "first", products / "other", "--common", "--plot", tmp_path / "many")
    assert f"{name[:-5]}.png" in {path.name for path in (tmp_path / "many").iterdir()}
    status, printed = command(
        "diff", products / "first" / name, products / "other" / name, "--plot", tmp_path / "no/a.png"
    )
    assert status == 2 and "picture cannot be written" in printed


def test_not_compared(products, program, command, tmp_path):
    name = program.uncals[0].name.replace("uncal", "rate")
    shutil.copytree(products / "first", tmp_path / "copy")
    with open(tmp_path / "copy" / name, "r+b") as file:
        file.truncate(100_000)
    status, printed = command("diff", products / "first", tmp_path / "copy")
    assert status == 2
    assert f"{name}: not compared" in printed and "truncated" in printed
    assert "1 not compared" in printed.splitlines()[-1]
    status, printed = command("diff", products / "first" / name, tmp_path / "none.fits")
    assert status == 2 and "no such file" in printed


@pytest.mark.parametrize("wrong", [["--min-identical", "2"], ["--max-sigma", "-1"], ["--rtol", "x"], []])
def test_wrong_use(command, wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        command("diff", "a", *wrong)
    assert stop.value.code == 2
