"""Two-point differences: flags identical to stcal's and to a slow statement of the method."""

import types
import warnings

import numpy as np
import pytest
from stcal.jump.jump import detect_jumps_data
from stcal.jump.jump_class import JumpData
from stdatamodels.jwst.datamodels import dqflags

from jwstdask.core.dq import DO_NOT_USE, JUMP_DET, SATURATED
from jwstdask.kernels.jump import (
    ITERATIVE,
    NONE,
    SIGMA_CLIP,
    SINGLE_PASS,
    Detection,
    choose_regime,
    detect_jumps,
    whole_planes,
)

NFRAMES = 4
LIMITS = {"min_diffs_single_pass": 10, "minimum_sigclip_groups": 100, "only_use_ints": True}


def ramps(seed, shape, hits=0.05, flags=0.05, nan=0.005):
    """Ramps with noise, cosmic rays of all sizes, saturation, unusable groups, NaN, and odd gains and read noises."""
    rng = np.random.default_rng(seed)
    nints, ngroups, ny, nx = shape
    flux = rng.gamma(0.5, 20.0, (ny, nx)) * rng.choice([0, 1, 10], (ny, nx))
    steps = rng.poisson(flux * 1.7, shape) / 1.7 + (rng.random(shape) < hits) * rng.lognormal(5, 2, shape)
    sci = (steps.cumsum(axis=1) + rng.normal(0, 4, shape) + 1000).astype(np.float32)
    if seed % 3 == 0:
        sci = np.round(sci)  # ties between differences
    groupdq = np.zeros(shape, np.uint8)
    first = rng.integers(0, ngroups + 1, (nints, 1, ny, nx))
    saturates = rng.random((nints, 1, ny, nx)) < 2 * flags
    groupdq[(np.arange(ngroups)[:, None, None] >= first) & saturates] = SATURATED
    for flag in (DO_NOT_USE, JUMP_DET, 32):
        groupdq[rng.random(shape) < flags / (1 if flag == DO_NOT_USE else 5)] |= flag
    sci[rng.random(shape) < nan] = np.nan
    gain = rng.normal(1.7, 0.1, (ny, nx)).astype(np.float32)
    readnoise = rng.gamma(20, 0.5, (ny, nx)).astype(np.float32)
    gain.flat[:3] = np.nan, 0, -1
    readnoise.flat[3:5] = 0, np.nan
    return sci, groupdq, gain, readnoise


def detection_of(sci, groupdq, gain, limits=LIMITS, after=((0, 0), (0, 0)), **settings):
    regime = choose_regime(sci.shape[1], whole_planes(groupdq, DO_NOT_USE).sum(axis=1), **limits)
    typical = np.nanmedian(gain)
    electrons = tuple(float(dn * typical) for dn, _ in after)
    only_use_ints = limits["only_use_ints"]
    return Detection(
        regime,
        NFRAMES,
        after_jump_electrons=electrons,
        after_jump_groups=tuple(groups for _, groups in after),
        only_use_ints=only_use_ints,
        **settings,
    )


def oracle(sci, groupdq, gain, readnoise, limits=LIMITS, after=((0, 0), (0, 0)), **settings):
    detection = Detection("", NFRAMES, **settings)
    exposure = types.SimpleNamespace(nframes=NFRAMES)
    model = types.SimpleNamespace(
        data=sci.copy(),
        groupdq=groupdq.copy(),
        pixeldq=np.zeros(sci.shape[2:], np.uint32),
        meta=types.SimpleNamespace(exposure=exposure),
    )
    data = JumpData(model, gain.copy(), readnoise.copy(), dqflags.pixel)
    data.set_detection_settings(
        detection.rejection_threshold,
        detection.three_group_rejection_threshold,
        detection.four_group_rejection_threshold,
        detection.max_jump_to_flag_neighbors,
        detection.min_jump_to_flag_neighbors,
        detection.flag_4_neighbors,
    )
    data.set_after_jump(*after[0], *after[1])
    data.max_cores = "1"
    data.min_diffs_single_pass = limits["min_diffs_single_pass"]
    data.set_sigma_clipping_info(3, limits["minimum_sigclip_groups"], limits["only_use_ints"])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        flags, _, primary, _ = detect_jumps_data(data)
    return flags, primary


CASES = {
    "three groups": ((1, 3, 20, 33), ITERATIVE, {}),
    "four groups": ((1, 4, 20, 33), ITERATIVE, {}),
    "integrations": ((3, 5, 17, 70), ITERATIVE, {}),
    "ten groups": ((1, 10, 33, 300), ITERATIVE, {}),
    "low threshold": ((1, 9, 20, 40), ITERATIVE, {"rejection_threshold": 2.0, "four_group_rejection_threshold": 1.0}),
    "zero threshold": ((1, 6, 12, 20), ITERATIVE, {"rejection_threshold": 0.0}),
    "neighbours of all": ((2, 7, 20, 40), ITERATIVE, {"min_jump_to_flag_neighbors": 0.0}),
    "no neighbours": ((2, 7, 20, 40), ITERATIVE, {"flag_4_neighbors": False}),
    "groups after": ((2, 10, 20, 40), ITERATIVE, {"after": ((50.0, 2), (300.0, 5))}),
    "long after": ((1, 60, 12, 20), SINGLE_PASS, {"after": ((2000.0, 55), (0.0, 0))}),
    "single pass": ((2, 20, 20, 45), SINGLE_PASS, {}),
    "single pass, groups after": ((1, 12, 20, 65), SINGLE_PASS, {"after": ((0.0, 1), (100.0, 40))}),
    "many integrations": ((40, 9, 6, 35), ITERATIVE, {}),
    "many integrations, single pass": ((20, 15, 6, 35), SINGLE_PASS, {"min_jump_to_flag_neighbors": 4.0}),
    "sigma clip": ((110, 4, 5, 70), SIGMA_CLIP, {}),
    "sigma clip, many hits": ((300, 3, 4, 20), SIGMA_CLIP, {}),
    "sigma clip, few": ((31, 4, 12, 20), SIGMA_CLIP, {"limits": LIMITS | {"minimum_sigclip_groups": 5}}),
    "sigma clip, all groups": (
        (6, 6, 12, 70),
        SIGMA_CLIP,
        {"limits": LIMITS | {"minimum_sigclip_groups": 20, "only_use_ints": False}, "after": ((50.0, 2), (0.0, 0))},
    ),
    "sigma clip, low threshold": (
        (9, 4, 20, 20),
        SIGMA_CLIP,
        {"limits": LIMITS | {"minimum_sigclip_groups": 5}, "rejection_threshold": 1.0},
    ),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", CASES)
def test_flags_and_counts_are_those_of_the_oracle(case, seed):
    shape, regime, settings = CASES[case]
    arrays = ramps(seed, shape, hits=(0.002, 0.05, 0.3, 0.05)[seed], nan=(0.005, 0)[seed % 2])
    detection = detection_of(*arrays[:3], **settings)
    assert detection.regime == regime
    inputs = [array.copy() for array in arrays]
    flags, primary, _ = detect_jumps(*arrays, detection, cleared=None)
    expected, expected_primary = oracle(*arrays, **settings)
    np.testing.assert_array_equal(flags, expected)
    assert primary == expected_primary
    assert np.any(flags & ~arrays[1] & JUMP_DET)
    for array, before in zip(arrays, inputs):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("usable", [1, 2, 3, 4])
def test_unusable_groups_of_the_whole_frame_choose_the_regime(usable):
    arrays = ramps(usable, (2, 6, 16, 20))
    arrays[1][0, usable:] |= DO_NOT_USE
    detection = detection_of(*arrays[:3])
    assert detection.regime == (NONE if usable < 3 else ITERATIVE)
    flags, primary, _ = detect_jumps(*arrays, detection)
    expected, expected_primary = oracle(*arrays)
    np.testing.assert_array_equal(flags, expected)
    assert expected_primary == (-99 if usable < 3 else primary)


def test_regime_turns_on_the_worst_integration():
    shape = (2, 13, 8, 9)
    arrays = ramps(5, shape, flags=0)
    for missing, regime in ((0, SINGLE_PASS), (2, SINGLE_PASS), (3, ITERATIVE)):
        arrays[1][1, 1 : 1 + missing] = DO_NOT_USE
        detection = detection_of(*arrays[:3])
        assert detection.regime == regime
        np.testing.assert_array_equal(detect_jumps(*arrays, detection)[0], oracle(*arrays)[0])


def test_planes_flooded_with_jumps_are_cleared():
    limits = LIMITS | {"minimum_sigclip_groups": 20}
    arrays = ramps(2, (30, 4, 12, 13), hits=0, flags=0, nan=0)
    arrays[0][7, 2:] += 5000
    arrays[1][7, 2, 0, :5] = DO_NOT_USE
    arrays[2][arrays[2] <= 0] = 1.7
    arrays[2][np.isnan(arrays[2])] = 1.7
    flags, primary, flooded = detect_jumps(*arrays, detection_of(*arrays[:3], limits=limits), cleared=None)
    assert np.argwhere(flooded).tolist() == [[7, 2]]
    expected, expected_primary = oracle(*arrays, limits=limits)
    np.testing.assert_array_equal(flags, expected)
    assert primary == expected_primary
    assert not np.any(flags[7, 2] & JUMP_DET)


def obvious(sci, groupdq, gain, readnoise, threshold, threshold3, threshold2):
    """The iterative regime for each pixel in turn, as the method is described."""
    flags = groupdq.copy()
    for y, x in np.ndindex(sci.shape[2:]):
        ramp = sci[:, :, y, x] * gain[y, x]
        ramp[groupdq[:, :, y, x] & (SATURATED | DO_NOT_USE) != 0] = np.nan
        size = np.abs(np.diff(ramp, axis=1)).astype(float)
        noise = np.square(readnoise[y, x] * gain[y, x]).astype(float) / NFRAMES
        first = True
        while np.isfinite(size).sum() >= 2:
            good = size[np.isfinite(size)]
            if len(good) >= 4:
                limit, median = threshold, np.median(good[good < good.max()]) if np.ptp(good) else np.nan
            elif len(good) == 3:
                limit, median = threshold3, np.median(good)
            else:
                limit, median = threshold2, good.min()
            median = median if first else float(np.float32(median))
            sigma = np.sqrt(median + noise)
            ratio = np.abs((size - median).astype(np.float32)) / sigma if sigma > 0 else np.full(size.shape, np.nan)
            if not np.nanmax(np.where(np.isnan(ratio), -1, ratio)) > limit:
                break
            worst = ratio == np.nanmax(ratio)
            flags[:, 1:, y, x][worst] |= JUMP_DET
            size[worst] = np.nan
            first = False
    flags[(flags & JUMP_DET != 0) & (flags & (SATURATED | DO_NOT_USE) != 0)] &= ~np.uint8(JUMP_DET)
    return flags


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(1, 3, 6, 9), (1, 7, 6, 9), (2, 4, 5, 8), (3, 6, 5, 8)])
def test_iterative_search_is_the_method_as_described(shape, seed):
    arrays = ramps(seed, shape, hits=0.15)
    detection = Detection(ITERATIVE, NFRAMES, flag_4_neighbors=False)
    flags, _, _ = detect_jumps(*arrays, detection)
    np.testing.assert_array_equal(flags, obvious(*arrays, 4.0, 5.0, 6.0))


def clipped(values, threshold):
    """Where sigma clipping about the median clips, as the method is described."""
    kept = np.isfinite(values)
    lower, upper = -np.inf, np.inf
    for _ in range(5):
        good = values[kept].astype(float)
        if not good.size:
            break
        lower, upper = np.median(good) + np.array([-1, 1]) * threshold * np.std(good)
        kept, before = kept & (values >= lower) & (values <= upper), kept
        if (kept == before).all():
            break
    return np.isfinite(values) & ((values < lower) | (values > upper))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "kind", ["noise", "hits", "tails", "steps", "infinities", "missing", "tiny", "huge", "closest"]
)
def test_sigma_clipping_is_the_method_as_described(kind, seed):
    rng = np.random.default_rng(seed)
    shape = (rng.integers(20, 400), 2, 3, 170)
    difference = rng.normal(rng.normal(0, 50, shape[2:]), 7, (shape[0], *shape[2:]))
    if kind == "hits":
        difference += (rng.random(difference.shape) < 0.02) * rng.lognormal(3, 2, difference.shape)
    elif kind == "tails":
        difference += rng.standard_cauchy(difference.shape)
    elif kind == "steps":
        difference = np.round(difference / 8) * 8
    elif kind == "closest":
        # One value about as far from the median as the threshold, by 30, is: 1e-3 to 1e-7 of that more or less.
        column = difference.reshape(len(difference), -1)
        column[0] = 1e4
        for _ in range(60):
            column[0] = np.median(column, axis=0) + 4 * np.std(column, axis=0)
        column[0] += 0.03 * rng.choice([-1, 1], column.shape[1]) * 10.0 ** -rng.integers(0, 5, column.shape[1])
    sci = np.zeros(shape)
    sci[:, 1] = difference * {"tiny": 1e-21, "huge": 1e20}.get(kind, 1)
    sci = sci.astype(np.float32)
    groupdq = np.zeros(shape, np.uint8)
    if kind == "infinities":
        sci[rng.random(shape) < 0.01] = np.inf
        sci[rng.random(shape) < 0.01] = -np.inf
    elif kind == "missing":
        groupdq[rng.random(shape) < rng.random(shape[2:])] = DO_NOT_USE
        groupdq[rng.random(shape) < 0.02] |= SATURATED
    ones = np.ones(shape[2:], np.float32)
    flags, primary, _ = detect_jumps(sci, groupdq, ones, ones, Detection(SIGMA_CLIP, 1, flag_4_neighbors=False))
    found = (flags & JUMP_DET) != 0
    with np.errstate(invalid="ignore"):
        values = np.where((groupdq & (SATURATED | DO_NOT_USE)).any(axis=1), np.nan, sci[:, 1] - sci[:, 0])
    expected = np.zeros(shape, bool)
    for y, x in np.ndindex(shape[2:]):
        expected[:, 1, y, x] = clipped(values[:, y, x], 4.0)
    np.testing.assert_array_equal(found, expected)
    assert found.any()
    assert primary == found.sum()


@pytest.mark.parametrize("case", ["ten groups", "groups after", "single pass", "sigma clip", "sigma clip, all groups"])
def test_tiles_with_a_halo_of_one_pixel_give_the_same_bits(case):
    shape, _, settings = CASES[case]
    arrays = ramps(11, shape)
    detection = detection_of(*arrays[:3], **settings)
    whole, primary, _ = detect_jumps(*arrays, detection)
    ny, nx = shape[2:]
    for height, width in ((1, nx), (ny, 7), (5, 16), (3, 1)):
        pieces = np.zeros_like(whole)
        total = 0
        for y in range(0, ny, height):
            for x in range(0, nx, width):
                y0, x0 = max(y - 1, 0), max(x - 1, 0)
                tile = (..., slice(y0, min(y + height + 1, ny)), slice(x0, min(x + width + 1, nx)))
                inner = slice(y - y0, min(y + height, ny) - y0), slice(x - x0, min(x + width, nx) - x0)
                part, count, _ = detect_jumps(*(array[tile] for array in arrays), detection, inner=inner)
                pieces[..., y : y + height, x : x + width] = part[(..., *inner)]
                total += count
        np.testing.assert_array_equal(pieces, whole)
        assert total == primary


def test_flags_may_be_written_in_place_and_into_views():
    arrays = ramps(3, (2, 8, 12, 30))
    detection = detection_of(*arrays[:3])
    expected, _, _ = detect_jumps(*arrays, detection)
    sci, groupdq, gain, readnoise = (array.copy() for array in arrays)
    assert detect_jumps(sci, groupdq, gain, readnoise, detection, out=groupdq)[0] is groupdq
    np.testing.assert_array_equal(groupdq, expected)
    wide = np.zeros((2, 8, 12, 60), np.uint8)
    out = wide[..., ::2]
    detect_jumps(*arrays, detection, out=out)
    np.testing.assert_array_equal(out, expected)
    assert not wide[..., 1::2].any()


@pytest.mark.parametrize("nints", [1, 60])
def test_a_constant_ramp_without_read_noise_is_no_evidence(nints):
    sci = np.full((nints, 6, 4, 5), 100.0, np.float32)
    sci[0, 3:, 2, 2] += 50
    gain, readnoise = np.ones((4, 5), np.float32), np.zeros((4, 5), np.float32)
    groupdq = np.zeros(sci.shape, np.uint8)
    for sigclip in (100, 40):
        limits = LIMITS | {"minimum_sigclip_groups": sigclip}
        flags, _, _ = detect_jumps(sci, groupdq, gain, readnoise, detection_of(sci, groupdq, gain, limits=limits))
        np.testing.assert_array_equal(flags, oracle(sci, groupdq, gain, readnoise, limits=limits)[0])


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_neighbours_beyond_the_frame_are_dropped(side):
    sci = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None] * 20, (1, 8, 5, 6)).copy()
    y, x = {"left": (2, 0), "right": (2, 5), "top": (4, 3), "bottom": (0, 3)}[side]
    sci[0, 4:, y, x] += 2000
    ones = np.ones((5, 6), np.float32)
    flags, primary, _ = detect_jumps(sci, np.zeros(sci.shape, np.uint8), ones, 10 * ones, Detection(ITERATIVE, 1))
    expected = {(y, x)} | {(y + dy, x + dx) for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))}
    expected = {(row, column) for row, column in expected if 0 <= row < 5 and 0 <= column < 6}
    assert {tuple(place) for place in np.argwhere(flags[0, 4] & JUMP_DET)} == expected
    assert primary == 1
    assert not np.delete(flags[0], 4, axis=0).any()


def test_whole_planes():
    groupdq = np.zeros((2, 3, 4, 5), np.uint8)
    groupdq[1, 2] = DO_NOT_USE
    groupdq[0, 1] = JUMP_DET
    groupdq[0, 1, 0, 0] = DO_NOT_USE
    assert np.argwhere(whole_planes(groupdq, DO_NOT_USE)).tolist() == [[1, 2]]
    assert np.argwhere(whole_planes(groupdq, DO_NOT_USE | JUMP_DET)).tolist() == [[0, 1], [1, 2]]
