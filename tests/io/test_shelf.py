"""Byte strings that are put aside are all there, in little memory, also where there is no room for them."""

from __future__ import annotations

import errno
import os
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from jwstdask.io.shelf import Shelf


def data(number):
    return os.urandom(number % 50) + b"%d" % number


def test_all_are_there_with_several_threads():
    shelf = Shelf()
    made = [data(number) for number in range(2000)]
    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(shelf.put, made))
        assert list(pool.map(lambda item: item.read(), kept)) == made


def test_memory_does_not_grow_with_their_size():
    shelf = Shelf()
    shelf.put(b"")
    tracemalloc.start()
    try:
        kept = [shelf.put(os.urandom(5000)) for _ in range(1000)]
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 300 * len(kept)


def test_they_outlive_the_shelf():
    kept = [Shelf().put(b"one"), Shelf().put(b"two")]
    assert [item.read() for item in kept] == [b"one", b"two"]


def full(*arguments, **words):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", [(tempfile, "TemporaryFile"), (os, "pwrite")])
def test_without_room_they_stay_in_memory(monkeypatch, where):
    shelf = Shelf()
    first = shelf.put(b"first")
    monkeypatch.setattr(*where, full)
    others = [shelf.put(b"second"), Shelf().put(b"third")]
    assert [item.read() for item in (first, *others)] == [b"first", b"second", b"third"]


def test_what_was_written_in_part_stays_in_memory(monkeypatch):
    shelf = Shelf()
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, packed, offset: write(file, packed[:3], offset))
    first = shelf.put(b"first")
    monkeypatch.setattr(os, "pwrite", write)
    assert [first.read(), shelf.put(b"second").read()] == [b"first", b"second"]
