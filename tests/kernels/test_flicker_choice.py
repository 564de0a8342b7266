"""Choice of the parameters of clean_flicker_noise against the oracle's."""

from __future__ import annotations

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jwstdask.kernels import flicker_choice
from tests.kernels.flicker import image

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(("instrument", "axis", "name"), [("NIRCAM", 1, "nircam"), ("NIRISS", 0, "niriss")])
@pytest.mark.parametrize("seed", range(4))
def test_choices_of_the_oracle(monkeypatch, instrument, axis, name, seed):
    """Measures identical to the bit, and what follows from them."""
    from jwst.clean_flicker_noise import autoparam
    from stdatamodels.jwst.datamodels import ImageModel

    rng = np.random.default_rng(seed)
    values, _ = image(seed, (160, 192), axis=axis, level=0.0)
    y, x = np.mgrid[:160, :192]
    values = (values * 10.0 ** -rng.integers(0, 4) + x * rng.choice([0, 1e-5, 1e-3]) + y * 1e-4).astype(np.float32)
    seen = {}
    original = autoparam._image_decision_tree

    def tree(parameters, limits, *measures):
        seen["measures"] = measures
        original(parameters, limits, *measures)

    monkeypatch.setattr(autoparam, "_image_decision_tree", tree)
    model = ImageModel(data=values.copy())
    model.meta.subarray.slowaxis = axis + 1
    expected = getattr(autoparam, f"{name}_image_parameters")(model, None)
    levels = flicker_choice.measure(values, axis, instrument)
    assert (levels.masked, levels.offset, levels.high_slope, levels.ratio, levels.scatter) == seen["measures"]
    choice = flicker_choice.choose(levels, flicker_choice.LIMITS[instrument])
    assert choice == (expected["background_method"], expected["fit_by_channel"])


@pytest.mark.parametrize("instrument", ["NIRCAM", "NIRISS"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_decisions_of_the_oracle(instrument, data):
    """Measures below, at and above each limit in all combinations."""
    from jwst.clean_flicker_noise import autoparam

    limits = flicker_choice.LIMITS[instrument]

    def around(limit):
        return st.sampled_from([0.0, limit / 2, limit, limit * 2])

    masked, offset, ratio, scatter = (
        data.draw(around(value)) for value in (limits.masked, limits.offset, limits.ratio, limits.scatter)
    )
    slope = data.draw(around(limits.low_slope) | around(limits.high_slope))
    expected = {"background_method": "median", "fit_by_channel": False}
    theirs = {
        "mask_frac": limits.masked,
        "max_offset_high_mask": limits.offset,
        "max_slope_low_offset": limits.low_slope,
        "max_slope_high_offset": limits.high_slope,
        "slope_ratio": limits.ratio,
        "channel_sigma": limits.scatter,
    }
    autoparam._image_decision_tree(expected, theirs, masked, offset, slope, ratio, scatter)
    found = flicker_choice.choose(flicker_choice.Levels(masked, offset, slope, slope, ratio, scatter), limits)
    assert types.SimpleNamespace(**expected) == types.SimpleNamespace(**found._asdict())


def test_steps_between_amplifiers():
    """A full line of 2048 pixels, the third amplifier 0.5 above the others."""
    values = np.random.default_rng(0).normal(0, 0.01, 2048)
    values[1024:1536] += 0.5
    # Means of 512 pixels of scatter 0.01: 4e-4 each.
    assert abs(flicker_choice._channel_step(values) - 0.5) < 5e-3
    assert flicker_choice._channel_step(values[:1024]) == 0
