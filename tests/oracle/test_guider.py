"""calwebb_guider equals jwst's, for every mode of the guiders and for a real exposure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import once
from tests.oracle.compare import compare, row
from tests.oracle.conftest import Call, run_jwst, run_ours, same_names
from tests.oracle.exposures import GUIDER_MODES, environment, guider_cache, guider_exposure

REAL = os.environ.get("JWSTDASK_REALDATA")
REAL_NAME = "jw01019001001_gs-acq1_2022117003102_uncal.fits"
SKIPPED = {"dq_init": {"skip": True}, "guider_cds": {"skip": True}}
SAVED = {"dq_init": {"save_results": True}, "guider_cds": {"save_results": True}}


PARTS = {"FGS_ID-IMAGE": "id_1_image", "FGS_ID-STACK": "id_1_stacked", "FGS_FINEGUIDE": "fg"}
"""How the archive names modes in files, where it is not by EXP_TYPE; identifications have no time."""


def _uncal(folder: Path, exposure_type: str) -> Path:
    part = PARTS.get(exposure_type, exposure_type[4:].lower())
    time = "" if "id_" in part else "_2022274000000"
    return folder / f"jw01019001001_gs-{part}{time}_uncal.fits"


def _rates(folder: Path) -> Path:
    return folder / "jw01019001001_gs-track_2022274000001_rates.fits"


@pytest.fixture(scope="session")
def products(session_folder):
    """Folders with the products of both."""

    def inputs(folder: Path) -> None:
        for exposure_type in GUIDER_MODES:
            guider_exposure(_uncal(folder, exposure_type), exposure_type)
        guider_exposure(_rates(folder), "FGS_TRACK", rates=True)
        if REAL:
            (folder / REAL_NAME).symlink_to(Path(REAL) / "products" / "add_wcs_default_acq1.fits")

    root = session_folder / "guider"
    cache, exposures = once(root / "crds", guider_cache), once(root / "exposures", inputs)
    calls = [
        Call("calwebb_guider", "jwst.pipeline.GuiderPipeline", path, {"steps": SAVED})
        for path in sorted(exposures.glob("*_uncal.fits"))
    ]
    alone = _uncal(exposures, "FGS_TRACK")
    calls += [
        Call("dq_init", "jwst.step.DQInitStep", alone, subfolder="alone"),
        Call("guider_cds", "jwst.step.GuiderCdsStep", alone, subfolder="alone"),
        Call("flat_field", "jwst.step.FlatFieldStep", _rates(exposures), {"inverse": True}, "alone"),
        Call("calwebb_guider", "jwst.pipeline.GuiderPipeline", _rates(exposures), {"steps": SKIPPED}, "rates"),
    ]
    identified = _uncal(exposures, "FGS_ID-IMAGE")
    calls += [
        Call("calwebb_guider", "jwst.pipeline.GuiderPipeline", path, {"steps": {step: {"skip": True}}}, f"no_{step}")
        for path in (alone, identified)
        for step in ("dq_init", "flat_field")
    ]
    calls += [
        Call("calwebb_guider", "jwst.pipeline.GuiderPipeline", identified, {"output_file": "mine"}, "own_name"),
    ]
    return [
        once(root / who, lambda folder, run=run: run(folder, calls, environment(cache)))
        for who, run in (("ours", run_ours), ("jwst", run_jwst))
    ]


def check(
    products, pattern: str, mode: str, record_property, subfolder: str = ".", ignore: tuple[str, ...] = ()
) -> None:
    """The products whose names match are identical."""
    ours, oracle = (folder / subfolder for folder in products)
    rows, wrong = [], []
    for name in same_names(ours, oracle, pattern):
        found = compare(ours / name, oracle / name)
        kind = name.removesuffix(".fits").rpartition("_2022")[2][10:] or name.removesuffix(".fits").rpartition("_")[2]
        rows.append(row("calwebb_guider", mode, kind, found))
        wrong += [f"{name}: {text}" for text in found.headers if not text.startswith(ignore)]
        wrong += [f"{name}: {array}: {item}" for array, item in found.arrays.items() if item.count]
        assert {"SCI", "ERR", "DQ"} <= found.arrays.keys()
    record_property("parity", rows)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("exposure_type", GUIDER_MODES)
def test_modes(products, exposure_type, record_property):
    name = _uncal(Path(), exposure_type).name.replace("_uncal.fits", "")
    check(products, f"{name}_*.fits", exposure_type, record_property)


def test_steps_alone(products, record_property):
    check(products, "*.fits", "steps alone", record_property, "alone")


@pytest.mark.parametrize("subfolder", ("no_dq_init", "no_flat_field", "own_name"))
def test_options(products, subfolder, record_property):
    check(products, "*.fits", subfolder.replace("_", " "), record_property, subfolder)


def test_count_rates(products, record_property):
    check(products, "*.fits", "count rates", record_property, "rates")


@pytest.mark.skipif(not REAL, reason="JWSTDASK_REALDATA is not set")
def test_real_acquisition(products, record_property):
    # The ASDF extension has more digits of these than their cards; the oracle drops them.
    digits = ("meta.wcsinfo.cdelt1", "meta.wcsinfo.cdelt2")
    check(products, f"{REAL_NAME.replace('_uncal.fits', '')}_*.fits", "real FGS_ACQ1", record_property, ignore=digits)
