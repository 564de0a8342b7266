"""The jump step: flags and statistics of jwst's JumpStep, for any tiling."""

import dataclasses
import warnings

import numpy as np
import pytest

from jwstdask.core.block import Window
from jwstdask.core.dq import DO_NOT_USE, JUMP_DET, NO_GAIN_VALUE, SATURATED
from jwstdask.core.errors import StepError
from jwstdask.steps.detector.jump import JumpStep
from tests.steps.fakes import TILES, FakeReference, Ramp, metadata, oracle_ramp, walk

KEYS = ("meta.exposure.primary_cosmic_rays", "meta.exposure.extended_emission_events")


def exposure(seed, shape, snowballs=2):
    rng = np.random.default_rng(seed)
    nints, ngroups, ny, nx = shape
    steps = rng.poisson(rng.gamma(1.0, 20.0, (ny, nx)), shape) + (rng.random(shape) < 0.01) * rng.lognormal(5, 2, shape)
    sci = steps.cumsum(axis=1) + rng.normal(0, 4, shape) + 1000
    y, x = np.mgrid[:ny, :nx]
    for _ in range(snowballs * nints):
        integration, group = rng.integers(nints), rng.integers(1, ngroups)
        distance = np.hypot(y - rng.uniform(0, ny), x - rng.uniform(0, nx))
        sci[integration, group:] += 60000 * np.exp(-((distance / rng.uniform(3, 6)) ** 2))
    ramp = Ramp.of(sci.astype(np.float32))
    ramp.groupdq[np.maximum.accumulate(sci > 40000, axis=1)] = SATURATED
    ramp.groupdq[rng.random(shape) < 0.005] |= DO_NOT_USE
    ramp.sci[rng.random(shape) < 0.002] = np.nan
    return ramp


def references(seed, shape):
    rng = np.random.default_rng(seed + 1)
    gain = rng.normal(1.8, 0.1, shape[2:]).astype(np.float32)
    gain[4, 5:8] = np.nan, 0, -2
    return {
        "gain": FakeReference({"sci": gain}),
        "readnoise": FakeReference({"sci": rng.gamma(20, 0.5, shape[2:]).astype(np.float32)}),
    }


def describe(shape, **more):
    values = {
        "exposure__nints": shape[0],
        "exposure__ngroups": shape[1],
        "exposure__nframes": 4,
        "exposure__group_time": 21.47354,
    }
    return metadata(shape[2:], **(values | more))


def oracle(ramp, meta, refs, **parameters):
    """What jwst's step returns for the same exposure."""
    from jwst.jump import JumpStep as OracleStep
    from stdatamodels.jwst.datamodels import GainModel, ReadnoiseModel

    models = {
        "gain": GainModel(data=refs["gain"].arrays["sci"].copy()),
        "readnoise": ReadnoiseModel(data=refs["readnoise"].arrays["sci"].copy()),
    }
    for model in models.values():
        for name in ("xstart", "ystart", "xsize", "ysize", "fastaxis", "slowaxis"):
            model[f"meta.subarray.{name}"] = meta[f"meta.subarray.{name}"]

    class Step(OracleStep):
        def get_reference_file(self, _, kind):
            return models[kind]

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return Step(**parameters).process(oracle_ramp(ramp, meta))


def run(step, meta, refs, ramp, tile):
    """The walk over the tiles with its second round, the revision of the frame, and the metadata."""
    prepared = step.prepare(meta, refs)
    windows = step.gather_windows(meta)
    gathered = step.gather(meta, prepared, [ramp.block(window) for window in windows]) if windows else None
    result = walk(step, meta, refs, ramp, tile)
    walks = 1
    while (better := step.again(meta, prepared, gathered, result.tally)) is not None:
        gathered, walks = better, walks + 1
        knowing = _Knowing(**{item.name: getattr(step, item.name) for item in dataclasses.fields(step)})
        result = walk(knowing, meta | {"better": better}, refs, ramp, tile)
    if step.frame_gather(meta, prepared):
        frame = ramp.block(Window.plain(0, ramp.sci.shape[2], 0, ramp.sci.shape[3])) if step.frame_arrays else None
        if frame is not None:
            frame.pixeldq[...] = result.pixeldq
        step.revise(meta, prepared, result.groupdq, frame)
    return result, step.finish(meta, prepared, result.tally), walks


class _Knowing(JumpStep):
    """The step on its second walk."""

    def gather_windows(self, meta):
        return [Window.plain(0, 1, 0, 1)]

    def gather(self, meta, prepared, blocks):
        return meta["better"]


def assert_agrees(result, updates, model):
    np.testing.assert_array_equal(result.groupdq, model.groupdq)
    np.testing.assert_array_equal(result.pixeldq, model.pixeldq)
    for key in KEYS:
        assert updates.get(key) == model[key]


SHAPES = [(1, 3, 70, 72), (2, 6, 70, 90), (1, 12, 70, 72), (3, 4, 64, 80)]
PARAMETERS = [
    {},
    {"expand_large_events": True},
    {"expand_large_events": True, "min_jump_area": 15.0, "min_sat_area": 15.0, "snowball_time_masked_next_int": 50},
    {"expand_large_events": True, "mask_snowball_core_next_int": False, "edge_size": 0, "sat_expand": 3},
    {
        "after_jump_flag_dn1": 10.0,
        "after_jump_flag_time1": 45.0,
        "after_jump_flag_dn2": 900,
        "after_jump_flag_time2": 70,
    },
    {"find_showers": True, "extend_min_area": 25, "max_shower_amplitude": 0.01, "time_masked_after_shower": 50},
    {"find_showers": True, "extend_min_area": 25, "expand_large_events": True, "extend_ellipse_expand_ratio": 2.0},
    {"flag_4_neighbors": False, "rejection_threshold": 5.0, "expand_large_events": True, "max_extended_radius": 8},
    {"minimum_sigclip_groups": 3, "min_diffs_single_pass": 3, "rejection_threshold": 1.0},
    {"only_use_ints": False, "minimum_sigclip_groups": 10, "rejection_threshold": 1.5},
    # Without effect in the oracle, too.
    {"minimum_groups": 9, "use_ellipses": True, "maximum_cores": "none", "expand_large_events": True},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("parameters", PARAMETERS, ids=range(len(PARAMETERS)))
def test_same_flags_and_statistics_as_the_oracle(parameters, shape):
    seed = len(parameters) + shape[1]
    ramp, refs, meta = exposure(seed, shape), references(seed, shape), describe(shape)
    model = oracle(ramp, meta, refs, **parameters)
    step = JumpStep(**parameters)
    for tile in TILES:
        result, updates, walks = run(step, meta, refs, ramp, tile)
        assert_agrees(result, updates, model)
        assert walks == 1
    assert np.any(result.groupdq & ~ramp.groupdq & JUMP_DET)
    assert np.all(result.pixeldq[4, 5:8] == NO_GAIN_VALUE | DO_NOT_USE)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("ngroups", [3, 4, 12, 13])
def test_groups_unusable_in_the_whole_frame(ngroups, tile):
    # As MIRI's: the last group everywhere, the first one except at a bright pixel that the sample rows miss.
    shape = (2, ngroups, 70, 72)
    ramp, refs, meta = exposure(ngroups, shape), references(ngroups, shape), describe(shape)
    ramp.groupdq[:, [0, -1]] |= DO_NOT_USE
    result, updates, walks = run(JumpStep(), meta, refs, ramp, tile)
    assert_agrees(result, updates, oracle(ramp, meta, refs))
    assert walks == 1
    ramp.groupdq[:, 0, 2, 3] = 0
    result, updates, walks = run(JumpStep(), meta, refs, ramp, tile)
    assert_agrees(result, updates, oracle(ramp, meta, refs))
    # Only with 12 groups does it matter: 9 usable differences are searched iteratively, 10 in a single pass; and with
    # 4 groups: two usable groups are not searched at all.
    assert walks == (2 if ngroups in (4, 12) else 1)


@pytest.mark.parametrize("tile", TILES)
def test_planes_flooded_with_jumps_take_a_second_walk(tile):
    shape = (30, 4, 40, 50)
    ramp, refs, meta = exposure(3, shape, snowballs=0), references(3, shape), describe(shape)
    refs["gain"].arrays["sci"][4, 5:8] = 1.8
    ramp.sci = np.nan_to_num(ramp.sci, nan=1000)
    ramp.groupdq[:] = 0
    ramp.sci[7, 2:] += 30000
    ramp.groupdq[7, 2, :16, :24] = DO_NOT_USE
    step = JumpStep(minimum_sigclip_groups=20)
    model = oracle(ramp, meta, refs, minimum_sigclip_groups=20)
    result, updates, walks = run(step, meta, refs, ramp, tile)
    assert_agrees(result, updates, model)
    assert walks == 2
    assert not np.any(result.groupdq[7, 2] & JUMP_DET)


@pytest.mark.parametrize("amplitude", [0.01, 0.05])
def test_shower_amplitude_counts_if_not_as_jwst(monkeypatch, amplitude):
    """The oracle finds the same once its amplitude, of electrons in a second, is changed in its code."""
    from stcal.jump.jump_class import JumpData

    shape = SHAPES[1]
    ramp, refs, meta = exposure(7, shape), references(7, shape), describe(shape)
    parameters = {"find_showers": True, "extend_min_area": 25}
    original, gain = JumpData.__init__, np.nanmedian(refs["gain"].arrays["sci"])

    def changed(self, *args, **more):
        original(self, *args, **more)
        self.max_shower_amplitude = amplitude * float(gain)

    standard, *_ = run(JumpStep(**parameters), meta, refs, ramp, TILES[0])
    monkeypatch.setattr(JumpData, "__init__", changed)
    model = oracle(ramp, meta, refs, **parameters)
    step = JumpStep(**parameters, max_shower_amplitude=amplitude, as_jwst=False)
    result, updates, _ = run(step, meta, refs, ramp, TILES[1])
    assert_agrees(result, updates, model)
    assert (result.groupdq != standard.groupdq).any()


@pytest.mark.parametrize(("minimum_groups", "searched"), [(6, True), (7, False)])
def test_minimum_groups_count_if_not_as_jwst(minimum_groups, searched):
    shape = (2, 6, 70, 72)
    ramp, refs, meta = exposure(1, shape, snowballs=0), references(1, shape), describe(shape)
    step = JumpStep(minimum_groups=minimum_groups, as_jwst=False)
    result, updates, _ = run(step, meta, refs, ramp, TILES[1])
    assert bool((result.groupdq & ~ramp.groupdq & JUMP_DET).any()) is searched
    assert (updates["meta.exposure.primary_cosmic_rays"] > 0) is searched


def test_showers_need_the_ramp_of_the_whole_frame():
    shape = (1, 4, 20, 20)
    step, meta = JumpStep(find_showers=True), describe(shape)
    assert step.frame_arrays == ("sci", "pixeldq")
    with pytest.raises(StepError, match="find_showers=False"):
        step.revise(meta, step.prepare(meta, references(0, shape)), np.zeros(shape, np.uint8))


@pytest.mark.parametrize("ngroups", [1, 2])
def test_two_groups_or_fewer_are_skipped(ngroups):
    shape = (2, ngroups, 20, 20)
    ramp, refs, meta = exposure(0, (2, 3, 20, 20)), references(0, shape), describe(shape)
    ramp = Ramp.of(ramp.sci[:, :ngroups])
    assert "more than two groups" in JumpStep().skip_reason(meta)
    assert JumpStep().skip_reason(describe((2, 3, 20, 20))) is None
    assert oracle(ramp, meta, refs).meta.cal_step.jump == "SKIPPED"


def test_parameters_are_those_of_the_oracle():
    from jwst.jump import JumpStep as OracleStep

    step, theirs = JumpStep(), OracleStep()
    names = [line.split("=")[0].strip() for line in OracleStep.spec.splitlines() if "=" in line]
    for name in names:
        assert getattr(step, name) == getattr(theirs, name), name
