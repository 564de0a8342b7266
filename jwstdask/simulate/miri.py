"""What is particular to MIRI's detectors: four outputs that read every fourth column, interference, resets.

Sources: Argyriou et al. (2023) for the effects; clocks and frequencies of the interference as in its public reference
(rounded).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jwstdask.simulate.instruments import MIRI_FRAMES, SLOW_FRAME, row_clocks
from jwstdask.simulate.ramps import Electronics, pink_noise, read_charge

FREQUENCIES = {"Hz390": 390.625, "Hz218a": 218.52055, "Hz10": 10.039216}
"""Interference [Hz]."""


def heard(subarray: str, slow: bool = False) -> tuple[str, ...]:
    """Frequencies that disturb a subarray.

    A frequency that does a whole number of periods in a frame adds the same to all groups and is no matter: 390.625 Hz
    in large and slow frames.
    """
    if slow:
        return ("Hz10",)
    return ("Hz10", "Hz218a") if subarray in ("FULL", "BRIGHTSKY", "SUB256") else ("Hz390", "Hz218a")


RESET_GROUPS = 8
"""Groups after a reset that the reset reference has; later ones are not disturbed."""

SKIPPED = {"FAST": (3, 4), "SLOW": (1, 2)}
"""Groups that RSCD makes unusable in the first and in later integrations."""


def wave(name: str) -> np.ndarray:
    """One period of the interference at a frequency, amplitude about 1."""
    bins = min(int(5e4 / FREQUENCIES[name]), 500)
    phase = 2 * np.pi * (np.arange(bins) + 0.5) / bins
    # With odd harmonics alone, half a turn and a negative amplitude would fit as well.
    return np.sin(phase) + 0.2 * np.sin(2 * phase + 0.7) + 0.3 * np.cos(3 * phase)


def reset_anomaly(strength: np.ndarray, integration: int, group: int) -> np.ndarray:
    """What a group is too high by [DN], float32 (y, x); smaller after the first integration."""
    if group >= RESET_GROUPS:
        return np.zeros_like(strength)
    return strength * np.float32((1.0 if integration == 0 else 0.4) * np.exp(-group / 2.5))


def interference_cases() -> dict:
    """Clocks and frequencies of all subarrays, as the reference has them."""
    slow = {detector: list(heard("FULL", True)) for detector in ("MIRIMAGE", "MIRIFULONG", "MIRIFUSHORT")}
    cases = {}
    for subarray, (row, frame) in MIRI_FRAMES.items():
        name = "FULL_FAST" if subarray == "FULL" else subarray
        frequencies = {"FAST": list(heard(subarray)), "SLOW": slow}
        cases[name] = {"rowclocks": row, "frameclocks": frame, "freqs": frequencies}
    row, frame = SLOW_FRAME
    cases["FULL_SLOW"] = {"rowclocks": row, "frameclocks": frame, "freqs": cases["FULL_FAST"]["freqs"]}
    return cases


class MiriElectronics(Electronics):
    """The chain of a mid-infrared detector."""

    has_reference_output = True
    last_signal = np.zeros((1, 1), np.float32)

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        strengths = self.rng.uniform(0.6, 1.0, len(FREQUENCIES)) * self.effects.interference
        phases = self.rng.uniform(0, 1, len(FREQUENCIES))
        self.disturbance = dict(zip(FREQUENCIES, zip(strengths, phases)))

    def reset(self) -> None:
        """A new integration: the signal before it is remembered."""
        super().reset()
        # The bias is part of what the nonlinearity acts on, here only what changes from reset to reset.
        self.offset = self.offset - self.arrays.superbias
        self.before_reset = self.last_signal

    def _interference(self, integration: int, frame: int) -> np.ndarray:
        """Interference of a frame [DN], float32 (y, x): one value for four neighbouring columns."""
        subarray = self.aperture.name.split("_", 1)[1]
        row, whole = row_clocks(subarray, self.pattern)
        frames = self.ngroups * self.pattern.nframes
        # one frame of reset between integrations
        clock = float(whole) * (frame + integration * (frames + 1)) + np.arange(self.shape[0])[:, np.newaxis] * row
        clock = clock + np.arange(self.shape[1] // 4) * self.pattern.samples
        found = np.zeros(clock.shape)
        for name in heard(subarray, self.pattern.samples > 1):
            strength, start = self.disturbance[name]
            period = wave(name)
            phase = (clock * 1e-5 * FREQUENCIES[name] + start) % 1
            places = np.append(np.arange(period.size) + 0.5, period.size + 0.5) / period.size
            found += strength * np.interp(phase, places, np.append(period, period[0]), period=1)
        return np.repeat(found, 4, axis=1).astype(np.float32)

    def read(self, charge: np.ndarray, integration: int = 0, group: int = 0, frame: int = 0) -> np.ndarray:
        """One read of all pixels: whole numbers from 0 to 65535, float32 (y, x)."""
        rng, effects, arrays = self.rng, self.effects, self.arrays
        active = ~arrays.reference_pixels
        # a tenth of what the near-infrared electronics drift by
        self.drift += rng.normal(0, effects.drift / 30, self.amplifiers)
        sample = read_charge(charge, arrays, self.inverse_gain, active, effects.ipc, with_bias=True)
        self.last_signal = sample - arrays.superbias
        sample += self.offset
        sample += (self.drift[:, None] + self.odd_even)[self.amplifier, self.odd].astype(np.float32)
        if effects.reset_decay:
            sample += np.float32(effects.reset_decay) * reset_anomaly(arrays.reset, integration, group)
        if integration and effects.switch_decay:
            sample -= np.float32(effects.switch_decay * np.exp(-group / 0.8)) * np.where(active, self.before_reset, 0)
        if group == 0:
            sample -= np.float32(effects.first_frame)
        if group == self.ngroups - 1:
            sample -= np.float32(effects.last_frame)
        if effects.interference:
            sample += self._interference(integration, frame)
        if effects.pink_noise:
            stream = pink_noise(rng, self.shape[0] * (self.shape[1] // 4)).reshape(self.shape[0], -1)
            sample += np.float32(effects.pink_noise / 4) * np.repeat(stream, 4, axis=1)
        if effects.read_noise:
            # slow reads average samples
            noise = arrays.read_noise / np.float32(np.sqrt(self.pattern.samples))
            sample += noise * rng.standard_normal(sample.shape, dtype=np.float32)
        np.rint(sample, out=sample)
        return np.clip(sample, 0, 65535, out=sample)

    def reference_output(self) -> np.ndarray:
        """A read of the fifth output, uint16 (y / 4, x): the same number of samples."""
        shape = self.shape[0] // 4, self.shape[1]
        noise = 6 * self.rng.standard_normal(shape) if self.effects.read_noise else np.zeros(shape)
        return np.rint(8200 + noise).astype(np.uint16)
