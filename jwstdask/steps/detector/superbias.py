"""Subtract the bias pattern of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import superbias
from jwstdask.refs.flags import add_flags
from jwstdask.refs.images import floats_under


@dataclass(frozen=True, kw_only=True)
class SuperBiasStep(Step):
    """Subtract the bias pattern of a detector."""

    alias = "superbias"
    class_name = "SuperBiasStep"
    status = "superbias"
    reference_types = ("superbias",)
    superstripes = True
    equations = "SCI - bias; ZEROFRAME - bias; NaN in the bias as 0; PIXELDQ |= bias DQ"
    sources = "JWST pipeline documentation, superbias"

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        return "No SUPERBIAS reference file found" if references.get("superbias") is None else None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        reference = references["superbias"].match(meta)
        return reference.array("sci"), reference.flags

    def by_integration(self, meta: Meta) -> bool:
        return True

    def apply(self, block: RampBlock, prepared: tuple[np.ndarray, np.ndarray], gathered: Any = None) -> None:
        tile = ..., block.window.rows, block.window.columns
        bias = floats_under(block, prepared[0])
        for index, part in block.superstripes():
            superbias.subtract(part.sci, bias[index], out=part.sci)
            if part.zeroframe is not None:
                superbias.subtract_zeroframe(part.zeroframe, bias[index], out=part.zeroframe)
        add_flags(block.pixeldq, prepared[1], tile)
