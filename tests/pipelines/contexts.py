"""A newer context of a synthetic CRDS cache: other references from some date on."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jwstdask.simulate import Cache

NEW = "9876"


def copied(cache: Cache, folder: Path) -> Cache:
    """The cache in a folder of its own."""
    shutil.copytree(cache.path, folder)
    return replace(cache, path=folder)


def newer_context(cache: Cache, useafter: Mapping[str, str]) -> str:
    """Write a context into a cache, which has a reference of some types from a time on.

    Parameters
    ----------
    cache
        Changed in place.
    useafter
        Type of the reference to the time (``2023-07-15 03:21:40``). The reference is a copy, under another name.

    Returns
    -------
    name
        Of the context.
    """
    old = re.search(r"\d+", cache.environment["CRDS_CONTEXT"])[0]
    (pmap,) = cache.path.rglob(f"jwst_{old}.pmap")
    for path in sorted(pmap.parent.glob(f"*_{old}.*")):
        text = path.read_text().replace(f"_{old}.", f"_{NEW}.")
        kind = path.name.split("_")[2] if path.suffix == ".rmap" else ""
        if kind in useafter:
            found = re.search(r"( *)'[\d: -]+' : '([^']+_0001\.\w+)',\n", text)
            name = found[2].replace("_0001.", "_0002.")
            (reference,) = cache.path.rglob(found[2])
            shutil.copy(reference, reference.with_name(name))
            text = text.replace(found[0], f"{found[0]}{found[1]}'{useafter[kind]}' : '{name}',\n")
        path.with_name(path.name.replace(f"_{old}.", f"_{NEW}.")).write_text(_summed(text))
    return f"jwst_{NEW}.pmap"


def _summed(text: str) -> str:
    """A mapping with its checksum: that of all lines but the one that states it."""
    lines = text.splitlines(keepends=True)
    total = hashlib.sha1("".join(line for line in lines if "sha1sum" not in line).encode()).hexdigest()
    return "".join(re.sub(r"[0-9a-f]{40}", total, line) if "sha1sum" in line else line for line in lines)
