"""How many elements have each data-quality flag."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def _count(flags: np.ndarray, counts: np.ndarray) -> None:
    for i in range(flags.shape[0]):
        for j in range(flags.shape[1]):
            for y in range(flags.shape[2]):
                for x in range(flags.shape[3]):
                    # Most have none.
                    rest = np.uint32(flags[i, j, y, x])
                    if rest:
                        counts[32] += 1
                        for bit in range(32):
                            counts[bit] += (rest >> np.uint32(bit)) & np.uint32(1)


def count_flags(flags: np.ndarray) -> np.ndarray:
    """Elements with each flag.

    Parameters
    ----------
    flags
        uint8 or uint32, up to four dimensions (..., y, x).

    Returns
    -------
    counts
        int64 (34,): elements with bit 0 to 31, with any flag, and all elements.
    """
    counts = np.zeros(34, np.int64)
    _count(flags[(None,) * (4 - flags.ndim)], counts)
    counts[33] = flags.size
    return counts
