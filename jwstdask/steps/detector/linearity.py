"""Correct the non-linear response of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import linearity
from jwstdask.refs.stripes import is_multistripe


@dataclass(frozen=True)
class Polynomials:
    """Coefficients (coefficient, y, x), flags (y, x) and, for groups of several frames, the inverse coefficients."""

    coefficients: np.ndarray
    flags: np.ndarray
    inverse: np.ndarray | None
    nframes: int


@dataclass(frozen=True, kw_only=True)
class LinearityStep(Step):
    """Correct the non-linear response of a detector."""

    alias = "linearity"
    class_name = "LinearityStep"
    status = "linearity"
    reference_types = ("linearity",)
    equations = (
        "SCI -> c0 + c1 SCI + c2 SCI^2 + ... where not SATURATED; first frames (ZEROFRAME) alike;\n"
        "c NaN or c1 = 0: unchanged, PIXELDQ |= NO_LIN_CORR"
    )
    sources = "JWST pipeline documentation, linearity"

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        return "No Linearity reference file found" if references.get("linearity") is None else None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Polynomials:
        reference = references["linearity"].match(meta)
        nframes = int(meta.get("meta.exposure.nframes") or 1)
        inverse = None
        # Frames can be told apart only if a group has several, and only if their times are regular.
        # As in jwst, the inverse is not cut to stripes.
        cut = is_multistripe(meta) and reference is not references["linearity"]
        if nframes > 1 and not meta.get("meta.exposure.read_times") and not cut:
            inverse = reference.array("inv_coeffs") if "inv_coeffs" in reference else None
        return Polynomials(reference.array("coeffs"), reference.flags, inverse, nframes)

    def by_integration(self, meta: Meta) -> bool:
        return True

    def apply(self, block: RampBlock, prepared: Polynomials, gathered: Any = None) -> None:
        tile = block.window.rows, block.window.columns
        flags = np.array(prepared.flags[tile], np.uint32, order="C")
        stored = prepared.coefficients[(slice(None), *tile)]
        # The prediction of single frames needs a rate, hence two groups.
        if prepared.inverse is None or block.sci.shape[1] < 2:
            linearity.correct(block.sci, block.groupdq, stored, flags, zeroframe=block.zeroframe, out=block.sci)
        else:
            coefficients = linearity.usable_coefficients(stored, flags)
            # Each polynomial is judged on its own, whatever became of the other one.
            inverse_flags = np.array(prepared.flags[tile], np.uint32, order="C")
            inverse = linearity.usable_coefficients(prepared.inverse[(slice(None), *tile)], inverse_flags)
            linearity.correct_reads(block.sci, block.groupdq, coefficients, inverse, prepared.nframes, out=block.sci)
            if block.zeroframe is not None:
                linearity.correct_zeroframe(block.zeroframe, coefficients, flags)
            flags |= inverse_flags
        block.pixeldq |= flags
