import numpy as np
import pytest

from jwstdask.kernels import emicorr
from jwstdask.kernels.emicorr import Median, PhaseSums, Readout, Wave
from tests.kernels.interference import LATE, READOUT, TILES, block, exposure, shape_of, tiles, turns

WHOLE = slice(0, 12), slice(0, 40)


@pytest.mark.parametrize(("bins", "seed"), [(4, 0), (64, 1), (511, 2)])
def test_pieces_are_the_interpolating_spline(bins, seed):
    from scipy.interpolate import interp1d

    wave = np.random.default_rng(seed).normal(0, 3, bins)
    places = (np.arange(bins + 2) - 0.5) / bins
    spline = interp1d(places, [wave[-1], *wave, wave[0]], kind="cubic")
    pieces = emicorr.spline_pieces(wave)
    phase = np.random.default_rng(seed).random((40, 30))
    # Rounding of some ten operations in double precision on values of order ten.
    np.testing.assert_allclose(emicorr.wave_at(pieces, phase), spline(phase), rtol=0, atol=1e-12)
    np.testing.assert_allclose(emicorr.wave_at(pieces, places[1:-1]), wave, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(emicorr.wave_at(pieces, phase - 3), emicorr.wave_at(pieces, (phase - 3) % 1))


@pytest.mark.parametrize(("shape", "seed"), [((1, 3, 4, 5), 0), ((2, 40, 7, 9), 1), ((3, 5, 1, 64), 2)])
def test_scatter_has_the_bits_of_numpy(shape, seed):
    rng = np.random.default_rng(seed)
    ramp = rng.normal(12000, 700, shape).astype(np.float32)
    ramp[0, 1, 0, 0] = np.nan
    np.testing.assert_array_equal(emicorr.scatter(ramp), np.std(ramp, axis=1))


@pytest.mark.parametrize("size", [1, 2, 3, 10, 999, 30000])
@pytest.mark.parametrize("seed", range(3))
def test_median_is_exact(size, seed):
    rng = np.random.default_rng(seed)
    # Spread over the brackets, all in one, and many equal ones.
    values = [rng.gamma(2, 30, size), rng.normal(100, 0.01, size), rng.integers(0, 4, size)][seed].astype(np.float32)
    median = Median()
    parts = np.array_split(values, 3)
    for part in parts:
        median.count(part)
    for part in parts:
        median.keep(part)
    assert median.value == np.median(values)
    assert median.value.dtype == np.float32
    low, high = median.bracket
    assert low <= median.value < high


def test_median_of_invalid_values_is_none():
    median = Median()
    median.count(np.array([1, -np.float32(np.nan), 2, np.nan], np.float32))
    median.keep(np.array([1, np.nan, 2], np.float32))
    assert np.isnan(median.value)


def collected(readout, ramp, pixeldq, period, bins, tile):
    median = Median()
    for rows, columns in tiles(readout, tile):
        median.count(emicorr.scatter(block(ramp, rows, columns)))
    sums = PhaseSums(readout, period, ramp.shape[0], bins, median)
    for rows, columns in tiles(readout, tile):
        sums.add(block(ramp, rows, columns), pixeldq[rows, columns], rows, columns)
    sums.finish()
    return sums


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("readout", "period", "seed"), [(READOUT, 256.0, 0), (READOUT, 457.62287, 1), (LATE, 93.7, 2)])
def test_sums_by_phase(tile, readout, period, seed):
    ramp, pixeldq = exposure(readout, 2, seed)
    sums = collected(readout, ramp, pixeldq, period, 32, tile)
    found = np.std(ramp, axis=1)
    expected, counts = np.zeros(sums.sums.shape), np.zeros(sums.counts.shape)
    for i, y, x in np.ndindex(found.shape):
        if found[i, y, x] < 2 * np.median(found) and pixeldq[y, x] == 0 and x // 4 not in (1, 2):
            index = int((((y * readout.row + x // 4 * readout.samples) / period) % 1) * 32)
            expected[i, index] += ramp[i, :, y, x]
            counts[i, index] += 1
    # Sums of float32 values are exact in double precision: the order does not matter.
    np.testing.assert_array_equal(sums.sums, expected)
    np.testing.assert_array_equal(sums.counts, counts)
    assert 0 < counts.sum() < found.size
    assert (found >= 2 * np.median(found)).any()


@pytest.mark.parametrize("separately", [False, True])
@pytest.mark.parametrize(("period", "seed"), [(256.0, 3), (457.62287, 4), (93.7, 5)])
def test_fit_finds_the_wave(separately, period, seed):
    readout = Readout(ny=64, nx=72, groups=8, samples=1, row=28, reset=8512)
    ramp, pixeldq = exposure(readout, 3, seed, period)
    sums = collected(readout, ramp, pixeldq, period, 64, (64, 72))
    wave = emicorr.fit_wave(sums, shape_of(64), separately)
    noise = emicorr.wave_at(wave.pieces, turns(readout, 3, period) + 0.37) * 5.0
    fitted = np.zeros((3, readout.groups, readout.ny, readout.nx), np.float32)
    emicorr.subtract_waves(fitted, readout, [wave], slice(0, 64), slice(0, 72), fitted)
    left = -fitted[..., ::4] - noise
    # 30,000 samples with noise 4 and two free parameters for each integration: rms of the misfit about 4 sqrt(2/30000)
    # = 0.03; the phase of one integration counts to 1/500 turn, which is 0.02 of the amplitude of 5. In all below 0.2.
    assert np.sqrt(np.mean(left**2)) < 0.2
    assert np.sqrt(np.mean(noise**2)) > 3


def test_fit_of_nothing_subtracts_nothing():
    ramp, pixeldq = exposure(READOUT, 2, 0)
    sums = collected(READOUT, ramp, np.ones_like(pixeldq), 256.0, 32, (12, 40))
    wave = emicorr.fit_wave(sums, shape_of(32))
    np.testing.assert_array_equal(wave.amplitudes, 0)
    np.testing.assert_array_equal(emicorr.subtract_waves(ramp, READOUT, [wave], *WHOLE), ramp)


@pytest.mark.parametrize("later", [0.0, 0.25, 17.25, 3.1234567, 8512 / 256, 1 / 3, 0.002, 12 * 0.998])
def test_next_trial_phase_is_the_first_at_or_after(later):
    trials = np.arange(500) * 1.0 / 500
    for phase in [*trials, 0.12345, -0.001, 0.9999]:
        expected = np.argmin(np.abs((trials - phase - later) % 1))
        assert emicorr._next_trial(phase, later, 500) == expected


@pytest.mark.parametrize("leap", [0.0, 17.2513, 3.1234567, 8512 / 256])
def test_nearest_trial_phase(leap):
    rng = np.random.default_rng(3)
    a, b = rng.random((4, 500)), rng.random((4, 500))
    phases = np.array([0.12345, 0.9999, 0.5012])
    found = emicorr._add_integrations(a, b, phases, leap, np.arange(4), True)
    trials = np.arange(500) / 500
    for p, phase in enumerate(phases):
        away = (trials - (phase + leap * np.arange(4)[:, np.newaxis])) % 1
        nearest = np.argmin(np.minimum(away, 1 - away), axis=1)
        for own, values in zip(found, (a, b)):
            assert own[p] == pytest.approx(values[np.arange(4), nearest].sum(), rel=1e-14)


def test_best_phase():
    phases = np.arange(500) * 1.0 / 500
    chi_squared = (phases - 0.3013) ** 2
    # A parabola is met to rounding, which three points 0.002 apart magnify.
    assert emicorr.best_phase(phases, chi_squared) == pytest.approx(0.3013, abs=1e-8)
    assert emicorr.best_phase(phases, np.full(500, np.nan)) == 0
    assert emicorr.best_phase(phases, np.full(500, 2.0)) == 0
    chi_squared[151] = np.nan
    assert emicorr.best_phase(phases, np.where(phases == phases[150], -1.0, chi_squared)) == phases[150]


@pytest.mark.parametrize("tile", TILES)
def test_waves_are_subtracted_packet_by_packet(tile):
    ramp, _ = exposure(READOUT, 2, 6)
    pieces = emicorr.spline_pieces(shape_of(64))
    waves = [
        Wave(256.0, pieces, 0.123, np.array([0.2, 17.9]), np.array([3.0, -2.0])),
        Wave(93.7, pieces, 0.7, np.array([-0.3, 0.1]), np.array([0.5, 0.25])),
    ]
    expected = ramp.copy()
    for wave in waves:
        for i, group, y, x in np.ndindex(ramp.shape):
            first = ((y * READOUT.row + x // 4 * READOUT.samples) / wave.period) % 1
            noise = emicorr.wave_at(pieces, np.array([first + wave.step * group + wave.phases[i]]))[0]
            expected[i, group, y, x] -= wave.amplitudes[i] * noise
    before = ramp.copy()
    for rows, columns in tiles(READOUT, tile):
        part = block(ramp, rows, columns)
        result = emicorr.subtract_waves(part, READOUT, waves, rows, columns)
        np.testing.assert_array_equal(result, expected[..., rows, columns])
        np.testing.assert_array_equal(part, before[..., rows, columns])
        assert emicorr.subtract_waves(part, READOUT, waves, rows, columns, part) is part
        np.testing.assert_array_equal(part, result)


@pytest.mark.parametrize(("integrations", "bins", "groups"), [(1, 16, 3), (70, 8, 5)])
def test_chi_squared_is_that_of_lines_and_a_wave(integrations, bins, groups):
    rng = np.random.default_rng(integrations)
    sums, counts = rng.normal(1e4, 30, (integrations, bins, groups)), rng.integers(0, 9, (integrations, bins)) * 1.0
    pieces, step, time = emicorr.spline_pieces(shape_of(bins)), 0.3137, np.arange(groups)
    a, b = emicorr._chi_squared(sums, counts, pieces, step)
    assert a.shape == b.shape == (integrations, 500)
    for trial in (0, 77, 499):
        wave = emicorr.wave_at(pieces, ((np.arange(bins) + 0.5) / bins)[:, None] + time * step + trial / 500)
        left = wave - np.array([np.polyval(np.polyfit(time, row, 1), time) for row in wave])
        # Lines fitted to numbers of order one, and sums of some hundred products of order 1e4.
        np.testing.assert_allclose(a[:, trial], counts @ (left**2).sum(axis=1), rtol=1e-10)
        np.testing.assert_allclose(b[:, trial], -2 * (left * sums).sum(axis=(1, 2)), rtol=0, atol=1e-7)


@pytest.mark.parametrize("true", [0.0004, 0.9996, 0.9993, 0.25])
def test_best_phase_around_the_turn(true):
    """The vertex of a parabola in the distance around the turn; without ``turn`` it is lost at the ends, as in jwst."""
    phases = np.arange(500) / 500
    distance = (phases - true + 0.5) % 1 - 0.5
    found = emicorr.best_phase(phases, distance**2, turn=True)
    assert abs((found - true + 0.5) % 1 - 0.5) < 1e-9
    without = emicorr.best_phase(phases, distance**2)
    assert (abs((without - true + 0.5) % 1 - 0.5) < 1e-9) == (true == 0.25)
