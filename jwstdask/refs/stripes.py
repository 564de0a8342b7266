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
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jwstdask.core.errors import InputError

__all__ = ["Slab", "Superstripes", "is_multistripe", "slow_axis_is_y", "stripe_rows", "superstripes"]

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


class Read(NamedTuple):
    """A run of rows along the slow axis, in the order of the readout: the detector's first row, how many, and whether
    they are the rows that are read anew before each stripe (`multistripe_reads1`)."""

    first: int
    rows: int
    anew: bool


def _endless(meta: Mapping[str, Any], superstripe: int) -> Iterator[Read]:
    """What is read of a superstripe (0 without superstripes), without end."""
    reads1, reads2 = _value(meta, "multistripe_reads1"), _value(meta, "multistripe_reads2")
    skips1, skips2 = _value(meta, "multistripe_skips1"), _value(meta, "multistripe_skips2")
    step = _value(meta, "superstripe_step")
    if reads2 <= 0 and superstripes(meta) > 0:
        reads2 = step
    if reads2 <= 0:
        raise _inconsistent(meta, "MSTR_RD2 (multistripe_reads2) must be positive")
    first = row = _first_row(meta)
    skip = skips1 + step * superstripe if superstripes(meta) > 0 else skips1
    interleaved = skips1
    if reads1 > 0:
        yield Read(row, reads1, True)
    row += max(reads1, 0) + skip
    yield Read(row, reads2, False)
    row += reads2
    while True:
        if _value(meta, "repeat_stripe") > 0:
            row = first
            if reads1 > 0:
                yield Read(row, reads1, True)
                row += reads1
            if meta.get("meta.subarray.interleave_reads1"):
                interleaved += skips2 + reads2
                row += interleaved
            else:
                row += skip
        else:
            row += skips2
        yield Read(row, reads2, False)
        row += reads2


def _slow_size(meta: Mapping[str, Any]) -> int:
    return _value(meta, "ysize" if slow_axis_is_y(meta) else "xsize")


def _reads(meta: Mapping[str, Any], superstripe: int) -> list[Read]:
    """What fills the rows of the exposure in a superstripe."""
    size, found, rows = _slow_size(meta), [], 0
    for read in _endless(meta, superstripe):
        found.append(read)
        rows += read.rows
        if rows >= size:
            break
    if rows != size:
        raise _inconsistent(meta, f"stripes of {rows} rows do not fill the {size} rows of the subarray")
    return found


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
    count = superstripes(meta)
    lines = [
        [row for read in _reads(meta, stripe) for row in range(read.first, read.first + read.rows)]
        for stripe in range(max(count, 1))
    ]
    index = np.array(lines, dtype=np.intp)
    if _value(meta, "slowaxis") < 0:
        index = DETECTOR_SIZE - 1 - index[:, ::-1]
    return index if count > 0 else index[0]


class Slab(NamedTuple):
    """Rows along the slow axis, in the science frame: first in the exposure, first in the frame, and how many."""

    source: int
    target: int
    rows: int


@dataclass(frozen=True)
class Superstripes:
    """How the superstripes of an exposure make up a frame.

    Each integration of the exposure is one superstripe, and as many successive ones as there are superstripes make an
    integration of the frame. Where rows are read several times within a group, each time makes a group of the frame.

    Attributes
    ----------
    slabs
        For each time that rows are read within a group, the rows of each superstripe; later ones replace earlier ones.
    start, size
        SUBSTRT and SUBSIZE of the frame along the slow axis.
    along_y
        The slow axis is y.
    read_times
        Times of the reads of each group of the frame [s]; None if they are evenly spaced.
    """

    slabs: tuple[tuple[Slab, ...], ...]
    start: int
    size: int
    along_y: bool
    read_times: tuple[tuple[float, ...], ...] | None

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Superstripes:
        """Of the metadata of an exposure.

        Raises
        ------
        InputError
            If the keywords contradict each other.
        """
        slow, reverse = _slow_size(meta), _value(meta, "slowaxis") < 0
        pieces: list[list[Slab]] = []
        for stripe in range(superstripes(meta)):
            row, found = 0, []
            for read in _reads(meta, stripe):
                if not read.anew:
                    found.append(Slab(row, read.first, read.rows))
                row += read.rows
            pieces.append(found)
        first = min(slab.target for found in pieces for slab in found)
        last = max(slab.target + slab.rows for found in pieces for slab in found)
        start = DETECTOR_SIZE - last + 1 if reverse else first + 1
        if meta.get("meta.subarray.name") in _WHOLE_COLUMNS:
            first, last, start = 0, DETECTOR_SIZE, 1
        if reverse:
            turned = [[Slab(slow - s - n, last - t - n, n) for s, t, n in found] for found in pieces]
        else:
            turned = [[Slab(s, t - first, n) for s, t, n in found] for found in pieces]
        passes = tuple(zip(*turned, strict=True))
        times = _read_times(meta) if len(passes) > 1 else None
        return cls(passes, start, last - first, slow_axis_is_y(meta), times)

    @property
    def count(self) -> int:
        """Superstripes."""
        return len(self.slabs[0])

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape (integration, group, y, x) of the frame, of that of the exposure."""
        nints, ngroups, ny, nx = shape
        ny, nx = (self.size, nx) if self.along_y else (ny, self.size)
        return nints // self.count, ngroups * len(self.slabs), ny, nx

    def metadata(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """Metadata of an exposure after its superstripes are put together."""
        nints, ngroups = int(meta["meta.exposure.nints"]), int(meta["meta.exposure.ngroups"])
        begin, end = meta.get("meta.exposure.integration_start"), meta.get("meta.exposure.integration_end")
        axis = "y" if self.along_y else "x"
        changed: dict[str, Any] = {
            "meta.exposure.integration_start": self._integration(1 if begin is None else int(begin)),
            "meta.exposure.integration_end": self._integration(nints if end is None else int(end)),
            "meta.exposure.nints": self._integration(nints),
            "meta.exposure.ngroups": ngroups * len(self.slabs),
            f"meta.subarray.{axis}start": self.start,
            f"meta.subarray.{axis}size": self.size,
        }
        if self.read_times is not None:
            changed["meta.exposure.read_times"] = [list(times) for times in self.read_times]
        dropped = {f"meta.subarray.{name}" for name in _KEYWORDS}
        return {name: value for name, value in meta.items() if name not in dropped} | changed

    def _integration(self, number: int) -> int:
        """Integration of the frame that a superstripe belongs to, both counted from 1."""
        return -(-number // self.count)

    def tables(self, meta: Mapping[str, Any], times: np.ndarray | None) -> dict[str, np.ndarray]:
        """INT_TIMES of the frame and INT_TIMES_STRIPE, by lower-case name, of the exposure's INT_TIMES.

        An integration lasts from the start of its first superstripe to the end of its last one.
        """
        if times is None or len(times) == 0:
            return {} if times is None else {"int_times": times}
        count = self.count
        if len(times) % count:
            raise _inconsistent(meta, f"INT_TIMES has {len(times)} rows for superstripes in {count} parts")
        begin = meta.get("meta.exposure.integration_start")
        number = np.arange(len(times) // count, dtype=np.int32) + self._integration(1 if begin is None else int(begin))
        names = [name for name in times.dtype.names or () if name != "integration_number"]
        single = np.zeros(len(times), [("integration_number", np.int32), ("stripe_number", np.int32),
                                       *((name, np.float64) for name in names)])  # fmt: skip
        single["integration_number"] = np.repeat(number, count)
        single["stripe_number"] = np.arange(len(times)) % count + 1
        joined = np.zeros(len(number), [field for field in single.dtype.descr if field[0] != "stripe_number"])
        joined["integration_number"] = number
        for name in names:
            single[name] = times[name]
        for scale in ("MJD_UTC", "BJD_TDB"):
            start, mid, end = (f"int_{part}_{scale}" for part in ("start", "mid", "end"))
            joined[start], joined[end] = times[start][::count], times[end][count - 1 :: count]
            joined[mid] = (joined[end] - joined[start]) / 2.0 + joined[start]
        return {"int_times": joined, "int_times_stripe": single}


_KEYWORDS = (
    "multistripe_reads1",
    "multistripe_reads2",
    "multistripe_skips1",
    "multistripe_skips2",
    "repeat_stripe",
    "interleave_reads1",
    "num_superstripe",
    "superstripe_step",
)

_WHOLE_COLUMNS = frozenset(("SUB17STRIPE_SOSS", "SUB60STRIPE_SOSS", "SUB204STRIPE_SOSS", "SUB680STRIPE_SOSS"))
"""Subarrays of NIRISS whose superstripes make up a frame of all columns of the detector."""

_CLOCK = 10.0e-6
"""Time to read a pixel [s]."""

_ROW_OVERHEAD = 12
"""Clocks added to each row."""


def _read_times(meta: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    """Times of the reads of each group [s], where stripes are read several times within a frame.

    Between two frames all rows are read; before the first read of a group only those of one stripe were reset.
    """
    frames, gap, groups = (int(meta[f"meta.exposure.{name}"]) for name in ("nframes", "groupgap", "ngroups"))
    outputs = int(meta["meta.exposure.noutputs"])
    rows = _slow_size(meta)
    columns = _value(meta, "xsize" if slow_axis_is_y(meta) else "ysize")
    extra, clocks = (1, 1) if outputs == 4 else (2, 0) if outputs == 1 and columns >= 9 else (3, 0)
    line = columns / outputs + _ROW_OVERHEAD
    stripe = _value(meta, "multistripe_reads1") + _value(meta, "multistripe_reads2")
    frame = (line * (rows + extra) + clocks) * _CLOCK
    steps = [frame]
    if stripe > 0:
        steps = [(line * (stripe + extra) + clocks) * _CLOCK] + [line * stripe * _CLOCK] * (rows // stripe - 1)
    found, total = [], 0.0
    for _ in range(groups):
        for step in steps:
            found.append(tuple(total + step + number * frame for number in range(frames)))
            total += step
        total += frame * (frames - 1 + gap)
    return tuple(found)
