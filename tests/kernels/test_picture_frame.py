import numpy as np
import pytest

from jwstdask.kernels import picture_frame
from jwstdask.kernels.picture_frame import Pattern


def scene(seed, strength, offset):
    """A reference image with a frame, and an image that has it more or less strongly."""
    rng = np.random.default_rng(seed)
    edge = np.minimum(np.arange(2048), np.arange(2048)[::-1])
    reference = np.exp(-np.minimum.outer(edge, edge) / 60).astype(np.float32) + 3
    image = strength * (reference - 3) + offset + rng.normal(0, 0.05, reference.shape)
    mask = rng.random(reference.shape) > 0.1
    return reference, image.astype(np.float32), mask


@pytest.mark.parametrize("seed", range(2))
def test_zones(seed):
    mask = np.random.default_rng(seed).random((2048, 2048)) > 0.3
    middle, edge = picture_frame.zones(mask)
    for y, x in np.random.default_rng(seed + 9).integers(0, 2048, (3000, 2)).tolist() + [
        [y, x] for y in (3, 4, 74, 75, 76, 1983, 1984, 1985, 2042, 2043) for x in (3, 4, 75, 1000, 1985, 2043)
    ]:
        in_border = any(4 <= axis < 75 or 1985 <= axis < 2043 for axis in (y, x))
        on_detector = all(4 <= axis < 2043 for axis in (y, x))
        assert edge[y, x] == (mask[y, x] and in_border and on_detector)
        assert middle[y, x] == (mask[y, x] and all(76 <= axis < 1984 for axis in (y, x)))


def test_pattern_is_removed():
    reference, image, mask = scene(3, 7.0, 20.0)
    pattern = Pattern.of(reference, mask)
    out = np.empty_like(image)
    pattern.remove(image, None, out)
    # What is left is the noise, around the level along the edges.
    assert np.std(out) < 0.1 < np.std(image)
    assert abs(np.median(out)) < 0.1


def test_pattern_above_the_first_group():
    reference, image, mask = scene(4, 7.0, 20.0)
    zero = np.random.default_rng(1).normal(500, 30, image.shape).astype(np.float32)
    pattern = Pattern.of(reference, mask)
    group = image + zero
    expected = np.empty_like(image)
    pattern.remove(group - zero, None, expected)
    pattern.remove(group, zero, group)
    # Sums with the first group, of some 500 DN, are rounded to float32.
    np.testing.assert_allclose(group, expected + zero, atol=2e-4)


@pytest.mark.parametrize("count", [1, 2, 7, 1000, 1001])
def test_median(count):
    rng = np.random.default_rng(count)
    image = rng.normal(100, 3, (40, 50)).astype(np.float32)
    zone = np.zeros(image.shape, bool)
    zone.flat[rng.choice(image.size, count, replace=False)] = True
    assert picture_frame.median(image, zone) == np.median(image[zone])
    image[np.nonzero(zone)[0][0], np.nonzero(zone)[1][0]] = np.nan
    expected = np.nanmedian(image[zone]) if count > 1 else np.nan
    np.testing.assert_equal(picture_frame.median(image, zone), expected)


def test_without_background():
    with pytest.raises(ValueError, match="background"):
        Pattern.of(np.ones((2048, 2048), np.float32), np.zeros((2048, 2048), bool))
