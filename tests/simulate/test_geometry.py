from __future__ import annotations

import numpy as np
import pytest

from jwstdask.simulate.geometry import ARCSEC, Attitude, Distortion, Pointing, offset_on_sky, unit_vector
from jwstdask.simulate.instruments import instrument
from jwstdask.simulate.references import distortion_model

NIRCAM = instrument("nircam")


@pytest.mark.parametrize("detector", NIRCAM.detectors)
def test_pixels_come_back(detector):
    distortion = Distortion(NIRCAM, NIRCAM.detector(detector), (0.3, -0.2))
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-50, 2100, (2, 50))
    back = distortion.from_v2v3(*distortion.to_v2v3(x, y))
    # Newton's iteration stops below 1e-9 pixel
    np.testing.assert_allclose(back, [x, y], rtol=0, atol=1e-8)


@pytest.mark.parametrize("detector", NIRCAM.detectors)
def test_reference_model_is_the_distortion_and_has_an_inverse(detector):
    distortion = Distortion(NIRCAM, NIRCAM.detector(detector))
    model = distortion_model(distortion)
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, 2047, 9), np.linspace(0, 2047, 9)))
    v2, v3 = model(x, y)
    # the same polynomials, summed in another order
    np.testing.assert_allclose([v2, v3], distortion.to_v2v3(x, y), rtol=0, atol=1e-9)
    # a fitted inverse of the same degree: 1.5e-3 pixel is 0.1 mas, far below any centroid, and met in one corner only
    np.testing.assert_allclose(model.inverse(v2, v3), [x, y], rtol=0, atol=1.5e-3)


@pytest.mark.parametrize("seed", range(3))
def test_attitude_names_its_own_point(seed):
    rng = np.random.default_rng(seed)
    attitude = Attitude(rng.uniform(0, 360), rng.uniform(-80, 80), rng.uniform(0, 360), *rng.uniform(-600, 600, 2))
    ra, dec = attitude.to_sky(attitude.v2, attitude.v3)
    # double precision of angles near 360 degrees
    assert ra == pytest.approx(attitude.ra, abs=1e-10)
    assert dec == pytest.approx(attitude.dec, abs=1e-10)
    assert attitude.position_angle(attitude.v2, attitude.v3) == pytest.approx(attitude.roll, abs=1e-9)
    moved = attitude.moved_to(-100.0, -480.0)
    points = rng.uniform(-600, 600, (2, 20))
    np.testing.assert_allclose(moved.to_sky(*points), attitude.to_sky(*points), rtol=0, atol=1e-9)
    np.testing.assert_allclose(attitude.from_sky(*attitude.to_sky(*points)), points, rtol=0, atol=1e-7)


def test_distances_on_the_sky_are_those_in_the_telescope():
    attitude = Attitude(10.0, 60.0, 33.0, 0.0, 0.0)
    v2, v3 = np.array([0.0, 30.0]), np.array([0.0, 40.0])
    vectors = unit_vector(*np.radians(attitude.to_sky(v2, v3)))
    # 50 arcsec; the chord differs from the plane by less than 1e-6 of it
    assert np.linalg.norm(vectors[1] - vectors[0]) / ARCSEC == pytest.approx(50.0, abs=1e-4)


def test_offset_on_sky():
    ra, dec = offset_on_sky(50.0, 60.0, 10.0, 20.0)
    # tangent plane against the sphere at 20 arcsec: second order, 20 arcsec * 1e-4 * tan(60)
    assert (ra - 50.0) * 3600 * np.cos(np.radians(60)) == pytest.approx(10.0, abs=5e-3)
    assert (dec - 60.0) * 3600 == pytest.approx(20.0, abs=5e-3)


@pytest.mark.parametrize(
    "detector, subarray, start, border",
    [
        ("nrca1", "FULL", (1, 1), {"left", "right", "top", "bottom"}),
        ("nrca1", "SUB320", (1729, 1729), {"right", "top"}),
        ("nrcb1", "SUB320", (1, 1), {"left", "bottom"}),
        ("nrca5", "SUB640", (705, 705), set()),
    ],
)
def test_subarray_corners(detector, subarray, start, border):
    aperture = NIRCAM.aperture(NIRCAM.detector(detector), subarray)
    assert (aperture.x_start, aperture.y_start) == start
    pixels = NIRCAM.touches_border(aperture)
    assert pixels.shape == (aperture.y_size, aperture.x_size)
    edges = {"left": pixels[:, 0], "right": pixels[:, -1], "bottom": pixels[0], "top": pixels[-1]}
    assert {name for name, edge in edges.items() if edge.all()} == border


def test_frame_times_are_those_of_the_observatory():
    detector = NIRCAM.detector("nrcb1")
    # published values (JDox), rounded to 10 microseconds
    for subarray, expected in (("FULL", 10.73677), ("SUB640", 4.18584), ("SUB320", 1.06904), ("SUB160", 0.27864)):
        assert NIRCAM.frame_time(NIRCAM.aperture(detector, subarray)) == pytest.approx(expected, abs=1.1e-5)


def test_pointing_round_trip_with_aberration():
    detector = NIRCAM.detector("nrcb4")
    aperture = NIRCAM.aperture(detector, "SUB640")
    attitude = Attitude(150.0, 2.0, 120.0, aperture.v2_ref, aperture.v3_ref)
    pointing = Pointing(aperture, Distortion(NIRCAM, detector), attitude, 1.00007)
    x, y = np.array([0.0, 639.0, 300.0]), np.array([10.0, 639.0, 0.0])
    np.testing.assert_allclose(pointing.from_sky(*pointing.to_sky(x, y)), [x, y], rtol=0, atol=1e-5)


def test_unknown_names_say_what_there_is():
    with pytest.raises(ValueError, match="NRCALONG"):
        NIRCAM.detector("nrcc1")
    with pytest.raises(ValueError, match="SUB320"):
        NIRCAM.aperture(NIRCAM.detector("nrca1"), "SUB10")
    with pytest.raises(ValueError, match="F200W"):
        NIRCAM.filter("F999W")
