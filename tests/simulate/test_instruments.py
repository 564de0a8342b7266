"""Exposures of all instruments: Stage 1 of the reference pipeline accepts them and finds the truth."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from jwstdask.simulate import Effects, make_cache, make_program
from jwstdask.simulate.instruments import instrument as find_instrument
from jwstdask.simulate.irs2 import ROWS, interleaved, sample_times, science_rows
from jwstdask.simulate.miri import RESET_GROUPS, interference_cases
from tests.using import crds_of

LOGGERS = ("jwst", "stcal", "stpipe", "stdatamodels", "CRDS")

QUIET = Effects(cosmic_rays=0.0, snowballs=0.0)
"""Everything but particles, whose flags lie on a share of the pixels that is not the matter here."""


@dataclass(frozen=True)
class Mode:
    """A configuration: arguments of the cache and the program, and what the pipeline does with it.

    ``complete`` are the steps that run, ``complaints`` beginnings of messages that a real exposure gives, too.
    """

    instrument: str
    cache: Mapping[str, Any] = field(default_factory=dict)
    program: Mapping[str, Any] = field(default_factory=dict)
    complete: frozenset[str] = frozenset()
    complaints: tuple[str, ...] = ()
    effects: Effects = QUIET


NEAR = frozenset({"dq_init", "saturation", "superbias", "refpix", "linearity", "dark_sub", "jump", "ramp_fit"})
"""Names of the steps' statuses: dark_current is ``dark_sub``."""
MIDDLE = frozenset(
    {"dq_init", "emicorr", "saturation", "lastframe", "reset", "linearity", "rscd", "dark_sub", "jump", "ramp_fit"}
)
SHORT = ("Cannot apply jump detection", "Jump step will be skipped")

MODES: Mapping[str, Mode] = {
    "MIRI imager": Mode("miri", program={"ngroups": 14, "nints": 2}, complete=MIDDLE),
    "MIRI time series": Mode(
        "miri",
        {"subarray": "SLITLESSPRISM", "filters": ["P750L"]},
        {"ngroups": 10, "nints": 4, "tso": True, "exp_type": "MIR_LRS-SLITLESS"},
        MIDDLE - {"rscd", "lastframe"},
        # what the steps that a time series leaves out would have flagged
        effects=replace(QUIET, switch_decay=0.0, first_frame=0.0, last_frame=0.0),
    ),
    "NIRISS imager": Mode("niriss", program={"ngroups": 5, "nints": 2}, complete=NEAR | {"charge_migration"}),
    "NIRISS AMI": Mode(
        "niriss",
        {"subarray": "SUB80", "filters": ["F380M"]},
        {"ngroups": 5, "nints": 3, "exp_type": "NIS_AMI"},
        NEAR | {"charge_migration"},
    ),
    "NIRISS SOSS": Mode(
        "niriss",
        {"subarray": "SUBSTRIP96", "filters": ["GR700XD"]},
        {"ngroups": 4, "nints": 3, "tso": True, "exp_type": "NIS_SOSS"},
        NEAR,
    ),
    "NIRSpec slit": Mode("nirspec", {"subarray": "SUBS200A1", "detectors": ["nrs2"]}, {"ngroups": 5}, NEAR),
    "NIRSpec time series": Mode(
        "nirspec", program={"ngroups": 5, "nints": 6, "tso": True, "exp_type": "NRS_BRIGHTOBJ"}, complete=NEAR
    ),
    "FGS": Mode("fgs", program={"ngroups": 5, "readpatt": "FGS"}, complete=NEAR),
}

FULL: Mapping[str, Mode] = {
    "MIRI spectrograph": Mode(
        "miri",
        {
            "subarray": "FULL", "detectors": ["mirifushort"], "filters": ["SHORT"], "readpatt": "SLOWR1",
            "dark_groups": 6,
        },
        {"ngroups": 6, "exp_type": "MIR_MRS"},
        MIDDLE,
        ("Not enough differences for shower detections",),
    ),
    "NIRSpec IRS2": Mode(
        "nirspec",
        {"subarray": "FULL", "readpatt": "NRSIRS2RAPID", "dark_groups": 2, "detectors": ["nrs2"]},
        {"ngroups": 2},
        NEAR - {"jump"},
        SHORT,
    ),
}  # fmt: skip


class Complaints(logging.Handler):
    """Collects what is logged at WARNING or above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # crds's own deprecation, whatever the exposure
        if "get_cache_lock" not in record.getMessage():
            self.messages.append(f"{record.name}: {record.getMessage()}")


def check(mode: Mode, folder) -> None:
    from jwst.pipeline import Detector1Pipeline

    cache = make_cache(folder / "cache", instrument=mode.instrument, seed=4, **mode.cache)
    program = make_program(folder / "program", cache, dithers=1, seed=4, effects=mode.effects, **mode.program)
    handler = Complaints()
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    try:
        with crds_of(cache), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = Detector1Pipeline.call(str(program.uncals[0]), configure_log=False)
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(handler)
    assert [text for text in handler.messages if not any(known in text for known in mode.complaints)] == []
    assert [str(w.message) for w in caught if "Validation" in w.category.__name__] == []
    status = result.meta.cal_step.instance
    assert {name for name, value in status.items() if value == "COMPLETE"} == mode.complete

    root = next(iter(program.exposure_truth))
    good = result.dq == 0
    assert good.mean() > 0.4
    truth = program.rate(root)
    assert result.data.shape == truth.shape
    faint = good & (truth < np.percentile(truth, 70))
    pull = ((result.data - truth) / result.err)[faint]
    spread = 1.4826 * np.median(np.abs(pull - np.median(pull)))
    # 1/f noise and drifts are not in ERR: up to a tenth more; averaged frames have less noise than is told
    assert 0.85 < spread < 1.15
    # what is common to all pixels: drifts that few reference pixels, or none, catch
    assert abs(np.median(pull)) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", MODES)
def test_oracle_finds_the_truth(name, tmp_path):
    check(MODES[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_oracle_finds_the_truth_in_full_frames(name, tmp_path):
    check(FULL[name], tmp_path)


def digest(folder) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.*"))
        if path.is_file()
    }


SMALL = {
    "miri": {"subarray": "SUB64"},
    "niriss": {"subarray": "SUB64"},
    "nirspec": {"subarray": "SUB512S"},
    "fgs": {"subarray": "SUB128LL"},
}


@pytest.mark.parametrize("instrument", SMALL)
def test_same_seed_same_bytes(instrument, tmp_path):
    for name in "ab":
        cache = make_cache(tmp_path / name / "c", instrument=instrument, dark_groups=3, **SMALL[instrument])
        made = make_program(tmp_path / name / "p", cache, dithers=1, ngroups=4, nints=2)
    a, b = (digest(tmp_path / name) for name in "ab")
    # the program's record names the folder of its cache
    assert {key for key in a if a[key] != b[key]} <= {"p/simulation.json"}
    assert set(a) == set(b)
    other = make_program(tmp_path / "d", cache, dithers=1, ngroups=4, nints=2, seed=9)
    assert fits.getdata(other.uncals[0], "SCI").tobytes() != fits.getdata(made.uncals[0], "SCI").tobytes()


TYPES = {
    "miri": "mask emicorr saturation reset linearity rscd dark gain readnoise ipc",
    "niriss": "mask saturation superbias linearity dark gain readnoise ipc",
    "nirspec": "mask saturation superbias linearity dark gain readnoise ipc",
    "fgs": "mask saturation superbias linearity dark gain readnoise ipc",
}


@pytest.mark.parametrize("instrument", SMALL)
def test_strict_models_and_every_reference(instrument, tmp_path):
    from stdatamodels.jwst import datamodels
    from stpipe import crds_client

    cache = make_cache(tmp_path / "c", instrument=instrument, dark_groups=3, **SMALL[instrument])
    program = make_program(tmp_path / "p", cache, dithers=1, ngroups=4, nints=3, segments=2)
    with crds_of(cache):
        with datamodels.Level1bModel(str(program.uncals[0]), strict_validation=True) as model:
            model.validate()
            parameters = model.get_crds_parameters()
            assert model.meta.exposure.segment_number == 1
        types = [*TYPES[instrument].split(), "pars-detector1pipeline", "pars-jumpstep", "pars-rampfitstep"]
        found = crds_client.get_multiple_reference_paths(parameters, types, "jwst")
        assert set(found) == set(types)
    for kind in TYPES[instrument].split():
        if found[kind].endswith("fits"):
            with datamodels.open(found[kind], strict_validation=True) as reference:
                reference.validate()


def test_segments_are_parts_of_the_exposure(tmp_path):
    cache = make_cache(tmp_path / "c", instrument="nirspec", subarray="SUB512S", dark_groups=3)
    whole = make_program(tmp_path / "a", cache, dithers=1, ngroups=3, nints=7, tso=True, exp_type="NRS_BRIGHTOBJ")
    parts = make_program(
        tmp_path / "b", cache, dithers=1, ngroups=3, nints=7, tso=True, exp_type="NRS_BRIGHTOBJ", segments=3
    )
    root = whole.uncals[0].name.removesuffix("_nrs1_uncal.fits")
    assert [path.name for path in parts.uncals] == [f"{root}-seg{n:03d}_nrs1_uncal.fits" for n in (1, 2, 3)]
    with fits.open(whole.uncals[0]) as hdus:
        expected = {name: np.array(hdus[name].data) for name in ("SCI", "GROUP", "INT_TIMES")}
    starts = []
    for number, path in enumerate(parts.uncals, start=1):
        with fits.open(path) as hdus:
            header = hdus[0].header
            assert (header["EXSEGNUM"], header["EXSEGTOT"], header["NINTS"]) == (number, 3, 7)
            assert header["FILENAME"] == path.name
            first, last = header["INTSTART"] - 1, header["INTEND"]
            starts.append((first, last))
            np.testing.assert_array_equal(hdus["SCI"].data, expected["SCI"][first:last])
            np.testing.assert_array_equal(hdus["INT_TIMES"].data, expected["INT_TIMES"][first:last])
            np.testing.assert_array_equal(hdus["GROUP"].data, expected["GROUP"][3 * first : 3 * last])
    assert [first for first, _ in starts] == [0, *[last for _, last in starts[:-1]]]
    assert starts[-1][1] == 7
    with pytest.raises(ValueError, match="spread over"):
        make_program(tmp_path / "e", cache, dithers=1, ngroups=3, nints=2, segments=3)


FRAMES = {
    # times that the instruments' documentation gives [s]; formula and documentation agree to a few milliseconds
    ("miri", "mirimage", "FULL", "FASTR1"): 2.775,
    ("miri", "mirimage", "SUB64", "FASTR1"): 0.085,
    ("miri", "mirifulong", "FULL", "SLOWR1"): 23.89,
    ("niriss", "nis", "FULL", "NISRAPID"): 10.737,
    ("niriss", "nis", "SUBSTRIP256", "NISRAPID"): 5.494,
    ("niriss", "nis", "SUB80", "NISRAPID"): 0.0754,
    ("nirspec", "nrs1", "FULL", "NRSRAPID"): 10.737,
    ("nirspec", "nrs1", "FULL", "NRSIRS2RAPID"): 14.589,
    ("nirspec", "nrs2", "SUB2048", "NRSRAPID"): 0.902,
    ("fgs", "guider1", "FULL", "FGSRAPID"): 10.737,
    ("nircam", "nrca1", "SUB160", "RAPID"): 0.2786,
}


@pytest.mark.parametrize(("instrument", "detector", "subarray", "pattern"), FRAMES)
def test_frame_times_are_those_of_the_documentation(instrument, detector, subarray, pattern):
    table = find_instrument(instrument)
    aperture = table.aperture(table.detector(detector), subarray)
    found = table.frame_time(aperture, table.read_pattern(pattern))
    assert found == pytest.approx(FRAMES[instrument, detector, subarray, pattern], abs=0.002)


def test_clocks_of_a_frame_are_rows_that_are_read_and_rows_that_are_skipped():
    for name, case in interference_cases().items():
        size = {"BRIGHTSKY": 512, "SUB256": 256, "SUB128": 128, "SUB64": 64, "SLITLESSPRISM": 416, "MASKLYOT": 304}
        rows = size.get(name, 224 if name.startswith("MASK") else 1024)
        assert case["frameclocks"] == rows * case["rowclocks"] + (1024 - rows) * 7


@pytest.mark.parametrize("flipped", [False, True])
def test_interleaved_readout(flipped):
    rows = science_rows(flipped)
    assert rows.size == 2048
    assert interleaved().sum() == 128
    times = sample_times(flipped)
    assert times.shape == (ROWS,)
    for output in times.reshape(5, 640):
        # 640 samples, a gap before and after each of 32 jumps: the time of a line but for its pause
        assert np.unique(output).size == 640
        assert (output.min(), output.max()) == (0, 703)
        assert set(np.unique(np.diff(np.sort(output)))) == {1, 2}
        assert np.sum(np.diff(np.sort(output)) == 2) == 64


def test_resets_and_interference_are_in_the_ramp(tmp_path):
    cache = make_cache(tmp_path / "c", instrument="miri", subarray="SUB64", dark_groups=4)
    common = {"dithers": 1, "ngroups": 12, "nints": 2, "stars": 0, "galaxies": 0, "background": 0.0}
    quiet = make_program(tmp_path / "a", cache, effects=Effects.none(), **common)
    still = fits.getdata(quiet.uncals[0], "SCI").astype(float)

    def added(name: str, **strength: float) -> np.ndarray:
        effects = Effects(**{**vars(Effects.none()), **strength})
        made = make_program(tmp_path / name, cache, effects=effects, **common)
        return fits.getdata(made.uncals[0], "SCI") - still

    decay = added("b", reset_decay=1.0).mean(axis=(2, 3))
    assert np.all(np.diff(decay[0, :RESET_GROUPS]) < 0)
    assert decay[0, 0] == pytest.approx(2.5 * decay[1, 0], rel=0.05)
    # whole numbers: half a DN at most on each side
    assert abs(decay[:, RESET_GROUPS:]).max() < 1
    waves = added("d", interference=30.0)
    assert 10 < waves.std() < 60
    # all four outputs at once
    np.testing.assert_allclose(waves[..., 0::4], waves[..., 3::4], rtol=0, atol=2)
    frames = added("e", first_frame=20.0, last_frame=10.0).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(frames[[0, 5, 11]], [-20, 0, -10], rtol=0, atol=0.6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subarray": "SUB512", "readpatt": "NRSIRS2"}, "full frames only"),
        ({"subarray": "SUB999"}, "no subarray"),
        ({"readpatt": "FASTR1"}, "no pattern"),
    ],
)
def test_impossible_requests_are_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_cache(tmp_path, instrument="nirspec", **arguments)


def test_a_cache_is_for_one_way_of_reading(tmp_path):
    cache = make_cache(tmp_path / "c", instrument="miri", subarray="SUB64", dark_groups=3)
    with pytest.raises(ValueError, match="like FASTR1, not SLOWR1"):
        make_program(tmp_path / "p", cache, readpatt="SLOWR1")
