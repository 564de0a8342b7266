"""Errors of kernels that tell why an exposure cannot be worked on, whatever step asks."""

from __future__ import annotations


class CleaningError(Exception):
    """The noise of an image cannot be fitted: the mask does not suit the data."""
