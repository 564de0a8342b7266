import warnings

import numpy as np
import pytest

from jwstdask.core.errors import InputError, ReferenceFileError
from jwstdask.steps.detector.emicorr import EmiCorrStep
from tests.steps.fakes import FakeReference, Ramp, assert_same, metadata, oracle_ramp, walk

WAVES = {"Hz390": (390.625, 256), "Hz218a": (218.52055, 228), "Hz10": (10.039216, 500)}


def tree(shape, names=("Hz390", "Hz218a"), case="SUB64", clocks=(28, 8512)):
    """A reference: one subarray, waves of two harmonics."""
    phase = {name: (np.arange(bins) + 0.5) / bins for name, (_, bins) in WAVES.items()}
    waves = {
        name: {
            "frequency": WAVES[name][0],
            "phase_amplitudes": np.sin(2 * np.pi * phase[name]) + 0.3 * np.cos(6 * np.pi * phase[name]),
        }
        for name in WAVES
    }
    speeds = {"FAST": list(names), "SLOW": {"MIRIMAGE": list(names)}}
    cases = {case: {"rowclocks": clocks[0], "frameclocks": clocks[1], "freqs": speeds}}
    return {"frequencies": waves, "subarray_cases": cases}


def setting(shape, pattern, integrations, groups, subarray="SUB64", **more):
    more = {"exposure__nsamples": 9 if "SLOW" in pattern else 1, **more}
    return metadata(
        shape,
        instrument__name="MIRI",
        instrument__detector="MIRIMAGE",
        exposure__readpatt=pattern,
        exposure__nints=integrations,
        exposure__ngroups=groups,
        subarray__name=subarray,
        **more,
    )


def exposure(seed, integrations, groups, shape, names=("Hz390", "Hz218a"), row_clocks=28, samples=1):
    """Ramps as they come from the detector, in whole numbers, with interference."""
    rng = np.random.default_rng(seed)
    ny, nx = shape
    flux = rng.gamma(2, 10, shape)
    flux[rng.random(shape) < 0.03] *= 50
    ramp = 10000 + rng.normal(0, 500, shape) + flux * np.arange(groups)[:, None, None]
    ramp = ramp + rng.normal(0, 5, (integrations, groups, *shape))
    frame = ny * row_clocks + (1024 - ny) * 7
    start = np.arange(integrations)[:, None, None, None] * groups + np.arange(groups)[:, None, None]
    clock = start * frame + np.arange(ny)[:, None] * row_clocks + np.arange(nx) // 4 * samples
    for k, name in enumerate(names):
        ramp += (7 - 2 * k) * np.sin(2 * np.pi * (clock * 1e-5 * WAVES[name][0] + 0.37 + k))
    ramp = Ramp.of(np.round(ramp).astype(np.float32))
    ramp.pixeldq[rng.random(shape) < 0.03] = 1
    return ramp


def oracle(ramp, meta, reference, step):
    from jwst.emicorr.emicorr import apply_emicorr
    from stdatamodels.jwst.datamodels import EmiModel

    model = EmiModel()
    model.frequencies, model.subarray_cases = reference["frequencies"], reference["subarray_cases"]
    names = ("algorithm", "nints_to_phase", "nbins", "scale_reference", "use_n_cycles", "fit_ints_separately")
    parameters = {name: getattr(step, name) for name in names}
    frequencies = step.onthefly_corr_freq and list(step.onthefly_corr_freq)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return apply_emicorr(oracle_ramp(ramp, meta), model, onthefly_corr_freq=frequencies, **parameters)


SMALL = (64, 72)
WIDE = (12, 1032)
CASES = [
    # joint
    ({}, "FASTR1", 2, 6, SMALL),
    ({}, "FAST", 3, 12, SMALL),
    ({}, "FAST", 1, 3, SMALL),
    ({}, "SLOWR1", 1, 4, SMALL),
    ({"fit_ints_separately": True}, "FASTR1", 3, 6, SMALL),
    ({}, "FASTR1", 2, 5, WIDE),
    # sequential
    ({"algorithm": "sequential"}, "FASTR1", 2, 12, SMALL),
    ({"algorithm": "sequential", "use_n_cycles": None}, "SLOW", 2, 12, SMALL),
    ({"algorithm": "sequential", "use_n_cycles": 40}, "FASTR1", 3, 10, SMALL),
    ({"algorithm": "sequential", "nints_to_phase": 5, "nbins": 60}, "FAST", 3, 10, SMALL),
    ({"algorithm": "sequential", "scale_reference": False}, "FASTR1", 1, 5, SMALL),
    ({"algorithm": "sequential"}, "FASTR1", 1, 3, SMALL),
    ({"algorithm": "sequential", "scale_reference": False}, "FASTR1", 1, 3, SMALL),
    ({"algorithm": "sequential"}, "FASTR1", 2, 5, WIDE),
    # without reference
    ({"onthefly_corr_freq": (390.625, 218.52055)}, "FASTR1", 2, 10, SMALL),
    ({"onthefly_corr_freq": (10.039216,)}, "SLOWR1", 1, 10, SMALL),
]


@pytest.mark.parametrize("tile", [(10**6, 10**6), (13, 21)])
@pytest.mark.parametrize(("parameters", "pattern", "integrations", "groups", "shape"), CASES)
def test_same_bits_as_the_oracle(parameters, pattern, integrations, groups, shape, tile):
    names = ("Hz390", "Hz218a", "Hz10") if "SLOW" in pattern else ("Hz390", "Hz218a")
    subarray = "SUB64" if shape == SMALL else "FULL"
    clocks = (28, 8512) if shape == SMALL else (271, 277504)
    reference = tree(shape, names, "SUB64" if shape == SMALL else "FULL_FAST", clocks)
    meta = setting(shape, pattern, integrations, groups, subarray)
    samples = meta["meta.exposure.nsamples"]
    ramp = exposure(len(parameters) + groups, integrations, groups, shape, names, clocks[0], samples)
    step = EmiCorrStep(skip=False, **parameters)
    result = walk(step, meta, {"emicorr": FakeReference(asdf=reference)}, ramp, tile)
    assert_same(result, oracle(ramp, meta, reference, step))
    # Three groups leave the sequential way only one to fit a line to: nothing is found.
    nothing = groups == 3 and step.algorithm == "sequential" and step.scale_reference
    assert np.array_equal(result.sci, ramp.sci) == nothing


def test_interference_is_removed():
    ramp = exposure(5, 1, 12, SMALL)
    clean = exposure(5, 1, 12, SMALL, names=())
    meta = setting(SMALL, "FAST", 1, 12)
    waves = tree(SMALL)
    for wave in waves["frequencies"].values():
        wave["phase_amplitudes"] = np.sin(2 * np.pi * (np.arange(256) + 0.5) / 256)
    reference = FakeReference(asdf=waves)
    before = np.std(ramp.sci - clean.sci)
    for algorithm, left in (("joint", 0.1), ("sequential", 0.25)):
        result = walk(EmiCorrStep(skip=False, algorithm=algorithm), meta, {"emicorr": reference}, ramp)
        # A constant is neither seen nor subtracted. The sequential way turns the wave by whole bins only, and its line
        # takes part of the wave with it.
        assert np.std(result.sci - clean.sci) < left * before
    assert before > 5


def test_skips():
    step, meta = EmiCorrStep(skip=False), setting(SMALL, "FASTR1", 1, 6)
    reference = FakeReference(asdf=tree(SMALL))
    assert step.skip_reason(meta) is None
    assert step.reference_skip_reason(meta, {"emicorr": reference}) is None
    assert "for instrument: NIRCAM" in step.skip_reason(meta | {"meta.instrument.name": "NIRCAM"})
    assert "read pattern: FASTGRPAVG" in step.skip_reason(meta | {"meta.exposure.readpatt": "FASTGRPAVG"})

    def reason(step=step, reference=reference, **more):
        changed = {"meta." + name.replace("__", "."): value for name, value in more.items()}
        return step.reference_skip_reason(meta | changed, {"emicorr": reference})

    assert reason(reference=None) == "No reference file found"
    assert "ngroups=2" in reason(exposure__ngroups=2)
    assert "No correction match" in reason(subarray__name="SUB128")
    assert "No correction match" in reason(exposure__readpatt="SLOW", instrument__detector="MIRIFULONG")
    assert "No correction match" in reason(reference=FakeReference(asdf=tree(SMALL, names=())))
    fly = EmiCorrStep(skip=False, onthefly_corr_freq=(390.625,))
    assert fly.references_for(meta) == ()
    assert reason(fly, None) is None
    assert reason(fly, None, subarray__name="FULL") is None
    assert "No correction match" in reason(fly, None, subarray__name="SUBPRISM")
    assert EmiCorrStep(user_supplied_reffile="emi.asdf").references_for(meta) == ()


def test_refusals():
    step, meta = EmiCorrStep(skip=False), setting(SMALL, "FASTR1", 1, 6)
    reference = tree(SMALL)
    del reference["frequencies"]["Hz218a"]
    with pytest.raises(ReferenceFileError, match="no wave 'Hz218a'"):
        step.prepare(meta, {"emicorr": FakeReference(asdf=reference)})
    references = {"emicorr": FakeReference(asdf=tree(SMALL))}
    with pytest.raises(InputError, match="NSAMPLES"):
        step.prepare(meta | {"meta.exposure.nsamples": None}, references)
    with pytest.raises(InputError, match="70 columns"):
        step.prepare(meta | {"meta.subarray.xsize": 70}, references)


@pytest.mark.parametrize("pattern", ["FASTR1", "SLOW"])
def test_reference_made_on_the_fly_is_the_oracles_and_can_be_used(tmp_path, pattern):
    from jwst.emicorr.emicorr import apply_emicorr
    from stdatamodels.jwst.datamodels import EmiModel

    meta = setting(SMALL, pattern, 1, 10)
    ramp = exposure(8, 1, 10, SMALL)
    frequencies = (390.625, 218.52055)
    step = EmiCorrStep(skip=False, onthefly_corr_freq=frequencies, save_intermediate_results=True)
    step = step.with_side_products(lambda suffix: str(tmp_path / "new" / f"own_{suffix}.fits"))
    walk(step, meta, {}, ramp)
    apply_emicorr(
        oracle_ramp(ramp, meta),
        None,
        save_onthefly_reffile=str(tmp_path / "theirs_emi_ref_waves.fits"),
        onthefly_corr_freq=list(frequencies),
    )
    with (
        EmiModel(tmp_path / "new" / "own_emi_ref_waves.asdf") as ours,
        EmiModel(tmp_path / "theirs_emi_ref_waves.asdf") as theirs,
    ):
        ours.validate()
        assert ours.subarray_cases.instance == theirs.subarray_cases.instance
        for name, wave in theirs.frequencies.instance.items():
            own = ours.frequencies.instance[name]
            assert own["frequency"] == wave["frequency"]
            np.testing.assert_array_equal(own["phase_amplitudes"], wave["phase_amplitudes"])
        left, right = (dict(model.meta.instance) for model in (ours, theirs))
        for name in ("date", "useafter", "filename", "calibration_software_version"):
            left.pop(name, None), right.pop(name, None)
        assert left == right
    if pattern == "FASTR1":
        # jwst files the frequencies under the read pattern and looks them up under the speed alone.
        return
    used = EmiCorrStep(skip=False, user_supplied_reffile=str(tmp_path / "new" / "own_emi_ref_waves.asdf"))
    result = walk(used, meta, {}, ramp)
    assert not np.array_equal(result.sci, ramp.sci)


def test_nothing_is_saved_unless_asked():
    for step in (EmiCorrStep(save_intermediate_results=True), EmiCorrStep(onthefly_corr_freq=(390.625,))):
        assert step.with_side_products(str).wave_path is None
