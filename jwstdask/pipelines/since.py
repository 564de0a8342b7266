"""What has to be done again since an earlier run: other best references, other parameters, and what follows from them.

The earlier run is known by its journal and its replay records. Tasks are compared by what they do, not by versions of
code and libraries, so that a new context says which exposures it concerns, whatever else was installed meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jwstdask.core.errors import JwstdaskError, PlanError
from jwstdask.core.params import declared
from jwstdask.core.plan import ExposurePlan
from jwstdask.io.remote import absolute, join, present
from jwstdask.pipelines.plan_file import is_plan_file
from jwstdask.pipelines.program_plan import Combination, Combine, ProgramPlan, product_paths
from jwstdask.pipelines.resume import known_stamp
from jwstdask.program.content import glance
from jwstdask.program.journal import History, read_history
from jwstdask.program.record import Plan, input_paths, plain, read_record, record_path, reference_paths, task_name

_FOLDERS = frozenset(("output_dir", "input_dir", "save_persistence", "persistence_array_file", "bkg_list"))
"""Parameters that say where files are."""


@dataclass(frozen=True)
class Change:
    """Why a task is done again.

    Attributes
    ----------
    pipeline, path
        Of the task.
    references
        Step, type, earlier and present name of each reference that is another one.
    parameters
        Step, parameter, earlier and present value.
    reason
        If it is something else.
    """

    pipeline: str
    path: str
    references: tuple[tuple[str, str, str, str], ...] = ()
    parameters: tuple[tuple[str, str, Any, Any], ...] = ()
    reason: str = ""


@dataclass
class Since:
    """What is done again, and why.

    Attributes
    ----------
    folder
        Of the earlier run.
    changes
        One for each task.
    unchanged
        Number of tasks that are as they were.
    """

    folder: str
    changes: list[Change] = field(default_factory=list)
    unchanged: int = 0


class _Earlier:
    """The earlier run."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.history: History = read_history(folder)
        if not self.history.runs:
            raise PlanError(f"{folder} has no journal of a run", "give the output_dir of a whole program")

    def change(self, plan: Plan, home: str) -> Change | None:
        """Why a task is done again by itself; None if it is as it was."""
        state = self.history.tasks.get(task_name(plan, home))
        found = None if state is None else state.finished
        if found is None:
            failed = state is not None and state.reason
            return Change(plan.pipeline, plan.path, reason="failed in it" if failed else "was not done in it")
        try:
            before = read_record(record_path(plan, self.folder))["plan"]
            steps = {item["name"]: item for item in before["steps"]}
            references = (*_other_references(plan, steps), *_other_contents(plan, found))
            parameters = tuple(_other_parameters(plan, steps))
            touched = [path for path in input_paths(plan) if self._touched(path, found)]
        except (JwstdaskError, KeyError, TypeError, AttributeError, ValueError):
            return Change(plan.pipeline, plan.path, reason="its record cannot be read")
        if references or parameters:
            return Change(plan.pipeline, plan.path, references, parameters)
        if touched:
            return Change(plan.pipeline, plan.path, reason=f"{os.path.basename(touched[0])} has changed")
        if any(not self._there(entry[0]) for entry in found["products"].values()):
            return Change(plan.pipeline, plan.path, reason="a product of it is gone")
        return None

    def _there(self, name: str) -> bool:
        return present(join(self.folder, name))

    def _touched(self, path: str, found: Mapping[str, Any]) -> bool:
        """Whether an input is another one; products of the earlier run are judged by their own tasks."""
        seen = {os.path.abspath(name): facts for name, facts in found["inputs"].items()}.get(os.path.abspath(path))
        return seen is not None and path not in self.products and _differs(path, seen)

    @property
    def products(self) -> set[str]:
        """Paths of what the earlier run wrote."""
        if not hasattr(self, "_products"):
            self._products = {os.path.abspath(os.path.join(self.folder, name)) for name in self.history.written}
        return self._products

    def product(self, path: str) -> str:
        """Where the earlier run has the product of this name."""
        return join(self.folder, os.path.basename(path))


def _differs(path: str, seen: Sequence[Any]) -> bool:
    size, mtime, digest = seen
    if glance(path) == (size, mtime):
        return False
    try:
        return known_stamp(path).digest != digest
    except (JwstdaskError, OSError):
        # Whoever reads it will say so.
        return False


def _name(path: str | None) -> str:
    return "N/A" if path is None else os.path.basename(path)


def _other_references(plan: Plan, steps: Mapping[str, Any]) -> Iterable[tuple[str, str, str, str]]:
    for item in plan.active:
        before = steps.get(item.name, {}).get("references", {})
        for kind, path in item.references.items():
            if kind in before and _name(before[kind]) != _name(path):
                yield item.name, kind, _name(before[kind]), _name(path)


def _other_contents(plan: Plan, found: Mapping[str, Any]) -> Iterable[tuple[str, str, str, str]]:
    """References of the same name that hold something else."""
    seen = {os.path.basename(path): facts for path, facts in found["references"].items()}
    other = {path for path in reference_paths(plan) if _name(path) in seen and _differs(path, seen[_name(path)])}
    for item in plan.active:
        for kind, path in item.references.items():
            if path in other:
                yield item.name, kind, _name(path), f"{_name(path)} (other content)"


def _other_parameters(plan: Plan, steps: Mapping[str, Any]) -> Iterable[tuple[str, str, Any, Any]]:
    now = {item.name: item for item in plan.steps}
    for name, item in now.items():
        before = steps.get(name)
        was, is_ = before is not None and before["skip"] is None, item.skip is None
        if was != is_:
            yield name, "skip", not was, not is_
        elif was and before is not None:
            for parameter in declared(type(item.step)):
                value, old = plain(getattr(item.step, parameter)), before["parameters"].get(parameter)
                if parameter not in _FOLDERS and value != old:
                    yield name, parameter, old, value


def restrict(plan: ProgramPlan, folder: str, home: str) -> Since:
    """Leave in a plan what has to be done again since an earlier run.

    What is not done again stays where it is: later stages take it from the folder of the earlier run.

    Parameters
    ----------
    plan
        Of the whole program, Stage 3 foreseen; changed in place.
    folder
        Products of the earlier run, with its journal.
    home
        Folder of the products of the plan.

    Raises
    ------
    PlanError
        If there was no earlier run in the folder.
    """
    earlier = _Earlier(absolute(folder))
    since = Since(earlier.folder)
    chains: list[list[ExposurePlan]] = []
    made_again: set[str] = set()
    for chain in plan.chains:
        kept: list[ExposurePlan] = []
        for item in chain:
            change = earlier.change(item, home)
            if kept:
                follows = Change(item.pipeline, item.path, reason=f"follows from {kept[-1].pipeline}")
                change = follows if change is None or change.reason else change
            if change is None:
                since.unchanged += 1
                continue
            since.changes.append(change)
            if not kept and item is not chain[0]:
                moved = replace(item, path=earlier.product(item.path))
                if (item.pipeline, item.path) in plan.bases:
                    basis = plan.bases.pop((item.pipeline, item.path))
                    request = replace(basis.request, path=moved.path)
                    plan.bases[moved.pipeline, moved.path] = replace(basis, request=request)
                item = moved
            kept.append(item)
        if kept:
            chains.append(kept)
            made_again |= {os.path.basename(path) for item in kept for path in product_paths(item)}
        last = chain[-1]
        if not kept and "cal" in last.products and last.error is None:
            plan.metas.pop(last.products["cal"], None)
            plan.finished.append(earlier.product(last.products["cal"]))
    plan.chains = chains
    if plan.combine is not None:
        plan.combine = _Restricted(plan.combine, earlier, home, frozenset(made_again), since)
        plan.foresee()
    return since


@dataclass
class _Restricted:
    """Associations that have to be made again."""

    combine: Combine
    earlier: _Earlier
    home: str
    made_again: frozenset[str]
    since: Since
    mine: list[Change] = field(default_factory=list)
    unchanged: int = 0

    def __call__(self, calibrated: Sequence[str], metas: Mapping[str, Mapping[str, Any]]) -> list[Combination]:
        found = []
        # What was foreseen is found out once more when the members are there.
        self.since.changes = [change for change in self.since.changes if change not in self.mine]
        self.since.unchanged -= self.unchanged
        self.mine, self.unchanged = [], 0
        for item in self.combine(calibrated, metas):
            change = self.earlier.change(item.plan, self.home)
            members = [path for path in item.plan.members if os.path.basename(path) in self.made_again]
            if change is None and members:
                change = Change(
                    item.plan.pipeline, item.plan.path, reason=f"{len(members)} of its members are made again"
                )
            if change is None:
                self.unchanged += 1
                continue
            self.mine.append(change)
            found.append(item)
        self.since.changes += self.mine
        self.since.unchanged += self.unchanged
        return found


def lines(since: Since, verbose: bool = False) -> list[str]:
    """What has changed, for people: each pair of references once, with the number of tasks that it concerns."""
    found = [f"since {since.folder}: {len(since.changes)} tasks are done again, {since.unchanged} are as they were"]
    references: dict[tuple[str, str, str], list[Change]] = {}
    parameters: dict[tuple[str, str, str, str], list[Change]] = {}
    reasons: dict[tuple[str, str], list[Change]] = {}
    for change in since.changes:
        for _, kind, old, new in change.references:
            references.setdefault((kind, old, new), []).append(change)
        for step, name, before, after in change.parameters:
            parameters.setdefault((step, name, repr(before), repr(after)), []).append(change)
        if change.reason:
            about = change.reason if "member" not in change.reason else "members are made again"
            reasons.setdefault((change.pipeline, about), []).append(change)
    width = max((len(kind) for kind, _, _ in references), default=0)
    for (kind, old, new), changes in sorted(references.items()):
        found.append(f"  {kind:{width}} {old} -> {new}: {_count(changes)}")
        found += _names(changes, verbose)
    for (step, name, old, new), changes in sorted(parameters.items()):
        found.append(f"  {step}.{name} {old} -> {new}: {_count(changes)}")
        found += _names(changes, verbose)
    for (pipeline, reason), changes in reasons.items():
        found.append(f"  {pipeline}, {reason}: {_count(changes)}")
        found += _names(changes, verbose)
    return found


def _count(changes: Sequence[Change]) -> str:
    number = len({(change.pipeline, change.path) for change in changes})
    return f"{number} task{'s' * (number != 1)}"


def _names(changes: Sequence[Change], verbose: bool) -> list[str]:
    names = dict.fromkeys(os.path.basename(change.path) for change in changes)
    return [f"      {name}" for name in names] if verbose or len(names) <= 8 else []


def words_of(folder: str) -> tuple[list[str], str]:
    """The words of the command of the last run in a folder but for those of saved plans, and where it was given.

    Raises
    ------
    PlanError
        If there was none.
    """
    for run in reversed(read_history(folder).runs):
        words = [str(word) for word in run.get("command", ())]
        if words[:2] == ["jwstdask", "run"] and not any(map(is_plan_file, words)):
            return words[2:], str(run.get("cwd") or os.getcwd())
    raise PlanError(f"{folder} has no journal that tells its inputs", "give the inputs")


__all__ = ["Change", "Since", "lines", "restrict", "words_of"]
