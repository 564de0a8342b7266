from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from drizzle.resample import Drizzle
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.core import dq as flags
from jwstdask.kernels.overlap import spans
from jwstdask.kernels.resample import (
    add_variances,
    driz_weight,
    drizzle_other,
    drizzle_square,
    finish_variances,
    total_error,
)

NO_CONTEXT = np.zeros((0, 0), np.int32)
NO_DQ = np.zeros((0, 0), np.uint32)
EPS = np.finfo(np.float32).eps


def affine_map(shape, angle, scale, origin, curvature=1e-4):
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    u, v = x - shape[1] / 2, y - shape[0] / 2
    place = np.stack((c * u - s * v + curvature * u * v, s * u + c * v + curvature * u * u), axis=-1)
    return place + np.array(origin, float)


def scene(seed, shape):
    rng = np.random.default_rng(seed)
    data = rng.normal(10, 3, shape).astype(np.float32)
    weight = rng.uniform(0.5, 2, shape).astype(np.float32)
    weight[rng.random(shape) < 0.05] = 0
    dq = rng.integers(0, 1 << 20, shape).astype(np.uint32)
    return data, weight, dq


def taken(place, out_shape):
    return spans(lambda x, y: place[y : y + 2, x : x + 2], place.shape[:2], out_shape)


def drizzle(place, images, weight, dq, pixfrac, out_shape, running=None, rows=None, columns=None, window=None):
    """Drizzle onto a tile, from the whole frame or a window of it."""
    shape = place.shape[:2]
    rows, columns = rows or slice(0, out_shape[0]), columns or slice(0, out_shape[1])
    size = rows.stop - rows.start, columns.stop - columns.start
    running = len(images) if running is None else running
    out = np.full((len(images), *size), np.nan, np.float32)
    total = np.zeros((2, *size), np.float32)
    context, out_dq = np.zeros(size, np.int32), np.zeros(size, np.uint32)
    y0, y1, x0, x1 = window or (0, shape[0], 0, shape[1])
    top, left = max(y0 - 1, 0), max(x0 - 1, 0)
    part = (slice(y0, y1), slice(x0, x1))
    drizzle_square(
        np.ascontiguousarray(place[top : y1 + 1, left : x1 + 1]), (top, left), shape, (y0, y1), (x0, x1),
        np.ascontiguousarray(images[(slice(None), *part)]), weight[part], pixfrac, out, total, running,
        context, np.int32(4), dq[part], out_dq, (rows.start, columns.start), taken(place, out_shape),
    )  # fmt: skip
    return out, total, context, out_dq


def clipped_area(corners, low_x, high_x, low_y, high_y):
    """Area of a convex polygon inside a rectangle, by cutting it with one side after the other."""
    polygon = list(corners)
    for axis, bound, keep_above in ((0, low_x, True), (0, high_x, False), (1, low_y, True), (1, high_y, False)):
        result = []
        for a, b in itertools.pairwise([*polygon, polygon[0]] if polygon else []):
            a_in, b_in = ((p[axis] >= bound) == keep_above or p[axis] == bound for p in (a, b))
            if a_in != b_in:
                t = (bound - a[axis]) / (b[axis] - a[axis])
                crossing = [a[k] + t * (b[k] - a[k]) for k in (0, 1)]
                crossing[axis] = bound
                result.append(crossing)
            if b_in:
                result.append(b)
        polygon = result
    return (
        abs(0.5 * sum(a[0] * b[1] - a[1] * b[0] for a, b in itertools.pairwise([*polygon, polygon[0]])))
        if polygon
        else 0.0
    )


def slow_drizzle(place, data, weight, dq, pixfrac, out_shape):
    """Shares by polygon clipping, sums in double precision."""
    ny, nx = data.shape

    def at(x, y):
        i, j = min(max(math.floor(x), 0), nx - 2), min(max(math.floor(y), 0), ny - 2)
        u, v = x - i, y - j
        p = place
        return (
            p[j, i] * (1 - u) * (1 - v)
            + p[j, i + 1] * u * (1 - v)
            + p[j + 1, i] * (1 - u) * v
            + p[j + 1, i + 1] * u * v
        )

    h = 0.5 * pixfrac
    sums, weights = np.zeros(out_shape), np.zeros(out_shape)
    out_dq = np.zeros(out_shape, np.uint32)
    ranges = taken(place, out_shape)
    for j, i in np.ndindex(ny, nx):
        if weight[j, i] == 0 or not ranges[j, 0] <= i < ranges[j, 1]:
            continue
        corners = [at(i - h, j + h), at(i + h, j + h), at(i + h, j - h), at(i - h, j - h)]
        if np.isnan(corners).any():
            continue
        low = np.floor(np.min(corners, axis=0) + 0.5).astype(int)
        high = np.floor(np.max(corners, axis=0) + 0.5).astype(int)
        whole = clipped_area(corners, -math.inf, math.inf, -math.inf, math.inf)
        for row in range(max(low[1], 0), min(high[1] + 1, out_shape[0])):
            for column in range(max(low[0], 0), min(high[0] + 1, out_shape[1])):
                share = clipped_area(corners, column - 0.5, column + 0.5, row - 0.5, row + 0.5) / whole
                sums[row, column] += share * weight[j, i] * data[j, i]
                weights[row, column] += share * weight[j, i]
                if share > 1e-12:
                    out_dq[row, column] |= dq[j, i]
    return sums, weights, out_dq


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    angle=st.floats(-math.pi, math.pi),
    scale=st.floats(0.3, 2.5),
    pixfrac=st.sampled_from([1.0, 0.8, 0.31]),
    shift=st.tuples(st.floats(3, 9), st.floats(3, 9)),
)
def test_shares_are_the_common_areas(seed, angle, scale, pixfrac, shift):
    data, weight, dq = scene(seed, (5, 6))
    place = affine_map(data.shape, angle, scale, shift, 1e-3)
    place[2, 3] = np.nan
    out, total, _, out_dq = drizzle(place, data[None], weight, dq, pixfrac, (12, 13))
    sums, weights, slow_dq = slow_drizzle(place, data, weight, dq, pixfrac, (12, 13))
    # float32 sums of at most a few tens of terms.
    np.testing.assert_allclose(total[0], weights, rtol=20 * EPS, atol=1e-6)
    solid = weights > 1e-3
    np.testing.assert_allclose((out[0] * total[0])[solid], sums[solid], rtol=1e-5)
    assert np.array_equal(np.isnan(out[0]), total[0] == 0)
    # Slivers of a share below rounding may or may not count.
    assert np.array_equal(out_dq[solid] & slow_dq[solid], slow_dq[solid])


@pytest.mark.parametrize(("angle", "pixfrac", "scale"), [(0.0, 1.0, 1.0), (math.pi, 1.0, 1.0), (0.2, 0.6, 1.3)])
def test_agrees_with_the_drizzle_package(angle, pixfrac, scale):
    data, weight, dq = scene(3, (60, 70))
    place = affine_map(data.shape, angle, scale, (75.3, 70.2), 1e-5)
    place[:, :3] = np.nan  # as outside a bounding box
    shape = (140, 150)  # everything falls inside
    out, total, context, _ = drizzle(place, data[None], weight, dq, pixfrac, shape)
    theirs = Drizzle(kernel="square", fillval="NAN", out_shape=shape, max_ctx_id=2, begin_ctx_id=2)
    theirs.add_image(data, exptime=1.0, pixmap=place, pixel_scale_ratio=1.0, weight_map=weight, pixfrac=pixfrac)
    assert np.array_equal(context, theirs.out_ctx[0])
    # The same float32 operations on areas that may differ in the last digits of double precision.
    np.testing.assert_allclose(out[0], theirs.out_img, rtol=3 * EPS)
    np.testing.assert_allclose(total[0], theirs.out_wht, rtol=3 * EPS)
    assert np.mean(out[0] == theirs.out_img) + np.isnan(out[0]).mean() > 0.999


@pytest.mark.parametrize("pixfrac", [1.0, 0.6])
@pytest.mark.parametrize("angle", [0.01, 0.7])
def test_tiles_and_windows_have_the_bits_of_the_whole(angle, pixfrac):
    data, weight, dq = scene(5, (50, 64))
    images = np.stack([data, data * 2, data - 7])
    place = affine_map(data.shape, angle, 1.1, (41.7, 44.1), 1e-4)
    shape = (90, 85)
    whole = drizzle(place, images, weight, dq, pixfrac, shape, running=1)
    for rows, columns in itertools.product((slice(0, 31), slice(31, 32), slice(32, 90)), (slice(0, 50), slice(50, 85))):
        tile = drizzle(place, images, weight, dq, pixfrac, shape, running=1, rows=rows, columns=columns)
        for ours, theirs in zip(tile, whole):
            assert np.array_equal(ours, theirs[..., rows, columns], equal_nan=ours.dtype.kind == "f")
    # Only the input pixels that can touch the tile.
    touching = (np.abs(place[..., 1] - 45) < 6 + 2).any(axis=1).nonzero()[0]
    window = (touching[0], touching[-1] + 1, 0, 64)
    tile = drizzle(place, images, weight, dq, pixfrac, shape, running=1, rows=slice(40, 51), window=window)
    assert np.array_equal(tile[0], whole[0][:, 40:51], equal_nan=True)
    assert np.array_equal(tile[1], whole[1][:, 40:51])


def test_weight_is_conserved_inside_the_image():
    data, weight, dq = scene(8, (40, 40))
    place = affine_map(data.shape, 0.4, 0.9, (40, 40))
    _, total, _, _ = drizzle(place, data[None], weight, dq, 1.0, (80, 80))
    assert total[0].sum(dtype=float) == pytest.approx(weight.sum(dtype=float), rel=1e-6)  # float32 sums


def test_constant_image_stays_constant():
    data, weight, dq = scene(8, (40, 40))
    data[:] = 3.25
    out, total, _, _ = drizzle(affine_map(data.shape, 0.4, 0.9, (40, 40)), data[None], weight, dq, 0.7, (80, 80))
    # Each of up to ten updates of a mean rounds once.
    np.testing.assert_allclose(out[0][total[0] > 0], 3.25, rtol=10 * EPS)


@pytest.mark.parametrize("kernel", ["point", "turbo", "gaussian", "lanczos3"])
def test_other_kernels_accumulate_as_the_package(kernel):
    shape = (90, 90)
    out = np.full((2, *shape), np.nan, np.float32)
    total = np.zeros((2, *shape), np.float32)
    context, out_dq = np.zeros(shape, np.int32), np.zeros(shape, np.uint32)
    theirs = Drizzle(kernel=kernel, fillval="NAN", out_shape=shape, max_ctx_id=1)
    single = None
    for k in range(2):
        data, weight, dq = scene(k, (50, 60))
        place = affine_map(data.shape, 0.1 * k, 1.0, (44, 45.5))
        how = {"exptime": 1.0, "pixmap": place, "pixel_scale_ratio": 1.0, "weight_map": weight, "pixfrac": 0.9}
        theirs.add_image(data, dq=dq, **how)
        single = Drizzle(kernel=kernel, fillval="NAN", out_shape=shape, disable_ctx=True)
        single.add_image(data * 2, **how)
        out[1], total[1] = np.nan, 0
        drizzle_other(
            kernel, place, np.stack((data, data * 2)), weight, 0.9, 1.0, out, total, 1, context, 1 << k, dq, out_dq
        )
    assert np.array_equal(out[0], theirs.out_img, equal_nan=True)
    assert np.array_equal(out[1], single.out_img, equal_nan=True)
    assert np.array_equal(total[0], theirs.out_wht)
    assert np.array_equal(context, theirs.out_ctx[0])
    assert np.array_equal(out_dq, theirs.out_dq)


def test_weights_of_input_pixels():
    rnoise = np.array([[4.0, 0.0, np.nan, np.inf, 2.0]], np.float32)
    dq = np.array([[0, 0, 0, 0, flags.DO_NOT_USE | flags.HOT]], np.uint32)
    assert driz_weight(dq, flags.DO_NOT_USE, rnoise).tolist() == [[0.25, 0, 0, 0, 0]]
    assert driz_weight(dq, flags.DO_NOT_USE, exposure_time=12.5).tolist() == [[12.5] * 4 + [0]]
    assert driz_weight(dq, flags.NON_SCIENCE).tolist() == [[1.0] * 5]
    assert driz_weight(dq, flags.HOT).dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0, -1]))
def test_variance_of_the_mean_of_exposures(seed, exposures, rnoise_index):
    rng = np.random.default_rng(seed)
    shape = (3, 4, 5)
    total, total_weight = np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32)
    top, bottom = np.zeros(shape), np.zeros(shape)
    for _ in range(exposures):
        sigma = rng.uniform(0.1, 3, shape).astype(np.float32)
        sigma[rng.random(shape) < 0.1] = np.nan
        touched = rng.integers(0, 2, shape[1:]).astype(np.float32)
        add_variances(sigma, touched, rnoise_index, 2.5, (0, 4), (0, 5), total, total_weight)
        for k in range(3):
            for y, x in np.ndindex(4, 5):
                weight = 1 / float(sigma[0, y, x]) ** 2 if rnoise_index == 0 else 2.5
                if touched[y, x] and np.isfinite(weight) and np.isfinite(sigma[k, y, x]):
                    top[k, y, x] += weight**2 * float(sigma[k, y, x]) ** 2
                    bottom[k, y, x] += weight
    found = finish_variances(total, total_weight, 0.5)
    with np.errstate(invalid="ignore"):
        expected = top / bottom**2 / 0.5**2
    # Some ten roundings to float32.
    np.testing.assert_allclose(found, expected, rtol=10 * EPS)


def test_error_is_the_root_of_the_sum():
    nan = np.nan
    variances = np.array([[[4.0, nan, nan]], [[5.0, 9.0, nan]]], np.float32)
    assert np.array_equal(total_error(variances), np.array([[3.0, 3.0, nan]], np.float32), equal_nan=True)
