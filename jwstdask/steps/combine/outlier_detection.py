"""Flag outliers of dithered images against their median."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from jwstdask.core.block import Window
from jwstdask.core.errors import ParameterError, StepError
from jwstdask.core.params import par
from jwstdask.core.step import Step
from jwstdask.kernels import outlier_detection as kernel
from jwstdask.kernels.resample import driz_weight
from jwstdask.steps.imaging.drizzle import (
    MAX_OUTPUT_PIXELS,
    Recipe,
    Source,
    bad_bits,
    drizzle_tile,
    fill_value,
    group_id,
    measured_time,
    tiles,
)
from jwstdask.steps.imaging.resample import ResampleStep, common_grid
from jwstdask.wcs.mosaic import OutputGrid

IMAGE_TYPES = ("NRC_IMAGE", "MIR_IMAGE", "NRS_IMAGE", "NIS_IMAGE", "FGS_IMAGE")

_MEDIAN_VALUES = 1 << 22  # values of all images and weights that a task holds for the median
_FLAG_ROWS = 256


@dataclass(frozen=True)
class Intermediate:
    """An intermediate image that the user asked for.

    Attributes
    ----------
    suffix
        ``outlier_i2d``, ``blot`` or ``median``.
    arrays
        Array name to .npy file, float32 (y, x): the image, and the weight of a drizzled one.
    member
        Index of the (first) exposure that it is named after.
    meta
        Its metadata.
    wcs
        gwcs of the image.
    """

    suffix: str
    arrays: Mapping[str, Path]
    member: int
    meta: Mapping[str, Any]
    wcs: Any

    @property
    def path(self) -> Path:
        """File of the image."""
        return self.arrays["sci"]


@dataclass
class Outliers:
    """What was flagged.

    Attributes
    ----------
    masks
        .npy file of each member's outliers, bool (y, x), in the order of the members; empty if skipped.
    counts
        Number of outliers of each member.
    skipped
        Why nothing was done, or None.
    intermediate
        Images that ``save_intermediate_results`` asks for.
    """

    masks: list[Path] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    skipped: str | None = None
    intermediate: list[Intermediate] = field(default_factory=list)


@dataclass(frozen=True)
class _Group:
    """Images of one exposure on the common grid: where they lie and where their scratch files are."""

    rows: slice
    columns: slice
    image: Path
    weight: Path


def _numbers(text: str, name: str) -> tuple[float, float]:
    try:
        first, second = (float(word) for word in str(text).replace(",", " ").split())
    except ValueError:
        raise ParameterError(f"outlier_detection.{name} must be two numbers, not {text!r}") from None
    return first, second


@dataclass(frozen=True, kw_only=True)
class OutlierDetectionStep(Step):
    """Flag pixels that differ from the median of all exposures at their position (Fruchter & Hook 2002, section 5)."""

    alias: ClassVar[str] = "outlier_detection"
    class_name: ClassVar[str] = "OutlierDetectionStep"
    status: ClassVar[str] = "outlier_detection"
    kind: ClassVar[str] = "association"
    equations: ClassVar[str] = (
        "|SCI - blot - backg| > scale2 |grad blot| + snr2 ERR, and\n"
        "within 3 x 3 pixels |SCI - blot - backg| > scale1 |grad blot| + snr1 ERR;\n"
        "blot: median of the drizzled exposures, taken back to the exposure"
    )
    sources: ClassVar[str] = "Fruchter & Hook 2002, PASP 114, 144, section 5"

    weight_type: str = par("ivm", "weights of input pixels", choices=("ivm", "exptime"))
    pixfrac: float = par(1.0, "side of the drop in input pixels", unit="pixel", ge=0.0, le=1.0)
    kernel: str = par("square", "how a pixel's flux is spread", choices=("square", "point", "turbo"))
    fillval: str = par("NAN", "value of pixels without data")
    maskpt: float = par(0.7, "fraction of the mean weight below which pixels do not enter the median")
    snr: str = par("5.0 4.0", "least distance from the median in standard deviations, before and after smoothing")
    scale: str = par("1.2 0.7", "share of the median's gradient allowed, before and after smoothing")
    backg: float = par(0.0, "background of the exposures that the median has not")
    kernel_size: str = par("7 7", "size of the median filter of IFU data", unit="pixel")
    threshold_percent: float = par(99.8, "percentile of IFU data above which pixels are outliers")
    rolling_window_width: int = par(25, "integrations of the rolling median of time series")
    ifu_second_check: bool = par(False, "flag neighbours of NaN in IFU data")
    save_intermediate_results: bool = par(False, "keep the median, drizzled and blotted images")
    resample_data: bool = par(True, "drizzle before the median")
    good_bits: str = par("~DO_NOT_USE", "data-quality flags to ignore")
    search_output_file: bool = par(False, "take output_file from the enclosing pipeline")
    in_memory: bool = par(True, "no effect: memory does not depend on the number of exposures")
    pixmap_stepsize: float = par(1.0, "above 1, evaluate the WCS every so many pixels only", unit="pixel")
    pixmap_order: int = par(1, "order of the interpolation between them", choices=(1, 3))

    def check(self, meta: Mapping[str, Any]) -> None:
        fill_value(self.fillval)
        bad_bits(self.good_bits)
        _numbers(self.snr, "snr")
        _numbers(self.scale, "scale")

    def run(self, members: Sequence[Any], references: Mapping[str, Any], tools: Any) -> Outliers:
        """Find the outliers of every member.

        Parameters
        ----------
        members
            Exposures in the order of the association.
        references
            None are used.
        tools
            ``map``, ``scratch`` (a folder for temporary files) and ``log``.

        Returns
        -------
        outliers
            A mask a member. The pixels become NaN, OUTLIER and DO_NOT_USE.

        Raises
        ------
        StepError
            If a member has no sky position, or the members have different shapes and are not resampled.
        """
        if len(members) < 2:
            return Outliers(skipped=f"a median needs at least 2 exposures, there is {len(members)}")
        types = sorted({str(member.meta.get("meta.exposure.type")) for member in members})
        if not set(types) <= set(IMAGE_TYPES):
            return Outliers(skipped=f"exposure type {', '.join(types)} is not an image")
        self.check(members[0].meta)
        scratch = Path(tools.scratch)
        scratch.mkdir(parents=True, exist_ok=True)
        return self._resampled(members, scratch, tools) if self.resample_data else self._plain(members, scratch, tools)

    def _resampled(self, members: Sequence[Any], scratch: Path, tools: Any) -> Outliers:
        largest = getattr(tools, "max_output_pixels", None) or MAX_OUTPUT_PIXELS
        grid = common_grid(members, self.alias, largest)
        make = functools.partial(Source.of, grid=grid, stepsize=self.pixmap_stepsize, order=self.pixmap_order)
        sources = [make(member) for member in members]
        recipe = Recipe(
            kernel=self.kernel,
            pixfrac=self.pixfrac,
            fill=fill_value(self.fillval),
            weight_type=self.weight_type,
            bad_bits=bad_bits(self.good_bits),
            pixel_scale_ratio=grid.pixel_scale_ratio,
        )
        names: dict[str, list[int]] = {}
        for index, member in enumerate(members):
            names.setdefault(group_id(member.meta, index), []).append(index)

        groups, work = [], []
        for number, chosen in enumerate(names.values()):
            rows, columns = _extent([sources[k] for k in chosen], grid)
            group = _Group(
                rows,
                columns,
                scratch / f"outlier_{number:05d}_i2d.npy",
                scratch / f"outlier_{number:05d}_wht.npy",
            )
            shape = rows.stop - rows.start, columns.stop - columns.start
            for path in (group.image, group.weight):
                _allocate(path, shape, np.float32)
            own = [(k, sources[k]) for k in chosen]
            work += [(group, own, slice(part.start + rows.start, part.stop + rows.start)) for part in tiles(shape)]
            groups.append(group)
        tools.map(functools.partial(_drizzle_group, recipe=recipe, grid=grid), work)
        thresholds = tools.map(functools.partial(_threshold, maskpt=self.maskpt), [group.weight for group in groups])

        median = scratch / "outlier_median.npy"
        _allocate(median, grid.shape, np.float32)
        combine = functools.partial(_median_tile, groups=groups, thresholds=thresholds, out=median, width=grid.shape[1])
        tools.map(combine, tiles(grid.shape, planes=max(1, -(-2 * len(groups) * (1 << 20) // _MEDIAN_VALUES))))

        keep = self.save_intermediate_results
        how = {"snr": _numbers(self.snr, "snr"), "scale": _numbers(self.scale, "scale"), "backg": self.backg}
        tasks = [
            (
                source,
                scratch / f"outlier_{index:05d}_mask.npy",
                scratch / f"outlier_{index:05d}_blot.npy" if keep else None,
            )
            for index, source in enumerate(sources)
        ]
        counts = tools.map(functools.partial(_flag, median=median, grid=grid, **how), tasks)
        result = Outliers([task[1] for task in tasks], counts)
        if keep:
            drizzled = self._drizzled(members, list(names.values()), groups, grid, recipe.fill)
            result.intermediate += drizzled
            result.intermediate.append(Intermediate("median", {"sci": median}, 0, drizzled[0].meta, grid.wcs))
            result.intermediate += [
                Intermediate("blot", {"sci": path}, index, members[index].meta, members[index].wcs)
                for index, (_, _, path) in enumerate(tasks)
                if path is not None
            ]
        else:
            median.unlink()
        for group in groups:
            group.image.unlink()
            group.weight.unlink()
        return result

    def _drizzled(
        self,
        members: Sequence[Any],
        chosen: list[list[int]],
        groups: list[_Group],
        grid: OutputGrid,
        fill: float,
    ) -> list[Intermediate]:
        """The drizzled image of each exposure on the whole grid."""
        resample = ResampleStep(
            pixfrac=self.pixfrac,
            kernel=self.kernel,
            fillval=self.fillval,
            weight_type=self.weight_type,
            blendheaders=False,
        )
        found = []
        for number, (group, own) in enumerate(zip(groups, chosen), 1):
            arrays = {}
            for name, path, empty in (("sci", group.image, fill), ("wht", group.weight, 0.0)):
                arrays[name] = path.with_name(path.stem + "_whole.npy")
                _uncropped(path, group, grid, arrays[name], empty)
            meta = resample.metadata([members[k] for k in own], grid, members, has_error=False)[0]
            meta["meta.resample.pointings"] = number  # jwst goes on counting
            found.append(Intermediate("outlier_i2d", arrays, own[0], meta, grid.wcs))
        return found

    def _plain(self, members: Sequence[Any], scratch: Path, tools: Any) -> Outliers:
        shape = tuple(members[0].shape)
        for member in members[1:]:
            if tuple(member.shape) != shape:
                raise StepError(
                    str(member.path),
                    self.alias,
                    f"shape {tuple(member.shape)} differs from {shape} of {members[0].path}",
                    "use resample_data=True",
                )
        bits = bad_bits(self.good_bits)
        weigh = functools.partial(_plain_threshold, maskpt=self.maskpt, weight_type=self.weight_type, bits=bits)
        thresholds = tools.map(weigh, list(members))
        median = scratch / "outlier_median.npy"
        _allocate(median, shape, np.float32)
        combine = functools.partial(
            _plain_median,
            members=list(members),
            thresholds=thresholds,
            weight_type=self.weight_type,
            bits=bits,
            out=median,
        )
        tools.map(combine, tiles(shape, planes=max(1, -(-2 * len(members) * (1 << 20) // _MEDIAN_VALUES))))
        snr = _numbers(self.snr, "snr")[0]
        tasks = [(member, scratch / f"outlier_{index:05d}_mask.npy") for index, member in enumerate(members)]
        counts = tools.map(functools.partial(_plain_flag, median=median, snr=snr), tasks)
        result = Outliers([path for _, path in tasks], counts)
        if self.save_intermediate_results:
            result.intermediate.append(Intermediate("median", {"sci": median}, 0, members[0].meta, members[0].wcs))
        else:
            median.unlink()
        return result


def _extent(sources: Sequence[Source], grid: OutputGrid) -> tuple[slice, slice]:
    """Rows and columns of the grid that a group may touch; one pixel if none."""
    found = [part for part in (source.extent(grid) for source in sources) if part is not None]
    if not found:
        return slice(0, 1), slice(0, 1)
    rows, columns = zip(*found)
    return tuple(slice(min(part.start for part in axis), max(part.stop for part in axis)) for axis in (rows, columns))


def _allocate(path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    """A .npy file of zeros that workers fill in parts."""
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()


def _drizzle_group(task: tuple[_Group, list[tuple[int, Source]], slice], recipe: Recipe, grid: OutputGrid) -> None:
    group, sources, rows = task
    tile = drizzle_tile(sources, recipe, grid, rows, group.columns)
    place = slice(rows.start - group.rows.start, rows.stop - group.rows.start)
    for path, name in ((group.image, "sci"), (group.weight, "wht")):
        file = np.load(path, mmap_mode="r+")
        file[place] = tile[name]


def _threshold(path: Path, maskpt: float) -> float:
    return kernel.weight_threshold(np.load(path, mmap_mode="r"), maskpt)


def _median_tile(rows: slice, groups: Sequence[_Group], thresholds: Sequence[float], out: Path, width: int) -> None:
    height = rows.stop - rows.start
    # A group that does not reach these rows adds nothing; a small mosaic member adds only its own columns.
    inside = [k for k, group in enumerate(groups) if group.rows.start < rows.stop and group.rows.stop > rows.start]
    images = np.full((len(inside), height, width), np.nan, np.float32)
    weights = np.zeros_like(images)
    for place, k in enumerate(inside):
        group = groups[k]
        first, last = max(rows.start, group.rows.start), min(rows.stop, group.rows.stop)
        here = slice(first - rows.start, last - rows.start)
        there = slice(first - group.rows.start, last - group.rows.start)
        images[place, here, group.columns] = np.load(group.image, mmap_mode="r")[there]
        weights[place, here, group.columns] = np.load(group.weight, mmap_mode="r")[there]
    result = np.empty((height, width), np.float32)
    kernel.median_of_images(images, weights, np.array([thresholds[k] for k in inside]), result)
    np.load(out, mmap_mode="r+")[rows] = result


def _flag(
    task: tuple[Source, Path, Path | None],
    median: Path,
    grid: OutputGrid,
    snr: tuple[float, float],
    scale: tuple[float, float],
    backg: float,
) -> int:
    """Flag one exposure; write its mask, and its interpolated median if asked."""
    source, mask_path, blot_path = task
    meta = source.exposure.meta
    level = meta.get("meta.background.level")
    if meta.get("meta.background.subtracted") is False and level is not None:
        backg = level
    image = np.load(median, mmap_mode="r")
    mask = np.zeros(source.shape, bool)
    blots = np.full(source.shape, np.nan, np.float32) if blot_path is not None else None
    for start in range(0, source.shape[0], _FLAG_ROWS):
        stop = min(start + _FLAG_ROWS, source.shape[0])
        window = Window.around(start, stop, 0, source.shape[1], halo=2, shape=source.shape)
        reference = np.empty(window.shape, np.float32)
        _blot(source.pixel_map(window), image, grid.shape, reference)
        rows = window.inner[0]
        if blots is not None:
            blots[start:stop] = reference[rows]
        kernel.flag_resampled(
            _float(source.exposure, "sci", window.rows),
            _float(source.exposure, "err", window.rows),
            reference, snr, scale, backg, (rows.start, rows.stop), mask[start:stop],
        )  # fmt: skip
    np.save(mask_path, mask)
    if blots is not None:
        np.save(blot_path, blots)
    return int(np.count_nonzero(mask))


def _blot(positions: NDArray[np.float64], image: NDArray[np.float32], shape: tuple[int, int], out: NDArray) -> None:
    """Interpolate at ``positions``, reading only the part of the image that they need."""
    y0, y1, x0, x1 = kernel.reach(positions, shape)
    part = np.ascontiguousarray(image[y0:y1, x0:x1])
    kernel.blot(positions, part, (y0, x0), shape, out)


def _float(exposure: Any, name: str, rows: slice) -> NDArray[np.float32]:
    return np.ascontiguousarray(exposure.read(name, rows, slice(None)), np.float32)


def _uncropped(cropped: Path, group: _Group, grid: OutputGrid, path: Path, fill: float) -> None:
    """Copy a group's drizzled image or weight to a file of the whole grid."""
    whole = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=grid.shape)
    whole[:] = fill
    whole[group.rows, group.columns] = np.load(cropped, mmap_mode="r")


def _plain_weight(exposure: Any, rows: slice, weight_type: str, bits: int) -> NDArray[np.float32]:
    everything = slice(None)
    dq = np.asarray(exposure.read("dq", rows, everything), np.uint32)
    if weight_type == "ivm":
        return driz_weight(dq, bits, _float(exposure, "var_rnoise", rows))
    return driz_weight(dq, bits, exposure_time=measured_time(exposure.meta))


def _plain_threshold(exposure: Any, weight_type: str, bits: int, maskpt: float) -> float:
    return kernel.weight_threshold(_plain_weight(exposure, slice(None), weight_type, bits), maskpt)


def _plain_median(
    rows: slice, members: Sequence[Any], thresholds: Sequence[float], weight_type: str, bits: int, out: Path
) -> None:
    images = np.stack([_float(member, "sci", rows) for member in members])
    weights = np.stack([_plain_weight(member, rows, weight_type, bits) for member in members])
    result = np.empty(images.shape[1:], np.float32)
    kernel.median_of_images(images, weights, np.array(thresholds), result)
    np.load(out, mmap_mode="r+")[rows] = result


def _plain_flag(task: tuple[Any, Path], median: Path, snr: float) -> int:
    exposure, path = task
    reference = np.load(median, mmap_mode="r")
    mask = np.zeros(tuple(exposure.shape), bool)
    for start in range(0, len(mask), _FLAG_ROWS):
        rows = slice(start, min(start + _FLAG_ROWS, len(mask)))
        kernel.flag_plain(
            _float(exposure, "sci", rows), _float(exposure, "err", rows), np.ascontiguousarray(reference[rows]), snr,
            mask[rows],
        )  # fmt: skip
    np.save(path, mask)
    return int(np.count_nonzero(mask))
