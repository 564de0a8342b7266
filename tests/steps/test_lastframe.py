import numpy as np
import pytest

from jwstdask.steps.detector.lastframe import LastFrameStep
from tests.steps.fakes import Ramp, assert_same, metadata, oracle_ramp, walk

SHAPE = (8, 10)


def miri(**more):
    return metadata(SHAPE, instrument__name="MIRI", instrument__detector="MIRIMAGE", **more)


@pytest.mark.parametrize("groups", [3, 6])
def test_same_flags_as_the_oracle(groups):
    from jwst.lastframe.lastframe_sub import do_correction

    rng = np.random.default_rng(groups)
    ramp = Ramp.of(np.zeros((2, groups, *SHAPE), np.float32))
    ramp.groupdq[:] = rng.integers(0, 256, ramp.groupdq.shape)
    meta = miri(exposure__ngroups=groups)
    assert_same(walk(LastFrameStep(), meta, {}, ramp, (3, 4)), do_correction(oracle_ramp(ramp, meta)))


def test_skips():
    step = LastFrameStep()
    assert "has 2" in step.skip_reason(miri(exposure__ngroups=2))
    assert step.skip_reason(miri(exposure__ngroups=3)) is None
    assert step.skip_reason(metadata(SHAPE, exposure__ngroups=9)) == "for MIRI only"
