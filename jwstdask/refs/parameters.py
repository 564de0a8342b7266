"""Parameter references: values of step and pipeline parameters that come from CRDS or from a user's file.

Formats: ASDF as CRDS delivers it and ``strun --save-parameters`` writes it (``class``, ``name``, ``parameters``,
``steps``), the older ASDF whose ``parameters`` hold everything, and ConfigObj text (``.cfg``). Values are handed on as
they stand in the file, text included; whoever owns the parameter converts and checks them (`jwstdask.core.params`).

Precedence, lowest first: the default, the step's own ``pars-<step>``, the pipeline's ``pars-<pipeline>`` (its
``steps`` part), the user's parameter file, and then the command line, which is not seen here.
"""

from __future__ import annotations

import datetime
import functools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jwstdask.core.errors import ReferenceFileError
from jwstdask.io.asdf import read_tree, write_tree
from jwstdask.refs.crds import ReferenceChoice, required, resolve
from jwstdask.refs.reference import Reference

__all__ = [
    "ParameterLayers",
    "ParameterReference",
    "crds_parameters_disabled",
    "parameter_layers",
    "parameter_reftype",
    "read_parameters",
    "resolve_parameters",
    "with_parameters",
    "write_parameters",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

DISABLE_VARIABLE = "STPIPE_DISABLE_CRDS_STEPPARS"


@dataclass(frozen=True)
class ParameterReference:
    """Parameters of a step or pipeline as one file gives them.

    Attributes
    ----------
    path
        The file.
    class_name
        Class as written in the file, such as ``jwst.jump.jump_step.JumpStep``; may be empty.
    name
        Name of the step in its pipeline; may be empty.
    parameters
        Parameter name to value as it stands in the file (text from ``.cfg``).
    steps
        The same for the steps of a pipeline, by name.
    """

    path: str
    class_name: str = ""
    name: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, ParameterReference] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """File name, for tables of parameters with their origins."""
        return os.path.basename(self.path)

    def step(self, *names: str) -> ParameterReference | None:
        """The part of a step, or of a step of a step; None where the file says nothing."""
        part: ParameterReference | None = self
        for name in names:
            part = part.steps.get(name) if part is not None else None
        return part


def parameter_reftype(class_name: str) -> str:
    """Reference type of a step or pipeline class: ``JumpStep`` -> ``pars-jumpstep``."""
    return f"pars-{class_name.rpartition('.')[2].lower()}"


def crds_parameters_disabled(disable: bool | None = None) -> bool:
    """Whether parameter references of CRDS are to be ignored: the argument, else ``STPIPE_DISABLE_CRDS_STEPPARS``."""
    return bool(disable) or os.environ.get(DISABLE_VARIABLE, "") in ("true", "True", "t", "yes", "y")


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def read_parameters(path: str | os.PathLike[str]) -> ParameterReference:
    """Read a parameter file, ASDF or ConfigObj text; which one is decided by its content.

    A ``config_file`` entry of a step (ConfigObj) is read too, relative to `path`; values beside it win over its values.

    Raises
    ------
    ReferenceFileError
        If the file is missing or is neither.
    """
    text = os.path.abspath(os.path.expanduser(os.fspath(path)))
    try:
        status = os.stat(text)
    except OSError as error:
        raise ReferenceFileError(
            text, f"the parameter file cannot be read: {error.strerror}", "correct the path"
        ) from None
    return _read(text, status.st_mtime_ns, status.st_size)


def with_parameters(defaults: T, reference: Reference | None) -> T:
    """A dataclass with those of its fields replaced that a parameter reference has."""
    found = {} if reference is None else read_parameters(reference.path).parameters
    names = {item.name for item in fields(defaults)} & found.keys()  # type: ignore[arg-type]
    return replace(defaults, **{name: found[name] for name in names})  # type: ignore[type-var]


@functools.lru_cache(maxsize=512)
def _read(path: str, stamp: int, size: int) -> ParameterReference:
    try:
        with open(path, "rb") as file:
            is_asdf = file.read(5) == b"#ASDF"
    except OSError as error:
        raise ReferenceFileError(
            path, f"the parameter file cannot be read: {error.strerror}", "check its permissions"
        ) from None
    if size == 0:
        raise ReferenceFileError(path, "the parameter file is empty", "fetch or write it again")
    return _read_asdf(path) if is_asdf else _read_cfg(path)


_KEYS = ("class", "name", "parameters", "steps")


def _read_asdf(path: str) -> ParameterReference:
    try:
        found = read_tree(path)
        tree = _plain({key: found[key] for key in _KEYS if key in found})
    except Exception as error:  # asdf and yaml have no common base class for what a damaged file raises
        raise ReferenceFileError(
            path, f"the parameter file is not readable ASDF: {error}", "fetch or write it again"
        ) from error
    if not isinstance(tree.get("parameters"), dict):
        raise ReferenceFileError(
            path, "the file has no `parameters`", "give a file of a step or pipeline (pars-*.asdf)"
        )
    if "class" in tree:
        return _from_tree(path, tree)
    # The form before 2020: class, name and steps (a mapping) are among the parameters.
    return _from_sections(path, tree["parameters"])


def _from_tree(path: str, tree: Mapping[str, Any]) -> ParameterReference:
    steps = [_from_tree(path, step) for step in tree.get("steps") or ()]
    return ParameterReference(
        path,
        class_name=str(tree.get("class") or ""),
        name=str(tree.get("name") or ""),
        parameters=dict(tree.get("parameters") or {}),
        steps={step.name: step for step in steps},
    )


def _from_sections(path: str, section: Mapping[str, Any], name: str = "") -> ParameterReference:
    values = dict(section)
    class_name = str(values.pop("class", "") or "")
    name = str(values.pop("name", "") or name)
    inner = values.pop("steps", None) or {}
    steps = {key: _from_sections(path, part, key) for key, part in inner.items()}
    beneath = values.pop("config_file", None)
    reference = ParameterReference(path, class_name, name, values, steps)
    if beneath and str(beneath) != "None":
        return _over(read_parameters(os.path.join(os.path.dirname(path), str(beneath))), reference)
    return reference


def _over(below: ParameterReference, above: ParameterReference) -> ParameterReference:
    """Two references of one step as one; `above` wins."""
    names = dict.fromkeys([*below.steps, *above.steps])
    steps = {}
    for name in names:
        parts = [part.steps[name] for part in (below, above) if name in part.steps]
        steps[name] = _over(*parts) if len(parts) == 2 else parts[0]
    return ParameterReference(
        above.path,
        above.class_name or below.class_name,
        above.name or below.name,
        {**below.parameters, **above.parameters},
        steps,
    )


def _plain(value: Any) -> Any:
    """asdf's containers and numpy values as plain Python ones."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)) or (isinstance(value, Sequence) and not isinstance(value, (str, bytes))):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, os.PathLike) else value


# ----------------------------------------------------------------------------------------------------------------------
# ConfigObj text


_SECTION = re.compile(r"^(?P<open>\[+)\s*(?P<name>\"[^\"]*\"|'[^']*'|[^'\"\s\]][^\]]*?)\s*(?P<close>\]+)\s*(#.*)?$")
_ENTRY = re.compile(r"^(?P<key>\"[^\"]*\"|'[^']*'|[^'\"=\s][^=]*?)\s*=\s*(?P<value>.*)$")
_ITEM = re.compile(r"\s*(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<bare>[^,#'\"][^,#]*?)?)\s*(?P<end>,|#.*$|$)")


def _read_cfg(path: str) -> ParameterReference:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ReferenceFileError(
            path, "the file is neither ASDF nor text", "give a parameter file (.asdf or .cfg)"
        ) from None
    return _from_sections(path, _parse_cfg(path, lines))


def _parse_cfg(path: str, lines: Sequence[str]) -> dict[str, Any]:
    """Sections as nested dictionaries; values are text, or lists of text where there are commas."""
    root: dict[str, Any] = {}
    stack = [root]
    numbered = enumerate(lines, start=1)
    for number, raw in numbered:
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        section = _SECTION.match(line)
        entry = _ENTRY.match(line)
        if section is not None:
            depth = len(section["open"])
            if depth != len(section["close"]) or depth > len(stack):
                raise _cfg_error(path, number, "section brackets do not nest")
            name = section["name"].strip("'\"")
            del stack[depth:]
            if name in stack[-1]:
                raise _cfg_error(path, number, f"section {name!r} appears twice")
            stack.append(stack[-1].setdefault(name, {}))
        elif entry is not None:
            key = entry["key"].strip("'\"")
            if key in stack[-1]:
                raise _cfg_error(path, number, f"{key!r} appears twice")
            stack[-1][key] = _cfg_value(path, number, entry["value"], numbered)
        else:
            raise _cfg_error(path, number, "expected `[section]` or `name = value`")
    return root


def _cfg_value(path: str, number: int, text: str, following: Iterator[tuple[int, str]]) -> Any:
    for quotes in ('"""', "'''"):
        if text.startswith(quotes):
            body = text[3:]
            while quotes not in body:
                try:
                    body += "\n" + next(following)[1]
                except StopIteration:
                    raise _cfg_error(path, number, "the quotes are not closed") from None
            return body[: body.index(quotes)]
    items: list[str] = []
    position, comma = 0, False
    while True:
        match = _ITEM.match(text, position)
        if match is None:
            raise _cfg_error(path, number, f"cannot read the value {text!r}")
        item = next((match[kind] for kind in ("double", "single", "bare") if match[kind] is not None), None)
        if match["end"] == ",":
            comma = True
            if item is not None:
                items.append(item)
            position = match.end()
            continue
        if item is not None:
            items.append(item)
        break
    if comma:
        return items
    return items[0] if items else ""


def _cfg_error(path: str, number: int, message: str) -> ReferenceFileError:
    return ReferenceFileError(path, f"line {number}: {message}", "correct the parameter file")


# ----------------------------------------------------------------------------------------------------------------------
# From CRDS


def resolve_parameters(
    meta: Mapping[str, Any], class_name: str, context: str | None = None, disable: bool | None = None
) -> ParameterReference | None:
    """The parameter reference of one class for one exposure, or None where CRDS has none for it.

    Raises
    ------
    ReferenceFileError
        If the chosen file is not in the cache or cannot be read: parameters are never silently left at their defaults.
    """
    if crds_parameters_disabled(disable):
        return None
    reftype = parameter_reftype(class_name)
    (choices,) = resolve([meta], [reftype], context)
    return _from_choice(choices[reftype])


def _from_choice(choice: ReferenceChoice) -> ParameterReference | None:
    if choice.error is not None or choice.not_applicable:
        # Most classes have no parameter reference for most exposures: not finding one is the usual case.
        if choice.name and choice.error is not None:
            log.warning("%s: %s; parameters stay at their defaults", choice.reftype, choice.error)
        return None
    return read_parameters(required(choice))


@dataclass(frozen=True)
class ParameterLayers:
    """Layers of parameters of one exposure, lowest precedence first, for `jwstdask.core.params.build`.

    Attributes
    ----------
    own
        Layers (origin, values) of the pipeline's or the single step's own parameters.
    steps
        Name of a step in the pipeline to its layers.
    name
        What the reference of the highest precedence calls the pipeline or step; empty if there is none.
    """

    own: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    steps: Mapping[str, tuple[tuple[str, Mapping[str, Any]], ...]] = field(default_factory=dict)
    name: str = ""


def parameter_layers(
    metas: Sequence[Mapping[str, Any]],
    class_name: str,
    steps: Mapping[str, str] | None = None,
    context: str | None = None,
    config_file: str | os.PathLike[str] | None = None,
    disable: bool | None = None,
) -> list[ParameterLayers]:
    """Parameter layers of many exposures for a pipeline, or for a single step.

    Parameters
    ----------
    metas
        Metadata of each exposure (dotted names).
    class_name
        Class of the pipeline or step (``Detector1Pipeline``).
    steps
        Name in the pipeline to class name (``{"jump": "JumpStep"}``). A step of a step has a dotted name
        (``master_bkg_mos.flat_field``).
    context
        CRDS context.
    config_file
        The user's parameter file, applied to every exposure.
    disable
        Leave the parameter references of CRDS aside.

    Returns
    -------
    list of ParameterLayers
        One an exposure. Exposures with the same references share one object.

    Raises
    ------
    ReferenceFileError
        If a parameter file is missing or cannot be read.
    """
    steps = dict(steps or {})
    user = read_parameters(config_file) if config_file is not None else None
    if crds_parameters_disabled(disable):
        return [_layers(user, None, {}, steps)] * len(metas)
    wanted = {name: parameter_reftype(of) for name, of in steps.items()}
    own = parameter_reftype(class_name)
    chosen = resolve(metas, list(dict.fromkeys([own, *wanted.values()])), context)
    shared: dict[tuple, ParameterLayers] = {}
    result = []
    for choices in chosen:
        key = tuple(str(choice) for choice in choices.values())
        if key not in shared:
            found = {reftype: _from_choice(choice) for reftype, choice in choices.items()}
            shared[key] = _layers(user, found[own], {name: found[reftype] for name, reftype in wanted.items()}, steps)
        result.append(shared[key])
    return result


def _layers(
    user: ParameterReference | None,
    pipeline: ParameterReference | None,
    references: Mapping[str, ParameterReference | None],
    steps: Iterable[str],
) -> ParameterLayers:
    by_step = {}
    for name in steps:
        words = name.split(".")
        # from the step's own reference through those of the steps around it to the pipeline's, then the user's file
        parts = [references.get(name)]
        for count in range(len(words) - 1, 0, -1):
            around = references.get(".".join(words[:count]))
            parts.append(around.step(*words[count:]) if around is not None else None)
        parts += [source.step(*words) if source is not None else None for source in (pipeline, user)]
        by_step[name] = _named(parts)
    name = next((source.name for source in (user, pipeline) if source is not None and source.name), "")
    return ParameterLayers(_named([pipeline, user]), by_step, name)


def _named(parts: Iterable[ParameterReference | None]) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    return tuple((part.origin, part.parameters) for part in parts if part is not None and part.parameters)


# ----------------------------------------------------------------------------------------------------------------------
# Writing


_UNKNOWN = "<SPECIFY>"


def write_parameters(
    path: str | os.PathLike[str],
    class_name: str,
    name: str,
    parameters: Mapping[str, Any],
    steps: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
    metadata: bool = True,
) -> Path:
    """Write a parameter file in the ASDF form that jwst reads.

    Parameters
    ----------
    path
        File to write; replaced if it exists.
    class_name
        Class of the pipeline or step; a bare name (``JumpStep``) is written as jwst's own class.
    name
        Name of the pipeline or step.
    parameters
        Its parameters; tuples become lists.
    steps
        Name in the pipeline to (class name, parameters).
    metadata
        Add the ``meta`` that CRDS requires, with what it cannot know marked ``<SPECIFY>``.
    """
    tree: dict[str, Any] = {"class": _qualified(class_name), "name": name, "parameters": _plain(dict(parameters))}
    if steps:
        tree["steps"] = [
            {"class": _qualified(of), "name": key, "parameters": _plain(dict(values))}
            for key, (of, values) in steps.items()
        ]
    if metadata:
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0, tzinfo=None)
        tree["meta"] = {
            "author": _UNKNOWN,
            "date": now.isoformat(),
            "description": f"Parameters for calibration step {tree['class']}",
            "instrument": {"name": _UNKNOWN},
            "origin": _UNKNOWN,
            "pedigree": _UNKNOWN,
            "reftype": parameter_reftype(class_name),
            "telescope": "JWST",
            "useafter": _UNKNOWN,
        }
    target = Path(path)
    try:
        write_tree(tree, target)
    except OSError as error:
        raise ReferenceFileError(
            target, f"the parameter file cannot be written: {error.strerror}", "choose another folder"
        ) from error
    return target


def _qualified(class_name: str) -> str:
    if "." in class_name:
        return class_name
    return f"jwst.{'pipeline' if class_name.endswith('Pipeline') else 'step'}.{class_name}"
