"""Remove drifts of the readout with the reference pixels at the edges of a detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from jwstdask.core import dq
from jwstdask.core.block import RampBlock, Window
from jwstdask.core.dims import integrations_of
from jwstdask.core.errors import ParameterError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import refpix
from jwstdask.refs.stripes import is_multistripe, stripe_rows
from jwstdask.steps.detector import irs2

_SAMPLES_HELD = 1_000_000
"""Samples of the border that are held at once."""

_EDGELESS = ("SUB512", "SUB512S", "SUB32")
"""NIRSpec subarrays without reference pixels, whose first and last four columns take their place."""


@dataclass(frozen=True)
class Readout:
    """Where the exposure lies on the detector, and how the detector is read.

    Attributes
    ----------
    x0, y0, nx, ny
        Corner (0-indexed, science orientation) and size.
    mode
        ``amplifiers`` (near infrared, each amplifier on its own), ``single`` (subarray through one amplifier),
        ``stripes`` (rows from several parts of the detector), or ``miri``.
    border
        In stripes, the runs of rows of the border along the slow axis (first, end exclusive), science orientation.
    kernels
        SIRS kernels of the left and right side pixels, to be used instead of the running median.
    """

    x0: int
    y0: int
    nx: int
    ny: int
    fastaxis: int
    slowaxis: int
    mode: str
    edgeless: bool
    border: tuple[tuple[int, int], ...] = ()
    kernels: list[np.ndarray] | None = None

    @classmethod
    def of(cls, meta: Meta) -> Readout:
        nx, ny = meta["meta.subarray.xsize"], meta["meta.subarray.ysize"]
        if meta["meta.instrument.name"] == "MIRI":
            mode = "miri"
        elif is_multistripe(meta) and min(nx, ny) < refpix.SIZE:
            mode = "stripes"
        elif min(nx, ny) >= refpix.SIZE or meta.get("meta.exposure.noutputs") == refpix.AMPLIFIERS:
            mode = "amplifiers"
        else:
            mode = "single"
        return cls(
            meta["meta.subarray.xstart"] - 1,
            meta["meta.subarray.ystart"] - 1,
            nx,
            ny,
            meta.get("meta.subarray.fastaxis") or 1,
            meta.get("meta.subarray.slowaxis") or 2,
            mode,
            mode == "single" and meta.get("meta.subarray.name") in _EDGELESS,
            _border_rows(meta) if mode == "stripes" else (),
        )

    @property
    def full(self) -> bool:
        """The whole of a near-infrared detector."""
        return self.mode != "miri" and min(self.nx, self.ny) >= refpix.SIZE

    @property
    def fast_along_x(self) -> bool:
        return abs(self.fastaxis) == 1

    def position(self, axis: str, index: np.ndarray | int) -> Any:
        """Detector row or column of a science index along ``x`` or ``y``.

        In stripes, rows are numbered as they are read. Columns there begin with the corner in science orientation,
        also where the detector is read the other way: so does jwst.
        """
        start = self.x0 if axis == "x" else self.y0
        fast = (axis == "x") == self.fast_along_x
        direction = self.fastaxis if fast else self.slowaxis
        if self.mode == "stripes":
            size = self.nx if axis == "x" else self.ny
            place = np.asarray(index) if direction > 0 else size - 1 - np.asarray(index)
            return place + start if fast else place
        place = np.asarray(index) + start
        return place if direction > 0 else refpix.SIZE - 1 - place

    @property
    def first_row(self) -> int:
        """Detector row of the exposure's first row in detector orientation."""
        axis, size = ("y", self.ny) if self.fast_along_x else ("x", self.nx)
        return int(self.position(axis, np.array([0, size - 1])).min())

    def windows(self) -> list[Window]:
        """The parts of the border of reference pixels that lie in the exposure."""
        if self.mode == "miri":
            return [Window.plain(0, self.ny, 0, 4), Window.plain(0, self.ny, self.nx - 4, self.nx)]
        if self.edgeless:
            return [Window.plain(0, self.ny, 0, 4), Window.plain(0, self.ny, self.nx - 4, self.nx)]
        last = refpix.SIZE - refpix.BORDER
        sides = []
        for start, size in ((self.x0, self.nx), (self.y0, self.ny)):
            ends = ((0, refpix.BORDER - start), (last - start, size))
            sides.append([(max(first, 0), min(stop, size)) for first, stop in ends])
        columns, rows = sides
        if self.mode == "stripes":
            columns, rows = (columns, list(self.border)) if self.fast_along_x else (list(self.border), rows)
        found = [Window.plain(start, stop, 0, self.nx) for start, stop in rows if start < stop]
        return found + [Window.plain(0, self.ny, start, stop) for start, stop in columns if start < stop]


def _border_rows(meta: Meta) -> tuple[tuple[int, int], ...]:
    """Runs of rows, along the slow axis, that come from the border of the detector."""
    # In superstripes the reference pixels are those of the first one.
    rows = np.atleast_2d(stripe_rows(meta))[0]
    inside = (rows < refpix.BORDER) | (rows >= refpix.SIZE - refpix.BORDER)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], inside, [0]))))
    return tuple((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))


class Section(NamedTuple):
    """A part of the border in detector orientation: (integration, group, row, column), flags (row, column), corner."""

    sci: np.ndarray
    flags: np.ndarray
    row: int
    column: int


@dataclass(frozen=True)
class Corrections:
    """What is subtracted: amplifier levels (integration, group, amplifier, parity) and row levels [DN].

    Attributes
    ----------
    rows
        (integration, group, amplifier or 1, row), rows of the exposure in detector orientation.
    first_single
        The first group is rounded between the two.
    """

    levels: np.ndarray
    rows: np.ndarray
    first_single: bool


@dataclass(frozen=True)
class Gathered:
    """Corrections of the ramp and of the zeroth frame."""

    ramp: Corrections
    zeroframe: Corrections | None = None


@dataclass(frozen=True, kw_only=True)
class RefPixStep(Step):
    """Remove drifts of the readout with the reference pixels at the edges of a detector."""

    alias = "refpix"
    class_name = "RefPixStep"
    status = "refpix"
    reference_types = ("refpix", "sirskernel")
    equations = (
        "near infrared: SCI - clipped mean of the reference rows of the amplifier (odd and even columns apart)\n"
        "- side_gain * running median of the reference columns of the row;\n"
        "MIRI: SCI - clipped mean of the reference columns of the amplifier (odd and even rows apart),\n"
        "relative to the first group;\n"
        "IRS2: SCI - F^-1 sum_k w_k F(reference k), in order of time"
    )
    sources = (
        "Robberto 2014, JWST-STScI-003852; "
        "Moseley et al. 2010, Proc. SPIE 7742, 77421B and Rauscher et al. 2017, PASP 129, 105003 (IRS2)"
    )
    streams = True
    superstripes = True
    joins_superstripes = True

    odd_even_columns: bool = par(True, "treat odd and even columns apart")
    use_side_ref_pixels: bool = par(True, "use the reference pixels left and right of each row")
    side_smoothing_length: int = par(11, "rows of the running median of the side reference pixels", unit="pixel", ge=1)
    side_gain: float = par(1.0, "factor on the side reference signal")
    odd_even_rows: bool = par(True, "MIRI: treat odd and even rows apart")
    ovr_corr_mitigation_ftr: float = par(3.0, "IRS2: factor that guards against bad reference pixels")
    preserve_irs2_refpix: bool = par(False, "IRS2: keep the reference pixels in the output")
    irs2_mean_subtraction: bool = par(False, "IRS2: subtract means before the IRS2 correction")
    refpix_algorithm: str = par("median", "how side reference pixels are used", choices=("median", "sirs"))
    sigreject: float = par(4.0, "sirs: rejection limit of outliers", unit="sigma")
    gaussmooth: float = par(1.0, "sirs: width of the Gaussian that smooths the kernel", unit="pixel")
    halfwidth: int = par(30, "sirs: half-width of the kernel", unit="pixel")
    siglimit: float = par(3.0, "rejection limit of reference pixels", unit="sigma")

    as_jwst: bool = par(
        True, "as jwst: the flags of the first superstripe count for all; if False, each has its own", own=True
    )

    def check(self, meta: Meta) -> None:
        name = str(meta.get("meta.subarray.name", ""))
        miri = meta.get("meta.instrument.name") == "MIRI"
        if self.refpix_algorithm == "sirs" and "FULL" in name and not miri and not Readout.of(meta).full:
            raise ParameterError(f"refpix.refpix_algorithm='sirs' cannot be used for subarray {name}", "Use 'median'.")
        irs2.kept_rows(meta)

    def kept_rows(self, meta: Meta) -> np.ndarray | None:
        return irs2.kept_rows(meta)

    def drops_rows(self, meta: Meta) -> bool:
        return irs2.is_irs2(meta) and not self.preserve_irs2_refpix

    def skip_reason(self, meta: Meta) -> str | None:
        readout = Readout.of(meta)
        if readout.mode == "miri":
            if readout.nx < 1032 or readout.ny < 1024:
                return "Refpix correction skipped for MIRI subarrays"
            return None
        if readout.mode == "stripes":
            return None
        edges = (readout.x0, readout.y0, readout.x0 + readout.nx, readout.y0 + readout.ny)
        if not readout.full and (min(edges) < 0 or max(edges) > refpix.SIZE):
            return "Subarray doesn't fit in full-sized array"
        return None

    def references_for(self, meta: Meta) -> tuple[str, ...]:
        if irs2.is_irs2(meta):
            return ("refpix",)
        full = meta.get("meta.instrument.name") != "MIRI" and "FULL" in str(meta.get("meta.subarray.name"))
        return ("sirskernel",) if self.refpix_algorithm == "sirs" and full else ()

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        missing = irs2.is_irs2(meta) and references.get("refpix") is None
        return "No refpix reference file found" if missing else None

    def left_over(self, meta: Meta, references: Mapping[str, Any]) -> Step | None:
        # As in jwst bad reference samples are flagged and replaced before the reference is looked at.
        return replace(self, preserve_irs2_refpix=True)

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Readout | irs2.Prepared:
        if irs2.is_irs2(meta):
            return irs2.Prepared(
                irs2.readout_of(meta),
                None if references["refpix"] is None else irs2.Weights(references["refpix"]),
                self.ovr_corr_mitigation_ftr,
                self.preserve_irs2_refpix,
                self.irs2_mean_subtraction,
                self.odd_even_columns,
                self.siglimit,
            )
        readout = Readout.of(meta)
        kernels = references.get("sirskernel")
        if self.refpix_algorithm == "median" or kernels is None or not readout.full or readout.mode == "miri":
            return readout
        detector = str(meta.get("meta.instrument.detector")).lower()
        tree = {str(name).lower(): value for name, value in kernels.asdf.items()}
        if detector not in tree:
            return readout
        # Left and right side pixels.
        sides = [
            refpix.sirs_kernels(np.array(tree[detector][name]), self.gaussmooth, self.halfwidth)
            for name in ("gamma", "zeta")
        ]
        return replace(readout, kernels=sides)

    def gathers_alone(self, meta: Meta) -> bool:
        # No step before changes reference pixels; others do change in ipc, and so do borders of stripes in its frame.
        # Saturated neighbours do take them out of the first frame.
        if irs2.is_irs2(meta):
            return True
        readout = Readout.of(meta)
        return readout.mode != "stripes" and not readout.edgeless and not meta.get("meta.exposure.zero_frame")

    def gather_windows(self, meta: Meta) -> list[Window]:
        if irs2.is_irs2(meta):
            return irs2.gather_windows(irs2.readout_of(meta))
        return Readout.of(meta).windows()

    def gather_stream(
        self, meta: Meta, prepared: Any, blocks: Callable[..., Iterator[RampBlock]], scratch: str | None = None
    ) -> Gathered | irs2.Gathered | None:
        if isinstance(prepared, irs2.Prepared):
            return irs2.gather(prepared, blocks, scratch)
        integrations, groups = integrations_of(meta), int(meta.get("meta.exposure.ngroups") or 1)
        samples = groups * sum(window.shape[0] * window.shape[1] for window in self.gather_windows(meta))
        step = max(_SAMPLES_HELD // max(samples, 1), 1)
        if prepared.mode == "miri" or step >= integrations:
            return self.gather(meta, prepared, list(blocks()))
        parts = []
        for start in range(0, integrations, step):
            held = list(blocks(slice(start, min(start + step, integrations))))
            parts.append(self.gather(meta, prepared, held, start))
        return _joined([part for part in parts if part is not None])

    def by_integration(self, meta: Meta) -> bool:
        return not irs2.is_irs2(meta)

    def gathered_of(self, gathered: Any, integrations: slice) -> Any:
        if not isinstance(gathered, Gathered):
            return gathered
        return Gathered(
            *(None if part is None else _cut(part, integrations) for part in (gathered.ramp, gathered.zeroframe))
        )

    def gather(self, meta: Meta, prepared: Readout, blocks: list[RampBlock], first: int = 0) -> Gathered | None:
        if not blocks:
            return None
        ramp = self._corrections(prepared, blocks, [block.sci for block in blocks], first, first == 0)
        frames = [block.zeroframe[:, np.newaxis] for block in blocks if block.zeroframe is not None]
        return Gathered(ramp, self._corrections(prepared, blocks, frames, first, False) if frames else None)

    def _corrections(
        self, readout: Readout, blocks: list[RampBlock], values: list[np.ndarray], first: int, first_single: bool
    ) -> Corrections:
        """Corrections of arrays (integration, group, y, x) beside the blocks, the first of integration ``first``."""
        correct = getattr(self, f"_{readout.mode}")
        if self.as_jwst or blocks[0].pixeldq.ndim == 2:
            sections = [_section(readout, block, part) for block, part in zip(blocks, values, strict=True)]
            return correct(readout, sections, first_single)
        superstripes = len(blocks[0].pixeldq)
        of_stripe = [np.arange((k - first) % superstripes, len(values[0]), superstripes) for k in range(superstripes)]
        found = [
            correct(readout, [_section(readout, block, part[own], k) for block, part in zip(blocks, values)], False)
            for k, own in enumerate(of_stripe)
        ]
        order = np.argsort(np.concatenate(of_stripe))
        levels, rows = (np.concatenate([getattr(part, name) for part in found])[order] for name in ("levels", "rows"))
        return Corrections(levels, rows, False)

    def apply(self, block: RampBlock, prepared: Any, gathered: Any = None) -> None:
        if isinstance(prepared, irs2.Prepared):
            irs2.apply(block, prepared, gathered)
            return
        if gathered is None:
            return
        window = block.window
        if prepared.mode == "miri":
            refpix.subtract_interleaved(block.sci, gathered.ramp.levels, window.y0, window.x0, block.sci)
            return
        x = prepared.position("x", np.arange(window.x0, window.x1))
        y = prepared.position("y", np.arange(window.y0, window.y1))
        fast, slow = (x, y) if prepared.fast_along_x else (y, x)
        slow = slow - prepared.first_row
        if slow.max() >= gathered.ramp.rows.shape[-1]:
            raise ValueError("SUBSIZE1 or SUBSIZE2 disagrees with the size of the frame")
        ramp, zero = gathered.ramp, gathered.zeroframe
        along = prepared.fast_along_x
        refpix.subtract_levels(block.sci, ramp.levels, ramp.rows, along, fast, slow, ramp.first_single, block.sci)
        if block.zeroframe is not None and zero is not None:
            unusable = block.zeroframe == 0
            frame = block.zeroframe[:, np.newaxis]
            refpix.subtract_levels(frame, zero.levels, zero.rows, along, fast, slow, zero.first_single, frame)
            # Exact zeros mark unusable values.
            block.zeroframe[unusable] = 0

    def _amplifiers(self, readout: Readout, sections: list[Section], first_single: bool) -> Corrections:
        """Levels of each amplifier, and of each row from the sides."""
        edges = _edges(readout, sections)
        bottom, top, left, right = (edges[name] for name in ("bottom", "top", "left", "right"))
        integrations, groups = sections[0].sci.shape[:2]
        levels = np.zeros((integrations, groups, refpix.AMPLIFIERS, 2))
        amplifiers = 1 if readout.kernels is None else refpix.AMPLIFIERS
        rows = np.zeros((integrations, groups, amplifiers, left.sci.shape[2]))
        corner = (left.row, left.column)
        for integration, group in np.ndindex(integrations, groups):
            # With side pixels, all groups but the very first are corrected in float64.
            single = not self.use_side_ref_pixels or (first_single and integration == 0 and group == 0)
            kind = np.float32 if single else np.float64
            values = [np.ascontiguousarray(edge.sci[integration, group], kind) for edge in (bottom, top, left, right)]
            level = refpix.amplifier_levels(
                values[0],
                values[1],
                bottom.flags,
                top.flags,
                bottom.column,
                self.odd_even_columns,
                self.siglimit,
                single,
            )
            levels[integration, group] = level
            if not self.use_side_ref_pixels:
                continue
            if readout.kernels is not None:
                starts = (left.column, right.column)
                sides = [refpix.without_levels(side, start, level) for side, start in zip(values[2:], starts)]
                sides = [side.astype(np.float64) for side in sides]
                rows[integration, group] = refpix.sirs_row_levels(sides, readout.kernels, self.sigreject)
            else:
                rows[integration, group, 0] = refpix.row_levels(
                    values[2],
                    values[3],
                    left.flags,
                    right.flags,
                    corner,
                    right.column,
                    level,
                    self.side_smoothing_length,
                    self.side_gain,
                )
        return Corrections(levels, rows, self.use_side_ref_pixels and first_single)

    def _single(self, readout: Readout, sections: list[Section], first_single: bool) -> Corrections:
        """One level for the reference pixels of odd columns and one for those of even columns."""
        _, column, flags, order = _in_order(sections)
        wanted = np.uint32(0 if readout.edgeless else dq.REFERENCE_PIXEL)
        order = order[_usable(flags[order], wanted)]
        if self.odd_even_columns:
            choices = [order[column[order] % 2 == parity] for parity in range(2)]
        else:
            choices = [order]
        levels = np.zeros((*sections[0].sci.shape[:2], refpix.AMPLIFIERS, 2))
        for integration, group in np.ndindex(levels.shape[:2]):
            for parity, level in enumerate(self._means(sections, choices, integration, group)):
                if level is not None:
                    levels[integration, group, :, parity if self.odd_even_columns else slice(None)] = level
        size = readout.ny if readout.fast_along_x else readout.nx
        return Corrections(levels, np.zeros((*levels.shape[:2], 1, size)), False)

    def _stripes(self, readout: Readout, sections: list[Section], first_single: bool) -> Corrections:
        """Levels of each amplifier from all reference pixels that the stripes read there."""
        _, column, flags, order = _in_order(sections)
        order = order[_usable(flags[order], np.uint32(dq.REFERENCE_PIXEL))]
        amplifier = column[order] // (refpix.SIZE // refpix.AMPLIFIERS)
        step = 2 if self.odd_even_columns else 1
        choices = [
            order[(amplifier == number) & (column[order] % step == parity)]
            for number in range(refpix.AMPLIFIERS)
            for parity in range(step)
        ]
        levels = np.zeros((*sections[0].sci.shape[:2], refpix.AMPLIFIERS, 2))
        for integration, group in np.ndindex(levels.shape[:2]):
            means = self._means(sections, choices, integration, group)
            for number in range(refpix.AMPLIFIERS):
                own = means[number * step : (number + 1) * step]
                # An amplifier that lacks odd or even columns is left alone.
                if None not in own:
                    levels[integration, group, number] = own
        size = readout.ny if readout.fast_along_x else readout.nx
        return Corrections(levels, np.zeros((*levels.shape[:2], 1, size)), False)

    def _means(
        self, sections: list[Section], choices: list[np.ndarray], integration: int, group: int
    ) -> list[float | None]:
        """Clipped mean of each choice of pixels of a group; None where there are none."""
        values = np.concatenate([part.sci[integration, group].ravel() for part in sections])
        return [
            refpix.clipped_mean(values[choice], choice.size, self.siglimit)[0] if choice.size else None
            for choice in choices
        ]

    def _miri(self, readout: Readout, sections: list[Section], first_single: bool) -> Corrections:
        """Levels of MIRI's four interleaved amplifiers, relative to the first group."""
        left, right = sections
        integrations, groups = left.sci.shape[:2]
        levels = np.zeros((integrations, groups, refpix.AMPLIFIERS, 2))
        for integration, group in np.ndindex(integrations, groups):
            if group == 0:
                continue
            low, high = (
                np.ascontiguousarray(part.sci[integration, group] - part.sci[integration, 0]) for part in sections
            )
            found, usable = refpix.interleaved_levels(
                low, high, left.flags, right.flags, self.odd_even_rows, self.siglimit
            )
            if not usable:
                # Flags do not depend on the group: none can be corrected.
                break
            levels[integration, group] = found
        return Corrections(levels, np.zeros((integrations, groups, 1, 0)), False)


def _cut(corrections: Corrections, integrations: slice) -> Corrections:
    """Corrections of some integrations."""
    first_single = corrections.first_single and integrations.indices(len(corrections.levels))[0] == 0
    return Corrections(corrections.levels[integrations], corrections.rows[integrations], first_single)


def _joined(parts: list[Gathered]) -> Gathered | None:
    """Corrections of successive integrations as one."""

    def join(found: list[Corrections]) -> Corrections:
        levels = np.concatenate([part.levels for part in found])
        if any(part.rows.any() for part in found):
            rows = np.concatenate([part.rows for part in found])
        else:
            # Where there are no levels of rows, zeros that are never written to take no memory.
            rows = np.zeros((len(levels), *found[0].rows.shape[1:]))
        return Corrections(levels, rows, found[0].first_single)

    if not parts:
        return None
    zeroframes = [part.zeroframe for part in parts if part.zeroframe is not None]
    return Gathered(join([part.ramp for part in parts]), join(zeroframes) if zeroframes else None)


def _in_order(sections: list[Section]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and flags of all pixels of the sections, and which of them to take, in the order of the readout."""
    places = [np.indices(part.flags.shape).reshape(2, -1) + [[part.row], [part.column]] for part in sections]
    row, column = np.concatenate(places, axis=1)
    flags = np.concatenate([part.flags.ravel() for part in sections])
    # Corners are in two sections.
    _, order = np.unique(row * refpix.SIZE + column, return_index=True)
    return row, column, flags, order


def _usable(flags: np.ndarray, wanted: np.uint32) -> np.ndarray:
    return ((flags & wanted) == wanted) & ((flags & np.uint32(dq.DO_NOT_USE)) == 0)


def _section(readout: Readout, block: RampBlock, values: np.ndarray, superstripe: int = 0) -> Section:
    """The inner part of a block in detector orientation, with the flags of one of the superstripes."""
    window = block.window
    pixeldq = block.pixeldq if block.pixeldq.ndim == 2 else block.pixeldq[superstripe]
    sci, flags = values[(slice(None), slice(None), *window.inner)], pixeldq[window.inner]
    if readout.mode == "miri":
        return Section(sci, np.ascontiguousarray(flags), window.inner_y0, window.inner_x0)
    axes = readout.fastaxis, readout.slowaxis
    x = readout.position("x", np.array([window.inner_x0, window.inner_x1 - 1])).min()
    y = readout.position("y", np.array([window.inner_y0, window.inner_y1 - 1])).min()
    row, column = (y, x) if readout.fast_along_x else (x, y)
    flags = np.ascontiguousarray(refpix.to_detector(flags, *axes))
    return Section(refpix.to_detector(sci, *axes), flags, int(row), int(column))


def _edges(readout: Readout, sections: list[Section]) -> dict[str, Section]:
    """The sections by edge of the detector; an edge outside the exposure has no rows or columns."""
    integrations, groups = sections[0].sci.shape[:2]
    size = (readout.ny, readout.nx) if readout.fast_along_x else (readout.nx, readout.ny)
    axis = "x" if readout.fast_along_x else "y"
    first_column = int(readout.position(axis, np.array([0, size[1] - 1])).min())
    edges: dict[str, Section] = {}
    last = refpix.SIZE - refpix.BORDER
    for part in sections:
        shape = part.flags.shape
        # A section that spans all columns is at the bottom or top, unless it spans all rows and is at a side.
        if shape[1] == size[1] and (part.row + shape[0] <= refpix.BORDER or part.row >= last):
            edges.setdefault("bottom" if part.row < refpix.BORDER else "top", part)
        if shape[0] == size[0] and (part.column + shape[1] <= refpix.BORDER or part.column >= last):
            edges.setdefault("left" if part.column < refpix.BORDER else "right", part)
    for name in ("bottom", "top", "left", "right"):
        if name not in edges:
            shape = (0, size[1]) if name in ("bottom", "top") else (size[0], 0)
            sci = np.zeros((integrations, groups, *shape), np.float32)
            edges[name] = Section(sci, np.zeros(shape, np.uint32), readout.first_row, first_column)
    return edges
