"""Reading and writing ASDF files."""

from __future__ import annotations

import datetime
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import asdf
import astropy.time
import numpy as np
import pytest

from jwstdask.io.asdf import array_link, read_tree, tree_bytes, write_tree

TREE = {"meta": {"name": "a", "values": [1, 2.5, None]}, "table": np.arange(4.0)}


def test_there_and_back(tmp_path):
    path = tmp_path / "a.asdf"
    write_tree(TREE, path)
    found = read_tree(path)
    assert dict(found["meta"]) == TREE["meta"]
    path.unlink()
    np.testing.assert_array_equal(found["table"], TREE["table"])
    buffer = io.BytesIO()
    write_tree(TREE, buffer)
    buffer.seek(0)
    assert dict(read_tree(buffer)["meta"]) == TREE["meta"]


NUMBERS = {
    "blocks": [np.arange(6.0).reshape(2, 3), np.arange(3, dtype=">i2"), np.array([True, False])],
    "part": np.arange(9, dtype="f4")[2:5],
    "none": np.empty((0, 3), "u8"),
}


@pytest.mark.parametrize(
    ("tree", "options", "plain"),
    [
        (TREE, {}, True),
        (NUMBERS, {}, True),
        (NUMBERS, {"all_array_storage": "inline"}, True),
        (NUMBERS, {"all_array_compression": "zlib"}, False),
        ({**NUMBERS, "holes": np.arange(9.0)[::2]}, {}, False),
        ({"name": np.array(["a", "b"])}, {}, False),
        ({"text": "a !b !core/complex-1.0.0 c"}, {}, False),
        ({"complex": 1j}, {}, False),
        ({"time": astropy.time.Time("2026-01-01")}, {}, False),
        ({"same": [TREE] * 2}, {}, True),
    ],
)
def test_plain_trees_are_read_without_the_library(monkeypatch, tmp_path, tree, options, plain):
    """They are what the library reads, in values and in types."""
    path = tmp_path / "a.asdf"
    asdf.AsdfFile(tree).write_to(path, **options)
    opened, original = [], asdf.open
    monkeypatch.setattr(asdf, "open", lambda *arguments, **more: opened.append(1) or original(*arguments, **more))
    found = read_tree(path)
    assert bool(opened) is not plain
    with original(path, lazy_load=False, memmap=False) as file:
        assert_same(found, file.tree)


def assert_same(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        for item, wanted in zip(found, expected, strict=True):
            assert_same(item, wanted)
    elif isinstance(found, np.ndarray) or hasattr(expected, "datatype"):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), strict=True)
    else:
        assert type(found) is type(expected) and found == expected


@pytest.mark.parametrize("cut", range(90, 900, 90))
def test_a_file_cut_short_is_no_tree(tmp_path, cut):
    path = tmp_path / "a.asdf"
    write_tree({"values": np.arange(10.0)}, path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(Exception, match=r"\S"):
        np.asarray(read_tree(path)["values"])


def test_one_thread_at_a_time_is_in_the_validators_of_the_library(monkeypatch, tmp_path):
    """They share in a process what they have seen, by address: see the module."""
    original, inside, most = asdf.schema.validate, [], []

    def validate(*arguments, **options):
        inside.append(threading.get_ident())
        most.append(len(set(inside)))
        time.sleep(0.01)
        try:
            return original(*arguments, **options)
        finally:
            inside.remove(threading.get_ident())

    monkeypatch.setattr(asdf.schema, "validate", validate)
    path = tmp_path / "a.asdf"
    tree = {**TREE, "complex": 1j}  # not read without the library
    write_tree(tree, path)
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(write_tree, tree, io.BytesIO()) for _ in range(6)]
        tasks += [pool.submit(read_tree, path) for _ in range(6)]
        for task in tasks:
            task.result()
    assert len(most) >= 12
    assert max(most) == 1


def test_a_tree_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.asdf"
    write_tree(TREE, path)
    with pytest.raises(Exception, match="large"):
        write_tree({"number": 2**80}, path)
    assert dict(read_tree(path)["meta"]) == TREE["meta"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.asdf"]


def test_plain_trees_are_written_as_the_library_writes_them(monkeypatch):
    dtype = np.dtype([("number", ">i4"), ("time", ">f8"), ("name", "S5")])
    tree = {
        "_fits_hash": "0123",
        "data": array_link("fits:SCI,1", (3, 4), np.dtype("float32")),
        "times": array_link("fits:INT_TIMES,1", (7,), dtype),
        "meta": {
            "texts": ["", "null", "1.5", "2023-07-15", "two\nlines", "ü", "a: b # c", "x " * 60, "'\"", " blank "],
            "numbers": [0, -1, 2**61, 1.0, 1e300, -0.1, float("inf"), float("nan"), True, None],
            "nested": {"empty": {}, "list": [], "of lists": [[1, 2], [3, [4]]], "dicts": [{"a": 1}, {"b": {"c": 2}}]},
            "zebra": 1,
            "apple": 2,
        },
        "asdf": "a name that comes before those of the library",
    }
    buffer = io.BytesIO()
    write_tree(tree, buffer)
    monkeypatch.setattr(asdf.schema, "validate", None)  # the library cannot write without it
    assert tree_bytes(tree) == buffer.getvalue()


@pytest.mark.parametrize("value", [np.arange(3.0), np.float64(2.5), (1, 2), 2**70, {1: 2}, datetime.date(2023, 7, 15)])
def test_other_trees_are_left_to_the_library(value):
    tree = {"meta": {"name": "a", "value": value}}
    buffer = io.BytesIO()
    try:
        write_tree(tree, buffer)
    except Exception as error:
        with pytest.raises(type(error)):
            tree_bytes(tree)
    else:
        assert tree_bytes(tree) == buffer.getvalue()
