"""Alignment against the oracle, on simulated exposures of two detectors with errors of pointing."""

from __future__ import annotations

import contextlib
import http.server
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from astropy.table import QTable, Table
from jwst.assign_wcs import AssignWcsStep
from jwst.datamodels import ModelLibrary
from jwst.tweakreg import TweakRegStep as OracleStep
from stdatamodels.jwst import datamodels

from jwstdask.core.errors import InputError, JwstdaskError, ParameterError, StepError
from jwstdask.core.params import declared
from jwstdask.io.exposure import Exposure
from jwstdask.simulate import make_cache, make_program
from jwstdask.steps.combine import reference_catalog
from jwstdask.steps.combine.tweakreg import TweakRegStep

# The field is 10" wide: stars may be matched closer to each other than by default.
NEAR = {"minobj": 6, "separation": 0.6, "searchrad": 1.0, "tolerance": 0.1}
ABSOLUTE = {"abs_minobj": 6, "abs_separation": 0.6, "abs_searchrad": 1.5, "abs_tolerance": 0.2}


class Tools:
    """Tools of a step. Everything mapped goes through pickle, as on a cluster."""

    def __init__(self, folder):
        self.scratch = Path(folder) / "scratch"
        self.messages = []

    def map(self, function, items):
        function = pickle.loads(pickle.dumps(function))
        return [pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(item))))) for item in items]

    def log(self, message):
        self.messages.append(message)


@pytest.fixture(scope="module")
def cache(module_folder):
    made = make_cache(module_folder("cache"), detectors=("nrca1", "nrcb1"), subarray="SUB320", seed=1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        patch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", "true")
        yield made


@pytest.fixture(scope="module")
def programs(cache, module_folder):
    """Seed to (calibrated exposures, stars): rate images of the simulator with noise, bad pixels and a WCS."""
    made = {}

    def get(seed):
        if seed not in made:
            folder = module_folder(f"program{seed}")
            program = make_program(
                folder, cache, dithers=3, readpatt="RAPID", ngroups=2, stars=120, pointing_error=0.2, seed=seed
            )
            made[seed] = [_calibrate(path, program, seed + k) for k, path in enumerate(program.uncals)], program
        return made[seed]

    return get


def _calibrate(path, program, seed):
    rng = np.random.default_rng(seed)
    root = path.name.removesuffix("_uncal.fits")
    rate = program.rate(root)
    with datamodels.open(path) as ramp:
        model = datamodels.ImageModel(rate.shape)
        model.update(ramp)
    model.err = np.sqrt(0.02**2 + 0.01 * np.clip(rate, 0, None)).astype("f4")
    model.data = (rate + 0.5 + rng.normal(0, 1, rate.shape) * model.err).astype("f4")
    bad = rng.random(rate.shape) < 0.002
    bad[:4] = bad[:, :4] = True
    model.dq = np.where(bad, datamodels.dqflags.pixel["DO_NOT_USE"], 0).astype("u4")
    model.data[bad] = np.nan
    model = AssignWcsStep.call(model)
    target = path.with_name(f"{root}_cal.fits")
    model.meta.filename = target.name
    model.save(target)
    return target


def _oracle(paths, folder, **parameters):
    if "connectivity" in parameters:
        parameters["connectivity"] = str(parameters["connectivity"])  # an option is text
    library = OracleStep.call(ModelLibrary([str(path) for path in paths]), output_dir=str(folder), **parameters)
    models = []
    with library:
        for index, model in enumerate(library):
            models.append(model)
            library.shelve(model, index, modify=False)
    return models


def _two(paths):
    """The first two of three dithers, both detectors."""
    return [*paths[:2], *paths[3:5]]


def _own(paths, folder, **parameters):
    members, tools = [Exposure(path) for path in paths], Tools(folder)
    reason = TweakRegStep(**parameters).run(members, {}, tools)
    return members, reason, tools


def _assert_same(models, members, reason):
    """Statuses, WCS and keywords."""
    assert {model.meta.cal_step.tweakreg for model in models} == {
        "COMPLETE" if reason is None else TweakRegStep.status_if_undone
    }
    for model, member in zip(models, members, strict=True):
        ny, nx = member.shape
        x, y = np.meshgrid(np.linspace(0, nx - 1, 6), np.linspace(0, ny - 1, 6))
        assert member.wcs.available_frames == model.meta.wcs.available_frames
        assert member.wcs.name == model.meta.wcs.name
        # The same catalogues go into the same fit; 1e-12 degree, 1e-7 pixel, is the rounding of right ascension.
        np.testing.assert_allclose(member.wcs(x, y), model.meta.wcs(x, y), rtol=0, atol=1e-12)
        expected = {
            name: value
            for name, value in model.to_flat_dict(include_arrays=False).items()
            if name.startswith("meta.wcsinfo.") or name == "meta.tweakreg_catalog"
        }
        found = {name: value for name, value in member.meta.items() if name in expected or "meta.wcsinfo." in name}
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            # SIP coefficients are a least-squares fit to the WCS, and carry its rounding.
            same = found[name] == (pytest.approx(value, rel=1e-9, abs=1e-15) if isinstance(value, float) else value)
            assert same, name


def _assert_same_catalogs(models, members, oracle_folder, own_folder, extension="ecsv"):
    for model, member in zip(models, members, strict=True):
        name = model.meta.tweakreg_catalog
        assert member.meta["meta.tweakreg_catalog"] == name
        assert name.endswith(f"_cal_cat.{extension}")
        expected, found = Table.read(oracle_folder / name), Table.read(own_folder / name)
        assert found.colnames == expected.colnames == ["id", "x", "y", "flux"]
        assert len(found) == len(expected)
        for column in expected.colnames:
            assert found[column].dtype == expected[column].dtype
            # The same library measures the same peaks.
            np.testing.assert_array_equal(found[column], expected[column])


def _moved(members):
    return ["v2v3corr" in member.wcs.available_frames for member in members]


@pytest.mark.parametrize(
    ("seed", "parameters"),
    [
        (1, {}),
        (2, {}),
        (3, {"bkg_boxsize": 64, "snr_threshold": 5.0, "kernel_fwhm": 2.0, "minsep_fwhm": 2.0, "peakmax": 500.0}),
        (1, {"starfinder": "dao", "roundlo": -0.5, "roundhi": 0.5, "brightest": 100}),
        (2, {"starfinder": "segmentation", "bkg_boxsize": 100}),
        (1, {"starfinder": "segmentation", "deblend": False, "localbkg_width": 8, "connectivity": 4}),
        (2, {"enforce_user_order": True, "fitgeometry": "shift", "nclip": 0, "sip_approx": False}),
        (1, {"expand_refcat": True, "fitgeometry": "general", "sigma": 2.0}),
        (2, {"use2dhist": False, "xoffset": 0.1, "tolerance": 0.4, "fitgeometry": "rscale", "sip_degree": 3}),
    ],
)
def test_alignment_is_the_oracles(seed, parameters, programs, tmp_path):
    paths, _ = programs(seed)
    if parameters:
        paths = _two(paths)
    parameters = {**NEAR, **parameters, "save_catalogs": True}
    (tmp_path / "oracle").mkdir()
    models = _oracle(paths, tmp_path / "oracle", **parameters)
    members, reason, _ = _own(paths, tmp_path / "own", **parameters)
    _assert_same(models, members, reason)
    _assert_same_catalogs(models, members, tmp_path / "oracle", tmp_path / "own")
    assert reason is None
    assert any(_moved(members))
    assert not all(_moved(members))  # the reference stays


def test_alignment_takes_out_the_errors_of_pointing(programs, tmp_path):
    paths, program = programs(1)

    def spread(members):
        """Of the distance of stars from their true declination, over the exposures [arcsec]."""
        offsets = []
        sky = program.sources()
        for member in members:
            truth = Table.read(program.path / member.name.replace("_cal", "_truth"), hdu="SOURCES")
            ra, dec = member.wcs(np.asarray(truth["x"]), np.asarray(truth["y"]))
            ra, dec = ra[np.isfinite(ra)], dec[np.isfinite(ra)]
            across = (ra[:, None] - np.asarray(sky["ra"])) * np.cos(np.deg2rad(dec[:, None]))
            up = dec[:, None] - np.asarray(sky["dec"])
            nearest = np.argmin(np.hypot(across, up), axis=1)
            offsets.append(np.median(up[np.arange(len(dec)), nearest]) * 3600)
        return float(np.ptp(offsets))

    members, reason, _ = _own(paths, tmp_path, **NEAR)
    assert reason is None
    assert spread([Exposure(path) for path in paths]) > 0.1
    # All have the error of the first now, to a tenth of a pixel.
    assert spread(members) < 0.003


def test_catalogs_are_written_as_fits(programs, tmp_path):
    paths, _ = programs(1)
    (tmp_path / "oracle").mkdir()
    how = {**NEAR, "save_catalogs": True, "catalog_format": "fits"}
    models = _oracle(paths[:1], tmp_path / "oracle", **how)
    members, reason, _ = _own(paths[:1], tmp_path / "own", output_dir=str(tmp_path / "else"), **how)
    assert reason is not None  # a single exposure: catalogues, but nothing to align
    _assert_same(models, members, reason)
    _assert_same_catalogs(models, members, tmp_path / "oracle", tmp_path / "else", "fits")


@pytest.mark.parametrize(
    ("count", "parameters", "why"),
    [
        (1, {}, "at least two exposures"),
        (2, {"snr_threshold": 1e7}, "too few exposures have stars"),
        (2, {"separation": 0.1}, "separation = 0.1 must exceed"),
    ],
)
def test_what_cannot_be_aligned_fails_as_in_the_oracle(count, parameters, why, programs, tmp_path):
    paths, _ = programs(1)
    parameters = {**NEAR, **parameters}
    models = _oracle(paths[:count], tmp_path, **parameters)
    members, reason, _ = _own(paths[:count], tmp_path, **parameters)
    _assert_same(models, members, reason)
    assert why in reason
    assert not any(_moved(members))


@pytest.mark.parametrize("parameters", [{"brightest": 4}, {"minobj": 500}])
def test_an_exposure_with_too_few_matches_stays(parameters, programs, tmp_path):
    paths, _ = programs(1)
    models = _oracle(paths[:2], tmp_path, **{**NEAR, **parameters})
    members, reason, tools = _own(paths[:2], tmp_path, **{**NEAR, **parameters})
    _assert_same(models, members, reason)
    assert reason is None  # as in the oracle: the step is complete
    assert not any(_moved(members))
    assert any("not moved: FAILED" in message for message in tools.messages)


def test_an_exposure_that_would_move_far_stays(programs, tmp_path):
    """Four stars around the middle, 1.25 times as far apart in one exposure as in the other."""
    paths, _ = programs(1)
    first, second = (Exposure(path) for path in paths[:2])
    x, y = np.array([135.0, 185.0, 133.0, 186.0]), np.array([140.0, 139.0, 181.0, 183.0])
    there_x, there_y = second.wcs.invert(*first.wcs(x, y), with_bounding_box=False)
    Table({"x": x, "y": y}).write(tmp_path / "first.ecsv")
    far = [value.mean() + 1.25 * (value - value.mean()) for value in (there_x, there_y)]
    Table({"x": far[0], "y": far[1]}).write(tmp_path / "second.ecsv")
    catfile = tmp_path / "list.txt"
    catfile.write_text("".join(f"{path.name} {name}.ecsv\n" for path, name in zip(paths, ("first", "second"))))
    how = {"use_custom_catalogs": True, "catfile": str(catfile), "minobj": 3, "fitgeometry": "rscale", "nclip": 0}
    how |= {"searchrad": 0.1, "tolerance": 0.3, "separation": 0.5}
    models = _oracle(paths[:2], tmp_path, **how)
    members, reason, _ = _own(paths[:2], tmp_path, **how)
    _assert_same(models, members, reason)
    assert "would move by more than 0.8 arcsec" in reason
    # A shift alone is small.
    members, reason, _ = _own(paths[:2], tmp_path, **{**how, "fitgeometry": "shift"})
    assert reason is None
    assert _moved(members) == [False, True]


def _stars(program, name, shift=0.3):
    """A reference catalogue: true positions, moved a little in declination [arcsec]."""
    sky = program.sources()
    columns = {"ra": np.asarray(sky["ra"]), "dec": np.asarray(sky["dec"]) + shift / 3600}
    if name == "sky_centroid":
        from astropy.coordinates import SkyCoord

        return QTable({"sky_centroid": SkyCoord(columns["ra"], columns["dec"], unit="deg")})
    return Table({name(key): value for key, value in columns.items()})


@pytest.mark.parametrize(
    ("seed", "alone", "name", "extension", "parameters"),
    [
        (1, False, str.upper, "ecsv", {}),
        (2, False, str.lower, "fits", {"abs_fitgeometry": "general"}),
        (1, True, "sky_centroid", "ecsv", {"abs_fitgeometry": "shift"}),  # a single exposure
        (2, False, str.title, "ecsv", {"separation": 0.1}),  # only with the catalogue, not with each other
        (2, False, str.title, "ecsv", {"abs_minobj": 100000}),  # too few stars in the catalogue
        (2, False, str.title, "ecsv", {"abs_separation": 0.1}),
    ],
)
def test_alignment_with_a_catalogue_is_the_oracles(seed, alone, name, extension, parameters, programs, tmp_path):
    paths, program = programs(seed)
    paths = paths[:1] if alone else _two(paths)
    reference = tmp_path / f"stars.{extension}"
    _stars(program, name).write(reference)
    how = {**NEAR, **ABSOLUTE, **parameters, "abs_refcat": str(reference)}
    models = _oracle(paths, tmp_path, **how)
    members, reason, _ = _own(paths, tmp_path, **how)
    _assert_same(models, members, reason)
    assert (reason is None) == all(_moved(members))
    if reason is None:
        assert members[0].wcs.name == f"FIT-LVL3-{reference}"


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"RA": [1.0], "ra": [1.0], "DEC": [1.0]}, KeyError),
        ({"RA": [1.0]}, KeyError),
    ],
)
def test_catalogues_without_positions_are_refused(columns, error, programs, tmp_path):
    paths, _ = programs(1)
    reference = tmp_path / "stars.ecsv"
    Table(columns).write(reference)
    with pytest.raises(error):
        _oracle(paths[:1], tmp_path, abs_refcat=str(reference))
    with pytest.raises(InputError, match="RA"):
        _own(paths[:1], tmp_path, abs_refcat=str(reference))


def test_an_unknown_catalogue_is_refused(programs, tmp_path):
    paths, _ = programs(1)
    with pytest.raises(ValueError, match="abs_refcat"):
        _oracle(paths[:1], tmp_path, abs_refcat="GAIADR9")
    with pytest.raises(ParameterError, match="GAIADR3"):
        _own(paths[:1], tmp_path, abs_refcat="GAIADR9")
    with pytest.raises(ParameterError, match="catalog_format"):
        _own(paths[:1], tmp_path, save_catalogs=True, catalog_format="csv")


@contextlib.contextmanager
def _server(text):
    """A catalogue server on this machine; yields its address and the queries it got."""
    queries = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            queries.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", queries
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _numbers(query):
    path, _, rest = query.partition("?")
    parts = dict(part.split("=") for part in rest.split("&"))
    words = {key: value for key, value in parts.items() if key not in ("RA", "DEC", "SR", "EPOCH")}
    return path, words, [float(parts[key]) for key in ("RA", "DEC", "SR", "EPOCH")]


@pytest.mark.parametrize("empty", [False, True])
def test_the_server_is_asked_as_the_oracle_asks_it(empty, programs, tmp_path, monkeypatch):
    paths, program = programs(1)
    paths = _two(paths)
    table = _stars(program, str.lower)
    rng = np.random.default_rng(1)
    table["mag"], table["objID"], table["epoch"] = rng.uniform(15, 20, len(table)), np.arange(len(table)), 2023.5
    lines = ["# a comment", "ra,dec,mag,objID,epoch,pmra,pmdec"]
    for k, row in enumerate(table):
        proper_motion = "," if k % 10 == 0 else f"{rng.normal():.3f},{rng.normal():.3f}"
        lines.append(
            f"{row['ra']!r},{row['dec']!r},{row['mag']:.4f},{k},2023.5,{proper_motion}".replace("np.float64", "")
        )
    text = "No data records found" if empty else "\n".join(lines).replace("(", "").replace(")", "") + "\n"
    how = {**NEAR, **ABSOLUTE, "abs_refcat": "gaiadr3", "save_abs_catalog": True}
    with _server(text) as (address, queries):
        monkeypatch.setattr("stcal.tweakreg.astrometric_utils.SERVICELOCATION", address)
        monkeypatch.setenv(reference_catalog.SERVER_VARIABLE, address)
        (tmp_path / "oracle").mkdir()
        models = _oracle(paths, tmp_path / "oracle", **how)
        members, reason, _ = _own(paths, tmp_path / "own", **how)
    (path, words, numbers), (own_path, own_words, own_numbers) = map(_numbers, queries)
    assert (own_path, own_words) == (path, words)
    # The centre and radius of the search come from footprints that agree to 1e-12 degree.
    np.testing.assert_allclose(own_numbers, numbers, rtol=0, atol=1e-9)
    _assert_same(models, members, reason)
    assert (reason is None) != empty
    if not empty:
        written = [Table.read(tmp_path / who / "fit_gaiadr3_ref.ecsv") for who in ("oracle", "own")]
        assert len(written[0]) == len(written[1]) < len(table)
        for column in ("RA", "DEC", "mag", "objID", "epoch"):
            np.testing.assert_array_equal(written[1][column], written[0][column])


def test_a_server_out_of_reach_stops_the_step_as_it_stops_the_oracle(programs, tmp_path, monkeypatch):
    import requests

    paths, _ = programs(1)
    address = "http://127.0.0.1:9"  # nobody listens on the discard port
    monkeypatch.setattr("stcal.tweakreg.astrometric_utils.SERVICELOCATION", address)
    monkeypatch.setenv(reference_catalog.SERVER_VARIABLE, address)
    with pytest.raises(requests.exceptions.ConnectionError):
        _oracle(paths[:1], tmp_path, abs_refcat="GAIADR3")
    with pytest.raises(JwstdaskError, match=f"GAIADR3.*{address}.*abs_refcat"):
        _own(paths[:1], tmp_path, abs_refcat="GAIADR3")


@pytest.mark.parametrize("text", ["<html>busy</html>", "a,b\n1,2\n"])
def test_an_answer_that_is_no_catalogue_is_an_error(text, monkeypatch):
    with _server(text) as (address, _):
        monkeypatch.setenv(reference_catalog.SERVER_VARIABLE, address)
        with pytest.raises(JwstdaskError, match="something else than stars"):
            reference_catalog.fetch("GAIADR3", 10.0, 20.0, 0.1, 2023.5)


def test_custom_catalogues(programs, tmp_path):
    paths, _ = programs(2)
    own, _, _ = _own(paths, tmp_path / "first", **NEAR, save_catalogs=True)
    lines = ["# exposure catalogue", ""]
    for k, (path, member) in enumerate(zip(paths, own)):
        table = Table.read(tmp_path / "first" / member.meta["meta.tweakreg_catalog"])
        table = table[k % 3 :: 2]
        table["x"] += 0.25
        if k == 1:
            table.rename_columns(("x", "y"), ("xcentroid", "ycentroid"))
        elif k == 2:
            table.rename_columns(("x", "y"), ("x_centroid", "y_centroid"))
        name = f"stars{k}.{'fits' if k % 2 else 'ecsv'}"
        table.write(tmp_path / name)
        # The fourth has no catalogue: its stars are found in the image.
        lines.append(f"{path.name} {name}" if k != 3 else path.name)
    catfile = tmp_path / "list.txt"
    catfile.write_text("\n".join(lines))
    how = {**NEAR, "minobj": 4, "use_custom_catalogs": True, "catfile": str(catfile), "enforce_user_order": True}
    models = _oracle(paths, tmp_path, **how)
    members, reason, _ = _own(paths, tmp_path, **how)
    _assert_same(models, members, reason)
    assert members[0].meta["meta.tweakreg_catalog"] == str(tmp_path / "stars0.ecsv")
    assert any(_moved(members))


def test_a_catalogue_named_by_the_exposure_is_used(programs, tmp_path):
    paths, _ = programs(1)
    Table({"x": [10.0, 500.0], "y": [20.0, 30.0]}).write(tmp_path / "stars.ecsv")
    members, tools = [Exposure(path) for path in paths[:1]], Tools(tmp_path)
    members[0].meta["meta.tweakreg_catalog"] = str(tmp_path / "stars.ecsv")
    step = TweakRegStep(use_custom_catalogs=True, save_catalogs=True)
    assert step.run(members, {}, tools) is not None
    assert any(message.endswith(": 1 stars") for message in tools.messages)  # the other is outside of the image
    # A catalogue of the user is not written again.
    assert members[0].meta["meta.tweakreg_catalog"] == str(tmp_path / "stars.ecsv")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("exposure a b\n", "line 1 has 3 columns"),
        ("{name} absent.ecsv\n", "absent.ecsv"),
        ("{name} bad.ecsv\n", "column y"),
    ],
)
def test_bad_lists_and_catalogues_are_named(content, words, programs, tmp_path):
    paths, _ = programs(1)
    Table({"x": [1.0]}).write(tmp_path / "bad.ecsv")
    (tmp_path / "list.txt").write_text(content.format(name=paths[0].name))
    with pytest.raises(InputError, match=words):
        _own(paths[:2], tmp_path, use_custom_catalogs=True, catfile=str(tmp_path / "list.txt"))
    with pytest.raises(InputError, match="cannot be read"):
        _own(paths[:2], tmp_path, use_custom_catalogs=True, catfile=str(tmp_path / "nothing.txt"))


def test_an_empty_list_of_catalogues_is_no_list(programs, tmp_path):
    paths, _ = programs(1)
    (tmp_path / "list.txt").write_text("# nothing\n")
    how = {**NEAR, "use_custom_catalogs": True, "catfile": str(tmp_path / "list.txt")}
    models = _oracle(paths[:2], tmp_path, **how)
    members, reason, tools = _own(paths[:2], tmp_path, **how)
    _assert_same(models, members, reason)
    assert any("lists no catalogues" in message for message in tools.messages)


def test_each_image_is_read_once(programs, tmp_path, monkeypatch):
    paths, _ = programs(1)
    read, names = Exposure.read, []

    def counted(self, name, *where):
        names.append((self.name, name))
        return read(self, name, *where)

    monkeypatch.setattr(Exposure, "read", counted)
    _own(paths, tmp_path, **NEAR)
    assert sorted(names) == sorted((path.name, name) for path in paths for name in ("sci", "dq"))


def test_images_without_valid_pixels_have_no_stars(programs, tmp_path, monkeypatch):
    paths, _ = programs(1)
    for path in paths[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
        with datamodels.open(tmp_path / path.name) as model:
            model.data[...] = np.nan
            model.dq[...] = 1
            model.save(tmp_path / path.name)
    empty = sorted(tmp_path.glob("*_cal.fits"))
    models = _oracle(empty, tmp_path)
    members, reason, tools = _own(empty, tmp_path)
    _assert_same(models, members, reason)
    assert "too few exposures have stars" in reason
    assert any("no background" in message for message in tools.messages)


def test_missing_angles_and_cubes_are_named(programs, tmp_path, monkeypatch):
    paths, _ = programs(1)
    members = [Exposure(path) for path in paths[:2]]
    members[1].meta["meta.wcsinfo.roll_ref"] = None
    with pytest.raises(StepError, match="ROLL_REF is missing"):
        TweakRegStep().run(members, {}, Tools(tmp_path))
    members[0].shape = (2, 320, 320)
    with pytest.raises(StepError, match="an image is needed"):
        TweakRegStep().run(members, {}, Tools(tmp_path))


def test_parameters_are_the_oracles():
    expected = OracleStep().get_pars()
    found = {name: default for name, (_, _, default) in declared(TweakRegStep).items()}
    assert found.keys() == expected.keys()
    # Options are text in the oracle's specification.
    expected["connectivity"] = int(expected["connectivity"])
    names = [name for name in expected if name not in ("pre_hooks", "post_hooks", "input_dir")]
    assert {name: found[name] for name in names} == {name: expected[name] for name in names}


def test_folder_of_catalogues_is_that_of_the_products(programs, tmp_path):
    paths, _ = programs(1)
    _own(paths[:1], tmp_path, save_catalogs=True)
    assert os.listdir(tmp_path) == [paths[0].name.replace(".fits", "_cat.ecsv")]
