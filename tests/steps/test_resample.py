from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

from jwstdask.core.errors import ParameterError, StepError
from jwstdask.core.params import declared
from jwstdask.steps.imaging.drizzle import bad_bits, fill_value
from jwstdask.steps.imaging.resample import ResampleStep
from tests.steps.dithered import FakeExposure, Tools, oracle_models

MEMBERS = {"sci": "data", "wht": "wht", "con": "con", "err": "err", "dq": "dq", "var_rnoise": "var_rnoise"}
MEMBERS |= {"var_poisson": "var_poisson", "var_flat": "var_flat"}
ULP = np.finfo(np.float32).eps
# What the oracle's own file handling, or the pipeline, sets.
NOT_OURS = ("meta.wcs", "meta.filename", "meta.date", "meta.asn.exptype", "meta.group_id")


def oracle(models, **parameters):
    from jwst.datamodels import ModelLibrary
    from jwst.resample import ResampleStep as Theirs

    step = Theirs(**parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copies = [model.copy() for model in models]
        return step.process(ModelLibrary(copies) if len(copies) > 1 else copies[0])


def ours(models, **parameters):
    # jwst combines no metadata of an exposure that does not come in an association.
    parameters.setdefault("blendheaders", len(models) > 1)
    return ResampleStep(**parameters).run([FakeExposure.of(model) for model in models], {}, Tools())


SCENES = {
    "one exposure": ({}, {"count": 1}),
    "four dithers": ({}, {}),
    "rotated, background to subtract": ({}, {"seed": 4, "rolls": (10.0, 100.0, 190.0, 37.0), "level": False}),
    "two detectors an exposure, exposure-time weights, finer grid": (
        {"pixfrac": 0.6, "pixel_scale_ratio": 0.7, "weight_type": "exptime", "propagate_dq": True, "fillval": "0"},
        {"groups": (0, 0, 1, 1), "level": True},
    ),
    "pixel scale, rotation, bounding box": (
        {"pixel_scale": 0.041, "rotation": 15.0},
        {"seed": 2, "box": ((3.5, 115.5), (-0.5, 99.5))},
    ),
    "part of the sky": ({"crpix": (20.0, 30.0), "output_shape": (80, 70), "crval": (150.0, 30.0)}, {"seed": 5}),
    "more than 32 exposures": ({}, {"count": 34, "shape": (40, 50), "stars": 5}),
    "coarse pixel map": ({"pixmap_stepsize": 10.0}, {"seed": 6}),
    "point": ({"kernel": "point"}, {"seed": 7, "shape": (180, 120)}),
    "turbo": ({"kernel": "turbo", "pixfrac": 0.8}, {"seed": 8, "shape": (180, 120)}),
    "gaussian": ({"kernel": "gaussian"}, {"seed": 9, "shape": (180, 120)}),
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.filterwarnings("ignore:Kernel 'gaussian'")
def test_pixels_and_keywords_of_the_oracle(name):
    parameters, scene = SCENES[name]
    models = oracle_models(**scene)
    theirs, result = oracle(models, **parameters), ours(models, **parameters)
    arrays = result.compute()
    assert result.shape == theirs.data.shape

    # The oracle's scan of an input frame stops within 0.03 pixel of the image's border, found by a search that is not
    # exact: a row, column or corner of the border may have an input pixel more or less. Everywhere else all agree.
    # Kernels wider than a pixel carry that inwards.
    border = 3 if name == "gaussian" else 1
    inner = (..., slice(border, -border), slice(border, -border))
    for array, attribute in MEMBERS.items():
        if array not in arrays:
            assert array == "dq"
            continue
        found, wanted = arrays[array], np.asarray(getattr(theirs, attribute))
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        if found.dtype.kind != "f":
            assert np.array_equal(found, wanted)
            continue
        assert np.array_equal(np.isnan(found), np.isnan(wanted))
        difference = np.abs(found.astype(float) - wanted)
        # Pixel positions differ by the rounding of right ascensions in degrees (1e-8 pixel), so that the weights of a
        # mean do by a few parts in 1e8: a few rounding errors of float32 for each value, and up to 2e-4 of the noise in
        # the 0.5 % of pixels on the steepest flanks (cosmic rays of 1000 times the noise).
        noise = theirs.err if array == "sci" else np.zeros_like(wanted)
        rounding = 1e-5 if array == "wht" and scene.get("groups") else 8 * ULP
        # A pixel that is hardly touched has a weight of 1e-4 with the rounding of pixel positions in it.
        faint = 1e-7 * np.nanmax(wanted) if array == "wht" else 0.0
        allowed = faint + 2e-4 * np.nan_to_num(noise) + rounding * np.abs(wanted)
        assert not (difference[inner] > allowed[inner]).any()
        finite = np.isfinite(difference)
        close = difference <= 1e-5 * np.nan_to_num(noise) + rounding * np.abs(wanted)
        assert close[finite].mean() >= (0.99 if scene.get("count") == 1 or "output_shape" in parameters else 0.995)

    wanted = {k: v for k, v in theirs.to_flat_dict(include_arrays=False).items() if k.startswith("meta.")}
    for key in (wanted.keys() | result.meta.keys()) - set(NOT_OURS):
        found = result.meta.get(key)
        if isinstance(found, float):
            # Reference pixel and scale: rounding of the step along one pixel of 1e-8 turns.
            assert found == pytest.approx(wanted[key], rel=1e-9), key
        else:
            assert found == wanted.get(key), key
    if scene.get("count") == 1:
        assert result.table is None
    else:
        assert result.table.dtype.names == theirs.hdrtab.dtype.names
        for column in result.table.dtype.names:
            found, expected = result.table[column], theirs.hdrtab[column].astype(result.table.dtype[column])
            assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f"), column


@pytest.mark.parametrize("parameters", [{}, {"kernel": "turbo"}, {"pixfrac": 0.7, "propagate_dq": True}])
def test_any_tiling_has_the_same_bits(parameters, monkeypatch):
    models = oracle_models(count=3, shape=(150, 90), rolls=(0.0, 35.0, 80.0), stars=10)
    result = ours(models, **parameters)
    whole = result.compute()
    ny, nx = result.shape
    for rows, columns in (
        (slice(0, 1), None),
        (slice(37, 141), None),
        (slice(ny - 3, ny), slice(5, 40)),
        (slice(0, ny), slice(nx // 2, nx)),
    ):
        tile = result.tile(rows, columns)
        for name, array in tile.items():
            expected = whole[name][..., rows, columns or slice(None)]
            assert np.array_equal(array, expected, equal_nan=array.dtype.kind == "f"), name
    monkeypatch.setattr("jwstdask.steps.imaging.drizzle._TILE_PIXELS", 40 * nx)
    again = pickle.loads(pickle.dumps(result))
    assert len(again.tiles()) == -(-ny // 40)
    for name, array in again.compute().items():
        assert np.array_equal(array, whole[name], equal_nan=array.dtype.kind == "f"), name


def test_tiles_read_only_what_touches_them():
    models = oracle_models(count=2, shape=(320, 60), stars=5)
    exposures = [FakeExposure.of(model) for model in models]
    result = ResampleStep().run(exposures, {}, Tools())
    assert not exposures[0].reads and not exposures[1].reads  # planning reads no pixels
    result.tile(slice(0, 32))
    for exposure in exposures:
        # 32 output rows, dithers of 8 pixels, cells of 32 rows: at most 4 cells of the frame's 10.
        assert 0 < sum(size for name, size in exposure.reads if name == "sci") <= 4 * 32 * 60
        assert max(size for _, size in exposure.reads) <= 64 * 60


def test_memory_does_not_grow_with_exposures():
    import tracemalloc

    def peak(count):
        result = ours(oracle_models(count=count, shape=(160, 160), stars=2, seed=1))
        result.tile(slice(0, 160))  # compile
        tracemalloc.start()
        result.tile(slice(0, 160))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    # Dithers make the images of more exposures wider by some pixels.
    assert peak(8) < 1.15 * peak(2)


def test_single_gives_an_image_a_group():
    models = oracle_models(count=3, groups=(0, 0, 1))
    images = ours(models, single=True, pixel_scale_ratio=0.8)
    assert len(images) == 2
    theirs = oracle(models, single=True, pixel_scale_ratio=0.8)
    with theirs:
        for index, image in enumerate(images):
            model = theirs.borrow(index)
            arrays = image.compute()
            for name in ("sci", "err", "wht"):
                wanted = getattr(model, MEMBERS[name])
                inner = (slice(1, -1), slice(1, -1))  # see above
                # Pixels hardly touched have weights of 1e-4, with the rounding of pixel positions in them.
                size = np.nanmax(wanted) if name == "wht" else np.abs(wanted)[inner]
                difference = np.abs(arrays[name] - wanted)[inner]
                assert not (difference > 2e-6 * size).any()
            theirs.shelve(model, index, modify=False)


def test_switches_leave_arrays_out():
    models = oracle_models(count=2)
    assert set(ours(models, enable_err=False, enable_ctx=False).compute()) == {"sci", "wht"}
    result = ours(models, report_var=False)
    assert set(result.compute()) == {"sci", "err", "con", "wht"}
    assert "meta.bunit_err" in result.meta
    assert "meta.bunit_err" not in ours(models, enable_err=False).meta


def test_exposure_without_flat_variance():
    models = oracle_models(count=2)
    exposures = [FakeExposure.of(model) for model in models]
    both = ResampleStep().run(exposures, {}, Tools()).compute()
    for exposure in exposures:
        del exposure.arrays["var_flat"]
    without = ResampleStep().run(exposures, {}, Tools()).compute()
    assert np.isnan(without["var_flat"]).all()
    for name in ("sci", "var_rnoise", "var_poisson", "con"):
        assert np.array_equal(without[name], both[name], equal_nan=True)
    np.testing.assert_allclose(
        without["err"], np.sqrt(both["var_rnoise"] + both["var_poisson"]), rtol=2 * ULP
    )  # one sum, one root


def test_custom_wcs(tmp_path):
    import asdf

    models = oracle_models(count=2)
    plain = ours(models, output_shape=(130, 110), crpix=(60.0, 50.0))
    path = tmp_path / "wcs.asdf"
    asdf.AsdfFile({"wcs": plain.wcs, "pixel_scale": plain.grid.pixel_scale}).write_to(path)
    result = ours(models, output_wcs=str(path))
    theirs = oracle(models, output_wcs=str(path))
    assert result.shape == theirs.data.shape == (110, 130)
    assert result.meta["meta.resample.pixel_scale_ratio"] == pytest.approx(
        theirs.meta.resample.pixel_scale_ratio, rel=1e-9
    )
    arrays = result.compute()
    for name in ("sci", "err", "wht"):
        inner = (slice(1, -1), slice(1, -1))
        np.testing.assert_allclose(arrays[name][inner], getattr(theirs, MEMBERS[name])[inner], rtol=2e-6)


def test_too_large_image_names_the_exposure_that_is_far():
    models = oracle_models(count=3)
    exposures = [FakeExposure.of(model) for model in models]
    exposures[1].meta["meta.wcsinfo.s_region"] = "POLYGON ICRS 152 30 152.001 30 152.001 30.001 152 30.001"
    tools = Tools()
    tools.max_output_pixels = 1_000_000
    with pytest.raises(StepError, match=r"_00002_nrca1.*combined image would have.*1\.7.* degrees"):
        ResampleStep().run(exposures, {}, tools)


def test_errors_name_exposure_and_remedy():
    exposures = [FakeExposure.of(model) for model in oracle_models(count=2)]
    del exposures[1].meta["meta.wcsinfo.s_region"]
    with pytest.raises(StepError, match=r"_00002_nrca1.*S_REGION.*assign_wcs"):
        ResampleStep().run(exposures, {}, Tools())
    exposures = [FakeExposure.of(model) for model in oracle_models(count=2)]
    del exposures[0].meta["meta.wcsinfo.roll_ref"]
    with pytest.raises(StepError, match=r"_00001_nrca1.*roll_ref"):
        ResampleStep().run(exposures, {}, Tools())
    exposures[0].meta["meta.wcsinfo.roll_ref"] = 0.0
    exposures[1].arrays["sci"] = np.zeros((2, 100, 120), np.float32)
    with pytest.raises(StepError, match=r"_00002_nrca1.*not a 2-D image"):
        ResampleStep().run(exposures, {}, Tools())
    with pytest.raises(ParameterError, match="fillval"):
        ResampleStep(fillval="many").run(exposures, {}, Tools())


def test_parameters_are_those_of_jwst():
    from jwst.resample import ResampleStep as Theirs

    ours_declared = declared(ResampleStep)
    for name in Theirs.load_spec_file().keys():
        assert name in ours_declared


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("~DO_NOT_USE", 1),
        ("~DO_NOT_USE+NON_SCIENCE", 513),
        ("4,8", 0xFFFFFFFF - 12),
        (None, 0),
        (0, 0xFFFFFFFF),
        ("~1|4", 5),
    ],
)
def test_good_bits(good, bad):
    from astropy.nddata.bitmask import interpret_bit_flags
    from stdatamodels.jwst.datamodels.dqflags import pixel

    assert bad_bits(good) == bad
    if good is not None:
        assert bad == ~interpret_bit_flags(good, flag_name_map=pixel) & 0xFFFFFFFF


def test_unknown_flag_and_fill():
    with pytest.raises(ParameterError, match="NOISE"):
        bad_bits("~NOISE")
    assert np.isnan(fill_value("INDEF")) and np.isnan(fill_value("nan")) and fill_value("-3.5") == -3.5


def test_product_opens_with_stdatamodels(tmp_path):
    from functools import partial

    from astropy.io import fits
    from stdatamodels.jwst.datamodels import ImageModel

    from jwstdask.io.product import ProductWriter

    result = ours(oracle_models(count=3))
    path = tmp_path / "mosaic_i2d.fits"
    with ProductWriter(path, "ImageModel", result.meta, result.arrays, {"hdrtab": result.table}, result.wcs) as writer:
        result.write(partial(_write, writer))
        writer.finish()
    arrays = result.compute()
    with ImageModel(path) as model:
        for name, array in arrays.items():
            assert np.array_equal(getattr(model, MEMBERS[name]), array, equal_nan=array.dtype.kind == "f")
        assert model.meta.resample.pointings == 3
        assert model.meta.exposure.exposure_time == 330.0
        assert model.meta.wcsinfo.s_region == result.meta["meta.wcsinfo.s_region"]
        assert model.meta.wcs.array_shape == result.shape
        model.validate()
    with fits.open(path) as file:
        assert file["HDRTAB"].data["FILENAME"].tolist() == [
            f"jw01234001001_02101_0000{k}_nrca1_cal.fits" for k in (1, 2, 3)
        ]


def _write(writer, name, rows, columns, array):
    writer.write(name, array, rows=rows, columns=columns)


def test_association_of_one_exposure_has_a_header_table():
    assert len(ours(oracle_models(count=1), blendheaders=True).table) == 1
