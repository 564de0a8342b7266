"""The census of data-quality flags of an exposure: on its way, and in its products."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jwstdask.core.block import ImageBlock, RampBlock
from jwstdask.core.dq import GROUP, PIXEL
from jwstdask.kernels.census import count_flags

Census = dict[str, dict[str, int]]
"""``groups``, ``mask`` or a kind of product to flag name to number of samples or pixels.

``all`` is the number of them, ``any`` of those with a flag. Flags that nothing has are left out.
"""

_GROUPS = "census.groups"
_MASK = "census.mask"
_PRODUCT = "census.product."
_KINDS = (("rate", "rateints"), ("cal", "calints"))
"""Products whose flags are counted: of each group the first that there is."""
_FLAGGED_BY = {"saturation": "SATURATED", "jump": "JUMP_DET", "charge_migration": "CHARGELOSS"}
"""Steps and the flag that they give to samples."""


def count_mask(block: RampBlock | ImageBlock) -> None:
    """Count the pixel flags of the inner part of a block into its tally: what is known before the exposure is."""
    if isinstance(block, RampBlock):
        block.tally[_MASK] = block.tally.get(_MASK, 0) + count_flags(block.pixeldq[(..., *block.window.inner)])


def count_groups(block: RampBlock | ImageBlock, tally: dict[str, Any]) -> None:
    """Count the flags of the samples of the inner part of a block."""
    if isinstance(block, RampBlock):
        tally[_GROUPS] = tally.get(_GROUPS, 0) + count_flags(block.groupdq[(..., *block.window.inner)])


def recount_groups(groupdq: np.ndarray, tally: dict[str, Any]) -> None:
    """Replace the count by that of the whole frame, whose flags have been revised."""
    tally[_GROUPS] = count_flags(groupdq)


def counted_products(kinds: Collection[str]) -> frozenset[str]:
    """Of some kinds of products those whose flags are counted."""
    return frozenset(next((kind for kind in group if kind in kinds), "") for group in _KINDS) - {""}


def count_product(kind: str, flags: np.ndarray, tally: dict[str, Any]) -> None:
    """Count the flags of a part of a product, uint32 ([integration,] y, x)."""
    key = _PRODUCT + kind
    tally[key] = tally.get(key, 0) + count_flags(flags)


def of_tally(tally: Mapping[str, Any]) -> Census:
    """What was counted."""
    found = {name.removeprefix(_PRODUCT): _named(tally[name], PIXEL) for name in tally if name.startswith(_PRODUCT)}
    if _MASK in tally:
        found["mask"] = _named(tally[_MASK], PIXEL)
    if _GROUPS in tally:
        found["groups"] = _named(tally[_GROUPS], GROUP)
    return found


def _named(counts: np.ndarray, flags: Mapping[str, int]) -> dict[str, int]:
    found = {name: int(counts[value.bit_length() - 1]) for name, value in flags.items()}
    return {"all": int(counts[33]), "any": int(counts[32]), **{name: count for name, count in found.items() if count}}


def remarks(census: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    """What the census says of steps: name to a few words, such as ``0.31 % of samples flagged``."""
    found: dict[str, str] = {}
    mask, groups = census.get("mask"), census.get("groups")
    if mask and mask["all"]:
        found["dq_init"] = f"{percent(mask.get('DO_NOT_USE', 0), mask['all'])} of pixels not to be used"
    if groups and groups["all"]:
        for step, flag in _FLAGGED_BY.items():
            found[step] = f"{percent(groups.get(flag, 0), groups['all'])} of samples flagged"
    return found


def percent(count: int, total: int) -> str:
    """``0.31 %``, with two significant digits below ten."""
    share = 100 * count / max(total, 1)
    return f"{share:.1f} %" if share >= 9.95 or not share else f"{share:.2g} %"
