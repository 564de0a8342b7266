"""Electromagnetic interference in MIRI ramps, found the sequential way: by folding with the period of the wave.

A line and a bias are removed from each ramp, what is left is folded with the period of the wave, and the folded wave,
or the reference wave shifted to it, is tabulated at the clocks of a period and subtracted. Readout and phases are those
of `jwstdask.kernels.emicorr`, which has the other way: a fit of lines and wave together.

Source: JWST pipeline documentation, "EMI Correction", algorithm sequential.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np

from jwstdask.kernels.compiled import COMPILED, UNCOUNTED
from jwstdask.kernels.emicorr import BAD_PACKETS, PACKET, Readout

_MOST_BINS = 500
_MOST_CLIPS = 5
_CLIP = 3.0


@numba.njit(**COMPILED)
def residuals(ramp: np.ndarray) -> np.ndarray:
    """What is left of the ramps of an integration without line and bias, averaged over the columns of each packet.

    The line is fitted to all groups but the first and the last; the bias is their median (the least of one or two).

    Parameters
    ----------
    ramp
        float32 (group, y, x) [DN], x beginning with the first column of a packet.

    Returns
    -------
    residuals
        float32 (group, y, packet). NaN where fewer than two groups are fitted.
    """
    groups, ny, nx = ramp.shape
    packets = nx // PACKET
    result = np.empty((groups, ny, packets), np.float32)
    inner = groups - 2
    t = inner * (inner - 1) / 2.0
    tt = (inner - 1) * inner * (2 * inner - 1) / 6.0
    clean = np.empty((PACKET, groups), np.float32)
    for row in range(ny):
        for p in range(packets):
            for k in range(PACKET):
                x = p * PACKET + k
                ty, y = 0.0, 0.0
                for j in range(inner):
                    ty += j * ramp[j + 1, row, x]
                    y += ramp[j + 1, row, x]
                slope = (inner * ty - t * y) / (inner * tt - t * t)
                for group in range(groups):
                    clean[k, group] = np.float32(ramp[group, row, x] - slope * group)
                bias = _median(clean[k, 1 : groups - 1])
                for group in range(groups):
                    clean[k, group] -= bias
            for group in range(groups):
                total = clean[0, group] + clean[1, group] + clean[2, group] + clean[3, group]
                result[group, row, p] = total / np.float32(PACKET)
    return result


@numba.njit(**COMPILED)
def _median(values):
    if np.isnan(values).any():
        return np.float32(np.nan)
    ordered = np.sort(values)
    size = ordered.size
    if size <= 2:
        return ordered[0]
    if size % 2:
        return ordered[size // 2]
    return (ordered[size // 2 - 1] + ordered[size // 2]) / np.float32(2)


def whole_residuals(parts: np.ndarray) -> np.ndarray:
    """Residuals of whole frames: packets that cannot be trusted replaced, the median of each frame subtracted.

    Parameters
    ----------
    parts
        float32 (integration, group, y, packet) from `residuals`; changed in place.
    """
    good = (parts[..., 0] + parts[..., 3]) / np.float32(2)
    for packet in BAD_PACKETS:
        parts[..., packet] = good
    for frame in parts.reshape(-1, *parts.shape[-2:]):
        frame -= np.median(frame)
    return parts


@numba.njit(**UNCOUNTED)
def _clock(i, group, y, p, groups, frame, row, samples, reset, last):
    """Clocks since the first pixel of the exposure."""
    clock = (i * groups + group) * frame + i * reset + y * row + p * samples
    # The packet is three samples late. jwst makes it 2^32 clocks more, which its products show.
    return clock + ((3 + 4294967296) if p == last else 0)


def _clock_numbers(readout: Readout) -> tuple[int, int, int, int, int, int]:
    last = readout.packets - 1 if readout.late_packet else -1
    return readout.groups, int(readout.frame), readout.row, readout.samples, readout.reset, last


def folding_bins(period: float, bins: int | None) -> int:
    """Bins of a folded wave: half the clocks of a period where ``bins`` does not say, at most 501."""
    number = int(period / 2.0) if bins is None else bins
    return _MOST_BINS if number > _MOST_BINS + 1 else number


def fold(values: np.ndarray, readout: Readout, period: float, bins: int) -> np.ndarray:
    """Wave of residuals folded with a period: the clipped mean of each bin, less their median.

    Parameters
    ----------
    values
        float32 (integration, group, y, packet) from `whole_residuals`, from the first integration on.
    readout
        When pixels are read.
    period
        [clocks].
    bins
        Bins of a period. A value lies in the bin whose upper edge it does not exceed; at phase 0 it lies in none.

    Returns
    -------
    wave
        float64 (bin,) [DN].
    """
    edges = np.arange(bins + 1) / bins
    index = _bin_index(values.shape, _clock_numbers(readout), period, edges)
    grouped, starts = _group_by_bin(values.ravel(), index.ravel(), bins)
    wave = np.array([clipped_mean(grouped[start:stop]) for start, stop in pairwise(starts)])
    return wave - np.median(wave)


@numba.njit(**COMPILED)
def _bin_index(shape, numbers, period, edges):
    groups, frame, row, samples, reset, last = numbers
    bins = edges.size - 1
    result = np.empty(shape, np.int16)
    for i in range(shape[0]):
        for group in range(shape[1]):
            for y in range(shape[2]):
                for p in range(shape[3]):
                    turns = _clock(i, group, y, p, groups, frame, row, samples, reset, last) / period
                    phase = turns - np.floor(turns)
                    k = min(int(phase * bins), bins - 1)
                    while k >= 0 and phase <= edges[k]:
                        k -= 1
                    while k >= 0 and phase > edges[k + 1]:
                        k += 1
                    result[i, group, y, p] = k
    return result


@numba.njit(**COMPILED)
def _group_by_bin(values, index, bins):
    """Values by bin, in order within each, and where the bins start."""
    starts = np.zeros(bins + 1, np.int64)
    for k in index:
        if k >= 0:
            starts[k + 1] += 1
    starts = np.cumsum(starts)
    place = starts[:-1].copy()
    grouped = np.empty(starts[-1], values.dtype)
    for j in range(values.size):
        k = index[j]
        if k >= 0:
            grouped[place[k]] = values[j]
            place[k] += 1
    return grouped, starts


def clipped_mean(values: np.ndarray) -> float:
    """Mean without what lies more than three standard deviations from the median, five times at most; NaN if empty.

    Parameters
    ----------
    values
        float (value,); what is not finite is left out.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    for _ in range(_MOST_CLIPS):
        if values.size == 0:
            return np.nan
        middle, width = np.median(values), _CLIP * np.std(values)
        kept = values[(values >= middle - width) & (values <= middle + width)]
        if kept.size == values.size:
            break
        values = kept
    return float(np.mean(values)) if values.size else np.nan


def resampled(wave: np.ndarray, size: float) -> np.ndarray:
    """A wave of another length, each value taken from the place at or before its own.

    Parameters
    ----------
    wave
        (bin,).
    size
        Wanted length; the result has the next integer.
    """
    step = wave.size / size
    return wave[(np.arange(int(np.ceil(wave.size / step))) * step).astype(np.int64)]


def noise_table(wave: np.ndarray, period: float, reference: np.ndarray | None = None, scale: bool = True) -> np.ndarray:
    """What is subtracted at each clock of a period.

    Parameters
    ----------
    wave
        From `fold`.
    period
        [clocks].
    reference
        (bin,) wave to subtract instead, turned to where it correlates best with ``wave``; None for ``wave`` itself.
    scale
        Stretch the reference by the slope of the wave over it.

    Returns
    -------
    table
        float64 (clock,) [DN], finite.
    """
    table = resampled(wave, period)
    if reference is not None:
        reference = np.asarray(reference, np.float64)
        own = resampled(wave, reference.size)
        with np.errstate(invalid="ignore", divide="ignore"):
            correlation = [np.corrcoef(np.roll(reference, turn), own)[0, 1] for turn in range(reference.size)]
        turned = resampled(np.roll(reference, int(np.argmax(correlation))), period)
        if scale:
            turned = turned * np.polyfit(turned, table, 1)[0]
        table = turned
    return np.where(np.isfinite(table), table, 0.0)


@dataclass(frozen=True)
class Table:
    """A wave of the sequential way: its period [clocks] and `noise_table`."""

    period: float
    values: np.ndarray


def subtract_tables(
    sci: np.ndarray,
    readout: Readout,
    tables: list[Table],
    rows: slice,
    columns: slice,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Subtract tabulated waves, one after the other, each rounded to float32; see `emicorr.subtract_waves`."""
    if out is None:
        out = sci.copy()
    elif out is not sci:
        out[...] = sci
    for table in tables:
        _subtract_table(out, rows.start, columns.start, _clock_numbers(readout), table.period, table.values)
    return out


@numba.njit(**COMPILED)
def _subtract_table(sci, y0, x0, numbers, period, table):
    groups, frame, row, samples, reset, last = numbers
    integrations, _, ny, nx = sci.shape
    lead, packet0 = x0 % PACKET, x0 // PACKET
    packets = (nx + lead + PACKET - 1) // PACKET
    noise = np.empty(packets * PACKET)
    for i in range(integrations):
        for group in range(groups):
            for y in range(ny):
                for p in range(packets):
                    clock = _clock(i, group, y + y0, p + packet0, groups, frame, row, samples, reset, last)
                    turns = clock / period
                    value = table[min(int((turns - np.floor(turns)) * period), table.size - 1)]
                    for k in range(PACKET):
                        noise[p * PACKET + k] = value
                line = sci[i, group, y]
                for x in range(nx):
                    line[x] = np.float32(line[x] - noise[x + lead])
