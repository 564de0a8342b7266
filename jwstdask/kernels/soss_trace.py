"""Where the orders of a NIRISS SOSS exposure fall on the detector, and their wavelengths.

Traces and polynomials of wavelength are those of a reference, turned to the angle of the pupil wheel.

Source: JWST pipeline documentation, "clean_flicker_noise" and "PASTASOSS Reference File".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jwstdask.kernels.errors import CleaningError


def soss_traces(
    shape: tuple[int, int], model: Mapping[str, Any], pupil_position: float, subarray: str, half_width: int = 16
) -> np.ndarray:
    """Where the orders of a NIRISS SOSS exposure fall.

    Parameters
    ----------
    shape
        Of the frame (y, x).
    model
        The pastasoss reference: ``traces`` and ``wavecal_models`` of each order, and ``meta``.
    pupil_position
        Angle of the pupil wheel [degree], which turns the traces about a pivot.
    subarray
        Its name; SUBSTRIP96 begins 10 rows higher.
    half_width
        Pixels above and below a trace that belong to it.

    Returns
    -------
    covered
        bool (y, x).

    Raises
    ------
    CleaningError
        If the reference does not know the angle.
    """
    wavelengths = soss_wavelengths(model)
    rows = np.arange(shape[0])[:, np.newaxis]
    covered = np.zeros(shape, np.bool_)
    for number in range(len(model["traces"])):
        x, y, own = soss_trace(model, number, pupil_position, subarray)
        columns, centers = extrapolated(wavelengths, own, x), extrapolated(wavelengths, own, y)
        order = np.argsort(columns)
        center = np.interp(np.arange(shape[1]), columns[order], centers[order])
        covered |= (rows >= np.floor(center - half_width)) & (rows <= np.ceil(center + half_width))
    return covered


def soss_wavelengths(model: Mapping[str, Any]) -> np.ndarray:
    """Wavelengths [um] at which traces are evaluated."""
    meta = model["meta"]
    return np.linspace(meta["wavemap_wlmin"], meta["wavemap_wlmax"], meta["wavemap_nwl"])


def soss_trace(
    model: Mapping[str, Any], number: int, pupil_position: float, subarray: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns, rows and wavelengths [um] of the trace of an order, counted from 0; see :func:`soss_traces`."""
    bounds = model["meta"]["pwcpos_bounds"]
    if not bounds[0] <= pupil_position <= bounds[1]:
        raise CleaningError(f"the pupil wheel at {pupil_position} degrees is outside of {bounds[0]} to {bounds[1]}")
    turn = pupil_position - model["meta"]["pwcpos_cmd"]
    trace = model["traces"][number]
    x, y = np.array(trace["trace"], np.float64).T
    if subarray == "SUBSTRIP96":
        y = y - 10
    x, y = _turned(x, y, turn, (trace["pivot_x"], trace["pivot_y"]))
    return x, y, _wavelengths(x, turn, model["wavecal_models"][number])


def _turned(x: np.ndarray, y: np.ndarray, angle: float, pivot: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A trace turned by an angle [degree], at the same columns as far as it is below row 256."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    dx, dy = x - pivot[0], y - pivot[1]
    turned_x, turned_y = cosine * dx - sine * dy + pivot[0], sine * dx + cosine * dy + pivot[1]
    order = np.argsort(turned_x)
    place = extrapolated(x, turned_x[order], turned_y[order])
    inside = place <= 255.0
    return x[inside], place[inside]


def extrapolated(where: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Linear interpolation, beyond both ends along the outermost pieces."""
    order = np.argsort(x)
    x, y = x[order], y[order]
    values = np.interp(where, x, y)
    low, high = where < x[0], where > x[-1]
    values[low] = y[0] + (where[low] - x[0]) * (y[1] - y[0]) / (x[1] - x[0])
    values[high] = y[-1] + (where[high] - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])
    return values


def _wavelengths(x: np.ndarray, turn: float, calibration: Mapping[str, Any]) -> np.ndarray:
    """Wavelength at columns of a trace: a polynomial in scaled column and angle, by ascending degree."""
    (x_low, turn_low), (x_high, turn_high) = calibration["scale_extents"]
    x, turn = (x - x_low) / (x_high - x_low), (turn - turn_low) / (turn_high - turn_low)
    powers = ((degree - k, k) for degree in itertools.count() for k in range(degree + 1))
    return sum(c * x**i * turn**k for c, (i, k) in zip(calibration["coefficients"], powers, strict=False))
