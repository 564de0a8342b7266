import numpy as np
import pytest
from scipy.ndimage import convolve1d

from jwstdask.kernels import irs2
from jwstdask.kernels.irs2 import Readout

READOUTS = [Readout(), Readout(flipped=True), Readout(32, 8), Readout(8, 2, True)]


@pytest.mark.parametrize("readout", READOUTS, ids=str)
def test_rows_of_a_file(readout):
    assert readout.science.size == irs2.SIZE
    assert readout.held.size + irs2.SIZE == readout.rows
    # From one line to the next each output is sampled once at each time, and never during the jumps and the pause.
    jumps = irs2.WIDTH // readout.normal
    for number in range(irs2.OUTPUTS):
        rows = readout.output == number
        times = readout.time[rows]
        assert rows.sum() == readout.section == np.unique(times).size == readout.line - irs2.PAUSE - 2 * jumps
        assert times.min() == 0
        assert times.max() == readout.line - irs2.PAUSE - 1
        assert readout.interleaved[rows].sum() == jumps * readout.reference
        order = rows.nonzero()[0][np.argsort(times)]
        steps = np.diff(readout.time[order])
        jumped = np.diff(readout.interleaved[order].astype(int)) != 0
        np.testing.assert_array_equal(steps, np.where(jumped, 2, 1))


def test_direction_of_the_readout():
    first, second = Readout(), Readout(flipped=True)
    # Outputs are read in turn up and down; the second detector is turned by half a turn.
    assert first.sample[640:643].tolist() == [0, 1, 2]
    assert first.sample[[0, 1279, 1280]].tolist() == [639, 639, 639]
    np.testing.assert_array_equal(second.time, first.time[::-1])
    np.testing.assert_array_equal(second.output, first.output[::-1])
    assert first.science[0] == 640
    assert second.science[-1] == 3200 - 641


@pytest.mark.parametrize("flipped", [False, True])
def test_lines_begin_in_the_order_of_time(flipped):
    readout = Readout(flipped=flipped)
    start = readout.start[::-1] if flipped else readout.start
    np.testing.assert_array_equal(np.diff(start), readout.line)
    # Samples are counted from the middle of the frame.
    assert start[0] + start[-1] + readout.line - 1 == 0


@pytest.mark.parametrize("seed", range(4))
def test_zeros_are_interpolated(seed):
    rng = np.random.default_rng(seed)
    lines = rng.normal(100, 5, (41, 60)).astype(np.float32)
    lines[rng.random(41) < 0.3] = 0
    lines[rng.random(lines.shape) < 0.04] = 0
    # A gap too wide for its middle.
    lines[2:39, 30] = 0
    series = lines.T.ravel()
    weights = np.sin(np.arange(1, 32) / 32 * np.pi)
    total = convolve1d(series.astype(np.float64), weights, mode="wrap")
    norm = convolve1d((series != 0).astype(np.float64), weights, mode="wrap")
    expected = np.where(series != 0, series, total / np.where(norm == 0, 1, norm)).reshape(60, 41).T
    known = lines != 0
    before = lines.copy()
    irs2.interpolate_zeros(lines)
    np.testing.assert_array_equal(lines[known], before[known])
    # Weights and the quotient are rounded to float32.
    np.testing.assert_allclose(lines, expected, rtol=1e-6, atol=1e-12)
    assert np.any(lines == 0)


def test_smoothing_passes_the_slowest_and_the_fastest():
    readout = Readout()
    response = irs2.smoothing(readout)
    samples = readout.line * irs2.SIZE
    assert response.shape == (samples,)
    # A real series stays real.
    np.testing.assert_array_equal(response[1:], response[:0:-1])
    assert (response[:30268] == 1).all()
    assert (np.diff(response[30268:35268]) < 0).all()
    assert (response[35268 : samples // 2 - 35268] == 0).all()
    assert response[samples // 2] == 1


@pytest.mark.parametrize("flipped", [False, True])
def test_replacements(flipped):
    readout = Readout(flipped=flipped)
    samples = np.arange(3200, dtype=np.float32)[:, np.newaxis] * [1, 2]
    jump = np.flatnonzero(readout.interleaved).reshape(-1, 4)
    bad = np.zeros(3200, bool)
    # In the middle of an output; at its end; beside a bad one; none good around, but the other pair; none at all.
    middle, end, beside = jump[40, 1], jump[32 + 31, 3], jump[70]
    lonely, lost = jump[100:103], jump[110:113]
    bad[[middle, end, *beside[:2], *jump[71][:2], *lonely[:, :2].ravel(), *lost.ravel()]] = True
    plan = irs2.replacements(readout, bad, np.flatnonzero(bad))
    sources = dict(plan)
    assert sources[middle] == (middle - 20, middle + 20)
    assert sources[end] == (end - 20,)
    assert sources[beside[0]] == (beside[0] - 20,)
    assert sources[lonely[1, 0]] == (lonely[1, 0] + 2,)
    assert sources[lost[1, 3]] == ()
    irs2.replace_rows(samples, plan, np.arange(3200))
    np.testing.assert_array_equal(samples[middle], [middle, 2 * middle])
    np.testing.assert_array_equal(samples[lonely[1, 0]], [lonely[1, 0] + 2, 2 * lonely[1, 0] + 4])
    assert (samples[lost[1]] == 0).all()
    assert (samples[~bad] == np.arange(3200)[~bad, np.newaxis] * [1, 2]).all()


def test_rows_that_are_not_held_are_left_alone():
    samples = np.ones((4, 2), np.float32)
    irs2.replace_rows(samples, [(7, (0,)), (8, ())], np.array([0, 1, 2, 3, -1, -1, -1, -1, -1]))
    assert (samples == 1).all()


@pytest.mark.parametrize(("shape", "levels"), [((2, 4, 5, 40), False), ((1, 2, 9, 16), True), ((1, 1, 3, 7), True)])
def test_pixels(shape, levels):
    """Against the same arithmetic on whole arrays."""
    rng = np.random.default_rng(shape[1])
    sci = rng.normal(1000, 20, shape).astype(np.float32)
    sci[..., 3] = 1000
    lead = shape[:2]
    level = rng.normal(0, 5, (*lead, shape[2])).astype(np.float32).astype(np.float64) * levels
    output, time = rng.integers(1, 5, shape[2]), rng.integers(0, 712, shape[2])
    start = (712 * np.arange(shape[3]) - 700.5).astype(np.float32)
    intercept = rng.normal(0, 3, (*lead, 5)).astype(np.float32)
    slope = rng.normal(0, 1e-4, (*lead, 5)).astype(np.float32)
    correction = rng.normal(0, 2, shape).astype(np.float32)
    values = (sci - level[..., np.newaxis]).astype(np.float32)
    mean = values.sum(axis=1, dtype=np.float64)[:, np.newaxis] / shape[1]
    rest = (values - mean).astype(np.float32)
    since = time[:, np.newaxis].astype(np.float32) + start
    line = intercept[..., output, np.newaxis] + since * slope[..., output, np.newaxis]
    expected = ((rest - line * (rest != 0) - correction) + mean).astype(np.float32)
    # Reference samples lie between the pixels.
    rows = np.sort(rng.choice(shape[2] + 6, shape[2], replace=False))
    mixed = rng.normal(0, 1e4, (*lead, shape[2] + 6, shape[3])).astype(np.float32)
    mixed[:, :, rows] = sci
    before = mixed.copy()
    out = np.empty_like(sci)
    irs2.subtract(mixed, rows, level, output, time, start, intercept, slope, correction, out)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(mixed, before)


def test_weights_of_another_length_are_refused():
    with pytest.raises(ValueError, match="10 values"):
        irs2.Correction(Readout(), np.ones((4, 10), np.complex64), np.ones((4, 10), np.complex64))


@pytest.mark.parametrize("flipped", [False, True])
def test_correction_with_weights_at_high_frequencies(flipped):
    """Against transforms of the whole series in float64, one sample after the other."""
    readout = Readout(flipped=flipped)
    rng = np.random.default_rng(int(flipped))
    samples = readout.line * irs2.SIZE
    held = rng.normal(0, 6, (readout.held.size, irs2.SIZE)).astype(np.float32)
    held[rng.random(held.shape) < 0.05] = 0
    frequency = np.minimum(np.arange(samples), samples - np.arange(samples))
    # the reference output counts where slow noise has been taken from the interleaved samples
    slow = np.exp(-((frequency / 1e4) ** 2))
    alpha, beta = (1 - slow) / (1 + frequency / 5e4) + 0.1, 2 * slow
    weights = [(values * rng.normal(1, 0.1, samples)).astype(np.complex64) for values in (alpha, beta)]
    none = np.zeros(samples, np.complex64)
    work = irs2.Correction(readout, [none, none, weights[0], none], [none, none, weights[1], none])
    work.prepare(held)
    number = 3
    own = np.flatnonzero((readout.output == number) & ~readout.interleaved)
    found = np.empty((own.size, irs2.SIZE), np.float32)
    for part, values in work.compute(held, number, readout.time[own]):
        found[part] = values

    # (line, time), lines in the order of time
    rows, time = held.astype(np.float64)[:, :: -1 if flipped else 1], readout.time[readout.held]
    section, interleaved = readout.output[readout.held], readout.interleaved[readout.held]
    output, known = np.zeros((irs2.SIZE, readout.line)), np.zeros(readout.line, bool)
    output[:, time[section == 0]] = rows[section == 0].T
    known[time[(section == 0) & ~interleaved]] = True
    window = np.sin(np.arange(1, 32) / 32 * np.pi)
    series = output.ravel()
    near = convolve1d(series, window, mode="wrap") / convolve1d((series != 0) * 1.0, window, mode="wrap")
    guess = np.where(series != 0, series, near)
    filled, response = guess.copy(), irs2.smoothing(readout)
    for _ in range(3):
        filled = np.fft.ifft(np.fft.fft(filled) * response).real
        filled = np.where(np.tile(known, irs2.SIZE), guess, filled)
    between = np.zeros((irs2.SIZE, readout.line))
    for jump in range(32):
        first = 22 * jump + 9
        a, b, c, d = (rows[(section == number) & (time == first + k)][0] for k in range(4))
        between[:, first - 2 : first + 6] = np.stack([a, c, a, c, b, d, b, d], axis=1)
    spectrum = np.fft.fft(filled) * weights[0] + np.fft.fft(between.ravel()) * weights[1]
    expected = np.fft.ifft(spectrum).real.reshape(irs2.SIZE, readout.line)[:, readout.time[own]].T
    expected = expected[:, :: -1 if flipped else 1]
    assert np.std(expected) > 1
    # sums of some million terms in float32: less than a hundred-thousandth of the noise
    assert np.abs(found - expected).max() < 1e-5 * 6
