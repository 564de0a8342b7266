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
from jwstdask.kernels.ramp_fit import Slopes

MIN_GROUPS = 4
"""Shorter ramps cannot be fitted so."""

ONE_OMITTED = 20.25
TWO_OMITTED = 23.8
"""Improvements of chi squared by which omissions of one and of two differences are taken for jumps (paper II)."""

_RESCALE = 10  # the determinant of the covariance is brought back to 1 after so many recurrences

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


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


# One ramp -------------------------------------------------------------------------------------------------------------


@numba.njit(**_OPTIONS)
def _fit(diff, use, guess, scale, gain, noise, photon, read, photon_next, read_next, work):
    """Fit one rate to the differences in ``use``, for a covariance at rate ``guess``, divided by ``scale``.

    ``work`` (9, difference + 1) gets, in this order: alpha, beta, theta, phi, C(i), B(i); the rest is scratch.

    Returns
    -------
    A, B, C
        Quadratic forms of the covariance divided by ``scale``.
    """
    n = diff.size
    alpha, beta, theta, phi, row_c, row_b, back, back_d, front_d = (
        work[0], work[1], work[2], work[3], work[4], work[5], work[6], work[7], work[8]
    )  # fmt: skip
    electrons = guess / gain
    variance = noise * noise
    for i in range(n):
        alpha[i] = (electrons * photon[i] + variance * read[i]) / scale
    for i in range(n - 1):
        beta[i] = (electrons * photon_next[i] + variance * read_next[i]) / scale * use[i + 1] * use[i]

    theta[0] = 1.0
    theta[1] = alpha[0]
    for i in range(2, n + 1):
        theta[i] = alpha[i - 1] * theta[i - 1] - beta[i - 2] * beta[i - 2] * theta[i - 2]
    phi[n] = 1.0
    phi[n - 1] = alpha[n - 1]
    for i in range(n - 2, -1, -1):
        phi[i] = alpha[i] * phi[i + 1] - beta[i] * beta[i] * phi[i + 2]

    # Sums with alternating signs from the back, of ones and of differences.
    back[n - 1] = 0.0
    back_d[n - 1] = 0.0
    for i in range(n - 2, -1, -1):
        sign = -1.0 if (i + 1) % 2 == 0 else 1.0
        back[i] = back[i + 1] * beta[i] + sign * beta[i] * phi[i + 2]
        back_d[i] = (back_d[i + 1] + sign * (diff[i + 1] * use[i + 1]) * phi[i + 2]) * beta[i]

    # The same from the front, and the products with the rows of the inverse.
    determinant = theta[n]
    front = 0.0
    front_d[0] = 0.0
    cross = 0.0
    squares = 0.0
    total_b = 0.0
    total_c = 0.0
    for i in range(n):
        sign = -1.0 if i % 2 == 0 else 1.0
        value = diff[i] * use[i]
        coupling = beta[i - 1] if i > 0 else 1.0
        front = front * coupling + sign * theta[i] if i > 0 else -theta[0]
        front_d[i + 1] = coupling * front_d[i] + sign * value * theta[i] if i > 0 else -value * theta[0]
        row_c[i] = sign / determinant * (phi[i + 1] * front + theta[i] * back[i]) * use[i]
        row_b[i] = sign / determinant * (phi[i + 1] * front_d[i + 1] + theta[i] * back_d[i])
        cross += value * sign / determinant * coupling * phi[i + 1] * front_d[i]
        squares += value * value * theta[i] * phi[i + 1] / determinant
        total_b += value * row_c[i]
        total_c += row_c[i]
    return 2.0 * cross + squares, total_b, total_c


@numba.njit(**_OPTIONS)
def _omissions(use, a_sum, b_sum, c_sum, scale, work, chisq_one, chisq_two, rate_one, rate_two):
    """Chi squared and rate without each difference, and without each pair of neighbours (paper II, section 3)."""
    n = use.size
    beta, theta, phi, row_c, row_b = work[1], work[2], work[3], work[4], work[5]
    determinant = theta[n]
    chisq = (a_sum - b_sum * b_sum / c_sum) / scale
    rate = b_sum * (1.0 / c_sum)
    for i in range(n):
        if use[i] == 0.0:
            chisq_one[i] = chisq
            rate_one[i] = rate
            continue
        inverse = theta[i] * phi[i + 1] / determinant
        below = c_sum * inverse - row_c[i] * row_c[i]
        a = (inverse * b_sum - row_b[i] * row_c[i]) / below
        b = (row_b[i] - a * row_c[i]) / inverse
        rate_one[i] = a
        chisq_one[i] = (
            a_sum + a * a * c_sum - 2 * a * b_sum + b * b * inverse - 2 * b * row_b[i] + 2 * a * b * row_c[i]
        ) / scale
    for i in range(n - 1):
        if use[i] == 0.0:
            chisq_two[i] = chisq_one[i + 1]
            rate_two[i] = rate_one[i + 1]
            continue
        if use[i + 1] == 0.0:
            chisq_two[i] = chisq_one[i]
            rate_two[i] = rate_one[i]
            continue
        here = theta[i] * phi[i + 1] / determinant
        there = theta[i + 1] * phi[i + 2] / determinant
        between = -beta[i] * theta[i] * phi[i + 2] / determinant
        own = row_c[i] * row_c[i] - c_sum * here
        mixed = row_c[i] * row_c[i + 1] - c_sum * between
        right = b_sum * row_c[i] - row_b[i] * c_sum
        c = right / own - (b_sum * row_c[i + 1] - row_b[i + 1] * c_sum) / mixed
        c /= mixed / own - (row_c[i + 1] * row_c[i + 1] - c_sum * there) / mixed
        b = (right - c * mixed) / own
        a = (b_sum - b * row_c[i] - c * row_c[i + 1]) / c_sum
        rate_two[i] = a
        chisq_two[i] = (
            a_sum + a * a * c_sum + b * b * here + c * c * there
            - (2 * a * b_sum + 2 * b * row_b[i] + 2 * c * row_b[i + 1])
            + (2 * a * b * row_c[i] + 2 * a * c * row_c[i + 1] + 2 * b * c * between)
        ) / scale  # fmt: skip
    return chisq, rate


@numba.njit(**_OPTIONS)
def _largest(improvements, allowed):
    """Largest improvement where allowed, 0 at least if some are not; NaN if one is NaN."""
    best = -np.inf
    for i in range(improvements.size):
        value = improvements[i] * allowed[i]
        if np.isnan(value):
            return np.nan
        best = max(best, value)
    return best


@numba.njit(**_OPTIONS)
def _omit_jumps(
    diff, use, guess, scale, gain, noise, photon, read, photon_next, read_next, pairs, limit_one, limit_two, work,
    one, two, rate_one, rate_two, always,
):  # fmt: skip
    """Set ``use`` to 0 for differences with jumps, and return a rate without them for the covariance."""
    n = diff.size
    result = 0.0
    for turn in range(n):
        a_sum, b_sum, c_sum = _fit(
            diff, use, guess, scale, gain, noise, photon, read, photon_next, read_next, work
        )  # fmt: skip
        chisq, rate = _omissions(use, a_sum, b_sum, c_sum, scale, work, one, two, rate_one, rate_two)
        if turn == 0:
            result = rate
        for i in range(n):
            one[i] = chisq - one[i]
        for i in range(n - 1):
            two[i] = chisq - two[i]
        best_one = _largest(one, always)
        best_two = _largest(two[: n - 1], pairs)
        single = best_one - limit_one > best_two - limit_two
        best = best_one * (best_one > limit_one) * single + best_two * (best_two > limit_two) * (not single)
        if np.isnan(best) or best == 0.0:
            break
        dropped = 0
        value = 0.0
        if single:
            for i in range(n):
                hit = one[i] == best
                value += rate_one[i] * hit
                if hit:
                    use[i] = 0.0
                    dropped += 1
        else:
            for i in range(n - 1):
                hit = two[i] == best
                value += rate_two[i] * hit
                if hit:
                    use[i] = 0.0
                    use[i + 1] = 0.0
                    dropped += 1
        if dropped == 0:
            break
        result = result * 0.0 + value
        # With three differences left there is no telling which one is good.
        if use.sum() <= 3:
            break
    return result


@numba.njit(**_OPTIONS)
def _median(values, scratch):
    """Median; NaN if a value is NaN."""
    n = values.size
    for i in range(n):
        value = values[i]
        if np.isnan(value):
            return np.nan
        j = i
        while j > 0 and scratch[j - 1] > value:
            scratch[j] = scratch[j - 1]
            j -= 1
        scratch[j] = value
    return scratch[n // 2] if n % 2 else (scratch[n // 2 - 1] + scratch[n // 2]) / 2.0


@numba.njit(**_OPTIONS)
def _load(sci, groupdq, found, zeroframe, nframes, delta_t, i, y, x, values, flags, diff, use):
    """Differences of a ramp [DN/s], and 1 where both groups are without flags and no jump was found, else 0."""
    ngroups = sci.shape[1]
    extra = values.size - ngroups
    for group in range(ngroups):
        values[group + extra] = sci[i, group, y, x]
        flags[group + extra] = groupdq[i, group, y, x]
    if extra:
        # The zero frame is taken out of the average of the first group, and shares its flags.
        zero = zeroframe[i, y, x]
        values[0] = zero
        values[1] = (values[1] * np.float32(nframes) - zero) / np.float32(nframes - 1)
        flags[0] = flags[1]
    for k in range(diff.size):
        diff[k] = np.float64(values[k + 1] - values[k]) / delta_t[k]
        good = flags[k] == 0 and flags[k + 1] == 0 and found[i, k + 1 - extra, y, x] & JUMP_DET == 0
        use[k] = 1.0 if good else 0.0


@numba.njit(**_OPTIONS)
def _guess(sci, groupdq, zeroframe, nframes, delta_t, out):
    """Median difference of every ramp [DN/s], not below 0."""
    n = delta_t.size
    values, flags = np.empty(n + 1, np.float32), np.empty(n + 1, np.uint8)
    diff, use, scratch = np.empty(n), np.empty(n), np.empty(n)
    for i, y, x in np.ndindex(out.shape):
        _load(sci, groupdq, groupdq, zeroframe, nframes, delta_t, i, y, x, values, flags, diff, use)
        median = _median(diff, scratch)
        out[i, y, x] = median * (median > 0.0)


@numba.njit(**_OPTIONS)
def _find_jumps(
    sci, groupdq, zeroframe, gain, noise, nframes, delta_t, photon, read, photon_next, read_next, pairs,
    guess, scale, limit_one, limit_two, found, rate,
):  # fmt: skip
    """Mark jumps in ``found`` (flags of all groups), and a rate without them."""
    n = delta_t.size
    values, flags = np.empty(n + 1, np.float32), np.empty(n + 1, np.uint8)
    diff, use, before = np.empty(n), np.empty(n), np.empty(n)
    one, two, rate_one, rate_two = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    work = np.empty((9, n + 1))
    always = np.ones(n, np.bool_)
    extra = n + 1 - sci.shape[1]
    for i, y, x in np.ndindex(rate.shape):
        _load(sci, groupdq, groupdq, zeroframe, nframes, delta_t, i, y, x, values, flags, diff, use)
        before[:] = use
        rate[i, y, x] = _omit_jumps(
            diff, use, guess[i, y, x], scale[i, y, x], np.float64(gain[y, x]), noise[y, x],
            photon, read, photon_next, read_next, pairs, limit_one, limit_two,
            work, one, two, rate_one, rate_two, always,
        )  # fmt: skip
        for k in range(n):
            if use[k] != before[k]:
                found[i, k + 1 - extra, y, x] |= np.uint8(JUMP_DET)


@numba.njit(**_OPTIONS)
def _fit_rates(
    sci, groupdq, found, zeroframe, gain, noise, nframes, delta_t, photon, read, photon_next, read_next,
    guess, scale, out_sci, out_err, out_poisson, out_rnoise, out_chisq,
):  # fmt: skip
    """Rates, their errors and variances, and chi squared of all ramps, without the jumps in ``found``."""
    n = delta_t.size
    values, flags = np.empty(n + 1, np.float32), np.empty(n + 1, np.uint8)
    diff, use = np.empty(n), np.empty(n)
    work = np.empty((9, n + 1))
    for i, y, x in np.ndindex(out_sci.shape):
        _load(sci, groupdq, found, zeroframe, nframes, delta_t, i, y, x, values, flags, diff, use)
        g, sigma = np.float64(gain[y, x]), noise[y, x]
        factor = scale[i, y, x]
        a_sum, b_sum, c_sum = _fit(
            diff, use, guess[i, y, x], factor, g, sigma, photon, read, photon_next, read_next, work
        )  # fmt: skip
        electrons = guess[i, y, x] / g
        poisson = 0.0
        poisson_next = 0.0
        variance = 0.0
        variance_next = 0.0
        for k in range(n):
            weight = work[4, k] / c_sum
            poisson += weight * weight * (electrons * photon[k])
            variance += weight * weight * (sigma * sigma * read[k])
            if k + 1 < n:
                following = work[4, k + 1] / c_sum
                poisson_next += following * weight * (electrons * photon_next[k])
                variance_next += following * weight * (sigma * sigma * read_next[k])
        out_sci[i, y, x] = b_sum * (1.0 / c_sum)
        out_err[i, y, x] = np.sqrt(factor / c_sum)
        out_poisson[i, y, x] = poisson + 2.0 * poisson_next
        out_rnoise[i, y, x] = variance + 2.0 * variance_next
        out_chisq[i, y, x] = (a_sum - b_sum * b_sum / c_sum) / factor


# Frames ---------------------------------------------------------------------------------------------------------------


def _scale(guess: np.ndarray, gain: np.ndarray, noise: np.ndarray, covariance: Covariance) -> np.ndarray:
    """What brings the determinant of the covariance to 1, lest long ramps overflow; float64 (integration, y, x).

    In numpy, whose power differs from that of the C library in the last bit: chi squared of ramps with few differences
    in use can hang on it.
    """
    n = covariance.delta_t.size
    variance = noise**2

    def alpha(i: int) -> np.ndarray:
        return electrons * covariance.photon[i] + variance * covariance.read[i]

    with np.errstate(all="ignore"):
        electrons = guess / gain
        scale = np.ones(guess.shape)
        older, old = np.ones(guess.shape), alpha(0)
        for i in range(2, n + 1):
            beta = electrons * covariance.photon_next[i - 2] + variance * covariance.read_next[i - 2]
            new = alpha(i - 1) / scale * old - beta**2 / scale**2 * older
            if i % _RESCALE == 0 or i == n:
                factor = new ** (1 / i)
                scale = scale * factor
                old = old / (new / factor)
                new = np.ones(guess.shape)
            older, old = old, new
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
    x0, x1, _ = columns.indices(sci.shape[3])
    part = (..., slice(y0, y1), slice(x0, x1))
    flags = np.array(groupdq, np.uint8)
    frame = (
        np.ascontiguousarray(sci[part], np.float32),
        np.ascontiguousarray(groupdq[part], np.uint8),
        np.ascontiguousarray(zeroframe[part] if zeroframe.size else zeroframe, np.float32),
    )
    gain = np.ascontiguousarray(gain[part], np.float32)
    noise = np.ascontiguousarray(readnoise[part], np.float32) / np.sqrt(2.0)
    dark = np.asarray(dark_current, np.float32)
    dark = dark[part] if dark.ndim else dark
    found = frame[1].copy()
    shape = (integrations, y1 - y0, x1 - x0)

    guess, jump_free = np.empty(shape), np.empty(shape)
    _guess(*frame, nframes, covariance.delta_t, guess)
    scale = _scale(guess, gain, noise, covariance)
    limits = float(threshold_one_omit), float(threshold_two_omit)
    _find_jumps(*frame, gain, noise, nframes, *covariance, guess, scale, *limits, found, jump_free)
    guess = jump_free * (jump_free > 0) + dark
    scale = _scale(guess, gain, noise, covariance)
    ints, chisq = Slopes.zeros(shape), np.empty(shape, np.float32)
    _fit_rates(
        frame[0], frame[1], found, frame[2], gain, noise, nframes, *covariance[:-1], guess, scale,
        ints.sci, ints.err, ints.var_poisson, ints.var_rnoise, chisq,
    )  # fmt: skip
    ints.dq[...] = _integration_flags(found, np.asarray(pixeldq, np.uint32)[part])
    mean = Slopes(*(array[0] for array in ints)) if integrations == 1 else _mean_over_integrations(ints)

    flags[part] = found
    rate, rateints = Slopes.zeros(sci.shape[2:]), Slopes.zeros((integrations, *sci.shape[2:]))
    whole_chisq = np.zeros(sci.shape[2:], np.float32)
    for target, values in zip((*rate, *rateints, whole_chisq), (*mean, *ints, np.sum(chisq, axis=0))):
        target[part] = values
    return Fit(rate, rateints, whole_chisq, flags)
