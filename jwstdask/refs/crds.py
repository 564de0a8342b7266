"""Best references of many exposures from one CRDS context.

The rules are the ``crds`` client's own: its mappings are loaded with its loader and asked with its selectors, so that a
choice is the one ``crds.getrecommendations`` makes. What is added is that exposures which a rule set cannot tell apart
are asked for once. A rule set (rmap) sees the values of its own matching parameters and the position of the exposure's
date among its USEAFTER dates; that tuple is the selection key. A thousand exposures have some ten keys a rule set.

Nothing here needs a server once the context is in the cache (``CRDS_PATH``), and nothing here needs the reference files
themselves: a choice names the file and says whether it is present.

The ``crds`` package costs 0.7 CPU seconds to import and is imported at first use.
"""

from __future__ import annotations

import ast
import bisect
import functools
import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jwstdask.core.errors import ReferenceFileError
from jwstdask.core.imports import lazy_package, postponed
from jwstdask.refs.reference import wrong_kind

__all__ = [
    "NOT_APPLICABLE",
    "Context",
    "ReferenceChoice",
    "cache_root",
    "context_name",
    "load_context",
    "override_choice",
    "reference_path",
    "required",
    "resolve",
    "server_client",
    "server_info",
    "server_url",
]

log = logging.getLogger(__name__)
lazy_package("crds")

NOT_APPLICABLE = "N/A"
OBSERVATORY = "jwst"
_SERVERLESS = "https://crds-serverless-mode.stsci.edu"
INSTRUMENTS = ("fgs", "miri", "nircam", "niriss", "nirspec", "system")

# Separators of the two text forms an error of crds may take; "NOT FOUND n/a" is its way to say "not applicable".
_NOT_FOUND = "NOT FOUND"


@dataclass(frozen=True)
class ReferenceChoice:
    """What the context says about one reference type of one exposure.

    Exactly one of these holds: `error` is set (no choice can be made), `name` is ``"N/A"`` (the context rules the type
    out for this exposure), or `path` is set (the file in the cache, or the overriding file).
    """

    reftype: str
    name: str = ""
    path: str | None = None
    present: bool = False
    error: str | None = None
    origin: str = ""
    """Context name (``jwst_1234.pmap``) or ``override``."""

    @property
    def not_applicable(self) -> bool:
        return self.error is None and self.name == NOT_APPLICABLE

    @property
    def usable(self) -> bool:
        """Whether a file can be opened."""
        return self.error is None and self.path is not None and self.present

    def __str__(self) -> str:
        if self.error is not None:
            return f"error: {self.error}"
        return self.path or self.name


# ----------------------------------------------------------------------------------------------------------------------
# The cache and the context


def cache_root() -> Path:
    """Root of the CRDS cache (``CRDS_PATH``)."""
    from crds.core import config

    return Path(config.get_crds_path())


def _mapping_directory() -> str:
    from crds.core import config

    return config.get_crds_mappath(OBSERVATORY)


def _reference_directory() -> str:
    from crds.core import config

    return config.get_crds_refpath(OBSERVATORY)


def server_url() -> str | None:
    """Address of the CRDS server, None in serverless mode (``CRDS_SERVER_URL`` unset or containing "serverless")."""
    url = os.environ.get("CRDS_SERVER_URL", "")
    return None if not url or "serverless" in url else url


def server_client() -> Any | None:
    """The crds client's module of server calls, pointed at `server_url`; None in serverless mode."""
    url = server_url()
    return None if url is None else _client_of(url)


def _client_of(url: str) -> Any:
    from crds.client import api

    # The client reads the variable once, when its package is imported; a program may set it later.
    if api.S is None or api.get_crds_server() != url.rstrip("/"):
        api.set_crds_server(url)
    return api


def server_info() -> dict[str, Any]:
    """What the server last told the cache (``config/jwst/server_config``); empty if the cache has none."""
    from crds.core import config

    path = config.locate_config("server_config", OBSERVATORY)
    try:
        stamp = os.stat(path).st_mtime_ns
    except OSError:
        return {}
    return _read_server_info(path, stamp)


@functools.lru_cache(maxsize=8)
def _read_server_info(path: str, stamp: int) -> dict[str, Any]:
    try:
        info = ast.literal_eval(Path(path).read_text())
    except (OSError, ValueError, SyntaxError) as error:
        raise ReferenceFileError(
            path,
            f"the CRDS server configuration in the cache cannot be read: {error}",
            "delete it and run `jwstdask refs sync` with CRDS_SERVER_URL set",
        ) from error
    return dict(info)


def context_name(context: str | None = None) -> str:
    """Name of the context to use: the argument, else ``CRDS_CONTEXT``, else the operational one.

    The operational context is the server's when a server is configured (for jwst its build context, as the crds client
    does), otherwise the one the cache saw last.

    Raises
    ------
    ReferenceFileError
        If no context can be named without a server.
    """
    context = context or os.environ.get("CRDS_CONTEXT") or None
    if context is not None and context.endswith((".pmap", ".imap")):
        return context
    if server_url() is None and (context is None or context in _LATEST):
        info = server_info()
        name = info.get("latest_context") or info.get("operational_context")
        if name:
            return str(name)
    _import_rules()
    from crds.core import exceptions, heavy_client

    _client_of(server_url() or _SERVERLESS)
    try:
        return heavy_client.get_processing_mode.uncached(OBSERVATORY, context)[1]
    except (exceptions.CrdsError, OSError, SystemExit, KeyError, AttributeError) as error:
        raise ReferenceFileError(
            context or "operational context",
            "the CRDS context cannot be determined"
            + ("" if isinstance(error, SystemExit) else f" ({error or type(error).__name__})"),
            "set CRDS_CONTEXT to a context in the cache (for example jwst_1234.pmap), or CRDS_SERVER_URL to a server",
        ) from error


_LATEST = ("latest", f"{OBSERVATORY}-operational", f"{OBSERVATORY}-latest")


def _subdirectory_mode(reference_directory: str) -> str:
    """``instrument`` (one directory an instrument) or ``flat``, as the crds client finds it, but without writing."""
    from crds.core import config

    try:
        mode = Path(config.locate_config("ref_cache_subdir_mode", OBSERVATORY)).read_text().strip()
    except OSError:
        try:
            return "flat" if len(os.listdir(reference_directory)) > 20 else "instrument"
        except OSError:
            return "instrument"
    return "flat" if mode == "flat" else "instrument"


class _Locator:
    """Paths of reference files in the cache; one directory look-up a name."""

    def __init__(self) -> None:
        self.directory = _reference_directory()
        self.flat = _subdirectory_mode(self.directory) == "flat"
        self._found: dict[str, tuple[str, bool]] = {}

    def __call__(self, name: str, instrument: str) -> tuple[str, bool]:
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = self._locate(name, instrument)
        return found

    def _locate(self, name: str, instrument: str) -> tuple[str, bool]:
        if self.flat:
            path = os.path.join(self.directory, name)
            return path, os.path.exists(path)
        home = os.path.join(self.directory, instrument, name)
        if os.path.exists(home):
            return home, True
        for other in INSTRUMENTS:
            path = os.path.join(self.directory, other, name)
            if other != instrument and os.path.exists(path):
                return path, True
        return home, False


def reference_path(name: str, instrument: str | None = None) -> tuple[str, bool]:
    """Path of a reference in the cache and whether the file exists.

    Without `instrument` it is taken from the name (``jwst_<instrument>_<type>_<number>``).
    """
    if instrument is None:
        words = name.lower().split("_")
        instrument = next((word for word in words if word in INSTRUMENTS), "system")
    return _Locator()(name, instrument.lower())


# ----------------------------------------------------------------------------------------------------------------------
# Rules


def _import_rules() -> None:
    """Import the modules of crds that read rules, which know the times of astropy when they meet them."""
    with postponed("astropy.time", "Time"):
        from crds import data_file  # noqa: F401
        from crds.core import rmap  # noqa: F401


@functools.lru_cache(maxsize=65536, typed=True)
def _condition(value: str | float | int | bool) -> str:
    from crds.core import utils

    return utils.condition_value(value)


@functools.lru_cache(maxsize=65536)
def _timestamp(text: str) -> str | None:
    _import_rules()
    from crds.core import timestamp

    try:
        return timestamp.reformat_date(text)
    except Exception:  # the crds parser raises whatever its text handling raises
        return None


class _Header:
    """The metadata of one exposure as CRDS matching parameters: upper-case names, conditioned text values."""

    def __init__(self, meta: Mapping[str, Any]):
        self._meta = meta
        self._values: dict[str, str] = {}
        self._dates: dict[tuple[str, ...], tuple[str, str | None]] = {}
        self._upper: dict[str, Any] | None = None

    def __getitem__(self, key: str) -> str:
        value = self._values.get(key)
        if value is None:
            value = self._values[key] = self._lookup(key)
        return value

    def _lookup(self, key: str) -> str:
        value = self._meta.get(key.lower())
        if value is None:
            # Names are dotted and lower case by convention; anything else is a caller's own dictionary.
            if self._upper is None:
                self._upper = {name.upper(): item for name, item in self._meta.items() if not name.islower()}
            value = self._upper.get(key)
        if isinstance(value, np.generic):
            value = value.item()
        if not isinstance(value, (str, float, int, bool)):
            return "UNDEFINED"
        return _condition(value)

    def date(self, keys: tuple[str, ...]) -> tuple[str, str | None]:
        """Text of a USEAFTER look-up and its time stamp, None where it cannot be read."""
        found = self._dates.get(keys)
        if found is None:
            values = [self[key].strip() for key in keys]
            text = " ".join(values).strip()
            found = self._dates[keys] = (text, None if "UNDEFINED" in values else _timestamp(text))
        return found


class _Rules:
    """One rmap with a memory of its answers by selection key."""

    def __init__(self, rmap: Any, all_keys: Iterable[str] | None):
        self._rmap = rmap
        keys = list(rmap.get_required_parkeys()) if all_keys is None else [*rmap.get_required_parkeys(), *all_keys]
        self._boundaries, date_keys = _useafter_boundaries(rmap)
        self._date_keys = tuple(date_keys)
        self._keys = tuple(dict.fromkeys(key.upper() for key in keys if key.upper() not in self._date_keys))
        self._memory: dict[tuple, str] = {}

    def choose(self, header: _Header) -> str:
        values = tuple([header[key] for key in self._keys])
        date: Any = None
        if self._date_keys:
            text, stamp = header.date(self._date_keys)
            date = text if stamp is None else bisect.bisect_right(self._boundaries, stamp)
        answer = self._memory.get((values, date))
        if answer is None:
            parameters = dict(zip(self._keys, values, strict=True))
            parameters.update((key, header[key]) for key in self._date_keys)
            answer = self._ask(parameters)
            if _is_failure(answer):
                # The text quotes the exposure itself, so a failure is remembered for nobody else.
                shown = (f"{key.removeprefix('META.').lower()}={value}" for key, value in parameters.items())
                answer += f" [{', '.join(shown)}]"
            else:
                self._memory[values, date] = answer
        return answer

    def _ask(self, parameters: dict[str, str]) -> str:
        answer = self._rmap.get_best_ref(parameters)
        if isinstance(answer, str):
            return answer
        rules = os.path.basename(self._rmap.filename)
        if answer is None:
            return f"{_NOT_FOUND} omitted by the rules of {rules}"
        # Equally good rules of different kinds cannot be merged; crds hands them all back and fails later.
        return f"{_NOT_FOUND} ambiguous rules in {rules}"


def _is_failure(answer: str) -> bool:
    return answer.startswith(_NOT_FOUND) and answer.upper() != "NOT FOUND N/A"


def _useafter_boundaries(rmap: Any) -> tuple[list[str], tuple[str, ...]]:
    """All USEAFTER dates of an rmap, sorted, and the names of the parameters they are compared with.

    Answers depend on the date only through comparisons with these. Rule sets with other ways to use a date
    give no names: then the date is matched like any other parameter.
    """
    from crds.core.selectors import MatchSelector, Selector, UseAfterSelector

    matched: set[str] = set()
    dated: set[tuple[str, ...]] = set()
    boundaries: set[str] = set()
    pending = [rmap.selector]
    while pending:
        selector = pending.pop()
        if type(selector) is UseAfterSelector:
            dated.add(tuple(selector._parameters))
            boundaries.update(selector.keys())
        elif type(selector) is MatchSelector:
            matched.update(selector._parameters)
        else:
            return [], ()
        pending.extend(choice for choice in selector.choices() if isinstance(choice, Selector))
    if len(dated) != 1:
        return [], ()
    names = next(iter(dated))
    if matched.intersection(names):
        return [], ()
    return sorted(boundaries), names


def _has_expressions(rmap: Any) -> bool:
    """Whether rules of this rmap are switched by expressions, which may read parameters that are not matched."""
    header = rmap.header
    return any(
        str(header.get(name, "")).lower() not in ("", "always", "true", "false", "{}")
        for name in ("rmap_relevance", "rmap_omit", "parkey_relevance", "hooks")
    )


class Context:
    """A CRDS context (pmap) loaded from a mapping directory; rule sets are read when first asked for.

    Not locked: `resolve` holds a lock around its use.
    """

    def __init__(self, name: str, directory: str):
        self.name = name
        self.directory = directory
        self._instruments: dict[str, Any] = {}
        self._rules: dict[tuple[str, str], _Rules | str] = {}
        self._top = self._load(name)

    def _load(self, name: str) -> Any:
        _import_rules()
        from crds.core import exceptions, rmap

        path = os.path.join(self.directory, name)
        if not os.path.exists(path):
            _fetch_mappings(self.name)
        if not os.path.exists(path):
            raise ReferenceFileError(
                path,
                f"the mapping {name} of context {self.name} is not in the CRDS cache",
                "set CRDS_SERVER_URL and run `jwstdask refs sync`, unpack a `jwstdask refs pack`, "
                "or set CRDS_CONTEXT to a context in the cache",
            )
        try:
            return rmap.load_mapping(name, path=self.directory)
        except (exceptions.CrdsError, OSError, SyntaxError, ValueError, AttributeError) as error:
            raise ReferenceFileError(
                path, f"the mapping cannot be read: {error}", "delete it and run `jwstdask refs sync`"
            ) from error

    def _instrument(self, instrument: str) -> Any:
        """The imap of an instrument, or the text of why there is none."""
        if instrument not in self._instruments:
            if self.name.endswith(".imap"):
                imap: Any = self._top
            else:
                entry = {key.lower(): value for key, value in self._top.selector.items()}.get(instrument)
                if entry is None:
                    imap = f"Unknown instrument {instrument!r} for context {self.name!r}"
                elif not str(entry).endswith(".imap"):
                    imap = str(entry)
                else:
                    imap = self._load(str(entry))
            self._instruments[instrument] = imap
        return self._instruments[instrument]

    def reference_types(self, instrument: str) -> tuple[str, ...]:
        """Lower-case names of the reference types the context lists for an instrument."""
        imap = self._instrument(instrument.lower())
        return () if isinstance(imap, str) else tuple(sorted(key.lower() for key in imap.selector))

    def mapping_names(self, instruments: Iterable[str] | None = None) -> list[str]:
        """Names of the mappings the context consists of (pmap, imaps, rmaps): all, or those of some instruments."""
        names = [self.name]
        listed = [self._top.instrument] if self.name.endswith(".imap") else list(self._top.selector)
        wanted = {name.lower() for name in (listed if instruments is None else instruments)}
        for key in listed:
            imap = self._instrument(key.lower()) if key.lower() in wanted else ""
            if not isinstance(imap, str):
                names.append(os.path.basename(imap.filename))
                names += [value for value in imap.selector.values() if str(value).endswith(".rmap")]
        return sorted(set(names))

    def _rule_set(self, instrument: str, reftype: str) -> _Rules | str:
        rules = self._rules.get((instrument, reftype))
        if rules is None:
            rules = self._rules[instrument, reftype] = self._read_rule_set(instrument, reftype)
        return rules

    def _read_rule_set(self, instrument: str, reftype: str) -> _Rules | str:
        imap = self._instrument(instrument)
        if isinstance(imap, str):
            return f"{_NOT_FOUND} {imap}"
        entry = {key.lower(): value for key, value in imap.selector.items()}.get(reftype)
        if entry is None:
            return f"{_NOT_FOUND} Unknown reference type {reftype!r}"
        if not str(entry).endswith(".rmap"):
            from crds.core.rmap import MappingSelectionsDict

            if MappingSelectionsDict.is_omit_value(entry):
                return f"{_NOT_FOUND} omitted for {instrument} by {self.name}"
            return "NOT FOUND n/a"
        rmap = self._load(str(entry))
        all_keys = imap.get_required_parkeys() if _has_expressions(rmap) else None
        return _Rules(rmap, all_keys)

    def choose(self, header: _Header, reftype: str) -> tuple[str, str]:
        """Instrument and answer of the crds client for a type: a name, ``NOT FOUND n/a`` or ``NOT FOUND <why>``."""
        instrument = header["META.INSTRUMENT.NAME"]
        if instrument == "UNDEFINED":
            return "", f"{_NOT_FOUND} the instrument (INSTRUME) is missing from the metadata"
        instrument = instrument.lower()
        rules = self._rule_set(instrument, reftype)
        return instrument, rules if isinstance(rules, str) else rules.choose(header)


def _fetch_mappings(context: str) -> None:
    """Ask the server for the mappings of a context; does nothing without a server."""
    api = server_client()
    if api is None:
        return
    from crds.core import exceptions

    log.info("fetching the mappings of %s from %s", context, server_url())
    try:
        api.dump_mappings(context)
    except (exceptions.CrdsError, OSError) as error:
        raise ReferenceFileError(
            context,
            f"the mappings could not be fetched from {server_url()}: {error}",
            "check the network, or use a context that is in the cache (CRDS_CONTEXT)",
        ) from error


_contexts: dict[tuple[str, str, int], Context] = {}
_lock = threading.RLock()


def load_context(context: str | None = None) -> Context:
    """The context by `context_name`, read once a process and cache."""
    name = context_name(context)
    directory, base = os.path.split(name)
    directory = directory or _mapping_directory()
    path = os.path.join(directory, base)
    with _lock:
        try:
            stamp = os.stat(path).st_mtime_ns
        except OSError:
            stamp = 0
        loaded = _contexts.get((directory, base, stamp))
        if loaded is None:
            loaded = _contexts[directory, base, stamp] = Context(base, directory)
        return loaded


# ----------------------------------------------------------------------------------------------------------------------
# Resolution


def override_choice(reftype: str, path: str | os.PathLike[str]) -> ReferenceChoice:
    """The choice a parameter ``override_<reftype>`` makes: a file, ``crds://<name>`` in the cache, or ``N/A``.

    A file that is by its keywords of another type, or no reference, is a choice with `error`.
    """
    text = os.fspath(path).strip()
    if text in ("", NOT_APPLICABLE):
        return ReferenceChoice(reftype, name=NOT_APPLICABLE, origin="override")
    if text.startswith("crds://"):
        name = text[len("crds://") :]
        location, present = reference_path(name)
    else:
        location = os.path.abspath(os.path.expanduser(text))
        name, present = os.path.basename(location), os.path.exists(location)
    if present and (error := wrong_kind(location, reftype)) is not None:
        return ReferenceChoice(reftype, name=name, error=error, origin="override")
    return ReferenceChoice(reftype, name=name, path=location, present=present, origin="override")


def resolve(
    metas: Sequence[Mapping[str, Any]],
    reference_types: Sequence[str] | Sequence[Sequence[str]],
    context: str | None = None,
    overrides: Mapping[str, str | os.PathLike[str]] | None = None,
) -> list[dict[str, ReferenceChoice]]:
    """Choose the references of many exposures.

    Parameters
    ----------
    metas
        One mapping of dotted names (``"meta.instrument.detector"``) to values an exposure.
    reference_types
        Reference types wanted: one sequence for all exposures, or one sequence an exposure. Parameter references
        (``"pars-jumpstep"``) are reference types.
    context
        Context name; default ``CRDS_CONTEXT``, then the operational context.
    overrides
        Reference type -> file that replaces the choice (see `override_choice`).

    Returns
    -------
    list of dict
        For each exposure reference type -> `ReferenceChoice`, in the order asked. Names equal those of
        ``crds.getrecommendations``. A type the context cannot decide is a choice with `error`: it concerns
        only the exposures that need it. No file is opened but those of `overrides`, for their headers, and nothing but
        mappings is ever fetched.

    Raises
    ------
    ReferenceFileError
        If the context itself cannot be read.
    """
    if isinstance(reference_types, str):
        raise TypeError("reference_types is a sequence of names, not a text")
    if all(isinstance(item, str) for item in reference_types):
        wanted: list[Sequence[str]] = [list(reference_types)] * len(metas)  # type: ignore[arg-type]
    else:
        wanted = list(reference_types)
    if len(wanted) != len(metas):
        raise ValueError(f"{len(wanted)} sequences of reference types for {len(metas)} exposures")
    overriding = {key.lower(): override_choice(key.lower(), path) for key, path in (overrides or {}).items()}
    types_left = any(reftype.lower() not in overriding for types in wanted for reftype in types)
    if not types_left:
        return [{reftype: overriding[reftype.lower()] for reftype in types} for types in wanted]
    with _lock:
        loaded = load_context(context)
        return _Resolution(loaded, overriding).run(metas, wanted)


class _Resolution:
    def __init__(self, context: Context, overrides: Mapping[str, ReferenceChoice]):
        self.context = context
        self.overrides = overrides
        self.locate = _Locator()
        self.choices: dict[tuple[str, str, str], ReferenceChoice] = {}
        self.bad = _bad_files()

    def run(
        self, metas: Sequence[Mapping[str, Any]], wanted: Sequence[Sequence[str]]
    ) -> list[dict[str, ReferenceChoice]]:
        result = []
        for meta, types in zip(metas, wanted, strict=True):
            header = _Header(meta)
            result.append({reftype: self.choose(header, reftype.lower()) for reftype in types})
        return result

    def choose(self, header: _Header, reftype: str) -> ReferenceChoice:
        override = self.overrides.get(reftype)
        if override is not None:
            return override
        instrument, answer = self.context.choose(header, reftype)
        key = (reftype, instrument, answer)
        choice = self.choices.get(key)
        if choice is None:
            choice = self.choices[key] = self.interpret(*key)
        return choice

    def interpret(self, reftype: str, instrument: str, answer: str) -> ReferenceChoice:
        choice = ReferenceChoice(reftype, origin=self.context.name)
        # As stpipe: any answer that contains N/A means that the type does not apply.
        if "N/A" in answer.upper() and not _is_failure(answer):
            return replace(choice, name=NOT_APPLICABLE)
        if _is_failure(answer):
            return replace(choice, error=answer[len(_NOT_FOUND) :].strip())
        if answer in self.bad:
            return replace(
                choice,
                name=answer,
                error=f"{answer} is marked as scientifically invalid (set CRDS_ALLOW_BAD_REFERENCES=1 to use it)",
            )
        path, present = self.locate(answer, instrument)
        return replace(choice, name=answer, path=path, present=present)


def _bad_files() -> frozenset[str]:
    from crds.core import config

    if config.ALLOW_BAD_REFERENCES:
        return frozenset()
    return frozenset(server_info().get("bad_files_list") or ())


def required(choice: ReferenceChoice, exposure: str = "") -> str:
    """Path of a choice that must be a readable file.

    Raises
    ------
    ReferenceFileError
        If the context made no choice, ruled the type out, or the file is not in the cache; with the remedy.
    """
    where = f"{exposure}: " if exposure else ""
    if choice.error is not None:
        raise ReferenceFileError(
            choice.name or choice.reftype,
            f"{where}{choice.origin} gives no {choice.reftype} reference: {choice.error}",
            f"give a file with override_{choice.reftype}, or use another context (CRDS_CONTEXT)",
        )
    if choice.path is None:
        raise ReferenceFileError(
            choice.reftype,
            f"{where}{choice.reftype} is not applicable to this exposure ({choice.origin})",
            f"give a file with override_{choice.reftype}, or skip the step",
        )
    if not choice.present:
        remedy = (
            "correct the path"
            if choice.origin == "override" and not choice.path.startswith(_reference_directory())
            else "run `jwstdask refs sync` (CRDS_SERVER_URL must be set), or unpack a `jwstdask refs pack`"
        )
        raise ReferenceFileError(choice.path, f"{where}the {choice.reftype} reference does not exist", remedy)
    return choice.path
