"""`jwstdask.run_program`: what it refuses, what it leaves behind."""

from __future__ import annotations

import pytest

import jwstdask
from jwstdask.core.errors import InputError, ParameterError
from jwstdask.engine.executor import Cluster, Serial, Threads
from jwstdask.pipelines.facade import executor_over


def test_step_that_no_pipeline_has_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="jump"):
        jwstdask.run_program(tmp_path, steps={"jmp": {"skip": True}})


@pytest.mark.parametrize("parameters", [{"rejection_treshold": 5}, {"rejection_threshold": "high"}])
def test_parameters_are_checked_before_anything_is_opened(parameters):
    with pytest.raises(ParameterError, match="rejection_threshold"):
        jwstdask.run_program("there/is/no/such/folder", steps={"jump": parameters})


def test_missing_folder():
    with pytest.raises(InputError, match="no such file"):
        jwstdask.run_program("there/is/no/such/folder")


def test_stage_1_with_parameters_and_report(small_cache, small_program, tmp_path, monkeypatch):
    for name, value in small_cache.environment.items():
        monkeypatch.setenv(name, value)
    result = jwstdask.run_program(
        small_program.uncals[:1],
        through=1,
        output_dir=tmp_path / "products",
        steps={"jump": {"skip": True}},
        executor=Serial(),
        report=tmp_path / "report.html",
    )
    assert not result.failed
    assert sorted(path.name for path in (tmp_path / "products").iterdir()) == [
        f"{small_program.uncals[0].stem.removesuffix('uncal')}{kind}.fits" for kind in ("rate", "rateints")
    ]
    rate = jwstdask.open_exposure(result.outcomes[0].products["rate"])
    assert rate.attrs["meta.cal_step.jump"] == "SKIPPED"
    assert rate.attrs["meta.cal_step.ramp_fit"] == "COMPLETE"
    assert small_program.uncals[0].stem.removesuffix("_uncal") in (tmp_path / "report.html").read_text()


def test_executor_over():
    serial, client = Serial(), object()
    assert executor_over(serial) is serial
    assert isinstance(executor_over(None), Threads)
    assert isinstance(executor_over(client), Cluster)
    assert executor_over(client).client is client
