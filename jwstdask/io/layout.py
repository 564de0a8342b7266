"""Where everything is in a FITS file: headers are read, pixels are not.

A FITS image is one contiguous big-endian block, so that offset, shape and dtype are all that is needed to read any
strip of rows from any thread, process or object store. `FitsLayout.read` uses positioned reads (a 128-row strip of a
full-frame exposure: about a millisecond). Standard: FITS 4.0, sections 3, 4 and 7.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jwstdask.core.errors import InputError
from jwstdask.io.header import BLOCK, END, Header
from jwstdask.io.remote import file_system, is_url, retried

_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
# (BITPIX, BZERO) pairs by which FITS stores unsigned integers, and signed bytes.
_OFFSET_DTYPES = {(16, 2**15): "uint16", (32, 2**31): "uint32", (64, 2**63): "uint64", (8, -128): "int8"}
_COLUMN_CODES = {
    "L": "S1",
    "X": "u1",
    "B": "u1",
    "I": ">i2",
    "J": ">i4",
    "K": ">i8",
    "E": ">f4",
    "D": ">f8",
    "C": ">c8",
    "M": ">c16",
}
_COLUMN_FORMAT = re.compile(r"(\d*)([LXBIJKAEDCMPQ])(.*)")
_FIRST_READ = 12 * BLOCK
_TOGETHER = 32 << 20  # bytes asked of a server at a time


@dataclass
class Hdu:
    """One header and data unit.

    Attributes
    ----------
    name : str
        EXTNAME, upper case; ``PRIMARY`` for the first.
    version : int
        EXTVER, 1 where it is absent.
    kind : str
        ``image``, ``table`` or ``other``.
    shape : tuple of int
        Image: C order, last two axes (y, x). Table: (rows,). Empty without data.
    dtype : numpy.dtype
        Native dtype of the values as they are meant: unsigned where BZERO says so, floating where BSCALE scales.
        Table: a row.
    stored : numpy.dtype
        As it stands in the file (big-endian). Table: a row.
    """

    name: str
    version: int
    index: int
    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype
    stored: np.dtype
    header_offset: int
    data_offset: int
    data_size: int
    bzero: float = 0
    bscale: float = 1
    _header: Header | None = field(default=None, repr=False, compare=False)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape) if self.shape else 0

    def __getstate__(self) -> dict[str, Any]:
        # Headers are 25 kB of text and quickly read again: they do not travel to workers.
        return {**self.__dict__, "_header": None}


class FitsLayout:
    """The HDUs of a file, and reading parts of them. Make one with :func:`open_layout`.

    Holds no open file: it can be used from many threads, is pickled in a few hundred bytes per HDU and costs nothing
    while idle.

    Attributes
    ----------
    path : str
        Path or URL.
    hdus : list of Hdu
    """

    def __init__(self, path: str, hdus: list[Hdu], storage_options: dict[str, Any] | None = None) -> None:
        self.path = path
        self.hdus = hdus
        self.storage_options = dict(storage_options or {})
        self._index = {(hdu.name, hdu.version): hdu for hdu in reversed(hdus)}

    def __reduce__(self):
        return FitsLayout, (self.path, self.hdus, self.storage_options)

    def __dask_tokenize__(self) -> Any:
        # A file that is written again is another one.
        changed = None if is_url(self.path) else os.stat(self.path).st_mtime_ns
        return "FitsLayout", self.path, changed, self.storage_options

    def __repr__(self) -> str:
        names = ", ".join(f"{hdu.name}{list(hdu.shape)}" for hdu in self.hdus)
        return f"FitsLayout({self.path!r}: {names})"

    def __iter__(self) -> Iterator[Hdu]:
        return iter(self.hdus)

    def __contains__(self, name: str) -> bool:
        return (name.upper(), 1) in self._index

    @property
    def names(self) -> list[str]:
        """Names of the HDUs in the order of the file."""
        return [hdu.name for hdu in self.hdus]

    def hdu(self, name: str, version: int = 1) -> Hdu:
        """The HDU called `name` (any case) with EXTVER `version`.

        Raises
        ------
        InputError
            If there is none.
        """
        try:
            return self._index[name.upper(), version]
        except KeyError:
            raise InputError(
                self.path,
                f"no HDU {name.upper()}" + (f" with EXTVER {version}" if version != 1 else ""),
                f"the file has {', '.join(dict.fromkeys(self.names))}",
            ) from None

    def header(self, name: str = "PRIMARY", version: int = 1) -> Header:
        """Header of an HDU."""
        hdu = self.hdu(name, version)
        return self.header_of(hdu)

    def header_of(self, hdu: Hdu) -> Header:
        """Header of an HDU, read again where it did not travel with the layout."""
        if hdu._header is None:
            raw = _Source(self.path, self.storage_options).bytes(hdu.header_offset, hdu.data_offset - hdu.header_offset)
            hdu._header = Header(_header_text(raw, _end_of_header(raw, 0)))
        return hdu._header

    @property
    def model(self) -> str | None:
        """DATAMODL: class name of the data model, None where the file does not say."""
        return self.header().get("DATAMODL")

    def read(
        self,
        name: str,
        rows: slice = slice(None),
        columns: slice = slice(None),
        version: int = 1,
        leading: tuple[slice, ...] = (),
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Pixels of an image.

        Parameters
        ----------
        name
            HDU name, any case.
        rows, columns
            Along the last two axes (y, x); steps must be 1.
        version
            EXTVER.
        leading
            Slices along the leading axes (integration, group), steps 1; whole where not given.
        out
            C-contiguous native array of the right shape and dtype to fill.

        Returns
        -------
        numpy.ndarray
            (..., y, x), native byte order, dtype as `Hdu.dtype`.

        Raises
        ------
        InputError
            If the HDU is missing, has no pixels, or the file has become shorter.
        """
        hdu = self.hdu(name, version)
        if hdu.kind != "image" or not hdu.shape:
            raise InputError(self.path, f"HDU {hdu.name} holds no image", "read a table with FitsLayout.table")
        keys = [
            *leading,
            *[slice(None)] * (hdu.ndim - 2 - len(leading)),
            *((rows, columns) if hdu.ndim > 1 else (columns,)),
        ]
        starts, counts = _box(keys, hdu.shape)
        if out is None:
            out = np.empty(counts, hdu.dtype)
        elif out.shape != tuple(counts) or out.dtype != hdu.dtype or not out.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous {hdu.dtype} {tuple(counts)}, not {out.dtype} {out.shape}")
        if out.size == 0:
            return out
        if hdu.dtype.itemsize == hdu.stored.itemsize:
            # Read into the place of the result and correct it there.
            buffer = out.view(hdu.stored)
            self._read_box(hdu, starts, counts, buffer)
            _decode(buffer, out, hdu)
        else:
            buffer = np.empty(counts, hdu.stored)
            self._read_box(hdu, starts, counts, buffer)
            out[...] = buffer
            _rescale(out, hdu)
        return out

    def _read_box(self, hdu: Hdu, starts: list[int], counts: list[int], buffer: np.ndarray) -> None:
        """Fill `buffer` (C order) with a box of the image: one read for each contiguous run."""
        shape, itemsize = hdu.shape, hdu.stored.itemsize
        # Axes below `cut` are taken whole: what lies above the last partial axis is one run.
        cut = len(shape) - 1
        while cut > 0 and counts[cut] == shape[cut]:
            cut -= 1
        # A narrow window of a wide image would take a read a row: read the rows whole and cut them in memory.
        if cut == len(shape) - 1 and cut >= 1 and counts[cut] * 8 >= shape[cut] and counts[cut - 1] > 1:
            whole_counts = [*counts[:-1], shape[-1]]
            whole = np.empty(whole_counts, hdu.stored)
            self._read_box(hdu, [*starts[:-1], 0], whole_counts, whole)
            buffer[...] = whole[..., starts[-1] : starts[-1] + counts[-1]]
            return
        strides = [itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        length = counts[cut] * strides[cut]
        base = hdu.data_offset + starts[cut] * strides[cut]
        offsets = [base]
        for axis in range(cut):
            offsets = [
                offset + (starts[axis] + index) * strides[axis] for offset in offsets for index in range(counts[axis])
            ]
        target = buffer.reshape(-1).view(np.uint8).data
        _Source(self.path, self.storage_options).read_into(offsets, length, target)

    def raw(self, name: str, version: int = 1) -> np.ndarray:
        """The image as it stands in the file: a read-only big-endian memory map (`Hdu.stored`), BZERO and BSCALE not
        applied.

        Raises
        ------
        InputError
            For a URL: only a local file can be mapped.
        """
        hdu = self.hdu(name, version)
        if is_url(self.path):
            raise InputError(self.path, "a remote file cannot be memory-mapped", "use FitsLayout.read")
        # As a plain array: each index of the other class costs ten times as much.
        return np.asarray(np.memmap(self.path, hdu.stored, "r", hdu.data_offset, hdu.shape))

    def table(self, name: str, version: int = 1, rows: slice = slice(None)) -> np.ndarray:
        """Rows of a binary table, all or some successive ones, native byte order: a structured array of shape (rows,).

        Column units (TUNIT) are in ``dtype.metadata["units"]``, a dict by column name, where the table states any.
        """
        hdu = self.hdu(name, version)
        if hdu.kind != "table":
            raise InputError(self.path, f"HDU {hdu.name} is not a table")
        ((start,), (count,)) = _box([rows], hdu.shape)
        raw = _Source(self.path, self.storage_options).bytes(
            hdu.data_offset + start * hdu.stored.itemsize, hdu.stored.itemsize * count
        )
        return _decode_table(np.frombuffer(raw, hdu.stored), self.header_of(hdu), hdu.dtype)

    def bytes(self, name: str, version: int = 1) -> bytes:
        """Data of an HDU as it stands in the file."""
        hdu = self.hdu(name, version)
        return _Source(self.path, self.storage_options).bytes(hdu.data_offset, hdu.data_size)

    def check_exposure(self, primary: str = "SCI") -> Hdu:
        """The HDU with the science pixels, after checking that the arrays beside it fit on it.

        Raises
        ------
        InputError
            If `primary` is missing or empty, or an array of the same exposure has other rows and columns.
        """
        science = self.hdu(primary)
        if science.kind != "image" or science.ndim < 2 or science.size == 0:
            raise InputError(
                self.path, f"HDU {primary} has no pixels", "the exposure must be delivered or calibrated again"
            )
        for hdu in self.hdus:
            if (
                hdu.name in _SAME_FRAME
                and hdu.kind == "image"
                and hdu.size
                and hdu.version == science.version
                and hdu.shape[-2:] != science.shape[-2:]
            ):
                raise InputError(
                    self.path,
                    f"HDU {hdu.name} has {hdu.shape[-2]} rows and {hdu.shape[-1]} columns where {primary} has"
                    f" {science.shape[-2]} and {science.shape[-1]}",
                    "the file mixes two exposures or was cut by hand: make it again",
                )
        return science


_SAME_FRAME = frozenset(
    (
        "ERR",
        "DQ",
        "PIXELDQ",
        "GROUPDQ",
        "ZEROFRAME",
        "VAR_POISSON",
        "VAR_RNOISE",
        "VAR_FLAT",
        "WHT",
        "CON",
        "AREA",
        "AVDRKCUR",
    )
)


def open_layout(path: str | os.PathLike[str], storage_options: dict[str, Any] | None = None) -> FitsLayout:
    """Read the headers of a FITS file.

    Parameters
    ----------
    path
        Path, or a URL that fsspec knows (s3://, https://, memory://).
    storage_options
        Passed to fsspec, such as ``{"anon": True}``.

    Raises
    ------
    InputError
        If the file is missing, is not FITS, or is truncated.
    """
    name = os.fspath(path)
    source = _Source(name, storage_options)
    hdus: list[Hdu] = []
    total = source.size()
    offset = 0
    while offset < total:
        raw = source.bytes(offset, min(_FIRST_READ if not hdus else 2 * BLOCK, total - offset))
        if not hdus and raw[:9] != b"SIMPLE  =":
            raise InputError(
                name,
                "this is not a FITS file" + (" (it is compressed)" if raw[:2] in (b"\x1f\x8b", b"BZ") else ""),
                "decompress it first" if raw[:2] in (b"\x1f\x8b", b"BZ") else "give a FITS file such as *_uncal.fits",
            )
        if hdus and raw[:8] != b"XTENSION":
            break  # special records after the last HDU (FITS 4.0, section 3.5)
        end = _end_of_header(raw, 0)
        while end < 0 and offset + len(raw) < total:
            searched = max(0, len(raw) - BLOCK) // BLOCK * BLOCK
            raw += source.bytes(offset + len(raw), min(8 * BLOCK, total - offset - len(raw)))
            end = _end_of_header(raw, searched)
        if end < 0:
            raise _truncated(name, f"the header of HDU {len(hdus)} does not end")
        header = Header(_header_text(raw, end))
        data_offset = offset + (end // BLOCK + 1) * BLOCK
        hdu = _hdu(name, header, len(hdus), offset, data_offset)
        if data_offset + hdu.data_size > total:
            missing = data_offset + hdu.data_size - total
            raise _truncated(name, f"{missing} of the {hdu.data_size} bytes of HDU {hdu.name} are missing")
        hdus.append(hdu)
        offset = data_offset + -(-hdu.data_size // BLOCK) * BLOCK
    if not hdus:
        raise InputError(name, "the file is empty", "download it again")
    return FitsLayout(name, hdus, storage_options)


def read_bytes(path: str | os.PathLike[str], storage_options: dict[str, Any] | None = None) -> bytes:
    """The whole of a small file, local or not.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    source = _Source(os.fspath(path), storage_options)
    return source.bytes(0, source.size())


def _truncated(path: str, detail: str) -> InputError:
    return InputError(path, f"the file is truncated: {detail}", "download or write it again")


def _end_of_header(raw: bytes, start: int) -> int:
    """Offset of the END card, -1 if it is not there; cards start at multiples of 80."""
    position = raw.find(END, start)
    while position >= 0 and position % 80:
        position = raw.find(END, position + 1)
    return position


def _header_text(raw: bytes, end: int) -> str:
    return raw[:end].decode("ascii", "replace")


def _hdu(path: str, header: Header, index: int, offset: int, data_offset: int) -> Hdu:
    values = header.structure
    try:
        bitpix, naxis = values["BITPIX"], values["NAXIS"]
        axes = tuple(values[f"NAXIS{axis}"] for axis in range(naxis, 0, -1))
        stored = np.dtype(_DTYPES[bitpix])
        pcount, gcount = values.get("PCOUNT", 0), values.get("GCOUNT", 1)
        data_size = stored.itemsize * gcount * (pcount + math.prod(axes)) if naxis else 0
    except (KeyError, TypeError) as error:
        raise InputError(
            path, f"HDU {index} has a broken header ({error})", "download or write the file again"
        ) from None
    name = "PRIMARY" if index == 0 else str(values.get("EXTNAME") or "").upper()
    bzero, bscale = values.get("BZERO") or 0, values.get("BSCALE", 1)
    kind = {"IMAGE": "image", "BINTABLE": "table"}.get(str(values.get("XTENSION", "IMAGE")), "other")
    if kind == "table":
        stored, dtype = _table_dtypes(path, header, values)
        shape: tuple[int, ...] = (axes[0],)
    else:
        shape = axes
        if bscale == 1 and (bitpix, bzero) in _OFFSET_DTYPES:
            dtype = np.dtype(_OFFSET_DTYPES[bitpix, bzero])
        elif bscale != 1 or bzero != 0:
            # 16-bit integers fit a float32 exactly, wider ones do not.
            dtype = np.dtype("float32" if bitpix in (8, 16, -32) else "float64")
        else:
            dtype = stored.newbyteorder("=")
    version = values.get("EXTVER", 1)
    return Hdu(
        name,
        version if isinstance(version, int) else 1,
        index,
        kind,
        shape,
        dtype,
        stored,
        offset,
        data_offset,
        data_size,
        bzero,
        bscale,
        header,
    )


def _box(keys: list[slice], shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
    starts, counts = [], []
    for key, size in zip(keys, shape, strict=True):
        start, stop, step = key.indices(size)
        if step != 1:
            raise ValueError("steps other than 1 are not supported: slice the result")
        starts.append(start)
        counts.append(max(0, stop - start))
    return starts, counts


def _decode(buffer: np.ndarray, out: np.ndarray, hdu: Hdu) -> None:
    """Big-endian stored values to native ones, in place: `buffer` and `out` share memory."""
    if hdu.stored.itemsize > 1 and not hdu.stored.isnative:
        buffer.byteswap(inplace=True)
    if hdu.dtype.kind == "u" and hdu.stored.kind == "i":
        # Adding 2**(n-1) to a two's complement number is flipping its sign bit: exact for every value.
        out ^= out.dtype.type(1 << (8 * out.dtype.itemsize - 1))
    elif hdu.dtype == np.int8:
        out.view(np.uint8)[...] ^= np.uint8(128)
    elif hdu.stored.kind != hdu.dtype.kind:
        out[...] = buffer.view(hdu.stored.newbyteorder("="))
        _rescale(out, hdu)
    else:
        _rescale(out, hdu)


def _rescale(out: np.ndarray, hdu: Hdu) -> None:
    if out.dtype.kind == "f":
        if hdu.bscale != 1:
            out *= out.dtype.type(hdu.bscale)
        if hdu.bzero != 0:
            out += out.dtype.type(hdu.bzero)


def _table_dtypes(path: str, header: Header, values: dict[str, Any]) -> tuple[np.dtype, np.dtype]:
    """Row dtype as stored and as meant."""
    stored: list[tuple[str, Any, tuple[int, ...]]] = []
    meant: list[tuple[str, Any, tuple[int, ...]]] = []
    seen = set()
    for number in range(1, values.get("TFIELDS", 0) + 1):
        match = _COLUMN_FORMAT.match(str(values.get(f"TFORM{number}", "")))
        if match is None:
            raise InputError(
                path, f"column {number} of table {values.get('EXTNAME')} has no valid TFORM", "write the file again"
            )
        repeat, code = int(match.group(1) or 1), match.group(2)
        name = str(values.get(f"TTYPE{number}", f"col{number}"))
        if name in seen:
            name = f"{name}_{number}"
        seen.add(name)
        shape = _column_shape(values.get(f"TDIM{number}"), code)
        if code == "A":
            width = shape[-1] if shape else repeat
            shape = shape[:-1] if shape else ()
            stored.append((name, f"S{max(width, 1)}" if repeat else "S0", shape))
            meant.append((name, f"U{max(width, 1)}", shape))
            continue
        if code in "PQ":
            stored.append((name, ">i4" if code == "P" else ">i8", (2,)))
            meant.append((name, "i4" if code == "P" else "i8", (2,)))
            continue
        if code == "X":
            repeat = -(-repeat // 8)
        shape = shape or ((repeat,) if repeat != 1 else ())
        base = np.dtype(_COLUMN_CODES[code])
        stored.append((name, base, shape))
        zero, scale = values.get(f"TZERO{number}", 0), values.get(f"TSCAL{number}", 1)
        if code == "L":
            native: np.dtype = np.dtype(bool)
        elif scale == 1 and (8 * base.itemsize, zero) in _OFFSET_DTYPES and base.kind in "iu":
            native = np.dtype(_OFFSET_DTYPES[8 * base.itemsize, zero])
        elif (scale != 1 or zero != 0) and base.kind in "iu":
            native = np.dtype(float)
        else:
            native = base.newbyteorder("=")
        meant.append((name, native, shape))
    row = np.dtype(stored)
    width = values.get("NAXIS1", row.itemsize)
    if row.itemsize != width:
        raise InputError(
            path,
            f"rows of table {values.get('EXTNAME')} have {width} bytes, their columns {row.itemsize}",
            "write the file again",
        )
    units = {
        str(values[f"TTYPE{number}"]): values[f"TUNIT{number}"]
        for number in range(1, values.get("TFIELDS", 0) + 1)
        if f"TUNIT{number}" in values and f"TTYPE{number}" in values
    }
    dtype = np.dtype(meant)
    return row, np.dtype(dtype, metadata={"units": units}) if units else dtype


def _column_shape(tdim: Any, code: str) -> tuple[int, ...]:
    if not isinstance(tdim, str):
        return ()
    return tuple(int(size) for size in reversed(re.findall(r"\d+", tdim)))


def _decode_table(raw: np.ndarray, header: Header, dtype: np.dtype) -> np.ndarray:
    out = np.empty(raw.shape, dtype)
    for number, name in enumerate(dtype.names or (), 1):
        column, target = raw[name], out[name]
        if target.dtype.kind == "b":
            target[...] = column == b"T"
        elif target.dtype.kind == "U":
            target[...] = np.char.rstrip(np.char.decode(column, "ascii", "replace"))
        elif target.dtype.kind == "u" and column.dtype.kind == "i":
            target[...] = column.astype(column.dtype.newbyteorder("=")).view(target.dtype.base) ^ target.dtype.type(
                1 << (8 * target.dtype.itemsize - 1)
            )
        else:
            target[...] = column
            scale, zero = header.get(f"TSCAL{number}", 1), header.get(f"TZERO{number}", 0)
            if target.dtype.kind == "f" and (scale != 1 or zero != 0):
                target *= scale
                target += zero
            elif target.dtype == np.int8:
                target[...] = (column.astype(int) + zero).astype(np.int8)
    return out


class _Source:
    """Byte ranges of a local file or of a URL. Opens, reads and closes: nothing to leak, nothing to pickle."""

    def __init__(self, path: str, storage_options: dict[str, Any] | None = None) -> None:
        self.path = path
        self.remote = is_url(path)
        if self.remote:
            self.filesystem, self.key = file_system(path, storage_options)

    def size(self) -> int:
        if self.remote:
            return retried(self._remote_size, self.path)
        try:
            return os.stat(self.path).st_size
        except OSError as error:
            raise self._error(error) from error

    def _remote_size(self) -> int:
        info = self.filesystem.info(self.key)
        if info.get("type") == "directory":
            raise IsADirectoryError(self.path)
        if info.get("size") is None:
            raise InputError(self.path, "the server does not tell the size of the file", "download it first")
        return int(info["size"])

    def bytes(self, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        data = bytearray(length)
        self.read_into([offset], length, memoryview(data))
        return bytes(data)

    def read_into(self, offsets: list[int], length: int, target: memoryview) -> None:
        """Fill `target` with the ranges [offset, offset + length), one after the other."""
        if self.remote:
            # Ranges are asked for side by side; those of many planes by and by, so that they are not held twice.
            together = max(_TOGETHER // length, 1)
            for first in range(0, len(offsets), together):
                self._fetch(offsets[first : first + together], length, target[first * length :])
            return
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise self._error(error) from error
        try:
            for number, offset in enumerate(offsets):
                position, stop = number * length, (number + 1) * length
                while position < stop:
                    count = os.preadv(descriptor, [target[position:stop]], offset)
                    if count == 0:
                        raise _truncated(
                            self.path, f"it ends at byte {offset} and has become shorter since it was opened"
                        )
                    position += count
                    offset += count
        except OSError as error:
            raise self._error(error) from error
        finally:
            os.close(descriptor)

    def _fetch(self, offsets: list[int], length: int, target: memoryview) -> None:
        pieces = retried(
            lambda: self.filesystem.cat_ranges(
                [self.key] * len(offsets), offsets, [offset + length for offset in offsets], on_error="raise"
            ),
            self.path,
        )
        for number, piece in enumerate(pieces):
            if len(piece) > length:
                raise InputError(self.path, "the server sends whole files, not parts of them", "download it first")
            if len(piece) != length:
                raise _truncated(self.path, f"{len(piece)} bytes came where {length} were asked for")
            target[number * length : (number + 1) * length] = piece

    def _error(self, error: Exception) -> InputError:
        if isinstance(error, FileNotFoundError):
            return InputError(self.path, "there is no such file", "check the path")
        if isinstance(error, IsADirectoryError):
            return InputError(self.path, "this is a folder", "give a FITS file")
        if isinstance(error, PermissionError):
            return InputError(self.path, "reading is not permitted", "check the permissions")
        return InputError(self.path, f"reading failed ({error})", "check the disk or the network and try again")
