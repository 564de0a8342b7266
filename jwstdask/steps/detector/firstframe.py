"""Flag the first group of MIRI ramps (deprecated in favour of rscd)."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.params import par
from jwstdask.core.step import Step


@dataclass(frozen=True, kw_only=True)
class FirstFrameStep(Step):
    """Flag the first group of MIRI ramps (deprecated in favour of rscd)."""

    alias = "firstframe"
    class_name = "FirstFrameStep"
    status = "firstframe"
    available = False

    skip: bool = par(True, "do not run")
    bright_use_group1: bool = par(True, "keep the first group where the third is saturated")
