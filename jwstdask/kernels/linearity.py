"""Correction of the non-linear response of a detector with a polynomial for each pixel."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np

from jwstdask.core import dq
from jwstdask.kernels.compiled import COMPILED, INLINE, UNCOUNTED
from jwstdask.kernels.decode import swapped, words_of
from jwstdask.kernels.runs import to_change

_SATURATED = np.uint8(dq.SATURATED)
_NO_LIN_CORR = np.uint32(dq.NO_LIN_CORR)
_MAGNITUDE, _INFINITE = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)

_BLOCK = 8192
"""Pixels of the rows done at a time: their polynomials stay in the second-level cache."""


def usable_coefficients(stored: np.ndarray, coefficients_dq: np.ndarray) -> np.ndarray:
    """Polynomials of a reference, the unusable ones replaced by the identity.

    A polynomial is unusable if its pixel is flagged NO_LIN_CORR, if a coefficient is NaN, or if the linear one is zero.

    Parameters
    ----------
    stored
        Floating point of any byte order (coefficient, y, x), lowest power first; at least two.
    coefficients_dq
        uint32 (y, x), changed in place: NO_LIN_CORR is added where a polynomial was replaced.

    Returns
    -------
    numpy.ndarray
        float32, the shape of ``stored``.
    """
    count, _, nx = stored.shape
    coefficients = np.empty(stored.shape, np.float32)
    _usable(*words_of(stored), coefficients_dq, np.empty((count, nx), np.float32), np.empty(nx, np.uint8), coefficients)
    return coefficients


@numba.njit(**INLINE)
def _usable_line(words, strides, turned, first, flags, coefficients, unusable):
    # Polynomials (coefficient, x) of a line whose constant terms begin at `first`; `unusable` is scratch.
    count, nx = len(coefficients), flags.size
    for x in range(nx):
        unusable[x] = (flags[x] & _NO_LIN_CORR) != 0
    for k in range(count):
        # All that is greater than infinity, regardless of sign, is not a number.
        least = np.uint32(1 if k == 1 else 0)
        start = first + k * strides[0]
        row, target = words[start : start + nx], coefficients[k]
        for x in range(nx):
            word = np.uint32(swapped(row[x]) if turned else row[x])
            magnitude = np.uint32(word & _MAGNITUDE)
            unusable[x] |= (magnitude > _INFINITE) | (magnitude < least)
            target[x] = word.view(np.float32)
    for x in range(nx):
        if unusable[x]:
            flags[x] |= _NO_LIN_CORR
            for k in range(count):
                coefficients[k, x] = 1 if k == 1 else 0


@numba.njit(**UNCOUNTED)
def _usable(words, strides, turned, coefficients_dq, line, unusable, coefficients):
    for y in range(len(coefficients_dq)):
        _usable_line(words, strides, turned, y * strides[1], coefficients_dq[y], line, unusable)
        for k in range(len(line)):
            target = coefficients[k, y]
            for x in range(target.size):
                target[x] = line[k, x]


def correct(
    sci: np.ndarray,
    groupdq: np.ndarray,
    stored: np.ndarray,
    coefficients_dq: np.ndarray,
    *,
    zeroframe: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Evaluate the polynomial of each pixel, except in saturated groups.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    groupdq
        uint8 (integration, group, y, x).
    stored, coefficients_dq
        Polynomials and flags as for :func:`usable_coefficients`, by whose rule they are used.
    zeroframe
        float32 (integration, y, x) [DN], corrected in place; exact zeros mark unusable values and stay.
    out
        Where to write; may be ``sci``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``sci`` [DN].
    """
    out = to_change(sci, out)
    if zeroframe is None:
        zeroframe = np.empty((0, 0, 0), np.float32)
    count, ny, nx = stored.shape
    height = max(min(_BLOCK // max(nx, 1), ny), 1)
    room = np.empty((height, count, nx), np.float32), np.empty(nx, np.float32), np.empty(nx, np.uint8)
    _corrector(count)(out, groupdq, zeroframe, *words_of(stored), coefficients_dq, *room)
    return out


def correct_zeroframe(zeroframe: np.ndarray, stored: np.ndarray, coefficients_dq: np.ndarray) -> None:
    """Correct the zeroth frame alone, as :func:`correct` does."""
    none = np.empty((0, 0, *zeroframe.shape[1:]), np.float32)
    correct(none, none.astype(np.uint8), stored, coefficients_dq, zeroframe=zeroframe, out=none)


# The compiler unrolls a polynomial and works on many pixels at once only if it knows the number of coefficients:
# functions are made for each number.


@lru_cache(maxsize=32)
def _corrector(count: int) -> Callable[..., None]:
    # Another compiled function within this one would keep it from being found in the cache of kernels.
    @numba.njit(**UNCOUNTED)
    def run(sci, groupdq, zeroframe, words, strides, turned, coefficients_dq, coefficients, line, unusable):
        # Through a line of its own: to store some of the values is slower than to store all.
        integrations, groups, ny, nx = sci.shape
        for top in range(0, ny, len(coefficients)):
            rows = range(top, min(top + len(coefficients), ny))
            for y in rows:
                first = y * strides[1]
                _usable_line(words, strides, turned, first, coefficients_dq[y], coefficients[y - top], unusable)
            for integration in range(integrations):
                for group in range(groups):
                    for y in rows:
                        values, flags = sci[integration, group, y], groupdq[integration, group, y]
                        polynomials = coefficients[y - top]
                        for x in range(nx):
                            value = values[x]
                            # Horner's scheme; each operation rounds to float32.
                            total = polynomials[count - 1, x] * value
                            for k in range(count - 2, 0, -1):
                                total = (total + polynomials[k, x]) * value
                            total += polynomials[0, x]
                            line[x] = value if (flags[x] & _SATURATED) != 0 else total
                        for x in range(nx):
                            values[x] = line[x]
            for integration in range(zeroframe.shape[0]):
                for y in rows:
                    values, polynomials = zeroframe[integration, y], coefficients[y - top]
                    for x in range(nx):
                        value = values[x]
                        total = polynomials[count - 1, x] * value
                        for k in range(count - 2, 0, -1):
                            total = (total + polynomials[k, x]) * value
                        total += polynomials[0, x]
                        line[x] = value if value == np.float32(0) else total
                    for x in range(nx):
                        values[x] = line[x]

    return run


def correct_reads(
    sci: np.ndarray,
    groupdq: np.ndarray,
    coefficients: np.ndarray,
    inverse: np.ndarray,
    nframes: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Correct groups that are averages of frames by correcting each frame.

    The frames of a group are not known. They are predicted from a constant rate between the first group and the last
    one but one that is not saturated, made non-linear with the inverse polynomial, shifted so that their average is the
    measured group, corrected, and averaged again.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN], at least two groups.
    groupdq
        uint8 (integration, group, y, x).
    coefficients, inverse
        float32 (coefficient, y, x): from measured to linear counts and back, both from :func:`usable_coefficients`.
    nframes
        Frames averaged into a group, without gaps between groups.
    out
        Where to write; may be ``sci``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``sci`` [DN].
    """
    if out is None:
        out = np.empty_like(sci)
    means = np.array([np.mean(np.arange(1, nframes + 1) + group * nframes) for group in range(sci.shape[1])])
    _reads_corrector(coefficients.shape[0], inverse.shape[0])(sci, groupdq, coefficients, inverse, means, nframes, out)
    return out


@lru_cache(maxsize=32)
def _reads_corrector(count: int, inverse_count: int) -> Callable[..., None]:
    @numba.njit(**COMPILED)
    def run(sci, groupdq, coefficients, inverse, means, nframes, out):
        integrations, groups, ny, nx = sci.shape
        start = np.empty(nx, np.float32)
        rate = np.empty(nx, np.float64)
        reads = np.empty((nframes, nx), np.float64)
        line = np.empty(nx, np.float64)
        for integration in range(integrations):
            for y in range(ny):
                for x in range(nx):
                    unsaturated = 0
                    for group in range(groups):
                        if (groupdq[integration, group, y, x] & _SATURATED) == 0:
                            unsaturated += 1
                    last = max(unsaturated - 1, 2) - 1
                    low = np.float32(0)
                    high = np.float32(0)
                    for end in range(2):
                        group = last if end == 1 else 0
                        value = sci[integration, group, y, x]
                        if (groupdq[integration, group, y, x] & _SATURATED) == 0:
                            total = coefficients[count - 1, y, x] * value
                            for k in range(count - 2, 0, -1):
                                total = (total + coefficients[k, y, x]) * value
                            value = total + coefficients[0, y, x]
                        if end == 1:
                            high = value
                        else:
                            low = value
                    start[x] = low
                    rate[x] = np.float64(high - low) / (means[last] - means[0])
                for group in range(groups):
                    values = sci[integration, group, y]
                    flags = groupdq[integration, group, y]
                    for x in range(nx):
                        line[x] = 0
                    for read in range(nframes):
                        elapsed = np.float64(group * nframes + read + 1) - means[0]
                        for x in range(nx):
                            linear = start[x] + rate[x] * elapsed
                            value = inverse[inverse_count - 1, y, x] * linear
                            for k in range(inverse_count - 2, 0, -1):
                                value = (value + inverse[k, y, x]) * linear
                            value += inverse[0, y, x]
                            reads[read, x] = value
                            line[x] += value
                    for x in range(nx):
                        line[x] = values[x] - line[x] / nframes
                    for read in range(nframes):
                        for x in range(nx):
                            reads[read, x] += line[x]
                    for x in range(nx):
                        line[x] = 0
                    for read in range(nframes):
                        for x in range(nx):
                            value = reads[read, x]
                            total = coefficients[count - 1, y, x] * value
                            for k in range(count - 2, 0, -1):
                                total = (total + coefficients[k, y, x]) * value
                            line[x] += total + coefficients[0, y, x]
                    for x in range(nx):
                        out[integration, group, y, x] = values[x] if (flags[x] & _SATURATED) != 0 else line[x] / nframes

    return run
