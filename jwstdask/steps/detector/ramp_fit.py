"""Fit slopes to ramps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jwstdask.core.block import ImageBlock, RampBlock
from jwstdask.core.dq import DO_NOT_USE, SATURATED
from jwstdask.core.errors import ParameterError, StepError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import ramp_fit

LIKELY_MIN_NGROUPS = 4
"""Ramps of fewer groups are fitted with OLS_C whatever the algorithm."""


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
    trim
        The exposure's first and last groups are left out if they are unusable in the whole frame.
    """

    gain: np.ndarray
    readnoise: np.ndarray
    gain_factor: float | None
    times: dict[str, Any]
    frames: dict[str, int]
    trim: bool


@dataclass(frozen=True, kw_only=True)
class RampFitStep(Step):
    """Fit slopes to ramps.

    Groups at the ends of MIRI ramps that are DO_NOT_USE in every pixel of the frame are left out. A block cannot know
    that; it judges by its own pixels, which is the same but for a few ramps (:func:`ramp_fit.count_dependent`). Their
    number and the unusable groups go to the tally; if the frame contradicts a block that has such ramps, :meth:`again`
    returns the number of leading and trailing groups with which the blocks must be walked once more.
    """

    alias = "ramp_fit"
    class_name = "RampFitStep"
    status = "ramp_fit"
    reference_types = ("readnoise", "gain")
    equations = (
        "slope = sum(slope_s / var_rnoise_s) / sum(1 / var_rnoise_s) over segments s; "
        "weights |i - mid|^P / readnoise^2, P by signal-to-noise ratio; "
        "var_rnoise_s = 12 R^2 / ((n^3 - n) tgroup^2 gain^2); "
        "var_poisson_s = (median rate + dark) / (tgroup gain (n - 1))"
    )

    algorithm: str = par("OLS_C", "how to fit", choices=("OLS_C", "LIKELY"))
    int_name: str = par("", "accepted for jwst's sake; without effect there too")
    save_opt: bool = par(False, "save the fits of single segments (fitopt)")
    opt_name: str = par("", "name of the fitopt product; that of the exposure by default")
    suppress_one_group: bool = par(True, "treat ramps with one good group as having none")
    firstgroup: int | None = par(None, "first group to use (0-indexed)")
    lastgroup: int | None = par(None, "last group to use (0-indexed)")
    maximum_cores: str = par("1", "accepted for jwst's sake; the engine decides")

    def check(self, meta: Meta) -> None:
        read_times = meta.get("meta.exposure.read_times")
        uneven = read_times is not None and len(read_times) > 0
        ngroups = meta.get("meta.exposure.ngroups") or LIKELY_MIN_NGROUPS
        if (uneven or self.algorithm == "LIKELY") and ngroups >= LIKELY_MIN_NGROUPS:
            raise ParameterError(
                "ramp_fit.algorithm: LIKELY is not available in this version"
                + (", and the exposure is unevenly sampled" if uneven else ""),
                "" if uneven else "Set steps.ramp_fit.algorithm=OLS_C.",
            )

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> RampFitData:
        factor = references["gain"].meta.get("meta.exposure.gain_factor")
        return RampFitData(
            gain=references["gain"].match(meta).array("sci"),
            readnoise=references["readnoise"].match(meta).array("sci"),
            gain_factor=None if factor is None else float(factor),
            times={name: meta[f"meta.exposure.{name}"] for name in ("group_time", "frame_time", "nframes")},
            frames={name: int(meta.get(f"meta.exposure.{name}") or 0) for name in ("groupgap", "drop_frames1")},
            trim=meta.get("meta.instrument.name") == "MIRI",
        )

    def apply(self, block: RampBlock, prepared: RampFitData, gathered: Any = None) -> None:
        ngroups = block.sci.shape[1]
        inner = block.window.inner
        tile = block.window.rows, block.window.columns
        for groups in self._outside(ngroups):
            block.groupdq[:, groups] |= np.uint8(DO_NOT_USE)
        suppress = self.suppress_one_group and ngroups > 1
        leading, trailing = gathered or self._unused(block, prepared, suppress)
        self._note(block, leading, trailing)
        first, last = leading, ngroups - trailing
        arguments = (
            block.sci,
            block.groupdq,
            block.pixeldq,
            np.ascontiguousarray(prepared.gain[tile], np.float32),
            np.ascontiguousarray(prepared.readnoise[tile], np.float32),
        )
        options = {
            **prepared.times,
            "zeroframe": block.zeroframe,
            "dark_current": block.average_dark_current,
            "suppress_one_group": suppress,
            "first_group": first,
            "last_group": last,
            "inner": inner,
        }
        # Abscissae count from the same group in all blocks, so that the last bits do not depend on the blocks.
        origin = 0 if gathered is not None else -first
        rate, rateints = ramp_fit.ramp_fit(*arguments, **options, origin=origin)
        block.products["rate"] = ImageBlock(block.window, **rate._asdict())
        block.products["rateints"] = ImageBlock(block.window, **rateints._asdict())
        if self.save_opt:
            segments = ramp_fit.fit_segments(*arguments, **options, **prepared.frames)
            block.products["fitopt"] = ImageBlock(block.window, sci=None, extra=_padded(segments, ngroups))  # type: ignore[arg-type]
            _add(block, f"ramp_fit.segments.{segments.slope.shape[1]}.{segments.crmag.shape[1]}", 1)
        start = block.groupdq[:, first, inner[0], inner[1]]
        _add(block, "ramp_fit.pixels", start[0].size)
        _add(block, "ramp_fit.start_usable", np.count_nonzero(start & SATURATED == 0))

    def _outside(self, ngroups: int) -> tuple[slice, ...]:
        """Groups before firstgroup and after lastgroup; none if these exclude each other."""
        first = max(self.firstgroup or 0, 0)
        last = ngroups - 1 if self.lastgroup is None else self.lastgroup
        if first >= last:
            return ()
        return slice(0, first), slice(last + 1, None)

    @staticmethod
    def _unused(block: RampBlock, prepared: RampFitData, suppress: bool) -> tuple[int, int]:
        """Leading and trailing groups to leave out, with what they rest on in the tally."""
        ngroups = block.sci.shape[1]
        if not prepared.trim or ngroups == 1:
            return 0, 0
        inner = block.window.inner
        leading, trailing = ramp_fit.unused_groups(block.groupdq[..., inner[0], inner[1]])
        pixels = (inner[0].stop - inner[0].start) * (inner[1].stop - inner[1].start)
        if leading == ngroups:
            _add(block, "ramp_fit.unused.all", pixels)
            leading = trailing = 0
        dependent = ramp_fit.count_dependent(
            block.sci, block.groupdq, block.pixeldq, leading, ngroups - trailing, suppress, inner
        )
        _add(block, f"ramp_fit.dependent.{leading}.{trailing}", dependent)
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
                    "Nothing can be fitted. Skip firstframe, lastframe or rscd, or leave the exposure out.",
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
