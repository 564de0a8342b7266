"""A newer context of a synthetic CRDS cache: other references from some date on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jwstdask.simulate.crds import sha1
from jwstdask.simulate.program import Cache


def copied(cache: Cache, folder: Path) -> Cache:
    """The cache in a folder of its own."""
    shutil.copytree(cache.path, folder)
    return replace(cache, path=folder)


def newer_context(cache: Cache, useafter: Mapping[str, str], number: str = "9876") -> str:
    """Write a context into a cache, which has a reference of some types from a time on.

    Parameters
    ----------
    cache
        Changed in place.
    useafter
        Type of the reference to the time (``2023-07-15 03:21:40``). The reference is a copy of the first one of its
        type, under the next name (``_0002``).
    number
        Of the context.

    Returns
    -------
    name
        Of the context.
    """
    (old,) = re.findall(r"\d+", cache.context)
    (pmap,) = cache.path.rglob(cache.context)
    for path in sorted(pmap.parent.glob(f"*_{old}.*")):
        text = path.read_text().replace(f"_{old}.", f"_{number}.")
        kind = path.name.split("_")[2] if path.suffix == ".rmap" else ""
        if kind in useafter:
            found = re.search(r"( *)'[\d: -]+' : '([^']+_0001\.\w+)',\n", text)
            assert found is not None
            name = found[2].replace("_0001.", "_0002.")
            (reference,) = cache.path.rglob(found[2])
            shutil.copy(reference, reference.with_name(name))
            text = text.replace(found[0], f"{found[0]}{found[1]}'{useafter[kind]}' : '{name}',\n")
        text = re.sub(r"('sha1sum' : ')[0-9a-f]{40}", rf"\g<1>{sha1(text)}", text)
        path.with_name(path.name.replace(f"_{old}.", f"_{number}.")).write_text(text)
    return f"jwst_{number}.pmap"
