"""An association of files that are named by the user."""

from __future__ import annotations

import os
from collections.abc import Sequence

from jwstdask.core.errors import ParameterError
from jwstdask.core.params import suggest
from jwstdask.program.generation.generate import RULES
from jwstdask.program.generation.grouping import Candidate, Rule
from jwstdask.program.generation.names import stem

_BASES = {"DMSLevel2bBase": 2, "DMS_Level3_Base": 3}


def association_from_list(
    items: Sequence[str], rule: str = "DMS_Level3_Base", product_name: str | None = None, acid: str = "o999"
) -> dict[str, object]:
    """An association with the files as science members.

    Parameters
    ----------
    items
        Names of files.
    rule
        Name of a rule, or ``DMSLevel2bBase``, ``DMS_Level3_Base``. Of Stage 2, each file has a product of its own.
    product_name
        Name of the product of Stage 3.
    acid
        Candidate of a Stage 2 association: ``oXXX`` or ``cXXXX``.

    Returns
    -------
    tree
        What is written as JSON.

    Raises
    ------
    ParameterError
        If there is no such rule, a name is missing, or files alone cannot fulfil the rule.
    """
    known = {own.name: own for own in RULES}
    if rule not in known and rule not in _BASES:
        names = [*_BASES, *known]
        raise ParameterError(f"There is no rule {rule!r}", suggest(rule, names))
    own = known.get(rule)
    level = own.level if own else _BASES[rule]
    if level == 3 and product_name is None:
        raise ParameterError("The product of a Stage 3 association needs a name", "give --product-name")
    candidate = _candidate(acid) if level == 2 else Candidate("a3001", "discovered")
    if not _is_fulfilled(own, level, candidate, len(items)):
        raise ParameterError(
            f"Files named in a list do not make an association of {rule} for {candidate.type} candidates",
            f"use {'DMSLevel2bBase' if level == 2 else 'DMS_Level3_Base'}, or write the members' types yourself",
        )
    members = [{"expname": name, "exptype": "science"} for name in items]
    if level == 3:
        products: list[dict[str, object]] = [{"name": product_name, "members": members}]
    else:
        products = [{"name": _stage2_name(str(member["expname"])), "members": [member]} for member in members]
    return {
        "asn_type": "None",
        "asn_rule": rule,
        "version_id": None,
        "code_version": "3.0.0",
        "degraded_status": "No known degraded exposures in association.",
        "program": "noprogram",
        "constraints": "No constraints",
        "asn_id": "a3001",
        **({"target": "none"} if level == 3 else {}),
        "asn_pool": "none",
        "products": products,
    }


def _stage2_name(item: str) -> str:
    return os.path.join(os.path.dirname(item), stem(os.path.basename(item)))


def _candidate(acid: str) -> Candidate:
    types = {"o": "observation", "c": "background"}
    if acid[:1] not in types:
        raise ParameterError(f"{acid!r} is no identifier of a candidate", "it must be of the form oXXX or cXXXX")
    return Candidate(acid, types[acid[:1]])


def _is_fulfilled(rule: Rule | None, level: int, candidate: Candidate, count: int) -> bool:
    """Whether science exposures alone fulfil a rule."""
    if level == 2:
        return candidate.type == "observation" or (rule is not None and rule.candidates is None)
    if rule is None:
        return True
    return rule.serves(candidate) and set(rule.needs) <= {"science"} and (not rule.pair or count > 1)
