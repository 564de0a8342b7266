"""Pools of exposures: tables with a row an exposure, from which associations are made.

A pool is a text table of columns divided by ``|`` (jwst documentation, "Association Pool"). Names and values are
compared in lower case.
"""

from __future__ import annotations

import ast
import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jwstdask.core.errors import InputError, ProductError
from jwstdask.io.naming import exposure_stem

UNSET = frozenset((None, "", "null", "--", "n", "f", "false", "n/a"))
"""Values that say a column is not specified."""


class Row:
    """An exposure of a pool.

    Attributes
    ----------
    values
        All columns, as written, in lower case.
    given
        The columns that are specified.
    filename
        Name of the exposure.
    index
        Number of the row in its pool.
    candidates
        Text of the association candidates the row is looked at for.
    """

    __slots__ = ("candidates", "filename", "given", "index", "values")

    def __init__(self, values: Mapping[str, str], index: int = 0) -> None:
        self.values = dict(values)
        self.given = {name: value for name, value in self.values.items() if value not in UNSET}
        self.filename = self.values.get("filename", "")
        self.index = index
        self.candidates = self.values.get("asn_candidate")

    def seen_for(self, candidates: str) -> Row:
        """The same row, looked at for one candidate."""
        view = object.__new__(Row)
        view.values, view.given, view.filename, view.index = self.values, self.given, self.filename, self.index
        view.candidates = candidates
        return view

    def get(self, column: str) -> str | None:
        """Value of a column, None if it is not specified."""
        return self.given.get(column)


Candidates = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pool:
    """A table of exposures.

    Attributes
    ----------
    name
        File name of the pool.
    rows
        The exposures, in order.
    """

    name: str
    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.rows[0].values) if self.rows else []


def make_pool(rows: Iterable[Mapping[str, object]], name: str = "in-memory") -> Pool:
    """A pool of mappings from column to value; everything becomes lower-case text, None becomes ``null``."""
    texts = (
        {str(key).lower(): "null" if value is None else str(value).lower() for key, value in row.items()}
        for row in rows
    )
    return Pool(name, tuple(Row(values, index) for index, values in enumerate(texts)))


def read_pool(path: str | os.PathLike[str], delimiter: str = "|", pool_format: str = "ascii") -> Pool:
    """Read a pool.

    Parameters
    ----------
    path
        Text file; lines that begin with ``#`` are comments, the first other line has the names of the columns.
    delimiter
        What divides columns.
    pool_format
        ``ascii``, or any other name of a table format of :mod:`astropy.table`.

    Raises
    ------
    InputError
        If the file is no such table.
    """
    path = os.fspath(path)
    name = os.path.basename(path)
    if pool_format != "ascii":
        return _read_with_astropy(path, name, delimiter, pool_format)
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read as a pool ({error})", "a pool is a text table") from None
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise InputError(path, "the pool is empty", "a pool has a line of column names and a line an exposure")
    table = [[cell.strip() for cell in cells] for cells in csv.reader(lines, delimiter=delimiter)]
    header = [cell.lower() for cell in table[0]]
    if len(header) < 2:
        raise InputError(path, f"the pool has no columns divided by {delimiter!r}", "give --delimiter")
    for number, cells in enumerate(table[1:], start=1):
        if len(cells) != len(header):
            raise InputError(
                path,
                f"exposure {number} of the pool has {len(cells)} columns instead of {len(header)}",
                "every line must have all columns",
            )
    return make_pool(({key: cell or None for key, cell in zip(header, cells)} for cells in table[1:]), name)


def _read_with_astropy(path: str, name: str, delimiter: str, pool_format: str) -> Pool:
    from astropy.table import Table

    options = {"delimiter": delimiter} if pool_format.startswith("ascii") else {}
    try:
        table = Table.read(path, format=pool_format, **options)
    except Exception as error:  # astropy raises whatever the reader of the format happens to raise
        raise InputError(path, f"cannot be read as a pool ({error})", "give --pool-format") from None
    masked = [
        [None if getattr(value, "mask", False) is True else value for value in row] for row in table.filled("null")
    ]
    return make_pool((dict(zip(table.colnames, row)) for row in masked), name)


def write_pool(
    rows: Sequence[Mapping[str, str]],
    path: str | os.PathLike[str],
    delimiter: str = "|",
    columns: Sequence[str] | None = None,
) -> None:
    """Write rows as a pool; the columns are those of the first row if they are not given.

    Raises
    ------
    ProductError
        If the file cannot be written.
    """
    names = list(columns or (rows[0] if rows else ()))
    try:
        with Path(path).open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
            writer.writerow(names)
            writer.writerows([row[name] for name in names] for row in rows)
    except OSError as error:
        raise ProductError(path, f"cannot be written ({error.strerror})", "give another folder") from None


def candidates_of(text: str | None) -> Candidates:
    """The association candidates of a row: pairs of identifier and type.

    Examples
    --------
    >>> candidates_of("[('o001', 'observation'), ('c1000', 'mosaic')]")
    (('o001', 'observation'), ('c1000', 'mosaic'))
    """
    try:
        found = ast.literal_eval(text or "")
    except (ValueError, SyntaxError):
        return ()
    if isinstance(found, int):
        return ((str(found), "unknown"),)
    if not isinstance(found, (list, tuple)):
        return ()
    return tuple((str(pair[0]), str(pair[1])) for pair in found if isinstance(pair, tuple) and len(pair) == 2)


# Columns that no header has, and what they are unless the user says otherwise.
ADDED_COLUMNS: dict[str, str] = {
    "dms_note": "",
    "is_imprt": "f",
    "pntgtype": "science",
    "targetid": "1",
    "mostilno": "1",
    "dithptin": "1",
}


def pool_from_headers(
    paths: Sequence[str | os.PathLike[str]],
    asn_candidate: str | Sequence[tuple[str, str]] | None = None,
    dms_note: str = ADDED_COLUMNS["dms_note"],
    is_imprt: str = ADDED_COLUMNS["is_imprt"],
    pntgtype: str = ADDED_COLUMNS["pntgtype"],
) -> list[dict[str, str]]:
    """Rows of a pool made from the primary headers of exposures.

    As in jwst, ``targetid`` counts the targets seen so far: exposures must come in order of their targets.

    Parameters
    ----------
    paths
        FITS files.
    asn_candidate
        Candidates in addition to that of the observation: pairs of identifier and type, or such a list as text.
    dms_note, is_imprt, pntgtype
        Values of the columns that no header has.

    Returns
    -------
    rows
        Columns are the keywords in lower case, in alphabetical order, with values as text.

    Raises
    ------
    InputError
        If a file is not FITS, or has no OBSERVTN or TARGNAME.
    """
    from astropy.io import fits

    headers: list[dict[str, str]] = []
    for path in paths:
        try:
            header = fits.getheader(path)
        except OSError as error:
            raise InputError(path, f"is not a FITS file ({error})", "a pool is made from exposures") from None
        values = {key.lower(): str(value) for key, value in header.items() if key not in ("", "COMMENT", "HISTORY")}
        values["filename"] = os.fspath(path)
        for keyword in ("observtn", "targname"):
            if keyword not in values:
                raise InputError(path, f"has no keyword {keyword.upper()}", "a pool is made from exposures of JWST")
        headers.append(values)
    added = ADDED_COLUMNS | {"dms_note": dms_note, "is_imprt": is_imprt, "pntgtype": pntgtype}
    columns = sorted({name for values in headers for name in values} | set(added) | {"asn_candidate"})
    seen: set[str] = set()
    rows = []
    for values in headers:
        own = (f"o{values['observtn']}", "observation")
        if isinstance(asn_candidate, str):
            candidates = f"[{own}, {asn_candidate[1:]}"
        else:
            candidates = str([own, *(asn_candidate or ())])
        seen.add(values["targname"])
        values = values | added | {"asn_candidate": candidates, "targetid": str(len(seen))}
        rows.append({name: values.get(name, "null") for name in columns})
    return rows


_NAMES = {
    "obs_id": "meta.observation.obs_id",
    "program": "meta.observation.program_number",
    "obs_num": "meta.observation.observation_number",
    "visit": "meta.observation.visit_number",
    "visitype": "meta.visit.type",
    "act_id": "meta.observation.activity_id",
    "exp_type": "meta.exposure.type",
    "instrume": "meta.instrument.name",
    "detector": "meta.instrument.detector",
    "channel": "meta.instrument.channel",
    "filter": "meta.instrument.filter",
    "pupil": "meta.instrument.pupil",
    "grating": "meta.instrument.grating",
    "band": "meta.instrument.band",
    "fxd_slit": "meta.instrument.fixed_slit",
    "msametfl": "meta.instrument.msa_metadata_file",
    "msastate": "meta.instrument.msa_state",
    "opmode": "meta.instrument.lamp_mode",
    "lamp": "meta.instrument.lamp_state",
    "subarray": "meta.subarray.name",
    "patttype": "meta.dither.primary_type",
    "numdthpt": "meta.dither.total_points",
    "patt_num": "meta.dither.position_number",
    "subpxpts": "meta.dither.subpixel_total_points",
    "nints": "meta.exposure.nints",
    "bkgdtarg": "meta.observation.bkgdtarg",
    "is_imprt": "meta.exposure.imprint",
    "is_psf": "meta.exposure.psf_reference",
    "tsovisit": "meta.visit.tsovisit",
}


def pool_from_metadata(exposures: Sequence[tuple[str, Mapping[str, object]]]) -> Pool:
    """A pool of exposures whose metadata are known.

    Targets are numbered in the order in which they appear. The only candidates are the observations: groups, mosaics
    and backgrounds of several observations are in no header.

    Parameters
    ----------
    exposures
        Pairs of path and metadata by dotted name; row `i` of the pool is exposure `i`.
    """
    numbers: dict[tuple[str, str], int] = {}
    rows = []
    for path, meta in exposures:
        row: dict[str, object] = {column: _text(meta.get(name)) for column, name in _NAMES.items()}
        observation = str(row["obs_num"] or "1")
        target = meta.get("meta.target.catalog_name") or meta.get("meta.target.proposer_name")
        number = numbers.setdefault((str(row["program"]), str(target)), len(numbers) + 1)
        rows.append(
            row
            | {
                "filename": f"{exposure_stem(path)}_uncal.fits",
                "obs_num": observation,
                "program": row["program"] or "0",
                "targetid": str(number),
                "pntgtype": "science",
                "mostilno": "1",
                "dithptin": row["patt_num"],
                "asn_candidate": str([(f"o{observation:0>3s}", "observation")]),
            }
        )
    return make_pool(rows)


def _text(value: object) -> str | None:
    """A value of the metadata as the archive's pools have it."""
    if isinstance(value, bool):
        return "t" if value else "f"
    return None if value is None else str(value).strip()


_LEVEL1B = re.compile(r"(.+)_uncal(\..+)")


def renamed(filename: str, suffix: str) -> str:
    """The name of an exposure with another suffix than ``uncal``; other names stay as they are."""
    found = _LEVEL1B.match(filename)
    return filename if found is None else f"{found.group(1)}_{suffix}{found.group(2)}"
