"""Showers: flags identical to stcal's."""

import types
import warnings

import numpy as np
import pytest
from astropy.convolution import Ring2DKernel
from stcal.jump.jump import find_faint_extended

from jwstdask.core.dq import DO_NOT_USE, JUMP_DET, PERSISTENCE, REFERENCE_PIXEL, SATURATED
from jwstdask.kernels.showers import Showers, flag_showers, ring_of


def scene(seed, shape):
    """Ramps with faint extended events, flagged pixels of all kinds and reference columns."""
    rng = np.random.default_rng(seed)
    nints, ngroups, ny, nx = shape
    y_axis, x_axis = np.mgrid[:ny, :nx]
    steps = rng.poisson(20, shape).astype(float)
    for integration in range(nints):
        for _ in range(rng.integers(2, 5)):
            y, x, radius, group = (
                rng.uniform(5, ny - 5),
                rng.uniform(5, nx - 5),
                rng.uniform(8, 15),
                rng.integers(1, ngroups),
            )
            square = (y_axis - y) ** 2 + ((x_axis - x) * rng.uniform(0.5, 1)) ** 2
            steps[integration, group] += rng.uniform(12, 30) * np.exp(-square / radius**2)
    sci = (steps.cumsum(axis=1) + rng.normal(0, 3, shape) + 1000).astype(np.float32)
    groupdq = np.zeros(shape, np.uint8)
    groupdq[rng.random(shape) < 0.01] |= JUMP_DET
    groupdq[rng.random(shape) < 0.005] |= DO_NOT_USE
    groupdq[rng.random(shape) < 0.005] |= JUMP_DET | PERSISTENCE
    saturates = rng.random((nints, 1, ny, nx)) < 0.01
    groupdq[(np.arange(ngroups)[:, None, None] >= rng.integers(1, ngroups, (nints, 1, ny, nx))) & saturates] |= (
        SATURATED
    )
    if seed % 2:
        groupdq[:, [0, -1]] |= DO_NOT_USE
    pixeldq = np.zeros((ny, nx), np.uint32)
    pixeldq[rng.random((ny, nx)) < 0.01] |= DO_NOT_USE
    pixeldq[:, :4] = pixeldq[:, -4:] = REFERENCE_PIXEL
    pixeldq[10, 10] = REFERENCE_PIXEL | 8
    if seed % 3 == 0:
        sci[rng.random(shape) < 0.002] = np.nan
    gain = rng.normal(3, 0.2, (ny, nx)).astype(np.float32)
    readnoise = rng.gamma(20, 0.3, (ny, nx)).astype(np.float32)
    gain[6, 6], readnoise[5, 5] = np.nan, 0
    return sci, groupdq, pixeldq, gain, readnoise


def oracle(sci, groupdq, pixeldq, gain, readnoise, search):
    data = types.SimpleNamespace(
        fl_ref=REFERENCE_PIXEL,
        fl_sat=SATURATED,
        fl_jump=JUMP_DET,
        fl_dnu=DO_NOT_USE,
        minimum_sigclip_groups=1 if search.clip_over_integrations else 10**6,
        nframes=search.nframes,
        extend_inner_radius=search.extend_inner_radius,
        extend_outer_radius=search.extend_outer_radius,
        extend_snr_threshold=search.extend_snr_threshold,
        extend_min_area=search.extend_min_area,
        extend_ellipse_expand_ratio=search.extend_ellipse_expand_ratio,
        grps_masked_after_shower=search.groups_after,
        max_extended_width=2 * search.max_extended_radius,
        max_shower_amplitude=search.greatest_change,
    )
    electrons = sci * gain
    if search.searched:
        # The search for jumps leaves NaN where groups are unusable.
        electrons[groupdq & (DO_NOT_USE | SATURATED) != 0] = np.nan
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return find_faint_extended(electrons, groupdq.copy(), pixeldq, readnoise * gain, data)


SEARCHES = {
    "defaults": Showers(1, 20.0, groups_after=5),
    "believes little": Showers(4, 4.0, groups_after=2, extend_snr_threshold=1.6, extend_min_area=40),
    "wide ring, capped": Showers(1, 12.0, 1.3, 60, 2.0, 4.0, 1.5, groups_after=1, max_extended_radius=8),
    "clipped": Showers(1, 100.0, extend_snr_threshold=1.5, extend_min_area=30, clip_over_integrations=True),
    "not searched": Showers(1, 100.0, groups_after=3, searched=False),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", SEARCHES)
def test_flags_and_counts_are_those_of_the_oracle(name, seed):
    search = SEARCHES[name]
    shape = (40, 4, 60, 64) if search.clip_over_integrations else [(1, 14, 90, 100), (3, 8, 80, 90)][seed % 2]
    arrays = scene(seed, shape)
    before = arrays[1].copy()
    flags, events = flag_showers(*arrays, search)
    expected, expected_events = oracle(*arrays, search)
    np.testing.assert_array_equal(flags, expected)
    assert events == expected_events > 0
    np.testing.assert_array_equal(arrays[1], before)


def test_scenes_change_flags_and_have_some_put_back():
    arrays = scene(4, (1, 14, 90, 100))
    some, *_ = flag_showers(*arrays, Showers(1, 2.0, groups_after=5))
    more, *_ = flag_showers(*arrays, Showers(1, np.inf, groups_after=5))
    assert 0 < np.sum(some != arrays[1]) < np.sum(more != arrays[1])


def test_too_few_differences_are_not_searched():
    arrays = scene(0, (2, 5, 30, 40))
    flags, events = flag_showers(*arrays, SEARCHES["defaults"])
    assert (flags == arrays[1]).all() and events == 0
    assert oracle(*arrays, SEARCHES["defaults"])[1] == 0


@pytest.mark.parametrize(("inner", "width"), [(1.0, 2.6), (0.0, 1.0), (2.0, 4.0), (1.5, 0.7)])
def test_ring(inner, width):
    kernel = Ring2DKernel(inner, width).array
    expected = np.argwhere(kernel > 0) - np.array(kernel.shape) // 2
    assert sorted(map(tuple, ring_of(inner, width))) == sorted(map(tuple, expected))


def test_flags_in_place_and_memory_mapped(tmp_path):
    sci, groupdq, *rest = scene(4, (1, 14, 90, 100))
    expected, _ = flag_showers(sci, groupdq, *rest, SEARCHES["defaults"])
    mapped = np.lib.format.open_memmap(tmp_path / "flags.npy", "w+", np.uint8, groupdq.shape)
    mapped[...] = groupdq
    assert flag_showers(sci, mapped, *rest, SEARCHES["defaults"], out=mapped)[0] is mapped
    np.testing.assert_array_equal(mapped, expected)
