from __future__ import annotations

from tests.simulate.conftest import small_cache, small_program

__all__ = ["small_cache", "small_program"]
