"""Hypothesis strategies for ramps: small, and full of what ramps meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies

from jwstdask.core import dq
from jwstdask.core.block import RampBlock, Window
from jwstdask.core.dims import IMAGE, RAMP


@dataclass
class Ramp:
    """A ramp and what is true of it.

    Attributes
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    groupdq
        uint8, same shape: jumps, saturation and unusable groups.
    pixeldq
        uint32 (y, x).
    rate
        True slopes, float32 (y, x) [DN/group].
    """

    sci: np.ndarray
    groupdq: np.ndarray
    pixeldq: np.ndarray
    rate: np.ndarray

    def block(self) -> RampBlock:
        """A block of the whole frame; the arrays are copies."""
        window = Window.plain(0, self.sci.shape[-2], 0, self.sci.shape[-1])
        return RampBlock(window, self.sci.copy(), self.groupdq.copy(), self.pixeldq.copy())

    def dataset(self, **meta: Any) -> xr.Dataset:
        """A Dataset with the given metadata, ``exposure__type="NRC_IMAGE"`` for ``meta.exposure.type``."""
        nints, ngroups, ny, nx = self.sci.shape
        attrs = {
            "meta.telescope": "JWST",
            "meta.model_type": "RampModel",
            "meta.exposure.nints": nints,
            "meta.exposure.ngroups": ngroups,
            "meta.subarray.xsize": nx,
            "meta.subarray.ysize": ny,
        }
        attrs |= {f"meta.{name.replace('__', '.')}": value for name, value in meta.items()}
        variables = {"sci": (RAMP, self.sci), "groupdq": (RAMP, self.groupdq), "pixeldq": (IMAGE, self.pixeldq)}
        return xr.Dataset(variables, attrs=attrs)


@strategies.composite
def ramps(
    draw: Any,
    integrations: tuple[int, int] = (1, 3),
    groups: tuple[int, int] = (1, 8),
    rows: tuple[int, int] = (1, 12),
    columns: tuple[int, int] = (1, 12),
    flagged: bool = True,
) -> Ramp:
    """Ramps with noise, cosmic rays, saturation, dead and unusable pixels.

    Parameters
    ----------
    integrations, groups, rows, columns
        Least and greatest numbers.
    flagged
        Whether flags are set; without them all groups are clean ramps with noise.
    """
    shape = tuple(draw(strategies.integers(*bounds)) for bounds in (integrations, groups, rows, columns))
    rng = np.random.default_rng(draw(strategies.integers(0, 2**32 - 1)))
    noise = draw(strategies.sampled_from([0.0, 1.0, 20.0]))
    rate = rng.choice([0.0, 0.5, 20.0, 3000.0, 20000.0], shape[2:]) * rng.uniform(0.5, 1.5, shape[2:])
    number = np.arange(1, shape[1] + 1)[:, np.newaxis, np.newaxis]
    sci = np.broadcast_to(rate * number, shape) + rng.normal(0, 1, shape) * noise
    groupdq = np.zeros(shape, np.uint8)
    pixeldq = np.zeros(shape[2:], np.uint32)
    if flagged:
        hit = rng.random(shape) < 0.05
        sci = sci + np.cumsum(np.where(hit, rng.uniform(50, 5000, shape), 0), axis=1)
        groupdq[hit] |= np.uint8(dq.JUMP_DET)
        full = np.logical_or.accumulate(sci > 60000, axis=1)
        groupdq[full] |= np.uint8(dq.SATURATED)
        sci = np.minimum(sci, 65535)
        groupdq[rng.random(shape) < 0.02] |= np.uint8(dq.DO_NOT_USE)
        pixeldq[rng.random(shape[2:]) < 0.05] |= np.uint32(dq.DO_NOT_USE)
        pixeldq[rng.random(shape[2:]) < 0.05] |= np.uint32(dq.HOT)
    return Ramp(sci.astype(np.float32), groupdq, pixeldq, rate.astype(np.float32))
