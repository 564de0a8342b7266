import numpy as np
import pytest

from jwstdask.core.block import ImageBlock, RampBlock, Window
from jwstdask.steps.detector.gain_scale import GainScaleStep
from tests.steps.fakes import FakeReference, metadata

SHAPE = (24, 30)
WINDOW = Window.plain(0, *SHAPE[:1], 0, *SHAPE[1:])


def image(shape, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {name: rng.gamma(2, 3, shape).astype(np.float32) for name in ("sci", "err", "var_poisson", "var_rnoise")}
    arrays["sci"][..., 0, 0] = np.nan
    return ImageBlock(WINDOW, dq=np.zeros(shape, np.uint32), **arrays)


def oracle(block, factor):
    from jwst.gain_scale.gain_scale import do_correction
    from stdatamodels.jwst.datamodels import CubeModel, ImageModel

    model = (ImageModel if block.sci.ndim == 2 else CubeModel)(data=block.sci.copy())
    for name in ("err", "var_poisson", "var_rnoise"):
        setattr(model, name, getattr(block, name).copy())
    return do_correction(model, factor)


@pytest.mark.parametrize("factor", [1.37, 0.1, 2])
def test_products_same_bits_as_the_oracle(factor):
    zero = np.zeros((2, 3, *SHAPE), np.float32)
    products = {"rate": image(SHAPE), "rateints": image((2, *SHAPE), 1), "fitopt": image(SHAPE, 2)}
    block = RampBlock(WINDOW, zero, zero.astype(np.uint8), np.zeros(SHAPE, np.uint32), products=products)
    expected = {name: oracle(products[name], factor) for name in ("rate", "rateints")}
    fitopt = products["fitopt"].sci.copy()
    reference = FakeReference(meta={"meta.exposure.gain_factor": factor})
    step = GainScaleStep()
    step.apply(block, step.prepare(metadata(SHAPE), {"gain": reference}))
    for name, model in expected.items():
        for mine, theirs in (("sci", "data"), ("err", "err"), ("var_poisson",) * 2, ("var_rnoise",) * 2):
            np.testing.assert_array_equal(getattr(products[name], mine), getattr(model, theirs))
    np.testing.assert_array_equal(products["fitopt"].sci, fitopt)


def test_image_alone():
    block = image(SHAPE)
    model = oracle(block, 1.2)
    block.var_rnoise = None
    GainScaleStep().apply(block, 1.2)
    np.testing.assert_array_equal(block.sci, model.data)
    np.testing.assert_array_equal(block.var_poisson, model.var_poisson)


def test_factor_of_the_exposure_before_that_of_the_reference():
    step, reference = GainScaleStep(), FakeReference(meta={"meta.exposure.gain_factor": 1.5})
    meta = metadata(SHAPE, exposure__gain_factor=1.1)
    assert step.prepare(meta, {"gain": reference}) == 1.1
    assert step.reference_skip_reason(meta, {"gain": None}) is None
    assert step.prepare(metadata(SHAPE), {"gain": reference}) == 1.5
    assert step.finish(meta, 1.1, {}) == {"meta.exposure.gain_factor": 1.1}


@pytest.mark.parametrize("reference", [None, FakeReference()])
def test_skipped_without_factor(reference):
    assert "GAINFACT" in GainScaleStep().reference_skip_reason(metadata(SHAPE), {"gain": reference})
