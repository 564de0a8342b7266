"""The walk over an exposure, with steps made up: halos, whole frames, repeated walks, errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from jwstdask.core.block import Window
from jwstdask.core.errors import StepError
from jwstdask.core.plan import ExposurePlan, StepPlan
from jwstdask.core.step import Step
from jwstdask.engine import passes
from jwstdask.engine.executor import Serial, Threads
from jwstdask.engine.memory import process
from jwstdask.engine.sources import MemoryArrays

SHAPE = (2, 3, 70, 150)


class Made(Step):
    """A step that needs no references."""

    class_name = "MadeStep"

    def reference_skip_reason(self, meta, references):
        return None


@dataclass(frozen=True, kw_only=True)
class Smooth(Made):
    """Mean of a square of pixels: needs its neighbours."""

    alias = status = "smooth"
    radius: int = 2

    @property
    def halo(self):
        return self.radius

    def apply(self, block, prepared, gathered=None):
        size = 2 * self.radius + 1
        block.sci[...] = uniform_filter(block.sci.astype(np.float64), (1, 1, size, size), mode="nearest")


@dataclass(frozen=True, kw_only=True)
class Level(Made):
    """Subtracts the mean of the lowest rows, as they are after the steps before."""

    alias = status = "level"

    def gather_windows(self, meta):
        return [Window.plain(0, 3, 0, SHAPE[-1])]

    def gather(self, meta, prepared, blocks):
        return blocks[0].sci.astype(np.float64).mean(axis=(2, 3), keepdims=True).astype(np.float32)

    def apply(self, block, prepared, gathered=None):
        block.sci -= gathered


@dataclass(frozen=True, kw_only=True)
class Brightest(Made):
    """Flags the brightest row of the frame, which no block can know, from the samples that it finds."""

    alias = status = "brightest"
    frame_arrays = ("sci",)

    def apply(self, block, prepared, gathered=None):
        block.groupdq |= np.uint8(4) * (block.sci > 90).astype(np.uint8)
        block.sci += np.float32(1)

    def frame_gather(self, meta, prepared):
        return True

    def revise(self, meta, prepared, groupdq, frame=None):
        row = int(frame.sci.sum(axis=(0, 1, 3), dtype=np.float64).argmax())
        groupdq[:, :, row] |= 2


@dataclass(frozen=True, kw_only=True)
class Flagged(Made):
    """Zero where there is a flag: depends on flags of the steps before."""

    alias = status = "flagged"

    def apply(self, block, prepared, gathered=None):
        block.sci[block.groupdq != 0] = 0
        block.tally["flagged"] = float((block.groupdq[(..., *block.window.inner)] != 0).sum())

    def finish(self, meta, prepared, tally):
        return {"meta.flagged": tally["flagged"]}


@dataclass(frozen=True, kw_only=True)
class Greatest(Made):
    """Divides by the greatest value of the frame, which it learns in a first walk; counts its walks."""

    alias = status = "greatest"

    def apply(self, block, prepared, gathered=None):
        greatest = float(block.sci[(..., *block.window.inner)].max())
        block.sci /= np.float32(1 if gathered is None else gathered)
        block.tally[f"greatest.{greatest}"] = 1.0

    def again(self, meta, prepared, gathered, tally):
        if gathered is not None:
            return None
        return max(float(name.removeprefix("greatest.")) for name in tally if name.startswith("greatest."))


@dataclass(frozen=True, kw_only=True)
class Broken(Made):
    alias = status = "broken"
    where: str = "apply"

    def prepare(self, meta, references):
        if self.where == "prepare":
            return meta["meta.exposure.group_time"]

    def apply(self, block, prepared, gathered=None):
        if block.window.y0 >= 30:
            raise ZeroDivisionError("no light")


@pytest.fixture(params=[800_000, 20_000, 30_000])
def tile_bytes(request, monkeypatch):
    monkeypatch.setattr(passes, "TILE_BYTES", request.param)
    return request.param


@pytest.fixture(params=[Serial(), Threads(3)], ids=["serial", "threads"])
def executor(request):
    return request.param


@pytest.fixture
def ramp():
    rng = np.random.default_rng(4)
    return {
        "sci": rng.normal(50, 20, SHAPE).astype(np.float32),
        "groupdq": np.zeros(SHAPE, np.uint8),
        "pixeldq": np.zeros(SHAPE[2:], np.uint32),
    }


def run(ramp, executor, *steps, taps=()):
    plan = ExposurePlan(
        "jw1_uncal.fits",
        "made",
        steps=tuple(StepPlan(step.alias, step) for step in steps),
        products={"result": "jw1_made.fits"},
        taps={name: f"jw1_{name}.fits" for name in taps},
        shape=SHAPE,
    )
    before = {name: array.copy() for name, array in ramp.items()}
    found = process(plan, MemoryArrays(ramp, "jw1_uncal.fits"), {"meta.exposure.type": "NRC_IMAGE"}, {}, None, executor)
    for name, array in before.items():
        np.testing.assert_array_equal(ramp[name], array)
    return found


def smoothed(values, radius=2):
    size = 2 * radius + 1
    return uniform_filter(values.astype(np.float64), (1, 1, size, size), mode="nearest").astype(np.float32)


def test_tiles_of_different_shapes(monkeypatch):
    """The sizes above tile the frame in three ways, so that the other tests test something."""
    shapes = []
    for size in (800_000, 20_000, 30_000):
        monkeypatch.setattr(passes, "TILE_BYTES", size)
        shapes.append(passes.tile_shape(SHAPE, 2))
    assert len(set(shapes)) == 3


def test_a_halo_larger_than_the_frame_makes_one_tile():
    """Or each of very many tiles would hold the whole frame."""
    assert passes.tile_shape(SHAPE, 2_000_000) == SHAPE[-2:]
    assert passes.tile_shape((2, 6, 2048, 2048), 4_000) == (2048, 2048)


def test_halo(ramp, executor, tile_bytes):
    """One step after the other on the whole frame gives the same.

    The filter sums in float64 in another order near the border of a tile than in the middle of the frame.
    """
    found = run(ramp, executor, Smooth(radius=2), Smooth(radius=3))["result"]
    expected = smoothed(smoothed(ramp["sci"], 2), 3)
    np.testing.assert_allclose(found["sci"], expected, rtol=1e-6)
    assert found.attrs["meta.cal_step.smooth"] == "COMPLETE"


def test_gathered_after_the_steps_before(ramp, executor, tile_bytes):
    found = run(ramp, executor, Smooth(), Level())["result"]
    smooth = smoothed(ramp["sci"])
    expected = smooth - smooth[:, :, :3].astype(np.float64).mean(axis=(2, 3), keepdims=True).astype(np.float32)
    np.testing.assert_allclose(found["sci"], expected, rtol=1e-5, atol=1e-5)


def test_whole_frame(ramp, executor, tile_bytes):
    """What only the whole frame shows reaches the steps after it."""
    found = run(ramp, executor, Brightest(), Flagged(), taps=("brightest",))
    row = int(ramp["sci"].sum(axis=(0, 1, 3), dtype=np.float64).argmax())
    flags = np.where(ramp["sci"] > 90, np.uint8(4), np.uint8(0))
    flags[:, :, row] |= 2
    values = ramp["sci"] + np.float32(1)
    np.testing.assert_array_equal(found["tap:brightest"]["groupdq"], flags)
    np.testing.assert_array_equal(found["tap:brightest"]["sci"], values)
    np.testing.assert_array_equal(found["result"]["sci"], np.where(flags != 0, np.float32(0), values))
    assert found["result"].attrs["meta.flagged"] == np.count_nonzero(flags)


def test_every_tile_goes_through_each_step_once(ramp, monkeypatch):
    """What a step that sees the frame has revised is taken up where it was left."""
    monkeypatch.setattr(passes, "TILE_BYTES", 20_000)
    done: dict[str, list] = {name: [] for name in ("brightest", "flagged")}
    for step in (Brightest, Flagged):

        def apply(self, block, prepared, gathered=None, original=step.apply):
            done[self.alias].append((block.window.inner_y0, block.window.inner_x0))
            return original(self, block, prepared, gathered)

        monkeypatch.setattr(step, "apply", apply)
    run(ramp, Serial(), Brightest(), Flagged())
    height, width = passes.tile_shape(SHAPE, 0)
    tiles = [(y, x) for y in range(0, SHAPE[2], height) for x in range(0, SHAPE[3], width)]
    assert len(tiles) > 3
    # and a small one that shows what is held
    assert sorted(done["flagged"])[-len(tiles) :] == tiles
    assert sorted(done["brightest"])[-len(tiles) :] == tiles


def test_walked_again(ramp, executor, tile_bytes):
    found = run(ramp, executor, Smooth(), Greatest())["result"]
    expected = smoothed(ramp["sci"])
    np.testing.assert_allclose(found["sci"], expected / expected.max(), rtol=1e-6)
    assert found["sci"].max() == 1


def test_taps_in_order(ramp, executor, tile_bytes):
    found = run(ramp, executor, Level(), Flagged(), taps=("level",))
    np.testing.assert_array_equal(found["tap:level"]["sci"], found["result"]["sci"])
    assert found["tap:level"].attrs.get("meta.cal_step.flagged") is None
    assert found["result"].attrs["meta.cal_step.flagged"] == "COMPLETE"


def test_errors_tell_step_and_place(ramp, executor):
    with pytest.raises(StepError, match=r"jw1_uncal\.fits: broken \(rows \d+:\d+, columns \d+:\d+\): .*no light"):
        run(ramp, executor, Level(), Broken())
    with pytest.raises(StepError, match=r"jw1_uncal\.fits: broken \(preparation\): keyword TGROUP .*is missing"):
        run(ramp, executor, Broken(where="prepare"))
