"""Ramps without systematics: photons, read noise and hits, in units and names of the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.steps.fakes import FakeReference, Ramp, metadata

GAIN = 2.0
"""Electrons per DN."""

READNOISE = 8.0
"""Of the difference of two frames [DN], as in the reference."""

FRAME_TIME = 10.0
"""Seconds."""


@dataclass(frozen=True)
class Pattern:
    """How a ramp is read out.

    Attributes
    ----------
    ngroups, nframes, groupgap
        Groups of a ramp, frames averaged in a group, frames dropped between groups.
    """

    ngroups: int
    nframes: int = 1
    groupgap: int = 0

    @property
    def frames(self) -> int:
        """Frames from the beginning to the last that is read."""
        return self.ngroups * (self.nframes + self.groupgap) - self.groupgap

    @property
    def noise(self) -> float:
        """Read noise of a group [electron]."""
        return READNOISE * GAIN / np.sqrt(2 * self.nframes)

    def meta(self, shape: tuple[int, int], nints: int = 1) -> dict[str, Any]:
        """Metadata of the exposure."""
        return metadata(
            shape,
            exposure__ngroups=self.ngroups,
            exposure__nints=nints,
            exposure__nframes=self.nframes,
            exposure__groupgap=self.groupgap,
            exposure__frame_time=FRAME_TIME,
            exposure__group_time=FRAME_TIME * (self.nframes + self.groupgap),
            exposure__type="NRC_IMAGE",
        )

    def simulate(
        self, rng: np.random.Generator, electrons: float, shape: tuple[int, int], hits: np.ndarray | None = None
    ) -> tuple[Ramp, float]:
        """Ramps of one brightness.

        Parameters
        ----------
        rng
            Random numbers.
        electrons
            Expected in the last frame.
        shape
            Rows and columns: as many ramps.
        hits
            (group, y, x) electrons that a cosmic ray adds between a group's predecessor and the group.

        Returns
        -------
        ramp
            One integration.
        rate
            True rate [DN/s].
        """
        each = electrons / self.frames
        collected = np.zeros(shape)
        sci = np.empty((1, self.ngroups, *shape), np.float32)
        for group in range(self.ngroups):
            if hits is not None:
                collected = collected + hits[group]
            total = np.zeros(shape)
            for _ in range(self.nframes):
                collected = collected + rng.poisson(each, shape)
                total += collected + rng.normal(0, READNOISE * GAIN / np.sqrt(2), shape)
            sci[0, group] = total / self.nframes / GAIN
            if self.groupgap:
                collected = collected + rng.poisson(each * self.groupgap, shape)
        return Ramp.of(sci), each / FRAME_TIME / GAIN

    def covariance(self, electrons: float) -> np.ndarray:
        """Covariance (group, group) of the groups [electron^2]: reads share photons up to the earlier of them."""
        each = electrons / self.frames
        group, frame = np.divmod(np.arange(self.ngroups * self.nframes), self.nframes)
        times = group * (self.nframes + self.groupgap) + frame + 1
        photons = each * np.minimum.outer(times, times)
        averages = (group == np.arange(self.ngroups)[:, None]) / self.nframes
        return averages @ photons @ averages.T + self.noise**2 * np.eye(self.ngroups)


def references(shape: tuple[int, int]) -> dict[str, Any]:
    """Uniform gain and read noise."""
    values = {"gain": GAIN, "readnoise": READNOISE}
    return {name: FakeReference({"sci": np.full(shape, value, np.float32)}) for name, value in values.items()}
