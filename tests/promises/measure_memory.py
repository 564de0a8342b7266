"""Peak anonymous memory of one exposure, above the interpreter's own: a process of its own.

``python measure_memory.py '{"path": ..., "pipeline": ..., "parameters": {...}, "output_dir": ...}'`` prints prediction
and peak [bytes], wall and CPU seconds; parameters are those of the steps, or of a step that runs alone. The exposure
(or ``"warm"``, another one) is processed once before: kernels are loaded then and caches filled; what that leaves
counts as the interpreter's own. A sampled peak may be missed on a busy machine, and is never too high: the largest of
three counts (``"times"``).
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import threading
import time

from jwstdask.core.pipeline import Pipeline
from jwstdask.core.settings import Layer, Settings
from jwstdask.engine.executor import Serial
from jwstdask.engine.exposure import run_exposure
from jwstdask.pipelines.planner import Request, plan_exposures
from jwstdask.pipelines.registry import find

PAGE = os.sysconf("SC_PAGE_SIZE")


def anonymous() -> int:
    """Resident bytes that no file backs."""
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * PAGE


def main(work: dict) -> None:
    target = find(work["pipeline"])
    parts = ({}, work["parameters"]) if issubclass(target, Pipeline) else (work["parameters"], {})
    settings = Settings((Layer("test", *parts),), output_dir=work["output_dir"])
    requests = [Request(work.get("warm", work["path"])), Request(work["path"])]
    warm, plan = (plan_exposures(target, [request], settings)[0] for request in requests)
    outcome = run_exposure(warm, Serial())
    if outcome.error is not None:
        raise SystemExit(outcome.error)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    peak = base = anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous())
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(work.get("times", 3)):
        started, cpu = time.perf_counter(), time.process_time()
        outcome = run_exposure(plan, Serial())
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        if outcome.error is not None:
            break
    done.set()
    thread.join()
    if outcome.error is not None:
        raise SystemExit(outcome.error)
    found = {"predicted": plan.cost.memory, "peak": peak - base, "base": base, "seconds": seconds, "cpu": cpu}
    print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
