from __future__ import annotations

import itertools
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spherical_geometry.polygon import SphericalPolygon

from jwstdask.core.errors import ParameterError, StepError
from jwstdask.core.params import declared
from jwstdask.io.exposure import Exposure
from jwstdask.kernels.skymatch import SkyStatistic, convex_overlap, fill_polygon, good_pixels, select
from jwstdask.steps.combine.skymatch import SkyMatchStep, read_skylist, solve
from tests.steps.dithered import CENTRE, PIXEL, Tools, distorted_wcs

SHAPE = (90, 110)
# Offset [pixel] along right ascension and declination, roll [degree], exposure number.
CHAIN = [(0, 0, 40, 1), (30, 10, 40, 2), (60, -15, 41, 3), (85, 20, 39, 4)]
DETECTORS = [(0, 0, 0, 1), (125, 0, 0, 1), (20, 15, 0, 2), (145, 15, 0, 2), (-15, 30, 90, 3), (110, 30, 90, 3)]
ISLANDS = [(0, 0, 40, 1), (25, 0, 40, 2), (900, 0, 40, 3), (930, 10, 40, 4), (5000, 0, 40, 5)]
SAME = [(0, 0, 40, 1), (0, 0, 40, 2), (0, 0, 40, 3)]
SCENES = {"chain": CHAIN, "detectors": DETECTORS, "islands": ISLANDS, "same place": SAME, "one": CHAIN[:1]}


def make_models(scene, seed=0, empty=(), earlier=None):
    """Images of a sky with a slope, each with its own level; some without any valid pixel."""
    from stdatamodels.jwst.datamodels import ImageModel

    rng = np.random.default_rng(seed)
    models = []
    for index, (dx, dy, roll, exposure) in enumerate(scene):
        pointing = (
            CENTRE[0] + dx * PIXEL / 3600 / np.cos(np.deg2rad(CENTRE[1])),
            CENTRE[1] + dy * PIXEL / 3600,
        )
        _, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
        image = rng.normal(rng.uniform(0.2, 2.0) + 1e-4 * x, 0.03, SHAPE)
        image[rng.random(SHAPE) < 0.02] += 10.0
        dq = np.where(rng.random(SHAPE) < 0.03, 1, 0) | np.where(rng.random(SHAPE) < 0.1, 4, 0)
        dq[:4] |= 512
        image[rng.random(SHAPE) < 0.01] = np.nan
        if index in empty:
            image[:] = np.nan
        model = ImageModel(data=image.astype("f4"), dq=dq.astype("u4"), err=np.ones(SHAPE, "f4"))
        model.meta.wcs = distorted_wcs(pointing, roll, SHAPE)
        model.meta.instrument.name = "NIRCAM"
        model.meta.exposure.type = "NRC_IMAGE"
        model.meta.filename = f"jw01234001001_02101_{exposure:05d}_nrca{index + 1}_cal.fits"
        names = ("program_number", "observation_number", "visit_number", "visit_group", "sequence_id", "activity_id")
        for name, value in zip(names, ("01234", "001", "001", "02", "1", "01")):
            setattr(model.meta.observation, name, value)
        model.meta.observation.exposure_number = f"{exposure:05d}"
        if earlier is not None:
            model.meta.background.subtracted, model.meta.background.level = earlier
        models.append(model)
    return models


@pytest.fixture(scope="module")
def files(module_folder):
    """Paths of the images of a scene; written once."""
    made = {}

    def get(name, **how):
        key = (name, *how.items())
        if key not in made:
            folder = module_folder("cal")
            made[key] = [model.save(folder / model.meta.filename) for model in make_models(SCENES[name], **how)]
        return made[key]

    return get


def oracle(paths, **parameters):
    from jwst.datamodels import ModelLibrary
    from jwst.skymatch import SkyMatchStep as Theirs
    from stdatamodels.jwst import datamodels

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = Theirs(**parameters).process(ModelLibrary([datamodels.open(path) for path in paths]))
    with library:
        models = list(library)
        for index, model in enumerate(models):
            library.shelve(model, index, modify=False)
    return models


def ours(paths, **parameters):
    members = [Exposure(path) for path in paths]
    return members, SkyMatchStep(**parameters).run(members, {}, Tools())


def assert_as_oracle(paths, **parameters):
    theirs = oracle(paths, **parameters)
    members, reason = ours(paths, **parameters)
    for member, model in zip(members, theirs, strict=True):
        assert member.meta["meta.cal_step.skymatch"] == model.meta.cal_step.skymatch
        for name in ("level", "subtracted", "method"):
            assert member.meta.get(f"meta.background.{name}") == getattr(model.meta.background, name), name
        np.testing.assert_array_equal(member.read("sci"), model.data)
    assert (reason is None) == any(model.meta.cal_step.skymatch == "COMPLETE" for model in theirs)
    return members


METHODS = ("local", "global", "match", "global+match")
OPTIONS = [
    {},
    {"match_down": False, "stepsize": 40},
    {"skystat": "median", "nclip": 2},
    {"skystat": "mean", "lower": 0.1, "upper": 8.0, "nclip": 0},
    {"skystat": "midpt", "binwidth": 0.3, "lsigma": 2.0, "usigma": 3.0},
    {"dqbits": "JUMP_DET"},
    {"dqbits": None},
]


@pytest.mark.parametrize("skymethod", METHODS)
@pytest.mark.parametrize("scene", SCENES)
def test_levels_are_the_oracles_bit_for_bit(files, scene, skymethod):
    members = assert_as_oracle(files(scene), skymethod=skymethod)
    levels = [member.meta.get("meta.background.level") for member in members]
    if skymethod == "match" and scene in ("chain", "detectors", "same place"):
        assert min(levels) == 0.0 < max(levels)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option(files, options):
    assert_as_oracle(files("detectors", seed=1), **options)


@pytest.mark.parametrize("skymethod", METHODS)
@pytest.mark.parametrize(("scene", "skystat"), [("chain", "median"), ("detectors", "mode"), ("detectors", "median")])
def test_subtracted_pixels_are_the_oracles(files, scene, skymethod, skystat):
    members = assert_as_oracle(files(scene, seed=2), skymethod=skymethod, subtract=True, skystat=skystat)
    whole, part = members[-1].read("sci"), members[-1].read("sci", slice(5, 9), slice(7, 30))
    np.testing.assert_array_equal(part, whole[5:9, 7:30])


NOTHING = (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("skymethod", "empty"),
    [("local", (0,)), ("match", (0,)), ("match", (1, 2)), ("match", NOTHING), ("global", NOTHING), ("global", (0,))],
)
def test_images_without_valid_pixels(files, empty, skymethod):
    assert_as_oracle(files("chain", seed=3, empty=empty), skymethod=skymethod)


def test_least_level_of_the_images_that_have_one(files):
    # The oracle compares None with a number here.
    with pytest.raises(TypeError):
        oracle(files("chain", seed=3, empty=(1, 2)), skymethod="global")
    members, reason = ours(files("chain", seed=3, empty=(1, 2)), skymethod="global")
    skies = [SkyStatistic()(select(m.read("sci"), good_pixels(m.read("sci"), m.read("dq"), 513)))[0] for m in members]
    assert reason is None
    assert {member.meta["meta.background.level"] for member in members} == {min(skies[0], skies[3])}


class Elsewhere(Tools):
    """Tools whose tasks go to another process and come back."""

    def map(self, function, items):
        return [
            pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(i)))))
            for i in items
        ]


def test_tasks_in_another_process(files):
    members, here = [Exposure(path) for path in files("chain")], ours(files("chain"))[0]
    SkyMatchStep().run(members, {}, Elsewhere())
    levels = [[member.meta["meta.background.level"] for member in group] for group in (members, here)]
    assert levels[0] == levels[1]


def test_levels_of_an_earlier_run_add_up(files):
    assert_as_oracle(files("chain", seed=4, earlier=(True, 0.125)), subtract=True)
    assert_as_oracle(files("chain", seed=4, earlier=(False, 0.125)), subtract=False)


@pytest.mark.parametrize("earlier", [(True, 0.1), (None, 0.1), (False, None)], ids=str)
def test_inconsistent_levels_are_refused(files, earlier):
    paths = files("chain", seed=5, earlier=earlier)
    with pytest.raises(ValueError, match=r"inconsistent|undefined"):
        oracle(paths)
    with pytest.raises(StepError, match=r"jw01234001001_02101_00001_nrca1_cal\.fits"):
        ours(paths)


@pytest.mark.parametrize("subtract", [False, True])
def test_levels_of_a_list(files, tmp_path, subtract):
    paths = files("chain", seed=6)
    skylist = tmp_path / "sky.txt"
    names = [path.rpartition("/")[2] for path in map(str, paths)]
    suffixes = ("", "_crf", "_cal", "_i2d")
    rows = [f"{name.replace('_cal', suffix)} {0.1 * k}" for k, (name, suffix) in enumerate(zip(names, suffixes))]
    skylist.write_text("# names and levels\n" + "\n".join(reversed(rows)) + "\n")
    members = assert_as_oracle(paths, skymethod="user", skylist=str(skylist), subtract=subtract)
    assert [m.meta["meta.background.level"] for m in members] == [float(np.float32(0.1 * k)) for k in range(4)]
    for text, problem in [(rows[:3], "3 levels"), ([*rows[:3], "x 1"], "is not in"), ([rows[0]] * 4, "more than once")]:
        skylist.write_text("\n".join(text))
        with pytest.raises(StepError, match=problem):
            ours(paths, skymethod="user", skylist=str(skylist))
    skylist.write_text("a b c\n")
    with pytest.raises(ParameterError, match="line 1"):
        read_skylist(str(skylist))


def test_user_levels_need_a_list():
    with pytest.raises(ParameterError, match="skylist"):
        SkyMatchStep(skymethod="user").check({})


def test_parameters_and_defaults_are_the_oracles():
    from jwst.skymatch import SkyMatchStep as Theirs

    theirs, found = Theirs().get_pars(), declared(SkyMatchStep)
    assert theirs.keys() == found.keys()
    own = vars(SkyMatchStep)["__annotations__"]
    assert {name: theirs[name] for name in own} == {name: found[name][2] for name in own}


# -- kernels


def square(x, y, angle, size, flip):
    """Outline on the sky, radius of order ``size`` [degree], around a place."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * size / 2 * [-1 if flip else 1, 1]
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = (corners @ np.array([[cos, -sin], [sin, cos]])).T
    return SphericalPolygon.from_radec(150 + (x + u) / np.cos(np.deg2rad(30)), 30 + y + v)


def vertices(polygon):
    (points,) = polygon.points
    return points


PLACE = st.floats(-0.04, 0.04)


@settings(max_examples=200, deadline=None)
@given(PLACE, PLACE, st.floats(0, 6.3), st.floats(0, 6.3), st.floats(0.001, 0.1), st.booleans(), st.booleans())
def test_overlap_is_that_of_spherical_geometry(x, y, turn, other_turn, size, flip, other_flip):
    one, other = square(0, 0, turn, 0.03, flip), square(x, y, other_turn, size, other_flip)
    found = convex_overlap(vertices(one), vertices(other))
    if found is None:
        return
    common = one.intersection(other)
    assert (len(found) == 0) == (common.area() == 0.0)
    if len(found):
        (wanted,) = common.points
        first = np.abs(found[:-1] - wanted[0]).max(axis=1).argmin()
        # Coordinates of unit vectors, each rounded twice: 2 rounding errors of 1.1e-16 (1e-9 pixel), which the other
        # side multiplies where edges cross at a small angle.
        for point, expected in zip(np.roll(found[:-1], -first, axis=0), wanted[:-1], strict=True):
            np.testing.assert_allclose(point, expected, rtol=0, atol=4e-16 / sine_at(expected, one, other))


def sine_at(vertex, *polygons):
    """Of the largest angle between edges that meet there."""
    edges = np.concatenate([np.cross(vertices(p)[:-1], vertices(p)[1:]) for p in polygons])
    edges /= np.linalg.norm(edges, axis=1)[:, None]
    here = edges[np.abs(edges @ vertex) < 1e-10]
    return np.linalg.norm(np.cross(here[:, None], here[None]), axis=-1).max()


def test_overlap_that_doubles_cannot_tell():
    one = square(0, 0, 0.3, 0.03, False)
    points = vertices(one)
    assert convex_overlap(points, points) is None
    dent = points.copy()
    dent[1] = points[:-1].mean(axis=0)
    assert convex_overlap(points, dent / np.linalg.norm(dent, axis=1)[:, None]) is None
    assert convex_overlap(points, -points) is None
    assert len(convex_overlap(points, vertices(square(0.01, 0.01, 0.7, 0.03, True)))) >= 4


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_polygon_is_filled_as_by_gwcs(data):
    from gwcs.region import Polygon

    shape = data.draw(st.tuples(st.integers(3, 40), st.integers(3, 40)))
    place = st.floats(-15, 55, width=32)
    vertices = data.draw(st.lists(st.tuples(place, place), min_size=3, max_size=8))
    x, y = np.array([*vertices, vertices[0]], float).T
    wanted = Polygon(True, list(zip(x, y))).scan(np.zeros(shape, bool))
    assert np.array_equal(fill_polygon(x, y, np.zeros(shape, bool)), wanted)


def test_polygon_of_an_image_is_all_of_it():
    x, y = [-0.5, 29.5, 29.5, -0.5, -0.5], [-0.5, -0.5, 19.5, 19.5, -0.5]
    assert fill_polygon(np.array(x), np.array(y), np.zeros((20, 30), bool)).all()


@pytest.mark.parametrize("skystat", ["mode", "midpt", "median", "mean"])
@pytest.mark.parametrize("seed", range(25))
def test_statistics_are_those_of_imagestats(seed, skystat):
    from stsci.imagestats import ImageStats

    rng = np.random.default_rng(seed)
    for size in (3, 30, 3000):
        values = rng.normal(rng.normal(0, 3), 10 ** rng.uniform(-3, 1), size).astype(np.float32)
        outliers = rng.random(size) < 0.05
        values[outliers] += rng.exponential(10, outliers.sum()).astype(np.float32)
        how = {
            "lower": None if seed % 3 else float(values.min()) + 0.1,
            "upper": None if seed % 4 else float(values.max()) - 0.1,
            "nclip": seed % 6,
            "binwidth": (0.1, 0.05, 1.0)[seed % 3],
        }
        found, count = SkyStatistic(skystat, lsigma=3.0, usigma=4.0, **how)(values)
        try:
            theirs = ImageStats(values, f"npix,{skystat}", lsig=3.0, usig=4.0, **how)
        except ValueError:
            assert (found, count) == (None, 0)
            continue
        wanted = getattr(theirs, skystat)
        if skystat == "midpt" and isinstance(wanted, np.uint32):
            continue  # a number of pixels, not a level
        if np.isnan(wanted):  # one pixel has no deviation
            assert (found, count) == (None, 0)
            continue
        assert (found, count) == (wanted, theirs.npix)
        assert type(found) is type(wanted)  # it decides how a subtraction rounds


def test_statistics_without_values():
    assert SkyStatistic()(np.empty(0, np.float32)) == (None, 0)
    assert SkyStatistic(lower=5.0)(np.ones(9, np.float32)) == (None, 0)
    assert SkyStatistic(lsigma=0.0)(np.ones(9, np.float32)) == (None, 0)
    assert SkyStatistic("midpt")(np.full(9, 2.5, np.float32)) == (2.5, 9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6), st.integers(0, 2**31))
def test_consistent_differences_are_recovered(levels, seed):
    rng = np.random.default_rng(seed)
    pairs = itertools.permutations(range(len(levels)), 2)
    skies = {(i, j): (levels[i], int(rng.integers(1, 1000)), True) for i, j in pairs}
    found = solve(len(levels) + 1, skies)
    # Rounding of levels of order 1 by a well-conditioned solution.
    np.testing.assert_allclose(found[:-1] - found[0], np.array(levels) - levels[0], atol=1e-10)
    assert np.isnan(found[-1])
