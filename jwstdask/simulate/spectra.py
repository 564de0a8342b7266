"""Spectra on a detector: traces with a smooth continuum and emission lines, a known rate image without a sky."""

from __future__ import annotations

import numpy as np

from jwstdask.simulate.instruments import Aperture

SPACING = 24
"""Pixels between traces."""


def spectra(rng: np.random.Generator, aperture: Aperture, axis: str, full: float) -> np.ndarray:
    """Count rates [DN/s] of spectra along an axis ("x" or "y"), float64 (y, x).

    Parameters
    ----------
    full
        Rate [DN/s] that fills the well in an integration; the brightest lines have twice as much and saturate.
    """
    across, along = aperture.shape if axis == "x" else aperture.shape[::-1]
    position = np.arange(along) / along
    light = np.zeros((across, along))
    for centre in np.arange(min(SPACING, across) / 2, across, SPACING):
        level = full * np.exp(rng.uniform(np.log(0.01), np.log(0.4)))
        spectrum = level * (1 + 0.5 * np.sin(2 * np.pi * (position * rng.uniform(0.5, 2) + rng.uniform())))
        for place, width, strength in zip(rng.uniform(0, 1, 6), rng.uniform(1, 3, 6), rng.exponential(2.0, 6)):
            spectrum += min(level * strength, 2 * full) * np.exp(-(((position - place) * along / width) ** 2) / 2)
        trace = centre + rng.uniform(-2, 2) + 2 * (position - 0.5) ** 2
        width = 1.2 + 0.6 * position
        near = slice(max(int(centre) - 12, 0), int(centre) + 13)
        distance = np.arange(across)[near, np.newaxis] - trace
        light[near] += spectrum * np.exp(-((distance / width) ** 2) / 2)
    return light if axis == "x" else light.T
