"""What a step is: a frozen dataclass of parameters that states its facts over pure kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from jwstdask.core.block import RampBlock, Window
from jwstdask.core.params import par

Meta = Mapping[str, Any]
"""Metadata of an exposure under jwst's dotted names, such as ``meta.exposure.type``."""


class SidePath(Protocol):
    """Makes the path of a file that is written besides the product; None for what shall not be written."""

    def __call__(self, suffix: str | None, base: str | None = None) -> str | None:
        """``base`` is a file to name it after, empty for the exposure as last saved; the product's by default."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameters that jwst gives every step and pipeline."""

    pre_hooks: tuple[Any, ...] = par([], "callables, classes or commands run before the step")
    post_hooks: tuple[Any, ...] = par([], "callables, classes or commands run after the step")
    output_file: str | None = par(None, "name of the output file")
    output_dir: str | None = par(None, "folder for output files")
    output_ext: str = par(".fits", "extension of output files")
    output_use_model: bool = par(False, "name the output after the input exposure")
    output_use_index: bool = par(True, "accepted for jwst's sake; without effect there too")
    save_results: bool = par(False, "save the result")
    skip: bool = par(False, "do not run")
    suffix: str | None = par(None, "suffix of the output file")
    search_output_file: bool = par(True, "take output_file from the enclosing pipeline")
    input_dir: str | None = par(None, "folder of input files")


@dataclass(frozen=True, kw_only=True)
class Step(Parameters):
    """Base of all steps.

    A step on blocks implements :meth:`prepare` and :meth:`apply`. A step that couples more than a block declares what
    it gathers: :meth:`gather_windows` for parts of the frame it must see first (reference pixels), or
    :meth:`frame_gather` for the flags of the whole frame (snowballs). A step of kind ``frame`` implements
    :meth:`prepare`, :meth:`frame_shared` and :meth:`frame_integration`.
    """

    alias: ClassVar[str]
    """jwst's alias, such as ``jump``."""
    class_name: ClassVar[str]
    """Name of jwst's class, such as ``JumpStep``."""
    reference_types: ClassVar[tuple[str, ...]] = ()
    status: ClassVar[str]
    """Node under ``meta.cal_step`` that records COMPLETE or SKIPPED."""
    indispensable: ClassVar[tuple[str, ...]] = ()
    """Reference types without which (``N/A``) the exposure fails; without others the step does nothing."""
    status_if_undone: ClassVar[str] = "SKIPPED"
    """What is recorded where the step finds nothing to do while it runs."""
    status_by_member: ClassVar[bool] = False
    """True for a step that records its status in each member by itself."""
    kind: ClassVar[str] = "block"
    """``block``, ``frame`` (whole frames), ``metadata`` (no pixel work) or ``association`` (several exposures)."""
    superstripes: ClassVar[bool] = False
    """Whether the step works on exposures as they are read: in superstripes (:meth:`RampBlock.superstripes`), or with
    the reference samples of IRS2 between the rows."""
    joins_superstripes: ClassVar[bool] = False
    """Whether superstripes make up a frame after the step."""
    available: ClassVar[bool] = True
    """False for a step whose place and parameters are known but which this version cannot run."""
    streams: ClassVar[bool] = False
    """Whether the step gathers by :meth:`gather_stream`, block after block, not by :meth:`gather`."""
    counted: ClassVar[tuple[str, ...]] = ()
    """Metadata that :meth:`finish` derives from counts over the whole frame."""
    equations: ClassVar[str] = ""
    """What is computed, for ``jwstdask explain``; lines of at most 120 characters."""
    sources: ClassVar[str] = ""
    """Where the method is described: papers, documents."""

    @property
    def halo(self) -> int:
        """Pixels of neighbours needed around a block."""
        return 0

    def check(self, meta: Meta) -> None:
        """Refuse parameters that cannot work on this exposure (ParameterError), when planning."""

    def skip_reason(self, meta: Meta) -> str | None:
        """Why the step has nothing to do on this exposure, from its metadata; None if it runs."""
        return None

    def references_for(self, meta: Meta) -> tuple[str, ...]:
        """Reference types that this exposure needs, of :attr:`reference_types`."""
        return self.reference_types

    def stated_references(self, meta: Meta) -> tuple[str, ...]:
        """Those of :meth:`references_for` that products name."""
        return self.references_for(meta)

    def references_when_skipped(self, meta: Meta) -> tuple[str, ...]:
        """Reference types that products name although :meth:`skip_reason` keeps the step from running."""
        return ()

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        """Why the step cannot run with these references (such as ``N/A``); None if it runs."""
        return next(
            (f"no {name} reference for this exposure" for name in self.reference_types if references.get(name) is None),
            None,
        )

    def left_over(self, meta: Meta, references: Mapping[str, Any]) -> Step | None:
        """What is done all the same where :meth:`reference_skip_reason` keeps the step from running."""
        return None

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Any:
        """Constants and reference arrays cut to the science frame, once an exposure."""
        return None

    def kept_rows(self, meta: Meta) -> np.ndarray | None:
        """Rows of the file that the step works on, int64, where reference samples lie between them; None if on all.

        The halo counts these.
        """
        return None

    def drops_rows(self, meta: Meta) -> bool:
        """Whether blocks hold only :meth:`kept_rows` after the step, and their windows count these."""
        return False

    def gather_windows(self, meta: Meta) -> list[Window]:
        """Windows whose inner parts, after all earlier steps, this step must see before it can run."""
        return []

    def gathers_alone(self, meta: Meta) -> bool:
        """Whether what the step gathers does not depend on the pixels around its windows."""
        return False

    def gather(self, meta: Meta, prepared: Any, blocks: list[RampBlock]) -> Any:
        """Small quantities from the gathered blocks, handed to :meth:`apply`."""
        return None

    def gather_stream(
        self, meta: Meta, prepared: Any, blocks: Callable[..., Iterator[RampBlock]], scratch: str | None = None
    ) -> Any:
        """Quantities from more than fits into memory, handed to :meth:`apply`.

        Each call of ``blocks`` walks once over the blocks of :meth:`gather_windows`, which may be changed in place;
        given a slice, over some integrations of them; given a function ``chosen`` of a window, over those that it
        chooses.
        ``scratch`` is a folder for temporary files that all workers see; None where there shall be no files.
        """
        return None

    def by_integration(self, meta: Meta) -> bool:
        """Whether a block of some integrations becomes what it would among all of them.

        What was gathered is cut by :meth:`gathered_of`. Of very long series, such steps are given some integrations
        after the other.
        """
        return False

    def gathered_of(self, gathered: Any, integrations: slice) -> Any:
        """What was gathered, for some integrations only."""
        return gathered

    def of_exposure(self, meta: Meta, path: str) -> Step:
        """The step, told which exposure it is for, where this is needed to find files that the exposure names."""
        return self

    def with_side_products(self, path: SidePath) -> Step:
        """The step, told where files that it writes besides the product go."""
        return self

    def apply(self, block: Any, prepared: Any, gathered: Any = None) -> None:
        """Work on a block in place."""
        raise NotImplementedError

    def again(self, meta: Meta, prepared: Any, gathered: Any, tally: Mapping[str, float]) -> Any:
        """What should have been gathered, where the counts of all blocks contradict what was; None if all is well.

        The blocks are then walked once more with it.
        """
        return None

    def of_frame(self, meta: Meta, prepared: Any, groupdq: np.ndarray) -> Any:
        """What is gathered from the flags of the whole frame, uint8 (integration, group, y, x), where there are these.

        That is, after a step that revises them; None for nothing.
        """
        return None

    def write_side_products(self, meta: Meta, prepared: Any) -> None:
        """Called once after all blocks, for a step on blocks: write what is saved besides the product."""

    def apply_revised(self, block: Any, prepared: Any, groupdq: np.ndarray, gathered: Any = None) -> None:
        """Work on a block once more, in place, whose inner part has revised flags (integration, group, y, x)."""
        self.apply(block, prepared, gathered)
        block.groupdq[..., *block.window.inner] = groupdq

    def frame_gather(self, meta: Meta, prepared: Any) -> bool:
        """True if :meth:`revise` must see the flags of the whole frame after :meth:`apply`."""
        return False

    def frame_shared(self, meta: Meta, prepared: Any, exposure: Any) -> Any:
        """What all integrations need, for a step on whole frames.

        ``exposure`` is a block of the whole exposure as the earlier steps left it, whose arrays may be memory-mapped
        and of any byte order. :class:`~jwstdask.core.errors.StepUndone` leaves it as it is.
        """
        return None

    def frame_integration(self, meta: Meta, prepared: Any, shared: Any, exposure: Any, integration: int) -> None:
        """Work on one integration of the exposure in place, for a step on whole frames.

        :class:`~jwstdask.core.errors.StepUndone` leaves the whole exposure as it was.
        """
        raise NotImplementedError

    def frame_finish(self, meta: Meta, shared: Any, done: bool) -> None:
        """Called after all integrations, ``done`` or not, for a step on whole frames: write what is saved besides."""

    def finish(self, meta: Meta, prepared: Any, tally: Mapping[str, float]) -> dict[str, Any]:
        """Metadata that the step sets, given the counts of all blocks."""
        return {}
