"""Remove the thermal picture frame of NIRSpec full-frame exposures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jwstdask.core import dq as flags
from jwstdask.core.block import RampBlock
from jwstdask.core.errors import StepUndone
from jwstdask.core.params import par
from jwstdask.core.step import Meta, SidePath, Step
from jwstdask.kernels.background import scene_mask
from jwstdask.kernels.picture_frame import Pattern
from jwstdask.steps.detector.clean_flicker_noise import draft_rate
from jwstdask.steps.detector.ramp_fit import RampFitData, RampFitStep
from jwstdask.steps.detector.science_regions import (
    NoSlitError,
    msa_metadata_path,
    references_for,
    science_regions,
)
from jwstdask.steps.detector.side_products import images, mapped, of_draft_rate, save, scratch_array

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What the step knows of an exposure.

    Attributes
    ----------
    image
        The reference image, float32 (y, x).
    ramp_fit
        How a draft rate is fitted; None for an exposure that is no ramp.
    references
        What tells the regions with spectra.
    """

    image: np.ndarray
    ramp_fit: RampFitData | None
    references: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shared:
    """What all integrations of an exposure share.

    Attributes
    ----------
    pattern
        To be removed.
    mask
        bool (y, x), True for background.
    correction
        Temporary .npy file, of the shape of the exposure, for what was added; or None.
    """

    pattern: Pattern
    mask: np.ndarray
    correction: str | None = None


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
    sources = "JWST pipeline documentation, picture_frame"

    skip: bool = par(True, "do not run")
    mask_science_regions: bool = par(True, "mask known science regions")
    n_sigma: float = par(2.0, "clipping level of signal above the background")
    save_mask: bool = par(False, "save the mask")
    save_correction: bool = par(False, "save the correction")

    mask_path: str | None = None
    correction_path: str | None = None
    """Where these are saved; set when planning."""
    msa_metadata_path: str | None = None
    """The MSA metadata file; set when planning."""

    def of_exposure(self, meta: Meta, path: str) -> PictureFrameStep:
        return replace(self, msa_metadata_path=msa_metadata_path(meta, path) if self.mask_science_regions else None)

    def with_side_products(self, path: SidePath) -> PictureFrameStep:
        return replace(
            self,
            mask_path=path("pctfrm_mask", "") if self.save_mask else None,
            correction_path=path("pctfrm_correction", "") if self.save_correction else None,
        )

    def skip_reason(self, meta: Meta) -> str | None:
        instrument, subarray = (str(meta.get(f"meta.{name}")).upper() for name in ("instrument.name", "subarray.name"))
        if instrument != "NIRSPEC" or subarray != "FULL":
            return "Picture frame correction is only applicable to NIRSpec full frame exposures"
        if _is_ramp(meta) and meta.get("meta.exposure.ngroups") == 1:
            return "Picture frame correction cannot be performed for single-group data"
        return None

    def references_for(self, meta: Meta) -> tuple[str, ...]:
        regions = references_for(meta, failed_open=True) if self.mask_science_regions else ()
        return self.reference_types + (RampFitStep.reference_types if _is_ramp(meta) else ()) + regions

    def stated_references(self, meta: Meta) -> tuple[str, ...]:
        # The data models have no place for the picture frame, and in jwst the draft rate is a model of its own.
        return ()

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
            {kind: references.get(kind) for kind in references_for(meta, failed_open=True)},
        )

    def frame_shared(self, meta: Meta, prepared: Prepared, ramp: Any) -> Shared:
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
            draft = draft_rate(meta, prepared.ramp_fit, ramp, False)
            rate, dq = draft.sci, draft.dq
        else:
            rate, dq = np.array(ramp.sci, np.float32), np.array(ramp.dq, np.uint32)
        excluded = None
        if self.mask_science_regions:
            arguments = self.alias, meta, prepared.references, self.msa_metadata_path, rate.shape[-2:]
            try:
                excluded = science_regions(*arguments, failed_open=True)
            except NoSlitError as error:
                log.warning("%s: %s: no regions are masked", meta.get("meta.filename"), error)
            else:
                excluded = excluded | ((dq & flags.MSA_FAILED_OPEN) != 0)
        mask = scene_mask(rate, excluded, self.n_sigma)
        try:
            pattern = Pattern.of(prepared.image, mask)
        except ValueError as error:
            # As in jwst the mask, which tells why, is saved all the same.
            save(self.mask_path, of_draft_rate(meta), mask.astype(np.float32))
            raise StepUndone(f"No data to scale: {error}") from error
        return Shared(pattern, mask, scratch_array(self.correction_path, ramp.sci.shape))

    def frame_integration(self, meta: Meta, prepared: Prepared, shared: Shared, ramp: Any, integration: int) -> None:
        """Correct one integration of the exposure in place."""
        cube = images(ramp.sci, integration)
        correction = None if shared.correction is None else images(mapped(shared.correction), integration)
        is_ramp = isinstance(ramp, RampBlock)
        zero = np.array(cube[0], np.float32) if is_ramp else None
        for index in range(1 if is_ramp else 0, len(cube)):
            before = np.array(cube[index], np.float32)
            image = np.empty_like(before)
            shared.pattern.remove(before, zero, image)
            cube[index] = image
            if correction is not None:
                correction[index] = image - before

    def frame_finish(self, meta: Meta, shared: Shared, done: bool) -> None:
        """Save mask and correction."""
        save(self.mask_path, of_draft_rate(meta), shared.mask.astype(np.float32), done)
        save(self.correction_path, meta, shared.correction, done)


def _is_ramp(meta: Meta) -> bool:
    return meta.get("meta.cal_step.ramp_fit") != "COMPLETE"
