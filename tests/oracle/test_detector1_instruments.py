"""Stage 1 equals jwst's for MIRI, NIRISS, NIRSpec, FGS and grisms of NIRCam: flags, values, keywords, tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from tests.conftest import once
from tests.oracle.compare import FLAGS, Comparison
from tests.oracle.conftest import Call
from tests.oracle.test_detector1 import TOLERANCE, check


@dataclass(frozen=True)
class Mode:
    """Arguments of the simulator and of the pipeline; keywords of references, by type, that are changed."""

    instrument: str
    cache: Mapping[str, Any] = field(default_factory=dict)
    program: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    references: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def process(self) -> str:
        """Which process makes the products: one an instrument, but none for NIRCam alone."""
        return "fgs" if self.instrument == "nircam" else self.instrument


SOSS = {"subarray": "SUBSTRIP96", "filters": ["GR700XD"]}
IRS2 = {"subarray": "FULL", "readpatt": "NRSIRS2RAPID", "dark_groups": 3}
PRISM = {"subarray": "SLITLESSPRISM", "filters": ["P750L"]}

MODES: Mapping[str, Mode] = {
    "MIRIMAGE SUB128 FASTR1 2x14": Mode("miri", {}, {"ngroups": 14, "nints": 2}),
    "MIRIMAGE SUB64 FASTR1 3x5, fits of segments": Mode(
        "miri", {"subarray": "SUB64"}, {"ngroups": 5, "nints": 3, "background": 300.0},
        {
            "firstframe": {"skip": False}, "ramp_fit": {"save_opt": True, "save_results": True},
            "gain_scale": {"save_results": True},
        },
        {"gain": {"GAINFACT": 1.97}},
    ),
    "MIRIMAGE SUB64 FASTR1 2x3, 1/f noise in the field": Mode(
        "miri", {"subarray": "SUB64"}, {"ngroups": 3, "nints": 2},
        {
            "group_scale": {"save_results": True},
            "clean_flicker_noise": {"skip": False, "mask_science_regions": True},
        },
    ),
    "MIRIMAGE SUB64 FASTR1 1x1": Mode("miri", {"subarray": "SUB64"}, {"ngroups": 1}),
    "MIRIMAGE SUB64 FASTGRPAVG 2x6": Mode(
        "miri", {"subarray": "SUB64", "dark_groups": 30}, {"ngroups": 6, "nints": 2, "readpatt": "FASTGRPAVG"}
    ),
    "MIRIMAGE SUB64 FASTGRPAVG 2x8, large events make the last group count": Mode(
        "miri",
        {"subarray": "SUB64", "dark_groups": 30},
        {"ngroups": 8, "nints": 2, "readpatt": "FASTGRPAVG"},
        {
            "charge_migration": {"skip": False},
            "jump": {"expand_large_events": True, "use_ellipses": False, "min_sat_area": 1.0, "min_jump_area": 5.0},
        },
    ),
    "MIRIMAGE SUB256 F1500W FASTR1 1x10, every step": Mode(
        "miri",
        {"subarray": "SUB256", "filters": ["F1500W"]},
        {"ngroups": 10},
        {
            "ipc": {"skip": False}, "firstframe": {"skip": False}, "emicorr": {"algorithm": "sequential"},
            "clean_flicker_noise": {"skip": False},
        },
    ),
    "MIRIMAGE SLITLESSPRISM FASTR1 4x10, two segments": Mode(
        "miri", PRISM, {"ngroups": 10, "nints": 4, "tso": True, "exp_type": "MIR_LRS-SLITLESS", "segments": 2}
    ),
    "MIRIMAGE SLITLESSPRISM FASTR1 2x5, 1/f noise of spectra": Mode(
        "miri", PRISM, {"ngroups": 5, "nints": 2, "exp_type": "MIR_LRS-SLITLESS"},
        {"clean_flicker_noise": {"skip": False, "apply_flat_field": True}},
    ),
    "MIRIFUSHORT FULL SLOWR1 1x6, reference pixels": Mode(
        "miri",
        {
            "subarray": "FULL", "detectors": ["mirifushort"], "filters": ["SHORT"], "readpatt": "SLOWR1",
            "dark_groups": 6,
        },
        {"ngroups": 6, "exp_type": "MIR_MRS"},
        {"refpix": {"skip": False}},
    ),
    "NIS SUB256 NISRAPID 2x6": Mode("niriss", {}, {"ngroups": 6, "nints": 2}),
    "NIS SUB128 NIS 2x4": Mode(
        "niriss", {"subarray": "SUB128", "filters": ["F115W"]}, {"ngroups": 4, "nints": 2, "readpatt": "NIS"}
    ),
    "NIS SUB80 AMI NISRAPID 3x6, dark with gaps": Mode(
        "niriss", {"subarray": "SUB80", "filters": ["F380M"]}, {"ngroups": 6, "nints": 3, "exp_type": "NIS_AMI"},
        references={"dark": {"GROUPGAP": 1, "AVDRKCUR": 0.05}},
    ),
    "NIS SUB80 NISRAPID 2x2, every step": Mode(
        "niriss", {"subarray": "SUB80", "filters": ["F380M"]}, {"ngroups": 2, "nints": 2},
        {"clean_flicker_noise": {"skip": False, "save_noise": True, "save_background": True}},
    ),
    "NIS SUBSTRIP96 SOSS NISRAPID 4x4, two segments": Mode(
        "niriss", SOSS, {"ngroups": 4, "nints": 4, "tso": True, "exp_type": "NIS_SOSS", "segments": 2}
    ),
    "NRS2 SUBS200A1 NRSRAPID 2x6": Mode(
        "nirspec", {"subarray": "SUBS200A1", "detectors": ["nrs2"]}, {"ngroups": 6, "nints": 2}
    ),
    "NRS1 SUB512 NRSRAPIDD2 2x5": Mode("nirspec", {}, {"ngroups": 5, "nints": 2, "readpatt": "NRSRAPIDD2"}),
    "NRS1 SUB512S NRSRAPID 30x5, 1/f noise beside the slit": Mode(
        "nirspec",
        {"subarray": "SUB512S"},
        {"ngroups": 5, "nints": 30, "tso": True, "exp_type": "NRS_BRIGHTOBJ"},
        {"clean_flicker_noise": {"skip": False, "mask_science_regions": True, "single_mask": False, "n_sigma": 0.0}},
    ),
    "NRS1 SUB512 NRSRAPID 4x4, 1/f noise and median image": Mode(
        "nirspec",
        {},
        {"ngroups": 4, "nints": 4, "tso": True, "exp_type": "NRS_BRIGHTOBJ"},
        {"clean_flicker_noise": {"skip": False, "background_method": "median_image", "mask_science_regions": True}},
    ),
    "NRS1 SUB512S NRSRAPIDD2 3x2, every step, noise in frequency space": Mode(
        "nirspec", {"subarray": "SUB512S"}, {"ngroups": 2, "nints": 3, "readpatt": "NRSRAPIDD2"},
        {
            "ipc": {"skip": False},
            "clean_flicker_noise": {"skip": False, "fit_method": "fft", "background_method": None, "n_sigma": 2.0},
        },
    ),
    "NRS2 SUB2048 NRS 1x5": Mode(
        "nirspec", {"subarray": "SUB2048", "detectors": ["nrs2"]}, {"ngroups": 5, "readpatt": "NRS"}
    ),
    "NRS2 FULL NRSIRS2RAPID 1x2, coupling of pixels": Mode(
        "nirspec", {**IRS2, "detectors": ["nrs2"]}, {"ngroups": 2}, {"ipc": {"skip": False}}
    ),
    "NRS1 FULL NRSIRS2RAPID 1x3 MSA, picture frame and 1/f noise": Mode(
        "nirspec",
        {**IRS2, "detectors": ["nrs1"]},
        {"ngroups": 3, "exp_type": "NRS_MSASPEC"},
        {"picture_frame": {"skip": False}, "clean_flicker_noise": {"skip": False, "mask_science_regions": True}},
    ),
    "NRCALONG SUBGRISM64 F322W2 BRIGHT2 3x3, 1/f noise and median image": Mode(
        "nircam",
        {"subarray": "SUBGRISM64", "detectors": ["nrcalong"], "filters": ["F322W2"]},
        {
            "filter": "F322W2", "ngroups": 3, "nints": 3, "tso": True, "exp_type": "NRC_TSGRISM",
            "readpatt": "BRIGHT2",
        },
        {"clean_flicker_noise": {"skip": False, "background_method": "median_image"}},
    ),
    "GUIDER1 SUB128LL FGSRAPID 2x6": Mode("fgs", {}, {"ngroups": 6, "nints": 2}),
    "GUIDER2 SUB128CNTR FGS 1x5": Mode(
        "fgs", {"subarray": "SUB128CNTR", "detectors": ["guider2"]}, {"ngroups": 5, "readpatt": "FGS"}
    ),
}  # fmt: skip


def _folder(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _program(products: Any, name: str) -> Any:
    """The exposure of a mode, in a cache that modes with the same arguments share."""
    from jwstdask.simulate import Cache, Program, make_cache, make_program

    mode = MODES[name]

    def build_cache(folder: Path) -> None:
        made = make_cache(folder, instrument=mode.instrument, seed=2, **mode.cache)
        for kind, keywords in mode.references.items():
            for path in made.references.glob(f"*_{kind}_*.fits"):
                for keyword, value in keywords.items():
                    fits.setval(path, keyword, value=value)

    key = _folder(f"{mode.instrument} {mode.cache} {mode.references or ''}")
    cache = Cache.open(once(products.folder / "caches" / key, build_cache))

    def build(folder: Path) -> None:
        make_program(folder, cache, dithers=1, seed=3, **mode.program)

    return Program.open(once(products.folder / "programs" / _folder(name), build))


def _products(products: Any, who: str, name: str) -> Path:
    """Products of all modes of an instrument, made by one process; the folder of a mode."""
    process = MODES[name].process

    def work(_: Path) -> list[Call]:
        calls = []
        for other, mode in MODES.items():
            if mode.process == process:
                program = _program(products, other)
                # what is saved besides: in full frames only what has to be
                steps = {"jump": {"save_results": "FULL" not in other}, **mode.steps}
                calls += [
                    Call(
                        "calwebb_detector1",
                        "jwst.pipeline.Detector1Pipeline",
                        uncal,
                        {"steps": steps, "save_calibrated_ramp": "every step" in other},
                        _folder(other),
                        program.cache.environment,
                    )
                    for uncal in program.uncals
                ]
        return calls

    environment = _program(products, name).cache.environment
    return products.make(who, f"detector1_{process}", work, environment) / _folder(name)


NOISE = 1e-5
"""Share of ERR by which IRS2 products may differ: Fourier transforms in float32, each with its own order of sums."""


def _without_shifts(apart: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Differences (..., y, x) but for columns that are shifted as a whole, by less than a hundredth of the error.

    1/f noise is the median of a column, without what is too far from it: where the transforms' difference decides
    whether a sample is, the median is another one. That is so in few columns.
    """
    shift = np.nanmedian(apart, axis=-2, keepdims=True)
    typical = np.nanmedian(error, axis=-2, keepdims=True)
    shifted = np.abs(shift) > NOISE * typical
    if np.count_nonzero(shifted) > 4 or (np.abs(shift[shifted]) > 1e-2 * typical[shifted]).any():
        return apart
    return apart - np.where(shifted, shift, 0)


def _within_noise(ours: Path, oracle: Path, found: Comparison, columns: bool = False) -> Iterator[str]:
    """Arrays of an IRS2 product that differ by more than `NOISE`; with ``columns``, 1/f noise was taken out of these.

    Where the transforms' difference of some 1e-6 DN meets a rounding limit of a bright ramp, which is rounded to
    float32 again after the correction, the last bit of a group differs: in less than a thousandth of the pixels. A
    slope is that of two groups, TGROUP apart, of up to the largest 16-bit sample.
    """
    with fits.open(ours) as left, fits.open(oracle) as right:
        error = right["ERR"].data.astype(float)
        last = 2 * np.spacing(np.float32(65535)) / right[0].header["TGROUP"]
        for name, item in found.arrays.items():
            if name in FLAGS:
                continue
            a, b = left[name].data.astype(float), right[name].data.astype(float)
            noise = error**2 if name.startswith("VAR") else error
            apart = np.abs(_without_shifts(a - b, noise) if columns and name == "SCI" else a - b)
            beyond = apart > NOISE * noise
            same = np.array_equal(np.isnan(a), np.isnan(b))
            if not same or beyond.mean() > 1e-3 or (apart[beyond] > NOISE * noise[beyond] + last).any():
                yield f"{name}: {item}, {beyond.sum()} beyond {NOISE} of ERR, up to {np.nanmax(apart)}"


ROUNDING = 1e-9
"""Of ERR: slopes of MIRI that are all but zero differ by rounding errors of their 64-bit sums, whose abscissae count
from the first group even where that is left out."""


def _within_rounding(ours: Path, oracle: Path, found: Comparison) -> Iterator[str]:
    """Arrays of a MIRI product that differ by more than `TOLERANCE`, slopes also by more than `ROUNDING`."""
    for name, item in found.arrays.items():
        rounding = name == "SCI" and item.sigma is not None and item.sigma <= ROUNDING
        if item.relative > TOLERANCE and not rounding:
            yield f"{name}: {item}"


# What an instrument's tests wait for is made by one process: no second worker waits with them.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(mode.process)) for name, mode in MODES.items()]
)
def test_products_equal_the_oracles(products, name, record_property):
    ours, oracle = (_products(products, who, name) for who in ("ours", "jwst"))
    within_noise = partial(_within_noise, columns="1/f noise" in name)
    values = {"values": within_noise} if "IRS2" in name else {"values": _within_rounding} if "MIRI" in name else {}
    check(ours, oracle, name, record_property, **values)
