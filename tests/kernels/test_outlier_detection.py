from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.kernels.outlier_detection import (
    blot,
    flag_plain,
    flag_resampled,
    gradient,
    median_of_images,
    reach,
    weight_threshold,
)

f4 = np.float32


@pytest.mark.parametrize("seed", range(6))
def test_threshold_is_of_the_clipped_mean(seed):
    from stcal.outlier_detection.utils import compute_weight_threshold

    rng = np.random.default_rng(seed)
    weight = rng.normal(10, 1 + seed, (60, 71 + seed % 2)).astype(f4)
    weight[rng.random(weight.shape) < 0.3] = 0
    weight[rng.random(weight.shape) < 0.02] *= 30
    weight[0, :3] = np.nan, np.inf, -np.inf
    # Both in double precision, with sums in another order.
    assert weight_threshold(weight, 0.7) == pytest.approx(compute_weight_threshold(weight, 0.7), rel=1e-6)


def test_threshold_without_weights_is_nan():
    assert np.isnan(weight_threshold(np.zeros((3, 4), f4), 0.7))


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(f4, st.tuples(st.integers(1, 6), st.just(3), st.just(4)), elements=st.floats(-100, 100, width=32)),
    st.integers(0, 99),
)
def test_median_leaves_out_nan_and_low_weight(images, seed):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0, 2, images.shape).astype(f4)
    images[rng.random(images.shape) < 0.2] = np.nan
    thresholds = rng.uniform(0, 1, len(images))
    out = np.empty(images.shape[1:], f4)
    median_of_images(images, weights, thresholds, out)
    for y, x in np.ndindex(out.shape):
        good = sorted(
            v for v, w, t in zip(images[:, y, x], weights[:, y, x], thresholds) if not np.isnan(v) and not w < t
        )
        n = len(good)
        expected = np.nan if n == 0 else good[n // 2] if n % 2 else (good[n // 2 - 1] + good[n // 2]) / f4(2)
        assert np.array_equal(out[y, x], f4(expected), equal_nan=True)


def test_median_with_unknown_threshold_keeps_all():
    out = np.empty((1, 1), f4)
    median_of_images(np.array([[[1.0]], [[2.0]], [[6.0]]], f4), np.zeros((3, 1, 1), f4), np.full(3, np.nan), out)
    assert out[0, 0] == 2.0


def slow_bilinear(image, x, y):
    ny, nx = image.shape
    if not (0 <= x < nx and 0 <= y < ny):
        return np.nan
    i, j = int(x), int(y)
    sx, sy = x - i, y - j
    right, top = min(i + 1, nx - 1), min(j + 1, ny - 1)
    return (
        image[j, i] * (1 - sx) * (1 - sy)
        + image[j, right] * sx * (1 - sy)
        + image[top, i] * (1 - sx) * sy
        + image[top, right] * sx * sy
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_blot_is_bilinear_and_needs_only_its_reach(seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(5, 1, (9, 11)).astype(f4)
    positions = rng.uniform(-2, 12, (6, 5, 2))
    positions[0, 0] = np.nan
    positions[1, 1] = 10.0, 8.0  # the last pixel
    out = np.empty((6, 5), f4)
    blot(positions, image, (0, 0), image.shape, out)
    expected = [[slow_bilinear(image.astype(float), float(f4(x)), float(f4(y))) for x, y in row] for row in positions]
    # Four products and sums in float32.
    np.testing.assert_allclose(out, expected, rtol=8 * np.finfo(f4).eps, atol=1e-6)
    y0, y1, x0, x1 = reach(positions, image.shape)
    again = np.empty_like(out)
    blot(positions, np.ascontiguousarray(image[y0:y1, x0:x1]), (y0, x0), image.shape, again)
    assert np.array_equal(out, again, equal_nan=True)


def test_blot_has_the_bits_of_the_drizzle_package():
    from drizzle.resample import blot_image

    rng = np.random.default_rng(1)
    image = rng.normal(5, 1, (40, 50)).astype(f4)
    image[rng.random(image.shape) < 0.05] = np.nan
    positions = rng.uniform(-2, 52, (60, 70, 2))
    out = np.empty((60, 70), f4)
    blot(positions, image, (0, 0), image.shape, out)
    theirs = np.empty((60, 70), f4)
    blot_image(image, positions, iscale=1.0, interp="linear", fillval=np.nan, out_img=theirs)
    assert np.array_equal(out, theirs, equal_nan=True)


def test_nothing_is_in_reach():
    assert reach(np.full((2, 2, 2), np.nan), (5, 5)) == (0, 0, 0, 0)
    out = np.zeros((2, 2), f4)
    blot(np.full((2, 2, 2), 99.0), np.zeros((0, 0), f4), (0, 0), (5, 5), out)
    assert np.isnan(out).all()


def slow_gradient(image, y, x):
    if np.isnan(image[y, x]):
        return f4(np.nan)
    largest = f4(0)
    for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
        if 0 <= v < image.shape[0] and 0 <= u < image.shape[1] and not np.isnan(image[v, u]):
            largest = max(largest, abs(image[y, x] - image[v, u]))
    return largest


IMAGES = hnp.arrays(
    f4, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.sampled_from([0.0, 1.0, 2.5, -3.0, 40.0, np.nan])
)


@settings(max_examples=80, deadline=None)
@given(IMAGES)
def test_gradient_is_the_largest_step_to_a_neighbour(image):
    out = np.empty_like(image)
    gradient(image, out)
    expected = [[slow_gradient(image, y, x) for x in range(image.shape[1])] for y in range(image.shape[0])]
    assert np.array_equal(out, np.array(expected, f4), equal_nan=True)


@settings(max_examples=80, deadline=None)
@given(IMAGES, st.integers(0, 10_000), st.sampled_from([0.0, 1.5]))
def test_flags_follow_the_definition(reference, seed, backg):
    rng = np.random.default_rng(seed)
    shape = reference.shape
    sci = (np.nan_to_num(reference) + rng.normal(0, 3, shape)).astype(f4)
    sci[rng.random(shape) < 0.1] = np.nan
    err = rng.choice(np.array([0.1, 0.5, np.nan, np.inf, 2.0], f4), shape)
    snr, scale = (3.0, 2.0), (0.5, 0.2)
    out = np.empty(shape, bool)
    flag_resampled(sci, err, reference, snr, scale, backg, (0, shape[0]), out)

    def passes(y, x, k):
        noise = f4(np.nan_to_num(err[y, x]))
        limit = f4(scale[k]) * slow_gradient(reference, y, x) + f4(snr[k]) * noise
        return bool(abs(sci[y, x] - reference[y, x] - f4(backg)) > limit)

    for y, x in np.ndindex(shape):
        near = [
            (v, u)
            for v in range(max(y - 1, 0), min(y + 2, shape[0]))
            for u in range(max(x - 1, 0), min(x + 2, shape[1]))
        ]
        with np.errstate(invalid="ignore", over="ignore"):
            expected = passes(y, x, 1) and any(passes(v, u, 0) for v, u in near)
        assert out[y, x] == expected


def test_rows_with_two_rows_around_have_the_flags_of_the_whole():
    from stcal.outlier_detection.utils import flag_resampled_crs

    rng = np.random.default_rng(0)
    reference = rng.normal(0, 1, (60, 40)).astype(f4)
    reference[rng.random(reference.shape) < 0.05] = np.nan
    sci = (reference + rng.normal(0, 2, reference.shape)).astype(f4)
    err = np.full_like(sci, 0.5)
    whole = flag_resampled_crs(sci, err, reference, 3.0, 2.0, 0.5, 0.2, 0.1)
    for first, last in ((0, 20), (20, 21), (21, 60)):
        top, bottom = max(first - 2, 0), min(last + 2, 60)
        out = np.empty((last - first, 40), bool)
        part = slice(top, bottom)
        flag_resampled(
            sci[part], err[part], reference[part], (3.0, 2.0), (0.5, 0.2), 0.1, (first - top, last - top), out
        )
        assert np.array_equal(out, whole[first:last])
    assert 0 < whole.sum() < whole.size


def test_plain_flags():
    sci = np.array([[1.0, 5.0, np.nan, 3.0, 3.0]], f4)
    err = np.array([[1.0, 1.0, 1.0, np.nan, np.inf]], f4)
    out = np.empty((1, 5), bool)
    flag_plain(sci, err, np.zeros((1, 5), f4), 4.0, out)
    assert out.tolist() == [[False, True, False, True, False]]
