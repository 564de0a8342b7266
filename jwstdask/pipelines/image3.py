"""calwebb_image3: calibrated images of an association to a mosaic and its catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.params import par
from jwstdask.core.pipeline import Branch, Pipeline
from jwstdask.core.step import Meta

_COMBINE = ("skymatch", "outlier_detection", "resample", "source_catalog")


def _moving(meta: Meta) -> bool:
    return str(meta.get("meta.target.type", "")).lower() == "moving"


@dataclass(frozen=True, kw_only=True)
class Image3Pipeline(Pipeline):
    """Calibrated images to a mosaic and its catalogue of sources."""

    alias = "calwebb_image3"
    class_name = "Image3Pipeline"
    stage = 3
    step_defs = {name: name for name in ("assign_mtwcs", "tweakreg", *_COMBINE)}
    branches = (
        Branch("moving target", ("assign_mtwcs", *_COMBINE), _moving),
        Branch("fixed target", ("tweakreg", *_COMBINE)),
    )
    exp_types = frozenset(("FGS_IMAGE", "MIR_IMAGE", "NIS_IMAGE", "NRC_IMAGE", "NRC_CORON"))

    in_memory: bool = par(True, "accepted for compatibility: memory is bounded either way")
