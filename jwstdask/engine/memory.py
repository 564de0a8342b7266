"""An exposure in memory: arrays in, Datasets out. The same walk as from file to file, with the same bits."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from jwstdask.core.block import RampBlock
from jwstdask.core.dims import GROUP
from jwstdask.core.errors import StepError
from jwstdask.core.plan import ExposurePlan, StepRecord
from jwstdask.engine.executor import Executor, Serial
from jwstdask.engine.exposure import (
    blocks_of,
    data_model,
    joined_meta,
    meta_before,
    most_segments,
    new_meta,
    optional_updates,
    product_updates,
    run_metadata_steps,
    tapped_block,
    tapped_meta,
    walks,
)
from jwstdask.engine.frames import divided, run_in_memory, whole_block
from jwstdask.engine.passes import Block, Pass, strips
from jwstdask.engine.sources import Arrays, MemoryArrays
from jwstdask.engine.superstripes import join_in_memory
from jwstdask.io.backend import GROUP_TABLE, UNITS, WCS, dimensions, flag_attributes
from jwstdask.io.schema import model_schema
from jwstdask.refs.stripes import Superstripes

_ROWS = 128


class MemorySink:
    """Keeps products as arrays.

    Parameters
    ----------
    rows
        The strip whose rows the arrays hold.
    width
        Columns of the frame.
    work
        The pass, which knows the rows of the strip after each step.

    Attributes
    ----------
    arrays
        (product, array name) to (..., row, x); the product is empty for an exposure of the same kind as the input, and
        ``tap:STEP`` for what was saved after a step.
    """

    def __init__(self, rows: tuple[int, int], width: int, work: Pass) -> None:
        self.rows, self.width, self.work = rows, width, work
        self.arrays: dict[tuple[str, str], np.ndarray] = {}
        self._lock = threading.Lock()

    def products(self, block: Block) -> None:
        for kind, found in blocks_of(block).items():
            self._keep(kind, found, block)

    def tap(self, key: str, block: Block) -> None:
        self._keep(f"tap:{key}", tapped_block(key, block), block)

    def _keep(self, kind: str, found: Block, block: Block) -> None:
        rows, columns = block.window.inner_absolute
        after = kind.removeprefix("tap:") if kind.startswith("tap:") else None
        first, last = self.work.rows_after(after, self.rows)
        local = slice(rows.start - first, rows.stop - first)
        for name, array in found.arrays().items():
            with self._lock:
                if (kind, name) not in self.arrays:
                    shape = (*array.shape[:-2], last - first, self.width)
                    self.arrays[kind, name] = np.empty(shape, array.dtype)
            self.arrays[kind, name][..., local, columns] = array[(..., *block.window.inner)]


def process(
    plan: ExposurePlan,
    arrays: Arrays,
    meta: Mapping[str, Any],
    tables: Mapping[str, np.ndarray | xr.Variable],
    wcs: Any = None,
    executor: Executor | None = None,
) -> dict[str, xr.Dataset]:
    """Process an exposure in memory.

    Parameters
    ----------
    plan
        From the planner. Of its paths only the names are used.
    arrays
        The pixels.
    meta
        Metadata of the exposure.
    tables
        Tables of the exposure by lower-case HDU name.
    wcs
        The gwcs object, if the exposure has one.
    executor
        Where strips run: in this process.

    Returns
    -------
    products
        Kind of product to Dataset, and ``tap:STEP`` for intermediate products.

    Raises
    ------
    JwstdaskError
        What went wrong.
    """
    source, meta = meta, {**meta, **plan.updates}
    found_wcs, wcs_updates, records = run_metadata_steps(plan, meta)
    meta.update(wcs_updates)
    walked = walk_parts(plan, meta, source, arrays, records, executor or Serial())
    tally, found, work = walked.tally, walked.found, walked.work
    products = {}
    for kind, values in walked.kinds.items():
        tap = kind.removeprefix("tap:") if kind.startswith("tap:") else None
        given, beside = meta, tables
        if walked.superstripes is not None and kind in walked.frames:
            given = joined_meta(plan, walked.superstripes, meta)
            times = tables.get("int_times")
            beside = walked.superstripes.tables(meta, None if times is None else np.asarray(times))
        kind = product_kind(plan, kind)
        if kind == "fitopt":
            values = _trimmed(values, tally)
        own = tapped_meta(plan, tap, given, source) if tap else new_meta(plan, kind, given, source)
        own.update(
            product_updates(plan, work, records, found, tap)
            if tap
            else optional_updates(plan, work, records, found, kind)
        )
        path = plan.taps.get(tap or "") or plan.products.get(kind, "")
        products[kind] = assemble(kind, values, own, path, beside, found_wcs or wcs)
    return products


@dataclass
class Walked:
    """What an exposure became in memory.

    Attributes
    ----------
    kinds
        Arrays by product and name.
    tally
        Counts of the last pass.
    found
        Step name to metadata that it sets.
    work
        The last pass.
    superstripes
        How superstripes were put together; None if they were not.
    frames
        Products made since then.
    """

    work: Pass
    kinds: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    tally: dict[str, float] = field(default_factory=dict)
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    superstripes: Superstripes | None = None
    frames: set[str] = field(default_factory=set)


def walk_parts(
    plan: ExposurePlan,
    meta: Mapping[str, Any],
    source: Mapping[str, Any],
    arrays: Arrays,
    records: list[StepRecord],
    executor: Executor,
) -> Walked:
    """Send an exposure through a plan.

    Parameters
    ----------
    source
        Metadata of the exposure as it came.
    records
        What became of earlier steps; those of the plan are added.
    """
    parts, failed = divided(plan, meta)
    records += failed
    result: Walked | None = None
    for part in parts:
        work = Pass(part.plan, meta, arrays)
        if not work.steps and not records and plan.pipeline == "ramp_fit":
            reasons = "; ".join(f"{name}: {reason}" for name, reason in work.skipped.items())
            raise StepError(arrays.name, plan.pipeline, f"nothing to do ({reasons})")
        values, tally = _walked(work, executor)
        work.write_side_products()
        result = result or Walked(work)
        result.work, result.tally = work, tally
        result.found |= {item.plan.name: item.step.finish(meta, item.data, tally) for item in work.steps}
        records += work.records()
        if part.frame_step is not None:
            given = meta_before(plan, work, meta, source, records, result.found, part.frame_step.name)
            outcome = run_in_memory(part.frame_step, given, arrays.name, whole_block(values[""]), executor)
            records.append(outcome.record)
            if outcome.spoiled:
                values[""] = _walked(work, executor)[0][""]
            arrays = MemoryArrays(values.pop(""), arrays.name)
        if part.superstripes is not None:
            block = whole_block(values.pop(""))
            assert isinstance(block, RampBlock)
            arrays = MemoryArrays(join_in_memory(part.superstripes, meta, block), arrays.name)
            meta = joined_meta(plan, part.superstripes, meta)
            result.superstripes = part.superstripes
        elif result.superstripes is not None:
            result.frames.update(values)
        result.kinds |= values
    assert result is not None
    return result


def _walked(work: Pass, executor: Executor) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, float]]:
    """Arrays of what a pass makes, by product and name, and its counts."""
    height, width = work.shape[-2:]
    sink = MemorySink((0, height), width, work)
    frame = work.frame(lambda name, shape, dtype: np.empty(shape, dtype))

    def strip(walk: int, revised: bool) -> Any:
        return partial(_strip, work, sink, frame, revised)

    tally = walks(work, strip, executor, strips(work.shape, _ROWS), frame)
    kinds: dict[str, dict[str, np.ndarray]] = {}
    for (kind, name), array in sink.arrays.items():
        kinds.setdefault(kind, {})[name] = array
    return kinds, tally


def _strip(
    work: Pass, sink: MemorySink, frame: RampBlock | None, revised: bool, rows: tuple[int, int]
) -> dict[str, float]:
    return work.strip(rows, sink, frame, revised)


def product_kind(plan: ExposurePlan, kind: str) -> str:
    """Name of a product of a plan, of what the walk calls it."""
    return kind or next((name for name in plan.products if name != "i2d"), "result")


def _trimmed(values: Mapping[str, np.ndarray], tally: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Fits of single segments with as many planes as there are segments and jumps."""
    segments, jumps = most_segments(tally)
    return {
        name: array[:, : jumps if name == "crmag" else segments] if array.ndim == 4 else array
        for name, array in values.items()
    }


def assemble(
    kind: str,
    arrays: Mapping[str, Any],
    meta: Mapping[str, Any],
    path: str,
    tables: Mapping[str, np.ndarray | xr.Variable],
    wcs: Any,
) -> xr.Dataset:
    """A product as the Dataset that opening its file would give.

    Parameters
    ----------
    kind
        Of product.
    arrays
        Name to NumPy or dask array.
    meta
        Metadata; None removes an entry.
    path
        Of the file that the product would have.
    tables
        Tables of the exposure; those that the data model has are kept.
    wcs
        The gwcs object or None.
    """
    model = data_model(kind, {name: array.shape for name, array in arrays.items()}, meta)
    attrs = {name: value for name, value in meta.items() if value is not None}
    attrs |= {"meta.model_type": model}
    if path:
        attrs["meta.filename"] = os.path.basename(path)
    variables: dict[str, xr.Variable] = {}
    for name, array in arrays.items():
        variables[name] = xr.Variable(dimensions(name, array.shape, model, {}), array, flag_attributes(name))
        if isinstance(unit := attrs.get(UNITS.get(name, "")), str):
            variables[name].attrs["units"] = unit
    schema = model_schema(model).arrays
    for name, rows in tables.items():
        if name in schema and schema[name].is_table:
            label = GROUP_TABLE if name == GROUP else name
            variables[label] = rows if isinstance(rows, xr.Variable) else xr.Variable((f"{name}_row",), rows)
    coordinates = {} if wcs is None else {WCS: xr.Variable((), _scalar(wcs))}
    return xr.Dataset(variables, coordinates, attrs)


def _scalar(value: Any) -> np.ndarray:
    array = np.empty((), object)
    array[()] = value
    return array


def tables_of(ds: xr.Dataset) -> dict[str, xr.Variable]:
    """Tables of an exposure by lower-case HDU name, not loaded."""
    return {
        GROUP if name == GROUP_TABLE else str(name): variable.variable
        for name, variable in ds.data_vars.items()
        if variable.dtype.names is not None
    }
