import numpy as np
import pytest

from jwstdask.kernels import emicorr
from jwstdask.kernels.emicorr import Median, PhaseSums, Readout, Table, Wave

READOUT = Readout(ny=12, nx=40, groups=7, samples=1, row=28, reset=8512)
LATE = Readout(ny=6, nx=32, groups=5, samples=9, row=90, reset=0, late_packet=True)
WHOLE = slice(0, 12), slice(0, 40)


def shape_of(bins, seed=0):
    phase = (np.arange(bins) + 0.5) / bins
    third = np.random.default_rng(seed).uniform(0.1, 0.4)
    return np.sin(2 * np.pi * phase) + third * np.cos(6 * np.pi * phase)


def clocks(readout, integrations):
    """Clocks of every packet since the first, (integration, group, y, packet); one Python number after the other."""
    result = np.empty((integrations, readout.groups, readout.ny, readout.packets), object)
    now = 0
    for i in range(integrations):
        for group in range(readout.groups):
            for y in range(readout.ny):
                for p in range(readout.packets):
                    late = readout.late_packet and p == readout.packets - 1
                    result[i, group, y, p] = now + p * readout.samples + (3 + 2**32 if late else 0)
                now += readout.row
            now += (1024 - readout.ny) * 7
        now += readout.reset
    return result


def turns(readout, integrations, period):
    return (clocks(readout, integrations) / period).astype(float)


def block(ramp, rows, columns):
    return np.ascontiguousarray(ramp[..., rows, columns])


TILES = [(12, 40), (5, 40), (4, 7), (1, 3)]


def tiles(readout, tile):
    for y in range(0, readout.ny, tile[0]):
        for x in range(0, readout.nx, tile[1]):
            yield slice(y, min(y + tile[0], readout.ny)), slice(x, min(x + tile[1], readout.nx))


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


def exposure(readout, integrations, seed, period=None, amplitude=5.0, bins=64):
    rng = np.random.default_rng(seed)
    shape = (integrations, readout.groups, readout.ny, readout.nx)
    flux = rng.gamma(2, 10, shape[2:])
    flux[rng.random(shape[2:]) < 0.05] *= 30
    ramp = 12000 + rng.normal(0, 300, shape[2:]) + flux * np.arange(readout.groups)[:, None, None]
    ramp = ramp + rng.normal(0, 4, shape)
    if period is not None:
        noise = emicorr.wave_at(emicorr.spline_pieces(shape_of(bins)), turns(readout, integrations, period) + 0.37)
        ramp += amplitude * np.repeat(noise, 4, axis=-1)
    pixeldq = np.where(rng.random(shape[2:]) < 0.05, 1, 0).astype(np.uint32)
    return ramp.astype(np.float32), pixeldq


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


@pytest.mark.parametrize(("groups", "seed"), [(3, 0), (4, 1), (5, 2), (9, 3), (12, 4)])
def test_residuals(groups, seed):
    rng = np.random.default_rng(seed)
    ramp = rng.normal(12000, 700, (groups, 6, 16)).astype(np.float32)
    ramp[2, 1, 3] = np.nan
    time = np.arange(groups - 2.0)[:, None, None]
    inner = ramp[1:-1].astype(float)
    n, t, tt = groups - 2, time.sum(), (time**2).sum()
    with np.errstate(invalid="ignore"):
        slope = (n * (time * inner).sum(0) - t * inner.sum(0)) / (n * tt - t * t)
    flat = (ramp - slope * np.arange(groups)[:, None, None]).astype(np.float32)
    bias = flat[1:-1].min(axis=0) if n <= 2 else np.median(flat[1:-1], axis=0)
    flat = flat - bias
    quads = flat.reshape(groups, 6, 4, 4)
    expected = (((quads[..., 0] + quads[..., 1]) + quads[..., 2]) + quads[..., 3]) / np.float32(4)
    result = emicorr.residuals(ramp)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32
    assert np.isnan(result).all() == (groups == 3)


def test_whole_residuals():
    parts = np.random.default_rng(0).normal(0, 3, (2, 3, 5, 8)).astype(np.float32)
    expected = parts.copy()
    expected[..., 1] = expected[..., 2] = (parts[..., 0] + parts[..., 3]) / np.float32(2)
    expected -= np.median(expected.reshape(2, 3, -1), axis=-1)[..., None, None]
    np.testing.assert_array_equal(emicorr.whole_residuals(parts), expected)


@pytest.mark.parametrize("seed", range(4))
def test_clipped_mean_equals_astropys(seed):
    from astropy.stats import sigma_clipped_stats

    rng = np.random.default_rng(seed)
    values = rng.normal(3, 2, 500)
    values[rng.random(500) < 0.1] += 40
    assert emicorr.clipped_mean(values) == sigma_clipped_stats(values)[0]
    assert emicorr.clipped_mean([*values[:200], np.nan]) == sigma_clipped_stats(values[:200])[0]
    assert np.isnan(emicorr.clipped_mean(values[:0]))


@pytest.mark.parametrize(("period", "bins", "expected"), [(256.0, None, 128), (457.6, None, 228), (10000.0, None, 500)])
def test_folding_bins(period, bins, expected):
    assert emicorr.folding_bins(period, bins) == expected
    assert emicorr.folding_bins(period, 77) == 77
    assert emicorr.folding_bins(period, 501) == 501
    assert emicorr.folding_bins(period, 502) == 500


@pytest.mark.parametrize(
    ("readout", "period", "bins"), [(READOUT, 256.0, 128), (READOUT, 457.62287, 50), (LATE, 93.7, 46)]
)
def test_fold(readout, period, bins):
    rng = np.random.default_rng(1)
    values = rng.normal(0, 3, (2, readout.groups, readout.ny, readout.packets)).astype(np.float32)
    phase = turns(readout, 2, period) % 1
    wave = np.empty(bins)
    for k in range(bins):
        inside = (phase > k / bins) & (phase <= (k + 1) / bins)
        wave[k] = emicorr.clipped_mean(values[inside])
    np.testing.assert_array_equal(emicorr.fold(values, readout, period, bins), wave - np.median(wave))


@pytest.mark.parametrize(("old", "size"), [(128, 256.0), (228, 457.62287), (500, 128), (7, 7), (10, 3.2)])
def test_resampled(old, size):
    wave = np.arange(float(old))
    result = emicorr.resampled(wave, size)
    assert result.size == int(np.ceil(size))
    np.testing.assert_array_equal(result, [int(k * (old / size)) for k in range(result.size)])


def test_noise_table_turns_and_scales_the_reference():
    reference = shape_of(128)
    wave = 3.5 * np.roll(reference, 40) + 0.7
    period = 256.0
    turned = np.repeat(np.roll(reference, 40), 2)
    np.testing.assert_array_equal(emicorr.noise_table(wave, period), np.repeat(wave, 2))
    np.testing.assert_array_equal(emicorr.noise_table(wave, period, reference, scale=False), turned)
    # A line fitted to points without noise: rounding of 256 terms.
    np.testing.assert_allclose(emicorr.noise_table(wave, period, reference), 3.5 * turned, rtol=1e-12)
    wave[3] = np.nan
    assert emicorr.noise_table(wave, period)[6] == 0


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("readout", [READOUT, LATE])
def test_tables_are_subtracted_packet_by_packet(tile, readout):
    rng = np.random.default_rng(2)
    ramp, _ = exposure(readout, 2, 6)
    tables = [Table(256.0, rng.normal(0, 3, 256)), Table(93.7, rng.normal(0, 3, 94))]
    expected = ramp.copy()
    for table in tables:
        now = turns(readout, 2, table.period)
        noise = table.values[((now - np.floor(now)) * table.period).astype(int)]
        for column in range(4):
            expected[..., column::4] -= noise
    for rows, columns in tiles(readout, tile):
        part = block(ramp, rows, columns)
        result = emicorr.subtract_tables(part, readout, tables, rows, columns)
        np.testing.assert_array_equal(result, expected[..., rows, columns])
        np.testing.assert_array_equal(part, ramp[..., rows, columns])
        np.testing.assert_array_equal(emicorr.subtract_tables(part, readout, tables, rows, columns, part), result)


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
