"""Bad input: a clear error that names file and remedy, exit status 1, the others finished, nothing half-written.

Each command is a process of its own and gets good exposures beside the bad ones.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import jwstdask
from tests.using import crds_of, heed_interrupts

ENTRY = [sys.executable, "-m", "jwstdask", "run"]


@dataclass
class Batch:
    """What a command made of its inputs."""

    status: int
    printed: str
    folder: Path

    def error(self, path: Path) -> str:
        """What was said of an input; empty if it was calibrated."""
        found = re.search(rf"\[ *\d+/\d+\] \S+ {re.escape(path.name)}: FAILED\n    (.*)", self.printed)
        return found[1] if found else ""

    def done(self, path: Path) -> bool:
        return re.search(rf"\[ *\d+/\d+\] \S+ {re.escape(path.name)}: [0-9]", self.printed) is not None

    def products(self, path: Path) -> list[str]:
        """Kinds of products of an input."""
        stem = path.name.rsplit("_", 1)[0]
        return sorted(item.name[len(stem) + 1 : -5] for item in self.folder.glob(f"{stem}_*"))

    def hidden(self) -> list[str]:
        return [str(path) for path in self.folder.rglob(".*")]


def run(alias: str, inputs: list[Path], folder: Path, *options: str) -> Batch:
    command = [*ENTRY, alias, *map(str, inputs), f"--output_dir={folder}", "--threads=1", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return Batch(done.returncode, done.stderr, folder)


@pytest.fixture
def inside(command):
    """The same in this process."""

    def run(alias: str, inputs: list[Path], folder: Path, *options: str) -> Batch:
        status, printed = command("run", alias, *inputs, f"--output_dir={folder}", "--threads=1", *options)
        return Batch(status, printed, folder)

    return run


def card(keyword: str, value: str) -> bytes:
    return f"{keyword:8}= {value:>20}".encode()


class Maker:
    """Bad copies of an exposure, each under a name of its own."""

    def __init__(self, source: Path, folder: Path, suffix: str) -> None:
        self.source, self.folder, self.suffix = source, folder, suffix
        self.data = source.read_bytes()
        self.made: dict[str, Path] = {}

    def path(self, what: str) -> Path:
        number = len(self.made) + 1
        self.made[what] = self.folder / f"jw01234001001_02101_{number:05d}_nrcb1_{self.suffix}.fits"
        return self.made[what]

    def write(self, what: str, data: bytes) -> None:
        self.path(what).write_bytes(data)

    def keyword(self, what: str, keyword: str, value: str | None) -> None:
        """The exposure with a card changed byte by byte, or without it."""
        start = re.search(rf"{keyword:8}= ".encode(), self.data).start()
        new = b"COMMENT" if value is None else card(keyword, value)
        self.write(what, self.data[:start] + new.ljust(80) + self.data[start + 80 :])

    def edit(self, what: str, change) -> None:
        """The exposure after a change by astropy."""
        with fits.open(self.source) as hdus:
            change(hdus)
            hdus.writeto(self.path(what))


def _without_science(hdus):
    del hdus["SCI"]


def _without_keyword(keyword):
    """The ASDF extension has it too."""

    def change(hdus):
        del hdus["ASDF"]
        for hdu in hdus:
            hdu.header.remove(keyword, ignore_missing=True)

    return change


def _science(value, shape=None):
    def change(hdus):
        old = hdus["SCI"].data
        hdus["SCI"].data = np.full(old.shape if shape is None else shape, value, np.asarray(value).dtype)

    return change


BAD_RAMPS = {
    "truncated": r"truncated: \d+ of the \d+ bytes of HDU SCI are missing\. Download",
    "cut in the header": r"truncated: the header of HDU 0 does not end\. Download",
    "empty": r"the file is empty\. Download",
    "text": r"this is not a FITS file\. Give a FITS file",
    "picture": r"this is not a FITS file\. Give a FITS file",
    "missing": r"there is no such file\. Check the path",
    "wrong telescope": r"TELESCOP is 'HST'\. Only JWST exposures",
    "no SCI": r"no HDU SCI\. The file has PRIMARY",
    "SCI of two dimensions": r"SCI has 2 dimensions where a ramp has 4\. Give the _uncal file",
    "other NGROUPS": r"the header states 7 groups \(NGROUPS\) and SCI has 6\. .* again from MAST",
    "other SUBSIZE1": r"the header states 2048 columns \(SUBSIZE1\) and SCI has 160\. .* again from MAST",
    "no INSTRUME": r"keyword INSTRUME is missing\. Get the file again",
    "no DETECTOR": r"keyword DETECTOR is missing\. Get the file again",
    "no EXP_TYPE": r"keyword EXP_TYPE is missing\. Get the file again",
    "no TGROUP": r"keyword TGROUP .*is missing\. Get the file again",
    "no SUBSTRT1": r"keyword SUBSTRT1 .*is missing\. Get the file again",
    "no DATE-OBS": r"keyword DATE-OBS is missing\. Get the file again",
    "TGROUP is NaN": r"keyword TGROUP is nan, not a number\. Get the file again",
    "TGROUP is zero": r"keyword TGROUP is 0\.0, not positive\. Get the file again",
    "NFRAMES is NaN": r"keyword NFRAMES is nan, not a number\. Get the file again",
    "SUBSTRT1 is infinite": r"keyword SUBSTRT1 is inf, not a number\. Get the file again",
    "NGROUPS is text": r"keyword NGROUPS is 'six', not a number\. Get the file again",
    "wrong EXP_TYPE": r"calwebb_detector1 does not take EXP_TYPE NRC_BOGUS\. It takes .*NRC_IMAGE",
    "dark": r"calwebb_detector1 does not take EXP_TYPE NRC_DARK\. Run calwebb_dark, which does",
    "guider": r"calwebb_detector1 does not take EXP_TYPE FGS_ACQ1\. Run calwebb_guider, which does",
    "EXP_TYPE of MIRI": r"INSTRUME is NIRCAM, which takes no exposures of EXP_TYPE MIR_IMAGE\. Correct the keyword",
    "no such INSTRUME": r"INSTRUME is 'FOO', which is none of FGS, MIRI, NIRCAM, NIRISS, NIRSPEC\. Correct the keyword",
    "first group saturated": r"ramp_fit: the first group is saturated in all pixels.* leave the exposure out",
}
GOOD_RAMPS = ("good", "all NaN", "zeros", "good at the end")


@pytest.fixture(scope="module")
def ramps(programs, module_folder):
    """All bad ramps and two good ones, through calwebb_detector1 in one command."""

    folder = module_folder("bad")
    (folder / "in").mkdir()
    source = programs("bright2").uncals[0]
    maker = Maker(source, folder / "in", "uncal")
    data = maker.data
    maker.write("good", data)
    maker.write("truncated", data[: len(data) // 2])
    maker.write("cut in the header", data[:1000])
    maker.write("empty", b"")
    maker.write("text", b"This is no FITS file.\n" * 500)
    maker.write("picture", b"\x89PNG\r\n\x1a\n" + bytes(5000))
    maker.path("missing")
    maker.keyword("wrong telescope", "TELESCOP", "'HST'")
    maker.edit("no SCI", _without_science)
    maker.edit("SCI of two dimensions", _science(np.uint16(9), (160, 160)))
    maker.keyword("other NGROUPS", "NGROUPS", "7")
    maker.keyword("other SUBSIZE1", "SUBSIZE1", "2048")
    for keyword in ("INSTRUME", "DETECTOR", "EXP_TYPE", "TGROUP", "SUBSTRT1", "DATE-OBS"):
        maker.keyword(f"no {keyword}", keyword, None)
    maker.keyword("TGROUP is NaN", "TGROUP", "NaN")
    maker.keyword("TGROUP is zero", "TGROUP", "0.0")
    maker.keyword("NFRAMES is NaN", "NFRAMES", "NaN")
    maker.keyword("SUBSTRT1 is infinite", "SUBSTRT1", "1E999")
    maker.keyword("NGROUPS is text", "NGROUPS", "'six'")
    maker.keyword("wrong EXP_TYPE", "EXP_TYPE", "'NRC_BOGUS'")
    maker.keyword("dark", "EXP_TYPE", "'NRC_DARK'")
    maker.keyword("guider", "EXP_TYPE", "'FGS_ACQ1'")
    maker.keyword("EXP_TYPE of MIRI", "EXP_TYPE", "'MIR_IMAGE'")
    maker.keyword("no such INSTRUME", "INSTRUME", "'FOO'")
    maker.edit("first group saturated", _science(np.uint16(65535)))
    maker.edit("all NaN", _science(np.float32(np.nan)))
    maker.edit("zeros", _science(np.uint16(0)))
    maker.write("good at the end", data)
    with crds_of(programs.cache("bright2")):
        batch = run("calwebb_detector1", list(maker.made.values()), folder / "out")
    return batch, maker.made


def test_every_case_is_made(ramps):
    assert set(ramps[1]) == {*BAD_RAMPS, *GOOD_RAMPS}


def test_exit_status_and_count(ramps):
    batch, made = ramps
    assert batch.status == 1
    assert f"{len(BAD_RAMPS)} of {len(made)} failed" in batch.printed


@pytest.mark.parametrize("what", BAD_RAMPS)
def test_bad_ramp(ramps, what):
    batch, made = ramps
    error = batch.error(made[what])
    assert made[what].name in error
    assert re.search(BAD_RAMPS[what], error), error
    assert batch.products(made[what]) == []


@pytest.mark.parametrize("what", GOOD_RAMPS)
def test_good_ramp(ramps, what):
    batch, made = ramps
    assert batch.done(made[what]), batch.error(made[what])
    assert batch.products(made[what]) == ["rate", "rateints"]


def test_nothing_is_left_over(ramps):
    batch, _ = ramps
    assert batch.hidden() == []
    assert len(list(batch.folder.iterdir())) == 2 * len(GOOD_RAMPS)


@pytest.mark.parametrize("alias", ["calwebb_dark", "calwebb_guider"])
def test_pipeline_of_an_ordinary_exposure_is_named(programs, inside, tmp_path, alias):
    uncal = Path(programs("bright2").uncals[0])
    error = inside(alias, [uncal], tmp_path).error(uncal)
    assert f"{alias} does not take EXP_TYPE NRC_IMAGE. Run calwebb_detector1, which does" in error


def test_good_exposures_are_not_touched_by_bad_ones(ramps):
    batch, made = ramps
    first, last = (
        jwstdask.open_exposure(batch.folder / made[what].name.replace("uncal", "rate"))
        for what in ("good", "good at the end")
    )
    np.testing.assert_array_equal(first["sci"], last["sci"])


def _oracle_rate(path: Path, folder: Path) -> Path | None:
    """The rate of jwst, or None where it makes none."""
    from jwst.pipeline import Detector1Pipeline

    folder.mkdir()
    try:
        Detector1Pipeline.call(str(path), save_results=True, output_dir=str(folder))
    except Exception as error:
        print(error)
    return next(folder.glob("*_rate.fits"), None)


@pytest.mark.parametrize("what", ["first group saturated", "all NaN"])
def test_unusable_ramps_as_jwst(ramps, references, what, tmp_path):
    """jwst makes no product where the first group is saturated everywhere; of NaN it makes one, and so do we: the same
    flags, NaN in the same pixels."""
    batch, made = ramps
    theirs = _oracle_rate(made[what], tmp_path / "jwst")
    ours = batch.folder / made[what].name.replace("uncal", "rate")
    assert ours.exists() == (theirs is not None)
    if theirs is not None:
        expected, found = jwstdask.open_exposure(theirs), jwstdask.open_exposure(ours)
        np.testing.assert_array_equal(found["dq"], expected["dq"])
        np.testing.assert_array_equal(np.isnan(found["sci"]), np.isnan(expected["sci"]))


@pytest.mark.parametrize("name", ["one_group", "two_groups"])
def test_few_groups_are_calibrated(programs, inside, name, tmp_path):
    """What is in the products is compared with jwst's elsewhere."""
    uncal = Path(programs(name).uncals[0])
    batch = inside("calwebb_detector1", [uncal], tmp_path)
    assert batch.status == 0 and batch.products(uncal) == ["rate", "rateints"]
    rate = jwstdask.open_exposure(next(tmp_path.glob("*_rate.fits")))
    assert rate.attrs["meta.cal_step.jump"] == "SKIPPED"
    assert np.isfinite(rate["sci"]).mean() > 0.5


BAD_RATES = {
    "truncated": r"truncated.*Download",
    "no SCI": r"no HDU SCI",
    "a ramp": r"SCI has 4 dimensions\. Give the _rate or _rateints file",
    "wrong EXP_TYPE": r"calwebb_image2 does not take EXP_TYPE NRC_GRISM\. It takes .*NRC_IMAGE",
    "RA_REF is NaN": r"keyword RA_REF is nan, not a number",
    "no RA_REF": r"assign_wcs: .*ra_ref is missing\. Run set_telescope_pointing",
    "no FILTER": r"filter.*UNDEFINED|FILTER",
    "DQ of another shape": r"HDU DQ has 160 rows and 100 columns where SCI has 160 and 160",
}


@pytest.fixture(scope="module")
def rates(ramps, programs, module_folder):
    """Bad rates and two good ones, through calwebb_image2 in one command."""

    batch, made = ramps
    folder = module_folder("bad_rates")
    (folder / "in").mkdir()
    maker = Maker(batch.folder / made["good"].name.replace("uncal", "rate"), folder / "in", "rate")
    maker.write("good", maker.data)
    maker.write("truncated", maker.data[:40000])
    maker.edit("no SCI", _without_science)
    maker.write("a ramp", made["good"].read_bytes())
    maker.keyword("wrong EXP_TYPE", "EXP_TYPE", "'NRC_GRISM'")
    maker.keyword("RA_REF is NaN", "RA_REF", "NaN")
    maker.edit("no RA_REF", _without_keyword("RA_REF"))
    maker.edit("no FILTER", _without_keyword("FILTER"))

    def narrow(hdus):
        hdus["DQ"].data = hdus["DQ"].data[:, :100]

    maker.edit("DQ of another shape", narrow)
    maker.edit("all NaN", _science(np.float32(np.nan)))
    maker.write("good at the end", maker.data)
    with crds_of(programs.cache("bright2")):
        return run("calwebb_image2", list(maker.made.values()), folder / "out"), maker.made


@pytest.mark.parametrize("what", BAD_RATES)
def test_bad_rate(rates, what):
    batch, made = rates
    error = batch.error(made[what])
    assert made[what].name in error
    assert re.search(BAD_RATES[what], error), error
    assert batch.products(made[what]) == []


def test_good_rates_are_calibrated(rates):
    batch, made = rates
    assert batch.status == 1
    for what in ("good", "all NaN", "good at the end"):
        assert batch.products(made[what]) == ["cal", "i2d"], batch.error(made[what])
    assert batch.hidden() == []


def _cut(path: Path, target: Path) -> Path:
    target.write_bytes(path.read_bytes()[:20000])
    return target


def test_bad_references(programs, inside, tmp_path):
    """Of a reference that is missing, truncated, no FITS file, or of another shape, only the message differs."""
    cache, uncals = programs.cache("bright2"), programs("bright2").uncals[:1]
    gain = cache.reference("nrcb1", "gain")
    narrow = tmp_path / "narrow.fits"
    with fits.open(gain) as hdus:
        hdus["SCI"].data = hdus["SCI"].data[:, :100]
        hdus.writeto(narrow)
    text = tmp_path / "text.fits"
    text.write_text("no gain")
    for path, says in {
        tmp_path / "absent.fits": r"jump\.override_gain: there is no file .*absent\.fits\. Correct the path",
        _cut(gain, tmp_path / "cut.fits"): r"cut\.fits: .*(truncated|missing)",
        text: r"text\.fits: .*not a FITS file",
        narrow: r"narrow\.fits: .*100",
    }.items():
        batch = inside("calwebb_detector1", list(uncals), tmp_path / "out", f"--steps.jump.override_gain={path}")
        assert batch.status == 1
        error = batch.error(Path(uncals[0]))
        assert re.search(says, error), error
        assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_reference_that_does_not_fit_is_told_with_the_name_of_the_file(programs, inside, tmp_path):
    """FILENAME is what the file was called when it was written."""
    renamed = tmp_path / "jw01234001001_02101_00099_nrcb1_uncal.fits"
    shutil.copyfile(programs("bright2").uncals[0], renamed)
    narrow = tmp_path / "narrow.fits"
    with fits.open(programs.cache("bright2").reference("nrcb1", "gain")) as hdus:
        hdus["SCI"].data = hdus["SCI"].data[:, :100]
        hdus.writeto(narrow)
    batch = inside("calwebb_detector1", [renamed], tmp_path / "out", f"--steps.jump.override_gain={narrow}")
    assert f"the gain reference does not fit {renamed.name} " in batch.error(renamed)


def test_files_that_are_no_reference_of_the_type(programs, inside, tmp_path):
    """An exposure, a product and a reference of another type in place of a dark; the other steps are not asked."""
    cache, uncal = programs.cache("bright2"), Path(programs("bright2").uncals[0])
    gain, dark = cache.reference("nrcb1", "gain"), cache.reference("nrcb1", "dark:SUB160")
    for path, says in {
        uncal: "is an exposure or product (DATAMODL Level1bModel) and not marked by REFTYPE DARK. Give one with",
        gain: f"REFTYPE of {gain} is GAIN. Give one with --steps.dark_current.override_dark=FILE",
    }.items():
        batch = inside("calwebb_detector1", [uncal], tmp_path / "out", f"--steps.dark_current.override_dark={path}")
        assert batch.status == 1
        assert says in batch.error(uncal) and "dark_current" in batch.error(uncal) and str(path) in batch.error(uncal)
        assert not (tmp_path / "out").exists()
    by_hand = tmp_path / "dark.fits"
    with fits.open(dark) as hdus:
        for keyword in ("REFTYPE", "DATAMODL"):
            hdus[0].header.remove(keyword)
        hdus.writeto(by_hand)
    batch = inside("calwebb_detector1", [uncal], tmp_path / "out", f"--steps.dark_current.override_dark={by_hand}")
    assert batch.status == 0, batch.printed


def test_a_file_of_flags_that_is_not_there(programs, inside, tmp_path):
    uncal, absent = Path(programs("bright2").uncals[0]), tmp_path / "absent.fits"
    batch = inside("calwebb_detector1", [uncal], tmp_path / "out", f"--steps.dq_init.user_supplied_dq={absent}")
    assert batch.status == 1 and "Errno" not in batch.printed
    assert f"{absent}: dq_init.user_supplied_dq: there is no such file. Correct the path." in batch.error(uncal)


def test_groups_that_exclude_each_other_are_told(programs, inside, tmp_path):
    """jwst ignores them with a warning."""
    uncal = Path(programs("bright2").uncals[0])
    groups = ("--steps.ramp_fit.firstgroup=4", "--steps.ramp_fit.lastgroup=2")
    batch = inside("calwebb_detector1", [uncal], tmp_path / "out", *groups)
    assert batch.status == 0
    assert "firstgroup 4 and lastgroup 2 of 6 groups: the first must come before the last; both are" in batch.printed


def test_a_damaged_reference_of_the_cache_stops_those_that_need_it(programs, inside, tmp_path):
    """The dark of NRCB1 is cut; the exposure of NRCA1 is calibrated all the same."""
    cache = programs.cache("bright2")
    # The cache itself is in use elsewhere.
    own = replace(cache, path=tmp_path / "cache")
    shutil.copytree(cache.path, own.path, copy_function=os.symlink)
    dark = own.reference("nrcb1", "dark:SUB160")
    half = dark.read_bytes()[: dark.stat().st_size // 2]
    dark.unlink()
    dark.write_bytes(half)
    good, bad = Path(programs("two_groups").uncals[0]), Path(programs("bright2").uncals[0])
    with crds_of(own):
        batch = inside("calwebb_detector1", [bad, good], tmp_path / "out")
    assert batch.status == 1
    assert dark.name in batch.error(bad) and "truncated" in batch.error(bad)
    assert batch.done(good) and batch.products(good) == ["rate", "rateints"]
    assert batch.products(bad) == []


class Mount:
    """A small file system in memory, mounted for a while; skips the test where that is not permitted."""

    def __init__(self, folder: Path, options: str) -> None:
        self.folder, self.options = folder, options

    def __enter__(self) -> Path:
        self.folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", self.options, "tmpfs", str(self.folder)], capture_output=True, text=True
        )
        if done.returncode != 0:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
        return self.folder

    def __exit__(self, *error) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


def test_full_disk(programs, inside, tmp_path):
    """A megabyte has room for two of three exposures (rate 0.6 MB and rateints 1.1 MB want more): the rest is told."""
    uncals = [Path(path) for path in programs("bright2").uncals]
    with Mount(tmp_path / "disk", "size=2200k") as disk:
        batch = inside("calwebb_detector1", uncals, disk)
        assert batch.status == 1
        errors = [batch.error(path) for path in uncals]
        assert batch.done(uncals[0]) and batch.products(uncals[0]) == ["rate", "rateints"]
        assert all("the disk is full. Make room" in error for error in errors if error) and any(errors)
        for path, error in zip(uncals, errors):
            assert not error or batch.products(path) == []
        assert batch.hidden() == []


def test_read_only_folder(programs, inside, tmp_path):
    uncals = [Path(programs("bright2").uncals[0])]
    if os.getuid() == 0:
        # Permissions do not hold back root, a read-only file system does.
        with Mount(tmp_path / "disk", "size=1m,ro") as disk:
            batch = inside("calwebb_detector1", uncals, disk)
    else:
        (tmp_path / "disk").mkdir(mode=0o500)
        batch = inside("calwebb_detector1", uncals, tmp_path / "disk")
    assert batch.status == 1
    error = batch.error(uncals[0])
    assert str(tmp_path / "disk") in error
    assert re.search(r"(read-only|not permitted)\. Choose another output_dir", error)
    assert not list((tmp_path / "disk").iterdir())


@pytest.mark.parametrize("where", ["--threads=1", "--workers=2"])
def test_interrupted(programs, references, tmp_path, where):
    """Ctrl-C, which all processes of a terminal get: what is finished is complete, nothing else is left."""
    uncal = Path(programs("bright2").uncals[0])
    inputs = [tmp_path / f"jw01234001001_02101_{number:05d}_nrcb1_uncal.fits" for number in range(1, 120)]
    for path in inputs:
        path.symlink_to(uncal)
    out = tmp_path / "out"
    command = [*ENTRY, "calwebb_detector1", *map(str, inputs), f"--output_dir={out}", where]
    # As in a terminal: a session of its own, whose processes are signalled together.
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_interrupts
    )
    while process.poll() is None and not list(out.glob(".*.part")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    printed = process.communicate()[1]
    assert process.returncode == 130
    assert "Interrupted. Finished products are complete" in printed and "Traceback" not in printed
    products = sorted(out.iterdir())
    assert [path for path in products if path.name.startswith(".")] == []
    assert len(products) < 2 * len(inputs)
    for path in products:
        assert jwstdask.open_exposure(path).load().attrs["meta.cal_step.ramp_fit"] == "COMPLETE"


def test_folder_that_cannot_be_made(programs, inside, command, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    uncals = [Path(programs("bright2").uncals[0])]
    batch = inside("calwebb_detector1", uncals, tmp_path / "file" / "products")
    assert batch.status == 1
    assert re.search(r"is not in a folder\. Choose another output_dir", batch.error(uncals[0]))
    status, printed = command("run", uncals[0], "--through=1", f"--output_dir={tmp_path / 'file'}")
    assert status == 1 and "is not a folder. Choose another output_dir" in printed
