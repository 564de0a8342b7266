"""One small program, and a place in which nothing may appear but in one folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program.conftest import command, complete, dithers, field_of, quiet

__all__ = ["command", "complete", "dithers", "field_of", "quiet"]


@pytest.fixture
def out(field_of, monkeypatch) -> Iterator[Path]:
    """The folder of the products, two folders deep; the test fails if anything else appears around it."""
    outer = field_of.folder / "outer"
    folder = outer / "inner" / "out"
    (outer / "here").mkdir(parents=True)
    monkeypatch.chdir(outer / "here")
    yield folder
    found = {os.path.join(place, name) for place, _, names in os.walk(outer) for name in names}
    stray = {name for name in found if not name.startswith(f"{folder}{os.sep}")}
    assert not stray
    assert not {path.name for path in field_of.folder.iterdir()} - {"in", "outer", "given"}
    assert {path.name for path in field_of.inputs.iterdir()} >= {path.name for path in field_of.uncals}
    assert not [path for path in field_of.inputs.iterdir() if "evil" in path.name and "uncal" not in path.name]
