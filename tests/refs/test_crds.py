"""Promise: the references chosen are those of the crds client, for any number of exposures, without a server."""

from __future__ import annotations

import os
import random
import re

import pytest
from astropy.io import fits

from jwstdask.core.errors import ReferenceFileError
from jwstdask.refs import crds as refs

META = {
    "meta.instrument.name": "NIRCAM",
    "meta.instrument.detector": "NRCA1",
    "meta.exposure.type": "NRC_IMAGE",
    "meta.observation.date": "2023-05-06",
    "meta.observation.time": "01:02:03.456",
    "meta.visit.tsovisit": False,
}


def oracle_names(meta, reftypes, context=None):
    import crds

    try:
        return crds.getrecommendations(dict(meta), reftypes=list(reftypes), context=context)
    except TypeError:
        # one ambiguous rule set costs crds the whole exposure
        if len(reftypes) == 1:
            return {reftypes[0].lower(): AMBIGUOUS}
        return {key: name for reftype in reftypes for key, name in oracle_names(meta, [reftype], context).items()}


AMBIGUOUS = "NOT FOUND ambiguous rules"


def plain(choice):
    """A choice in the words of the crds client."""
    if choice.error is not None:
        return "NOT FOUND " + choice.error
    return "NOT FOUND n/a" if choice.not_applicable else choice.name


def words(answer):
    """crds separates the parts of its error texts by one or two blanks; its lists of values are cut as ours."""
    return " ".join(answer.split(" [")[0].split())


def assert_equal_to_oracle(metas, types, chosen):
    for meta, wanted, choices in zip(metas, types, chosen, strict=True):
        expected = oracle_names(meta, wanted)
        assert list(choices) == list(wanted)
        for reftype, choice in choices.items():
            if expected[reftype.lower()] == AMBIGUOUS:
                assert choice.error.startswith("ambiguous rules")
            else:
                assert words(plain(choice)) == words(expected[reftype.lower()]), (reftype, meta)


@pytest.fixture
def detectors(cache):
    cache.rmap(
        "nircam",
        "gain",
        ("META.INSTRUMENT.DETECTOR",),
        {
            ("NRCA1",): {
                "2020-01-01 00:00:00": "jwst_nircam_gain_0001.fits",
                "2022-06-01 12:00:00": "jwst_nircam_gain_0002.fits",
            },
            ("NRCA2|NRCA4",): {"2020-01-01 00:00:00": "jwst_nircam_gain_0003.fits"},
            ("NRCA3",): {"2020-01-01 00:00:00": "jwst_nircam_gain_0004.fits"},
        },
    )
    cache.rmap(
        "nircam",
        "flat",
        ("META.INSTRUMENT.DETECTOR", "META.VISIT.TSOVISIT"),
        {
            ("NRCA1", "T"): {"2020-01-01 00:00:00": "jwst_nircam_flat_0001.fits"},
            ("NRCA1", "F"): {"2020-01-01 00:00:00": "jwst_nircam_flat_0002.fits"},
            ("NRCA3", "N/A"): {"2020-01-01 00:00:00": "N/A"},
        },
    )
    cache.rmap(
        "nircam",
        "dark",
        ("META.INSTRUMENT.DETECTOR", "META.SUBARRAY.NAME"),
        {
            ("NRCA1", "FULL"): {"2020-01-01 00:00:00": "jwst_nircam_dark_0001.fits"},
            ("NRCA1", "GENERIC"): {"2021-01-01 00:00:00": "jwst_nircam_dark_0002.fits"},
            ("NRCA1", "SUB64|SUB160"): {"2022-01-01 00:00:00": "jwst_nircam_dark_0003.fits"},
        },
    )
    cache.rmap("nircam", "mask", (), {(): {"2020-01-01 00:00:00": "jwst_nircam_mask_0001.fits"}})
    cache.not_applicable("nircam", "fringe")
    cache.finish(bad_files=("jwst_nircam_gain_0003.fits",))
    return cache


def test_choices(detectors):
    detectors.path("nircam", "jwst_nircam_gain_0002.fits").write_bytes(b"x")
    (choices,) = refs.resolve([META], ["gain", "flat", "mask", "fringe", "area"])
    gain = choices["gain"]
    assert gain.name == "jwst_nircam_gain_0002.fits" and gain.present and gain.usable
    assert gain.path == str(detectors.root / "references/jwst/nircam/jwst_nircam_gain_0002.fits")
    assert gain.origin == "jwst_0001.pmap"
    assert choices["flat"].name == "jwst_nircam_flat_0002.fits" and not choices["flat"].present
    assert choices["fringe"].not_applicable and choices["fringe"].path is None
    assert "Unknown reference type 'area'" in choices["area"].error
    assert_equal_to_oracle([META], [list(choices)], [choices])


@pytest.mark.parametrize(
    "change",
    [
        {"meta.visit.tsovisit": True},
        {"meta.visit.tsovisit": "T"},
        {"meta.visit.tsovisit": None},
        {"meta.instrument.detector": "NRCA3"},
        {"meta.instrument.detector": "NRCB1"},
        {"meta.instrument.detector": None},
        {"meta.instrument.detector": "nrca1"},
        {"meta.instrument.detector": " NRCA1 "},
        {"meta.instrument.detector": "N/A"},
        {"meta.instrument.detector": "ANY"},
        {"meta.subarray.name": "SUB160"},
        {"meta.subarray.name": "FULL"},
        {"meta.subarray.name": "SUB8X8"},
        {"meta.observation.date": "2022-06-01", "meta.observation.time": "12:00:00"},
        {"meta.observation.date": "2022-06-01", "meta.observation.time": "11:59:59.999"},
        {"meta.observation.date": "2022-06-01", "meta.observation.time": "12:00:00.000"},
        {"meta.observation.date": "1999-01-01"},
        {"meta.observation.date": "2022/06/01"},
        {"meta.observation.date": "not a date"},
        {"meta.observation.date": None},
        {"meta.observation.time": None},
        {"meta.observation.time": "25:00:00"},
        {"meta.observation.time": 3},
        {"meta.instrument.name": "nircam"},
    ],
)
def test_selection_keys(detectors, change):
    """Each metadata value that decides, next to an exposure that differs in it, in one call: answers are not shared."""
    metas = [META, {**META, **change}, META]
    # crds refuses a file that is marked bad with an exception, tested below
    types = ["gain", "flat", "dark", "mask", "fringe"]
    assert_equal_to_oracle(metas, [types] * 3, refs.resolve(metas, types))


def test_failures_quote_the_exposure_itself(detectors):
    early = [{**META, "meta.observation.date": f"1999-01-0{day}"} for day in (1, 2)]
    errors = [choices["gain"].error for choices in refs.resolve(early, ["gain"])]
    assert "1999-01-01" in errors[0] and "1999-01-02" in errors[1]


def test_only_exposures_in_need_carry_an_error(detectors):
    good, lost = refs.resolve([META, {**META, "meta.instrument.detector": "NRCB1"}], [["gain"], ["gain", "mask"]])
    assert good["gain"].error is None
    assert "NRCB1" in lost["gain"].error
    assert lost["mask"].error is None
    with pytest.raises(ReferenceFileError, match=r"a_uncal.fits.*gives no gain reference.*NRCB1.*override_gain"):
        refs.required(lost["gain"], "a_uncal.fits")


def test_no_instrument(detectors):
    (choices,) = refs.resolve([{"meta.instrument.detector": "NRCA1"}], ["gain"])
    assert "instrument" in choices["gain"].error
    (choices,) = refs.resolve([{**META, "meta.instrument.name": "WFC3"}], ["gain"])
    assert "WFC3" in choices["gain"].error.upper()


def test_missing_file_is_known_with_its_remedy(detectors):
    (choices,) = refs.resolve([META], ["gain"])
    assert not choices["gain"].present
    with pytest.raises(ReferenceFileError, match=r"jwst_nircam_gain_0002.fits.*does not exist.*refs sync"):
        refs.required(choices["gain"])


def test_bad_reference_is_refused(detectors, monkeypatch):
    from crds.core import config

    meta = {**META, "meta.instrument.detector": "NRCA2"}
    assert "scientifically invalid" in refs.resolve([meta], ["gain"])[0]["gain"].error
    config.ALLOW_BAD_REFERENCES.set(True)
    try:
        assert refs.resolve([meta], ["gain"])[0]["gain"].error is None
    finally:
        config.ALLOW_BAD_REFERENCES.set(False)


def test_overrides(detectors, tmp_path):
    mine = tmp_path / "my_gain.fits"
    mine.write_bytes(b"x")
    overrides = {
        "gain": mine,
        "flat": "N/A",
        "dark": tmp_path / "absent.fits",
        "mask": "crds://jwst_nircam_mask_0009.fits",
    }
    (choices,) = refs.resolve([META], ["gain", "flat", "dark", "mask"], overrides=overrides)
    assert choices["gain"].path == str(mine) and choices["gain"].usable and choices["gain"].origin == "override"
    assert choices["flat"].not_applicable
    assert not choices["dark"].present
    assert choices["mask"].path == str(detectors.root / "references/jwst/nircam/jwst_nircam_mask_0009.fits")
    with pytest.raises(ReferenceFileError, match="Correct the path"):
        refs.required(choices["dark"])


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"REFTYPE": "DARK", "DATAMODL": "DarkModel"}, "REFTYPE of .*mine.fits is DARK"),
        ({"DATAMODL": "RampModel"}, r"mine.fits is an exposure or product \(DATAMODL RampModel\).*REFTYPE FLAT"),
        ({"REFTYPE": "FLAT", "DATAMODL": "ImageModel"}, None),
        ({"REFTYPE": "flat "}, None),
        ({"REFTYPE": "PIXEL-TO-PIXEL FLAT", "DATAMODL": "FlatModel"}, None),
        ({"DATAMODL": "FlatModel"}, None),
        ({}, None),
    ],
)
def test_override_of_another_kind(tmp_path, keywords, says):
    mine = tmp_path / "mine.fits"
    fits.PrimaryHDU(header=fits.Header(keywords)).writeto(mine)
    choice = refs.override_choice("flat", mine)
    assert choice.usable == (says is None)
    if says is not None:
        assert re.search(says, choice.error)


def test_overrides_alone_need_no_context(tmp_path, crds_environment):
    crds_environment(tmp_path / "nothing", None)
    (choices,) = refs.resolve([META], ["gain"], overrides={"gain": tmp_path / "g.fits"})
    assert choices["gain"].origin == "override"


def test_context_by_argument_then_environment_then_operational(detectors, crds_environment, mapping_writer):
    head = {
        "derived_from": "generated",
        "mapping": "PIPELINE",
        "observatory": "JWST",
        "parkey": ("META.INSTRUMENT.NAME",),
    }
    mapping_writer(detectors.mappings, "jwst_0002.pmap", head, "{'NIRCAM' : 'N/A'}")
    crds_environment(detectors.root, None)
    assert refs.context_name() == "jwst_0001.pmap"
    crds_environment(detectors.root, "jwst_0002.pmap")
    assert refs.context_name() == "jwst_0002.pmap"
    assert refs.context_name("jwst_0001.pmap") == "jwst_0001.pmap"
    assert refs.context_name("latest") == "jwst_0001.pmap"
    assert refs.resolve([META], ["gain"])[0]["gain"].not_applicable
    assert refs.resolve([META], ["gain"], context="jwst_0001.pmap")[0]["gain"].name == "jwst_nircam_gain_0002.fits"


def test_cache_without_context(tmp_path, crds_environment):
    crds_environment(tmp_path, "jwst_9999.pmap")
    with pytest.raises(ReferenceFileError, match=r"jwst_9999.pmap.*not in the CRDS cache.*refs sync"):
        refs.resolve([META], ["gain"])
    crds_environment(tmp_path, None)
    with pytest.raises(ReferenceFileError, match="context cannot be determined"):
        refs.resolve([META], ["gain"])


def test_damaged_mappings(detectors):
    path = detectors.mappings / "jwst_nircam_gain_0001.rmap"
    path.write_text(path.read_text().replace("gain_0002", "gain_0007"))
    with pytest.raises(ReferenceFileError, match="sha1sum"):
        refs.resolve([META], ["gain"])
    assert refs.resolve([META], ["flat"])[0]["flat"].name == "jwst_nircam_flat_0002.fits"
    path.unlink()
    with pytest.raises(ReferenceFileError, match=r"gain_0001\.rmap"):
        refs.resolve([META], ["gain"])


def test_two_caches_in_one_process(detectors, tmp_path, crds_environment, make_cache):
    """The rules come from the cache in use, not from the one first seen."""
    assert refs.resolve([META], ["mask"])[0]["mask"].name == "jwst_nircam_mask_0001.fits"
    other = make_cache(tmp_path / "other")
    other.rmap("nircam", "mask", (), {(): {"2020-01-01 00:00:00": "jwst_nircam_mask_0005.fits"}})
    other.finish()
    crds_environment(other.root, other.context)
    assert refs.resolve([META], ["mask"])[0]["mask"].name == "jwst_nircam_mask_0005.fits"


def test_rules_with_expressions(cache):
    """A rule set switched by an expression over a parameter it does not match."""
    cache.rmap(
        "nircam",
        "area",
        ("META.INSTRUMENT.DETECTOR", "META.EXPOSURE.TYPE"),
        {("NRCA1", "N/A"): {"2020-01-01 00:00:00": "jwst_nircam_area_0001.fits"}},
        rmap_relevance="(META.EXPOSURE.TYPE != 'NRC_DARK')",
    )
    cache.rmap(
        "nircam",
        "photom",
        ("META.INSTRUMENT.DETECTOR", "META.INSTRUMENT.FILTER"),
        {("NRCA1", "F200W"): {"2020-01-01 00:00:00": "jwst_nircam_photom_0001.fits"},
         ("NRCA1", "N/A"): {"2020-01-01 00:00:00": "jwst_nircam_photom_0002.fits"}},
        parkey_relevance={"meta.instrument.filter": "(META_EXPOSURE_TYPE == 'NRC_IMAGE')"},
    )  # fmt: skip
    cache.finish()
    metas = [
        {**META, "meta.exposure.type": kind, "meta.instrument.filter": name}
        for kind in ("NRC_IMAGE", "NRC_DARK", "NRC_WFSS")
        for name in ("F200W", "F090W", "CLEAR")
    ]
    types = ["area", "photom"]
    chosen = refs.resolve(metas, types)
    assert_equal_to_oracle(metas, [types] * len(metas), chosen)
    assert len({plain(choices["photom"]) for choices in chosen}) == 2


def test_flat_cache(detectors, crds_environment):
    (detectors.root / "config/jwst/ref_cache_subdir_mode").write_text("flat")
    folder = detectors.root / "references/jwst"
    folder.mkdir(parents=True)
    (folder / "jwst_nircam_gain_0002.fits").write_bytes(b"x")
    choice = refs.resolve([META], ["gain"])[0]["gain"]
    assert choice.present and choice.path == str(folder / "jwst_nircam_gain_0002.fits")


def test_read_only_cache_is_left_alone(detectors):
    before = sorted(str(path) for path in detectors.root.rglob("*"))
    refs.resolve([META], ["gain", "flat"])
    assert sorted(str(path) for path in detectors.root.rglob("*")) == before


def test_arguments(detectors):
    with pytest.raises(TypeError):
        refs.resolve([META], "gain")
    with pytest.raises(ValueError, match="2 sequences"):
        refs.resolve([META], [["gain"], ["flat"]])
    assert refs.resolve([], []) == []
    assert refs.resolve([META], []) == [{}]


# ----------------------------------------------------------------------------------------------------------------------
# The real context


def schema_values():
    """Allowed values of keywords, from the schemas of the products: dotted name -> values."""
    from stdatamodels.jwst import datamodels

    found: dict[str, list] = {}

    def walk(node, path):
        if "enum" in node:
            found.setdefault(path, list(node["enum"]))
        for part in (*node.get("allOf", ()), *node.get("anyOf", ())):
            walk(part, path)
        for name, child in node.get("properties", {}).items():
            walk(child, f"{path}.{name}" if path else name)

    walk(datamodels.ImageModel().schema, "")
    return found


PREFIX = {"MIRI": "MIR_", "NIRCAM": "NRC_", "NIRISS": "NIS_", "NIRSPEC": "NRS_", "FGS": "FGS_"}
DETECTORS = {
    "MIRI": ["MIRIMAGE", "MIRIFULONG", "MIRIFUSHORT"],
    "NIRCAM": [f"NRC{module}{name}" for module in "AB" for name in ("1", "2", "3", "4", "LONG")],
    "NIRISS": ["NIS"],
    "NIRSPEC": ["NRS1", "NRS2"],
    "FGS": ["GUIDER1", "GUIDER2"],
}
MATCHED = [
    "meta.instrument.filter",
    "meta.instrument.pupil",
    "meta.instrument.grating",
    "meta.instrument.channel",
    "meta.instrument.band",
    "meta.instrument.module",
    "meta.instrument.coronagraph",
    "meta.instrument.lamp_state",
    "meta.exposure.readpatt",
    "meta.subarray.name",
    "meta.visit.tsovisit",
    "meta.observation.date",
    "meta.observation.time",
]


def generated_headers(number, seed):
    """Headers over all instruments, detectors, exposure types and optical elements; some odd, some incomplete."""
    draw = random.Random(seed)
    values = schema_values()
    headers = []
    for index in range(number):
        instrument = sorted(DETECTORS)[index % 5]
        detectors = DETECTORS[instrument]
        types = [name for name in values["meta.exposure.type"] if name.startswith(PREFIX[instrument])]
        meta = {
            "meta.telescope": "JWST",
            "meta.instrument.name": instrument,
            "meta.instrument.detector": detectors[(index // 5) % len(detectors)],
            "meta.exposure.type": types[(index // 5) % len(types)],
            "meta.exposure.nframes": 1,
            "meta.exposure.frame_time": 10.73677,
            "meta.wcsinfo.wcsaxes": 2,
        }
        for name in MATCHED[:-3]:
            if draw.random() < 0.8:
                meta[name] = draw.choice(values.get(name) or ["N/A"])
        if instrument == "NIRCAM":
            meta["meta.instrument.channel"] = "LONG" if meta["meta.instrument.detector"].endswith("LONG") else "SHORT"
        if draw.random() < 0.5:
            meta["meta.subarray.name"] = "FULL"
        meta["meta.visit.tsovisit"] = draw.choice([True, False, False, "T", None])
        year, month, day = (
            draw.choice([2012, 2016, 2019, 2021, 2022, 2023, 2024]),
            draw.randint(1, 12),
            draw.randint(1, 28),
        )
        meta["meta.observation.date"] = f"{year}-{month:02d}-{day:02d}"
        clock = f"{draw.randint(0, 23):02d}:{draw.randint(0, 59):02d}:{draw.randint(0, 59):02d}"
        meta["meta.observation.time"] = draw.choice(
            [clock, clock + f".{draw.randint(0, 999):03d}", "00:00:00", clock + ".0"]
        )
        if draw.random() < 0.05:
            meta["meta.observation.date"] = draw.choice(
                ["1800-01-01", "2022/07/01", "UNDEFINED", "", "31 Jul 2023", "2999-12-31"]
            )
        if draw.random() < 0.1:
            meta.pop(draw.choice([*MATCHED, "meta.instrument.detector", "meta.exposure.type"]), None)
        if draw.random() < 0.05:
            meta[draw.choice(MATCHED)] = draw.choice([None, "ANY", "N/A", 7, 1.5, "lower case", ["list"]])
        headers.append(meta)
    return headers


def headers_of_rules(context, number, seed):
    """Headers that fulfil a rule drawn from the context, so that most of them find files."""
    import crds

    draw = random.Random(seed)
    top = crds.get_cached_mapping(context)
    headers = []
    while len(headers) < number:
        instrument = sorted(DETECTORS)[len(headers) % 5]
        imap = top.get_imap(instrument)
        reftype = draw.choice([name for name, value in imap.selector.items() if value.endswith(".rmap")])
        rules = imap.get_rmap(reftype)
        base = generated_headers(5, draw.random())[len(headers) % 5]
        meta = {**base, "meta.instrument.name": instrument}
        meta["meta.observation.date"], meta["meta.observation.time"] = f"202{draw.randint(2, 6)}-07-04", "12:34:56.789"
        # each parameter from a rule of its own: some combinations exist, some do not; one rule whole now and then
        keys = [key for group in rules.parkey for key in ([group] if isinstance(group, str) else group)]
        tuples = [key if isinstance(key, tuple) else (key,) for key in rules.selector.keys()]
        if not tuples or not tuples[0]:
            headers.append(meta)
            continue
        chosen = draw.choice(tuples)
        for key, value in zip(keys, chosen):
            value = draw.choice(str(value).split("|")).strip()
            if value not in ("N/A", "*", "ANY") and not key.startswith("META.OBSERVATION"):
                meta[key.lower()] = value
        headers.append(meta)
    return headers


def step_reference_types():
    """Every reference type a step of the oracle asks for."""
    from jwst.stpipe.integration import get_steps
    from stpipe.utilities import import_class

    steps = [import_class(info[0]) for info in get_steps() if not info[2]]
    listed = [step.reference_file_types for step in steps]
    # the one step that is a pipeline inside computes its list from its own steps, which are in this list too
    return sorted({reftype for types in listed if not isinstance(types, property) for reftype in types})


def test_real_context_equals_crds(real_cache):
    metas = generated_headers(600, seed=20240229) + headers_of_rules(real_cache[1], 600, seed=7)
    types = [*step_reference_types(), "pars-jumpstep"]
    assert len(types) > 50
    chosen = refs.resolve(metas, types)
    assert_equal_to_oracle(metas, [types] * len(metas), chosen)
    # the comparison has something to compare: files, not applicable and failures for every instrument
    for instrument in DETECTORS:
        mine = [choices for meta, choices in zip(metas, chosen) if meta.get("meta.instrument.name") == instrument]
        kinds = [choice for choices in mine for choice in choices.values()]
        assert len({choice.name for choice in kinds if choice.path}) >= 50
        assert any(choice.not_applicable for choice in kinds) and any(choice.error for choice in kinds)
        assert not any(choice.present for choice in kinds)


def test_real_context_serves_real_references(real_data, crds_environment):
    """Names without files and names with files, from a cache that cannot be written and has no configuration."""
    root = real_data / "crds_contexts"
    context = sorted(path.name for path in (root / "mappings" / "jwst").glob("*.pmap"))[-1]
    crds_environment(root, context)
    meta = {
        **META,
        "meta.instrument.name": "MIRI",
        "meta.instrument.detector": "MIRIMAGE",
        "meta.exposure.type": "MIR_IMAGE",
    }
    meta |= {"meta.instrument.filter": "F770W", "meta.exposure.readpatt": "FASTR1", "meta.subarray.name": "FULL"}
    (choices,) = refs.resolve([meta], ["distortion", "filteroffset", "gain"])
    assert choices["gain"].path and not choices["gain"].present
    assert choices["distortion"].present and os.path.getsize(choices["distortion"].path) > 0
