"""Flags for the time in which a pixel that saturated may still give off charge."""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.core.dq import DO_NOT_USE, PERSISTENCE, SATURATED
from jwstdask.kernels.compiled import UNCOUNTED


@numba.njit(**UNCOUNTED)
def _flag(sci, groupdq, times, duration, threshold, flags, expiry):
    integrations, groups, rows, columns = groupdq.shape
    for y in range(rows):
        for x in range(columns):
            until = expiry[y, x]
            for i in range(integrations):
                saturated = 0
                for group in range(groups):
                    now = times[i, group]
                    end = now + duration
                    if until < now:
                        until = 0.0
                    if groupdq[i, group, y, x] & SATURATED:
                        saturated += 1
                    if saturated == 1:
                        until = end
                    if not until > 0.0 and sci[i, group, y, x] > threshold:
                        until = end
                    if until != 0.0 and until - end > 0.0:
                        # A window that begins in the future belongs to a later exposure.
                        until = 0.0
                    if until > 0.0:
                        groupdq[i, group, y, x] |= flags
            expiry[y, x] = until


def flag(
    sci: np.ndarray,
    groupdq: np.ndarray,
    times: np.ndarray,
    persistence_time: float,
    *,
    dn_threshold: float | None = None,
    do_not_use: bool = False,
    expiry: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Set PERSISTENCE in the groups read while a pixel's window of persistence is open.

    The window opens (again) at the first saturated group of an integration, or at a group above ``dn_threshold`` if it
    is not open.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    groupdq
        uint8 (integration, group, y, x).
    times
        float64 (integration, group), when each group is read [s since 1970].
    persistence_time
        How long a window stays open [s].
    dn_threshold
        Values above it open a window too [DN].
    do_not_use
        Set DO_NOT_USE as well.
    expiry
        float64 (y, x), ends of windows opened by earlier exposures [s since 1970], 0 where there is none.
    out
        Where to write the flags; may be ``groupdq``.

    Returns
    -------
    groupdq
        uint8 (integration, group, y, x).
    expiry
        float64 (y, x), ends of the windows open at the end of the exposure.
    """
    if out is None:
        out = groupdq.copy()
    elif out is not groupdq:
        out[...] = groupdq
    expiry = np.zeros(groupdq.shape[2:]) if expiry is None else np.array(expiry, np.float64)
    flags = np.uint8(PERSISTENCE | (DO_NOT_USE if do_not_use else 0))
    threshold = np.inf if dn_threshold is None else float(dn_threshold)
    times = np.ascontiguousarray(times, np.float64)
    _flag(np.ascontiguousarray(sci, np.float32), out, times, float(persistence_time), threshold, flags, expiry)
    return out, expiry
