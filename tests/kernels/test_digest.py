from __future__ import annotations

import numpy as np
import pytest

from jwstdask.kernels import digest

_MASK = (1 << 64) - 1


def _slow(state: list[int], words: list[int]) -> list[int]:
    state = list(state)
    for i, word in enumerate(words):
        mixed = ((state[i % 4] ^ word) * 0x9E3779B97F4A7C15) & _MASK
        state[i % 4] = mixed ^ (mixed >> 29)
    return state


@pytest.mark.parametrize("size", [0, 4, 32, 404])
@pytest.mark.parametrize("seed", range(3))
def test_as_defined(size, seed):
    words = np.random.default_rng(seed).integers(0, _MASK, size, np.uint64, endpoint=True)
    state = digest.start()
    before = words.copy()
    digest.update(state, words)
    assert state.tolist() == _slow(digest.start().tolist(), words.tolist())
    np.testing.assert_array_equal(words, before)


def test_every_bit_counts():
    words = np.random.default_rng(1).integers(0, _MASK, 8, np.uint64, endpoint=True)
    found = set()
    for bit in range(8 * 64):
        changed = words.copy()
        changed[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
        state = digest.start()
        digest.update(state, changed)
        found.add(tuple(state.tolist()))
    assert len(found) == 8 * 64


def test_swapped_words_count():
    words = np.arange(8, dtype=np.uint64)
    states = []
    for order in (range(8), (4, 1, 2, 3, 0, 5, 6, 7), (1, 0, 2, 3, 4, 5, 6, 7)):
        state = digest.start()
        digest.update(state, words[list(order)])
        states.append(tuple(state.tolist()))
    assert len(set(states)) == 3
