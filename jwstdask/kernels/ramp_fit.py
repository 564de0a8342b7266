"""Slopes of ramps: ordinary least squares on the pieces between flagged groups, with optimal weights.

Method: Fixsen et al. 2000 (PASP 112, 1350) for the weights, Robberto 2009 (JWST-STScI-001853) for the variances of
segment slopes; choices of detail follow the JWST pipeline's algorithm ``OLS_C``, described in its documentation under
"Slope and variance calculations".

A *segment* is a run of good groups; it takes in the group before it if that group carries the jump flag and nothing
else, since a jump adds its charge before that group is read. Segments are combined with their read-noise
variances as weights. Three paths give the same bits, since what lies half way between two results would else be
rounded otherwise:

* integrations of a pixel without any flag: one segment of known length, computed for a line of pixels at once, by the
  shortest way; where that leaves in doubt how a result is rounded, pixel by pixel (`jwstdask.kernels.ramp_lines`);
* those with the usual flags: gathered from many lines, and computed side by side, operation by operation but for
  reciprocals of reciprocals under the root of an error (`jwstdask.kernels.ramp_flagged`);
* everything else: pixel by pixel (`jwstdask.kernels.ramp_pixel`).

All arithmetic is float64 on float32 input, except the times of a group and of a frame and the power in the weights,
which the pipeline holds as float32.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from jwstdask.core.dq import CHARGELOSS, DO_NOT_USE, JUMP_DET, NO_GAIN_VALUE, PERSISTENCE, SATURATED
from jwstdask.kernels.compiled import COMPILED, INLINE, UNCOUNTED
from jwstdask.kernels.networks import median_network, sorting_network
from jwstdask.kernels.ramp_flagged import fit_flagged, gather, median_rates, suits
from jwstdask.kernels.ramp_lines import (
    INFINITE,
    copy_ramps,
    doubtful,
    median_differences,
    slope_coefficients,
    slopes,
    weight_table,
)
from jwstdask.kernels.ramp_pixel import (
    LARGE_VARIANCE,
    capped,
    fit_ramp,
    load,
    median_rate,
    read_weight_with_chargeloss,
    time_of_single,
)
from jwstdask.kernels.ramp_vectors import LANES, copy_line

_LINES = 32  # lines of pixels that are gone through together

_SMALL = 1.0e-30  # smaller variances are not looked at closer [(DN/s)^2]


class Slopes(NamedTuple):
    """Count rates of one product.

    Attributes
    ----------
    sci
        float32 ([integration,] y, x), rate [DN/s].
    err
        float32, standard deviation [DN/s].
    dq
        uint32, data-quality flags.
    var_poisson, var_rnoise
        float32, variances by photon and read noise [(DN/s)^2].
    """

    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> Slopes:
        """Zeros of ``shape``."""
        kinds = (np.float32, np.float32, np.uint32, np.float32, np.float32)
        return cls(*(np.zeros(shape, kind) for kind in kinds))

    @classmethod
    def zeros_outside(cls, shape: tuple[int, ...], y0: int, y1: int, x0: int, x1: int) -> Slopes:
        """Zeros of ``shape``, but for rows y0:y1, columns x0:x1, which may hold anything."""
        kinds = (np.float32, np.float32, np.uint32, np.float32, np.float32)
        slopes = cls(*(np.empty(shape, kind) for kind in kinds))
        for image in slopes:
            image[..., :y0, :] = 0
            image[..., y1:, :] = 0
            image[..., y0:y1, :x0] = 0
            image[..., y0:y1, x1:] = 0
        return slopes


# A line of pixels -----------------------------------------------------------------------------------------------------


@numba.njit(**INLINE)
def _good(groupdq, i, y, x, first, last):
    """Number of groups of a ramp without any flag."""
    count = 0
    for group in range(first, last):
        count += groupdq[i, group, y, x] == 0
    return count


@numba.njit(**UNCOUNTED)
def _padded(count):
    """Ramps to fit together where there are so many: vectors need no rest."""
    return (count + 7) // 8 * 8


@numba.njit(**UNCOUNTED)
def _take(places, counts, taken, batch, integration):
    """Fill a batch with the next of the ramps listed by integration; ``taken`` says how far that has come."""
    number = 0
    while taken[0] < counts.size:
        i, j = taken
        count = min(counts[i] - j, LANES - number)
        for k in range(count):
            batch[number + k] = places[i, j + k]
            integration[number + k] = i
        number += count
        if j + count < counts[i]:
            taken[1] = j + count
            break
        taken[0] = i + 1
        taken[1] = 0
        if number == LANES:
            break
    return number


@numba.njit(**INLINE)
def _write(err, dq, poisson, rnoise, to_err, to_dq, to_poisson, to_rnoise):
    copy_line(err, to_err)
    copy_line(dq, to_dq)
    copy_line(poisson, to_poisson)
    copy_line(rnoise, to_rnoise)


@numba.njit(**INLINE)
def _combine(weighted, poisson_weight, read_weight):
    """Slope, error, var_poisson and var_rnoise of an exposure from the sums over its integrations."""
    poisson = 1.0 / poisson_weight if poisson_weight > 0.0 else poisson_weight
    poisson = 0.0 if (poisson >= LARGE_VARIANCE or poisson < 0.0) else poisson
    variance = 1.0 / read_weight if read_weight > 0.0 else read_weight
    variance = 0.0 if variance >= LARGE_VARIANCE else variance
    return weighted * variance, np.sqrt(poisson + variance), poisson, variance


@numba.njit(**INLINE)
def _near_limit(variance):
    """Whether the last bits may decide if a variance is unknown."""
    return abs(variance - LARGE_VARIANCE) < 1.0


@numba.njit(**INLINE)
def _fit_lines(
    sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark, group_time, frame_time, nframes, suppress, first, last,
    y0, y1, x0, x1, origin, coefficients, bound, table, network, sorting,
    rate_sci, rate_err, rate_dq, rate_poisson, rate_rnoise, ints_sci, ints_err, ints_dq, ints_poisson, ints_rnoise,
    one_pixel, one_line, lines, flagged,
):  # fmt: skip
    """What :func:`_fit_rows` does, with arrays to work in."""
    data, dq, original, counts, starts, lengths, scratch, sums = one_pixel
    ramps, union, doubted, greatest_bits, steps, line_work = one_line
    line_y, line_x, work, marks, constant, clean, numbers = lines
    others, places, together, alone, batch, batch_integration, taken, again, groups, found, lane_work = flagged
    integrations = sci.shape[0]
    size = last - first
    one_group_time = (np.float64(np.float32(nframes)) + 1.0) * frame_time / 2.0
    root = np.sqrt(2.0 * nframes)
    invalid = np.uint32(DO_NOT_USE | SATURATED)
    sci_bits = sci.view(np.uint32)

    # Of a whole ramp without flags: var_rnoise by the squared noise [DN], var_poisson by the rate of electrons.
    length = float(size)
    read_factor = 12.0 / ((length * length * length - length) * group_time * group_time)
    poisson_factor = 1.0 / (group_time * (length - 1.0))
    # What the order of operations may change in sums over integrations, and in a few operations.
    sum_error = (integrations + 16) * 2.0**-52
    few_errors = 2.0**-47

    pixel_gain, pixel_noise, pixel_dark, median = work[0], work[1], work[2], work[3]
    inverse_gain, full_rnoise, full_read_weight = work[4], work[5], work[6]
    weighted, poisson_weight, read_weight, recovered, slack = work[7], work[8], work[9], work[10], work[11]
    full_poisson = work[12]
    pixel_dq, flags, dead, filled, partly, has_chargeloss = marks[0], marks[1], marks[2], marks[3], marks[4], marks[5]
    unsure = marks[6]
    out_err, out_poisson, out_rnoise = constant[0], constant[1], constant[2]
    greatest = greatest_bits.view(np.float32)
    line_median, before, kind, slope = line_work[0], line_work[1], line_work[2], line_work[3]
    flagged_data, states, positions, segment_lengths, heads = groups[0], groups[1], groups[2], groups[3], groups[4]
    rates, lane_gain, lane_noise, lane_scale, lane_dark = (
        lane_work[7], lane_work[8], lane_work[9], lane_work[10], lane_work[11]
    )  # fmt: skip
    lane_sums, lane_results = lane_work[13:17], lane_work[17:21]
    in_row, most = (x1 - x0 + LANES - 1) // LANES, line_y.size

    # Lines beside each other, then those of the next row: memory is read in the order in which it lies.
    for top in range(0, (y1 - y0) * in_row, most):
        height = min(most, (y1 - y0) * in_row - top)
        for r in range(height):
            line_y[r] = y0 + (top + r) // in_row
            # The last line of a row begins within the one before.
            line_x[r] = min(x0 + (top + r) % in_row * LANES, x1 - LANES)

        for r in range(height):
            y, line = line_y[r], slice(line_x[r], line_x[r] + LANES)
            row_gain = gain[y, line]
            row_noise = readnoise[y, line]
            row_dq = pixeldq[y, line]
            for lane in range(LANES):
                pixel_gain[r, lane] = np.float64(row_gain[lane])
            for lane in range(LANES):
                noise = np.float32(np.float64(row_noise[lane]) * (pixel_gain[r, lane] / root))
                pixel_noise[r, lane] = np.float64(noise)
            if dark.size > 1:
                row_dark = dark[y, line]
                for lane in range(LANES):
                    pixel_dark[r, lane] = row_dark[lane]
            else:
                pixel_dark[r, :] = dark[0, 0]
            for lane in range(LANES):
                no_gain = np.uint32(0) if pixel_gain[r, lane] > 0.0 else np.uint32(DO_NOT_USE | NO_GAIN_VALUE)
                pixel_dq[r, lane] = row_dq[lane] | no_gain
            for lane in range(LANES):
                inverse_gain[r, lane] = 1.0 / pixel_gain[r, lane]
                noise = pixel_noise[r, lane] * inverse_gain[r, lane]
                full_rnoise[r, lane] = read_factor * (noise * noise)
            if integrations > 1:
                for lane in range(LANES):
                    full_read_weight[r, lane] = 1.0 / full_rnoise[r, lane]
            for lane in range(LANES):
                median[r, lane] = 0.0
                weighted[r, lane] = 0.0
                poisson_weight[r, lane] = 0.0
                read_weight[r, lane] = 0.0
                recovered[r, lane] = 0.0
                slack[r, lane] = 0.0
            for lane in range(LANES):
                flags[r, lane] = pixel_dq[r, lane]
                dead[r, lane] = 0
                filled[r, lane] = 0
                partly[r, lane] = 0
                has_chargeloss[r, lane] = 0

        # Median rate: the mean over integrations of the median difference. And slopes of ramps without flags.
        waiting = 0
        taken[:] = 0
        for i in range(integrations):
            together[i] = 0
            alone[i] = 0
            for r in range(height):
                y, left = line_y[r], line_x[r]
                line = slice(left, left + LANES)
                ok = clean[i, r]
                copy_ramps(sci, sci_bits, groupdq, i, y, line, first, size, ramps, greatest_bits, union)
                number = 0
                for lane in range(LANES):
                    usable = (union[lane] == 0) & ((pixel_dq[r, lane] & invalid) == 0) & (size > 1)
                    ok[lane] = usable & (greatest_bits[lane] < INFINITE)
                    number += ok[lane]
                if number > 0:
                    median_differences(ramps, size, group_time, network, before, steps, line_median)
                    slopes(ramps, size, pixel_gain[r], pixel_noise[r], coefficients, kind, slope)
                    for lane in range(LANES):
                        median[r, lane] += line_median[lane] if ok[lane] else 0.0
                    out = ints_sci[i, y, line]
                    doubts = np.uint32(0)
                    for lane in range(LANES):
                        margin = np.float64(greatest[lane]) * bound
                        doubt = np.uint32(doubtful(slope[lane], margin)) & np.uint32(ok[lane])
                        doubted[lane] = doubt
                        doubts |= doubt
                        out[lane] = slope[lane]
                    if doubts:
                        for lane in range(LANES):
                            if doubted[lane]:
                                ok[lane] = 0
                                alone[i] += 1
                                places[i, -alone[i]] = r * LANES + lane
                    if integrations > 1:
                        for lane in range(LANES):
                            weight = full_read_weight[r, lane] if ok[lane] else 0.0
                            margin = np.float64(greatest[lane]) * bound + abs(slope[lane]) * sum_error
                            weighted[r, lane] += slope[lane] * weight if ok[lane] else 0.0
                            slack[r, lane] += margin * weight if ok[lane] else 0.0
                            read_weight[r, lane] += weight
                numbers[i, r] = number
                if number == LANES:
                    continue
                count = 0
                for lane in range(LANES):
                    others[count] = lane
                    count += 1 - (ok[lane] | (doubted[lane] if number > 0 else 0))
                for lane in others[:count]:
                    sound = (pixel_dq[r, lane] & invalid) == 0 and greatest_bits[lane] < INFINITE
                    good = _good(groupdq, i, y, left + lane, first, last)
                    if sound and suits(union[lane], good, groupdq[i, first, y, left + lane]):
                        places[i, together[i]] = r * LANES + lane
                        together[i] += 1
                        continue
                    alone[i] += 1
                    places[i, -alone[i]] = r * LANES + lane
                    load(sci, groupdq, zeroframe, i, y, left + lane, first, last, suppress, data, dq, original, counts)
                    median[r, lane] += median_rate(
                        data, dq, counts[3], group_time, frame_time, one_group_time, scratch
                    )  # fmt: skip
            waiting += together[i]
            while waiting >= LANES or (waiting > 0 and i == integrations - 1):
                count = _take(places, together, taken, batch, batch_integration)
                waiting -= count
                width = _padded(count)
                gather(
                    width, sci, groupdq, batch_integration, line_y, line_x, first, size, batch[:count], flagged_data,
                    states, found,
                )  # fmt: skip
                median_rates(width, flagged_data, states, size, group_time, sorting, groups[5], lane_work, rates)
                for k in range(count):
                    median[batch[k] // LANES, batch[k] % LANES] += rates[k]

        # What a whole ramp without flags gives, apart from its slope, is the same for all integrations.
        for r in range(height):
            if integrations > 1:
                for lane in range(LANES):
                    median[r, lane] /= np.float64(integrations)
            doubts = np.uint32(0)
            for lane in range(LANES):
                variance = full_rnoise[r, lane]
                rate = median[r, lane]
                photons = pixel_dark[r, lane] + (rate if rate > 0.0 else 0.0)
                poisson = photons * inverse_gain[r, lane] * poisson_factor
                error = np.sqrt(poisson + variance)
                out_err[r, lane] = error
                out_poisson[r, lane] = poisson
                out_rnoise[r, lane] = variance
                doubt = doubtful(error, error * few_errors) | doubtful(poisson, poisson * few_errors)
                doubt |= doubtful(variance, variance * few_errors)
                doubt |= not ((variance > _SMALL) & (poisson + variance < 0.999 * LARGE_VARIANCE))
                doubt |= not ((poisson > _SMALL) | (poisson == 0.0))
                unsure[r, lane] = doubt
                doubts |= doubt
                full_poisson[r, lane] = poisson
            if doubts:
                for lane in range(LANES):
                    if unsure[r, lane]:
                        weighted[r, lane] = 0.0
                        slack[r, lane] = 0.0
                        read_weight[r, lane] = 0.0
                for i in range(integrations):
                    for lane in range(LANES):
                        if clean[i, r, lane] and unsure[r, lane]:
                            clean[i, r, lane] = 0
                            alone[i] += 1
                            places[i, -alone[i]] = r * LANES + lane
            if integrations > 1:
                for lane in range(LANES):
                    poisson = full_poisson[r, lane]
                    full_poisson[r, lane] = 1.0 / poisson if poisson > 0.0 else 0.0
                for i in range(integrations):
                    for lane in range(LANES):
                        poisson_weight[r, lane] += full_poisson[r, lane] if clean[i, r, lane] else 0.0

        # Once for all, and once more, ramp by ramp, for pixels whose sums over integrations may be rounded otherwise.
        for attempt in range(1 if integrations == 1 else 2):
            waiting = 0
            taken[:] = 0
            for i in range(integrations):
                for r in range(height):
                    if attempt > 0 or numbers[i, r] == 0:
                        continue
                    y, line = line_y[r], slice(line_x[r], line_x[r] + LANES)
                    _write(
                        out_err[r], pixel_dq[r], out_poisson[r], out_rnoise[r],
                        ints_err[i, y, line], ints_dq[i, y, line], ints_poisson[i, y, line], ints_rnoise[i, y, line],
                    )  # fmt: skip

                for place in places[i, places.shape[1] - alone[i] :]:
                    r, lane = place // LANES, place % LANES
                    y, x = line_y[r], line_x[r] + lane
                    load(sci, groupdq, zeroframe, i, y, x, first, last, suppress, data, dq, original, counts)
                    present, _, saturated, start = counts
                    g = pixel_gain[r, lane]
                    noise = pixel_noise[r, lane]
                    single_time = time_of_single(start, group_time, frame_time, one_group_time)
                    flags[r, lane] |= pixel_dq[r, lane] | np.uint32(present & (JUMP_DET | PERSISTENCE))
                    bits, value, error, poisson, variance, _, _ = fit_ramp(
                        data, dq, counts, origin, pixel_dq[r, lane], g, noise, pixel_dark[r, lane],
                        median[r, lane], group_time, single_time, table, starts, lengths, sums,
                    )  # fmt: skip
                    weighted[r, lane] += sums[0]
                    slack[r, lane] += abs(sums[0]) * sum_error
                    poisson_weight[r, lane] += sums[1]
                    read_weight[r, lane] += sums[2]
                    if bits & np.uint32(DO_NOT_USE):
                        dead[r, lane] += 1
                    if bits & np.uint32(SATURATED):
                        filled[r, lane] += 1
                    if saturated > 0:
                        bits |= np.uint32(SATURATED)
                        partly[r, lane] = 1
                    if present & CHARGELOSS:
                        has_chargeloss[r, lane] = 1
                        total = read_weight_with_chargeloss(
                            original, size, g, noise, group_time, single_time, starts, lengths
                        )
                        recovered[r, lane] += total
                        variance = capped(1.0 / total)
                    elif variance > 0.0:
                        recovered[r, lane] += 1.0 / variance
                    ints_sci[i, y, x] = value
                    ints_err[i, y, x] = error
                    ints_dq[i, y, x] = bits
                    ints_poisson[i, y, x] = poisson
                    ints_rnoise[i, y, x] = variance

                waiting += together[i]
                while waiting >= LANES or (waiting > 0 and i == integrations - 1):
                    count = _take(places, together, taken, batch, batch_integration)
                    waiting -= count
                    width = _padded(count)
                    if integrations > 1 or together[i] > LANES:
                        gather(
                            width, sci, groupdq, batch_integration, line_y, line_x, first, size, batch[:count],
                            flagged_data, states, found,
                        )  # fmt: skip
                    for k in range(width):
                        place = batch[min(k, count - 1)]
                        r, lane = place // LANES, place % LANES
                        lane_gain[k] = pixel_gain[r, lane]
                        lane_noise[k] = pixel_noise[r, lane]
                        lane_dark[k] = pixel_dark[r, lane]
                        rates[k] = median[r, lane]
                    for k in range(width):
                        lane_scale[k] = 1.0 / (lane_noise[k] * lane_noise[k])
                    fit_flagged(
                        width, flagged_data, states, size, origin, lane_gain, lane_noise, lane_scale, lane_dark, rates,
                        group_time, table, positions, segment_lengths, heads, lane_work, others, lane_sums,
                        lane_results,
                    )  # fmt: skip
                    for k in range(count):
                        r, lane = batch[k] // LANES, batch[k] % LANES
                        y, x = line_y[r], line_x[r] + lane
                        own = batch_integration[k]
                        bits = pixel_dq[r, lane] | (found[k] & np.uint32(JUMP_DET))
                        flags[r, lane] |= bits
                        weighted[r, lane] += lane_sums[0, k]
                        slack[r, lane] += abs(lane_sums[0, k]) * sum_error
                        poisson_weight[r, lane] += lane_sums[1, k]
                        read_weight[r, lane] += lane_sums[2, k]
                        if found[k] & SATURATED:
                            bits |= np.uint32(SATURATED)
                            partly[r, lane] = 1
                        ints_sci[own, y, x] = lane_results[0, k]
                        ints_err[own, y, x] = lane_results[1, k]
                        ints_dq[own, y, x] = bits
                        ints_poisson[own, y, x] = lane_results[2, k]
                        ints_rnoise[own, y, x] = lane_results[3, k]

            # The exposure; pixels that are combined one at a time.
            many = 0
            if integrations == 1:
                for r in range(height):
                    y, line = line_y[r], slice(line_x[r], line_x[r] + LANES)
                    copy_line(ints_sci[0, y, line], rate_sci[y, line])
                    _write(
                        out_err[r], pixel_dq[r], out_poisson[r], out_rnoise[r],
                        rate_err[y, line], rate_dq[y, line], rate_poisson[y, line], rate_rnoise[y, line],
                    )  # fmt: skip
                    for lane in range(LANES):
                        again[many] = r * LANES + lane
                        many += 1 - clean[0, r, lane]
            elif attempt > 0:
                many = alone[0]
            else:
                for r in range(height):
                    y, line = line_y[r], slice(line_x[r], line_x[r] + LANES)
                    for lane in range(LANES):
                        bits = flags[r, lane]
                        bits |= np.uint32(DO_NOT_USE) if dead[r, lane] == integrations else np.uint32(0)
                        bits |= np.uint32(SATURATED) if filled[r, lane] == integrations else np.uint32(0)
                        doubted[lane] = (bits & invalid) == 0
                        partly[r, lane] = bits | (np.uint32(SATURATED) if partly[r, lane] else np.uint32(0))
                    for lane in range(LANES):
                        value, error, poisson, variance = _combine(
                            weighted[r, lane], poisson_weight[r, lane], read_weight[r, lane]
                        )
                        usable = doubted[lane] != 0
                        doubt = doubtful(value, slack[r, lane] * variance + abs(value) * few_errors)
                        doubt |= doubtful(error, error * sum_error) | doubtful(poisson, poisson * sum_error)
                        doubt |= doubtful(variance, variance * sum_error) | _near_limit(poisson) | _near_limit(variance)
                        unsure[r, lane] = (doubt & usable) | (has_chargeloss[r, lane] != 0)
                        before[lane] = value if usable else np.nan
                        out_err[r, lane] = error if usable else 0.0
                        out_poisson[r, lane] = poisson if usable else 0.0
                        out_rnoise[r, lane] = variance if usable else 0.0
                    out = rate_sci[y, line]
                    for lane in range(LANES):
                        out[lane] = before[lane]
                    _write(
                        out_err[r], partly[r], out_poisson[r], out_rnoise[r],
                        rate_err[y, line], rate_dq[y, line], rate_poisson[y, line], rate_rnoise[y, line],
                    )  # fmt: skip
                    for lane in range(LANES):
                        again[many] = r * LANES + lane
                        many += unsure[r, lane]
                if many == 0:
                    break
                for place in again[:many]:
                    r, lane = place // LANES, place % LANES
                    weighted[r, lane] = 0.0
                    poisson_weight[r, lane] = 0.0
                    read_weight[r, lane] = 0.0
                    recovered[r, lane] = 0.0
                    flags[r, lane] = pixel_dq[r, lane]
                    dead[r, lane] = 0
                    filled[r, lane] = 0
                    partly[r, lane] = 0
                for i in range(integrations):
                    together[i] = 0
                    alone[i] = many
                    for k in range(many):
                        places[i, places.shape[1] - many + k] = again[k]
                continue

            for place in again[:many]:
                r, lane = place // LANES, place % LANES
                y, x = line_y[r], line_x[r] + lane
                bits = flags[r, lane]
                bits |= np.uint32(DO_NOT_USE) if dead[r, lane] == integrations else np.uint32(0)
                bits |= np.uint32(SATURATED) if filled[r, lane] == integrations else np.uint32(0)
                value, error, poisson, variance = _combine(
                    weighted[r, lane], poisson_weight[r, lane], read_weight[r, lane]
                )
                usable = (bits & invalid) == 0
                rate_sci[y, x] = value if usable else np.nan
                rate_err[y, x] = error if usable else 0.0
                rate_dq[y, x] = bits | (np.uint32(SATURATED) if partly[r, lane] else np.uint32(0))
                rate_poisson[y, x] = poisson if usable else 0.0
                rate_rnoise[y, x] = variance if usable else 0.0
                if has_chargeloss[r, lane] and recovered[r, lane] > 0.0:
                    rate_rnoise[y, x] = capped(1.0 / recovered[r, lane])
            break


@numba.njit(**COMPILED)
def _fit_rows(
    sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark, group_time, frame_time, nframes, suppress, first, last,
    y0, y1, x0, x1, origin, coefficients, bound, table, network, sorting,
    rate_sci, rate_err, rate_dq, rate_poisson, rate_rnoise, ints_sci, ints_err, ints_dq, ints_poisson, ints_rnoise,
):  # fmt: skip
    """Fit rows y0:y1, columns x0:x1, at least ``LANES`` of them; arrays as in :func:`ramp_fit`."""
    integrations, size = sci.shape[0], last - first
    in_row = (x1 - x0 + LANES - 1) // LANES
    # Some lines of pixels at a time: among them are enough ramps with flags to be fitted together.
    most = min(_LINES, max((y1 - y0) * in_row, 1))
    one_pixel = (
        np.empty(size), np.empty(size, np.uint8), np.empty(size, np.uint8), np.empty(4, np.int64),
        np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size), np.empty(4),
    )  # fmt: skip
    one_line = (
        np.empty(size * LANES, np.float32), np.empty(LANES, np.uint8), np.empty(LANES, np.uint32),
        np.empty(LANES, np.uint32), np.empty((max(size - 1, 1), LANES)), np.zeros((4, LANES)),
    )  # fmt: skip
    # What is kept of lines are parts of one array the shape of which is known, so that no test of whether they overlap
    # is needed; one row more than is used keeps the parts from falling on the same places of the first-level cache.
    lines = (
        np.empty(most, np.int64), np.empty(most, np.int64), np.empty((13, _LINES + 1, LANES)),
        np.empty((7, _LINES + 1, LANES), np.uint32), np.empty((3, _LINES + 1, LANES), np.float32),
        np.empty((integrations, most, LANES), np.uint8), np.empty((integrations, most), np.int64),
    )  # fmt: skip
    # Ramps with flags: places (line * LANES + lane) of those to fit together from the front, of others from the back.
    flagged = (
        np.empty(LANES, np.int64), np.empty((integrations, most * LANES), np.uint16),
        np.empty(integrations, np.int64), np.empty(integrations, np.int64), np.empty(LANES, np.uint16),
        np.empty(LANES, np.int64), np.zeros(2, np.int64), np.empty(most * LANES, np.uint16),
        np.empty((6, size, LANES)), np.empty(LANES, np.uint32), np.empty((21, LANES)),
    )  # fmt: skip
    _fit_lines(
        sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark, group_time, frame_time, nframes, suppress, first, last,
        y0, y1, x0, x1, origin, coefficients, bound, table, network, sorting,
        rate_sci, rate_err, rate_dq, rate_poisson, rate_rnoise, ints_sci, ints_err, ints_dq, ints_poisson, ints_rnoise,
        one_pixel, one_line, lines, flagged,
    )  # fmt: skip


# Public ---------------------------------------------------------------------------------------------------------------


def _native(array, kind) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=kind)


def common_arguments(
    sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark_current, group_time, frame_time, nframes, suppress,
    first_group, last_group,
) -> tuple:  # fmt: skip
    """The arguments that both numba kernels begin with."""
    last = sci.shape[1] if last_group is None else last_group
    if not 0 <= first_group < last <= sci.shape[1]:
        raise ValueError(f"groups {first_group}:{last} of a ramp of {sci.shape[1]} groups")
    if zeroframe is None:
        zeroframe = np.empty((0, 0, 0), np.float32)
    return (
        _native(sci, np.float32),
        _native(groupdq, np.uint8),
        _native(pixeldq, np.uint32),
        _native(zeroframe, np.float32),
        _native(gain, np.float32),
        _native(readnoise, np.float32),
        np.atleast_2d(_native(dark_current, np.float32)),
        float(np.float32(group_time)),
        float(np.float32(frame_time)),
        int(nframes),
        bool(suppress),
        int(first_group),
        int(last),
    )


def _in_a_line(argument, rows: slice, columns: slice, frame: tuple[int, ...]):
    """Pixels of an image of the ``frame`` one after the other, the last again up to ``LANES``; others as they are."""
    if not isinstance(argument, np.ndarray) or argument.shape[-2:] != frame:
        return argument
    part = argument[..., rows, columns]
    line = part.reshape(*part.shape[:-2], 1, -1)
    missing = max(LANES - line.shape[-1], 0)
    return np.pad(line, [(0, 0)] * (line.ndim - 1) + [(0, missing)], mode="edge")


def ramp_fit(
    sci: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    *,
    group_time: float,
    frame_time: float,
    nframes: int,
    zeroframe: np.ndarray | None = None,
    dark_current: np.ndarray | float = 0.0,
    suppress_one_group: bool = True,
    first_group: int = 0,
    last_group: int | None = None,
    origin: int = 0,
    inner: tuple[slice, slice] | None = None,
    out: tuple[Slopes, Slopes] | None = None,
) -> tuple[Slopes, Slopes]:
    """Count rates of a ramp by least squares with optimal weights.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x), corrected ramp [DN].
    groupdq
        uint8 (integration, group, y, x).
    pixeldq
        uint32 (y, x).
    gain
        float32 (y, x) [e-/DN]; pixels whose gain is NaN or not positive get NO_GAIN_VALUE and DO_NOT_USE.
    readnoise
        float32 (y, x), noise of the difference of two single frames (CDS) [DN].
    group_time, frame_time
        Time between groups and of one frame [s].
    nframes
        Number of frames averaged in a group.
    zeroframe
        float32 (integration, y, x), first frame alone [DN], 0 where unusable; replaces group 0 of integrations
        without a good group, unless ``suppress_one_group``.
    dark_current
        float32 (y, x) or scalar, dark current that adds photon noise.
    suppress_one_group
        Treat integrations with one good group as having none (never in ramps of one group).
    first_group, last_group
        Groups to use, end exclusive; the others are taken to be DO_NOT_USE in the whole frame (MIRI's first and last).
    origin
        Group from which abscissae are counted, relative to ``first_group``; it changes nothing but the last bit of the
        rounding.
    inner
        Rows and columns to fit; the whole of the arrays if None. Elsewhere the results are 0, or what ``out`` held.
    out
        Where to write: slopes of the exposure (y, x) and of the integrations (integration, y, x).

    Returns
    -------
    rate, rateints
        Slopes of the exposure (y, x) and of its integrations (integration, y, x).

    Raises
    ------
    ValueError
        If the groups to use are not in the ramp.

    Notes
    -----
    Sources: Fixsen et al. 2000 (PASP 112, 1350); JWST pipeline documentation, "ramp_fitting". Rates of segments are
    combined with weights 1 / var_rnoise. ``var_rnoise`` of integrations with CHARGELOSS groups is that of the ramp with
    these groups included. Groups that are SATURATED are never used.
    """
    common = common_arguments(
        sci, groupdq, pixeldq, zeroframe, gain, readnoise, dark_current, group_time, frame_time, nframes,
        suppress_one_group, first_group, last_group,
    )  # fmt: skip
    size = common[-1] - common[-2]
    rows, columns = inner or (slice(None), slice(None))
    y0, y1, _ = rows.indices(sci.shape[2])
    x0, x1, _ = columns.indices(sci.shape[3])
    if out is None:
        shape = sci.shape[2:]
        out = tuple(Slopes.zeros_outside(found, y0, y1, x0, x1) for found in (shape, (sci.shape[0], *shape)))
    coefficients, bound = slope_coefficients(size, int(origin), common[7])
    tables = (
        int(origin), coefficients.reshape(-1), bound, weight_table(size),
        median_network(size - 1), sorting_network(size - 1),
    )  # fmt: skip
    if x1 - x0 >= LANES:
        _fit_rows(*common, y0, y1, x0, x1, *tables, *out[0], *out[1])
    elif x1 > x0 and y1 > y0:
        # Pixels do not know of each other.
        count = (y1 - y0) * (x1 - x0)
        width = max(count, LANES)
        lines = tuple(_in_a_line(argument, slice(y0, y1), slice(x0, x1), sci.shape[2:]) for argument in common)
        wide = tuple(Slopes.zeros((*found.sci.shape[:-2], 1, width)) for found in out)
        _fit_rows(*lines, 0, 1, 0, width, *tables, *wide[0], *wide[1])
        for found, given in zip((*wide[0], *wide[1]), (*out[0], *out[1]), strict=True):
            given[..., y0:y1, x0:x1] = found[..., 0, :count].reshape(*found.shape[:-2], y1 - y0, x1 - x0)
    return out
