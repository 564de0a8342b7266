"""Removal of drifts of the readout with the reference pixels at the edges of a detector.

Near-infrared detectors: the clipped mean of the reference pixels below and above each of four amplifiers, odd and even
columns apart, then the running median of those left and right of each row. Subarrays read through one amplifier: one
clipped mean for odd and even columns. MIRI: the clipped mean of the reference pixels left and right of each of four
interleaved amplifiers, odd and even rows apart, relative to the first group.

"Detector orientation" is the order of the readout: the fast direction runs along the second axis. All means are summed
in the order and precision of numpy's pairwise sum, because the last bit of a mean reaches every pixel of a frame.

Instead of the running median, the side pixels may be convolved with kernels measured for each amplifier (SIRS).

Source: JWST pipeline documentation, "Reference Pixel Correction"; Robberto, JWST-STScI-003852 (2014).
"""

from __future__ import annotations

import numba
import numpy as np

from jwstdask.core import dq
from jwstdask.kernels.compiled import COMPILED, UNCOUNTED
from jwstdask.kernels.networks import sort_columns
from jwstdask.kernels.runs import to_change

SIZE = 2048
"""Rows and columns of a near-infrared detector."""

BORDER = 4
"""Width of the border of reference pixels."""

AMPLIFIERS = 4
"""Outputs of a detector read in full."""

_WIDTH = SIZE // AMPLIFIERS
_WINDOWS = 64  # windows of a running median that are sorted together
_DO_NOT_USE = np.uint32(dq.DO_NOT_USE)


def to_detector(image: np.ndarray, fastaxis: int, slowaxis: int) -> np.ndarray:
    """View of an image or a stack of images (..., y, x) in detector orientation (..., row, column).

    Parameters
    ----------
    image
        In science orientation.
    fastaxis, slowaxis
        FASTAXIS and SLOWAXIS: 1 for x and 2 for y, negative if read towards smaller indices.
    """
    if abs(fastaxis) == 1:
        return image[..., :: 1 if slowaxis > 0 else -1, :: 1 if fastaxis > 0 else -1]
    return np.swapaxes(image[..., :: 1 if fastaxis > 0 else -1, :: 1 if slowaxis > 0 else -1], -2, -1)


@numba.njit(**UNCOUNTED)
def _sum_block(values, start, count):
    """Sum of up to 128 values in numpy's order: eight interleaved partial sums."""
    if count < 8:
        total = values.dtype.type(0)
        for k in range(start, start + count):
            total += values[k]
        return total
    r0, r1, r2, r3 = values[start], values[start + 1], values[start + 2], values[start + 3]
    r4, r5, r6, r7 = values[start + 4], values[start + 5], values[start + 6], values[start + 7]
    k = 8
    while k < count - count % 8:
        r0 += values[start + k]
        r1 += values[start + k + 1]
        r2 += values[start + k + 2]
        r3 += values[start + k + 3]
        r4 += values[start + k + 4]
        r5 += values[start + k + 5]
        r6 += values[start + k + 6]
        r7 += values[start + k + 7]
        k += 8
    total = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    while k < count:
        total += values[start + k]
        k += 1
    return total


@numba.njit(**COMPILED)
def _sum(values, start, count):
    """Sum in numpy's order: blocks of up to 128, halves added pairwise.

    The halves are kept on a stack: a function that calls itself cannot be loaded from numba's cache.
    """
    if count <= 128:
        return _sum_block(values, start, count)
    starts, counts, stage = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64, np.int64)
    left = np.empty(64, values.dtype)
    result = values.dtype.type(0)
    depth = 0
    starts[0], counts[0], stage[0] = start, count, 0
    while depth >= 0:
        size = counts[depth]
        half = size // 2
        half -= half % 8
        if size <= 128:
            result = _sum_block(values, starts[depth], size)
            depth -= 1
        elif stage[depth] == 0:
            stage[depth] = 1
            starts[depth + 1], counts[depth + 1], stage[depth + 1] = starts[depth], half, 0
            depth += 1
        elif stage[depth] == 1:
            left[depth] = result
            stage[depth] = 2
            starts[depth + 1], counts[depth + 1], stage[depth + 1] = starts[depth] + half, size - half, 0
            depth += 1
        else:
            result = left[depth] + result
            depth -= 1
    return result


@numba.njit(**COMPILED)
def clipped_mean(values, count, siglimit):
    """Mean of values within ``siglimit`` standard deviations, repeated until nothing is rejected.

    Parameters
    ----------
    values
        float32 or float64 (n,); its order is kept, its contents are overwritten.
    count
        How many of the values, from the first, to use.
    siglimit
        Rejection limit [standard deviations].

    Returns
    -------
    mean, exact
        float64 mean (NaN if there is no value); true if the values are all equal, when the mean counts as float64
        whatever the precision of ``values``.
    """
    kind = values.dtype.type
    limit = kind(siglimit)
    if count == 0:
        return np.nan, False
    equal = True
    for k in range(1, count):
        if values[k] != values[0]:
            equal = False
            break
    # A NaN differs from itself.
    if equal and values[0] == values[0]:
        return np.float64(values[0]), True
    squares = np.empty(count, values.dtype)
    while True:
        mean = kind(_sum(values, 0, count) / count)
        for k in range(count):
            deviation = values[k] - mean
            squares[k] = deviation * deviation
        deviation = kind(np.sqrt(kind(_sum(squares, 0, count) / count)))
        low = mean - deviation * limit
        high = mean + deviation * limit
        kept = 0
        for k in range(count):
            value = values[k]
            if value >= low and value <= high:
                values[kept] = value
                kept += 1
        if kept == count:
            return np.float64(mean), False
        count = kept
        if count == 0:
            return np.nan, False


@numba.njit(**COMPILED)
def _section_mean(section, section_dq, first, last, step, siglimit, work):
    """Clipped mean of columns first:last:step of a section (row, column); third value false without good pixels."""
    count = 0
    for row in range(section.shape[0]):
        for column in range(first, last, step):
            if (section_dq[row, column] & _DO_NOT_USE) == 0:
                work[count] = section[row, column]
                count += 1
    mean, exact = clipped_mean(work, count, siglimit)
    return mean, exact, count > 0


@numba.njit(**COMPILED)
def _average(low, high, single):
    """Average of two (mean, exact, present), in the precision the means have; false if neither is present."""
    if low[2] and high[2]:
        # float32 means add up in float32, unless one of them comes from equal values and was kept in float64.
        if single and not low[1] and not high[1]:
            return np.float64(np.float32(0.5) * (np.float32(high[0]) + np.float32(low[0]))), True
        return 0.5 * (high[0] + low[0]), True
    if high[2]:
        return high[0], True
    return low[0], low[2]


@numba.njit(**UNCOUNTED)
def _parity_start(first, parity):
    """Index of the first column of a parity in a section that begins at detector column ``first``."""
    return (parity - first) % 2


@numba.njit(**COMPILED)
def amplifier_levels(bottom, top, bottom_dq, top_dq, first_column, odd_even_columns, siglimit, single):
    """Levels of one group from the reference pixels below and above each amplifier.

    Parameters
    ----------
    bottom, top
        float32 or float64 (row, column) [DN], in detector orientation; they may have no rows.
    bottom_dq, top_dq
        uint32 (row, column).
    first_column
        Detector column of their first column.
    odd_even_columns
        Separate levels for odd and even columns; an amplifier that lacks either is left alone.
    siglimit
        Rejection limit [standard deviations].
    single
        The arrays are float32.

    Returns
    -------
    numpy.ndarray
        float64 (amplifier, detector column modulo 2) [DN]; zero without good pixels.
    """
    columns = max(bottom.shape[1], top.shape[1])
    levels = np.zeros((AMPLIFIERS, 2))
    work = np.empty(BORDER * _WIDTH, bottom.dtype)
    for amplifier in range(AMPLIFIERS):
        first = max(amplifier * _WIDTH - first_column, 0)
        last = min((amplifier + 1) * _WIDTH - first_column, columns)
        if first >= last:
            continue
        if odd_even_columns:
            found = True
            for parity in range(2):
                start = first + _parity_start(first_column + first, parity)
                low = _section_mean(bottom, bottom_dq, start, last, 2, siglimit, work)
                high = _section_mean(top, top_dq, start, last, 2, siglimit, work)
                level, present = _average(low, high, single)
                levels[amplifier, parity] = level
                found &= present
        else:
            low = _section_mean(bottom, bottom_dq, first, last, 1, siglimit, work)
            high = _section_mean(top, top_dq, first, last, 1, siglimit, work)
            level, found = _average(low, high, single)
            levels[amplifier] = level
        if not found:
            levels[amplifier] = 0
    return levels


@numba.njit(**COMPILED)
def running_median(side, side_dq, first_row, smoothing_length):
    """Median of good reference pixels in a window that runs along the slow direction, mirrored at the detector's ends.

    Parameters
    ----------
    side
        float32 or float64 (row, column) [DN], in detector orientation.
    side_dq
        uint32 (row, column).
    first_row
        Detector row of the first row.
    smoothing_length
        Rows in the window. An even window reaches half its length back and one row less ahead.

    Returns
    -------
    numpy.ndarray
        float64 (row,) [DN]; NaN where no good pixel is in the window.
    """
    rows, columns = side.shape
    result = np.empty(rows, np.float64)
    back = smoothing_length // 2
    size = smoothing_length * columns
    half = side.dtype.type(2)
    # Windows side by side, what is no good pixel sorted to their ends.
    keys = np.empty(size * _WINDOWS, side.dtype)
    counts = np.empty(_WINDOWS, np.int64)
    unknown = np.empty(_WINDOWS, np.bool_)
    for top in range(0, rows, _WINDOWS):
        lanes = min(_WINDOWS, rows - top)
        counts[:] = 0
        unknown[:] = False
        for place in range(smoothing_length):
            for lane in range(lanes):
                near = abs(top + lane + first_row - back + place)
                if near > SIZE - 1:
                    near = 2 * (SIZE - 1) - near
                near -= first_row
                inside = 0 <= near < rows
                for column in range(columns):
                    good = inside and (side_dq[near, column] & _DO_NOT_USE) == 0
                    value = side[near, column] if good else np.inf
                    counts[lane] += good
                    unknown[lane] |= value != value
                    keys[(place * columns + column) * lanes + lane] = value
        sort_columns(keys, size, lanes)
        for lane in range(lanes):
            count = counts[lane]
            if unknown[lane] or count == 0:
                result[top + lane] = np.nan
                continue
            upper = keys[count // 2 * lanes + lane]
            if count % 2 == 1:
                result[top + lane] = upper
            else:
                result[top + lane] = (keys[(count // 2 - 1) * lanes + lane] + upper) / half
    return result


@numba.njit(**COMPILED)
def without_levels(side, first_column, levels):
    """A copy of a section (row, column) minus its amplifiers' levels, in the precision of the section."""
    rows, columns = side.shape
    result = np.empty((rows, columns), side.dtype)
    for row in range(rows):
        for column in range(columns):
            position = first_column + column
            result[row, column] = np.float64(side[row, column]) - levels[position // _WIDTH, position % 2]
    return result


@numba.njit(**COMPILED)
def row_levels(left, right, left_dq, right_dq, corner, last_column, levels, smoothing_length, side_gain):
    """Levels of the rows of one group from the reference pixels left and right.

    Parameters
    ----------
    left, right
        float32 or float64 (row, column) [DN], in detector orientation, before the amplifier levels are subtracted; they
        may have no columns.
    left_dq, right_dq
        uint32 (row, column).
    corner
        Detector row and column of the first pixel of ``left``.
    last_column
        Detector column of the first pixel of ``right``.
    levels
        float64 (amplifier, parity) [DN] of the same group.
    smoothing_length
        Rows in the running median.
    side_gain
        Factor on the result.

    Returns
    -------
    numpy.ndarray
        float64 (row,) [DN]; zero where neither side has a good pixel.
    """
    low = running_median(without_levels(left, corner[1], levels), left_dq, corner[0], smoothing_length)
    high = running_median(without_levels(right, last_column, levels), right_dq, corner[0], smoothing_length)
    for row in range(low.size):
        a, b = low[row], high[row]
        if np.isnan(a):
            low[row] = 0.0 if np.isnan(b) else b
        elif not np.isnan(b):
            low[row] = 0.5 * (a + b)
        low[row] *= side_gain
    return low


def sirs_kernels(frequencies: np.ndarray, gaussmooth: float, halfwidth: int) -> np.ndarray:
    """Kernels of the Simple Improved Reference Subtraction from their Fourier coefficients.

    Parameters
    ----------
    frequencies
        complex128 (amplifier, frequency), of one side.
    gaussmooth
        Standard deviation of a Gaussian that smooths the kernels [pixel].
    halfwidth
        Half-width of the kernels [pixel].

    Returns
    -------
    numpy.ndarray
        float64 (amplifier, 2 halfwidth + 1).
    """
    offset = np.arange(-halfwidth, halfwidth + 1)
    window = np.exp(-(offset**2) / (2 * gaussmooth**2))
    window /= np.sum(window)
    middle = frequencies.shape[1] - 1
    kernels = [np.fft.fftshift(np.fft.irfft(values)) for values in frequencies]
    cut = slice(middle - halfwidth, middle + halfwidth + 1)
    return np.array([np.convolve(kernel[cut], window, mode="same") for kernel in kernels])


def sirs_row_levels(sides: list[np.ndarray], kernels: list[np.ndarray], sigreject: float) -> np.ndarray:
    """Levels of the rows of one group from side reference pixels convolved with kernels; flags are not looked at.

    Parameters
    ----------
    sides
        float64 (row, column) [DN], left and right, in detector orientation, the amplifier levels subtracted.
    kernels
        float64 (amplifier, lag), left and right, from :func:`sirs_kernels`.
    sigreject
        Pixels further from the median of their side are left out [standard deviations from the median deviation].

    Returns
    -------
    numpy.ndarray
        float64 (amplifier, row) [DN].
    """
    means, shares = [], []
    for side in sides:
        deviation = np.abs(side - np.median(side))
        good = deviation <= sigreject * (1.48 * np.median(deviation))
        means.append(np.sum(side * good, axis=1) / side.shape[1])
        shares.append(np.sum(good, axis=1) / side.shape[1])
    levels = np.zeros((len(kernels[0]), len(means[0])))
    full = np.ones(len(means[0]))
    for mean, share, kernel in zip(means, shares, kernels):
        for amplifier, weights in enumerate(kernel):
            # Where pixels were left out, the others weigh more.
            norm = np.convolve(full, weights, mode="same") / np.convolve(share, weights, mode="same")
            levels[amplifier] += np.convolve(mean, weights, mode="same") * norm
    return levels


@numba.njit(**UNCOUNTED)
def _rounds_first(first_single, integration, group):
    return first_single and integration == 0 and group == 0


def subtract_levels(
    sci: np.ndarray,
    levels: np.ndarray,
    rows: np.ndarray,
    fast_along_x: bool,
    fast: np.ndarray,
    slow: np.ndarray,
    first_single: bool,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Subtract amplifier and row levels from a tile of a ramp.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    levels
        float64 (integration, group, amplifier, detector column modulo 2) [DN].
    rows
        float64 (integration, group, amplifier or 1, row) [DN].
    fast_along_x
        The detector's columns run along x.
    fast, slow
        int64, detector column and index into ``rows`` of each pixel along the axis of the fast and slow direction.
    first_single
        In the first group of the first integration the difference to the amplifier level is rounded to float32 before
        the row level is subtracted.
    out
        Where to write; may be ``sci``.

    Returns
    -------
    numpy.ndarray
        float32, shape of ``sci`` [DN].
    """
    out = to_change(sci, out)
    _subtract_levels(out, levels, rows, fast_along_x, fast, slow, first_single, np.empty(out.shape[-1]))
    return out


@numba.njit(**UNCOUNTED)
def _subtract_levels(sci, levels, rows, fast_along_x, fast, slow, first_single, line):
    integrations, groups, ny, nx = sci.shape
    for integration in range(integrations):
        for group in range(groups):
            rounds = _rounds_first(first_single, integration, group)
            level = levels[integration, group]
            if rows.shape[2] > 1:
                # Row levels of each amplifier: seldom used, pixel by pixel.
                for y in range(ny):
                    for x in range(nx):
                        column, row = (fast[x], slow[y]) if fast_along_x else (fast[y], slow[x])
                        amplifier = column // _WIDTH
                        value = np.float64(sci[integration, group, y, x]) - level[amplifier, column % 2]
                        if rounds:
                            value = np.float64(np.float32(value))
                        sci[integration, group, y, x] = value - rows[integration, group, amplifier, row]
                continue
            shift = rows[integration, group, 0]
            if fast_along_x:
                for x in range(nx):
                    line[x] = level[fast[x] // _WIDTH, fast[x] % 2]
            else:
                for x in range(nx):
                    line[x] = shift[slow[x]]
            for y in range(ny):
                values = sci[integration, group, y]
                constant = shift[slow[y]] if fast_along_x else level[fast[y] // _WIDTH, fast[y] % 2]
                if fast_along_x:
                    if rounds:
                        for x in range(nx):
                            values[x] = np.float64(np.float32(values[x] - line[x])) - constant
                    else:
                        for x in range(nx):
                            values[x] = (values[x] - line[x]) - constant
                elif rounds:
                    for x in range(nx):
                        values[x] = np.float64(np.float32(values[x] - constant)) - line[x]
                else:
                    for x in range(nx):
                        values[x] = (values[x] - constant) - line[x]


@numba.njit(**COMPILED)
def interleaved_levels(left, right, left_dq, right_dq, odd_even_rows, siglimit):
    """Levels of one group of a MIRI detector, relative to the first group of the integration.

    Parameters
    ----------
    left, right
        float32 (y, 4) [DN], the first group subtracted; column k belongs to amplifier k.
    left_dq, right_dq
        uint32 (y, 4).
    odd_even_rows
        Separate levels for odd and even rows.
    siglimit
        Rejection limit [standard deviations].

    Returns
    -------
    levels, usable
        float64 (amplifier, y modulo 2) [DN]; false if an amplifier lacks good pixels on a side.
    """
    levels = np.zeros((AMPLIFIERS, 2))
    work = np.empty(left.shape[0], np.float32)
    for amplifier in range(AMPLIFIERS):
        for parity in range(2 if odd_even_rows else 1):
            step = 2 if odd_even_rows else 1
            pixels = np.ascontiguousarray(left[parity::step, amplifier]).reshape(1, -1)
            flags = np.ascontiguousarray(left_dq[parity::step, amplifier]).reshape(1, -1)
            low = _section_mean(pixels, flags, 0, pixels.shape[1], 1, siglimit, work)
            pixels = np.ascontiguousarray(right[parity::step, amplifier]).reshape(1, -1)
            flags = np.ascontiguousarray(right_dq[parity::step, amplifier]).reshape(1, -1)
            high = _section_mean(pixels, flags, 0, pixels.shape[1], 1, siglimit, work)
            if not (low[2] and high[2]):
                return levels, False
            level, _ = _average(low, high, True)
            if odd_even_rows:
                levels[amplifier, parity] = level
            else:
                levels[amplifier] = level
    return levels, True


@numba.njit(**COMPILED)
def subtract_interleaved(sci, levels, first_row, first_column, out):
    """Subtract MIRI's amplifier levels from a tile of a ramp, relative to the first group of each integration.

    Parameters
    ----------
    sci
        float32 (integration, group, y, x) [DN].
    levels
        float64 (integration, group, amplifier, y modulo 2) [DN], zero in the first group.
    first_row, first_column
        Detector row and column of the tile's first pixel.
    out
        float32, shape of ``sci`` [DN], overwritten; may be ``sci``.
    """
    integrations, groups, ny, nx = sci.shape
    line = np.empty(nx, np.float64)
    for integration in range(integrations):
        for group in range(groups - 1, -1, -1):
            level = levels[integration, group]
            for y in range(ny):
                for x in range(nx):
                    line[x] = level[(first_column + x) % AMPLIFIERS, (first_row + y) % 2]
                first = sci[integration, 0, y]
                values = sci[integration, group, y]
                target = out[integration, group, y]
                for x in range(nx):
                    difference = np.float32(np.float32(values[x] - first[x]) - line[x])
                    target[x] = np.float64(difference) + np.float64(first[x])
