from __future__ import annotations

import warnings

import asdf
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table

from jwstdask.core.errors import ParameterError, ReferenceFileError
from jwstdask.core.params import declared
from jwstdask.io.exposure import Exposure
from jwstdask.io.schema import model_schema
from jwstdask.refs.reference import open_reference
from jwstdask.steps.combine.source_catalog import (
    Catalog,
    SourceCatalogStep,
    aperture_parameters,
    local_background,
    magnitudes,
    nearest,
    sharpness_roundness,
    vega_offset,
)
from tests.steps.dithered import distorted_wcs

SHAPE = (230, 260)


def make_image(seed=0, sources=60, noise=0.02):
    """A combined image: stars and galaxies on a slope, blends, gaps, bad pixels and sources cut by the border."""
    from stdatamodels.jwst.datamodels import ImageModel

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = 0.3 + 1e-4 * x
    for _ in range(sources):
        cx, cy = rng.uniform(0, SHAPE[1]), rng.uniform(0, SHAPE[0])
        a, b, angle = rng.choice([1.1, 1.1, 3.0]), rng.choice([1.1, 1.1, 2.0]), rng.uniform(0, np.pi)
        u, v = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle), (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        image += 10 ** rng.uniform(0, 2.5) / (2 * np.pi * a * b) * np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2))
    err = np.sqrt(noise**2 + 1e-3 * image)
    image += rng.normal(0, 1, SHAPE) * err
    model = ImageModel(data=image.astype("f4"), err=err.astype("f4"), wht=np.ones(SHAPE, "f4"))
    gap = (y < 12) | (x > SHAPE[1] - 9) | (rng.random(SHAPE) < 0.002)
    for array in (model.data, model.err):
        array[gap] = np.nan
    model.wht[gap] = 0
    model.wht[100:110, 50:60] = 0
    model.meta.wcs = distorted_wcs((150.0, 30.0), 20.0, SHAPE, distortion=1e-7)
    model.meta.wcsinfo.crpix1, model.meta.wcsinfo.crpix2 = 121.0, 101.0
    model.meta.instrument.name, model.meta.instrument.detector = "NIRCAM", "NRCA1"
    model.meta.instrument.filter, model.meta.instrument.pupil = "F200W", "CLEAR"
    model.meta.exposure.type = "NRC_IMAGE"
    model.meta.bunit_data = model.meta.bunit_err = "MJy/sr"
    model.meta.photometry.pixelarea_steradians = 2.1e-14
    model.meta.resample.pixel_scale_ratio = 0.9
    model.meta.filename = "jw01234_nircam_i2d.fits"
    return model


@pytest.fixture(scope="module")
def references(module_folder):
    from stdatamodels.jwst.datamodels import NrcImgApcorrModel

    folder = module_folder("references")
    dtype = [("filter", "S12"), ("pupil", "S15"), ("eefraction", "f4"), ("radius", "f4")]
    dtype += [("apcorr", "f4"), ("skyin", "f4"), ("skyout", "f4")]
    rows = [
        (name, "CLEAR", ee, 6 * ee**1.5, 1 / ee, 9.0, 14.0) for name in ("F150W", "F200W") for ee in (0.3, 0.5, 0.7)
    ]
    rows += [("F115W", "CLEAR", ee, 3.0, 1.1, 5.0 + ee, 9.0) for ee in (0.3, 0.5, 0.7)]
    apcorr = NrcImgApcorrModel()
    apcorr.apcorr_table = np.array(rows, dtype)
    apcorr.save(folder / "apcorr.fits")
    table = Table({"filter": ["F200W", "F150W", "F150W"], "pupil": ["CLEAR"] * 3, "abvega_offset": [1.68, 1.2, 1.3]})
    asdf.AsdfFile({"meta": {"telescope": "JWST"}, "abvega_offset": table}).write_to(folder / "abvega.asdf")
    return {
        "apcorr": open_reference(folder / "apcorr.fits", "apcorr"),
        "abvegaoffset": open_reference(folder / "abvega.asdf", "abvegaoffset"),
    }


@pytest.fixture(scope="module")
def save(module_folder):
    def saved(model):
        return str(model.save(module_folder("i2d") / model.meta.filename))

    return saved


@pytest.fixture(scope="module")
def images(save):
    return {seed: save(make_image(seed)) for seed in (0, 1)}


def oracle(path, references, folder=None, **parameters):
    from jwst.source_catalog import SourceCatalogStep as Theirs

    class Local(Theirs):
        def get_reference_file(self, model, kind):
            return references[kind].path

    if "connectivity" in parameters:
        parameters["connectivity"] = str(parameters["connectivity"])  # a choice of texts there
    step = Local(**parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if folder is None:
            return step.process(path)
        step.output_dir, step.save_results = str(folder), True
        return step.run(path)


def ours(path, references, **parameters):
    return SourceCatalogStep(**parameters).run([Exposure(path)], references, None)


def assert_same_table(found, wanted):
    """Equal bits, types, units, formats, descriptions and metadata."""
    assert found.colnames == wanted.colnames
    assert len(found) == len(wanted)
    for name in wanted.colnames:
        one, other = found[name], wanted[name]
        for attribute in ("description", "format", "dtype", "unit"):
            assert getattr(one.info, attribute) == getattr(other.info, attribute), (name, attribute)
        if isinstance(other, SkyCoord):
            assert one.frame.name == other.frame.name
            np.testing.assert_array_equal(one.ra.deg, other.ra.deg, err_msg=name)
            np.testing.assert_array_equal(one.dec.deg, other.dec.deg, err_msg=name)
        else:
            np.testing.assert_array_equal(getattr(one, "value", one), getattr(other, "value", other), err_msg=name)
    assert list(found.meta) == list(wanted.meta)
    for key in set(wanted.meta) - {"date", "version"}:
        np.testing.assert_equal(found.meta[key], wanted.meta[key])
    assert {**wanted.meta["version"], "jwst": None, "jwstdask": None} == {
        **found.meta["version"],
        "jwst": None,
        "jwstdask": None,
    }


OPTIONS = [
    {},
    {"deblend": False, "npixels": 9, "connectivity": 4},
    {"kernel_fwhm": 3.5, "nlevels": 8, "contrast": 0.01, "multithresh_mode": "linear"},
    {"multithresh_mode": "sinh", "snr_threshold": 8.0, "ci1_star_threshold": 1.3, "ci2_star_threshold": 1.2},
    {"bkg_boxsize": 60, "localbkg_width": 5, "apermask_method": "mask", "kron_params": [2.0, 1.0]},
    {"apermask_method": "none", "kernel_fwhm": 1.2},
    {"starfinder": "dao", "sharplo": 0.2, "roundlo": -1.0, "roundhi": 1.0},
    {"starfinder": "dao", "sharplo": 0.2, "roundlo": -1.0, "roundhi": 1.0, "minsep_fwhm": 4.0, "brightest": 7},
    {"starfinder": "iraf", "snr_threshold": 10.0},
    {"starfinder": "iraf", "kernel_fwhm": 3.0, "sigma_radius": 2.0, "sharphi": 4.0, "roundhi": 0.9, "brightest": 5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_catalogue_is_the_oracles_bit_for_bit(images, references, seed, options):
    wanted = oracle(images[seed], references, **options)
    found = ours(images[seed], references, **options)
    assert isinstance(found, Catalog)
    assert len(wanted) > 3
    assert_same_table(found.table, wanted)
    assert (found.segmentation is None) == ("starfinder" in options)


def test_segmentation_map_and_file(images, references, tmp_path):
    from stdatamodels.jwst import datamodels

    oracle(images[0], references, tmp_path)
    found = ours(images[0], references)
    found.table.write(tmp_path / "ours.ecsv", format="ascii.ecsv")
    (written,) = tmp_path.glob("*_cat.ecsv")
    assert_same_table(QTable.read(tmp_path / "ours.ecsv"), QTable.read(written))
    (segm,) = tmp_path.glob("*_segm.fits")
    with datamodels.open(segm) as model:
        assert found.segmentation.dtype == model.data.dtype
        np.testing.assert_array_equal(found.segmentation, model.data)
        wanted = model.to_flat_dict(include_arrays=False)
    known = model_schema("SegmentationMapModel").keywords
    meta = {**Exposure(images[0]).meta, **found.meta}
    own = {name: value for name, value in meta.items() if name in known and value is not None}
    of_the_file = {"meta.filename", "meta.date", "meta.model_type", "meta.source_catalog"}
    of_the_file |= {name for name in (*own, *wanted) if name.startswith("meta.calibration_software")}
    assert {name: wanted.get(name) for name in own.keys() - of_the_file} == {
        name: own[name] for name in own.keys() - of_the_file
    }
    assert set(wanted) & known.keys() - of_the_file <= own.keys()


def only(*, place=None, noise=0.02, flux=50.0):
    """An image of one star, or of none."""
    model = make_image(3, sources=0, noise=noise)
    if place is not None:
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
        model.data += flux * np.exp(-0.5 * ((x - place[0]) ** 2 + (y - place[1]) ** 2) / 2.0**2).astype("f4")
    return model


@pytest.mark.parametrize("starfinder", ["segmentation", "dao", "iraf"])
@pytest.mark.parametrize("place", [(120.3, 90.7), (0.2, 100.4), (247.0, 229.6), (250.9, 12.3)], ids=str)
def test_one_star_anywhere(save, references, place, starfinder):
    path = save(only(place=place))
    how = {"starfinder": starfinder, "snr_threshold": 30.0, "roundlo": -2.0, "roundhi": 2.0, "sharplo": -9.0}
    how |= {"sharphi": 9.0}
    wanted, found = oracle(path, references, **how), ours(path, references, **how)
    if wanted is None:
        assert found == "there are no sources in the image"
    else:
        assert len(wanted) == 1
        assert_same_table(found.table, wanted)


def test_no_sources(save, references):
    blank = only()
    empty = only()
    for array in (empty.data, empty.err):
        array[:] = np.nan
    unseen = only(place=(100, 100))
    unseen.wht[:] = 0
    for model in (blank, empty, unseen):
        path = save(model)
        for starfinder in ("segmentation", "iraf"):
            how = {"starfinder": starfinder, "snr_threshold": 20.0}
            assert oracle(path, references, **how) is None
            assert ours(path, references, **how) == "there are no sources in the image"


def test_reasons_of_a_missing_catalogue(save, references):
    def reason(change=None, **parameters):
        model = only(place=(100, 100))
        if change is not None:
            change(model)
        path = save(model)
        try:
            assert oracle(path, references, **parameters) is None
        except (ValueError, AttributeError):  # it ends with an error
            pass
        found = ours(path, references, **parameters)
        assert isinstance(found, str)
        return found

    assert "F070W" in reason(lambda model: setattr(model.meta.instrument, "filter", "F070W"))
    assert "2 rows of a Vega offset" in reason(lambda model: setattr(model.meta.instrument, "filter", "F150W"))
    assert "not unique" in reason(lambda model: setattr(model.meta.instrument, "filter", "F115W"))
    assert "It has 30, 50, 70" in reason(aperture_ee2=60)
    assert "PIXAR_SR" in reason(lambda model: setattr(model.meta.photometry, "pixelarea_steradians", None))
    assert "DN/s" in reason(lambda model: setattr(model.meta, "bunit_data", "DN/s"))
    path = save(only())
    assert "abvegaoffset" in ours(path, {**references, "abvegaoffset": None})


def test_native_scale_without_a_ratio(references):
    meta = {"meta.instrument.name": "NIRCAM", "meta.instrument.filter": "F200W", "meta.instrument.pupil": "CLEAR"}
    native = aperture_parameters(references["apcorr"], meta, (30, 50, 70))
    half = aperture_parameters(references["apcorr"], {**meta, "meta.resample.pixel_scale_ratio": 0.5}, (30, 50, 70))
    np.testing.assert_array_equal(half.radii, 2 * native.radii)
    assert (half.inner, half.outer) == (18.0, 28.0)


class Rows:
    """A reference of one table."""

    path = "reference"

    def __init__(self, table):
        self.asdf = {"abvega_offset": table}
        self.rows = table.as_array()

    def table(self, name):
        assert name == "apcorr"
        return self.rows


def test_rows_of_other_instruments():
    meta = {"meta.instrument.filter": "F770W", "meta.subarray.name": "FULL", "meta.instrument.detector": "GUIDER2"}
    apertures = Table({"eefraction": [0.3, 0.5, 0.7] * 2, "radius": np.arange(6.0), "apcorr": np.ones(6)})
    apertures["skyin"], apertures["skyout"] = 5.0, 9.0
    apertures["filter"], apertures["subarray"] = "F770W", ["FULL"] * 3 + ["BRIGHTSKY"] * 3
    miri = {**meta, "meta.instrument.name": "MIRI"}
    assert aperture_parameters(Rows(apertures), miri, (30, 50, 70)).radii.tolist() == [0, 1, 2]
    fgs = {**meta, "meta.instrument.name": "FGS"}
    assert aperture_parameters(Rows(apertures[3:]), fgs, (30, 50, 70)).radii.tolist() == [3, 4, 5]
    assert vega_offset(Rows(Table({"filter": ["F770W"], "abvega_offset": [4.4]})), miri) == 4.4
    assert vega_offset(Rows(Table({"detector": ["GUIDER1", "GUIDER2"], "abvega_offset": [1.0, 2.0]})), fgs) == 2.0
    with pytest.raises(ReferenceFileError, match="0 rows"):
        vega_offset(Rows(Table({"filter": ["F770W"], "abvega_offset": [4.4]})), fgs)
    with pytest.raises(ReferenceFileError, match="no apertures of NIRSPEC"):
        vega_offset(Rows(apertures), {"meta.instrument.name": "NIRSPEC"})


@pytest.mark.parametrize("energies", [(30, 30, 70), (0, 30, 50), (30, 50, 100), (50, 30, 70)], ids=str)
def test_encircled_energies_increase(energies):
    names = ("aperture_ee1", "aperture_ee2", "aperture_ee3")
    with pytest.raises(ParameterError, match="increasing"):
        SourceCatalogStep(**dict(zip(names, energies))).check({})


def test_parameters_and_defaults_are_the_oracles():
    from jwst.source_catalog import SourceCatalogStep as Theirs

    theirs, found = Theirs().get_pars(), declared(SourceCatalogStep)
    assert theirs.keys() == found.keys()
    own = set(vars(SourceCatalogStep)["__annotations__"]) - {"connectivity"}  # a choice of texts there
    assert {name: theirs[name] for name in own} == {name: found[name][2] for name in own}
    assert int(theirs["connectivity"]) == found["connectivity"][2]


# -- measurements


@pytest.mark.parametrize("seed", range(5))
def test_background_is_that_of_a_clipped_annulus(seed):
    from astropy.stats import sigma_clip

    rng = np.random.default_rng(seed)
    sci = rng.normal(1, 0.1, (50, 60)).astype(np.float32)
    sci[rng.random(sci.shape) < 0.05] += 3
    sci[rng.random(sci.shape) < 0.05] = np.nan
    positions = np.array([*rng.uniform(0, 60, (6, 2)), (-1000, -1000), (30, -4.3)])
    medians, errors = local_background(sci, positions, 6.0, 9.5)
    y, x = np.mgrid[:50, :60]
    for (cx, cy), median, error in zip(positions, medians, errors):
        distance = np.hypot(x - cx, y - cy)
        values = sci[(distance > 6.0) & (distance < 9.5)]
        values = sigma_clip(values[np.isfinite(values)].astype(float), 3.0).compressed()
        if values.size == 0:
            assert np.isnan([median, error]).all()
            continue
        assert median == np.median(values)
        # A few rounding errors of 1.1e-16.
        assert error == pytest.approx(np.sqrt(np.pi / 2 / values.size) * np.std(values), rel=1e-14)


@pytest.mark.parametrize("sigma", [0.5, 0.85, 1.5, 2.6])
def test_shapes_from_the_image_filtered_as_a_whole(sigma):
    from scipy import ndimage

    rng = np.random.default_rng(int(10 * sigma))
    sci = rng.normal(0, 1, (40, 45)).astype(np.float32)
    positions = np.array([*rng.uniform(-3, 47, (40, 2)), (-1000, -1000), (22, 20)])
    sharpness, roundness = sharpness_roundness(sci, positions, sigma)
    radius = max(2.0, 1.5 * sigma)
    half = int(radius)
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    used = np.hypot(u, v) <= radius
    kernel = np.exp(-0.5 * (u**2 + v**2) / sigma**2) * used
    kernel = np.where(used, kernel - kernel.sum() / used.sum(), 0)
    kernel /= (kernel**2).sum()
    filtered = np.pad(ndimage.convolve(sci.astype(float), kernel, mode="constant"), 2 * half)
    padded = np.pad(sci.astype(float), 2 * half)
    for (x, y), sharp, round_ in zip(positions, sharpness, roundness):
        column, row = int(np.ceil(x - half - 0.5)), int(np.ceil(y - half - 0.5))  # of the square's corner
        if not (-2 * half <= column < 45 and -2 * half <= row < 40):
            assert np.isnan(sharp)
            assert np.isnan(round_)
            continue
        here = np.s_[row + 2 * half : row + 4 * half + 1, column + 2 * half : column + 4 * half + 1]
        data, smooth = padded[here], filtered[here].copy()
        mean = (data[used].sum() - data[half, half]) / (used.sum() - 1)
        # float32 sums of some 50 values of order 1.
        if smooth[half, half] != 0:
            assert sharp * smooth[half, half] == pytest.approx(data[half, half] - mean, abs=1e-5)
        smooth[half, half] = 0
        # Four pinwheel quadrants of alternating sign: a turn by 90 degrees changes the sign of all.
        sign = np.where((u > 0) & (v <= 0), -1, 0) + np.where((u <= 0) & (v < 0), 1, 0)
        sign += np.where((u < 0) & (v >= 0), -1, 0) + np.where((u >= 0) & (v > 0), 1, 0)
        if np.abs(smooth).sum() > 0:
            assert round_ == pytest.approx(2 * (sign * smooth).sum() / np.abs(smooth).sum(), abs=1e-5)


def test_round_and_peaked():
    y, x = np.mgrid[:41, :41]
    star = np.exp(-0.5 * ((x - 20) ** 2 + (y - 20) ** 2) / 1.5**2).astype(np.float32)
    flat = np.exp(-0.5 * ((x - 20) ** 2 / 3.0**2 + (y - 20) ** 2 / 1.0**2)).astype(np.float32)
    centre = np.array([[20.0, 20.0]])
    (sharp,), (round_,) = sharpness_roundness(star, centre, 1.5)
    assert 0.2 < sharp < 1.0  # of a star, by Stetson
    assert abs(round_) < 1e-6  # symmetric, but for float32 rounding
    assert abs(sharpness_roundness(flat, centre, 1.5)[1][0]) > 0.3


def test_nearest_by_comparing_all():
    rng = np.random.default_rng(0)
    positions = rng.uniform(0, 100, (30, 2))
    labels = rng.permutation(30) + 5
    valid = np.arange(30) != 7
    neighbour, distance = nearest(positions, labels, valid)
    far = np.hypot(*(positions[:, None] - positions[None]).T)
    np.fill_diagonal(far, np.inf)
    expected = labels[far.argmin(axis=0)]
    assert neighbour.tolist() == np.where(valid, expected, -1).tolist()
    np.testing.assert_allclose(distance, np.where(valid, far.min(axis=0), np.nan), rtol=1e-14)  # rounding of a root
    assert nearest(positions[:1], labels[:1], valid[:1])[0] == -1


def test_magnitudes():
    flux = np.array([1.0, 3631.0, -1.0, 0.0])
    magnitude, error = magnitudes(flux, np.array([0.1, 0.0, 1.0, 1.0]))
    # 8.9 is the rounded zero point of the AB system, 2.5 log10(3631) = 8.90006.
    assert magnitude[0] == 8.9
    assert magnitude[1] == pytest.approx(0, abs=1e-4)
    assert error[0] == pytest.approx(2.5 * np.log10(1.1))
    assert np.isnan([magnitude[2], error[2]]).all()
    assert np.isinf(magnitude[3])
    assert np.isnan(magnitudes(flux, np.nan)[1]).all()
