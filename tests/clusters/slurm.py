"""A small real Slurm on loopback: a controller and nodes that are all this machine, with ports and keys of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "sinfo")

_CONFIGURATION = """
ClusterName=jwstdask
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/socket/munge
CryptoType=crypto/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=100000
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ReturnToService=2
KillWait=2
MinJobAge=300
MessageTimeout=20
DefMemPerCPU=100
"""


@dataclass(frozen=True)
class Slurm:
    """A Slurm that runs; commands take ``environment``."""

    folder: Path
    environment: dict[str, str]

    def command(self, *words: str) -> str:
        """What a command of Slurm says."""
        done = subprocess.run(
            words, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """States of the jobs that wait or run, by number."""
        return dict(line.split() for line in self.command("squeue", "--noheader", "--format", "%i %T").splitlines())


def missing() -> str:
    """Why there can be no Slurm here; nothing if there can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install slurmctld slurmd slurm-client munge"
    return "" if os.getuid() == 0 else "the daemons of Slurm are started by root"


@contextlib.contextmanager
def slurm(nodes: int, cpus: int, memory: int) -> Iterator[Slurm]:
    """Start Slurm with so many nodes of so many cores and MB of memory, and end it."""
    # Names of sockets must be short.
    folder = Path(tempfile.mkdtemp(prefix="jds"))
    folder.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    ports = free_ports(1 + nodes)
    configuration = _CONFIGURATION.format(host=host, port=ports[0], folder=folder)
    for index in range(1, nodes + 1):
        configuration += (
            f"NodeName=n{index} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[index]} CPUs={cpus} Boards=1 "
            f"SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory} State=UNKNOWN\n"
        )
    configuration += f"PartitionName=debug Nodes=n[1-{nodes}] Default=YES MaxTime=01:00:00 State=UP\n"
    (folder / "slurm.conf").write_text(configuration)
    (folder / "state").mkdir()
    (folder / "socket").mkdir(mode=0o711)
    (folder / "socket").chmod(0o711)
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o400)
    found = Slurm(folder, {"SLURM_CONF": str(folder / "slurm.conf")})
    try:
        files = {"key-file": "key", "socket": "socket/munge", "pid-file": "munged.pid", "log-file": "munged.log"} | {
            "seed-file": "seed"
        }
        _start("munged", "--force", *(f"--{name}={folder}/{file}" for name, file in files.items()))
        _start("slurmctld", "-f", f"{folder}/slurm.conf")
        for index in range(1, nodes + 1):
            (folder / f"spool-n{index}").mkdir()
            _start("slurmd", "-f", f"{folder}/slurm.conf", "-N", f"n{index}")
        deadline = time.monotonic() + 30
        while found.command("sinfo", "--noheader", "-N", "--format", "%t").split() != ["idle"] * nodes:
            assert time.monotonic() < deadline, "Slurm does not come up: " + (folder / "slurmctld.log").read_text()
            time.sleep(0.1)
        yield found
    finally:
        _end_jobs(found)
        for name in ("slurmd", "slurmctld", "munged"):
            for file in folder.glob(f"{name}*.pid"):
                _end(file, name)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = []
    for _ in range(count):
        sockets.append(socket.socket())
        sockets[-1].bind(("127.0.0.1", 0))
    found = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return found


def _start(*words: str) -> None:
    with open(os.devnull, "r+b") as nothing:
        done = subprocess.run(words, stdin=nothing, stdout=nothing, stderr=subprocess.PIPE, timeout=30, check=False)
    assert done.returncode == 0, (words, done.stderr.decode())


def _end_jobs(found: Slurm) -> None:
    """Cancel jobs and wait for their ends, lest a process stays."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found.command("scancel", "--user", "root")
        deadline = time.monotonic() + 10
        while found.jobs() and time.monotonic() < deadline:
            time.sleep(0.1)


def _end(file: Path, name: str) -> None:
    """End a daemon of ours, if its number is still its own."""
    with contextlib.suppress(OSError, ValueError):
        process = int(file.read_text())
        for number in (signal.SIGTERM, signal.SIGKILL):
            for _ in range(50):
                if Path(f"/proc/{process}/comm").read_text().strip() != name:
                    return
                os.kill(process, number)
                time.sleep(0.1)
