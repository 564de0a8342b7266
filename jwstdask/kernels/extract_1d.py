"""Spectra dispersed along x, summed in boxes or fitted with the image of a point source.

Boxes with parts of pixels, backgrounds, aperture corrections; profiles from references. Source: JWST pipeline
documentation, "extract_1d" (box and optimal extraction).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

_SINGULAR = 1e10
"""Condition number of the normal equations from which on a column has no background."""

Limits = tuple[tuple[Sequence[float], Sequence[float]], ...]
"""Polynomials of lower and upper limits of regions, constant term first."""


@dataclass(frozen=True)
class Box:
    """Where a spectrum is summed, in pixels of a cutout. What comes first in this list is taken, what follows is not.

    Attributes
    ----------
    limits
        Regions; their limits are at edges of pixels, as functions of x or of the wavelength.
    width, trace
        Rows about the place of the source in each column, float (x,).
    width, rows
        Rows about the middle of the first and last row.
    rows
        First and last row, both inclusive.
    columns
        First and last column.
    background_limits
        Regions of the background, as ``limits``; None for no background.
    by_wavelength
        Whether limits are functions of the wavelength [um].
    """

    rows: tuple[float, float]
    columns: tuple[float, float]
    limits: Limits | None = None
    width: float | None = None
    trace: np.ndarray | None = None
    background_limits: Limits | None = None
    by_wavelength: bool = False

    def moved(self, offset: float) -> Box:
        """The box some pixels further up, with its background and trace."""

        def shifted(limits: Limits | None) -> Limits | None:
            if limits is None:
                return None
            return tuple(((low[0] + offset, *low[1:]), (high[0] + offset, *high[1:])) for low, high in limits)

        return replace(
            self,
            rows=(self.rows[0] + offset, self.rows[1] + offset),
            limits=shifted(self.limits),
            background_limits=shifted(self.background_limits),
            trace=None if self.trace is None else self.trace + offset,
        )

    def weights(self, wavelengths: np.ndarray) -> np.ndarray:
        """How much of each pixel is in the box, float64 (y, x): 0 to 1.

        Parameters
        ----------
        wavelengths
            [um], float (y, x).
        """
        if self.limits is not None:
            return self._regions(self.limits, wavelengths, True)
        first, last = self.rows
        low: np.ndarray | float = first
        high: np.ndarray | float = last
        if self.width is not None:
            middle = (first + last) / 2.0 if self.trace is None else self.trace
            low = middle - (self.width - 1.0) / 2.0
            high = low + self.width - 1
        return self._in_columns(_share(np.asarray(low), np.asarray(high), wavelengths.shape, True))

    def background_weights(self, wavelengths: np.ndarray, parts: bool = True) -> np.ndarray | None:
        """The same for the background, None without one; ``parts`` of pixels count."""
        return None if self.background_limits is None else self._regions(self.background_limits, wavelengths, parts)

    def _regions(self, limits: Limits, wavelengths: np.ndarray, parts: bool) -> np.ndarray:
        x = wavelengths if self.by_wavelength else np.broadcast_to(np.arange(wavelengths.shape[1]), wavelengths.shape)
        x = x.astype(np.float64)
        weights = np.zeros(wavelengths.shape)
        for region in limits:
            # From edges to middles of the outermost pixels.
            low, high = (np.polynomial.polynomial.polyval(x, terms) for terms in region)
            np.maximum(weights, _share(low + 0.5, high - 0.5, wavelengths.shape, parts), out=weights)
        return self._in_columns(weights)

    def _in_columns(self, weights: np.ndarray) -> np.ndarray:
        columns = np.arange(weights.shape[1])
        weights[:, (columns < np.ceil(self.columns[0])) | (columns > np.floor(self.columns[1]))] = 0.0
        return weights


def _share(low: np.ndarray, high: np.ndarray, shape: tuple[int, ...], parts: bool) -> np.ndarray:
    """1 from row ``low`` to row ``high``, inclusive; rows less than one off count as what is left of them."""
    rows = np.arange(shape[0])[:, np.newaxis]
    weights = np.broadcast_to((rows >= low) & (rows <= high), shape).astype(np.float64)
    if parts:
        for part in (rows - low + 1, high - rows + 1):
            np.maximum(weights, np.where((part > 0) & (part < 1), part, 0.0), out=weights)
    return weights


def center_of(weights: np.ndarray, column: int) -> float:
    """Row of the middle of a box in a column; that of the frame if the box is not there."""
    found = weights[:, column]
    return float(np.average(np.arange(len(found)), weights=found if found.sum() != 0 else None))


def fit_background(
    image: np.ndarray, weights: np.ndarray, method: str, order: int = 0, smoothing_length: int = 0
) -> np.ndarray:
    """Background of each column.

    Parameters
    ----------
    image
        float32 (y, x), NaN for pixels without a value.
    weights
        More than 0 where there is background.
    method
        ``"median"``, or ``"poly"``: a polynomial of ``order`` in y, by least squares.
    smoothing_length
        Columns to average before, odd; fewer than 3 for none.

    Returns
    -------
    background
        float ([1 or] y, x); 0 where a polynomial cannot be fitted, NaN where there is nothing to take a median of.

    Raises
    ------
    ValueError
        If there is no such method, or the order is negative.
    """
    if method not in ("median", "poly") or order < 0 or order != int(order):
        raise ValueError(f"a background cannot be fitted by {method!r} of order {order}")
    where = weights != 0
    values = image
    if smoothing_length > 1:
        from astropy.convolution import convolve

        values = convolve(image, np.full((1, smoothing_length), 1 / smoothing_length), boundary="extend")
    if method == "median":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return np.nanmedian(np.where(where, values, np.asarray(np.nan, values.dtype)), axis=0)[np.newaxis]
    used = where & np.isfinite(values) & np.isfinite(image)
    powers = np.vander(np.linspace(-1, 1, len(image)), int(order) + 1, increasing=True)
    normal = np.einsum("yx,yi,yj->xij", used, powers, powers)
    right = np.einsum("yi,yx->xi", powers, np.where(used, values, 0.0))
    terms = np.zeros(right.shape)
    solvable = np.linalg.cond(normal) < _SINGULAR
    terms[solvable] = np.einsum("xij,xj->xi", np.linalg.inv(normal[solvable]), right[solvable])
    return powers @ terms.T


def box_spectrum(
    image: np.ndarray, weights: np.ndarray, background: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum over the rows of a box.

    Parameters
    ----------
    image
        float32 (y, x), NaN for pixels without a value.
    weights
        Of :meth:`Box.weights`.
    background
        Of :func:`fit_background`.

    Returns
    -------
    flux
        float64 (x,), NaN where no pixel has a value.
    pixels
        float64 (x,), how many were summed.
    """
    values = image if background is None else image - background
    usable = np.isfinite(values) & (weights != 0)
    weights = np.where(usable, weights, 0.0)
    flux = (np.where(usable, values, np.asarray(0, values.dtype)) * weights).sum(axis=0)
    pixels = weights.sum(axis=0)
    flux[np.isclose(pixels, 0)] = np.nan
    return flux, pixels


@dataclass(frozen=True)
class PointSpread:
    """Image of a point source, dispersed along x.

    Attributes
    ----------
    image
        float64 (y, wavelength).
    wavelengths
        Of its columns [um], float (wavelength,).
    center
        Row of the source.
    oversampling
        Rows of it to a pixel.
    """

    image: np.ndarray
    wavelengths: np.ndarray
    center: float
    oversampling: float

    def profile(self, wavelengths: np.ndarray, rows: np.ndarray, shift: float = 0.0) -> np.ndarray:
        """Share of the light of a source that falls on each pixel of a column, float64 (y, x).

        Parameters
        ----------
        wavelengths
            [um], float (y, x), NaN where there is no light.
        rows
            Of the source in each column, float (x,).
        shift
            By how many pixels the source is below them.
        """
        from scipy.ndimage import map_coordinates

        order = np.argsort(self.wavelengths)
        known = np.isfinite(self.wavelengths[order])
        columns = np.interp(wavelengths, self.wavelengths[order][known], order[known], left=np.nan, right=np.nan)
        # As in jwst places of the source count from the edge of the cutout.
        place = self.center - (rows + 0.5) * self.oversampling
        lines = np.arange(wavelengths.shape[0])[:, np.newaxis] * self.oversampling + place + shift * self.oversampling
        light = map_coordinates(self.image, [lines, columns], order=1)
        total = np.nansum(light, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            light = np.where(total != 0, light / total, 0.0)
        light[~np.isfinite(light)] = 0.0
        return light

    def shift(self, image: np.ndarray, variance: np.ndarray, wavelengths: np.ndarray, rows: np.ndarray) -> float:
        """By how many pixels the source in an image is below some rows.

        Parameters
        ----------
        image, variance
            float32 (y, x), NaN for pixels without a value.
        wavelengths, rows
            As in :meth:`profile`.
        """
        from scipy.optimize import minimize

        usable = np.isfinite(image) & np.isfinite(variance)

        def residual(shift: np.ndarray) -> float:
            profile = self.profile(wavelengths, rows, shift[0])
            model = profile_spectrum(image, profile, usable, order=0)[2]
            with np.errstate(invalid="ignore", divide="ignore"):
                return float(np.nansum((model - image) ** 2 / variance))

        return float(minimize(residual, [0.0], method="Nelder-Mead").x[0])


def profile_spectrum(
    image: np.ndarray,
    profile: np.ndarray,
    usable: np.ndarray,
    background: np.ndarray | None = None,
    order: int = -1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Light by which a profile fits each column best, together with a polynomial in y.

    Parameters
    ----------
    image
        float32 (y, x), NaN for pixels without a value.
    profile
        Of :meth:`PointSpread.profile`.
    usable
        Which pixels are fitted, bool (y, x), of those with a profile or a background.
    background
        Other than 0 for pixels of the background; None for none but those of the profile.
    order
        Of the polynomial, -1 for none.

    Returns
    -------
    flux
        float64 (x,), NaN where no pixel is usable, 0 where the fit is singular.
    pixels
        float64 (x,), how many a flat profile with as much noise would have.
    model
        float64 (y, x).
    """
    fitted = profile != 0 if background is None else (profile != 0) | (background != 0)
    fitted = fitted & usable & np.isfinite(image)
    powers = np.vander(np.linspace(-1, 1, len(image)), order + 1, increasing=True)
    terms = np.concatenate(
        [np.broadcast_to(powers, (image.shape[1], *powers.shape)), profile.T[..., np.newaxis]], axis=-1
    )
    used = terms * fitted.T[..., np.newaxis]
    normal = np.einsum("xyi,xyj->xij", used, used)
    right = np.einsum("xyi,xy->xi", used, np.where(fitted, image, 0.0).T)
    found = np.zeros(right.shape)
    solvable = np.linalg.cond(normal) < _SINGULAR
    found[solvable] = np.einsum("xij,xj->xi", np.linalg.inv(normal[solvable]), right[solvable])
    flux = found[:, -1].copy()
    with np.errstate(invalid="ignore"):
        pixels = (profile * usable).sum(axis=0) / (profile**2).sum(axis=0)
    flux[np.isclose(pixels, 0)] = np.nan
    return flux, pixels, np.einsum("xyi,xi->yx", terms, found)


def mean_wavelengths(wavelengths: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Wavelength of each column in a box, float64 (x,); NaN outside."""
    usable = ~np.isnan(wavelengths) & (weights > 0)
    weights = np.where(usable, weights, 0.0)
    with np.errstate(invalid="ignore"):
        return (np.where(usable, wavelengths, 0.0) * weights).sum(axis=0) / weights.sum(axis=0)


def aperture_correction(
    wavelengths: np.ndarray,
    pixels: np.ndarray,
    grid: np.ndarray,
    sizes: np.ndarray,
    phases: np.ndarray,
    factors: np.ndarray,
    phase: float = 0.5,
) -> np.ndarray:
    """Factor to the light in an infinite aperture, linear in the phase of the pixel, wavelength and size.

    Parameters
    ----------
    wavelengths, pixels
        Of the columns of a spectrum, float (x,): [um], and pixels summed.
    grid
        float (wavelength,) [um].
    sizes
        float (size, wavelength) [pixel].
    phases
        float (phase,).
    factors
        float (size, wavelength, phase).
    phase
        Where in its pixel the source is.

    Returns
    -------
    factor
        float64 (x,); 1 beyond the wavelengths and phases that are known, or if sizes do not ascend. Sizes beyond are
        taken as the last ones.
    """
    order = np.argsort(grid)
    grid, sizes, factors = grid[order].astype(np.float64), sizes[:, order], factors[:, order].astype(np.float64)
    found = np.ones(len(wavelengths))
    by_phase = np.argsort(phases)
    known = phases[by_phase].astype(np.float64)
    if not known[0] <= phase <= known[-1] or (np.diff(grid) <= 0).any():
        return found
    here = np.array([[np.interp(phase, known, cell) for cell in row] for row in factors[:, :, by_phase]])
    for column in np.flatnonzero((wavelengths >= grid[0]) & (wavelengths <= grid[-1])):
        at = wavelengths[column]
        size = np.array([np.interp(at, grid, row) for row in sizes])
        if (np.diff(size) > 0).all():
            found[column] = np.interp(pixels[column], size, [np.interp(at, grid, row) for row in here])
    found[found == 0] = 1.0
    return found
