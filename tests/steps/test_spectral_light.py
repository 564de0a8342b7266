"""Light of spectra that median images are scaled with, beside jwst's."""

from __future__ import annotations

import json
import types
import warnings

import asdf
import numpy as np
import pytest
from astropy.modeling.models import Polynomial1D
from stdatamodels.jwst import datamodels

from jwstdask.core import dq
from jwstdask.core.errors import StepError
from jwstdask.kernels.errors import CleaningError
from jwstdask.refs.reference import open_reference
from jwstdask.steps.detector import median_image as median_images
from jwstdask.steps.detector import spectral_light
from jwstdask.wcs import nirspec, nirspec_traces
from jwstdask.wcs.errors import NoSlitError
from tests.steps.test_median_image import ORACLE, compare
from tests.wcs.test_nirspec import metadata, optics, paths, references_of

__all__ = ["paths"]

INTEGRATIONS = 4


def series(shape, center, seed=3, width=2.0):
    """Rates of a spectrum that dips, with flags, and ramps of two groups."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = np.array([1.0, 0.93, 0.95, 1.04])[:, np.newaxis, np.newaxis]
    spectrum = 30 * (1 + 0.4 * np.sin(x / 60)) * np.exp(-0.5 * ((y - center(x)) / width) ** 2)
    rates = light * spectrum + 2 + 0.01 * y + rng.normal(0, 0.4, (INTEGRATIONS, *shape))
    flags = np.where(rng.random(rates.shape) < 0.01, dq.DO_NOT_USE, 0).astype(np.uint32)
    rates[rng.random(rates.shape) < 0.003] = np.nan
    rates = rates.astype(np.float32)
    times = np.array([3.0, 6.0])[:, np.newaxis, np.newaxis]
    sci = (rates[:, np.newaxis] * times).astype(np.float32)
    variances = [np.full(rates.shape, 0.01, np.float32) for _ in range(2)]
    variances[1][rng.random(rates.shape) < 0.002] = np.nan
    return sci, rates, flags, variances


def cube(meta, rates, flags, variances):
    model = datamodels.CubeModel(data=rates.copy())
    model.dq, model.err = flags.copy(), np.ones_like(rates)
    model.var_poisson, model.var_rnoise = (variance.copy() for variance in variances)
    for name, value in meta.items():
        model[name] = value
    times = np.zeros(len(rates), model.get_dtype("int_times"))
    times["integration_number"] = np.arange(1, len(rates) + 1)
    times["int_mid_MJD_UTC"] = 60000 + 0.01 * np.arange(len(rates))
    model.int_times = times
    return model


def ramp(meta, sci):
    model = datamodels.RampModel(data=sci.copy())
    for name, value in meta.items():
        model[name] = value
    return model


@pytest.fixture(scope="module")
def cutouts():
    """What jwst's extract_2d made of exposures; one that differs by its data alone is not made again."""
    return {}


@pytest.fixture
def extraction(tmp_path, monkeypatch, cutouts):
    """Writes references, which jwst's steps get as well."""

    def write(apertures=None, parameters=None, **more):
        from jwst.extract_1d import Extract1dStep
        from jwst.extract_2d import Extract2dStep
        from jwst.white_light import WhiteLightStep

        files = dict(more)
        if apertures is not None:
            files["extract1d"] = tmp_path / "extract1d.json"
            files["extract1d"].write_text(json.dumps({"apertures": apertures}))
        if parameters is not None:
            files[spectral_light.EXTRACTION] = tmp_path / "pars.asdf"
            tree = {"class": "jwst.extract_1d.Extract1dStep", "name": "extract_1d", "parameters": parameters}
            asdf.AsdfFile(tree).write_to(files[spectral_light.EXTRACTION])

        def given(step):
            step.get_reference_file = lambda model, kind: str(files.get(kind, "N/A"))
            step.prepare_output = lambda model, **_: model
            step.run = step.process
            return step

        def call(slit, **_):
            return given(Extract1dStep(**(parameters or {}))).run(slit)

        def cut(model):
            key = str(sorted(model.to_flat_dict(include_arrays=False).items()))
            if key not in cutouts:
                cutouts[key] = given(Extract2dStep()).run(model)
            return cutouts[key]

        monkeypatch.setattr(f"{ORACLE}.Extract2dStep", lambda: types.SimpleNamespace(run=cut))
        monkeypatch.setattr(f"{ORACLE}.WhiteLightStep", lambda: given(WhiteLightStep()))
        monkeypatch.setattr(f"{ORACLE}.Extract1dStep.call", staticmethod(call))
        return {kind: open_reference(path, kind) for kind, path in files.items()}

    return write


def both(meta, references, exposure, files, y_range=nirspec.Y_RANGE):
    """Our median image, and the oracle's."""
    from jwst.assign_wcs.assign_wcs import load_wcs
    from jwst.clean_flicker_noise.tso_median_image import make_median_image

    sci, rates, flags, variances = exposure
    names = {kind: str(path) for kind, path in files.items()}
    every = ("distortion", "filteroffset", "regions", "specwcs", "wavelengthrange")
    model = load_wcs(cube(meta, rates, flags, variances), dict.fromkeys(every, "N/A") | names, list(y_range))
    own = median_images.median_image(meta, references, None, sci, rates, flags, variances)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return own, make_median_image(ramp(meta, sci), model)


# -- NIRSpec

SHAPE = (32, 512)


def slit_metadata(grating="PRISM", **more):
    place = {"subarray__name": "SUB512", "subarray__xstart": 1025, "subarray__ystart": 967}
    size = {"subarray__xsize": SHAPE[1], "subarray__ysize": SHAPE[0], "exposure__nints": INTEGRATIONS}
    offsets = {"dither__x_offset": 0.03, "dither__y_offset": 0.12, "visit__tsovisit": True}
    if grating != "PRISM":
        place = {"subarray__name": "SUB2048", "subarray__xstart": 1, "subarray__ystart": 967}
        size |= {"subarray__xsize": 2048}
    return metadata("NRS1", grating, "NRS_BRIGHTOBJ", **(place | size | offsets | more))


def slit_series(meta):
    return series((meta["meta.subarray.ysize"], meta["meta.subarray.xsize"]), lambda x: 14 + 0.002 * x)


def write_correction(path, unit, filter_="CLEAR", grating="PRISM"):
    """An aperture correction that depends on everything, in pixels or arcseconds."""
    grid = np.linspace(5.2, 0.7, 12).astype(np.float32)
    sizes = (np.arange(2, 9)[:, np.newaxis] * (1 + 0.02 * grid)).astype(np.float32)
    factors = 1 + 0.5 / sizes[..., np.newaxis] * np.array([1.0, 0.8, 1.1]) + 0.05 * grid[:, np.newaxis]
    dtype = [
        ("filter", "S12"), ("grating", "S15"), ("slit", "S15"), ("wavelength", "f4", (12,)), ("nelem_wl", "i2"),
        ("size", "f4", (7, 12)), ("nelem_size", "i2"), ("pixphase", "f4", (3,)), ("apcorr", "f4", (7, 12, 3)),
        ("apcorr_err", "f4", (7, 12, 3)),
    ]  # fmt: skip
    if unit == "arcsec":
        sizes = sizes * np.float32(0.1)
    rows = [
        (filter_, grating, slit, grid, 12, sizes, 7, [0.0, 0.6, 1.0], factors, 0 * factors)
        for slit in ("S200A1", "S1600A1")
    ]
    model = datamodels.NrsFsApcorrModel(apcorr_table=np.array(rows, dtype))
    model.sizeunit = unit
    for name, value in {"telescope": "JWST", "reftype": "apcorr", "pedigree": "DUMMY", "author": "tests",
                        "description": "tests", "useafter": "2022-01-01T00:00:00"}.items():  # fmt: skip
        model[f"meta.{name}"] = value
    model.meta.instrument.name = "NIRSPEC"
    model.meta.exposure.type = "NRS_BRIGHTOBJ"
    model.save(path)
    return path


POSITIONED = {"id": "S1600A1", "region_type": "target", "xstart": 5, "xstop": 480.5, "extract_width": 7.3}
SLITS = {
    "background about the source": (
        [POSITIONED | {"bkg_coeff": [[-0.5], [3.5], [17.2, 0.001], [22.9]], "bkg_order": 1, "extract_width": 5}],
        {}, {},
    ),
    "limits by wavelength, a smoothed median, no offsets": (
        [POSITIONED | {
            "src_coeff": [[8.2, 0.3], [17.4, 0.2]], "independent_var": "wavelength", "bkg_coeff": [[4.5], [7.2, 0.2]],
            "bkg_fit": "median", "smoothing_length": 6,
        }], {}, {"dither__x_offset": None},
    ),
    "parameters": (
        [POSITIONED | {"bkg_coeff": [[-0.5], [4.5]], "bkg_order": 2}],
        {"bkg_fit": "mean", "smoothing_length": 5, "use_source_posn": False, "position_offset": -1.25}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("apertures", "parameters", "more"), SLITS.values(), ids=SLITS)
def test_slits_as_the_oracle(extraction, paths, apertures, parameters, more):
    files = references_of(paths, "PRISM")
    meta = slit_metadata(**more)
    references = extraction(apertures, parameters, **files)
    own, expected = both(meta, references, slit_series(meta), files)
    compare(own, expected)
    assert 0.01 < np.ptp(own.scale) < 0.2


@pytest.mark.parametrize(
    ("unit", "apertures", "more"),
    [("pixels", None, {}), ("arcsec", [POSITIONED], {"dither__y_offset": 3.0, "wcsinfo__velosys": None})],
)
def test_aperture_corrections_as_the_oracle(extraction, paths, tmp_path, unit, apertures, more):
    """Of the whole cutout, and of a source that is beside the slit: the middle of the rows is taken."""
    files = references_of(paths, "PRISM")
    meta = slit_metadata(**more)
    correction = {"apcorr": write_correction(tmp_path / "apcorr.fits", unit)}
    references = extraction(apertures, None, **files, **correction)
    exposure = slit_series(meta)
    own, expected = both(meta, references, exposure, files)
    compare(own, expected)
    plain = spectral_light.spectral_fluxes(meta, {**references, "apcorr": None}, *exposure[1:])
    corrected = spectral_light.spectral_fluxes(meta, references, *exposure[1:])
    assert (np.abs(corrected / plain - 1) > 0.05).all()


def write_psf(path, *apertures):
    """Images of a point source, five rows to a pixel, wider in the red; wavelengths descend."""
    model = datamodels.SpecPsfModel()
    wavelengths = np.linspace(5.5, 0.5, 40)
    rows = np.arange(161)[:, np.newaxis]
    for number, name in enumerate(apertures):
        center = 80.0 + 3 * number
        image = np.exp(-0.5 * ((rows - center) / (4 + 2 * wavelengths)) ** 2)
        model.apertures.append(
            {"name": name, "subpix": 5.0, "center_row": center, "data": image, "wave": wavelengths.copy()}
        )
    for name, value in {"telescope": "JWST", "reftype": "psf", "pedigree": "DUMMY", "author": "tests",
                        "description": "tests", "useafter": "2022-01-01T00:00:00"}.items():  # fmt: skip
        model[f"meta.{name}"] = value
    model.meta.instrument.name = "NIRSPEC"
    model.meta.exposure.type = "NRS_BRIGHTOBJ"
    model.save(path)
    return path


OPTIMAL = {"id": "S1600A1", "bkg_coeff": [[-0.5], [3.5], [22.0], [26.0]], "bkg_order": 1}
PROFILES = {
    "of the default, with a background and an aperture correction": ([OPTIMAL], {"extraction_type": None}, {}),
    "in the middle, without a background": (
        [OPTIMAL], {"extraction_type": "optimal", "use_source_posn": False, "subtract_background": False}, {},
    ),
    "in a fixed place, of a source beside the slit": (
        [OPTIMAL | {"bkg_fit": "median", "bkg_coeff": None}],
        {
            "extraction_type": "optimal", "optimize_psf_location": False, "position_offset": 0.7,
            "subtract_background": True, "bkg_order": 0,
        }, {"dither__y_offset": 3.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("apertures", "parameters", "more"), PROFILES.values(), ids=PROFILES)
def test_profiles_as_the_oracle(extraction, paths, tmp_path, apertures, parameters, more):
    files = references_of(paths, "PRISM")
    meta = slit_metadata(**more)
    beside = {
        "psf": write_psf(tmp_path / "psf.fits", "S400A1", "S1600A1", "ANY"),
        "apcorr": write_correction(tmp_path / "apcorr.fits", "pixels"),
    }
    references = extraction(apertures, parameters, **files, **beside)
    own, expected = both(meta, references, slit_series(meta), files)
    compare(own, expected)
    assert 0.01 < np.ptp(own.scale) < 0.2


@pytest.mark.parametrize(
    ("apertures", "parameters"), [(None, {"extraction_type": "optimal"}), ([POSITIONED], {"use_source_posn": False})]
)
def test_boxes_although_there_is_a_profile(extraction, paths, tmp_path, apertures, parameters):
    files = {**references_of(paths, "PRISM"), "psf": write_psf(tmp_path / "psf.fits", "ANY")}
    references = extraction(apertures, {"extraction_type": None} | parameters, **files)
    meta = slit_metadata()
    light = light_of(meta, references)
    np.testing.assert_array_equal(light, light_of(meta, {**references, "psf": None}))


def test_point_sources_of_no_slit(tmp_path):
    reference = open_reference(write_psf(tmp_path / "psf.fits", "S400A1", "S200A1"), "psf")
    with pytest.raises(CleaningError, match="no image for S1600A1"):
        spectral_light.point_spread(reference, "S1600A1")
    assert spectral_light.point_spread(reference, "S200A1").center == 83.0


def test_cutout_beside_the_subarray(paths):
    meta = slit_metadata()
    own = optics(meta, references_of(paths, "PRISM"))
    (slit,) = nirspec.fixed_slits(meta)
    with pytest.raises(NoSlitError, match="beside the subarray"):
        nirspec_traces.Cutout(own, slit, (4, 512))


# -- NIRCam


def write_grism(folder):
    """The references of grisms: legacy dispersion, and what is extracted."""
    meta = {"telescope": "JWST", "author": "tests", "pedigree": "DUMMY", "description": "tests",
            "useafter": "2022-01-01T00:00:00", "instrument": {"name": "NIRCAM", "module": "A"},
            "exposure": {"type": "NRC_TSGRISM"}}  # fmt: skip
    along, back = Polynomial1D(1, c0=-1530.0, c1=2589.6), Polynomial1D(1, c0=1530.0 / 2589.6, c1=1 / 2589.6)
    wavelength, across = Polynomial1D(1, c0=2.4, c1=2.6), Polynomial1D(1, c0=0.0, c1=0.0)
    trees = {
        "specwcs": {
            "displ": [wavelength], "dispx": [along], "dispy": [across], "invdispx": [back], "orders": [1],
        },
        "wavelengthrange": {
            "extract_orders": [["F322W2", [1]], ["F444W", [1]]], "order": [1], "waverange_selector": ["F322W2"],
            "wavelengthrange": [[1, "ANY", "F322W2", 2.5, 4.2], [1, "ANY", "F444W", 3.7, 4.9]],
        },
        "distortion": {"model": _flat_distortion()},
    }  # fmt: skip
    paths = {}
    for kind, tree in trees.items():
        paths[kind] = folder / f"{kind}.asdf"
        asdf.AsdfFile({"meta": {**meta, "reftype": kind}, **tree}).write_to(paths[kind])
    return paths


def _flat_distortion():
    from astropy.modeling.models import Scale, Shift

    model = Shift(-1000.0) & Shift(-34.0) | Scale(0.063) & Scale(0.063) | Shift(80.0) & Shift(-500.0)
    model.inverse = Shift(-80.0) & Shift(500.0) | Scale(1 / 0.063) & Scale(1 / 0.063) | Shift(1000.0) & Shift(34.0)
    return model


def grism_metadata(**more):
    values = {
        "exposure__type": "NRC_TSGRISM", "exposure__nints": INTEGRATIONS, "visit__tsovisit": True,
        "instrument__name": "NIRCAM", "instrument__detector": "NRCALONG", "instrument__channel": "LONG",
        "instrument__module": "A", "instrument__filter": "F322W2", "instrument__pupil": "GRISMR",
        "subarray__name": "SUBGRISM64", "subarray__xstart": 1, "subarray__ystart": 1, "subarray__xsize": 640,
        "subarray__ysize": 64, "wcsinfo__siaf_xref_sci": 500.3, "wcsinfo__siaf_yref_sci": 35.0, "wcsinfo__v2_ref": 80.0,
        "wcsinfo__v3_ref": -500.0, "wcsinfo__v3yangle": 0.2, "wcsinfo__vparity": -1, "wcsinfo__roll_ref": 10.0,
        "wcsinfo__ra_ref": 53.1, "wcsinfo__dec_ref": -27.8, "wcsinfo__velosys": 9000.0, "dither__x_offset": 0.0,
        "dither__y_offset": 0.0, "velocity_aberration__scale_factor": 1.0,
    }  # fmt: skip
    return {f"meta.{name.replace('__', '.')}": value for name, value in (values | more).items()}


TARGET = {"id": "ANY", "region_type": "target", "xstart": 4, "xstop": 630, "ystart": 30.5, "ystop": 37.25}
GRISMS = {
    "rows with a background": (
        [TARGET | {"bkg_coeff": [[6.5], [16.5], [49.5], [59.5]], "bkg_order": 0, "smoothing_length": 0}], {},
        {"wcsinfo__siaf_yref_sci": 35.123456},
    ),
    "whole cutout": (None, None, {"subarray__ysize": 80}),
    "another id": (
        [{"id": "S1600A1"}, TARGET | {"id": "NRC_TSGRISM", "extract_width": 9}], {"position_offset": 0.4}, {},
    ),
    "limits by wavelength": (
        [TARGET | {"src_coeff": [[26.2, 0.9], [36.1, 1.1]], "independent_var": "wavelength"}], {}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("apertures", "parameters", "more"), GRISMS.values(), ids=GRISMS)
def test_grisms_as_the_oracle(extraction, tmp_path, apertures, parameters, more):
    files = write_grism(tmp_path)
    meta = grism_metadata(**more)
    shape = meta["meta.subarray.ysize"], meta["meta.subarray.xsize"]
    exposure = series(shape, lambda x: 34 + 0 * x)
    references = extraction(apertures, parameters, **files)
    own, expected = both(meta, references, exposure, files)
    compare(own, expected)
    assert 0.02 < np.ptp(own.scale) < 0.2


def stripe_metadata(detector, **more):
    values = {
        "instrument__detector": detector, "instrument__filter": "F150W2", "instrument__pupil": "GDHS0",
        "subarray__name": "SUB41STRIPE1_DHS", "subarray__xsize": 2048, "subarray__ysize": 41,
        "subarray__fastaxis": -1, "subarray__slowaxis": 2, "subarray__multistripe_reads1": 1,
        "subarray__multistripe_skips1": 1901, "subarray__multistripe_reads2": 40, "subarray__multistripe_skips2": 0,
        "subarray__repeat_stripe": 1, "subarray__interleave_reads1": 1, "subarray__superstripe_step": 0,
        "subarray__num_superstripe": 0, "aperture__pps_name": "NRCA1_FULL_4STRIPE_DHS_F150W2",
        "target__source_type": "POINT",
    }  # fmt: skip
    return grism_metadata(**(values | more))


def write_stripes(folder, long=False):
    """The references of DHS readouts: four stripes for each of two field points, and where they fall."""
    paths = write_grism(folder)
    along = [[Polynomial1D(1, c0=-1000.0 - 100 * k, c1=2500.0)] for k in range(4)]
    wavelength = [[Polynomial1D(1, c0=1.0 + 0.05 * k, c1=1.2)] for k in range(4)]
    across = [[Polynomial1D(1, c0=0.0, c1=0.0)] for _ in range(4)]
    stripes = [9, 9, 7, 8]
    points = ["2STRIPE", "4STRIPE", "4STRIPE", "4STRIPE"]
    tree = asdf.open(paths["specwcs"]).tree if long else {}
    tree = {"displ": wavelength, "dispx": along, "dispy": across, "orders": [1]} | {
        key: tree[key] for key in ("displ", "dispx", "dispy") if long
    }
    about = {"telescope": "JWST", "author": "tests", "pedigree": "DUMMY", "description": "tests",
             "useafter": "2022-01-01T00:00:00", "instrument": {"name": "NIRCAM", "module": "A"},
             "exposure": {"type": "NRC_TSGRISM"}}  # fmt: skip
    tree |= {"stripes": stripes, "fieldpoints": points, "meta": {**about, "reftype": "specwcs"}}
    asdf.AsdfFile(tree).write_to(paths["specwcs"])
    where = np.zeros((2048, 2048), np.int16)
    where[1903:1941, 60:2000] = 1 if long else 8
    where[1908, 300:310] = 0
    where[100:140] = 9
    frame = {"name": "FULL", "xstart": 1, "ystart": 1, "xsize": 2048, "ysize": 2048, "fastaxis": -1, "slowaxis": 2}
    paths["regions"] = folder / "regions.asdf"
    about |= {"reftype": "regions", "subarray": frame}
    asdf.AsdfFile({"meta": about, "regions": where}).write_to(paths["regions"])
    ranges = {
        "extract_orders": [["F150W2", [1]]], "order": [1], "waverange_selector": ["F150W2"],
        "wavelengthrange": [[1, "ANY", "F150W2", 1.0, 2.4]],
    }  # fmt: skip
    asdf.AsdfFile({"meta": {**about, "reftype": "wavelengthrange"}, **ranges}).write_to(paths["wavelengthrange"])
    return paths


STRIPES = {
    "whole stripe": ("NRCA1", None, None, {}),
    "aperture": ("NRCA3", [TARGET | {"ystart": 10.5, "ystop": 30, "bkg_coeff": [[2.5], [6.5]]}], {}, {}),
    "limits by wavelength": (
        "NRCA1",
        [TARGET | {"id": "8", "src_coeff": [[8.2, 0.9], [26.1, 1.1]], "independent_var": "wavelength"}], {}, {},
    ),
    "source that is not followed": (
        "NRCA1", [TARGET | {"ystart": 10, "ystop": 30, "use_source_posn": True}], {},
        {"target__source_type": "EXTENDED"},
    ),
    "long wavelengths": (
        "NRCALONG",
        [TARGET | {"src_coeff": [[8.2, 0.9], [26.1, 1.1]], "independent_var": "wavelength"}], {},
        {"instrument__pupil": "GRISMR"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("detector", "apertures", "parameters", "more"), STRIPES.values(), ids=STRIPES)
def test_single_stripes_as_the_oracle(extraction, tmp_path, detector, apertures, parameters, more):
    files = write_stripes(tmp_path, detector == "NRCALONG")
    meta = stripe_metadata(detector, **more)
    exposure = series((41, 2048), lambda x: 20 + 0.001 * x)
    references = extraction(apertures, parameters, **files)
    own, expected = both(meta, references, exposure, files)
    compare(own, expected)
    assert 0.01 < np.ptp(own.scale) < 0.2


def test_several_stripes_have_several_lights(extraction, tmp_path):
    """As in jwst."""
    files = write_stripes(tmp_path)
    references = extraction(None, {}, **files)
    wide = {"subarray__name": "SUB82STRIPE2_DHS", "subarray__ysize": 82, "subarray__multistripe_skips1": 98,
            "subarray__multistripe_skips2": 1763}  # fmt: skip
    meta = stripe_metadata("NRCA1", **wide)
    with pytest.raises(CleaningError, match="each stripe has one"):
        light_of(stripe_metadata("NRCALONG", **wide), references)
    with pytest.raises(CleaningError, match="each stripe has one"):
        light_of(meta, {**references, "specwcs": _renumbered(files, tmp_path, [8, 9, 9, 8])})
    with pytest.raises(CleaningError, match="no stripe in common"):
        light_of(meta, {**references, "specwcs": _renumbered(files, tmp_path, [1, 2, 3, 4])})
    with pytest.raises(CleaningError, match="GDHS0"):
        light_of(stripe_metadata("NRCA1", instrument__pupil="GDHS60"), references)
    with pytest.raises(StepError, match="the specwcs reference is missing"):
        light_of(stripe_metadata("NRCA1"), {**references, "specwcs": None})
    with pytest.raises(StepError, match="no regions reference"):
        light_of(stripe_metadata("NRCA1"), {**references, "regions": None})


def _renumbered(files, folder, stripes):
    with asdf.open(files["specwcs"]) as file:
        path = folder / f"specwcs{stripes[0]}.asdf"
        asdf.AsdfFile({**file.tree, "stripes": stripes}).write_to(path)
    return open_reference(path, "specwcs")


def light_of(meta, references):
    """Light of an exposure of ones."""
    rates = np.ones((2, meta["meta.subarray.ysize"], meta["meta.subarray.xsize"]), np.float32)
    return spectral_light.spectral_fluxes(meta, references, rates, np.zeros(rates.shape, np.uint32))


@pytest.mark.parametrize(
    ("apertures", "parameters", "more", "message"),
    [
        ([TARGET | {"id": "S1600A1"}], {}, {}, "no aperture for NRC_TSGRISM, order 1"),
        ([TARGET | {"spectral_order": 2}], {}, {}, "no aperture for NRC_TSGRISM, order 1"),
        ([TARGET | {"use_source_posn": True}], {}, {}, "cannot follow the source"),
        ([TARGET | {"src_coeff": [[3.0]]}], {}, {}, "without an upper one"),
        ([TARGET | {"bkg_coeff": [[3.0], [9.0]], "bkg_fit": "mean"}], {}, {}, "cannot be fitted by 'mean'"),
        ([TARGET | {"xstart": 900, "xstop": 950}], {}, {}, "no pixel of the spectrum"),
        (None, {"skip": True}, {}, "extract_1d is skipped"),
        (None, {}, {"wcsinfo__siaf_yref_sci": None}, "XREF_SCI and YREF_SCI"),
        (None, {}, {"instrument__filter": "F277W"}, "one order to extract for F277W"),
        (None, {}, {"instrument__module": "B"}, "module A"),
    ],
)
def test_series_without_light_to_scale_with(extraction, tmp_path, apertures, parameters, more, message):
    with pytest.raises(CleaningError, match=message):
        light_of(grism_metadata(**more), extraction(apertures, parameters, **write_grism(tmp_path)))


def test_no_profile_for_grisms_either(extraction, tmp_path):
    files = write_grism(tmp_path)
    meta = grism_metadata()
    psf = {"psf": write_psf(tmp_path / "psf.fits", "ANY")}
    references = extraction([TARGET], {"extraction_type": "optimal"}, **files, **psf)
    with pytest.raises(CleaningError, match="cannot be extracted by extraction_type=optimal"):
        light_of(meta, references)
    exposure = series((meta["meta.subarray.ysize"], meta["meta.subarray.xsize"]), lambda x: 34 + 0 * x)
    with pytest.raises(ValueError, match="unpack"):
        both(meta, {**references, "psf": None}, exposure, files)


def test_what_is_not_there_is_named(extraction, paths, tmp_path):
    files = write_grism(tmp_path)
    meta = grism_metadata(filename="exposure_uncal.fits")
    references = extraction(None, {"extraction_type": "optimal"}, **files)
    assert light_of(meta, references).shape == (2,)
    with pytest.raises(StepError, match="no wavelengthrange reference for NRC_TSGRISM"):
        light_of(meta, {**references, "wavelengthrange": None})
    row = [TARGET | {"src_coeff": [[26.2, 0.9], [36.1, 1.1]], "independent_var": "wavelength"}]
    references = extraction(row, {}, **files)
    with pytest.raises(StepError, match="the specwcs reference is missing"):
        light_of(meta, {**references, "specwcs": None})
    references = extraction(None, {}, **references_of(paths, "PRISM"))
    with pytest.raises(StepError, match="no camera reference for NRS_BRIGHTOBJ"):
        light_of(slit_metadata(), {**references, "camera": None})
    with pytest.raises(CleaningError, match="lamp"):
        light_of(slit_metadata(instrument__filter="OPAQUE"), references)
    correction = open_reference(write_correction(tmp_path / "apcorr.fits", "pixels", "F290LP", "G395H"), "apcorr")
    with pytest.raises(CleaningError, match="0 rows for CLEAR, PRISM, S1600A1"):
        light_of(slit_metadata(), {**references, "apcorr": correction})


def test_references_that_are_needed(monkeypatch):
    monkeypatch.delenv("STPIPE_DISABLE_CRDS_STEPPARS", raising=False)
    slit = median_images.references_for({"meta.exposure.type": "NRS_BRIGHTOBJ"})
    assert {"msa", "extract1d", "apcorr", "psf", "pars-extract1dstep"} <= set(slit)
    grism = {"meta.exposure.type": "NRC_TSGRISM"}
    assert median_images.references_for(grism) == (
        "specwcs", "wavelengthrange", "extract1d", "psf", "pars-extract1dstep",
    )  # fmt: skip
    assert "regions" in median_images.references_for({**grism, "meta.subarray.name": "SUB41STRIPE1_DHS"})
    monkeypatch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", "true")
    assert "pars-extract1dstep" not in median_images.references_for(grism)


def test_a_context_may_know_nothing_of_point_sources():
    from jwstdask.pipelines.planner import decided
    from jwstdask.refs.crds import ReferenceChoice

    unknown = ReferenceChoice("psf", error="no match found", origin="jwst_0999.pmap")
    assert decided(unknown).not_applicable and decided(unknown).origin == "jwst_0999.pmap"
    for choice in (ReferenceChoice("gain", error="no match found"), ReferenceChoice("psf", name="psf.fits")):
        assert decided(choice) is choice
