"""Fourier transform of real series whose length is an odd number times a power of two.

The time line of a NIRSpec IRS2 frame has 2^14 x 89 samples. General transforms do the factor 89 slowly. Here the series
is laid out on a grid of 89 x 2^14 by the prime-factor map, on which the transform is one along each axis without
factors in between: a small matrix product along the odd axis, where only half of the frequencies of a real series are
needed, and fast transforms of rows of 2^14. Whatever is multiplied in frequency space is laid out on the grid too, so
that nothing is ever sorted back.

Source: Good, J. R. Stat. Soc. B 20, 361 (1958); Burrus, "Index mappings for multidimensional formulation of the DFT and
convolution", IEEE Trans. ASSP 25, 239 (1977).
"""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np
import scipy.fft

_BLOCK = 128
"""Columns of the grid handled at a time: a block fits the first-level cache, and products stay in one thread."""


class Grid:
    """The map of a series to a grid, and the transform there.

    Parameters
    ----------
    samples
        Length of the series.

    Attributes
    ----------
    odd, even
        Rows and columns of the grid: the odd factor of ``samples`` and the power of two.
    row, shift
        Of each residue ``c`` of time modulo ``odd``: sample ``odd * m + c`` is at ``row[c]``,
        ``(shift[c] + m) % even``.
    half
        Rows in frequency space.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.even = samples & -samples
        self.odd = samples // self.even
        self.half = self.odd // 2 + 1
        residue = np.arange(self.odd)
        # Sample n is at the n1, n2 for which n = even n1 + odd n2, modulo the length.
        self.row = residue * pow(self.even, -1, self.odd) % self.odd if self.odd > 1 else residue
        self.shift = residue * pow(self.odd, -1, self.even) % self.even if self.even > 1 else 0 * residue
        # The frequency that is 1 along one axis and 0 along the other, for each axis.
        self._steps = (
            self.even * pow(self.even, -1, self.odd) if self.odd > 1 else 0,
            self.odd * pow(self.odd, -1, self.even) if self.even > 1 else 0,
        )
        angle = 2 * np.pi * (np.outer(np.arange(self.half), np.arange(self.half)) % self.odd) / self.odd
        self._cosine, self._sine = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        # Both members of a pair of conjugate frequencies count in the way back.
        weight = np.where(np.arange(self.half) == 0, 1, 2) / samples
        self._cosine_back = (self._cosine * weight).astype(np.float32)
        self._sine_back = (self._sine * weight).astype(np.float32)

    @classmethod
    @lru_cache(maxsize=2)
    def of(cls, samples: int) -> Grid:
        """The grid of a length, remembered."""
        return cls(samples)

    @property
    def frequency(self) -> np.ndarray:
        """Index of the frequency at each place of frequency space, int64 (half, even)."""
        first, second = self._steps
        return (first * np.arange(self.half)[:, np.newaxis] + second * np.arange(self.even)) % self.samples

    def lay_out(self, series: np.ndarray) -> np.ndarray:
        """A series (samples,) on the grid (odd, even)."""
        time = np.empty((self.odd, self.even), np.int64)
        for residue in range(self.odd):
            start = residue - self.odd * int(self.shift[residue])
            time[self.row[residue]] = (start + self.odd * np.arange(self.even)) % self.samples
        return series[time]

    def filter(self, response: np.ndarray) -> np.ndarray:
        """A response (samples,) for :meth:`forward`'s result, complex64 (half, even).

        The real part of a filtered real series depends on the Hermitian part of the response only.

        Raises
        ------
        ValueError
            If the response has another length than the series.
        """
        if response.shape != (self.samples,):
            raise ValueError(f"a response of {response.size} values is no filter for {self.samples} samples")
        out = np.empty((self.half, self.even), np.complex64)
        _hermitian(np.ascontiguousarray(response, np.complex64), self.frequency[:, 0], self._steps[1], out)
        return out

    def forward(self, grid: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Transform of a real series on the grid.

        Parameters
        ----------
        grid
            float32 (odd, even), C order.
        out
            complex64 (half, even) to write to.

        Returns
        -------
        numpy.ndarray
            complex64 (half, even), frequencies in the order of :attr:`frequency`, not normalised.
        """
        if out is None:
            out = np.empty((self.half, self.even), np.complex64)
        _fold(grid, self._cosine, self._sine, out)
        return scipy.fft.fft(out, axis=1, overwrite_x=True)

    def inverse(self, spectrum: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The real series of a spectrum of :meth:`forward`; the spectrum is overwritten.

        Returns
        -------
        numpy.ndarray
            float32 (odd, even), normalised so that it undoes :meth:`forward`.
        """
        if out is None:
            out = np.empty((self.odd, self.even), np.float32)
        spectrum = scipy.fft.ifft(spectrum, axis=1, norm="forward", overwrite_x=True)
        _unfold(spectrum, self._cosine_back, self._sine_back, out)
        return out


@numba.njit(cache=True, nogil=True)
def _hermitian(response, starts, step, out):
    """Hermitian part of a response; along a row of ``out`` frequencies advance by ``step``, modulo the length."""
    size = response.size
    for y in range(out.shape[0]):
        frequency = starts[y]
        for x in range(out.shape[1]):
            mirrored = size - frequency if frequency > 0 else 0
            out[y, x] = np.float32(0.5) * (response[frequency] + np.conj(response[mirrored]))
            frequency += step
            if frequency >= size:
                frequency -= size


@numba.njit(cache=True, nogil=True)
def _fold(grid, cosine, sine, out):
    """Real transform along the first axis, half of the frequencies: even and odd parts, a matrix product of each."""
    odd, even = grid.shape
    half = cosine.shape[0]
    width = min(_BLOCK, even)
    sums, differences = np.zeros((half, width), np.float32), np.zeros((half, width), np.float32)
    real, imaginary = np.empty((half, width), np.float32), np.empty((half, width), np.float32)
    for start in range(0, even, width):
        for x in range(width):
            sums[0, x] = grid[0, start + x]
        for j in range(1, half):
            for x in range(width):
                first, second = grid[j, start + x], grid[odd - j, start + x]
                sums[j, x] = first + second
                differences[j, x] = second - first
        np.dot(cosine, sums, real)
        np.dot(sine, differences, imaginary)
        for k in range(half):
            for x in range(width):
                out[k, start + x] = np.complex64(complex(real[k, x], imaginary[k, x]))


@numba.njit(cache=True, nogil=True)
def _unfold(spectrum, cosine, sine, out):
    """The way back along the first axis, to real values."""
    odd, even = out.shape
    half = cosine.shape[0]
    width = min(_BLOCK, even)
    real, imaginary = np.empty((half, width), np.float32), np.empty((half, width), np.float32)
    sums, differences = np.empty((half, width), np.float32), np.empty((half, width), np.float32)
    for start in range(0, even, width):
        for k in range(half):
            for x in range(width):
                real[k, x] = spectrum[k, start + x].real
                imaginary[k, x] = spectrum[k, start + x].imag
        np.dot(cosine, real, sums)
        np.dot(sine, imaginary, differences)
        for x in range(width):
            out[0, start + x] = sums[0, x]
        for j in range(1, half):
            for x in range(width):
                out[j, start + x] = sums[j, x] - differences[j, x]
                out[odd - j, start + x] = sums[j, x] + differences[j, x]
