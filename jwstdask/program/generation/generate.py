"""Associations of all candidates of a pool, and those discovered in the whole pool.

The rules are those of jwst 3.0.0 ("Association generation" in its documentation).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from jwstdask.program.generation import level2, level3
from jwstdask.program.generation.closing import MadeAssociation, close
from jwstdask.program.generation.grouping import Candidate, Group, Rule, group_rows
from jwstdask.program.generation.pruning import Pruner, merge
from jwstdask.program.pool import Pool, Row, candidates_of

RULES: tuple[Rule, ...] = level2.RULES + level3.RULES
"""All rules, in the order in which they are tried."""

_DISCOVERED = Candidate("a3001", "discovered")


def pool_candidates(pool: Pool) -> list[Candidate]:
    """The candidates of a pool by type, types and candidates in the order in which they appear."""
    types: dict[str, dict[str, Candidate]] = {}
    for row in pool:
        for name, kind in candidates_of(row.values.get("asn_candidate")):
            types.setdefault(kind, {}).setdefault(name, Candidate(name, kind))
    return [candidate for found in types.values() for candidate in found.values()]


def choose_candidates(pool: Pool, ids: Sequence[str]) -> tuple[list[Candidate], list[str]]:
    """The candidates with these identifiers, and the identifiers that the pool does not have."""
    known: dict[str, Candidate] = {}
    for candidate in pool_candidates(pool):
        known.setdefault(candidate.id, candidate)
    return [known[name] for name in ids if name in known], [name for name in ids if name not in known]


def timestamp() -> str:
    """The time, as a tag of versions."""
    return datetime.now(UTC).strftime("%Y%m%dt%H%M%S")


def generate(
    pool: Pool,
    ids: Sequence[str] | None = None,
    all_candidates: bool = True,
    discover: bool = True,
    version_id: str | None = None,
    finalize: bool = True,
    merged: bool = False,
    keep_duplicates: bool = False,
    with_backgrounds: bool = False,
    rules: Sequence[Rule] = RULES,
) -> list[MadeAssociation]:
    """Associations of a pool.

    Parameters
    ----------
    pool
        The exposures.
    ids
        Identifiers of candidates; None for all. Those the pool does not have are ignored.
    all_candidates
        Whether associations of candidates are returned when discovering.
    discover
        Whether to look for associations of exposures of any candidate.
    version_id
        Tag of the names.
    finalize
        Whether to close associations (nods, direct images, imprints) and to drop duplicates.
    merged
        Whether to merge Stage 2 associations of the same type and candidate.
    keep_duplicates
        Whether duplicates stay, marked as such in their names.
    with_backgrounds
        Whether the background candidates of the observations `ids` are looked at to find duplicates, as the
        archive does.
    rules
        The rules.

    Returns
    -------
    associations
        Stage 2 before Stage 3.
    """
    wanted = None if ids is None else list(ids)
    if wanted is None:
        candidates = pool_candidates(pool)
    else:
        used = wanted + (_background_ids(pool, wanted) if with_backgrounds else [])
        candidates = choose_candidates(pool, used)[0]
    groups: list[Group] = []
    if discover:
        groups += _groups(_DISCOVERED, pool.rows, rules)
    if all_candidates or not discover:
        for candidate in candidates:
            text = f"[('{candidate.id}', '{candidate.type}')]"
            rows = [row.seen_for(text) for row in pool if candidate.id in row.values.get("asn_candidate", "")]
            groups += _groups(candidate, rows, rules)
    prune = Pruner(keep_duplicates) if finalize else list
    found: list[MadeAssociation] = []
    for level in (2, 3):
        made = [
            association
            for group in groups
            if group.rule.level == level
            for association in close(group, pool.name, version_id, finalize)
        ]
        made = prune(made)
        _number(made)
        found += made
    if merged:
        found = merge(found)
    if with_backgrounds and wanted is not None:
        found = [association for association in found if any(name in association.asn_id for name in wanted)]
    return found


def _background_ids(pool: Pool, ids: Sequence[str]) -> list[str]:
    """Identifiers of background candidates that share exposures with candidates."""
    rows = [row for row in pool if any(name in row.values.get("asn_candidate", "") for name in ids)]
    pairs = (pair for row in rows for pair in candidates_of(row.values.get("asn_candidate")))
    return list(dict.fromkeys(name for name, kind in pairs if kind == "background" and name not in ids))


def _groups(candidate: Candidate, rows: Sequence[Row], rules: Sequence[Rule]) -> list[Group]:
    """Groups of all rules, in the order in which they were begun."""
    found = [
        (group.first.index, order, group)
        for order, rule in enumerate(rules)
        if rule.serves(candidate)
        for group in group_rows(rule, candidate, rows)
    ]
    return [group for _, _, group in sorted(found, key=lambda item: item[:2])]


def _number(associations: Iterable[MadeAssociation]) -> None:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for association in associations:
        key = (association.asn_id, association.asn_type)
        counts[key] += 1
        association.sequence = counts[key]


def orphans(pool: Pool, associations: Iterable[MadeAssociation]) -> list[Row]:
    """Exposures that are in no association."""
    used = {row.filename for association in associations for row in association.rows}
    return [row for row in pool if row.filename not in used]
