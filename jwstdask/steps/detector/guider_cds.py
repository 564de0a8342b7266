"""Count rates of the guiders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import GuiderBlock, ImageBlock
from jwstdask.core.errors import InputError, ReferenceFileError
from jwstdask.core.exposure_types import GUIDER
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import guider_cds


@dataclass(frozen=True)
class PreparedRates:
    """Which difference is taken, and references cut to the science frame."""

    as_jwst: bool
    least: bool
    means: bool
    group_time: float
    gain: np.ndarray
    readnoise: np.ndarray


@dataclass(frozen=True, kw_only=True)
class GuiderCdsStep(Step):
    """Count rates of the guiders."""

    alias = "guider_cds"
    class_name = "GuiderCdsStep"
    status = "guider_cds"
    reference_types = ("gain", "readnoise")
    equations = (
        "SCI = difference / TGROUP; ERR = sqrt(2 (readnoise / TGROUP)^2 + difference / (gain TGROUP));\n"
        "difference = read 2 - read 1 (ACQ1, ACQ2, TRACK); the smaller of two integrations (ID);\n"
        "mean of the last four reads - mean of the first four (FINEGUIDE)"
    )
    sources = "JWST pipeline documentation, guider_cds"

    as_jwst: bool = par(
        True, "as jwst: FINEGUIDE is divided by the time of one group; if False, by that between the means", own=True
    )

    def check(self, meta: Meta) -> None:
        name, exposure_type = str(meta.get("meta.filename") or "exposure"), str(meta.get("meta.exposure.type"))
        if exposure_type not in GUIDER:
            raise InputError(
                name, f"guider_cds does not take EXP_TYPE {exposure_type}", f"it takes {', '.join(sorted(GUIDER))}"
            )
        if meta.get("meta.exposure.group_time") is None:
            raise InputError(name, "keyword TGROUP is missing", "set it: count rates cannot be found without")

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        missing = [name for name in self.reference_types if references.get(name) is None]
        return f"No {missing[0].upper()} reference file found" if missing else None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> PreparedRates:
        exposure_type = str(meta["meta.exposure.type"])
        gain, readnoise = (_cut(references[name], meta, exposure_type) for name in self.reference_types)
        return PreparedRates(
            self.as_jwst,
            exposure_type.startswith("FGS_ID"),
            exposure_type == "FGS_FINEGUIDE",
            float(meta["meta.exposure.group_time"]),
            gain,
            readnoise,
        )

    def apply(self, block: GuiderBlock, prepared: PreparedRates, gathered: Any = None) -> None:
        if isinstance(block, ImageBlock):
            raise ValueError("the exposure holds count rates, not reads: skip the step")
        integrations, groups = block.sci.shape[:2]
        if groups < 2 and not prepared.means:
            raise ValueError(f"needs two groups, has {groups}")
        if prepared.least and integrations < 2:
            raise ValueError("identification needs two integrations, has one")
        if prepared.means:
            signal = guider_cds.difference_of_means(block.sci)
        else:
            signal = (guider_cds.least_difference if prepared.least else guider_cds.difference)(block.sci)
        place = (block.window.rows, block.window.columns)
        gain, readnoise = (
            np.ascontiguousarray(array[place], np.float32) for array in (prepared.gain, prepared.readnoise)
        )
        time = prepared.group_time
        if prepared.means and not prepared.as_jwst:
            time *= guider_cds.groups_between_means(groups)
        rate, err = guider_cds.rates(signal, gain, readnoise, time)
        block.products["cal"] = ImageBlock(block.window, rate, err, block.pixeldq)

    def finish(self, meta: Meta, prepared: PreparedRates, tally: Mapping[str, float]) -> dict[str, Any]:
        return {"meta.bunit_data": "DN/s"}


def _cut(reference: Any, meta: Meta, exposure_type: str) -> np.ndarray:
    """A reference cut to the exposure; its mean where it does not cover a stacked image."""
    try:
        return reference.match(meta).array("sci")
    except ReferenceFileError:
        shape = (int(meta["meta.subarray.ysize"]), int(meta["meta.subarray.xsize"]))
        values = reference.array("sci")
        if "STACK" not in exposure_type or values.shape == shape:
            raise
        return np.broadcast_to(np.mean(np.asarray(values, np.float32)), shape)
