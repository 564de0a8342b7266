"""calwebb_guider: reads of the guiders to count rates."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.exposure_types import GUIDER
from jwstdask.core.pipeline import Branch, Pipeline

_STEPS = ("dq_init", "guider_cds", "flat_field")


@dataclass(frozen=True, kw_only=True)
class GuiderPipeline(Pipeline):
    """Reads of the guiders to count rates."""

    alias = "calwebb_guider"
    class_name = "GuiderPipeline"
    stage = 1
    step_defs = {name: name for name in _STEPS}
    branches = (Branch("FGS", _STEPS),)
    exp_types = GUIDER
