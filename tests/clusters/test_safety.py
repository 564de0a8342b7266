"""Nobody but its user gets at a cluster, and nothing of it is seen from elsewhere."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap

import dask
import pytest

from jwstdask.core.errors import ClusterError
from jwstdask.engine.clusters import connect, local_cluster
from jwstdask.engine.security import PrivateFolder, new_keys, security_of
from tests.clusters.probe import ROOT, probe
from tests.clusters.sockets import exposed, listening, tree

pytestmark = pytest.mark.xdist_group("clusters")

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@pytest.fixture(scope="module")
def cluster():
    executor = local_cluster(2)
    yield executor
    executor.close()


def addresses(executor):
    return [executor.client.scheduler.address, *executor.client.scheduler_info()["workers"]]


def test_a_cluster_on_this_machine_talks_tls_on_loopback(cluster):
    found = listening(tree())
    assert exposed(found) == []
    ports = {port for _, port in found}
    # Of the test itself there may be more.
    for address in addresses(cluster):
        assert address.startswith("tls://127.0.0.1:")
        assert int(address.rpartition(":")[2]) in ports
    told = cluster.client.run(dask.config.get, "distributed.worker.profile.enabled")
    assert set(told.values()) == {False}


@root_only
def test_nobody_runs_code_on_it(cluster):
    found = probe(*addresses(cluster))
    assert len(found) == 6
    assert not [way for way, said in found.items() if said.startswith(("uid", "no handler"))], found


@root_only
def test_nobody_would_without_tls(caplog):
    """What the test above would find: without TLS the code that nobody sends runs, as root."""
    executor = local_cluster(1, insecure=True)
    try:
        assert "plain TCP" in caplog.text
        scheduler, worker = addresses(executor)
        found = probe(scheduler, worker)
        assert found[f"plain {worker}"] == found[f"plain {scheduler}"] == "uid 0"
        assert exposed(listening(tree())) == []
    finally:
        executor.close()


def test_other_keys_are_refused(cluster, tmp_path):
    """A client with keys of its own, as another run has them."""
    folder = PrivateFolder(str(tmp_path))
    certificate, key = folder.write_keys()
    with dask.config.set({"distributed.comm.timeouts.connect": "2s"}), pytest.raises(ClusterError, match="own"):
        connect(cluster.client.scheduler.address, keys=(certificate, certificate, key))


def test_the_same_keys_are_taken(tmp_path):
    """A scheduler that runs already, by its address or file and the keys in a profile."""
    from distributed import LocalCluster

    folder = PrivateFolder(str(tmp_path))
    certificate, key = folder.write_keys()
    with LocalCluster(
        1,
        threads_per_worker=1,
        processes=False,
        security=security_of(certificate, key),
        protocol="tls://",
        dashboard_address="127.0.0.1:0",
    ) as owner:
        executor = connect(owner.scheduler_address, keys=(certificate, certificate, key))
        assert executor.map(abs, [-1, -2]) == [1, 2]
        executor.close()


def test_plain_schedulers_are_refused(tmp_path):
    with pytest.raises(ClusterError, match=r"plain TCP.*--insecure"):
        connect("tcp://127.0.0.1:8786")
    (tmp_path / "scheduler.json").write_text('{"address": "tcp://127.0.0.1:8786"}')
    with pytest.raises(ClusterError, match="plain TCP"):
        connect(str(tmp_path / "scheduler.json"))
    (tmp_path / "scheduler.json").write_text("[]")
    with pytest.raises(ClusterError, match="no scheduler file"):
        connect(str(tmp_path / "scheduler.json"))
    with pytest.raises(ClusterError, match=r"talks TLS, and no keys are given\. Name ca_file, cert and key"):
        connect("tls://127.0.0.1:8786")


def test_keys_are_new_every_time():
    assert new_keys() != new_keys()


def test_keys_lie_where_only_their_user_reads(tmp_path):
    old = os.umask(0)
    try:
        folder = PrivateFolder(str(tmp_path / "shared"))
        paths = folder.write_keys()
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in paths] == [0o600, 0o600]
    folder.remove()
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match="shared_folder"):
        PrivateFolder(str(tmp_path / "file"))


def test_the_next_run_removes_keys_of_one_that_was_killed(tmp_path):
    script = f"""
        import os, signal
        from jwstdask.engine.security import PrivateFolder
        folder = PrivateFolder({str(tmp_path)!r})
        folder.write_keys()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "key.pem").exists()
    folder = PrivateFolder(str(tmp_path))
    assert list(tmp_path.iterdir()) == [folder.path]
