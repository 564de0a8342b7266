from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import jwstdask.simulate
from jwstdask.simulate import Cache, Effects, Program, make_cache, make_program
from jwstdask.simulate.crds import sha1


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_seed_same_bytes(tmp_path):
    for name in "ab":
        cache = make_cache(tmp_path / name / "cache", detectors=("nrcb4",), subarray="SUB160", seed=7, dark_groups=4)
        make_program(tmp_path / name / "program", cache, dithers=1, ngroups=3, seed=2)
    a, b = (digest(tmp_path / name) for name in "ab")
    # the program's record names the folder of its cache
    assert {k for k in a if a[k] != b[k]} <= {"program/simulation.json"}
    assert set(a) == set(b)
    other = make_program(tmp_path / "c", cache, dithers=1, ngroups=3, seed=3)
    first = fits.getdata(tmp_path / "b/program" / other.uncals[0].name, "SCI")
    assert fits.getdata(other.uncals[0], "SCI").tobytes() != first.tobytes()


def test_simulator_imports_no_calibration_code():
    allowed = ("jwstdask.simulate", "numpy", "scipy", "astropy", "asdf", "gwcs")
    for path in Path(jwstdask.simulate.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names or name.startswith(allowed), (path.name, name)


def test_records_come_back(small_cache, small_program):
    assert Cache.open(small_cache.path) == small_cache
    again = Program.open(small_program.path)
    assert again.uncals == small_program.uncals
    assert again.associations == small_program.associations
    assert again.cache == small_cache


def test_mappings_carry_their_checksum(small_cache):
    mappings = list((small_cache.path / "mappings" / "jwst").iterdir())
    assert len(mappings) > 20
    for path in mappings:
        text = path.read_text()
        header = ast.literal_eval(text.split("header = ")[1].split("\n\n")[0])
        assert header["name"] == path.name
        assert header["sha1sum"] == sha1(text)
        others = "".join(line for line in text.splitlines(keepends=True) if "sha1sum" not in line)
        assert header["sha1sum"] == hashlib.sha1(others.encode()).hexdigest()


def test_caches_of_other_content_have_other_names(tmp_path, small_cache):
    other = make_cache(tmp_path, detectors=("nrca1",), subarray="SUB160", seed=6, dark_groups=2)
    assert other.context != small_cache.context
    names = [{p.name for p in (c.path / "mappings" / "jwst").iterdir()} for c in (other, small_cache)]
    assert not names[0] & names[1]


def test_crds_finds_the_references(small_cache, small_program, monkeypatch):
    import crds

    for name, value in small_cache.environment.items():
        monkeypatch.setenv(name, value)
    header = {
        "META.INSTRUMENT.NAME": "NIRCAM", "META.INSTRUMENT.DETECTOR": "NRCA1", "META.INSTRUMENT.CHANNEL": "SHORT",
        "META.INSTRUMENT.MODULE": "A", "META.INSTRUMENT.FILTER": "F200W", "META.INSTRUMENT.PUPIL": "CLEAR",
        "META.EXPOSURE.TYPE": "NRC_IMAGE", "META.EXPOSURE.READPATT": "RAPID", "META.SUBARRAY.NAME": "SUB160",
        "META.OBSERVATION.DATE": "2023-07-15", "META.OBSERVATION.TIME": "03:20:11", "META.VISIT.TSOVISIT": "F",
    }  # fmt: skip
    kinds = ["mask", "gain", "readnoise", "superbias", "saturation", "linearity", "dark", "flat", "area", "photom",
             "distortion", "ipc", "filteroffset", "apcorr", "abvegaoffset", "pars-jumpstep",
             "pars-image2pipeline"]  # fmt: skip
    found = crds.getreferences(header, reftypes=kinds, observatory="jwst")
    assert set(found) == set(kinds)
    for kind, path in found.items():
        assert Path(path).is_file(), kind
        assert Path(path).parent == small_cache.references
    assert Path(found["gain"]) == small_cache.reference("nrca1", "gain")
    missing = crds.getreferences(header, reftypes=["refpix", "specwcs", "pars-darkcurrentstep"], observatory="jwst")
    assert all("N/A" in value.upper() for value in missing.values())


def test_references_keep_the_promises_of_real_ones(small_cache):
    maps = small_cache.detector_maps(small_cache.request().detectors[0], "SUB160")
    for kind in ("mask", "saturation", "superbias", "linearity", "dark:SUB160", "flat:F200W"):
        with fits.open(small_cache.reference("nrca1", kind)) as hdus:
            names = {row["NAME"]: int(row["VALUE"]) for row in hdus["DQ_DEF"].data}
            assert hdus["DQ"].data.shape == (160, 160)
            flags = maps.flags[kind.split(":")[0]]
            for name, expected in flags.items():
                np.testing.assert_array_equal(hdus["DQ"].data & names[name] > 0, expected)
            assert (hdus[0].header["SUBSTRT1"], hdus[0].header["SUBSTRT2"]) == (1889, 1889)
    for kind in ("superbias", "linearity", "saturation", "flat:F200W", "gain"):
        extension = "COEFFS" if kind == "linearity" else "SCI"
        bad = np.isnan(fits.getdata(small_cache.reference("nrca1", kind), extension))
        assert bad.any(), kind
        assert bad.mean() < 0.01
    rn = fits.getdata(small_cache.reference("nrca1", "readnoise"))
    # correlated double sampling: two reads
    np.testing.assert_allclose(rn, np.sqrt(2) * maps.read_noise, rtol=1e-6)


def test_level1b_layout(small_program):
    path = small_program.uncals[1]
    assert path.name == "jw01234001001_02101_00002_nrca1_uncal.fits"
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "GROUP", "INT_TIMES", "ASDF"]
        assert hdus["SCI"].data.shape == (1, 10, 160, 160)
        assert hdus["SCI"].data.dtype == np.uint16
        assert hdus["SCI"].header["BZERO"] == 32768
        primary, science = hdus[0].header, hdus["SCI"].header
        assert primary["EFFINTTM"] == pytest.approx(10 * primary["TGROUP"])
        assert primary["FILENAME"] == path.name
        assert science["S_REGION"].startswith("POLYGON ICRS  ")
        times = hdus["INT_TIMES"].data
        length = (times["int_end_MJD_UTC"] - times["int_start_MJD_UTC"]) * 86400
        # days in double precision: a microsecond
        np.testing.assert_allclose(length, primary["EFFINTTM"], atol=2e-6)
        assert len(hdus["GROUP"].data) == 10


def test_every_keyword_is_in_the_schema(small_program):
    from stdatamodels.jwst import datamodels
    from stdatamodels.schema import walk_schema

    known: dict[str, dict] = {}

    def collect(subschema, path, combiner, context, recurse):
        if "fits_keyword" in subschema:
            known.setdefault(subschema["fits_keyword"], subschema)

    with datamodels.Level1bModel() as model:
        walk_schema(model.schema, collect)
    python = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
    structure = set("SIMPLE XTENSION BITPIX EXTEND EXTNAME PCOUNT GCOUNT BSCALE BZERO NEXTEND".split()) | {""}
    with fits.open(small_program.uncals[0]) as hdus:
        for header in (hdus[0].header, hdus["SCI"].header):
            for name, value in header.items():
                if name in structure or name.startswith("NAXIS"):
                    continue
                assert name in known, name
                assert isinstance(value, python[known[name]["type"]]), (name, value)
                if "enum" in known[name]:
                    assert value in known[name]["enum"], (name, value)


def test_associations_name_products_of_the_exposures(small_program):
    content = json.loads(small_program.association.read_text())
    members = [m["expname"] for m in content["products"][0]["members"]]
    assert members == [p.name.replace("_uncal", "_cal") for p in small_program.uncals]
    assert content["products"][0]["name"] == "jw01234-o001_t001_nircam_clear-f200w-sub160"


def test_patterns_gaps_and_first_frames(tmp_path, small_cache):
    program = make_program(
        tmp_path, small_cache, detectors=("nrcb1",), dithers=1, readpatt="MEDIUM2", ngroups=3, nints=2
    )
    with fits.open(program.uncals[0]) as hdus:
        assert hdus["ZEROFRAME"].data.shape == (2, 160, 160)
        header = hdus[0].header
        assert (header["NFRAMES"], header["GROUPGAP"]) == (2, 8)
        # 10 frames of 0.27864 s
        assert header["TGROUP"] == pytest.approx(2.7864)
        assert header["EFFINTTM"] == pytest.approx(2 * 2.7864 + 2 * 0.27864)


def test_noiseless_exposures_give_the_true_rate(tmp_path, small_cache):
    program = make_program(tmp_path, small_cache, detectors=("nrca1",), dithers=1, effects=Effects.none(), stars=5)
    maps = small_cache.detector_maps(small_cache.request().detectors[0], "SUB160")
    with fits.open(program.uncals[0]) as hdus:
        data = hdus["SCI"].data[0].astype(float) - maps.superbias
        group_time = hdus[0].header["TGROUP"]
    linear = sum(c * data**k for k, c in enumerate(maps.linearity.astype(float)))
    rate = np.polyfit(np.arange(10), linear.reshape(10, -1), 1)[0].reshape(160, 160) / group_time
    truth = program.rate(program.uncals[0].name.removesuffix("_uncal.fits")) + maps.dark_rate / maps.gain
    good = data[-1] < 0.9 * maps.saturation
    good &= ~maps.reference_pixels
    assert good.mean() > 0.9
    # a straight line through ten whole numbers: 0.29 DN / sqrt(82.5) a group
    np.testing.assert_allclose(rate[good], truth[good], rtol=1e-3, atol=6 * 0.29 / 82.5**0.5 / group_time)


def test_flux_of_the_sky_is_the_flux_of_the_table(tmp_path, small_cache):
    program = make_program(
        tmp_path, small_cache, detectors=("nrca1",), dithers=1, effects=Effects.none(), stars=6, galaxies=0,
        background=0.0, separation=2.5,
    )  # fmt: skip
    root = program.uncals[0].name.removesuffix("_uncal.fits")
    maps = small_cache.detector_maps(small_cache.request().detectors[0], "SUB160")
    rate = program.rate(root) / np.where(maps.flat > 0.1, maps.flat, np.nan)
    sources = program.sources()
    sources.add_index("id")
    seen = fits.getdata(program.exposure_truth[root], "SOURCES")
    inside = [row for row in seen if 12 < row["x"] < 143 and 12 < row["y"] < 143]
    assert inside
    y, x = np.mgrid[:160, :160]
    for row in inside:
        near = np.hypot(x - row["x"], y - row["y"]) < 12
        # dead pixels are missing, wings beyond 12 pixels too (8 %); the solid angle differs by up to 2 % over the field
        assert np.nansum(rate[near]) == pytest.approx(0.92 * sources.loc[row["id"]]["rate"], rel=0.06)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"filter": "F150W"}, "no references for F150W"),
        ({"detectors": ("nrca2",)}, "no references for NRCA2"),
        ({"subarray": "SUB320"}, "no references for SUB320"),
        ({"readpatt": "FASTR1"}, "no pattern"),
    ],
)
def test_impossible_requests_are_refused(tmp_path, small_cache, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_program(tmp_path, small_cache, **arguments)


def test_a_small_cache_is_for_one_subarray(tmp_path):
    with pytest.raises(ValueError, match="one subarray"):
        make_cache(tmp_path, subarray=("SUB160", "SUB320"))
