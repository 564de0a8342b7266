"""Reference images under a block."""

import numpy as np
import pytest

from jwstdask.core.block import RampBlock, Window
from jwstdask.refs import images
from jwstdask.refs.images import floats_under


def block(y0, y1, x0, x1):
    shape = 1, 2, y1 - y0, x1 - x0
    window = Window.plain(y0, y1, x0, x1)
    return RampBlock(window, np.zeros(shape, np.float32), np.zeros(shape, np.uint8), np.zeros(shape[2:], np.uint32))


@pytest.mark.parametrize("kind", (">f4", "<f4", ">f8"))
@pytest.mark.parametrize("leading", ((), (3,)))
def test_an_image_is_converted_once_for_a_block(monkeypatch, kind, leading):
    image = np.random.default_rng(1).normal(size=(*leading, 20, 30)).astype(kind)
    own, other = block(3, 9, 5, 25), block(4, 9, 5, 25)
    converted = []
    monkeypatch.setattr(images, "native_floats", lambda part: converted.append(part) or np.array(part, np.float32))
    for _ in range(2):
        for each in (own, other):
            rows, columns = each.window.rows, each.window.columns
            found = floats_under(each, image)
            np.testing.assert_array_equal(found, image[..., rows, columns].astype(np.float32))
    assert len(converted) == 2


def test_parts_of_one_file_are_not_mixed_up():
    whole = np.arange(1200, dtype=np.float32).reshape(30, 40)
    own = block(0, 5, 0, 6)
    for part in (whole, whole[1:], whole[:, 1:], whole[::2], whole[:20], whole.view(np.int32).view(">f4")):
        np.testing.assert_array_equal(floats_under(own, part), part[:5, :6].astype(np.float32))


def test_memory_that_is_used_again_is_not_taken_for_the_image_before():
    own = block(0, 5, 0, 6)
    for value in range(50):
        assert floats_under(own, np.full((30, 40), value, np.float32))[0, 0] == value
