"""Count rates of the guiders, by differences of reads (correlated double sampling).

Source: JWST pipeline documentation, "Guider CDS processing".
"""

from __future__ import annotations

import numba
import numpy as np

ENDS = 4
"""Reads averaged at either end of a fine-guide integration."""


@numba.njit(cache=True, nogil=True)
def difference(sci: np.ndarray) -> np.ndarray:
    """Second read less first.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN], two groups or more.

    Returns
    -------
    difference
        float32 (integration, y, x) [DN].
    """
    return sci[:, 1] - sci[:, 0]


def groups_between_means(groups: int) -> int:
    """Groups between the middles of the first and the last reads that `difference_of_means` averages."""
    return max(groups - min(ENDS, groups), 1)


@numba.njit(cache=True, nogil=True)
def difference_of_means(sci: np.ndarray) -> np.ndarray:
    """Mean of the last four reads less mean of the first four, or of as many as there are; see `difference`."""
    integrations, groups, ny, nx = sci.shape
    count = min(ENDS, groups)
    number = np.float32(count)
    result = np.empty((integrations, ny, nx), np.float32)
    for i in range(integrations):
        for y in range(ny):
            for x in range(nx):
                first, last = np.float32(0), np.float32(0)
                for k in range(count):
                    first += sci[i, k, y, x]
                    last += sci[i, groups - count + k, y, x]
                result[i, y, x] = last / number - first / number
    return result


def least_difference(sci: np.ndarray) -> np.ndarray:
    """The smaller of the differences of the first two integrations, which no cosmic ray has raised.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN], two integrations and groups or more.

    Returns
    -------
    difference
        float32 (1, y, x) [DN]; NaN where either is.
    """
    found = difference(sci[:2])
    return np.minimum(found[1:], found[:1])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def rates(
    signal: np.ndarray, gain: np.ndarray, readnoise: np.ndarray, group_time: float
) -> tuple[np.ndarray, np.ndarray]:
    """Count rates and their errors.

    The variance is that of two reads and of the photons of the difference, which negative differences have none of.

    Parameters
    ----------
    signal
        float32 (integration, y, x) [DN].
    gain
        float32 (y, x) [electron/DN].
    readnoise
        float32 (y, x) [DN].
    group_time
        [s]

    Returns
    -------
    rate, err
        float32 (integration, y, x) [DN/s].
    """
    time = np.float32(group_time)
    two, zero = np.float32(2), np.float32(0)
    rate, err = np.empty_like(signal), np.empty_like(signal)
    for i in range(signal.shape[0]):
        for y in range(signal.shape[1]):
            for x in range(signal.shape[2]):
                noise = readnoise[y, x] / time
                photons = signal[i, y, x] / (gain[y, x] * time)
                if photons < zero:
                    photons = zero
                rate[i, y, x] = signal[i, y, x] / time
                err[i, y, x] = np.sqrt(two * (noise * noise) + photons)
    return rate, err
