"""Names of the dimensions of an exposure, outermost first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INTEGRATION = "integration"
GROUP = "group"
SUPERSTRIPE = "superstripe"
Y = "y"
X = "x"
RAMP = (INTEGRATION, GROUP, Y, X)
CUBE = (INTEGRATION, Y, X)
IMAGE = (Y, X)
WCS = "wcs"
"""Name of the coordinate that holds the gwcs object."""


def integrations_of(meta: Mapping[str, Any]) -> int:
    """Integrations in a file: of a segment of an exposure those from INTSTART to INTEND, NINTS otherwise."""
    first, last = meta.get("meta.exposure.integration_start"), meta.get("meta.exposure.integration_end")
    if first is not None and last is not None:
        return int(last) - int(first) + 1
    return int(meta.get("meta.exposure.nints") or 1)


def counted(meta: Mapping[str, Any], shape: tuple[int, ...]) -> Mapping[str, Any]:
    """Metadata whose INTEND agrees with a ramp of ``shape`` (integration, group, y, x), if only NINTS does."""
    if len(shape) != 4 or meta.get("meta.exposure.nints") != shape[0] or integrations_of(meta) == shape[0]:
        return meta
    return {**meta, "meta.exposure.integration_end": int(meta["meta.exposure.integration_start"]) + shape[0] - 1}
