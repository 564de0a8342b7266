"""Flag cosmic-ray jumps in ramps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jwstdask.core.block import RampBlock, Window
from jwstdask.core.dims import integrations_of
from jwstdask.core.dq import DO_NOT_USE, NO_GAIN_VALUE
from jwstdask.core.errors import StepError
from jwstdask.core.params import par
from jwstdask.core.step import Meta, Step
from jwstdask.kernels.jump import NONE, SIGMA_CLIP, Detection, choose_regime, detect_jumps, whole_planes
from jwstdask.kernels.medians import nan_median
from jwstdask.kernels.showers import Showers, flag_showers
from jwstdask.kernels.snowballs import Snowballs, flag_snowballs
from jwstdask.refs.images import floats_under

_SAMPLE_ROWS = 8
_SHOWER_AMPLITUDE = 6.0
"""That of jwst 3.0.0, which does not hand its max_shower_amplitude on, and compares it with electrons [electron/s]."""


@dataclass
class JumpData:
    """What the step knows of an exposure.

    Attributes
    ----------
    shape
        Science frame (integration, group, y, x).
    gain, readnoise
        float32 (y, x) of the science frame, [electron/DN] and [DN].
    detection
        Constants of the search; the regime is filled in when it is known.
    events
        Large events found by :meth:`JumpStep.revise`.
    unusable_after
        Planes that are DO_NOT_USE in every pixel after :meth:`JumpStep.revise`.
    """

    shape: tuple[int, int, int, int]
    gain: np.ndarray
    readnoise: np.ndarray
    detection: Detection
    events: int = 0
    unusable_after: int | None = None


@dataclass(frozen=True)
class WholePlanes:
    """What holds for whole planes of the frame, gathered before the blocks are walked.

    Attributes
    ----------
    unusable
        (integration,) number of groups in which every pixel of the frame is DO_NOT_USE.
    cleared
        Planes (integration, group) that sigma clipping flooded, known after a first walk only.
    """

    unusable: tuple[int, ...]
    cleared: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class JumpStep(Step):
    """Flag cosmic-ray jumps in ramps.

    A jump is a difference of two successive groups that lies too far from the median difference of its pixel. How an
    exposure is searched depends on the number of its integrations and of the groups that can be used.
    """

    # How many groups are unusable in *every* pixel of the frame decides (kernels.jump.choose_regime). A few rows spread
    # over the frame are gathered to find the groups that may be; every block then counts in its tally what it truly
    # has. If the counts of all blocks contradict the sample, or sigma clipping flagged all pixels of a plane (such
    # planes are not to be flagged at all), `again` returns what should have been gathered, with which the blocks must
    # be walked once more. Both are rare.

    alias = "jump"
    class_name = "JumpStep"
    status = "jump"
    reference_types = ("gain", "readnoise")
    indispensable = reference_types
    counted = ("meta.exposure.primary_cosmic_rays", "meta.exposure.extended_emission_events")
    equations = (
        "|d - m| > threshold * sigma, sigma^2 = |m| + readnoise^2 / nframes [electron];\n"
        "d: difference of two groups, m: median difference of the pixel;\n"
        "threshold by usable differences: rejection (4 or more), four_group (3), three_group (2);\n"
        "fewer than min_diffs_single_pass: the largest outlier out, m and sigma anew, until none is left;\n"
        "minimum_sigclip_groups integrations or more: |d - m| > rejection_threshold * std, clipped over integrations;\n"
        "neighbours: min_jump < |d - m| / sigma < max_jump; snowballs and showers: ellipses with the second moments\n"
        "of connected regions, grown by expand_factor"
    )
    sources = (
        "Anderson & Gordon 2011, PASP 123, 1237; ellipses: Burger & Burge 2009, Principles of Digital Image Processing"
    )

    rejection_threshold: float = par(4.0, "rejection threshold", unit="sigma", ge=0)
    three_group_rejection_threshold: float = par(6.0, "threshold for ramps of three usable groups", unit="sigma", ge=0)
    four_group_rejection_threshold: float = par(5.0, "threshold for ramps of four usable groups", unit="sigma", ge=0)
    maximum_cores: str = par("1", "accepted for jwst's sake; the engine decides")
    flag_4_neighbors: bool = par(True, "flag the four neighbours of each jump")
    max_jump_to_flag_neighbors: float = par(1000.0, "largest jump whose neighbours are flagged", unit="sigma")
    min_jump_to_flag_neighbors: float = par(10.0, "smallest jump whose neighbours are flagged", unit="sigma")
    after_jump_flag_dn1: float = par(0.0, "first class of jumps after which groups are flagged: least size", unit="DN")
    after_jump_flag_time1: float = par(0.0, "first class: flag groups for so long", unit="s")
    after_jump_flag_dn2: float = par(0.0, "second class of jumps after which groups are flagged: least size", unit="DN")
    after_jump_flag_time2: float = par(0.0, "second class: flag groups for so long", unit="s")
    expand_large_events: bool = par(False, "search for snowballs (near-infrared detectors)")
    min_sat_area: float = par(1.0, "least area of the saturated core of a snowball", unit="pixel")
    min_jump_area: float = par(5.0, "least area of a snowball's jump", unit="pixel")
    expand_factor: float = par(2.0, "growth of the ellipse around a snowball")
    use_ellipses: bool = par(False, "without effect, deprecated in jwst")
    sat_required_snowball: bool = par(True, "a snowball must have a saturated core")
    min_sat_radius_extend: float = par(2.5, "longest minor axis of a core that is not grown", unit="pixel")
    sat_expand: int = par(2, "growth of the radius of a snowball's saturated core", unit="pixel")
    edge_size: int = par(25, "nearer to the edge no saturated core is needed", unit="pixel")
    mask_snowball_core_next_int: bool = par(True, "flag saturated cores in the next integration")
    snowball_time_masked_next_int: int = par(4000, "flag cores in the next integration for so long", unit="s")
    find_showers: bool = par(False, "search for showers (MIRI)")
    max_shower_amplitude: float = par(
        4.0,
        "greatest change by a shower; without effect as in jwst 3.0.0, which takes 6 electrons a second",
        unit="DN/s",
    )
    extend_snr_threshold: float = par(1.2, "least signal-to-noise ratio of a shower")
    extend_min_area: int = par(90, "least area of a shower", unit="pixel")
    extend_inner_radius: float = par(1.0, "radius of the hole in the smoothing ring", unit="pixel")
    extend_outer_radius: float = par(2.6, "width of the smoothing ring", unit="pixel")
    extend_ellipse_expand_ratio: float = par(1.1, "growth of the ellipse around a shower")
    time_masked_after_shower: float = par(15.0, "flag groups after a shower for so long", unit="s")
    min_diffs_single_pass: int = par(10, "least usable differences for a search in a single pass")
    max_extended_radius: int = par(200, "greatest radius of a snowball or shower", unit="pixel")
    minimum_groups: int = par(
        3, "least usable groups of a search in a ramp; without effect as in jwst 3.0.0, which takes 3"
    )
    minimum_sigclip_groups: int = par(100, "least integrations (or groups) for sigma clipping")
    only_use_ints: bool = par(True, "clip over integrations only; if False, over all groups of all integrations")

    as_jwst: bool = par(True, "as jwst: max_shower_amplitude and minimum_groups are without effect", own=True)

    @property
    def halo(self) -> int:
        return 1 if self.flag_4_neighbors else 0

    @property
    def frame_arrays(self) -> tuple[str, ...]:
        """Arrays of the whole frame, besides the flags, that :meth:`revise` needs."""
        return ("sci", "pixeldq") if self.find_showers else ()

    def skip_reason(self, meta: Meta) -> str | None:
        ngroups = meta.get("meta.exposure.ngroups")
        return f"needs more than two groups, has {ngroups}" if ngroups is not None and ngroups <= 2 else None

    def _groups_in(self, seconds: float, meta: Meta) -> int:
        return int(seconds // meta["meta.exposure.group_time"])

    def prepare(self, meta: Meta, references: Mapping[str, Any]) -> JumpData:
        reference = references["gain"].match(meta)
        gain = reference.array("sci")
        readnoise = references["readnoise"].match(meta).array("sci")
        groups = tuple(self._groups_in(time, meta) for time in (self.after_jump_flag_time1, self.after_jump_flag_time2))
        electrons = (0.0, 0.0)
        if max(groups) > 0:
            typical = reference.median("sci")
            electrons = float(self.after_jump_flag_dn1 * typical), float(self.after_jump_flag_dn2 * typical)
        return JumpData(
            shape=(integrations_of(meta), int(meta["meta.exposure.ngroups"]), *gain.shape),
            gain=gain,
            readnoise=readnoise,
            detection=Detection(
                regime=NONE,
                nframes=int(meta["meta.exposure.nframes"]),
                rejection_threshold=self.rejection_threshold,
                four_group_rejection_threshold=self.four_group_rejection_threshold,
                three_group_rejection_threshold=self.three_group_rejection_threshold,
                flag_4_neighbors=self.flag_4_neighbors,
                min_jump_to_flag_neighbors=self.min_jump_to_flag_neighbors,
                max_jump_to_flag_neighbors=self.max_jump_to_flag_neighbors,
                after_jump_electrons=electrons,
                after_jump_groups=groups,
                only_use_ints=self.only_use_ints,
            ),
        )

    def _regime(self, ngroups: int, unusable: Any) -> str:
        return choose_regime(
            ngroups,
            np.asarray(unusable),
            min_diffs_single_pass=self.min_diffs_single_pass,
            minimum_sigclip_groups=self.minimum_sigclip_groups,
            only_use_ints=self.only_use_ints,
            minimum_groups=3 if self.as_jwst else self.minimum_groups,
        )

    def gather_windows(self, meta: Meta) -> list[Window]:
        nints = integrations_of(meta)
        if self.only_use_ints and nints >= self.minimum_sigclip_groups:
            return []
        nx, ny = int(meta["meta.subarray.xsize"]), int(meta["meta.subarray.ysize"])
        rows = sorted({(2 * k + 1) * ny // (2 * _SAMPLE_ROWS) for k in range(_SAMPLE_ROWS)})
        return [Window.plain(row, row + 1, 0, nx) for row in rows]

    def gather(self, meta: Meta, prepared: JumpData, blocks: list[RampBlock]) -> WholePlanes:
        """Groups of each integration that may be unusable in all pixels, judged from the sample."""
        whole = np.logical_and.reduce([whole_planes(block.groupdq, DO_NOT_USE) for block in blocks])
        return WholePlanes(tuple(int(number) for number in whole.sum(axis=1)))

    def apply(self, block: RampBlock, prepared: JumpData, gathered: WholePlanes | None = None) -> None:
        gain = self._mark_pixels(block, prepared)
        readnoise = floats_under(block, prepared.readnoise)
        inner = block.window.inner
        ngroups = block.groupdq.shape[1]
        whole = whole_planes(block.groupdq[:, :, inner[0], inner[1]], DO_NOT_USE)
        if gathered is None:
            # The regime does not depend on it, or the block is the frame.
            gathered = WholePlanes(tuple(int(number) for number in whole.sum(axis=1)))
        regime = self._regime(ngroups, gathered.unusable)
        _, primary, flooded = detect_jumps(
            block.sci,
            block.groupdq,
            gain,
            readnoise,
            replace(prepared.detection, regime=regime),
            out=block.groupdq,
            inner=inner,
            cleared=gathered.cleared,
        )
        pixels = (inner[0].stop - inner[0].start) * (inner[1].stop - inner[1].start)
        tally = block.tally
        tally["jump.pixels"] = tally.get("jump.pixels", 0.0) + pixels
        tally["jump.primary"] = tally.get("jump.primary", 0.0) + primary
        for name, planes in (("jump.unusable", whole), ("jump.flooded", flooded & ~whole)):
            tally[name] = tally.get(name, 0) + planes.astype(np.int32) * pixels
        tally[f"jump.regime.{regime}"] = tally.get(f"jump.regime.{regime}", 0.0) + pixels

    def apply_revised(
        self, block: RampBlock, prepared: JumpData, groupdq: np.ndarray, gathered: WholePlanes | None = None
    ) -> None:
        # There is nothing to search for.
        self._mark_pixels(block, prepared)
        block.groupdq[..., *block.window.inner] = groupdq

    def _mark_pixels(self, block: RampBlock, prepared: JumpData) -> np.ndarray:
        """Flag pixels without a gain; the gain of the block."""
        gain = floats_under(block, prepared.gain)
        unknown = ~(gain > 0)
        if unknown.any():
            np.bitwise_or(block.pixeldq, np.uint32(NO_GAIN_VALUE | DO_NOT_USE), out=block.pixeldq, where=unknown)
        return gain

    def again(
        self, meta: Meta, prepared: JumpData, gathered: WholePlanes | None, tally: Mapping[str, float]
    ) -> WholePlanes | None:
        """What should have been gathered, if a walk over all blocks contradicts what was; None if all is well.

        Parameters
        ----------
        gathered
            With what the blocks were walked.
        tally
            Counts of all blocks in that walk.
        """
        unusable = _whole_in_frame(("jump.unusable",), prepared.shape, tally)
        regime = self._regime(prepared.shape[1], unusable.sum(axis=1))
        used = [name for name in tally if name.startswith("jump.regime.")]
        before = set(gathered.cleared) if gathered is not None else set()
        cleared = set(before)
        if regime == SIGMA_CLIP:
            flooded = _whole_in_frame(("jump.unusable", "jump.flooded"), prepared.shape, tally) & ~unusable
            cleared |= {(int(integration), int(group)) for integration, group in np.argwhere(flooded)}
        if used == [f"jump.regime.{regime}"] and cleared == before:
            return None
        return WholePlanes(tuple(int(number) for number in unusable.sum(axis=1)), tuple(sorted(cleared)))

    def frame_gather(self, meta: Meta, prepared: Any) -> bool:
        return self.expand_large_events or self.find_showers

    def revise(self, meta: Meta, prepared: JumpData, groupdq: np.ndarray, frame: RampBlock | None = None) -> None:
        """Find large events in the whole frame and grow their flags, in place.

        Parameters
        ----------
        groupdq
            uint8 (integration, group, y, x) after :meth:`apply`; may be memory-mapped. Worked on plane by plane.
        frame
            The ramp of the whole frame as :meth:`apply` leaves it, of which :attr:`frame_arrays` are used; they may be
            memory-mapped.

        Raises
        ------
        StepError
            If showers are searched and ``frame`` is missing.
        """
        regime = self._regime(groupdq.shape[1], whole_planes(groupdq, DO_NOT_USE).sum(axis=1))
        if self.expand_large_events:
            _, prepared.events = flag_snowballs(groupdq, self._snowballs(meta), out=groupdq)
        if self.find_showers:
            if frame is None:
                name = str(meta.get("meta.filename", "exposure"))
                raise StepError(name, self.alias, "showers cannot be searched here", "Set find_showers=False.")
            gain, readnoise = prepared.gain, prepared.readnoise
            amplitude = _SHOWER_AMPLITUDE
            if not self.as_jwst:
                amplitude = self.max_shower_amplitude * float(nan_median(gain))
            search = self._showers(meta, amplitude, groupdq.shape[0] >= self.minimum_sigclip_groups, regime)
            _, prepared.events = flag_showers(frame.sci, groupdq, frame.pixeldq, gain, readnoise, search, out=groupdq)
        # Saturated cores of snowballs replace all flags, DO_NOT_USE too.
        prepared.unusable_after = int(whole_planes(groupdq, DO_NOT_USE).sum())

    def _snowballs(self, meta: Meta) -> Snowballs:
        masked = self._groups_in(self.snowball_time_masked_next_int, meta) if self.mask_snowball_core_next_int else 0
        return Snowballs(
            min_jump_area=self.min_jump_area,
            min_sat_area=self.min_sat_area,
            expand_factor=self.expand_factor,
            sat_required_snowball=self.sat_required_snowball,
            min_sat_radius_extend=self.min_sat_radius_extend,
            sat_expand=self.sat_expand,
            edge_size=self.edge_size,
            max_extended_radius=self.max_extended_radius,
            persistent_groups=masked,
        )

    def _showers(self, meta: Meta, amplitude: float, clip: bool, regime: str) -> Showers:
        return Showers(
            nframes=int(meta["meta.exposure.nframes"]),
            greatest_change=amplitude * meta["meta.exposure.group_time"],
            extend_snr_threshold=self.extend_snr_threshold,
            extend_min_area=self.extend_min_area,
            extend_inner_radius=self.extend_inner_radius,
            extend_outer_radius=self.extend_outer_radius,
            extend_ellipse_expand_ratio=self.extend_ellipse_expand_ratio,
            groups_after=self._groups_in(self.time_masked_after_shower, meta),
            max_extended_radius=self.max_extended_radius,
            clip_over_integrations=clip,
            searched=regime != NONE,
        )

    def finish(self, meta: Meta, prepared: JumpData, tally: Mapping[str, float]) -> dict[str, Any]:
        nints, ngroups, ny, nx = prepared.shape
        unusable = _whole_in_frame(("jump.unusable",), prepared.shape, tally)
        # jwst counts -99 jumps in an exposure with too few usable groups.
        regime = self._regime(ngroups, unusable.sum(axis=1))
        primary = -99 if regime == NONE else int(tally.get("jump.primary", 0))
        missing = int(unusable.sum()) if prepared.unusable_after is None else prepared.unusable_after
        differences = nints * ngroups - missing - nints
        if differences < 1:
            return {}
        seconds = meta["meta.exposure.group_time"] * differences
        return {
            "meta.exposure.primary_cosmic_rays": 1000 * primary / (seconds * (ny * nx)),
            "meta.exposure.extended_emission_events": 1e6 * prepared.events / (seconds * (ny * nx)),
        }


def _whole_in_frame(names: tuple[str, ...], shape: tuple[int, int, int, int], tally: Mapping[str, Any]) -> np.ndarray:
    """bool (integration, group): planes for which the counts of all blocks add up to the frame."""
    pixels = np.zeros(shape[:2])
    for name in names:
        pixels += tally.get(name, 0)
    return pixels >= shape[2] * shape[3]
