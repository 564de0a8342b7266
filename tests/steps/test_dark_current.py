import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.core.block import Window
from jwstdask.core.errors import ReferenceFileError
from jwstdask.steps.detector.dark_current import DarkCurrentStep
from tests.steps.fakes import TILES, FakeReference, Ramp, assert_same, metadata, oracle_ramp, walk

SHAPE = (40, 48)


def exposure(integrations=1, groups=5):
    rng = np.random.default_rng(5)
    ramp = Ramp.of(rng.normal(1000, 30, (integrations, groups, *SHAPE)).astype(np.float32))
    ramp.pixeldq[4, 5] = dq.HOT
    return ramp


def reference(planes, nframes=1, groupgap=0, integrations=None, kind="<f4"):
    rng = np.random.default_rng(planes)
    shape = (planes, *SHAPE) if integrations is None else (integrations, planes, *SHAPE)
    values = rng.normal(2, 5, shape).astype(kind)
    values[rng.random(shape) < 0.02] = np.nan
    flags = rng.choice([0, dq.UNRELIABLE_DARK, dq.HOT], SHAPE if integrations is None else (integrations, 1, *SHAPE))
    meta = {"meta.exposure.nframes": nframes, "meta.exposure.groupgap": groupgap, "meta.exposure.ngroups": planes}
    return FakeReference({"sci": values}, flags.astype(np.uint32), meta)


def oracle(ramp, meta, ref):
    from jwst.dark_current.dark_current_step import dark_output_data_2_ramp_model
    from stcal.dark_current.dark_sub import do_correction
    from stdatamodels.jwst.datamodels import DarkMIRIModel, DarkModel

    values = ref.arrays["sci"].astype(np.float32)
    dark = (DarkModel if values.ndim == 3 else DarkMIRIModel)(data=values, dq=ref.dq.copy())
    for name, value in ref.meta.items():
        dark[name] = value
    model = oracle_ramp(ramp, meta)
    return dark_output_data_2_ramp_model(do_correction(model, dark)[0], model)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(
    ("nframes", "groupgap", "planes", "integrations"),
    [
        (1, 0, 8, 1),  # as sampled
        (1, 0, 3, 2),  # extrapolated by two groups
        (4, 0, 20, 1),  # averaged
        (8, 2, 60, 2),  # averaged with gaps
        (4, 1, 12, 1),  # averaged and extrapolated
        (1, 2, 30, 1),  # gaps only
        (1, 3, 7, 1),  # gaps only, extrapolated
    ],
)
def test_same_bits_as_the_oracle(tile, nframes, groupgap, planes, integrations):
    ramp, ref = exposure(integrations), reference(planes)
    meta = metadata(SHAPE, exposure__nframes=nframes, exposure__groupgap=groupgap, exposure__ngroups=5)
    assert_same(walk(DarkCurrentStep(), meta, {"dark": ref}, ramp, tile), oracle(ramp, meta, ref))


@pytest.mark.parametrize("kind", ["<f4", ">f4"])
def test_dark_sampled_like_the_exposure(kind):
    ramp, ref = exposure(), reference(6, nframes=4, groupgap=1, kind=kind)
    meta = metadata(SHAPE, exposure__nframes=4, exposure__groupgap=1, exposure__ngroups=5)
    assert_same(walk(DarkCurrentStep(), meta, {"dark": ref}, ramp), oracle(ramp, meta, ref))


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_dark_with_gaps_of_its_own_runs_out_like_the_oracle():
    ramp, ref = exposure(), reference(9, nframes=2, groupgap=1)
    meta = metadata(SHAPE, exposure__nframes=4, exposure__groupgap=1, exposure__ngroups=5)
    result = walk(DarkCurrentStep(), meta, {"dark": ref}, ramp)
    assert_same(result, oracle(ramp, meta, ref))
    assert np.isnan(result.sci[0, -1]).all()


@pytest.mark.parametrize("start", [None, 1, 4])
@pytest.mark.parametrize("integrations", [1, 2, 3])
@pytest.mark.parametrize(("planes", "nframes"), [(8, 1), (3, 1), (20, 4)])
def test_miri_dark_for_each_integration(start, integrations, planes, nframes):
    ramp, ref = exposure(integrations), reference(planes, integrations=2)
    more = {"exposure__integration_start": start, "exposure__nframes": nframes}
    meta = metadata(SHAPE, instrument__name="MIRI", exposure__ngroups=5, **more)
    own = walk(DarkCurrentStep(), meta, {"dark": ref}, ramp, (9, 11))
    assert_same(own, oracle(ramp, meta, ref))
    # A later segment of one integration gets no averaged dark from jwst.
    sane = walk(DarkCurrentStep(as_jwst=False), meta, {"dark": ref}, ramp, (9, 11))
    lost = (start, integrations, nframes) == (4, 1, 4)
    assert np.array_equal(own.sci, ramp.sci) == lost == (not np.array_equal(own.sci, sane.sci))


@pytest.mark.parametrize(("name", "dark", "science"), [("nframes", (8, 0), (4, 0)), ("groupgap", (1, 3), (4, 1))])
def test_skipped_if_the_dark_is_coarser(name, dark, science):
    ref = reference(40, *dark)
    meta = metadata(SHAPE, exposure__nframes=science[0], exposure__groupgap=science[1], exposure__ngroups=5)
    assert name in DarkCurrentStep().reference_skip_reason(meta, {"dark": ref})
    assert oracle(exposure(), meta, ref).meta.cal_step.dark_sub == "SKIPPED"
    # it counts for the noise
    ramp = exposure()
    block = ramp.block(Window.plain(3, 9, 2, 20))
    DarkCurrentStep(average_dark_current=0.3).left_over(meta, {"dark": ref}).apply(block, None)
    assert block.average_dark_current == 0.3
    np.testing.assert_array_equal(block.sci, ramp.sci[..., 3:9, 2:20])


def test_skipped_without_reference():
    assert "DARK" in DarkCurrentStep().reference_skip_reason({}, {"dark": None})
    assert DarkCurrentStep().left_over({}, {"dark": None}) is None


def test_dark_of_another_shape_is_refused():
    meta = metadata((32, 32), exposure__ngroups=5)
    with pytest.raises(ReferenceFileError, match="40 x 48"):
        DarkCurrentStep().prepare(meta, {"dark": reference(8)})


@pytest.mark.parametrize(
    ("parameter", "image", "number", "expected"),
    [
        (0.5, 1.0, 2.0, 0.5),
        (None, 1.0, 2.0, 0.0),
        (None, 0.0, 2.0, 2.0),
        (None, None, 2.0, 2.0),
        (None, None, None, 0.0),
    ],
)
def test_mean_dark_current_for_the_noise(parameter, image, number, expected):
    """Parameter before number; an image in the reference is not used but hides the number, as in the oracle."""
    from jwst.dark_current import DarkCurrentStep as Oracle
    from stdatamodels.jwst.datamodels import DarkModel

    ref = reference(8)
    dark = DarkModel(data=ref.arrays["sci"])
    ref.meta["meta.exposure.average_dark_current"] = number
    if number is not None:
        dark.meta.exposure.average_dark_current = number
    if image is not None:
        ref.arrays["avdrkcur"] = np.full(SHAPE, image, np.float32)
        dark.average_dark_current = np.full(SHAPE, image, np.float32)
    meta = metadata(SHAPE, exposure__ngroups=5)
    step = DarkCurrentStep(average_dark_current=parameter)
    block = exposure().block(Window.plain(3, 9, 2, 20))
    step.apply(block, step.prepare(meta, {"dark": ref}))
    model = oracle_ramp(exposure(), meta)
    Oracle(average_dark_current=parameter).set_average_dark_current(model, dark)
    found = model.average_dark_current
    np.testing.assert_array_equal(np.float32(block.average_dark_current), 0 if found is None else np.unique(found)[0])
    assert block.average_dark_current == expected


@pytest.mark.parametrize(
    ("nframes", "groupgap", "planes", "integrations"),
    [(1, 0, 8, None), (1, 0, 3, None), (4, 0, 20, None), (4, 1, 12, None), (1, 0, 7, 2), (4, 0, 20, 2), (4, 0, 20, 1)],
)
def test_the_dark_is_saved_as_the_oracle_saves_it(tmp_path, nframes, groupgap, planes, integrations):
    from astropy.io import fits
    from jwst.dark_current.dark_current_step import save_dark_data_as_dark_model
    from stcal.dark_current.dark_sub import do_correction
    from stdatamodels.jwst.datamodels import DarkMIRIModel, DarkModel

    ramp, ref = exposure(1), reference(planes, integrations=integrations)
    meta = metadata(
        SHAPE, exposure__nframes=nframes, exposure__groupgap=groupgap, exposure__ngroups=5, exposure__nints=1
    )
    step = DarkCurrentStep(dark_output="some/where/d.fits").with_side_products(
        lambda suffix, base: str(tmp_path / "own" / base.rpartition("/")[2]) if suffix is None else None
    )
    step.finish(meta, step.prepare(meta, {"dark": ref}), {})
    dark = (DarkModel if integrations is None else DarkMIRIModel)(data=ref.arrays["sci"].copy(), dq=ref.dq.copy())
    for name, value in ref.meta.items():
        dark[name] = value
    found = do_correction(oracle_ramp(ramp, meta), dark, str(tmp_path / "theirs.fits"))[1]
    save_dark_data_as_dark_model(found, dark, "NIRCAM" if integrations is None else "MIRI")
    with fits.open(tmp_path / "own" / "d.fits") as own, fits.open(tmp_path / "theirs.fits") as theirs:
        for name in ("SCI", "DQ"):
            np.testing.assert_array_equal(own[name].data, theirs[name].data)
            assert own[name].data.dtype == theirs[name].data.dtype
        for keyword in ("NGROUPS", "NFRAMES", "GROUPGAP", "DATAMODL"):
            assert own[0].header.get(keyword) == theirs[0].header.get(keyword)
        assert own["SCI"].data.any()
