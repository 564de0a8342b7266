"""Convolution with a small kernel, summed element by element."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.kernels import ipc


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(1, 1), (3, 3), (5, 5), (3, 5)]),
    st.integers(1, 9),
    st.integers(1, 12),
    st.booleans(),
    st.tuples(*[st.integers(0, 3)] * 4),
)
def test_sums_elements_in_order_and_the_central_one_last(seed, size, ny, nx, fixed, border):
    rng = np.random.default_rng(seed)
    sci = rng.normal(1000, 300, (2, 2, ny, nx)).astype(np.float32)
    kernel = rng.normal(0, 0.1, size if fixed else (*size, ny, nx)).astype(np.float32)
    rows, columns = slice(border[0], ny - border[1]), slice(border[2], nx - border[3])
    middle = size[0] // 2, size[1] // 2
    order = [place for place in np.ndindex(*size) if place != middle] + [middle]
    expected = sci.copy()
    for i, g, y, x in np.ndindex(*sci.shape):
        if not (rows.start <= y < rows.stop and columns.start <= x < columns.stop):
            continue
        total = np.float32(0)
        for j, k in order:
            source = y + middle[0] - j, x + middle[1] - k
            if rows.start <= source[0] < rows.stop and columns.start <= source[1] < columns.stop:
                total += (kernel[j, k] if fixed else kernel[j, k, y, x]) * sci[(i, g, *source)]
        expected[i, g, y, x] = total
    before = sci.copy()
    np.testing.assert_array_equal(ipc.convolve(sci, kernel, (rows, columns)), expected)
    np.testing.assert_array_equal(sci, before)
    np.testing.assert_array_equal(ipc.convolve(sci, kernel, (rows, columns), out=sci), expected)
