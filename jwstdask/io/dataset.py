"""Opening and writing exposures as xarray objects."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.namedarray.parallelcompat import get_chunked_array_type

from jwstdask.core.dims import GROUP, Y
from jwstdask.core.errors import ProductError
from jwstdask.io.backend import EXTVER, GROUP_TABLE, WCS, JwstBackend, slit_versions
from jwstdask.io.layout import open_layout
from jwstdask.io.metadata import nest
from jwstdask.io.product import ProductHandle, ProductWriter
from jwstdask.io.remote import is_url
from jwstdask.io.schema import is_model, model_schema


def open_exposure(
    path: str | os.PathLike[str], chunks: Any = None, storage_options: dict[str, Any] | None = None
) -> xr.Dataset | xr.DataTree:
    """Open an exposure or product lazily.

    Parameters
    ----------
    path
        Path or URL (s3://, https://) of a FITS file.
    chunks
        As in `xarray.open_dataset`: by default (``{}``) Dask chunks of whole rows with all integrations and groups;
        ``False`` for lazy reading without Dask.
    storage_options
        Passed to fsspec.

    Returns
    -------
    xarray.Dataset
        See `jwstdask.io.backend.dataset_from_layout`. A file with several slits or spectra gives a `xarray.DataTree`
        with a node for each.

    Raises
    ------
    InputError
        If the file is missing, is not FITS, is truncated, or its arrays do not fit together.
    """
    name = os.fspath(path)
    if not is_url(name):
        # Workers may be in other folders.
        name = os.path.abspath(os.path.expanduser(name))
    chunks = {} if chunks is None else None if chunks is False else chunks
    with warnings.catch_warnings():
        # A FITS image is stored as one run of rows: any rows are as good.
        warnings.filterwarnings("ignore", "The specified chunks separate the stored chunks", UserWarning)
        layout: Any = open_layout(name, storage_options)
        if slit_versions(layout):
            return xr.open_datatree(layout, engine=JwstBackend, chunks=chunks)
        return xr.open_dataset(layout, engine=JwstBackend, chunks=chunks)


def write_exposure(
    data: xr.Dataset | xr.DataTree, path: str | os.PathLike[str], model: str | None = None, sync: bool = True
) -> str:
    """Write an exposure as a product, chunk by chunk.

    Parameters
    ----------
    data
        A Dataset as `open_exposure` gives it, or a DataTree with a node a slit. Chunks are computed with the present
        Dask scheduler and written where they are computed, so that workers must see the folder of `path`.
    path
        Path of the product.
    model
        Data model class; ``meta.model_type`` by default, or what fits the dimensions where that does not.
    sync
        Flush to disk before the product gets its name.

    Returns
    -------
    str
        Path of the product.

    Raises
    ------
    ProductError
        If the product cannot be written; nothing is left then.
    """
    root = data.to_dataset() if isinstance(data, xr.DataTree) else data
    model = _model(root, model)
    schema = model_schema(model)
    meta = {key: value for key, value in root.attrs.items() if isinstance(key, str) and key != EXTVER}
    arrays, tables = _contents(root, 1)
    if isinstance(data, xr.DataTree) and schema.list_name is not None:
        slits = [node.to_dataset(inherit=False) for node in data.children.values()]
        slits.sort(key=lambda node: node.attrs.get(EXTVER, 0))
        entries = []
        for version, slit in enumerate(slits, 1):
            entry = nest({key: value for key, value in slit.attrs.items() if key != EXTVER})
            if WCS in slit.coords:
                entry.setdefault("meta", {})["wcs"] = slit.coords[WCS].item()
            entries.append(entry)
            more_arrays, more_tables = _contents(slit, version)
            arrays.update(more_arrays)
            tables.update(more_tables)
        meta[schema.list_name] = entries
    wcs = root.coords[WCS].item() if WCS in root.coords else None
    shapes = {key: (variable.shape, variable.dtype) for key, variable in arrays.items()}
    rows = {key: np.asarray(variable.values) for key, variable in tables.items()}
    with ProductWriter(path, model, meta, shapes, rows, wcs, sync) as product:
        _store(arrays, product.handle)
        return product.finish()


def _contents(
    dataset: xr.Dataset, version: int
) -> tuple[dict[tuple[str, int], xr.Variable], dict[tuple[str, int], xr.Variable]]:
    """Images and tables of a Dataset by (name, EXTVER)."""
    arrays, tables = {}, {}
    for name, variable in dataset.data_vars.items():
        key = (GROUP if name == GROUP_TABLE else str(name), version)
        if variable.dtype.names is not None:
            tables[key] = variable.variable
        else:
            arrays[key] = variable.variable
    return arrays, tables


def _model(dataset: xr.Dataset, model: str | None) -> str:
    """The data model that fits: the one asked for, the Dataset's own, or by dimensions."""
    if model is not None:
        return model
    own = dataset.attrs.get("meta.model_type")
    science = dataset.get("sci")
    if isinstance(own, str) and is_model(own):
        known = model_schema(own).arrays.get("sci")
        if (
            science is None
            or known is None
            or (
                ((known.ndim or known.max_ndim or science.ndim) >= science.ndim and known.dtype == science.dtype)
                and (known.ndim is None or known.ndim == science.ndim)
            )
        ):
            return own
    if science is None:
        raise ProductError("product", "there is no variable sci and attrs name no model", "say model=...")
    if science.dtype == np.uint16:
        return "Level1bModel"
    return {4: "RampModel", 3: "CubeModel"}.get(science.ndim, "ImageModel")


def _store(arrays: Mapping[tuple[str, int], xr.Variable], handle: ProductHandle) -> None:
    sources, targets = [], []
    for key, variable in arrays.items():
        target = _Target(handle, key)
        if variable.chunks is not None:
            sources.append(variable.data)
            targets.append(target)
        elif Y in variable.dims and variable.ndim > 1:
            # Not loaded yet, perhaps: in strips, so that it never is as a whole.
            for start in range(0, variable.sizes[Y], 256):
                part = slice(start, min(start + 256, variable.sizes[Y]))
                box = tuple(part if dim == Y else slice(None) for dim in variable.dims)
                target[box] = variable.isel({Y: part}).values
        else:
            target[(slice(None),) * variable.ndim] = variable.values
    if sources:
        manager: Any = get_chunked_array_type(*sources)
        manager.store(sources, targets, lock=False, compute=True)


class _Target:
    """What a chunked array is stored into: any worker can write its chunk."""

    def __init__(self, handle: ProductHandle, key: tuple[str, int]) -> None:
        self.handle, self.key = handle, key
        self.shape = handle.places[key].shape
        self.dtype = np.dtype(handle.places[key].dtype)

    def __setitem__(self, box: tuple[slice, ...], values: np.ndarray) -> None:
        *leading, rows, columns = box if len(box) > 1 else (slice(None), *box)
        self.handle.write(self.key, values, rows, tuple(leading), columns)
