import os
import subprocess
import sys

import numpy as np
import pytest

from jwstdask.kernels.fourier import Lines, product

# Times of a line: eight times an odd number, neither, an even number that eight does not divide; the shortest of lines.
SHAPES = [(712, 32), (616, 64), (526, 16), (544, 16), (15, 64), (8, 2), (3, 4)]


def random_series(lines, rng, share):
    """A series (line, time) that is zero but at some times of each line, and these."""
    times = np.sort(rng.choice(lines.times, max(int(share * lines.times), 1), replace=False))
    series = np.zeros((lines.lines, lines.times), np.float32)
    series[:, times] = rng.normal(size=(lines.lines, times.size))
    return series, times


def spectrum_of(lines, series, times):
    rows = lines.rows(np.ascontiguousarray(series[:, times].T), times)
    return lines.forward(rows, lines.sampling(times))


@pytest.mark.parametrize("share", [0.2, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_transform_is_that_of_the_series(shape, share):
    lines = Lines.of(*shape)
    series, times = random_series(lines, np.random.default_rng(shape[0]), share)
    found = spectrum_of(lines, series, times)
    exact = np.fft.fft(series.ravel().astype(np.float64))
    # Half of the frequencies stand for all: each is there, or its conjugate is. The last lanes may have none.
    blocks, _, _, lanes = lines.frequency.shape
    valid = np.broadcast_to(
        (np.arange(blocks * lanes) < lines.half).reshape(blocks, 1, 1, lanes), lines.frequency.shape
    )
    frequency = lines.frequency[valid]
    present = np.zeros(series.size, bool)
    present[frequency] = present[-frequency] = True
    assert present.all()
    # Sums of n values in float32: some units in the last place of the root mean square, sqrt(n).
    spectrum = (found[:, :, 0] + 1j * found[:, :, 1])[valid]
    np.testing.assert_allclose(spectrum, exact[frequency], atol=2e-6 * series.size**0.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_filter_gives_the_real_part_of_the_filtered_sum(shape):
    lines, rng = Lines.of(*shape), np.random.default_rng(shape[0] + 1)
    (series, times), (other, other_times) = random_series(lines, rng, 0.3), random_series(lines, rng, 1)
    responses = (rng.normal(size=(2, series.size)) + 1j * rng.normal(size=(2, series.size))).astype(np.complex64)
    wanted = np.flatnonzero(rng.random(lines.times) < 0.7)
    rows = lines.filtered(
        lines.rows(np.ascontiguousarray(series[:, times].T), times),
        lines.sampling(times),
        lines.response(responses[0]),
        spectrum_of(lines, other, other_times),
        lines.response(responses[1]),
        wanted,
    )
    found = np.empty((wanted.size, lines.lines), np.float32)
    for part, values in lines.series(rows, wanted):
        found[part] = values
    spectra = np.fft.fft(np.stack((series.ravel(), other.ravel())).astype(np.float64))
    exact = np.fft.ifft((spectra * responses).sum(axis=0)).real.reshape(lines.lines, lines.times)
    np.testing.assert_allclose(found, exact[:, wanted].T, atol=1e-5)


def test_filter_does_not_depend_on_what_was_filtered_before():
    lines, rng = Lines.of(712, 32), np.random.default_rng(1)
    series, times = random_series(lines, rng, 0.2)
    rows = lines.rows(np.ascontiguousarray(series[:, times].T), times)
    response, wanted = lines.response(np.ones(series.size)), np.arange(712)
    other = np.zeros_like(response)
    first = lines.filtered(rows, lines.sampling(times), response, other, other, wanted)
    out = np.full_like(first, np.nan)
    spectrum = lines.empty()
    spectrum[...] = np.nan
    assert lines.forward(rows, lines.sampling(times), spectrum) is spectrum
    assert lines.filtered(rows, lines.sampling(times), response, other, other, wanted, out) is out
    np.testing.assert_array_equal(out, first)
    np.testing.assert_allclose(np.concatenate([values for _, values in lines.series(out, wanted)]).T, series, atol=3e-6)


def test_response_of_another_length():
    with pytest.raises(ValueError, match="10 values"):
        Lines.of(8, 2).response(np.ones(10, np.complex64))


@pytest.mark.parametrize("shape", [(3, 5, 7), (70, 512, 1025), (200, 70, 33), (1, 1, 1)])
def test_product_of_matrices(shape):
    """Sums of float32 in another order than numpy's: to 1e-5 of the length of rows and columns."""
    rng = np.random.default_rng(sum(shape))
    left, right = (
        (rng.normal(size=size) + 1j * rng.normal(size=size)).astype(np.complex64) for size in (shape[:2], shape[1:])
    )
    scale = np.linalg.norm(left, axis=1)[:, np.newaxis] * np.linalg.norm(right, axis=0)
    expected = left.astype(complex) @ right.astype(complex)
    assert np.abs(product(left, right) - expected).max() <= 1e-5 * scale.max()


_TRANSFORM = """
import hashlib
import numpy as np
from jwstdask.kernels.fourier import Lines
from jwstdask.kernels.irs2 import Readout, _Gaps

readout = Readout()
gaps, lines = _Gaps.of(readout), Lines.of(readout.line, 2048)
rng = np.random.default_rng(8)
rows = (rng.normal(size=(readout.line, 1025)) + 1j * rng.normal(size=(readout.line, 1025))).astype(np.complex64)
gaps.fill(rows)
times = np.arange(0, readout.line, 2)
sampling, response = lines.sampling(times), lines.response(rng.normal(size=readout.line * 2048).astype(np.complex64))
spectrum = lines.forward(rows[: times.size], sampling)
found = lines.filtered(rows[: times.size], sampling, response, spectrum, response, times)
print(hashlib.sha256(rows.tobytes() + spectrum.tobytes() + found.tobytes()).hexdigest())
"""


def test_same_bits_for_any_number_of_threads():
    """Threads of the linear algebra library, which workers have one of and a notebook as many as there are cores."""
    found = set()
    for threads in ("1", "2", "3"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", _TRANSFORM]
        found.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(found) == 1
