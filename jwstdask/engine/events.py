"""Messages from tasks to the process that leads, at once and not only when the task ends."""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

log = logging.getLogger("jwstdask")

Handler = Callable[[Sequence[str]], None]
"""Called with messages, one or several that came together."""

_TOPIC = "jwstdask"
_handlers: list[Handler] = []
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
        handler([message])


@contextlib.contextmanager
def listening(executor: Any, handler: Handler) -> Iterator[None]:
    """Call ``handler`` with every message of the tasks of an executor, from whatever thread it comes.

    Those of a cluster come from a thread of their own: what the handler waits for, such as a disk, holds up nobody.
    """
    client = getattr(executor, "client", None)
    messages: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    thread = threading.Thread(target=_deliver, args=(messages, handler), name="messages of tasks", daemon=True)
    if client is not None:
        thread.start()
        client.subscribe_topic(_TOPIC, lambda event: messages.put(event[1]))
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
            messages.put(None)
            thread.join()


def _deliver(messages: queue.SimpleQueue[str | None], handler: Handler) -> None:
    """Hand on what has come, all at once, until None comes."""
    while True:
        batch = [messages.get()]
        with contextlib.suppress(queue.Empty):
            while batch[-1] is not None:
                batch.append(messages.get_nowait())
        try:
            handler([message for message in batch if message is not None])
        except Exception:
            # Who leads meets the same error when it writes the outcome down.
            log.warning("messages of tasks are lost", exc_info=True)
        if batch[-1] is None:
            return
