"""Plans of associations: Stage 3, and single steps that take several exposures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jwstdask.core.errors import ProductError
from jwstdask.core.pipeline import Pipeline
from jwstdask.core.plan import AssociationPlan, StepPlan
from jwstdask.core.settings import Settings
from jwstdask.engine.readers import in_parallel
from jwstdask.io.naming import file_name, product_path
from jwstdask.pipelines.configure import check_layers
from jwstdask.pipelines.planner import (
    Draft,
    Request,
    choose_references,
    choose_steps,
    configure_all,
    crds_version,
    open_draft,
    software,
)
from jwstdask.program.associations import Association, Product
from jwstdask.steps.imaging.drizzle import group_id

_MEMBERS_CHANGED = ("assign_mtwcs", "tweakreg", "skymatch", "outlier_detection")
_COMBINING = ("tweakreg", "skymatch", "outlier_detection", "resample")


def plan_association(
    target: type,
    association: Association,
    settings: Settings,
    metas: Mapping[str, Mapping[str, Any]] | None = None,
    kept: list[Draft | None] | None = None,
) -> list[AssociationPlan]:
    """Plans of the products of an association.

    Parameters
    ----------
    target
        Stage 3 pipeline, or a step that combines exposures.
    association
        The association.
    settings
        The request.
    metas
        Metadata by path, of members that are not written yet.
    kept
        Gets the draft of each plan, whose parameters are those of all members; None where there is none.

    Returns
    -------
    plans
        One a product. What is wrong with the members is the ``error`` of its plan.

    Raises
    ------
    ParameterError
        If the user's own parameters are wrong.
    """
    check_layers(target, settings.layers)
    plans = []
    for product in association.products:
        drafts: list[Draft] = []
        try:
            file_name(product.name, "product of an association")
            plans.append(_plan(target, association, product, settings, metas or {}, drafts))
        except ProductError as error:
            # Names come from files: those that lead elsewhere concern their product alone.
            plan = AssociationPlan(product.name, target.alias, product.of_type("science"))  # type: ignore[attr-defined]
            plans.append(replace(plan, error=f"{association.path or product.name}: {error}"))
        if kept is not None:
            kept.append(drafts[0] if drafts else None)
    return plans


def _plan(
    target: type,
    association: Association,
    product: Product,
    settings: Settings,
    metas: Mapping[str, Mapping[str, Any]],
    drafts: list[Draft],
) -> AssociationPlan:
    members = product.of_type("science")
    plan = AssociationPlan(product.name, target.alias, members)  # type: ignore[attr-defined]
    if not members:
        return replace(plan, error=f"{product.name}: the association has no science members")
    drafts += in_parallel(partial(open_draft, target), [Request(path, meta=metas.get(path)) for path in members])
    broken = [draft.error for draft in drafts if draft.error is not None]
    if broken:
        return replace(
            plan, error=f"{product.name}: {len(broken)} of {len(members)} members cannot be used: {broken[0]}"
        )
    first: Draft = drafts[0]
    configure_all(target, [first], settings)
    if first.error is None:
        choose_steps(target, [first], settings)
    if first.error is None:
        choose_references([first], settings)
    if first.error is not None or first.configured is None:
        return replace(plan, error=first.error)
    own = first.configured.parameters
    # A file given to a single step is no association: nothing is combined.
    alone = not association.path and len(members) == 1 and not issubclass(target, Pipeline)
    if alone:
        first.steps = [
            replace(item, step=replace(item.step, blendheaders=False)) if item.name == "resample" else item  # type: ignore[call-arg]
            for item in first.steps
        ]
    folder = settings.output_dir or own.output_dir
    if issubclass(target, Pipeline):
        base, suffix = own.output_file or product.name, own.suffix or "i2d"
    else:
        # As in jwst: a step alone is named after the association's file.
        base = own.output_file or association.path or product.name
        suffix = own.suffix or _class_suffix(first)
    extension = own.output_ext
    products: dict[str, str] = {}
    running = {item.name: item.step for item in first.steps if item.skip is None}
    if "resample" in running:
        products["i2d"] = product_path(base, suffix, folder, extension=extension)
        if running["resample"].single:  # type: ignore[attr-defined]
            groups = {group_id(draft.meta, index) for index, draft in enumerate(drafts)}
            name = partial(product_path, base, suffix, folder, extension=extension)
            products = {f"i2d:{index}": name([index]) for index in range(len(groups))}
    if "source_catalog" in running:
        products["cat"] = product_path(base, "cat", folder, extension="ecsv")
        products["segm"] = product_path(base, "segm", folder, extension=extension)
    saved, intermediate = _member_paths(target, association, members, first, base, folder)
    updates = software(first.meta)
    if not alone:
        updates |= {"meta.asn.pool_name": association.pool, "meta.asn.table_name": association.table_name}
    if first.context:
        updates["meta.ref_file.crds.context_used"] = first.context
        updates["meta.ref_file.crds.sw_version"] = crds_version()
    # The references of the catalogue's step are not stated in the products made before it.
    stated = {reftype for item in first.steps if item.name != "source_catalog" for reftype in item.references}
    for reftype, name in first.reference_names.items():
        if reftype in stated:
            updates[f"meta.ref_file.{reftype}.name"] = name
    return replace(
        plan,
        branch=first.branch,
        steps=tuple(first.steps),
        products=products,
        member_products=saved,
        intermediate=intermediate,
        updates=updates,
        member_updates=_member_updates(association, product, members, first.steps),
        context=first.context,
    )


def _member_paths(
    target: type, association: Association, members: tuple[str, ...], first: Draft, base: str, folder: str | None
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Where the members are saved after each step, and what outlier_detection saves besides, named as in jwst."""
    assert first.configured is not None
    own, pipeline = first.configured.parameters, issubclass(target, Pipeline)
    saved: dict[str, tuple[str, ...]] = {}
    intermediate: dict[str, tuple[str, ...]] = {}
    names: Sequence[str] = members
    for item in first.steps:
        step = item.step
        if item.skip is not None or step.alias not in _MEMBERS_CHANGED:
            continue
        outliers = step.alias == "outlier_detection"
        components = [association.asn_id] if outliers else []
        if outliers and step.save_intermediate_results:  # type: ignore[attr-defined]
            for suffix in ("outlier_i2d", "median", "blot"):
                intermediate[suffix] = tuple(
                    product_path(name, suffix, step.output_dir or folder, components, own.output_ext) for name in names
                )
        if pipeline and not outliers and not step.save_results:
            continue
        suffix = (step.suffix or ("crf" if outliers else item.name)) if pipeline else own.suffix or _class_suffix(first)
        # Either each is named after its exposure, or all after the association with numbers.
        by_exposure = step.output_use_model or (own.output_file is None and not step.search_output_file)
        saved[item.name] = tuple(
            product_path(
                name if by_exposure else base,
                suffix,
                step.output_dir or folder,
                components if by_exposure else [*components, index],
                own.output_ext,
            )
            for index, name in enumerate(names)
        )
        names = saved[item.name]
    return saved, intermediate


def _class_suffix(draft: Draft) -> str:
    assert draft.configured is not None
    return draft.configured.name.lower()


def _member_updates(
    association: Association, product: Product, members: tuple[str, ...], steps: list[StepPlan]
) -> tuple[Mapping[str, Any], ...]:
    """Metadata of the members that the association sets."""
    if not product.attributes:
        return ()
    custom = any(
        item.name == "tweakreg" and item.step.use_custom_catalogs and not item.step.catfile.strip()  # type: ignore[attr-defined]
        for item in steps
        if item.skip is None
    )
    found = []
    for path in members:
        given = dict(product.attributes.get(path, {}))
        # The folder of the association matters only where its catalogues are used, as in jwst.
        if custom and given.get("tweakreg_catalog", "").strip():
            given["tweakreg_catalog"] = os.path.join(os.path.dirname(association.path), given["tweakreg_catalog"])
        found.append({f"meta.{name}": value for name, value in given.items()})
    return tuple(found)


def combines(target: type) -> bool:
    """Whether a pipeline or step takes an association of exposures."""
    if issubclass(target, Pipeline):
        return target.stage == 3
    return target.kind == "association" and target.alias in (*_COMBINING, "assign_mtwcs")
