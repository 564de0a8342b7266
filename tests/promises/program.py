"""Running the program of the promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jwstdask.core.settings import Layer, Settings
from jwstdask.pipelines.run import run_program

# Intermediate products and the fits of single segments too; snowballs are searched.
STEPS: dict[str, dict[str, dict[str, Any]]] = {
    "calwebb_detector1": {
        "dark_current": {"save_results": True},
        "jump": {"save_results": True, "expand_large_events": True},
        "ramp_fit": {"save_opt": True},
    },
    "calwebb_image2": {"flat_field": {"save_results": True}},
}
KINDS = ("dark_current", "jump", "fitopt", "rate", "rateints", "flat_field", "cal", "i2d")


def run(
    program: Any, folder: Path, executor: Any, grain: str = "exposure", exposures: int = 2, through: int = 2
) -> list[str]:
    """Calibrate exposures of the program into ``folder``; the names of the products."""
    steps = {
        alias: Settings((Layer("test", {}, parameters),), output_dir=str(folder)) for alias, parameters in STEPS.items()
    }
    inputs = [str(path) for path in program.uncals[:exposures]]
    result = run_program(inputs, through, Settings(output_dir=str(folder)), executor, steps, grain=grain)
    assert not result.failed, [outcome.error + outcome.traceback for outcome in result.failed]
    return sorted(path.name for path in folder.iterdir())
