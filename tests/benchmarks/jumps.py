"""How many cosmic rays are found, and how many are found that are none: ``python -m tests.benchmarks.jumps``.

Ramps without systematics, each hit once between two groups drawn at random. The size of a hit is in units of the noise
of a difference of neighbouring groups (photons and read noise). A hit counts as found if the group after it is flagged;
every other group flagged is a false alarm. Both searches of Stage 1 are counted, ours and the oracle's on the same
ramps: two-point differences of ``jump`` (without the flags of neighbouring pixels), and the search that the fit by
likelihood makes of its own. ``--update README.md`` puts the table there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jwstdask.core.dq import JUMP_DET
from jwstdask.kernels.likelihood import likelihood_fit, read_times
from jwstdask.steps.detector.jump import JumpStep
from tests.benchmarks.measure import between
from tests.kernels import test_likelihood
from tests.oracle.ramps import FRAME_TIME, GAIN, READNOISE, Pattern, references
from tests.steps import test_jump
from tests.steps.fakes import Ramp, walk

SIZES = (0.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 100.0)
BRIGHTNESSES = (300.0, 10_000.0)
MARKER = "<!-- jumps table -->\n"
METHODS = ("two-point difference", "likelihood")


@dataclass(frozen=True)
class Found:
    """Counts of a search.

    Attributes
    ----------
    hits, found
        Hits there are, and those whose group is flagged.
    others, false
        Groups without a hit (but the first), and those that are flagged.
    """

    hits: int
    found: int
    others: int
    false: int

    @property
    def efficiency(self) -> float:
        return self.found / self.hits

    @property
    def false_alarms(self) -> float:
        """Share of groups without a hit that are flagged."""
        return self.false / self.others


def count(groupdq: np.ndarray, hit: np.ndarray) -> Found:
    """Compare flags (integration, group, y, x) of one integration with the truth (group, y, x)."""
    flagged = (groupdq[0, 1:] & JUMP_DET) > 0
    hit = hit[1:]
    return Found(int(hit.sum()), int((flagged & hit).sum()), int((~hit).sum()), int((flagged & ~hit).sum()))


def noise(pattern: Pattern, electrons: float) -> float:
    """Noise of a difference of neighbouring groups [electron]."""
    photons = electrons / pattern.frames * (pattern.nframes + pattern.groupgap)
    return float(np.sqrt(photons + (READNOISE * GAIN) ** 2 / pattern.nframes))


def hit_ramps(
    pattern: Pattern, electrons: float, size: float, shape: tuple[int, int], seed: int
) -> tuple[Ramp, np.ndarray]:
    """Ramps with a hit each, and the truth: bool (group, y, x), the group after each hit."""
    rng = np.random.default_rng([seed, int(electrons), int(100 * size)])
    hit = np.arange(pattern.ngroups)[:, None, None] == rng.integers(1, pattern.ngroups, shape)
    ramp, _ = pattern.simulate(rng, electrons, shape, hit * size * noise(pattern, electrons))
    return ramp, hit


def searches(pattern: Pattern, ramp: Ramp, oracle: bool = True) -> dict[tuple[str, str], np.ndarray]:
    """Flags of groups by (method, ``jwstdask`` or ``jwst``)."""
    shape = ramp.pixeldq.shape
    meta, refs = pattern.meta(shape), references(shape)
    step = JumpStep(flag_4_neighbors=False)
    arrays = [ramp.sci, ramp.groupdq, ramp.pixeldq, refs["gain"].array("sci"), refs["readnoise"].array("sci")]
    times = read_times(pattern.ngroups, pattern.nframes, pattern.groupgap, FRAME_TIME)
    found = {
        (METHODS[0], "jwstdask"): walk(step, meta, refs, ramp).groupdq,
        (METHODS[1], "jwstdask"): likelihood_fit(*arrays, times, nframes=pattern.nframes).groupdq,
    }
    if oracle:
        found[METHODS[0], "jwst"] = test_jump.oracle(ramp, meta, refs, flag_4_neighbors=False).groupdq
        found[METHODS[1], "jwst"] = test_likelihood.oracle(
            arrays, nframes=pattern.nframes, groupgap=pattern.groupgap, frame_time=FRAME_TIME
        )[2]
    return found


def measure(
    pattern: Pattern, electrons: float, sizes: Iterable[float] = SIZES, shape: tuple[int, int] = (200, 250)
) -> dict[float, dict[tuple[str, str], Found]]:
    """Counts of all searches by size of the hits."""
    counts = {}
    for size in sizes:
        ramp, hit = hit_ramps(pattern, electrons, size, shape, seed=1)
        counts[size] = {key: count(flags, hit) for key, flags in searches(pattern, ramp).items()}
    return counts


def table(counts: Mapping[float, Mapping[float, Mapping[tuple[str, str], Found]]]) -> str:
    """Markdown: brightness by brightness, a line for each size of hits."""
    columns = [(method, who) for method in METHODS for who in ("jwstdask", "jwst")]
    head = [f"{method}, {who}: found, false" for method, who in columns]
    lines = ["| electrons | hit [sigma] | " + " | ".join(head) + " |", "|---" * (2 + len(columns)) + "|"]
    for electrons, sizes in counts.items():
        for size, found in sizes.items():
            cells = []
            for key in columns:
                share = f"{100 * found[key].efficiency:.2f} %" if size else ""
                cells.append(
                    f"{share}, {100 * found[key].false_alarms:.3f} %" if size else f"{100 * _any(found[key]):.3f} %"
                )
            lines.append(f"| {electrons:,.0f} | {size:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _any(found: Found) -> float:
    # A hit of no size is a group like the others.
    return (found.found + found.false) / (found.hits + found.others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", type=Path, metavar="README", help="put the table into this file")
    options = parser.parse_args()
    pattern = Pattern(10)
    text = table({electrons: measure(pattern, electrons) for electrons in BRIGHTNESSES})
    print(text)
    if options.update:
        between(options.update, MARKER, text)


if __name__ == "__main__":
    main()
