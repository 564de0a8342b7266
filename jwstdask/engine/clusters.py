"""Clusters of Dask: started on this machine, or one that runs already."""

from __future__ import annotations

import os

from jwstdask.engine.executor import Cluster

# What dask remembers of tasks that are done. Call stacks sampled in every worker would grow by some 0.1 MB a second.
_FORGETFUL = {"distributed.worker.profile.enabled": False, "distributed.admin.low-level-log-length": 100}


# A worker whose scheduler closes first may miss a heartbeat: that is no news.
_WORKER = """
import logging
import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.getLogger("distributed.worker").addFilter(lambda record: "during heartbeat" not in record.getMessage())
"""


def local_cluster(workers: int) -> Cluster:
    """A cluster of one-thread processes on this machine, listening on loopback only."""
    import dask
    from distributed import Client, LocalCluster

    with dask.config.set(_FORGETFUL):
        owner = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=40,
            memory_limit=0,
            # For workers that start later, too.
            config=dict(_FORGETFUL),
            # Ctrl-C goes to all processes of a terminal; this one ends the workers, which take no notice of it.
            preload=[_WORKER],
        )
        return Cluster(Client(owner), owner)


def connect(address: str) -> Cluster:
    """A running cluster, by the address of its scheduler or the path of a scheduler file."""
    from distributed import Client

    if os.path.exists(address):
        return Cluster(Client(scheduler_file=address))
    return Cluster(Client(address))
