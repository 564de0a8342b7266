"""Predicted memory, traffic and time of a plan.

The coefficients are measured (``tests/benchmarks``). Memory is that of one task, anonymous and above what the
interpreter and the compiled kernels take; a test holds it within 25 % of the measured peak for frames of megapixels
(small ones take some megabytes less than predicted). A second thread in the same process adds some megabytes
(``THREAD_BYTES``), or, where an exposure is resampled, as much again for its tiles.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jwstdask.core.plan import AssociationPlan, Chunks, Cost, ExposurePlan
from jwstdask.engine.exposure import LARGEST_IN_MEMORY, STRIP_BYTES, strip_height
from jwstdask.engine.passes import band_height, held_halo, tile_shape
from jwstdask.io.naming import parse_exposure_name

PROCESS_BYTES = 125_000_000
"""Anonymous memory of a process beside its tasks: interpreter, libraries, compiled kernels (README, Speed)."""

THREAD_BYTES = 20_000_000
"""What one more thread of a process takes for strips of the same exposure: 16 to 33 MB."""

START_SECONDS = 3.0
"""From the command until kernels are loaded: one command less one more exposure (README, Speed) is 1.9 to 3.4."""

UNSHARED = 0.4
"""Part of an exposure's time in which its strips are not done side by side: headers, trees, what is gathered of the
frame before they begin. Of NIRCam, 1 x 10 and 4 x 10, it is 0.3, of MIRI 1 x 40 0.5, of IRS2 1 x 20 0.6."""

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

_IRS2_SECONDS = 2.0e-8
"""CPU seconds of a sample, reference samples included, for the Fourier correction of IRS2 readouts."""

_IRS2_BYTES = 165_000_000
"""Weights and time lines of the Fourier correction, whatever the number of groups."""

_FIXED_SECONDS = 0.15
"""CPU seconds of an exposure whatever its size: headers, references, products."""

_TASK_BYTES = 5_000_000
"""Tiles, headers and tables of one task."""

_FITTED_PIXELS = 64
"""Least width of what is fitted together."""

_GATHERED_ROWS = 24
"""Rows and columns that steps see before the walk: reference pixels on four sides, rows that jump looks at."""

_GATHERED_SAMPLES = 1_000_000
"""Samples of reference pixels that are held at once, of a long series."""

_SHOWER_BYTES = 24
"""Bytes a pixel of the images in which showers are searched: medians, noise, deviations, masks."""

_RESAMPLED_BYTES = 14
"""Bytes a pixel of the tiles of a resampled image."""


def chunks(plan: ExposurePlan, meta: Mapping[str, Any]) -> Chunks:
    """How an exposure will be divided in the walk that writes its products."""
    *leading, ny, nx = plan.shape
    # Rows of reference samples between the others are dropped.
    ny = 2048 if ny == 3200 else ny
    active = [item for item in plan.active if item.step.kind in ("block", "frame")]
    whole = [index for index, item in enumerate(active) if item.step.kind == "frame"]
    halo = sum(item.step.halo for item in active[whole[-1] + 1 if whole else 0 :])
    rows = strip_height(nx * sum(_bytes_per_pixel(plan, kind, meta) for kind in (*plan.products, *plan.taps)))
    held = _held(plan, meta)
    return Chunks(min(rows, ny), -(-ny // rows), tile_shape((*leading, ny, nx), halo if held is None else held), halo)


def _held(plan: ExposurePlan, meta: Mapping[str, Any]) -> int | None:
    """Halo of the tiles of a long series; None if tiles fit into a cache, or if the whole frame must be seen."""
    steps = [item.step for item in plan.active if item.step.kind == "block"]
    if plan.taps or any(item.step.kind == "frame" for item in plan.active):
        return None
    if any(getattr(step, name, False) for step in steps for name in ("expand_large_events", "find_showers")):
        return None
    early, halo = held_halo(plan.shape, steps, meta)
    return halo if early else None


def _bytes_per_pixel(plan: ExposurePlan, kind: str, meta: Mapping[str, Any]) -> int:
    """Bytes of a pixel of the frame in a product or, by the name of its step, in an intermediate one."""
    planes = int(np.prod(plan.shape[:-2], dtype=np.int64))
    integrations = plan.shape[0] if len(plan.shape) > 2 else 1
    running = {item.name for item in plan.active}
    if kind in ("rate", "rateints"):
        return 20 * (integrations if kind == "rateints" else 1)
    if kind == "cal":
        return 12 * integrations if "guider_cds" in running else (24 if "flat_field" in running else 20) * integrations
    if kind == "likely_chisq":
        return 4
    if kind == "fitopt":
        groups = plan.shape[1]
        return 4 * integrations * (7 * ((groups + 1) // 2) + groups)
    if kind == "i2d":
        return 0
    if len(plan.shape) < 4:
        return 20 * planes
    zeroframe = 4 * integrations if meta.get("meta.exposure.zero_frame") else 0
    names = [item.name for item in plan.steps]
    last = names.index(kind.removeprefix("before:")) if kind.removeprefix("before:") in names else len(names)
    dark = 4 if "dark_current" in running and names.index("dark_current") <= last else 0
    return 5 * planes + 4 + zeroframe + dark


def predict(plan: ExposurePlan, size: int, meta: Mapping[str, Any]) -> Cost:
    """The cost of a plan.

    Parameters
    ----------
    plan
        Products and references decided.
    size
        Bytes of pixels of the input.
    meta
        Metadata of the exposure.
    """
    samples = int(np.prod(plan.shape, dtype=np.int64))
    pixels = int(np.prod(plan.shape[-2:], dtype=np.int64))
    references = {path for item in plan.active for path in item.references.values() if path is not None}
    read = size + sum(os.path.getsize(path) for path in references if os.path.exists(path))
    bytes_of = {"rate": 20 * pixels, "rateints": 20 * samples // max(plan.shape[1], 1) if len(plan.shape) == 4 else 0}
    bytes_of |= {"ramp": 5 * samples, "cal": 28 * samples, "i2d": 36 * pixels, "result": 5 * samples}
    written = sum(bytes_of.get(kind, 0) for kind in plan.products) + 5 * samples * len(plan.taps)
    memory = _TASK_BYTES + (_RESAMPLED_BYTES * pixels if "i2d" in plan.products else _walk(plan, written, meta))
    cpu = _FIXED_SECONDS + samples * _SECONDS_PER_SAMPLE.get(plan.pipeline, 1e-8)
    if len(plan.shape) == 4 and plan.shape[-2] == 3200 and any(item.name == "refpix" for item in plan.active):
        cpu, memory = cpu + samples * _IRS2_SECONDS, max(memory, _IRS2_BYTES)
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
    divided = chunks(plan, meta) if len(plan.shape) > 1 else None
    return replace(plan.cost, memory=memory, read=read, written=written, cpu=cpu, chunks=divided)


_COMBINED_SECONDS = 8.0e-7
"""CPU seconds of a pixel of a member, all steps of Stage 3."""

_COMBINED_BYTES = 64
"""Bytes of memory of a pixel of one member: tiles are combined one after the other."""

_CALIBRATED_BYTES = 28
"""Bytes of a pixel in a calibrated or resampled image."""

_MOSAIC = 1.3
"""Pixels of a mosaic for one of the detectors that it is made of; it depends on the dithers."""


def predict_association(plan: AssociationPlan, pixels: int) -> Cost:
    """The cost of an association of members of so many pixels each; roughly, for the mosaic's size is not known yet."""
    names = [parse_exposure_name(path) for path in plan.members]
    detectors = len({name.detector if name is not None else "" for name in names})
    whole = pixels * len(plan.members)
    mosaic = int(pixels * detectors * _MOSAIC) if "i2d" in plan.products else 0
    copies = sum(len(paths) for paths in plan.member_products.values())
    written = _CALIBRATED_BYTES * (mosaic + copies * pixels)
    return Cost(_COMBINED_BYTES * pixels, _CALIBRATED_BYTES * whole, written, _COMBINED_SECONDS * whole)


def _long_walk(plan: ExposurePlan, halo: int, meta: Mapping[str, Any]) -> int:
    """Bytes of a walk over a long series: a tile with its halo, its results, and what there is for each plane."""
    nints, ngroups, ny, nx = plan.shape
    planes = nints * ngroups
    rows, columns = tile_shape(plan.shape, halo)
    height, width = min(rows + 2 * halo, ny), min(columns + 2 * halo, nx)
    # Samples and flags, the same of a band and its count rates; differences of a row and of a pixel, and counts; the
    # times of integrations.
    band = band_height((nints, ngroups, rows, columns)) * columns
    memory = 5 * planes * (height * width + band) + 20 * nints * band + (4 * width + 40) * planes + 170 * nints
    if columns < _FITTED_PIXELS:
        # Ramps and rates of narrow tiles, as a line.
        memory += (5 * planes + 20 * nints) * max(band, _FITTED_PIXELS)
    windows = [window for item in plan.active for window in item.step.gather_windows(meta)]
    samples = planes * sum(window.shape[0] * window.shape[1] for window in windows)
    return max(memory, 6 * min(samples, _GATHERED_SAMPLES))


def _walk(plan: ExposurePlan, written: int, meta: Mapping[str, Any]) -> int:
    """Bytes of a walk over an exposure: the strip that is written, and what steps hold of the whole frame."""
    held = _held(plan, meta)
    if held is not None:
        return _long_walk(plan, held, meta)
    *leading, ny, nx = plan.shape
    planes, pixels = int(np.prod(leading, dtype=np.int64)), ny * nx
    steps = [item for item in plan.active if item.step.kind == "block"]
    place = next((place for place, item in enumerate(steps) if item.name == "jump"), None)
    jump: Any = None if place is None else steps[place].step
    large_events = jump is not None and (jump.expand_large_events or jump.find_showers)
    # What is written comes from the walk over the frame that was held.
    last = steps[place + 1 :] if large_events and place is not None else steps
    rows, columns = tile_shape(plan.shape, sum(item.step.halo for item in last))
    # A strip is held where tiles are narrower.
    per_row = written // max(ny, 1)
    strip = min(STRIP_BYTES, per_row * (strip_height(per_row) if columns < nx else rows))
    # Rates are written beside the ramp that they come from; a ramp that is written is that of the tile.
    ramps = len(plan.shape) == 4 and not any(item.name == "ramp_fit" for item in steps)
    memory = strip + strip // (5 if ramps else 2)
    if len(plan.shape) < 4:
        return memory
    gathered = 5 * planes * min(_GATHERED_ROWS, ny) * nx
    if not large_events:
        return max(memory, gathered) if ramps else memory + gathered
    # The ramp of the whole frame: samples, their flags, those of pixels and the first frames, unless in files.
    first = 4 * leading[0] * pixels if meta.get("meta.exposure.zero_frame") else 0
    whole = (4 * planes * pixels, planes * pixels, 4 * pixels, first)
    showers = _SHOWER_BYTES * pixels if jump.find_showers else 0
    return max(memory, gathered, pixels // 2) + showers + sum(size for size in whole if size <= LARGEST_IN_MEMORY)
