"""Objects reach other processes as they are; large arrays of theirs do not travel in messages."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from jwstdask.engine.parcel import LARGEST_IN_MESSAGE, Parcel


@dataclass
class Levels:
    """Some arrays, as steps gather them."""

    levels: np.ndarray
    flags: np.ndarray
    name: str
    nothing: None = None


def levels(size):
    rng = np.random.default_rng(1)
    return {
        "refpix": Levels(rng.normal(size=(size, 3)).T, rng.integers(0, 9, size + 1).astype(">u2"), "odd"),
        "jump": (np.zeros(0), np.array(3.5), [1, 2]),
    }


def check(found, size):
    expected = levels(size)
    for name in ("levels", "flags"):
        ours, wanted = getattr(found["refpix"], name), getattr(expected["refpix"], name)
        np.testing.assert_array_equal(ours, wanted)
        assert ours.dtype == wanted.dtype and ours.flags.writeable
    assert found["refpix"].name == "odd" and found["refpix"].nothing is None
    assert found["jump"][0].shape == (0,) and found["jump"][1] == 3.5 and found["jump"][2] == [1, 2]


@pytest.mark.parametrize("size", [3, 100_003])
def test_what_arrives_is_what_was_sent(tmp_path, size):
    parcel = Parcel.of(levels(size), tmp_path / "scratch")
    message = pickle.dumps(parcel)
    assert len(message) < LARGEST_IN_MESSAGE
    check(pickle.loads(message).open(), size)
    assert (parcel.file is None) == (size == 3) == (not (tmp_path / "scratch").exists())


def test_another_process_opens_it(tmp_path):
    parcel = Parcel.of(levels(50_000), tmp_path)
    (tmp_path / "message").write_bytes(pickle.dumps(parcel))
    code = (
        "import pickle, sys; from tests.engine.test_parcel import check;"
        "check(pickle.load(open(sys.argv[1], 'rb')).open(), 50_000)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "message")], check=True, cwd=os.getcwd())


def test_who_opens_it_may_write(tmp_path):
    """Into a copy of its own."""
    parcel = Parcel.of(levels(50_000), tmp_path)
    parcel.open()["refpix"].levels[:] = 0
    check(parcel.open(), 50_000)


def test_the_file_goes_with_it(tmp_path):
    parcel = Parcel.of(levels(50_000), tmp_path)
    assert list(tmp_path.iterdir())
    del parcel
    assert not list(tmp_path.iterdir())
