"""``python -m jwstdask.engine.worker SCHEDULER ...``: a worker that listens on one address, that faces its scheduler.

Dask's own command listens on all interfaces unless the name of one is given, which is not the same on all machines.
The other arguments are those of ``dask worker``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import dask
from distributed import Nanny, Worker

LOOPBACK = "127.0.0.1:0"
"""Where pages of a worker are served: on loopback, at a port that is free. Without them they would be everywhere."""


def facing(scheduler: str) -> str:
    """The address of this machine by which it reaches the scheduler."""
    from distributed.comm import get_address_host
    from distributed.utils import get_ip

    return str(get_ip(get_address_host(scheduler)))


class FacingNanny(Nanny):
    """A worker process and its keeper on the address that faces the scheduler."""

    def __init__(self, scheduler: str, **options: Any) -> None:
        super().__init__(scheduler, **_with_host(scheduler, options))


class FacingWorker(Worker):
    """A worker without a keeper on the address that faces the scheduler, which is in Dask's configuration."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**_with_host(dask.config.get("scheduler-address"), options))


def _with_host(scheduler: str, options: dict[str, Any]) -> dict[str, Any]:
    if options.get("host") or options.get("interface"):
        return options
    return options | {"host": facing(scheduler)}


def main(arguments: Sequence[str]) -> None:
    """Run a worker until its scheduler ends."""
    from distributed.cli.dask_worker import main as dask_worker

    scheduler, *rest = arguments
    if "--interface" not in rest:
        rest += ["--host", facing(scheduler)]
    dask_worker([scheduler, *rest, "--dashboard-address", LOOPBACK])


if __name__ == "__main__":
    main(sys.argv[1:])
