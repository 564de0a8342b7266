"""Sampling of a dark at the groups of an exposure."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.kernels import dark_current


@settings(max_examples=200, deadline=None)
@given(*[st.integers(1, 12), st.integers(1, 8), st.integers(0, 12)] * 2)
def test_enough_groups_are_added_and_at_most_one_more(
    ngroups, nframes, groupgap, dark_ngroups, dark_nframes, dark_groupgap
):
    added = dark_current.missing_groups(ngroups, nframes, groupgap, dark_ngroups, dark_nframes, dark_groupgap)
    frames = ngroups * nframes + (ngroups - 1) * groupgap

    def length(groups):
        return groups * dark_nframes + (groups - 1) * dark_groupgap

    assert length(dark_ngroups + added) >= frames
    # jwst counts the gap before the first added group twice, which may ask for one group that is not used.
    spare = 1 if dark_groupgap else 0
    assert added == 0 or length(dark_ngroups + added - 1 - spare) < frames


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 2),
    st.integers(1, 6),
    st.integers(1, 8),
    st.integers(0, 3),
    st.integers(2, 40),
    st.sampled_from(["<f4", ">f4"]),
)
def test_each_group_loses_the_mean_of_its_frames(seed, integrations, ngroups, nframes, groupgap, planes, kind):
    rng = np.random.default_rng(seed)
    sci = rng.normal(100, 9, (integrations, ngroups, 3, 9)).astype(np.float32)
    dark = rng.normal(2, 3, (planes, 5, 20)).astype(kind)
    dark[rng.random(dark.shape) < 0.05] = np.nan
    rows, columns = slice(1, 4), slice(7, 16)
    added = dark_current.missing_groups(ngroups, nframes, groupgap, planes, 1, 0)
    whole = dark.astype(np.float32)
    if added:
        # A longer dark is continued in float64.
        rate = (whole[-1] - whole[-2]).astype(np.float64)
        whole = np.concatenate([whole.astype(np.float64), [whole[-1] + k * rate for k in range(1, added + 1)]])
    whole[np.isnan(whole)] = 0
    expected = sci.copy()
    for group in range(ngroups):
        start = group * (nframes + groupgap)
        expected[:, group] -= whole[start : start + nframes, rows, columns].mean(axis=0).astype(np.float32)

    groups = dark_current.frames_of_groups(ngroups, nframes, groupgap, planes + added)
    before = sci.copy(), dark.copy()
    np.testing.assert_array_equal(dark_current.subtract(sci, dark, groups, True, rows, columns), expected)
    np.testing.assert_array_equal(sci, before[0])
    np.testing.assert_array_equal(dark, before[1])
    np.testing.assert_array_equal(dark_current.subtract(sci, dark, groups, True, rows, columns, out=sci), expected)


@pytest.mark.parametrize("averaged", [True, False])
def test_extrapolated_dark_is_subtracted_in_double_precision_unless_averaged(averaged):
    dark = np.array([0, 1 / 3], np.float32)[:, None, None]
    groups = dark_current.frames_of_groups(4, 1, 0, 4)
    last = np.float64(np.float32(1 / 3)) * 3
    sci = np.full((1, 4, 1, 1), 1000, np.float32)
    result = dark_current.subtract(sci, dark, groups, averaged)
    assert result[0, 3, 0, 0] == np.float32(1000 - (np.float32(last) if averaged else last))


def test_ramp_of_another_length_is_refused():
    groups = dark_current.frames_of_groups(3, 1, 0, 5)
    with pytest.raises(ValueError, match="3 groups, the ramp has 2"):
        dark_current.subtract(np.ones((1, 2, 1, 1), np.float32), np.zeros((5, 1, 1), np.float32), groups, False)


def test_group_without_frames_becomes_unknown():
    dark = np.zeros((3, 1, 1), np.float32)
    groups = dark_current.frames_of_groups(2, 2, 2, 3)
    assert [list(group) for group in groups] == [[0, 1], []]
    result = dark_current.subtract(np.ones((1, 2, 1, 1), np.float32), dark, groups, True)
    np.testing.assert_array_equal(result.ravel(), [1, np.nan])
