"""Ramps with flags, side by side.

For ramps that are interrupted by jumps, end where they saturate or lack some groups, in an otherwise good pixel: what
:mod:`jwstdask.kernels.ramp_pixel` does one by one, operation by operation, for up to ``LANES`` of them at once. Others
(lone groups, zero frames, charge migration, flags of other steps) are rare enough to be left to it.

Rows of numbers, (LANES,), are used up to ``width``.
"""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.core.dq import DO_NOT_USE, JUMP_DET, SATURATED
from jwstdask.kernels.compiled import INLINE, UNCOUNTED
from jwstdask.kernels.networks import sort_rows
from jwstdask.kernels.ramp_lines import power_class, quotient
from jwstdask.kernels.ramp_pixel import LARGE_VARIANCE, POWERS, add_segment, capped, weight_of
from jwstdask.kernels.ramp_vectors import LANES

_KNOWN = DO_NOT_USE | SATURATED | JUMP_DET

# What a group is by its flags: in a segment; the first of one if the next is; in none.
_GOOD, _JUMP, _LOST = 0.0, 1.0, 2.0
_STATES = np.array(
    [_GOOD if bits == 0 else _JUMP if bits == JUMP_DET else _LOST for bits in range(_KNOWN + 1)]
)  # fmt: skip


@numba.njit(**INLINE)
def suits(union, good, first_bits):
    """Whether a ramp of a good pixel can be fitted here, by its flags, its good groups and the flags of the first."""
    return (union & ~_KNOWN) == 0 and good > 1 and (first_bits & SATURATED) == 0


@numba.njit(**UNCOUNTED)
def gather(width, sci, groupdq, integrations, line_y, line_x, first, size, places, data, states, found):
    """Groups of ramps at ``places`` (line * LANES + lane), the last again up to ``width``, and all their flags.

    Each is of one of the ``integrations``. Lines begin at row ``line_y``, column ``line_x``.
    """
    for k in range(width):
        number = min(k, places.size - 1)
        place, i = int(places[number]), integrations[number]
        y = line_y[place // LANES]
        x = line_x[place // LANES] + place % LANES
        union = 0
        for group in range(size):
            bits = groupdq[i, first + group, y, x] & _KNOWN
            if group == 0 and first > 0:
                # A jump into the first group in use says nothing about the groups after it.
                bits &= ~JUMP_DET
            union |= bits
            data[group, k] = np.float64(sci[i, first + group, y, x])
            states[group, k] = _STATES[bits]
        found[k] = union


@numba.njit(**INLINE)
def median_rates(width, data, states, size, group_time, network, steps, work, rates):
    """Median differences [DN/s] of the ramps, or their first groups where there is no difference."""
    reciprocal = 1.0 / group_time
    before, count = work[0], work[1]
    for k in range(width):
        before[k] = quotient(data[0, k], group_time, reciprocal)
        count[k] = 0.0
        rates[k] = before[k] if states[0, k] < _LOST else 0.0
    for group in range(1, size):
        value = data[group]
        state = states[group]
        last_state = states[group - 1]
        step = steps[group - 1]
        for k in range(width):
            rate = quotient(value[k], group_time, reciprocal)
            usable = (state[k] == _GOOD) & (last_state[k] < _LOST)
            step[k] = rate - before[k] if usable else np.inf
            before[k] = rate
            count[k] += 1.0 if usable else 0.0
    sort_rows(steps, size - 1, width, network)
    for k in range(width):
        number = int(count[k])
        if number > 0:
            rates[k] = (steps[(number - 1) // 2, k] + steps[number // 2, k]) * 0.5


@numba.njit(**INLINE)
def _mark_segments(width, data, states, size, gain, noise, positions, lengths, heads, work):
    """Position of groups in their segment (-1 in none), its length, first group and class of signal-to-noise ratio.

    ``lengths`` holds length times 8 plus class; ``work[0]`` gets the longest segment of each ramp.
    """
    position_before, head_before = work[1], work[2]
    for k in range(width):
        position_before[k] = -1.0
        head_before[k] = 0.0
    for group in range(size):
        state = states[group]
        next_state = states[min(group + 1, size - 1)]
        # In the last group a jump opens nothing.
        opening = _JUMP if group + 1 < size else -1.0
        value = data[group]
        position = positions[group]
        head = heads[group]
        for k in range(width):
            good = state[k] == _GOOD
            opens = (state[k] == opening) & (next_state[k] == _GOOD)
            place = 0.0 if opens else position_before[k] + 1.0
            place = place if (good | opens) else -1.0
            first = value[k] if place == 0.0 else head_before[k]
            position[k] = place
            head[k] = first
            position_before[k] = place
            head_before[k] = first
    longest, size_after, next_position = work[0], work[1], work[2]
    for k in range(width):
        longest[k] = 0.0
        size_after[k] = 0.0
        next_position[k] = 0.0
    for group in range(size - 1, -1, -1):
        position = positions[group]
        value = data[group]
        head = heads[group]
        length = lengths[group]
        for k in range(width):
            signal = (value[k] - head[k]) * gain[k]
            variance = noise[k] * noise[k] + signal
            above = power_class(signal, variance)
            ends = next_position[k] <= 0.0
            found = 8.0 * (position[k] + 1.0) + above if ends else size_after[k]
            length[k] = found
            size_after[k] = found
            next_position[k] = position[k]
            longest[k] = found if (found > longest[k]) & (position[k] >= 0.0) else longest[k]


@numba.njit(**INLINE)
def _find_weights(width, positions, lengths, table, weights):
    """Weights of a group in the segments of the ramps, 0 where it is in none."""
    powers, longest = table.shape[1], table.shape[2]
    flat = table.reshape(-1)
    known = True
    for k in range(width):
        known &= lengths[k] < 8.0 * table.shape[0]
    if known:
        for k in range(width):
            code = int(lengths[k])
            place = ((code >> 3) * powers + (code & 7)) * longest + int(positions[k])
            # The first weight is that of no segment.
            weights[k] = flat[place if positions[k] >= 0.0 else 0]
        return
    for k in range(width):
        length, kind = int(lengths[k]) >> 3, int(lengths[k]) & 7
        if positions[k] < 0.0:
            weights[k] = 0.0
        elif length < table.shape[0]:
            weights[k] = table[length, kind, int(positions[k])]
        else:
            weights[k] = weight_of(positions[k], length, POWERS[kind])


@numba.njit(**INLINE)
def fit_flagged(
    width, data, states, size, origin, gain, noise, scale, dark, rate, group_time, table,
    positions, lengths, heads, work, ending, sums, results,
):  # fmt: skip
    """Fit the ramps.

    ``sums`` (4, lane) gets what :func:`jwstdask.kernels.ramp_pixel.add_segment` adds, ``results`` (4, lane) slope,
    error, var_poisson and var_rnoise.
    """
    _mark_segments(width, data, states, size, gain, noise, positions, lengths, heads, work)
    longest, weights = work[0], work[1]
    sumw, sumx, sumxx, sumy, sumxy = work[2], work[3], work[4], work[5], work[6]
    for k in range(width):
        sumw[k] = 0.0
        sumx[k] = 0.0
        sumxx[k] = 0.0
        sumy[k] = 0.0
        sumxy[k] = 0.0
    sums[:] = 0.0
    for group in range(size):
        position = positions[group]
        length = lengths[group]
        _find_weights(width, position, length, table, weights)
        value = data[group]
        at = float(group - origin)
        for k in range(width):
            weight = weights[k] * scale[k]
            leverage = at * weight
            again = position[k] == 0.0
            sumw[k] = weight if again else sumw[k] + weight
            sumx[k] = leverage if again else sumx[k] + leverage
            sumxx[k] = at * leverage if again else sumxx[k] + at * leverage
            sumy[k] = value[k] * weight if again else sumy[k] + value[k] * weight
            sumxy[k] = value[k] * leverage if again else sumxy[k] + value[k] * leverage
        # A list, since nobody could foretell the branches of a loop over all.
        many = 0
        for k in range(width):
            ending[many] = k
            many += (position[k] >= 0.0) & (int(position[k]) == (int(length[k]) >> 3) - 1)
        for k in ending[:many]:
            count = int(length[k]) >> 3
            if count == 1:
                # Of lone groups the first counts, if there is nothing longer.
                if longest[k] >= 16.0:
                    continue
                longest[k] = np.inf
                slope = value[k] / group_time
            elif count == 2:
                slope = (value[k] - heads[group, k]) / group_time
            else:
                inverse = 1.0 / (sumw[k] * sumxx[k] - sumx[k] * sumx[k])
                slope = (sumw[k] * sumxy[k] - sumx[k] * sumy[k]) * inverse / group_time
            add_segment(slope, count, gain[k], noise[k], dark[k], rate[k], group_time, sums[:, k])
    slope, error, poisson, read = results[0], results[1], results[2], results[3]
    for k in range(width):
        poisson[k] = capped(1.0 / sums[1, k]) if sums[1, k] > 0.0 else 0.0
        read[k] = capped(1.0 / sums[2, k])
        slope[k] = sums[0, k] * read[k]
        variance = 1.0 / sums[3, k]
        error[k] = 0.0 if variance > LARGE_VARIANCE else np.sqrt(variance)
