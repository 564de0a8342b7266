"""A small program in a folder, and commands on it as processes of their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jwstdask.cli.main import main
from jwstdask.program.content import parts
from jwstdask.program.journal import journal_path, read_records
from jwstdask.simulate import Cache, Program, make_cache, make_program
from tests.conftest import once
from tests.using import crds_of, heed_interrupts

EXPOSURES = 4


@dataclass
class Field:
    """A program, its references, and where commands run."""

    uncals: list[Path]
    environment: dict[str, str]
    folder: Path
    cache: Cache
    inputs: Path = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = self.folder / "in"
        self.inputs.mkdir()
        for path in self.uncals:
            shutil.copy(path, self.inputs)

    def command(self, out: Path, *options: str, through: int = 2) -> list[str]:
        return [
            *(sys.executable, "-m", "jwstdask", "run", str(self.inputs), f"--through={through}"),
            *(f"--output_dir={out}", "--no-report", *(options or ("--threads=1",))),
        ]

    def begin(self, out: Path, *options: str, through: int = 2) -> subprocess.Popen:
        """A run in the background, in a session of its own, as in a terminal."""
        return subprocess.Popen(
            self.command(out, *options, through=through),
            env=self.environment,
            stderr=subprocess.PIPE,
            preexec_fn=heed_interrupts,
            text=True,
            start_new_session=True,
        )

    def run(self, out: Path, *options: str, through: int = 2, status: int = 0) -> str:
        """What a run in this process printed."""
        printed = io.StringIO()
        with crds_of(self.cache), contextlib.redirect_stderr(printed):
            found = main(self.command(out, *options, through=through)[3:])
        assert found == status, printed.getvalue()
        return printed.getvalue()


def records(out: Path) -> list[dict]:
    return list(read_records(journal_path(out)))


def tasks_of(out: Path, kind: str, run: int = -1) -> list[str]:
    """Tasks with a record of a kind in a run, sorted."""
    runs: list[list[dict]] = []
    for record in records(out):
        if record["record"] == "run":
            runs.append([])
        runs[-1].append(record)
    return sorted(record["task"] for record in runs[run] if record["record"] == kind)


def contents(out: Path) -> dict[str, dict[str, str]]:
    """What is in the products, but for times of writing."""
    return {
        path.name: parts(str(path))
        for path in sorted(out.iterdir())
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.fixture(scope="session")
def dithers(tmp_path_factory) -> tuple[Program, Cache]:
    """Four dithers of NRCB1, SUB64P."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base

    def build(folder: Path) -> None:
        cache = make_cache(folder / "cache", detectors=("nrcb1",), subarray="SUB64P", filters=("F200W",), seed=3)
        make_program(folder / "program", cache, dithers=EXPOSURES, readpatt="RAPID", ngroups=4, nints=1, seed=3)

    folder = once(base / "journal_program", build)
    return Program.open(folder / "program"), Cache.open(folder / "cache")


@pytest.fixture
def field_of(dithers, tmp_path):
    program, cache = dithers
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRDS_")}
    environment |= {**cache.environment, "OMP_NUM_THREADS": "1"}
    return Field([Path(path) for path in program.uncals], environment, tmp_path, cache)


@pytest.fixture
def command(field_of, capsys):
    """``command("run", ...)``: exit status and what was printed to both streams, with the references of the field."""

    def run(*arguments):
        with crds_of(field_of.cache):
            status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


@pytest.fixture(scope="session")
def quiet(dithers, tmp_path_factory) -> Path:
    """A folder with the products of a run in which nothing happens (``out``); all three stages."""
    program, cache = dithers
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base

    def build(folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CRDS_")}
        place = Field([Path(path) for path in program.uncals], environment | cache.environment, folder, cache)
        place.run(folder / "out", through=3)
        (folder / "contents.json").write_text(json.dumps(contents(folder / "out")))

    return once(base / "journal_undisturbed", build)


@pytest.fixture(scope="session")
def undisturbed(quiet) -> dict[str, dict[str, str]]:
    """What the products hold when nothing happens; all three stages."""
    return json.loads((quiet / "contents.json").read_text())


@pytest.fixture
def complete(field_of, quiet) -> Path:
    """A folder of its own with the products of Stages 1 and 2."""
    out = field_of.folder / "out"
    shutil.copytree(quiet / "out", out)
    for path in [*out.glob("*-o*"), *out.glob("*_crf.fits")]:
        path.unlink()
    return out
