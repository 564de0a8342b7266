"""A synthetic CRDS cache in use for a while."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np


def forget_crds() -> None:
    """Empty the memories of the crds client, which know nothing of another CRDS_PATH."""
    from crds.core import config, utils

    utils.clear_function_caches()
    config.CRDS_REF_SUBDIR_MODE = "None"


@contextlib.contextmanager
def crds_of(cache: Any) -> Iterator[None]:
    """The environment of a cache of the simulator."""
    before = dict(os.environ)
    # the addresses of the parts of a cache are set by crds itself when it is imported
    own = [name for name in os.environ if name.startswith("CRDS_") and not name.endswith("_URI")]
    for name in [*own, "STPIPE_DISABLE_CRDS_STEPPARS"]:
        os.environ.pop(name, None)
    os.environ.update(cache.environment)
    forget_crds()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        forget_crds()


def heed_interrupts() -> None:
    """``preexec_fn`` of a process that is interrupted: what was started in the background would pay no heed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_mapped(array: np.ndarray) -> bool:
    """True if an array is the memory of a file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)
