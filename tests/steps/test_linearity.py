import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.steps.detector.linearity import LinearityStep
from tests.steps.fakes import TILES, FakeReference, Ramp, assert_same, metadata, oracle_ramp, walk

SHAPE = (64, 72)


def exposure(seed, groups=5, zeroframe=False):
    rng = np.random.default_rng(seed)
    ramp = Ramp.of((rng.uniform(0, 9000, (2, 1, *SHAPE)) * np.arange(1, groups + 1)[:, None, None]).astype(np.float32))
    when = rng.integers(0, 3 * groups, (2, 1, *SHAPE))
    ramp.groupdq[np.arange(groups)[:, None, None] >= when] = dq.SATURATED
    ramp.groupdq[rng.random(ramp.sci.shape) < 0.05] |= dq.JUMP_DET
    ramp.sci[0, 0, 0, 0] = np.nan
    if zeroframe:
        ramp.zeroframe = ramp.sci[:, 0] / 2
        ramp.zeroframe[:, ::3, ::5] = 0
    return ramp


def reference(seed, count=5, inverse=False):
    rng = np.random.default_rng(seed + 100)

    def polynomial(sign):
        scales = [10.0, None] + [3.0 * 10.0 ** (-1 - 5 * k) for k in range(1, count - 1)]
        terms = [np.ones(SHAPE) if s is None else sign * s * rng.normal(1, 0.1, SHAPE) for s in scales]
        values = np.array(terms, np.float32)
        values[rng.integers(0, count), rng.random(SHAPE) < 0.02] = np.nan
        values[1, rng.random(SHAPE) < 0.02] = 0
        return values

    flags = np.where(rng.random(SHAPE) < 0.03, dq.NO_LIN_CORR, 0).astype(np.uint32)
    flags[2, 2] = dq.HOT
    arrays = {"coeffs": polynomial(1)}
    if inverse:
        arrays["inv_coeffs"] = polynomial(-1)
    return FakeReference(arrays, flags)


def oracle(ramp, meta, ref):
    from jwst.linearity.linearity import do_correction
    from stdatamodels.jwst.datamodels import LinearityModel

    model = LinearityModel(coeffs=ref.arrays["coeffs"].copy(), dq=ref.dq.copy())
    if "inv_coeffs" in ref.arrays:
        model.inv_coeffs = ref.arrays["inv_coeffs"].copy()
    for name in ("xstart", "ystart", "xsize", "ysize", "fastaxis", "slowaxis"):
        model[f"meta.subarray.{name}"] = meta[f"meta.subarray.{name}"]
    return do_correction(oracle_ramp(ramp, meta), model)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("seed", "count", "zeroframe"), [(0, 5, True), (1, 2, False), (2, 7, True), (3, 3, False)])
def test_same_bits_as_the_oracle(tile, seed, count, zeroframe):
    ramp, ref, meta = exposure(seed, zeroframe=zeroframe), reference(seed, count), metadata(SHAPE)
    assert_same(walk(LinearityStep(), meta, {"linearity": ref}, ramp, tile), oracle(ramp, meta, ref))


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("seed", "nframes", "groups"), [(0, 4, 5), (1, 8, 3), (2, 2, 2), (3, 1, 5)])
def test_single_frames_same_bits_as_the_oracle(tile, seed, nframes, groups):
    """The inverse polynomial is used for groups of several frames only."""
    ramp, ref = exposure(seed, groups, zeroframe=True), reference(seed, inverse=True)
    meta = metadata(SHAPE, exposure__nframes=nframes)
    result = walk(LinearityStep(), meta, {"linearity": ref}, ramp, tile)
    assert_same(result, oracle(ramp, meta, ref))
    plain = walk(LinearityStep(), meta, {"linearity": reference(seed)}, ramp, tile)
    assert np.array_equal(result.sci, plain.sci, equal_nan=True) == (nframes == 1)


def test_skipped_without_reference():
    assert "Linearity" in LinearityStep().reference_skip_reason({}, {"linearity": None})
