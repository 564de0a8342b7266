"""``jwstdask plan``: what run would do, given the same words. Headers only; no pixel is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from jwstdask.cli.progress import duration
from jwstdask.core.plan import AssociationPlan, Chunks, ExposurePlan, StepPlan


def main(argv: Sequence[str]) -> int:
    from jwstdask.cli.run import main as run

    return run(argv, "plan")


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _divided(found: Chunks) -> str:
    """How an exposure is divided, in words."""
    overlap = f", {found.halo} pixels more on each side" if found.halo else ""
    strips = f"{found.strips} strip{'s' * (found.strips > 1)} of {found.rows} rows"
    return f"{strips}, tiles of {found.tile[0]} x {found.tile[1]}{overlap}"


def print_plans(plans: Sequence[ExposurePlan]) -> None:
    """Print each distinct way of processing once, then a line an exposure."""
    groups: dict[tuple[object, ...], list[ExposurePlan]] = {}
    for plan in plans:
        steps = tuple((item.name, item.skip, tuple(sorted(item.references.items()))) for item in plan.steps)
        groups.setdefault((plan.pipeline, plan.exp_type, plan.branch, steps, plan.error), []).append(plan)
    for members in groups.values():
        first = members[0]
        kind = f"{first.exp_type}, branch {first.branch}" if first.branch else first.exp_type
        plural = "s" * (len(members) > 1)
        print(f"{first.pipeline} ({kind}), {len(members)} exposure{plural}, context {first.context or '-'}")
        print_steps(first.steps)
        for plan in members:
            cost = plan.cost
            traffic = f"{size(cost.read)} in, {size(cost.written)} out"
            name = f"{os.path.basename(plan.path)} {list(plan.shape)}"
            print(f"  {name}: {size(cost.memory)} memory, {traffic}, {duration(cost.cpu)} CPU")
            if cost.chunks is not None:
                print(f"    {_divided(cost.chunks)}")
            for path in plan.products.values():
                print(f"    -> {path}")
            if plan.error is not None:
                print(f"    ERROR {plan.error}")
        print()
    total = sum(plan.cost.cpu for plan in plans)
    broken = sum(plan.error is not None for plan in plans)
    peak = max((plan.cost.memory for plan in plans), default=0)
    print(
        f"{len(plans)} task{'s' * (len(plans) != 1)}, {duration(total)} CPU, {size(peak)} memory a task, "
        f"{size(sum(plan.cost.written for plan in plans))} to write" + (f", {broken} with errors" if broken else "")
    )


def print_steps(steps: Iterable[StepPlan]) -> None:
    """Steps with the reason of every skip, references, and parameters that are not defaults with their origins."""
    for item in steps:
        if item.skip is not None:
            print(f"  {item.name:20} skipped: {item.skip}")
            continue
        references = ", ".join(f"{reftype}={_file(path)}" for reftype, path in item.references.items())
        print(f"  {item.name:20} {references}".rstrip())
        defaults = type(item.step)()
        for name, origin in item.origins.items():
            value = getattr(item.step, name)
            if value != getattr(defaults, name):
                print(f"  {'':20}   {name} = {value!r} ({origin})")


def _file(path: str | None) -> str:
    """Name of a reference."""
    if path is None:
        return "N/A"
    return os.path.basename(path) + ("" if os.path.exists(path) else " (missing)")


def print_associations(plans: Sequence[AssociationPlan]) -> None:
    """Print plans of associations."""
    for plan in plans:
        print(f"{plan.pipeline} {plan.name}, {len(plan.members)} members, context {plan.context or '-'}")
        print_steps(plan.steps)
        for path in plan.products.values():
            print(f"    -> {path}")
        if plan.error is not None:
            print(f"    ERROR {plan.error}")
