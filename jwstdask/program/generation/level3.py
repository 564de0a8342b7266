"""The rules of Stage 3: exposures that are combined."""

from __future__ import annotations

from jwstdask.program.generation.exposures import (
    absent,
    all_of,
    among,
    any_of,
    auxiliary_role,
    fixed_slit_path,
    given,
    ifu_path,
    is_jitter,
    is_not_time_series,
    is_not_wavefront_visit,
    is_time_series,
    nircam_occulted,
    not_,
    role,
    soss_calibrated,
)
from jwstdask.program.generation.grouping import Key, Rule, SlitKey, TargetKey, Way, for_direct_image
from jwstdask.program.pool import Row

_BASE = (Key("program"), Key("instrument", ("instrume",)))
_OPTICS = (
    Key("opt_elem", ("filter",), required=False),
    Key("opt_elem2", ("pupil", "grating"), required=False),
    SlitKey("fxd_slit", required=False),
    Key("subarray"),
)
_TYPE = Key("exp_type")
_VISIT = Key("wfsvisit", ("visitype",), required=False)
_TARGET = TargetKey("target", ("targetid",))
_GRATING = Key("opt_elem", ("grating",))
_OPTICS_TARGET = (*_OPTICS, _TARGET)

_IMAGES = "nrc_image mir_image nis_image fgs_image nrs_mimf"
_BACKGROUND = among("bkgdtarg", "t")
_NOT_BACKGROUND = absent("bkgdtarg")


def _anything(row: Row) -> bool:
    return True


def _is_role(*names: str):
    return lambda row: role(row) in names


_WAYS_OF_TARGET = (
    Way(for_direct_image, keys=(_TARGET,)),
    Way(not_(_is_role("background")), keys=(_TARGET,), again="soon"),
    Way(_anything, again="soon"),
)
"""Science exposures of one target; backgrounds of any."""

_WAYS_OF_AUXILIARIES = (
    Way(for_direct_image, keys=(_TARGET,)),
    Way(_anything, keys=(_TARGET,), again="soon"),
)
"""All exposures of one target."""

_WAYS_OF_STARS = (
    Way(_is_role("science"), keys=(Key("target", ("targetid",)),), again="soon"),
    Way(_anything, again="soon"),
)
"""Science exposures of one target; reference stars of any."""


def _rule(name: str, asn_type: str, types: str | None, tests=(), keys=(), **options) -> Rule:
    return Rule(
        name,
        3,
        asn_type,
        None if types is None else frozenset(types.split()),
        tests=(absent("is_imprt"), *tests),
        keys=(*_BASE, *keys),
        **{"ways": _WAYS_OF_TARGET, "role": role, "several": True, "acquisitions": True, **options},
    )


_OPTIONS_OF_AUXILIARIES = {"ways": _WAYS_OF_AUXILIARIES, "role": auxiliary_role}
_OPTIONS_OF_STARS = {"ways": _WAYS_OF_STARS, "needs": ("science", "psf")}

RULES: tuple[Rule, ...] = (
    _rule("Asn_Lv3AMI", "ami3", "nis_ami", keys=_OPTICS, **_OPTIONS_OF_STARS, acquisition_keys=_OPTICS),
    _rule(
        "Asn_Lv3Image",
        "image3",
        _IMAGES,
        (is_not_wavefront_visit, _NOT_BACKGROUND, is_not_time_series),
        (*_OPTICS, _TYPE, _VISIT),
        acquisition_keys=_OPTICS_TARGET,
    ),
    _rule(
        "Asn_Lv3ImageBackground",
        "image3",
        _IMAGES,
        (is_not_wavefront_visit, given("bkgdtarg"), is_not_time_series),
        (*_OPTICS, _TYPE, _VISIT, Key("bkgdtarg")),
        **_OPTIONS_OF_AUXILIARIES,
        acquisition_keys=_OPTICS_TARGET,
    ),
    _rule(
        "Asn_Lv3ImageMosaic",
        "image3",
        _IMAGES,
        (is_not_wavefront_visit, _NOT_BACKGROUND, is_not_time_series),
        (*_OPTICS, _TYPE, _VISIT),
        ways=(Way(_anything),),
        candidates=("mosaic",),
        acquisition_keys=_OPTICS,
    ),
    _rule(
        "Asn_Lv3MIRCoron",
        "coron3",
        "mir_lyot mir_4qpm",
        (_NOT_BACKGROUND,),
        (*_OPTICS, _TYPE),
        **_OPTIONS_OF_STARS,
        acquisition_keys=_OPTICS,
    ),
    _rule("Asn_Lv3MIRMRS", "spec3", "mir_mrs", (is_not_time_series,), product="target", acquisition_keys=(_TARGET,)),
    _rule(
        "Asn_Lv3MIRMRSBackground",
        "spec3",
        "mir_mrs",
        (is_not_time_series, _BACKGROUND),
        ways=(Way(_anything, keys=(_TARGET,)),),
        role=auxiliary_role,
        product="target",
    ),
    _rule(
        "Asn_Lv3NRCCoron",
        "coron3",
        "nrc_coron",
        (_NOT_BACKGROUND, nircam_occulted),
        _OPTICS,
        **_OPTIONS_OF_STARS,
        acquisition_keys=_OPTICS,
    ),
    _rule(
        "Asn_Lv3NRCCoronImage",
        "image3",
        "nrc_coron",
        (
            _NOT_BACKGROUND,
            not_(among("is_psf", "t")),
            among("channel", "short"),
            among("subarray", "full"),
        ),
        _OPTICS,
        ways=_WAYS_OF_STARS,
        rates=True,
        product="coronagraphic image",
        acquisition_keys=_OPTICS,
    ),
    _rule(
        "Asn_Lv3NRSFSS",
        "spec3",
        "nrs_autoflat nrs_autowave nrs_fixedslit",
        (is_not_time_series, fixed_slit_path),
        _OPTICS,
        product="slit",
    ),
    _rule(
        "Asn_Lv3NRSIFU",
        "spec3",
        "nrs_autowave nrs_ifu",
        (ifu_path, is_not_time_series),
        (Key("patttype"), _GRATING),
        acquisition_keys=(_TARGET,),
    ),
    _rule(
        "Asn_Lv3NRSIFUBackground",
        "spec3",
        "nrs_ifu",
        (is_not_time_series, _BACKGROUND, ifu_path),
        (_GRATING,),
        **_OPTIONS_OF_AUXILIARIES,
    ),
    _rule(
        "Asn_Lv3SlitlessSpectral",
        "spec3",
        "nis_soss",
        (is_not_time_series, absent("patttype")),
        _OPTICS,
        acquisition_keys=_OPTICS_TARGET,
    ),
    _rule(
        "Asn_Lv3SpecAux",
        "spec3",
        "mir_lrs-fixedslit nrs_fixedslit",
        (is_not_time_series, _BACKGROUND),
        (_TYPE, *_OPTICS),
        **_OPTIONS_OF_AUXILIARIES,
    ),
    _rule(
        "Asn_Lv3SpectralSource",
        "spec3",
        "nrs_autoflat nrs_autowave nrs_msaspec",
        (is_not_time_series, any_of(not_(among("exp_type", "nrs_msaspec")), given("msametfl"))),
        _OPTICS,
        product="source",
        acquisition_keys=_OPTICS_TARGET,
    ),
    _rule(
        "Asn_Lv3SpectralTarget",
        "spec3",
        "mir_lrs-fixedslit nis_soss",
        (is_not_time_series, among("patttype", "2-point-nod", "4-point-nod", "along-slit-nod")),
        (*_OPTICS, Key("patttype")),
        several=False,
        closing=("slit_backgrounds",),
        acquisition_keys=_OPTICS_TARGET,
    ),
    _rule(
        "Asn_Lv3TSO",
        "tso3",
        None,
        (
            is_time_series,
            not_(among("exp_type", "mir_mrs", "mir_flatmrs", "nrs_autowave", "nrs_ifu")),
            not_(
                all_of(
                    among("exp_type", "nrc_tsgrism"),
                    any_of(among("pupil", "clear", "gdhs0", "gdhs60"), among("detector", "nrcblong")),
                )
            ),
            not_(among("subarray", "sub260stripe4_dhs", "sub41stripe1_dhs", "sub82stripe2_dhs", "sub164stripe4_dhs")),
            not_(all_of(among("exp_type", "nis_soss"), among("nints", "1"))),
            soss_calibrated,
            any_of(not_(among("exp_type", "nrs_brightobj")), fixed_slit_path),
        ),
        (*_OPTICS, _TYPE),
        candidates=("observation",),
        acquisition_keys=(_TARGET, *_OPTICS),
    ),
    _rule(
        "Asn_Lv3WFSCMB",
        "wfs-image3",
        _IMAGES,
        (among("patttype", "wfsc"), not_(is_jitter)),
        (*_OPTICS, _TYPE, Key("detector"), Key("obs_id"), Key("act_id")),
        not_candidates=("group",),
        pair=True,
        product="wavefront",
        acquisition_keys=_OPTICS_TARGET,
    ),
    _rule(
        "Asn_Lv3WFSSMIR",
        "spec3",
        "mir_wfss",
        (among("filter", "p750l"),),
        (Key("opt_elem", ("filter",)),),
        acquisition_keys=(_TARGET,),
    ),
    _rule(
        "Asn_Lv3WFSSNIS",
        "spec3",
        "nis_wfss",
        (among("filter", "gr150r", "gr150c"),),
        (Key("opt_elem", ("filter",)), Key("opt_elem2", ("pupil",))),
        acquisition_keys=(_TARGET,),
    ),
    _rule(
        "Asn_Lv3WFSSNRC",
        "spec3",
        "nrc_wfss",
        (among("pupil", "grismr", "grismc"),),
        (Key("opt_elem", ("pupil",)), Key("opt_elem2", ("filter",))),
        acquisition_keys=(_TARGET,),
    ),
)
"""The rules, in the order of their names."""
