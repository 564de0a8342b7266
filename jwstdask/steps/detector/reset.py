"""Subtract the reset anomaly of MIRI ramps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.errors import ReferenceFileError
from jwstdask.core.step import Meta, Step
from jwstdask.kernels.decode import native_floats
from jwstdask.refs.flags import FlagMap, add_flags


@dataclass(frozen=True)
class Anomaly:
    """The reset anomaly [DN], (integration, group, y, x), its flags (y, x), and the index of the first integration."""

    values: np.ndarray
    flags: FlagMap | np.ndarray
    start: int


@dataclass(frozen=True, kw_only=True)
class ResetStep(Step):
    """Subtract the reset anomaly of MIRI ramps."""

    alias = "reset"
    class_name = "ResetStep"
    status = "reset"
    reference_types = ("reset",)
    equations = (
        "SCI - reset(integration, group) in groups that the reference has, its last integration for later ones;\n"
        "PIXELDQ |= reset DQ"
    )
    sources = "JWST pipeline documentation, reset"

    def skip_reason(self, meta: Meta) -> str | None:
        return None if str(meta.get("meta.instrument.detector") or "").startswith("MIR") else "for MIRI only"

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        return "No RESET reference file found" if references.get("reset") is None else None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Anomaly:
        reference = references["reset"]
        values = reference.array("sci")
        shape = meta["meta.subarray.ysize"], meta["meta.subarray.xsize"]
        if values.shape[-2:] != shape:
            raise ReferenceFileError(
                reference.path,
                f"the reset anomaly has {values.shape[-2]} x {values.shape[-1]} pixels, the exposure "
                f"{shape[0]} x {shape[1]}",
                "These references are not cut: use one made for this subarray.",
            )
        # The header says how many integrations and groups count.
        integrations, groups = (int(reference.meta[f"meta.exposure.{name}"]) for name in ("nints", "ngroups"))
        start = int(meta.get("meta.exposure.integration_start") or 1) - 1
        return Anomaly(values[:integrations, :groups], reference.flags, start)

    def apply(self, block: RampBlock, prepared: Anomaly, gathered: Any = None) -> None:
        tile = block.window.rows, block.window.columns
        integrations, groups = prepared.values.shape[:2]
        groups = min(groups, block.sci.shape[1])
        for k in range(block.sci.shape[0]):
            # The last integration of the reference stands for all later ones.
            place = min(prepared.start + k, integrations - 1)
            anomaly = native_floats(prepared.values[(place, slice(groups), *tile)])
            anomaly[np.isnan(anomaly)] = 0
            block.sci[k, :groups] -= anomaly
        add_flags(block.pixeldq, prepared.flags, tile)
