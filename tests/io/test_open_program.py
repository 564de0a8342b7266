"""A program opened: its table, its tree, parts of both; headers are read and pixels are not."""

from __future__ import annotations

import os

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits
from stdatamodels.jwst import datamodels

import jwstdask
from jwstdask.core.errors import InputError, ParameterError, PlanError
from jwstdask.io.accessor import stage_of
from jwstdask.program.explore import COLUMNS
from jwstdask.program.journal import Journal
from jwstdask.testing import assert_lazy
from tests.io.s3 import client_of, s3_server

DONE = {0: (), 1: ("ramp_fit",), 2: ("ramp_fit", "photom"), 3: ("ramp_fit", "photom", "skymatch")}
SUFFIXES = {0: "uncal", 1: "rate", 2: "cal", 3: "crf"}


def write(folder, stage=0, detector="NRCA1", dither=1, observation=1, start="2026-01-01T00:00:00.000", **more):
    """A small exposure; its pixels are numbered."""
    names = {
        "meta.telescope": "JWST",
        "meta.instrument.name": "NIRCAM",
        "meta.instrument.detector": detector,
        "meta.instrument.filter": "F444W" if detector.endswith("LONG") else "F200W",
        "meta.instrument.pupil": "CLEAR",
        "meta.exposure.type": "NRC_IMAGE",
        "meta.exposure.readpatt": "RAPID",
        "meta.exposure.nints": 1,
        "meta.exposure.ngroups": 2 + dither,
        "meta.observation.program_number": "01234",
        "meta.observation.observation_number": f"{observation:03d}",
        "meta.observation.visit_number": "001",
        "meta.observation.date_beg": start,
    }
    names |= {f"meta.cal_step.{step}": "COMPLETE" for step in DONE[stage]} | more
    if stage:
        variables = {"sci": (("y", "x"), np.arange(80, dtype=np.float32).reshape(8, 10))}
    else:
        shape = (1, names["meta.exposure.ngroups"], 8, 10)
        variables = {
            "sci": (("integration", "group", "y", "x"), np.arange(np.prod(shape), dtype=np.uint16).reshape(shape))
        }
    root = f"jw01234{observation:03d}001_02101_{dither:05d}_{detector.lower()}"
    path = folder / f"{root}_{SUFFIXES[stage]}.fits"
    jwstdask.write_exposure(xr.Dataset(variables, attrs=names), path, sync=False)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """Two dithers of two detectors, raw and calibrated, and one exposure of another observation."""
    (tmp_path / "uncal").mkdir()
    (tmp_path / "products").mkdir()
    for dither in (1, 2):
        for detector in ("NRCA1", "NRCALONG"):
            write(tmp_path / "uncal", 0, detector, dither)
            write(tmp_path / "products", 1, detector, dither)
            write(tmp_path / "products", 2, detector, dither)
    write(tmp_path / "uncal", 0, "NRCA1", 1, 2, "2026-02-01T12:00:00.500")
    return tmp_path


def test_table(folder):
    program = jwstdask.open_program(folder)
    table = program.table
    assert tuple(table) == COLUMNS and len(program) == len(table) == 13
    assert sorted(table["path"]) == list(table["path"]) == [str(path) for path in sorted(folder.rglob("*.fits"))]
    [row] = table[table["path"] == str(folder / "uncal" / "jw01234002001_02101_00001_nrca1_uncal.fits")].to_dict(
        "records"
    )
    assert row == {
        "file": "jw01234002001_02101_00001_nrca1_uncal.fits",
        "stage": 0,
        "suffix": "uncal",
        "program": "01234",
        "observation": "002",
        "visit": "001",
        "instrument": "NIRCAM",
        "detector": "NRCA1",
        "exp_type": "NRC_IMAGE",
        "filter": "F200W",
        "pupil": "CLEAR",
        "grating": None,
        "subarray": None,
        "readpatt": "RAPID",
        "nints": 1,
        "ngroups": 3,
        "start": pd.Timestamp("2026-02-01T12:00:00.5"),
        "status": None,
        "reason": None,
        "path": str(folder / "uncal" / "jw01234002001_02101_00001_nrca1_uncal.fits"),
    }
    assert table.groupby("stage").size().to_dict() == {0: 5, 1: 4, 2: 4}


def test_nothing_but_headers_is_read(folder):
    """Opening, looking and selecting read no pixel; asking for a part of one file reads that part."""
    files = sorted(folder.rglob("*.fits"))
    with assert_lazy(files=files) as counts:
        program = jwstdask.open_program([folder / "uncal", folder / "products"])
        repr(program)
        program._repr_html_()
        tree = program.select(stage=2).tree
        part = tree["stage2/o001/nrca1/jw01234001001_02101_00002_nrca1_cal"]["sci"][2:4]
    assert counts.samples == {} and isinstance(part.data, dask.array.Array)
    with assert_lazy(computes=1) as counts:
        np.testing.assert_array_equal(part.values, np.arange(80).reshape(8, 10)[2:4])
    assert {os.path.basename(path): count for path, count in counts.samples.items()} == {
        "jw01234001001_02101_00002_nrca1_cal.fits": 20
    }


def test_lazy_without_dask(folder):
    with assert_lazy(files=folder.rglob("*.fits")):
        ds = jwstdask.open_program(folder, chunks=False)["jw01234001001_02101_00001_nrca1_rate.fits"]
    assert ds["sci"].chunks is None
    with assert_lazy() as counts:
        assert ds["sci"][3, 4].item() == 34
    assert list(counts.samples.values()) == [1]


def test_headers_are_read_once(folder, monkeypatch):
    """Opening an exposure walks over its file once, not once to look for slits and once to read."""
    from jwstdask.io import dataset

    opened = []
    original = dataset.open_layout
    monkeypatch.setattr(dataset, "open_layout", lambda *arguments: opened.append(1) or original(*arguments))
    monkeypatch.setattr("jwstdask.io.backend.open_layout", lambda *arguments: opened.append(2))
    jwstdask.open_exposure(next(folder.rglob("*_cal.fits")))
    assert opened == [1]


def test_a_file_written_again_is_another_array(folder):
    """Dask knows arrays by names: those of a changed file must change, too."""
    path = next(folder.rglob("*_cal.fits"))
    first = jwstdask.open_exposure(path)["sci"].data.name
    assert jwstdask.open_exposure(path)["sci"].data.name == first
    os.utime(path, (0, 0))
    assert jwstdask.open_exposure(path)["sci"].data.name != first


def test_relative_paths_hold_elsewhere(folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(folder)
    [first, *_] = jwstdask.open_program("products").select(stage=2)
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    assert first["sci"][0, 3].compute().item() == 3


def test_tree(folder):
    write(folder / "products", 3, "NRCA1", 1)
    tree = jwstdask.open_program(folder).tree
    assert set(tree.children) == {f"stage{stage}" for stage in range(4)}
    assert set(tree["stage0"].children) == {"o001", "o002"}
    assert set(tree["stage1/o001"].children) == {"nrca1", "nrcalong"}
    leaves = {node.path: node for node in tree.leaves}
    assert len(leaves) == 14
    for path, node in leaves.items():
        _, stage, observation, detector, name = path.split("/")
        assert node.attrs["meta.instrument.detector"].lower() == detector in name
        assert f"o{node.attrs['meta.observation.observation_number']}" == observation
        assert f"stage{node.to_dataset().jwst.stage}" == stage and node["sci"].shape[-2:] == (8, 10)


def test_same_names_in_two_folders(tmp_path):
    """Two runs of the same exposure are both in the tree, in the order of the table."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, 2)
    program = jwstdask.open_program([tmp_path / "old", tmp_path / "new"])
    nodes = program.tree["stage2/o001/nrca1"].children
    sources = [node["sci"].encoding["source"] for node in nodes.values()]
    assert list(nodes) == ["jw01234001001_02101_00001_nrca1_cal", "jw01234001001_02101_00001_nrca1_cal_2"]
    assert sources == list(program.table["path"]) and "old" in sources[0]
    with pytest.raises(KeyError, match="2 files are called"):
        program["jw01234001001_02101_00001_nrca1_cal.fits"]
    assert program[sources[1]]["sci"].encoding["source"] == sources[1]


def test_slits_are_nodes_below_their_file(tmp_path):
    model = datamodels.MultiSlitModel()
    for name in ("S200A1", "S400A1"):
        slit = datamodels.SlitModel((5, 6))
        slit.name = name
        model.slits.append(slit)
    model.meta.exposure.type = "NRS_FIXEDSLIT"
    model.meta.instrument.name, model.meta.instrument.detector = "NIRSPEC", "NRS1"
    model.meta.observation.observation_number = "007"
    model.meta.cal_step.photom = "COMPLETE"
    model.save(str(tmp_path / "jw01234007001_02101_00001_nrs1_cal.fits"))
    tree = jwstdask.open_program(tmp_path).tree
    node = tree["stage2/o007/nrs1/jw01234007001_02101_00001_nrs1_cal"]
    assert list(node.children) == ["S200A1", "S400A1"] and node["S400A1/sci"].shape == (5, 6)
    assert node.attrs["meta.exposure.type"] == "NRS_FIXEDSLIT"


@pytest.mark.parametrize(
    ("columns", "count"),
    [
        ({"stage": 2}, 4),
        ({"stage": [0, 2]}, 9),
        ({"detector": "nrca1", "stage": 0}, 3),
        ({"detector": "NRCA*"}, 13),
        ({"detector": "*long", "suffix": ["rate", "cal"]}, 4),
        ({"observation": 2}, 1),
        ({"observation": "002"}, 1),
        ({"observation": "2"}, 0),
        ({"ngroups": slice(4, None)}, 6),
        ({"ngroups": lambda count: count % 2}, 7),
        ({"start": slice("2026-01-15", "2026-03-01")}, 1),
        ({"start": slice(None, "2026-01-15")}, 12),
        ({"grating": None}, 13),
        ({"grating": "*"}, 0),
        ({"path": "*/products/*"}, 8),
        ({}, 13),
    ],
)
def test_select(folder, columns, count):
    program = jwstdask.open_program(folder)
    chosen = program.select(**columns)
    assert len(chosen) == len(chosen.table) == count
    assert set(chosen.table["path"]) <= set(program.table["path"]) and len(program) == 13


def test_select_rows_and_open(folder):
    program = jwstdask.open_program(folder)
    chosen = program.select(program.table["ngroups"] == 4, stage=0)
    assert [ds.sizes["group"] for ds in chosen] == [4, 4]
    assert chosen[-1].attrs["meta.instrument.detector"] == "NRCALONG"
    with pytest.raises(IndexError):
        chosen[2]
    with pytest.raises(KeyError, match="no file is called"):
        chosen["jw1_cal.fits"]
    with pytest.raises(ParameterError, match=r"no column 'detektor'\. Did you mean 'detector'"):
        program.select(detektor="NRCA1")


def test_status(folder):
    """What the journal beside the products says, of products and of what they are made from."""
    names = [f"jw01234001001_02101_{dither:05d}_nrca1" for dither in (1, 2)]
    with Journal(folder / "products") as journal:
        journal.add("run", sync=False)
        for name in names:
            task = f"calwebb_detector1 {name}_rate.fits"
            journal.add("planned", False, task=task, pipeline="calwebb_detector1", path=f"uncal/{name}_uncal.fits")
            journal.add("started", False, task=task)
        journal.add(
            "finished",
            False,
            task=f"calwebb_detector1 {names[0]}_rate.fits",
            wall=1.0,
            products={"rate": [f"{names[0]}_rate.fits", 1, 1, "0"]},
        )
        journal.add("failed", False, task=f"calwebb_detector1 {names[1]}_rate.fits", reason="DARK: truncated")
        task = "calwebb_detector1 jw01234002001_02101_00001_nrca1_rate.fits"
        journal.add(
            "planned",
            False,
            task=task,
            pipeline="calwebb_detector1",
            path="uncal/jw01234002001_02101_00001_nrca1_uncal.fits",
        )
        journal.add("started", False, task=task)
        running = jwstdask.open_program(folder)
    program = jwstdask.open_program(folder)
    found = program.table.set_index("file")[["status", "reason"]].T.to_dict("list")
    for name, expected in zip(names, (["done", None], ["failed", "DARK: truncated"])):
        assert found[f"{name}_rate.fits"] == found[f"{name}_uncal.fits"] == expected
        assert found[f"{name}_cal.fits"] == [None, None]
    # It ran when it was asked first; then its run had gone.
    last = "jw01234002001_02101_00001_nrca1_uncal.fits"
    assert running.select(file=last).table["status"].item() == "running" and found[last][0] == "waiting"
    assert "13 files of program 01234, 2 failed, 1 waiting, 2 done" in repr(program)
    assert [ds.attrs["meta.exposure.ngroups"] for ds in program.select(status="failed", stage=0)] == [4]


def test_files_that_cannot_be_read_are_told(folder):
    bad = folder / "uncal" / "jw01234003001_02101_00001_nrca1_uncal.fits"
    bad.write_bytes(next(folder.rglob("*_uncal.fits")).read_bytes()[:-4000])
    program = jwstdask.open_program(folder)
    [row] = program.table[program.table["instrument"].isna()].itertuples()
    assert row.path == str(bad) and "truncated" in row.reason and len(program) == 14
    assert len(list(program.tree.leaves)) == 13


def test_what_is_not_an_exposure(folder):
    """Other FITS files of a folder are left out, hidden folders not searched; a file that is named is shown."""
    other = folder / "other.fits"
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(other)
    (folder / "products" / ".jwstdask").mkdir()
    write(folder / "products" / ".jwstdask", 2)
    assert len(jwstdask.open_program(folder)) == 13
    assert len(jwstdask.open_program([folder, other])) == 14
    (folder / "empty").mkdir()
    with pytest.raises(PlanError, match="no FITS file of JWST in"):
        jwstdask.open_program(folder / "empty")
    for absent in ("absent", "absent.fits"):
        with pytest.raises(InputError, match=r"absent.*there is no such f"):
            jwstdask.open_program(folder / absent)


def test_repr(folder):
    program = jwstdask.open_program(folder)
    lines = repr(program).splitlines()
    assert lines[0] == "<jwstdask.ProgramFiles> 13 files of program 01234"
    counts = {(row.stage, row.filter): row.files for row in program.summary.itertuples()}
    assert counts == {(stage, name): 2 for stage in range(3) for name in ("F200W", "F444W")} | {(0, "F200W"): 3}
    html = program._repr_html_()
    assert html.count("<table") == html.count("</table>") == 2 and "jw01234002001_02101_00001_nrca1_uncal.fits" in html
    assert "readpatt" not in html  # the same everywhere
    one = program.select(observation=2)
    assert "1 file of program" in repr(one) and one._repr_html_()
    none = program.select(observation=9)
    assert "0 files" in repr(none) and none._repr_html_() and not none.tree.children


def test_many_files_are_summed_up(folder):
    source = next(folder.rglob("*_cal.fits"))
    for number in range(60):
        os.link(source, folder / f"jw01234009001_02101_{number:05d}_nrcb1_cal.fits")
    html = jwstdask.open_program(folder)._repr_html_()
    assert "33 more" in html and html.count("<tr") < 60


@pytest.mark.parametrize(
    ("meta", "stage"),
    [
        ({}, 0),
        ({"meta.cal_step.jump": "COMPLETE", "meta.cal_step.ramp_fit": "SKIPPED"}, 0),
        ({"meta.cal_step.ramp_fit": "COMPLETE", "meta.cal_step.photom": "SKIPPED"}, 1),
        ({"meta.cal_step.photom": "COMPLETE", "meta.asn.table_name": "jw01234-o001_image2_00001_asn.json"}, 2),
        ({"meta.cal_step.photom": "COMPLETE", "meta.asn.table_name": "singleton"}, 2),
        ({"meta.cal_step.photom": "COMPLETE", "meta.asn.table_name": "jw01234-o001_image3_00001_asn.json"}, 3),
        ({"meta.cal_step.photom": "COMPLETE", "meta.cal_step.tweakreg": "COMPLETE"}, 3),
    ],
)
def test_stage(meta, stage):
    assert stage_of(meta) == xr.Dataset(attrs=meta).jwst.stage == stage


def test_in_an_object_store(folder):
    """Of a program in a bucket, headers travel and then the strip that is asked for."""
    pytest.importorskip("moto", reason="the S3 server is moto's")
    pytest.importorskip("s3fs")
    rng = np.random.default_rng(1)
    data = rng.normal(size=(1024, 256)).astype(np.float32)
    attrs = jwstdask.open_exposure(next(folder.rglob("*_nrca1_cal.fits"))).attrs
    big = folder / "products" / "jw01234001001_02101_00009_nrca1_cal.fits"
    jwstdask.write_exposure(xr.Dataset({"sci": (("y", "x"), data)}, attrs=attrs), big, sync=False)
    with s3_server() as server, client_of(server) as system:
        system.mkdir("programs")
        for path in folder.rglob("*.fits"):
            system.put_file(str(path), f"programs/jw01234/{path.parent.name}/{path.name}")
        server.requests.clear()
        program = jwstdask.open_program("s3://programs/jw01234/")
        assert len(program) == 14 and server.sent(big.name) < 100_000 < data.nbytes
        ds = program.select(stage=2, file=f"*{big.name}").tree["stage2/o001/nrca1"][big.stem]
        server.requests.clear()
        np.testing.assert_array_equal(ds["sci"][300:310].values, data[300:310])
        assert server.sent() == 10 * 256 * 4
        assert len(jwstdask.open_program(program.table["path"].iloc[:2])) == 2
