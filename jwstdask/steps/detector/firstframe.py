"""Flag the first group of MIRI ramps (deprecated in favour of rscd)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.dq import DO_NOT_USE, FLUX_ESTIMATED, SATURATED
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step


@dataclass(frozen=True, kw_only=True)
class FirstFrameStep(Step):
    """Flag the first group of MIRI ramps (deprecated in favour of rscd)."""

    alias = "firstframe"
    class_name = "FirstFrameStep"
    status = "firstframe"
    equations = (
        "GROUPDQ(first) |= DO_NOT_USE in ramps of more than three groups,\n"
        "unless the third is SATURATED (bright_use_group1)"
    )
    sources = "JWST pipeline documentation, firstframe"

    skip: bool = par(True, "do not run")
    bright_use_group1: bool = par(True, "keep the first group where the third is saturated")

    def skip_reason(self, meta: Meta) -> str | None:
        if not str(meta.get("meta.instrument.detector") or "").upper().startswith("MIR"):
            return "for MIRI only"
        ngroups = meta.get("meta.exposure.ngroups")
        return f"needs more than three groups, has {ngroups}" if ngroups is not None and ngroups <= 3 else None

    def by_integration(self, meta: Meta) -> bool:
        return True

    def apply(self, block: RampBlock, prepared: Any, gathered: Any = None) -> None:
        kept = np.zeros(block.groupdq[:, 0].shape, bool)
        if self.bright_use_group1:
            kept = (block.groupdq[:, 2] & SATURATED) != 0
            block.pixeldq[kept.any(axis=0)] |= np.uint32(FLUX_ESTIMATED)
        block.groupdq[:, 0][~kept] |= np.uint8(DO_NOT_USE)
