"""Promise: a worker that is killed in mid-run costs nothing but time, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import threading
import time

import pytest

from jwstdask.engine.executor import Serial
from jwstdask.io.temporary import machine, sweep, temporary_path
from jwstdask.testing import assert_same_products
from tests.promises.program import run


class Killer(threading.Thread):
    """Kills one worker with SIGKILL as soon as a product is being written, and tells which.

    In the grain of exposures the worker that writes it; else the first worker.
    """

    def __init__(self, folder, workers):
        super().__init__(daemon=True)
        self.folder, self.workers, self.killed, self.unfinished = folder, workers, None, None
        self.stopped = False

    def run(self):
        while self.killed is None and not self.stopped:
            for path in self.folder.glob(".*_rate.fits.*.part"):
                owner = int(re.search(r"-(\d+)-[0-9a-f]{8}\.part$", path.name)[1])
                victim = owner if owner in self.workers else self.workers[0]
                os.kill(victim, signal.SIGKILL)
                self.killed, self.unfinished = victim, path
                return
            time.sleep(0.001)


@pytest.mark.parametrize("grain", ["exposure", "strip"])
def test_worker_killed_while_it_writes(program, expected, tmp_path, cluster, grain):
    executor = cluster(2)
    workers = list(executor.client.run(os.getpid).values())
    killer = Killer(tmp_path, workers)
    killer.start()
    run(program, tmp_path, executor, grain)
    killer.stopped = True
    killer.join()
    assert killer.killed in workers, "nothing was killed: the test shows nothing"
    assert killer.killed not in executor.client.run(os.getpid).values()
    assert_same_products(expected, tmp_path)
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def _dead_process() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_sweep_spares_the_living_and_other_machines(tmp_path):
    dead, here = _dead_process(), os.getpid()
    ours = temporary_path(tmp_path / "jw1_rate.fits")
    names = {
        os.path.basename(ours): True,
        f".jw1_rate.fits.{machine()}-{dead}-0123abcd.part": False,
        f".jw1_rate.fits.{'0' * 8}-{dead}-0123abcd.part": True,
        ".jw1_rate.fits.part": True,
        f"jw1_rate.fits.{machine()}-{dead}-0123abcd.part": True,
        "jw1_rate.fits": True,
    }
    for name in names:
        (tmp_path / name).write_text("pixels")
    scratch = tmp_path / f".jwstdask.{machine()}-{dead}-89abcdef.part"
    (scratch / "inner").mkdir(parents=True)
    (scratch / "inner" / "groupdq.npy").write_text("flags")
    assert f"-{here}-" in ours
    assert sweep([str(tmp_path), str(tmp_path / "missing")]) == 2
    assert sorted(os.listdir(tmp_path)) == sorted(name for name, kept in names.items() if kept)


def test_the_next_run_removes_what_a_killed_run_left(program, tmp_path):
    left = tmp_path / f".jw1_rate.fits.{machine()}-{_dead_process()}-0123abcd.part"
    left.write_text("half a product")
    run(program, tmp_path, Serial(), exposures=1, through=1)
    assert not left.exists()
