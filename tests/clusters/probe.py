"""Another user of this machine who tries to run code on a cluster: ``python -m tests.clusters.probe ADDRESS ...``.

Started by root, it loads what it needs, becomes nobody, and tries in every way it knows. A line of JSON says what the
code that it sent said who it is, or the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 3.0


def probe(*addresses: str) -> dict[str, str]:
    """What nobody gets from addresses of a scheduler and of workers, by way and address."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.clusters.probe", *addresses],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


async def _try(address: str, arguments: dict[str, Any]) -> str:
    """The user that code runs as which is sent to a party."""
    from distributed.core import rpc
    from distributed.protocol.pickle import dumps

    party: Any = rpc(address, timeout=PATIENCE, connection_args=arguments)
    try:
        # The first is a worker's, the second a scheduler's.
        for handler in ("run", "run_function"):
            found = await asyncio.wait_for(getattr(party, handler)(function=dumps(os.getuid), wait=True), PATIENCE)
            if found is not None:
                return f"uid {found['result'] if isinstance(found, dict) else found}"
        return "no handler"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        await party.close_rpc()


async def _rehearse() -> None:
    """Load what is needed: where the packages lie nobody may not read."""
    from distributed.core import Server

    server = Server({"run": lambda function, wait: {"result": 0}})
    await server.listen("tcp://127.0.0.1")
    try:
        found = await _try(server.address, {})
        assert found == "uid 0", found
    finally:
        await server.close()


async def _all(addresses: list[str], ways: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, str]:
    return {
        f"{way} {address}": await _try(f"{protocol}://{address.partition('://')[2]}", arguments)
        for address in addresses
        for way, (protocol, arguments) in ways.items()
    }


if __name__ == "__main__":
    import distributed.scheduler
    import distributed.worker  # noqa: F401
    from distributed import Security

    from jwstdask.engine.security import new_keys, security_of

    keys = security_of(*new_keys())
    ways = {
        "plain": ("tcp", Security(require_encryption=False).get_connection_args("client")),
        "own key": ("tls", keys.get_connection_args("client")),
    }
    asyncio.run(_rehearse())
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    with contextlib.suppress(PermissionError):
        os.setuid(0)
        sys.exit("still root")
    print(json.dumps(asyncio.run(_all(sys.argv[1:], ways))))
