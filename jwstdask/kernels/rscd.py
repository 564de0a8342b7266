"""First groups of MIRI integrations, bent by the reset-switch charge decay."""

from __future__ import annotations

import numpy as np

from jwstdask.core.dq import DO_NOT_USE, SATURATED


def groups_to_flag(ngroups: int, wanted: int) -> int:
    """Number of first groups to flag: those ``wanted``, but one in short ramps, and so that three groups are left."""
    return min(1 if ngroups <= 5 else wanted, max(ngroups - 3, 0))


def flag(groupdq: np.ndarray, groups: int, out: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Set DO_NOT_USE in the first groups of integrations, fewer where the ramp saturates early.

    Two groups must be left before saturation, so that a slope can be fitted; if they are not, as many of the first
    groups stay in use as needed. Ramps saturated from their first group on are flagged like any other.

    Parameters
    ----------
    groupdq
        uint8 (integration, group, y, x), at least ``groups + 2`` groups.
    groups
        Number of groups to flag.
    out
        Where to write the flags; may be ``groupdq``.

    Returns
    -------
    flags
        uint8 (integration, group, y, x).
    number
        int64 (integration, y, x), groups flagged.
    early
        bool (integration, y, x), ramps that saturate too early for all groups to be flagged.

    Notes
    -----
    Source: JWST pipeline documentation, "rscd". Saturation is taken to last to the end of an integration.
    """
    if out is None:
        out = groupdq.copy()
    elif out is not groupdq:
        out[...] = groupdq
    saturated = (groupdq[:, : groups + 2] & SATURATED) != 0
    late = ~saturated[:, 0]
    early = saturated[:, groups + 1] & late
    # Saturated groups next to each other, counted back from the last one looked at.
    run = np.logical_and.accumulate(saturated[:, :0:-1], axis=1).sum(axis=1)
    number = np.where(late, np.maximum(groups - run, 0), groups)
    index = np.arange(groups)[:, None, None]
    out[:, :groups][index < number[:, None]] |= np.uint8(DO_NOT_USE)
    return out, number, early
