"""Medians."""

from __future__ import annotations

import numpy as np
import pytest

from jwstdask.kernels.medians import nan_median


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", ">i2"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 5), (20, 33), (40, 50)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_median_of_an_image_as_numpy(dtype, shape, scale):
    rng = np.random.default_rng(1)
    for offset in (0.0, 2.0, -2.0):
        if dtype == ">i2":
            image = rng.integers(-300, 300, (shape[0] + 2, 2 * shape[1])).astype(dtype)
        else:
            image = ((rng.normal(offset, 1, (shape[0] + 2, 2 * shape[1]))) * scale).astype(dtype)
            image[rng.random(image.shape) < 0.2] = np.nan
            image[rng.random(image.shape) < 0.1] = np.inf
            image[0, 0] = 1.0
        image.flags.writeable = False
        for part in (image, image[: shape[0], : shape[1]], image[:, ::2], np.stack([image, image])):
            expected = np.nanmedian(part.astype(np.float32)) if np.isfinite(part).any() else None
            if expected is not None:
                found = nan_median(part)
                assert found.dtype == np.float32
                assert found == expected


def test_no_number_has_no_median():
    assert np.isnan(nan_median(np.full((3, 4), np.nan, ">f4")))
    assert np.isnan(nan_median(np.zeros((0, 4), ">f4")))
