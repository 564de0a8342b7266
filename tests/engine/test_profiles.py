"""Profiles of clusters: where they are found, what they may say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from jwstdask.cli.main import main
from jwstdask.core.errors import ParameterError
from jwstdask.engine import limits, profiles
from jwstdask.engine.clusters import default_workers
from jwstdask.engine.profiles import KINDS, Profile, known, read_profile


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """A folder for profiles of a user who has none."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "jwstdask"
    folder.mkdir(parents=True)
    return folder


def test_shipped_profiles():
    found = {name: read_profile(name) for name in known()}
    assert {"local", "slurm", "pbs", "sge", "ssh", "mpi", "kubernetes"} <= set(found)
    assert {profile.kind for profile in found.values()} == set(KINDS)
    assert all(profile.about for profile in found.values())
    assert found["slurm"].limits() == (2, 16)
    assert found["slurm"].walltime == "04:00:00"


def test_a_users_profile_goes_before(home):
    (home / "slurm.yaml").write_text("kind: slurm\nqueue: night\n")
    assert read_profile("slurm").queue == "night"
    assert known()["slurm"].parent == home


def test_by_path_and_with_changes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("kind: slurm\nworkers: 2:8\nwalltime: 01:30:00\nworkers_per_job: 2\noptions: {job_cpu: 3}\n")
    profile = read_profile(str(path))
    # Not to the base of sixty, as YAML 1.1 has it.
    assert profile.limits() == (2, 8)
    assert profile.walltime == "01:30:00"
    assert profile.options == {"job_cpu": 3}
    changed = read_profile(str(path), {"workers": "5", "insecure": True})
    assert (changed.limits(), changed.insecure, changed.workers_per_job) == ((5, 5), True, 2)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("kind: slrm", "must be one of.*Did you mean 'slurm'"),
        ("kind: slurm\nworker: 2", r"no parameter 'worker' \(from .*mine.yaml\). Did you mean 'workers'"),
        ("kind: slurm\nworkers: some", "workers=some is no number"),
        ("kind: slurm\nworkers: 0:4", "one worker at least"),
        ("kind: slurm\nworkers: 4:2", "less than the least"),
        ("kind: slurm\ntcp_timeout: 10 s", "too short.*at least 11 s"),
        ("kind: slurm\nidle: often", "idle=often is no time"),
        ("kind: slurm\nmemory: much", "memory=much is no amount"),
        ("kind: slurm\nwalltime: 3600", "walltime=3600 is no time limit. Write HH:MM:SS"),
        ("kind: slurm\nworkers_per_job: 0", "must be >= 1"),
        ("kind: ssh", "has no hosts"),
        ("kind: scheduler", "has no address"),
        ("- kind", "no table of names and values"),
        ("kind: [", "cannot be read"),
    ],
)
def test_what_is_refused(tmp_path, text, match):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError, match=match):
        read_profile(str(path))


def test_profiles_that_are_not_there(tmp_path):
    with pytest.raises(ParameterError, match=r"no cluster profile 'slum'\. Did you mean 'slurm'"):
        read_profile("slum")
    with pytest.raises(ParameterError, match="cannot be read"):
        read_profile(str(tmp_path / "absent.yaml"))


def test_times():
    assert Profile(idle="2 min").seconds("idle") == 120
    assert Profile(idle="90").seconds("idle") == 90
    assert Profile().seconds("start_timeout") == float("inf")
    assert Profile(memory="2 GiB").bytes() == 2 << 30


# What there is of cores and memory ------------------------------------------------------------------------------------


@pytest.fixture
def cgroup(monkeypatch, tmp_path):
    """A process in a cgroup of a batch system, whose outer groups have limits, too."""
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "own").write_text("0::/batch/job/step\n")
    monkeypatch.setattr(limits, "_OWN", tmp_path / "own")
    monkeypatch.setattr(limits, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda process: set(range(8)))
    (tmp_path / "groups/batch/job/step").mkdir(parents=True)
    return tmp_path / "groups"


def test_all_of_the_machine(cgroup):
    import psutil

    assert limits.available_cores() == 8
    assert limits.available_memory() == psutil.virtual_memory().total


def test_limits_of_cgroups(cgroup):
    (cgroup / "batch/job/step/memory.max").write_text("max\n")
    (cgroup / "batch/job/memory.max").write_text("500000000\n")
    (cgroup / "batch/memory.max").write_text("900000000\n")
    (cgroup / "batch/job/cpu.max").write_text("300000 100000\n")
    (cgroup / "batch/cpu.max").write_text("max 100000\n")
    assert limits.available_memory() == 500_000_000
    assert limits.available_cores() == 3
    (cgroup / "batch/job/cpu.max").write_text("50000 100000\n")
    assert limits.available_cores() == 1


def test_limits_of_old_cgroups(cgroup, tmp_path):
    (tmp_path / "own").write_text("5:memory:/job\n4:cpu,cpuacct:/job\n0::/\n")
    (cgroup / "memory/job").mkdir(parents=True)
    (cgroup / "memory/job/memory.limit_in_bytes").write_text("700000000\n")
    assert limits.available_memory() == 700_000_000
    (cgroup / "cpu/job").mkdir(parents=True)
    for group, quota in (("job", 250_000), (".", -1)):
        (cgroup / "cpu" / group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (cgroup / "cpu" / group / "cpu.cfs_period_us").write_text("100000\n")
    assert limits.available_cores() == 2
    (cgroup / "cpu/job/cpu.cfs_quota_us").write_text("-1\n")
    assert limits.available_cores() == 8


def test_limits_of_slurm(cgroup, monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert limits.available_cores() == 4
    assert limits.available_memory() == 400 << 20
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert limits.available_memory() == 600 << 20
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "300")
    assert limits.available_memory() == 300 << 20


def test_default_number_of_workers(cgroup):
    (cgroup / "batch/memory.max").write_text("5000000000\n")
    assert default_workers(2_000_000_000) == 2
    assert default_workers(100_000_000) == 8
    assert default_workers(10_000_000_000) == 1


# The command ----------------------------------------------------------------------------------------------------------


def test_list_of_profiles(capsys, home):
    (home / "mine.yaml").write_text("about: my own\nkind: pbs\n")
    (home / "wrong.yaml").write_text("kind: none\n")
    assert main(["clusters"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["mine", "pbs", "my", "own"] for line in lines)
    assert any(line.startswith("wrong") and "must be one of" in line for line in lines)


def test_script_of_a_profile(capsys):
    assert main(["clusters", "slurm", "--workers", "4"]) == 0
    found = capsys.readouterr().out
    assert "#SBATCH --cpus-per-task=4" in found
    assert any(line.split() == ["workers", "4"] for line in found.splitlines())


def test_trial(capsys):
    assert main(["clusters", "local", "--workers", "1", "--try"]) == 0
    assert "1 workers" in capsys.readouterr().out


def test_keys(capsys):
    assert main(["clusters", "--keys"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(Profile.__dataclass_fields__)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--workers", "0"], "one worker at least"),
        (["--workers", "two"], "no number"),
        (["--interface", "eth0"], "--interface and --insecure are for clusters"),
        (["--insecure"], "are for clusters"),
        (["--scheduler", "tls://h:1", "--workers", "2"], "leave out|Leave out"),
        (["--scheduler", "tcp://127.0.0.1:1"], "plain TCP"),
        (["--cluster", "absent"], "no cluster profile"),
        (["--workers", "1", "--interface", "absent0"], "no network interface"),
    ],
)
def test_options_of_run_that_are_refused(capsys, tmp_path, words, match):
    (tmp_path / "jw1_uncal.fits").write_bytes(Path(__file__).read_bytes())
    assert main(["run", "calwebb_detector1", str(tmp_path / "jw1_uncal.fits"), *words]) in (1, 2)
    assert profiles.re.search(match, capsys.readouterr().err)
