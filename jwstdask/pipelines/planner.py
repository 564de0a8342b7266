"""From inputs and a request to plans: headers only, no pixel is read.

Order of the work: headers of all exposures; parameter references of all exposures at once; parameters, refused here if
they are wrong; which steps run; best references of those steps, again of all exposures at once; products.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import metadata
from typing import Any

from jwstdask import __version__
from jwstdask.core.errors import (
    InputError,
    JwstdaskError,
    PlanError,
    ProductError,
    ReferenceFileError,
)
from jwstdask.core.exposure_types import GUIDER
from jwstdask.core.params import declared
from jwstdask.core.pipeline import Pipeline
from jwstdask.core.plan import ExposurePlan, StepPlan
from jwstdask.core.settings import Layer, Settings
from jwstdask.core.step import Step
from jwstdask.engine.passes import reason_of
from jwstdask.engine.readers import in_parallel
from jwstdask.io.layout import open_layout
from jwstdask.io.metadata import read_metadata
from jwstdask.io.naming import file_name, product_path
from jwstdask.kernels.irs2 import SIZE
from jwstdask.pipelines.configure import Configured, check_layers, configure, step_names
from jwstdask.pipelines.cost import predict
from jwstdask.pipelines.registry import PIPELINES
from jwstdask.program.associations import Association, Product
from jwstdask.refs.crds import NOT_APPLICABLE, ReferenceChoice, resolve
from jwstdask.refs.parameters import ParameterLayers, crds_parameters_disabled, parameter_layers, parameter_reftype
from jwstdask.refs.stripes import Superstripes, superstripes
from jwstdask.steps.detector.irs2 import is_irs2
from jwstdask.steps.registry import CLASSES, step_class

PARITY_VERSION = "3.0.0"
"""Version of jwst whose products these equal; written as CAL_VER."""

_NUMBERS = {
    "meta.exposure.nints": "NINTS",
    "meta.exposure.ngroups": "NGROUPS",
    "meta.exposure.nframes": "NFRAMES",
    "meta.exposure.groupgap": "GROUPGAP",
    "meta.exposure.frame_time": "TFRAME",
    "meta.exposure.group_time": "TGROUP",
    "meta.exposure.start_time": "EXPSTART",
    "meta.subarray.xstart": "SUBSTRT1",
    "meta.subarray.ystart": "SUBSTRT2",
    "meta.subarray.xsize": "SUBSIZE1",
    "meta.subarray.ysize": "SUBSIZE2",
    "meta.subarray.fastaxis": "FASTAXIS",
    "meta.subarray.slowaxis": "SLOWAXIS",
    "meta.wcsinfo.ra_ref": "RA_REF",
    "meta.wcsinfo.dec_ref": "DEC_REF",
    "meta.wcsinfo.roll_ref": "ROLL_REF",
}
"""Keywords that must be finite numbers where they are given."""

_POSITIVE = frozenset(("NINTS", "NGROUPS", "NFRAMES", "TFRAME", "TGROUP", "SUBSIZE1", "SUBSIZE2"))

SKIP_SET = "skip is set"
"""Reason of a step that the user or a parameter reference skips."""

_SINGLETON = {"meta.asn.pool_name": "singleton", "meta.asn.table_name": "singleton"}
"""What jwst records in Stage 2 where there is no association."""


@dataclass(frozen=True)
class Request:
    """One exposure to plan.

    Attributes
    ----------
    path
        File or URL.
    members
        Other inputs by member type, such as ``background``.
    product
        Name of the product, without suffix; None to derive it from the file name.
    updates
        Metadata to set, such as the association's name.
    meta, shape
        Metadata and shape of an exposure that is not written yet: its file is not opened.
    """

    path: str
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    product: str | None = None
    updates: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] | None = None
    shape: tuple[int, ...] = ()


def level2_request(association: Association, product: Product) -> Request:
    """The exposure of a Stage 2 product with its other members.

    Raises
    ------
    PlanError
        If the product has no science member.
    """
    science = product.of_type("science")
    if not science:
        raise PlanError(f"{product.name}: the association has no science member")
    members = {kind: product.of_type(kind) for _, kind in product.members if kind.lower() != "science"}
    updates = {"meta.asn.pool_name": association.pool, "meta.asn.table_name": association.table_name}
    return Request(science[0], members, product.name, updates)


def plan_exposures(
    target: type,
    requests: Sequence[Request],
    settings: Settings,
    kept: list[Draft] | None = None,
) -> list[ExposurePlan]:
    """Plans of many exposures for one pipeline or step.

    Parameters
    ----------
    target
        Pipeline or step class.
    requests
        The exposures.
    settings
        The request.
    kept
        Gets the draft of each plan, in order: metadata, parameters, the digest of the headers.

    Returns
    -------
    plans
        One for each exposure, in order. What concerns one exposure alone (unreadable, wrong EXP_TYPE, no reference) is
        the ``error`` of its plan.

    Raises
    ------
    ParameterError
        If the user's own parameters are wrong.
    ReferenceFileError
        If the CRDS context cannot be read.
    """
    check_layers(target, settings.layers)
    opened = in_parallel(partial(open_draft, target), requests)
    if kept is not None:
        kept += opened
    good = [item for item in opened if item.error is None]
    configure_all(target, good, settings)
    good = [item for item in good if item.error is None]
    choose_steps(target, good, settings)
    choose_references([item for item in good if item.error is None], settings)
    return shared([_finished(target, item, settings) for item in opened])


def shared(plans: Sequence[ExposurePlan]) -> list[ExposurePlan]:
    """The plans, with one object for what is the same in many of them: there may be a hundred thousand."""
    known: dict[Any, Any] = {}
    steps: dict[int, Any] = {}

    def one(item: StepPlan) -> StepPlan:
        step = steps.get(id(item.step))
        if step is None:
            # With its types: what is equal need not be the same (1, True).
            step = known.setdefault((type(item.step), repr(vars(item.step))), item.step)
            # Both are kept: the number of an object that is gone may be given to another.
            steps[id(item.step)], known[id(item.step)] = step, item.step
        key = (item.name, id(step), item.skip, item.recorded, repr(item.references), repr(item.origins))
        return known.setdefault(key, replace(item, step=step))

    found = []
    for plan in plans:
        updates = known.setdefault(repr(plan.updates), plan.updates)
        found.append(replace(plan, steps=tuple(map(one, plan.steps)), updates=updates))
    return found


def reference_choices(
    target: type, requests: Sequence[Request], settings: Settings
) -> list[dict[str, ReferenceChoice]]:
    """Every reference that the exposures need: parameter references, and those of the steps that run.

    Where a parameter reference is missing, the steps of its exposures cannot be known yet: ask again once it is there.
    """
    drafts = [draft for draft in in_parallel(partial(open_draft, target), requests) if draft.error is None]
    classes = [target.class_name, *(CLASSES[alias] for alias in step_names(target).values())]  # type: ignore[attr-defined]
    types = list(dict.fromkeys(parameter_reftype(name) for name in classes))
    found: list[dict[str, ReferenceChoice]] = []
    if settings.parameter_references and not crds_parameters_disabled():
        chosen = resolve([draft.meta for draft in drafts], types, settings.context)
        # A parameter type that the context does not know is no error.
        found += [{name: choice for name, choice in item.items() if choice.error is None} for item in chosen]
    configure_all(target, drafts, settings)
    drafts = [draft for draft in drafts if draft.error is None]
    choose_steps(target, drafts, settings)
    drafts = [draft for draft in drafts if draft.error is None]
    choose_references(drafts, settings)
    return [*found, *(draft.choices for draft in drafts)]


@dataclass
class Draft:
    """A plan in the making.

    ``meta`` is the exposure's, ``after`` that of the frame where superstripes are put together on the way; ``digest``
    tells the headers of its pixels from others.
    """

    request: Request
    meta: dict[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    sizes: int = 0
    digest: str = ""
    configured: Configured | None = None
    branch: str = ""
    steps: list[StepPlan] = field(default_factory=list)
    reference_names: dict[str, str] = field(default_factory=dict)
    choices: dict[str, ReferenceChoice] = field(default_factory=dict)
    context: str = ""
    error: str | None = None


def open_draft(target: type, request: Request) -> Draft:
    """Headers of an exposure, checked."""
    draft = Draft(request)
    if request.meta is not None:
        draft.meta, draft.shape = {**request.meta, **request.updates}, request.shape
        return draft
    try:
        if request.product is not None:
            file_name(request.product, "product of an association")
        layout = open_layout(request.path)
        draft.meta = {**read_metadata(layout, complete=target.alias != "calwebb_detector1"), **request.updates}
        draft.shape = tuple(layout.check_exposure().shape)
        draft.sizes = sum(hdu.data_size for hdu in layout)
        texts = "".join(layout.header(name).text for name in ("PRIMARY", "SCI"))
        draft.digest = hashlib.blake2b(texts.encode(), digest_size=8).hexdigest()
        check_exposure(target, draft.meta, request.path, draft.shape)
    except JwstdaskError as error:
        draft.error = str(error)
    except Exception as error:
        draft.error = str(InputError(request.path, f"cannot be read: {type(error).__name__}: {error}"))
    return draft


def check_exposure(target: type, meta: Mapping[str, Any], path: str, shape: tuple[int, ...]) -> None:
    """Refuse what no step could make sense of.

    Raises
    ------
    InputError
        If a keyword without which nothing can be chosen is missing, the telescope is not JWST, the pipeline does not
        take the EXP_TYPE, or the array does not have the size that the header states.
    """
    telescope = meta.get("meta.telescope")
    if telescope is not None and str(telescope).upper() != "JWST":
        raise InputError(path, f"TELESCOP is {telescope!r}", "only JWST exposures can be calibrated")
    needed = {
        "meta.instrument.name": "INSTRUME",
        "meta.instrument.detector": "DETECTOR",
        "meta.exposure.type": "EXP_TYPE",
        "meta.observation.date": "DATE-OBS",
        "meta.observation.time": "TIME-OBS",
    }
    for name, keyword in needed.items():
        if meta.get(name) is None:
            raise InputError(path, f"keyword {keyword} is missing", "get the file again from MAST, or set the keyword")
    for name, keyword in _NUMBERS.items():
        value = meta.get(name)
        if value is not None and (isinstance(value, str) or not math.isfinite(value)):
            raise InputError(path, f"keyword {keyword} is {value!r}, not a number", "get the file again from MAST")
        if value is not None and keyword in _POSITIVE and value <= 0:
            raise InputError(path, f"keyword {keyword} is {value!r}, not positive", "get the file again from MAST")
    exp_type = meta["meta.exposure.type"]
    if issubclass(target, Pipeline) and exp_type not in target.exp_types:
        raise InputError(path, f"{target.alias} does not take EXP_TYPE {exp_type}", _other_pipeline(target, exp_type))
    guider = exp_type in GUIDER
    if guider and len(shape) not in (3, 4):
        raise InputError(path, f"SCI has {len(shape)} dimensions", "give the _uncal file")
    if issubclass(target, Pipeline) and target.stage == 1 and len(shape) != 4 and not guider:
        raise InputError(path, f"SCI has {len(shape)} dimensions where a ramp has 4", "give the _uncal file")
    if issubclass(target, Pipeline) and target.stage == 2 and len(shape) not in (2, 3):
        raise InputError(path, f"SCI has {len(shape)} dimensions", "give the _rate or _rateints file")
    stated = {
        "integrations (NINTS)": (None if guider else meta.get("meta.exposure.nints"), 0, 4),
        "groups (NGROUPS)": (None if guider else meta.get("meta.exposure.ngroups"), 1, 4),
        "rows (SUBSIZE2)": (meta.get("meta.subarray.ysize"), -2, 2),
        "columns (SUBSIZE1)": (meta.get("meta.subarray.xsize"), -1, 2),
    }
    if "IRS2" in str(meta.get("meta.exposure.readpatt")) and meta.get("meta.subarray.ysize") == 2048:
        # Rows of reference samples are not counted.
        stated["rows (SUBSIZE2)"] = (shape[-2] if shape[-2] in (2048, 3200) else 2048, -2, 2)
    segmented = meta.get("meta.exposure.integration_start") is not None
    for what, (number, axis, dimensions) in stated.items():
        if number is None or len(shape) < dimensions or (axis == 0 and segmented) or len(shape) == 4 < dimensions:
            continue
        if dimensions == 4 and len(shape) != 4:
            continue
        if axis < 0 and len(shape) != 4:
            continue
        if int(number) != shape[axis]:
            raise InputError(
                path,
                f"the header states {number} {what} and SCI has {shape[axis]}",
                "the file was cut or the header changed: get it again from MAST",
            )


def _other_pipeline(target: type[Pipeline], exp_type: str) -> str:
    """What to do with an exposure that a pipeline does not take."""
    for pipeline in PIPELINES.values():
        if pipeline.stage == target.stage and exp_type in pipeline.exp_types:
            return f"run {pipeline.alias}, which does"
    near = sorted(item for item in target.exp_types if item.startswith(exp_type[:3]))
    return f"it takes {', '.join(near)}" if near else "use the pipeline made for it"


def configure_all(target: type, drafts: list[Draft], settings: Settings) -> None:
    """Parameters of every exposure; CRDS parameter references are looked up for all exposures at once."""
    names = {name: CLASSES[alias] for name, alias in step_names(target).items()}
    if not issubclass(target, Pipeline):
        names = {}
    found = _parameter_layers(target, names, drafts, settings)
    resolved: dict[int, Configured] = {}
    for draft, layers in zip(drafts, found, strict=True):
        if layers is None:
            continue
        try:
            if id(layers) not in resolved:
                below = [Layer("", name=layers.name), *(Layer(origin, values) for origin, values in layers.own)]
                below += [
                    Layer(origin, steps={name: values})
                    for name, parts in layers.steps.items()
                    for origin, values in parts
                ]
                known = [_known(target, layer) for layer in below]
                resolved[id(layers)] = configure(target, [*known, *settings.layers])
            draft.configured = resolved[id(layers)]
        except JwstdaskError as error:
            draft.error = f"{draft.request.path}: {error}"


def _parameter_layers(
    target: type, names: Mapping[str, str], drafts: list[Draft], settings: Settings
) -> list[ParameterLayers | None]:
    """CRDS layers of each exposure; an exposure whose parameter reference cannot be read gets an error and None."""
    disable = not settings.parameter_references
    try:
        metas = [draft.meta for draft in drafts]
        return list(parameter_layers(metas, target.class_name, names, settings.context, disable=disable))
    except ReferenceFileError:
        found: list[ParameterLayers | None] = []
        for draft in drafts:
            try:
                found += parameter_layers([draft.meta], target.class_name, names, settings.context, disable=disable)
            except ReferenceFileError as error:
                draft.error = f"{draft.request.path}: {error}"
                found.append(None)
        return found


def _known(target: type, layer: Layer) -> Layer:
    """A CRDS layer without parameters that this version does not know: old references name retired ones."""
    names = step_names(target)
    allowed = declared(target)
    steps = {
        name: {key: value for key, value in values.items() if key in declared(step_class(names[name]))}
        for name, values in layer.steps.items()
        if name in names
    }
    own = {key: value for key, value in layer.parameters.items() if key in allowed}
    return Layer(layer.origin, own, steps, layer.name)


def choose_steps(target: type, drafts: list[Draft], settings: Settings) -> None:
    alone = not issubclass(target, Pipeline)
    for draft in drafts:
        configured = draft.configured
        assert configured is not None
        meta: Mapping[str, Any] = draft.meta
        try:
            if alone:
                order: tuple[str, ...] = (target.alias,)
            else:
                branch = target.branch(draft.meta)
                draft.branch, order = branch.name, branch.order
            interleaved = is_irs2(meta) and len(draft.shape) > 1 and draft.shape[-2] > SIZE
            for name in order:
                step = configured.steps[name]
                if alone and settings.standalone:
                    step = replace(step, skip=False)
                if name == "bkg_subtract" and draft.request.members.get("background"):
                    step = replace(step, bkg_list=draft.request.members["background"])  # type: ignore[call-arg]
                reason = SKIP_SET if step.skip else step.skip_reason(meta)
                if reason is None and not step.available:
                    raise PlanError(
                        f"{draft.request.path}: {name} cannot be run by this version",
                        f"skip it: --steps.{name}.skip=true",
                    )
                if reason is None:
                    step.check(meta)
                    step = step.of_exposure(meta, draft.request.path)
                    if superstripes(meta) > 0:
                        if not step.superstripes:
                            raise PlanError(
                                f"{draft.request.path}: {name} cannot work on superstripes as they are read",
                                "run refpix before it, which puts them together",
                            )
                        if step.joins_superstripes:
                            meta = Superstripes.of(meta).metadata(meta)
                    if interleaved and not step.superstripes:
                        raise PlanError(
                            f"{draft.request.path}: {name} cannot work on rows with reference samples between them",
                            "run refpix before it, without preserve_irs2_refpix",
                        )
                    interleaved = interleaved and not step.drops_rows(meta)
                recorded = alone or name != "bkg_subtract" or bool(draft.request.members.get("background"))
                draft.steps.append(StepPlan(name, step, reason, {}, configured.step_origins[name], recorded))
            draft.after = meta
        except JwstdaskError as error:
            draft.error = str(error) if draft.request.path in str(error) else f"{draft.request.path}: {error}"
        except Exception as error:
            # Headers without a keyword, or with text where a number should be.
            draft.error = f"{draft.request.path}: {name}: {reason_of(error)}"


_DISPENSABLE = frozenset(("psf",))


def choose_references(drafts: list[Draft], settings: Settings) -> None:
    """Best references of the steps that run, of all exposures at once."""
    wanted = []
    for draft in drafts:
        assert draft.configured is not None
        types: dict[str, None] = {}
        for item in draft.steps:
            if item.skip is None:
                types.update(dict.fromkeys(item.step.references_for(draft.meta)))
            types.update(dict.fromkeys(item.named_references(draft.meta)))
        wanted.append(list(types))
    resolved = resolve([draft.meta for draft in drafts], wanted, settings.context) if drafts else []
    for draft, chosen in zip(drafts, resolved, strict=True):
        assert draft.configured is not None
        steps = []
        for item in draft.steps:
            named = item.named_references(draft.meta)
            if item.skip is not None:
                for reftype in named:
                    draft.reference_names[reftype] = _recorded(chosen[reftype])
                    draft.context = draft.context or chosen[reftype].origin
                steps.append(item)
                continue
            overrides = draft.configured.overrides[item.name]
            paths: dict[str, str | None] = {}
            for reftype in item.step.references_for(draft.meta):
                choice = decided(chosen[reftype])
                # As in jwst the context is that of the process, whether it has chosen a reference or not.
                draft.context = draft.context or choice.origin
                if reftype in overrides:
                    override = {reftype: overrides[reftype]}
                    choice = resolve([draft.meta], [reftype], settings.context, override)[0][reftype]
                problem = _problem(choice, draft.request.path, item.name)
                if choice.not_applicable and reftype in item.step.indispensable:
                    problem = (
                        f"{draft.request.path}: {item.name} cannot do without a {reftype} reference, and "
                        f"{choice.origin} says N/A. "
                        f"Give one with --steps.{item.name}.override_{reftype}=FILE, or skip the step."
                    )
                if problem and draft.error is None:
                    draft.error = problem
                draft.choices[reftype] = choice
                # A file that is not there is an error, told above; the plan names it.
                paths[reftype] = choice.path
                if reftype in named:
                    draft.reference_names[reftype] = _recorded(choice)
            steps.append(replace(item, references=paths))
        draft.steps = steps


def decided(choice: ReferenceChoice) -> ReferenceChoice:
    """A choice, or that the type does not apply, where jwst does without what a context does not know."""
    if choice.error is None or choice.reftype not in _DISPENSABLE:
        return choice
    return replace(choice, name=NOT_APPLICABLE, error=None)


def _problem(choice: ReferenceChoice, path: str, step: str) -> str | None:
    if choice.error is not None and not choice.reftype.startswith("pars-"):
        return (
            f"{path}: {step} needs a {choice.reftype} reference and {choice.origin} gives none: {choice.error}. "
            f"Give one with --steps.{step}.override_{choice.reftype}=FILE, or use another context."
        )
    if choice.path is not None and not choice.present:
        if choice.origin == "override":
            return f"{path}: {step}.override_{choice.reftype}: there is no file {choice.path}. Correct the path."
        return (
            f"{path}: {step} needs {choice.name} ({choice.reftype}), which is not in the cache. "
            "Run `jwstdask refs sync`."
        )
    return None


def _recorded(choice: ReferenceChoice) -> str:
    """How the product's header names a reference: as jwst does."""
    if choice.path is None:
        return "N/A"
    return choice.path if choice.origin == "override" else f"crds://{choice.name}"


@cache
def crds_version() -> str:
    """Version of the crds client, as products name it."""
    return metadata.version("crds")


def software(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata that say which software made a product: jwst's keywords state the version of jwst that it equals."""
    own = ["JDASKVER", __version__, "jwstdask version"]
    extra = [card for card in meta.get("extra_fits.PRIMARY", ()) if card[0] != own[0]]
    return {
        "meta.calibration_software_version": PARITY_VERSION,
        "meta.calibration_software_revision": "RELEASE",
        "extra_fits.PRIMARY": [*extra, own],
    }


def _finished(target: type, draft: Draft, settings: Settings) -> ExposurePlan:
    """The plan; names that lead elsewhere concern their exposure alone."""
    try:
        return _finish(target, draft, settings)
    except ProductError as error:
        draft.error = f"{draft.request.path}: {error}"
        return _finish(target, draft, settings)


def _finish(target: type, draft: Draft, settings: Settings) -> ExposurePlan:
    plan = ExposurePlan(
        draft.request.path,
        target.alias,
        str(draft.meta.get("meta.exposure.type", "")),
        draft.branch,
        tuple(draft.steps),
        members=dict(draft.request.members),
        context=draft.context,
        shape=draft.shape,
        detector=str(draft.meta.get("meta.instrument.detector", "")),
        start=float(draft.meta.get("meta.exposure.start_time") or 0.0) if draft.error is None else 0.0,
        error=draft.error,
    )
    if draft.error is not None:
        return plan
    assert draft.configured is not None
    updates: dict[str, Any] = {
        **(_SINGLETON if target.alias == "calwebb_image2" else {}),
        **draft.request.updates,
        **software(draft.meta),
    }
    for reftype, name in draft.reference_names.items():
        updates[f"meta.ref_file.{reftype}.name"] = name
    if draft.reference_names:
        updates["meta.ref_file.crds.sw_version"] = crds_version()
        updates["meta.ref_file.crds.context_used"] = draft.context
    products, taps = _products(target, draft, settings)
    names = _file_names(draft, taps)
    steps = tuple(
        replace(
            item,
            step=item.step.with_side_products(
                partial(_side_product, draft, settings, item.step, _own_folder(target, item.step), names[item.name])
            ),
        )
        for item in plan.steps
    )
    plan = replace(plan, steps=steps, updates=updates, products=products, taps=taps)
    return replace(plan, cost=predict(plan, draft.sizes, draft.meta))


def _file_names(draft: Draft, taps: Mapping[str, str]) -> dict[str, str]:
    """What the exposure is called where each step begins: as in jwst, saving it gives it the name of that file."""
    name, found = draft.request.path, {}
    for item in draft.steps:
        name = taps.get(f"before:{item.name}", name)
        found[item.name] = name
        name = taps.get(item.name, name)
    return found


def _own_folder(target: type, step: Step) -> str | None:
    """The folder that a step has for itself; as in jwst, Stage 1 gives its own to some steps."""
    first_stage = issubclass(target, Pipeline) and target.alias == "calwebb_detector1"
    given = first_stage and step.alias in ("dark_current", "ramp_fit")
    return None if given else step.output_dir


def _side_product(
    draft: Draft,
    settings: Settings,
    step: Step,
    own_folder: str | None,
    name: str,
    suffix: str | None,
    base: str | None = None,
) -> str:
    """Path of a file that a step writes besides the product, where the exposure is called ``name``: see `SidePath`."""
    assert draft.configured is not None
    own = draft.configured.parameters
    if base is None:
        base = step.output_file or own.output_file or draft.request.product or draft.request.path
    base = base or name
    folder = own_folder or settings.output_dir or own.output_dir
    return product_path(base, suffix, folder, extension=own.output_ext)


def _products(target: type, draft: Draft, settings: Settings) -> tuple[dict[str, str], dict[str, str]]:
    """Final paths of the products and of the intermediate products."""
    configured = draft.configured
    assert configured is not None
    own = configured.parameters
    folder = settings.output_dir or own.output_dir

    def path(suffix: str, output_dir: str | None = None, base: str | None = None) -> str:
        given = None if own.output_use_model else own.output_file
        base = base or given or draft.request.product or draft.request.path
        return product_path(base, suffix, output_dir or folder, extension=own.output_ext)

    running = {item.name: item for item in draft.steps if item.skip is None}
    cube = len(draft.shape) == 3
    products: dict[str, str] = {}
    if not issubclass(target, Pipeline):
        # As in jwst: the class's name, unless the parameter reference gives another.
        suffix = own.suffix or configured.name.lower()
        if target.alias == "ramp_fit":
            products = {"rate": path(f"0_{suffix}"), "rateints": path(f"1_{suffix}")}
        elif target.alias == "guider_cds":
            products = {"cal": path(suffix)}
        else:
            products = {"result": path(suffix)}
    elif target.alias == "calwebb_detector1":
        # As jwst, which sets the suffix by what has been done.
        if "ramp_fit" in running:
            products = {"rate": path("rate"), "rateints": path("rateints")}
        else:
            products = {"ramp": path("ramp")}
    elif target.alias == "calwebb_dark":
        products = {"dark": path(own.suffix or configured.name.lower())}
    elif target.alias == "calwebb_guider":
        products = {"cal": path("cal")}
    elif target.alias == "calwebb_image2":
        products = {"cal": path(own.suffix or ("calints" if cube else "cal"))}
        if "resample" in running:
            products["i2d"] = path("i2d")
    taps: dict[str, str] = {}
    if issubclass(target, Pipeline):
        for name, item in ((item.name, item) for item in draft.steps):
            # A step that finds nothing to do saves what it was given.
            works = item.step.kind in ("block", "frame") and item.skip != SKIP_SET
            step = item.step
            if (step.save_results or step.output_file) and works and item.recorded:
                base = None if step.search_output_file else draft.request.path
                base = draft.request.path if step.output_use_model else step.output_file or base
                suffixes = {name: step.suffix or {"bkg_subtract": "bsubints" if cube else "bsub"}.get(name, name)}
                if "rate" in products and name == "ramp_fit":
                    suffixes = {f"{name}.rate": f"0_{suffixes[name]}", f"{name}.rateints": f"1_{suffixes[name]}"}
                elif "rate" in products and name == "gain_scale":
                    # The pipeline gives it its suffixes.
                    suffixes = {f"{name}.rate": name, f"{name}.rateints": f"{name}ints"}
                taps |= {key: path(suffix, _own_folder(target, step), base) for key, suffix in suffixes.items()}
        if getattr(own, "save_calibrated_ramp", False) and "ramp_fit" in running:
            taps["before:ramp_fit"] = path("ramp")
    if "rate" in products and running["ramp_fit"].step.save_opt:  # type: ignore[attr-defined]
        step = running["ramp_fit"].step
        kind = "likely_chisq" if step.by_likelihood(draft.after) else "fitopt"  # type: ignore[attr-defined]
        base = step.opt_name or _file_names(draft, taps)["ramp_fit"]  # type: ignore[attr-defined]
        products[kind] = path(kind, base=base)
    return products, taps


__all__ = ["PARITY_VERSION", "Configured", "Request", "check_layers", "configure", "plan_exposures", "step_names"]
