"""Memory as a resource: what workers declare, what tasks are given, and what is done about too little of it.

A task is given what is predicted of it (`jwstdask.pipelines.cost`). No worker takes more tasks than fit into what it
declares. A task that ends for lack of memory is done again with twice as much, up to the largest worker.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jwstdask.core.errors import JwstdaskError
from jwstdask.io.transient import chain

MEMORY = "memory"
"""Name of the resource among those of a Dask worker; in bytes."""

INTERPRETER_BYTES = 300_000_000
"""What interpreter, libraries and compiled kernels take in a process, whatever its tasks."""

SHARE = 0.8
"""Part of a process's limit that is given to tasks: predictions may be a quarter too small."""

MULTIPLIER = 2
"""How much more memory a task is given that had too little."""


def worker_resources(memory_limit: int | None) -> dict[str, float]:
    """What a worker declares, for ``resources=`` of a Dask worker.

    Parameters
    ----------
    memory_limit
        Memory of the worker process [bytes]; None or 0 if it is not known. Then nothing is declared, and memory is not
        scheduled.
    """
    return {MEMORY: float(for_tasks(memory_limit))} if memory_limit else {}


def for_tasks(memory_limit: int) -> int:
    """Bytes that a process with a limit has for its tasks."""
    return max(int(SHARE * memory_limit) - INTERPRETER_BYTES, 1)


def lacked_memory(error: BaseException) -> bool:
    """Whether an error comes from too little memory."""
    return any(isinstance(item, MemoryError) for item in chain(error))


@dataclass(frozen=True)
class Needs:
    """What the tasks of a map need, and what becomes of those that do not get it.

    Attributes
    ----------
    memory
        Predicted memory of an item [bytes].
    short
        Whether a result says that there was too little memory.
    failed
        Result of an item whose task cannot be done, given the reason; without it, the reason is raised.
    """

    memory: Callable[[Any], int]
    short: Callable[[Any], bool] = lambda result: False
    failed: Callable[[Any, JwstdaskError], Any] | None = None


def too_large(memory: int, largest: int) -> JwstdaskError:
    """The error of a task that fits nowhere."""
    each = size_text((memory + INTERPRETER_BYTES) / SHARE)
    return JwstdaskError(
        f"{size_text(memory)} of memory are predicted, and no worker has more than {size_text(largest)} for tasks",
        f"give workers more memory ({each} each); on this machine take fewer --workers or --threads",
    )


def size_text(memory: float) -> str:
    """A number of bytes for people."""
    return f"{memory / 1e9:.2f} GB" if memory >= 1e9 else f"{memory / 1e6:.0f} MB"


class Budget:
    """Memory that threads of this process share.

    Parameters
    ----------
    total
        Bytes.
    """

    def __init__(self, total: int) -> None:
        self.total, self._free, self._closed = total, total, False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def given(self, memory: int) -> Iterator[None]:
        """Wait until there is so much memory, and hold it.

        Raises
        ------
        KeyboardInterrupt
            If nothing more shall be begun.
        """
        memory = min(memory, self.total)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free >= memory)
            if self._closed:
                raise KeyboardInterrupt
            self._free -= memory
        try:
            yield
        finally:
            with self._changed:
                self._free += memory
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
