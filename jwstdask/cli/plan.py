"""``jwstdask plan``: what run would do, given the same words. Headers only; no pixel is read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jwstdask.cli.progress import duration, numbered
from jwstdask.core.plan import AssociationPlan, Chunks, Cost, ExposurePlan, StepPlan
from jwstdask.engine.resources import INTERPRETER_BYTES, SHARE
from jwstdask.pipelines.cost import PROCESS_BYTES, START_SECONDS, THREAD_BYTES, UNSHARED

if TYPE_CHECKING:
    from jwstdask.pipelines.program_plan import ProgramPlan

FEW = 8
"""As many exposures, associations or files are listed; more with --verbose."""

Plan = ExposurePlan | AssociationPlan


def main(argv: Sequence[str]) -> int:
    from jwstdask.cli.run import main as run

    return run(argv, "plan")


@dataclass(frozen=True)
class Workers:
    """Who does the tasks of a run.

    Attributes
    ----------
    number
        How many tasks are done at a time; None where nobody knows before.
    threads
        Whether by threads of this process; otherwise by processes of one thread each.
    grain
        ``auto``, ``exposure`` or ``strip``.
    """

    number: int | None = None
    threads: bool = False
    grain: str = "auto"

    def __str__(self) -> str:
        if self.threads:
            return f"in this process with {numbered(self.number or 1, 'thread')}"
        return "on a cluster" if self.number is None else f"on {numbered(self.number, 'worker')}"


def workers_of(options: Any) -> Workers:
    """Who does the tasks of a run with these options, as far as that is known before.

    Raises
    ------
    ParameterError
        If the options contradict each other, as they would in a run.
    """
    from jwstdask.cli.arguments import profile_of
    from jwstdask.engine.limits import available_cores

    profile = profile_of(options)
    if profile is None:
        return Workers(options.threads or available_cores(), True, options.grain)
    limits = profile.limits()
    if limits is not None:
        return Workers(limits[1], grain=options.grain)
    if profile.kind == "local":
        from jwstdask.engine.clusters import MEMORY, default_workers

        return Workers(default_workers(profile.bytes(MEMORY)), grain=options.grain)
    hosts = len(profile.hosts) * profile.workers_per_host if profile.kind == "ssh" else None
    return Workers(hosts, grain=options.grain)


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def print_program(
    plan: ProgramPlan, workers: Workers, output_dir: str | None = None, verbose: bool = False, context: str = ""
) -> None:
    """Print a plan: ways of processing with their exposures by mode, references, and what it all costs.

    Parameters
    ----------
    plan
        The plan.
    workers
        Who does the tasks, for the predicted time and memory.
    output_dir
        Folder of the products.
    verbose
        List every exposure, association and reference.
    context
        CRDS context, if no plan has one.
    """
    tasks, costs = plan.tasks, [item.cost for item in plan.combinations]
    costs += [Cost()] * (len(plan.associations) - len(costs))
    every: list[Plan] = [*tasks, *plan.associations]
    context = next((item.context for item in every if item.context), context)
    inputs = len({chain[0].path for chain in plan.chains} | set(plan.finished))
    print(f"{numbered(inputs, 'exposure')}, context {context or '-'}, products in {output_dir or '.'}")
    print()
    listed = _print_exposures(plan, tasks, verbose) + _print_associations(plan.associations, costs, verbose)
    told = {(item.pipeline, item.path) for item in listed}
    missing = _print_references(every, verbose)
    _print_errors([item for item in every if (item.pipeline, item.path) not in told], verbose)
    _print_total(plan, costs, workers, missing)


# ----------------------------------------------------------------------------------------------------------------------
# Exposures


def _print_exposures(plan: ProgramPlan, tasks: Sequence[ExposurePlan], verbose: bool) -> list[Plan]:
    """Exposures by what is done with them; those that had a line of their own are returned."""
    listed: list[Plan] = []
    groups: dict[tuple[Any, ...], list[ExposurePlan]] = {}
    for item in tasks:
        if item.steps:
            steps = tuple((step.name, step.skip, _parameters(step)) for step in item.steps)
            groups.setdefault((item.pipeline, item.exp_type, item.branch, steps), []).append(item)
    for members in groups.values():
        first = members[0]
        kind = f"{first.exp_type}, branch {first.branch}" if first.branch else first.exp_type
        print(f"{first.pipeline} ({kind}), {numbered(len(members), 'exposure')}")
        print_steps(first.steps, [item.steps for item in members], _skipped_by_references(members))
        if verbose or len(members) <= FEW:
            for item in members:
                _print_exposure(item, _mode(plan, item))
            listed += members
        else:
            _print_modes(plan, members)
        print()
    return listed


def _print_exposure(plan: ExposurePlan, mode: str) -> None:
    cost = plan.cost
    if plan.error is not None:
        print(f"  ERROR {plan.error}")
        return
    facts = [mode] if mode else []
    facts += [_memory(cost), f"{size(cost.read)} in", f"{size(cost.written)} out", _cpu(cost)]
    print(f"  {os.path.basename(plan.path)} {list(plan.shape)}: {', '.join(facts)}")
    if cost.chunks is not None:
        print(f"    {_divided(cost.chunks)}")
    for path in _written(plan):
        print(f"    -> {path}")


def _memory(cost: Cost) -> str:
    return f"{size(cost.memory)} memory beside the interpreter's"


def _cpu(cost: Cost) -> str:
    return f"{duration(cost.cpu)} CPU"


def _written(plan: Plan) -> list[str]:
    from jwstdask.program.record import all_products

    return list(all_products(plan).values())


def _print_modes(plan: ProgramPlan, members: Sequence[ExposurePlan]) -> None:
    """Exposures by mode, a line each, and how many cannot be run."""
    good = [item for item in members if item.error is None]
    modes: dict[tuple[str, tuple[int, ...]], list[ExposurePlan]] = {}
    for item in good:
        modes.setdefault((_mode(plan, item), item.shape), []).append(item)
    rows = [("mode", "shape", "exposures", "detectors", "task memory", "CPU", "in", "out", "products")]
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
    if good:
        _print_table(rows)
    if len(good) < len(members):
        print(f"  {_not_run(len(members) - len(good), len(members))}")


def _not_run(count: int, total: int, what: str = "exposure") -> str:
    return f"{count} of {numbered(total, what)} cannot be run"


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
    around = f", and {found.halo} around it," if found.halo else ""
    tiles = f"tile after tile of {found.tile[0]} x {found.tile[1]} pixels{around} goes through all steps"
    return f"read and written in {numbered(found.strips, 'strip')} of {found.rows} rows; {tiles}"


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


def _skipped_by_references(members: Sequence[ExposurePlan]) -> dict[str, str]:
    """Why steps of exposures that are done alike will skip themselves, as what is in their references says."""
    reasons = {}
    known: dict[str, dict[str, Any] | None] = {}
    for place, step in enumerate(members[0].steps):
        if step.skip is not None or not step.references:
            continue
        different: dict[tuple[Any, ...], ExposurePlan] = {}
        for item in members:
            different.setdefault(tuple(item.steps[place].references.items()), item)
        found = [_reference_skip_reason(item, item.steps[place], known) for item in different.values()]
        told = [reason for reason in found if reason is not None]
        if told:
            reasons[step.name] = told[0] if len(told) == len(found) else f"with some references: {told[0]}"
    return reasons


def _reference_skip_reason(plan: ExposurePlan, item: StepPlan, known: dict[str, dict[str, Any] | None]) -> str | None:
    """None if it does not skip itself, or if it cannot be known before exposure and references are there.

    ``known`` has the metadata of exposures by path: headers are read once.
    """
    from jwstdask.io.layout import open_layout
    from jwstdask.io.metadata import read_metadata
    from jwstdask.refs.reference import open_references

    try:
        if plan.path not in known:
            known[plan.path] = None
            known[plan.path] = {**read_metadata(open_layout(plan.path)), **plan.updates}
        meta = known[plan.path]
        return None if meta is None else item.step.reference_skip_reason(meta, open_references(item.references))
    except Exception:  # whatever is wrong with header or reference: the run says it of that exposure
        return None


def print_steps(
    steps: Iterable[StepPlan],
    alike: Sequence[Sequence[StepPlan]] = (),
    by_references: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Steps with the reason of every skip, references, and parameters that are not defaults with their origins.

    ``alike`` are the steps of all exposures that are done so, whose references may be others, and ``by_references`` why
    steps skip themselves when they see their references.
    """
    for place, item in enumerate(steps):
        reason = item.skip or by_references.get(item.name)
        if reason is not None:
            print(f"  {item.name:20} skipped: {reason}")
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


def _print_associations(plans: Sequence[AssociationPlan], costs: Sequence[Cost], verbose: bool) -> list[Plan]:
    """Associations by what is done with them; those that had a line of their own are returned."""
    listed: list[Plan] = []
    groups: dict[tuple[Any, ...], list[tuple[AssociationPlan, Cost]]] = {}
    for plan, cost in zip(plans, costs, strict=True):
        if plan.steps:
            steps = tuple((step.name, step.skip, _parameters(step)) for step in plan.steps)
            groups.setdefault((plan.pipeline, plan.branch, steps), []).append((plan, cost))
    for members in groups.values():
        first = members[0][0]
        print(f"{first.pipeline}, {numbered(len(members), 'association')}")
        print_steps(first.steps, [plan.steps for plan, _ in members])
        shown = members if verbose or len(members) <= FEW else members[:FEW]
        for plan, cost in shown:
            if plan.error is not None:
                print(f"  ERROR {plan.error}")
                continue
            traffic = f"{size(cost.read)} in, about {size(cost.written)} out"
            print(f"  {plan.name}: {len(plan.members)} members, {_memory(cost)}, {traffic}, {_cpu(cost)}")
            written = _written(plan)
            for path in written if verbose else plan.products.values():
                print(f"    -> {path}")
            if not verbose and len(written) > len(plan.products):
                print(f"    -> {numbered(len(written) - len(plan.products), 'member')} saved besides")
        listed += [plan for plan, _ in shown]
        if len(shown) < len(members):
            print(f"  and {len(members) - len(shown)} more (--verbose lists them)")
        print()
    return listed


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
    """Errors that have not been told yet, those of the same kind together."""
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


def _print_total(plan: ProgramPlan, costs: Sequence[Cost], workers: Workers, missing: Sequence[str]) -> None:
    every: list[Plan] = [*plan.tasks, *plan.associations]
    chains = [[item for item in chain if item.error is None] for chain in plan.chains]
    combined = [cost for item, cost in zip(plan.associations, costs, strict=True) if item.error is None]
    spent = [item.cost for chain in chains for item in chain] + combined
    facts = [f"{numbered(len(spent), 'task')}, {duration(sum(cost.cpu for cost in spent))} CPU"]
    grain = _grain(workers, len(plan.chains))
    if spent and workers.number is not None:
        seconds = START_SECONDS + _seconds(chains, combined, workers.number, grain)
        facts.append(f"about {duration(seconds)} {workers}, {duration(START_SECONDS)} of it to start")
    if len(spent) < len(every):
        what = "exposure" if len(every) == len(plan.chains) else "task"
        facts.append(_not_run(len(every) - len(spent), len(every), what))
    print("; ".join(facts))
    products = sum(len(_written(item)) for item in every if item.error is None)
    read, written = sum(cost.read for cost in spent), sum(cost.written for cost in spent)
    facts = [f"{size(read)} to read, {size(written)} to write in {numbered(products, 'product')}"]
    if missing:
        facts.append(f"{numbered(len(missing), 'reference')} missing")
    print("; ".join(facts))
    if spent:
        tasks = _together(chains, combined, workers, grain)
        # A limit of which so much is left for tasks, rounded up: what it says must do.
        limit = math.ceil((tasks + INTERPRETER_BYTES) / SHARE / 1e7) * 1e7
        print(
            f"{size(PROCESS_BYTES + tasks)} memory a process (beside pages of files that are mapped, which the system "
            f"takes back when it needs them); in a batch job allow {size(limit)} a process, for some is kept in reserve"
        )


def _grain(workers: Workers, exposures: int) -> str:
    """``exposure`` or ``strip``, as a run chooses."""
    from jwstdask.pipelines.run import choose_grain

    return choose_grain(exposures, workers.number or 1) if workers.grain == "auto" else workers.grain


def _seconds(chains: Sequence[Sequence[ExposurePlan]], combined: Sequence[Cost], workers: int, grain: str) -> float:
    """Wall time of all tasks [s]."""
    each = [sum(item.cost.cpu for item in chain) for chain in chains]
    if grain == "exposure":
        # Side by side, each by one worker: none is faster than by itself.
        wall = max([sum(each) / workers, *each])
    else:
        # One after the other, the strips of each by all workers.
        wall = sum(each) * (UNSHARED + (1 - UNSHARED) / workers)
    # One after the other, each by all.
    return wall + sum(cost.cpu for cost in combined) / workers


def _together(chains: Sequence[Sequence[ExposurePlan]], combined: Sequence[Cost], workers: Workers, grain: str) -> int:
    """Memory of the tasks that one process does at a time [bytes]."""
    number = (workers.number or 1) if workers.threads else 1
    if grain == "exposure":
        each = sorted(max((item.cost.memory for item in chain), default=0) for chain in chains)
        exposures = sum(each[-number:])
    else:
        exposures = max((_shared(item, number) for chain in chains for item in chain), default=0)
    return max([exposures, *(cost.memory + (number - 1) * THREAD_BYTES for cost in combined)])


def _shared(plan: ExposurePlan, threads: int) -> int:
    """Memory of an exposure whose strips threads do side by side [bytes]; each resamples tiles of its own."""
    return plan.cost.memory + (threads - 1) * (plan.cost.memory if "i2d" in plan.products else THREAD_BYTES)
