"""calwebb_dark: dark exposures corrected up to linearity."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.pipeline import Branch, Pipeline

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

_MIRI = (
    "group_scale",
    "dq_init",
    "emicorr",
    "saturation",
    "ipc",
    "firstframe",
    "lastframe",
    "reset",
    "linearity",
    "rscd",
)

_NIR = ("group_scale", "dq_init", "saturation", "ipc", "superbias", "refpix", "linearity")


@dataclass(frozen=True, kw_only=True)
class DarkPipeline(Pipeline):
    """Dark exposures corrected up to linearity."""

    alias = "calwebb_dark"
    class_name = "DarkPipeline"
    stage = 1
    step_defs = {name: name for name in _STEPS}
    branches = (
        Branch("MIRI", _MIRI, lambda meta: meta.get("meta.instrument.name") == "MIRI"),
        Branch("NIR", _NIR),
    )
    exp_types = frozenset("FGS_DARK MIR_DARKALL MIR_DARKIMG MIR_DARKMRS NIS_DARK NRC_DARK NRS_DARK".split())
