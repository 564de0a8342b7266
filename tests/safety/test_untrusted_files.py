"""Nothing in a file is ever executed: YAML, ASDF, pickles, JSON, parameters."""

from __future__ import annotations

import ast
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import jwstdask
from jwstdask.core.errors import InputError, JwstdaskError, ReferenceFileError, StepError
from jwstdask.engine import frames
from jwstdask.io.layout import open_layout
from jwstdask.io.metadata import read_metadata, read_wcs
from jwstdask.pipeline import Detector1Pipeline
from jwstdask.pipelines.plan_file import read_plan
from jwstdask.pipelines.resume import Ledger, Resume
from jwstdask.program.journal import FOLDER, Reading, journal_path, line_of, read_history
from jwstdask.program.record import read_record
from jwstdask.refs.parameters import read_parameters, write_parameters
from jwstdask.refs.reference import open_reference
from jwstdask.step import JumpStep
from jwstdask.steps.detector.persistence import read_state
from jwstdask.steps.detector.side_products import mapped


class Payload:
    """Its pickle writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "executed")


@pytest.fixture
def mark(tmp_path):
    """The file that code hidden in a file would write; the test fails if it exists in the end."""
    found = tmp_path / "executed.txt"
    yield found
    assert not found.exists()


TAGS = {
    "apply": "!!python/object/apply:os.system ['touch {mark}']",
    "new": "!!python/object/new:os.system ['touch {mark}']",
    "name": "!!python/name:os.system",
    "module": "!!python/module:antigravity",
    "custom": "!<tag:example.org,2026:evil-1.0.0> {{command: 'touch {mark}'}}",
    "object": "!core/ndarray-1.1.0 {{data: [1], datatype: object, shape: [1]}}",
    "pickled": "!core/ndarray-1.1.0 {{source: 0, datatype: object, byteorder: little, shape: [1]}}",
}

_ASDF = """#ASDF 1.0.0
#ASDF_STANDARD 1.6.0
%YAML 1.1
%TAG ! tag:stsci.edu:asdf/
--- !core/asdf-1.1.0
"""


def asdf_text(entries: str) -> bytes:
    return f"{_ASDF}{entries}\n...\n".encode()


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", ["parameters: {{rejection_threshold: {value}}}", "parameters: {value}", "x: {value}"])
def test_parameter_files(tmp_path, mark, tag, place):
    path = tmp_path / "pars.asdf"
    value = TAGS[tag].format(mark=mark)
    entry = place.format(value=value)
    rest = "\nparameters: {}" if place.startswith("x") else ""
    path.write_bytes(asdf_text(f"class: jwst.jump.jump_step.JumpStep\nname: jump\n{entry}{rest}"))
    try:
        found = read_parameters(path)
    except ReferenceFileError:
        return
    # what is read is text, numbers, lists and mappings
    json.dumps(found.parameters)


@pytest.mark.parametrize("tag", TAGS)
def test_references_and_states(tmp_path, mark, tag):
    """ASDF references, and files of persistence."""
    path = tmp_path / "jwst_nircam_distortion_0001.asdf"
    path.write_bytes(asdf_text(f"meta: {{reftype: distortion}}\nmodel: {TAGS[tag].format(mark=mark)}"))
    for read in (lambda: open_reference(path).asdf, lambda: read_state(str(path), "NRCB1")):
        try:
            read()
        except (JwstdaskError, Exception):
            continue


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("where", ["extra", "wcs"])
def test_asdf_in_fits(tmp_path, field_of, mark, tag, where):
    """The ASDF extension of an exposure: metadata and WCS."""
    path = tmp_path / "x_rate.fits"
    meta = f"meta:\n  {where}: {TAGS[tag].format(mark=mark)}\n  background: {{level: 1.5}}"
    data = np.frombuffer(asdf_text(meta), np.uint8)
    with fits.open(field_of.uncals[0]) as hdus:
        table = fits.BinTableHDU.from_columns(
            [fits.Column("ASDF_METADATA", f"{data.size}B", array=data[np.newaxis])], name="ASDF"
        )
        kept = [hdu for hdu in hdus if hdu.name != "ASDF"]
        fits.HDUList([*kept, table]).writeto(path)
    layout = open_layout(path)
    for read in (lambda: read_metadata(layout, complete=True), lambda: read_wcs(layout)):
        try:
            read()
        except InputError:
            continue


@pytest.mark.parametrize("tag", TAGS)
def test_plans(tmp_path, mark, tag):
    path = tmp_path / "plan.yaml"
    value = TAGS[tag].format(mark=mark)
    for text in (
        f"jwstdask_plan: {value}\n",
        f"jwstdask_plan: 1\ncontext: {value}\n",
        f"jwstdask_plan: 1\nways: {{1: {{pipeline: {value}}}}}\n",
        f"--- {value}\n",
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=r"is no plan|has version"):
            read_plan(path)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "3",
        '"jwstdask_plan"',
        '{"jwstdask_plan": 1, "ways": 3}',
        '{"jwstdask_plan": 1, "exposures": [3]}',
        "{" * 5000,
    ],
)
def test_damaged_plans(tmp_path, text):
    for suffix in ("json", "yaml"):
        path = tmp_path / f"plan.{suffix}"
        path.write_text(text)
        with pytest.raises(InputError, match="is no plan"):
            read_plan(path)


def test_arrays_in_scratch_files(tmp_path, mark):
    """Arrays are mapped, pickled ones refused."""
    path = tmp_path / "scratch.npy"
    np.save(path, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"allow_pickle|Python objects"):
        mapped(str(path))
    path.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(ValueError, match=r"allow_pickle|[Pp]ickle"):
        mapped(str(path))


def test_pickles_of_whole_frames(tmp_path, mark):
    """What processes share is loaded only if it is what this run wrote."""
    path = str(tmp_path / "x.fits")
    Path(frames._shared_path(path, "refpix")).write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(StepError, match=r"changed by somebody else"):
        frames._loaded(path, "refpix", "0" * 64)


def test_pickles_are_loaded_nowhere_else():
    """In the package no array may hold objects, and YAML is loaded safely; of pickles there are four.

    ``frames.py`` reads one from a file, behind its digest; ``outcomes.py`` unpacks outcomes that it packed itself;
    ``executor.py`` and ``parcel.py`` take items as a worker takes their function, from its scheduler.
    """
    root = Path(jwstdask.__file__).parent
    loads, unsafe = [], []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name.endswith(("pickle.load", "pickle.loads", "Unpickler", "marshal.loads")):
                loads.append(path.name)
            if name in ("eval", "exec", "os.system", "yaml.unsafe_load", "yaml.full_load"):
                unsafe.append((path.name, name))
            if any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords):
                unsafe.append((path.name, "allow_pickle"))
            if name == "yaml.load" and "oader" not in ast.unparse(node):
                unsafe.append((path.name, name))
    assert loads == ["executor.py", "frames.py", "parcel.py", "outcomes.py"]
    assert not unsafe


LINES = [
    {"record": "finished", "task": "calwebb_detector1 x"},
    {"record": "finished", "task": ["a", "list"]},
    {"record": "finished", "task": "t", "products": 3, "inputs": {"x": 1}},
    {"record": "finished", "task": "t", "products": {"rate": ["../../../etc/passwd"]}, "recipe": 3},
    {"record": "seen", "files": {"x": "y"}},
    {"record": "started", "task": "t"},
    {"record": {"a": 1}},
    {"record": "end"},
    {},
]


def test_lines_of_a_journal(tmp_path, field_of, command, out):
    """Whole lines, but not those that a run writes: they say nothing, and the run goes on."""
    state = out / FOLDER
    state.mkdir(parents=True)
    data = b"".join(map(line_of, LINES)) + b'{"record":"run"}\n\xff\xfe\n[1,2]\n'
    Path(journal_path(out)).write_bytes(data)
    read_history(out)
    status, printed = command("run", field_of.uncals[0], "--through=1", f"--output_dir={out}", "--no-report")
    assert status == 0, printed
    assert "1 of 1 done" in printed
    # a record of the task itself, of which nothing is as it should be
    name = f"calwebb_detector1 {field_of.uncals[0].name.replace('uncal', 'rate')}"
    with Path(journal_path(out)).open("ab") as file:
        file.write(line_of({"record": "finished", "task": name, "recipe": 3, "inputs": 5, "time": 1e12}))
    status, printed = command("run", field_of.uncals[0], "--through=1", f"--output_dir={out}", "--no-report")
    assert status == 0 and "up to date" not in printed
    assert Ledger(Reading(out), Resume()).folder == str(out)


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"replay": 1}', '{"replay": 1, "plan": 3}', '{"replay": "x", "plan": {}}', "\0", "[" * 100_000],
)
def test_replay_records(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_record(str(path))


@pytest.mark.parametrize("which", ["pre_hooks", "post_hooks"])
@pytest.mark.parametrize("place", ["pipeline", "step", "text"])
def test_hooks_of_parameter_files(field_of, command, out, mark, which, place):
    """Python code that a parameter file names is refused, on the command line and in Python."""
    hook = [f"os.system('touch {mark}')", "os.getcwd"]
    given = field_of.folder / "given"
    given.mkdir()
    path = given / ("x.cfg" if place == "text" else "x.asdf")
    if place == "pipeline":
        write_parameters(path, "Detector1Pipeline", "Detector1Pipeline", {which: hook}, {})
    elif place == "step":
        steps = {"jump": ("JumpStep", {which: hook})}
        write_parameters(path, "Detector1Pipeline", "Detector1Pipeline", {}, steps)
    else:
        path.write_text(f'name = "jump"\nclass = "jwst.jump.jump_step.JumpStep"\n{which} = os.getcwd,\n')
    uncal = field_of.uncals[0]
    status, printed = command("run", path, uncal, f"--output_dir={out}")
    assert status == 2 and f"{which} (from {path.name}) cannot be used from file to file" in printed
    status, printed = command("run", uncal, path, "--through=1", f"--output_dir={out}")
    assert status == 2 and which in printed
    target = JumpStep if place == "text" else Detector1Pipeline
    with pytest.raises(JwstdaskError, match=which):
        target.call(str(uncal), config_file=str(path))
    plan = given / "plan.yaml"
    plan.write_text(
        f"jwstdask_plan: 1\nways: {{1: {{pipeline: jump, parameters: {{mine: {{{which}: [os.getcwd]}}}}}}}}\n"
    )
    status, printed = command("run", plan)
    assert status == 2 and which in printed
