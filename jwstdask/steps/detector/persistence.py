"""Flag groups of pixels that saturated lately, until their persistence expires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asdf
import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.errors import ParameterError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import persistence

_DAY = 86400.0
_MJD_1970 = 40587.0


@dataclass(frozen=True)
class Windows:
    """Times of the groups [s since 1970], (integration, group), and the windows left open before, (y, x) or None."""

    times: np.ndarray
    expiry: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class PersistenceStep(Step):
    """Flag groups of pixels that saturated lately, until their persistence expires."""

    alias = "persistence"
    class_name = "PersistenceStep"
    status = "persistence"
    equations = "PERSISTENCE in all groups within persistence_time after the first saturated group of an integration"

    skip: bool = par(True, "do not run")
    save_persistence: str | None = par(None, "ASDF file to save the expiry times in")
    persistence_time: int | None = par(None, "how long a pixel stays flagged", unit="s")
    dn_threshold: float | None = par(None, "flag pixels above this value too", unit="DN")
    persistence_array_file: str | None = par(None, "ASDF file of expiry times left by the previous exposure")
    persistence_dnu: bool = par(False, "set DO_NOT_USE together with PERSISTENCE")

    def check(self, meta: Meta) -> None:
        if self.skip:
            return
        if self.persistence_time is None or self.persistence_time <= 0:
            raise ParameterError(
                f"persistence.persistence_time: needs a positive number of seconds, has {self.persistence_time}",
                "Give one, or skip the step with steps.persistence.skip=True.",
            )
        if self.save_persistence is not None:
            raise ParameterError(
                "persistence.save_persistence: saving expiry times is not available in this version",
                "Leave it out.",
            )

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Windows:
        integrations, ngroups = int(meta["meta.exposure.nints"]), int(meta["meta.exposure.ngroups"])
        exposure = (meta["meta.exposure.start_time"] - _MJD_1970) * _DAY
        table = meta.get("int_times")
        times = np.empty((integrations, ngroups))
        for i in range(integrations):
            if table is not None and len(table) > i:
                now = (float(table[i]["int_start_MJD_UTC"]) - _MJD_1970) * _DAY
            else:
                now = exposure + i * meta["meta.exposure.integration_time"]
            for group in range(ngroups):
                now = now + meta["meta.exposure.group_time"]
                times[i, group] = now
        return Windows(times, self._left_open(meta))

    def _left_open(self, meta: Meta) -> np.ndarray | None:
        """Windows of the exposure before, if its file has them for this detector and this duration."""
        if self.persistence_array_file is None or not Path(self.persistence_array_file).exists():
            return None
        with asdf.open(self.persistence_array_file) as file:
            found = file.tree.get(meta["meta.instrument.detector"])
            if found is None or found["pers_time"] != self.persistence_time:
                return None
            expiry = np.zeros((int(meta["meta.subarray.ysize"]), int(meta["meta.subarray.xsize"])))
            expiry[np.asarray(found["rows"]), np.asarray(found["cols"])] = np.asarray(found["vals"])
            return expiry

    def apply(self, block: RampBlock, prepared: Windows, gathered: Any = None) -> None:
        expiry = prepared.expiry
        persistence.flag(
            block.sci,
            block.groupdq,
            prepared.times[: block.sci.shape[0]],
            float(self.persistence_time or 0),
            dn_threshold=self.dn_threshold,
            do_not_use=self.persistence_dnu,
            expiry=None if expiry is None else expiry[block.window.rows, block.window.columns],
            out=block.groupdq,
        )
