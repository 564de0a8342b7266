"""Fits of flicker noise in frequency space against the oracle's."""

from __future__ import annotations

import numpy as np
import pytest

from jwstdask.kernels import fourier_clean
from jwstdask.kernels.errors import CleaningError
from tests.kernels.flicker import image

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
@pytest.mark.parametrize(("shape", "frequencies"), [((48, 200), None), ((120, 40), fourier_clean.FREQUENCIES_ALLSLITS)])
def test_subarrays_as_the_oracle(detector, shape, frequencies):
    """Within 1e-5 of the noise of 5 DN, or the rounding of the value: the oracle's Fourier vectors are complex64."""
    from jwst.clean_flicker_noise.clean_flicker_noise import fft_clean_subarray

    frequencies = frequencies or fourier_clean.FREQUENCIES
    values, mask = image(1, shape, level=0.0)
    values, mask = np.nan_to_num(values), mask & np.isfinite(values)
    mask[:, shape[1] // 3 : shape[1] // 2] = False
    mask[shape[0] // 2 : shape[0] // 2 + 9] = False
    expected = fft_clean_subarray(values.copy(), mask.copy(), detector, fc=frequencies)
    found = fourier_clean.fourier_clean_subarray(values.copy(), mask.copy(), detector != "NRS1", frequencies)
    assert (np.abs(found - expected) <= 1e-5 * 5 + 2 * np.spacing(np.abs(values))).all()
    assert np.std(expected - values) > 0.5


def frame(seed):
    """A square frame with a mask of bands; some lines have few background pixels, some no neighbours with any."""
    values, mask = image(seed, (256, 256), level=0.0)
    values = np.nan_to_num(values)
    for row in range(0, 256, 30):
        mask[row : row + 17] = False
    mask[:, 100] = False
    mask[:, 180:184] = False
    mask[20:, 101] = False
    return values, mask


@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
def test_full_frames_as_the_oracle(detector, monkeypatch):
    """Frames of 256 x 256 with the filter of 2048, stretched: within 1e-5 of the noise of 5 DN.

    As above; lines that the oracle's single precision spoils are computed as it does.
    """
    from jwst.clean_flicker_noise.nsclean import NSClean

    monkeypatch.setattr(fourier_clean, "_CUTOFF", 1 / 32)
    monkeypatch.setattr(fourier_clean, "_ROLLOFF", 1 / 128)
    values, mask = frame(2)
    expected = NSClean(detector, mask, fc=1 / 32, kill_width=1 / 128).clean(values.copy(), buff=True)
    found = values.copy()
    fourier_clean.fourier_clean_frame(found, mask, detector != "NRS1")
    assert (np.abs(found - expected) <= 1e-5 * 5 + 2 * np.spacing(np.abs(values))).all()
    assert np.std(expected - values) > 0.5


def test_noise_of_low_frequency_is_subtracted(monkeypatch):
    """A slow wave along the fast axis is gone.

    The smoothing across lines leaves a wave that is the same in all lines as it is, but for the one pixel by which the
    correction is moved, as in jwst: 2 pi / 256 of the amplitude.
    """
    monkeypatch.setattr(fourier_clean, "_CUTOFF", 1 / 32)
    monkeypatch.setattr(fourier_clean, "_ROLLOFF", 1 / 128)
    wave = 10 * np.cos(2 * np.pi * np.arange(256) / 256).astype(np.float32)
    values = np.repeat(wave[:, np.newaxis], 256, axis=1)
    found = values.copy()
    fourier_clean.fourier_clean_frame(found, np.ones(values.shape, bool), False)
    # Without the lines of reference pixels at both ends, as far as the smoothing reaches.
    moved = values - np.roll(values, 1, axis=0)
    np.testing.assert_allclose(found[:, 20:-20], moved[:, 20:-20], atol=1e-4)


def test_a_subarray_without_background_cannot_be_fitted():
    values, _ = image(0, (32, 64))
    with pytest.raises(CleaningError, match="no background"):
        fourier_clean.fourier_clean_subarray(np.nan_to_num(values), np.zeros(values.shape, bool), False)
