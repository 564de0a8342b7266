"""Plans as JSON: what decides the pixels of a product, for telling whether it is up to date and for making it again."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from jwstdask import __version__
from jwstdask.core.errors import InputError
from jwstdask.core.plan import AssociationPlan, ExposurePlan, Outcome, StepPlan, StepRecord
from jwstdask.io.layout import read_bytes
from jwstdask.io.remote import is_url, join
from jwstdask.program.journal import FOLDER
from jwstdask.steps.registry import step_class

Plan = ExposurePlan | AssociationPlan

VERSION = 1
"""Of the layout of replay records."""

_CODE = ("core", "engine", "io", "kernels", "pipelines", "program", "refs", "steps", "wcs")
"""Packages on which pixels may depend."""
_LIBRARIES = (
    "asdf",
    "astropy",
    "crds",
    "drizzle",
    "gwcs",
    "numba",
    "numpy",
    "photutils",
    "scikit-image",
    "scipy",
    "spherical-geometry",
    "stdatamodels",
    "tweakwcs",
)
_MOST_WARNINGS, _LONGEST = 20, 400
"""Warnings of a task that the journal keeps, and characters of each; the log of the exposure has all."""
_TRACE_LINES, _LONGEST_TRACE = 30, 4_000
"""The end of a traceback that the journal keeps."""
_CONTEXT = "meta.ref_file.crds.context_used"


@functools.cache
def code_digest() -> str:
    """Of the source of this package, as far as pixels may depend on it."""
    root = Path(__file__).parent.parent
    found = hashlib.blake2b(digest_size=8)
    for package in _CODE:
        for path in sorted((root / package).rglob("*.py")):
            found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("jwstdask", __version__), ("code", code_digest()), ("python", platform.python_version())]
    for name in _LIBRARIES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append((name, ""))
    return tuple(found)


def versions() -> dict[str, str]:
    """Versions of this package, its source, and the libraries on which pixels depend."""
    return dict(_versions())


_PLAIN = frozenset((type(None), bool, int, float, str))


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, bool | int | float | str):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return repr(value)


def _frozen(value: Any) -> Any:
    """The opposite of `plain`, for parameters: lists were tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def task_name(plan: Plan, folder: str) -> str:
    """Name of a task: pipeline and first product, which stays the same from run to run."""
    first = next(iter(all_products(plan).values()), plan.path)
    return f"{plan.pipeline} {within(first, folder)}"


def within(path: str, folder: str) -> str:
    """A path relative to the folder, if it is in it."""
    if is_url(path):
        return path.removeprefix(f"{folder.rstrip('/')}/")
    absolute = os.path.abspath(path)
    return os.path.relpath(absolute, folder) if absolute.startswith(os.path.join(folder, "")) else absolute


def all_products(plan: Plan) -> dict[str, str]:
    """Kind of product to path, of everything that a plan may write."""
    found = dict(plan.products)
    if isinstance(plan, ExposurePlan):
        return found | {f"after:{name}": path for name, path in plan.taps.items()}
    for name, paths in plan.member_products.items():
        found |= {f"after:{name}:{index}": path for index, path in enumerate(paths)}
    return found


def input_paths(plan: Plan) -> list[str]:
    """Files whose content a plan takes: exposures, and files named by parameters."""
    if isinstance(plan, ExposurePlan):
        found = [plan.path, *(path for paths in plan.members.values() for path in paths)]
    else:
        found = list(plan.members)
    for item in plan.active:
        # The state of persistence is handed on within a run.
        if item.step.alias != "persistence":
            found += [value for value in _texts(vars(item.step)) if os.path.isfile(value)]
    return list(dict.fromkeys(found))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "." in value:
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def reference_paths(plan: Plan) -> list[str]:
    """Reference files that a plan reads."""
    return list(dict.fromkeys(path for item in plan.active for path in item.references.values() if path))


def recipe(plan: Plan) -> str:
    """Digest of all that decides the products of a plan, but for the content of inputs and references.

    Parameters of steps that do not run, the folder, and the name of the CRDS context do not count.
    """
    found = plan_json(plan)
    for item in found["steps"]:
        item.pop("origins")
        item["references"] = {kind: path and os.path.basename(path) for kind, path in item["references"].items()}
        if item["skip"] is not None:
            item["skip"], item["parameters"], item["references"] = True, {}, {}
        if item["alias"] == "persistence":
            for name in ("save_persistence", "persistence_array_file"):
                item["parameters"].pop(name, None)
    for name in ("context", "path"):
        found.pop(name, None)
    found["updates"].pop(_CONTEXT, None)
    found["members"] = _names(found["members"])
    for name in ("products", "taps", "member_products", "intermediate"):
        found[name] = _names(found.get(name) or {})
    text = json.dumps([found, versions()], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _names(value: Any) -> Any:
    """File names of all paths."""
    if isinstance(value, Mapping):
        return {name: _names(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_names(item) for item in value]
    return os.path.basename(value)


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as JSON; see `plan_of`."""
    found = {name: plain(getattr(plan, name)) for name in _fields(type(plan)) if name not in ("steps", "cost", "error")}
    found["kind"] = "exposure" if isinstance(plan, ExposurePlan) else "association"
    found["steps"] = [
        {
            "name": item.name,
            "alias": item.step.alias,
            "skip": item.skip,
            "parameters": {name: plain(getattr(item.step, name)) for name in _fields(type(item.step))},
            "origins": dict(item.origins),
            "references": dict(item.references),
            "recorded": item.recorded,
        }
        for item in plan.steps
    ]
    return found


@functools.cache
def _fields(cls: type) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(cls))


def plan_of(found: Mapping[str, Any]) -> Plan:
    """The plan that `plan_json` was made of, but for its predicted cost."""
    steps = tuple(
        StepPlan(
            item["name"],
            step_class(item["alias"])(**{name: _frozen(value) for name, value in item["parameters"].items()}),
            item["skip"],
            dict(item["references"]),
            dict(item["origins"]),
            item["recorded"],
        )
        for item in found["steps"]
    )
    cls: Any = ExposurePlan if found["kind"] == "exposure" else AssociationPlan
    names = {item.name for item in dataclasses.fields(cls)} - {"steps", "cost", "error"}
    values = {name: _frozen(value) for name, value in found.items() if name in names}
    for name in ("members", "member_products", "intermediate"):
        if isinstance(values.get(name), dict):
            values[name] = {kind: _frozen(paths) for kind, paths in values[name].items()}
    return cls(steps=steps, **values)


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON, without its products."""
    return {
        "path": outcome.path,
        "pipeline": outcome.pipeline,
        "steps": [[item.name, item.status, item.reason, round(item.seconds, 4)] for item in outcome.steps],
        "wall": round(outcome.wall, 3),
        "cpu": round(outcome.cpu, 3),
        "memory": outcome.memory,
        "census": plain(outcome.census),
        "warnings": [[step, text[:_LONGEST], count] for step, text, count in outcome.warnings[:_MOST_WARNINGS]],
        "worker": outcome.worker,
        "started": round(outcome.started, 3),
    }


def failure_json(outcome: Outcome) -> dict[str, Any]:
    """What is told of a failure."""
    trace = "\n".join(outcome.traceback.rstrip().splitlines()[-_TRACE_LINES:])
    found = {name: value for name, value in outcome_json(outcome).items() if name not in ("path", "pipeline")}
    return {**found, "reason": outcome.error, "trace": trace[-_LONGEST_TRACE:]}


def settings_json(plan: Plan) -> dict[str, Any]:
    """What a plan does, but for names of files that are its own: equal for most exposures of a program.

    Returns
    -------
    settings
        ``pipeline``, ``context``, ``exp_type``, and ``steps`` with ``name``, ``skip`` (reason or None), ``parameters``
        (those that are no defaults: name to value and origin) and ``references`` (type to name).
    """
    steps = []
    for item in plan.steps:
        given = {}
        for name, default in _defaults(type(item.step)).items():
            value = getattr(item.step, name)
            if name in item.origins and value != default:
                given[name] = [plain(value), item.origins[name]]
        references = {kind: path and os.path.basename(path) for kind, path in item.references.items()}
        steps.append({"name": item.name, "skip": item.skip, "parameters": given, "references": references})
    exp_type = plan.exp_type if isinstance(plan, ExposurePlan) else ""
    return {"pipeline": plan.pipeline, "context": plan.context, "exp_type": exp_type, "steps": steps}


@functools.cache
def _defaults(cls: type) -> dict[str, Any]:
    return dict(vars(cls()))


def outcome_of(found: Mapping[str, Any], products: Mapping[str, str]) -> Outcome:
    """The outcome that `outcome_json` was made of."""
    return Outcome(
        found["path"],
        found["pipeline"],
        dict(products),
        tuple(StepRecord(*item) for item in found["steps"]),
        wall=found["wall"],
        cpu=found["cpu"],
        memory=found["memory"],
        census=found["census"],
        warnings=tuple((step, text, count) for step, text, count in found.get("warnings", ())),
        worker=found.get("worker", ""),
        started=found.get("started", 0.0),
    )


def record_path(plan: Plan, folder: str) -> str:
    """Where the replay record of a plan is kept."""
    first = next(iter(all_products(plan).values()), plan.path)
    stem = os.path.basename(first)
    return join(folder, f"{FOLDER}/records/{stem.removesuffix('.fits')}.json")


def read_record(path: str) -> dict[str, Any]:
    """A replay record; that of a product, too.

    Raises
    ------
    InputError
        If there is none, or none that this version understands.
    """
    if not path.endswith(".json"):
        path = _record_of_product(path)
    try:
        found = json.loads(read_bytes(path) if is_url(path) else Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "correct the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"this is no replay record ({error})", "give a file of .jwstdask/records") from error
    if not isinstance(found, dict) or "replay" not in found or not isinstance(found.get("plan"), dict):
        raise InputError(path, "this is no replay record", "give a file of .jwstdask/records")
    if found["replay"] != VERSION:
        raise InputError(
            path, f"it has version {found['replay']}, this program knows {VERSION}", "use the version that wrote it"
        )
    return {**found, "file": path if is_url(path) else os.path.abspath(path)}


def _record_of_product(path: str) -> str:
    if is_url(path):
        folder, _, name = path.rpartition("/")
        return join(folder, f"{FOLDER}/records/{name.removesuffix('.fits')}.json")
    folder, name = os.path.split(os.path.abspath(path))
    place = os.path.join(folder, FOLDER, "records")
    direct = os.path.join(place, f"{name.removesuffix('.fits')}.json")
    if os.path.exists(direct):
        return direct
    for record in sorted(Path(place).glob("*.json")):
        if f'"{name}"' in record.read_text(encoding="utf-8"):
            return str(record)
    raise InputError(path, f"there is no record of it in {place}", "give a product of a whole program, or a record")


__all__: Sequence[str] = [
    "Plan",
    "all_products",
    "code_digest",
    "failure_json",
    "input_paths",
    "outcome_json",
    "outcome_of",
    "plan_json",
    "plan_of",
    "read_record",
    "recipe",
    "record_path",
    "reference_paths",
    "settings_json",
    "task_name",
    "versions",
    "within",
]
