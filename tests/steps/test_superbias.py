import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.steps.detector.superbias import SuperBiasStep
from tests.steps.fakes import TILES, FakeReference, Ramp, assert_same, metadata, oracle_ramp, walk

SHAPE = (64, 72)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("zeroframe", [False, True])
@pytest.mark.parametrize("kind", ["<f4", ">f4"])
def test_same_bits_as_the_oracle(tile, zeroframe, kind):
    from jwst.superbias.bias_sub import do_correction
    from stdatamodels.jwst.datamodels import SuperBiasModel

    rng = np.random.default_rng(3)
    ramp = Ramp.of(rng.normal(10000, 300, (2, 3, *SHAPE)).astype(np.float32))
    ramp.pixeldq[:] = rng.integers(0, 8, SHAPE)
    if zeroframe:
        ramp.zeroframe = ramp.sci[:, 0].copy()
        ramp.zeroframe[:, ::3, ::5] = 0
    bias = rng.normal(9000, 30, SHAPE).astype(kind)
    bias[rng.random(SHAPE) < 0.02] = np.nan
    flags = np.where(rng.random(SHAPE) < 0.1, dq.UNRELIABLE_BIAS, 0).astype(np.uint32)
    meta = metadata(SHAPE)
    model = SuperBiasModel(data=bias.astype(np.float32), dq=flags.copy())
    for name in ("xstart", "ystart", "xsize", "ysize", "fastaxis", "slowaxis"):
        model[f"meta.subarray.{name}"] = meta[f"meta.subarray.{name}"]
    result = walk(SuperBiasStep(), meta, {"superbias": FakeReference({"sci": bias}, flags)}, ramp, tile)
    assert_same(result, do_correction(oracle_ramp(ramp, meta), model))


def test_skipped_without_reference():
    assert "SUPERBIAS" in SuperBiasStep().reference_skip_reason({}, {"superbias": None})
