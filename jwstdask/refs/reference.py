"""Reference files: opened lazily, cut to the exposure, with the standard data-quality bits.

A `Reference` is a path. Images are memory-mapped where the file stores them as they are, so that a worker reads only
the rows it needs and processes of one machine share the pages; tables and ASDF trees are read when asked for.
Pixels never pass through the data models.
"""

from __future__ import annotations

import functools
import json
import logging
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jwstdask.core.errors import InputError, JwstdaskError, ReferenceFileError
from jwstdask.io.asdf import read_tree
from jwstdask.io.header import Header
from jwstdask.io.layout import FitsLayout, Hdu, is_url, open_layout
from jwstdask.io.metadata import flatten, model_name, read_metadata
from jwstdask.io.schema import is_model
from jwstdask.kernels.medians import nan_median
from jwstdask.refs.flags import SIGN_BITS, FlagMap, flag_tables, remap_dq
from jwstdask.refs.stripes import is_multistripe, slow_axis_is_y, stripe_rows, superstripes

__all__ = ["Reference", "file_problem", "open_reference", "open_references", "wrong_kind"]

log = logging.getLogger(__name__)

# Arrays that give a reference its frame, in this order; jwst calls SCI "data".
_FRAME_ARRAYS = ("SCI", "COEFFS", "DQ")
_ALIASES = {"DATA": "SCI"}
_FETCH = "delete it and run `jwstdask refs sync`, or copy it again"

# Data model by reference type, for files whose DATAMODL names none.
_MODELS = {
    "area": "PixelAreaModel",
    "barshadow": "BarshadowModel",
    "dark": "DarkModel",
    "dflat": "NirspecFlatModel",
    "fflat": "NirspecFlatModel",
    "flat": "FlatModel",
    "fringe": "FringeModel",
    "gain": "GainModel",
    "ipc": "IPCModel",
    "lastframe": "LastFrameModel",
    "linearity": "LinearityModel",
    "mask": "MaskModel",
    "pathloss": "PathlossModel",
    "readnoise": "ReadnoiseModel",
    "refpix": "IRS2Model",
    "reset": "ResetModel",
    "rscd": "RSCDModel",
    "saturation": "SaturationModel",
    "sflat": "NirspecFlatModel",
    "straymask": "StrayLightModel",
    "superbias": "SuperBiasModel",
}

_EXPOSURE_MODELS = frozenset(
    "Level1bModel RampModel SuperstripeRampModel RampFitOutputModel GuiderRawModel GuiderCalModel ImageModel CubeModel "
    "IFUImageModel IFUCubeModel SlitModel MultiSlitModel MultiExposureModel SpecModel MultiSpecModel CombinedSpecModel "
    "MultiCombinedSpecModel TSOSpecModel TSOMultiSpecModel MRSSpecModel MRSMultiSpecModel WFSSSpecModel "
    "WFSSMultiSpecModel WFSSCombinedSpecModel WFSSMultiCombinedSpecModel SegmentationMapModel AmiOIModel".split()
)
"""Data models of exposures and products."""


@dataclass(frozen=True)
class _Frame:
    """Where the pixels of a reference lie on the detector: 1-based corner, and its size by header and as stored."""

    xstart: int
    ystart: int
    xsize: int
    ysize: int
    shape: tuple[int, int]


@dataclass(frozen=True)
class Reference:
    """One reference file; compare and pickle it freely, it is its path and cut. Made by `open_reference`.

    Attributes
    ----------
    path
        Path, or URL for fsspec.
    reftype
        Reference type, lower case (``"superbias"``).
    """

    path: str
    reftype: str
    _cut: tuple[Any, Any] | None = None

    # -- what kind of file

    @property
    def kind(self) -> str:
        """``fits``, ``asdf`` or ``json``, by name and content."""
        return _kind(self.path)

    @property
    def layout(self) -> FitsLayout:
        """Where everything is in the FITS file."""
        return _layout(*_stamped(self.path))

    @property
    def names(self) -> list[str]:
        """Names of the extensions of a FITS file, or the top-level names of an ASDF or JSON tree."""
        if self.kind == "fits":
            return self.layout.names
        return [str(name) for name in (self.asdf if self.kind == "asdf" else self.json)]

    def __contains__(self, name: str) -> bool:
        if self.kind == "fits":
            return _hdu_name(name) in self.layout
        return name in self.names

    def header(self, name: str = "PRIMARY", version: int = 1) -> Header:
        """FITS header of an extension."""
        with _as_reference_error(self.path):
            return self.layout.header(_hdu_name(name), version)

    @property
    def meta(self) -> Mapping[str, Any]:
        """Metadata by jwst's dotted names (``"meta.exposure.nframes"``)."""
        return _meta(*_stamped(self.path), self.reftype)

    # -- arrays

    def array(self, name: str, version: int = 1) -> np.ndarray:
        """An image extension, cut to the exposure if this is the result of `match`.

        Parameters
        ----------
        name
            Name of the extension, any case; ``"data"`` is ``"sci"``. For an ASDF file the dotted name in its tree.
        version
            EXTVER.

        Returns
        -------
        numpy.ndarray
            Read-only memory map in the byte order of the file where the values are stored as they are, else an array.
            Convert what you use: ``np.asarray(array[rows], np.float32)``. Arrays that have not the frame of the
            reference (a kernel, a spectrum) are never cut.

        Raises
        ------
        ReferenceFileError
            If there is no such extension or it cannot be read.
        """
        if self.kind != "fits":
            return self._tree_array(name)
        with _as_reference_error(self.path):
            hdu = self._image(name, version)
            scaled = hdu.bscale != 1 or hdu.bzero != 0
            if not scaled and not is_url(self.path):
                return self._apply_cut(_map(*_stamped(self.path), hdu.name, version))
            return self._read(hdu, version)

    def median(self, name: str) -> np.float32:
        """Median of an image (y, x), NaN left out, cut like `array`; looked for once in a process."""
        return _median(self, name, *_stamped(self.path))

    def _image(self, name: str, version: int) -> Hdu:
        hdu = self.layout.hdu(_hdu_name(name), version)
        if hdu.kind != "image" or not hdu.shape:
            raise ReferenceFileError(self.path, f"extension {hdu.name} holds no image", _FETCH)
        return hdu

    def _read(self, hdu: Hdu, version: int) -> np.ndarray:
        """Native values in memory; only the rows that are wanted are read."""
        if self._cut is not None and self._in_frame(hdu.shape) and all(isinstance(part, slice) for part in self._cut):
            rows, columns = self._cut
            array = self.layout.read(hdu.name, rows, columns, version)
        else:
            array = self._apply_cut(self.layout.read(hdu.name, version=version))
        array.flags.writeable = False
        return array

    def _in_frame(self, shape: tuple[int, ...]) -> bool:
        return len(shape) >= 2 and tuple(shape[-2:]) == self._frame().shape

    def _apply_cut(self, array: np.ndarray) -> np.ndarray:
        if self._cut is None or not self._in_frame(array.shape):
            return array
        rows, columns = self._cut
        wide = next((part for part in (rows, columns) if isinstance(part, np.ndarray) and part.ndim == 2), None)
        if wide is None:
            return array[..., rows, columns]
        if array.ndim != 2:
            raise ReferenceFileError(
                self.path,
                f"an array of {array.ndim} dimensions cannot be laid out in superstripes",
                "give a two-dimensional reference",
            )
        cut = array[rows, columns]
        return cut if wide is rows else np.moveaxis(cut, 0, 1)

    def _tree_array(self, name: str) -> np.ndarray:
        value: Any = self.asdf if self.kind == "asdf" else self.json
        for part in name.split("."):
            try:
                value = value[part]
            except (KeyError, TypeError):
                raise ReferenceFileError(
                    self.path, f"the tree has no {name!r}", f"it has {', '.join(self.names)}"
                ) from None
        return self._apply_cut(np.asarray(value)) if self._cut is not None else np.asarray(value)

    @property
    def dq(self) -> np.ndarray:
        """Data-quality array with the standard bits, uint32, cut like `array`; see `dq_of`."""
        return self.dq_of()

    @property
    def flags(self) -> FlagMap | np.ndarray:
        """As `dq`, but read and moved to the standard bits piece by piece, when it is indexed."""
        if self.kind != "fits" or is_url(self.path) or "DQ" not in self or self.layout.hdu("DQ").size == 0:
            return self.dq
        with _as_reference_error(self.path):
            hdu = self._image("DQ", 1)
            offset = SIGN_BITS.get((hdu.stored.str, hdu.dtype.name))
            if offset is None:
                return self.dq
            raw = self._apply_cut(_map(*_stamped(self.path), "DQ", 1))
        definitions = self._definitions(1)
        return FlagMap(raw, offset, flag_tables(definitions, self.path) if definitions else None)

    def dq_of(self, version: int = 1) -> np.ndarray:
        """Data-quality array, uint32, with each flag moved to its standard bit by its name in the DQ_DEF table.

        A bit that DQ_DEF does not define, or names as no flag of jwst, is lost. Without DQ_DEF the bits are standard.
        A file without DQ has no flags: zeros in the shape of the frame.
        """
        if "DQ" not in self or self.layout.hdu("DQ", version).size == 0:
            zeros = np.broadcast_to(np.uint32(0), self._frame().shape)
            return self._apply_cut(zeros)
        with _as_reference_error(self.path):
            values = self._read(self._image("DQ", version), version)
        definitions = self._definitions(version)
        return remap_dq(values, definitions, self.path) if definitions else values.astype(np.uint32, copy=False)

    def _definitions(self, version: int) -> list[tuple[int, str]]:
        """Value and name of each flag, of the DQ_DEF table; empty without one."""
        if "DQ_DEF" not in self.layout:
            return []
        with _as_reference_error(self.path):
            table = self.layout.table("DQ_DEF", version if ("DQ_DEF", version) in _versions(self.layout) else 1)
        columns = {str(name).upper(): name for name in table.dtype.names or ()}
        if "VALUE" not in columns or "NAME" not in columns:
            raise ReferenceFileError(self.path, "DQ_DEF has no columns VALUE and NAME", _FETCH)
        return [(int(row[columns["VALUE"]]) & 0xFFFFFFFF, str(row[columns["NAME"]]).strip()) for row in table.ravel()]

    def table(self, name: str, version: int = 1) -> np.ndarray:
        """Rows of a binary table: structured array, native byte order, lower-case column names, text not padded.

        Raises
        ------
        ReferenceFileError
            If there is no such table.
        """
        with _as_reference_error(self.path):
            rows = self.layout.table(_hdu_name(name), version)
        return rows.view(_lower_case(rows.dtype))

    def column(self, name: str, column: str, version: int = 1) -> np.ndarray:
        """One column of a binary table, native byte order; of a large local table no other is held in memory.

        Raises
        ------
        ReferenceFileError
            If there is no such table or column.
        """
        with _as_reference_error(self.path):
            hdu = self.layout.hdu(_hdu_name(name), version)
            stored = {str(field).lower(): field for field in hdu.stored.names or ()}
            field = stored.get(column.lower())
            if field is None:
                raise ReferenceFileError(self.path, f"table {hdu.name} has no column {column}", _FETCH)
            plain = hdu.stored[field].newbyteorder("=") == hdu.dtype[field]
            if not plain or hdu.kind != "table" or is_url(self.path):
                return self.table(name, version)[column.lower()]
            rows = np.memmap(self.path, hdu.stored, "r", hdu.data_offset, hdu.shape)
            return rows[field].astype(hdu.dtype[field])

    @property
    def asdf(self) -> Mapping[str, Any]:
        """Tree of an ASDF file, with the transforms of `stdatamodels` and `gwcs`; arrays are in memory."""
        return _tree(*_stamped(self.path))

    @property
    def json(self) -> Mapping[str, Any]:
        """Content of a JSON file."""
        return _json(*_stamped(self.path))

    # -- the exposure's part

    def match(self, meta: Mapping[str, Any], shape: tuple[int, int] | None = None) -> Reference:
        """This reference cut to the subarray of an exposure.

        Parameters
        ----------
        meta
            Metadata of the exposure (dotted names): ``meta.subarray.xstart``, ``xsize``, ``ystart``, ``ysize``, and
            the multi-stripe keywords.
        shape
            (y, x) of its pixels, if known; it then replaces a size in the metadata that disagrees, and the result
            must have it.

        Returns
        -------
        Reference
            Itself where the frames agree. Superstripe exposures get arrays with a leading axis (superstripe, y, x).

        Raises
        ------
        ReferenceFileError
            If the reference does not cover the exposure, or does not say where its own pixels are.
        InputError
            If the exposure does not say where its pixels are.
        """
        if self._cut is not None:
            raise ValueError("match a reference as opened, not a cut one")
        if self.matches(meta, shape):
            frame_shape = self._frame().shape
            if shape is not None and not is_multistripe(meta) and frame_shape != tuple(shape):
                raise self._mismatch(
                    meta, f"its arrays have {_size(frame_shape)}, those of the exposure {_size(shape)}"
                )
            return self
        if is_multistripe(meta):
            return self._match_stripes(meta)
        frame = self._frame()
        xstart, ystart, xsize, ysize = _science_frame(meta, shape)
        left, bottom = xstart - frame.xstart, ystart - frame.ystart
        if left < 0 or bottom < 0 or left + xsize > frame.shape[1] or bottom + ysize > frame.shape[0]:
            raise self._mismatch(
                meta,
                f"it covers columns {frame.xstart}-{frame.xstart + frame.shape[1] - 1} and rows {frame.ystart}-"
                f"{frame.ystart + frame.shape[0] - 1}, the exposure columns {xstart}-{xstart + xsize - 1} and rows "
                f"{ystart}-{ystart + ysize - 1}",
            )
        return replace(self, _cut=(slice(bottom, bottom + ysize), slice(left, left + xsize)))

    def matches(self, meta: Mapping[str, Any], shape: tuple[int, int] | None = None) -> bool:
        """Whether the frame of the reference is that of the exposure; raises as `match` does."""
        if superstripes(meta) > 0:
            return False
        frame = self._frame()
        own = (frame.xstart, frame.ystart, frame.xsize, frame.ysize)
        return own == _science_frame(meta, shape)

    def _match_stripes(self, meta: Mapping[str, Any]) -> Reference:
        frame = self._frame()
        xstart, ystart, xsize, ysize = _science_frame(meta, None)
        slow: Any = stripe_rows(meta)
        along_y = slow_axis_is_y(meta)
        start, size = (xstart - frame.xstart, xsize) if along_y else (ystart - frame.ystart, ysize)
        limit = frame.shape[0] if along_y else frame.shape[1]
        width = frame.shape[1] if along_y else frame.shape[0]
        if slow.min() < 0 or slow.max() >= limit or start < 0 or start + size > width:
            raise self._mismatch(
                meta, "it does not cover the stripes of the exposure; a full-frame reference is needed"
            )
        fast = slice(start, start + size)
        return replace(self, _cut=(slow, fast) if along_y else (fast, slow))

    def _mismatch(self, meta: Mapping[str, Any], message: str) -> ReferenceFileError:
        exposure = meta.get("meta.filename") or "the exposure"
        subarray = meta.get("meta.subarray.name")
        return ReferenceFileError(
            self.path,
            f"the {self.reftype} reference does not fit {exposure} (SUBARRAY {subarray}): {message}",
            f"give a matching file with override_{self.reftype}, or use another context",
        )

    def _frame(self) -> _Frame:
        return _frame(*_stamped(self.path), self.reftype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return (self.path, self.reftype) == (other.path, other.reftype) and _key(self._cut) == _key(other._cut)

    def __hash__(self) -> int:
        return hash((self.path, self.reftype, _key(self._cut)))


def _key(cut: tuple[Any, Any] | None) -> tuple | None:
    if cut is None:
        return None
    return tuple((part.start, part.stop) if isinstance(part, slice) else part.tobytes() for part in cut)


def open_reference(path: str | os.PathLike[str], reftype: str) -> Reference:
    """Open a reference file. Its headers are read (and remembered for the process), its pixels are not.

    Raises
    ------
    ReferenceFileError
        If the file is missing, truncated, or no FITS, ASDF or JSON file.
    """
    text = os.fspath(path)
    text = text if is_url(text) else os.path.abspath(os.path.expanduser(text))
    reference = Reference(text, reftype.lower())
    _stamped(text)
    if reference.kind == "fits":
        _ = reference.layout
    return reference


def open_references(paths: Mapping[str, str | None]) -> dict[str, Reference | None]:
    """References by type; None where the path is None or ``N/A``."""
    return {
        reftype: None if path is None or path == "N/A" else open_reference(path, reftype)
        for reftype, path in paths.items()
    }


# ----------------------------------------------------------------------------------------------------------------------
# What is remembered of a file, by path, time and size, so that a replaced file is read again


def _stamped(path: str) -> tuple[str, int, int]:
    if is_url(path):
        return path, 0, 0
    try:
        status = os.stat(path)
    except OSError as error:
        raise ReferenceFileError(
            path,
            f"the reference file cannot be read: {error.strerror}",
            "run `jwstdask refs check` and `jwstdask refs sync`, or correct the path",
        ) from None
    if status.st_size == 0:
        raise ReferenceFileError(path, "the reference file is empty", _FETCH)
    return path, status.st_mtime_ns, status.st_size


def _kind(path: str) -> str:
    name = path.lower()
    if name.endswith(".json"):
        return "json"
    if name.endswith((".asdf", ".asdf.gz")):
        return "asdf"
    if name.endswith((".fits", ".fit", ".fits.gz")) or is_url(path):
        return "fits"
    with open(path, "rb") as file:
        return "asdf" if file.read(5) == b"#ASDF" else "fits"


@contextmanager
def _as_reference_error(path: str) -> Iterator[None]:
    """Errors of reading a file, told as those of a reference."""
    try:
        yield
    except InputError as error:
        raise ReferenceFileError(path, error.reason, error.remedy or _FETCH) from error
    except (OSError, ValueError) as error:
        raise ReferenceFileError(path, f"the reference file cannot be read: {error}", _FETCH) from error


@functools.lru_cache(maxsize=64)
def _median(reference: Reference, name: str, path: str, stamp: int, size: int) -> np.float32:
    return nan_median(reference.array(name))


@functools.lru_cache(maxsize=256)
def _layout(path: str, stamp: int, size: int) -> FitsLayout:
    with _as_reference_error(path):
        return open_layout(path)


@functools.lru_cache(maxsize=64)
def _map(path: str, stamp: int, size: int, name: str, version: int) -> np.ndarray:
    """An image as it stands in the file; what one exposure has read of the map is there for the next one."""
    return _layout(path, stamp, size).raw(name, version)


@functools.lru_cache(maxsize=256)
def _versions(layout: FitsLayout) -> frozenset[tuple[str, int]]:
    return frozenset((hdu.name, hdu.version) for hdu in layout.hdus)


@functools.lru_cache(maxsize=256)
def _meta(path: str, stamp: int, size: int, reftype: str) -> dict[str, Any]:
    kind = _kind(path)
    if kind == "fits":
        layout = _layout(path, stamp, size)
        model = layout.model if is_model(layout.model) else _MODELS.get(reftype, model_name(layout))
        with _as_reference_error(path):
            return read_metadata(layout, model=model)
    tree = _tree(path, stamp, size) if kind == "asdf" else _json(path, stamp, size)
    meta = tree.get("meta")
    return flatten(meta, "meta.") if isinstance(meta, Mapping) else {}


@functools.lru_cache(maxsize=32)
def _tree(path: str, stamp: int, size: int) -> Mapping[str, Any]:
    try:
        return read_tree(path)
    except Exception as error:  # asdf, yaml and the transforms have no common base class for what a damaged file raises
        reason = file_problem(path) or f"the reference file cannot be read as ASDF: {error}"
        raise ReferenceFileError(path, reason, _FETCH) from error


@functools.lru_cache(maxsize=32)
def _json(path: str, stamp: int, size: int) -> Mapping[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise ReferenceFileError(path, f"the reference file cannot be read as JSON: {error}", _FETCH) from error


def _hdu_name(name: str) -> str:
    name = name.upper()
    return _ALIASES.get(name, name)


def _lower_case(dtype: np.dtype) -> np.dtype:
    fields: Mapping[str, tuple] = dtype.fields or {}
    names = list(dtype.names or ())
    return np.dtype(
        {
            "names": [name.lower() for name in names],
            "formats": [fields[name][0] for name in names],
            "offsets": [fields[name][1] for name in names],
            "itemsize": dtype.itemsize,
        }
    )


# ----------------------------------------------------------------------------------------------------------------------
# Frames


def _full_frame(meta: Mapping[str, Any]) -> tuple[int, int]:
    return (1024, 1032) if str(meta.get("meta.instrument.name")).upper() == "MIRI" else (2048, 2048)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[-2]} rows and {shape[-1]} columns"


@functools.lru_cache(maxsize=256)
def _frame(path: str, stamp: int, size: int, reftype: str) -> _Frame:
    layout = _layout(path, stamp, size)
    images = [hdu for hdu in layout.hdus if hdu.kind == "image" and len(hdu.shape) >= 2 and hdu.name != "ASDF"]
    named = [hdu for name in _FRAME_ARRAYS for hdu in images if hdu.name == name]
    if not images:
        raise ReferenceFileError(path, "the reference has no image that could be cut to a subarray", _FETCH)
    shape: tuple[int, int] = (named or images)[0].shape[-2:]  # type: ignore[assignment]
    meta = _meta(path, stamp, size, reftype)
    values = [meta.get(f"meta.subarray.{name}") for name in ("xstart", "ystart", "xsize", "ysize")]
    if any(value is None for value in values):
        if shape != _full_frame(meta):
            raise ReferenceFileError(
                path,
                f"SUBSTRT1, SUBSTRT2, SUBSIZE1 or SUBSIZE2 is missing from a reference of {_size(shape)}",
                "add the keywords, or give another file",
            )
        log.warning("%s: SUBSTRT/SUBSIZE keywords are missing; taken as full frame", path)
        return _Frame(1, 1, shape[1], shape[0], shape)
    xstart, ystart, xsize, ysize = (int(value) for value in values)  # type: ignore[arg-type]
    if xstart < 1 or ystart < 1:
        raise ReferenceFileError(
            path, f"SUBSTRT1 = {xstart} and SUBSTRT2 = {ystart} are no corner of a subarray", "correct the keywords"
        )
    if xsize != shape[1]:
        log.warning("%s: SUBSIZE1 is %d but the array has %d columns; the array is believed", path, xsize, shape[1])
        xsize = shape[1]
    if ysize != shape[0] and not _irs2(ysize, shape[0]):
        log.warning("%s: SUBSIZE2 is %d but the array has %d rows; the array is believed", path, ysize, shape[0])
        ysize = shape[0]
    return _Frame(xstart, ystart, xsize, ysize, shape)


def _irs2(size: int, stored: int) -> bool:
    """NIRSpec IRS2 frames interleave reference pixels: 3200 stored rows of a 2048-row detector."""
    return size == 2048 and stored == 3200


def _science_frame(meta: Mapping[str, Any], shape: tuple[int, int] | None) -> tuple[int, int, int, int]:
    """xstart, ystart, xsize, ysize of an exposure."""
    exposure = str(meta.get("meta.filename") or "exposure")
    values = [meta.get(f"meta.subarray.{name}") for name in ("xstart", "ystart", "xsize", "ysize")]
    if any(value is None for value in values):
        raise InputError(
            exposure,
            "SUBSTRT1, SUBSTRT2, SUBSIZE1 or SUBSIZE2 is missing",
            "set the keywords; without them no reference can be cut to the exposure",
        )
    xstart, ystart, xsize, ysize = (int(value) for value in values)  # type: ignore[arg-type]
    if (xstart < 1 or ystart < 1) and not is_multistripe(meta):
        raise InputError(
            exposure, f"SUBSTRT1 = {xstart} and SUBSTRT2 = {ystart} are no corner of a subarray", "correct the keywords"
        )
    if shape is not None and not is_multistripe(meta):
        if xsize != shape[1]:
            log.warning(
                "%s: SUBSIZE1 is %d but the array has %d columns; the array is believed", exposure, xsize, shape[1]
            )
            xsize = shape[1]
        if ysize != shape[0] and not _irs2(ysize, shape[0]):
            log.warning(
                "%s: SUBSIZE2 is %d but the array has %d rows; the array is believed", exposure, ysize, shape[0]
            )
            ysize = shape[0]
    return xstart, ystart, xsize, ysize


# ----------------------------------------------------------------------------------------------------------------------
# Damage


def file_problem(path: str | os.PathLike[str]) -> str | None:
    """Why a file cannot be a whole FITS, ASDF or JSON file, from its structure alone; None if it can.

    Sizes that the file states are compared with its length; pixels are not read.
    """
    text = os.fspath(path)
    try:
        _stamped(text)
        kind = _kind(text)
        if kind == "json":
            with open(text, encoding="utf-8") as file:
                json.load(file)
            return None
        if kind == "asdf":
            return _asdf_problem(text)
        open_layout(text)
    except JwstdaskError as error:
        return getattr(error, "reason", error.message)
    except (OSError, ValueError) as error:
        return str(error)
    return None


def wrong_kind(path: str, reftype: str) -> str | None:
    """Why a file given by the user is no reference of a type, by its keywords; None if they do not say so.

    References made by hand may have neither REFTYPE nor DATAMODL. A file that cannot be read is told of when it is
    opened.
    """
    try:
        return _wrong_kind(*_stamped(path), reftype)
    except (JwstdaskError, OSError):
        return None


@functools.lru_cache(maxsize=256)
def _wrong_kind(path: str, stamp: int, size: int, reftype: str) -> str | None:
    if _kind(path) != "fits":
        return None
    layout = _layout(path, stamp, size)
    stated = str(layout.header().get("REFTYPE") or "").strip()
    if stated.lower() == reftype:
        return None
    # Early files describe their type in words.
    if stated and " " not in stated:
        return f"REFTYPE of {path} is {stated}"
    if layout.model in _EXPOSURE_MODELS:
        return f"{path} is an exposure or product (DATAMODL {layout.model}) and not marked by REFTYPE {reftype.upper()}"
    return None


_BLOCK_MAGIC = b"\xd3BLK"


def _asdf_problem(path: str) -> str | None:
    """ASDF standard 1.6: a YAML tree ended by a line "...", then blocks that state their sizes."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        size = len(data)
        if data[:5] != b"#ASDF":
            return "this is not an ASDF file"
        end = data.find(b"\n...")
        if end < 0:
            return "the file is truncated: its tree does not end"
        position = data.find(_BLOCK_MAGIC, end)
        if position < 0:
            return None
        while data[position : position + 4] == _BLOCK_MAGIC:
            if position + 54 > size:
                return "the file is truncated: a block header does not end"
            (header_size,) = struct.unpack_from(">H", data, position + 4)
            block_flags, _, allocated, _, _ = struct.unpack_from(">I4sQQQ", data, position + 6)
            if block_flags & 1:  # streamed: the last block, up to the end of the file
                return None
            position += 6 + header_size + allocated
            if position > size:
                return f"the file is truncated: {position - size} bytes of a block are missing"
    return None
