"""Whoever is killed at whatever moment, the same command again makes the same products; nothing is done twice.

``python -m tests.benchmarks.chaos`` does 20 rounds.
"""

from __future__ import annotations

import pytest

from tests.benchmarks.chaos import Chaos


@pytest.fixture(scope="module")
def chaos(tmp_path_factory):
    """40 exposures on two workers."""
    return Chaos(tmp_path_factory.mktemp("chaos"), exposures=40, through=2, workers=2, seed=7)


@pytest.mark.parametrize(("number", "apart"), [(0, False), (1, True)], ids=["own scheduler", "scheduler apart"])
def test_killed_at_seeded_moments(chaos, number, apart):
    found = chaos.survived(number, apart)
    assert found["kills"]
    assert found["same"]
    assert found["redone"] == 0
    assert found["finished"] == chaos.total
