"""Comparison of two product files: structure, keywords, flags, values."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

OWN_KEYWORDS = {
    "DATE": "when the file was written",
    "JDASKVER": "version of jwstdask, which jwst does not have",
}
"""Keywords that differ on purpose, with the reason."""

OWN_METADATA = (
    "meta.date",
    "history",
    "extra_fits",
    "_fits_hash",
    "meta._",
    "meta.wcs.",
    "meta.group_id",
    "meta.asn.exptype",
    "cal_logs",
)
"""Beginnings of dotted names not compared: dates, the ASDF library's log, cards that no schema knows, checksums, what
the oracle's container of exposures leaves in them, and its messages."""

FLAGS = ("DQ", "GROUPDQ", "PIXELDQ")


@dataclass
class Difference:
    """How two arrays differ.

    Attributes
    ----------
    size
        Number of values.
    identical
        Share of values with the same bits; all NaN are the same.
    relative
        Largest relative difference, infinite where only one is NaN or zero.
    sigma
        Largest difference in units of ERR, where the product has one.
    count
        Values that are not identical.
    relative_999, sigma_999
        The difference that one value in a thousand exceeds.
    """

    size: int
    count: int
    identical: float
    relative: float
    sigma: float | None = None
    relative_999: float = 0.0
    sigma_999: float = 0.0


@dataclass
class Comparison:
    """How two products differ; lists of text are empty where they do not."""

    structure: list[str] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    arrays: dict[str, Difference] = field(default_factory=dict)

    @property
    def headers(self) -> list[str]:
        """Everything that differs but values and flags."""
        return [*self.structure, *self.keywords, *self.metadata, *self.tables]

    @property
    def flags(self) -> int:
        """Flags that differ."""
        return sum(item.count for name, item in self.arrays.items() if name.split(",")[0] in FLAGS)

    @property
    def relative(self) -> float:
        """Largest relative difference of all arrays but flags."""
        return max(
            (item.relative for name, item in self.arrays.items() if name.split(",")[0] not in FLAGS), default=0.0
        )


def _extremes(found: np.ndarray, size: int) -> tuple[float, float]:
    """The largest of some differences, and the one that a thousandth of all ``size`` values exceed."""
    found = np.sort(np.where(np.isnan(found), np.inf, found))[::-1]
    rank = size // 1000
    return float(found[0]), float(found[rank]) if rank < found.size else 0.0


def difference(ours: np.ndarray, oracle: np.ndarray, error: np.ndarray | None = None) -> Difference:
    """Difference of two arrays of the same shape; ``error`` is that of the oracle."""
    if ours.dtype.kind != "f":
        count = int(np.count_nonzero(ours != oracle))
        return Difference(ours.size, count, 1 - count / max(ours.size, 1), np.inf if count else 0.0)
    same = (ours == oracle) | (np.isnan(ours) & np.isnan(oracle))
    count = int(ours.size - np.count_nonzero(same))
    result = Difference(ours.size, count, 1 - count / max(ours.size, 1), 0.0, None if error is None else 0.0)
    if count:
        # Only what differs is looked at: arrays are large and differences few.
        a, b = ours[~same].astype(float), oracle[~same].astype(float)
        with np.errstate(all="ignore"):
            result.relative, result.relative_999 = _extremes(np.abs(a - b) / np.abs(b), ours.size)
            if error is not None:
                apart = np.abs(a - b) / np.broadcast_to(error, ours.shape)[~same]
                result.sigma, result.sigma_999 = _extremes(apart, ours.size)
    return result


def label(hdu: Any) -> str:
    return hdu.name if hdu.ver == 1 else f"{hdu.name},{hdu.ver}"


def compare(ours: str | Path, oracle: str | Path, tolerance: float = 0.0, ignore: Iterable[str] = ()) -> Comparison:
    """Compare two product files.

    Parameters
    ----------
    ours, oracle
        The files.
    tolerance
        Relative, of keywords that are floating-point numbers.
    ignore
        Keywords not to compare, besides those of `OWN_KEYWORDS`.
    """
    result = Comparison()
    ignored = {*OWN_KEYWORDS, *ignore}
    with fits.open(ours) as left, fits.open(oracle) as right:
        names = [label(hdu) for hdu in left], [label(hdu) for hdu in right]
        if names[0] != names[1]:
            result.structure.append(f"HDUs {names[0]} != {names[1]}")
        shared = [name for name in names[0] if name in names[1]]
        error = right["ERR"].data if "ERR" in names[1] else None
        for name in shared:
            key = (name.split(",")[0], int(name.split(",")[1])) if "," in name else name
            a, b = left[key], right[key]
            if name == "AREA" and not b.size:
                # The oracle takes every area map for one of the full frame, as real ones are, and cuts nothing out of
                # that of a subarray away from the corner.
                continue
            if type(a) is not type(b):
                result.structure.append(f"{name}: {type(a).__name__} != {type(b).__name__}")
                continue
            if name != "ASDF":
                result.keywords += [f"{name} {text}" for text in _keywords(a.header, b.header, ignored, tolerance)]
            if isinstance(a, fits.BinTableHDU):
                if name != "ASDF":
                    result.tables += [f"{name} {text}" for text in _tables(a, b)]
                continue
            if a.data is None or b.data is None:
                if a.data is not b.data:
                    result.structure.append(f"{name}: only one holds data")
                continue
            if a.data.shape != b.data.shape or a.data.dtype != b.data.dtype:
                result.structure.append(f"{name}: {a.data.shape} {a.data.dtype} != {b.data.shape} {b.data.dtype}")
                continue
            usable = error if error is not None and error.shape == b.data.shape and name == "SCI" else None
            result.arrays[name] = difference(a.data, b.data, usable)
    result.metadata = list(_metadata(ours, oracle, tolerance))
    return result


def _same(ours: Any, oracle: Any, tolerance: float) -> bool:
    if type(ours) is float and type(oracle) is float:
        return bool(np.isclose(ours, oracle, rtol=tolerance, atol=0, equal_nan=True))
    return type(ours) is type(oracle) and ours == oracle


def _keywords(ours: fits.Header, oracle: fits.Header, ignored: set[str], tolerance: float) -> Iterator[str]:
    blank = ("", "COMMENT", "HISTORY")
    left = {card.keyword: card for card in ours.cards if card.keyword not in (*ignored, *blank)}
    right = {card.keyword: card for card in oracle.cards if card.keyword not in (*ignored, *blank)}
    for keyword in left.keys() | right.keys():
        if keyword not in right:
            yield f"{keyword}: {left[keyword].value!r} that the oracle does not have"
        elif keyword not in left:
            yield f"{keyword}: missing, the oracle has {right[keyword].value!r}"
        else:
            a, b = left[keyword].value, right[keyword].value
            if not _same(a, b, tolerance):
                yield f"{keyword}: {a!r} != {b!r}"
            elif left[keyword].comment != right[keyword].comment:
                yield f"{keyword}: comment {left[keyword].comment!r} != {right[keyword].comment!r}"
    order = [name for name in left if name in right], [name for name in right if name in left]
    if order[0] != order[1]:
        first = next(index for index, (a, b) in enumerate(zip(*order)) if a != b)
        yield f"order: {order[0][first]} where the oracle has {order[1][first]}"


def _tables(ours: fits.BinTableHDU, oracle: fits.BinTableHDU) -> Iterator[str]:
    if ours.columns.names != oracle.columns.names or ours.columns.formats != oracle.columns.formats:
        yield f"columns {ours.columns.names} {ours.columns.formats} != {oracle.columns.names} {oracle.columns.formats}"
        return
    if len(ours.data) != len(oracle.data):
        yield f"{len(ours.data)} rows != {len(oracle.data)}"
        return
    for name in ours.columns.names:
        if name in OWN_KEYWORDS:
            continue
        a, b = ours.data[name], oracle.data[name]
        same = np.array_equal(a, b, equal_nan=True) if a.dtype.kind == "f" else np.array_equal(a, b)
        if not same:
            yield f"{name}: {a} != {b}"


def _metadata(ours: str | Path, oracle: str | Path, tolerance: float) -> Iterator[str]:
    """Differences of the metadata as stdatamodels reads them; some are in the ASDF extension only."""
    from stdatamodels.jwst import datamodels

    found = []
    for path in (ours, oracle):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with datamodels.open(path) as model:
                flat = model.to_flat_dict(include_arrays=False)
        kept = {name: value for name, value in flat.items() if not name.startswith(OWN_METADATA)}
        # whether there is one; that it is the same is compared on a grid
        found.append(kept if kept.get("meta.wcs") is None else {**kept, "meta.wcs": "a WCS"})
    left, right = found
    for name in sorted(left.keys() | right.keys()):
        a, b = left.get(name), right.get(name)
        # the kind of number is the FITS header's affair: stdatamodels turns 1.0 into 1
        if not (_same(a, b, tolerance) or a == b):
            yield f"{name}: {left.get(name)!r} != {right.get(name)!r}"


def row(pipeline: str, mode: str, product: str, found: Comparison) -> dict[str, Any]:
    """A line of the parity table."""
    floats = {name: item for name, item in found.arrays.items() if name.split(",")[0] not in FLAGS}
    total = sum(item.size for item in floats.values())
    sigmas = [item.sigma for item in floats.values() if item.sigma is not None]
    return {
        "pipeline": pipeline,
        "mode": mode,
        "product": product,
        "values": total,
        "different": sum(item.count for item in floats.values()),
        "relative": found.relative,
        "sigma": max(sigmas) if sigmas else None,
        "flags": found.flags if any(name.split(",")[0] in FLAGS for name in found.arrays) else None,
        "header": len(found.headers),
    }


def shift(ours: str | Path, oracle: str | Path, points: int = 9) -> float:
    """Largest distance [pixel] between the places that the two products' WCS give to the same point of the sky."""
    from stdatamodels.jwst import datamodels

    with datamodels.open(ours) as left, datamodels.open(oracle) as right:
        ny, nx = right.data.shape[-2:]
        x, y = np.meshgrid(np.linspace(0, nx - 1, points), np.linspace(0, ny - 1, points))
        sky = left.meta.wcs(x, y, with_bounding_box=False)
        back = right.meta.wcs.invert(*sky, with_bounding_box=False)
        # the inverse is a polynomial: its own error is taken off
        own = right.meta.wcs.invert(*right.meta.wcs(x, y, with_bounding_box=False), with_bounding_box=False)
    return float(np.max(np.hypot(back[0] - own[0], back[1] - own[1])))
