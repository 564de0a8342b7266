import numpy as np
import pytest

from jwstdask.kernels.fourier import Grid

# Products of an odd number and a power of two: none of the one, none of the other, the time line of a short IRS2 frame.
LENGTHS = [7 * 64, 15 * 256, 512, 3, 712 * 16]


@pytest.mark.parametrize("samples", LENGTHS)
def test_transform_is_that_of_the_series(samples):
    series = np.random.default_rng(samples).normal(size=samples).astype(np.float32)
    grid = Grid.of(samples)
    laid_out = grid.lay_out(series)
    assert sorted(laid_out.ravel()) == sorted(series)
    exact = np.fft.fft(series.astype(np.float64))
    # Half of the frequencies stand for all: each is there, or its conjugate is.
    present = np.zeros(samples, bool)
    present[grid.frequency] = present[-grid.frequency] = True
    assert present.all()
    # Sums of n values in float32 by a tree: some units in the last place of the root mean square, sqrt(n).
    np.testing.assert_allclose(grid.forward(laid_out), exact[grid.frequency], atol=2e-6 * samples**0.5)
    np.testing.assert_allclose(grid.inverse(grid.forward(laid_out)), laid_out, atol=3e-6)


@pytest.mark.parametrize("samples", LENGTHS)
def test_filter_gives_the_real_part_of_the_filtered_series(samples):
    rng = np.random.default_rng(samples + 1)
    series = rng.normal(size=samples).astype(np.float32)
    response = (rng.normal(size=samples) + 1j * rng.normal(size=samples)).astype(np.complex64)
    grid = Grid.of(samples)
    filtered = grid.inverse(grid.forward(grid.lay_out(series)) * grid.filter(response))
    exact = np.fft.ifft(np.fft.fft(series.astype(np.float64)) * response).real
    np.testing.assert_allclose(filtered, grid.lay_out(exact), atol=1e-5)


def test_places_of_samples():
    grid = Grid.of(712 * 16)
    laid_out = grid.lay_out(np.arange(grid.samples))
    for sample in (0, 1, 88, 89, 90, 711, 712, 5000, grid.samples - 1):
        m, residue = divmod(sample, grid.odd)
        assert laid_out[grid.row[residue], (grid.shift[residue] + m) % grid.even] == sample


def test_given_buffers_are_used():
    grid = Grid.of(7 * 64)
    series = grid.lay_out(np.ones(grid.samples, np.float32))
    spectrum, back = np.empty((grid.half, grid.even), np.complex64), np.empty_like(series)
    assert np.shares_memory(grid.forward(series, spectrum), spectrum)
    assert grid.inverse(spectrum, back) is back
