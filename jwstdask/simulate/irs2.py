"""IRS2 readouts of NIRSpec: reference samples between the pixels, and a fifth output without light.

After every 16 pixels (8 at the ends of a line) the readout steps out to 4 reference samples, which takes the time of a
sample each way; lines end with a pause of 8 samples. The four outputs of the detector and the reference output are read
at the same time and share most of the 1/f noise. A frame of the file has the rows of the reference output first (NRS1;
last for NRS2), then those of the four outputs, in the order of the detector. Sources: Rauscher et al. (2017); Moseley
et al. (2010).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jwstdask.simulate.instruments import IRS2_LINE
from jwstdask.simulate.ramps import Electronics, pink_noise, read_charge

NORMAL, REFERENCE = 16, 4
"""NRS_NORM, NRS_REF."""

SECTION = 512 // NORMAL * (NORMAL + REFERENCE)
"""Rows of an output in the file."""

ROWS = 5 * SECTION
"""Rows of a frame of the file."""

FREQUENCIES = 2048 * IRS2_LINE
"""Samples of a frame with all gaps, and frequencies of the weights."""


def interleaved() -> np.ndarray:
    """Which rows of an output hold reference samples, bool (row,); the same from both ends."""
    return (np.arange(SECTION) - NORMAL // 2) % (NORMAL + REFERENCE) < REFERENCE


def science_rows(flipped: bool) -> np.ndarray:
    """Rows of the file that hold the 2048 rows of the detector, int64 (2048,)."""
    lit = np.concatenate([np.zeros(SECTION, bool), *[~interleaved()] * 4])
    return np.flatnonzero(lit[::-1] if flipped else lit)


def sample_times(flipped: bool) -> np.ndarray:
    """When each row of the file is read, in samples from the start of a line, int64 (row,).

    Outputs are read alternately forwards and backwards, the reference output as the second one.
    """
    place = np.arange(SECTION)
    # stepping out costs a sample before the references, stepping back one after them
    done = (place - NORMAL // 2) // (NORMAL + REFERENCE)
    forward = place + np.where(interleaved(), 2 * done + 1, 2 * (done + 1))
    times = np.concatenate([forward if output % 2 else forward[::-1] for output in range(5)])
    return times[::-1] if flipped else times


def interleaved_bias(superbias: np.ndarray, flipped: bool, rng: np.random.Generator) -> np.ndarray:
    """Bias of all rows of a frame [DN], float32 (row, x): that of the detector, and levels of the reference samples."""
    bias = np.empty((ROWS, superbias.shape[1]), np.float32)
    level = float(np.median(superbias)) + 300 * rng.standard_normal(5)
    bias[...] = np.repeat(level, SECTION)[:, np.newaxis]
    bias += 15 * rng.standard_normal(ROWS, dtype=np.float32)[:, np.newaxis]
    bias[science_rows(flipped)] = superbias
    return bias


def weights() -> dict[str, np.ndarray]:
    """Weights by output (``alpha_0`` ... of the reference output, ``beta_0`` ... of the interleaved samples).

    Complex numbers as pairs, float32 (2 * frequency,). Slow noise is taken from the interleaved samples, which stand
    for 256 of the 712 samples of a line, faster noise from the reference output, as far as it is above the read noise.
    """
    number = np.arange(FREQUENCIES)
    frequency = np.minimum(number, FREQUENCIES - number)
    slow = np.exp(-((frequency / 1e4) ** 2))
    seen = 1 / (1 + frequency / 5e4)
    found = {"alpha": seen * (1 - slow), "beta": seen * slow * IRS2_LINE / 256}
    table = {}
    for name, values in found.items():
        pairs = np.zeros((FREQUENCIES, 2), np.float32)
        pairs[:, 0] = values
        table.update({f"{name}_{output}": pairs.ravel() for output in range(4)})
    return table


class Irs2Electronics(Electronics):
    """The chain of a detector that is read in IRS2 mode; frames have all rows of the file."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.shape = (ROWS, self.aperture.x_size)
        self.rows = science_rows(self.flip[0])
        self.times = sample_times(self.flip[0])

    def read(self, charge: np.ndarray, integration: int = 0, group: int = 0, frame: int = 0) -> np.ndarray:
        """One read of all rows: whole numbers from 0 to 65535, float32 (row, x)."""
        rng, effects, arrays = self.rng, self.effects, self.arrays
        self.drift += rng.normal(0, effects.drift / 3, self.amplifiers)
        sample = arrays.interleaved.copy()
        if effects.read_noise:
            noise = np.float32(np.median(arrays.read_noise))
            sample += noise * rng.standard_normal(sample.shape, dtype=np.float32)
        # the pixels: what reset and charge left of the bias, and their own noise
        pixels = self.offset + read_charge(charge, arrays, self.inverse_gain, ~arrays.reference_pixels, effects.ipc)
        if effects.read_noise:
            pixels += arrays.read_noise * rng.standard_normal(pixels.shape, dtype=np.float32)
        sample[self.rows] = pixels
        if effects.correlated:
            common = pink_noise(rng, FREQUENCIES).reshape(-1, IRS2_LINE) * np.float32(effects.correlated)
            if self.flip[1]:
                common = common[::-1]
            sample += common[:, self.times].T
        if effects.drift:
            # the same for all samples of an output
            drift = np.concatenate([[0.0], self.drift])
            drift = np.repeat(drift[::-1] if self.flip[0] else drift, SECTION)
            sample += drift.astype(np.float32)[:, np.newaxis]
        np.rint(sample, out=sample)
        return np.clip(sample, 0, 65535, out=sample)
