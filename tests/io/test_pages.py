"""Pages of files that are written to through their maps."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from jwstdask.io.pages import make_ready, write_at


@pytest.mark.parametrize(("first", "size"), [(0, 100), (2880, 50_000), (5000, 3 << 20), (7, 0)])
def test_a_part_becomes_zeros_and_nothing_else_changes(tmp_path, first, size):
    """Of a file that is not empty, through a map that begins within it."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * (4 << 20))
    shift = first // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, offset=shift) as memory:
        make_ready(file.fileno(), memory, first, size, shift)
        memory[first - shift : first - shift + 1] = b"y"
    expected = bytearray(b"x" * first + bytes(size) + b"x" * ((4 << 20) - first - size))
    expected[first] = ord("y")
    assert path.read_bytes() == expected


def test_all_is_written_where_a_call_writes_less(tmp_path, monkeypatch):
    """A system may write a part of what it is given."""
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: whole(file, data[:3], offset))
    with (tmp_path / "file").open("w+b") as file:
        write_at(file.fileno(), b"0123456789", 5)
    assert (tmp_path / "file").read_bytes() == bytes(5) + b"0123456789"


def test_a_full_disk_is_an_error(tmp_path):
    """Rather than the end of the process when a page is first written to."""
    with open("/dev/full", "r+b", buffering=0) as full, (tmp_path / "file").open("w+b") as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 0) as memory, pytest.raises(OSError) as caught:
            make_ready(full.fileno(), memory, 0, 4096)
    assert caught.value.errno == errno.ENOSPC
