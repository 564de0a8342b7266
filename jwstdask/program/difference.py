"""How two products, or two folders of products, differ: pixels, flags, tables, keywords, metadata and WCS.

The first product, A, is the one before, the second, B, the one after. Images are compared in strips of rows, so that a
mosaic of any size takes some megabytes; what both hold alike costs one look.

A value is *identical* if it is equal or NaN in both. Differences of images in the units of ERR are also given in
errors ("sigma"): those of SCI and ERR divided by ERR, those of a variance by its square.
"""

from __future__ import annotations

import fnmatch
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from jwstdask.core import dq
from jwstdask.core.errors import InputError, JwstdaskError
from jwstdask.engine.executor import Executor, Serial
from jwstdask.io.header import is_structural
from jwstdask.io.layout import FitsLayout, Hdu, open_layout, read_bytes
from jwstdask.io.metadata import flatten, has_wcs, model_name, read_asdf_tree, read_wcs
from jwstdask.io.schema import model_schema

IGNORED: tuple[str, ...] = (
    "DATE",
    "FILENAME",
    "CHECKSUM",
    "DATASUM",
    "CAL_VER",
    "CAL_VCS",
    "CRDS_VER",
    "JDASKVER",
    "date",
    "version",
    "version.*",
    "meta.date",
    "meta.filename",
    "meta.calibration_software_*",
    "meta.ref_file.crds.sw_version",
    "asdf_library*",
    "cal_logs*",
    "history*",
    "_fits_hash",
)
"""Keywords and dotted names not compared: when, by which version and under which name a product was written."""

_STRIP = 1 << 17  # values compared at a time: arrays of 0.5 to 1 MB
_ROWS = 1 << 14  # rows of a table compared at a time
_DECADES = (-8, 8)
_EDGES = np.logspace(*_DECADES, 16 * (_DECADES[1] - _DECADES[0]) + 1)
_FLAGS = {"DQ": dq.PIXEL, "PIXELDQ": dq.PIXEL, "GROUPDQ": dq.GROUP}
_ERROR_POWER = {"SCI": 1, "ERR": 1, "VAR_POISSON": 2, "VAR_RNOISE": 2, "VAR_FLAT": 2}
_SHIFT = 1e-6
"""Distance that two evaluations of the same WCS may be apart [pixel]."""


@dataclass(frozen=True)
class Tolerance:
    """When two products count as the same.

    Attributes
    ----------
    rtol
        Numbers this close, relative to the larger of the two, are the same: pixels, cells of tables, keywords.
    max_sigma
        Pixels this close in units of the error are the same, too.
    min_identical
        Share of the values of every array and column that must be the same.
    max_shift
        Largest distance of the places on the sky of a pixel [pixel].
    ignore
        Keywords, dotted names and columns not to compare, with the wildcards of a shell.
    """

    rtol: float = 0.0
    max_sigma: float = 0.0
    min_identical: float = 1.0
    max_shift: float = _SHIFT
    ignore: tuple[str, ...] = IGNORED

    def ignores(self, name: str) -> bool:
        """True for a keyword or dotted name that is not compared."""
        return any(fnmatch.fnmatchcase(name.upper(), pattern.upper()) for pattern in self.ignore)

    def enough(self, same: int, size: int) -> bool:
        """Whether so many values out of ``size`` are enough to be the same."""
        return same == size or same >= self.min_identical * size


@dataclass
class FlagChange:
    """Pixels with a flag: in A, in B, in B only, in A only."""

    before: int = 0
    after: int = 0
    gained: int = 0
    lost: int = 0


@dataclass
class ArrayDifference:
    """How two arrays of the same shape differ.

    Attributes
    ----------
    shape, dtype
        Of the arrays.
    size
        Number of values.
    identical
        Number of values that are equal, or NaN in both.
    same
        Number of values within the tolerance, the identical ones among them.
    only_a, only_b
        Values that are finite in A only, in B only; they are in none of the figures that follow.
    largest, rms
        Difference, absolute and as root of the mean square over all values finite in both.
    relative, relative_rms
        The same relative to the larger of the two values.
    sigma, sigma_rms
        The same in units of the error; None without errors. The error is that of A, or of B where A has none.
    sigma_999
        One value in a thousand differs by more, to 15 %.
    place
        Index of the largest difference (..., y, x); in units of the error where there are errors.
    flags
        Name of each data-quality flag that is set anywhere -> `FlagChange`.
    """

    shape: tuple[int, ...]
    dtype: str
    size: int = 0
    identical: int = 0
    same: int = 0
    only_a: int = 0
    only_b: int = 0
    largest: float = 0.0
    rms: float = 0.0
    relative: float = 0.0
    relative_rms: float = 0.0
    sigma: float | None = None
    sigma_rms: float | None = None
    sigma_999: float | None = None
    place: tuple[int, ...] | None = None
    flags: dict[str, FlagChange] = field(default_factory=dict)

    @property
    def different(self) -> int:
        """Number of values that are not identical."""
        return self.size - self.identical

    @property
    def share(self) -> float:
        """Share of identical values."""
        return self.identical / self.size if self.size else 1.0


@dataclass
class ColumnDifference:
    """How two columns of a table differ: number of cells, identical ones, those within the tolerance, and the largest
    relative difference of numbers."""

    size: int = 0
    identical: int = 0
    same: int = 0
    relative: float = 0.0


@dataclass
class ProductDifference:
    """How product B differs from product A.

    Attributes
    ----------
    a, b
        Paths; None where the other folder alone has the product.
    structure
        HDUs and columns that one of them lacks, other shapes and types: lines of text.
    arrays
        HDU -> `ArrayDifference`.
    tables
        HDU -> column -> `ColumnDifference`; of a catalogue the HDU is ``""``.
    keywords
        ``HDU.KEYWORD`` -> (value in A, value in B), where they differ; None where one lacks it.
    metadata
        The same for dotted names that have no keyword.
    shift
        Largest distance of the places on the sky of a pixel [pixel]; None where one of them has no WCS.
    failures
        What is beyond the tolerance, in short: empty if the products count as the same.
    error
        Why they could not be compared.
    """

    a: str | None
    b: str | None
    structure: list[str] = field(default_factory=list)
    arrays: dict[str, ArrayDifference] = field(default_factory=dict)
    tables: dict[str, dict[str, ColumnDifference]] = field(default_factory=dict)
    keywords: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    metadata: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    shift: float | None = None
    failures: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def name(self) -> str:
        """File name."""
        return os.path.basename(self.b or self.a or "")

    @property
    def status(self) -> int:
        """0 the same within the tolerance, 1 different, 2 could not be compared."""
        return 2 if self.error is not None else int(bool(self.failures))


def compare_products(a: str, b: str, tolerance: Tolerance | None = None) -> ProductDifference:
    """Compare two products.

    Parameters
    ----------
    a, b
        FITS files or ECSV catalogues; paths or URLs.
    tolerance
        What counts as the same.

    Raises
    ------
    InputError
        If a file cannot be read, or the two are of different kinds.
    """
    tolerance = tolerance or Tolerance()
    found = ProductDifference(a, b)
    kinds = [os.path.splitext(path)[1].lower() for path in (a, b)]
    if kinds[0] != kinds[1]:
        raise InputError(b, f"a {kinds[1]} file cannot be compared with {a}", "give two files of the same kind")
    if kinds[0] == ".ecsv":
        _compare_catalogs(found, a, b, tolerance)
    else:
        _compare_fits(found, open_layout(a), open_layout(b), tolerance)
    _judge(found, tolerance)
    return found


def compare_folders(
    pairs: Sequence[tuple[str | None, str | None]], tolerance: Tolerance | None = None, executor: Executor | None = None
) -> list[ProductDifference]:
    """Compare pairs of products, in parallel; one that cannot be compared has an `error` and leaves the others alone.

    Parameters
    ----------
    pairs
        From `match_products`.
    tolerance
        See `compare_products`.
    executor
        Where the comparisons run.
    """
    executor = executor or Serial()
    return list(executor.map(partial(_compare_pair, tolerance or Tolerance()), pairs))


def _compare_pair(tolerance: Tolerance, pair: tuple[str | None, str | None]) -> ProductDifference:
    a, b = pair
    if a is None or b is None:
        only = "A" if b is None else "B"
        return ProductDifference(a, b, [f"only {only} has this product"], failures=[f"only in {only}"])
    try:
        return compare_products(a, b, tolerance)
    except JwstdaskError as error:
        return ProductDifference(a, b, error=str(error))


def match_products(
    a: str, b: str, common: bool = False, kinds: Iterable[str] = ("fits", "ecsv")
) -> list[tuple[str | None, str | None]]:
    """Products of two folders and all folders in them, paired by name.

    Parameters
    ----------
    a, b
        The folders.
    common
        Leave out what only one of them has.
    kinds
        Extensions of file names.

    Returns
    -------
    list
        (path in A, path in B) in order of names, None where there is none.

    Raises
    ------
    InputError
        If a folder holds no product, or two of the same name.
    """
    left, right = _products(a, kinds), _products(b, kinds)
    names = sorted(left.keys() & right.keys() if common else left.keys() | right.keys())
    if not names:
        raise InputError(b, f"no product here has the name of one in {a}", "give folders of the same program")
    return [(left.get(name), right.get(name)) for name in names]


def _products(folder: str, kinds: Iterable[str]) -> dict[str, str]:
    endings = tuple(f".{kind}" for kind in kinds)
    found: dict[str, str] = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.startswith(".") or not name.endswith(endings):
                continue
            path = os.path.join(parent, name)
            if name in found:
                raise InputError(path, f"{found[name]} has the same name", "compare the folders in there one by one")
            found[name] = path
    if not found:
        raise InputError(folder, "there is no product in this folder", "give a folder with .fits or .ecsv files")
    return found


def label(hdu: Hdu) -> str:
    """HDU name, with EXTVER where it is not 1."""
    return hdu.name if hdu.version == 1 else f"{hdu.name},{hdu.version}"


def _compare_fits(found: ProductDifference, a: FitsLayout, b: FitsLayout, tolerance: Tolerance) -> None:
    left, right = ({label(hdu): hdu for hdu in layout} for layout in (a, b))
    for name in [*left, *(name for name in right if name not in left)]:
        if name not in right or name not in left:
            found.structure.append(f"only {'A' if name in left else 'B'} has HDU {name}")
            continue
        first, second = left[name], right[name]
        if name == "ASDF":
            continue
        found.keywords |= {
            f"{name}.{keyword}": pair
            for keyword, pair in _mappings(a.header_of(first).values, b.header_of(second).values, tolerance).items()
            if not is_structural(keyword)
        }
        if first.kind != second.kind:
            found.structure.append(f"{name} is of kind {first.kind} in A, {second.kind} in B")
        elif first.kind == "table":
            _compare_tables(found, a, b, first, second, tolerance)
        elif first.kind == "image" and (first.shape or second.shape):
            if first.dtype != second.dtype:
                found.structure.append(f"{name} is {first.dtype} in A, {second.dtype} in B")
            if first.shape != second.shape:
                found.structure.append(f"{name} has shape {first.shape} in A, {second.shape} in B")
            else:
                found.arrays[name] = compare_arrays(a, b, first, second, tolerance)
    found.metadata = _compare_metadata(a, b, tolerance)
    if has_wcs(a) and has_wcs(b):
        found.shift = _compare_wcs(a, b)


def strips(shape: Sequence[int], size: int = _STRIP) -> Iterator[tuple[tuple[slice, ...], slice]]:
    """Parts of an image (..., y, x) of about ``size`` values: slices along the leading axes and rows.

    Small planes are taken several at a time.
    """
    *leading, ny, nx = (1, *shape) if len(shape) == 1 else shape
    rows = max(min(size // max(nx, 1), ny), 1)
    together = max(size // max(nx * ny, 1), 1) if leading else 1
    *outer, last = leading or [1]
    for index in np.ndindex(*outer):
        for start in range(0, last, together):
            planes = (*(slice(i, i + 1) for i in index), slice(start, min(start + together, last)))
            for y in range(0, ny, rows):
                yield planes if leading else (), slice(y, min(y + rows, ny))


def compare_arrays(a: FitsLayout, b: FitsLayout, first: Hdu, second: Hdu, tolerance: Tolerance) -> ArrayDifference:
    """Compare two images of the same shape, strip by strip."""
    total = _Sums(tolerance)
    names = _FLAGS.get(first.name)
    flags = None if names is None else {name: FlagChange() for name in names}
    errors = [_error_of(layout, first) for layout in (a, b)]
    for leading, rows in strips(first.shape):
        x, y = (
            layout.read(hdu.name, rows, version=hdu.version, leading=leading)
            if hdu.ndim > 1
            else layout.read(hdu.name, version=hdu.version)
            for layout, hdu in ((a, first), (b, second))
        )
        if flags is not None and x.dtype.kind in "iu" and y.dtype.kind in "iu":
            _count_flags(flags, names or {}, x, y)
        different = _apart(x, y)
        count = int(np.count_nonzero(different))
        total.size += x.size
        total.identical += x.size - count
        total.finite += int(np.count_nonzero(np.isfinite(x) & np.isfinite(y)))
        if not count:
            continue
        places = np.flatnonzero(different)
        error = None
        for layout, hdu in zip((a, b), errors):
            if hdu is not None:
                part = layout.read(hdu.name, rows, version=hdu.version, leading=leading[len(first.shape) - hdu.ndim :])
                part = np.broadcast_to(part, x.shape).reshape(-1)[places].astype(float)
                error = part if error is None else np.where(np.isfinite(error) & (error > 0), error, part)
        if error is not None:
            error **= _ERROR_POWER[first.name]
        best = total.add(x.reshape(-1)[places], y.reshape(-1)[places], error)
        if best is not None:
            index = np.unravel_index(places[best], x.shape)
            offset = [key.start or 0 for key in (*leading, rows)][: x.ndim - 1]
            index_in_array = [int(i) + o for i, o in zip(index, [*offset, 0])]
            total.place = tuple(index_in_array)
    result = total.result(first)
    result.flags = {name: change for name, change in (flags or {}).items() if change.before or change.after}
    return result


def _error_of(layout: FitsLayout, hdu: Hdu) -> Hdu | None:
    """The HDU with the errors of an image, None where it has none."""
    if hdu.name not in _ERROR_POWER or hdu.dtype.kind != "f":
        return None
    for other in layout:
        fits = other.ndim >= 2 and other.shape == hdu.shape[len(hdu.shape) - other.ndim :]
        if other.name == "ERR" and other.version == hdu.version and fits:
            return other
    return None


def _apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where two arrays are neither equal nor NaN in both."""
    different = x != y
    if x.dtype.kind in "fc" and y.dtype.kind in "fc" and different.any():
        different &= ~(np.isnan(x) & np.isnan(y))
    return different


def _count_flags(flags: Mapping[str, FlagChange], bits: Mapping[str, int], x: np.ndarray, y: np.ndarray) -> None:
    # Pixels have few distinct sets of flags: they are counted once for each, not once for each flag.
    pairs, counts = np.unique(
        x.reshape(-1).astype(np.uint64) << np.uint64(32) | y.reshape(-1).astype(np.uint64), return_counts=True
    )
    for pair, count in zip(pairs.tolist(), counts.tolist()):
        before, after = pair >> 32, pair & 0xFFFFFFFF
        for name, bit in bits.items():
            had, has = bool(before & bit), bool(after & bit)
            if had or has:
                change = flags[name]
                change.before += count * had
                change.after += count * has
                change.gained += count * (has and not had)
                change.lost += count * (had and not has)


class _Sums:
    """What is summed up over the strips of an image."""

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self.size = self.identical = self.same = self.only_a = self.only_b = self.finite = 0
        self.largest = self.relative = 0.0
        self.best = -1.0
        self.squares = self.relative_squares = self.sigma_squares = 0.0
        self.sigma: float | None = None
        self.histogram = np.zeros(len(_EDGES) + 1, np.int64)
        self.place: tuple[int, ...] | None = None

    def add(self, x: np.ndarray, y: np.ndarray, error: np.ndarray | None) -> int | None:
        """Values (n,) that are not identical, and their errors; the index of the largest difference so far, if it is
        among them."""
        one, other = x.astype(float), y.astype(float)
        finite = np.isfinite(one), np.isfinite(other)
        self.only_a += int(np.count_nonzero(finite[0] & ~finite[1]))
        self.only_b += int(np.count_nonzero(finite[1] & ~finite[0]))
        both = np.flatnonzero(finite[0] & finite[1])
        if both.size == 0:
            return None
        one, other = one[both], other[both]
        apart = np.abs(other - one)
        relative = apart / np.maximum(np.abs(one), np.abs(other))
        within = relative <= self.tolerance.rtol
        self.largest, self.relative = max(self.largest, float(apart.max())), max(self.relative, float(relative.max()))
        self.squares += float(np.square(apart).sum())
        self.relative_squares += float(np.square(relative).sum())
        measure = apart
        if error is not None:
            error = error[both]
            usable = np.isfinite(error) & (error > 0)
            measure = np.divide(apart, error, out=np.zeros_like(apart), where=usable)
            within |= usable & (measure <= self.tolerance.max_sigma)
            self.sigma = max(self.sigma or 0.0, float(measure.max()))
            self.sigma_squares += float(np.square(measure).sum())
            self.histogram += np.bincount(np.searchsorted(_EDGES, measure), minlength=self.histogram.size)
        self.same += int(np.count_nonzero(within))
        best = int(measure.argmax())
        if measure[best] > self.best:
            self.best = float(measure[best])
            return int(both[best])
        return None

    def result(self, hdu: Hdu) -> ArrayDifference:
        count = max(self.finite, 1)
        found = ArrayDifference(hdu.shape, str(hdu.dtype), self.size, self.identical, self.identical + self.same)
        found.only_a, found.only_b, found.place = self.only_a, self.only_b, self.place
        found.largest, found.relative = self.largest, self.relative
        found.rms, found.relative_rms = math.sqrt(self.squares / count), math.sqrt(self.relative_squares / count)
        if self.sigma is not None:
            found.sigma, found.sigma_rms = self.sigma, math.sqrt(self.sigma_squares / count)
            above = np.cumsum(self.histogram[::-1])[::-1]  # values in this bin or a higher one
            place = int(np.searchsorted(-above, -max(self.size // 1000, 1), side="right")) - 1
            rare = above[0] < max(self.size // 1000, 1)
            found.sigma_999 = 0.0 if rare else min(float(_EDGES[min(place, len(_EDGES) - 1)]), self.sigma)
        return found


def _compare_tables(
    found: ProductDifference, a: FitsLayout, b: FitsLayout, first: Hdu, second: Hdu, tolerance: Tolerance
) -> None:
    name = label(first)
    columns = _shared_columns(found, name, first.dtype.names or (), second.dtype.names or (), tolerance)
    if first.shape != second.shape:
        found.structure.append(f"{name} has {first.shape[0]} rows in A, {second.shape[0]} in B")
        return
    totals: dict[str, ColumnDifference] = {}
    for column in columns:
        if first.dtype[column] != second.dtype[column] and "U" not in (
            first.dtype[column].base.kind,
            second.dtype[column].base.kind,
        ):
            found.structure.append(
                f"{name}: column {column} is {first.dtype[column]} in A, {second.dtype[column]} in B"
            )
        if first.dtype[column].shape == second.dtype[column].shape:
            totals[column] = ColumnDifference()
    step = max(_ROWS * 64 // max(first.stored.itemsize, 64), 1)
    for start in range(0, first.shape[0], step):
        rows = slice(start, start + step)
        x, y = (layout.table(hdu.name, hdu.version, rows) for layout, hdu in ((a, first), (b, second)))
        for column, total in totals.items():
            _add_column(total, x[column], y[column], tolerance)
    found.tables[name] = totals


def _shared_columns(
    found: ProductDifference, name: str, first: Sequence[str], second: Sequence[str], tolerance: Tolerance
) -> list[str]:
    place = f"{name}: " if name else ""
    for names, others, which in ((first, second, "A"), (second, first, "B")):
        found.structure += [
            f"{place}only {which} has column {column}"
            for column in names
            if column not in others and not tolerance.ignores(column)
        ]
    return [column for column in first if column in second and not tolerance.ignores(column)]


def _add_column(total: ColumnDifference, x: np.ndarray, y: np.ndarray, tolerance: Tolerance) -> None:
    x, y = np.asarray(x).reshape(-1), np.asarray(y).reshape(-1)
    total.size += x.size
    different = _apart(x, y)
    count = int(np.count_nonzero(different))
    total.identical += x.size - count
    total.same += x.size - count
    if count and x.dtype.kind in "fiu" and y.dtype.kind in "fiu":
        one, other = x[different].astype(float), y[different].astype(float)
        finite = np.isfinite(one) & np.isfinite(other)
        relative = np.abs(other - one)[finite] / np.maximum(np.abs(one), np.abs(other))[finite]
        total.relative = max(total.relative, float(relative.max(initial=0.0)))
        total.same += int(np.count_nonzero(relative <= tolerance.rtol))


def _compare_catalogs(found: ProductDifference, a: str, b: str, tolerance: Tolerance) -> None:
    left, right = (_read_catalog(path) for path in (a, b))
    found.metadata = _mappings(flatten(left.meta), flatten(right.meta), tolerance)
    columns = _shared_columns(found, "", left.colnames, right.colnames, tolerance)
    for column in columns:
        units = [table[column].unit for table in (left, right)]
        if units[0] != units[1]:
            found.structure.append(f"column {column} is in {units[0]} in A, {units[1]} in B")
    if len(left) != len(right):
        found.structure.append(f"the catalogue has {len(left)} rows in A, {len(right)} in B")
        return
    found.tables[""] = {column: ColumnDifference() for column in columns}
    for column, total in found.tables[""].items():
        _add_column(total, _cells(left[column]), _cells(right[column]), tolerance)


def _cells(column: Any) -> np.ndarray:
    """Values of a column; masked numbers are NaN, masked texts empty."""
    if not hasattr(column, "filled"):
        return np.asarray(column)
    if column.dtype.kind in "fiu":
        return np.asarray(column.astype(float).filled(np.nan))
    return np.asarray(column.filled("" if column.dtype.kind in "US" else False))


def _read_catalog(path: str) -> Any:
    """An ECSV catalogue with plain columns only: coordinates are split into theirs."""
    from astropy.table import Table
    from astropy.table.serialize import represent_mixins_as_columns

    try:
        text = read_bytes(path).decode()
        table = represent_mixins_as_columns(Table.read(text, format="ascii.ecsv"))
    except JwstdaskError:
        raise
    except Exception as error:
        raise InputError(path, f"this is not an ECSV catalogue ({error})", "write it again") from error
    table.meta.pop("__serialized_columns__", None)
    return table


def _mappings(left: Mapping[str, Any], right: Mapping[str, Any], tolerance: Tolerance) -> dict[str, tuple[Any, Any]]:
    """Names whose values differ."""
    return {
        name: (left.get(name), right.get(name))
        for name in [*left, *(name for name in right if name not in left)]
        if not tolerance.ignores(name) and not same_value(left.get(name), right.get(name), tolerance.rtol)
    }


def same_value(a: Any, b: Any, rtol: float = 0.0) -> bool:
    """Whether two values of keywords are the same: 1 and 1.0 are, 1 and True are not; lists and dicts by their
    parts."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_value(a[key], b[key], rtol) for key in a)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        return a.shape == b.shape and same_value(a.tolist(), b.tolist(), rtol)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same_value(one, other, rtol) for one, other in zip(a, b))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or (a != a and b != b) or math.isclose(a, b, rel_tol=rtol)
    return bool(a == b)


def _compare_metadata(a: FitsLayout, b: FitsLayout, tolerance: Tolerance) -> dict[str, tuple[Any, Any]]:
    """Dotted names that only the ASDF extension has: those with a keyword are compared as such."""
    found = []
    for layout in (a, b):
        try:
            flat = flatten(read_asdf_tree(layout))
        except JwstdaskError:
            raise
        except Exception as error:
            raise InputError(
                layout.path, f"its ASDF extension cannot be read ({error})", "write it again or leave it out"
            ) from error
        keywords = model_schema(model_name(layout)).keywords
        found.append({name: value for name, value in flat.items() if name not in keywords and _belongs(name)})
    return _mappings(*found, tolerance)


def _belongs(name: str) -> bool:
    # Unknown cards are compared as keywords, lists of slits and spectra by their HDUs.
    return not name.startswith(("extra_fits.", "slits", "spec.", "exposures"))


def _compare_wcs(a: FitsLayout, b: FitsLayout, points: int = 5) -> float | None:
    """Largest distance of the places that two products give to the same pixel, on a grid [pixel]; None where one
    cannot be evaluated."""
    shape = next((hdu.shape for hdu in a if hdu.name == "SCI" and hdu.ndim >= 2), None)
    if shape is None:
        return None
    x, y = np.meshgrid(*(np.linspace(0, size - 1, points) for size in (shape[-1], shape[-2])))
    try:
        left, right = read_wcs(a), read_wcs(b)
        first, second = (_direction(wcs, x, y) for wcs in (left, right))
        scale = np.linalg.norm(_direction(left, x + 1, y) - first, axis=0)
        with np.errstate(all="ignore"):
            distance = np.linalg.norm(second - first, axis=0) / scale
    except Exception:  # of whatever transform another version wrote
        return None
    usable = np.isfinite(distance)
    return float(distance[usable].max()) if usable.any() else None


def _direction(wcs: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Unit vectors (3, ...) of places on the sky."""
    ra, dec = (np.radians(value) for value in wcs(x, y, with_bounding_box=False)[:2])
    return np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def _judge(found: ProductDifference, tolerance: Tolerance) -> None:
    """State what is beyond the tolerance."""
    found.failures += found.structure
    found.failures += [
        f"{name}: {item.size - item.same} of {item.size} values differ"
        for name, item in found.arrays.items()
        if not tolerance.enough(item.same, item.size)
    ]
    for name, columns in found.tables.items():
        found.failures += [
            f"{f'{name}.{column}' if name else column}: {item.size - item.same} of {item.size} cells differ"
            for column, item in columns.items()
            if not tolerance.enough(item.same, item.size)
        ]
    if found.shift is not None and found.shift > tolerance.max_shift:
        found.failures.append(f"the WCS is shifted by up to {found.shift:.3g} pixel")
    for kind, values in (("keyword", found.keywords), ("metadata entry", found.metadata)):
        if values:
            plural = "s differ" if len(values) > 1 else " differs"
            found.failures.append(
                f"{len(values)} {kind.replace('entry', 'entries') if len(values) > 1 else kind}{plural}"
            )


def census(differences: Iterable[ProductDifference]) -> Counter[str]:
    """How many products are the same, different, could not be compared, are in one folder only."""
    counts: Counter[str] = Counter()
    for item in differences:
        if item.a is None or item.b is None:
            counts["only in A" if item.b is None else "only in B"] += 1
        else:
            counts[("same", "different", "not compared")[item.status]] += 1
    return counts


def with_ignored(tolerance: Tolerance, names: Iterable[str]) -> Tolerance:
    """The tolerance with more names not to compare."""
    return replace(tolerance, ignore=(*tolerance.ignore, *names))
