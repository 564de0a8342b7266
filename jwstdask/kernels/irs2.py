"""Correction of NIRSpec ramps read in IRS2 mode with the interleaved reference pixels and the reference output.

In IRS2 mode the readout steps out to reference pixels after every 16 samples and reads a fifth output along with the
four of the detector. Rows of the file then mix light-sensitive pixels (2048 rows with their border) with reference
samples. In the order of time, with the gaps in which nothing was sampled, noise that drifts and oscillates is common to
all of them; a fit in frequency space, measured on darks, predicts that of the pixels from that of the references.

"Section": the rows of one output in the file, numbered from 0, the reference output, in the order of the detector. For
each section, "sample" counts in the order of the readout, which runs alternately up and down. A "line" is all that is
read while the slow direction stands still: one detector row, which is one column of the file.

Source: Rauscher et al., PASP 129, 105003 (2017), "Improved Reference Sampling and Subtraction"; Moseley et al., Proc.
SPIE 7742, 77421B (2010).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numba
import numpy as np

from jwstdask.kernels.compiled import COMPILED, UNCOUNTED
from jwstdask.kernels.fourier import Lines, product
from jwstdask.kernels.refpix import clipped_mean
from jwstdask.kernels.runs import flat

SIZE = 2048
"""Rows and columns of the detector."""

OUTPUTS = 5
"""Outputs: the reference output and four of the detector."""

WIDTH = 512
"""Pixels of an output in a line."""

PAUSE = 8
"""Samples that the pause at the end of a line would take."""

EDGE = 4
"""Width of the border of reference pixels of the detector."""

_REACH = 15
"""Samples on each side from which a gap is interpolated."""


@dataclass(frozen=True)
class Readout:
    """Which row of the file is what, and when it is read.

    Attributes
    ----------
    normal, reference
        Pixels between two jumps to reference pixels, and reference samples taken at each (NRS_NORM, NRS_REF).
    flipped
        The rows of the file run against the columns of the detector, and its columns against the rows (NRS2).
    """

    normal: int = 16
    reference: int = 4
    flipped: bool = False

    @property
    def section(self) -> int:
        """Rows of an output."""
        return WIDTH // self.normal * (self.normal + self.reference)

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return OUTPUTS * self.section

    @property
    def line(self) -> int:
        """Samples of a line with all gaps."""
        return (self.normal + self.reference + 2) * WIDTH // self.normal + PAUSE

    @cached_property
    def output(self) -> np.ndarray:
        """Section of each row, int64 (row,)."""
        column = np.arange(self.rows)
        return (column[::-1] if self.flipped else column) // self.section

    @cached_property
    def sample(self) -> np.ndarray:
        """Place of each row in the readout of its section, int64 (row,)."""
        column = np.arange(self.rows)
        place = (column[::-1] if self.flipped else column) % self.section
        return np.where(self.output % 2 == 1, place, self.section - 1 - place)

    @cached_property
    def interleaved(self) -> np.ndarray:
        """Whether a row was read at a jump to the reference pixels, bool (row,)."""
        phase = (self.sample - self.normal // 2) % (self.normal + self.reference)
        return phase < self.reference

    @cached_property
    def time(self) -> np.ndarray:
        """When a row is read, in samples from the start of a line, int64 (row,)."""
        since = self.sample - self.normal // 2
        jumps = since // (self.normal + self.reference)
        return self.sample + np.where(self.interleaved, 2 * jumps + 1, 2 * (jumps + 1))

    @cached_property
    def science(self) -> np.ndarray:
        """Rows of the file that hold the detector's pixels, int64 (2048,)."""
        return np.flatnonzero(~self.interleaved & (self.output > 0))

    @cached_property
    def held(self) -> np.ndarray:
        """Rows of the file that hold reference samples, int64: those of the reference output and interleaved ones."""
        return np.flatnonzero(self.interleaved | (self.output == 0))

    @cached_property
    def start(self) -> np.ndarray:
        """When the line of a column of the file begins, float32 (column,), in samples from the middle of the frame."""
        line = np.arange(SIZE)[::-1] if self.flipped else np.arange(SIZE)
        return (line * self.line - 0.5 * (SIZE * self.line - 1)).astype(np.float32)

    @cached_property
    def pairs(self) -> np.ndarray:
        """First rows of pairs of successive reference samples, int64 (output, pair), in the order of the file.

        The first axis is in the order of the file, too.
        """
        rows = np.flatnonzero(self.interleaved).reshape(OUTPUTS, -1)
        return rows[:, ::2]

    @cached_property
    def parity(self) -> np.ndarray:
        """Whether a row belongs to the odd columns of the detector, bool (row,)."""
        column = np.arange(self.rows)
        odd = column % 2 == 0
        # Reference samples come in pairs: the first pair is odd, the second even.
        interleaved = self.interleaved[::-1] if self.flipped else self.interleaved
        odd = np.where(interleaved, column % 4 < 2, odd)
        return odd[::-1] if self.flipped else odd


# ----------------------------------------------------------------------------------------------------------------------
# Bad reference samples


def suspicious_rows(samples: np.ndarray, starts: np.ndarray, flagged: np.ndarray, n_sigma: float) -> np.ndarray:
    """Rows of an output whose reference samples stand out in an integration.

    Pairs of successive samples are judged by the mean absolute difference within the pair, their mean and their
    standard deviation; those above the clipped mean over the pairs of the output are suspicious.

    Parameters
    ----------
    samples
        float32 (group, row, column) [DN], a view into rows of the file.
    starts
        First rows of the pairs, counted in ``samples``.
    flagged
        bool (row,), rows known to be bad, whose pairs do not count.
    n_sigma
        Rejection limit [standard deviations].

    Returns
    -------
    numpy.ndarray
        bool (row,): ``flagged`` and what was found.
    """
    found = flagged.copy()
    good = np.array([start for start in starts if not flagged[start : start + 2].any()], int)
    measures = np.empty((3, good.size), np.float32)
    for index, start in enumerate(good):
        # The shapes decide in which order numpy sums in float32.
        pair = samples[:, start : start + 2, :]
        measures[0, index] = np.mean(np.abs(samples[:, start + 1, :] - samples[:, start, :]))
        measures[1, index] = np.mean(pair)
        measures[2, index] = np.std(pair)
    for values in measures:
        center, scatter = _clipped_statistics(values, n_sigma)
        outlying = good[(values - center) > n_sigma * scatter]
        found[outlying] = True
        found[outlying + 1] = True
    return found


def _clipped_statistics(values: np.ndarray, n_sigma: float) -> tuple[np.float32, np.float32]:
    """Mean and standard deviation of values within ``n_sigma`` of the median, after up to five rejections."""
    kept = np.isfinite(values)
    for _ in range(5):
        if not kept.any():
            break
        rest = values[kept].astype(np.float64)
        center, scatter = np.median(rest), np.std(rest)
        inside = kept & (values >= center - n_sigma * scatter) & (values <= center + n_sigma * scatter)
        if inside.sum() == kept.sum():
            break
        kept = inside
    if not kept.any():
        return np.float32(np.nan), np.float32(np.nan)
    return np.mean(values[kept]), np.std(values[kept])


def listed_rows(readout: Readout, output: np.ndarray, odd_even: np.ndarray, mask: np.ndarray) -> list[list[int]]:
    """Rows that a reference declares bad.

    Parameters
    ----------
    readout
        Of the exposure.
    output
        Output 1 to 4 of each entry.
    odd_even
        1 for the first pair at a jump, 2 for the second, in the order of the readout.
    mask
        Bit k set: bad at the k-th jump, in the order of the detector's columns.

    Returns
    -------
    rows
        Rows of the file, a list for each entry.
    """
    found = []
    for number, parity, bits in zip(output, odd_even, mask, strict=True):
        pair = int(parity) if int(number) % 2 else 3 - int(parity)
        columns = []
        for jump in range(32):
            if int(bits) >> jump & 1:
                first = int(number) * readout.section + readout.normal // 2
                first += jump * (readout.normal + readout.reference) + 2 * (pair - 1)
                columns += [first, first + 1]
        found.append([readout.rows - 1 - column if readout.flipped else column for column in columns])
    return found


def replacements(
    readout: Readout, bad: np.ndarray, rows: Iterable[int], direction: int = 1
) -> list[tuple[int, tuple[int, ...]]]:
    """What bad rows are replaced with: the mean of rows, one row, or zero.

    A row takes the mean of those one jump before and after, or of the one of them that is good; else the neighbouring
    pair of the same jump; else zero, which is later interpolated.

    Parameters
    ----------
    readout
        Of the exposure.
    bad
        bool (row,).
    rows
        Those to replace.
    direction
        1 to prefer the pair in an earlier row of the file, -1 the one in a later row.

    Returns
    -------
    plan
        Row and its sources: two, one or none.
    """
    period = readout.normal + readout.reference
    plan = []
    for row in rows:
        low = row // readout.section * readout.section
        high = low + readout.section
        sources = [near for near in (row - period, row + period) if low <= near < high and not bad[near]]
        if not sources:
            pairs = [
                near
                for near in (row - 2 * direction, row + 2 * direction)
                if low <= near < high and readout.interleaved[near] and not bad[near]
            ]
            sources = pairs[:1]
        plan.append((int(row), tuple(int(near) for near in sources)))
    return plan


def replace_rows(samples: np.ndarray, plan: Sequence[tuple[int, tuple[int, ...]]], index: np.ndarray) -> None:
    """Replace rows in place.

    Parameters
    ----------
    samples
        float32 (..., row, column) [DN].
    plan
        Of :func:`replacements`.
    index
        int64: place in ``samples`` of each row of the file; negative where it is not held, which is left alone.
    """
    for row, sources in plan:
        if index[row] < 0:
            continue
        target = samples[..., index[row], :]
        if not sources:
            target[...] = 0
        elif len(sources) == 1:
            target[...] = samples[..., index[sources[0]], :]
        else:
            target[...] = (samples[..., index[sources[0]], :] + samples[..., index[sources[1]], :]) / np.float32(2)


# ----------------------------------------------------------------------------------------------------------------------
# Levels and slopes


def edge_levels(
    edges: np.ndarray, flags: np.ndarray, readout: Readout, odd_even_columns: bool, siglimit: float, do_not_use: int
) -> np.ndarray:
    """Clipped means of the border of reference pixels at the first and last lines, for each output.

    Parameters
    ----------
    edges
        float32 (row, column) [DN]: the first four and the last four columns of the file.
    flags
        uint32, the same shape.
    readout
        Of the exposure.
    odd_even_columns
        Treat odd and even columns of the detector apart.
    siglimit
        Rejection limit [standard deviations].
    do_not_use
        Flag of pixels that do not count.

    Returns
    -------
    numpy.ndarray
        float64 (row,), what to subtract from each row [DN].
    """
    levels = np.zeros(readout.rows)
    step = -1 if readout.flipped else 1
    # In the order of the detector: rows, then columns.
    values, dq = edges[::step, ::step].T, flags[::step, ::step].T
    output, parity = readout.output[::step], readout.parity[::step]
    for number in range(OUTPUTS):
        choices = [output == number]
        if odd_even_columns:
            choices = [choices[0] & parity, choices[0] & ~parity]
        found = []
        for choice in choices:
            means = [_clipped_mean(values[part], dq[part], choice, siglimit, do_not_use) for part in _ENDS]
            usable = [mean for mean in means if mean is not None]
            found.append(None if not usable else usable[0] if len(usable) == 1 else 0.5 * (usable[0] + usable[1]))
        if any(level is None for level in found):
            continue
        for choice, level in zip(choices, found, strict=True):
            levels[::step][choice] = level
    return levels


# Last lines first, as "top" comes before "bottom".
_ENDS = (slice(EDGE, None), slice(0, EDGE))


def _clipped_mean(
    values: np.ndarray, flags: np.ndarray, columns: np.ndarray, siglimit: float, do_not_use: int
) -> np.floating | None:
    chosen = values[:, columns]
    chosen = chosen[(flags[:, columns] & np.uint32(do_not_use)) == 0]
    if not chosen.size:
        return None
    mean, exact = clipped_mean(np.ascontiguousarray(chosen), chosen.size, siglimit)
    return np.float64(mean) if exact else np.float32(mean)


def line_fit(edges: np.ndarray, readout: Readout) -> tuple[np.ndarray, np.ndarray]:
    """Straight lines in time through the first and last four lines, for each output.

    Values of zero do not count. All sums are in float32, in the order of time.

    Parameters
    ----------
    edges
        float32 (row, column) [DN]: the first and the last four columns of the file, mean over groups subtracted.
    readout
        Of the exposure.

    Returns
    -------
    intercept, slope
        float32 (output,) [DN, DN per sample].
    """
    columns = np.r_[0:EDGE, SIZE - EDGE : SIZE]
    time = readout.start[columns] + readout.time[:, np.newaxis].astype(np.float32)
    intercept, slope = np.zeros(OUTPUTS, np.float32), np.zeros(OUTPUTS, np.float32)
    for number in range(OUTPUTS):
        rows = np.flatnonzero(readout.output == number)
        rows = rows[np.argsort(readout.time[rows])]
        step = -1 if readout.flipped else 1
        x, y = time[rows][:, ::step].T, edges[rows][:, ::step].T
        counted = y != 0
        x, y = x[counted], y[counted]
        if not x.size:
            continue
        count = np.float32(x.size)
        mean_x, mean_y = x.mean(), y.mean()
        steepness = ((x * y).sum() - count * mean_x * mean_y) / ((x**2).sum() - count * mean_x**2)
        slope[number] = steepness
        intercept[number] = mean_y - steepness * mean_x
    return intercept, slope


@numba.njit(**COMPILED)
def mean_over_groups(samples):
    """Mean over groups: float64 (row, column) of float32 (group, row, column), summed in their order."""
    groups, rows, columns = samples.shape
    out = np.zeros((rows, columns))
    for y in range(rows):
        total = out[y]
        for group in range(groups):
            values = samples[group, y]
            for x in range(columns):
                total[x] += values[x]
        for x in range(columns):
            total[x] /= groups
    return out


@numba.njit(**UNCOUNTED)
def subtract_mean(samples, mean, output, time, start, intercept, slope, out):
    """Subtract the mean over groups and the straight lines of the outputs.

    Parameters
    ----------
    samples
        float32 (row, column) [DN].
    mean
        float64 (row, column) [DN].
    output, time
        int64 (row,), of the rows.
    start
        float32 (column,), of the columns.
    intercept, slope
        float32 (output,) of :func:`line_fit`.
    out
        float32 (row, column); values equal to the mean stay zero.
    """
    for y in range(samples.shape[0]):
        level, steepness, since = intercept[output[y]], slope[output[y]], np.float32(time[y])
        for x in range(samples.shape[1]):
            value = np.float32(np.float64(samples[y, x]) - mean[y, x])
            line = level + (since + start[x]) * steepness
            out[y, x] = value - (line if value != 0 else np.float32(0))


# ----------------------------------------------------------------------------------------------------------------------
# The correction of a group


class Correction:
    """The Fourier correction of one group after another.

    Parameters
    ----------
    readout
        Of the exposure.
    alpha, beta
        Weights of the reference output and of the interleaved pixels for each of the four outputs, by frequency:
        complex64 (sample,).

    Raises
    ------
    ValueError
        If the weights have not the length of the time line.
    """

    def __init__(self, readout: Readout, alpha: Iterable[np.ndarray], beta: Iterable[np.ndarray]) -> None:
        self.readout = readout
        self.lines = Lines.of(readout.line, SIZE)
        twice = _twice(readout)
        self._alpha = [self.lines.response(weights) for weights in alpha]
        self._beta = [self.lines.response(weights * twice) for weights in beta]
        index = np.full(readout.rows, -1)
        index[readout.held] = np.arange(readout.held.size)
        sources = [self._rows_by_time(index, readout.output == 0)]
        sources += [self._spread(index, number) for number in range(1, OUTPUTS)]
        self._times = np.flatnonzero(sources[1] >= 0)
        self._sources = [sources[0], *(of_output[self._times] for of_output in sources[1:])]
        self._sampling = self.lines.sampling(self._times)
        self._gaps = _Gaps.of(readout)
        self._every = self.lines.sampling(self._gaps.order)
        self._lines = np.zeros((readout.line, SIZE), np.float32)
        self._samples = np.zeros((self._times.size, SIZE), np.float32)
        self._filled = np.empty((readout.line, self.lines.half), np.complex64)
        self._rows = np.empty((WIDTH, self.lines.half), np.complex64)
        self._reference = self.lines.empty()

    def _rows_by_time(self, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Place among the held rows of what is read at each time of a line, -1 for none."""
        sources = np.full(self.readout.line, -1)
        sources[self.readout.time[rows]] = index[rows]
        return sources

    def _spread(self, index: np.ndarray, number: int) -> np.ndarray:
        """The same for reference samples of an output, which stand for the pixels around them, too.

        Of ``a b c d``, read after one another, ``a c a c b d b d`` is made, in the middle of a period. All come again
        two samples later, which the weights see to: here they are laid out once.
        """
        readout = self.readout
        by_time = self._rows_by_time(index, (readout.output == number) & readout.interleaved)
        taken, half, period = readout.reference, readout.normal // 2, readout.normal + readout.reference + 2
        order = np.arange(taken).reshape(2, taken // 2).T.ravel()
        if taken % 4 == 2:
            order = np.tile(order.reshape(-1, 2), (1, 2)).ravel().reshape(-1, 2)[:, ::-1].reshape(-1, 4)[:, :2].ravel()
        places = np.flatnonzero(np.arange(2 * taken) % 4 < 2) + half + 1 - taken // 2
        sources = np.full(readout.line, -1)
        for start in range(0, WIDTH // readout.normal * period, period):
            sources[start + places] = by_time[start + order + half + 1]
        return sources

    def prepare(self, samples: np.ndarray) -> None:
        """Take the reference samples of a group: float32 (held row, column) after :func:`subtract_mean`."""
        _by_time(samples, self._sources[0], self.readout.flipped, self._lines)
        interpolate_zeros(self._lines)
        self._filled = self.lines.rows(self._lines[self._gaps.order], self._gaps.order)
        self._gaps.fill(self._filled)
        self.lines.forward(self._filled, self._every, self._reference)

    def filled(self, times: np.ndarray) -> np.ndarray:
        """The reference output with all gaps filled, after :meth:`prepare`, float32 (time, column).

        Parameters
        ----------
        times
            int64 (time,), the times of a line that are wanted.
        """
        place = np.empty(self.readout.line, np.int64)
        place[self._gaps.order] = np.arange(self.readout.line)
        return np.concatenate([values for _, values in self._series(self._filled[place[times]], times)])

    def compute(self, samples: np.ndarray, number: int, times: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """The correction of an output of the detector, after :meth:`prepare`, piece by piece.

        Parameters
        ----------
        samples
            float32 (held row, column) [DN], as for :meth:`prepare`.
        number
            Output 1 to 4.
        times
            int64 (time,), the times of a line that are wanted.

        Yields
        ------
        part, values
            Which of the times, and what is to be subtracted, float32 (time, column) [DN].
        """
        lines = self.lines
        _by_time(samples, self._sources[number], self.readout.flipped, self._samples)
        rows = lines.rows(self._samples, self._times)
        if len(self._rows) != times.size:
            self._rows = np.empty((times.size, lines.half), np.complex64)
        alpha, beta = self._alpha[number - 1], self._beta[number - 1]
        lines.filtered(rows, self._sampling, beta, self._reference, alpha, times, self._rows)
        return self._series(self._rows, times)

    def _series(self, rows: np.ndarray, times: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        step = -1 if self.readout.flipped else 1
        return ((part, series[:, ::step]) for part, series in self.lines.series(rows, times))


@dataclass(frozen=True)
class _Gaps:
    """Fills the gaps of the reference output with what varies slowly, or from one sample to the next.

    Three times, the gaps are filled with what the smoothed series has there. Samples are known at the same times of
    each line: frequencies that differ by anything but a multiple of the number of lines do not touch each other, and of
    those that do, few are passed. So one goes from the gaps to these frequencies and back, not all the way.

    Attributes
    ----------
    order
        Times of a line, those that are known first, int64 (time,).
    known
        How many of them are.
    waves
        From samples at these times to the frequencies that pass, complex64 (frequency, time).
    response
        Of the smoothing at these frequencies, float32 (frequency, half).
    """

    order: np.ndarray
    known: int
    waves: np.ndarray
    response: np.ndarray

    @classmethod
    @lru_cache(maxsize=1)
    def of(cls, readout: Readout) -> _Gaps:
        known = np.zeros(readout.line, np.bool_)
        known[readout.time[(readout.output == 0) & ~readout.interleaved]] = True
        order = np.concatenate((np.flatnonzero(known), np.flatnonzero(~known)))
        # frequency = multiple * lines + that along the lines
        response = smoothing(readout).reshape(readout.line, SIZE)[:, : SIZE // 2 + 1]
        passed = np.flatnonzero(response.any(axis=1))
        turn = np.outer(passed, order) % readout.line / readout.line
        waves = np.exp(-2j * np.pi * turn).astype(np.complex64)
        return cls(order, int(known.sum()), waves, response[passed].astype(np.float32))

    def fill(self, rows: np.ndarray) -> None:
        """Fill the gaps, in place: complex64 (time, half) in the order of ``order``, as of :meth:`Lines.rows`."""
        there, gaps = self.waves[:, : self.known], self.waves[:, self.known :]
        back = np.conj(gaps.T) / np.float32(len(self.order))
        among = product(gaps, back)
        fixed = product(there, rows[: self.known])
        smooth = (fixed + product(gaps, rows[self.known :])) * self.response
        for _ in range(2):
            smooth = (fixed + product(among, smooth)) * self.response
        rows[self.known :] = product(back, smooth)


@lru_cache(maxsize=1)
def _twice(readout: Readout) -> np.ndarray:
    """Response of all that comes again two samples later, complex64 (sample,)."""
    samples = readout.line * SIZE
    return (1 + np.exp(-4j * np.pi * np.arange(samples) / samples)).astype(np.complex64)


def smoothing(readout: Readout) -> np.ndarray:
    """Response that passes the slowest variations and those from one sample to the next, float64 (sample,)."""
    samples = readout.line * SIZE
    period = readout.normal + readout.reference + 2
    taper = 110000 // period
    passed = readout.line // period * SIZE // 2 - taper // 2
    frequency = np.arange(samples // 2)
    slope = 0.5 * (np.cos((np.arange(taper) * np.pi) / taper) + 1)
    low = np.interp(frequency - passed, np.arange(taper), slope, left=1, right=0)
    half = low + low[::-1]
    # Both ends of the spectrum mirror each other, but for the frequency zero.
    return np.concatenate((half, [half[0]], half[:0:-1]))


@numba.njit(**UNCOUNTED)
def _by_time(samples, sources, flipped, lines):
    """Rows of the file in the order of time (time, line); zero where nothing is read."""
    count = lines.shape[1]
    for time in range(lines.shape[0]):
        source = sources[time]
        for line in range(count):
            if source < 0:
                lines[time, line] = 0
            else:
                lines[time, line] = samples[source, count - 1 - line if flipped else line]


@numba.njit(**COMPILED)
def interpolate_zeros(lines):
    """Replace zeros by the weighted mean of the nonzero values up to 15 samples away, in place.

    Parameters
    ----------
    lines
        float32 (time, line): time within a line, and lines one after the other, the last followed by the first.
    """
    times, count = lines.shape
    weights = np.empty(2 * _REACH + 1)
    for k in range(2 * _REACH + 1):
        weights[k] = np.sin(np.float32(np.float32(k + 1) / np.float32(32) * np.float32(np.pi)))
    total, norm = np.empty(count), np.empty(count)
    # Neighbours count with their values before the replacement.
    original = lines.copy()
    missing = np.zeros(times, np.int64)
    for time in range(times):
        for line in range(count):
            missing[time] += original[time, line] == 0
    for time in range(times):
        zeros = missing[time]
        if zeros == 0:
            continue
        if zeros > count // 8:
            _sum_lines(original, missing, time, weights, total, norm)
        for line in range(count):
            if original[time, line] == 0:
                if zeros <= count // 8:
                    total[line], norm[line] = _sum_around(original, time, line, weights)
                if norm[line] != 0:
                    lines[time, line] = np.float32(total[line]) / np.float32(norm[line])


@numba.njit(**UNCOUNTED)
def _sum_around(lines, time, line, weights):
    """Weighted sum of the values around a sample, and of the weights of those that are not zero."""
    times, count = lines.shape
    total = norm = 0.0
    for k in range(weights.size):
        near = time + k - _REACH
        carry = near // times
        value = lines[near - carry * times, (line + carry) % count]
        total += weights[k] * value
        norm += weights[k] if value != 0 else 0.0
    return total, norm


@numba.njit(**UNCOUNTED)
def _sum_lines(lines, missing, time, weights, total, norm):
    """The same for all lines at a time, given how many values are zero at each time."""
    times, count = lines.shape
    total[:] = 0
    norm[:] = 0
    all_or_none, sum_of_weights = True, 0.0
    for k in range(weights.size):
        zeros = missing[(time + k - _REACH) % times]
        all_or_none = all_or_none and (zeros == 0 or zeros == count)
        sum_of_weights += weights[k] if zeros == 0 else 0.0
    for k in range(weights.size):
        near = time + k - _REACH
        carry = near // times
        weight, values = weights[k], lines[near - carry * times]
        if missing[near - carry * times] == count:
            continue
        inner = range(max(-carry, 0), count - max(carry, 0))
        if all_or_none:
            for line in inner:
                total[line] += weight * values[line + carry]
        else:
            for line in inner:
                value = values[line + carry]
                total[line] += weight * value
                norm[line] += weight if value != 0 else 0.0
        if carry != 0:
            # The line before the first is the last.
            line = 0 if carry < 0 else count - 1
            value = values[count - 1 - line]
            total[line] += weight * value
            norm[line] += weight if value != 0 else 0.0
    if all_or_none:
        norm[:] = sum_of_weights


# ----------------------------------------------------------------------------------------------------------------------
# Pixels


def subtract(
    sci: np.ndarray,
    rows: np.ndarray,
    levels: np.ndarray,
    output: np.ndarray,
    time: np.ndarray,
    start: np.ndarray,
    intercept: np.ndarray,
    slope: np.ndarray,
    correction: np.ndarray,
    out: np.ndarray,
) -> None:
    """Correct the pixels of a window.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN], with reference samples.
    rows
        int64 (y,), the rows of ``sci`` that hold pixels. All that follows counts these.
    levels
        float64 (integration, group, y) [DN], subtracted first.
    output, time
        int64 (y,), of the rows.
    start
        float32 (x,), of the columns.
    intercept, slope
        float32 (integration, group, output) of :func:`line_fit`.
    correction
        float32 (integration, group, y, x) [DN] of :meth:`Correction.compute`.
    out
        float32 (integration, group, y, x) [DN].
    """
    sci = np.ascontiguousarray(sci)
    _subtract(sci, rows, levels, output, time, start, intercept, slope, *flat(correction), out)


@numba.njit(**COMPILED)
def _subtract(sci, rows, levels, output, time, start, intercept, slope, correction, strides, out):
    integrations, groups, ny, nx = out.shape
    mean = np.empty(nx)
    values = np.empty(nx, np.float32)
    for integration in range(integrations):
        for y in range(ny):
            mean[:] = 0
            since, number = np.float32(time[y]), output[y]
            for group in range(groups):
                _take(sci[integration, group, rows[y]], levels[integration, group, y], values)
                for x in range(nx):
                    mean[x] += values[x]
            for x in range(nx):
                mean[x] /= groups
            for group in range(groups):
                _take(sci[integration, group, rows[y]], levels[integration, group, y], values)
                level, steepness = intercept[integration, group, number], slope[integration, group, number]
                first = integration * strides[0] + group * strides[1] + y * strides[2]
                corrections = correction[first : first + nx]
                for x in range(nx):
                    value = np.float32(np.float64(values[x]) - mean[x])
                    line = level + (since + start[x]) * steepness
                    value -= line if value != 0 else np.float32(0)
                    value -= corrections[x]
                    out[integration, group, y, x] = np.float32(np.float64(value) + mean[x])


@numba.njit(**UNCOUNTED)
def _take(row, level, values):
    for x in range(values.size):
        values[x] = row[x] if level == 0 else np.float32(np.float64(row[x]) - level)
