"""Fourier transform of real series that are sampled at some times of each line only.

The time line of a NIRSpec IRS2 frame has 2048 lines of 712 = 8 x 89 samples, many of which were not taken or are not
wanted. So the transform is one along the lines first, only of times that were sampled; then, once what shifts one time
against the other is multiplied in, one along the times, which is one of 89 and one of 8 without factors in between
(the prime-factor map). What is multiplied in frequency space is laid out as it comes, some frequencies of the
transform along the lines side by side, so that nothing is ever sorted.

Source: Cooley & Tukey, Math. Comp. 19, 297 (1965); Good, J. R. Stat. Soc. B 20, 361 (1958).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np

from jwstdask.kernels.compiled import COMPILED, UNCOUNTED

_LANES = 16
"""Frequencies along the lines that are handled side by side: what a thread works on fits the second-level cache."""

_EIGHT = 8
_ROOT = np.float32(0.5**0.5)


_TILE = 32
"""Rows, columns and depth of products that OpenBLAS leaves to one thread: it has several from 65,536 on, or from four
times as much, depending on the processor."""

_ROWS = 64
"""Rows that are transformed at a time, for the same reason."""


@dataclass(frozen=True)
class Sampling:
    """At which times of a line a series is not zero.

    Attributes
    ----------
    times
        int64 (row,).
    rows
        The rows that a column of the prime-factor map takes, int64 (column, place); -1 for none.
    waves
        Cosine and sine at them for half of the frequencies along the odd axis, float32 (column, 2 half, place).
    """

    times: np.ndarray
    rows: np.ndarray
    waves: np.ndarray


class Lines:
    """The transform of a series of lines.

    Sample ``t`` of line ``l`` is number ``times * l + t`` of the series. "Rows" are the transforms along the lines of
    the samples at some times, complex64 (time, half), with the shift of the times against each other multiplied in.
    "Spectra" are float32 (block, odd, 2, column, lane), real and imaginary parts apart.

    Parameters
    ----------
    times, lines
        Samples of a line, and lines.

    Attributes
    ----------
    half
        Frequencies of the transform along the lines, of which ``lines`` is even.
    phase
        What is multiplied in, complex64 (time, half).
    frequency
        Index of the frequency at each place of a spectrum, int64 (block, odd, column, lane).
    """

    def __init__(self, times: int, lines: int) -> None:
        self.times, self.lines, self.half = times, lines, lines // 2 + 1
        # An even number of times is prime to eight in no other way.
        self.columns = _EIGHT if times % (2 * _EIGHT) == _EIGHT else 1
        self.odd = times // self.columns
        blocks = -(-self.half // _LANES)
        line = np.arange(blocks * _LANES)
        turn = np.outer(np.arange(times), np.arange(self.half)) / (times * lines)
        self.phase = np.exp(-2j * np.pi * turn).astype(np.complex64)
        self._back = np.conj(self.phase)
        along = np.arange(times)
        multiple = np.empty((self.odd, self.columns), np.int64)
        multiple[along % self.odd, along % self.columns] = along
        self.frequency = lines * multiple[np.newaxis, :, :, np.newaxis] + line.reshape(blocks, 1, 1, _LANES)
        self.frequency %= times * lines
        side, column = np.indices((self.odd, self.columns))
        self._time = (self.columns * side + self.odd * column) % times
        index = np.arange(self.odd // 2 + 1)
        self._angle = 2 * np.pi * (np.outer(index, np.arange(self.odd)) % self.odd) / self.odd
        back = self._angle[:, : index.size]
        self._cosine, self._sine = ((wave(back) / times).astype(np.float32) for wave in (np.cos, np.sin))

    @classmethod
    @lru_cache(maxsize=2)
    def of(cls, times: int, lines: int) -> Lines:
        """The transform of a length, remembered."""
        return cls(times, lines)

    def empty(self) -> np.ndarray:
        """Room for a spectrum."""
        return np.empty((len(self.frequency), self.odd, 2, self.columns, _LANES), np.float32)

    def response(self, values: np.ndarray) -> np.ndarray:
        """A response (sample,) laid out as a spectrum.

        The real part of a filtered real series depends on the Hermitian part of the response only.

        Raises
        ------
        ValueError
            If the response has another length than the series.
        """
        if values.shape != (self.times * self.lines,):
            raise ValueError(f"a response of {values.size} values is no filter for {self.times * self.lines} samples")
        out = self.empty()
        _hermitian(np.ascontiguousarray(values, np.complex64), self.frequency[..., 0], out)
        return out

    def sampling(self, times: np.ndarray) -> Sampling:
        """For series that are zero but at some times of each line: int64 (row,)."""
        row = np.full(self.times, -1)
        row[times] = np.arange(len(times))
        place = row[self._time]
        most = int((place >= 0).sum(axis=0).max())
        rows = np.full((self.columns, most), -1)
        waves = np.zeros((self.columns, 2 * self._angle.shape[0], most), np.float32)
        for column in range(self.columns):
            taken = np.flatnonzero(place[:, column] >= 0)
            rows[column, : taken.size] = place[taken, column]
            waves[column, :, : taken.size] = np.concatenate(
                (np.cos(self._angle[:, taken]), np.sin(self._angle[:, taken]))
            )
        return Sampling(np.asarray(times, np.int64), rows, waves)

    def forward(self, rows: np.ndarray, sampling: Sampling, out: np.ndarray | None = None) -> np.ndarray:
        """Spectrum of a series.

        Parameters
        ----------
        rows
            complex64 (row, half): of the times of ``sampling``.
        sampling
            Which times these are.
        out
            To write to.
        """
        if out is None:
            out = self.empty()
        _forward(rows, sampling.rows, sampling.waves, out)
        return out

    def filtered(
        self,
        rows: np.ndarray,
        sampling: Sampling,
        response: np.ndarray,
        other: np.ndarray,
        other_response: np.ndarray,
        times: np.ndarray,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The sum of a series and another one, each filtered, at some times.

        Parameters
        ----------
        rows, sampling
            As for :meth:`forward`.
        response, other_response
            Of :meth:`response`.
        other
            Spectrum of the other series.
        times
            int64 (row,): the times that are wanted.
        out
            complex64 (row, half) to write to.

        Returns
        -------
        numpy.ndarray
            Rows of the sum, of which the inverse transform is :meth:`series`.
        """
        if out is None:
            out = np.empty((len(times), self.half), np.complex64)
        row = np.full(self.times, -1)
        row[times] = np.arange(len(times))
        wanted = np.ascontiguousarray(row[self._time])
        _filtered(
            rows, sampling.rows, sampling.waves, response, other, other_response, self._cosine, self._sine, wanted, out
        )
        return out

    def rows(self, series: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Rows of float32 (row, line), what was sampled at some times."""
        import scipy.fft

        out = np.empty((len(times), self.half), np.complex64)
        for start in range(0, len(times), _ROWS):
            part = slice(start, start + _ROWS)
            np.multiply(scipy.fft.rfft(series[part], axis=1), self.phase[times[part]], out=out[part])
        return out

    def series(self, rows: np.ndarray, times: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """The series of rows, some at a time: which these are, and float32 (row, line). The rows are overwritten."""
        import scipy.fft

        for start in range(0, len(times), _ROWS):
            part = slice(start, start + _ROWS)
            spectrum = rows[part]
            spectrum *= self._back[times[part]]
            yield slice(start, start + len(spectrum)), scipy.fft.irfft(spectrum, self.lines, axis=1, overwrite_x=True)


@numba.njit(**COMPILED)
def product(left, right):
    """The product of two complex64 matrices, with the same bits for any number of threads.

    It is put together of products so small that each is done by one thread.
    """
    rows, inner = left.shape
    count = right.shape[1]
    out = np.zeros((rows, count), np.complex64)
    factors = np.zeros((-(-rows // _TILE), _TILE, _TILE), np.complex64)
    other, term = np.zeros((_TILE, _TILE), np.complex64), np.empty((_TILE, _TILE), np.complex64)
    for first in range(0, inner, _TILE):
        depth = min(_TILE, inner - first)
        factors[:] = 0
        for row in range(rows):
            factors[row // _TILE, row % _TILE, :depth] = left[row, first : first + depth]
        for start in range(0, count, _TILE):
            width = min(_TILE, count - start)
            other[:] = 0
            for k in range(depth):
                other[k, :width] = right[first + k, start : start + width]
            for block in range(factors.shape[0]):
                np.dot(factors[block], other, term)
                top = block * _TILE
                for row in range(top, min(top + _TILE, rows)):
                    for k in range(width):
                        out[row, start + k] += term[row - top, k]
    return out


@numba.njit(**UNCOUNTED)
def _hermitian(values, frequency, out):
    """Hermitian part of a response; ``frequency`` is that of the first lane."""
    size = values.size
    for block in range(out.shape[0]):
        for side in range(out.shape[1]):
            for column in range(out.shape[3]):
                for lane in range(_LANES):
                    place = (frequency[block, side, column] + lane) % size
                    value = np.float32(0.5) * (values[place] + np.conj(values[(size - place) % size]))
                    out[block, side, 0, column, lane] = value.real
                    out[block, side, 1, column, lane] = value.imag


@numba.njit(**COMPILED)
def _forward(rows, place, waves, out):
    blocks, odd, _, columns = out.shape[:4]
    size = columns * 2 * _LANES
    samples = np.zeros((columns, place.shape[1], 2 * _LANES), np.float32)
    products = np.zeros((columns, waves.shape[1], 2 * _LANES), np.float32)
    target = out.reshape(-1)
    for block in range(blocks):
        _along_odd(rows, block, place, waves, samples, products)
        for side in range(odd):
            first = (block * odd + side) * size
            line = target[first : first + size]
            _side(products, side, odd, line)
            if columns == _EIGHT:
                _eight(line, np.float32(-1))


@numba.njit(**COMPILED)
def _filtered(rows, place, waves, response, other, other_response, cosine, sine, wanted, out):
    odd, columns = wanted.shape
    half, size = cosine.shape[0], columns * 2 * _LANES
    response, other, other_response = response.reshape(-1), other.reshape(-1), other_response.reshape(-1)
    samples = np.zeros((columns, place.shape[1], 2 * _LANES), np.float32)
    products = np.zeros((columns, waves.shape[1], 2 * _LANES), np.float32)
    # Real and imaginary parts apart: products of this size are done by one thread, however many there may be, which
    # would add up in another order.
    sums, differences = np.zeros((2, half, size // 2), np.float32), np.zeros((2, half, size // 2), np.float32)
    even, uneven = np.empty((2, half, size // 2), np.float32), np.empty((2, half, size // 2), np.float32)
    first, second = np.empty(size, np.float32), np.empty(size, np.float32)
    for block in range((out.shape[1] + _LANES - 1) // _LANES):
        _along_odd(rows, block, place, waves, samples, products)
        for side in range(half):
            mirrored = (odd - side) % odd
            start = (block * odd + side) * size
            _weighed(products, side, odd, response, other, other_response, start, first)
            if mirrored == side:
                for part in range(2):
                    sums[part, side] = first[part * size // 2 : (part + 1) * size // 2]
                continue
            start = (block * odd + mirrored) * size
            _weighed(products, mirrored, odd, response, other, other_response, start, second)
            for part in range(2):
                here, there = sums[part, side], differences[part, side]
                one = first[part * size // 2 : (part + 1) * size // 2]
                two = second[part * size // 2 : (part + 1) * size // 2]
                for k in range(size // 2):
                    here[k] = one[k] + two[k]
                    there[k] = one[k] - two[k]
        for part in range(2):
            np.dot(cosine, sums[part], even[part])
            np.dot(sine, differences[part], uneven[part])
        _give(even, uneven, wanted, block, out)


@numba.njit(**COMPILED)
def _along_odd(rows, block, place, waves, samples, products):
    """Products of what a block has of each column with cosine and sine along the odd axis."""
    start = block * _LANES
    count = min(_LANES, rows.shape[1] - start)
    for column in range(place.shape[0]):
        for k in range(place.shape[1]):
            row = place[column, k]
            if row >= 0:
                for lane in range(count):
                    value = rows[row, start + lane]
                    samples[column, k, lane] = value.real
                    samples[column, k, _LANES + lane] = value.imag
        np.dot(waves[column], samples[column], products[column])


@numba.njit(**UNCOUNTED)
def _side(products, side, odd, line):
    """One frequency along the odd axis, float32 (2, column, lane) as one axis."""
    half = products.shape[1] // 2
    index, sign = (side, np.float32(1)) if side < half else (odd - side, np.float32(-1))
    for column in range(products.shape[0]):
        cosine, sine = products[column, index], products[column, half + index]
        real = line[column * _LANES : (column + 1) * _LANES]
        imaginary = line[line.size // 2 + column * _LANES : line.size // 2 + (column + 1) * _LANES]
        for lane in range(_LANES):
            real[lane] = cosine[lane] + sign * sine[_LANES + lane]
            imaginary[lane] = cosine[_LANES + lane] - sign * sine[lane]


@numba.njit(**UNCOUNTED)
def _parts(spectrum, start, size):
    return spectrum[start : start + size], spectrum[start + size : start + 2 * size]


@numba.njit(**UNCOUNTED)
def _weighed(products, side, odd, response, other, other_response, start, line):
    """One frequency along the odd axis, filtered, and back along the columns."""
    columns = products.shape[0]
    _side(products, side, odd, line)
    if columns == _EIGHT:
        _eight(line, np.float32(-1))
    real, imaginary = line[: line.size // 2], line[line.size // 2 :]
    a, b = _parts(response, start, real.size)
    c, d = _parts(other, start, real.size)
    e, f = _parts(other_response, start, real.size)
    for k in range(real.size):
        x, y = real[k], imaginary[k]
        real[k] = (x * a[k] - y * b[k]) + (c[k] * e[k] - d[k] * f[k])
        imaginary[k] = (x * b[k] + y * a[k]) + (c[k] * f[k] + d[k] * e[k])
    if columns == _EIGHT:
        _eight(line, np.float32(1))


@numba.njit(**UNCOUNTED)
def _give(even, uneven, wanted, block, out):
    """Times from the parts that are even and odd along the odd axis."""
    odd, columns = wanted.shape
    half, start = even.shape[1], block * _LANES
    count = min(_LANES, out.shape[1] - start)
    for side in range(odd):
        index, sign = (side, np.float32(1)) if side < half else (odd - side, np.float32(-1))
        for column in range(columns):
            row = wanted[side, column]
            if row < 0:
                continue
            at = column * _LANES
            for lane in range(count):
                real = even[0, index, at + lane] - sign * uneven[1, index, at + lane]
                imaginary = even[1, index, at + lane] + sign * uneven[0, index, at + lane]
                out[row, start + lane] = np.complex64(complex(real, imaginary))


@numba.njit(**UNCOUNTED)
def _eight(line, sign):
    """Transform of eight, in place, of each lane: float32 (2, 8, lane) as one axis; ``sign`` of the exponent."""
    for x in range(_LANES):
        r0, i0, r1, i1 = line[x], line[x + 128], line[x + 16], line[x + 144]
        r2, i2, r3, i3 = line[x + 32], line[x + 160], line[x + 48], line[x + 176]
        r4, i4, r5, i5 = line[x + 64], line[x + 192], line[x + 80], line[x + 208]
        r6, i6, r7, i7 = line[x + 96], line[x + 224], line[x + 112], line[x + 240]
        # Sums and differences of those four apart.
        a0, b0, a4, b4 = r0 + r4, i0 + i4, r0 - r4, i0 - i4
        a1, b1, a5, b5 = r1 + r5, i1 + i5, r1 - r5, i1 - i5
        a2, b2, a6, b6 = r2 + r6, i2 + i6, sign * (i6 - i2), sign * (r2 - r6)
        a3, b3, a7, b7 = r3 + r7, i3 + i7, r3 - r7, i3 - i7
        # Even frequencies.
        c0, d0, c2, d2 = a0 + a2, b0 + b2, a0 - a2, b0 - b2
        c1, d1, c3, d3 = a1 + a3, b1 + b3, sign * (b3 - b1), sign * (a1 - a3)
        line[x], line[x + 128], line[x + 64], line[x + 192] = c0 + c1, d0 + d1, c0 - c1, d0 - d1
        line[x + 32], line[x + 160], line[x + 96], line[x + 224] = c2 + c3, d2 + d3, c2 - c3, d2 - d3
        # Odd frequencies: the first and third turned by an eighth.
        e1, f1 = _ROOT * (a5 - sign * b5), _ROOT * (b5 + sign * a5)
        e3, f3 = _ROOT * (-a7 - sign * b7), _ROOT * (sign * a7 - b7)
        g0, h0, g2, h2 = a4 + a6, b4 + b6, a4 - a6, b4 - b6
        g1, h1, g3, h3 = e1 + e3, f1 + f3, sign * (f3 - f1), sign * (e1 - e3)
        line[x + 16], line[x + 144], line[x + 80], line[x + 208] = g0 + g1, h0 + h1, g0 - g1, h0 - h1
        line[x + 48], line[x + 176], line[x + 112], line[x + 240] = g2 + g3, h2 + h3, g2 - g3, h2 - h3
