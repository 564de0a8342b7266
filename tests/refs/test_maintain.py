"""Promise: what a plan lacks is known before it runs, is fetched whole, and travels to a machine without a network."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from jwstdask.core.errors import ReferenceFileError
from jwstdask.refs import crds as refs
from jwstdask.refs import maintain

META = {
    "meta.instrument.name": "NIRCAM",
    "meta.instrument.detector": "NRCA1",
    "meta.observation.date": "2023-05-06",
    "meta.observation.time": "01:02:03.456",
}
TYPES = ["gain", "flat", "mask", "fringe", "area"]
FILES = ["jwst_nircam_gain_0001.fits", "jwst_nircam_flat_0001.fits", "jwst_nircam_mask_0001.fits"]


@pytest.fixture
def program(cache, write_reference):
    """A cache with three references of which all are there; `area` is not decided and `fringe` not applicable."""
    for number, name in enumerate(FILES):
        reftype = name.split("_")[2]
        cache.rmap("nircam", reftype, ("META.INSTRUMENT.DETECTOR",), {("NRCA1",): {"2020-01-01 00:00:00": name}})
        images = {"SCI": np.full((30, 40), number, np.float32)}
        write_reference(cache.path("nircam", name), images, REFTYPE=reftype.upper())
    cache.rmap("nircam", "area", ("META.INSTRUMENT.DETECTOR",), {("NRCB1",): {"2020-01-01 00:00:00": "N/A"}})
    cache.rmap("miri", "gain", (), {(): {"2020-01-01 00:00:00": "jwst_miri_gain_0001.fits"}})
    cache.not_applicable("nircam", "fringe")
    cache.finish()
    return cache


def resolved(number=1):
    return refs.resolve([META] * number, TYPES)


def states(statuses):
    return {status.reftype: status.state for status in statuses}


def sha1(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


def write_catalogue(program, **changes):
    """Sizes and sums of the files as they are, kept as an online session leaves them in the cache."""
    from crds.client.proxy import crds_encode

    folder = program.root / "references/jwst/nircam"
    known = {path.name: {"size": str(path.stat().st_size), "sha1sum": sha1(path)} for path in folder.iterdir()}
    path = program.root / "config/jwst/server_config"
    info = eval(path.read_text()) | {"download_metadata": crds_encode(known | changes)}
    path.write_text(repr(info))
    return known


# ----------------------------------------------------------------------------------------------------------------------
# Check


def test_check(program):
    choices = resolved(3)
    statuses = maintain.check(choices)
    assert states(statuses) == {"area": "undecided", "gain": "present", "flat": "present", "mask": "present"}
    assert statuses[0].reftype == "area" and "NRCA1" in statuses[0].problem
    gain = next(status for status in statuses if status.reftype == "gain")
    assert gain.exposures == 3 and gain.size == os.path.getsize(gain.path) and gain.expected_size is None
    assert maintain.check(choices[0].values()) == maintain.check(choices[:1])
    assert maintain.check([]) == []


def test_missing_and_truncated_files(program):
    program.path("nircam", FILES[0]).unlink()
    flat = program.path("nircam", FILES[1])
    flat.write_bytes(flat.read_bytes()[:6000])
    found = {status.reftype: status for status in maintain.check(resolved())}
    assert found["gain"].state == "missing" and "No such file" in found["gain"].problem
    assert found["flat"].state == "damaged" and "truncated" in found["flat"].problem and found["flat"].size == 6000
    assert found["mask"].state == "present"


def test_catalogue_of_the_cache(program):
    """Sizes and sums that the server gave before are known without it."""
    known = write_catalogue(program)
    assert maintain.catalogue()[FILES[0]] == (int(known[FILES[0]]["size"]), known[FILES[0]]["sha1sum"])
    mask = program.path("nircam", FILES[2])
    data = bytearray(mask.read_bytes())
    data[5000] ^= 1  # same size, structure whole: only the sum tells
    mask.write_bytes(data)
    flat = program.path("nircam", FILES[1])
    flat.write_bytes(flat.read_bytes() + bytes(2880))
    statuses = {status.reftype: status for status in maintain.check(resolved())}
    assert statuses["mask"].state == "present" and not statuses["mask"].verified
    assert statuses["flat"].state == "damaged" and "too long" in statuses["flat"].problem
    statuses = {status.reftype: status for status in maintain.check(resolved(), checksums=True)}
    assert statuses["mask"].state == "damaged" and "SHA-1" in statuses["mask"].problem
    assert statuses["gain"].verified


def test_overrides_are_the_users(program, tmp_path):
    write_catalogue(program)
    mine = tmp_path / FILES[0]
    mine.write_bytes(program.path("nircam", FILES[0]).read_bytes() + bytes(2880))
    choices = refs.resolve([META], TYPES, overrides={"gain": mine, "flat": tmp_path / "absent.fits"})
    found = {status.reftype: status for status in maintain.check(choices)}
    assert found["gain"].state == "present" and found["gain"].override and found["gain"].expected_size is None
    assert found["flat"].state == "missing"
    maintain.sync(choices)  # nothing of the cache lacks: no server is needed


def test_table(program):
    program.path("nircam", FILES[0]).unlink()
    text = maintain.format_statuses(maintain.check(resolved()))
    lines = text.splitlines()
    assert lines[0].split() == ["type", "reference", "size", "state", "exposures"]
    assert any("jwst_nircam_gain_0001.fits" in line and "missing" in line for line in lines)
    assert lines[-1] == "2 present, 1 missing, 1 undecided; 23.0 kB on disk"
    assert maintain.format_statuses([]).endswith("nothing needed; 0 B on disk")


# ----------------------------------------------------------------------------------------------------------------------
# Sync


class Server:
    """The part of a CRDS server that the client needs to fetch files: two calls and plain files."""

    def __init__(self, mappings, references, context):
        from crds.client.proxy import crds_encode

        files = {path.name: path for folder in (mappings, references) for path in folder.iterdir()}
        self.contents = {name: path.read_bytes() for name, path in files.items()}
        sizes = {
            name: {"size": str(len(data)), "sha1sum": hashlib.sha1(data).hexdigest()}
            for name, data in self.contents.items()
        }
        self.fetched: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                base = f"http://localhost:{self.server.server_port}/files/"
                info = {"observatory": "jwst", "operational_context": context, "latest_context": context}
                info |= {
                    "edit_context": context,
                    "bad_files_list": [],
                    "force_remote_mode": False,
                    "last_synced": "now",
                }
                info |= {"crds_version": {"str": "14"}, "download_metadata": crds_encode(sizes)}
                info |= {name: {"unchecked": {"jwst": base}} for name in ("reference_url", "mapping_url")}
                names = [name for name in outer.contents if name.endswith("map")]
                result = {"get_server_info": info, "get_mapping_names": names, "get_build_context": context}
                self.reply(json.dumps({"result": result[call["method"]], "error": None, "id": call["id"]}).encode())

            def do_GET(self):
                name = self.path.rsplit("/", 1)[1]
                outer.fetched.append(name)
                self.reply(outer.contents[name]) if name in outer.contents else self.send_error(404)

            def reply(self, data):
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("localhost", 0), Handler)
        self.url = f"http://localhost:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def server(program, monkeypatch):
    from crds.client import api

    served = Server(program.mappings, program.root / "references/jwst/nircam", program.context)
    before = {name: getattr(api, name) for name in ("URL", "S") if hasattr(api, name)}
    monkeypatch.setenv("CRDS_SERVER_URL", served.url)
    yield served
    served.http.shutdown()
    served.http.server_close()
    for name in ("URL", "S"):
        if name in before:
            setattr(api, name, before[name])
        elif hasattr(api, name):
            delattr(api, name)


def test_sync_fetches_what_lacks(program, server):
    gain, flat = program.path("nircam", FILES[0]), program.path("nircam", FILES[1])
    whole = gain.read_bytes(), flat.read_bytes()
    gain.unlink()
    flat.write_bytes(whole[1][:5000])
    statuses = maintain.sync(resolved())
    assert states(statuses) == {"area": "undecided", "gain": "present", "flat": "present", "mask": "present"}
    assert (gain.read_bytes(), flat.read_bytes()) == whole
    assert sorted(server.fetched) == sorted(FILES[:2])
    # what the server told is kept for times without it
    assert maintain.catalogue()[FILES[0]] == (len(whole[0]), hashlib.sha1(whole[0]).hexdigest())
    assert [path.name for path in gain.parent.iterdir() if path.name not in FILES] == []


def test_sync_into_an_empty_cache(program, server, tmp_path, monkeypatch):
    """Mappings come first, at the moment the context is read."""
    monkeypatch.setenv("CRDS_PATH", str(tmp_path / "new"))
    monkeypatch.delenv("CRDS_CONTEXT")
    choices = resolved()
    assert not choices[0]["gain"].present and choices[0]["gain"].name == FILES[0]
    statuses = maintain.sync(choices)
    assert states(statuses)["gain"] == "present"
    assert statuses[-1].path.startswith(str(tmp_path / "new" / "references/jwst/nircam"))


def test_sync_of_a_whole_cache_asks_nobody(program, server):
    maintain.sync(resolved())
    assert server.fetched == []


def test_interrupted_transfer_leaves_no_half_file(program, server):
    gain = program.path("nircam", FILES[0])
    server.contents[FILES[0]] = gain.read_bytes()[:4000]
    gain.unlink()
    with pytest.raises(ReferenceFileError, match=r"could not be fetched.*size"):
        maintain.sync(resolved())
    assert not gain.exists()


def test_unknown_to_the_server(program, server):
    from crds.client import api

    choice = refs.ReferenceChoice(
        "dark", "jwst_nircam_dark_0999.fits", str(program.path("nircam", "jwst_nircam_dark_0999.fits"))
    )
    with pytest.raises(ReferenceFileError, match=r"dark_0999.*could not be fetched"):
        maintain.sync([choice])
    assert api.get_crds_server() == server.url


def test_sync_without_server(program):
    program.path("nircam", FILES[0]).unlink()
    with pytest.raises(ReferenceFileError, match=r"gain_0001.*no CRDS server is set.*CRDS_SERVER_URL"):
        maintain.sync(resolved())


def test_sync_of_a_read_only_cache(program, server, monkeypatch):
    program.path("nircam", FILES[0]).unlink()
    choices = resolved()
    monkeypatch.setenv("CRDS_READONLY_CACHE", "1")
    with pytest.raises(ReferenceFileError, match="read-only"):
        maintain.sync(choices)
    assert server.fetched == []


def test_server_that_does_not_answer(program, server, monkeypatch):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ReferenceFileError, match=r"localhost.*does not answer.*network"):
        maintain.check(resolved(), ask_server=True)
    program.path("nircam", FILES[0]).unlink()
    with pytest.raises(ReferenceFileError, match=r"could not be fetched from http://localhost"):
        maintain.sync(resolved())


# ----------------------------------------------------------------------------------------------------------------------
# Pack


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_pack_is_a_working_cache(program, tmp_path, crds_environment, suffix):
    choices = resolved(2)
    target = tmp_path / "packs" / f"program{suffix}"
    manifest = maintain.pack(choices, target)
    assert manifest.context == program.context and manifest.left_out == []
    references = [name for name in manifest.files if name.startswith("references/")]
    assert references == sorted(f"references/jwst/nircam/{name}" for name in FILES)
    assert manifest.size == sum(entry["size"] for entry in manifest.files.values())
    assert [path.name for path in target.parent.iterdir()] == [target.name]

    root = maintain.unpack(target, tmp_path / "elsewhere")
    # no CRDS_CONTEXT: the context of the pack is that of the cache
    crds_environment(root, None)
    again = resolved(2)
    assert [{kind: (choice.name, choice.present) for kind, choice in item.items()} for item in again] == [
        {kind: (choice.name, choice.present) for kind, choice in item.items()} for item in choices
    ]
    assert all(choice.path.startswith(str(root)) for choice in again[0].values() if choice.path)
    statuses = maintain.check(again, checksums=True)
    assert all(status.verified for status in statuses if status.state == "present")
    # the crds client itself is content with it
    import crds

    paths = crds.getreferences(dict(META), reftypes=["gain", "fringe"])
    assert paths["gain"] == again[0]["gain"].path


def test_pack_names_mappings_of_other_instruments_only_where_they_are(program, tmp_path):
    (program.mappings / "jwst_miri_gain_0001.rmap").unlink()
    manifest = maintain.pack(resolved(), tmp_path / "a.tar")
    assert "mappings/jwst/jwst_miri_0001.imap" in manifest.files
    assert "mappings/jwst/jwst_miri_gain_0001.rmap" not in manifest.files
    (program.mappings / "jwst_nircam_area_0001.rmap").unlink()
    with pytest.raises(ReferenceFileError, match=r"area_0001\.rmap.*not in the cache"):
        maintain.pack(resolved_without_area(), tmp_path / "b.tar")


def resolved_without_area():
    return refs.resolve([META], [name for name in TYPES if name != "area"])


def test_pack_of_a_flat_cache(program, tmp_path, crds_environment):
    (program.root / "config/jwst/ref_cache_subdir_mode").write_text("flat")
    for name in FILES:
        os.rename(program.path("nircam", name), program.root / "references/jwst" / name)
    manifest = maintain.pack(resolved(), tmp_path / "a.tar")
    assert f"references/jwst/nircam/{FILES[0]}" in manifest.files
    crds_environment(maintain.unpack(tmp_path / "a.tar", tmp_path / "u"), None)
    assert resolved()[0]["gain"].present


def test_overrides_are_left_out(program, tmp_path):
    mine = tmp_path / "my_gain.fits"
    mine.write_bytes(program.path("nircam", FILES[0]).read_bytes())
    manifest = maintain.pack(refs.resolve([META], TYPES, overrides={"gain": mine}), tmp_path / "a.tar")
    assert manifest.left_out == [str(mine)]
    assert not any("gain_0001.fits" in name for name in manifest.files)


def test_incomplete_cache_is_not_packed(program, tmp_path):
    program.path("nircam", FILES[0]).unlink()
    with pytest.raises(ReferenceFileError, match=r"gain_0001\.fits \(missing\).*refs sync"):
        maintain.pack(resolved(), tmp_path / "a.tar")
    assert list(tmp_path.glob("*.tar")) == []


def test_damaged_packs(program, tmp_path):
    target = tmp_path / "a.tar"
    maintain.pack(resolved(), target)
    whole = target.read_bytes()
    target.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReferenceFileError, match=r"a\.tar.*Copy or make it again"):
        maintain.unpack(target, tmp_path / "one")
    position = whole.index(b"SIMPLE  =") + 5 * 2880 // 2
    target.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    with pytest.raises(ReferenceFileError, match="not what the manifest says"):
        maintain.unpack(target, tmp_path / "two")
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.add(program.path("nircam", FILES[0]), "x.fits")
    with pytest.raises(ReferenceFileError, match="no pack of references"):
        maintain.unpack(tmp_path / "other.tar", tmp_path / "three")
    with pytest.raises(ReferenceFileError, match=r"none\.tar"):
        maintain.unpack(tmp_path / "none.tar", tmp_path / "four")
    with pytest.raises(ReferenceFileError, match="cannot be written"):
        maintain.pack(resolved(), target / "under" / "a.tar")
