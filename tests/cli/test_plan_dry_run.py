"""--dry-run of every command that writes: it says what it would do, and nothing appears."""

from __future__ import annotations

import io
import os
import shutil
import tarfile

import pytest

from jwstdask.refs.crds import reference_path
from tests.using import crds_of


def files(folder):
    return sorted(os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder; nothing may appear in it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert files(folder) == []


def test_associations(command, program, here, tmp_path):
    uncals = program.uncals
    status, printed = command("asn", "from-list", "-o", "x_asn.json", "--product-name", "mosaic", *uncals, "--dry-run")
    assert status == 0 and '"mosaic"' in printed
    status, printed = command("asn", "pool", "pool.csv", *uncals, "--dry-run")
    assert status == 0 and "pool.csv: 3 exposures" in printed
    pool = tmp_path / "pool.csv"
    assert command("asn", "pool", pool, *uncals)[0] == 0
    status, printed = command("asn", "generate", pool, "--save-orphans", "--dry-run")
    assert status == 0 and "associations of 3 exposures" in printed


def test_references(command, program, programs, uncal, here, tmp_path):
    status, printed = command("refs", "pack", uncal, "-o", "refs.tar", "--dry-run")
    assert status == 0 and "would be packed into refs.tar" in printed
    pack = tmp_path / "pack.tar"
    with tarfile.open(pack, "w") as archive:
        member = tarfile.TarInfo("crds_cache/x.fits")
        member.size = 2_000_000
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    status, printed = command("refs", "unpack", pack, "--dry-run")
    assert status == 0 and "1 files, 2.0 MB, would be unpacked into crds_cache" in printed
    cache = programs.cache("bright2")
    own = type(cache).open(shutil.copytree(cache.path, tmp_path / "cache"))
    with crds_of(own):
        dark = next(path for path in map(str, own.path.rglob("jwst_nircam_dark_*.fits")))
        for path in own.path.rglob("jwst_nircam_dark_*.fits"):
            path.unlink()
        before = files(own.path)
        status, printed = command("refs", "sync", uncal, "--dry-run")
        assert status == 0 and "1 files would be fetched" in printed, printed
        assert files(own.path) == before
        assert not os.path.exists(reference_path(os.path.basename(dark))[0])


def test_runs(command, uncal, here):
    for words in (["calwebb_detector1", uncal], [uncal, "--through=3"], ["jump", uncal]):
        status, printed = command("run", *words, "--dry-run", "--save-parameters=mine.asdf", "--output_dir=out")
        assert status == 0, printed
        assert "mine.asdf is not written" in printed and "-> out/" in printed
    status, printed = command("demo", "--dry-run", "--keep=demo")
    assert status == 0 and "in demo" in printed


def test_replay(command, uncal, tmp_path, here):
    out = tmp_path / "out"
    status, printed = command("run", uncal, "--through=1", f"--output_dir={out}", "--no-report")
    assert status == 0, printed
    before = {path: os.stat(path).st_mtime_ns for path in files(out)}
    rate = next(out.glob("*_rate.fits"))
    status, printed = command("replay", rate, "--output_dir=again", "--dry-run")
    assert status == 0 and f"-> again/{rate.name}" in printed
    status, printed = command("report", out, "-o", "page.html", "--dry-run")
    assert status == 0 and "a report of 1 tasks would be written to page.html" in printed
    status, printed = command("diff", rate, rate, "--plot", "difference.png", "--dry-run")
    assert status == 0 and "difference.png is not drawn" in printed
    assert {path: os.stat(path).st_mtime_ns for path in files(out)} == before


def test_what_is_started_or_compiled(command, here):
    status, printed = command("warmup", "--dry-run")
    assert status == 0 and "would be compiled into" in printed
    status, printed = command("clusters", "local", "--try", "--dry-run")
    assert status == 0 and "local" in printed
