"""How many elements have each data-quality flag."""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.kernels.runs import flat

_RUN = 64
"""Elements that are looked at together."""


@numba.njit(cache=True, nogil=True)
def _count(flags: np.ndarray, strides: tuple[int, int, int], shape: tuple[int, ...], counts: np.ndarray) -> None:
    nx = shape[3]
    for i in range(shape[0]):
        for j in range(shape[1]):
            for y in range(shape[2]):
                start = i * strides[0] + j * strides[1] + y * strides[2]
                for first in range(start, start + nx, _RUN):
                    run = flags[first : min(first + _RUN, start + nx)]
                    union = np.uint32(0)
                    for x in range(run.size):
                        union |= np.uint32(run[x])
                    # Most have no flags.
                    if union == 0:
                        continue
                    flagged = 0
                    for x in range(run.size):
                        flagged += run[x] != 0
                    counts[32] += flagged
                    bit = 0
                    while union:
                        if union & np.uint32(1):
                            found = np.uint32(0)
                            for x in range(run.size):
                                found += (np.uint32(run[x]) >> np.uint32(bit)) & np.uint32(1)
                            counts[bit] += found
                        union >>= np.uint32(1)
                        bit += 1


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
    whole = flags[(None,) * (4 - flags.ndim)]
    _count(*flat(whole), whole.shape, counts)
    counts[33] = flags.size
    return counts
