import numpy as np

from jwstdask.core import dq
from jwstdask.kernels import dq_init


def test_only_do_not_use_reaches_the_groups():
    mask = np.array([[0, dq.DO_NOT_USE | dq.DEAD, dq.SATURATED, dq.REFERENCE_PIXEL]], np.uint32)
    pixeldq = np.full((1, 4), dq.HOT, np.uint32)
    groupdq = np.full((2, 3, 1, 4), dq.JUMP_DET, np.uint8)
    before = mask.copy()
    dq_init.initialize(pixeldq, groupdq, mask)
    np.testing.assert_array_equal(pixeldq, mask | dq.HOT)
    expected = np.array([0, dq.DO_NOT_USE, 0, 0], np.uint8) | dq.JUMP_DET
    np.testing.assert_array_equal(groupdq, np.broadcast_to(expected, groupdq.shape))
    np.testing.assert_array_equal(mask, before)
