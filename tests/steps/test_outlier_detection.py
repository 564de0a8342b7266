from __future__ import annotations

import numpy as np
import pytest

from jwstdask.core.errors import ParameterError, StepError
from jwstdask.steps.combine.outlier_detection import OutlierDetectionStep
from tests.steps.dithered import FakeExposure, Tools, oracle_models


def oracle(models, **parameters):
    from jwst.datamodels import ModelLibrary
    from jwst.outlier_detection import OutlierDetectionStep as Theirs

    library = Theirs(**parameters).process(ModelLibrary([model.copy() for model in models]))
    masks = []
    with library:
        for index in range(len(library)):
            model = library.borrow(index)
            masks.append((model.dq & 16) > 0)
            library.shelve(model, index, modify=False)
    return masks


def ours(models, scratch, **parameters):
    return OutlierDetectionStep(**parameters).run([FakeExposure.of(model) for model in models], {}, Tools(scratch))


SCENES = {
    "four dithers": ({}, {}),
    "two detectors an exposure": ({}, {"seed": 1, "groups": (0, 0, 1, 2)}),
    "background, thresholds": (
        {"weight_type": "exptime", "snr": "8 6", "scale": "2 1.5", "backg": 0.3},
        {"seed": 2, "level": False},
    ),
    "rotated, small drops, bounding box": (
        {"pixfrac": 0.5},
        {"seed": 4, "rolls": (10.0, 100.0, 190.0, 37.0), "level": True, "box": ((3.5, 115.5), (-0.5, 99.5))},
    ),
    "coarse pixel map": ({"pixmap_stepsize": 10.0, "maskpt": 0.5}, {"seed": 3}),
    "more groups, NaN without flags left out": ({}, {"count": 7, "seed": 9, "nan": False}),
    "point": ({"kernel": "point"}, {"seed": 8}),
    "turbo, flags to ignore": ({"kernel": "turbo", "good_bits": "~DO_NOT_USE+JUMP_DET"}, {"seed": 8}),
    "not resampled": ({"resample_data": False}, {"seed": 7}),
}


@pytest.mark.parametrize("name", SCENES)
def test_outliers_of_the_oracle(name, tmp_path):
    parameters, scene = SCENES[name]
    models = oracle_models(**scene)
    result = ours(models, tmp_path, **parameters)
    for path, count, expected in zip(result.masks, result.counts, oracle(models, **parameters), strict=True):
        mask = np.load(path)
        assert mask.dtype == bool
        assert np.array_equal(mask, expected)
        assert count == expected.sum() > 50
    # Only masks stay in the scratch folder.
    assert len(list(tmp_path.iterdir())) == len(models)


def test_small_tiles_give_the_same_masks(tmp_path, monkeypatch):
    models = oracle_models(count=5, rolls=(0.0, 20.0, 90.0, 45.0, 170.0), groups=(0, 0, 1, 2, 3))
    whole = [np.load(path) for path in ours(models, tmp_path / "a").masks]
    monkeypatch.setattr("jwstdask.steps.imaging.drizzle._TILE_PIXELS", 3000)
    monkeypatch.setattr("jwstdask.steps.combine.outlier_detection._MEDIAN_VALUES", 1 << 21)
    monkeypatch.setattr("jwstdask.steps.combine.outlier_detection._FLAG_ROWS", 7)
    small = [np.load(path) for path in ours(models, tmp_path / "b").masks]
    for first, second in zip(whole, small):
        assert np.array_equal(first, second)


def test_intermediate_images(tmp_path):
    models = oracle_models(count=3, groups=(0, 0, 1))
    result = ours(models, tmp_path, save_intermediate_results=True)
    assert [item.suffix for item in result.intermediate] == ["outlier_i2d"] * 2 + ["median"] + ["blot"] * 3
    assert [item.member for item in result.intermediate] == [0, 2, 0, 0, 1, 2]
    images = {item.suffix: np.load(item.path) for item in result.intermediate}
    assert images["median"].shape == images["outlier_i2d"].shape == result.intermediate[0].wcs.array_shape
    # Where both images have data the median is their mean: here compared at one place.
    first, second = (np.load(item.path) for item in result.intermediate[:2])
    both = np.isfinite(first) & np.isfinite(second) & np.isfinite(images["median"])
    mean = (first + second) / np.float32(2)
    near = [np.abs(images["median"] - value)[both] <= 1e-6 * np.abs(value)[both] for value in (mean, first, second)]
    assert np.any(near, axis=0).all()  # a pixel of low weight leaves the other one alone
    assert near[0].mean() > 0.5
    assert images["blot"].shape == models[2].data.shape


def test_pixels_outside_the_others_stay(tmp_path):
    # With 2 exposures far apart the median of each place is the only image there: no outliers but noise.
    models = oracle_models(count=2)
    exposures = [FakeExposure.of(model) for model in models]
    result = OutlierDetectionStep(snr="1e6 1e6").run(exposures, {}, Tools(tmp_path))
    assert result.counts == [0, 0]


@pytest.mark.parametrize(("change", "reason"), [("one", "at least 2 exposures"), ("type", "NRC_WFSS is not an image")])
def test_nothing_to_do(tmp_path, change, reason):
    exposures = [FakeExposure.of(model) for model in oracle_models(count=1 if change == "one" else 2)]
    if change == "type":
        for exposure in exposures:
            exposure.meta["meta.exposure.type"] = "NRC_WFSS"
    result = OutlierDetectionStep().run(exposures, {}, Tools(tmp_path))
    assert reason in result.skipped and not result.masks
    assert not list(tmp_path.iterdir())


def test_errors(tmp_path):
    exposures = [FakeExposure.of(model) for model in oracle_models(count=2)]
    with pytest.raises(ParameterError, match="snr must be two numbers"):
        OutlierDetectionStep(snr="5").run(exposures, {}, Tools(tmp_path))
    exposures[1].arrays = {name: array[:50] for name, array in exposures[1].arrays.items()}
    with pytest.raises(StepError, match=r"_00002_nrca1.*shape \(50, 120\) differs"):
        OutlierDetectionStep(resample_data=False).run(exposures, {}, Tools(tmp_path))
    exposures[0].wcs = None
    with pytest.raises(StepError, match=r"_00001_nrca1.*WCS"):
        OutlierDetectionStep().run(exposures, {}, Tools(tmp_path))


def test_parameters_are_those_of_jwst():
    from jwst.outlier_detection import OutlierDetectionStep as Theirs

    from jwstdask.core.params import declared

    found = declared(OutlierDetectionStep)
    assert set(Theirs.load_spec_file().keys()) <= set(found)
