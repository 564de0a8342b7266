"""Files at URLs: file systems, repeated tries, errors in the user's words, listings, and finished files sent off.

Nothing is cached: a strip costs its bytes and nobody reads what was there before. A file is made on a local disk and
sent when it is complete; S3 shows an object only once all its parts have arrived, so that no reader ever sees half a
product.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any, TypeVar

from jwstdask.core.errors import InputError, ProductError
from jwstdask.io.transient import DENIED, NOBODY, exhausted, names, passing, status

T = TypeVar("T")

TRIES = 4
"""How often a request is made before it counts as failed, besides what the client of the store does itself."""
PAUSE = 0.5
"""Seconds before the second try; each further pause is twice as long."""
PART = 16 << 20
"""Size of the parts in which a large file is sent [bytes]."""

_PUBLIC = "stpubdata"
"""The archive's public bucket, which asks for no credentials."""
_PROGRAM = re.compile(r"(?P<root>.*/jw(?P<program>\d{5}))/")
_VISIT = re.compile(r"jw(?P<program>\d{5})\d{6}_")


def is_url(path: str) -> bool:
    """True for a path that fsspec must open."""
    return "://" in path


def join(folder: str, name: str) -> str:
    """A name in a folder or under a URL."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)


def absolute(path: str) -> str:
    """An absolute path; a URL as it is."""
    return path if is_url(path) else os.path.abspath(path)


def present(path: str) -> bool:
    """Whether there is a file, at a URL or not."""
    return exists(path) if is_url(path) else os.path.exists(path)


def staging_folder() -> str:
    """Folder on a local disk where products wait until they are sent: JWSTDASK_SCRATCH, else that of the system.

    Workers on several machines that share the work on one exposure must all see it.
    """
    return os.path.abspath(os.environ.get("JWSTDASK_SCRATCH") or tempfile.gettempdir())


def file_system(url: str, storage_options: dict[str, Any] | None = None) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path in it.

    Without options, those of fsspec's configuration hold (``FSSPEC_S3='{"anon": true}'``), and the environment of the
    store's client (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID ...); the archive's public bucket is read without credentials.

    Raises
    ------
    InputError
        If nothing is installed that reads such URLs.
    """
    import fsspec

    options: dict[str, Any] = {}
    if url.startswith("s3://"):
        options = {"default_cache_type": "none", "use_listings_cache": False}
        if url.split("/")[2] == _PUBLIC and not fsspec.config.conf.get("s3"):
            options["anon"] = True
    try:
        return fsspec.core.url_to_fs(url, **{**options, **(storage_options or {})})
    except (ImportError, ValueError) as error:
        raise InputError(url, f"such URLs cannot be opened ({error})", 'pip install "jwstdask[s3]"') from error


def retried(work: Callable[[], T], url: str, failure: type[InputError] | type[ProductError] = InputError) -> T:
    """Do something with a URL, again after a pause where the network failed.

    Raises
    ------
    InputError or ProductError
        As `failure` says: of what is left of the errors.
    """
    for number in range(TRIES):
        try:
            return work()
        except (InputError, ProductError, MemoryError):
            raise
        except Exception as error:
            if number + 1 == TRIES or not passing(error):
                message, remedy = explanation(url, error)
                raise exhausted(failure(url, message, remedy)) from error
        time.sleep(PAUSE * 2**number)
    raise AssertionError


def explanation(url: str, error: BaseException) -> tuple[str, str]:
    """What is wrong, and what can be done about it."""
    found, number = names(error), status(error)
    scheme = url.split("://")[0]
    if found & NOBODY:
        remedy = "check the network and the address of the server"
        if scheme == "s3":
            remedy += f" (AWS_ENDPOINT_URL is {os.environ.get('AWS_ENDPOINT_URL') or 'not set'})"
        return f"the server cannot be reached ({_last(error)})", remedy
    if found & DENIED or number in (401, 403):
        remedy = "check the permissions"
        if scheme == "s3":
            remedy = """check the credentials; for a public bucket set FSSPEC_S3='{"anon": true}'"""
        return "access is not permitted", remedy
    if isinstance(error, FileNotFoundError) or number == 404:
        return "there is no such file", "check the path" if scheme != "s3" else "check the names of bucket and key"
    if isinstance(error, IsADirectoryError):
        return "this is a folder", "give a FITS file"
    if passing(error):
        return f"the connection failed {TRIES} times ({_last(error)})", "check the network and try again"
    return f"access failed ({_last(error)})", "check the URL and the network"


def _last(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


def exists(url: str) -> bool:
    """Whether there is a file at a URL."""
    system, key = file_system(url)
    return retried(lambda: bool(system.isfile(key)), url)


def list_files(url: str, storage_options: dict[str, Any] | None = None) -> list[str]:
    """URLs of all files under a prefix, at any depth, in order: a folder, or the beginning of names.

    Raises
    ------
    InputError
        If the store cannot list them, or there are none.
    """
    system, key = file_system(url, storage_options)
    keys = retried(lambda: _found(system, key), url)
    if not keys:
        raise InputError(url, "there is no file under this prefix", "check the path")
    return [system.unstrip_protocol(found) for found in keys]


def match_files(pattern: str) -> list[str]:
    """URLs that a pattern matches, in order."""
    system, key = file_system(pattern)
    return [system.unstrip_protocol(found) for found in sorted(retried(lambda: list(system.glob(key)), pattern))]


def _found(system: Any, key: str) -> list[str]:
    keys = sorted(system.find(key.rstrip("/")))
    if not keys and not key.endswith("/"):
        folder, _, name = key.rpartition("/")
        keys = sorted(found for found in system.find(folder) if found[len(folder) + 1 :].startswith(name))
    return keys


def place_in_archive(association: str, name: str) -> str | None:
    """Where the archive's public bucket keeps the member of an association in there; None for other places.

    Exposures are in ``jw01234/jw01234001001/``, a folder a visit, associations and what is made of them in
    ``jw01234/L3/``.
    """
    program, visit = _PROGRAM.match(association), _VISIT.match(name)
    if program is None or visit is None or program["program"] != visit["program"]:
        return None
    return f"{program['root']}/{name.split('_')[0]}/{name}"


def check_writable(folder: str) -> None:
    """Make sure that files can be sent to a URL, before any work is done; nothing is left there.

    Raises
    ------
    ProductError
        If not: no such bucket, no permission, a protocol that cannot write.
    """
    if folder.startswith(("http://", "https://")):
        raise ProductError(folder, "products cannot be sent to a web server", "give an s3:// URL or a folder")
    if not folder.startswith("s3://"):
        return
    system, key = _writable_system(folder)
    bucket, _, prefix = key.rstrip("/").partition("/")
    name = f"{prefix}/.jwstdask" if prefix else ".jwstdask"

    def begin_and_give_up() -> None:
        upload = system.call_s3("create_multipart_upload", Bucket=bucket, Key=name)
        system.call_s3("abort_multipart_upload", Bucket=bucket, Key=name, UploadId=upload["UploadId"])

    retried(begin_and_give_up, folder, ProductError)


def _writable_system(url: str) -> tuple[Any, str]:
    try:
        return file_system(url)
    except InputError as error:
        raise ProductError(url, error.reason, error.remedy) from error


def publish(temporary: str, path: str) -> None:
    """Give a finished file its place: a rename, or sending it to a URL; the temporary file is gone.

    Raises
    ------
    OSError
        If it cannot be renamed.
    ProductError
        If it cannot be sent; the temporary file stays.
    """
    if not is_url(path):
        os.replace(temporary, path)
        return
    system, key = _writable_system(path)
    size = os.path.getsize(temporary)
    # The client sends parts in parallel, which it holds in memory.
    options = {"chunksize": PART, "max_concurrency": 2} if path.startswith("s3://") else {}

    def send() -> None:
        system.put_file(temporary, key, **options)
        found = system.info(key)["size"]
        if found != size:
            raise ConnectionError(f"{found} of {size} bytes arrived")

    retried(send, path, ProductError)
    with contextlib.suppress(OSError):
        os.unlink(temporary)
