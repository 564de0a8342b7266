"""Background and stars of an image, by photutils; what it does slowly is done by kernels that give the same numbers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.table import QTable
from scipy import ndimage

from jwstdask.kernels.tweakreg import local_maxima, mesh_to_image

COLUMNS = ("id", "xcentroid", "ycentroid", "flux")


def background_maps(image: np.ndarray, box_size: int, coverage_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Background and its standard deviation: sigma-clipped median and deviation of boxes, filtered and interpolated.

    Parameters
    ----------
    image
        Float (y, x); non-finite pixels are ignored.
    box_size
        Side of a box [pixel].
    coverage_mask
        bool (y, x): pixels outside the field, ignored; both maps are 0 there.

    Returns
    -------
    background, rms, whole
        (y, x) each; ``whole`` is True if no box had enough valid pixels, and one box was laid over the image.

    Raises
    ------
    ValueError
        If there are no valid pixels.
    """
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, MedianBackground

    how: dict[str, Any] = {
        "mask": ~np.isfinite(image),
        "coverage_mask": coverage_mask,
        "filter_size": (3, 3),
        "sigma_clip": SigmaClip(sigma=3.0),
        "bkg_estimator": MedianBackground(),
    }
    whole = False
    try:
        found = Background2D(image, box_size, **how)
    except ValueError:
        found = Background2D(image, image.shape, exclude_percentile=100.0, **how)
        whole = True
    box = int(found.box_size[0]), int(found.box_size[1])
    background, rms = (
        mesh_to_image(mesh, box, coverage_mask) for mesh in (found.background_mesh, found.background_rms_mesh)
    )
    return background, rms, whole


def find_stars(
    kind: str,
    image: np.ndarray,
    threshold: np.ndarray,
    fwhm: float,
    mask: np.ndarray,
    columns: Sequence[str] | None = COLUMNS,
    **how: Any,
) -> QTable:
    """Stars by IRAF's ``starfind`` or by DAOFIND (Stetson 1987, PASP 99, 191).

    Parameters
    ----------
    kind
        ``iraf`` or ``dao``.
    image
        Float (y, x), background subtracted.
    threshold
        Least peak, (y, x) or a number; its median is used.
    fwhm
        Full width at half maximum of a star [pixel].
    mask
        bool (y, x): pixels without stars.
    columns
        Columns of the result, None for all that the finder has.
    **how
        ``min_separation`` (a whole number [pixel], at least 1) and other parameters of photutils' star finders.

    Returns
    -------
    QTable
        Brightest first; without rows if there are no stars.
    """
    from photutils import use_future_column_names
    from photutils.detection import DAOStarFinder, IRAFStarFinder
    from photutils.utils import NoDetectionsWarning

    cls = {"iraf": IRAFStarFinder, "dao": DAOStarFinder}[kind]
    limit = np.median(threshold)
    finder = cls(limit, fwhm, **how)
    filtered = ndimage.convolve(image, finder.kernel.data, mode="constant", cval=0.0)
    least = finder.threshold_eff if kind == "dao" else finder.threshold
    peaks = local_maxima(filtered, least, int(how["min_separation"]), mask)
    if len(peaks) == 0:
        return no_stars()
    with use_future_column_names(), warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        found = cls(limit, fwhm, xycoords=peaks, **how)(image)
    return no_stars() if found is None else _common_columns(found, columns)


def segment(
    image: np.ndarray,
    threshold: np.ndarray,
    fwhm: float,
    mask: np.ndarray,
    finder: dict[str, Any],
    catalog: dict[str, Any],
) -> tuple[Any, Any] | None:
    """Sources by image segmentation of the image convolved with a Gaussian.

    Parameters
    ----------
    image, threshold, fwhm, mask
        As in :func:`find_stars`, but each pixel has its own threshold.
    finder, catalog
        Parameters of photutils' SourceFinder and SourceCatalog.

    Returns
    -------
    tuple or None
        photutils' SourceCatalog and SegmentationImage; None if there are no sources.
    """
    from astropy.convolution import Gaussian2DKernel, convolve
    from astropy.stats import gaussian_fwhm_to_sigma
    from photutils import use_future_column_names
    from photutils.segmentation import SourceCatalog, SourceFinder
    from photutils.utils import NoDetectionsWarning

    smooth = image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        if fwhm > 0:
            warnings.simplefilter("ignore")  # NaN remain inside large gaps, as they should
            smooth = convolve(image, Gaussian2DKernel(fwhm * gaussian_fwhm_to_sigma), mask=mask)
        segments = SourceFinder(progress_bar=False, **finder)(smooth, threshold, mask=mask)
    if segments is None:
        return None
    with use_future_column_names():
        return SourceCatalog(image, segments, mask=mask, convolved_data=smooth, **catalog), segments


def find_segments(
    image: np.ndarray,
    threshold: np.ndarray,
    fwhm: float,
    mask: np.ndarray,
    finder: dict[str, Any],
    catalog: dict[str, Any],
) -> QTable:
    """Positions and fluxes of the sources of :func:`segment`.

    Returns
    -------
    QTable
        With :data:`COLUMNS`; without rows if there are no sources.
    """
    from photutils import use_future_column_names

    found = segment(image, threshold, fwhm, mask, finder, catalog)
    if found is None:
        return no_stars()
    with use_future_column_names():
        return _common_columns(found[0].to_table(columns=["label", "x_centroid", "y_centroid", "segment_flux"]))


def no_stars() -> QTable:
    """A table without rows."""
    return QTable(names=COLUMNS, dtype=(int, float, float, float))


def _common_columns(table: QTable, columns: Sequence[str] | None = COLUMNS) -> QTable:
    names = {"label": "id", "x_centroid": "xcentroid", "y_centroid": "ycentroid", "segment_flux": "flux"}
    for old, new in names.items():
        if old in table.colnames:
            table.rename_column(old, new)
    return table if columns is None else table[list(columns)]
