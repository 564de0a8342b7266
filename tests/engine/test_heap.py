"""Memory that is freed is used again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_TILES = """
import resource, sys
import numpy as np
from jwstdask.engine.heap import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def tile():
    return np.ones(4_000_000, np.uint8).sum()
tile()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    tile()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators than that of glibc are left alone")
def test_tiles_use_the_same_pages():
    """With the environment of Dask's workers: 20 tiles of 1,000 pages take no more new pages than one, kept."""
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536", "NUMPY_MADVISE_HUGEPAGE": "0"}
    faults = {
        kind: int(subprocess.check_output([sys.executable, "-c", _TILES, kind], env=environment, text=True))
        for kind in ("kept", "given back")
    }
    assert faults["kept"] < 1_000 < 10_000 < faults["given back"]
