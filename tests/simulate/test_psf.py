from __future__ import annotations

import numpy as np
import pytest

from jwstdask.simulate.psf import EncircledEnergy, PointSource, intensity

SETUPS = [(0.704, 0.128, 0.0311), (1.99, 0.461, 0.0311), (4.421, 1.024, 0.063)]


@pytest.mark.parametrize("wavelength, width, scale", SETUPS)
def test_total_and_centroid_at_any_phase(wavelength, width, scale):
    psf = PointSource(wavelength, width, scale)
    for x, y in np.random.default_rng(0).uniform(20, 21, (8, 2)):
        x0, y0, stamp = psf.stamp(x, y)
        rows, columns = np.mgrid[: stamp.shape[0], : stamp.shape[1]]
        # the table is sampled five times a pixel and interpolated by a cubic spline: 0.1 % at the shortest wavelength
        assert stamp.sum() == pytest.approx(1, abs=1e-3)
        # the first moment of an image narrower than a pixel depends on the phase (aliasing); a sampled one does not
        tolerance = 0.03 if wavelength < 1 else 5e-3
        assert (stamp * columns).sum() / stamp.sum() + x0 == pytest.approx(x, abs=tolerance)
        assert (stamp * rows).sum() / stamp.sum() + y0 == pytest.approx(y, abs=tolerance)


def test_encircled_energy_grows_to_one():
    energy = EncircledEnergy(intensity(*SETUPS[1], 40))
    shares = [energy.inside(r) for r in (0.5, 1, 2, 4, 8, 16, 32)]
    assert np.all(np.diff(shares) > 0)
    assert shares[-1] > 0.97
    assert energy.inside(energy.radius(0.7)) == pytest.approx(0.7, abs=1e-3)


def test_encircled_energy_of_a_known_image():
    # a point without width through four pixels: the sum of four uniform variates in each axis
    image = np.zeros((201, 201))
    image[100, 100] = 25.0
    energy = EncircledEnergy(image)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-0.5, 0.5, (2, 4, 400_000)).sum(axis=1)
    for radius in (0.5, 1.0, 1.7):
        # Monte Carlo error 0.0008; the pixel of five samples is as wide as a pixel but stepped: second moment 4 % less
        assert energy.inside(radius) == pytest.approx(np.mean(x**2 + y**2 < radius**2), abs=0.012)


def test_encircled_energy_is_that_of_drizzled_stars():
    """Stars dropped on pixels, shifted onto another grid by overlap, summed with exact circles."""
    from photutils.aperture import CircularAperture, aperture_photometry

    psf = PointSource(*SETUPS[1])
    energy = EncircledEnergy(psf.image)
    radius = energy.radius(0.7)
    rng = np.random.default_rng(2)
    sums = []
    for _ in range(60):
        x, y = rng.uniform(59, 60, 2)
        image = np.zeros((120, 120))
        x0, y0, stamp = psf.stamp(x, y)
        image[y0 : y0 + stamp.shape[0], x0 : x0 + stamp.shape[1]] = stamp
        dx, dy = rng.uniform(0, 1, 2)
        # overlap of unit squares on a grid moved by (dx, dy)
        moved = (1 - dx) * image + dx * np.roll(image, 1, 1)
        moved = (1 - dy) * moved + dy * np.roll(moved, 1, 0)
        sums.append(aperture_photometry(moved, CircularAperture((x + dx, y + dy), radius))["aperture_sum"][0])
    # error of the mean of 60 phases: their scatter is 0.01
    assert np.mean(sums) == pytest.approx(0.7, abs=0.004)
