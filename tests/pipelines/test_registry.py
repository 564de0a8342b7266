"""The whole registry beside jwst's: names, parameters, references, order of steps, suffixes, tables of EXP_TYPE."""

from __future__ import annotations

import inspect
import re
import types
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jwst.associations.lib.dms_base import TSO_EXP_TYPES
from jwst.lib import exposure_types
from jwst.lib.suffix import KNOW_SUFFIXES
from jwst.stpipe.integration import get_steps
from stdatamodels.jwst import datamodels
from stpipe import config_parser

from jwstdask.core.exposure_types import GUIDER
from jwstdask.core.params import declared
from jwstdask.io.naming import KNOWN_SUFFIXES
from jwstdask.pipelines.configure import configure
from jwstdask.pipelines.image2 import RESAMPLED
from jwstdask.pipelines.inputs import TSO_TYPES
from jwstdask.pipelines.planner import Request, open_draft
from jwstdask.pipelines.registry import PIPELINES
from jwstdask.steps.registry import CLASSES, step_class

ORACLE = {alias: name for name, alias, _ in get_steps()}
"""jwst's alias to its dotted class name."""

NOT_YET = set(
    "adaptive_trace_model align_refs ami_analyze ami_normalize badpix_selfcal barshadow calwebb_ami3 calwebb_coron3 "
    "calwebb_spec2 calwebb_spec3 calwebb_tso3 calwebb_wfs-image3 combine_1d cube_build extract_1d extract_2d fringe "
    "hlsp imprint klip master_background master_background_mos msa_flagging pathloss pixel_replace resample_spec "
    "residual_fringe spectral_leak srctype stack_refs straylight targ_centroid tso_photometry wavecorr wfss_contam "
    "white_light".split()
)
"""What jwst has and this version has not: spectra, coronagraphy, interferometry, light curves, wavefronts."""

DIFFERENCES: dict[tuple[str, str, str], str] = {
    ("emicorr", "nbins", "bounds"): "a wave of no bins is refused before it divides by zero",
    ("emicorr", "nints_to_phase", "bounds"): "nothing can be phased from no integrations",
    ("refpix", "side_smoothing_length", "bounds"): "a running median needs a row",
    ("saturation", "n_pix_grow_sat", "bounds"): "a negative number of neighbours is a mistake",
}
"""Facts of parameters that differ from jwst's on purpose."""

OWN = {
    ("dark_current", "as_jwst"): "False subtracts averaged darks from later segments of few integrations",
    ("emicorr", "as_jwst"): "False seeks the best phase around the end of the turn, and takes the nearest trial phase",
    ("guider_cds", "as_jwst"): "False divides FINEGUIDE by the time between the means",
    ("jump", "as_jwst"): "False lets max_shower_amplitude and minimum_groups count",
    ("refpix", "as_jwst"): "False lets each superstripe have its own flags",
}
"""Parameters that jwst has not, which put its oddities right."""

NO_PIPELINE = {
    "ANY": "not an exposure",
    "N/A": "not an exposure",
    "NRC_WFSC": "wavefront sensing, of which nothing is written here yet",
}
"""EXP_TYPE values of the schema that no first stage takes, and why."""

NO_STATUS = {"source_catalog"}
"""Steps whose status jwst states nowhere: their product has no header."""

OURS = [*CLASSES, *PIPELINES]


def ours(alias: str) -> Any:
    return PIPELINES.get(alias) or step_class(alias)


def oracle(alias: str) -> Any:
    module, name = ORACLE[alias].rsplit(".", 1)
    return getattr(import_module(module), name)


def test_everything_is_here_or_listed_as_missing():
    assert set(OURS) | NOT_YET == set(ORACLE)
    assert not set(OURS) & NOT_YET, "no longer missing: take it off the list"


@pytest.mark.parametrize("alias", OURS)
def test_names(alias):
    theirs, mine = oracle(alias), ours(alias)
    assert (mine.alias, mine.class_name) == (theirs.class_alias, theirs.__name__)
    assert mine.__name__ == mine.class_name
    assert mine.__doc__


class Spec(typing.NamedTuple):
    """A parameter of jwst: kind, default, keyword arguments and choices."""

    kind: str
    default: Any
    bounds: dict[str, float]
    choices: tuple[Any, ...] | None


def specs(alias: str) -> dict[str, Spec]:
    """Parameters of jwst's class, as its own parser understands them."""
    spec = oracle(alias).load_spec_file()
    filled = config_parser.validate(config_parser.ConfigObj({}), spec, allow_missing=True)
    found = {}
    for name in spec.scalars:
        if name.startswith("override_"):
            continue
        # Lines may end with a stray comma.
        text = spec[name] if isinstance(spec[name], str) else spec[name][0]
        kind, arguments = re.fullmatch(r"(\w+)\((.*)\),?", text.strip()).groups()
        bounds = {key: float(value) for key, value in re.findall(r"\b(min|max) *= *([\d.]+)", arguments)}
        choices = None
        if kind == "option":
            listed = re.sub(r",?\s*default *=.*", "", arguments)
            words = [word.strip().strip("'\"") for word in listed.split(",")]
            choices = tuple(None if word == "None" else word for word in words)
        found[name] = Spec(kind, filled[name], bounds, choices)
    return found


KINDS: dict[str, tuple[type, type | None]] = {
    "boolean": (bool, None),
    "integer": (int, None),
    "float": (float, None),
    "string": (str, None),
    "output_file": (str, None),
    "option": (str, None),
    "list": (tuple, None),
    "int_list": (tuple, int),
    "float_list": (tuple, float),
    "string_list": (tuple, str),
    "force_list": (tuple, None),
}
"""Kind of jwst's parameter to type and type of the elements."""


def plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def differences(name: str, mine: Any, spec: Spec) -> set[str]:
    """What differs in a parameter."""
    hint, facts, default = mine
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    members = [member for member in members if member is not type(None)]
    wanted, element = KINDS[spec.kind]
    wrong = set()
    origin = typing.get_origin(members[0]) or members[0]
    if spec.choices is not None:
        wanted = type(facts.choices[0]) if facts.choices else str
    if len(members) != 1 or origin is not wanted:
        wrong.add("type")
    if element is not None and typing.get_args(members[0])[:1] != (element,):
        wrong.add("type")
    if spec.choices is not None:
        texts = {None if item is None else str(item) for item in spec.choices}
        if {str(item) for item in facts.choices or () if item is not None} != texts - {None}:
            wrong.add("choices")
        if None in texts and type(None) not in typing.get_args(hint):
            wrong.add("choices")
    if origin is tuple:
        length = (spec.bounds.get("min"), spec.bounds.get("max"))
        if length != (None, None) and length != (facts.length or (None, None)):
            wrong.add("length")
    elif (facts.ge, facts.le) != (spec.bounds.get("min"), spec.bounds.get("max")):
        wrong.add("bounds")
    theirs = plain(spec.default)
    same = str(default) == str(theirs) if spec.choices is not None else default == theirs
    if not same:
        wrong.add("default")
    return wrong


@pytest.mark.parametrize("alias", OURS)
def test_parameters(alias):
    mine, theirs = dict(declared(ours(alias))), specs(alias)
    own = {name for name, (_, facts, _) in mine.items() if facts.own}
    assert own == {name for step, name in OWN if step == alias}
    for name in own:
        # Products are jwst's unless the user asks for others.
        assert mine.pop(name)[2] is True
    assert mine.keys() == theirs.keys()
    found = {(alias, name, what) for name in mine for what in differences(name, mine[name], theirs[name])}
    expected = {key for key in DIFFERENCES if key[0] == alias}
    details = {name: (mine[name], theirs[name]) for _, name, _ in found ^ expected}
    assert found == expected, details


@pytest.mark.parametrize("alias", CLASSES)
def test_reference_types(alias):
    """jwst makes ``override_TYPE`` a parameter of each type that it lists."""
    mine, theirs = step_class(alias), oracle(alias)
    listed = set(theirs.reference_file_types)
    overrides = {name.removeprefix("override_") for name in theirs.load_spec_file() if name.startswith("override_")}
    assert set(mine.reference_types) == listed == overrides


def cal_steps() -> dict[str, Any]:
    """Steps whose status a header can state: name to schema."""
    schema = datamodels.JwstDataModel().schema

    def nodes(node: Any) -> Any:
        for part in node.get("allOf", [node]):
            if part is not node:
                yield from nodes(part)
            else:
                yield part

    for name in ("meta", "cal_step"):
        schema = next(part["properties"][name] for part in nodes(schema) if name in part.get("properties", {}))
    return dict(schema["properties"])


@pytest.mark.parametrize("alias", CLASSES)
def test_status(alias):
    """The status is stated where the sources of jwst's step set it."""
    folder = Path(inspect.getfile(oracle(alias))).parent
    sources = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
    set_there = set(re.findall(r"cal_step\.(\w+) = ", sources))
    set_there |= set(re.findall(r"record_step_status\(\s*\w+,\s*\"(\w+)\"", sources))
    status = step_class(alias).status
    assert (status in set_there) == (alias not in NO_STATUS)
    assert status in cal_steps()


class Recorder:
    """Stands for the steps of one of jwst's pipelines: notes their names as they are called."""

    def __init__(self, pipeline: Any, result: Any = None) -> None:
        self.calls: list[str] = []
        for name in pipeline.step_defs:
            setattr(pipeline, name, Call(self.calls, name, result))


class Call:
    """One step: gives back what it is given."""

    skip, suffix, save_results, output_dir, skymethod = False, None, False, None, "match"

    def __init__(self, calls: list[str], name: str, result: Any) -> None:
        self._calls, self._name, self._result = calls, name, result

    def run(self, given: Any, *_: Any) -> Any:
        self._calls.append(self._name)
        if self._name == "ramp_fit":
            return given, None
        return self._result if self._name == "resample" and self._result is not None else given


def called(alias: str, model: Any, **pipeline_attributes: Any) -> list[str]:
    """The order in which jwst's pipeline calls its steps."""
    pipeline = oracle(alias)()
    for name, value in pipeline_attributes.items():
        setattr(pipeline, name, value)
    recorder = Recorder(pipeline, pipeline_attributes.get("result"))
    pipeline.prepare_output = lambda given, **_: given
    if alias == "calwebb_image2":
        pipeline.process_exposure_product(
            {"name": "x", "members": [{"expname": model, "exptype": t} for t in ("science", "background")]}
        )
    else:
        pipeline.process(model)
    return recorder.calls


def ramp(instrument: str, exp_type: str) -> Any:
    model = datamodels.RampModel((1, 1, 4, 4))
    model.meta.instrument.name = instrument
    model.meta.exposure.type = exp_type
    return model


@pytest.mark.parametrize("alias", ("calwebb_detector1", "calwebb_dark"))
@pytest.mark.parametrize("instrument", ("MIRI", "NIRCAM", "NIRISS", "NIRSPEC", "FGS"))
def test_order_in_stage_1(alias, instrument):
    order = called(alias, ramp(instrument, "ANY"))
    assert order == list(ours(alias).branch({"meta.instrument.name": instrument}).order)


def test_order_for_the_guiders():
    assert called("calwebb_guider", ramp("FGS", "FGS_ACQ1")) == list(ours("calwebb_guider").branch({}).order)


@pytest.mark.parametrize("model", (datamodels.ImageModel, datamodels.CubeModel))
@pytest.mark.parametrize("exp_type", sorted(PIPELINES["calwebb_image2"].exp_types))
def test_order_in_image2(exp_type, model):
    exposure = model((4, 4) if model is datamodels.ImageModel else (2, 4, 4))
    exposure.meta.exposure.type = exp_type
    meta = {"meta.exposure.type": exp_type, "meta.model_type": model.__name__}
    assert called("calwebb_image2", exposure) == list(ours("calwebb_image2").branch(meta).order)


@pytest.mark.parametrize("target", ("FIXED", "MOVING", "GENERIC"))
def test_order_in_image3(target):
    exposure = datamodels.ImageModel((4, 4))
    exposure.meta.filename = "x_cal.fits"
    exposure.meta.target.type = target
    exposure.meta.observation.exposure_number = "1"
    result = datamodels.ImageModel((4, 4))
    result.meta.cal_step.resample = "COMPLETE"
    order = called("calwebb_image3", exposure, result=result)
    assert order == list(ours("calwebb_image3").branch({"meta.target.type": target}).order)


@pytest.mark.parametrize("alias", PIPELINES)
def test_steps_by_name(alias):
    """Names under ``--steps``, and the classes behind them, in jwst's order."""
    theirs = [(name, step.class_alias) for name, step in oracle(alias).step_defs.items()]
    assert list(ours(alias).step_defs.items()) == theirs


@pytest.mark.parametrize("alias", CLASSES)
def test_suffix_of_a_step_alone(alias):
    """jwst's default is the class's name, unless the specification gives another."""
    theirs = oracle(alias)()
    configured = configure(step_class(alias), [])
    mine = configured.parameters.suffix or configured.name.lower()
    suffix = theirs.suffix or theirs.default_suffix()
    assert mine == suffix.lower()


def test_suffixes_known_in_names():
    """What jwst takes off a file name before it adds another suffix."""
    assert KNOWN_SUFFIXES == set(KNOW_SUFFIXES)


def exp_type_enumeration() -> set[str]:
    """All EXP_TYPE values that the schema knows."""
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("fits_keyword") == "EXP_TYPE" and "enum" in node:
                found.update(node["enum"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(datamodels.JwstDataModel().schema)
    return found


def test_every_exposure_type_has_one_first_stage():
    first = [PIPELINES[name].exp_types for name in ("calwebb_detector1", "calwebb_dark", "calwebb_guider")]
    assert set().union(*first) == exp_type_enumeration() - set(NO_PIPELINE)
    assert sum(map(len, first)) == len(set().union(*first))
    assert {name for name in exp_type_enumeration() if "DARK" in name} == PIPELINES["calwebb_dark"].exp_types


def upper(names: Any) -> set[str]:
    return {name.upper() for name in names}


def test_tables_of_exposure_types():
    assert upper(exposure_types.FGS_GUIDE_EXP_TYPES) == GUIDER == PIPELINES["calwebb_guider"].exp_types
    assert upper(exposure_types.IMAGING_TYPES) == PIPELINES["calwebb_image2"].exp_types
    assert set(oracle("calwebb_image2").image_exptypes) == RESAMPLED
    assert upper(TSO_EXP_TYPES) == TSO_TYPES
    assert PIPELINES["calwebb_image3"].exp_types <= PIPELINES["calwebb_image2"].exp_types


@pytest.mark.parametrize("alias", ("calwebb_detector1", "calwebb_dark"))
@pytest.mark.parametrize("exp_type", ("NRC_IMAGE", "NRC_DARK", "FGS_ACQ1", "NRC_WFSC"))
def test_a_pipeline_takes_its_exposure_types_alone(alias, exp_type, tmp_path):
    model = ramp("NIRCAM", exp_type)
    model.meta.telescope, model.meta.instrument.detector = "JWST", "NRCA1"
    model.meta.observation.date, model.meta.observation.time = "2022-10-01", "00:00:00"
    model.data = np.zeros((1, 1, 4, 4), np.float32)
    path = tmp_path / "x_uncal.fits"
    model.save(path)
    draft = open_draft(PIPELINES[alias], Request(str(path)))
    if exp_type in PIPELINES[alias].exp_types:
        assert draft.error is None
    else:
        assert f"{alias} does not take EXP_TYPE {exp_type}" in draft.error
