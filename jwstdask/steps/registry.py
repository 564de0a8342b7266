"""Every step by its jwst alias; modules are imported when a step is first asked for."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from jwstdask.core.errors import ParameterError
from jwstdask.core.params import suggest
from jwstdask.core.step import Step

_FOLDERS: dict[str, dict[str, str]] = {
    "detector": {
        "charge_migration": "ChargeMigrationStep",
        "clean_flicker_noise": "CleanFlickerNoiseStep",
        "dark_current": "DarkCurrentStep",
        "dq_init": "DQInitStep",
        "emicorr": "EmiCorrStep",
        "firstframe": "FirstFrameStep",
        "gain_scale": "GainScaleStep",
        "group_scale": "GroupScaleStep",
        "guider_cds": "GuiderCdsStep",
        "ipc": "IPCStep",
        "jump": "JumpStep",
        "lastframe": "LastFrameStep",
        "linearity": "LinearityStep",
        "persistence": "PersistenceStep",
        "picture_frame": "PictureFrameStep",
        "ramp_fit": "RampFitStep",
        "refpix": "RefPixStep",
        "reset": "ResetStep",
        "rscd": "RscdStep",
        "saturation": "SaturationStep",
        "superbias": "SuperBiasStep",
    },
    "imaging": {
        "assign_wcs": "AssignWcsStep",
        "bkg_subtract": "BackgroundStep",
        "flat_field": "FlatFieldStep",
        "photom": "PhotomStep",
        "resample": "ResampleStep",
    },
    "combine": {
        "assign_mtwcs": "AssignMTWcsStep",
        "outlier_detection": "OutlierDetectionStep",
        "skymatch": "SkyMatchStep",
        "source_catalog": "SourceCatalogStep",
        "tweakreg": "TweakRegStep",
    },
}

CLASSES: dict[str, str] = {alias: name for folder in _FOLDERS.values() for alias, name in folder.items()}
"""Alias to jwst's class name."""

_MODULES = {alias: f"jwstdask.steps.{folder}.{alias}" for folder, steps in _FOLDERS.items() for alias in steps}


@cache
def step_class(name: str) -> type[Step]:
    """The step called ``name``: an alias (``jump``) or jwst's class name, dotted or not (``jwst.step.JumpStep``).

    Raises
    ------
    ParameterError
        If there is no such step, with the nearest right name.
    """
    short = name.rsplit(".", 1)[-1]
    by_class = {class_name: alias for alias, class_name in CLASSES.items()}
    alias = by_class.get(short, short)
    if alias not in CLASSES:
        raise ParameterError(f"There is no step {name!r}", suggest(short, [*CLASSES, *by_class]))
    return getattr(import_module(_MODULES[alias]), CLASSES[alias])
