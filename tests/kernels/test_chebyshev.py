from __future__ import annotations

import numpy as np
import pytest

from jwstdask.kernels import chebyshev


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (2, 1), (7, 2), (16, 3)])
def test_series_interpolates_its_samples(count, seed):
    samples = np.random.default_rng(seed).normal(size=(2, count, count))
    series = chebyshev.coefficients(samples)
    table = chebyshev.basis(chebyshev.nodes(count), count)
    out = np.empty((count, count, 2))
    chebyshev.evaluate(series, table, table, out)
    # Interpolation at the nodes is exact up to rounding: a few hundred operations of 1.1e-16 each on values of order 1.
    np.testing.assert_allclose(np.moveaxis(out, -1, 0), samples, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_polynomial_is_reproduced_away_from_the_nodes(seed):
    rng = np.random.default_rng(seed)
    powers = rng.normal(size=(6, 6))
    grid = chebyshev.nodes(6)
    samples = np.polynomial.polynomial.polygrid2d(grid, grid, powers)
    place_y, place_x = rng.uniform(-1, 1, 9), rng.uniform(-1, 1, 11)
    out = np.empty((9, 11, 2))
    series = chebyshev.coefficients(np.stack([samples, -samples]))
    chebyshev.evaluate(series, chebyshev.basis(place_y, 6), chebyshev.basis(place_x, 6), out)
    wanted = np.polynomial.polynomial.polygrid2d(place_y, place_x, powers)
    # Degree 5 in each variable is represented exactly; 36 terms of order 1 round to about 1e-14.
    np.testing.assert_allclose(out[..., 0], wanted, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(out[..., 1], -out[..., 0])


def test_any_cut_of_the_grid_has_the_same_bits():
    rng = np.random.default_rng(5)
    series = rng.normal(size=(2, 9, 9))
    table_y, table_x = chebyshev.basis(np.linspace(-1, 1, 40), 9), chebyshev.basis(np.linspace(-1, 1, 53), 9)
    whole = np.empty((40, 53, 2))
    chebyshev.evaluate(series, table_y, table_x, whole)
    part = np.empty((7, 19, 2))
    chebyshev.evaluate(series, np.ascontiguousarray(table_y[:, 11:18]), np.ascontiguousarray(table_x[:, 30:49]), part)
    np.testing.assert_array_equal(part, whole[11:18, 30:49])
