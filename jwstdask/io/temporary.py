"""Names of temporary files beside products, and removing those of processes that are no more.

A name tells the machine and the process it belongs to, so that what a killed process left can be told from what a
living one is writing. Both are compared only on the machine itself: files of other machines are never touched.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import socket
import uuid
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jwstdask.io.pages import make_ready
from jwstdask.io.remote import is_url, publish, staging_folder

_NAME = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})-(?P<process>[0-9]+)-[0-9a-f]{8}\.part")


@functools.cache
def machine() -> str:
    """What tells this machine, since it was started, and this space of process numbers from all others."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        facts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def temporary_path(path: str | os.PathLike[str]) -> str:
    """A new hidden name beside ``path``, for a file or folder of this process.

    For a URL it is in the folder where files wait to be sent.
    """
    folder, name = os.path.split(os.fspath(path))
    if is_url(folder):
        folder = staging_folder()
    return os.path.join(folder, f".{name}.{machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """A temporary name to write a file or a URL under: it takes its place at the end, or is gone if that fails.

    Raises
    ------
    OSError
        If it cannot be renamed.
    ProductError
        If it cannot be sent.
    """
    temporary = temporary_path(path)
    if is_url(os.fspath(path)):
        os.makedirs(os.path.dirname(temporary), exist_ok=True)
    try:
        yield temporary
        publish(temporary, os.fspath(path))
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


@contextlib.contextmanager
def scratch_folder(near: str | os.PathLike[str], make: bool = True) -> Iterator[Path]:
    """A temporary folder in the folder ``near``, that all workers see; removed at the end.

    For a URL it is where files wait to be sent. Without ``make`` it is left to who first puts something there to make
    it.
    """
    near = staging_folder() if is_url(os.fspath(near)) else near
    folder = Path(temporary_path(Path(near).resolve() / "jwstdask"))
    if make:
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folders: Iterable[str]) -> int:
    """Remove what processes of this machine that are no more have left in some folders; the number of things."""
    removed = 0
    for folder in {staging_folder() if is_url(folder) else folder for folder in folders}:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                found = _NAME.fullmatch(entry.name)
                if found is None or found["machine"] != machine() or _alive(int(found["process"])):
                    continue
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path)
                    else:
                        os.unlink(entry.path)
                    removed += 1
    return removed


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # A process that was killed stays until its parent asks: it writes no more.
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return True


class FileArray:
    """An array in a temporary file, which other processes may map, too; or, without a folder, one in memory.

    The file is removed with the object that made it; copies that travelled to other processes only read it, unless it
    is made to be written in pieces.

    Parameters
    ----------
    folder
        Where the file goes: a folder that all workers see. None: no file, copies have their own arrays.
    shape
        Of the array.
    dtype
        Of the array.
    in_pieces
        Its map will be written to in many small pieces, by several processes.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        shape: tuple[int, ...],
        dtype: type = np.float32,
        in_pieces: bool = False,
    ) -> None:
        self.shape, self.dtype, self.path = shape, dtype, ""
        self._mode: Literal["r", "r+"] = "r+" if in_pieces else "r"
        self._array: np.ndarray | None = None
        if folder is None:
            self._array = np.zeros(shape, dtype)
            return
        os.makedirs(folder, exist_ok=True)
        self.path = temporary_path(os.path.join(os.path.abspath(folder), "jwstdask-array"))
        weakref.finalize(self, remove, self.path)
        image = np.memmap(self.path, dtype, "w+", shape=shape)
        if in_pieces:
            with open(self.path, "r+b") as file:
                make_ready(file.fileno(), image._mmap, 0, image.nbytes)  # type: ignore[attr-defined]
        self._array = np.asarray(image)

    @property
    def array(self) -> np.ndarray:
        """The array; writable where it was made."""
        if self._array is None:
            self._array = np.asarray(np.memmap(self.path, self.dtype, self._mode, shape=self.shape))
        return self._array

    def write(self, start: tuple[int, ...], values: np.ndarray) -> None:
        """Write successive elements from ``start`` on, given by its first indices.

        Large pieces of a new file are written faster so than through its map.
        """
        start = (*start, *(0,) * (len(self.shape) - len(start)))
        first = int(np.ravel_multi_index(start, self.shape))
        values = np.ascontiguousarray(values, self.dtype)
        if not self.path:
            self.array.reshape(-1)[first : first + values.size] = values.ravel()
            return
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(first * values.itemsize)
            rest = values.reshape(-1).view(np.uint8).data
            while rest:
                rest = rest[file.write(rest) :]

    def write_box(self, rows: slice, columns: slice, values: np.ndarray) -> None:
        """Write a part of an array of two dimensions, from whatever process."""
        if not self.path:
            self.array[rows, columns] = values
            return
        values = np.ascontiguousarray(values, self.dtype)
        file = os.open(self.path, os.O_WRONLY)
        try:
            for y, row in zip(range(rows.start, rows.stop), values, strict=True):
                os.pwrite(file, row.data, (y * self.shape[1] + columns.start) * row.itemsize)
        finally:
            os.close(file)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None if self.path else self._array}


def remove(path: str) -> None:
    """Remove a file, if it is there and can be removed."""
    with contextlib.suppress(OSError):
        os.unlink(path)
