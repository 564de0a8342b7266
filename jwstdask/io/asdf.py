"""Reading and writing ASDF files, one at a time in a process.

The validators of the `asdf` library, which also decide the order and the style in which a tree is written, remember by
address what they have seen until no thread validates any more. So two threads at once could skip new objects that lie
where others lay.
"""

from __future__ import annotations

import functools
import importlib.metadata
import io
import os
import threading
from collections.abc import Mapping
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
    import asdf

    with _ONE_AT_A_TIME, asdf.open(source, lazy_load=False, memmap=False) as file:
        return file.tree


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
