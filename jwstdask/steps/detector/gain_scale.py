"""Rescale count rates taken with a non-standard detector gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jwstdask.core.block import ImageBlock, RampBlock
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import gain_scale


@dataclass(frozen=True, kw_only=True)
class GainScaleStep(Step):
    """Rescale count rates taken with a non-standard detector gain."""

    alias = "gain_scale"
    class_name = "GainScaleStep"
    status = "gain_scale"
    reference_types = ("gain",)
    equations = "SCI, ERR * GAINFACT; VAR_POISSON, VAR_RNOISE * GAINFACT^2"
    sources = "JWST pipeline documentation, gain_scale"

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        return "GAINFACT not found in gain reference file" if self._factor(meta, references) is None else None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> float:
        return float(self._factor(meta, references))

    @staticmethod
    def _factor(meta: Meta, references: Mapping[str, Any]) -> Any:
        """The exposure's own gain factor, or that of the gain reference, or None."""
        factor = meta.get("meta.exposure.gain_factor")
        if factor is None and references.get("gain") is not None:
            factor = references["gain"].meta.get("meta.exposure.gain_factor")
        return factor

    def apply(self, block: RampBlock | ImageBlock, prepared: float, gathered: Any = None) -> None:
        if isinstance(block, ImageBlock):
            images = [block]
        else:
            images = [block.products[name] for name in ("rate", "rateints") if name in block.products]
        for image in images:
            for name, power in (("sci", 1), ("err", 1), ("var_poisson", 2), ("var_rnoise", 2)):
                values = getattr(image, name)
                if values is not None:
                    gain_scale.rescale(values, prepared, power, out=values)

    def finish(self, meta: Meta, prepared: float, tally: Mapping[str, float]) -> dict[str, Any]:
        return {"meta.exposure.gain_factor": prepared}
