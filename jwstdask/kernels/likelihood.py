"""Slopes of ramps by maximum likelihood, with its own search for jumps.

Source: Brandt 2024, PASP 136, 045004 (paper I, the fit) and 045005 (paper II, jumps). The differences between groups
are fitted by one rate with their full covariance, tridiagonal because neighbouring differences share a group. The
inverse of a tridiagonal matrix follows from two recurrences (theta from the front, phi from the back), so that a fit
costs a time proportional to the number of groups. A jump is a difference, or two neighbouring ones, whose omission
improves chi squared by more than a threshold.

Symbols are those of the papers: alpha and beta are the diagonal and off-diagonal of the covariance, C(i) and B(i) the
products of row i of its inverse with ones and with the differences, A, B, C the full quadratic forms. All is float64,
but for the differences of groups and the mean over integrations, which the pipeline takes in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

from jwstdask.core.dq import DO_NOT_USE, JUMP_DET, SATURATED
from jwstdask.kernels.compiled import COMPILED, UNCOUNTED
from jwstdask.kernels.networks import sort_columns
from jwstdask.kernels.ramp_fit import Slopes

MIN_GROUPS = 4
"""Shorter ramps cannot be fitted so."""

ONE_OMITTED = 20.25
TWO_OMITTED = 23.8
"""Improvements of chi squared by which omissions of one and of two differences are taken for jumps (paper II)."""

_RESCALE = 10  # the determinant of the covariance is brought back to 1 after so many recurrences
_BAND_ROWS = 16  # rows fitted together: a pixel has a dozen values of double precision, which stay in the caches


class Covariance(NamedTuple):
    """Covariance of the differences of a read-out pattern, apart from rate, gain and read noise (paper I, eqs. 4-29).

    Attributes
    ----------
    delta_t
        float64 (difference,), time between the means of neighbouring groups [s].
    photon, read
        float64 (difference,), diagonal for unit rate [1/s] and unit read variance [1/s^2].
    photon_next, read_next
        float64 (difference - 1,), off-diagonal.
    pairs
        bool (difference - 1,), the two differences share a group of several reads: they may be omitted together.
    """

    delta_t: np.ndarray
    photon: np.ndarray
    read: np.ndarray
    photon_next: np.ndarray
    read_next: np.ndarray
    pairs: np.ndarray

    @classmethod
    def of(cls, read_times: Sequence[Sequence[float]]) -> Covariance:
        """From the times of the reads averaged in each group [s]."""
        reads = np.array([len(times) for times in read_times])
        mean = np.array([np.mean(times) for times in read_times])
        tau = np.array(
            [
                np.sum((2 * n + 1 - 2 * np.arange(1, n + 1)) * np.asarray(times)) / n**2
                for n, times in zip(reads, read_times)
            ]
        )
        delta = np.diff(mean)
        return cls(
            delta,
            (tau[:-1] + tau[1:] - 2 * mean[:-1]) / delta**2,
            (1 / reads[:-1] + 1 / reads[1:]) / delta**2,
            (mean[1:-1] - tau[1:-1]) / (delta[1:] * delta[:-1]),
            -1 / (reads[1:-1] * delta[1:] * delta[:-1]),
            reads[1:-1] > 1,
        )


def read_times(ngroups: int, nframes: int, groupgap: int, frame_time: float) -> list[np.ndarray]:
    """Times of the reads of each group of an evenly sampled ramp [s]."""
    frames = np.arange(1, nframes + 1)
    return [(frames + group * (nframes + groupgap)) * frame_time for group in range(ngroups)]


class Fit(NamedTuple):
    """Results of :func:`likelihood_fit`.

    Attributes
    ----------
    rate, rateints
        Slopes of the exposure (y, x) and of the integrations (integration, y, x).
    chisq
        float32 (y, x), chi squared summed over integrations.
    groupdq
        uint8 (integration, group, y, x), with JUMP_DET added where the fit found jumps.
    """

    rate: Slopes
    rateints: Slopes
    chisq: np.ndarray
    groupdq: np.ndarray


# Ramps side by side ---------------------------------------------------------------------------------------------------
#
# Arrays are (difference, lane) or (lane,), a lane being a ramp; the first ``count`` lanes are in use. What is done to a
# difference in all lanes is a loop that becomes vector instructions if it writes to one array and reads at most eight.

_LANES = 128


@numba.njit(**COMPILED)
def _fit(diff, use, guess, scale, gain, noise, photon, read, photon_next, read_next, count, work, sums):
    """Fit one rate to the differences in ``use``, for a covariance at rate ``guess``, divided by ``scale``.

    ``work`` (9, difference + 1, lane) gets, in this order: alpha, beta, theta, phi, C(i), B(i); the rest is scratch.
    ``sums`` (10, lane) gets A, B, C, the quadratic forms of the covariance divided by ``scale``; the rest is scratch.
    """
    n = diff.shape[0]
    alpha, beta, theta, phi, row_c, row_b, back, back_d, front_d = (
        work[0], work[1], work[2], work[3], work[4], work[5], work[6], work[7], work[8]
    )  # fmt: skip
    total_a, total_b, total_c, electrons, variance, front, cross, squares, value, inverse = (
        sums[0], sums[1], sums[2], sums[3], sums[4], sums[5], sums[6], sums[7], sums[8], sums[9]
    )  # fmt: skip
    for lane in range(count):
        electrons[lane] = guess[lane] / gain[lane]
    for lane in range(count):
        variance[lane] = noise[lane] * noise[lane]
    for i in range(n):
        target, once, twice = alpha[i], photon[i], read[i]
        for lane in range(count):
            target[lane] = (electrons[lane] * once + variance[lane] * twice) / scale[lane]
    for i in range(n - 1):
        target, once, twice, used, next_used = beta[i], photon_next[i], read_next[i], use[i], use[i + 1]
        for lane in range(count):
            target[lane] = (
                (electrons[lane] * once + variance[lane] * twice) / scale[lane] * next_used[lane] * used[lane]
            )

    theta[0, :count] = 1.0
    theta[1, :count] = alpha[0, :count]
    for i in range(2, n + 1):
        target, own, off, last, before = theta[i], alpha[i - 1], beta[i - 2], theta[i - 1], theta[i - 2]
        for lane in range(count):
            target[lane] = own[lane] * last[lane] - off[lane] * off[lane] * before[lane]
    phi[n, :count] = 1.0
    phi[n - 1, :count] = alpha[n - 1, :count]
    for i in range(n - 2, -1, -1):
        target, own, off, last, before = phi[i], alpha[i], beta[i], phi[i + 1], phi[i + 2]
        for lane in range(count):
            target[lane] = own[lane] * last[lane] - off[lane] * off[lane] * before[lane]

    # Sums with alternating signs from the back, of ones and of differences.
    back[n - 1, :count] = 0.0
    back_d[n - 1, :count] = 0.0
    for i in range(n - 2, -1, -1):
        sign = -1.0 if (i + 1) % 2 == 0 else 1.0
        target, last, off, factor = back[i], back[i + 1], beta[i], phi[i + 2]
        for lane in range(count):
            target[lane] = last[lane] * off[lane] + sign * off[lane] * factor[lane]
        target, last, values, used = back_d[i], back_d[i + 1], diff[i + 1], use[i + 1]
        for lane in range(count):
            target[lane] = (last[lane] + sign * (values[lane] * used[lane]) * factor[lane]) * off[lane]

    # The same from the front, and the products with the rows of the inverse.
    determinant = theta[n]
    for lane in range(count):
        inverse[lane] = 1.0 / determinant[lane]
    front_d[0, :count] = 0.0
    cross[:count] = 0.0
    squares[:count] = 0.0
    total_b[:count] = 0.0
    total_c[:count] = 0.0
    for i in range(n):
        sign = -1.0 if i % 2 == 0 else 1.0
        values, used, first, second, target = diff[i], use[i], theta[i], phi[i + 1], front_d[i + 1]
        off = beta[max(i - 1, 0)]
        for lane in range(count):
            value[lane] = values[lane] * used[lane]
        before = front_d[i]
        if i == 0:
            for lane in range(count):
                front[lane] = -first[lane]
            for lane in range(count):
                target[lane] = -value[lane] * first[lane]
            for lane in range(count):
                cross[lane] += value[lane] * sign / determinant[lane] * second[lane] * before[lane]
        else:
            for lane in range(count):
                front[lane] = front[lane] * off[lane] + sign * first[lane]
            for lane in range(count):
                target[lane] = off[lane] * before[lane] + sign * value[lane] * first[lane]
            for lane in range(count):
                cross[lane] += value[lane] * sign / determinant[lane] * off[lane] * second[lane] * before[lane]
        row, behind = row_c[i], back[i]
        for lane in range(count):
            row[lane] = sign * inverse[lane] * (second[lane] * front[lane] + first[lane] * behind[lane]) * used[lane]
        for lane in range(count):
            total_b[lane] += value[lane] * row[lane]
        for lane in range(count):
            total_c[lane] += row[lane]
        row, behind = row_b[i], back_d[i]
        for lane in range(count):
            row[lane] = sign * inverse[lane] * (second[lane] * target[lane] + first[lane] * behind[lane])
        for lane in range(count):
            squares[lane] += value[lane] * value[lane] * first[lane] * second[lane] / determinant[lane]
    for lane in range(count):
        total_a[lane] = 2.0 * cross[lane] + squares[lane]


@numba.njit(**UNCOUNTED)
def _omissions(use, scale, count, work, sums, one, two, rate_one, rate_two, chisq, rate):
    """Chi squared and rate with all differences, without each, and without each pair of neighbours (paper II, sec. 3).

    After :func:`_fit`, whose ``work`` and ``sums`` are scratch afterwards.
    """
    n = use.shape[0]
    beta, theta, phi, row_c, row_b, inverse = work[1], work[2], work[3], work[4], work[5], work[6]
    a_sum, b_sum, c_sum, between, own, mixed, right, b, c = (
        sums[0], sums[1], sums[2], sums[3], sums[4], sums[5], sums[6], sums[7], sums[8]
    )  # fmt: skip
    total, less, more, free = work[7, 0], work[7, 1], work[7, 2], work[7, 3]
    determinant = theta[n]
    for lane in range(count):
        chisq[lane] = (a_sum[lane] - b_sum[lane] * b_sum[lane] / c_sum[lane]) / scale[lane]
    for lane in range(count):
        rate[lane] = b_sum[lane] * (1.0 / c_sum[lane])
    for i in range(n):
        own_c, own_b, here, first, second, used = row_c[i], row_b[i], inverse[i], theta[i], phi[i + 1], use[i]
        a, target = rate_one[i], one[i]
        for lane in range(count):
            here[lane] = first[lane] * second[lane] / determinant[lane]
        for lane in range(count):
            a[lane] = (here[lane] * b_sum[lane] - own_b[lane] * own_c[lane]) / (
                c_sum[lane] * here[lane] - own_c[lane] * own_c[lane]
            )
        for lane in range(count):
            b[lane] = (own_b[lane] - a[lane] * own_c[lane]) / here[lane]
        for lane in range(count):
            total[lane] = a_sum[lane] + a[lane] * a[lane] * c_sum[lane] - 2 * a[lane] * b_sum[lane]
        for lane in range(count):
            total[lane] = (
                total[lane] + b[lane] * b[lane] * here[lane] - 2 * b[lane] * own_b[lane]
                + 2 * a[lane] * b[lane] * own_c[lane]
            )  # fmt: skip
        for lane in range(count):
            target[lane] = chisq[lane] if used[lane] == 0.0 else total[lane] / scale[lane]
        for lane in range(count):
            a[lane] = rate[lane] if used[lane] == 0.0 else a[lane]
    for i in range(n - 1):
        own_c, next_c, own_b, next_b = row_c[i], row_c[i + 1], row_b[i], row_b[i + 1]
        here, there, off, first, second = inverse[i], inverse[i + 1], beta[i], theta[i], phi[i + 2]
        for lane in range(count):
            between[lane] = -off[lane] * first[lane] * second[lane] / determinant[lane]
        for lane in range(count):
            own[lane] = own_c[lane] * own_c[lane] - c_sum[lane] * here[lane]
        for lane in range(count):
            mixed[lane] = own_c[lane] * next_c[lane] - c_sum[lane] * between[lane]
        for lane in range(count):
            right[lane] = b_sum[lane] * own_c[lane] - own_b[lane] * c_sum[lane]
        for lane in range(count):
            c[lane] = right[lane] / own[lane] - (b_sum[lane] * next_c[lane] - next_b[lane] * c_sum[lane]) / mixed[lane]
        for lane in range(count):
            c[lane] /= mixed[lane] / own[lane] - (next_c[lane] * next_c[lane] - c_sum[lane] * there[lane]) / mixed[lane]
        for lane in range(count):
            b[lane] = (right[lane] - c[lane] * mixed[lane]) / own[lane]
        for lane in range(count):
            free[lane] = (b_sum[lane] - b[lane] * own_c[lane] - c[lane] * next_c[lane]) / c_sum[lane]
        for lane in range(count):
            total[lane] = (
                a_sum[lane] + free[lane] * free[lane] * c_sum[lane] + b[lane] * b[lane] * here[lane]
                + c[lane] * c[lane] * there[lane]
            )  # fmt: skip
        for lane in range(count):
            less[lane] = 2 * free[lane] * b_sum[lane] + 2 * b[lane] * own_b[lane] + 2 * c[lane] * next_b[lane]
        for lane in range(count):
            more[lane] = (
                2 * free[lane] * b[lane] * own_c[lane] + 2 * free[lane] * c[lane] * next_c[lane]
                + 2 * b[lane] * c[lane] * between[lane]
            )  # fmt: skip
        for lane in range(count):
            total[lane] = (total[lane] - less[lane] + more[lane]) / scale[lane]
        used, next_used = use[i], use[i + 1]
        target, single, next_single = two[i], one[i], one[i + 1]
        for lane in range(count):
            alone = single[lane] if next_used[lane] == 0.0 else total[lane]
            target[lane] = next_single[lane] if used[lane] == 0.0 else alone
        target, single, next_single = rate_two[i], rate_one[i], rate_one[i + 1]
        for lane in range(count):
            alone = single[lane] if next_used[lane] == 0.0 else free[lane]
            target[lane] = next_single[lane] if used[lane] == 0.0 else alone


@numba.njit(**COMPILED)
def _improve(chisq, without, allowed, count, best):
    """Improvements in place of chi squared; the largest where allowed, 0 at least if some are not; NaN if one is."""
    best[:count] = -np.inf
    for i in range(without.shape[0]):
        row, factor = without[i], 1.0 if allowed[i] else 0.0
        for lane in range(count):
            row[lane] = chisq[lane] - row[lane]
        for lane in range(count):
            value = row[lane] * factor
            best[lane] = value if (value > best[lane]) | (value != value) else best[lane]


@numba.njit(**UNCOUNTED)
def _omit(best, improvement, rates, use, lane, width, start, found):
    """Leave out the differences of a lane whose omission is the best one: their number, and the sum of the rates.

    ``found`` (group, lane) gets the jumps; ``start`` is the group after the first difference, ``width`` differences are
    left out together.
    """
    dropped = 0
    value = 0.0
    for i in range(use.shape[0] + 1 - width):
        hit = improvement[i, lane] == best
        value += rates[i, lane] * hit
        if hit:
            dropped += 1
            for k in range(i, i + width):
                if use[k, lane] != 0.0:
                    found[k + start] |= np.uint8(JUMP_DET)
                use[k, lane] = 0.0
    return dropped, value


@numba.njit(**COMPILED)
def _load(sci, groupdq, found, zeroframe, nframes, delta_t, i, y, x, count, values, diff, use):
    """Differences of ramps [DN/s], and 1 where both groups are without flags and no jump was found, else 0.

    ``values`` is scratch, float32 (difference + 1, lane).
    """
    ngroups = sci.shape[1]
    extra = values.shape[0] - ngroups
    for group in range(ngroups):
        values[group + extra, :count] = sci[i, group, y, x : x + count]
    if extra:
        # The zero frame is taken out of the average of the first group, and shares its flags.
        for lane in range(count):
            zero = zeroframe[i, y, x + lane]
            values[0, lane] = zero
            values[1, lane] = (values[1, lane] * np.float32(nframes) - zero) / np.float32(nframes - 1)
    for k in range(diff.shape[0]):
        target, used, low, high, step = diff[k], use[k], values[k], values[k + 1], delta_t[k]
        for lane in range(count):
            target[lane] = np.float64(high[lane] - low[lane]) / step
        before = groupdq[i, max(k - extra, 0), y, x : x + count]
        after = groupdq[i, k + 1 - extra, y, x : x + count]
        jumps = found[i, k + 1 - extra, y, x : x + count]
        for lane in range(count):
            flags = before[lane] | after[lane] | (jumps[lane] & JUMP_DET)
            used[lane] = 1.0 if flags == 0 else 0.0


@numba.njit(**COMPILED)
def _guess(sci, groupdq, zeroframe, nframes, delta_t, out):
    """Median difference of every ramp [DN/s], not below 0."""
    n = delta_t.size
    values = np.empty((n + 1, _LANES), np.float32)
    keys, use = np.zeros(n * _LANES), np.empty((n, _LANES))
    diff = keys.reshape((n, _LANES))
    for i, y in np.ndindex(out.shape[:2]):
        for x in range(0, out.shape[2], _LANES):
            count = min(_LANES, out.shape[2] - x)
            _load(sci, groupdq, groupdq, zeroframe, nframes, delta_t, i, y, x, count, values, diff, use)
            # Numbers that are none, whose ramp has no median.
            check = use[0]
            check[:count] = 0.0
            for k in range(n):
                row = diff[k]
                for lane in range(count):
                    check[lane] += 1.0 if row[lane] != row[lane] else 0.0
            sort_columns(keys, n, _LANES)
            low, high = diff[(n - 1) // 2], diff[n // 2]
            for lane in range(count):
                median = (low[lane] + high[lane]) / 2.0 if n % 2 == 0 else high[lane]
                out[i, y, x + lane] = median * (median > 0.0) if check[lane] == 0.0 else np.nan


@numba.njit(**COMPILED)
def _find_jumps(
    sci, groupdq, zeroframe, gain, noise, nframes, delta_t, photon, read, photon_next, read_next, pairs,
    guess, scale, limit_one, limit_two, found, rate,
):  # fmt: skip
    """Mark jumps in ``found`` (flags of all groups), and a rate without them."""
    n = delta_t.size
    values = np.empty((n + 1, _LANES), np.float32)
    diff, use = np.empty((n, _LANES)), np.empty((n, _LANES))
    one, two, rate_one, rate_two = (
        np.empty((n, _LANES)), np.empty((n - 1, _LANES)), np.empty((n, _LANES)), np.empty((n - 1, _LANES))
    )  # fmt: skip
    work, sums = np.empty((9, n + 1, _LANES)), np.empty((10, _LANES))
    constants = np.empty((4, _LANES))
    chisq, rates, best_one, best_two = np.empty(_LANES), np.empty(_LANES), np.empty(_LANES), np.empty(_LANES)
    column = np.empty(_LANES, np.int64)
    always = np.ones(n, np.bool_)
    start = sci.shape[1] - n
    for i, y in np.ndindex(rate.shape[:2]):
        for x in range(0, rate.shape[2], _LANES):
            count = min(_LANES, rate.shape[2] - x)
            _load(sci, groupdq, groupdq, zeroframe, nframes, delta_t, i, y, x, count, values, diff, use)
            for lane in range(count):
                column[lane] = x + lane
                constants[0, lane], constants[1, lane] = guess[i, y, x + lane], scale[i, y, x + lane]
                constants[2, lane], constants[3, lane] = gain[y, x + lane], noise[y, x + lane]
            for turn in range(n):
                _fit(
                    diff, use, constants[0], constants[1], constants[2], constants[3],
                    photon, read, photon_next, read_next, count, work, sums,
                )  # fmt: skip
                _omissions(use, constants[1], count, work, sums, one, two, rate_one, rate_two, chisq, rates)
                _improve(chisq, one, always, count, best_one)
                _improve(chisq, two, pairs, count, best_two)
                left = 0
                for lane in range(count):
                    place = column[lane]
                    if turn == 0:
                        rate[i, y, place] = rates[lane]
                    first, second = best_one[lane], best_two[lane]
                    single = first - limit_one > second - limit_two
                    best = first * (first > limit_one) * single + second * (second > limit_two) * (not single)
                    if np.isnan(best) or best == 0.0:
                        continue
                    flags = found[i, :, y, place]
                    if single:
                        dropped, value = _omit(best, one, rate_one, use, lane, 1, start, flags)
                    else:
                        dropped, value = _omit(best, two, rate_two, use, lane, 2, start, flags)
                    if dropped == 0:
                        continue
                    rate[i, y, place] = rate[i, y, place] * 0.0 + value
                    # With three differences left there is no telling which one is good.
                    if use[:, lane].sum() <= 3:
                        continue
                    # Ramps that may have more jumps move together.
                    column[left] = place
                    constants[:, left] = constants[:, lane]
                    diff[:, left] = diff[:, lane]
                    use[:, left] = use[:, lane]
                    left += 1
                count = left
                if count == 0:
                    break


@numba.njit(**COMPILED)
def _fit_rates(
    sci, groupdq, found, zeroframe, gain, noise, nframes, delta_t, photon, read, photon_next, read_next,
    guess, scale, out_sci, out_err, out_poisson, out_rnoise, out_chisq,
):  # fmt: skip
    """Rates, their errors and variances, and chi squared of all ramps, without the jumps in ``found``."""
    n = delta_t.size
    values = np.empty((n + 1, _LANES), np.float32)
    diff, use = np.empty((n, _LANES)), np.empty((n, _LANES))
    work, sums = np.empty((9, n + 1, _LANES)), np.empty((10, _LANES))
    own_gain = np.empty(_LANES)
    parts = np.empty((4, _LANES))
    for i, y in np.ndindex(out_sci.shape[:2]):
        for x in range(0, out_sci.shape[2], _LANES):
            count = min(_LANES, out_sci.shape[2] - x)
            _load(sci, groupdq, found, zeroframe, nframes, delta_t, i, y, x, count, values, diff, use)
            for lane in range(count):
                own_gain[lane] = gain[y, x + lane]
            place = slice(x, x + count)
            factor, sigma = scale[i, y, place], noise[y, place]
            _fit(
                diff, use, guess[i, y, place], factor, own_gain, sigma,
                photon, read, photon_next, read_next, count, work, sums,
            )  # fmt: skip
            a_sum, b_sum, c_sum, electrons = sums[0], sums[1], sums[2], sums[3]
            poisson, poisson_next, variance, variance_next = parts[0], parts[1], parts[2], parts[3]
            parts[:] = 0.0
            for k in range(n):
                row, weight = work[4, k], work[6, k]
                for lane in range(count):
                    weight[lane] = row[lane] / c_sum[lane]
            for k in range(n):
                weight, once, twice = work[6, k], photon[k], read[k]
                for lane in range(count):
                    poisson[lane] += weight[lane] * weight[lane] * (electrons[lane] * once)
                for lane in range(count):
                    variance[lane] += weight[lane] * weight[lane] * (sigma[lane] * sigma[lane] * twice)
            for k in range(n - 1):
                weight, following, once, twice = work[6, k], work[6, k + 1], photon_next[k], read_next[k]
                for lane in range(count):
                    poisson_next[lane] += following[lane] * weight[lane] * (electrons[lane] * once)
                for lane in range(count):
                    variance_next[lane] += following[lane] * weight[lane] * (sigma[lane] * sigma[lane] * twice)
            for lane in range(count):
                b, c = b_sum[lane], c_sum[lane]
                out_sci[i, y, x + lane] = b * (1.0 / c)
                out_err[i, y, x + lane] = np.sqrt(factor[lane] / c)
                out_poisson[i, y, x + lane] = poisson[lane] + 2.0 * poisson_next[lane]
                out_rnoise[i, y, x + lane] = variance[lane] + 2.0 * variance_next[lane]
                out_chisq[i, y, x + lane] = (a_sum[lane] - b * b / c) / factor[lane]


# Frames ---------------------------------------------------------------------------------------------------------------


@numba.njit(**COMPILED)
def _minors(guess, gain, noise, photon, read, photon_next, read_next, first, last, scale, older, old):
    """Go on from the two leading minors of the covariance before ``first``, in place, to that of ``last`` rows.

    The covariance is divided by ``scale``, which is 1 where there was no minor before.
    """
    electrons, variance = np.empty(_LANES), np.empty(_LANES)
    for i, y in np.ndindex(guess.shape[:2]):
        for x in range(0, guess.shape[2], _LANES):
            count = min(_LANES, guess.shape[2] - x)
            place = slice(x, x + count)
            rate, own_gain, own_noise, unit = guess[i, y, place], gain[y, place], noise[y, place], scale[i, y, place]
            before, here = older[i, y, place], old[i, y, place]
            for lane in range(count):
                electrons[lane] = rate[lane] / own_gain[lane]
                variance[lane] = own_noise[lane] * own_noise[lane]
            if first == 2:
                for lane in range(count):
                    here[lane] = electrons[lane] * photon[0] + variance[lane] * read[0]
            for row in range(first, last + 1):
                once, twice, once_next, twice_next = (
                    photon[row - 1], read[row - 1], photon_next[row - 2], read_next[row - 2]
                )  # fmt: skip
                for lane in range(count):
                    own = electrons[lane] * once + variance[lane] * twice
                    off = electrons[lane] * once_next + variance[lane] * twice_next
                    off *= off
                    if first > 2:
                        own /= unit[lane]
                        off /= unit[lane] * unit[lane]
                    new = own * here[lane] - off * before[lane]
                    before[lane] = here[lane]
                    here[lane] = new


def _scale(guess: np.ndarray, gain: np.ndarray, noise: np.ndarray, covariance: Covariance) -> np.ndarray:
    """What brings the determinant of the covariance to 1, lest long ramps overflow; float64 (integration, y, x).

    Its power is numpy's, which differs from that of the C library in the last bit: chi squared of ramps with few
    differences in use can hang on it.
    """
    n = covariance.delta_t.size
    scale, older, old = np.ones(guess.shape), np.ones(guess.shape), np.empty(guess.shape)
    for first in range(1, n + 1, _RESCALE):
        last = min(first + _RESCALE - 1, n)
        _minors(guess, gain, noise, *covariance[1:5], max(first, 2), last, scale, older, old)
        with np.errstate(all="ignore"):
            factor = old ** (1 / last)
            scale *= factor
            older /= old / factor
            old[...] = 1.0
    return scale


def _integration_flags(groupdq: np.ndarray, pixeldq: np.ndarray) -> np.ndarray:
    """uint32 (integration, y, x): SATURATED and JUMP_DET if any group has them, DO_NOT_USE if no group is usable."""
    union = np.bitwise_or.reduce(groupdq, axis=1)
    lost = ((groupdq & (SATURATED | DO_NOT_USE)) != 0).all(axis=1)
    return pixeldq | (union & np.uint8(SATURATED | JUMP_DET)) | (lost * np.uint32(DO_NOT_USE))


def _mean_over_integrations(rateints: Slopes) -> Slopes:
    """Mean with inverse variances as weights, the photon noise being scaled to the mean rate (two iterations)."""
    data, poisson, rnoise = rateints.sci, rateints.var_poisson, rateints.var_rnoise
    lost = np.bitwise_and.reduce(rateints.dq, axis=0) & np.uint32(DO_NOT_USE)
    bits = (np.bitwise_or.reduce(rateints.dq, axis=0) & ~np.uint32(DO_NOT_USE)) | lost

    def total(values: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(values).all(axis=0), np.float32(np.nan), np.nansum(values, axis=0))

    with np.errstate(all="ignore"):
        empty = np.isnan(data).all(axis=0)
        rate = np.nanmedian(np.where(empty, np.float32(0), data), axis=0)
        rate[empty] = np.nan
        for _ in range(2):
            ratio = rate / data
            ratio[~np.isfinite(ratio) | (ratio < 0)] = 0
            scaled = poisson * ratio
            weight = 1 / (scaled + rnoise)
            weight /= np.nansum(weight, axis=0)
            rate = total(data * weight)
        var_poisson = total(scaled * weight**2)
        var_rnoise = total(rnoise * weight**2)
        return Slopes(rate, np.sqrt(var_poisson + var_rnoise), bits, var_poisson, var_rnoise)


def likelihood_fit(
    sci: np.ndarray,
    groupdq: np.ndarray,
    pixeldq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    read_times: Sequence[Sequence[float]],
    *,
    nframes: int,
    zeroframe: np.ndarray | None = None,
    dark_current: np.ndarray | float = 0.0,
    threshold_one_omit: float = ONE_OMITTED,
    threshold_two_omit: float = TWO_OMITTED,
    inner: tuple[slice, slice] | None = None,
) -> Fit:
    """Count rates of a ramp by maximum likelihood, without differences that hold jumps.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x), corrected ramp [DN].
    groupdq
        uint8 (integration, group, y, x); groups with any flag are not used.
    pixeldq
        uint32 (y, x).
    gain
        float32 (y, x) [e-/DN].
    readnoise
        float32 (y, x), noise of the difference of two single frames (CDS) [DN].
    read_times
        Times of the reads averaged in each group [s].
    nframes
        Number of frames averaged in a group.
    zeroframe
        float32 (integration, y, x), first frame alone [DN]: a group of its own if the first group has several reads.
    dark_current
        float32 (y, x) or scalar, dark current that adds photon noise.
    threshold_one_omit, threshold_two_omit
        Improvements of chi squared by which the omission of one difference, or of two neighbours, is a jump.
    inner
        Rows and columns to fit; the whole of the arrays if None. Elsewhere the results are 0.

    Returns
    -------
    Fit
        The errors of the exposure are those of its integrations if it has one, else from the variances.

    Raises
    ------
    ValueError
        If the ramp has fewer than four groups, or other than ``read_times`` has.
    """
    integrations, ngroups = sci.shape[:2]
    if ngroups < MIN_GROUPS:
        raise ValueError(f"a likelihood fit needs {MIN_GROUPS} groups, the ramp has {ngroups}")
    if len(read_times) != ngroups:
        raise ValueError(f"read times of {len(read_times)} groups for a ramp of {ngroups}")
    times = [np.asarray(group, np.float64) for group in read_times]
    if zeroframe is None or len(times[0]) < 2:
        zeroframe = np.empty((0, 0, 0), np.float32)
    else:
        times = [times[0][:1], times[0][1:], *times[1:]]
    covariance = Covariance.of(times)
    rows, columns = inner or (slice(None), slice(None))
    y0, y1, _ = rows.indices(sci.shape[2])
    dark = np.asarray(dark_current, np.float32)
    limits = float(threshold_one_omit), float(threshold_two_omit)
    flags = np.array(groupdq, np.uint8)
    rate, rateints = Slopes.zeros(sci.shape[2:]), Slopes.zeros((integrations, *sci.shape[2:]))
    whole_chisq = np.zeros(sci.shape[2:], np.float32)
    for y in range(y0, y1, _BAND_ROWS):
        part = (..., slice(y, min(y + _BAND_ROWS, y1)), columns)
        frame = (
            np.ascontiguousarray(sci[part], np.float32),
            np.ascontiguousarray(groupdq[part], np.uint8),
            np.ascontiguousarray(zeroframe[part] if zeroframe.size else zeroframe, np.float32),
        )
        noise = np.ascontiguousarray(readnoise[part], np.float32) / np.sqrt(2.0)
        pixels = np.ascontiguousarray(gain[part], np.float32), noise, dark[part] if dark.ndim else dark
        ints, chisq, found = _fit_part(*frame, *pixels, nframes, covariance, limits)
        ints.dq[...] = _integration_flags(found, np.asarray(pixeldq, np.uint32)[part])
        mean = Slopes(*(array[0] for array in ints)) if integrations == 1 else _mean_over_integrations(ints)
        flags[part] = found
        for target, values in zip((*rate, *rateints, whole_chisq), (*mean, *ints, np.sum(chisq, axis=0))):
            target[part] = values
    return Fit(rate, rateints, whole_chisq, flags)


def _fit_part(
    sci: np.ndarray,
    groupdq: np.ndarray,
    zeroframe: np.ndarray,
    gain: np.ndarray,
    noise: np.ndarray,
    dark: np.ndarray,
    nframes: int,
    covariance: Covariance,
    limits: tuple[float, float],
) -> tuple[Slopes, np.ndarray, np.ndarray]:
    """Rates of integrations without flags, their chi squared, and the flags of groups with those of jumps found."""
    shape = (sci.shape[0], *sci.shape[2:])
    found = groupdq.copy()
    guess, jump_free = np.empty(shape), np.empty(shape)
    _guess(sci, groupdq, zeroframe, nframes, covariance.delta_t, guess)
    scale = _scale(guess, gain, noise, covariance)
    _find_jumps(
        sci, groupdq, zeroframe, gain, noise, nframes, *covariance, guess, scale, *limits, found, jump_free
    )  # fmt: skip
    guess = jump_free * (jump_free > 0) + dark
    scale = _scale(guess, gain, noise, covariance)
    ints, chisq = Slopes.zeros(shape), np.empty(shape, np.float32)
    _fit_rates(
        sci, groupdq, found, zeroframe, gain, noise, nframes, *covariance[:-1], guess, scale,
        ints.sci, ints.err, ints.var_poisson, ints.var_rnoise, chisq,
    )  # fmt: skip
    return ints, chisq, found
