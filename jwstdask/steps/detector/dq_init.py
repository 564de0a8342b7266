"""Begin the data-quality flags with the detector's mask of bad pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits

from jwstdask.core.block import GuiderBlock, ImageBlock, RampBlock
from jwstdask.core.errors import InputError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import dq_init


@dataclass(frozen=True, kw_only=True)
class DQInitStep(Step):
    """Begin the data-quality flags with the detector's mask of bad pixels."""

    alias = "dq_init"
    class_name = "DQInitStep"
    status = "dq_init"
    reference_types = ("mask",)
    superstripes = True
    equations = "PIXELDQ |= mask (and user_supplied_dq); GROUPDQ |= mask & DO_NOT_USE"
    sources = "JWST pipeline documentation, dq_init"

    user_supplied_dq: str | None = par(None, "FITS file of flags to add, of the shape of the exposure")

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        return "No MASK reference file found" if references.get("mask") is None else None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> np.ndarray:
        mask = references["mask"].match(meta).flags
        if self.user_supplied_dq is None:
            return mask
        try:
            flags = fits.getdata(self.user_supplied_dq)
        except FileNotFoundError:
            raise InputError(
                self.user_supplied_dq, "dq_init.user_supplied_dq: there is no such file", "Correct the path."
            ) from None
        except (OSError, ValueError, TypeError, IndexError) as error:
            reason = getattr(error, "strerror", None) or "it is no whole FITS file with an array"
            raise InputError(
                self.user_supplied_dq,
                f"dq_init.user_supplied_dq cannot be read: {reason}",
                "Give a FITS file of flags.",
            ) from error
        if flags is None or flags.shape != mask.shape:
            shape = None if flags is None else flags.shape
            raise InputError(
                self.user_supplied_dq,
                f"flags have shape {shape}, the exposure {mask.shape}",
                "Cut them to its subarray.",
            )
        return np.asarray(mask) | flags.astype(np.uint32)

    def by_integration(self, meta: Meta) -> bool:
        return True

    def apply(self, block: RampBlock, prepared: np.ndarray, gathered: Any = None) -> None:
        if isinstance(block, ImageBlock):
            raise ValueError("the exposure holds count rates, not reads: skip the step")
        mask = np.ascontiguousarray(prepared[..., block.window.rows, block.window.columns], np.uint32)
        if isinstance(block, GuiderBlock):
            block.pixeldq |= mask
            return
        for index, part in block.superstripes():
            dq_init.initialize(part.pixeldq, part.groupdq, mask[index])
