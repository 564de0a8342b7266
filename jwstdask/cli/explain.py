"""``jwstdask explain``: what a step or pipeline does, its parameters and references."""

from __future__ import annotations

import inspect
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from jwstdask.core.errors import ParameterError, PlanError
from jwstdask.core.params import Par, declared
from jwstdask.core.pipeline import Pipeline
from jwstdask.core.step import Parameters
from jwstdask.pipelines.registry import PIPELINES, find
from jwstdask.steps.registry import CLASSES, step_class

_WIDTH = 120

_USAGE = """usage: jwstdask explain NAME

Say what a step or pipeline does: equations, parameters, references. NAME may also be `parameters`: those that every
step and pipeline has."""


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{_USAGE}\n\n{_names()}")
        return 0 if argv else 2
    if len(argv) > 1:
        raise PlanError("explain takes one step or pipeline")
    print(_parameters("parameters of every step and pipeline", _COMMON) if argv == ["parameters"] else _of(argv[0]))
    return 0


def _of(name: str) -> str:
    """The text for the step or pipeline called ``name``."""
    try:
        return explain(find(name))
    except ParameterError as error:
        alike = [known for known in (*CLASSES, *PIPELINES) if name.strip() and name.strip().lower() in known]
        if not alike and "Did you mean" in error.remedy:
            raise
        remedy = f"Names with {name.strip()!r}: {', '.join(alike)}." if alike else "Known names:"
        raise ParameterError(error.message, f"{remedy}\n\n{_names()}") from None


def _names() -> str:
    """All pipelines, and all steps by stage."""
    groups = {"pipelines": list(PIPELINES)}
    for stage in (1, 2, 3):
        steps = [name for pipeline in PIPELINES.values() if pipeline.stage == stage for name in pipeline.step_defs]
        groups[f"steps of stage {stage}"] = list(dict.fromkeys(steps))
    return "\n".join(f"{title}:\n{_wrapped(', '.join(names), '  ', '  ')}" for title, names in groups.items())


_WORKS = {
    "block": "tile by tile",
    "frame": "on one integration of the whole frame after another",
    "metadata": "on headers",
    "association": "on all exposures of an association",
}

_COMMON = declared(Parameters)


def explain(target: Any) -> str:
    """The text for a step or pipeline class."""
    lines = [f"{target.alias} ({target.class_name})", "", inspect.cleandoc(target.__doc__ or ""), ""]
    pipeline = issubclass(target, Pipeline)
    if pipeline:
        for branch in target.branches:
            lines += [f"steps, {branch.name}:"]
            lines += [f"  {name}{_off(step_class(target.step_defs[name]))}" for name in branch.order]
            lines += [""]
        example = f"--steps.{target.branches[-1].order[0]}.skip=True"
        how = (
            f"A step's parameter is given as --steps.STEP.NAME=VALUE, such as {example}; "
            "`jwstdask explain STEP` lists them. Parameter references from CRDS switch some steps on and others off: "
            "`jwstdask plan` says which steps run."
        )
        lines += [_wrapped(how), ""]
        lines += [_wrapped(f"exposure types: {', '.join(sorted(target.exp_types))}"), ""]
    else:
        lines += ["equations:", *(f"  {line}" for line in target.equations.splitlines()), ""]
        lines += [_wrapped(f"source: {target.sources}")]
        lines += [_wrapped(f"references: {', '.join(target.reference_types) or 'none'}")]
        lines += [f"status: meta.cal_step.{target.status}", f"works {_WORKS[target.kind]}", ""]
    # A parameter of all steps stands with a step's own if the step has a default of its own.
    own = {name: item for name, item in declared(target).items() if name not in _COMMON or item[2] != _COMMON[name][2]}
    lines += [_parameters("parameters", own, () if pipeline else target.reference_types), ""]
    rest = ", ".join(name for name in _COMMON if name not in own)
    lines += [_wrapped(f"and those of every step and pipeline (`jwstdask explain parameters`): {rest}")]
    return "\n".join(lines)


def _off(step: type) -> str:
    """What is added to a step that does not run unless it is asked for."""
    return " (off by default)" if declared(step)["skip"][2] else ""


def _parameters(title: str, parameters: Mapping[str, Any], reference_types: Sequence[str] = ()) -> str:
    """A line for each parameter, and one for those that replace references."""
    lines = [_parameter(name, *item) for name, item in parameters.items()]
    if reference_types:
        names = ", ".join(f"override_{kind}" for kind in reference_types)
        lines.append(f"{names}: file to use instead of the reference from CRDS (N/A: none)")
    return "\n".join([f"{title}:", *(_wrapped(line, "  ", "    ") for line in lines or ["none"])])


def _wrapped(text: str, first: str = "", rest: str = "") -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def _parameter(name: str, kind: Any, facts: Par, default: Any) -> str:
    """``name: type = default [unit], range: what it does``."""
    unit = f" [{facts.unit}]" if facts.unit else ""
    bounds = {">=": facts.ge, ">": facts.gt, "<=": facts.le}
    limits = [f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None]
    if facts.choices is not None:
        limits.append("one of " + ", ".join(map(str, facts.choices)))
    if facts.length is not None:
        limits.append(f"{facts.length[0]} to {facts.length[1]} values")
    where = f", {', '.join(limits)}" if limits else ""
    return f"{name}: {type_name(kind)} = {default!r}{unit}{where}: {facts.doc}"


def type_name(kind: Any) -> str:
    """A type for people: ``float or None``, ``list of int``."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(type_name(member) for member in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        return "list" if element is Any else f"list of {type_name(element)}"
    return "None" if kind is type(None) else kind.__name__
