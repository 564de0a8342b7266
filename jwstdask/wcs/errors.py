"""Errors of coordinate systems, apart from them: these load gwcs, which planning does without."""

from __future__ import annotations


class NoSlitError(ValueError):
    """No slit or slice falls on the detector."""


class MsaMetadataError(ValueError):
    """The MSA metadata file is missing or does not tell the slits."""
