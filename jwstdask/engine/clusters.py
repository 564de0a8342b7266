"""Clusters of Dask: started on this machine, by a job queue, by ssh, under MPI; or one that runs already.

All talk TLS with keys of this run (see :mod:`jwstdask.engine.security`) and listen on one address: loopback where all
is on this machine, else that of one interface. Pages of the scheduler and of workers are served on loopback only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jwstdask.core.errors import ClusterError, ParameterError
from jwstdask.engine import forks
from jwstdask.engine.executor import Cluster
from jwstdask.engine.limits import available_cores, available_memory
from jwstdask.engine.profiles import QUEUES, Profile
from jwstdask.engine.resources import worker_resources
from jwstdask.engine.security import PrivateFolder, new_keys, security_of, tls_settings

if TYPE_CHECKING:
    from distributed import Security

Say = Callable[[str], None]

MEMORY = 2 << 30
"""Memory of a worker, in bytes, that the number of workers on this machine is counted by if nothing is said."""

SETTINGS: Mapping[str, Any] = {
    # What dask remembers of tasks that are done: call stacks sampled in every worker would grow by 0.1 MB a second.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.low-level-log-length": 100,
    # A task whose worker is lost is done again by who submitted it, with more memory.
    "distributed.scheduler.allowed-failures": 0,
    # References mapped from files count as memory of a worker to Dask, though they go when memory is needed. Who
    # exceeds what was asked for is found by the machine or its batch system.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
}

# A worker whose scheduler closes first may miss a heartbeat: that is no news.
_WORKER = """
import logging
import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.getLogger("distributed.worker").addFilter(lambda record: "during heartbeat" not in record.getMessage())
"""


class Elsewhere(Cluster):
    """Tasks on workers that this program started on other machines."""

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        super().everywhere(function, *arguments)
        with contextlib.suppress(Exception):
            self.client.run(function, *arguments, on_error="ignore")


def say_nothing(text: str) -> None:
    """For who wants no news."""


def say_on_terminal(text: str) -> None:
    """News as lines of text."""
    print(text, file=sys.stderr, flush=True)


def start(profile: Profile, say: Say = say_on_terminal) -> Cluster:
    """The cluster that a profile describes.

    Raises
    ------
    ClusterError
        If it cannot be started: at once if a job is refused, a machine or scheduler cannot be reached.
    """
    if profile.kind == "scheduler":
        assert profile.address is not None
        return connect(profile.address, profile.insecure, (profile.ca_file, profile.cert, profile.key))
    if profile.kind in QUEUES:
        from jwstdask.engine.jobs import start_jobs

        return start_jobs(profile, say)
    if profile.kind == "ssh":
        return _ssh(profile, say)
    if profile.kind == "mpi":
        from jwstdask.engine.mpi import client_of_ranks

        return client_of_ranks()
    return local_cluster(
        profile.limits() or default_workers(profile.bytes(MEMORY)),
        memory=profile.bytes(),
        interface=profile.interface,
        insecure=profile.insecure,
        idle=profile.seconds("idle"),
    )


def default_workers(memory: int = MEMORY) -> int:
    """Workers of one thread that this machine, or what is allotted of it, has cores and memory for."""
    return max(min(available_cores(), available_memory() // memory), 1)


def local_cluster(
    workers: int | tuple[int, int],
    memory: int = 0,
    interface: str | None = None,
    insecure: bool = False,
    idle: float = 120.0,
) -> Cluster:
    """A cluster of one-thread processes on this machine, listening on loopback only unless an interface is named.

    Parameters
    ----------
    workers
        Number of processes, or the least and the greatest number: as many as there is work for.
    memory
        Bytes of a worker; its share of what is available if 0.
    interface
        Name of a network interface.
    insecure
        Plain TCP instead of TLS.
    idle
        Seconds without work after which a worker ends.
    """
    forks.prepare()
    import dask
    from distributed import Client, LocalCluster

    least, most = workers if isinstance(workers, tuple) else (workers, workers)
    memory = memory or available_memory() // most
    security = None
    if insecure:
        warn_insecure()
    else:
        security = security_of(*new_keys())
    with dask.config.set({**SETTINGS, **forks.settings()}):
        owner = LocalCluster(
            n_workers=least,
            threads_per_worker=1,
            host=own_address(interface) if interface else "127.0.0.1",
            protocol="tcp://" if insecure else "tls://",
            security=security,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=40,
            memory_limit=memory,
            resources=worker_resources(memory),
            # For workers that start later, too.
            config=dict(SETTINGS),
            # Ctrl-C goes to all processes of a terminal; this one ends the workers, which take no notice of it.
            preload=[_WORKER],
            **forks.options(),
        )
        if most > least:
            adapt(owner, least, most, idle)
        return Cluster(Client(owner, set_as_default=False), owner)


def adapt(owner: Any, least: int, most: int, idle: float) -> None:
    """Let a cluster have as many workers as there is work for."""
    interval = min(5.0, max(idle / 4, 0.1))
    owner.adapt(
        minimum=least,
        maximum=most,
        interval=interval,
        wait_count=max(round(idle / interval), 1),
        # A worker for each task: otherwise those that are at the last tasks would be ended if these are short.
        target_duration="10 ms",
    )


def connect(
    address: str, insecure: bool = False, keys: tuple[str | None, str | None, str | None] = (None, None, None)
) -> Cluster:
    """A running cluster, by the address of its scheduler or the path of a scheduler file.

    Parameters
    ----------
    address
        Address or path.
    insecure
        Whether plain TCP will do.
    keys
        Paths of the certificate of who vouches for the parties, of the own one, and of its key; Dask's configuration
        (``distributed.comm.tls``) has a say otherwise.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached, or without encryption only.
    """
    from distributed import Client

    if os.path.exists(address):
        try:
            with open(address) as file:
                address = json.load(file)["address"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ClusterError(f"{address} is no scheduler file: {error!r}", "give the address") from None
    plain = not address.startswith(("tls://", "wss://", "inproc://"))
    if plain and not insecure:
        raise ClusterError(
            f"the scheduler {address} talks plain TCP: others who reach it can run code as you",
            "start it with TLS and give its tls:// address, or accept that with --insecure",
        )
    if plain:
        warn_insecure()
    authority, certificate, key = (path and os.path.expandvars(os.path.expanduser(path)) for path in keys)
    security: Security | None = None
    if certificate and key and not plain:
        security = security_of(certificate, key, authority)
    try:
        return Cluster(Client(address, security=security, set_as_default=False))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        if "ssl_context" in str(error):
            raise ClusterError(
                f"the scheduler {address} talks TLS, and no keys are given",
                "name ca_file, cert and key in a profile of kind scheduler (--cluster), or in Dask's configuration "
                "(distributed.comm.tls)",
            ) from None
        raise ClusterError(
            f"the scheduler {address} cannot be reached: {error}",
            "see that it runs, that this machine reaches it, and that ca_file, cert and key are its own",
        ) from error


def warn_insecure() -> None:
    """Say what plain TCP means."""
    logging.getLogger(__name__).warning(
        "plain TCP: whoever reaches the scheduler or a worker, other users of this machine too, can run code as you"
    )


def own_address(interface: str | None) -> str:
    """The address of this machine on an interface, or where it faces the network.

    Raises
    ------
    ClusterError
        If there is none.
    """
    from distributed.utils import get_ip, get_ip_interface

    if interface:
        try:
            return str(get_ip_interface(interface))
        except ValueError as error:
            raise ClusterError(f"there is no network interface {interface}: {error}", "see `ip addr`") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = str(get_ip())
    if found.startswith("127."):
        raise ClusterError("this machine faces no network", "name an interface that others reach it by: --interface")
    return found


def settings_of(profile: Profile, keys: tuple[str, str] | None) -> dict[str, Any]:
    """Settings of Dask for all parties of a cluster on several machines."""
    found = dict(SETTINGS) | {"distributed.comm.timeouts.tcp": f"{profile.seconds('tcp_timeout'):.0f} s"}
    if keys is not None:
        found |= tls_settings(*keys)
    return found


def worker_environment(profile: Profile) -> dict[str, str]:
    """Environment variables for workers: those of CRDS and of this package here, and those of the profile."""
    own = {name: value for name, value in os.environ.items() if name.startswith(("CRDS_", "JWSTDASK_"))}
    return own | {name: str(value) for name, value in (profile.environment or {}).items()}


class Held:
    """A cluster together with the folder of its keys; both go together."""

    def __init__(self, owner: Any, folder: PrivateFolder | None) -> None:
        self.owner, self.folder = owner, folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.owner, name)

    def close(self) -> None:
        """End the workers, and remove the keys."""
        try:
            self.owner.close()
        finally:
            if self.folder is not None:
                self.folder.remove()


def _ssh(profile: Profile, say: Say) -> Cluster:
    """Workers on machines that ssh reaches; the first one runs the scheduler."""
    import dask
    from distributed import Client, SSHCluster

    try:
        import asyncssh
    except ImportError:
        raise missing("asyncssh") from None
    if profile.limits() is not None:
        raise ParameterError("clusters of machines by ssh have workers_per_host", "leave workers out")
    folder = None
    keys = None
    if profile.insecure:
        warn_insecure()
    else:
        folder = PrivateFolder(profile.shared_folder)
        keys = folder.write_keys()
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0"}
    listen = {"interface": profile.interface} if profile.interface else {}
    settings = settings_of(profile, keys)
    settings["distributed.nanny.environ"] = worker_environment(profile)
    try:
        with dask.config.set(settings):
            owner = SSHCluster(
                [profile.hosts[0], *profile.hosts],
                connect_options=dict(profile.connect or {}),
                scheduler_options=options | (listen or {"host": profile.hosts[0]}) | {"protocol": protocol(profile)},
                worker_options=options
                | listen
                | {"nthreads": 1, "n_workers": profile.workers_per_host}
                | {"memory_limit": profile.bytes(), "resources": worker_resources(profile.bytes())},
                worker_class="jwstdask.engine.worker.FacingNanny",
                remote_python=profile.python,
                security=None if keys is None else security_of(*keys),
                silence_logs=40,
            )
            held = Held(owner, folder)
            try:
                return Elsewhere(Client(owner, set_as_default=False), held)
            except BaseException:
                held.close()
                raise
    except (OSError, RuntimeError, asyncssh.Error) as error:
        if folder is not None:
            folder.remove()
        raise ClusterError(
            f"workers cannot be started by ssh on {', '.join(profile.hosts)}: {error}",
            "see that `ssh HOST` asks no questions, that python, this package and shared_folder "
            f"({profile.shared_folder}) are there, and that --interface is right",
        ) from error


def facts(executor: Cluster) -> list[str]:
    """What the workers of a cluster are, a line each, from what each says of itself."""
    client = executor.client
    told = client.run(_facts)
    here = _facts()["version"]
    lines = [f"scheduler {client.scheduler.address}, {len(told)} workers"]
    for address, found in sorted(told.items()):
        version = "" if found["version"] == here else f", jwstdask {found['version']} (here {here})"
        lines.append(f"{address} on {found['host']}, {found['cores']} cores, python {found['python']}{version}")
    return lines


def _facts() -> dict[str, Any]:
    import platform

    from jwstdask import __version__

    return {
        "host": platform.node(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "version": __version__,
    }


def protocol(profile: Profile) -> str:
    """What parties talk."""
    return "tcp://" if profile.insecure else "tls://"


def missing(package: str) -> ClusterError:
    """A package of the extra ``cluster`` is not installed."""
    return ClusterError(f"{package} is not installed", 'pip install "jwstdask[cluster]"')
