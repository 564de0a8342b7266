"""Duplicates among associations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from jwstdask.program.generation.closing import MadeAssociation, MadeProduct
from jwstdask.program.generation.names import stem


class Pruner:
    """Drops duplicates.

    Parameters
    ----------
    keep
        Whether duplicates stay, marked by a number, to be looked at.
    """

    def __init__(self, keep: bool = False) -> None:
        self._keep = keep
        self._count = 0

    def __call__(self, associations: Sequence[MadeAssociation]) -> list[MadeAssociation]:
        """Associations without duplicates.

        Of associations with the same members that of the last identifier stays: observations before groups before
        what was discovered. Of products with the same name the one with more members stays, if the other's members
        are fewer and those in both are of the same type.
        """
        marked: list[MadeAssociation] = []
        kept = self._same_members(associations, marked)
        kept = self._same_product(kept, marked)
        return kept + marked

    def _drop(self, association: MadeAssociation, marked: list[MadeAssociation]) -> None:
        if self._keep:
            self._count += 1
            association.duplicate = self._count
            marked.append(association)

    def _same_members(
        self, associations: Sequence[MadeAssociation], marked: list[MadeAssociation]
    ) -> list[MadeAssociation]:
        first: dict[object, list[MadeAssociation]] = {}
        for association in reversed(_by_candidate(associations)):
            first.setdefault(_membership(association), []).append(association)
        for same in first.values():
            for association in reversed(same[1:]):
                self._drop(association, marked)
        return [same[0] for same in first.values()]

    def _same_product(
        self, associations: list[MadeAssociation], marked: list[MadeAssociation]
    ) -> list[MadeAssociation]:
        counts = Counter(association.products[0].name for association in associations)
        if all(count == 1 for count in counts.values()):
            return associations
        ordered = _by_candidate(associations)
        same: dict[str, list[MadeAssociation]] = {name: [] for name, count in counts.items() if count > 1}
        for association in ordered:
            if association.products[0].name in same:
                same[association.products[0].name].append(association)
        dropped: dict[int, MadeAssociation] = {}
        for group in same.values():
            dropped |= _subsets(group, dropped)
        for association in dropped.values():
            self._drop(association, marked)
        return [association for association in ordered if id(association) not in dropped]


def _by_candidate(associations: Sequence[MadeAssociation]) -> list[MadeAssociation]:
    return sorted(associations, key=lambda association: association.asn_id)


def _membership(association: MadeAssociation) -> object:
    """Equal for associations with the same members; one in which a name comes twice is like no other."""
    members = association.products[0].members
    if len({member.expname for member in members}) < len(members):
        return id(association)
    return frozenset((member.expname, member.exptype) for member in members)


def _subsets(group: list[MadeAssociation], dropped: dict[int, MadeAssociation]) -> dict[int, MadeAssociation]:
    """Associations of one product that others of the same product make superfluous, by identity."""
    found: dict[int, MadeAssociation] = {}
    kept = list(group)
    for current in group:
        if any(_alike(current, other) for other in (*dropped.values(), *found.values())):
            continue
        superfluous: list[MadeAssociation] = []
        for other in kept:
            if _alike(current, other):
                continue
            own, others = current.products[0], other.products[0]
            if _membership(current) == _membership(other):
                superfluous.append(other)
            elif _is_smaller(own, others):
                if len(others.members) > len(own.members):
                    current, other = other, current
                superfluous.append(other)
        for association in superfluous:
            found[id(association)] = association
            position = next((i for i, other in enumerate(kept) if _alike(association, other)), None)
            if position is not None:
                kept.pop(position)
    return found


def _is_smaller(one: MadeProduct, other: MadeProduct) -> bool:
    """Whether two products differ in the number of members while none is in both with different types."""
    types = [{member.expname: member.exptype for member in product.members} for product in (one, other)]
    if len(types[0]) < len(one.members) or len(types[1]) < len(other.members) or len(types[0]) == len(types[1]):
        return False
    return all(types[1].get(name, kind) == kind for name, kind in types[0].items())


def _alike(one: MadeAssociation, other: MadeAssociation) -> bool:
    """Whether two associations are of the same type, level of candidate and exposures, whatever their suffixes."""
    if one is other:
        names = [member.expname for member in one.products[0].members]
        return len(names) == len(set(names))
    return _likeness(one) == _likeness(other)


def _likeness(association: MadeAssociation) -> object:
    (product,) = association.products
    names = [member.expname for member in product.members]
    if len(names) > len(set(names)):
        return id(association)
    members = Counter((stem(member.expname), member.exptype) for member in product.members)
    parts = frozenset(re.split("[_-]", product.name))
    return association.asn_type, association.asn_id[:1], parts, frozenset(members.items())


def merge(associations: Sequence[MadeAssociation]) -> list[MadeAssociation]:
    """Associations of Stage 2 of the same type and identifier become one with many products."""
    others = [association for association in associations if association.level != 2]
    merged: dict[tuple[str, str], MadeAssociation] = {}
    for association in associations:
        if association.level != 2:
            continue
        into = merged.setdefault((association.asn_type, association.asn_id), association)
        if into is association:
            continue
        for product in association.products:
            same = [known for known in into.products if known.name == product.name]
            for known in same:
                names = {member.expname for member in known.members}
                known.members += [member for member in product.members if member.expname not in names]
            if not same:
                into.products.append(product)
    return others + list(merged.values())
