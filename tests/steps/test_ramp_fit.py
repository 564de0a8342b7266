"""RampFitStep against jwst's, whole and in tiles."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.core.block import Window, tiles
from jwstdask.core.errors import StepError
from jwstdask.engine.exposure import data_model
from jwstdask.steps.detector.ramp_fit import RampFitStep
from tests.kernels.test_ramp_fit import exposure
from tests.steps.fakes import TILES, FakeReference, Ramp, metadata, oracle_ramp

SHAPE = (32, 40)


def setting(seed, integrations, groups, zero=False, shape=SHAPE, **more):
    """An exposure, its metadata and its references."""
    sci, groupdq, pixeldq, gain, readnoise, zeroframe = exposure(seed, integrations, groups, shape)
    ramp = Ramp(sci, groupdq, pixeldq, zeroframe if zero else None)
    values = {
        "exposure__ngroups": groups,
        "exposure__nints": integrations,
        "exposure__group_time": 10.73677,
        "exposure__frame_time": 10.73677,
        "exposure__type": "NRC_IMAGE",
    }
    references = {"gain": FakeReference({"sci": gain}), "readnoise": FakeReference({"sci": readnoise})}
    return ramp, metadata(shape, **(values | more)), references


def fit(step, meta, references, ramp, tile=(10**6, 10**6), dark=None, gathered=None):
    """Products of the frame, its tally, and what was prepared."""
    step.check(meta)
    prepared = step.prepare(meta, references)
    shape = ramp.sci.shape[-2:]
    products: dict[str, dict[str, np.ndarray]] = {}
    tally: dict[str, float] = {}
    for window in tiles((0, shape[0]), shape, tile, 2):
        block = ramp.block(window)
        if dark is not None:
            block.average_dark_current = dark if np.ndim(dark) == 0 else dark[window.rows, window.columns]
        step.apply(block, prepared, gathered)
        for kind, product in block.products.items():
            for name, array in product.arrays().items():
                frame = products.setdefault(kind, {}).setdefault(
                    name, np.zeros((*array.shape[:-2], *shape), array.dtype)
                )
                frame[(..., *window.inner_absolute)] = array[(..., *window.inner)]
        for name, value in block.tally.items():
            tally[name] = tally.get(name, 0.0) + value
    return products, tally, prepared


def oracle(step, meta, references, ramp, dark=None):
    """The two models of jwst's step."""
    from jwst.ramp_fitting import RampFitStep as Oracle
    from stdatamodels.jwst.datamodels import GainModel, ReadnoiseModel

    model = oracle_ramp(ramp, meta)
    if dark is not None:
        model.average_dark_current = np.zeros(ramp.pixeldq.shape, np.float32) + np.float32(dark)
    gain = GainModel(data=references["gain"].arrays["sci"].copy())
    readnoise = ReadnoiseModel(data=references["readnoise"].arrays["sci"].copy())
    for reference in (gain, readnoise):
        for name in ("xstart", "ystart", "xsize", "ysize", "fastaxis", "slowaxis"):
            reference[f"meta.subarray.{name}"] = meta[f"meta.subarray.{name}"]
    gain.meta.exposure.gain_factor = references["gain"].meta.get("meta.exposure.gain_factor")
    theirs = Oracle()
    for name in ("algorithm", "suppress_one_group", "firstgroup", "lastgroup"):
        setattr(theirs, name, getattr(step, name))
    theirs.override_gain, theirs.override_readnoise = gain, readnoise
    with np.errstate(all="ignore"):
        return theirs.process(model)


def assert_same(products, models):
    """Identical bits; see tests/kernels/test_ramp_fit.py."""
    for kind, model in zip(("rate", "rateints"), models):
        names = {"sci": "data", "err": "err", "dq": "dq", "var_poisson": "var_poisson", "var_rnoise": "var_rnoise"}
        assert set(products[kind]) == set(names)
        for name, theirs in names.items():
            np.testing.assert_array_equal(products[kind][name], getattr(model, theirs), err_msg=f"{kind} {name}")


def assert_equal(products, others):
    for kind, arrays in others.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(products[kind][name], array, err_msg=f"{kind} {name}")


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(
    ("seed", "integrations", "groups", "nframes", "zero", "suppress", "dark"),
    [
        (0, 1, 10, 1, True, True, None),
        (1, 3, 5, 4, True, False, 0.03),
        (2, 2, 1, 1, True, True, None),
        (3, 2, 2, 8, False, True, "image"),
    ],
)
def test_same_bits_as_the_oracle_in_any_tiles(tile, seed, integrations, groups, nframes, zero, suppress, dark):
    ramp, meta, references = setting(seed, integrations, groups, zero, exposure__nframes=nframes)
    if dark == "image":
        dark = np.random.default_rng(seed).uniform(0, 0.2, SHAPE).astype(np.float32)
    step = RampFitStep(suppress_one_group=suppress)
    products, _, _ = fit(step, meta, references, ramp, tile, dark)
    models = oracle(step, meta, references, ramp, dark)
    assert_same(products, models)
    assert np.isfinite(products["rate"]["sci"]).sum() > 100


@pytest.mark.parametrize(
    ("firstgroup", "lastgroup"), [(2, None), (None, 4), (1, 5), (3, 3), (5, 2), (-4, 3), (0, 99), (2, -1), (3, 99)]
)
def test_first_and_last_group_as_in_the_oracle(firstgroup, lastgroup):
    ramp, meta, references = setting(4, 2, 7)
    step = RampFitStep(firstgroup=firstgroup, lastgroup=lastgroup)
    products, _, _ = fit(step, meta, references, ramp)
    assert_same(products, oracle(step, meta, references, ramp))


@pytest.mark.parametrize(
    ("firstgroup", "lastgroup", "says"),
    [
        (5, 2, "both are ignored"),
        (7, None, "both are ignored"),
        (None, -1, "both are ignored"),
        (7, 99, "none is left to be fitted"),
        (-4, 3, "what lies beyond the ramp is ignored"),
        (0, 99, "what lies beyond the ramp is ignored"),
        (1, 5, ""),
        (None, None, ""),
    ],
)
def test_groups_that_do_not_select_are_told(caplog, firstgroup, lastgroup, says):
    _, meta, references = setting(4, 1, 7)
    RampFitStep(firstgroup=firstgroup, lastgroup=lastgroup).prepare(meta, references)
    assert says in caplog.text and bool(caplog.text) == bool(says)


def miri(seed, leading, trailing, groups=9, tile_shape=SHAPE, **more):
    """A MIRI exposure whose first and last groups are unusable in all pixels."""
    ramp, meta, references = setting(
        seed, 2, groups, shape=tile_shape, instrument__name="MIRI", instrument__detector="MIRIMAGE", **more
    )
    ramp.groupdq[:, :leading] |= dq.DO_NOT_USE
    if trailing:
        ramp.groupdq[:, -1] |= dq.DO_NOT_USE
    return ramp, meta, references


def assert_within_rounding(products, models):
    """Flags and NaN identical; values to one unit of the last place of float32.

    Blocks count groups from the first of the exposure, the oracle from the first in use: other roundings of the float64
    sums, which now and then reach the last bit of the float32 results.
    """
    for kind, model in zip(("rate", "rateints"), models):
        mine = products[kind]
        np.testing.assert_array_equal(mine["dq"], model.dq)
        for name, theirs in (("err", model.err), ("var_poisson", model.var_poisson), ("var_rnoise", model.var_rnoise)):
            np.testing.assert_array_equal(mine[name], theirs)
        np.testing.assert_array_equal(np.isnan(mine["sci"]), np.isnan(model.data))
        good = np.isfinite(model.data)
        np.testing.assert_array_max_ulp(mine["sci"][good], model.data[good], maxulp=1)


@pytest.mark.parametrize("tile", [(10**6, 10**6), (16, 24)])
@pytest.mark.parametrize(("leading", "trailing"), [(0, 1), (2, 1), (3, 0)])
def test_miri_leaves_out_unusable_groups_as_the_oracle(tile, leading, trailing):
    ramp, meta, references = miri(leading, leading, trailing)
    step = RampFitStep()
    products, tally, prepared = fit(step, meta, references, ramp, tile)
    assert step._unused_in_frame(tally, 9) == (leading, trailing)
    assert step.again(meta, prepared, None, tally) is None
    assert_within_rounding(products, oracle(step, meta, references, ramp))


@pytest.mark.parametrize("seed", range(3))
def test_miri_blocks_that_the_frame_contradicts_are_walked_again(seed):
    """One pixel with good first groups: nothing may be left out anywhere, which other blocks cannot know."""
    ramp, meta, references = miri(seed, 2, 1)
    ramp.groupdq[0, :, 30, 37] = 0
    step = RampFitStep()
    models = oracle(step, meta, references, ramp)
    products, tally, prepared = fit(step, meta, references, ramp, (8, 10))
    # The random flags include ramps that depend on it.
    again = step.again(meta, prepared, None, tally)
    assert again == (0, 0)
    assert any((products[kind]["dq"] != model.dq).any() for kind, model in zip(("rate", "rateints"), models))
    products, tally, prepared = fit(step, meta, references, ramp, (8, 10), gathered=again)
    assert step.again(meta, prepared, again, tally) is None
    assert_same(products, models)


def test_miri_blocks_without_dependent_ramps_are_not_walked_again():
    ramp, meta, references = miri(0, 2, 1)
    ramp.groupdq[:] &= dq.DO_NOT_USE
    ramp.groupdq[:, 2:8] = 0
    ramp.groupdq[0, :, 30, 37] = 0
    step = RampFitStep()
    products, tally, prepared = fit(step, meta, references, ramp, (8, 10))
    assert step.again(meta, prepared, None, tally) is None
    whole, _, _ = fit(step, meta, references, ramp)
    assert_equal(products, whole)
    assert_within_rounding(products, oracle(step, meta, references, ramp))


@pytest.mark.parametrize("miri_groups", [0, 2])
def test_the_tally_counts_the_inner_part_only(miri_groups):
    ramp, meta, references = miri(1, miri_groups, 1)
    _, expected, _ = fit(RampFitStep(), meta, references, ramp)
    for tile in TILES[1:]:
        _, tally, _ = fit(RampFitStep(), meta, references, ramp, tile)
        if miri_groups:
            assert tally == expected
        assert tally["ramp_fit.pixels"] == SHAPE[0] * SHAPE[1]
        assert tally["ramp_fit.start_usable"] == expected["ramp_fit.start_usable"]


@pytest.mark.parametrize("tile", TILES)
def test_segments_do_not_depend_on_tiles(tile):
    from jwstdask.kernels.ramp_segments import fit_segments

    ramp, meta, references = setting(5, 2, 8, True, exposure__groupgap=1, exposure__nframes=4)
    step = RampFitStep(save_opt=True)
    products, _, _ = fit(step, meta, references, ramp, tile)
    expected = fit_segments(
        ramp.sci, ramp.groupdq, ramp.pixeldq, references["gain"].arrays["sci"], references["readnoise"].arrays["sci"],
        group_time=10.73677, frame_time=10.73677, nframes=4, groupgap=1, zeroframe=ramp.zeroframe,
    )  # fmt: skip
    for name, array in expected._asdict().items():
        mine = products["fitopt"][name]
        if array.ndim == 4:
            assert mine.shape[1] == (7 if name == "crmag" else 4)
            np.testing.assert_array_equal(mine[:, array.shape[1] :], 0)
            mine = mine[:, : array.shape[1]]
        np.testing.assert_array_equal(mine, array, err_msg=name)


def test_the_tally_tells_how_long_the_segments_product_must_be():
    ramp, meta, references = setting(5, 2, 8)
    _, tally, _ = fit(RampFitStep(save_opt=True), meta, references, ramp, (16, 20))
    counts = [name.split(".")[2:] for name in tally if name.startswith("ramp_fit.segments.")]
    from jwstdask.kernels.ramp_segments import fit_segments

    expected = fit_segments(
        ramp.sci, ramp.groupdq, ramp.pixeldq, references["gain"].arrays["sci"], references["readnoise"].arrays["sci"],
        group_time=10.73677, frame_time=10.73677, nframes=1,
    )  # fmt: skip
    assert max(int(segments) for segments, _ in counts) == expected.slope.shape[1]
    assert max(int(jumps) for _, jumps in counts) == expected.crmag.shape[1]


def test_metadata_as_the_oracle():
    ramp, meta, references = setting(6, 1, 4)
    references["gain"] = FakeReference(references["gain"].arrays, meta={"meta.exposure.gain_factor": 2.0})
    step = RampFitStep()
    _, tally, prepared = fit(step, meta, references, ramp)
    updates = step.finish(meta, prepared, tally)
    assert len(updates) == 3
    for model in oracle(step, meta, references, ramp):
        for name, value in updates.items():
            assert model[name] == value
        assert model.meta.cal_step.ramp_fit == "COMPLETE"


@pytest.mark.parametrize(
    ("exp_type", "lamp_mode"),
    [
        ("NRS_LAMP", "IFU"),
        ("NRS_AUTOWAVE", "IFU"),
        ("NRS_LAMP", "MSASPEC"),
        ("NRS_MSASPEC", "IFU"),
        ("NRS_IFU", None),
        ("MIR_MRS", None),
    ],
)
def test_models_of_the_oracle(exp_type, lamp_mode):
    ramp, meta, references = setting(6, 2, 4)
    meta = {**meta, "meta.exposure.type": exp_type, "meta.instrument.lamp_mode": lamp_mode}
    products, _, _ = fit(RampFitStep(), meta, references, ramp)
    for kind, model in zip(("rate", "rateints"), oracle(RampFitStep(), meta, references, ramp)):
        shapes = {name: array.shape for name, array in products[kind].items()}
        assert data_model(kind, shapes, meta) == type(model).__name__


def test_gain_factor_is_left_alone_if_the_reference_has_none():
    ramp, meta, references = setting(6, 1, 4)
    _, tally, prepared = fit(RampFitStep(), meta, references, ramp)
    assert set(RampFitStep().finish(meta, prepared, tally)) == {"meta.bunit_data", "meta.bunit_err"}


def test_an_exposure_saturated_from_the_start_is_refused():
    ramp, meta, references = setting(7, 2, 4)
    ramp.groupdq[:, 0] |= dq.SATURATED
    step = RampFitStep()
    assert oracle(step, meta, references, ramp) == (None, None)
    _, tally, prepared = fit(step, meta, references, ramp, (16, 24))
    with pytest.raises(StepError, match="first group is saturated"):
        step.finish(meta | {"meta.filename": "jw1_uncal.fits"}, prepared, tally)
    # One usable pixel is enough; so is a part of the frame.
    ramp.groupdq[1, 0, 3, 4] = 0
    _, tally, prepared = fit(step, meta, references, ramp, (16, 24))
    assert step.finish(meta, prepared, tally)
    assert step.finish(meta, prepared, {"ramp_fit.pixels": 5.0})


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(("groups", "leading", "trailing"), [(4, 4, 1), (4, 2, 1), (4, 3, 0), (2, 0, 1)])
def test_a_miri_exposure_without_two_usable_groups_is_refused(groups, leading, trailing, held):
    """Whether blocks are walked alone or the flags of the whole frame are known, as after the search for showers."""
    ramp, meta, references = miri(8, leading, trailing, groups)
    step = RampFitStep()
    assert oracle(step, meta, references, ramp) == (None, None)
    gathered = step.of_frame(meta, step.prepare(meta, references), ramp.groupdq) if held else None
    _, tally, prepared = fit(step, meta, references, ramp, (16, 24), gathered=gathered)
    assert step.again(meta, prepared, gathered, tally) is None
    with pytest.raises(StepError, match="MIRI ramps need two others"):
        step.finish(meta, prepared, tally)


UNEVEN = [[1.0], [2.0, 3.0], [5.0, 6.0, 7.0], [9.0], [12.0], [13.0, 14.0]]


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(
    ("seed", "algorithm", "groups", "nframes", "zero", "read_times"),
    [
        (0, "LIKELY", 6, 4, False, None),
        (1, "LIKELY", 4, 4, True, None),
        (2, "OLS_C", 6, 1, False, UNEVEN),
        (3, "LIKELY", 3, 1, False, None),
        (4, "OLS_C", 3, 1, False, UNEVEN[:3]),
    ],
)
def test_likelihood_same_bits_as_the_oracle_in_any_tiles(tile, seed, algorithm, groups, nframes, zero, read_times):
    """Unevenly sampled exposures are always fitted by likelihood, ramps of three groups by least squares."""
    ramp, meta, references = setting(seed, 2, groups, zero, exposure__nframes=nframes)
    if read_times is not None:
        meta["meta.exposure.read_times"] = read_times
    step = RampFitStep(algorithm=algorithm, lastgroup=4)
    products, _, prepared = fit(step, meta, references, ramp, tile, 0.1)
    assert (prepared.read_times is None) == (groups < 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert_same(products, oracle(step, meta, references, ramp, 0.1))


def test_likelihood_of_miri_uses_all_groups_and_refuses_nothing():
    ramp, meta, references = miri(0, 2, 1, 8, exposure__type="MIR_IMAGE")
    ramp.groupdq[:, 0] |= dq.SATURATED
    step = RampFitStep(algorithm="LIKELY")
    products, tally, prepared = fit(step, meta, references, ramp)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert_same(products, oracle(step, meta, references, ramp))
    assert step.again(meta, prepared, None, tally) is None
    assert step.finish(meta, prepared, tally)


def test_likelihood_keeps_its_jumps_and_chi_squared():
    from jwstdask.kernels import likelihood

    ramp, meta, references = setting(3, 2, 8)
    step = RampFitStep(algorithm="LIKELY", save_opt=True)
    block = ramp.block(Window.plain(0, *SHAPE[:1], 0, SHAPE[1]))
    step.apply(block, step.prepare(meta, references))
    expected = likelihood.likelihood_fit(
        ramp.sci, ramp.groupdq, ramp.pixeldq, references["gain"].arrays["sci"], references["readnoise"].arrays["sci"],
        likelihood.read_times(8, 1, 0, 10.73677), nframes=1,
    )  # fmt: skip
    assert set(block.products) == {"rate", "rateints", "likely_chisq"}
    np.testing.assert_array_equal(block.products["likely_chisq"].sci, expected.chisq)
    np.testing.assert_array_equal(block.groupdq, expected.groupdq)
    assert (block.groupdq != ramp.groupdq).any()


def test_parameters_are_those_of_the_oracle():
    from jwst.ramp_fitting import RampFitStep as Oracle

    theirs = Oracle()
    own = [item for item in dataclasses.fields(RampFitStep) if item.name in RampFitStep.__annotations__]
    assert {item.name for item in own} == {line.split("=")[0].strip() for line in Oracle.spec.strip().splitlines()}
    for item in own:
        assert item.default == getattr(theirs, item.name)


def test_the_window_of_a_product_is_that_of_the_block():
    ramp, meta, references = setting(0, 1, 4)
    step = RampFitStep()
    block = ramp.block(Window.around(8, 16, 10, 20, 2, SHAPE))
    step.apply(block, step.prepare(meta, references))
    assert set(block.products) == {"rate", "rateints"}
    for product in block.products.values():
        assert product.window == block.window
        assert product.sci.shape[-2:] == block.window.shape
