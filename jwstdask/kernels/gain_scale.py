"""Rescaling of count rates taken with a non-standard detector gain."""

from __future__ import annotations

import numpy as np


def rescale(image: np.ndarray, gain_factor: float, power: int = 1, out: np.ndarray | None = None) -> np.ndarray:
    """Multiply an image by ``gain_factor`` to a power: 1 for values and errors, 2 for variances.

    Parameters
    ----------
    image
        float32 ([integration,] y, x).
    gain_factor
        Ratio of the standard gain to the gain in use.
    power
        1 or 2.
    out
        Where to write; may be ``image``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``image``.
    """
    return np.multiply(image, np.float32(gain_factor**power), out=out)
