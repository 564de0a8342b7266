import numpy as np
import pytest

from jwstdask.steps.detector.firstframe import FirstFrameStep
from tests.steps.fakes import Ramp, assert_same, metadata, oracle_ramp, walk

SHAPE = (8, 10)


def miri(**more):
    return metadata(SHAPE, instrument__name="MIRI", instrument__detector="MIRIMAGE", **more)


@pytest.mark.parametrize("bright", [True, False])
@pytest.mark.parametrize("groups", [4, 6])
def test_same_flags_as_the_oracle(groups, bright):
    from jwst.firstframe.firstframe_sub import do_correction

    rng = np.random.default_rng(groups)
    ramp = Ramp.of(np.zeros((2, groups, *SHAPE), np.float32))
    ramp.groupdq[:] = rng.integers(0, 256, ramp.groupdq.shape)
    meta = miri(exposure__ngroups=groups)
    result = walk(FirstFrameStep(bright_use_group1=bright), meta, {}, ramp, (3, 4))
    assert_same(result, do_correction(oracle_ramp(ramp, meta), bright_use_group1=bright))
    assert result.pixeldq.any() == bright


def test_skips():
    step = FirstFrameStep()
    assert "has 3" in step.skip_reason(miri(exposure__ngroups=3))
    assert step.skip_reason(miri(exposure__ngroups=4)) is None
    assert step.skip_reason(metadata(SHAPE, exposure__ngroups=9)) == "for MIRI only"
    assert step.skip
