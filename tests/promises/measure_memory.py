"""Peak anonymous memory of one exposure, above the interpreter's own: a process of its own.

``python measure_memory.py '{"path": ..., "pipeline": ..., "parameters": {...}, "output_dir": ...}'`` prints prediction
and peak [bytes]. The exposure is processed once before, so that kernels are loaded and caches are filled; what that
leaves counts as the interpreter's own.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import threading
import time

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
    settings = Settings((Layer("test", {}, work["parameters"]),), output_dir=work["output_dir"])
    plan = plan_exposures(find(work["pipeline"]), [Request(work["path"])], settings)[0]
    outcome = run_exposure(plan, Serial())
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
    run_exposure(plan, Serial())
    done.set()
    thread.join()
    print(json.dumps({"predicted": plan.cost.memory, "peak": peak - base, "base": base}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
