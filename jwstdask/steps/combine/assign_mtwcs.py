"""Align exposures of a moving target on the mean position of the target."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gwcs
import numpy as np
from astropy.modeling.models import Identity, Shift
from gwcs import coordinate_frames as cf

from jwstdask.core.params import par
from jwstdask.core.step import Step
from jwstdask.wcs.footprint import footprint, s_region
from jwstdask.wcs.imaging import is_imaging


def moving_target_wcs(wcs: gwcs.WCS, shift_ra: float, shift_dec: float) -> gwcs.WCS:
    """A WCS with one more frame, ``moving_target``, in which the target of all exposures is at the same place.

    Parameters
    ----------
    wcs
        WCS whose output is a celestial frame, or one composed of it and a spectral frame.
    shift_ra, shift_dec
        Mean position of the target minus its position in this exposure [degree].

    Raises
    ------
    TypeError
        If the output frame is neither celestial nor composite.
    """
    shift = Shift(shift_ra) & Shift(shift_dec)
    if isinstance(wcs.output_frame, cf.CompositeFrame):
        shift = shift & Identity(1)
    elif not isinstance(wcs.output_frame, cf.CelestialFrame):
        raise TypeError(f"a moving target needs sky coordinates, not a {type(wcs.output_frame).__name__}")
    frame = copy.deepcopy(wcs.output_frame)
    frame.name = "moving_target"
    return gwcs.WCS([*wcs.pipeline[:-1], (wcs.output_frame, shift), (frame, None)])


@dataclass(frozen=True, kw_only=True)
class AssignMTWcsStep(Step):
    """Align exposures of a moving target on the mean position of the target."""

    alias = "assign_mtwcs"
    class_name = "AssignMTWcsStep"
    status = "assign_mtwcs"
    kind = "association"
    equations = "world -> moving_target: shift by (mean MT_RA - MT_RA, mean MT_DEC - MT_DEC)"
    sources = "JWST pipeline documentation, assign_mtwcs"

    suffix: str | None = par("assign_mtwcs", "suffix of the output file")
    output_use_model: bool = par(True, "name the output after the input exposure")

    def run(self, members: Sequence[Any], references: Mapping[str, Any], tools: Any) -> str | None:
        """Set WCS, S_REGION, ``meta.wcsinfo.mt_avra`` and ``mt_avdec`` of every member.

        Parameters
        ----------
        members
            Science exposures of the association, changed in place.
        references, tools
            Not used.

        Returns
        -------
        str or None
            Why nothing was done (a member lacks MT_RA or MT_DEC), or None.
        """
        targets = [[member.meta.get(f"meta.wcsinfo.mt_{axis}") for axis in ("ra", "dec")] for member in members]
        missing = [str(member.path) for member, target in zip(members, targets) if None in target]
        if missing:
            return f"MT_RA or MT_DEC missing in {', '.join(missing)}: the targets are not aligned"
        mean_ra, mean_dec = (float(np.mean(values, dtype=np.float64)) for values in zip(*targets))
        for member, (ra, dec) in zip(members, targets):
            member.wcs = moving_target_wcs(member.wcs, mean_ra - ra, mean_dec - dec)
            member.meta["meta.wcsinfo.mt_avra"] = mean_ra
            member.meta["meta.wcsinfo.mt_avdec"] = mean_dec
            if is_imaging(member.meta):
                region = s_region(footprint(member.wcs, member.shape))
                if region is not None:
                    member.meta["meta.wcsinfo.s_region"] = region
        return None
