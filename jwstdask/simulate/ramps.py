"""From count rates to raw samples up the ramp: what a near-infrared array and its electronics do to the light.

Order of effects: photons and dark current (Poisson), cosmic rays and snowballs, charge beyond the full well spilling
into neighbours, inter-pixel capacitance, gain, nonlinearity, reset noise, bias, 1/f noise, drifts of the amplifiers,
read noise, 16-bit conversion, averaging of frames into groups. Sources: Rauscher (2015) for the noise components;
Robberto (2010) for cosmic rays; Green et al. (2020) and Rieke et al. (2023) for snowballs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.fft
from astropy.table import Table
from scipy import ndimage

from jwstdask.simulate.detector import unlinearised
from jwstdask.simulate.instruments import Aperture, Instrument, ReadPattern


@dataclass(frozen=True)
class Effects:
    """Strength of the detector effects.

    Attributes
    ----------
    cosmic_rays
        Hits a cm^2 a second.
    snowballs
        Mean number an integration (real: about 20 a detector in 1000 s).
    pink_noise
        Standard deviation of the 1/f noise of a frame [DN].
    drift
        Standard deviation, from frame to frame, of an amplifier's offset [DN].
    odd_even
        Size of the difference between odd and even columns [DN].
    reset_noise
        Standard deviation of the offset of an integration (kTC) [DN].
    ipc
        Share of the charge seen in each of the four neighbours.
    spill
        Charge beyond the full well goes to the neighbours.
    pixel_pitch
        Side of a pixel [cm].
    interference
        Amplitude of the electromagnetic interference [DN], mid-infrared.
    reset_decay
        Strength of the decay after a reset, in units of the reset reference, mid-infrared.
    switch_decay
        Share of the signal before a reset that is missing, at first, after it (RSCD), mid-infrared.
    first_frame, last_frame
        What the first and the last group are too low by [DN], mid-infrared.
    correlated
        Standard deviation of the 1/f noise that all outputs share in an IRS2 readout [DN].
    """

    poisson: bool = True
    read_noise: bool = True
    cosmic_rays: float = 5.0
    snowballs: float = 1.0
    pink_noise: float = 2.0
    drift: float = 3.0
    odd_even: float = 6.0
    reset_noise: float = 12.0
    ipc: float = 0.0
    spill: bool = True
    pixel_pitch: float = 18e-4
    interference: float = 5.0
    reset_decay: float = 1.0
    switch_decay: float = 0.01
    first_frame: float = 25.0
    last_frame: float = 20.0
    correlated: float = 6.0

    @classmethod
    def none(cls) -> Effects:
        """No noise, no cosmic rays: bias, gain, nonlinearity, dark and saturation only."""
        return cls(False, False, *[0.0] * 7, False, 18e-4, *[0.0] * 6)


@dataclass
class ReferenceArrays:
    """What the ramp needs of the detector: float32 (y, x), ``linearity`` (order, y, x), ``reference_pixels`` bool.

    ``reset`` is the strength of the reset anomaly (mid-infrared), ``interleaved`` the bias (row, x) of all rows of an
    IRS2 frame.
    """

    gain: np.ndarray
    superbias: np.ndarray
    read_noise: np.ndarray
    full_well: np.ndarray
    linearity: np.ndarray
    dark_rate: np.ndarray
    reference_pixels: np.ndarray
    reset: np.ndarray | None = None
    interleaved: np.ndarray | None = None


@dataclass
class Ramp:
    """Raw exposure.

    ``data`` uint16 (integration, group, y, x); ``zeroframe`` uint16 (integration, y, x) or None; ``cosmic_rays`` and
    ``snowballs`` list what hit. ``reference_output`` uint16 (integration, group, y / 4, x) of mid-infrared detectors.
    """

    data: np.ndarray
    zeroframe: np.ndarray | None
    cosmic_rays: Table = field(default_factory=Table)
    snowballs: Table = field(default_factory=Table)
    reference_output: np.ndarray | None = None

    def integrations(self, part: slice) -> Ramp:
        """Some integrations; the lists of hits are those of all."""
        data, zero, out = (
            None if array is None else array[part] for array in (self.data, self.zeroframe, self.reference_output)
        )
        return Ramp(data, zero, self.cosmic_rays, self.snowballs, out)


def pink_noise(rng: np.random.Generator, samples: int, dtype: type = np.float32) -> np.ndarray:
    """A stretch of noise with power falling as 1/f, variance 1."""
    length = scipy.fft.next_fast_len(samples, real=True)
    bins = length // 2 + 1
    spectrum = np.empty(bins, np.complex64)
    spectrum.real = rng.standard_normal(bins, dtype=np.float32)
    spectrum.imag = rng.standard_normal(bins, dtype=np.float32)
    amplitude = np.zeros(bins, np.float32)
    amplitude[1:] = 1 / np.sqrt(np.arange(1, bins, dtype=np.float32))
    # variance of the inverse transform: 2 sum(2 amplitude^2) / length^2
    scale = length / np.sqrt(4 * np.sum(amplitude.astype(float) ** 2))
    return scipy.fft.irfft(spectrum * amplitude, length)[:samples].astype(dtype) * np.float32(scale)


def _pink_frame(rng: np.random.Generator, shape: tuple[int, int], outputs: int, flip: tuple[bool, bool]) -> np.ndarray:
    """1/f noise in the order of readout: rows one after the other, all amplifiers at once (common to them)."""
    rows, columns = shape[0], shape[1] // outputs
    overhead = 12
    stream = pink_noise(rng, rows * (columns + overhead)).reshape(rows, columns + overhead)[:, :columns]
    frame = np.empty(shape, np.float32)
    for k in range(outputs):
        # neighbouring amplifiers scan in opposite directions
        frame[:, k * columns : (k + 1) * columns] = stream[:, ::-1] if (k % 2) != flip[0] else stream
    return frame[::-1] if flip[1] else frame


_NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def spill(charge: np.ndarray, well: np.ndarray, closed: np.ndarray, rounds: int = 12) -> None:
    """Move charge beyond the full well to the four neighbours, in place; ``closed`` pixels neither give nor take."""
    ny, nx = charge.shape
    y, x = np.nonzero((charge > well) & ~closed)
    for _ in range(rounds):
        if y.size == 0:
            return
        excess = charge[y, x] - well[y, x]
        charge[y, x] = well[y, x]
        reached = []
        for dy, dx in _NEIGHBOURS:
            ty, tx = y + dy, x + dx
            inside = (ty >= 0) & (ty < ny) & (tx >= 0) & (tx < nx)
            inside[inside] = ~closed[ty[inside], tx[inside]]
            np.add.at(charge, (ty[inside], tx[inside]), excess[inside] / 4)
            reached.append(ty[inside] * nx + tx[inside])
        index = np.unique(np.concatenate(reached))
        y, x = np.divmod(index, nx)
        over = charge[y, x] > well[y, x]
        y, x = y[over], x[over]
    # The rest of a burst this bright leaves the array.
    charge[y, x] = np.minimum(charge[y, x], well[y, x])


def cosmic_ray_hits(
    rng: np.random.Generator, shape: tuple[int, int], number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tracks of energetic particles.

    A particle crosses the 5 micron thick layer at a slant, so its track covers one to tens of pixels; the charge in a
    pixel is proportional to the path in it, and a little diffuses sideways.

    Returns
    -------
    hit, row, column, electrons
        One entry a lit pixel; ``hit`` counts the particles from 0.
    """
    start_y, start_x = rng.uniform(0, shape[0], number), rng.uniform(0, shape[1], number)
    angle = rng.uniform(0, 2 * np.pi, number)
    # isotropic flux through a plane: sin^2(theta) uniform; thickness 0.28 pixel
    slope = np.sqrt(rng.uniform(0, 0.999, number))
    length = np.minimum(0.28 * slope / np.sqrt(1 - slope**2), 30)
    energy = np.exp(rng.normal(np.log(1500), 1.1, number)) / np.sqrt(1 - slope**2)
    points = np.maximum(np.ceil(length * 6), 4).astype(int)
    hit = np.repeat(np.arange(number), points)
    along = (np.arange(points.sum()) - np.repeat(np.cumsum(points) - points, points) + 0.5) / np.repeat(points, points)
    blur = rng.normal(0, 0.22, (2, hit.size))
    y = np.floor(start_y[hit] + along * length[hit] * np.sin(angle[hit]) + blur[0]).astype(int)
    x = np.floor(start_x[hit] + along * length[hit] * np.cos(angle[hit]) + blur[1]).astype(int)
    charge = (energy / points)[hit]
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    key = (hit[inside] * shape[0] + y[inside]) * shape[1] + x[inside]
    unique, inverse = np.unique(key, return_inverse=True)
    electrons = np.bincount(inverse, charge[inside], unique.size)
    rest, column = np.divmod(unique, shape[1])
    which, row = np.divmod(rest, shape[0])
    return which, row, column, electrons


def snowball_image(rng: np.random.Generator, radius: float, well: float) -> np.ndarray:
    """Charge (y, x) of a snowball: a saturated round core of a radius [pixel] and a halo falling to three radii."""
    reach = int(np.ceil(3.5 * radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    stretch = rng.uniform(0.92, 1.08)
    r = np.hypot(y * stretch, x / stretch)
    halo = 0.25 * well * np.exp(-(r - radius) / (0.55 * radius))
    return np.where(r < radius, 1.6 * well, np.where(r < 3.5 * radius, halo, 0.0))


def simulate_ramp(
    rng: np.random.Generator,
    rate: np.ndarray,
    arrays: ReferenceArrays,
    instrument: Instrument,
    aperture: Aperture,
    pattern: ReadPattern,
    ngroups: int,
    nints: int,
    effects: Effects,
    directions: tuple[int, int] = (1, 2),
    zeroframe: bool = False,
    electronics: Callable[..., Electronics] | None = None,
) -> Ramp:
    """Raw data of an exposure.

    Parameters
    ----------
    rate
        Light [electron/s], float (y, x).
    directions
        FASTAXIS and SLOWAXIS.
    zeroframe
        Keep the first frame of every integration.
    electronics
        Maker of the electronics, which take the same arguments as :class:`Electronics`.
    """
    frame_time = instrument.frame_time(aperture, pattern)
    active = ~arrays.reference_pixels
    powers = np.zeros_like(arrays.full_well)
    ceiling = arrays.full_well + arrays.superbias if instrument.mid_infrared else arrays.full_well
    for coefficient in arrays.linearity[::-1]:
        powers = powers * ceiling + coefficient
    if instrument.mid_infrared:
        powers -= arrays.superbias
    light = _Light(
        rng=rng,
        rate=np.where(active, np.clip(rate, 0, None) + arrays.dark_rate, 0.0),
        well=np.where(active, powers * arrays.gain, np.inf).astype(np.float32),
        active=active,
        effects=effects,
    )
    reader = (electronics or Electronics)(
        rng, instrument, aperture, arrays, effects, directions, pattern=pattern, ngroups=ngroups
    )
    shape = reader.shape
    data = np.empty((nints, ngroups, *shape), np.uint16)
    zero = np.empty((nints, *shape), np.uint16) if zeroframe else None
    outputs: list[np.ndarray] = []
    frames_a_group = pattern.nframes + pattern.groupgap
    last_frame = (ngroups - 1) * frames_a_group + pattern.nframes
    for integration in range(nints):
        light.reset(integration, last_frame)
        reader.reset()
        for group in range(ngroups):
            first = group * frames_a_group
            if group and pattern.groupgap:
                light.collect(first - pattern.groupgap, pattern.groupgap, frame_time, group)
            total = np.zeros(shape, np.float32)
            for frame in range(first, first + pattern.nframes):
                light.collect(frame, 1, frame_time, group)
                sample = reader.read(light.charge, integration, group, frame)
                if zero is not None and frame == 0:
                    zero[integration] = sample
                total += sample
            np.rint(total / pattern.nframes, out=total)
            data[integration, group] = total
            if reader.has_reference_output:
                outputs.append(reader.reference_output())
    extra = np.stack(outputs).reshape(nints, ngroups, *outputs[0].shape) if outputs else None
    return Ramp(data, zero, light.cosmic_ray_table(), light.snowball_table(), extra)


class _Light:
    """Charge that collects in the pixels [electron], and a record of the particles that hit."""

    def __init__(
        self, rng: np.random.Generator, rate: np.ndarray, well: np.ndarray, active: np.ndarray, effects: Effects
    ) -> None:
        self.rng, self.rate, self.well, self.active, self.effects = rng, rate, well, active, effects
        self.shape = rate.shape
        self.area = rate.size * effects.pixel_pitch**2
        self.typical_well = float(np.median(well[active])) if active.any() else 0.0
        self.charge = np.zeros(self.shape, np.float32)
        self.integration = 0
        self._snow_frames: list[int] = []
        self._rays: list[tuple[np.ndarray, ...]] = []
        self._snow: list[tuple[int, int, int, int, float]] = []

    def reset(self, integration: int, frames: int) -> None:
        """Empty the pixels; draw the frames in which snowballs will fall (not the first: it would hide them)."""
        self.charge[...] = 0
        self.integration = integration
        number = self.rng.poisson(self.effects.snowballs)
        self._snow_frames = self.rng.integers(1, max(frames, 2), number).tolist()

    def collect(self, first: int, frames: int, frame_time: float, group: int) -> None:
        """Expose for a number of frames; hits are recorded for a group."""
        time = frames * frame_time
        self.charge += self.rng.poisson(self.rate * time) if self.effects.poisson else self.rate * time
        number = self.rng.poisson(self.effects.cosmic_rays * self.area * time)
        if number:
            _, row, column, electrons = cosmic_ray_hits(self.rng, self.shape, number)
            keep = self.active[row, column]
            row, column, electrons = row[keep], column[keep], electrons[keep]
            np.add.at(self.charge, (row, column), electrons.astype(np.float32))
            self._rays.append((np.full(row.size, self.integration), np.full(row.size, group), row, column, electrons))
        for frame in self._snow_frames:
            if first <= frame < first + frames:
                self._snowball(group)
        if self.effects.spill:
            spill(self.charge, self.well, ~self.active)

    def _snowball(self, group: int) -> None:
        radius = float(self.rng.uniform(3.0, 7.0))
        y, x = int(self.rng.integers(0, self.shape[0])), int(self.rng.integers(0, self.shape[1]))
        image = snowball_image(self.rng, radius, self.typical_well)
        reach = image.shape[0] // 2
        rows = slice(max(y - reach, 0), min(y + reach + 1, self.shape[0]))
        columns = slice(max(x - reach, 0), min(x + reach + 1, self.shape[1]))
        y0, x0 = y - reach, x - reach
        part = image[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]
        self.charge[rows, columns] += np.where(self.active[rows, columns], self.rng.poisson(part), 0)
        self._snow.append((self.integration, group, y, x, radius))

    def cosmic_ray_table(self) -> Table:
        """integration, group, y, x, electrons: one row a pixel and hit."""
        names = ("integration", "group", "y", "x", "electrons")
        columns = [np.concatenate(part) for part in zip(*self._rays)] or [np.zeros(0)] * 5
        return Table({name: c.astype("f4" if name == "electrons" else "i4") for name, c in zip(names, columns)})

    def snowball_table(self) -> Table:
        """integration, group, y, x of the centre, radius of the core [pixel]."""
        names = ("integration", "group", "y", "x", "radius")
        columns = list(zip(*self._snow)) or [()] * 5
        return Table({name: np.asarray(c, float if name == "radius" else "i4") for name, c in zip(names, columns)})


class Electronics:
    """What turns charge into numbers: gain, nonlinearity, bias, noise, 16 bits."""

    has_reference_output = False

    def __init__(
        self,
        rng: np.random.Generator,
        instrument: Instrument,
        aperture: Aperture,
        arrays: ReferenceArrays,
        effects: Effects,
        directions: tuple[int, int],
        *,
        pattern: ReadPattern,
        ngroups: int,
    ) -> None:
        self.rng, self.arrays, self.effects = rng, arrays, effects
        self.aperture, self.pattern, self.ngroups = aperture, pattern, ngroups
        self.shape = aperture.shape
        self.outputs = instrument.outputs(aperture)
        self.amplifiers = instrument.amplifiers
        self.amplifier = instrument.amplifier(aperture)
        self.odd = instrument.parity(aperture)
        self.flip = (directions[0] < 0, directions[1] < 0)
        self.inverse_gain = (1 / arrays.gain).astype(np.float32)
        self.odd_even = rng.normal(0, effects.odd_even, (self.amplifiers, 2))
        self.reset()

    def reset(self) -> None:
        """A new integration: other offsets of the pixels and amplifiers."""
        self.offset = self.arrays.superbias
        if self.effects.reset_noise:
            noise = self.rng.standard_normal(self.offset.shape, dtype=np.float32)
            self.offset = self.offset + np.float32(self.effects.reset_noise) * noise
        self.drift = self.rng.normal(0, self.effects.drift, self.amplifiers)

    def reference_output(self) -> np.ndarray:
        """A read of the output that sees no light, uint16 (y / 4, x)."""
        raise NotImplementedError

    def read(self, charge: np.ndarray, integration: int = 0, group: int = 0, frame: int = 0) -> np.ndarray:
        """One read of all pixels: whole numbers from 0 to 65535, float32 (y, x)."""
        rng, effects = self.rng, self.effects
        self.drift += rng.normal(0, effects.drift / 3, self.amplifiers)
        sample = read_charge(charge, self.arrays, self.inverse_gain, ~self.arrays.reference_pixels, effects.ipc)
        sample += self.offset
        steps = self.drift[:, None] + self.odd_even + rng.normal(0, effects.odd_even / 10, self.odd_even.shape)
        sample += steps[self.amplifier, self.odd].astype(np.float32)
        if effects.pink_noise:
            vertical = self.aperture.vertical
            shape = sample.shape[::-1] if vertical else sample.shape
            pink = _pink_frame(rng, shape, self.outputs, self.flip)
            sample += np.float32(effects.pink_noise) * (pink.T if vertical else pink)
        if effects.read_noise:
            sample += self.arrays.read_noise * rng.standard_normal(sample.shape, dtype=np.float32)
        np.rint(sample, out=sample)
        return np.clip(sample, 0, 65535, out=sample)


def read_charge(
    charge: np.ndarray,
    arrays: ReferenceArrays,
    inverse_gain: np.ndarray,
    active: np.ndarray,
    ipc: float,
    with_bias: bool = False,
) -> np.ndarray:
    """Signal of one read, without noise [DN], float32 (y, x); ``with_bias``: what is linear includes the bias."""
    if ipc:
        kernel = np.array([[0, ipc, 0], [ipc, 1 - 4 * ipc, ipc], [0, ipc, 0]], np.float32)
        charge = np.where(active, ndimage.convolve(charge, kernel, mode="nearest"), 0)
    signal = np.empty_like(charge)
    # A few rows at a time keep the temporaries of the root finding in the cache.
    step = max(1, 65536 // charge.shape[1])
    for row in range(0, charge.shape[0], step):
        cut = slice(row, row + step)
        linear, ceiling = charge[cut] * inverse_gain[cut], arrays.full_well[cut]
        if with_bias:
            linear, ceiling = linear + arrays.superbias[cut], ceiling + arrays.superbias[cut]
        part = unlinearised(linear, arrays.linearity[:, cut], iterations=2)
        signal[cut] = np.minimum(part, ceiling)
    return signal
