import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.core.block import Window
from jwstdask.core.errors import ParameterError, PlanError
from jwstdask.engine.passes import some_integrations
from jwstdask.steps.detector import refpix
from jwstdask.steps.detector.refpix import RefPixStep
from tests.steps.fakes import FakeReference, Ramp, metadata, oracle_ramp, walk

ORIENTATIONS = {
    "NRCA1": (-1, 2),
    "NRCB1": (1, -2),
    "NIS": (-2, -1),
    "NRS1": (2, 1),
    "NRS2": (-2, -1),
    "GUIDER2": (2, -1),
}


def geometry(detector, corner, shape, noutputs=4, **more):
    """Metadata of an exposure whose first pixel is ``corner`` (x, y, 0-indexed) in science orientation."""
    name = {"NRC": "NIRCAM", "NIS": "NIRISS", "NRS": "NIRSPEC", "GUI": "FGS", "MIR": "MIRI"}[detector[:3]]
    fast, slow = ORIENTATIONS.get(detector, (1, 2))
    values = {
        "instrument__name": name,
        "instrument__detector": detector,
        "subarray__xstart": corner[0] + 1,
        "subarray__ystart": corner[1] + 1,
        "subarray__fastaxis": fast,
        "subarray__slowaxis": slow,
        "exposure__noutputs": noutputs,
    }
    return metadata(shape, **(values | more))


def exposure(meta, integrations=2, groups=3, seed=0, zeroframe=False):
    """Noise with drifts of amplifiers and rows, outliers, and a mask of the reference pixels, some of them bad."""
    rng = np.random.default_rng(seed)
    shape = meta["meta.subarray.ysize"], meta["meta.subarray.xsize"]
    sci = rng.normal(1000, 9, (integrations, groups, *shape)).astype(np.float32)
    sci += np.arange(shape[1]) // 512 * 3 + np.arange(shape[1]) % 2 * 5 + 8 * np.sin(np.arange(shape[0])[:, None] / 9)
    sci[rng.random(sci.shape) < 0.01] += 500
    y, x = np.indices(shape)
    y, x = y + meta["meta.subarray.ystart"] - 1, x + meta["meta.subarray.xstart"] - 1
    if meta["meta.instrument.name"] == "MIRI":
        border = (x < 4) | (x >= 1028)
    else:
        border = (x < 4) | (x >= 2044) | (y < 4) | (y >= 2044)
    ramp = Ramp.of(sci)
    ramp.pixeldq[border] = dq.REFERENCE_PIXEL
    ramp.pixeldq[rng.random(shape) < 0.1] |= dq.DO_NOT_USE
    if zeroframe:
        ramp.zeroframe = (sci[:, 0] * 0.7).astype(np.float32)
        ramp.zeroframe[:, ::7, ::5] = 0
    return ramp


def oracle(ramp, meta, step, coefficients=None):
    from jwst.refpix.reference_pixels import correct_model
    from stdatamodels.jwst.datamodels import SIRSKernelModel

    model = oracle_ramp(ramp, meta)
    kernel = {name: getattr(step, name) for name in ("refpix_algorithm", "sigreject", "gaussmooth", "halfwidth")}
    kernel["sirs_kernel_model"] = coefficients and SIRSKernelModel(coefficients)
    correct_model(
        model,
        step.odd_even_columns,
        step.use_side_ref_pixels,
        step.side_smoothing_length,
        step.side_gain,
        step.odd_even_rows,
        kernel,
        step.siglimit,
    )
    return model


def compare(ramp, meta, step, tile, coefficients=None):
    references = {"sirskernel": coefficients and FakeReference(asdf=coefficients)}
    result, model = walk(step, meta, references, ramp, tile), oracle(ramp, meta, step, coefficients)
    np.testing.assert_array_equal(result.sci, model.data)
    np.testing.assert_array_equal(result.pixeldq, ramp.pixeldq)
    np.testing.assert_array_equal(result.groupdq, ramp.groupdq)
    if ramp.zeroframe is not None:
        np.testing.assert_array_equal(result.zeroframe, model.zeroframe)
    assert np.any(result.sci != ramp.sci)


@pytest.mark.parametrize("detector", ["NRCA1", "NIS"])
def test_full_frame_same_bits_as_the_oracle(detector):
    meta = geometry(detector, (0, 0), (2048, 2048))
    compare(exposure(meta, 1, 2), meta, RefPixStep(), (700, 900))


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["NRCB1", "NRS1", "GUIDER2"])
def test_full_frame_with_zeroframe_same_bits_as_the_oracle(detector):
    meta = geometry(detector, (0, 0), (2048, 2048))
    compare(exposure(meta, 2, 1, zeroframe=True), meta, RefPixStep(), (700, 900))


@pytest.mark.slow
@pytest.mark.parametrize(("detector", "known"), [("NRCA1", True), ("NIS", True), ("NRCA1", False)])
def test_convolved_side_pixels_same_bits_as_the_oracle(detector, known):
    """A detector without kernels falls back on the running median."""
    meta = geometry(detector, (0, 0), (2048, 2048), subarray__name="FULL")
    rng = np.random.default_rng(6)
    decay = np.exp(-np.arange(1025) / 90)
    tables = {
        name: rng.normal(1, 0.1, (4, 1025)) * decay + 1j * rng.normal(0, 0.1, (4, 1025)) for name in ("gamma", "zeta")
    }
    step = RefPixStep(refpix_algorithm="sirs", gaussmooth=1.5, halfwidth=20)
    coefficients = {detector.lower() if known else "nrcblong": tables}
    compare(exposure(meta, 1, 2, zeroframe=True), meta, step, (700, 900), coefficients)


FOUR_OUTPUTS = [
    # Detector, corner, shape: stripes at one end of the slow direction, at neither, and a part of the columns only.
    ("NRCA1", (0, 0), (64, 2048)),
    ("NRCB1", (0, 1984), (64, 2048)),
    ("NRCA1", (0, 500), (40, 2048)),
    ("NRCB1", (2, 2), (30, 1100)),
]


@pytest.mark.parametrize("tile", [(10**6, 10**6), (17, 300)])
@pytest.mark.parametrize(("detector", "corner", "shape"), FOUR_OUTPUTS)
def test_four_outputs_same_bits_as_the_oracle(detector, corner, shape, tile):
    meta = geometry(detector, corner, shape)
    compare(exposure(meta, zeroframe=True), meta, RefPixStep(), tile)


@pytest.mark.parametrize("corner_of_shape", [((0, 0), (64, 2048), 4), ((0, 0), (64, 64), 1)])
def test_some_integrations_after_the_other_same_bits(corner_of_shape, monkeypatch):
    """Of long series, reference pixels are looked at by some integrations, and blocks hold some of them."""
    corner, shape, noutputs = corner_of_shape
    meta = geometry("NRCA1", corner, shape, noutputs, exposure__nints=5, exposure__ngroups=2)
    ramp, step = exposure(meta, 5, 2, zeroframe=True), RefPixStep()
    prepared, windows, sizes = step.prepare(meta, {}), step.gather_windows(meta), []

    def blocks(integrations=slice(None)):
        found = [some_integrations(ramp.block(window), integrations) for window in windows]
        sizes.append(len(found[0].sci))
        return iter(found)

    whole = step.gather_stream(meta, prepared, blocks)
    monkeypatch.setattr(refpix, "_SAMPLES_HELD", 2 * 2 * sum(np.prod(window.shape) for window in windows))
    parts = step.gather_stream(meta, prepared, blocks)
    assert sizes == [5, 2, 2, 1]
    every = ramp.block(Window.plain(0, shape[0], 0, shape[1]))
    step.apply(every, prepared, whole)
    assert not np.array_equal(every.sci, ramp.sci)
    for integrations in (slice(0, 2), slice(2, 5)):
        some = some_integrations(ramp.block(every.window), integrations)
        step.apply(some, prepared, step.gathered_of(parts, integrations))
        np.testing.assert_array_equal(some.sci, every.sci[integrations])
        np.testing.assert_array_equal(some.zeroframe, every.zeroframe[integrations])


@pytest.mark.parametrize(
    "parameters",
    [
        {"odd_even_columns": False},
        {"use_side_ref_pixels": False},
        {"side_smoothing_length": 4},
        {"side_smoothing_length": 31, "side_gain": 0.7},
        {"siglimit": 1.5},
    ],
    ids=str,
)
def test_parameters_same_bits_as_the_oracle(parameters):
    meta = geometry("NRCA1", (0, 0), (36, 2048))
    compare(exposure(meta, zeroframe=True), meta, RefPixStep(**parameters), (17, 300))


@pytest.mark.parametrize("bad", ["bottom", "left", "odd columns of an amplifier", "right rows", "all"])
def test_missing_reference_pixels_same_bits_as_the_oracle(bad):
    meta = geometry("NRCB1", (0, 1984), (64, 2048))
    ramp = exposure(meta, zeroframe=True)
    where = {
        "bottom": np.s_[60:, :],
        "left": np.s_[:, :4],
        "odd columns of an amplifier": np.s_[60:, 512:1024:2],
        "right rows": np.s_[10:40, 2044:],
        "all": np.s_[:, :],
    }[bad]
    ramp.pixeldq[where] |= dq.DO_NOT_USE
    if bad == "all":
        model = oracle(ramp, meta, RefPixStep())
        np.testing.assert_array_equal(walk(RefPixStep(), meta, {}, ramp).sci, model.data)
        np.testing.assert_array_equal(model.data, ramp.sci)
    else:
        compare(ramp, meta, RefPixStep(), (17, 300))


@pytest.mark.parametrize("level", [0.0, 1000.5])
def test_equal_reference_pixels_same_bits_as_the_oracle(level):
    """Without scatter the mean is kept in float64, which shows in the first group."""
    meta = geometry("NRCA1", (0, 0), (36, 2048))
    ramp = exposure(meta)
    ramp.sci[:, :, :4, 512:1024] = level
    ramp.sci[:, :, :4, 1025:1536:2] = np.float32(level / 3)
    compare(ramp, meta, RefPixStep(), (17, 300))


ONE_OUTPUT = [
    ("NRCA1", (0, 0), (64, 64), "SUB64P"),
    ("NRCB1", (1984, 1984), (64, 64), "SUB64P"),
    ("NRCA3", (1888, 3), (160, 160), "SUB160"),
    ("NIS", (0, 1984), (64, 70), "SUB64"),
    ("NRS1", (0, 100), (32, 2048), "SUB2048"),
    ("NRS2", (500, 300), (32, 32), "SUB32"),
    ("NRS1", (500, 301), (33, 32), "SUB512S"),
    ("GUIDER2", (0, 0), (64, 50), "SUB128CNTR"),
]


@pytest.mark.parametrize("odd_even", [True, False])
@pytest.mark.parametrize(("detector", "corner", "shape", "name"), ONE_OUTPUT)
def test_one_output_same_bits_as_the_oracle(detector, corner, shape, name, odd_even):
    meta = geometry(detector, corner, shape, 1, subarray__name=name)
    compare(exposure(meta, zeroframe=True), meta, RefPixStep(odd_even_columns=odd_even), (17, 30))


def test_one_output_without_reference_pixels_is_left_alone():
    meta = geometry("NRCA1", (800, 800), (64, 64), 1)
    ramp = exposure(meta)
    np.testing.assert_array_equal(walk(RefPixStep(), meta, {}, ramp).sci, ramp.sci)
    np.testing.assert_array_equal(oracle(ramp, meta, RefPixStep()).data, ramp.sci)


@pytest.mark.parametrize("parameters", [{}, {"odd_even_rows": False}, {"siglimit": 1.5}], ids=str)
def test_miri_same_bits_as_the_oracle(parameters):
    meta = geometry("MIRIMAGE", (0, 0), (1024, 1032), subarray__name="FULL")
    compare(exposure(meta), meta, RefPixStep(**parameters), (300, 401))


def test_miri_without_good_pixels_of_an_amplifier_same_bits_as_the_oracle():
    meta = geometry("MIRIMAGE", (0, 0), (1024, 1032), subarray__name="FULL")
    ramp = exposure(meta, 2, 2)
    ramp.pixeldq[::2, 2] |= dq.DO_NOT_USE
    # Only the rounding of taking the first group away and adding it again is left.
    np.testing.assert_array_equal(walk(RefPixStep(), meta, {}, ramp).sci, oracle(ramp, meta, RefPixStep()).data)


def test_only_windows_of_the_border_are_read():
    full = RefPixStep().gather_windows(geometry("NRCA1", (0, 0), (2048, 2048)))
    assert sum(window.shape[0] * window.shape[1] for window in full) == 4 * 4 * 2048
    corner = RefPixStep().gather_windows(geometry("NRCA1", (0, 0), (64, 64), 1))
    assert [window.shape for window in corner] == [(4, 64), (64, 4)]
    assert RefPixStep().gather_windows(geometry("NRCA1", (800, 800), (64, 64), 1)) == []


def test_skip_rules():
    assert "MIRI" in RefPixStep().skip_reason(geometry("MIRIMAGE", (0, 0), (256, 256)))
    assert "fit" in RefPixStep().skip_reason(geometry("NRCA1", (2000, 0), (64, 64)))
    assert RefPixStep().skip_reason(geometry("NRCA1", (0, 0), (2048, 2048))) is None
    assert RefPixStep().reference_skip_reason({}, {"refpix": None, "sirskernel": FakeReference()}) is None


def test_kernels_are_those_of_full_frames():
    step, full = RefPixStep(refpix_algorithm="sirs"), geometry("NRCA1", (0, 0), (2048, 2048), subarray__name="FULL")
    assert step.references_for(full) == ("sirskernel",)
    assert RefPixStep().references_for(full) == ()
    assert step.references_for(geometry("NRCA1", (0, 0), (64, 64))) == ()
    assert step.references_for(geometry("MIRIMAGE", (0, 0), (1024, 1032), subarray__name="FULL")) == ()


def test_what_is_not_available_is_refused_when_planning():
    full = geometry("NRCA1", (0, 0), (2048, 2048), subarray__name="FULL")
    RefPixStep(refpix_algorithm="sirs").check(full)
    RefPixStep(refpix_algorithm="sirs").check(geometry("NRCA1", (0, 0), (64, 64)))
    RefPixStep(refpix_algorithm="sirs").check(geometry("MIRIMAGE", (0, 0), (1024, 1032), subarray__name="FULL"))
    with pytest.raises(ParameterError, match=r"sirs.*FULLP"):
        RefPixStep(refpix_algorithm="sirs").check(geometry("NRCA1", (0, 0), (256, 2048), subarray__name="FULLP"))
    with pytest.raises(PlanError, match="IRS2"):
        # NIRCam has no IRS2 mode.
        RefPixStep().check(full | {"meta.exposure.readpatt": "NRSIRS2"})
