"""Logs of a program, in ``logs`` beside its products: a file an exposure for people, ``run.jsonl`` for machines.

The file of an exposure is written where its task runs, as its products are, and gets longer with each stage. The
leading process alone writes ``run.jsonl``: a JSON object a line, with ``time`` and ``event`` (``run``, ``started``,
``step``, ``warning``, ``finished``, ``failed``, ``end``).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jwstdask.core.plan import Outcome
from jwstdask.engine.census import remarks
from jwstdask.engine.executor import Executor
from jwstdask.engine.exposure import run_exposure
from jwstdask.engine.log import TaskLog, attached, finished, started
from jwstdask.program.log_files import FOLDER, log_path
from jwstdask.program.record import Plan
from jwstdask.program.state import state_folder

NAME = "run.jsonl"


@dataclass
class Watch:
    """Takes the outcome of a task that is logged."""

    outcome: Outcome | None = None


@contextlib.contextmanager
def logged(plan: Plan, folder: str) -> Iterator[Watch]:
    """While this holds, what is said in this thread goes to the log of the exposure; at the end, what became of it."""
    path = log_path(folder, plan.path)
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    log, watch = TaskLog(path, plan.pipeline), Watch()
    started(log, plan.path, (plan.context,))
    with attached(log):
        try:
            yield watch
        except BaseException as error:
            log.line(f"interrupted: {type(error).__name__}", "ERROR")
            raise
    if watch.outcome is not None:
        finished(log, watch.outcome)


def noted(plan: Plan, executor: Executor | None = None, work: Callable[..., Outcome] = run_exposure) -> Outcome:
    """Do the work of a plan: what is said meanwhile comes with the outcome, and goes nowhere else."""
    with attached(TaskLog(None, plan.pipeline)):
        return work(plan, executor)


def events(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a record of the journal tells, as objects with an ``event`` each.

    Parameters
    ----------
    record
        With ``pipeline`` and ``path`` of the task where it is of one.
    """
    kind = record["record"]
    if kind in ("run", "end"):
        yield {"event": kind, **{name: value for name, value in record.items() if name not in ("record", "versions")}}
        return
    task = {"pipeline": record["pipeline"], "exposure": os.path.basename(record["path"])}
    said = remarks(record.get("census", {}))
    for name, status, reason, seconds in record.get("steps", ()):
        about = reason or said.get(name, "")
        yield {"event": "step", **task, "step": name, "status": status, "seconds": seconds, "message": about}
    for step, text, count in record.get("warnings", ()):
        yield {"event": "warning", **task, "step": step, "message": text, "count": count}
    names = ("worker", "wall", "cpu", "memory", "census")
    facts = {name: record[name] for name in names if name in record}
    if kind == "failed":
        facts |= {"message": record.get("reason", ""), "traceback": record.get("trace", "")}
    if kind == "finished":
        facts["products"] = [place for place, *_ in record.get("products", {}).values()]
    yield {"event": kind, **task, **facts}


_encode = json.JSONEncoder(default=str).encode


def line_of(event: Mapping[str, Any], now: float | None = None) -> str:
    """An event as a line."""
    now = time.time() if now is None else now
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    return _encode({"time": stamp, **event})


class RunLog:
    """``run.jsonl`` of a program. That it cannot be written is no reason to stop.

    Parameters
    ----------
    folder
        Folder of the products, or their URL.
    """

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(state_folder(folder), FOLDER, NAME)
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)

    def add(self, record: Mapping[str, Any]) -> None:
        """Add what a record of the journal tells."""
        self.add_all([record])

    def add_all(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add what records of the journal tell, in one piece."""
        now = time.time()
        text = "".join(f"{line_of(event, now)}\n" for record in records for event in events(record))
        with contextlib.suppress(OSError), open(self.path, "a", encoding="utf-8") as file:
            file.write(text)


__all__ = ["RunLog", "events", "line_of", "logged", "noted"]
