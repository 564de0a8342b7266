"""Flag the first groups of MIRI ramps, which the reset-switch charge decay spoils."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.step import Step


@dataclass(frozen=True, kw_only=True)
class RscdStep(Step):
    """Flag the first groups of MIRI ramps, which the reset-switch charge decay spoils."""

    alias = "rscd"
    class_name = "RscdStep"
    status = "rscd"
    available = False
    reference_types = ("rscd",)
