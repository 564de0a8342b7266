from __future__ import annotations

from tests.program.conftest import command, complete, dithers, field_of, quiet
from tests.simulate.conftest import small_cache, small_program

__all__ = ["command", "complete", "dithers", "field_of", "quiet", "small_cache", "small_program"]
