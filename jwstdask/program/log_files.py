"""Where the logs of a program are."""

from __future__ import annotations

import os
import re

from jwstdask.io.naming import exposure_stem
from jwstdask.io.remote import is_url

FOLDER = "logs"
"""Folder for logs, in that of the products."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
_TAIL_BYTES = 16_384


def log_path(folder: str, path: str) -> str | None:
    """The log of an exposure or association, given its input or name and the folder of the products.

    There is none of products at a URL, where lines cannot be added to a file.
    """
    if is_url(folder):
        return None
    name = os.path.basename(path)
    stem = exposure_stem(name) if name.endswith(".fits") else name
    return os.path.join(folder, FOLDER, f"{_UNSAFE.sub('_', stem) or '_'}.log")


def tail(path: str | None, lines: int = 30) -> str:
    """The last lines of a log; nothing if there is none."""
    if path is None:
        return ""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL_BYTES, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
