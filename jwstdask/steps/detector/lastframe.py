"""Flag the last group of MIRI ramps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.dq import DO_NOT_USE
from jwstdask.core.step import Meta, Step


@dataclass(frozen=True, kw_only=True)
class LastFrameStep(Step):
    """Flag the last group of MIRI ramps."""

    alias = "lastframe"
    class_name = "LastFrameStep"
    status = "lastframe"
    equations = "GROUPDQ(last) |= DO_NOT_USE in ramps of more than two groups"
    sources = "JWST pipeline documentation, lastframe"

    def skip_reason(self, meta: Meta) -> str | None:
        if not str(meta.get("meta.instrument.detector") or "").startswith("MIR"):
            return "for MIRI only"
        ngroups = meta.get("meta.exposure.ngroups")
        return f"needs more than two groups, has {ngroups}" if ngroups is not None and ngroups <= 2 else None

    def by_integration(self, meta: Meta) -> bool:
        return True

    def apply(self, block: RampBlock, prepared: Any, gathered: Any = None) -> None:
        block.groupdq[:, -1] |= np.uint8(DO_NOT_USE)
