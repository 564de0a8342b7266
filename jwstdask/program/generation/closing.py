"""Complete groups become associations."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from jwstdask.program.generation.grouping import Group, Member
from jwstdask.program.generation.names import combined, optical_elements_of, stem, target
from jwstdask.program.pool import Row

_FINE = "No known degraded exposures in association."
_DEGRADED = (
    "One or more members have an error associated with them.\nDetails can be found in the member.exposerr attribute."
)
_SEVERAL = ("group", "background", "mosaic")


@dataclass
class MadeProduct:
    """A product: its name and members."""

    name: str
    members: list[Member]

    def of_type(self, exptype: str) -> list[Member]:
        """Members of a type."""
        return [member for member in self.members if member.exptype == exptype]


@dataclass
class MadeAssociation:
    """An association made from a pool.

    Attributes
    ----------
    rule
        Name of its rule, with what found it: ``candidate_Asn_Lv2Image``.
    level
        2 or 3.
    asn_type, asn_id
        Type and identifier.
    program, target, pool
        What it belongs to.
    constraints
        What its members have in common, for people.
    products
        One; more only after merging.
    degraded
        Whether an exposure has an error.
    version_id
        Tag of this generation.
    sequence
        Number among the associations of its type and identifier.
    duplicate
        Number among duplicates that are kept, 0 if it is none.
    """

    rule: str
    level: int
    asn_type: str
    asn_id: str
    program: str
    target: str
    pool: str
    constraints: str
    products: list[MadeProduct]
    degraded: bool = False
    version_id: str | None = None
    sequence: int = 0
    duplicate: int = 0
    rows: tuple[Row, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """Name of the file, without extension."""
        version = f"{self.version_id}_" if self.version_id else ""
        name = f"jw{self.program}-{self.asn_id}_{version}{self.asn_type}_{self.sequence:05d}_asn".lower()
        return f"dup{self.duplicate:05d}_{name}" if self.duplicate else name

    def tree(self) -> dict[str, object]:
        """What is written."""
        return {
            "asn_type": self.asn_type,
            "asn_rule": self.rule,
            "version_id": self.version_id,
            "code_version": "3.0.0",
            "degraded_status": _DEGRADED if self.degraded else _FINE,
            "program": self.program,
            "constraints": self.constraints,
            "asn_id": self.asn_id,
            "target": self.target,
            "asn_pool": self.pool,
            "products": [
                {"name": product.name, "members": [member.attributes for member in product.members]}
                for product in self.products
            ],
        }

    def dump(self) -> str:
        """The association as JSON text."""
        return json.dumps(self.tree(), indent=4)


def close(group: Group, pool: str, version_id: str | None, finalize: bool = True) -> list[MadeAssociation]:
    """Associations of a group: none if it is not complete, several if its exposures are nods.

    Parameters
    ----------
    group
        A group.
    pool
        Name of the pool.
    version_id
        Tag of this generation.
    finalize
        Whether to do what `closing` of the rule says.
    """
    rule = group.rule
    steps = rule.closing if finalize else ()
    if "direct_image" in steps and not _has(group, "science", "direct_image"):
        return []
    if finalize and rule.several and group.candidate.type in _SEVERAL and len(group.observations) <= 1:
        return []
    if not _is_complete(group):
        return []
    found = [_association(group, pool, version_id)]
    for step in steps:
        found = [new for association in found for new in _STEPS[step](association, group)]
    return found


def _has(group: Group, *roles: str) -> bool:
    return set(roles) <= {member.exptype for member in group.members}


def _is_complete(group: Group) -> bool:
    rule = group.rule
    if not _has(group, *rule.needs) or (rule.pair and not group.has_pair):
        return False
    # In Stage 2 a candidate for background subtraction must have backgrounds.
    is_standard = rule.level == 2 and rule.candidates is not None
    return not (is_standard and group.candidate.type == "background") or _has(group, "background")


def _association(group: Group, pool: str, version_id: str | None) -> MadeAssociation:
    rule = group.rule
    if rule.level == 2:
        name = stem(next(member.expname for member in group.members if member.exptype == "science"))
        aim = group.first.values.get("targetid", "")
    else:
        name, aim = combined(group, rule.product), target(group)
    found_by = "discover" if group.candidate.is_discovered else "candidate"
    return MadeAssociation(
        rule=f"{found_by}_{rule.name}",
        level=rule.level,
        asn_type=rule.asn_type,
        asn_id=group.candidate.id,
        program=f"{group.first.values.get('program', ''):0>5s}",
        target=aim,
        pool=pool,
        constraints="\n".join(f"{name}: {column}={value}" for name, (column, value) in group.bound.items()),
        products=[MadeProduct(name, list(group.members))],
        degraded=group.is_degraded,
        version_id=version_id,
        rows=tuple(member.row for member in group.members if member.row is not None),
    )


def _changed(member: Member, **attributes: str) -> Member:
    return Member({**member.attributes, **attributes}, member.row)


def _slit_backgrounds(association: MadeAssociation, group: Group) -> list[MadeAssociation]:
    """The spectra of nodded exposures through the slit of MIRI LRS are backgrounds of each other."""
    (product,) = association.products
    science = product.of_type("science")
    if "nod" in group.bound["patttype"][1] and len(science) > 1:
        product.members += [
            _changed(member, expname=f"{stem(os.path.basename(member.expname))}_x1d.fits", exptype="background")
            for member in science
        ]
    return [association]


def _nods(association: MadeAssociation, group: Group) -> list[MadeAssociation]:
    """An association for each nod, in which the others are backgrounds where they do not overlap it."""
    (product,) = association.products
    science = product.of_type("science")
    others = [member for member in product.members if member.exptype != "science"]
    made = []
    for member in science:
        backgrounds = [
            _changed(other, exptype="background")
            for other in science
            if other.expname != member.expname and not _overlap(member.row, other.row)
        ]
        own = MadeProduct(stem(os.path.basename(member.expname)), [member, *backgrounds, *others])
        made.append(replace(association, products=[own]))
    return made


def _numbers(row: Row, *columns: str) -> list[int] | None:
    try:
        return [int(row.values[column]) for column in columns]
    except (KeyError, ValueError):
        return None


def _overlap(science: Row | None, other: Row | None) -> bool:
    """Whether the source may be in both of two nods of a NIRSpec slit: they share the primary point of the pattern.

    Of five nods in the wide slit S1600A1 those next to each other overlap as well.
    """
    if science is None or other is None:
        return False
    kind = science.values.get("exp_type")
    if kind not in ("nrs_fixedslit", "nrs_msaspec"):
        return False
    targets = [row.values.get("targetid") for row in (science, other)]
    if None not in targets and targets[0] != targets[1]:
        return True
    pattern, second = _numbers(science, "numdthpt", "patt_num"), _numbers(other, "patt_num")
    sub, other_sub = (_numbers(row, "subpxpts") or _numbers(row, "subpxpns") for row in (science, other))
    if not (pattern and second and sub and other_sub and sub[0] and other_sub[0]):
        return kind == "nrs_fixedslit"
    points = [(pattern[1] - 1) // sub[0], (second[0] - 1) // other_sub[0]]
    if points[0] == points[1]:
        return True
    is_wide = kind == "nrs_fixedslit" and science.values.get("fxd_slit") == "s1600a1"
    return is_wide and pattern[0] // sub[0] == 5 and abs(points[0] - points[1]) <= 1


def _imprints(association: MadeAssociation, group: Group) -> list[MadeAssociation]:
    """Of many imprint exposures keep those of the target, and of these those of the position in the dither."""
    (product,) = association.products
    known = [
        member
        for member in product.members
        if member.row is not None and "targetid" in member.row.values and "bkgdtarg" in member.row.values
    ]
    science = [member for member in known if member.exptype == "science"]
    is_background = any(_value(member, "bkgdtarg") == "t" for member in science)
    checked = [
        member
        for member in known
        if member.exptype == "imprint" and (_value(member, "bkgdtarg") == "t") == is_background
    ]
    drop: set[str] = set()
    targets = {_value(member, "targetid") for member in science}
    matching = [member for member in checked if _value(member, "targetid") in targets]
    if matching:
        drop |= {member.expname for member in checked if _value(member, "targetid") not in targets}
        checked = matching
    if 1 <= len(science) < len(checked):
        positions = {_value(member, "dithptin") for member in science} - {None}
        keep = {member.expname for member in checked if _value(member, "dithptin") in positions}
        if keep:
            drop |= {member.expname for member in checked} - keep
    product.members = [
        member for member in product.members if member.exptype != "imprint" or member.expname not in drop
    ]
    return [association]


def _value(member: Member, column: str) -> str | None:
    return None if member.row is None else member.row.values.get(column)


def _direct_image(association: MadeAssociation, group: Group) -> list[MadeAssociation]:
    """The direct images of slitless spectra are replaced by the Stage 3 products that will be made of them."""
    (product,) = association.products
    directs = product.of_type("direct_image")
    closest = _long_image if group.rule.candidates is None else _next_image
    chosen = closest(product.of_type("science")[0], directs).row
    assert chosen is not None
    root = combined(group, optics=optical_elements_of(chosen))
    product.members = [member for member in product.members if member.exptype != "direct_image"]
    for end, exptype in (("i2d.fits", "direct_image"), ("cat.ecsv", "sourcecat"), ("segm.fits", "segmap")):
        product.members.append(Member({"expname": f"{root}_{end}", "exptype": exptype}))
    return [association]


def _next_image(science: Member, directs: list[Member]) -> Member:
    """The first image taken after the spectrum, or the first of all."""
    number = None if science.row is None else science.row.get("expspcin")
    if number is None:
        return directs[0]
    later = [
        (int(position) - int(number), order)
        for order, member in enumerate(directs)
        if member.row is not None and (position := member.row.get("expspcin")) is not None
        if 0 < int(position) - int(number) < 9999
    ]
    return directs[min(later)[1]] if later else directs[0]


def _long_image(science: Member, directs: list[Member]) -> Member:
    """The image of the long-wavelength channel; parallel observations have one optical path."""
    return next((member for member in directs if re.search("long", member.expname)), directs[0])


_STEPS: dict[str, Callable[[MadeAssociation, Group], list[MadeAssociation]]] = {
    "direct_image": _direct_image,
    "imprints": _imprints,
    "nods": _nods,
    "slit_backgrounds": _slit_backgrounds,
}
