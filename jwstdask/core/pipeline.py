"""What a pipeline is: a table of branches, steps in order and products. No logic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from jwstdask.core.errors import PlanError
from jwstdask.core.exposure_types import check_instrument
from jwstdask.core.step import Meta, Parameters


@dataclass(frozen=True)
class Branch:
    """Steps, by name in the pipeline and in order, of the exposures that ``when`` accepts."""

    name: str
    order: tuple[str, ...]
    when: Callable[[Meta], bool] = lambda meta: True


@dataclass(frozen=True, kw_only=True)
class Pipeline(Parameters):
    """Base of all pipelines: jwst's own pipeline parameters as fields, everything else as tables."""

    alias: ClassVar[str]
    """jwst's alias, such as ``calwebb_detector1``."""
    class_name: ClassVar[str]
    """Name of jwst's class, such as ``Detector1Pipeline``."""
    stage: ClassVar[int]
    """1 (ramps to slopes), 2 (one exposure) or 3 (an association)."""
    step_defs: ClassVar[Mapping[str, str]]
    """Name of each step in the pipeline (as in ``--steps.<name>.<parameter>``) to its alias, in jwst's order."""
    branches: ClassVar[tuple[Branch, ...]]
    exp_types: ClassVar[frozenset[str]]
    """EXP_TYPE values that the pipeline takes."""

    @classmethod
    def branch(cls, meta: Meta) -> Branch:
        """The branch that takes an exposure.

        Raises
        ------
        PlanError
            If no branch does, or INSTRUME and EXP_TYPE contradict each other.
        """
        check_instrument(meta)
        for branch in cls.branches:
            if branch.when(meta):
                return branch
        raise PlanError(
            f"{cls.alias} has no branch for {meta.get('meta.instrument.name')} {meta.get('meta.exposure.type')}"
        )
