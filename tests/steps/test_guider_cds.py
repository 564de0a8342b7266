import numpy as np
import pytest

from jwstdask.core.block import GuiderBlock, ImageBlock, tiles
from jwstdask.core.errors import InputError, ReferenceFileError
from jwstdask.steps.detector.dq_init import DQInitStep
from jwstdask.steps.detector.guider_cds import GuiderCdsStep
from jwstdask.steps.imaging.flat_field import FlatFieldStep
from tests.steps.fakes import TILES, FakeReference, metadata

SHAPE = (40, 48)


def setting(exposure_type="FGS_ACQ1", **more):
    return metadata(
        SHAPE,
        instrument__name="FGS",
        instrument__detector="GUIDER1",
        exposure__type=exposure_type,
        exposure__group_time=0.364,
        **more,
    )


def references(seed):
    rng = np.random.default_rng(seed)
    gain = rng.normal(1.8, 0.05, SHAPE).astype(np.float32)
    gain[rng.random(SHAPE) < 0.01] = 0
    gain[rng.random(SHAPE) < 0.01] = np.nan
    noise = rng.normal(12, 1, SHAPE).astype(np.float32)
    flat = rng.normal(1, 0.03, SHAPE).astype(np.float32)
    flat[rng.random(SHAPE) < 0.02] = np.nan
    flat[rng.random(SHAPE) < 0.02] = 0
    flat_dq = rng.choice([0, 0, 0, 0, 1, 2**18, 2**10], SHAPE).astype(np.uint32)
    flat_err = np.abs(rng.normal(0.01, 0.002, SHAPE)).astype(np.float32)
    mask = rng.choice([0, 0, 0, 1, 2**10], SHAPE).astype(np.uint32)
    return {
        "gain": FakeReference({"sci": gain.astype(">f4")}),
        "readnoise": FakeReference({"sci": noise.astype(">f4")}),
        "flat": FakeReference({"sci": flat, "err": flat_err}, flat_dq),
        "mask": FakeReference(dq=mask),
    }


def reads(seed, integrations, groups):
    rng = np.random.default_rng(seed)
    sci = rng.normal(800, 60, (integrations, groups, *SHAPE)) + 30 * np.arange(groups)[:, None, None]
    return sci.astype(np.float32)


def ours(sci, meta, refs, steps, tile):
    """SCI, ERR and DQ after steps, tile by tile."""
    prepared = []
    for step in steps:
        assert step.skip_reason(meta) is None
        step.check(meta)
        prepared.append(step.prepare(meta, refs))
    found = {}
    for window in tiles((0, SHAPE[0]), SHAPE, tile, 0):
        part = (..., window.rows, window.columns)
        flags = np.zeros((0, 0, *window.shape), np.uint8)
        block = GuiderBlock(window, sci[part].copy(), flags, np.full(window.shape, 4, np.uint32))
        for step, data in zip(steps, prepared):
            step.apply(block, data)
        for name, array in block.arrays().items():
            found.setdefault(name, np.empty((*array.shape[:-2], *SHAPE), array.dtype))[part] = array
    return found


def oracle(sci, meta, refs):
    from jwst.flatfield.flat_field import do_flat_field
    from jwst.guider_cds.guider_cds import guider_cds
    from stdatamodels.jwst.datamodels import FlatModel, GainModel, GuiderRawModel, ReadnoiseModel

    model = GuiderRawModel(data=sci.copy())
    model.dq = np.full(SHAPE, 4, np.uint32) | refs["mask"].dq
    arrays = [refs[name].arrays["sci"].astype(np.float32) for name in ("gain", "readnoise", "flat")]
    gain, noise, flat = (kind(data=array) for kind, array in zip((GainModel, ReadnoiseModel, FlatModel), arrays))
    flat.err, flat.dq = refs["flat"].arrays["err"].copy(), refs["flat"].dq.copy()
    for item in (model, gain, noise, flat):
        for name, value in meta.items():
            if item is model or name.startswith(("meta.instrument", "meta.subarray")):
                item[name] = value
    with np.errstate(all="ignore"):
        result = guider_cds(model, gain, noise)
        assert result.meta.bunit_data == "DN/s"
        rates = {"sci": result.data.copy(), "err": result.err.copy(), "dq": result.dq.copy()}
        do_flat_field(result, flat)
    return rates, {"sci": result.data, "err": result.err, "dq": result.dq}


MODES = [
    ("FGS_ACQ1", 6, 2),
    ("FGS_ACQ2", 5, 2),
    ("FGS_TRACK", 4, 3),
    ("FGS_FINEGUIDE", 3, 10),
    ("FGS_FINEGUIDE", 1, 3),
    ("FGS_ID-IMAGE", 2, 2),
    ("FGS_ID-STACK", 3, 2),
]


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("exposure_type", "integrations", "groups"), MODES)
def test_same_bits_as_the_oracle(tile, exposure_type, integrations, groups):
    sci, refs, meta = reads(groups, integrations, groups), references(integrations), setting(exposure_type)
    rates, flattened = oracle(sci, meta, refs)
    steps = [DQInitStep(), GuiderCdsStep()]
    for expected, run in ((rates, steps), (flattened, [*steps, FlatFieldStep()])):
        found = ours(sci, meta, refs, run, tile)
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
    assert np.isnan(rates["err"]).any() and not np.isnan(rates["sci"]).any()
    assert np.isnan(flattened["sci"]).any() and not np.isnan(flattened["sci"]).all()


def test_flags_before_count_rates():
    sci, refs = reads(0, 2, 2), references(1)
    found = ours(sci, setting(), refs, [DQInitStep()], (16, 24))
    np.testing.assert_array_equal(found["sci"], sci)
    np.testing.assert_array_equal(found["err"], np.zeros_like(sci))
    np.testing.assert_array_equal(found["dq"], refs["mask"].dq | 4)


@pytest.mark.parametrize("inverse", [False, True])
def test_flat_of_count_rates_alone(inverse):
    from jwst.flatfield.flat_field import do_flat_field
    from stdatamodels.jwst.datamodels import FlatModel, GuiderCalModel

    rng, refs, meta = np.random.default_rng(3), references(3), setting()
    model = GuiderCalModel(data=rng.normal(50, 20, (3, *SHAPE)).astype(np.float32))
    model.err = rng.gamma(3, 2, (3, *SHAPE)).astype(np.float32)
    model.err[0, 3, 4] = np.nan
    model.dq = rng.choice([0, 1, 2], SHAPE).astype(np.uint32)
    flat = FlatModel(data=refs["flat"].arrays["sci"].copy(), dq=refs["flat"].dq.copy())
    flat.err = refs["flat"].arrays["err"].copy()
    for item in (model, flat):
        for name, value in meta.items():
            if item is model or name.startswith(("meta.instrument", "meta.subarray")):
                item[name] = value
    (window,) = tiles((0, SHAPE[0]), SHAPE, SHAPE, 0)
    block = ImageBlock(window, model.data.copy(), model.err.copy(), model.dq.copy())
    step = FlatFieldStep(inverse=inverse)
    step.apply(block, step.prepare(meta, refs))
    with np.errstate(all="ignore"):
        do_flat_field(model, flat, inverse=inverse)
    np.testing.assert_array_equal(block.sci, model.data)
    np.testing.assert_array_equal(block.err, model.err)
    np.testing.assert_array_equal(block.dq, model.dq)
    assert set(block.arrays()) == {"sci", "err", "dq"}


def test_skips_and_refusals():
    step, meta, refs = GuiderCdsStep(), setting(), references(0)
    assert step.reference_skip_reason(meta, refs) is None
    assert "No GAIN" in step.reference_skip_reason(meta, refs | {"gain": None})
    assert "No READNOISE" in step.reference_skip_reason(meta, refs | {"readnoise": None})
    with pytest.raises(InputError, match="does not take EXP_TYPE FGS_IMAGE"):
        step.check(setting("FGS_IMAGE"))
    with pytest.raises(InputError, match="TGROUP"):
        step.check(meta | {"meta.exposure.group_time": None})
    with pytest.raises(ValueError, match="two integrations"):
        ours(reads(0, 1, 2), setting("FGS_ID-IMAGE"), refs, [step], SHAPE)
    with pytest.raises(ValueError, match="two groups"):
        ours(reads(0, 2, 1), meta, refs, [step], SHAPE)
    with pytest.raises(ValueError, match="guider_cds must be run before"):
        ours(reads(0, 2, 2), meta, refs, [FlatFieldStep()], SHAPE)


def test_count_rates_cannot_be_read_again():
    (window,) = tiles((0, SHAPE[0]), SHAPE, SHAPE, 0)
    block = ImageBlock(window, np.zeros((2, *SHAPE), np.float32), dq=np.zeros(SHAPE, np.uint32))
    for step in (DQInitStep(), GuiderCdsStep()):
        with pytest.raises(ValueError, match="holds count rates"):
            step.apply(block, step.prepare(setting(), references(0)))


class Small(FakeReference):
    """A reference that does not cover the exposure."""

    def match(self, meta):
        raise ReferenceFileError(self.path, "too small")


def test_stacked_images_beyond_the_references_get_their_mean():
    values = np.random.default_rng(0).normal(12, 1, (8, 9)).astype(np.float32)
    refs = references(0) | {"readnoise": Small({"sci": values})}
    with pytest.raises(ReferenceFileError, match="too small"):
        GuiderCdsStep().prepare(setting("FGS_ID-IMAGE"), refs)
    prepared = GuiderCdsStep().prepare(setting("FGS_ID-STACK"), refs)
    np.testing.assert_array_equal(prepared.readnoise, np.full(SHAPE, np.mean(values)))


@pytest.mark.parametrize(("groups", "span"), [(10, 6), (8, 4), (5, 1)])
def test_fine_guide_by_the_time_between_the_means(groups, span):
    """A source of constant rate has that rate, however many groups there are."""
    meta, refs = setting("FGS_FINEGUIDE"), references(3)
    sci = np.zeros((2, groups, *SHAPE), np.float32) + 50 * np.arange(groups, dtype=np.float32)[:, None, None]
    rate = 50 / meta["meta.exposure.group_time"]
    as_jwst = ours(sci, meta, refs, [GuiderCdsStep()], TILES[0])
    right = ours(sci, meta, refs, [GuiderCdsStep(as_jwst=False)], TILES[0])
    np.testing.assert_allclose(as_jwst["sci"], span * rate, rtol=1e-6)
    np.testing.assert_allclose(right["sci"], rate, rtol=1e-6)
    meta = setting("FGS_ACQ1")
    same = [ours(sci[:, :2], meta, refs, [GuiderCdsStep(as_jwst=value)], TILES[0])["sci"] for value in (True, False)]
    np.testing.assert_array_equal(*same)
