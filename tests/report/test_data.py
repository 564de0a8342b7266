"""What a report says of a program: from its journal, during a run too, and beside an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jwstdask.program.journal import Journal, journal_path
from jwstdask.report.data import compare, document, read_program, state_of, totals
from tests.report.programs import IMAGE2, finished, settings, write_program


def shown(folder: Path) -> dict[str, Any]:
    return document(read_program(folder), str(folder))


def states(content: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in totals(content)["states"].items() if count}


def test_a_program(tmp_path: Path) -> None:
    names = write_program(tmp_path, 30, fails=lambda index: index == 3)
    content = shown(tmp_path)
    assert [name for name, *_ in content["exposures"]] == names
    assert states(content) == {"failed": 1, "done": 29} and content["state"] == "done"
    ((_, task, members, count),) = content["associations"]
    assert count == 30 and members[5] == f"{names[5]}_cal.fits"
    kind, path = content["products"][task[10]][1]
    assert kind == "crf (30)" and path.endswith("_crf.fits")
    _, (first, _), used = content["exposures"][4]
    assert used == [0] and content["workers"][first[7]].startswith("node")
    groups = next(line for line in first[11] if content["censuses"][line[0]] == "groups")
    assert groups[1] == 10 * 2048**2 and content["flags"][groups[3]] == "DO_NOT_USE"
    digests = {name: digest for _, name, _, digest in content["references"]}
    assert digests["jwst_nircam_jump_nrca1.fits"] == "ab" * 16 and "jwst_nircam_jump_nrcb4.fits" in digests
    failed = content["exposures"][3][1]
    assert [content["states"][row[1]] for row in failed] == ["failed", "waiting"]
    assert "rows 128:256 are missing" in failed[0][13] and "OSError" in failed[0][14]


def test_a_run_at_work_and_killed(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.add("run", command=["x"], context="c", workers=1, process=1, host="h", versions={})
        journal.add_all([settings("calwebb_image2", IMAGE2, "nrca1")])
        for name in "abc":
            task = {"task": f"p {name}_cal.fits", "pipeline": "calwebb_image2", "path": f"/x/{name}_rate.fits"}
            journal.add("planned", **task, settings="calwebb_image2 nrca1")
        journal.add("started", task="p a_cal.fits", worker="w")
        journal.add("started", task="p b_cal.fits", worker="w")
        journal.add("failed", task="p b_cal.fits", reason="no")
        content = shown(tmp_path)
        assert content["state"] == "running"
        assert states(content) == {"failed": 1, "running": 1, "waiting": 1}
        assert content["exposures"][0][1][0][3] is not None and content["exposures"][2][1][0][3] is None
    assert state_of(read_program(tmp_path)) == "killed"


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    """What an earlier run did is up to date, with its times; what it did besides is left out."""
    write_program(tmp_path, 4, fails=lambda index: False, nasty=False)
    before = shown(tmp_path)
    tasks = [name for name in read_program(tmp_path).tasks if "image2" in name]
    with Journal(tmp_path) as journal:
        journal.add("run", command=["x"], context="c", workers=1, process=1, host="h", versions={})
        for task in tasks:
            name = task.split()[1].replace("_cal", "_rate")
            journal.add("fresh", task=task, pipeline="calwebb_image2", path=f"/in/{name}", settings="")
        journal.add("end", status="done")
    content = shown(tmp_path)
    assert states(content) == {"up to date": 4} and content["associations"] == []
    assert content["exposures"][0][1][0][4] == before["exposures"][0][1][1][4] and len(content["runs"]) == 2


def test_lines_of_others_and_half_lines(tmp_path: Path) -> None:
    write_program(tmp_path, 3)
    path = Path(journal_path(tmp_path))
    before = totals(shown(tmp_path))
    with open(path, "ab") as file:
        file.write(b'{"record":"finished"')
    assert totals(shown(tmp_path)) == before


def test_the_end_of_the_log_of_a_failure(tmp_path: Path) -> None:
    names = write_program(tmp_path, 5, fails=lambda index: index == 3)
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / f"{names[3]}.log"
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    shown_lines = shown(tmp_path)["exposures"][3][1][0][14].splitlines()
    assert shown_lines == [f"line {number}" for number in range(960, 1000)]


def test_products_are_named_from_the_report(tmp_path: Path) -> None:
    write_program(tmp_path / "out", 2, nasty=False)
    content = document(read_program(tmp_path / "out"), str(tmp_path))
    assert content["products"][content["exposures"][0][1][0][10]][0] == ("rate", "out/\0_rate.fits")


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    for name, seed in (("old", 1), ("new", 1)):
        write_program(tmp_path / name, 3, seed=seed, fails=lambda index: False, nasty=False)
    return tmp_path / "old", tmp_path / "new"


def test_the_same_again_is_the_same(two: tuple[Path, Path]) -> None:
    found = compare(*map(read_program, two))
    assert found["products"]["same"] == 3 * 3 + 4
    for name in ("changed", "added", "removed"):
        assert found["products"][name] == []
    assert found["references"] == found["parameters"] == found["versions"] == found["states"] == []
    assert {(before, after) for _, before, _, after, _ in found["times"]} == {(3, 3), (1, 1)}


def test_what_changed(two: tuple[Path, Path]) -> None:
    import random

    old, new = two
    data = read_program(new)
    detector1 = next(task for task in data.tasks.values() if task.pipeline == "calwebb_detector1")
    image2 = [task for task in data.tasks.values() if task.pipeline == "calwebb_image2"]
    changed = settings("calwebb_image2", IMAGE2, "nrca1")
    changed["steps"][2]["references"]["flat_field"] = "jwst_nircam_flat_field_new.fits"
    changed["steps"][1]["parameters"] = {"sip_degree": [5, "command line"]}
    with Journal(new) as journal:
        name = detector1.label
        record = finished(detector1.name, [], {"rate": f"{name}_rate.fits", "x": "new.fits"}, random.Random(9))
        record["references"] = {"/crds/jwst_nircam_dq_init_nrca1.fits": [1, 2, "other"]}
        journal.add_all([record, changed, {"record": "failed", "task": image2[2].name, "reason": "no"}])
    found = compare(read_program(old), read_program(new))
    assert found["products"]["changed"] == [f"{name}_rate.fits"] and found["products"]["added"] == ["new.fits"]
    gone = [f"{name}_rateints.fits", f"{image2[2].label}_cal.fits"]
    assert found["products"]["removed"] == sorted(gone)
    assert found["references"] == [
        ["flat_field", "jwst_nircam_flat_field_nrca1.fits", "jwst_nircam_flat_field_new.fits"],
        ["jwst_nircam_dq_init_nrca1.fits", "other content", "under the same name"],
    ]
    assert found["parameters"] == [["calwebb_image2: assign_wcs.sip_degree", "-", "5"]]
    assert found["states"] == [[f"calwebb_image2 {image2[2].label}", "done", "failed"]]
