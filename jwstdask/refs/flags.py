"""Data-quality flags of reference files, moved to the standard bits as they are used."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np

from jwstdask.core import dq as flags
from jwstdask.kernels.decode import moved_flags, standard_flags

log = logging.getLogger(__name__)


def remap_dq(values: np.ndarray, definitions: list[tuple[int, str]], path: str = "") -> np.ndarray:
    """Move data-quality bits to their standard places.

    Parameters
    ----------
    values
        Integer array of any shape.
    definitions
        (value, name) of each flag as DQ_DEF gives them.
    path
        Named in the warning about unknown flags.

    Returns
    -------
    numpy.ndarray
        uint32, same shape: the union of the standard bits of all flags set; bits without a definition are lost.
    """
    values = np.asarray(values).astype(np.uint32, copy=False)
    return moved_flags(values, *flag_tables(definitions, path))


def flag_tables(definitions: list[tuple[int, str]], path: str = "") -> tuple[np.ndarray, np.ndarray | None]:
    """The standard bits by the lower and by the upper 16 bits of a value; None where the upper ones mean nothing."""
    moves = []
    for value, name in definitions:
        standard = flags.PIXEL.get(name)
        if standard is not None:
            moves.append((value, standard))
        elif name != "GOOD":
            log.warning("%s: DQ_DEF names the unknown flag %r, which is ignored", path, name)
    return _flag_tables(tuple(moves))


@functools.lru_cache(maxsize=32)
def _flag_tables(moves: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, np.ndarray | None]:
    # A flag whose value has several bits (none is in use) is set where any of them is, so that the two halves of a
    # word can be looked up on their own.
    index = np.arange(1 << 16, dtype=np.uint32)
    low, high = np.zeros_like(index), np.zeros_like(index)
    for value, standard in moves:
        low[(index & np.uint32(value & 0xFFFF)) != 0] |= np.uint32(standard)
        high[(index & np.uint32(value >> 16)) != 0] |= np.uint32(standard)
    return low, high if high.any() else None


SIGN_BITS = {
    ("|u1", "uint8"): 0,
    (">i2", "int16"): 0,
    (">i2", "uint16"): 1 << 15,
    (">i4", "int32"): 0,
    (">i4", "uint32"): 1 << 31,
}
"""What undoes BZERO, by dtype as stored and as meant."""


_BY_PIECES = ("|u1", ">i4", ">u4")
"""Types as stored of what `standard_flags` takes."""


class FlagMap:
    """A data-quality array that stays in its file: uint32 with the standard bits of what is indexed.

    Parameters
    ----------
    raw
        As it stands in the file, (..., y, x).
    sign
        Bit that undoes BZERO.
    tables
        From `flag_tables`; None if the bits are standard.
    """

    dtype = np.dtype(np.uint32)

    def __init__(self, raw: np.ndarray, sign: int, tables: tuple[np.ndarray, np.ndarray | None] | None) -> None:
        self.raw, self.sign, self.tables = raw, sign, tables
        self.shape, self.ndim = raw.shape, raw.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        stored = np.asarray(self.raw[key])
        if stored.ndim >= 2 and stored.dtype.str in _BY_PIECES:
            return standard_flags(stored, self.sign, self.tables)
        values = stored.astype(stored.dtype.newbyteorder("="))
        if self.sign:
            values = values.view(f"u{values.dtype.itemsize}") ^ np.array(self.sign, f"u{values.dtype.itemsize}")
        values = values.astype(np.uint32, copy=False)
        return values if self.tables is None else moved_flags(values, *self.tables)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[...] if dtype is None else self[...].astype(dtype, copy=False)

    def add_to(self, flags: np.ndarray, key: Any) -> None:
        """Add what is indexed to other flags (..., y, x), uint32, in place."""
        stored = np.asarray(self.raw[key])
        if stored.shape == flags.shape and stored.dtype.str in _BY_PIECES and flags.flags.c_contiguous:
            standard_flags(stored, self.sign, self.tables, flags)
        else:
            flags |= self[key]


def add_flags(flags: np.ndarray, more: FlagMap | np.ndarray, key: Any) -> None:
    """Add a part of a reference's flags to other flags (..., y, x), uint32, in place."""
    if isinstance(more, FlagMap):
        more.add_to(flags, key)
    else:
        flags |= more[key]
