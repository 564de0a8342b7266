"""The chapters of the book run as they stand, and what is stored of them is what they give."""

from __future__ import annotations

import copy
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "notebooks"
CHAPTERS = sorted(BOOK.glob("*.ipynb"))


def outputs(cell) -> list[str]:
    """Kinds of the outputs of a cell, in order; pieces of one stream count once."""
    kinds: list[str] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            kind = output.name
        elif output.output_type == "error":
            kind = "error"
        else:
            kind = "picture" if "image/png" in output.data else "value"
        if not (kind in ("stdout", "stderr") and kinds[-1:] == [kind]):
            kinds.append(kind)
    return kinds


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=CHAPTERS, ids=[path.stem for path in CHAPTERS])
def chapter(request):
    """A chapter as stored: its path and the notebook."""
    return request.param, nbformat.read(request.param, as_version=4)


@pytest.mark.slow
def test_chapter_runs(chapter, tmp_path):
    _, stored = chapter
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRDS_")}
    # Commands of this installation; every file that the chapter makes goes below the folder of the test.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment.update(TMPDIR=str(tmp_path), IPYTHONDIR=str(tmp_path / "ipython"))
    fresh = copy.deepcopy(stored)
    NotebookClient(fresh, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute(
        env=environment
    )
    for cell, before in zip(code_cells(fresh), code_cells(stored), strict=True):
        assert outputs(cell) == outputs(before), cell.source


def test_chapter_is_stored_executed(chapter):
    _, stored = chapter
    nbformat.validate(stored)
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not {"error", "stderr"} & {kind for cell in cells for kind in outputs(cell)}
    assert stored.metadata.kernelspec.name == "python3"


def test_chapter_tells_nothing_of_the_machine_it_was_made_on(chapter):
    path, _ = chapter
    text = re.sub(r'"image/png": "[^"]*"', "", path.read_text())
    assert not re.findall(r"/(?:home|root|work|tmp|Users|private|opt|mnt)/\S*", text)


def test_links_lead_somewhere(chapter):
    path, stored = chapter
    text = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    for target in targets:
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_installation_is_the_readme_s():
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^python3 -m venv .*$", text, re.MULTILINE)
    introduction = nbformat.read(BOOK / "01-introduction.ipynb", as_version=4)
    told = re.findall(r"^python3 -m venv .*$", "\n".join(cell.source for cell in introduction.cells), re.MULTILINE)
    assert commands == told and len(told) == 2


def test_contents_list_the_chapters():
    listed = re.findall(r"\]\(([^)]+\.ipynb)\)", (BOOK / "README.md").read_text())
    assert listed == [path.name for path in CHAPTERS]


def test_book_is_small():
    assert sum(path.stat().st_size for path in CHAPTERS) < 4_000_000
