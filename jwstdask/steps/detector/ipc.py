"""Correct the coupling of neighbouring pixels through their capacitance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.errors import PlanError, ReferenceFileError
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import ipc

_BORDER = 4
"""Width of the border of reference pixels."""


@dataclass(frozen=True)
class Kernel:
    """Kernel, (row, column) or (row, column, y, x), and the light-sensitive rows and columns of the science frame."""

    values: np.ndarray
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class IPCStep(Step):
    """Correct the coupling of neighbouring pixels through their capacitance."""

    alias = "ipc"
    class_name = "IPCStep"
    status = "ipc"
    reference_types = ("ipc",)
    equations = "SCI convolved with the kernel, reference pixels left out"

    @property
    def halo(self) -> int:
        # Half of the largest kernel accepted, 5 x 5; planning does not open the reference.
        return 2

    def check(self, meta: Meta) -> None:
        if "IRS2" in str(meta.get("meta.exposure.readpatt", "")):
            raise PlanError("ipc cannot treat IRS2 readouts yet", "Leave this exposure out.")

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        return "No IPC reference file found" if references.get("ipc") is None else None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Kernel:
        values = references["ipc"].array("sci")
        height, width = values.shape[:2]
        if max(height, width) > 2 * self.halo + 1 or height % 2 == 0 or width % 2 == 0:
            raise ReferenceFileError(
                references["ipc"].path,
                f"an ipc kernel of {height} x {width} pixels is not supported",
                "Skip ipc, or use a kernel of odd size up to 5 x 5.",
            )
        x0, y0 = meta["meta.subarray.xstart"] - 1, meta["meta.subarray.ystart"] - 1
        nx, ny = meta["meta.subarray.xsize"], meta["meta.subarray.ysize"]
        miri = meta["meta.instrument.name"] == "MIRI"
        if values.ndim == 4:
            values = values[:, :, y0 : y0 + ny, x0 : x0 + nx]
        last = 1032 - _BORDER if miri else 2048 - _BORDER
        columns = max(0, _BORDER - x0), nx - max(0, x0 + nx - last)
        # MIRI has reference pixels left and right only.
        rows = (0, ny) if miri else (max(0, _BORDER - y0), ny - max(0, y0 + ny - last))
        return Kernel(values, rows, columns)

    def apply(self, block: RampBlock, prepared: Kernel, gathered: Any = None) -> None:
        window = block.window
        values = prepared.values
        if values.ndim == 4:
            values = values[:, :, window.rows, window.columns]
        science = (
            slice(max(prepared.rows[0] - window.y0, 0), min(prepared.rows[1], window.y1) - window.y0),
            slice(max(prepared.columns[0] - window.x0, 0), min(prepared.columns[1], window.x1) - window.x0),
        )
        ipc.convolve(block.sci, np.ascontiguousarray(values, np.float32), science, out=block.sci)
