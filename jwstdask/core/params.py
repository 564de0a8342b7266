"""Parameters of steps and pipelines: declared once, checked everywhere.

A parameter is a field of a frozen dataclass made with :func:`par`. Values may come as text (command line, ``.cfg``
files) or as Python or ASDF values; :func:`coerce` turns either into the declared type and refuses the rest before
anything is opened.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from jwstdask.core.errors import ParameterError

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


@dataclasses.dataclass(frozen=True)
class Par:
    """What is known of a parameter besides its type and default."""

    doc: str
    unit: str | None = None
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    choices: tuple[Any, ...] | None = None
    length: tuple[int, int] | None = None
    own: bool = False


def par(
    default: Any,
    doc: str,
    *,
    unit: str | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    choices: Iterable[Any] | None = None,
    length: tuple[int, int] | None = None,
    own: bool = False,
) -> Any:
    """Declare a parameter as a dataclass field.

    Parameters
    ----------
    default
        Default value, jwst's own.
    doc
        One line for users.
    unit
        Unit of the value.
    ge, gt, le
        Bounds.
    choices
        The allowed values.
    length
        Least and greatest number of elements of a list-valued parameter.
    own
        jwst has no such parameter: parameter files name it only where it is not at its default.
    """
    facts = Par(doc, unit, ge, gt, le, tuple(choices) if choices is not None else None, length, own)
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: tuple(default), metadata={"par": facts})
    return dataclasses.field(default=default, metadata={"par": facts})


@cache
def declared(cls: type) -> Mapping[str, tuple[Any, Par, Any]]:
    """Parameters of a step or pipeline class: name to (type, facts, default)."""
    hints = typing.get_type_hints(cls)
    found = {}
    for item in dataclasses.fields(cls):
        if "par" in item.metadata:
            default = item.default
            if item.default_factory is not dataclasses.MISSING:
                default = item.default_factory()
            found[item.name] = (hints[item.name], item.metadata["par"], default)
    return types.MappingProxyType(found)


def suggest(name: str, known: Iterable[str]) -> str:
    """``Did you mean 'x'?`` for the nearest known name, or the list of names if none is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Known names: {', '.join(sorted(known))}." if known else ""


def _members(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _convert(kind: Any, value: Any) -> Any:
    """``value`` as ``kind``; ValueError if it cannot be."""
    origin = typing.get_origin(kind) or kind
    if kind is Any:
        return value
    if origin is type(None):
        if value is None or (isinstance(value, str) and value.strip().lower() in ("none", "")):
            return None
        raise ValueError
    if origin is bool:
        if isinstance(value, bool):
            return value
        text = str(value).strip().lower()
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise ValueError
    if origin is int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        return int(value)
    if origin is float:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    if origin is str:
        if isinstance(value, (str, int, float, bool)):
            return str(value)
        raise ValueError
    if origin is tuple:
        if isinstance(value, str):
            text = value.strip().strip("[]()")
            value = [part.strip() for part in text.split(",") if part.strip()]
        elif not isinstance(value, (list, tuple)):
            value = [value]
        element = (typing.get_args(kind) or (Any,))[0]
        return tuple(_convert(element, item) for item in value)
    if isinstance(value, origin):
        return value
    raise ValueError


def coerce(cls: type, name: str, value: Any, owner: str) -> Any:
    """A value for parameter ``name`` of ``cls``, converted and checked.

    Parameters
    ----------
    cls
        Dataclass of a step or pipeline.
    name
        Parameter name.
    value
        Text or a Python value.
    owner
        How messages call the step or pipeline, such as ``jump``.

    Raises
    ------
    ParameterError
        If the name is unknown (with the nearest right one), the type is wrong or the value is out of range.
    """
    known = declared(cls)
    if name not in known:
        raise ParameterError(f"{owner} has no parameter {name!r}", suggest(name, known))
    kind, facts, _ = known[name]
    members = _members(kind)
    # None first: the text "None" would otherwise be taken as a string.
    for member in sorted(members, key=lambda item: item is not type(None)):
        try:
            result = _convert(member, value)
            break
        except (ValueError, TypeError):
            continue
    else:
        wanted = " or ".join(getattr(member, "__name__", str(member)).replace("NoneType", "None") for member in members)
        raise ParameterError(f"{owner}.{name} must be {wanted}, not {value!r}")
    if result is None:
        return None
    if facts.choices is not None and result not in facts.choices:
        near = suggest(str(result), [str(choice) for choice in facts.choices])
        raise ParameterError(
            f"{owner}.{name} must be one of {', '.join(map(str, facts.choices))}, not {result!r}", near
        )
    if facts.length is not None and not facts.length[0] <= len(result) <= facts.length[1]:
        raise ParameterError(f"{owner}.{name} takes {facts.length[0]} to {facts.length[1]} values, not {len(result)}")
    for number in result if isinstance(result, tuple) else (result,):
        low = facts.ge if facts.ge is not None else facts.gt
        if (facts.ge is not None and not number >= facts.ge) or (facts.gt is not None and not number > facts.gt):
            raise ParameterError(f"{owner}.{name} must be {'>' if facts.ge is None else '>='} {low}, not {number}")
        if facts.le is not None and not number <= facts.le:
            raise ParameterError(f"{owner}.{name} must be <= {facts.le}, not {number}")
    return result


def build(cls: type, layers: Iterable[tuple[str, Mapping[str, Any]]], owner: str) -> tuple[Any, dict[str, str]]:
    """An instance of ``cls`` from layers of parameters, lowest precedence first.

    Parameters
    ----------
    cls
        Dataclass of a step or pipeline.
    layers
        Pairs of an origin (``"jwst_nircam_pars-jumpstep_0003.asdf"``, ``"command line"``) and its values.
    owner
        How messages call the step or pipeline.

    Returns
    -------
    instance, origins
        The instance and, for every parameter that is not at its default's origin, where its value comes from.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for name, value in layer.items():
            try:
                values[name] = coerce(cls, name, value, owner)
            except ParameterError as error:
                raise ParameterError(f"{error.message} (from {origin})", error.remedy) from None
            origins[name] = origin
    return cls(**values), origins
