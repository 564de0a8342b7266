import numpy as np
import pytest

from jwstdask.kernels import gain_scale


@pytest.mark.parametrize("power", [1, 2])
def test_multiplies_in_single_precision_and_leaves_the_input(power):
    image = np.random.default_rng(0).normal(9, 3, (3, 4)).astype(np.float32)
    expected = np.array([value * np.float32(1.37**power) for value in image.ravel()]).reshape(image.shape)
    before = image.copy()
    result = gain_scale.rescale(image, 1.37, power)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(gain_scale.rescale(image, 1.37, power, out=image), expected)
