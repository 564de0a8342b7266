"""A program in an object store: read by byte ranges, products sent there, on an S3 server."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from jwstdask.io import remote
from jwstdask.io.layout import open_layout
from jwstdask.io.remote import list_files
from jwstdask.pipelines.inputs import find_inputs
from jwstdask.program.journal import journal_path, read_history, read_records
from jwstdask.testing.asserts import product_bytes
from tests.io.s3 import client_of, s3_server

pytest.importorskip("moto", reason="the S3 server is moto's")
pytest.importorskip("s3fs")

ROOT = "jwst/public/jw01234"


@pytest.fixture(scope="module")
def server():
    with s3_server() as server, client_of(server) as system:
        system.mkdir("archive")
        yield server


@pytest.fixture(scope="module")
def archive(server, program):
    """Two exposures in the layout of the archive's public bucket, with what else is there."""
    import fsspec

    system = fsspec.filesystem("s3", use_listings_cache=False)
    uncals = program.uncals[:2]
    for path in uncals:
        system.put_file(str(path), f"archive/{ROOT}/{path.name.split('_')[0]}/{path.name}")
    members = [path.name.replace("uncal", "cal") for path in uncals]
    association = {
        "asn_type": "image3",
        "asn_rule": "Asn_Lv3Image",
        "asn_id": "o001",
        "asn_pool": "pool",
        "products": [
            {
                "name": "jw01234-o001_t001_nircam_clear-f200w",
                "members": [{"expname": name, "exptype": "science"} for name in members],
            }
        ],
    }
    name = "jw01234-o001_20260101t000000_image3_00001_asn.json"
    system.pipe_file(f"archive/{ROOT}/L3/t/o001/{name}", json.dumps(association).encode())
    system.pipe_file(f"archive/{ROOT}/{uncals[0].name.split('_')[0]}/{uncals[0].stem}.jpg", b"picture")
    urls = [f"s3://archive/{ROOT}/{path.name.split('_')[0]}/{path.name}" for path in uncals]
    return SimpleNamespace(system=system, urls=urls, paths=uncals, asn=f"s3://archive/{ROOT}/L3/t/o001/{name}")


@pytest.fixture(autouse=True)
def at_work(archive, server, tmp_path, monkeypatch):
    """No pauses; products wait in a folder of the test; everything that is asked is forgotten."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    monkeypatch.setenv("JWSTDASK_SCRATCH", str(tmp_path / "waiting"))
    monkeypatch.setenv("JWSTDASK_STATE", str(tmp_path / "state"))
    # the environment that the other fixtures of this folder set up is empty of it
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    server.requests.clear()


def same_products(folder, url, system, names):
    for name in names:
        local = folder / f"sent_{name}"
        system.get_file(f"{url.removeprefix('s3://')}/{name}", str(local))
        assert product_bytes(local) == product_bytes(folder / name), name


def test_an_exposure(archive, server, command, tmp_path):
    """From S3 to S3: the products of local files, bit by bit; the input is read little more than once."""
    assert command("run", "calwebb_detector1", archive.paths[0], f"--output_dir={tmp_path}", "--threads=1")[0] == 0
    url = "s3://archive/results/one"
    server.requests.clear()
    status, printed = command("run", "calwebb_detector1", archive.urls[0], f"--output_dir={url}", "--threads=1")
    assert status == 0, printed
    names = [archive.paths[0].name.replace("uncal", kind) for kind in ("rate", "rateints")]
    assert list_files(url) == [f"{url}/{name}" for name in names]
    same_products(tmp_path, url, archive.system, names)
    layout = open_layout(archive.urls[0])
    pixels = sum(hdu.size * hdu.dtype.itemsize for hdu in layout if hdu.name in ("SCI", "ZEROFRAME"))
    # besides: headers twice (plan and work), 0.2 MB, and some rows that are looked at before the walk
    assert pixels < server.sent("uncal.fits") < 1.5 * pixels
    assert all(item.range for item in server.made("GET", "uncal.fits"))
    assert os.listdir(tmp_path / "waiting") == []
    assert os.listdir(tmp_path / "here") == []


def test_processes(archive, command, tmp_path):
    """Strips of an exposure in processes of a cluster, which know the store by their environment."""
    url = "s3://archive/results/processes"
    assert command("run", "calwebb_detector1", archive.paths[0], f"--output_dir={tmp_path}", "--threads=1")[0] == 0
    status, printed = command(
        "run", "calwebb_detector1", archive.urls[0], f"--output_dir={url}", "--workers=2", "--grain=strip"
    )
    assert status == 0, printed
    names = [archive.paths[0].name.replace("uncal", kind) for kind in ("rate", "rateints")]
    same_products(tmp_path, url, archive.system, names)


def test_a_program_under_a_prefix(archive, server, command, tmp_path):
    """The prefix of a program in the archive through Stage 3, with the archive's association; then once more."""
    url = "s3://archive/results/program"
    status, printed = command("run", f"s3://archive/{ROOT}/", "--through=3", f"--output_dir={url}", "--threads=1")
    assert status == 0, printed
    names = {item.removeprefix(f"{url}/") for item in list_files(url)}
    mosaic = "jw01234-o001_t001_nircam_clear-f200w"
    assert {f"{mosaic}_i2d.fits", f"{mosaic}_cat.ecsv", f"{mosaic}_segm.fits", "report.html"} <= names
    for path in archive.paths:
        stem = path.name.removesuffix("_uncal.fits")
        assert {f"{stem}_{kind}.fits" for kind in ("rate", "rateints", "cal", "i2d", "o001_crf")} <= names
    assert f"report: {url}/report.html" in printed
    assert not [name for name in names if ".part" in name]
    assert os.listdir(tmp_path / "waiting") == []
    assert os.listdir(tmp_path / "here") == []
    assert np.isfinite(open_layout(f"{url}/{mosaic}_i2d.fits").read("SCI")).any()
    # the mosaic is that of local files
    folder = tmp_path / "local"
    folder.mkdir()
    for path in archive.paths:
        (folder / path.name).symlink_to(path)
    archive.system.get_file(archive.asn.removeprefix("s3://"), str(folder / os.path.basename(archive.asn)))
    status, printed = command("run", folder, "--through=3", f"--output_dir={tmp_path / 'out'}", "--threads=1")
    assert status == 0, printed
    status, printed = command("diff", tmp_path / "out" / f"{mosaic}_i2d.fits", f"{url}/{mosaic}_i2d.fits")
    assert status == 0, printed


def begun(url):
    """Tasks that the last run of the products at a URL has started."""
    found = []
    for record in read_records(journal_path(url)):
        if record["record"] == "run":
            found = []
        if record["record"] == "started":
            found.append(record["task"])
    return sorted(found)


def test_what_is_up_to_date_is_not_done_again(archive, server, command, tmp_path, monkeypatch):
    """A journal on this machine, with a copy beside the products: another machine goes on, too."""
    url = "s3://archive/results/journal"
    words = ("run", *archive.urls, "--through=2", f"--output_dir={url}", "--threads=1", "--no-report")
    status, printed = command(*words)
    assert status == 0, printed
    names = [path.name.replace("uncal", "cal") for path in archive.paths]
    tasks = [f"calwebb_image2 {name}" for name in names]
    assert [task for task in begun(url) if "image2" in task] == tasks
    assert f"{url}/.jwstdask/journal.jsonl" in list_files(url)
    assert os.listdir(tmp_path / "here") == []
    server.requests.clear()
    assert "4 of 4 are up to date" in command(*words)[1]
    assert begun(url) == [] and server.sent("uncal.fits") < 10 * 60_000
    assert "4 of 4 are up to date" in command("plan", *words[1:])[1]
    assert "up to date" in command("status", url)[1]
    # what is gone is made again, with what follows from nothing else
    archive.system.rm(f"{url.removeprefix('s3://')}/{names[1]}")
    status, printed = command(*words)
    assert status == 0 and "3 of 4 are up to date" in printed
    assert begun(url) == [tasks[1]]
    # from another machine, which has the copy only
    monkeypatch.setenv("JWSTDASK_STATE", str(tmp_path / "another"))
    assert "up to date" in command("status", url)[1]
    assert "4 of 4 are up to date" in command(*words)[1]
    status, printed = command("run", *archive.urls, "--through=1", *words[-3:], "--force=jump")
    assert status == 0 and len(begun(url)) == 2
    # and back: both know what the other has done
    monkeypatch.setenv("JWSTDASK_STATE", str(tmp_path / "state"))
    found = read_history(url)
    assert len(found.runs) == 5 and all(task.state in ("done", "earlier") for task in found.tasks.values())
    status, printed = command("replay", f"{url}/{names[0]}", "--dry-run")
    assert status == 0 and "-> a temporary folder" in printed


def test_a_copy_that_cannot_be_sent(archive, server, command, caplog):
    """The run goes on; the next one on this machine knows all."""
    url = "s3://archive/results/unsent"
    words = ("run", archive.urls[0], "--through=1", f"--output_dir={url}", "--threads=1", "--no-report")
    with server.failing(lambda request: 403 if request.method == "PUT" and "journal" in request.path else None):
        status, printed = command(*words)
    assert status == 0, printed
    assert "the copy of the journal cannot be sent" in caplog.text
    assert f"{url}/.jwstdask/journal.jsonl" not in list_files(url)
    assert "1 of 1 are up to date" in command(*words)[1]
    assert f"{url}/.jwstdask/journal.jsonl" in list_files(url)


def test_catalogues_beside_the_products(archive, command, tmp_path):
    """tweakreg saves its catalogues with the products."""
    url = "s3://archive/results/catalogues"
    cals = []
    for path in archive.paths:
        assert command("run", path, "--through=2", f"--output_dir={tmp_path}", "--threads=1", "--no-report")[0] == 0
        cals.append(tmp_path / path.name.replace("uncal", "cal"))
    status, printed = command(
        "run", "tweakreg", *cals, f"--output_dir={url}", "--threads=1", "--save_catalogs=true", "--brightest=10"
    )
    assert status == 0, printed
    found = [item.rpartition("/")[2] for item in list_files(url)]
    assert len([name for name in found if name.endswith("_tweakreg.fits")]) == 2
    assert len([name for name in found if name.endswith("_cat.ecsv")]) == 2
    assert os.listdir(tmp_path / "waiting") == []


def test_what_a_prefix_holds(archive, server):
    program = find_inputs([f"s3://archive/{ROOT}"])
    assert dict(program.exposures) == dict.fromkeys(archive.urls, 0)
    (association,) = program.associations
    visit = archive.urls[0].rpartition("/")[0]
    assert association.products[0].of_type("science") == tuple(
        f"{visit}/{path.name.replace('uncal', 'cal')}" for path in archive.paths
    )
    # no pixel is read
    assert server.sent(".fits") == 0
    # an association alone: its members are found where the archive keeps them
    assert dict(find_inputs([archive.asn]).exposures) == dict.fromkeys(archive.urls, 0)


def test_the_plan(archive, server, command):
    status, printed = command("plan", f"s3://archive/{ROOT}/", "--through=2", "--output_dir=s3://archive/results/plan")
    assert status == 0
    assert "-> s3://archive/results/plan/" in printed
    # headers only: one look at those of each exposure a stage
    assert server.sent("uncal.fits") < 10 * 60_000
    assert not archive.system.exists("archive/results/plan")


def test_errors(archive, server, command):
    missing = archive.urls[0].replace("_00001_", "_00009_")
    status, printed = command("run", "calwebb_detector1", missing, archive.urls[0], "--output_dir=s3://archive/r")
    assert status == 1
    assert f"{missing}: there is no such file. Check the names of bucket and key" in printed
    assert f"{os.path.basename(archive.urls[0])}: FAILED" not in printed
    status, printed = command("run", "s3://archive/none/", "--through=1", "--output_dir=s3://archive/r")
    assert status == 1 and "s3://archive/none/: there is no file under this prefix" in printed
    server.requests.clear()
    status, printed = command("run", "calwebb_detector1", archive.urls[0], "--output_dir=s3://nobody/r")
    assert status == 1 and "s3://nobody/r: there is no such file. Check the names of bucket and key" in printed
    assert server.sent("uncal.fits") < 300_000, "the place of the products is checked before pixels are read"
    status, printed = command("run", "calwebb_detector1", archive.urls[0], "--output_dir=https://nobody/r")
    assert status == 1 and "products cannot be sent to a web server" in printed


def test_a_connection_that_is_cut(archive, server, command, tmp_path):
    """Every seventh answer breaks off: the products are the same."""
    assert command("run", "calwebb_detector1", archive.paths[0], f"--output_dir={tmp_path}", "--threads=1")[0] == 0
    url = "s3://archive/results/cut"
    counts = iter(range(10**6))
    with server.failing(lambda request: "cut" if request.range and next(counts) % 7 == 6 else None):
        status, printed = command("run", "calwebb_detector1", archive.urls[0], f"--output_dir={url}", "--threads=1")
    assert status == 0, printed
    assert next(counts) > 14
    names = [archive.paths[0].name.replace("uncal", kind) for kind in ("rate", "rateints")]
    same_products(tmp_path, url, archive.system, names)


def test_permission_lost_amid_the_work(archive, server, command, tmp_path):
    """What cannot be sent is told by its URL; what was sent is whole; nothing is left on the disk."""
    url = "s3://archive/results/lost"
    fault = lambda request: 403 if request.method == "PUT" and "rateints" in request.path else None  # noqa: E731
    with server.failing(fault):
        status, printed = command("run", "calwebb_detector1", archive.urls[0], f"--output_dir={url}", "--threads=1")
    assert status == 1
    name = archive.paths[0].name.replace("uncal", "rateints")
    assert f"{url}/{name}: access is not permitted. Check the credentials" in printed
    for found in archive.system.find(url.removeprefix("s3://")):
        open_layout(f"s3://{found}").read("SCI")
    assert os.listdir(tmp_path / "waiting") == []


def test_diff(archive, command, tmp_path):
    """Products in the store are compared with local ones."""
    status, printed = command("diff", archive.paths[0], archive.urls[0])
    assert status == 0, printed
    status, printed = command("diff", archive.paths[0], archive.urls[1])
    assert status == 1
