"""Flag groups whose charge has begun to spread into neighbouring pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import charge_migration


@dataclass(frozen=True, kw_only=True)
class ChargeMigrationStep(Step):
    """Flag groups whose charge has begun to spread into neighbouring pixels."""

    alias = "charge_migration"
    class_name = "ChargeMigrationStep"
    status = "charge_migration"
    equations = (
        "first group g of an integration with SCI > signal_threshold and GROUPDQ other than DO_NOT_USE alone:\n"
        "GROUPDQ |= CHARGELOSS, DO_NOT_USE from g on, in the pixel and its four neighbours"
    )
    sources = "Goudfrooij, Grumm, Volk & Bushouse 2024, PASP 136, 014503"

    skip: bool = par(True, "do not run")
    signal_threshold: float = par(25000.0, "value above which charge spreads", unit="DN")

    @property
    def halo(self) -> int:
        return 1

    def skip_reason(self, meta: Meta) -> str | None:
        if meta.get("meta.exposure.ngroups", 3) < 3:
            return "Too few groups per integration; skipping charge_migration"
        return None

    def by_integration(self, meta: Meta) -> bool:
        return True

    def apply(self, block: RampBlock, prepared: Any, gathered: Any = None) -> None:
        # float32 as the ramp: a threshold that float32 cannot hold rounds to the nearest value it can.
        charge_migration.flag(block.sci, block.groupdq, np.float32(self.signal_threshold))
