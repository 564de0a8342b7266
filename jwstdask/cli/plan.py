"""``jwstdask plan``: what run would do, given the same words. Headers only; no pixel is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jwstdask.cli.progress import duration
from jwstdask.core.plan import AssociationPlan, Chunks, Cost, ExposurePlan, StepPlan

if TYPE_CHECKING:
    from jwstdask.pipelines.program_plan import ProgramPlan

FEW = 8
"""As many exposures, associations or files are listed; more with --verbose."""

Plan = ExposurePlan | AssociationPlan


def main(argv: Sequence[str]) -> int:
    from jwstdask.cli.run import main as run

    return run(argv, "plan")


def workers_of(options: Any) -> int:
    """Tasks that a run with these options does at a time, as far as that is known before."""
    from jwstdask.engine.executor import available_cores

    asked = str(options.workers or options.threads or "").rpartition(":")[2]
    return max(int(asked), 1) if asked.isdigit() else available_cores()


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def print_program(
    plan: ProgramPlan, workers: int, output_dir: str | None = None, verbose: bool = False, context: str = ""
) -> None:
    """Print a plan: ways of processing with their exposures by mode, references, and what it all costs.

    Parameters
    ----------
    plan
        The plan.
    workers
        Tasks that are done at a time, for the predicted time.
    output_dir
        Folder of the products.
    verbose
        List every exposure, association and reference.
    context
        CRDS context, if no plan has one.
    """
    tasks, costs = plan.tasks, [item.cost for item in plan.combinations]
    costs += [Cost()] * (len(plan.associations) - len(costs))
    context = next((item.context for item in [*tasks, *plan.associations] if item.context), context)
    inputs = len({chain[0].path for chain in plan.chains} | set(plan.finished))
    print(f"{_number(inputs, 'exposure')}, context {context or '-'}, products in {output_dir or '.'}")
    print()
    _print_exposures(plan, tasks, verbose)
    _print_associations(plan.associations, costs, verbose)
    missing = _print_references([*tasks, *plan.associations], verbose)
    _print_errors([*tasks, *plan.associations], verbose)
    _print_total(plan, costs, workers, missing)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


# ----------------------------------------------------------------------------------------------------------------------
# Exposures


def _print_exposures(plan: ProgramPlan, tasks: Sequence[ExposurePlan], verbose: bool) -> None:
    groups: dict[tuple[Any, ...], list[ExposurePlan]] = {}
    for item in tasks:
        if item.steps:
            steps = tuple((step.name, step.skip, _parameters(step)) for step in item.steps)
            groups.setdefault((item.pipeline, item.exp_type, item.branch, steps), []).append(item)
    for members in groups.values():
        first = members[0]
        kind = f"{first.exp_type}, branch {first.branch}" if first.branch else first.exp_type
        print(f"{first.pipeline} ({kind}), {_number(len(members), 'exposure')}")
        print_steps(first.steps, [item.steps for item in members])
        if verbose or len(members) <= FEW:
            for item in members:
                _print_exposure(item, _mode(plan, item))
        else:
            _print_modes(plan, members)
        print()


def _print_exposure(plan: ExposurePlan, mode: str) -> None:
    cost = plan.cost
    facts = [mode] if mode else []
    facts += [f"{size(cost.memory)} memory", f"{size(cost.read)} in", f"{size(cost.written)} out", _cpu(cost)]
    print(f"  {os.path.basename(plan.path)} {list(plan.shape)}: {', '.join(facts)}")
    if cost.chunks is not None:
        print(f"    {_divided(cost.chunks)}")
    for path in _written(plan):
        print(f"    -> {path}")


def _cpu(cost: Cost) -> str:
    return f"{duration(cost.cpu)} CPU"


def _written(plan: Plan) -> list[str]:
    from jwstdask.program.record import all_products

    return list(all_products(plan).values())


def _print_modes(plan: ProgramPlan, members: Sequence[ExposurePlan]) -> None:
    """Exposures by mode: a line each."""
    modes: dict[tuple[str, tuple[int, ...]], list[ExposurePlan]] = {}
    for item in members:
        modes.setdefault((_mode(plan, item), item.shape), []).append(item)
    rows = [("mode", "shape", "exposures", "detectors", "memory", "CPU", "in", "out", "products")]
    for (mode, shape), items in sorted(modes.items(), key=lambda pair: -len(pair[1])):
        detectors = len({item.detector for item in items})
        kinds = ", ".join(dict.fromkeys(_kind(path) for item in items for path in _written(item)))
        rows.append(
            (
                mode or "-",
                "x".join(map(str, shape)) or "-",
                str(len(items)),
                str(detectors),
                size(max(item.cost.memory for item in items)),
                duration(sum(item.cost.cpu for item in items)),
                size(sum(item.cost.read for item in items)),
                size(sum(item.cost.written for item in items)),
                f"{sum(len(_written(item)) for item in items)} ({kinds})",
            )
        )
    _print_table(rows)


def _mode(plan: ProgramPlan, item: ExposurePlan) -> str:
    """Instrument, optical elements, subarray and readout, where they are known."""
    basis = plan.bases.get((item.pipeline, item.path))
    return basis.mode if basis else ""


def _kind(path: str) -> str:
    return os.path.basename(path).rpartition("_")[2].removesuffix(".fits")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns, the first and last to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)]
        cells[0] = f"{row[0]:{widths[0]}}"
        cells[-1] = row[-1]
        print("  " + "  ".join(cells).rstrip())


def _divided(found: Chunks) -> str:
    """How an exposure is divided, in words."""
    overlap = f", {found.halo} pixels more on each side" if found.halo else ""
    strips = f"{found.strips} strip{'s' * (found.strips > 1)} of {found.rows} rows"
    return f"{strips}, tiles of {found.tile[0]} x {found.tile[1]}{overlap}"


# ----------------------------------------------------------------------------------------------------------------------
# Steps


def _parameters(item: StepPlan) -> tuple[tuple[str, str, str], ...]:
    """Name, value and origin of the parameters that are not at their defaults."""
    if item.skip is not None:
        return ()
    defaults = type(item.step)()
    return tuple(
        (name, repr(getattr(item.step, name)), origin)
        for name, origin in item.origins.items()
        if getattr(item.step, name) != getattr(defaults, name)
    )


def print_steps(steps: Iterable[StepPlan], alike: Sequence[Sequence[StepPlan]] = ()) -> None:
    """Steps with the reason of every skip, references, and parameters that are not defaults with their origins.

    ``alike`` are the steps of all exposures that are done so, whose references may be others.
    """
    for place, item in enumerate(steps):
        if item.skip is not None:
            print(f"  {item.name:20} skipped: {item.skip}")
            continue
        others = [steps[place] for steps in alike] or [item]
        named = {kind: _files(other.references.get(kind) for other in others) for kind in item.references}
        absent = [kind for kind, name in named.items() if name == "N/A"]
        shown = [f"{kind}={name}" for kind, name in named.items() if len(absent) <= 3 or kind not in absent]
        if len(shown) < len(named):
            shown.append(f"{len(absent)} types N/A")
        references = ", ".join(shown)
        print(f"  {item.name:20} {references}".rstrip())
        for name, value, origin in _parameters(item):
            print(f"  {'':20}   {name} = {value} ({origin})")


def _files(paths: Iterable[str | None]) -> str:
    """The reference of some exposures, or how many they are."""
    found = list(dict.fromkeys(paths))
    if len(found) > 1:
        return f"{len(found)} files"
    (path,) = found
    if path is None:
        return "N/A"
    return os.path.basename(path) + ("" if os.path.exists(path) else " (missing)")


# ----------------------------------------------------------------------------------------------------------------------
# Associations, references, errors, the whole


def _print_associations(plans: Sequence[AssociationPlan], costs: Sequence[Cost], verbose: bool) -> None:
    groups: dict[tuple[Any, ...], list[tuple[AssociationPlan, Cost]]] = {}
    for plan, cost in zip(plans, costs, strict=True):
        if plan.steps:
            steps = tuple((step.name, step.skip, _parameters(step)) for step in plan.steps)
            groups.setdefault((plan.pipeline, plan.branch, steps), []).append((plan, cost))
    for members in groups.values():
        first = members[0][0]
        print(f"{first.pipeline}, {_number(len(members), 'association')}")
        print_steps(first.steps, [plan.steps for plan, _ in members])
        shown = members if verbose or len(members) <= FEW else members[:FEW]
        for plan, cost in shown:
            traffic = f"{size(cost.read)} in, about {size(cost.written)} out"
            print(f"  {plan.name}: {len(plan.members)} members, {size(cost.memory)} memory, {traffic}, {_cpu(cost)}")
            written = _written(plan)
            for path in written if verbose else plan.products.values():
                print(f"    -> {path}")
            if not verbose and len(written) > len(plan.products):
                print(f"    -> {_number(len(written) - len(plan.products), 'member')} saved besides")
        if len(shown) < len(members):
            print(f"  and {len(members) - len(shown)} more (--verbose lists them)")
        print()


def _print_references(plans: Sequence[Plan], verbose: bool) -> list[str]:
    """References by type: how many, how large, which are missing; the names of the missing ones."""
    users: dict[tuple[str, str], set[str]] = {}
    for plan in plans:
        for item in plan.active:
            for kind, path in item.references.items():
                if path is not None:
                    users.setdefault((kind, path), set()).add(plan.path)
    if not users:
        return []
    sizes = {path: _size_of(path) for _, path in users}
    known = _expected() if None in sizes.values() else {}
    rows = [("references", "files", "size", "exposures", "missing")]
    missing: dict[str, None] = {}
    for kind in sorted({kind for kind, _ in users}):
        paths = [path for name, path in users if name == kind]
        absent = [path for path in paths if sizes[path] is None]
        missing.update(dict.fromkeys(absent))
        total = sum(sizes[path] or 0 for path in paths)
        used = set().union(*(users[kind, path] for path in paths))
        rows.append((kind, str(len(paths)), size(total), str(len(used)), str(len(absent)) if absent else ""))
        if verbose:
            rows += [
                (
                    f"  {os.path.basename(path)}",
                    "",
                    size(sizes[path] or known.get(os.path.basename(path), 0)),
                    str(len(users[kind, path])),
                    "missing" if sizes[path] is None else "",
                )
                for path in paths
            ]
    _print_table(rows)
    listed = list(missing) if verbose else list(missing)[: 2 * FEW]
    for path in listed:
        name = os.path.basename(path)
        print(f"  missing: {name}" + (f" ({size(known[name])})" if name in known else ""))
    if len(listed) < len(missing):
        print(f"  and {len(missing) - len(listed)} more missing (--verbose lists them)")
    print()
    return list(missing)


def _size_of(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _expected() -> Mapping[str, int]:
    """Sizes of references that are not there, as the cache's own catalogue has them."""
    from jwstdask.refs.maintain import catalogue

    return {name: found for name, (found, _) in catalogue().items()}


def _print_errors(plans: Sequence[Plan], verbose: bool) -> None:
    """Errors, those of the same kind together."""
    alike: dict[str, list[Plan]] = {}
    for plan in plans:
        if plan.error is not None:
            alike.setdefault(plan.error.replace(plan.path, ""), []).append(plan)
    for members in alike.values():
        shown = members if verbose or len(members) <= FEW else members[:1]
        for plan in shown:
            print(f"  ERROR {plan.error}")
        if len(shown) < len(members):
            print(f"  ERROR and {len(members) - len(shown)} more of this kind (--verbose lists them)")


def _print_total(plan: ProgramPlan, costs: Sequence[Cost], workers: int, missing: Sequence[str]) -> None:
    tasks = plan.tasks
    broken = sum(item.error is not None for item in [*tasks, *plan.associations])
    cpu = sum(item.cost.cpu for item in tasks)
    longest = max((sum(item.cost.cpu for item in chain) for chain in plan.chains), default=0.0)
    combined = sum(cost.cpu for cost in costs)
    # Exposures side by side, each by one worker; associations one after the other, each by all.
    wall = max(cpu / workers, min(longest, cpu)) + combined / workers
    peak = max([item.cost.memory for item in tasks] + [cost.memory for cost in costs], default=0)
    read = sum(item.cost.read for item in tasks) + sum(cost.read for cost in costs)
    written = sum(item.cost.written for item in tasks) + sum(cost.written for cost in costs)
    files = sum(len(_written(item)) for item in [*tasks, *plan.associations])
    count = len(tasks) + len(plan.associations)
    facts = [
        f"{_number(count, 'task')}, {duration(cpu + combined)} CPU",
        f"about {duration(wall)} on {_number(workers, 'worker')}",
        f"{size(peak)} memory a worker",
        f"{size(read)} to read, {size(written)} to write in {_number(files, 'product')}",
    ]
    if missing:
        facts.append(f"{_number(len(missing), 'reference')} missing")
    print("; ".join(facts) + (f", {broken} with errors" if broken else ""))
