"""Exposures as lazily read xarray Datasets: ``xr.open_dataset("jw..._uncal.fits", engine="jwst", chunks={})``.

Opening reads headers only. The chunks offered are strips of whole rows with all integrations and groups, because a
pixel's ramp is fitted as a whole; they are read straight from the file.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from jwstdask.core import dq
from jwstdask.core.dims import GROUP, INTEGRATION, SUPERSTRIPE, WCS, X, Y
from jwstdask.io import accessor as accessor  # registers ds.jwst
from jwstdask.io.layout import FitsLayout, open_layout
from jwstdask.io.metadata import has_wcs, model_name, read_metadata, read_wcs
from jwstdask.io.schema import model_schema

EXTVER = "extver"
GROUP_TABLE = "group_table"
_STRIP_BYTES = 64 << 20
UNITS = {"sci": "meta.bunit_data", "err": "meta.bunit_err"}
_PIXEL_FLAGS = ("dq", "pixeldq")
_GROUP_FLAGS = ("groupdq",)


class JwstBackend(BackendEntrypoint):
    """Engine ``jwst`` of `xarray.open_dataset` and `xarray.open_datatree`."""

    description = "JWST exposures and products (FITS), read lazily in strips of rows"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "storage_options", "version")
    supports_groups = True

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str] | FitsLayout,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: dict[str, Any] | None = None,
        version: int | None = None,
    ) -> xr.Dataset:
        """Open one exposure, or one slit (`version`, its EXTVER) of a file with several.

        See `dataset_from_layout` for what is in the Dataset.
        """
        return dataset_from_layout(_layout(filename_or_obj, storage_options), version, _names(drop_variables))

    def open_datatree(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str] | FitsLayout,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> xr.DataTree:
        """Open a file as a tree: what all slits or spectra share at the root, and a node for each of them."""
        return xr.DataTree.from_dict(
            self.open_groups_as_dict(filename_or_obj, drop_variables=drop_variables, storage_options=storage_options)
        )

    def open_groups_as_dict(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str] | FitsLayout,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> dict[str, xr.Dataset]:
        """The Datasets of `open_datatree` by path."""
        layout = _layout(filename_or_obj, storage_options)
        dropped = _names(drop_variables)
        groups = {"/": dataset_from_layout(layout, None, dropped)}
        names: dict[str, int] = {}
        for version in slit_versions(layout):
            node = dataset_from_layout(layout, version, dropped)
            label = str(node.attrs.get("name") or node.attrs.get("source_id") or version).replace("/", "_")
            if label in names:
                label = f"{label}_{version}"
            names[label] = version
            groups[f"/{label}"] = node
        return groups

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        try:
            name = os.fspath(filename_or_obj)
        except TypeError:
            return False
        return isinstance(name, str) and os.path.basename(name).startswith("jw") and name.endswith(".fits")


def _layout(source: Any, storage_options: dict[str, Any] | None) -> FitsLayout:
    return source if isinstance(source, FitsLayout) else open_layout(source, storage_options)


def _names(drop_variables: str | Iterable[str] | None) -> frozenset[str]:
    if drop_variables is None:
        return frozenset()
    return frozenset([drop_variables] if isinstance(drop_variables, str) else drop_variables)


def slit_versions(layout: FitsLayout) -> list[int]:
    """EXTVERs of the slits, spectra or exposures of a file; empty for a file with one exposure."""
    schema = model_schema(model_name(layout))
    if schema.list_name is None:
        return []
    return sorted({hdu.version for hdu in layout.hdus if hdu.name.lower() in schema.item_arrays and hdu.size})


def dataset_from_layout(
    layout: FitsLayout, version: int | None = None, drop_variables: frozenset[str] = frozenset()
) -> xr.Dataset:
    """A Dataset over a file. Nothing but headers and the text of the ASDF extension is read.

    Parameters
    ----------
    layout
        From `open_layout`.
    version
        EXTVER of the slit, for files with several.
    drop_variables
        Names of variables to leave out.

    Returns
    -------
    xarray.Dataset
        Variables under the lower-case names of their HDUs with dimensions (integration, group, y, x) as far as they
        have them; flags carry CF `flag_masks` and `flag_meanings`. Tables are variables with a structured dtype along
        a dimension of their own, ``<table>_row``. `attrs` holds the metadata, flat, under jwst's dotted names; the
        scalar coordinate `wcs` the gwcs object, which is restored on first use.

    Raises
    ------
    InputError
        If an image does not fit on SCI.
    """
    model = model_name(layout)
    schema = model_schema(model)
    items = schema.item_arrays
    several = bool(items) and schema.list_name is not None
    variables: dict[str, xr.Variable] = {}
    sizes: dict[str, int] = {}
    if "SCI" in layout and layout.hdu("SCI").size and not several:
        layout.check_exposure()
    for hdu in sorted(layout.hdus, key=lambda hdu: hdu.name != "SCI"):
        name = hdu.name.lower()
        variable_name = GROUP_TABLE if name == GROUP else name
        belongs = name in items if version is not None else not (several and name in items)
        if not belongs or hdu.version != (version or 1) or variable_name in drop_variables:
            continue
        if variable_name in variables or hdu.index == 0 or name == "asdf" or not hdu.shape or hdu.kind == "other":
            continue
        dims = (f"{name}_row",) if hdu.kind == "table" else dimensions(name, hdu.shape, model, sizes)
        sizes.update(zip(dims, hdu.shape))
        data = indexing.LazilyIndexedArray(_HduArray(layout, hdu.name, hdu.version, hdu.shape, hdu.dtype))
        variables[variable_name] = xr.Variable(dims, data, flag_attributes(name))
    attrs = read_metadata(layout, complete=True, version=version)
    if several and version is None:
        attrs.pop(schema.list_name or "", None)
    for name, unit in UNITS.items():
        if name in variables and isinstance(attrs.get(unit), str):
            variables[name].attrs["units"] = attrs[unit]
    rows = strip_rows(variables, sizes.get(Y, 0))
    for variable in variables.values():
        chunks = dict(zip(variable.dims, variable.shape))
        if Y in chunks and rows:
            chunks[Y] = rows
        variable.encoding = {"preferred_chunks": chunks, "source": layout.path}
    coordinates = {}
    if WCS not in drop_variables and has_wcs(layout):
        lazy = indexing.LazilyIndexedArray(_WcsArray(layout, version if several else None))
        coordinates[WCS] = xr.Variable((), lazy)
    if version is not None:
        attrs[EXTVER] = version
    dataset = xr.Dataset(variables, coordinates, attrs)
    dataset.encoding["source"] = layout.path
    return dataset


def dimensions(name: str, shape: tuple[int, ...], model: str, sizes: dict[str, int]) -> tuple[str, ...]:
    """Names of the axes of an image; `sizes` holds those that are taken already."""
    if len(shape) == 1:
        dims: tuple[str, ...] = (X,)
    else:
        count = len(shape) - 2
        leading: tuple[str, ...]
        if name == "con":
            leading = ("plane",)
        elif model == "IFUCubeModel":
            leading = ("wavelength",)
        elif model == "RampFitOutputModel":
            leading = (INTEGRATION, "jump" if name == "crmag" else "segment")
        elif model == "SuperstripeRampModel" and name == "pixeldq":
            leading = (SUPERSTRIPE,)
        else:
            leading = (INTEGRATION, GROUP)
        leading = leading[:count] + tuple(f"{name}_axis{axis}" for axis in range(len(leading[:count]), count))
        dims = (*leading, Y, X)
    # An array on another grid (the reference output of MIRI has a quarter of the columns) gets dimensions of its own.
    return tuple(dim if sizes.get(dim, size) == size else f"{dim}_{name}" for dim, size in zip(dims, shape))


def strip_rows(variables: dict[str, xr.Variable], ny: int) -> int:
    """Rows of a chunk: a power of two from 8 to 256 such that the largest array has at most 64 MiB."""
    heaviest = max(
        (
            variable.dtype.itemsize * math.prod(variable.shape) // max(ny, 1)
            for variable in variables.values()
            if Y in variable.dims
        ),
        default=0,
    )
    if not heaviest or not ny:
        return 0
    fitting = max(8, min(256, _STRIP_BYTES // heaviest))
    return min(ny, 1 << (fitting.bit_length() - 1))


def flag_attributes(name: str) -> dict[str, Any]:
    """CF attributes of a data-quality array: `flag_masks` and `flag_meanings`; empty for other arrays."""
    if name in _PIXEL_FLAGS:
        flags: dict[str, int] = dq.PIXEL
        dtype: np.dtype[Any] = np.dtype(np.uint32)
    elif name in _GROUP_FLAGS:
        flags, dtype = dq.GROUP, np.dtype(np.uint8)
    else:
        return {}
    return {"flag_masks": np.array(list(flags.values()), dtype), "flag_meanings": " ".join(flags)}


class _HduArray(BackendArray):
    """An image or table of a file, for xarray's lazy indexing."""

    def __init__(self, layout: FitsLayout, name: str, version: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.layout, self.name, self.version, self.shape, self.dtype = layout, name, version, shape, dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        if self.dtype.names is not None:
            return self.layout.table(self.name, self.version)[key]
        box: list[slice] = []
        rest: list[slice | int] = []
        for part, size in zip(key, self.shape, strict=True):
            if isinstance(part, slice):
                indices = range(*part.indices(size))
                if not indices:
                    box.append(slice(0, 0))
                    rest.append(slice(None))
                    continue
                low, high = min(indices[0], indices[-1]), max(indices[0], indices[-1])
                box.append(slice(low, high + 1))
                rest.append(slice(None, None, indices.step))
            else:
                position = int(part) % size
                box.append(slice(position, position + 1))
                rest.append(0)
        *leading, rows, columns = box if len(box) > 1 else [slice(None), *box]
        data = self.layout.read(self.name, rows, columns, self.version, tuple(leading))
        return data[tuple(rest)]


class _WcsArray(BackendArray):
    """The gwcs object as an array without dimensions, restored on first use."""

    shape = ()
    dtype = np.dtype(object)

    def __init__(self, layout: FitsLayout, version: int | None) -> None:
        self.layout, self.version = layout, version
        self._wcs: Any = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"layout": self.layout, "version": self.version}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        with self._lock:
            if self._wcs is None:
                self._wcs = read_wcs(self.layout, self.version)
        array = np.empty((), object)
        array[()] = self._wcs
        return array
