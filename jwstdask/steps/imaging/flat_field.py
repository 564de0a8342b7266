"""Divide by the flat field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import GuiderBlock, ImageBlock
from jwstdask.core.errors import ParameterError, StepError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels.flat_field import FlatFielded, flat_field, flat_field_rates
from jwstdask.refs.reference import open_reference

_NIRSPEC_SPECTRAL = frozenset(
    "NRS_BRIGHTOBJ NRS_FIXEDSLIT NRS_IFU NRS_MSASPEC NRS_LAMP NRS_AUTOWAVE NRS_AUTOFLAT".split()
)


@dataclass(frozen=True)
class PreparedFlat:
    """The flat cut to the science frame; arrays may be memory-mapped and of any byte order."""

    flat: np.ndarray
    err: np.ndarray | None
    dq: np.ndarray


@dataclass(frozen=True, kw_only=True)
class FlatFieldStep(Step):
    """Divide by the flat field."""

    alias = "flat_field"
    class_name = "FlatFieldStep"
    status = "flat_field"
    reference_types = ("flat", "fflat", "sflat", "dflat")
    equations = (
        "SCI / flat; VAR_POISSON, VAR_RNOISE / flat^2; VAR_FLAT = (SCI / flat)^2 / flat^2 * flat_err^2;\n"
        "ERR = sqrt(VAR_POISSON + VAR_RNOISE + VAR_FLAT); flat NaN, 0, NO_FLAT_FIELD: 1 and DO_NOT_USE"
    )
    sources = "JWST pipeline documentation, flat_field"

    save_interpolated_flat: bool = par(False, "save the flat that was applied (NIRSpec: interpolated in wavelength)")
    user_supplied_flat: str | None = par(None, "flat to use instead of the references")
    inverse: bool = par(False, "multiply by the flat instead")

    def check(self, meta: Meta) -> None:
        if self.save_interpolated_flat:
            raise ParameterError(
                "flat_field: save_interpolated_flat=True is not available in this version: for an image jwst copies "
                "the flat reference, nothing is interpolated",
                "Take the flat that R_FLAT in the product's header names.",
            )

    def skip_reason(self, meta: Meta) -> str | None:
        if meta.get("meta.cal_step.extract_2d") == "COMPLETE":
            return "extract_2d has been run before"
        return None

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        flat = self._flat(references)
        if flat is None:
            return "no flat reference for this exposure"
        shape, size = flat.array("sci").shape, (meta.get("meta.subarray.ysize"), meta.get("meta.subarray.xsize"))
        if None not in size and (size[0] > shape[-2] or size[1] > shape[-1]):
            return f"the flat ({shape[-2]} x {shape[-1]}) is smaller than the exposure ({size[0]} x {size[1]})"
        return None

    def _flat(self, references: Mapping[str, Any]) -> Any:
        return (
            references.get("flat")
            if self.user_supplied_flat is None
            else open_reference(self.user_supplied_flat, "flat")
        )

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> PreparedFlat:
        exposure_type = meta.get("meta.exposure.type")
        if exposure_type in _NIRSPEC_SPECTRAL and meta.get("meta.instrument.lamp_mode") != "IMAGE":
            name = str(meta.get("meta.filename") or "exposure")
            raise StepError(name, self.alias, f"{exposure_type} is not supported", "Give --steps.flat_field.skip=true.")
        flat = self._flat(references).match(meta)
        return PreparedFlat(flat.array("sci"), flat.array("err") if "err" in flat else None, flat.flags)

    def apply(self, block: ImageBlock | GuiderBlock, prepared: PreparedFlat, gathered: Any = None) -> None:
        if isinstance(block, GuiderBlock):
            if "cal" not in block.products:
                raise ValueError("the exposure has no count rates: guider_cds must be run before")
            block = block.products["cal"]
        rows, columns = block.window.rows, block.window.columns
        flat = np.ascontiguousarray(prepared.flat[rows, columns], dtype=np.float32)
        dq = np.ascontiguousarray(prepared.dq[rows, columns], dtype=np.uint32)
        if prepared.err is None:
            err = np.zeros_like(flat)
        else:
            err = np.ascontiguousarray(prepared.err[rows, columns], dtype=np.float32)
        if block.err is not None and block.dq is not None and block.dq.ndim < block.sci.ndim:
            arrays = (block.sci, block.err, block.dq)
            flat_field_rates(*arrays, flat, err, dq, self.inverse, arrays)
            return
        if block.err is None:
            block.err = np.empty_like(block.sci)
        if block.var_flat is None:
            block.var_flat = np.empty_like(block.sci)
        out = FlatFielded(block.sci, block.err, block.dq, block.var_poisson, block.var_rnoise, block.var_flat)
        flat_field(block.sci, block.dq, block.var_poisson, block.var_rnoise, flat, err, dq, self.inverse, out)
