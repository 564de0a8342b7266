"""Exposures of a detector that must be done in order of time: each leaves its windows of persistence to the next.

Every exposure writes its state into a file of its own, and reads that of the last one before it that has one. So an
exposure can be done again, other detectors run beside it, and one that fails hands on what it would have read. The
file that the user names is written by the process that leads, after each exposure.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jwstdask.core.plan import ExposurePlan, Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Linked:
    """The stages of an exposure that follows others of its detector.

    Attributes
    ----------
    plans
        One a stage.
    folder
        Where states are.
    group
        Number of the sequence.
    number
        Place in the sequence, from 1.
    reads
        Whether the exposure starts from the state that was left by those before.
    target
        File that the user names.
    """

    plans: tuple[ExposurePlan, ...]
    folder: str
    group: int
    number: int
    reads: bool
    target: str

    def path(self, number: int) -> str:
        """Path of the state after an exposure of the sequence; 0: before the first one."""
        return os.path.join(self.folder, f"{self.group}-{number}.asdf")

    def ready(self) -> tuple[list[ExposurePlan], int]:
        """The plans with the state to start from, and how many exposures before have left none."""
        names: dict[str, Any] = {"save_persistence": self.path(self.number)}
        lost = 0
        if self.reads:
            before = range(self.number - 1, -1, -1)
            found = next((number for number in before if os.path.exists(self.path(number))), None)
            names["persistence_array_file"] = None if found is None else self.path(found)
            lost = self.number - 1 - (found or 0)
        return [_with_parameters(plan, names) for plan in self.plans], lost


@dataclass
class Sequences:
    """Chains of plans in the order in which they may be done.

    Attributes
    ----------
    items
        Chains, those in a sequence as `Linked`.
    order
        Index that each item had in what was given.
    after
        Index of an item to that of the one that must be done before it.
    """

    items: list[Any]
    order: list[int]
    after: dict[int, int] = field(default_factory=dict)
    _merged: dict[int, int] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def done(self, index: int) -> None:
        """Put the state that an item left into the file that the user names."""
        item = self.items[index]
        if not isinstance(item, Linked) or not os.path.exists(item.path(item.number)):
            return
        from jwstdask.steps.detector.persistence import read_state, write_state

        detector = item.plans[0].detector
        with self._lock:
            if self._merged.get(item.group, 0) < item.number:
                self._merged[item.group] = item.number
                state = read_state(item.path(item.number), detector)
                if state is not None:
                    write_state(item.target, detector, state)


def saving(plan: ExposurePlan) -> Any:
    """The persistence step of a plan, if it saves its state."""
    steps: Any = (item.step for item in plan.active if item.step.alias == "persistence")
    return next((step for step in steps if step.save_persistence is not None), None)


def sequences(chains: Sequence[Sequence[ExposurePlan]], folder: str) -> Sequences:
    """Find out which exposures must follow others.

    Parameters
    ----------
    chains
        Plans of each exposure.
    folder
        Folder for states, that all workers see. It is made if it is needed.
    """
    steps = [next(filter(None, map(saving, chain)), None) for chain in chains]
    if not any(steps):
        return Sequences(list(chains), list(range(len(chains))))
    from jwstdask.steps.detector.persistence import read_state, write_state

    order = sorted(range(len(chains)), key=lambda index: (chains[index][0].start, chains[index][0].path))
    found = Sequences([], order)
    groups: dict[tuple[str, str], list[int]] = {}
    for place, index in enumerate(order):
        chain, step = chains[index], steps[index]
        if step is None:
            found.items.append(chain)
            continue
        os.makedirs(folder, exist_ok=True)
        target, detector = str(step.save_persistence), chain[0].detector
        members = groups.setdefault((target, detector), [])
        group = list(groups).index((target, detector))
        reads = step.persistence_array_file == target
        item = Linked(tuple(chain), folder, group, len(members) + 1, reads, target)
        if members:
            found.after[place] = members[-1]
        elif (state := read_state(target, detector)) is not None:
            write_state(item.path(0), detector, state)
        members.append(place)
        found.items.append(item)
    return found


def tell_lost(outcomes: Sequence[Outcome], lost: int) -> list[Outcome]:
    """Outcomes that say that exposures before have left no state."""
    if not lost:
        return list(outcomes)
    reason = f"{lost} exposure{'s' * (lost > 1)} of this detector before it failed: what saturated there is not flagged"
    log.warning("%s: persistence: %s", outcomes[0].path, reason)
    first, *rest = outcomes
    steps = tuple(replace(item, reason=reason) if item.name == "persistence" else item for item in first.steps)
    return [replace(first, steps=steps), *rest]


def _with_parameters(plan: ExposurePlan, names: Mapping[str, Any]) -> ExposurePlan:
    if saving(plan) is None:
        return plan
    steps = tuple(
        replace(item, step=replace(item.step, **names)) if item.step.alias == "persistence" else item
        for item in plan.steps
    )
    return replace(plan, steps=steps)
