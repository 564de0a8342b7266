"""Kernels of the sequential way of emicorr against slow references."""

from __future__ import annotations

import numpy as np
import pytest

from jwstdask.kernels import emicorr_sequential as sequential
from jwstdask.kernels.emicorr_sequential import Table
from tests.kernels.interference import LATE, READOUT, TILES, block, exposure, shape_of, tiles, turns


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
    result = sequential.residuals(ramp)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32
    assert np.isnan(result).all() == (groups == 3)


def test_whole_residuals():
    parts = np.random.default_rng(0).normal(0, 3, (2, 3, 5, 8)).astype(np.float32)
    expected = parts.copy()
    expected[..., 1] = expected[..., 2] = (parts[..., 0] + parts[..., 3]) / np.float32(2)
    expected -= np.median(expected.reshape(2, 3, -1), axis=-1)[..., None, None]
    np.testing.assert_array_equal(sequential.whole_residuals(parts), expected)


@pytest.mark.parametrize("seed", range(4))
def test_clipped_mean_equals_astropys(seed):
    from astropy.stats import sigma_clipped_stats

    rng = np.random.default_rng(seed)
    values = rng.normal(3, 2, 500)
    values[rng.random(500) < 0.1] += 40
    assert sequential.clipped_mean(values) == sigma_clipped_stats(values)[0]
    assert sequential.clipped_mean([*values[:200], np.nan]) == sigma_clipped_stats(values[:200])[0]
    assert np.isnan(sequential.clipped_mean(values[:0]))


@pytest.mark.parametrize(("period", "bins", "expected"), [(256.0, None, 128), (457.6, None, 228), (10000.0, None, 500)])
def test_folding_bins(period, bins, expected):
    assert sequential.folding_bins(period, bins) == expected
    assert sequential.folding_bins(period, 77) == 77
    assert sequential.folding_bins(period, 501) == 501
    assert sequential.folding_bins(period, 502) == 500


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
        wave[k] = sequential.clipped_mean(values[inside])
    np.testing.assert_array_equal(sequential.fold(values, readout, period, bins), wave - np.median(wave))


@pytest.mark.parametrize(("old", "size"), [(128, 256.0), (228, 457.62287), (500, 128), (7, 7), (10, 3.2)])
def test_resampled(old, size):
    wave = np.arange(float(old))
    result = sequential.resampled(wave, size)
    assert result.size == int(np.ceil(size))
    np.testing.assert_array_equal(result, [int(k * (old / size)) for k in range(result.size)])


def test_noise_table_turns_and_scales_the_reference():
    reference = shape_of(128)
    wave = 3.5 * np.roll(reference, 40) + 0.7
    period = 256.0
    turned = np.repeat(np.roll(reference, 40), 2)
    np.testing.assert_array_equal(sequential.noise_table(wave, period), np.repeat(wave, 2))
    np.testing.assert_array_equal(sequential.noise_table(wave, period, reference, scale=False), turned)
    # A line fitted to points without noise: rounding of 256 terms.
    np.testing.assert_allclose(sequential.noise_table(wave, period, reference), 3.5 * turned, rtol=1e-12)
    wave[3] = np.nan
    assert sequential.noise_table(wave, period)[6] == 0


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
        result = sequential.subtract_tables(part, readout, tables, rows, columns)
        np.testing.assert_array_equal(result, expected[..., rows, columns])
        np.testing.assert_array_equal(part, ramp[..., rows, columns])
        np.testing.assert_array_equal(sequential.subtract_tables(part, readout, tables, rows, columns, part), result)
