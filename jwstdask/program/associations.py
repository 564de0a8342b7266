"""Associations: read from JSON, or made from the headers of exposures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jwstdask.core.errors import InputError
from jwstdask.io.layout import read_bytes
from jwstdask.io.remote import is_url, place_in_archive
from jwstdask.program.generation.closing import MadeAssociation
from jwstdask.program.generation.generate import RULES, generate
from jwstdask.program.generation.grouping import Member
from jwstdask.program.pool import Pool, pool_from_metadata

_ATTRIBUTES = ("group_id", "tweakreg_catalog")
"""What jwst takes from a member of an association besides its name and type."""


@dataclass(frozen=True)
class Product:
    """One product of an association.

    Attributes
    ----------
    name
        Name of the product, without suffix.
    members
        Pairs of path and member type (``science``, ``background`` ...), in order.
    attributes
        Path of a member to what the association says of it besides: ``group_id``, ``tweakreg_catalog`` (relative to
        the association's folder).
    """

    name: str
    members: tuple[tuple[str, str], ...]
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of_type(self, exptype: str) -> tuple[str, ...]:
        """Paths of the members of a type."""
        return tuple(path for path, kind in self.members if kind.lower() == exptype)


@dataclass(frozen=True)
class Association:
    """An association.

    Attributes
    ----------
    path
        File it was read from; empty for one made from headers.
    asn_type
        ``image2``, ``image3`` ...
    products
        Its products.
    asn_id
        Identifier that goes into the names of Stage 3 exposure products, such as ``o001``.
    pool
        Name of the pool.
    """

    path: str
    asn_type: str
    products: tuple[Product, ...]
    asn_id: str | None = None
    pool: str = "none"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def table_name(self) -> str:
        """File name, or ``singleton``."""
        return os.path.basename(self.path) or "singleton"

    def dump(self) -> str:
        """The association as JSON text."""
        tree = {
            "asn_type": self.asn_type,
            "asn_rule": self.extra.get(
                "asn_rule", "DMS_Level3_Base" if self.asn_type.endswith("3") else "DMSLevel2bBase"
            ),
            "version_id": None,
            "code_version": "3.0.0",
            "degraded_status": "No known degraded exposures in association.",
            "program": self.extra.get("program", "noprogram"),
            "constraints": self.extra.get("constraints", "No constraints"),
            "asn_id": self.asn_id,
            "asn_pool": self.pool,
            "products": [
                {
                    "name": product.name,
                    "members": [
                        {"expname": os.path.basename(path), "exptype": kind, **product.attributes.get(path, {})}
                        for path, kind in product.members
                    ],
                }
                for product in self.products
            ],
        }
        return json.dumps(tree, indent=4)


def read_association(path: str | os.PathLike[str]) -> Association:
    """Read an association file. Members are sought beside it.

    Raises
    ------
    InputError
        If the file is not an association or has no members.
    """
    path = os.fspath(path)
    try:
        tree = json.loads(read_bytes(path) if is_url(path) else Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, f"is not an association file ({error})", "an association is a JSON file") from None
    folder = os.path.dirname(path)
    products = []
    try:
        for product in tree["products"]:
            members, attributes = [], {}
            for member in product["members"]:
                name = str(member["expname"])
                found = name if os.path.isabs(name) or is_url(name) else os.path.join(folder, name)
                if is_url(path):
                    found = place_in_archive(path, name) or found
                members.append((found, str(member.get("exptype", "science"))))
                attributes[found] = {name: str(member[name] or "") for name in _ATTRIBUTES if name in member}
            attributes = {path: given for path, given in attributes.items() if given}
            products.append(Product(str(product["name"]), tuple(members), attributes))
    except (KeyError, TypeError) as error:
        raise InputError(
            path, f"is not an association: {error} is missing", "see the JWST association schema"
        ) from None
    if not any(product.members for product in products):
        raise InputError(path, "the association has no members")
    known = ("asn_rule", "program", "constraints")
    extra = {name: tree[name] for name in known if name in tree}
    return Association(
        path,
        str(tree.get("asn_type", "")),
        tuple(products),
        tree.get("asn_id"),
        str(tree.get("asn_pool", "none")),
        extra,
    )


def make_associations(
    exposures: Sequence[tuple[str, Mapping[str, Any]]], asn_types: Sequence[str] = ("image3",)
) -> list[Association]:
    """Associations of the observations of calibrated exposures, by the rules of the archive.

    Parameters
    ----------
    exposures
        Pairs of path and metadata.
    asn_types
        Types of the associations to make.

    Returns
    -------
    associations
        One for each combination of what the rule asks for: target, optical elements, subarray ... The members are
        the paths of the exposures.
    """
    ordered = sorted(exposures, key=lambda pair: os.path.basename(pair[0]))
    pool = pool_from_metadata(ordered)
    rules = [rule for rule in RULES if rule.asn_type in asn_types]

    def place(member: Member) -> str:
        return ordered[member.row.index][0] if member.row else member.expname

    found = [_as_read(made, place) for made in generate(pool, discover=False, rules=rules)]
    return sorted(found, key=lambda association: association.products[0].name)


def associations_of_pool(pool: Pool, folder: str, *asn_types: str) -> list[Association]:
    """All associations of some types that the archive's rules make of a pool; members are sought in a folder."""
    rules = [rule for rule in RULES if rule.asn_type in asn_types]

    def place(member: Member) -> str:
        return os.path.join(folder, os.path.basename(member.expname))

    found = generate(pool, rules=rules)
    return [replace(_as_read(made, place), path=f"{made.name}.json", pool=pool.name) for made in found]


def _as_read(made: MadeAssociation, place: Callable[[Member], str]) -> Association:
    """A made association as one that is read."""
    products = tuple(
        Product(product.name, tuple((place(member), member.exptype) for member in product.members))
        for product in made.products
    )
    extra = {"program": made.program, "asn_rule": made.rule, "constraints": made.constraints}
    return Association("", made.asn_type, products, made.asn_id, extra=extra)


def science_members(associations: Iterable[Association]) -> set[str]:
    """Names of all science members."""
    return {
        os.path.basename(path)
        for association in associations
        for product in association.products
        for path in product.of_type("science")
    }
