"""A real sshd on loopback, with host key, user key and port of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.clusters.slurm import free_ports

_CONFIGURATION = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
"""


def missing() -> str:
    """Why there can be no sshd here; nothing if there can."""
    if shutil.which("sshd", path=_PATH) is None or shutil.which("ssh-keygen") is None:
        return "sshd not installed: apt-get install openssh-server"
    return "" if os.getuid() == 0 else "sshd is started by root"


_PATH = os.environ.get("PATH", "") + ":/usr/sbin"


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[dict[str, Any]]:
    """Start sshd; arguments of ``asyncssh.connect`` to get in."""
    (port,) = free_ports(1)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "sshd_config").write_text(_CONFIGURATION.format(port=port, folder=folder))
    # Where the daemon gives up privileges.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with open(folder / "sshd.log", "wb") as log:
        server = subprocess.Popen(
            [str(shutil.which("sshd", path=_PATH)), "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _await_port(port, server, folder / "sshd.log")
        host = (folder / "host.pub").read_text().split()[:2]
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(host)}\n")
        yield {
            "port": port,
            "username": "root",
            "client_keys": [str(folder / "user")],
            "known_hosts": str(folder / "known_hosts"),
        }
    finally:
        server.terminate()
        server.wait(10)


def _await_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
