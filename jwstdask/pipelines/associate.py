"""Plans of associations: Stage 3, and single steps that take several exposures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from jwstdask.core.pipeline import Pipeline
from jwstdask.core.plan import AssociationPlan
from jwstdask.core.settings import Settings
from jwstdask.io.naming import product_path
from jwstdask.pipelines.planner import (
    Draft,
    Request,
    check_layers,
    choose_references,
    choose_steps,
    configure_all,
    open_draft,
    software,
)
from jwstdask.program.associations import Association, Product

_COMBINING = ("tweakreg", "skymatch", "outlier_detection", "resample")


def plan_association(
    target: type,
    association: Association,
    settings: Settings,
    metas: Mapping[str, Mapping[str, Any]] | None = None,
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
    return [_plan(target, association, product, settings, metas or {}) for product in association.products]


def _plan(
    target: type,
    association: Association,
    product: Product,
    settings: Settings,
    metas: Mapping[str, Mapping[str, Any]],
) -> AssociationPlan:
    members = product.of_type("science")
    plan = AssociationPlan(product.name, target.alias, members)  # type: ignore[attr-defined]
    if not members:
        return replace(plan, error=f"{product.name}: the association has no science members")
    drafts = [open_draft(target, Request(path, meta=metas.get(path))) for path in members]
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
    base = own.output_file or product.name
    extension = own.output_ext
    suffix = own.suffix or ("i2d" if issubclass(target, Pipeline) else first.configured.name.lower())
    products = {"i2d": product_path(base, suffix, folder, extension=extension)}
    products["cat"] = product_path(base, "cat", folder, extension="ecsv")
    products["segm"] = product_path(base, "segm", folder, extension=extension)
    running = {item.name for item in first.steps if item.skip is None}
    crf = tuple(product_path(path, "crf", folder, [association.asn_id], extension) for path in members)
    updates = software(first.meta)
    if not alone:
        updates |= {"meta.asn.pool_name": association.pool, "meta.asn.table_name": association.table_name}
    if first.context:
        updates["meta.ref_file.crds.context_used"] = first.context
        updates["meta.ref_file.crds.sw_version"] = version("crds")
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
        member_products=crf if "outlier_detection" in running else (),
        updates=updates,
        context=first.context,
    )


def combines(target: type) -> bool:
    """Whether a pipeline or step takes an association of exposures."""
    if issubclass(target, Pipeline):
        return target.stage == 3
    return target.kind == "association" and target.alias in (*_COMBINING, "assign_mtwcs")
