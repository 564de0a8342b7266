"""What a program is made of: files, folders, associations and pools that were given."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jwstdask.core.errors import InputError, JwstdaskError, PlanError
from jwstdask.io.layout import open_layout
from jwstdask.io.metadata import read_metadata
from jwstdask.io.naming import split_suffix
from jwstdask.io.remote import exists, is_url, list_files, match_files
from jwstdask.program.associations import (
    Association,
    associations_of_pool,
    read_association,
)
from jwstdask.program.pool import make_pool, read_pool

TSO_TYPES = frozenset(("NRC_TSIMAGE", "NRC_TSGRISM", "NRS_BRIGHTOBJ"))
"""EXP_TYPE values of time series, whatever the visit says."""
_STAGE_OF_SUFFIX = {"uncal": 0, "rate": 1, "rateints": 1, "cal": 2, "calints": 2}


@dataclass(frozen=True)
class Program:
    """Inputs of a program, sorted.

    Attributes
    ----------
    exposures
        Path to how far it is: 0 (uncal), 1 (rate), 2 (cal).
    associations
        Associations given.
    complete
        Whether these are all: none are made of exposures that are in none.
    notes
        What people should know, such as exposures of a pool that are not there.
    """

    exposures: Mapping[str, int]
    associations: tuple[Association, ...] = ()
    complete: bool = False
    notes: tuple[str, ...] = ()


def find_inputs(inputs: Iterable[str]) -> Program:
    """Exposures and associations in files and folders.

    Of each exposure in a folder only the earliest product is taken, so that a folder with results can be run again.
    A URL that is no file stands for all files whose names begin so, such as those of a program in the archive's public
    bucket: ``s3://stpubdata/jwst/public/jw01234/``. Patterns (``*``, ``?``, ``[...]``) stand for what they match. A
    pool (``.csv``) stands for those of its exposures that lie beside it, with the associations that the rules make.

    Raises
    ------
    PlanError
        If there is nothing to process.
    InputError
        If a path does not exist.
    """
    exposures: dict[str, int] = {}
    associations: list[Association] = []
    notes: list[str] = []
    for text in expanded(inputs):
        path = Path(text)
        if path.is_dir() or (is_url(text) and path.suffix not in (".fits", ".json")):
            files = list_files(text) if is_url(text) else sorted(str(file) for file in path.iterdir())
            exposures |= _earliest_products(file for file in files if file.endswith(".fits"))
            associations += [read_association(file) for file in files if file.endswith("_asn.json")]
        elif not is_url(text) and not path.exists():
            raise InputError(text, "there is no such file or folder", "correct the path")
        elif path.suffix == ".csv":
            members, made, note = _of_pool(text)
            exposures |= members
            associations += made
            notes += note
        elif path.suffix == ".json":
            found = read_association(text)
            associations.append(found)
            for product in found.products:
                for member in product.of_type("science"):
                    earliest = _earliest(member)
                    exposures[earliest] = _stage_of(earliest)
        else:
            exposures[text] = _stage_of(text)
    if not exposures:
        raise PlanError(
            "There is nothing to process", "give _uncal, _rate or _cal files, a folder of them or an association"
        )
    used = [item for item in associations if item.asn_type.endswith("image3")]
    others = [item.table_name for item in associations if item not in used and _has_others(item)]
    if others:
        shown = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
        notes.append(f"backgrounds and the like of {len(others)} associations are not used in a program ({shown})")
    return Program(exposures, tuple(used), notes=tuple(notes))


def _has_others(association: Association) -> bool:
    """Whether an association has members that are taken from science exposures."""
    return any(kind.lower() != "science" for product in association.products for _, kind in product.members)


def expanded(inputs: Iterable[str]) -> Iterator[str]:
    """Inputs, with what patterns match in their place.

    Raises
    ------
    InputError
        If a pattern matches nothing.
    """
    for text in inputs:
        if not glob.has_magic(text) or (not is_url(text) and os.path.exists(text)):
            yield text
            continue
        found = match_files(text) if is_url(text) else sorted(glob.glob(text))
        if not found:
            raise InputError(text, "nothing matches this pattern", "correct the pattern")
        yield from found


def _of_pool(path: str) -> tuple[dict[str, int], list[Association], list[str]]:
    """Exposures of a pool that are there, associations of them, and notes."""
    folder = os.path.dirname(path)
    pool = read_pool(path)
    place = {row.filename: _earliest(os.path.join(folder, os.path.basename(row.filename))) for row in pool}
    there = exists if is_url(path) else os.path.exists
    exposures = {file: _stage_of(file) for file in place.values() if there(file)}
    if not exposures:
        raise InputError(path, "no exposure of this pool is beside it", "put them there")
    missing = len(place) - len(exposures)
    notes = [f"{missing} of {len(place)} exposures of {path} are not there"] if missing else []
    rows = [row.values for row in pool if place[row.filename] in exposures]
    made = associations_of_pool(make_pool(rows, pool.name), folder, "image3")
    return exposures, made, notes


def _earliest_products(files: Iterable[str]) -> dict[str, int]:
    """The earliest product of each exposure to how far it is; other products are left out."""
    best: dict[str, tuple[int, str]] = {}
    for file in files:
        root, _, suffix = split_suffix(os.path.splitext(os.path.basename(file))[0])
        if suffix in ("uncal", "rate", "cal") or (suffix in ("rateints", "calints") and _is_tso(file)):
            best[root] = min(best.get(root, (9, "")), (_STAGE_OF_SUFFIX[suffix], file))
    return {file: stage for stage, file in best.values()}


def _earliest(member: str) -> str:
    """A member of an association, or the product beside it that it will be made from if it does not exist yet."""
    there = exists if is_url(member) else os.path.exists
    root, _, _ = split_suffix(os.path.splitext(member)[0])
    beside = (f"{root}_{suffix}.fits" for suffix in ("cal", "rate", "uncal"))
    return next((path for path in (member, *beside) if there(path)), member)


def _stage_of(path: str) -> int:
    suffix = split_suffix(os.path.splitext(os.path.basename(path))[0])[2]
    return _STAGE_OF_SUFFIX.get(suffix, 0)


def _is_tso(path: str) -> bool:
    try:
        meta = read_metadata(open_layout(path))
    except JwstdaskError:
        return False
    return meta.get("meta.visit.tsovisit") is True or meta.get("meta.exposure.type") in TSO_TYPES
