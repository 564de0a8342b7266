"""refpix on IRS2 readouts beside the oracle. Its internal functions take frames of any width where they can."""

from types import SimpleNamespace

import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.core.block import KeptRows, Window
from jwstdask.core.errors import PlanError, ReferenceFileError
from jwstdask.kernels.irs2 import Readout
from jwstdask.steps.detector import irs2
from jwstdask.steps.detector.ipc import IPCStep
from jwstdask.steps.detector.refpix import RefPixStep
from tests.steps.fakes import FakeReference, Ramp, assert_same, metadata, oracle_ramp, walk

READ_NOISE = 6.0
"""Scatter of the simulated samples [DN]."""

LISTED = {
    "output": np.array([1, 1, 2, 2, 3, 3, 4, 4], np.int16),
    "odd_even": np.array([1, 2] * 4, np.int16),
    # Neighbours in both directions, both ends of an output, runs, none.
    "mask": np.array([0b1011, 0b1011, 1 << 31, 7, 0, 1 << 15, 1 << 31, (1 << 31) | 1 | 0b1110000], np.uint32),
}


def metadata_of(detector, **more):
    axes = {"NRS1": (2, 1), "NRS2": (-2, -1)}[detector]
    values = {
        "instrument__name": "NIRSPEC",
        "instrument__detector": detector,
        "subarray__name": "FULL",
        "subarray__fastaxis": axes[0],
        "subarray__slowaxis": axes[1],
        "exposure__readpatt": "NRSIRS2RAPID",
        "exposure__nrs_normal": 16,
        "exposure__nrs_reference": 4,
        "exposure__noutputs": 5,
    }
    return metadata((2048, 2048), **(values | more))


def exposure(detector, integrations, groups, seed, width=2048):
    """Samples with noise that drifts and oscillates in time, sources, and bad reference samples of several kinds."""
    readout = Readout(flipped=detector == "NRS2")
    rng = np.random.default_rng(seed)
    lines = np.arange(width)[::-1] if readout.flipped else np.arange(width)
    time = readout.time[:, np.newaxis] + readout.line * lines
    sci = np.empty((integrations, groups, readout.rows, width), np.float32)
    for each in np.ndindex(integrations, groups):
        phase = rng.random(3) * 6.28
        drift = 5 * np.sin(2 * np.pi * time / 3000 + phase[0]) + 8 * np.sin(2 * np.pi * time / 4e5 + phase[1])
        drift += 3 * np.sin(2 * np.pi * time * 0.4999 + phase[2]) + 1e-5 * time * rng.normal()
        values = 1000 + rng.normal(0, 20) + drift + readout.output[:, np.newaxis] * rng.normal(0, 3)
        values += rng.normal(0, READ_NOISE, time.shape)
        values[readout.science] += 50 * each[1] * (rng.random((2048, width)) < 0.05)
        sci[each] = np.round(values)
    ramp = Ramp.of(sci)
    samples = np.flatnonzero(readout.interleaved)
    # High, and noisy, in one integration; known before: a run, the last of an output, a single sample.
    sci[0][:, samples[200:202]] += 40
    sci[-1][:, samples[300]] += np.round(rng.normal(0, 40, (groups, width))).astype(np.float32)
    for part in (slice(400, 402), slice(10, 18), slice(254, 256)):
        ramp.pixeldq[samples[part]] |= dq.BAD_REF_PIXEL
    ramp.pixeldq[samples[136:138], width // 2] |= dq.BAD_REF_PIXEL
    # Reference pixels of the border, whose rows are replaced as a whole: the first rows of the detector, some in the
    # middle with one, two and no good rows a jump away, one beside reference samples, the last.
    pixels = readout.science[[0, 1, 700, 900, 916, 1108, 1124, 1140, 1032, 1048, 1064, 2047]]
    ramp.pixeldq[pixels, (np.arange(pixels.size) % 8 - 4) % width] |= dq.BAD_REF_PIXEL
    ramp.pixeldq[rng.random(ramp.pixeldq.shape) < 0.001] |= dq.DO_NOT_USE
    ramp.groupdq[rng.random(sci.shape) < 0.001] = dq.JUMP_DET
    return ramp


def weights(seed):
    """Weights that, unlike those of a real filter, have no symmetry.

    Those of the interleaved samples fall with frequency; those of the reference output do not.
    """
    rng = np.random.default_rng(seed)
    samples = 712 * 2048
    frequency = np.minimum(np.arange(samples), samples - np.arange(samples))
    table = {}
    for name, scale, strength in (("alpha", 2e6, 0.3), ("beta", 5e4, 0.6)):
        for k in range(4):
            values = strength * np.exp(-frequency / scale) + 0.02
            table[f"{name}_{k}"] = (
                (values[:, np.newaxis] * rng.normal((1, 0), 0.1, (samples, 2))).astype(np.float32).ravel()
            )
    return np.rec.fromarrays(list(table.values()), names=list(table))


def reference(seed, listed=True):
    tables = {"irs2": weights(seed)}
    if listed:
        tables["dq"] = LISTED
    return FakeReference(tables=tables)


class Columns(dict):
    """A table as the oracle reads it."""

    def field(self, name):
        return self[name]


def oracle(ramp, meta, step, references):
    """As RefPixStep does, with the reference in memory."""
    from jwst.refpix import irs2_subtract_reference, reference_pixels

    model = oracle_ramp(ramp, meta)
    irs2_subtract_reference.flag_bad_refpix(model, n_sigma=step.ovr_corr_mitigation_ftr, flag_only=True)
    if step.irs2_mean_subtraction:
        kernel = {name: getattr(step, name) for name in ("refpix_algorithm", "sigreject", "gaussmooth", "halfwidth")}
        kernel["sirs_kernel_model"] = None
        columns = step.odd_even_columns
        reference_pixels.correct_model(model, columns, False, 11, 1.0, True, kernel, step.siglimit)
    irs2_subtract_reference.flag_bad_refpix(model, replace_only=True)
    if references["refpix"] is None:
        return model
    tables = references["refpix"].tables
    names = tables["irs2"].dtype.names
    found = SimpleNamespace(irs2_table=Columns({name: tables["irs2"][name] for name in names}))
    if "dq" in tables:
        found.dq_table = Columns(tables["dq"])
    return irs2_subtract_reference.correct_model(model, found, preserve_refpix=step.preserve_irs2_refpix)


CASES = [
    # The first two are what pipelines run.
    ("NRS1", 2, 2, {}, True),
    ("NRS2", 1, 2, {}, True),
    ("NRS2", 1, 2, {"irs2_mean_subtraction": True}, False),
    ("NRS1", 1, 2, {"preserve_irs2_refpix": True, "ovr_corr_mitigation_ftr": 2.0}, True),
    ("NRS2", 1, 2, {"preserve_irs2_refpix": True, "irs2_mean_subtraction": True, "odd_even_columns": False}, True),
    ("NRS1", 1, 1, {}, True),
]


@pytest.mark.slow
@pytest.mark.parametrize(("detector", "integrations", "groups", "parameters", "listed"), CASES)
def test_same_as_the_oracle(detector, integrations, groups, parameters, listed):
    meta = metadata_of(detector)
    ramp = exposure(detector, integrations, groups, seed=groups)
    step, references = RefPixStep(**parameters), {"refpix": reference(5, listed)}
    result = walk(step, meta, references, ramp, (70, 900))
    model = oracle(ramp, meta, step, references)
    np.testing.assert_array_equal(result.pixeldq, model.pixeldq)
    np.testing.assert_array_equal(result.groupdq, model.groupdq)
    # The transforms of both are in float32, in another order: some 1e-6 DN here, far below the noise; where that meets
    # a rounding limit, the last bit of the sum with the mean of about 1000 DN differs.
    difference = np.abs(result.sci - model.data)
    assert np.all(difference <= 1e-5 * READ_NOISE + np.spacing(np.abs(model.data)))
    assert difference.mean() < 1e-6 * READ_NOISE
    rows = step.kept_rows(meta)
    before = ramp.sci if step.preserve_irs2_refpix else ramp.sci[:, :, rows]
    if groups > 1:
        assert np.std((result.sci - before)[0, 0]) > 1


@pytest.mark.parametrize(("detector", "levels"), [("NRS1", True), ("NRS2", False)])
def test_bad_samples_are_replaced_even_without_a_reference(detector, levels):
    meta, references = metadata_of(detector), {"refpix": None}
    ramp = exposure(detector, 1, 1, seed=7)
    step = RefPixStep(irs2_mean_subtraction=levels)
    result = walk(step, meta, references, ramp, (70, 900))
    assert_same(result, oracle(ramp, meta, step, references))
    changed = (result.sci != ramp.sci).any(axis=(0, 1, 3))
    assert changed.all() if levels else 20 < changed.sum() < 200


@pytest.mark.parametrize("tile", [(64, 512), (300, 2048)])
def test_same_bits_for_all_tiles(tile):
    meta = metadata_of("NRS2")
    ramp, references = exposure("NRS2", 1, 2, 4), {"refpix": reference(6)}
    first, second = (walk(RefPixStep(), meta, references, ramp, shape) for shape in ((2048, 2048), tile))
    for name in ("sci", "groupdq", "pixeldq"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    # Pixels have less of the noise that all outputs share.
    rows = RefPixStep().kept_rows(meta)
    assert first.sci.shape == (1, 2, 2048, 2048)
    changes = [np.diff(sci, axis=1)[0, 0][:, 4:2044] for sci in (ramp.sci[:, :, rows], first.sci)]
    medians = [np.std(np.median(change, axis=0)) for change in changes]
    assert medians[1] < 0.7 * medians[0]


@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
@pytest.mark.parametrize("seed", range(3))
def test_bad_samples_are_those_of_the_oracle(detector, seed):
    from jwst.refpix.irs2_subtract_reference import clobber_ref, flag_bad_refpix, make_irs2_mask

    width = 24
    meta = metadata_of(detector)
    ramp = exposure(detector, 2, 3, 30 + seed, width)
    readout = irs2.readout_of(meta)
    prepared = irs2.Prepared(readout, irs2.Weights(reference(0)), 2.5, False, False, True, 3.0)
    flagged = ((ramp.pixeldq & dq.BAD_REF_PIXEL) != 0).any(axis=1)
    held = ramp.sci[:, :, readout.held].copy()
    bad = irs2._bad_rows(prepared, held, flagged)
    index = np.full(readout.rows, -1)
    index[readout.held] = np.arange(readout.held.size)
    for plan in irs2._replacements(prepared, bad):
        irs2.irs2.replace_rows(held, plan, index)

    model = oracle_ramp(ramp, meta)
    flag_bad_refpix(model, n_sigma=2.5, flag_only=True)
    found = ((model.pixeldq & dq.BAD_REF_PIXEL) != 0).any(axis=1)
    np.testing.assert_array_equal(bad, found)
    assert bad.sum() > flagged.sum()
    flag_bad_refpix(model, replace_only=True)
    data = np.swapaxes(model.data, 2, 3)
    data, known = (data, found) if detector == "NRS1" else (data[:, :, ::-1, ::-1], found[::-1])
    interleaved = ~make_irs2_mask(3200, 2048, 16, 4)
    interleaved[:640] = interleaved[1280:1920]
    clobber_ref(data, LISTED["output"], LISTED["odd_even"], LISTED["mask"], known.copy(), interleaved)
    # Means of two values, in float32 as the oracle's: the same bits.
    np.testing.assert_array_equal(held, model.data[:, :, readout.held])


@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
def test_rows_of_pixels_are_those_of_the_oracle(detector):
    from jwst.refpix.irs2_subtract_reference import make_irs2_mask

    mask = make_irs2_mask(3200, 2048, 16, 4)
    rows = np.flatnonzero(mask if detector == "NRS1" else mask[::-1])
    np.testing.assert_array_equal(RefPixStep().kept_rows(metadata_of(detector)), rows)


def test_rows_without_a_sample_of_pixels_give_empty_blocks():
    readout = Readout()
    ramp = Ramp.of(np.zeros((1, 1, 3200, 8), np.float32), zeroframe=np.ones((1, 3200, 8), np.float32))
    block = ramp.block(Window(640, 700, 0, 8, 650, 690, 2, 6))
    irs2.without_references(block, readout)
    assert block.window == Window(0, 48, 0, 8, 8, 40, 2, 6)
    assert block.sci.shape == block.groupdq.shape == (1, 1, 48, 8)
    assert block.pixeldq.shape == (48, 8)
    assert block.zeroframe.shape == (1, 48, 8)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_windows_of_the_file(flipped, whole):
    readout = Readout(flipped=flipped)
    frame = KeptRows(readout.science, readout.rows, whole)
    covered = np.zeros(readout.rows, int)
    for start in range(0, 2048, 96):
        stop = min(start + 96, 2048)
        outer = frame.outer(Window.around(start, stop, 0, 4, 3, (2048, 4)))
        ramp = Ramp.of(np.zeros((1, 1, readout.rows, 4), np.float32))
        block = ramp.block(outer)
        covered[outer.inner_y0 : outer.inner_y1] += 1
        irs2.without_references(block, readout)
        assert block.window == Window.around(start, stop, 0, 4, 3, (2048, 4))
    assert (covered[readout.science] == 1).all()
    assert covered.max() == 1
    assert (covered.min() == 1) == whole


@pytest.mark.parametrize("flipped", [False, True])
def test_windows_of_pixels_hold_the_neighbours_that_ipc_needs(flipped):
    # Rows that are replaced take what ipc made of their sources.
    readout, halo = Readout(flipped=flipped), IPCStep().halo
    science = readout.science
    whole = [window for window in irs2.gather_windows(readout) if window != Window.plain(*_outer(window))]
    seen = []
    for window in whole:
        first, last = np.searchsorted(science, (window.inner_y0, window.inner_y1))
        seen += list(science[first:last])
        needed = science[max(first - halo, 0) : last + halo]
        assert window.y0 <= needed[0] and needed[-1] < window.y1
        assert (window.x0, window.x1) == (0, 2048)
    assert seen == list(science)


def _outer(window):
    return window.y0, window.y1, window.x0, window.x1


def test_skip_rules_and_references():
    meta = metadata_of("NRS1")
    step = RefPixStep()
    assert step.skip_reason(meta) is None
    assert step.references_for(meta) == ("refpix",)
    assert "refpix" in step.reference_skip_reason(meta, {"refpix": None})
    assert step.drops_rows(meta)
    assert not RefPixStep(preserve_irs2_refpix=True).drops_rows(meta)
    assert not step.drops_rows(meta | {"meta.exposure.readpatt": "NRSRAPID"})
    assert step.kept_rows(meta | {"meta.exposure.readpatt": "NRS"}) is None


def test_a_reference_for_another_readout_is_refused():
    names = [f"{name}_{k}" for name in ("alpha", "beta") for k in range(4)]
    table = np.rec.fromarrays([np.zeros(10, np.float32)] * 8, names=names)
    weights = irs2.Weights(FakeReference(tables={"irs2": table}))
    with pytest.raises(ReferenceFileError, match="10 rows"):
        next(weights.of("beta", Readout()))
    with pytest.raises(PlanError, match="13 pixels"):
        RefPixStep().check(metadata_of("NRS1", exposure__nrs_normal=13))
