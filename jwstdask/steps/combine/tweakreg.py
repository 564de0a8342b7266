"""Align exposures with each other, and with a reference catalogue, by their stars."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from astropy.table import QTable, Table

from jwstdask.core.dq import DO_NOT_USE, NON_SCIENCE
from jwstdask.core.errors import InputError, ParameterError, StepError
from jwstdask.core.params import par
from jwstdask.core.step import Step
from jwstdask.io.naming import file_name
from jwstdask.io.remote import is_url
from jwstdask.steps.combine import reference_catalog
from jwstdask.steps.combine.star_finder import background_maps, find_segments, find_stars, no_stars
from jwstdask.steps.imaging.drizzle import group_id
from jwstdask.wcs.footprint import footprint, s_region
from jwstdask.wcs.pixelmap import limits
from jwstdask.wcs.sip import sip_keywords

_GEOMETRIES = ("shift", "rshift", "rscale", "general")
_WRITERS = {"ecsv": "ascii.ecsv", "fits": "fits"}
_ALL = "all"  # name of the one group that is aligned with a reference catalogue


class _NotAligned(Exception):
    """Why an alignment is given up."""


@dataclass
class _Catalog:
    """Stars of an exposure.

    Attributes
    ----------
    table
        With columns x and y [pixel, from 0].
    detected
        True if they were found in the image, False if the user gave them.
    messages
        For the log.
    """

    table: Table
    detected: bool = True
    messages: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TweakRegStep(Step):
    """Align exposures with each other, and with a reference catalogue, by their stars."""

    alias: ClassVar[str] = "tweakreg"
    class_name: ClassVar[str] = "TweakRegStep"
    status: ClassVar[str] = "tweakreg"
    kind: ClassVar[str] = "association"
    status_if_undone: ClassVar[str] = "FAILED"
    """What is recorded when :meth:`run` returns a reason: jwst takes exposures that it cannot align for a failure."""
    equations: ClassVar[str] = (
        "minimum over R, t of sum |R p_i + t - q_i|^2 in the tangent plane at (V2_REF, V3_REF):\n"
        "p stars of an exposure, q the same stars of the reference; above sigma x rms left out, nclip times"
    )
    sources: ClassVar[str] = "Stetson 1987, PASP 99, 191 (stars); JWST pipeline documentation, tweakreg"

    output_use_model: bool = par(True, "name the output after the input exposure")
    save_catalogs: bool = par(False, "write the catalogue of each exposure")
    use_custom_catalogs: bool = par(False, "use the catalogues of the user")
    catalog_format: str = par("ecsv", "format of written catalogues: ecsv or fits")
    catfile: str = par("", "text file of exposures and their catalogues")
    starfinder: str = par("iraf", "algorithm that finds stars", choices=("dao", "iraf", "segmentation"))
    snr_threshold: float = par(10.0, "least peak over the background, in its standard deviations")
    kernel_fwhm: float = par(2.5, "full width at half maximum of the detection kernel", unit="pixel")
    bkg_boxsize: int = par(400, "side of the boxes of the background", unit="pixel")
    minsep_fwhm: float = par(0.0, "least separation of stars, in kernel_fwhm")
    sigma_radius: float = par(1.5, "radius of the kernel, in its standard deviations")
    sharplo: float = par(0.5, "least sharpness")
    sharphi: float = par(2.0, "largest sharpness")
    roundlo: float = par(0.0, "least roundness")
    roundhi: float = par(0.2, "largest roundness")
    brightest: int = par(200, "number of stars kept")
    peakmax: float | None = par(None, "largest peak")
    npixels: int = par(10, "least number of pixels of a segment")
    connectivity: int = par(8, "neighbours of a pixel of a segment", choices=(4, 8))
    nlevels: int = par(32, "levels of deblending")
    contrast: float = par(0.001, "share of the flux that makes a part a source")
    multithresh_mode: str = par("exponential", "spacing of the levels", choices=("exponential", "linear", "sinh"))
    localbkg_width: int = par(0, "width of the annulus of the local background of a segment", unit="pixel")
    apermask_method: str = par("correct", "what is done with neighbours", choices=("correct", "mask", "none"))
    kron_params: tuple[float, ...] | None = par(None, "parameters of the Kron aperture", length=(2, 3))
    deblend: bool = par(True, "part segments that touch")
    enforce_user_order: bool = par(False, "align in the order of the association")
    expand_refcat: bool = par(False, "add new stars to the reference after each exposure")
    minobj: int = par(15, "least number of matches")
    fitgeometry: str = par("rshift", "what is fitted", choices=_GEOMETRIES)
    nclip: int = par(3, "number of clipping iterations", ge=0)
    sigma: float = par(3.0, "clipping limit, in rms", ge=0.0)
    searchrad: float = par(2.0, "largest offset that is sought", unit="arcsec")
    use2dhist: bool = par(True, "find the offset from a histogram of separations")
    separation: float = par(1.0, "least separation of stars that are matched", unit="arcsec")
    tolerance: float = par(0.7, "largest distance of a match", unit="arcsec")
    xoffset: float = par(0.0, "first guess of the offset in x", unit="arcsec")
    yoffset: float = par(0.0, "first guess of the offset in y", unit="arcsec")
    abs_refcat: str | None = par("", f"reference catalogue: a file, {', '.join(reference_catalog.NAMES)}, or nothing")
    save_abs_catalog: bool = par(False, "write the reference catalogue that was fetched")
    abs_minobj: int = par(15, "least number of matches with the reference catalogue")
    abs_fitgeometry: str = par("rshift", "what is fitted to the reference catalogue", choices=_GEOMETRIES)
    abs_nclip: int = par(3, "number of clipping iterations with the reference catalogue", ge=0)
    abs_sigma: float = par(3.0, "clipping limit with the reference catalogue, in rms", ge=0.0)
    abs_searchrad: float = par(6.0, "largest offset from the reference catalogue that is sought", unit="arcsec")
    abs_use2dhist: bool = par(True, "find the offset from the reference catalogue from a histogram")
    abs_separation: float = par(1.0, "least separation of stars that are matched with it", unit="arcsec")
    abs_tolerance: float = par(0.7, "largest distance of a match with it", unit="arcsec")
    sip_approx: bool = par(True, "update the SIP keywords")
    sip_max_pix_error: float = par(0.01, "largest error of the SIP approximation", unit="pixel")
    sip_degree: int | None = par(None, "degree of the SIP polynomials", le=6)
    sip_max_inv_pix_error: float = par(0.01, "largest error of the inverse SIP approximation", unit="pixel")
    sip_inv_degree: int | None = par(None, "degree of the inverse SIP polynomials", le=6)
    sip_npoints: int = par(12, "points along each axis that the SIP polynomials are fitted to")
    in_memory: bool = par(True, "no effect: pixels are read once, exposure by exposure")

    @property
    def _absolute(self) -> str:
        return (self.abs_refcat or "").strip()

    def check(self, meta: Mapping[str, Any]) -> None:
        if self.save_catalogs and self.catalog_format not in _WRITERS:
            raise ParameterError(f"tweakreg.catalog_format must be ecsv or fits, not {self.catalog_format!r}")
        if self._absolute:
            reference_catalog.check(self._absolute)

    def run(self, members: Sequence[Any], references: Mapping[str, Any], tools: Any) -> str | None:
        """Set WCS, S_REGION and SIP keywords of the members that can be aligned, in place.

        Exposures of several detectors taken at once move together. The first (or the best overlapping) exposure keeps
        its place, unless there is a reference catalogue.

        Parameters
        ----------
        members
            Science exposures of the association.
        references
            None are used.
        tools
            ``map``, ``log``, ``scratch``.

        Returns
        -------
        str or None
            Why no exposure was moved, or None. A single exposure that cannot be matched stays where it is.

        Raises
        ------
        InputError
            If a catalogue of the user cannot be read, or lacks positions.
        StepError
            If the reference catalogue cannot be fetched.
        """
        self.check(members[0].meta)
        groups = [group_id(member.meta, index) for index, member in enumerate(members)]
        count = len(set(groups))
        if count == 1 and not self._absolute and not self.save_catalogs:
            return "at least two exposures are needed for an alignment, there is one"

        custom = self._custom_catalogs(members, tools)
        catalogs = tools.map(functools.partial(_catalog, step=self), list(zip(members, custom)))
        for member, path, catalog in zip(members, custom, catalogs):
            if len(catalog.table):
                catalog.table = _inside(catalog.table, member.wcs, member.shape[-2:])
            for message in (*catalog.messages, f"{len(catalog.table)} stars"):
                tools.log(f"{member.path}: {message}")
            if path is not None:
                member.meta["meta.tweakreg_catalog"] = path
            elif self.save_catalogs:
                member.meta["meta.tweakreg_catalog"] = self._write(catalog.table, _name(member), tools)

        correctors = [
            _corrector(member, catalog.table, group) for member, catalog, group in zip(members, catalogs, groups)
        ]
        failure = "at least two exposures are needed for an alignment, there is one"
        try:
            if count > 1:
                failure = ""
                try:
                    self._align_relative(correctors)
                except _NotAligned as reason:
                    failure = str(reason)
            if self._absolute:
                if failure:
                    tools.log(f"the exposures are not aligned with each other: {failure}")
                self._align_absolute(correctors, members, tools)
                failure = ""
        except _NotAligned as reason:
            return str(reason)
        if failure:
            return failure

        moved = []
        for member, corrector in zip(members, correctors):
            fit = corrector.meta.get("fit_info", {"status": "not tried"})
            if "SUCCESS" in fit["status"]:
                if self._absolute:
                    corrector.wcs.name = f"FIT-LVL3-{self.abs_refcat}"
                member.wcs = corrector.wcs
                moved.append(member)
                x, y = fit["shift"]
                quality = f"rms {fit['rmse']:.4f}, {fit['nmatches']} matches"
                tools.log(f"{member.path}: moved by {x:.4f}, {y:.4f} arcsec, {quality}")
            elif fit["status"] != "REFERENCE":
                tools.log(f"{member.path}: not moved: {fit['status']}")
        for member, (changes, message) in zip(moved, tools.map(functools.partial(_keywords, step=self), moved)):
            for name, value in changes.items():
                if value is None:
                    member.meta.pop(name, None)
                else:
                    member.meta[name] = value
            if message:
                tools.log(f"{member.path}: {message}")
        return None

    def _custom_catalogs(self, members: Sequence[Any], tools: Any) -> list[str | None]:
        """Path of the catalogue that the user gives for each member, or None where stars are to be found."""
        none: list[str | None] = [None] * len(members)
        if not self.use_custom_catalogs:
            return none
        listed: dict[str, str | None] = {}
        if self.catfile.strip():
            listed = _read_catfile(self.catfile)
            if not listed:
                tools.log(f"{self.catfile} lists no catalogues: stars are found in the images")
                return none
        found = []
        for member in members:
            name = _name(member)
            path = listed[name] if name in listed else member.meta.get("meta.tweakreg_catalog")
            if path is not None and path.strip():
                beside = os.path.join(os.path.dirname(member.path), path)
                found.append(beside if not os.path.exists(path) and os.path.exists(beside) else path)
            else:
                found.append(None)
        return found

    def _write(self, table: Table, name: str, tools: Any) -> str:
        """Write a catalogue; its file name."""
        own = file_name(name.replace(".fits", f"_cat.{self.catalog_format}"), "FILENAME")
        path = _folder(self, tools) / own
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write(path, format=_WRITERS[self.catalog_format], overwrite=True)
        return path.name

    def _align_relative(self, correctors: list[Any]) -> None:
        _align(
            correctors,
            "",
            enforce_user_order=self.enforce_user_order,
            expand_refcat=self.expand_refcat or bool(self._absolute),
            minobj=self.minobj,
            fitgeom=self.fitgeometry,
            nclip=self.nclip,
            sigma=(self.sigma, "rmse"),
            matching={
                "searchrad": self.searchrad,
                "separation": self.separation,
                "use2dhist": self.use2dhist,
                "tolerance": self.tolerance,
                "xoffset": self.xoffset,
                "yoffset": self.yoffset,
            },
        )
        reach = self.searchrad if self.use2dhist else max(abs(self.xoffset), abs(self.yoffset))
        largest = 2 * (reach + self.tolerance)
        for corrector in correctors:
            if not _displacement(corrector) < largest:
                raise _NotAligned(
                    f"{corrector.meta['name']} would move by more than {largest:g} arcsec: the matches are not trusted"
                )

    def _align_absolute(self, correctors: list[Any], members: Sequence[Any], tools: Any) -> None:
        first = members[0]
        _check_separation(self.abs_separation, self.abs_tolerance, "abs_")
        table = reference_catalog.reference_stars(
            self._absolute,
            [footprint(corrector.wcs) for corrector in correctors],
            first.wcs,
            {name.rsplit(".", 1)[-1]: value for name, value in first.meta.items() if name.startswith("meta.wcsinfo.")},
            first.shape[-2:],
            first.meta.get("meta.observation.date"),
        )
        if self.save_abs_catalog and self._absolute.upper() in reference_catalog.NAMES and len(table):
            path = _folder(self, tools) / f"fit_{self._absolute.lower()}_ref.ecsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            table.write(path, format="ascii.ecsv", overwrite=True)
        if len(table) < self.abs_minobj:
            raise _NotAligned(f"the reference catalogue has {len(table)} stars, {self.abs_minobj} are needed")
        for corrector in correctors:
            # All exposures move together; the reference of the first alignment is no longer one.
            corrector.meta["group_id"] = _ALL
            if corrector.meta.get("fit_info", {}).get("status") == "REFERENCE":
                del corrector.meta["fit_info"]
        _align(
            correctors,
            "abs_",
            refcat=table,
            enforce_user_order=True,
            expand_refcat=False,
            minobj=self.abs_minobj,
            fitgeom=self.abs_fitgeometry,
            nclip=self.abs_nclip,
            sigma=(self.abs_sigma, "rmse"),
            matching={
                "searchrad": self.abs_searchrad,
                "separation": self.abs_separation,
                "use2dhist": self.abs_use2dhist,
                "tolerance": self.abs_tolerance,
                "xoffset": 0.0,
                "yoffset": 0.0,
            },
        )


def _name(member: Any) -> str:
    return str(member.meta.get("meta.filename") or os.path.basename(str(member.path)))


def _folder(step: TweakRegStep, tools: Any) -> Path:
    """Folder of catalogues that are written: output_dir, else that of the products, where the scratch folder is.

    What is there goes to the URL of the products, if they have one.
    """
    own = step.output_dir and not is_url(step.output_dir)
    return Path(step.output_dir or "") if own else Path(tools.scratch).parent


def _read_catfile(path: str) -> dict[str, str | None]:
    """Exposure to catalogue (None: find stars); a line has an exposure and, optionally, a catalogue beside the file."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "give the list of catalogues as catfile") from None
    found: dict[str, str | None] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise InputError(path, f"line {number} has {len(words)} columns", "give an exposure and a catalogue a line")
        found[words[0]] = str(Path(path).parent / words[1]) if len(words) == 2 else None
    return found


def _catalog(task: tuple[Any, str | None], step: TweakRegStep) -> _Catalog:
    """Stars of an exposure: those in a file, or those in the image."""
    member, path = task
    if path is None:
        catalog = _detect(member, step)
    else:
        try:
            catalog = _Catalog(Table.read(path), False, [f"stars from {path}"])
        except Exception as error:
            raise InputError(path, f"is not a catalogue ({error})", f"it is the catalogue of {member.path}") from error
    table = catalog.table
    for axis in "xy":
        names = [name for name in (axis, f"{axis}centroid", f"{axis}_centroid") if name in table.colnames]
        if not names:
            raise InputError(str(path), f"has no column {axis}, {axis}centroid or {axis}_centroid")
        if names[0] != axis:
            table.rename_column(names[0], axis)
    if table.meta.get("name") is None:
        table.meta["name"] = Path(_name(member)).stem.strip("_- ")
    return catalog


def _inside(table: Table, wcs: Any, shape: tuple[int, int]) -> Table:
    """The stars within the bounding box of the WCS."""
    (x_low, x_high), (y_low, y_high) = limits(wcs, shape)
    x, y = table["x"], table["y"]
    return table[(x > x_low) & (x < x_high) & (y > y_low) & (y < y_high)]


def _detect(member: Any, step: TweakRegStep) -> _Catalog:
    """Stars in the image of an exposure."""
    if len(member.shape) != 2:
        raise StepError(str(member.path), step.alias, f"an image is needed, this has the shape {tuple(member.shape)}")
    image = np.asarray(member.read("sci"))
    mask = (np.asarray(member.read("dq")) & (DO_NOT_USE | NON_SCIENCE)) != 0
    try:
        background, rms, whole = background_maps(image, step.bkg_boxsize, mask)
    except ValueError as error:
        return _Catalog(no_stars(), messages=[f"no background: {error}"])
    messages = ["the background is that of the whole image: no box has enough valid pixels"] if whole else []
    threshold = step.snr_threshold * rms
    image = image - background
    if step.starfinder == "segmentation":
        finder = {
            "n_pixels": step.npixels,
            "connectivity": step.connectivity,
            "deblend": step.deblend,
            "n_levels": step.nlevels,
            "contrast": step.contrast,
            "mode": step.multithresh_mode,
        }
        measures = {
            "local_bkg_width": step.localbkg_width,
            "aperture_mask_method": step.apermask_method,
            "kron_params": step.kron_params or (2.5, 1.4, 0.0),
        }
        table = find_segments(image, threshold, step.kernel_fwhm, mask, finder, measures)
    else:
        table = find_stars(
            step.starfinder,
            image,
            threshold,
            step.kernel_fwhm,
            mask,
            min_separation=max(2, int(step.minsep_fwhm * step.kernel_fwhm + 0.5)),
            sigma_radius=step.sigma_radius,
            sharpness_range=(step.sharplo, step.sharphi),
            roundness_range=(step.roundlo, step.roundhi),
            peak_max=step.peakmax,
            n_brightest=step.brightest,
        )
    return _Catalog(QTable(table), messages=messages)


def _corrector(member: Any, table: Table, group: str) -> Any:
    from tweakwcs.correctors import JWSTWCSCorrector

    angles = {}
    for name in ("roll_ref", "v2_ref", "v3_ref"):
        value = member.meta.get(f"meta.wcsinfo.{name}")
        if value is None:
            raise StepError(str(member.path), "tweakreg", f"{name.upper()} is missing", "run assign_wcs first")
        angles[name] = float(value)
    try:
        return JWSTWCSCorrector(
            wcs=member.wcs, wcsinfo=angles, meta={"catalog": table, "name": table.meta.get("name"), "group_id": group}
        )
    except ValueError as error:
        raise StepError(str(member.path), "tweakreg", f"this WCS cannot be corrected ({error})") from error


def _check_separation(separation: float, tolerance: float, prefix: str) -> None:
    if separation <= np.sqrt(2.0) * tolerance:
        raise _NotAligned(
            f"{prefix}separation = {separation:g} must exceed sqrt(2) x {prefix}tolerance = {tolerance:g}, "
            "or stars are confused"
        )


def _align(
    correctors: list[Any],
    prefix: str,
    *,
    matching: dict[str, Any],
    expand_refcat: bool,
    enforce_user_order: bool,
    refcat: Table | None = None,
    **how: Any,
) -> None:
    """Match and fit, group by group; the correctors are changed, and ``meta["fit_info"]`` says how it went."""
    from tweakwcs.imalign import NotEnoughCatalogs, align_wcs
    from tweakwcs.matchutils import XYXYMatch

    _check_separation(matching["separation"], matching["tolerance"], prefix)
    how |= {"match": XYXYMatch(**matching), "clip_accum": False}
    try:
        if expand_refcat:
            align_wcs(correctors, refcat=refcat, expand_refcat=True, enforce_user_order=enforce_user_order, **how)
        else:
            _align_in_order(correctors, refcat, **how)
    except NotEnoughCatalogs:
        raise _NotAligned("too few exposures have stars") from None
    except RuntimeError as error:
        if not str(error).startswith("Number of output coordinates exceeded allocation"):
            raise
        raise _NotAligned(
            f"several stars match one star of the reference: change {prefix}tolerance or {prefix}separation"
        ) from None


def _align_in_order(correctors: list[Any], refcat: Table | None, **how: Any) -> None:
    """Align every group with the same reference: ``refcat``, or the first group.

    The order does not matter if the reference does not grow, so overlaps, which take most of the time of
    ``tweakwcs.align_wcs`` for several detectors, are not computed.
    """
    from tweakwcs.imalign import NotEnoughCatalogs
    from tweakwcs.wcsimage import RefCatalog, WCSGroupCatalog, WCSImageCatalog

    members: dict[str, list[Any]] = {}
    for corrector in correctors:
        image = WCSImageCatalog(corrector.meta["catalog"], corrector, name=corrector.meta["name"])
        image.fit_status = "FAILED: Unknown error"
        members.setdefault(corrector.meta["group_id"], []).append(image)
    groups = []
    for name, images in members.items():
        group = WCSGroupCatalog(images, name=f"GROUP ID: {name}", bb_policy=0)
        if len(group.catalog):
            groups.append(group)
        else:
            for image in images:
                image.corrector.meta["fit_info"] = {"status": "FAILED: empty source catalog"}
    if len(groups) < (2 if refcat is None else 1):
        raise NotEnoughCatalogs
    if refcat is None:
        first = groups.pop(0)
        reference = RefCatalog(first.catalog, name=first[0].name)
        for image in first:
            image.corrector.meta["fit_info"] = {"status": "REFERENCE"}
    else:
        reference = RefCatalog(refcat, name=refcat.meta.get("name", "Unnamed"))
    for group in groups:
        group.align_to_ref(refcat=reference, **how)
        for image in group:
            image.corrector.meta["fit_info"] = image.fit_info


def _displacement(corrector: Any) -> float:
    """Largest shift of a corner [arcsec]."""
    from astropy.coordinates import angular_separation

    before, after = (np.deg2rad(footprint(wcs)).T for wcs in (corrector.original_wcs, corrector.wcs))
    return float(np.max(np.rad2deg(angular_separation(*before, *after)) * 3600.0))


def _keywords(member: Any, step: TweakRegStep) -> tuple[dict[str, Any], str]:
    """Metadata that follow from the WCS, and a message."""
    changes: dict[str, Any] = {}
    region = s_region(footprint(member.wcs, member.shape[-2:]))
    if region is not None:
        changes["meta.wcsinfo.s_region"] = region
    if not step.sip_approx:
        return changes, ""
    try:
        changes |= sip_keywords(
            member.wcs,
            member.meta,
            max_pix_error=step.sip_max_pix_error,
            degree=step.sip_degree,
            max_inv_pix_error=step.sip_max_inv_pix_error,
            inv_degree=step.sip_inv_degree,
            npoints=step.sip_npoints,
        )
    except (ValueError, RuntimeError) as error:
        return changes, f"no SIP approximation: {error}"
    return changes, ""
