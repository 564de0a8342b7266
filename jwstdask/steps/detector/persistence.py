"""Flag groups of pixels that saturated lately, until their persistence expires."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock, Window
from jwstdask.core.dims import integrations_of
from jwstdask.core.errors import ParameterError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.io.asdf import read_tree, write_tree
from jwstdask.io.temporary import FileArray
from jwstdask.kernels import persistence

_DAY = 86400.0
_MJD_1970 = 40587.0


def read_state(path: str, detector: str) -> dict[str, Any] | None:
    """What an exposure of a detector left in an ASDF file; None if there is no such file or detector.

    Returns
    -------
    state
        ``rows``, ``cols`` (int64) and ``vals`` (float64, s since 1970): pixels whose window is open, and its end;
        ``pers_time``: how long windows are [s]; ``filename`` of the exposure.
    """
    if not os.path.exists(path):
        return None
    found = read_tree(path).get(detector)
    return None if found is None else dict(found)


def write_state(path: str, detector: str, state: Mapping[str, Any] | None) -> None:
    """Put the state of a detector into an ASDF file, which keeps those of other detectors; None takes it out."""
    tree: dict[str, Any] = {}
    if os.path.exists(path):
        tree = {name: value for name, value in read_tree(path).items() if name not in ("asdf_library", "history")}
    tree.pop(detector, None)
    if state is not None:
        tree[detector] = dict(state)
    write_tree(tree, path)


@dataclass
class Windows:
    """Times of the groups [s since 1970], (integration, group), and the windows left open before, (y, x) or None.

    ``state`` takes the windows open at the end, (y, x), where they are saved.
    """

    times: np.ndarray
    expiry: np.ndarray | None
    state: FileArray | None = None


@dataclass(frozen=True, kw_only=True)
class PersistenceStep(Step):
    """Flag groups of pixels that saturated lately, until their persistence expires."""

    alias = "persistence"
    class_name = "PersistenceStep"
    status = "persistence"
    streams = True
    equations = (
        "T: end of a pixel's window [s since 1970]; at the time t of each group, in this order:\n"
        "T < t: T = 0; first SATURATED group of an integration: T = t + persistence_time;\n"
        "T = 0 and SCI > dn_threshold: T = t + persistence_time; T > t + persistence_time: T = 0;\n"
        "T > 0: GROUPDQ |= PERSISTENCE (and DO_NOT_USE with persistence_dnu)"
    )
    sources = "JWST pipeline documentation, persistence"

    skip: bool = par(True, "do not run")
    save_persistence: str | None = par(None, "ASDF file to save the expiry times in")
    persistence_time: int | None = par(None, "how long a pixel stays flagged", unit="s")
    dn_threshold: float | None = par(None, "flag pixels above this value too", unit="DN")
    persistence_array_file: str | None = par(None, "ASDF file of expiry times left by the previous exposure")
    persistence_dnu: bool = par(False, "set DO_NOT_USE together with PERSISTENCE")

    def check(self, meta: Meta) -> None:
        if self.skip:
            return
        if self.persistence_time is None or self.persistence_time <= 0:
            raise ParameterError(
                f"persistence.persistence_time: needs a positive number of seconds, has {self.persistence_time}",
                "Give one, or skip the step with steps.persistence.skip=True.",
            )

    def with_side_products(self, path: Callable[[str], str | None]) -> PersistenceStep:
        left = self.persistence_array_file
        saved = None if path("persistence") is None else self.save_persistence
        if saved is not None:
            saved = os.path.abspath(saved if saved.endswith(".asdf") else f"{os.path.splitext(saved)[0]}.asdf")
        return replace(
            self, save_persistence=saved, persistence_array_file=None if left is None else os.path.abspath(left)
        )

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> Windows:
        integrations, ngroups = integrations_of(meta), int(meta["meta.exposure.ngroups"])
        exposure = (meta["meta.exposure.start_time"] - _MJD_1970) * _DAY
        table = meta.get("int_times")
        times = np.empty((integrations, ngroups))
        for i in range(integrations):
            if table is not None and len(table) > i:
                now = (float(table[i]["int_start_MJD_UTC"]) - _MJD_1970) * _DAY
            else:
                now = exposure + i * meta["meta.exposure.integration_time"]
            for group in range(ngroups):
                now = now + meta["meta.exposure.group_time"]
                times[i, group] = now
        return Windows(times, self._left_open(meta))

    def _left_open(self, meta: Meta) -> np.ndarray | None:
        """Windows of the exposure before, if its file has them for this detector and this duration."""
        if self.persistence_array_file is None:
            return None
        found = read_state(self.persistence_array_file, meta["meta.instrument.detector"])
        if found is None or found["pers_time"] != self.persistence_time:
            return None
        expiry = np.zeros(_frame(meta))
        rows, columns = np.asarray(found["rows"]), np.asarray(found["cols"])
        if rows.size and (rows.max() >= expiry.shape[0] or columns.max() >= expiry.shape[1]):
            raise ParameterError(
                f"persistence.persistence_array_file: {self.persistence_array_file} holds pixels outside the frame: "
                f"{found.get('filename')}, which left it, has another subarray",
                "Give each subarray a file of its own.",
            )
        expiry[rows, columns] = np.asarray(found["vals"])
        return expiry

    def gather_windows(self, meta: Meta) -> list[Window]:
        # Nothing is looked at: this asks for a place for the windows that are open at the end.
        return [] if self.save_persistence is None else [Window.plain(0, 1, 0, 1)]

    def gathers_alone(self, meta: Meta) -> bool:
        return True

    def gather_stream(
        self, meta: Meta, prepared: Windows, blocks: Callable[[], Iterator[RampBlock]], scratch: str | None = None
    ) -> FileArray:
        prepared.state = FileArray(scratch, _frame(meta), np.float64)
        return prepared.state

    def apply(self, block: RampBlock, prepared: Windows, gathered: FileArray | None = None) -> None:
        expiry = prepared.expiry
        _, left = persistence.flag(
            block.sci,
            block.groupdq,
            prepared.times[: block.sci.shape[0]],
            float(self.persistence_time or 0),
            dn_threshold=self.dn_threshold,
            do_not_use=self.persistence_dnu,
            expiry=None if expiry is None else expiry[block.window.rows, block.window.columns],
            out=block.groupdq,
        )
        if gathered is not None:
            gathered.write_box(*block.window.inner_absolute, left[block.window.inner])

    def write_side_products(self, meta: Meta, prepared: Windows) -> None:
        if prepared.state is None or self.save_persistence is None:
            return
        expiry = prepared.state.array
        rows, columns = np.nonzero(expiry)
        state = {
            "filename": meta.get("meta.filename"),
            "rows": rows,
            "cols": columns,
            "vals": expiry[rows, columns],
            "pers_time": self.persistence_time,
        }
        write_state(self.save_persistence, meta["meta.instrument.detector"], state)


def _frame(meta: Meta) -> tuple[int, int]:
    return int(meta["meta.subarray.ysize"]), int(meta["meta.subarray.xsize"])
