"""The pipelines under jwst's names: ``from jwstdask.pipeline import Detector1Pipeline``."""

from __future__ import annotations

from typing import Any

__all__ = ["DarkPipeline", "Detector1Pipeline", "GuiderPipeline", "Image2Pipeline", "Image3Pipeline"]  # noqa: F822


def __getattr__(name: str) -> Any:
    if name.startswith("_") or not name.endswith("Pipeline"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jwstdask.pipelines.facade import by_name

    return by_name(name)


def __dir__() -> list[str]:
    return __all__
