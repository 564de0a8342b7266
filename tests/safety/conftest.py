"""One small program, and a place in which nothing may appear but in one folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jwstdask.cli.main import main
from tests.program.conftest import complete, dithers, field_of, quiet
from tests.using import crds_of

__all__ = ["complete", "dithers", "field_of", "quiet"]


@pytest.fixture
def command(field_of, capsys):
    """``command("run", ...)``: exit status and what was printed to both streams, with the references of the field."""

    def run(*arguments):
        with crds_of(field_of.cache):
            status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


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
