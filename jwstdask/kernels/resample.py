"""Drizzle: linear reconstruction of dithered images (Fruchter & Hook 2002, PASP 114, 144).

An input pixel is a quadrilateral on the output grid; an output pixel takes from it in proportion to their common
area. The area is exact: it is the integral under the four edges of the quadrilateral, cell by cell. Areas are computed
once an input pixel and used for all its images.

Every quantity of an output pixel depends on the input pixels that touch it and on their order alone, in coordinates of
the whole output grid. So tiles of any shape give the bits of the whole image.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

POINT_PIXFRAC = 0.001
"""At or below this ``pixfrac`` a pixel is a point."""


def driz_weight(
    dq: NDArray[np.uint32],
    bad_bits: int,
    var_rnoise: NDArray[np.float32] | None = None,
    exposure_time: float | None = None,
) -> NDArray[np.float32]:
    """Weights of input pixels.

    Parameters
    ----------
    dq
        uint32 (y, x), data quality.
    bad_bits
        Pixels with any of these bits have weight 0.
    var_rnoise
        float32 (y, x). If given, the weight is its inverse (``ivm``), 0 where that is not finite.
    exposure_time
        If given (and no ``var_rnoise``), the weight of good pixels in s (``exptime``). Otherwise 1.

    Returns
    -------
    weight
        float32 (y, x).
    """
    good = (dq & np.uint32(bad_bits)) == 0
    if var_rnoise is not None:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            weight = np.float32(1.0) / np.asarray(var_rnoise, np.float32)
        weight[~(np.isfinite(weight) & good)] = 0.0
        return weight
    value = np.float32(1.0 if exposure_time is None else exposure_time)
    return np.where(good, value, np.float32(0.0))


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _mean_under(h0, h1):
    """Mean over a unit base of the height ``h0`` to ``h1`` of a line, clipped to 0..1; without branches."""
    low = min(h0, h1)
    high = max(h0, h1)
    inside_low = min(max(low, 0.0), 1.0)
    inside_high = min(max(high, 0.0), 1.0)
    above = max(high, 1.0) - max(low, 1.0)
    rise = high - low
    slanted = (0.5 * (inside_low + inside_high) * (inside_high - inside_low) + above) / (rise if rise > 0.0 else 1.0)
    return slanted if rise > 0.0 else inside_low


@numba.njit(cache=True, nogil=True, error_model="numpy")
def drizzle_square(
    pixel_map,
    map_origin,
    shape,
    rows,
    columns,
    images,
    weight,
    pixfrac,
    out,
    out_weight,
    running,
    context,
    bit,
    dq,
    out_dq,
    out_origin,
    spans,
):
    """Add pixels of one exposure to a tile with the square kernel.

    Parameters
    ----------
    pixel_map
        float64 (y, x, 2): position (x, y) of each input pixel centre on the output grid, NaN where there is none; one
        pixel more than ``rows``, ``columns`` on each side that the frame has.
    map_origin
        (y, x) of the first pixel of ``pixel_map`` in the frame.
    shape
        (y, x) shape of the input frame.
    rows, columns
        Input pixels to add, first and past-the-last, in the frame.
    images
        float32 (image, y, x) of ``rows`` and ``columns``.
    weight
        float32 (y, x) of ``rows`` and ``columns``; pixels of weight 0 are left out.
    pixfrac
        Side of the drop in input pixels.
    out
        float32 (image, y, x), the tile's weighted means so far; changed.
    out_weight
        float32 (2, y, x), sums of weights; changed. Plane 0 serves images below ``running`` (accumulated over
        exposures), plane 1 the others (one exposure).
    running
        Number of images accumulated over exposures.
    context
        int32 (y, x), one plane; changed. Empty to leave out.
    bit
        Value that marks this exposure in ``context``.
    dq
        uint32 (y, x) of ``rows`` and ``columns``, or empty.
    out_dq
        uint32 (y, x), bitwise-or of the contributing pixels; changed. Empty to leave out.
    out_origin
        (y, x) of the tile's first pixel on the output grid.
    spans
        int64 (y, 2), first and past-the-last column of each row of the frame that may be added: what
        :func:`jwstdask.kernels.overlap.spans` gives.
    """
    half = 0.5 * pixfrac
    ny, nx = shape
    tile_ny, tile_nx = out_weight.shape[1:]
    tile_y, tile_x = out_origin
    n_images = out.shape[0]
    with_context = context.size > 0
    with_dq = out_dq.size > 0
    single = n_images > running
    zero = np.float32(0.0)

    cx = np.empty(4)
    cy = np.empty(4)
    slope = np.empty(4)
    width = np.empty(4)
    height0 = np.empty(4)
    height1 = np.empty(4)

    for j in range(rows[0], rows[1]):
        # Corners lie between pixel centres: bilinear, extrapolated at the edges of the frame.
        below = j - 1 if j > 0 else 0
        above = j if j < ny - 1 else ny - 2
        fy_below = (j - half) - below
        fy_above = (j + half) - above
        jb = below - map_origin[0]
        ja = above - map_origin[0]
        done = -2  # the last column whose corners are at hand
        for i in range(max(columns[0], spans[j, 0]), min(columns[1], spans[j, 1])):
            w = weight[j - rows[0], i - columns[0]]
            if w == zero:
                continue
            left = i - 1 if i > 0 else 0
            right = i if i < nx - 1 else nx - 2
            fx_left = (i - half) - left
            fx_right = (i + half) - right
            il = left - map_origin[1]
            ir = right - map_origin[1]
            # Whole pixels share corners with the one before.
            shared = half == 0.5 and done == i - 1
            done = i
            if shared:
                cx[0], cy[0] = cx[1], cy[1]
                cx[3], cy[3] = cx[2], cy[2]
            for corner in range(4):
                if shared and (corner == 0 or corner == 3):
                    continue
                if corner == 0 or corner == 3:
                    ib, fx = il, fx_left
                else:
                    ib, fx = ir, fx_right
                if corner < 2:
                    jj, fy = ja, fy_above
                else:
                    jj, fy = jb, fy_below
                gx = 1.0 - fx
                gy = 1.0 - fy
                cx[corner] = (
                    pixel_map[jj, ib, 0] * gx * gy
                    + pixel_map[jj, ib + 1, 0] * fx * gy
                    + pixel_map[jj + 1, ib, 0] * gx * fy
                    + pixel_map[jj + 1, ib + 1, 0] * fx * fy
                )
                cy[corner] = (
                    pixel_map[jj, ib, 1] * gx * gy
                    + pixel_map[jj, ib + 1, 1] * fx * gy
                    + pixel_map[jj + 1, ib, 1] * gx * fy
                    + pixel_map[jj + 1, ib + 1, 1] * fx * fy
                )
            y_low = min(min(cy[0], cy[1]), min(cy[2], cy[3]))
            y_high = max(max(cy[0], cy[1]), max(cy[2], cy[3]))
            x_low = min(min(cx[0], cx[1]), min(cx[2], cx[3]))
            x_high = max(max(cx[0], cx[1]), max(cx[2], cx[3]))
            area = 0.5 * ((cx[1] - cx[3]) * (cy[0] - cy[2]) - (cx[0] - cx[2]) * (cy[1] - cy[3]))
            if not abs(area) > 0.0:  # no position, or no extent
                continue
            first_row = max(int(np.floor(y_low + 0.5)), tile_y)
            last_row = min(int(np.floor(y_high + 0.5)), tile_y + tile_ny - 1)
            if first_row > last_row:
                continue
            first_column = max(int(np.floor(x_low + 0.5)), tile_x)
            last_column = min(int(np.floor(x_high + 0.5)), tile_x + tile_nx - 1)
            if first_column > last_column:
                continue
            for edge in range(4):
                following = (edge + 1) & 3
                run = cx[following] - cx[edge]
                slope[edge] = (cy[following] - cy[edge]) / run if run != 0.0 else 0.0

            for column in range(first_column, last_column + 1):
                lower = column - 0.5
                upper = column + 0.5
                # Each edge, cut to this column: no width outside it. Branches here would cost more than the sums.
                for edge in range(4):
                    following = (edge + 1) & 3
                    x0 = min(max(cx[edge], lower), upper)
                    x1 = min(max(cx[following], lower), upper)
                    width[edge] = x1 - x0
                    height0[edge] = cy[edge] + (x0 - cx[edge]) * slope[edge]
                    height1[edge] = cy[following] + (x1 - cx[following]) * slope[edge]
                for row in range(first_row, last_row + 1):
                    bottom = row - 0.5
                    overlap = 0.0
                    for edge in range(4):
                        overlap += width[edge] * _mean_under(height0[edge] - bottom, height1[edge] - bottom)
                    overlap = abs(overlap)
                    if not overlap > 0.0:
                        continue
                    dow = np.float32(overlap / abs(area) * w)
                    if dow == zero:
                        continue
                    ty = row - tile_y
                    tx = column - tile_x
                    before = out_weight[0, ty, tx]
                    after = before + dow
                    for k in range(running):
                        value = images[k, j - rows[0], i - columns[0]]
                        if before == zero:
                            out[k, ty, tx] = value
                        else:
                            out[k, ty, tx] = (out[k, ty, tx] * before + dow * value) / after
                    out_weight[0, ty, tx] = after
                    if single:
                        before = out_weight[1, ty, tx]
                        after = before + dow
                        for k in range(running, n_images):
                            value = images[k, j - rows[0], i - columns[0]]
                            if before == zero:
                                out[k, ty, tx] = value
                            else:
                                out[k, ty, tx] = (out[k, ty, tx] * before + dow * value) / after
                        out_weight[1, ty, tx] = after
                    if dow > zero:
                        if with_context:
                            context[ty, tx] |= bit
                        if with_dq:
                            out_dq[ty, tx] |= dq[j - rows[0], i - columns[0]]


def drizzle_other(
    kernel: str,
    pixel_map: NDArray[np.float64],
    images: NDArray[np.float32],
    weight: NDArray[np.float32],
    pixfrac: float,
    pixel_scale_ratio: float,
    out: NDArray[np.float32],
    out_weight: NDArray[np.float32],
    running: int,
    context: NDArray[np.int32],
    bit: int,
    dq: NDArray[np.uint32],
    out_dq: NDArray[np.uint32],
) -> None:
    """Add pixels of one exposure to a tile with any kernel of the drizzle package.

    Parameters
    ----------
    kernel
        ``point``, ``turbo``, ``gaussian``, ``lanczos2`` or ``lanczos3``.
    pixel_map
        float64 (y, x, 2), position (x, y) of the pixels in the tile, NaN where there is none.
    pixel_scale_ratio
        Output over input pixel scale, for the size of the kernel.
    images, weight, pixfrac, out, out_weight, running, context, bit, dq, out_dq
        As in :func:`drizzle_square`. Unlike there the coordinates are the tile's own, so that other tiles agree to
        rounding only; callers that need the same bits keep to fixed tiles.
    """
    from drizzle.resample import Drizzle

    shape = out.shape[1:]
    how = {"exptime": 1.0, "pixmap": pixel_map, "pixel_scale_ratio": pixel_scale_ratio, "weight_map": weight}
    how["pixfrac"] = pixfrac
    if context.size or out_dq.size:
        # The marks of this exposure alone: the package checks a context against the weights it is given.
        alone = Drizzle(kernel=kernel, fillval="INDEF", out_shape=shape, max_ctx_id=0)
        alone.add_image(images[0], dq=dq if out_dq.size else None, **how)
        if context.size:
            context[alone.out_ctx[0] != 0] |= bit
        if out_dq.size:
            out_dq |= alone.out_dq
    for k in range(len(images)):
        plane = int(k >= running)
        # Only the last image of a plane may advance its sum of weights.
        last = k in (running - 1, len(images) - 1)
        total = out_weight[plane] if last else out_weight[plane].copy()
        task = Drizzle(kernel=kernel, fillval="INDEF", exptime=1.0, out_img=out[k], out_wht=total, disable_ctx=True)
        task.add_image(images[k], **how)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_variances(sigma, sigma_weight, rnoise_index, exposure_weight, rows, columns, total, total_weight):
    """Add the drizzled noise of one exposure to the sums of a tile.

    The variance of the weighted mean of exposures is sum(w**2 V) / sum(w)**2, with w the inverse of the drizzled
    read-noise variance (or the exposure time).

    Parameters
    ----------
    sigma
        float32 (variance, y, x), drizzled square roots of the variances of one exposure.
    sigma_weight
        float32 (y, x), their drizzle weights; 0 where there is no data.
    rnoise_index
        Which variance gives the weight; below 0 the weight is ``exposure_weight``.
    exposure_weight
        Weight of the exposure when no variance gives it.
    rows, columns
        First and past-the-last row and column to work on.
    total, total_weight
        float32 (variance, y, x), sums of w**2 V (NaN where nothing was added) and of w; changed.
    """
    n = len(sigma)
    for y in range(rows[0], rows[1]):
        for x in range(columns[0], columns[1]):
            if sigma_weight[y, x] == 0.0:
                continue
            if rnoise_index >= 0:
                rnoise = sigma[rnoise_index, y, x] * sigma[rnoise_index, y, x]
                if not (rnoise > 0.0 and np.isfinite(rnoise)):
                    continue
                weight = np.float64(np.float32(1.0) / rnoise)
            else:
                weight = exposure_weight
            if not weight > 0.0:
                continue
            for k in range(n):
                variance = sigma[k, y, x] * sigma[k, y, x]
                if not (variance >= 0.0 and np.isfinite(variance)):
                    continue
                added = np.float64(variance) * weight * weight
                if np.isnan(total[k, y, x]):
                    total[k, y, x] = np.float32(added)
                elif not np.isnan(added):
                    total[k, y, x] = np.float32(np.float64(total[k, y, x]) + added)
                total_weight[k, y, x] = np.float32(np.float64(total_weight[k, y, x]) + weight)


def finish_variances(
    total: NDArray[np.float32], total_weight: NDArray[np.float32], pixel_scale_ratio: float | None
) -> NDArray[np.float32]:
    """Variances of the combined image, float32 (variance, y, x); NaN without data.

    ``pixel_scale_ratio`` is output over input pixel scale: an output pixel that covers more sky averages more noise.
    """
    scaling = np.float32(1.0 if pixel_scale_ratio is None else 1.0 / pixel_scale_ratio**2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return total * scaling / total_weight / total_weight


def total_error(variances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Square root of the sum over the first dimension, leaving out NaN; NaN where all are."""
    missing = np.isnan(variances).all(axis=0)
    error = np.sqrt(np.nansum(variances, axis=0))
    error[missing] = np.nan
    return error
