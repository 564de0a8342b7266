from __future__ import annotations

import numpy as np
import pytest

from jwstdask.simulate.detector import linearised, make_maps, unlinearised
from jwstdask.simulate.instruments import ReadPattern, instrument
from jwstdask.simulate.ramps import (
    Effects,
    ReferenceArrays,
    cosmic_ray_hits,
    pink_noise,
    simulate_ramp,
    snowball_image,
    spill,
)

NIRCAM = instrument("nircam")


@pytest.fixture(scope="module")
def detector():
    detector = NIRCAM.detector("nrca1")
    aperture = NIRCAM.aperture(detector, "SUB160")
    maps = make_maps(NIRCAM, detector, aperture, np.random.default_rng(3))
    arrays = ReferenceArrays(
        maps.gain, maps.superbias, maps.read_noise, maps.saturation, maps.linearity, maps.dark_rate,
        maps.reference_pixels,
    )  # fmt: skip
    return aperture, arrays


@pytest.mark.parametrize("seed", range(4))
def test_unlinearised_is_the_inverse(seed, detector):
    _, arrays = detector
    rng = np.random.default_rng(seed)
    signal = rng.uniform(-100, 55000, arrays.gain.shape)
    coefficients = arrays.linearity.astype(float)
    # Newton's method from a start good to a percent: squared three times
    back = unlinearised(linearised(signal, coefficients), coefficients)
    np.testing.assert_allclose(back, signal, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_spill_keeps_the_charge(seed):
    rng = np.random.default_rng(seed)
    charge = rng.uniform(0, 80, (30, 40))
    charge[12, 20] = 900.0
    well = np.full(charge.shape, 100.0)
    closed = np.zeros(charge.shape, bool)
    closed[:4] = True
    well[closed] = np.inf
    before = charge.copy()
    spill(charge, well, closed, rounds=500)
    # float64 sums
    assert charge.sum() == pytest.approx(before.sum(), rel=1e-12)
    assert charge.max() <= 100.0 + 1e-6
    np.testing.assert_array_equal(charge[closed], before[closed])
    assert (charge >= before)[np.ix_([11, 13], [20])].all()


def test_pink_noise_has_unit_variance_and_a_falling_spectrum():
    rng = np.random.default_rng(0)
    power, variance = 0, []
    for _ in range(40):
        noise = pink_noise(rng, 4096)
        variance.append(np.mean(noise.astype(float) ** 2))
        power = power + np.abs(np.fft.rfft(noise)) ** 2
    # 1/f noise of N samples has few effective modes: 10 % on the mean of 40
    assert np.mean(variance) == pytest.approx(1, abs=0.1)
    frequency = np.arange(1, 1000)
    slope = np.polyfit(np.log(frequency), np.log(power[1:1000]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.03)


def test_cosmic_rays_stay_on_the_array():
    hit, y, x, electrons = cosmic_ray_hits(np.random.default_rng(4), (50, 70), 500)
    assert y.min() >= 0 and y.max() < 50 and x.min() >= 0 and x.max() < 70
    assert (electrons > 0).all()
    assert np.unique(hit).size > 450
    pixels_a_hit = np.bincount(hit)
    assert pixels_a_hit.max() > 5
    assert 1 <= np.median(pixels_a_hit[pixels_a_hit > 0]) <= 5


def test_snowballs_have_a_saturated_core():
    image = snowball_image(np.random.default_rng(0), 5.0, 1000.0)
    centre = image.shape[0] // 2
    assert image[centre, centre] > 1000
    assert np.pi * 4**2 < (image > 1000).sum() < np.pi * 6**2
    assert image[centre, -1] < 20


@pytest.mark.parametrize("pattern", [ReadPattern("RAPID", 1, 0, 10), ReadPattern("SHALLOW4", 4, 1, 10)])
def test_noiseless_ramp_is_the_formula(detector, pattern):
    aperture, arrays = detector
    rate = np.random.default_rng(8).uniform(0, 8000, arrays.gain.shape)
    ramp = simulate_ramp(
        np.random.default_rng(0), rate, arrays, NIRCAM, aperture, pattern, 5, 2, Effects.none(), zeroframe=True
    )
    assert ramp.data.shape == (2, 5, 160, 160)
    assert ramp.data.dtype == np.uint16
    np.testing.assert_array_equal(ramp.data[0], ramp.data[1])
    frame = NIRCAM.frame_time(aperture)
    active = ~arrays.reference_pixels
    total = np.where(active, rate + arrays.dark_rate, 0) / arrays.gain

    def sample(number: int) -> np.ndarray:
        """Whole-number value of the read that ends after ``number`` frames."""
        signal = unlinearised((total * frame * number), arrays.linearity.astype(float))
        return np.rint(np.minimum(signal, arrays.full_well) + arrays.superbias)

    for group in range(5):
        first = group * (pattern.nframes + pattern.groupgap)
        mean = np.mean([sample(first + k + 1) for k in range(pattern.nframes)], axis=0)
        # float32 arithmetic may round a read to the neighbouring number
        np.testing.assert_allclose(ramp.data[0, group], mean, rtol=0, atol=1.01)
    np.testing.assert_allclose(ramp.zeroframe[0], sample(1), rtol=0, atol=1.01)


def test_hits_are_where_the_table_says(detector):
    aperture, arrays = detector
    effects = Effects(False, False, 400.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, False)
    pattern = ReadPattern("RAPID", 1, 0, 10)
    ramp = simulate_ramp(np.random.default_rng(1), 0 * arrays.gain, arrays, NIRCAM, aperture, pattern, 6, 2, effects)
    quiet = simulate_ramp(
        np.random.default_rng(1), 0 * arrays.gain, arrays, NIRCAM, aperture, pattern, 6, 2, Effects.none()
    )
    jump = np.diff(ramp.data.astype(int) - quiet.data, axis=1, prepend=0)
    expected = np.zeros(jump.shape)
    rays = ramp.cosmic_rays
    assert len(rays) > 20
    np.add.at(expected, (rays["integration"], rays["group"], rays["y"], rays["x"]), rays["electrons"])
    big = expected > 100
    np.testing.assert_array_equal(jump[expected == 0] < 2, True)
    # linear to electrons within the nonlinearity (7 %), the gain and rounding
    gain = np.broadcast_to(arrays.gain, jump.shape)
    np.testing.assert_allclose(jump[big] * gain[big], expected[big], rtol=0.1, atol=3)


def test_read_noise_and_reset_noise(detector):
    aperture, arrays = detector
    effects = Effects(False, True, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0, 0.0, False)
    pattern = ReadPattern("RAPID", 1, 0, 10)
    ramp = simulate_ramp(np.random.default_rng(1), 0 * arrays.gain, arrays, NIRCAM, aperture, pattern, 8, 2, effects)
    data = ramp.data.astype(float)
    ratio = np.std(data, axis=1, ddof=1).mean(axis=0) / np.hypot(arrays.read_noise, 12**-0.5)
    dim = arrays.dark_rate < 0.1
    # standard deviation of 8 reads is 3.5 % low on average (c4 of 8)
    assert np.mean(ratio[dim]) == pytest.approx(0.965, abs=0.01)
    kept = (data - data.mean(axis=1, keepdims=True)).std()
    between = (data[0].mean(axis=0) - data[1].mean(axis=0))[dim].std()
    # two integrations: sqrt(2) times 10 DN, and a little read noise
    assert between == pytest.approx(np.hypot(10, np.sqrt(np.mean(arrays.read_noise[dim] ** 2) / 8)) * 2**0.5, rel=0.03)
    assert kept < 10
