"""Flag the last group of MIRI ramps."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.step import Step


@dataclass(frozen=True, kw_only=True)
class LastFrameStep(Step):
    """Flag the last group of MIRI ramps."""

    alias = "lastframe"
    class_name = "LastFrameStep"
    status = "lastframe"
    available = False
