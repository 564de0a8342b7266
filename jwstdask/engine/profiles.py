"""Profiles: YAML files that say where and how workers of a cluster are started."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jwstdask.core.errors import ParameterError
from jwstdask.core.params import build, par, suggest

QUEUES = ("slurm", "pbs", "sge")
KINDS = ("local", *QUEUES, "ssh", "mpi", "scheduler")
LEAST_TCP_TIMEOUT = 11.0
"""Seconds; Dask sends ten probes, one a second, and starts no worker with less."""


class _Loader(yaml.SafeLoader):
    """YAML of which 2:8 and 01:30:00 are no numbers to the base of sixty."""


_NUMBERS = {
    "tag:yaml.org,2002:int": r"[-+]?[0-9]+",
    "tag:yaml.org,2002:float": r"[-+]?[0-9]*\.[0-9]+([eE][-+]?[0-9]+)?",
}
_Loader.yaml_implicit_resolvers = {
    letter: [item for item in items if item[0] not in _NUMBERS]
    for letter, items in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list("-+.0123456789"))


@dataclass(frozen=True)
class Profile:
    """Where and how workers are started; what a profile of a job queue does not say comes from Dask's configuration.

    Raises
    ------
    ParameterError
        If values do not fit together.
    """

    kind: str = par("local", "who starts the workers", choices=KINDS)
    about: str = par("", "one line for `jwstdask clusters`")
    workers: str = par("auto", "processes of one thread each: N, MIN:MAX (as many as there is work for), auto")
    memory: str | None = par(None, "memory of a worker, such as 4 GiB")
    interface: str | None = par(None, "network interface the scheduler listens on, such as ib0")
    insecure: bool = par(False, "plain TCP: whoever reaches the scheduler can run code as you")
    tcp_timeout: str = par("15 s", "after what silence a machine counts as lost; at least 11 s")
    idle: str = par("2 min", "after what time without work a worker ends (MIN:MAX)")
    shared_folder: str = par("~/.jwstdask/clusters", "folder that all machines see, for the keys of a run")
    environment: Mapping[str, Any] | None = par(None, "environment variables of workers")
    # Job queues.
    workers_per_job: int = par(1, "workers of a job, which asks for as many cores", ge=1)
    queue: str | None = par(None, "queue or partition")
    account: str | None = par(None, "account or project that jobs are charged to")
    walltime: str | None = par(None, "time limit of a job, HH:MM:SS")
    directives: tuple[str, ...] = par((), "more options of the job, such as --constraint=haswell")
    prologue: tuple[str, ...] = par((), "lines of the job script before the worker starts, such as module load")
    python: str | None = par(None, "python on the nodes, if not the path of this one")
    local_directory: str | None = par(None, "fast folder of the nodes for Dask's own files")
    log_directory: str | None = par(
        None, "folder where the output of jobs stays; for programs logs/workers beside the products"
    )
    check: str = par("30 s", "how often the jobs are compared with the queue's own list")
    start_timeout: str | None = par(None, "how long to wait for the first worker; as long as it takes if not given")
    options: Mapping[str, Any] | None = par(None, "more arguments of dask-jobqueue's class")
    # Ssh.
    hosts: tuple[str, ...] = par((), "machines: the first one runs the scheduler, and workers as all do")
    workers_per_host: int = par(1, "workers on a machine", ge=1)
    connect: Mapping[str, Any] | None = par(None, "arguments of asyncssh.connect, such as username, port, known_hosts")
    # A cluster that runs already.
    address: str | None = par(None, "address of the scheduler, or a scheduler file")
    ca_file: str | None = par(None, "certificate of who vouches for the parties (default: Dask's configuration)")
    cert: str | None = par(None, "own certificate")
    key: str | None = par(None, "own key")

    def __post_init__(self) -> None:
        self.limits()
        if self.seconds("tcp_timeout") < LEAST_TCP_TIMEOUT:
            raise ParameterError(
                f"a tcp_timeout of {self.tcp_timeout} is too short: workers would not start",
                f"give at least {LEAST_TCP_TIMEOUT:.0f} s",
            )
        for name in ("idle", "check", "start_timeout"):
            self.seconds(name)
        if self.memory is not None:
            self.bytes()
        if self.walltime is not None and not re.fullmatch(r"(\d+-)?\d+(:\d\d){1,2}", self.walltime):
            raise ParameterError(f"walltime={self.walltime} is no time limit", "write HH:MM:SS")
        if self.kind == "scheduler" and not self.address:
            raise ParameterError("a profile of kind scheduler has no address", "give the scheduler's, or its file")
        if self.kind == "ssh" and not self.hosts:
            raise ParameterError("a profile of kind ssh has no hosts", "list them; the first one runs the scheduler")

    def limits(self) -> tuple[int, int] | None:
        """The least and the greatest number of workers; None: as many as there is room for."""
        if self.workers == "auto":
            return None
        found = re.fullmatch(r"(\d+)(?::(\d+))?", self.workers)
        if found is None:
            raise ParameterError(f"workers={self.workers} is no number", "give N, MIN:MAX or auto")
        least = int(found[1])
        most = int(found[2] or least)
        if least < 1:
            raise ParameterError(f"workers={self.workers}: there must be one worker at least", "give 1 or more")
        if most < least:
            raise ParameterError(f"workers={self.workers}: the greatest number is less than the least", "give MIN:MAX")
        return least, most

    def seconds(self, name: str) -> float:
        """A time in seconds; infinite if it is not given."""
        text = getattr(self, name)
        if text is None:
            return float("inf")
        from dask.utils import parse_timedelta

        try:
            return float(parse_timedelta(re.sub(r"min$", "minutes", text.strip()), default="seconds"))
        except (ValueError, KeyError):
            raise ParameterError(f"{name}={text} is no time", "write it like 30 s or 5 min") from None

    def bytes(self, default: int = 0) -> int:
        """Memory of a worker."""
        if self.memory is None:
            return default
        from dask.utils import parse_bytes

        try:
            return int(parse_bytes(self.memory))
        except ValueError:
            raise ParameterError(f"memory={self.memory} is no amount of memory", "write it like 4 GiB") from None


def shipped() -> Path:
    """The folder of the profiles that come with the package."""
    package = Path(__file__).parent.parent
    installed = package / "cluster"
    return installed if installed.is_dir() else package.parent / "cluster"


def folders() -> list[Path]:
    """Where profiles are looked for by name, the user's own first."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return [Path(home) / "jwstdask", shipped()]


def known() -> dict[str, Path]:
    """Profiles by name."""
    found: dict[str, Path] = {}
    for folder in reversed(folders()):
        if folder.is_dir():
            found |= {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in (".yaml", ".yml")}
    return found


def read_profile(name: str, changes: Mapping[str, Any] | None = None) -> Profile:
    """A profile by its name or path, with some values from the command line.

    Raises
    ------
    ParameterError
        If there is no such profile or something in it is wrong.
    """
    path = Path(os.path.expanduser(name))
    if not name.endswith((".yaml", ".yml")):
        profiles = known()
        if name not in profiles:
            raise ParameterError(f"there is no cluster profile {name!r}", suggest(name, profiles))
        path = profiles[name]
    try:
        content = yaml.load(path.read_text(), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterError(f"the cluster profile {path} cannot be read: {error}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ParameterError(f"the cluster profile {path} is no table of names and values")
    layers = [(str(path), {str(key): value for key, value in content.items()}), ("command line", dict(changes or {}))]
    profile, _ = build(Profile, layers, path.stem)
    assert isinstance(profile, Profile)
    return profile
