"""The log of a task: lines of its steps, and warnings of libraries, kept with the exposure.

While a task is at work, what is logged and warned of in its threads goes to its own file, one line each as it comes,
so that a task that hangs shows where. Logging and warnings of the rest of the process stay as they are. What tasks of
its own (strips, tiles) say in other processes comes home with their results.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jwstdask import __version__
from jwstdask.core.plan import Outcome
from jwstdask.engine.census import remarks
from jwstdask.engine.executor import Executor

_MOST_NOTES = 200
"""Different warnings of a task that are written down; a loop may word each one differently."""
_MOST_TEXT = 2_000

_here = threading.local()


@dataclass
class Note:
    """Something said during a task."""

    level: str
    step: str
    text: str
    count: int = 1


@dataclass
class TaskLog:
    """Where a task's lines go.

    Parameters
    ----------
    path
        File that lines are added to; None to keep notes only.
    task
        First word of each line after the time: the pipeline.

    Attributes
    ----------
    notes
        What was said, in order; the same is there once, with a count.
    """

    path: str | None
    task: str
    notes: dict[tuple[str, str, str], Note] = field(default_factory=dict)
    _guard: Any = field(default_factory=threading.Lock, repr=False)

    def line(self, text: str, level: str = "INFO", step: str = "") -> None:
        """Add a line, or several with the same beginning. A log that cannot be written is no reason to fail."""
        self.lines([(text, level, step)])

    def lines(self, said: Iterable[tuple[str, str, str]]) -> None:
        """Add lines in one piece: text, level and step of each."""
        if self.path is None:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        begun = ((text, f"{now} {level:7} {self.task} {step + ': ' if step else ''}") for text, level, step in said)
        pieces = (f"{begin}{part}\n" for text, begin in begun for part in text.splitlines() or [""])
        data = "".join(pieces).encode("utf-8", "replace")
        with contextlib.suppress(OSError):
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                # One call, so that lines of several threads are not mixed.
                os.write(file, data)
            finally:
                os.close(file)

    def note(self, level: str, text: str, step: str = "", count: int = 1) -> None:
        """Take down what was said; a line where it is new."""
        text = text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]} ..."
        key = (level, step, text)
        with self._guard:
            known = self.notes.get(key)
            if known is not None:
                known.count += count
                return
            if len(self.notes) >= _MOST_NOTES:
                return
            self.notes[key] = Note(level, step, text, count)
        self.line(text, level, step)

    def repeated(self) -> list[tuple[str, str, str]]:
        """Lines of how often the same was said."""
        notes = list(self.notes.values())
        return [(f"{note.text} ({note.count} times)", note.level, note.step) for note in notes if note.count > 1]

    @property
    def warnings(self) -> tuple[tuple[str, str, int], ...]:
        """Step, text and count of each warning."""
        return tuple((note.step, note.text, note.count) for note in self.notes.values() if note.level != "INFO")


def current() -> TaskLog | None:
    """The log of the task that this thread works on."""
    return getattr(_here, "log", None)


def at_step(name: str) -> None:
    """Note which step this thread works on."""
    _here.step = name


@contextlib.contextmanager
def attached(log: TaskLog, step: str = "") -> Iterator[TaskLog]:
    """What this thread says belongs to a task."""
    before = current(), getattr(_here, "step", "")
    _here.log, _here.step = log, step
    try:
        with _hooks.held():
            yield log
    finally:
        _here.log, _here.step = before


def map_parts(executor: Executor, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """``executor.map`` of a part of a task, whose words come to the task's log wherever the part runs."""
    log = current()
    if log is None:
        return executor.map(function, items)
    step = getattr(_here, "step", "")
    if getattr(executor, "client", None) is None:
        return executor.map(partial(_here_too, function, log, step), items)
    results = []
    for result, notes in executor.map(partial(_elsewhere, function, log.task, step), items):
        for note in notes:
            log.note(note.level, note.text, note.step, note.count)
        results.append(result)
    return results


def _here_too(function: Callable[[Any], Any], log: TaskLog, step: str, item: Any) -> Any:
    with attached(log, step):
        return function(item)


def _elsewhere(function: Callable[[Any], Any], task: str, step: str, item: Any) -> tuple[Any, list[Note]]:
    with attached(TaskLog(None, task), step) as log:
        return function(item), list(log.notes.values())


class _Hooks:
    """What listens to logging and warnings of this process while a task is at work in it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holders = 0
        self._own = _Own()
        self._others = _Others()
        self._shown: Any = None
        self._before: tuple[int, bool] = (logging.NOTSET, True)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with self._guard:
            self._holders += 1
            if self._holders == 1:
                self._install()
        try:
            yield
        finally:
            with self._guard:
                self._holders -= 1
                if self._holders == 0:
                    self._remove()

    def _install(self) -> None:
        # astropy takes hold of warnings when it is imported.
        import astropy  # noqa: F401

        own = logging.getLogger("jwstdask")
        self._before = own.level, own.propagate
        self._own.level_shown = own.getEffectiveLevel()
        own.addHandler(self._own)
        own.setLevel(min(logging.INFO, self._own.level_shown))
        own.propagate = False
        logging.getLogger().addHandler(self._others)
        if warnings.showwarning is not self._show:
            self._shown = warnings.showwarning
            warnings.showwarning = self._show
        # Where nobody asked for something else: each exposure has its own warnings, not only the first.
        if _ALWAYS not in warnings.filters:
            warnings.filterwarnings("always", append=True)

    def _remove(self) -> None:
        own = logging.getLogger("jwstdask")
        own.removeHandler(self._own)
        own.setLevel(self._before[0])
        own.propagate = self._before[1]
        logging.getLogger().removeHandler(self._others)
        if warnings.showwarning == self._show:
            warnings.showwarning = self._shown
        if _ALWAYS in warnings.filters:
            with contextlib.suppress(ValueError, AttributeError):
                warnings.filters.remove(_ALWAYS)  # type: ignore[attr-defined]
                warnings._filters_mutated()  # type: ignore[attr-defined]

    def _show(
        self, message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        log = current()
        if log is None or file is not None:
            self._shown(message, category, filename, lineno, file, line)
            return
        text = f"{category.__name__}: {message} ({os.path.basename(filename)}:{lineno})"
        log.note("WARNING", text, getattr(_here, "step", ""))


_ALWAYS: Any = ("always", None, Warning, None, 0)
"""The entry of warnings.filters that applies where no other does."""


class _Own(logging.Handler):
    """Words of this package: into the log, and on to whoever would have heard them."""

    level_shown = logging.WARNING

    def emit(self, record: logging.LogRecord) -> None:
        log = current()
        if log is not None:
            log.note(record.levelname, record.getMessage(), getattr(_here, "step", ""))
        if record.levelno < self.level_shown:
            return
        root = logging.getLogger()
        if any(not isinstance(handler, _Others) for handler in root.handlers):
            root.callHandlers(record)
        elif log is None and logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)


class _Others(logging.Handler):
    """Words of other packages, from warnings on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        log = current()
        if log is not None and record.name.partition(".")[0] != "jwstdask":
            log.note(record.levelname, f"{record.name}: {record.getMessage()}", getattr(_here, "step", ""))


_hooks = _Hooks()


def worker_name() -> str:
    """Where this thread runs: machine, process, and thread of the process."""
    place = f"{socket.gethostname()}:{os.getpid()}"
    thread = threading.current_thread()
    if thread is threading.main_thread() or _lone_thread():
        return place
    number = thread.name.replace("-", "_").rpartition("_")[2]
    return f"{place}/{number}" if number.isdigit() else place


def _lone_thread() -> bool:
    """Whether this is a worker of a cluster with one thread."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        return distributed.get_worker().state.nthreads == 1
    except ValueError:
        return False


def started(log: TaskLog, path: str, words: Sequence[str] = ()) -> None:
    """Say that a task starts."""
    log.line(" ".join(["started", path, f"on {worker_name()}, jwstdask {__version__}", *words]).strip())


def finished(log: TaskLog, outcome: Outcome) -> None:
    """Say what became of a task, a line a step."""
    said = [*((text, "INFO", step) for text, step in step_lines(outcome)), *log.repeated()]
    if outcome.error is not None:
        said.append((outcome.error, "ERROR", ""))
        if outcome.traceback:
            said.append((outcome.traceback.rstrip(), "ERROR", ""))
    said.append((outcome_line(outcome), "INFO" if outcome.error is None else "ERROR", ""))
    log.lines(said)


def step_lines(outcome: Outcome) -> list[tuple[str, str]]:
    """What became of each step: text, and name of the step."""
    said = remarks(outcome.census)
    found = []
    for item in outcome.steps:
        if item.status == "COMPLETE":
            text = f"done in {item.seconds:.2f} s"
            text += f"; {said[item.name]}" if item.name in said else ""
        else:
            text = f"{item.status.lower()}: {item.reason}"
        found.append((text, item.name))
    return found


def outcome_line(outcome: Outcome) -> str:
    """What became of a task in a line."""
    spent = f"{outcome.wall:.1f} s, CPU {outcome.cpu:.1f} s, process peak {outcome.memory / 1e6:.0f} MB"
    if outcome.error is not None:
        return f"failed after {spent}"
    kinds = Counter(kind.partition(":")[0] for kind in outcome.products)
    written = ", ".join(f"{kind} ({count})" if count > 1 else kind for kind, count in kinds.items()) or "nothing"
    return f"finished in {spent}; written: {written}"
