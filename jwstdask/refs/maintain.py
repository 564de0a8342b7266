"""Keeping the cache of references whole: check it against a plan, fetch what is missing, pack it for a cluster.

Workers never talk to a network. These functions run once, in the client, before any pixel is read.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import logging
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jwstdask.core.errors import ReferenceFileError
from jwstdask.io.temporary import replacing
from jwstdask.refs.crds import (
    INSTRUMENTS,
    OBSERVATORY,
    Context,
    ReferenceChoice,
    cache_root,
    load_context,
    server_client,
    server_info,
    server_url,
)
from jwstdask.refs.reference import file_problem

__all__ = [
    "MISSING",
    "PRESENT",
    "Manifest",
    "ReferenceStatus",
    "catalogue",
    "check",
    "format_statuses",
    "pack",
    "sync",
    "unpack",
]

log = logging.getLogger(__name__)

PRESENT = "present"
MISSING = "missing"
DAMAGED = "damaged"
UNDECIDED = "undecided"

_CATALOGUE = "jwstdask_catalogue.json"
_MANIFEST = "manifest.json"
_PREFIX = "crds_cache"

Choices = Iterable[ReferenceChoice] | Iterable[Mapping[str, ReferenceChoice]]


@dataclass(frozen=True)
class ReferenceStatus:
    """One reference of a plan and how it stands in the cache.

    Attributes
    ----------
    reftype, name, path
        As in the choice; of an undecided one the name is empty.
    state
        ``present``, ``missing``, ``damaged`` (truncated, or not what the catalogue says) or ``undecided`` (the context
        gives none).
    size
        Bytes on disk; None if the file is missing.
    expected_size, sha1
        What the catalogue knows; None where it knows nothing.
    verified
        The SHA-1 sum was computed and agrees.
    problem
        What is wrong, empty for a present file.
    exposures
        Number of exposures that need it.
    override
        The file is the user's, not the cache's.
    """

    reftype: str
    name: str
    path: str | None
    state: str
    size: int | None = None
    expected_size: int | None = None
    sha1: str | None = None
    verified: bool = False
    problem: str = ""
    exposures: int = 1
    override: bool = False


# ----------------------------------------------------------------------------------------------------------------------
# What is known of the files


def catalogue(ask_server: bool = False) -> dict[str, tuple[int, str | None]]:
    """Size in bytes and SHA-1 of every file known: from the cache's own record, and from the server if asked.

    The cache's record is what the server told it last (``config/jwst/server_config``) and what a pack brought with it.

    Raises
    ------
    ReferenceFileError
        If the server is asked and does not answer.
    """
    from crds.client import proxy

    known = _entries(proxy.crds_decode(server_info().get("download_metadata") or {}))
    try:
        known.update(_entries(json.loads((_config_folder() / _CATALOGUE).read_text())))
    except (OSError, ValueError):
        pass
    client = server_client() if ask_server else None
    if client is not None:
        from crds.core import exceptions

        try:
            known.update(_entries(client.get_download_metadata()))
        except (exceptions.CrdsError, OSError) as error:
            raise ReferenceFileError(
                str(server_url()), f"the CRDS server does not answer: {error}", "check CRDS_SERVER_URL and the network"
            ) from error
    return known


def _entries(metadata: Mapping[str, Any]) -> dict[str, tuple[int, str | None]]:
    entries = {}
    for name, info in metadata.items():
        if isinstance(info, Mapping) and str(info.get("size", "")).isdigit():
            digest = str(info.get("sha1sum") or "").lower()
            entries[name] = (int(info["size"]), digest if len(digest) == 40 else None)
    return entries


def _config_folder() -> Path:
    from crds.core import config

    return Path(config.locate_config("server_config", OBSERVATORY)).parent


def _sha1(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


# ----------------------------------------------------------------------------------------------------------------------
# Check


def check(choices: Choices, checksums: bool = False, ask_server: bool = False) -> list[ReferenceStatus]:
    """Compare the references of a plan with the cache.

    Parameters
    ----------
    choices
        What `jwstdask.refs.crds.resolve` returned, or choices one by one. What is not applicable is left out; a file
        that several exposures need is listed once.
    checksums
        Also compute SHA-1 sums where the catalogue knows them (reads every file).
    ask_server
        Ask the server for sizes and sums.

    Returns
    -------
    list of ReferenceStatus
        Undecided types first, then missing, damaged and present files.
    """
    counted = _count(choices)
    known = catalogue(ask_server) if counted else {}
    statuses = [_status(choice, number, known, checksums) for choice, number in counted.items()]
    order = (UNDECIDED, MISSING, DAMAGED, PRESENT)
    return sorted(statuses, key=lambda status: (order.index(status.state), status.reftype, status.name))


def _count(choices: Choices) -> dict[ReferenceChoice, int]:
    counted: dict[ReferenceChoice, int] = {}
    for item in choices:
        for choice in item.values() if isinstance(item, Mapping) else (item,):
            if not choice.not_applicable:
                counted[choice] = counted.get(choice, 0) + 1
    return counted


def _status(
    choice: ReferenceChoice, exposures: int, known: Mapping[str, tuple[int, str | None]], checksums: bool
) -> ReferenceStatus:
    status = ReferenceStatus(choice.reftype, choice.name, choice.path, UNDECIDED, exposures=exposures)
    status = replace(status, override=choice.origin == "override")
    if choice.error is not None or choice.path is None:
        return replace(status, problem=choice.error or "")
    if not status.override and choice.name in known:
        status = replace(status, expected_size=known[choice.name][0], sha1=known[choice.name][1])
    try:
        size = os.stat(choice.path).st_size
    except OSError as error:
        return replace(status, state=MISSING, problem=error.strerror or "cannot be read")
    status = replace(status, size=size)
    if status.expected_size is not None and size != status.expected_size:
        words = "truncated" if size < status.expected_size else "too long"
        return replace(status, state=DAMAGED, problem=f"{words}: {size} bytes instead of {status.expected_size}")
    problem = file_problem(choice.path)
    if problem is None and checksums and status.sha1 is not None:
        if _sha1(choice.path) != status.sha1:
            problem = "the SHA-1 sum is not that of the catalogue"
        else:
            status = replace(status, verified=True)
    return replace(status, state=PRESENT if problem is None else DAMAGED, problem=problem or "")


def format_statuses(statuses: Sequence[ReferenceStatus]) -> str:
    """A table for the terminal, with totals."""
    rows = [("type", "reference", "size", "state", "exposures")]
    for status in statuses:
        size = status.size if status.size is not None else status.expected_size
        state = status.state + (
            " (sha1 agrees)" if status.verified else f": {status.problem}" if status.problem else ""
        )
        rows.append((status.reftype, status.name or "-", _bytes(size), state, str(status.exposures)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    count = {
        state: sum(status.state == state for status in statuses) for state in (PRESENT, MISSING, DAMAGED, UNDECIDED)
    }
    total = sum(status.size or 0 for status in statuses)
    summary = ", ".join(f"{number} {state}" for state, number in count.items() if number) or "nothing needed"
    return "\n".join([*lines, f"{summary}; {_bytes(total)} on disk"])


def _bytes(size: int | None) -> str:
    if size is None:
        return "?"
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size = size / 1000  # type: ignore[assignment]
    return f"{size:.2f} GB"


# ----------------------------------------------------------------------------------------------------------------------
# Sync


def sync(choices: Choices, context: str | None = None, checksums: bool = False) -> list[ReferenceStatus]:
    """Bring everything a plan needs into the cache: the mappings of its context and its references.

    Missing files are fetched, damaged ones fetched again, through the crds client, which verifies size and SHA-1 and
    puts a file in place only when it is whole. Where nothing is lacking no server is needed.

    Parameters
    ----------
    choices, checksums
        See `check`.
    context
        The context of the choices; default as in `jwstdask.refs.crds.context_name`.

    Returns
    -------
    list of ReferenceStatus
        As `check` afterwards; only undecided types and the user's own files can be other than present.

    Raises
    ------
    ReferenceFileError
        If files are lacking and there is no server, the cache is read-only, or the transfer fails.
    """
    wanted: list[Any] = list(choices)
    loaded = load_context(context)
    statuses = check(wanted, checksums)
    lacking = [status for status in statuses if status.state in (MISSING, DAMAGED) and not status.override]
    if not lacking:
        return statuses
    client = server_client()
    names = ", ".join(status.name for status in lacking[:5]) + (", ..." if len(lacking) > 5 else "")
    if client is None:
        raise ReferenceFileError(
            str(lacking[0].path),
            f"{len(lacking)} references are missing or damaged ({names}) and no CRDS server is set",
            "set CRDS_SERVER_URL=https://jwst-crds.stsci.edu where there is a network, or unpack a pack made there",
        )
    from crds.core import config

    if config.get_cache_readonly():
        raise ReferenceFileError(
            str(cache_root()),
            f"the cache is read-only (CRDS_READONLY_CACHE) and lacks {names}",
            "run `jwstdask refs sync` on a writable cache",
        )
    _fetch(client, loaded, lacking)
    statuses = check(wanted, checksums)
    left = [status for status in statuses if status.state in (MISSING, DAMAGED) and not status.override]
    if left:
        raise ReferenceFileError(
            str(left[0].path), f"still {left[0].state} after the transfer: {left[0].problem}", "run the command again"
        )
    return statuses


def _fetch(client: Any, context: Context, lacking: Sequence[ReferenceStatus]) -> None:
    from crds.core import exceptions, heavy_client

    by_instrument: dict[str, list[str]] = {}
    for status in lacking:
        assert status.path is not None
        folder = os.path.basename(os.path.dirname(status.path))
        by_instrument.setdefault(folder if folder in INSTRUMENTS else "system", []).append(status.name)
        if status.state == DAMAGED:
            log.warning("%s is %s; it is removed and fetched again", status.path, status.problem)
            os.remove(status.path)
    try:
        for instrument, names in by_instrument.items():
            log.info("fetching %d references of %s from %s", len(names), instrument, server_url())
            # The parameters tell the client in which folder a file belongs that it does not have yet.
            cacher = client.FileCacher(context.name, parameters={"META.INSTRUMENT.NAME": instrument.upper()})
            cacher.get_local_files(sorted(set(names)))
        heavy_client.update_config_info.uncached(OBSERVATORY)
    except (exceptions.CrdsError, OSError, KeyError) as error:
        _remove_partial(lacking)
        raise ReferenceFileError(
            str(lacking[0].path),
            f"the references could not be fetched from {server_url()}: {error}",
            "check the network and the space on the disk, then run the command again: it goes on where it stopped",
        ) from error


def _remove_partial(lacking: Sequence[ReferenceStatus]) -> None:
    """Remove what the crds client has put in place before it found the size wrong."""
    try:
        known = catalogue(ask_server=True)
    except ReferenceFileError:
        return
    for status in lacking:
        path = Path(str(status.path))
        if status.name in known and path.exists() and path.stat().st_size != known[status.name][0]:
            path.unlink()


# ----------------------------------------------------------------------------------------------------------------------
# Pack


@dataclass(frozen=True)
class Manifest:
    """What a pack contains.

    Attributes
    ----------
    context
        CRDS context; the packed cache uses it by default.
    server
        Server the cache was filled from, if known.
    created
        UTC date.
    files
        Path in the cache -> {"size": bytes, "sha1sum": text}.
    left_out
        The user's own files (overrides), which are not part of a CRDS cache.
    """

    context: str
    server: str | None
    created: str
    files: dict[str, dict[str, Any]]
    left_out: list[str]

    @property
    def size(self) -> int:
        return sum(entry["size"] for entry in self.files.values())


def pack(choices: Choices, target: str | os.PathLike[str], context: str | None = None) -> Manifest:
    """Write one tar file with all a plan needs of the CRDS cache, for a machine without a network.

    It holds ``crds_cache/`` with the mappings of the context, the references, and the configuration that makes it a
    working ``CRDS_PATH`` whose default context is this one; ``manifest.json`` lists every file with size and SHA-1.
    ``.tar.gz`` compresses (little is gained on floating-point images).

    Raises
    ------
    ReferenceFileError
        If a reference or mapping is missing or damaged, or the tar file cannot be written.
    """
    statuses = check(choices)
    lacking = [status for status in statuses if status.state in (MISSING, DAMAGED) and not status.override]
    if lacking:
        names = ", ".join(f"{status.name} ({status.state})" for status in lacking[:5])
        raise ReferenceFileError(
            str(lacking[0].path),
            f"{len(lacking)} references cannot be packed: {names}",
            "run `jwstdask refs sync` first",
        )
    loaded = load_context(context)
    sources: dict[str, str] = {}
    for name in _mappings(loaded, statuses):
        sources[f"mappings/{OBSERVATORY}/{name}"] = os.path.join(loaded.directory, name)
    for status in statuses:
        if status.state == PRESENT and not status.override:
            assert status.path is not None
            folder = os.path.basename(os.path.dirname(status.path))
            # In a flat cache the folder is no instrument; the pack is always laid out by instrument.
            home = folder if folder in INSTRUMENTS else _instrument_of(status.name)
            sources[f"references/{OBSERVATORY}/{home}/{status.name}"] = status.path
    left_out = sorted({str(status.path) for status in statuses if status.override})
    return _write_tar(Path(target), loaded, sources, left_out)


def _instrument_of(name: str) -> str:
    return next((word for word in name.lower().split("_") if word in INSTRUMENTS), "system")


def _mappings(context: Context, statuses: Sequence[ReferenceStatus]) -> list[str]:
    """Mappings of the instruments in use, all of which must be there, and whatever else of the context is there."""
    in_use = {_instrument_of(status.name) for status in statuses if not status.override and status.name}
    names = set(context.mapping_names(in_use))
    absent = sorted(name for name in names if not os.path.exists(os.path.join(context.directory, name)))
    if absent:
        raise ReferenceFileError(
            os.path.join(context.directory, absent[0]),
            f"{len(absent)} mappings of {context.name} are not in the cache",
            "run `jwstdask refs sync` first",
        )
    for instrument in set(INSTRUMENTS) - in_use:
        try:
            others = context.mapping_names([instrument])
        except ReferenceFileError:
            continue
        names.update(name for name in others if os.path.exists(os.path.join(context.directory, name)))
    return sorted(names)


def _write_tar(target: Path, context: Context, sources: Mapping[str, str], left_out: list[str]) -> Manifest:
    info = {key: value for key, value in server_info().items() if key != "download_metadata"}
    info.setdefault("bad_files_list", [])
    info.setdefault("force_remote_mode", False)
    info.setdefault("last_synced", "")
    info |= {"observatory": OBSERVATORY, "operational_context": context.name, "latest_context": context.name}
    info |= {"connected": False}
    server = info.get("server") or server_url()
    created = datetime.datetime.now(datetime.UTC).replace(microsecond=0, tzinfo=None).isoformat()
    files: dict[str, dict[str, Any]] = {}
    compress = target.name.endswith((".gz", ".tgz"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary, tarfile.open(temporary, "w:gz" if compress else "w") as archive:
            for name, path in sorted(sources.items()):
                files[name] = {"size": os.path.getsize(path), "sha1sum": _sha1(path)}
                archive.add(path, f"{_PREFIX}/{name}", recursive=False)
            known = {os.path.basename(name): entry for name, entry in files.items()}
            configuration = {
                "server_config": repr(info),
                "ref_cache_subdir_mode": "instrument",
                _CATALOGUE: json.dumps(known, indent=1),
            }
            for name, text in configuration.items():
                _add_text(archive, f"{_PREFIX}/config/{OBSERVATORY}/{name}", text)
            manifest = Manifest(context.name, server, created, files, left_out)
            _add_text(archive, f"{_PREFIX}/{_MANIFEST}", json.dumps(asdict(manifest), indent=1))
    except OSError as error:
        raise ReferenceFileError(
            target, f"the pack cannot be written: {error.strerror or error}", "choose another folder"
        ) from error
    return manifest


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    archive.addfile(member, io.BytesIO(data))


def unpack(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Unpack a pack and verify every file.

    Returns
    -------
    pathlib.Path
        The folder to use as ``CRDS_PATH``: ``<target>/crds_cache``.

    Raises
    ------
    ReferenceFileError
        If the tar file is damaged or no pack, or a file does not have the size and SHA-1 of the manifest.
    """
    folder = Path(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ReferenceFileError(source, f"the pack cannot be unpacked: {error}", "copy or make it again") from error
    root = folder / _PREFIX
    try:
        manifest = Manifest(**json.loads((root / _MANIFEST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ReferenceFileError(
            source, f"this is no pack of references, or its end is missing: {error}", "copy or make it again"
        ) from error
    for name, entry in manifest.files.items():
        path = root / name
        if not path.is_file() or path.stat().st_size != entry["size"] or _sha1(str(path)) != entry["sha1sum"]:
            raise ReferenceFileError(
                path, "the file is not what the manifest says", "copy the pack again and unpack it"
            )
    return root
