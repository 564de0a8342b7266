"""Processes of a run."""

from __future__ import annotations

import contextlib

import psutil


def worker_processes(leader: int) -> list[psutil.Process]:
    """Workers that a process has started on this machine: forked from a server, or spawned."""
    found = []
    for child in psutil.Process(leader).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            words = " ".join(child.cmdline())
            found += child.children() if "forkserver" in words else [child] if "spawn_main" in words else []
    return found
