"""Slopes by maximum likelihood: against the oracle bit for bit, and against generalised least squares written out."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.kernels import likelihood
from tests.kernels.test_ramp_fit import exposure

FRAME_TIME = 10.73677


def ramps(seed, integrations, groups, shape=(24, 30), flagged=True):
    """Ramps with flags and with jumps that nobody flagged."""
    *arrays, zeroframe = exposure(seed, integrations, groups, shape, flagged)
    rng = np.random.default_rng(seed + 1000)
    when = rng.integers(1, 3 * groups, (integrations, 1, *shape))
    size = 10 ** rng.uniform(1, 4, (integrations, 1, *shape))
    arrays[0] += np.where(np.arange(groups)[:, None, None] >= when, size, 0).astype(np.float32)
    return arrays, zeroframe


def oracle(arrays, *, nframes, groupgap=0, zeroframe=None, dark=0.0, read_pattern=None, frame_time=FRAME_TIME):
    """Results of jwst's fitter and the group flags it leaves."""
    from stcal.ramp_fitting.ramp_fit import ramp_fit_data
    from stcal.ramp_fitting.ramp_fit_class import RampData
    from stdatamodels.jwst.datamodels import dqflags

    sci, groupdq, pixeldq, gain, readnoise = (array.copy() for array in arrays)
    data = RampData()
    data.algorithm = "LIKELY"
    zeroframe = None if zeroframe is None else zeroframe.copy()
    data.set_arrays(sci, groupdq, pixeldq, (np.zeros(pixeldq.shape) + dark).astype(np.float32), zeroframe=zeroframe)
    data.set_meta(
        name="NIRCAM",
        frame_time=frame_time,
        group_time=frame_time * (nframes + groupgap),
        groupgap=groupgap,
        nframes=nframes,
    )
    data.set_dqflags(dqflags.pixel)
    data.start_row, data.num_rows = 0, sci.shape[2]
    if read_pattern is not None:
        data.read_pattern = [np.array(times) for times in read_pattern]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        rate, rateints, _ = ramp_fit_data(data, False, readnoise, gain, "LIKELY", "optimal", "1")
    return rate, rateints, groupdq


def assert_same(fit, found):
    """Identical bits: the same operations in the same order, with the same power function; no tolerance is needed."""
    rate, rateints, groupdq = found
    names = {"sci": "slope", "err": "err", "dq": "dq", "var_poisson": "var_poisson", "var_rnoise": "var_rnoise"}
    for slopes, theirs in ((fit.rate, rate), (fit.rateints, rateints)):
        for name, key in names.items():
            np.testing.assert_array_equal(getattr(slopes, name), theirs[key], err_msg=name, strict=True)
    np.testing.assert_array_equal(fit.groupdq, groupdq)
    np.testing.assert_array_equal(fit.chisq, rate["chisq"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("integrations", "groups", "nframes", "groupgap", "zero", "dark"),
    [
        (1, 10, 1, 0, False, 0.0),
        (3, 6, 4, 1, False, 0.1),
        (2, 8, 4, 0, True, 0.0),
        (1, 5, 1, 0, True, 0.0),
        (4, 4, 1, 0, False, 0.0),
        (2, 25, 8, 2, False, 0.02),
    ],
)
def test_same_bits_as_the_oracle(seed, integrations, groups, nframes, groupgap, zero, dark):
    arrays, zeroframe = ramps(seed, integrations, groups)
    zeroframe = zeroframe if zero else None
    found = oracle(arrays, nframes=nframes, groupgap=groupgap, zeroframe=zeroframe, dark=dark)
    fit = likelihood.likelihood_fit(
        *arrays,
        likelihood.read_times(groups, nframes, groupgap, FRAME_TIME),
        nframes=nframes,
        zeroframe=zeroframe,
        dark_current=dark,
    )
    assert_same(fit, found)
    new = fit.groupdq & ~arrays[1]
    assert set(np.unique(new)) == {0, dq.JUMP_DET}
    assert np.isfinite(fit.rate.sci).sum() > 300


def test_uneven_reads_same_bits_as_the_oracle():
    arrays, _ = ramps(5, 2, 6)
    pattern = [[1.0], [2.0, 3.0], [5.0, 6.0, 7.0], [9.0], [12.0], [13.0, 14.0]]
    dark = np.random.default_rng(5).uniform(0, 1, arrays[2].shape).astype(np.float32)
    found = oracle(arrays, nframes=1, read_pattern=pattern, dark=dark)
    assert_same(likelihood.likelihood_fit(*arrays, pattern, nframes=1, dark_current=dark), found)


def dense_covariance(times, rate, gain, noise):
    """Covariance of the differences between groups by its definition: reads share photons up to the earlier of them."""
    reads = [(group, time) for group, group_times in enumerate(times) for time in group_times]
    photons = np.array([[min(a, b) for _, b in reads] for _, a in reads]) * rate / gain
    averages = np.zeros((len(times), len(reads)))
    for column, (group, _) in enumerate(reads):
        averages[group, column] = 1 / len(times[group])
    groups = averages @ (photons + noise**2 * np.eye(len(reads))) @ averages.T
    delta = np.diff([np.mean(group) for group in times])
    difference = (np.eye(len(times))[1:] - np.eye(len(times))[:-1]) / delta[:, None]
    return difference @ groups @ difference.T, delta


@pytest.mark.parametrize(("nframes", "groupgap"), [(1, 0), (4, 2)])
def test_generalised_least_squares_from_the_definitions(nframes, groupgap):
    """Tolerance 3e-7: float32 differences of groups and float32 products."""
    rng = np.random.default_rng(nframes)
    groups, shape = 7, (4, 5)
    times = likelihood.read_times(groups, nframes, groupgap, 5.0)
    rate = rng.uniform(20, 200, shape)
    # Ramps so nearly straight that no jump is found, with flags that leave groups out.
    sci = (np.array([np.mean(t) for t in times])[:, None, None] * rate + rng.normal(0, 1, (groups, *shape)))[None]
    sci = sci.astype(np.float32)
    groupdq = np.zeros(sci.shape, np.uint8)
    groupdq[0, 2, 1] = dq.DO_NOT_USE
    groupdq[0, 5:, 2] = dq.SATURATED
    gain = rng.uniform(1, 3, shape).astype(np.float32)
    readnoise = rng.uniform(10, 20, shape).astype(np.float32)
    fit = likelihood.likelihood_fit(sci, groupdq, np.zeros(shape, np.uint32), gain, readnoise, times, nframes=nframes)
    np.testing.assert_array_equal(fit.groupdq, groupdq)
    for y, x in np.ndindex(shape):
        noise = float(readnoise[y, x]) / np.sqrt(2)
        guess = None
        for turn in range(2):
            use = (groupdq[0, 1:, y, x] == 0) & (groupdq[0, :-1, y, x] == 0)
            steps = np.diff(sci[0, :, y, x]).astype(float)
            _, delta = dense_covariance(times, 1.0, 1.0, noise)
            steps /= delta
            guess = np.median(steps) if turn == 0 else guess
            covariance, _ = dense_covariance(times, guess, float(gain[y, x]), noise)
            # Differences left out share nothing with the others.
            inverse = np.linalg.inv(covariance[np.ix_(use, use)])
            total = inverse.sum()
            slope = inverse.sum(axis=0) @ steps[use] / total
            guess = slope
        weights = inverse.sum(axis=0) / total
        used = covariance[np.ix_(use, use)]
        residual = steps[use] - slope
        assert fit.rate.sci[y, x] == pytest.approx(slope, rel=3e-7)
        assert fit.rate.err[y, x] == pytest.approx(1 / np.sqrt(total), rel=3e-7)
        assert fit.chisq[y, x] == pytest.approx(residual @ inverse @ residual, rel=1e-5)
        assert fit.rate.var_poisson[y, x] + fit.rate.var_rnoise[y, x] == pytest.approx(
            weights @ used @ weights, rel=5e-7
        )
        read, _ = dense_covariance(times, 0.0, 1.0, noise)
        assert fit.rate.var_rnoise[y, x] == pytest.approx(weights @ read[np.ix_(use, use)] @ weights, rel=3e-7)


def test_a_jump_is_found_and_left_out():
    groups, shape = 10, (3, 4)
    rng = np.random.default_rng(1)
    sci = (100.0 * np.arange(groups)[:, None, None] + rng.normal(0, 3, (groups, *shape)))[None].astype(np.float32)
    sci[0, 6:, 1, 2] += 500
    groupdq = np.zeros(sci.shape, np.uint8)
    arrays = sci, groupdq, np.zeros(shape, np.uint32), np.full(shape, 2, np.float32), np.full(shape, 8, np.float32)
    fit = likelihood.likelihood_fit(*arrays, likelihood.read_times(groups, 1, 0, 10.0), nframes=1)
    assert np.argwhere(fit.groupdq == dq.JUMP_DET).tolist() == [[0, 6, 1, 2]]
    assert fit.rate.dq[1, 2] == dq.JUMP_DET
    assert np.abs(fit.rate.sci - 10).max() < 5 * fit.rate.err.max()
    blind = likelihood.likelihood_fit(
        *arrays, likelihood.read_times(groups, 1, 0, 10.0), nframes=1, threshold_one_omit=1e9, threshold_two_omit=1e9
    )
    assert not blind.groupdq.any() and blind.rate.sci[1, 2] > 14


def test_parts_are_as_the_whole_and_inputs_are_unchanged():
    arrays, zeroframe = ramps(8, 2, 6)
    before = [array.copy() for array in (*arrays, zeroframe)]
    options = {"read_times": likelihood.read_times(6, 4, 0, 5.0), "nframes": 4, "zeroframe": zeroframe}
    whole = likelihood.likelihood_fit(*arrays, **options)
    for array, old in zip((*arrays, zeroframe), before):
        np.testing.assert_array_equal(array, old)
    inner = slice(3, 17), slice(5, 28)
    part = likelihood.likelihood_fit(*arrays, **options, inner=inner)
    for mine, expected in zip((*part.rate, *part.rateints, part.chisq), (*whole.rate, *whole.rateints, whole.chisq)):
        np.testing.assert_array_equal(mine[(..., *inner)], expected[(..., *inner)])
        assert not mine[..., :3, :].any() and not mine[..., 28:].any()
    np.testing.assert_array_equal(part.groupdq[(..., *inner)], whole.groupdq[(..., *inner)])
    np.testing.assert_array_equal(part.groupdq[..., :5], arrays[1][..., :5])


def test_refusals():
    arrays, _ = ramps(0, 1, 3, (2, 2))
    with pytest.raises(ValueError, match="needs 4 groups"):
        likelihood.likelihood_fit(*arrays, [[1], [2], [3]], nframes=1)
    arrays, _ = ramps(0, 1, 5, (2, 2))
    with pytest.raises(ValueError, match="4 groups for a ramp of 5"):
        likelihood.likelihood_fit(*arrays, [[1], [2], [3], [4]], nframes=1)
