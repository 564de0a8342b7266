"""Convert count rates to flux."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u

from jwstdask.core.block import ImageBlock
from jwstdask.core.errors import ReferenceFileError, StepError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels.photom import Calibrated, photom, time_correction

log = logging.getLogger(__name__)

MJSR_TO_UJA2 = float((u.MJy / u.sr).to(u.uJy / u.arcsec**2))
"""Microjansky per square arcsecond in one megajansky per steradian."""

_TIME_TABLES = ("timecoeff_linear", "timecoeff_exponential", "timecoeff_powerlaw")
_IMAGING = frozenset(
    "NRC_IMAGE NRC_TSIMAGE NRC_CORON NRC_FOCUS NRC_TACQ NRC_TACONFIRM MIR_IMAGE MIR_LYOT MIR_4QPM MIR_CORONCAL "
    "MIR_TACQ MIR_TACONFIRM NIS_IMAGE NIS_AMI NIS_FOCUS NIS_TACQ NIS_TACONFIRM FGS_IMAGE FGS_FOCUS".split()
)


@dataclass(frozen=True)
class PreparedPhotom:
    """Conversion of an exposure.

    Attributes
    ----------
    conversion
        MJy/sr of one DN/s, float32 as in the reference, float64 where a time correction was applied; None where the
        reference has no row for the exposure (the data then stay as they are).
    area
        Pixel area relative to the mean, cut to the science frame, or None.
    pixel_area
        Mean area of a pixel [steradian] and [arcsec^2]; None where unknown.
    """

    conversion: np.float32 | np.float64 | None
    area: np.ndarray | None
    pixel_area: tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class PhotomStep(Step):
    """Convert count rates to flux."""

    alias = "photom"
    class_name = "PhotomStep"
    status = "photom"
    reference_types = ("photom", "area")
    equations = (
        "SCI, ERR * PHOTMJSR / f(t); variances * (PHOTMJSR / f(t))^2 [MJy/sr]; f: loss of throughput at mid exposure"
    )
    sources = "JWST pipeline documentation, photom"

    inverse: bool = par(False, "convert flux to count rates instead")
    source_type: str | None = par(None, "treat the source as POINT or EXTENDED")
    apply_time_correction: bool = par(True, "correct for the loss of throughput with time, where the reference has it")

    def skip_reason(self, meta: Meta) -> str | None:
        if meta.get("meta.instrument.name") == "NIRISS" and meta.get("meta.model_type") == "CubeModel":
            return "NIRISS integrations are not converted one by one"
        return None

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        return "no photom reference for this exposure" if references.get("photom") is None else None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> PreparedPhotom:
        name = str(meta.get("meta.filename") or "exposure")
        if str(meta.get("meta.exposure.type")).upper() not in _IMAGING:
            raise StepError(
                name, self.alias, f"{meta.get('meta.exposure.type')} is not supported", "Only imaging modes are."
            )
        reference, area = references["photom"], references.get("area")
        source = reference if area is None else area
        pixel_area = tuple(
            None if value is None else float(value)
            for value in (source.meta.get(f"meta.photometry.pixelarea_{unit}") for unit in ("steradians", "arcsecsq"))
        )
        area_map = None if area is None else _cut_area(area, meta)
        return PreparedPhotom(self._conversion(meta, reference, name), area_map, pixel_area)

    def _conversion(self, meta: Meta, reference: Any, name: str) -> np.float32 | np.float64 | None:
        table = reference.table("photom")
        times = {kind: reference.table(kind) if kind in reference else None for kind in _TIME_TABLES}
        for kind, coefficients in times.items():
            if coefficients is not None and len(coefficients) != len(table):
                raise ReferenceFileError(
                    reference.path,
                    f"{kind.upper()} has {len(coefficients)} rows and PHOTOM {len(table)}",
                    "They must be alike.",
                )
        row = photom_row(table, meta, reference.path)
        if row is None:
            log.warning("%s: photom: %s has no row for this exposure: nothing converted", name, reference.path)
            return None
        conversion = np.float32(table["photmjsr"][row])
        if self.apply_time_correction and any(item is not None for item in times.values()):
            mid_time = meta.get("meta.exposure.mid_time")
            if mid_time is None:
                raise StepError(
                    name,
                    self.alias,
                    "EXPMID is missing",
                    "It is needed for the time correction; --steps.photom.apply_time_correction=false goes without.",
                )
            correction = time_correction(float(mid_time), *times.values())[row]
            if correction != 1.0:
                # Double precision from here on.
                return np.float64(conversion) / correction
        return conversion

    def apply(self, block: ImageBlock, prepared: PreparedPhotom, gathered: Any = None) -> None:
        if prepared.area is not None:
            block.extra["area"] = np.ascontiguousarray(
                prepared.area[block.window.rows, block.window.columns], dtype=np.float32
            )
        if prepared.conversion is None:
            return
        arrays = Calibrated(block.sci, block.err, block.dq, block.var_poisson, block.var_rnoise, block.var_flat)
        photom(*arrays, prepared.conversion, self.inverse, out=arrays)

    def finish(self, meta: Meta, prepared: PreparedPhotom, tally: Mapping[str, float]) -> dict[str, Any]:
        changes: dict[str, Any] = {
            "meta.photometry.pixelarea_steradians": prepared.pixel_area[0],
            "meta.photometry.pixelarea_arcsecsq": prepared.pixel_area[1],
        }
        if prepared.conversion is not None:
            unit = "DN/s" if self.inverse else "MJy/sr"
            changes |= {
                "meta.photometry.conversion_megajanskys": float(prepared.conversion),
                "meta.photometry.conversion_microjanskys": float(prepared.conversion * MJSR_TO_UJA2),
                "meta.bunit_data": unit,
                "meta.bunit_err": unit,
            }
        return changes


def _cut_area(area: Any, meta: Meta) -> np.ndarray:
    """The science frame of a pixel area map.

    Area references need not say where their pixels are; one that does not counts as starting at the corner of the
    detector. (jwst takes every map for a full-frame one, and gives an empty AREA where it is not.)

    Raises
    ------
    ReferenceFileError
        If the map does not cover the exposure.
    """
    whole = area.array("sci")
    cut = []
    for axis, number, length in zip("yx", (2, 1), whole.shape[-2:]):
        start, size = meta.get(f"meta.subarray.{axis}start"), meta.get(f"meta.subarray.{axis}size")
        first = 0 if start is None else start - area.header().get(f"SUBSTRT{number}", 1)
        last = length if size is None else first + size
        if first < 0 or last > length:
            raise ReferenceFileError(
                area.path,
                f"its {length} pixels along {axis} do not cover the exposure (pixels {first + 1} to {last})",
                "give a full-frame map",
            )
        cut.append(slice(first, last))
    return whole[tuple(cut)]


def photom_row(table: np.ndarray, meta: Meta, path: str) -> int | None:
    """Row of the conversion table for an image; None if there is none.

    NIRCam: filter, pupil and, where the table has it, subarray. MIRI: subarray (else ``GENERIC``) and filter. NIRISS:
    filter and pupil. FGS: the first row.

    Raises
    ------
    ReferenceFileError
        If several rows match.
    """
    instrument = str(meta.get("meta.instrument.name")).upper()
    wanted = {
        "filter": meta.get("meta.instrument.filter"),
        "pupil": meta.get("meta.instrument.pupil"),
        "subarray": meta.get("meta.subarray.name"),
    }
    if instrument == "FGS":
        return 0
    if instrument == "MIRI":
        row = _match(table, {key: wanted[key] for key in ("subarray", "filter")}, path)
        return row if row is not None else _match(table, {"subarray": "GENERIC", "filter": wanted["filter"]}, path)
    keys = ["filter", "pupil"]
    if instrument == "NIRCAM" and "subarray" in (table.dtype.names or ()):
        keys.append("subarray")
    return _match(table, {key: wanted[key] for key in keys}, path)


def _match(table: np.ndarray, wanted: Mapping[str, str | None], path: str) -> int | None:
    found = [
        row
        for row in range(len(table))
        if all(_text(table[key][row]) == (None if value is None else value.upper()) for key, value in wanted.items())
    ]
    if len(found) > 1:
        what = ", ".join(f"{key} {value}" for key, value in wanted.items())
        raise ReferenceFileError(path, f"{len(found)} rows match {what}", "There must be one.")
    return found[0] if found else None


def _text(value: Any) -> str:
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).rstrip().upper()
