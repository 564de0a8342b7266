"""Products of both pipelines, made once a session in processes of their own, on one CRDS cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import once

HERE = Path(__file__).parent


def _process(script: str, folder: Path, work: Any, environment: Mapping[str, str]) -> None:
    """Run a script on a list of work.

    A failure of the oracle is an error; one of ours is a product that is missing, which the tests say with the log.
    """
    listing, log = folder / f"{script}.json", folder / f"{script}.log"
    listing.write_text(json.dumps(work))
    with open(log, "w") as stream:
        command = [sys.executable, str(HERE / f"{script}.py"), str(listing)]
        environment = {**os.environ, **environment, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=stream, stderr=stream, env=environment, cwd=folder).returncode
    if code != 0 and script == "run_jwst":
        raise RuntimeError(f"{script} ended with {code}:\n{log.read_text()[-4000:]}")


@dataclass(frozen=True)
class Call:
    """A pipeline or step on an input, by jwstdask's alias and jwst's class, in a cache of its own if need be."""

    alias: str
    jwst: str
    input: str | Path = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    subfolder: str = ""
    environment: Mapping[str, str] | None = None


def run_jwst(folder: Path, calls: Sequence[Call], environment: Mapping[str, str]) -> None:
    """Calls of jwst in one process; products go to ``folder``."""
    work = []
    for call in calls:
        (folder / call.subfolder).mkdir(exist_ok=True)
        own = {"save_results": True, "output_dir": str(folder / call.subfolder)}
        options = {**own, **call.options}
        cache = {"environment": call.environment and dict(call.environment)}
        work.append({"class": call.jwst, "input": str(call.input), "options": options, **cache})
    _process("run_jwst", folder, work, environment)


def run_ours(folder: Path, calls: Sequence[Call], environment: Mapping[str, str]) -> None:
    """Commands of jwstdask in one process; products go to ``folder``."""
    work = []
    for call in calls:
        (folder / call.subfolder).mkdir(exist_ok=True)
        words = [word for word in (call.alias, str(call.input)) if word]
        words = ["run", *words, *command_line(call.options), f"--output_dir={folder / call.subfolder}"]
        work.append({"words": words, "environment": call.environment and dict(call.environment)})
    _process("run_ours", folder, work, environment)


def same_names(ours: Path, oracle: Path, pattern: str = "*.fits") -> list[str]:
    """Names of the products in two folders, which must be the same ones."""
    names = [sorted(path.name for path in folder.glob(pattern)) for folder in (ours, oracle)]
    log = next((path for path in (ours / "run_ours.log", ours.parent / "run_ours.log") if path.exists()), None)
    assert names[0] == names[1], f"{names[0]} != {names[1]}\n{log.read_text()[-3000:] if log else ''}"
    assert names[0]
    return names[0]


TAPS = ("dq_init", "saturation", "superbias", "refpix", "linearity", "dark_current", "jump")
"""Steps of Stage 1 whose results are saved on the way."""


def command_line(options: Mapping[str, Any]) -> list[str]:
    """Options of ``.call`` as words of a command."""
    words = []
    for name, value in options.items():
        if name == "steps":
            words += [f"--steps.{step}.{key}={found}" for step, own in value.items() for key, found in own.items()]
        else:
            words.append(f"--{name}={value}")
    return words


def gather(folder: Path, files: Sequence[Path]) -> Path:
    """A folder with links to files: what an association names must lie beside it."""
    folder.mkdir()
    for file in files:
        (folder / file.name).symlink_to(file)
    return folder


class Products:
    """Folders with products of programs; ``who`` made them is ``ours`` or ``jwst``."""

    def __init__(self, folder: Path, programs: Any) -> None:
        self.folder, self.programs = folder, programs

    def make(self, who: str, name: str, work: Callable[[Path], Sequence[Call]], environment: Mapping[str, str]) -> Path:
        """Folder ``name`` with the products of calls: class or alias by maker, input, options of ``.call``."""

        def build(folder: Path) -> None:
            {"jwst": run_jwst, "ours": run_ours}[who](folder, work(folder), environment)

        return once(self.folder / who / name, build)

    def detector1(self, who: str, name: str) -> Path:
        """Stage 1 of a program with every product that it can save."""
        program = self.programs(name)
        steps: dict[str, dict[str, Any]] = {
            step: {"save_results": True} for step in (TAPS if name == "bright2" else ("jump",))
        }
        steps["ramp_fit"] = {"save_opt": True}
        options = {"save_calibrated_ramp": True, "steps": steps}
        if name == "full":
            # half a gigabyte else
            options = {"steps": {"jump": {"save_results": True}}}
        call = Call("calwebb_detector1", "jwst.pipeline.Detector1Pipeline", options=options)
        return self.make(
            who,
            f"detector1_{name}",
            lambda _: [replace(call, input=path) for path in program.uncals],
            program.cache.environment,
        )

    def rates(self, who: str, name: str) -> list[Path]:
        """What goes into Stage 2."""
        kind = "rateints" if self.programs.recipe(name).options.get("tso") else "rate"
        folder = self.detector1(who, name)
        return [folder / path.name.replace("_uncal", f"_{kind}") for path in self.programs(name).uncals]

    def image2(self, who: str, name: str) -> Path:
        """Stage 2 of a program, from the rates of the same maker."""
        rates = self.rates(who, name)
        call = Call("calwebb_image2", "jwst.pipeline.Image2Pipeline")
        return self.make(
            who,
            f"image2_{name}",
            lambda _: [replace(call, input=path) for path in rates],
            self.programs(name).cache.environment,
        )

    def program(self) -> Path:
        """The mosaic's program through three stages by one command of jwstdask."""
        program = self.programs("mosaic")

        def build(folder: Path) -> None:
            inputs = gather(folder / "inputs", [*program.uncals, program.association])
            run_ours(folder, [Call(str(inputs), "", "", {"through": 3})], program.cache.environment)

        return once(self.folder / "ours" / "program", build)

    def image3(
        self, who: str, members: Sequence[Path], association: str = "image3", name: str = "image3_mosaic"
    ) -> Path:
        """Stage 3 of calibrated members of the mosaic's program."""
        program = self.programs("mosaic")
        table = program.associations[association]

        def work(folder: Path) -> list[Call]:
            inputs = gather(folder / "inputs", [*members, table])
            return [Call("calwebb_image3", "jwst.pipeline.Image3Pipeline", inputs / table.name)]

        return self.make(who, name, work, program.cache.environment)


@pytest.fixture(scope="session")
def products(session_folder, programs) -> Products:
    """Products of both pipelines."""
    return Products(session_folder, programs)
