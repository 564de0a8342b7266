"""The same command again does what is missing or stale, and its products are those of an undisturbed run."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

import jwstdask
from jwstdask.engine.executor import Serial
from tests.program.conftest import EXPOSURES, contents, records, tasks_of
from tests.program.processes import worker_processes
from tests.using import crds_of, heed_interrupts


def of_two_stages(undisturbed):
    return {
        name: found
        for name, found in undisturbed.items()
        if re.fullmatch(r"jw\d{11}_.*_nrcb1_(rate|rateints|cal|i2d)\.fits", name)
    }


def wait_for(condition, process, seconds=120.0):
    """Wait until something is so; False if the process has ended."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < end, "it has not come to that"
        time.sleep(0.005)
    return False


def finished(out):
    return [record["task"] for record in records(out) if record["record"] == "finished"]


def times(out):
    return {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix == ".fits"}


def assert_nothing_redone(out, done, before):
    """Tasks whose record was there were not begun again, and their products not touched."""
    again = set(tasks_of(out, "started")) & set(done)
    assert not again
    after = times(out)
    for task in done:
        name = task.split()[1]
        assert after[name] == before[name]


def test_up_to_date(field_of, undisturbed, complete):
    out = complete
    before = times(out)
    printed = field_of.run(out)
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} are up to date" in printed
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} done" in printed
    assert times(out) == before
    assert tasks_of(out, "started") == [] and len(tasks_of(out, "fresh")) == 2 * EXPOSURES
    assert contents(out) == of_two_stages(undisturbed)


@pytest.mark.parametrize(("where", "seed"), [("--threads=1", 0), ("--threads=1", 1), ("--workers=2", 2)])
def test_client_killed(field_of, undisturbed, where, seed):
    out = field_of.folder / "out"
    generator = np.random.default_rng(seed)
    done_before = int(generator.integers(0, 2 * EXPOSURES - 2))
    process = field_of.begin(out, where)
    assert wait_for(lambda: out.exists() and len(finished(out)) >= done_before, process)
    time.sleep(generator.uniform(0, 0.4))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done, before = finished(out), times(out)
    field_of.run(out)
    assert_nothing_redone(out, done, before)
    assert len(tasks_of(out, "fresh")) == len(done)
    assert len(finished(out)) == len(set(finished(out))) == 2 * EXPOSURES
    assert contents(out) == of_two_stages(undisturbed)
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [".jwstdask"]


def test_killed_in_stage_3(field_of, undisturbed):
    """A mosaic that was begun is made again; Stages 1 and 2 are not."""
    out = field_of.folder / "out"
    process = field_of.begin(out, through=3)
    begun = r"started.*calwebb_image3"
    assert wait_for(lambda: any(re.search(begun, str(record)) for record in records(out)), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done, before = finished(out), times(out)
    assert len(done) == 2 * EXPOSURES
    printed = field_of.run(out, through=3)
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} are up to date" in printed
    assert_nothing_redone(out, done, before)
    assert contents(out) == undisturbed


def test_worker_killed(field_of, undisturbed):
    """The run goes on by itself."""
    out = field_of.folder / "out"
    process = field_of.begin(out, "--workers=2")
    assert wait_for(lambda: out.exists() and len(finished(out)) >= 2, process)
    workers = worker_processes(process.pid)
    assert len(workers) == 2
    workers[0].kill()
    printed = process.communicate()[1]
    assert process.returncode == 0, printed
    assert contents(out) == of_two_stages(undisturbed)
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} are up to date" in field_of.run(out)


def test_a_second_run_is_refused(field_of):
    out = field_of.folder / "out"
    process = field_of.begin(out)
    try:
        assert wait_for(lambda: len(records(out)) > 2, process)
        printed = field_of.run(out, status=2)
        assert re.search(rf"another run is at work in .*out \(process {process.pid} on .*\)", printed)
        assert "choose another output_dir" in printed
    finally:
        process.kill()
        process.communicate()


def test_products_deleted_or_changed_are_made_again(field_of, undisturbed, complete):
    rate, cal = sorted(complete.glob("*00001*_rate.fits"))[0], sorted(complete.glob("*00002*_cal.fits"))[0]
    touched, deleted = sorted(complete.glob("*00003*_rate.fits"))[0], sorted(complete.glob("*00004*_i2d.fits"))[0]
    rate.unlink()
    deleted.unlink()
    with fits.open(cal, mode="update") as hdus:
        hdus["SCI"].data[0, 0] += 1
    os.utime(touched)
    printed = field_of.run(complete)
    # Stage 2 of an exposure does not suffer from its rate being made again: it is the same.
    assert [name.split("_nrcb1_")[0][-5:] for name in tasks_of(complete, "started")] == ["00001", "00002", "00004"]
    assert f"{2 * EXPOSURES - 3} of {2 * EXPOSURES} are up to date" in printed
    assert contents(complete) == of_two_stages(undisturbed)
    # What was only touched was read once, and is known from then on.
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} are up to date" in field_of.run(complete)


def test_input_that_changes(field_of, complete):
    """An exposure whose pixels changed goes through both stages again; one that was copied again does not."""
    first, second = sorted(field_of.inputs.glob("*.fits"))[:2]
    with fits.open(first, mode="update") as hdus:
        hdus["SCI"].data[0, -1, 5, 5] += 100
    second.write_bytes(second.read_bytes())
    field_of.run(complete)
    assert tasks_of(complete, "started") == [
        f"calwebb_{stage} {first.name.replace('uncal', kind)}"
        for stage, kind in (("detector1", "rate"), ("image2", "cal"))
    ]


def test_parameters_that_change(field_of, complete):
    printed = field_of.run(complete, "--threads=1", "--steps.flat_field.skip=true")
    assert f"{EXPOSURES} of {2 * EXPOSURES} are up to date" in printed
    assert all(task.startswith("calwebb_image2") for task in tasks_of(complete, "started"))
    # A parameter of a step that does not run changes nothing.
    printed = field_of.run(complete, "--threads=1", "--steps.flat_field.skip=true", "--steps.flat_field.inverse=true")
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} are up to date" in printed


def test_reference_that_changes(field_of, complete, tmp_path):
    """By its content: the same reference under the same name elsewhere is the same, another content is not."""
    flat = tmp_path / os.path.basename(field_of.cache.reference("nrcb1", "flat:F200W"))
    flat.write_bytes(field_of.cache.reference("nrcb1", "flat:F200W").read_bytes())
    options = ("--threads=1", f"--steps.flat_field.override_flat={flat}")
    field_of.run(complete, *options)
    before = len(finished(complete))
    with fits.open(flat, mode="update") as hdus:
        hdus["SCI"].data[3, 3] *= 1.01
    printed = field_of.run(complete, *options)
    assert f"{EXPOSURES} of {2 * EXPOSURES} are up to date" in printed
    assert len(finished(complete)) == before + EXPOSURES


@pytest.mark.parametrize(
    ("force", "again"), [("flat_field", EXPOSURES), ("jump", 2 * EXPOSURES), ("all,calwebb_image2", 2 * EXPOSURES)]
)
def test_force(field_of, undisturbed, complete, force, again):
    """What follows from what is forced is made again, too."""
    field_of.run(complete, "--threads=2", f"--force={force}")
    assert len(tasks_of(complete, "started")) == again
    assert contents(complete) == of_two_stages(undisturbed)


def test_force_names_what_is_known(field_of):
    printed = field_of.run(field_of.folder / "out", "--threads=1", "--force=jmp", status=2)
    assert "--force: there is no step or pipeline 'jmp'. Did you mean 'jump'?" in printed
    assert not (field_of.folder / "out").exists()


def test_from_python(field_of, complete):
    with crds_of(field_of.cache):
        result = jwstdask.run_program(field_of.inputs, 2, output_dir=complete, executor=Serial(), resume=True)
    assert result.fresh == len(result.outcomes) == 2 * EXPOSURES
    assert [os.path.exists(path) for path in result.products("cal")] == [True] * EXPOSURES
    assert all(outcome.steps and outcome.wall > 0 for outcome in result.outcomes)


def test_another_context(field_of, complete):
    """What has the same references under a newer context is up to date."""
    own = replace(field_of.cache, path=field_of.folder / "cache")
    shutil.copytree(field_of.cache.path, own.path)
    before = own.environment["CRDS_CONTEXT"]
    (old,) = own.path.rglob(before)
    lines = old.read_text().replace(before, "jwst_9876.pmap").splitlines(keepends=True)
    # crds: the sum of all lines but the one that states it.
    checksum = hashlib.sha1("".join(line for line in lines if "sha1sum" not in line).encode()).hexdigest()
    lines = [re.sub(r"[0-9a-f]{40}", checksum, line) if "sha1sum" in line else line for line in lines]
    old.with_name("jwst_9876.pmap").write_text("".join(lines))
    field_of.cache = own
    printed = field_of.run(complete, "--threads=1", "--context=jwst_9876.pmap")
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} are up to date" in printed
    sorted(complete.glob("*_rate.fits"))[0].unlink()
    field_of.run(complete, "--threads=1", "--context=jwst_9876.pmap")
    with fits.open(sorted(complete.glob("*_rate.fits"))[0]) as hdus:
        assert hdus[0].header["CRDS_CTX"] == "jwst_9876.pmap"


def test_dry_run(field_of, complete, capsys):
    """It says what is up to date, and touches nothing."""
    sorted(complete.glob("*_rate.fits"))[0].unlink()
    journal = complete / ".jwstdask" / "journal.jsonl"
    before = journal.read_bytes()
    field_of.run(complete, "--threads=1", "--dry-run")
    assert f"{2 * EXPOSURES - 1} of {2 * EXPOSURES} are up to date" in capsys.readouterr().out
    field_of.run(complete, "--threads=1", "--dry-run", "--force=flat_field")
    assert f"{EXPOSURES - 1} of {2 * EXPOSURES} are up to date" in capsys.readouterr().out
    assert journal.read_bytes() == before


def test_folder_that_moved(field_of, complete):
    """Products are known by their place in the folder, inputs by their content."""
    moved = field_of.folder / "moved"
    complete.rename(moved)
    elsewhere = field_of.folder / "elsewhere"
    field_of.inputs = field_of.inputs.rename(elsewhere)
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} are up to date" in field_of.run(moved)


@pytest.mark.parametrize("where", ["--threads=1", "--threads=2", "--workers=2"])
def test_interrupted(field_of, undisturbed, where):
    """Ctrl-C, which all processes of a terminal get: the run ends by itself, says how to go on, and goes on."""
    out = field_of.folder / "out"
    process = field_of.begin(out, where)
    assert wait_for(lambda: out.exists() and len(finished(out)) >= 3, process)
    os.killpg(process.pid, signal.SIGINT)
    printed = process.communicate()[1]
    assert process.returncode == 130, printed
    assert "Stopping; Ctrl-C again stops now." in printed and "Traceback" not in printed
    assert "Interrupted. Finished products are complete. Give the same command again" in printed
    assert records(out)[-1]["record"] == "end" and records(out)[-1]["status"] == "interrupted"
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [".jwstdask"]
    done, before = finished(out), times(out)
    assert 3 <= len(done) < 2 * EXPOSURES
    field_of.run(out)
    assert_nothing_redone(out, done, before)
    assert contents(out) == of_two_stages(undisturbed)


_SLOW = """
import time
from jwstdask.cli.run import stopping
print("begun", flush=True)
with stopping():
    try:
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_stops_now(number):
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        preexec_fn=heed_interrupts,
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.2)
    process.send_signal(number)
    assert process.stdout.readline() == "cleaning\n"
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    printed = process.communicate()[1]
    assert process.returncode == 130
    assert "Stopping" in printed and "Stopped. Finished products are complete." in printed
    # Far from the minute that cleaning would take.
    assert time.monotonic() - started < 30


@pytest.fixture
def with_bad(field_of):
    """One exposure, the first, is no FITS file."""
    bad = sorted(field_of.inputs.glob("*.fits"))[0]
    bad.write_text("no exposure")
    return bad


def test_on_error(field_of, with_bad):
    out = field_of.folder / "out"
    printed = field_of.run(out, "--threads=1", "--on-error=stop", status=1)
    assert "stopped at the first failure" in printed and f"{with_bad.name}: this is not a FITS file" in printed
    assert records(out)[-1]["status"] == "stopped"
    assert finished(out) == [] and len(tasks_of(out, "failed")) == 1
    printed = field_of.run(out, status=1)
    assert len(finished(out)) == 2 * (EXPOSURES - 1)
    assert records(out)[-1]["status"] == "done"
    # What failed is tried again.
    printed = field_of.run(out, status=1)
    assert f"{2 * (EXPOSURES - 1)} of {2 * EXPOSURES - 1} are up to date" in printed
    assert len(tasks_of(out, "failed")) == 1


def test_members_that_failed(field_of, dithers, with_bad):
    """An association that was given needs all its members, or as many as are asked for."""
    out = field_of.folder / "out"
    given = dithers[0].associations["image3"]
    (field_of.inputs / given.name).write_text(given.read_text())
    printed = field_of.run(out, through=3, status=1)
    assert "Stage 3 goes on without 1 exposure that failed" in printed
    assert re.search(r"1 of 4 members cannot be used", printed)
    printed = field_of.run(out, "--threads=1", "--min-members=4", through=3, status=1)
    assert "only 3 of at least 4 members (--min-members) are left" in printed
    field_of.run(out, "--threads=1", "--min-members=3", through=3, status=1)
    (task,) = [task for task in finished(out) if task.startswith("calwebb_image3")]
    with fits.open(out / task.split()[1]) as hdus:
        assert len(hdus["HDRTAB"].data) == EXPOSURES - 1
