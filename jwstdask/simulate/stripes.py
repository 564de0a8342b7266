"""Exposures read in stripes, with references that cover a strip of columns (rows of NIRISS) of the whole detector.

A readout in stripes visits rows of several parts of the detector within a frame (the DHS subarrays), the same rows
several times, or other rows in each integration (superstripes). The strip has as many columns as the exposure and all
rows of the detector, so that exposures and references stay small.

>>> exposure = StripedExposure(READOUTS["SUB164STRIPE4_DHS"], columns=(1, 128))   # doctest: +SKIP
>>> made = make_striped("folder", [exposure])                                     # doctest: +SKIP
>>> os.environ.update(made.environment)                                           # doctest: +SKIP
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import asdf
import numpy as np
from astropy.io import fits

from jwstdask.simulate.crds import ReferenceMap, Rule, write_cache

SIZE = 2048
"""Rows of the detector."""

BORDER = 4
"""Width of the border of reference pixels."""

START = 60000.25
"""Start of the exposure (MJD, UTC)."""

GAIN, READ_NOISE, FULL_WELL, BIAS = 2.0, 11.0, 45000.0, 10000.0
"""Typical values: electron/DN, electron, DN, DN."""


@dataclass(frozen=True)
class StripedReadout:
    """A readout in stripes: values of keywords, in the order in which the rows are read.

    Rows run along the fast axis; of NIRISS they are columns of the science frame, which is laid out at the end.

    Attributes
    ----------
    subarray, detector
        SUBARRAY and DETECTOR.
    x_start, x_size
        Columns, which are all of a detector in real exposures of more than 64 columns.
    y_start
        SUBSTRT2 (SUBSTRT1 for NIRISS): where the readout begins, in the science frame.
    y_size
        Rows of the exposure.
    reads1, skips1, reads2, skips2, repeat, interleave
        MSTR_RD1, MSTR_SK1, MSTR_RD2, MSTR_SK2, MSTR_RPT, MSTR_ILV.
    step, superstripes
        SSTR_STP, SSTR_NST.
    """

    subarray: str
    detector: str
    x_start: int
    x_size: int
    y_start: int
    y_size: int
    reads1: int
    skips1: int
    reads2: int
    skips2: int
    repeat: int = 1
    interleave: int = 1
    step: int = 0
    superstripes: int = 0
    exp_type: str = "NRC_TSGRISM"

    @property
    def directions(self) -> tuple[int, int]:
        """Directions of the fast and the slow axis, along x and y."""
        return (-1, 2) if self.detector in ("NRCA1", "NRCA3", "NRCALONG", "NRCB2", "NRCB4") else (1, -2)

    @property
    def instrument(self) -> str:
        """INSTRUME."""
        return "NIRISS" if self.detector == "NIS" else "NIRCAM"

    def laid(self, array: np.ndarray) -> np.ndarray:
        """An array (..., row, pixel of the row) as it lies in the science frame."""
        return np.ascontiguousarray(array.swapaxes(-1, -2)) if self.instrument == "NIRISS" else array

    def keywords(self, y_start: int, y_size: int) -> dict[str, int]:
        """Cards that say where the pixels are, in the science frame, of some rows."""
        across, along = (2, 1) if self.instrument == "NIRISS" else (1, 2)
        fast, slow = self.directions
        return {
            f"SUBSTRT{across}": self.x_start, f"SUBSTRT{along}": y_start, f"SUBSIZE{across}": self.x_size,
            f"SUBSIZE{along}": y_size, "FASTAXIS": int(np.sign(fast)) * across, "SLOWAXIS": int(np.sign(slow)) * along,
        }  # fmt: skip

    @property
    def passes(self) -> int:
        """How often the same rows are read within a frame."""
        same = self.repeat and not self.interleave
        return self.y_size // (self.reads1 + (self.reads2 or self.step)) if same else 1

    def rows(self, superstripe: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Row of the full science frame, and number of the pass, of each row of the exposure."""
        origin = self.y_start - 1 if self.directions[1] > 0 else SIZE - self.y_start
        number = self.reads2 or self.step
        offset = self.skips1 + superstripe * self.step
        found: list[tuple[int, int]] = []
        part = 0
        while len(found) < self.y_size:
            if part == 0 or self.repeat:
                found += [(origin + k, part) for k in range(self.reads1)]
            first = origin + self.reads1 + offset
            if part and (self.interleave or not self.repeat):
                first += part * (number + self.skips2)
            found += [(first + k, part) for k in range(number)]
            part += 1
        row, turn = np.array(found).T
        if self.directions[1] < 0:
            row, turn = SIZE - 1 - row[::-1], turn[::-1]
        return row, turn if self.passes > 1 else np.zeros_like(turn)

    @property
    def dark_rows(self) -> np.ndarray:
        """Row of the full science frame of each row of a dark: those of the exposure, or what superstripes make up."""
        if self.superstripes == 0:
            return self.rows()[0]
        if self.instrument == "NIRISS":
            # They are put together to whole rows.
            return np.arange(SIZE)
        origin = self.y_start - 1 if self.directions[1] > 0 else SIZE - self.y_start
        first = origin + self.reads1 + self.skips1
        rows = np.arange(first, first + self.step * (self.superstripes - 1) + (self.reads2 or self.step))
        return rows if self.directions[1] > 0 else SIZE - 1 - rows[::-1]

    @property
    def frame_time(self) -> float:
        """Time to read one frame through four amplifiers, or one for few columns [s]."""
        outputs = self.outputs
        return round((self.x_size / outputs + 12) * (self.y_size + (1 if outputs > 1 else 2)) * 1e-5, 6)

    @property
    def outputs(self) -> int:
        """NOUTPUTS."""
        return 1 if self.x_size <= 64 or self.instrument == "NIRISS" else 4


READOUTS: Mapping[str, StripedReadout] = {
    readout.subarray + ("_LONG" if readout.detector == "NRCALONG" else ""): readout
    for readout in (
        StripedReadout("SUB41STRIPE1_DHS", "NRCA1", 1, 2048, 1, 41, 1, 1901, 40, 0),
        StripedReadout("SUB82STRIPE2_DHS", "NRCA2", 1, 2048, 2048, 82, 1, 1662, 40, 82),
        StripedReadout("SUB164STRIPE4_DHS", "NRCA1", 1, 2048, 1, 164, 1, 1526, 40, 85),
        StripedReadout("SUB260STRIPE4_DHS", "NRCA1", 1, 2048, 1, 260, 1, 1514, 64, 61),
        StripedReadout("SUB164STRIPE4_DHS", "NRCALONG", 1, 2048, 1, 164, 1, 971, 40, 0, interleave=0),
        StripedReadout("FULL_SUPSTP510", "NRCB1", 1, 2048, 2048, 514, 4, 0, 510, 0, 1, 1, 510, 4, "NRC_IMAGE"),
        StripedReadout("SUB64P_SUPSTP008", "NRCB1", 1851, 64, 1882, 8, 0, 0, 0, 0, 0, 0, 8, 8, "NRC_IMAGE"),
        StripedReadout("SUB64P_SUPSTP002", "NRCB1", 1851, 64, 2046, 8, 1, 165, 1, 0, 1, 0, 1, 64, "NRC_IMAGE"),
        StripedReadout("SUB204STRIPE_SOSS", "NIS", 1793, 256, 2048, 208, 4, 0, 204, 0, 1, 1, 204, 10, "NIS_SOSS"),
        StripedReadout("SUB680STRIPE_SOSS", "NIS", 1793, 256, 2048, 684, 4, 0, 680, 0, 1, 1, 680, 3, "NIS_SOSS"),
    )
}
"""Readouts of NIRCam and of SOSS of NIRISS; numbers of JDox where it gives them."""


@dataclass(frozen=True)
class StripedExposure:
    """What to simulate.

    Attributes
    ----------
    readout
        One of :data:`READOUTS`, or another.
    columns
        First column (from 1) and number of columns to keep; all by default, for which the references need 700 MB.
    nints
        Integrations, with superstripes of all of these together.
    ngroups, nframes, groupgap
        Groups, frames averaged into a group, frames dropped between groups.
    zeroframe
        Keep the first frames; by default where frames are averaged.
    tables
        Tables of the file.
    seed
        Same seed, same bytes.
    """

    readout: StripedReadout
    columns: tuple[int, int] | None = None
    nints: int = 2
    ngroups: int = 6
    nframes: int = 1
    groupgap: int = 0
    zeroframe: bool | None = None
    tables: tuple[str, ...] = ("GROUP", "INT_TIMES")
    seed: int = 1

    @property
    def kept(self) -> StripedReadout:
        """The readout with the columns that are kept."""
        if self.columns is None:
            return self.readout
        return replace(self.readout, x_start=self.columns[0], x_size=self.columns[1])

    @property
    def group_time(self) -> float:
        """TGROUP [s]."""
        return (self.nframes + self.groupgap) * self.kept.frame_time

    @property
    def integration_time(self) -> float:
        """EFFINTTM [s]."""
        return (self.ngroups - 1) * self.group_time + self.nframes * self.kept.frame_time

    @property
    def integrations(self) -> int:
        """NINTS."""
        return self.nints * max(self.readout.superstripes, 1)

    @property
    def has_zeroframe(self) -> bool:
        """ZEROFRAM."""
        return self.nframes > 1 if self.zeroframe is None else self.zeroframe


@dataclass(frozen=True)
class Striped:
    """Simulated exposures.

    Attributes
    ----------
    uncals
        Their Level-1b files.
    environment
        Environment variables that make CRDS use their references.
    rates
        True count rates [DN/s], float32 (row, pixel of the row): those of an exposure, all rows of the detector.
    """

    uncals: tuple[Path, ...]
    environment: Mapping[str, str]
    rates: tuple[np.ndarray, ...]


@dataclass
class _Strip:
    """The detector: arrays (y, x) of all its rows."""

    gain: np.ndarray
    bias: np.ndarray
    noise: np.ndarray
    well: np.ndarray
    bend: np.ndarray
    dark: np.ndarray
    border: np.ndarray
    bad: Mapping[str, np.ndarray]


def _strip(rng: np.random.Generator, readout: StripedReadout) -> _Strip:
    shape = (SIZE, readout.x_size)
    y, x = np.indices(shape)
    x = x + readout.x_start - 1
    border = (y < BORDER) | (y >= SIZE - BORDER) | (x < BORDER) | (x >= SIZE - BORDER)
    amplifier = x // (SIZE // 4)
    dark = 0.02 * np.exp(0.3 * rng.standard_normal(shape))
    hot = (rng.random(shape) < 0.003) & ~border
    dark[hot] = 10 ** rng.uniform(1, 3, int(hot.sum()))
    dark[border] = 0
    bend = 3e-7 * (1 + 0.05 * rng.standard_normal(shape))
    bend[border] = 0
    return _Strip(
        gain=GAIN * (1 + 0.02 * rng.standard_normal(shape)) * (1 + 0.01 * np.arange(4))[amplifier],
        bias=BIAS + 300 * rng.standard_normal(shape) + (400 * rng.standard_normal(4))[amplifier],
        noise=READ_NOISE / GAIN * np.exp(0.1 * rng.standard_normal(shape)),
        well=FULL_WELL * (1 + 0.02 * rng.standard_normal(shape)),
        bend=bend,
        dark=dark,
        border=border,
        bad={
            name: rng.random(shape) < share
            for name, share in {
                "DO_NOT_USE": 0.004, "DEAD": 0.001, "TELEGRAPH": 0.001, "NO_SAT_CHECK": 0.002, "NO_LIN_CORR": 0.002,
                "UNRELIABLE_BIAS": 0.002, "UNRELIABLE_DARK": 0.002, "hole": 0.001,
            }.items()
        }
        | {"HOT": hot},
    )  # fmt: skip


def _hdus(name: str, values: np.ndarray | None, flags: Mapping[str, np.ndarray]) -> list:
    hdus = [] if values is None else [fits.ImageHDU(values.astype(np.float32), name=name)]
    if flags:
        dq = np.zeros(next(iter(flags.values())).shape, np.uint32)
        for bit, where in enumerate(flags.values()):
            dq[where] |= np.uint32(1 << bit)
        columns = [
            fits.Column("BIT", "J", array=np.arange(len(flags))),
            fits.Column("VALUE", "J", array=2 ** np.arange(len(flags))),
            fits.Column("NAME", "40A", array=list(flags)),
            fits.Column("DESCRIPTION", "80A", array=list(flags)),
        ]
        hdus += [fits.ImageHDU(dq, name="DQ"), fits.BinTableHDU.from_columns(columns, name="DQ_DEF")]
    return hdus


def _references(
    folder: Path, number: int, readout: StripedReadout, strip: _Strip, frames: int, rng: np.random.Generator
) -> dict[str, Rule]:
    """Write the references of an exposure; the lines of the maps that select them."""
    bad, holes = strip.bad, strip.bad["hole"] & ~strip.border

    def holed(values: np.ndarray) -> np.ndarray:
        return np.where(holes, np.nan, values)

    rows = readout.dark_rows
    accumulated = ((strip.dark / strip.gain)[rows] * readout.frame_time) * np.arange(1, frames + 1)[:, None, None]
    accumulated = np.minimum(accumulated, FULL_WELL) + 0.1 * rng.standard_normal(accumulated.shape)
    coefficients = np.zeros((4, *strip.bend.shape))
    coefficients[1], coefficients[2] = 1, strip.bend
    inverse = np.zeros_like(coefficients)
    inverse[1], inverse[2] = 1, -strip.bend
    masked = {name: bad[name] for name in ("DO_NOT_USE", "DEAD", "HOT", "TELEGRAPH")}
    level = np.where(bad["NO_SAT_CHECK"] & holes, np.nan, strip.bias + 0.98 * strip.well)
    contents = {
        "mask": ("MaskModel", _hdus("", None, {**masked, "REFERENCE_PIXEL": strip.border})),
        "gain": ("GainModel", _hdus("SCI", np.where(bad["TELEGRAPH"] & holes, np.nan, strip.gain), {})),
        "readnoise": ("ReadnoiseModel", _hdus("SCI", np.sqrt(2) * strip.noise, {})),
        "saturation": ("SaturationModel", _hdus("SCI", level, {"NO_SAT_CHECK": bad["NO_SAT_CHECK"]})),
        "superbias": ("SuperBiasModel", _hdus("SCI", holed(strip.bias), {"UNRELIABLE_BIAS": bad["UNRELIABLE_BIAS"]})),
        "linearity": (
            "LinearityModel",
            [
                *_hdus("COEFFS", coefficients, {"NO_LIN_CORR": bad["NO_LIN_CORR"] | strip.border}),
                fits.ImageHDU(inverse.astype(np.float32), name="INV_COEFFS"),
            ],
        ),
        "dark": ("DarkModel", _hdus("SCI", accumulated, {"UNRELIABLE_DARK": bad["UNRELIABLE_DARK"][rows]})),
    }
    rules = {}
    for kind, (model, hdus) in contents.items():
        primary = fits.PrimaryHDU()
        for hdu in hdus:
            if isinstance(hdu, fits.ImageHDU):
                hdu.data = readout.laid(hdu.data)
        primary.header.update(
            DATAMODL=model, TELESCOP="JWST", REFTYPE=kind.upper(), PEDIGREE="GROUND", DESCRIP=f"Synthetic {kind}",
            AUTHOR="jwstdask.simulate", USEAFTER="2022-04-01T00:00:00", INSTRUME=readout.instrument,
            DETECTOR=readout.detector, SUBARRAY="FULL", **readout.keywords(1, SIZE if kind != "dark" else rows.size),
            NGROUPS=frames, NFRAMES=1, GROUPGAP=0,
            NINTS=1, READPATT="RAPID", EXP_TYPE="NRC_DARK", TFRAME=readout.frame_time, TGROUP=readout.frame_time,
        )  # fmt: skip
        name = f"jwst_{readout.instrument.lower()}_{kind}_{number:04d}.fits"
        fits.HDUList([primary, *hdus]).writeto(folder / name)
        rules[kind] = Rule((readout.detector, readout.subarray), name)
    return rules


def _scene(rng: np.random.Generator, columns: int, brightest: float) -> np.ndarray:
    """Light [electron/s], float (y, x): traces along x and stars; some stars saturate at ``brightest``."""
    y, x = np.arange(SIZE)[:, None], np.arange(columns)
    light = np.full((SIZE, columns), 0.002 * brightest)
    for _ in range(60):
        centre = rng.uniform(0, SIZE) + 0.01 * x
        light += rng.uniform(0.01, 0.3) * brightest * np.exp(-0.5 * ((y - centre) / 1.5) ** 2)
    for strength in rng.uniform(0.05, 2.5, max(2000 * columns // SIZE, 40)) * brightest:
        row, column = rng.uniform(0, SIZE), rng.uniform(0, columns)
        near = slice(max(int(row) - 8, 0), int(row) + 9)
        light[near] += strength * np.exp(-0.5 * (((y[near] - row) / 1.2) ** 2 + ((x - column) / 1.2) ** 2))
    return light


def _read_integration(
    rng: np.random.Generator, strip: _Strip, light: np.ndarray, rows: np.ndarray, times: np.ndarray, hits: float
) -> np.ndarray:
    """Reads of some rows at some times [s]: whole numbers, float (time, row, x)."""
    gain, border = strip.gain[rows], strip.border[rows]
    rate = np.where(border, 0, light[rows] + strip.dark[rows])
    charge = np.cumsum(rng.poisson(rate * np.diff(times, prepend=0)[:, None, None]), axis=0).astype(float)
    struck = (rng.random(charge.shape) < hits) & ~border
    charge += np.cumsum(struck * rng.uniform(200, 20000, charge.shape), axis=0)
    linear = charge / gain
    # The root of linear = signal + bend signal^2.
    signal = 2 * linear / (1 + np.sqrt(1 + 4 * strip.bend[rows] * linear))
    signal = np.minimum(signal, strip.well[rows]) + strip.bias[rows] + rng.normal(0, 12, charge.shape[1:])
    parity = np.arange(charge.shape[2]) % 2
    drift = np.cumsum(rng.normal(0, 3, (times.size, 2)), axis=0)
    signal += drift[:, None, parity] + rng.normal(0, strip.noise[rows], charge.shape)
    return np.clip(np.rint(signal), 0, 65535)


def _expose(
    rng: np.random.Generator, exposure: StripedExposure, strip: _Strip, light: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Groups uint16 (integration, group, y, x) and first frames uint16 (integration, y, x)."""
    readout, ngroups, nframes = exposure.kept, exposure.ngroups, exposure.nframes
    passes, shape = readout.passes, (readout.y_size, readout.x_size)
    data = np.empty((exposure.integrations, ngroups, *shape), np.uint16)
    zero = np.empty((exposure.integrations, *shape), np.uint16)
    group, number, turn = (index.ravel() for index in np.mgrid[:ngroups, :nframes, :passes])
    times = (group * (nframes + exposure.groupgap) + number + (turn + 1) / passes) * readout.frame_time
    for integration in range(exposure.integrations):
        rows, turns = readout.rows(integration % max(readout.superstripes, 1))
        unique, place = np.unique(rows, return_inverse=True)
        reads = _read_integration(rng, strip, light, unique, times, 2e-4)
        reads = reads.reshape(ngroups, nframes, passes, *reads.shape[1:])[:, :, turns, place]
        data[integration] = np.rint(reads.mean(axis=1))
        zero[integration] = reads[0, 0]
    return data, zero


def _tables(exposure: StripedExposure) -> list[fits.BinTableHDU]:
    """GROUP and INT_TIMES."""
    nints, ngroups = exposure.integrations, exposure.ngroups
    integration, group = exposure.integration_time, exposure.group_time
    number, count = (index.ravel() for index in np.mgrid[1 : nints + 1, 1 : ngroups + 1])
    ends = START + ((number - 1) * (integration + group) + count * group) / 86400
    same = np.ones(number.size, int)
    values = [
        ("integration_number", "J", number), ("group_number", "I", count),
        ("end_day", "I", np.floor(ends).astype(int) - 51544),
        ("end_milliseconds", "J", (np.mod(ends, 1) * 86400e3).astype(int)), ("end_submilliseconds", "I", 0 * same),
        ("group_end_time", "26A", ["2023-02-25T06:00:00.000000"] * number.size),
        ("number_of_columns", "I", same), ("number_of_rows", "I", same), ("number_of_gaps", "I", 0 * same),
        ("completion_code_number", "I", 0 * same), ("completion_code_text", "36A", ["COMPLETE"] * number.size),
        ("bary_end_time", "D", ends + 0.0046), ("helio_end_time", "D", ends + 0.0046),
    ]  # fmt: skip
    columns = [fits.Column(name, kind, array=array) for name, kind, array in values]
    groups = fits.BinTableHDU.from_columns(columns, name="GROUP")
    begin = START + np.arange(nints) * (integration + group) / 86400
    columns = [fits.Column("integration_number", "J", array=np.arange(1, nints + 1))]
    for scale, delay in (("MJD_UTC", 0.0), ("BJD_TDB", 0.0046)):
        for name, part in (("start", 0.0), ("mid", 0.5), ("end", 1.0)):
            values = begin + delay + part * integration / 86400
            columns.append(fits.Column(f"int_{name}_{scale}", "D", array=values, unit="d"))
    return [groups, fits.BinTableHDU.from_columns(columns, name="INT_TIMES")]


def _asdf_extension() -> fits.BinTableHDU:
    buffer = io.BytesIO()
    asdf.AsdfFile({"meta": {}}).write_to(buffer)
    content = np.frombuffer(buffer.getvalue(), np.uint8)
    return fits.BinTableHDU.from_columns(
        [fits.Column("ASDF_METADATA", f"{content.size}B", array=content[None])], name="ASDF"
    )


def _header(exposure: StripedExposure, name: str) -> fits.Header:
    readout, long_wave = exposure.kept, exposure.readout.detector.endswith("LONG")
    image, integration = readout.exp_type == "NRC_IMAGE", exposure.integration_time
    patterns = {(1, 0): "RAPID", (1, 1): "BRIGHT1", (2, 0): "BRIGHT2"}
    wheels: dict[str, object] = {
        "MODULE": readout.detector[3:4], "CHANNEL": "LONG" if long_wave else "SHORT",
        "FILTER": "F322W2" if long_wave else "F150W2",
        "PUPIL": "CLEAR" if image else "GRISMR" if long_wave else "GDHS0",
    }  # fmt: skip
    if readout.instrument == "NIRISS":
        patterns = {(1, 0): "NISRAPID", (4, 0): "NIS"}
        wheels = {"FILTER": "CLEAR", "PUPIL": "GR700XD", "PWCPOS": 245.77}
    header = fits.Header()
    header["DATE-OBS"], header["TIME-OBS"] = "2023-02-25", "06:00:00.000"
    header.update(
        DATE="2023-02-25T06:00:00.000", ORIGIN="STSCI", TIMESYS="UTC", FILENAME=name, DATAMODL="Level1bModel",
        TELESCOP="JWST", INSTRUME=readout.instrument, DETECTOR=readout.detector, **wheels, EXP_TYPE=readout.exp_type,
        TSOVISIT=not image,
        PROGRAM="01234", OBSERVTN="001", VISIT="001", EXSEGNUM=1, EXSEGTOT=1, INTSTART=1, INTEND=exposure.integrations,
        READPATT=patterns.get((exposure.nframes, exposure.groupgap), "MEDIUM2"), NINTS=exposure.integrations,
        NGROUPS=exposure.ngroups, NFRAMES=exposure.nframes, FRMDIVSR=exposure.nframes, GROUPGAP=exposure.groupgap,
        DRPFRMS1=0, NSAMPLES=1, TSAMPLE=10.0, TFRAME=readout.frame_time, TGROUP=exposure.group_time,
        EFFINTTM=integration, EFFEXPTM=integration * exposure.integrations, ZEROFRAM=exposure.has_zeroframe,
        NOUTPUTS=exposure.readout.outputs, EXPSTART=START, EXPMID=START, EXPEND=START,
        SUBARRAY=readout.subarray, **readout.keywords(readout.y_start, readout.y_size),
        MSTR_RD1=readout.reads1, MSTR_SK1=readout.skips1, MSTR_RD2=readout.reads2, MSTR_SK2=readout.skips2,
        MSTR_RPT=readout.repeat, MSTR_ILV=readout.interleave, SSTR_STP=readout.step, SSTR_NST=readout.superstripes,
    )  # fmt: skip
    return header


def make_striped(path: str | Path, exposures: Sequence[StripedExposure]) -> Striped:
    """Make exposures in stripes and their references.

    Parameters
    ----------
    path
        Folder for the Level-1b files and, in ``crds``, the references.
    exposures
        What to make; no two of the same detector and subarray, which have the same references.

    Returns
    -------
    Striped
    """
    path = Path(path)
    uncals, rates = [], []
    rules: dict[str, dict[str, list[Rule]]] = {}
    for number, exposure in enumerate(exposures, start=1):
        readout = exposure.kept
        folder = path / "crds" / "references" / "jwst" / readout.instrument.lower()
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([exposure.seed, 301])
        strip = _strip(rng, readout)
        frames = exposure.ngroups * (exposure.nframes + exposure.groupgap) * readout.passes
        for kind, rule in _references(folder, number, readout, strip, frames, rng).items():
            rules.setdefault(readout.instrument, {}).setdefault(kind, []).append(rule)
        light = _scene(rng, readout.x_size, FULL_WELL * GAIN / exposure.integration_time)
        light = np.where(strip.bad["DEAD"], 0, light)
        rates.append((light / strip.gain).astype(np.float32))
        data, zero = _expose(rng, exposure, strip, light)
        name = f"jw01234001001_04101_{number:05d}-seg001_{readout.detector.lower()}_uncal.fits"
        hdus = [fits.PrimaryHDU(header=_header(exposure, name)), fits.ImageHDU(readout.laid(data), name="SCI")]
        hdus[1].header["BUNIT"] = "DN"
        if exposure.has_zeroframe:
            hdus.append(fits.ImageHDU(readout.laid(zero), name="ZEROFRAME"))
        hdus += [table for table in _tables(exposure) if table.name in exposure.tables]
        fits.HDUList([*hdus, _asdf_extension()]).writeto(path / name)
        uncals.append(path / name)
    serial = 1000 + zlib.crc32(repr(list(exposures)).encode()) % 9000
    context = f"jwst_{serial}.pmap"
    keys = ("META.INSTRUMENT.DETECTOR", "META.SUBARRAY.NAME")
    maps = {
        instrument: [ReferenceMap(kind, keys, tuple(lines)) for kind, lines in sorted(kinds.items())]
        for instrument, kinds in rules.items()
    }
    write_cache(path / "crds", context, maps, serial)
    environment = {
        "CRDS_PATH": str(path / "crds"),
        "CRDS_CONTEXT": context,
        "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu",
    }
    return Striped(tuple(uncals), environment, tuple(rates))
