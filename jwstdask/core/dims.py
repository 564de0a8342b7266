"""Names of the dimensions of an exposure, outermost first."""

from __future__ import annotations

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
