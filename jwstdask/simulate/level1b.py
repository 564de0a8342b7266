"""Level-1b files: the header of a real exposure and the layout of an ``_uncal.fits`` file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import asdf
import numpy as np
from astropy import units
from astropy.coordinates import get_body_barycentric_posvel
from astropy.io import fits
from astropy.time import Time, TimeDelta

from jwstdask.simulate.geometry import Pointing, unit_vector
from jwstdask.simulate.instruments import Aperture, Detector, Filter, Instrument, ReadPattern
from jwstdask.simulate.irs2 import NORMAL, REFERENCE
from jwstdask.simulate.ramps import Ramp

TEMPLATES = {
    "MIR_IMAGE": "MIRI Imaging", "MIR_MRS": "MIRI Medium Resolution Spectroscopy",
    "MIR_LRS-SLITLESS": "MIRI Low Resolution Spectroscopy", "MIR_LRS-FIXEDSLIT": "MIRI Low Resolution Spectroscopy",
    "MIR_4QPM": "MIRI Coronagraphic Imaging", "MIR_LYOT": "MIRI Coronagraphic Imaging",
    "NIS_IMAGE": "NIRISS External Calibration", "NIS_SOSS": "NIRISS Single-Object Slitless Spectroscopy",
    "NIS_AMI": "NIRISS Aperture Masking Interferometry", "NRS_FIXEDSLIT": "NIRSpec Fixed Slit Spectroscopy",
    "NRS_BRIGHTOBJ": "NIRSpec Bright Object Time Series", "NRS_IFU": "NIRSpec IFU Spectroscopy",
    "NRS_MSASPEC": "NIRSpec MultiObject Spectroscopy", "FGS_IMAGE": "FGS External Calibration",
}  # fmt: skip
"""Observation templates by EXP_TYPE; those of NIRCam are imaging."""

SPEED_OF_LIGHT = 299792.458
"""km/s"""


@dataclass(frozen=True)
class Timing:
    """Times of an exposure [s]."""

    frame: float
    group: float
    integration: float
    exposure: float
    measurement: float
    duration: float

    @classmethod
    def of(cls, instrument: Instrument, aperture: Aperture, pattern: ReadPattern, ngroups: int, nints: int) -> Timing:
        """Times that follow from the pattern: one reset frame before every integration."""
        frame = instrument.frame_time(aperture, pattern)
        group = (pattern.nframes + pattern.groupgap) * frame
        integration = (ngroups - 1) * group + pattern.nframes * frame
        return cls(
            frame=frame,
            group=round(group, 5),
            integration=round(integration, 5),
            exposure=round(integration * nints, 5),
            measurement=round((ngroups - 1) * group * nints, 5),
            duration=round((integration + frame) * nints, 5),
        )


@dataclass(frozen=True)
class Visit:
    """Names and numbers of a program that its exposures share."""

    program: str
    observation: str
    visit: str
    visit_group: str
    sequence: str
    activity: str
    title: str
    target: str
    ra: float
    dec: float
    start: str
    dithers: int
    label: str = "field"

    def rootname(self, exposure: int, detector: Detector, segment: int | None = None) -> str:
        """Name of an exposure, or of a segment of it, by MAST's convention."""
        head = f"jw{self.program}{self.observation}{self.visit}_{self.visit_group}{self.sequence}{self.activity}"
        part = "" if segment is None else f"-seg{segment:03d}"
        return f"{head}_{exposure:05d}{part}_{detector.name.lower()}"


@dataclass(frozen=True)
class Ephemeris:
    """Place and motion of the telescope at a time, taken 1.5 million km behind the Earth."""

    position: np.ndarray
    velocity: np.ndarray
    geocentric: np.ndarray
    geocentric_velocity: np.ndarray

    @classmethod
    def at(cls, time: Time) -> Ephemeris:
        """Barycentric km and km/s, geocentric m and m/s."""
        place, motion = get_body_barycentric_posvel("earth", time, ephemeris="builtin")
        position = place.xyz.to_value(units.km)
        velocity = motion.xyz.to_value(units.km / units.s)
        outward = position / np.linalg.norm(position)
        geocentric = 1.5e9 * outward
        return cls(position + geocentric / 1e3, 1.01 * velocity, geocentric, 10.0 * velocity)

    def aberration(self, ra: float, dec: float) -> tuple[float, float, float]:
        """Scale of differential velocity aberration and apparent right ascension, declination [deg]."""
        direction = unit_vector(np.radians(ra), np.radians(dec))
        beta = self.velocity / SPEED_OF_LIGHT
        along = float(direction @ beta)
        gamma = 1 / np.sqrt(1 - beta @ beta)
        apparent = (direction / gamma + beta * (1 + gamma / (1 + gamma) * along)) / (1 + along)
        apparent = apparent / np.linalg.norm(apparent)
        scale = gamma * (1 + along)
        ra, dec = np.arctan2(apparent[1], apparent[0]), np.arcsin(apparent[2])
        return scale, float(np.degrees(ra) % 360), float(np.degrees(dec))

    def light_delay(self, ra: float, dec: float) -> float:
        """Seconds by which light reaches the barycentre later (positive) than the telescope."""
        return float(self.position @ unit_vector(np.radians(ra), np.radians(dec)) / SPEED_OF_LIGHT)


class _Cards:
    """A header in sections, as real ones are laid out."""

    def __init__(self) -> None:
        self.header = fits.Header()

    def section(self, title: str, **cards: object) -> None:
        self.header.add_blank("")
        self.header.add_blank(f"      {title}")
        self.header.add_blank("")
        self.add(**cards)

    def add(self, **cards: object) -> None:
        for name, value in cards.items():
            if isinstance(value, np.generic):
                value = value.item()
            self.header.append((name.replace("__", "-"), value), end=True)


def exposure_headers(
    instrument: Instrument,
    detector: Detector,
    aperture: Aperture,
    subarray: str,
    filter_: Filter,
    pattern: ReadPattern,
    ngroups: int,
    nints: int,
    visit: Visit,
    exposure: int,
    dither_offset: tuple[float, float],
    pointing: Pointing,
    start: Time,
    ephemeris: Ephemeris,
    exp_type: str,
    zeroframe: bool,
    tso: bool = False,
    dithered: tuple[float, float] = (0.0, 0.0),
) -> tuple[fits.Header, fits.Header]:
    """Primary and SCI header of an exposure.

    Parameters
    ----------
    exposure
        Number from 1; also the position in the dither pattern.
    dither_offset
        XOFFSET, YOFFSET [arcsec].
    pointing
        As the header is to tell it (which a pointing error may make differ from the truth).
    dithered
        Right ascension, declination [deg] of the dithered pointing.
    """
    timing = Timing.of(instrument, aperture, pattern, ngroups, nints)
    middle, end = start + TimeDelta(timing.duration / 2, format="sec"), start + TimeDelta(timing.duration, format="sec")
    root = visit.rootname(exposure, detector)
    begin_text, end_text = start.isot[:23], end.isot[:23]
    visit_id = visit.program + visit.observation + visit.visit
    observation_id = f"V{visit_id}P00000000{visit.visit_group}{visit.sequence}{visit.activity}"
    scale, apparent_ra, apparent_dec = ephemeris.aberration(pointing.attitude.ra, pointing.attitude.dec)
    delay = ephemeris.light_delay(visit.ra, visit.dec)
    bjd = lambda time: time.tdb.mjd + delay / 86400  # noqa: E731
    day = lambda time: time.isot.replace("T", " ")[:23] + "0000"  # noqa: E731
    before = start - TimeDelta(1500, format="sec")

    p = _Cards()
    p.add(
        DATE=begin_text, ORIGIN="STSCI", TIMESYS="UTC", TIMEUNIT="s", FILENAME=f"{root}_uncal.fits", SDP_VER="2023_3",
        PRD_VER="PRDOPSSOC-063", OSS_VER="8.4.10", GSC_VER="GSC30", DATAMODL="Level1bModel", TELESCOP="JWST",
        HGA_MOVE=False, PWFSEET=before.mjd - 1, NWFSEST=end.mjd + 1, COMPRESS=False,
    )  # fmt: skip
    p.section("Program information", TITLE=visit.title, PI_NAME="Simulation", CATEGORY="GO", SUBCAT="",
              SCICAT="Galaxies", CONT_ID=0)  # fmt: skip
    p.section(
        "Observation identifiers", DATE__OBS=begin_text[:10], TIME__OBS=begin_text[11:], DATE__BEG=begin_text,
        DATE__END=end_text, OBS_ID=observation_id, VISIT_ID=visit_id, PROGRAM=visit.program, OBSERVTN=visit.observation,
        VISIT=visit.visit, VISITGRP=visit.visit_group, SEQ_ID=visit.sequence, ACT_ID=visit.activity,
        EXPOSURE=f"{exposure:05d}", BKGDTARG=False, TEMPLATE=TEMPLATES.get(exp_type, "NIRCam Imaging"),
        OBSLABEL=visit.label, OBSFOLDR=visit.label,
    )  # fmt: skip
    p.section(
        "Visit information", ENG_QUAL="OK", ENGQLPTG="CALCULATED_TRACK_TR_202111", VISITYPE="PRIME_TARGETED_FIXED",
        VSTSTART=day(before), VISITSTA="SUCCESSFUL", NEXPOSUR=visit.dithers, INTARGET=False, TARGOOPP=False,
        TSOVISIT=tso, EXP_ONLY=False, CROWDFLD=False,
    )  # fmt: skip
    p.section(
        "Target information", TARGPROP=visit.target, TARGNAME=visit.target, TARGTYPE="FIXED", TARGCAT="Galaxy",
        TARGDESC="Simulated field", TARG_RA=visit.ra, TARG_DEC=visit.dec, TARGURA=0.1, TARGUDEC=0.1, MU_RA=0.0,
        MU_DEC=0.0, MU_EPOCH="2000-01-01 00:00:00.0000000", PROP_RA=visit.ra, PROP_DEC=visit.dec, SRCTYAPT="UNKNOWN",
    )  # fmt: skip
    p.section("Instrument configuration information", INSTRUME=instrument.name, DETECTOR=detector.name,
              **instrument.cards(detector, filter_))  # fmt: skip
    p.section(
        "Exposure parameters", EXPCOUNT=exposure, EXPRIPAR="PRIME", EXP_TYPE=exp_type, EXPSTART=start.mjd,
        EXPMID=middle.mjd, EXPEND=end.mjd, OSF_FILE=f"{visit_id}_osf.xml", READPATT=pattern.name, NINTS=nints,
        NGROUPS=ngroups, NFRAMES=pattern.nframes, FRMDIVSR=pattern.nframes, GROUPGAP=pattern.groupgap, DRPFRMS1=0,
        DRPFRMS3=0, NSAMPLES=pattern.samples, TSAMPLE=instrument.sample_time, TFRAME=timing.frame, TGROUP=timing.group,
        EFFINTTM=timing.integration, EFFEXPTM=timing.exposure, TMEASURE=timing.measurement, DURATION=timing.duration,
        NRSTSTRT=1, NRESETS=1, ZEROFRAM=zeroframe, DATAPROB=False, SCA_NUM=detector.sca_num, DATAMODE=90,
        DETMODE="EXPOSURE", NOUTPUTS=instrument.outputs(aperture), EXSEGNUM=1, EXSEGTOT=1, INTSTART=1, INTEND=nints,
        SCTARATE=0.0,
    )  # fmt: skip
    if exp_type == "NRC_TSGRISM":
        p.header["PUPIL"] = "GRISMR"
    if pattern.interleaved:
        p.header["NOUTPUTS"] = 5
        p.add(NRS_NORM=NORMAL, NRS_REF=REFERENCE)
    p.section(
        "Subarray parameters", SUBARRAY=subarray, SUBSTRT1=aperture.x_start, SUBSTRT2=aperture.y_start,
        SUBSIZE1=aperture.x_size, SUBSIZE2=aperture.y_size, FASTAXIS=detector.fastaxis, SLOWAXIS=detector.slowaxis,
        DETXCOR=aperture.x_det_start, DETYCOR=aperture.y_det_start, DETXSIZ=aperture.x_size, DETYSIZ=aperture.y_size,
    )  # fmt: skip
    p.section(
        "Dither information", PATTTYPE="SUBARRAY_DITHER" if subarray != "FULL" else "INTRAMODULEBOX",
        PRIDTPTS=visit.dithers, PATT_NUM=exposure, PATTSTRT=1, NUMDTHPT=visit.dithers, PATTSIZE="SMALL", SUBPXPTS=1,
        SUBPXPAT="STANDARD", XOFFSET=dither_offset[0], YOFFSET=dither_offset[1], DITH_RA=dithered[0],
        DITH_DEC=dithered[1],
    )  # fmt: skip
    p.section("Aperture information", APERNAME=aperture.name, PPS_APER=aperture.name)
    p.section("Velocity aberration correction", VA_RA=apparent_ra, VA_DEC=apparent_dec)
    p.section(
        "Time related keywords", BARTDELT=delay, BSTRTIME=bjd(start), BENDTIME=bjd(end), BMIDTIME=bjd(middle),
        HELIDELT=delay, HSTRTIME=start.mjd + delay / 86400, HENDTIME=end.mjd + delay / 86400,
        HMIDTIME=middle.mjd + delay / 86400,
    )  # fmt: skip
    p.section(
        "Guide star information", GS_ORDER=1, GSSTRTTM=day(before), GSENDTIM=day(start), GDSTARID="S1HP000123",
        GS_RA=visit.ra + 0.1, GS_DEC=visit.dec + 0.05, GS_URA=1.2e-6, GS_UDEC=1.1e-6, GS_MAG=14.62, GS_UMAG=0.01,
        PCS_MODE="FINEGUIDE", GSACSTAT="SUCCESSFUL", GS_V3_PA=pointing.attitude.roll, VISITEND=day(end),
        GSCENTX=0.003, GSCENTY=-0.002,
        GS_EPOCH="2016-01-01 00:00:00", GS_MURA=-1.2, GS_MUDEC=0.7, GS_PARA=0.2,
    )  # fmt: skip

    s = _Cards()
    s.add(BUNIT="DN")
    s.section("JWST ephemeris information", REFFRAME="EME2000", EPH_TYPE="Definitive", EPH_TIME=middle.mjd)
    for axis, name in enumerate("XYZ"):
        s.add(**{f"JWST_{name}": ephemeris.position[axis], f"JWST_D{name}": ephemeris.velocity[axis]})
        s.add(**{f"OBSGEO-{name}": ephemeris.geocentric[axis], f"OBSGEOD{name}": ephemeris.geocentric_velocity[axis]})
    s.section("Exposure times", **{"MJD-BEG": start.mjd, "MJD-AVG": middle.mjd, "MJD-END": end.mjd,
              "TDB-BEG": start.tdb.mjd, "TDB-MID": middle.tdb.mjd, "TDB-END": end.tdb.mjd,
              "XPOSURE": timing.exposure, "TELAPSE": timing.duration})  # fmt: skip
    a = pointing.attitude
    ra_v1, dec_v1 = a.to_sky(0.0, 0.0)
    position_angle = (a.roll + aperture.v3_idl_yangle) % 360
    s.section("Aperture and pointing", PA_APER=position_angle, VA_SCALE=pointing.va_scale, RADESYS="ICRS",
              RA_V1=float(ra_v1), DEC_V1=float(dec_v1), PA_V3=a.position_angle(0.0, 0.0))  # fmt: skip
    angle = np.radians(position_angle)
    parity = aperture.vidl_parity
    scale = float(np.sqrt(pointing.area(aperture.x_sci_ref - 1, aperture.y_sci_ref - 1))) * 180 / np.pi
    ra, dec = pointing.footprint()
    region = "POLYGON ICRS  " + " ".join(f"{x:.9f} {y:.9f}" for x, y in zip(ra, dec))
    s.section(
        "WCS parameters", WCSAXES=2, CRPIX1=aperture.x_sci_ref, CRPIX2=aperture.y_sci_ref, CRVAL1=a.ra, CRVAL2=a.dec,
        CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CUNIT1="deg", CUNIT2="deg", CDELT1=scale, CDELT2=scale,
        PC1_1=parity * np.cos(angle), PC1_2=np.sin(angle), PC2_1=-parity * np.sin(angle), PC2_2=np.cos(angle),
        V2_REF=aperture.v2_ref, V3_REF=aperture.v3_ref, VPARITY=parity, V3I_YANG=aperture.v3_idl_yangle, RA_REF=a.ra,
        DEC_REF=a.dec, ROLL_REF=a.roll, XREF_SCI=aperture.x_sci_ref, YREF_SCI=aperture.y_sci_ref, S_REGION=region,
    )  # fmt: skip
    return p.header, s.header


def integration_times(timing: Timing, nints: int, start: Time, delay: float) -> fits.BinTableHDU:
    """INT_TIMES: start, middle and end of every integration, UTC and barycentric (TDB)."""
    begin = np.arange(nints) * (timing.integration + timing.frame) + timing.frame
    times = {"start": begin, "mid": begin + timing.integration / 2, "end": begin + timing.integration}
    columns = [fits.Column("integration_number", "J", array=np.arange(1, nints + 1))]
    for scale in ("MJD_UTC", "BJD_TDB"):
        zero = start.mjd if scale == "MJD_UTC" else start.tdb.mjd + delay / 86400
        for name, seconds in times.items():
            columns.append(fits.Column(f"int_{name}_{scale}", "D", array=zero + seconds / 86400, unit="d"))
    return fits.BinTableHDU.from_columns(columns, name="INT_TIMES")


def group_table(
    timing: Timing, ngroups: int, nints: int, start: Time, aperture: Aperture, delay: float
) -> fits.BinTableHDU:
    """GROUP: end time and completion of every group."""
    integration, group = (index.ravel() for index in np.mgrid[1 : nints + 1, 1 : ngroups + 1])
    seconds = (integration - 1) * (timing.integration + timing.frame) + timing.frame
    seconds = seconds + (group - 1) * timing.group + (timing.integration - (ngroups - 1) * timing.group)
    ends = start + TimeDelta(seconds, format="sec")
    fraction = np.mod(ends.mjd, 1) * 86400e3
    size = np.ones(group.size, int)
    columns = [
        ("integration_number", "J", integration), ("group_number", "I", group),
        ("end_day", "I", (np.floor(ends.mjd) - 51544).astype(int)), ("end_milliseconds", "J", fraction.astype(int)),
        ("end_submilliseconds", "I", (np.mod(fraction, 1) * 1000).astype(int)),
        ("group_end_time", "26A", [text[:26] for text in ends.isot]),
        ("number_of_columns", "I", size * aperture.x_size), ("number_of_rows", "I", size * aperture.y_size),
        ("number_of_gaps", "I", 0 * size), ("completion_code_number", "I", 0 * size),
        ("completion_code_text", "36A", ["COMPLETE"] * group.size),
        ("bary_end_time", "D", ends.tdb.mjd + delay / 86400), ("helio_end_time", "D", ends.mjd + delay / 86400),
    ]  # fmt: skip
    return fits.BinTableHDU.from_columns([fits.Column(n, f, array=a) for n, f, a in columns], name="GROUP")


def _asdf_extension() -> fits.BinTableHDU:
    buffer = io.BytesIO()
    asdf.AsdfFile({"meta": {}}).write_to(buffer)
    content = np.frombuffer(buffer.getvalue(), np.uint8)
    column = fits.Column("ASDF_METADATA", f"{content.size}B", array=content[None])
    return fits.BinTableHDU.from_columns([column], name="ASDF")


def write_uncal(
    path: Path, primary: fits.Header, science: fits.Header, ramp: Ramp, tables: list[fits.BinTableHDU]
) -> None:
    """Write an ``_uncal.fits`` file: SCI, ZEROFRAME (if kept), REFOUT (MIRI), GROUP and INT_TIMES, ASDF."""
    hdus: list = [fits.PrimaryHDU(header=primary), fits.ImageHDU(ramp.data, header=science, name="SCI")]
    if ramp.zeroframe is not None:
        hdus.append(fits.ImageHDU(ramp.zeroframe, name="ZEROFRAME"))
    if ramp.reference_output is not None:
        hdus.append(fits.ImageHDU(ramp.reference_output, name="REFOUT"))
    hdus += [*tables, _asdf_extension()]
    hdus[0].header["NEXTEND"] = (len(hdus) - 1, "Number of file extensions")
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path, overwrite=True)
