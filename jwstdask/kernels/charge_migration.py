"""Flags for groups whose charge has begun to spread into neighbouring pixels.

Source: Goudfrooij, Grumm, Volk and Bushouse, PASP 136, 014503 (2024).
"""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.core import dq
from jwstdask.kernels.compiled import COMPILED

_FLAGS = np.uint8(dq.CHARGELOSS | dq.DO_NOT_USE)
_DO_NOT_USE = np.uint8(dq.DO_NOT_USE)


@numba.njit(**COMPILED)
def flag(sci, groupdq, signal_threshold):
    """Flag each pixel and its four neighbours from the first group above a threshold to the end of the ramp.

    A group whose flags are exactly DO_NOT_USE does not start a flagged run. Flags are CHARGELOSS and DO_NOT_USE.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    groupdq
        uint8 (integration, group, y, x), changed in place.
    signal_threshold
        float32 or float64 [DN].
    """
    integrations, groups, ny, nx = sci.shape
    first = np.empty((ny, nx), np.int64)
    for integration in range(integrations):
        found = False
        for y in range(ny):
            for x in range(nx):
                first[y, x] = groups
        for group in range(groups - 1, -1, -1):
            for y in range(ny):
                for x in range(nx):
                    above = sci[integration, group, y, x] > signal_threshold
                    if above and groupdq[integration, group, y, x] != _DO_NOT_USE:
                        first[y, x] = group
                        found = True
        if not found:
            continue
        for y in range(ny):
            for x in range(nx):
                start = first[y, x]
                if y > 0:
                    start = min(start, first[y - 1, x])
                if y < ny - 1:
                    start = min(start, first[y + 1, x])
                if x > 0:
                    start = min(start, first[y, x - 1])
                if x < nx - 1:
                    start = min(start, first[y, x + 1])
                for group in range(start, groups):
                    groupdq[integration, group, y, x] |= _FLAGS
