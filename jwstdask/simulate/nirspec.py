"""The optics of NIRSpec as references of the spectroscopic WCS: plausible numbers, mild distortion.

A plane is imaged onto the next one by a distortion close to unity followed by a scaling, rotation and shift, as in the
parametric model of the instrument (Dorner et al. 2016, A&A 592, A113). Inverse distortions are fitted polynomials of
fifth degree. The numbers resemble those of the instrument; their truth is what is written here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asdf
import numpy as np
from astropy.io import fits
from astropy.modeling.core import Model
from astropy.modeling.models import (
    AffineTransformation2D,
    Identity,
    Polynomial1D,
    Polynomial2D,
    Rotation2D,
    Scale,
    Shift,
)
from astropy.modeling.models import Mapping as Select

DETECTORS = "NRS1|NRS2|"
EXPOSURES = "NRS_FIXEDSLIT|NRS_BRIGHTOBJ|NRS_MSASPEC|NRS_IFU"

PIXEL = 18e-6
"""Pitch of the pixels [m]."""
PITCH = (105e-6, 204e-6)
"""Pitch of the shutters [m], across and along the slit."""
OPENING = (78e-6, 178e-6)
"""Opening of a shutter [m]."""
SHUTTERS = (365, 171)
"""Shutters of a quadrant, across and along the slit."""

_SLICES = 30

Terms = Mapping[tuple[int, int], float]
"""Coefficients of a polynomial in x and y by their powers."""

_X: Terms = {(1, 0): 1.0}
_Y: Terms = {(0, 1): 1.0}

# What a plane looks like: distortion of x and y, and how much of it there is for each metre of wavelength.
_CAMERA = ({**_X, (3, 0): 4.7, (1, 1): 0.85, (1, 2): 4.5}, {**_Y, (2, 0): 0.27, (0, 2): 1.07, (2, 1): 4.4})
_COLLIMATOR = (
    {(0, 0): -0.0045, (1, 0): 1.0135, (0, 1): -0.063, (2, 0): 0.118, (3, 0): 0.26, (1, 1): -0.116, (1, 2): 1.9},
    {(0, 0): 0.0032, (1, 0): 0.0235, (0, 1): 0.98, (0, 2): -0.1, (2, 1): 0.25},
)
_FORE = ({**_X, (3, 0): 0.75, (1, 1): -0.133, (1, 2): 0.5}, {**_Y, (2, 0): -0.08, (0, 2): -0.185, (2, 1): 0.5})
_FORE_COLOUR = ({(0, 0): -0.0086, (1, 0): 31.3, (1, 1): -4.0}, {(0, 0): 2.26, (0, 1): 32.7, (2, 0): -14.0})
_IFUFORE = ({**_X, (2, 0): 0.43, (0, 2): 0.6}, {**_Y, (1, 1): -0.4})
_IFUFORE_COLOUR = ({(0, 0): -0.0002, (1, 0): 0.08}, {(0, 0): -0.0017, (0, 1): -0.1})
_OTE = ({**_X, (2, 0): -0.013, (1, 1): -0.02}, {**_Y, (2, 0): 0.005, (0, 2): -0.0148})


def _polynomial(terms: Terms, degree: int = 5) -> Polynomial2D:
    return Polynomial2D(degree, **{f"c{i}_{j}": value for (i, j), value in terms.items()})


def _powers(x: np.ndarray, y: np.ndarray, degree: int = 5) -> tuple[list[tuple[int, int]], np.ndarray]:
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return terms, np.stack([x**i * y**j for i, j in terms], axis=-1)


def _inverted(distortion: Sequence[Terms], box: Sequence[tuple[float, float]]) -> list[Terms]:
    """Polynomials that undo a distortion within a box (x, y) of its input, fitted by least squares."""
    x, y = (grid.ravel() for grid in np.meshgrid(*(np.linspace(low, high, 30) for low, high in box)))
    outputs = [_polynomial(terms)(x, y) for terms in distortion]
    scale = max(np.abs(values).max() for values in outputs)
    names, design = _powers(*(values / scale for values in outputs))
    found = []
    for target in (x, y):
        solution = np.linalg.lstsq(design, target, rcond=None)[0]
        found.append({name: value / scale ** sum(name) for name, value in zip(names, solution)})
    return found


def _linear(shift: Sequence[float], matrix: Sequence[Sequence[float]], out: Sequence[float]) -> Model:
    return Shift(shift[0]) & Shift(shift[1]) | AffineTransformation2D(matrix) | Shift(out[0]) & Shift(out[1])


def _plane(distortion: Sequence[Terms], box: Sequence[tuple[float, float]], linear: Model) -> Model:
    """From one plane to the next one towards the sky, and back."""

    def both(terms: Sequence[Terms]) -> Model:
        return Select((0, 1, 0, 1)) | _polynomial(terms[0]) & _polynomial(terms[1]) | Identity(2)

    model = both(distortion) | linear
    model.inverse = linear.inverse | both(_inverted(distortion, box))
    return model


def _coloured(distortion: Sequence[Terms], colour: Sequence[Terms]) -> Model:
    """x, y, wavelength [m] to x, y."""

    def one(terms: Terms, more: Terms) -> Model:
        return (Select((0, 1), n_inputs=3) | _polynomial(terms)) + (
            (Select((0, 1), n_inputs=3) | _polynomial(more)) * (Select((2,), n_inputs=3) | Identity(1))
        )

    return Select((0, 1, 2, 0, 1, 2)) | one(distortion[0], colour[0]) & one(distortion[1], colour[1])


def _coloured_plane(
    distortion: Sequence[Terms], colour: Sequence[Terms], box: Sequence[tuple[float, float]], linear: Model
) -> Model:
    """As :func:`_plane` with a part in proportion to the wavelength, to first order undone by the inverse."""
    model = _coloured(distortion, colour) | linear
    undo = _inverted(distortion, box)
    back = [{name: -value for name, value in terms.items()} for terms in colour]
    model.inverse = linear.inverse & Identity(1) | _coloured(undo, back)
    return model


def camera() -> Model:
    """Detector plane [m] to angles [tangent]."""
    linear = _linear((0.0, -0.00022), ((3.5126, 0.0002), (-0.0002, 3.7212)), (0.00014, 0.2936))
    return _plane(_CAMERA, ((-0.042, 0.042), (-0.022, 0.022)), linear)


def collimator() -> Model:
    """Angles [tangent] to the plane of the micro-shutters [m]."""
    linear = _linear((0.0, 0.29), ((0.6354, 0.0001), (-0.0001, 0.6068)), (0.0, -0.00035))
    return _plane(_COLLIMATOR, ((-0.09, 0.09), (-0.38, -0.2)), linear)


def fore() -> Model:
    """Plane of the micro-shutters [m] and wavelength [m] to the focal plane of the telescope."""
    linear = _linear((0.0, 0.00035), ((1.2221, 1.0903), (-1.0735, 1.2412)), (0.0, 0.0))
    return _coloured_plane(_FORE, _FORE_COLOUR, ((-0.055, 0.055), (-0.05, 0.05)), linear)


def ifufore() -> Model:
    """Plane of the slicer [m] and wavelength [m] to the plane of the micro-shutters [m]."""
    linear = _linear((0.000045, 0.00003), ((0.0505693, 0.0), (0.0, 0.1027484)), (0.041288, 0.0))
    return _coloured_plane(_IFUFORE, _IFUFORE_COLOUR, ((-0.013, 0.013), (-0.0075, 0.0075)), linear)


def ote() -> Model:
    """Focal plane of the telescope to V2, V3 [arcsec]."""
    linear = _linear((0.0, 0.0), ((-0.43554, -0.00158), (-0.00158, 0.43567)), (0.10539, -0.11913))
    model = _plane(_OTE, ((-0.13, 0.13), (-0.13, 0.13)), linear)
    arcsec = Scale(3600.0) & Scale(3600.0)
    whole = model | arcsec
    whole.inverse = arcsec.inverse | model.inverse
    return whole


def fpa() -> dict[str, Model]:
    """Pixels of a sensor to the detector plane [m]."""

    def sensor(pitch: float, x: float, y: float) -> Model:
        return AffineTransformation2D(((pitch, 0.0), (0.0, pitch))) | Shift(x) & Shift(y)

    return {
        "nrs1_model": sensor(PIXEL, -0.038171, -0.018423),
        # It is mounted the other way round.
        "nrs2_model": sensor(-PIXEL, 0.038171, 0.018422),
    }


_ZERO_READINGS: Mapping[str, tuple[float, float]] = {
    "G140M": (0.3319, 0.1259), "G140H": (0.3332, 0.1274), "G235M": (0.3212, 0.1390), "G235H": (0.3334, 0.1261),
    "G395M": (0.2865, 0.1782), "G395H": (0.3233, 0.1449), "PRISM": (0.3367, 0.0334),
}  # fmt: skip
"""Readings of the sensors of the grating wheel (GWA_XTIL, GWA_YTIL) at which angles are as the reference states."""

_GROOVES: Mapping[str, float] = {
    "G140M": 95397.0, "G140H": 241300.0, "G235M": 56876.0, "G235H": 143950.0, "G395M": 33822.0, "G395H": 89409.0,
}  # fmt: skip
"""Lines of the gratings a metre."""


def disperser(grating: str) -> dict[str, Any]:
    """Angles [degree], tilts and grooves or glass of a disperser."""
    x_zero, y_zero = _ZERO_READINGS[grating]
    tree: dict[str, Any] = {
        "gwa_tiltx": _tilt(Polynomial1D(1, c0=2800.0, c1=-8436.0), x_zero),
        "gwa_tilty": _tilt(Polynomial1D(1, c0=-418.9, c1=2130.4), y_zero),
        "tilt_x": 0.0,
    }
    if grating in _GROOVES:
        angles = {"theta_x": 0.036, "theta_y": 0.0167, "theta_z": -0.42, "tilt_y": -4.2 if grating[-1] == "M" else -8.8}
        return {**tree, **angles, "groovedensity": _GROOVES[grating]}
    # Sellmeier coefficients of calcium fluoride.
    glass = {
        "kcoef": [0.58339748, 0.46085267, 3.8915394], "lcoef": [0.00252643, 0.010078333, 1200.556],
        "tcoef": [-2.66e-05, 0.0, 0.0, 0.0, 0.0, 0.0], "tref": 35.0, "pref": 0.0, "wbound": [4e-07, 7e-06],
    }  # fmt: skip
    angles = {"theta_x": 0.033, "theta_y": -0.275, "theta_z": -0.142, "tilt_y": 24.29, "angle": -16.5}
    return {**tree, **angles, **glass}


def _tilt(model: Polynomial1D, zero: float) -> dict[str, Any]:
    return {"temperatures": [37.2], "tilt_model": model, "unit": "arcsec", "zeroreadings": [zero]}


_PLACE = np.dtype([("NO", "<i4"), ("XC", "<f4"), ("YC", "<f4"), ("SIZEX", "<f4"), ("SIZEY", "<f4")])


def msa() -> dict[str, Any]:
    """Where shutters and fixed slits are: quadrants 1 to 4, and 5 for the slits."""
    columns, rows = SHUTTERS
    number = np.arange(columns * rows)
    shutters = np.empty(number.size, _PLACE)
    shutters["NO"] = number + 1
    shutters["XC"], shutters["YC"] = (number % columns) * PITCH[0], (number // columns) * PITCH[1]
    shutters["SIZEX"], shutters["SIZEY"] = OPENING
    width, height = columns * PITCH[0], rows * PITCH[1]
    corners = {
        "Q1": (0.0045, 0.0071), "Q2": (0.0045, -0.0071 - height), "Q3": (-0.0045 - width, 0.0071),
        "Q4": (-0.0045 - width, -0.0071 - height),
    }  # fmt: skip
    tree: dict[str, Any] = {
        name: {"data": shutters.copy(), "model": Rotation2D(0.02 * int(name[1]) - 0.05) | Shift(x) & Shift(y)}
        for name, (x, y) in corners.items()
    }
    # Lengths along the slit of 3.2 and 1.6 arcsec.
    slits = [
        (1, 0.04082, -0.00476, 78e-6, 1.23e-3), (2, 0.04817, -0.00326, 78e-6, 1.23e-3),
        (3, 0.04463, -0.00159, 157e-6, 1.46e-3), (4, 0.04455, -0.00030, 627e-6, 6.2e-4),
        (5, -0.02832, 0.00090, 78e-6, 1.23e-3),
    ]  # fmt: skip
    tree["Q5"] = {"data": np.array(slits, _PLACE), "model": Rotation2D(0.01) | Shift(0.0) & Shift(0.0)}
    return tree


def ifuslicer() -> dict[str, Any]:
    """Where the slices are: side by side, the first ones in the middle."""
    number = np.arange(_SLICES)
    slices = np.zeros(_SLICES, _PLACE)
    slices["NO"] = number
    slices["XC"] = 0.0004 * (number // 2 * 2 + 1) * np.where(number % 2, -1, 1)
    slices["SIZEX"], slices["SIZEY"] = 0.0008, 0.012
    return {"data": slices, "model": Rotation2D(0.0) | Shift(0.0) & Shift(0.0)}


def ifupost() -> dict[str, Any]:
    """From the slicer to virtual slits, one above the other."""
    tree: dict[str, Any] = {}
    slices = ifuslicer()["data"]
    for number, row in enumerate(slices):
        side = -1 if number % 2 else 1
        height = side * (0.00857 + 0.00198 * (number // 2))
        turn = 0.0005 * np.sin(number)
        matrix = ((0.1010, -turn), (turn, 0.1005))
        near = {(0, 0): 1e-6 * number, (2, 0): 0.02, (1, 1): 0.01 * side}
        tree[f"slice_{number}"] = {
            "linear": _linear((-float(row["XC"]), 3e-5), matrix, (0.0487, height)),
            "xpoly": _polynomial({**_X, **near}),
            "xpoly_distortion": _polynomial({(0, 0): 0.4, (0, 1): 2.0}),
            "ypoly": _polynomial({**_Y, **near}),
            "ypoly_distortion": _polynomial({(0, 0): -0.3, (1, 0): 1.0}),
        }
    return tree


def chromcorr() -> Model:
    """Shift of the focal plane of the telescope with wavelength [m], as the IFU sees it."""

    def shifted(sign: float) -> Model:
        x, y = (sign * slope for slope in (2.0, -1.5))
        move = (Select((0,), n_inputs=3) + (Select((2,), n_inputs=3) | Scale(x))) & (
            Select((1,), n_inputs=3) + (Select((2,), n_inputs=3) | Scale(y))
        )
        return Select((0, 1, 2, 0, 1, 2, 2)) | move & Identity(1)

    model = shifted(1.0)
    model.inverse = shifted(-1.0)
    return model


_RANGES: Mapping[str, tuple[int, float, float]] = {
    "F070LP_G140M": (-1, 0.70, 1.27), "F070LP_G140H": (-1, 0.70, 1.27), "F100LP_G140M": (-1, 0.97, 1.89),
    "F100LP_G140H": (-1, 0.97, 1.89), "F170LP_G235M": (-1, 1.66, 3.17), "F170LP_G235H": (-1, 1.66, 3.17),
    "F290LP_G395M": (-1, 2.87, 5.27), "F290LP_G395H": (-1, 2.87, 5.27), "CLEAR_PRISM": (0, 0.6, 5.3),
    "FLAT1_G140M": (-1, 1.0, 1.8), "LINE1_G140M": (-1, 1.0, 1.8), "LINE2_G235H": (-1, 1.7, 3.1),
}  # fmt: skip


def wavelengthrange() -> dict[str, Any]:
    """Order and range [m] of filters (lamps) with dispersers."""
    return {
        "waverange_selector": list(_RANGES),
        "order": [order for order, _, _ in _RANGES.values()],
        "wavelengthrange": [[round(low * 1e-6, 9), round(high * 1e-6, 9)] for _, low, high in _RANGES.values()],
    }


FAILED_OPEN: tuple[tuple[int, int, int], ...] = ((1, 40, 60), (2, 180, 23), (3, 300, 150), (4, 11, 100))
"""Quadrant, column across the slit and row of shutters that do not close."""


def msaoper() -> dict[str, Any]:
    """Shutters that do not work: some stay open, as many stay closed."""

    def shutter(quadrant: int, x: int, y: int, state: str) -> dict[str, Any]:
        states = {"state": state, "TA state": state, "Internal state": "normal"}
        return {"Q": quadrant, "x": x, "y": y, **states, "Vignetted": "no"}

    closed = [(quadrant, x + 7, y + 3) for quadrant, x, y in FAILED_OPEN]
    rows = [shutter(*place, "open") for place in FAILED_OPEN] + [shutter(*place, "closed") for place in closed]
    return {"msaoper": rows}


MAKERS: Mapping[str, Callable[[], Any]] = {
    "camera": camera, "chromcorr": chromcorr, "collimator": collimator, "fore": fore, "fpa": fpa, "ifufore": ifufore,
    "ifupost": ifupost, "ifuslicer": ifuslicer, "msa": msa, "ote": ote, "wavelengthrange": wavelengthrange,
}  # fmt: skip
"""References that are one for all exposures: their models or trees."""

_CLASSES: Mapping[str, str] = {
    "camera": "CameraModel", "chromcorr": "ChromCorrModel", "collimator": "CollimatorModel",
    "disperser": "DisperserModel", "fore": "FOREModel", "fpa": "FPAModel", "ifufore": "IFUFOREModel",
    "ifupost": "IFUPostModel", "ifuslicer": "IFUSlicerModel", "msa": "MSAModel", "ote": "OTEModel",
    "wavelengthrange": "WavelengthrangeModel",
}  # fmt: skip


def tree_of(reftype: str, grating: str = "") -> dict[str, Any]:
    """Content of a reference, without metadata; ``grating`` for that of the dispersers."""
    if reftype == "disperser":
        return disperser(grating)
    if reftype == "msaoper":
        return msaoper()
    made = MAKERS[reftype]()
    return {"model": made} if isinstance(made, Model) else made


def write_references(folder: Path, gratings: Sequence[str], meta: Mapping[str, Any]) -> dict[str, Path]:
    """Write the references of the spectroscopic WCS and the list of shutters that do not work.

    Parameters
    ----------
    folder
        Where to.
    gratings
        Dispersers.
    meta
        Metadata of all files.

    Returns
    -------
    paths
        By reference type; ``disperser:NAME`` for each of the gratings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    every = [*((kind, "") for kind in MAKERS), *(("disperser", name) for name in gratings)]
    numbers: dict[str, int] = {}
    for kind, grating in every:
        number = numbers[kind] = numbers.get(kind, 0) + 1
        instrument = {"name": "NIRSPEC", "p_detector": DETECTORS, **({"grating": grating} if grating else {})}
        own = {
            **meta, "reftype": kind, "model_type": _CLASSES[kind], "description": f"Synthetic {kind} with known truth",
            "instrument": instrument, "exposure": {"type": "N/A", "p_exptype": f"{EXPOSURES}|"},
        }  # fmt: skip
        path = folder / f"jwst_nirspec_{kind}_{number:04d}.asdf"
        asdf.AsdfFile({"meta": own, **tree_of(kind, grating)}).write_to(path)
        paths[f"{kind}:{grating}" if grating else kind] = path
    paths["msaoper"] = folder / "jwst_nirspec_msaoper_0001.json"
    about = {"instrument": "NIRSPEC", "reftype": "MSAOPER", "telescope": "JWST", "exp_type": "N/A"}
    text = {**about, **{name: str(value) for name, value in meta.items()}, **msaoper()}
    paths["msaoper"].write_text(json.dumps(text, indent=1, sort_keys=True) + "\n")
    return paths


@dataclass(frozen=True)
class Slitlet:
    """Open shutters in a row, of which one may have a source.

    Attributes
    ----------
    quadrant, column, rows
        Which shutters (from 1): across the slit, and along it.
    source
        Number of the source in the middle one; negative for a place without a source, 0 for a background slitlet.
    fixed_slit
        A fixed slit instead.
    """

    quadrant: int
    column: int
    rows: tuple[int, ...]
    source: int = 0
    fixed_slit: str = "NONE"


SLITLETS: tuple[Slitlet, ...] = (
    Slitlet(1, 60, (30, 31, 32), 1), Slitlet(1, 200, (120, 121, 122), 2), Slitlet(2, 120, (15, 16, 17), -3),
    Slitlet(2, 20, (90, 91), 4), Slitlet(3, 340, (60, 61, 62), 5), Slitlet(4, 300, (140, 141, 142)),
)  # fmt: skip
"""What is open in a simulated exposure, unless something else is asked for."""


def write_msa_metadata(
    path: Path, slitlets: Sequence[Slitlet] = SLITLETS, number: int = 1, dithers: int = 1, program: int = 1234
) -> None:
    """Write an MSA metadata file: SHUTTER_IMAGE, SHUTTER_INFO and SOURCE_INFO.

    Parameters
    ----------
    path
        Where to.
    slitlets
        What is open.
    number
        Of the configuration, MSAMETID.
    dithers
        Points of the pattern, at each of which sources are in the same shutters.
    program
        Its number.
    """
    rows = []
    for dither in range(1, dithers + 1):
        for slitlet_id, slitlet in enumerate(slitlets, start=1):
            middle = slitlet.rows[len(slitlet.rows) // 2] if slitlet.rows else 0
            for row in slitlet.rows or (0,):
                main = bool(slitlet.source) and row == middle
                rows.append((
                    slitlet_id, number, slitlet.quadrant, slitlet.column, row, slitlet.source if main else 0,
                    "N" if main else "Y", "OPEN", 0.55 if main else np.nan, 0.42 if main else np.nan, dither,
                    "Y" if main else "N", slitlet.fixed_slit,
                ))  # fmt: skip
    formats = ("I", "I", "I", "I", "I", "J", "1A", "6A", "E", "E", "I", "1A", "8A")
    names = (
        "slitlet_id", "msa_metadata_id", "shutter_quadrant", "shutter_row", "shutter_column", "source_id", "background",
        "shutter_state", "estimated_source_in_shutter_x", "estimated_source_in_shutter_y", "dither_point_index",
        "primary_source", "fixed_slit",
    )  # fmt: skip
    columns = [fits.Column(n, f, array=list(values)) for n, f, values in zip(names, formats, zip(*rows))]
    numbers = sorted({slitlet.source for slitlet in slitlets if slitlet.source > 0})
    sources = [
        (program, n, f"{program}_{n}", f"S{n}", 53.0 + 0.001 * n, -27.8, "None", 0.5 + 0.1 * (n % 5)) for n in numbers
    ]
    about = (
        ("program", "J"), ("source_id", "J"), ("source_name", "20A"), ("alias", "31A"), ("ra", "D"), ("dec", "D"),
        ("preimage_id", "30A"), ("stellarity", "D"),
    )  # fmt: skip
    catalogue = [fits.Column(n, f, array=list(values)) for (n, f), values in zip(about, zip(*sources))]
    image = np.zeros((2 * SHUTTERS[0], 2 * SHUTTERS[1]), np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(image, name="SHUTTER_IMAGE"),
        fits.BinTableHDU.from_columns(columns, name="SHUTTER_INFO"),
        fits.BinTableHDU.from_columns(catalogue, name="SOURCE_INFO"),
    ]
    hdus[0].header.update(TELESCOP="JWST", INSTRUME="NIRSPEC", FILENAME=path.name, PROGRAM=f"{program:05d}")
    fits.HDUList(hdus).writeto(path, overwrite=True)


def keywords(grating: str) -> dict[str, float]:
    """Readings of the sensors of the grating wheel in an exposure: a little off the zero readings; temperature [K]."""
    x, y = _ZERO_READINGS[grating]
    return {"GWA_XTIL": x + 0.0012, "GWA_YTIL": y - 0.0007, "GWA_TILT": 37.6}
