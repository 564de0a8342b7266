"""The same command again does what is missing or stale, and its products are those of an undisturbed run."""

from __future__ import annotations

import os
import re
import signal
import time

import numpy as np
import psutil
import pytest
from astropy.io import fits

from tests.program.conftest import EXPOSURES, contents, records, tasks_of

STAGE_1_AND_2 = ("rate", "rateints", "cal", "i2d")


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


def test_up_to_date(field_of, undisturbed):
    out = field_of.folder / "out"
    field_of.run(out)
    before = times(out)
    printed = field_of.run(out)
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} are up to date" in printed
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} done" in printed
    assert times(out) == before
    assert tasks_of(out, "started") == [] and len(tasks_of(out, "fresh")) == 2 * EXPOSURES
    assert contents(out) == of_two_stages(undisturbed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("where", ["--threads=1", "--workers=2"])
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
    field_of.run(out, where)
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
    parents = {child: child.cmdline() for child in psutil.Process(process.pid).children()}
    workers = [child for child, words in parents.items() if any("spawn_main" in word for word in words)]
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
        assert wait_for(lambda: len(records(out)) > 0, process)
        printed = field_of.run(out, status=2)
        assert re.search(rf"another run is at work in .*out \(process {process.pid} on .*\)", printed)
        assert "choose another output_dir" in printed
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def complete(field_of):
    out = field_of.folder / "out"
    field_of.run(out, "--threads=2")
    return out


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
    ("force", "again"),
    [("flat_field", EXPOSURES), ("jump", 2 * EXPOSURES), ("calwebb_image2", EXPOSURES), ("all", 2 * EXPOSURES)],
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


def test_folder_that_moved(field_of, complete):
    """Products are known by their place in the folder, inputs by their content."""
    moved = field_of.folder / "moved"
    complete.rename(moved)
    field_of.inputs = field_of.inputs.rename(field_of.folder / "elsewhere")
    assert f"{2 * EXPOSURES} of {2 * EXPOSURES} are up to date" in field_of.run(moved)
