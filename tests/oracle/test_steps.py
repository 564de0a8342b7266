"""Single steps by alias equal jwst's, with the names, status keywords and products that strun gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from jwstdask.core import dq
from tests.conftest import RECIPES
from tests.oracle.compare import compare, row
from tests.oracle.conftest import Call, same_names
from tests.oracle.test_image2 import resampled_differs

STEPS = {
    "group_scale": ("GroupScaleStep", "uncal", {}),
    "dq_init": ("DQInitStep", "uncal", {}),
    "saturation": ("SaturationStep", "dq_init", {"n_pix_grow_sat": 0}),
    "ipc": ("IPCStep", "saturation", {}),
    "superbias": ("SuperBiasStep", "saturation", {}),
    "superbias without reference": (
        "SuperBiasStep",
        "saturation",
        {"override_superbias": "N/A", "suffix": "unbiased"},
    ),
    "refpix": ("RefPixStep", "superbias", {"side_smoothing_length": 21}),
    "linearity": ("LinearityStep", "refpix", {}),
    "dark_current": ("DarkCurrentStep", "linearity", {"average_dark_current": 0.01}),
    "charge_migration": ("ChargeMigrationStep", "dark_current", {"signal_threshold": 10000.0}),
    "jump": ("JumpStep", "dark_current", {"rejection_threshold": 5.0}),
    "ramp_fit": ("RampFitStep", "jump", {"save_opt": True}),
    "gain_scale": ("GainScaleStep", "rate", {}),
    "assign_wcs": ("AssignWcsStep", "rate", {"sip_degree": 3}),
    "flat_field": ("FlatFieldStep", "assign_wcs", {}),
    "photom": ("PhotomStep", "flat_field", {}),
    "resample": ("ResampleStep", "photom", {"pixfrac": 0.8, "kernel": "square"}),
}
"""Alias to the oracle's class, the product it starts from, and parameters."""


NAMED = ("jump", "refpix", "resample")
"""Steps whose parameter reference gives them a name; the products of the others are named after the class."""

SUFFIXES = ("0_ramp_fit", "1_ramp_fit", "fitopt")
"""Of the products of ramp_fit."""

CHAINED = ("assign_wcs", "flat_field", "photom")
"""Steps whose products the next one starts from; what the others start from Stage 1 leaves on its way."""


@pytest.fixture
def folders(products):
    """Products of all steps by both, from the same inputs."""
    program = products.programs("bright2")
    environment = program.cache.environment
    stage1 = products.detector1("jwst", "bright2")

    def work(oracle):
        calls = []
        for alias, (name, kind, options) in STEPS.items():
            file = program.uncals[0].name.replace("_uncal", f"_{kind}")
            source = program.path if kind == "uncal" else oracle if kind in CHAINED else stage1
            if kind in CHAINED:
                file = file.replace(kind, STEPS[kind][0].lower())
            calls.append(Call(alias.split()[0], f"jwst.step.{name}", source / file, options))
        return calls

    oracle = products.make("jwst", "steps", work, environment)
    return products.make("ours", "steps", lambda _: work(oracle), environment), oracle


def beside_zero_frames(array: str, name: str, folders: tuple[Path, Path], ramp: Path) -> bool:
    """Whether fits of single segments differ where groups are usable.

    The zero frame stands in for the first group of ramps without any. The oracle takes its bytes from a file in the
    order of another machine: other values than in the pipeline, where both give the same.
    """
    usable = ((fits.getdata(ramp, "GROUPDQ") & np.uint8(dq.DO_NOT_USE)) == 0).any(axis=1, keepdims=True)
    left, right = (fits.getdata(folder / name, array).astype(float) for folder in folders)
    same = np.isclose(left, right, rtol=1e-6, atol=0, equal_nan=True)
    return right.ndim != 4 or not (same | ~usable).all()


@pytest.mark.parametrize("alias", STEPS)
def test_step_equals_the_oracles(products, folders, alias, record_property):
    ours, oracle = folders
    usual = alias if alias in NAMED else STEPS[alias][0].lower()
    suffixes = SUFFIXES if alias == "ramp_fit" else (STEPS[alias][2].get("suffix", usual),)
    names = [name for suffix in suffixes for name in same_names(ours, oracle, f"*_{suffix}.fits")]
    assert len(names) == len(suffixes)
    rows, wrong = [], []
    for name in names:
        result = compare(ours / name, oracle / name, 1e-9 if alias == "resample" else 0.0)
        rows.append(row(alias, RECIPES["bright2"].mode, name.rpartition("nrcb1_")[2].removesuffix(".fits"), result))
        wrong += result.headers
        # as in the pipelines
        if alias == "resample":
            wrong += resampled_differs(result)
        else:
            apart = {array: item for array, item in result.arrays.items() if item.relative > 1e-6}
            if name.endswith("fitopt.fits"):
                jump = products.detector1("jwst", "bright2") / name.replace("fitopt", "jump")
                apart = {array: item for array, item in apart.items() if beside_zero_frames(array, name, folders, jump)}
            wrong += [f"{array}: {item}" for array, item in apart.items()]
    record_property("parity", rows)
    assert not wrong, "\n".join(wrong)
    assert sum(item["flags"] or 0 for item in rows) == 0
