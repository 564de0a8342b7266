"""From work to its outcome: errors kept with their exposure, time and memory measured."""

from __future__ import annotations

import os
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

from jwstdask.core.errors import JwstdaskError, StepError
from jwstdask.core.plan import AssociationPlan, ExposurePlan, Outcome, StepRecord
from jwstdask.engine.log import current, worker_name
from jwstdask.engine.passes import reason_of
from jwstdask.engine.resources import lacked_memory, size_text
from jwstdask.io.transient import patiently


def measured(plan: ExposurePlan | AssociationPlan, work: Callable[[], Outcome]) -> Outcome:
    """Do the work of a plan.

    Returns
    -------
    outcome
        With wall and CPU time, peak memory, and the error, if there was one, which names the input. Only
        KeyboardInterrupt and its like are raised. What may be gone at the next try is tried again.
    """
    started, clock = time.perf_counter(), time.process_time()
    outcome = Outcome(plan.path, plan.pipeline)
    begun = time.time()
    if plan.error is not None:
        return replace(outcome, error=plan.error)
    try:
        outcome = patiently(work, plan.path)
    except Exception as error:
        reason = str(error) if isinstance(error, JwstdaskError) else reason_of(error)
        if os.path.basename(plan.path) not in reason:
            reason = f"{plan.path}: {reason}"
        short = lacked_memory(error)
        if short:
            reason = f"{reason}. {_remedy(plan)}"
        outcome = replace(outcome, error=reason, traceback=traceback.format_exc(), short=short)
        if isinstance(error, StepError):
            outcome = replace(outcome, steps=(StepRecord(error.step, "FAILED", error.reason),))
    log = current()
    return replace(
        outcome,
        warnings=() if log is None else log.warnings,
        worker=worker_name(),
        started=begun,
        wall=time.perf_counter() - started,
        cpu=time.process_time() - clock,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _remedy(plan: ExposurePlan | AssociationPlan) -> str:
    """What to do where memory does not suffice."""
    predicted = plan.cost.memory if isinstance(plan, ExposurePlan) else 0
    known = f"{size_text(predicted)} were predicted. " if predicted else ""
    return f"{known}Give workers more memory, or let fewer of them, or fewer threads, share this machine"
