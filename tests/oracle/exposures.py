"""Exposures and references of the guiders and of MIRI, small and made with jwst's own data models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stdatamodels.jwst import datamodels

from jwstdask.simulate.crds import ReferenceMap, Rule, write_cache

SERIALS = {"FGS": 97, "MIRI": 98}
"""Numbers in the names of mappings, which CRDS remembers."""


def environment(folder: Path) -> dict[str, str]:
    """How both pipelines find the cache in ``folder``."""
    return {
        "CRDS_PATH": str(folder),
        "CRDS_CONTEXT": next((folder / "mappings" / "jwst").glob("*.pmap")).name,
        "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu",
    }


def make_cache(folder: Path, instrument: str, references: Iterable[tuple[str, Any]], meta: Mapping[str, Any]) -> None:
    """A cache with one reference of each type for a whole instrument.

    Parameters
    ----------
    folder
        The cache.
    instrument
        Upper case.
    references
        Reference type and data model.
    meta
        Metadata of all references.
    """
    where = folder / "references" / "jwst" / instrument.lower()
    where.mkdir(parents=True)
    maps = []
    for reftype, model in references:
        general = {
            "meta.telescope": "JWST",
            "meta.instrument.name": instrument,
            "meta.useafter": "2021-01-01T00:00:00",
            "meta.author": "tests",
            "meta.description": "synthetic",
            "meta.pedigree": "DUMMY",
        }
        for name, value in {**general, **meta}.items():
            # Waves and tables belong to no part of the detector.
            if reftype not in ("emicorr", "rscd") or not name.startswith("meta.subarray"):
                model[name] = value
        path = where / f"jwst_{instrument.lower()}_{reftype}_0001.{'asdf' if reftype == 'emicorr' else 'fits'}"
        model.save(path)
        key = ("META.INSTRUMENT.DETECTOR",)
        maps.append(ReferenceMap(reftype, key, (Rule((meta["meta.instrument.detector"],), path.name),)))
    serial = SERIALS[instrument]
    write_cache(folder, f"jwst_99{serial}.pmap", {instrument: maps}, serial=serial)


def whole_frame(detector: str, name: str, shape: tuple[int, int]) -> dict[str, Any]:
    """Metadata of a frame that begins in the corner of the detector."""
    return {
        "meta.instrument.detector": detector,
        "meta.subarray.name": name,
        "meta.subarray.xstart": 1,
        "meta.subarray.ystart": 1,
        "meta.subarray.xsize": shape[1],
        "meta.subarray.ysize": shape[0],
    }


def _flags(rng: np.random.Generator, shape: tuple[int, int], *names: str) -> dict[str, Any]:
    """DQ with a few pixels of each flag, and its definition."""
    dq = np.zeros(shape, np.uint32)
    for bit in range(len(names)):
        dq[rng.random(shape) < 0.02] |= 1 << bit
    return {"dq": dq, "dq_def": [(bit, 1 << bit, name, "") for bit, name in enumerate(names)]}


def guider_cache(folder: Path, shape: tuple[int, int] = (2048, 2048)) -> None:
    """Mask, gain, read noise and flat of GUIDER2; the gain and the flat have holes."""
    rng = np.random.default_rng(11)
    gain = rng.normal(1.8, 0.05, shape).astype(np.float32)
    gain[rng.random(shape) < 0.001] = 0
    gain[rng.random(shape) < 0.001] = np.nan
    flat = rng.normal(1, 0.03, shape).astype(np.float32)
    flat[rng.random(shape) < 0.002] = np.nan
    flat_err = np.abs(rng.normal(0.01, 0.002, shape)).astype(np.float32)
    references = [
        ("mask", datamodels.MaskModel(**_flags(rng, shape, "DO_NOT_USE", "HOT"))),
        ("gain", datamodels.GainModel(data=gain)),
        ("readnoise", datamodels.ReadnoiseModel(data=rng.normal(12, 1, shape).astype(np.float32))),
        ("flat", datamodels.FlatModel(data=flat, err=flat_err, **_flags(rng, shape, "NO_FLAT_FIELD", "DO_NOT_USE"))),
    ]
    make_cache(folder, "FGS", references, whole_frame("GUIDER2", "FULL", shape))


GUIDER_MODES = {
    "FGS_ACQ1": (6, 2, 128),
    "FGS_ACQ2": (5, 2, 32),
    "FGS_TRACK": (20, 2, 32),
    "FGS_FINEGUIDE": (10, 10, 8),
    "FGS_ID-IMAGE": (2, 2, 128),
    "FGS_ID-STACK": (2, 2, 128),
}
"""Integrations, groups and pixels along a side by EXP_TYPE."""


def guider_exposure(path: Path, exposure_type: str, rates: bool = False) -> Path:
    """Reads of a guider, or count rates, with the tables that its mode has."""
    integrations, groups, size = GUIDER_MODES[exposure_type]
    rng = np.random.default_rng(size)
    sci = rng.normal(800, 60, (integrations, groups, size, size)) + 40 * np.arange(groups)[:, None, None]
    if rates:
        model = datamodels.GuiderCalModel(data=sci[:, 0].astype(np.float32))
        model.err = np.sqrt(np.abs(model.data))
        model.err[0, 3, 5] = np.nan
        model.dq = rng.choice([0, 1, 4], (size, size)).astype(np.uint32)
    else:
        model = datamodels.GuiderRawModel(data=sci.astype(np.float32))
    meta = {
        **whole_frame("GUIDER2", f"{size}X{size}", (size, size)),
        "meta.subarray.xstart": 301,
        "meta.subarray.ystart": 1022,
        "meta.subarray.fastaxis": 2,
        "meta.subarray.slowaxis": -1,
        "meta.telescope": "JWST",
        "meta.instrument.name": "FGS",
        "meta.exposure.type": exposure_type,
        "meta.exposure.nints": integrations,
        "meta.exposure.ngroups": groups,
        "meta.exposure.group_time": 0.0513,
        "meta.observation.date": "2022-10-01",
        "meta.observation.time": "00:00:00.000",
        "meta.bunit_data": "DN",
        "meta.guidestar.gs_order": 1,
        "meta.filename": path.name,
    }
    for name, value in meta.items():
        model[name] = value

    def table(name: str, rows: int) -> None:
        dtype = model.get_dtype(name)
        filled = np.zeros(rows, dtype)
        for column in filled.dtype.names:
            kind = filled[column].dtype.kind
            filled[column] = "N4E8" if kind in "SU" else rng.integers(0, 99, rows)
        setattr(model, name, filled)

    if exposure_type.startswith("FGS_ID"):
        model.meta.numrefst = 3
        table("planned_star_table", 3)
        table("flight_star_table", 2)
    else:
        model.meta.ra_v1 = 13.5
        table("pointing_table", 9)
        table("centroid_table", 5)
        if exposure_type == "FGS_TRACK":
            table("track_sub_table", 2)
    model.save(path)
    return path


def emi_reference(subarray: str, clocks: tuple[int, int], frequencies: Mapping[str, float]) -> datamodels.EmiModel:
    """Waves of two harmonics for one subarray."""
    model = datamodels.EmiModel()
    waves = {}
    for name, frequency in frequencies.items():
        phase = (np.arange(int(5e4 / frequency)) + 0.5) / int(5e4 / frequency)
        wave = np.sin(2 * np.pi * phase) + 0.3 * np.cos(6 * np.pi * phase)
        waves[name] = {"frequency": frequency, "phase_amplitudes": wave}
    names = list(frequencies)
    speeds = {"FAST": names, "SLOW": {"MIRIMAGE": names}}
    model.frequencies = waves
    model.subarray_cases = {subarray: {"rowclocks": clocks[0], "frameclocks": clocks[1], "freqs": speeds}}
    return model


FREQUENCIES = {"Hz390": 390.625, "Hz218a": 218.52055}
SUB64 = (64, 72)
MIRI_FRAME = whole_frame("MIRIMAGE", "SUB64", SUB64) | {"meta.subarray.xstart": 1, "meta.subarray.ystart": 779}


def miri_cache(folder: Path) -> None:
    """References of Stage 1 for SUB64 of MIRI's imager."""
    shape, rng = SUB64, np.random.default_rng(12)

    def full(value: float) -> np.ndarray:
        return np.full(shape, value, np.float32)

    coeffs = np.zeros((4, *shape), np.float32)
    coeffs[1] = 1
    coeffs[2] = rng.normal(1e-6, 1e-7, shape)
    reset = rng.normal(0, 20, (2, 4, *shape)).astype(np.float32)
    skips = datamodels.RSCDModel().get_dtype("rscd_group_skip_table")
    rows = np.zeros(2, skips)
    for row, pattern in enumerate(("FASTR1", "SLOWR1")):
        for name, value in {"subarray": "SUB64", "readpatt": pattern, "group_skip1": 2, "group_skip": 1}.items():
            if name in skips.names:
                rows[row][name] = value
    dark = datamodels.DarkMIRIModel(data=rng.normal(1, 0.5, (2, 12, *shape)).astype(np.float32))
    dark.dq = np.zeros((2, 1, *shape), np.uint32)
    size = {"nframes": 1, "groupgap": 0, "nints": 2, "ngroups": 12, "readpatt": "FASTR1"}
    for name, value in size.items():
        dark[f"meta.exposure.{name}"] = value
    resets = datamodels.ResetModel(data=reset, dq=np.zeros(shape, np.uint32))
    resets.meta.exposure.nints, resets.meta.exposure.ngroups = 2, 4
    references = [
        ("mask", datamodels.MaskModel(**_flags(rng, shape, "DO_NOT_USE", "HOT"))),
        ("emicorr", emi_reference("SUB64", (28, 8512), FREQUENCIES)),
        (
            "saturation",
            datamodels.SaturationModel(data=np.full(shape, 50000, np.float32), **_flags(rng, shape, "NO_SAT_CHECK")),
        ),
        ("reset", resets),
        ("linearity", datamodels.LinearityModel(coeffs=coeffs, **_flags(rng, shape, "NO_LIN_CORR"))),
        ("rscd", datamodels.RSCDModel(rscd_group_skip_table=rows)),
        ("dark", dark),
        ("gain", datamodels.GainModel(data=full(5.5))),
        ("readnoise", datamodels.ReadnoiseModel(data=full(6))),
    ]
    make_cache(folder, "MIRI", references, MIRI_FRAME)


def miri_exposure(path: Path, exposure_type: str = "MIR_IMAGE", integrations: int = 2, groups: int = 10) -> Path:
    """Ramps with interference, some of them bright."""
    rng = np.random.default_rng(13)
    ny, nx = SUB64
    flux = rng.gamma(2, 10, SUB64)
    flux[rng.random(SUB64) < 0.03] *= 100
    ramp = 10000 + rng.normal(0, 500, SUB64) + flux * np.arange(groups)[:, None, None]
    ramp = ramp + rng.normal(0, 5, (integrations, groups, ny, nx))
    clock = np.arange(integrations)[:, None, None, None] * groups + np.arange(groups)[:, None, None]
    clock = clock * (ny * 28 + (1024 - ny) * 7) + np.arange(ny)[:, None] * 28 + np.arange(nx) // 4
    for frequency in FREQUENCIES.values():
        ramp += 5 * np.sin(2 * np.pi * clock * 1e-5 * frequency)
    model = datamodels.Level1bModel(data=np.clip(np.round(ramp), 0, 65535).astype(np.uint16))
    meta = {
        **MIRI_FRAME,
        "meta.subarray.fastaxis": 1,
        "meta.subarray.slowaxis": 2,
        "meta.telescope": "JWST",
        "meta.instrument.name": "MIRI",
        "meta.instrument.filter": "F770W",
        "meta.exposure.type": exposure_type,
        "meta.exposure.readpatt": "FASTR1",
        "meta.exposure.nints": integrations,
        "meta.exposure.ngroups": groups,
        "meta.exposure.nframes": 1,
        "meta.exposure.groupgap": 0,
        "meta.exposure.nsamples": 1,
        "meta.exposure.frame_divisor": 1,
        "meta.exposure.frame_time": 0.08511,
        "meta.exposure.group_time": 0.08511,
        "meta.exposure.integration_time": 0.8511,
        "meta.exposure.effective_exposure_time": 1.7,
        "meta.observation.date": "2022-10-01",
        "meta.observation.time": "00:00:00.000",
        "meta.bunit_data": "DN",
        "meta.filename": path.name,
    }
    for name, value in meta.items():
        model[name] = value
    model.save(path)
    return path
