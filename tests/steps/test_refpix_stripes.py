"""Reference pixels of multi-stripe readouts: the same bits as jwst."""

from __future__ import annotations

import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.refs.stripes import stripe_rows
from jwstdask.steps.detector.refpix import RefPixStep
from tests.steps.fakes import Ramp, walk
from tests.steps.test_refpix import compare, geometry

BORDER = 4


def striped(detector, corner, shape, reads, repeat=1, interleave=0, name="SUB64", **more):
    """Metadata of an exposure; `reads` are reads1, skips1, reads2 and skips2."""
    words = ("multistripe_reads1", "multistripe_skips1", "multistripe_reads2", "multistripe_skips2")
    extra = {f"subarray__{word}": number for word, number in zip(words, reads)}
    extra |= {"subarray__repeat_stripe": repeat, "subarray__interleave_reads1": interleave}
    extra |= {"subarray__num_superstripe": 0, "subarray__superstripe_step": 0, "subarray__name": name}
    return geometry(detector, corner, shape, **(extra | more))


def exposure(meta, integrations=2, groups=3, seed=0, zeroframe=False):
    """Noise with amplifiers of their own, outliers, and the mask of reference pixels, some of them bad."""
    rng = np.random.default_rng(seed)
    shape = meta["meta.subarray.ysize"], meta["meta.subarray.xsize"]
    sci = rng.normal(1000, 9, (integrations, groups, *shape)).astype(np.float32)
    sci += np.arange(shape[1]) // 512 * 3 + np.arange(shape[1]) % 2 * 5
    sci[rng.random(sci.shape) < 0.01] += 500
    y, x = np.indices(shape)
    y, x = y + meta["meta.subarray.ystart"] - 1, x + meta["meta.subarray.xstart"] - 1
    slow = stripe_rows(meta)
    if abs(meta["meta.subarray.slowaxis"]) == 1:
        x = np.broadcast_to(slow, shape)
    else:
        y = np.broadcast_to(slow[:, None], shape)
    ramp = Ramp.of(sci)
    ramp.pixeldq[(x < BORDER) | (x >= 2048 - BORDER) | (y < BORDER) | (y >= 2048 - BORDER)] = dq.REFERENCE_PIXEL
    ramp.pixeldq[rng.random(shape) < 0.1] |= dq.DO_NOT_USE
    if zeroframe:
        ramp.zeroframe = (sci[:, 0] * 0.7).astype(np.float32)
        ramp.zeroframe[:, ::7, ::5] = 0
    return ramp


READOUTS = {
    "dhs, one stripe": striped("NRCA1", (0, 0), (41, 2048), (1, 1058, 40, 82), name="SUB41STRIPE1_DHS"),
    "dhs, four stripes": striped("NRCB1", (0, 2047), (84, 2048), (1, 300, 20, 82), interleave=1),
    "repeated": striped("NRCB4", (0, 0), (82, 2048), (1, 300, 40, 82)),
    "no repeat": striped("NRCA3", (0, 2), (42, 1000), (2, 300, 20, 5), repeat=0),
    "from the other end": striped("NRCB1", (0, 2040), (60, 700), (4, 26, 26, 0)),
    "odd corner in mirrored columns": striped("NRCA1", (509, 0), (60, 701), (4, 26, 26, 0)),
    "slow axis x": striped("NIS", (2040, 1792), (256, 60), (4, 30, 26, 0), interleave=1),
    "no reference rows": striped("NRCA1", (0, 0), (40, 2048), (0, 12, 20, 9), repeat=0),
}


@pytest.mark.parametrize("zeroframe", [False, True])
@pytest.mark.parametrize("kind", list(READOUTS))
def test_same_bits_as_the_oracle(kind, zeroframe):
    meta = READOUTS[kind]
    compare(exposure(meta, zeroframe=zeroframe), meta, RefPixStep(), (13, 300))


@pytest.mark.parametrize("parameters", [{"odd_even_columns": False}, {"siglimit": 1.5}], ids=str)
def test_parameters_same_bits_as_the_oracle(parameters):
    meta = READOUTS["dhs, four stripes"]
    compare(exposure(meta, seed=1), meta, RefPixStep(**parameters), (10**6, 10**6))


@pytest.mark.parametrize("bad", ["odd columns of an amplifier", "an amplifier"])
def test_amplifiers_without_reference_pixels_are_left_alone(bad):
    meta = READOUTS["repeated"]
    ramp = exposure(meta, seed=2)
    ramp.pixeldq[:, 512 : 1024 : 2 if bad.startswith("odd") else 1] |= dq.DO_NOT_USE
    before = ramp.sci.copy()
    compare(ramp, meta, RefPixStep(), (13, 300))
    np.testing.assert_array_equal(ramp.sci, before)


SUPERSTRIPES = {
    "rows": striped(
        "NRCB1", (0, 2047), (34, 700), (4, 0, 30, 0), subarray__superstripe_step=30, subarray__num_superstripe=3
    ),
    "columns": striped(
        "NIS",
        (2047, 1792),
        (256, 34),
        (4, 0, 30, 0),
        name="SUB60STRIPE_SOSS",
        subarray__superstripe_step=30,
        subarray__num_superstripe=3,
    ),
}


@pytest.mark.parametrize("zeroframe", [False, True])
@pytest.mark.parametrize("kind", list(SUPERSTRIPES))
def test_superstripes_same_bits_as_the_oracle(kind, zeroframe):
    """The flags of the first superstripe decide for all of them, although each has its own."""
    from jwst.refpix.reference_pixels import correct_model
    from stdatamodels.jwst.datamodels import SuperstripeRampModel

    meta, rng = SUPERSTRIPES[kind], np.random.default_rng(5)
    plain = exposure(meta | {"meta.subarray.num_superstripe": 0}, integrations=6, zeroframe=zeroframe)
    flags = np.stack([plain.pixeldq] * 3)
    flags[rng.random(flags.shape) < 0.2] |= dq.DO_NOT_USE
    ramp = Ramp(plain.sci, plain.groupdq, flags, plain.zeroframe)
    found = walk(RefPixStep(), meta, {}, ramp, (13, 300))
    model = SuperstripeRampModel(data=ramp.sci.copy())
    for name, value in meta.items():
        model[name] = value
    model.groupdq, model.pixeldq = ramp.groupdq.copy(), flags.copy()
    if zeroframe:
        model.zeroframe, model.meta.exposure.zero_frame = ramp.zeroframe.copy(), True
    names = ("sigreject", "gaussmooth", "halfwidth", "sirs_kernel_model")
    kernels = dict.fromkeys(names) | {"refpix_algorithm": "median"}
    correct_model(model, True, True, 11, 1.0, True, kernels, 3.0)
    np.testing.assert_array_equal(found.sci, model.data)
    np.testing.assert_array_equal(found.pixeldq, flags)
    if zeroframe:
        np.testing.assert_array_equal(found.zeroframe, model.zeroframe)
    # With its own flags the second superstripe comes out differently.
    each = walk(RefPixStep(as_jwst=False), meta, {}, ramp, (13, 300))
    for stripe in range(3):
        own = Ramp(ramp.sci, ramp.groupdq, flags[stripe], ramp.zeroframe)
        alone = walk(RefPixStep(), meta | {"meta.subarray.num_superstripe": 0}, {}, own)
        np.testing.assert_array_equal(each.sci[stripe::3], alone.sci[stripe::3])
        if zeroframe:
            np.testing.assert_array_equal(each.zeroframe[stripe::3], alone.zeroframe[stripe::3])
    assert np.any(each.sci[1] != found.sci[1])


@pytest.mark.parametrize("kind", list(SUPERSTRIPES))
def test_superstripes_with_flags_of_their_own_in_parts(monkeypatch, kind):
    """The reference pixels of a long series are gathered some integrations after the other."""
    from jwstdask.steps.detector import refpix

    meta, rng = SUPERSTRIPES[kind], np.random.default_rng(6)
    plain = exposure(meta | {"meta.subarray.num_superstripe": 0}, integrations=12)
    flags = np.stack([plain.pixeldq] * 3)
    flags[rng.random(flags.shape) < 0.2] |= dq.DO_NOT_USE
    ramp, step = Ramp(plain.sci, plain.groupdq, flags), RefPixStep(as_jwst=False)
    prepared, windows = step.prepare(meta, {}), step.gather_windows(meta)

    def blocks(integrations=slice(None)):
        part = Ramp(ramp.sci[integrations], ramp.groupdq[integrations], flags)
        return (part.block(window) for window in windows)

    meta = meta | {"meta.exposure.nints": 12, "meta.exposure.ngroups": 3}
    whole = step.gather(meta, prepared, list(blocks()))
    monkeypatch.setattr(refpix, "_SAMPLES_HELD", 5 * 3 * sum(w.shape[0] * w.shape[1] for w in windows))
    parts = step.gather_stream(meta, prepared, blocks)
    np.testing.assert_array_equal(parts.ramp.levels, whole.ramp.levels)
    assert parts.ramp.levels.any()
