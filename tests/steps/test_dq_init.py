import numpy as np
import pytest
from astropy.io import fits

from jwstdask.core import dq
from jwstdask.core.errors import InputError
from jwstdask.steps.detector.dq_init import DQInitStep
from tests.steps.fakes import TILES, FakeReference, Ramp, assert_same, metadata, oracle_ramp, walk

SHAPE = (40, 48)


def exposure():
    rng = np.random.default_rng(1)
    ramp = Ramp.of(np.ones((2, 3, *SHAPE), np.float32))
    ramp.pixeldq[:] = rng.choice([0, dq.HOT], SHAPE)
    ramp.groupdq[:] = rng.choice([0, dq.JUMP_DET], ramp.sci.shape)
    mask = rng.choice([0, dq.DO_NOT_USE, dq.DEAD | dq.DO_NOT_USE, dq.SATURATED, dq.REFERENCE_PIXEL], SHAPE)
    return ramp, mask.astype(np.uint32)


def oracle(ramp, meta, mask, flags=None):
    from jwst.dq_init.dq_initialization import do_dqinit
    from stdatamodels.jwst.datamodels import MaskModel

    model = MaskModel(dq=mask.copy())
    for name in ("xstart", "ystart", "xsize", "ysize", "fastaxis", "slowaxis"):
        model[f"meta.subarray.{name}"] = meta[f"meta.subarray.{name}"]
    inputs = oracle_ramp(ramp, meta)
    inputs.meta.exposure.type = "NRC_IMAGE"
    return do_dqinit(inputs, model, flags)


@pytest.mark.parametrize("tile", TILES)
def test_same_flags_as_the_oracle(tile):
    ramp, mask = exposure()
    meta = metadata(SHAPE)
    assert_same(walk(DQInitStep(), meta, {"mask": FakeReference(dq=mask)}, ramp, tile), oracle(ramp, meta, mask))


@pytest.mark.parametrize("kind", ["i2", "i4", "u4", "i8"])
def test_flags_of_the_user_are_added_like_the_oracle(tmp_path, kind):
    ramp, mask = exposure()
    meta = metadata(SHAPE)
    flags = np.random.default_rng(4).choice([0, dq.DO_NOT_USE, dq.WARM], SHAPE).astype(kind)
    fits.PrimaryHDU(flags).writeto(tmp_path / "flags.fits")
    step = DQInitStep(user_supplied_dq=str(tmp_path / "flags.fits"))
    result = walk(step, meta, {"mask": FakeReference(dq=mask)}, ramp, (16, 24))
    assert_same(result, oracle(ramp, meta, mask, flags))
    assert np.any(result.pixeldq & dq.WARM)


def test_flags_of_another_shape_are_refused(tmp_path):
    fits.PrimaryHDU(np.zeros((3, 4), np.int16)).writeto(tmp_path / "flags.fits")
    step = DQInitStep(user_supplied_dq=str(tmp_path / "flags.fits"))
    with pytest.raises(InputError, match=r"\(3, 4\).*\(40, 48\)"):
        step.prepare(metadata(SHAPE), {"mask": FakeReference(dq=exposure()[1])})


def test_missing_file_of_the_user_is_named(tmp_path):
    step = DQInitStep(user_supplied_dq=str(tmp_path / "none.fits"))
    with pytest.raises(
        InputError, match=r"none\.fits: dq_init.user_supplied_dq: there is no such file\. Correct the path"
    ):
        step.prepare(metadata(SHAPE), {"mask": FakeReference(dq=exposure()[1])})


@pytest.mark.parametrize("damage", ["text", "truncated", "no array"])
def test_file_of_the_user_without_flags_is_named(tmp_path, damage):
    path = tmp_path / "flags.fits"
    fits.PrimaryHDU(None if damage == "no array" else np.zeros(SHAPE, np.int32)).writeto(path)
    path.write_bytes({"text": b"no flags", "truncated": path.read_bytes()[:4000]}.get(damage, path.read_bytes()))
    step = DQInitStep(user_supplied_dq=str(path))
    with pytest.raises(
        InputError, match=r"flags\.fits: (dq_init.user_supplied_dq cannot be read.*Give a FITS|.*shape)"
    ):
        step.prepare(metadata(SHAPE), {"mask": FakeReference(dq=exposure()[1])})


def test_skipped_without_reference():
    assert "MASK" in DQInitStep().reference_skip_reason({}, {"mask": None})
