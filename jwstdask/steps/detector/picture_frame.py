"""Remove the thermal picture frame of NIRSpec full-frame exposures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.errors import ParameterError, StepUndone
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels.clean_flicker_noise import scene_mask
from jwstdask.kernels.picture_frame import Pattern
from jwstdask.steps.detector.clean_flicker_noise import draft_rate
from jwstdask.steps.detector.ramp_fit import RampFitData, RampFitStep


@dataclass(frozen=True)
class Prepared:
    """The reference image, float32 (y, x), and how a draft rate is fitted; None for an exposure that is no ramp."""

    image: np.ndarray
    ramp_fit: RampFitData | None


@dataclass(frozen=True, kw_only=True)
class PictureFrameStep(Step):
    """Remove the thermal picture frame of NIRSpec full-frame exposures.

    Sources are masked in a rate fitted to the ramp with standard parameters. The medians of the background in the
    middle and along the edges of each group, above the first one, tell the strength of the pattern.
    """

    alias = "picture_frame"
    class_name = "PictureFrameStep"
    status = "picture_frame"
    kind = "frame"
    reference_types = ("pictureframe",)
    equations = (
        "m, e: medians of background in the middle and along the edges, of SCI_j - SCI_0 and of the reference R\n"
        "SCI_j - ((m - e) / (m_R - e_R) (R - e_R) + e)"
    )

    skip: bool = par(True, "do not run")
    mask_science_regions: bool = par(True, "mask known science regions")
    n_sigma: float = par(2.0, "clipping level of signal above the background")
    save_mask: bool = par(False, "save the mask")
    save_correction: bool = par(False, "save the correction")

    def check(self, meta: Meta) -> None:
        if self.skip_reason(meta) is not None:
            return
        if self.mask_science_regions:
            raise ParameterError(
                "picture_frame: mask_science_regions=True is not available in this version",
                "Set mask_science_regions to False: sources are masked by their signal alone.",
            )
        for name in ("save_mask", "save_correction"):
            if getattr(self, name):
                raise ParameterError(
                    f"picture_frame: {name}=True is not available in this version", f"Leave {name} at False."
                )

    def skip_reason(self, meta: Meta) -> str | None:
        instrument, subarray = (str(meta.get(f"meta.{name}")).upper() for name in ("instrument.name", "subarray.name"))
        if instrument != "NIRSPEC" or subarray != "FULL":
            return "Picture frame correction is only applicable to NIRSpec full frame exposures"
        if _is_ramp(meta) and meta.get("meta.exposure.ngroups") == 1:
            return "Picture frame correction cannot be performed for single-group data"
        return None

    def references_for(self, meta: Meta) -> tuple[str, ...]:
        return self.reference_types + (RampFitStep.reference_types if _is_ramp(meta) else ())

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        if references.get("pictureframe") is None:
            return f"Picture frame correction is not available for exposure type {meta.get('meta.exposure.type')}"
        if any(name in references and references[name] is None for name in RampFitStep.reference_types):
            return "no gain or readnoise reference for this exposure"
        return None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Prepared:
        fitted = all(name in references for name in RampFitStep.reference_types)
        return Prepared(
            np.asarray(references["pictureframe"].array("sci"), np.float32),
            RampFitStep().prepare(meta, references) if fitted else None,
        )

    def frame_shared(self, meta: Meta, prepared: Prepared, ramp: Any) -> Pattern:
        """The pattern, with the background that its strength is measured in.

        Parameters
        ----------
        ramp
            The whole exposure, a ramp block; or an image block of a rate. Its arrays may be memory-mapped, of any byte
            order.

        Raises
        ------
        StepUndone
            If there is no background.
        """
        if prepared.ramp_fit is not None:
            rate = draft_rate(meta, prepared.ramp_fit, ramp, False).sci
        else:
            rate = np.array(ramp.sci, np.float32)
        try:
            return Pattern.of(prepared.image, scene_mask(rate, None, self.n_sigma))
        except ValueError as error:
            raise StepUndone(f"No data to scale: {error}") from error

    def frame_integration(self, meta: Meta, prepared: Prepared, shared: Pattern, ramp: Any, integration: int) -> None:
        """Correct one integration of the exposure in place."""
        plane = ramp.sci[integration] if ramp.sci.ndim > 2 else ramp.sci
        if not isinstance(ramp, RampBlock):
            image = np.array(plane, np.float32)
            shared.remove(image, None, image)
            plane[...] = image
            return
        zero = np.array(plane[0], np.float32)
        for group in range(1, plane.shape[0]):
            image = np.array(plane[group], np.float32)
            shared.remove(image, zero, image)
            plane[group] = image


def _is_ramp(meta: Meta) -> bool:
    return meta.get("meta.cal_step.ramp_fit") != "COMPLETE"
