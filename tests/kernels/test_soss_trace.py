"""Traces of NIRISS SOSS against the oracle's."""

from __future__ import annotations

import numpy as np
import pytest

from jwstdask.kernels.errors import CleaningError
from jwstdask.kernels.soss_trace import soss_traces

pytestmark = pytest.mark.filterwarnings("ignore")


def soss_model():
    """A reference of three orders: curved traces, and polynomials of wavelength in column and angle."""
    rng = np.random.default_rng(7)
    x = np.arange(0.0, 2048.0, 4)
    traces, calibrations = [], []
    for order, degree in ((1, 5), (2, 3), (3, 3)):
        y = 60 * order + 40 * ((x - 1000) / 1000) ** 2 + (1500 / order - x) * 0.01
        pivot = {"pivot_x": 189.0 - 20 * order, "pivot_y": 5.0 + 15 * order}
        traces.append({"spectral_order": order, "cutoff": 2048, "trace": np.stack([x, y], axis=1), **pivot})
        coefficients = rng.normal(0, 0.003, (degree + 1) * (degree + 2) // 2)
        coefficients[:2] = 2.8 / order, -2.0 / order
        extents = [[0, -0.1], [2048, 0.16]]
        calibrations.append(
            {"coefficients": coefficients.tolist(), "polynomial_degree": degree, "scale_extents": extents}
        )
    meta = {"pwcpos_bounds": [245.54, 246.04], "pwcpos_cmd": 245.76, "soss_xdim": 2048, "soss_ydim": 300}
    meta |= {"subarray_ymin": 1792, "wavemap_nwl": 5001, "wavemap_wlmin": 0.5, "wavemap_wlmax": 5.5}
    return {"meta": meta, "traces": traces, "wavecal_models": calibrations}


@pytest.mark.parametrize(("subarray", "rows"), [("SUBSTRIP256", 256), ("SUBSTRIP96", 96)])
@pytest.mark.parametrize("angle", [245.6, 245.76, 246.0])
def test_traces_of_soss_as_the_oracle(monkeypatch, subarray, rows, angle):
    from jwst.clean_flicker_noise.clean_flicker_noise import mask_soss_traces
    from jwst.extract_1d.soss_extract import pastasoss
    from stdatamodels.jwst.datamodels import ImageModel, PastasossModel

    # The map of wavelengths, slow, is not used.
    monkeypatch.setattr(pastasoss, "_calc_2d_wave_map", lambda *_, **__: np.zeros((2048, 2048)))
    tree = soss_model()
    reference = PastasossModel()
    for name, value in tree["meta"].items():
        setattr(reference.meta, name, value)
    reference.traces, reference.wavecal_models = tree["traces"], tree["wavecal_models"]
    science = ImageModel(data=np.zeros((rows, 2048), np.float32))
    science.meta.instrument.pupil_position, science.meta.subarray.name = angle, subarray
    expected = mask_soss_traces(science, np.ones((rows, 2048), bool), soss_refmodel=reference)
    covered = soss_traces((rows, 2048), tree, angle, subarray)
    np.testing.assert_array_equal(covered, ~expected)
    assert 0.05 < covered.mean() < 0.9


def test_an_angle_that_the_traces_do_not_know():
    with pytest.raises(CleaningError, match=r"outside of 245\.54 to 246\.04"):
        soss_traces((256, 2048), soss_model(), 250.0, "SUBSTRIP256")
