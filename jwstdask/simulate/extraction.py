"""Where spectra of time series are extracted, as references: apertures, aperture corrections, the grisms of NIRCam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.modeling.models import Polynomial1D

SLIT = "S1600A1"
"""The slit of bright objects."""
GRISM_FILTERS: Mapping[str, tuple[float, float]] = {
    "F277W": (2.50, 3.81), "F322W2": (2.50, 4.22), "F356W": (3.00, 4.30), "F444W": (3.70, 4.90),
}  # fmt: skip
"""Range of the first order of filters [um]."""

APERTURES: Mapping[str, list[dict[str, Any]]] = {
    "NRS_BRIGHTOBJ": [
        {"id": SLIT, "region_type": "target", "extract_width": 6, "use_source_posn": True,
         "bkg_coeff": [[-0.5], [2.5]], "bkg_fit": "median"},
    ],
    "NRC_TSGRISM": [
        {"id": "ANY", "region_type": "target", "xstart": 4, "xstop": 2043, "ystart": 30.0, "ystop": 38.0,
         "bkg_coeff": [[6.5], [16.5], [49.5], [59.5]], "bkg_order": 0, "smoothing_length": 0},
    ],
}  # fmt: skip
"""Apertures by EXP_TYPE."""


def grism() -> dict[str, dict[str, Any]]:
    """Dispersion of GRISMR of module A, and the wavelengths of filters through it: contents by reference type."""
    # 1.004 nm a pixel; the wavelength in the aperture's reference point is 3.937 um.
    along = Polynomial1D(1, c0=-1530.0, c1=2589.6)
    back = Polynomial1D(1, c0=1530.0 / 2589.6, c1=1 / 2589.6)
    orders = [1]
    return {
        "specwcs": {
            "displ": [Polynomial1D(1, c0=2.4, c1=2.6)], "dispx": [along], "dispy": [Polynomial1D(1, c0=0.0, c1=0.0)],
            "invdispx": [back], "orders": orders,
        },
        "wavelengthrange": {
            "extract_orders": [[name, orders] for name in GRISM_FILTERS], "order": orders,
            "waverange_selector": list(GRISM_FILTERS),
            "wavelengthrange": [[1, "ANY", name, *limits] for name, limits in GRISM_FILTERS.items()],
        },
    }  # fmt: skip


def slit_correction(configurations: Sequence[tuple[str, str]]) -> fits.BinTableHDU:
    """APCORR table of filters and gratings: less light is missed in wider apertures and in the middle of a pixel."""
    wavelengths = np.linspace(0.5, 5.5, 21)
    phases = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    sizes = np.arange(1, 11)[:, np.newaxis] * np.ones(21)
    missed = np.exp(-sizes / (1.5 + 0.3 * wavelengths))[..., np.newaxis] * (1 + 0.4 * np.abs(phases - 0.5))
    rows = len(configurations)

    def repeated(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values.astype(np.float32), (rows, *values.shape))

    def dimensions(values: np.ndarray) -> str:
        return "(" + ",".join(str(n) for n in values.shape[::-1]) + ")"

    factors = 1 / (1 - 0.5 * missed)
    columns = [
        fits.Column("filter", "12A", array=[name for name, _ in configurations]),
        fits.Column("grating", "15A", array=[name for _, name in configurations]),
        fits.Column("slit", "15A", array=[SLIT] * rows),
        fits.Column("wavelength", "21E", array=repeated(wavelengths)),
        fits.Column("nelem_wl", "I", array=[21] * rows),
        fits.Column("size", f"{sizes.size}E", dim=dimensions(sizes), array=repeated(sizes)),
        fits.Column("nelem_size", "I", array=[len(sizes)] * rows),
        fits.Column("pixphase", "5E", array=repeated(phases)),
        fits.Column("apcorr", f"{factors.size}E", dim=dimensions(factors), array=repeated(factors)),
        fits.Column("apcorr_err", f"{factors.size}E", dim=dimensions(factors), array=repeated(0 * factors)),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="APCORR")
    table.header["SIZEUNIT"] = "pixels"
    return table
