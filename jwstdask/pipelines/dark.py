"""calwebb_dark: dark exposures corrected up to linearity."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.pipeline import Branch, Pipeline
from jwstdask.pipelines.detector1 import MIRI_RAMP, NIR_RAMP

_STEPS = (
    "group_scale",
    "dq_init",
    "emicorr",
    "saturation",
    "ipc",
    "superbias",
    "refpix",
    "reset",
    "rscd",
    "firstframe",
    "lastframe",
    "linearity",
)


def _before_dark(steps: tuple[str, ...]) -> tuple[str, ...]:
    return steps[: steps.index("dark_current")]


@dataclass(frozen=True, kw_only=True)
class DarkPipeline(Pipeline):
    """Dark exposures corrected up to linearity."""

    alias = "calwebb_dark"
    class_name = "DarkPipeline"
    stage = 1
    step_defs = {name: name for name in _STEPS}
    branches = (
        Branch("MIRI", _before_dark(MIRI_RAMP), lambda meta: meta.get("meta.instrument.name") == "MIRI"),
        Branch("NIR", _before_dark(NIR_RAMP)),
    )
    exp_types = frozenset("FGS_DARK MIR_DARKALL MIR_DARKIMG MIR_DARKMRS NIS_DARK NRC_DARK NRS_DARK".split())
