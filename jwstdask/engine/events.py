"""Messages from tasks to the process that leads, soon and not only when the task ends.

What a task says on a worker waits half a second for company, and goes with the task's result if that is there first:
each message on its own would cost the scheduler as much as a task does.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

log = logging.getLogger("jwstdask")

Handler = Callable[[Sequence[str]], None]
"""Called with messages, one or several that came together."""

_TOPIC = "jwstdask"
_WAIT = 0.5
"""Seconds that a message may wait on a worker."""
_handlers: list[Handler] = []
_guard = threading.Lock()
_here = threading.local()


class _Outbox:
    """Messages of the task of a thread of a worker that have not been sent."""

    def __init__(self) -> None:
        self._messages: list[str] = []
        self._guard, self._taken = threading.Lock(), 0

    def add(self, message: str, worker: Any) -> None:
        with self._guard:
            self._messages.append(message)
            if len(self._messages) == 1:
                worker.loop.add_callback(worker.loop.call_later, _WAIT, self._send, worker, self._taken)

    def take(self) -> list[str]:
        with self._guard:
            taken, self._messages = self._messages, []
            self._taken += 1
        return taken

    def _send(self, worker: Any, taken: int) -> None:
        # Before others can be added: what is said last must not come first.
        with self._guard:
            if self._messages and taken == self._taken:
                worker.log_event(_TOPIC, self._messages)
                self._messages = []


def tell(message: str) -> None:
    """Send a message from wherever a task runs. It may get lost with the worker that sends it."""
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        with contextlib.suppress(ValueError):
            worker = distributed.get_worker()
            if not hasattr(_here, "outbox"):
                _here.outbox = _Outbox()
            _here.outbox.add(message, worker)
            return
    hear([message])


def unsent() -> list[str]:
    """Messages of this thread of a worker that wait, to be sent in another way."""
    outbox = getattr(_here, "outbox", None)
    return [] if outbox is None else outbox.take()


def hear(messages: Sequence[str]) -> None:
    """Hand messages to those who listen in this process."""
    with _guard:
        handlers = list(_handlers)
    for handler in handlers:
        handler(messages)


class Inbox:
    """Messages that have come from a cluster and wait to be handled.

    Parameters
    ----------
    handler
        Called with all that have come.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._messages: list[str] = []
        self._guard, self._handling = threading.Lock(), threading.Lock()
        self._news, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._deliver, name="messages of tasks", daemon=True)
        self._thread.start()

    def put(self, messages: Sequence[str]) -> None:
        """Messages have come."""
        with self._guard:
            self._messages += messages
        self._news.set()

    def handle(self) -> None:
        """Handle all that have come, at once; what another thread has begun to handle is done, too, then."""
        with self._handling:
            with self._guard:
                batch, self._messages = self._messages, []
            try:
                if batch:
                    self._handler(batch)
            except BaseException:
                # For who comes next: the process that leads meets the same error when it writes outcomes down.
                with self._guard:
                    self._messages[:0] = batch
                raise

    def _deliver(self) -> None:
        while not self._closed:
            self._news.wait()
            self._news.clear()
            try:
                self.handle()
            except Exception:
                log.warning("messages of tasks cannot be written down", exc_info=True)

    def close(self) -> None:
        """Handle what has come, and no more."""
        self._closed = True
        self._news.set()
        self._thread.join()


@contextlib.contextmanager
def listening(executor: Any, handler: Handler) -> Iterator[Callable[[], None]]:
    """Call ``handler`` with every message of the tasks of an executor, from whatever thread it comes.

    Those of a cluster come from a thread of their own: what the handler waits for, such as a disk, holds up nobody.

    Yields
    ------
    handle
        Has all messages handled that have come.
    """
    client: Any = getattr(executor, "client", None)
    inbox = None if client is None else Inbox(handler)
    if inbox is not None:
        client.subscribe_topic(_TOPIC, lambda event: inbox.put(event[1]))
    with _guard:
        _handlers.append(handler)
    try:
        yield inbox.handle if inbox is not None else lambda: None
    finally:
        with _guard:
            _handlers.remove(handler)
        if inbox is not None:
            with contextlib.suppress(Exception):
                client.unsubscribe_topic(_TOPIC)
            inbox.close()
