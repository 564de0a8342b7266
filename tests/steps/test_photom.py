from __future__ import annotations

import warnings

import numpy as np
import pytest

from jwstdask.core.errors import ReferenceFileError, StepError
from jwstdask.refs.reference import open_reference
from jwstdask.steps.imaging.photom import MJSR_TO_UJA2, PhotomStep
from tests.steps.images import TILES, assert_same, metadata, oracle_model, random_image, walk

FRAME = (50, 60)
MODES = {
    "nircam": {},
    "nircam subarray": {},
    "nircam unknown filter": {"instrument__filter": "F070W"},
    "miri": {
        "instrument__name": "MIRI", "instrument__detector": "MIRIMAGE", "instrument__filter": "F770W",
        "instrument__pupil": None, "exposure__type": "MIR_IMAGE", "subarray__name": "SUB256",
    },
    "miri generic": {
        "instrument__name": "MIRI", "instrument__detector": "MIRIMAGE", "instrument__filter": "F1000W",
        "instrument__pupil": None, "exposure__type": "MIR_IMAGE", "subarray__name": "FULL",
    },
    "niriss": {
        "instrument__name": "NIRISS", "instrument__detector": "NIS", "instrument__filter": "CLEAR",
        "instrument__pupil": "F150W", "exposure__type": "NIS_IMAGE", "subarray__name": "FULL",
    },
    "fgs": {
        "instrument__name": "FGS", "instrument__detector": "GUIDER1", "instrument__filter": None,
        "instrument__pupil": None, "exposure__type": "FGS_IMAGE", "subarray__name": "FULL",
    },
}  # fmt: skip
MODELS = {
    "nircam": (
        "NrcImgPhotomModel",
        ("filter", "pupil"),
        [("F115W", "CLEAR"), ("F200W", "CLEAR"), ("F200W", "MASKRND")],
    ),
    "nircam subarray": (
        "NrcImgPhotomModel",
        ("filter", "pupil", "subarray"),
        [("F200W", "CLEAR", "FULL"), ("F200W", "CLEAR", "SUB160")],
    ),
    "nircam unknown filter": ("NrcImgPhotomModel", ("filter", "pupil"), [("F115W", "CLEAR")]),
    "miri": ("MirImgPhotomModel", ("filter", "subarray"), [("F770W", "FULL"), ("F770W", "SUB256")]),
    "miri generic": ("MirImgPhotomModel", ("filter", "subarray"), [("F1000W", "SUB64"), ("F1000W", "GENERIC")]),
    "niriss": ("NisImgPhotomModel", ("filter", "pupil"), [("CLEAR", "F090W"), ("CLEAR", "F150W")]),
    "fgs": ("FgsImgPhotomModel", (), [()]),
}
TIMES = {
    "timecoeff_linear": {"t0": 59000.0, "lossperyear": 0.013},
    "timecoeff_exponential": {"t0": 59100.25, "amplitude": 0.21, "tau": 391.5, "const": 0.93},
    "timecoeff_powerlaw": {"t0": 59200.5, "year1value": 0.97, "tsoft": 1.25, "alpha": -0.011},
}


def write_photom(path, mode, times=()):
    from stdatamodels.jwst import datamodels

    name, keys, rows = MODELS[mode]
    dtype = [(key, "S12") for key in keys]
    values = [(*row, 0.4371 + 0.013 * number, 0.01) for number, row in enumerate(rows)]
    table = np.array(values, dtype=[*dtype, ("photmjsr", "f4"), ("uncertainty", "f4")])
    model = getattr(datamodels, name)(phot_table=table)
    for kind in times:
        terms = TIMES[kind]
        kinds = {"Nrc": ("filter", "pupil"), "Mir": ("filter", "subarray"), "Nis": ("filter", "pupil"), "Fgs": ()}[
            name[:3]
        ]
        if name.startswith("Nis") and kind == "timecoeff_linear":
            kinds = ()  # so the schema has it
        columns = [key for key in dtype if key[0] in kinds]
        changed = [[value * (1 + 0.001 * n) for value in terms.values()] for n in range(len(rows))]
        labels = [[text for key, text in zip(keys, row) if key in dict(columns)] for row in rows]
        values = [(*label, *numbers) for label, numbers in zip(labels, changed)]
        setattr(model, kind, np.array(values, dtype=[*columns, *((term, "f4") for term in terms)]))
    model.meta.photometry.pixelarea_steradians, model.meta.photometry.pixelarea_arcsecsq = 2.2e-14, 9.3e-4
    return save(model, path, {"Nrc": "NIRCAM", "Mir": "MIRI", "Nis": "NIRISS", "Fgs": "FGS"}[name[:3]])


def write_area(path, complete=True):
    from stdatamodels.jwst.datamodels import PixelAreaModel

    model = PixelAreaModel(data=np.random.default_rng(3).normal(1, 0.01, FRAME).astype(np.float32))
    model.meta.photometry.pixelarea_steradians = 2.1e-14
    if complete:
        model.meta.photometry.pixelarea_arcsecsq = 9.1e-4
    return save(model, path)


def save(model, path, instrument="NIRCAM"):
    for name in ("author", "description", "reftype", "pedigree"):
        setattr(model.meta, name, "DUMMY")
    model.meta.useafter, model.meta.instrument.name = "2020-01-01T00:00:00", instrument
    model.save(str(path))
    return str(path)


def oracle(image, meta, photom_path, area_path="N/A", inverse=False, apply_time_correction=True):
    from jwst.photom.photom import DataSet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = DataSet(oracle_model(image, meta), inverse, None, apply_time_correction)
        return data.apply_photom(photom_path, area_path)


def opened(photom_path, area_path=None):
    return {
        "photom": open_reference(photom_path, "photom"),
        "area": None if area_path is None else open_reference(area_path, "area"),
    }


def assert_same_metadata(changes, model):
    for name, value in changes.items():
        wanted = model[name] if name in model else None
        assert value == (None if wanted is None else type(value)(wanted)), name
    expected = [key for key in model.to_flat_dict() if key.startswith(("meta.photometry", "meta.bunit"))]
    assert set(expected) <= set(changes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("times", [(), ("timecoeff_linear",), tuple(TIMES)])
@pytest.mark.parametrize("inverse", [False, True])
def test_same_bits_as_the_oracle(mode, times, inverse, tmp_path):
    shape, corner = (20, 30), (11, 25)
    meta, image = metadata(shape, corner, **MODES[mode]), random_image(shape, seed=len(mode), var_flat=True)
    paths = write_photom(tmp_path / "photom.fits", mode, times), write_area(tmp_path / "area.fits")
    found, changes = walk(PhotomStep(inverse=inverse), meta, opened(*paths), image, (9, 13))
    model = oracle(image, meta, *paths, inverse)
    assert_same(found, model)
    np.testing.assert_array_equal(found.extra["area"], model.area)
    assert_same_metadata(changes, model)
    assert ("meta.bunit_data" in changes) == (mode != "nircam unknown filter")
    assert changes["meta.photometry.pixelarea_steradians"] == 2.1e-14


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("shape", [(50, 60), (3, 50, 60)])
@pytest.mark.parametrize("var_flat", [False, True])
def test_images_and_integrations_in_any_tiles(shape, tile, var_flat, tmp_path):
    meta, image = metadata(shape), random_image(shape, seed=9, var_flat=var_flat)
    path = write_photom(tmp_path / "photom.fits", "nircam", ("timecoeff_powerlaw",))
    found, changes = walk(PhotomStep(), meta, opened(path), image, tile)
    model = oracle(image, meta, path)
    assert_same(found, model)
    assert "area" not in found.extra
    assert changes["meta.photometry.pixelarea_arcsecsq"] == 9.3e-4
    assert_same_metadata(changes, model)


def test_time_correction_can_be_left_out(tmp_path):
    meta, image = metadata(FRAME), random_image(FRAME, seed=10, var_flat=True)
    path = write_photom(tmp_path / "photom.fits", "nircam", tuple(TIMES))
    found, changes = walk(PhotomStep(apply_time_correction=False), meta, opened(path), image)
    assert_same(found, oracle(image, meta, path, apply_time_correction=False))
    assert changes["meta.photometry.conversion_megajanskys"] == float(np.float32(0.4371 + 0.013))
    corrected, _ = walk(PhotomStep(), meta, opened(path), image)
    assert not np.array_equal(corrected.sci, found.sci, equal_nan=True)


def test_area_reference_without_one_of_the_areas(tmp_path):
    meta, image = metadata(FRAME), random_image(FRAME, seed=11, var_flat=True)
    paths = write_photom(tmp_path / "photom.fits", "nircam"), write_area(tmp_path / "area.fits", complete=False)
    _, changes = walk(PhotomStep(), meta, opened(*paths), image)
    assert changes["meta.photometry.pixelarea_arcsecsq"] is None
    assert_same_metadata(changes, oracle(image, meta, *paths))


def test_area_of_the_subarray_itself(tmp_path):
    # jwst takes it for a full-frame map and writes an empty AREA, a known difference.
    from astropy.io import fits

    paths = write_photom(tmp_path / "photom.fits", "nircam"), write_area(tmp_path / "area.fits")
    with fits.open(paths[1], mode="update") as file:
        file[0].header["SUBSTRT1"], file[0].header["SUBSTRT2"] = 1201, 801
        values = file["SCI"].data.astype(np.float32)
    meta, image = metadata((20, 30), (811, 1211)), random_image((20, 30), seed=12)
    found, _ = walk(PhotomStep(), meta, opened(*paths), image)
    np.testing.assert_array_equal(found.extra["area"], values[10:30, 10:40])
    assert oracle(image, meta, *paths).area.size == 0
    with pytest.raises(
        ReferenceFileError,
        match=r"area.fits: its 60 pixels along x do not cover the exposure",
    ):
        PhotomStep().prepare(metadata((20, 61), (811, 1211)), opened(*paths))


def test_unit_constant_is_jwst_s():
    from jwst.photom.photom import MJSR_TO_UJA2 as WANTED

    assert MJSR_TO_UJA2 == WANTED


def test_errors_and_skips(tmp_path):
    step, meta = PhotomStep(), metadata(FRAME)
    assert step.reference_skip_reason(meta, {"photom": None}) == "no photom reference for this exposure"
    niriss = metadata(FRAME, **MODES["niriss"], model_type="CubeModel")
    assert "NIRISS" in step.skip_reason(niriss)
    references = opened(write_photom(tmp_path / "photom.fits", "nircam", ("timecoeff_linear",)))
    with pytest.raises(StepError, match=r"image_rate.fits: photom: EXPMID is missing.*apply_time_correction=false"):
        step.prepare(metadata(FRAME, exposure__mid_time=None), references)
    with pytest.raises(StepError, match="NRC_WFSS is not supported"):
        step.prepare(metadata(FRAME, exposure__type="NRC_WFSS"), references)
    MODELS["twice"] = ("NrcImgPhotomModel", ("filter", "pupil"), [("F200W", "CLEAR")] * 2)
    twice = opened(write_photom(tmp_path / "twice.fits", "twice"))
    with pytest.raises(ReferenceFileError, match=r"twice.fits: 2 rows match filter F200W, pupil CLEAR"):
        step.prepare(meta, twice)
