"""Groups of EXP_TYPE values that are treated alike."""

from __future__ import annotations

GUIDER = frozenset(("FGS_ACQ1", "FGS_ACQ2", "FGS_FINEGUIDE", "FGS_ID-IMAGE", "FGS_ID-STACK", "FGS_TRACK"))
"""The guiders' own exposures, which have one array of flags."""
