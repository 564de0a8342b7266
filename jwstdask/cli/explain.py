"""``jwstdask explain``: what a step or pipeline does, its parameters and references."""

from __future__ import annotations

import inspect
import textwrap
import types
import typing
from collections.abc import Sequence
from typing import Any

from jwstdask.core.errors import PlanError
from jwstdask.core.params import Par, declared
from jwstdask.core.pipeline import Pipeline
from jwstdask.core.step import Parameters

_WIDTH = 120


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: jwstdask explain STEP_OR_PIPELINE\n\nSay what it does: equations, parameters, references.")
        return 0 if argv else 2
    from jwstdask.pipelines.registry import find

    if len(argv) > 1:
        raise PlanError("explain takes one step or pipeline")
    print(explain(find(argv[0])))
    return 0


_WORKS = {
    "block": "tile by tile",
    "frame": "on one integration of the whole frame after another",
    "metadata": "on headers",
    "association": "on all exposures of an association",
}


def explain(target: Any) -> str:
    """The text for a step or pipeline class."""
    lines = [f"{target.alias} ({target.class_name})", "", inspect.cleandoc(target.__doc__ or ""), ""]
    if issubclass(target, Pipeline):
        for branch in target.branches:
            lines += [f"steps, {branch.name}:", *(f"  {name}" for name in branch.order), ""]
        lines += textwrap.wrap(f"exposure types: {', '.join(sorted(target.exp_types))}", _WIDTH) + [""]
    else:
        lines += ["equations:", *(f"  {line}" for line in target.equations.splitlines()), ""]
        lines += [f"source: {target.sources}"]
        lines += textwrap.wrap(f"references: {', '.join(target.reference_types) or 'none'}", _WIDTH)
        lines += [f"status: meta.cal_step.{target.status}", f"works {_WORKS[target.kind]}", ""]
    base = declared(Parameters)
    # A parameter of all steps stands with a step's own if the step has a default of its own.
    own = {name: item for name, item in declared(target).items() if name not in base or item[2] != base[name][2]}
    rest = {name: item for name, item in declared(target).items() if name not in own}
    for title, parameters in (("parameters", own), ("parameters of every step and pipeline", rest)):
        lines.append(f"{title}:")
        lines += [_parameter(name, *item) for name, item in parameters.items()] or ["  none"]
        lines.append("")
    return "\n".join(lines).rstrip()


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
    return f"  {name}: {type_name(kind)} = {default!r}{unit}{where}: {facts.doc}"


def type_name(kind: Any) -> str:
    """A type for people: ``float or None``, ``list of int``."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(type_name(member) for member in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        return "list" if element is Any else f"list of {type_name(element)}"
    return "None" if kind is type(None) else kind.__name__
