"""The lazy face of a pass: Dataset in, Datasets out, one fused task a strip.

Nothing is read or computed until a result is. A corner of a result computes that corner, unless a step must see the
whole frame (snowballs): then the flags of all strips are computed first. Steps that gather (reference pixels) read the
parts of the frame that they ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from jwstdask.core.block import Window
from jwstdask.core.dims import Y
from jwstdask.core.errors import InputError, StepError
from jwstdask.core.plan import ExposurePlan, StepRecord
from jwstdask.engine.executor import Serial
from jwstdask.engine.exposure import blocks_of, joined_meta, new_meta, product_updates, run_metadata_steps
from jwstdask.engine.frames import divided
from jwstdask.engine.memory import MemorySink, assemble, product_kind, tables_of, walk_parts
from jwstdask.engine.passes import Pass, merge_tallies, strips, whole_frame
from jwstdask.engine.sources import Arrays, MemoryArrays
from jwstdask.engine.superstripes import shapes
from jwstdask.io.backend import WCS

_SOURCES = (
    "sci",
    "pixeldq",
    "groupdq",
    "zeroframe",
    "avdrkcur",
    "err",
    "dq",
    "var_poisson",
    "var_rnoise",
    "var_flat",
)
_WHOLE_EXPOSURE = frozenset(("fitopt", "likely_chisq"))
"""Products whose size is known only when all is computed."""

_ROWS = 128


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

    def read(self, name: str, window: Window, dtype: type, integrations: slice = slice(None)) -> np.ndarray:
        for box, arrays in self.held:
            if box.y0 <= window.y0 and window.y1 <= box.y1 and box.x0 <= window.x0 and window.x1 <= box.x1:
                rows = slice(window.y0 - box.y0, window.y1 - box.y0)
                columns = slice(window.x0 - box.x0, window.x1 - box.x0)
                array = arrays[name][integrations] if arrays[name].ndim > 2 else arrays[name]
                return np.array(array[..., rows, columns], dtype, order="C")
        raise KeyError(f"{name} is not held at {window}")


class _Zeros(Arrays):
    """An exposure of zeros with the names and shapes of another."""

    def __init__(self, leading: Mapping[str, tuple[int, ...]], shape: tuple[int, ...], name: str) -> None:
        self.leading, self.shape, self.name = leading, shape, name

    def __contains__(self, name: str) -> bool:
        return name in self.leading

    def read(self, name: str, window: Window, dtype: type, integrations: slice = slice(None)) -> np.ndarray:
        leading = tuple(self.leading[name])
        if leading:
            leading = (len(range(*integrations.indices(leading[0]))), *leading[1:])
        return np.zeros((*leading, *window.shape), dtype)


@dataclass(frozen=True)
class Recipe:
    """What the tasks of one exposure share.

    Attributes
    ----------
    plan
        What to do.
    meta
        Metadata of the exposure.
    names
        Arrays that it has.
    shape
        Of the science array.
    name
        How messages call it.
    """

    plan: ExposurePlan
    meta: Mapping[str, Any]
    names: tuple[str, ...]
    shape: tuple[int, ...]
    name: str

    def work(self, windows: list[Window], arrays: tuple[np.ndarray, ...], gathered: Mapping[str, Any] | None) -> Pass:
        """The pass over some windows, given their arrays one after the other."""
        count = len(self.names)
        held: list[tuple[Window, Mapping[str, np.ndarray]]] = [
            (window, dict(zip(self.names, arrays[index * count : (index + 1) * count], strict=True)))
            for index, window in enumerate(windows)
        ]
        return Pass(self.plan, self.meta, WindowArrays(held, self.shape, self.name), gathered)


def _gather(recipe: Recipe, windows: list[Window], *arrays: np.ndarray) -> dict[str, Any]:
    return recipe.work(windows, arrays, None).shipped()


def _strip(
    recipe: Recipe,
    gathered: Mapping[str, Any],
    revised: tuple[np.ndarray, Mapping[str, Any]] | None,
    rows: tuple[int, int],
    window: Window,
    *arrays: np.ndarray,
) -> dict[tuple[str, str], np.ndarray]:
    work = recipe.work([window], arrays, gathered if revised is None else revised[1])
    sink = MemorySink(rows, recipe.shape[-1], work)
    if revised is None:
        tally = work.strip(rows, sink)
        steps = slice(None)
    else:
        tally = work.strip(rows, sink, whole_frame(work.shape, {"groupdq": revised[0]}), revised=True)
        steps = slice((work.frame_step or 0) + 1, None)
    # The strip cannot know the counts of the frame: it can only tell that a frame like itself would contradict.
    height, strip = work.shape[-2], rows[1] - rows[0]
    _refuse(recipe, work, {name: count * height / strip for name, count in tally.items()}, steps)
    return sink.arrays


def _refuse(recipe: Recipe, work: Pass, tally: Mapping[str, float], steps: slice) -> None:
    step = work.contradicted(tally, steps)
    if step is not None:
        raise StepError(
            recipe.name,
            step,
            "the exposure is not like the rows that were looked at first, and must be gone through once more",
            "Lazy results cannot do that: use .call or .run.",
        )


def _whole(recipe: Recipe, *arrays: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """All products at once, for a plan with a step on whole frames."""
    given = MemoryArrays(dict(zip(recipe.names, arrays, strict=True)), recipe.name)
    records: list[StepRecord] = []
    # Nothing is saved that had to tell what came with the exposure.
    values = walk_parts(recipe.plan, recipe.meta, recipe.meta, given, records, Serial()).kinds
    for record in records:
        if record.status == "FAILED":
            remedy = "Lazy results cannot go on without it: use .call or .run."
            raise StepError(recipe.name, record.name, record.reason, remedy)
    return {(kind, name): array for kind, found in values.items() for name, array in found.items()}


def _flags(
    recipe: Recipe, gathered: Mapping[str, Any], rows: tuple[int, int], window: Window, *arrays: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """What the frame step needs of a strip."""
    work = recipe.work([window], arrays, gathered)
    frame = work.frame(lambda name, shape, dtype: np.zeros((*shape[:-2], rows[1], shape[-1]), dtype), whole=False)
    assert frame is not None
    tally = work.strip(rows, MemorySink(rows, recipe.shape[-1], work), frame)
    names = ("groupdq", *work.frame_arrays)
    return {name: getattr(frame, name)[..., slice(*rows), :].copy() for name in names}, tally


def _revise(
    recipe: Recipe, gathered: Mapping[str, Any], parts: list[tuple[dict[str, np.ndarray], dict[str, float]]]
) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Revised flags of the whole frame, and what is gathered with these."""
    work = recipe.work([], (), gathered)
    _refuse(recipe, work, merge_tallies(tally for _, tally in parts), slice((work.frame_step or 0) + 1))
    arrays = {name: np.concatenate([part[name] for part, _ in parts], axis=-2) for name in parts[0][0]}
    frame = whole_frame(work.shape, arrays)
    work.revise(frame)
    return frame.groupdq, work.shipped()


def _demand(plan: ExposurePlan, meta: Mapping[str, Any], shape: tuple[int, ...]) -> list[Window]:
    """Windows that the steps gather, with the halo of all steps before."""
    halo, found = 0, []
    for item in plan.active:
        if item.step.kind != "block":
            continue
        around = 0 if item.step.gathers_alone(meta) else halo
        found += [
            Window.around(window.y0, window.y1, window.x0, window.x1, around, (shape[-2], shape[-1]))
            for window in item.step.gather_windows(meta)
        ]
        halo += item.step.halo
    return found


@dataclass(frozen=True)
class _Probe:
    """What the products will be, found by sending a small window of zeros through the steps."""

    frame: bool
    layout: dict[tuple[str, str], tuple[tuple[int, ...], np.dtype]]
    updates: dict[str, Any]
    work: Pass


def _probe(
    recipe: Recipe, plan: ExposurePlan, leading: Mapping[str, tuple[int, ...]], records: list[StepRecord]
) -> _Probe:
    """Send zeros through the steps: shapes and dtypes of the products of ``plan`` without reading a pixel."""
    work = Pass(recipe.plan, recipe.meta, _Zeros(leading, recipe.shape, recipe.name), gathered={})
    shape = work.shape
    window = Window.around(0, min(8, shape[-2]), 0, min(16, shape[-1]), work.halo, (shape[-2], shape[-1]))
    block = work.tile(window)
    work.apply(block, work.early, len(work.steps))
    layout = {
        (kind, name): (array.shape[:-2], array.dtype)
        for kind, found in blocks_of(block).items()
        for name, array in found.arrays().items()
        if array.ndim >= 2 and kind not in _WHOLE_EXPOSURE
    }
    found = {item.plan.name: item.step.finish(recipe.meta, item.data, dict(block.tally)) for item in work.steps}
    updates = product_updates(plan, work, records, found, None)
    for item in work.steps:
        # What counts of the whole frame decide is not known.
        updates.update(dict.fromkeys(item.step.counted))
    return _Probe(work.frame_step is not None, layout, updates, work)


def apply(plan: ExposurePlan, ds: xr.Dataset, rows: int = _ROWS) -> dict[str, xr.Dataset]:
    """Products of a plan on a Dataset, lazily.

    Parameters
    ----------
    plan
        What to do; of its paths only the names are used.
    ds
        Exposure with ``sci`` ([integration, group,] y, x) and its flags and errors, metadata in ``attrs``. Arrays that
        are not chunked are taken in chunks of ``rows``.
    rows
        Rows of a strip: the chunks of the products.

    Returns
    -------
    products
        Kind of product to Dataset. Metadata that follow from counts over the whole frame (the number of cosmic rays)
        are absent.

    Raises
    ------
    InputError
        If there is no ``sci``.
    JwstdaskError
        If a step cannot be prepared.
    """
    name = str(ds.attrs.get("meta.filename") or ds.encoding.get("source") or "dataset")
    if "sci" not in ds:
        raise InputError(name, "there is no variable sci", "an exposure needs one")
    steps = tuple(replace(item, step=item.step.with_side_products(lambda *_: None)) for item in plan.steps)
    plan = replace(plan, steps=steps, taps={})
    shape = tuple(ds["sci"].shape)
    meta: dict[str, Any] = {**ds.attrs, **plan.updates}
    wcs, wcs_updates, records = run_metadata_steps(plan, meta)
    meta.update(wcs_updates)
    variables = {item: ds[item].variable for item in _SOURCES if item in ds}
    variables = {
        item: variable if variable.chunks is not None else variable.chunk({Y: rows})
        for item, variable in variables.items()
    }
    names = tuple(variables)
    recipe = Recipe(plan, meta, names, shape, name)
    parts, failed = divided(plan, meta)
    records += failed
    leading = {item: variable.shape[:-2] for item, variable in variables.items()}
    tables: Mapping[str, np.ndarray | xr.Variable] = tables_of(ds)
    own, late = recipe, parts
    joined = next((number for number, part in enumerate(parts, start=1) if part.superstripes is not None), 0)
    if joined:
        early = tuple(item for part in parts[:joined] for item in part.plan.steps)
        records += Pass(replace(plan, steps=early), meta, _Zeros(leading, shape, name), gathered={}).records()
        stripes, late = parts[joined - 1].superstripes, parts[joined:]
        assert stripes is not None
        arrays_of_frame = shapes(stripes, meta, shape)
        leading = {item: size[:-2] for item, (size, _) in arrays_of_frame.items()}
        times = tables.get("int_times")
        tables = stripes.tables(meta, None if times is None else np.asarray(times))
        own = replace(recipe, meta=joined_meta(plan, stripes, meta), shape=arrays_of_frame["sci"][0])
    # Steps on whole frames leave the shapes as they are.
    tiled = replace(own, plan=replace(plan, steps=tuple(item for part in late for item in part.plan.steps)))
    records += [StepRecord(part.frame_step.name, "COMPLETE") for part in late if part.frame_step is not None]
    probe = _probe(tiled, plan, leading, records)

    def pieces(windows: list[Window]) -> list[da.Array]:
        return [variables[item].data[..., window.rows, window.columns] for window in windows for item in names]

    # One node of the graph: it is tokenized and shipped once.
    shared = dask.delayed(recipe, name=f"recipe-{dask.base.tokenize(recipe)}", traverse=False)
    halo = sum(item.step.halo for item in plan.active if item.step.kind == "block")
    frame, kept = probe.work.shape, probe.work.kept
    ranges = strips(frame, rows) if len(parts) == 1 else [(0, frame[-2])]
    boxes = [Window.around(start, stop, 0, frame[-1], halo, (frame[-2], frame[-1])) for start, stop in ranges]
    if kept is not None:
        boxes = [kept.outer(box) for box in boxes]
    if len(parts) > 1:
        done = [dask.delayed(_whole, pure=True)(shared, *(variables[item].data for item in names))]
    else:
        windows = _demand(tiled.plan, meta, shape)
        gathered = dask.delayed(_gather, pure=True)(shared, windows, *pieces(windows))
        revised = None
        if probe.frame:
            flags = [
                dask.delayed(_flags, pure=True)(shared, gathered, pair, box, *pieces([box]))
                for pair, box in zip(ranges, boxes, strict=True)
            ]
            revised = dask.delayed(_revise, pure=True)(shared, gathered, flags)
        done = [
            dask.delayed(_strip, pure=True)(shared, gathered, revised, pair, box, *pieces([box]))
            for pair, box in zip(ranges, boxes, strict=True)
        ]
    saved = [probe.work.rows_after(None, pair) for pair in ranges]
    products: dict[str, dict[str, da.Array]] = {}
    for (kind, array), (lead, dtype) in probe.layout.items():
        pieces_of_product = [
            da.from_delayed(strip[kind, array], (*lead, stop - start, frame[-1]), dtype)
            for strip, (start, stop) in zip(done, saved, strict=True)
        ]
        products.setdefault(kind, {})[array] = da.concatenate(pieces_of_product, axis=-2)
    own_wcs = wcs if wcs is not None else ds[WCS].item() if WCS in ds.coords else None
    datasets = {}
    for walked, arrays in products.items():
        kind = product_kind(plan, walked)
        attrs = {**new_meta(plan, kind, own.meta, ds.attrs), **probe.updates}
        datasets[kind] = assemble(kind, arrays, attrs, plan.products.get(kind, ""), tables, own_wcs)
    return datasets
