"""``jwstdask status``: how far a program is, from its journal, while it runs or after."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from jwstdask.cli.progress import duration
from jwstdask.core.errors import PlanError
from jwstdask.program.journal import History, at_work, journal_path, read_history
from jwstdask.program.log_files import log_path

_COLUMNS = ("waiting", "running", "done", "up to date", "failed")
_FAILURES, _TRACE_LINES = 50, 4
"""Failures that are printed, and lines of the end of their tracebacks."""
_ENDS = {
    "done": "ended",
    "interrupted": "was interrupted",
    "stopped": "was stopped",
    "killed": "was killed",
    "running": "running",
}


def main(argv: Sequence[str]) -> int:
    options_parser = argparse.ArgumentParser(
        "jwstdask status", description="Show how far a program is: states by stage, rates, time left, failures."
    )
    options_parser.add_argument("folder", help="folder of the products (output_dir of the run)")
    options_parser.add_argument("--json", action="store_true", help="for machines")
    options = options_parser.parse_args(argv)
    history = read_history(options.folder)
    if not history.runs and not os.path.exists(journal_path(options.folder)):
        raise PlanError(f"{options.folder} has no journal", "give the output_dir of a whole program")
    found = summary(history, at_work(options.folder), time.time())
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        print()
    else:
        print("\n".join(lines(found, options.folder)))
    return 0


def summary(history: History, working: bool, now: float) -> dict[str, Any]:
    """Facts about the last run of a program.

    Parameters
    ----------
    history
        The journal.
    working
        Whether a run holds it.
    now
        Seconds since 1970.

    Returns
    -------
    facts
        ``state`` (``running``, ``done``, ``interrupted``, ``stopped``, ``killed``), ``seconds``, ``stages`` (pipeline
        to counts by state, ``per_minute``, ``mean_seconds``), ``seconds_left``, ``failures``.
    """
    run = history.runs[-1] if history.runs else {}
    end = run.get("end")
    state = "running" if working else str(end["status"]) if end is not None else "killed"
    tasks = [task for task in history.tasks.values() if task.state != "earlier"]
    times = [task.ended for task in tasks if task.state == "done"]
    last = now if working else end["time"] if end is not None else max(times, default=run.get("time", now))
    seconds = max(last - run.get("time", last), 0.0)
    stages: dict[str, dict[str, Any]] = {}
    walls: dict[str, list[float]] = {}
    for task in tasks:
        counts = stages.setdefault(task.pipeline, dict.fromkeys(_COLUMNS, 0))
        counts[task.seen(working)] += 1
        if task.state == "done":
            walls.setdefault(task.pipeline, []).append(task.wall)
    every = [wall for group in walls.values() for wall in group]
    left = 0.0
    for pipeline, counts in stages.items():
        group = walls.get(pipeline) or every
        mean = sum(group) / len(group) if group else None
        counts["per_minute"] = round(60 * counts["done"] / seconds, 2) if seconds else 0.0
        counts["mean_seconds"] = None if mean is None else round(mean, 2)
        left += (counts["waiting"] + 0.5 * counts["running"]) * (mean or 0.0)
    unfinished = sum(counts["waiting"] + counts["running"] for counts in stages.values())
    known = bool(every) or not unfinished
    return {
        "state": state,
        "started": run.get("time"),
        "command": run.get("command", []),
        "context": run.get("context"),
        "workers": run.get("workers"),
        "process": run.get("process"),
        "host": run.get("host"),
        "seconds": round(seconds, 1),
        "stages": stages,
        "seconds_left": round(left / max(run.get("workers") or 1, 1), 1) if known else None,
        "unfinished": unfinished,
        "failures": [
            {"pipeline": task.pipeline, "path": task.path, "reason": task.reason, "trace": task.trace}
            for task in tasks
            if task.state == "failed"
        ],
    }


def lines(found: dict[str, Any], folder: str) -> list[str]:
    """The facts for people."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["started"])) if found["started"] else "?"
    spent = duration(found["seconds"])
    if found["state"] == "running":
        shown = [f"{folder}: running since {since} ({spent}), process {found['process']} on {found['host']}"]
    else:
        shown = [f"{folder}: {_ENDS[found['state']]}, started {since}, {spent}"]
    width = max([len(name) for name in found["stages"]] + [8])
    shown.append(" " * width + "".join(f"{name:>12}" for name in _COLUMNS) + f"{'a minute':>12}{'mean':>12}")
    for name, counts in found["stages"].items():
        mean = "" if counts["mean_seconds"] is None else duration(counts["mean_seconds"])
        numbers = "".join(f"{counts[column]:12d}" for column in _COLUMNS)
        shown.append(f"{name:{width}}{numbers}{counts['per_minute']:12.1f}{mean:>12}")
    if found["state"] == "running":
        left = found["seconds_left"]
        shown.append("time left is not known yet" if left is None else f"about {duration(left)} left of these stages")
    elif found["unfinished"]:
        shown.append(f"{found['unfinished']} tasks are not done: give the same command again for the rest")
        shown.append(f"  {shlex.join(map(str, found['command']))}")
    for failure in found["failures"][:_FAILURES]:
        shown.append(f"FAILED {failure['pipeline']} {os.path.basename(failure['path'])}")
        shown.append(f"    {failure['reason']}")
        shown += [f"    | {line}" for line in failure["trace"].splitlines()[-_TRACE_LINES:]]
        log = log_path(folder, failure["path"])
        if os.path.exists(log):
            shown.append(f"    log: {log}")
    if len(found["failures"]) > _FAILURES:
        left = len(found["failures"]) - _FAILURES
        shown.append(f"{left} more failures: see `jwstdask report {folder}` or --json")
    return shown
