"""Rescaling of groups averaged on board with a divisor that is not the number of frames."""

from __future__ import annotations

import numpy as np


def rescale(sci: np.ndarray, frame_divisor: float, nframes: int, out: np.ndarray | None = None) -> np.ndarray:
    """Multiply a ramp by ``frame_divisor / nframes``.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    frame_divisor
        What the frames of a group were divided by on board, a power of two.
    nframes
        Frames averaged into a group.
    out
        Where to write; may be ``sci``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``sci`` [DN].
    """
    return np.multiply(sci, np.float32(float(frame_divisor) / nframes), out=out)
