"""Groups of a frame that no ramp uses, and ramps that would be fitted otherwise if these were left out.

MIRI's first groups and its last one are flagged in all pixels. The slopes are those of the ramps without them, but for
some ramps that are told from the others here.
"""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.core.dq import CHARGELOSS, DO_NOT_USE, JUMP_DET, PERSISTENCE, SATURATED


def unused_groups(groupdq: np.ndarray, suppress_one_group: bool = False, used: slice = slice(None)) -> tuple[int, int]:
    """Number of leading groups, and of the trailing group (0 or 1), that no ramp uses.

    Parameters
    ----------
    groupdq
        uint8 (integration, group, y, x).
    suppress_one_group
        Ramps with one good group use none.
    used
        Groups that count; the others are as if they were DO_NOT_USE.

    Returns
    -------
    leading, trailing
        If no group is left, ``leading + trailing`` is the number of groups.
    """
    size = groupdq.shape[1]
    counted = range(*used.indices(size))

    def lone(ramps: np.ndarray) -> np.ndarray:
        return (
            np.count_nonzero((ramps[:, counted.start : counted.stop] & np.uint8(255 - PERSISTENCE)) == 0, axis=1) == 1
        )

    def unused(group: int) -> bool:
        if group not in counted:
            return True
        kept = (groupdq[:, group] & DO_NOT_USE) == 0
        first = tuple(np.unravel_index(np.argmax(kept), kept.shape))
        if not kept[first]:
            return True
        # one ramp tells of most groups that they are used
        ramps = np.moveaxis(groupdq, 1, -1)
        return suppress_one_group and bool(lone(ramps[first][np.newaxis])[0] and lone(ramps[kept]).all())

    leading = 0
    while leading < size and unused(leading):
        leading += 1
    return leading, int(leading < size and unused(size - 1))


@numba.njit(cache=True, nogil=True)
def _count_dependent(sci, groupdq, pixeldq, suppress, first, last, y0, y1, x0, x1):
    ngroups = groupdq.shape[1]
    telling = JUMP_DET | SATURATED | PERSISTENCE | CHARGELOSS
    number = 0
    for i in range(groupdq.shape[0]):
        for y in range(y0, y1):
            for x in range(x0, x1):
                bits = 0
                for group in range(first + 1):
                    bits |= groupdq[i, group, y, x]
                for group in range(last, ngroups):
                    bits |= groupdq[i, group, y, x]
                if bits & telling:
                    number += 1
                    continue
                if pixeldq[y, x] & DO_NOT_USE:
                    continue
                clear = 0
                good = 0
                for group in range(first, last):
                    clear += groupdq[i, group, y, x] == 0
                    good += (groupdq[i, group, y, x] & ~PERSISTENCE) == 0
                if not suppress and clear <= 1:
                    # Whether a lone group is group 0 decides on its time; the zero frame replaces group 0.
                    number += 1
                    continue
                if groupdq[i, first, y, x] & DO_NOT_USE or (suppress and good == 1):
                    continue
                # Without a usable difference, the first group in use stands for the rate.
                usable = False
                for group in range(first + 1, last):
                    here, before = groupdq[i, group, y, x], groupdq[i, group - 1, y, x]
                    step = sci[i, group, y, x] - sci[i, group - 1, y, x]
                    if (here | before) & (DO_NOT_USE | SATURATED) == 0 and here & JUMP_DET == 0 and not np.isnan(step):
                        usable = True
                        break
                number += not usable
    return number


def count_dependent(
    sci: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    first_group: int,
    last_group: int,
    suppress_one_group: bool = True,
    inner: tuple[slice, slice] | None = None,
) -> int:
    """Number of ramps whose results depend on whether the groups outside first_group:last_group are left out.

    These groups must be DO_NOT_USE in all pixels of ``inner``. Leaving them out or not is then the same but for the
    flags they and the first group in use carry, for ramps without any usable difference and for lone groups. Some more
    ramps may be counted.

    Parameters
    ----------
    sci, groupdq
        float32 and uint8 (integration, group, y, x).
    pixeldq
        uint32 (y, x).
    first_group, last_group, suppress_one_group, inner
        As in :func:`jwstdask.kernels.ramp_fit.ramp_fit`.
    """
    rows, columns = inner or (slice(None), slice(None))
    y0, y1, _ = rows.indices(sci.shape[2])
    x0, x1, _ = columns.indices(sci.shape[3])
    return _count_dependent(sci, groupdq, pixeldq, suppress_one_group, first_group, last_group, y0, y1, x0, x1)
