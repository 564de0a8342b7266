"""Chaos: workers and the leading process of a program are killed at seeded moments, and the command given again.

``python -m tests.benchmarks.chaos --rounds 20 --exposures 40`` makes a synthetic program, runs it undisturbed, and then
in rounds with kills at seeded moments. After each round the products must be those of the undisturbed run, and no task
whose record had been written may have been done again.
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


def contents(out: Path) -> dict[str, dict[str, str]]:
    """What is in the products, but for times of writing."""
    return {path.name: parts(str(path)) for path in sorted(out.iterdir()) if not path.name.startswith(".")}


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


class Chaos:
    """Rounds of kills.

    Parameters
    ----------
    command
        Words of the command without its output folder.
    environment
        Of the command.
    total
        Tasks of an undisturbed run.
    """

    def __init__(self, command: list[str], environment: dict[str, str], total: int, seed: int) -> None:
        self.command, self.environment, self.total = command, environment, total
        self.random = np.random.default_rng(seed)

    def round(self, out: Path) -> dict[str, Any]:
        """Kill once to three times; what happened."""
        kills: list[str] = []
        left = int(self.random.integers(1, 4))
        while True:
            process = subprocess.Popen(
                [*self.command, f"--output_dir={out}"], env=self.environment, stderr=subprocess.PIPE, text=True
            )
            victim = str(self.random.choice(["client", "worker", "interrupt"], p=[0.5, 0.3, 0.2]))
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
                    kills.append(self._strike(process, victim))
                    left -= 1
            printed = process.communicate()[1]
            if process.returncode == 0:
                return {"kills": kills, **self._redone(out)}
            if not kills or process.returncode not in (-signal.SIGKILL, 130):
                raise SystemExit(f"a run failed by itself ({process.returncode}):\n{printed}")

    def _strike(self, process: subprocess.Popen, victim: str) -> str:
        if victim == "interrupt":
            process.send_signal(signal.SIGINT)
        elif victim == "worker" and (found := workers_of(process.pid)):
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
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write the facts here")
    options = parser.parse_args()
    facts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="jwstdask-chaos-") as name:
        folder = Path(name)
        cache = make_cache(folder / "cache", detectors=("nrcb1",), subarray="SUB64P", filters=("F200W",), seed=3)
        program = make_program(
            folder / "program", cache, dithers=options.exposures, readpatt="RAPID", ngroups=4, nints=1, seed=3
        )
        (folder / "in").mkdir()
        for path in program.uncals:
            shutil.copy(path, folder / "in")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CRDS_")}
        environment |= {**cache.environment, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "jwstdask", "run", str(folder / "in"), f"--through={options.through}"]
        command += ["--no-report", f"--workers={options.workers}"]
        started = time.perf_counter()
        subprocess.run(
            [*command, f"--output_dir={folder / 'undisturbed'}"], env=environment, check=True, capture_output=True
        )
        seconds = time.perf_counter() - started
        expected = contents(folder / "undisturbed")
        print(f"undisturbed: {len(expected)} products in {seconds:.1f} s", flush=True)
        chaos = Chaos(command, environment, finished(folder / "undisturbed"), options.seed)
        for number in range(options.rounds):
            out = folder / f"round{number}"
            found = chaos.round(out)
            found["same"] = contents(out) == expected
            facts.append(found)
            kills = ", ".join(found["kills"]) or "nothing"
            print(
                f"round {number + 1:2}: killed {kills}; {found['runs']} runs, {found['started']} tasks begun, "
                f"{found['redone']} done again, products {'the same' if found['same'] else 'DIFFER'}",
                flush=True,
            )
            shutil.rmtree(out)
    bad = [found for found in facts if not found["same"] or found["redone"]]
    kills = sum(len(found["kills"]) for found in facts)
    print(f"{len(facts)} rounds, {kills} kills, {len(bad)} bad")
    if options.json:
        Path(options.json).write_text(json.dumps(facts, indent=1))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
