"""Tables of the instruments: detectors, readout patterns, filters, subarrays.

One :class:`Instrument` holds everything the simulator knows about an instrument; a further instrument is a further
table (and, if its references have forms of their own, further makers in :mod:`jwstdask.simulate.references`). Numbers
are rounded typical values from the instruments' public documentation (JDox), not measurements of a particular detector.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from jwstdask.simulate import nirspec

IRS2_LINE = 712
"""Samples of a line of the IRS2 readout: 512 pixels, 128 reference samples, the jumps to them and back, a pause."""

MIRI_FRAMES = {
    "FULL": (271, 277504), "BRIGHTSKY": (162, 86528), "SUB256": (96, 29952), "SUB128": (44, 11904), "SUB64": (28, 8512),
    "SLITLESSPRISM": (28, 15904), "MASK1065": (82, 23968), "MASK1140": (82, 23968), "MASK1550": (82, 23968),
    "MASKLYOT": (90, 32400),
}  # fmt: skip
"""Clocks of 10 microseconds of a row and a frame of MIRI's subarrays, read fast."""

SLOW_FRAME = (2333, 2388992)
"""Clocks of a row and of a full frame, read slowly."""


def row_clocks(subarray: str, pattern: ReadPattern | None = None) -> tuple[int, int]:
    """Clocks of a row and of a frame of a subarray of MIRI."""
    if pattern is not None and pattern.samples > 1:
        return SLOW_FRAME
    return MIRI_FRAMES[subarray]


@dataclass(frozen=True)
class Detector:
    """One detector and its typical properties.

    Attributes
    ----------
    name
        DETECTOR keyword, e.g. ``"NRCALONG"``.
    siaf
        Prefix of its aperture names, e.g. ``"NRCA5"``.
    fastaxis, slowaxis
        Directions of readout in the science frame.
    gain
        Electrons per DN.
    read_noise
        Noise of one read [electron].
    dark_current
        Median dark current [electron/s].
    full_well
        Observed signal above the bias at which a pixel stops collecting [DN].
    bias
        Typical zero level [DN].
    keywords
        Cards of the header that name the detector's part of the instrument.
    """

    name: str
    siaf: str
    module: str
    channel: str
    sca_num: int
    fastaxis: int
    slowaxis: int
    gain: float
    read_noise: float
    dark_current: float
    full_well: float
    bias: float
    keywords: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Filter:
    """A filter, or the configuration of a spectrograph.

    Pivot wavelength and width [micron], conversion [MJy/sr per DN/s], AB minus Vega magnitude, sky [MJy/sr], and the
    offset of the image by column and row [pixel]. ``dispersed`` is the axis of the spectra ("x", "y"), empty for an
    image; ``keywords`` are the cards of the header, FILTER by default.
    """

    name: str
    channel: str
    wavelength: float
    width: float
    photmjsr: float
    ab_vega: float
    background: float
    offset: tuple[float, float] = (0.0, 0.0)
    dispersed: str = ""
    keywords: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadPattern:
    """Frames averaged into a group, frames dropped between groups, most groups allowed.

    ``samples`` of a pixel are averaged in a frame; ``interleaved`` patterns read reference samples between pixels (IRS2
    of NIRSpec).
    """

    name: str
    nframes: int
    groupgap: int
    max_groups: int
    samples: int = 1
    interleaved: bool = False


@dataclass(frozen=True)
class Subarray:
    """A part of a detector that is read alone, where the aperture file does not list it.

    SUBSTRT1, SUBSTRT2, SUBSIZE1, SUBSIZE2.
    """

    x_start: int
    y_start: int
    x_size: int
    y_size: int


@dataclass(frozen=True)
class Aperture:
    """An entry of the Science Instrument Aperture File: where pixels lie in the science and the telescope's frame.

    ``x_start``, ``y_start`` are the 1-indexed corner in the full science frame (SUBSTRT1, SUBSTRT2). ``vertical`` where
    the fast direction of the readout is that of the columns.
    """

    name: str
    x_size: int
    y_size: int
    x_start: int
    y_start: int
    x_det_start: int
    y_det_start: int
    x_sci_ref: float
    y_sci_ref: float
    v2_ref: float
    v3_ref: float
    v3_idl_yangle: float
    vidl_parity: int
    vertical: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y_size, self.x_size

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the full science frame."""
        y0, x0 = self.y_start - 1, self.x_start - 1
        return slice(y0, y0 + self.y_size), slice(x0, x0 + self.x_size)

    def cut(self, full: np.ndarray) -> np.ndarray:
        """The part (..., y, x) of an array of the full science frame."""
        return full[(..., *self.window)]


@dataclass(frozen=True)
class Instrument:
    """Everything the simulator knows about one instrument.

    Attributes
    ----------
    subarrays
        Subarrays that the aperture file does not list, by detector ("" for all) and name.
    defaults
        Detectors, subarray, filter, readpatt and exp_type where the user names none.
    mid_infrared
        Four outputs that read every fourth column, reference pixels on the left and right only, linear only with the
        bias, no superbias.
    """

    name: str
    detectors: Mapping[str, Detector]
    filters: Mapping[str, Filter]
    read_patterns: Mapping[str, ReadPattern]
    siaf_file: str
    frame_size: tuple[int, int] = (2048, 2048)
    reference_border: int = 4
    amplifiers: int = 4
    sample_time: float = 10.0
    aliases: Mapping[str, str] = field(default_factory=dict)
    subarrays: Mapping[tuple[str, str], Subarray] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    mid_infrared: bool = False

    def detector(self, name: str) -> Detector:
        """The detector of a name in any case (``"nrca5"`` is NRCALONG)."""
        key = name.upper()
        key = self.aliases.get(key, key)
        if key not in self.detectors:
            raise ValueError(f"{self.name} has no detector {name!r}; it has {', '.join(self.detectors)}")
        return self.detectors[key]

    def filter(self, name: str) -> Filter:
        """The filter of a name."""
        if name.upper() not in self.filters:
            raise ValueError(f"{self.name} has no filter {name!r}; it has {', '.join(self.filters)}")
        return self.filters[name.upper()]

    def read_pattern(self, name: str) -> ReadPattern:
        """The readout pattern of a name."""
        if name.upper() not in self.read_patterns:
            raise ValueError(f"{self.name} has no pattern {name!r}; it has {', '.join(self.read_patterns)}")
        return self.read_patterns[name.upper()]

    def outputs(self, aperture: Aperture) -> int:
        """Amplifiers that read the aperture: all for whole lines along the fast direction, otherwise one."""
        if self.mid_infrared:
            return self.amplifiers
        whole = aperture.shape[0 if aperture.vertical else 1] == self.frame_size[1]
        return self.amplifiers if whole else 1

    def frame_time(self, aperture: Aperture, pattern: ReadPattern | None = None) -> float:
        """Time to read one frame [s]: 12 samples of overhead a line; 1 extra line (full frame) or 2 (subarray).

        That of the mid-infrared detectors is in `MIRI_FRAMES`, and IRS2 frames have 714 samples between frames.
        """
        if pattern is not None and pattern.interleaved:
            return round((IRS2_LINE * self.frame_size[0] + 714) * self.sample_time * 1e-6, 5)
        if self.mid_infrared:
            subarray = aperture.name.split("_", 1)[1]
            return round(row_clocks(subarray, pattern)[1] * self.sample_time * 1e-6, 5)
        outputs = self.outputs(aperture)
        extra = 1 if outputs > 1 else 2
        lines, samples = aperture.shape[::-1] if aperture.vertical else aperture.shape
        return round((samples // outputs + 12) * (lines + extra) * self.sample_time * 1e-6, 5)

    def aperture(self, detector: Detector, subarray: str = "FULL") -> Aperture:
        """Aperture of a detector and subarray.

        The corner in the science frame follows from the aperture's reference point in detector coordinates and the
        flips between detector and science frame (``DetSciParity``, ``DetSciYAngle``).
        """
        table = siaf(self.siaf_file)["apertures"]
        name = f"{detector.siaf}_{subarray.upper()}"
        vertical = abs(detector.fastaxis) == 2
        for key in ((detector.name, subarray.upper()), ("", subarray.upper())):
            if key in self.subarrays:
                return self._unlisted(name, table[f"{detector.siaf}_FULL"], self.subarrays[key], vertical)
        if name not in table:
            known = {key.split("_", 1)[1] for key in table if key.startswith(detector.siaf + "_")}
            known = sorted(known | {key for owner, key in self.subarrays if owner in ("", detector.name)})
            raise ValueError(f"{detector.name} has no subarray {subarray!r}; it has {', '.join(known)}")
        row = table[name]
        ny, nx = self.frame_size
        flip_y = row["det_sci_yangle"] == 180
        flip_x = (row["det_sci_parity"] == -1) != flip_y
        x_det, y_det = row["x_det_ref"], row["y_det_ref"]
        x = (nx + 1 - x_det if flip_x else x_det) - row["x_sci_ref"] + 1
        y = (ny + 1 - y_det if flip_y else y_det) - row["y_sci_ref"] + 1
        x_start, y_start = round(x), round(y)
        x_size, y_size = row["x_sci_size"], row["y_sci_size"]
        return Aperture(
            name=name,
            x_size=x_size,
            y_size=y_size,
            x_start=x_start,
            y_start=y_start,
            x_det_start=nx + 2 - x_start - x_size if flip_x else x_start,
            y_det_start=ny + 2 - y_start - y_size if flip_y else y_start,
            vertical=vertical,
            **{key: row[key] for key in ("x_sci_ref", "y_sci_ref", "v2_ref", "v3_ref", "v3_idl_yangle", "vidl_parity")},
        )

    @staticmethod
    def _unlisted(name: str, full: Mapping[str, Any], part: Subarray, vertical: bool) -> Aperture:
        """An aperture cut out of the full one; its reference point is its middle."""
        x_ref, y_ref = (part.x_size + 1) / 2, (part.y_size + 1) / 2
        poly = full["sci_to_ideal"]
        u, v = part.x_start - 1 + x_ref - full["x_sci_ref"], part.y_start - 1 + y_ref - full["y_sci_ref"]
        terms = [u**i * v**j for i, j in zip(poly["i"], poly["j"])]
        x, y = (float(np.dot(terms, poly[axis])) for axis in "xy")
        angle, parity = np.radians(full["v3_idl_yangle"]), full["vidl_parity"]
        return Aperture(
            name=name,
            x_size=part.x_size,
            y_size=part.y_size,
            x_start=part.x_start,
            y_start=part.y_start,
            x_det_start=part.x_start,
            y_det_start=part.y_start,
            x_sci_ref=x_ref,
            y_sci_ref=y_ref,
            v2_ref=full["v2_ref"] + float(parity * x * np.cos(angle) + y * np.sin(angle)),
            v3_ref=full["v3_ref"] + float(-parity * x * np.sin(angle) + y * np.cos(angle)),
            v3_idl_yangle=full["v3_idl_yangle"],
            vidl_parity=parity,
            vertical=vertical,
        )

    def distortion(self, detector: Detector) -> Mapping[str, object]:
        """Raw entry of the detector's full aperture with its polynomials (see ``data/*_siaf.json``)."""
        return siaf(self.siaf_file)["apertures"][f"{detector.siaf}_FULL"]

    def touches_border(self, aperture: Aperture) -> np.ndarray:
        """Reference pixels of an aperture: bool (y, x)."""
        ny, nx = self.frame_size
        border = np.zeros((ny, nx), bool)
        width = self.reference_border
        if not self.mid_infrared:
            border[:width] = border[-width:] = True
        border[:, :width] = border[:, -width:] = True
        return aperture.cut(border)

    def amplifier(self, aperture: Aperture) -> np.ndarray:
        """Amplifier (0, 1, ...) that reads each pixel, int64 (1, x) or (y, 1)."""
        if self.mid_infrared:
            return (np.arange(aperture.x_size) + aperture.x_start - 1)[np.newaxis] % self.amplifiers
        size, start = (aperture.y_size, aperture.y_start) if aperture.vertical else (aperture.x_size, aperture.x_start)
        if self.outputs(aperture) == 1:
            index = np.zeros(size, int)
        else:
            index = (np.arange(size) + start - 1) * self.amplifiers // self.frame_size[1]
        return index[:, np.newaxis] if aperture.vertical else index[np.newaxis]

    def parity(self, aperture: Aperture) -> np.ndarray:
        """1 for every other pixel along a line (mid-infrared: for every other line), int64 (1, x) or (y, 1)."""
        if aperture.vertical or self.mid_infrared:
            return ((np.arange(aperture.y_size) + aperture.y_start) % 2)[:, np.newaxis]
        return ((np.arange(aperture.x_size) + aperture.x_start) % 2)[np.newaxis]

    def cards(self, detector: Detector, filter_: Filter) -> dict[str, object]:
        """Cards of the header that say what light the detector sees."""
        if self.name == "NIRCAM":
            return {
                "MODULE": detector.module, "CHANNEL": detector.channel, "FILTER": filter_.name, "PUPIL": "CLEAR",
                "PILIN": False,
            }  # fmt: skip
        if self.name == "FGS":
            return {}
        return {**detector.keywords, **(filter_.keywords or {"FILTER": filter_.name})}


@cache
def siaf(name: str) -> dict:
    """Contents of an aperture table of the package."""
    return json.loads(resources.files("jwstdask.simulate").joinpath("data", name).read_text())


def _nircam() -> Instrument:
    detectors = {}
    scas = {
        "A1": 481, "A2": 482, "A3": 483, "A4": 484, "A5": 485,
        "B1": 486, "B2": 487, "B3": 488, "B4": 489, "B5": 490,
    }  # fmt: skip
    # A1, A3, A5, B2, B4 are read towards -x and +y of the science frame, the others towards +x and -y.
    for key, sca in scas.items():
        long_wave = key.endswith("5")
        name = f"NRC{key[0]}LONG" if long_wave else f"NRC{key}"
        mirrored = key in ("A1", "A3", "A5", "B2", "B4")
        detectors[name] = Detector(
            name=name,
            siaf=f"NRC{key}",
            module=key[0],
            channel="LONG" if long_wave else "SHORT",
            sca_num=sca,
            fastaxis=-1 if mirrored else 1,
            slowaxis=2 if mirrored else -2,
            gain=1.82 if long_wave else 2.05,
            read_noise=9.3 if long_wave else 11.2,
            dark_current=0.0342 if long_wave else 0.0019,
            full_well=43000.0 if long_wave else 46000.0,
            bias=9500.0 if long_wave else 11000.0,
        )
    rows = [
        ("F070W", "SHORT", 0.704, 0.128, 3.50, 0.23, 0.16, (0.12, -0.21)),
        ("F090W", "SHORT", 0.901, 0.194, 2.55, 0.49, 0.17, (0.05, -0.11)),
        ("F115W", "SHORT", 1.154, 0.225, 2.35, 0.77, 0.17, (0.02, 0.04)),
        ("F140M", "SHORT", 1.404, 0.142, 3.80, 1.09, 0.16, (-0.03, 0.09)),
        ("F150W", "SHORT", 1.501, 0.318, 1.95, 1.20, 0.15, (0.06, -0.05)),
        ("F150W2", "SHORT", 1.671, 1.227, 0.60, 1.35, 0.15, (0.0, 0.0)),
        ("F182M", "SHORT", 1.845, 0.238, 2.30, 1.56, 0.14, (-0.08, 0.02)),
        ("F187N", "SHORT", 1.874, 0.024, 22.0, 1.61, 0.14, (0.1, 0.13)),
        ("F200W", "SHORT", 1.990, 0.461, 1.68, 1.71, 0.13, (0.07, -0.04)),
        ("F210M", "SHORT", 2.093, 0.205, 3.30, 1.80, 0.12, (-0.02, -0.06)),
        ("F212N", "SHORT", 2.120, 0.027, 24.0, 1.83, 0.12, (0.14, -0.09)),
        ("F250M", "LONG", 2.503, 0.181, 1.05, 2.17, 0.11, (-0.099, -0.131)),
        ("F277W", "LONG", 2.786, 0.672, 0.41, 2.35, 0.11, (-0.084, -0.076)),
        ("F300M", "LONG", 2.996, 0.318, 0.74, 2.50, 0.11, (0.01, -0.229)),
        ("F322W2", "LONG", 3.247, 1.339, 0.19, 2.61, 0.12, (0.102, 0.134)),
        ("F335M", "LONG", 3.365, 0.347, 0.69, 2.73, 0.12, (0.0, 0.0)),
        ("F356W", "LONG", 3.563, 0.787, 0.37, 2.83, 0.13, (0.602, -0.304)),
        ("F360M", "LONG", 3.621, 0.372, 0.67, 2.88, 0.13, (0.084, -0.206)),
        ("F410M", "LONG", 4.092, 0.436, 0.72, 3.11, 0.19, (0.082, -0.11)),
        ("F430M", "LONG", 4.280, 0.228, 1.65, 3.19, 0.24, (0.112, -0.051)),
        ("F444W", "LONG", 4.421, 1.024, 0.41, 3.24, 0.29, (0.0, 0.058)),
        ("F460M", "LONG", 4.624, 0.228, 2.10, 3.35, 0.38, (0.061, -0.07)),
        ("F480M", "LONG", 4.834, 0.303, 1.75, 3.42, 0.49, (0.013, -0.037)),
    ]
    patterns = [
        ("RAPID", 1, 0, 10), ("BRIGHT1", 1, 1, 10), ("BRIGHT2", 2, 0, 10), ("SHALLOW2", 2, 3, 10),
        ("SHALLOW4", 4, 1, 10), ("MEDIUM2", 2, 8, 10), ("MEDIUM8", 8, 2, 10), ("DEEP2", 2, 18, 20),
        ("DEEP8", 8, 12, 20),
    ]  # fmt: skip
    return Instrument(
        name="NIRCAM",
        detectors=detectors,
        filters={row[0]: Filter(*row) for row in rows},
        read_patterns={row[0]: ReadPattern(*row) for row in patterns},
        siaf_file="nircam_siaf.json",
        aliases={"NRCA5": "NRCALONG", "NRCB5": "NRCBLONG"},
        subarrays={("NRCALONG", f"SUBGRISM{rows}"): Subarray(1, 1, 2048, rows) for rows in (64, 128, 256)},
        defaults={
            "detectors": ("nrca1", "nrcb1"), "subarray": "SUB320", "filter": "F200W", "readpatt": "RAPID",
            "exp_type": "NRC_IMAGE",
        },
    )  # fmt: skip


def _miri() -> Instrument:
    common = {"fastaxis": 1, "slowaxis": 2, "gain": 4.0, "dark_current": 0.2, "full_well": 44000.0, "bias": 9000.0}
    detectors = {
        "MIRIMAGE": Detector("MIRIMAGE", "MIRIM", "", "IMAGE", 493, read_noise=24.0, **common),
        "MIRIFULONG": Detector(
            "MIRIFULONG", "MIRIFULONG", "", "MRS", 494, read_noise=22.0, keywords={"CHANNEL": "34"}, **common
        ),
        "MIRIFUSHORT": Detector(
            "MIRIFUSHORT", "MIRIFUSHORT", "", "MRS", 495, read_noise=22.0, keywords={"CHANNEL": "12"}, **common
        ),
    }
    images = [
        ("F560W", 5.64, 1.0, 0.66, 4.38, 1.4), ("F770W", 7.64, 1.95, 0.29, 5.04, 5.0),
        ("F1000W", 9.95, 1.8, 0.42, 5.6, 13.0), ("F1130W", 11.3, 0.73, 1.0, 5.88, 20.0),
        ("F1280W", 12.8, 2.47, 0.62, 6.13, 30.0), ("F1500W", 15.1, 2.92, 0.65, 6.46, 60.0),
        ("F1800W", 18.0, 2.95, 0.95, 6.85, 130.0), ("F2100W", 20.8, 4.58, 1.0, 7.2, 230.0),
        ("F2550W", 25.4, 3.67, 2.4, 7.6, 800.0),
    ]  # fmt: skip
    filters = {row[0]: Filter(row[0], "IMAGE", *row[1:]) for row in images}
    filters["P750L"] = Filter("P750L", "IMAGE", 8.0, 6.0, 0.5, 5.0, 5.0, dispersed="y")
    for band in ("SHORT", "MEDIUM", "LONG"):
        filters[band] = Filter(band, "MRS", 6.0, 0.1, 20.0, 5.0, 200.0, dispersed="y", keywords={"BAND": band})
    patterns = [
        ReadPattern("FASTR1", 1, 0, 1000), ReadPattern("FAST", 1, 0, 1000), ReadPattern("SLOWR1", 1, 0, 1000, 9),
        ReadPattern("SLOW", 1, 0, 1000, 9), ReadPattern("FASTGRPAVG", 4, 0, 1000),
        ReadPattern("FASTGRPAVG8", 8, 0, 1000),
    ]  # fmt: skip
    parts = {
        "BRIGHTSKY": (457, 51, 512, 512), "SUB256": (413, 51, 256, 256), "SUB128": (1, 889, 136, 128),
        "SUB64": (1, 779, 72, 64), "SLITLESSPRISM": (1, 529, 72, 416), "MASK1065": (1, 19, 288, 224),
        "MASK1140": (1, 245, 288, 224), "MASK1550": (1, 467, 288, 224), "MASKLYOT": (1, 717, 320, 304),
    }  # fmt: skip
    return Instrument(
        name="MIRI",
        detectors=detectors,
        filters=filters,
        read_patterns={pattern.name: pattern for pattern in patterns},
        siaf_file="miri_siaf.json",
        frame_size=(1024, 1032),
        subarrays={("MIRIMAGE", name): Subarray(*part) for name, part in parts.items()},
        mid_infrared=True,
        defaults={
            "detectors": ("mirimage",), "subarray": "SUB128", "filter": "F770W", "readpatt": "FASTR1",
            "exp_type": "MIR_IMAGE",
        },
    )  # fmt: skip


def _niriss() -> Instrument:
    detector = Detector(
        "NIS", "NIS", "", "", 496, fastaxis=-2, slowaxis=-1, gain=1.62, read_noise=11.0, dark_current=0.02,
        full_well=46000.0, bias=10000.0,
    )  # fmt: skip
    images = [
        ("F090W", 0.902, 0.195, 1.6, 0.5, 0.2), ("F115W", 1.150, 0.226, 1.3, 0.76, 0.18),
        ("F150W", 1.494, 0.336, 0.95, 1.2, 0.15), ("F200W", 1.993, 0.461, 0.72, 1.7, 0.13),
        ("F277W", 2.764, 0.715, 0.35, 2.3, 0.12), ("F356W", 3.593, 0.914, 0.3, 2.8, 0.14),
        ("F380M", 3.826, 0.205, 1.3, 3.0, 0.15), ("F444W", 4.427, 1.104, 0.36, 3.2, 0.3),
        ("F480M", 4.815, 0.303, 1.2, 3.4, 0.5),
    ]  # fmt: skip
    filters = {}
    for row in images:
        # Blue filters share the wheel of the pupils, the wheel of the filters is clear then, and the other way round.
        blue = row[1] < 2.5
        keywords = {"FILTER": "CLEAR" if blue else row[0], "PUPIL": row[0] if blue else "CLEARP"}
        filters[row[0]] = Filter(row[0], "", *row[1:], keywords=keywords)
    filters["GR700XD"] = Filter(
        "GR700XD", "", 1.5, 1.0, 1.0, 1.0, 0.2, dispersed="x", keywords={"FILTER": "CLEAR", "PUPIL": "GR700XD"}
    )
    parts = {
        "SUBSTRIP256": (1, 1793, 2048, 256), "SUBSTRIP96": (1, 1803, 2048, 96), "SUB80": (1045, 1, 80, 80),
        "SUB64": (1985, 1985, 64, 64), "SUB128": (1921, 1921, 128, 128), "SUB256": (1793, 1793, 256, 256),
    }  # fmt: skip
    return Instrument(
        name="NIRISS",
        detectors={"NIS": detector},
        filters=filters,
        read_patterns={"NISRAPID": ReadPattern("NISRAPID", 1, 0, 1000), "NIS": ReadPattern("NIS", 4, 0, 200)},
        siaf_file="niriss_siaf.json",
        subarrays={("", name): Subarray(*part) for name, part in parts.items()},
        defaults={
            "detectors": ("nis",), "subarray": "SUB256", "filter": "F200W", "readpatt": "NISRAPID",
            "exp_type": "NIS_IMAGE",
        },
    )  # fmt: skip


def _nirspec() -> Instrument:
    common = {"read_noise": 9.0, "dark_current": 0.008, "full_well": 52000.0}
    detectors = {
        "NRS1": Detector("NRS1", "NRS1", "", "", 491, fastaxis=2, slowaxis=1, gain=1.0, bias=8600.0, **common),
        "NRS2": Detector("NRS2", "NRS2", "", "", 492, fastaxis=-2, slowaxis=-1, gain=1.14, bias=9300.0, **common),
    }
    gratings = [
        ("F070LP", "G140M", 1.0), ("F100LP", "G140H", 1.4), ("F170LP", "G235H", 2.4), ("F290LP", "G395H", 4.0),
        ("CLEAR", "PRISM", 2.5),
    ]  # fmt: skip
    filters = {
        name: Filter(
            name,
            "",
            wavelength,
            1.0,
            1.0,
            2.0,
            0.2,
            dispersed="x",
            keywords={"FILTER": name, "GRATING": grating, "LAMP": "NONE", **nirspec.keywords(grating)},
        )
        for name, grating, wavelength in gratings
    }
    patterns = [
        ReadPattern("NRSRAPID", 1, 0, 65535), ReadPattern("NRS", 4, 0, 65535), ReadPattern("NRSRAPIDD1", 1, 1, 65535),
        ReadPattern("NRSRAPIDD2", 1, 2, 65535), ReadPattern("NRSRAPIDD6", 1, 6, 65535),
        ReadPattern("NRSIRS2RAPID", 1, 0, 65535, interleaved=True),
        ReadPattern("NRSIRS2", 5, 0, 65535, interleaved=True),
    ]  # fmt: skip
    parts = {
        "ALLSLITS": (1, 897, 2048, 256), "SUB2048": (1, 967, 2048, 32), "SUB512": (1025, 967, 512, 32),
        "SUB512S": (1025, 965, 512, 16), "SUB1024A": (1, 967, 1024, 32), "SUB1024B": (1025, 967, 1024, 32),
        "SUB32": (1399, 975, 32, 32), "SUBS200A1": (1, 1054, 2048, 64), "SUBS200A2": (1, 1018, 2048, 64),
        "SUBS200B1": (1, 918, 2048, 64), "SUBS400A1": (1, 978, 2048, 64),
    }  # fmt: skip
    return Instrument(
        name="NIRSPEC",
        detectors=detectors,
        filters=filters,
        read_patterns={pattern.name: pattern for pattern in patterns},
        siaf_file="nirspec_siaf.json",
        subarrays={("", name): Subarray(*part) for name, part in parts.items()},
        defaults={
            "detectors": ("nrs1",), "subarray": "SUB512", "filter": "CLEAR", "readpatt": "NRSRAPID",
            "exp_type": "NRS_FIXEDSLIT",
        },
    )  # fmt: skip


def _fgs() -> Instrument:
    common = {"gain": 1.75, "read_noise": 10.0, "dark_current": 0.01, "full_well": 45000.0, "bias": 11000.0}
    detectors = {
        "GUIDER1": Detector("GUIDER1", "FGS1", "", "", 497, fastaxis=-2, slowaxis=-1, **common),
        "GUIDER2": Detector("GUIDER2", "FGS2", "", "", 498, fastaxis=2, slowaxis=-1, **common),
    }
    corners = {
        "GUIDER1": {"LL": (1921, 1921), "DIAG": (1441, 1441), "CNTR": (961, 961)},
        "GUIDER2": {"LL": (1921, 1), "DIAG": (1441, 481), "CNTR": (961, 961)},
    }
    parts = {
        (detector, f"SUB128{place}"): Subarray(*corner, 128, 128)
        for detector, places in corners.items()
        for place, corner in places.items()
    }
    return Instrument(
        name="FGS",
        detectors=detectors,
        # no wheel: all that the optics let through
        filters={"OPEN": Filter("OPEN", "", 2.6, 3.0, 0.12, 2.0, 0.2)},
        read_patterns={"FGSRAPID": ReadPattern("FGSRAPID", 1, 0, 1000), "FGS": ReadPattern("FGS", 4, 0, 1000)},
        siaf_file="fgs_siaf.json",
        subarrays=parts,
        defaults={
            "detectors": ("guider1",), "subarray": "SUB128LL", "filter": "OPEN", "readpatt": "FGSRAPID",
            "exp_type": "FGS_IMAGE",
        },
    )  # fmt: skip


INSTRUMENTS: Mapping[str, Instrument] = {
    made.name: made for made in (_nircam(), _miri(), _niriss(), _nirspec(), _fgs())
}
"""The instruments that can be simulated."""


def instrument(name: str) -> Instrument:
    """The instrument of a name in any case."""
    try:
        return INSTRUMENTS[name.upper()]
    except KeyError:
        raise ValueError(f"no instrument {name!r} can be simulated; there are {', '.join(INSTRUMENTS)}") from None
