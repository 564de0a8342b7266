"""Writing products: a pre-allocated file, filled in strips by any number of threads and processes, then finished and
renamed.

Until `finish` the file has a hidden name in the folder of the product: a product under its final name is complete.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import itertools
import logging
import math
import mmap
import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.errors import ProductError
from jwstdask.io.hdus import STORED, ArrayKey, HduLayout, HduPlan, Place, array_key, asdf_bytes, lay_out
from jwstdask.io.header import BLOCK, card_text, header_bytes
from jwstdask.io.pages import make_ready, map_ready, write_at
from jwstdask.io.remote import check_writable, is_url, join, publish, staging_folder
from jwstdask.io.schema import model_schema
from jwstdask.io.temporary import remove, temporary_path
from jwstdask.kernels.decode import swap32

log = logging.getLogger(__name__)

_PIECE = 1 << 20  # elements converted at a time: 4 MB of float32
_MANY_RUNS = 10_000  # pieces of a file that are not worth a call each
_SOME_RUNS = 1  # the same where memory that the file backs is there
_UNDER_WAY = 1  # strips that are being written to disk


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
        self.write_all({name: array}, rows, leading, columns, images)

    def write_all(
        self,
        arrays: Mapping[Any, np.ndarray],
        rows: slice = slice(None),
        leading: tuple[slice, ...] = (),
        columns: slice = slice(None),
        images: MappedImages | None = None,
    ) -> None:
        """Write the same part of several images, by name: parameters and errors as of `write`."""
        boxes: dict[tuple[int, ...], _Box] = {}
        called: list[_Part] = []
        mapped: list[_Part] = []
        for name, array in arrays.items():
            key = (name, 1) if isinstance(name, str) else name
            place = self._place(key)
            if place.shape not in boxes:
                boxes[place.shape] = _Box.of(place.shape, leading, rows, columns)
            box = boxes[place.shape]
            array = np.asarray(array)
            if array.shape != box.counts or any(part.step != 1 for part in box.ranges):
                message = f"array {key[0]} has shape {array.shape} where {box.counts} is to be written"
                raise ProductError(self.path, message, "")
            if array.size:
                few = box.runs <= (_MANY_RUNS if images is None else _SOME_RUNS)
                (called if few else mapped).append((place, array, box))
        with _reported(self.path):
            if mapped:
                by = MappedImages() if images is None else images
                for place, array, box in mapped:
                    by.write(self.temporary, place, array, tuple(slice(part.start, part.stop) for part in box.ranges))
            if called:
                self._write_runs(called, images)

    def send(self, rows: slice) -> None:
        """Have rows of all planes written to disk soon, and forgotten by the cache as far as they are there already.

        That is a wish: where the system does not know it, nothing happens.
        """
        with contextlib.suppress(AttributeError, OSError):
            descriptor = os.open(self.temporary, os.O_RDONLY)
            try:
                for place in self.places.values():
                    line = place.shape[-1] * np.dtype(place.dtype).itemsize
                    for plane in range(math.prod(place.shape[:-2])):
                        first = place.offset + (plane * place.shape[-2] + rows.start) * line
                        size = (rows.stop - rows.start) * line
                        os.posix_fadvise(descriptor, first, size, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)

    def _place(self, key: tuple[str, int]) -> Place:
        try:
            return self.places[key]
        except KeyError:
            names = ", ".join(sorted({known for known, _ in self.places}))
            raise ProductError(
                self.path, f"the product has no array {key[0]} (EXTVER {key[1]})", f"it has {names}"
            ) from None

    def _write_runs(self, parts: list[_Part], images: MappedImages | None) -> None:
        """Write parts of images, run by run."""
        descriptor = os.open(self.temporary, os.O_WRONLY)
        try:
            for place, array, box in parts:
                if images is not None:
                    images.begin(self.temporary, place)
                itemsize = np.dtype(place.dtype).itemsize
                for index, first in box:
                    run = array[index].reshape(-1)
                    for start in range(0, run.size, _PIECE):
                        piece = _encode(run[start : start + _PIECE], place.dtype)
                        write_at(descriptor, piece, place.offset + (first + start) * itemsize)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class _Box:
    """A part of images of one shape, as runs that are contiguous in the file.

    Attributes
    ----------
    ranges, counts
        Along each axis.
    strides
        In elements.
    cut
        The last partial axis: runs go on from it to the last axis.
    """

    ranges: list[range]
    counts: tuple[int, ...]
    strides: list[int]
    cut: int

    @classmethod
    def of(cls, shape: tuple[int, ...], leading: tuple[slice, ...], rows: slice, columns: slice) -> _Box:
        ndim = len(shape)
        keys = [*leading, *[slice(None)] * (ndim - 2 - len(leading)), rows, columns][-ndim:]
        ranges = [range(*key.indices(size)) for key, size in zip(keys, shape, strict=True)]
        counts = tuple([len(part) for part in ranges])
        cut = ndim - 1
        while cut > 0 and counts[cut] == shape[cut]:
            cut -= 1
        return cls(ranges, counts, [math.prod(shape[axis:]) for axis in range(1, ndim + 1)], cut)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return math.prod(self.counts[: self.cut])

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Index into an array of the part, and the element of the image with which it begins, of each run."""
        first = sum(part.start * stride for part, stride in zip(self.ranges, self.strides, strict=True))
        for index in itertools.product(*map(range, self.counts[: self.cut])):
            yield index, first + sum([position * stride for position, stride in zip(index, self.strides)])


_Part = tuple[Place, np.ndarray, _Box]


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
        image, first = self.image(path, place)
        *leading, rows, columns = where
        part = image[(*leading, slice(rows.start - first, rows.stop - first), columns)]
        if part.dtype.itemsize == part.strides[-1] == 4:
            words = array.astype(place.dtype, copy=False)
            swap32(words, part, flip=0x80 if STORED[place.dtype][2] else 0, stream=True)
            return
        pieces = array.size // _PIECE + 1
        for start, stop in itertools.pairwise(np.linspace(0, len(array), pieces + 1).astype(int)):
            run = np.ascontiguousarray(array[start:stop])
            part[start:stop] = np.frombuffer(_encode(run.reshape(-1), place.dtype), part.dtype).reshape(run.shape)

    def image(self, path: str, place: Place) -> tuple[np.ndarray, int]:
        """The image at ``place`` of a file, as it is stored, and the row of the frame with which it begins."""
        if (path, place.offset) not in self._images:
            image = np.memmap(path, STORED[place.dtype][1], "r+", place.offset, place.shape)
            with contextlib.suppress(OSError, AttributeError):
                # Nothing is read ahead of what is written here and there.
                image._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
            if self.rows is not None:
                _populate(image, path, place, self.rows, self.alone and (path, place.offset) not in self._begun)
            self._images[path, place.offset] = image.view(np.ndarray)
        return self._images[path, place.offset], 0

    def finish(self) -> None:
        """To be called when all parts have been written."""
        # What is mapped stays in memory.
        self._images.clear()


class Outflow:
    """Products too large to be kept in the cache of the system, sent to disk while more of them is made.

    Their memory serves again for what comes next. Otherwise each page of them would be a new one, which costs up to ten
    times as much where a virtual machine has to ask its host, and other processes would lose what they have cached.

    Parameters
    ----------
    handles
        Of the products.
    """

    def __init__(self, handles: Iterable[ProductHandle]) -> None:
        self.handles = tuple(handles)
        self._begun: deque[slice] = deque()

    def finished(self, rows: slice) -> None:
        """Say that rows have been written: from any thread, once for each strip."""
        self._begun.append(rows)
        self._send(rows)
        if len(self._begun) > _UNDER_WAY:
            # By now they are on the disk.
            self._send(self._begun.popleft())

    def _send(self, rows: slice) -> None:
        for handle in self.handles:
            handle.send(rows)


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


def _offsets(layout: HduLayout) -> dict[tuple[str, int], int]:
    """Where the pixels of each array are; two of one size may change places."""
    return {key: place.offset for key, place in layout.places.items()}


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
            array_key(name): (tuple(map(int, shape)), np.dtype(dtype).name)
            for name, (shape, dtype) in (arrays or {}).items()
        }
        self._tables = {array_key(name): rows for name, rows in (tables or {}).items()}
        self._finished = False
        for (name, _), (shape, dtype) in self._arrays.items():
            self._check_array(name, shape, dtype)
        self.temporary = temporary_path(self.path)
        plan = self._plan()
        self._layout = lay_out(plan)
        # Nothing is left even of a writer that an interrupt keeps from being handed over.
        self._leftover = weakref.finalize(self, remove, self.temporary)
        with _reported(self.path):
            try:
                descriptor = os.open(self.temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
                try:
                    _allocate(descriptor, self._layout.end)
                finally:
                    os.close(descriptor)
            except BaseException:
                self._leftover()
                raise
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
        self._tables.update({array_key(name): rows for name, rows in (tables or {}).items()})
        self.wcs = wcs if wcs is not None else self.wcs
        try:
            plan = self._plan(report=True)
            layout = lay_out(plan)
            with _reported(self.path):
                if _offsets(layout) != _offsets(self._layout):
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
        self._leftover.detach()
        return self.path

    def abort(self) -> None:
        """Remove the unfinished file. Does nothing after `finish`."""
        self._leftover()

    def __enter__(self) -> ProductWriter:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None:
            self.abort()
        elif not self._finished:
            self.finish()

    def _check_array(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        if dtype not in STORED:
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

    def _plan(self, report: bool = False) -> HduPlan:
        meta = dict(self.meta)
        meta["meta.date"] = datetime.datetime.now(datetime.UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
        meta["meta.filename"] = os.path.basename(self.path)
        meta["meta.model_type"] = self.model
        return HduPlan(self.schema, meta, self._arrays, self._tables, self.path if report else None)

    def _move(self, layout: HduLayout) -> None:
        """The headers have another size or order than foreseen: copy the pixels to where they belong now."""
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

    def _asdf(self, plan: HduPlan, layout: HduLayout) -> bytes:
        tree = plan.asdf_tree
        if self.wcs is not None:
            tree.setdefault("meta", {})["wcs"] = self.wcs
        tree["_fits_hash"] = hashlib.sha256(b"".join(layout.headers)).hexdigest()
        try:
            data = asdf_bytes(tree)
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


def _encode(values: np.ndarray, dtype: str) -> memoryview:
    """Values as they stand in a FITS file: big-endian, sign bit flipped for unsigned integers."""
    native = np.dtype(dtype)
    _, stored, bzero = STORED[dtype]
    if native.itemsize == 4:
        words = np.ascontiguousarray(values, native)
        return memoryview(swap32(words, flip=0x80 if bzero else 0)).cast("B")  # type: ignore[arg-type]
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
