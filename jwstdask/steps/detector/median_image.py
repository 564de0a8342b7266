"""Median image of a time series, scaled with the light of its source in each integration.

The light is that in an aperture (imaging), of a spectrum (NIRSpec, grisms of NIRCam; of NIRISS SOSS the first order),
or else the median of the image.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jwstdask.core.step import Meta
from jwstdask.kernels.background import fill_smoothly
from jwstdask.kernels.errors import CleaningError
from jwstdask.kernels.median_image import (
    background_ramp_time,
    flux_scale,
    median_fluxes,
    median_of,
    median_of_integrations,
    soss_background,
    soss_fluxes,
)
from jwstdask.refs.parameters import crds_parameters_disabled, with_parameters
from jwstdask.refs.reference import Reference
from jwstdask.steps.detector import spectral_light

SOSS_SUBARRAYS = (
    "SUBSTRIP256",
    "SUB17STRIPE_SOSS",
    "SUB60STRIPE_SOSS",
    "SUB204STRIPE_SOSS",
    "SUB680STRIPE_SOSS",
    "SUBSTRIP96",
)
PHOTOMETRY = "pars-tsophotometrystep"
"""Parameters of the photometry that scales time series of images."""
SPECTRA = (spectral_light.SLIT, spectral_light.GRISM)
"""Time series whose light is that of extracted spectra."""
_ROWS = 32


def is_photometric(meta: Meta) -> bool:
    """Whether the light of a time series is that in an aperture."""
    kind = meta.get("meta.exposure.type")
    series = meta.get("meta.visit.tsovisit") and (meta.get("meta.exposure.nints") or 2) > 1
    return kind == "NRC_TSIMAGE" or (kind == "MIR_IMAGE" and bool(series))


def references_for(meta: Meta) -> tuple[str, ...]:
    """Reference types that :func:`median_image` needs."""
    if meta.get("meta.exposure.type") == "NIS_SOSS":
        return "bkg", "wavelengthrange"
    if meta.get("meta.exposure.type") in SPECTRA:
        return spectral_light.references_for(meta)
    if is_photometric(meta):
        return ("gain",) if crds_parameters_disabled() else ("gain", PHOTOMETRY)
    return ()


@dataclass(frozen=True)
class Aperture:
    """Parameters of the photometry: those of jwst's tso_photometry that its sum of the aperture depends on."""

    radius: float = 3.0
    radius_inner: float = 4.0
    centroid_source: bool = True
    search_box_width: int = 41
    fit_box_width: int = 11
    moving_centroid: bool = False


@dataclass(frozen=True)
class MedianImage:
    """What is taken for background of the groups of each integration.

    Attributes
    ----------
    median
        float32 ([group,] y, x).
    scale
        float (integration,).
    background
        Background that was left out of the median: rates, float32 (integration, y, x), or None.
    times
        What rates are multiplied with in each group.
    """

    median: np.ndarray
    scale: np.ndarray
    background: np.ndarray | None = None
    times: tuple[float, ...] = field(default=(1.0,))

    def of(self, integration: int) -> tuple[np.ndarray, np.floating | float]:
        """The image ([group,] y, x) of an integration and its scale."""
        if self.background is None:
            return self.median, self.scale[integration]
        level = self.scale[integration] * self.median.reshape(-1, *self.median.shape[-2:])
        for image, time in zip(level, self.times, strict=True):
            image += self.background[integration] * time
        return level.reshape(self.median.shape), 1.0


def median_image(
    meta: Meta,
    references: Mapping[str, Reference | None],
    traces: Mapping[str, Any] | None,
    sci: np.ndarray,
    rates: np.ndarray,
    dq: np.ndarray,
    variances: Sequence[np.ndarray] = (),
) -> MedianImage:
    """The median image of an exposure.

    Parameters
    ----------
    meta
        Metadata of the exposure.
    references
        Those of :func:`references_for`.
    traces
        The pastasoss reference (NIRISS SOSS).
    sci
        The exposure: float32 of any byte order (integration, [group,] y, x). Of three dimensions it is a cube of rates
        and the median is one of ``rates``, as in jwst.
    rates
        Draft rates, float32 (integration, y, x).
    dq
        Their flags.
    variances
        Of the rates.

    Raises
    ------
    CleaningError
        If there is no other integration, or no light to scale the median with.
    """
    if sci.ndim < 3 or sci.shape[0] < 2:
        raise CleaningError("a median image needs more than one integration")
    background = None
    if meta.get("meta.exposure.type") == "NIS_SOSS":
        flux, background = _soss(meta, references, traces, rates, dq)
    elif meta.get("meta.exposure.type") in SPECTRA:
        flux = spectral_light.spectral_fluxes(meta, references, rates, dq, variances)
    elif is_photometric(meta):
        flux = _photometry(meta, references, rates, dq)
    else:
        flux = median_fluxes(rates)
    scale = flux_scale(flux)
    is_ramp = sci.ndim == 4
    groups = sci if is_ramp else rates[:, np.newaxis]
    times: tuple[float, ...] = (1.0,)
    if is_ramp and background is not None:
        names = ("nframes", "groupgap", "frame_time")
        nframes, groupgap, frame_time = (meta[f"meta.exposure.{name}"] for name in names)
        times = tuple(background_ramp_time(i, nframes, groupgap, frame_time) for i in range(sci.shape[1]))
    median = np.empty(groups.shape[1:], np.float32)
    for start in range(0, sci.shape[-2], _ROWS):
        rows = slice(start, start + _ROWS)
        for group in range(groups.shape[1]):
            part = np.array(groups[:, group : group + 1, rows], np.float32, order="C")
            if background is not None:
                part[:, 0] -= background[:, rows] * times[group]
            median[group, rows] = median_of_integrations(part)[0]
    return MedianImage(median if is_ramp else median[0], scale, background, times)


def _soss(
    meta: Meta,
    references: Mapping[str, Reference | None],
    traces: Mapping[str, Any] | None,
    rates: np.ndarray,
    dq: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Light of the first order of each integration, and the background; None without a template that fits."""
    if traces is None:
        raise CleaningError("there is no pastasoss reference to find the spectrum with")
    templates = references.get("bkg")
    subtracted = None
    if templates is not None:
        subtracted = soss_background(rates, dq, np.asarray(templates.array("sci"), np.float32))
    background = None
    if subtracted is not None:
        background = rates - subtracted
        for image in background:
            invalid = ~np.isfinite(image)
            if invalid.all():
                raise CleaningError("the background has no valid value")
            image[...] = fill_smoothly(image, invalid)
    angle, subarray = float(meta["meta.instrument.pupil_position"]), str(meta.get("meta.subarray.name"))
    limits = _wavelengths(meta, references.get("wavelengthrange"))
    return soss_fluxes(rates if subtracted is None else subtracted, traces, angle, subarray, limits), background


def _wavelengths(meta: Meta, reference: Reference | None) -> tuple[float, float]:
    """Range of wavelengths [um] of the first order; all without a reference."""
    if reference is None:
        return -1.0, 1e10
    wanted = 1, meta.get("meta.instrument.filter")
    found = [row[2:] for row in reference.asdf["wavelengthrange"] if (int(row[0]), row[1]) == wanted]
    if len(found) != 1:
        raise CleaningError(f"the wavelengthrange reference has {len(found)} rows for order 1 with {wanted[1]}")
    low, high = found[0]
    return float(low), float(high)


def _photometry(
    meta: Meta, references: Mapping[str, Reference | None], rates: np.ndarray, dq: np.ndarray
) -> np.ndarray:
    """Sum in an aperture about the source in each integration, float64 (integration,)."""
    from photutils.aperture import ApertureStats, CircularAperture

    aperture = with_parameters(Aperture(), references.get(PHOTOMETRY))
    place = [meta.get(f"meta.wcsinfo.siaf_{axis}ref_sci") for axis in "xy"]
    unit = meta.get("meta.bunit_data") if meta.get("meta.cal_step.ramp_fit") == "COMPLETE" else "DN/s"
    if None in place:
        raise CleaningError("keywords XREF_SCI and YREF_SCI, which say where the source is, are missing")
    if unit == "DN/s":
        gain = references.get("gain")
        time = meta.get("meta.exposure.integration_time")
        if gain is None or time is None:
            raise CleaningError("there is no gain reference or keyword EFFINTTM is missing")
        rates = rates * (time * np.asarray(gain.match(meta).array("sci"), np.float32))
    x, y = (value - 1 for value in place)
    if meta.get("meta.instrument.pupil") == "WLP8" and meta.get("meta.subarray.name") == "SUB64P":
        # The source is wider than the frame.
        return np.array([np.nansum(image) for image in rates])
    centers = np.full((len(rates), 2), (x, y), np.float64)
    if aperture.centroid_source:
        centers = _centroids(rates, ((dq & 1) != 0) | np.isnan(rates), (x, y), aperture)
    if not np.isfinite(centers).all():
        # As in jwst, an integration without a place spoils all where the source may move.
        raise CleaningError("the source is not found in every integration")
    sums = [ApertureStats(image, CircularAperture(tuple(c), r=aperture.radius)).sum for image, c in zip(rates, centers)]
    return np.array(sums, np.float64)


def _centroids(rates: np.ndarray, mask: np.ndarray, start: tuple[float, float], aperture: Aperture) -> np.ndarray:
    """Where the source is in each integration, (integration, xy): in all in the same place, unless it may move."""
    found = np.empty((0, 2))
    where = start
    for width in (aperture.search_box_width, aperture.fit_box_width):
        odd = width - (width % 2 == 0)
        found = np.array([_centroid(*image, where, odd, aperture.radius_inner) for image in zip(rates, mask)])
        if np.isnan(found).all(axis=0).any():
            return np.full(found.shape, start, np.float64)
        where = median_of(found[:, 0]), median_of(found[:, 1])
    return found if aperture.moving_centroid else np.full(found.shape, where)


def _centroid(
    image: np.ndarray, mask: np.ndarray, where: tuple[float, float], width: int, radius: float
) -> tuple[float, float]:
    """Centre of mass in a box above the median of the pixels further from a place than a radius; NaN for none."""
    from photutils.centroids import centroid_sources

    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    away = (x - where[0]) ** 2 + (y - where[1]) ** 2 >= radius**2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            columns, rows = centroid_sources(image - np.nanmedian(image[away]), *where, mask=mask, box_size=width)
        except ValueError:
            return np.nan, np.nan
    column, row = columns[0], rows[0]
    inside = 0 <= column < image.shape[1] and 0 <= row < image.shape[0]
    return (column, row) if inside else (np.nan, np.nan)
