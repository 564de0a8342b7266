"""Running plans: exposures for one pipeline, or a whole program through its stages."""

from __future__ import annotations

import contextlib
import glob
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from jwstdask.core.errors import InputError, JwstdaskError, PlanError
from jwstdask.core.plan import AssociationPlan, Cost, ExposurePlan, Outcome
from jwstdask.core.settings import Settings
from jwstdask.engine.association import run_association
from jwstdask.engine.executor import Executor, Serial
from jwstdask.engine.exposure import run_exposure
from jwstdask.engine.resources import Needs
from jwstdask.io.layout import open_layout
from jwstdask.io.metadata import read_metadata
from jwstdask.io.naming import exposure_stem, split_suffix
from jwstdask.io.product import prepare_folder
from jwstdask.io.remote import exists, is_url, list_files, match_files
from jwstdask.io.temporary import scratch_folder, sweep
from jwstdask.pipelines.associate import plan_association
from jwstdask.pipelines.cost import predict_association
from jwstdask.pipelines.dark import DarkPipeline
from jwstdask.pipelines.detector1 import Detector1Pipeline
from jwstdask.pipelines.guider import GuiderPipeline
from jwstdask.pipelines.image2 import Image2Pipeline
from jwstdask.pipelines.image3 import Image3Pipeline
from jwstdask.pipelines.outcomes import Outcomes
from jwstdask.pipelines.planner import Configured, Draft, Request, in_parallel, plan_exposures
from jwstdask.pipelines.resume import Ledger, Resume, opened_ledger
from jwstdask.pipelines.sequence import Linked, sequences, tell_lost
from jwstdask.program.associations import (
    Association,
    Product,
    associations_of_pool,
    make_associations,
    read_association,
    science_members,
)
from jwstdask.program.journal import Reading
from jwstdask.program.pool import make_pool, read_pool
from jwstdask.refs.stripes import Superstripes, superstripes

Report = Callable[[Outcome], None]
"""Called with each outcome as it arrives."""

Work = Callable[[ExposurePlan, "Executor | None"], Outcome]
"""Does the work of a plan."""

_STAGE_OF_SUFFIX = {"uncal": 0, "rate": 1, "rateints": 1, "cal": 2, "calints": 2}
TSO_TYPES = frozenset(("NRC_TSIMAGE", "NRC_TSGRISM", "NRS_BRIGHTOBJ"))
"""EXP_TYPE values of time series, whatever the visit says."""


_AT_ONCE = 1000
"""Exposures that are planned at once."""


def choose_grain(exposures: int, workers: int) -> str:
    """``exposure`` (one task an exposure) where every worker has one to do, else ``strip`` (one task a strip)."""
    return "exposure" if exposures >= workers else "strip"


def run_chain(
    plans: Sequence[ExposurePlan] | Linked, executor: Executor | None = None, work: Work = run_exposure
) -> list[Outcome]:
    """The stages of one exposure, one after the other; a failure ends them."""
    if isinstance(plans, Linked):
        ready, lost = plans.ready()
        return tell_lost(run_chain(ready, executor, work), lost)
    outcomes: list[Outcome] = []
    for plan in plans:
        outcomes.append(work(plan, executor))
        if outcomes[-1].error is not None:
            break
    return outcomes


def run_chains(
    chains: Sequence[Sequence[ExposurePlan]],
    executor: Executor,
    report: Report | None = None,
    grain: str = "auto",
    work: Work = run_exposure,
    keep: bool = True,
) -> list[Outcome]:
    """Many exposures, each through its own stages; those of a detector in order of time where persistence is saved.

    Parameters
    ----------
    chains
        Plans of each exposure in order of their stages.
    executor
        Where they run.
    report
        Called with each outcome as it arrives.
    grain
        ``auto``, ``exposure`` or ``strip``; the products are the same bits.
    work
        What does a plan.
    keep
        Whether outcomes are returned; otherwise they are only reported.
    """

    paths = [path for chain in chains for plan in chain for path in product_paths(plan)]
    with swept(executor, paths), scratch_folder(os.path.dirname(paths[0]) if paths else ".", make=False) as folder:
        ordered = sequences(chains, str(folder))

        def tell(index: int, outcomes: list[Outcome]) -> None:
            ordered.done(index)
            for outcome in outcomes if report is not None else ():
                report(outcome)  # type: ignore[misc]
            if not keep:
                outcomes.clear()

        if grain == "auto":
            grain = choose_grain(len(chains) - len(ordered.after), executor.workers)
        if grain == "exposure":
            results = executor.map(partial(run_chain, work=work), ordered.items, tell, ordered.after, _NEEDS)
        else:
            results = Serial().map(partial(run_chain, executor=executor, work=work), ordered.items, tell)
    found: dict[int, list[Outcome]] = dict(zip(ordered.order, results, strict=True))
    return [outcome for index in range(len(chains)) for outcome in found[index]]


def _memory(chain: Sequence[ExposurePlan] | Linked) -> int:
    plans = chain.plans if isinstance(chain, Linked) else chain
    return max((plan.cost.memory for plan in plans if plan.error is None), default=0)


def _short(outcomes: list[Outcome]) -> bool:
    return bool(outcomes) and outcomes[-1].short


def _undone(chain: Sequence[ExposurePlan] | Linked, error: JwstdaskError) -> list[Outcome]:
    first = (chain.plans if isinstance(chain, Linked) else chain)[0]
    return [Outcome(first.path, first.pipeline, error=f"{first.path}: {error}")]


_NEEDS = Needs(_memory, _short, _undone)
"""What the tasks of chains need."""


def run_associations(
    plans: Sequence[AssociationPlan],
    executor: Executor,
    report: Report | None = None,
    work: Callable[..., Outcome] = run_association,
) -> list[Outcome]:
    """Associations one after the other, each on all workers."""
    outcomes = []
    with swept(executor, (path for plan in plans for path in product_paths(plan))):
        for plan in plans:
            outcomes.append(work(plan, executor))
            if report is not None:
                report(outcomes[-1])
    return outcomes


def product_paths(plan: ExposurePlan | AssociationPlan) -> list[str]:
    """Paths of everything that a plan writes."""
    if isinstance(plan, ExposurePlan):
        return [*plan.products.values(), *plan.taps.values()]
    return [*plan.products.values(), *(path for paths in plan.member_products.values() for path in paths)]


@contextlib.contextmanager
def swept(executor: Executor, paths: Iterable[str]) -> Iterator[None]:
    """Remove what killed processes have left beside these products, before and after; make sure that URLs take them."""
    folders = sorted({os.path.dirname(path) or "." for path in paths})
    for folder in folders:
        if is_url(folder):
            prepare_folder(folder)
    executor.everywhere(sweep, folders)
    try:
        yield
    finally:
        executor.everywhere(sweep, folders)


@dataclass(frozen=True)
class Program:
    """Inputs of a program, sorted.

    Attributes
    ----------
    exposures
        Path to how far it is: 0 (uncal), 1 (rate), 2 (cal).
    associations
        Associations given.
    complete
        Whether these are all: none are made of exposures that are in none.
    notes
        What people should know, such as exposures of a pool that are not there.
    """

    exposures: Mapping[str, int]
    associations: tuple[Association, ...] = ()
    complete: bool = False
    notes: tuple[str, ...] = ()


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


def find_inputs(inputs: Iterable[str]) -> Program:
    """Exposures and associations in files and folders.

    Of each exposure in a folder only the earliest product is taken, so that a folder with results can be run again.
    A URL that is no file stands for all files whose names begin so, such as those of a program in the archive's public
    bucket: ``s3://stpubdata/jwst/public/jw01234/``. Patterns (``*``, ``?``, ``[...]``) stand for what they match. A
    pool (``.csv``) stands for those of its exposures that lie beside it, with the associations that the rules make.

    Raises
    ------
    PlanError
        If there is nothing to process.
    InputError
        If a path does not exist.
    """
    exposures: dict[str, int] = {}
    associations: list[Association] = []
    notes: list[str] = []
    for text in expanded(inputs):
        path = Path(text)
        if path.is_dir() or (is_url(text) and path.suffix not in (".fits", ".json")):
            files = list_files(text) if is_url(text) else sorted(str(file) for file in path.iterdir())
            exposures |= _earliest_products(file for file in files if file.endswith(".fits"))
            associations += [read_association(file) for file in files if file.endswith("_asn.json")]
        elif not is_url(text) and not path.exists():
            raise InputError(text, "there is no such file or folder", "correct the path")
        elif path.suffix == ".csv":
            members, made, note = _of_pool(text)
            exposures |= members
            associations += made
            notes += note
        elif path.suffix == ".json":
            found = read_association(text)
            associations.append(found)
            for product in found.products:
                for member in product.of_type("science"):
                    earliest = _earliest(member)
                    exposures[earliest] = _stage_of(earliest)
        else:
            exposures[text] = _stage_of(text)
    if not exposures:
        raise PlanError(
            "There is nothing to process", "give _uncal, _rate or _cal files, a folder of them or an association"
        )
    used = [item for item in associations if item.asn_type.endswith("image3")]
    others = [item.table_name for item in associations if item not in used and _has_others(item)]
    if others:
        shown = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
        notes.append(f"backgrounds and the like of {len(others)} associations are not used in a program ({shown})")
    return Program(exposures, tuple(used), notes=tuple(notes))


def _has_others(association: Association) -> bool:
    """Whether an association has members that are taken from science exposures."""
    return any(kind.lower() != "science" for product in association.products for _, kind in product.members)


def expanded(inputs: Iterable[str]) -> Iterator[str]:
    """Inputs, with what patterns match in their place.

    Raises
    ------
    InputError
        If a pattern matches nothing.
    """
    for text in inputs:
        if not glob.has_magic(text) or (not is_url(text) and os.path.exists(text)):
            yield text
            continue
        found = match_files(text) if is_url(text) else sorted(glob.glob(text))
        if not found:
            raise InputError(text, "nothing matches this pattern", "correct the pattern")
        yield from found


def _of_pool(path: str) -> tuple[dict[str, int], list[Association], list[str]]:
    """Exposures of a pool that are there, associations of them, and notes."""
    folder = os.path.dirname(path)
    pool = read_pool(path)
    place = {row.filename: _earliest(os.path.join(folder, os.path.basename(row.filename))) for row in pool}
    there = exists if is_url(path) else os.path.exists
    exposures = {file: _stage_of(file) for file in place.values() if there(file)}
    if not exposures:
        raise InputError(path, "no exposure of this pool is beside it", "put them there")
    missing = len(place) - len(exposures)
    notes = [f"{missing} of {len(place)} exposures of {path} are not there"] if missing else []
    rows = [row.values for row in pool if place[row.filename] in exposures]
    made = associations_of_pool(make_pool(rows, pool.name), folder, "image3")
    return exposures, made, notes


def _earliest_products(files: Iterable[str]) -> dict[str, int]:
    """The earliest product of each exposure to how far it is; other products are left out."""
    best: dict[str, tuple[int, str]] = {}
    for file in files:
        root, _, suffix = split_suffix(os.path.splitext(os.path.basename(file))[0])
        if suffix in ("uncal", "rate", "cal") or (suffix in ("rateints", "calints") and _is_tso(file)):
            best[root] = min(best.get(root, (9, "")), (_STAGE_OF_SUFFIX[suffix], file))
    return {file: stage for stage, file in best.values()}


def _earliest(member: str) -> str:
    """A member of an association, or the product beside it that it will be made from if it does not exist yet."""
    there = exists if is_url(member) else os.path.exists
    root, _, _ = split_suffix(os.path.splitext(member)[0])
    beside = (f"{root}_{suffix}.fits" for suffix in ("cal", "rate", "uncal"))
    return next((path for path in (member, *beside) if there(path)), member)


def _stage_of(path: str) -> int:
    suffix = split_suffix(os.path.splitext(os.path.basename(path))[0])[2]
    return _STAGE_OF_SUFFIX.get(suffix, 0)


def _is_tso(path: str) -> bool:
    try:
        meta = read_metadata(open_layout(path))
    except JwstdaskError:
        return False
    return meta.get("meta.visit.tsovisit") is True or meta.get("meta.exposure.type") in TSO_TYPES


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


@dataclass
class ProgramResult:
    """What became of a program."""

    plan: ProgramPlan
    outcomes: Sequence[Outcome]
    wall: float
    fresh: int = 0
    """Outcomes of an earlier run that are up to date."""

    def products(self, kind: str) -> list[str]:
        """Paths of the products of a kind (``rate``, ``cal``, ``i2d``, ``crf``, ``cat`` ...), in order."""
        return [
            path
            for outcome in self.outcomes
            for name, path in outcome.products.items()
            if name == kind or name.startswith(f"{kind}:")
        ]

    @property
    def failed(self) -> list[Outcome]:
        """Outcomes with an error."""
        return [outcome for outcome in self.outcomes if outcome.error is not None]


def run_program(
    inputs: Sequence[str],
    through: int,
    settings: Settings,
    executor: Executor,
    steps: Mapping[str, Settings] | None = None,
    report: Report | None = None,
    grain: str = "auto",
    planned: Callable[[ProgramPlan], None] | None = None,
    more: Callable[[int], None] | None = None,
    resume: Resume | None = None,
    on_error: str = "continue",
    min_members: int | None = None,
    say: Callable[[str], None] | None = None,
    plan: ProgramPlan | None = None,
) -> ProgramResult:
    """Calibrate a program through Stage ``through``.

    Parameters
    ----------
    inputs
        Files, folders, associations.
    through
        1, 2 or 3.
    settings
        The request.
    executor
        Where tasks run.
    steps
        Pipeline alias to the request with its own parameters.
    report
        Called with each outcome.
    grain
        See :func:`run_chains`.
    planned
        Called once the plan is made, before any pixel is read.
    more
        Called with the number of associations, once they are known.
    resume
        Keep a journal in the folder of the products, and do only what is missing or stale; None to do everything.
    on_error
        ``continue`` with the others, or ``stop`` at the first failure.
    min_members
        An association is combined without the members that failed if so many are left; None: one that was given needs
        all its members, one made here needs one.
    say
        Called with lines for people.
    plan
        What is to be done, if it is known already (from a saved plan, or since an earlier run); ``inputs`` and
        parameters do not count then.

    Raises
    ------
    PlanError
        If another run is at work in the folder.
    """
    started = time.perf_counter()
    say = say or (lambda _: None)
    if plan is None:
        plan = plan_program(find_inputs(inputs), through, settings, steps or {}, min_members)
        for note in plan.notes:
            say(note)
    folder = home_of(plan, settings)
    with contextlib.ExitStack() as stack:
        ledger = None if resume is None else stack.enter_context(opened_ledger(folder, resume, executor))
        run = _Run(executor, report, grain, on_error, ledger, say)
        chains = run.stale(plan.chains)
        if planned is not None:
            planned(replace(plan, chains=chains))
        if settings.output_dir:
            prepare_folder(settings.output_dir)
        with contextlib.suppress(_Stopped):
            run.exposures(chains)
            if plan.combine is not None:
                calibrated = [
                    *plan.finished,
                    *(item.products["cal"] for item in run.outcomes if "cal" in item.products),
                ]
                lost = len({item.path for item in run.outcomes if item.error is not None})
                if lost:
                    say(f"Stage 3 goes on without {lost} exposure{'s' * (lost > 1)} that failed")
                plan.take(plan.combine(calibrated, {}))
                (associations,) = run.stale([plan.associations])
                if more is not None:
                    more(len(associations))
                run.associations(associations)
        return ProgramResult(plan, run.ordered(plan), time.perf_counter() - started, run.fresh)


def count_fresh(plan: ProgramPlan, settings: Settings, resume: Resume) -> tuple[int, int]:
    """How many tasks of Stages 1 and 2 are up to date, and how many there are; nothing is written."""
    folder = home_of(plan, settings)
    tasks = [task for chain in Ledger(Reading(folder), resume).sort(plan.chains) for task in chain]
    return sum(task.fresh for task in tasks), len(tasks)


def home_of(plan: ProgramPlan, settings: Settings) -> str:
    """Folder of the products, where the journal is kept."""
    if settings.output_dir:
        return settings.output_dir
    paths = [path for chain in plan.chains for item in chain for path in product_paths(item)]
    return os.path.dirname([*paths, *plan.finished, "."][0]) or "."


class _Stopped(Exception):
    """An exposure failed, and nothing more shall be begun."""


class _Run:
    """A run of a program: what is done, what is told, what was up to date."""

    def __init__(
        self,
        executor: Executor,
        report: Report | None,
        grain: str,
        on_error: str,
        ledger: Ledger | None,
        say: Callable[[str], None],
    ) -> None:
        self.executor, self.report, self.grain, self.stop = executor, report, grain, on_error == "stop"
        self.ledger, self.say = ledger, say
        self.outcomes = Outcomes()
        self.fresh = 0
        self._guard = threading.Lock()

    def stale(self, chains: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """The plans that are not up to date."""
        if self.ledger is None:
            return [list(chain) for chain in chains]
        sorted_tasks = self.ledger.sort(chains)
        tasks = [task for chain in sorted_tasks for task in chain]
        done = [self.ledger.earlier(task) for task in tasks if task.fresh]
        for outcome in done:
            self.outcomes.append(outcome)
        self.fresh += len(done)
        if done:
            self.say(f"{len(done)} of {len(tasks)} are up to date")
        return [[task.plan for task in chain if not task.fresh] for chain in sorted_tasks]

    def exposures(self, chains: Sequence[Sequence[ExposurePlan]]) -> None:
        """Stages 1 and 2."""
        chains = [chain for chain in chains if chain]
        work = run_exposure if self.ledger is None else self.ledger.work
        if chains:
            run_chains(chains, self.executor, self._tell(chains), self.grain, work, keep=False)

    def associations(self, plans: Sequence[AssociationPlan]) -> None:
        """Stage 3."""
        work = run_association if self.ledger is None else partial(self.ledger.work, work=run_association)
        if plans:
            run_associations(plans, self.executor, self._tell([plans]), work)

    def _tell(self, chains: Sequence[Sequence[Any]]) -> Report:
        plans = {(plan.pipeline, plan.path): plan for chain in chains for plan in chain}

        def tell(outcome: Outcome) -> None:
            if self.ledger is not None:
                self.ledger.settle(plans[outcome.pipeline, outcome.path], outcome)
            with self._guard:
                self.outcomes.append(outcome)
            if self.report is not None:
                self.report(outcome)
            if self.stop and outcome.error is not None:
                if self.ledger is not None:
                    self.ledger.status = "stopped"
                self.say("stopped at the first failure (--on-error stop)")
                raise _Stopped

        return tell

    def ordered(self, plan: ProgramPlan) -> Outcomes:
        """All outcomes in the order of the plan."""
        plans = [*(item for chain in plan.chains for item in chain), *plan.associations]
        order = {(item.pipeline, item.path): place for place, item in enumerate(plans)}  # type: ignore[attr-defined]
        with self._guard:
            return self.outcomes.ordered(order)


def outcome_errors(outcomes: Iterable[Outcome]) -> list[str]:
    """One line for each failure."""
    return [outcome.error for outcome in outcomes if outcome.error is not None]


__all__: list[Any] = [
    "Program",
    "ProgramPlan",
    "ProgramResult",
    "choose_grain",
    "find_inputs",
    "outcome_errors",
    "plan_program",
    "plan_stage3",
    "run_associations",
    "run_chain",
    "run_chains",
    "run_program",
]
