"""Light of a target in the integrations of a time series of spectra: NIRSpec's bright objects, grisms of NIRCam.

The spectrum is summed in the aperture of the extract1d reference, or fitted with the image of a point source of the psf
reference, and summed over all wavelengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jwstdask.core import dq as flags
from jwstdask.core.errors import StepError
from jwstdask.core.step import Meta
from jwstdask.kernels import extract_1d as kernels
from jwstdask.kernels.errors import CleaningError
from jwstdask.kernels.extract_1d import Box, PointSpread
from jwstdask.refs.parameters import crds_parameters_disabled, with_parameters
from jwstdask.refs.reference import Reference
from jwstdask.refs.stripes import stripe_rows
from jwstdask.wcs.errors import NoSlitError

SLIT = "NRS_BRIGHTOBJ"
GRISM = "NRC_TSGRISM"
EXTRACTION = "pars-extract1dstep"
"""Parameters of the extraction."""

_GRISM_HEIGHT, _GRISM_ROW = 64, 34
"""Rows that are cut out of exposures with a grism, and the one with the source."""
_STEP = "clean_flicker_noise"
_REMEDY = "set background_method to median or model, or use a context that has them"


def references_for(meta: Meta) -> tuple[str, ...]:
    """Reference types that :func:`spectral_fluxes` needs."""
    if meta.get("meta.exposure.type") == SLIT:
        from jwstdask.wcs.nirspec import SLIT_REFERENCES

        types = (*SLIT_REFERENCES, "extract1d", "apcorr", "psf")
    else:
        types = ("specwcs", "wavelengthrange", "extract1d", "psf", *(("regions",) if _in_stripes(meta) else ()))
    return types if crds_parameters_disabled() else (*types, EXTRACTION)


def _in_stripes(meta: Meta) -> bool:
    return "DHS" in str(meta.get("meta.subarray.name")).upper()


@dataclass(frozen=True)
class Extraction:
    """Parameters of the extraction: those of jwst's extract_1d that the light of a point source depends on."""

    skip: bool = False
    subtract_background: bool | None = None
    apply_apcorr: bool = True
    extraction_type: str | None = "box"
    use_source_posn: bool | None = None
    position_offset: float = 0.0
    smoothing_length: int | None = None
    bkg_fit: str | None = None
    bkg_order: int | None = None
    optimize_psf_location: bool = True


@dataclass(frozen=True)
class Aperture:
    """What is done with the pixels of a cutout.

    Attributes
    ----------
    box
        That they are summed in, before it is moved to the source.
    follows_source
        Whether it is.
    bkg_fit
        How the background is fitted; None for none.
    bkg_order, smoothing_length
        Of the fit.
    subtracts
        Whether a background belongs to the fit of a profile.
    """

    box: Box
    follows_source: bool = False
    bkg_fit: str | None = None
    bkg_order: int = 0
    smoothing_length: int = 0
    subtracts: bool = False


def aperture_of(
    reference: Mapping[str, Any] | None,
    name: str,
    order: int,
    shape: tuple[int, int],
    parameters: Extraction,
    follows_source: bool,
) -> Aperture:
    """The aperture of a slit.

    Parameters
    ----------
    reference
        Content of the extract1d reference; None for one without.
    name
        Of the slit.
    order
        Of the spectrum.
    shape
        Of the cutout.
    parameters
        Of the extraction.
    follows_source
        Whether apertures that do not say so are moved to the source.

    Raises
    ------
    CleaningError
        If the reference has none.
    """
    whole = Box((0, shape[0] - 1), (0, shape[1] - 1))
    if reference is None:
        return Aperture(whole)
    chosen = next((row for row in reference["apertures"] if _is_for(row, name, order)), None)
    if chosen is None:
        raise CleaningError(f"the extract1d reference has no aperture for {name}, order {order}")
    background = _limits(chosen, "bkg_coeff")
    subtract = parameters.subtract_background
    if subtract is None:
        subtract = background is not None
    fit, degree = parameters.bkg_fit, parameters.bkg_order
    if fit is None:
        fit = chosen.get("bkg_fit", "poly")
    elif fit == "mean":
        fit, degree = "poly", 0
    follows = parameters.use_source_posn
    if follows is None:
        follows = chosen.get("use_source_posn")
    smoothing = parameters.smoothing_length
    box = Box(
        rows=(chosen.get("ystart", whole.rows[0]), chosen.get("ystop", whole.rows[1])),
        columns=(chosen.get("xstart", whole.columns[0]), chosen.get("xstop", whole.columns[1])),
        limits=_limits(chosen, "src_coeff"),
        width=chosen.get("extract_width"),
        background_limits=background if subtract else None,
        by_wavelength=chosen.get("independent_var", "pixel").lower().startswith("wavelength"),
    )
    return Aperture(
        box,
        follows_source if follows is None else follows,
        fit if box.background_limits is not None else None,
        chosen.get("bkg_order", 0) if degree is None else degree,
        _odd(chosen.get("smoothing_length", 0) if smoothing is None else smoothing),
        bool(subtract),
    )


def _is_for(row: Mapping[str, Any], name: str, order: int) -> bool:
    return (
        row.get("id", "dummy") in (name, "ANY")
        and row.get("region_type", "target") == "target"
        and row.get("spectral_order", order) in (order, "ANY")
    )


def _limits(row: Mapping[str, Any], name: str) -> kernels.Limits | None:
    polynomials = row.get(name)
    if polynomials is None:
        return None
    if len(polynomials) % 2:
        raise CleaningError(f"{name} of the extract1d reference has a lower limit without an upper one")
    return tuple(zip(polynomials[::2], polynomials[1::2], strict=True))


def _odd(length: float) -> int:
    """Smoothing length as it is used: odd, 0 for less than 3."""
    whole = int(np.round(length))
    return 0 if whole < 3 else whole - (whole % 2 == 0)


def spectral_fluxes(
    meta: Meta,
    references: Mapping[str, Reference | None],
    rates: np.ndarray,
    dq: np.ndarray,
    variances: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Light of the target in each integration, float64 (integration,).

    Parameters
    ----------
    meta
        Metadata of the exposure.
    references
        Those of :func:`references_for`.
    rates
        float32 (integration, y, x).
    dq
        Their flags.
    variances
        Of the same shape: what is NaN there is not used.

    Raises
    ------
    CleaningError
        If there is no spectrum.
    StepError
        If a reference is missing, or asks for what is not available.
    """
    name = str(meta.get("meta.filename") or "exposure")
    parameters = with_parameters(Extraction(), references.get(EXTRACTION))
    if parameters.skip:
        raise CleaningError("extract_1d is skipped, which finds the light to scale the median image with")
    of_slit = meta.get("meta.exposure.type") == SLIT
    optional = {"extract1d", "apcorr", "psf", EXTRACTION} | (set() if of_slit else {"specwcs"})
    missing = sorted(kind for kind in references_for(meta) if references.get(kind) is None and kind not in optional)
    if missing:
        raise StepError(name, _STEP, f"no {', '.join(missing)} reference for {meta['meta.exposure.type']}", _REMEDY)
    extract1d = references.get("extract1d")
    apertures = None if extract1d is None else extract1d.json
    invalid = np.isnan(rates) | ((dq & np.uint32(flags.DO_NOT_USE)) != 0)
    for variance in variances:
        invalid |= np.isnan(variance)
    try:
        if of_slit:
            return _of_slit(meta, references, parameters, apertures, rates, invalid, variances)
        return _of_grism(meta, references, parameters, apertures, rates, invalid)
    except (NoSlitError, ValueError) as error:
        raise CleaningError(str(error)) from error
    except KeyError as error:
        raise StepError(name, _STEP, f"{error.args[0]} is missing", "correct the exposure or the reference") from error


def _of_slit(
    meta: Meta,
    references: Mapping[str, Reference | None],
    parameters: Extraction,
    apertures: Mapping[str, Any] | None,
    rates: np.ndarray,
    invalid: np.ndarray,
    variances: Sequence[np.ndarray],
) -> np.ndarray:
    from jwstdask.wcs import nirspec, nirspec_traces

    trees = {kind: item.asdf for kind, item in references.items() if item is not None and item.kind == "asdf"}
    optics = nirspec.Optics(meta, trees)
    if nirspec.ends_at_msa(meta):
        raise CleaningError("light of a lamp has no target")
    (slit,) = nirspec_traces.on_detector(optics, nirspec.fixed_slits(meta))
    cutout = nirspec_traces.Cutout(optics, slit, (rates.shape[-2], rates.shape[-1]))
    aperture = aperture_of(apertures, slit.name, optics.order, cutout.shape, parameters, True)
    box = aperture.box
    if aperture.follows_source:
        found = cutout.trace(cutout.source())
        if found is not None:
            column, row, trace = found
            box = box.moved(row - kernels.center_of(box.weights(cutout.wavelengths), column))
            box = replace(box, trace=trace)
    part = (..., cutout.rows, cutout.columns)
    box = box.moved(parameters.position_offset)
    psf, by_profile = references.get("psf"), False
    if psf is not None and apertures is not None:
        by_profile = parameters.extraction_type == "optimal" or (
            parameters.extraction_type is None and aperture.follows_source
        )
    table = references.get("apcorr") if parameters.apply_apcorr else None
    if psf is not None and parameters.extraction_type == "optimal":
        table = None
    row_of_table = None if table is None else _correction(table, meta, slit.name)

    def corrected(weights: np.ndarray, wavelengths: np.ndarray, pixels: np.ndarray) -> np.ndarray | float:
        if row_of_table is None or table is None:
            return 1.0
        sizes = row_of_table["size"]
        unit = str(table.layout.header("APCORR").get("SIZEUNIT", ""))
        if unit.startswith("arcsec"):
            y, x = (float(np.average(index, weights=weights)) for index in np.indices(weights.shape))
            sizes = sizes / cutout.row_scale(y, x, float(np.median(wavelengths)))
        names = ("wavelength", "pixphase", "apcorr")
        grid, phases, factors = (row_of_table[name] for name in names)
        return kernels.aperture_correction(wavelengths, pixels, grid, sizes, phases, factors)

    profile = None
    if by_profile:
        assert psf is not None
        spread, wavelengths = point_spread(psf, slit.name), cutout.wavelengths
        trace = cutout.middle_trace() if box.trace is None else box.trace
        shift = 0.0
        if parameters.optimize_psf_location:
            noise = variances[-1][0] if variances else np.zeros_like(rates[0])
            first = (np.where(invalid[0], np.float32(np.nan), image)[part] for image in (rates[0], noise))
            shift = spread.shift(*first, wavelengths, trace)
        profile = spread.profile(wavelengths, trace, shift)
    aperture = replace(aperture, box=box)
    return _sums(rates[part], invalid[part], aperture, cutout.wavelengths, corrected, profile)


def point_spread(reference: Reference, slit: str) -> PointSpread:
    """The image of a point source in a slit."""
    primary = reference.header()
    versions = [hdu.version for hdu in reference.layout.hdus if hdu.name == "PSF"]
    for version in versions:
        header = reference.header("PSF", version)
        name = str(header.get("APERTURE", primary.get("APERTURE", "ANY"))).upper()
        if name in (slit.upper(), "ANY", "NONE"):
            center, oversampling = (float(header.get(key, primary.get(key))) for key in ("CENTROW", "SUBPIX"))
            image, wavelengths = (np.asarray(reference.array(key, version), np.float64) for key in ("psf", "wave"))
            return PointSpread(image, wavelengths, center, oversampling)
    raise CleaningError(f"the psf reference has no image for {slit}")


def _correction(table: Reference, meta: Meta, slit: str) -> np.void:
    """The row of an apcorr reference."""
    rows = table.table("APCORR")
    wanted = {
        "filter": meta.get("meta.instrument.filter"),
        "grating": meta.get("meta.instrument.grating"),
        "slit": slit,
    }
    for name, value in wanted.items():
        rows = rows[[_text(own).upper() == str(value).upper() for own in rows[name]]]
    if len(rows) != 1:
        raise CleaningError(f"the apcorr reference has {len(rows)} rows for {', '.join(map(str, wanted.values()))}")
    return rows[0]


def _text(value: Any) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()


def _of_grism(
    meta: Meta,
    references: Mapping[str, Reference | None],
    parameters: Extraction,
    apertures: Mapping[str, Any] | None,
    rates: np.ndarray,
    invalid: np.ndarray,
) -> np.ndarray:
    in_stripes = _in_stripes(meta)
    pupil = str(meta.get("meta.instrument.pupil"))
    if meta.get("meta.instrument.module") != "A" or not ("GRISMR" in pupil or (in_stripes and pupil == "GDHS0")):
        raise CleaningError("time series are taken with GRISMR or GDHS0 of module A")
    x, y = (meta.get(f"meta.wcsinfo.siaf_{axis}ref_sci") for axis in "xy")
    if x is None or y is None:
        raise CleaningError("keywords XREF_SCI and YREF_SCI, which say where the source is, are missing")
    wavelengthrange = references["wavelengthrange"]
    assert wavelengthrange is not None
    filter_ = meta.get("meta.instrument.filter")
    orders = [row[1] for row in wavelengthrange.asdf["extract_orders"] if row[0] == filter_]
    if not orders or len(orders[-1]) != 1:
        raise CleaningError(f"the wavelengthrange reference does not have one order to extract for {filter_}")
    order = int(orders[-1][0])
    if order == 0:
        raise CleaningError("the spectrum of order 0 is an image")
    ny, nx = rates.shape[-2:]
    place = Stripe(GRISM, _grism_rows(float(y), int(meta["meta.subarray.ysize"])), slice(0, nx), float(x), float(y))
    if in_stripes:
        place = _stripe(meta, references, (ny, nx), float(x), float(y))
        # As in jwst only the target of a point source may be followed.
        if parameters.use_source_posn is None and meta.get("meta.target.source_type") != "POINT":
            parameters = replace(parameters, use_source_posn=False)
    part = (..., place.rows, place.columns)
    shape = len(range(*place.rows.indices(ny))), len(range(*place.columns.indices(nx)))
    aperture = aperture_of(apertures, place.name, order, shape, parameters, False)
    if aperture.follows_source:
        raise CleaningError("the aperture of a grism cannot follow the source")
    if parameters.extraction_type == "optimal" and references.get("psf") is not None and apertures is not None:
        # jwst fails, too: it asks for the middle of a slit.
        raise CleaningError("spectra of a grism cannot be extracted by extraction_type=optimal")
    aperture = replace(aperture, box=aperture.box.moved(parameters.position_offset))
    wavelengths = np.zeros(shape, np.float32)
    if aperture.box.by_wavelength:
        start = place.start
        if start is None:
            start = (meta.get("meta.subarray.xstart") or 1) - 1
        columns = np.arange(nx)[place.columns] + float(start)
        wavelengths[:] = _grism_wavelengths(meta, references, columns, place, order)
    if place.lit is not None:
        wavelengths[~place.lit] = np.nan
    return _sums(rates[part], invalid[part], aperture, wavelengths)


@dataclass(frozen=True)
class Stripe:
    """Where the spectrum of a grism is.

    Attributes
    ----------
    name
        By which its aperture is found.
    rows, columns
        Of the cutout.
    x, y
        Of the source, in the full frame.
    start
        Column of the full frame where the exposure begins, as the dispersion counts; None for that of the subarray.
    number
        Which of several dispersions.
    lit
        Pixels of the cutout that the grism lights, bool (y, x); None for all.
    """

    name: str
    rows: slice
    columns: slice
    x: float
    y: float
    start: int | None = None
    number: int | None = None
    lit: np.ndarray | None = None


def _stripe(
    meta: Meta, references: Mapping[str, Reference | None], shape: tuple[int, int], x: float, y: float
) -> Stripe:
    """The only stripe of a DHS readout."""
    several = CleaningError("the median image is scaled with one spectrum, and each stripe has one")
    reference = references["regions"]
    assert reference is not None
    every = np.asarray(reference.array("regions"))
    labels = every
    if every.shape != shape:
        left = int(meta["meta.subarray.xstart"]) - 1
        labels = every[stripe_rows(meta), left : left + shape[1]]
    if "LONG" in str(meta.get("meta.instrument.detector")).upper():
        if int(str(meta["meta.subarray.name"]).upper().split("STRIPE")[1][0]) != 1:
            raise several
        # All stripes are reads of the same rows: those of the first one, after the reference rows.
        first, number = (int(meta[f"meta.subarray.multistripe_reads{k}"]) for k in (1, 2))
        if int(meta["meta.subarray.slowaxis"]) < 0:
            first = shape[0] - first - number
        rows, columns = slice(first, first + number), slice(0, shape[1])
        return Stripe("1", rows, columns, x - 1, y - 1, 0, None, labels[rows, columns] == 1)
    specwcs = references.get("specwcs")
    if specwcs is None:
        raise KeyError("the specwcs reference")
    known = {stripe for stripe, here in zip(specwcs.asdf["stripes"], _of_field_point(meta, specwcs)) if here}
    found = sorted(known & {int(label) for label in np.unique(labels)})
    if not found:
        raise CleaningError("the regions and specwcs references have no stripe in common")
    if len(found) > 1:
        raise several
    lit = labels == found[0]
    rows, columns = (slice(int(k.min()), int(k.max()) + 1) for k in np.nonzero(lit))
    start = int(np.nonzero(every == found[0])[1].min())
    return Stripe(str(found[0]), rows, columns, 0.0, 0.0, start, 0, lit[rows, columns])


def _of_field_point(meta: Meta, specwcs: Reference) -> list[bool]:
    """Which dispersions are those of the exposure's field point."""
    name = str(meta.get("meta.aperture.pps_name"))
    return [point in name for point in specwcs.asdf["fieldpoints"]]


def _grism_rows(reference: float, ysize: int) -> slice:
    """Rows of the cutout: the first ones.

    The row with the source is worked out as jwst does: by rounding, a fractional place may lose the last row.
    """
    y = reference - 1
    center = y - (y - _GRISM_ROW)
    first, last = max(center - _GRISM_ROW, 0), min(center + _GRISM_HEIGHT - _GRISM_ROW - 1, ysize)
    return slice(int(first), int(last) + 1)


def _grism_wavelengths(
    meta: Meta, references: Mapping[str, Reference | None], columns: np.ndarray, place: Stripe, order: int
) -> np.ndarray:
    """Of columns of the full frame [um]."""
    from astropy.constants import c as light_speed
    from stdatamodels.jwst.transforms.models import NIRCAMForwardRowGrismDispersion

    specwcs = references.get("specwcs")
    if specwcs is None:
        raise KeyError("the specwcs reference")
    tree = specwcs.asdf
    models = {"lmodels": tree["displ"], "xmodels": tree["dispx"], "ymodels": tree["dispy"]}
    inverse = {f"inv_{axis}models": tree.get(f"invdisp{axis}") for axis in "lx"}
    if place.number is not None:
        here = _of_field_point(meta, specwcs)
        models = {
            name: [own for own, is_here in zip(every, here, strict=True) if is_here][place.number]
            for name, every in models.items()
        }
    if place.lit is not None:
        inverse = {}
    model = NIRCAMForwardRowGrismDispersion(tree["orders"], **models, **inverse)
    arguments = [np.full(columns.shape, value) for value in (0.0, place.x, place.y, float(order))]
    wavelengths = model.evaluate(columns, *arguments)[2]
    velocity = meta.get("meta.wcsinfo.velosys")
    return wavelengths if velocity is None else wavelengths / (1 + velocity / light_speed.value)


def _whole(order: float) -> int:
    if order < 0 or order != int(order):
        raise CleaningError(f"a background cannot be fitted by a polynomial of order {order}")
    return int(order)


def _sums(
    rates: np.ndarray,
    invalid: np.ndarray,
    aperture: Aperture,
    wavelengths: np.ndarray,
    corrected: Any = None,
    profile: np.ndarray | None = None,
) -> np.ndarray:
    """Sum over the spectrum of each integration, in the box or, where it is given, by a profile."""
    weights = aperture.box.weights(wavelengths) if profile is None else profile
    weights[~np.isfinite(wavelengths)] = 0.0
    background = aperture.box.background_weights(wavelengths, aperture.bkg_fit != "median")
    means = kernels.mean_wavelengths(wavelengths, weights)
    valid = np.isfinite(means)
    if not valid.any():
        raise CleaningError("no pixel of the spectrum has a wavelength")
    factor: np.ndarray | float | None = None
    fluxes = np.empty(len(rates))
    for integration, values in enumerate(rates):
        image = np.where(invalid[integration], np.float32(np.nan), values)
        level = None
        if profile is None and background is not None and aperture.bkg_fit is not None:
            arguments = aperture.bkg_fit, aperture.bkg_order, aperture.smoothing_length
            level = kernels.fit_background(image, background, *arguments)
        if profile is None:
            flux, pixels = kernels.box_spectrum(image, weights, level)
        else:
            order = _whole(aperture.bkg_order) if aperture.subtracts else -1
            flux, pixels, _ = kernels.profile_spectrum(image, weights, ~invalid[integration], background, order)
        if factor is None:
            # As in jwst the pixels of the first integration count for all.
            factor = 1.0 if corrected is None else corrected(weights, means[valid], pixels[valid])
        fluxes[integration] = np.nansum(flux[valid] * factor)
    return fluxes
