"""What the steps of Stage 1 do with ramps read in IRS2 mode, where reference samples lie between the pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core import dq
from jwstdask.core.block import RampBlock, Window
from jwstdask.core.errors import PlanError, ReferenceFileError
from jwstdask.core.step import Meta
from jwstdask.io.temporary import FileArray
from jwstdask.kernels import irs2
from jwstdask.kernels.irs2 import Readout

_BAD = np.uint32(dq.BAD_REF_PIXEL | dq.DO_NOT_USE)

_EDGE = irs2.EDGE

_NEIGHBOURS = 2
"""Rows of pixels on each side that steps before need, as the halo of ipc."""

_BAND = 32
"""Rows of the reference output that are gathered at a time."""


def is_irs2(meta: Meta) -> bool:
    """Whether an exposure was read in IRS2 mode."""
    return "IRS2" in str(meta.get("meta.exposure.readpatt", ""))


def readout_of(meta: Meta) -> Readout:
    """How an IRS2 exposure was read.

    Raises
    ------
    PlanError
        If it is no full frame of NIRSpec, or its samples have another pattern than those of any detector.
    """
    detector = meta.get("meta.instrument.detector")
    readout = Readout(
        int(meta.get("meta.exposure.nrs_normal") or 16),
        int(meta.get("meta.exposure.nrs_reference") or 4),
        detector == "NRS2",
    )
    if detector not in ("NRS1", "NRS2"):
        raise PlanError(f"detector {detector} has no IRS2 mode", "Correct DETECTOR or READPATT.")
    if irs2.WIDTH % readout.normal or readout.reference % 2 or readout.normal < 2 * readout.reference:
        raise PlanError(
            f"IRS2 readout with {readout.normal} pixels and {readout.reference} reference samples is not supported",
            "Correct NRS_NORM and NRS_REF.",
        )
    return readout


def kept_rows(meta: Meta) -> np.ndarray | None:
    """Rows of the file that hold pixels of the detector, int64; None if all do."""
    return readout_of(meta).science if is_irs2(meta) else None


def local_rows(rows: np.ndarray, window: Window) -> tuple[slice, np.ndarray]:
    """Which of ``rows`` are in a window: their range, and their places in the window."""
    first, last = np.searchsorted(rows, (window.y0, window.y1))
    return slice(int(first), int(last)), rows[first:last] - window.y0


def without_references(block: RampBlock, readout: Readout, sci: np.ndarray | None = None) -> None:
    """Drop the rows of reference samples from a block, whose window becomes one of the detector's frame.

    Parameters
    ----------
    block
        Changed in place.
    readout
        Of the exposure.
    sci
        What becomes of the pixels; they stay what they are if None.
    """
    window = block.window
    _, places = local_rows(readout.science, window)
    bounds = np.searchsorted(readout.science, (window.y0, window.y1, window.inner_y0, window.inner_y1))
    y0, y1, inner_y0, inner_y1 = (int(bound) for bound in bounds)
    block.window = Window(y0, y1, window.x0, window.x1, inner_y0, inner_y1, window.inner_x0, window.inner_x1)
    # Unlike an index among slices, `take` keeps the order of the axes in memory.
    block.sci = np.take(block.sci, places, axis=2) if sci is None else sci
    block.groupdq, block.pixeldq = np.take(block.groupdq, places, axis=2), block.pixeldq[places]
    if block.zeroframe is not None:
        block.zeroframe = np.take(block.zeroframe, places, axis=1)


@dataclass(frozen=True)
class Weights:
    """Weights of the reference output (alpha) and of the interleaved samples (beta) in a reference file."""

    reference: Any

    def of(self, name: str, readout: Readout) -> Iterator[np.ndarray]:
        """``alpha`` or ``beta`` of each output, complex64 (sample,): real and imaginary parts alternate in the file.

        Raises
        ------
        ReferenceFileError
            If the table does not fit the readout.
        """
        expected = 2 * readout.line * irs2.SIZE
        for number in range(irs2.OUTPUTS - 1):
            values = self.reference.column("irs2", f"{name}_{number}")
            if values.size != expected:
                raise ReferenceFileError(
                    self.reference.path,
                    f"the table IRS2 has {values.size} rows where {expected} are needed",
                    "Use a reference for this readout.",
                )
            yield np.ascontiguousarray(values, np.float32).view(np.complex64)

    def bad(self, readout: Readout) -> list[list[int]]:
        """Rows of bad reference samples, of each entry of the file's list."""
        if "dq" not in self.reference:
            return []
        table = self.reference.table("dq")
        return irs2.listed_rows(readout, table["output"], table["odd_even"], table["mask"])


@dataclass(frozen=True)
class Prepared:
    """How an IRS2 exposure is corrected; without weights, bad reference samples are replaced and that is all."""

    readout: Readout
    weights: Weights | None
    n_sigma: float
    preserve: bool
    levels: bool
    odd_even_columns: bool
    siglimit: float


@dataclass(frozen=True)
class Gathered:
    """The correction of an exposure.

    Attributes
    ----------
    bad
        bool (row,), rows of the file whose reference samples were found to be bad.
    levels
        float64 (integration, group, row) [DN], subtracted first.
    intercept, slope
        float32 (integration, group, output) [DN, DN per sample].
    correction
        float32 (integration, group, y, x) [DN], subtracted last. Where reference samples are preserved, y counts rows
        of the file, and those of reference samples hold their final values.
    replaced
        int64 (row,), increasing: bad rows of the file that hold pixels.
    values
        float32 (row, integration, group, x) [DN], what takes the place of these rows, levels subtracted; None if there
        are none.
    """

    bad: np.ndarray
    levels: np.ndarray
    intercept: np.ndarray
    slope: np.ndarray
    correction: FileArray
    replaced: np.ndarray
    values: FileArray | None


def gather_windows(readout: Readout) -> list[Window]:
    """Windows of all reference samples and of the border of reference pixels, then those of all pixels.

    Those of pixels hold their neighbours beyond the reference samples, too, which are not in their inner part.
    """
    frame, reach = (readout.rows, irs2.SIZE), readout.reference + _NEIGHBOURS
    bands = _bands(_runs(readout.science))
    pixels = [Window.around(band.y0, band.y1, 0, irs2.SIZE, reach, frame) for band in bands]
    return _reference_windows(readout) + pixels


def _reference_windows(readout: Readout) -> list[Window]:
    rows = _bands([*_runs(readout.held), readout.science[:_EDGE], readout.science[-_EDGE:]])
    columns = [Window.plain(0, readout.rows, start, start + _EDGE) for start in (0, irs2.SIZE - _EDGE)]
    return rows + columns


def _runs(rows: np.ndarray) -> list[np.ndarray]:
    """Successive rows."""
    return np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)


def _bands(runs: list[np.ndarray]) -> list[Window]:
    return [
        Window.plain(start, min(start + _BAND, int(run[-1]) + 1), 0, irs2.SIZE)
        for run in runs
        for start in range(int(run[0]), int(run[-1]) + 1, _BAND)
    ]


@dataclass
class _Samples:
    """Reference samples (integration, group, held row, column), border (integration, group, row, 8), their flags."""

    held: FileArray
    border: np.ndarray
    border_dq: np.ndarray
    flagged: np.ndarray

    @classmethod
    def of(cls, readout: Readout, blocks: Iterator[RampBlock], scratch: str | None) -> _Samples:
        found: _Samples | None = None
        for block in blocks:
            window, (integrations, groups) = block.window, block.sci.shape[:2]
            if found is None:
                found = cls(
                    FileArray(scratch, (integrations, groups, readout.held.size, irs2.SIZE)),
                    np.empty((integrations, groups, readout.rows, 2 * _EDGE), np.float32),
                    np.zeros((readout.rows, 2 * _EDGE), np.uint32),
                    np.zeros(readout.rows, np.bool_),
                )
            found.flagged[window.rows] |= ((block.pixeldq & np.uint32(dq.BAD_REF_PIXEL)) != 0).any(axis=1)
            if window.shape[1] == _EDGE:
                columns = slice(0, _EDGE) if window.x0 == 0 else slice(_EDGE, None)
                found.border[..., columns] = block.sci
                found.border_dq[:, columns] = block.pixeldq
            else:
                held, places = local_rows(readout.held, window)
                if places.size:
                    # The rows of a window are either all held or none.
                    for each in np.ndindex(integrations, groups):
                        found.held.write((*each, held.start), block.sci[each])
        assert found is not None
        return found


def gather(prepared: Prepared, blocks: Callable[..., Iterator[RampBlock]], scratch: str | None) -> Gathered:
    """The correction of an exposure, one group after another.

    Parameters
    ----------
    prepared
        How to correct.
    blocks
        Walks over chosen ones of :func:`gather_windows`; those of pixels only if rows of pixels are bad.
    scratch
        Folder of temporary files; None for none.
    """
    readout = prepared.readout
    samples = _Samples.of(readout, blocks(chosen=set(_reference_windows(readout)).__contains__), scratch)
    held, border = samples.held.array, samples.border
    integrations, groups = border.shape[:2]
    bad = _bad_rows(prepared, held, samples.flagged)
    levels = np.zeros((integrations, groups, readout.rows))
    if prepared.levels:
        samples.border_dq[bad] |= _BAD
        for each in np.ndindex(integrations, groups):
            levels[each] = irs2.edge_levels(
                border[each],
                samples.border_dq,
                readout,
                prepared.odd_even_columns,
                prepared.siglimit,
                dq.DO_NOT_USE,
            )
            held[each] -= levels[each][readout.held, np.newaxis].astype(np.float32)
            border[each] -= levels[each][:, np.newaxis].astype(np.float32)
    index = np.full(readout.rows, -1)
    index[readout.held] = np.arange(readout.held.size)
    replaced, values = np.flatnonzero(bad & (index < 0)), None
    for number, plan in enumerate(_replacements(prepared, bad)):
        if number == 0 and replaced.size:
            lost = [item for item in plan if index[item[0]] < 0]
            values = _replaced_pixels(lost, blocks, held, index, levels, scratch)
        irs2.replace_rows(held, plan, index)
        irs2.replace_rows(border, plan, np.arange(readout.rows))
    border[:, :, readout.held, :_EDGE] = held[..., :_EDGE]
    border[:, :, readout.held, _EDGE:] = held[..., -_EDGE:]
    if prepared.weights is None:
        found = _uncorrected(readout, held, scratch)
    else:
        found = _corrected(prepared, prepared.weights, held, border, scratch)
    return Gathered(bad, levels, *found, replaced, values)


def _replaced_pixels(
    plan: list[tuple[int, tuple[int, ...]]],
    blocks: Callable[..., Iterator[RampBlock]],
    held: np.ndarray,
    index: np.ndarray,
    levels: np.ndarray,
    scratch: str | None,
) -> FileArray:
    """What takes the place of rows of pixels, as in :class:`Gathered`.

    jwst replaces them like reference samples where a reference pixel of the border is bad, and flags all of them. Flags
    of bad reference pixels elsewhere, where there are none, are not looked at.
    """
    integrations, groups = held.shape[:2]
    found = FileArray(scratch, (len(plan), integrations, groups, irs2.SIZE))
    values = found.array
    wanted: dict[int, list[int]] = {}
    for number, (_, sources) in enumerate(plan):
        for source in sources:
            if index[source] < 0:
                wanted.setdefault(source, []).append(number)
            else:
                values[number] += held[:, :, index[source]]
    for block in blocks(
        chosen=lambda window: (
            window.shape[1] == irs2.SIZE and any(row in wanted for row in range(window.inner_y0, window.inner_y1))
        )
    ):
        window = block.window
        for place, row in enumerate(range(window.inner_y0, window.inner_y1), window.inner_y0 - window.y0):
            # A row of the border may come again.
            for number in wanted.pop(row, ()):
                level = levels[:, :, row, np.newaxis]
                values[number] += (block.sci[:, :, place] - level).astype(np.float32)
    for number, (_, sources) in enumerate(plan):
        if len(sources) > 1:
            values[number] /= np.float32(2)
    return found


def _bad_rows(prepared: Prepared, held: np.ndarray, flagged: np.ndarray) -> np.ndarray:
    """Rows known to be bad or suspicious in an integration, bool (row,)."""
    readout, found = prepared.readout, flagged.copy()
    for pairs in readout.pairs:
        first = int(pairs[0]) // readout.section * readout.section
        rows = readout.held[(readout.held >= first) & (readout.held < first + readout.section)]
        places = slice(*np.searchsorted(readout.held, (first, first + readout.section)))
        for integration in held:
            starts = np.searchsorted(rows, pairs)
            found[rows] |= irs2.suspicious_rows(integration[:, places], starts, flagged[rows], prepared.n_sigma)
    return found


def _replacements(prepared: Prepared, bad: np.ndarray) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
    """What replaces the bad rows, then those that the reference lists besides."""
    readout = prepared.readout
    yield irs2.replacements(readout, bad, np.flatnonzero(bad))
    known = bad.copy()
    for rows in [] if prepared.weights is None else prepared.weights.bad(readout):
        fresh = [row for row in rows if not known[row]]
        known[rows] = True
        yield irs2.replacements(readout, known, fresh, -1 if readout.flipped else 1)


def _uncorrected(readout: Readout, held: np.ndarray, scratch: str | None) -> tuple[np.ndarray, np.ndarray, FileArray]:
    """Lines of zeros, and the reference samples as they are."""
    integrations, groups = held.shape[:2]
    fits = np.zeros((2, integrations, groups, irs2.OUTPUTS), np.float32)
    final = FileArray(scratch, (integrations, groups, readout.rows, irs2.SIZE))
    final.array[:, :, readout.held] = held
    return fits[0], fits[1], final


def _corrected(
    prepared: Prepared, weights: Weights, held: np.ndarray, border: np.ndarray, scratch: str | None
) -> tuple[np.ndarray, np.ndarray, FileArray]:
    """Intercepts and slopes of the lines that are subtracted, and the correction."""
    readout = prepared.readout
    integrations, groups = held.shape[:2]
    output, time = readout.output[readout.held], readout.time[readout.held]
    fits = np.zeros((2, integrations, groups, irs2.OUTPUTS), np.float32)
    rows = np.arange(readout.rows) if prepared.preserve else readout.science
    correction = FileArray(scratch, (integrations, groups, rows.size, irs2.SIZE))
    rows_of = [np.flatnonzero(readout.output[rows] == number) for number in range(1, irs2.OUTPUTS)]
    work = irs2.Correction(readout, weights.of("alpha", readout), weights.of("beta", readout))
    difference = np.empty(held.shape[2:], np.float32)
    # Rows of the reference output are filled in below.
    out = np.zeros(correction.shape[2:] if prepared.preserve else 0, np.float32)
    for integration in range(integrations):
        mean = irs2.mean_over_groups(held[integration])
        border_mean = irs2.mean_over_groups(border[integration])
        for group in range(groups):
            each = integration, group
            intercept, slope = irs2.line_fit((border[each] - border_mean).astype(np.float32), readout)
            fits[0][each], fits[1][each] = intercept, slope
            irs2.subtract_mean(held[each], mean, output, time, readout.start, intercept, slope, difference)
            work.prepare(difference)
            for number, places in enumerate(rows_of, 1):
                for part, found in work.compute(difference, number, readout.time[rows[places]]):
                    if prepared.preserve:
                        out[places[part]] = found
                    else:
                        correction.write((*each, int(places[part.start])), found)
            if prepared.preserve:
                final = difference - out[readout.held]
                rest = output == 0
                final[rest] = work.filled(readout.time[readout.held[rest]]) + mean[rest]
                out[readout.held] = final
                correction.write(each, out)
    return fits[0], fits[1], correction


def apply(block: RampBlock, prepared: Prepared, gathered: Gathered | None) -> None:
    """Correct a block, if there is a correction, and drop its reference samples, unless they are preserved."""
    readout, window = prepared.readout, block.window
    if gathered is None:
        if not prepared.preserve:
            without_references(block, readout)
        return
    science, places = local_rows(readout.science, window)
    rows = readout.science[science]
    block.pixeldq[gathered.bad[window.rows]] |= _BAD
    correction, levels = gathered.correction.array, gathered.levels[:, :, rows]
    first, last = np.searchsorted(gathered.replaced, (window.y0, window.y1))
    if gathered.values is not None and first < last:
        replaced = gathered.replaced[first:last]
        values = gathered.values.array[first:last, ..., window.columns]
        block.sci[:, :, replaced - window.y0] = np.moveaxis(values, 0, 2)
        levels[:, :, np.searchsorted(rows, replaced)] = 0
    if prepared.weights is None:
        sci = (block.sci[:, :, places] - levels[..., np.newaxis]).astype(np.float32)
    else:
        sci = np.empty((*block.sci.shape[:2], rows.size, window.shape[1]), np.float32)
        irs2.subtract(
            block.sci,
            places,
            levels,
            readout.output[rows],
            readout.time[rows],
            readout.start[window.columns],
            gathered.intercept,
            gathered.slope,
            correction[:, :, rows if prepared.preserve else science, window.columns],
            sci,
        )
    if prepared.preserve:
        held, others = local_rows(readout.held, window)
        block.sci[:, :, places] = sci
        block.sci[:, :, others] = correction[:, :, readout.held[held], window.columns]
    else:
        without_references(block, readout, sci)
