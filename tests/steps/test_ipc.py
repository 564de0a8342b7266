import numpy as np
import pytest

from jwstdask.core.errors import PlanError, ReferenceFileError, StepError
from jwstdask.steps.detector.ipc import IPCStep
from tests.steps.fakes import TILES, FakeReference, Ramp, assert_same, metadata, oracle_ramp, walk


def kernel(size, seed, frame=()):
    """A deconvolution kernel, (row, column) or with one for each pixel of the frame."""
    rng = np.random.default_rng(seed)
    values = rng.normal(-0.005, 0.002, (*size, *frame))
    values[size[0] // 2, size[1] // 2] += 1.04
    return values.astype(np.float32)


# Instrument, corner (x, y, 0-indexed), shape, size of the kernel, frame of a reference with a kernel for each pixel.
CASES = [
    ("NIRCAM", (0, 0), (40, 48), (3, 3), (40, 48)),
    ("NIRCAM", (0, 0), (40, 48), (5, 5), (40, 48)),
    ("NIRCAM", (2000, 2002), (46, 48), (3, 5), None),
    ("NIRCAM", (1000, 1000), (40, 48), (5, 5), None),
    ("NIRISS", (1998, 2), (40, 50), (3, 3), None),
    ("MIRI", (0, 0), (40, 48), (5, 3), None),
    ("MIRI", (992, 984), (40, 40), (3, 3), (1024, 1032)),
]


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("instrument", "corner", "shape", "size", "frame"), CASES)
def test_same_bits_as_the_oracle(tile, instrument, corner, shape, size, frame):
    from jwst.ipc.ipc_corr import do_correction
    from stdatamodels.jwst.datamodels import IPCModel

    ramp = Ramp.of(np.random.default_rng(8).normal(9000, 2000, (2, 2, *shape)).astype(np.float32))
    more = {"subarray__xstart": corner[0] + 1, "subarray__ystart": corner[1] + 1, "instrument__name": instrument}
    meta = metadata(shape, **more)
    values = kernel(size, 1)
    if frame is not None:
        values = np.zeros((*size, *frame), np.float32)
        part = np.s_[:, :, corner[1] : corner[1] + shape[0], corner[0] : corner[0] + shape[1]]
        values[part] = kernel(size, 2, shape)
    result = walk(IPCStep(), meta, {"ipc": FakeReference({"sci": values})}, ramp, tile)
    assert_same(result, do_correction(oracle_ramp(ramp, meta), IPCModel(data=values)))
    assert np.any(result.sci != ramp.sci)


def test_stripes_read_from_the_far_end_are_refused():
    """As by jwst, which fails where the corner and the size reach beyond the detector."""
    reference = {"ipc": FakeReference({"sci": kernel((3, 3), 1)})}
    stripes = {"subarray__multistripe_reads1": 1}
    IPCStep().prepare(metadata((82, 48), **stripes), reference)
    with pytest.raises(StepError, match=r"ipc.*stripes.*skip"):
        IPCStep().prepare(metadata((82, 48), **stripes, subarray__ystart=2048), reference)


@pytest.mark.parametrize("size", [(7, 3), (4, 3)])
def test_other_kernels_are_refused(size):
    reference = FakeReference({"sci": np.zeros(size, np.float32)})
    with pytest.raises(ReferenceFileError, match="kernel of"):
        IPCStep().prepare(metadata((40, 48)), {"ipc": reference})


@pytest.mark.parametrize("tile", [(10**6, 10**6), (50, 11)])
@pytest.mark.parametrize(("detector", "fixed"), [("NRS1", True), ("NRS2", True), ("NRS2", False)])
def test_irs2_same_bits_as_the_oracle(tile, detector, fixed):
    from jwst.ipc.ipc_corr import do_correction
    from stdatamodels.jwst.datamodels import IPCModel

    shape = (2048, 30)
    meta = metadata(shape, instrument__name="NIRSPEC", instrument__detector=detector, exposure__readpatt="NRSIRS2")
    values = kernel((3, 3), 5) if fixed else kernel((3, 3), 5, shape)
    ramp = Ramp.of(np.random.default_rng(3).normal(1000, 300, (1, 2, 3200, 30)).astype(np.float32))
    result = walk(IPCStep(), meta, {"ipc": FakeReference({"sci": values})}, ramp, tile)
    model = oracle_ramp(ramp, meta)
    model.meta.exposure.nrs_normal, model.meta.exposure.nrs_reference = 16, 4
    assert_same(result, do_correction(model, IPCModel(data=values)))
    assert np.any(result.sci != ramp.sci)


def test_irs2_of_other_detectors_is_refused_when_planning():
    step = IPCStep()
    step.check(metadata((40, 48), exposure__readpatt="NRSRAPID"))
    with pytest.raises(PlanError, match="IRS2"):
        step.check(metadata((40, 48), exposure__readpatt="NRSIRS2RAPID"))


def test_skipped_without_reference():
    assert "IPC" in IPCStep().reference_skip_reason({}, {"ipc": None})
