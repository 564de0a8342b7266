"""A fast digest of bytes, to notice changes of files; it is no protection against forgers."""

from __future__ import annotations

import numba
import numpy as np

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


def start() -> np.ndarray:
    """State before the first word: uint64 (4,)."""
    return np.array((0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89), np.uint64)


@numba.njit(cache=True, nogil=True)
def update(state: np.ndarray, words: np.ndarray) -> None:
    """Mix words into the state, in place.

    Word ``i`` goes to element ``i % 4`` of the state, which becomes ``(state ^ word) * factor``, and this
    ``^ itself >> 29``. Both are one to one, so that a change of one word always changes the state.

    Parameters
    ----------
    state
        uint64 (4,).
    words
        uint64 (word,), a multiple of four of them.
    """
    a, b, c, d = state[0], state[1], state[2], state[3]
    for i in range(0, words.size - 3, 4):
        a = (a ^ words[i]) * _FACTOR
        b = (b ^ words[i + 1]) * _FACTOR
        c = (c ^ words[i + 2]) * _FACTOR
        d = (d ^ words[i + 3]) * _FACTOR
        a ^= a >> _SHIFT
        b ^= b >> _SHIFT
        c ^= c >> _SHIFT
        d ^= d >> _SHIFT
    state[0], state[1], state[2], state[3] = a, b, c, d
