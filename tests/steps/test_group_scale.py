import numpy as np
import pytest

from jwstdask.steps.detector.group_scale import GroupScaleStep
from tests.steps.fakes import TILES, Ramp, metadata, oracle_ramp, walk

SHAPE = (40, 48)
# Frames averaged, divisor on board, whether the step runs.
CASES = [(5, 8, True), (3, 4, True), (4, 4, False), (None, 4, False), (4, None, False), (5, None, False), (1, 1, False)]


def metadata_of(nframes, divisor):
    values = metadata(SHAPE, exposure__nframes=nframes, exposure__frame_divisor=divisor)
    return {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize(("nframes", "divisor", "runs"), CASES)
@pytest.mark.parametrize("tile", TILES)
def test_same_bits_as_the_oracle(nframes, divisor, runs, tile):
    from jwst.group_scale import GroupScaleStep as Oracle

    ramp = Ramp.of(np.random.default_rng(2).normal(9000, 300, (2, 3, *SHAPE)).astype(np.float32))
    meta = metadata_of(nframes, divisor)
    model = oracle_ramp(ramp, meta)
    if nframes is None:
        model.meta.exposure.nframes = None
    model = Oracle().process(model)
    assert model.meta.cal_step.group_scale == ("COMPLETE" if runs else "SKIPPED")
    assert (GroupScaleStep().skip_reason(meta) is None) == runs
    if runs:
        np.testing.assert_array_equal(walk(GroupScaleStep(), meta, {}, ramp, tile).sci, model.data)
        assert np.any(model.data != ramp.sci)
