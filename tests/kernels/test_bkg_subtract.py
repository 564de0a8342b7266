from __future__ import annotations

import numpy as np
import pytest

from jwstdask.kernels.bkg_subtract import clipped_mean


def slow(values, variances, sigma, maxiters):
    """One pixel, straight from the definition."""
    kept = np.isfinite(values)
    iteration = 0
    while kept.any():
        good = values[kept]
        distance = np.abs(values - np.median(good))
        with np.errstate(invalid="ignore"):
            now = kept & (distance <= sigma * good.std() * (1 + 1e-12))
        iteration += 1
        if now.sum() in (kept.sum(), 0) or iteration == maxiters:
            kept = now
            break
        kept = now
    if not kept.any():
        return 0.0, 0.0
    return values[kept].mean(), variances[kept].sum() / kept.sum() ** 2


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40])
@pytest.mark.parametrize(("sigma", "maxiters"), [(3.0, None), (1.5, None), (1.5, 1), (2.0, 2), (2.0, 0)])
def test_equals_the_definition(count, sigma, maxiters):
    rng = np.random.default_rng(count)
    values = rng.normal(10, 1, (count, 6, 7))
    values[rng.random(values.shape) < 0.1] *= 20
    values[rng.random(values.shape) < 0.1] = np.nan
    values[rng.random(values.shape) < 0.03] = np.inf
    values[:, 0, 0] = np.nan
    values[:, 1, 1] = 3.25
    variances = rng.uniform(0, 2, values.shape)
    mean, variance = clipped_mean(values, variances, sigma, maxiters)
    for y, x in np.ndindex(6, 7):
        wanted = slow(values[:, y, x], variances[:, y, x], sigma, maxiters or -1)
        # Sums in another order: a few ulp.
        np.testing.assert_allclose((mean[y, x], variance[y, x]), wanted, rtol=1e-13, atol=0)


@pytest.mark.parametrize("count", [2, 13, 50])
@pytest.mark.parametrize(("sigma", "maxiters"), [(3.0, None), (1.5, 1), (2.0, 3)])
def test_same_values_as_astropy(count, sigma, maxiters):
    from astropy.stats import sigma_clip

    rng = np.random.default_rng(count)
    values = rng.normal(10, 1, (count, 16, 17))
    values[rng.random(values.shape) < 0.1] *= 20
    values[rng.random(values.shape) < 0.1] = np.nan
    mean, _ = clipped_mean(values, None, sigma, maxiters)
    with pytest.warns(match="invalid values"):
        wanted = sigma_clip(values, sigma=sigma, maxiters=maxiters, axis=0).mean(axis=0)
    np.testing.assert_array_equal(mean, wanted.data)
