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

import numpy as np


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


@dataclass(frozen=True)
class Filter:
    """A filter.

    Pivot wavelength and width [micron], conversion [MJy/sr per DN/s], AB minus Vega magnitude, sky [MJy/sr], and the
    offset of the image by column and row [pixel].
    """

    name: str
    channel: str
    wavelength: float
    width: float
    photmjsr: float
    ab_vega: float
    background: float
    offset: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class ReadPattern:
    """Frames averaged into a group, frames dropped between groups, most groups allowed."""

    name: str
    nframes: int
    groupgap: int
    max_groups: int


@dataclass(frozen=True)
class Aperture:
    """An entry of the Science Instrument Aperture File: where pixels lie in the science and the telescope's frame.

    ``x_start``, ``y_start`` are the 1-indexed corner in the full science frame (SUBSTRT1, SUBSTRT2).
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

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the full science frame."""
        y0, x0 = self.y_start - 1, self.x_start - 1
        return slice(y0, y0 + self.y_size), slice(x0, x0 + self.x_size)


@dataclass(frozen=True)
class Instrument:
    """Everything the simulator knows about one instrument."""

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
        """Amplifiers that read the aperture: all for full rows, otherwise one."""
        return self.amplifiers if aperture.x_size == self.frame_size[1] else 1

    def frame_time(self, aperture: Aperture) -> float:
        """Time to read one frame [s]: 12 samples of overhead a row; 1 extra row (full frame) or 2 (subarray)."""
        outputs = self.outputs(aperture)
        extra = 1 if outputs > 1 else 2
        samples = (aperture.x_size // outputs + 12) * (aperture.y_size + extra)
        return round(samples * self.sample_time * 1e-6, 5)

    def aperture(self, detector: Detector, subarray: str = "FULL") -> Aperture:
        """Aperture of a detector and subarray.

        The corner in the science frame follows from the aperture's reference point in detector coordinates and the
        flips between detector and science frame (``DetSciParity``, ``DetSciYAngle``).
        """
        table = siaf(self.siaf_file)["apertures"]
        name = f"{detector.siaf}_{subarray.upper()}"
        if name not in table:
            known = sorted(key.split("_", 1)[1] for key in table if key.startswith(detector.siaf + "_"))
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
            **{key: row[key] for key in ("x_sci_ref", "y_sci_ref", "v2_ref", "v3_ref", "v3_idl_yangle", "vidl_parity")},
        )

    def distortion(self, detector: Detector) -> Mapping[str, object]:
        """Raw entry of the detector's full aperture with its polynomials (see ``data/*_siaf.json``)."""
        return siaf(self.siaf_file)["apertures"][f"{detector.siaf}_FULL"]

    def touches_border(self, aperture: Aperture) -> np.ndarray:
        """Reference pixels of an aperture: bool (y, x)."""
        ny, nx = self.frame_size
        border = np.zeros((ny, nx), bool)
        width = self.reference_border
        border[:width] = border[-width:] = True
        border[:, :width] = border[:, -width:] = True
        return border[aperture.window]


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
    )


INSTRUMENTS: Mapping[str, Instrument] = {"NIRCAM": _nircam()}
"""The instruments that can be simulated."""


def instrument(name: str) -> Instrument:
    """The instrument of a name in any case."""
    try:
        return INSTRUMENTS[name.upper()]
    except KeyError:
        raise ValueError(f"no instrument {name!r} can be simulated; there are {', '.join(INSTRUMENTS)}") from None
