"""One exposure through Stage 1, or the pixel steps of Stage 2: from file to products.

The same functions serve both grains. One exposure is one task whose strips run one after the other; or its strips are
tasks of their own, on threads or on the workers of a cluster. A task is a path, row numbers and small parameters: its
pixels come from the file and go to the file, so it can be run again anywhere.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from jwstdask.core.block import ImageBlock, RampBlock, Window
from jwstdask.core.errors import StepError
from jwstdask.core.exposure_types import GUIDER
from jwstdask.core.imports import numba_without_blas, numba_without_parsed_kernels
from jwstdask.core.plan import ExposurePlan, Outcome, StepRecord, tapped_step
from jwstdask.engine.association import resample_exposure
from jwstdask.engine.census import Census, count_product, counted_products, of_tally, recount_groups
from jwstdask.engine.executor import Cluster, Executor, Serial
from jwstdask.engine.frames import divided, run_in_file
from jwstdask.engine.heap import keep_freed_memory
from jwstdask.engine.limits import available_memory
from jwstdask.engine.log import at_step, map_parts
from jwstdask.engine.outcome import measured
from jwstdask.engine.parcel import Parcel
from jwstdask.engine.passes import (
    Block,
    Pass,
    add_counts,
    merge_tallies,
    open_references,
    strips,
    whole_frame,
)
from jwstdask.engine.sources import FileArrays
from jwstdask.engine.superstripes import join_in_file
from jwstdask.io.layout import FitsLayout, open_layout
from jwstdask.io.metadata import has_wcs, read_metadata, read_wcs
from jwstdask.io.product import MappedImages, Outflow, ProductHandle, ProductWriter, make_folder
from jwstdask.io.schema import model_schema
from jwstdask.io.temporary import FileArray, scratch_folder, temporary_path
from jwstdask.io.turned import TurnedImages
from jwstdask.refs.stripes import Superstripes

STRIP_BYTES = 10_500_000
"""Product bytes that a strip may hold before they are written: 128 rows of two products of 2048 pixels."""

_LONGEST_STRIP = 4 * STRIP_BYTES
"""Product bytes of the lowest strip from which on tiles are written one by one."""

LARGEST_IN_MEMORY = 8_000_000
"""Bytes of an array of the whole frame from which on it is in a file rather than in the memory of the process."""

_CACHED = 0.5
"""Part of the memory that the system may be expected to have for the pages of an exposure and its products."""

_KEPT = 0.1
"""Part of the memory from which on products are sent to disk while they are made, as Linux does by itself."""

_NEW_MODELS = frozenset(("rate", "rateints", "fitopt", "likely_chisq"))
"""Products that are made anew from the metadata: what the data model does not know is not carried over."""

LAST_STEP = {"fitopt": "before:ramp_fit", "likely_chisq": "before:ramp_fit"}
"""Products whose header does not state the steps that made them, as in jwst."""

_GAIN_FACTOR = "meta.exposure.gain_factor"

_IMAGES_ONLY = ("meta.wcsinfo.", "meta.pointing.", "meta.coordinates.", "meta.bunit_err")
"""Metadata that the data model of optional results does not know."""

_SEGMENTS = "ramp_fit.segments."
"""Beginning of the counts of segments and jumps of a tile."""

_TAPPED = {"before:ramp_fit": "ramp"}
"""Kinds of products that are saved on the way."""

_MOST_WALKS = 4
"""Walks over an exposure whose counts contradict what was gathered."""

_IFU = frozenset(("MIR_MRS", "NRS_IFU"))
_LAMPS = frozenset(("NRS_AUTOWAVE", "NRS_LAMP"))


def blocks_of(block: Block) -> dict[str, Block]:
    """The products that a block holds after all steps: name to block."""
    if isinstance(block, RampBlock) and block.products:
        return dict(block.products)
    return {"": block}


def tapped_block(key: str, block: Block) -> Block:
    """What is saved of a block by a key of the plan's taps."""
    kind = tapped_step(key)[1]
    return block.products[kind] if kind and isinstance(block, RampBlock) else block


def data_model(kind: str, shapes: Mapping[str, tuple[int, ...]], meta: Mapping[str, Any]) -> str:
    """jwst's data model for a product, by the shapes of its arrays, of which the first is of the data."""
    exp_type = meta.get("meta.exposure.type")
    if kind == "fitopt":
        return "RampFitOutputModel"
    if kind == "likely_chisq":
        return "ImageModel"
    dimensions = len(next(iter(shapes.values())))
    if len(shapes.get("pixeldq", ())) == 3:
        return "SuperstripeRampModel"
    if exp_type in GUIDER:
        return "GuiderRawModel" if dimensions == 4 else "GuiderCalModel"
    if dimensions == 2:
        ifu = exp_type in _IFU or (exp_type in _LAMPS and meta.get("meta.instrument.lamp_mode") == "IFU")
        return "IFUImageModel" if ifu else "ImageModel"
    return {3: "CubeModel", 4: "RampModel"}[dimensions]


@dataclass
class StripSink:
    """Writes whole rows, collecting the tiles of a strip if these are not as wide; or writes tiles in place.

    Attributes
    ----------
    handles
        Product name to its handle.
    taps
        Step name to the handle of the product saved after it.
    rows
        The strip's rows in the product after all steps (None) and after those that are saved; or None to write tiles
        in place.
    images
        By which tiles are written in place.
    census
        Counts of the flags of products, by name.
    """

    handles: Mapping[str, ProductHandle]
    taps: Mapping[str, ProductHandle]
    rows: Mapping[str | None, tuple[int, int]] | None
    images: MappedImages = field(default_factory=MappedImages)
    census: dict[str, Any] = field(default_factory=dict)
    _strips: dict[tuple[str, str, str | None], np.ndarray] = field(default_factory=dict)

    def products(self, block: Block) -> None:
        found = blocks_of(block)
        counted = counted_products(self.handles)
        for kind, handle in self.handles.items():
            given = found.get(kind, found.get(""))
            if given is None:
                continue
            written = self._keep(handle, given, block.window, None)
            if kind in counted and "dq" in written:
                count_product(kind, written["dq"], self.census)

    def tap(self, key: str, block: Block) -> None:
        self._keep(self.taps[key], tapped_block(key, block), block.window, key)

    def _keep(self, handle: ProductHandle, block: Block, window: Window, after: str | None) -> dict[str, np.ndarray]:
        """Write the inner part of a block, or keep it for `flush`; what that is, by name."""
        inner = (..., *window.inner)
        rows, columns = window.inner_absolute
        arrays = {name: array[inner] for name, array in block.arrays().items() if (name, 1) in handle.places}
        if self.rows is None:
            handle.write_all(arrays, rows=rows, columns=columns, images=self.images)
            return arrays
        whole = {}
        for name, array in arrays.items():
            shape = handle.places[name, 1].shape
            if columns.stop - columns.start == shape[-1]:
                whole[name] = array
                continue
            key = (handle.temporary, name, after)
            first, last = self.rows[after]
            if key not in self._strips:
                self._strips[key] = np.empty((*shape[:-2], last - first, shape[-1]), array.dtype)
            local = slice(rows.start - first, rows.stop - first)
            self._strips[key][..., local, columns] = array
        handle.write_all(whole, rows=rows)
        return arrays

    def flush(self) -> None:
        """Write the strip."""
        if self.rows is None:
            return
        by_file = {handle.temporary: handle for handle in (*self.handles.values(), *self.taps.values())}
        for (temporary, name, after), array in self._strips.items():
            by_file[temporary].write(name, array, rows=slice(*self.rows[after]))
        self._strips.clear()


@dataclass(frozen=True)
class StripTask:
    """What a process needs to do strips of an exposure: some kilobytes, picklable.

    ``gathered`` has what was gathered of the whole frame, by step, ``frame`` the arrays of the whole frame, where a
    step must see it, and ``dark`` the mean dark current that goes with them.
    """

    plan: ExposurePlan
    meta: Mapping[str, Any]
    gathered: Parcel
    handles: Mapping[str, ProductHandle]
    taps: Mapping[str, ProductHandle]
    frame: Mapping[str, FileArray] = field(default_factory=dict)
    dark: float | None = None
    walk: int = 0


_prepared = threading.local()


def run_strip(task: StripTask, rows: tuple[int, int], revised: bool = False) -> dict[str, float]:
    """Do a strip in whatever process this is; the prepared pass is kept for the next strip of the exposure."""
    key = (task.walk, *(handle.temporary for handle in task.handles.values()))
    if getattr(_prepared, "key", None) != key:
        _prepared.work = Pass(task.plan, task.meta, FileArrays.open(task.plan.path), task.gathered.open())
        _prepared.key = key
    work = _prepared.work
    arrays = {name: held.array for name, held in task.frame.items()}
    frame = whole_frame(work.shape, arrays, task.dark) if arrays else None
    return _strip(work, task.handles, task.taps, frame, revised, rows, alone=False)


def _strip(
    work: Pass,
    handles: Mapping[str, ProductHandle],
    taps: Mapping[str, ProductHandle],
    frame: RampBlock | None,
    revised: bool,
    rows: tuple[int, int],
    alone: bool = True,
    turned: str | os.PathLike[str] | None = None,
    outflow: Outflow | None = None,
) -> dict[str, float]:
    spans = {after: work.rows_after(after, rows) for after in (None, *taps)}
    held = (rows[1] - rows[0]) * bytes_of_row((*handles.values(), *taps.values()))
    by_strip = held <= _LONGEST_STRIP or work.kept is not None
    images: MappedImages
    if turned is not None:
        by_strip, images = False, TurnedImages(slice(*rows), turned)
    else:
        images = MappedImages(None if by_strip else slice(*rows), alone)
    sink = StripSink(handles, taps, spans if by_strip else None, images)
    tally = work.strip(rows, sink, frame, revised)
    add_counts(tally, sink.census)
    sink.flush()
    images.finish()
    if outflow is not None:
        outflow.finished(slice(*rows))
    return tally


def run_exposure(plan: ExposurePlan, executor: Executor | None = None) -> Outcome:
    """Process one exposure.

    Parameters
    ----------
    plan
        From the planner.
    executor
        Where its strips run; one after the other in this thread by default.

    Returns
    -------
    outcome
        With the error, if there was one: nothing is raised but KeyboardInterrupt, and no half-written product is left.
    """
    keep_freed_memory()
    numba_without_blas()
    numba_without_parsed_kernels()
    return measured(plan, partial(_run, plan, executor or Serial()))


def _run(plan: ExposurePlan, executor: Executor) -> Outcome:
    arrays = FileArrays.open(plan.path)
    read = read_metadata(arrays.layout, complete=True)
    meta: dict[str, Any] = {**read, **plan.updates}
    # As jwst: errors name the file as it is called now.
    meta["meta.filename"] = os.path.basename(plan.path)
    wcs, wcs_updates, records = run_metadata_steps(plan, meta)
    meta.update(wcs_updates)
    if wcs is None and has_wcs(arrays.layout):
        wcs = read_wcs(arrays.layout)
    parts, failed = divided(plan, meta)
    records += failed
    found: dict[str, dict[str, Any]] = {}
    saved: dict[str, str] = {}
    counted: Census = {}
    with contextlib.ExitStack() as stack:
        source = arrays
        folder = stack.enter_context(scratch_folder(_folder(plan) or os.curdir, make=False))
        for part in parts:
            if part.name:
                # Messages name the exposure by the name of its file.
                scratch = str(folder / part.name / os.path.basename(plan.path))
                make_folder(scratch)
            else:
                scratch = None
            work = Pass(replace(part.plan, path=source.layout.path), meta, source, scratch=str(folder))
            if not work.steps and plan.pipeline == "ramp_fit":
                reasons = "; ".join(f"{name}: {reason}" for name, reason in work.skipped.items())
                raise StepError(arrays.name, plan.pipeline, f"nothing to do ({reasons})")
            known = {**meta, **{name: value for updates in found.values() for name, value in updates.items()}}
            with open_products(plan, work, arrays, known, read, wcs, scratch) as (writers, taps):
                handles = {kind: writer.handle for kind, writer in writers.items()}
                tap_handles = {step: writer.handle for step, writer in taps.items()}
                tally = _walk(work, handles, tap_handles, executor)
                work.write_side_products()
                found |= {item.plan.name: item.step.finish(meta, item.data, tally) for item in work.steps}
                saved |= {
                    step: writer.finish(product_updates(plan, work, records, found, step))
                    for step, writer in taps.items()
                }
                paths = {
                    kind: writer.finish(optional_updates(plan, work, records, found, kind))
                    for kind, writer in writers.items()
                }
            records += work.records()
            counted |= of_tally(tally)
            if part.frame_step is not None and scratch is not None:
                given = meta_before(plan, work, meta, read, records, found, part.frame_step.name)
                outcome = run_in_file(part.frame_step, given, scratch, executor)
                records.append(outcome.record)
                if outcome.spoiled:
                    work.plan = replace(work.plan, taps={})
                    with open_products(work.plan, work, arrays, known, read, wcs, scratch) as (writers, _):
                        _walk(work, {kind: writer.handle for kind, writer in writers.items()}, {}, executor)
                        writers[""].finish()
                source = FileArrays.open(scratch)
            if part.superstripes is not None and scratch is not None:
                target = str(folder / "frame" / os.path.basename(plan.path))
                make_folder(target)
                arrays = source = join_in_file(part.superstripes, meta, scratch, arrays.layout, target)
                os.unlink(scratch)
                meta = joined_meta(plan, part.superstripes, meta)
    if "fitopt" in paths:
        paths["fitopt"] = trim_fitopt(paths["fitopt"], plan.products["fitopt"], tally)
    if "i2d" in plan.products:
        paths["i2d"], record = resample_exposure(plan, paths["cal"], plan.updates, wcs, executor)
        records.append(record)
    ordered = {record.name: record for record in records}
    return Outcome(
        plan.path,
        plan.pipeline,
        {**paths, **{_TAPPED.get(step, f"tap:{step}"): path for step, path in saved.items()}},
        tuple(ordered[item.name] for item in plan.steps if item.name in ordered),
        census=counted,
    )


def _folder(plan: ExposurePlan) -> str | None:
    """Folder of the products of a plan."""
    path = next(iter((*plan.products.values(), *plan.taps.values())), None)
    return None if path is None else os.path.dirname(os.path.abspath(path))


def run_metadata_steps(plan: ExposurePlan, meta: Mapping[str, Any]) -> tuple[Any, dict[str, Any], list[StepRecord]]:
    """Run the steps that touch no pixel (assign_wcs): wcs, metadata updates, records."""
    wcs, records = None, []
    updates: dict[str, Any] = {}
    for item in plan.steps:
        if item.step.kind != "metadata":
            continue
        if item.skip is not None:
            records.append(StepRecord(item.name, "SKIPPED", item.skip))
            continue
        clock = time.thread_time()
        at_step(item.name)
        wcs, found = item.step.run_exposure({**meta, **updates}, open_references(item))  # type: ignore[attr-defined]
        updates.update(found)
        records.append(StepRecord(item.name, "COMPLETE", seconds=time.thread_time() - clock))
    return wcs, updates, records


def strip_height(bytes_per_row: int) -> int:
    """Rows of a strip, given the bytes of a row of all products together."""
    # Tiles that are written one by one may be higher than a strip that is held.
    least = 32 if 16 * bytes_per_row > _LONGEST_STRIP else 16
    return int(np.clip(STRIP_BYTES // max(bytes_per_row, 1) // 16 * 16, least, 128))


def bytes_of_row(handles: Iterable[ProductHandle]) -> int:
    """Bytes of a row of the frame in all products together."""
    return sum(
        int(np.prod(place.shape, dtype=np.int64)) // place.shape[-2] * np.dtype(place.dtype).itemsize
        for handle in handles
        for place in handle.places.values()
    )


def _walk(
    work: Pass, handles: Mapping[str, ProductHandle], taps: Mapping[str, ProductHandle], executor: Executor
) -> dict[str, float]:
    """All strips; where a step must see the whole frame, up to it, the revision, and from there on."""
    per_row = bytes_of_row((*handles.values(), *taps.values()))
    row_ranges = strips(work.shape, strip_height(per_row))
    with contextlib.ExitStack() as stack:
        folder = os.path.dirname(next(iter((*handles.values(), *taps.values()))).temporary)
        scratch = stack.enter_context(scratch_folder(folder, make=False))
        held: dict[str, FileArray] = {}

        def allocate(name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
            size = math.prod(shape) * np.dtype(dtype).itemsize
            if size <= LARGEST_IN_MEMORY and not isinstance(executor, Cluster):
                return np.empty(shape, dtype)
            held[name] = FileArray(scratch, shape, dtype, in_pieces=True)
            return held[name].array

        frame = work.frame(allocate)
        turned = outflow = None
        # Workers of a cluster may be on other machines, whose caches are theirs.
        if not isinstance(executor, Cluster) and per_row * work.shape[-2] > _KEPT * available_memory():
            outflow = Outflow((*handles.values(), *taps.values()))
        if not isinstance(executor, Cluster) and _outgrows_memory(work, per_row * work.shape[-2]):
            assert isinstance(work.source, FileArrays)
            work.source.turn(scratch)
            turned = scratch

        def strip(walk: int, revised: bool) -> Any:
            if not isinstance(executor, Cluster):
                return partial(_strip, work, handles, taps, frame, revised, turned=turned, outflow=outflow)
            dark = None if frame is None else frame.average_dark_current
            dark = None if isinstance(dark, np.ndarray) else dark
            gathered = Parcel.of(work.shipped(), scratch)
            task = StripTask(work.plan, work.meta, gathered, handles, taps, held, dark, walk)
            return partial(run_strip, task, revised=revised)

        return walks(work, strip, executor, row_ranges, frame)


def _outgrows_memory(work: Pass, written: int) -> bool:
    """Whether a series is gone through in tiles of few pixels, and too long to stay in the cache of the system."""
    if not work.early:
        return False
    return 2 * math.prod(work.source.shape) + written > _CACHED * available_memory()


def walks(
    work: Pass,
    strip: Callable[[int, bool], Callable[[tuple[int, int]], dict[str, float]]],
    executor: Executor,
    row_ranges: list[tuple[int, int]],
    frame: RampBlock | None,
) -> dict[str, float]:
    """All strips, once more where their counts contradict what was gathered; in two parts where a step sees the frame.

    Parameters
    ----------
    work
        The pass.
    strip
        Given the number of the walk and whether the frame has been revised, a function that does a strip and returns
        its counts.
    executor
        Where strips run.
    row_ranges
        The strips.
    frame
        Where the ramp of the whole frame is held, if a step must see it.

    Returns
    -------
    tally
        Counts over all strips.
    """
    first = slice(None) if work.frame_step is None else slice(work.frame_step + 1)
    for walk in range(_MOST_WALKS):
        tally = merge_tallies(map_parts(executor, strip(walk, False), row_ranges))
        if not work.regather(tally, first):
            break
    if frame is None:
        return tally
    work.revise(frame)
    recount_groups(frame.groupdq, tally)
    for again in range(walk + 1, walk + 1 + _MOST_WALKS):
        later = merge_tallies(map_parts(executor, strip(again, True), row_ranges))
        if not work.regather(later, slice(first.stop, None)):
            break
    add_counts(tally, later)
    return tally


@contextlib.contextmanager
def open_products(
    plan: ExposurePlan,
    work: Pass,
    arrays: FileArrays,
    meta: Mapping[str, Any],
    source: Mapping[str, Any],
    wcs: Any,
    scratch: str | None = None,
) -> Iterator[tuple[dict[str, ProductWriter], dict[str, ProductWriter]]]:
    """Writers of all products and intermediate products; those not finished are removed at the end.

    ``source`` is the metadata of the exposure as it came, of which ``meta`` has been made.
    With ``scratch`` the pass is not the last one: its only product, called ``""``, goes to that path.
    """
    template = Template(work)
    writers: dict[str, ProductWriter] = {}
    taps: dict[str, ProductWriter] = {}
    try:
        if scratch is not None:
            ramp = template.products[""]
            model = data_model("", _shapes(ramp), meta)
            writers[""] = ProductWriter(scratch, model, {}, ramp, sync=False)
        for kind, path in plan.products.items() if scratch is None else ():
            found = template.products.get(kind) or template.products.get("")
            if found is None or kind == "i2d":
                continue
            model = data_model(kind, _shapes(found), meta)
            given = meta if kind in LAST_STEP else {**meta, **template.updates}
            product_meta = new_meta(plan, kind, given, source)
            if kind == "fitopt":
                path = temporary_path(path)
            writers[kind] = _writer(path, model, found, arrays.layout, product_meta, wcs)
        for step, path in plan.taps.items():
            if step in template.taps:
                found = template.taps[step]
                model = data_model("", _shapes(found), meta)
                given, own = dict(meta), wcs
                if before_wcs(plan, step):
                    given = {**source, **plan.updates}
                    own = read_wcs(arrays.layout) if has_wcs(arrays.layout) else None
                if tapped_step(step)[1]:
                    # Units of its images: these stand in a file in the order in which something is known of them.
                    given |= template.updates
                taps[step] = _writer(path, model, found, arrays.layout, tapped_meta(plan, step, given, source), own)
        yield writers, taps
    finally:
        for writer in (*writers.values(), *taps.values()):
            writer.abort()


def trim_fitopt(padded: str, path: str, tally: Mapping[str, float]) -> str:
    """Write the fits of single segments with as many planes as the exposure has segments and jumps.

    How many there are is known only when all tiles are done: the tally names the counts of each tile.
    """
    segments, jumps = most_segments(tally)
    layout = open_layout(padded)
    try:
        images = [hdu for hdu in layout if hdu.kind == "image" and hdu.ndim]
        planes = {hdu.name: jumps if hdu.name == "CRMAG" else segments for hdu in images if hdu.ndim == 4}
        shapes = {
            hdu.name.lower(): (
                (hdu.shape[0], planes[hdu.name], *hdu.shape[2:]) if hdu.name in planes else hdu.shape,
                hdu.dtype.name,
            )
            for hdu in images
        }
        with ProductWriter(path, "RampFitOutputModel", read_metadata(layout, complete=True), shapes) as writer:
            for hdu in images:
                if planes.get(hdu.name) == 0:
                    continue
                leading = (slice(None), slice(0, planes[hdu.name])) if hdu.name in planes else ()
                for start, stop in strips(hdu.shape, 128):
                    rows = slice(start, stop)
                    writer.write(hdu.name.lower(), layout.read(hdu.name, rows=rows, leading=leading), rows=rows)
            return writer.finish()
    finally:
        os.unlink(padded)


def most_segments(tally: Mapping[str, float]) -> tuple[int, int]:
    """Greatest numbers of segments and of jumps of a ramp, which the tally names."""
    counts = [name.split(".")[2:] for name in tally if name.startswith(_SEGMENTS)]
    return max(int(count[0]) for count in counts), max(int(count[1]) for count in counts)


def new_meta(plan: ExposurePlan, kind: str, meta: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with which a product starts; ``source`` is that of the exposure."""
    if kind in LAST_STEP:
        meta = tapped_meta(plan, LAST_STEP[kind], meta, source)
    if kind == "fitopt":
        meta = {name: value for name, value in meta.items() if not name.startswith(_IMAGES_ONLY)}
    if kind in _NEW_MODELS or (kind == "cal" and any(item.name == "guider_cds" for item in plan.active)):
        found = {**without_extra(meta), **without_extra(plan.updates, keep=True)}
        found.pop("meta.exposure.read_times", None)
        return found
    return dict(meta)


def joined_meta(plan: ExposurePlan, stripes: Superstripes, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of an exposure whose superstripes have been put together: a new model, as the rates are."""
    return {**without_extra(stripes.metadata(meta)), **without_extra(plan.updates, keep=True)}


def before_wcs(plan: ExposurePlan, step: str) -> bool:
    """Whether a step comes before one that gives the exposure its WCS."""
    names = [item.name for item in plan.steps]
    step, _ = tapped_step(step)
    later = plan.steps[names.index(step) :] if step in names else ()
    return any(item.step.kind == "metadata" and item.skip is None for item in later)


_CONTEXT = tuple(f"meta.ref_file.crds.{name}" for name in ("context_used", "sw_version"))


def tapped_meta(plan: ExposurePlan, last: str, meta: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a product saved on the way: the references of the steps after ``last`` are not in it yet.

    What these replace is in it: names in ``source``, the metadata of the exposure, and before the first reference its
    context.
    """
    used: set[str] = set()
    last_step, kind = tapped_step(last)
    for item in plan.steps:
        if last == f"before:{item.name}":
            break
        used.update(item.named_references(meta))
        kind = "cal" if item.name == "guider_cds" else kind
        if last_step == item.name:
            break
    others = {reftype for item in plan.steps for reftype in item.named_references(meta)} - used
    later = {f"meta.ref_file.{reftype}.name" for reftype in others}
    if not used:
        later.update(_CONTEXT)
    kept = {name: value for name, value in meta.items() if name not in later}
    kept.update({name: source[name] for name in later if name in source})
    return new_meta(plan, kind, kept, source)


def meta_before(
    plan: ExposurePlan,
    work: Pass,
    meta: Mapping[str, Any],
    source: Mapping[str, Any],
    records: list[StepRecord],
    found: Mapping[str, Mapping[str, Any]],
    step: str,
) -> dict[str, Any]:
    """Metadata for a step on whole frames: what it saves besides the products knows what was done before."""
    last = f"before:{step}"
    known = {**tapped_meta(plan, last, meta, source), **product_updates(plan, work, records, found, last)}
    return {**without_extra(known), **without_extra(meta, keep=True)}


def without_extra(meta: Mapping[str, Any], keep: bool = False) -> dict[str, Any]:
    """Metadata without keywords that no data model knows; with ``keep`` only the program's own of those."""
    if keep:
        own = [card for card in meta.get("extra_fits.PRIMARY", ()) if card[0] == "JDASKVER"]
        return {"extra_fits.PRIMARY": own} if own else {}
    return {name: value for name, value in meta.items() if not name.startswith(("extra_fits.", "history"))}


class Template:
    """Which arrays the products will have, found by sending a small window through all steps."""

    def __init__(self, work: Pass) -> None:
        self.taps: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {}
        block = work.sample(tap=self._tap(work))
        self.products = {kind: _arrays(found, work.shape_after(None)) for kind, found in blocks_of(block).items()}
        self.updates: dict[str, Any] = {}
        for item in work.steps:
            self.updates.update(item.step.finish(work.meta, item.data, dict(block.tally)))

    def _tap(self, work: Pass) -> Any:
        def keep(key: str, block: Block) -> None:
            self.taps[key] = _arrays(tapped_block(key, block), work.shape_after(key))

        return keep


def _shapes(arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, (shape, _) in arrays.items()}


def _arrays(block: Block, shape: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        name: ((*array.shape[:-2], *shape[-2:]), array.dtype.name)
        for name, array in block.arrays().items()
        if array.ndim >= 2
    }


def _writer(
    path: str,
    model: str,
    arrays: Mapping[str, tuple[tuple[int, ...], str]],
    layout: FitsLayout,
    meta: Mapping[str, Any],
    wcs: Any,
) -> ProductWriter:
    schema = model_schema(model)
    tables = {
        hdu.name.lower(): layout.table(hdu.name)
        for hdu in layout
        if hdu.kind == "table" and hdu.name.lower() in schema.arrays and schema.arrays[hdu.name.lower()].is_table
    }
    # MIRI's fifth output, which no step changes
    name = "refout"
    carried = name in layout and name in schema.arrays and name not in arrays
    shape = layout.hdu(name).shape if carried else ()
    make_folder(path)
    writer = ProductWriter(path, model, meta, {**arrays, name: (shape, "float32")} if carried else arrays, tables, wcs)
    for integration in range(shape[0] if carried else 0):
        part = (slice(integration, integration + 1),)
        writer.write(name, np.asarray(layout.read(name, leading=part), np.float32), leading=part)
    return writer


def product_updates(
    plan: ExposurePlan,
    work: Pass,
    records: list[StepRecord],
    found: Mapping[str, Mapping[str, Any]],
    last: str | None,
) -> dict[str, Any]:
    """Final metadata of a product: what the steps set, and their status.

    Parameters
    ----------
    found
        Step name to what its ``finish`` returned.
    last
        The last step that the product has been through, ``before:NAME`` for the one before; None for all.
    """
    status = {record.name: record.status for record in (*records, *work.records())}
    updates: dict[str, Any] = {}
    for item in plan.steps:
        if last == f"before:{item.name}":
            break
        updates.update(found.get(item.name, {}))
        if item.name in status and item.recorded:
            updates[f"meta.cal_step.{item.step.status}"] = status[item.name]
        if last is not None and tapped_step(last)[0] == item.name:
            break
    return updates


def optional_updates(
    plan: ExposurePlan, work: Pass, records: list[StepRecord], found: Mapping[str, Mapping[str, Any]], kind: str
) -> dict[str, Any]:
    """Those of a kind of product: optional results know the factor of the gain, too."""
    updates = product_updates(plan, work, records, found, LAST_STEP.get(kind))
    factor = found.get("ramp_fit", {}).get(_GAIN_FACTOR)
    if kind in LAST_STEP and factor is not None:
        updates[_GAIN_FACTOR] = factor
    return updates


__all__ = ["ImageBlock", "StripSink", "StripTask", "run_exposure", "run_strip"]
