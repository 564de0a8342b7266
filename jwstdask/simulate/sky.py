"""The sky that is observed: stars, galaxies (Sersic 1963), a flat background, and their image on a detector."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from astropy.table import Row, Table
from scipy import ndimage, signal
from scipy.special import gamma, gammaincinv

from jwstdask.simulate.geometry import Pointing
from jwstdask.simulate.psf import OVERSAMPLE, PointSource


@dataclass
class Sky:
    """Sources and background.

    Attributes
    ----------
    sources
        Table: id, type (``star`` or ``galaxy``), ra, dec [deg], flux [Jy], ab_mag, and for galaxies half_light_radius
        [arcsec], sersic_index, axis_ratio, position_angle [deg, north over east].
    background
        Surface brightness [MJy/sr].
    """

    sources: Table
    background: float
    meta: dict = field(default_factory=dict)


def ab_magnitude(flux: np.ndarray) -> np.ndarray:
    """AB magnitude of a flux density [Jy]."""
    return -2.5 * np.log10(np.asarray(flux) / 3631.0)


def scatter_sources(
    rng: np.random.Generator, half_width: float, separation: float, number: int, occupied: np.ndarray
) -> np.ndarray:
    """Random offsets (n, 2) [arcsec] in a square, no two (and none of ``occupied``) closer than ``separation``."""
    kept = np.concatenate((np.reshape(occupied, (-1, 2)), np.empty((number, 2))))
    first = count = len(occupied)
    for candidate in rng.uniform(-half_width, half_width, (60 * number, 2)):
        if count == first + number:
            break
        if not count or np.min(np.hypot(*(kept[:count] - candidate).T)) > separation:
            kept[count] = candidate
            count += 1
    return kept[first:count]


def sersic(radius: np.ndarray, half_light: float, index: float) -> np.ndarray:
    """Sersic profile of total 1 for axis ratio 1: surface density at a radius."""
    b = gammaincinv(2 * index, 0.5)
    total = 2 * np.pi * index * half_light**2 * np.exp(b) * b ** (-2 * index) * gamma(2 * index)
    return np.exp(-b * ((radius / half_light) ** (1 / index) - 1)) / total


def _galaxy_stamp(
    row: Row, x: float, y: float, jacobian: np.ndarray, kernel: np.ndarray, half: int
) -> tuple[int, int, np.ndarray]:
    """Pixel values (y, x) of a galaxy at 0-indexed (x, y), convolved with the point-spread function.

    ``jacobian`` maps pixel offsets to (east, north) [arcsec].
    """
    x0, y0 = int(np.floor(x)) - half, int(np.floor(y)) - half
    step = 3
    axis = (np.arange((2 * half + 1) * step) + 0.5) / step - 0.5
    dx, dy = np.meshgrid(axis + x0 - x, axis + y0 - y)
    east = jacobian[0, 0] * dx + jacobian[0, 1] * dy
    north = jacobian[1, 0] * dx + jacobian[1, 1] * dy
    angle = np.radians(row["position_angle"])
    major = east * np.sin(angle) + north * np.cos(angle)
    minor = east * np.cos(angle) - north * np.sin(angle)
    q = row["axis_ratio"]
    radius = np.sqrt(major**2 + (minor / q) ** 2 + (0.2 * 0.031) ** 2)
    fine = sersic(radius, row["half_light_radius"], row["sersic_index"])
    fine = signal.fftconvolve(fine, kernel, mode="same")
    fine = np.clip(fine, 0, None)
    stamp = fine.reshape(2 * half + 1, step, 2 * half + 1, step).sum(axis=(1, 3))
    return x0, y0, stamp / stamp.sum()


def render(sky: Sky, pointing: Pointing, psf: PointSource) -> tuple[np.ndarray, Table]:
    """Surface brightness seen by the pixels of an exposure.

    Returns
    -------
    image
        float64 (y, x) [MJy/sr]: flux of the sources in a pixel over its solid angle, plus the background.
    table
        id, x, y [0-indexed pixel] of the sources that light the image.
    """
    aperture = pointing.aperture
    shape = aperture.y_size, aperture.x_size
    image = np.zeros(shape)
    sources = sky.sources
    x, y = pointing.from_sky(sources["ra"], sources["dec"])
    half_galaxy = 40
    kernel = None
    margin = psf.half_size + 1
    seen = (x > -margin) & (x < shape[1] + margin) & (y > -margin) & (y < shape[0] + margin)
    for k in np.flatnonzero(seen):
        row = sources[int(k)]
        area = float(pointing.area(x[k], y[k]))
        if row["type"] == "star":
            x0, y0, stamp = psf.stamp(x[k], y[k])
        else:
            if kernel is None:
                kernel = _kernel_at_third_pixels(psf)
            x0, y0, stamp = _galaxy_stamp(row, x[k], y[k], _sky_jacobian(pointing, x[k], y[k]), kernel, half_galaxy)
        rows = slice(max(y0, 0), min(y0 + stamp.shape[0], shape[0]))
        columns = slice(max(x0, 0), min(x0 + stamp.shape[1], shape[1]))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        part = stamp[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]
        image[rows, columns] += row["flux"] * 1e-6 / area * part
    table = Table({"id": sources["id"][seen], "x": x[seen], "y": y[seen]})
    return image + sky.background, table


def _sky_jacobian(pointing: Pointing, x: float, y: float) -> np.ndarray:
    """Derivatives of (east, north) [arcsec] by (x, y) [pixel]."""
    ra, dec = pointing.to_sky(np.array([x - 0.5, x + 0.5, x, x]), np.array([y, y, y - 0.5, y + 0.5]))
    cos = np.cos(np.radians(dec.mean()))
    turn = (ra[[1, 3]] - ra[[0, 2]] + 180) % 360 - 180
    return np.array([turn * cos * 3600, (dec[[1, 3]] - dec[[0, 2]]) * 3600])


def _kernel_at_third_pixels(psf: PointSource) -> np.ndarray:
    """The profile of a point on a grid of three samples a pixel, sum 1 (summing three by three adds the pixel)."""
    reach = 25 * 3
    axis = np.arange(-reach, reach + 1) / 3 * OVERSAMPLE + psf.image.shape[0] // 2
    kernel = ndimage.map_coordinates(psf.image, np.meshgrid(axis, axis, indexing="ij"), order=3)
    kernel = np.clip(kernel, 0, None)
    return kernel / kernel.sum()
