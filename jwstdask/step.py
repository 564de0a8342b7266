"""The steps under jwst's names: ``from jwstdask.step import JumpStep``."""

from __future__ import annotations

from typing import Any

from jwstdask.steps.registry import CLASSES

__all__ = sorted(CLASSES.values())


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in CLASSES.values():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jwstdask.pipelines.facade import by_name

    return by_name(name)


def __dir__() -> list[str]:
    return __all__
