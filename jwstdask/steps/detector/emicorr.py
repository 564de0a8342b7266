"""Remove electromagnetic interference from MIRI ramps."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock, Window
from jwstdask.core.dims import integrations_of
from jwstdask.core.errors import InputError, ProductError, ReferenceFileError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.io.asdf import write_tree
from jwstdask.kernels import emicorr, emicorr_sequential
from jwstdask.kernels.emicorr import Median, PhaseSums, Readout, Wave
from jwstdask.kernels.emicorr_sequential import Table
from jwstdask.refs.reference import open_reference

_READ_PATTERNS = ("FAST", "FASTR1", "SLOW", "SLOWR1")

_CLOCKS = {
    "BRIGHTSKY": (162, 86528),
    "FULL_FAST": (271, 277504),
    "FULL_SLOW": (2333, 2388992),
    "MASK1065": (82, 23968),
    "MASK1140": (82, 23968),
    "MASK1550": (82, 23968),
    "MASKLYOT": (90, 32400),
    "SLITLESSPRISM": (28, 15904),
    "SUB128": (44, 11904),
    "SUB256": (96, 29952),
    "SUB64": (28, 8512),
}
"""Clocks of a row and of a frame by subarray, where no reference says."""

_BLOCK_BYTES = 800_000
"""Science bytes of a block that is looked at: as much as a second-level cache holds."""


@dataclass(frozen=True)
class Interference:
    """What is to be removed from an exposure.

    Attributes
    ----------
    readout
        When pixels are read.
    row_clocks, frame_clocks
        Of the subarray.
    names, frequencies
        Of the waves [Hz], in the order of their removal.
    references
        One period of each wave, float (bin,); empty where there is no reference.
    joint
        Lines and wave are fitted together.
    """

    readout: Readout
    row_clocks: int
    frame_clocks: int
    names: tuple[str, ...]
    frequencies: tuple[float, ...]
    references: tuple[np.ndarray, ...]
    joint: bool


@dataclass(frozen=True, kw_only=True)
class EmiCorrStep(Step):
    """Remove electromagnetic interference from MIRI ramps."""

    alias = "emicorr"
    class_name = "EmiCorrStep"
    status = "emicorr"
    reference_types = ("emicorr",)
    streams = True
    equations = (
        "phase = (row clocks * y + samples * (x // 4) + frame clocks * group + ...) / period;\n"
        "SCI - amplitude * wave(phase), amplitude and phase from the straightest ramps (joint)\n"
        "or from residuals folded with the period (sequential)"
    )
    sources = "JWST pipeline documentation, emicorr"

    skip: bool = par(True, "do not run")
    algorithm: str = par("joint", "fitting algorithm", choices=("sequential", "joint"))
    nints_to_phase: int | None = par(None, "integrations to phase (sequential)", ge=1)
    nbins: int | None = par(None, "bins of a phased wave (sequential)", ge=1)
    scale_reference: bool = par(True, "scale the reference wave to the amplitude found (sequential)")
    onthefly_corr_freq: tuple[float, ...] | None = par(
        None, "frequencies to correct without a reference (sequential)", unit="Hz"
    )
    use_n_cycles: int | None = par(3, "cycles used for the phase; None for all (sequential)")
    fit_ints_separately: bool = par(False, "fit each integration alone (joint)")
    user_supplied_reffile: str | None = par(None, "deprecated: override_emicorr")
    save_intermediate_results: bool = par(False, "save a reference made on the fly")

    as_jwst: bool = par(
        True,
        "as jwst: the best phase is not sought around the end of the turn, and later integrations take the next trial "
        "phase, not the nearest; if False, neither (joint)",
        own=True,
    )

    wave_path: str | None = None
    """Where a reference made on the fly is saved; set when planning."""

    def with_side_products(self, path: Callable[[str], str | None]) -> EmiCorrStep:
        wave_path = path("emi_ref_waves")
        if not self.save_intermediate_results or self.onthefly_corr_freq is None or wave_path is None:
            return replace(self, wave_path=None)
        return replace(self, wave_path=os.path.splitext(wave_path)[0] + ".asdf")

    def skip_reason(self, meta: Meta) -> str | None:
        instrument, pattern = meta.get("meta.instrument.name"), str(meta.get("meta.exposure.readpatt"))
        if instrument != "MIRI":
            return f"EMI correction not implemented for instrument: {instrument}"
        if pattern.upper() not in _READ_PATTERNS:
            return f"EMI correction not implemented for read pattern: {pattern}"
        return None

    def references_for(self, meta: Meta) -> tuple[str, ...]:
        own = self.onthefly_corr_freq is not None or self.user_supplied_reffile is not None
        return () if own else self.reference_types

    def reference_skip_reason(self, meta: Meta, references: Mapping[str, Any]) -> str | None:
        reference = self._reference(references)
        if reference is None and self.onthefly_corr_freq is None:
            return "No reference file found"
        groups = int(meta["meta.exposure.ngroups"])
        if groups < 3:
            return f"EMI correction cannot be performed for ngroups={groups}"
        row_clocks, _, names = self._case(meta, reference)
        if row_clocks is None or not names:
            return "No correction match for this configuration"
        return None

    def _reference(self, references: Mapping[str, Any]) -> Any:
        if self.onthefly_corr_freq is not None:
            return None
        if self.user_supplied_reffile is not None:
            return open_reference(self.user_supplied_reffile, self.alias)
        return references.get("emicorr")

    def _case(self, meta: Meta, reference: Any) -> tuple[int | None, int | None, tuple[str, ...]]:
        """Clocks of a row and of a frame, and names of the frequencies, of an exposure's subarray and read pattern."""
        subarray = str(meta.get("meta.subarray.name"))
        speed = "SLOW" if "SLOW" in str(meta.get("meta.exposure.readpatt")).upper() else "FAST"
        if reference is None:
            name = f"{subarray}_{speed}" if subarray == "FULL" else subarray
            clocks = _CLOCKS.get(name, (None, None))
            return *clocks, tuple(repr(frequency) for frequency in self.onthefly_corr_freq or ())
        case = reference.asdf.get("subarray_cases", {}).get(f"{subarray}_{speed}" if "FULL" in subarray else subarray)
        if case is None or not {"rowclocks", "frameclocks"} <= case.keys():
            return None, None, ()
        names = case.get("freqs", {}).get(speed)
        if speed == "SLOW" and names is not None:
            names = names.get(meta.get("meta.instrument.detector"))
        return int(case["rowclocks"]), int(case["frameclocks"]), tuple(names or ())

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Interference:
        exposure = str(meta.get("meta.filename") or "exposure")
        reference = self._reference(references)
        row_clocks, frame_clocks, names = self._case(meta, reference)
        assert row_clocks is not None and frame_clocks is not None
        samples, nx = meta.get("meta.exposure.nsamples"), int(meta["meta.subarray.xsize"])
        if samples is None:
            raise InputError(exposure, "keyword NSAMPLES is missing", "set it: 1 for FAST, 9 for SLOW")
        if nx % emicorr.PACKET:
            raise InputError(exposure, f"{nx} columns are no multiple of the {emicorr.PACKET} outputs", "skip emicorr")
        frequencies: tuple[float, ...] = self.onthefly_corr_freq or ()
        waves: tuple[np.ndarray, ...] = ()
        if reference is not None:
            frequencies, waves = self._waves(reference, names)
        resets = str(meta.get("meta.exposure.readpatt")).upper().endswith("R1")
        readout = Readout(
            int(meta["meta.subarray.ysize"]),
            nx,
            int(meta["meta.exposure.ngroups"]),
            int(samples),
            row_clocks,
            frame_clocks if resets else 0,
            int(nx / emicorr.PACKET + int(meta.get("meta.subarray.xstart") or 1) - 1) == 258,
        )
        joint = self.algorithm == "joint" and reference is not None
        return Interference(readout, row_clocks, frame_clocks, names, frequencies, waves, joint)

    @staticmethod
    def _waves(reference: Any, names: tuple[str, ...]) -> tuple[tuple[float, ...], tuple[np.ndarray, ...]]:
        known = reference.asdf.get("frequencies", {})
        missing = [name for name in names if name not in known]
        if missing:
            raise ReferenceFileError(
                reference.path, f"it has no wave {missing[0]!r}", f"it has {', '.join(known)}: give another file"
            )
        return (
            tuple(float(known[name]["frequency"]) for name in names),
            tuple(np.asarray(known[name]["phase_amplitudes"]) for name in names),
        )

    def gather_windows(self, meta: Meta) -> list[Window]:
        ny, nx = int(meta["meta.subarray.ysize"]), int(meta["meta.subarray.xsize"])
        ramps = integrations_of(meta) * int(meta["meta.exposure.ngroups"])
        rows = max(_BLOCK_BYTES // (4 * nx * ramps), 1)
        return [Window.plain(y, min(y + rows, ny), 0, nx) for y in range(0, ny, rows)]

    def gather_stream(
        self, meta: Meta, prepared: Interference, blocks: Callable[[], Iterator[RampBlock]], scratch: str | None = None
    ) -> list[Wave] | list[Table]:
        return self._joint(prepared, blocks) if prepared.joint else self._sequential(meta, prepared, blocks)

    def _joint(self, prepared: Interference, blocks: Callable[[], Iterator[RampBlock]]) -> list[Wave]:
        waves: list[Wave] = []
        for frequency, reference in zip(prepared.frequencies, prepared.references, strict=True):
            median, sums = Median(), None
            for block in blocks():
                self._subtract(block, prepared, waves)
                median.count(emicorr.scatter(block.sci))
            period = emicorr.period_in_clocks(frequency)
            for block in blocks():
                if sums is None:
                    sums = PhaseSums(prepared.readout, period, block.sci.shape[0], reference.size, median)
                self._subtract(block, prepared, waves)
                sums.add(block.sci, block.pixeldq, block.window.rows, block.window.columns)
            assert sums is not None
            sums.finish()
            waves.append(emicorr.fit_wave(sums, reference, self.fit_ints_separately, turn=not self.as_jwst))
        return waves

    def _sequential(self, meta: Meta, prepared: Interference, blocks: Callable[[], Iterator[RampBlock]]) -> list[Table]:
        readout = prepared.readout
        tables: list[Table] = []
        folded: list[np.ndarray] = []
        wanted = self.nints_to_phase
        for k, frequency in enumerate(prepared.frequencies):
            period = emicorr.period_in_clocks(frequency)
            if wanted is None and self.use_n_cycles is not None:
                # As in jwst, what the first frequency needs holds for all.
                wanted = math.ceil(self.use_n_cycles * period / (prepared.frame_clocks * readout.groups))
            whole = np.empty((0,), np.float32)
            for block in blocks():
                self._subtract(block, prepared, tables)
                if not whole.size:
                    shape = (len(block.sci[:wanted]), readout.groups, readout.ny, readout.packets)
                    whole = np.empty(shape, np.float32)
                for i in range(len(whole)):
                    whole[i, :, block.window.rows] = emicorr_sequential.residuals(block.sci[i])
            emicorr_sequential.whole_residuals(whole)
            wave = emicorr_sequential.fold(whole, readout, period, emicorr_sequential.folding_bins(period, self.nbins))
            reference = prepared.references[k] if prepared.references else None
            tables.append(Table(period, emicorr_sequential.noise_table(wave, period, reference, self.scale_reference)))
            folded.append(wave)
        if self.wave_path is not None:
            self._save(meta, prepared, folded, self.wave_path)
        return tables

    @staticmethod
    def _subtract(block: RampBlock, prepared: Interference, found: list[Any]) -> None:
        subtract = emicorr.subtract_waves if prepared.joint else emicorr_sequential.subtract_tables
        subtract(block.sci, prepared.readout, found, block.window.rows, block.window.columns, block.sci)

    def _save(self, meta: Meta, prepared: Interference, waves: list[np.ndarray], path: str) -> None:
        """Save the folded waves as a reference of this subarray and read pattern."""
        pattern, names = str(meta["meta.exposure.readpatt"]), list(prepared.names)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        tree = {
            "meta": {
                "reftype": "emicorr",
                "author": "JWST calibration pipeline",
                "description": "EMI correction file",
                "pedigree": "GROUND",
                "useafter": now,
                "date": now,
                "model_type": "EmiModel",
                "telescope": "JWST",
                "instrument": {"name": "MIRI"},
            },
            "frequencies": {
                name: {"frequency": frequency, "phase_amplitudes": wave}
                for name, frequency, wave in zip(names, prepared.frequencies, waves, strict=True)
            },
            "subarray_cases": {
                str(meta["meta.subarray.name"]): {
                    "rowclocks": prepared.row_clocks,
                    "frameclocks": prepared.frame_clocks,
                    "freqs": {pattern: names if "FAST" in pattern else {meta["meta.instrument.detector"]: names}},
                }
            },
        }
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            write_tree(tree, path)
        except OSError as error:
            raise ProductError(path, f"cannot be written: {error}", "choose another output_dir") from error

    def apply(self, block: RampBlock, prepared: Interference, gathered: list[Any] | None = None) -> None:
        if gathered:
            self._subtract(block, prepared, gathered)
