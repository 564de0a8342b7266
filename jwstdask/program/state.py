"""Where the journal of products at a URL is kept: in a folder of this machine, with a copy beside the products.

The folder is ``JWSTDASK_STATE``, else ``jwstdask`` in the user's folder for state (``XDG_STATE_HOME``). What a run
writes down is on this machine's disk before anything relies on it; the copy is sent now and then, and at the end, so
that another machine can go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path

from jwstdask.core.errors import JwstdaskError
from jwstdask.io.remote import exists, file_system, is_url, join, retried
from jwstdask.io.temporary import replacing

INTERVAL = 60.0
"""Seconds between copies."""


def state_folder(folder: str | os.PathLike[str]) -> str:
    """Where journal and logs of the products in a folder are: there, or on this machine for a URL."""
    folder = os.fspath(folder)
    if not is_url(folder):
        return folder
    url = folder.rstrip("/")
    root = os.environ.get("JWSTDASK_STATE")
    if not root:
        home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
        root = os.path.join(home, "jwstdask")
    # For people the end of the URL; what tells it from others is the digest.
    name = re.sub(r"[^\w.-]+", "_", url)[-60:].lstrip("._")
    return os.path.join(os.path.abspath(root), f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}")


def fetch(folder: str, name: str) -> bytes:
    """The copy of a file beside the products at a URL; nothing if there is none or nobody answers."""
    url = join(folder, name)
    with contextlib.suppress(JwstdaskError):
        if exists(url):
            system, key = file_system(url)
            return bytes(retried(lambda: system.cat_file(key), url))
    return b""


def send(data: bytes, url: str) -> None:
    """Put a small file at a URL.

    Raises
    ------
    ProductError
        If it cannot be sent.
    """
    with replacing(url) as temporary:
        Path(temporary).write_bytes(data)
