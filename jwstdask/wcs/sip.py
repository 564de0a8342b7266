"""FITS keywords that approximate a gwcs: a tangent plane with SIP polynomials.

Source: Shupe et al. 2005, ASPC 347, 491; Calabretta & Greisen 2002, A&A 395, 1077. The fit is gwcs's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# The highest degree tried when none is asked for; higher ones are badly conditioned over a detector.
_HIGHEST_DEGREE = 5
# Keywords of an earlier approximation that the new one need not overwrite.
_STALE = re.compile(r"meta\.wcsinfo\.(naxis|cdelt[12]|pc[12]_[12]|[ab]p?_order|[ab]p?_\d_\d)")


def sip_keywords(
    wcs: Any,
    meta: Mapping[str, Any],
    *,
    max_pix_error: float = 0.01,
    degree: int | Iterable[int] | None = None,
    max_inv_pix_error: float = 0.01,
    inv_degree: int | Iterable[int] | None = None,
    npoints: int = 12,
) -> dict[str, Any]:
    """Changes of ``meta.wcsinfo`` that describe ``wcs`` as a FITS WCS with SIP distortion.

    Parameters
    ----------
    wcs
        gwcs of an image, with a bounding box.
    meta
        Metadata of the exposure: CRPIX1 and CRPIX2 are kept if both are there, and keywords of an earlier
        approximation are removed.
    max_pix_error, max_inv_pix_error
        Largest error of the forward and inverse fit [pixel], used to choose a degree.
    degree, inv_degree
        Degree of the forward and inverse polynomials; None tries 1 to 5.
    npoints
        Sampling points along each axis.

    Returns
    -------
    dict
        Dotted name to value; None where the keyword goes away.

    Raises
    ------
    ValueError, RuntimeError
        If the WCS cannot be approximated.
    """
    reference_pixel = [meta.get("meta.wcsinfo.crpix1"), meta.get("meta.wcsinfo.crpix2")]
    degrees = range(1, _HIGHEST_DEGREE + 1)
    header = wcs.to_fits_sip(
        max_pix_error=max_pix_error,
        degree=degrees if degree is None else degree,
        max_inv_pix_error=max_inv_pix_error,
        inv_degree=degrees if inv_degree is None else inv_degree,
        npoints=npoints,
        crpix=None if None in reference_pixel else reference_pixel,
        projection="TAN",
    )
    changes: dict[str, Any] = {name: None for name in meta if _STALE.fullmatch(name)}
    for keyword, value in header.items():
        if not keyword.startswith("NAXIS"):
            changes[f"meta.wcsinfo.{keyword.lower()}"] = value.item() if hasattr(value, "item") else value
    return changes
