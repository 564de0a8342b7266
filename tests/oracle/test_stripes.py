"""Stage 1 of exposures read in stripes equals jwst's: the pipeline with everything it can save, and its steps alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from astropy.io import fits

from jwstdask.simulate.stripes import READOUTS, StripedExposure, make_striped
from tests.conftest import once
from tests.oracle.compare import compare, row
from tests.oracle.conftest import TAPS, Call, run_jwst, run_ours

TOLERANCE = 1e-6
"""Relative: ten units in the last place of a 32-bit number, as for other exposures."""

# Some columns of the detector, with the edge of an amplifier or of the detector among them.
EXPOSURES = {
    "one stripe": StripedExposure(READOUTS["SUB41STRIPE1_DHS"], (449, 128)),
    "two stripes, averaged frames": StripedExposure(
        READOUTS["SUB82STRIPE2_DHS"], (481, 70), nints=3, nframes=2, seed=2
    ),
    "four stripes": StripedExposure(READOUTS["SUB164STRIPE4_DHS"], (1, 80), seed=3),
    "four times the same stripe": StripedExposure(
        READOUTS["SUB164STRIPE4_DHS_LONG"], (1901, 148), ngroups=5, nframes=2, groupgap=1, seed=4
    ),
    "superstripes": StripedExposure(READOUTS["FULL_SUPSTP510"], (501, 40), ngroups=5, nframes=2, seed=5),
    "superstripes without reference rows": StripedExposure(READOUTS["SUB64P_SUPSTP008"], nints=3, seed=6),
    "superstripes read several times": StripedExposure(
        READOUTS["SUB64P_SUPSTP002"], ngroups=4, zeroframe=True, tables=("GROUP",), seed=7
    ),
    "superstripes of columns": StripedExposure(READOUTS["SUB680STRIPE_SOSS"], (2001, 48), ngroups=5, seed=8),
}

STEPS = {
    "dq_init": ("DQInitStep", "uncal", {}),
    "saturation": ("SaturationStep", "dq_init", {"n_pix_grow_sat": 2}),
    "superbias": ("SuperBiasStep", "saturation", {}),
    "refpix": ("RefPixStep", "superbias", {"odd_even_columns": False}),
    "linearity": ("LinearityStep", "refpix", {}),
    "dark_current": ("DarkCurrentStep", "linearity", {}),
    "jump": ("JumpStep", "dark_current", {"rejection_threshold": 5.0}),
    "ramp_fit": ("RampFitStep", "jump", {}),
}
"""Alias to the oracle's class, the product of Stage 1 that it starts from, and parameters."""

PARAMETERS = {
    "refpix": {"odd_even_columns": False, "use_side_ref_pixels": False, "siglimit": 1.5},
    "jump": {
        "rejection_threshold": 3.0,
        "flag_4_neighbors": False,
        "expand_large_events": True,
        "min_jump_area": 3.0,
        "sat_required_snowball": False,
    },
}
"""Parameters of steps, of which each changes what an exposure in stripes becomes."""

VARIED = ("four stripes", "superstripes")
"""Exposures that the pipeline is tried on with `PARAMETERS`, too."""

ALONE = ("four stripes", "superstripes", "superstripes read several times")
"""Exposures that each step is tried on alone."""


@pytest.fixture(scope="module")
def folders(session_folder):
    """Folders with the products of both: subfolders by exposure, and of the steps alone."""
    root = session_folder / "stripes"

    def build(folder: Path) -> None:
        made = make_striped(folder, list(EXPOSURES.values()))
        uncals = [str(path) for path in made.uncals]
        (folder / "made.json").write_text(json.dumps({"uncals": uncals, "environment": made.environment}))

    made = json.loads((once(root / "exposures", build) / "made.json").read_text())
    options = {
        "save_calibrated_ramp": True,
        "steps": {**{step: {"save_results": True} for step in TAPS}, "ramp_fit": {"save_opt": True}},
    }
    oracle = root / "jwst"
    calls = []
    for name, uncal in zip(EXPOSURES, made["uncals"], strict=True):
        calls.append(Call("calwebb_detector1", "jwst.pipeline.Detector1Pipeline", uncal, options, name))
        if name in VARIED:
            steps = {step: {"save_results": True, **own} for step, own in PARAMETERS.items()}
            varied = Call(calls[-1].alias, calls[-1].jwst, uncal, {"steps": steps}, f"{name}, parameters")
            calls.append(varied)
        for alias, (class_name, kind, own) in STEPS.items() if name in ALONE else ():
            path = oracle / name / Path(uncal).name.replace("_uncal", f"_{kind}") if kind != "uncal" else uncal
            calls.append(Call(alias, f"jwst.step.{class_name}", path, own, f"{name}, {alias}"))

    jwst = once(oracle, lambda folder: run_jwst(folder, calls, made["environment"]))
    ours = once(root / "ours", lambda folder: run_ours(folder, calls, made["environment"]))
    return ours, jwst


def check(ours: Path, oracle: Path, pipeline: str, mode: str, record_property) -> list[str]:
    """Every product of one folder equals that of the other; what there is."""
    names = [sorted(path.name for path in folder.glob("*.fits")) for folder in (ours, oracle)]
    log = (ours.parent / "run_ours.log").read_text()
    assert names[0] == names[1], log[-3000:]
    assert names[0]
    rows, wrong = [], []
    for name in names[0]:
        found = compare(ours / name, oracle / name)
        detector = "nis" if "_nis_" in name else "nrc"
        rows.append(row(pipeline, mode, name.removesuffix(".fits").rpartition(detector)[2].partition("_")[2], found))
        wrong += [f"{name}: {text}" for text in found.headers]
        wrong += [f"{name}: {array}: {item}" for array, item in found.arrays.items() if item.relative > TOLERANCE]
    record_property("parity", rows)
    assert not wrong, "\n".join(wrong)
    assert sum(item["flags"] or 0 for item in rows) == 0
    return names[0]


@pytest.mark.parametrize("kind", EXPOSURES)
def test_stage1_equals_the_oracles(folders, kind, record_property):
    ours, oracle = (folder / kind for folder in folders)
    names = check(ours, oracle, "calwebb_detector1", EXPOSURES[kind].readout.subarray, record_property)
    assert {name.rpartition("_")[2] for name in names} >= {"rate.fits", "rateints.fits", "ramp.fits", "refpix.fits"}


@pytest.mark.parametrize("kind", VARIED)
def test_parameters_mean_what_they_mean_to_the_oracle(folders, kind, record_property):
    ours, oracle = (folder / f"{kind}, parameters" for folder in folders)
    names = check(ours, oracle, "calwebb_detector1", f"{EXPOSURES[kind].readout.subarray}, parameters", record_property)
    for step, array in (("refpix", "SCI"), ("jump", "GROUPDQ")):
        name = next(name for name in names if name.endswith(f"_{step}.fits"))
        varied, usual = (fits.getdata(folder / name, array) for folder in (oracle, folders[1] / kind))
        assert (varied != usual).any()


@pytest.mark.parametrize("alias", STEPS)
@pytest.mark.parametrize("kind", ALONE)
def test_step_equals_the_oracles(folders, kind, alias, record_property):
    ours, oracle = (folder / f"{kind}, {alias}" for folder in folders)
    check(ours, oracle, alias, EXPOSURES[kind].readout.subarray, record_property)
