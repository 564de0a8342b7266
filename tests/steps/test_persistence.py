import asdf
import numpy as np
import pytest

from jwstdask.core import dq
from jwstdask.core.errors import ParameterError
from jwstdask.kernels import persistence
from jwstdask.steps.detector.persistence import PersistenceStep
from tests.steps.fakes import TILES, Ramp, assert_same, metadata, oracle_ramp, walk

SHAPE = (40, 48)
START = 59000.123


def exposure(seed, integrations=4, groups=6):
    rng = np.random.default_rng(seed)
    ramp = Ramp.of(np.cumsum(rng.uniform(0, 9000, (integrations, groups, *SHAPE)), axis=1).astype(np.float32))
    ramp.sci[rng.random(ramp.sci.shape) < 0.01] = np.nan
    start = rng.integers(0, 5 * groups, (integrations, 1, *SHAPE))
    ramp.groupdq[np.arange(groups)[:, None, None] >= start] = dq.SATURATED
    # Saturation that does not last, too.
    ramp.groupdq[rng.random(ramp.groupdq.shape) < 0.02] ^= dq.SATURATED
    meta = metadata(
        SHAPE,
        exposure__nints=integrations,
        exposure__ngroups=groups,
        exposure__start_time=START,
        exposure__integration_time=64.4,
        exposure__group_time=10.7,
    )
    return ramp, meta


def left_open(path, seed, duration, detector="NRCA1"):
    """A file with windows: expired, open, and begun in the future."""
    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(rng.random(SHAPE) < 0.3)
    now = (START - 40587) * 86400
    values = now + rng.uniform(-50, duration + 300, rows.size)
    asdf.dump({detector: {"rows": rows, "cols": columns, "vals": values, "pers_time": duration, "filename": "x"}}, path)


@pytest.mark.parametrize("tile", TILES[:3])
@pytest.mark.parametrize(
    ("seed", "duration", "threshold", "dnu", "file"),
    [
        (0, 30, None, False, None),
        (1, 100, 30000.0, True, None),
        (2, 150, 40000.0, False, "same"),
        (3, 50, None, True, "other duration"),
        (4, 50, None, False, "other detector"),
        (5, 50, None, False, "missing"),
    ],
)
def test_same_flags_as_the_oracle(tmp_path, tile, seed, duration, threshold, dnu, file):
    from jwst.persistence import PersistenceStep as Oracle

    ramp, meta = exposure(seed)
    path = None
    if file is not None:
        path = str(tmp_path / "left.asdf")
        if file != "missing":
            other = {"other duration": {"duration": duration + 1}, "other detector": {"detector": "NRCA2"}}
            left_open(path, seed, **({"duration": duration} | other.get(file, {})))
    names = {
        "skip": False,
        "persistence_time": duration,
        "dn_threshold": threshold,
        "persistence_dnu": dnu,
        "persistence_array_file": path,
    }
    step, theirs = PersistenceStep(**names), Oracle()
    for name, value in names.items():
        setattr(theirs, name, value)
    result = walk(step, meta, {}, ramp, tile)
    with np.errstate(invalid="ignore"):
        assert_same(result, theirs.process(oracle_ramp(ramp, meta)))
    assert 0.01 < np.mean(result.groupdq & dq.PERSISTENCE != 0) < 0.9


def test_times_of_integrations_come_from_the_table_if_there_is_one():
    _, meta = exposure(0)
    table = np.array([(START + 1.0,), (START + 2.0,)], [("int_start_MJD_UTC", float)])
    times = PersistenceStep(skip=False, persistence_time=5).prepare(meta | {"int_times": table}, {}).times
    start = (START - 40587) * 86400
    np.testing.assert_allclose(times[:, 0] - start, [86410.7, 172810.7, 139.5, 203.9], atol=1e-5)
    np.testing.assert_allclose(np.diff(times, axis=1), 10.7, atol=1e-5)


def test_the_kernel_hands_on_open_windows_and_leaves_its_input():
    """Two halves of an exposure, the second with what the first left, are the whole."""
    ramp, _ = exposure(7)
    times = 1e9 + 100.0 * np.arange(4)[:, None] + 10.0 * np.arange(6)
    before = ramp.groupdq.copy()
    whole, expiry = persistence.flag(ramp.sci, ramp.groupdq, times, 70, dn_threshold=30000)
    np.testing.assert_array_equal(ramp.groupdq, before)
    first, left = persistence.flag(ramp.sci[:2], ramp.groupdq[:2], times[:2], 70, dn_threshold=30000)
    second, end = persistence.flag(ramp.sci[2:], ramp.groupdq[2:], times[2:], 70, dn_threshold=30000, expiry=left)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    np.testing.assert_array_equal(end, expiry)
    assert (left > 0).any()


def test_refusals():
    _, meta = exposure(0)
    PersistenceStep().check(meta)
    with pytest.raises(ParameterError, match="positive number of seconds"):
        PersistenceStep(skip=False).check(meta)
    PersistenceStep(skip=False, persistence_time=3, save_persistence="x.asdf").check(meta)


def content(path):
    """The tree of a state file with plain arrays."""
    with asdf.open(path, lazy_load=False, memmap=False) as file:
        tree = {name: value for name, value in file.tree.items() if name not in ("asdf_library", "history")}
        return {name: {key: np.array(value) for key, value in entry.items()} for name, entry in tree.items()}


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("name", ["left.asdf", "left", "left.fits", "left.1"])
def test_saved_state_is_the_oracles(tmp_path, tile, name):
    """Same file name, same tree; other detectors stay in the file, an older state of this one does not."""
    from jwst.persistence import PersistenceStep as Oracle

    ramp, meta = exposure(8)
    meta["meta.filename"] = "jw_uncal.fits"
    names = {"skip": False, "persistence_time": 90, "dn_threshold": 45000.0}
    folders = [tmp_path / who for who in ("ours", "jwst")]
    for folder in folders:
        folder.mkdir()
        known = folder / ("left.asdf" if name != "left.1" else "other.asdf")
        left_open(known, 1, 5)
        with asdf.open(known, lazy_load=False, memmap=False) as file:
            tree = {"NRCB3": file["NRCA1"], "NRCA1": file["NRCA1"]}
        asdf.dump(tree, known)
    step = PersistenceStep(**names, save_persistence=str(folders[0] / name)).with_side_products(lambda suffix: suffix)
    walk(step, meta, {}, ramp, tile)
    theirs = Oracle()
    for key, value in (names | {"save_persistence": str(folders[1] / name)}).items():
        setattr(theirs, key, value)
    with np.errstate(invalid="ignore"):
        theirs.process(oracle_ramp(ramp, meta))
    ours, oracle = ({path.name: content(path) for path in folder.iterdir()} for folder in folders)
    assert ours.keys() == oracle.keys()
    for path, tree in oracle.items():
        assert tree.keys() == ours[path].keys()
        for detector, entry in tree.items():
            assert entry.keys() == ours[path][detector].keys()
            for key, value in entry.items():
                assert value.dtype == ours[path][detector][key].dtype
                np.testing.assert_array_equal(value, ours[path][detector][key])
    assert ours["left.asdf"]["NRCA1"]["vals"].size > 10


def test_a_state_is_read_back(tmp_path):
    """An exposure that starts from the state that another left is the second half of both together."""
    ramp, meta = exposure(9, integrations=2)
    later = meta | {"meta.exposure.start_time": START + 100 / 86400}
    path = tmp_path / "state.asdf"
    own = {"skip": False, "persistence_time": 120, "save_persistence": str(path), "persistence_array_file": str(path)}
    step = PersistenceStep(**own)
    walk(step, meta, {}, ramp, TILES[1])
    first = content(path)["NRCA1"]
    result = walk(step, later, {}, ramp, TILES[1])
    alone = walk(PersistenceStep(skip=False, persistence_time=120), later, {}, ramp, TILES[1])
    more = (result.groupdq ^ alone.groupdq).any(axis=(0, 1))
    assert more.any()
    was_open = np.zeros(SHAPE, bool)
    was_open[first["rows"], first["cols"]] = True
    assert not (more & ~was_open).any()


def test_a_state_of_a_larger_frame_is_refused(tmp_path):
    _, meta = exposure(0)
    path = str(tmp_path / "state.asdf")
    left_open(path, 0, 60)
    step = PersistenceStep(skip=False, persistence_time=60, persistence_array_file=path)
    with pytest.raises(ParameterError, match="another subarray"):
        step.prepare(meta | {"meta.subarray.ysize": SHAPE[0] - 5}, {})


def test_lazy_results_save_no_state():
    step = PersistenceStep(skip=False, persistence_time=60, save_persistence="x", persistence_array_file="y.asdf")
    lazy = step.with_side_products(lambda suffix: None)
    assert lazy.save_persistence is None
    assert lazy.persistence_array_file.endswith("/y.asdf")
