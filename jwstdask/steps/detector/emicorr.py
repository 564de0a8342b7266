"""Remove electromagnetic interference from MIRI ramps."""

from __future__ import annotations

from dataclasses import dataclass

from jwstdask.core.params import par
from jwstdask.core.step import Step


@dataclass(frozen=True, kw_only=True)
class EmiCorrStep(Step):
    """Remove electromagnetic interference from MIRI ramps."""

    alias = "emicorr"
    class_name = "EmiCorrStep"
    status = "emicorr"
    available = False
    reference_types = ("emicorr",)

    skip: bool = par(True, "do not run")
    algorithm: str = par("joint", "fitting algorithm", choices=("sequential", "joint"))
    nints_to_phase: int | None = par(None, "integrations to phase")
    nbins: int | None = par(None, "bins of a phased wave")
    scale_reference: bool = par(True, "scale the reference wave to the amplitude found")
    onthefly_corr_freq: tuple[float, ...] | None = par(None, "frequencies to correct without a reference", unit="Hz")
    use_n_cycles: int | None = par(3, "cycles used for the phase; None for all")
    fit_ints_separately: bool = par(False, "fit each integration alone (joint)")
    user_supplied_reffile: str | None = par(None, "deprecated: override_emicorr")
    save_intermediate_results: bool = par(False, "save a reference made on the fly")
