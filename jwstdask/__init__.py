"""The JWST Science Calibration Pipeline as a Dask-distributed batch processor."""

from __future__ import annotations

__version__ = "0.1.0"
