"""Progress of a run: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import TextIO

from jwstdask.core.plan import Outcome

_MOST_WARNINGS = 50
"""Different warnings that are printed."""
_SILENCE = 30.0
"""Longest time without a line [s]: kernels are compiled, or a mosaic is made."""
_BEAT = 1.0
"""Time between two drawings of the live line [s]."""


def duration(seconds: float) -> str:
    """``8 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def numbered(count: int, what: str) -> str:
    """``1 task`` or ``2 tasks``."""
    return f"{count} {what}{'s' * (count != 1)}"


class Terminal(logging.Handler):
    """Log lines, between those of a progress. What a task says goes to its log, and comes with its outcome."""

    progress: Progress | None = None

    def emit(self, record: logging.LogRecord) -> None:
        from jwstdask.engine.log import current

        if current() is not None:
            return
        text = f"{record.levelname} {record.getMessage()}"
        if self.progress is not None:
            self.progress.say(text)
        else:
            print(text, file=sys.stderr, flush=True)


class Progress:
    """Counts outcomes, prints a line for each, and shows rate and time left.

    A sign of life is given where nothing is done for long.

    Parameters
    ----------
    total
        Outcomes to come.
    stream
        Where to print.
    live
        Whether to keep a live line at the end; by default if the stream is a terminal.
    steps
        Whether to print a line for each step, too.
    style
        ``text``, or ``json`` for an object a line.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        live: bool | None = None,
        steps: bool = False,
        style: str = "text",
    ) -> None:
        self.total, self.stream = total, stream or sys.stderr
        self.steps, self.json = steps, style == "json"
        self.live = not self.json and (self.stream.isatty() if live is None else live)
        self.done = self.failed = self.warned = 0
        self.started = time.perf_counter()
        self._lock = threading.RLock()
        self._warnings_said: set[tuple[str, str]] = set()
        self._spoke = self.started
        self._closed = threading.Event()
        Terminal.progress = self
        threading.Thread(target=self._signs_of_life, name="progress", daemon=True).start()

    def add(self, count: int) -> None:
        """More outcomes to come than was known."""
        with self._lock:
            self.total += count

    def __call__(self, outcome: Outcome) -> None:
        with self._lock:
            self.done += 1
            self.failed += outcome.error is not None
            self.warned += bool(outcome.warnings)
            if self.json:
                self._events(outcome)
                return
            width = len(str(self.total))
            name = os.path.basename(outcome.path)
            state = "FAILED" if outcome.error is not None else duration(outcome.wall)
            self._line(f"[{self.done:{width}}/{self.total}] {outcome.pipeline} {name}: {state}")
            if outcome.error is not None:
                self._line(f"    {outcome.error}")
            if self.steps:
                from jwstdask.engine.log import step_lines

                for text, step in step_lines(outcome):
                    self._line(f"    {step}: {text}")
            self._warnings(outcome)
            self._status()

    def _warnings(self, outcome: Outcome) -> None:
        """Each warning once: thousands of exposures may have the same."""
        for step, text, _ in outcome.warnings:
            if (step, text) not in self._warnings_said and len(self._warnings_said) < _MOST_WARNINGS:
                self._warnings_said.add((step, text))
                self._line(f"    warning, {step}: {text}" if step else f"    warning: {text}")

    def _events(self, outcome: Outcome) -> None:
        from jwstdask.program.log import events, line_of
        from jwstdask.program.record import failure_json, outcome_json

        kind = "finished" if outcome.error is None else "failed"
        told = outcome_json(outcome) if outcome.error is None else failure_json(outcome)
        told |= {"pipeline": outcome.pipeline, "path": outcome.path}
        for event in events({"record": kind, **told}):
            if event["event"] == "finished":
                event["products"] = list(outcome.products.values())
            self._line(line_of({**event, "done": self.done, "total": self.total}))

    def say(self, text: str) -> None:
        """A plain line."""
        with self._lock:
            if self.json:
                from jwstdask.program.log import line_of

                text = line_of({"event": "message", "message": text})
            self._line(text)
            self._status()

    def _line(self, text: str) -> None:
        if self.live:
            self.stream.write("\r\x1b[K")
        self.stream.write(text + "\n")
        self.stream.flush()
        self._spoke = time.perf_counter()

    def _signs_of_life(self) -> None:
        while not self._closed.wait(_BEAT):
            with self._lock:
                if self.live:
                    self._status()
                elif self.done < self.total and time.perf_counter() - self._spoke >= _SILENCE:
                    self.say(f"{self._counts()}, at work")

    def _counts(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{duration(time.perf_counter() - self.started)}: {self.done} of {self.total} done{failed}"

    def _status(self) -> None:
        if not self.live or self.done >= self.total:
            return
        filled = 24 * self.done // self.total
        text = f"[{'#' * filled}{'-' * (24 - filled)}] {self._counts()}"
        if self.done:
            rate = self.done / (time.perf_counter() - self.started)
            pace = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
            text += f", {pace}, {duration((self.total - self.done) / rate)} left"
        self.stream.write(f"\r\x1b[K{text}")
        self.stream.flush()

    def close(self) -> None:
        """Remove the live line."""
        self._closed.set()
        if Terminal.progress is self:
            Terminal.progress = None
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
