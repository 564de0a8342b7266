"""The link of a worker is cut in mid-run: nobody says goodbye, and the run ends with the right products."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jwstdask.engine.profiles import Profile
from jwstdask.testing import assert_same_products
from tests.clusters.behind_links import main

ROOT = Path(__file__).parent.parent.parent
NAMES = {role: f"jwst{role}{os.getpid()}" for role in ("s", "a", "b")}
ADDRESS = {"s": "10.219.77.1", "a": "10.219.77.2", "b": "10.219.77.3"}
WITHIN = 60.0


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


def missing() -> str | None:
    """Why there can be no namespaces, if so."""
    if shutil.which("ip") is None:
        return "there is no command ip (iproute2)"
    if os.geteuid() != 0:
        return "namespaces of the network are made by root only"
    probe = f"jwstp{os.getpid()}"
    try:
        ip("netns", "add", probe)
        ip("-n", probe, "link", "add", "br0", "type", "bridge")
        ip("-n", probe, "link", "add", "end0", "type", "veth", "peer", "name", "end1")
    except subprocess.CalledProcessError as error:
        return f"this system makes no namespaces with bridges: {error.stderr.strip()}"
    finally:
        ip("netns", "del", probe, check=False)
    return None


@pytest.fixture
def network():
    """Three namespaces: that of the scheduler with a bridge, to which one end of the link of each worker belongs."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    try:
        for name in NAMES.values():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        scheduler = NAMES["s"]
        ip("-n", scheduler, "link", "add", "br0", "type", "bridge")
        ip("-n", scheduler, "addr", "add", f"{ADDRESS['s']}/24", "dev", "br0")
        ip("-n", scheduler, "link", "set", "br0", "up")
        for role in ("a", "b"):
            ip(
                "-n",
                scheduler,
                "link",
                "add",
                f"to_{role}",
                "type",
                "veth",
                "peer",
                "name",
                "up0",
                "netns",
                NAMES[role],
            )
            ip("-n", scheduler, "link", "set", f"to_{role}", "master", "br0", "up")
            ip("-n", NAMES[role], "addr", "add", f"{ADDRESS[role]}/24", "dev", "up0")
            ip("-n", NAMES[role], "link", "set", "up0", "up")
        yield
    finally:
        for name in NAMES.values():
            ip("netns", "del", name, check=False)


def inside(role, *words, **options):
    """Start a Python program in a namespace."""
    environment = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": Profile("slurm").tcp_timeout}
    command = ["ip", "netns", "exec", NAMES[role], sys.executable, *words]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **options)


@pytest.mark.slow
def test_link_cut(network, program, tmp_path):
    folders = [str(tmp_path / name) for name in ("expected", "first", "second")]
    work = {"uncals": [str(path) for path in program.uncals[:3]], "folders": folders[:1], "host": None}
    main(work)
    path = tmp_path / "work.json"
    path.write_text(
        json.dumps(
            work
            | {
                "folders": folders[1:],
                "host": ADDRESS["s"],
                "seconds": 0.5,
                "tcp_timeout": Profile("slurm").tcp_timeout,
            }
        )
    )
    processes = []
    errors = open(tmp_path / "errors", "w")
    try:
        leader = inside("s", "-m", "tests.clusters.behind_links", str(path), stdout=subprocess.PIPE, stderr=errors)
        processes.append(leader)
        address = json.loads(leader.stdout.readline())
        assert re.fullmatch(rf"tcp://{re.escape(ADDRESS['s'])}:\d+", address)
        for role in ("a", "b"):
            words = ("-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--host", ADDRESS[role])
            more = ("--no-nanny", "--dashboard-address", "127.0.0.1:0", "--local-directory", str(tmp_path / role))
            processes.append(inside(role, *words, *more, stdout=errors, stderr=errors))
        told = [json.loads(leader.stdout.readline()) for _ in range(2)]
        ip("-n", NAMES["s"], "link", "set", "to_b", "down")
        cut = time.monotonic()
        told += [json.loads(line) for line in leader.stdout]
        took = time.monotonic() - cut
        assert leader.wait(20) == 0
    finally:
        for process in reversed(processes):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        errors.close()
    assert len(told) == 6
    assert [item["error"] for item in told if item["error"] is not None] == []
    assert took < WITHIN, (tmp_path / "errors").read_text()
    for folder in folders[1:]:
        assert_same_products(Path(folders[0]), Path(folder))
