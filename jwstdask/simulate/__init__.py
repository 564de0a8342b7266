"""Synthetic CRDS caches and exposures with known truth, independent of the calibration code.

>>> cache = make_cache("cache")                        # doctest: +SKIP
>>> program = make_program("program", cache, seed=3)   # doctest: +SKIP
>>> os.environ.update(cache.environment)               # doctest: +SKIP
"""

from __future__ import annotations

from jwstdask.simulate.program import Cache, Program, make_cache, make_program
from jwstdask.simulate.ramps import Effects

__all__ = ["Cache", "Effects", "Program", "make_cache", "make_program"]
