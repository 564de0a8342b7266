"""Promise: importing the package and starting the command is light."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "numpy",
    "dask",
    "xarray",
    "numba",
    "astropy",
    "asdf",
    "gwcs",
    "distributed",
    "matplotlib",
    "photutils",
    "scipy",
}


def modules(code: str) -> set[str]:
    """Modules that a fresh interpreter has after some code."""
    code = f"import sys\n{code}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def imported(code: str) -> set[str]:
    """Packages that a fresh interpreter has after some code."""
    return {name.split(".")[0] for name in modules(code)}


@pytest.mark.parametrize(
    "code",
    [
        "import jwstdask; dir(jwstdask)",
        "import jwstdask.pipeline; dir(jwstdask.pipeline)",
        "from jwstdask.cli.main import main; assert main(['--help']) == 0",
        "from jwstdask.cli.main import main; assert main(['rum']) == 2",
    ],
)
def test_nothing_heavy(code):
    assert not imported(code) & HEAVY


def test_names_of_steps_need_numpy_only():
    assert imported("import jwstdask.step; dir(jwstdask.step)") & HEAVY <= {"numpy"}


def test_the_oracle_is_never_imported(uncal, tmp_path):
    code = f"""
from jwstdask.cli.main import main
assert main(["run", {uncal!r}, "--through", "2", "--output_dir", {str(tmp_path)!r}]) == 0
"""
    found = imported(code)
    assert "jwstdask" in found and "numba" in found
    # Not stpipe: asdf asks every package that is installed for its schemas.
    assert not found & {"jwst", "stcal", "pytest", "hypothesis"}


def test_planning_compiles_and_plots_nothing(uncal):
    """The start of a command, until its first task: no plotting, no cluster, no catalogue work."""
    code = f"""
from jwstdask.cli.main import main
assert main(["run", "calwebb_detector1", {uncal!r}, "--dry-run"]) == 0
"""
    assert not imported(code) & {"matplotlib", "distributed", "photutils", "gwcs", "drizzle", "tweakwcs"}


def test_stage_1_loads_no_part_of_a_library_that_it_does_not_use(uncal, tmp_path):
    """Each process of a cluster would pay for it: 30 MB, and half a second."""
    code = f"""
from jwstdask.cli.main import main
assert main(["run", "calwebb_detector1", {uncal!r}, "--output_dir", {str(tmp_path)!r}, "--threads=1"]) == 0
"""
    unused = {"crds.bestrefs", "crds.certify", "requests", "scipy.linalg", "scipy.spatial", "astropy.table"}
    assert not modules(code) & unused
