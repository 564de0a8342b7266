"""Parameters: text and values become the declared type, or are refused with what would be right."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwstdask.core.errors import ParameterError
from jwstdask.core.params import build, coerce, declared, par, suggest


@dataclass(frozen=True, kw_only=True)
class Example:
    """A step with a parameter of every kind."""

    flag: bool = par(False, "a flag")
    count: int = par(3, "a number of things", ge=0, le=10)
    level: float = par(1.5, "a level", unit="DN", gt=0)
    name: str = par("x", "a name")
    kind: str = par("one", "a choice", choices=("one", "two"))
    maybe: int | None = par(None, "a number or none", ge=1)
    either: str | None = par(None, "a text or none")
    names: tuple[str, ...] = par([], "a list of texts")
    pair: tuple[float, ...] = par([0.0, 1.0], "two numbers", length=(2, 2))
    anything: tuple[Any, ...] = par([], "anything")


GOOD = [
    ("flag", "true", True), ("flag", "False", False), ("flag", "yes", True), ("flag", "0", False), ("flag", True, True),
    ("count", "7", 7), ("count", 7.0, 7), ("count", 0, 0), ("count", 10, 10),
    ("level", "2", 2.0), ("level", 1e-9, 1e-9), ("level", "1e3", 1000.0), ("level", 4, 4.0),
    ("name", "None", "None"), ("name", 5, "5"),
    ("kind", "two", "two"),
    ("maybe", "None", None), ("maybe", "", None), ("maybe", None, None), ("maybe", "4", 4),
    ("either", "none", None), ("either", "text", "text"),
    ("names", "a, b", ("a", "b")), ("names", "[a,b]", ("a", "b")), ("names", ["a"], ("a",)), ("names", "", ()),
    ("names", (1, 2), ("1", "2")), ("names", 3, ("3",)),
    ("pair", "1,2", (1.0, 2.0)), ("pair", (1, 2), (1.0, 2.0)),
    ("anything", [print], (print,)),
]  # fmt: skip

BAD = [
    ("flag", "perhaps", "must be bool"), ("flag", 2, "must be bool"), ("flag", None, "must be bool"),
    ("count", "1.5", "must be int"), ("count", 1.5, "must be int"), ("count", True, "must be int"),
    ("count", -1, ">= 0, not -1"), ("count", 11, "<= 10, not 11"), ("count", "many", "must be int, not 'many'"),
    ("level", 0, "> 0"), ("level", "high", "must be float"), ("level", False, "must be float"),
    ("level", float("nan"), "> 0"),
    ("name", None, "must be str"), ("name", ["a"], "must be str"),
    ("kind", "tow", "one of one, two, not 'tow'. Did you mean 'two'"),
    ("maybe", "0", ">= 1"), ("maybe", "x", "must be int or None"),
    ("pair", "1", "takes 2 to 2 values, not 1"), ("pair", "1,x", "must be"),
    ("cuont", 1, "has no parameter 'cuont'. Did you mean 'count'"), ("zzz", 1, "Known names: anything, count"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected"), GOOD)
def test_right_values(name, value, expected):
    found = coerce(Example, name, value, "example")
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(("name", "value", "says"), BAD)
def test_wrong_values(name, value, says):
    with pytest.raises(ParameterError) as error:
        coerce(Example, name, value, "example")
    assert "example" in str(error.value) and says in str(error.value)


@given(st.integers(0, 10), st.floats(1e-6, 1e6), st.booleans(), st.sampled_from(["one", "two"]))
def test_text_is_the_value(count, level, flag, kind):
    """What Python prints of a value is read as the value."""
    for name, value in (("count", count), ("level", level), ("flag", flag), ("kind", kind)):
        assert coerce(Example, name, str(value), "example") == value


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=2, max_size=2))
def test_lists_as_text(values):
    assert coerce(Example, "pair", str(values), "example") == tuple(values)
    assert coerce(Example, "pair", str(tuple(values)), "example") == tuple(values)


def test_layers():
    layers = [("reference.asdf", {"count": 4, "level": 2.0}), ("file.cfg", {"count": "5"}), ("call", {"flag": True})]
    instance, origins = build(Example, layers, "example")
    assert instance == Example(count=5, level=2.0, flag=True)
    assert origins == {"count": "file.cfg", "level": "reference.asdf", "flag": "call"}
    with pytest.raises(ParameterError, match=r"count must be <= 10, not 12 \(from file\.cfg\)"):
        build(Example, [("file.cfg", {"count": 12})], "example")


def test_declared():
    known = declared(Example)
    assert list(known)[:3] == ["flag", "count", "level"]
    kind, facts, default = known["level"]
    assert (kind, facts.unit, facts.gt, default) == (float, "DN", 0, 1.5)
    assert known["names"][2] == ()
    with pytest.raises(FrozenInstanceError):
        Example().count = 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [("rejection_treshold", "Did you mean 'rejection_threshold'?"), ("zzz", "Known names: rejection_threshold, skip.")],
)
def test_suggestions(name, expected):
    assert suggest(name, ["skip", "rejection_threshold"]) == expected
    assert suggest(name, []) == ""
