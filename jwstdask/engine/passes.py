"""A pass: a run of steps that an exposure goes through tile by tile.

A strip of rows is walked in tiles small enough for the caches, with a halo wide enough for all steps
together. Each tile goes through every step of the pass before the next one is read. Two kinds of coupling break the
walk: a step that must first see other parts of the frame (reference pixels) is given those windows, processed by the
steps before it; and a step that must see the flags of the whole frame (snowballs) ends the walk: the ramp is held, in a
file if it is large, until the flags are revised, and a second walk takes it through the steps that follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from jwstdask.core.block import ImageBlock, KeptRows, RampBlock, Window, tiles
from jwstdask.core.dims import counted
from jwstdask.core.errors import JwstdaskError, StepError
from jwstdask.core.exposure_types import GUIDER
from jwstdask.core.plan import ExposurePlan, StepPlan, StepRecord, tapped_step
from jwstdask.core.step import Step
from jwstdask.engine.census import count_groups, count_mask
from jwstdask.engine.log import at_step
from jwstdask.io.metadata import keyword_names
from jwstdask.refs.reference import Reference
from jwstdask.refs.reference import open_references as references_of
from jwstdask.refs.stripes import superstripes

TILE_BYTES = 6_200_000
"""Science bytes of a tile (float32), halo included: 64 rows of 2048 pixels and ten groups.

A tenth of it would leave room for flags and scratch in a second-level cache of 1 MB, but cost more: what is called for
every tile takes about a millisecond, the halo is gone through twice, and a third-level cache holds the rest.
"""

LONG_TILE_BYTES = 32_000_000
"""Science bytes of a tile (float32), halo included, of an exposure of so many planes that no tile fits into a cache.

The halo is that of the steps that need all integrations at once: the others are given some integrations of a tile after
the other, with what they need around it.
"""

_LONG_BYTES = 8_000_000
"""Science bytes of the smallest usual tile (float32), halo included, from which on a series is long."""

_BAND_BYTES = 5_500_000
"""Science bytes (float32) of the rows of a tile of a long series that go through the last steps together.

Fewer rows would lie in nearer caches, but what comes of them goes to as many pages of the products.
"""

Block = RampBlock | ImageBlock

_DTYPES: dict[str, type] = {"sci": np.float32, "groupdq": np.uint8, "pixeldq": np.uint32}


class Source(Protocol):
    """Where the exposure comes from: a file, or arrays in memory."""

    name: str
    shape: tuple[int, ...]
    """Shape of the science array."""
    in_parts: bool
    """Whether it costs little to read some integrations only."""

    def block(self, window: Window, integrations: slice = slice(None)) -> Block:
        """A fresh block of the window; of a ramp, of some integrations."""

    def guider_block(self, window: Window) -> Block:
        """A fresh block of the window, of an exposure of the guiders."""


class Sink(Protocol):
    """Where results of a tile go: files, or arrays in memory."""

    def products(self, block: Block) -> None:
        """Keep the inner part of the products of a block that has gone through all steps."""

    def tap(self, key: str, block: Block) -> None:
        """Keep the inner part of the block, or of one of its products, after a step: ``key`` is of the plan's taps."""


@dataclass(frozen=True, kw_only=True)
class Idle(Step):
    """Stands for a step that has nothing to do where what it was given is saved as its result."""

    alias = class_name = status = "idle"

    def apply(self, block: Any, prepared: Any, gathered: Any = None) -> None:
        pass


@dataclass
class Prepared:
    """A step ready for its blocks."""

    plan: StepPlan
    data: Any
    gathered: Any = None
    seconds: float = 0.0

    @property
    def step(self) -> Step:
        return self.plan.step


def frame_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of an array (..., y, x)."""
    return shape[-2], shape[-1]


def tile_shape(shape: tuple[int, ...], halo: int) -> tuple[int, int]:
    """Rows and columns of a tile of an exposure of ``shape`` (..., y, x).

    Whole rows, which lie side by side in files, if there is room for 16, 32 or 64 of them; else square enough that the
    halo costs little: 16 or 32 rows, and at least 64 columns, 128 where no cache holds it anyway. Of time series so
    long that this would be too much for the memory of a worker, as many pixels as may be, down to one.
    """
    planes = int(np.prod(shape[:-2], dtype=int))
    samples = max(TILE_BYTES // (4 * planes), 1)
    most = LONG_TILE_BYTES // (4 * planes)
    whole = min(samples, most) // shape[-1] - 2 * halo
    if whole >= 16:
        return min(64 if whole >= 64 else 32 if whole >= 32 else 16, shape[-2]), shape[-1]
    rows = 16 if samples < 8_000 else 32
    columns = max(samples // (rows + 2 * halo), 64)
    if samples < rows * columns and (rows + 2 * halo) * (128 + 2 * halo) <= most:
        # No cache holds it anyway, and longer runs cost less.
        columns = 128
    if (min(rows, shape[-2]) + 2 * halo) * (min(columns, shape[-1]) + 2 * halo) > most:
        widths = {height: min(most // (height + 2 * halo) - 2 * halo, shape[-1]) for height in range(1, rows + 1)}
        rows = max(widths, key=lambda height: min(height, shape[-2]) * widths[height])
        columns = max(widths[rows], 1)
    if rows + 2 * halo >= shape[-2] and columns + 2 * halo >= shape[-1]:
        # A tile in the middle holds the whole frame in any case.
        return shape[-2], shape[-1]
    # tiles beside each other are of one width
    return min(rows, shape[-2]), -(-shape[-1] // -(-shape[-1] // columns))


def held_halo(shape: tuple[int, ...], steps: Sequence[Step], meta: Mapping[str, Any]) -> tuple[int, int]:
    """How many steps are given some integrations after the other, since a series is long, and the halo of the others.

    Parameters
    ----------
    shape
        Of the exposure (..., y, x).
    steps
        Those of a pass, in order.
    """
    halo = sum(step.halo for step in steps)
    smallest = (min(16, shape[-2]) + 2 * halo) * (min(64, shape[-1]) + 2 * halo)
    if len(shape) < 4 or 4 * int(np.prod(shape[:-2], dtype=int)) * smallest <= _LONG_BYTES:
        return 0, halo
    count = next((place for place, step in enumerate(steps) if not step.by_integration(meta)), len(steps))
    return count, sum(step.halo for step in steps[count:])


def some_integrations(block: RampBlock, integrations: slice) -> RampBlock:
    """Some integrations of a block, as views."""
    zeroframe = None if block.zeroframe is None else block.zeroframe[integrations]
    return replace(block, sci=block.sci[integrations], groupdq=block.groupdq[integrations], zeroframe=zeroframe)


def band_height(shape: tuple[int, ...]) -> int:
    """Rows of a tile of a long series, of ``shape`` (integration, group, y, x), that are finished together."""
    return min(max(_BAND_BYTES // (4 * shape[0] * shape[1] * shape[3]), 1), shape[2])


def bands(block: Block) -> Iterator[RampBlock]:
    """The inner part of a ramp block that has no products yet, some rows after the other, as copies."""
    assert isinstance(block, RampBlock)
    own, dark = crop(block), block.average_dark_current
    rows, columns = block.window.inner
    height = band_height(own.sci.shape)
    for start in range(0, own.sci.shape[2], height):
        part = slice(start, min(start + height, own.sci.shape[2]))
        window = Window.plain(own.window.y0 + part.start, own.window.y0 + part.stop, own.window.x0, own.window.x1)
        zeroframe = None if own.zeroframe is None else np.ascontiguousarray(own.zeroframe[:, part])
        sci, groupdq = (np.ascontiguousarray(array[:, :, part]) for array in (own.sci, own.groupdq))
        band = RampBlock(window, sci, groupdq, np.ascontiguousarray(own.pixeldq[part]), zeroframe)
        band.average_dark_current = dark[rows, columns][part] if isinstance(dark, np.ndarray) and dark.ndim else dark
        yield band


def crop(block: RampBlock) -> RampBlock:
    """The inner part of a ramp block, as views."""
    rows, columns = block.window.inner
    window = block.window
    zeroframe = None if block.zeroframe is None else block.zeroframe[..., rows, columns]
    return RampBlock(
        Window.plain(window.inner_y0, window.inner_y1, window.inner_x0, window.inner_x1),
        block.sci[..., rows, columns],
        block.groupdq[..., rows, columns],
        block.pixeldq[..., rows, columns],
        zeroframe,
    )


def open_references(item: StepPlan) -> dict[str, Reference | None]:
    """The references of a step, opened; None stands for N/A."""
    return references_of(item.references)


@dataclass
class Pass:
    """The block steps of a plan made ready for one exposure.

    Parameters
    ----------
    plan
        What to do.
    meta
        Metadata of the exposure.
    source
        Where its pixels come from.
    gathered
        Quantities gathered before, by step name; None to gather now.
    scratch
        Folder for temporary files that all workers see; None for a pass that makes none.

    Attributes
    ----------
    kept
        The rows of the source that make up the frame which tiles and strips count, if not all do.
    early
        Steps that are given some integrations of a tile after the other, since the series is long.
    held_halo
        Pixels of neighbours that the other steps need.

    Raises
    ------
    StepError, ReferenceFileError
        If a step cannot be prepared.
    """

    plan: ExposurePlan
    meta: Mapping[str, Any]
    source: Source
    gathered: Mapping[str, Any] | None = None
    scratch: str | None = None
    kept: KeptRows | None = field(init=False, default=None)
    steps: list[Prepared] = field(init=False, default_factory=list)
    skipped: dict[str, str] = field(init=False, default_factory=dict)
    early: int = field(init=False, default=0)
    held_halo: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.meta = counted(self.meta, self.source.shape)
        for item in self.plan.steps:
            if item.step.kind in ("metadata", "association"):
                continue
            if item.skip is not None:
                self._skip(item, item.skip)
                continue
            if item.step.kind != "block":
                remedy = f"skip it: --steps.{item.name}.skip=true"
                raise StepError(self.source.name, item.name, "it needs the whole exposure at once", remedy)
            started = time.thread_time()
            at_step(item.name)
            try:
                references = open_references(item)
                reason = item.step.reference_skip_reason(self.meta, references)
                if reason is not None:
                    instead = item.step.left_over(self.meta, references)
                    self._skip(item, reason, instead)
                    if instead is None:
                        continue
                    item = replace(item, step=instead)
                prepared = Prepared(item, item.step.prepare(self.meta, references))
                self.steps.append(prepared)
                self._gather(prepared)
                prepared.seconds += time.thread_time() - started
            except JwstdaskError:
                raise
            except Exception as error:
                raise StepError(self.source.name, item.name, reason_of(error), place="preparation") from error
        self.kept = self._kept()
        self.early, self.held_halo = self._early()

    def _gather(self, prepared: Prepared) -> None:
        """Gather for the last one of the steps, unless that is done."""
        step = prepared.plan.step
        if self.gathered is not None:
            prepared.gathered = self.gathered.get(prepared.plan.name)
        elif windows := step.gather_windows(self.meta):
            stop = len(self.steps) - 1
            if step.streams:
                blocks = self._walks(windows, stop)
                prepared.gathered = step.gather_stream(self.meta, prepared.data, blocks, self.scratch)
            else:
                prepared.gathered = step.gather(self.meta, prepared.data, list(self._blocks(windows, stop)))

    def _early(self) -> tuple[int, int]:
        count, halo = held_halo(self.source.shape, [item.step for item in self.steps], self.meta)
        names = {item.plan.name for item in self.steps[: count + 1]}
        saved = any(tapped_step(tap)[0] in names for tap in self.plan.taps)
        # What is saved on the way, and what looks at the frame, is taken from tiles with the whole halo.
        whole = saved or self.kept is not None or self.frame_step is not None or superstripes(self.meta) > 0
        if count == 0 or whole or self.meta.get("meta.exposure.type") in GUIDER or not self.source.in_parts:
            return 0, self.halo
        return count, halo

    def _kept(self) -> KeptRows | None:
        rows = next((rows for item in self.steps if (rows := item.step.kept_rows(self.meta)) is not None), None)
        if rows is None:
            return None
        # What is saved before the other rows are dropped has all of them.
        early = self._dropping is None or any(not self._dropped(name) for name in self.plan.taps)
        return KeptRows(rows, self.source.shape[-2], early)

    @property
    def _dropping(self) -> int | None:
        """Index of the step that drops rows, or None."""
        return next((index for index, item in enumerate(self.steps) if item.step.drops_rows(self.meta)), None)

    def _dropped(self, after: str | None) -> bool:
        """Whether rows have been dropped after a step, ``before:NAME`` for before it; None for after all."""
        dropping = self._dropping
        if dropping is None or after is None:
            return dropping is not None
        names = [item.plan.name for item in self.steps]
        step, _ = tapped_step(after)
        place = names.index(step) if step in names else len(names)
        return dropping < place or (dropping == place and not after.startswith("before:"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the science array in the frame that tiles and strips count."""
        rows = self.source.shape[-2] if self.kept is None else self.kept.rows.size
        return (*self.source.shape[:-2], rows, self.source.shape[-1])

    def shape_after(self, step: str | None) -> tuple[int, ...]:
        """Shape of the science array after a step, ``before:NAME`` for before it; None for after all."""
        return self.shape if self._dropped(step) else self.source.shape

    def rows_after(self, step: str | None, rows: tuple[int, int]) -> tuple[int, int]:
        """Rows of a strip in what is saved after a step (as for :meth:`shape_after`)."""
        return rows if self.kept is None or self._dropped(step) else self.kept.span(rows)

    def _skip(self, item: StepPlan, reason: str, instead: Step | None = None) -> None:
        self.skipped[item.name] = reason
        if instead is None and self._taps_after(item.name):
            self.steps.append(Prepared(replace(item, step=Idle()), None))

    def _taps_after(self, step: str) -> list[str]:
        """Keys of what is saved after a step."""
        return [tap for tap in self.plan.taps if tapped_step(tap)[0] == step and not tap.startswith("before:")]

    def block(self, window: Window, integrations: slice = slice(None)) -> Block:
        """A fresh block of the window, as its EXP_TYPE wants it."""
        if self.meta.get("meta.exposure.type") in GUIDER:
            return self.source.guider_block(window)
        block = self.source.block(window, integrations)
        count = superstripes(self.meta)
        if count > 0 and isinstance(block, RampBlock) and block.pixeldq.ndim == 2:
            # An exposure without flags.
            block.pixeldq = np.zeros((count, *window.shape), np.uint32)
        return block

    def tile(self, window: Window, room: dict[str, np.ndarray] | None = None) -> Block:
        """A block of a window of :attr:`shape`'s frame that has gone through the early steps.

        ``room`` is memory for the tiles of a long series, one after the other: :meth:`_room`.
        """
        if self.early:
            return self._by_integrations(window, room or self._room(*window.shape))
        return self.block(window if self.kept is None else self.kept.outer(window))

    def _room(self, rows: int, columns: int) -> dict[str, np.ndarray]:
        """Memory for blocks of so many rows and columns, halo included, if the series is long.

        It is taken once for all tiles: large blocks that are freed are not always given back.
        """
        size = int(np.prod(self.source.shape[:-2], dtype=np.int64)) * rows * columns
        return {name: np.empty(size, _DTYPES[name]) for name in ("sci", "groupdq")} if self.early else {}

    def _by_integrations(self, window: Window, room: dict[str, np.ndarray]) -> RampBlock:
        halo = sum(item.step.halo for item in self.steps[: self.early])
        wide = Window.around(window.y0, window.y1, window.x0, window.x1, halo, frame_of(self.source.shape))
        inner = (..., *wide.inner)
        nints, ngroups = self.source.shape[:2]
        count = max(TILE_BYTES // (4 * ngroups * wide.shape[0] * wide.shape[1]), 1)
        wide = wide.with_inner(window)
        whole: RampBlock | None = None
        for start in range(0, nints, count):
            part = slice(start, min(start + count, nints))
            block = self.block(wide, part)
            assert isinstance(block, RampBlock)
            self.apply(block, 0, self.early, integrations=part)
            if whole is None:
                shape = (nints, ngroups, *window.shape)
                zeroframe = None if block.zeroframe is None else np.empty((nints, *window.shape), np.float32)
                flags = np.zeros(window.shape, np.uint32)
                size = int(np.prod(shape, dtype=np.int64))
                sci, groupdq = (room[name][:size].reshape(shape) for name in ("sci", "groupdq"))
                whole = RampBlock(window, sci, groupdq, flags, zeroframe)
            whole.sci[part], whole.groupdq[part] = block.sci[inner], block.groupdq[inner]
            whole.pixeldq |= block.pixeldq[inner]
            if whole.zeroframe is not None and block.zeroframe is not None:
                whole.zeroframe[part] = block.zeroframe[inner]
            dark = block.average_dark_current
            whole.average_dark_current = dark[inner] if isinstance(dark, np.ndarray) and dark.ndim else dark
            add_counts(whole.tally, block.tally)
        assert whole is not None
        return whole

    def _blocks(self, windows: list[Window], stop: int) -> Iterator[RampBlock]:
        """One walk over windows that have gone through the steps before ``stop``."""
        return self._walks(windows, stop)()

    def _walks(self, windows: list[Window], stop: int) -> Callable[..., Iterator[RampBlock]]:
        """Walks over windows that have gone through the steps before ``stop``, as :meth:`Step.gather_stream` wants."""
        alone = self.steps[stop].step.gathers_alone(self.meta)
        halo = 0 if alone else sum(item.step.halo for item in self.steps[:stop])
        in_parts = self.source.in_parts and all(item.step.by_integration(self.meta) for item in self.steps[:stop])
        held: list[RampBlock] = []

        def walk(
            integrations: slice = slice(None), chosen: Callable[[Window], bool] = lambda window: True
        ) -> Iterator[RampBlock]:
            if in_parts or integrations == slice(None):
                wanted = [window for window in windows if chosen(window)]
                return (crop(self._upstream(window, stop, halo, integrations)) for window in wanted)
            if not held:
                held.extend(walk())
            blocks = (block for block, window in zip(held, windows, strict=True) if chosen(window))
            return (some_integrations(block, integrations) for block in blocks)

        return walk

    def _upstream(self, window: Window, stop: int, halo: int, integrations: slice) -> RampBlock:
        """A block of a window that has gone through the steps before ``stop``."""
        wide = Window.around(window.y0, window.y1, window.x0, window.x1, halo, frame_of(self.source.shape))
        block = self.block(wide.with_inner(window), integrations)
        assert isinstance(block, RampBlock)
        self.apply(block, 0, stop, integrations=integrations)
        return block

    @property
    def halo(self) -> int:
        """Pixels of neighbours that all steps together need."""
        return sum(item.step.halo for item in self.steps)

    @property
    def frame_step(self) -> int | None:
        """Index of the step that revises the flags of the whole frame, or None."""
        for index, item in enumerate(self.steps):
            if item.step.frame_gather(self.meta, item.data):
                return index
        return None

    @property
    def frame_arrays(self) -> tuple[str, ...]:
        """Arrays of the whole frame, besides the flags, that the frame step needs."""
        index = self.frame_step
        return () if index is None else tuple(getattr(self.steps[index].step, "frame_arrays", ()))

    def frame(
        self, allocate: Callable[[str, tuple[int, ...], type], np.ndarray], whole: bool = True
    ) -> RampBlock | None:
        """Where the ramp of the whole frame is held after the frame step, not filled; None if there is no such step.

        Parameters
        ----------
        allocate
            Makes an array, given its name, shape and dtype.
        whole
            All that the steps after it work on; otherwise what the frame step needs only.
        """
        if self.frame_step is None:
            return None
        shape, dark = self.shape, None
        kinds: dict[str, tuple[tuple[int, ...], type]] = {"groupdq": (shape, np.uint8)}
        if whole:
            sample = self.sample(self.frame_step + 1)
            assert isinstance(sample, RampBlock)
            dark = sample.average_dark_current
            kinds = {name: ((*array.shape[:-2], *shape[-2:]), array.dtype.type) for name, array in held(sample).items()}
        else:
            for name in self.frame_arrays:
                kinds[name] = shape[-2:] if name == "pixeldq" else shape, _DTYPES[name]
        arrays = {name: allocate(name, *kind) for name, kind in kinds.items()}
        return whole_frame(shape, arrays, None if isinstance(dark, np.ndarray) else dark)

    def sample(self, stop: int | None = None, tap: Callable[[str, Block], None] | None = None) -> Block:
        """A small block that has gone through the steps before ``stop``, or all, and counts for nothing."""
        rows, columns = tile_shape(self.shape, self.held_halo)
        window = Window.around(0, min(8, rows), 0, min(16, columns), self.held_halo, frame_of(self.shape))
        block = self.tile(window)
        seconds = [item.seconds for item in self.steps]
        self.apply(block, self.early, len(self.steps) if stop is None else stop, tap)
        for item, spent in zip(self.steps, seconds, strict=True):
            item.seconds = spent
        return block

    def shipped(self) -> dict[str, Any]:
        """Gathered quantities by step name, to give to another process."""
        return {item.plan.name: item.gathered for item in self.steps if item.gathered is not None}

    def apply(
        self,
        block: Block,
        start: int,
        stop: int,
        tap: Callable[[str, Block], None] | None = None,
        integrations: slice = slice(None),
    ) -> None:
        """Send a block, of all integrations or of some, through the steps start:stop."""
        tap = tap if self.plan.taps else None
        for item in self.steps[start:stop]:
            if tap is not None and f"before:{item.plan.name}" in self.plan.taps:
                tap(f"before:{item.plan.name}", block)
            clock = time.thread_time()
            at_step(item.plan.name)
            try:
                every = integrations == slice(None)
                gathered = item.gathered if every else item.step.gathered_of(item.gathered, integrations)
                item.step.apply(block, item.data, gathered)
            except JwstdaskError:
                raise
            except Exception as error:
                window = block.window
                place = f"rows {window.y0}:{window.y1}, columns {window.x0}:{window.x1}"
                raise StepError(self.source.name, item.plan.name, reason_of(error), place=place) from error
            item.seconds += time.thread_time() - clock
            if item.step.alias == "dq_init" and integrations.start in (None, 0):
                count_mask(block)
            if tap is not None:
                for key in self._taps_after(item.plan.name):
                    tap(key, block)

    def strip(
        self, rows: tuple[int, int], sink: Sink, frame: RampBlock | None = None, revised: bool = False
    ) -> dict[str, float]:
        """Process a strip of rows.

        Parameters
        ----------
        rows
            First and last row, end exclusive.
        sink
            Where results go.
        frame
            The whole frame, where a step must see it: the strip goes no further than that step, and is put there.
        revised
            Take up where ``frame`` was revised. If it has no samples, the steps before are gone through once more.

        Returns
        -------
        tally
            Counts over the strip by name.
        """
        tally: dict[str, float] = {}
        if frame is not None and revised and frame.sci.size:
            self._held_strip(rows, sink, frame, tally)
            return tally
        end = len(self.steps)
        tile, frame_shape, halo = tile_shape(self.shape, self.held_halo), frame_of(self.shape), self.held_halo
        room = self._room(*(min(size + 2 * halo, most) for size, most in zip(tile, frame_shape, strict=True)))
        for window in tiles(rows, frame_shape, tile, halo):
            block = self.tile(window, room)
            parts: Iterable[Block] = (block,)
            start = 0
            if self.early:
                # The last results need no neighbours, and they are as large as the ramp where that has few groups.
                start = max((place + 1 for place in range(self.early, end) if self.steps[place].step.halo), default=0)
                start = max(start, self.early)
                self.apply(block, self.early, start, sink.tap)
                add_counts(tally, block.tally)
                parts = bands(block)
            elif frame is not None:
                self._to_frame_step(block, sink, frame, revised)
                start = end
            for part in parts:
                self.apply(part, start, end, sink.tap)
                if frame is None or revised:
                    sink.products(part)
                count_groups(part, tally)
                add_counts(tally, part.tally)
            # Before the next one is read.
            del block, parts, part
        return tally

    def _to_frame_step(self, block: Block, sink: Sink, frame: RampBlock, revised: bool) -> None:
        assert isinstance(block, RampBlock) and self.frame_step is not None
        index = self.frame_step
        # What is saved of the steps before has been saved in the first walk.
        self.apply(block, 0, index, None if revised else sink.tap)
        # of the frame, where a step has dropped rows between its own
        inner, absolute = (..., *block.window.inner), (..., *block.window.inner_absolute)
        if revised:
            item = self.steps[index]
            item.step.apply_revised(block, item.data, frame.groupdq[absolute], item.gathered)
            self._after_frame_step(block, sink)
            return
        self.apply(block, index, index + 1)
        found = held(block)
        for name, array in held(frame).items():
            array[absolute] = found[name][inner]

    def _after_frame_step(self, block: RampBlock, sink: Sink) -> None:
        index = self.frame_step
        assert index is not None
        if self.steps[index].plan.name in self.plan.taps:
            sink.tap(self.steps[index].plan.name, block)
        self.apply(block, index + 1, len(self.steps), sink.tap)

    def _held_strip(self, rows: tuple[int, int], sink: Sink, frame: RampBlock, tally: dict[str, float]) -> None:
        assert self.frame_step is not None
        halo = sum(item.step.halo for item in self.steps[self.frame_step + 1 :])
        dark = frame.average_dark_current
        for window in tiles(rows, frame_of(self.shape), tile_shape(self.shape, halo), halo):
            part = (..., window.rows, window.columns)
            block = RampBlock(
                window,
                np.array(frame.sci[part]),
                np.array(frame.groupdq[part]),
                np.array(frame.pixeldq[part]),
                None if frame.zeroframe is None else np.array(frame.zeroframe[part]),
                np.array(dark[part]) if isinstance(dark, np.ndarray) and dark.ndim else dark,
            )
            self._after_frame_step(block, sink)
            sink.products(block)
            add_counts(tally, block.tally)
            del block

    def regather(self, tally: Mapping[str, float], steps: slice = slice(None)) -> bool:
        """Whether one of some steps must be given something else than was gathered, and the blocks be walked again."""
        changed = False
        for item in self.steps[steps]:
            found = item.step.again(self.meta, item.data, item.gathered, tally)
            if found is not None:
                item.gathered, changed = found, True
        return changed

    def contradicted(self, tally: Mapping[str, float], steps: slice) -> str | None:
        """The first of some steps that counts of the whole frame contradict; None if all is well."""
        for item in self.steps[steps]:
            if item.step.again(self.meta, item.data, item.gathered, tally) is not None:
                return item.plan.name
        return None

    def revise(self, frame: RampBlock) -> None:
        """Let the frame step revise the flags of the whole frame in place, and gather what the later ones can of it."""
        index = self.frame_step
        assert index is not None
        item = self.steps[index]
        clock = time.thread_time()
        item.step.revise(self.meta, item.data, frame.groupdq, frame)  # type: ignore[attr-defined]
        item.seconds += time.thread_time() - clock
        for later in self.steps[index + 1 :]:
            found = later.step.of_frame(self.meta, later.data, frame.groupdq)
            if found is not None:
                later.gathered = found

    def write_side_products(self) -> None:
        """Let the steps write what they save besides the products, once all blocks are done."""
        for item in self.steps:
            try:
                item.step.write_side_products(self.meta, item.data)
            except JwstdaskError:
                raise
            except Exception as error:
                raise StepError(self.source.name, item.plan.name, reason_of(error), place="saving") from error

    def records(self) -> list[StepRecord]:
        """What became of each step, in order of the plan."""
        done = {item.plan.name: item for item in self.steps}
        records = []
        for item in self.plan.steps:
            if item.name in self.skipped:
                records.append(StepRecord(item.name, "SKIPPED", self.skipped[item.name]))
            elif item.name in done and not isinstance(done[item.name].step, Idle):
                records.append(StepRecord(item.name, "COMPLETE", seconds=done[item.name].seconds))
        return records


def whole_frame(
    shape: tuple[int, ...], arrays: Mapping[str, np.ndarray], average_dark_current: float | None = None
) -> RampBlock:
    """A block of the whole frame of some of its arrays; the others are empty."""
    return RampBlock(
        Window.plain(0, shape[-2], 0, shape[-1]),
        arrays.get("sci", np.empty((0, 0, 0, 0), np.float32)),
        arrays["groupdq"],
        arrays.get("pixeldq", np.empty((0, 0), np.uint32)),
        arrays.get("zeroframe"),
        arrays.get("avdrkcur", average_dark_current),
    )


def held(block: RampBlock) -> dict[str, np.ndarray]:
    """The arrays of a ramp block that are there and are not the same number for all pixels."""
    dark = block.average_dark_current
    arrays = {name: array for name, array in block.arrays().items() if array.size and name != "avdrkcur"}
    return {**arrays, "avdrkcur": dark} if isinstance(dark, np.ndarray) and dark.ndim else arrays


def strips(shape: tuple[int, ...], rows: int) -> list[tuple[int, int]]:
    """Row ranges that cover a frame."""
    return [(start, min(start + rows, shape[-2])) for start in range(0, shape[-2], rows)]


def merge_tallies(tallies: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Counts of all strips, summed in the order of the strips."""
    total: dict[str, float] = {}
    for tally in tallies:
        add_counts(total, tally)
    return total


def add_counts(total: dict[str, Any], tally: Mapping[str, Any]) -> None:
    """Add the counts of a tile or strip, numbers or arrays, to others."""
    for name, value in tally.items():
        total[name] = total.get(name, 0.0) + value


def reason_of(error: BaseException) -> str:
    """What went wrong in one line: the keyword that is missing, or type and first line of the error."""
    if isinstance(error, KeyError) and str(error.args[0] if error.args else "").startswith("meta."):
        name = error.args[0]
        keyword = keyword_names("RampModel", [name]).get(name, ("", name))[1]
        return f"keyword {keyword} ({name}) is missing. Get the file again from MAST, or set the keyword"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
