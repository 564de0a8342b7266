"""Cosmic rays found in ramps of which everything is known, and what is found that is none, beside the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.benchmarks.jumps import METHODS, Found, count, hit_ramps, searches, table
from tests.oracle.ramps import Pattern

SHAPE = (100, 200)
TWO_POINT, LIKELIHOOD = METHODS


def above(threshold):
    """Share of a normal distribution above so many sigma."""
    return 0.5 * math.erfc(threshold / math.sqrt(2))


@pytest.mark.parametrize("size", [0.0, 3.0, 4.0, 5.0, 6.0, 10.0, 100.0])
@pytest.mark.parametrize(
    ("pattern", "electrons"), [(Pattern(10), 300.0), (Pattern(10), 10_000.0), (Pattern(8, 4, 1), 3_000.0)]
)
def test_hits_found_and_false_alarms(pattern, electrons, size):
    ramp, hit = hit_ramps(pattern, electrons, size, SHAPE, seed=2)
    flags = searches(pattern, ramp)
    counts = {key: count(found, hit) for key, found in flags.items()}
    for method in METHODS:
        np.testing.assert_array_equal(flags[method, "jwstdask"], flags[method, "jwst"])
        assert counts[method, "jwstdask"] == counts[method, "jwst"]
    found = counts[TWO_POINT, "jwstdask"]
    assert found.hits == 20_000
    if size > 0:
        # The threshold is 4 sigma. Median and noise are estimated from the other differences, which blurs it by half
        # a sigma; a Gaussian blur is steepest at the threshold, where it does not matter.
        assert above(4.5 - size) - 0.02 < found.efficiency < above(3.5 - size) + 0.02
    if size == 4:
        assert found.efficiency == pytest.approx(0.5, abs=0.05)
    # 6e-5 of a normal distribution are outside 4 sigma; about the median of nine differences a few times as many. The
    # noise of averaged frames is less than the search assumes, by a tenth: 1e-5 are outside.
    least = 6e-5 if pattern.nframes == 1 else 1e-5
    assert least < found.false_alarms < 8e-4
    likely = counts[LIKELIHOOD, "jwstdask"]
    # Of averaged frames, whose neighbouring differences are correlated, the search often omits two at once.
    beside = np.zeros_like(hit)
    beside[1:] |= hit[:-1]
    beside[:-1] |= hit[1:]
    assert count(flags[LIKELIHOOD, "jwstdask"], hit | beside).false_alarms < 3e-4
    assert likely.false_alarms < (3e-4 if pattern.nframes == 1 else 0.02)
    if size >= 10:
        assert likely.efficiency > 0.999
        assert found.efficiency > 0.999


def test_count_and_table():
    hit = np.zeros((4, 1, 3), bool)
    hit[2] = True
    flags = np.zeros((1, 4, 1, 3), np.uint8)
    flags[0, 2, 0, 0] = 4
    flags[0, 3, 0, 1] = 4 | 1
    flags[0, 1, 0, 2] = 2
    found = count(flags, hit)
    assert found == Found(hits=3, found=1, others=6, false=1)
    assert (found.efficiency, found.false_alarms) == (1 / 3, 1 / 6)
    keys = [(method, who) for method in METHODS for who in ("jwstdask", "jwst")]
    lines = table({300.0: {0.0: dict.fromkeys(keys, found), 5.0: dict.fromkeys(keys, found)}}).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| 300 | 0 | 22.222 % |")
    assert lines[3].startswith("| 300 | 5 | 33.33 %, 16.667 % |")
