from __future__ import annotations

import math

import numpy as np
import pytest
from drizzle.resample import Drizzle

from jwstdask.kernels.overlap import spans


def pixel_map(shape, angle, scale, origin, curvature):
    """Positions of a rotated, scaled and bent image."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    u, v = x - shape[1] / 2, y - shape[0] / 2
    place = np.stack((c * u - s * v + curvature * u * v, s * u + c * v + curvature * u * u), axis=-1)
    return place + np.array(origin, float)


def taken(place, out_shape):
    return spans(lambda x, y: place[y : y + 2, x : x + 2], place.shape[:2], out_shape)


def used_by_the_package(place, out_shape):
    """bool (y, x): whether the drizzle package makes use of a pixel; each has a flag of its own, ten at a time."""
    shape = place.shape[:2]
    used = np.zeros(shape, bool)
    for start in range(0, shape[0] * shape[1], 32):
        dq = np.zeros(shape, np.uint32)
        some = np.arange(start, min(start + 32, dq.size))
        dq.flat[some] = np.uint32(1) << np.arange(some.size, dtype=np.uint32)
        image = Drizzle(kernel="square", out_shape=out_shape, disable_ctx=True)
        image.add_image(np.ones(shape, np.float32), dq=dq, exptime=1.0, pixmap=place, pixel_scale_ratio=1.0)
        bits = np.bitwise_or.reduce(image.out_dq, axis=None)
        used.flat[some] = (bits >> np.arange(some.size, dtype=np.uint32)) & 1
    return used


@pytest.mark.parametrize("seed", range(60))
def test_the_pixels_that_the_drizzle_package_takes(seed):
    """Of those whose drops touch the output: whether the others are looked at makes no difference."""
    rng = np.random.default_rng(seed)
    shape, out_shape = rng.integers(8, 24, 2), tuple(int(n) for n in rng.integers(6, 30, 2))
    angle = rng.choice([0.0, math.pi / 2, rng.uniform(-math.pi, math.pi), rng.uniform(-0.01, 0.01)])
    origin = rng.uniform(0, 1, 2) * out_shape[::-1]
    place = pixel_map(shape, angle, rng.uniform(0.6, 1.4), origin, rng.choice([0.0, 1e-3, -2e-3]))
    expected = used_by_the_package(place, out_shape)
    columns = np.arange(shape[1])
    found = (columns >= (ranges := taken(place, out_shape))[:, :1]) & (columns < ranges[:, 1:])
    assert expected.any()
    assert not (expected & ~found).any()
    # Every pixel further inside than its own size is there.
    y, x = place[..., 1], place[..., 0]
    well = (x > 1.5) & (x < out_shape[1] - 2.5) & (y > 1.5) & (y < out_shape[0] - 2.5)
    assert found[well].all()
    overlapping = (x > -0.5) & (x < out_shape[1] - 0.5) & (y > -0.5) & (y < out_shape[0] - 0.5)
    assert not (found & overlapping & ~expected).any()


def test_an_image_that_misses_the_output():
    place = pixel_map((9, 11), 0.3, 1.0, (-50, -50), 0.0)
    assert not taken(place, (20, 20)).any()


def test_an_image_with_corners_of_no_position_is_taken_whole():
    place = pixel_map((9, 11), 0.3, 1.0, (10, 10), 0.0)
    place[:2] = np.nan
    assert (taken(place, (20, 20)) == (0, 11)).all()
