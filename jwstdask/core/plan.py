"""Plans: everything that is decided before a pixel is read. Small, picklable, printable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jwstdask.core.step import Step


@dataclass(frozen=True)
class StepPlan:
    """One step of a plan.

    Attributes
    ----------
    name
        Name in the pipeline.
    step
        The step with its resolved parameters.
    skip
        Reason for not running, or None.
    references
        Reference type to path; None stands for ``N/A``.
    origins
        Where each parameter that is not a default comes from.
    recorded
        Whether the products state the step's status; jwst does not call some steps at all.
    """

    name: str
    step: Step
    skip: str | None = None
    references: Mapping[str, str | None] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    recorded: bool = True

    def named_references(self, meta: Mapping[str, Any]) -> tuple[str, ...]:
        """Reference types that products name: also of a step that asks for them before it finds a reason to skip."""
        if self.skip is None:
            return self.step.stated_references(meta)
        return () if self.step.skip else self.step.references_when_skipped(meta)


@dataclass(frozen=True)
class Chunks:
    """How an exposure is divided: strips are written at once, tiles go through the steps at once.

    Attributes
    ----------
    rows
        Rows of a strip.
    strips
        Number of strips.
    tile
        Rows and columns of a tile, without what it overlaps its neighbours.
    halo
        Pixels by which tiles overlap on each side.
    """

    rows: int
    strips: int
    tile: tuple[int, int]
    halo: int


@dataclass(frozen=True)
class Cost:
    """Predicted cost of a plan.

    Attributes
    ----------
    memory
        Peak anonymous memory above the interpreter's own [bytes].
    read, written
        Bytes read (references included) and written.
    cpu
        CPU time [s].
    chunks
        How the exposure is divided.
    """

    memory: int = 0
    read: int = 0
    written: int = 0
    cpu: float = 0.0
    chunks: Chunks | None = None


def tapped_step(tap: str) -> tuple[str, str]:
    """Name of the step of a key of `ExposurePlan.taps`, and the kind of product; that is empty for the whole."""
    name, _, kind = tap.removeprefix("before:").partition(".")
    return name, kind


@dataclass(frozen=True)
class ExposurePlan:
    """What will be done with one exposure.

    Attributes
    ----------
    path
        Input file or URL.
    pipeline
        Alias of the pipeline, or of the single step.
    exp_type
        EXP_TYPE of the exposure.
    branch
        Branch of the pipeline.
    steps
        Steps in order, the skipped ones too.
    products
        Kind of product (``rate``, ``rateints``, ``ramp``, ``cal`` ...) to its final path.
    taps
        Step name to the final path of the intermediate product saved after it; ``before:NAME`` for one saved as it
        enters the step, ``NAME.KIND`` for one kind of product where the step has several (see `tapped_step`).
    members
        Other inputs by member type (``background``...).
    context
        CRDS context.
    updates
        Metadata set by the plan itself: reference names, context, association.
    shape
        Shape of the science array.
    detector, start
        DETECTOR, and EXPSTART [MJD]: exposures of a detector may have to be done in order.
    cost
        Prediction.
    error
        Why the exposure cannot be processed, or None.
    """

    path: str
    pipeline: str
    exp_type: str = ""
    branch: str = ""
    steps: tuple[StepPlan, ...] = ()
    products: Mapping[str, str] = field(default_factory=dict)
    taps: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    context: str = ""
    updates: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    detector: str = ""
    start: float = 0.0
    cost: Cost = Cost()
    error: str | None = None

    @property
    def active(self) -> tuple[StepPlan, ...]:
        """The steps that run."""
        return tuple(item for item in self.steps if item.skip is None)

    def failed(self, reason: str) -> ExposurePlan:
        """This plan with an error."""
        return replace(self, error=reason)


@dataclass(frozen=True)
class StepRecord:
    """What became of a step: COMPLETE, SKIPPED or FAILED, why, and its CPU time [s]."""

    name: str
    status: str
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What became of a plan.

    Attributes
    ----------
    path
        Input.
    pipeline
        Pipeline or step alias.
    products
        Kind of product to the path written.
    steps
        What became of each step.
    error
        One-line reason of failure, or None.
    wall, cpu
        Seconds.
    memory
        Peak resident memory of the process [bytes].
    census
        Counts of flags: ``groups`` (samples of the ramp), ``mask`` (pixels, before the exposure is looked at) or kind
        of product to flag name to number, with ``all`` elements and those with ``any`` flag.
    warnings
        Step, text and count of each warning.
    worker
        Where it was done: machine, process, thread.
    started
        Seconds since 1970; 0 if it was not.
    short
        Whether the error is too little memory.
    """

    path: str
    pipeline: str
    products: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[StepRecord, ...] = ()
    error: str | None = None
    traceback: str = ""
    wall: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    census: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    warnings: tuple[tuple[str, str, int], ...] = ()
    worker: str = ""
    started: float = 0.0
    short: bool = False


@dataclass(frozen=True)
class AssociationPlan:
    """What will be done with an association of calibrated exposures.

    Attributes
    ----------
    name
        Name of the product, without suffix.
    pipeline
        Alias of the pipeline.
    members
        Paths of the science members, in the association's order.
    steps
        Steps in order, the skipped ones too.
    products
        Kind of product (``i2d``, ``cat``, ``segm``) to its final path.
    member_products
        Step name to the final path of each member as it is saved after the step, such as ``crf``.
    intermediate
        Suffix of what outlier_detection saves besides to its path for each member.
    updates
        Metadata set by the plan itself.
    member_updates
        Metadata of each member that the association sets; empty for none.
    context
        CRDS context.
    error
        Why the association cannot be processed, or None.
    """

    name: str
    pipeline: str
    members: tuple[str, ...]
    branch: str = ""
    steps: tuple[StepPlan, ...] = ()
    products: Mapping[str, str] = field(default_factory=dict)
    member_products: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    intermediate: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    updates: Mapping[str, Any] = field(default_factory=dict)
    member_updates: tuple[Mapping[str, Any], ...] = ()
    context: str = ""
    error: str | None = None

    @property
    def path(self) -> str:
        """Name for messages and reports."""
        return self.name

    @property
    def active(self) -> tuple[StepPlan, ...]:
        """The steps that run."""
        return tuple(item for item in self.steps if item.skip is None)
