from __future__ import annotations

import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import asdf
import numpy as np
import pytest
from astropy.modeling import models

from jwstdask.core.errors import StepError
from jwstdask.steps.imaging.assign_wcs import AssignWcsStep
from jwstdask.wcs import imaging

POINTING = {"v2_ref": 120.5, "v3_ref": -527.5, "roll_ref": 123.0, "ra_ref": 359.99, "dec_ref": -72.1}
CASES = {
    "nircam": ("NIRCAM", "NRCA1", "NRC_IMAGE", "F200W", "CLEAR", (2048, 2048)),
    "nircam coron": ("NIRCAM", "NRCALONG", "NRC_CORON", "F335M", "MASKRND", (2048, 2048)),
    "nircam no offset row": ("NIRCAM", "NRCB1", "NRC_TSIMAGE", "F090W", "WLP8", (2048, 2048)),
    "miri": ("MIRI", "MIRIMAGE", "MIR_IMAGE", "F770W", None, (1024, 1032)),
    "miri 4qpm": ("MIRI", "MIRIMAGE", "MIR_4QPM", "F1065C", None, (1024, 1032)),
    "niriss": ("NIRISS", "NIS", "NIS_IMAGE", "CLEAR", "F150W", (2048, 2048)),
    "niriss ami": ("NIRISS", "NIS", "NIS_AMI", "F480M", "NRM", (2048, 2048)),
    "fgs": ("FGS", "GUIDER1", "FGS_IMAGE", None, None, (2048, 2048)),
}
FILTERS = [
    {"filter": "F200W", "pupil": "CLEAR", "column_offset": 0.31, "row_offset": -1.27},
    {"filter": "F335M", "pupil": "MASKRND", "column_offset": "N/A", "row_offset": "N/A"},
    {"filter": "F770W", "pupil": None, "column_offset": -2.5, "row_offset": 0.75},
    {"filter": "F1065C", "pupil": None, "column_offset": 0.0, "row_offset": 0.0},
    {"filter": "CLEAR", "pupil": "F150W", "column_offset": 0.125, "row_offset": 0.5},
]


def distortion(shape, scale=0.031, angle=0.3, strength=1e-6, degree=4, seed=0, centre=(120.5, -527.5)):
    """Pixels to V2, V3 [arcsec] with a least-squares inverse, in the form of the references."""
    rng = np.random.default_rng(seed)
    half_y, half_x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    forward = [models.Polynomial2D(degree), models.Polynomial2D(degree)]
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for row, polynomial in zip(linear, forward):
        for name in polynomial.param_names:
            i, j = int(name[1]), int(name[3])
            if i + j == 1:
                setattr(polynomial, name, row[0] if i else row[1])
            elif i + j > 1:
                setattr(polynomial, name, scale * strength * rng.normal() / 1000.0 ** (i + j - 2))
    y, x = np.mgrid[-half_y:half_y:25j, -half_x:half_x:25j]
    ideal = [polynomial(x, y) for polynomial in forward]
    backward = []
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    design = np.stack([ideal[0].ravel() ** i * ideal[1].ravel() ** j for i, j in powers], axis=1)
    norm = np.abs(design).max(axis=0)
    for target in (x, y):
        solution = np.linalg.lstsq(design / norm, target.ravel(), rcond=None)[0] / norm
        backward.append(models.Polynomial2D(degree, **{f"c{i}_{j}": v for (i, j), v in zip(powers, solution)}))
    split = models.Mapping((0, 1, 0, 1))
    transform = split | forward[0] & forward[1]
    transform.inverse = split | backward[0] & backward[1]
    return models.Shift(-half_x) & models.Shift(-half_y) | transform | models.Shift(centre[0]) & models.Shift(centre[1])


def metadata(case, *, subarray=None, scale_factor=1.00003, **extra):
    name, detector, exp_type, optical_filter, pupil, shape = CASES[case]
    y, x, ny, nx = subarray or (1, 1, *shape)
    meta = {
        "meta.instrument.name": name,
        "meta.instrument.detector": detector,
        "meta.exposure.type": exp_type,
        "meta.instrument.filter": optical_filter,
        "meta.instrument.pupil": pupil,
        "meta.subarray.xstart": x,
        "meta.subarray.ystart": y,
        "meta.subarray.xsize": nx,
        "meta.subarray.ysize": ny,
        "meta.velocity_aberration.scale_factor": scale_factor,
        "meta.filename": "image_rate.fits",
    }
    meta |= {f"meta.wcsinfo.{key}": value for key, value in POINTING.items()}
    meta |= extra
    return {key: value for key, value in meta.items() if value is not None}


def write_references(folder, case, box=None, filters=FILTERS, model=None):
    name, shape = CASES[case][0], CASES[case][-1]
    model = distortion(shape, scale=0.11 if name == "MIRI" else 0.031) if model is None else model
    if box is not None:
        model.bounding_box = box
    meta = {
        "author": "test", "date": "2026-01-01T00:00:00", "description": "test", "origin": "test", "pedigree": "DUMMY",
        "telescope": "JWST", "useafter": "2020-01-01T00:00:00", "instrument": {"name": name},
    }  # fmt: skip
    paths = {"distortion": folder / "distortion.asdf"}
    units = {"input_units": "pixel", "output_units": "arcsec", "reftype": "distortion"}
    asdf.AsdfFile({"meta": meta | units, "model": model}).write_to(paths["distortion"])
    if filters is not None and name != "FGS":
        paths["filteroffset"] = folder / "filteroffset.asdf"
        rows = [{key: value for key, value in row.items() if value is not None} for row in filters]
        rows = [row for row in rows if name == "MIRI" or "pupil" in row]
        if name == "MIRI":
            rows = [row for row in rows if row["column_offset"] != "N/A"]
        asdf.AsdfFile({"meta": meta | {"reftype": "filteroffset"}, "filters": rows}).write_to(paths["filteroffset"])
    return paths


def opened(paths):
    return {
        kind: SimpleNamespace(path=path, asdf=asdf.open(path, lazy_load=False).tree) for kind, path in paths.items()
    }


def oracle(meta, paths, shape, sip=None):
    """Model with WCS, S_REGION and SIP keywords by jwst."""
    from jwst.assign_wcs.assign_wcs import load_wcs
    from jwst.assign_wcs.util import update_fits_wcsinfo
    from stdatamodels.jwst import datamodels

    model = (datamodels.ImageModel if len(shape) == 2 else datamodels.CubeModel)(shape)
    for key, value in meta.items():
        model[key] = value
    load_wcs(model, {kind: str(paths[kind]) if kind in paths else "N/A" for kind in ("distortion", "filteroffset")})
    if sip is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            update_fits_wcsinfo(model, **sip)
    return model


def assert_same_wcs(found, wanted, shape):
    assert found.available_frames == wanted.available_frames
    for ours, theirs in zip(found.pipeline, wanted.pipeline):
        assert repr(ours.frame) == repr(theirs.frame)
        assert (ours.transform is None) == (theirs.transform is None)
        if theirs.transform is not None:
            assert ours.transform.name == theirs.transform.name
            assert str(ours.transform) == str(theirs.transform)  # expression, components and parameters
    boxes = [wcs.bounding_box.bounding_box(order="F") for wcs in (found, wanted)]
    assert boxes[0] == boxes[1]
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-0.5, shape[-1] - 0.5, 300), rng.uniform(-0.5, shape[-2] - 0.5, 300)
    sky = wanted(x, y)
    np.testing.assert_array_equal(found(x, y), sky)
    np.testing.assert_array_equal(found.invert(*sky), wanted.invert(*sky))
    outside = (np.array([-0.51, 3.0]), np.array([3.0, shape[-2] - 0.49]))
    np.testing.assert_array_equal(found(*outside), wanted(*outside))


@pytest.mark.parametrize("scale_factor", [None, 1.0, 0.99996])
@pytest.mark.parametrize("case", CASES)
def test_full_frame_equals_the_oracle(case, scale_factor, tmp_path):
    meta, shape = metadata(case, scale_factor=scale_factor), CASES[case][-1]
    paths = write_references(tmp_path, case)
    wanted = oracle(meta, paths, shape)
    wcs, changes = AssignWcsStep(sip_approx=False).run_exposure(meta, opened(paths))
    assert_same_wcs(wcs, wanted.meta.wcs, shape)
    assert changes == {"meta.wcsinfo.s_region": wanted.meta.wcsinfo.s_region}


@pytest.mark.parametrize("case", ["nircam", "miri", "niriss", "fgs"])
@pytest.mark.parametrize("subarray", [(1729, 1, 320, 320), (5, 9, 64, 80), (1, 1, 64, 64)])
def test_subarray_equals_the_oracle(case, subarray, tmp_path):
    meta, shape = metadata(case, subarray=subarray), (3, *subarray[2:])
    paths = write_references(tmp_path, case)
    wanted = oracle(meta, paths, shape)
    wcs, changes = AssignWcsStep().run_exposure(meta, opened(paths), shape)
    assert_same_wcs(wcs, wanted.meta.wcs, shape)
    assert changes["meta.wcsinfo.s_region"] == wanted.meta.wcsinfo.s_region


@pytest.mark.filterwarnings("ignore:The bounding_box was set in C order")  # by the oracle, for FGS
@pytest.mark.parametrize("case", ["nircam", "miri", "niriss", "fgs"])
def test_bounding_box_of_the_reference_wins(case, tmp_path):
    meta, shape = metadata(case), CASES[case][-1]
    paths = write_references(tmp_path, case, box=((4.0, 2000.0), (3.5, 1500.5)))  # y first, as astropy binds it
    wanted = oracle(meta, paths, shape)
    wcs, changes = AssignWcsStep().run_exposure(meta, opened(paths))
    assert wcs.bounding_box.bounding_box(order="F") == ((3.5, 1500.5), (4.0, 2000.0))
    assert_same_wcs(wcs, wanted.meta.wcs, shape)
    assert changes["meta.wcsinfo.s_region"] == wanted.meta.wcsinfo.s_region


SIP = {
    "defaults": {},
    "exact degrees": {"sip_degree": 3, "sip_inv_degree": 2},
    "loose": {"sip_max_pix_error": 0.5, "sip_max_inv_pix_error": 0.5, "sip_npoints": 9},
    "no inverse": {"sip_max_inv_pix_error": 0.0},
    "linear": {"sip_degree": 1, "sip_inv_degree": 1},
}


@pytest.mark.parametrize("options", SIP)
@pytest.mark.parametrize("case", ["nircam", "miri", "fgs"])
def test_sip_keywords_equal_the_oracle(case, options, tmp_path):
    step = AssignWcsStep(**SIP[options])
    stale = {"meta.wcsinfo.pc1_1": -1.0, "meta.wcsinfo.cdelt1": 1e-5, "meta.wcsinfo.a_0_2": 1.0}
    if case == "miri":  # the reference pixel is kept where there is one
        stale |= {"meta.wcsinfo.crpix1": 500.0, "meta.wcsinfo.crpix2": 510.5}
    meta = metadata(case, **{key: value for key, value in stale.items() if key != "meta.wcsinfo.a_0_2"})
    paths = write_references(tmp_path, case)
    wanted = oracle(
        meta,
        paths,
        CASES[case][-1],
        sip={
            "max_pix_error": step.sip_max_pix_error,
            "degree": step.sip_degree,
            "max_inv_pix_error": step.sip_max_inv_pix_error,
            "inv_degree": step.sip_inv_degree,
            "npoints": step.sip_npoints,
        },
    ).meta.wcsinfo.instance
    meta["meta.wcsinfo.a_0_2"] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gwcs warns where the accuracy is not reached, for both
        _, changes = step.run_exposure(meta, opened(paths))
    found = {key: value for key, value in meta.items() if key.startswith("meta.wcsinfo.")} | changes
    found = {key.removeprefix("meta.wcsinfo."): value for key, value in found.items() if value is not None}
    assert found == wanted
    assert all(not isinstance(value, np.generic) for value in changes.values())
    assert ("a_order" in found) == (options != "linear")


def test_failed_sip_leaves_the_wcs(tmp_path, caplog):
    meta, paths = metadata("nircam"), write_references(tmp_path, "nircam")
    wcs, changes = AssignWcsStep(sip_npoints=3).run_exposure(meta, opened(paths))
    assert wcs is not None and list(changes) == ["meta.wcsinfo.s_region"]
    assert "no SIP approximation" in caplog.text


@pytest.mark.parametrize("case", ["nircam", "miri"])
def test_serialised_form_equals_the_oracle(case, tmp_path):
    meta, shape = metadata(case, subarray=(5, 9, 64, 80)), (64, 80)
    paths = write_references(tmp_path, case)
    wcs, _ = AssignWcsStep().run_exposure(meta, opened(paths))
    texts = []
    for number, item in enumerate((wcs, oracle(meta, paths, shape).meta.wcs)):
        asdf.AsdfFile({"wcs": item}).write_to(tmp_path / f"{number}.asdf", all_array_storage="inline")
        texts.append((tmp_path / f"{number}.asdf").read_bytes())
    assert texts[0] == texts[1]


def test_wcs_survives_asdf_and_pickle(tmp_path):
    import pickle

    meta, paths = metadata("nircam", subarray=(1729, 1, 320, 320)), write_references(tmp_path, "nircam")
    wcs, _ = AssignWcsStep().run_exposure(meta, opened(paths))
    asdf.AsdfFile({"wcs": wcs}).write_to(tmp_path / "wcs.asdf")
    with asdf.open(tmp_path / "wcs.asdf", lazy_load=False) as file:
        again = file["wcs"]
    for copy in (again, pickle.loads(pickle.dumps(wcs))):
        np.testing.assert_array_equal(copy(3.0, 5.0), wcs(3.0, 5.0))
        assert copy.bounding_box.bounding_box(order="F") == wcs.bounding_box.bounding_box(order="F")


def test_reference_tree_is_not_changed(tmp_path):
    meta, references = metadata("fgs"), opened(write_references(tmp_path, "fgs"))
    AssignWcsStep().run_exposure(meta, references)
    with pytest.raises(NotImplementedError):
        references["distortion"].asdf["model"].bounding_box


def test_errors_name_exposure_and_remedy(tmp_path):
    references = opened(write_references(tmp_path, "nircam"))
    step = AssignWcsStep()
    with pytest.raises(StepError, match=r"image_rate.fits: assign_wcs: no distortion reference. Check CRDS_CONTEXT"):
        step.run_exposure(metadata("nircam"), {"distortion": None})
    meta = metadata("nircam")
    del meta["meta.wcsinfo.ra_ref"]
    with pytest.raises(StepError, match=r"image_rate.fits: assign_wcs: meta.wcsinfo.ra_ref is missing"):
        step.run_exposure(meta, references)
    with pytest.raises(StepError, match="must be positive"):
        step.run_exposure(metadata("nircam", scale_factor=-1.0), references)
    with pytest.raises(StepError, match="no WCS for NIRCAM NRC_WFSS"):
        step.run_exposure(metadata("nircam") | {"meta.exposure.type": "NRC_WFSS"}, references)
    double = opened(write_references(tmp_path, "nircam", filters=[FILTERS[0]] * 2))
    with pytest.raises(StepError, match="2 rows of the filteroffset reference match"):
        step.run_exposure(metadata("nircam"), double)
    assert step.skip_reason({"meta.exposure.type": "NRC_DARK"}) == "NRC_DARK exposures have no sky coordinates"
    assert step.skip_reason(metadata("nircam")) is None


def test_world_of_the_reference_point_is_the_pointing():
    transform = imaging.telescope_to_sky(**POINTING)
    found = transform(POINTING["v2_ref"], POINTING["v3_ref"])
    # Five rotations of about 1e-16 radian of rounding each: 3e-14 degree, times 1 / cos(72 degrees).
    np.testing.assert_allclose(found, (POINTING["ra_ref"], POINTING["dec_ref"]), rtol=0, atol=3e-13)


REAL = os.environ.get("JWSTDASK_REALDATA")


@pytest.mark.skipif(not REAL, reason="JWSTDASK_REALDATA is not set")
@pytest.mark.parametrize(
    ("case", "distortion_file", "offset_file"),
    [
        ("nircam coron", "nircam/jwst_nircam_distortion_0090.asdf", "nircam/jwst_nircam_filteroffset_0002.asdf"),
        ("nircam", "nircam/jwst_nircam_distortion_0096.asdf", "nircam/jwst_nircam_filteroffset_0001.asdf"),
        ("miri", "miri/jwst_miri_distortion_0028.asdf", "miri/jwst_miri_filteroffset_0005.asdf"),
        ("niriss", "niriss/jwst_niriss_distortion_0010.asdf", None),
    ],
)
def test_real_references_equal_the_oracle(case, distortion_file, offset_file):
    folder = Path(REAL) / "crds_contexts/references/jwst"
    paths = {"distortion": folder / distortion_file}
    if offset_file:
        paths["filteroffset"] = folder / offset_file
    extra = {"meta.instrument.filter": "F356W", "meta.instrument.pupil": "CLEAR"} if "nircam" in case else {}
    meta, shape = metadata(case) | extra, CASES[case][-1]
    wanted = oracle(meta, paths, shape, sip={"max_pix_error": 0.01, "max_inv_pix_error": 0.01, "npoints": 12})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wcs, changes = AssignWcsStep().run_exposure(meta, opened(paths))
    assert_same_wcs(wcs, wanted.meta.wcs, shape)
    assert len(changes) > 30
    for key, value in changes.items():
        assert wanted.meta.wcsinfo.instance[key.removeprefix("meta.wcsinfo.")] == value
