"""Making a product again from its replay record, and telling whether it is the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jwstdask.core.errors import InputError
from jwstdask.core.plan import AssociationPlan, ExposurePlan, Outcome, StepPlan
from jwstdask.engine.association import run_association
from jwstdask.engine.executor import Executor
from jwstdask.engine.exposure import run_exposure
from jwstdask.io.naming import file_name
from jwstdask.io.remote import join
from jwstdask.program.content import parts, stamp
from jwstdask.program.record import Plan, all_products, plan_of, versions

_WRITTEN = ("output_file", "save_persistence")
"""Parameters that name files to be written; so do those that end with ``_path``, ..."""

_READ = ("msa_metadata_path",)
"""... but for these."""


@dataclass
class Replay:
    """What became of a replay.

    Attributes
    ----------
    outcome
        Of the work.
    notes
        What is not as it was: versions, inputs, references.
    differences
        Product name to its parts that differ (``header``, names of HDUs, ``missing``); empty if they are the same.
    compared
        Names of the products that were compared.
    """

    outcome: Outcome
    notes: list[str] = field(default_factory=list)
    differences: dict[str, list[str]] = field(default_factory=dict)
    compared: list[str] = field(default_factory=list)


def prepared(record: Mapping[str, Any], folder: str) -> tuple[Plan, list[str]]:
    """What a replay will do, and what is not as it was.

    Whatever the record says, files are written in the folder only.

    Parameters
    ----------
    record
        See `jwstdask.program.record.read_record`.
    folder
        Where the products go.

    Raises
    ------
    InputError
        If an input or a reference is not to be found, or the record is damaged.
    """
    try:
        return _prepared(record, folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            str(record.get("file", "record")),
            f"the record is damaged ({type(error).__name__}: {error})",
            "make the product again with `jwstdask run`",
        ) from error


def _prepared(record: Mapping[str, Any], folder: str) -> tuple[Plan, list[str]]:
    home = os.path.dirname(os.path.dirname(os.path.dirname(record.get("file", ""))))
    notes = [
        f"{name} was {record['versions'].get(name) or 'absent'}, is {now or 'absent'}"
        for name, now in versions().items()
        if record["versions"].get(name) != now
    ]
    plan = plan_of(record["plan"])
    places = {path: _found(path, home, notes, facts) for path, facts in record["inputs"].items()}
    references = {path: _reference(path, notes, facts) for path, facts in record["references"].items()}
    return _moved(plan, places, references, folder), notes


def replay(record: Mapping[str, Any], folder: str, executor: Executor) -> Replay:
    """Repeat the work of a record.

    Parameters
    ----------
    record, folder
        See `prepared`.
    executor
        Where it runs.

    Raises
    ------
    InputError
        See `prepared`.
    """
    plan, notes = prepared(record, folder)
    if isinstance(plan, AssociationPlan):
        outcome = run_association(plan, executor)
    else:
        outcome = run_exposure(plan, executor)
    result = Replay(outcome, notes)
    if outcome.error is not None:
        return result
    made = {**all_products(plan), **outcome.products}
    for kind, facts in record["products"].items():
        name = os.path.basename(facts["path"])
        result.compared.append(name)
        path = made.get(kind, "")
        found = parts(path) if os.path.exists(path) else {"missing": ""}
        differing = [part for part in sorted({*found, *facts["parts"]}) if found.get(part) != facts["parts"].get(part)]
        if "missing" in found:
            differing = ["missing"]
        if differing:
            result.differences[name] = differing
    return result


def _found(path: str, home: str, notes: list[str], facts: Mapping[str, Any]) -> str:
    """Where an input is now: in its place, or in the folder of the products."""
    for place in (path, os.path.join(home, os.path.basename(path))):
        if "://" in place or os.path.exists(place):
            _compare(place, notes, facts)
            return place
    raise InputError(path, "this input is no more", f"put it back, or into {home}")


def _reference(path: str, notes: list[str], facts: Mapping[str, Any]) -> str:
    from jwstdask.refs.crds import reference_path

    place = path if os.path.exists(path) else reference_path(os.path.basename(path))[0]
    if not os.path.exists(place):
        raise InputError(path, "this reference is no more", "fetch it with crds sync, or `jwstdask refs sync`")
    _compare(place, notes, facts)
    return place


def _compare(path: str, notes: list[str], facts: Mapping[str, Any]) -> None:
    if stamp(path).digest != facts["digest"]:
        notes.append(f"{path} has changed since")


def _moved(plan: Plan, inputs: Mapping[str, str], references: Mapping[str, str], folder: str) -> Plan:
    """The plan with inputs and references where they are, and products where they shall go."""
    homes = {os.path.dirname(path) for path in all_products(plan).values()}

    def there(path: str) -> str:
        return join(folder, file_name(os.path.basename(path), "replay record"))

    def all_there(paths: Mapping[str, Any]) -> dict[str, Any]:
        return {kind: there(path) if isinstance(path, str) else tuple(map(there, path)) for kind, path in paths.items()}

    def parameter(name: str, value: Any) -> Any:
        if name == "output_dir":
            return None if value is None else folder
        if isinstance(value, str) and (name in _WRITTEN or (name.endswith("_path") and name not in _READ)):
            return there(value)
        if isinstance(value, str) and value in inputs:
            return inputs[value]
        return (
            there(value)
            if isinstance(value, str) and "." in value and os.path.dirname(value) in homes - {""}
            else value
        )

    def moved(item: StepPlan) -> StepPlan:
        changed = {name: parameter(name, value) for name, value in vars(item.step).items()}
        changed = {name: value for name, value in changed.items() if value != getattr(item.step, name)}
        step = replace(item.step, **changed) if changed else item.step
        paths = {kind: path and references.get(path, path) for kind, path in item.references.items()}
        return replace(item, step=step, references=paths)

    steps = tuple(map(moved, plan.steps))
    if isinstance(plan, ExposurePlan):
        return replace(
            plan,
            path=inputs.get(plan.path, plan.path),
            members={kind: tuple(inputs.get(path, path) for path in paths) for kind, paths in plan.members.items()},
            steps=steps,
            products=all_there(plan.products),
            taps=all_there(plan.taps),
        )
    return replace(
        plan,
        members=tuple(inputs.get(path, path) for path in plan.members),
        steps=steps,
        products=all_there(plan.products),
        member_products=all_there(plan.member_products),
        intermediate=all_there(plan.intermediate),
    )
