"""Plans of whole programs: each exposure through its stages, and what is combined of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from jwstdask.core.errors import JwstdaskError
from jwstdask.core.plan import AssociationPlan, Cost, ExposurePlan
from jwstdask.core.settings import Settings
from jwstdask.engine.readers import in_parallel
from jwstdask.io.layout import open_layout
from jwstdask.io.metadata import read_metadata
from jwstdask.io.naming import exposure_stem
from jwstdask.io.remote import is_url
from jwstdask.pipelines.associate import plan_association
from jwstdask.pipelines.configure import Configured
from jwstdask.pipelines.cost import predict_association
from jwstdask.pipelines.dark import DarkPipeline
from jwstdask.pipelines.detector1 import Detector1Pipeline
from jwstdask.pipelines.guider import GuiderPipeline
from jwstdask.pipelines.image2 import Image2Pipeline
from jwstdask.pipelines.image3 import Image3Pipeline
from jwstdask.pipelines.inputs import TSO_TYPES, Program
from jwstdask.pipelines.planner import Draft, Request, plan_exposures
from jwstdask.program.associations import (
    Association,
    Product,
    make_associations,
    science_members,
)
from jwstdask.refs.stripes import Superstripes, superstripes

_AT_ONCE = 1000
"""Exposures that are planned at once."""


def product_paths(plan: ExposurePlan | AssociationPlan) -> list[str]:
    """Paths of everything that a plan writes."""
    if isinstance(plan, ExposurePlan):
        return [*plan.products.values(), *plan.taps.values()]
    return [*plan.products.values(), *(path for paths in plan.member_products.values() for path in paths)]


@dataclass(frozen=True)
class Combination:
    """An association of one product, its plan, the parameters that this was made with, and what it will cost."""

    source: Association
    plan: AssociationPlan
    configured: Configured | None = None
    cost: Cost = field(default_factory=Cost)

    @classmethod
    def of(cls, source: Association, plan: AssociationPlan, draft: Draft | None) -> Combination:
        """With the parameters and the metadata of a draft of its first member."""
        if draft is None:
            return cls(source, plan)
        sides = [int(draft.meta.get(f"meta.subarray.{side}") or 0) for side in ("xsize", "ysize")]
        return cls(source, plan, draft.configured, predict_association(plan, sides[0] * sides[1]))


Combine = Callable[[Sequence[str], Mapping[str, Mapping[str, Any]]], list[Combination]]
"""Makes associations of calibrated exposures; with metadata, by path, of those that are not written yet."""


_MODE = (
    "meta.instrument.name",
    "meta.instrument.filter",
    "meta.instrument.pupil",
    "meta.instrument.grating",
    "meta.instrument.channel",
    "meta.instrument.band",
    "meta.subarray.name",
    "meta.exposure.readpatt",
)


@dataclass(frozen=True)
class Basis:
    """What a plan of an exposure was made of.

    Attributes
    ----------
    configured
        Parameters with their origins; None where it did not come to them.
    request
        What was asked for, without metadata.
    size
        Bytes of data of the input.
    digest
        Of its headers; empty for what is not written yet.
    mode
        Instrument, optical elements, subarray and readout, for people.
    """

    configured: Configured | None
    request: Request
    size: int = 0
    digest: str = ""
    mode: str = ""

    @classmethod
    def of(cls, draft: Draft) -> Basis:
        values = (draft.meta.get(name) for name in _MODE)
        mode = " ".join(str(value) for value in values if value not in (None, "N/A", "CLEAR", "NONE"))
        return cls(draft.configured, replace(draft.request, meta=None), draft.sizes, draft.digest, mode)


@dataclass
class ProgramPlan:
    """Everything that will be done with a program.

    Attributes
    ----------
    chains
        Stage 1 and 2 plans of each exposure.
    finished
        Inputs that are calibrated already.
    associations
        Stage 3 plans, made once their members exist; or, before, what they will be.
    combine
        Makes the associations; None where there is no Stage 3.
    combinations
        What it made.
    metas, bases
        Metadata that calibrated exposures will have, by path, and what each plan was made of, by pipeline and path;
        where Stage 3 is to be foreseen.
    notes
        What people should know.
    """

    chains: list[list[ExposurePlan]] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    associations: list[AssociationPlan] = field(default_factory=list)
    combine: Combine | None = None
    combinations: list[Combination] = field(default_factory=list)
    bases: dict[tuple[str, str], Basis] = field(default_factory=dict)
    metas: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def tasks(self) -> list[ExposurePlan]:
        """Plans of Stages 1 and 2."""
        return [item for chain in self.chains for item in chain]

    def foresee(self) -> None:
        """Find out what Stage 3 will be, before its members are written."""
        if self.combine is not None:
            finished = set(self.finished)
            paths = [*self.finished, *(path for path in self.metas if path not in finished)]
            self.take(self.combine(paths, self.metas))

    def take(self, combinations: Sequence[Combination]) -> None:
        """These are the associations."""
        self.combinations, self.associations = list(combinations), [item.plan for item in combinations]


def plan_program(
    program: Program,
    through: int,
    settings: Settings,
    steps: Mapping[str, Settings],
    min_members: int | None = None,
    foresee: bool = False,
) -> ProgramPlan:
    """Plans of Stage 1 and 2 of every exposure, all references resolved at once.

    Parameters
    ----------
    program
        The inputs.
    through
        Last stage.
    settings
        The request.
    steps
        Pipeline alias to the request with that pipeline's parameters.
    min_members
        See :func:`run_program`.
    foresee
        Whether to find out what Stage 3 will be, and to keep what plans were made of.
    """
    plan = ProgramPlan(notes=program.notes)
    raw = [path for path, stage in program.exposures.items() if stage == 0]
    rates = [path for path, stage in program.exposures.items() if stage == 1]
    plan.finished = [path for path, stage in program.exposures.items() if stage == 2]
    chains: list[list[ExposurePlan]] = []
    image2 = steps.get("calwebb_image2", settings)

    seen: dict[tuple[Any, ...], list[str]] = {}

    def keep(plans: Sequence[ExposurePlan], kept: Sequence[Draft], second: bool) -> None:
        for item, draft in zip(plans, kept, strict=True):
            if item.path in program.exposures and (who := _identity(draft.meta)) is not None:
                seen.setdefault(who, []).append(item.path)
        for item, draft in zip(plans, kept, strict=True) if foresee else ():
            plan.bases[item.pipeline, item.path] = Basis.of(draft)
            if second and through >= 3:
                foreseen(plan.metas, item, draft.meta)

    # In parts: all that headers say takes more memory than the plans made of it.
    for start in range(0, len(raw), _AT_ONCE):
        drafts: list[Draft] = []
        first = _plan_first(raw[start : start + _AT_ONCE], settings, steps, drafts)
        keep(first, drafts, False)
        part = [[item] for item in first]
        chains += part
        if through >= 2:
            requests = [second_request(item, draft.meta) for item, draft in zip(first, drafts, strict=True)]
            drafts = []
            wanted = [(chain, request) for chain, request in zip(part, requests, strict=True) if request is not None]
            seconds = plan_exposures(Image2Pipeline, [request for _, request in wanted], image2, drafts)
            keep(seconds, drafts, True)
            for (chain, _), second in zip(wanted, seconds, strict=True):
                chain.append(second)
    for start in range(0, len(rates) if through >= 2 else 0, _AT_ONCE):
        drafts = []
        asked = [Request(path) for path in rates[start : start + _AT_ONCE]]
        found = plan_exposures(Image2Pipeline, asked, image2, drafts)
        keep(found, drafts, True)
        chains += [[item] for item in found]
    plan.chains = one_writer(chains)
    plan.notes = (*plan.notes, *_twice(seen.values()))
    if through >= 3:
        plan.combine = partial(
            _combined, program, settings=steps.get("calwebb_image3", settings), min_members=min_members
        )
        if foresee:
            plan.foresee()
    return plan


_IDENTITY = (
    *(f"meta.observation.{name}" for name in ("program_number", "observation_number", "visit_number", "visit_group")),
    *(f"meta.observation.{name}" for name in ("sequence_id", "activity_id", "exposure_number")),
    "meta.instrument.detector",
    "meta.exposure.segment_number",
)


def _identity(meta: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """What tells an exposure of a detector from all others; None where the header does not say."""
    found = tuple(meta.get(name) for name in _IDENTITY)
    return None if None in found[:-1] else found


def _twice(same: Iterable[Sequence[str]]) -> Iterator[str]:
    """A note of files that are of the same exposure."""
    found = [paths for paths in same if len(paths) > 1]
    if found:
        some = (", ".join([*map(os.path.basename, paths[:3]), *["..."][: len(paths) > 3]]) for paths in found[:3])
        shown = "; ".join([*some, *["..."][: len(found) > 3]])
        yield f"several files are of the same exposure and count as many in mosaics: {shown}. Give one of each"


def foreseen(metas: dict[str, Mapping[str, Any]], plan: ExposurePlan, meta: Mapping[str, Any]) -> None:
    """Add the metadata that the product of Stage 2 will have."""
    if plan.error is None and "cal" in plan.products:
        status = {f"meta.cal_step.{item.step.status}": "COMPLETE" for item in plan.active}
        metas[plan.products["cal"]] = {**meta, **plan.updates, **status}


def one_writer(chains: list[list[ExposurePlan]]) -> list[list[ExposurePlan]]:
    """Refuse all but the first of those that would write the same product: two files of the same name, say."""
    owners: dict[str, str] = {}
    for chain in chains:
        for place, plan in enumerate(chain):
            first = chain[0].path
            taken = next((path for path in product_paths(plan) if owners.setdefault(path, first) != first), None)
            if taken is not None and plan.error is None:
                reason = (
                    f"{plan.path}: {taken} is written of {owners[taken]}, too. "
                    "Give one of them alone, or put products elsewhere with --output_dir."
                )
                chain[place] = plan.failed(reason)
                del chain[place + 1 :]
                break
    return chains


def _plan_first(
    raw: Sequence[str],
    settings: Settings,
    steps: Mapping[str, Settings],
    drafts: list[Draft],
) -> list[ExposurePlan]:
    """Stage 1 of exposures; darks and those of the guiders have pipelines of their own."""
    requests = [Request(path) for path in raw]
    plans = plan_exposures(Detector1Pipeline, requests, steps.get("calwebb_detector1", settings), drafts)
    for pipeline in (DarkPipeline, GuiderPipeline):
        places = [place for place, plan in enumerate(plans) if plan.exp_type in pipeline.exp_types]
        if places:
            requests = [Request(raw[place]) for place in places]
            kept: list[Draft] = []
            found = plan_exposures(pipeline, requests, steps.get(pipeline.alias, settings), kept)
            for place, plan, draft in zip(places, found, kept, strict=True):
                plans[place], drafts[place] = plan, draft
    return plans


def second_request(plan: ExposurePlan, known: Mapping[str, Any] | None = None) -> Request | None:
    """Stage 2 of an exposure whose Stage 1 is planned; None where Stage 1 cannot be done or gives no rate."""
    if plan.error is not None or "rate" not in plan.products or plan.exp_type not in Image2Pipeline.exp_types:
        return None
    # The rate has none of the keywords that its data model does not know.
    known = read_metadata(open_layout(plan.path)) if known is None else known
    meta = {name: value for name, value in known.items() if name.startswith("meta.")}
    tso = meta.get("meta.visit.tsovisit") is True or plan.exp_type in TSO_TYPES
    ramp = plan.shape
    if superstripes(meta) > 0:
        stripes = Superstripes.of(meta)
        meta, ramp = stripes.metadata(meta), stripes.shape(ramp)
    kind, shape = ("rateints", ramp[:1] + ramp[2:]) if tso else ("rate", ramp[2:])
    updates = {name: value for name, value in plan.updates.items() if name.startswith("meta.")}
    meta = {**meta, **updates, "meta.model_type": "CubeModel" if tso else "ImageModel"}
    for item in plan.steps:
        meta[f"meta.cal_step.{item.step.status}"] = "COMPLETE" if item.skip is None else "SKIPPED"
    return Request(plan.products[kind], meta=meta, shape=shape)


def plan_stage3(
    program: Program, calibrated: Sequence[str], settings: Settings, min_members: int | None = None
) -> list[AssociationPlan]:
    """Stage 3 plans: of the associations given, and of associations made for the exposures that are in none.

    With ``min_members``, members that are not there are left out, and what has fewer members is an error.
    """
    return [item.plan for item in _combined(program, calibrated, {}, settings, min_members)]


def _combined(
    program: Program,
    calibrated: Sequence[str],
    known: Mapping[str, Mapping[str, Any]],
    settings: Settings,
    min_members: int | None = None,
) -> list[Combination]:
    """See `Combine`."""
    seen = list(zip(calibrated, in_parallel(partial(_metadata, known), calibrated), strict=True))
    metas = [(path, meta) for path, meta in seen if meta.get("meta.exposure.type") in Image3Pipeline.exp_types]
    unreadable = [path for path, meta in seen if not meta]
    by_name = {os.path.basename(path): path for path in (*(path for path, _ in metas), *unreadable)}
    given = [_located(association, by_name, min_members is not None) for association in program.associations]
    taken = science_members(given)
    free = [] if program.complete else [(path, meta) for path, meta in metas if os.path.basename(path) not in taken]
    # What cannot be read is told as an association of its own, unless another one tells it.
    lost = [path for path in unreadable if os.path.basename(path) not in taken]
    alone = [Association("", "image3", (Product(exposure_stem(path), ((path, "science"),)),)) for path in lost]
    found = []
    for item in (*given, *make_associations(free), *alone):
        for product in item.products:
            single = replace(item, products=(product,))
            drafts: list[Draft | None] = []
            (plan,) = plan_association(Image3Pipeline, single, settings, known, drafts)
            found.append(Combination.of(single, _enough(plan, min_members), drafts[0]))
    return found


def _metadata(known: Mapping[str, Mapping[str, Any]], path: str) -> Mapping[str, Any]:
    """Metadata of a calibrated exposure; none if it cannot be read."""
    if path in known:
        return known[path]
    try:
        return read_metadata(open_layout(path))
    except (JwstdaskError, OSError, ValueError):
        return {}


def _located(association: Association, by_name: Mapping[str, str], present: bool) -> Association:
    """The association with its members where this run wrote them; only those that are present, if so wanted."""

    def members(product: Product) -> tuple[tuple[str, str], ...]:
        found = ((by_name.get(os.path.basename(path), path), kind) for path, kind in product.members)
        return tuple((path, kind) for path, kind in found if not present or is_url(path) or os.path.exists(path))

    products = tuple(replace(product, members=members(product)) for product in association.products)
    return replace(association, products=products)


def _enough(plan: AssociationPlan, min_members: int | None) -> AssociationPlan:
    count = len(plan.members)
    if min_members is None or count >= min_members:
        return plan
    return replace(plan, error=f"{plan.name}: only {count} of at least {min_members} members (--min-members) are left")
