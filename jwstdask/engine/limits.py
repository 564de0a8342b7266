"""What this process may use of the machine: cores and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Cores this process may use: affinity, cgroup and ``SLURM_CPUS_PER_TASK`` honoured."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    allotted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if allotted.isdigit():
        cores = min(cores, int(allotted))
    quotas = [text.partition(" ")[::2] for text in _of_cgroups("cpu.max", "cpu")]
    # The first version has a file for each number; -1 is no limit.
    quotas += zip(*(_of_cgroups(f"cpu.cfs_{name}_us", "cpu") for name in ("quota", "period")), strict=False)
    for limit, period in quotas:
        if limit.isdigit() and period.isdigit():
            cores = min(cores, int(limit) // int(period))
    return max(cores, 1)


def available_memory() -> int:
    """Bytes of memory this process and its children may use.

    The least of what the machine has, what cgroups allow (both versions), and what Slurm allotted
    (``SLURM_MEM_PER_NODE`` or ``SLURM_MEM_PER_CPU``, in MiB).
    """
    import psutil

    limits = [psutil.virtual_memory().total]
    for name in ("memory.max", "memory.limit_in_bytes"):
        limits += [int(text) for text in _of_cgroups(name, "memory") if text.isdigit()]
    node, cpu = (os.environ.get(f"SLURM_MEM_PER_{name}", "") for name in ("NODE", "CPU"))
    # Slurm says 0 where a job has all memory of its nodes.
    if node.isdigit() and int(node):
        limits.append(int(node) << 20)
    elif cpu.isdigit() and int(cpu):
        cpus = os.environ.get("SLURM_CPUS_ON_NODE", "")
        limits.append((int(cpu) << 20) * (int(cpus) if cpus.isdigit() else available_cores()))
    return min(limits)


def _of_cgroups(name: str, controller: str) -> Iterator[str]:
    """Contents of a file of the cgroups that this process is in, inner and outer ones; of both versions."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controller if controllers else _CGROUPS
        folder = root / path.lstrip("/")
        # Where a container sees its own cgroup as the root, the path is not below it.
        for place in [folder, *folder.parents]:
            if place.is_relative_to(root):
                try:
                    yield (place / name).read_text().strip()
                except OSError:
                    continue
