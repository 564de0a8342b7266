from __future__ import annotations

import warnings

import numpy as np
import pytest

from jwstdask.core import dq as flags
from jwstdask.core.errors import ParameterError, StepError
from jwstdask.refs.reference import open_reference
from jwstdask.steps.imaging.flat_field import FlatFieldStep
from tests.steps.images import TILES, assert_same, metadata, oracle_model, random_image, walk

FRAME = (50, 60)
# Bits of the file and their names: not where jwst has them.
DQ_DEF = [(0, 1, "NO_FLAT_FIELD"), (1, 2, "UNRELIABLE_FLAT"), (2, 4, "DO_NOT_USE"), (3, 8, "LOW_QE")]


def write_flat(path, seed=0, with_error=True, dq_def=DQ_DEF):
    from stdatamodels.jwst.datamodels import FlatModel

    rng = np.random.default_rng(seed)
    values = rng.normal(1.0, 0.1, FRAME)
    values[rng.random(FRAME) < 0.05] = np.nan
    values[rng.random(FRAME) < 0.05] = 0.0
    model = FlatModel(data=values.astype(np.float32))
    if with_error:
        model.err = rng.uniform(0.0, 0.05, FRAME).astype(np.float32)
        model.err[rng.random(FRAME) < 0.02] = np.nan
    model.dq = np.where(rng.random(FRAME) < 0.2, rng.integers(0, 16, FRAME), 0).astype(np.uint32)
    if dq_def:
        rows = [(bit, value, name, "") for bit, value, name in dq_def]
        model.dq_def = np.array(rows, dtype=[("BIT", "i4"), ("VALUE", "u4"), ("NAME", "S40"), ("DESCRIPTION", "S80")])
    model.meta.instrument.name = "NIRCAM"
    model.meta.subarray.xstart = model.meta.subarray.ystart = 1
    model.meta.subarray.xsize, model.meta.subarray.ysize = FRAME[::-1]
    model.meta.subarray.fastaxis, model.meta.subarray.slowaxis = -1, 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a reference without author, pedigree ...
        model.save(str(path))
    return str(path)


def oracle(image, meta, path, inverse=False):
    from jwst.flatfield.flat_field import do_correction
    from stdatamodels.jwst.datamodels import FlatModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with FlatModel(path) as flat:
            model, _ = do_correction(oracle_model(image, meta), flat=flat, inverse=inverse)
    assert model.meta.cal_step.flat_field == "COMPLETE"
    return model


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("shape", "corner"), [((50, 60), (1, 1)), ((3, 50, 60), (1, 1)), ((2, 20, 30), (11, 25))])
@pytest.mark.parametrize("tile", TILES)
def test_same_bits_as_the_oracle(shape, corner, tile, inverse, tmp_path):
    path = write_flat(tmp_path / "flat.fits", seed=len(shape))
    image, meta = random_image(shape, seed=shape[-1]), metadata(shape, corner)
    found, _ = walk(FlatFieldStep(inverse=inverse), meta, {"flat": open_reference(path, "flat")}, image, tile)
    assert_same(found, oracle(image, meta, path, inverse))


@pytest.mark.parametrize(("with_error", "dq_def"), [(False, DQ_DEF), (True, None)])
def test_reference_without_error_or_definitions(with_error, dq_def, tmp_path):
    path = write_flat(tmp_path / "flat.fits", 3, with_error, dq_def)
    image, meta = random_image(FRAME, seed=4), metadata(FRAME)
    found, _ = walk(FlatFieldStep(), meta, {"flat": open_reference(path, "flat")}, image)
    assert_same(found, oracle(image, meta, path))


def test_user_supplied_flat_takes_the_place_of_the_reference(tmp_path):
    path = write_flat(tmp_path / "mine.fits", 5)
    image, meta = random_image(FRAME, seed=6), metadata(FRAME)
    found, _ = walk(FlatFieldStep(user_supplied_flat=path), meta, {"flat": None}, image)
    assert_same(found, oracle(image, meta, path))


def test_what_is_invalid_anywhere_is_invalid_everywhere(tmp_path):
    path = write_flat(tmp_path / "flat.fits", 7)
    found, _ = walk(
        FlatFieldStep(), metadata(FRAME), {"flat": open_reference(path, "flat")}, random_image(FRAME, seed=8)
    )
    bad = (found.dq & flags.DO_NOT_USE) != 0
    assert 0.2 < bad.mean() < 0.9
    for array in (found.sci, found.err, found.var_poisson, found.var_rnoise, found.var_flat):
        np.testing.assert_array_equal(np.isnan(array), bad)


def test_skips(tmp_path):
    step, flat = FlatFieldStep(), open_reference(write_flat(tmp_path / "flat.fits"), "flat")
    assert step.reference_skip_reason(metadata(FRAME), {"flat": None}) == "no flat reference for this exposure"
    large = metadata((51, 60))
    assert step.reference_skip_reason(large, {"flat": flat}) == (
        "the flat (50 x 60) is smaller than the exposure (51 x 60)"
    )
    assert step.skip_reason(metadata(FRAME, cal_step__extract_2d="COMPLETE")) == "extract_2d has been run before"
    with pytest.raises(StepError, match=r"image_rate.fits: flat_field: NRS_IFU is not supported"):
        step.prepare(metadata(FRAME, exposure__type="NRS_IFU"), {"flat": flat})


def test_saving_the_flat_of_an_image_is_refused():
    with pytest.raises(ParameterError, match="save_interpolated_flat=True is not available"):
        FlatFieldStep(save_interpolated_flat=True).check({})
