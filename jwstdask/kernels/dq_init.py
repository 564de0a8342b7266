"""Flags known before any pixel is looked at."""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.core import dq
from jwstdask.kernels.compiled import COMPILED

_DO_NOT_USE = np.uint8(dq.DO_NOT_USE)


@numba.njit(**COMPILED)
def initialize(pixeldq, groupdq, mask):
    """Add a mask to the pixel flags, and its unusable pixels to the flags of every group.

    Parameters
    ----------
    pixeldq
        uint32 (y, x), changed in place.
    groupdq
        uint8 (integration, group, y, x), changed in place.
    mask
        uint32 (y, x).
    """
    integrations, groups, ny, nx = groupdq.shape
    unusable = np.empty(nx, np.uint8)
    for y in range(ny):
        row, union = mask[y], np.uint8(0)
        for x in range(nx):
            pixeldq[y, x] |= row[x]
            unusable[x] = np.uint8(row[x]) & _DO_NOT_USE
            union = np.uint8(union | unusable[x])
        if union == 0:
            continue
        for integration in range(integrations):
            for group in range(groups):
                flags = groupdq[integration, group, y]
                for x in range(nx):
                    flags[x] |= unusable[x]
