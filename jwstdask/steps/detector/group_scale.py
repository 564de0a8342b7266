"""Rescale groups that were averaged on board with a divisor other than their number of frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jwstdask.core.block import RampBlock
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import group_scale


@dataclass(frozen=True, kw_only=True)
class GroupScaleStep(Step):
    """Rescale groups that were averaged on board with a divisor other than their number of frames."""

    alias = "group_scale"
    class_name = "GroupScaleStep"
    status = "group_scale"
    superstripes = True
    equations = "SCI * FRMDIVSR / NFRAMES"
    sources = "JWST pipeline documentation, group_scale"

    def skip_reason(self, meta: Meta) -> str | None:
        nframes, divisor = meta.get("meta.exposure.nframes"), meta.get("meta.exposure.frame_divisor")
        if nframes is None:
            return "NFRAMES value not found"
        if divisor is None:
            # Divisors are powers of two: nothing is wrong if the number of frames is one too.
            if nframes & (nframes - 1) == 0:
                return f"NFRAMES={nframes} is a power of 2; correction not needed"
            return "FRMDIVSR value not found"
        if nframes == divisor:
            return "NFRAMES and FRMDIVSR are equal; correction not needed"
        return None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> tuple[float, int]:
        return meta["meta.exposure.frame_divisor"], meta["meta.exposure.nframes"]

    def by_integration(self, meta: Meta) -> bool:
        return True

    def apply(self, block: RampBlock, prepared: tuple[float, int], gathered: Any = None) -> None:
        group_scale.rescale(block.sci, *prepared, out=block.sci)
