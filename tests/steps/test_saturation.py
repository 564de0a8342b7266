import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.core.errors import PlanError
from jwstdask.steps.detector.saturation import SaturationStep
from tests.steps.fakes import TILES, FakeReference, Ramp, assert_same, metadata, oracle_ramp, walk

SHAPE = (64, 72)


def exposure(seed, integrations=2, groups=6, zeroframe=False):
    """Ramps of all brightnesses, some at the floor, some hit, flags set beforehand on a few."""
    rng = np.random.default_rng(seed)
    rate = rng.choice([0, 500, 9000, 20000], SHAPE, p=[0.5, 0.46, 0.02, 0.02]) * rng.uniform(0.5, 1.5, SHAPE)
    # Values on a coarse grid, so that some equal the level exactly.
    start = rng.normal(9000, 40, (integrations, 1, *SHAPE))
    sci = np.round((start + rate * np.arange(groups)[:, None, None]) / 50) * 50
    hit = rng.random((integrations, 1, *SHAPE)) < 0.01
    when = rng.integers(0, groups, (integrations, 1, *SHAPE))
    sci += np.where(hit & (np.arange(groups)[:, None, None] >= when), 45000, 0)
    sci[rng.random(sci.shape) < 0.003] = 0
    sci[rng.random(sci.shape) < 0.002] = -5
    ramp = Ramp.of(np.minimum(sci, 65535).astype(np.float32))
    ramp.groupdq[rng.random(sci.shape) < 0.02] = dq.DO_NOT_USE
    ramp.groupdq[rng.random(sci.shape) < 0.001] = dq.SATURATED
    ramp.pixeldq[3, 4] = dq.HOT
    if zeroframe:
        ramp.zeroframe = (ramp.sci[:, 0] * rng.uniform(0.5, 1.6, (integrations, *SHAPE))).astype(np.float32)
        ramp.zeroframe[:, 5:8] = 0
    return ramp


def references(seed, bias=True):
    rng = np.random.default_rng(seed + 100)
    level = rng.choice([50000, 54000.5, 60000], SHAPE).astype(np.float32)
    level[rng.random(SHAPE) < 0.02] = np.nan
    flags = np.where(rng.random(SHAPE) < 0.02, dq.NO_SAT_CHECK, 0).astype(np.uint32)
    flags[7, 7] = dq.DO_NOT_USE
    image = rng.normal(8800, 30, SHAPE).astype(np.float32)
    image[rng.random(SHAPE) < 0.01] = np.nan
    return {
        "saturation": FakeReference({"sci": level}, flags),
        "superbias": FakeReference({"sci": image}, np.zeros(SHAPE, np.uint32)) if bias else None,
    }


def oracle(ramp, meta, refs, step):
    from jwst.saturation.saturation import flag_saturation
    from stdatamodels.jwst.datamodels import SaturationModel, SuperBiasModel

    level = SaturationModel(data=refs["saturation"].arrays["sci"].copy(), dq=refs["saturation"].dq.copy())
    bias = refs["superbias"] and SuperBiasModel(data=refs["superbias"].arrays["sci"].copy())
    for model in (level, bias):
        if model is not None:
            for name in ("xstart", "ystart", "xsize", "ysize", "fastaxis", "slowaxis"):
                model[f"meta.subarray.{name}"] = meta[f"meta.subarray.{name}"]
    return flag_saturation(oracle_ramp(ramp, meta), level, step.n_pix_grow_sat, step.use_readpatt, bias)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(
    ("seed", "grow", "nframes", "readpatt", "bias", "zeroframe", "groups"),
    [
        (0, 1, 1, True, True, True, 6),
        (1, 1, 4, True, True, True, 6),
        (2, 0, 8, True, True, True, 6),
        (3, 2, 4, True, False, False, 6),
        (4, 3, 4, False, True, True, 6),
        (5, 1, 4, True, True, False, 2),
        (6, 1, 4, True, True, False, 1),
        (7, 1, 2, True, True, False, 3),
    ],
)
def test_same_bits_as_the_oracle(tile, seed, grow, nframes, readpatt, bias, zeroframe, groups):
    ramp, refs = exposure(seed, groups=groups, zeroframe=zeroframe), references(seed, bias)
    meta = metadata(SHAPE, exposure__nframes=nframes)
    step = SaturationStep(n_pix_grow_sat=grow, use_readpatt=readpatt)
    result = walk(step, meta, refs, ramp, tile)
    model = oracle(ramp, meta, refs, step)
    assert_same(result, model)
    assert np.any(result.groupdq & dq.SATURATED)
    saturated = np.any(model.groupdq & dq.SATURATED, axis=(0, 1)).sum()
    floor = np.any(model.groupdq & dq.AD_FLOOR, axis=(0, 1)).sum()
    assert result.tally == {"saturation.saturated": saturated, "saturation.ad_floor": floor}


def test_rules_for_averaged_groups_add_flags():
    """The comparison with the oracle above would be empty if no pixel met the rules."""
    ramp, refs = exposure(1), references(1)
    meta = metadata(SHAPE, exposure__nframes=4)
    plain = walk(SaturationStep(use_readpatt=False), meta, refs, ramp).groupdq
    added = walk(SaturationStep(), meta, refs, ramp).groupdq & ~plain
    assert np.count_nonzero(added == dq.DO_NOT_USE) > 20
    refs["superbias"] = None
    assert np.any(walk(SaturationStep(), meta, refs, ramp).groupdq != (plain | added))


IRS2 = (3200, 24)


def interleaved_exposure(seed, detector, zeroframe, groups):
    """The ramps of :func:`exposure`, with reference samples between and beside them that would be saturated."""
    rng = np.random.default_rng(seed)
    meta = metadata((2048, IRS2[1]), exposure__readpatt="NRSIRS2", instrument__detector=detector)
    rows = SaturationStep().kept_rows(meta)
    shape = (2, groups, *IRS2)
    ramp = Ramp.of(np.full(shape, 65535, np.float32))
    rate = rng.choice([0, 500, 9000, 20000], (2048, IRS2[1]), p=[0.5, 0.46, 0.02, 0.02])
    sci = np.round((rng.normal(9000, 40, (2, 1, *rate.shape)) + rate * np.arange(groups)[:, None, None]) / 50) * 50
    hit = rng.random((2, 1, *rate.shape)) < 0.04
    sci += np.where(hit & (np.arange(groups)[:, None, None] >= rng.integers(0, groups, hit.shape)), 45000, 0)
    sci[rng.random(sci.shape) < 0.003] = 0
    ramp.sci[:, :, rows] = np.minimum(sci, 65535)
    ramp.groupdq[rng.random(shape) < 0.02] = dq.DO_NOT_USE
    ramp.groupdq[rng.random(shape) < 0.001] = dq.SATURATED
    if zeroframe:
        ramp.zeroframe = (ramp.sci[:, 0] * rng.uniform(0.5, 1.6, (2, *IRS2))).astype(np.float32)
    return ramp, meta


@pytest.mark.parametrize("tile", [(10**6, 10**6), (33, 24), (16, 10)])
@pytest.mark.parametrize(
    ("seed", "detector", "grow", "nframes", "readpatt", "bias", "zeroframe", "groups"),
    [
        (0, "NRS1", 1, 5, True, True, True, 5),
        (1, "NRS2", 1, 1, True, True, True, 4),
        (2, "NRS1", 2, 5, True, False, False, 3),
        (3, "NRS2", 0, 5, True, True, False, 3),
        (4, "NRS2", 3, 5, False, True, False, 4),
        (5, "NRS1", 1, 5, True, True, False, 2),
    ],
)
def test_irs2_same_bits_as_the_oracle(tile, seed, detector, grow, nframes, readpatt, bias, zeroframe, groups):
    from jwst.saturation.saturation import irs2_flag_saturation
    from stdatamodels.jwst.datamodels import SaturationModel, SuperBiasModel

    ramp, meta = interleaved_exposure(seed, detector, zeroframe, groups)
    meta["meta.exposure.nframes"] = nframes
    rng = np.random.default_rng(seed)
    level = rng.choice([50000, 54000.5, 60000], (2048, IRS2[1])).astype(np.float32)
    level[rng.random(level.shape) < 0.02] = np.nan
    flags = np.where(rng.random(level.shape) < 0.02, dq.NO_SAT_CHECK, 0).astype(np.uint32)
    image = rng.normal(8800, 30, IRS2).astype(np.float32)
    refs = {
        "saturation": FakeReference({"sci": level.copy()}, flags.copy()),
        "superbias": FakeReference({"sci": image}) if bias else None,
    }
    step = SaturationStep(n_pix_grow_sat=grow, use_readpatt=readpatt)
    result = walk(step, meta, refs, ramp, tile)
    reference = SaturationModel(data=level, dq=flags)
    for name in ("xstart", "ystart", "xsize", "ysize"):
        reference[f"meta.subarray.{name}"] = meta[f"meta.subarray.{name}"]
    model = oracle_ramp(ramp, meta)
    model.meta.exposure.nrs_normal, model.meta.exposure.nrs_reference = 16, 4
    model = irs2_flag_saturation(model, reference, grow, readpatt, SuperBiasModel(data=image) if bias else None)
    assert_same(result, model)
    if readpatt and groups > 2 and nframes > 1:
        plain = walk(SaturationStep(n_pix_grow_sat=grow, use_readpatt=False), meta, refs, ramp)
        added = result.groupdq[:, 1] & ~plain.groupdq[:, 1]
        assert np.count_nonzero(added == dq.SATURATED) > 20
    # Pixels are counted, reference samples are not.
    pixels = model.groupdq[:, :, step.kept_rows(meta)]
    assert result.tally["saturation.saturated"] == np.any(pixels & dq.SATURATED, axis=(0, 1)).sum()


def test_irs2_of_other_detectors_is_refused_when_planning():
    step = SaturationStep()
    step.check(metadata((40, 48), exposure__readpatt="NRSRAPID"))
    step.check(metadata((40, 48), exposure__readpatt="NRSIRS2RAPID", instrument__detector="NRS1"))
    with pytest.raises(PlanError, match="IRS2"):
        step.check(metadata((40, 48), exposure__readpatt="NRSIRS2RAPID"))
    with pytest.raises(PlanError, match="13 pixels"):
        step.check(
            metadata((40, 48), exposure__readpatt="NRSIRS2", instrument__detector="NRS1", exposure__nrs_normal=13)
        )


def test_skipped_without_reference():
    step = SaturationStep()
    assert "SATURATION" in step.reference_skip_reason({}, {"saturation": None, "superbias": FakeReference()})
    assert step.reference_skip_reason({}, {"saturation": FakeReference(), "superbias": None}) is None
