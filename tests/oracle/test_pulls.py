"""Slopes and their errors against simulated ramps without systematics, of which everything is known.

100,000 ramps a brightness: the mean of pulls is known to 0.003, their scatter to 0.002; 0.02 is the promise.

Where the method, not the program, departs from it is listed in ``DEPARTURES`` with what is found instead. The errors
of jwst's least squares are defined, not derived: the photon part is that of (last - first) / time whatever the weights,
the read part that of equal weights whatever the weights, and averaged frames share no photons. Errors also contain the
estimated rate, so that ramps with few electrons have small errors where their slope is low: the mean pull becomes
negative although the slopes are not biased, by least squares and by likelihood alike. Both facts are tested: slopes
over the scatter that the weights of each ramp truly have (independent of the estimate) keep the promise everywhere,
and the oracle gives the same bits on the same ramps.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from jwstdask.steps.detector.ramp_fit import RampFitStep
from tests.oracle.ramps import FRAME_TIME, GAIN, Pattern, references
from tests.steps.test_ramp_fit import assert_same, fit, oracle

SHAPE = (400, 250)
PROMISE = 0.02
LEVELS = (10, 30, 100, 300, 1_000, 3_000, 10_000, 50_000)
PATTERNS = {
    "RAPID 5": Pattern(5),
    "RAPID 10": Pattern(10),
    "4 of 5 frames, 10": Pattern(10, 4, 1),
    "8 of 10 frames, 6": Pattern(6, 8, 2),
}
_POWERS = np.array([0, 0.4, 1, 3, 6, 10])
_LIMITS = np.array([5, 10, 20, 50, 100])


def sample(pattern, electrons):
    """The same ramps whatever they are fitted by."""
    rng = np.random.default_rng([zlib.crc32(repr(pattern).encode()), electrons])
    return pattern.simulate(rng, electrons, SHAPE)


def fitted(algorithm, pattern, electrons):
    ramp, rate = sample(pattern, electrons)
    step, meta, refs = RampFitStep(algorithm=algorithm), pattern.meta(SHAPE), references(SHAPE)
    products, _, _ = fit(step, meta, refs, ramp)
    return products, rate, ramp, oracle(step, meta, refs, ramp)


def true_scatter(pattern, electrons, ramp):
    """Scatter [DN/s] of the slope of each ramp: its weights, and the covariance that the groups truly have."""
    first, last = ramp.sci[0, 0].astype(float), ramp.sci[0, -1].astype(float)
    signal = np.maximum((last - first) * GAIN, 0)
    ratio = signal / np.sqrt(pattern.noise**2 + signal)
    middle = (pattern.ngroups - 1) / 2
    position = np.arange(pattern.ngroups) - middle
    scatter = []
    for power in _POWERS:
        weight = np.abs(position / middle) ** power
        line = weight * position / (weight * position**2).sum()
        scatter.append(np.sqrt(line @ pattern.covariance(electrons) @ line))
    time = FRAME_TIME * (pattern.nframes + pattern.groupgap)
    return np.array(scatter)[np.searchsorted(_LIMITS, ratio, side="right")] / GAIN / time


DEPARTURES = {
    ("OLS_C", "RAPID 5"): {30: (-0.023, 1.003), 100: (-0.020, 1.010), 300: (-0.025, 1.017), 1_000: (-0.016, 1.025)},
    ("OLS_C", "RAPID 10"): {
        10: (-0.024, 0.973),
        30: (-0.022, 1.010),
        100: (-0.034, 1.030),
        300: (-0.032, 1.038),
        1_000: (-0.015, 1.029),
    },
    ("OLS_C", "4 of 5 frames, 10"): {
        10: (-0.045, 0.997),
        30: (-0.060, 1.069),
        100: (-0.052, 1.050),
        300: (-0.029, 1.028),
    },
    ("OLS_C", "8 of 10 frames, 6"): {
        10: (-0.062, 1.009),
        30: (-0.071, 1.052),
        100: (-0.049, 1.017),
        300: (-0.029, 1.003),
        3_000: (-0.011, 0.975),
        10_000: (-0.007, 0.975),
        50_000: (-0.000, 0.973),
    },
    ("LIKELY", "RAPID 5"): {10: (-0.018, 0.987), 30: (-0.028, 1.004), 100: (-0.032, 1.008), 300: (-0.024, 1.002)},
    ("LIKELY", "RAPID 10"): {10: (-0.039, 0.987), 30: (-0.038, 1.010), 100: (-0.045, 1.005), 300: (-0.031, 1.004)},
    ("LIKELY", "4 of 5 frames, 10"): {
        10: (-0.079, 1.008),
        30: (-0.072, 1.018),
        100: (-0.050, 1.009),
        300: (-0.029, 1.004),
    },
    ("LIKELY", "8 of 10 frames, 6"): {
        10: (-0.085, 1.017),
        30: (-0.074, 1.023),
        100: (-0.048, 1.008),
        300: (-0.029, 1.007),
    },
}
"""(mean, scatter) of pulls by the claimed error where one of them misses the promise, or nearly does, by brightness.

In short: likelihood keeps it from 1,000 electrons on, least squares of single frames from 3,000 on; least squares of
averaged frames has errors up to 3 % too large in bright pixels."""


def moments(pull):
    assert np.isfinite(pull).all()
    return pull.mean(), pull.std()


@pytest.mark.parametrize("electrons", LEVELS)
@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("algorithm", ["OLS_C", "LIKELY"])
def test_slopes_scatter_by_their_errors_around_the_truth(algorithm, name, electrons):
    pattern = PATTERNS[name]
    products, rate, ramp, models = fitted(algorithm, pattern, electrons)
    assert_same(products, models)
    slope, err = products["rate"]["sci"].astype(float), products["rate"]["err"].astype(float)
    # Slopes, over an error that does not know the estimate.
    known = true_scatter(pattern, electrons, ramp) if algorithm == "OLS_C" else np.sqrt((err**2).mean())
    mean, scatter = moments((slope - rate) / known)
    assert abs(mean) < PROMISE
    assert abs(scatter - 1) < PROMISE
    # Slopes over the error that the product states.
    mean, scatter = moments((slope - rate) / err)
    listed = DEPARTURES.get((algorithm, name), {}).get(electrons)
    if listed is None:
        assert abs(mean) < PROMISE
        assert abs(scatter - 1) < PROMISE
    else:
        # Another sample than that listed would differ by 0.0045 and 0.003, one standard deviation each.
        assert mean == pytest.approx(listed[0], abs=0.015)
        assert scatter == pytest.approx(listed[1], abs=0.01)
