"""How kernels are compiled."""

from typing import Any

COMPILED: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
"""Options of kernels: kept on disk, side by side in threads, no exceptions for divisions by zero."""

UNCOUNTED: dict[str, Any] = {**COMPILED, "_nrt": False}
"""Those of kernels that make no arrays, which work on what their caller holds.

numba counts each part that is taken of an array, and each that is done with, by an atomic instruction, if a function
could be the last one to use it: a seventh of the time of a fit whose lines are short.
"""

INLINE: dict[str, Any] = {**UNCOUNTED, "forceinline": True}
"""Those of parts of such kernels."""
