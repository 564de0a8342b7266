"""Slopes of ramps: against the oracle bit for bit, and against a slow fit written out here."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.kernels import ramp_fit as kernel
from jwstdask.kernels.ramp_lines import quotient, slope_coefficients, whole_weights
from jwstdask.kernels.ramp_pixel import POWERS
from jwstdask.kernels.ramp_segments import fit_segments
from jwstdask.kernels.unused_groups import count_dependent, unused_groups

MIXTURES = np.array(
    [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 33, 36, 64, 65, 96, 128, 129, 132, 133, 160, 161], np.uint8
)  # every bit, alone and with those that matter


def exposure(seed, integrations, groups, shape=(32, 40), flagged=True):
    """Ramps of all brightnesses with random flags of several kinds, bad pixels and bad references.

    Returns sci, groupdq, pixeldq, gain, readnoise and the zero frame.
    """
    rng = np.random.default_rng(seed)
    size = (integrations, groups, *shape)
    rate = 10 ** rng.uniform(-1, 4.2, shape)
    sci = np.cumsum(rng.poisson(rate, size), axis=1) + rng.normal(0, 8, size)
    sci = (sci + rng.normal(0, 300, (integrations, 1, *shape))).astype(np.float32)
    groupdq = np.zeros(size, np.uint8)
    pixeldq = np.zeros(shape, np.uint32)
    gain = rng.uniform(1.5, 2.5, shape).astype(np.float32)
    readnoise = rng.uniform(5, 20, shape).astype(np.float32)
    if flagged:
        kind = rng.integers(0, 6, shape)
        here = (rng.random(size) < rng.choice([0.02, 0.1, 0.3, 0.6, 0.9], shape)) & (kind > 0)
        groupdq = np.where(here, rng.choice(MIXTURES, size), groupdq)
        groupdq[here & (kind == 2)] = dq.JUMP_DET
        groupdq = np.where(here & (kind == 3), rng.choice(np.array([1, 4], np.uint8), size), groupdq)
        index = np.arange(groups)[:, None, None]
        groupdq[(kind >= 4) & (index >= rng.integers(0, groups + 2, (integrations, 1, *shape)))] |= dq.SATURATED
        loss = (kind == 5) & (index >= rng.integers(0, groups + 4, (integrations, 1, *shape)))
        groupdq[loss] |= dq.CHARGELOSS | dq.DO_NOT_USE
        sci[rng.random(size) < 0.002] = np.nan
        for bit in (dq.DO_NOT_USE, dq.SATURATED, dq.HOT):
            pixeldq[rng.random(shape) < 0.02] |= np.uint32(bit)
        for array, values in ((gain, (np.nan, -1, 0)), (readnoise, (np.nan, 0, 1e8))):
            for value in values:
                array[rng.random(shape) < 0.01] = value
    zeroframe = (rate / 2 + rng.normal(0, 8, (integrations, *shape))).astype(np.float32)
    zeroframe[rng.random(zeroframe.shape) < 0.3] = 0
    if flagged:
        zeroframe[rng.random(zeroframe.shape) < 0.01] = np.nan
    return sci, groupdq.astype(np.uint8), pixeldq, gain, readnoise, zeroframe


def oracle(
    arrays, *, zeroframe=None, dark=0.0, suppress=True, groupgap=0, drop=None, save_opt=False, name="NIRCAM", **times
):
    """Results of jwst's fitter: rate, rateints and segments as dictionaries."""
    from stcal.ramp_fitting.ramp_fit import ramp_fit_data
    from stcal.ramp_fitting.ramp_fit_class import RampData
    from stdatamodels.jwst.datamodels import dqflags

    sci, groupdq, pixeldq, gain, readnoise = (array.copy() for array in arrays)
    data = RampData()
    data.algorithm = "OLS_C"
    data.set_arrays(
        sci,
        groupdq,
        pixeldq,
        (np.zeros(pixeldq.shape) + dark).astype(np.float32),
        orig_gdq=groupdq.copy() if (groupdq & dq.CHARGELOSS).any() else None,
        zeroframe=None if zeroframe is None else zeroframe.copy(),
    )
    data.set_meta(name=name, groupgap=groupgap, drop_frames1=drop, **times)
    data.set_dqflags(dqflags.pixel)
    data.start_row, data.num_rows = 0, sci.shape[2]
    data.suppress_one_group_ramps = suppress and sci.shape[1] > 1
    with np.errstate(all="ignore"):
        return ramp_fit_data(data, save_opt, readnoise, gain, "OLS_C", "optimal", "1")


def assert_same(slopes, found):
    """Identical bits: the kernel does the oracle's operations in the oracle's order, so no tolerance is needed."""
    names = {"sci": "slope", "err": "err", "dq": "dq", "var_poisson": "var_poisson", "var_rnoise": "var_rnoise"}
    for name, theirs in names.items():
        mine = getattr(slopes, name)
        assert mine.dtype == found[theirs].dtype
        np.testing.assert_array_equal(mine, found[theirs], err_msg=name, strict=True)


def times(nframes=1, groupgap=0):
    return {"group_time": 10.73677 * (nframes + groupgap), "frame_time": 10.73677, "nframes": nframes}


CASES = [
    # integrations, groups, nframes, zero frame, suppress, dark current
    (1, 10, 1, False, True, 0.0),
    (1, 10, 4, True, False, 0.02),
    (2, 5, 1, True, False, 0.0),
    (3, 3, 8, True, False, 0.1),
    (4, 2, 1, True, False, -0.05),
    (2, 2, 1, False, True, 0.0),
    (3, 1, 1, True, True, 0.0),
    (2, 1, 4, False, False, 0.0),
    (2, 25, 1, True, False, 0.01),
    (1, 70, 4, True, True, 0.0),
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("integrations", "groups", "nframes", "zero", "suppress", "dark"), CASES)
def test_same_bits_as_the_oracle(seed, integrations, groups, nframes, zero, suppress, dark):
    *arrays, zeroframe = exposure(seed, integrations, groups)
    options = {"zeroframe": zeroframe if zero else None, **times(nframes)}
    found = oracle(arrays, dark=dark, suppress=suppress, **options)
    rate, rateints = kernel.ramp_fit(*arrays, dark_current=dark, suppress_one_group=suppress, **options)
    assert_same(rate, found[0])
    assert_same(rateints, found[1])
    # The case says something: there are fitted, unusable and partly saturated ramps, and all kinds of variances.
    assert np.isfinite(rateints.sci).any()
    assert np.isnan(rateints.sci).any()
    assert ((rateints.dq & dq.SATURATED != 0) & np.isfinite(rateints.sci)).any() or groups < 3
    assert (rateints.var_rnoise == 0).any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("integrations", "groups"), [(1, 2), (1, 10), (2, 11), (4, 5), (1, 3)])
def test_ramps_without_flags_same_bits_as_the_oracle(seed, integrations, groups):
    *arrays, _ = exposure(seed, integrations, groups, (40, 300), flagged=False)
    found = oracle(arrays, **times())
    rate, rateints = kernel.ramp_fit(*arrays, **times())
    assert_same(rate, found[0])
    assert_same(rateints, found[1])
    assert np.isfinite(rate.sci).all()


@pytest.mark.parametrize("integrations", [1, 2, 5])
@pytest.mark.parametrize(("groups", "gain"), [(3, 1.7), (2, 1.7), (9, 0.001), (5, 1e4)])
def test_slopes_half_way_between_two_floats_are_rounded_as_the_oracle_rounds_them(integrations, groups, gain):
    """Sums in another order are off by their last bits, which then decide."""
    rng = np.random.default_rng(groups)
    size = (integrations, groups, 20, 130)
    sci = np.zeros(size, np.float32)
    # Odd numbers of 2^-24 below, of 2^-23 above: their difference, and half of it, is half way.
    sci[:, 0] = (2 * rng.integers(0, 2**20, size[:1] + size[2:]) + 1) * 2.0**-24
    sci[:, -1] = 1 + rng.integers(2**22, 2**23, size[:1] + size[2:]) * 2.0**-23
    for group in range(1, groups - 1):
        sci[:, group] = (sci[:, 0] + sci[:, -1]) / 2
    shape = size[2:]
    references = np.full(shape, gain, np.float32), rng.uniform(0.1, 0.2, shape).astype(np.float32)
    arrays = sci, np.zeros(size, np.uint8), np.zeros(shape, np.uint32), *references
    timing = {"group_time": 1.0, "frame_time": 1.0, "nframes": 1}
    found = oracle(arrays, **timing)
    rate, rateints = kernel.ramp_fit(*arrays, **timing)
    assert_same(rate, found[0])
    assert_same(rateints, found[1])


@pytest.mark.parametrize("groups", [2, 3, 4, 10, 41])
@pytest.mark.parametrize("origin", [0, -5])
def test_slopes_by_differences_are_within_their_bound_of_the_weighted_sums(groups, origin):
    """Both against exact fractions, for ramps without any slope, where all digits cancel, and steep ones."""
    rng = np.random.default_rng(groups)
    coefficients, bound = slope_coefficients(groups, origin, 10.73677)
    weights = whole_weights(groups)
    for power in range(len(POWERS)):
        exact_weights = [Fraction(float(weight)) for weight in weights[power]]
        places = [Fraction(group - origin) for group in range(groups)]
        total = sum(exact_weights)
        first = sum(w * x for w, x in zip(exact_weights, places))
        spread = total * sum(w * x * x for w, x in zip(exact_weights, places)) - first * first
        for level, steep in itertools.product((1.0, 1e4), (0.0, 1e-3, 50.0)):
            ramp = (level + steep * np.arange(groups) + rng.normal(0, 1, groups)).astype(np.float32).astype(float)
            values = [Fraction(value) for value in ramp]
            product = sum(w * x * y for w, x, y in zip(exact_weights, places, values))
            slope = (total * product - first * sum(w * y for w, y in zip(exact_weights, values))) / spread
            expected = float(slope / Fraction(10.73677))
            pairs = groups // 2
            found = float(np.sum(coefficients[power, :pairs] * (ramp[::-1] - ramp)[:pairs]))
            assert abs(found - expected) < bound / 2 * np.max(np.abs(ramp))
            # what the oracle does, in float64
            w, x = weights[power], np.arange(groups) - float(origin)
            sums = [math.fsum(each) for each in (w, w * x, w * x * x, w * ramp, w * x * ramp)]
            theirs = (sums[0] * sums[4] - sums[1] * sums[3]) / (sums[0] * sums[2] - sums[1] ** 2) / 10.73677
            assert abs(theirs - expected) < bound / 2 * np.max(np.abs(ramp))


@pytest.mark.parametrize("groups", [2, 5, 10])
def test_few_slopes_are_in_doubt(groups):
    """Of pixels with 1 DN/s and 1000 DN, one in a thousand or less."""
    _, bound = slope_coefficients(groups, 0, 10.73677)
    assert 0 < bound * 1000 < 1e-3 * np.spacing(np.float32(1.0))


def test_a_dark_current_image_same_bits_as_the_oracle():
    *arrays, _ = exposure(7, 2, 6)
    dark = np.random.default_rng(7).uniform(-0.1, 1, arrays[2].shape).astype(np.float32)
    found = oracle(arrays, dark=dark, **times())
    rate, rateints = kernel.ramp_fit(*arrays, dark_current=dark, **times())
    assert_same(rate, found[0])
    assert_same(rateints, found[1])


@pytest.mark.parametrize("groups", [4, 5, 6])
def test_every_pattern_of_flags_same_bits_as_the_oracle(groups):
    """All sequences of good, DO_NOT_USE, SATURATED, JUMP_DET (and for short ramps two more) in one integration."""
    flags = [0, dq.DO_NOT_USE, dq.SATURATED, dq.JUMP_DET]
    if groups == 4:
        flags += [dq.PERSISTENCE, dq.CHARGELOSS | dq.DO_NOT_USE]
    patterns = np.array(list(itertools.product(flags, repeat=groups)), np.uint8)
    width = 64
    height = -(-len(patterns) // width)
    sci, groupdq, pixeldq, gain, readnoise, zeroframe = exposure(groups, 2, groups, (height, width), flagged=False)
    groupdq[0] = np.resize(patterns, (height * width, groups)).T.reshape(groups, height, width)
    groupdq[1] = groupdq[0, :, ::-1, ::-1]
    arrays = sci, groupdq, pixeldq, gain, readnoise
    for suppress in (True, False):
        found = oracle(arrays, zeroframe=zeroframe, suppress=suppress, **times())
        rate, rateints = kernel.ramp_fit(*arrays, zeroframe=zeroframe, suppress_one_group=suppress, **times())
        assert_same(rate, found[0])
        assert_same(rateints, found[1])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("integrations", "groups", "nframes", "zero", "suppress", "groupgap", "drop"),
    [
        (1, 10, 1, False, True, 0, 0),
        (2, 10, 4, True, False, 2, 1),
        (3, 5, 8, True, False, 2, 0),
        (2, 2, 1, False, False, 0, 0),
        (2, 1, 1, True, True, 0, 0),
        (1, 70, 1, True, True, 0, 0),
    ],
)
def test_segments_same_bits_as_the_oracle(seed, integrations, groups, nframes, zero, suppress, groupgap, drop):
    *arrays, zeroframe = exposure(seed, integrations, groups)
    options = {"zeroframe": zeroframe if zero else None, "groupgap": groupgap, **times(nframes, groupgap)}
    *_, found = oracle(arrays, suppress=suppress, drop=drop, save_opt=True, **options)
    segments = fit_segments(*arrays, suppress_one_group=suppress, drop_frames1=drop, **options)
    for name, array in segments._asdict().items():
        np.testing.assert_array_equal(array, found[name], err_msg=name, strict=True)
    assert np.count_nonzero(segments.slope) > 0


def test_segments_of_lone_groups_take_room_as_in_the_oracle():
    """Ramps of separate single groups have one segment; the product still has a place for each."""
    *arrays, _ = exposure(0, 1, 7, (3, 4), flagged=False)
    arrays[1][:, 1::2] = dq.DO_NOT_USE
    *_, found = oracle(arrays, save_opt=True, **times())
    segments = fit_segments(*arrays, **times())
    assert segments.slope.shape == found["slope"].shape == (1, 4, 3, 4)
    np.testing.assert_array_equal(segments.slope, found["slope"])
    assert (segments.slope[:, 1:] == 0).all() and (segments.slope[:, 0] != 0).all()


@pytest.mark.parametrize(("leading", "trailing"), [(1, 1), (3, 0), (0, 1), (2, 1)])
@pytest.mark.parametrize("suppress", [True, False])
def test_groups_unusable_everywhere_are_left_out_as_in_the_oracle(leading, trailing, suppress):
    *arrays, zeroframe = exposure(leading, 2, 8)
    arrays[1][:, :leading] |= dq.DO_NOT_USE
    if trailing:
        arrays[1][:, -1] |= dq.DO_NOT_USE
    assert unused_groups(arrays[1]) == (leading, trailing)
    found = oracle(arrays, zeroframe=zeroframe, suppress=suppress, name="MIRI", save_opt=True, **times())
    groups = {
        "first_group": leading,
        "last_group": 8 - trailing,
        "suppress_one_group": suppress,
        "zeroframe": zeroframe,
    }
    rate, rateints = kernel.ramp_fit(*arrays, **groups, **times())
    assert_same(rate, found[0])
    assert_same(rateints, found[1])
    segments = fit_segments(*arrays, **groups, **times())
    for name, array in segments._asdict().items():
        np.testing.assert_array_equal(array, found[2][name], err_msg=name, strict=True)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("suppress", [True, False])
def test_only_dependent_ramps_change_when_unusable_groups_are_left_out(seed, suppress):
    *arrays, _ = exposure(seed, 1, 8, (40, 50))
    sci, groupdq, pixeldq, *_ = arrays
    groupdq[:, :2] |= dq.DO_NOT_USE
    groupdq[:, -1] |= dq.DO_NOT_USE
    whole, _ = kernel.ramp_fit(*arrays, suppress_one_group=suppress, **times())
    part, _ = kernel.ramp_fit(*arrays, first_group=2, last_group=7, origin=-2, suppress_one_group=suppress, **times())
    changed = np.zeros(pixeldq.shape, bool)
    for name in part._fields:
        mine, other = getattr(part, name), getattr(whole, name)
        changed |= ~((mine == other) | (np.isnan(mine) & np.isnan(other)))
    counted = np.array(
        [
            [
                count_dependent(sci, groupdq, pixeldq, 2, 7, suppress, (slice(y, y + 1), slice(x, x + 1)))
                for x in range(50)
            ]
            for y in range(40)
        ]
    )
    assert changed.any()
    assert not (changed & (counted == 0)).any()
    assert counted.sum() == count_dependent(sci, groupdq, pixeldq, 2, 7, suppress)
    assert (counted == 0).any()


@pytest.mark.parametrize(("integrations", "groups", "shape"), [(1, 10, (3, 150)), (17, 5, (70, 67)), (2, 8, (33, 130))])
def test_lines_of_any_length_and_place_are_fitted_as_pixel_by_pixel(integrations, groups, shape):
    """Lines of many pixels are fitted together, the last overlapping the one before; series some rows at a time."""
    *arrays, zeroframe = exposure(5, integrations, groups, shape)
    inner = (slice(1, shape[0]), slice(2, shape[1] - 1))
    whole = kernel.ramp_fit(*arrays, zeroframe=zeroframe, inner=inner, **times())
    *arrays, zeroframe = (array[..., inner[0], inner[1]] for array in (*arrays, zeroframe))
    width = shape[1] - 3
    for left in range(0, width, 7):
        columns = slice(left, min(left + 7, width))
        piece = kernel.ramp_fit(
            *(array[..., columns] for array in arrays), zeroframe=zeroframe[..., columns], **times()
        )
        for found, expected in zip(piece, whole, strict=True):
            for name in found._fields:
                part = getattr(expected, name)[..., inner[0], inner[1]][..., columns]
                np.testing.assert_array_equal(getattr(found, name), part, err_msg=name, strict=True)
    for image in (*whole[0], *whole[1]):
        outside = image.copy()
        outside[..., inner[0], inner[1]] = 0
        assert (outside == 0).all()


# A slow fit, from the definitions. ------------------------------------------------------------------------------------


def slow_integration(sci, flags, gain, noise, rate, group_time):
    """Segments of one ramp as (slope, var_poisson, var_rnoise), by the textbook formulas."""
    good = [flag & ~dq.PERSISTENCE == 0 for flag in flags]
    runs, start = [], None
    for k, ok in enumerate([*good, False]):
        if ok and start is None:
            start = k - 1 if k > 0 and flags[k - 1] & ~dq.PERSISTENCE == dq.JUMP_DET else k
        if not ok and start is not None:
            runs.append(range(start, k))
            start = None
    if flags[0] & dq.SATURATED:
        return []
    longer = [run for run in runs if len(run) > 1]
    result = []
    for run in longer or runs[:1]:
        n = len(run)
        x = np.arange(n, dtype=float)
        y = np.array([sci[k] for k in run], float)
        if n == 1:
            slope = y[0] / group_time
        else:
            signal = (y[-1] - y[0]) * gain
            total = noise**2 + signal
            snr = max(signal, 0) / math.sqrt(total) if total > 0 else 0.0
            power = next(
                p for limit, p in [(5, 0), (10, 0.4), (20, 1), (50, 3), (100, 6), (math.inf, 10)] if snr < limit
            )
            weights = np.abs(x - (n - 1) / 2) ** power if n > 2 else np.ones(2)
            mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
            slope = np.sum(weights * (x - mean_x) * (y - mean_y)) / np.sum(weights * (x - mean_x) ** 2) / group_time
        n = max(n, 2)
        read = 12 * (noise / group_time) ** 2 / ((n**3 - n) * gain**2)
        result.append((slope, max(rate, 0.0) / (group_time * gain * (n - 1)), read))
    return result


@pytest.mark.parametrize("seed", range(4))
def test_slow_fit_from_the_definitions(seed):
    """Tolerance: float32 products (6e-8 of each), and weights that the kernel rounds to float32 (6e-8 of each)."""
    rng = np.random.default_rng(seed)
    integrations, groups, shape = 2, 9, (6, 20)
    sci, groupdq, pixeldq, gain, readnoise, _ = exposure(seed, integrations, groups, shape, flagged=False)
    groupdq[rng.random(groupdq.shape) < 0.15] = dq.JUMP_DET
    groupdq[rng.random(groupdq.shape) < 0.05] = dq.DO_NOT_USE
    groupdq[:, 6:, 2] |= dq.SATURATED
    group_time = 12.5
    rate, rateints = kernel.ramp_fit(
        sci, groupdq, pixeldq, gain, readnoise,
        group_time=group_time, frame_time=group_time, nframes=1, suppress_one_group=False,
    )  # fmt: skip
    checked = 0
    for y, x in np.ndindex(shape):
        g, noise = float(gain[y, x]), float(readnoise[y, x]) * float(gain[y, x]) / math.sqrt(2)
        ramps = [(sci[i, :, y, x].astype(float), groupdq[i, :, y, x].tolist()) for i in range(integrations)]
        medians = []
        for values, flags in ramps:
            bad = [flag & (dq.DO_NOT_USE | dq.SATURATED) != 0 for flag in flags]
            differences = [
                values[k] - values[k - 1]
                for k in range(1, groups)
                if not (bad[k] or bad[k - 1] or flags[k] & dq.JUMP_DET)
            ]
            if differences:
                medians.append(np.median(differences) / group_time)
        if len(medians) < integrations or any(sum(flag == 0 for flag in flags) < 2 for _, flags in ramps):
            continue
        median = np.mean(medians)
        fits = [slow_integration(values, flags, g, noise, median, group_time) for values, flags in ramps]
        for i, fit in enumerate([*fits, [*fits[0], *fits[1]]]):
            slopes = rate if i == integrations else rateints
            at = (y, x) if i == integrations else (i, y, x)
            if not fit:
                assert np.isnan(slopes.sci[at])
                continue
            slope, poisson, read = (np.array(column) for column in zip(*fit))
            var_rnoise = 1 / np.sum(1 / read)
            scale = np.abs(slope).max()
            assert slopes.sci[at] == pytest.approx(np.sum(slope / read) * var_rnoise, rel=3e-7, abs=3e-7 * scale)
            assert slopes.var_rnoise[at] == pytest.approx(var_rnoise, rel=2e-7)
            if median > 0:
                assert slopes.var_poisson[at] == pytest.approx(1 / np.sum(1 / poisson), rel=2e-7)
            error = (
                math.sqrt(slopes.var_poisson[at] + slopes.var_rnoise[at])
                if i == integrations
                else math.sqrt(1 / np.sum(1 / (poisson + read)))
            )
            assert slopes.err[at] == pytest.approx(error, rel=2e-7)
            checked += 1
    assert checked > 200


@pytest.mark.parametrize(("seed", "groups"), [(0, 10), (1, 4), (2, 70)])
@pytest.mark.parametrize("share", [0.02, 0.4, 1.0])
def test_flagged_ramps_same_bits_in_any_company(seed, groups, share):
    """However many are fitted together: lines of pixels of which few, many or all have flags, against each alone."""
    sci, groupdq, pixeldq, gain, readnoise, _ = exposure(seed, 2, groups, (40, 70))
    rng = np.random.default_rng(seed)
    groupdq[:] = np.where(rng.uniform(size=groupdq.shape) < 0.15, rng.choice([1, 2, 4, 5], groupdq.shape), 0)
    groupdq[:, :, rng.uniform(size=pixeldq.shape) >= share] = 0
    arrays = sci, groupdq, pixeldq, gain, readnoise
    together = kernel.ramp_fit(*arrays, **times())
    for y, x in zip(*np.nonzero((groupdq.any(axis=(0, 1))) & (rng.uniform(size=pixeldq.shape) < 0.02 / share))):
        pixel = (..., slice(y, y + 1), slice(x, x + 1))
        for found, expected in zip(together, kernel.ramp_fit(*(array[pixel] for array in arrays), **times())):
            for name in found._fields:
                np.testing.assert_array_equal(getattr(found, name)[pixel], getattr(expected, name), err_msg=name)


# The interface. -------------------------------------------------------------------------------------------------------


def test_inputs_are_unchanged_and_the_rest_of_the_output_untouched():
    *arrays, zeroframe = exposure(3, 2, 5)
    before = [array.copy() for array in (*arrays, zeroframe)]
    whole = kernel.ramp_fit(*arrays, zeroframe=zeroframe, suppress_one_group=False, **times())
    inner = slice(3, 17), slice(5, 38)
    out = kernel.Slopes.zeros((32, 40)), kernel.Slopes.zeros((2, 32, 40))
    for product in out:
        for array in product:
            array[...] = 77
    part = kernel.ramp_fit(*arrays, zeroframe=zeroframe, suppress_one_group=False, inner=inner, out=out, **times())
    for array, old in zip((*arrays, zeroframe), before):
        np.testing.assert_array_equal(array, old)
    outside = np.ones((32, 40), bool)
    outside[inner] = False
    for mine, expected, given in zip(part, whole, out):
        for a, b, c in zip(mine, expected, given):
            assert a is c
            np.testing.assert_array_equal(a[(..., *inner)], b[(..., *inner)])
            assert (a[..., outside] == 77).all()


def test_results_do_not_depend_on_the_neighbours_of_a_pixel():
    *arrays, _ = exposure(5, 2, 6, (6, 300))
    rate, rateints = kernel.ramp_fit(*arrays, **times())
    for y, x in [(0, 0), (2, 255), (3, 256), (5, 299), (4, 17)]:
        one = [array[..., y : y + 1, x : x + 1] for array in arrays]
        alone = kernel.ramp_fit(*one, **times())
        for mine, expected in zip(alone, (rate, rateints)):
            for a, b in zip(mine, expected):
                np.testing.assert_array_equal(a, b[..., y : y + 1, x : x + 1])


def test_big_endian_and_strided_input():
    *arrays, _ = exposure(6, 1, 5)
    expected, _ = kernel.ramp_fit(*arrays, **times())
    sci, groupdq, pixeldq, gain, readnoise = arrays
    wide = np.zeros((1, 5, 32, 80), np.float32)
    wide[..., ::2] = sci
    found, _ = kernel.ramp_fit(wide[..., ::2], groupdq, pixeldq, gain.astype(">f4"), readnoise.astype(">f4"), **times())
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("first", "last"), [(-1, None), (5, None), (2, 2), (0, 6)])
def test_groups_outside_the_ramp_are_refused(first, last):
    *arrays, _ = exposure(0, 1, 5, (2, 3))
    with pytest.raises(ValueError, match="of a ramp of 5 groups"):
        kernel.ramp_fit(*arrays, first_group=first, last_group=last, **times())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([0, 0, 0], (0, 0)),
        ([1, 0, 1], (1, 1)),
        ([1, 1, 0], (2, 0)),
        ([5, 3, 1], (3, 0)),
        ([2, 0, 33], (0, 1)),
        ([1], (1, 0)),
    ],
)
def test_unused_groups(flags, expected):
    groupdq = np.zeros((2, len(flags), 3, 4), np.uint8) + np.array(flags, np.uint8)[:, None, None]
    assert unused_groups(groupdq) == expected
    if expected[0] > 0:
        groupdq[1, 0, 2, 3] = 0
        assert unused_groups(groupdq)[0] == 0


def test_groups_that_suppressed_ramps_alone_have_are_unused():
    groupdq = np.zeros((2, 5, 3, 5), np.uint8) + np.array([1, 0, 0, 0, 1], np.uint8)[:, None, None]
    groupdq[1, :, 2, 3] = [32, 2, 2, 2, 3]
    groupdq[0, :, 0, 1] = [2, 2, 2, 2, 0]
    assert unused_groups(groupdq) == (0, 0)
    assert unused_groups(groupdq, True) == (1, 1)
    assert unused_groups(groupdq, True, slice(2, 5)) == (2, 1)
    # without any good group a ramp is not suppressed
    assert unused_groups(groupdq, True, slice(0, 3)) == (0, 1)
    # two good groups
    groupdq[0, :, 0, 1] = [0, 0, 2, 2, 0]
    assert unused_groups(groupdq, True) == (0, 0)


def test_quotients_by_the_reciprocal_same_bits_as_by_division():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    values = values[np.isfinite(values)].astype(float)
    divisors = [1.0, 3.0, 10.73677, 0.27424, 2**24 - 1, 1 + 2**-23, *rng.uniform(0.01, 1000, 20)]
    for divisor in np.array(divisors, np.float32).astype(float):
        found = [quotient(value, divisor, 1 / divisor) for value in values[:: 1 + len(values) // 5000]]
        np.testing.assert_array_equal(found, values[:: 1 + len(values) // 5000] / divisor)
