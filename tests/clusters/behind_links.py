"""Exposures on workers that are reached by links: ``python -m tests.clusters.behind_links WORK.json``.

Started where the scheduler shall be. The first line of the output is the scheduler's address; once there are two
workers the run begins, and a line follows for each exposure that is done, with its error if there was one.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

from jwstdask.core.plan import ExposurePlan, Outcome
from jwstdask.core.settings import Settings
from jwstdask.engine.executor import Cluster, Executor, Serial
from jwstdask.engine.exposure import run_exposure
from jwstdask.pipelines.detector1 import Detector1Pipeline
from jwstdask.pipelines.planner import Request, plan_exposures
from jwstdask.pipelines.run import run_chains


def plans(uncals: list[str], folder: str) -> list[ExposurePlan]:
    """Stage 1 of exposures into a folder."""
    return plan_exposures(Detector1Pipeline, [Request(path) for path in uncals], Settings(output_dir=folder))


def slowly(seconds: float, plan: ExposurePlan, executor: Executor | None = None) -> Outcome:
    """An exposure that takes longer."""
    time.sleep(seconds)
    return run_exposure(plan, executor)


def tell(outcome: Outcome) -> None:
    """A line for an exposure."""
    print(json.dumps({"done": outcome.path, "error": outcome.error}), flush=True)


def main(work: dict) -> None:
    """Run exposures into several folders; here and now if there is no address to listen on."""
    chains = [[plan] for folder in work["folders"] for plan in plans(work["uncals"], folder)]
    if work["host"] is None:
        run_chains(chains, Serial(), tell)
        return
    import dask
    from distributed import Client, LocalCluster

    from jwstdask.engine.clusters import SETTINGS

    with (
        dask.config.set({**SETTINGS, "distributed.comm.timeouts.tcp": work["tcp_timeout"]}),
        LocalCluster(n_workers=0, host=work["host"], dashboard_address="127.0.0.1:0", silence_logs=40) as owner,
        Client(owner, set_as_default=False) as client,
    ):
        print(json.dumps(owner.scheduler_address), flush=True)
        client.wait_for_workers(2, timeout=60)
        run_chains(chains, Cluster(client), tell, "exposure", partial(slowly, work["seconds"]))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
