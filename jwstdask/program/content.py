"""What a file holds, as a short text: equal for equal content, whenever it was written.

The time of writing (DATE, its copy in the ASDF extension with the checksum there, DATE of the members in HDRTAB, the
date in a catalogue) does not count, so that a product made again is known to be the same.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.errors import InputError, JwstdaskError
from jwstdask.io.layout import FitsLayout, is_url, open_layout
from jwstdask.io.remote import file_system, retried
from jwstdask.kernels import digest

CHUNK = 1 << 20
"""Bytes read at a time: memory does not grow with the file."""

_DATE_CARD = re.compile(rb"(?<=DATE    = ')[^']*(?=')")
_DATE_TEXT = re.compile(rb"(\bdate: ?)'[^']*'")
_FITS_HASH = re.compile(rb"(_fits_hash: )[0-9a-f]{64}")


@dataclass(frozen=True)
class Stamp:
    """A file as it was seen.

    Attributes
    ----------
    size
        Bytes.
    mtime
        Time of the last change [ns]; 0 for a URL.
    digest
        Of its content.
    """

    size: int
    mtime: int
    digest: str

    def json(self) -> list[Any]:
        return [self.size, self.mtime, self.digest]


def glance(path: str) -> tuple[int, int] | None:
    """Size and time of the last change of a file, without reading it; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def stamp(path: str) -> Stamp:
    """Read a file.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if is_url(path):
        return _remote(path)
    seen = glance(path)
    if seen is None:
        raise InputError(path, "there is no such file", "correct the path")
    return Stamp(*seen, combined(parts(path)))


def _remote(path: str) -> Stamp:
    """An object is known by what its server says: reading it all would double the traffic."""
    system, key = file_system(path)
    info = retried(lambda: system.info(key), path)
    told = [str(info.get(name)) for name in ("size", "ETag", "LastModified", "mtime", "created") if info.get(name)]
    text = hashlib.blake2b("\n".join(told).encode(), digest_size=16).hexdigest()
    return Stamp(int(info.get("size") or 0), 0, f"told:{text}")


def parts(path: str) -> dict[str, str]:
    """Digests of the parts of a file.

    Returns
    -------
    parts
        ``header`` (all headers) and the name of each HDU with data, for FITS; ``file`` for all else.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        layout = open_layout(path)
    except JwstdaskError:
        # Not FITS, or half of one: still a file.
        return {"file": _text_or_bytes(path)}
    found: dict[str, str] = {}
    headers = hashlib.blake2b(digest_size=16)
    for hdu in layout:
        headers.update(_DATE_CARD.sub(b"", _bytes(path, hdu.header_offset, hdu.data_offset)))
        if hdu.data_size:
            name = hdu.name if hdu.version == 1 else f"{hdu.name},{hdu.version}"
            found[name] = _data(layout, hdu)
    return {"header": headers.hexdigest(), **found}


def combined(found: Mapping[str, str]) -> str:
    """One digest of all parts."""
    text = "\n".join(f"{name} {value}" for name, value in sorted(found.items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _data(layout: FitsLayout, hdu: Any) -> str:
    stop = hdu.data_offset + hdu.data_size
    if hdu.name == "ASDF":
        data = _bytes(layout.path, hdu.data_offset, stop)
        return hashlib.blake2b(_FITS_HASH.sub(rb"\1", _DATE_TEXT.sub(rb"\1", data)), digest_size=16).hexdigest()
    if hdu.name == "HDRTAB":
        table = layout.table(hdu.name, hdu.version).copy()
        if "DATE" in (table.dtype.names or ()):
            table["DATE"] = ""
        return hashlib.blake2b(table.tobytes(), digest_size=16).hexdigest()
    return digest_of(_pieces(layout.path, hdu.data_offset, stop))


def _text_or_bytes(path: str) -> str:
    if path.endswith(".ecsv"):
        data = _bytes(path, 0, None)
        return hashlib.blake2b(_DATE_TEXT.sub(rb"\1", data), digest_size=16).hexdigest()
    return digest_of(_pieces(path, 0, None))


def _bytes(path: str, start: int, stop: int | None) -> bytes:
    return b"".join(bytes(piece) for piece in _pieces(path, start, stop))


def _pieces(path: str, start: int, stop: int | None) -> Iterator[memoryview]:
    """Bytes of a file, `CHUNK` at a time, in a buffer that is used again."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(start)
            left = os.fstat(file.fileno()).st_size - start if stop is None else stop - start
            buffer = bytearray(min(CHUNK, max(left, 0)))
            while left > 0:
                count = _fill(file, memoryview(buffer)[: min(CHUNK, left)])
                if count == 0:
                    raise InputError(path, f"ends {left} bytes too early", "it has been changed while it was read")
                left -= count
                yield memoryview(buffer)[:count]
    except OSError as error:
        raise InputError(path, f"cannot be read ({error})") from error


def _fill(file: Any, target: memoryview) -> int:
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])
        if not count:
            break
        done += count
    return done


def digest_of(pieces: Iterator[memoryview]) -> str:
    """Digest of bytes that come in pieces, of which all but the last are as long and a multiple of 32 bytes."""
    state, length = digest.start(), 0
    for piece in pieces:
        length += len(piece)
        padding = -len(piece) % 32
        data = bytes(piece) + bytes(padding) if padding else piece
        digest.update(state, np.frombuffer(data, np.uint64))
    return hashlib.blake2b(state.tobytes() + length.to_bytes(8, "little"), digest_size=16).hexdigest()
