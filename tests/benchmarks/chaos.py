"""Chaos: workers, scheduler and leading process of a program are killed at seeded moments, and the command given again.

``python -m tests.benchmarks.chaos --rounds 20 --exposures 40`` makes a synthetic program, runs it undisturbed, and then
in rounds with kills at seeded moments. After each round the products must be those of the undisturbed run, and no task
whose record had been written may have been done again. In every fourth round (``--apart``) scheduler and workers are
processes that somebody else started, so that the scheduler is killed without the leading process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from jwstdask.program.content import parts
from jwstdask.program.journal import journal_path, read_records
from jwstdask.simulate import make_cache, make_program
from tests.program.processes import worker_processes

_WAIT = "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT"


def contents(out: Path) -> dict[str, dict[str, str]]:
    """What is in the products, but for times of writing."""
    return {path.name: parts(str(path)) for path in sorted(out.glob("*.*")) if path.is_file()}


def workers_of(process: int) -> list[psutil.Process]:
    """Processes that do the tasks of a run."""
    try:
        return worker_processes(process)
    except psutil.Error:
        return []


def finished(out: Path) -> int:
    """Tasks that the journal says are finished."""
    try:
        return Path(journal_path(out)).read_bytes().count(b'{"record":"finished"')
    except OSError:
        return 0


class Apart:
    """A scheduler and workers of its own, on plain TCP, that no run has started.

    Parameters
    ----------
    folder
        For the scheduler file.
    """

    def __init__(self, folder: Path, workers: int, environment: dict[str, str]) -> None:
        self.folder, self.count, self.environment = folder, workers, environment
        self.file = folder / "scheduler.json"
        self.scheduler: subprocess.Popen | None = None
        self.workers: subprocess.Popen | None = None

    def start(self) -> None:
        """Have both, if they are not there."""
        if self.scheduler is not None and self.scheduler.poll() is None:
            return
        self.end()
        self.file.unlink(missing_ok=True)
        quiet: Any = {"env": self.environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        address = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *address, "--scheduler-file", str(self.file)]
        self.scheduler = subprocess.Popen(command, **quiet)
        while not self.file.exists() or not self.file.read_text().strip():
            time.sleep(0.05)
        address = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--nthreads", "1"]
        command = [sys.executable, "-m", "distributed.cli.dask_worker", *address, "--nworkers", str(self.count)]
        command += ["--scheduler-file", str(self.file), "--local-directory", str(self.folder)]
        self.workers = subprocess.Popen(command, **quiet)

    def end(self) -> None:
        """End both, and what they have started."""
        for process in filter(None, (self.workers, self.scheduler)):
            family = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
            for member in [*family, process]:
                with contextlib.suppress(psutil.Error):
                    member.kill()
            process.wait()
        self.scheduler = self.workers = None

    def processes(self) -> list[psutil.Process]:
        """The workers."""
        with contextlib.suppress(psutil.Error, AttributeError):
            found = psutil.Process(self.workers.pid).children(recursive=True)  # type: ignore[union-attr]
            return [item for item in found if "spawn_main" in " ".join(item.cmdline())]
        return []


class Chaos:
    """A synthetic program of small exposures, and rounds of kills.

    Parameters
    ----------
    folder
        Where all is kept.
    exposures, through, workers
        Size of the program, the stage that it goes through, and how many processes do it.
    seed
        Of whom is killed when.
    """

    def __init__(self, folder: Path, exposures: int, through: int, workers: int, seed: int) -> None:
        self.folder, self.workers, self.random = folder, workers, np.random.default_rng(seed)
        cache = make_cache(folder / "cache", detectors=("nrcb1",), subarray="SUB64P", filters=("F200W",), seed=3)
        program = make_program(
            folder / "program", cache, dithers=exposures, readpatt="RAPID", ngroups=4, nints=1, seed=3
        )
        (folder / "in").mkdir()
        for path in program.uncals:
            shutil.copy(path, folder / "in")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CRDS_")}
        self.environment = {**environment, **cache.environment, "OMP_NUM_THREADS": "1"}
        self.command = [sys.executable, "-m", "jwstdask", "run", str(folder / "in"), f"--through={through}"]
        self.command += ["--no-report"]
        out = folder / "undisturbed"
        command = [*self.command, f"--workers={workers}", f"--output_dir={out}"]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)
        self.expected, self.total = contents(out), finished(out)

    def survived(self, number: int, apart: bool) -> dict[str, Any]:
        """A round, with a scheduler of its own or not: what happened, and whether the products are the same."""
        out = self.folder / f"round{number}"
        scheduler = Apart(self.folder, self.workers, self.environment) if apart else None
        try:
            found = self.round(out, scheduler)
        finally:
            if scheduler is not None:
                scheduler.end()
        found["same"] = contents(out) == self.expected
        shutil.rmtree(out)
        return found

    def round(self, out: Path, apart: Apart | None = None) -> dict[str, Any]:
        """Kill once to three times; what happened."""
        kills: list[str] = []
        left = int(self.random.integers(1, 4))
        while True:
            where = [f"--workers={self.workers}"]
            if apart is not None:
                apart.start()
                where = [f"--scheduler={apart.file}", "--insecure"]
            # So long a client waits for a scheduler that is lost.
            environment = {**self.environment, **({} if apart is None else {_WAIT: "8 s"})}
            process = subprocess.Popen(
                [*self.command, *where, f"--output_dir={out}"], env=environment, stderr=subprocess.PIPE, text=True
            )
            victim = str(self.random.choice(["client", "worker", "interrupt"], p=[0.5, 0.3, 0.2]))
            if apart is not None and (not kills or self.random.random() < 0.5):
                victim = "scheduler"
            # After so many more tasks, and a moment: at once while the run starts, too.
            more = int(self.random.integers(0, self.total // 2))
            moment = self.random.uniform(0, 3 if more == 0 else 1)
            if left:
                target = min(finished(out) + more, self.total - 1)
                while process.poll() is None and finished(out) < target:
                    time.sleep(0.02)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(moment)
                if process.poll() is None:
                    kills.append(self._strike(process, victim, apart))
                    left -= 1
            printed = process.communicate()[1]
            if process.returncode == 0:
                return {"kills": kills, **self._redone(out)}
            lost = bool(kills) and kills[-1] == "scheduler" and process.returncode in (1, 2) and "scheduler" in printed
            # Ctrl-C in the very moment in which a run has ended ends the interpreter.
            struck = process.returncode in (-signal.SIGKILL, -signal.SIGINT, 130)
            if not kills or not (lost or struck):
                raise SystemExit(f"a run failed by itself ({process.returncode}):\n{printed}")

    def _strike(self, process: subprocess.Popen, victim: str, apart: Apart | None) -> str:
        if victim == "interrupt":
            process.send_signal(signal.SIGINT)
        elif victim == "scheduler":
            apart.scheduler.kill()  # type: ignore[union-attr]
        elif victim == "worker" and (found := workers_of(process.pid) if apart is None else apart.processes()):
            try:
                found[int(self.random.integers(len(found)))].kill()
            except psutil.Error:
                return "nobody"
        else:
            process.kill()
            return "client"
        return victim

    def _redone(self, out: Path) -> dict[str, int]:
        finished: set[str] = set()
        redone = started = runs = 0
        for record in read_records(journal_path(out)):
            kind = record["record"]
            runs += kind == "run"
            started += kind == "started"
            redone += kind == "started" and record["task"] in finished
            if kind == "finished":
                finished.add(record["task"])
        return {"runs": runs, "started": started, "finished": len(finished), "redone": redone}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--exposures", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--through", type=int, default=2, choices=(1, 2, 3))
    parser.add_argument("--apart", type=int, default=4, help="every which round has a scheduler of its own; 0: none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write the facts here")
    options = parser.parse_args()
    facts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="jwstdask-chaos-") as name:
        started = time.perf_counter()
        chaos = Chaos(Path(name), options.exposures, options.through, options.workers, options.seed)
        print(f"undisturbed: {len(chaos.expected)} products in {time.perf_counter() - started:.1f} s", flush=True)
        for number in range(options.rounds):
            apart = bool(options.apart) and number % options.apart == options.apart - 1
            found = chaos.survived(number, apart)
            facts.append(found)
            kills = ", ".join(found["kills"]) or "nothing"
            print(
                f"round {number + 1:2}: killed {kills}; {found['runs']} runs, {found['started']} tasks begun, "
                f"{found['redone']} done again, products {'the same' if found['same'] else 'DIFFER'}",
                flush=True,
            )
    bad = [found for found in facts if not found["same"] or found["redone"]]
    kills = sum(len(found["kills"]) for found in facts)
    print(f"{len(facts)} rounds, {kills} kills, {len(bad)} bad")
    if options.json:
        Path(options.json).write_text(json.dumps(facts, indent=1))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
