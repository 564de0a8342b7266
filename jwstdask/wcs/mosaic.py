"""Grid of a combined image: a tangent plane that holds the footprints of its members.

The scale is that of the first member at its reference point, the orientation that of its detector (or a given position
angle), the tangent point the middle of the union of the footprints. Source: FITS WCS papers I and II (Greisen &
Calabretta 2002, Calabretta & Greisen 2002) for the TAN projection; JWST pipeline documentation, "resample".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jwstdask.io.asdf import read_tree
from jwstdask.wcs.footprint import parse_s_region
from jwstdask.wcs.pixelmap import limits


@dataclass(frozen=True)
class OutputGrid:
    """Where the pixels of a combined image lie.

    Attributes
    ----------
    wcs
        gwcs, with bounding box and array shape.
    shape
        (y, x).
    pixel_scale
        Pixel scale [arcsec].
    pixel_scale_ratio
        Output over input pixel scale; None if it follows from the first member (custom WCS).
    """

    wcs: Any
    shape: tuple[int, int]
    pixel_scale: float
    pixel_scale_ratio: float | None


def polygons(s_region: str) -> list[np.ndarray]:
    """Corners of every polygon of an S_REGION, each float64 (n, 2) [degree]."""
    parts = (part.strip() for part in s_region.split("POLYGON ICRS"))
    return [parse_s_region("POLYGON ICRS " + part) for part in parts if part]


def middle(corners: np.ndarray) -> tuple[float, float]:
    """Sky position [degree] of the middle of the box around unit vectors towards ``corners`` (n, 2)."""
    ra, dec = np.deg2rad(corners).T
    unit = np.stack((np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)))
    x, y, z = 0.5 * (unit.max(axis=1) + unit.min(axis=1))
    return float(np.rad2deg(np.arctan2(y, x)) % 360.0), float(np.rad2deg(np.arctan2(z, np.hypot(x, y))))


def scale_at(wcs: Any, ra: float, dec: float) -> float:
    """Pixel scale [degree] at a sky position: geometric mean of the steps along x and y."""
    from astropy import units
    from astropy.coordinates import angular_separation

    x, y = (float(value) for value in wcs.invert(ra, dec, with_bounding_box=False))
    # Degrees until after the subtraction: a pixel is 1e-8 of a turn, and the rounding of radians would show.
    lon, lat = wcs(np.array([x, x + 1, x]), np.array([y, y, y + 1]), with_bounding_box=False) * units.deg
    steps = angular_separation(lon[0], lat[0], lon[1:], lat[1:]).to_value(units.deg)
    return float(np.sqrt(steps[0] * steps[1]))


def mean_pixel_area(wcs: Any, shape: tuple[int, int]) -> float | None:
    """Mean sky area [sr] of the pixels inside the bounding box: area of their outline over their number.

    The outline has a point at least every 15 pixels. None if no rectangle of pixels has finite positions all around.
    """
    from spherical_geometry.polygon import SphericalPolygon

    (x_low, x_high), (y_low, y_high) = (sorted(ends) for ends in limits(wcs, shape))
    x0, x1 = max(0, int(x_low + 0.5)), min(shape[1] - 1, int(x_high - 0.5))
    y0, y1 = max(0, int(y_low + 0.5)), min(shape[0] - 1, int(y_high - 0.5))
    side = 0  # bottom, right, top, left in turn: the first side found with a missing position moves inwards
    while x0 < x1 and y0 < y1:
        step_x, step_y = min((x1 - x0) // 4, 15) or x1 - x0 + 1, min((y1 - y0) // 4, 15) or y1 - y0 + 1
        nx, ny = max(1, math.ceil((x1 - x0 + 1) / step_x)), max(1, math.ceil((y1 - y0 + 1) / step_y))
        sides = (
            (np.linspace(x0, x1, nx, False), np.full(nx, float(y0))),
            (np.full(ny, float(x1)), np.linspace(y0, y1, ny, False)),
            (np.linspace(x1, x0, nx, False), np.full(nx, float(y1))),
            (np.full(ny, float(x0)), np.linspace(y1, y0, ny, False)),
        )
        sky = [wcs(*points)[:2] for points in sides]
        finite = [bool(np.isfinite(ra).all() and np.isfinite(dec).all()) for ra, dec in sky]
        if all(finite):
            ra, dec = np.hstack(sky)
            centre = wcs(0.5 * (x0 + x1), 0.5 * (y0 + y1))[:2]
            area = SphericalPolygon.from_radec(ra, dec, center=centre).area()
            if area > 2 * math.pi:
                area = 4 * math.pi - area
            return float(area / ((x1 - x0) * (y1 - y0)))
        while finite[side]:
            side = (side + 1) % 4
        y0, x1, y1, x0 = y0 + (side == 0), x1 - (side == 1), y1 - (side == 2), x0 + (side == 3)
        side = (side + 1) % 4
    return None


def output_grid(
    footprints: Sequence[np.ndarray],
    wcs: Any,
    wcsinfo: Mapping[str, Any],
    shape: tuple[int, int],
    *,
    pixel_scale_ratio: float = 1.0,
    pixel_scale: float | None = None,
    rotation: float | None = None,
    output_shape: tuple[int, int] | None = None,
    crpix: Sequence[float] | None = None,
    crval: Sequence[float] | None = None,
) -> OutputGrid:
    """The grid that holds all footprints.

    Parameters
    ----------
    footprints
        Corners (n, 2) on the sky [degree], of all members.
    wcs, wcsinfo, shape
        gwcs, ``meta.wcsinfo`` (ra_ref, dec_ref, roll_ref, v3yangle, vparity) and shape (y, x) of the first member.
    pixel_scale_ratio
        Output over input pixel scale; ignored if ``pixel_scale`` is given.
    pixel_scale
        Output pixel scale [arcsec].
    rotation
        Position angle of the output y axis [degree]; None keeps the orientation of the first member's detector.
    output_shape
        (y, x); None is large enough for all footprints.
    crpix
        0-indexed (x, y) of the tangent point; None puts the lower corner of the union at the origin.
    crval
        Tangent point [degree]; None is the middle of the union.

    Raises
    ------
    ValueError
        If a side would have fewer than 2 pixels, or the WCS is not two-dimensional.
    """
    import gwcs
    from astropy.modeling import models

    if wcs.output_frame.naxes != 2:
        raise ValueError(f"an image needs 2 world axes, the WCS of the first exposure has {wcs.output_frame.naxes}")
    if pixel_scale is None:
        scale = scale_at(wcs, wcsinfo["ra_ref"], wcsinfo["dec_ref"]) * pixel_scale_ratio
        ratio = pixel_scale_ratio
    else:
        scale = pixel_scale / 3600.0
        area = mean_pixel_area(wcs, shape)
        if area is None:
            raise ValueError("the pixel scale of the first exposure cannot be measured: it has no valid sky positions")
        ratio = scale / np.rad2deg(math.sqrt(area))

    tangent = tuple(map(float, crval)) if crval is not None else middle(np.vstack(footprints))
    parity = wcsinfo["vparity"]
    if rotation is None:
        angle = math.radians(wcsinfo["roll_ref"]) - parity * math.radians(wcsinfo["v3yangle"])
    else:
        angle = math.radians(rotation)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[parity * cos, sin], [-parity * sin, cos]])

    projection = models.Pix2Sky_TAN()
    to_sky = (
        models.AffineTransformation2D(matrix=matrix)
        | models.Scale(scale) & models.Scale(scale)
        | projection
        | models.RotateNative2Celestial(*tangent, 180)
    )
    corners = np.hstack([to_sky.inverse(*footprint.T) for footprint in footprints])
    low, high = corners.min(axis=1), corners.max(axis=1)
    origin = np.array(to_sky.inverse(*tangent))
    # Position of the tangent point in the image: as asked, or so that the union starts at 0.
    offset = origin - low if crpix is None else np.asarray(crpix, float) - origin
    low, high = low + offset, high + offset
    if output_shape is None:
        size = tuple(int(value + 0.5) for value in high[::-1])
        box = tuple((-0.5, n - 0.5) for n in size[::-1])
    else:
        size = tuple(int(n) for n in output_shape)
        box = tuple((max(0, int(a + 0.5)) - 0.5, min(int(b + 0.5), n) - 0.5) for a, b, n in zip(low, high, size[::-1]))
    if min(size) < 2:
        raise ValueError(f"the output image would have {size[1]} x {size[0]} pixels; the smallest is 2 x 2")

    transform = gwcs.FITSImagingWCSTransform(
        projection, crpix=tuple(offset), crval=tangent, cdelt=[scale, scale], pc=matrix
    )
    result = gwcs.WCS([gwcs.Step(wcs.input_frame, transform), gwcs.Step(wcs.output_frame, None)])
    result.bounding_box = box
    result.pixel_shape = size[::-1]
    return OutputGrid(result, size, 3600.0 * scale, ratio)


def custom_grid(path: str | Path, output_shape: Sequence[int] | None = None) -> OutputGrid:
    """The grid of a WCS that the user wrote to an ASDF file.

    Parameters
    ----------
    path
        File with the gwcs under ``wcs`` and, if wanted, ``pixel_scale`` [arcsec] or ``pixel_area`` [arcsec2],
        ``array_shape`` or ``pixel_shape``.
    output_shape
        (x, y), if the file does not say.

    Raises
    ------
    ValueError
        If nothing gives the shape, or the WCS is not an imaging WCS.
    """
    found = read_tree(path)
    wcs = found["wcs"]
    tree = {name: found.get(name) for name in ("pixel_area", "pixel_scale", "pixel_shape", "array_shape")}
    if wcs.output_frame.naxes != 2:
        raise ValueError(f"{path}: an image needs 2 world axes, this WCS has {wcs.output_frame.naxes}")
    if output_shape is not None:
        wcs.array_shape = tuple(output_shape)[::-1]
    elif wcs.array_shape is None:
        if tree["array_shape"] is not None:
            wcs.array_shape = tuple(tree["array_shape"])
        elif tree["pixel_shape"] is not None:
            wcs.array_shape = tuple(tree["pixel_shape"])[::-1]
        elif wcs.bounding_box is not None:
            wcs.array_shape = tuple(int(ends[1] + 0.5) for ends in limits(wcs)[::-1])
        else:
            raise ValueError(f"{path}: output_shape is needed, the WCS has neither shape nor bounding box")
    shape = tuple(int(n) for n in wcs.array_shape)
    scale = tree["pixel_scale"]
    if scale is None and tree["pixel_area"] is not None:
        scale = math.sqrt(tree["pixel_area"])
    if scale is None:
        area = mean_pixel_area(wcs, shape)
        if area is None:
            raise ValueError(f"{path}: the pixel scale cannot be measured, give pixel_scale in the file")
        scale = 3600.0 * math.degrees(math.sqrt(area))
    return OutputGrid(wcs, shape, float(scale), None)


def combined_s_region(footprints: Sequence[np.ndarray], wcs: Any) -> str | None:
    """S_REGION of a combined image: union of the footprints inside the image, one polygon an island.

    Parameters
    ----------
    footprints
        Corners (n, 2) on the sky [degree] of all members.
    wcs
        gwcs of the image.

    Returns
    -------
    s_region
        Polygons with collinear and repeated points removed; None if no footprint touches the image.
    """
    import shapely

    def to_pixels(corners: np.ndarray) -> np.ndarray:
        return np.stack(wcs.invert(*corners.T, with_bounding_box=False), axis=-1)

    def islands(shape: Any) -> list[Any]:
        return [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and not part.is_empty]

    union = shapely.unary_union([shapely.Polygon(to_pixels(corners)) for corners in footprints])
    frame = shapely.Polygon(to_pixels(np.asarray(wcs.footprint())))
    found = []
    for island in islands(union):
        outline = shapely.Polygon(_without_collinear(island))
        shared = shapely.intersection(outline, frame)
        found += [_without_collinear(part) for part in islands(shared)]
    if not found:
        return None
    texts = []
    for corners in found:
        sky = np.stack(wcs(*corners.T, with_bounding_box=False), axis=-1)
        texts.append("POLYGON ICRS  " + " ".join(f"{ra:.9f} {dec:.9f}" for ra, dec in sky))
    return "  ".join(texts)


def _without_collinear(polygon: Any, near: float = 0.05, straight: float = 1e-6) -> np.ndarray:
    """Corners (n, 2) of a polygon less those within ``near`` pixels of the one before or on a straight side [rad]."""
    corners = np.asarray(polygon.exterior.coords)[:-1]
    before = corners - np.roll(corners, 1, axis=0)
    after = np.roll(corners, -1, axis=0) - corners
    repeated = (np.abs(before) < near).all(axis=1)
    slope_in, slope_out = (step[:, 1] / (step[:, 0] + 1e-12) for step in (before, after))
    with np.errstate(divide="ignore"):  # a right angle
        turn = np.arctan((slope_out - slope_in) / (1 + slope_in * slope_out))
    return corners[~(repeated | (np.abs(turn) < straight))]
