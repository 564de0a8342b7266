from __future__ import annotations

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.kernels.photom import Calibrated, photom, time_correction

f4 = np.float32
VALUES = st.sampled_from([0.0, 1.0, -1.0, 0.3, 3.25, 1e-30, 1e30, math.nan, math.inf, -7.75]).map(f4)


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9)),
    conversion=st.sampled_from([f4(0.437), np.float64(0.437), f4(1), f4(0), np.float64(1e20)]),
    inverse=st.booleans(),
    has_flat=st.booleans(),
    in_place=st.booleans(),
)
def test_equals_the_definition(data, shape, conversion, inverse, has_flat, in_place):
    arrays = [data.draw(hnp.arrays(f4, shape, elements=VALUES)) for _ in range(5)]
    dq = data.draw(hnp.arrays(np.uint32, shape, elements=st.sampled_from([0, 1, 2, 3, 2**31])))
    wanted = []
    with np.errstate(all="ignore"):
        for array, factor in zip(arrays, (conversion, conversion, *[conversion * conversion] * 3)):
            wanted.append((array / factor if inverse else array * factor).astype(f4))
    if not has_flat:
        wanted.pop()
    bad = (dq & 1) != 0
    for array in wanted:
        bad |= np.isnan(array)
    sci, err, poisson, rnoise, flat = arrays
    flat = flat if has_flat else None
    out = Calibrated(sci, err, dq, poisson, rnoise, flat) if in_place else None
    before = dq.copy()
    found = photom(sci, err, dq, poisson, rnoise, flat, conversion, inverse, out)
    np.testing.assert_array_equal(found.dq, np.where(bad, before | 1, before))
    values = (found.sci, found.err, found.var_poisson, found.var_rnoise) + ((found.var_flat,) if has_flat else ())
    for array, other in zip(values, wanted, strict=True):
        np.testing.assert_array_equal(array, np.where(bad, f4(np.nan), other))
    assert has_flat or found.var_flat is None
    assert in_place or np.array_equal(dq, before)


def test_time_correction_is_one_at_the_reference_day_and_multiplies():
    linear = np.array([(60000.0, 0.02)], dtype=[("t0", "f4"), ("lossperyear", "f4")])
    exponential = np.array(
        [(60000.0, 0.25, 100.0, 0.75)], dtype=[(name, "f4") for name in ("t0", "amplitude", "tau", "const")]
    )
    power = np.array([(60000.0, 0.5, 1.0, -0.25)], dtype=[(n, "f4") for n in ("t0", "year1value", "tsoft", "alpha")])
    assert time_correction(60000.0) == 1.0
    assert time_correction(60000.0, linear, exponential)[0] == 1.0
    # A year later, in float32: 6e-8 relative for each of a few operations.
    assert time_correction(60365.0, linear)[0] == pytest.approx(0.98, rel=3e-7)
    assert time_correction(60365.0, None, exponential)[0] == pytest.approx(0.75 + 0.25 * math.exp(-3.65), rel=3e-7)
    assert time_correction(60365.0, None, None, power)[0] == pytest.approx(0.5, rel=3e-7)
    parts = [time_correction(60200.0, *terms)[0] for terms in ((linear,), (None, exponential), (None, None, power))]
    assert time_correction(60200.0, linear, exponential, power)[0] == parts[0] * parts[1] * parts[2]
