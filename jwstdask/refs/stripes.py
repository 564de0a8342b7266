"""Rows of the detector that a multi-stripe readout visits.

A multi-stripe subarray is not a rectangle: the detector reads `multistripe_reads1` rows, skips `multistripe_skips1`,
reads `multistripe_reads2`, and goes on with further reads of `multistripe_reads2` after `multistripe_skips2` rows, or
returns to its first row when `repeat_stripe` is set. With superstripes the second read moves by `superstripe_step` from
one superstripe to the next. A full-frame reference is gathered in the same order.

Source: JWST keyword dictionary (MSTR_RD1, MSTR_SK1, ... SSTR_NST) and the DHS and SOSS stripe documentation of JDox.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jwstdask.core.errors import InputError

__all__ = ["is_multistripe", "slow_axis_is_y", "stripe_rows", "superstripes"]

log = logging.getLogger(__name__)

DETECTOR_SIZE = 2048


def _inconsistent(meta: Mapping[str, Any], reason: str) -> InputError:
    return InputError(
        str(meta.get("meta.filename", "exposure")),
        f"the multi-stripe keywords are inconsistent: {reason}",
        "the exposure must be delivered again",
    )


def _value(meta: Mapping[str, Any], name: str) -> int:
    return int(meta.get(f"meta.subarray.{name}") or 0)


def is_multistripe(meta: Mapping[str, Any]) -> bool:
    """Whether the exposure was read in stripes."""
    return meta.get("meta.subarray.multistripe_reads1") is not None


def superstripes(meta: Mapping[str, Any]) -> int:
    """Number of superstripes; 0 for exposures without."""
    return _value(meta, "num_superstripe")


def slow_axis_is_y(meta: Mapping[str, Any]) -> bool:
    """Whether detector rows run along x of the science frame, so that the slow axis is y."""
    return abs(_value(meta, "slowaxis")) != 1


def _first_row(meta: Mapping[str, Any]) -> int:
    """Detector index of the first row read; SUBSTRT counts from 1 and, for a reversed slow axis, from the far end."""
    start = _value(meta, "ystart" if slow_axis_is_y(meta) else "xstart")
    first = start - 1
    if _value(meta, "slowaxis") < 0:
        # Early products carry 1 where the first row of the readout is meant.
        first = 0 if start == 1 else DETECTOR_SIZE - start
    if first != 0 and "DHS" in str(meta.get("meta.subarray.name")).upper():
        log.warning("%s: the start of a DHS readout is taken as the first detector row", meta.get("meta.filename"))
        return 0
    return first


def _reads(meta: Mapping[str, Any], stripe: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each read, without end."""
    reads1, reads2 = _value(meta, "multistripe_reads1"), _value(meta, "multistripe_reads2")
    skips1, skips2 = _value(meta, "multistripe_skips1"), _value(meta, "multistripe_skips2")
    step = _value(meta, "superstripe_step")
    if reads2 <= 0 and superstripes(meta) > 0:
        reads2 = step
    if reads2 <= 0:
        raise _inconsistent(meta, "MSTR_RD2 (multistripe_reads2) must be positive")
    first = row = _first_row(meta)
    skip = skips1 + step * stripe if superstripes(meta) > 0 else skips1
    interleaved = skips1
    if reads1 > 0:
        yield row, reads1
    row += max(reads1, 0) + skip
    yield row, reads2
    row += reads2
    while True:
        if _value(meta, "repeat_stripe") > 0:
            row = first
            if reads1 > 0:
                yield row, reads1
                row += reads1
            if meta.get("meta.subarray.interleave_reads1"):
                interleaved += skips2 + reads2
                row += interleaved
            else:
                row += skip
        else:
            row += skips2
        yield row, reads2
        row += reads2


def stripe_rows(meta: Mapping[str, Any]) -> np.ndarray:
    """Full-frame index along the slow axis of each row of a multi-stripe exposure, both in the science frame.

    Returns
    -------
    numpy.ndarray
        intp, shape (slow,), or (superstripe, slow) for an exposure in superstripes.

    Raises
    ------
    InputError
        If the stripes do not add up to the size of the subarray.
    """
    size = _value(meta, "ysize" if slow_axis_is_y(meta) else "xsize")
    count = superstripes(meta)
    lines = []
    for stripe in range(max(count, 1)):
        rows: list[int] = []
        for start, number in _reads(meta, stripe):
            rows.extend(range(start, start + number))
            if len(rows) >= size:
                break
        if len(rows) != size:
            raise _inconsistent(meta, f"stripes of {len(rows)} rows do not fill the {size} rows of the subarray")
        lines.append(rows)
    index = np.array(lines, dtype=np.intp)
    if _value(meta, "slowaxis") < 0:
        index = DETECTOR_SIZE - 1 - index[:, ::-1]
    return index if count > 0 else index[0]
