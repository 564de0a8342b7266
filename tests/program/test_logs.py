"""Logs, census and report of programs that were run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from jwstdask.cli.main import main
from jwstdask.core.dq import GROUP, PIXEL
from jwstdask.core.settings import Layer, Settings
from jwstdask.engine.executor import Serial, Threads
from jwstdask.pipelines.run import run_program
from jwstdask.program.log_files import log_path, tail
from jwstdask.report.data import document, read_program
from jwstdask.report.html import write_program_report
from tests.program.conftest import EXPOSURES, Field, records
from tests.report.browser import CHROMIUM, Browser
from tests.using import crds_of

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (INFO|WARNING|ERROR) +(calwebb_\w+) (.*)")


def log_lines(path: Path) -> list[tuple[str, str, str]]:
    """Level, pipeline and text of each line, all of which are whole."""
    found = [LINE.fullmatch(line) for line in path.read_text().splitlines()]
    assert None not in found
    return [match.groups() for match in found if match is not None]  # type: ignore[misc]


def counts(flags: np.ndarray, names: dict[str, int]) -> dict[str, int]:
    """Elements with each flag that any has."""
    found = {name: int(np.count_nonzero(flags & np.array(value, flags.dtype))) for name, value in names.items()}
    whole = {"all": flags.size, "any": int(np.count_nonzero(flags))}
    return {**whole, **{name: count for name, count in found.items() if count}}


def test_each_exposure_has_a_log(quiet: Path) -> None:
    logs = quiet / "out" / "logs"
    rates = sorted((quiet / "out").glob("*_rate.fits"))
    assert len(rates) == EXPOSURES
    for rate in rates:
        found = log_lines(logs / rate.name.replace("_rate.fits", ".log"))
        texts = [f"{pipeline} {text}" for _, pipeline, text in found]
        for start in (
            "calwebb_detector1 started ",
            "calwebb_detector1 jump: done in ",
            "calwebb_detector1 ramp_fit: done in ",
            "calwebb_detector1 finished in ",
            "calwebb_image2 started ",
            "calwebb_image2 bkg_subtract: skipped: ",
            "calwebb_image2 finished in ",
        ):
            assert sum(text.startswith(start) for text in texts) == 1, start
        assert re.search(r"jump: done in [\d.]+ s; [\d.]+ % of samples flagged", "\n".join(texts))
        assert {level for level, *_ in found} <= {"INFO", "WARNING"}
    (mosaic,) = (quiet / "out").glob("*-o*_i2d.fits")
    texts = [text for _, _, text in log_lines(logs / mosaic.name.replace("_i2d.fits", ".log"))]
    assert any(text.startswith("tweakreg: ") for text in texts) and texts[-1].startswith("finished in ")


def test_events_for_machines(quiet: Path) -> None:
    found = [json.loads(line) for line in (quiet / "out" / "logs" / "run.jsonl").read_text().splitlines()]
    kinds = [item["event"] for item in found]
    assert kinds[0] == "run" and kinds[-1] == "end" and found[-1]["status"] == "done"
    done = [record for record in records(quiet / "out") if record["record"] == "finished"]
    assert kinds.count("started") == kinds.count("finished") == len(done)
    assert kinds.count("step") == sum(len(record["steps"]) for record in done)
    jumps = [item for item in found if item["event"] == "step" and item["step"] == "jump"]
    assert len(jumps) == EXPOSURES and all("% of samples flagged" in item["message"] for item in jumps)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", item["time"]) for item in found)


def test_census_is_that_of_the_products(quiet: Path) -> None:
    out = quiet / "out"
    done = [record for record in records(out) if record["record"] == "finished"]
    checked = 0
    for record in done:
        for kind, found in record["census"].items():
            if kind in ("rate", "cal"):
                flags = fits.getdata(out / record["products"][kind][0], "DQ")
                assert found == counts(flags, PIXEL)
                checked += 1
    assert checked == 2 * EXPOSURES


@pytest.mark.parametrize("name", ["bright2", "snowballs"])
def test_census_of_the_ramp_on_the_way(programs, name: str, tmp_path: Path) -> None:
    """Whatever the grain; with snowballs, whose flags the whole frame revises."""
    found = []
    uncal = str(programs(name).uncals[0])
    for grain, executor in (("exposure", Serial()), ("strip", Threads(2))):
        out = tmp_path / grain
        given = Layer("test", {"save_calibrated_ramp": True}, {})
        settings = Settings(output_dir=str(out))
        with crds_of(programs.cache(name)):
            each = {"calwebb_detector1": Settings(layers=(given,), output_dir=str(out))}
            (outcome,) = run_program([uncal], 1, settings, executor, each, grain=grain).outcomes
        assert outcome.error is None
        found.append(dict(outcome.census))
        ramp = fits.getdata(outcome.products["ramp"], "GROUPDQ")
        expected = counts(ramp, GROUP)
        groups = found[-1]["groups"]
        assert groups["all"] == ramp.size
        for flag in ("JUMP_DET", "SATURATED"):
            assert groups.get(flag, 0) == expected.get(flag, 0)
        assert groups["JUMP_DET"] > 0
        mask = found[-1]["mask"]
        rate = fits.getdata(outcome.products["rate"], "DQ")
        assert mask["all"] == rate.size and 0 < mask["DO_NOT_USE"] <= counts(rate, PIXEL)["DO_NOT_USE"]
        for path in out.iterdir():
            path.unlink()
    assert found[0] == found[1]


@pytest.fixture
def broken(field_of: Field) -> Field:
    """Two exposures, one of which is truncated."""
    paths = sorted(field_of.inputs.glob("*.fits"))
    for path in paths[2:]:
        path.unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:20_000])
    return field_of


def test_a_failure_is_in_log_status_and_report(broken: Field, capsys) -> None:
    out = broken.folder / "out"
    printed = broken.run(out, "--threads=1", "-v", status=1)
    assert re.search(r"\n    jump: done in [\d.]+ s; [\d.]+ % of samples flagged\n", printed)
    good, bad = sorted(broken.inputs.glob("*.fits"))
    log = Path(str(log_path(str(out), str(bad))))
    found = log_lines(log)
    assert any(level == "ERROR" and "truncated" in text for level, _, text in found)
    assert main(["status", str(out)]) == 0
    told = capsys.readouterr().out
    assert f"FAILED calwebb_detector1 {bad.name}" in told and f"    log: {log}" in told
    content = document(read_program(out), str(out))
    by_name = {name: rows for name, rows, _ in content["exposures"]}
    row = by_name[bad.name.removesuffix("_uncal.fits")][0]
    assert content["states"][row[1]] == "failed" and row[14] == tail(str(log), 40)
    assert content["states"][by_name[good.name.removesuffix("_uncal.fits")][1][1]] == "done"


def test_an_error_nobody_foresaw(field_of: Field, monkeypatch, capsys) -> None:
    """Its traceback is in the log, and the end of it in status."""
    from jwstdask.steps.detector.jump import JumpStep

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("in the middle")

    monkeypatch.setattr(JumpStep, "apply", fail)
    for path in sorted(field_of.inputs.glob("*.fits"))[1:]:
        path.unlink()
    out = field_of.folder / "out"
    field_of.run(out, "--threads=1", through=1, status=1)
    (log,) = (out / "logs").glob("*.log")
    texts = "\n".join(text for level, _, text in log_lines(log) if level == "ERROR")
    assert "Traceback (most recent call last)" in texts and "ZeroDivisionError: in the middle" in texts
    main(["status", str(out)])
    assert "    | jwstdask.core.errors.StepError: " in capsys.readouterr().out
    content = document(read_program(out), str(out))
    assert content["steps"][content["exposures"][0][1][0][8]][0][:2] == ("jump", "FAILED")


@pytest.mark.parametrize("option", ["--threads=2", "--workers=2"])
def test_progress_for_machines(field_of: Field, option: str) -> None:
    """Nothing but objects is printed, also of what workers would have to say; their logs are in the folder."""
    for path in sorted(field_of.inputs.glob("*.fits"))[2:]:
        path.unlink()
    out = field_of.folder / "out"
    printed = field_of.run(out, option, "--log-format=json", through=1)
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    assert [line for line in printed.splitlines() if line not in lines] == [printed.splitlines()[-1]]
    found = [json.loads(line) for line in lines]
    assert [item["event"] for item in found].count("finished") == 2
    assert {item["done"] for item in found if item["event"] == "finished"} == {1, 2}
    logs = sorted((out / "logs").glob("*.log"))
    places = {re.search(r"on (\S+),", path.read_text()).group(1) for path in logs}  # type: ignore[union-attr]
    # What was said on workers comes home, too.
    workers = list((out / "logs" / "workers").glob("*.log"))
    assert len(workers) == (2 if option == "--workers=2" else 0)
    assert all("Registered to:" in path.read_text() and "Start Nanny" in path.read_text() for path in workers)
    assert len(logs) == 2 and len(places) == (2 if option == "--threads=2" else len(places))


def test_report_command_and_comparison(complete: Path, field_of: Field, tmp_path: Path, capsys) -> None:
    old = tmp_path / "old"
    shutil.copytree(complete, old)
    field_of.run(complete, "--threads=1", "--steps.jump.skip=true")
    page = tmp_path / "page.html"
    assert main(["report", str(complete), "--compare", str(old), "-o", str(page), "--differences=2"]) == 0
    assert f"report: {page}" in capsys.readouterr().err
    data = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    found = json.loads(data[0])["comparison"]
    names = {path.name for path in complete.glob("*.fits")}
    assert set(found["products"]["changed"]) <= names and found["products"]["added"] == []
    assert any(name.endswith("_rate.fits") for name in found["products"]["changed"])
    assert ["calwebb_detector1: jump.skip", "-", "True"] in found["parameters"]
    # Those of Stage 3, which the second run was not to do.
    assert {kind: after for kind, _, after in found["references"]} == {"abvegaoffset": "-", "apcorr": "-"}
    assert len(found["lines"]) == 2 and all("identical" in line or "different" in line for _, line in found["lines"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere"], "has no journal"), (["x", "--differences=-1"], "must not be negative")],
)
def test_wrong_words(arguments: list[str], said: str, capsys) -> None:
    assert main(["report", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_the_page_of_a_real_run(quiet: Path, tmp_path: Path) -> None:
    page = write_program_report(quiet / "out", tmp_path / "report.html")
    browser = Browser()
    try:
        browser.open(page)
        assert browser.problems == []
        assert [url for url in browser.requests if not url.startswith("data:")] == [Path(page).as_uri()]
        rows = browser.run("[...document.querySelectorAll('#exposures tr.row td.name')].map(item => item.textContent)")
        assert rows == sorted(path.name.removesuffix("_rate.fits") for path in (quiet / "out").glob("*_rate.fits"))
        # Links lead to the products, from wherever the page is.
        links = browser.run("[...document.querySelectorAll('tr.detail a')].map(item => item.href)")
        assert len(links) >= 5 * EXPOSURES
        assert all(Path(link.removeprefix("file://")).exists() for link in links), links
        browser.run("document.querySelectorAll('#page img').forEach(item => { item.loading = 'eager'; })")
        sizes = "[...document.querySelectorAll('#page img')].map(item => item.decode().then(() => item.naturalWidth))"
        widths = browser.run(f"Promise.all({sizes})")
        assert len(widths) >= 2 * EXPOSURES + 1 and min(widths) >= 60
    finally:
        browser.close()
