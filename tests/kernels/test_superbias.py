import numpy as np

from jwstdask.kernels import superbias

BIAS = np.array([[100, np.nan, 7.5]], np.float32)


def test_unknown_bias_counts_as_zero():
    sci = np.array([[[[150, 20, 8]], [[90, 30, 7.5]]]], np.float32)
    before = sci.copy()
    expected = np.array([[[[50, 20, 0.5]], [[-10, 30, 0]]]], np.float32)
    np.testing.assert_array_equal(superbias.subtract(sci, BIAS), expected)
    np.testing.assert_array_equal(sci, before)
    assert np.isnan(BIAS[0, 1])
    np.testing.assert_array_equal(superbias.subtract(sci, BIAS, out=sci), expected)


def test_zeros_of_the_zeroth_frame_stay():
    zeroframe = np.array([[[0, 0, 8]], [[100, 5, 0]]], np.float32)
    expected = [[[0, 0, 0.5]], [[0, 5, 0]]]
    np.testing.assert_array_equal(superbias.subtract_zeroframe(zeroframe, BIAS), expected)
    np.testing.assert_array_equal(superbias.subtract_zeroframe(zeroframe, BIAS, out=zeroframe), expected)
