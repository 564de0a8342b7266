"""`jwstdask status` and `jwstdask replay`."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest
from astropy.io import fits

from jwstdask.cli.main import main
from jwstdask.cli.status import lines, summary
from jwstdask.core.params import declared
from jwstdask.program.journal import Journal, read_history
from jwstdask.program.record import plan_json, plan_of, read_record
from tests.using import crds_of


@pytest.fixture
def command(capsys):
    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def done(field_of, command):
    """Two exposures through Stages 1 and 2, in this process."""
    out = field_of.folder / "out"
    for path in sorted(field_of.inputs.glob("*.fits"))[2:]:
        path.unlink()
    with crds_of(field_of.cache):
        status, _, printed = command("run", field_of.inputs, "--through=2", f"--output_dir={out}", "--no-report")
        assert status == 0, printed
        yield out


def _begun(folder):
    journal = Journal(folder)
    journal.add("run", command=["jwstdask", "run", "my in"], workers=2, process=123, host="node")
    tasks = [f"calwebb_detector1 {k}_rate.fits" for k in range(6)]
    journal.add_all(
        [{"record": "planned", "task": t, "pipeline": "calwebb_detector1", "path": f"{t.split()[1]}"} for t in tasks]
    )
    journal.add("fresh", task=tasks[0], pipeline="calwebb_detector1", path="0")
    journal.add("finished", task=tasks[1], wall=4.0, products={})
    journal.add("failed", task=tasks[2], reason="2_rate.fits: truncated. Download it again")
    journal.add("started", task=tasks[3])
    return journal


def test_status_while_it_runs(tmp_path, command):
    with _begun(tmp_path):
        status, printed, _ = command("status", tmp_path, "--json")
    found = json.loads(printed)
    assert status == 0 and found["state"] == "running" and found["host"] == "node"
    counts = found["stages"]["calwebb_detector1"]
    assert [counts[name] for name in ("waiting", "running", "done", "up to date", "failed")] == [2, 1, 1, 1, 1]
    assert counts["mean_seconds"] == 4.0
    # Two to do and half of one, four seconds each, on two workers.
    assert found["seconds_left"] == 5.0
    assert found["failures"] == [
        {
            "pipeline": "calwebb_detector1",
            "path": "2_rate.fits",
            "reason": "2_rate.fits: truncated. Download it again",
            "trace": "",
        }
    ]


def test_status_after(tmp_path, command):
    with _begun(tmp_path) as journal:
        history = journal.history
        text = "\n".join(lines(summary(history, True, time.time()), "out"))
        assert "running since" in text and "process 123 on node" in text and "about 5.0 s left" in text
    status, printed, _ = command("status", tmp_path)
    assert status == 0
    assert "was killed" in printed and "3 tasks are not done: give the same command again" in printed
    assert "  jwstdask run 'my in'\n" in printed
    assert "FAILED calwebb_detector1 2_rate.fits\n    2_rate.fits: truncated. Download it again" in printed
    with Journal(tmp_path) as journal:
        journal.add("end", status="interrupted")
    assert "was interrupted" in command("status", tmp_path)[1]


def test_rates(tmp_path):
    with _begun(tmp_path):
        pass
    history = read_history(tmp_path)
    history.runs[-1]["time"] = history.tasks["calwebb_detector1 1_rate.fits"].ended - 30
    found = summary(history, False, 0.0)
    assert found["seconds"] == 30 and found["stages"]["calwebb_detector1"]["per_minute"] == 2.0


def test_status_of_a_program(done, command):
    status, printed, _ = command("status", done)
    assert status == 0 and "ended" in printed
    assert [line.split()[0] for line in printed.splitlines()[2:4]] == ["calwebb_detector1", "calwebb_image2"]


def test_status_of_no_program(tmp_path, command):
    status, _, printed = command("status", tmp_path)
    assert status == 2 and "has no journal. Give the output_dir of a whole program" in printed


@pytest.mark.parametrize("kind", ["rate", "cal", "i2d"])
def test_replay(done, command, kind):
    product = sorted(done.glob(f"*00001_nrcb1_{kind}.fits"))[0]
    before = {path.name: path.stat().st_mtime_ns for path in done.iterdir()}
    status, printed, _ = command("replay", product, "--threads=1")
    assert status == 0, printed
    assert f"{product.name}: same bits" in printed
    assert {path.name: path.stat().st_mtime_ns for path in done.iterdir()} == before


def test_replay_elsewhere_and_kept(done, command, tmp_path):
    """The record finds its inputs beside the products when they were moved together."""
    moved = done.rename(tmp_path / "moved")
    record = sorted((moved / ".jwstdask" / "records").glob("*00002_nrcb1_cal.json"))[0]
    status, printed, _ = command("replay", record, f"--output_dir={tmp_path / 'again'}", "--threads=1")
    assert status == 0, printed
    assert len(list((tmp_path / "again").glob("*.fits"))) == 2


def test_replay_tells_differences(done, command, field_of):
    record = sorted((done / ".jwstdask" / "records").glob("*00001_nrcb1_rate.json"))[0]
    found = json.loads(record.read_text())
    uncal = sorted(field_of.inputs.glob("*.fits"))[0]
    assert found["inputs"][str(uncal)]["bytes"] == uncal.stat().st_size
    found["products"]["rate"]["parts"]["DQ"] = "0" * 32
    found["versions"]["numpy"] = "1.0"
    record.write_text(json.dumps(found))
    status, printed, _ = command("replay", record, "--threads=1")
    assert status == 1
    assert "_rate.fits: differs in DQ" in printed and "_rateints.fits: same bits" in printed
    assert "numpy was 1.0, is " in printed
    with fits.open(uncal, mode="update") as hdus:
        hdus["SCI"].data[0, -1] += np.uint16(50)
    status, printed, _ = command("replay", record, "--threads=1")
    assert status == 1 and f"{uncal} has changed since" in printed and "differs in" in printed
    assert "SCI" in printed.split("_rate.fits: differs in ")[1].splitlines()[0]
    uncal.unlink()
    status, _, printed = command("replay", record, "--threads=1")
    assert status == 1 and "this input is no more" in printed


def test_records(done):
    """Inputs, references and parameters, with digests and origins."""
    for path in sorted((done / ".jwstdask" / "records").glob("*.json")):
        found = read_record(str(path))
        assert found["context"] == os.environ["CRDS_CONTEXT"]
        assert found["versions"]["jwstdask"] and len(found["versions"]["code"]) == 16
        assert found["command"][1:2] == ["run"] or found["command"][0] == "jwstdask"
        references = {
            ref for step in found["plan"]["steps"] if step["skip"] is None for ref in step["references"].values()
        }
        assert set(found["references"]) == references - {None}
        assert all(len(facts["digest"]) == 32 for facts in found["references"].values())
        # Every parameter of every step is there, and each that is no default has an origin.
        plan = plan_of(found["plan"])
        assert json.loads(json.dumps(plan_json(plan))) == found["plan"]
        for item in plan.steps:
            for name, (_, _, default) in declared(type(item.step)).items():
                if getattr(item.step, name) != default and not isinstance(default, list):
                    assert item.origins.get(name), (item.name, name)


def test_replay_of_something_else(tmp_path, command):
    (tmp_path / "x.json").write_text("{}")
    status, _, printed = command("replay", tmp_path / "x.json")
    assert status == 1 and "this is no replay record" in printed
    (tmp_path / "x.fits").write_text("")
    status, _, printed = command("replay", tmp_path / "x.fits")
    assert status == 1 and "there is no record of it" in printed
