"""Flag saturated groups and groups at the floor of the analogue-to-digital converter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core import dq
from jwstdask.core.block import RampBlock
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import saturation
from jwstdask.kernels.irs2 import Readout
from jwstdask.refs.images import floats_under
from jwstdask.steps.detector import irs2


@dataclass(frozen=True)
class Levels:
    """Saturation level [DN], its flags and, if there is one, the bias [DN], each ([superstripe,] y, x).

    For IRS2 readouts the rows of the bias, as those of the ramp, include reference samples.
    """

    threshold: np.ndarray
    flags: np.ndarray
    bias: np.ndarray | None
    nframes: int | None
    readout: Readout | None = None


@dataclass(frozen=True, kw_only=True)
class SaturationStep(Step):
    """Flag saturated groups and groups at the floor of the analogue-to-digital converter."""

    alias = "saturation"
    class_name = "SaturationStep"
    status = "saturation"
    reference_types = ("saturation", "superbias")
    superstripes = True
    equations = (
        "SCI >= level: SATURATED from that group on, and within n_pix_grow_sat pixels;\n"
        "SCI <= 0: AD_FLOOR, DO_NOT_USE;\n"
        "use_readpatt: the group before, where the mean of its frames can hide a saturated one"
    )
    sources = "JWST pipeline documentation, saturation"

    n_pix_grow_sat: int = par(1, "layers of neighbours flagged around a saturated pixel", ge=0)
    use_readpatt: bool = par(True, "look for saturation hidden in the average of a group's frames")

    @property
    def halo(self) -> int:
        # Hidden saturation starts from grown flags and grows again.
        return self.n_pix_grow_sat * (2 if self.use_readpatt else 1)

    def check(self, meta: Meta) -> None:
        irs2.kept_rows(meta)

    def kept_rows(self, meta: Meta) -> np.ndarray | None:
        return irs2.kept_rows(meta)

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        return "No SATURATION reference file found" if references.get("saturation") is None else None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Levels:
        level = references["saturation"].match(meta)
        bias = references.get("superbias") if self.use_readpatt else None
        return Levels(
            level.array("sci"),
            level.flags,
            None if bias is None else bias.match(meta).array("sci"),
            int(meta.get("meta.exposure.nframes") or 1) if self.use_readpatt else None,
            irs2.readout_of(meta) if irs2.is_irs2(meta) else None,
        )

    def by_integration(self, meta: Meta) -> bool:
        return not irs2.is_irs2(meta)

    def apply(self, block: RampBlock, prepared: Levels, gathered: Any = None) -> None:
        if prepared.readout is not None:
            self._apply_interleaved(block, prepared, prepared.readout)
            return
        tile = ..., block.window.rows, block.window.columns
        level, flags = prepared.threshold[tile], np.asarray(prepared.flags[tile], np.uint32)
        bias = None if prepared.bias is None else floats_under(block, prepared.bias)
        for index, part in block.superstripes():
            threshold, unchecked, bits = saturation.levels(level[index], flags[index])
            met = saturation.flag(
                part.sci,
                part.groupdq,
                threshold,
                unchecked,
                n_pix_grow_sat=self.n_pix_grow_sat,
                nframes=prepared.nframes,
                bias=None if bias is None else bias[index],
                zeroframe=part.zeroframe,
            )
            part.pixeldq |= bits
            _count(block, met)

    def _apply_interleaved(self, block: RampBlock, prepared: Levels, readout: Readout) -> None:
        """Look at the rows of pixels only, as if the reference samples between them did not exist."""
        window = block.window
        science, places = irs2.local_rows(readout.science, window)
        if not places.size:
            return
        tile = science, window.columns
        threshold, _, flags = saturation.levels(prepared.threshold[tile], np.asarray(prepared.flags[tile], np.uint32))
        groupdq, zeroframe, bias = np.take(block.groupdq, places, axis=2), None, None
        if block.zeroframe is not None:
            zeroframe = np.take(block.zeroframe, places, axis=1)
        if prepared.bias is not None:
            bias = np.ascontiguousarray(prepared.bias[window.rows, window.columns][places], np.float32)
        found = saturation.flag_interleaved(
            np.take(block.sci, places, axis=2),
            groupdq,
            threshold,
            n_pix_grow_sat=self.n_pix_grow_sat,
            nframes=prepared.nframes,
            bias=bias,
            zeroframe=zeroframe,
        )
        block.groupdq[:, :, places] = groupdq
        if block.zeroframe is not None:
            block.zeroframe[:, places] = zeroframe
        block.pixeldq[places] |= flags
        met = np.zeros(window.shape, np.uint8)
        met[places] = found
        _count(block, met)


def _count(block: RampBlock, met: np.ndarray) -> None:
    for name, bit in (("saturated", dq.SATURATED), ("ad_floor", dq.AD_FLOOR)):
        key = f"saturation.{name}"
        block.tally[key] = block.tally.get(key, 0.0) + float(np.count_nonzero(met[block.window.inner] & bit))
