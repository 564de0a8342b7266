"""Progress of a run: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TextIO

from jwstdask.core.plan import Outcome


def duration(seconds: float) -> str:
    """``8 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Counts outcomes, prints a line for each, and shows rate and time left.

    Parameters
    ----------
    total
        Outcomes to come.
    stream
        Where to print.
    live
        Whether to keep a live line at the end; by default if the stream is a terminal.
    """

    def __init__(self, total: int, stream: TextIO | None = None, live: bool | None = None) -> None:
        self.total, self.stream = total, stream or sys.stderr
        self.live = self.stream.isatty() if live is None else live
        self.done = self.failed = 0
        self.started = time.perf_counter()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """More outcomes to come than was known."""
        with self._lock:
            self.total += count

    def __call__(self, outcome: Outcome) -> None:
        with self._lock:
            self.done += 1
            self.failed += outcome.error is not None
            width = len(str(self.total))
            name = os.path.basename(outcome.path)
            state = "FAILED" if outcome.error is not None else duration(outcome.wall)
            self._line(f"[{self.done:{width}}/{self.total}] {outcome.pipeline} {name}: {state}")
            if outcome.error is not None:
                self._line(f"    {outcome.error}")
            self._status()

    def say(self, text: str) -> None:
        """A plain line."""
        with self._lock:
            self._line(text)
            self._status()

    def _line(self, text: str) -> None:
        if self.live:
            self.stream.write("\r\x1b[K")
        self.stream.write(text + "\n")
        self.stream.flush()

    def _status(self) -> None:
        if not self.live or not 0 < self.done < self.total:
            return
        elapsed = time.perf_counter() - self.started
        rate = self.done / elapsed
        left = (self.total - self.done) / rate
        filled = 24 * self.done // self.total
        bar = "#" * filled + "-" * (24 - filled)
        pace = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        failed = f", {self.failed} failed" if self.failed else ""
        self.stream.write(f"\r\x1b[K[{bar}] {self.done}/{self.total} at {pace}, {duration(left)} left{failed}")
        self.stream.flush()

    def close(self) -> None:
        """Remove the live line."""
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
