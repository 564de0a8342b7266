"""The journal of a program: what was planned, started, finished and failed, in the folder of its products.

One file, ``.jwstdask/journal.jsonl``, to which the leading process alone appends. Each line is a JSON object with a
checksum of itself, its last member. A line is written by a single call and synchronised with the disk before anything
relies on it. Whatever moment a process dies at, the file is a run of whole lines and perhaps half a line; the next run
ends that line, and readers drop every line whose checksum is wrong.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jwstdask.core.errors import PlanError, ProductError
from jwstdask.io.product import prepare_folder
from jwstdask.io.remote import is_url, join
from jwstdask.io.shelf import Kept, Shelf
from jwstdask.io.temporary import replacing
from jwstdask.program.state import INTERVAL, fetch, send, state_folder

log = logging.getLogger(__name__)

FOLDER = ".jwstdask"
"""Folder for journal and records, in that of the products."""
NAME = "journal.jsonl"
_SUM = ',"sum":"'
_SUM_LENGTH = 16


def journal_path(folder: str | os.PathLike[str]) -> str:
    """Path of the journal of the products in ``folder``, which may be a URL."""
    return os.path.join(state_folder(folder), FOLDER, NAME)


def _merged(own: bytes, other: bytes) -> bytes:
    """Two journals of the same products as one, in order of time."""
    known = set(own.splitlines())
    lines = [line for line in other.splitlines() if line not in known]
    if not lines:
        return own
    found = [(record, line) for line in (*own.splitlines(), *lines) if (record := record_of(line)) is not None]
    found.sort(key=lambda pair: float(pair[0].get("time") or 0.0))
    return b"".join(line + b"\n" for _, line in found)


def line_of(record: Mapping[str, Any]) -> bytes:
    """A record as a line of the journal."""
    return _line(_text(record))


_text = json.JSONEncoder(separators=(",", ":"), default=str).encode


def _line(text: str) -> bytes:
    text = text[:-1]
    return f'{text}{_SUM}{_checksum(text)}"}}\n'.encode()


def _checksum(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=_SUM_LENGTH // 2).hexdigest()


def record_of(line: bytes) -> dict[str, Any] | None:
    """The record of a line (without its end); None if the line is not whole."""
    try:
        text, found, rest = line.decode("ascii").rpartition(_SUM)
        if not found or rest != f'{_checksum(text)}"}}':
            return None
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def read_records(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The whole records of a journal, in order; none if there is no journal."""
    try:
        with open(path, "rb") as file:
            yield from _whole(file)
    except FileNotFoundError:
        return


def _whole(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        record = record_of(line.rstrip(b"\n"))
        if record is not None:
            yield record


@dataclass
class TaskState:
    """What the journal says of a task.

    Attributes
    ----------
    task
        Name of the task: pipeline and first product.
    pipeline, path
        Pipeline alias and input.
    state
        ``planned``, ``running``, ``done``, ``up to date`` or ``failed``.
    text
        The last record of it being finished, in whatever run, as JSON on a shelf: there may be many tasks.
    wall, ended
        Seconds that it took, and since 1970 when it was finished.
    reason, trace
        One-line reason of the last failure, and the end of its traceback.
    started
        Seconds since 1970 when it was started last.
    """

    task: str
    pipeline: str = ""
    path: str = ""
    state: str = "planned"
    text: Kept | None = None
    wall: float = 0.0
    ended: float = 0.0
    reason: str = ""
    trace: str = ""
    started: float = 0.0

    def seen(self, working: bool) -> str:
        """The state as users are told it: what was planned, or was running when its run died, is ``waiting``."""
        return "waiting" if self.state == "planned" or (self.state == "running" and not working) else self.state

    @property
    def finished(self) -> dict[str, Any] | None:
        """The last record of it being finished; None if it has not been, or failed later."""
        return json.loads(self.text.read()) if self.text else None


@dataclass
class History:
    """A journal, read.

    Attributes
    ----------
    tasks
        Tasks by name.
    runs
        The record of each run's start, with that of its end under ``end`` if it came to one.
    files
        (path, size, time of last change) of files to the digest of their content.
    written
        Product path, as in the journal, to its last stamp.
    """

    tasks: dict[str, TaskState] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    files: dict[tuple[str, int, int], str] = field(default_factory=dict)
    written: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    _shelf: Shelf = field(default_factory=Shelf)

    def add(self, record: Mapping[str, Any], text: str = "") -> None:
        """Take a record into account; ``text`` is its JSON, if that is known."""
        kind = record.get("record")
        if kind == "run":
            self.runs.append(dict(record))
            for state in self.tasks.values():
                # Not of this run unless it says so.
                state.state = "earlier"
        elif kind == "end":
            if self.runs:
                self.runs[-1]["end"] = dict(record)
        elif kind == "seen":
            self._remember(record)
        elif kind in _STATES:
            state = self.tasks.setdefault(record["task"], TaskState(record["task"]))
            state.state = _STATES[kind]
            if kind in ("planned", "fresh"):
                state.pipeline, state.path = record.get("pipeline", ""), record.get("path", "")
            elif kind == "started":
                state.started = record["time"]
            elif kind == "failed":
                state.reason, state.trace = record.get("reason", ""), record.get("trace", "")
                state.text = None
            elif kind == "finished":
                state.text = self._shelf.put((text or _text(record)).encode())
                state.reason = state.trace = ""
                state.wall, state.ended = record.get("wall", 0.0), record.get("time", 0.0)
                self._remember(record)
                for path, *seen in record.get("products", {}).values():
                    self.written[path] = (seen[0], seen[1], seen[2])

    def _remember(self, record: Mapping[str, Any]) -> None:
        for group in ("inputs", "references", "files"):
            for path, (size, mtime, digest) in record.get(group, {}).items():
                if mtime:
                    self.files[path, size, mtime] = digest


_STATES = {
    "planned": "planned",
    "fresh": "up to date",
    "started": "running",
    "finished": "done",
    "failed": "failed",
}


def program_records(folder: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The whole records of the journal of the products in ``folder``, of other machines too if that is a URL."""
    if not is_url(os.fspath(folder)):
        return read_records(journal_path(folder))
    return _whole(_merged(_content(journal_path(folder)), fetch(os.fspath(folder), f"{FOLDER}/{NAME}")).splitlines())


def read_history(folder: str | os.PathLike[str]) -> History:
    """What the journal of the products in ``folder`` says."""
    history = History()
    for record in program_records(folder):
        # A line that some other program wrote says nothing.
        with contextlib.suppress(KeyError, IndexError, TypeError, ValueError, AttributeError):
            history.add(record)
    return history


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


class Journal:
    """The journal of the products in a folder, held by this process alone until it is closed.

    That of products at a URL is on this machine (see `jwstdask.program.state`), with what other machines have sent.

    Parameters
    ----------
    folder
        Folder of the products; made if it does not exist.

    Raises
    ------
    PlanError
        If another run is at work in the folder.
    ProductError
        If the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = os.fspath(folder)
        self.folder = folder.rstrip("/") if is_url(folder) else os.path.abspath(folder)
        self.history = History()
        self._guard = threading.Lock()
        self._file = self._lock = -1
        self._sent = time.monotonic()
        if not is_url(folder):
            prepare_folder(self.folder)
        place = os.path.join(state_folder(self.folder), FOLDER)
        try:
            os.makedirs(place, exist_ok=True)
            self._lock = os.open(os.path.join(place, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise ProductError(place, f"the journal cannot be kept: {reason}", "choose another output_dir") from error
        try:
            self._take_lock()
            if is_url(self.folder):
                self._fetch()
            self.history = read_history(self.folder)
            path = journal_path(self.folder)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                os.write(self._file, b"\n")
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                # A file system without locks: nothing can be told.
                return
            holder = os.pread(self._lock, 200, 0).decode("utf-8", "replace").strip()
            raise PlanError(
                f"another run is at work in {self.folder}" + (f" ({holder})" if holder else ""),
                "wait for it, or choose another output_dir; `jwstdask status` shows how far it is",
            ) from None
        with contextlib.suppress(OSError):
            os.ftruncate(self._lock, 0)
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode(), 0)

    def _fetch(self) -> None:
        """Take what other machines have written down of products at a URL."""
        path = journal_path(self.folder)
        own = _content(path)
        whole = _merged(own, fetch(self.folder, f"{FOLDER}/{NAME}"))
        if whole != own:
            with replacing(path) as temporary, open(temporary, "wb") as file:
                file.write(whole)

    def _send(self) -> None:
        """Send a copy to the URL of the products; that it cannot be sent is no reason to stop."""
        self._sent = time.monotonic()
        try:
            send(_content(journal_path(self.folder)), join(self.folder, f"{FOLDER}/{NAME}"))
        except (ProductError, OSError) as error:
            log.warning("%s: the copy of the journal cannot be sent: %s", self.folder, error)

    def add(self, record: str, sync: bool = True, **content: Any) -> None:
        """Append a record of a kind; with ``sync`` it has reached the disk at the end."""
        self.add_all([{"record": record, **content}], sync)

    def add_all(self, records: Sequence[Mapping[str, Any]], sync: bool = True) -> None:
        """Append records in one piece."""
        now = round(time.time(), 3)
        stamped = [{**record, "time": now} for record in records]
        texts = list(map(_text, stamped))
        with self._guard:
            for record, text in zip(stamped, texts, strict=True):
                self.history.add(record, text)
            if self._file >= 0 and stamped:
                self._write(b"".join(map(_line, texts)), sync)
                if is_url(self.folder) and time.monotonic() - self._sent > INTERVAL:
                    self._send()

    def _write(self, data: bytes, sync: bool) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if sync:
                os.fsync(self._file)
        except OSError as error:
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            raise ProductError(
                journal_path(self.folder), f"cannot be written: {reason}", "make room and give the same command again"
            ) from error

    def close(self) -> None:
        """Give the folder free."""
        with self._guard:
            if self._file >= 0 and is_url(self.folder):
                self._send()
            for name in ("_file", "_lock"):
                if getattr(self, name) >= 0:
                    os.close(getattr(self, name))
                    setattr(self, name, -1)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Reading:
    """The journal of the products in a folder, only read: nothing is held or written."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = os.fspath(folder)
        self.folder = folder.rstrip("/") if is_url(folder) else os.path.abspath(folder)
        self.history = read_history(self.folder)

    def add(self, record: str, sync: bool = True, **content: Any) -> None:
        pass

    def add_all(self, records: Sequence[Mapping[str, Any]], sync: bool = True) -> None:
        pass


def at_work(folder: str | os.PathLike[str]) -> bool:
    """Whether a run holds the journal of a folder, on this machine or, where the file system tells, another."""
    try:
        lock = os.open(os.path.join(state_folder(folder), FOLDER, "lock"), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(lock)
    return False
