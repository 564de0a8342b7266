"""Flags of charge migration, group by group."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.core import dq
from jwstdask.kernels import charge_migration

FLAGS = dq.CHARGELOSS | dq.DO_NOT_USE


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7))
def test_pixels_and_neighbours_are_flagged_from_the_first_group_above(seed, groups, ny, nx):
    rng = np.random.default_rng(seed)
    sci = rng.choice([10, 25, 30, np.nan], (2, groups, ny, nx), p=[0.8, 0.1, 0.05, 0.05]).astype(np.float32)
    groupdq = rng.choice([0, dq.DO_NOT_USE, dq.DO_NOT_USE | dq.JUMP_DET], sci.shape, p=[0.5, 0.3, 0.2]).astype(np.uint8)
    expected = groupdq.copy()
    for i, g, y, x in np.ndindex(*sci.shape):
        if sci[i, g, y, x] > 25 and groupdq[i, g, y, x] != dq.DO_NOT_USE:
            for row, column in ((y, x), (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= row < ny and 0 <= column < nx:
                    expected[i, g:, row, column] |= FLAGS
    charge_migration.flag(sci, groupdq, np.float32(25))
    np.testing.assert_array_equal(groupdq, expected)
