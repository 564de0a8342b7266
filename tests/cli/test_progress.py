"""Progress of a run: lines, the live line, signs of life."""

from __future__ import annotations

import io
import json
import time

import pytest

from jwstdask.cli import progress as module
from jwstdask.cli.progress import Progress, duration
from jwstdask.core.plan import Outcome


@pytest.fixture
def report():
    made = []

    def start(total, **options):
        made.append(Progress(total, io.StringIO(), **options))
        return made[-1]

    yield start
    for item in made:
        item.close()


def outcome(name, error=None, wall=2.0, warnings=()):
    return Outcome(f"/data/{name}", "calwebb_detector1", error=error, wall=wall, warnings=list(warnings))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3725, "1 h 02 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_line_an_exposure(report):
    progress = report(10)
    progress(outcome("a_uncal.fits", warnings=[("jump", "few groups", "")]))
    progress(outcome("b_uncal.fits", error="b: truncated", warnings=[("jump", "few groups", "")]))
    assert progress.stream.getvalue().splitlines() == [
        "[ 1/10] calwebb_detector1 a_uncal.fits: 2.0 s",
        "    warning, jump: few groups",
        "[ 2/10] calwebb_detector1 b_uncal.fits: FAILED",
        "    b: truncated",
    ]


def last_line(progress):
    return progress.stream.getvalue().rsplit("\r\x1b[K", 1)[-1]


def test_live_line(report):
    progress = report(4, live=True)
    progress.say("hello")
    assert last_line(progress).startswith(f"[{24 * '-'}] 0.0 s: 0 of 4 done")
    progress(outcome("a_uncal.fits", error="a: truncated"))
    text = last_line(progress)
    assert text.startswith(f"[{6 * '#'}{18 * '-'}]") and "1 of 4 done, 1 failed, " in text and text.endswith(" left")
    progress.close()
    assert last_line(progress) == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"live": True}, lambda text: text.count("0 of 2 done") > 1),
        ({"live": False}, lambda text: text.endswith("0 of 2 done, at work\n")),
        ({"style": "json"}, lambda text: text and "0 of 2 done" in json.loads(text.splitlines()[-1])["message"]),
    ],
)
def test_signs_of_life(report, monkeypatch, options, told):
    monkeypatch.setattr(module, "_BEAT", 0.01)
    monkeypatch.setattr(module, "_SILENCE", 0.02)
    progress = report(2, **options)
    end = time.monotonic() + 30
    while not told(progress.stream.getvalue()) and time.monotonic() < end:
        time.sleep(0.01)
    assert told(progress.stream.getvalue())


def test_no_sign_of_life_beside_lines_and_after_the_end(report, monkeypatch):
    monkeypatch.setattr(module, "_BEAT", 0.01)
    progress = report(1)
    time.sleep(0.1)
    assert progress.stream.getvalue() == ""
    monkeypatch.setattr(module, "_SILENCE", 0.0)
    progress(outcome("a_uncal.fits"))
    progress.close()
    told = progress.stream.getvalue()
    time.sleep(0.1)
    assert progress.stream.getvalue() == told
