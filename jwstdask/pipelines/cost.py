"""Predicted memory, traffic and time of a plan.

The coefficients are measured (``tests/benchmarks``); the test of the memory prediction holds them within 25 % of the
measured peak.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from jwstdask.core.plan import Cost, ExposurePlan

_SECONDS_PER_SAMPLE: Mapping[str, float] = {
    "calwebb_dark": 1.5e-8,
    "calwebb_detector1": 3.5e-8,
    "calwebb_image2": 4.0e-7,
}
"""CPU seconds of a sample (pixel of a group or image) on one core of 2.6 GHz."""

_EMICORR_SECONDS = 1.3e-8
"""CPU seconds of a sample and of a wave."""

_EMICORR_BINS = 500
"""Bins of a wave."""

_FIXED_SECONDS = 0.15
"""CPU seconds of an exposure whatever its size: headers, references, products."""

_BLOCK_BYTES = 24_000_000
"""Tile buffers, strip buffers and header work of one task."""


def predict(plan: ExposurePlan, size: int) -> Cost:
    """The cost of a plan.

    Parameters
    ----------
    plan
        Products and references decided.
    size
        Bytes of pixels of the input.
    """
    samples = int(np.prod(plan.shape, dtype=np.int64))
    pixels = int(np.prod(plan.shape[-2:], dtype=np.int64))
    references = {path for item in plan.active for path in item.references.values() if path is not None}
    read = size + sum(os.path.getsize(path) for path in references if os.path.exists(path))
    bytes_of = {"rate": 20 * pixels, "rateints": 20 * samples // max(plan.shape[1], 1) if len(plan.shape) == 4 else 0}
    bytes_of |= {"ramp": 5 * samples, "cal": 28 * samples, "i2d": 36 * pixels, "result": 5 * samples}
    written = sum(bytes_of.get(kind, 0) for kind in plan.products) + 5 * samples * len(plan.taps)
    memory = _BLOCK_BYTES
    if len(plan.shape) == 4:
        # Flags of the whole frame are kept for the snowball search.
        jump = next((item.step for item in plan.active if item.name == "jump"), None)
        if jump is not None and (getattr(jump, "expand_large_events", False) or getattr(jump, "find_showers", False)):
            memory += samples + 6 * pixels
    elif "i2d" in plan.products:
        memory += 60 * pixels
    cpu = _FIXED_SECONDS + samples * _SECONDS_PER_SAMPLE.get(plan.pipeline, 1e-8)
    emicorr = next((item.step for item in plan.active if item.name == "emicorr"), None)
    if emicorr is not None and len(plan.shape) == 4:
        # How many waves there are, the reference knows: two are usual.
        cpu += samples * 2 * _EMICORR_SECONDS
        if emicorr.algorithm == "joint" and emicorr.onthefly_corr_freq is None:  # type: ignore[attr-defined]
            memory += 8 * _EMICORR_BINS * plan.shape[0] * plan.shape[1]
        else:
            # Residuals of the integrations that are phased, by place and by phase, for each packet of four pixels.
            every = emicorr.nints_to_phase is None and emicorr.use_n_cycles is None  # type: ignore[attr-defined]
            phased = plan.shape[0] if every else emicorr.nints_to_phase or 1  # type: ignore[attr-defined]
            memory += 10 * (samples // 4) * min(phased, plan.shape[0]) // plan.shape[0]
    return replace(plan.cost, memory=memory, read=read, written=written, cpu=cpu)
