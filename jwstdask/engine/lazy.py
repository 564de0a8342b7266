"""The lazy face of a pass: Dataset in, Datasets out, one fused task a strip.

Nothing is read or computed until a result is. A corner of a result computes that corner, unless a step must see the
whole frame (snowballs): then the flags of all strips are computed first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from jwstdask.core.block import Window
from jwstdask.core.dims import GROUP, INTEGRATION, X, Y
from jwstdask.core.errors import InputError
from jwstdask.core.plan import ExposurePlan
from jwstdask.engine.exposure import blocks_of, data_model, product_updates, run_metadata_steps
from jwstdask.engine.passes import Block, Pass, strips
from jwstdask.engine.sources import Arrays

_SOURCES = ("sci", "pixeldq", "groupdq", "zeroframe", "err", "dq", "var_poisson", "var_rnoise", "var_flat")
_DIMENSIONS = {2: (Y, X), 3: (INTEGRATION, Y, X), 4: (INTEGRATION, GROUP, Y, X)}


class WindowArrays(Arrays):
    """Arrays known in some windows of the frame only.

    Parameters
    ----------
    held
        Pairs of window and its arrays by name.
    shape
        Shape of the science array of the whole frame.
    name
        How messages call the exposure.
    """

    def __init__(self, held: list[tuple[Window, Mapping[str, np.ndarray]]], shape: tuple[int, ...], name: str) -> None:
        self.held, self.shape, self.name = held, shape, name
        self._names = set(held[0][1]) if held else set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str, window: Window, dtype: type) -> np.ndarray:
        for box, arrays in self.held:
            if box.y0 <= window.y0 and window.y1 <= box.y1 and box.x0 <= window.x0 and window.x1 <= box.x1:
                rows = slice(window.y0 - box.y0, window.y1 - box.y0)
                columns = slice(window.x0 - box.x0, window.x1 - box.x0)
                return np.array(arrays[name][..., rows, columns], dtype, order="C")
        raise KeyError(f"{name} is not held at {window}")


class MemorySink:
    """Keeps the products of a strip as arrays: (product, array) to (..., row, x)."""

    def __init__(self, rows: tuple[int, int], width: int) -> None:
        self.rows, self.width = rows, width
        self.arrays: dict[tuple[str, str], np.ndarray] = {}

    def products(self, block: Block) -> None:
        rows, columns = block.window.inner_absolute
        local = slice(rows.start - self.rows[0], rows.stop - self.rows[0])
        for kind, found in blocks_of(block).items():
            for name, array in found.arrays().items():
                if (kind, name) not in self.arrays:
                    shape = (*array.shape[:-2], self.rows[1] - self.rows[0], self.width)
                    self.arrays[kind, name] = np.empty(shape, array.dtype)
                self.arrays[kind, name][..., local, columns] = array[(..., *block.window.inner)]

    def tap(self, step: str, block: Block) -> None:
        pass


@dataclass(frozen=True)
class Recipe:
    """What the tasks of one exposure share."""

    plan: ExposurePlan
    meta: Mapping[str, Any]
    shape: tuple[int, ...]
    name: str


def _held(windows: list[Window], names: list[str], arrays: list[np.ndarray]) -> list[tuple[Window, dict[str, np.ndarray]]]:
    count = len(names)
    return [
        (window, dict(zip(names, arrays[index * count : (index + 1) * count], strict=True)))
        for index, window in enumerate(windows)
    ]


def _gather(recipe: Recipe, windows: list[Window], names: list[str], *arrays: np.ndarray) -> dict[str, Any]:
    source = WindowArrays(_held(windows, names, list(arrays)), recipe.shape, recipe.name)
    return Pass(recipe.plan, recipe.meta, source).shipped()


def _strip(
    recipe: Recipe,
    gathered: Mapping[str, Any],
    revision: tuple[np.ndarray, np.ndarray] | None,
    rows: tuple[int, int],
    window: Window,
    names: list[str],
    *arrays: np.ndarray,
) -> tuple[dict[tuple[str, str], np.ndarray], dict[str, float]]:
    source = WindowArrays(_held([window], names, list(arrays)), recipe.shape, recipe.name)
    work = Pass(recipe.plan, recipe.meta, source, gathered)
    sink = MemorySink(rows, recipe.shape[-1])
    if revision is None:
        return sink.arrays, work.strip(rows, sink)
    flags, touched = revision
    return sink.arrays, work.strip(rows, sink, flags, np.ones_like(touched))


def _flags(
    recipe: Recipe,
    gathered: Mapping[str, Any],
    rows: tuple[int, int],
    window: Window,
    names: list[str],
    *arrays: np.ndarray,
) -> tuple[np.ndarray, dict[str, float]]:
    source = WindowArrays(_held([window], names, list(arrays)), recipe.shape, recipe.name)
    work = Pass(recipe.plan, recipe.meta, source, gathered)
    flags = np.zeros(recipe.shape, np.uint8)
    tally = work.strip(rows, MemorySink(rows, recipe.shape[-1]), flags)
    return flags[..., slice(*rows), :].copy(), tally


def _revise(recipe: Recipe, gathered: Mapping[str, Any], strips_of_flags: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    flags = np.concatenate([found for found, _ in strips_of_flags], axis=-2)
    work = Pass(recipe.plan, recipe.meta, WindowArrays([], recipe.shape, recipe.name), gathered)
    return flags, work.revise(flags)


def _data(ds: xr.Dataset, name: str, window: Window) -> Any:
    """The dask or lazily indexed array of a window."""
    return ds[name].variable[..., window.rows, window.columns].data


def _demand(plan: ExposurePlan, meta: Mapping[str, Any], shape: tuple[int, ...]) -> list[Window]:
    """Windows that the steps gather, with the halo of all steps before."""
    halo, found = 0, []
    for item in plan.active:
        if item.step.kind != "block":
            continue
        for window in item.step.gather_windows(meta):
            found.append(Window.around(window.y0, window.y1, window.x0, window.x1, halo, (shape[-2], shape[-1])))
        halo += item.step.halo
    return found


@dataclass(frozen=True)
class _Probe:
    """What the products will be, found by sending a small window of zeros through the steps."""

    frame: bool
    layout: dict[tuple[str, str], tuple[tuple[int, ...], np.dtype]]
    updates: dict[str, Any]


def _probe(recipe: Recipe, ds: xr.Dataset, names: list[str]) -> _Probe:
    """Send zeros through the steps: shapes and dtypes of the products without reading a pixel."""
    shape = recipe.shape
    frame = (shape[-2], shape[-1])

    class Zeros(Arrays):
        name = recipe.name

        def __contains__(self, name: str) -> bool:
            return name in names

        def read(self, name: str, window: Window, dtype: type) -> np.ndarray:
            return np.zeros((*ds[name].shape[:-2], *window.shape), dtype)

    source = Zeros()
    source.shape = shape
    work = Pass(recipe.plan, recipe.meta, source)
    window = Window.around(0, min(8, shape[-2]), 0, min(16, shape[-1]), work.halo, frame)
    block = source.block(window)
    work.apply(block, 0, len(work.steps))
    layout = {
        (kind, name): (array.shape[:-2], array.dtype)
        for kind, found in blocks_of(block).items()
        for name, array in found.arrays().items()
        if array.ndim >= 2
    }
    updates: dict[str, Any] = {}
    for item in work.steps:
        updates.update(item.step.finish(recipe.meta, item.data, dict(block.tally)))
    return _Probe(work.frame_step is not None, layout, {**updates, **product_updates(recipe.plan, work, [], updates, None)})


def _dataset(
    variables: Mapping[str, Any], meta: Mapping[str, Any], kind: str, plan: ExposurePlan, wcs: Any, ds: xr.Dataset
) -> xr.Dataset:
    """A product as a Dataset, with the tables of the exposure."""
    found = xr.Dataset(dict(variables), attrs=dict(meta))
    found.attrs["meta.model_type"] = data_model(kind, variables["sci"][1].shape, plan.exp_type)
    if "int_times" in ds and variables["sci"][1].ndim > 2:
        found["int_times"] = ds["int_times"]
    if wcs is not None:
        found = found.assign_coords(wcs=xr.Variable((), wcs))
    elif "wcs" in ds.coords:
        found = found.assign_coords(wcs=ds.coords["wcs"])
    return found


def apply(plan: ExposurePlan, ds: xr.Dataset, rows: int = 64) -> dict[str, xr.Dataset]:
    """Products of a plan on a Dataset, lazily.

    Parameters
    ----------
    plan
        What to do; its paths of products are not used.
    ds
        Exposure with ``sci`` ([integration, group,] y, x) and its flags and errors, metadata in ``attrs``.
    rows
        Rows of a strip.

    Returns
    -------
    products
        Product name (``rate``, ``rateints``, or an empty string for an exposure of the same kind) to Dataset.

    Raises
    ------
    InputError
        If there is no ``sci``.
    """
    name = str(ds.attrs.get("meta.filename") or ds.encoding.get("source") or "dataset")
    if "sci" not in ds:
        raise InputError(name, "there is no variable sci", "an exposure needs one")
    shape = tuple(ds["sci"].shape)
    meta: dict[str, Any] = {**ds.attrs, **plan.updates}
    wcs, wcs_updates, records = run_metadata_steps(plan, meta)
    meta.update(wcs_updates)
    recipe = Recipe(plan, meta, shape, name)
    names = [item for item in _SOURCES if item in ds]
    windows = _demand(plan, meta, shape)
    pieces = [_data(ds, item, window) for window in windows for item in names]
    gathered = dask.delayed(_gather, pure=False)(recipe, windows, names, *pieces)
    active = [item for item in plan.active if item.step.kind == "block"]
    halo = sum(item.step.halo for item in active)
    ranges = strips(shape, rows)
    boxes = [Window.around(start, stop, 0, shape[-1], halo, (shape[-2], shape[-1])) for start, stop in ranges]
    inputs = [[_data(ds, item, box) for item in names] for box in boxes]
    probe = _probe(recipe, ds, names)
    revision = None
    if probe.frame:
        flags = [
            dask.delayed(_flags, pure=False)(recipe, gathered, pair, box, names, *arrays)
            for pair, box, arrays in zip(ranges, boxes, inputs, strict=True)
        ]
        revision = dask.delayed(_revise, pure=False)(recipe, gathered, flags)
    done = [
        dask.delayed(_strip, pure=False)(recipe, gathered, revision, pair, box, names, *arrays)
        for pair, box, arrays in zip(ranges, boxes, inputs, strict=True)
    ]
    variables: dict[str, dict[str, Any]] = {}
    for (kind, array), (lead, dtype) in probe.layout.items():
        parts = [
            da.from_delayed(strip[0][kind, array], (*lead, stop - start, shape[-1]), dtype)
            for strip, (start, stop) in zip(done, ranges, strict=True)
        ]
        whole = da.concatenate(parts, axis=-2)
        dims = _DIMENSIONS.get(whole.ndim, tuple(f"{array}_{axis}" for axis in range(whole.ndim - 2)) + (Y, X))
        variables.setdefault(kind, {})[array] = (dims, whole)
    return {
        kind: _dataset(found, {**meta, **probe.updates}, kind, plan, wcs, ds) for kind, found in variables.items()
    }
