"""What a report shows, as compact plain values: from the journal of a program, or from plans and outcomes.

Thousands of exposures mostly have the same steps, parameters, reasons and names of products: each of these is there
once, and the tasks name its place in a list.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jwstdask import __version__
from jwstdask.core.dq import PIXEL
from jwstdask.core.plan import AssociationPlan, ExposurePlan, Outcome
from jwstdask.io.naming import exposure_stem
from jwstdask.io.remote import absolute, is_url
from jwstdask.program.journal import at_work, program_records
from jwstdask.program.log_files import FOLDER, log_path, tail
from jwstdask.program.record import failure_json, outcome_json, settings_json, within

STATES = ("failed", "running", "waiting", "done", "up to date")
"""Of tasks; the first one that a task of an exposure is in is that of the exposure."""
_KINDS = {"planned": "waiting", "fresh": "up to date", "started": "running", "finished": "done", "failed": "failed"}
_FLAGS = tuple(PIXEL)
_TAILS = 300
"""Failures whose log is shown."""
_TAIL_LINES = 40
_TEXT = 4_000
_MEMBERS = 500
_NAME = "\0"
"""Stands for the name of the exposure in those of its products, which are then the same for all."""


class Pool:
    """A list in which each value is once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[Any, int] = {}

    def place(self, value: Any, key: Any = None) -> int:
        """Index of a value, which is added if it is new. ``key`` stands for one that cannot be a key."""
        key = value if key is None else key
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


@dataclass
class Task:
    """A task as the report has it.

    Attributes
    ----------
    name, pipeline, path
        As in the journal.
    state
        One of `STATES`.
    settings
        Key of what it does.
    members
        Of an association.
    record
        The last record of it being finished or failed.
    started, worker
        When and where it was started last.
    """

    name: str
    pipeline: str
    path: str
    state: str = "waiting"
    settings: str = ""
    members: list[str] | None = None
    record: dict[str, Any] | None = None
    started: float = 0.0
    worker: str = ""

    @property
    def label(self) -> str:
        """Name of the exposure or association."""
        name = os.path.basename(self.path)
        return exposure_stem(name) if self.members is None and name.endswith(".fits") else name

    @property
    def products(self) -> dict[str, list[Any]]:
        """Kind of product to place, size, time of change and digest."""
        return (self.record or {}).get("products", {})


@dataclass
class ReportData:
    """A program, as far as a report shows it.

    Attributes
    ----------
    folder
        Of the products.
    tasks
        Tasks of the last run, in order.
    settings
        Key to what tasks do.
    references
        Path to size and digest.
    runs
        Records of all runs, with that of their end under ``end``.
    working
        Whether a run is at work.
    now
        Seconds since 1970 when this was read.
    """

    folder: str
    tasks: dict[str, Task] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    references: dict[str, tuple[int, str]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    working: bool = False
    now: float = 0.0

    def add(self, record: dict[str, Any]) -> None:
        """Take a record of a journal into account."""
        kind = record.get("record")
        if kind == "run":
            self.runs.append(record)
            for task in self.tasks.values():
                task.state = "earlier"
        elif kind == "end" and self.runs:
            self.runs[-1]["end"] = record
        elif kind == "settings":
            self.settings[record["key"]] = record
        elif kind in _KINDS:
            self._add_task(kind, record)

    def _add_task(self, kind: str, record: dict[str, Any]) -> None:
        task = self.tasks.get(record["task"])
        if task is None:
            task = self.tasks[record["task"]] = Task(record["task"], "", "")
        task.state = _KINDS[kind]
        if kind in ("planned", "fresh"):
            task.pipeline, task.path = record.get("pipeline", ""), record.get("path", "")
            task.settings, task.members = record.get("settings", ""), record.get("members")
            if task.members is None and task.pipeline == "calwebb_image3":
                task.members = []
        elif kind == "started":
            task.started, task.worker = record.get("time", 0.0), record.get("worker", "")
        else:
            for path, seen in record.pop("references", {}).items():
                self.references[path] = seen[0], seen[2]
            for name in ("inputs", "recipe"):
                record.pop(name, None)
            task.record = record

    def current(self) -> list[Task]:
        """Tasks of the last run."""
        return [task for task in self.tasks.values() if task.state != "earlier"]


def read_program(folder: str | os.PathLike[str]) -> ReportData:
    """A program from its journal, which may be written on meanwhile."""
    data = ReportData(absolute(os.fspath(folder)), working=at_work(folder), now=time.time())
    for record in program_records(folder):
        # A line that some other program wrote says nothing.
        with contextlib.suppress(KeyError, IndexError, TypeError, ValueError, AttributeError):
            data.add(record)
    return data


def of_outcomes(
    folder: str,
    plans: Sequence[ExposurePlan],
    associations: Sequence[AssociationPlan],
    outcomes: Sequence[Outcome],
) -> ReportData:
    """A program of which there is no journal."""
    data = ReportData(folder, now=time.time())
    known = {(plan.pipeline, plan.path): plan for plan in (*plans, *associations)}
    contexts = sorted({plan.context for plan in known.values() if plan.context})
    begun = min((outcome.started for outcome in outcomes if outcome.started), default=data.now)
    data.add({"record": "run", "time": begun, "context": ", ".join(contexts), "versions": {"jwstdask": __version__}})
    for number, outcome in enumerate(outcomes):
        plan = known.get((outcome.pipeline, outcome.path))
        base = {"task": f"{number}", "time": outcome.started + outcome.wall}
        told: dict[str, Any] = {"pipeline": outcome.pipeline, "path": outcome.path}
        if plan is not None:
            settings = settings_json(plan)
            told["settings"] = repr(settings)
            data.add({"record": "settings", "key": told["settings"], **settings})
            if isinstance(plan, AssociationPlan):
                told["members"] = [os.path.basename(path) for path in plan.members]
        data.add({"record": "planned", **base, **told})
        if outcome.error is not None:
            data.add({"record": "failed", **base, **failure_json(outcome)})
        else:
            products = {kind: [within(path, folder), 0, 0, ""] for kind, path in outcome.products.items()}
            data.add({"record": "finished", **base, **outcome_json(outcome), "products": products})
    data.add({"record": "end", "status": "done", "time": data.now})
    return data


def state_of(data: ReportData) -> str:
    """``running``, or how the last run ended: ``done``, ``interrupted``, ``stopped``, ``killed``."""
    if data.working:
        return "running"
    end = data.runs[-1].get("end") if data.runs else None
    return str(end["status"]) if end is not None else "killed"


def document(data: ReportData, place: str) -> dict[str, Any]:
    """Everything that the page shows but for pictures and comparison.

    Parameters
    ----------
    data
        The program.
    place
        Folder of the report: products are named as seen from there.
    """
    return _Document(data, place).content()


class _Document:
    def __init__(self, data: ReportData, place: str) -> None:
        self.data, self.place = data, place
        self.pipelines, self.workers, self.warnings = Pool(), Pool(), Pool()
        self.steps, self.products, self.settings = Pool(), Pool(), Pool()
        self.censuses = Pool()
        run = data.runs[-1] if data.runs else {}
        self.zero = float(run.get("time", data.now))
        self.prefix = "" if is_url(data.folder) else os.path.relpath(data.folder, place) + "/"
        if self.prefix == "./":
            self.prefix = ""
        self.tails = 0

    def content(self) -> dict[str, Any]:
        data = self.data
        exposures: dict[str, list[Any]] = {}
        associations = []
        members: dict[str, list[int]] = {}
        for task in data.current():
            row = self._task(task)
            if task.members is None:
                exposures.setdefault(task.label, []).append(row)
            else:
                associations.append([task.label, row, task.members[:_MEMBERS], len(task.members)])
                for member in task.members:
                    members.setdefault(exposure_stem(member), []).append(len(associations) - 1)
        run = data.runs[-1] if data.runs else {}
        end = run.get("end") or {}
        return {
            "version": __version__,
            "folder": data.folder,
            "logs": None if is_url(data.folder) or not run.get("command") else f"{self.prefix}{FOLDER}/",
            "made": data.now,
            "zero": self.zero,
            "state": state_of(data),
            "ended": end.get("time"),
            "run": {name: run.get(name) for name in ("command", "context", "workers", "host", "process", "versions")},
            "runs": [
                [item.get("time"), (item.get("end") or {}).get("time"), (item.get("end") or {}).get("status")]
                for item in data.runs[-50:]
            ],
            "states": STATES,
            "flags": _FLAGS,
            "pipelines": self.pipelines.values,
            "workers": self.workers.values,
            "warnings": self.warnings.values,
            "steps": self.steps.values,
            "products": self.products.values,
            "censuses": self.censuses.values,
            "settings": [_shown_settings(self.data.settings.get(key)) for key in self.settings.values],
            "references": self._references(),
            "exposures": [[name, rows, members.get(name, [])] for name, rows in exposures.items()],
            "associations": associations,
        }

    def _task(self, task: Task) -> list[Any]:
        """Pipeline, state, settings, start [s], wall [s], CPU [s], memory [MB], worker, steps, their times [ms],
        products, census, warnings, reason, end of the log."""
        record = task.record or {}
        shown = task.state in ("done", "failed", "up to date")
        if not shown:
            record = {}
        steps = tuple((name, status, reason) for name, status, reason, *_ in record.get("steps", ()))
        seconds = [round(1000 * item[3]) for item in record.get("steps", ())]
        started = record.get("started") or (task.started if task.state in ("running", "done", "failed") else 0.0)
        worker = record.get("worker") or task.worker
        warned = [[self.warnings.place((step, text)), count] for step, text, count in record.get("warnings", ())]
        reason = trace = ""
        if task.state == "failed":
            reason = str(record.get("reason", ""))[:_TEXT]
            if self.tails < _TAILS:
                self.tails += 1
                path = log_path(self.data.folder, task.path)
                trace = (tail(path, _TAIL_LINES) or str(record.get("trace", "")))[-_TEXT:]
        return [
            self.pipelines.place(task.pipeline),
            STATES.index(task.state),
            self.settings.place(task.settings),
            round(started - self.zero, 2) if started else None,
            round(record.get("wall", 0.0), 2),
            round(record.get("cpu", 0.0), 2),
            round(record.get("memory", 0) / 1e6),
            self.workers.place(worker) if worker else -1,
            self.steps.place(steps),
            seconds,
            self.products.place(self._products(task)) if shown else -1,
            self._census(record.get("census", {})),
            warned,
            reason,
            trace,
        ]

    def _products(self, task: Task) -> tuple[tuple[str, str], ...]:
        """Kind and path of each product, NUL for the name of the exposure; of many of a kind the first, with their
        number."""
        found: dict[str, list[str]] = {}
        for kind, (path, *_) in task.products.items():
            found.setdefault(kind.partition(":")[0] if not kind.startswith("after:") else kind, []).append(path)
        shown = []
        for kind, paths in found.items():
            if is_url(paths[0]) or os.path.isabs(paths[0]) or is_url(self.data.folder):
                path = paths[0]
            else:
                path = self.prefix + paths[0]
            kind = kind.removeprefix("after:").partition(":")[0]
            folder, separator, name = path.rpartition("/")
            if name.startswith(task.label):
                path = folder + separator + _NAME + name.removeprefix(task.label)
            shown.append((kind if len(paths) == 1 else f"{kind} ({len(paths)})", path))
        return tuple(shown)

    def _census(self, census: Mapping[str, Mapping[str, int]]) -> list[Any]:
        """Kind, all, any, then index of a flag and its count, for each array."""
        found = []
        for kind, counts in census.items():
            line = [self.censuses.place(kind), counts.get("all", 0), counts.get("any", 0)]
            for name, count in counts.items():
                if name in PIXEL:
                    line += [_FLAGS.index(name), count]
            found.append(line)
        return found

    def _references(self) -> list[list[Any]]:
        """Type, name, size and digest of each reference, sorted."""
        steps = (step for settings in self.data.settings.values() for step in settings.get("steps", ()))
        kinds = {name: kind for step in steps for kind, name in step["references"].items() if name}
        found = {name: [kind, name, 0, ""] for name, kind in kinds.items()}
        for path, (size, digest) in self.data.references.items():
            name = os.path.basename(path)
            found[name] = [kinds.get(name, ""), name, size, digest]
        return sorted(found.values())


def _shown_settings(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What tasks do, with values as text."""
    if settings is None:
        return None
    steps = [
        [
            step["name"],
            step["skip"],
            [[name, repr(value), origin] for name, (value, origin) in step["parameters"].items()],
            [[kind, name or "N/A"] for kind, name in step["references"].items()],
        ]
        for step in settings.get("steps", ())
    ]
    return {
        "pipeline": settings.get("pipeline", ""),
        "context": settings.get("context", ""),
        "exp_type": settings.get("exp_type", ""),
        "steps": steps,
    }


def finite(value: Any) -> Any:
    """A value with None for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


# Comparison with an earlier run.


def compare(before: ReportData, after: ReportData) -> dict[str, Any]:
    """How a program differs from an earlier run of it.

    Returns
    -------
    comparison
        ``products`` (counts, and ``changed``, ``added``, ``removed`` names), ``references``, ``parameters``,
        ``versions`` (what, before, after), ``times`` (what, CPU seconds before and after), ``states``.
    """
    old, new = _digests(before), _digests(after)
    both = [name for name in new if name in old]
    changed = [name for name in both if old[name][1] != new[name][1]]
    return {
        "folder": before.folder,
        "before": _times(before),
        "after": _times(after),
        "products": {
            "same": len(both) - len(changed),
            "changed": sorted(changed),
            "added": sorted(name for name in new if name not in old),
            "removed": sorted(name for name in old if name not in new),
        },
        "references": _reference_changes(before, after),
        "parameters": _changes(_parameters(before), _parameters(after)),
        "versions": _changes(_versions(before), _versions(after)),
        "times": _time_changes(before, after),
        "states": _state_changes(before, after),
    }


def changed_pairs(before: ReportData, after: ReportData, names: Iterable[str]) -> list[tuple[str, str]]:
    """Paths of products before and after, by name, where both are there."""
    old, new = _digests(before), _digests(after)
    pairs = [(os.path.join(before.folder, old[name][0]), os.path.join(after.folder, new[name][0])) for name in names]
    return [pair for pair in pairs if all(map(os.path.exists, pair))]


def _digests(data: ReportData) -> dict[str, tuple[str, str]]:
    """Name of a product to where it is and its digest, in the last task that wrote it."""
    return {
        os.path.basename(path): (path, digest)
        for task in data.current()
        if task.state in ("done", "up to date")
        for path, _, _, digest in task.products.values()
    }


def _times(data: ReportData) -> dict[str, Any]:
    run = data.runs[-1] if data.runs else {}
    return {"time": run.get("time"), "context": run.get("context")}


def _versions(data: ReportData) -> dict[str, set[str]]:
    run = data.runs[-1] if data.runs else {}
    found = {name: {str(value)} for name, value in (run.get("versions") or {}).items()}
    return {**found, "CRDS context": {str(run.get("context") or "")}}


def _used(data: ReportData) -> Iterator[dict[str, Any]]:
    keys = {task.settings for task in data.current()}
    return (settings for key, settings in data.settings.items() if key in keys)


def _parameters(data: ReportData) -> dict[str, set[str]]:
    """Parameters that are no defaults to their values."""
    found: dict[str, set[str]] = {}
    for settings in _used(data):
        for step in settings.get("steps", ()):
            for name, (value, _) in step["parameters"].items():
                found.setdefault(f"{settings['pipeline']}: {step['name']}.{name}", set()).add(repr(value))
    return found


def _reference_changes(before: ReportData, after: ReportData) -> list[list[str]]:
    def names(data: ReportData) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for settings in _used(data):
            for step in settings.get("steps", ()):
                for kind, name in step["references"].items():
                    if step["skip"] is None:
                        found.setdefault(kind, set()).add(name or "N/A")
        return found

    digests = [{os.path.basename(path): seen[1] for path, seen in data.references.items()} for data in (before, after)]
    content = [
        [name, "other content", "under the same name"]
        for name, digest in digests[1].items()
        if digests[0].get(name, digest) != digest
    ]
    return _changes(names(before), names(after)) + sorted(content)


def _changes(old: Mapping[str, set[str]], new: Mapping[str, set[str]]) -> list[list[str]]:
    """What, before, after, where they differ: what both have of several values is left out."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name, set()), new.get(name, set())
        if a != b:
            found.append([name, ", ".join(sorted(a - b)) or "-", ", ".join(sorted(b - a)) or "-"])
    return found


def _time_changes(before: ReportData, after: ReportData) -> list[list[Any]]:
    """Pipeline or step, number of tasks and mean CPU time before and after."""

    def means(data: ReportData) -> dict[str, tuple[int, float]]:
        total: dict[str, list[float]] = {}
        for task in data.current():
            record = task.record
            if record is None or task.state not in ("done", "up to date"):
                continue
            total.setdefault(task.pipeline, []).append(record.get("cpu", 0.0))
            for name, status, _, seconds, *_ in record.get("steps", ()):
                if status == "COMPLETE":
                    total.setdefault(f"{task.pipeline}: {name}", []).append(seconds)
        return {name: (len(values), sum(values) / len(values)) for name, values in total.items()}

    old, new = means(before), means(after)
    names = list(dict.fromkeys([*new, *old]))
    return [[name, *old.get(name, (0, None)), *new.get(name, (0, None))] for name in names]


def _state_changes(before: ReportData, after: ReportData) -> list[list[str]]:
    """Tasks that failed in one of the two only."""
    old = {task.name: task.state for task in before.current()}
    found = []
    for task in after.current():
        earlier = old.get(task.name)
        if earlier is not None and "failed" in (earlier, task.state) and earlier != task.state:
            found.append([f"{task.pipeline} {task.label}", earlier, task.state])
    return found


def totals(content: Mapping[str, Any]) -> dict[str, Any]:
    """Counts for people who have no scripts: exposures by state, tasks, CPU time [s]."""
    states = dict.fromkeys(STATES, 0)
    tasks = [row for _, rows, _ in content["exposures"] for row in rows]
    for _, rows, _ in content["exposures"]:
        states[STATES[min(row[1] for row in rows)]] += 1
    tasks += [row for _, row, *_ in content["associations"]]
    return {"states": states, "tasks": len(tasks), "cpu": sum(row[5] for row in tasks)}


__all__: Sequence[str] = [
    "ReportData",
    "changed_pairs",
    "compare",
    "document",
    "finite",
    "of_outcomes",
    "read_program",
    "state_of",
    "totals",
]
