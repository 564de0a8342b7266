"""Worker processes on this machine are forked from one that has imported everything.

Imports take some seconds of CPU. They are done once, not by each worker, and while the leading process plans.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

_ENVIRONMENT: Mapping[str, str] = {
    # As Dask sets them before it starts a worker.
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "6640",
}

_PRELOADED = ["jwstdask.engine.preloaded", "jwstdask.engine.preloaded_wcs"]

_PASSING = ("AWS_", "CRDS_", "FSSPEC_", "JWSTDASK_")
"""Beginnings of variables that are not the server's: workers get those of the time they are started."""


def available() -> bool:
    """Whether workers can be forked: elsewhere system libraries do not stand it."""
    return sys.platform == "linux"


def prepare(stage1: bool = False) -> None:
    """Start the server, if it does not run; it is ready some seconds later, and nobody waits for it.

    With ``stage1`` it leaves out what only later stages need, and is ready a second earlier.
    """
    if not available():
        return
    import multiprocessing
    from multiprocessing import forkserver, resource_tracker

    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED[:1] if stage1 else _PRELOADED)
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_PASSING)}
    own = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(own)
    # Ctrl-C goes to all processes of a terminal: the server, and what is forked from it, leave it to this one. The
    # tracker lets signals through again when it is started, hence first.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name in own:
            del os.environ[name]
        os.environ.update(before)


def options() -> dict[str, Any]:
    """Options of a LocalCluster whose workers are forked."""
    return {"env": dict(os.environ)} if available() else {}


def settings() -> dict[str, Any]:
    """Settings of Dask for it."""
    return {"distributed.worker.multiprocessing-method": "forkserver"} if available() else {}
