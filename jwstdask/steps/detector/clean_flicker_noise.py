"""Remove 1/f noise from the groups, with the sources masked by a draft rate image."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from jwstdask.core import dq as flags
from jwstdask.core.block import RampBlock, tiles
from jwstdask.core.errors import StepUndone
from jwstdask.core.params import par
from jwstdask.core.step import Meta, SidePath, Step
from jwstdask.io.layout import open_layout
from jwstdask.kernels import flicker_choice
from jwstdask.kernels.background import fill_flat, scene_mask
from jwstdask.kernels.clean_flicker_noise import Method, clean_cube, clean_ramp
from jwstdask.kernels.errors import CleaningError
from jwstdask.kernels.flat_field import flat_field
from jwstdask.kernels.fourier_clean import FREQUENCIES, FREQUENCIES_ALLSLITS
from jwstdask.kernels.soss_trace import soss_traces
from jwstdask.steps.detector import median_image as median_images
from jwstdask.steps.detector.ramp_fit import RampFitData, RampFitStep
from jwstdask.steps.detector.science_regions import (
    NoSlitError,
    msa_metadata_path,
    references_for,
    science_regions,
)
from jwstdask.steps.detector.side_products import images, mapped, of_draft_rate, save, scratch_array

_TILE = (32, 512)
"""Rows and columns of the ramp that are fitted at a time."""

_NOT_SCIENCE = np.uint32(flags.DO_NOT_USE | flags.NON_SCIENCE)
_FOURIER = frozenset(("NRS_MSASPEC", "NRS_IFU", "NRS_FIXEDSLIT", "NRS_BRIGHTOBJ"))
_AUTOMATIC = {"NIS_IMAGE": "NIRISS", "NRC_IMAGE": "NIRCAM"}


@dataclass(frozen=True)
class Prepared:
    """What the step knows of an exposure.

    Attributes
    ----------
    instrument
        Whose automatic choice of parameters applies; None for none.
    flat
        The flat reference, cut to the science frame, or None.
    traces
        The tree of the pastasoss reference (NIRISS SOSS), or None.
    ramp_fit
        How the draft rate is fitted, or None for an exposure that is no ramp.
    references
        What tells the regions with spectra (NIRSpec).
    light
        What tells the light of the source, which a median image is scaled with.
    """

    instrument: str | None
    flat: Any
    traces: Mapping[str, Any] | None
    ramp_fit: RampFitData | None
    references: Mapping[str, Any] = field(default_factory=dict)
    light: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """What all integrations of an exposure have in common.

    Attributes
    ----------
    method
        How images are cleaned.
    mask
        bool ([integration,] y, x), True for background.
    flat
        float32 (y, x), or None.
    median
        Median of integrations, or None.
    background, noise
        Temporary .npy files, of the shape of the exposure, for what is saved besides; or None.
    """

    method: Method
    mask: np.ndarray
    flat: np.ndarray | None
    median: median_images.MedianImage | None = None
    background: str | None = None
    noise: str | None = None


@dataclass(frozen=True)
class DraftRate:
    """A rate image or cube: float32 sci, its variances, uint32 dq."""

    sci: np.ndarray
    dq: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray


@dataclass(frozen=True, kw_only=True)
class CleanFlickerNoiseStep(Step):
    """Remove 1/f noise from the groups, with the sources masked by a draft rate image.

    The sources are masked in a rate fitted to the ramp with standard parameters. What is cleaned are differences of
    successive groups: a background is taken off, sources are clipped, and the median of each line along the slow axis,
    or a fit in frequency space (NIRSpec), is subtracted.
    """

    alias = "clean_flicker_noise"
    class_name = "CleanFlickerNoiseStep"
    status = "clean_flicker_noise"
    status_if_undone: ClassVar[str] = "FAILED"
    kind = "frame"
    reference_types = ("flat", "pastasoss")
    equations = (
        "d_j = (SCI_j - SCI_(j-1)) / flat - background;\n"
        "d_j - median of d_j over background pixels of a line (median), or\n"
        "d_j - sum_k c_k exp(2 pi i k x / n), c by least squares weighted by 1 / density (fft);\n"
        "SCI_j = cleaned SCI_(j-1) + (cleaned d_j + background) * flat"
    )
    sources = "Rauscher 2024, PASP 136, 015001 (fft); Willott, image1overf (median)"

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

    mask_path: str | None = None
    background_path: str | None = None
    noise_path: str | None = None
    """Where these are saved; set when planning."""
    msa_metadata_path: str | None = None
    """The MSA metadata file; set when planning."""

    def of_exposure(self, meta: Meta, path: str) -> CleanFlickerNoiseStep:
        return replace(self, msa_metadata_path=msa_metadata_path(meta, path) if self._masks_spectra else None)

    def with_side_products(self, path: SidePath) -> CleanFlickerNoiseStep:
        return replace(
            self,
            mask_path=path("mask", "") if self.save_mask else None,
            background_path=path("flicker_bkg", "") if self.save_background else None,
            noise_path=path("flicker_noise", "") if self.save_noise else None,
        )

    # -- what the metadata tell

    def skip_reason(self, meta: Meta) -> str | None:
        exposure_type = str(meta.get("meta.exposure.type"))
        if exposure_type.startswith("MIR") and exposure_type != "MIR_IMAGE":
            return f"EXP_TYPE {exposure_type} is not supported"
        if self.fit_method == "fft" and exposure_type not in _FOURIER:
            return f"Fit method 'fft' cannot be applied to exp_type {exposure_type}"
        return None

    def references_for(self, meta: Meta) -> tuple[str, ...]:
        exposure_type = meta.get("meta.exposure.type")
        types = list(self.references_when_skipped(meta))
        if not types and self.mask_science_regions and exposure_type == "MIR_IMAGE":
            types.append("flat")
        if exposure_type == "NIS_SOSS":
            # As in jwst the products name it even if it is not used.
            types.append("pastasoss")
        if meta.get("meta.exposure.ngroups") is not None and meta.get("meta.cal_step.ramp_fit") != "COMPLETE":
            types += RampFitStep.reference_types
        if self._masks_spectra:
            types += references_for(meta)
        if self.background_method == "median_image":
            types += [kind for kind in median_images.references_for(meta) if kind not in types]
        return tuple(types)

    def stated_references(self, meta: Meta) -> tuple[str, ...]:
        # In jwst the draft rate is a model of its own, which is flat-fielded and gets a WCS, and whose light is found.
        own = {*self.references_when_skipped(meta), "pastasoss"}
        return tuple(kind for kind in self.references_for(meta) if kind in own)

    def references_when_skipped(self, meta: Meta) -> tuple[str, ...]:
        automatic = self.autoparam and meta.get("meta.exposure.type") in _AUTOMATIC
        return ("flat",) if self.apply_flat_field or automatic else ()

    @property
    def _masks_spectra(self) -> bool:
        return self.mask_science_regions and self.user_mask is None

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        if any(name in references and references[name] is None for name in RampFitStep.reference_types):
            return "no gain or readnoise reference for this exposure"
        return None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Prepared:
        instrument = _AUTOMATIC.get(str(meta.get("meta.exposure.type"))) if self.autoparam else None
        flat = references.get("flat")
        fitted = all(name in references for name in RampFitStep.reference_types)
        return Prepared(
            instrument,
            None if flat is None else flat.match(meta),
            None if references.get("pastasoss") is None else references["pastasoss"].asdf,
            RampFitStep().prepare(meta, references) if fitted else None,
            {kind: references.get(kind) for kind in references_for(meta)} if self._masks_spectra else {},
            {kind: references.get(kind) for kind in median_images.references_for(meta)},
        )

    # -- what all integrations need

    def frame_shared(self, meta: Meta, prepared: Prepared, ramp: Any) -> Scene:
        """Mask, method and flat of an exposure.

        Parameters
        ----------
        ramp
            The whole exposure, a ramp block; or an image block of a rate. Its arrays may be memory-mapped, of any byte
            order.

        Raises
        ------
        StepUndone
            If the exposure cannot be cleaned.
        """
        step = self._standard(meta)
        drafts: dict[bool, DraftRate] = {}

        def draft(cube: bool) -> DraftRate:
            if cube not in drafts:
                drafts[cube] = draft_rate(meta, prepared.ramp_fit, ramp, cube)
            return drafts[cube]

        if prepared.instrument is not None:
            step = step._chosen(meta, prepared, draft(False).sci)
        flat = None
        if step.apply_flat_field and prepared.flat is not None:
            flat = fill_flat(np.asarray(prepared.flat.array("sci"), np.float32))
        median = None
        try:
            if step.user_mask is not None:
                mask = _read_mask(step.user_mask, ramp.sci)
            else:
                mask = step._mask(meta, prepared, draft(prepared.ramp_fit is None or not step.single_mask), flat)
            if step.background_method == "median_image":
                name = str(meta.get("meta.subarray.name"))
                if meta.get("meta.exposure.type") == "NIS_SOSS" and name not in median_images.SOSS_SUBARRAYS:
                    raise CleaningError(f"a median image is not available for SOSS subarray {name}")
                rates = draft(True)
                sci = rates.sci if flat is None else rates.sci / flat
                arguments = meta, prepared.light, prepared.traces, ramp.sci, sci, rates.dq
                variances = rates.var_poisson, rates.var_rnoise
                median = median_images.median_image(*arguments, variances)
        except CleaningError as error:
            raise StepUndone(str(error)) from error
        shape = ramp.sci.shape
        files = scratch_array(self.background_path, shape), scratch_array(self.noise_path, shape)
        return Scene(step._method(meta), mask, flat, median, *files)

    def _standard(self, meta: Meta) -> CleanFlickerNoiseStep:
        """The step with parameters that suit the exposure."""
        step = self
        if step.background_method == "median_image":
            step = replace(step, single_mask=False)
        if meta.get("meta.subarray.name") != "FULL" or str(meta.get("meta.exposure.type")).startswith("MIR"):
            step = replace(step, fit_by_channel=False)
        return step

    def _chosen(self, meta: Meta, prepared: Prepared, rate: np.ndarray) -> CleanFlickerNoiseStep:
        """The step with the parameters that suit the image."""
        assert prepared.instrument is not None
        flat = None
        if prepared.flat is not None:
            flat = fill_flat(np.asarray(prepared.flat.array("sci"), np.float32))
        levels = flicker_choice.measure(rate, _axis(meta), prepared.instrument, flat)
        choice = flicker_choice.choose(levels, flicker_choice.LIMITS[prepared.instrument])
        return replace(
            self,
            apply_flat_field=flat is not None,
            background_method=choice.background_method,
            fit_by_channel=choice.fit_by_channel,
        )._standard(meta)

    def _method(self, meta: Meta) -> Method:
        box = self.background_box_size
        return Method(
            fit_method=self.fit_method,
            axis=_axis(meta),
            fit_by_channel=self.fit_by_channel,
            background_method=None if self.background_method == "median_image" else self.background_method,
            background_box_size=None if box is None else (int(box[0]), int(box[1])),
            n_sigma=self.n_sigma,
            flipped=meta.get("meta.instrument.detector") != "NRS1",
            frequencies=FREQUENCIES_ALLSLITS if meta.get("meta.subarray.name") == "ALLSLITS" else FREQUENCIES,
        )

    def _mask(self, meta: Meta, prepared: Prepared, draft: DraftRate, flat: np.ndarray | None) -> np.ndarray:
        excluded = None
        if self.mask_science_regions and meta.get("meta.exposure.type") == "MIR_IMAGE":
            excluded = (_flat_flags(draft, prepared.flat) & _NOT_SCIENCE) != 0
        elif self.mask_science_regions and meta.get("meta.exposure.type") == "NIS_SOSS":
            if prepared.traces is None:
                raise CleaningError("there is no pastasoss reference to mask the traces with")
            angle = float(meta["meta.instrument.pupil_position"])
            subarray = str(meta.get("meta.subarray.name"))
            excluded = soss_traces(draft.sci.shape[-2:], prepared.traces, angle, subarray)
        elif self.mask_science_regions and str(meta.get("meta.exposure.type")).startswith("NRS"):
            excluded = (draft.dq & flags.MSA_FAILED_OPEN) != 0
            arguments = self.alias, meta, prepared.references, self.msa_metadata_path, draft.sci.shape[-2:]
            try:
                excluded |= science_regions(*arguments)
            except NoSlitError as error:
                raise CleaningError(str(error)) from error
        rate = draft.sci if flat is None else draft.sci / flat
        return scene_mask(rate, excluded, self.n_sigma, self.fit_histogram, self.single_mask)

    # -- one integration

    def frame_integration(self, meta: Meta, prepared: Prepared, shared: Scene, ramp: Any, integration: int) -> None:
        """Clean one integration of the exposure in place.

        Raises
        ------
        StepUndone
            If it cannot be cleaned: the exposure must be left as it was.
        """
        mask = shared.mask[integration] if shared.mask.ndim == 3 else shared.mask
        cube = images(ramp.sci, integration)
        background = None if shared.background is None else images(mapped(shared.background), integration)
        noise = None if shared.noise is None else images(mapped(shared.noise), integration)
        if noise is not None:
            noise[...] = cube
        median, scale = None, np.float32(1)
        if shared.median is not None:
            level, scale = shared.median.of(integration)
            median = level.reshape(cube.shape)
        try:
            arguments = mask, shared.method, shared.flat, median, scale, background
            if isinstance(ramp, RampBlock):
                clean_ramp(cube, ramp.groupdq[integration], *arguments)
            else:
                clean_cube(cube, *arguments)
        except CleaningError as error:
            raise StepUndone(f"integration {integration + 1}: {error}") from error
        if noise is not None:
            for before, after in zip(noise, cube, strict=True):
                before[...] = after - before

    def frame_finish(self, meta: Meta, shared: Scene, done: bool) -> None:
        """Save mask, background and noise."""
        save(self.mask_path, of_draft_rate(meta), shared.mask.astype(np.float32), done)
        save(self.background_path, meta, shared.background, done)
        save(self.noise_path, meta, shared.noise, done)


def _axis(meta: Meta) -> int:
    """Array axis along which the noise of a line is taken: the slow axis; y for MIRI."""
    if str(meta.get("meta.exposure.type")).startswith("MIR"):
        return 0
    return abs(int(meta["meta.subarray.slowaxis"])) - 1


def draft_rate(meta: Meta, fit: RampFitData | None, exposure: Any, cube: bool) -> DraftRate:
    """Rate of an exposure, or cube of the rates of its integrations, fitted by standard parameters."""
    if fit is None:
        arrays = (exposure.sci, exposure.dq, exposure.var_poisson, exposure.var_rnoise)
        rate = DraftRate(*(np.array(array, array.dtype.newbyteorder("=")) for array in arrays))
        if cube or rate.sci.ndim == 2:
            return rate
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return replace(rate, sci=np.nanmean(rate.sci, axis=0))
    step, frame = RampFitStep(), exposure.sci.shape[-2:]
    shape = (exposure.sci.shape[0], *frame) if cube else frame
    draft = DraftRate(*(np.empty(shape, kind) for kind in (np.float32, np.uint32, np.float32, np.float32)))
    gathered = None
    # Once more where the whole frame contradicts a tile.
    for _ in range(2):
        tally: dict[str, float] = {}
        for window in tiles((0, frame[0]), frame, _TILE, 0):
            tile = (..., window.rows, window.columns)
            block = RampBlock(
                window,
                np.array(exposure.sci[tile], np.float32, order="C"),
                np.array(exposure.groupdq[tile], order="C"),
                np.array(exposure.pixeldq[tile], np.uint32, order="C"),
                None if exposure.zeroframe is None else np.array(exposure.zeroframe[tile], np.float32, order="C"),
                _dark_current(exposure, tile),
            )
            step.apply(block, fit, gathered)
            product = block.products["rateints" if cube else "rate"]
            for name in ("sci", "dq", "var_poisson", "var_rnoise"):
                getattr(draft, name)[tile] = getattr(product, name)
            for name, count in block.tally.items():
                tally[name] = tally.get(name, 0.0) + count
        gathered = step.again(meta, fit, gathered, tally)
        if gathered is None:
            break
    return draft


def _dark_current(ramp: RampBlock, tile: tuple[Any, ...]) -> np.ndarray | float | None:
    dark = ramp.average_dark_current
    return np.array(dark[tile], np.float32) if isinstance(dark, np.ndarray) and dark.ndim == 2 else dark


def _read_mask(path: str, sci: np.ndarray) -> np.ndarray:
    """A mask that the user gives: bool ([integration,] y, x)."""
    mask = open_layout(path).read("SCI").astype(np.bool_)
    if mask.shape[-2:] != sci.shape[-2:] or (mask.ndim == 3 and sci.ndim > 2 and mask.shape[0] != sci.shape[0]):
        raise CleaningError(f"{path} does not match the shape of the exposure")
    return mask


def _flat_flags(draft: DraftRate, flat: Any) -> np.ndarray:
    """Flags of a rate after division by the flat."""
    if flat is None:
        return draft.dq
    values = np.asarray(flat.array("sci"), np.float32)
    errors = np.asarray(flat.array("err"), np.float32) if "err" in flat else np.zeros_like(values)
    arrays = draft.sci, draft.dq, draft.var_poisson, draft.var_rnoise
    return draft.dq | flat_field(*arrays, values, errors, np.asarray(flat.dq, np.uint32)).dq
