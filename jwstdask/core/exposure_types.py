"""Groups of EXP_TYPE values that are treated alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jwstdask.core.errors import PlanError

GUIDER = frozenset(("FGS_ACQ1", "FGS_ACQ2", "FGS_FINEGUIDE", "FGS_ID-IMAGE", "FGS_ID-STACK", "FGS_TRACK"))
"""The guiders' own exposures, which have one array of flags."""

INSTRUMENTS = {"FGS": "FGS_", "MIRI": "MIR_", "NIRCAM": "NRC_", "NIRISS": "NIS_", "NIRSPEC": "NRS_"}
"""INSTRUME to what its EXP_TYPEs begin with."""


def check_instrument(meta: Mapping[str, Any]) -> None:
    """Refuse an instrument that there is not, or that takes no exposures of the EXP_TYPE.

    Raises
    ------
    PlanError
        That names both.
    """
    instrument, exp_type = meta.get("meta.instrument.name"), meta.get("meta.exposure.type")
    remedy = "correct the keyword, or get the file again from MAST"
    if instrument is not None and instrument not in INSTRUMENTS:
        raise PlanError(f"INSTRUME is {instrument!r}, which is none of {', '.join(INSTRUMENTS)}", remedy)
    if instrument is not None and exp_type is not None and not exp_type.startswith(INSTRUMENTS[instrument]):
        raise PlanError(f"INSTRUME is {instrument}, which takes no exposures of EXP_TYPE {exp_type}", remedy)
