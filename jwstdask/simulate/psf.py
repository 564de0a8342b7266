"""Point-spread functions: diffraction of the segmented pupil, seen through square pixels.

The pupil is 18 hexagons of 1.32 m with gaps and the three struts of the secondary mirror; the field in the image is its
Fourier transform, computed directly on the wanted grid (matrix Fourier transform, Soummer et al. 2007). Wave-front
error is left out; pointing jitter and charge diffusion are a Gaussian. The profile is tapered to zero at a finite
radius, so that its total is one by definition: the truth of the simulation.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline

OVERSAMPLE = 5
"""Samples of the tables per pixel; odd, so that a pixel is a whole number of samples about its centre."""


@lru_cache(maxsize=1)
def pupil(samples: int = 256, diameter: float = 6.7) -> np.ndarray:
    """Transmission (y, x) of the telescope's pupil on a square of side ``diameter`` [m]."""
    axis = (np.arange(samples) + 0.5) / samples * diameter - diameter / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    pitch = 1.32
    open_ = np.zeros((samples, samples))
    root3 = np.sqrt(3.0)
    for q in range(-2, 3):
        for r in range(-2, 3):
            if max(abs(q), abs(r), abs(q + r)) > 2 or (q, r) == (0, 0):
                continue
            dx, dy = x - pitch * root3 / 2 * q, y - pitch * (r + q / 2)
            # flat-to-flat distance of a hexagon in its three directions, 7 mm gap
            inside = np.maximum.reduce([np.abs(dy), np.abs(root3 / 2 * dx + dy / 2), np.abs(root3 / 2 * dx - dy / 2)])
            open_[inside < pitch / 2 - 0.0035] = 1.0
    for angle in (90.0, 240.0, 300.0):
        a = np.radians(angle)
        along, across = x * np.cos(a) + y * np.sin(a), -x * np.sin(a) + y * np.cos(a)
        open_[(along > 0) & (np.abs(across) < 0.06)] = 0.0
    return open_


@lru_cache(maxsize=16)
def intensity(wavelength: float, width: float, pixel_scale: float, half_size: int, jitter: float = 0.007) -> np.ndarray:
    """Image of a point on a grid of :data:`OVERSAMPLE` samples a pixel, sum ``OVERSAMPLE**2``.

    Parameters
    ----------
    wavelength, width
        Pivot wavelength and bandwidth [micron].
    pixel_scale
        Pixel [arcsec].
    half_size
        Radius [pixel] at which the profile has fallen to zero; odd number of samples, the point in the middle.
    jitter
        Standard deviation of the Gaussian blur [arcsec].
    """
    transmission = pupil()
    samples = transmission.shape[0]
    diameter = 6.7
    axis = ((np.arange(samples) + 0.5) / samples - 0.5) * diameter
    reach = half_size * OVERSAMPLE
    angle = np.arange(-reach, reach + 1) / OVERSAMPLE * pixel_scale * np.pi / (180 * 3600)
    image = np.zeros((2 * reach + 1,) * 2)
    for step in np.linspace(-0.4, 0.4, 5):
        phase = np.exp(-2j * np.pi / ((wavelength + step * width) * 1e-6) * np.outer(angle, axis))
        image += np.abs(phase @ transmission @ phase.T) ** 2
    image = ndimage.gaussian_filter(image, jitter / pixel_scale * OVERSAMPLE, mode="constant")
    radius = np.hypot(*np.meshgrid(angle, angle)) / angle[-1]
    taper = np.where(radius > 0.8, 0.5 * (1 + np.cos(np.pi * np.clip((radius - 0.8) / 0.2, 0, 1))), 1.0)
    image *= taper
    return image / image.sum() * OVERSAMPLE**2


def through_pixels(image: np.ndarray, times: int = 1) -> np.ndarray:
    """A sampled image convolved with the square pixel ``times`` times."""
    for _ in range(times):
        image = ndimage.uniform_filter(image, OVERSAMPLE, mode="constant")
    return image


class PointSource:
    """Pixel values of a point source of total 1 anywhere on a pixel grid."""

    def __init__(self, wavelength: float, width: float, pixel_scale: float, half_size: int = 40) -> None:
        self.half_size = half_size
        self.image = intensity(wavelength, width, pixel_scale, half_size)
        table = through_pixels(self.image)
        self.peak = float(table.max())
        axis = np.arange(-half_size * OVERSAMPLE, half_size * OVERSAMPLE + 1) / OVERSAMPLE
        self._spline = RectBivariateSpline(axis, axis, table, kx=3, ky=3)

    def stamp(self, x: float, y: float) -> tuple[int, int, np.ndarray]:
        """Lowest column, lowest row and values (y, x) of the pixels that a source at 0-indexed (x, y) lights."""
        half = self.half_size
        x0, y0 = int(np.floor(x)) - half + 1, int(np.floor(y)) - half + 1
        columns, rows = np.arange(x0, x0 + 2 * half), np.arange(y0, y0 + 2 * half)
        return x0, y0, self._spline(rows - y, columns - x)


def _disc_coverage(radius: float, reach: int) -> np.ndarray:
    """Share of every sample cell inside a disc of a radius [pixel], on a grid of 2 reach + 1 samples a side."""
    fine = 9
    sub = (np.arange((2 * reach + 1) * fine) - ((2 * reach + 1) * fine - 1) / 2) / (fine * OVERSAMPLE)
    inside = (sub[:, None] ** 2 + sub[None, :] ** 2 <= radius**2).reshape(2 * reach + 1, fine, 2 * reach + 1, fine)
    return inside.mean(axis=(1, 3))


class EncircledEnergy:
    """Share of a drizzled point source inside circular apertures.

    A point source on a resampled image is the image of the point convolved, on average over all phases, with the
    detector's pixel, the droplet that is laid on the output grid, and the output pixel, and an aperture sum treats the
    output pixels as squares once more: four pixels in all (for output pixels of the detector's size and ``pixfrac`` 1).
    """

    def __init__(self, image: np.ndarray, pixels: int = 4) -> None:
        self._image = through_pixels(image, pixels) / OVERSAMPLE**2
        self._centre = image.shape[0] // 2

    def inside(self, radius: float) -> float:
        """Share of the total inside a radius [pixel]."""
        reach = min(int(np.ceil(radius * OVERSAMPLE)) + 1, self._centre)
        cut = slice(self._centre - reach, self._centre + reach + 1)
        return float((self._image[cut, cut] * _disc_coverage(radius, reach)).sum())

    def radius(self, share: float) -> float:
        """Radius [pixel] that holds a share of the total."""
        low, high = 0.05, 0.5 * self._centre / OVERSAMPLE
        for _ in range(30):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.inside(middle) < share else (low, middle)
        return 0.5 * (low + high)

    def mean_in_annulus(self, inner: float, outer: float) -> float:
        """Mean share a pixel between two radii [pixel]."""
        return (self.inside(outer) - self.inside(inner)) / (np.pi * (outer**2 - inner**2))

    def correction(self, radius: float, inner: float, outer: float) -> float:
        """Factor from the sum within a radius, less the background of an annulus, to the total."""
        return 1.0 / (self.inside(radius) - np.pi * radius**2 * self.mean_in_annulus(inner, outer))
