"""Subtract the dark current with the time sampling of the exposure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.dims import integrations_of
from jwstdask.core.errors import ReferenceFileError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, SidePath, Step
from jwstdask.io.product import ProductWriter, make_folder
from jwstdask.kernels import dark_current
from jwstdask.refs.flags import FlagMap, add_flags

_ROWS = 64


@dataclass(frozen=True)
class Dark:
    """A dark [DN], (group, y, x) or (integration, group, y, x) for MIRI, its flags, and how to sample it.

    Attributes
    ----------
    groups
        Planes averaged for each group of the exposure.
    averaged
        The sampling differs, so that groups are averages.
    first
        The exposure's first integration is the first of the visit.
    mean
        Mean dark current [e-/s], for the noise of ramp_fit.
    planes
        Number of its groups, with those that it is extended by.
    meta
        Of the reference.
    """

    values: np.ndarray
    flags: FlagMap | np.ndarray
    groups: list[range]
    averaged: bool
    first: bool
    mean: float
    planes: int
    meta: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class DarkCurrentStep(Step):
    """Subtract the dark current with the time sampling of the exposure."""

    alias = "dark_current"
    class_name = "DarkCurrentStep"
    status = "dark_sub"
    reference_types = ("dark",)
    equations = (
        "SCI(group) - mean of the dark over the frames of the group, NaN in the dark as 0;\n"
        "dark beyond its end: last + k (last - last but one); PIXELDQ |= dark DQ"
    )
    sources = "JWST pipeline documentation, dark_current"

    dark_output: str | None = par(None, "file for the dark as subtracted")
    average_dark_current: float | None = par(None, "mean dark current, for the Poisson noise", unit="e-/s")

    as_jwst: bool = par(
        True,
        "as jwst: no averaged dark for later segments with fewer integrations than the dark; if False, its last one",
        own=True,
    )

    dark_path: str | None = None
    """Where the dark is saved; set when planning."""

    def with_side_products(self, path: SidePath) -> DarkCurrentStep:
        return replace(self, dark_path=None if self.dark_output is None else path(None, self.dark_output))

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        dark = references.get("dark")
        if dark is None:
            return "No DARK reference file found"
        for name in ("nframes", "groupgap"):
            if dark.meta[f"meta.exposure.{name}"] > meta[f"meta.exposure.{name}"]:
                return f"The {name} of the dark is greater than that of the science data"
        return None

    def left_over(self, meta: Meta, references: Mapping[str, Any]) -> Step | None:
        # As in jwst the noise is that of the dark that cannot be subtracted.
        dark = references.get("dark")
        return None if dark is None else MeanDarkCurrent(mean=self._mean(meta, dark))

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Dark:
        reference = references["dark"]
        values = reference.array("sci")
        shape = meta["meta.subarray.ysize"], meta["meta.subarray.xsize"]
        if values.shape[-2:] != shape:
            raise ReferenceFileError(
                reference.path,
                f"the dark has {values.shape[-2]} x {values.shape[-1]} pixels, the exposure {shape[0]} x {shape[1]}",
                "Darks are not cut: use one made for this subarray.",
            )
        ngroups, nframes, groupgap = (int(meta[f"meta.exposure.{name}"]) for name in ("ngroups", "nframes", "groupgap"))
        sampling = [int(reference.meta[f"meta.exposure.{name}"]) for name in ("nframes", "groupgap")]
        planes = values.shape[-3]
        added = dark_current.missing_groups(ngroups, nframes, groupgap, planes, *sampling)
        averaged = [nframes, groupgap] != sampling
        if averaged:
            groups = dark_current.frames_of_groups(ngroups, nframes, groupgap, planes + added)
        else:
            groups = dark_current.frames_of_groups(ngroups, 1, 0, planes + added)
        if (added and planes < 2) or (nframes == 1 and any(len(group) == 0 for group in groups)):
            raise ReferenceFileError(
                reference.path,
                f"a dark of {planes} groups cannot be sampled at {ngroups} groups with gaps of {groupgap}",
                "Use a dark with the sampling of the exposure or a finer one.",
            )
        first = meta.get("meta.exposure.integration_start") in (None, 1)
        mean = self._mean(meta, reference)
        return Dark(values, reference.flags, groups, averaged, first, mean, planes + added, dict(reference.meta))

    def _mean(self, meta: Meta, reference: Any) -> float:
        """Mean dark current [e-/s]: the parameter, or the reference's number."""
        if self.average_dark_current is not None:
            return self.average_dark_current
        if "avdrkcur" in reference and np.sum(reference.array("avdrkcur")) != 0:
            # jwst 3.0.0 compares the image with the exposure's own, which does not exist yet, and drops it.
            return 0.0
        return float(reference.meta.get("meta.exposure.average_dark_current") or 0.0)

    def by_integration(self, meta: Meta) -> bool:
        # MIRI's first integrations have darks of their own.
        return meta.get("meta.instrument.name") != "MIRI"

    def apply(self, block: RampBlock, prepared: Dark, gathered: Any = None) -> None:
        rows, columns = block.window.rows, block.window.columns
        size = block.sci.shape[0]
        # jwst averages no more integrations than the exposure has, but always uses the last one for later segments.
        missing = prepared.values.ndim == 4 and prepared.averaged and not prepared.first
        missing = missing and size < prepared.values.shape[0]
        for integrations, dark in () if missing and self.as_jwst else _darks(prepared, size):
            sci = block.sci[integrations]
            dark_current.subtract(sci, dark, prepared.groups, prepared.averaged, rows, columns, out=sci)
        if prepared.flags.ndim == 4:
            block.pixeldq |= np.bitwise_or.reduce(prepared.flags[:, 0, rows, columns], axis=0)
        else:
            add_flags(block.pixeldq, prepared.flags, (rows, columns))
        block.average_dark_current = prepared.mean

    def finish(self, meta: Meta, prepared: Dark, tally: Mapping[str, float]) -> dict[str, Any]:
        if self.dark_path is not None:
            _save(self.dark_path, meta, prepared)
        return {}


@dataclass(frozen=True)
class MeanDarkCurrent(Step):
    """Stands for a dark that is not subtracted: its mean counts for the noise."""

    alias = class_name = status = "mean_dark_current"
    mean: float = par(0.0, "mean dark current", unit="e-/s")

    def apply(self, block: RampBlock, prepared: Any, gathered: Any = None) -> None:
        block.average_dark_current = self.mean


def _save(path: str, meta: Meta, prepared: Dark) -> None:
    """Save the dark as subtracted: as averaged for the groups of the exposure, else all of it."""
    miri = prepared.values.ndim == 4
    *_, height, width = prepared.values.shape
    groups = prepared.groups if prepared.averaged else [range(k, k + 1) for k in range(prepared.planes)]
    shape = (*prepared.values.shape[:-3], len(groups), height, width)
    flags = (prepared.values.shape[0], 1, height, width) if miri else (height, width)
    # jwst averages no more integrations than the exposure has.
    count = min(shape[0], integrations_of(meta)) if miri and prepared.averaged else shape[0]
    own = {**prepared.meta, "meta.exposure.ngroups": len(groups)}
    if prepared.averaged:
        own |= {f"meta.exposure.{name}": meta[f"meta.exposure.{name}"] for name in ("nframes", "groupgap")}
    make_folder(path)
    arrays = {"sci": (shape, "float32"), "dq": (flags, "uint32")}
    with ProductWriter(path, "DarkMIRIModel" if miri else "DarkModel", own, arrays) as product:
        for start in range(0, height, _ROWS):
            rows = slice(start, min(start + _ROWS, height))
            zeros = np.zeros((1, len(groups), rows.stop - start, width), np.float32)
            bands = [
                -dark_current.subtract(zeros, dark, groups, prepared.averaged, rows)[0]
                for dark in (prepared.values[:count] if miri else [prepared.values])
            ]
            bands += [zeros[0]] * (shape[0] - count) if miri else []
            product.write("sci", np.stack(bands) if miri else bands[0], rows=rows)
            product.write(
                "dq",
                np.broadcast_to(np.asarray(prepared.flags[..., rows, :], np.uint32), (*flags[:-2], *zeros.shape[2:])),
                rows=rows,
            )
        product.finish()


def _darks(prepared: Dark, integrations: int) -> list[tuple[slice, np.ndarray]]:
    """Which dark (group, y, x) goes with which integrations."""
    if prepared.values.ndim == 3:
        return [(slice(None), prepared.values)]
    # The first integrations of a visit have their own darks, all others the last one.
    count = prepared.values.shape[0] if prepared.first else 1
    pairs = [(slice(k, k + 1), prepared.values[k]) for k in range(min(count - 1, integrations))]
    if integrations >= count:
        pairs.append((slice(count - 1, None), prepared.values[-1]))
    return pairs
