"""Names follow the oracle's suffix rule and the archive's conventions."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwst.lib import suffix as oracle
from jwst.stpipe import Step

from jwstdask.io.naming import (
    KNOWN_SUFFIXES,
    cube_product_name,
    exposure_stem,
    parse_exposure_name,
    product_path,
    remove_suffix,
    source_id_name,
    source_product_name,
    split_suffix,
)

PARTS = st.lists(
    st.sampled_from(sorted(KNOWN_SUFFIXES) + ["jw01", "o001", "x", "seg002", "a3001"]), min_size=1, max_size=4
)


def test_known_suffixes_are_the_oracles():
    assert set(oracle.KNOW_SUFFIXES) == KNOWN_SUFFIXES
    assert len(KNOWN_SUFFIXES) == 159


@given(PARTS, st.lists(st.sampled_from("_-"), min_size=3, max_size=3))
def test_split_like_the_oracle(parts, separators):
    name = parts[0] + "".join(separator + part for separator, part in zip(separators, parts[1:]))
    root, separator, suffix = split_suffix(name)
    assert (root, separator) == oracle.remove_suffix(name)
    assert name == (root + separator + suffix if suffix else root)
    assert remove_suffix(name) == root


@pytest.mark.parametrize(
    "base", ["in/jw1_uncal.fits", "jw1-cal.fits", "jw1_other.fits", "jw1_rate.asdf", "jw1_dark_current.fits"]
)
@pytest.mark.parametrize("suffix", ["rate", "crf", "i2d"])
@pytest.mark.parametrize("components", [{}, {"asn_id": "a3001"}, {"asn_id": None, "slit": "s1600a1", "idx": 2}])
def test_paths_like_the_oracle(base, suffix, components):
    step = Step()
    step.output_dir = "out"
    expected = step.make_output_path(basepath=base, suffix=suffix, **components)
    assert product_path(base, suffix, "out", components.values(), extension=step.output_ext) == expected


def test_path_details(monkeypatch):
    monkeypatch.setenv("PRODUCTS", "/data")
    assert product_path("a_cal.fits", "i2d", "$PRODUCTS/x") == "/data/x/a_i2d.fits"
    assert product_path("a_cal.fits", None) == "a_cal.fits"
    assert product_path("a_cal", "cat", extension=".ecsv") == "a_cat.ecsv"
    assert product_path("a_cal.fits", "i2d", "~") == os.path.expanduser("~/a_i2d.fits")
    assert exposure_stem("/x/jw01_nrca1_uncal.fits") == "jw01_nrca1"


def test_exposure_name():
    name = parse_exposure_name("/x/jw01366002001_04101_00001-seg002_nrs1_rateints.fits")
    assert (name.program, name.observation, name.visit) == ("01366", "002", "001")
    assert (name.visit_group, name.sequence, name.activity, name.exposure) == ("04", "1", "01", "00001")
    assert (name.segment, name.detector, name.suffix) == ("002", "nrs1", "rateints")
    assert name.stem == "jw01366002001_04101_00001-seg002_nrs1"
    assert name.dither == "jw01366002001_04101_00001"
    plain = parse_exposure_name("jw00793001001_0110a_00001_nrcalong_uncal.fits")
    assert (plain.activity, plain.segment, plain.stem) == ("0a", None, "jw00793001001_0110a_00001_nrcalong")
    guide = parse_exposure_name("jw01019001001_gs-acq1_2022117003102_uncal.fits")
    assert (guide.guide_mode, guide.time, guide.suffix) == ("acq1", "2022117003102", "uncal")
    assert guide.stem == "jw01019001001_gs-acq1_2022117003102"
    assert parse_exposure_name("jw01234-o001_t001_nircam_f200w_i2d.fits") is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((42,), "s000000042"),
        ((42, "NRS_MSASPEC", (), "1345_42"), "s000000042"),
        ((-3, "NRS_MSASPEC"), "v000000003"),
        ((7, "NRS_MSASPEC", (), "1345_BKG7"), "b000000007"),
        ((1, "NRS_FIXEDSLIT", ("S200A1", "S200A2")), "s000000001-s200a1-s200a2"),
    ],
)
def test_source_names(arguments, expected):
    assert source_id_name(*arguments) == expected
    assert source_product_name("jw01-o001_{source_id}_nirspec", expected) == f"jw01-o001_{expected}_nirspec"


def test_cube_names():
    pairs = [("1", "SHORT"), ("2", "SHORT"), ("1", "LONG"), ("2", "MEDIUM")]
    assert cube_product_name("a_miri", "MIRI", pairs) == "a_miri_ch1-2-shortmediumlong"
    assert cube_product_name("a", "MIRI", pairs[:1], "internal_cal") == "a_ch1-short_internal"
    assert cube_product_name("a_g140h", "NIRSPEC", [("G140H", "F100LP")]) == "a_g140h-f100lp"
    assert (
        cube_product_name("a", "NIRSPEC", [("G140H", "F100LP"), ("G235H", "F170LP")]) == "a_g140h-f100lp-g235h-f170lp"
    )
    assert cube_product_name("a", "NIRCAM", []) == "a"
