"""Messages from tasks to the process that leads, at once and not only when the task ends."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_TOPIC = "jwstdask"
_handlers: list[Callable[[str], None]] = []
_guard = threading.Lock()


def tell(message: str) -> None:
    """Send a message from wherever a task runs. It may get lost with the worker that sends it."""
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        with contextlib.suppress(ValueError):
            distributed.get_worker().log_event(_TOPIC, message)
            return
    with _guard:
        handlers = list(_handlers)
    for handler in handlers:
        handler(message)


@contextlib.contextmanager
def listening(executor: Any, handler: Callable[[str], None]) -> Iterator[None]:
    """Call ``handler`` with every message of the tasks of an executor, from whatever thread it comes."""
    client = getattr(executor, "client", None)
    if client is not None:
        client.subscribe_topic(_TOPIC, lambda event: handler(event[1]))
    with _guard:
        _handlers.append(handler)
    try:
        yield
    finally:
        with _guard:
            _handlers.remove(handler)
        if client is not None:
            with contextlib.suppress(Exception):
                client.unsubscribe_topic(_TOPIC)
