"""The median of a time series, and what it must be scaled with: the light of the source in each integration.

NIRISS SOSS has a background of its own kind, with a step, that templates describe.

Source: JWST pipeline documentation, "clean_flicker_noise", background_method median_image.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np

from jwstdask.core import dq as flags
from jwstdask.kernels.errors import CleaningError
from jwstdask.kernels.medians import median_of_first
from jwstdask.kernels.soss_trace import extrapolated, soss_trace, soss_wavelengths

_STEP_COLUMNS = slice(685, 725)
"""Where the background of SOSS steps up."""
_LAST_FITTED_COLUMN = 950
"""Light of sources spoils the background beyond."""
_SUBSTRIP96_ROWS = slice(10, 106)
"""Rows of SUBSTRIP256 that SUBSTRIP96 is taken to have, in templates."""
_BOX = 15
"""Rows across the trace of the first order that are summed."""


@numba.njit(cache=True, nogil=True)
def _medians_of_integrations(values, out):
    integrations, groups, ny, nx = values.shape
    sample = np.empty(integrations, np.float32)
    for group in range(groups):
        for y in range(ny):
            for x in range(nx):
                count = 0
                for integration in range(integrations):
                    value = values[integration, group, y, x]
                    if value == value:
                        sample[count] = value
                        count += 1
                out[group, y, x] = median_of_first(sample, count) if count else np.float32(np.nan)


def median_of_integrations(sci: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Median over integrations, NaN left out.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x).
    out
        float32 (group, y, x) to fill.
    """
    if out is None:
        out = np.empty(sci.shape[1:], np.float32)
    _medians_of_integrations(sci, out)
    return out


def flux_scale(flux: np.ndarray) -> np.ndarray:
    """Flux of each integration over the median of all, 1 where it is not finite.

    Parameters
    ----------
    flux
        float (integration,).

    Raises
    ------
    CleaningError
        If no flux is finite.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        scale = flux / np.nanmedian(flux)
    invalid = ~np.isfinite(scale)
    if invalid.all():
        raise CleaningError("no integration has a flux to scale the median image with")
    scale[invalid] = np.median(scale[~invalid])
    return scale


def median_fluxes(rateints: np.ndarray) -> np.ndarray:
    """Median of each integration of a cube (integration, y, x), NaN left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.array([np.nanmedian(image) for image in rateints])


def soss_background(
    rates: np.ndarray,
    dq: np.ndarray,
    templates: np.ndarray,
    source_percentile: float = 35.0,
    background_percentile: Sequence[float] = (25.0, 50.0),
) -> np.ndarray | None:
    """Rates without the background of SOSS.

    The ratio of rates to each template is found left and right of the step, as the median of ratios between two
    percentiles; the template with the least residuals is subtracted.

    Parameters
    ----------
    rates
        float32 (integration, y, x).
    dq
        uint32, of the same shape.
    templates
        float32 (template, y, x) of 256 rows, or as many as the rates have.
    source_percentile
        Pixels above that see sources.
    background_percentile
        Between which of the ratios are trusted.

    Returns
    -------
    subtracted
        float32, as ``rates``; None if no template fits.
    """
    if templates.shape[-2] == 256 and rates.shape[-2] == 96:
        templates = templates[:, _SUBSTRIP96_ROWS]
    elif templates.shape[-2] != rates.shape[-2]:
        return None
    flagged = (dq & np.uint32(flags.DO_NOT_USE | flags.REFERENCE_PIXEL)) != 0
    usable = np.isfinite(rates) & ~flagged
    # What is not finite falls out with the ratios.
    usable = ~flagged & ~(usable & (rates >= np.nanpercentile(rates[usable], source_percentile)))
    best: tuple[float, np.ndarray, list[float]] | None = None
    for template in templates:
        fits = [_ratio(rates, template, usable & side, background_percentile) for side in _sides(template, True)]
        residual = sum(error for _, error in fits)
        if residual < (np.inf if best is None else best[0]):
            best = residual, template, [scale for scale, _ in fits]
    if best is None:
        return None
    _, template, scales = best
    subtracted = rates.copy()
    for side, scale in zip(_sides(template, False), scales, strict=True):
        subtracted -= template * side * np.float64(scale)
    return subtracted


def _sides(template: np.ndarray, fitted: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixels left and right of the step, bool (y, x); ``fitted`` without those that see sources."""
    from scipy import ndimage

    slope = np.gradient(ndimage.gaussian_filter(template, 3), axis=1)
    step = np.argmax(slope[:, _STEP_COLUMNS], axis=1) + _STEP_COLUMNS.start
    columns = np.arange(template.shape[1])
    right = columns >= step[:, np.newaxis]
    return ~right, right & (columns <= _LAST_FITTED_COLUMN) if fitted else right


def _ratio(
    rates: np.ndarray, template: np.ndarray, where: np.ndarray, percentile: Sequence[float]
) -> tuple[float, float]:
    """Ratio of rates to a template, and the residual (root of the mean square)."""
    values, model = rates[where], np.broadcast_to(template, rates.shape)[where]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = values / model
    finite = np.isfinite(ratio)
    if not finite.any():
        return np.nan, np.inf
    low, high = np.nanpercentile(ratio[finite], percentile)
    trusted = finite & (ratio > low) & (ratio < high)
    if not trusted.any():
        return np.nan, np.inf
    scale = np.nanmedian(ratio[trusted])
    rest = values[finite] - model[finite] * scale
    return scale, float(np.sqrt(np.square(rest).mean()))


def soss_fluxes(
    rates: np.ndarray, model: Mapping[str, Any], pupil_position: float, subarray: str, limits: tuple[float, float]
) -> np.ndarray:
    """Sum over the first order of each integration, float64 (integration,).

    Parameters
    ----------
    rates
        float32 (integration, y, x) without background.
    model
        The pastasoss reference.
    pupil_position
        Angle of the pupil wheel [degree].
    subarray
        Its name.
    limits
        Least and largest wavelength to count [um].

    Raises
    ------
    CleaningError
        If the reference does not know the angle, or the frame has not its columns.
    """
    shape = rates.shape[-2:]
    number = next(i for i, trace in enumerate(model["traces"]) if int(trace["spectral_order"]) == 1)
    # As in jwst the box lies where the trace is in SUBSTRIP256, whatever the subarray.
    x, y, _ = soss_trace(model, number, pupil_position, "SUBSTRIP256")
    columns = x.astype(int)
    if columns.max() >= shape[1]:
        raise CleaningError(f"a frame of {shape[1]} columns does not hold the trace of the first order")
    weights = np.zeros(shape)
    weights[:, columns] = box(y, shape[0])
    height = weights.sum(axis=0)
    wavelengths = np.nan_to_num(column_wavelengths(model, number, pupil_position, subarray)[: shape[1]])
    counted = (height > 0) & (wavelengths >= limits[0]) & (wavelengths <= limits[1])
    return np.array([np.nansum(np.nansum(image * weights, axis=0)[counted]) for image in rates])


def box(center: np.ndarray, rows: int, width: float = _BOX) -> np.ndarray:
    """How much of each pixel is in a box about a place in its column, float64 (y, center): 0 to 1."""
    pixels = np.arange(rows)[:, np.newaxis]
    low, high = center - width / 2, center + width / 2
    return np.clip(np.minimum(pixels + 0.5, high) - np.maximum(pixels - 0.5, low), 0.0, 1.0)


def column_wavelengths(
    model: Mapping[str, Any], number: int, pupil_position: float, subarray: str, repeats: int = 5, close: float = 1e-2
) -> np.ndarray:
    """Wavelength of each column of the detector [um], float64 (x,); NaN beyond the trace. Lines are not tilted."""
    grid = soss_wavelengths(model)
    x, _, own = soss_trace(model, number, pupil_position, subarray)
    trace = extrapolated(grid, own, x)
    columns = np.arange(model["meta"]["soss_xdim"], dtype=np.float64)
    shift = np.zeros(columns.shape)
    for _ in range(repeats):
        # The trace runs from right to left.
        found = np.interp(columns - shift, trace[::-1], grid[::-1])
        off = np.interp(found, grid, trace) - columns
        shift = shift + off
        if (np.abs(off) < close).all():
            break
    return np.interp(columns - shift, trace[::-1], grid[::-1], left=np.nan, right=np.nan)


def background_ramp_time(group: int, nframes: int, groupgap: int, frame_time: float) -> float:
    """Time from reset to the end of the frames of a group [s]."""
    return (nframes + (nframes + groupgap) * group) * frame_time


def median_of(values: np.ndarray) -> float:
    """Median of finite values; NaN of none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(np.nanmedian(values))
