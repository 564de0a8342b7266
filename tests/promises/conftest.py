"""One small program for the promises: two integrations, averaged frames, snowballs searched."""

from __future__ import annotations

import time

import pytest

from tests.cli.conftest import program, references, uncal
from tests.promises.program import KINDS, run
from tests.using import crds_of

__all__ = ["program", "references", "uncal"]


@pytest.fixture(scope="session")
def products(programs, tmp_path_factory):
    """Products of Stages 1 and 2 of the first exposure, in one thread."""
    from jwstdask.engine.executor import Serial
    from jwstdask.pipeline import Detector1Pipeline, Image2Pipeline

    folder = tmp_path_factory.mktemp("products")
    with crds_of(programs.cache("bright2")):
        uncal = str(programs("bright2").uncals[0])
        Detector1Pipeline.call(uncal, save_results=True, output_dir=str(folder), executor=Serial())
        rate = uncal.replace("_uncal", "_rate").replace(str(programs("bright2").path), str(folder))
        Image2Pipeline.call(rate, save_results=True, output_dir=str(folder), executor=Serial())
    return folder


@pytest.fixture(scope="session")
def expected(programs, tmp_path_factory):
    """Products of two exposures, intermediate ones too, made in one thread."""
    from jwstdask.engine.executor import Serial

    folder = tmp_path_factory.mktemp("serial")
    with crds_of(programs.cache("bright2")):
        names = run(programs("bright2"), folder, Serial())
    assert {name.split("_nrcb1_")[1] for name in names} == {f"{kind}.fits" for kind in KINDS}
    return folder


@pytest.fixture(scope="module")
def one_cluster(programs):
    """A cluster of processes on this machine; they take seconds to start and load the kernels.

    It goes with the module: what is computed lazily elsewhere would else be computed there.
    """
    from jwstdask.engine.clusters import local_cluster

    with crds_of(programs.cache("bright2")):
        executor = local_cluster(3)
    yield executor
    executor.close()


@pytest.fixture
def cluster(one_cluster):
    """``cluster(n)``: the cluster with n workers."""

    def scaled(workers):
        one_cluster.owner.scale(workers)
        while len(one_cluster.client.scheduler_info(n_workers=-1)["workers"]) != workers:
            time.sleep(0.05)
        return one_cluster

    return scaled
