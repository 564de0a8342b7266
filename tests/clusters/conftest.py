"""Batch systems and programs for tests of clusters."""

from __future__ import annotations

import os

import pytest
import yaml

from tests.clusters import slurm as slurms
from tests.promises.program import run
from tests.using import crds_of


@pytest.fixture(scope="module")
def slurm():
    """A Slurm of two nodes of one core each, in use."""
    reason = slurms.missing()
    if reason:
        pytest.skip(reason)
    with slurms.slurm(nodes=2, cpus=1, memory=2000) as found:
        before = {name: os.environ.get(name) for name in found.environment}
        os.environ.update(found.environment)
        try:
            yield found
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name)
                else:
                    os.environ[name] = value


@pytest.fixture(scope="module")
def profile_file(module_folder):
    """``profile_file(kind, ...)``: the path of a profile for clusters on loopback."""
    folder = module_folder("profiles")

    def write(kind, **content):
        path = folder / f"{kind}{len(list(folder.iterdir()))}.yaml"
        common = {"kind": kind, "memory": "900 MiB", "shared_folder": str(folder / "shared"), "check": "0.5 s"}
        path.write_text(yaml.safe_dump(common | content))
        return str(path)

    return write


@pytest.fixture(scope="module")
def program(programs):
    """Three dithers of NRCB1, 160 x 160, with its references in use."""
    with crds_of(programs.cache("bright2")):
        yield programs("bright2")


@pytest.fixture(scope="module")
def expected(program, module_folder):
    """Products of two exposures, made in one thread."""
    from jwstdask.engine.executor import Serial

    folder = module_folder("serial")
    run(program, folder, Serial(), exposures=2)
    return folder
