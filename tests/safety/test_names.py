"""Names from headers, associations, parameters and records lead nowhere but into the folder of the products."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from jwstdask.core.errors import JwstdaskError, ProductError
from jwstdask.io.naming import file_name, product_path
from jwstdask.pipelines.replay import prepared
from jwstdask.program.record import all_products, read_record
from jwstdask.testing.asserts import product_bytes

BAD = {
    "up": "../../evil",
    "absolute": "/tmp/jwstdask_evil/evil",
    "folder": "sub/evil",
    "other separator": "..\\evil",
    "null": "evil\0_x",
    "line": "evil\nname",
    "long": "evil" * 80,
}


PIECES = ["..", "/", "\\", "\0", "a", ".", "_cal", "~", "\n", " ", "s3://b/"]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_a_product_is_in_its_folder(name):
    """Whatever the parts are, the path has one part more than the folder, or there is none."""
    for parts in ((name, "cal"), ("x_uncal.fits", name), ("x", "cal", [name]), ("x", "cal", [], name)):
        base, suffix, *rest = parts
        try:
            path = product_path(base, suffix, "out", *rest)
        except ProductError:
            continue
        assert os.path.dirname(path) == "out" and os.path.basename(path) not in ("", ".", "..")
        assert os.path.normpath(path) == path.replace("//", "/")
        assert "\0" not in path


@pytest.mark.parametrize("name", ["", ".", "..", *BAD.values()])
def test_names_that_are_refused(name):
    with pytest.raises(ProductError, match=r"no file can have this name \(header\)"):
        file_name(name, "header")


def association(field, names=("good",), asn_id="o001", members=None):
    members = members or [path.name.replace("uncal", "cal") for path in field.uncals]
    science = [{"expname": member, "exptype": "science"} for member in members]
    products = [{"name": name, "members": science} for name in names]
    tree = {"asn_type": "image3", "asn_id": asn_id, "asn_pool": "pool", "products": products}
    path = field.inputs / "x_image3_asn.json"
    path.write_text(json.dumps(tree))
    return path


@pytest.fixture
def calibrated(field_of, complete):
    """Calibrated exposures beside the raw ones."""
    for path in sorted(complete.glob("*_cal.fits"))[:2]:
        shutil.copy(path, field_of.inputs)
    field_of.uncals = field_of.uncals[:2]
    shutil.rmtree(complete)


def test_product_names_of_associations(field_of, calibrated, command, out):
    """Products with bad names alone are refused; the other one is made."""
    path = association(field_of, [*BAD.values(), "good"])
    status, printed = command("run", "calwebb_image3", path, f"--output_dir={out}", "--steps.tweakreg.skip=true")
    assert status == 1 and f"{len(BAD)} of {len(BAD) + 1} failed" in printed
    assert printed.count("no file can have this name (product of an association)") == len(BAD)
    assert sorted(item.name for item in out.glob("*_i2d.fits")) == ["good_i2d.fits"]


def test_identifiers_of_associations(field_of, calibrated, command, out):
    path = association(field_of, asn_id="../../evil")
    status, printed = command("run", "calwebb_image3", path, f"--output_dir={out}")
    assert status == 1 and "it has a separator of folders" in printed
    assert not out.exists()


def test_products_of_stage_2_associations(field_of, complete, command, out):
    rates = sorted(complete.glob("*_rate.fits"))[:2]
    products = [
        {"name": name, "members": [{"expname": str(rate), "exptype": "science"}]}
        for name, rate in zip(("../evil", "good"), rates, strict=True)
    ]
    path = field_of.inputs / "x_image2_asn.json"
    path.write_text(json.dumps({"asn_type": "image2", "products": products}))
    status, printed = command("run", "calwebb_image2", path, f"--output_dir={out}")
    assert status == 1 and "no file can have this name (product of an association)" in printed
    assert sorted(item.name for item in out.iterdir()) == ["good_cal.fits", "good_i2d.fits"]
    shutil.rmtree(complete)


def test_members_of_associations(field_of, calibrated, command, out):
    """Members are read where they are; what is made of them is in the folder. One with a null is an error."""
    shutil.copytree(field_of.inputs, field_of.folder / "given")
    names = [f"../given/{path.name.replace('uncal', 'cal')}" for path in field_of.uncals]
    path = association(field_of, members=names)
    status, printed = command("run", "calwebb_image3", path, f"--output_dir={out}", "--steps.tweakreg.skip=true")
    assert status == 0, printed
    assert len(list(out.glob("*_o001_crf.fits"))) == 2
    path = association(field_of, members=[*names, "nu\0ll_cal.fits"])
    status, printed = command("run", path, f"--output_dir={out}", "--no-report")
    assert status == 1 and "null byte" in printed and "Traceback" not in printed


def test_file_names_in_headers(field_of, calibrated, command, out):
    """FILENAME names the catalogues of tweakreg."""
    for path in field_of.inputs.glob("*_cal.fits"):
        with fits.open(path, "update") as hdus:
            hdus[0].header["FILENAME"] = f"../../evil{path.name[-20:]}"
    path = association(field_of)
    status, printed = command(
        "run", "calwebb_image3", path, f"--output_dir={out}", "--steps.tweakreg.save_catalogs=true"
    )
    assert status == 1 and "no file can have this name (FILENAME): it has a separator of folders" in printed


@pytest.mark.parametrize(
    "option",
    [
        "--suffix=../../evil",
        "--steps.jump.suffix=/evil",
        "--output_ext=.fits/../../evil",
        "--output_file=../../evil.fits",
        "--steps.dark_current.dark_output=../../evil.fits",
        "--steps.ramp_fit.opt_name=../../evil.fits",
    ],
)
def test_parameters(field_of, command, out, option):
    """A suffix is refused; of a file that is named, as in jwst, the name counts and not the folder."""
    words = ("--steps.jump.save_results=true", "--steps.ramp_fit.save_opt=true")
    status, printed = command("run", "calwebb_detector1", field_of.uncals[0], f"--output_dir={out}", option, *words)
    if "_file" in option or "dark" in option or "opt_name" in option:
        assert status == 0, printed
        assert [path for path in out.iterdir() if path.name.startswith("evil")]
    else:
        assert status == 2 and "Traceback" not in printed
        assert not out.exists()


def test_a_name_alone_stops_its_exposure_alone(field_of, command, out):
    """Names of inputs are whatever the file system permits."""
    shutil.copy(field_of.uncals[0], field_of.inputs / "evil\nname_uncal.fits")
    status, printed = command("run", field_of.inputs, "--through=1", f"--output_dir={out}", "--no-report")
    assert status == 1 and "it has control characters" in printed and "4 of 5 done" in printed


def test_links_in_the_folder_are_replaced_not_followed(field_of, command, out):
    """Where a product shall be, there is a link to a file of somebody else."""
    mine = field_of.inputs / "mine_uncal.txt"
    mine.write_text("mine")
    out.mkdir(parents=True)
    rate = out / field_of.uncals[0].name.replace("uncal", "rate")
    rate.symlink_to(mine)
    status, printed = command("run", "calwebb_detector1", field_of.uncals[0], f"--output_dir={out}")
    assert status == 0, printed
    assert mine.read_text() == "mine" and not rate.is_symlink() and len(product_bytes(rate)) > 0


def test_keys_of_object_stores():
    assert product_path("s3://bucket/../../x_uncal.fits", "rate", "s3://bucket/out") == "s3://bucket/out/x_rate.fits"
    with pytest.raises(ProductError):
        product_path("s3://bucket/a/..", "../../rate", "s3://bucket/out")


def test_replay_records(field_of, complete, command, out):
    """A record that names other places: everything is written in the folder of the replay, or nothing."""
    path = sorted((complete / ".jwstdask" / "records").glob("*_rate.json"))[0]
    record = json.loads(path.read_text())
    evil = "/tmp/jwstdask_evil"
    record["plan"]["products"] = {
        kind: f"{evil}/{os.path.basename(p)}" for kind, p in record["plan"]["products"].items()
    }
    record["plan"]["taps"] = {"jump": f"../../{evil}/x_jump.fits"}
    for item in record["plan"]["steps"]:
        if item["alias"] == "dark_current":
            item["parameters"]["dark_path"] = f"{evil}/dark.fits"
        if item["alias"] == "persistence":
            item["parameters"]["save_persistence"] = f"{evil}/state.asdf"
        item["parameters"]["output_dir"] = evil
    path.write_text(json.dumps(record))
    plan, _ = prepared(read_record(str(path)), str(out))
    paths = [*all_products(plan).values()]
    for item in plan.steps:
        paths += [value for name, value in vars(item.step).items() if name.endswith("_path") and value]
        paths += [value for name in ("output_dir", "save_persistence") if (value := getattr(item.step, name, None))]
    assert len(paths) > 5 and all(value.startswith(str(out)) and ".." not in value for value in paths)
    shutil.rmtree(complete)
    for change in ({"plan": {"steps": 3}}, {"plan": {**record["plan"], "taps": {"jump": "/x/.."}}}, {"plan": {}}):
        path = field_of.inputs / "x.json"
        path.write_text(json.dumps({**record, **change}))
        with pytest.raises(JwstdaskError):
            prepared(read_record(str(path)), str(out))
