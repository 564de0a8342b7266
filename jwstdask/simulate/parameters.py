"""Parameter references (``pars-*``): settings like those used in flight, not copies of them.

For every instrument: reference type -> (keys of its map, variants), a variant being ``match`` (values of the keys),
``parameters`` and, for pipelines, ``steps`` by alias: (class, parameters). Every EXP_TYPE in use must be matched: CRDS
logs an error where a parameter reference has no rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXP_TYPE = "META.EXPOSURE.TYPE"
TSO = "META.VISIT.TSOVISIT"

_NIRCAM: Mapping[str, tuple[tuple[str, ...], list[dict[str, Any]]]] = {
    "pars-detector1pipeline": (
        (EXP_TYPE, TSO),
        [
            {
                "match": [("ANY", "F|N/A|UNDEFINED")],
                "parameters": {"save_calibrated_ramp": False},
                "steps": {
                    "ipc": ("IPCStep", {"skip": True}),
                    "persistence": ("PersistenceStep", {"skip": True}),
                    "charge_migration": ("ChargeMigrationStep", {"skip": True}),
                    "clean_flicker_noise": ("CleanFlickerNoiseStep", {"skip": True}),
                },
            },
            {
                "match": [("ANY", "T")],
                "parameters": {"save_calibrated_ramp": False},
                "steps": {
                    "ipc": ("IPCStep", {"skip": True}),
                    "persistence": ("PersistenceStep", {"skip": True}),
                    "charge_migration": ("ChargeMigrationStep", {"skip": True}),
                    "clean_flicker_noise": ("CleanFlickerNoiseStep", {"skip": True}),
                    "jump": ("JumpStep", {"expand_large_events": False}),
                },
            },
        ],
    ),
    "pars-jumpstep": (
        (EXP_TYPE,),
        [
            {
                "match": [("ANY",)],
                "name": "jump",
                "parameters": {
                    "skip": False, "rejection_threshold": 4.0, "three_group_rejection_threshold": 6.0,
                    "four_group_rejection_threshold": 5.0, "maximum_cores": "1", "flag_4_neighbors": True,
                    "max_jump_to_flag_neighbors": 200.0, "min_jump_to_flag_neighbors": 10.0,
                    "after_jump_flag_dn1": 1000.0, "after_jump_flag_time1": 90.0, "after_jump_flag_dn2": 0.0,
                    "after_jump_flag_time2": 0.0, "expand_large_events": True, "min_sat_area": 7.5,
                    "min_jump_area": 15.0, "expand_factor": 2.0, "use_ellipses": False, "sat_required_snowball": True,
                    "min_sat_radius_extend": 2.5, "sat_expand": 2, "edge_size": 25,
                    "mask_snowball_core_next_int": True, "snowball_time_masked_next_int": 4000,
                    "find_showers": False,
                },
            }
        ],
    ),
    "pars-refpixstep": (
        (EXP_TYPE,),
        [
            {
                "match": [("ANY",)],
                "name": "refpix",
                "parameters": {"skip": False, "odd_even_columns": True, "use_side_ref_pixels": True,
                               "side_smoothing_length": 11, "side_gain": 1.0},
            }
        ],
    ),
    "pars-rampfitstep": (
        (EXP_TYPE,),
        [{"match": [("ANY",)], "name": "ramp_fit",
          "parameters": {"skip": False, "suppress_one_group": False, "maximum_cores": "1"}}],
    ),
    "pars-image2pipeline": (
        (EXP_TYPE, TSO),
        [
            {
                "match": [("NRC_IMAGE|NRC_FOCUS", "F|N/A|UNDEFINED")],
                "parameters": {"save_bsub": False},
                "steps": {"resample": ("ResampleStep", {"skip": False})},
            },
            {
                "match": [("NRC_CORON|NRC_TACQ|NRC_TACONFIRM|NRC_FLAT|NRC_LED", "F|N/A|UNDEFINED"), ("ANY", "T")],
                "parameters": {"save_bsub": False},
                "steps": {
                    "bkg_subtract": ("BackgroundStep", {"skip": True}),
                    "resample": ("ResampleStep", {"skip": True}),
                },
            },
        ],
    ),
    "pars-tweakregstep": (
        (EXP_TYPE, "META.INSTRUMENT.CHANNEL"),
        [
            {
                "match": [("ANY", "SHORT")],
                "name": "tweakreg",
                "parameters": {"skip": False, "snr_threshold": 10.0, "kernel_fwhm": 2.2, "brightest": 200,
                               "bkg_boxsize": 100, "sharplo": 0.5, "sharphi": 2.0, "roundlo": 0.0, "roundhi": 0.2,
                               "minobj": 6, "separation": 0.6, "searchrad": 1.0, "tolerance": 0.06,
                               "fitgeometry": "rshift"},
            },
            {
                "match": [("ANY", "LONG")],
                "name": "tweakreg",
                "parameters": {"skip": False, "snr_threshold": 10.0, "kernel_fwhm": 2.4, "brightest": 200,
                               "bkg_boxsize": 100, "sharplo": 0.5, "sharphi": 2.0, "roundlo": 0.0, "roundhi": 0.2,
                               "minobj": 6, "separation": 0.8, "searchrad": 1.0, "tolerance": 0.12,
                               "fitgeometry": "rshift"},
            },
        ],
    ),
    "pars-skymatchstep": (
        (EXP_TYPE,),
        [{"match": [("ANY",)], "name": "skymatch",
          "parameters": {"skip": False, "skymethod": "match", "match_down": True, "subtract": False,
                         "skystat": "mode"}}],
    ),
    "pars-outlierdetectionstep": (
        (EXP_TYPE,),
        [{"match": [("ANY",)], "name": "outlier_detection",
          "parameters": {"skip": False, "weight_type": "ivm", "snr": "5.0 4.0", "scale": "2.1 0.7", "backg": 0.0,
                         "maskpt": 0.7}}],
    ),
    "pars-resamplestep": (
        (EXP_TYPE,),
        [{"match": [("ANY",)], "name": "resample",
          "parameters": {"skip": False, "pixfrac": 1.0, "kernel": "square", "weight_type": "ivm"}}],
    ),
    "pars-sourcecatalogstep": (
        (EXP_TYPE, "META.INSTRUMENT.CHANNEL"),
        [
            {
                "match": [("ANY", "SHORT")],
                "name": "source_catalog",
                "parameters": {"skip": False, "aperture_ee1": 30, "aperture_ee2": 50, "aperture_ee3": 70,
                               "bkg_boxsize": 100, "kernel_fwhm": 2.2, "snr_threshold": 5.0, "npixels": 9,
                               "ci1_star_threshold": 2.0, "ci2_star_threshold": 1.8, "deblend": True},
            },
            {
                "match": [("ANY", "LONG")],
                "name": "source_catalog",
                "parameters": {"skip": False, "aperture_ee1": 30, "aperture_ee2": 50, "aperture_ee3": 70,
                               "bkg_boxsize": 100, "kernel_fwhm": 2.4, "snr_threshold": 5.0, "npixels": 9,
                               "ci1_star_threshold": 1.9, "ci2_star_threshold": 1.7, "deblend": True},
            },
        ],
    ),
}  # fmt: skip


def _stage1(
    steps: Mapping[str, tuple[str, Mapping[str, Any]]],
    time_series: Mapping[str, tuple[str, Mapping[str, Any]]],
    jump: Mapping[str, Any],
    **more: Mapping[str, Any],
) -> Mapping[str, tuple[tuple[str, ...], list[dict[str, Any]]]]:
    """Parameter references of Stage 1: steps of the pipeline, those of time series besides, jump, further steps."""
    always = {
        "ipc": ("IPCStep", {"skip": True}),
        "persistence": ("PersistenceStep", {"skip": True}),
        "clean_flicker_noise": ("CleanFlickerNoiseStep", {"skip": True}),
        **steps,
    }
    series = {**always, "jump": ("JumpStep", {"expand_large_events": False, "find_showers": False}), **time_series}
    thresholds = {
        "skip": False, "rejection_threshold": 4.0, "three_group_rejection_threshold": 6.0,
        "four_group_rejection_threshold": 5.0, "maximum_cores": "1", "flag_4_neighbors": True,
        "max_jump_to_flag_neighbors": 200.0, "min_jump_to_flag_neighbors": 10.0, **jump,
    }  # fmt: skip
    fit = {"skip": False, "suppress_one_group": False, "maximum_cores": "1"}
    return {
        "pars-detector1pipeline": (
            (EXP_TYPE, TSO),
            [
                {"match": [("ANY", flags)], "parameters": {"save_calibrated_ramp": False}, "steps": own}
                for flags, own in (("F|N/A|UNDEFINED", always), ("T", series))
            ],
        ),
        "pars-jumpstep": ((EXP_TYPE,), [{"match": [("ANY",)], "name": "jump", "parameters": thresholds}]),
        "pars-rampfitstep": ((EXP_TYPE,), [{"match": [("ANY",)], "name": "ramp_fit", "parameters": fit}]),
        **{
            f"pars-{alias.replace('_', '')}step": (
                (EXP_TYPE,),
                [{"match": [("ANY",)], "name": alias, "parameters": dict(parameters)}],
            )
            for alias, parameters in more.items()
        },
    }


_SNOWBALLS = {
    "expand_large_events": True, "min_sat_area": 7.5, "min_jump_area": 15.0, "expand_factor": 2.0,
    "use_ellipses": False, "sat_required_snowball": True, "min_sat_radius_extend": 2.5, "sat_expand": 2,
    "edge_size": 25, "mask_snowball_core_next_int": True, "snowball_time_masked_next_int": 4000, "find_showers": False,
    "after_jump_flag_dn1": 1000.0, "after_jump_flag_time1": 90.0, "after_jump_flag_dn2": 0.0,
    "after_jump_flag_time2": 0.0,
}  # fmt: skip

_SHOWERS = {
    "expand_large_events": False, "find_showers": True, "extend_snr_threshold": 1.2, "extend_min_area": 90,
    "extend_inner_radius": 1, "extend_outer_radius": 2.6, "extend_ellipse_expand_ratio": 1.1,
    "time_masked_after_shower": 30, "max_extended_radius": 200, "after_jump_flag_dn1": 0.0,
    "after_jump_flag_time1": 0.0, "after_jump_flag_dn2": 0.0, "after_jump_flag_time2": 0.0,
}  # fmt: skip

_REFPIX = {"skip": False, "odd_even_columns": True, "use_side_ref_pixels": True, "side_smoothing_length": 11}

_MIRI = _stage1(
    {"refpix": ("RefPixStep", {"skip": True}), "charge_migration": ("ChargeMigrationStep", {"skip": True})},
    {"rscd": ("RscdStep", {"skip": True}), "lastframe": ("LastFrameStep", {"skip": True})},
    _SHOWERS,
    emi_corr={"skip": False, "algorithm": "joint"},
)
_NIRISS = _stage1(
    {"charge_migration": ("ChargeMigrationStep", {"skip": False, "signal_threshold": 15000.0})},
    {"charge_migration": ("ChargeMigrationStep", {"skip": True})},
    _SNOWBALLS,
    refpix=_REFPIX,
)
_NIRSPEC = _stage1(
    {
        "charge_migration": ("ChargeMigrationStep", {"skip": True}),
        "picture_frame": ("PictureFrameStep", {"skip": True}),
    },
    {},
    _SNOWBALLS,
    refpix={"skip": False, "odd_even_columns": True, "ovr_corr_mitigation_ftr": 3.0},
    extract_1d={"skip": False, "extraction_type": "box", "smoothing_length": 5},
)
_FGS = _stage1({"charge_migration": ("ChargeMigrationStep", {"skip": True})}, {}, _SNOWBALLS, refpix=_REFPIX)

PARAMETERS: Mapping[str, Mapping[str, tuple[tuple[str, ...], list[dict[str, Any]]]]] = {
    "NIRCAM": _NIRCAM, "MIRI": _MIRI, "NIRISS": _NIRISS, "NIRSPEC": _NIRSPEC, "FGS": _FGS,
}  # fmt: skip
"""Parameter references of every instrument that can be simulated."""
