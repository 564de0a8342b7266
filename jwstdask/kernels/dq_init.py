"""Flags known before any pixel is looked at."""

from __future__ import annotations

import numpy as np

from jwstdask.core import dq


def initialize(pixeldq: np.ndarray, groupdq: np.ndarray, mask: np.ndarray) -> None:
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
    np.bitwise_or(pixeldq, mask, out=pixeldq)
    unusable = (mask & np.uint32(dq.DO_NOT_USE)).astype(np.uint8)
    if unusable.any():
        np.bitwise_or(groupdq, unusable, out=groupdq)
