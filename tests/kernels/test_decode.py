from __future__ import annotations

import numpy as np
import pytest

from jwstdask.kernels.decode import decode_uint16, moved_flags, native_floats, standard_flags, swap32


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 4, 5), (1, 1, 1, 1)])
def test_raw_counts(shape):
    counts = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    stored = (counts.astype(np.int32) - 32768).astype(">i2")
    np.testing.assert_array_equal(decode_uint16(stored), counts)


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 4, 5), (6, 4, 5)])
def test_bytes_of_words(shape):
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(swap32(values.astype(">f4")), values)
    np.testing.assert_array_equal(swap32(values, dtype=">f4"), values)
    flags = values.view(np.uint32)
    stored = (flags ^ np.uint32(1 << 31)).astype(">u4")
    np.testing.assert_array_equal(swap32(stored, dtype=np.uint32, flip=1 << 31), flags)
    np.testing.assert_array_equal(swap32(flags, dtype=">u4", flip=0x80), stored)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8"])
@pytest.mark.parametrize("part", [np.s_[..., 1:4, 2:5], np.s_[0], np.s_[..., ::-1, :], np.s_[..., ::2], np.s_[..., :0]])
def test_floats_to_be_calculated_with(dtype, part):
    """Parts of any kind, also turned ones: a copy of their own, in memory as the processor likes it."""
    values = np.random.default_rng(2).normal(size=(3, 6, 7)).astype(np.float32)
    values[0, 2, 3] = np.nan
    stored = values.astype(dtype)
    found = native_floats(stored[part])
    np.testing.assert_array_equal(found, values[part])
    assert found.dtype == np.float32 and found.flags.c_contiguous and found.flags.writeable
    found[...] = 0
    np.testing.assert_array_equal(stored, values)


@pytest.mark.parametrize(("first", "width"), [(0, 16), (16, 64), (32, 256), (0, 20), (8, 32), (3, 5), (0, 0)])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 2, 1, 3)])
@pytest.mark.parametrize("line", [320, 330])
def test_bytes_of_words_that_go_past_the_caches(shape, first, width, line):
    """Rows of whole lines of the caches and others; what lies around them stays."""
    memory = np.zeros(16 + int(np.prod(shape)) * line, np.uint32)
    start = -memory.ctypes.data % 64 // 4
    frame = memory[start : start + int(np.prod(shape)) * line].reshape(*shape, line)
    frame[...] = np.random.default_rng(3).integers(0, 2**32, frame.shape)
    values = np.random.default_rng(4).normal(size=(*shape, width)).astype(np.float32)
    values.ravel()[1::7] = np.nan
    expected = frame.copy()
    expected[..., first : first + width] = values.view(np.uint32).byteswap() ^ np.uint32(0x80)
    swap32(values, frame[..., first : first + width], flip=0x80, stream=True)
    np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("shape", [(9, 8), (3, 4, 5), (0, 4)])
def test_flags_move_bit_by_bit(shape, upper):
    rng = np.random.default_rng(2)
    moves = dict(zip(range(32 if upper else 16), rng.permutation(32)))
    words = np.where(rng.random(shape) < 0.5, rng.integers(0, 2**32, shape), 0).astype(np.uint32)
    low, high = np.zeros((2, 1 << 16), np.uint32)
    expected = np.zeros(shape, np.uint32)
    for source, target in moves.items():
        expected |= ((words >> np.uint32(source)) & np.uint32(1)) << np.uint32(target)
        index = np.arange(1 << 16)
        table, bit = (low, source) if source < 16 else (high, source - 16)
        table[(index >> bit) & 1 == 1] |= np.uint32(1 << int(target))
    before = words.copy()
    np.testing.assert_array_equal(moved_flags(words.T, low, high if upper else None), expected.T)
    np.testing.assert_array_equal(words, before)


@pytest.mark.parametrize("sign", [0, 1 << 31])
@pytest.mark.parametrize("upper", [None, False, True])
def test_standard_flags(sign, upper):
    rng = np.random.default_rng(4)
    words = rng.integers(0, 1 << 32, (2, 5, 300), dtype=np.uint32)
    words[rng.random(words.shape) < 0.9] = 0
    words[:, :, 60:250] = 0
    low, high = rng.integers(0, 1 << 32, (2, 1 << 16), dtype=np.uint32)
    raw = (words ^ np.uint32(sign)).astype(">u4").view(">i4")[:, 1:4, 3:290]
    words = words[:, 1:4, 3:290]
    low[0] = high[0] = 0
    moved = low[words & 0xFFFF] | (high[words >> 16] if upper else 0)
    tables = None if upper is None else (low, high if upper else None)
    expected = words if upper is None else moved
    np.testing.assert_array_equal(standard_flags(raw, sign, tables), expected)
    flags = rng.integers(0, 1 << 32, expected.shape, dtype=np.uint32)
    np.testing.assert_array_equal(standard_flags(raw, sign, tables, flags.copy()), flags | expected)


@pytest.mark.parametrize("moved", [False, True])
def test_standard_flags_of_bytes(moved):
    rng = np.random.default_rng(5)
    raw = rng.integers(0, 256, (2, 5, 300), dtype=np.uint8)
    raw[:, :, 60:250] = 0
    raw = raw[:, 1:4, 3:290]
    low = rng.integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    low[0] = 0
    expected = low[raw] if moved else raw.astype(np.uint32)
    np.testing.assert_array_equal(standard_flags(raw, tables=(low, None) if moved else None), expected)
