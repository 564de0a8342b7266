"""PictureFrameStep beside the oracle."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from jwstdask.core import dq
from jwstdask.core.block import ImageBlock, Window
from jwstdask.core.errors import StepUndone
from jwstdask.steps.detector.clean_flicker_noise import draft_rate
from jwstdask.steps.detector.picture_frame import PictureFrameStep
from tests.steps.fakes import FakeReference, Ramp, metadata, oracle_ramp

SHAPE = (2048, 2048)


def exposure(seed, integrations, groups):
    """Ramps with a frame of a strength of their own in each group, sources, jumps and unusable pixels."""
    rng = np.random.default_rng(seed)
    edge = np.minimum(np.arange(2048), np.arange(2048)[::-1])
    frame = (np.exp(-np.minimum.outer(edge, edge) / 60) + rng.normal(0, 0.01, SHAPE)).astype(np.float32)
    rate = np.where(rng.random(SHAPE) < 0.02, rng.exponential(300, SHAPE), 0) + 1
    sci = np.empty((integrations, groups, *SHAPE), np.float32)
    for integration, group in np.ndindex(integrations, groups):
        sci[integration, group] = rate * group + 30 * rng.random() * frame + 5 * rng.random()
        sci[integration, group] += rng.normal(0, 6, SHAPE)
    ramp = Ramp.of(sci)
    ramp.groupdq[rng.random(sci.shape) < 0.003] = dq.JUMP_DET
    ramp.pixeldq[rng.random(SHAPE) < 0.01] = dq.DO_NOT_USE
    return ramp, frame


def metadata_of(groups, **more):
    values = {
        "instrument__name": "NIRSPEC",
        "instrument__detector": "NRS1",
        "subarray__name": "FULL",
        "exposure__ngroups": groups,
        "exposure__group_time": 14.6,
        "exposure__frame_time": 14.6,
        "exposure__type": "NRS_MSASPEC",
    }
    return metadata(SHAPE, **(values | more))


def references_of(frame):
    return {
        "pictureframe": FakeReference({"sci": frame}),
        "gain": FakeReference({"sci": np.full(SHAPE, 1.0, np.float32)}),
        "readnoise": FakeReference({"sci": np.full(SHAPE, 8.0, np.float32)}),
    }


def corrected(step, meta, references, block):
    prepared = step.prepare(meta, references)
    shared = step.frame_shared(meta, prepared, block)
    for integration in range(block.sci.shape[0] if block.sci.ndim > 2 else 1):
        step.frame_integration(meta, prepared, shared, block, integration)
    step.frame_finish(meta, shared, True)
    return shared


def saving(tmp_path, **parameters):
    """The step that saves what it finds, and a comparison of that with the oracle's models."""
    step = PictureFrameStep(
        skip=False, mask_science_regions=False, save_mask=True, save_correction=True, **parameters
    ).with_side_products(lambda suffix, _: str(tmp_path / f"own_{suffix}.fits"))

    def compare(mask, correction):
        for suffix, model in (("pctfrm_mask", mask), ("pctfrm_correction", correction)):
            model.save(tmp_path / f"jwst_{suffix}.fits")
            with (
                fits.open(tmp_path / f"own_{suffix}.fits") as own,
                fits.open(tmp_path / f"jwst_{suffix}.fits") as theirs,
            ):
                # An HDU ERR without data stands beside a mask, for its unit, which the draft rate of these tests lacks.
                images = [hdu for hdu in own[1:] if hdu.data is not None]
                assert {hdu.name for hdu in images} == {hdu.name for hdu in theirs if hdu.data is not None}
                assert own[0].header["DATAMODL"] == theirs[0].header["DATAMODL"]
                for hdu in images[:-1]:
                    np.testing.assert_array_equal(hdu.data, theirs[hdu.name].data)
                    assert hdu.data.dtype == theirs[hdu.name].data.dtype
        assert len(list(tmp_path.iterdir())) == 4

    return step, compare


@pytest.mark.slow
def test_ramps_same_bits_as_the_oracle(monkeypatch, tmp_path):
    from jwst.clean_flicker_noise import clean_flicker_noise
    from jwst.picture_frame.picture_frame import correct_picture_frame
    from stdatamodels.jwst.datamodels import ImageModel

    ramp, frame = exposure(1, 2, 4)
    meta, references = metadata_of(4), references_of(frame)
    step, compare = saving(tmp_path)
    block = ramp.block(Window.plain(0, 2048, 0, 2048))
    block.average_dark_current = 0.0

    def draft(model):
        # That the draft rate is the oracle's is a matter of the tests of ramp_fit.
        rate = draft_rate(meta, step.prepare(meta, references).ramp_fit, block, False)
        found = ImageModel(data=rate.sci)
        found.dq = rate.dq
        found.meta.exposure.type = meta["meta.exposure.type"]
        return found

    monkeypatch.setattr(clean_flicker_noise, "make_rate", draft)
    model = oracle_ramp(ramp, meta)
    reference = SimpleNamespace(data=frame)
    result, mask, correction, status = correct_picture_frame(model, reference, False, 2.0, "", True, True)
    assert status == "COMPLETE"
    corrected(step, meta, references, block)
    compare(mask, correction)
    np.testing.assert_array_equal(block.sci, result.data)
    np.testing.assert_array_equal(block.groupdq, ramp.groupdq)
    assert np.abs(block.sci - ramp.sci)[:, 1:].max() > 3


@pytest.mark.slow
@pytest.mark.parametrize("integrations", [None, 2])
def test_rates_same_bits_as_the_oracle(integrations, tmp_path):
    from jwst.picture_frame.picture_frame import correct_picture_frame
    from stdatamodels.jwst.datamodels import CubeModel, ImageModel

    ramp, frame = exposure(2, integrations or 1, 2)
    sci = ramp.sci[:, 1] if integrations else ramp.sci[0, 1]
    sci[..., 500, 600] = np.nan
    meta = metadata_of(2, cal_step__ramp_fit="COMPLETE")
    block = ImageBlock(Window.plain(0, 2048, 0, 2048), sci.copy(), dq=np.zeros(sci.shape, np.uint32))
    step, compare = saving(tmp_path, n_sigma=1.5)
    corrected(step, meta, {"pictureframe": FakeReference({"sci": frame})}, block)
    model = (CubeModel if integrations else ImageModel)(data=sci.copy())
    model.dq = block.dq.copy()
    for name, value in meta.items():
        model[name] = value
    reference = SimpleNamespace(data=frame)
    result, mask, correction, status = correct_picture_frame(model, reference, False, 1.5, "", True, True)
    assert status == "COMPLETE"
    compare(mask, correction)
    np.testing.assert_array_equal(block.sci, result.data)


def test_without_background_the_exposure_is_left_alone(tmp_path):
    """The mask is saved all the same, as in the oracle."""
    sci = np.zeros(SHAPE, np.float32)
    block = ImageBlock(Window.plain(0, 2048, 0, 2048), sci, dq=np.zeros(SHAPE, np.uint32))
    meta = metadata_of(2, cal_step__ramp_fit="COMPLETE")
    with pytest.raises(StepUndone, match="No data to scale"):
        corrected(saving(tmp_path)[0], meta, {"pictureframe": FakeReference({"sci": sci})}, block)
    assert [path.name for path in tmp_path.iterdir()] == ["own_pctfrm_mask.fits"]
    assert not fits.getdata(tmp_path / "own_pctfrm_mask.fits").any()


def test_skip_rules():
    step = PictureFrameStep(skip=False)
    assert step.skip_reason(metadata_of(3)) is None
    assert "single-group" in step.skip_reason(metadata_of(1))
    assert step.skip_reason(metadata_of(1, cal_step__ramp_fit="COMPLETE")) is None
    assert "full frame" in step.skip_reason(metadata_of(3, subarray__name="SUB2048"))
    assert "full frame" in step.skip_reason(metadata_of(3, instrument__name="NIRCAM"))
    reason = step.reference_skip_reason(metadata_of(3), {"pictureframe": None, "gain": None})
    assert "NRS_MSASPEC" in reason
    step = PictureFrameStep(skip=False, mask_science_regions=False)
    assert step.references_for(metadata_of(3)) == ("pictureframe", "readnoise", "gain")
    assert step.references_for(metadata_of(3, cal_step__ramp_fit="COMPLETE")) == ("pictureframe",)
