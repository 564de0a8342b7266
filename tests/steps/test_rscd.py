import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.kernels import rscd
from jwstdask.steps.detector.rscd import RscdStep
from tests.steps.fakes import TILES, FakeReference, Ramp, assert_same, metadata, oracle_ramp, walk

SHAPE = (40, 48)
ROWS = [
    ("FULL", "SLOWR1", 3, 3),
    ("FULL", "FASTR1", 4, 6),
    ("SLITLESSPRISM", "FASTR1", -1, 2),
    ("SUB64", "FASTR1", 0, 0),
]


def table(text):
    return np.array(ROWS, [("subarray", text), ("readpatt", text), ("group_skip1", "i4"), ("group_skip", "i4")])


class FakeTable(FakeReference):
    """A reference with a table, with text as the files have it."""

    def table(self, name):
        assert name == "rscd_group_skip"
        return table("S17")


def exposure(seed, integrations, groups, saturated=True):
    rng = np.random.default_rng(seed)
    ramp = Ramp.of(rng.normal(0, 10, (integrations, groups, *SHAPE)).astype(np.float32))
    ramp.groupdq[:] = rng.choice(np.array([0, 1, 16, 64], np.uint8), ramp.groupdq.shape, p=[0.9, 0.05, 0.03, 0.02])
    if saturated:
        start = rng.integers(0, 3 * groups, (integrations, 1, *SHAPE))
        ramp.groupdq[np.arange(groups)[:, None, None] >= start] |= dq.SATURATED
    ramp.pixeldq[5, 6] = dq.DO_NOT_USE
    return ramp


def setting(integrations, groups, subarray="FULL", start=None):
    return metadata(
        SHAPE,
        instrument__name="MIRI",
        instrument__detector="MIRIMAGE",
        subarray__name=subarray,
        exposure__readpatt="FASTR1",
        exposure__nints=integrations,
        exposure__ngroups=groups,
        **({} if start is None else {"exposure__integration_start": start}),
    )


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(
    ("seed", "integrations", "groups", "subarray", "start", "saturated"),
    [
        (0, 3, 12, "FULL", None, True),
        (1, 1, 12, "FULL", 1, True),
        (2, 2, 8, "FULL", None, True),
        (3, 2, 7, "FULL", None, True),
        (4, 2, 5, "FULL", None, True),
        (5, 2, 3, "FULL", None, True),
        (6, 3, 10, "FULL", 4, True),
        (7, 2, 9, "SUBPRISM", None, True),
        (8, 2, 9, "SUB64", None, True),
        (9, 2, 9, "FULL", None, False),
        (10, 2, 9, "SUB64", None, False),
    ],
)
def test_same_flags_as_the_oracle(tile, seed, integrations, groups, subarray, start, saturated):
    from jwst.rscd.rscd_sub import do_correction
    from stdatamodels.jwst.datamodels import RSCDModel

    ramp, meta = exposure(seed, integrations, groups, saturated), setting(integrations, groups, subarray, start)
    references = {"rscd": FakeTable()}
    step = RscdStep()
    result = walk(step, meta, references, ramp, tile)
    model = do_correction(oracle_ramp(ramp, meta), RSCDModel(rscd_group_skip_table=table("S17")))
    assert_same(result, model)
    updates = step.finish(meta, step.prepare(meta, references), result.tally)
    assert len(updates) == 3 * ((start in (None, 1)) + (integrations > 1))
    for name, value in updates.items():
        assert model[name] == value, name
    if saturated and groups > 7 and subarray == "FULL":
        assert max(value for name, value in updates.items() if "saturation" in name) > 10


@pytest.mark.parametrize("groups", [0, 1, 3])
def test_two_groups_are_left_of_every_ramp_that_has_two(groups):
    """Slow reference: go back group by group while the second group after those flagged is saturated."""
    rng = np.random.default_rng(groups)
    start = rng.integers(0, 9, (2, 1, 6, 7))
    groupdq = np.where(np.arange(8)[:, None, None] >= start, dq.SATURATED, 0).astype(np.uint8)
    before = groupdq.copy()
    flags, number, early = rscd.flag(groupdq, groups)
    np.testing.assert_array_equal(groupdq, before)
    for i, y, x in np.ndindex(number.shape):
        first = int(start[i, 0, y, x])
        expected = groups
        while first > 0 and expected > 0 and first < expected + 2:
            expected -= 1
        assert number[i, y, x] == expected
        assert early[i, y, x] == (0 < first < groups + 2)
        np.testing.assert_array_equal(flags[i, :, y, x] & dq.DO_NOT_USE, np.arange(8) < expected)
    out = groupdq.copy()
    rscd.flag(out, groups, out=out)
    np.testing.assert_array_equal(out, flags)


def test_skips():
    step, meta = RscdStep(), setting(2, 9)
    assert step.skip_reason(meta | {"meta.instrument.detector": "NRCA1"}) == "for MIRI only"
    assert "has 2" in step.skip_reason(setting(2, 2))
    assert step.skip_reason(meta) is None
    assert "No RSCD" in step.reference_skip_reason(meta, {"rscd": None})
    assert step.reference_skip_reason(meta, {"rscd": FakeTable()}) is None
    assert "SUBARRAY SUB128" in step.reference_skip_reason(setting(2, 9, "SUB128"), {"rscd": FakeTable()})
