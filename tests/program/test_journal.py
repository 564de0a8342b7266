"""The journal: whole records whatever happens, one run at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from jwstdask.core.errors import PlanError, ProductError
from jwstdask.program.journal import Journal, at_work, journal_path, line_of, read_history, read_records, record_of


def records(folder):
    return list(read_records(journal_path(folder)))


def test_what_is_written_is_read(tmp_path):
    with Journal(tmp_path) as journal:
        journal.add("run", command=["jwstdask", "run"])
        journal.add_all([{"record": "planned", "task": "a", "path": 'quote " and \n newline, é'}, {"record": "end"}])
    found = records(tmp_path)
    assert [record["record"] for record in found] == ["run", "planned", "end"]
    assert found[1]["path"] == 'quote " and \n newline, é'
    assert all(record["time"] > 0 for record in found)


def test_no_journal_is_an_empty_history(tmp_path):
    assert records(tmp_path) == [] and read_history(tmp_path).tasks == {}


@pytest.mark.parametrize("seed", range(4))
def test_cut_at_any_byte(tmp_path, seed):
    """Of a file cut anywhere, all whole lines are read; what is appended after it, too."""
    generator = np.random.default_rng(seed)
    lines = [line_of({"record": "finished", "task": f"t{k}", "x": "é" * int(generator.integers(9))}) for k in range(6)]
    data = b"".join(lines)
    ends = np.cumsum([len(line) for line in lines])
    for cut in {0, 1, len(data), *ends.tolist(), *(ends - 1).tolist(), *generator.integers(0, len(data), 25).tolist()}:
        folder = tmp_path / str(cut)
        with Journal(folder):
            pass
        with open(journal_path(folder), "wb") as file:
            file.write(data[:cut])
        # The end of a line belongs to it only to separate it from the next.
        whole = [f"t{k}" for k in range(6) if ends[k] - 1 <= cut]
        assert [record["task"] for record in records(folder)] == whole
        with Journal(folder) as journal:
            journal.add("finished", task="next", wall=1.0, products={})
        assert [record["task"] for record in records(folder)] == [*whole, "next"]


def test_every_changed_byte_is_noticed():
    line = line_of({"record": "finished", "task": "t", "n": 12}).rstrip(b"\n")
    assert record_of(line)["n"] == 12
    for place in range(len(line)):
        changed = bytearray(line)
        changed[place] ^= 1
        assert record_of(bytes(changed)) is None


def test_a_second_run_is_refused(tmp_path):
    with Journal(tmp_path):
        assert at_work(tmp_path)
        with pytest.raises(
            PlanError, match=rf"another run is at work in .* \(process {os.getpid()} on .*another output"
        ):
            Journal(tmp_path)
    assert not at_work(tmp_path)
    Journal(tmp_path).close()


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ProductError, match=r"is not (in )?a folder\. Choose another output_dir"):
        Journal(tmp_path / "file")


_WRITER = """
    import sys
    from jwstdask.program.journal import Journal
    journal = Journal(sys.argv[1])
    print("held", flush=True)
    number = 0
    while True:
        journal.add("finished", task=str(number), wall=0.0, products={}, fill="x" * (number * 37 % 3000))
        print(number, flush=True)
        number += 1
"""


@pytest.mark.parametrize("seed", range(3))
def test_killed_while_it_writes(tmp_path, seed):
    """What was said to be written is there; the lock is given free; the next run goes on."""
    command = [sys.executable, "-c", textwrap.dedent(_WRITER), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    assert process.stdout.readline() == "0\n"
    time.sleep(np.random.default_rng(seed).uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    told = [0, *map(int, process.stdout.read().split("\n")[:-1])]
    process.wait()
    found = [int(record["task"]) for record in records(tmp_path)]
    assert found == list(range(len(found)))
    assert len(found) >= len(told)
    assert not at_work(tmp_path)
    with Journal(tmp_path) as journal:
        journal.add("end", status="done")
    assert records(tmp_path)[-1]["record"] == "end"
    assert len(records(tmp_path)) == len(found) + 1


def test_history(tmp_path):
    with Journal(tmp_path) as journal:
        journal.add("run", command=["first"])
        journal.add_all([{"record": "planned", "task": t, "pipeline": "p", "path": f"{t}.fits"} for t in "abcd"])
        journal.add(
            "finished", task="a", wall=1.0, inputs={"a.fits": [10, 5, "digest"]}, products={"rate": ["r", 1, 2, "d"]}
        )
        journal.add("failed", task="b", reason="no keyword")
        journal.add("started", task="c")
    history = read_history(tmp_path)
    assert {name: task.state for name, task in history.tasks.items()} == {
        "a": "done",
        "b": "failed",
        "c": "running",
        "d": "planned",
    }
    assert history.tasks["b"].reason == "no keyword" and history.tasks["d"].path == "d.fits"
    assert history.files == {("a.fits", 10, 5): "digest"} and history.written == {"r": (1, 2, "d")}
    assert "end" not in history.runs[-1]
    with Journal(tmp_path) as journal:
        journal.add("run", command=["second"])
        journal.add("fresh", task="a", pipeline="p", path="a.fits")
        journal.add("end", status="interrupted")
    history = read_history(tmp_path)
    assert [task.state for task in history.tasks.values()] == ["up to date", "earlier", "earlier", "earlier"]
    assert history.tasks["a"].finished is not None
    assert history.runs[-1]["command"] == ["second"] and history.runs[-1]["end"]["status"] == "interrupted"
