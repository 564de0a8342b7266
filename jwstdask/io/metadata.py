"""Metadata of an exposure: a flat dict of jwst's dotted names.

FITS keywords come through the schema of the file's data model. What has no keyword (association type, background
levels, WCS, logs) stands in the ASDF extension, an ASDF file in a one-row table, and is read only when asked for.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jwstdask.core.errors import InputError
from jwstdask.io.asdf import read_tree
from jwstdask.io.header import header_bytes, is_structural
from jwstdask.io.layout import FitsLayout
from jwstdask.io.schema import ModelSchema, is_model, model_schema

EXTRA = "extra_fits"
_WCS_LINE = re.compile(r"^(?P<indent> +)wcs: [!&*]", re.MULTILINE)
_DEFAULT_MODELS = {4: "RampModel", 3: "CubeModel", 2: "ImageModel"}


def model_name(layout: FitsLayout) -> str:
    """Name of the data model of a file: DATAMODL, or guessed from the dimensions of SCI where that names no model."""
    model = layout.model
    if model is not None and is_model(model):
        return model
    if "SCI" in layout:
        science = layout.hdu("SCI")
        if science.dtype == "uint16":
            return "Level1bModel"
        return _DEFAULT_MODELS.get(science.ndim, "ImageModel")
    return "JwstDataModel"


def read_metadata(
    layout: FitsLayout, complete: bool = False, model: str | None = None, version: int | None = None
) -> dict[str, Any]:
    """Metadata of a file.

    Parameters
    ----------
    layout
        From `open_layout`.
    complete
        Also what only the ASDF extension holds (never the WCS: see `read_wcs`), and its values in full precision,
        unless keywords were edited since it was written. Takes some milliseconds more.
    model
        Data model whose schema names the keywords; the file's own (DATAMODL) by default.
    version
        Only for files with several slits or spectra: the metadata of the one with this EXTVER, with names relative to
        it.

    Returns
    -------
    dict
        Dotted name -> value, such as ``"meta.exposure.type": "NRC_IMAGE"``. Keywords that the schema does not know
        are under ``"extra_fits.<HDU>"`` as lists of [keyword, value, comment]; HISTORY cards under ``"history"`` as a
        list of texts, or of dicts with ``description`` and ``time`` where `complete`.
    """
    schema = model_schema(model or model_name(layout))
    if version is not None:
        return _item_metadata(layout, schema, version, complete)
    meta: dict[str, Any] = {}
    trusted = False
    if complete:
        tree = read_asdf_tree(layout)
        trusted = tree.pop(_HASH, None) == _headers_hash(layout)
        meta.update(flatten(tree))
    for key in [key for key in meta if key.split(".", 1)[0] == EXTRA]:
        del meta[key]
    known: set[tuple[int, str]] = set()
    tables = _headers(layout)
    for name, entry in schema.keywords.items():
        table = tables.get(entry.hdu)
        if table is not None and entry.keyword in table[1]:
            known.add((table[0], entry.keyword))
            value = table[1][entry.keyword]
            if value is not None and not trusted and not _same_number(meta.get(name), value):
                meta[name] = value
    _mark_item_keywords(layout, schema, known)
    meta.update(_extra_keywords(layout, known))
    # The ASDF extension keeps whole entries, the cards pieces of 72 characters.
    history = meta.get("history") or layout.header().commentary("HISTORY")
    if history:
        meta["history"] = history
    return meta


def _headers_hash(layout: FitsLayout) -> str:
    """What the ASDF extension remembers of the headers: as long as it is true, nobody has edited a keyword since."""
    digest = hashlib.sha256()
    for hdu in layout.hdus:
        if hdu.name != "ASDF":
            digest.update(header_bytes([layout.header_of(hdu).text]))
    return digest.hexdigest()


def _same_number(full: Any, card: Any) -> bool:
    """True where the ASDF extension holds the same number with the digits that do not fit on a card."""
    return isinstance(full, float) and isinstance(card, float) and math.isclose(full, card, rel_tol=1e-13)


def _headers(layout: FitsLayout) -> dict[str, tuple[int, dict[str, Any]]]:
    headers: dict[str, tuple[int, dict[str, Any]]] = {}
    for hdu in layout.hdus:
        if hdu.name not in headers and hdu.version == 1:
            headers[hdu.name] = (hdu.index, layout.header_of(hdu).values)
    return headers


def _mark_item_keywords(layout: FitsLayout, schema: ModelSchema, known: set[tuple[int, str]]) -> None:
    """Keywords of slits and spectra belong to their entries, not to the unknown ones."""
    pairs = {(entry.hdu, entry.keyword) for entry in schema.item_keywords.values()}
    if not pairs:
        return
    for hdu in layout.hdus:
        for keyword in layout.header_of(hdu).values:
            if (hdu.name, keyword) in pairs:
                known.add((hdu.index, keyword))


def _extra_keywords(layout: FitsLayout, known: set[tuple[int, str]]) -> dict[str, list]:
    extra: dict[str, list] = {}
    for hdu in layout.hdus:
        if hdu.name == "ASDF":
            continue
        for keyword, value, comment in layout.header_of(hdu).cards:
            if (hdu.index, keyword) not in known and not is_structural(keyword):
                extra.setdefault(f"{EXTRA}.{hdu.name}", []).append([keyword, value, comment])
    return extra


def _item_metadata(layout: FitsLayout, schema: ModelSchema, version: int, complete: bool) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    if complete and schema.list_name is not None:
        entries = read_asdf_tree(layout).get(schema.list_name, [])
        if len(entries) >= version and isinstance(entries[version - 1], Mapping):
            meta.update(flatten(entries[version - 1]))
    headers = {hdu.name: layout.header_of(hdu).values for hdu in layout.hdus if hdu.version == version}
    for name, entry in schema.item_keywords.items():
        value = headers.get(entry.hdu, {}).get(entry.keyword)
        if value is not None:
            meta[name] = value
    return meta


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts to dotted names. Lists stay lists; links to arrays of the FITS file are left out."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not isinstance(value, _Tagged):
            flat.update(flatten(value, f"{name}."))
        elif value is not None and not isinstance(value, _Tagged):
            flat[name] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names to nested dicts, the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        node = tree
        *parents, last = name.split(".")
        for parent in parents:
            child = node.get(parent)
            if not isinstance(child, dict):
                child = node[parent] = {}
            node = child
        node[last] = value
    return tree


def asdf_bytes(layout: FitsLayout) -> bytes | None:
    """The ASDF file inside the FITS file, None where there is none."""
    if "ASDF" not in layout:
        return None
    return layout.bytes("ASDF")


class _Tagged(dict):
    """A YAML node with a tag that is not read here (array link, transform, software)."""


def read_asdf_tree(layout: FitsLayout) -> dict[str, Any]:
    """Tree of the ASDF extension without its WCS and without links to arrays, as plain dicts, lists and scalars; with
    ``_fits_hash``.

    The text is parsed without the `asdf` library, whose import alone takes 0.3 s; a tree with arrays of its own goes
    through the library.
    """
    raw = asdf_bytes(layout)
    if raw is None:
        return {}
    head, separator, blocks = raw.partition(b"\n...")
    text = head.decode("utf-8", "replace")
    try:
        if separator and b"\xd3BLK" in blocks:
            # Arrays in ASDF blocks may belong to the WCS only: then they vanish with it.
            without = _without_wcs(text)
            if re.search(r"^\s*source: \d+", without, re.MULTILINE) or "{source:" in without:
                return _plain(_asdf_tree(layout, raw))
            return _plain(_load_yaml(without))
        return _plain(_load_yaml(_without_wcs(text)))
    except Exception:  # an anchor inside the WCS, say: the library reads whatever is legal
        return _plain(_asdf_tree(layout, raw))


def has_wcs(layout: FitsLayout) -> bool:
    """True if the file has a gwcs object, found without restoring it."""
    raw = asdf_bytes(layout)
    return raw is not None and re.search(rb"\bwcs: [!&*]", raw.partition(b"\n...")[0]) is not None


def read_wcs(layout: FitsLayout, version: int | None = None) -> Any | None:
    """The gwcs object of an exposure, None where it has none.

    Parameters
    ----------
    layout
        From `open_layout`.
    version
        Only for files with several slits: the WCS of the one with this EXTVER.

    Returns
    -------
    gwcs.WCS or None
    """
    raw = asdf_bytes(layout) if has_wcs(layout) else None
    if raw is None:
        return None
    tree = _asdf_tree(layout, raw)
    if version is not None:
        name = model_schema(model_name(layout)).list_name
        entries = tree.get(name, []) if name else []
        tree = entries[version - 1] if len(entries) >= version else {}
    wcs = tree.get("meta", {}).get("wcs")
    return wcs


_FITS_LINK = re.compile(rb"!core/ndarray-[\d.]+(?=\s*\{?\s*source: ['\"]?fits:)")


def _asdf_tree(layout: FitsLayout, raw: bytes) -> dict[str, Any]:
    """The tree of the ASDF extension.

    Links to HDUs lose their tag (blanks keep the offsets of the blocks right): they must not be followed.
    """
    head, separator, blocks = raw.partition(b"\n...")
    head = _FITS_LINK.sub(lambda match: b" " * len(match.group()), head)
    try:
        return read_tree(io.BytesIO(head + separator + blocks))
    except Exception as error:
        raise InputError(
            layout.path,
            f"its ASDF extension cannot be read ({error})",
            "install the packages that wrote the file, or write it again",
        ) from error


def _without_wcs(text: str) -> str:
    """Cut the block under each `wcs:` key out of the YAML text: nine tenths of it, and nothing that plain metadata
    needs."""
    pieces, position = [], 0
    for match in _WCS_LINE.finditer(text):
        if match.start() < position:
            continue
        pieces.append(text[position : match.start()])
        indent = len(match.group("indent"))
        following = re.compile(rf"^(?: {{0,{indent}}})[^\s]", re.MULTILINE).search(
            text, text.find("\n", match.end()) + 1
        )
        position = following.start() if following is not None else len(text)
    pieces.append(text[position:])
    return "".join(pieces)


def _load_yaml(text: str) -> dict[str, Any]:
    import yaml

    loader = _yaml_loader()
    lines = text.split("\n")
    # The "#ASDF" comment lines and the %YAML and %TAG directives are legal YAML.
    return yaml.load("\n".join(lines), Loader=loader) or {}


_LOADER: Any = None


def _yaml_loader() -> Any:
    global _LOADER
    if _LOADER is None:
        import yaml

        class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
            pass

        def tagged(loader: Any, suffix: str, node: Any) -> Any:
            if isinstance(node, yaml.MappingNode):
                return _Tagged(loader.construct_mapping(node, deep=True))
            if isinstance(node, yaml.SequenceNode):
                return _Tagged()
            return loader.construct_scalar(node)

        Loader.add_multi_constructor("", tagged)
        # Dates stay text, as in the FITS header.
        Loader.yaml_implicit_resolvers = {
            key: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for key, resolvers in Loader.yaml_implicit_resolvers.items()
        }
        _LOADER = Loader
    return _LOADER


_HASH = "_fits_hash"
_NOT_META = ("asdf_library", "history")


def _plain(tree: Mapping[str, Any]) -> dict[str, Any]:
    result = {}
    for key, value in tree.items():
        cleaned = _history(value) if key == "history" else _DROP if key in _NOT_META else _clean(value)
        if cleaned is not _DROP:
            result[str(key)] = cleaned
    return result


def _history(value: Any) -> Any:
    entries = value.get("entries", []) if isinstance(value, Mapping) else value
    kept = [
        {key: part for key, part in entry.items() if not isinstance(part, Mapping | list)}
        for entry in entries or []
        if isinstance(entry, Mapping) and "description" in entry
    ]
    return kept or _DROP


_DROP = object()


def _clean(value: Any) -> Any:
    if isinstance(value, _Tagged) or value is None:
        return _DROP
    if isinstance(value, Mapping):
        if "source" in value and "datatype" in value:
            return _DROP
        pairs = ((str(key), _clean(child)) for key, child in value.items() if key != "wcs")
        return {key: child for key, child in pairs if child is not _DROP}
    if isinstance(value, list | tuple):
        return [child for child in map(_clean, value) if child is not _DROP]
    if isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "__array__"):
        import numpy as np

        source = getattr(value, "_source", None)
        return _DROP if isinstance(source, str) else np.asarray(value)
    return value


def keyword_names(model: str, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Dotted name -> (HDU, keyword) for those of `names` that have a keyword in `model`."""
    keywords = model_schema(model).keywords
    return {name: (keywords[name].hdu, keywords[name].keyword) for name in names if name in keywords}
