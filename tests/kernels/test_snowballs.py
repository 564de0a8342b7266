"""Snowballs: flags identical to stcal's, ellipses identical to scikit-image's."""

import types

import numpy as np
import pytest
import skimage
from stcal.jump.jump import flag_large_events

from jwstdask.core.dq import DO_NOT_USE, JUMP_DET, SATURATED
from jwstdask.kernels.snowballs import Regions, Snowballs, ellipse_of, flag_snowballs


def scene(seed, shape, balls, hits, stars, unusable=0.0):
    """Flags with cosmic rays, round and elongated snowballs with and without cores and holes, and saturating stars."""
    rng = np.random.default_rng(seed)
    nints, ngroups, ny, nx = shape
    groupdq = np.zeros(shape, np.uint8)
    y_axis, x_axis = np.mgrid[:ny, :nx]
    hit = rng.random(shape) < hits
    hit[:, 0] = False
    spread = hit.copy()
    spread[:, :, 1:] |= hit[:, :, :-1]
    spread[:, :, :-1] |= hit[:, :, 1:]
    spread[..., 1:] |= hit[..., :-1]
    spread[..., :-1] |= hit[..., 1:]
    groupdq[spread] = JUMP_DET
    for integration in range(nints):
        for group in range(1, ngroups):
            for _ in range(rng.poisson(balls)):
                y, x, radius = rng.uniform(0, ny), rng.uniform(0, nx), rng.uniform(1, 12)
                ratio, turn = rng.choice([1.0, rng.uniform(0.3, 1)]), rng.uniform(0, np.pi)
                if rng.random() < 0.4:
                    y, x, radius = round(y), round(x), round(radius)  # symmetric: ties of the rounding
                along = (x_axis - x) * np.cos(turn) + (y_axis - y) * np.sin(turn)
                across = (y_axis - y) * np.cos(turn) - (x_axis - x) * np.sin(turn)
                distance = np.hypot(along, across / ratio)
                groupdq[integration, group][distance <= radius] |= JUMP_DET
                if rng.random() < 0.3:
                    groupdq[integration, group][distance <= 0.6 * radius] &= ~np.uint8(JUMP_DET)
                if rng.random() < 0.7:
                    later = min(group + rng.integers(0, 2), ngroups - 1)
                    groupdq[integration, later:, distance <= radius * rng.uniform(0.2, 0.8)] = SATURATED
        for _ in range(stars):
            distance = np.hypot(y_axis - rng.uniform(0, ny), x_axis - rng.uniform(0, nx))
            radius, start = rng.uniform(1, 6), rng.integers(0, ngroups)
            for group in range(start, ngroups):
                groupdq[integration, group][distance <= radius + 0.5 * (group - start)] = SATURATED
    groupdq[rng.random(shape) < unusable] |= DO_NOT_USE
    return groupdq


def oracle(groupdq, search):
    data = types.SimpleNamespace(
        fl_sat=SATURATED,
        fl_jump=JUMP_DET,
        min_jump_area=search.min_jump_area,
        min_sat_area=search.min_sat_area,
        expand_factor=search.expand_factor,
        sat_required_snowball=search.sat_required_snowball,
        min_sat_radius_extend=search.min_sat_radius_extend,
        sat_expand=2 * search.sat_expand,
        edge_size=search.edge_size,
        max_extended_width=2 * search.max_extended_radius,
        mask_persist_grps_next_int=search.persistent_groups > 0,
        persist_grps_flagged=search.persistent_groups,
    )
    return flag_large_events(groupdq.copy(), JUMP_DET, SATURATED, data)


SHAPES = [(1, 4, 150, 150), (2, 5, 100, 160), (3, 3, 160, 90), (1, 6, 128, 200)]
SEARCHES = {
    "defaults": Snowballs(persistent_groups=25),
    "flight": Snowballs(min_jump_area=15, min_sat_area=15, edge_size=0, min_sat_radius_extend=1.0, sat_expand=3),
    "no core needed": Snowballs(sat_required_snowball=False, expand_factor=1.5, persistent_groups=1),
    "capped": Snowballs(expand_factor=3.0, max_extended_radius=10, persistent_groups=2),
    "holes count": Snowballs(min_jump_area=20, min_sat_area=9, edge_size=5, expand_factor=2.5, persistent_groups=3),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", SEARCHES)
def test_flags_and_counts_are_those_of_the_oracle(name, seed):
    rng = np.random.default_rng(seed)
    balls, hits = rng.choice([0.5, 2, 5]), rng.choice([0, 0.002, 0.02])
    groupdq = scene(seed, SHAPES[seed % 4], balls, hits, 8, unusable=rng.choice([0, 0.01]))
    before = groupdq.copy()
    flags, events = flag_snowballs(groupdq, SEARCHES[name])
    expected, expected_events = oracle(groupdq, SEARCHES[name])
    np.testing.assert_array_equal(flags, expected)
    assert events == expected_events
    np.testing.assert_array_equal(groupdq, before)


@pytest.mark.parametrize("seed", range(40))
def test_ellipses_are_identical_to_scikit_image(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 14, 2)
    kind = seed % 4
    mask = np.ones(shape, np.uint8)
    if kind == 0:
        mask = (rng.random(shape) < 0.6).astype(np.uint8)
        mask.flat[0] = mask.flat[-1] = 1
    elif kind == 1:
        mask = np.eye(shape[0], dtype=np.uint8)
    elif kind == 2:
        y, x = np.mgrid[-shape[0] : shape[0] + 1, -shape[1] : shape[1] + 1]
        mask = (np.hypot(y, x) <= shape.min()).astype(np.uint8)
    # The label image holds one region whether or not its pixels touch.
    region = skimage.measure.regionprops(mask.astype(int))[0]
    minor, major, angle = ellipse_of(np.ascontiguousarray(region.image.astype(np.uint8)))
    assert minor == region.axis_minor_length - 1
    assert major == region.axis_major_length - 1
    assert angle == np.degrees(region.orientation)


def test_memory_mapped_flags_are_revised_in_place(tmp_path):
    groupdq = scene(1, (2, 4, 90, 120), 3, 0.002, 3)
    mapped = np.lib.format.open_memmap(tmp_path / "flags.npy", "w+", np.uint8, groupdq.shape)
    mapped[...] = groupdq
    out, events = flag_snowballs(mapped, SEARCHES["defaults"], out=mapped)
    assert out is mapped
    expected, expected_events = flag_snowballs(groupdq, SEARCHES["defaults"])
    np.testing.assert_array_equal(mapped, expected)
    assert events == expected_events > 0


def test_a_snowball_is_grown_and_its_core_persists():
    groupdq = np.zeros((2, 5, 120, 120), np.uint8)
    distance = np.hypot(*(np.mgrid[:120, :120] - 60))
    groupdq[0, 2][distance <= 6] = JUMP_DET
    groupdq[0, 2:, distance <= 3] = SATURATED
    flags, events = flag_snowballs(groupdq, Snowballs(persistent_groups=3))
    assert events == 1
    assert flags[0, 2, 60, 60 + 10] == JUMP_DET
    assert flags[0, 3, 60, 60 + 10] == 0
    assert flags[0, 4, 60, 60 + 4] == SATURATED
    assert [flags[1, group, 60, 60] for group in range(5)] == [0, JUMP_DET, JUMP_DET, 0, 0]


def test_nothing_to_flag():
    groupdq = np.zeros((2, 4, 70, 60), np.uint8)
    groupdq[:, 1:, 30, 30] = JUMP_DET
    flags, events = flag_snowballs(groupdq, Snowballs(persistent_groups=3))
    np.testing.assert_array_equal(flags, groupdq)
    assert events == 0


@pytest.mark.parametrize("width", [5, 127, 128, 260, 515])
@pytest.mark.parametrize("density", [0.001, 0.1, 0.9])
@pytest.mark.parametrize("fresh", [False, True])
def test_regions_are_those_of_a_plain_search(width, density, fresh):
    rng = np.random.default_rng(width)
    plane, previous = (rng.random((2, 40, width)) < density) * np.uint8(SATURATED)
    plane[7], plane[20, width // 2 :] = SATURATED, SATURATED
    previous[20], previous[30] = 0, SATURATED
    plane |= (rng.random(plane.shape) < 0.3) * np.uint8(JUMP_DET)
    wanted = (plane & SATURATED) != 0
    if fresh:
        wanted &= previous != SATURATED
    regions = Regions(plane, previous if fresh else None, np.uint8(SATURATED), 1)
    labels, number = skimage.measure.label(wanted, connectivity=2, return_num=True)
    centres = [np.argwhere(labels == label).mean(axis=0) for label in range(1, number + 1)]
    # Sums of whole numbers below 2^53, each divided once.
    assert sorted(zip(regions.y, regions.x)) == sorted(map(tuple, centres))
