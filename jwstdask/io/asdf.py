"""Reading and writing ASDF files, one at a time in a process.

The validators of the `asdf` library, which also decide the order and the style in which a tree is written, remember by
address what they have seen until no thread validates any more. So two threads at once could skip new objects that lie
where others lay.
"""

from __future__ import annotations

import functools
import importlib.metadata
import io
import math
import os
import re
import struct
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from jwstdask.io.temporary import replacing

_ONE_AT_A_TIME = threading.RLock()


def read_tree(source: str | os.PathLike[str] | IO[bytes]) -> dict[str, Any]:
    """The tree of an ASDF file, all arrays in memory: they outlive the file.

    Raises
    ------
    Exception
        Of the library, of YAML, or of the objects in the tree: they have no common base class.
    """
    if isinstance(source, (str, os.PathLike)):
        found = _plain_tree(Path(source).read_bytes())
        if found is not None:
            return found
    import asdf

    with _ONE_AT_A_TIME, asdf.open(source, lazy_load=False, memmap=False) as file:
        return file.tree


def _plain_tree(content: bytes) -> dict[str, Any] | None:
    """The tree of a file that holds plain values and arrays only; None if it holds others or is damaged.

    The library would import every package that has objects for such files, `stdatamodels` and `gwcs` among them: 67 MB
    and two seconds.
    """
    text, end, rest = content.partition(b"\n...")
    if not end or _OTHER_TAG.search(text):
        return None
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    def tagged(loader: Any, suffix: str, node: Any) -> Any:
        name, _, _ = suffix.removeprefix(f"{_TAG}core/").rpartition("-")
        if not isinstance(node, yaml.MappingNode) or name not in _PLAIN:
            raise yaml.YAMLError(suffix)
        found = loader.construct_mapping(node, deep=True)
        return _array(found, blocks) if name == "ndarray" else found

    Loader.add_multi_constructor("", tagged)
    try:
        blocks = _blocks(rest)
        found = yaml.load(text.decode(), Loader)
    except (yaml.YAMLError, LookupError, TypeError, ValueError, struct.error):
        return None
    return found if isinstance(found, dict) else None


_PLAIN = ("asdf", "extension_metadata", "history_entry", "ndarray", "software")
_OTHER_TAG = re.compile(rb"[\s\[{,]!(?!core/(asdf|extension_metadata|history_entry|ndarray|software)-)\S")
_BLOCK_MAGIC = b"\xd3BLK"
_BLOCK_HEADER = struct.Struct(">I4sQQQ16s")  # flags, compression, bytes allocated, used and uncompressed, checksum


def _blocks(content: bytes) -> list[memoryview]:
    """Data of the blocks that follow the tree of a file.

    Raises
    ------
    ValueError, struct.error
        If one is incomplete, compressed, or without an end.
    """
    blocks = []
    place = content.find(_BLOCK_MAGIC)
    while content[place : place + 4] == _BLOCK_MAGIC and place >= 0:
        (size,) = struct.unpack(">H", content[place + 4 : place + 6])
        if size < _BLOCK_HEADER.size:
            raise ValueError("a block has no header")
        flags, compression, allocated, used, _, _ = _BLOCK_HEADER.unpack_from(content, place + 6)
        start = place + 6 + size
        if flags or compression != bytes(4) or start + used > len(content):
            raise ValueError("a block is compressed, incomplete, or without an end")
        blocks.append(memoryview(content)[start : start + used])
        place = start + allocated
    return blocks


def _array(node: Mapping[str, Any], blocks: Sequence[memoryview]) -> np.ndarray:
    """The array that a node stands for.

    Raises
    ------
    LookupError, TypeError, ValueError
        If it is none of plain numbers in successive places of a block.
    """
    dtype = np.dtype(_NUMBERS[node["datatype"]])
    if node.keys() - {"data", "source", "datatype", "byteorder", "shape", "offset"}:
        raise ValueError("the array has holes, or a mask")
    if "data" in node:
        found = np.array(node["data"])
        if found.dtype.kind not in "biuf":
            raise ValueError("the array has values that are no numbers")
        return found.astype(dtype).reshape(node["shape"])
    stored = dtype.newbyteorder(node["byteorder"])
    shape = tuple(node["shape"])
    # Sources that are negative count from the end.
    return np.frombuffer(blocks[node["source"]], stored, math.prod(shape), node.get("offset", 0)).reshape(shape).copy()


_NUMBERS = {name: name for name in ("int8", "uint8", "float16", "float32", "float64", "complex64", "complex128")}
_NUMBERS |= {f"{kind}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (16, 32, 64)} | {"bool8": "bool"}


def write_tree(tree: Mapping[str, Any], target: str | os.PathLike[str] | IO[bytes]) -> None:
    """Write a tree into an open file, or to a path, where it appears when it is complete.

    Raises
    ------
    OSError
        If it cannot be written.
    Exception
        Of the library, if something in the tree cannot be in an ASDF file.
    """
    import asdf

    class Ordered(asdf.AsdfFile):
        """The library lists the extensions that it used in the order of a set, another one in each process."""

        def _update_extension_history(self, tree: Any, *arguments: Any) -> None:
            super()._update_extension_history(tree, *arguments)
            tree["history"]["extensions"].sort(key=lambda item: (str(item.get("extension_uri")), str(dict(item))))

    if isinstance(target, (str, os.PathLike)):
        with replacing(target) as temporary, open(temporary, "wb") as file:
            write_tree(tree, file)
        return
    with _ONE_AT_A_TIME:
        Ordered(dict(tree)).write_to(target)


def tree_bytes(tree: Mapping[str, Any]) -> bytes:
    """The file that `write_tree` writes.

    Raises
    ------
    Exception
        As for `write_tree`.
    """
    if not _is_plain(tree):
        buffer = io.BytesIO()
        write_tree(tree, buffer)
        return buffer.getvalue()
    import asdf
    import yaml
    from asdf.tagged import TaggedDict
    from asdf.yamlutil import AsdfDumper

    top = TaggedDict({**_library(), **tree}, f"{_TAG}core/asdf-1.1.0")
    top.property_order = ["asdf_library", "history"]
    text = yaml.dump(
        top,
        Dumper=AsdfDumper,
        explicit_start=True,
        explicit_end=True,
        version=(1, 1),
        allow_unicode=True,
        encoding="utf-8",
        tags={"!": _TAG},
    )
    return f"#ASDF 1.0.0\n#ASDF_STANDARD {asdf.get_config().default_version}\n".encode() + text


def array_link(name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """What stands in a tree for an array that is elsewhere, such as in an HDU."""
    from asdf.tagged import TaggedDict
    from asdf.tags.core.ndarray import numpy_dtype_to_asdf_datatype

    datatype, byteorder = numpy_dtype_to_asdf_datatype(dtype, include_byteorder=True, override_byteorder="big")
    node = TaggedDict(
        {"source": name, "datatype": datatype, "byteorder": byteorder, "shape": list(shape)},
        f"{_TAG}core/ndarray-1.1.0",
    )
    node.property_order = list(node)
    return node


@functools.cache
def _library() -> dict[str, Any]:
    """What the library says of itself in a file for which it needs no extension but its own."""
    import asdf
    from asdf.tagged import TaggedDict

    def software(name: str, **more: str) -> Any:
        facts = {"name": name, "version": importlib.metadata.version(name), **more}
        return TaggedDict(facts, f"{_TAG}core/software-1.0.0")

    extension = {
        "extension_class": "asdf.extension._manifest.ManifestExtension",
        "extension_uri": f"asdf://asdf-format.org/core/extensions/core-{asdf.get_config().default_version}",
        "manifest_software": software("asdf_standard"),
        "software": software("asdf"),
    }
    own = {"author": "The ASDF Developers", "homepage": "http://github.com/asdf-format/asdf"}
    return {
        "asdf_library": software("asdf", **own),
        "history": {"extensions": [TaggedDict(extension, f"{_TAG}core/extension_metadata-1.0.0")]},
    }


_TAG = "tag:stsci.edu:asdf/"


def _is_plain(node: Any) -> bool:
    """True if the library would write a tree as it is."""
    kind = type(node)
    if kind is dict:
        return all(type(key) is str and _is_plain(value) for key, value in node.items())
    if kind is list:
        return all(_is_plain(value) for value in node)
    if kind is int:
        return abs(node) < 1 << 62
    return kind in (str, float, bool, type(None)) or kind.__name__ == "TaggedDict"
