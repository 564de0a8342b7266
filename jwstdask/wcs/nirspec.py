"""WCS of NIRSpec spectroscopy: reference models of the optics to a gwcs.

Light is followed from a pixel back to the grating wheel (``gwa``), to a place within a slit or slice and a wavelength
(``slit_frame``), to the plane of the micro-shutters (``msa_frame``), through the fore optics (``oteip``) and the
telescope to the sky. Frames: ``detector`` [pixel, 0-indexed in the science array], ``sca`` [pixel of the sensor],
``gwa`` [direction cosines], ``slit_frame`` [size of the slit; metre], ``slicer`` (IFU) and ``msa_frame`` [metre],
``oteip``, ``v2v3`` and ``v2v3vacorr`` [arcsec; micrometre], ``world`` (ICRS) [degree; micrometre]. Transforms carry the
name of the slit besides.

Sources: Dorner et al. 2016, A&A 592, A113 (parametric model of the instrument); Ferruit et al. 2022, A&A 661, A81
(micro-shutters); JWST pipeline documentation, "assign_wcs".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import gwcs
import numpy as np
from astropy import units as u
from astropy.constants import c as light_speed
from astropy.coordinates import ICRS
from astropy.modeling.bounding_box import CompoundBoundingBox
from astropy.modeling.core import Model
from astropy.modeling.models import Const1D, Identity, Scale, Shift, Tabular1D
from astropy.modeling.models import Mapping as Select
from gwcs import coordinate_frames as cf
from gwcs.spectroscopy import AnglesFromGratingEquation3D, WavelengthFromGratingEquation
from stdatamodels.jwst.transforms.models import (
    Gwa2Slit,
    Logical,
    RefractionIndexFromPrism,
    Rotation3DToGWA,
    Slit,
    Slit2Msa,
    Snell,
    Unitless2DirCos,
)

from jwstdask.wcs.errors import MsaMetadataError
from jwstdask.wcs.imaging import Box, telescope_to_sky, velocity_aberration

SIDE = 2048
"""Pixels along a side of a detector."""
SLICES = 30
"""Slices of the IFU."""
FIXED_SLITS = ("S200A1", "S200A2", "S400A1", "S1600A1", "S200B1")
"""Fixed slits in the order of the msa reference, quadrant 5."""
SHUTTERS_IN_ROW = 365
FIXED_SLIT_QUADRANT = 5
Y_RANGE = (-0.55, 0.55)
"""Edges of a slit along it [size of the slit]; the physical ones are half a size from its centre."""

COMMON_REFERENCES = ("camera", "collimator", "disperser", "fore", "fpa", "ote", "wavelengthrange")
"""Reference types of every spectroscopic mode."""
SLICE_REFERENCES = (*COMMON_REFERENCES, "chromcorr", "ifufore", "ifupost", "ifuslicer")
SLIT_REFERENCES = (*COMMON_REFERENCES, "msa")

LAMPS = frozenset(("NRS_LAMP", "NRS_AUTOWAVE", "NRS_AUTOFLAT"))

_FULL_RANGE = (0.6e-6, 5.3e-6)  # m
_SLIT_OF_SUBARRAY = {
    "SUBS200A1": "S200A1",
    "SUBS200A2": "S200A2",
    "SUBS400A1": "S400A1",
    "SUBS200B1": "S200B1",
    **dict.fromkeys(("SUB2048", "SUB512", "SUB512S", "SUB1024A", "SUB1024B"), "S1600A1"),
}
_BARS = 1.15
"""Pitch of shutters along the slit in sizes of their openings."""
_MARGIN = 0.5
"""By how much slitlets of shutters are taken longer at each end [size of a shutter]."""
_FALLBACK_SCALES = (1.35, 1.15)


def ends_at_msa(meta: Mapping[str, Any]) -> bool:
    """Whether the light comes from a lamp: the WCS then ends at the micro-shutters."""
    return meta.get("meta.instrument.filter") == "OPAQUE" or meta.get("meta.exposure.type") in LAMPS


def is_image(meta: Mapping[str, Any]) -> bool:
    """Whether light is not dispersed: a mirror is in the place of the gratings."""
    return str(meta.get("meta.instrument.grating")).lower() == "mirror"


def spectral_order(meta: Mapping[str, Any], tree: Mapping[str, Any]) -> tuple[int, tuple[float, float]]:
    """Order and range of wavelengths [m] of filter (or lamp) and grating, of the wavelengthrange reference."""
    grating = str(meta.get("meta.instrument.grating"))
    light = "lamp_state" if ends_at_msa(meta) else "filter"
    names = list(tree["waverange_selector"])
    wanted = f"{meta.get(f'meta.instrument.{light}')}_{grating}"
    if wanted in names:
        index = names.index(wanted)
    else:
        gratings = [name.split("_")[1] for name in names]
        if grating not in gratings:
            return -1, _FULL_RANGE
        index = gratings.index(grating)
    low, high = tree["wavelengthrange"][index]
    return tree["order"][index], (low, high)


# ----------------------------------------------------------------------------------------------------------------------
# Slits


def fixed_slit_id(name: str) -> int:
    """Number under which transforms know a fixed slit."""
    return -101 - FIXED_SLITS.index(name)


def fixed_slits(meta: Mapping[str, Any], y_range: tuple[float, float] = Y_RANGE) -> list[Slit]:
    """Fixed slits of an exposure: that of the subarray, or all."""
    if meta.get("meta.exposure.type") == "NRS_BRIGHTOBJ":
        return [_fixed_slit("S1600A1", 1, y_range)]
    primary = meta.get("meta.instrument.fixed_slit")
    tens = FIXED_SLITS.index(primary) + 1 if primary in FIXED_SLITS else 0
    name = _SLIT_OF_SUBARRAY.get(str(meta.get("meta.subarray.name")).upper())
    # The target is source 1; other slits have the number of the primary one as tens and their own as ones.
    return [
        _fixed_slit(slit, 1 if slit == primary else 10 * tens + number, y_range)
        for number, slit in enumerate(FIXED_SLITS, start=1)
        if name in (None, slit)
    ]


def _fixed_slit(name: str, source_id: int, y_range: tuple[float, float]) -> Slit:
    return Slit(
        name,
        FIXED_SLITS.index(name),
        ymin=y_range[0],
        ymax=y_range[1],
        quadrant=FIXED_SLIT_QUADRANT,
        source_id=source_id,
        slit_id=fixed_slit_id(name),
    )


def shutter_scales(msa: Mapping[str, Any]) -> dict[int, tuple[float, float]]:
    """Pitch of the shutters in sizes of their openings (x, y) by quadrant, of the msa reference."""
    scales = {}
    for quadrant in range(1, 5):
        shutters = msa[f"Q{quadrant}"]["data"]
        across = (shutters["XC"][1] - shutters["XC"][0]) / shutters["SIZEX"][0]
        scales[quadrant] = (across, shutters["YC"][SHUTTERS_IN_ROW] / shutters["SIZEY"][0])
    return scales


def open_slitlets(
    meta: Mapping[str, Any],
    shutters: np.ndarray,
    sources: np.ndarray,
    scales: Mapping[int, tuple[float, float]] | None = None,
    y_range: tuple[float, float] = Y_RANGE,
) -> list[Slit]:
    """Open slitlets of micro-shutters, and fixed slits with a source of their own.

    Parameters
    ----------
    meta
        Metadata of the exposure: MSAMETID and PATT_NUM select the rows.
    shutters, sources
        Tables SHUTTER_INFO and SOURCE_INFO of the MSA metadata file, with lower-case names.
    scales
        See :func:`shutter_scales`.
    y_range
        Edges of a shutter.

    Raises
    ------
    MsaMetadataError
        If keywords are missing or a slitlet has several primary shutters or a fixed slit among its shutters.
    """
    configuration = meta.get("meta.instrument.msa_metadata_id")
    dither = meta.get("meta.dither.position_number")
    for keyword, value in (("MSAMETID", configuration), ("PATT_NUM", dither)):
        if value is None:
            raise MsaMetadataError(f"keyword {keyword} is missing")
    chosen = shutters[(shutters["msa_metadata_id"] == configuration) & (shutters["dither_point_index"] == dither)]
    by_slitlet: dict[int | str, list[np.void]] = {}
    for row in chosen:
        by_slitlet.setdefault(_fixed_name(row) or int(row["slitlet_id"]), []).append(row)
    program = str(meta.get("meta.observation.program_number") or "").lstrip("0")
    catalogue = {int(row["source_id"]): row for row in sources[::-1]}
    slits = []
    for name, rows in by_slitlet.items():
        slit = _slitlet(name, rows, program, catalogue, y_range)
        if slit is not None:
            x_scale, y_scale = (scales or {}).get(slit.quadrant, _FALLBACK_SCALES)
            slits.append(slit._replace(dither_position=dither, slit_xscale=x_scale, slit_yscale=y_scale))
    return slits


def _text(value: Any) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()


def _fixed_name(row: np.void) -> str | None:
    """The fixed slit that a row of SHUTTER_INFO is for; old files have no such column."""
    name = _text(row["fixed_slit"]) if "fixed_slit" in (row.dtype.names or ()) else ""
    return name if name in FIXED_SLITS else None


def _slitlet(
    name: int | str,
    rows: Sequence[np.void],
    program: str,
    catalogue: Mapping[int, np.void],
    y_range: tuple[float, float],
) -> Slit | None:
    """A slitlet of the rows of its open shutters; None for a fixed slit without a source."""
    primary = [row for row in rows if _text(row["primary_source"]) == "Y"]
    columns = [int(row["shutter_column"]) for row in rows]
    first, last = min(columns), max(columns)
    if isinstance(name, str):
        if len(rows) > 1:
            raise MsaMetadataError(f"fixed slit {name} has {len(rows)} shutters")
        if not primary:
            return None
        slit = _fixed_slit(name, int(primary[0]["source_id"]), y_range)._replace(
            shutter_state=_states(columns, int(rows[0]["shutter_column"]))
        )
        return _with_source(slit, primary[0], program, catalogue)
    if len(primary) > 1:
        raise MsaMetadataError(f"slitlet {name} has {len(primary)} primary shutters")
    if primary:
        main = next((row for row in rows if _text(row["background"]) == "N"), None)
        if main is None:
            raise MsaMetadataError(f"slitlet {name} has no shutter that is not background")
        centre = int(main["shutter_column"])
    else:
        main, centre = rows[0], first + (last - first) // 2
    row, quadrant = int(main["shutter_row"]), int(main["shutter_quadrant"])
    slit = Slit(
        name,
        row + (centre - 1) * SHUTTERS_IN_ROW,
        xcen=row,
        ycen=centre,
        ymin=-(-y_range[0] + _MARGIN) + (first - centre) * _BARS,
        ymax=y_range[1] + _MARGIN + (last - centre) * _BARS,
        quadrant=quadrant,
        source_id=name,
        shutter_state=_states(columns, centre),
        source_name=f"{program}_BKG{name}",
        source_alias=f"BKG{name}",
        slit_id=name,
    )
    if not primary:
        return slit
    return _with_source(slit._replace(source_id=int(primary[0]["source_id"])), main, program, catalogue)


def _states(columns: Sequence[int], centre: int) -> str:
    """A letter for each shutter of a slitlet: x for the one with the source, 1 for open ones, 0 for others."""
    span = range(min(columns), max(columns) + 1)
    return "".join("x" if column == centre else "1" if column in columns else "0" for column in span)


def _with_source(slit: Slit, row: np.void, program: str, catalogue: Mapping[int, np.void]) -> Slit:
    """The slit with what is known of its source; x and y from the centre of the shutter."""
    place = [row[f"estimated_source_in_shutter_{axis}"] for axis in "xy"]
    x, y = (0.0 if np.isnan(value) else value - 0.5 for value in place)
    source = catalogue.get(slit.source_id)
    if source is None:
        # Nobody named it: a place without a source.
        return slit._replace(
            source_name=f"{program}_VRT{slit.name}", source_alias=f"VRT{slit.name}", source_xpos=x, source_ypos=y
        )
    return slit._replace(
        source_name=_text(source["source_name"]),
        source_alias=_text(source["alias"]),
        stellarity=source["stellarity"],
        source_xpos=x,
        source_ypos=y,
        source_ra=source["ra"],
        source_dec=source["dec"],
    )


def failed_open_shutters(msaoper: Mapping[str, Any]) -> list[Slit]:
    """Shutters that cannot be closed, of the msaoper reference; each a slit of its own."""
    states = ("Internal state", "TA state", "state")
    failed = [shutter for shutter in msaoper["msaoper"] if any(shutter[state] == "open" for state in states)]
    return [
        Slit(
            number,
            shutter["x"] + (shutter["y"] - 1) * SHUTTERS_IN_ROW,
            xcen=shutter["x"],
            ycen=shutter["y"],
            ymin=-0.5,
            ymax=0.5,
            quadrant=shutter["Q"],
            shutter_state="x",
            slit_id=number,
        )
        for number, shutter in enumerate(failed, start=1)
    ]


# ----------------------------------------------------------------------------------------------------------------------
# Transforms


class Optics:
    """What all slits or slices of an exposure have in common.

    Parameters
    ----------
    meta
        Metadata of the exposure.
    trees
        ASDF trees of the references by type: :data:`SLIT_REFERENCES` or :data:`SLICE_REFERENCES`.

    Raises
    ------
    KeyError
        If a reference, or the temperature of the prism (GWA_TILT), is missing.
    """

    def __init__(self, meta: Mapping[str, Any], trees: Mapping[str, Any]) -> None:
        self.meta = meta
        self.trees = trees
        self.order, self.wavelengths = spectral_order(meta, trees["wavelengthrange"])

    @cached_property
    def angles(self) -> list[float]:
        """Rotations into the frame of the grating [degree], corrected for the tilt that was measured."""
        disperser = self.trees["disperser"]
        # The sensor named x measures the rotation about y, and the other way round.
        theta_y = disperser["theta_y"] + self._tilt("gwa_tiltx", "gwa_xtilt")
        theta_x = disperser["theta_x"] + self._tilt("gwa_tilty", "gwa_ytilt")
        return [theta_x, theta_y, disperser["theta_z"], disperser["tilt_y"]]

    def _tilt(self, sensor: str, keyword: str) -> float:
        reading = self.meta.get(f"meta.instrument.{keyword}")
        if reading is None:
            return 0.0
        calibration = self.trees["disperser"][sensor]
        turn = calibration["tilt_model"]
        # Light that is reflected turns by twice the angle of the wheel.
        return 0.5 * (turn(reading) - turn(calibration["zeroreadings"][0])) / 3600.0

    def _rotation(self) -> Model:
        return Rotation3DToGWA(self.angles, axes_order="xyzy", name="rotation")

    def array_to_sensor(self) -> Model:
        """Pixels of the science array to those of the sensor, which NRS2 counts from the other corner."""
        start = [self.meta.get(f"meta.subarray.{axis}start") for axis in "xy"]
        x, y = (0 if first is None else first - 1 for first in start)
        to_frame = Shift(x) & Shift(y)
        if self.meta["meta.instrument.detector"].upper() == "NRS2":
            return to_frame | (Shift(1 - SIDE) & Shift(1 - SIDE) | Scale(-1) & Scale(-1))
        return to_frame | Identity(2)

    def sensor_to_grating(self) -> Model:
        """Pixels of the sensor to direction cosines at the grating wheel."""
        sensor = self.trees["fpa"][f"{self.meta['meta.instrument.detector'].lower()}_model"]
        unitless = Unitless2DirCos(name="unitless2directional_cosines")
        return sensor | self.trees["camera"]["model"] | unitless | self._rotation()

    def entrance_to_grating(self) -> Model:
        """Plane of the micro-shutters [m] to direction cosines at the grating wheel."""
        unitless = Unitless2DirCos(name="unitless2directional_cosines")
        return self.trees["collimator"]["model"].inverse | unitless | self._rotation()

    @property
    def is_prism(self) -> bool:
        return str(self.meta["meta.instrument.grating"]).lower() == "prism"

    @property
    def is_mirror(self) -> bool:
        return is_image(self.meta)

    @cached_property
    def temperature(self) -> float:
        """Of the prism [K]."""
        temperature = self.meta.get("meta.instrument.gwa_tilt")
        if temperature is None:
            raise KeyError("keyword GWA_TILT")
        return temperature

    def angles_out(self, velocity: bool = True) -> Model:
        """Wavelength and direction at the wheel to the direction on the other side; ``velocity`` of the telescope."""
        disperser = self.trees["disperser"]
        if self.is_prism:
            glass = [disperser[name] for name in ("angle", "kcoef", "lcoef", "tcoef", "tref", "pref")]
            model = Snell(*glass, self.temperature, disperser["pref"], name="snell_law")
        else:
            # gwcs counts the angle of incidence the other way.
            model = (
                Select((0, 1, 2), n_inputs=4)
                | Identity(1) & Scale(-1) & Identity(1)
                | AnglesFromGratingEquation3D(disperser["groovedensity"], self.order, name="alpha_from_greq")
            )
        if not velocity or self._doppler is None:
            return model
        return Identity(1) / Const1D(self._doppler, name="inv_vel_correction") & Identity(3) | model

    def wavelength(self) -> Model:
        """Directions at the wheel, in and out, to the wavelength seen from the barycentre [m; micrometre for lamps]."""
        disperser = self.trees["disperser"]
        if self.is_prism:
            grid = np.arange(0.3, 8.005, 0.005) * 1e-6
            names = ("tref", "pref", "pref", "kcoef", "lcoef", "tcoef")
            glass = [disperser[name] for name in names]
            index = Snell.compute_refraction_index(grid, self.temperature, *glass)
            table = Tabular1D(points=(np.flipud(index),), lookup_table=np.flipud(grid), bounds_error=False)
            model = RefractionIndexFromPrism(disperser["angle"], name="n_prism") | table
        else:
            model = (
                Select((0, 2), n_inputs=3)
                | WavelengthFromGratingEquation(disperser["groovedensity"], self.order, name="lambda_from_gratingeq")
                | Scale(-1)
            )
        if self._doppler is not None:
            correction = Identity(1) * Const1D(self._doppler, name="velocity_correction")
            correction.inverse = Identity(1) / Const1D(self._doppler, name="inv_vel_correction")
            model = model | correction
        return model | Scale(1e6) if ends_at_msa(self.meta) else model

    @property
    def _doppler(self) -> float | None:
        velocity = self.meta.get("meta.wcsinfo.velosys")
        return None if velocity is None else 1 / (1 + velocity / light_speed.value)

    # -- slits

    def slit_to_entrance(self, slit: Slit) -> Model:
        """Place in a slit to the plane of the micro-shutters [m]."""
        quadrant = self.trees["msa"][f"Q{slit.quadrant}"]
        # Shutters count from 1, fixed slits from 0.
        index = slit.shutter_id - (slit.quadrant != FIXED_SLIT_QUADRANT)
        return _placed(quadrant["data"][index]) | quadrant["model"]

    def grating_to_slit(self, slit: Slit) -> Model:
        """Direction at the wheel to the place in a slit and the wavelength; NaN outside."""
        to_grating = self.slit_to_entrance(slit) | self.entrance_to_grating()
        y = np.linspace(slit.ymin, slit.ymax, 1000)
        beta = to_grating(np.zeros(y.shape), y)[1]
        model = self._back(to_grating, beta, y, Select((0, 1, 0, 1, 2, 3)), (slit.ymin, slit.ymax))
        model.inverse = to_grating & Identity(1) | Select((3, 0, 1, 2)) | self.angles_out()
        return model

    # -- slices

    def slice_to_slicer(self, number: int) -> Model:
        """Place in a slice to the plane of the slicer [m]."""
        slicer = self.trees["ifuslicer"]
        return _placed(slicer["data"][number]) | slicer["model"]

    def grating_to_slice(self, number: int, y_range: tuple[float, float] = Y_RANGE) -> Model:
        """Direction at the wheel to the place in a slice and the wavelength; NaN outside."""
        low, high = self.wavelengths
        middle = 0.5 * (high - low) + low
        to_slicer = self.slice_to_slicer(number)
        behind = _behind_slicer(self.trees["ifupost"][f"slice_{number}"]) | self.entrance_to_grating()
        to_grating = to_slicer & Const1D(middle) | behind
        y = np.linspace(*y_range, 1000)
        beta = to_grating(np.zeros(y.shape), y, np.full(y.shape, middle))[1]
        model = self._back(to_grating, beta, y, Select((0, 1, 0, 1, 1, 2, 3)), y_range)
        model.inverse = (
            Select((0, 1, 2, 2))
            | (to_slicer & Identity(1) | behind) & Identity(1)
            | Select((3, 0, 1, 2))
            | self.angles_out()
        )
        return model

    def _back(
        self, to_grating: Model, beta: np.ndarray, y: np.ndarray, copy: Model, y_range: tuple[float, float]
    ) -> Model:
        """Direction out of the wheel to place and wavelength.

        ``beta`` is the cosine along the slit at places ``y``, on the way in; on the way out it has the other sign.
        Across the slit only its middle is considered.
        """
        place = Tabular1D(points=(beta,), lookup_table=y, bounds_error=False, name="tabular")
        return (
            Select((0, 1, 0, 1), n_inputs=3)
            | Const1D(0) * Identity(1) & Const1D(-1) * Identity(1) & Identity(2)
            | Identity(1) & place & Identity(2)
            | copy
            | Identity(2) & to_grating & Identity(2)
            | Select((0, 1, 2, 3, 5), n_inputs=7)
            | Identity(2) & self.wavelength()
            | _within(*y_range)
        )


def _placed(row: Sequence[Any]) -> Model:
    """Place in a slit [its size] to the plane that it is in, of its number, centre and size."""
    _, x, y, width, height = row
    return Scale(width) & Scale(height) | Shift(x) & Shift(y)


def _within(low: float, high: float) -> Model:
    """x, y, wavelength with y and wavelength NaN where y is out of bounds."""
    above = Logical(condition="GT", compareto=high, value=np.nan)
    below = Logical(condition="LT", compareto=low, value=np.nan)
    add = Select((0,), n_inputs=2) + Select((1,))
    model = (
        Select((0, 1, 2, 1))
        | Identity(3) & (above | below | Scale(0))
        | Select((0, 1, 3, 2, 3))
        | Identity(1) & add & add
    )
    model.inverse = Identity(3)
    return model


def _behind_slicer(tree: Mapping[str, Any]) -> Model:
    """Slicer and wavelength to the plane of the micro-shutters [m]: polynomials that depend on wavelength linearly."""

    def polynomial(axis: str) -> Model:
        return (Select((0, 1), n_inputs=3) | tree[f"{axis}poly"]) + (
            (Select((0, 1), n_inputs=3) | tree[f"{axis}poly_distortion"]) * (Select((2,)) | Identity(1))
        )

    enter, leave = Select([0, 1, 2, 0, 1, 2], name="ifupost_inmap"), Identity(2, name="ifupost_outmap")
    enter.inverse = Identity(2)
    leave.inverse = Select([0, 1, 2, 0, 1, 2])
    return tree["linear"] & Identity(1) | (enter | (polynomial("x") & polynomial("y")) | leave)


# ----------------------------------------------------------------------------------------------------------------------
# gwcs


def _frames() -> dict[str, cf.CoordinateFrame]:
    spectral = cf.SpectralFrame(name="spectral", axes_order=(2,), unit=(u.micron,), axes_names=("wavelength",))

    def plane(name: str, unit: Any, axes: tuple[str, str]) -> cf.Frame2D:
        return cf.Frame2D(name=name, axes_order=(0, 1), unit=(unit, unit), axes_names=axes)

    planes = {
        "slit_frame": plane("slit_spatial", "", ("x_slit", "y_slit")),
        "slicer": plane("slicer_spatial", "", ("x_slicer", "y_slicer")),
        "msa_frame": plane("msa_spatial", u.m, ("x_msa", "y_msa")),
        "oteip": plane("oteip", u.deg, ("X_OTEIP", "Y_OTEIP")),
        "oteip_chromcorr": plane("oteip", u.deg, ("X_OTEIP", "Y_OTEIP")),
        "v2v3": plane("v2v3_spatial", u.arcsec, ("v2", "v3")),
        "v2v3vacorr": plane("v2v3vacorr_spatial", u.arcsec, ("v2", "v3")),
        "world": cf.CelestialFrame(name="sky", axes_order=(0, 1), reference_frame=ICRS()),
    }
    frames = {
        "detector": cf.Frame2D(name="detector", axes_order=(0, 1)),
        "sca": cf.Frame2D(name="sca", axes_order=(0, 1)),
        "gwa": plane("gwa", u.rad, ("alpha_in", "beta_in")),
    }
    return frames | {name: cf.CompositeFrame([frame, spectral], name=name) for name, frame in planes.items()}


def _named(model: Model, name: str, inputs: tuple[str, ...] = (), outputs: tuple[str, ...] = ()) -> Model:
    model.name = name
    if inputs:
        model.inputs, model.outputs = inputs, outputs
    return model


def _entry(optics: Optics) -> list[tuple[str, Model]]:
    """From the detector to the grating wheel, the name of the slit besides."""
    to_sensor = _named(optics.array_to_sensor() & Identity(1), "dms2sca", ("x", "y", "name"), ("x", "y", "name"))
    swap = Select((3, 0, 1, 2))
    swap.inverse = Select((1, 2, 3, 0))
    to_grating = optics.sensor_to_grating() & Identity(1) | swap
    cosines = ("name", "angle1", "angle2", "angle3")
    return [("detector", to_sensor), ("sca", _named(to_grating, "det2gwa", ("x", "y", "name"), cosines))]


def _placing(slits: Sequence[Any], models: Sequence[Model], name: str, plane: str) -> Model:
    swap = Select((0, 1, 3, 2))
    swap.inverse = Select((0, 1, 3, 2))
    model = Slit2Msa(slits, models) & Identity(1) | swap
    return _named(model, name, ("name", "x_slit", "y_slit", "lam"), (f"x_{plane}", f"y_{plane}", "lam", "name"))


def _sky(optics: Optics) -> list[tuple[str, Model]]:
    """From the focal plane of the telescope to V2, V3 and the sky."""
    meta = optics.meta
    pointing = {key: meta[f"meta.wcsinfo.{key}"] for key in ("v2_ref", "v3_ref", "roll_ref", "ra_ref", "dec_ref")}
    both = Identity(3, name="fore2ote_mapping")
    both.inverse = Select((0, 1, 2, 2))
    # Wavelengths in micrometres from here on.
    telescope = (both | (optics.trees["ote"]["model"] & Scale(1e6))) & Identity(1)
    aberration = velocity_aberration(
        meta.get("meta.velocity_aberration.scale_factor"), pointing["v2_ref"], pointing["v3_ref"]
    )
    v2v3, ote = ("v2", "v3", "lam", "name"), ("x_ote", "y_ote", "lam", "name")
    return [
        ("oteip", _named(telescope, "oteip2v23", ote, v2v3)),
        ("v2v3", _named(aberration & Identity(2), "va_corr", v2v3, v2v3)),
        (
            "v2v3vacorr",
            _named(telescope_to_sky(**pointing) & Identity(2), "v2v3_to_sky", v2v3, ("ra", "dec", "lam", "name")),
        ),
    ]


def _fore(optics: Optics, inverse: Model) -> Model:
    """Micro-shutters to the focal plane of the telescope."""
    copy = Select((0, 1, 2, 2), name="msa2fore_mapping")
    copy.inverse = inverse
    model = (copy | optics.trees["fore"]["model"] & Identity(1)) & Identity(1)
    return _named(model, "msa2oteip", ("x_msa", "y_msa", "lam", "name"), ("x_ote", "y_ote", "lam", "name"))


def _wcs(steps: Sequence[tuple[str, Model]], last: str) -> gwcs.WCS:
    frames = _frames()
    return gwcs.WCS([*((frames[name], model) for name, model in steps), (frames[last], None)])


def slits_wcs(optics: Optics, slits: Sequence[Slit]) -> gwcs.WCS:
    """The gwcs of open slits, whose transforms take the name of one.

    Its bounding boxes are those of :func:`jwstdask.wcs.nirspec_traces.slit_boxes`.
    """
    in_order = [slit for quadrant in range(1, 6) for slit in slits if slit.quadrant == quadrant]
    to_slit = Gwa2Slit(in_order, [optics.grating_to_slit(slit) for slit in in_order])
    placing = _placing(in_order, [optics.slit_to_entrance(slit) for slit in in_order], "slit2msa", "msa")
    steps = [*_entry(optics), ("gwa", _named(to_slit, "gwa2slit")), ("slit_frame", placing)]
    if ends_at_msa(optics.meta):
        return _wcs(steps, "msa_frame")
    return _wcs([*steps, ("msa_frame", _fore(optics, Identity(3))), *_sky(optics)], "world")


def slices_wcs(optics: Optics, y_range: tuple[float, float] = Y_RANGE) -> gwcs.WCS:
    """The gwcs of the slices of the IFU, whose transforms take the number of one."""
    numbers = np.arange(SLICES)
    to_slice = Gwa2Slit(numbers, [optics.grating_to_slice(number, y_range) for number in numbers])
    placing = _placing(numbers, [optics.slice_to_slicer(number) for number in numbers], "slit2slicer", "slice")
    copy = Select((0, 1, 2, 2, 3))
    copy.inverse = Identity(4)
    names = ("lam", "name")
    to_msa = copy | optics.trees["ifufore"]["model"] & Identity(2)
    steps = [
        *_entry(optics),
        ("gwa", _named(to_slice, "gwa2slit")),
        ("slit_frame", placing),
        ("slicer", _named(to_msa, "slicer2msa", ("x_slice", "y_slice", *names), ("x_msa", "y_msa", *names))),
    ]
    if ends_at_msa(optics.meta):
        return _wcs(steps, "msa_frame")
    colour = optics.trees["chromcorr"]["model"].copy()
    colour.inverse = colour.inverse & Identity(1)
    ote = ("x_ote", "y_ote", *names)
    _, *beyond = sky = _sky(optics)
    return _wcs(
        [
            *steps,
            ("msa_frame", _fore(optics, Select((0, 1, 2, 2), name="fore2msa"))),
            ("oteip", _named(colour & Identity(1), "chrom_corr", ote, ote)),
            ("oteip_chromcorr", sky[0][1]),
            *beyond,
        ],
        "world",
    )


def bound(wcs: gwcs.WCS, boxes: Mapping[int, Box]) -> None:
    """Give the transforms of a gwcs the bounding box of each slit."""
    forward = wcs.forward_transform
    forward.inputs = ("x", "y", "name")
    wcs.bounding_box = CompoundBoundingBox.validate(forward, dict(boxes), selector_args=[("name", True)], order="F")
