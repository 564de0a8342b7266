"""Combine images on one undistorted grid."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from jwstdask.core.errors import ParameterError, StepError
from jwstdask.core.params import par
from jwstdask.core.step import Step
from jwstdask.kernels.resample import total_error
from jwstdask.steps.imaging.drizzle import (
    MAX_OUTPUT_PIXELS,
    OTHER_REACH,
    VARIANCES,
    Recipe,
    Source,
    bad_bits,
    drizzle_tile,
    fill_value,
    group_id,
    output_limit,
    tiles,
)
from jwstdask.wcs.mosaic import OutputGrid, combined_s_region, custom_grid, mean_pixel_area, output_grid, polygons

GOOD_BITS = "~DO_NOT_USE+NON_SCIENCE"

# Keywords of the detector's own WCS that mean nothing on the combined grid.
_DETECTOR_WCS = ("v2_ref", "v3_ref", "ra_ref", "dec_ref", "roll_ref", "v3yangle", "vparity")

Writer = Callable[[str, slice, slice, NDArray], None]


def member_footprints(members: Sequence[Any], step: str) -> tuple[list[np.ndarray], list[int]]:
    """Polygons of all members' S_REGION, and the member that each belongs to.

    Raises
    ------
    StepError
        If a member has no S_REGION.
    """
    found, owners = [], []
    for index, member in enumerate(members):
        region = member.meta.get("meta.wcsinfo.s_region")
        if not region:
            raise StepError(str(member.path), step, "S_REGION is missing", "run assign_wcs first")
        for polygon in polygons(region):
            found.append(polygon)
            owners.append(index)
    return found, owners


def common_grid(members: Sequence[Any], step: str, largest: int = MAX_OUTPUT_PIXELS, **wanted: Any) -> OutputGrid:
    """The grid that holds all members; see :func:`jwstdask.wcs.mosaic.output_grid` for ``wanted``.

    Raises
    ------
    StepError
        If keywords are missing, or the image would be larger than ``largest`` pixels.
    """
    footprints, owners = member_footprints(members, step)
    first = members[0]
    wcsinfo = {name: first.meta.get(f"meta.wcsinfo.{name}") for name in _DETECTOR_WCS}
    if first.wcs is None:
        raise StepError(str(first.path), step, "the exposure has no WCS", "run assign_wcs first")
    missing = [name for name in ("ra_ref", "dec_ref", "roll_ref", "v3yangle", "vparity") if wcsinfo[name] is None]
    if missing:
        raise StepError(str(first.path), step, f"meta.wcsinfo lacks {', '.join(missing)}", "run assign_wcs first")
    try:
        grid = output_grid(footprints, first.wcs, wcsinfo, tuple(first.shape), **wanted)
    except ValueError as error:
        raise StepError(str(first.path), step, str(error), "check the WCS parameters") from error
    output_limit(grid, [members[owner] for owner in owners], footprints, largest)
    return grid


@dataclass
class Resampled:
    """A combined image, not yet computed.

    Attributes
    ----------
    grid
        WCS, shape and pixel scale.
    meta
        Metadata of the product under jwst's dotted names.
    removed
        Names that the first member has and the product has not.
    table
        Header table, one row a member; None without ``blendheaders``.
    arrays
        Name to (shape, dtype) of every array that :meth:`write` gives.
    """

    grid: OutputGrid
    meta: dict[str, Any]
    removed: list[str]
    table: NDArray | None
    arrays: dict[str, tuple[tuple[int, ...], np.dtype]]
    sources: list[Source] = field(repr=False)
    recipe: Recipe

    @property
    def wcs(self) -> Any:
        """gwcs of the image."""
        return self.grid.wcs

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.grid.shape

    def tiles(self) -> list[Tile]:
        """Parts of the image, full width, with what is needed to compute each."""
        return [self._tile(rows, slice(0, self.shape[1])) for rows in tiles(self.shape)]

    def _tile(self, rows: slice, columns: slice) -> Tile:
        near = rows if self.recipe.is_square else slice(rows.start - OTHER_REACH, rows.stop + OTHER_REACH)
        touching = [(number, source) for number, source in enumerate(self.sources) if source.touches(near)]
        return Tile(rows, columns, touching, self.recipe, self.grid, tuple(self.arrays))

    def tile(self, rows: slice, columns: slice | None = None) -> dict[str, NDArray]:
        """Arrays of part of the image, by name; ``con`` has (plane, y, x)."""
        return self._tile(rows, slice(0, self.shape[1]) if columns is None else columns).compute()

    def write(self, write_tile: Writer, map: Callable[[Callable, list], list] | None = None) -> None:
        """Compute the image tile by tile.

        Parameters
        ----------
        write_tile
            Called with name, rows, columns and array for each array of each tile. Rows do not overlap, so that tiles
            may be written at the same time.
        map
            ``tools.map``; None computes one tile after the other.
        """
        work = functools.partial(_write_tile, write_tile=write_tile)
        if map is None:
            for tile in self.tiles():
                work(tile)
        else:
            map(work, self.tiles())

    def compute(self) -> dict[str, NDArray]:
        """The whole image in memory, by name."""
        whole = {name: np.empty(shape, dtype) for name, (shape, dtype) in self.arrays.items()}

        def keep(name: str, rows: slice, columns: slice, array: NDArray) -> None:
            whole[name][..., rows, columns] = array

        self.write(keep)
        return whole


@dataclass(frozen=True)
class Tile:
    """Part of a combined image and the exposures that touch it."""

    rows: slice
    columns: slice
    sources: list[tuple[int, Source]]
    recipe: Recipe
    grid: OutputGrid
    names: tuple[str, ...]

    def compute(self) -> dict[str, NDArray]:
        """The arrays by name."""
        found = drizzle_tile(self.sources, self.recipe, self.grid, self.rows, self.columns)
        if self.recipe.variances:
            found["err"] = total_error(np.stack([found[name] for name in self.recipe.variances]))
        elif "err" in found and self.recipe.pixel_scale_ratio is not None:
            found["err"] /= np.float32(self.recipe.pixel_scale_ratio)
        return {name: found[name] for name in self.names}


def _write_tile(tile: Tile, write_tile: Writer) -> None:
    for name, array in tile.compute().items():
        write_tile(name, tile.rows, tile.columns, array)


@dataclass(frozen=True, kw_only=True)
class ResampleStep(Step):
    """Drizzle images onto a common tangent plane (Fruchter & Hook 2002, PASP 114, 144)."""

    alias: ClassVar[str] = "resample"
    class_name: ClassVar[str] = "ResampleStep"
    status: ClassVar[str] = "resample"
    kind: ClassVar[str] = "association"
    equations: ClassVar[str] = (
        "I = sum(a w d) / sum(a w), a: share of the input pixel in the output pixel, w: 1 / VAR_RNOISE (ivm);\n"
        "V = sum(W^2 (sum(a w sqrt(v)) / sum(a w))^2) / sum(W)^2 / ratio^2, W: 1 / drizzled VAR_RNOISE;\n"
        "ERR = sqrt(sum of V)"
    )
    sources: ClassVar[str] = "Fruchter & Hook 2002, PASP 114, 144"

    pixfrac: float = par(1.0, "side of the drop in input pixels", unit="pixel", ge=0.0, le=1.0)
    kernel: str = par(
        "square",
        "how a pixel's flux is spread",
        choices=("square", "gaussian", "point", "turbo", "lanczos2", "lanczos3"),
    )
    fillval: str = par("NAN", "value of pixels without data")
    weight_type: str | None = par("ivm", "weights of input pixels", choices=("ivm", "exptime", None))
    output_shape: tuple[int, ...] | None = par(None, "size (x, y) of the image", unit="pixel", length=(2, 2))
    crpix: tuple[float, ...] | None = par(None, "0-indexed reference pixel (x, y)", unit="pixel", length=(2, 2))
    crval: tuple[float, ...] | None = par(None, "sky position of the reference pixel", unit="degree", length=(2, 2))
    rotation: float | None = par(None, "position angle of the image's y axis", unit="degree")
    pixel_scale_ratio: float = par(1.0, "output over input pixel scale")
    pixel_scale: float | None = par(None, "output pixel scale", unit="arcsec")
    output_wcs: str = par("", "ASDF file with the output WCS, overrides the other WCS parameters")
    single: bool = par(False, "resample each exposure group by itself on the common grid")
    blendheaders: bool = par(True, "combine the metadata of the exposures")
    in_memory: bool = par(True, "no effect: memory does not depend on the number of exposures")
    enable_ctx: bool = par(True, "make the context image")
    enable_err: bool = par(True, "make the error image")
    report_var: bool = par(True, "keep the variance images")
    propagate_dq: bool = par(False, "make a data-quality image, bitwise-or of contributing pixels")
    pixmap_stepsize: float = par(1.0, "above 1, evaluate the WCS every so many pixels only", unit="pixel")
    pixmap_order: int = par(1, "order of the interpolation between them", choices=(1, 3))

    def check(self, meta: Mapping[str, Any]) -> None:
        fill_value(self.fillval)
        for name in ("output_shape", "crpix", "crval"):
            value = getattr(self, name)
            if value is not None and len(value) != 2:
                raise ParameterError(f"resample.{name} takes 2 values, not {len(value)}")
        if self.output_shape is not None and min(self.output_shape) < 2:
            raise ParameterError(f"resample.output_shape must be at least 2 x 2, not {self.output_shape}")

    def grid(self, members: Sequence[Any], largest: int = MAX_OUTPUT_PIXELS) -> OutputGrid:
        """The grid of the combined image.

        Raises
        ------
        StepError
            If there is no grid, or it has more than ``largest`` pixels.
        """
        if self.output_wcs:
            try:
                grid = custom_grid(self.output_wcs, self.output_shape)
            except ValueError as error:
                raise ParameterError(str(error)) from error
            footprints, owners = member_footprints(members, self.alias)
            output_limit(grid, [members[owner] for owner in owners], footprints, largest)
            return grid
        return common_grid(
            members,
            self.alias,
            largest,
            pixel_scale_ratio=self.pixel_scale_ratio,
            pixel_scale=self.pixel_scale,
            rotation=self.rotation,
            output_shape=None if self.output_shape is None else self.output_shape[::-1],
            crpix=self.crpix,
            crval=self.crval,
        )

    def run(self, members: Sequence[Any], references: Mapping[str, Any], tools: Any) -> Resampled | list[Resampled]:
        """Plan the combined image; its pixels are computed by :meth:`Resampled.write`.

        Parameters
        ----------
        members
            Exposures in the order of the association.
        references
            None are used.
        tools
            ``map`` and, if wanted, ``max_output_pixels``.

        Returns
        -------
        image
            The combined image; with ``single`` a list, one an exposure group.
        """
        if not members:
            raise ParameterError("resample needs at least one exposure")
        self.check(members[0].meta)
        grid = self.grid(members, getattr(tools, "max_output_pixels", None) or MAX_OUTPUT_PIXELS)
        make = functools.partial(Source.of, grid=grid, stepsize=self.pixmap_stepsize, order=self.pixmap_order)
        sources = [make(member) for member in members]
        if grid.pixel_scale_ratio is None:
            grid = OutputGrid(grid.wcs, grid.shape, grid.pixel_scale, self._custom_ratio(grid, members[0]))
        if self.single:
            groups: dict[str, list[int]] = {}
            for index, member in enumerate(members):
                groups.setdefault(group_id(member.meta, index), []).append(index)
            images = [
                self._plan([members[k] for k in chosen], [sources[k] for k in chosen], grid, members)
                for chosen in groups.values()
            ]
            for number, image in enumerate(images, 1):
                image.meta["meta.resample.pointings"] = number  # jwst goes on counting
            return images
        return self._plan(members, sources, grid, members)

    def _custom_ratio(self, grid: OutputGrid, first: Any) -> float | None:
        """Pixel scale ratio of a custom WCS: against the nominal pixel area of the first exposure."""
        area = first.meta.get("meta.photometry.pixelarea_steradians")
        if area is None or area <= 0:
            area = mean_pixel_area(first.wcs, tuple(first.shape))
        return None if area is None else grid.pixel_scale / (3600.0 * float(np.rad2deg(np.sqrt(area))))

    def _plan(
        self, members: Sequence[Any], sources: list[Source], grid: OutputGrid, association: Sequence[Any]
    ) -> Resampled:
        with_error = self.enable_err and not self.single
        recipe = Recipe(
            kernel=self.kernel,
            pixfrac=self.pixfrac,
            fill=fill_value(self.fillval),
            weight_type=self.weight_type,
            bad_bits=bad_bits(GOOD_BITS),
            pixel_scale_ratio=grid.pixel_scale_ratio,
            images=("sci", "err") if self.single else ("sci",),
            variances=VARIANCES if with_error else (),
            planes=-(-len(members) // 32) if self.enable_ctx else 0,
            dq=self.propagate_dq,
            match=True,
        )
        real, whole = np.dtype(np.float32), grid.shape
        arrays: dict[str, tuple[tuple[int, ...], np.dtype]] = {"sci": (whole, real)}
        if with_error or self.single:
            arrays["err"] = (whole, real)
        if self.propagate_dq:
            arrays["dq"] = (whole, np.dtype(np.uint32))
        if self.enable_ctx:
            arrays["con"] = ((recipe.planes, *whole), np.dtype(np.int32))
        arrays["wht"] = (whole, real)
        if with_error and self.report_var:
            arrays.update(dict.fromkeys(("var_poisson", "var_rnoise", "var_flat"), (whole, real)))
        meta, removed, table = self.metadata(members, grid, association, "err" in arrays)
        return Resampled(grid, meta, removed, table, arrays, sources, recipe)

    def metadata(
        self, members: Sequence[Any], grid: OutputGrid, association: Sequence[Any], has_error: bool
    ) -> tuple[dict[str, Any], list[str], NDArray | None]:
        """Metadata of the image of some members of an association, names taken out of the first one's, header table."""
        from jwstdask.program.blend import blend

        meta = dict(members[0].meta)
        table = None
        if self.blendheaders:
            combined, table = blend([member.meta for member in members], ignore=_NOT_BLENDED)
            meta.update(combined)
        changes = product_metadata(members, grid, self)
        footprints, _ = member_footprints(association, self.alias)
        wcsinfo, gone = grid_keywords(grid.wcs, meta)
        region = combined_s_region(footprints, grid.wcs)
        meta.update(changes)
        meta.update(wcsinfo)
        meta["meta.wcsinfo.s_region"] = region
        meta["meta.cal_step.resample"] = "COMPLETE"
        removed = [*gone, *(name for name, value in meta.items() if value is None)]
        if not has_error:
            removed.append("meta.bunit_err")
        for name in removed:
            meta.pop(name, None)
        return meta, removed, table


_NOT_BLENDED = ("meta.photometry.pixelarea_steradians", "meta.photometry.pixelarea_arcsecsq", "meta.filename")


def product_metadata(members: Sequence[Any], grid: OutputGrid, step: ResampleStep) -> dict[str, Any]:
    """Times, pixel area and parameters of the product.

    Images of one exposure on several detectors count once. MEASURE TIME is given only if every exposure has it.
    """
    times: dict[str, list[Any]] = {"start": [], "end": [], "exposure": [], "measured": [], "duration": []}
    seen: set[str] = set()
    complete = True
    for index, member in enumerate(members):
        name = group_id(member.meta, index)
        if name in seen:
            continue
        seen.add(name)
        get = functools.partial(_exposure_value, member.meta)
        times["start"].append(get("start_time"))
        times["end"].append(get("end_time"))
        times["exposure"].append(get("exposure_time"))
        complete &= get("measurement_time") is not None
        times["measured"].append(get("measurement_time"))
        times["duration"].append(get("duration"))
    total = {
        name: sum(value for value in values if value is not None)
        for name, values in times.items()
        if name in ("exposure", "measured", "duration")
    }
    starts = [value for value in times["start"] if value is not None]
    ends = [value for value in times["end"] if value is not None]
    area = grid.pixel_scale**2
    return {
        "meta.photometry.pixelarea_steradians": float(area / np.rad2deg(3600.0) ** 2),
        "meta.photometry.pixelarea_arcsecsq": float(area),
        "meta.resample.pointings": len(seen),
        "meta.resample.pixel_scale_ratio": grid.pixel_scale_ratio,
        "meta.resample.pixfrac": step.pixfrac,
        "meta.resample.kernel": step.kernel,
        "meta.resample.fillval": step.fillval,
        "meta.resample.weight_type": step.weight_type,
        "meta.exposure.exposure_time": total["exposure"],
        "meta.exposure.start_time": min(starts, default=None),
        "meta.exposure.end_time": max(ends, default=None),
        "meta.exposure.duration": total["duration"],
        "meta.exposure.measurement_time": total["measured"] if complete else None,
        "meta.exposure.effective_exposure_time": total["exposure"],
        "meta.exposure.elapsed_exposure_time": total["duration"],
        "meta.background.level": None,
        "meta.background.subtracted": None,
    }


def _exposure_value(meta: Mapping[str, Any], name: str) -> Any:
    return meta.get(f"meta.exposure.{name}")


def grid_keywords(wcs: Any, meta: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """FITS WCS keywords of the combined image, and the names of keywords that it must not have."""
    import re

    from gwcs.fitswcs import FITSImagingWCSTransform

    from jwstdask.wcs.sip import sip_keywords

    # what comes with the polynomials of a distorted image: their coefficients, errors and conventions
    sip = re.compile(r"(cd[12]_[12]|[ab]p?_\d_\d|[ab]p?_order|sip(mx|iv)err|l(on|at)pole|mjdref|wcsname)$")
    gone = [name for name in meta if name.startswith("meta.wcsinfo.") and sip.match(name.removeprefix("meta.wcsinfo."))]
    gone += [f"meta.wcsinfo.{name}" for name in _DETECTOR_WCS]
    transform = wcs.forward_transform
    if isinstance(transform, FITSImagingWCSTransform):
        frame = wcs.output_frame
        projection = transform.projection.prjprm.code
        pc = np.asarray(transform.pc)
        keywords = {
            "crpix1": float(transform.crpix[0]) + 1,
            "crpix2": float(transform.crpix[1]) + 1,
            "cdelt1": float(transform.cdelt[0]),
            "cdelt2": float(transform.cdelt[1]),
            "crval1": float(transform.crval[0]),
            "crval2": float(transform.crval[1]),
            "pc1_1": float(pc[0, 0]),
            "pc1_2": float(pc[0, 1]),
            "pc2_1": float(pc[1, 0]),
            "pc2_2": float(pc[1, 1]),
            "ctype1": f"RA---{projection}",
            "ctype2": f"DEC--{projection}",
            "cunit1": str(frame.unit[0]),
            "cunit2": str(frame.unit[1]),
            "radesys": frame.reference_frame.name.upper(),
        }
        return {f"meta.wcsinfo.{name}": value for name, value in keywords.items()}, gone
    changes = sip_keywords(wcs, {}, degree=1, inv_degree=0)
    return {name: value for name, value in changes.items() if value is not None}, gone
