"""Errors that may be gone at the next try, and trying again.

Of the network (cut connections, timeouts), of servers that are too busy (HTTP 5xx, throttling), of network file systems
(stale handles, input/output errors). Anything else, such as a damaged file, is the same at the next try.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger("jwstdask")

TRIES = 4
"""How often a task is done before a transient error counts."""
PAUSES = (1.0, 4.0, 16.0)
"""Seconds before each further try."""

# Errors by the names of their classes, so that no client has to be imported: of the network, which may pass ...
_PASSING = frozenset(
    (
        "ClientConnectionError",
        "ClientOSError",
        "ClientPayloadError",
        "ConnectionClosedError",
        "ConnectionError",
        "FSTimeoutError",
        "HTTPClientError",
        "IncompleteRead",
        "IncompleteReadError",
        "ResponseStreamingError",
        "ServerDisconnectedError",
        "TimeoutError",
    )
)
# ... of a server that is not there, ...
NOBODY = frozenset(
    ("ClientConnectorError", "ConnectTimeoutError", "ConnectionRefusedError", "EndpointConnectionError", "gaierror")
)
# ... and of somebody who gave no credentials or wrong ones.
DENIED = frozenset(("NoCredentialsError", "PartialCredentialsError", "PermissionError", "TokenRetrievalError"))

_NUMBERS = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "EIO",
        "ENETDOWN",
        "ENETRESET",
        "ENETUNREACH",
        "EREMOTEIO",
        "ESTALE",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
)
"""Errors of the operating system."""

_BUSY = frozenset(("RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestThrottled"))
"""Codes with which an object store asks for patience, whatever the HTTP status."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def names(error: BaseException) -> set[str]:
    """Names of the classes of an error and of what it came from."""
    return {kind.__name__ for item in chain(error) for kind in type(item).__mro__}


def _response(error: BaseException) -> dict:
    found = getattr(error, "response", None)
    return found if isinstance(found, dict) else {}


def status(error: BaseException) -> int | None:
    """HTTP status of a response that was an error."""
    for item in chain(error):
        for found in (
            getattr(item, "status", None),
            _response(item).get("ResponseMetadata", {}).get("HTTPStatusCode"),
        ):
            if isinstance(found, int) and found >= 400:
                return found
    return None


def passing(error: BaseException) -> bool:
    """True for an error that may be gone at the next try."""
    if any(_response(item).get("Error", {}).get("Code") in _BUSY for item in chain(error)):
        return True
    found = status(error)
    if found is not None:
        return found >= 500 or found in (408, 429)
    if isinstance(error, FileNotFoundError) or names(error) & (NOBODY | DENIED):
        return False
    numbers = {item.errno for item in chain(error) if isinstance(item, OSError)}
    return bool(names(error) & _PASSING or numbers & _NUMBERS)


def exhausted(error: T) -> T:
    """Mark an error: it has been tried again already, so that nobody else does."""
    error.tried = True  # type: ignore[attr-defined]
    return error


def patiently(work: Callable[[], T], name: str = "") -> T:
    """Do something that can be done again; after a pause where a transient error prevented it.

    Parameters
    ----------
    work
        What to do.
    name
        Of what is worked on, for the log.
    """
    for pause in PAUSES[: TRIES - 1]:
        try:
            return work()
        except Exception as error:
            if any(getattr(item, "tried", False) for item in chain(error)) or not passing(error):
                raise
            text = str(error).strip() or type(error).__name__
            log.warning("%s; tried again in %g s", text if name in text else f"{name}: {text}", pause)
        time.sleep(pause)
    try:
        return work()
    except Exception as error:
        exhausted(error)
        raise
