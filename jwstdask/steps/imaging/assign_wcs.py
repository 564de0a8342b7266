"""Give an exposure its world coordinate system, footprint and FITS approximation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jwstdask.core.errors import StepError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.wcs.footprint import footprint, s_region
from jwstdask.wcs.imaging import imaging_wcs, is_imaging
from jwstdask.wcs.sip import sip_keywords

log = logging.getLogger(__name__)

# Exposure types that have no world coordinate system.
_NO_WCS = frozenset(
    "NRC_LED NRC_DARK NRC_FLAT NRC_GRISM NIS_DARK NIS_LAMP FGS_SKYFLAT FGS_INTFLAT FGS_DARK MIR_FLATMRS MIR_FLATIMAGE "
    "MIR_FLAT-MRS MIR_FLAT-IMAGE MIR_DARK".split()
)


@dataclass(frozen=True, kw_only=True)
class AssignWcsStep(Step):
    """Give an exposure its world coordinate system, footprint and FITS approximation."""

    alias = "assign_wcs"
    class_name = "AssignWcsStep"
    status = "assign_wcs"
    kind = "metadata"
    reference_types = (
        "distortion",
        "filteroffset",
        "specwcs",
        "regions",
        "wavelengthrange",
        "camera",
        "chromcorr",
        "collimator",
        "disperser",
        "fore",
        "fpa",
        "msa",
        "ote",
        "ifupost",
        "ifufore",
        "ifuslicer",
    )
    equations = (
        "detector -> V2,V3: filter offset, distortion polynomials; V2,V3 -> corrected: velocity aberration about the\n"
        "reference point; -> sky: rotations by V2_REF, V3_REF, ROLL_REF, DEC_REF, RA_REF. SIP: least-squares fits."
    )
    sources = "Greisen & Calabretta 2002, A&A 395, 1061; SIP: Shupe et al. 2005, ASPC 347, 491"

    sip_approx: bool = par(True, "describe imaging modes by FITS keywords with SIP distortion as well")
    sip_max_pix_error: float = par(0.01, "largest error of the forward SIP fit", unit="pixel")
    sip_degree: int | None = par(None, "degree of the forward SIP fit; None takes the lowest that is good enough", le=6)
    sip_max_inv_pix_error: float = par(0.01, "largest error of the inverse SIP fit", unit="pixel")
    sip_inv_degree: int | None = par(
        None, "degree of the inverse SIP fit; None takes the lowest that is good enough", le=6
    )
    sip_npoints: int = par(12, "sampling points of the SIP fit along each axis")
    slit_y_low: float = par(-0.55, "lower edge of a slit (NIRSpec)")
    slit_y_high: float = par(0.55, "upper edge of a slit (NIRSpec)")
    nrs_ifu_slice_wcs: bool = par(False, "keep one WCS a slice (NIRSpec IFU)")

    def skip_reason(self, meta: Meta) -> str | None:
        exposure_type = str(meta.get("meta.exposure.type")).upper()
        return f"{exposure_type} exposures have no sky coordinates" if exposure_type in _NO_WCS else None

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        # Each mode needs a few of the types only; what is missing is reported where it is needed.
        return None

    def run_exposure(
        self, meta: Meta, references: Mapping[str, Any], shape: Sequence[int] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """The WCS of an exposure and the metadata that go with it.

        Parameters
        ----------
        meta
            Metadata of the exposure.
        references
            Open references by type; None where there is none.
        shape
            Shape (..., y, x) of the science array; by default SUBSIZE2, SUBSIZE1.

        Returns
        -------
        wcs, changes
            The gwcs, and dotted name to new value: ``meta.wcsinfo.s_region`` and the SIP keywords. None removes a name.

        Raises
        ------
        StepError
            If the mode is not supported, the distortion reference is missing, or the pointing is incomplete.
        """
        name = str(meta.get("meta.filename") or "exposure")
        if not is_imaging(meta):
            what = f"{meta.get('meta.instrument.name')} {meta.get('meta.exposure.type')}"
            raise StepError(name, self.alias, f"no WCS for {what}", "Only imaging modes are supported.")
        if references.get("distortion") is None:
            raise StepError(
                name,
                self.alias,
                "no distortion reference",
                "Check CRDS_CONTEXT, or give --steps.assign_wcs.override_distortion.",
            )
        trees = {
            kind: references[kind].asdf for kind in ("distortion", "filteroffset") if references.get(kind) is not None
        }
        try:
            wcs = imaging_wcs(meta, trees, shape)
        except KeyError as error:
            raise StepError(
                name, self.alias, f"{error.args[0]} is missing", "Run set_telescope_pointing on it."
            ) from error
        except ValueError as error:
            raise StepError(name, self.alias, str(error)) from error
        changes: dict[str, Any] = {}
        region = s_region(footprint(wcs))
        if region is not None:
            changes["meta.wcsinfo.s_region"] = region
        if self.sip_approx:
            try:
                changes |= sip_keywords(
                    wcs,
                    meta,
                    max_pix_error=self.sip_max_pix_error,
                    degree=self.sip_degree,
                    max_inv_pix_error=self.sip_max_inv_pix_error,
                    inv_degree=self.sip_inv_degree,
                    npoints=self.sip_npoints,
                )
            except (ValueError, RuntimeError) as error:
                log.warning("%s: no SIP approximation: %s", name, error)
        return wcs, changes
