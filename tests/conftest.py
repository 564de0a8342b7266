"""Programs that several test modules share, made once a session, and the parity table at the end of a run.

Files of the session lie in one folder that all workers of pytest-xdist see; a lock lets the first that asks make
them and the others wait.
"""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def once(folder: Path, build: Callable[[Path], None]) -> Path:
    """``folder``, filled by ``build`` if nobody has done so in this session; a failure is not tried again."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    done, failed = Path(f"{folder}.done"), Path(f"{folder}.failed")
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failed.exists():
            raise RuntimeError(f"{folder.name} could not be made:\n{failed.read_text()}")
        if not done.exists():
            folder.mkdir(exist_ok=True)
            try:
                build(folder)
            except BaseException:
                failed.write_text(traceback.format_exc())
                raise
            done.touch()
    return folder


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory) -> Path:
    """Folder of the whole session, the same for all workers."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory) -> Iterator[Callable[[str], Path]]:
    """Makes folders by name for the tests of a module; they go with it, for a disk may be small."""
    made = []

    def make(name: str) -> Path:
        made.append(tmp_path_factory.mktemp(name))
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Recipe:
    """A synthetic program: arguments of the simulator."""

    detectors: tuple[str, ...]
    subarray: str
    readpatt: str
    ngroups: int
    nints: int
    seed: int
    filter: str = "F200W"
    dithers: int = 1
    size: str = "small"
    options: Mapping[str, Any] = field(default_factory=dict)
    effects: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """Configuration as a line of text."""
        names = ", ".join(name.upper() for name in self.detectors)
        return f"{names} {self.subarray} {self.filter} {self.readpatt} {self.nints}x{self.ngroups}"


RECIPES: Mapping[str, Recipe] = {
    # Four dithers of two detectors through all stages.
    "mosaic": Recipe(("nrca1", "nrca3"), "SUB320", "RAPID", 10, 1, 1, dithers=4, options={"pointing_error": 0.02}),
    # Averaged frames, several integrations, ZEROFRAME.
    "bright2": Recipe(("nrcb1",), "SUB160", "BRIGHT2", 6, 2, 2, dithers=3),
    # Frames dropped between groups; no reference pixels; long wavelengths.
    "medium8": Recipe(("nrca5",), "SUB160", "MEDIUM8", 5, 1, 3, "F444W"),
    # Averaged frames whose first ones were not kept.
    "shallow4": Recipe(("nrca3",), "SUB160", "SHALLOW4", 7, 3, 4, options={"zeroframe": False}),
    # Half of the stars saturate, some from the first group on.
    "saturated": Recipe(("nrcb5",), "SUB160P", "BRIGHT1", 8, 2, 5, "F356W", options={"zeroframe": True}),
    # Hits that flag hundreds of pixels, carried over into the next integration.
    "snowballs": Recipe(("nrcb4",), "SUB320", "RAPID", 10, 2, 6, effects={"snowballs": 8.0, "cosmic_rays": 40.0}),
    # More than a hundred integrations: outliers of a difference are found along integrations.
    "timeseries": Recipe(("nrcb1",), "SUB64P", "RAPID", 5, 110, 7, options={"exp_type": "NRC_TSIMAGE", "tso": True}),
    # A time series too short for that.
    "short_timeseries": Recipe(
        ("nrca3",), "SUB64P", "RAPID", 6, 12, 8, options={"exp_type": "NRC_TSIMAGE", "tso": True}
    ),
    "one_group": Recipe(("nrcb1",), "SUB160", "RAPID", 1, 2, 9),
    "two_groups": Recipe(("nrca1",), "SUB160", "BRIGHT2", 2, 1, 10),
    "three_groups": Recipe(("nrca5",), "SUB64P", "RAPID", 3, 2, 11, "F356W"),
    # Four amplifiers and reference pixels on all sides.
    "full": Recipe(("nrca1",), "FULL", "RAPID", 4, 1, 12, size="full", effects={"snowballs": 10.0}),
}


def _cache_arguments(recipe: Recipe) -> dict[str, Any]:
    """Of the cache that a recipe needs; recipes of the same subarray share one."""
    alike = [item for item in RECIPES.values() if (item.subarray, item.size) == (recipe.subarray, recipe.size)]
    return {
        "detectors": tuple(sorted({name for item in alike for name in item.detectors})),
        "filters": tuple(sorted({item.filter for item in alike})),
        "subarray": "SUB160" if recipe.size == "full" else recipe.subarray,
        "size": recipe.size,
        "dark_groups": 6 if recipe.size == "full" else 50,
        "seed": 1,
    }


class Programs:
    """Synthetic programs by name; ``programs("bright2")``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recipe(self, name: str) -> Recipe:
        return RECIPES[name]

    def cache(self, name: str) -> Any:
        """The cache of a program."""
        from jwstdask.simulate import Cache, make_cache

        recipe = RECIPES[name]
        folder = self.folder / "caches" / f"{recipe.size}_{recipe.subarray}"
        return Cache.open(once(folder, lambda path: make_cache(path, **_cache_arguments(recipe))))

    def __call__(self, name: str) -> Any:
        from jwstdask.simulate import Effects, Program, make_program

        recipe = RECIPES[name]

        def build(path: Path) -> None:
            make_program(
                path,
                self.cache(name),
                detectors=recipe.detectors,
                filter=recipe.filter,
                subarray=recipe.subarray,
                readpatt=recipe.readpatt,
                ngroups=recipe.ngroups,
                nints=recipe.nints,
                dithers=recipe.dithers,
                effects=Effects(**recipe.effects),
                seed=recipe.seed,
                **recipe.options,
            )

        return Program.open(once(self.folder / "programs" / name, build))


@pytest.fixture(scope="session")
def programs(session_folder) -> Programs:
    """Synthetic programs by name."""
    return Programs(session_folder)


@pytest.fixture(scope="module", autouse=True)
def few_objects_to_collect() -> None:
    """jwst collects garbage before each step: what earlier tests have left need not be looked at each time."""
    gc.collect()
    gc.freeze()


_FIRST = ("tests/cli/test_bad_input.py", "tests/steps/test_tweakreg.py")
"""Where two processes begin: one compiles Stage 1 while the other compares what takes long and needs none of it."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests of a module done by one process, which makes what they share once, unless they say otherwise."""
    items.sort(key=lambda item: [item.nodeid.startswith(module) for module in _FIRST], reverse=True)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-readme", action="store_true", help="write the parity table, in short, into README.md")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the parity table from what the tests recorded (``record_property("parity", rows)``)."""
    from tests.oracle.table import summary, table, write_readme

    rows = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                rows += [row for name, found in report.user_properties if name == "parity" for row in found]
    if not rows:
        return
    text = table(rows)
    terminalreporter.section("parity with jwst 3.0.0")
    terminalreporter.write_line(text)
    if config.getoption("--parity-readme"):
        write_readme(ROOT / "README.md", summary(rows))
