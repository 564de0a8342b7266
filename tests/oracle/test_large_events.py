"""Snowballs and showers are found and masked as by jwst, for parameters that matter to what is in the scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from tests.conftest import once
from tests.oracle.compare import compare, row
from tests.oracle.conftest import Call


def _snowballs(ramp: np.ndarray) -> None:
    """Add disks with a halo to (integration, group, y, x): full and faint ones, at edges, touching, one in another."""
    y, x = np.indices(ramp.shape[-2:])
    events = [
        # integration, group, y, x, radius, share of a full well
        (0, 2, 3, 3, 4, 1.0), (0, 2, 58, 56, 5, 1.0), (0, 3, 30, 32, 6, 1.0), (0, 3, 34, 40, 5, 1.0),
        (0, 4, 12, 20, 1.2, 1.0), (0, 4, 50, 14, 2.2, 1.0), (0, 5, 4, 46, 4, 0.2), (0, 5, 40, 8, 3, 0.05),
        (0, 7, 18, 46, 4, 1.0), (1, 1, 32, 14, 5, 1.0), (1, 3, 62, 32, 5, 1.0), (1, 4, 34, 50, 3, 1.0),
        (1, 5, 34, 55, 3, 1.0), (1, 6, 1, 45, 3, 0.3),
    ]  # fmt: skip
    for integration, group, row_, column, radius, share in events:
        distance = np.hypot(y - row_, x - column)
        halo = np.where(distance < 3 * radius, 9000 * np.exp((radius - distance) / (0.6 * radius)), 0)
        ramp[integration, group:] += share * np.where(distance < radius, 70000, halo)


def _showers(ramp: np.ndarray) -> None:
    """Add faint extended ellipses to (integration, group, y, x): in the middle, at edges, in one of the last groups."""
    groups, height, width = ramp.shape[1:]
    y, x = np.indices((height, width))
    events = [
        # group, y, x, semi-axes, height
        (3, 0.3, 0.4, 9, 6, 6), (5, 0.7, 0.6, 12, 8, 4), (4, 0.0, 0.5, 8, 8, 6), (groups - 3, 1.0, 1.0, 9, 12, 8),
        (groups - 2, 0.5, 0.2, 7, 7, 25), (2, 0.5, 0.8, 8, 5, 60),
    ]  # fmt: skip
    for integration, values in enumerate(ramp):
        for number, (group, row_, column, long, short, top) in enumerate(events):
            turn = integration + number
            dy, dx = y - row_ * (height - 1), x - column * (width - 1)
            along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
            values[group:] += np.round(top * np.exp(-((along / long) ** 2) - (across / short) ** 2))


@dataclass(frozen=True)
class Scene:
    """An exposure, what is added to it, keywords of its header, and what all calls of the step have in common."""

    instrument: str
    cache: Mapping[str, Any]
    program: Mapping[str, Any]
    add: Callable[[np.ndarray], None]
    keywords: Mapping[str, Any]
    options: Mapping[str, Any]


SCENES = {
    "snowballs": Scene(
        "niriss",
        {"subarray": "SUB64"},
        {"ngroups": 8, "nints": 2},
        _snowballs,
        # a longer one: what is masked after events spans few groups
        {"TGROUP": 2.775},
        {"expand_large_events": True, "edge_size": 4, "min_sat_radius_extend": 1.5},
    ),
    "showers": Scene(
        "miri",
        {"subarray": "SUB64"},
        {"ngroups": 14, "nints": 2},
        _showers,
        {},
        {"find_showers": True, "extend_snr_threshold": 1.6, "extend_min_area": 30},
    ),
}

VARIANTS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "snowballs": (
        {"min_sat_radius_extend": 4.5},
        {"min_sat_area": 30.0},
        {"edge_size": 0},
        {"sat_expand": 5},
        {"mask_snowball_core_next_int": False},
        {"snowball_time_masked_next_int": 4},
        {"sat_required_snowball": False, "min_jump_area": 60.0},
        {"expand_factor": 3.1, "max_extended_radius": 9},
    ),
    "showers": (
        {"extend_snr_threshold": 2.2},
        {"extend_min_area": 90},
        {"extend_inner_radius": 3.0},
        {"extend_outer_radius": 5.0},
        {"extend_ellipse_expand_ratio": 1.6},
    ),
}
"""What differs from the options of the scene."""

CASES = [(scene, index) for scene, variants in VARIANTS.items() for index in range(-1, len(variants))]


def _name(scene: str, index: int) -> str:
    return scene if index < 0 else f"{scene}, " + ", ".join(f"{key} {v}" for key, v in VARIANTS[scene][index].items())


def _program(products: Any, name: str) -> Any:
    """The exposure of a scene."""
    from jwstdask.simulate import Cache, Effects, Program, make_cache, make_program

    scene = SCENES[name]

    def build_cache(folder: Path) -> None:
        make_cache(folder, instrument=scene.instrument, seed=2, **scene.cache)

    cache = Cache.open(once(products.folder / "caches" / f"large_{name}", build_cache))

    def build(folder: Path) -> None:
        effects = Effects(cosmic_rays=20.0, snowballs=0.0)
        made = make_program(folder, cache, dithers=1, seed=3, effects=effects, **scene.program)
        with fits.open(made.uncals[0], mode="update") as hdus:
            ramp = hdus["SCI"].data.astype(float)
            scene.add(ramp)
            hdus["SCI"].data = np.clip(ramp, 0, 65535).astype(np.uint16)
            hdus[0].header.update(scene.keywords)

    return Program.open(once(products.folder / "programs" / f"large_{name}", build))


def _products(products: Any, who: str, scene: str) -> Path:
    """Products of the step for all variants, in subfolders, from the same input."""
    program = _program(products, scene)
    environment = program.cache.environment
    steps = {"dark_current": {"save_results": True}, "jump": {"skip": True}, "ramp_fit": {"skip": True}}
    before = Call("calwebb_detector1", "jwst.pipeline.Detector1Pipeline", program.uncals[0], {"steps": steps})
    source = products.make("jwst", f"before_large_{scene}", lambda _: [before], environment)
    file = source / program.uncals[0].name.replace("_uncal", "_dark_current")

    def work(_: Path) -> list[Call]:
        own = [{}, *VARIANTS[scene]]
        return [
            Call("jump", "jwst.step.JumpStep", file, {**SCENES[scene].options, **each}, str(number))
            for number, each in enumerate(own)
        ]

    return products.make(who, f"large_{scene}", work, environment)


# What the tests of a scene wait for is made by one process: no second worker waits with them.
@pytest.mark.parametrize(
    ("scene", "index"),
    [pytest.param(*case, id=_name(*case), marks=pytest.mark.xdist_group(case[0])) for case in CASES],
)
def test_large_events_are_those_of_the_oracle(products, scene, index, record_property):
    ours, oracle = (_products(products, who, scene) for who in ("ours", "jwst"))
    name = next((oracle / "0").glob("*_jump.fits")).name
    found = compare(ours / str(index + 1) / name, oracle / str(index + 1) / name)
    record_property("parity", [row("jump", _name(scene, index), "jump", found)])
    assert not found.headers
    assert not [f"{array}: {item}" for array, item in found.arrays.items() if item.relative > 1e-6]
    assert found.flags == 0
    if index >= 0:
        flags = [fits.getdata(oracle / str(number) / name, "GROUPDQ") for number in (index + 1, 0)]
        assert (flags[0] != flags[1]).any(), "the parameter does not matter here"
