"""Flag groups of pixels that saturated lately, until their persistence expires."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.params import par
from jwstdask.core.step import Step


@dataclass(frozen=True, kw_only=True)
class PersistenceStep(Step):
    """Flag groups of pixels that saturated lately, until their persistence expires."""

    alias = "persistence"
    class_name = "PersistenceStep"
    status = "persistence"
    available = False

    skip: bool = par(True, "do not run")
    save_persistence: str | None = par(None, "ASDF file to save the expiry times in")
    persistence_time: int | None = par(None, "how long a pixel stays flagged", unit="s")
    dn_threshold: float | None = par(None, "flag pixels above this value too", unit="DN")
    persistence_array_file: str | None = par(None, "ASDF file of expiry times left by the previous exposure")
    persistence_dnu: bool = par(False, "set DO_NOT_USE together with PERSISTENCE")
