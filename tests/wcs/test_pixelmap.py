from __future__ import annotations

import os
import pickle
from pathlib import Path

import asdf
import gwcs
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import ICRS
from astropy.modeling import models
from gwcs import coordinate_frames as cf

from jwstdask.core.block import Window
from jwstdask.wcs.pixelmap import PixelMap, exact, pixel_map

CENTRE = (0.01, -33.0)  # the sky of the frame crosses right ascension zero


def tangent_wcs(scale=0.03, rotation=0.4, crpix=(60.0, 50.0), box=None, distortion=None):
    """A gwcs with optional (polynomial, inverse) distortion in pixels, then a tangent plane."""
    matrix = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    transform = (
        models.Shift(-crpix[0]) & models.Shift(-crpix[1])
        | models.AffineTransformation2D(matrix)
        | models.Scale(-scale / 3600) & models.Scale(scale / 3600)
        | models.Pix2Sky_TAN()
        | models.RotateNative2Celestial(*CENTRE, 180.0)
    )
    if distortion is not None:
        transform = distortion | transform
    wcs = gwcs.WCS(
        [
            (cf.Frame2D(name="detector", unit=(u.pix, u.pix)), transform),
            (cf.CelestialFrame(reference_frame=ICRS(), name="world"), None),
        ]
    )
    if box is not None:
        wcs.bounding_box = box
    return wcs


def distortion(strength):
    px = models.Polynomial2D(3, c1_0=1.0, c2_0=strength, c0_2=-strength, c1_1=strength, c3_0=strength / 100)
    py = models.Polynomial2D(3, c0_1=1.0, c2_0=-strength, c1_1=strength / 2, c0_3=strength / 50)
    return models.Mapping((0, 1, 0, 1)) | px & py


def oracle_map(wcs_in, wcs_out, shape):
    from stcal.resample.utils import calc_pixmap

    return calc_pixmap(wcs_in, wcs_out, shape)


@pytest.mark.parametrize("max_error", [1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("strength", [0.0, 1e-6, 2e-5])
def test_within_the_stated_error_of_full_evaluation(strength, max_error):
    shape = (90, 110)
    wcs_in = tangent_wcs(box=((-0.5, 109.5), (-0.5, 89.5)), distortion=distortion(strength))
    wcs_out = tangent_wcs(0.02, -0.3, (90, 70), box=((-0.5, 9.5), (-0.5, 9.5)))
    found = PixelMap.fit(wcs_in, wcs_out, max_error)
    assert found.series is not None and found.error <= max_error
    values = found(Window.plain(0, 90, 0, 110))
    assert values.shape == (90, 110, 2) and values.dtype == np.float64
    # Right ascensions near 360 degrees round to 5.7e-14 degrees, which is 1e-8 pixel here.
    assert np.abs(values - oracle_map(wcs_in, wcs_out, shape)).max() <= found.error + 1e-8


def test_outside_the_bounding_box_is_nan_as_in_the_oracle():
    wcs_in = tangent_wcs(box=((3.5, 40.0), (5.0, 30.5)))
    wcs_out = tangent_wcs(0.02, -0.3, (90, 70), box=((-0.5, 9.5), (-0.5, 9.5)))
    wanted = oracle_map(wcs_in, wcs_out, (50, 45))
    found = pixel_map(wcs_in, wcs_out, Window.plain(0, 50, 0, 45))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    assert not np.isnan(found[5:31, 4:41]).any() and np.isnan(found[4]).all() and np.isnan(found[:, 41]).all()
    exact = PixelMap.fit(wcs_in, wcs_out, max_error=0)(Window.plain(0, 50, 0, 45))
    # Same expressions evaluated on grids of another memory layout.
    np.testing.assert_allclose(exact, wanted, rtol=0, atol=1e-9)


def test_bounding_boxes_of_the_arguments_are_left_alone():
    wcs_in, wcs_out = tangent_wcs(box=((-0.5, 9.5), (-0.5, 9.5))), tangent_wcs(box=((1.0, 2.0), (3.0, 4.0)))
    pixel_map(wcs_in, wcs_out, Window.plain(0, 10, 0, 10))
    assert wcs_out.bounding_box.bounding_box(order="F") == ((1.0, 2.0), (3.0, 4.0))
    assert wcs_in.bounding_box.bounding_box(order="F") == ((-0.5, 9.5), (-0.5, 9.5))


@pytest.mark.parametrize("max_error", [1e-6, 0])
def test_any_window_has_the_same_bits(max_error):
    wcs_in = tangent_wcs(box=((-0.5, 109.5), (-0.5, 89.5)), distortion=distortion(1e-5))
    wcs_out = tangent_wcs(0.02, 0.1, (90, 70))
    found = PixelMap.fit(wcs_in, wcs_out, max_error)
    whole = found(Window.plain(0, 90, 0, 110))
    part = found(Window.around(30, 50, 17, 64, 2, (90, 110)))
    np.testing.assert_array_equal(part, whole[28:52, 15:66])


def test_rough_map_falls_back_to_full_evaluation():
    # A saw-tooth of half a pixel cannot be followed by a short series.
    saw = models.Tabular1D(np.arange(-5, 125.0), np.arange(-5, 125.0) + 0.5 * (np.arange(130) % 2), bounds_error=False)
    wcs_in = tangent_wcs(box=((-0.5, 109.5), (-0.5, 89.5)), distortion=saw & models.Identity(1))
    wcs_out = tangent_wcs(0.02, 0.1, (90, 70))
    found = PixelMap.fit(wcs_in, wcs_out, 1e-6)
    assert found.series is None and found.error == 0.0
    wanted = oracle_map(wcs_in, wcs_out, (90, 110))
    np.testing.assert_allclose(found(Window.plain(0, 90, 0, 110)), wanted, rtol=0, atol=1e-9)


def test_shape_stands_in_for_a_missing_bounding_box():
    wcs_in, wcs_out = tangent_wcs(), tangent_wcs(0.02, 0.1, (90, 70))
    with pytest.raises(ValueError, match="neither a bounding box nor an array shape"):
        PixelMap.fit(wcs_in, wcs_out)
    found = pixel_map(wcs_in, wcs_out, Window.plain(0, 30, 0, 40))
    np.testing.assert_allclose(found, oracle_map(wcs_in, wcs_out, (30, 40)), rtol=0, atol=1e-6)  # max_error
    assert not np.isnan(found).any()


def test_pickles_small():
    wcs_in = tangent_wcs(box=((-0.5, 109.5), (-0.5, 89.5)), distortion=distortion(1e-6))
    found = PixelMap.fit(wcs_in, tangent_wcs(0.02))
    text = pickle.dumps(found)
    assert len(text) < 20_000
    window = Window.plain(3, 9, 4, 8)
    np.testing.assert_array_equal(pickle.loads(text)(window), found(window))


@pytest.mark.skipif(not os.environ.get("JWSTDASK_REALDATA"), reason="JWSTDASK_REALDATA is not set")
@pytest.mark.parametrize("forward", [True, False])
def test_real_detector_needs_a_short_series(forward):
    path = Path(os.environ["JWSTDASK_REALDATA"]) / "wcs/f0e2c14__nircamwcs.asdf"
    with asdf.open(path, lazy_load=False) as file:
        detector = file["wcs"]
    ra, dec = detector(1023.5, 1023.5)
    plane = gwcs.WCS(
        [
            (
                cf.Frame2D(name="detector", unit=(u.pix, u.pix)),
                models.Shift(-1000) & models.Shift(-1000)
                | models.Scale(-0.031 / 3600) & models.Scale(0.031 / 3600)
                | models.Pix2Sky_TAN()
                | models.RotateNative2Celestial(ra, dec, 180.0),
            ),
            (cf.CelestialFrame(reference_frame=ICRS(), name="world"), None),
        ]
    )
    plane.bounding_box = ((-0.5, 2047.5), (-0.5, 2047.5))
    pair = (detector, plane) if forward else (plane, detector)
    found = PixelMap.fit(*pair)
    assert found.series.shape[-1] <= 16 and 0 < found.error <= 1e-6
    rng = np.random.default_rng(0)
    for y0, x0 in rng.integers(0, 2040, (20, 2)):
        values = found(Window.plain(y0, y0 + 8, x0, x0 + 8))
        grid_y, grid_x = np.mgrid[y0 : y0 + 8, x0 : x0 + 8].astype(float)
        wanted = np.stack(exact(*pair, grid_x, grid_y), axis=-1)
        assert np.abs(values - wanted).max() <= found.error
