from __future__ import annotations

import math

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.core import dq as flags
from jwstdask.kernels.flat_field import FlatFielded, flat_field

f4 = np.float32
VALUES = st.sampled_from([0.0, 1.0, -1.0, 0.5, 3.25, 1e-30, 1e30, math.nan, math.inf, -7.75]).map(f4)
FLAGS = st.sampled_from([0, 1, 2, flags.NO_FLAT_FIELD, flags.UNRELIABLE_FLAT, 2**31 + 4])


def slow(sci, dq, vp, vr, flat, err, flat_dq, inverse):
    """One pixel in float32, straight from the definition."""
    quality = int(flat_dq)
    if np.isnan(flat) or flat == 0:
        quality |= flags.NO_FLAT_FIELD | flags.DO_NOT_USE
    if quality & flags.NO_FLAT_FIELD:
        quality |= flags.DO_NOT_USE
    if quality & flags.DO_NOT_USE:
        flat = f4(1)
    square = flat * flat
    if inverse:
        sci, vp, vr, vf = sci * flat, vp * square, vr * square, f4(0)
        error = np.sqrt(vp + vr)
    else:
        sci, vp, vr = sci / flat, vp / square, vr / square
        vf = sci * sci / square * (err * err)
        error = np.sqrt(vp + vr + vf)
    quality |= int(dq)
    values = [sci, error, vp, vr, vf]
    if quality & flags.DO_NOT_USE or any(np.isnan(value) for value in values):
        quality |= flags.DO_NOT_USE
        values = [f4(np.nan)] * 5
    return values, quality


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9)),
    inverse=st.booleans(),
    in_place=st.booleans(),
)
def test_equals_the_definition_pixel_by_pixel(data, shape, inverse, in_place):
    sci, vp, vr = (data.draw(hnp.arrays(f4, shape, elements=VALUES)) for _ in range(3))
    flat, err = (data.draw(hnp.arrays(f4, shape[1:], elements=VALUES)) for _ in range(2))
    dq = data.draw(hnp.arrays(np.uint32, shape, elements=FLAGS))
    flat_dq = data.draw(hnp.arrays(np.uint32, shape[1:], elements=FLAGS))
    wanted = [np.empty(shape, f4) for _ in range(5)]
    wanted_dq = np.empty(shape, np.uint32)
    with np.errstate(all="ignore"):
        for i, y, x in np.ndindex(shape):
            at = i, y, x
            values, wanted_dq[at] = slow(sci[at], dq[at], vp[at], vr[at], flat[y, x], err[y, x], flat_dq[y, x], inverse)
            for array, value in zip(wanted, values):
                array[at] = value
    kept = [array.copy() for array in (sci, dq, vp, vr, flat, err, flat_dq)]
    out = FlatFielded(sci, np.empty_like(sci), dq, vp, vr, np.empty_like(sci)) if in_place else None
    found = flat_field(sci, dq, vp, vr, flat, err, flat_dq, inverse, out)
    for array, other in zip((found.sci, found.err, found.var_poisson, found.var_rnoise, found.var_flat), wanted):
        np.testing.assert_array_equal(array, other)
    np.testing.assert_array_equal(found.dq, wanted_dq)
    for before, after in list(zip(kept, (sci, dq, vp, vr, flat, err, flat_dq)))[4 if in_place else 0 :]:
        np.testing.assert_array_equal(before, after)


def test_an_image_is_a_cube_of_one():
    rng = np.random.default_rng(0)
    sci, vp, vr, flat, err = (rng.uniform(0.5, 2, (5, 7)).astype(f4) for _ in range(5))
    dq = np.zeros((5, 7), np.uint32)
    plane = flat_field(sci, dq, vp, vr, flat, err, dq)
    cube = flat_field(sci[None], dq[None], vp[None], vr[None], flat, err, dq)
    for a, b in zip(plane, cube):
        np.testing.assert_array_equal(a, b[0])
