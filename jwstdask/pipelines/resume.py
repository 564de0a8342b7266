"""What of a program is up to date, and what a run tells its journal.

A task is up to date if it was finished, everything that decides its products is as it was (parameters, names and
content of references and inputs, version of code and libraries), and its products are there unchanged. Files are known
by a digest of their content, which is remembered with size and time of change so that a file is read once. An input
that is a product of another task counts as unchanged if that task would make the same again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jwstdask.core.errors import JwstdaskError, ParameterError
from jwstdask.core.params import suggest
from jwstdask.core.plan import AssociationPlan, ExposurePlan, Outcome
from jwstdask.engine.events import listening, tell
from jwstdask.engine.executor import Executor
from jwstdask.engine.exposure import run_exposure
from jwstdask.engine.log import worker_name
from jwstdask.engine.readers import in_parallel
from jwstdask.io.product import make_folder
from jwstdask.io.remote import absolute, is_url, join, present
from jwstdask.io.temporary import replacing
from jwstdask.pipelines.registry import PIPELINES
from jwstdask.pipelines.sequence import saving
from jwstdask.program.content import Stamp, combined, glance, parts, stamp
from jwstdask.program.journal import FOLDER, Journal, Reading
from jwstdask.program.log import RunLog, logged
from jwstdask.program.record import (
    VERSION,
    Plan,
    all_products,
    failure_json,
    input_paths,
    outcome_json,
    outcome_of,
    plan_json,
    recipe,
    record_path,
    reference_paths,
    settings_json,
    task_name,
    versions,
    within,
)
from jwstdask.program.state import send, state_folder

_stamps: dict[tuple[str, int, int], Stamp] = {}
"""Files that this process has read."""


def known_stamp(path: str) -> Stamp:
    """The stamp of a file, which is read once by a process."""
    seen = glance(path)
    if seen is None:
        return stamp(path)
    key = (path, *seen)
    if key not in _stamps:
        _stamps[key] = stamp(path)
    return _stamps[key]


def witness(
    plan: Plan,
    executor: Executor | None = None,
    *,
    folder: str,
    work: Callable[..., Outcome] = run_exposure,
    command: Sequence[str] = (),
) -> Outcome:
    """Do the work of a plan: tell the process that leads that it has started, and with what it finished.

    What is said meanwhile goes to the log of the exposure.
    """
    with logged(plan, state_folder(folder)) as log:
        outcome = _witnessed(plan, executor, folder, work, command)
        log.outcome = outcome
    return outcome


def _witnessed(
    plan: Plan, executor: Executor | None, folder: str, work: Callable[..., Outcome], command: Sequence[str]
) -> Outcome:
    name = task_name(plan, folder)
    tell(json.dumps({"folder": folder, "record": "started", "task": name, "worker": worker_name()}))
    inputs: dict[str, list[Any]] = {}
    references: dict[str, list[Any]] = {}
    if plan.error is None:
        for group, paths in ((inputs, input_paths(plan)), (references, reference_paths(plan))):
            for path in paths:
                try:
                    group[path] = known_stamp(path).json()
                except (JwstdaskError, OSError):
                    # The work will say so in its own words.
                    continue
    outcome = work(plan, executor)
    if outcome.error is None:
        try:
            products, detail = _products(plan, outcome, executor)
            evidence = {
                **outcome_json(outcome),
                "recipe": recipe(plan),
                "inputs": inputs,
                "references": references,
                "products": {kind: [within(path, folder), *seen.json()] for kind, (path, seen) in products.items()},
            }
            _write_record(plan, folder, evidence, detail, command)
        except (JwstdaskError, OSError) as error:
            reason = f"{plan.path}: the products are written, but not their record: {error}"
            outcome = replace(outcome, error=reason)
    if outcome.error is not None:
        # With more memory it may be done yet: who knows writes it down.
        if not outcome.short:
            tell(json.dumps({"folder": folder, "record": "failed", "task": name, **failure_json(outcome)}))
        return outcome
    tell(json.dumps({"folder": folder, "record": "finished", "task": name, **evidence}))
    return outcome


def _products(
    plan: Plan, outcome: Outcome, executor: Executor | None
) -> tuple[dict[str, tuple[str, Stamp]], dict[str, dict[str, str]]]:
    """Stamps of all products written, and digests of their parts."""
    written = {**all_products(plan), **outcome.products}
    by_path = {absolute(path): kind for kind, path in written.items() if present(path)}
    wide = isinstance(plan, AssociationPlan) and executor is not None
    paths = list(by_path)
    found = executor.map(_examined, paths) if wide else list(map(_examined, paths))  # type: ignore[union-attr]
    stamps, detail = {}, {}
    for path, (seen, pieces) in zip(paths, found, strict=True):
        stamps[by_path[path]] = (path, seen)
        detail[by_path[path]] = pieces
    return stamps, detail


def _examined(path: str) -> tuple[Stamp, dict[str, str]]:
    if is_url(path):
        # What the server says of it: it would have to be read back for more.
        return stamp(path), {}
    size, mtime = glance(path) or (0, 0)
    pieces = parts(path)
    found = Stamp(size, mtime, combined(pieces))
    _stamps[path, size, mtime] = found
    return found, pieces


def _write_record(
    plan: Plan,
    folder: str,
    evidence: Mapping[str, Any],
    detail: Mapping[str, Mapping[str, str]],
    command: Sequence[str],
) -> None:
    """The replay record, beside the journal."""
    record = {
        "replay": VERSION,
        "plan": plan_json(plan),
        "context": plan.context,
        "versions": versions(),
        "command": list(command),
        "inputs": {path: {"bytes": seen[0], "digest": seen[2]} for path, seen in evidence["inputs"].items()},
        "references": {path: {"bytes": seen[0], "digest": seen[2]} for path, seen in evidence["references"].items()},
        "products": {
            kind: {"path": path, "bytes": size, "digest": digest, "parts": dict(detail[kind])}
            for kind, (path, size, _, digest) in evidence["products"].items()
        },
    }
    path = record_path(plan, folder)
    # A line for each group: indented JSON takes twenty times as long.
    groups = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
    text = f"{{\n{groups}\n}}\n"
    if is_url(path):
        send(text.encode(), path)
        return
    make_folder(path)
    with replacing(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


@dataclass
class Task:
    """A task of this run.

    Attributes
    ----------
    plan
        What is to be done.
    name
        See `task_name`.
    forced
        Done again whatever the journal says.
    same
        Whether it would make what it made before.
    fresh
        Whether there is nothing to do.
    settings
        Key of the record of what it does.
    """

    plan: Plan
    name: str
    forced: bool = False
    same: bool = False
    fresh: bool = False
    settings: str = ""


@dataclass(frozen=True)
class Resume:
    """How a program is resumed.

    Attributes
    ----------
    force
        Aliases of pipelines and steps whose tasks are done again, with all that follow from them; ``all``.
    command, context
        The command line and the CRDS context, for journal and records.
    """

    force: frozenset[str] = frozenset()
    command: tuple[str, ...] = ()
    context: str = ""


class Ledger:
    """The tasks of a run beside what the journal knows of them.

    Parameters
    ----------
    journal
        The journal.
    resume
        How the program is resumed.
    log
        What is told of the run, for machines.
    """

    def __init__(self, journal: Journal | Reading, resume: Resume, log: RunLog | None = None) -> None:
        self.log = log
        self.journal, self.command, self.force = journal, resume.command, resume.force
        self.folder, self.status = journal.folder, "done"
        self.tasks: dict[str, Task] = {}
        self._maker: dict[str, tuple[Task, str]] = {}
        self._digests: dict[str, str | None] = {}
        self._seen: dict[str, list[Any]] = {}
        self._told: set[str] = set()
        self._writing: set[str] = set()
        self._known_settings: set[str] = set()
        self._running: dict[str, threading.Thread] = {}
        self._guard = threading.Condition()
        self._names: dict[tuple[str, str], str] = {}
        self.handle: Callable[[], None] = lambda: None

    @property
    def work(self) -> Callable[..., Outcome]:
        """What does the work of an exposure's plan."""
        return partial(witness, folder=self.folder, command=self.command)

    def sort(self, chains: Sequence[Sequence[Plan]]) -> list[list[Task]]:
        """Find out what is up to date, and write what is planned into the journal.

        Parameters
        ----------
        chains
            Plans of each exposure in order of their stages; or of associations.
        """
        found = [[self._task(plan) for plan in chain] for chain in chains]
        tasks = [task for chain in found for task in chain]
        linked: dict[tuple[str, str], list[Task]] = {}
        for task in tasks:
            step = saving(task.plan) if isinstance(task.plan, ExposurePlan) else None
            if step is not None:
                linked.setdefault((str(step.save_persistence), task.plan.detector), []).append(task)  # type: ignore[union-attr]
        self._ask(tasks)
        for task in tasks:
            self._judge(task)
        # Exposures that hand their persistence on are all done again, or none.
        for target, members in linked.items():
            if not all(task.fresh for task in members):
                for task in members:
                    task.fresh = task.same = False
                self._rewind(*target, {os.path.basename(task.plan.path) for task in members})
        if linked:
            for task in tasks:
                if task.fresh and any(self._made_anew(path) for path in input_paths(task.plan)):
                    task.fresh = task.same = False
        self.journal.add_all([*self._settings(tasks), *map(self._planned, tasks)])
        if self._seen:
            self.journal.add("seen", files=dict(self._seen))
            self._seen.clear()
        return found

    def _ask(self, tasks: Iterable[Task]) -> None:
        """Ask servers, many at a time, of the files at URLs that tasks which have been done take and made."""
        wanted: dict[str, None] = {}
        for task in tasks:
            record = self._record(task)
            if record is not None:
                inputs = (path for path in input_paths(task.plan) if os.path.abspath(path) not in self._maker)
                wanted.update(dict.fromkeys(path for path in inputs if is_url(path)))
                if is_url(self.folder):
                    wanted.update((join(self.folder, entry[0]), None) for entry in record.get("products", {}).values())
        in_parallel(self._content, list(wanted))

    def _settings(self, tasks: Iterable[Task]) -> list[dict[str, Any]]:
        """Records of what the tasks do, each once."""
        found = []
        for task in tasks:
            content = settings_json(task.plan)
            text = json.dumps(content, sort_keys=True)
            task.settings = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
            if task.settings not in self._known_settings:
                self._known_settings.add(task.settings)
                found.append({"record": "settings", "key": task.settings, **content})
        return found

    def _planned(self, task: Task) -> dict[str, Any]:
        plan = task.plan
        record = {
            "record": "fresh" if task.fresh else "planned",
            "task": task.name,
            "pipeline": plan.pipeline,
            "path": plan.path,
            "settings": task.settings,
        }
        if isinstance(plan, AssociationPlan):
            record["members"] = [os.path.basename(path) for path in plan.members]
        return record

    def _rewind(self, path: str, detector: str, names: set[str]) -> None:
        """Put a file of persistence back to what it held of a detector before the first of these exposures was done."""
        if isinstance(self.journal, Reading):
            return
        from jwstdask.steps.detector.persistence import read_state, write_state

        kept = os.path.join(state_folder(self.folder), FOLDER, f"before_{os.path.basename(path)}")
        state = read_state(path, detector)
        if state is None or state.get("filename") not in names:
            target = kept
        else:
            target, state = path, read_state(kept, detector)
        if state is not None or os.path.exists(target):
            write_state(target, detector, state)

    def _made_anew(self, path: str) -> bool:
        maker = self._maker.get(os.path.abspath(path))
        return maker is not None and not maker[0].same

    def _task(self, plan: Plan) -> Task:
        task = Task(plan, task_name(plan, self.folder))
        self.tasks[task.name] = task
        self._names[plan.pipeline, plan.path] = task.name
        for kind, path in all_products(plan).items():
            self._maker[os.path.abspath(path)] = (task, kind)
        return task

    def _record(self, task: Task) -> dict[str, Any] | None:
        """The last record of the task being finished."""
        state = self.journal.history.tasks.get(task.name)
        return None if state is None else state.finished

    def _judge(self, task: Task) -> None:
        plan, record = task.plan, self._record(task)
        names = {plan.pipeline, *(item.step.alias for item in plan.active), *(item.name for item in plan.active), "all"}
        makers = [self._maker[path][0] for path in map(os.path.abspath, input_paths(plan)) if path in self._maker]
        task.forced = bool(self.force & names) or any(maker.forced for maker in makers)
        if record is None or plan.error is not None:
            return
        # What cannot be read in the record was not written by a run: the task is done again.
        with contextlib.suppress(KeyError, IndexError, TypeError, ValueError, AttributeError):
            if self._same(plan, record):
                products = list(record["products"].values())
                task.fresh = not task.forced and all(self._intact(*entry) for entry in products)
                task.same = True

    def _same(self, plan: Plan, record: Mapping[str, Any]) -> bool:
        """Whether a plan makes what it made when the record was written."""
        if record["recipe"] != recipe(plan):
            return False
        inputs = input_paths(plan)
        references = reference_paths(plan)
        if len(inputs) != len(record["inputs"]) or len(references) != len(record["references"]):
            return False
        before = [seen[2] for seen in record["inputs"].values()]
        if any(self._identity(path) != digest for path, digest in zip(inputs, before, strict=True)):
            return False
        known = {os.path.basename(path): seen[2] for path, seen in record["references"].items()}
        return all(self._content(path) == known.get(os.path.basename(path)) for path in references)

    def _identity(self, path: str) -> str | None:
        """Digest of an input, or of what will be in its place; None if that is not known."""
        maker = self._maker.get(os.path.abspath(path))
        if maker is None:
            return self._content(path)
        task, _ = maker
        record = self._record(task) if task.same else None
        place = within(path, self.folder)
        products = record["products"].values() if record is not None else ()
        return next((entry[3] for entry in products if entry[0] == place), None)

    def _content(self, path: str) -> str | None:
        if path not in self._digests:
            self._digests[path] = self._read(path)
        return self._digests[path]

    def _read(self, path: str) -> str | None:
        seen = glance(path)
        known = self.journal.history.files.get((path, *seen)) if seen is not None else None
        if known is not None:
            return known
        try:
            found = known_stamp(path)
        except (JwstdaskError, OSError):
            return None
        if found.mtime:
            self._seen[path] = found.json()
        return found.digest

    def _intact(self, place: str, size: int, mtime: int, digest: str) -> bool:
        """Whether a product is there as the last task that wrote it left it."""
        size, mtime, digest = self.journal.history.written.get(place, (size, mtime, digest))
        path = join(self.folder, place)
        if is_url(path):
            return self._content(path) == digest
        seen = glance(path)
        if seen is None:
            return False
        return seen == (size, mtime) or self._content(path) == digest

    def earlier(self, task: Task) -> Outcome:
        """The outcome that an up-to-date task had when it was done."""
        record = self._record(task)
        assert record is not None
        products = {
            kind: os.path.join(self.folder, entry[0])
            for kind, entry in record["products"].items()
            if not kind.startswith("after:")
        }
        planned = all_products(task.plan)
        return outcome_of(
            {**record, "path": task.plan.path},
            {kind: planned.get(kind, path) for kind, path in products.items()},
        )

    def hear(self, messages: Sequence[str]) -> None:
        """Messages of tasks: into the journal, at once and together."""
        found = [json.loads(message) for message in messages]
        self._write([item for item in found if item.pop("folder", None) == self.folder and item["task"] in self.tasks])

    def settle(self, plan: Plan, outcome: Outcome) -> None:
        """See to it that an outcome is in the journal: its message, which came before it, or what is known without."""
        name = self._name(plan)
        if name not in self._told:
            self.handle()
        if name not in self._told:
            if outcome.error is not None:
                self._write([{"record": "failed", "task": name, **failure_json(outcome)}])
            else:
                # Without what its files held: the next run does it again.
                self._write([{"record": "finished", "task": name, **outcome_json(outcome)}])
        with self._guard:
            self._guard.wait_for(lambda: name not in self._writing)

    def _name(self, plan: Plan) -> str:
        return self._names.get((plan.pipeline, plan.path)) or task_name(plan, self.folder)

    def _write(self, records: Sequence[Mapping[str, Any]]) -> None:
        new, ends = [], set()
        with self._guard:
            for record in records:
                name, kind = record["task"], record["record"]
                if name in self._told or name in self._writing or name in ends:
                    continue
                new.append(record)
                if kind == "started":
                    self._running[name] = threading.current_thread()
                else:
                    ends.add(name)
            self._writing |= ends
        if not new:
            return
        try:
            self.journal.add_all(new, sync=bool(ends))
            if self.log is not None:
                plans = (self.tasks[record["task"]].plan for record in new)
                self.log.add_all(
                    [{**record, "pipeline": plan.pipeline, "path": plan.path} for record, plan in zip(new, plans)]
                )
            self._told |= ends
        finally:
            for record in new:
                if record["record"] != "started":
                    self.tasks[record["task"]].same = record["record"] == "finished"
            with self._guard:
                self._writing -= ends
                for name in ends:
                    self._running.pop(name, None)
                self._guard.notify_all()

    def wait(self) -> None:
        """Wait for tasks that are in progress in other threads of this process."""
        # What this thread had begun when it was interrupted is given up.
        here = threading.current_thread()
        with self._guard:
            self._guard.wait_for(lambda: all(thread is here for thread in self._running.values()))


@contextlib.contextmanager
def opened_ledger(folder: str, resume: Resume, executor: Executor) -> Iterator[Ledger]:
    """The ledger of a run in a folder; its journal is held, hears the tasks, and is told how the run ended."""
    with Journal(folder) as journal:
        log = RunLog(state_folder(journal.folder))
        ledger = Ledger(journal, resume, log)
        facts = {"command": list(resume.command), "cwd": os.getcwd(), "versions": versions(), "context": resume.context}
        place = {"workers": executor.workers, "process": os.getpid(), "host": socket.gethostname()}
        journal.add("run", **facts, **place)
        log.add({"record": "run", **facts, **place})
        status = "stopped"
        try:
            with listening(executor, ledger.hear) as ledger.handle:
                try:
                    yield ledger
                    status = ledger.status
                except KeyboardInterrupt:
                    status = "interrupted"
                    raise
                finally:
                    # Threads cannot be interrupted: what they have begun is finished.
                    if getattr(executor, "client", None) is None:
                        ledger.wait()
        finally:
            journal.add("end", status=status)
            log.add({"record": "end", "status": status})


def check_force(names: Iterable[str]) -> frozenset[str]:
    """What ``--force`` may name.

    Raises
    ------
    ParameterError
        If no pipeline has a step of that name.
    """
    known = {"all", *PIPELINES}
    for pipeline in PIPELINES.values():
        known |= {*pipeline.step_defs, *pipeline.step_defs.values()}
    given = frozenset(part for name in names for part in name.split(",") if part)
    for name in sorted(given):
        if name not in known:
            raise ParameterError(f"--force: there is no step or pipeline {name!r}", suggest(name, known))
    return given
