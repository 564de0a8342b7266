"""Plans as files: what will be done, to be looked at, changed, and done by ``jwstdask run``.

A plan is YAML (or JSON, by its name) of plain values. Exposures that are done alike share a way: pipeline, parameters
by their origin, and references. When a plan is read it is made anew from the headers, with its parameters in place of
all others and the references that it names, so that everything is checked as on the command line; it is then what the
same words gave when the plan was saved, but for what was changed in it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from jwstdask import __version__
from jwstdask.core.errors import InputError, JwstdaskError, ParameterError, ProductError
from jwstdask.core.params import suggest
from jwstdask.core.pipeline import Pipeline
from jwstdask.core.plan import AssociationPlan, ExposurePlan, StepPlan
from jwstdask.core.settings import Layer, Settings
from jwstdask.engine.readers import in_parallel
from jwstdask.io.remote import absolute, is_url, present
from jwstdask.io.temporary import replacing
from jwstdask.pipelines.associate import plan_association
from jwstdask.pipelines.configure import Configured, check_layers, refuse_hooks, step_names
from jwstdask.pipelines.planner import Draft, Request, plan_exposures
from jwstdask.pipelines.program_plan import Basis, Combination, ProgramPlan, foreseen, one_writer, second_request
from jwstdask.pipelines.registry import find
from jwstdask.program.associations import Association, Product
from jwstdask.program.record import all_products, plain

VERSION = 1
"""Of the layout of plan files."""

_KEY = "jwstdask_plan"
_OVERRIDE = "override_"
_NOT_APPLICABLE = "N/A"

_HEAD = """\
# A plan of jwstdask: `jwstdask run THIS_FILE` does it, `jwstdask plan THIS_FILE` shows it.
# Exposures, associations and members may be taken out. Parameters stand by origin, under any name; what is not named
# has its default (`jwstdask explain STEP`). References are names in the CRDS cache, paths, or N/A. An exposure may be
# done another way: copy a way under a new number and name it there. Products and what is skipped follow from the rest.
"""

_END = "complete"
"""The last entry: a plan without it has been cut off, and would do less than was planned."""
_REMEDY = "make the plan again with `jwstdask plan INPUTS --output FILE`"

_TOP = (_KEY, "jwstdask", "made", "context", "output_dir", "ways", "exposures", "associations", _END)
_WAY = ("pipeline", "exposure_type", "branch", "parameters", "steps")
_STEP = ("parameters", "references", "skipped")
_EXPOSURE = ("path", "bytes", "mtime", "header", "ways", "members", "product", "updates", "products")
_ASSOCIATION = ("name", "way", "file", "type", "id", "pool", "members", "products")
_MEMBER = ("path", "type", "group_id", "tweakreg_catalog")


def is_plan_file(path: str) -> bool:
    """Whether a file is a plan, by its name or, for JSON, its first lines."""
    if path.endswith((".yaml", ".yml")):
        return True
    if not path.endswith(".json") or is_url(path):
        return False
    try:
        with open(path, encoding="utf-8") as file:
            return f'"{_KEY}"' in file.read(1000)
    except (OSError, UnicodeDecodeError):
        return False


# ----------------------------------------------------------------------------------------------------------------------
# Writing


def save_plan(path: str | os.PathLike[str], plan: ProgramPlan, context: str, output_dir: str | None) -> int:
    """Write a plan whose bases are known (``plan_program(..., foresee=True)``).

    Parameters
    ----------
    path
        File, ``.yaml`` or ``.json``.
    plan
        The plan. Exposures with errors are left out.
    context
        CRDS context.
    output_dir
        Folder of the products; None for that of each.

    Returns
    -------
    count
        Exposures and associations that are left out.

    Raises
    ------
    ParameterError
        If the name of the file says no format.
    ProductError
        If it cannot be written.
    """
    path = os.fspath(path)
    if not path.endswith((".yaml", ".yml", ".json")):
        raise ParameterError(f"{path}: a plan is a .yaml or a .json file", "name it so")
    tree = plan_tree(plan, context, output_dir)
    text = json.dumps(tree, indent=1) + "\n" if path.endswith(".json") else _HEAD + _yaml(tree)
    try:
        with replacing(path) as temporary:
            Path(temporary).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProductError(path, f"cannot be written ({error.strerror})", "give another folder") from None
    whole = len(plan.chains) + len(plan.finished) + len(plan.combinations)
    return whole - len(tree["exposures"]) - len(tree["associations"])


def _yaml(tree: Mapping[str, Any]) -> str:
    """The tree as YAML: a line an exposure and a member, whatever their number."""
    import yaml

    def block(value: Any) -> str:
        return yaml.safe_dump(value, sort_keys=False, width=120, default_flow_style=False, allow_unicode=True)

    # JSON is YAML: each exposure, and each member, is a line.
    lines = [block({name: value for name, value in tree.items() if name not in ("exposures", "associations", _END)})]
    lines.append("exposures:\n" + "".join(f"- {json.dumps(item)}\n" for item in tree["exposures"]))
    lines.append("associations:\n" if tree["associations"] else "associations: []\n")
    for item in tree["associations"]:
        rest = {name: value for name, value in item.items() if name != "members"}
        text = "".join(f"  {line}\n" for line in block(rest).splitlines())
        lines.append(f"-{text[1:]}  members:\n" + "".join(f"  - {json.dumps(member)}\n" for member in item["members"]))
    return "".join([*lines, f"{_END}: true\n"])


def plan_tree(plan: ProgramPlan, context: str, output_dir: str | None) -> dict[str, Any]:
    """A plan as plain values."""
    ways = _Ways()
    good = [[item for item in chain if item.error is None] for chain in plan.chains]
    exposures = [_exposure(chain, plan.bases, ways) for chain in good if chain]
    exposures += [{"path": _absolute(path), "ways": []} for path in plan.finished]
    mtimes = in_parallel(_mtime, [item["path"] for item in exposures])
    for item, mtime in zip(exposures, mtimes, strict=True):
        if mtime is not None:
            item["mtime"] = mtime
    return {
        _KEY: VERSION,
        "jwstdask": __version__,
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "context": context,
        "output_dir": None if output_dir is None else _absolute(output_dir),
        "ways": ways.found,
        "exposures": exposures,
        "associations": [_association(item, ways) for item in plan.combinations if item.configured is not None],
        _END: True,
    }


def _absolute(path: str) -> str:
    return absolute(os.path.expandvars(os.path.expanduser(path)))


def _mtime(path: str) -> int | None:
    """Time of the last change [ns]; None for what is in no file system."""
    try:
        return None if is_url(path) else os.stat(path).st_mtime_ns
    except OSError:
        return None


@dataclass
class _Ways:
    """Ways by number, each once."""

    found: dict[int, dict[str, Any]] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, plan: ExposurePlan | AssociationPlan, configured: Configured) -> int:
        way = _way(plan, configured)
        number = self._numbers.setdefault(json.dumps(way, sort_keys=True), len(self._numbers) + 1)
        self.found.setdefault(number, way)
        return number


def _way(plan: ExposurePlan | AssociationPlan, configured: Configured) -> dict[str, Any]:
    target = find(plan.pipeline)
    way: dict[str, Any] = {"pipeline": plan.pipeline}
    if isinstance(plan, ExposurePlan):
        way["exposure_type"] = plan.exp_type
    if plan.branch:
        way["branch"] = plan.branch
    own = _by_origin(configured.parameters, configured.origins)
    if not issubclass(target, Pipeline) or plan.pipeline == "calwebb_dark":
        # Their products are named after what a parameter reference calls them.
        suffix = configured.name.lower()
        if configured.parameters.suffix is None and suffix != target.class_name.lower():  # type: ignore[attr-defined]
            own.setdefault("name", {})["suffix"] = suffix
    if own:
        way["parameters"] = own
    steps = {}
    for item in plan.steps:
        entry: dict[str, Any] = {}
        if item.skip is not None:
            entry["skipped"] = item.skip
        if issubclass(target, Pipeline):
            values = _by_origin(configured.steps[item.name], item.origins)
            if values:
                entry["parameters"] = values
        if item.references:
            entry["references"] = _references(item, configured)
        steps[item.name] = entry
    way["steps"] = steps
    return way


def _by_origin(parameters: Any, origins: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, origin in origins.items():
        found.setdefault(origin, {})[name] = plain(getattr(parameters, name))
    return found


def _references(item: StepPlan, configured: Configured) -> dict[str, str]:
    """Names of references in the CRDS cache, paths of those that the user gave."""
    own = configured.overrides.get(item.name, {})
    return {
        kind: _NOT_APPLICABLE if path is None else path if kind in own else os.path.basename(path)
        for kind, path in item.references.items()
    }


def _exposure(chain: Sequence[ExposurePlan], bases: Mapping[tuple[str, str], Basis], ways: _Ways) -> dict[str, Any]:
    first = bases[chain[0].pipeline, chain[0].path]
    found: dict[str, Any] = {"path": _absolute(chain[0].path)}
    if first.digest:
        found |= {"bytes": first.size, "header": first.digest}
    numbers = []
    for item in chain:
        configured = bases[item.pipeline, item.path].configured
        assert configured is not None
        numbers.append(ways.number(item, configured))
    found["ways"] = numbers
    request = first.request
    if request.members:
        found["members"] = {kind: [_absolute(path) for path in paths] for kind, paths in request.members.items()}
    if request.product is not None:
        found["product"] = request.product
    if request.updates:
        found["updates"] = plain(request.updates)
    found["products"] = [os.path.basename(path) for item in chain for path in all_products(item).values()]
    return found


def _association(item: Combination, ways: _Ways) -> dict[str, Any]:
    source, plan = item.source, item.plan
    assert item.configured is not None
    product = source.products[0]
    return {
        "name": product.name,
        "way": ways.number(plan, item.configured),
        "file": source.path,
        "type": source.asn_type,
        "id": source.asn_id,
        "pool": source.pool,
        "products": [os.path.basename(path) for path in all_products(plan).values()],
        "members": [
            {"path": _absolute(path), "type": kind, **product.attributes.get(path, {})}
            for path, kind in product.members
        ],
    }


# ----------------------------------------------------------------------------------------------------------------------
# Reading


@dataclass(frozen=True)
class PlanFile:
    """A plan that was read.

    Attributes
    ----------
    path
        The file.
    tree
        What is in it; see `read_plan`.
    requests
        Number of a way to the request with its parameters.
    """

    path: str
    tree: Mapping[str, Any]
    requests: Mapping[int, tuple[type, Settings]]

    @property
    def context(self) -> str:
        return str(self.tree["context"])

    @property
    def output_dir(self) -> str | None:
        return self.tree.get("output_dir")


def read_plan(path: str | os.PathLike[str], output_dir: str | None = None) -> PlanFile:
    """Read a plan and check everything that headers are not needed for.

    Parameters
    ----------
    path
        The file.
    output_dir
        Folder of the products, in place of that in the file.

    Raises
    ------
    InputError
        If it is no plan, or of another version of the format.
    ParameterError
        If a name or value in it is wrong; with the nearest right name.
    """
    path = os.fspath(path)
    tree = _load(path)
    if output_dir is not None:
        tree["output_dir"] = output_dir
    requests = {}
    for number, way in tree["ways"].items():
        where = f"{os.path.basename(path)}, way {number}"
        target = _target(way, where)
        settings = Settings(
            _layers(target, way, where), parameter_references=False, context=str(tree["context"]) or None
        )
        settings = replace(settings, output_dir=tree.get("output_dir"))
        check_layers(target, (*settings.layers, *_reference_layers(target, way, where)))
        refuse_hooks(settings.layers)
        requests[number] = target, settings
    for kind in ("exposures", "associations"):
        for entry in tree[kind]:
            numbers = entry["ways"] if kind == "exposures" else [entry["way"]]
            for number in numbers:
                if number not in requests:
                    name = entry.get("path") or entry.get("name")
                    known = ", ".join(map(str, requests))
                    raise ParameterError(f"{path}: {name}: there is no way {number!r}", f"There are {known}.")
    if tree.get(_END) is not True:
        raise InputError(path, f"is cut off: its last entry, `{_END}: true`, is missing", _REMEDY)
    return PlanFile(path, tree, requests)


def _load(path: str) -> dict[str, Any]:
    """The tree of a plan file: plain values only; nothing in it can call anything."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read ({error})", "correct the path") from None
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        tree = json.loads(text) if path.endswith(".json") else yaml.load(text, loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(path, f"is no plan: {' '.join(str(error).split())}", _REMEDY) from None
    if not isinstance(tree, dict) or _KEY not in tree:
        raise InputError(path, f"is no plan: it has no line {_KEY}", _REMEDY)
    if tree[_KEY] != VERSION:
        made = tree.get("jwstdask", "another version")
        raise InputError(
            path,
            f"has version {tree[_KEY]!r} of the format, this program knows {VERSION} (made by jwstdask {made})",
            _REMEDY,
        )
    try:
        return _checked(tree, path)
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise InputError(path, f"is no plan: {type(error).__name__}: {error}", _REMEDY) from None


def _checked(tree: dict[str, Any], path: str) -> dict[str, Any]:
    """The tree, if it has the shape of a plan; what may be left out is filled in."""
    _names(tree, _TOP, path)
    tree["context"] = str(tree.get("context") or "")
    output_dir = tree.get("output_dir")
    tree["output_dir"] = None if output_dir is None else _text(output_dir)
    ways = tree.get("ways") or {}
    tree["ways"] = {int(number): way for number, way in ways.items()}
    for number, way in tree["ways"].items():
        _names(way, _WAY, f"{path}: way {number}")
        _mapping(way, "parameters")
        for name, step in _mapping(way, "steps").items():
            step = way["steps"][name] = step or {}
            _names(step, _STEP, f"{path}: way {number}, {name}")
            _mapping(step, "parameters")
            _mapping(step, "references")
    tree["exposures"] = list(tree.get("exposures") or ())
    tree["associations"] = list(tree.get("associations") or ())
    for item in tree["exposures"]:
        _names(item, _EXPOSURE, f"{path}: exposures")
        _text(item["path"])
        item["ways"] = [int(number) for number in item.get("ways") or ()]
    for item in tree["associations"]:
        _names(item, _ASSOCIATION, f"{path}: associations")
        _text(item["name"])
        item["way"] = int(item["way"])
        item["members"] = list(item.get("members") or ())
        for member in item["members"]:
            _names(member, _MEMBER, f"{path}: members of {item['name']}")
            _text(member["path"])
    return tree


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _mapping(parent: dict[str, Any], name: str) -> dict[str, Any]:
    found = parent.get(name) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{name} is no mapping")
    parent[name] = found
    return found


def _names(found: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = list(known)
    for name in found:
        if name not in known:
            raise ParameterError(f"{where}: there is no entry {name!r}", suggest(str(name), known))


def _target(way: Mapping[str, Any], where: str) -> type:
    try:
        return find(str(way.get("pipeline")))
    except JwstdaskError as error:
        raise ParameterError(f"{error.message} ({where})", error.remedy) from None


def _layers(target: type, way: Mapping[str, Any], where: str) -> tuple[Layer, ...]:
    """Parameters, by their origin; each tells that it came by the plan."""
    found = [Layer(f"{origin}; {where}", _values(values, where)) for origin, values in way["parameters"].items()]
    for name, step in way["steps"].items():
        found += [
            Layer(f"{origin}; {where}", {}, {name: _values(values, where)})
            for origin, values in step["parameters"].items()
        ]
        if name not in step_names(target):
            raise ParameterError(f"{way['pipeline']} has no step {name!r} ({where})", suggest(name, step_names(target)))
    return tuple(found)


def _values(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ParameterError(
            f"{where}: parameters stand under their origin, not {values!r}", "Write `mine: {NAME: VALUE}`."
        )
    return values


def _reference_layers(target: type, way: Mapping[str, Any], where: str, names: Any = None) -> list[Layer]:
    """References of a way as parameters ``override_``: all, or those that are wanted."""
    found = []
    for name, step in way["steps"].items():
        values = {
            f"{_OVERRIDE}{kind}": _place(str(value))
            for kind, value in step["references"].items()
            if names is None or (name, kind) in names
        }
        if values:
            found.append(Layer(where, {}, {name: values}) if issubclass(target, Pipeline) else Layer(where, values))
    return found


def _place(name: str) -> str:
    """A bare name is one of the CRDS cache."""
    return name if name == _NOT_APPLICABLE or os.path.dirname(name) or os.path.exists(name) else f"crds://{name}"


def plan_of_file(found: PlanFile, min_members: int | None = None) -> ProgramPlan:
    """Plans of everything in a plan file, from the headers as they are now.

    What has changed since the plan was made is an error of its exposure where the headers have, a note where only the
    time of the last change has.
    """
    tree = found.tree
    plan = ProgramPlan()
    entries = [item for item in tree["exposures"] if item["ways"]]
    plan.finished = [item["path"] for item in tree["exposures"] if not item["ways"]]
    chains: list[list[ExposurePlan]] = [[] for _ in entries]
    waiting: dict[int, Request] = {index: _request(item) for index, item in enumerate(entries)}
    stage = 0
    while waiting:
        here = {index: entries[index]["ways"][stage] for index in waiting}
        drafts: dict[int, Draft] = {}
        for number in sorted(set(here.values())):
            indices = [index for index, way in here.items() if way == number]
            requests = [waiting[index] for index in indices]
            for index, item, draft in _plans(found, number, indices, requests):
                chains[index].append(_unchanged(item, draft, entries[index], found.path) if stage == 0 else item)
                drafts[index] = draft
                plan.bases[item.pipeline, item.path] = Basis.of(draft)
        stage += 1
        waiting = {
            index: request
            for index in waiting
            if stage < len(entries[index]["ways"])
            and (request := second_request(chains[index][-1], drafts[index].meta)) is not None
        }
        for index, draft in drafts.items():
            if stage >= len(entries[index]["ways"]):
                foreseen(plan.metas, chains[index][-1], draft.meta)
    plan.chains = one_writer(chains)
    plan.notes = tuple(_notes(found, entries, plan.chains))
    if tree["associations"]:
        plan.combine = partial(_combined, found, min_members)
        plan.foresee()
    return plan


def _request(entry: Mapping[str, Any]) -> Request:
    members = {kind: tuple(paths) for kind, paths in (entry.get("members") or {}).items()}
    return Request(entry["path"], members, entry.get("product"), entry.get("updates") or {})


def _plans(
    found: PlanFile, number: int, indices: Sequence[int], requests: Sequence[Request]
) -> Iterable[tuple[int, ExposurePlan, Draft]]:
    """Plans of exposures in one way; those whose references were changed in the file with these."""
    target, settings = found.requests[number]
    way = found.tree["ways"][number]
    drafts: list[Draft] = []
    plans = plan_exposures(target, requests, settings, drafts)
    changed: dict[frozenset[tuple[str, str]], list[int]] = {}
    for place, item in enumerate(plans):
        names = frozenset(_changed(way, item.steps))
        if names:
            changed.setdefault(names, []).append(place)
    for names, places in changed.items():
        where = f"{os.path.basename(found.path)}, way {number}"
        layers = (*settings.layers, *_reference_layers(target, way, where, names))
        again: list[Draft] = []
        replanned = plan_exposures(
            target, [requests[place] for place in places], replace(settings, layers=layers), again
        )
        for place, item, draft in zip(places, replanned, again, strict=True):
            plans[place], drafts[place] = item, draft
    return list(zip(indices, plans, drafts, strict=True))


def _changed(way: Mapping[str, Any], steps: Iterable[StepPlan]) -> list[tuple[str, str]]:
    """Step and type of the references that are not those that the context gives."""
    found = []
    for item in steps:
        named = way["steps"].get(item.name, {}).get("references", {})
        for kind, path in item.references.items():
            chosen = _NOT_APPLICABLE if path is None else os.path.basename(path)
            if kind in named and str(named[kind]) not in (chosen, path):
                found.append((item.name, kind))
    return found


def _unchanged(item: ExposurePlan, draft: Draft, entry: Mapping[str, Any], path: str) -> ExposurePlan:
    """The plan, with an error if the exposure is not the one that was planned."""
    if item.error is not None:
        return item
    was = (entry.get("bytes", draft.sizes), entry.get("header", draft.digest))
    if was == (draft.sizes, draft.digest):
        return item
    return item.failed(
        f"{item.path}: has changed since {path} was made. Make the plan again, or take `bytes`, `mtime` and `header` "
        "of the exposure out of it to do it all the same."
    )


def _notes(
    found: PlanFile, entries: Sequence[Mapping[str, Any]], chains: Sequence[Sequence[ExposurePlan]]
) -> list[str]:
    notes = []
    if found.tree.get("jwstdask") != __version__:
        notes.append(f"{found.path} was made by jwstdask {found.tree.get('jwstdask')}, this is {__version__}")
    mtimes = in_parallel(_mtime, [item["path"] for item in entries])
    touched = [
        item["path"]
        for item, mtime, chain in zip(entries, mtimes, chains, strict=True)
        if item.get("mtime") not in (None, mtime) and mtime is not None and chain[0].error is None
    ]
    if touched:
        notes.append(
            f"{len(touched)} inputs were written again since {found.path} was made, with the same headers "
            f"({os.path.basename(touched[0])}{' ...' if len(touched) > 1 else ''}); they are taken as they are"
        )
    for item, chain in zip(entries, chains, strict=True):
        made = {os.path.basename(path) for plan in chain for path in all_products(plan).values()}
        named = set(item.get("products") or ())
        other = sorted(map(str, named - made))
        if other and all(plan.error is None for plan in chain):
            notes.append(
                f"{os.path.basename(item['path'])}: {', '.join(other)} will not be written: products follow from ways "
                "and parameters"
            )
    return notes


def _combined(
    found: PlanFile, min_members: int | None, calibrated: Sequence[str], metas: Mapping[str, Mapping[str, Any]]
) -> list[Combination]:
    """The associations of the plan, their members where they are written."""
    by_name = {os.path.basename(path): path for path in calibrated}
    made = []
    for entry in found.tree["associations"]:
        target, settings = found.requests[entry["way"]]
        source = _source(entry, by_name)
        if min_members is not None or not source.path:
            # As without a plan: what was made of the exposures takes those that are there.
            there = [pair for pair in source.products[0].members if pair[0] in metas or present(pair[0])]
            source = replace(source, products=(replace(source.products[0], members=tuple(there)),))
        missing = [path for path, _ in source.products[0].members if path not in metas and not present(path)]
        drafts: list[Draft | None] = []
        if missing:
            name = source.products[0].name
            plan = AssociationPlan(name, target.alias, source.products[0].of_type("science"))  # type: ignore[attr-defined]
            reason = (
                f"{name}: {len(missing)} of {len(source.products[0].members)} members are neither there nor made "
                f"({missing[0]}). Take them out of the association, or put their exposures into {found.path} again."
            )
            made.append(Combination(source, replace(plan, error=reason)))
            continue
        (plan,) = plan_association(target, source, settings, metas, drafts)
        names = frozenset(_changed(found.tree["ways"][entry["way"]], plan.steps))
        if names:
            where = f"{os.path.basename(found.path)}, way {entry['way']}"
            layers = (*settings.layers, *_reference_layers(target, found.tree["ways"][entry["way"]], where, names))
            drafts = []
            (plan,) = plan_association(target, source, replace(settings, layers=layers), metas, drafts)
        if min_members is not None and len(plan.members) < min_members:
            plan = replace(
                plan, error=f"{plan.name}: only {len(plan.members)} of at least {min_members} members are left"
            )
        made.append(Combination.of(source, plan, drafts[0]))
    return made


def _source(entry: Mapping[str, Any], by_name: Mapping[str, str]) -> Association:
    members, attributes = [], {}
    for member in entry["members"]:
        place = by_name.get(os.path.basename(member["path"]), member["path"])
        members.append((place, str(member.get("type", "science"))))
        given = {name: str(member[name]) for name in ("group_id", "tweakreg_catalog") if member.get(name)}
        if given:
            attributes[place] = given
    product = Product(entry["name"], tuple(members), attributes)
    return Association(
        str(entry.get("file") or ""),
        str(entry.get("type") or "image3"),
        (product,),
        entry.get("id"),
        str(entry.get("pool") or "none"),
    )


__all__ = ["VERSION", "PlanFile", "is_plan_file", "plan_of_file", "plan_tree", "read_plan", "save_plan"]
