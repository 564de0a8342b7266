"""Match the sky levels of overlapping exposures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from spherical_geometry import vector
from spherical_geometry.polygon import MalformedPolygonError, SphericalPolygon

from jwstdask.core.errors import ParameterError, StepError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.io.naming import exposure_stem
from jwstdask.kernels.skymatch import SkyStatistic, convex_overlap, fill_polygon, good_pixels, select
from jwstdask.steps.imaging.drizzle import bad_bits, group_id

_RANK = 1e-12  # relative size of the singular values that count as zero

Measured = tuple[Any, int, bool]
"""Sky, number of pixels, and whether the images overlap at all; the sky is None without valid pixels."""


@dataclass
class _Image:
    """A member with its outline on the sky and its level."""

    member: Any
    outline: SphericalPolygon
    sky: float
    valid: bool = False


@dataclass
class _Group:
    """Images of one exposure, whose levels change together."""

    images: list[_Image]
    sky: float = 0.0

    def add(self, sky: Any, valid: bool) -> None:
        if len(self.images) == 1:
            change = sky
        else:
            # The group's level is what is known to full precision; its images follow.
            total = self.sky + sky
            self.sky, change = total, total - self.sky
        for image in self.images:
            image.sky, image.valid = image.sky + change, valid


@dataclass(frozen=True)
class _Task:
    """One image and the regions of it to measure: overlaps with sets of other images, or all of it (None)."""

    member: Any
    outline: SphericalPolygon
    partners: tuple[tuple[SphericalPolygon, ...] | None, ...]
    bad: int
    statistic: SkyStatistic


@dataclass(frozen=True, kw_only=True)
class SkyMatchStep(Step):
    """Match the sky levels of overlapping exposures."""

    alias = "skymatch"
    class_name = "SkyMatchStep"
    status = "skymatch"
    kind = "association"
    status_by_member = True
    equations = (
        "sum over pairs of W_ij^2 [(sky_i - sky_j) - (S_ij - S_ji)]^2 -> min, least sky = 0;\n"
        "S_ij: skystat of image i inside its overlap with j, clipped; W_ij: mean of the numbers of pixels"
    )
    sources = "JWST pipeline documentation, skymatch"

    skymethod: str = par(
        "match", "how sky levels are found", choices=("local", "global", "match", "global+match", "user")
    )
    match_down: bool = par(True, "match to the lowest level, not the highest")
    subtract: bool = par(False, "subtract the levels from the images")
    skylist: str | None = par(None, "file of image names and sky levels, for skymethod=user")
    stepsize: int | None = par(
        None, "distance of the vertices of an image's outline; corners only if none", unit="pixel"
    )
    skystat: str = par("mode", "statistic of the sky", choices=("median", "midpt", "mean", "mode"))
    dqbits: str | None = par("~DO_NOT_USE+NON_SCIENCE", "data-quality bits of good pixels")
    lower: float | None = par(None, "least value of a good pixel", unit="MJy/sr")
    upper: float | None = par(None, "greatest value of a good pixel", unit="MJy/sr")
    nclip: int = par(5, "number of clippings", ge=0)
    lsigma: float = par(4.0, "clipping limit below the mean", unit="sigma", ge=0.0)
    usigma: float = par(4.0, "clipping limit above the mean", unit="sigma", ge=0.0)
    binwidth: float = par(0.1, "bin width of mode and midpt", unit="sigma", ge=0.0)
    in_memory: bool = par(True, "accepted for compatibility: memory is bounded either way")

    def check(self, meta: Meta) -> None:
        bad_bits(self.dqbits)
        if self.skymethod == "user" and self.skylist is None:
            raise ParameterError("skymatch.skymethod is 'user' but there is no list of levels", "give skymatch.skylist")

    def run(self, members: Sequence[Any], references: Mapping[str, Any], tools: Any) -> str | None:
        """Find the level of every member.

        Parameters
        ----------
        members
            Science exposures, changed: ``meta.background.level`` [MJy/sr], ``subtracted`` and ``method`` where a level
            was found, ``meta.cal_step.skymatch`` of each, and with ``subtract`` their ``offsets``.
        references
            Not used.
        tools
            One task measures all overlaps of one image; it holds that image only.

        Returns
        -------
        str or None
            Why no member has a level, or None.

        Raises
        ------
        StepError
            If a member has been matched before with another ``subtract``, or the list of levels does not fit.

        Notes
        -----
        Levels follow jwst's bit for bit. ``skymethod=global`` ignores members without valid pixels where jwst stops
        with an error.
        """
        self.check(members[0].meta)
        if self.skymethod == "user":
            self._from_list(members)
            return None
        groups = self._groups(members)
        if "match" in self.skymethod:
            self._match(groups, tools)
        if self.skymethod != "match":
            self._level(groups, tools)
        images = [image for group in groups for image in group.images]
        for image in images:
            if image.valid:
                self._record(image.member, image.sky)
            image.member.meta["meta.cal_step.skymatch"] = "COMPLETE" if image.valid else "SKIPPED"
        return None if any(image.valid for image in images) else "no valid pixels to measure the sky in"

    def _record(self, member: Any, level: Any) -> None:
        member.meta["meta.background.level"] = float(level)
        member.meta["meta.background.subtracted"] = self.subtract
        member.meta["meta.background.method"] = self.skymethod

    # -- from the images

    def _groups(self, members: Sequence[Any]) -> list[_Group]:
        groups: dict[str, _Group] = {}
        for index, member in enumerate(members):
            image = _Image(member, outline(member.wcs, member.shape, self.stepsize), self._earlier_level(member))
            groups.setdefault(group_id(member.meta, index), _Group([])).images.append(image)
        return list(groups.values())

    def _earlier_level(self, member: Any) -> float:
        """Level that was subtracted from the pixels before."""
        level, subtracted = (member.meta.get(f"meta.background.{name}") for name in ("level", "subtracted"))
        if subtracted is None and level is None:
            return 0.0
        if subtracted is None or level is None:
            missing = "BKGSUB" if subtracted is None else "BKGLEVEL"
            raise StepError(member.name, "skymatch", f"a sky level is recorded without {missing}", f"set {missing}")
        if bool(subtracted) != self.subtract:
            raise StepError(
                member.name,
                "skymatch",
                f"an earlier run had subtract={bool(subtracted)}, this one has subtract={self.subtract}",
                f"set skymatch.subtract to {bool(subtracted)}, or start from images that are not matched",
            )
        return float(level) if self.subtract else 0.0

    def _measure(
        self, groups: Sequence[_Group], partners: Mapping[tuple[int, int], Any], tools: Any
    ) -> dict[tuple[int, int], list[Measured]]:
        """Statistics of regions: ``partners[group, image]`` lists them; results under the same keys."""
        statistic = SkyStatistic(
            self.skystat, self.lower, self.upper, self.nclip, self.lsigma, self.usigma, self.binwidth
        )
        bad = bad_bits(self.dqbits)
        tasks = [
            _Task(image.member, image.outline, tuple(regions), bad, statistic)
            for (g, k), regions in partners.items()
            for image in [groups[g].images[k]]
        ]
        return dict(zip(partners, tools.map(measure, tasks), strict=True))

    def _match(self, groups: Sequence[_Group], tools: Any) -> None:
        """Levels that agree best in all overlaps."""
        near = _near([[image.outline for image in group.images] for group in groups])
        outlines = [tuple(image.outline for image in group.images) for group in groups]
        keys = {
            (g, k): others
            for g, group in enumerate(groups)
            for k in range(len(group.images))
            if (others := [h for h in range(len(groups)) if h in near[g, k]])
        }
        # An image far from all of a group's images shares nothing with it, and adds nothing.
        found = self._measure(groups, {key: [outlines[h] for h in others] for key, others in keys.items()}, tools)
        overlaps: dict[tuple[int, int], list[Measured]] = {}
        for (g, k), others in keys.items():
            for h, measured in zip(others, found[g, k], strict=True):
                overlaps.setdefault((g, h), []).append(measured)
        skies = {
            pair: (values[0] if len(groups[pair[0]].images) == 1 else _mean(values))
            for pair, values in overlaps.items()
        }
        deltas = solve(len(groups), skies)
        good = np.isfinite(deltas)
        if good.any():
            deltas[good] -= deltas[good].min() if self.match_down else deltas[good].max()
        for group, delta in zip(groups, deltas):
            self._add(group, float(delta) if np.isfinite(delta) else None)

    def _level(self, groups: Sequence[_Group], tools: Any) -> None:
        """Levels of whole images: the least of each group, or of all."""
        everything = {(g, k): [None] for g, group in enumerate(groups) for k in range(len(group.images))}
        found = self._measure(groups, everything, tools)
        levels = []
        for g, group in enumerate(groups):
            skies = [found[g, k][0][0] for k in range(len(group.images))]
            if not self.subtract:  # the pixels still have the levels found before
                skies = [sky if sky is None else sky - image.sky for sky, image in zip(skies, group.images)]
            levels.append(min((sky for sky in skies if sky is not None), default=None))
        if "global" not in self.skymethod:
            for group, level in zip(groups, levels):
                self._add(group, level)
            return
        least = min((level for level in levels if level is not None), default=None)
        for group in groups:
            if least is not None:
                self._add(group, least)

    def _add(self, group: _Group, sky: Any) -> None:
        group.add(0.0 if sky is None else sky, sky is not None)
        if self.subtract and sky is not None:
            for image in group.images:
                image.member.offsets = [*image.member.offsets, sky]

    # -- from a file

    def _from_list(self, members: Sequence[Any]) -> None:
        skies = read_skylist(str(self.skylist))
        if len(skies) != len(members):
            raise StepError(
                str(self.skylist),
                "skymatch",
                f"there are {len(skies)} levels for {len(members)} images",
                "list each image once",
            )
        stems = [name for name, _ in skies]
        for member in members:
            stem = exposure_stem(member.path)
            if stems.count(stem) != 1:
                problem = "is not in" if stem not in stems else "is more than once in"
                raise StepError(member.name, "skymatch", f"{stem} {problem} {self.skylist}", "list each image once")
            sky = skies[stems.index(stem)][1]
            self._record(member, sky)
            member.meta["meta.cal_step.skymatch"] = "COMPLETE"
            if self.subtract:
                member.offsets = [*member.offsets, sky]


def read_skylist(path: str) -> list[tuple[str, float]]:
    """Names of exposures and their sky levels, rounded to float32, from a text file of two columns.

    Raises
    ------
    ParameterError
        If a line has not a name and a number.
    """
    found = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                name, value = words
                found.append((exposure_stem(name), float(np.float32(value))))
            except ValueError:
                raise ParameterError(f"{path}, line {number}: {line.strip()!r} is not a name and a sky level") from None
    return found


def outline(wcs: Any, shape: tuple[int, ...], stepsize: int | None = None) -> SphericalPolygon:
    """Outline on the sky of the outer edges of an image's pixels.

    Parameters
    ----------
    wcs
        gwcs from pixels to sky [degree].
    shape
        (y, x).
    stepsize
        Greatest distance of vertices [pixel]; None for corners only.
    """
    ny, nx = shape

    def ticks(size: int) -> np.ndarray:
        count = 2 if stepsize is None else max(2, int(np.ceil((size + 1.0) / stepsize)))
        return np.linspace(-0.5, size - 0.5, count)

    x, y = ticks(nx), ticks(ny)[1:-1]
    around_x = [x, np.full(y.size, nx - 0.5), x[::-1], np.full(y.size, -0.5), x[:1]]
    around_y = [np.full(x.size, -0.5), y, np.full(x.size, ny - 0.5), y[::-1], np.array([-0.5])]
    ra, dec = wcs(np.concatenate(around_x), np.concatenate(around_y), with_bounding_box=False)
    ra[-1], dec[-1] = ra[0], dec[0]  # closed, whatever the rounding
    return SphericalPolygon.from_radec(ra, dec)


def _near(outlines: Sequence[Sequence[SphericalPolygon]]) -> dict[tuple[int, int], set[int]]:
    """Groups, other than its own, that may overlap an image, by the circles around all outlines."""
    owner = np.array([g for g, group in enumerate(outlines) for _ in group])
    vertices = [np.concatenate(list(polygon.points)) for group in outlines for polygon in group]
    centres = np.array([points.mean(axis=0) for points in vertices])
    centres /= np.linalg.norm(centres, axis=1)[:, None]
    # Chords: well-conditioned for small angles. A polygon lies inside the circle through its farthest vertex.
    radii = np.array(
        [2 * np.arcsin(0.5 * np.linalg.norm(points - c, axis=1).max()) for points, c in zip(vertices, centres)]
    )
    result = {}
    first = np.concatenate([[0], np.cumsum([len(group) for group in outlines])])
    for index in range(len(owner)):
        distance = 2 * np.arcsin(np.minimum(0.5 * np.linalg.norm(centres - centres[index], axis=1), 1.0))
        close = distance <= (radii + radii[index]) * (1 + 1e-6)
        g = int(owner[index])
        result[g, index - int(first[g])] = set(owner[close].tolist()) - {g}
    return result


def _mean(values: Sequence[Measured]) -> Measured:
    """Mean of the images of a group, weighted by their pixels."""
    total, weight = 0.0, 0
    for sky, count, _ in values:
        if sky is not None and count > 0:
            total += sky * count
            weight += count
    overlap = any(value[2] for value in values)
    return (total / weight if weight and overlap else None), weight, overlap


def solve(count: int, skies: Mapping[tuple[int, int], Measured]) -> np.ndarray:
    """Levels that make the skies of all pairs agree, by least squares.

    Parameters
    ----------
    count
        Number of exposures.
    skies
        ``skies[i, j]``: sky of ``i`` in its overlap with ``j``.

    Returns
    -------
    numpy.ndarray
        float64 (exposure): levels of zero mean in each connected set; NaN for exposures without an overlap.
    """
    rows, values = [], []
    seen = np.zeros(count, bool)
    for i in range(count):
        for j in range(i + 1, count):
            here, there = skies.get((i, j)), skies.get((j, i))
            if here is None or there is None or here[0] is None or there[0] is None:
                continue
            if not (here[2] and there[2] and here[1] > 0 and there[1] > 0):
                continue
            weight = 0.5 * (float(here[1]) + float(there[1]))
            row = np.zeros(count)
            row[i], row[j] = weight, -weight
            rows.append(row)
            values.append(weight * (float(here[0]) - float(there[0])))
            seen[[i, j]] = True
    deltas = np.full(count, np.nan)
    if rows:
        solution = np.dot(np.linalg.pinv(np.array(rows), rcond=_RANK), np.array(values))
        deltas[seen] = solution[seen]
    return deltas


def measure(task: _Task) -> list[Measured]:
    """Sky of one image in each of its regions."""
    member = task.member
    image = np.asarray(member.read("sci"), np.float32)
    good = good_pixels(image, member.read("dq"), task.bad)
    inverse = None
    found: list[Measured] = []
    for partners in task.partners:
        if partners is None:
            found.append((*task.statistic(select(image, good)), True))
            continue
        region = np.zeros(image.shape, bool)
        overlap = False
        for partner in partners:
            polygons = _intersection(task.outline, partner)
            overlap = overlap or polygons is not None
            for ra, dec in polygons or ():
                if len(ra) >= 4:
                    if inverse is None:
                        inverse = member.wcs.backward_transform
                    x, y = inverse(ra, dec, with_bounding_box=False)
                    fill_polygon(x, y, region)
        if overlap:
            region &= good
            sky, count = task.statistic(select(image, region))
            overlap = sky is not None
        else:
            sky, count = None, 0
        found.append((sky, count, overlap))
    return found


def _intersection(one: SphericalPolygon, other: SphericalPolygon) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Right ascensions and declinations [degree] of the common polygons; None if there are none."""
    (points,), (others,) = list(one.points), list(other.points)
    found = convex_overlap(points, others)
    if found is not None:
        return [vector.vector_to_lonlat(*found.T)] if len(found) else None
    try:
        common = one.intersection(other)
    except MalformedPolygonError:  # of nearly identical polygons
        common = one
    return list(common.to_radec()) if common.area() != 0.0 else None
