"""The HDUs of a product: headers, tables and where the pixels of each array lie.

Headers, HDU order, dtypes and the ASDF extension are those that `stdatamodels` writes for the same metadata, so that
every product opens and validates there and in `jwst`.
"""

from __future__ import annotations

import datetime
import functools
import io
import logging
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jwstdask.io.asdf import array_link, tree_bytes
from jwstdask.io.header import BLOCK, card_text, commentary_text, header_bytes, is_structural, title_text
from jwstdask.io.metadata import EXTRA, nest
from jwstdask.io.schema import ModelSchema, Node, numpy_dtype

log = logging.getLogger(__name__)

# dtype -> (BITPIX, stored dtype, BZERO): FITS has no unsigned integers but bytes and no signed bytes.
STORED = {
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
ArrayKey = str | tuple[str, int]
"""Name of an array, or name and EXTVER."""


@dataclass(frozen=True)
class Place:
    """Where an image stands in a product."""

    offset: int
    shape: tuple[int, ...]
    dtype: str


def array_key(name: ArrayKey) -> tuple[str, int]:
    """Name of an array in lower case, and its EXTVER."""
    return (name.lower(), 1) if isinstance(name, str) else (name[0].lower(), int(name[1]))


@dataclass
class Hdu:
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
        bitpix, _, bzero = STORED[self.dtype] if self.dtype is not None else (8, "u1", None)
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
class HduLayout:
    headers: list[bytes]
    pieces: list[tuple[int, bytes]]
    places: dict[tuple[str, int], Place]
    end: int


def lay_out(plan: HduPlan) -> HduLayout:
    """Where each header and each image comes to stand."""
    layout = HduLayout([], [], {}, 0)
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


class ArrayLink:
    """Stands in the tree where an array or table stands in the file."""

    __slots__ = ("dtype", "name", "shape", "source", "table")

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any, table: np.ndarray | None) -> None:
        self.name, self.shape, self.dtype, self.table = name, shape, dtype, table
        self.source = ""


class HduPlan:
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
        self.hdus = [Hdu("PRIMARY")]
        self._by_name: dict[tuple[str, int], Hdu] = {("PRIMARY", 1): self.hdus[0]}
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
        self.asdf_tree = linked(tree)
        if entries:
            self.asdf_tree["history"] = {"entries": entries}

    def _place_arrays(
        self, schema: ModelSchema, tree: dict, arrays: Mapping, tables: Mapping
    ) -> dict[tuple[str, int], ArrayLink]:
        """Put links into the tree; return those that the schema does not know."""
        unknown: dict[tuple[str, int], ArrayLink] = {}
        links = {key: ArrayLink(key[0], shape, dtype, None) for key, (shape, dtype) in arrays.items()}
        links.update({key: ArrayLink(key[0], np.shape(rows), None, np.asarray(rows)) for key, rows in tables.items()})
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
            elif isinstance(value, ArrayLink):
                self._write_array(child, value, version)
            elif child.items is not None and isinstance(value, list):
                for number, entry in enumerate(value):
                    if isinstance(entry, dict):
                        self._walk(child.items, entry, number + 1, f"{here}.{number}")
            elif child.properties and isinstance(value, dict):
                self._walk(child, value, version, here)
        if node.title is not None and titled:
            titled.pop()

    def _hdu(self, name: str | None, version: int | None) -> Hdu:
        """The HDU with this name, made if need be; in a list of slits with the slit's EXTVER."""
        name = (name or "PRIMARY").upper()
        key = (name, 1 if name == "PRIMARY" else version or 1)
        hdu = self._by_name.get(key)
        if hdu is None:
            hdu = self._new_hdu(key)
            if version is not None:
                hdu.set_version(version)
        return hdu

    def _new_hdu(self, key: tuple[str, int]) -> Hdu:
        hdu = self._by_name[key] = Hdu(key[0])
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

    def _write_array(self, node: Node, link: ArrayLink, version: int | None) -> None:
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
            table.structure, table.table, table.table_dtype = table_hdu(data, node.hdu)
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
        self, extra: Mapping[str, Any], unknown: Mapping[tuple[str, int], ArrayLink], arrays: Mapping, tree: dict
    ) -> None:
        for (name, _version), link in unknown.items():
            hdu = self._hdu(name, None)
            if link.table is not None:
                hdu.structure, hdu.table, hdu.table_dtype = table_hdu(np.asarray(link.table), name.upper())
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


def table_hdu(rows: np.ndarray, name: str) -> tuple[tuple[str, ...], bytes, np.dtype]:
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
    # Given later than at once, so that astropy.table is not imported to see that it is none: 7 MB.
    hdu = fits.BinTableHDU(name=name)
    hdu.data = fits.FITS_rec.from_columns(fits.ColDefs(rows))
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


def linked(tree: Any) -> Any:
    """The tree with plain dicts in place of links."""
    if isinstance(tree, ArrayLink):
        return array_link(tree.source, tree.shape, np.dtype(tree.dtype))
    if isinstance(tree, dict):
        return {key: linked(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [linked(value) for value in tree]
    return tree


def asdf_bytes(tree: dict[str, Any]) -> bytes:
    """The ASDF file with this tree, as the `asdf` library writes it."""
    if "history" in tree:
        from asdf.tags.core import HistoryEntry

        tree = {**tree, "history": {"entries": [HistoryEntry(entry) for entry in tree["history"]["entries"]]}}
    return tree_bytes(tree)
