"""Running plans: exposures for one pipeline, or a whole program through its stages."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jwstdask.core.errors import JwstdaskError
from jwstdask.core.plan import AssociationPlan, ExposurePlan, Outcome
from jwstdask.core.settings import Settings
from jwstdask.engine.association import run_association
from jwstdask.engine.executor import Executor, Serial
from jwstdask.engine.exposure import run_exposure
from jwstdask.engine.resources import Needs
from jwstdask.io.product import prepare_folder
from jwstdask.io.remote import is_url
from jwstdask.io.temporary import scratch_folder, sweep
from jwstdask.pipelines.inputs import find_inputs
from jwstdask.pipelines.outcomes import Outcomes
from jwstdask.pipelines.program_plan import ProgramPlan, plan_program, product_paths
from jwstdask.pipelines.resume import Ledger, Resume, opened_ledger
from jwstdask.pipelines.sequence import Linked, sequences, tell_lost
from jwstdask.program.journal import Reading

Report = Callable[[Outcome], None]
"""Called with each outcome as it arrives."""

Work = Callable[[ExposurePlan, "Executor | None"], Outcome]
"""Does the work of a plan."""


def choose_grain(exposures: int, workers: int) -> str:
    """``exposure`` (one task an exposure) where every worker has one to do, else ``strip`` (one task a strip)."""
    return "exposure" if exposures >= workers else "strip"


def run_chain(
    plans: Sequence[ExposurePlan] | Linked, executor: Executor | None = None, work: Work = run_exposure
) -> list[Outcome]:
    """The stages of one exposure, one after the other; a failure ends them."""
    if isinstance(plans, Linked):
        ready, lost = plans.ready()
        return tell_lost(run_chain(ready, executor, work), lost)
    outcomes: list[Outcome] = []
    for plan in plans:
        outcomes.append(work(plan, executor))
        if outcomes[-1].error is not None:
            break
    return outcomes


def run_chains(
    chains: Sequence[Sequence[ExposurePlan]],
    executor: Executor,
    report: Report | None = None,
    grain: str = "auto",
    work: Work = run_exposure,
    keep: bool = True,
) -> list[Outcome]:
    """Many exposures, each through its own stages; those of a detector in order of time where persistence is saved.

    Parameters
    ----------
    chains
        Plans of each exposure in order of their stages.
    executor
        Where they run.
    report
        Called with each outcome as it arrives.
    grain
        ``auto``, ``exposure`` or ``strip``; the products are the same bits.
    work
        What does a plan.
    keep
        Whether outcomes are returned; otherwise they are only reported.
    """

    paths = [path for chain in chains for plan in chain for path in product_paths(plan)]
    with swept(executor, paths), scratch_folder(os.path.dirname(paths[0]) if paths else ".", make=False) as folder:
        ordered = sequences(chains, str(folder))

        def tell(index: int, outcomes: list[Outcome]) -> None:
            ordered.done(index)
            for outcome in outcomes if report is not None else ():
                report(outcome)  # type: ignore[misc]
            if not keep:
                outcomes.clear()

        if grain == "auto":
            grain = choose_grain(len(chains) - len(ordered.after), executor.workers)
        if grain == "exposure":
            results = executor.map(partial(run_chain, work=work), ordered.items, tell, ordered.after, _NEEDS)
        else:
            results = Serial().map(partial(run_chain, executor=executor, work=work), ordered.items, tell)
    found: dict[int, list[Outcome]] = dict(zip(ordered.order, results, strict=True))
    return [outcome for index in range(len(chains)) for outcome in found[index]]


def _memory(chain: Sequence[ExposurePlan] | Linked) -> int:
    plans = chain.plans if isinstance(chain, Linked) else chain
    return max((plan.cost.memory for plan in plans if plan.error is None), default=0)


def _short(outcomes: list[Outcome]) -> bool:
    return bool(outcomes) and outcomes[-1].short


def _undone(chain: Sequence[ExposurePlan] | Linked, error: JwstdaskError) -> list[Outcome]:
    first = (chain.plans if isinstance(chain, Linked) else chain)[0]
    return [Outcome(first.path, first.pipeline, error=f"{first.path}: {error}")]


_NEEDS = Needs(_memory, _short, _undone)
"""What the tasks of chains need."""


def run_associations(
    plans: Sequence[AssociationPlan],
    executor: Executor,
    report: Report | None = None,
    work: Callable[..., Outcome] = run_association,
) -> list[Outcome]:
    """Associations one after the other, each on all workers."""
    outcomes = []
    with swept(executor, (path for plan in plans for path in product_paths(plan))):
        for plan in plans:
            outcomes.append(work(plan, executor))
            if report is not None:
                report(outcomes[-1])
    return outcomes


@contextlib.contextmanager
def swept(executor: Executor, paths: Iterable[str]) -> Iterator[None]:
    """Remove what killed processes have left beside these products, before and after; make sure that URLs take them."""
    folders = sorted({os.path.dirname(path) or "." for path in paths})
    for folder in folders:
        if is_url(folder):
            prepare_folder(folder)
    executor.everywhere(sweep, folders)
    try:
        yield
    finally:
        executor.everywhere(sweep, folders)


@dataclass
class ProgramResult:
    """What became of a program."""

    plan: ProgramPlan
    outcomes: Sequence[Outcome]
    wall: float
    fresh: int = 0
    """Outcomes of an earlier run that are up to date."""

    def products(self, kind: str) -> list[str]:
        """Paths of the products of a kind (``rate``, ``cal``, ``i2d``, ``crf``, ``cat`` ...), in order."""
        return [
            path
            for outcome in self.outcomes
            for name, path in outcome.products.items()
            if name == kind or name.startswith(f"{kind}:")
        ]

    @property
    def failed(self) -> list[Outcome]:
        """Outcomes with an error."""
        return [outcome for outcome in self.outcomes if outcome.error is not None]


def run_program(
    inputs: Sequence[str],
    through: int,
    settings: Settings,
    executor: Executor,
    steps: Mapping[str, Settings] | None = None,
    report: Report | None = None,
    grain: str = "auto",
    planned: Callable[[ProgramPlan], None] | None = None,
    more: Callable[[int], None] | None = None,
    resume: Resume | None = None,
    on_error: str = "continue",
    min_members: int | None = None,
    say: Callable[[str], None] | None = None,
    plan: ProgramPlan | None = None,
) -> ProgramResult:
    """Calibrate a program through Stage ``through``.

    Parameters
    ----------
    inputs
        Files, folders, associations.
    through
        1, 2 or 3.
    settings
        The request.
    executor
        Where tasks run.
    steps
        Pipeline alias to the request with its own parameters.
    report
        Called with each outcome.
    grain
        See :func:`run_chains`.
    planned
        Called once the plan is made, before any pixel is read.
    more
        Called with the number of associations, once they are known.
    resume
        Keep a journal in the folder of the products, and do only what is missing or stale; None to do everything.
    on_error
        ``continue`` with the others, or ``stop`` at the first failure.
    min_members
        An association is combined without the members that failed if so many are left; None: one that was given needs
        all its members, one made here needs one.
    say
        Called with lines for people.
    plan
        What is to be done, if it is known already (from a saved plan, or since an earlier run); ``inputs`` and
        parameters do not count then.

    Raises
    ------
    PlanError
        If another run is at work in the folder.
    """
    started = time.perf_counter()
    say = say or (lambda _: None)
    if plan is None:
        plan = plan_program(find_inputs(inputs), through, settings, steps or {}, min_members)
        for note in plan.notes:
            say(note)
    folder = home_of(plan, settings)
    with contextlib.ExitStack() as stack:
        ledger = None if resume is None else stack.enter_context(opened_ledger(folder, resume, executor))
        run = _Run(executor, report, grain, on_error, ledger, say)
        chains = run.stale(plan.chains)
        if planned is not None:
            planned(replace(plan, chains=chains))
        if settings.output_dir:
            prepare_folder(settings.output_dir)
        with contextlib.suppress(_Stopped):
            run.exposures(chains)
            if plan.combine is not None:
                calibrated = [
                    *plan.finished,
                    *(item.products["cal"] for item in run.outcomes if "cal" in item.products),
                ]
                lost = len({item.path for item in run.outcomes if item.error is not None})
                if lost:
                    say(f"Stage 3 goes on without {lost} exposure{'s' * (lost > 1)} that failed")
                plan.take(plan.combine(calibrated, {}))
                (associations,) = run.stale([plan.associations])
                if more is not None:
                    more(len(associations))
                run.associations(associations)
        return ProgramResult(plan, run.ordered(plan), time.perf_counter() - started, run.fresh)


def count_fresh(plan: ProgramPlan, settings: Settings, resume: Resume) -> tuple[int, int]:
    """How many tasks of Stages 1 and 2 are up to date, and how many there are; nothing is written."""
    folder = home_of(plan, settings)
    tasks = [task for chain in Ledger(Reading(folder), resume).sort(plan.chains) for task in chain]
    return sum(task.fresh for task in tasks), len(tasks)


def home_of(plan: ProgramPlan, settings: Settings) -> str:
    """Folder of the products, where the journal is kept."""
    if settings.output_dir:
        return settings.output_dir
    paths = [path for chain in plan.chains for item in chain for path in product_paths(item)]
    return os.path.dirname([*paths, *plan.finished, "."][0]) or "."


class _Stopped(Exception):
    """An exposure failed, and nothing more shall be begun."""


class _Run:
    """A run of a program: what is done, what is told, what was up to date."""

    def __init__(
        self,
        executor: Executor,
        report: Report | None,
        grain: str,
        on_error: str,
        ledger: Ledger | None,
        say: Callable[[str], None],
    ) -> None:
        self.executor, self.report, self.grain, self.stop = executor, report, grain, on_error == "stop"
        self.ledger, self.say = ledger, say
        self.outcomes = Outcomes()
        self.fresh = 0
        self._guard = threading.Lock()

    def stale(self, chains: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """The plans that are not up to date."""
        if self.ledger is None:
            return [list(chain) for chain in chains]
        sorted_tasks = self.ledger.sort(chains)
        tasks = [task for chain in sorted_tasks for task in chain]
        done = [self.ledger.earlier(task) for task in tasks if task.fresh]
        for outcome in done:
            self.outcomes.append(outcome)
        self.fresh += len(done)
        if done:
            self.say(f"{len(done)} of {len(tasks)} are up to date")
        return [[task.plan for task in chain if not task.fresh] for chain in sorted_tasks]

    def exposures(self, chains: Sequence[Sequence[ExposurePlan]]) -> None:
        """Stages 1 and 2."""
        chains = [chain for chain in chains if chain]
        work = run_exposure if self.ledger is None else self.ledger.work
        if chains:
            run_chains(chains, self.executor, self._tell(chains), self.grain, work, keep=False)

    def associations(self, plans: Sequence[AssociationPlan]) -> None:
        """Stage 3."""
        work = run_association if self.ledger is None else partial(self.ledger.work, work=run_association)
        if plans:
            run_associations(plans, self.executor, self._tell([plans]), work)

    def _tell(self, chains: Sequence[Sequence[Any]]) -> Report:
        plans = {(plan.pipeline, plan.path): plan for chain in chains for plan in chain}

        def tell(outcome: Outcome) -> None:
            if self.ledger is not None:
                self.ledger.settle(plans[outcome.pipeline, outcome.path], outcome)
            with self._guard:
                self.outcomes.append(outcome)
            if self.report is not None:
                self.report(outcome)
            if self.stop and outcome.error is not None:
                if self.ledger is not None:
                    self.ledger.status = "stopped"
                self.say("stopped at the first failure (--on-error stop)")
                raise _Stopped

        return tell

    def ordered(self, plan: ProgramPlan) -> Outcomes:
        """All outcomes in the order of the plan."""
        plans = [*(item for chain in plan.chains for item in chain), *plan.associations]
        order = {(item.pipeline, item.path): place for place, item in enumerate(plans)}  # type: ignore[attr-defined]
        with self._guard:
            return self.outcomes.ordered(order)


def outcome_errors(outcomes: Iterable[Outcome]) -> list[str]:
    """One line for each failure."""
    return [outcome.error for outcome in outcomes if outcome.error is not None]
