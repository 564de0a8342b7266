"""Imaging WCS of NIRCam, MIRI, NIRISS and FGS: reference models to a gwcs.

Frames: ``detector`` [pixel, 0-indexed in the science array], ``v2v3`` [arcsec], ``v2v3vacorr`` [arcsec, corrected for
the differential velocity aberration], ``world`` (ICRS) [degree].

Sources: JWST pipeline documentation, "assign_wcs"; JWST-STScI-001550 (coordinate systems).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gwcs
import numpy as np
from astropy import units as u
from astropy.coordinates import ICRS
from astropy.modeling import bind_bounding_box
from astropy.modeling.core import Model
from astropy.modeling.models import Identity, RotationSequence3D, Scale, Shift
from gwcs import coordinate_frames as cf
from gwcs.geometry import CartesianToSpherical, SphericalToCartesian

Box = tuple[tuple[float, float], tuple[float, float]]
"""Bounding box [pixel], x first."""


def pixel_box(shape: Sequence[int]) -> Box:
    """Bounding box of an array of shape (..., y, x): pixel centres are whole numbers, edges half pixels outside."""
    return (-0.5, shape[-1] - 0.5), (-0.5, shape[-2] - 0.5)


def subarray_shift(meta: Mapping[str, Any]) -> Model | None:
    """Shift from pixels of the subarray to pixels of the full frame; None if the array starts at the frame's corner."""
    shifts = []
    for key in ("meta.subarray.xstart", "meta.subarray.ystart"):
        start = meta.get(key)  # 1-indexed
        shifts.append(Identity(1) if start is None or start == 1 else Shift(start - 1))
    if all(isinstance(shift, Identity) for shift in shifts):
        return None
    return shifts[0] & shifts[1]


def velocity_aberration(scale: float | None, v2_ref: float | None, v3_ref: float | None) -> Model:
    """Differential velocity aberration: a scaling of V2, V3 [arcsec] about the reference point.

    Raises
    ------
    ValueError
        If the scale is not positive.
    """
    if scale is None or scale == 1:
        return Identity(2)
    if scale <= 0:
        raise ValueError(f"the velocity aberration scale must be positive, not {scale}")
    v2_ref, v3_ref = v2_ref or 0, v3_ref or 0
    transform = Scale(scale, name="dva_scale_v2") & Scale(scale, name="dva_scale_v3")
    if v2_ref == 0 and v3_ref == 0:
        return transform
    # x' = ref + scale (x - ref)
    transform = transform | (
        Shift((1 - scale) * v2_ref, name="dva_v2_shift") & Shift((1 - scale) * v3_ref, name="dva_v3_shift")
    )
    transform.name = "DVA_Correction"
    return transform


def telescope_to_sky(
    v2_ref: float,
    v3_ref: float,
    roll_ref: float,
    ra_ref: float,
    dec_ref: float,
    wrap_v2_at: int = 180,
    wrap_lon_at: int = 360,
) -> Model:
    """Rotation of V2, V3 [arcsec] to right ascension and declination [degree].

    Parameters
    ----------
    v2_ref, v3_ref
        Reference point of the aperture [arcsec].
    roll_ref
        Position angle of V3 at the reference point [degree, north to east].
    ra_ref, dec_ref
        Sky position of the reference point [degree].
    wrap_v2_at, wrap_lon_at
        Where the two longitudes wrap [degree].
    """
    rotation = RotationSequence3D(
        np.array([v2_ref / 3600, -(v3_ref / 3600), roll_ref, dec_ref, -ra_ref]), axes_order="zyxyz"
    )
    degrees = Scale(1 / 3600) & Scale(1 / 3600)
    transform = (
        degrees
        | SphericalToCartesian(wrap_lon_at=wrap_v2_at)
        | rotation
        | CartesianToSpherical(wrap_lon_at=wrap_lon_at)
    )
    transform.name = "v23tosky"
    return transform


def filter_offset(filters: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> tuple[float, float] | None:
    """Column and row offset [pixel] of an optical element, or None if the reference lists none.

    Parameters
    ----------
    filters
        Rows of the filteroffset reference.
    wanted
        Keys that must be equal, such as filter and pupil.

    Raises
    ------
    ValueError
        If several rows match.
    """
    rows = [row for row in filters if all(row[key] == value for key, value in wanted.items())]
    if len(rows) > 1:
        raise ValueError(f"{len(rows)} rows of the filteroffset reference match {dict(wanted)}")
    if not rows:
        return None
    column, line = rows[0].get("column_offset", "N/A"), rows[0].get("row_offset", "N/A")
    return None if "N/A" in (column, line) else (column, line)


def _box(model: Model, shape: Sequence[int]) -> Box:
    """The bounding box that the reference carries, else that of the array."""
    try:
        return model.bounding_box.bounding_box(order="F")
    except NotImplementedError:
        return pixel_box(shape)


def _distortion_near_infrared(meta: Mapping[str, Any], trees: Mapping[str, Any], shape: Sequence[int]) -> Model:
    """NIRCam and NIRISS: offsets by filter and pupil; the reference's own bounding box has precedence."""
    transform = trees["distortion"]["model"].copy()
    box = _box(transform, shape)
    if trees.get("filteroffset") is not None:
        element = {"filter": meta.get("meta.instrument.filter"), "pupil": meta.get("meta.instrument.pupil")}
        offset = filter_offset(trees["filteroffset"]["filters"], element)
        if offset is not None:
            transform = Shift(offset[0]) & Shift(offset[1]) | transform
    bind_bounding_box(transform, box, order="F")
    return transform


def _distortion_miri(meta: Mapping[str, Any], trees: Mapping[str, Any], shape: Sequence[int]) -> Model:
    """MIRI: offsets by filter alone, first match; the reference's own bounding box has precedence."""
    transform = trees["distortion"]["model"].copy()
    box = _box(transform, shape)
    rows = trees["filteroffset"]["filters"] if trees.get("filteroffset") is not None else ()
    row = next((row for row in rows if row["filter"] == meta.get("meta.instrument.filter")), None)
    if row is not None and row["column_offset"] is not None and row["row_offset"] is not None:
        transform = Shift(row["column_offset"]) & Shift(row["row_offset"]) | transform
    bind_bounding_box(transform, box, order="F")
    return transform


def _distortion_guider(meta: Mapping[str, Any], trees: Mapping[str, Any], shape: Sequence[int]) -> Model:
    """FGS: one element, no offsets."""
    transform = trees["distortion"]["model"].copy()
    bind_bounding_box(transform, _box(transform, shape), order="F")
    return transform


_DISTORTION: dict[str, Callable[..., Model]] = {
    "NIRCAM": _distortion_near_infrared,
    "NIRISS": _distortion_near_infrared,
    "MIRI": _distortion_miri,
    "FGS": _distortion_guider,
}

EXPOSURE_TYPES: dict[str, frozenset[str]] = {
    "NIRCAM": frozenset({"NRC_IMAGE", "NRC_TACQ", "NRC_TACONFIRM", "NRC_CORON", "NRC_FOCUS", "NRC_TSIMAGE"}),
    "MIRI": frozenset({"MIR_IMAGE", "MIR_TACQ", "MIR_LYOT", "MIR_4QPM", "MIR_CORONCAL", "MIR_TACONFIRM"}),
    "NIRISS": frozenset({"NIS_IMAGE", "NIS_AMI", "NIS_TACQ", "NIS_TACONFIRM", "NIS_FOCUS"}),
    "FGS": frozenset({"FGS_IMAGE", "FGS_FOCUS"}),
}
"""Exposure types with an imaging WCS, by instrument."""


def is_imaging(meta: Mapping[str, Any]) -> bool:
    """Whether :func:`imaging_wcs` covers the exposure."""
    types = EXPOSURE_TYPES.get(str(meta.get("meta.instrument.name")).upper(), frozenset())
    return str(meta.get("meta.exposure.type")).upper() in types


def detector_to_telescope(meta: Mapping[str, Any], trees: Mapping[str, Any], shape: Sequence[int]) -> Model:
    """Pixels of the science array to V2, V3 [arcsec], with the bounding box of the array bound to it.

    Parameters
    ----------
    meta
        Metadata of the exposure.
    trees
        ASDF trees of the references by type: ``distortion`` and, where there is one, ``filteroffset``.
    shape
        Shape (..., y, x) of the science array.
    """
    transform = _DISTORTION[meta["meta.instrument.name"].upper()](meta, trees, shape)
    shift = subarray_shift(meta)
    if shift is None:
        return transform
    size = (meta.get("meta.subarray.ysize") or 0, meta.get("meta.subarray.xsize") or 0)
    transform = shift | transform
    bind_bounding_box(transform, pixel_box(size), order="F")
    return transform


def imaging_pipeline(
    meta: Mapping[str, Any], trees: Mapping[str, Any], shape: Sequence[int] | None = None
) -> list[tuple[cf.CoordinateFrame, Model | None]]:
    """Frames and transforms of the imaging WCS, in order; see :func:`imaging_wcs`."""
    if shape is None:
        shape = (meta["meta.subarray.ysize"], meta["meta.subarray.xsize"])
    telescope = {
        name: cf.Frame2D(name=name, axes_order=(0, 1), axes_names=("v2", "v3"), unit=(u.arcsec, u.arcsec))
        for name in ("v2v3", "v2v3vacorr")
    }
    pointing = {key: meta[f"meta.wcsinfo.{key}"] for key in ("v2_ref", "v3_ref", "roll_ref", "ra_ref", "dec_ref")}
    aberration = velocity_aberration(
        meta.get("meta.velocity_aberration.scale_factor"), pointing["v2_ref"], pointing["v3_ref"]
    )
    return [
        (
            cf.Frame2D(name="detector", axes_order=(0, 1), unit=(u.pix, u.pix)),
            detector_to_telescope(meta, trees, shape),
        ),
        (telescope["v2v3"], aberration),
        (telescope["v2v3vacorr"], telescope_to_sky(**pointing)),
        (cf.CelestialFrame(reference_frame=ICRS(), name="world"), None),
    ]


def imaging_wcs(meta: Mapping[str, Any], trees: Mapping[str, Any], shape: Sequence[int] | None = None) -> gwcs.WCS:
    """The gwcs of an image.

    Parameters
    ----------
    meta
        Metadata of the exposure (dotted names).
    trees
        ASDF trees of the references by type: ``distortion`` and, where there is one, ``filteroffset``.
    shape
        Shape (..., y, x) of the science array; by default SUBSIZE2, SUBSIZE1.

    Raises
    ------
    KeyError
        If the pointing (V2_REF, V3_REF, ROLL_REF, RA_REF, DEC_REF) is missing from ``meta``.
    ValueError
        If the velocity aberration is not positive or the filteroffset reference is ambiguous.
    """
    return gwcs.WCS(imaging_pipeline(meta, trees, shape))
