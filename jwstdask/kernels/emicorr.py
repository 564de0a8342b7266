"""Electromagnetic interference in MIRI ramps: periodic waves, of known frequencies, along the time line of the readout.

A detector reads four columns at once (a packet). Packet p of row r is read ``r * row clocks + p * samples`` clocks of
10 us after the first pixel of its frame; a wave has the same phase wherever the same fraction of its period has passed.

Two ways to find a wave. *Joint*, here: the sums of all good pixels of like phase are fitted by one line each plus the
known waveform; for a trial phase the amplitude follows analytically, so that only the phase must be searched. Lines and
wave are fitted together, hence three groups are enough. *Sequential*: ramps without their lines are folded with the
period of the wave; see `jwstdask.kernels.emicorr_sequential`.

Sums over like phases are all that the fit needs of an exposure: they may be collected block by block.

Source: JWST pipeline documentation, "EMI Correction"; the least-squares problem is linear in amplitude, intercepts and
slopes, and the normal equations of the lines are eliminated as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np

from jwstdask.core.imports import postponed
from jwstdask.kernels.compiled import COMPILED, UNCOUNTED

PACKET = 4
"""Columns read at once."""

BAD_PACKETS = (1, 2)
"""Packets of a row that are not used: their columns are unsteady after the reference pixels."""

TRIALS = 500
"""Trial phases of the joint fit, evenly spaced."""

_CLOCK = 10.0e-6
_FULL_ROWS = 1024.0
_PAD_CLOCKS = 4 + 3.0
_INTEGRATIONS_AT_ONCE = 64
_TIE = 1e-9
"""Relative difference of chi^2 that rounding may make."""
_WRITTEN_OUT = 1000
"""Most integrations fitted together whose last digits are those of jwst."""


@dataclass(frozen=True)
class Readout:
    """When pixels are read.

    Attributes
    ----------
    ny, nx
        Size of the frame.
    groups
        Groups of an integration.
    samples
        Clocks of a packet (NSAMPLES).
    row
        Clocks of a row.
    reset
        Clocks between integrations, beyond those of their groups.
    late_packet
        The last packet of a row holds reference pixels and is read late.
    """

    ny: int
    nx: int
    groups: int
    samples: int
    row: int
    reset: int
    late_packet: bool = False

    @property
    def frame(self) -> float:
        """Clocks of a frame; rows that are not read cost a little too."""
        return self.ny * self.row + (_FULL_ROWS - self.ny) * _PAD_CLOCKS

    @property
    def packets(self) -> int:
        return self.nx // PACKET


def period_in_clocks(frequency: float) -> float:
    """Clocks of 10 us in a period of ``frequency`` [Hz]."""
    return (1.0 / frequency) / _CLOCK


# ----------------------------------------------------------------------------------------------------------------------
# Waves


def _interpolation() -> Callable[..., Any]:
    """scipy's interpolation by splines, without what it needs for other kinds of splines."""
    with postponed("scipy.optimize", "minimize_scalar"):
        from scipy.interpolate import make_interp_spline

    return make_interp_spline


def spline_pieces(wave: np.ndarray) -> np.ndarray:
    """Cubic polynomials that interpolate one period of a wave, given at the middles of equal bins.

    Parameters
    ----------
    wave
        float (bin,), four or more.

    Returns
    -------
    pieces
        float64 (bin + 1, 4): coefficients, constant first, of the distance from the middle of bin j - 1, in bins.
    """
    wave = np.asarray(wave, np.float64)
    extended = np.concatenate([wave[-1:], wave, wave[:1]])
    spline = _interpolation()(np.arange(extended.size), extended, k=3)
    nodes = np.arange(extended.size - 1)
    factorials = (1, 1, 2, 6)
    return np.stack([spline(nodes, nu=order) / factorials[order] for order in range(4)], axis=1)


@numba.njit(**UNCOUNTED)
def _value(pieces, phase):
    """The wave at a phase of 0 to 1."""
    place = phase * (pieces.shape[0] - 1) + 0.5
    piece = int(place)
    d = place - piece
    return pieces[piece, 0] + d * (pieces[piece, 1] + d * (pieces[piece, 2] + d * pieces[piece, 3]))


@numba.njit(**COMPILED)
def wave_at(pieces: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """A wave at phases, of which the whole turns are dropped.

    Parameters
    ----------
    pieces
        From `spline_pieces`.
    phase
        float64, any shape, finite.
    """
    flat = phase.ravel()
    out = np.empty(flat.size)
    for k in range(flat.size):
        out[k] = _value(pieces, flat[k] - np.floor(flat[k]))
    return out.reshape(phase.shape)


def first_phases(readout: Readout, period: float, rows: slice, columns: slice) -> np.ndarray:
    """Phase at which the packets of a block are read in the first group.

    Parameters
    ----------
    readout
        When pixels are read.
    period
        Of the wave [clocks].
    rows, columns
        Of the block in the frame.

    Returns
    -------
    phases
        float64 (y, packet), 0 to 1; the packets are those that have a column in the block.
    """
    y = np.arange(rows.start, rows.stop)[:, np.newaxis]
    packet = np.arange(columns.start // PACKET, (columns.stop - 1) // PACKET + 1)
    return ((y * readout.row + packet * readout.samples) / period) % 1


@dataclass(frozen=True)
class Wave:
    """A wave of the joint fit, found.

    Attributes
    ----------
    period
        [clocks].
    pieces
        From `spline_pieces`.
    step
        Change of phase from group to group.
    phases, amplitudes
        float64 (integration,).
    """

    period: float
    pieces: np.ndarray
    step: float
    phases: np.ndarray
    amplitudes: np.ndarray


def subtract_waves(
    sci: np.ndarray,
    readout: Readout,
    waves: list[Wave],
    rows: slice,
    columns: slice,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Subtract waves, one after the other, each rounded to float32.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    readout
        When pixels are read.
    waves
        From `fit_wave`.
    rows, columns
        Of the block in the frame.
    out
        Array for the result; may be ``sci``.

    Returns
    -------
    out
    """
    if out is None:
        out = sci.copy()
    elif out is not sci:
        out[...] = sci
    for wave in waves:
        first = first_phases(readout, wave.period, rows, columns)
        _subtract_wave(out, columns.start, first, wave.step, wave.phases, wave.amplitudes, wave.pieces)
    return out


@numba.njit(**COMPILED)
def _subtract_wave(sci, x0, first, step, phases, amplitudes, pieces):
    integrations, groups, ny, nx = sci.shape
    lead = x0 % PACKET
    # Whole packets, of which the first and the last may reach beyond the block.
    noise = np.empty(first.shape[1] * PACKET)
    for i in range(integrations):
        if amplitudes[i] == 0:
            continue
        for group in range(groups):
            for y in range(ny):
                for p in range(first.shape[1]):
                    phase = first[y, p] + step * group + phases[i]
                    value = amplitudes[i] * _value(pieces, phase - np.floor(phase))
                    for k in range(PACKET):
                        noise[p * PACKET + k] = value
                row = sci[i, group, y]
                for x in range(nx):
                    row[x] = np.float32(row[x] - noise[x + lead])


# ----------------------------------------------------------------------------------------------------------------------
# Good pixels: those that scatter less than twice the median


@numba.njit(**COMPILED)
def scatter(sci: np.ndarray) -> np.ndarray:
    """Standard deviation of the groups of each ramp, summed in float32 in the order of the groups.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x).

    Returns
    -------
    scatter
        float32 (integration, y, x).
    """
    integrations, groups, ny, nx = sci.shape
    number = np.float32(groups)
    result = np.zeros((integrations, ny, nx), np.float32)
    mean = np.empty(nx, np.float32)
    for i in range(integrations):
        for y in range(ny):
            mean[:] = 0
            for group in range(groups):
                for x in range(nx):
                    mean[x] += sci[i, group, y, x]
            for x in range(nx):
                mean[x] /= number
            row = result[i, y]
            for group in range(groups):
                for x in range(nx):
                    difference = sci[i, group, y, x] - mean[x]
                    row[x] += difference * difference
            for x in range(nx):
                row[x] = np.sqrt(row[x] / number)
    return result


class Median:
    """The median of more positive float32 values than one wants to keep, seen twice.

    The first time they are counted by their upper 16 bits, which bracket the median within 1 %; the second time those
    within the bracket are kept. Exact. All values are counted before any is kept.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(1 << 16, np.int64)
        self._kept: list[np.ndarray] = []

    def count(self, values: np.ndarray) -> None:
        """See values for the first time."""
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32).ravel() >> np.uint32(16)
        self.counts += np.bincount(bits, minlength=self.counts.size)

    @property
    def _ranks(self) -> tuple[int, int]:
        size = int(self.counts.sum())
        return (size - 1) // 2, size // 2

    @cached_property
    def _bins(self) -> tuple[int, int]:
        below = np.cumsum(self.counts)
        low, high = np.searchsorted(below, self._ranks, side="right")
        return int(low), int(high)

    @cached_property
    def bracket(self) -> tuple[np.float32, np.float32]:
        """The median is not less than the first and less than the second; NaN if a value is."""
        infinity = np.float32(np.inf).view(np.uint32) >> np.uint32(16)
        if self.counts[infinity:].any() or not self.counts.any():
            return np.float32(np.nan), np.float32(np.nan)
        low, high = self._bins
        edges = (np.array([low, high + 1], np.uint32) << np.uint32(16)).view(np.float32)
        return edges[0], edges[1]

    def keep(self, values: np.ndarray) -> None:
        """See values for the second time."""
        low, high = self.bracket
        self._kept.append(values[(values >= low) & (values < high)])

    @property
    def value(self) -> np.float32:
        """The median, float32; NaN if a value is."""
        if np.isnan(self.bracket[0]):
            return np.float32(np.nan)
        before = int(self.counts[: self._bins[0]].sum())
        kept = np.sort(np.concatenate(self._kept))
        low, high = (kept[rank - before] for rank in self._ranks)
        return low if low == high else (low + high) / np.float32(2)


# ----------------------------------------------------------------------------------------------------------------------
# Joint fit


class PhaseSums:
    """Sums of good ramps by the phase of their first group, collected block by block.

    Parameters
    ----------
    readout
        When pixels are read.
    period
        Of the wave [clocks].
    integrations
        Integrations of the exposure.
    bins
        Bins of a period.
    median
        Of the scatter, all blocks counted.

    Attributes
    ----------
    sums
        float64 (integration, bin, group).
    counts
        float64 (integration, bin): ramps in each.
    """

    def __init__(self, readout: Readout, period: float, integrations: int, bins: int, median: Median) -> None:
        self.readout, self.period, self.median = readout, period, median
        self.sums = np.zeros((integrations, bins, readout.groups))
        self.counts = np.zeros((integrations, bins))
        self._unsure: list[tuple[np.ndarray, ...]] = []

    def add(self, sci: np.ndarray, pixeldq: np.ndarray, rows: slice, columns: slice) -> None:
        """Add the ramps of a block.

        Parameters
        ----------
        sci
            float32 (integration, group, y, x) [DN].
        pixeldq
            uint32 (y, x): flagged pixels are not used.
        rows, columns
            Of the block in the frame.
        """
        bins = self.counts.shape[1]
        found = scatter(sci)
        self.median.keep(found)
        # Until the median is known to the last bit, so is not which ramps are good.
        low, high = (2 * edge for edge in self.median.bracket)
        first = first_phases(self.readout, self.period, rows, columns)
        index = (first * bins).astype(np.int64)
        _add_ramps(sci, found, pixeldq, low, index, columns.start, self.sums, self.counts)
        packet = np.arange(columns.start, columns.stop) // PACKET
        usable = (pixeldq == 0) & ~np.isin(packet, BAD_PACKETS)
        i, y, x = np.nonzero((found >= low) & (found < high) & usable)
        self._unsure.append((found[i, y, x], i, index[y, packet[x] - packet[0]], sci[i, :, y, x]))

    def finish(self) -> None:
        """Add the ramps that could not be judged before all blocks were seen."""
        limit = 2 * self.median.value
        for found, integration, index, ramps in self._unsure:
            good = found < limit
            np.add.at(self.sums, (integration[good], index[good]), ramps[good])
            np.add.at(self.counts, (integration[good], index[good]), 1)
        self._unsure.clear()


@numba.njit(**UNCOUNTED)
def _add_ramps(sci, found, pixeldq, limit, index, x0, sums, counts):
    integrations, groups, ny, nx = sci.shape
    lead, packet0 = x0 % PACKET, x0 // PACKET
    for i in range(integrations):
        for y in range(ny):
            for x in range(nx):
                p = (x + lead) // PACKET
                if p + packet0 == 1 or p + packet0 == 2 or pixeldq[y, x] != 0 or not found[i, y, x] < limit:
                    continue
                into = sums[i, index[y, p]]
                for group in range(groups):
                    into[group] += sci[i, group, y, x]
                counts[i, index[y, p]] += 1


def fit_wave(sums: PhaseSums, wave: np.ndarray, separately: bool = False, turn: bool = False) -> Wave:
    """Phase and amplitude of a wave that leave the straightest ramps.

    For ramps y of the same first phase, with lines of their own and the wave z(phase) times c, chi^2 is quadratic in c:
    a c^2 + b c + constant. The two coefficients are tabulated for each integration and each of the trial phases.

    Where groups follow each other by half a turn, half a turn more and an amplitude of the other sign fit as well, and
    rounding decides. So what is found at the least chi^2 is computed again as jwst rounds it, unless that is many
    integrations.

    Parameters
    ----------
    sums
        All blocks added, and finished.
    wave
        float (bin,): one period, with as many bins as ``sums`` has.
    separately
        A phase and an amplitude for each integration, not one for all.
    turn
        As for `best_phase`.

    Returns
    -------
    wave
    """
    readout, period = sums.readout, sums.period
    integrations, _, groups = sums.sums.shape
    step = (readout.frame / period) % 1
    leap = step * groups + readout.reset / period
    pieces = spline_pieces(wave)
    a, b = _chi_squared(sums.sums, sums.counts, pieces, step)

    def best(chosen: range) -> tuple[float, float]:
        """Phase of the first integration, and amplitude."""
        trials, numbers = _trial_phases(), np.array(chosen)
        chi_squared, _ = _solve(*_add_integrations(a, b, trials, leap, numbers, turn))
        exact = not turn and numbers.size <= _WRITTEN_OUT and np.isfinite(chi_squared).any()
        if exact:
            equations = _Equations(sums, wave, step, leap, numbers)
            for trial in _around_least(chi_squared):
                chi_squared[trial], _ = equations.solve(trials[trial])
        phase = best_phase(trials, chi_squared, turn)
        if exact:
            return phase, equations.solve(phase)[1]
        _, amplitude = _solve(*_add_integrations(a, b, np.array([phase]), leap, numbers, turn))
        return phase, float(amplitude[0])

    if separately:
        found = [best(range(i, i + 1)) for i in range(integrations)]
        phases = np.array([phase + i * leap for i, (phase, _) in enumerate(found)])
        amplitudes = np.array([amplitude for _, amplitude in found])
    else:
        phase, amplitude = best(range(integrations))
        phases = (phase + np.arange(integrations) * leap) % 1
        amplitudes = np.full(integrations, amplitude)
    return Wave(period, pieces, step, phases, amplitudes)


def _around_least(chi_squared: np.ndarray) -> np.ndarray:
    """Trials that tie for the least chi^2, and the neighbours of these."""
    least = np.nanmin(chi_squared)
    tied = np.flatnonzero(chi_squared <= least + _TIE * abs(least))
    return np.unique((tied[:, np.newaxis] + [-1, 0, 1]) % chi_squared.size)


class _Equations:
    """The normal equations written out, with the operations in the order of jwst.

    Terms cancel in them, so that the last digits of phase and amplitude depend on that order, and with them which way
    groups are rounded.
    """

    def __init__(self, sums: PhaseSums, wave: np.ndarray, step: float, leap: float, integrations: np.ndarray) -> None:
        _, bins, groups = sums.sums.shape
        self.sums, self.leap, self.integrations = sums, leap, integrations
        middles = (np.arange(bins + 2) - 0.5) / bins
        self.spline = _interpolation()(middles, np.concatenate([wave[-1:], wave, wave[:1]]), k=3)
        self.time = np.arange(groups)
        self.phases = ((middles[1:-1, np.newaxis] + self.time * step) % 1).T
        self._waves: dict[int, tuple[np.ndarray, ...]] = {}

    def wave(self, trial: int) -> tuple[np.ndarray, ...]:
        """The wave (bin, group) at a trial phase, and its sums over groups: times 1, t, itself."""
        if trial not in self._waves:
            z = self.spline((self.phases + _trial_phases()[trial]) % 1).T
            self._waves[trial] = z, np.sum(z, axis=1), np.sum(self.time * z, axis=1), np.sum(z**2, axis=1)
        return self._waves[trial]

    def solve(self, phase: float) -> tuple[float, float]:
        """Least chi^2 (less a constant; NaN where there is none) and the amplitude, at a phase."""
        time, groups = self.time, self.time.size
        t, tt = np.sum(time), np.sum(time**2)
        delta = groups * tt - t**2
        a = b = 0.0
        for i in self.integrations:
            z, sum_z, sum_tz, sum_zz = self.wave(_next_trial(phase, self.leap * i, TRIALS))
            y, n = self.sums.sums[i], self.sums.counts[i]
            sum_y, sum_ty = np.sum(y, axis=1), np.sum(y * time, axis=1)
            a += np.sum(n / delta * (-tt * sum_z**2 + 2 * t * sum_z * sum_tz - groups * sum_tz**2 + sum_zz * delta))
            b += (2 / delta) * np.sum(
                tt * sum_z * sum_y - t * sum_tz * sum_y - t * sum_z * sum_ty + groups * sum_tz * sum_ty
            )
            b -= 2 * np.sum(np.sum(z * y, axis=1))
        chi_squared, amplitude = _solve(np.array([a]), np.array([b]))
        return float(chi_squared[0]), float(amplitude[0])


def _trial_phases() -> np.ndarray:
    return np.arange(TRIALS) * 1.0 / TRIALS


def _chi_squared(
    sums: np.ndarray, counts: np.ndarray, pieces: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the square and of the first power of the amplitude, float64 (integration, trial phase).

    A line fitted to the ramps takes what is straight of the wave with it; what is left of the wave, r, gives
    a = sum n r^2 and b = -2 sum r y.
    """
    bins = counts.shape[1]
    phase = (((np.arange(1, bins + 1) - 0.5) / bins)[:, np.newaxis] + np.arange(sums.shape[2]) * step) % 1
    a, b = np.zeros((len(sums), TRIALS)), np.zeros((len(sums), TRIALS))
    for start in range(0, len(sums), _INTEGRATIONS_AT_ONCE):
        part = slice(start, start + _INTEGRATIONS_AT_ONCE)
        _add_bins(sums[part], counts[part], pieces, phase, _trial_phases(), a[part], b[part])
    return a, b


@numba.njit(**COMPILED)
def _add_bins(sums, counts, pieces, phase, trials, a, b):
    integrations, bins, groups = sums.shape
    t, tt = 0.0, 0.0
    for group in range(groups):
        t += group
        tt += group * group
    delta = groups * tt - t * t
    left, ramps = np.empty(groups), np.empty((groups, integrations))
    total_a, total_b = np.zeros((trials.size, integrations)), np.zeros((trials.size, integrations))
    for k in range(bins):
        for i in range(integrations):
            for group in range(groups):
                ramps[group, i] = sums[i, k, group]
        for trial in range(trials.size):
            z, tz = 0.0, 0.0
            for group in range(groups):
                now = phase[k, group] + trials[trial]
                left[group] = _value(pieces, now - np.floor(now))
                z += left[group]
                tz += group * left[group]
            slope, intercept = (groups * tz - t * z) / delta, (tt * z - t * tz) / delta
            squares = 0.0
            for group in range(groups):
                left[group] -= intercept + slope * group
                squares += left[group] * left[group]
            for i in range(integrations):
                total_a[trial, i] += counts[i, k] * squares
            for group in range(groups):
                for i in range(integrations):
                    total_b[trial, i] -= 2 * left[group] * ramps[group, i]
    a[...] = total_a.T
    b[...] = total_b.T


def _solve(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least chi^2 (less a constant; NaN where there is none) and the amplitude."""
    solvable = ~np.isclose(a, 0, atol=1e-8) & np.isfinite(a) & np.isfinite(b)
    amplitude = np.zeros(a.shape)
    amplitude[solvable] = -b[solvable] / (2 * a[solvable])
    return np.where(solvable, a * amplitude**2 + b * amplitude, np.nan), amplitude


@numba.njit(**COMPILED)
def _add_integrations(a, b, phases, leap, integrations, nearest):
    """Coefficients at phases, each integration at the next trial phase, or at the nearest one."""
    trials = a.shape[1]
    total_a, total_b = np.zeros(phases.size), np.zeros(phases.size)
    for p in range(phases.size):
        for i in integrations:
            later = leap * i
            k = (
                int(np.floor((phases[p] + later) * trials + 0.5)) % trials
                if nearest
                else _next_trial(phases[p], later, trials)
            )
            total_a[p] += a[i, k]
            total_b[p] += b[i, k]
    return total_a, total_b


@numba.njit(**UNCOUNTED)
def _next_trial(phase, later, trials):
    """Index of the trial phase that follows ``phase + later`` most closely, at distances as rounded by `numpy.mod`."""
    guess = int(np.ceil((phase + later) * trials))
    best, least = -1, np.inf
    for near in range(guess - 2, guess + 3):
        k = near % trials
        away = k * 1.0 / trials - phase - later
        away -= np.floor(away)
        if away < least or (away == least and k < best):
            best, least = k, away
    return best


def best_phase(phases: np.ndarray, chi_squared: np.ndarray, turn: bool = False) -> float:
    """Phase of the least chi^2: the vertex of the parabola through the least of all and its neighbours.

    Parameters
    ----------
    phases
        float64 (trial,), of one turn, in order.
    chi_squared
        float64 (trial,); NaN where there is none.
    turn
        Take the neighbour beyond the end of the turn for what it is; otherwise it keeps its phase at the other end, as
        in jwst, and the vertex is far from both.

    Returns
    -------
    phase
        The first of ``phases`` if there is no chi^2, the one of least chi^2 if there is no parabola.
    """
    if not np.isfinite(chi_squared).any():
        return float(phases[0])
    least = int(np.nanargmin(chi_squared))
    around = [least - 1, least, (least + 1) % phases.size]
    if not np.isfinite(chi_squared[around]).all() or np.std(chi_squared[around]) == 0:
        return float(phases[least])
    x = phases[around]
    if turn:
        x = x + [-float(x[0] > x[1]), 0, float(x[2] < x[1])]
    square, linear, _ = np.polyfit(x, chi_squared[around], 2)
    return float(-linear / (2 * square)) if square != 0 else float(phases[least])
