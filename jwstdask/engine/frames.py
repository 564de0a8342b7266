"""Steps on whole frames: the exposure goes through the steps before them into a scratch file or into memory, the step
works on it there, one integration after another, and the steps after it start from that.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from jwstdask.core.block import ImageBlock, RampBlock, Window
from jwstdask.core.errors import JwstdaskError, StepError, StepUndone
from jwstdask.core.plan import ExposurePlan, StepPlan, StepRecord
from jwstdask.engine.executor import Executor
from jwstdask.engine.log import map_parts
from jwstdask.engine.passes import Idle, open_references, reason_of
from jwstdask.io.layout import FitsLayout, open_layout
from jwstdask.refs.stripes import Superstripes, superstripes

Block = RampBlock | ImageBlock


@dataclass(frozen=True)
class Part:
    """Steps of a plan that blocks go through at once, and the step on whole frames that follows.

    Attributes
    ----------
    plan
        The plan with these steps only.
    frame_step
        None for the last part.
    superstripes
        How the superstripes of the exposure are put together after the steps; None if they are not.
    """

    plan: ExposurePlan
    frame_step: StepPlan | None
    superstripes: Superstripes | None = None

    @property
    def name(self) -> str:
        """What follows, in one word; empty for the last part."""
        if self.superstripes is not None:
            return "superstripes"
        return "" if self.frame_step is None else self.frame_step.name


def divided(plan: ExposurePlan, meta: Mapping[str, Any]) -> tuple[list[Part], list[StepRecord]]:
    """The parts of a plan, and records of steps on whole frames that should run and cannot."""
    parts: list[Part] = []
    records: list[StepRecord] = []
    steps: list[StepPlan] = []
    for item in plan.steps:
        if item.step.joins_superstripes and item.skip is None and superstripes(meta) > 0:
            stripes = Superstripes.of(meta)
            taps = {name: path for name, path in plan.taps.items() if name != item.name}
            parts.append(Part(replace(plan, steps=(*steps, item), taps=taps), None, stripes))
            # The step's own product is the frame.
            steps = [replace(item, step=Idle(), skip=None)] if item.name in plan.taps else []
            meta = stripes.metadata(meta)
            continue
        if item.step.kind != "frame":
            steps.append(item)
            continue
        if item.step.skip:
            steps.append(item)
            continue
        reason = item.skip or item.step.reference_skip_reason(meta, open_references(item))
        if reason is None:
            parts.append(Part(replace(plan, steps=tuple(steps)), item))
            steps = []
        else:
            records.append(StepRecord(item.name, item.step.status_if_undone, reason))
        if item.name in plan.taps:
            steps.append(replace(item, step=Idle(), skip=None))
    parts.append(Part(replace(plan, steps=tuple(steps)), None))
    return parts, records


@dataclass
class _Ready:
    """A step on whole frames ready for an exposure."""

    item: StepPlan
    meta: Mapping[str, Any]
    prepared: Any
    shared: Any = None

    @classmethod
    def of(cls, item: StepPlan, meta: Mapping[str, Any]) -> _Ready:
        return cls(item, meta, item.step.prepare(meta, open_references(item)))

    def share(self, block: Block) -> None:
        self.shared = self.item.step.frame_shared(self.meta, self.prepared, block)

    def finish(self, done: bool) -> None:
        self.item.step.frame_finish(self.meta, self.shared, done)

    def integration(self, block: Block, integration: int) -> float:
        """CPU time of an integration."""
        clock = time.thread_time()
        self.item.step.frame_integration(self.meta, self.prepared, self.shared, block, integration)
        return time.thread_time() - clock


@dataclass(frozen=True)
class FrameOutcome:
    """What became of a step on whole frames, and whether the exposure must be restored since it is partly changed."""

    record: StepRecord
    spoiled: bool = False


def _watched(
    name: str,
    item: StepPlan,
    share: Callable[[], float],
    walk: Callable[[], list[float]],
    finish: Callable[[bool], Any],
) -> FrameOutcome:
    """Call ``share``, then ``walk``, both of which return CPU times, and then ``finish``."""
    spoiled = False
    try:
        seconds = share()
        spoiled, done = True, False
        try:
            seconds += sum(walk())
            done = True
        finally:
            finish(done)
    except StepUndone as error:
        return FrameOutcome(StepRecord(item.name, error.status or item.step.status_if_undone, str(error)), spoiled)
    except JwstdaskError:
        raise
    except Exception as error:
        raise StepError(name, item.name, reason_of(error)) from error
    return FrameOutcome(StepRecord(item.name, "COMPLETE", seconds=seconds))


def _integrations(shape: tuple[int, ...]) -> range:
    return range(shape[0] if len(shape) > 2 else 1)


def run_in_memory(item: StepPlan, meta: Mapping[str, Any], name: str, block: Block, executor: Executor) -> FrameOutcome:
    """Run a step on a block of the whole exposure in place.

    Parameters
    ----------
    item
        The step.
    meta
        Metadata of the exposure.
    name
        How messages call it.
    block
        The exposure.
    executor
        Where integrations are done: in this process.
    """
    ready: list[_Ready] = []

    def share() -> float:
        clock = time.thread_time()
        ready.append(_Ready.of(item, meta))
        ready[0].share(block)
        return time.thread_time() - clock

    def walk() -> list[float]:
        return map_parts(executor, partial(ready[0].integration, block), _integrations(block.sci.shape))

    return _watched(name, item, share, walk, lambda done: ready[0].finish(done))


def run_in_file(item: StepPlan, meta: Mapping[str, Any], path: str, executor: Executor) -> FrameOutcome:
    """The same for an exposure in a FITS file, wherever tasks run; see :func:`run_in_memory`.

    What integrations share goes to a file beside it.
    """

    digest = ""

    def share() -> float:
        nonlocal digest
        seconds, digest = map_parts(executor, partial(_share, item, dict(meta)), [path])[0]
        return seconds

    def walk() -> list[float]:
        integrations = _integrations(open_layout(path).hdu("SCI").shape)
        return map_parts(executor, partial(_integration, path, item.name, digest), integrations)

    def finish(done: bool) -> None:
        map_parts(executor, partial(_finish, path, item.name, digest), [done])

    try:
        return _watched(os.path.basename(path), item, share, walk, finish)
    finally:
        _loaded.cache_clear()


def _share(item: StepPlan, meta: dict[str, Any], path: str) -> tuple[float, str]:
    """Write what all integrations need; CPU seconds, and the digest by which readers know that it is this."""
    clock = time.thread_time()
    ready = _Ready.of(item, meta)
    ready.share(mapped(path))
    data = pickle.dumps((item, meta, ready.shared), pickle.HIGHEST_PROTOCOL)
    with open(_shared_path(path, item.name), "wb") as file:
        file.write(data)
    return time.thread_time() - clock, hashlib.sha256(data).hexdigest()


def _shared_path(path: str, name: str) -> str:
    return f"{path}.{name}"


@functools.lru_cache(maxsize=1)
def _loaded(path: str, name: str, digest: str) -> _Ready:
    with open(_shared_path(path, name), "rb") as file:
        data = file.read()
    # A pickle can run code: nothing is loaded but what this run wrote.
    if hashlib.sha256(data).hexdigest() != digest:
        raise StepError(os.path.basename(path), name, "its temporary file was changed by somebody else", "run it again")
    item, meta, shared = pickle.loads(data)
    ready = _Ready.of(item, meta)
    ready.shared = shared
    return ready


def _integration(path: str, name: str, digest: str, integration: int) -> float:
    block = mapped(path)
    seconds = _loaded(path, name, digest).integration(block, integration)
    assert isinstance(block.sci, np.memmap)
    block.sci.flush()
    return seconds


def _finish(path: str, name: str, digest: str, done: bool) -> None:
    _loaded(path, name, digest).finish(done)


def mapped(path: str) -> Block:
    """The whole exposure of a FITS file, whose pixels are mapped for reading and writing, flags only for reading."""
    layout = open_layout(path)
    shape = layout.hdu("SCI").shape
    window = Window.plain(0, shape[-2], 0, shape[-1])
    sci = _writable(layout, "SCI")
    if len(shape) == 4:
        dark = layout.read("AVDRKCUR") if "AVDRKCUR" in layout else None
        zeroframe = _writable(layout, "ZEROFRAME") if "ZEROFRAME" in layout else None
        return RampBlock(window, sci, _writable(layout, "GROUPDQ"), layout.read("PIXELDQ"), zeroframe, dark)
    found: dict[str, Any] = {
        name: layout.read(name) for name in ("err", "dq", "var_poisson", "var_rnoise", "var_flat") if name in layout
    }
    return ImageBlock(window, sci, **found)


def _writable(layout: FitsLayout, name: str) -> np.memmap:
    hdu = layout.hdu(name)
    return np.memmap(layout.path, hdu.stored, "r+", hdu.data_offset, hdu.shape)


def whole_block(arrays: Mapping[str, np.ndarray]) -> Block:
    """A block of a whole exposure, of its arrays by lower-case name."""
    shape = arrays["sci"].shape
    window = Window.plain(0, shape[-2], 0, shape[-1])
    if len(shape) == 4:
        return RampBlock(
            window,
            arrays["sci"],
            arrays["groupdq"],
            arrays["pixeldq"],
            arrays.get("zeroframe"),
            arrays.get("avdrkcur"),
        )
    names = ("err", "dq", "var_poisson", "var_rnoise", "var_flat")
    found: dict[str, Any] = {name: arrays[name] for name in names if name in arrays}
    return ImageBlock(window, arrays["sci"], **found)
