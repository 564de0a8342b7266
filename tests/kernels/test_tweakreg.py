"""Kernels of star detection against scipy and against an obvious search."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from jwstdask.kernels.tweakreg import local_maxima, mesh_to_image


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("mesh", "box", "shape"),
    [
        ((4, 5), (7, 9), (28, 45)),  # boxes cover the image exactly
        ((4, 5), (7, 9), (23, 38)),  # the last boxes are cut
        ((2, 3), (10, 3), (15, 8)),
        ((1, 5), (7, 9), (7, 41)),  # a single row of boxes
        ((3, 1), (8, 6), (20, 6)),
        ((6, 6), (40, 40), (205, 210)),
    ],
)
def test_mesh_to_image_is_the_zoom_of_scipy(mesh, box, shape, dtype):
    rng = np.random.default_rng(sum(mesh))
    values = rng.normal(1.0, 0.1, mesh).astype(dtype)
    mask = rng.random(shape) < 0.1
    expected = ndimage.zoom(values, box, order=3, mode="reflect", grid_mode=True)[: shape[0], : shape[1]]
    expected = np.clip(expected, values.min(), values.max())
    expected[mask] = 0
    found = mesh_to_image(values, box, mask)
    # The same operations in the same order: equal to the last bit.
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == dtype


def test_mesh_to_image_of_equal_values():
    mask = np.zeros((9, 9), bool)
    mask[0] = True
    found = mesh_to_image(np.full((3, 3), np.float32(0.1)), (3, 3), mask)
    assert found.dtype == np.float32
    assert (found[0] == 0).all()
    assert (found[1:] == np.float32(0.1)).all()


def test_mesh_to_image_fills_a_given_array():
    out = np.full((8, 8), np.nan, np.float32)
    mesh = np.arange(4, dtype=np.float32).reshape(2, 2)
    assert mesh_to_image(mesh, (4, 4), np.zeros((8, 8), bool), out) is out
    np.testing.assert_array_equal(out, mesh_to_image(mesh, (4, 4), np.zeros((8, 8), bool)))


def _obvious_maxima(image, threshold, radius, mask):
    ny, nx = image.shape
    padded = np.pad(np.where(np.isnan(image), -np.inf, image), radius)
    found = []
    for y in range(ny):
        for x in range(nx):
            around = [
                padded[y + radius + dy, x + radius + dx]
                for dy in range(-radius, radius + 1)
                for dx in range(-radius, radius + 1)
                if dx * dx + dy * dy <= radius * radius
            ]
            if image[y, x] > threshold and image[y, x] == max(around) and not mask[y, x]:
                found.append((x, y))
    return found


@pytest.mark.parametrize("radius", [1, 2, 3, 5])
@pytest.mark.parametrize("threshold", [-0.5, 0.0, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_local_maxima_are_those_of_an_obvious_search(radius, threshold, seed):
    rng = np.random.default_rng(seed)
    image = np.round(rng.normal(0, 1, (31, 26)), 1).astype(np.float32)  # rounding makes ties
    image[rng.random(image.shape) < 0.05] = np.nan
    mask = rng.random(image.shape) < 0.1
    found = local_maxima(image, threshold, radius, mask)
    assert [tuple(row) for row in found] == _obvious_maxima(image, threshold, radius, mask)


@pytest.mark.parametrize("radius", [2, 3, 4])
@pytest.mark.parametrize("shift", [0.0, -2.0])
def test_local_maxima_are_those_of_photutils(radius, shift):
    from photutils.detection import find_peaks

    rng = np.random.default_rng(radius)
    image = (ndimage.gaussian_filter(rng.normal(0, 1, (60, 70)), 1.0) + shift).astype(np.float32)
    image[20:23, 30:34] = np.nan
    mask = np.zeros(image.shape, bool)
    mask[:, 60:] = True
    threshold = shift + 0.3
    expected = find_peaks(image, threshold, min_separation=radius, mask=mask)
    found = local_maxima(image, threshold, radius, mask)
    assert len(found) > 5
    np.testing.assert_array_equal(found, np.transpose((expected["x_peak"], expected["y_peak"])))


@pytest.mark.parametrize("value", [3.0, np.nan])
def test_a_constant_image_has_no_maxima(value):
    image = np.full((10, 10), value, np.float32)
    assert local_maxima(image, 1.0, 2, np.zeros((10, 10), bool)).shape == (0, 2)
