"""Windows cover a frame once, halos are clipped at its edges; flags are read as jwst writes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwst.datamodels import dqflags

from jwstdask.core import dq
from jwstdask.core.block import Window, tiles


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 15), st.integers(1, 15), st.integers(0, 6), st.data())
def test_tiles_cover_every_pixel_once(ny, nx, height, width, halo, data):
    first = data.draw(st.integers(0, ny - 1))
    last = data.draw(st.integers(first + 1, ny))
    count = np.zeros((ny, nx), int)
    for window in tiles((first, last), (ny, nx), (height, width), halo):
        count[window.inner_absolute] += 1
        frame = np.arange(ny * nx).reshape(ny, nx)
        held = frame[window.rows, window.columns]
        assert held.shape == window.shape
        np.testing.assert_array_equal(held[window.inner], frame[window.inner_absolute])
        for low, high, inner_low, inner_high, size in (
            (window.y0, window.y1, window.inner_y0, window.inner_y1, ny),
            (window.x0, window.x1, window.inner_x0, window.inner_x1, nx),
        ):
            assert low == max(inner_low - halo, 0) and high == min(inner_high + halo, size)
    expected = np.zeros((ny, nx), int)
    expected[first:last] = 1
    np.testing.assert_array_equal(count, expected)


def test_plain_window():
    window = Window.plain(2, 5, 1, 9)
    assert window.shape == (3, 8) and window.inner == (slice(0, 3), slice(0, 8))


def test_flags_are_those_of_jwst():
    assert dq.PIXEL == {name: value for name, value in dqflags.pixel.items() if name != "GOOD"}
    assert dq.GROUP == {name: value for name, value in dqflags.group.items() if name != "GOOD"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("DO_NOT_USE+NON_SCIENCE", dq.DO_NOT_USE | dq.NON_SCIENCE),
        ("1, 512", 513),
        ("jump_det | HOT", dq.JUMP_DET | dq.HOT),
        (5, 5),
        (None, 0),
        ("", 0),
    ],
)
def test_parse(text, value):
    assert dq.parse(text) == value


def test_bad_bits():
    assert dq.bad_bits("~DO_NOT_USE+NON_SCIENCE") == dq.DO_NOT_USE | dq.NON_SCIENCE
    assert dq.bad_bits("JUMP_DET") == 0xFFFFFFFF & ~dq.JUMP_DET
    assert dq.bad_bits(None) == 0
    with pytest.raises(ValueError, match="'BAD' is not a data-quality flag"):
        dq.parse("BAD")
