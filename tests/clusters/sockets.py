"""Where processes listen."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable

import psutil


def tree(process: int | None = None) -> list[psutil.Process]:
    """A process, this one by default, and all that it started."""
    first = psutil.Process(process)
    return [first, *first.children(recursive=True)]


def listening(processes: Iterable[psutil.Process]) -> list[tuple[str, int]]:
    """Addresses and ports that processes listen on."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            connections = process.net_connections(kind="inet")
            found += [tuple(item.laddr) for item in connections if item.status == psutil.CONN_LISTEN]
    return found


def exposed(found: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those that others than this machine may reach."""
    return [item for item in found if not ipaddress.ip_address(item[0]).is_loopback]
