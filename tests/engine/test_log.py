"""Logs of tasks: what is said while an exposure is worked on is kept with it, wherever it is said."""

from __future__ import annotations

import logging
import pickle
import threading
import warnings
from pathlib import Path

import astropy  # noqa: F401  takes hold of warnings
import numpy as np
import pytest

from jwstdask.core.plan import Outcome, StepRecord
from jwstdask.engine import log as logs
from jwstdask.engine.executor import Serial, Threads
from jwstdask.engine.log import TaskLog, at_step, attached, current, finished, map_parts, step_lines

own = logging.getLogger("jwstdask.steps.some")
other = logging.getLogger("elsewhere.module")


def divide(value: float) -> float:
    """With numpy's own warning."""
    at_step("flat_field")
    return float(np.float64(value) / np.zeros(1)[0])


def texts(log: TaskLog) -> list[str]:
    return [note.text for note in log.notes.values()]


def lines(path: Path) -> list[str]:
    """Without time."""
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()]


@pytest.fixture
def untouched():
    """Logging and warnings are as before in the end."""
    root, package = logging.getLogger(), logging.getLogger("jwstdask")
    before = warnings.showwarning, list(warnings.filters), list(root.handlers), package.level, package.propagate
    yield
    after = warnings.showwarning, list(warnings.filters), list(root.handlers), package.level, package.propagate
    assert after == before and package.handlers == [] and current() is None


def test_lines_go_to_the_file_as_they_come(tmp_path: Path, untouched) -> None:
    path = tmp_path / "a.log"
    with attached(TaskLog(str(path), "calwebb_detector1")) as log:
        log.line("started")
        at_step("jump")
        own.info("two\nlines")
        other.info("not wanted")
        other.error("lost")
        assert lines(path) == [
            "INFO    calwebb_detector1 started",
            "INFO    calwebb_detector1 jump: two",
            "INFO    calwebb_detector1 jump: lines",
            "ERROR   calwebb_detector1 jump: elsewhere.module: lost",
        ]
    own.warning("after")
    assert len(lines(path)) == 4


def test_warnings_of_each_exposure_are_kept(tmp_path: Path, untouched) -> None:
    found = []
    for name in "ab":
        with attached(TaskLog(str(tmp_path / name), "p")) as log:
            for _ in range(3):
                assert divide(1.0) == np.inf
            log.lines(log.repeated())
        found.append(log)
    for log in found:
        ((step, text, count),) = log.warnings
        assert (step, count) == ("flat_field", 3) and "RuntimeWarning: divide by zero" in text
        assert "test_log.py" in text
        assert len(lines(Path(str(log.path)))) == 2 and "(3 times)" in lines(Path(str(log.path)))[1]
    # Outside a task they are as they were.
    with pytest.warns(RuntimeWarning, match="divide"):
        divide(1.0)


def test_filters_of_the_user_count(untouched) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with attached(TaskLog(None, "p")) as log:
            divide(1.0)
        assert texts(log) == []
        warnings.simplefilter("error")
        with attached(TaskLog(None, "p")), pytest.raises(RuntimeWarning):
            divide(1.0)


def test_own_words_go_on_to_handlers_that_would_have_had_them(untouched, caplog) -> None:
    with attached(TaskLog(None, "p")) as log:
        own.info("quiet")
        own.warning("loud")
    assert texts(log) == ["quiet", "loud"]
    assert [record.message for record in caplog.records] == ["loud"]
    assert [text for _, text, _ in log.warnings] == ["loud"]


def test_threads_do_not_mix(tmp_path: Path, untouched) -> None:
    barrier = threading.Barrier(2)

    def work(name: str) -> TaskLog:
        with attached(TaskLog(str(tmp_path / name), name)) as log:
            barrier.wait(10)
            own.warning("from %s", name)
            barrier.wait(10)
        return log

    found = Threads(2).map(work, ["a", "b"])
    assert [texts(log) for log in found] == [["from a"], ["from b"]]


@pytest.mark.parametrize("executor", [Serial(), Threads(2)])
def test_parts_belong_to_the_task(executor, untouched) -> None:
    with attached(TaskLog(None, "p")) as log:
        at_step("resample")
        assert map_parts(executor, divide, [1.0, 2.0, 3.0]) == [np.inf] * 3
    ((step, _, count),) = log.warnings
    assert (step, count) == ("flat_field", 3)
    assert map_parts(executor, str, [1]) == ["1"]


class Elsewhere:
    """Does as a cluster: function and items travel, and come back."""

    client = object()

    def map(self, function, items):
        results = []
        for item in items:
            call = pickle.loads(pickle.dumps((function, item)))
            thread = threading.Thread(target=lambda call=call: results.append(pickle.dumps(call[0](call[1]))))
            thread.start()
            thread.join()
        return list(map(pickle.loads, results))


def test_words_of_other_machines_come_home(tmp_path: Path, untouched) -> None:
    path = tmp_path / "a.log"
    with attached(TaskLog(str(path), "p")) as log:
        assert map_parts(Elsewhere(), divide, [1.0, 2.0]) == [np.inf] * 2  # type: ignore[arg-type]
    ((step, _, count),) = log.warnings
    assert (step, count) == ("flat_field", 2) and len(lines(path)) == 1


def test_a_log_that_cannot_be_written_fails_nothing(tmp_path: Path, untouched) -> None:
    with attached(TaskLog(str(tmp_path / "no" / "a.log"), "p")) as log:
        own.warning("said")
    assert texts(log) == ["said"]


def test_a_flood_of_words_is_cut(tmp_path: Path, untouched) -> None:
    path = tmp_path / "a.log"
    with attached(TaskLog(str(path), "p")):
        for number in range(logs._MOST_NOTES + 50):
            own.warning("pixel %d %s", number, "x" * 10_000)
    assert len(lines(path)) == logs._MOST_NOTES and max(map(len, lines(path))) < logs._MOST_TEXT + 100


def test_what_became_of_a_task(tmp_path: Path) -> None:
    census = {"groups": {"all": 10_000, "any": 31, "JUMP_DET": 31}, "mask": {"all": 400, "any": 8, "DO_NOT_USE": 8}}
    steps = (
        StepRecord("dq_init", "COMPLETE", "", 0.5),
        StepRecord("jump", "COMPLETE", "", 1.25),
        StepRecord("ipc", "SKIPPED", "skip is set"),
    )
    outcome = Outcome(
        "a_uncal.fits",
        "p",
        {"rate": "r", "crf:0": "c", "crf:1": "d"},
        steps,
        wall=2,
        cpu=1.5,
        memory=10**8,
        census=census,
    )
    assert step_lines(outcome) == [
        ("done in 0.50 s; 2 % of pixels not to be used", "dq_init"),
        ("done in 1.25 s; 0.31 % of samples flagged", "jump"),
        ("skipped: skip is set", "ipc"),
    ]
    path = tmp_path / "a.log"
    finished(TaskLog(str(path), "p"), outcome)
    assert lines(path)[-1] == "INFO    p finished in 2.0 s, CPU 1.5 s, process peak 100 MB; written: rate, crf (2)"
    failed = Outcome("a_uncal.fits", "p", error="a: no", traceback="Traceback\n  File x\nOSError: no\n")
    finished(TaskLog(str(path), "p"), failed)
    assert lines(path)[-5:-1] == [f"ERROR   p {text}" for text in ("a: no", "Traceback", "  File x", "OSError: no")]
