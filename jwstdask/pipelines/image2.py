"""calwebb_image2: slopes to calibrated images."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.params import par
from jwstdask.core.pipeline import Branch, Pipeline
from jwstdask.core.step import Meta

RESAMPLED = frozenset(("MIR_IMAGE", "NRC_IMAGE", "NIS_IMAGE", "FGS_IMAGE"))
"""EXP_TYPE values of which a single 2-D exposure is resampled."""


def _resampled(meta: Meta) -> bool:
    return meta.get("meta.exposure.type") in RESAMPLED and meta.get("meta.model_type") != "CubeModel"


_CALIBRATE = ("bkg_subtract", "assign_wcs", "flat_field", "photom")


@dataclass(frozen=True, kw_only=True)
class Image2Pipeline(Pipeline):
    """Slopes to images in MJy/sr, with a resampled image of each ordinary exposure."""

    alias = "calwebb_image2"
    class_name = "Image2Pipeline"
    stage = 2
    step_defs = {name: name for name in (*_CALIBRATE, "resample")}
    branches = (Branch("image", (*_CALIBRATE, "resample"), _resampled), Branch("not resampled", _CALIBRATE))
    exp_types = frozenset(
        "FGS_FOCUS FGS_IMAGE MIR_4QPM MIR_CORONCAL MIR_IMAGE MIR_LYOT MIR_TACONFIRM MIR_TACQ NIS_AMI NIS_FOCUS "
        "NIS_IMAGE NIS_TACONFIRM NIS_TACQ NRC_CORON NRC_FOCUS NRC_IMAGE NRC_TACONFIRM NRC_TACQ NRC_TSIMAGE "
        "NRS_CONFIRM NRS_FOCUS NRS_IMAGE NRS_MIMF NRS_MSATA NRS_TACONFIRM NRS_TACQ NRS_TASLIT NRS_VERIFY "
        "NRS_WATA".split()
    )

    save_bsub: bool = par(False, "save the background-subtracted image (deprecated: bkg_subtract.save_results)")
