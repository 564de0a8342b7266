import numpy as np
import pytest

from jwstdask.kernels import guider_cds


def reads(seed, integrations, groups, shape=(7, 9)):
    rng = np.random.default_rng(seed)
    sci = rng.normal(800, 60, (integrations, groups, *shape)).astype(np.float32)
    sci[0, 0, 1, 2] = np.nan
    return sci


@pytest.mark.parametrize(("integrations", "groups", "seed"), [(2, 2, 0), (5, 3, 1)])
def test_differences(integrations, groups, seed):
    sci = reads(seed, integrations, groups)
    np.testing.assert_array_equal(guider_cds.difference(sci), sci[:, 1] - sci[:, 0])
    expected = np.minimum(sci[0, 1] - sci[0, 0], sci[1, 1] - sci[1, 0])
    np.testing.assert_array_equal(guider_cds.least_difference(sci), expected[None])
    assert np.isnan(expected).sum() == 1


@pytest.mark.parametrize(("groups", "seed"), [(2, 0), (4, 1), (5, 2), (20, 3)])
def test_difference_of_means(groups, seed):
    sci = reads(seed, 3, groups)
    expected = sci[:, -4:].mean(axis=1) - sci[:, :4].mean(axis=1)
    result = guider_cds.difference_of_means(sci)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32


@pytest.mark.parametrize("group_time", [0.364, 12.0, 1e-3])
def test_rates(group_time):
    rng = np.random.default_rng(4)
    signal = rng.normal(20, 30, (3, 7, 9)).astype(np.float32)
    gain, readnoise = rng.normal(1.8, 0.1, (7, 9)).astype(np.float32), rng.normal(12, 1, (7, 9)).astype(np.float32)
    gain[0, :3] = 0, np.nan, -1
    readnoise[1, 1] = np.nan
    signal[:, 0, 0] = 0, 5, -5
    with np.errstate(all="ignore"):
        photons = signal / (gain * group_time)
        photons[photons < 0] = 0
        expected = np.sqrt(2 * (readnoise / group_time) ** 2 + photons)
    rate, err = guider_cds.rates(signal, gain, readnoise, group_time)
    np.testing.assert_array_equal(rate, signal / np.float32(group_time))
    np.testing.assert_array_equal(err, expected)
    assert np.isnan(err[:, 0, 0]).tolist() == [True, False, False]
    assert rate.dtype == err.dtype == np.float32
