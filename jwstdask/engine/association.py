"""An association through Stage 3: members are gathered, combined, and written."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jwstdask.core.errors import JwstdaskError, PlanError, StepError
from jwstdask.core.plan import AssociationPlan, ExposurePlan, Outcome, StepPlan, StepRecord
from jwstdask.engine.executor import Executor, Serial
from jwstdask.engine.log import at_step, map_parts
from jwstdask.engine.outcome import measured
from jwstdask.engine.passes import open_references, reason_of
from jwstdask.io.exposure import Exposure
from jwstdask.io.product import ProductHandle, ProductWriter, make_folder
from jwstdask.io.remote import is_url, join, publish
from jwstdask.io.schema import model_schema
from jwstdask.io.temporary import replacing, scratch_folder

log = logging.getLogger("jwstdask")


@dataclass
class Tools:
    """What an association step may use besides its members.

    Attributes
    ----------
    executor
        Where mapped functions run.
    scratch
        Folder for temporary files; removed at the end.
    save_results
        Whether products are written.
    """

    executor: Executor
    scratch: Path
    save_results: bool = True

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """``function`` of each item, in order, on all workers. The function must be picklable and idempotent."""
        return map_parts(self.executor, function, items)

    def log(self, message: str) -> None:
        """A line for the log of the association."""
        log.info(message)


def run_association(plan: AssociationPlan, executor: Executor | None = None) -> Outcome:
    """Process one association.

    Returns
    -------
    outcome
        With the error, if there was one; no half-written product is left.
    """
    return measured(plan, partial(_in_scratch, plan, executor or Serial()))


def _in_scratch(plan: AssociationPlan, executor: Executor) -> Outcome:
    members = (path for paths in plan.member_products.values() for path in paths)
    folder = os.path.dirname(next(iter((*plan.products.values(), *members)), "")) or "."
    with scratch_folder(folder) as scratch:
        if not is_url(folder):
            return _run(plan, Tools(executor, scratch))
        # What steps write beside the products, such as catalogues, is sent after them.
        (scratch / "scratch").mkdir()
        outcome = _run(plan, Tools(executor, scratch / "scratch"))
        for path in sorted(item for item in scratch.iterdir() if item.is_file()):
            publish(str(path), join(folder, path.name))
        return outcome


def _run(plan: AssociationPlan, tools: Tools) -> Outcome:
    members = [Exposure(path) for path in plan.members]
    if not members:
        raise PlanError(f"{plan.name}: the association has no science members")
    for index, member in enumerate(members):
        member.meta.update(plan.updates)
        if plan.member_updates:
            member.meta.update(plan.member_updates[index])
    products: dict[str, str] = {}
    records: list[StepRecord] = []
    combined: Exposure | None = None
    for item in plan.steps:
        clock = time.process_time()
        at_step(item.name)
        targets = members if combined is None else [combined]
        reason = item.skip
        if reason is None:
            try:
                if item.step.alias == "resample":
                    found = _resample(item, plan.products, members, tools)
                    products.update(found)
                    combined = Exposure(found["i2d"]) if "i2d" in found else None
                elif item.step.alias == "source_catalog":
                    reason = _source_catalog(item, plan, combined, tools, products)
                elif item.step.alias == "outlier_detection":
                    reason = _outliers(item, plan, members, tools)
                else:
                    reason = item.step.run(members, open_references(item), tools)  # type: ignore[attr-defined]
            except JwstdaskError:
                raise
            except Exception as error:
                raise StepError(plan.name, item.name, reason_of(error)) from error
        status = "COMPLETE" if reason is None else "SKIPPED" if item.skip is not None else item.step.status_if_undone
        for target in targets:
            if item.skip is not None or not item.step.status_by_member:
                target.meta[f"meta.cal_step.{item.step.status}"] = status
        records.append(StepRecord(item.name, status, reason or "", time.process_time() - clock))
        if item.name in plan.member_products:
            paths = tools.map(_write_member, list(zip(members, plan.member_products[item.name], strict=True)))
            kind = "crf" if item.step.alias == "outlier_detection" else item.name
            products.update({f"{kind}:{index}": path for index, path in enumerate(paths)})
            for member, path in zip(members, paths, strict=True):
                member.meta["meta.filename"] = os.path.basename(path)
    return Outcome(plan.name, plan.pipeline, products, tuple(records))


def _outliers(item: StepPlan, plan: AssociationPlan, members: Sequence[Exposure], tools: Tools) -> str | None:
    """Flag outliers: the members read as NaN where they were found; the reason if nothing was done."""
    found = item.step.run(members, open_references(item), tools)  # type: ignore[attr-defined]
    for image in found.intermediate:
        arrays = {name: np.load(path, mmap_mode="r") for name, path in image.arrays.items()}
        shapes = {name: (array.shape, "float32") for name, array in arrays.items()}
        path = plan.intermediate[image.suffix][image.member]
        make_folder(path)
        with ProductWriter(path, "ImageModel", known_metadata(image.meta), shapes, wcs=image.wcs) as writer:
            for name, array in arrays.items():
                writer.write(name, array)
            writer.finish()
    for member, mask in zip(members, found.masks):
        member.masks.append(os.fspath(mask))
    return found.skipped


def _write_member(pair: tuple[Exposure, str]) -> str:
    """A member with its new WCS, metadata and outlier flags, as a product of its own."""
    member, path = pair
    make_folder(path)
    layout = member.layout
    images = {
        hdu.name.lower(): (tuple(hdu.shape), hdu.dtype.name)
        for hdu in layout
        if hdu.kind == "image" and hdu.size and hdu.name != "PRIMARY"
    }
    tables = {
        hdu.name.lower(): layout.table(hdu.name)
        for hdu in layout
        if hdu.kind == "table" and hdu.name not in ("ASDF", "HDRTAB")
    }
    model = layout.model or "ImageModel"
    with ProductWriter(path, model, member.meta, images, tables, member.wcs) as writer:
        rows = 256
        for name, (shape, _) in images.items():
            for start in range(0, shape[-2], rows):
                band = slice(start, min(start + rows, shape[-2]))
                writer.write(name, member.read(name, band), rows=band)
        return writer.finish()


def _resample(item: StepPlan, paths: Mapping[str, str], members: Sequence[Exposure], tools: Tools) -> dict[str, str]:
    """The combined image of the members, or one an exposure, written tile by tile; kind of product to path."""
    result = item.step.run(members, open_references(item), tools)  # type: ignore[attr-defined]
    images = (
        {f"i2d:{index}": image for index, image in enumerate(result)} if isinstance(result, list) else {"i2d": result}
    )
    for kind, image in images.items():
        write_resampled(image, paths[kind], tools)
    return {kind: paths[kind] for kind in images}


def write_resampled(result: Any, path: str, tools: Tools) -> str:
    """Compute a resampled image tile by tile into its product."""
    make_folder(path)
    arrays = {name: (tuple(shape), np.dtype(dtype).name) for name, (shape, dtype) in result.arrays.items()}
    tables = {} if result.table is None else {"hdrtab": result.table}
    with ProductWriter(path, "ImageModel", known_metadata(result.meta), arrays, tables, result.wcs) as writer:
        result.write(partial(_write_tile, writer.handle), tools.map)
        return writer.finish()


def known_metadata(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a product made anew: keywords that no data model knows are not carried over, but for our own."""
    own = [card for card in meta.get("extra_fits.PRIMARY", ()) if card[0] == "JDASKVER"]
    known = {name: value for name, value in meta.items() if name.startswith("meta.")}
    return {**known, "extra_fits.PRIMARY": own} if own else known


def _write_tile(handle: ProductHandle, name: str, rows: slice, columns: slice, array: np.ndarray) -> None:
    handle.write(name, array, rows=rows, columns=columns)


def _source_catalog(
    item: StepPlan, plan: AssociationPlan, combined: Exposure | None, tools: Tools, products: dict[str, str]
) -> str | None:
    """The catalogue of the combined image and its segmentation map; the reason if there is none."""
    if combined is None:
        return "there is no combined image"
    found = item.step.run([combined], open_references(item), tools)  # type: ignore[attr-defined]
    if isinstance(found, str):
        return found
    products["cat"] = _write_table(found.table, plan.products["cat"])
    if found.segmentation is None:
        return None
    shape, dtype = found.segmentation.shape, found.segmentation.dtype.name
    known = model_schema("SegmentationMapModel").keywords
    meta = {
        name: value for name, value in combined.meta.items() if name in known or not name.startswith("meta.resample.")
    }
    meta |= {**found.meta, "meta.source_catalog": os.path.basename(products["cat"])}
    arrays = {"sci": (shape, dtype)}
    with ProductWriter(plan.products["segm"], "SegmentationMapModel", meta, arrays, wcs=combined.wcs) as writer:
        writer.write("sci", found.segmentation)
        products["segm"] = writer.finish()
    return None


def _write_table(table: Any, path: str) -> str:
    with replacing(path) as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)
    return path


def resample_exposure(
    plan: ExposurePlan, cal: str, meta: Mapping[str, Any], wcs: Any, executor: Executor
) -> tuple[str, StepRecord]:
    """The resampled image of a single calibrated exposure (the last step of calwebb_image2).

    As in jwst the WCS is the one that was made, not the one read again from the product, which is the same but for the
    last bits of positions; the scale of the image, a small difference of two positions, shows those.
    """
    item = next(step for step in plan.steps if step.step.alias == "resample")
    clock = time.process_time()
    path = plan.products["i2d"]
    with scratch_folder(os.path.dirname(path) or ".") as scratch:
        member = Exposure(cal)
        member.meta.update(meta)
        member.wcs = wcs
        # A single exposure has no metadata to combine with.
        step = replace(item.step, blendheaders=False)  # type: ignore[call-arg]
        result = step.run([member], {}, Tools(executor, scratch))  # type: ignore[attr-defined]
        write_resampled(result, path, Tools(executor, scratch))
    return path, StepRecord(item.name, "COMPLETE", seconds=time.process_time() - clock)
