"""Workers as jobs of a batch system (Slurm, PBS, SGE), through dask-jobqueue.

dask-jobqueue submits and cancels jobs. What it does not do is done here: a job that is refused is an error at once;
jobs are compared with the queue's own list, so that those which were cancelled, killed, or ended at their time limit
are submitted again, also those that never ran; jobs that end again and again before their worker has reported are an
error that shows what the last one said.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jwstdask.core.errors import ClusterError
from jwstdask.engine.clusters import (
    Elsewhere,
    Held,
    Say,
    adapt,
    missing,
    own_address,
    protocol,
    settings_of,
    warn_insecure,
    worker_environment,
)
from jwstdask.engine.profiles import Profile
from jwstdask.engine.resources import worker_resources
from jwstdask.engine.security import PrivateFolder, security_of

_MEMORY = "4 GiB"
_PATIENCE = 5
"""Jobs that may end one after the other without any worker having reported."""
_SUBMISSIONS = 8
"""Jobs that are submitted at the same time."""
_MINUTE = 60.0


@dataclass(frozen=True)
class System:
    """What differs between batch systems.

    Attributes
    ----------
    cluster
        Class of dask-jobqueue.
    submit
        Command that submits.
    listing
        Command that lists the jobs of a user; the number of a job is what a line begins with.
    ended
        Pattern of lines of jobs that are no more.
    stuck
        Pattern of lines of jobs that will never start.
    account
        What dask-jobqueue calls the account.
    directives
        Options that every job needs.
    among_logs
        Whether jobs are submitted in the folder for what they say, for some systems of this kind leave it in the
        folder of submission whatever a script asks for. Jobs go to that of the command by themselves.
    """

    cluster: str
    submit: str
    listing: tuple[str, ...]
    ended: str = r"$^"
    stuck: str = r"$^"
    account: str = "account"
    directives: tuple[str, ...] = ()
    among_logs: bool = False


SYSTEMS: Mapping[str, System] = {
    # Jobs that are no more are not listed unless asked for.
    "slurm": System("SLURMCluster", "sbatch", ("squeue", "--noheader", "--user", "{user}", "--format", "%i %t")),
    "pbs": System(
        "PBSCluster",
        "qsub",
        ("qstat",),
        ended=r"\s[CFX]\s+\S+\s*$",
        directives=("-V",),
        among_logs=True,
    ),
    "sge": System(
        "SGECluster", "qsub", ("qstat", "-u", "{user}"), stuck=r"\sE\S*qw\s", account="project", directives=("-V",)
    ),
}


def listed(system: System, text: str) -> set[str]:
    """Numbers of the jobs that wait or run, from what the listing says."""
    found = set()
    for line in text.splitlines():
        number = re.match(r"\s*(\d+)", line)
        if number and not re.search(system.ended, line) and not re.search(system.stuck, line):
            found.add(number[1])
    return found


class Watch(threading.Thread):
    """Submits again what is lost: compares the jobs of a cluster with the list of the batch system.

    Parameters
    ----------
    system
        The batch system.
    interval
        Seconds between looks.
    logs
        Folder with what jobs say.
    say
        Where news go.

    Attributes
    ----------
    refusals
        What the batch system said to submissions that it refused, since the last one that it took.
    failure
        Why there will be no more workers.
    """

    def __init__(self, system: System, interval: float, logs: Path, say: Say) -> None:
        super().__init__(name="jwstdask-jobs", daemon=True)
        self.system, self.interval, self.logs, self.say = system, interval, logs, say
        self.cluster: Any = None
        self.refusals: list[str] = []
        self.failure: ClusterError | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self.submitted = 0
        self._ended = threading.Event()
        self._suspects: set[tuple[str, str | None]] = set()
        self._reported: set[str] = set()
        self._vain = 0
        self._silent = False

    def run(self) -> None:
        while not self._ended.wait(self.interval):
            try:
                self.look()
            except Exception as error:
                # The cluster may be closing; a look that fails is made again.
                if not self._ended.is_set():
                    self.say(f"jobs could not be compared with the queue: {error}")

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def look(self) -> None:
        """Compare once, and submit again what has been missed twice."""
        # First what we know, then what the queue knows: what is submitted in between is not missed.
        jobs = {str(name): job.job_id for name, job in list(self.cluster.workers.items())}
        queued = self._queued()
        if queued is None:
            return
        reported = self._names_of_workers()
        present = {name for name in jobs if any(item == name or item.startswith(f"{name}-") for item in reported)}
        fresh = present - self._reported
        self._reported = (self._reported & set(jobs)) | present
        if fresh:
            self._vain = 0
        absent = {(name, job) for name, job in jobs.items() if name not in present and job not in queued}
        # One that was refused has no number: it need not be missed twice.
        lost = {item for item in absent if item in self._suspects or item[1] is None}
        self._suspects = absent - lost
        if lost:
            self._replace(lost)
        elif len(self.cluster.workers) < len(self.cluster.worker_spec):
            # Dask has noticed itself that a worker is gone, and forgot its job.
            self.cluster.scale(jobs=len(self.cluster.worker_spec))

    def _replace(self, lost: set[tuple[str, str | None]]) -> None:
        numbers = sorted(job for _, job in lost if job is not None)
        self._vain += sum(job is not None and name not in self._reported for name, job in lost)
        self._reported -= {name for name, _ in lost}
        if self._vain >= max(_PATIENCE, len(self.cluster.worker_spec)) and not self._names_of_workers():
            self._fail(numbers)
            return
        if numbers:
            self.say(f"jobs {', '.join(numbers)} are gone; submitted again")
        elif self.refusals:
            self.say(f"a job is refused, tried again every {self.interval:.0f} s: {self.refusals[-1]}")
        self.cluster.sync(self._forget, {name for name, _ in lost})

    async def _forget(self, names: set[str]) -> None:
        """Drop jobs and make new ones in their place.

        These have new names: dask cancels what has the name of a lost worker, a while after the loss.
        """
        count = len(self.cluster.worker_spec)
        for name in [name for name in self.cluster.workers if str(name) in names]:
            self.cluster.worker_spec.pop(name, None)
            await self.cluster.workers.pop(name).close()
        self.cluster._i += 1
        self.cluster.scale(jobs=count)

    def _fail(self, numbers: list[str]) -> None:
        self.failure = ClusterError(
            f"{self._vain} jobs ended before their worker had reported{self._last_words(numbers)}",
            "see that python, this package and shared_folder are there on the nodes, and that nodes reach the "
            "scheduler (interface)",
        )
        self.end()
        self.on_failure()

    def _last_words(self, numbers: list[str]) -> str:
        """The end of what a job said, if anything."""
        paths = [path for number in numbers for path in self.logs.glob(f"*{number}*")]
        texts = [path.read_text(errors="replace").strip() for path in paths if path.is_file()]
        texts = [text for text in texts if text]
        if not texts:
            return ""
        return "; the last one said:\n" + "\n".join(max(texts, key=len).splitlines()[-12:]) + "\n"

    def _names_of_workers(self) -> set[str]:
        return {str(worker.name) for worker in list(self.cluster.scheduler.workers.values())}

    def _queued(self) -> set[str] | None:
        """Jobs that wait or run; None if the batch system does not say."""
        command = [part.format(user=getpass.getuser()) for part in self.system.listing]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        else:
            if found.returncode == 0:
                self._silent = False
                return listed(self.system, found.stdout)
            problem = (found.stderr or found.stdout).strip()
        if not self._silent:
            self.say(f"`{shlex.join(command)}` fails; jobs that are lost are not noticed until it works: {problem}")
        self._silent = True
        return None


class Jobs(Elsewhere):
    """Tasks on workers that are jobs."""

    def __init__(self, client: Any, owner: Any, watch: Watch, **options: Any) -> None:
        super().__init__(client, owner, **options)
        self.watch = watch
        watch.on_failure = self._give_up

    def _give_up(self) -> None:
        from distributed import Future

        self.client.cancel([Future(key, self.client) for key in list(self.client.futures)], force=True)

    def capacity(self) -> tuple[int, int | None]:
        if self.watch.failure is not None:
            raise self.watch.failure
        return super().capacity()

    def _again(self, flight: Any, error: BaseException) -> bool:
        if self.watch.failure is not None:
            raise self.watch.failure from None
        return super()._again(flight, error)

    def close(self) -> None:
        self.watch.end()
        super().close()


def job_options(profile: Profile, keys: tuple[str, str] | None, logs: str) -> dict[str, Any]:
    """Arguments of dask-jobqueue's class for a profile."""
    import dask
    from dask.utils import parse_bytes

    system = SYSTEMS[profile.kind]
    count = profile.workers_per_job
    # What users said once and for all in Dask's configuration counts where the profile says nothing.
    configured = dask.config.get(f"jobqueue.{profile.kind}")
    memory = profile.bytes()
    if not memory:
        job = configured["memory"]
        memory = Profile(memory=_MEMORY).bytes() if job is None else parse_bytes(job) // count
    resources = ",".join(f"{name}={value:.0f}" for name, value in worker_resources(memory).items())
    options: dict[str, Any] = {
        "cores": count,
        "processes": count,
        "memory": f"{memory * count} B",
        "job_name": "jwstdask",
        "worker_command": "jwstdask.engine.worker",
        "worker_extra_args": ["--nworkers", str(count), "--nanny", "--resources", resources],
        "log_directory": logs,
        "job_script_prologue": _prologue(profile, keys),
        "job_extra_directives": [*system.directives, *configured["job-extra-directives"], *profile.directives],
    }
    given = {
        "queue": profile.queue,
        system.account: profile.account,
        "walltime": profile.walltime,
        "python": profile.python,
        "local_directory": profile.local_directory,
        "interface": profile.interface,
    }
    options |= {name: value for name, value in given.items() if value is not None}
    return options | dict(profile.options or {})


def _prologue(profile: Profile, keys: tuple[str, str] | None) -> list[str]:
    import dask

    environment = worker_environment(profile)
    for name, value in settings_of(profile, keys).items():
        environment["DASK_" + name.replace(".", "__").replace("-", "_").upper()] = str(value)
    return [
        *([f"cd {shlex.quote(os.getcwd())}"] if SYSTEMS[profile.kind].among_logs else []),
        *dask.config.get(f"jobqueue.{profile.kind}.job-script-prologue"),
        *profile.prologue,
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
    ]


def job_script(profile: Profile) -> str:
    """The script of a job of a profile; keys and the scheduler's address are put in when a run starts.

    Raises
    ------
    ClusterError
        If dask-jobqueue is not installed or refuses something in the profile.
    """
    keys = None if profile.insecure else ("KEYS/certificate.pem", "KEYS/key.pem")
    job = _classes(profile, None)[1]
    # dask-jobqueue makes the folder for logs wherever a script is looked at.
    with tempfile.TemporaryDirectory() as logs:
        options = job_options(profile, keys, logs)
        made = _checked(lambda: job("tls://SCHEDULER", name="WORKER", protocol=protocol(profile), **options))
        return str(made.job_script()).replace(logs, profile.log_directory or "LOGS")


def _checked(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise ClusterError(f"dask-jobqueue refuses the profile: {error}", "correct its options") from error


def _classes(profile: Profile, watch: Watch | None) -> tuple[Any, Any]:
    """Classes of the cluster and its jobs, with jobs that tell the watch how submission went."""
    try:
        import dask_jobqueue
    except ImportError:
        raise missing("dask-jobqueue") from None
    from distributed.core import Status

    cluster: Any = getattr(dask_jobqueue, SYSTEMS[profile.kind].cluster)
    base: Any = cluster.job_cls
    gate = asyncio.Semaphore(_SUBMISSIONS)

    class WatchedJob(base):
        async def start(self) -> None:
            assert watch is not None
            try:
                async with gate:
                    await super().start()
            except (RuntimeError, OSError, ValueError) as error:
                # Raised here it would be logged by the event loop, and seen by nobody.
                watch.refusals.append(_reason(error))
                self.status = Status.running
            else:
                watch.refusals.clear()
                watch.submitted += 1

        async def _submit_job(self, script_filename: str) -> Any:
            assert watch is not None
            folder = watch.logs if watch.system.among_logs else None
            return await self._call([*shlex.split(self.submit_command), script_filename], cwd=folder)

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed

    return cluster, WatchedJob


def _reason(error: Exception) -> str:
    """What a command said that failed, without the form in which dask-jobqueue wraps it."""
    text = str(error)
    said = [part.strip() for part in re.findall(r"std(?:err|out):\n(.*?)(?=\nstd|\Z)", text, re.DOTALL)]
    return " ".join(part for part in reversed(said) if part) or text


def start_jobs(profile: Profile, say: Say) -> Jobs:
    """Workers as jobs; returns when the first one has reported.

    Raises
    ------
    ClusterError
        If jobs cannot be submitted, or end before their worker has reported, or no worker has reported in time.
    """
    import dask
    from distributed import Client

    system = SYSTEMS[profile.kind]
    if shutil.which(system.submit) is None:
        raise ClusterError(
            f"there is no command {system.submit} on this machine", f"run it where jobs of {profile.kind} are submitted"
        )
    least, most = profile.limits() or (1, 1)
    keys = None
    folder = PrivateFolder(profile.shared_folder)
    if profile.insecure:
        warn_insecure()
    else:
        keys = folder.write_keys()
    logs = Path(profile.log_directory).expanduser().absolute() if profile.log_directory else folder.path / "logs"
    watch = Watch(system, profile.seconds("check"), logs, say)
    cluster, job = _classes(profile, watch)
    jobs = None
    held = Held(None, folder)
    try:
        with dask.config.set(settings_of(profile, keys)):
            configured = dask.config.get(f"jobqueue.{profile.kind}.interface")
            held.owner = watch.cluster = _checked(
                lambda: cluster(
                    job_cls=job,
                    security=None if keys is None else security_of(*keys),
                    protocol=protocol(profile),
                    scheduler_options={
                        "host": own_address(profile.interface or configured),
                        "dashboard_address": "127.0.0.1:0",
                        "port": 0,
                    },
                    **job_options(profile, keys, str(logs)),
                )
            )
            jobs = Jobs(Client(held.owner, set_as_default=False), held, watch)
        if most > least:
            # Limits of Dask's adaptive scaling count workers, of which a job may have several.
            adapt(held.owner, least, most, profile.seconds("idle"))
        held.owner.scale(least)
        watch.start()
        say(f"scheduler {held.owner.scheduler_address}, dashboard {held.owner.dashboard_link}")
        _await_first(watch, profile.seconds("start_timeout"), say)
        return jobs
    except BaseException:
        watch.end()
        if jobs is not None:
            jobs.close()
        elif held.owner is not None:
            held.close()
        else:
            folder.remove()
        raise


def _await_first(watch: Watch, timeout: float, say: Say) -> None:
    """Wait until a worker has reported; refused jobs and those that end in vain are errors."""
    started = told = time.monotonic()
    while not watch.cluster.scheduler.workers:
        if watch.refusals and not watch.submitted:
            raise ClusterError(
                f"{watch.system.submit} refuses the job: {watch.refusals[0]}",
                "see `jwstdask clusters PROFILE` for the script, and correct the profile",
            )
        if watch.failure is not None:
            raise watch.failure
        now = time.monotonic()
        if now - started > timeout:
            raise ClusterError(
                f"no worker has reported after {now - started:.0f} s", "see the queue; start_timeout may be longer"
            )
        if now - told > _MINUTE:
            say(f"waiting for the first of {len(watch.cluster.workers)} jobs, {(now - started) / _MINUTE:.0f} min")
            told = now
        time.sleep(0.05)
