"""Workers on machines by ssh: a real sshd on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from jwstdask.core.errors import ClusterError, ParameterError
from jwstdask.engine.clusters import start
from jwstdask.engine.profiles import read_profile
from jwstdask.testing import assert_same_products
from tests.clusters import sshd as sshds
from tests.clusters.sockets import exposed, listening, tree
from tests.clusters.test_slurm import wait_for
from tests.promises.program import run

pytestmark = pytest.mark.xdist_group("clusters")


@pytest.fixture(scope="module")
def connection(module_folder):
    reason = sshds.missing()
    if reason:
        pytest.skip(reason)
    with sshds.sshd(module_folder("sshd")) as found:
        yield found


def remote_processes():
    import psutil

    return [item for item in psutil.process_iter() if "distributed.cli.dask_spec" in _words(item)]


def _words(process):
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_program(connection, profile_file, program, expected, tmp_path):
    before = {item.pid for item in remote_processes()}
    path = profile_file("ssh", hosts=["127.0.0.1"], workers_per_host=2, connect=connection)
    executor = start(read_profile(path))
    try:
        ours = [item for item in remote_processes() if item.pid not in before]
        processes = [item for first in ours for item in tree(first.pid)]
        assert executor.client.scheduler.address.startswith("tls://127.0.0.1:")
        assert exposed(listening(processes)) == []
        assert executor.workers == 2
        run(program, tmp_path, executor, exposures=2)
        assert_same_products(expected, tmp_path)
    finally:
        executor.close()
    assert list(Path(read_profile(path).shared_folder).glob(".cluster*")) == []
    wait_for(lambda: not {item.pid for item in remote_processes()} - before)


def test_errors_come_at_once(connection, profile_file):
    wrong = connection | {"client_keys": [connection["client_keys"][0].replace("user", "host")]}
    for content, match in [
        ({"connect": wrong}, "Permission denied"),
        ({"connect": connection, "python": "/absent/python"}, "127.0.0.1: .*failed to start"),
    ]:
        profile = read_profile(profile_file("ssh", hosts=["127.0.0.1"], **content))
        with pytest.raises(ClusterError, match=match):
            start(profile)
        assert list(Path(profile.shared_folder).glob(".cluster*")) == []
    with pytest.raises(ParameterError, match="workers_per_host"):
        start(read_profile(profile_file("ssh", hosts=["127.0.0.1"], workers="3")))
