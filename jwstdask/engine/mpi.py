"""Ranks of MPI as the parties of a cluster, through dask-mpi: ``mpirun -n N jwstdask run ... --cluster mpi``.

Rank 0 runs the scheduler, rank 1 this program, the others are workers of one thread.
"""

from __future__ import annotations

import contextlib
import logging

from jwstdask.core.errors import ClusterError, ParameterError
from jwstdask.engine.clusters import Elsewhere, missing, own_address, settings_of, warn_insecure
from jwstdask.engine.profiles import Profile
from jwstdask.engine.resources import worker_resources
from jwstdask.engine.security import new_keys
from jwstdask.engine.worker import LOOPBACK

_CLIENT = 1


def join(profile: Profile) -> None:
    """Take part in the cluster of all ranks: returns on the rank that is this program, the others work, and exit.

    To be called before anything else is done, for every rank runs the command.

    Raises
    ------
    ClusterError
        If there are too few ranks.
    ParameterError
        If the number of workers is given otherwise than by the number of ranks.
    """
    import dask

    try:
        from dask_mpi import initialize
        from mpi4py import MPI
    except ImportError:
        raise missing("dask-mpi") from None
    if profile.limits() is not None:
        raise ParameterError("workers under MPI are as many as ranks but two", "give mpirun -n N, and no workers")
    world = MPI.COMM_WORLD
    if world.Get_size() < 3:
        if world.Get_rank():
            raise SystemExit(1)
        raise ClusterError(
            f"there are {world.Get_size()} ranks of MPI: one is the scheduler, one this program, the others work",
            "start it with `mpirun -n N jwstdask run ... --cluster mpi`, N three or more",
        )
    rank = world.Get_rank()
    one_machine = world.Split_type(MPI.COMM_TYPE_SHARED).Get_size() == world.Get_size()
    keys = None
    if not profile.insecure:
        # Text, which goes by MPI, not by files.
        keys = world.bcast(new_keys() if rank == 0 else None, root=0)
    elif rank == _CLIENT:
        warn_insecure()
    dask.config.set(settings_of(profile, keys))
    # Ranks end in no order: those that lose each other then have nothing to tell.
    for name in ("distributed", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not initialize(
        interface=profile.interface or (_interface(one_machine) if rank == 0 else None),
        nthreads=1,
        memory_limit=profile.bytes(),
        dashboard_address=LOOPBACK,
        protocol="tcp" if profile.insecure else "tls",
        worker_class="jwstdask.engine.worker.FacingWorker",
        worker_options={"dashboard_address": LOOPBACK, "resources": worker_resources(profile.bytes())},
        comm=world,
        exit=False,
    ):
        raise SystemExit(0)


def _interface(one_machine: bool) -> str:
    """The interface that faces the other ranks: loopback where all are on this machine."""
    import psutil

    address = "127.0.0.1" if one_machine else own_address(None)
    for name, addresses in psutil.net_if_addrs().items():
        if address in [item.address for item in addresses]:
            return str(name)
    raise ClusterError(f"no network interface has the address {address}", "name one: --interface")


def client_of_ranks() -> Elsewhere:
    """Tasks on the other ranks."""
    from distributed import Client

    return Elsewhere(Client(set_as_default=False), _Ranks())


class _Ranks:
    """All ranks but this one."""

    def close(self) -> None:
        from distributed import Client

        with contextlib.suppress(Exception), Client(set_as_default=False) as client:
            client.shutdown()
