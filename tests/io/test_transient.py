"""Which errors are tried again, how often, and which are not."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

from jwstdask.core.errors import InputError, ProductError
from jwstdask.io import transient
from jwstdask.io.transient import passing, patiently


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code, status):
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class ResponseError(Exception):
    """As aiohttp's."""

    def __init__(self, status):
        super().__init__(str(status))
        self.status = status


class EndpointConnectionError(ConnectionError):
    """As botocore's, of a server that is not there."""


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
        OSError(errno.EIO, os.strerror(errno.EIO)),
        OSError(errno.ENETUNREACH, "no route"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError("timed out"),
        ResponseError(503),
        ResponseError(500),
        ResponseError(429),
        ClientError("SlowDown", 503),
        ClientError("Throttling", 400),
        caused(OSError(errno.EBUSY, "reduce your request rate"), ClientError("SlowDown", 503)),
        caused(InputError("jw1_uncal.fits", "cannot be read"), OSError(errno.ESTALE, "stale")),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
def test_transient(error):
    assert passing(error)


@pytest.mark.parametrize(
    "error",
    [
        InputError("jw1_uncal.fits", "it ends at byte 2880"),
        OSError("no FITS file"),
        OSError(errno.ENOSPC, "full"),
        FileNotFoundError(errno.ENOENT, "none"),
        PermissionError(errno.EACCES, "denied"),
        EndpointConnectionError("nobody"),
        ResponseError(404),
        ClientError("NoSuchKey", 404),
        ValueError("shape"),
        MemoryError(),
        caused(ProductError("x", "the disk is full"), OSError(errno.ENOSPC, "full")),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
def test_lasting(error):
    assert not passing(error)


@pytest.fixture
def pauses(monkeypatch):
    found = []
    monkeypatch.setattr(transient.time, "sleep", found.append)
    return found


class Work:
    """Fails a number of times."""

    def __init__(self, failures, error):
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "done"


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_tried_again_with_growing_pauses(pauses, failures):
    work = Work(failures, OSError(errno.ESTALE, "stale"))
    assert patiently(work) == "done"
    assert work.calls == failures + 1
    assert pauses == list(transient.PAUSES[:failures])


def test_a_stated_number_of_times(pauses):
    work = Work(99, OSError(errno.ESTALE, "stale"))
    with pytest.raises(OSError, match="stale"):
        patiently(work)
    assert work.calls == transient.TRIES == len(transient.PAUSES) + 1 == 4


def test_bad_data_is_read_once(pauses):
    work = Work(99, InputError("jw1_uncal.fits", "it ends at byte 2880"))
    with pytest.raises(InputError):
        patiently(work)
    assert (work.calls, pauses) == (1, [])


def test_who_has_tried_says_so(pauses):
    """Not four times four: a request that was made again, a task that came from another process."""
    inner = Work(99, OSError(errno.ESTALE, "stale"))
    with pytest.raises(OSError):
        patiently(lambda: patiently(inner))
    assert inner.calls == 4
    with pytest.raises(OSError) as found:
        patiently(inner)
    travelled = Work(99, pickle.loads(pickle.dumps(found.value)))
    with pytest.raises(OSError):
        patiently(travelled)
    assert travelled.calls == 1
