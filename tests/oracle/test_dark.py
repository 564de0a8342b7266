"""calwebb_dark equals jwst's, and so does Stage 1 of MIRI with its interference removed."""

from __future__ import annotations

from pathlib import Path

import asdf
import numpy as np
import pytest
from astropy.io import fits

from tests.conftest import once
from tests.oracle.compare import compare, row
from tests.oracle.conftest import Call, run_jwst, run_ours, same_names
from tests.oracle.exposures import environment, miri_cache, miri_exposure

TOLERANCE = 1e-6
"""Relative: ten units in the last place of a 32-bit number."""

SAVED = {name: {"save_results": True} for name in ("dq_init", "saturation", "linearity")}
DARK = {"suffix": "dark"}
"""Where no parameter reference says so: jwst then names the product of calwebb_dark after its class."""

JOINT = {"emicorr": {"skip": False, "save_results": True}}
FLY = {
    "skip": False,
    "onthefly_corr_freq": [390.625, 218.52055],
    "save_intermediate_results": True,
    "output_file": "waves",
}


def check(folders, alias: str, mode: str, record_property) -> list[str]:
    """Every product of both is the same."""
    rows, wrong = [], []
    names = same_names(*folders)
    for name in names:
        found = compare(folders[0] / name, folders[1] / name)
        rows.append(row(alias, mode, name.removesuffix(".fits").rpartition("_")[2], found))
        wrong += [f"{name}: {text}" for text in found.headers]
        wrong += [f"{name}: {array}: {item}" for array, item in found.arrays.items() if item.relative > TOLERANCE]
    record_property("parity", rows)
    assert not wrong, "\n".join(wrong)
    assert sum(item["flags"] or 0 for item in rows) == 0
    return names


def same_reference(ours: Path, oracle: Path) -> None:
    """Two references that a step has made are the same but for the time."""
    with asdf.open(ours) as left, asdf.open(oracle) as right:
        meta = [{**tree["meta"], "date": "", "useafter": ""} for tree in (left, right)]
        assert meta[0] == meta[1]
        assert left["subarray_cases"] == right["subarray_cases"]
        assert left["frequencies"].keys() == right["frequencies"].keys()
        for name, wave in left["frequencies"].items():
            assert wave["frequency"] == right["frequencies"][name]["frequency"]
            np.testing.assert_array_equal(wave["phase_amplitudes"], right["frequencies"][name]["phase_amplitudes"])


def both(root: Path, calls: list[Call], variables: dict[str, str]) -> list[Path]:
    runs = (("ours", run_ours), ("jwst", run_jwst))
    return [once(root / who, lambda folder, run=run: run(folder, calls, variables)) for who, run in runs]


@pytest.fixture(scope="session")
def miri(session_folder):
    """Folders with MIRI's products of both."""
    root = session_folder / "miri"

    def inputs(folder: Path) -> None:
        miri_exposure(folder / "jw01234001001_02101_00001_mirimage_uncal.fits")
        miri_exposure(folder / "jw01234001001_02101_00002_mirimage_uncal.fits", "MIR_DARKIMG")
        miri_exposure(folder / "jw01234001001_02101_00003_mirimage_uncal.fits", groups=2)

    exposures, cache = once(root / "exposures", inputs), once(root / "crds", miri_cache)
    image, dark, short = sorted(exposures.glob("*_uncal.fits"))
    calls = [
        Call("calwebb_dark", "jwst.pipeline.DarkPipeline", dark, DARK | {"steps": SAVED | JOINT}, "dark"),
        Call("calwebb_dark", "jwst.pipeline.DarkPipeline", dark, {}, "dark_plain"),
        Call("calwebb_detector1", "jwst.pipeline.Detector1Pipeline", image, {"steps": JOINT}, "joint"),
        Call("calwebb_detector1", "jwst.pipeline.Detector1Pipeline", image, {"steps": {"emicorr": FLY}}, "fly"),
        Call("emicorr", "jwst.step.EmiCorrStep", image, {"algorithm": "sequential"}, "alone"),
        Call("rscd", "jwst.step.RscdStep", short, {}, "short"),
    ]
    return both(root, calls, environment(cache))


@pytest.mark.parametrize(
    ("subfolder", "alias", "mode"),
    [
        ("dark", "calwebb_dark", "MIRIMAGE SUB64 FASTR1, emicorr"),
        ("dark_plain", "calwebb_dark", "MIRIMAGE SUB64 FASTR1"),
        ("joint", "calwebb_detector1", "MIRIMAGE SUB64 FASTR1, emicorr"),
        ("fly", "calwebb_detector1", "MIRIMAGE SUB64 FASTR1, emicorr without reference"),
        ("alone", "emicorr", "sequential"),
    ],
)
def test_miri(miri, subfolder, alias, mode, record_property):
    folders = [folder / subfolder for folder in miri]
    names = check(folders, alias, mode, record_property)
    suffix = {"dark": "_dark.fits", "dark_plain": "_darkpipeline.fits"}.get(subfolder, ".fits")
    assert any(name.endswith(suffix) for name in names)
    done = fits.getval(folders[0] / names[0], "S_MIREMI")
    assert done == ("SKIPPED" if subfolder == "dark_plain" else "COMPLETE")
    references = [sorted(folder.glob("*.asdf")) for folder in folders]
    assert [[path.name for path in paths] for paths in references] == [
        ["waves_emi_ref_waves.asdf"] * (subfolder == "fly")
    ] * 2
    for ours, oracle in zip(*references, strict=True):
        same_reference(ours, oracle)


def test_a_skipped_step_names_its_reference(miri, record_property):
    folders = [folder / "short" for folder in miri]
    (name,) = check(folders, "rscd", "MIRIMAGE SUB64 FASTR1 2x2", record_property)
    header = fits.getheader(folders[0] / name)
    assert (header["S_RSCD"], header["R_RSCD"]) == ("SKIPPED", "crds://jwst_miri_rscd_0001.fits")
    assert header["CRDS_CTX"].endswith(".pmap")


@pytest.mark.parametrize(("name", "saved"), [("bright2", SAVED), ("full", {})])
def test_near_infrared(programs, session_folder, name, saved, record_property):
    program = programs(name)
    root = session_folder / "dark" / name

    def inputs(folder: Path) -> None:
        path = folder / program.uncals[0].name
        path.write_bytes(program.uncals[0].read_bytes())
        fits.setval(path, "EXP_TYPE", value="NRC_DARK")

    (path,) = once(root / "exposures", inputs).glob("*.fits")
    calls = [Call("calwebb_dark", "jwst.pipeline.DarkPipeline", path, DARK | {"steps": saved})]
    check(both(root, calls, program.cache.environment), "calwebb_dark", programs.recipe(name).mode, record_property)
