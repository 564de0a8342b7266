"""Promise: parameter files of CRDS and of users give the values that jwst takes from them, in jwst's precedence."""

from __future__ import annotations

import asdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.core.errors import ReferenceFileError
from jwstdask.refs import parameters as pars

META = {
    "meta.instrument.name": "NIRCAM",
    "meta.instrument.detector": "NRCA1",
    "meta.exposure.type": "NRC_IMAGE",
    "meta.observation.date": "2023-05-06",
    "meta.observation.time": "01:02:03.456",
}


def flat(reference):
    """A ParameterReference as nested dictionaries without class and name."""
    tree = dict(reference.parameters)
    if reference.steps:
        tree["steps"] = {name: flat(step) for name, step in reference.steps.items()}
    return tree


def oracle(path):
    """What the oracle reads from a parameter file, in the same form."""
    from stpipe.config_parser import load_config_file

    def strip(section):
        return {
            key: strip(value) if hasattr(value, "items") else value
            for key, value in section.items()
            if key not in ("class", "name")
        }

    return strip(load_config_file(str(path)))


# ----------------------------------------------------------------------------------------------------------------------
# Files


def test_file_of_strun_for_a_pipeline(tmp_path):
    from jwst.pipeline import Detector1Pipeline

    pipeline = Detector1Pipeline(steps={"jump": {"rejection_threshold": 5.5, "skip": True}, "dark_current": {}})
    pipeline.save_calibrated_ramp = True
    path = tmp_path / "saved.asdf"
    pipeline.export_config(path, include_metadata=True)
    reference = pars.read_parameters(path)
    assert reference.class_name.endswith("Detector1Pipeline")
    assert reference.origin == "saved.asdf"
    assert reference.parameters["save_calibrated_ramp"] is True
    assert reference.steps["jump"].parameters["rejection_threshold"] == 5.5
    assert reference.steps["jump"].parameters["skip"] is True
    assert list(reference.steps) == list(Detector1Pipeline.step_defs)
    assert flat(reference) == oracle(path)


def test_file_of_strun_for_a_step(tmp_path):
    from jwst.step import JumpStep

    step = JumpStep()
    step.sat_required_snowball = False
    path = tmp_path / "jump.asdf"
    step.export_config(path)
    reference = pars.read_parameters(str(path))
    assert reference.parameters["sat_required_snowball"] is False and not reference.steps
    assert flat(reference) == oracle(path)


@pytest.mark.parametrize("name", ["jwst_generic_pars-tweakreg_0001.asdf", "jwst_miri_pars-tweakreg_0001.asdf"])
def test_old_asdf_form(name):
    """Real files of the form before 2020: class and values together under `parameters`."""
    import jwst.stpipe.tests.steps as folder

    path = f"{folder.__path__[0]}/{name}"
    reference = pars.read_parameters(path)
    assert reference.class_name == "jwst.tweakreg.TweakRegStep"
    assert reference.parameters["enforce_user_order"] is False
    # the oracle's own reader refuses these two for lack of a `name`; all else is their content
    with asdf.open(path) as file:
        expected = dict(file["parameters"])
    expected.pop("class")
    assert dict(reference.parameters) == expected


def test_old_asdf_form_of_a_pipeline(tmp_path):
    tree = {
        "parameters": {
            "name": "calwebb_detector1",
            "class": "jwst.pipeline.Detector1Pipeline",
            "save_calibrated_ramp": True,
            "steps": {"jump": {"class": "jwst.jump.JumpStep", "rejection_threshold": 3.5}, "ipc": {"skip": True}},
        }
    }
    path = tmp_path / "old.asdf"
    asdf.AsdfFile(tree).write_to(path)
    reference = pars.read_parameters(path)
    assert reference.class_name == "jwst.pipeline.Detector1Pipeline"
    assert flat(reference) == oracle(path)
    assert reference.steps["jump"].parameters == {"rejection_threshold": 3.5}


CFG = '''
# a comment
name = "calwebb_detector1"
class = "jwst.pipeline.Detector1Pipeline"
save_calibrated_ramp = True   # an inline comment
output_dir = '/some/where # not a comment'
empty =
[steps]
  [[jump]]
    rejection_threshold = 5.0
    # another comment
    "quoted key" = 'single', "double, with comma", bare words ,3
  [['ramp_fit']]   # a comment
    algorithm = OLS_C
    one = 1,
    none = None
    text = """two
lines"""
  [[refpix]]
'''


def test_cfg(tmp_path):
    path = tmp_path / "detector1.cfg"
    path.write_text(CFG)
    reference = pars.read_parameters(path)
    assert reference.name == "calwebb_detector1"
    assert reference.parameters["save_calibrated_ramp"] == "True"
    assert reference.parameters["output_dir"] == "/some/where # not a comment"
    assert reference.steps["jump"].parameters["quoted key"] == ["single", "double, with comma", "bare words", "3"]
    assert reference.steps["ramp_fit"].parameters["one"] == ["1"]
    assert reference.steps["refpix"].parameters == {}
    assert flat(reference) == oracle(path)


def test_every_cfg_the_oracle_ships():
    from pathlib import Path

    import jwst.pipeline
    import jwst.stpipe.tests.steps

    paths = [
        path for package in (jwst.pipeline, jwst.stpipe.tests.steps) for path in Path(package.__path__[0]).glob("*.cfg")
    ]
    assert len(paths) > 50
    for path in paths:
        expected = oracle(path)
        for step in expected.get("steps", {}).values():
            step.pop("config_file", None)
        read = pars.read_parameters(path)
        for name, values in expected.pop("steps", {}).items():
            assert values.items() <= read.steps[name].parameters.items(), path
        assert dict(read.parameters) == expected, path


words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
scalars = st.one_of(
    words,
    st.floats(allow_nan=False, allow_infinity=False).map(str),
    words.map(lambda text: f'"{text} # {text}"'),
    words.map(lambda text: f"'{text}, \"{text}'"),
    st.just('""'),
    words.map(lambda text: f"{text} {text}.fits"),
)
values = st.one_of(scalars, st.lists(scalars, min_size=1, max_size=4).map(lambda items: ", ".join(items) + ","))
entries = st.dictionaries(words, st.tuples(values, st.sampled_from(["", "  # comment, 'quoted'"])), max_size=4)


@settings(deadline=None, max_examples=100)
@given(top=entries, steps=st.dictionaries(words, entries, max_size=3))
def test_cfg_text_as_configobj(module_folder, top, steps):
    def lines(section, indent):
        return [f"{indent}{key} = {value}{comment}" for key, (value, comment) in section.items()]

    reserved = {"class", "name", "steps", "config_file"}
    text = lines({key: item for key, item in top.items() if key not in reserved}, "") + ["[steps]"]
    for name, section in steps.items():
        text += [f"  [[{name}]]", *lines({key: item for key, item in section.items() if key not in reserved}, "    ")]
    path = module_folder("cfg") / "a.cfg"
    path.write_text("\n".join(text))
    expected = oracle(path)
    if not steps:
        expected.pop("steps")
    assert flat(pars.read_parameters(path)) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nno equals sign", 2),
        ("[a]\n[[[b]]]", 2),
        ("[a", 1),
        ("[a]]", 1),
        ("a = 1\na = 2", 2),
        ("[a]\n[a]", 2),
        ('a = "unclosed', 1),
        ('a = """unclosed\nb = 1', 1),
    ],
)
def test_damaged_cfg(tmp_path, text, line):
    path = tmp_path / "bad.cfg"
    path.write_text(text)
    with pytest.raises(ReferenceFileError, match=rf"bad\.cfg: line {line}: "):
        pars.read_parameters(path)
    with pytest.raises(SyntaxError):
        oracle(path)


def test_damaged_files(tmp_path):
    with pytest.raises(ReferenceFileError, match=r"absent\.asdf.*Correct the path"):
        pars.read_parameters(tmp_path / "absent.asdf")
    good = tmp_path / "good.asdf"
    pars.write_parameters(good, "JumpStep", "jump", {"skip": True})
    half = tmp_path / "half.asdf"
    half.write_bytes(good.read_bytes().replace(b"parameters:", b"parameters: {", 1))
    with pytest.raises(ReferenceFileError, match="not readable ASDF"):
        pars.read_parameters(half)
    other = tmp_path / "other.asdf"
    asdf.AsdfFile({"something": 1}).write_to(other)
    with pytest.raises(ReferenceFileError, match="no `parameters`"):
        pars.read_parameters(other)
    binary = tmp_path / "image.fits"
    binary.write_bytes(bytes([0xFF, 0xFE, 0xA7]) * 100)
    with pytest.raises(ReferenceFileError, match="neither ASDF nor text"):
        pars.read_parameters(binary)


def test_config_file_of_a_step(tmp_path):
    """Values beside `config_file` win over those in it."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "jump.cfg").write_text("name = jump\nrejection_threshold = 3.0\nafter_jump_flag_dn1 = 7")
    path = tmp_path / "det1.cfg"
    path.write_text("[steps]\n[[jump]]\nconfig_file = parts/jump.cfg\nrejection_threshold = 9.0")
    jump = pars.read_parameters(path).steps["jump"]
    assert jump.parameters == {"rejection_threshold": "9.0", "after_jump_flag_dn1": "7"}
    from jwst.pipeline import Detector1Pipeline

    theirs = Detector1Pipeline.from_config_file(str(path)).jump
    assert theirs.rejection_threshold == 9.0 and theirs.after_jump_flag_dn1 == 7


def test_file_changed_between_reads(tmp_path):
    path = tmp_path / "a.cfg"
    path.write_text("a = 1")
    assert pars.read_parameters(path).parameters == {"a": "1"}
    path.write_text("a = 22")
    assert pars.read_parameters(path).parameters == {"a": "22"}


# ----------------------------------------------------------------------------------------------------------------------
# Writing


def test_written_file_is_the_oracles_form(tmp_path):
    path = tmp_path / "mine.asdf"
    steps = {"jump": ("JumpStep", {"rejection_threshold": 4.5, "skip": False}), "ipc": ("IPCStep", {"skip": True})}
    pars.write_parameters(path, "Detector1Pipeline", "calwebb_detector1", {"save_calibrated_ramp": True}, steps)
    reference = pars.read_parameters(path)
    assert flat(reference) == {
        "save_calibrated_ramp": True,
        "steps": {"jump": {"rejection_threshold": 4.5, "skip": False}, "ipc": {"skip": True}},
    }
    assert flat(reference) == oracle(path)
    from stpipe import Step

    pipeline = Step.from_config_file(str(path))
    assert type(pipeline).__name__ == "Detector1Pipeline"
    assert pipeline.save_calibrated_ramp is True and pipeline.jump.rejection_threshold == 4.5 and pipeline.ipc.skip
    assert [item.name for item in tmp_path.iterdir()] == ["mine.asdf"]
    with asdf.open(path) as file:
        theirs = tmp_path / "theirs.asdf"
        type(pipeline)().export_config(theirs, include_metadata=True)
        with asdf.open(theirs) as other:
            assert set(file["meta"]) == set(other["meta"])


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ReferenceFileError, match="cannot be written"):
        pars.write_parameters(tmp_path / "file" / "a.asdf", "JumpStep", "jump", {})


def test_values_survive(tmp_path):
    values = {"a": None, "b": (1, 2), "c": 1.5, "d": "text", "e": [True, "x"], "f": tmp_path}
    path = pars.write_parameters(tmp_path / "v.asdf", "a.b.SomeStep", "some", values, metadata=False)
    read = pars.read_parameters(path)
    assert read.class_name == "a.b.SomeStep"
    assert read.parameters == {**values, "b": [1, 2], "f": str(tmp_path)}


# ----------------------------------------------------------------------------------------------------------------------
# From CRDS


def deliver(cache, class_name, parameters, steps=None, rules=None):
    """Put a parameter reference of NIRCam into the synthetic cache."""
    reftype = pars.parameter_reftype(class_name)
    name = f"jwst_nircam_{reftype}_0001.asdf"
    pars.write_parameters(cache.path("nircam", name), class_name, "any", parameters, steps)
    match = rules or {("NRC_IMAGE",): {"2020-01-01 00:00:00": name}}
    cache.rmap("nircam", reftype, ("META.EXPOSURE.TYPE",), match)
    return name


@pytest.fixture
def delivered(cache):
    deliver(
        cache,
        "Detector1Pipeline",
        {"save_calibrated_ramp": True},
        {
            "jump": ("JumpStep", {"rejection_threshold": 5.0, "flag_4_neighbors": False}),
            "ipc": ("IPCStep", {"skip": True}),
        },
    )
    deliver(cache, "JumpStep", {"rejection_threshold": 3.0, "expand_large_events": True})
    deliver(cache, "RefPixStep", {"odd_even_rows": False})
    cache.not_applicable("nircam", "pars-darkcurrentstep")
    cache.finish()
    return cache


def test_reftype():
    assert pars.parameter_reftype("jwst.jump.jump_step.JumpStep") == "pars-jumpstep"


def test_one_class(delivered):
    found = pars.resolve_parameters(META, "JumpStep")
    assert found.origin == "jwst_nircam_pars-jumpstep_0001.asdf"
    assert found.parameters == {"rejection_threshold": 3.0, "expand_large_events": True}
    assert pars.resolve_parameters(META, "DarkCurrentStep") is None
    assert pars.resolve_parameters(META, "PersistenceStep") is None
    assert pars.resolve_parameters({**META, "meta.exposure.type": "NRC_DARK"}, "JumpStep") is None


@pytest.mark.parametrize("flag", ["true", "True", "t", "yes", "y"])
def test_disabled_by_environment(delivered, monkeypatch, flag):
    monkeypatch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", flag)
    assert pars.resolve_parameters(META, "JumpStep") is None
    (layers,) = pars.parameter_layers([META], "Detector1Pipeline", {"jump": "JumpStep"})
    assert layers.own == () and layers.steps == {"jump": ()}


@pytest.mark.parametrize("flag", ["", "false", "no", "1", "TRUE"])
def test_not_disabled(delivered, monkeypatch, flag):
    """The oracle takes these for "no", its odd exclusions included."""
    from stpipe.step import get_disable_crds_steppars

    monkeypatch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", flag)
    assert not get_disable_crds_steppars()
    assert pars.resolve_parameters(META, "JumpStep") is not None
    assert pars.resolve_parameters(META, "JumpStep", disable=True) is None


def merged(layers):
    """Layers as one dictionary an owner, as `core.params.build` applies them."""

    def apply(parts):
        values = {}
        for _, part in parts:
            values.update(part)
        return values

    return apply(layers.own), {name: apply(parts) for name, parts in layers.steps.items() if parts}


@pytest.mark.parametrize("config", [None, "asdf", "cfg"])
def test_precedence_as_the_oracle(delivered, tmp_path, config):
    """pars-step < pars-pipeline < parameter file, for every step of a pipeline, against the oracle's own merge."""
    from jwst.pipeline import Detector1Pipeline
    from stpipe import config_parser

    path = None
    if config == "asdf":
        path = tmp_path / "mine.asdf"
        steps = {"jump": ("JumpStep", {"flag_4_neighbors": True}), "refpix": ("RefPixStep", {"odd_even_rows": True})}
        pars.write_parameters(path, "Detector1Pipeline", "mine", {"save_calibrated_ramp": False}, steps)
    elif config == "cfg":
        path = tmp_path / "mine.cfg"
        path.write_text("name = mine\n[steps]\n[[jump]]\nflag_4_neighbors = True\n[[superbias]]\nskip = True")
    theirs = Detector1Pipeline.get_config_from_reference(dict(META), crds_observatory="jwst")
    if path is not None:
        config_parser.merge_config(theirs, config_parser.load_config_file(str(path)))
    classes = {name: of.__name__ for name, of in Detector1Pipeline.step_defs.items()}
    (layers,) = pars.parameter_layers([META], "Detector1Pipeline", classes, config_file=path)
    own, steps = merged(layers)
    drop = ("class", "name", "steps")
    assert own == {key: value for key, value in theirs.items() if key not in drop}
    expected = {
        name: {key: value for key, value in part.items() if key not in drop} for name, part in theirs["steps"].items()
    }
    assert steps == {name: part for name, part in expected.items() if part}
    assert steps["jump"]["rejection_threshold"] == 5.0 and steps["jump"]["expand_large_events"] is True


def test_origins(delivered, tmp_path):
    path = tmp_path / "mine.cfg"
    path.write_text("[steps]\n[[jump]]\nskip = True")
    (layers,) = pars.parameter_layers([META], "Detector1Pipeline", {"jump": "JumpStep"}, config_file=path)
    assert [origin for origin, _ in layers.steps["jump"]] == [
        "jwst_nircam_pars-jumpstep_0001.asdf",
        "jwst_nircam_pars-detector1pipeline_0001.asdf",
        "mine.cfg",
    ]


def test_step_of_a_step_as_the_oracle(cache):
    """The one step that is itself a pipeline: its steps have references of their own."""
    from jwst.pipeline import Spec2Pipeline

    outer = {
        "class": "jwst.pipeline.Spec2Pipeline",
        "name": "Spec2Pipeline",
        "parameters": {"fail_on_exception": False},
    }
    inner = {
        "class": "jwst.step.MasterBackgroundMosStep",
        "name": "master_background_mos",
        "parameters": {"sigma_clip": 4},
    }
    inner["steps"] = [{"class": "jwst.step.PhotomStep", "name": "photom", "parameters": {"inverse": True}}]
    name = "jwst_nircam_pars-spec2pipeline_0001.asdf"
    asdf.AsdfFile({**outer, "steps": [inner]}).write_to(cache.path("nircam", name))
    cache.rmap("nircam", "pars-spec2pipeline", ("META.EXPOSURE.TYPE",), {("NRC_IMAGE",): {"2020-01-01 00:00:00": name}})
    deliver(cache, "PhotomStep", {"mrs_time_correction": False, "inverse": False})
    deliver(
        cache, "MasterBackgroundMosStep", {"median_kernel": 5}, {"photom": ("PhotomStep", {"source_type": "POINT"})}
    )
    cache.finish()
    theirs = Spec2Pipeline.get_config_from_reference(dict(META), crds_observatory="jwst")
    classes = {"photom": "PhotomStep", "master_background_mos": "MasterBackgroundMosStep"}
    classes["master_background_mos.photom"] = "PhotomStep"
    (layers,) = pars.parameter_layers([META], "Spec2Pipeline", classes)
    own, steps = merged(layers)
    assert own == {"fail_on_exception": False}
    drop = ("class", "name", "steps")
    there = theirs["steps"]
    for mine, part in [
        ("photom", there["photom"]),
        ("master_background_mos", there["master_background_mos"]),
        ("master_background_mos.photom", there["master_background_mos"]["steps"]["photom"]),
    ]:
        assert steps[mine] == {key: value for key, value in part.items() if key not in drop}
    assert steps["master_background_mos.photom"] == {
        "mrs_time_correction": False,
        "inverse": True,
        "source_type": "POINT",
    }


def test_many_exposures_share(delivered):
    others = [{**META, "meta.observation.date": f"2023-01-{day:02d}"} for day in range(1, 29)]
    dark = {**META, "meta.exposure.type": "NRC_DARK"}
    layers = pars.parameter_layers([META, *others, dark], "Detector1Pipeline", {"jump": "JumpStep"})
    assert all(item is layers[0] for item in layers[:-1])
    assert layers[-1].own == () and layers[-1].steps == {"jump": ()}


def test_reference_missing_from_the_cache_is_an_error(delivered):
    """A run never falls back to defaults where the context gives parameters."""
    (delivered.root / "references/jwst/nircam/jwst_nircam_pars-jumpstep_0001.asdf").unlink()
    with pytest.raises(ReferenceFileError, match=r"pars-jumpstep_0001\.asdf.*refs sync"):
        pars.resolve_parameters(META, "JumpStep")
    with pytest.raises(ReferenceFileError, match="pars-jumpstep"):
        pars.parameter_layers([META], "Detector1Pipeline", {"jump": "JumpStep"})


def test_values_reach_the_parameters(delivered):
    """Layers are what core.params.build takes: text and ASDF values both arrive converted."""
    from dataclasses import dataclass

    from jwstdask.core.params import build, par

    @dataclass(frozen=True)
    class Jump:
        rejection_threshold: float = par(4.0, "threshold")
        flag_4_neighbors: bool = par(True, "flag")
        expand_large_events: bool = par(False, "expand")

    (layers,) = pars.parameter_layers([META], "Detector1Pipeline", {"jump": "JumpStep"})
    step, origins = build(Jump, [*layers.steps["jump"], ("command line", {"flag_4_neighbors": "true"})], "jump")
    assert step == Jump(5.0, True, True)
    assert origins["expand_large_events"] == "jwst_nircam_pars-jumpstep_0001.asdf"
