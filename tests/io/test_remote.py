"""URLs: byte ranges and nothing more, repeated tries, errors, listings, finished objects; on an S3 server."""

from __future__ import annotations

import http.server
import math
import os
import socket
import threading
import uuid
from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from astropy.io import fits

import jwstdask
from jwstdask.core.errors import InputError, ProductError
from jwstdask.io import remote
from jwstdask.io.layout import open_layout, read_bytes
from jwstdask.io.product import ProductWriter, prepare_folder
from jwstdask.io.remote import check_writable, exists, list_files, place_in_archive, publish
from tests.io.s3 import client_of, s3_server

pytest.importorskip("moto", reason="the S3 server is moto's")
pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """An empty bucket, and no pauses."""
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    monkeypatch.setenv("JWSTDASK_SCRATCH", str(tmp_path / "waiting"))
    with client_of(server) as system:
        name = f"test-{uuid.uuid4().hex}"
        system.mkdir(name)
        server.requests.clear()
        yield SimpleNamespace(name=name, url=f"s3://{name}", system=system)


@pytest.fixture
def cube(bucket, tmp_path):
    """A ramp (2, 5, 300, 200) of 1.2 MB in the bucket, and its values."""
    data = np.random.default_rng(3).integers(0, 65535, (2, 5, 300, 200)).astype(np.uint16)
    path = tmp_path / "jw01234001001_02101_00001_nrca1_uncal.fits"
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, name="SCI"), fits.ImageHDU(data[0], name="GROUP")]
    hdus[0].header["TELESCOP"] = "JWST"
    hdus[0].header["DATAMODL"] = "Level1bModel"
    fits.HDUList(hdus).writeto(path)
    bucket.system.put_file(str(path), f"{bucket.name}/jw01234/{path.name}")
    return SimpleNamespace(url=f"{bucket.url}/jw01234/{path.name}", data=data, size=path.stat().st_size, path=path)


def test_headers_cost_some_blocks(cube, server):
    server.requests.clear()
    layout = open_layout(cube.url)
    assert layout.names == ["PRIMARY", "SCI", "GROUP"]
    assert server.sent() < 100_000 < cube.size
    assert all(item.range for item in server.made("GET"))


def test_strips_cost_their_bytes(cube, server):
    layout = open_layout(cube.url)
    server.requests.clear()
    found = layout.read("SCI", slice(100, 116))
    np.testing.assert_array_equal(found, cube.data[..., 100:116, :])
    assert server.sent() == found.nbytes
    server.requests.clear()
    np.testing.assert_array_equal(
        layout.read("SCI", slice(3, 5), slice(7, 11), leading=(slice(1, 2), slice(2, 4))),
        cube.data[1:2, 2:4, 3:5, 7:11],
    )
    assert server.sent() == 1 * 2 * 2 * 4 * 2


def test_lazy_dataset(cube, server):
    server.requests.clear()
    ds = jwstdask.open_exposure(cube.url)
    assert ds["sci"].shape == cube.data.shape
    opened = server.sent()
    assert opened < 200_000
    np.testing.assert_array_equal(ds["sci"][1, 3, 50, 60].compute(), cube.data[1, 3, 50, 60])


def test_many_planes_are_asked_for_by_and_by(cube, server, monkeypatch):
    """Ranges in flight hold no more than the limit; the values are the same."""
    import jwstdask.io.layout as module

    asked = []
    original = module._Source._fetch
    monkeypatch.setattr(module, "_TOGETHER", 10_000)
    monkeypatch.setattr(
        module._Source,
        "_fetch",
        lambda self, offsets, *rest: asked.append(len(offsets)) or original(self, offsets, *rest),
    )
    found = open_layout(cube.url).read("SCI", slice(0, 10))
    np.testing.assert_array_equal(found, cube.data[..., :10, :])
    assert max(asked) == 10_000 // (10 * 200 * 2)


@pytest.mark.parametrize("fault", ["cut", 503])
def test_what_passes_is_tried_again(cube, server, fault):
    layout = open_layout(cube.url)
    failures = iter([fault, fault])
    with server.failing(lambda request: next(failures, None) if request.method == "GET" else None):
        found = layout.read("SCI", slice(0, 8))
    np.testing.assert_array_equal(found, cube.data[..., :8, :])
    assert next(failures, None) is None


def test_tries_come_to_an_end(cube, server, monkeypatch):
    monkeypatch.setattr(remote, "TRIES", 2)
    layout = open_layout(cube.url)
    with server.failing(lambda request: 503 if request.method == "GET" else None):
        with pytest.raises(InputError, match=f"{cube.url}: the connection failed 2 times .* Check the network"):
            layout.read("SCI", slice(0, 1))


def test_tries_and_pauses(monkeypatch):
    pauses = []
    monkeypatch.setattr(remote.time, "sleep", pauses.append)
    errors = [TimeoutError(), ConnectionResetError(), ConnectionError("x")]

    def work():
        if errors:
            raise errors.pop()
        return 7

    assert remote.retried(work, "s3://b/k") == 7
    assert pauses == [0.5, 1.0, 2.0]
    for error in (FileNotFoundError("x"), PermissionError("x"), ValueError("x"), ConnectionRefusedError("x")):
        pauses.clear()
        calls = []

        def fail(error=error, calls=calls):
            calls.append(1)
            raise error

        with pytest.raises(InputError):
            remote.retried(fail, "s3://b/k")
        assert (len(calls), pauses) == (1, [])


def test_errors(cube, bucket, server, monkeypatch):
    for url, words in (
        (f"{bucket.url}/none.fits", "there is no such file. Check the names of bucket and key"),
        ("s3://no-such-bucket/none.fits", "there is no such file. Check the names"),
        (f"{bucket.url}/jw01234", "this is a folder"),
        ("nothing://x/y.fits", r'such URLs cannot be opened .* Pip install "jwstdask\[s3\]"'),
    ):
        with pytest.raises(InputError, match=f"{url}: {words}"):
            open_layout(url)
    with server.failing(lambda request: 403):
        with pytest.raises(
            InputError, match=f"{cube.url}: access is not permitted. Check the credentials; .* FSSPEC_S3"
        ):
            open_layout(cube.url)


def test_nobody_there(bucket, monkeypatch):
    import s3fs

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(InputError, match=rf"the server cannot be reached .* \(AWS_ENDPOINT_URL is {address}\)"):
            open_layout(f"{bucket.url}/a.fits")


def test_no_credentials(cube, bucket, monkeypatch, tmp_path):
    import s3fs

    bucket.system.call_s3("put_object_acl", Bucket=bucket.name, Key=cube.url[len(bucket.url) + 1 :], ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match=r"access is not permitted\. Check the credentials"):
        open_layout(cube.url)
    # unless it is public and asked for without any
    assert open_layout(cube.url, {"anon": True}).names[1] == "SCI"


def test_public_bucket_needs_no_credentials():
    assert remote.file_system("s3://stpubdata/jwst/public/a.fits")[0].anon
    assert not remote.file_system("s3://other/a.fits")[0].anon
    assert not remote.file_system("s3://stpubdata/a.fits", {"anon": False})[0].anon


def test_listing(bucket):
    for name in ("p/jw01/b.fits", "p/jw01/L3/t/c.json", "p/jw02/a.fits", "p/jw011.fits"):
        bucket.system.pipe_file(f"{bucket.name}/{name}", b"x")
    assert list_files(f"{bucket.url}/p/jw01/") == [f"{bucket.url}/p/jw01/{name}" for name in ("L3/t/c.json", "b.fits")]
    assert list_files(f"{bucket.url}/p/jw02") == [f"{bucket.url}/p/jw02/a.fits"]
    assert list_files(f"{bucket.url}/p/jw0") == [
        f"{bucket.url}/p/{name}" for name in ("jw01/L3/t/c.json", "jw01/b.fits", "jw011.fits", "jw02/a.fits")
    ]
    assert exists(f"{bucket.url}/p/jw011.fits") and not exists(f"{bucket.url}/p/jw01")
    assert read_bytes(f"{bucket.url}/p/jw011.fits") == b"x"
    with pytest.raises(InputError, match="there is no file under this prefix"):
        list_files(f"{bucket.url}/q/")


def test_places_in_the_archive():
    root = "s3://stpubdata/jwst/public/jw01234"
    member = "jw01234005001_02101_00001_nrca1_cal.fits"
    association = f"{root}/L3/t/o005/jw01234-o005_20250101t000000_image3_00001_asn.json"
    assert place_in_archive(association, member) == f"{root}/jw01234005001/{member}"
    assert place_in_archive(association, "jw01235005001_02101_00001_nrca1_cal.fits") is None
    assert place_in_archive(association, "mine.fits") is None
    assert place_in_archive("s3://mine/results/a_asn.json", member) is None


def image(path, rows=64, columns=64, value=1.0, **options):
    arrays = {"sci": ((rows, columns), "float32")}
    writer = ProductWriter(path, "ImageModel", {"meta.telescope": "JWST"}, arrays, **options)
    writer.write("sci", np.full((rows, columns), value, np.float32))
    return writer


def test_product(bucket, tmp_path, server):
    """Nothing is there before it is complete, and nothing is left on the disk."""
    url = f"{bucket.url}/results/a_rate.fits"
    prepare_folder(os.path.dirname(url))
    writer = image(url)
    assert not exists(url)
    assert os.path.dirname(writer.temporary) == str(tmp_path / "waiting")
    assert writer.finish() == url
    assert list_files(bucket.url) == [url]
    assert os.listdir(tmp_path / "waiting") == []
    layout = open_layout(url)
    assert (layout.read("sci") == 1).all()
    assert layout.header()["FILENAME"] == "a_rate.fits"
    # replaced as a whole
    image(url, value=2.0).finish()
    assert (open_layout(url).read("sci") == 2).all()
    image(url, value=3.0).abort()
    assert (open_layout(url).read("sci") == 2).all()
    assert os.listdir(tmp_path / "waiting") == []


def test_large_product_is_sent_in_parts(bucket, server, monkeypatch, tmp_path):
    """At no time does a reader see part of it, while 12 parts arrive."""
    monkeypatch.setattr(remote, "PART", 5 << 20)  # the least that S3 takes
    url = f"{bucket.url}/large.fits"
    prepare_folder(bucket.url)
    image(url, value=1.0).finish()
    first = bucket.system.info(url)["size"]
    seen, over = set(), threading.Event()

    def watch():
        while not over.is_set():
            seen.add(bucket.system.info(url)["size"])

    writer = image(url, 3600, 4096, 2.0)
    size = os.path.getsize(writer.temporary)
    server.requests.clear()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        writer.finish()
    finally:
        over.set()
        watcher.join()
    parts = [item for item in server.made("PUT") if "partNumber" in item.query]
    assert len(parts) == math.ceil(bucket.system.info(url)["size"] / (5 << 20)) == 12
    assert first in seen
    assert seen <= {first, bucket.system.info(url)["size"]}
    assert bucket.system.info(url)["size"] >= size


def test_product_that_cannot_be_sent(bucket, server, monkeypatch, tmp_path):
    """The error names the URL; neither a part of an object nor a file on the disk is left."""
    monkeypatch.setattr(remote, "PART", 5 << 20)
    monkeypatch.setattr(remote, "TRIES", 2)
    url = f"{bucket.url}/a.fits"
    prepare_folder(bucket.url)
    for rows, fault, words in (
        (64, lambda request: 403 if request.method == "PUT" else None, "access is not permitted"),
        (3600, lambda request: 403 if "partNumber=3" in request.query else None, "access is not permitted"),
        (3600, lambda request: 503 if "partNumber=3" in request.query else None, "the connection failed 2 times"),
    ):
        writer = image(url, rows, 4096)
        with server.failing(fault), pytest.raises(ProductError, match=f"{url}: {words}"):
            writer.finish()
        assert not exists(url)
        assert os.listdir(tmp_path / "waiting") == []
        uploads = bucket.system.call_s3("list_multipart_uploads", Bucket=bucket.name)
        assert uploads.get("Uploads", []) == []


def test_parts_that_failed_are_sent_again(bucket, server, monkeypatch):
    monkeypatch.setattr(remote, "PART", 5 << 20)
    prepare_folder(bucket.url)
    failures = iter([503])
    with server.failing(lambda request: next(failures, None) if "partNumber=2" in request.query else None):
        image(f"{bucket.url}/a.fits", 3600, 4096, 5.0).finish()
    assert (open_layout(f"{bucket.url}/a.fits").read("sci", slice(1000, 1010)) == 5).all()


def test_places_are_checked_before_any_work(bucket, server):
    check_writable(f"{bucket.url}/results")
    assert bucket.system.find(bucket.name) == []
    with pytest.raises(ProductError, match=r"s3://no-such-bucket/results: there is no such file\. Check"):
        check_writable("s3://no-such-bucket/results")
    with server.failing(lambda request: 403 if request.method == "POST" else None):
        with pytest.raises(ProductError, match="access is not permitted"):
            check_writable(f"{bucket.url}/results")
    with pytest.raises(ProductError, match="cannot be sent to a web server"):
        check_writable("https://server/results")


def test_local_files_are_renamed(tmp_path):
    (tmp_path / "a.part").write_text("x")
    publish(str(tmp_path / "a.part"), str(tmp_path / "a"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class _Whole(http.server.SimpleHTTPRequestHandler):
    """A web server that knows no byte ranges, as Python's own."""

    failures: ClassVar[list[int]] = []

    def do_GET(self):
        if self.failures:
            self.send_error(self.failures.pop())
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def web(cube, tmp_path):
    """Address of a web server with the ramp."""
    handler = partial(_Whole, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.server_port}"
        listener.shutdown()
        thread.join()
    _Whole.failures.clear()


def test_web_servers(web, cube):
    pytest.importorskip("aiohttp")
    with pytest.raises(InputError, match=r"none\.fits: there is no such file\. Check the path"):
        open_layout(f"{web}/none.fits")
    with pytest.raises(InputError, match=r"the server sends whole files, not parts of them\. Download it first"):
        open_layout(f"{web}/{cube.path.name}")
    # what is wanted whole can be had, also from a server that is busy at first
    _Whole.failures.extend([503, 503])
    assert read_bytes(f"{web}/{cube.path.name}") == cube.path.read_bytes()
    assert _Whole.failures == []
    _Whole.failures.append(403)
    with pytest.raises(InputError, match="access is not permitted"):
        read_bytes(f"{web}/{cube.path.name}")


def test_the_server_listens_on_loopback_only(server):
    import psutil

    port = int(server.url.rpartition(":")[2])
    places = {
        item.laddr.ip
        for item in psutil.Process().net_connections(kind="inet")
        if item.status == "LISTEN" and item.laddr.port == port
    }
    assert places == {"127.0.0.1"}


def test_arrays_of_remote_exposures(cube, server, monkeypatch):
    """Windows of all kinds, as from a local file; tiles that overlap cost their rows once, edges one look at all."""
    from jwstdask.core.block import Window
    from jwstdask.engine import sources

    monkeypatch.setattr(sources, "_BAND", 32)
    monkeypatch.setattr(sources, "_SMALL", 0)
    local, distant = sources.FileArrays.open(str(cube.path)), sources.FileArrays.open(cube.url)

    def window(y0, y1, x0, x1):
        return Window(y0, y1, x0, x1, y0, y1, x0, x1)

    def same(*places):
        for place in places:
            found = distant.read("sci", window(*place), np.float32)
            np.testing.assert_array_equal(found, local.read("sci", window(*place), np.float32))

    server.requests.clear()
    same(*[(y, y + 26, x, x + 50) for y in range(0, 274, 20) for x in (0, 50, 150)])
    rows = 2 * 5 * 200 * 2
    assert server.sent() == 286 * rows
    server.requests.clear()
    same((0, 300, 0, 4), (0, 300, 196, 200), (10, 290, 2, 16), (5, 250, 184, 199))
    assert server.sent() == 300 * rows
    server.requests.clear()
    same((20, 120, 30, 60))
    assert server.sent() == 100 * rows
    # small arrays: every row that is asked for once
    monkeypatch.setattr(sources, "_SMALL", cube.data.nbytes)
    server.requests.clear()
    same((20, 40, 0, 50), (30, 60, 7, 9), (100, 110, 0, 200), (10, 120, 196, 200), (20, 120, 0, 200))
    assert server.sent() == 110 * rows
