import numpy as np

from jwstdask.kernels import group_scale


def test_multiplies_in_single_precision_and_leaves_the_input():
    sci = np.random.default_rng(0).normal(9000, 300, (1, 2, 3, 4)).astype(np.float32)
    expected = np.array([value * np.float32(8 / 5) for value in sci.ravel()]).reshape(sci.shape)
    before = sci.copy()
    result = group_scale.rescale(sci, 8, 5)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(sci, before)
    assert group_scale.rescale(sci, 8, 5, out=sci) is sci
    np.testing.assert_array_equal(sci, expected)
