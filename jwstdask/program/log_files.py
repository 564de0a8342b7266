"""Where the logs of a program are."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence

from jwstdask.io.naming import exposure_stem
from jwstdask.program.state import state_folder

FOLDER = "logs"
"""Folder for logs, in that of the products."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
_TAIL_BYTES = 16_384


def log_path(folder: str, path: str) -> str:
    """The log of an exposure or association, given its input or name and the folder of the products.

    That of products at a URL is on the machine that made them, for nothing can be added to what is there.
    """
    name = os.path.basename(path)
    stem = exposure_stem(name) if name.endswith(".fits") else name
    return os.path.join(state_folder(folder), FOLDER, f"{_UNSAFE.sub('_', stem) or '_'}.log")


def worker_folder(folder: str) -> str:
    """Where logs of workers are, given the folder of the products."""
    return os.path.join(state_folder(folder), FOLDER, "workers")


def keep_worker_logs(folder: str, logs: Mapping[str, Sequence[str]]) -> None:
    """Add to the logs of workers, by address. That they cannot be written is no reason to fail."""
    for address, lines in logs.items():
        name = _UNSAFE.sub("_", address.rpartition("/")[2]) or "_"
        with contextlib.suppress(OSError):
            os.makedirs(worker_folder(folder), exist_ok=True)
            with open(os.path.join(worker_folder(folder), f"{name}.log"), "a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)


def tail(path: str, lines: int = 30) -> str:
    """The last lines of a log; nothing if there is none."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL_BYTES, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
