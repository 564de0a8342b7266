"""Exposures of a detector leave their windows of persistence to the next one, in order of time."""

from __future__ import annotations

import asdf
import numpy as np
import pytest
from astropy.io import fits

import jwstdask
from jwstdask.core import dq
from jwstdask.engine import exposure
from jwstdask.engine.clusters import local_cluster
from jwstdask.engine.executor import Serial, Threads
from jwstdask.pipelines.run import run_chains
from jwstdask.testing.asserts import product_bytes
from tests.conftest import once
from tests.oracle.compare import compare
from tests.oracle.conftest import Call, run_jwst
from tests.using import crds_of

DURATION = 700
"""Seconds: windows outlast the next exposure and end within a later one."""


@pytest.fixture(scope="module")
def uncals(programs, session_folder):
    """Three exposures each of two detectors, one in thirty stars of which saturates, in order of time."""
    from jwstdask.simulate import make_program

    def build(folder):
        names = {"detectors": ("nrcb1", "nrca3"), "filter": "F200W", "subarray": "SUB64P", "dithers": 3}
        rates = (2000.0, 500000.0)
        make_program(folder, programs.cache("timeseries"), ngroups=5, nints=2, rates=rates, stars=60, seed=31, **names)
        # Exposures of a subarray follow each other within seconds: here within minutes.
        for number, path in enumerate(sorted(folder.glob("*_uncal.fits"), key=start)):
            with fits.open(path, mode="update") as file:
                file[0].header["EXPSTART"] += number // 2 * 300 / 86400
                del file["INT_TIMES"]

    return sorted(once(session_folder / "persistence", build).glob("*_uncal.fits"), key=start)


def start(path):
    return fits.getval(path, "EXPSTART"), path.name


def steps(path, **more):
    own = {"skip": False, "persistence_time": DURATION, "save_persistence": str(path)} | more
    # A search for hits in so few groups would flag most of them.
    return {"persistence": {"persistence_array_file": str(path)} | own, "jump": {"skip": True}}


@pytest.fixture(scope="module")
def oracle(uncals, programs, session_folder):
    """Products and state of jwst, run in a loop in order of time."""

    def build(folder):
        options = {"steps": steps(folder / "state.asdf", persistence_dnu=True)}
        calls = [Call("calwebb_detector1", "jwst.pipeline.Detector1Pipeline", path, options) for path in uncals]
        run_jwst(folder, calls, programs.cache("timeseries").environment)

    return once(session_folder / "persistence_oracle", build)


@pytest.fixture
def references(programs):
    with crds_of(programs.cache("timeseries")):
        yield


def states(path):
    with asdf.open(path, lazy_load=False, memmap=False) as file:
        return {
            name: {key: np.asarray(value) if key in ("rows", "cols", "vals") else value for key, value in entry.items()}
            for name, entry in file.tree.items()
            if name.startswith("NRC")
        }


def assert_same_states(first, second):
    first, second = states(first), states(second)
    assert first.keys() == second.keys()
    for name, entry in first.items():
        assert entry.keys() == second[name].keys() == {"filename", "rows", "cols", "vals", "pers_time"}
        for key, value in entry.items():
            np.testing.assert_array_equal(value, second[name][key])


def products(folder):
    return sorted(path.name for path in folder.glob("*.fits"))


def assert_same_products(folder, oracle):
    assert products(folder) == products(oracle)
    for name in products(oracle):
        found = compare(folder / name, oracle / name)
        assert not found.headers
        assert not [array for array, item in found.arrays.items() if item.count]


@pytest.mark.parametrize("where", ["serial", "threads", "strips on threads", "processes"])
def test_same_as_a_loop_of_the_oracle(uncals, oracle, references, tmp_path, where):
    executor = {"serial": Serial, "threads": lambda: Threads(3), "strips on threads": lambda: Threads(4)}.get(
        where, lambda: local_cluster(2)
    )()
    state = tmp_path / "state.asdf"
    told = steps(state, persistence_dnu=True)
    # The last exposures come first: their headers say when they were taken.
    try:
        result = jwstdask.run_program(
            list(reversed(uncals)), through=1, output_dir=tmp_path, steps=told, executor=executor
        )
    finally:
        executor.close()
    assert not result.failed
    assert [outcome.path for outcome in result.outcomes] == [str(path) for path in reversed(uncals)]
    assert_same_products(tmp_path, oracle)
    assert_same_states(state, oracle / "state.asdf")
    assert not list(tmp_path.glob(".*")), "nothing temporary is left"


def test_windows_matter(uncals, oracle):
    """Later exposures have flags that come from earlier ones, and some windows of the first have ended."""
    flagged = [
        fits.getdata(oracle / path.name.replace("_uncal", "_rate"), "DQ") & dq.PERSISTENCE != 0 for path in uncals
    ]
    ours = [flags for flags, path in zip(flagged, uncals, strict=True) if "nrcb1" in path.name]
    assert all(flags.any() for flags in ours)
    assert (ours[1] & ~ours[0]).any() and (ours[0] & ours[1]).any()
    ends = states(oracle / "state.asdf")["NRCB1"]["vals"]
    assert np.unique(ends).size > 3


def test_program_in_two_runs(uncals, oracle, references, tmp_path):
    """What an earlier run saved is read by the next."""
    state = tmp_path / "state.asdf"
    for part in (uncals[:2], uncals[2:]):
        told = steps(state, persistence_dnu=True)
        result = jwstdask.run_program(part, through=1, output_dir=tmp_path, steps=told, executor=Threads(2))
        assert not result.failed
    assert_same_products(tmp_path, oracle)
    assert_same_states(state, oracle / "state.asdf")


def test_a_failed_exposure_does_not_stop_the_later_ones(uncals, references, tmp_path, monkeypatch):
    mine = [path for path in uncals if "nrcb1" in path.name]
    expected, given = tmp_path / "expected", tmp_path / "given"
    jwstdask.run_program(
        [mine[0], mine[2]], through=1, output_dir=expected, steps=steps(expected / "x.asdf"), executor=Serial()
    )
    opened = exposure.FileArrays.open

    def broken(path):
        if path == str(mine[1]):
            raise OSError("the disk is gone")
        return opened(path)

    monkeypatch.setattr(exposure.FileArrays, "open", broken)
    result = jwstdask.run_program(mine, through=1, output_dir=given, steps=steps(given / "x.asdf"), executor=Threads(2))
    assert [outcome.path for outcome in result.failed] == [str(mine[1])]
    assert "the disk is gone" in result.failed[0].error
    assert products(given) == products(expected)
    for name in products(given):
        found = compare(given / name, expected / name)
        assert not found.headers and not [array for array, item in found.arrays.items() if item.count]
    assert_same_states(given / "x.asdf", expected / "x.asdf")
    record = next(item for item in result.outcomes[2].steps if item.name == "persistence")
    assert record.status == "COMPLETE"
    assert record.reason.startswith("1 exposure of this detector before it failed")


def test_without_a_state_nothing_is_ordered_and_nothing_is_handed_on(uncals, references, tmp_path):
    """Each exposure alone, as in jwst where no file is named."""
    seen = []

    class Watching(Serial):
        def map(self, function, items, notify=None, after=None, needs=None):
            seen.append(after)
            return super().map(function, items, notify, after)

    own = {"persistence": {"skip": False, "persistence_time": DURATION}}
    jwstdask.run_program(uncals[:2], through=1, output_dir=tmp_path, steps=own, executor=Watching())
    assert not any(seen)


def test_order_in_the_graph(uncals, references, tmp_path):
    """Each exposure waits for the one before it of its own detector only."""
    seen = []

    class Watching(Serial):
        def map(self, function, items, notify=None, after=None, needs=None):
            items = list(items)
            seen.append((items, after))
            return [[] for _ in items]

    from jwstdask.core.settings import Layer, Settings
    from jwstdask.pipelines.detector1 import Detector1Pipeline
    from jwstdask.pipelines.planner import Request, plan_exposures

    settings = Settings((Layer("test", {}, steps(tmp_path / "state")),), output_dir=str(tmp_path))
    plans = plan_exposures(Detector1Pipeline, [Request(str(path)) for path in reversed(uncals)], settings)
    assert run_chains([[plan] for plan in plans], Watching(), grain="exposure") == []
    items, after = seen[0]
    assert [item.plans[0].path for item in items] == [str(path) for path in uncals]
    assert len(after) == 4
    for index, before in after.items():
        assert before < index
        assert items[before].plans[0].detector == items[index].plans[0].detector
    assert items[0].target == str(tmp_path / "state.asdf")


def test_done_again_from_the_same_state(uncals, references, tmp_path):
    """Exposures of a program that is resumed start from the state before the first of them, not from what they left."""
    out, state = tmp_path / "out", tmp_path / "state.asdf"
    own = {"through": 1, "output_dir": out, "steps": steps(state), "executor": Serial(), "resume": True}
    jwstdask.run_program(uncals[:2], **own | {"output_dir": tmp_path / "before"})
    result = jwstdask.run_program(uncals[2:], **own)
    assert not result.failed and result.fresh == 0
    left = states(state)
    expected = {path.name: product_bytes(path) for path in out.glob("*.fits")}
    assert jwstdask.run_program(uncals[2:], **own).fresh == len(uncals) - 2
    # One exposure of the sequence of a detector is missing: those of its detector are done again.
    (out / uncals[-1].name.replace("uncal", "rate")).unlink()
    result = jwstdask.run_program(uncals[2:], **own)
    assert result.fresh == (len(uncals) - 2) // 2
    assert {path.name: product_bytes(path) for path in out.glob("*.fits")} == expected
    assert states(state).keys() == left.keys()
    for name, entry in states(state).items():
        for key, value in entry.items():
            np.testing.assert_array_equal(value, left[name][key])
