"""Correction of the non-linear response of a detector with a polynomial for each pixel."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np

from jwstdask.core import dq

_SATURATED = np.uint8(dq.SATURATED)
_NO_LIN_CORR = np.uint32(dq.NO_LIN_CORR)


@numba.njit(cache=True, nogil=True)
def usable_coefficients(coefficients, coefficients_dq):
    """Replace unusable polynomials by the identity.

    A polynomial is unusable if its pixel is flagged NO_LIN_CORR, if a coefficient is NaN, or if the linear one is zero.

    Parameters
    ----------
    coefficients
        float32 (coefficient, y, x), lowest power first, changed in place.
    coefficients_dq
        uint32 (y, x), changed in place: NO_LIN_CORR is added where a polynomial was replaced.
    """
    count, ny, nx = coefficients.shape
    line = np.empty(nx, np.bool_)
    for y in range(ny):
        met = False
        for x in range(nx):
            bad = (coefficients_dq[y, x] & _NO_LIN_CORR) != 0 or coefficients[1, y, x] == 0
            line[x] = bad
            met |= bad
        for k in range(count):
            for x in range(nx):
                bad = np.isnan(coefficients[k, y, x])
                line[x] |= bad
                met |= bad
        if met:
            for x in range(nx):
                if line[x]:
                    coefficients_dq[y, x] |= _NO_LIN_CORR
                    for k in range(count):
                        coefficients[k, y, x] = 0
                    coefficients[1, y, x] = 1


def correct(
    sci: np.ndarray, groupdq: np.ndarray, coefficients: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Evaluate the polynomial of each pixel, except in saturated groups.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    groupdq
        uint8 (integration, group, y, x).
    coefficients
        float32 (coefficient, y, x) from :func:`usable_coefficients`; at least two.
    out
        Where to write; may be ``sci``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``sci`` [DN].
    """
    if out is None:
        out = np.empty_like(sci)
    _corrector(coefficients.shape[0])(sci, groupdq, coefficients, out)
    return out


def correct_zeroframe(zeroframe: np.ndarray, coefficients: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Evaluate the polynomial of each pixel on the zeroth frame, where exact zeros mark unusable values and stay.

    Parameters
    ----------
    zeroframe
        float32 (integration, y, x) [DN].
    coefficients
        As for :func:`correct`.
    out
        Where to write; may be ``zeroframe``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``zeroframe`` [DN].
    """
    unusable = np.where(zeroframe == 0, _SATURATED, np.uint8(0))[:, np.newaxis]
    if out is None:
        out = np.empty_like(zeroframe)
    _corrector(coefficients.shape[0])(zeroframe[:, np.newaxis], unusable, coefficients, out[:, np.newaxis])
    return out


# The compiler unrolls a polynomial and works on many pixels at once only if it knows the number of coefficients:
# functions are made for each number.


@lru_cache(maxsize=32)
def _corrector(count: int) -> Callable[..., None]:
    @numba.njit(cache=True, nogil=True)
    def run(sci, groupdq, coefficients, out):
        integrations, groups, ny, nx = sci.shape
        # Through a line of its own, since ``out`` may be ``sci``.
        line = np.empty(nx, np.float32)
        for integration in range(integrations):
            for y in range(ny):
                for group in range(groups):
                    values = sci[integration, group, y]
                    flags = groupdq[integration, group, y]
                    target = out[integration, group, y]
                    for x in range(nx):
                        value = values[x]
                        # Horner's scheme; each operation rounds to float32.
                        total = coefficients[count - 1, y, x] * value
                        for k in range(count - 2, 0, -1):
                            total = (total + coefficients[k, y, x]) * value
                        total += coefficients[0, y, x]
                        line[x] = value if (flags[x] & _SATURATED) != 0 else total
                    for x in range(nx):
                        target[x] = line[x]

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
    @numba.njit(cache=True, nogil=True, error_model="numpy")
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
