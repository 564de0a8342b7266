"""The JWST Science Calibration Pipeline as a Dask-distributed batch processor.

Nothing heavy is imported here: the public names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "open_exposure": "jwstdask.io.dataset",
    "write_exposure": "jwstdask.io.dataset",
    "open_program": "jwstdask.program.explore",
    "run_program": "jwstdask.pipelines.facade",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
