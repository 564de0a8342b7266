"""Flag the first groups of MIRI ramps, which the reset-switch charge decay spoils."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.dq import FLUX_ESTIMATED
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import rscd


@dataclass(frozen=True, kw_only=True)
class RscdStep(Step):
    """Flag the first groups of MIRI ramps, which the reset-switch charge decay spoils."""

    alias = "rscd"
    class_name = "RscdStep"
    status = "rscd"
    reference_types = ("rscd",)
    equations = (
        "DO_NOT_USE in the first N groups, N by subarray, read pattern and integration; fewer if two would be left"
    )
    sources = "JWST pipeline documentation, rscd"

    def skip_reason(self, meta: Meta) -> str | None:
        if not str(meta.get("meta.instrument.detector") or "").startswith("MIR"):
            return "for MIRI only"
        ngroups = meta.get("meta.exposure.ngroups")
        return f"needs three groups, has {ngroups}" if ngroups is not None and ngroups < 3 else None

    def references_when_skipped(self, meta: Meta) -> tuple[str, ...]:
        miri = str(meta.get("meta.instrument.detector") or "").startswith("MIR")
        return self.reference_types if miri else ()

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        if references.get("rscd") is None:
            return "No RSCD reference file found"
        if self._row(meta, references) is None:
            pattern, subarray = meta.get("meta.exposure.readpatt"), meta.get("meta.subarray.name")
            return f"the RSCD reference has no row for READPATT {pattern}, SUBARRAY {subarray}"
        return None

    @staticmethod
    def _row(meta: Meta, references: Mapping[str, Any]) -> Any:
        subarray = str(meta.get("meta.subarray.name"))
        if subarray.upper() == "SUBPRISM":
            subarray = "SLITLESSPRISM"
        for row in references["rscd"].table("rscd_group_skip"):
            if _text(row["subarray"]) == subarray and _text(row["readpatt"]) == meta.get("meta.exposure.readpatt"):
                return row
        return None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> list[tuple[str, slice, int]]:
        """Groups of integrations: name, which of them, number of groups to flag."""
        row = self._row(meta, references)
        ngroups = int(meta["meta.exposure.ngroups"])
        first = int(row["group_skip1"])
        # References of the older kind know nothing of the first integration.
        parts = [("int1", slice(0, 1), 1 if first < 0 else first)]
        segment_start = int(meta.get("meta.exposure.integration_start") or 1)
        if segment_start != 1:
            parts = []
        if int(meta["meta.exposure.nints"]) > 1:
            parts.append(("int2p", slice(1 if segment_start == 1 else 0, None), int(row["group_skip"])))
        return [(name, integrations, rscd.groups_to_flag(ngroups, groups)) for name, integrations, groups in parts]

    def apply(self, block: RampBlock, prepared: list[tuple[str, slice, int]], gathered: Any = None) -> None:
        for name, integrations, groups in prepared:
            groupdq = block.groupdq[integrations]
            _, number, early = rscd.flag(groupdq, groups, out=groupdq)
            fewer = (number < groups).any(axis=0)
            block.pixeldq[fewer] |= np.uint32(FLUX_ESTIMATED)
            inner = block.window.inner
            counts = {"early": early[(..., *inner)], "fewer": fewer[inner], "none": (number == 0).any(axis=0)[inner]}
            for what, found in counts.items():
                block.tally[f"rscd.{name}.{what}"] = float(np.count_nonzero(found))

    def finish(self, meta: Meta, prepared: list[tuple[str, slice, int]], tally: Mapping[str, float]) -> dict[str, Any]:
        updates: dict[str, Any] = {}
        for name, _, groups in prepared:
            found = {what: int(tally.get(f"rscd.{name}.{what}", 0)) for what in ("early", "fewer", "none")}
            updates[f"meta.rscd.ngroups_skip_{name}"] = groups
            updates[f"meta.rscd.keep_groups_saturation_{name}"] = found["fewer"]
            # jwst looks for these only if some ramp saturates early.
            updates[f"meta.rscd.keep_bright_firstgroup_{name}"] = found["none"] if found["early"] else 0
        return updates


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)
