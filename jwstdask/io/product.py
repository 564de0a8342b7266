"""Writing products: a pre-allocated file, filled in strips by any number of threads and processes, then finished and
renamed.

Headers, HDU order, dtypes and the ASDF extension are those that `stdatamodels` writes for the same metadata, so that
every product opens and validates there and in `jwst`. Until `finish` the file has a hidden name in the folder of the
product: a product under its final name is complete.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import hashlib
import io
import itertools
import logging
import math
import mmap
import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jwstdask.core.errors import ProductError
from jwstdask.io.asdf import array_link, tree_bytes
from jwstdask.io.header import BLOCK, card_text, commentary_text, header_bytes, is_structural, title_text
from jwstdask.io.metadata import EXTRA, nest
from jwstdask.io.pages import make_ready, map_ready, write_at
from jwstdask.io.remote import check_writable, is_url, join, publish, staging_folder
from jwstdask.io.schema import ModelSchema, Node, model_schema, numpy_dtype
from jwstdask.io.temporary import temporary_path
from jwstdask.kernels.decode import swap32

log = logging.getLogger(__name__)

# dtype -> (BITPIX, stored dtype, BZERO): FITS has no unsigned integers but bytes and no signed bytes.
_STORED = {
    "uint8": (8, "u1", None),
    "int8": (8, "u1", -128),
    "int16": (16, ">i2", None),
    "uint16": (16, ">i2", 2**15),
    "int32": (32, ">i4", None),
    "uint32": (32, ">i4", 2**31),
    "int64": (64, ">i8", None),
    "uint64": (64, ">i8", 2**63),
    "float32": (-32, ">f4", None),
    "float64": (-64, ">f8", None),
}
_PIECE = 1 << 20  # elements converted at a time: 4 MB of float32
_MANY_RUNS = 10_000  # pieces of a file that are not worth a call each
_SOME_RUNS = 1  # the same where memory that the file backs is there
ArrayKey = str | tuple[str, int]


@dataclass(frozen=True)
class Place:
    """Where an image stands in a product."""

    offset: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ProductHandle:
    """What a worker needs to write into a product under construction: some hundred bytes, picklable.

    Attributes
    ----------
    path : str
        Final path of the product.
    temporary : str
        The file that is being filled.
    places : dict
        (array name, EXTVER) -> Place.
    """

    path: str
    temporary: str
    places: dict[tuple[str, int], Place]

    def write(
        self,
        name: ArrayKey,
        array: np.ndarray,
        rows: slice = slice(None),
        leading: tuple[slice, ...] = (),
        columns: slice = slice(None),
        images: MappedImages | None = None,
    ) -> None:
        """Write a part of an image; whole rows are fastest.

        Parameters
        ----------
        name
            Array name (lower-case HDU name), or (name, EXTVER).
        array
            (..., row, x); converted to the dtype of the product.
        rows
            Which rows (axis y), step 1.
        leading
            Slices along the leading axes (integration, group), step 1; whole where not given.
        columns
            Which columns (axis x), step 1.
        images
            Images kept from one part to the next, by which parts of few columns are written.

        Raises
        ------
        ProductError
            If the product has no such array, the shape differs, or the disk is full.
        """
        key = (name, 1) if isinstance(name, str) else name
        try:
            place = self.places[key]
        except KeyError:
            names = ", ".join(sorted({known for known, _ in self.places}))
            raise ProductError(
                self.path, f"the product has no array {key[0]} (EXTVER {key[1]})", f"it has {names}"
            ) from None
        ndim = len(place.shape)
        keys = [*leading, *[slice(None)] * (ndim - 2 - len(leading)), rows, columns][-ndim:]
        ranges = [range(*key.indices(size)) for key, size in zip(keys, place.shape, strict=True)]
        counts = tuple(len(part) for part in ranges)
        array = np.asarray(array)
        if array.shape != counts or any(part.step != 1 for part in ranges):
            raise ProductError(self.path, f"array {key[0]} has shape {array.shape} where {counts} is to be written", "")
        if array.size == 0:
            return
        _, stored, _ = _STORED[place.dtype]
        itemsize = np.dtype(stored).itemsize
        # `cut`: the last partial axis; from it on the run is contiguous in the file.
        cut = ndim - 1
        while cut > 0 and counts[cut] == place.shape[cut]:
            cut -= 1
        strides = [itemsize * math.prod(place.shape[axis + 1 :]) for axis in range(ndim)]
        most = _MANY_RUNS if images is None else _SOME_RUNS
        if math.prod(counts[:cut]) > most:
            with _reported(self.path):
                where = tuple(slice(part.start, part.stop) for part in ranges)
                (MappedImages() if images is None else images).write(self.temporary, place, array, where)
            return
        if images is not None:
            images.begin(self.temporary, place)
        with _reported(self.path):
            descriptor = os.open(self.temporary, os.O_WRONLY)
            try:
                for index in np.ndindex(counts[:cut]):
                    offset = place.offset + sum(
                        (ranges[axis].start + position) * strides[axis] for axis, position in enumerate(index)
                    )
                    offset += ranges[cut].start * strides[cut]
                    run = array[index].reshape(-1)
                    for start in range(0, run.size, _PIECE):
                        write_at(
                            descriptor, _encode(run[start : start + _PIECE], place.dtype), offset + start * itemsize
                        )
            finally:
                os.close(descriptor)


class MappedImages:
    """Images of products under construction, as memory that their files back: many short runs are written at once.

    Parameters
    ----------
    rows
        The rows that will be written, if known, all of them: their memory is asked for at once.
    alone
        Nobody else writes to these rows, not even another try of the same task whose worker was taken for lost: they
        may be zeros until they are written.
    """

    def __init__(self, rows: slice | None = None, alone: bool = True) -> None:
        self.rows, self.alone = rows, alone
        self._images: dict[tuple[str, int], np.ndarray] = {}
        self._begun: set[tuple[str, int]] = set()

    def begin(self, path: str, place: Place) -> None:
        """Say that a part of an image is written otherwise."""
        self._begun.add((path, place.offset))

    def write(self, path: str, place: Place, array: np.ndarray, where: tuple[slice, ...]) -> None:
        """Write a part of the image at ``place`` of a file."""
        if (path, place.offset) not in self._images:
            image = np.memmap(path, _STORED[place.dtype][1], "r+", place.offset, place.shape)
            with contextlib.suppress(OSError, AttributeError):
                # Nothing is read ahead of what is written here and there.
                image._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
            if self.rows is not None:
                _populate(image, path, place, self.rows, self.alone and (path, place.offset) not in self._begun)
            self._images[path, place.offset] = image.view(np.ndarray)
        part = self._images[path, place.offset][where]
        if part.dtype.itemsize == 4:
            words = array.astype(place.dtype, copy=False)
            swap32(words, part, flip=0x80 if _STORED[place.dtype][2] else 0, stream=True)
            return
        pieces = array.size // _PIECE + 1
        for start, stop in itertools.pairwise(np.linspace(0, len(array), pieces + 1).astype(int)):
            run = np.ascontiguousarray(array[start:stop])
            part[start:stop] = np.frombuffer(_encode(run.reshape(-1), place.dtype), part.dtype).reshape(run.shape)


def _populate(image: np.memmap, path: str, place: Place, rows: slice, fresh: bool) -> None:
    """Have some rows of an image ready, as zeros if they are fresh."""
    memory = image._mmap  # type: ignore[attr-defined]
    line = place.shape[-1] * image.dtype.itemsize
    shift = place.offset - place.offset % mmap.ALLOCATIONGRANULARITY
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for plane in range(math.prod(place.shape[:-2])):
            first = place.offset + (plane * place.shape[-2] + rows.start) * line
            size = (rows.stop - rows.start) * line
            if fresh:
                make_ready(descriptor, memory, first, size, shift)
            else:
                map_ready(memory, first, size, shift)
    finally:
        os.close(descriptor)


class ProductWriter:
    """A product under construction.

    Parameters
    ----------
    path
        Path or URL of the product. An existing file is replaced at the end. For a URL the file is made in
        `jwstdask.io.remote.staging_folder` and sent at the end.
    model
        Data model class, such as ``ImageModel``.
    meta
        Flat metadata with dotted names; give every name that will have a value at the end, so that the headers
        already have their size (if not, `finish` copies the file). Entries without a keyword go to the ASDF
        extension. ``extra_fits.<HDU>`` holds unknown keywords, ``history`` a list of texts or of dicts with
        ``description`` and ``time``. None means absent.
    arrays
        Array name (lower-case HDU name such as ``sci``), or (name, EXTVER), -> (shape, dtype). Names that the model
        does not know become HDUs after those of the model. Every row must be written before `finish`: what is not is
        zero bytes (for unsigned integers that is half their range).
    tables
        Table name (lower-case HDU name) -> structured array of shape (rows,).
    wcs
        The gwcs object.
    sync
        Flush to disk before the rename.

    Raises
    ------
    ProductError
        If the folder is missing or read-only, the disk too small, or an array does not fit the model. No file is left.

    Examples
    --------
    >>> arrays = {"sci": ((2048, 2048), "float32")}
    >>> with ProductWriter("jw1_rate.fits", "ImageModel", meta, arrays) as product:  # doctest: +SKIP
    ...     product.write("sci", strip, rows=slice(0, 64))
    ...     product.finish({"meta.cal_step.ramp_fit": "COMPLETE"})
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: str = "ImageModel",
        meta: Mapping[str, Any] | None = None,
        arrays: Mapping[Any, tuple[tuple[int, ...], Any]] | None = None,
        tables: Mapping[Any, np.ndarray] | None = None,
        wcs: Any = None,
        sync: bool = True,
    ) -> None:
        self.path = os.fspath(path) if is_url(os.fspath(path)) else os.path.abspath(os.fspath(path))
        self.model = model
        self.schema = model_schema(model)
        self.meta = dict(meta or {})
        self.wcs = wcs
        self.sync = sync
        self._arrays = {
            _key(name): (tuple(map(int, shape)), np.dtype(dtype).name)
            for name, (shape, dtype) in (arrays or {}).items()
        }
        self._tables = {_key(name): rows for name, rows in (tables or {}).items()}
        self._finished = False
        for (name, _), (shape, dtype) in self._arrays.items():
            self._check_array(name, shape, dtype)
        self.temporary = temporary_path(self.path)
        plan = self._plan()
        self._layout = _offsets(plan)
        with _reported(self.path):
            descriptor = os.open(self.temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            try:
                _allocate(descriptor, self._layout.end)
            except BaseException:
                os.unlink(self.temporary)
                raise
            finally:
                os.close(descriptor)
        self.handle = ProductHandle(self.path, self.temporary, self._layout.places)

    def write(
        self,
        name: ArrayKey,
        array: np.ndarray,
        rows: slice = slice(None),
        leading: tuple[slice, ...] = (),
        columns: slice = slice(None),
    ) -> None:
        """Write a part of an image, from any thread: see `ProductHandle.write`."""
        self.handle.write(name, array, rows, leading, columns)

    def finish(
        self,
        meta: Mapping[str, Any] | None = None,
        tables: Mapping[Any, np.ndarray] | None = None,
        wcs: Any = None,
    ) -> str:
        """Write headers, tables and the ASDF extension, flush, and give the product its name.

        Parameters
        ----------
        meta
            Updates of the metadata; None removes an entry.
        tables, wcs
            Tables to add or replace; the gwcs object, if it was not there at the start.

        Returns
        -------
        str
            Path of the product.
        """
        self.meta.update(meta or {})
        self._tables.update({_key(name): rows for name, rows in (tables or {}).items()})
        self.wcs = wcs if wcs is not None else self.wcs
        try:
            plan = self._plan(report=True)
            layout = _offsets(plan)
            with _reported(self.path):
                if [place.offset for place in layout.places.values()] != [
                    place.offset for place in self._layout.places.values()
                ]:
                    self._move(layout)
                descriptor = os.open(self.temporary, os.O_WRONLY)
                try:
                    for offset, data in layout.pieces:
                        write_at(descriptor, data, offset)
                    tail = self._asdf(plan, layout)
                    os.ftruncate(descriptor, layout.end)
                    write_at(descriptor, tail, layout.end)
                    if self.sync:
                        os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                publish(self.temporary, self.path)
                if self.sync and not is_url(self.path):
                    _sync_folder(os.path.dirname(self.path))
        except BaseException:
            self.abort()
            raise
        self._finished = True
        return self.path

    def abort(self) -> None:
        """Remove the unfinished file. Does nothing after `finish`."""
        if not self._finished:
            with contextlib.suppress(OSError):
                os.unlink(self.temporary)

    def __enter__(self) -> ProductWriter:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None:
            self.abort()
        elif not self._finished:
            self.finish()

    def _check_array(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        if dtype not in _STORED:
            raise ProductError(self.path, f"array {name}: FITS has no type for {dtype}", "convert it first")
        known = self.schema.arrays.get(name) or self.schema.item_arrays.get(name)
        if known is None:
            return
        if known.dtype is not None and known.dtype != dtype:
            raise ProductError(
                self.path, f"array {name} is {dtype}, {self.model} has {known.dtype}", "convert it first"
            )
        if (known.ndim is not None and len(shape) != known.ndim) or (
            known.max_ndim is not None and len(shape) > known.max_ndim
        ):
            raise ProductError(
                self.path,
                f"array {name} has {len(shape)} dimensions, {self.model} allows {known.ndim or known.max_ndim}",
                "choose the model that fits",
            )

    def _plan(self, report: bool = False) -> _Plan:
        meta = dict(self.meta)
        meta["meta.date"] = datetime.datetime.now(datetime.UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
        meta["meta.filename"] = os.path.basename(self.path)
        meta["meta.model_type"] = self.model
        return _Plan(self.schema, meta, self._arrays, self._tables, self.path if report else None)

    def _move(self, layout: _Layout) -> None:
        """The headers have another size than foreseen: copy the pixels to where they belong now."""
        log.debug("%s: headers changed their size, copying the pixels", self.path)
        moved = f"{self.temporary}.moved"
        source = os.open(self.temporary, os.O_RDONLY)
        try:
            target = os.open(moved, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            try:
                _allocate(target, layout.end)
                for key, place in layout.places.items():
                    size = math.prod(place.shape) * np.dtype(place.dtype).itemsize
                    _copy(source, self._layout.places[key].offset, target, place.offset, size)
            except BaseException:
                os.unlink(moved)
                raise
            finally:
                os.close(target)
        finally:
            os.close(source)
        os.replace(moved, self.temporary)

    def _asdf(self, plan: _Plan, layout: _Layout) -> bytes:
        tree = plan.asdf_tree
        if self.wcs is not None:
            tree.setdefault("meta", {})["wcs"] = self.wcs
        tree["_fits_hash"] = hashlib.sha256(b"".join(layout.headers)).hexdigest()
        try:
            data = _asdf_file(tree)
        except Exception as error:
            raise ProductError(
                self.path, f"its metadata cannot be written ({error})", "give numbers, texts, lists and dicts"
            ) from error
        cards = [
            card_text("XTENSION", "BINTABLE", "binary table extension"),
            card_text("BITPIX", 8, "array data type"),
            card_text("NAXIS", 2, "number of array dimensions"),
            card_text("NAXIS1", len(data), "length of dimension 1"),
            card_text("NAXIS2", 1, "length of dimension 2"),
            card_text("PCOUNT", 0, "number of group parameters"),
            card_text("GCOUNT", 1, "number of groups"),
            card_text("TFIELDS", 1, "number of table fields"),
            card_text("TTYPE1", "ASDF_METADATA"),
            card_text("TFORM1", f"{len(data)}B"),
            card_text("EXTNAME", "ASDF", "extension name"),
        ]
        return header_bytes(cards) + data + bytes(-len(data) % BLOCK)


def _key(name: ArrayKey) -> tuple[str, int]:
    return (name.lower(), 1) if isinstance(name, str) else (name[0].lower(), int(name[1]))


@dataclass
class _Hdu:
    """An HDU to be written: keyword cards in order, and its data."""

    name: str
    cards: list[str] = field(default_factory=list)
    position: dict[str, int] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    dtype: str | None = None
    table: bytes | None = None
    table_dtype: np.dtype | None = None
    structure: tuple[str, ...] | None = None
    version: int | None = None
    array: str | None = None
    values: list[tuple[str, Any]] = field(default_factory=list)

    def set(self, keyword: str, value: Any, comment: str) -> None:
        text = card_text(keyword, value, comment)
        if keyword in self.position:
            self.cards[self.position[keyword]] = text
        else:
            self.position[keyword] = len(self.cards)
            self.cards.append(text)
            self.values.append((keyword, value))

    def set_version(self, version: int) -> None:
        self.version = version
        self.set("EXTVER", version, "extension value")

    def header(self, first: bool) -> bytes:
        return header_bytes([*self.leading_cards(first), *self.cards])

    def leading_cards(self, first: bool) -> list[str]:
        if self.structure is not None:
            return list(self.structure)
        bitpix, _, bzero = _STORED[self.dtype] if self.dtype is not None else (8, "u1", None)
        axes = [card_text(f"NAXIS{number}", size) for number, size in enumerate(reversed(self.shape), 1)]
        common = [
            card_text("BITPIX", bitpix, "array data type"),
            card_text("NAXIS", len(axes), "number of array dimensions"),
        ]
        if first:
            return [card_text("SIMPLE", True, "conforms to FITS standard"), *common, card_text("EXTEND", True)]
        scale = [] if bzero is None else [card_text("BSCALE", 1), card_text("BZERO", bzero)]
        return [
            card_text("XTENSION", "IMAGE", "Image extension"),
            *common,
            *axes,
            card_text("PCOUNT", 0, "number of parameters"),
            card_text("GCOUNT", 1, "number of groups"),
            *scale,
            card_text("EXTNAME", self.name, "extension name"),
        ]

    @property
    def data_size(self) -> int:
        if self.table is not None:
            return len(self.table)
        if self.dtype is None:
            return 0
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass
class _Layout:
    headers: list[bytes]
    pieces: list[tuple[int, bytes]]
    places: dict[tuple[str, int], Place]
    end: int


def _offsets(plan: _Plan) -> _Layout:
    """Where each header and each image comes to stand."""
    layout = _Layout([], [], {}, 0)
    for number, hdu in enumerate(plan.hdus):
        header = hdu.header(number == 0)
        layout.headers.append(header)
        layout.pieces.append((layout.end, header))
        layout.end += len(header)
        if hdu.table is not None:
            layout.pieces.append((layout.end, hdu.table + bytes(-len(hdu.table) % BLOCK)))
        elif hdu.array is not None and hdu.dtype is not None:
            layout.places[hdu.array, hdu.version or 1] = Place(layout.end, hdu.shape, hdu.dtype)
        layout.end += -(-hdu.data_size // BLOCK) * BLOCK
    return layout


class _Link:
    """Stands in the tree where an array or table stands in the file."""

    __slots__ = ("dtype", "name", "shape", "source", "table")

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any, table: np.ndarray | None) -> None:
        self.name, self.shape, self.dtype, self.table = name, shape, dtype, table
        self.source = ""


class _Plan:
    """HDUs with their cards, in the order in which a walk over the schema meets them, and the ASDF tree.

    `report` is the path to name in log messages about values that are left out; None for silence.
    """

    def __init__(
        self,
        schema: ModelSchema,
        meta: Mapping[str, Any],
        arrays: Mapping[tuple[str, int], tuple[tuple[int, ...], str]],
        tables: Mapping[tuple[str, int], np.ndarray],
        report: str | None,
    ) -> None:
        self.hdus = [_Hdu("PRIMARY")]
        self._by_name: dict[tuple[str, int], _Hdu] = {("PRIMARY", 1): self.hdus[0]}
        self._titles: list[str] = []
        self._report = report
        extra = {name.split(".", 1)[1]: cards for name, cards in meta.items() if name.startswith(f"{EXTRA}.")}
        history = meta.get("history") or []
        tree = nest(
            {
                name: plain_value(value)
                for name, value in meta.items()
                if value is not None and not name.startswith(f"{EXTRA}.") and name not in ("history", "meta.wcs")
            }
        )
        unknown = self._place_arrays(schema, tree, arrays, tables)
        self._walk(schema.root, tree, None, "")
        self._write_extra(extra, unknown, arrays, tree)
        entries = [dict(entry) if isinstance(entry, Mapping) else {"description": str(entry)} for entry in history]
        for entry in entries:
            self.hdus[0].cards.append(commentary_text("HISTORY", _ascii(str(entry.get("description", "")))))
        self.asdf_tree = _linked(tree)
        if entries:
            self.asdf_tree["history"] = {"entries": entries}

    def _place_arrays(
        self, schema: ModelSchema, tree: dict, arrays: Mapping, tables: Mapping
    ) -> dict[tuple[str, int], _Link]:
        """Put links into the tree; return those that the schema does not know."""
        unknown: dict[tuple[str, int], _Link] = {}
        links = {key: _Link(key[0], shape, dtype, None) for key, (shape, dtype) in arrays.items()}
        links.update({key: _Link(key[0], np.shape(rows), None, np.asarray(rows)) for key, rows in tables.items()})
        for key, link in links.items():
            name, version = key
            if name in schema.item_arrays and schema.list_name is not None:
                entries = tree.setdefault(schema.list_name, [])
                while len(entries) < version:
                    entries.append({})
                entries[version - 1] = dict(entries[version - 1])
                node, attribute = entries[version - 1], schema.item_arrays[name].attribute
            elif name in schema.arrays and version == 1:
                node, attribute = tree, schema.arrays[name].attribute
            else:
                unknown[key] = link
                continue
            *parents, last = attribute.split(".")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = link
        return unknown

    def _walk(self, node: Node, instance: dict, version: int | None, path: str) -> None:
        titled = self._titles
        if node.title is not None:
            titled.append(node.title)
        for name, child in node.properties.items():
            if name not in instance:
                continue
            value = instance[name]
            here = f"{path}.{name}" if path else name
            if child.keyword is not None:
                if not self._write_keyword(child, value, version, here):
                    del instance[name]
            elif isinstance(value, _Link):
                self._write_array(child, value, version)
            elif child.items is not None and isinstance(value, list):
                for number, entry in enumerate(value):
                    if isinstance(entry, dict):
                        self._walk(child.items, entry, number + 1, f"{here}.{number}")
            elif child.properties and isinstance(value, dict):
                self._walk(child, value, version, here)
        if node.title is not None and titled:
            titled.pop()

    def _hdu(self, name: str | None, version: int | None) -> _Hdu:
        """The HDU with this name, made if need be; in a list of slits with the slit's EXTVER."""
        name = (name or "PRIMARY").upper()
        key = (name, 1 if name == "PRIMARY" else version or 1)
        hdu = self._by_name.get(key)
        if hdu is None:
            hdu = self._new_hdu(key)
            if version is not None:
                hdu.set_version(version)
        return hdu

    def _new_hdu(self, key: tuple[str, int]) -> _Hdu:
        hdu = self._by_name[key] = _Hdu(key[0])
        self.hdus.append(hdu)
        return hdu

    def _write_keyword(self, node: Node, value: Any, version: int | None, path: str) -> bool:
        """Write a keyword. False if the value is not allowed and must leave the product."""
        if node.type == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)
        problem = node.problem(value)
        if problem is not None:
            if self._report:
                log.warning("%s: %s (keyword %s) is left out: %s", self._report, path, node.keyword, problem)
            return False
        if isinstance(value, float) and not math.isfinite(value):
            return True  # FITS headers have no NaN; the ASDF extension keeps it
        if isinstance(value, str) and not (value.isascii() and (value.isprintable() or not value)):
            value = _ascii(value)
        assert node.keyword is not None
        hdu = self._hdu(node.hdu, version)
        for title in self._titles:
            hdu.cards.append(title_text(title))
        self._titles = []
        hdu.set(node.keyword, value, node.comment)
        return True

    def _write_array(self, node: Node, link: _Link, version: int | None) -> None:
        assert node.hdu is not None
        key = (node.hdu.upper(), version or 1)
        hdu = self._by_name.get(key)
        if link.table is not None:
            data = conform_table(link.table, node)
            if hdu is not None:
                # An image HDU made for its keywords gives way to a table at the end of the file; comments and titles
                # stay behind.
                self.hdus.remove(hdu)
            table = self._new_hdu(key)
            table.structure, table.table, table.table_dtype = _table_hdu(data, node.hdu)
            table.set_version(version or 1)
            for keyword, value in hdu.values if hdu is not None else ():
                if not is_structural(keyword):
                    table.set(keyword, value, "")
            link.shape = data.shape
            hdu = table
        else:
            if hdu is None:
                hdu = self._new_hdu(key)
            hdu.shape, hdu.dtype = link.shape, link.dtype
            hdu.set_version(version or 1)
        hdu.array = link.name
        link.source = f"fits:{hdu.name},{version or 1}"
        link.dtype = link.dtype if hdu.table_dtype is None else hdu.table_dtype

    def _write_extra(
        self, extra: Mapping[str, Any], unknown: Mapping[tuple[str, int], _Link], arrays: Mapping, tree: dict
    ) -> None:
        for (name, _version), link in unknown.items():
            hdu = self._hdu(name, None)
            if link.table is not None:
                hdu.structure, hdu.table, hdu.table_dtype = _table_hdu(np.asarray(link.table), name.upper())
                link.dtype = hdu.table_dtype
                if name.upper() == "HDRTAB":
                    hdu.set_version(1)  # jwst adds this table to the schema of the combined image
            else:
                hdu.shape, hdu.dtype = link.shape, link.dtype
            hdu.array = link.name
            link.source = f"fits:{hdu.name},1"
            tree.setdefault(EXTRA, {}).setdefault(hdu.name, {})["data"] = link
        for name, cards in extra.items():
            hdu = self._hdu(name, None)
            kept = []
            for keyword, value, comment in cards:
                if is_structural(keyword):
                    continue
                value = plain_value(value)
                try:
                    if keyword == "COMMENT":
                        text = commentary_text(keyword, str(value))
                    elif value is None:
                        from astropy.io import fits

                        text = str(fits.Card(keyword, None, comment))
                    else:
                        text = card_text(keyword, value, comment)
                except ValueError:
                    continue
                hdu.cards.append(text)
                kept.append([keyword, value, comment])
            if kept:
                tree.setdefault(EXTRA, {}).setdefault(hdu.name, {})["header"] = kept


def plain_value(value: Any) -> Any:
    """Metadata values as plain Python: NumPy scalars and dates unpacked, inside lists and dicts too."""
    if isinstance(value, str | bool | int | float) and not isinstance(value, np.generic):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain_value(child) for key, child in value.items() if child is not None}
    if isinstance(value, list | tuple):
        return [plain_value(child) for child in value]
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    if type(value).__module__.startswith("astropy.time"):
        return value.iso
    return value


def _ascii(value: str) -> str:
    folded = unicodedata.normalize("NFKD", value).encode("ascii", "ignore").decode()
    return "".join(character if character.isprintable() else " " for character in folded)


def conform_table(rows: np.ndarray, node: Node) -> np.ndarray:
    """Rows with the columns, their order and types that the schema states.

    Columns that older files lack are NaN or zero, columns that the schema does not know are dropped: data models refuse
    both.
    """
    rows = np.asarray(rows)
    wanted = None if node.datatype is None else numpy_dtype(node.datatype)
    if wanted is None or wanted.names is None or rows.dtype.names is None:
        return rows
    sources = {name.lower(): name for name in rows.dtype.names}
    if len(rows.dtype.names) == len(wanted.names) and not all(name.lower() in sources for name in wanted.names):
        sources = dict(zip(map(str.lower, wanted.names), rows.dtype.names))
    columns = []
    for name in wanted.names:
        source = sources.get(name.lower())
        columns.append((name, wanted[name].base, wanted[name].shape if source is None else rows.dtype[source].shape))
    if node.extra_columns:
        known = {name.lower() for name in wanted.names}
        columns += [
            (name, rows.dtype[name].base, rows.dtype[name].shape)
            for name in rows.dtype.names
            if name.lower() not in known
        ]
    dtype = np.dtype(columns)
    if rows.dtype.metadata:
        dtype = np.dtype(dtype, metadata=dict(rows.dtype.metadata))
    out = np.zeros(rows.shape, dtype)
    for name, base, _ in columns:
        source = sources.get(name.lower())
        if source is not None:
            out[name] = rows[source]
        elif base.kind == "f":
            out[name] = np.nan
    return out


def _table_hdu(rows: np.ndarray, name: str) -> tuple[tuple[str, ...], bytes, np.dtype]:
    """Structural cards, data and row dtype (as the ASDF extension states it) of a binary table."""
    units = dict(rows.dtype.metadata or {}).get("units", {})
    arguments = rows.dtype, rows.shape, name, tuple(units.items())
    # Most tables are those of times, the same in several products, whose headers are made twice.
    return (_small_table if rows.nbytes < _SMALL and not rows.dtype.hasobject else _table)(rows.tobytes(), *arguments)


def _table(
    content: bytes, dtype: np.dtype, shape: tuple[int, ...], name: str, units: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, ...], bytes, np.dtype]:
    from astropy.io import fits

    rows = np.frombuffer(content, dtype).reshape(shape)
    columns = [(column, rows.dtype[column]) for column in rows.dtype.names or ()]
    if any(dtype.base.kind == "U" for _, dtype in columns):
        plain = np.dtype(
            [
                (column, (f"S{dtype.base.itemsize // 4}" if dtype.base.kind == "U" else dtype.base), dtype.shape)
                for column, dtype in columns
            ]
        )
        encoded = np.empty(rows.shape, plain)
        for column, dtype in columns:
            encoded[column] = (
                np.char.encode(rows[column], "ascii", "replace") if dtype.base.kind == "U" else rows[column]
            )
        rows = encoded
    hdu = fits.BinTableHDU(fits.FITS_rec.from_columns(fits.ColDefs(rows)) if rows.size == 0 else rows, name=name)
    for column, unit in units:
        if column in hdu.columns.names:
            hdu.columns[column].unit = unit
    buffer = io.BytesIO()
    hdu.writeto(buffer)
    # The buffer holds an empty primary HDU, then the table.
    start = BLOCK + len(hdu.header.tostring())
    size = hdu.header["NAXIS1"] * hdu.header["NAXIS2"]
    data = buffer.getvalue()[start : start + size]
    text = hdu.header.tostring(endcard=False, padding=False)
    return tuple(text[position : position + 80] for position in range(0, len(text), 80)), data, rows.dtype


_SMALL = 1 << 16
_small_table = functools.lru_cache(maxsize=8)(_table)


def _linked(tree: Any) -> Any:
    """The tree with plain dicts in place of links."""
    if isinstance(tree, _Link):
        return array_link(tree.source, tree.shape, np.dtype(tree.dtype))
    if isinstance(tree, dict):
        return {key: _linked(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_linked(value) for value in tree]
    return tree


def _asdf_file(tree: dict[str, Any]) -> bytes:
    """The ASDF file with this tree, as the `asdf` library writes it."""
    if "history" in tree:
        from asdf.tags.core import HistoryEntry

        tree = {**tree, "history": {"entries": [HistoryEntry(entry) for entry in tree["history"]["entries"]]}}
    return tree_bytes(tree)


def _encode(values: np.ndarray, dtype: str) -> memoryview:
    """Values as they stand in a FITS file: big-endian, sign bit flipped for unsigned integers."""
    native = np.dtype(dtype)
    _, stored, bzero = _STORED[dtype]
    if native.itemsize == 4:
        words = np.ascontiguousarray(values, native)
        return swap32(words, flip=0x80 if bzero else 0).view(np.uint8).reshape(-1).data
    out = np.array(values, dtype=native, order="C")
    if bzero is not None:
        bits = out.view(f"u{native.itemsize}")
        bits ^= bits.dtype.type(1 << (8 * native.itemsize - 1))
    if native.itemsize > 1 and not np.dtype(stored).isnative:
        out.byteswap(inplace=True)
    return out.view(np.uint8).reshape(-1).data


def _allocate(descriptor: int, size: int) -> None:
    """Reserve the space at once, so that a full disk is known before any work is done."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.ftruncate(descriptor, size)


def _copy(source: int, source_offset: int, target: int, target_offset: int, size: int) -> None:
    while size:
        piece = os.pread(source, min(size, 4 << 20), source_offset)
        write_at(target, piece, target_offset)
        source_offset, target_offset, size = source_offset + len(piece), target_offset + len(piece), size - len(piece)


def _sync_folder(folder: str) -> None:
    # Some network file systems refuse to sync a folder; the rename has happened all the same.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: str) -> None:
    """Make the folder of a product. A URL has none, but the one where products wait until they are sent.

    Raises
    ------
    ProductError
        If it cannot be made.
    """
    with _reported(path):
        if is_url(path):
            os.makedirs(staging_folder(), exist_ok=True)
            return
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)


def prepare_folder(folder: str) -> None:
    """Make a folder for products; of a URL, make sure that files can be sent there.

    Raises
    ------
    ProductError
        If not.
    """
    make_folder(join(folder, "products"))
    if is_url(folder):
        check_writable(folder)


@contextlib.contextmanager
def _reported(path: str) -> Iterator[None]:
    """Errors of the operating system in the user's words."""
    try:
        yield
    except OSError as error:
        folder = staging_folder() if is_url(path) else os.path.dirname(path)
        message, remedy = {
            errno.ENOSPC: ("the disk is full", f"make room in {folder} or choose another output_dir"),
            errno.EDQUOT: ("the disk quota is used up", f"make room in {folder} or choose another output_dir"),
            errno.EFBIG: (
                "the file is too large for this file system or for the limit of the process",
                "choose another output_dir",
            ),
            errno.EROFS: (f"folder {folder} is read-only", "choose another output_dir"),
            errno.EACCES: (f"writing into folder {folder} is not permitted", "choose another output_dir"),
            errno.EPERM: (f"writing into folder {folder} is not permitted", "choose another output_dir"),
            errno.ENOENT: (f"there is no folder {folder}", "make it or choose another output_dir"),
            errno.ENOTDIR: (f"{folder} is not in a folder", "choose another output_dir"),
            errno.EEXIST: (f"{folder} is not a folder", "choose another output_dir"),
        }.get(error.errno or 0, (f"writing failed ({error})", "check the disk"))
        raise ProductError(path, message, remedy) from error
