"""``jwstdask explain``: what a step or pipeline does, its parameters and references."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from jwstdask.core.errors import PlanError
from jwstdask.core.params import declared
from jwstdask.core.pipeline import Pipeline
from jwstdask.core.step import Parameters


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: jwstdask explain STEP_OR_PIPELINE\n\nSay what it does: equations, parameters, references.")
        return 0 if argv else 2
    from jwstdask.pipelines.registry import find

    if len(argv) > 1:
        raise PlanError("explain takes one step or pipeline")
    print(explain(find(argv[0])))
    return 0


def explain(target: type) -> str:
    """The text for a step or pipeline class."""
    lines = [f"{target.alias} ({target.class_name})", "", inspect.cleandoc(target.__doc__ or ""), ""]  # type: ignore[attr-defined]
    if issubclass(target, Pipeline):
        for branch in target.branches:
            lines += [f"steps, {branch.name}:", *(f"  {name}" for name in branch.order), ""]
        lines += [f"exposure types: {', '.join(sorted(target.exp_types))}", ""]
    else:
        if target.equations:  # type: ignore[attr-defined]
            lines += [target.equations, ""]  # type: ignore[attr-defined]
        references = ", ".join(target.reference_types) or "none"  # type: ignore[attr-defined]
        lines += [f"references: {references}", f"status: meta.cal_step.{target.status}", ""]  # type: ignore[attr-defined]
    own = {name: facts for name, facts in declared(target).items() if name not in declared(Parameters)}
    base = {name: facts for name, facts in declared(target).items() if name in declared(Parameters)}
    for title, parameters in (("parameters", own), ("parameters of every step and pipeline", base)):
        lines.append(f"{title}:")
        for name, (_, facts, default) in parameters.items():
            unit = f" [{facts.unit}]" if facts.unit else ""
            choices = f"; one of {', '.join(map(str, facts.choices))}" if facts.choices else ""
            lines.append(f"  {name} = {default!r}{unit}: {facts.doc}{choices}")
        if not parameters:
            lines.append("  none")
        lines.append("")
    return "\n".join(lines).rstrip()
