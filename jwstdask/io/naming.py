"""Names of exposures and products.

The rules are those of the archive's documentation (jwst-docs: "File naming conventions") and of `jwst`:
an exposure product is ``jw<ppppp><ooo><vvv>_<gg><s><aa>_<eeeee>[-seg<NNN>]_<detector>_<suffix>.fits``, a source product
``jw<ppppp>-<candidate>_<target or source>[-epoch<X>]_<instrument>_<optical elements>[-<subarray>]_<suffix>.fits``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from jwstdask.core.errors import ProductError

_PRODUCTS = """
ami ami-oi aminorm aminorm-oi blot bsub bsubints c1d cal calints cat crf crfints dark i2d mbsub median phot psfalign
psfstack psfsub ramp rate rateints residual_fringe s2d s3d snr uncal wfscmb whtlt x1d x1dints
"""
_STEPS = """
adaptive_trace_model align_refs ami_analyze ami_normalize assign_mtwcs assign_wcs bkg_subtract clean_flicker_noise
combine_1d cube_build dark_current dq_init emicorr engdblog extract_1d extract_2d firstframe flat_field fringe
gain_scale group_scale guider_cds hlsp imprint ipc jump klip lastframe linearity master_background outlier_detection
pathloss persistence photom picture_frame ramp_fit refpix resample resample_spec reset rscd saturation skymatch
source_catalog spec2nrslamp spectral_leak srctype stackrefs straylight superbias targ_centroid tweakreg wfscombine
white_light
"""
_CLASSES = """
adaptivetracemodelstep alignrefsstep ami3pipeline amianalyzestep aminormalizestep assignmtwcsstep assignwcsstep
backgroundstep badpixselfcalstep barshadowstep chargemigrationstep cleanflickernoisestep combine1dstep coron3pipeline
cubebuildstep darkcurrentstep darkpipeline detector1pipeline dqinitstep emicorrstep extract1dstep extract2dstep
firstframestep flatfieldstep fringestep gainscalestep groupscalestep guidercdsstep guiderpipeline hlspstep
image2pipeline image3pipeline imprintstep ipcstep jumpstep klipstep lastframestep linearitystep
masterbackgroundmosstep masterbackgroundstep msaflagopenstep outlierdetectionstep pathlossstep persistencestep
photomstep pictureframestep pixelreplacestep rampfitstep refpixstep resamplespecstep resamplestep resetstep
residualfringestep rscdstep saturationstep skymatchstep sourcecatalogstep sourcetypestep spec2pipeline spec3pipeline
spectralleakstep stackrefsstep straylightstep superbiasstep targcentroidstep tso3pipeline tsophotometrystep
tweakregstep wavecorrstep wfscombinestep wfsscontamstep whitelightstep
"""

KNOWN_SUFFIXES: frozenset[str] = frozenset((_PRODUCTS + _STEPS + _CLASSES).split())
"""The suffixes that are replaced, all others are part of the name: those of products, step aliases and class names."""

_KNOWN = re.compile(rf"(.+?)(?:([_-])({'|'.join(sorted(KNOWN_SUFFIXES))}))?$", re.DOTALL)


def split_suffix(name: str) -> tuple[str, str, str]:
    """Split a file name without extension into root, separator and known suffix.

    Returns
    -------
    tuple of str
        (root, separator, suffix). Separator ``"_"`` and suffix ``""`` where the name has no known suffix.

    Examples
    --------
    >>> split_suffix("jw01234001001_02101_00001_nrca1_uncal")
    ('jw01234001001_02101_00001_nrca1', '_', 'uncal')
    >>> split_suffix("m42_long")
    ('m42_long', '_', '')
    """
    match = _KNOWN.match(name)
    if match is None or match.group(2) is None:
        return name, "_", ""
    return match.group(1), match.group(2), match.group(3)


def remove_suffix(name: str) -> str:
    """The name without its known suffix."""
    return split_suffix(name)[0]


def exposure_stem(path: str | os.PathLike[str]) -> str:
    """Name of an exposure: the file name without folder, extension and known suffix."""
    return remove_suffix(os.path.splitext(os.path.basename(os.fspath(path)))[0])


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST = 255
"""Bytes of a file name, in all file systems that matter."""


def file_name(name: str, origin: str = "") -> str:
    """The name of a file to be written, if it can only lie in the folder that it is joined with.

    All names that come from headers, associations, parameters and records pass here before something is written.

    Parameters
    ----------
    name
        The name.
    origin
        Where it comes from, for the message.

    Raises
    ------
    ProductError
        If it is empty, leads elsewhere (separators, ``..``), holds control characters or is too long.

    Examples
    --------
    >>> file_name("jw1_cal.fits")
    'jw1_cal.fits'
    """
    if name in ("", ".", ".."):
        problem = "it is empty" if not name else "it is a folder"
    elif "/" in name or "\\" in name:
        problem = "it has a separator of folders"
    elif _CONTROL.search(name):
        problem = "it has control characters"
    elif len(os.fsencode(name)) > _LONGEST:
        problem = f"it is longer than {_LONGEST} bytes"
    else:
        return name
    shown = ascii(name if len(name) <= 80 else f"{name[:77]}...")
    raise ProductError(
        shown, f"no file can have this name{f' ({origin})' if origin else ''}: {problem}", "correct the name"
    )


def product_path(
    base: str | os.PathLike[str],
    suffix: str | None,
    output_dir: str | os.PathLike[str] | None = None,
    components: Iterable[str | int | None] = (),
    extension: str | None = None,
) -> str:
    """Path of a product made from `base`.

    Parameters
    ----------
    base
        Input file, output file or product name; only its last part counts.
    suffix
        Suffix of the product; None leaves the name as it is.
    output_dir
        Folder of the product; ``~`` and environment variables are expanded. The current folder by default.
    components
        What goes before the suffix: association id, slit, index. None is left out.
    extension
        With or without its dot; that of `base`, else ``fits``, by default.

    Returns
    -------
    str

    Raises
    ------
    ProductError
        If the parts make no name of a file in the folder; see `file_name`.

    Examples
    --------
    >>> product_path("in/jw1_cal.fits", "crf", "out", ["a3001"])
    'out/jw1_a3001_crf.fits'
    """
    name, found = os.path.splitext(os.path.basename(os.fspath(base)))
    separator = "_"
    if suffix is not None:
        name, separator, _ = split_suffix(name)
    name = "_".join([name, *(str(part) for part in components if part is not None)])
    if suffix is not None:
        name = f"{name}{separator}{suffix}"
    folder = os.path.expandvars(os.path.expanduser(os.fspath(output_dir))) if output_dir else ""
    if not name.strip("."):
        raise ProductError(ascii(os.fspath(base)), "no product can be named after this", "correct the name")
    return os.path.join(folder, file_name(f"{name}.{(extension or found or 'fits').lstrip('.')}"))


_EXPOSURE = re.compile(
    r"jw(?P<program>\d{5})(?P<observation>\d{3})(?P<visit>\d{3})"
    r"_(?P<visit_group>\d{2})(?P<sequence>\d)(?P<activity>[0-9a-z]{2})"
    r"_(?P<exposure>\d{5})(?:-seg(?P<segment>\d{3}))?"
    r"_(?P<detector>[a-z0-9]+)(?:_(?P<suffix>[\w-]+))?$",
    re.IGNORECASE,
)
_GUIDE_STAR = re.compile(
    r"jw(?P<program>\d{5})(?P<observation>\d{3})(?P<visit>\d{3})"
    r"_gs-(?P<mode>id|acq1|acq2|track|fg)_(?P<time>\d{13})(?:_(?P<suffix>[\w-]+))?$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ExposureName:
    """Parts of the name of an exposure file, as text.

    For guide-star files `visit_group` ... `detector` are empty and `guide_mode` and `time` are set.
    """

    program: str
    observation: str
    visit: str
    visit_group: str = ""
    sequence: str = ""
    activity: str = ""
    exposure: str = ""
    segment: str | None = None
    detector: str = ""
    suffix: str = ""
    guide_mode: str = ""
    time: str = ""

    @property
    def stem(self) -> str:
        """The name without suffix."""
        visit = f"jw{self.program}{self.observation}{self.visit}"
        if self.guide_mode:
            return f"{visit}_gs-{self.guide_mode}_{self.time}"
        segment = f"-seg{self.segment}" if self.segment else ""
        return f"{visit}_{self.visit_group}{self.sequence}{self.activity}_{self.exposure}{segment}_{self.detector}"

    @property
    def dither(self) -> str:
        """The same on all detectors of one exposure: the name without detector, segment and suffix."""
        visit = f"jw{self.program}{self.observation}{self.visit}"
        return f"{visit}_{self.visit_group}{self.sequence}{self.activity}_{self.exposure}"


def parse_exposure_name(path: str | os.PathLike[str]) -> ExposureName | None:
    """Parts of an exposure's file name; None where the name follows other rules.

    Examples
    --------
    >>> parse_exposure_name("jw01366002001_04101_00001-seg002_nrs1_rateints.fits").segment
    '002'
    """
    name = os.path.splitext(os.path.basename(os.fspath(path)))[0].lower()
    match = _EXPOSURE.match(name)
    if match is not None:
        parts = match.groupdict()
        parts["suffix"] = parts["suffix"] or ""
        return ExposureName(**parts)
    match = _GUIDE_STAR.match(name)
    if match is not None:
        parts = match.groupdict()
        parts["suffix"] = parts["suffix"] or ""
        parts["guide_mode"] = parts.pop("mode")
        return ExposureName(**parts)
    return None


def source_id_name(source_id: int, exp_type: str = "", slit_names: Iterable[str] = (), source_name: str = "") -> str:
    """How a source is called in the names of Stage 3 products.

    Parameters
    ----------
    source_id
        Number of the source; negative for virtual slits.
    exp_type
        EXP_TYPE.
    slit_names
        Fixed slits in which the source was observed, in order.
    source_name
        Name in the MSA metadata; a background slit has ``BKG`` in it.

    Returns
    -------
    str
        Such as ``s000000042``, ``b000000007``, ``v000000003`` or ``s000000001-s200a1-s200a2``.
    """
    number = f"{abs(int(source_id)):09d}"
    if exp_type == "NRS_MSASPEC":
        if "BKG" in source_name.upper():
            return f"b{number}"
        return f"v{number}" if source_id < 0 else f"s{number}"
    if exp_type == "NRS_FIXEDSLIT":
        return "-".join([f"s{number}", *(name.lower() for name in slit_names)])
    return f"s{number}"


def source_product_name(name: str, source: str) -> str:
    """Put the name of a source in the place that an association's product name holds for it, ``{source_id}``."""
    return name.replace("{source_id}", source)


_GRATINGS = ("g140m", "g235m", "g395m", "g140h", "g235h", "g395h", "prism")


def cube_product_name(
    name: str, instrument: str, elements: Iterable[tuple[str, str]], coordinates: str = "skyalign"
) -> str:
    """Name of a Stage 3 cube, without the suffix s3d.

    Parameters
    ----------
    name
        Product name of the association.
    instrument
        ``MIRI`` or ``NIRSPEC``; others keep `name`.
    elements
        (channel, band) pairs of MIRI, (grating, filter) pairs of NIRSpec that the cube is made of.
    coordinates
        Parameter ``coord_system``; ``internal_cal`` is marked in the name.

    Examples
    --------
    >>> cube_product_name("jw01234-o001_t001_miri", "MIRI", [("1", "SHORT"), ("2", "SHORT"), ("1", "LONG")])
    'jw01234-o001_t001_miri_ch1-2-shortlong'
    >>> cube_product_name("jw01234-o001_t001_nirspec_g140h-f100lp", "NIRSPEC", [("G140H", "F100LP")])
    'jw01234-o001_t001_nirspec_g140h-f100lp_g140h-f100lp'
    """
    pairs = list(elements)
    internal = "_internal" if coordinates == "internal_cal" else ""
    if instrument.upper() == "MIRI":
        channels = "-".join(dict.fromkeys(channel for channel, _ in pairs))
        bands = "".join(sorted({band.lower() for _, band in pairs}, reverse=True))
        return f"{name}_ch{channels}-{bands}{internal}"
    if instrument.upper() == "NIRSPEC":
        root, _, last = name.rpartition("_")
        if root and last in _GRATINGS:
            name = root
        return f"{name}_{'-'.join(f'{grating}-{filter}' for grating, filter in pairs).lower()}{internal}"
    return name
