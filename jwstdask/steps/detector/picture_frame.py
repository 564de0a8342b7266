"""Remove the thermal picture frame of NIRSpec full-frame exposures."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.params import par
from jwstdask.core.step import Step


@dataclass(frozen=True, kw_only=True)
class PictureFrameStep(Step):
    """Remove the thermal picture frame of NIRSpec full-frame exposures."""

    alias = "picture_frame"
    class_name = "PictureFrameStep"
    status = "picture_frame"
    available = False
    reference_types = ("pictureframe",)

    skip: bool = par(True, "do not run")
    mask_science_regions: bool = par(True, "mask known science regions")
    n_sigma: float = par(2.0, "clipping level of signal above the background")
    save_mask: bool = par(False, "save the mask")
    save_correction: bool = par(False, "save the correction")
