"""Rules as data, and the grouping of exposures by a rule.

An association grows while the rows of the pool are taken in order. What its members agree in is *bound* by the first
member that specifies it: a column that is not required and not specified by a row agrees with everything, so that
groups are not simply classes of equal rows. Rows are looked up by the columns that every member must have, so that a
row meets only groups it may belong to; and a row that can only be the one science exposure of a group meets only the
groups that have none yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from jwstdask.program.generation.exposures import (
    STAGE2,
    Test,
    is_acquisition,
    is_coronagraphic,
    is_interferometric,
    keeps_time,
    stage2_role,
)
from jwstdask.program.pool import UNSET, Row, renamed

Bound = dict[str, tuple[str, str]]
"""What members agree in: name of the key -> (column, value)."""


@dataclass(frozen=True)
class Candidate:
    """What associations are made for.

    Attributes
    ----------
    id
        ``o001``, ``c1000`` ...; ``a3001`` for what is discovered in the whole pool.
    type
        ``observation``, ``background``, ``mosaic`` ..., ``discovered``.
    """

    id: str
    type: str

    @property
    def is_discovered(self) -> bool:
        return self.type == "discovered"


@dataclass(frozen=True)
class Key:
    """A column in which the members of an association agree.

    Attributes
    ----------
    name
        Name of the key.
    columns
        The first of these columns that the first member specifies counts; the one named like the key by default.
    required
        Whether members must specify it.
    """

    name: str
    columns: tuple[str, ...] = ()
    required: bool = True

    def __post_init__(self) -> None:
        if not self.columns:
            object.__setattr__(self, "columns", (self.name,))

    def agrees(self, row: Row, bound: Bound) -> bool:
        """Whether a row agrees with what is bound; what it is the first to specify is added to `bound`."""
        known = bound.get(self.name)
        if known is not None:
            value = row.given.get(known[0])
            return not self.required if value is None else value == known[1]
        for column in self.columns:
            value = row.given.get(column)
            if value is not None:
                bound[self.name] = (column, value)
                return True
        return not self.required


PAIRED_SLITS = ("s200a1", "s200a2")


@dataclass(frozen=True)
class SlitKey(Key):
    """The fixed slit. Exposures through S200A1 and S200A2 go together."""

    def agrees(self, row: Row, bound: Bound) -> bool:
        return row.given.get("fxd_slit") in PAIRED_SLITS or super().agrees(row, bound)


_DIRECT_IMAGE = re.compile(r"\[\('c\d{4}', 'direct_image'\)\]")


def for_direct_image(row: Row) -> bool:
    """Whether a row is looked at for a candidate of slitless spectra and direct images taken in parallel."""
    return _DIRECT_IMAGE.fullmatch(row.candidates or "") is not None


@dataclass(frozen=True)
class TargetKey(Key):
    """The target; parallel observations with direct images have none."""

    def agrees(self, row: Row, bound: Bound) -> bool:
        if for_direct_image(row):
            text = str(row.candidates)
            if bound.setdefault("direct", ("asn_candidate", text))[1] == text:
                bound["no target"] = ("asn_candidate", "000")
                return True
        return super().agrees(row, bound)


def agree(keys: Iterable[Key], row: Row, bound: Bound) -> bool:
    """Whether a row agrees in all keys; ends at the first in which it does not."""
    return all(key.agrees(row, bound) for key in keys)


@dataclass(frozen=True)
class Way:
    """A way in which an exposure can belong to an association.

    Attributes
    ----------
    takes
        Which exposures; an exposure goes the first way that takes it.
    keys
        Columns in which the exposures of this way agree, in addition to those of the rule.
    single
        Whether this is the science exposure of an association that has only one.
    again
        Whether the exposure is offered to all groups once more when all groups exist: ``"soon"``, or ``"last"``, which
        is after that.
    """

    takes: Test
    keys: tuple[Key, ...] = ()
    single: bool = False
    again: str = ""


@dataclass(frozen=True)
class Admission:
    """How a rule's own `admit` lets a row into a group.

    Attributes
    ----------
    again
        See :class:`Way`.
    role
        Role of the member.
    counts
        False if this row, and all later ones, may begin a group of their own although they are in this one.
    """

    role: str
    again: str = ""
    counts: bool = True


@dataclass(frozen=True)
class Rule:
    """A rule of associations.

    Attributes
    ----------
    name
        Name, as in the ``asn_rule`` of associations.
    level
        2 or 3.
    asn_type
        Type of its associations.
    types
        Exposure types of members; None for all.
    tests
        What each member must fulfil by itself.
    keys
        Columns in which members agree.
    ways
        How an exposure can belong to an association.
    role
        Role of a member.
    needs
        Roles without which an association is not complete.
    candidates
        Types of candidates it is used for; None for all.
    not_candidates
        Types of candidates it is not used for.
    rates
        Whether coronagraphic exposures are members without their integrations.
    several
        Whether candidates that stand for several observations must have exposures of more than one.
    pair
        Whether an association is complete with a second member only.
    acquisitions
        Whether the target acquisitions of its observations are members.
    acquisition_keys
        Keys that a target acquisition binds, up to the first in which it does not agree. They do not decide whether
        it is a member; but a group of backgrounds, which had no target, gets one.
    alternate
        Whether the first exposure is science whatever it is, and an imprint cannot follow an imprint.
    admit
        What takes the place of `keys` and the conditions of `ways` where these cannot say it.
    product
        Name of the form of the product's name: see :mod:`jwstdask.program.generation.names`.
    closing
        What is done when all members are there: ``nods``, ``imprints``, ``direct_image``, ``slit_backgrounds``: see
        :mod:`jwstdask.program.generation.closing`.
    """

    name: str
    level: int
    asn_type: str
    types: frozenset[str] | None
    tests: tuple[Test, ...] = ()
    keys: tuple[Key, ...] = ()
    ways: tuple[Way, ...] = ()
    role: Callable[[Row], str] = stage2_role
    needs: tuple[str, ...] = ("science",)
    candidates: tuple[str, ...] | None = None
    not_candidates: tuple[str, ...] = ()
    rates: bool = False
    several: bool = False
    pair: bool = False
    acquisitions: bool = False
    acquisition_keys: tuple[Key, ...] = ()
    alternate: bool = False
    admit: Callable[[Group, Row, Bound], Admission | None] | None = None
    product: str = ""
    closing: tuple[str, ...] = ()

    def serves(self, candidate: Candidate) -> bool:
        """Whether the rule makes associations for a candidate."""
        allowed = self.candidates is None or candidate.type in self.candidates
        return allowed and candidate.type not in self.not_candidates

    def way(self, row: Row) -> Way | None:
        """How a row can belong to associations of the rule, None if it cannot."""
        if self.types is not None and row.given.get("exp_type") not in self.types:
            return None
        if not all(test(row) for test in self.tests):
            return None
        return next((way for way in self.ways if way.takes(row)), None)


@dataclass(slots=True)
class Member:
    """A member: what is written of it, and its row; a product that is still to be made has none."""

    attributes: dict[str, str | None]
    row: Row | None = None

    @property
    def expname(self) -> str:
        return str(self.attributes["expname"])

    @property
    def exptype(self) -> str:
        return str(self.attributes["exptype"])


@dataclass
class Group:
    """An association while it grows.

    Attributes
    ----------
    rule, candidate
        What it is made by and for.
    first
        The row that began it.
    bound
        What its members agree in.
    members
        Its members, in the order in which they came.
    slits
        The paired slits of its members.
    observations
        Observation numbers of its members.
    """

    rule: Rule
    candidate: Candidate
    first: Row
    bound: Bound = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    slits: set[str] = field(default_factory=set)
    observations: set[str] = field(default_factory=set)
    filenames: set[str] = field(default_factory=set)
    has_science: bool = False
    has_pair: bool = False
    counts: bool = True
    latest: str = ""

    def add(self, row: Row, role: str) -> None:
        """Make a row a member."""
        attributes: dict[str, str | None] = {"expname": self._expname(row, role), "exptype": role}
        attributes["exposerr"] = row.values.get("exposerr")
        if self.rule.level == 3:
            attributes["asn_candidate"] = row.candidates
        self.has_pair = self.has_pair or len(self.members) == 1
        self.members.append(Member(attributes, row))
        self.filenames.add(row.filename)
        self.has_science = self.has_science or role == "science"

    def _expname(self, row: Row, role: str) -> str:
        rule = self.rule
        if rule.level == 2:
            suffix = "rate"
            in_time = keeps_time(row, self.bound.get("is_tso", ("", ""))[1] == "t")
        else:
            suffix = "x1d" if role == "background" else "cal" if row.values.get("exp_type") in STAGE2 else "rate"
            in_time = keeps_time(row)
        if in_time or is_interferometric(row) or (is_coronagraphic(row) and not rule.rates):
            suffix += "ints"
        return renamed(row.filename, suffix)

    @property
    def is_degraded(self) -> bool:
        """Whether the exposure of a member has an error."""
        return any(member.attributes.get("exposerr") not in UNSET for member in self.members)

    def offer(self, row: Row, way: Way | None) -> Admission | None:
        """Make a row a member if it may be one."""
        rule = self.rule
        bound = self.bound.copy()
        admission = None
        if way is not None and rule.admit is not None:
            admission = rule.admit(self, row, bound)
        elif way is not None and agree(rule.keys, row, bound):
            admission = self._admit(row, way, bound)
        if admission is not None:
            self.bound = bound
            self._note(row, rule.keys)
            observation = row.given.get("obs_num")
            if observation is not None:
                self.observations.add(observation)
        elif rule.acquisitions and is_acquisition(row) and self._is_acquired_by(row):
            admission = Admission(rule.role(row))
            agreed = tuple(takewhile(lambda key: key.agrees(row, self.bound), rule.acquisition_keys))
            self._note(row, agreed)
        if admission is not None:
            self.counts = self.counts and admission.counts
            self.add(row, admission.role)
        return admission

    def _note(self, row: Row, keys: tuple[Key, ...]) -> None:
        """Remember a paired slit, which binds nothing."""
        slit = row.given.get("fxd_slit")
        if slit in PAIRED_SLITS and any(type(key) is SlitKey for key in keys):
            self.slits.add(str(slit))

    def _admit(self, row: Row, way: Way, bound: Bound) -> Admission | None:
        """The rest of the conditions on a row that agrees in the keys of the rule."""
        role = self.rule.role(row)
        if self.rule.alternate:
            previous, self.latest = self.latest, role
            if role == previous == "imprint":
                return None
            role = "science" if not self.has_science else role
        if (way.single and self.has_science) or not agree(way.keys, row, bound):
            return None
        return Admission(role, way.again)

    def _is_acquired_by(self, row: Row) -> bool:
        """Whether a target acquisition belongs to an observation of this group."""
        return (
            bool(self.members)
            and row.get("obs_num") in self.observations
            and "is_imprt" not in row.given
            and all(self.bound[name][1] == row.given.get(self.bound[name][0]) for name in ("program", "instrument"))
        )


class _Index:
    """The groups of a rule by the columns that all members have."""

    def __init__(self, rule: Rule) -> None:
        keys = [key for key in rule.keys if key.required and len(key.columns) == 1 and type(key) is Key]
        # Target acquisitions share no more than these with the other members.
        shared = [key for key in keys if not rule.acquisitions or key.name in ("program", "instrument")]
        self._columns = [key.columns[0] for key in shared]
        self._whole: dict[tuple[str | None, ...], list[Group]] = {}
        self._open: dict[tuple[str | None, ...], list[Group]] = {}

    def place(self, row: Row) -> tuple[str | None, ...]:
        return tuple(map(row.given.get, self._columns))

    def add(self, group: Group, place: tuple[str | None, ...]) -> None:
        self._whole.setdefault(place, []).append(group)
        self._open.setdefault(place, []).append(group)

    def groups(self, place: tuple[str | None, ...], only_open: bool) -> Sequence[Group]:
        if not only_open:
            return self._whole.get(place, ())
        found = [group for group in self._open.get(place, ()) if not group.has_science]
        self._open[place] = found
        return found


def group_rows(rule: Rule, candidate: Candidate, rows: Iterable[Row]) -> list[Group]:
    """Group rows by a rule.

    Parameters
    ----------
    rule
        The rule.
    candidate
        What associations are made for.
    rows
        Rows, in the order of the pool.

    Returns
    -------
    groups
        In the order in which they were begun; complete ones and others.
    """
    groups: list[Group] = []
    index = _Index(rule)
    filenames: set[str] = set()
    soon: dict[int, tuple[Row, Way | None]] = {}
    last: dict[int, tuple[Row, Way | None]] = {}
    for row in rows:
        way = rule.way(row)
        acquired = is_acquisition(row)
        if way is None and not (rule.acquisitions and acquired):
            continue
        if acquired:
            last[row.index] = (row, way)
        place = index.place(row)
        taken = known = row.filename in filenames
        only_open = way is not None and way.single and not rule.alternate
        for group in index.groups(place, only_open):
            if known and row.filename in group.filenames:
                continue
            admission = group.offer(row, way)
            if admission is not None:
                filenames.add(row.filename)
                taken = taken or group.counts
                _queue(row, way, admission, soon, last)
        if not taken:
            group = Group(rule, candidate, row)
            admission = group.offer(row, way)
            if admission is not None:
                filenames.add(row.filename)
                groups.append(group)
                index.add(group, place)
                _queue(row, way, admission, soon, last)
    for queue in (soon, last):
        for row, way in queue.values():
            for group in index.groups(index.place(row), False):
                if row.filename not in group.filenames:
                    group.offer(row, way)
    return groups


def _queue(
    row: Row,
    way: Way | None,
    admission: Admission,
    soon: dict[int, tuple[Row, Way | None]],
    last: dict[int, tuple[Row, Way | None]],
) -> None:
    if admission.again:
        (soon if admission.again == "soon" else last)[row.index] = (row, way)
