"""Pixels of NIRSpec that see the light of slits, slices or shutters that cannot be closed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from jwstdask.core.errors import JwstdaskError, StepError, StepUndone
from jwstdask.core.step import Meta
from jwstdask.io.remote import is_url
from jwstdask.refs.reference import Reference, open_reference
from jwstdask.wcs.errors import MsaMetadataError, NoSlitError

FIXED_SLIT_ROWS = slice(922, 1116)
"""Rows that the fixed slits light, which stay open while shutters or the IFU are used."""

_WITH_SHUTTERS = ("NRS_IFU", "NRS_MSASPEC")
"""Exposures that see light through the micro-shutters, wanted or not."""

SPECTRA = frozenset((*_WITH_SHUTTERS, "NRS_FIXEDSLIT", "NRS_BRIGHTOBJ"))
"""Exposures with spectra of targets. Of others only light of shutters that cannot be closed counts."""

_OPENINGS = {
    "NRS_IFU": "slices", "NRS_MSASPEC": "shutters", "NRS_AUTOFLAT": "shutters", "NRS_FIXEDSLIT": "slits",
    "NRS_BRIGHTOBJ": "slits",
}  # fmt: skip
_OPENINGS_OF_LAMPS = {"IFU": "slices", "MSASPEC": "shutters", "FIXEDSLIT": "slits", "BRIGHTOBJ": "slits"}


def _opening(meta: Meta) -> str:
    """What spectra enter through: slices, shutters or slits; empty for images, darks and lamps that light no slit."""
    exposure_type = str(meta.get("meta.exposure.type"))
    if exposure_type not in SPECTRA and str(meta.get("meta.instrument.grating")).upper() == "MIRROR":
        return ""
    if exposure_type in ("NRS_LAMP", "NRS_AUTOWAVE"):
        return _OPENINGS_OF_LAMPS.get(str(meta.get("meta.instrument.lamp_mode")).upper(), "")
    return _OPENINGS.get(exposure_type, "")


def references_for(meta: Meta, failed_open: bool | None = None) -> tuple[str, ...]:
    """Reference types that :func:`science_regions` needs."""
    exposure_type = str(meta.get("meta.exposure.type"))
    if not exposure_type.startswith("NRS"):
        return ()
    from jwstdask.wcs import nirspec

    if failed_open is None:
        failed_open = exposure_type in _WITH_SHUTTERS
    types: list[str] = []
    if exposure_type == "NRS_IFU":
        types += nirspec.SLICE_REFERENCES
    elif failed_open or _opening(meta) in ("slits", "shutters"):
        types += nirspec.SLIT_REFERENCES
    if failed_open:
        types += [name for name in ("msa", "msaoper") if name not in types]
    return tuple(types)


def msa_metadata_path(meta: Meta, exposure: str) -> str | None:
    """The MSA metadata file that an exposure names, beside it if the name has no folder; None if it needs none."""
    name = str(meta.get("meta.instrument.msa_metadata_file") or "").strip()
    if _opening(meta) != "shutters" or name in ("", "N/A"):
        return None
    if is_url(name) or os.path.dirname(name):
        return name
    return os.path.join(os.path.dirname(exposure), name)


def science_regions(
    step: str,
    meta: Meta,
    references: Mapping[str, Reference | None],
    msa_metadata: str | None,
    shape: tuple[int, int],
    failed_open: bool | None = None,
) -> np.ndarray:
    """Pixels that see sources, by the geometry of the instrument alone.

    These are slices of the IFU, the bounding boxes of slits, the pixels lit by shutters that cannot be closed, and with
    the IFU or shutters the rows of the fixed slits, unless one of these has a target. In exposures of lamps, darks and
    images shutters that cannot be closed alone count, but slits that a lamp lights must fall on the detector.

    Parameters
    ----------
    step
        Alias of the step, for messages.
    meta
        Metadata of the exposure.
    references
        Those of :func:`references_for`.
    msa_metadata
        Path of the MSA metadata file (NRS_MSASPEC).
    shape
        Of the science array (y, x).
    failed_open
        Whether shutters that cannot be closed count; by default if light through the shutters reaches the detector.

    Returns
    -------
    mask
        bool (y, x), True for these pixels.

    Raises
    ------
    NoSlitError
        If none of the slits falls on the detector.
    StepUndone
        With the status FAILED, if the slits of the MSA are not known.
    StepError
        If a reference is missing.
    """
    exposure_type = str(meta["meta.exposure.type"])
    name = str(meta.get("meta.filename") or "exposure")
    if failed_open is None:
        failed_open = exposure_type in _WITH_SHUTTERS
    # As in jwst: without the reference no such shutters are known.
    failed_open = failed_open and references.get("msaoper") is not None
    missing = sorted(kind for kind in references_for(meta, failed_open) if references.get(kind) is None)
    from jwstdask.wcs import nirspec, nirspec_traces

    if missing:
        raise StepError(
            name,
            step,
            f"no {', '.join(missing)} reference for {exposure_type}",
            "set mask_science_regions to False, or use a context that has them",
        )
    files = {kind: item for kind, item in references.items() if item is not None}
    trees = {kind: item.asdf for kind, item in files.items() if item.kind == "asdf"}
    opening = _opening(meta)
    mask = np.zeros(shape, np.bool_)
    try:
        if opening == "slices":
            nirspec_traces.check_slices(meta)
        if not (failed_open or exposure_type in SPECTRA or opening in ("slits", "shutters")):
            return mask
        optics = nirspec.Optics(meta, trees)
        if exposure_type == "NRS_IFU":
            mask = nirspec_traces.slices_mask(optics, shape)
            mask[FIXED_SLIT_ROWS] = True
        elif opening in ("slits", "shutters"):
            lit = nirspec.fixed_slits(meta)
            if opening == "shutters":
                lit = _open_slitlets(meta, msa_metadata, trees["msa"])
            slits = nirspec_traces.on_detector(optics, lit)
            if exposure_type in SPECTRA:
                mask = nirspec_traces.slits_mask(optics, slits, shape)
            fixed = any(slit.quadrant == nirspec.FIXED_SLIT_QUADRANT for slit in slits)
            if exposure_type == "NRS_MSASPEC" and not fixed:
                mask[FIXED_SLIT_ROWS] = True
        if failed_open:
            shutters = nirspec.failed_open_shutters(files["msaoper"].json)
            mask |= nirspec_traces.failed_open_mask(optics, shutters, shape)
    except MsaMetadataError as error:
        raise StepUndone(f"the slits of the MSA are not known: {error}", "FAILED") from error
    except KeyError as error:
        raise StepError(name, step, f"{error.args[0]} is missing", "correct the exposure or the reference") from error
    return mask


def _open_slitlets(meta: Meta, path: str | None, msa: Mapping[str, Any]) -> list[Any]:
    from jwstdask.wcs import nirspec

    if path is None:
        raise MsaMetadataError("keyword MSAMETFL names no MSA metadata file")
    try:
        tables = open_reference(path, "msametafile")
        shutters, sources = tables.table("SHUTTER_INFO"), tables.table("SOURCE_INFO")
    except JwstdaskError as error:
        raise MsaMetadataError(str(error)) from error
    return nirspec.open_slitlets(meta, shutters, sources, nirspec.shutter_scales(msa))


__all__ = [
    "FIXED_SLIT_ROWS",
    "SPECTRA",
    "NoSlitError",
    "msa_metadata_path",
    "references_for",
    "science_regions",
]
