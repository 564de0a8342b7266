import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.core.errors import ReferenceFileError
from jwstdask.steps.detector.reset import ResetStep
from tests.steps.fakes import TILES, FakeReference, Ramp, assert_same, metadata, oracle_ramp, walk

SHAPE = (40, 48)


def anomaly(seed, integrations, groups, shape=SHAPE):
    rng = np.random.default_rng(seed + 50)
    # More planes than the header says count.
    values = rng.normal(0, 50, (integrations + 1, groups + 2, *shape)).astype(np.float32)
    values[rng.random(values.shape) < 0.02] = np.nan
    flags = np.where(rng.random(shape) < 0.1, dq.UNRELIABLE_BIAS, 0).astype(np.uint32)
    meta = {"meta.exposure.nints": integrations, "meta.exposure.ngroups": groups}
    return FakeReference({"sci": values.astype(">f4")}, flags, meta)


def setting(**more):
    return metadata(SHAPE, instrument__name="MIRI", instrument__detector="MIRIMAGE", **more)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(
    ("seed", "integrations", "groups", "planes", "start"),
    [
        (0, 2, 8, (4, 5), None),
        (1, 5, 4, (3, 9), None),
        (2, 3, 6, (4, 6), 3),
        (3, 2, 6, (2, 6), 9),
        (4, 1, 5, (1, 5), 1),
    ],
)
def test_same_bits_as_the_oracle(tile, seed, integrations, groups, planes, start):
    from jwst.reset.reset_sub import do_correction
    from stdatamodels.jwst.datamodels import ResetModel

    rng = np.random.default_rng(seed)
    ramp = Ramp.of(rng.normal(5000, 900, (integrations, groups, *SHAPE)).astype(np.float32))
    ramp.pixeldq[4, 5] = dq.HOT
    more = {"exposure__integration_start": start} if start else {}
    meta = setting(exposure__ngroups=groups, exposure__nints=integrations, **more)
    reference = anomaly(seed, *planes)
    model = ResetModel(data=reference.arrays["sci"].astype(np.float32), dq=reference.dq.copy())
    for name, value in reference.meta.items():
        model[name] = value
    theirs = oracle_ramp(ramp, meta)
    if start:
        theirs.meta.exposure.integration_end = start - 1 + integrations
    result = walk(ResetStep(), meta, {"reset": reference}, ramp, tile)
    assert_same(result, do_correction(theirs, model))
    assert not np.isnan(result.sci).any()
    assert np.isnan(reference.arrays["sci"]).any()


def test_skips_and_refusals():
    step, meta = ResetStep(), setting()
    assert step.skip_reason(meta) is None
    assert step.skip_reason(meta | {"meta.instrument.detector": "NRS1"}) == "for MIRI only"
    assert "No RESET" in step.reference_skip_reason(meta, {"reset": None})
    with pytest.raises(ReferenceFileError, match="has 40 x 20 pixels"):
        step.prepare(meta, {"reset": anomaly(0, 1, 2, (40, 20))})
