from __future__ import annotations

import numpy as np
import pytest

from jwstdask.wcs.mosaic import combined_s_region, custom_grid, mean_pixel_area, middle, output_grid, polygons, scale_at
from tests.steps.dithered import SHAPE, distorted_wcs

POINTINGS = [((150.0, 30.0), 20.0), ((150.0004, 30.0003), 20.0), ((149.9998, 30.0002), 75.0)]
WCSINFO = {"ra_ref": 150.0, "dec_ref": 30.0, "roll_ref": 20.0, "v3yangle": 1.5, "vparity": -1}


def members(pointings=POINTINGS):
    from stcal.alignment.util import compute_s_region_imaging

    found = [distorted_wcs(pointing, roll) for pointing, roll in pointings]
    return found, [compute_s_region_imaging(wcs, shape=SHAPE, center=False) for wcs in found]


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"pixel_scale_ratio": 0.5},
        {"rotation": 33.0},
        {"crval": (150.001, 30.0)},
        {"crpix": (7.0, -3.0), "output_shape": (90, 140)},
        {"output_shape": (40, 500)},
    ],
)
def test_grid_of_the_oracle(wanted):
    from stcal.alignment.util import compute_scale, wcs_from_sregions

    found, regions = members()
    grid = output_grid([polygons(region)[0] for region in regions], found[0], WCSINFO, SHAPE, **wanted)
    theirs = dict(wanted)
    ratio = theirs.pop("pixel_scale_ratio", 1.0)
    scale = compute_scale(found[0], fiducial=np.array([150.0, 30.0])) * ratio
    if "output_shape" in theirs:
        theirs["shape"] = theirs.pop("output_shape")
    expected = wcs_from_sregions(
        regions, ref_wcs=found[0], ref_wcsinfo=WCSINFO, pscale=scale, pscale_ratio=ratio, **theirs
    )
    assert grid.shape == tuple(expected.array_shape)
    assert tuple(grid.wcs.bounding_box) == tuple(expected.bounding_box)
    assert grid.pixel_scale_ratio == ratio
    # One rounding of the pixel step, 1e-9 of it, over 500 pixels.
    x, y = np.array([0.0, 50.0, 139.0]), np.array([3.0, 0.0, 89.0])
    for ours, other in zip(grid.wcs(x, y), expected(x, y)):
        np.testing.assert_allclose(ours, other, rtol=0, atol=1e-12)


def test_pixel_scale_and_area():
    from stcal.alignment.util import compute_scale
    from stcal.resample.utils import compute_mean_pixel_area

    found, regions = members()
    assert scale_at(found[0], 150.0, 30.0) == pytest.approx(compute_scale(found[0], (150.0, 30.0)), rel=1e-9)
    assert mean_pixel_area(found[0], SHAPE) == pytest.approx(compute_mean_pixel_area(found[0], SHAPE), rel=1e-12)
    boxed = distorted_wcs((150.0, 30.0), 20.0, box=((3.5, 90.5), (-0.5, 50.5)))
    assert mean_pixel_area(boxed, SHAPE) == pytest.approx(compute_mean_pixel_area(boxed, SHAPE), rel=1e-12)
    grid = output_grid([polygons(regions[0])[0]], found[0], WCSINFO, SHAPE, pixel_scale=0.06)
    assert grid.pixel_scale == pytest.approx(0.06)
    # The distortion of the test scene makes the pixels of 0.03 arcsec 0.05 % larger.
    assert grid.pixel_scale_ratio == pytest.approx(2.0, rel=1e-3)


def test_mean_area_without_sky_on_a_side():
    from stcal.resample.utils import compute_mean_pixel_area

    class Cut:
        """A WCS without positions in its first 12 rows and last 5 columns."""

        def __init__(self):
            self.inner = distorted_wcs((150.0, 30.0), 20.0)
            self.bounding_box, self.output_frame, self.array_shape = None, self.inner.output_frame, SHAPE

        def __call__(self, x, y):
            ra, dec = self.inner(x, y, with_bounding_box=False)
            missing = (np.asarray(y) < 12) | (np.asarray(x) > 114)
            return np.where(missing, np.nan, ra), np.where(missing, np.nan, dec)

    assert mean_pixel_area(Cut(), SHAPE) == pytest.approx(compute_mean_pixel_area(Cut(), SHAPE), rel=1e-12)


def test_middle_across_zero_of_right_ascension():
    ra, dec = middle(np.array([[359.9, 10.0], [0.1, 10.0], [0.1, 10.2], [359.9, 10.2]]))
    assert min(ra, 360 - ra) < 1e-9
    assert dec == pytest.approx(10.1, abs=1e-4)  # the box is around unit vectors, not angles


@pytest.mark.parametrize("apart", [0.0003, 0.01])
def test_combined_region_of_the_oracle(apart):
    from stcal.alignment import combine_sregions

    found, regions = members([((150.0, 30.0), 20.0), ((150.0 + apart, 30.0 + apart / 2), 20.0)])
    corners = [polygons(region)[0] for region in regions]
    grid = output_grid(corners, found[0], WCSINFO, SHAPE)
    theirs = combine_sregions(
        regions, grid.wcs.get_transform("detector", "world"), intersect_footprint=grid.wcs.footprint()
    )
    ours = combined_s_region(corners, grid.wcs)
    assert ours == theirs
    assert ours.count("POLYGON") == (1 if apart < 0.001 else 2)
    assert len(polygons(ours)) == ours.count("POLYGON")


def test_combined_region_outside_the_image():
    found, regions = members()
    corners = [polygons(region)[0] for region in regions]
    grid = output_grid(corners, found[0], WCSINFO, SHAPE, crval=(151.0, 30.0), crpix=(5.0, 5.0), output_shape=(10, 10))
    assert combined_s_region(corners, grid.wcs) is None


def test_too_small():
    found, regions = members()
    with pytest.raises(ValueError, match="smallest is 2 x 2"):
        output_grid([polygons(regions[0])[0]], found[0], WCSINFO, SHAPE, pixel_scale=30.0)


def test_custom_grid(tmp_path):
    import asdf
    from jwst.resample.resample_utils import load_custom_wcs

    wcs = distorted_wcs((150.0, 30.0), 20.0)
    path = tmp_path / "wcs.asdf"
    for tree in ({}, {"pixel_scale": 0.1}, {"pixel_area": 0.04}, {"pixel_shape": (50, 60)}, {"array_shape": (70, 80)}):
        for keep in (True, False):
            wcs.array_shape = SHAPE if keep else None
            asdf.AsdfFile({"wcs": wcs, **tree}).write_to(path)
            grid, theirs = custom_grid(path), load_custom_wcs(str(path))
            assert grid.shape == tuple(theirs["wcs"].array_shape)
            assert grid.pixel_scale_ratio is None
            if theirs["pixel_scale"] is not None:
                assert grid.pixel_scale == theirs["pixel_scale"]
            else:
                assert grid.pixel_scale == pytest.approx(0.03, rel=1e-2)
    assert custom_grid(path, (33, 44)).shape == (44, 33)
    wcs.array_shape = None
    wcs.bounding_box = None
    asdf.AsdfFile({"wcs": wcs}).write_to(path)
    with pytest.raises(ValueError, match="output_shape is needed"):
        custom_grid(path)
