from __future__ import annotations

import warnings

import numpy as np
import pytest

from jwstdask.core.errors import InputError, StepError
from jwstdask.steps.imaging.bkg_subtract import BackgroundStep
from tests.steps.images import TILES, Image, assert_same, metadata, oracle_model, random_image, walk

SHAPE = (50, 60)


def write_backgrounds(folder, shapes, corners, seed=0):
    paths = []
    for number, (shape, corner) in enumerate(zip(shapes, corners)):
        image = random_image(shape, seed=seed + 10 * number)
        rng = np.random.default_rng(number)
        image.sci[...] = rng.normal(5.0, 0.5, shape)
        image.sci[rng.random(shape) < 0.05] = 1e4
        image.sci[rng.random(shape) < 0.05] = np.nan
        image.sci[..., 3, 4] = np.nan  # nothing to average there
        path = folder / f"background{number}.fits"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle_model(image, metadata(shape, corner)).save(str(path))
        paths.append(str(path))
    return tuple(paths)


def oracle(image, meta, paths, sigma=3.0, maxiters=None):
    from jwst.background.background_sub import background_sub

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return background_sub(oracle_model(image, meta), list(paths), sigma, maxiters)[1]


@pytest.mark.parametrize("count", [1, 3, 14])
@pytest.mark.parametrize(("sigma", "maxiters"), [(3.0, None), (1.2, 1)])
def test_images_have_the_bits_of_the_oracle(count, sigma, maxiters, tmp_path):
    paths = write_backgrounds(tmp_path, [SHAPE] * count, [(1, 1)] * count)
    image, meta = random_image(SHAPE, seed=99), metadata(SHAPE)
    step = BackgroundStep(bkg_list=(*paths, ""), sigma=sigma, maxiters=maxiters)
    found, changes = walk(step, meta, {}, image)
    assert_same(found, oracle(image, meta, paths, sigma, maxiters))
    assert changes == {}
    assert not np.array_equal(found.sci, image.sci, equal_nan=True)


@pytest.mark.parametrize("tile", TILES)
def test_integrations_have_the_bits_of_the_oracle_in_any_tiles(tile, tmp_path):
    paths = write_backgrounds(tmp_path, [(13, *SHAPE), (4, *SHAPE)], [(1, 1)] * 2)
    image, meta = random_image((3, *SHAPE), seed=98), metadata(SHAPE)
    found, _ = walk(BackgroundStep(bkg_list=paths), meta, {}, image, tile)
    assert_same(found, oracle(image, meta, paths))


@pytest.mark.parametrize("tile", TILES)
def test_subarray_of_full_frame_backgrounds(tile, tmp_path):
    paths = write_backgrounds(tmp_path, [SHAPE] * 3, [(1, 1)] * 3)
    image, meta = random_image((20, 30), seed=97), metadata((20, 30), (11, 25))
    found, _ = walk(BackgroundStep(bkg_list=paths), meta, {}, image, tile)
    assert_same(found, oracle(image, meta, paths))


def test_background_elsewhere_changes_nothing(tmp_path):
    paths = write_backgrounds(tmp_path, [SHAPE], [(101, 101)])
    image, meta = random_image(SHAPE, seed=96), metadata(SHAPE)
    found, _ = walk(BackgroundStep(bkg_list=paths), meta, {}, image)
    assert_same(found, oracle(image, meta, paths))
    np.testing.assert_array_equal(found.sci, image.sci)


def test_a_smaller_background_is_subtracted_where_it_lies(tmp_path):
    # jwst lays it at the corner of the exposure instead, a known difference.
    paths = write_backgrounds(tmp_path, [(20, 30)], [(11, 25)])
    image, meta = random_image(SHAPE, seed=95), metadata(SHAPE)
    found, _ = walk(BackgroundStep(bkg_list=paths), meta, {}, image)
    inside = (slice(10, 30), slice(24, 54))
    part, part_meta = (
        Image(*(array[inside] for array in list(image.__dict__.values())[:5])),
        metadata((20, 30), (11, 25)),
    )
    wanted = oracle(part, part_meta, paths)
    np.testing.assert_array_equal(found.sci[inside], wanted.data)
    np.testing.assert_array_equal(found.dq[inside], wanted.dq)
    outside = np.ones(SHAPE, bool)
    outside[inside] = False
    np.testing.assert_array_equal(found.sci[outside], image.sci[outside])
    np.testing.assert_array_equal(found.dq[outside], image.dq[outside])
    assert not np.array_equal(oracle(image, meta, paths).data, found.sci, equal_nan=True)


def test_skips_and_errors(tmp_path):
    meta = metadata(SHAPE)
    assert BackgroundStep().skip_reason(meta) == "no background exposures"
    assert BackgroundStep(bkg_list=("",)).skip_reason(meta) == "no background exposures"
    cube = write_backgrounds(tmp_path, [(2, *SHAPE)], [(1, 1)])
    with pytest.raises(InputError, match=r"background0.fits: the background has 3 dimensions and the exposure 2"):
        walk(BackgroundStep(bkg_list=cube), meta, {}, random_image(SHAPE, seed=1))
    with pytest.raises(StepError, match=r"image_rate.fits: bkg_subtract: NIS_WFSS is not supported"):
        BackgroundStep().prepare(metadata(SHAPE, exposure__type="NIS_WFSS"), {})
    with pytest.raises(InputError, match=r"none.fits: there is no such file"):
        BackgroundStep(bkg_list=(str(tmp_path / "none.fits"),)).prepare(meta, {})


def test_wheel_positions_of_nirspec_must_agree(tmp_path):
    tilts = {"instrument__gwa_xtilt": 0.35, "instrument__gwa_ytilt": 0.04}
    path = tmp_path / "background.fits"
    image = random_image(SHAPE, seed=1)
    nirspec = {"instrument__name": "NIRSPEC", "instrument__detector": "NRS1", "exposure__type": "NRS_IMAGE"}
    nirspec |= {"instrument__filter": "F110W", "instrument__pupil": None, "subarray__name": "FULL"}
    oracle_model(image, metadata(SHAPE, **nirspec, **tilts)).save(str(path))
    step = BackgroundStep(bkg_list=(str(path),))
    same = metadata(SHAPE, **nirspec, **tilts)
    other = same | {"meta.instrument.gwa_xtilt": 0.3501}
    assert step.reference_skip_reason(same, {}) is None
    assert step.reference_skip_reason(other, {}).startswith("the grating wheel of")


@pytest.mark.parametrize("shape", [SHAPE, (4, *SHAPE)])
def test_the_average_is_saved_as_the_oracle_has_it(shape, tmp_path):
    from astropy.io import fits
    from jwst.background.background_sub import background_sub

    paths = write_backgrounds(tmp_path, [shape] * 4, [(1, 1)] * 4)
    image, meta = random_image(shape, seed=99), metadata(SHAPE)
    step = BackgroundStep(bkg_list=paths, sigma=1.5, save_combined_background=True)
    step = step.with_side_products(lambda suffix: str(tmp_path / "folder" / f"x_{suffix}.fits"))
    walk(step, meta, {}, image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = background_sub(oracle_model(image, meta), list(paths), 1.5, None)[0]
    with fits.open(tmp_path / "folder" / "x_combinedbackground.fits") as found:
        np.testing.assert_array_equal(found["SCI"].data, expected.data)
        np.testing.assert_array_equal(found["DQ"].data, expected.dq)
        # The oracle adds up squares and their weights in another order.
        known = found["SCI"].data != 0
        np.testing.assert_allclose(found["ERR"].data[known], expected.err[known], rtol=1e-6)
        assert known.mean() > 0.9 and found[0].header["DATAMODL"] == "ImageModel"
