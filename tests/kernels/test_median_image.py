"""Medians of integrations and their scales."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jwstdask.kernels import median_image
from jwstdask.kernels.errors import CleaningError

pytestmark = pytest.mark.filterwarnings("ignore")

FLOATS = st.floats(-1e4, 1e4, width=32)


@settings(max_examples=40, deadline=None)
@given(values=arrays.arrays(np.float32, (5, 2, 3, 4), elements=FLOATS | st.just(np.float32(np.nan))))
def test_medians_of_integrations(values):
    np.testing.assert_array_equal(median_image.median_of_integrations(values), np.nanmedian(values, axis=0))


def test_fluxes_are_scaled_by_their_median():
    np.testing.assert_allclose(median_image.flux_scale(np.array([1.0, 2.0, 4.0])), [0.5, 1, 2])
    np.testing.assert_allclose(median_image.flux_scale(np.array([1.0, np.nan, 3.0, 2.0])), [0.5, 1, 1.5, 1])
    with pytest.raises(CleaningError, match="no integration has a flux"):
        median_image.flux_scale(np.array([np.nan, np.nan]))
