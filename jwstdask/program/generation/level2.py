"""The rules of Stage 2: what is calibrated together with each exposure."""

from __future__ import annotations

from jwstdask.program.generation.exposures import (
    IMAGE,
    IMAGE_AUXILIARY,
    SPECTRUM,
    absent,
    all_of,
    among,
    any_of,
    fixed_slit_path,
    given,
    ifu_path,
    is_acquisition,
    is_jitter,
    is_not_time_series,
    is_science,
    is_time_series,
    is_wavefront_sensing,
    lamp_path,
    mode_is_valid,
    nircam_occulted,
    not_,
    science_role,
    soss_calibrated,
    stage2_role,
)
from jwstdask.program.generation.grouping import (
    Admission,
    Bound,
    Group,
    Key,
    Rule,
    TargetKey,
    Way,
    agree,
    for_direct_image,
)
from jwstdask.program.pool import Row

_BASE = (Key("program"), Key("is_tso", ("tsovisit",), required=False))
_INSTRUMENT = Key("instrument", ("instrume",))
_DETECTOR = Key("detector")
_TYPE = Key("exp_type")
_TARGET = TargetKey("target", ("targetid",))
_TILE = Key("mostilno")
_MODE = (
    _INSTRUMENT,
    _DETECTOR,
    Key("opt_elem", ("filter", "band")),
    Key("opt_elem2", ("pupil", "grating"), required=False),
    Key("fxd_slit", required=False),
    Key("subarray", required=False),
    Key("channel", required=False),
)


def _anything(row: Row) -> bool:
    return True


_ALONE = (Way(is_science, single=True),)
_ANY_ALONE = (Way(_anything, single=True),)
_TOGETHER = (Way(_anything),)
_WITH_BACKGROUNDS = (Way(given("bkgdtarg"), again="soon"), Way(is_science, single=True))

_SLIT_NODS = ("2-point-nod", "4-point-nod", "along-slit-nod")
_LRS = ("mir_lrs-slitless", "mir_lrs-fixedslit")
_DIRECT = frozenset(("nis_image", "nrc_image", "mir_image"))


def _slitless_role(row: Row) -> str:
    """Images beside slitless spectra are direct images."""
    found = stage2_role(row)
    return "direct_image" if found == "science" and row.values.get("exp_type") in _DIRECT else found


def _is_slitless_science(row: Row) -> bool:
    return _slitless_role(row) == "science"


_SLITLESS = (
    Way(among("exp_type", *_DIRECT), again="last"),
    Way(not_(_is_slitless_science)),
    Way(_is_slitless_science, single=True),
)


def _slitless(name: str, spectra: str, images: str, keys: tuple[Key, ...]) -> Rule:
    return Rule(
        name,
        2,
        "spec2",
        frozenset((spectra, images)),
        keys=(*_BASE, _TARGET, _INSTRUMENT, *keys),
        ways=_SLITLESS,
        role=_slitless_role,
        candidates=("observation", "background"),
        closing=("direct_image",),
    )


_OBSERVATION = (Key("obs_id"),)
_PATTERN = Key("patt_num")


def _admit_with_confirmation(group: Group, row: Row, bound: Bound) -> Admission | None:
    """One LRS exposure, backgrounds of the same mode, and images that confirm the target's acquisition.

    Members either share the mode or the observation. What the first test binds stays bound when the second one
    succeeds, so that a group begun by a confirmation image takes no backgrounds.
    """
    if not agree(_BASE, row, bound):
        return None
    role = stage2_role(row)
    is_lrs = row.get("exp_type") in _LRS
    is_the_science = is_lrs and role == "science" and not group.has_science
    if agree(_MODE, row, bound) and mode_is_valid(row):
        if is_the_science:
            return Admission(role)
        is_background = is_lrs and "bkgdtarg" in row.given and is_not_time_series(row)
        if is_background and Key("background", ("exp_type",)).agrees(row, bound):
            return Admission(role, "soon")
    if agree(_OBSERVATION, row, bound) and (is_the_science or row.get("exp_type") == "mir_taconfirm"):
        return Admission(role)
    return None


def _admit_slit_nods(group: Group, row: Row, bound: Bound) -> Admission | None:
    """One LRS exposure; those at another nod are its background but have associations of their own as well."""
    if not agree(_BASE, row, bound):
        return None
    role = stage2_role(row)
    if row.get("exp_type") == "mir_taconfirm":
        return Admission(role)
    if row.get("patttype") != "along-slit-nod":
        return None
    if _PATTERN.agrees(row, bound) and role == "science" and not group.has_science:
        return Admission(role, "soon")
    nod = row.get("patt_num")
    if nod is None:
        return None
    # The backgrounds are those of the first other nod that came.
    own, other = bound.get("patt_num"), bound.get("other nod")
    if nod != other[1] if other else own is None or own[1] in nod:
        return None
    bound["other nod"] = ("patt_num", nod)
    return Admission("background" if role == "science" else role, counts=False)


_STANDARD = ("observation", "background")


def _rule(name: str, asn_type: str, types: frozenset[str] | str | None, **options) -> Rule:
    """A rule for the usual candidates; `types` may be words."""
    if isinstance(types, str):
        types = frozenset(types.split())
    return Rule(name, 2, asn_type, types, **{"candidates": _STANDARD, **options})


_NOT_IN_GENERAL_SPECTRA = frozenset("nis_wfss nrc_wfss nrs_fixedslit nrs_msaspec".split()) | set(_LRS)
_NOT_IN_TIME_SERIES = frozenset("nrs_msaspec nrs_fixedslit".split()) | set(_LRS)

RULES: tuple[Rule, ...] = (
    _rule(
        "Asn_Lv2CoronAsRate",
        "image2",
        "nrc_coron",
        tests=(mode_is_valid, among("subarray", "full"), nircam_occulted),
        keys=(*_BASE, *_MODE),
        ways=_WITH_BACKGROUNDS,
        rates=True,
    ),
    _rule(
        "Asn_Lv2FGS",
        "image2",
        "fgs_image fgs_focus",
        tests=(not_(is_wavefront_sensing),),
        keys=_BASE,
        ways=_ALONE,
    ),
    _rule(
        "Asn_Lv2Image",
        "image2",
        IMAGE,
        tests=(mode_is_valid, is_not_time_series),
        keys=(*_BASE, *_MODE, _TYPE),
        ways=_WITH_BACKGROUNDS,
    ),
    _rule(
        "Asn_Lv2ImageNonScience",
        "image2",
        None,
        tests=(
            any_of(
                is_acquisition,
                among("exp_type", *IMAGE_AUXILIARY),
                all_of(
                    among("exp_type", "nrs_msaspec"),
                    among("msastate", "primarypark_allopen"),
                    among("grating", "mirror"),
                ),
            ),
        ),
        keys=_BASE,
        ways=_ANY_ALONE,
        role=science_role,
    ),
    _rule(
        "Asn_Lv2ImageSpecial",
        "image2",
        IMAGE,
        tests=(mode_is_valid, given("bkgdtarg", "is_psf")),
        keys=(*_BASE, *_MODE),
        ways=_ANY_ALONE,
        role=science_role,
    ),
    _rule(
        "Asn_Lv2ImageTSO",
        "tso-image2",
        IMAGE,
        tests=(mode_is_valid, is_time_series),
        keys=(*_BASE, *_MODE),
        ways=_ALONE,
    ),
    _rule(
        "Asn_Lv2MIRLRSFixedSlitNod",
        "spec2",
        "mir_lrs-fixedslit mir_taconfirm",
        ways=_TOGETHER,
        admit=_admit_slit_nods,
        candidates=("observation",),
    ),
    _rule(
        "Asn_Lv2NRSFSS",
        "spec2",
        "nrs_fixedslit",
        tests=(mode_is_valid, fixed_slit_path),
        keys=(*_BASE, *_MODE),
        ways=(
            Way(not_(is_science)),
            Way(
                is_science,
                keys=(Key("expspcin"), Key("nods", ("numdthpt",)), Key("subpxpts", ("subpxpns", "subpxpts"))),
            ),
        ),
        closing=("nods",),
    ),
    _rule(
        "Asn_Lv2NRSIFUNod",
        "spec2",
        "nrs_ifu",
        tests=(mode_is_valid, ifu_path, among("patttype", "2-point-nod", "4-point-nod")),
        keys=(*_BASE, *_MODE, Key("patttype"), _TILE),
        ways=_TOGETHER,
        closing=("imprints", "nods"),
    ),
    _rule(
        "Asn_Lv2NRSLAMPImage",
        "image2",
        "nrs_lamp",
        tests=(among("grating", "mirror"), any_of(absent("opmode"), among("opmode", "image"))),
        keys=_BASE,
        ways=_ANY_ALONE,
        role=science_role,
    ),
    _rule(
        "Asn_Lv2NRSLAMPSpectral",
        "nrslamp-spec2",
        "nrs_autoflat nrs_autowave nrs_lamp",
        tests=(
            among("filter", "opaque"),
            given("lamp"),
            lamp_path,
            any_of(not_(among("opmode", "msaspec")), given("msametfl")),
            not_(any_of(among("grating", "mirror"), among("opmode", "grating-only"), among("lamp", "nolamp"))),
        ),
        keys=_BASE,
        ways=_ANY_ALONE,
        role=science_role,
    ),
    _rule(
        "Asn_Lv2NRSMSA",
        "spec2",
        "nrs_msaspec",
        tests=(mode_is_valid,),
        keys=(*_BASE, *_MODE, Key("msametfl"), Key("expspcin")),
        ways=_TOGETHER,
        closing=("nods",),
    ),
    _rule(
        "Asn_Lv2Spec",
        "spec2",
        SPECTRUM - _NOT_IN_GENERAL_SPECTRA,
        tests=(mode_is_valid, is_not_time_series, not_(among("patttype", *_SLIT_NODS)), ifu_path),
        keys=(*_BASE, *_MODE, _TYPE),
        ways=(
            Way(given("bkgdtarg"), again="soon"),
            Way(given("is_imprt"), keys=(_TILE,), again="soon"),
            Way(is_science, keys=(_TILE,), single=True),
        ),
        closing=("imprints",),
    ),
    _rule(
        "Asn_Lv2SpecImprint",
        "spec2",
        SPECTRUM,
        tests=(mode_is_valid, ifu_path, given("is_imprt")),
        keys=(*_BASE, *_MODE),
        ways=_ANY_ALONE,
        role=science_role,
    ),
    _rule(
        "Asn_Lv2SpecSpecial",
        "spec2",
        SPECTRUM,
        tests=(mode_is_valid, given("bkgdtarg", "is_psf"), ifu_path),
        keys=(*_BASE, *_MODE, _TYPE, Key("is_special", ("bkgdtarg", "is_psf"))),
        ways=(
            Way(all_of(given("is_imprt"), given("mostilno")), keys=(_TILE,), again="soon"),
            Way(_anything, single=True),
        ),
        alternate=True,
        closing=("imprints",),
    ),
    _rule(
        "Asn_Lv2SpecTSO",
        "tso-spec2",
        SPECTRUM - _NOT_IN_TIME_SERIES,
        tests=(
            mode_is_valid,
            is_time_series,
            not_(all_of(among("exp_type", "nrc_tsgrism"), among("pupil", "clear"))),
            any_of(not_(among("exp_type", "nrs_brightobj")), fixed_slit_path),
            soss_calibrated,
        ),
        keys=(*_BASE, *_MODE),
        ways=_ALONE,
    ),
    _rule(
        "Asn_Lv2WFSC",
        "image2",
        IMAGE,
        tests=(is_wavefront_sensing, not_(all_of(is_jitter, among("exp_type", "nrc_image")))),
        keys=_BASE,
        ways=_ALONE,
    ),
    _slitless("Asn_Lv2WFSSMIR", "mir_wfss", "mir_image", (_DETECTOR,)),
    _slitless("Asn_Lv2WFSSNIS", "nis_wfss", "nis_image", (Key("pupil"), Key("subarray"))),
    _slitless("Asn_Lv2WFSSNRC", "nrc_wfss", "nrc_image", (_DETECTOR,)),
    _rule(
        "Asn_Lv2WFSSParallel",
        "spec2",
        "nis_wfss nrc_wfss mir_wfss nis_image nrc_image mir_image",
        tests=(for_direct_image,),
        keys=(_TARGET, _INSTRUMENT),
        ways=_SLITLESS,
        role=_slitless_role,
        candidates=None,
        closing=("direct_image",),
    ),
    _rule(
        "Asn_MIRLRSTAConfirm",
        "spec2",
        "mir_lrs-slitless mir_lrs-fixedslit mir_taconfirm",
        ways=_TOGETHER,
        admit=_admit_with_confirmation,
    ),
)
"""The rules, in the order of their names."""
