"""What a detector is like, pixel by pixel: the arrays that its reference files hold and its exposures obey.

Values are drawn from distributions like those of the flight detectors (JDox; Rauscher et al. 2014 for the noise): not
those of any one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from jwstdask.simulate.instruments import Aperture, Detector, Instrument

LINEARITY_SCALE = 60000.0
"""Signal [DN] at which the terms of the linearity polynomial are given."""

LINEARITY_TERMS = (0.020, 0.028, 0.012, 0.006)
"""Relative size of the terms of order 2, 3, ... at :data:`LINEARITY_SCALE`."""


@dataclass
class DetectorMaps:
    """Arrays of one detector in the window of an aperture, all (y, x).

    ``flags`` holds, for each kind of reference, boolean maps by the name of the data-quality flag; ``reset`` is the
    strength of the reset anomaly [DN] of a mid-infrared detector.
    """

    gain: np.ndarray
    superbias: np.ndarray
    read_noise: np.ndarray
    saturation: np.ndarray
    linearity: np.ndarray
    dark_rate: np.ndarray
    flat: np.ndarray
    reference_pixels: np.ndarray
    flags: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    reset: np.ndarray | None = None

    def cut(self, aperture: Aperture) -> DetectorMaps:
        """Those of a part of the full frame."""
        arrays = {name: aperture.cut(value) for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        flags = {kind: {n: aperture.cut(f) for n, f in group.items()} for kind, group in self.flags.items()}
        return DetectorMaps(**arrays, flags=flags)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], cells: int = 4) -> np.ndarray:
    """A smooth random surface of about unit variance, float32 (y, x)."""
    nodes = rng.standard_normal((cells + 3, cells + 3))
    rows, columns = (np.linspace(1, cells + 1, n) for n in shape)
    along = ndimage.map_coordinates(nodes, np.meshgrid(rows, np.arange(cells + 3), indexing="ij"), order=3)
    surface = ndimage.map_coordinates(along, np.meshgrid(np.arange(shape[0]), columns, indexing="ij"), order=3)
    return surface.astype(np.float32)


def _choose(rng: np.random.Generator, where: np.ndarray, share: float, least: int = 1) -> np.ndarray:
    """A boolean map with a share of the pixels of ``where``, but at least ``least`` of them where there are as many."""
    chosen = np.zeros(where.size, bool)
    candidates = np.flatnonzero(where)
    number = min(max(least, round(share * candidates.size)), candidates.size)
    chosen[rng.choice(candidates, number, replace=False)] = True
    return chosen.reshape(where.shape)


def make_maps(instrument: Instrument, detector: Detector, aperture: Aperture, rng: np.random.Generator) -> DetectorMaps:
    """Draw a detector."""
    shape = (aperture.y_size, aperture.x_size)
    border = instrument.touches_border(aperture)
    active = ~border
    normal = lambda: rng.standard_normal(shape, dtype=np.float32)  # noqa: E731
    amplifier = instrument.amplifier(aperture)

    gain = detector.gain * (1 + 0.01 * smooth_field(rng, shape))
    gain *= (1 + 0.008 * rng.standard_normal(instrument.amplifiers))[amplifier].astype(np.float32)
    superbias = detector.bias + 400 * smooth_field(rng, shape) + 250 * normal()
    superbias += (600 * rng.standard_normal(instrument.amplifiers))[amplifier]
    # lines along the slow direction
    lines = 40 * rng.standard_normal(shape[0 if aperture.vertical else 1])
    superbias += lines[:, np.newaxis] if aperture.vertical else lines
    read_noise = detector.read_noise * np.exp(0.12 * normal())
    noisy = _choose(rng, active, 0.002)
    read_noise[noisy] *= rng.uniform(2, 8, int(noisy.sum()))
    read_noise /= gain
    full_well = detector.full_well * (1 + 0.03 * smooth_field(rng, shape) + 0.01 * normal())
    full_well[_choose(rng, active, 0.0005)] *= 0.4

    linearity = np.zeros((len(LINEARITY_TERMS) + 2, *shape), np.float32)
    linearity[1] = 1
    for order, size in enumerate(LINEARITY_TERMS, start=2):
        linearity[order] = size / LINEARITY_SCALE ** (order - 1) * (1 + 0.05 * normal())
    linearity[2:, border] = 0

    dark = detector.dark_current * np.exp(0.3 * normal())
    warm, hot = _choose(rng, active, 0.004), _choose(rng, active, 0.0015, least=3)
    dark[warm] = 10 ** rng.uniform(-1.0, 0.7, int(warm.sum()))
    dark[hot] = 10 ** rng.uniform(0.7, 3.0, int(hot.sum()))
    dark[border] = 0

    flat = 1 + 0.02 * smooth_field(rng, shape, 6) + 0.008 * normal()
    low = _choose(rng, active, 0.0006)
    flat[low] *= rng.uniform(0.2, 0.6, int(low.sum()))
    dead = _choose(rng, active, 0.0008, least=2)
    # open pixels: no contact, dead themselves, their neighbours too bright
    open_ = _choose(rng, active, 0.0001) & ~dead
    beside = ndimage.binary_dilation(open_, ndimage.generate_binary_structure(2, 1)) & ~open_ & active
    flat[dead | open_] = 0
    flat[beside] *= 1.15
    flat[border] = 1

    maps = DetectorMaps(
        gain=gain.astype(np.float32),
        superbias=superbias.astype(np.float32),
        read_noise=read_noise.astype(np.float32),
        saturation=full_well.astype(np.float32),
        linearity=linearity,
        dark_rate=dark.astype(np.float32),
        flat=flat.astype(np.float32),
        reference_pixels=border,
    )
    no_lin, no_sat = _choose(rng, active, 0.0006, least=2), _choose(rng, active, 0.0005, least=2)
    bad_reference = _choose(rng, border, 0.003)
    no_flat = _choose(rng, active & ~dead, 0.0003, least=2)
    unusable = dead | open_ | (hot & (dark > 50))
    maps.flags = {
        "mask": {
            "DO_NOT_USE": unusable | bad_reference, "DEAD": dead, "HOT": hot, "WARM": warm & ~hot, "LOW_QE": low,
            "RC": _choose(rng, active, 0.0002), "TELEGRAPH": _choose(rng, active, 0.0002), "NONLINEAR": no_lin,
            "BAD_REF_PIXEL": bad_reference, "OPEN": open_, "ADJ_OPEN": beside,
            "UNRELIABLE_SLOPE": _choose(rng, active, 0.0002),
            "OTHER_BAD_PIXEL": _choose(rng, active, 0.0001), "REFERENCE_PIXEL": border,
        },
        "saturation": {"NO_SAT_CHECK": no_sat},
        "superbias": {"UNRELIABLE_BIAS": _choose(rng, active, 0.0005, least=2)},
        "linearity": {"NO_LIN_CORR": no_lin | border, "NONLINEAR": _choose(rng, active, 0.0002)},
        "dark": {"HOT": hot, "WARM": warm & ~hot, "UNRELIABLE_DARK": _choose(rng, active, 0.0004)},
        "flat": {
            "DO_NOT_USE": no_flat | dead | open_, "NO_FLAT_FIELD": no_flat | dead | open_ | border,
            "UNRELIABLE_FLAT": _choose(rng, active, 0.0004), "LOW_QE": low, "ADJ_OPEN": beside,
        },
    }  # fmt: skip
    if instrument.mid_infrared:
        maps.reset = (40 * (1 + 0.2 * smooth_field(rng, shape) + 0.1 * normal())).astype(np.float32)
        maps.flags["reset"] = {"UNRELIABLE_BIAS": _choose(rng, active, 0.0003)}
    return maps


def linearised(signal: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Value of the linearity polynomial (the correction that a pipeline applies), Horner's scheme."""
    value = np.zeros_like(signal)
    for coefficient in coefficients[::-1]:
        value *= signal
        value += coefficient
    return value


def unlinearised(linear: np.ndarray, coefficients: np.ndarray, iterations: int = 3) -> np.ndarray:
    """Signal whose linearity correction is ``linear``, by Newton's method.

    The corrections are a few percent, so the error of the start (its square) shrinks to below 1e-6 of the signal in two
    steps.
    """
    signal = linear / (1 + coefficients[2] * linear)
    powers = np.arange(1, coefficients.shape[0]).reshape((-1,) + (1,) * linear.ndim).astype(linear.dtype)
    slope = coefficients[1:] * powers
    for _ in range(iterations):
        signal -= (linearised(signal, coefficients) - linear) / linearised(signal, slope)
    return signal
