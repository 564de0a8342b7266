"""Correct the coupling of neighbouring pixels through their capacitance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock
from jwstdask.core.errors import ReferenceFileError, StepError
from jwstdask.core.step import Meta, Step
from jwstdask.kernels import ipc
from jwstdask.kernels.irs2 import Readout
from jwstdask.refs.stripes import is_multistripe
from jwstdask.steps.detector import irs2

_SIZE = 2048
_BORDER = 4
"""Width of the border of reference pixels."""


@dataclass(frozen=True)
class Kernel:
    """Kernel, (row, column) or (row, column, y, x), and the light-sensitive rows and columns of the science frame.

    For IRS2 readouts, rows count without the reference samples between them.
    """

    values: np.ndarray
    rows: tuple[int, int]
    columns: tuple[int, int]
    readout: Readout | None = None


@dataclass(frozen=True, kw_only=True)
class IPCStep(Step):
    """Correct the coupling of neighbouring pixels through their capacitance."""

    alias = "ipc"
    class_name = "IPCStep"
    status = "ipc"
    reference_types = ("ipc",)
    superstripes = True
    equations = (
        "SCI(y, x) -> sum over (r, c) of k(r, c) SCI(y - r, x - c), (0, 0) the middle of the kernel k;\n"
        "0 beyond the light-sensitive pixels, reference pixels unchanged"
    )
    sources = "JWST pipeline documentation, ipc"

    @property
    def halo(self) -> int:
        # Half of the largest kernel accepted, 5 x 5; planning does not open the reference.
        return 2

    def check(self, meta: Meta) -> None:
        irs2.kept_rows(meta)

    def kept_rows(self, meta: Meta) -> np.ndarray | None:
        return irs2.kept_rows(meta)

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
        if is_multistripe(meta) and max(x0 + nx, y0 + ny) > _SIZE:
            # The corner is where the readout begins, at the far end of the detector: jwst fails on these too.
            raise StepError(
                str(meta.get("meta.filename") or "exposure"),
                self.alias,
                "the rows of this readout in stripes cannot be told from its corner",
                "Skip the step: --steps.ipc.skip=true",
            )
        if values.ndim == 4:
            values = values[:, :, y0 : y0 + ny, x0 : x0 + nx]
        last = 1032 - _BORDER if miri else 2048 - _BORDER
        columns = max(0, _BORDER - x0), nx - max(0, x0 + nx - last)
        # MIRI has reference pixels left and right only.
        rows = (0, ny) if miri else (max(0, _BORDER - y0), ny - max(0, y0 + ny - last))
        return Kernel(values, rows, columns, irs2.readout_of(meta) if irs2.is_irs2(meta) else None)

    def by_integration(self, meta: Meta) -> bool:
        return True

    def apply(self, block: RampBlock, prepared: Kernel, gathered: Any = None) -> None:
        rows, columns = block.window.rows, block.window.columns
        if prepared.readout is None:
            self._convolve(block.sci, prepared, rows, columns)
            return
        rows, places = irs2.local_rows(prepared.readout.science, block.window)
        sci = block.sci[:, :, places]
        self._convolve(sci, prepared, rows, columns)
        block.sci[:, :, places] = sci

    def _convolve(self, sci: np.ndarray, prepared: Kernel, rows: slice, columns: slice) -> None:
        """Convolve the rows and columns of the science frame that ``sci`` holds, in place."""
        values = prepared.values
        if values.ndim == 4:
            values = values[:, :, rows, columns]
        science = (
            slice(max(prepared.rows[0] - rows.start, 0), min(prepared.rows[1], rows.stop) - rows.start),
            slice(max(prepared.columns[0] - columns.start, 0), min(prepared.columns[1], columns.stop) - columns.start),
        )
        ipc.convolve(sci, np.ascontiguousarray(values, np.float32), science, out=sci)
