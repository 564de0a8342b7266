"""Sums of spectra in boxes: against obvious loops and beside jwst's."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

from jwstdask.kernels import extract_1d as kernels
from jwstdask.steps.detector.spectral_light import Extraction, aperture_of

SHAPE = (24, 60)
ROWS = [
    {},
    {"ystart": 4.25, "ystop": 11.5, "xstart": 3.5, "xstop": 50.2},
    {"ystart": 4.25, "ystop": 4.5},
    {"extract_width": 5.5},
    {"extract_width": 8, "ystart": 3, "ystop": 10},
    {"extract_width": 0.4},
    {"src_coeff": [[3.2, 0.05], [9.7, 0.04], [12.5], [13.2]]},
    {"src_coeff": [[3.2, 1.1, -0.02], [9.7, 0.9]], "independent_var": "wavelength"},
]


def wavelengths():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    found = (0.6 + 0.08 * x + 0.001 * y).astype(np.float32)
    found[:2] = np.nan
    return found


def in_box(weights, low, high):
    """Rows from ``low`` to ``high`` inclusive in a loop; of the rows next to them what is less than one away."""
    for row in range(SHAPE[0]):
        if low <= row <= high:
            weights[row] = 1
        else:
            weights[row] = max(weights[row], 1 - (low - row) if row < low else 1 - (row - high), 0)


@pytest.mark.parametrize("seed", range(5))
def test_weights_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.uniform(0, 24, 2))
    column = np.zeros(SHAPE[0])
    in_box(column, low, high)
    own = kernels.Box((low, high), (10.5, 20)).weights(wavelengths())
    assert own.dtype == np.float64 and own.min() >= 0 and own.max() <= 1
    np.testing.assert_allclose(own[:, 11:21], np.broadcast_to(column[:, np.newaxis], (24, 10)), atol=1e-14)
    assert not own[:, :11].any() and not own[:, 21:].any()


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("background", [{}, {"bkg_coeff": [[1.3], [5.5, 0.02]], "bkg_fit": "median"}])
@pytest.mark.parametrize("offset", [0.0, 1.3])
def test_boxes_as_the_oracle(row, background, offset):
    from jwst.extract_1d import extract
    from stdatamodels.jwst.datamodels import SlitModel

    reference = {"apertures": [{"id": "dummy"}, {"id": "S1", **row, **background}]}
    model = SlitModel(data=np.zeros(SHAPE, np.float32))
    model.meta.exposure.type = "NRC_TSGRISM"
    theirs = extract.get_extract_parameters(copy.deepcopy(reference), model, "S1", 1, model.meta)
    theirs["dispaxis"] = 1
    own = aperture_of(reference, "S1", 1, SHAPE, Extraction(), False)
    box, trace = own.box.moved(offset), 7 + np.linspace(0, 3, SHAPE[1])
    extract.shift_by_offset(offset, theirs)
    compare = [(box.weights(wavelengths()), extract.box_profile(SHAPE, theirs, wavelengths()))]
    if "extract_width" in row:
        theirs["trace"] = trace
        traced = kernels.Box(box.rows, box.columns, width=box.width, trace=trace)
        compare.append((traced.weights(wavelengths()), extract.box_profile(SHAPE, theirs, wavelengths())))
    if background:
        found = extract.box_profile(SHAPE, theirs, wavelengths(), coefficients="bkg_coeff")
        compare.append((box.background_weights(wavelengths(), own.bkg_fit != "median"), found))
    assert (own.bkg_fit, box.background_limits is None) == (theirs["bkg_fit"], not background)
    for ours, jwst in compare:
        # The last bits of sums of limits and offsets.
        np.testing.assert_allclose(ours, jwst, atol=1e-13)
        center, _ = extract.aperture_center(jwst, 1, middle_pix=30)
        assert kernels.center_of(ours, 30) == pytest.approx(center, rel=1e-13)


def noisy(seed):
    rng = np.random.default_rng(seed)
    y = np.linspace(-1, 1, SHAPE[0])[:, np.newaxis]
    image = (5 + 2 * y - y**2 + rng.normal(0, 0.2, SHAPE)).astype(np.float32)
    image[rng.random(SHAPE) < 0.05] = np.nan
    return image


@pytest.mark.parametrize("order", [0, 1, 3])
def test_backgrounds_against_fits_of_columns(order):
    image, where = noisy(order), np.zeros(SHAPE)
    where[[0, 1, 2, 3, 4, 17, 18, 19, 20, 22]] = 0.5
    where[:, 7] = 0
    own = kernels.fit_background(image, where, "poly", order)
    y = np.linspace(-1, 1, SHAPE[0])
    for column in range(SHAPE[1]):
        used = (where[:, column] > 0) & np.isfinite(image[:, column])
        expected = np.zeros(SHAPE[0])
        if used.sum() > order:
            expected = np.polyval(np.polyfit(y[used], image[used, column].astype(float), order), y)
        np.testing.assert_allclose(own[:, column], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("method", "order", "length"), [("poly", 0, 0), ("poly", 2, 5), ("median", 0, 0), ("median", 0, 7), (None, 0, 0)]
)
def test_spectra_as_the_oracle(method, order, length):
    from jwst.extract_1d.extract1d import extract1d

    image, where = noisy(3), np.zeros(SHAPE)
    where[2:7] = 1
    weights = kernels.Box((9.3, 14.2), (0, 59)).weights(wavelengths())
    image[:, 33] = np.nan
    none = np.zeros_like(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = extract1d(
            image, [weights], none, none, none, profile_bg=where if method else None, bg_smooth_length=length,
            fit_bkg=method is not None, bkg_fit_type=method, bkg_order=order,
        )  # fmt: skip
    level = None if method is None else kernels.fit_background(image, where, method, order, length)
    flux, pixels = kernels.box_spectrum(image, weights, level)
    np.testing.assert_allclose(pixels, expected[8][0], rtol=1e-14)
    # The normal equations of five rows, and what they mean eight rows away, are of a condition of some 1e5.
    accuracy = 1e-10 if order else 1e-12
    np.testing.assert_allclose(flux, expected[0][0], rtol=1e-12, atol=accuracy)
    assert np.isnan(flux).sum() == 1


def test_backgrounds_that_cannot_be_fitted():
    with pytest.raises(ValueError, match="'mean' of order 0"):
        kernels.fit_background(noisy(1), np.ones(SHAPE), "mean")
    with pytest.raises(ValueError, match="order -1"):
        kernels.fit_background(noisy(1), np.ones(SHAPE), "poly", -1)


def test_wavelengths_of_columns():
    weights = kernels.Box((3, 8.5), (5, 50)).weights(wavelengths())
    own = kernels.mean_wavelengths(wavelengths(), weights)
    assert np.isnan(own[:5]).all() and np.isnan(own[51:]).all()
    column = wavelengths()[3:10, 20].astype(float)
    assert own[20] == pytest.approx(np.average(column, weights=[1, 1, 1, 1, 1, 1, 0.5]), rel=1e-13)


@pytest.mark.parametrize("phase", [0.0, 0.5, 0.83])
@pytest.mark.parametrize("descending", [False, True])
def test_aperture_corrections_as_the_oracle(phase, descending):
    from types import SimpleNamespace

    from jwst.extract_1d.apply_apcorr import ApCorrPhase

    rng = np.random.default_rng(6)
    grid = np.sort(rng.uniform(0.6, 5.3, 9)).astype(np.float32)[:: -1 if descending else 1]
    sizes = (np.arange(1, 7)[:, np.newaxis] * (1 + 0.1 * grid)).astype(np.float32)
    phases = np.array([0.0, 0.4, 1.0], np.float32)
    factors = rng.uniform(1, 1.5, (6, 9, 3)).astype(np.float32)
    theirs = SimpleNamespace(
        reference={"wavelength": grid, "size": sizes, "pixphase": phases, "apcorr": factors},
        apcorr_func=None, phase=phase, tabulated_correction=None,
    )  # fmt: skip
    theirs.apcorr_func = ApCorrPhase.approximate(theirs)
    wavelengths, pixels = np.linspace(0.3, 5.6, 40), rng.uniform(0.5, 11, 40)
    rows = [{"wavelength": at, "npixels": size} for at, size in zip(wavelengths, pixels, strict=True)]
    ApCorrPhase.tabulate_correction(theirs, rows)
    own = kernels.aperture_correction(wavelengths, pixels, grid, sizes, phases, factors, phase)
    # Splines of the first degree are lines, evaluated in another order.
    np.testing.assert_allclose(own, theirs.tabulated_correction, rtol=1e-7)
    assert (own == 1).sum() > 2 and own.max() > 1.1
