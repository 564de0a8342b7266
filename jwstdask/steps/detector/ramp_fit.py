"""Fit slopes to ramps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import ImageBlock, RampBlock
from jwstdask.core.dq import DO_NOT_USE, SATURATED
from jwstdask.core.errors import StepError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import likelihood, ramp_fit, ramp_segments
from jwstdask.kernels.unused_groups import count_dependent, unused_groups
from jwstdask.refs.images import floats_under

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RampFitData:
    """What the step knows of an exposure.

    Attributes
    ----------
    gain, readnoise
        float32 (y, x) of the science frame, [electron/DN] and [DN] (CDS).
    gain_factor
        Of the gain reference, or None.
    times
        group_time, frame_time [s] and nframes.
    frames
        groupgap and drop_frames1.
    read_times
        Times of the reads of each group [s] for a fit by likelihood; None for least squares.
    trim
        The exposure's first and last groups are left out if they are unusable in the whole frame.
    """

    gain: np.ndarray
    readnoise: np.ndarray
    gain_factor: float | None
    times: dict[str, Any]
    frames: dict[str, int]
    read_times: list[np.ndarray] | None
    trim: bool


@dataclass(frozen=True, kw_only=True)
class RampFitStep(Step):
    """Fit slopes to ramps.

    Good groups between flagged ones make a segment; the slopes of the segments of an integration, and of all
    integrations, are combined. Groups at the ends of MIRI ramps that are DO_NOT_USE in every pixel of the frame are
    left out.
    """

    # A block cannot know which groups these are; it judges by its own pixels, which is the same but for a few ramps
    # (count_dependent). Their number and the unusable groups go to the tally; if the frame contradicts a block
    # that has such ramps, `again` returns the number of leading and trailing groups with which the blocks must be
    # walked once more.

    alias = "ramp_fit"
    class_name = "RampFitStep"
    status = "ramp_fit"
    reference_types = ("readnoise", "gain")
    indispensable = reference_types
    equations = (
        "OLS_C: line through each segment s of good groups, weights |i - mid|^P / readnoise^2,\n"
        "P by signal-to-noise ratio;\n"
        "var_rnoise_s = 12 R^2 / ((n^3 - n) tgroup^2 gain^2);\n"
        "var_poisson_s = (median rate + dark) / (tgroup gain (n - 1));\n"
        "slope = sum(slope_s / var_rnoise_s) / sum(1 / var_rnoise_s); ERR^2 = sum of the combined variances\n"
        "LIKELY: slope = (1' C^-1 d) / (1' C^-1 1), d: differences of groups, C: their covariance (tridiagonal)"
    )
    sources = (
        "Fixsen et al. 2000, PASP 112, 1350 and Robberto 2009, JWST-STScI-001853 (OLS_C); "
        "Brandt 2024, PASP 136, 045004 and 045005 (LIKELY)"
    )

    algorithm: str = par("OLS_C", "least squares or maximum likelihood", choices=("OLS_C", "LIKELY"))
    int_name: str = par("", "accepted for jwst's sake; without effect there too")
    save_opt: bool = par(False, "save the fits of single segments (fitopt), or chi squared (likely_chisq)")
    opt_name: str = par("", "name of the fitopt product; that of the exposure by default")
    suppress_one_group: bool = par(True, "treat ramps with one good group as having none")
    firstgroup: int | None = par(None, "first group to use (0-indexed)")
    lastgroup: int | None = par(None, "last group to use (0-indexed)")
    maximum_cores: str = par("1", "accepted for jwst's sake; the engine decides")

    def _read_times(self, meta: Meta) -> list[np.ndarray] | None:
        """Times of the reads of each group [s] if the exposure is to be fitted by likelihood, else None.

        Unevenly sampled exposures always are, ramps that are too short never.
        """
        given = meta.get("meta.exposure.read_times")
        uneven = given is not None and len(given) > 0
        ngroups = int(meta["meta.exposure.ngroups"])
        if ngroups < likelihood.MIN_GROUPS or not (uneven or self.algorithm == "LIKELY"):
            return None
        if uneven:
            return [np.atleast_1d(np.asarray(times, np.float64)) for times in given]
        nframes, groupgap = int(meta["meta.exposure.nframes"]), int(meta.get("meta.exposure.groupgap") or 0)
        return likelihood.read_times(ngroups, nframes, groupgap, meta["meta.exposure.frame_time"])

    def by_likelihood(self, meta: Meta) -> bool:
        """Whether the exposure is fitted by likelihood."""
        return self._read_times(meta) is not None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> RampFitData:
        factor = references["gain"].meta.get("meta.exposure.gain_factor")
        read_times = self._read_times(meta)
        self._warn_of_groups(meta)
        return RampFitData(
            gain=references["gain"].match(meta).array("sci"),
            readnoise=references["readnoise"].match(meta).array("sci"),
            gain_factor=None if factor is None else float(factor),
            times={name: meta[f"meta.exposure.{name}"] for name in ("group_time", "frame_time", "nframes")},
            frames={name: int(meta.get(f"meta.exposure.{name}") or 0) for name in ("groupgap", "drop_frames1")},
            read_times=read_times,
            trim=meta.get("meta.instrument.name") == "MIRI" and read_times is None,
        )

    def apply(self, block: RampBlock, prepared: RampFitData, gathered: Any = None) -> None:
        for groups in self._outside(block.sci.shape[1]):
            block.groupdq[:, groups] |= np.uint8(DO_NOT_USE)
        arguments = (
            block.sci,
            block.groupdq,
            block.pixeldq,
            floats_under(block, prepared.gain),
            floats_under(block, prepared.readnoise),
        )
        options = {
            "zeroframe": block.zeroframe,
            "dark_current": 0.0 if block.average_dark_current is None else block.average_dark_current,
            "inner": block.window.inner,
        }
        if prepared.read_times is None:
            rate, rateints = self._least_squares(block, prepared, gathered, arguments, options)
        else:
            rate, rateints = self._likelihood(block, prepared.times["nframes"], prepared.read_times, arguments, options)
        block.products["rate"] = ImageBlock(block.window, **rate._asdict())
        block.products["rateints"] = ImageBlock(block.window, **rateints._asdict())

    def _least_squares(
        self,
        block: RampBlock,
        prepared: RampFitData,
        gathered: tuple[int, int] | None,
        arguments: tuple,
        options: dict[str, Any],
    ) -> tuple[ramp_fit.Slopes, ramp_fit.Slopes]:
        ngroups = block.sci.shape[1]
        inner = block.window.inner
        suppress = self.suppress_one_group and ngroups > 1
        leading, trailing = self._unused(block, prepared, suppress) if gathered is None else gathered
        if leading == ngroups:
            _add(block, "ramp_fit.unused.all", block.groupdq[0, 0, inner[0], inner[1]].size)
            leading = 0
        self._note(block, leading, trailing)
        groups = {"first_group": leading, "last_group": ngroups - trailing}
        options = {**options, **prepared.times, **groups, "suppress_one_group": suppress}
        # Abscissae count from the same group in all blocks, so that the last bits do not depend on the blocks.
        origin = 0 if gathered is not None else -leading
        slopes = ramp_fit.ramp_fit(*arguments, **options, origin=origin)
        if self.save_opt:
            segments = ramp_segments.fit_segments(*arguments, **options, **prepared.frames)
            extra = _padded(segments, ngroups)
            block.products["fitopt"] = ImageBlock(block.window, sci=None, extra=extra)  # type: ignore[arg-type]
            _add(block, f"ramp_fit.segments.{segments.slope.shape[1]}.{segments.crmag.shape[1]}", 1)
        start = block.groupdq[:, leading, inner[0], inner[1]]
        _add(block, "ramp_fit.pixels", start[0].size)
        _add(block, "ramp_fit.start_usable", np.count_nonzero(start & SATURATED == 0))
        return slopes

    def _likelihood(
        self, block: RampBlock, nframes: int, read_times: list[np.ndarray], arguments: tuple, options: dict[str, Any]
    ) -> tuple[ramp_fit.Slopes, ramp_fit.Slopes]:
        fit = likelihood.likelihood_fit(*arguments, read_times, nframes=nframes, **options)
        block.groupdq[...] = fit.groupdq
        if self.save_opt:
            block.products["likely_chisq"] = ImageBlock(block.window, sci=fit.chisq)
        return fit.rate, fit.rateints

    def _outside(self, ngroups: int) -> tuple[slice, ...]:
        """Groups before firstgroup and after lastgroup; none if these exclude each other."""
        first = max(self.firstgroup or 0, 0)
        last = ngroups - 1 if self.lastgroup is None else self.lastgroup
        if first >= last:
            return ()
        return slice(0, first), slice(last + 1, None)

    def _warn_of_groups(self, meta: Meta) -> None:
        """Tell of firstgroup and lastgroup that do nothing, or leave nothing."""
        if self.firstgroup is None and self.lastgroup is None:
            return
        name, ngroups = meta.get("meta.filename") or "exposure", int(meta["meta.exposure.ngroups"])
        given = f"firstgroup {self.firstgroup} and lastgroup {self.lastgroup} of {ngroups} groups"
        if not (outside := self._outside(ngroups)):
            log.warning("%s: %s: the first must come before the last; both are ignored", name, given)
        elif outside[0].stop >= ngroups:
            log.warning("%s: %s: none is left to be fitted", name, given)
        elif (self.firstgroup or 0) < 0 or outside[1].start > ngroups:
            log.warning("%s: %s: what lies beyond the ramp is ignored", name, given)

    @staticmethod
    def _unused(block: RampBlock, prepared: RampFitData, suppress: bool) -> tuple[int, int]:
        """Leading and trailing groups to leave out, with what they rest on in the tally."""
        ngroups = block.sci.shape[1]
        if not prepared.trim or ngroups == 1:
            return 0, 0
        inner = block.window.inner
        leading, trailing = unused_groups(block.groupdq[..., inner[0], inner[1]], suppress)
        first = 0 if leading == ngroups else leading
        dependent = count_dependent(block.sci, block.groupdq, block.pixeldq, first, ngroups - trailing, suppress, inner)
        _add(block, f"ramp_fit.dependent.{first}.{trailing}", dependent)
        return leading, trailing

    @staticmethod
    def _note(block: RampBlock, leading: int, trailing: int) -> None:
        """Put the groups left out into the tally."""
        inner = block.window.inner
        pixels = (inner[0].stop - inner[0].start) * (inner[1].stop - inner[1].start)
        for group in range(leading):
            _add(block, f"ramp_fit.unused.{group}", pixels)
        if trailing:
            _add(block, "ramp_fit.unused.last", pixels)

    @staticmethod
    def _unused_in_frame(tally: Mapping[str, float], ngroups: int) -> tuple[int, int]:
        """Leading and trailing groups that are unusable in all pixels of all blocks."""
        pixels = tally.get("ramp_fit.pixels", 0.0) - tally.get("ramp_fit.unused.all", 0.0)
        leading = 0
        while leading < ngroups and (pixels == 0 or tally.get(f"ramp_fit.unused.{leading}", 0.0) == pixels):
            leading += 1
        return leading, int(leading < ngroups and tally.get("ramp_fit.unused.last", 0.0) == pixels)

    def again(
        self, meta: Meta, prepared: RampFitData, gathered: tuple[int, int] | None, tally: Mapping[str, float]
    ) -> tuple[int, int] | None:
        """Leading and trailing groups to leave out, if a walk over the blocks rested on other numbers; else None."""
        if gathered is not None or not prepared.trim:
            return None
        ngroups = int(meta["meta.exposure.ngroups"])
        found = self._unused_in_frame(tally, ngroups)
        if sum(found) >= ngroups:
            return None
        for name, count in tally.items():
            if (
                name.startswith("ramp_fit.dependent.")
                and count > 0
                and name != "ramp_fit.dependent.{}.{}".format(*found)
            ):
                return found
        return None

    def of_frame(self, meta: Meta, prepared: RampFitData, groupdq: np.ndarray) -> tuple[int, int] | None:
        if not prepared.trim:
            return None
        size = groupdq.shape[1]
        before, after = self._outside(size) or (slice(0, 0), slice(size, None))
        suppress = self.suppress_one_group and size > 1
        return unused_groups(groupdq, suppress, slice(before.stop, after.start))

    def finish(self, meta: Meta, prepared: RampFitData, tally: Mapping[str, float]) -> dict[str, Any]:
        frame = int(meta["meta.subarray.xsize"]) * int(meta["meta.subarray.ysize"])
        if tally.get("ramp_fit.pixels", 0.0) >= frame:
            self._refuse_unusable(meta, prepared, tally)
        updates = {"meta.bunit_data": "DN/s", "meta.bunit_err": "DN/s"}
        if prepared.gain_factor is not None:
            updates["meta.exposure.gain_factor"] = prepared.gain_factor
        return updates

    def _refuse_unusable(self, meta: Meta, prepared: RampFitData, tally: Mapping[str, float]) -> None:
        """jwst makes no product either where these are met."""
        ngroups = int(meta["meta.exposure.ngroups"])
        exposure = str(meta.get("meta.filename") or "exposure")
        if prepared.trim and ngroups > 1:
            unused = self._unused_in_frame(tally, ngroups)
            if ngroups - sum(unused) < 2:
                raise StepError(
                    exposure,
                    self.alias,
                    f"{sum(unused)} of {ngroups} groups are DO_NOT_USE in all pixels; MIRI ramps need two others",
                    "Nothing can be fitted. Skip firstframe, lastframe, rscd or charge_migration, or leave it out.",
                )
        if tally.get("ramp_fit.start_usable", 0.0) == 0:
            raise StepError(
                exposure,
                self.alias,
                "the first group is saturated in all pixels and integrations",
                "Nothing can be fitted: leave the exposure out.",
            )


def _add(block: RampBlock, name: str, count: float) -> None:
    block.tally[name] = block.tally.get(name, 0.0) + float(count)


def _padded(segments: ramp_fit.Segments, ngroups: int) -> dict[str, np.ndarray]:
    """The arrays of the fitopt product, as long as any ramp of ``ngroups`` could need them."""
    arrays = segments._asdict()
    for name, values in arrays.items():
        if values.ndim == 4:
            length = ngroups - 1 if name == "crmag" else (ngroups + 1) // 2
            padded = np.zeros((values.shape[0], length, *values.shape[2:]), np.float32)
            padded[:, : values.shape[1]] = values
            arrays[name] = padded
    return arrays
