"""Anonymous memory of the process that calibrates, after each of many exposures: a process of its own.

``python measure_growth.py '{"paths": [...], "workers": 1, "output_dir": ...}'`` prints a list of bytes. With 0 workers
exposures are calibrated by this process, else by a worker process of the cluster that ``--workers`` starts.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from jwstdask.core.settings import Settings
from jwstdask.engine.clusters import local_cluster
from jwstdask.engine.executor import Threads
from jwstdask.pipelines.planner import Request, plan_exposures
from jwstdask.pipelines.registry import find
from jwstdask.pipelines.run import run_chains


def anonymous(pid: int) -> int:
    """Resident bytes that no file backs, and that are not swapped out."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no RssAnon")


def main(work: dict) -> None:
    settings = Settings((), output_dir=work["output_dir"])
    plans = plan_exposures(find("calwebb_detector1"), [Request(path) for path in work["paths"]], settings)
    executor = local_cluster(work["workers"]) if work["workers"] else Threads(1)
    pids = list(executor.client.run(os.getpid).values()) if work["workers"] else [os.getpid()]
    found: list[int] = []
    errors: list[str] = []

    def sample(outcome) -> None:
        found.append(max(map(anonymous, pids)))
        if outcome.error is not None:
            errors.append(outcome.error)

    try:
        run_chains([[plan] for plan in plans], executor, sample)
    finally:
        executor.close()
    if errors:
        raise SystemExit(errors[0])
    print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
