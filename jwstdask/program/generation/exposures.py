"""What single exposures of a pool are: their roles, and whether a rule can use them. Functions of a row alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from jwstdask.program.pool import Row

Test = Callable[[Row], bool]

ACQUISITION = frozenset(
    "mir_tacq mir_taconfirm nis_taconfirm nis_tacq nrc_taconfirm nrc_tacq nrs_confirm nrs_msata nrs_taconfirm nrs_tacq "
    "nrs_taslit nrs_verify nrs_wata".split()
)
IMAGE = frozenset(
    "fgs_image mir_4qpm mir_image mir_lyot nis_ami nis_image nrc_coron nrc_image nrs_mimf nrc_tsimage".split()
)
IMAGE_AUXILIARY = frozenset("mir_coroncal nis_focus nrc_focus nrs_focus nrs_image".split()) | ACQUISITION
SPECTRUM = frozenset(
    "mir_lrs-fixedslit mir_lrs-slitless mir_mrs mir_wfss nis_soss nis_wfss nrc_tsgrism nrc_wfss nrs_fixedslit nrs_ifu "
    "nrs_msaspec nrs_brightobj".split()
)
STAGE2 = IMAGE | IMAGE_AUXILIARY | SPECTRUM
"""Exposures that have products of Stage 2."""
CORONAGRAPHIC = frozenset(("mir_4qpm", "mir_lyot", "nrc_coron"))
TIME_SERIES = frozenset(("nrc_tsimage", "nrc_tsgrism", "nrs_brightobj"))

# Roles that follow from the exposure type; all other types are science.
_ROLES = {
    role: names.split()
    for role, names in {
        "dark": "mir_darkall mir_darkimg mir_darkmrs nis_dark nrc_dark nrs_dark",
        "flat": "mir_flatimage mir_flatmrs mir_flatimage-ext mir_flatmrs-ext nrc_flat",
        "target_acquisition": "mir_tacq mir_taconfirm nis_tacq nis_taconfirm nrc_tacq nrc_taconfirm nrs_confirm "
        "nrs_msata nrs_tacq nrs_taconfirm nrs_taslit nrs_wata",
        "engineering": "nis_focus nis_lamp nrc_focus nrc_led nrs_focus nrs_image nrs_lamp",
        "autoflat": "nrs_autoflat",
        "autowave": "nrs_autowave",
    }.items()
}
_ROLE_OF_TYPE = {name: role for role, names in _ROLES.items() for name in names}


def role(row: Row) -> str:
    """What an exposure is for: ``science``, ``psf``, ``imprint``, ``background``, ``target_acquisition`` ..."""
    pointing = row.get("pntgtype")
    if pointing is not None and pointing != "science":
        return pointing
    found = _ROLE_OF_TYPE.get(row.given.get("exp_type", ""), "science")
    if found != "science":
        return found
    for name, column in (("psf", "is_psf"), ("imprint", "is_imprt"), ("background", "bkgdtarg")):
        if column in row.given:
            return name
    return "science"


def stage2_role(row: Row) -> str:
    """As :func:`role`; in Stage 2 reference stars are science."""
    found = role(row)
    return "science" if found == "psf" else found


def science_role(row: Row) -> str:
    """Science, whatever the exposure is: the role in the rules for auxiliary exposures."""
    return "science"


def auxiliary_role(row: Row) -> str:
    """The role in the Stage 3 rules for auxiliary exposures: science but for target acquisitions."""
    found = role(row)
    return found if found == "target_acquisition" else "science"


def is_science(row: Row) -> bool:
    return stage2_role(row) == "science"


def is_acquisition(row: Row) -> bool:
    return role(row) == "target_acquisition"


def given(*columns: str) -> Test:
    """Whether any of the columns is specified."""
    return lambda row: any(column in row.given for column in columns)


def absent(*columns: str) -> Test:
    """Whether none of the columns is specified."""
    return lambda row: not any(column in row.given for column in columns)


def among(column: str, *values: str) -> Test:
    """Whether a column has one of the values."""
    return lambda row: row.given.get(column) in values


def any_of(*tests: Test) -> Test:
    return lambda row: any(test(row) for test in tests)


def all_of(*tests: Test) -> Test:
    return lambda row: all(test(row) for test in tests)


def not_(test: Test) -> Test:
    return lambda row: not test(row)


def is_time_series(row: Row) -> bool:
    """Whether an exposure belongs to a time series."""
    return row.get("pntgtype") == "science" and (row.get("tsovisit") == "t" or row.get("exp_type") in TIME_SERIES)


is_not_time_series = not_(is_time_series)


def is_wavefront_sensing(row: Row) -> bool:
    return re.fullmatch(".+wfsc.+", row.given.get("visitype", "")) is not None


def is_not_wavefront_visit(row: Row) -> bool:
    """The Stage 3 rules of images exclude every visit type that contains ``wfsc``."""
    return "wfsc" not in row.given.get("visitype", "")


def is_jitter(row: Row) -> bool:
    """Line-of-sight jitter exposures of wavefront sensing."""
    return row.get("dms_note") == "wfsc_los_jitter"


def mode_is_valid(row: Row) -> bool:
    """Whether the optical path of an exposure can be calibrated, apart from the particular rules below."""
    return (
        row.get("filter") != "opaque"
        and not (row.get("detector") == "nrcblong" and row.get("exp_type") == "nrc_tsgrism")
        and not is_wavefront_sensing(row)
    )


def _paths(lines: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """Expand ``slit grating filter detector,detector`` lines."""
    found = set()
    for line in lines:
        *path, detectors = line.split()
        found |= {(*path, detector) for detector in detectors.split(",")}
    return frozenset(found)


# Light of a slit (a: any of the A slits), grating and filter falls on these detectors.
_FIXED_SLIT = _paths(
    (
        "a prism clear nrs1",
        "a g395h f290lp nrs1,nrs2",
        "a g235h f170lp nrs1,nrs2",
        "a g140h f100lp nrs1,nrs2",
        "a g140h f070lp nrs1",
        "a g395m f290lp nrs1",
        "a g235m f170lp nrs1",
        "a g140m f100lp nrs1",
        "a g140m f070lp nrs1",
        "s200b1 prism clear nrs2",
        "s200b1 g395h f290lp nrs2",
        "s200b1 g235h f170lp nrs2",
        "s200b1 g140h f100lp nrs2",
        "s200b1 g140h f070lp nrs1,nrs2",
        "s200b1 g395m f290lp nrs2",
        "s200b1 g235m f170lp nrs2",
        "s200b1 g140m f100lp nrs2",
        "s200b1 g140m f070lp nrs1,nrs2",
    )
)
# The same of gratings and filters for the integral field unit.
_IFU = _paths(
    (
        "prism clear nrs1",
        "g140m f070lp nrs1",
        "g140m f100lp nrs1",
        "g235m f170lp nrs1",
        "g395m f290lp nrs1",
        "g140h f070lp nrs1",
        "g140h f100lp nrs1,nrs2",
        "g235h f170lp nrs1,nrs2",
        "g395h f290lp nrs1,nrs2",
    )
)
# Gratings with the lamps that are used with them through the fixed slits; both detectors are lit.
_SLIT_LAMPS = {
    "prism": ("line4", "flat5", "test"),
    "g395h": ("flat3", "line3"),
    "g235h": ("flat2", "line2"),
    "g140h": ("flat1", "ref", "line1", "flat4"),
    "g395m": ("flat3", "line3"),
    "g235m": ("flat2", "line2"),
    "g140m": ("flat1", "line1", "flat4"),
}


def fixed_slit_path(row: Row) -> bool:
    """Whether light of the slit, grating and filter falls on the detector."""
    slit = row.get("fxd_slit")
    path = ("s200b1" if slit == "s200b1" else "a", row.get("grating"), row.get("filter"), row.get("detector"))
    return slit is not None and path in _FIXED_SLIT


def ifu_path(row: Row) -> bool:
    """Whether light of the grating and filter falls on the detector, for exposures of the integral field unit."""
    return row.get("exp_type") != "nrs_ifu" or (row.get("grating"), row.get("filter"), row.get("detector")) in _IFU


def lamp_path(row: Row) -> bool:
    """Whether light of the lamp falls on the detector."""
    grating, detector, mode = row.get("grating"), row.get("detector"), row.get("opmode")
    if grating is None or detector is None or mode is None:
        return False
    if mode == "msaspec":
        return True
    lamp = row.get("lamp")
    if lamp is None:
        return False
    if mode == "fixedslit":
        return detector in ("nrs1", "nrs2") and lamp in _SLIT_LAMPS.get(grating, ())
    if mode != "ifu":
        return False
    if grating in ("g395h", "g235h"):
        return True
    if grating == "g140h":
        return not (detector == "nrs2" and lamp == "flat4")
    return grating in ("g395m", "g235m", "g140m", "prism") and detector == "nrs1"


_UNOCCULTED = {"maskbar": ("nrca1", "nrca2", "nrca3"), "maskrnd": ("nrca1", "nrca3", "nrca4")}


def nircam_occulted(row: Row) -> bool:
    """Whether the star behind the coronagraphic mask is on the detector: always in subarrays."""
    detector, subarray, pupil = row.get("detector"), row.get("subarray"), row.get("pupil")
    if detector is None or subarray is None or pupil is None:
        return False
    return subarray != "full" or detector not in _UNOCCULTED.get(pupil, ())


def soss_calibrated(row: Row) -> bool:
    """Whether a NIRISS SOSS exposure has a filter that is calibrated."""
    return row.get("exp_type") != "nis_soss" or row.get("filter") not in (None, "f277w")


def _is_pointed_science(row: Row) -> bool:
    return row.values.get("pntgtype") == "science" and row.values.get("exp_type") not in ACQUISITION


def is_coronagraphic(row: Row) -> bool:
    """Whether the products of an exposure keep their integrations because it is coronagraphic."""
    if not _is_pointed_science(row) or row.get("exp_type") not in CORONAGRAPHIC:
        return False
    values = row.values
    return not (
        values["exp_type"] == "nrc_coron"
        and values.get("subarray") == "full"
        and values.get("detector") in _UNOCCULTED.get(values.get("pupil", ""), ())
    )


def is_interferometric(row: Row) -> bool:
    """Whether the products of an exposure keep their integrations because it is interferometric."""
    return _is_pointed_science(row) and row.get("exp_type") == "nis_ami"


def keeps_time(row: Row, time_series_group: bool = False) -> bool:
    """Whether the products of an exposure keep their integrations because it is a time series."""
    return _is_pointed_science(row) and (
        time_series_group or row.get("tsovisit") == "t" or row.get("exp_type") in TIME_SERIES
    )
