import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.steps.detector.charge_migration import ChargeMigrationStep
from tests.steps.fakes import TILES, Ramp, assert_same, metadata, oracle_ramp, walk

SHAPE = (40, 48)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("seed", "threshold"), [(0, 25000.0), (1, 20000.1), (2, 1e6)])
def test_same_flags_as_the_oracle(tile, seed, threshold):
    from jwst.charge_migration.charge_migration import charge_migration

    rng = np.random.default_rng(seed)
    sci = rng.choice([10, 5000, 30000], SHAPE, p=[0.9, 0.08, 0.02]) * np.arange(6)[:, None, None]
    ramp = Ramp.of(np.stack([sci, sci[:, ::-1]]).astype(np.float32))
    # Values at the threshold, as float32 has it, do not count.
    ramp.sci[0, 2:, 20, 20] = threshold
    ramp.groupdq[rng.random(ramp.sci.shape) < 0.3] = dq.DO_NOT_USE
    ramp.groupdq[rng.random(ramp.sci.shape) < 0.1] |= dq.JUMP_DET
    meta = metadata(SHAPE, exposure__ngroups=6)
    result = walk(ChargeMigrationStep(signal_threshold=threshold), meta, {}, ramp, tile)
    assert_same(result, charge_migration(oracle_ramp(ramp, meta), threshold))
    assert np.any(result.groupdq & dq.CHARGELOSS) == (threshold < 1e6)


def test_skip_rules():
    assert ChargeMigrationStep().skip
    assert ChargeMigrationStep().skip_reason(metadata(SHAPE, exposure__ngroups=3)) is None
    assert "Too few" in ChargeMigrationStep().skip_reason(metadata(SHAPE, exposure__ngroups=2))
