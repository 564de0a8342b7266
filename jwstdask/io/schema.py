"""Keyword and HDU tables of the data models, read at run time from the schemas that `stdatamodels` installs.

The YAML files are read directly (about 20 ms for the core schema) because importing `stdatamodels.jwst.datamodels`
costs 0.7 s. `$ref` and `allOf` are resolved here; properties of the parts of an `allOf` are merged in the order of
first appearance, which is the order of keywords and HDUs in a product.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from jwstdask.core.errors import JwstdaskError

_CLASS = re.compile(r"^class\s+(\w+)\s*\(([^)]*)\)\s*:", re.MULTILINE)
_SCHEMA_URL = re.compile(r"^    schema_url\s*=\s*[\"'](?:[^\"']*/)?([\w.-]+)[\"']", re.MULTILINE)
_UNSET = ("N/A", "#TODO", "", None)


@dataclass(slots=True)
class Node:
    """One place of a model's tree: an object with properties, a list, a keyword, an image or a table."""

    name: str = ""
    title: str | None = None
    description: str | None = None
    type: str | None = None
    keyword: str | None = None
    hdu: str | None = None
    enum: tuple | None = None
    alternatives: tuple | None = None
    pattern: str | None = None
    default: Any = None
    datatype: Any = None
    ndim: int | None = None
    max_ndim: int | None = None
    tag: str | None = None
    extra_columns: bool = False
    properties: dict[str, Node] = field(default_factory=dict)
    items: Node | None = None

    @property
    def is_array(self) -> bool:
        """True for an image or table that has an HDU of its own."""
        return (
            self.hdu is not None
            and self.keyword is None
            and (self.datatype is not None or self.ndim is not None or self.max_ndim is not None)
        )

    @property
    def comment(self) -> str:
        """Comment of the keyword's card: first line of the title, else of the description."""
        return (self.title if self.title is not None else self.description or "").partition("\n")[0]

    def problem(self, value: Any) -> str | None:
        """Why a keyword's value is not allowed here; None if it is."""
        if not (value in _UNSET if isinstance(value, str) or value is None else False) and self.type is not None:
            expected = self.type
            if not (
                (expected == "string" and isinstance(value, str))
                or (expected == "boolean" and isinstance(value, bool))
                or (expected == "integer" and isinstance(value, int) and not isinstance(value, bool))
                or (expected == "number" and isinstance(value, int | float) and not isinstance(value, bool))
                or expected not in ("string", "boolean", "integer", "number")
            ):
                return f"{value!r} is not of type {expected}"
        if self.enum is not None and value not in self.enum:
            return (
                f"{value!r} is not one of {', '.join(map(str, self.enum[:8]))}{', ...' if len(self.enum) > 8 else ''}"
            )
        if self.alternatives is not None and value not in self.alternatives:
            return f"{value!r} is not one of the {len(self.alternatives)} values allowed"
        if self.pattern is not None and isinstance(value, str) and re.search(self.pattern, value) is None:
            return f"{value!r} does not match {self.pattern}"
        return None


@dataclass(frozen=True, slots=True)
class Keyword:
    """A metadata entry that has a FITS keyword.

    `name` is dotted; inside a list of slits it is relative to the slit. `hdu` is in upper case.
    """

    name: str
    hdu: str
    keyword: str
    type: str | None
    enum: tuple | None
    comment: str
    node: Node


@dataclass(frozen=True, slots=True)
class Array:
    """An image or table. `attribute` is the name in the data model's tree, `name` the lower-case HDU name used by
    this package."""

    attribute: str
    name: str
    hdu: str
    dtype: np.dtype | None
    ndim: int | None
    max_ndim: int | None
    default: Any
    node: Node

    @property
    def is_table(self) -> bool:
        return self.dtype is not None and self.dtype.names is not None


class ModelSchema:
    """Layout of one data model.

    Attributes
    ----------
    model : str
        Class name, such as ``ImageModel``.
    root : Node
        The tree.
    keywords : dict of str to Keyword
        By dotted name, in the order of the product.
    arrays : dict of str to Array
        By lower-case HDU name.
    list_name : str or None
        Name of the list whose entries have HDUs of their own (``slits``, ``spec``, ``exposures``).
    item_keywords, item_arrays
        The same tables for one entry of that list.
    """

    def __init__(self, model: str, root: Node) -> None:
        self.model = model
        self.root = root
        self.keywords: dict[str, Keyword] = {}
        self.arrays: dict[str, Array] = {}
        self.item_keywords: dict[str, Keyword] = {}
        self.item_arrays: dict[str, Array] = {}
        self.list_name: str | None = None
        self._collect(root, (), self.keywords, self.arrays)
        for name, node in root.properties.items():
            if node.items is not None and any(child.hdu for child in _walk(node.items)):
                self.list_name = self.list_name or name
                if name == self.list_name:
                    self._collect(node.items, (), self.item_keywords, self.item_arrays)

    def _collect(self, node: Node, path: tuple[str, ...], keywords: dict, arrays: dict) -> None:
        if node.keyword is not None:
            name = ".".join(path)
            keywords[name] = Keyword(
                name, (node.hdu or "PRIMARY").upper(), node.keyword, node.type, node.enum, node.comment, node
            )
        elif node.is_array:
            assert node.hdu is not None
            dtype = None if node.datatype is None else numpy_dtype(node.datatype)
            arrays[node.hdu.lower()] = Array(
                ".".join(path), node.hdu.lower(), node.hdu, dtype, node.ndim, node.max_ndim, node.default, node
            )
        for name, child in node.properties.items():
            self._collect(child, (*path, name), keywords, arrays)

    def by_keyword(self) -> dict[tuple[str, str], str]:
        """(HDU name, keyword) -> dotted name."""
        return {(entry.hdu, entry.keyword): name for name, entry in self.keywords.items()}

    def __repr__(self) -> str:
        return f"ModelSchema({self.model!r}, {len(self.keywords)} keywords, {len(self.arrays)} arrays)"


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.properties.values():
        yield from _walk(child)
    if node.items is not None:
        yield from _walk(node.items)


@cache
def model_schema(model: str) -> ModelSchema:
    """Layout of a data model class.

    Parameters
    ----------
    model
        Class name, such as ``ImageModel`` (keyword DATAMODL).

    Raises
    ------
    JwstdaskError
        If `stdatamodels` has no such model.
    """
    files = model_files()
    if model not in files:
        raise JwstdaskError(
            f"no data model is called {model}", "DATAMODL must name a class of stdatamodels.jwst.datamodels"
        )
    root = Node()
    _merge(_document(files[model]), files[model], root)
    return ModelSchema(model, root)


def is_model(model: object) -> bool:
    """True if `stdatamodels` has a data model of this name."""
    return isinstance(model, str) and model in model_files()


@lru_cache(maxsize=1)
def model_files() -> dict[str, str]:
    """Class name -> schema name (without .yaml), found in the source of `stdatamodels` without importing it."""
    bases: dict[str, str] = {}
    urls: dict[str, str] = {}
    for path in _datamodels_folder().glob("*.py"):
        source = path.read_text(encoding="utf-8")
        classes = list(_CLASS.finditer(source))
        for match, following in zip(classes, [*classes[1:], None]):
            body = source[match.end() : following.start() if following else len(source)]
            bases[match.group(1)] = match.group(2).split(",")[0].strip()
            url = _SCHEMA_URL.search(body)
            if url is not None:
                urls[match.group(1)] = url.group(1)
    files = {}
    for name in bases:
        parent = name
        while parent not in urls and parent in bases:
            parent = bases[parent]
        if parent in urls:
            files[name] = urls[parent]
    return files


@lru_cache(maxsize=1)
def _datamodels_folder() -> Path:
    spec = find_spec("stdatamodels")
    if spec is None or spec.origin is None:
        raise JwstdaskError("stdatamodels is not installed", "pip install stdatamodels")
    return Path(spec.origin).parent / "jwst" / "datamodels"


@cache
def _document(name: str) -> dict:
    import yaml

    path = _datamodels_folder() / "schemas" / f"{name}.yaml"
    with path.open("rb") as stream:
        return yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _resolve(schema: dict, document: str) -> tuple[dict, str]:
    """Follow `$ref`. References outside the data-model schemas (units, transforms) describe no keyword: an empty
    schema."""
    while "$ref" in schema:
        target, _, pointer = schema["$ref"].partition("#")
        if target:
            stem = target.rsplit("/", 1)[-1]
            if not (_datamodels_folder() / "schemas" / f"{stem}.yaml").exists() or (
                "/" in target and "jwst_datamodel" not in target
            ):
                return {}, document
            document = stem
        schema = _document(document)
        for part in filter(None, pointer.split("/")):
            schema = schema[part]
    return schema, document


def _merge(schema: dict, document: str, node: Node) -> None:
    schema, document = _resolve(schema, document)
    for key in ("title", "description", "type", "pattern", "default", "datatype", "ndim", "max_ndim", "tag"):
        if key in schema:
            setattr(node, key, schema[key])
    if "fits_keyword" in schema:
        node.keyword = schema["fits_keyword"]
    if "fits_hdu" in schema:
        node.hdu = schema["fits_hdu"]
    node.extra_columns = schema.get("allow_extra_columns", node.extra_columns)
    if "enum" in schema:
        node.enum = tuple(schema["enum"])
    branches = [_resolve(branch, document) for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ()))]
    if branches:
        if all("enum" in branch for branch, _ in branches):
            node.alternatives = tuple(value for branch, _ in branches for value in branch["enum"])
        elif node.hdu is not None:
            # Old and new columns of one table: the last branch is the present one, an old table stays as it is.
            node.datatype = branches[-1][0].get("datatype", node.datatype)
            node.extra_columns = True
    for part in schema.get("allOf", ()):
        _merge(part, document, node)
    if schema.get("type") == "object":
        for name, child in schema.get("properties", {}).items():
            _merge(child, document, node.properties.setdefault(name, Node(name)))
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict) and schema["items"]:
        if node.items is None:
            node.items = Node()
        _merge(schema["items"], document, node.items)


def numpy_dtype(datatype: Any) -> np.dtype:
    """NumPy dtype (native byte order) of a schema's datatype: a name, ["ascii", n], or a list of columns."""
    if isinstance(datatype, str):
        return np.dtype({"bool8": "bool"}.get(datatype, datatype))
    if isinstance(datatype, list) and len(datatype) == 2 and datatype[0] in ("ascii", "ucs4"):
        return np.dtype(f"{'S' if datatype[0] == 'ascii' else 'U'}{datatype[1]}")
    columns = []
    for number, column in enumerate(datatype):
        if isinstance(column, dict):
            shape = column.get("shape")
            columns.append(
                (
                    column.get("name", f"f{number}"),
                    numpy_dtype(column["datatype"]),
                    *((tuple(shape) if isinstance(shape, list) else (shape,),) if shape is not None else ()),
                )
            )
        else:
            columns.append((f"f{number}", numpy_dtype(column)))
    return np.dtype(columns)
