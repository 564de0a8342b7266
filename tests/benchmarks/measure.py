"""Cost of a command: CPU seconds, wall seconds and peak memory, its children included."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

OURS = [sys.executable, "-m", "jwstdask"]
STRUN = str(Path(sys.executable).with_name("strun"))
ORACLE = [sys.executable, str(Path(__file__).with_name("oracle.py"))]

_COLUMNS = (
    "case",
    "jwst CPU (of it system)",
    "jwstdask CPU (of it system)",
    "ratio",
    "jwst wall",
    "jwstdask wall",
    "jwst memory",
    "jwstdask memory",
)
HEADER = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|"


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes
    ----------
    cpu, wall
        Seconds.
    system
        Seconds of ``cpu`` in the kernel; most of it for new pages, which some virtual machines pay dearly.
    anonymous
        Highest sum of anonymous memory of the process and its children, sampled [bytes].
    resident
        Highest resident memory of one process, mapped files included [bytes].
    """

    cpu: float
    wall: float
    system: float
    anonymous: int
    resident: int


def run(command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> Cost:
    """Run a command and measure it.

    Raises
    ------
    RuntimeError
        If it fails; the end of its log is in the message.
    """
    _adopt()
    with log.open("wb") as stream:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=stream, stderr=subprocess.STDOUT
        )
        peak = [0]
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peak, stop))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        stop.set()
        watcher.join()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {log.read_text(errors='replace')[-2000:]}")
    used = [usage, *_left_behind()]
    cpu = sum(item.ru_utime + item.ru_stime for item in used)
    system = sum(item.ru_stime for item in used)
    return Cost(cpu, wall, system, peak[0], max(item.ru_maxrss for item in used) * 1024)


def _adopt() -> None:
    """Become the parent of processes that a command leaves behind, such as the server that forks its workers."""
    set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "processes that are left behind cannot be measured")


def _left_behind() -> Iterator[resource.struct_rusage]:
    """What they used, as they end."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            yield usage
        else:
            time.sleep(0.05)
    raise RuntimeError("processes are still there 30 s after the end of the command")


def _watch(pid: int, peak: list[int], stop: threading.Event) -> None:
    while not stop.wait(0.02):
        peak[0] = max(peak[0], sum(anonymous(child) for child in family(pid)))


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def anonymous(pid: int) -> int:
    """Anonymous memory of a process [bytes]; as the kernel counts it, for looking at its pages would slow it down."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def marginal(one: Cost, many: Cost, count: int) -> Cost:
    """Cost of one more exposure: that of ``count`` in one command less that of one, a share each."""
    steps = count - 1
    seconds = ((many.cpu - one.cpu) / steps, (many.wall - one.wall) / steps, (many.system - one.system) / steps)
    return Cost(*seconds, many.anonymous, many.resident)


def median(costs: Sequence[Cost]) -> Cost:
    """The one in the middle by CPU time, the lower of two."""
    return sorted(costs, key=lambda cost: cost.cpu)[(len(costs) - 1) // 2]


def line(title: str, theirs: Cost, ours: Cost, goal: str = "") -> str:
    """A line of the table under ``HEADER``."""
    values = (
        f"{theirs.cpu:.1f} s ({theirs.system:.1f})",
        f"{ours.cpu:.2f} s ({ours.system:.2f})",
        f"**{theirs.cpu / ours.cpu:.1f}**{goal}",
        f"{theirs.wall:.1f} s",
        f"{ours.wall:.1f} s",
        f"{theirs.anonymous / 1e6:.0f} MB",
        f"{ours.anonymous / 1e6:.0f} MB",
    )
    return f"| {title} | {' | '.join(values)} |"


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that benchmarks share."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--folder", type=Path, help="where programs are kept (default: a temporary folder)")
    found.add_argument("--update", type=Path, metavar="README", help="put the table into this file")
    return found


@contextlib.contextmanager
def folder_of(options: argparse.Namespace) -> Iterator[Path]:
    """The folder to work in: the one that was given, or one that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="jwstdask-benchmark-") as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def between(readme: Path, marker: str, text: str) -> None:
    """Put a table into the README, after its marker."""
    before, _, rest = readme.read_text().partition(marker)
    _, _, after = rest.partition("<!-- end -->")
    readme.write_text(f"{before}{marker}{text}\n<!-- end -->{after}")


def copy_bandwidth() -> float:
    """Bytes that one core reads and writes in a second of copying."""
    source = np.ones(1 << 25)
    target = np.ones_like(source)
    seconds = []
    for _ in range(5):
        started = time.process_time()
        np.copyto(target, source)
        seconds.append(time.process_time() - started)
    return 2 * source.nbytes / min(seconds)
