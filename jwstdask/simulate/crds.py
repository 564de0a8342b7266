"""Writing of a CRDS cache: configuration, context, instrument maps and reference maps in their real grammar."""

from __future__ import annotations

import hashlib
import pprint
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DATE = ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")
"""Second half of every reference map's key: the date that UseAfter compares."""

USEAFTER = "2022-04-01 00:00:00"
"""Date from which the synthetic references are valid."""

INSTRUMENTS = ("FGS", "MIRI", "NIRCAM", "NIRISS", "NIRSPEC", "SYSTEM")

REFERENCE_TYPES = (
    "abvegaoffset", "apcorr", "area", "barshadow", "bkg", "camera", "chromcorr", "collimator", "cubepar", "dark",
    "dflat", "disperser", "distortion", "drizpars", "emicorr", "extract1d", "fflat", "filteroffset", "flat", "fore",
    "fpa", "fringe", "fringefreq", "gain", "ifufore", "ifupost", "ifuslicer", "ipc", "lastframe", "linearity", "mask",
    "mrsptcorr", "mrsxartcorr", "msa", "msaoper", "nrm", "ote", "pastasoss", "pathloss", "persat", "photom",
    "pictureframe", "psf", "psfmask", "readnoise", "refpix", "regions", "reset", "resol", "rscd", "saturation", "sflat",
    "sirskernel", "speckernel", "specprofile", "spectrace", "specwcs", "straymask", "superbias", "throughput",
    "trapdensity", "trappars", "tsophot", "wavecorr", "wavelengthrange", "wavemap", "wcsregions", "wfssbkg",
)  # fmt: skip
"""Reference types that an instrument map of the simulator lists, as a map or as ``N/A``."""

STEP_CLASSES = (
    "AdaptiveTraceModelStep", "Ami3Pipeline", "AmiAnalyzeStep", "AmiNormalizeStep", "AlignRefsStep", "AssignMTWcsStep",
    "AssignWcsStep", "BackgroundStep", "BadpixSelfcalStep", "BarShadowStep", "ChargeMigrationStep",
    "CleanFlickerNoiseStep", "Combine1dStep", "Coron3Pipeline", "CubeBuildStep", "CubeSkyMatchStep", "DarkCurrentStep",
    "DarkPipeline", "Detector1Pipeline", "DQInitStep", "EmiCorrStep", "Extract1dStep", "Extract2dStep",
    "FirstFrameStep", "FlatFieldStep", "FringeStep", "GainScaleStep", "GroupScaleStep", "GuiderCdsStep",
    "GuiderPipeline", "HlspStep", "Image2Pipeline", "Image3Pipeline", "ImprintStep", "IPCStep", "JumpStep", "KlipStep",
    "LastFrameStep", "LinearityStep", "MasterBackgroundMosStep", "MasterBackgroundStep", "MSAFlagOpenStep",
    "OutlierDetectionStep", "PathLossStep", "PersistenceStep", "PhotomStep", "PictureFrameStep", "PixelReplaceStep",
    "RampFitStep", "RefPixStep", "ResampleSpecStep", "ResampleStep", "ResetStep", "ResidualFringeStep", "RscdStep",
    "SaturationStep", "SkyMatchStep", "SourceCatalogStep", "SourceTypeStep", "Spec2Pipeline", "Spec3Pipeline",
    "SpectralLeakStep", "StackRefsStep", "StraylightStep", "SuperBiasStep", "TargCentroidStep", "TSOPhotometryStep",
    "Tso3Pipeline", "TweakRegStep", "WavecorrStep", "WfsCombineStep", "WfssContamStep", "WhiteLightStep",
)  # fmt: skip
"""Steps and pipelines of the JWST pipeline, each of which may ask for a ``pars-<class>`` reference."""


@dataclass(frozen=True)
class Rule:
    """One line of a reference map: values of the keys (strings, ``|`` joins alternatives) and the file they select.

    The file ``N/A`` says that there is none to use.
    """

    match: tuple[str, ...]
    file: str
    useafter: str = USEAFTER


@dataclass(frozen=True)
class ReferenceMap:
    """A reference type of an instrument: keys and rules.

    ``generic`` makes the value GENERIC of META.SUBARRAY.NAME match every subarray, as in the real maps.
    """

    reftype: str
    keys: tuple[str, ...]
    rules: tuple[Rule, ...]
    generic: bool = False


def sha1(text: str) -> str:
    """Checksum of a mapping: SHA-1 of its text without the lines that name it."""
    lines = [line for line in text.splitlines(keepends=True) if "sha1sum" not in line]
    return hashlib.sha1("".join(lines).encode()).hexdigest()


def _header(items: Mapping[str, object]) -> str:
    lines = ["header = {"]
    lines += [f"    {key!r} : {value!r}," for key, value in sorted(items.items())]
    return "\n".join(lines) + "\n}\n\n"


def _signed(header: Mapping[str, object], selector: str) -> str:
    text = _header({**header, "sha1sum": "0" * 40}) + selector
    return text.replace("0" * 40, sha1(text), 1)


def _dictionary_selector(items: Mapping[str, str]) -> str:
    return "selector = {\n" + "".join(f"    {key!r} : {value!r},\n" for key, value in sorted(items.items())) + "}\n"


def rmap_text(name: str, instrument: str, reference_map: ReferenceMap) -> str:
    """Text of a reference map."""
    header: dict[str, object] = {
        "classes": ("Match", "UseAfter"),
        "derived_from": "generated",
        "file_ext": Path(reference_map.rules[0].file).suffix,
        "filekind": reference_map.reftype.upper(),
        "instrument": instrument.upper(),
        "mapping": "REFERENCE",
        "name": name,
        "observatory": "JWST",
        "parkey": (reference_map.keys, DATE),
    }
    if reference_map.generic:
        header["substitutions"] = {"META.SUBARRAY.NAME": {"GENERIC": "N/A"}}
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for rule in reference_map.rules:
        groups.setdefault(rule.match, {})[rule.useafter] = rule.file
    lines = ["selector = Match({"]
    for match, files in sorted(groups.items()):
        key = repr(match[0]) if len(match) == 1 else repr(match)
        if set(files.values()) == {"N/A"}:
            lines.append(f"    {key} : 'N/A',")
            continue
        lines.append(f"    {key} : UseAfter({{")
        lines += [f"        {date!r} : {file!r}," for date, file in sorted(files.items())]
        lines.append("    }),")
    return _signed(header, "\n".join(lines) + "\n})\n")


def write_cache(path: Path, context: str, maps: Mapping[str, Sequence[ReferenceMap]], serial: int = 1) -> None:
    """Write configuration and mappings of a cache (the references themselves are written by their makers).

    Parameters
    ----------
    path
        The folder that CRDS_PATH will name.
    context
        Name of the pipeline map, e.g. ``"jwst_9999.pmap"``.
    maps
        For every instrument in use its reference maps.
    serial
        Number in the names of instrument and reference maps. CRDS keeps mappings in memory by name: caches that one
        process uses in turn need different numbers.
    """
    config, mappings = path / "config" / "jwst", path / "mappings" / "jwst"
    config.mkdir(parents=True, exist_ok=True)
    mappings.mkdir(parents=True, exist_ok=True)
    server = {
        "bad_files_list": [],
        "connected": False,
        "edit_context": context,
        "effective_mode": "local",
        "force_remote_mode": False,
        "last_synced": "2023-01-01 00:00:00",
        "observatory": "jwst",
        "operational_context": context,
    }
    (config / "server_config").write_text(pprint.pformat(server) + "\n")
    (config / "bad_files.txt").write_text("")
    (config / "ref_cache_subdir_mode").write_text("instrument\n")
    imaps: dict[str, str] = dict.fromkeys(INSTRUMENTS, "N/A")
    for instrument, reference_maps in maps.items():
        short = instrument.lower()
        types = [*REFERENCE_TYPES, *(f"pars-{name.lower()}" for name in STEP_CLASSES)]
        entries = {reftype.upper(): "N/A" for reftype in types}
        for reference_map in reference_maps:
            name = f"jwst_{short}_{reference_map.reftype}_{serial:04d}.rmap"
            (mappings / name).write_text(rmap_text(name, instrument, reference_map))
            entries[reference_map.reftype.upper()] = name
        imap = f"jwst_{short}_{serial:04d}.imap"
        header = {
            "derived_from": "generated", "instrument": instrument.upper(), "mapping": "INSTRUMENT", "name": imap,
            "observatory": "JWST", "parkey": ("REFTYPE",),
        }  # fmt: skip
        (mappings / imap).write_text(_signed(header, _dictionary_selector(entries)))
        imaps[instrument.upper()] = imap
    header = {
        "derived_from": "generated", "description": "Synthetic references with known truth", "mapping": "PIPELINE",
        "name": context, "observatory": "JWST", "parkey": ("META.INSTRUMENT.NAME",),
    }  # fmt: skip
    (mappings / context).write_text(_signed(header, _dictionary_selector(imaps)))
