"""Subtract the reset anomaly of MIRI ramps."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.step import Step


@dataclass(frozen=True, kw_only=True)
class ResetStep(Step):
    """Subtract the reset anomaly of MIRI ramps."""

    alias = "reset"
    class_name = "ResetStep"
    status = "reset"
    available = False
    reference_types = ("reset",)
