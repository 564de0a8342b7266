"""Median images of time series beside jwst's."""

from __future__ import annotations

import warnings

import asdf
import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst import datamodels

from jwstdask.core import dq
from jwstdask.kernels import median_image as kernels
from jwstdask.kernels.errors import CleaningError
from jwstdask.refs.reference import open_reference
from jwstdask.steps.detector import median_image as median_images
from tests.kernels.test_soss_trace import soss_model

ORACLE = "jwst.clean_flicker_noise.tso_median_image"


def oracle_cube(meta, rates, flags):
    model = datamodels.CubeModel(data=rates.copy())
    model.dq, model.err = flags.copy(), np.ones_like(rates)
    for name, value in meta.items():
        model[name] = value
    return model


def oracle_exposure(meta, sci, rates, flags):
    if sci.ndim == 3:
        return oracle_cube(meta, rates, flags)
    model = datamodels.RampModel(data=sci.copy())
    for name, value in meta.items():
        model[name] = value
    return model


def compare(own, expected):
    """Bits, but for the sum of the light, whose order differs: relative 1e-12 of the level."""
    finite = np.isfinite(expected)
    for integration, level in enumerate(expected):
        median, scale = own.of(integration)
        np.testing.assert_array_equal(np.isfinite(median), finite[integration])
        # float32 backgrounds and medians: what the scale adds in its last bits is far below.
        np.testing.assert_allclose(median * scale, level, rtol=1e-7)


# -- SOSS


def templates(rows, seed=2):
    """Backgrounds with a step, the second one flatter."""
    rng = np.random.default_rng(seed)
    columns = np.arange(2048)
    step = np.where(columns > 700, 1.6, 1.0) + 0.0002 * columns
    found = np.stack(
        [step + 0.01 * np.arange(rows)[:, np.newaxis], np.sqrt(step) + 0.0 * np.arange(rows)[:, np.newaxis]]
    )
    return (found + rng.normal(0, 0.01, found.shape)).astype(np.float32)


def soss(rows, background, seed=4, dimensions=4):
    """A spectrum that dips, and a background, in three integrations."""
    rng = np.random.default_rng(seed)
    x, y = soss_model()["traces"][0]["trace"].T
    center = np.interp(np.arange(2048), x, y)
    spectrum = 40 * np.exp(-0.5 * ((np.arange(rows)[:, np.newaxis] - center) / 5) ** 2)
    light = np.array([1.0, 0.97, 1.02])[:, np.newaxis, np.newaxis]
    rates = light * spectrum + 3 * background + rng.normal(0, 0.3, (3, rows, 2048))
    flags = np.where(rng.random(rates.shape) < 0.01, dq.DO_NOT_USE, 0).astype(np.uint32)
    rates[rng.random(rates.shape) < 0.002] = np.nan
    rates = rates.astype(np.float32)
    times = 5.494 * np.arange(1, 4)
    sci = (rates[:, np.newaxis] * times[:, np.newaxis, np.newaxis] + rng.normal(0, 5, (3, 3, rows, 2048))).astype(
        np.float32
    )
    return (sci if dimensions == 4 else rates), rates, flags


def soss_metadata(subarray):
    return {
        "meta.exposure.type": "NIS_SOSS",
        "meta.exposure.nframes": 1,
        "meta.exposure.groupgap": 0,
        "meta.exposure.frame_time": 5.494,
        "meta.instrument.name": "NIRISS",
        "meta.instrument.filter": "CLEAR",
        "meta.instrument.pupil_position": 245.8,
        "meta.subarray.name": subarray,
    }


@pytest.fixture
def references(tmp_path, monkeypatch):
    """Writes references, which jwst's steps get as well."""

    def write(template, limits):
        files = {}
        if template is not None:
            files["bkg"] = tmp_path / "bkg.fits"
            hdus = [fits.PrimaryHDU(), fits.ImageHDU(template, name="SCI")]
            hdus[0].header.update(DATAMODL="SossBkgModel", TELESCOP="JWST")
            fits.HDUList(hdus).writeto(files["bkg"])
        if limits is not None:
            files["wavelengthrange"] = tmp_path / "wavelengthrange.asdf"
            meta = {"instrument": {"name": "NIRISS"}, "telescope": "JWST", "reftype": "wavelengthrange"}
            rows = [[1, "CLEAR", *limits], [2, "CLEAR", 0.6, 1.4], [1, "F277W", 2.4, 2.8]]
            asdf.AsdfFile({"meta": meta, "wavelengthrange": rows}).write_to(files["wavelengthrange"])

        def made(cls):
            def make():
                step = cls()
                step.get_reference_file = lambda model, kind: str(files.get(kind, "N/A"))
                return step

            return make

        from jwst.background import BackgroundStep
        from jwst.white_light import WhiteLightStep

        monkeypatch.setattr(f"{ORACLE}.BackgroundStep", made(BackgroundStep))
        monkeypatch.setattr(f"{ORACLE}.WhiteLightStep", made(WhiteLightStep))
        return {kind: open_reference(path, kind) for kind, path in files.items()}

    return write


def oracle_traces():
    tree = soss_model()
    reference = datamodels.PastasossModel()
    for name, value in tree["meta"].items():
        setattr(reference.meta, name, value)
    reference.traces, reference.wavecal_models = tree["traces"], tree["wavecal_models"]
    return reference


@pytest.mark.parametrize(
    ("subarray", "rows", "dimensions", "template", "limits"),
    [
        ("SUBSTRIP96", 96, 4, True, (1.0, 2.4)),
        ("SUBSTRIP256", 256, 3, True, None),
        ("SUBSTRIP96", 96, 4, False, (0.9, 2.8)),
    ],
)
def test_soss_as_the_oracle(references, subarray, rows, dimensions, template, limits):
    from jwst.clean_flicker_noise.tso_median_image import make_median_image

    every = templates(256)
    light = every[0, 10:106] if rows == 96 else every[0]
    sci, rates, flags = soss(rows, light, dimensions=dimensions)
    meta = soss_metadata(subarray)
    files = references(every if template else None, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = make_median_image(
            oracle_exposure(meta, sci, rates, flags), oracle_cube(meta, rates, flags), oracle_traces()
        )
    own = median_images.median_image(meta, files, soss_model(), sci, rates, flags)
    compare(own, expected)
    assert (own.background is not None) == template
    if template:
        # Ratios between the first quartile and the median are trusted: the level comes out low.
        assert 2.8 < np.median(own.background / light) < 3.05


@pytest.mark.parametrize("position", [245.6, 245.9])
def test_wavelengths_of_columns_are_those_of_the_map(position):
    from jwst.extract_1d.soss_extract import pastasoss

    tree, reference = soss_model(), oracle_traces()
    for subarray in ("SUBSTRIP96", "SUBSTRIP256"):
        grid = pastasoss.get_soss_wavemaps(position, subarray, reference, orders_requested=[1])[0]
        own = kernels.column_wavelengths(tree, 0, position, subarray)
        np.testing.assert_allclose(np.broadcast_to(own, grid.shape), grid, rtol=1e-12)
        assert np.isfinite(own).mean() > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_box_against_counting_of_small_pieces(seed):
    centers = np.random.default_rng(seed).uniform(-5, 45, 12)
    own = kernels.box(centers, 40, 15)
    assert own.shape == (40, 12)
    fine = (np.arange(40 * 200) + 0.5) / 200 - 0.5
    for column, center in enumerate(centers):
        inside = (np.abs(fine - center) < 7.5).reshape(40, 200).mean(axis=1)
        # Pieces are 1/200 pixel: two ends.
        np.testing.assert_allclose(own[:, column], inside, atol=0.0051)


def test_soss_without_what_it_takes():
    sci, rates, flags = soss(96, templates(256)[0, 10:106], dimensions=3)
    meta = soss_metadata("SUBSTRIP96")
    with pytest.raises(CleaningError, match="no pastasoss reference"):
        median_images.median_image(meta, {}, None, sci, rates, flags)
    with pytest.raises(CleaningError, match="1000 columns"):
        narrow = rates[..., :1000]
        median_images.median_image(meta, {}, soss_model(), narrow, narrow, flags[..., :1000])
    with pytest.raises(CleaningError, match="more than one integration"):
        median_images.median_image(meta, {}, soss_model(), sci[:1], rates[:1], flags[:1])
    assert kernels.soss_background(rates, flags, templates(256)[:, :200]) is None


# -- images


def star(seed, unusable=0.01, gap=False):
    """A star that moves and whose light varies, in five integrations."""
    rng = np.random.default_rng(seed)
    shape = (5, 60, 72)
    y, x = np.mgrid[:60, :72]
    rates = rng.normal(2, 0.5, shape)
    for integration in range(5):
        where = 41.3 + rng.normal(0, 0.3), 30.6 + rng.normal(0, 0.3)
        rates[integration] += (900 + 40 * integration) * np.exp(
            -0.5 * ((x - where[0]) ** 2 + (y - where[1]) ** 2) / 1.4**2
        )
    flags = np.where(rng.random(shape) < unusable, dq.DO_NOT_USE, 0).astype(np.uint32)
    rates[flags != 0] = np.nan
    if gap:
        rates[2] = np.nan
    rates = rates.astype(np.float32)
    times = 2.0 * np.arange(1, 4)[:, np.newaxis, np.newaxis]
    return (rates[:, np.newaxis] * times).astype(np.float32), rates, flags


def star_metadata(exposure_type="NRC_TSIMAGE", **more):
    values = {
        "meta.exposure.type": exposure_type,
        "meta.exposure.nints": 5,
        "meta.exposure.integration_time": 6.0,
        "meta.instrument.name": "NIRCAM" if exposure_type.startswith("NRC") else "MIRI",
        "meta.visit.tsovisit": True,
        "meta.subarray.name": "SUB64P",
        "meta.subarray.xstart": 1,
        "meta.subarray.ystart": 1,
        "meta.subarray.xsize": 72,
        "meta.subarray.ysize": 60,
        "meta.wcsinfo.siaf_xref_sci": 40.2,
        "meta.wcsinfo.siaf_yref_sci": 33.0,
        "meta.bunit_data": "DN/s",
        "meta.bunit_err": "DN/s",
    }
    return values | more


@pytest.fixture
def photometry(tmp_path, monkeypatch):
    """Writes gain and parameters, which jwst's photometry gets as well."""

    def write(parameters):
        from astropy.modeling.models import Identity
        from gwcs import WCS, coordinate_frames
        from jwst.tso_photometry import TSOPhotometryStep

        gain = np.random.default_rng(8).normal(1.9, 0.1, (60, 72)).astype(np.float32)
        paths = {"gain": tmp_path / "gain.fits", median_images.PHOTOMETRY: tmp_path / "pars.asdf"}
        model = datamodels.GainModel(data=gain)
        for name, value in {"xstart": 1, "ystart": 1, "xsize": 72, "ysize": 60}.items():
            model[f"meta.subarray.{name}"] = value
        model.save(paths["gain"])
        tree = {"class": "jwst.tso_photometry.TSOPhotometryStep", "name": "tso_photometry", "parameters": parameters}
        asdf.AsdfFile(tree).write_to(paths[median_images.PHOTOMETRY])
        frames = [coordinate_frames.Frame2D(name=name) for name in ("detector", "world")]

        def call(cube):
            cube.meta.wcs = WCS([(frames[0], Identity(2)), (frames[1], None)])
            cube.int_times = np.zeros(5, cube.get_dtype("int_times"))
            cube.int_times["integration_number"] = np.arange(1, 6)
            step = TSOPhotometryStep(**parameters)
            step.get_reference_file = lambda model, kind: str(paths[kind])
            return step.process(cube.copy())

        monkeypatch.setattr(f"{ORACLE}.TSOPhotometryStep.call", staticmethod(call))
        return {kind: open_reference(path, kind) for kind, path in paths.items()}

    return write


@pytest.mark.parametrize(
    ("exposure_type", "parameters", "more"),
    [
        ("NRC_TSIMAGE", {}, {}),
        ("MIR_IMAGE", {"radius": 4.5, "moving_centroid": True, "search_box_width": 30}, {}),
        ("NRC_TSIMAGE", {"centroid_source": False}, {}),
        ("NRC_TSIMAGE", {}, {"meta.instrument.pupil": "WLP8"}),
        ("NRC_TSIMAGE", {}, {"meta.wcsinfo.siaf_xref_sci": 300.0}),
    ],
    ids=["fixed", "moving", "planned", "defocused", "outside"],
)
@pytest.mark.parametrize("gap", [False, True])
def test_images_as_the_oracle(photometry, exposure_type, parameters, more, gap):
    """Where the planned place is outside of the frame nothing can be summed."""
    from jwst.clean_flicker_noise.tso_median_image import make_median_image

    sci, rates, flags = star(3, gap=gap)
    meta = star_metadata(exposure_type, **more)
    files = photometry(parameters)

    def theirs():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make_median_image(oracle_exposure(meta, sci, rates, flags), oracle_cube(meta, rates, flags))

    def ours():
        return median_images.median_image(meta, files, None, sci, rates, flags)

    if more.get("meta.wcsinfo.siaf_xref_sci"):
        with pytest.raises(ValueError, match="No valid flux"):
            theirs()
        with pytest.raises(CleaningError, match="no integration has a flux"):
            ours()
        return
    if gap and parameters.get("moving_centroid"):
        with pytest.raises(ValueError, match="non-finite"):
            theirs()
        with pytest.raises(CleaningError, match="not found in every integration"):
            ours()
        return
    own = ours()
    compare(own, theirs())
    assert own.scale[4] > own.scale[0] * 1.05


def test_images_without_a_place_are_left(photometry):
    files = photometry({})
    sci, rates, flags = star(3)
    with pytest.raises(CleaningError, match="XREF_SCI"):
        meta = star_metadata(**{"meta.wcsinfo.siaf_xref_sci": None})
        median_images.median_image(meta, files, None, sci, rates, flags)
    with pytest.raises(CleaningError, match="EFFINTTM"):
        meta = star_metadata(**{"meta.exposure.integration_time": None})
        median_images.median_image(meta, files, None, sci, rates, flags)


def test_references_that_are_needed(monkeypatch):
    monkeypatch.delenv("STPIPE_DISABLE_CRDS_STEPPARS", raising=False)
    assert median_images.references_for(star_metadata()) == ("gain", "pars-tsophotometrystep")
    assert median_images.references_for(star_metadata("MIR_IMAGE", **{"meta.visit.tsovisit": False})) == ()
    assert median_images.references_for({"meta.exposure.type": "NIS_SOSS"}) == ("bkg", "wavelengthrange")
    monkeypatch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", "true")
    assert median_images.references_for(star_metadata()) == ("gain",)
