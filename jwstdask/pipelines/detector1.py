"""calwebb_detector1: ramps to slopes."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.params import par
from jwstdask.core.pipeline import Branch, Pipeline

_STEPS = (
    "group_scale",
    "dq_init",
    "emicorr",
    "saturation",
    "ipc",
    "superbias",
    "refpix",
    "rscd",
    "firstframe",
    "lastframe",
    "linearity",
    "dark_current",
    "reset",
    "persistence",
    "charge_migration",
    "jump",
    "picture_frame",
    "clean_flicker_noise",
    "ramp_fit",
    "gain_scale",
)

MIRI_RAMP = (
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
    "dark_current",
    "refpix",
)

NIR_RAMP = ("group_scale", "dq_init", "saturation", "ipc", "superbias", "refpix", "linearity", "dark_current")

_SLOPE = (
    "charge_migration",
    "jump",
    "picture_frame",
    "clean_flicker_noise",
    "persistence",
    "ramp_fit",
    "gain_scale",
)


@dataclass(frozen=True, kw_only=True)
class Detector1Pipeline(Pipeline):
    """Ramps to slopes, for every science and most calibration exposures."""

    alias = "calwebb_detector1"
    class_name = "Detector1Pipeline"
    stage = 1
    step_defs = {name: name for name in _STEPS}
    branches = (
        Branch("MIRI", MIRI_RAMP + _SLOPE, lambda meta: meta.get("meta.instrument.name") == "MIRI"),
        Branch("NIR", NIR_RAMP + _SLOPE),
    )
    exp_types = frozenset(
        "FGS_FOCUS FGS_IMAGE FGS_INTFLAT FGS_SKYFLAT MIR_4QPM MIR_CORONCAL MIR_FLATIMAGE MIR_FLATIMAGE-EXT "
        "MIR_FLATMRS MIR_FLATMRS-EXT MIR_IMAGE MIR_LRS-FIXEDSLIT MIR_LRS-SLITLESS MIR_LYOT MIR_MRS MIR_TACONFIRM "
        "MIR_TACQ MIR_WFSS NIS_AMI NIS_EXTCAL NIS_FOCUS NIS_IMAGE NIS_LAMP NIS_SOSS NIS_TACONFIRM NIS_TACQ "
        "NIS_WFSS NRC_CORON NRC_FLAT NRC_FOCUS NRC_GRISM NRC_IMAGE NRC_LED NRC_TACONFIRM NRC_TACQ NRC_TSGRISM "
        "NRC_TSIMAGE NRC_WFSS NRS_AUTOFLAT NRS_AUTOWAVE NRS_BRIGHTOBJ NRS_CONFIRM NRS_FIXEDSLIT NRS_FOCUS "
        "NRS_IFU NRS_IMAGE NRS_LAMP NRS_MIMF NRS_MSASPEC NRS_MSATA NRS_TACONFIRM NRS_TACQ NRS_TASLIT NRS_VERIFY "
        "NRS_WATA".split()
    )

    save_calibrated_ramp: bool = par(False, "save the ramps as they enter ramp_fit")
