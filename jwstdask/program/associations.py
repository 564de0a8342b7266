"""Associations: read from JSON, or made from the headers of exposures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jwstdask.core.errors import InputError
from jwstdask.io.layout import is_url

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
        If the file is not an association, has no members, or a member's name leads out of its folder.
    """
    path = os.fspath(path)
    try:
        tree = json.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(path, f"is not an association file ({error})", "an association is a JSON file") from None
    folder = os.path.dirname(path)
    products = []
    try:
        for product in tree["products"]:
            members, attributes = [], {}
            for member in product["members"]:
                name = str(member["expname"])
                found = name if os.path.isabs(name) or is_url(name) else os.path.join(folder, name)
                members.append((found, str(member.get("exptype", "science"))))
                attributes[found] = {name: str(member[name] or "") for name in _ATTRIBUTES if name in member}
            attributes = {path: given for path, given in attributes.items() if given}
            products.append(Product(os.path.basename(str(product["name"])), tuple(members), attributes))
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


def _part(value: Any, width: int) -> str:
    text = str(value or "").strip()
    return f"{int(text):0{width}d}" if text.isdigit() else text.lower()


def product_name(meta: Mapping[str, Any]) -> str:
    """Name of a Stage 3 product of one observation, as MAST names it.

    Source: JWST documentation, "Stage 3: Target-based file naming".
    """
    program = _part(meta.get("meta.observation.program_number"), 5) or "00000"
    observation = _part(meta.get("meta.observation.observation_number"), 3) or "001"
    target = str(meta.get("meta.target.catalog_name") or "").strip()
    number = _part(target, 3) if target.isdigit() else "001"
    instrument = str(meta.get("meta.instrument.name", "")).lower()
    optical = [str(meta.get(f"meta.instrument.{part}") or "").lower() for part in ("pupil", "filter")]
    optical = [part for part in optical if part and part not in ("n/a", "na")]
    # jwst sorts the optical elements and puts "clear" first.
    elements = "-".join(sorted(optical, key=lambda part: (part != "clear", part)))
    subarray = str(meta.get("meta.subarray.name") or "").lower()
    name = f"jw{program}-o{observation}_t{number}_{instrument}_{elements}"
    return name if subarray in ("", "full", "n/a", "generic") else f"{name}-{subarray}"


def make_image3(exposures: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Association]:
    """One image3 association for each program, observation, target, channel, filter and subarray.

    Parameters
    ----------
    exposures
        Pairs of path and metadata of calibrated exposures.
    """
    groups: dict[tuple[Any, ...], list[tuple[str, Mapping[str, Any]]]] = {}
    names = (
        "meta.observation.program_number",
        "meta.observation.observation_number",
        "meta.target.catalog_name",
        "meta.instrument.name",
        "meta.instrument.channel",
        "meta.instrument.filter",
        "meta.instrument.pupil",
        "meta.subarray.name",
    )
    for path, meta in exposures:
        groups.setdefault(tuple(str(meta.get(name)) for name in names), []).append((path, meta))
    found = []
    for members in groups.values():
        meta = members[0][1]
        observation = _part(meta.get("meta.observation.observation_number"), 3) or "001"
        product = Product(product_name(meta), tuple((path, "science") for path, _ in sorted(members, key=_path)))
        program = _part(meta.get("meta.observation.program_number"), 5)
        found.append(
            Association(
                "", "image3", (product,), f"o{observation}", extra={"program": program, "asn_rule": "Asn_Lv3Image"}
            )
        )
    return found


def _path(pair: tuple[str, Mapping[str, Any]]) -> str:
    return os.path.basename(pair[0])


def science_members(associations: Iterable[Association]) -> set[str]:
    """Names of all science members."""
    return {
        os.path.basename(path)
        for association in associations
        for product in association.products
        for path in product.of_type("science")
    }
