"""Reference catalogues for absolute astrometry: a file of the user, or Gaia from the guide star server of STScI."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from jwstdask.core.errors import InputError, JwstdaskError, ParameterError
from jwstdask.wcs.footprint import footprint
from jwstdask.wcs.mosaic import middle, output_grid

NAMES = ("GAIAREFCAT", "GAIADR3", "GAIADR2", "GAIADR1")
"""Catalogues of the server."""
SERVER_VARIABLE = "ASTROMETRIC_CATALOG_URL"
"""Environment variable with another address of the server."""
SERVER = "https://gsss.stsci.edu/webservices"
TIMEOUT = 30.0  # s


def check(name: str) -> None:
    """Refuse a name that is neither a file nor a catalogue of the server (ParameterError)."""
    if name.upper() not in NAMES and not Path(name).is_file():
        raise ParameterError(
            f"tweakreg.abs_refcat = {name!r} is neither a file nor one of {', '.join(NAMES)}",
            "give the path of a table with columns RA and DEC",
        )


def reference_stars(
    name: str,
    footprints: Sequence[np.ndarray],
    wcs: Any,
    wcsinfo: Mapping[str, Any],
    shape: tuple[int, int],
    date: str | None,
) -> Table:
    """Stars of a reference catalogue.

    Parameters
    ----------
    name
        File (all its stars), or one of :data:`NAMES` (stars of the field, moved to the epoch of the exposures).
    footprints
        Corners (n, 2) of the exposures [degree].
    wcs, wcsinfo, shape
        Of the first exposure.
    date
        Day of the observation (ISO).

    Returns
    -------
    Table
        With columns RA and DEC [degree].
    """
    if name.upper() not in NAMES:
        check(name)
        return read_catalog(name)
    from astropy.time import Time

    grid = output_grid(footprints, wcs, wcsinfo, shape)
    corners = footprint(grid.wcs, grid.shape)
    ra, dec = middle(corners)
    return fetch(name.upper(), ra, dec, _radius(ra, dec, corners), float(Time(date).decimalyear))


def _radius(ra: float, dec: float, corners: np.ndarray) -> float:
    from astropy.coordinates import angular_separation

    return float(np.rad2deg(angular_separation(*np.deg2rad([ra, dec]), *np.deg2rad(corners).T).max()))


def read_catalog(path: str) -> Table:
    """A user's catalogue: columns RA and DEC in any case, or ``sky_centroid`` as in a source catalogue.

    Raises
    ------
    InputError
        If it cannot be read, or has not one such pair of columns.
    """
    try:
        table = Table.read(path)
    except Exception as error:
        raise InputError(path, f"is not a table ({error})", "give an ECSV or FITS table as abs_refcat") from error
    table.meta["name"] = Path(path).name
    remedy = "give columns RA and DEC [degree], or sky_centroid"
    kinds = {"RA": "ra", "DEC": "dec", "sky_centroid": "sky_centroid"}
    found = {new: [old for old in table.colnames if old.lower() == lower] for new, lower in kinds.items()}
    for new, old in found.items():
        if len(old) > 1:
            raise InputError(path, f"has several columns {new}: {', '.join(old)}", remedy)
    if found["RA"] and found["DEC"]:
        table.remove_columns(found["sky_centroid"])
        for new in ("RA", "DEC"):
            table.rename_column(found[new][0], new)
        return table
    if not found["sky_centroid"]:
        raise InputError(path, "has neither RA and DEC nor sky_centroid", remedy)
    sky = table[found["sky_centroid"][0]]
    table["RA"], table["DEC"] = sky.ra.deg, sky.dec.deg
    table.remove_columns(found["sky_centroid"])
    return table


def fetch(name: str, ra: float, dec: float, radius: float, epoch: float) -> Table:
    """Stars within ``radius`` of a position [degree] from the server, at an epoch [year], faint to bright.

    Stars without proper motion are left out: the server cannot move them to the epoch.

    Raises
    ------
    JwstdaskError
        If the server does not answer within 30 s, or not with a table.
    """
    server = os.environ.get(SERVER_VARIABLE, SERVER)
    url = f"{server}/vo/CatalogSearch.aspx?RA={ra}&DEC={dec}&EPOCH={epoch}&SR={radius}&FORMAT=CSV&CAT={name}"
    remedy = f"try again later, give a file as abs_refcat, or set {SERVER_VARIABLE}"
    try:
        request = urllib.request.Request(url, headers={"Content-Type": "text/csv"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            text = answer.read().decode()
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise JwstdaskError(f"the catalogue {name} cannot be fetched from {server} ({error})", remedy) from error
    if text.startswith("No data records"):
        return Table(names=("RA", "DEC"), meta={"name": name, "catalog": name})
    try:
        table = Table.read(text.splitlines(), format="ascii.csv", comment="#")
        keep = np.ones(len(table), bool)
        for column in ("pmra", "pmdec"):
            keep &= ~np.ma.getmaskarray(table[column])
        table = table[keep]["ra", "dec", "mag", "objID", "epoch"]
    except (KeyError, ValueError) as error:
        raise JwstdaskError(f"{server} answered with something else than stars of {name} ({error})", remedy) from error
    table.rename_columns(("ra", "dec"), ("RA", "DEC"))
    table.sort("mag", reverse=True)
    table.meta.update(name=name, catalog=name)
    return table
