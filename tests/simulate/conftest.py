from __future__ import annotations

import pytest

from jwstdask.simulate import make_cache, make_program


@pytest.fixture(scope="session")
def small_cache(tmp_path_factory):
    """References of two detectors for SUB160."""
    return make_cache(tmp_path_factory.mktemp("cache"), detectors=("nrca1", "nrcb1"), subarray="SUB160", seed=5)


@pytest.fixture(scope="session")
def small_program(tmp_path_factory, small_cache):
    """Four dithers of NRCA1 with everything switched on."""
    return make_program(tmp_path_factory.mktemp("program"), small_cache, detectors=("nrca1",), dithers=4, seed=5)
