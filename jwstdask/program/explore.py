"""The files of a program, to look at: a table from their headers, and their contents as lazy xarray objects."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from html import escape
from typing import Any

import pandas as pd
import xarray as xr

from jwstdask.core.errors import InputError, JwstdaskError, ParameterError, PlanError
from jwstdask.core.params import suggest
from jwstdask.engine.readers import in_parallel
from jwstdask.io.accessor import stage_of
from jwstdask.io.dataset import open_exposure
from jwstdask.io.layout import open_layout
from jwstdask.io.metadata import read_metadata
from jwstdask.io.naming import split_suffix
from jwstdask.io.remote import is_url, list_files
from jwstdask.program.journal import at_work, journal_path, read_history

_FROM_HEADER = {
    "program": "meta.observation.program_number",
    "observation": "meta.observation.observation_number",
    "visit": "meta.observation.visit_number",
    "instrument": "meta.instrument.name",
    "detector": "meta.instrument.detector",
    "exp_type": "meta.exposure.type",
    "filter": "meta.instrument.filter",
    "pupil": "meta.instrument.pupil",
    "grating": "meta.instrument.grating",
    "subarray": "meta.subarray.name",
    "readpatt": "meta.exposure.readpatt",
    "nints": "meta.exposure.nints",
    "ngroups": "meta.exposure.ngroups",
}
COLUMNS = ("file", "stage", "suffix", *_FROM_HEADER, "start", "status", "reason", "path")
"""Columns of the table of a program, in order."""
_NUMBERS = ("stage", "nints", "ngroups")
_SHOWN = 40  # rows of the table in a notebook
# From what needs attention to what does not.
_STATES = ("failed", "running", "waiting", "done", "up to date")


class ProgramFiles:
    """Files of a program: `table`, `tree`, and parts of them by `select`. Made by `open_program`.

    Attributes
    ----------
    table : pandas.DataFrame
        A row a file. ``file`` is the name, ``stage`` how far it is (0 ramps, 1 slopes, 2 calibrated, 3 combined),
        ``suffix`` the kind of product; ``program``, ``observation``, ``visit``, ``instrument``, ``detector``,
        ``exp_type``, ``filter``, ``pupil``, ``grating``, ``subarray``, ``readpatt``, ``nints``, ``ngroups`` are as in
        the header, ``start`` is the time at which the exposure began. ``status`` is what the journal of a run says of
        the task that makes the file, or, of a raw file, that takes it; None without a journal. ``reason`` says why a
        task failed, or why a file cannot be read.

    Examples
    --------
    >>> program = jwstdask.open_program("products")  # doctest: +SKIP
    >>> program.select(detector="NRCA*", stage=2).tree  # doctest: +SKIP
    """

    def __init__(self, table: pd.DataFrame, chunks: Any = None, storage_options: dict[str, Any] | None = None) -> None:
        self.table = table
        self._chunks, self._storage_options = chunks, storage_options

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[xr.Dataset | xr.DataTree]:
        return map(self._open, self.table["path"])

    def __getitem__(self, which: int | str) -> xr.Dataset | xr.DataTree:
        """The contents of one file, lazily: by number of its row, or by name or path.

        Raises
        ------
        KeyError
            If no file has that name, or several have.
        IndexError
            If there are not so many files.
        """
        if not isinstance(which, str):
            return self._open(self.table["path"].iloc[which])
        found = self.table[(self.table["file"] == which) | (self.table["path"] == which)]
        if len(found) != 1:
            several = f"{len(found)} files are called {which}; give the path"
            raise KeyError(several if len(found) else f"no file is called {which}")
        return self._open(found["path"].iloc[0])

    def _open(self, path: str) -> xr.Dataset | xr.DataTree:
        return open_exposure(path, self._chunks, self._storage_options)

    def select(self, rows: Any = None, /, **columns: Any) -> ProgramFiles:
        """Some of the files.

        Parameters
        ----------
        rows
            Which rows, as `pandas.DataFrame.loc` takes them: ``program.table.nints > 1``.
        **columns
            What the columns must be: a value, a text in which ``*`` stands for any other (capitals do not matter),
            a list of such, a slice from the first to the last value, or a function of a value.

        Returns
        -------
        ProgramFiles
            The files for which all of this is true.

        Raises
        ------
        ParameterError
            If there is no such column.

        Examples
        --------
        >>> program.select(stage=2, detector=["NRCA1", "NRCA3"], start=slice("2026-01-01", None))  # doctest: +SKIP
        """
        table = self.table if rows is None else self.table.loc[rows]
        for name, wanted in columns.items():
            if name not in table:
                raise ParameterError(f"the table of a program has no column {name!r}", suggest(name, table.columns))
            table = table[_matches(table[name], wanted)]
        return ProgramFiles(table, self._chunks, self._storage_options)

    @cached_property
    def tree(self) -> xr.DataTree:
        """All files as a tree of lazy Datasets: ``/stage2/o001/nrca1/jw..._cal``.

        Levels are stage, observation, detector and file; a file with several slits has a node for each of them below
        it. Headers are read (some 10 ms a file), pixels are not. Files that cannot be read are left out.
        """
        nodes: dict[str, xr.Dataset] = {}
        for row in self.table.dropna(subset="instrument").itertuples():
            stem = os.path.splitext(row.file)[0]
            observation, detector = row.observation or "none", row.detector or "none"
            name = path = f"/stage{row.stage}/o{observation}/{detector.lower()}/{stem}"
            number = 1
            while path in nodes:
                number += 1
                path = f"{name}_{number}"
            found = self._open(row.path)
            if isinstance(found, xr.DataTree):
                for node in found.subtree:
                    nodes[f"{path}/{node.path.strip('/')}".rstrip("/")] = node.to_dataset(inherit=False)
            else:
                nodes[path] = found
        return xr.DataTree.from_dict(nodes)

    @property
    def summary(self) -> pd.DataFrame:
        """How many files there are of each kind."""
        names = ["stage", "suffix", "instrument", "exp_type", "filter"]
        groups = self.table.groupby(names, dropna=False)
        found = groups.agg(files=("file", "size"), detectors=("detector", "nunique"), first=("start", "min"))
        return found.reset_index()

    def _title(self) -> str:
        programs = ", ".join(sorted(self.table["program"].dropna().unique()))
        states = self.table["status"].value_counts()
        told = "".join(f", {states[name]} {name}" for name in _STATES if name in states)
        count = "1 file" if len(self) == 1 else f"{len(self):,} files"
        return f"{count} of program {programs}{told}" if programs else f"{count}{told}"

    def __repr__(self) -> str:
        return "\n".join([f"<jwstdask.ProgramFiles> {self._title()}", self.summary.to_string(index=False, na_rep="")])

    def _repr_html_(self) -> str:
        # What is the same in all rows, or not known, needs no column.
        table = self.table.drop(columns="path")
        table = table.loc[:, [name == "file" or table[name].nunique(dropna=False) > 1 for name in table]]
        rows = table.head(_SHOWN).to_html(index=False, na_rep="", border=0)
        more = f"<p>and {len(self) - _SHOWN:,} more: see <code>.table</code></p>" if len(self) > _SHOWN else ""
        return (
            f"<div><strong>{escape(self._title())}</strong>"
            f"{self.summary.to_html(index=False, na_rep='', border=0)}"
            f"<details><summary>files, and the columns in which they differ</summary>{rows}{more}</details></div>"
        )


def open_program(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    chunks: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> ProgramFiles:
    """Look at the files of a program, whatever stages they are at. Nothing but headers is read, some 4 ms a file.

    Parameters
    ----------
    files
        A file, a folder, a URL (of a file, or of all files whose names begin so), or several of them. Of a folder all
        FITS files of JWST are taken, at any depth; hidden folders are not searched.
    chunks
        How files will be opened, as in `open_exposure`.
    storage_options
        Passed to fsspec.

    Returns
    -------
    ProgramFiles

    Raises
    ------
    InputError
        If a path does not exist.
    PlanError
        If there are no files.
    """
    given = [files] if isinstance(files, str | os.PathLike) else list(files)
    paths: dict[str, bool] = {}
    for place in map(os.fspath, given):
        alone = place.endswith(".fits") and not os.path.isdir(place)
        if alone and not is_url(place) and not os.path.exists(place):
            raise InputError(place, "there is no such file", "correct the path")
        for path in [place] if alone else find_files(place, storage_options):
            paths[path] = paths.get(path, False) or alone
    rows = in_parallel(partial(describe, storage_options=storage_options), list(paths))
    # Other tables and pictures may lie about; what is named by the user is shown whatever it is.
    rows = [row for row, alone in zip(rows, paths.values()) if alone or row["instrument"] or row["reason"]]
    if not rows:
        raise PlanError(f"There is no FITS file of JWST in {', '.join(map(os.fspath, given))}", "correct the path")
    _tell_states(rows)
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    table["start"] = pd.to_datetime(table["start"], format="ISO8601", errors="coerce")
    for name in _NUMBERS:
        table[name] = table[name].astype("Int64")
    return ProgramFiles(table, chunks, storage_options)


def find_files(place: str, storage_options: dict[str, Any] | None = None) -> list[str]:
    """FITS files in a folder or under a URL, at any depth, in order.

    Raises
    ------
    InputError
        If there is no such folder, or nothing under the URL.
    """
    if is_url(place):
        return [url for url in list_files(place, storage_options) if url.endswith(".fits")]
    if not os.path.isdir(place):
        raise InputError(place, "there is no such folder", "correct the path")
    found: list[str] = []
    for parent, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.join(parent, name) for name in names if name.endswith(".fits") and name[0] != "."]
    return sorted(found)


def describe(path: str, storage_options: dict[str, Any] | None = None) -> dict[str, Any]:
    """The row of a file, from its headers; ``reason`` says why it cannot be read."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row["file"], row["path"] = path.rstrip("/").rpartition("/")[2], path
    name = os.path.splitext(row["file"])[0]
    row["suffix"] = split_suffix(name)[2] or name.rpartition("_")[2]
    try:
        meta = read_metadata(open_layout(path, storage_options))
    except JwstdaskError as error:
        row["reason"] = getattr(error, "reason", str(error))
        return row
    row |= {name: meta.get(dotted) for name, dotted in _FROM_HEADER.items()}
    row["stage"] = stage_of(meta)
    row["start"] = meta.get("meta.observation.date_beg")
    return row


def _tell_states(rows: list[dict[str, Any]]) -> None:
    """Fill in what the journals beside the files say."""
    folders = {os.path.dirname(row["path"]) for row in rows if not is_url(row["path"])}
    made: dict[str, tuple[str, str]] = {}
    taken: dict[str, tuple[str, str]] = {}
    for folder in sorted(folder for folder in folders if os.path.exists(journal_path(folder))):
        working = at_work(folder)
        for task in read_history(folder).tasks.values():
            said = task.seen(working), task.reason
            products = (task.finished or {}).get("products", {}).values()
            for name in [path for path, *_ in products] or [task.task.partition(" ")[2]]:
                made[os.path.abspath(os.path.join(folder, name))] = said
            source = os.path.basename(task.path)
            taken[source] = min(said, taken.get(source, said), key=lambda item: _STATES.index(item[0]))
    for row in rows:
        state = made.get(os.path.abspath(row["path"])) or taken.get(row["file"])
        if state is not None:
            row["status"], row["reason"] = state[0], row["reason"] or state[1] or None


def _matches(column: pd.Series, wanted: Any) -> pd.Series:
    """Where a column is what `ProgramFiles.select` was told."""
    if isinstance(wanted, slice):
        found = pd.Series(True, column.index)
        if wanted.start is not None:
            found &= column >= wanted.start
        if wanted.stop is not None:
            found &= column <= wanted.stop
        return found.fillna(False).astype(bool)
    if callable(wanted):
        return column.map(wanted, na_action="ignore").fillna(False).astype(bool)
    choices = wanted if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
    found = pd.Series(False, column.index)
    for choice in choices:
        found |= _equal(column, choice)
    return found


def _equal(column: pd.Series, wanted: Any) -> pd.Series:
    if wanted is None:
        return column.isna()
    if isinstance(wanted, str) and not pd.api.types.is_numeric_dtype(column) and column.dtype.kind != "M":
        pattern = re.compile(fnmatch.translate(wanted.lower()))
        return column.map(lambda value: isinstance(value, str) and pattern.match(value.lower()) is not None).astype(
            bool
        )
    if column.dtype.kind != "M":
        # Numbers of observations and visits are text in the headers.
        column = pd.to_numeric(column, errors="coerce")
    return (column == wanted).fillna(False).astype(bool)
