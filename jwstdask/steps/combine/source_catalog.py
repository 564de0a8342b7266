"""Catalogue of the sources of a combined image, and its segmentation map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import astropy.units as u
import numpy as np
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.table import QTable
from scipy import ndimage
from scipy.spatial import KDTree

from jwstdask.core.errors import ParameterError, ReferenceFileError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.io.schema import model_schema
from jwstdask.steps.combine.star_finder import background_maps, find_stars, segment

_OUTSIDE = -1000.0  # place [pixel] of a source without a centroid: its apertures miss the image
_PACKAGES = ("Python", "numpy", "scipy", "astropy", "photutils", "gwcs")
_LOCAL_BACKGROUND = (
    "The local background value calculated as the sigma-clipped median value in the background annulus aperture"
)
_CORNERS = {"ll": "lower-left", "ul": "upper-left", "lr": "lower-right", "ur": "upper-right"}
_FINDER_COLUMNS = (
    *("label", "x_centroid", "y_centroid", "sky_centroid", "area", "semimajor_axis", "semiminor_axis"),
    *("orientation", "segment_flux", "segment_flux_err", "ellipticity"),
    *(f"sky_bbox_{corner}" for corner in _CORNERS),
)


@dataclass(frozen=True)
class Catalog:
    """What the step found.

    Attributes
    ----------
    table
        One row for each source.
    segmentation
        uint32 (y, x): label of the source of each pixel, 0 for none; None with a star finder that has no segments.
    meta
        Metadata of the segmentation map where it differs from that of the image; None removes a keyword.
    """

    table: QTable
    segmentation: np.ndarray | None
    meta: dict[str, Any]


@dataclass(frozen=True)
class Apertures:
    """Circular apertures by encircled energy [percent], and the annulus of the local background; radii [pixel]."""

    energies: np.ndarray
    radii: np.ndarray
    corrections: np.ndarray
    inner: Any
    outer: Any


@dataclass(frozen=True, kw_only=True)
class SourceCatalogStep(Step):
    """Catalogue the sources of a combined image."""

    alias = "source_catalog"
    class_name = "SourceCatalogStep"
    reference_types = ("apcorr", "abvegaoffset")
    status = "source_catalog"
    kind = "association"
    equations = (
        "sources: image - background > snr * rms in npixels connected pixels;\n"
        "flux = sum in aperture - area * median of the annulus; AB = -2.5 log10(flux / Jy) + 8.9"
    )
    sources = "photutils; sharpness and roundness: Stetson 1987, PASP 99, 191"

    aperture_ee1: int = par(30, "encircled energy of the first aperture", unit="percent")
    aperture_ee2: int = par(50, "encircled energy of the second aperture", unit="percent")
    aperture_ee3: int = par(70, "encircled energy of the third aperture", unit="percent")
    ci1_star_threshold: float = par(2.0, "second aperture / first, above which a source is extended")
    ci2_star_threshold: float = par(1.8, "third aperture / second, above which a source is extended")
    suffix: str | None = par("cat", "suffix of the output file")
    starfinder: str = par("segmentation", "how sources are found", choices=("dao", "iraf", "segmentation"))
    snr_threshold: float = par(3.0, "least signal of a pixel above the background", unit="sigma")
    bkg_boxsize: int = par(1000, "side of a box of the background", unit="pixel")
    kernel_fwhm: float = par(2.0, "full width at half maximum of the Gaussian filter", unit="pixel")
    minsep_fwhm: float = par(0.0, "least distance of stars (dao, iraf)", unit="kernel_fwhm")
    sigma_radius: float = par(1.5, "radius of the filter (dao, iraf)", unit="sigma of the filter")
    sharplo: float = par(0.5, "least sharpness of a star (dao, iraf)")
    sharphi: float = par(2.0, "greatest sharpness of a star (dao, iraf)")
    roundlo: float = par(0.0, "least roundness of a star (dao, iraf)")
    roundhi: float = par(0.2, "greatest roundness of a star (dao, iraf)")
    brightest: int = par(200, "number of the brightest stars that are kept (dao, iraf)")
    peakmax: float | None = par(None, "stars with a brighter pixel are left out (dao, iraf)", unit="Jy")
    npixels: int = par(25, "least number of connected pixels of a source (segmentation)")
    connectivity: int = par(8, "whether pixels that touch at corners are connected (segmentation)", choices=(4, 8))
    nlevels: int = par(32, "number of levels at which sources are separated (segmentation)")
    contrast: float = par(0.001, "least part of the flux of a separated source (segmentation)")
    multithresh_mode: str = par(
        "exponential", "spacing of the levels (segmentation)", choices=("exponential", "linear", "sinh")
    )
    localbkg_width: int = par(0, "width of the annulus of the background of a segment (segmentation)", unit="pixel")
    apermask_method: str = par(
        "correct", "what becomes of neighbours (segmentation)", choices=("correct", "mask", "none")
    )
    kron_params: tuple[float, ...] | None = par(None, "parameters of the Kron aperture (segmentation)", length=(2, 3))
    deblend: bool = par(True, "separate sources that overlap (segmentation)")

    def check(self, meta: Meta) -> None:
        energies = self._energies
        if not 0 < energies[0] < energies[1] < energies[2] < 100:
            raise ParameterError(
                f"source_catalog.aperture_ee1, 2 and 3 are {', '.join(map(str, energies))}",
                "give three increasing numbers between 0 and 100",
            )

    @property
    def _energies(self) -> tuple[int, int, int]:
        return self.aperture_ee1, self.aperture_ee2, self.aperture_ee3

    def run(self, members: Sequence[Any], references: Mapping[str, Any], tools: Any) -> Catalog | str:
        """Find and measure the sources of one image.

        Parameters
        ----------
        members
            The combined image: ``sci`` and ``err`` in MJy/sr, ``wht``.
        references
            ``apcorr`` (aperture corrections) and ``abvegaoffset``.
        tools
            Not used.

        Returns
        -------
        Catalog or str
            The catalogue, or why there is none.

        Notes
        -----
        Source: photutils (segmentation, star finders, aperture photometry); sharpness and roundness after Stetson 1987,
        PASP 99, 191.
        """
        (image,) = members
        meta = image.meta
        self.check(meta)
        reason = self.reference_skip_reason(meta, references)
        units = {meta.get(f"meta.bunit_{name}") for name in ("data", "err")}
        area = meta.get("meta.photometry.pixelarea_steradians")
        if reason is not None:
            return reason
        if units != {"MJy/sr"}:
            return f"fluxes need an image in MJy/sr, not {' and '.join(map(str, units))}"
        if area is None:
            return "fluxes need the area of a pixel (PIXAR_SR)"
        try:
            apertures = aperture_parameters(references["apcorr"], meta, self._energies)
            offset = vega_offset(references["abvegaoffset"], meta)
        except ReferenceFileError as error:
            return str(error)

        to_jansky = 1.0e6 * area
        sci, err = (np.asarray(image.read(name), np.float32) for name in ("sci", "err"))
        outside = np.isnan(err) | (image.read("wht") == 0)
        sci *= to_jansky
        err *= to_jansky
        found = self._find(sci, err, outside, image.wcs)
        if found is None:
            return "there are no sources in the image"
        table, segmentation = found
        crpix = [meta[f"meta.wcsinfo.crpix{axis}"] - 1 for axis in (1, 2)]
        result = _Builder(table, sci, err, image.wcs, crpix, self, apertures, offset).table()
        elsewhere = {
            name: None
            for name, entry in model_schema("ImageModel").keywords.items()
            if entry.hdu != "PRIMARY" and not name.startswith("meta.wcsinfo.")
        }
        return Catalog(result, segmentation, elsewhere)

    def _find(
        self, sci: np.ndarray, err: np.ndarray, outside: np.ndarray, wcs: Any
    ) -> tuple[QTable, np.ndarray | None] | None:
        """Table of sources with the columns of the finder, and the segmentation."""
        from photutils import use_future_column_names

        try:
            background, rms, _ = background_maps(sci, self.bkg_boxsize, outside)
        except ValueError:  # no valid pixels
            return None
        image = sci - background
        threshold = self.snr_threshold * rms
        if self.starfinder != "segmentation":
            stars = find_stars(
                self.starfinder,
                image,
                threshold,
                self.kernel_fwhm,
                outside,
                columns=None,
                sigma_radius=self.sigma_radius,
                min_separation=max(2, int(self.minsep_fwhm * self.kernel_fwhm + 0.5)),
                sharpness_range=(self.sharplo, self.sharphi),
                roundness_range=(self.roundlo, self.roundhi),
                peak_max=self.peakmax,
                n_brightest=self.brightest,
            )
            return (stars, None) if len(stars) else None
        finder = {
            "n_pixels": self.npixels,
            "connectivity": self.connectivity,
            "n_levels": self.nlevels,
            "contrast": self.contrast,
            "mode": self.multithresh_mode,
            "deblend": self.deblend,
        }
        catalog = {
            "error": err,
            "wcs": wcs,
            "local_bkg_width": self.localbkg_width,
            "aperture_mask_method": self.apermask_method,
            "kron_params": self.kron_params or (2.5, 1.4, 0.0),
        }
        found = segment(image, threshold, self.kernel_fwhm, outside, finder, catalog)
        if found is None:
            return None
        sources, segments = found
        with use_future_column_names():
            table = sources.to_table(columns=list(_FINDER_COLUMNS))
        for old, new in (("label", "id"), ("x_centroid", "xcentroid"), ("y_centroid", "ycentroid")):
            table.rename_column(old, new)
        table.rename_column("segment_flux", "flux")
        return table, segments.data.astype(np.uint32)


# -- references


def aperture_parameters(reference: Any, meta: Meta, energies: Sequence[int]) -> Apertures:
    """Apertures of a configuration, from a table of aperture corrections.

    Parameters
    ----------
    reference
        APCORR reference: one row for each filter, pupil or subarray, and encircled energy.
    meta
        Metadata of the image.
    energies
        Encircled energies [percent].

    Raises
    ------
    ReferenceFileError
        If a row is missing or there are several.
    """
    instrument = str(meta.get("meta.instrument.name")).upper()
    keys = {
        "NIRCAM": {"filter": "meta.instrument.filter", "pupil": "meta.instrument.pupil"},
        "NIRISS": {"filter": "meta.instrument.filter", "pupil": "meta.instrument.pupil"},
        "MIRI": {"filter": "meta.instrument.filter", "subarray": "meta.subarray.name"},
        "FGS": {},
    }
    rows = reference.table("apcorr")
    wanted = _selector(instrument, keys, meta, reference)
    rows = rows[_matching(rows, wanted)]
    if len(rows) == 0:
        raise ReferenceFileError(reference.path, f"there are no aperture corrections for {wanted}", _REMEDY)
    percent = np.round(np.asarray(rows["eefraction"], np.float32) * 100)
    chosen = []
    for energy in energies:
        (places,) = np.nonzero(percent == energy)
        if len(places) != 1:
            have = ", ".join(f"{value:.0f}" for value in np.unique(percent))
            raise ReferenceFileError(
                reference.path,
                f"there are {len(places)} rows of an encircled energy of {energy} percent for {wanted}",
                f"it has {have}",
            )
        chosen.append(rows[places[0]])
    columns = {
        name: np.array([row[name] for row in chosen], np.float32) for name in ("radius", "apcorr", "skyin", "skyout")
    }
    inner, outer = np.unique(columns["skyin"]), np.unique(columns["skyout"])
    if len(inner) != 1 or len(outer) != 1:
        raise ReferenceFileError(reference.path, f"the annulus of the background is not unique for {wanted}", _REMEDY)
    # Radii are in pixels of the detector.
    ratio = meta.get("meta.resample.pixel_scale_ratio")
    ratio = 1.0 if ratio is None else ratio
    return Apertures(
        np.array(energies), columns["radius"] / ratio, columns["apcorr"], inner[0] / ratio, outer[0] / ratio
    )


def vega_offset(reference: Any, meta: Meta) -> Any:
    """AB magnitude minus Vega magnitude of a configuration.

    Raises
    ------
    ReferenceFileError
        If its row is missing or there are several.
    """
    instrument = str(meta.get("meta.instrument.name")).upper()
    keys = {
        "NIRCAM": {"filter": "meta.instrument.filter", "pupil": "meta.instrument.pupil"},
        "NIRISS": {"filter": "meta.instrument.filter", "pupil": "meta.instrument.pupil"},
        "MIRI": {"filter": "meta.instrument.filter"},
        "FGS": {"detector": "meta.instrument.detector"},
    }
    rows = reference.asdf["abvega_offset"]
    wanted = _selector(instrument, keys, meta, reference)
    missing = [name for name in wanted if name not in rows.colnames]
    places = np.array([], int) if missing else np.nonzero(_matching(rows, wanted))[0]
    if len(places) != 1:
        raise ReferenceFileError(reference.path, f"there are {len(places)} rows of a Vega offset for {wanted}", _REMEDY)
    return rows["abvega_offset"][places[0]]


_REMEDY = "use another reference file"


def _selector(instrument: str, keys: Mapping[str, Mapping[str, str]], meta: Meta, reference: Any) -> dict[str, Any]:
    if instrument not in keys:
        raise ReferenceFileError(reference.path, f"there are no apertures of {instrument}", "skip source_catalog")
    return {name: meta.get(key) for name, key in keys[instrument].items()}


def _matching(rows: Any, wanted: Mapping[str, Any]) -> np.ndarray:
    mask = np.ones(len(rows), bool)
    for name, value in wanted.items():
        mask &= np.array([str(text).strip() for text in rows[name]]) == str(value)
    return mask


# -- measurements


def local_background(
    sci: np.ndarray, positions: np.ndarray, inner: float, outer: float
) -> tuple[np.ndarray, np.ndarray]:
    """Median of the pixels in an annulus around each position, clipped at 3 sigma, and its standard error.

    Parameters
    ----------
    sci
        float32 (y, x).
    positions
        (source, 2): x and y [pixel].
    inner, outer
        Radii [pixel]; a pixel counts if its centre is between them.

    Returns
    -------
    median, error
        float64 (source,), unit of ``sci``; NaN where the annulus misses the image.
    """
    from photutils.aperture import CircularAnnulus

    masks = CircularAnnulus(positions, inner, outer).to_mask(method="center")
    medians, deviations, counts = np.array([_clipped(mask.get_values(sci)) for mask in masks]).T
    # The distribution of a median of normal values is wider than that of a mean by sqrt(pi / 2).
    with np.errstate(divide="ignore", invalid="ignore"):
        return medians, np.sqrt(np.pi / (2.0 * counts)) * deviations


def _clipped(values: np.ndarray, sigma: float = 3.0, clippings: int = 5) -> tuple[float, float, int]:
    """Median, standard deviation and number of the finite values within ``sigma`` of the median."""
    values = values[np.isfinite(values)]
    for clipping in range(clippings + 1):
        if values.size == 0:
            return np.nan, np.nan, 0
        median, deviation = np.median(values), np.std(values)
        kept = values[(values >= median - deviation * sigma) & (values <= median + deviation * sigma)]
        if clipping == clippings or kept.size == values.size:
            break
        values = kept
    return median, deviation, values.size


def sharpness_roundness(sci: np.ndarray, positions: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """How peaked and how symmetric sources are, as DAOFIND defines it.

    Parameters
    ----------
    sci
        float32 (y, x).
    positions
        (source, 2): x and y [pixel].
    sigma
        Standard deviation of the Gaussian that stars look like [pixel].

    Returns
    -------
    sharpness, roundness
        (source,): central pixel minus the mean of those around it, over the height of the Gaussian that fits best;
        and the two-fold over the four-fold symmetry of the filtered image.

    Notes
    -----
    Source: Stetson 1987, PASP 99, 191. The image is filtered around the sources only.
    """
    from astropy.convolution import Gaussian2DKernel

    radius = max(2.0, 1.5 * sigma)
    half = int(radius)
    size = 2 * half + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    used = (np.sqrt(x**2 + y**2) <= radius).astype(int)
    kernel = Gaussian2DKernel(sigma, x_size=size, y_size=size).array
    kernel = kernel / np.max(kernel) * used
    scale = np.sum(kernel**2) - np.sum(kernel) ** 2 / used.sum()
    kernel = (kernel - kernel.sum() / used.sum()) / scale * used

    cutouts = np.zeros((len(positions), size, size), sci.dtype)
    filtered = np.zeros_like(cutouts)
    for k, (column, row) in enumerate(positions):
        # Beyond the border there is 0, for the filter and for the sources.
        wide = _cutout(sci, column, row, half, half)
        if wide is not None:
            cutouts[k] = wide[half:-half, half:-half]
            inside = _cutout(np.ones(sci.shape, bool), column, row, half, 0)
            filtered[k] = ndimage.convolve(wide, kernel, mode="constant")[half:-half, half:-half] * inside
    around = (np.sum(cutouts * used, axis=(1, 2)) - cutouts[:, half, half]) / (used.sum() - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sharpness = (cutouts[:, half, half] - around) / filtered[:, half, half]

    filtered[:, half, half] = 0.0
    # Quadrants that turn into each other, without the centre: right of it, below, left, above.
    parts: list[Any] = [np.s_[:, : half + 1, half + 1 :], np.s_[:, :half, : half + 1]]
    parts += [np.s_[:, half:, :half], np.s_[:, half + 1 :, half:]]
    right, below, left, above = (filtered[part].sum(axis=(1, 2)) for part in parts)
    twofold = -right + below - left + above
    fourfold = np.abs(filtered).sum(axis=(1, 2))
    fourfold[fourfold == 0] = np.nan
    return sharpness, 2.0 * twofold / fourfold


def _cutout(image: np.ndarray, x: float, y: float, half: int, more: int) -> np.ndarray | None:
    """Square around a position, ``more`` pixels wider than ``half`` on each side, 0 beyond the image.

    None if the square without the margin misses the image.
    """
    size = 2 * half + 1
    y0, x0 = (int(np.ceil(value - size / 2)) for value in (y, x))
    if y0 + size <= 0 or x0 + size <= 0 or y0 >= image.shape[0] or x0 >= image.shape[1]:
        return None
    wide = size + 2 * more
    out = np.zeros((wide, wide), image.dtype)
    y0, x0 = y0 - more, x0 - more
    low_y, low_x = max(0, y0), max(0, x0)
    part = image[low_y : y0 + wide, low_x : x0 + wide]
    out[low_y - y0 : low_y - y0 + part.shape[0], low_x - x0 : low_x - x0 + part.shape[1]] = part
    return out


def magnitudes(flux: np.ndarray, error: Any) -> tuple[np.ndarray, np.ndarray]:
    """AB magnitudes and their errors of fluxes [Jy]; NaN for negative fluxes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = -2.5 * np.log10(flux) + 8.9
        deviation = np.full_like(magnitude, np.nan)
        if not np.all(np.isnan(error)):
            deviation = 2.5 * np.log10(1.0 + error / flux)
    negative = flux < 0
    magnitude[negative] = deviation[negative] = np.nan
    return magnitude, deviation


def nearest(positions: np.ndarray, labels: np.ndarray, valid: np.ndarray) -> tuple[Any, np.ndarray]:
    """Label of the nearest other source and its distance [pixel]; -1 and NaN without one."""
    if len(labels) == 1:
        return -1, np.array([np.nan])
    distances, indices = KDTree(positions).query(positions, k=[2])
    return np.where(valid, labels[indices[:, 0]], -1), np.where(valid, distances[:, 0], np.nan)


def north_angle(wcs: Any, x: float, y: float) -> u.Quantity:
    """Angle [degree] from the x axis to north at a pixel."""
    here = wcs.pixel_to_world(x, y)
    step = here.directional_offset_by(0.0, 1 * u.arcsec)
    (x0, y0), (x1, y1) = wcs.world_to_pixel(here), wcs.world_to_pixel(step)
    return (np.arctan2(y1 - y0, x1 - x0) * u.radian).to(u.deg)


@dataclass
class _Builder:
    """The columns of the catalogue, from what the finder found."""

    found: QTable
    sci: np.ndarray
    err: np.ndarray
    wcs: Any
    crpix: Sequence[float]
    step: SourceCatalogStep
    apertures: Apertures
    offset: Any

    _AXIS: ClassVar[str] = (
        "1-sigma standard deviation along the {} axis of the 2D Gaussian function that has the same second-order "
        "central moments as the source"
    )

    def table(self) -> QTable:
        """Columns in jwst's order, with its descriptions and formats."""
        table = QTable()
        for name, (value, description) in self._columns().items():
            table[name] = value
            table[name].info.description = description
            form = _format(name)
            if form:
                table[name].info.format = form
        meta = dict(self.found.meta)
        versions = meta.get("version", {})
        own = {name: versions[name] for name in _PACKAGES if name in versions}
        meta["version"] = {**own, "jwstdask": version("jwstdask")}
        meta["aperture_params"] = {
            "aperture_ee": self.apertures.energies,
            "aperture_radii": self.apertures.radii,
            "aperture_corrections": self.apertures.corrections,
            "bkg_aperture_inner_radius": self.apertures.inner,
            "bkg_aperture_outer_radius": self.apertures.outer,
        }
        meta["abvega_offset"] = self.offset
        table.meta.update(meta)
        return table

    def _given(self, name: str, default: Any = np.nan) -> Any:
        return self.found[name] if name in self.found.colnames else default

    def _columns(self) -> dict[str, tuple[Any, str]]:
        found = self.found
        positions = np.transpose([np.asarray(found[name], float) for name in ("xcentroid", "ycentroid")])
        valid = np.isfinite(positions).all(axis=1)
        on_image = np.where(np.isfinite(positions), positions, _OUTSIDE)
        labels = np.asarray(found["id"])
        centroid = self._given("sky_centroid", None)
        if centroid is None:
            centroid = self.wcs.pixel_to_world(positions[:, 0], positions[:, 1])
        sharpness, roundness = sharpness_roundness(self.sci, on_image, self.step.kernel_fwhm * gaussian_fwhm_to_sigma)
        neighbour, distance = nearest(on_image, labels, valid)
        flux = np.asarray(getattr(found["flux"], "value", found["flux"]))
        flux_error = self._given("segment_flux_err")
        magnitude, magnitude_error = magnitudes(flux, flux_error)
        orientation = self._given("orientation")
        if np.ndim(orientation):
            orientation = u.Quantity(orientation, u.deg)
        north = (180.0 * u.deg - north_angle(self.wcs, *self.crpix) + orientation) % (360 * u.deg)
        return {
            "label": (labels, "Unique source identification label number"),
            "xcentroid": (found["xcentroid"], "X pixel value of the source centroid (0 indexed)"),
            "ycentroid": (found["ycentroid"], "Y pixel value of the source centroid (0 indexed)"),
            "sky_centroid": (centroid, "ICRS Sky coordinate of the source centroid"),
            **self._photometry(on_image),
            "sharpness": (sharpness, "The DAOFind source sharpness statistic"),
            "roundness": (roundness, "The DAOFind source roundness statistic"),
            "nn_label": (neighbour, "The label number of the nearest neighbor"),
            "nn_dist": (distance * u.pixel, "The distance in pixels to the nearest neighbor"),
            "isophotal_flux": (flux * u.Jy, "Isophotal flux"),
            "isophotal_flux_err": (
                flux_error * u.Jy if np.ndim(flux_error) else flux_error,
                "Isophotal flux error",
            ),
            "isophotal_abmag": (magnitude, "Isophotal AB magnitude"),
            "isophotal_abmag_err": (magnitude_error, "Isophotal AB magnitude error"),
            "isophotal_vegamag": (magnitude - self.offset, "Isophotal Vega magnitude"),
            "isophotal_vegamag_err": (magnitude_error, "Isophotal Vega magnitude error"),
            "isophotal_area": (self._given("area"), "Isophotal area"),
            "semimajor_sigma": (self._given("semimajor_axis"), self._AXIS.format("semimajor")),
            "semiminor_sigma": (self._given("semiminor_axis"), self._AXIS.format("semiminor")),
            "ellipticity": (
                self._given("ellipticity"),
                "1 minus the ratio of the 1-sigma lengths of the semimajor and semiminor axes",
            ),
            "orientation": (
                orientation,
                "The angle (degrees) between the positive X axis and the major axis (increases counter-clockwise)",
            ),
            "sky_orientation": (north, "The position angle (degrees) from North of the major axis"),
            **{
                f"sky_bbox_{corner}": (
                    self._given(f"sky_bbox_{corner}"),
                    f"Sky coordinate of the {place} vertex of the minimal bounding box of the source",
                )
                for corner, place in _CORNERS.items()
            },
        }

    def _photometry(self, positions: np.ndarray) -> dict[str, tuple[Any, str]]:
        """Fluxes, magnitudes and concentration in the apertures."""
        from photutils.aperture import CircularAperture, aperture_photometry

        apertures = self.apertures
        background, background_error = local_background(self.sci, positions, apertures.inner, apertures.outer)
        circles = [CircularAperture(positions, radius) for radius in apertures.radii]
        sums = aperture_photometry(self.sci, circles, error=self.err)
        fluxes: dict[str, tuple[Any, Any]] = {}
        for k, (energy, circle) in enumerate(zip(apertures.energies, circles)):
            flux = np.asarray(sums[f"aperture_sum_{k}"]) - background * circle.area
            fluxes[str(energy)] = flux, np.asarray(sums[f"aperture_sum_err_{k}"])
        largest = str(apertures.energies[-1])
        correction = apertures.corrections[-1]
        fluxes["total"] = correction * fluxes[largest][0], correction * fluxes[largest][1]

        columns: dict[str, tuple[Any, str]] = {
            "aper_bkg_flux": (
                background * u.Jy,
                _LOCAL_BACKGROUND,
            ),
            "aper_bkg_flux_err": (
                background_error * u.Jy,
                "The standard error of the sigma-clipped median background value",
            ),
        }
        for kind, title, total in (
            ("flux", "Flux", "flux"),
            ("abmag", "AB magnitude", "AB magnitude"),
            ("vegamag", "Vega magnitude", "Vega magnitude"),
        ):
            for energy, (flux, error) in fluxes.items():
                if kind == "flux":
                    values = flux * u.Jy, error * u.Jy
                else:
                    values = magnitudes(flux, error)
                    values = (values[0] - (self.offset if kind == "vegamag" else 0.0), values[1])
                name = f"aper_total_{kind}" if energy == "total" else f"aper{energy}_{kind}"
                for value, suffix, word in zip(values, ("", "_err"), ("", " error")):
                    if energy == "total":
                        text = (
                            f"Total aperture-corrected {total}{word} based on the {largest}% encircled energy circular "
                            "aperture; should be used only for unresolved sources."
                        )
                    else:
                        text = f"{title}{word} within the {energy}% encircled energy circular aperture"
                    columns[name + suffix] = value, text
        one, two, three = (str(energy) for energy in apertures.energies)
        with np.errstate(divide="ignore", invalid="ignore"):
            pairs = ((two, one), (three, two), (three, one))
            ratios = [(upper, lower, fluxes[upper][0] / fluxes[lower][0]) for upper, lower in pairs]
        for upper, lower, ratio in ratios:
            text = f"Concentration index calculated as (aper{upper}_flux / aper{lower}_flux)"
            columns[f"CI_{upper}_{lower}"] = ratio, text
        extended = (ratios[0][2] > self.step.ci1_star_threshold) & (ratios[1][2] > self.step.ci2_star_threshold)
        columns["is_extended"] = extended, "Flag indicating whether the source is extended"
        return columns


def _format(name: str) -> str | None:
    """How a column is printed."""
    if name in ("xcentroid", "ycentroid") or name.startswith("CI_"):
        return ".4f"
    if "flux" in name:
        return ".6e"
    shapes = ("nn_dist", "sharpness", "roundness", "semimajor_sigma", "semiminor_sigma", "ellipticity")
    if "mag" in name or name in (*shapes, "orientation", "sky_orientation"):
        return ".6f"
    return None
