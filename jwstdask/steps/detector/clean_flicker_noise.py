"""Remove 1/f noise from the groups, with the sources masked by a draft rate image."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.params import par
from jwstdask.core.step import Step


@dataclass(frozen=True, kw_only=True)
class CleanFlickerNoiseStep(Step):
    """Remove 1/f noise from the groups, with the sources masked by a draft rate image."""

    alias = "clean_flicker_noise"
    class_name = "CleanFlickerNoiseStep"
    status = "clean_flicker_noise"
    available = False
    reference_types = ("flat", "pastasoss")

    skip: bool = par(True, "do not run")
    autoparam: bool = par(False, "choose fit and background parameters for the exposure")
    fit_method: str = par("median", "how the noise is fitted", choices=("fft", "median"))
    fit_by_channel: bool = par(False, "fit each amplifier separately (near infrared)")
    background_method: str | None = par(
        "median", "how the background is found", choices=("median", "model", "median_image")
    )
    background_box_size: tuple[int, ...] | None = par(None, "box of the background model", unit="pixel", length=(2, 2))
    mask_science_regions: bool = par(False, "mask known science regions")
    apply_flat_field: bool = par(False, "divide by the flat before fitting")
    n_sigma: float = par(2.0, "clipping level of signal above the background")
    fit_histogram: bool = par(False, "take sigma from a fit to the histogram")
    single_mask: bool = par(True, "one mask for all integrations")
    user_mask: str | None = par(None, "file of a mask to use instead")
    save_mask: bool = par(False, "save the mask")
    save_background: bool = par(False, "save the background")
    save_noise: bool = par(False, "save the noise")
