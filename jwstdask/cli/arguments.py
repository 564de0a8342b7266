"""Arguments that several commands share, and strun's way of giving parameters."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jwstdask.core.errors import ParameterError
from jwstdask.core.params import suggest
from jwstdask.core.settings import Layer, Settings

if TYPE_CHECKING:
    from jwstdask.engine.executor import Executor
    from jwstdask.engine.profiles import Profile


def parser(command: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options that say how and where to run."""
    found = argparse.ArgumentParser(
        f"jwstdask {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run = found.add_argument_group("where and how")
    run.add_argument("--threads", type=int, metavar="N", help="threads in this process (default: all cores)")
    cluster_options(run)
    run.add_argument("--context", metavar="PMAP", help="CRDS context (default: CRDS_CONTEXT)")
    run.add_argument(
        "--grain", choices=("auto", "exposure", "strip"), default="auto", help="one task an exposure or a strip"
    )
    run.add_argument("--through", type=int, choices=(1, 2, 3), default=None, help="last stage of a whole program")
    run.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    run.add_argument("--disable-crds-steppars", action="store_true", help="use no CRDS parameter references")
    run.add_argument("--save-parameters", metavar="FILE", help="write the resolved parameters as .asdf")
    run.add_argument(
        "--report", metavar="FILE", help="HTML report (default: report.html beside the products of a program)"
    )
    run.add_argument("--no-report", action="store_true", help="write no report")
    run.add_argument(
        "--match", metavar="PRODUCT", help="take context, parameters and references from the header of this product"
    )
    run.add_argument(
        "--force",
        metavar="NAME",
        action="append",
        default=[],
        help="do again what is up to date: tasks of a step or pipeline and what follows from them, or all",
    )
    run.add_argument(
        "--on-error", choices=("continue", "stop"), default="continue", help="what a failure means for the others"
    )
    run.add_argument(
        "--min-members", type=int, metavar="N", help="combine an association of which at least N members are there"
    )
    run.add_argument("-v", "--verbose", action="store_true", help="a line for each step, too")
    run.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="progress as text, or as a JSON object a line"
    )
    run.add_argument("--debug", action="store_true", help="print tracebacks")
    return found


def cluster_options(group: Any) -> None:
    """Options that choose a cluster."""
    group.add_argument(
        "--workers",
        metavar="N",
        help="start a cluster of N processes on this machine, or of the kind that --cluster says; MIN:MAX: as many as "
        "there is work for; auto: as there are cores and memory",
    )
    group.add_argument(
        "--cluster", metavar="PROFILE", help="start workers as this profile says (`jwstdask clusters` lists them)"
    )
    group.add_argument("--scheduler", metavar="ADDRESS", help="use the Dask cluster at this address or scheduler file")
    group.add_argument("--interface", metavar="NAME", help="network interface the scheduler listens on")
    group.add_argument(
        "--insecure", action="store_true", help="plain TCP: whoever reaches the scheduler can run code as you"
    )


def split_parameters(rest: Sequence[str]) -> tuple[list[str], dict[str, Any], dict[str, dict[str, Any]]]:
    """Inputs, own parameters and parameters of steps from what argparse left over.

    ``--name=value``, ``--name value`` and ``--steps.jump.rejection_threshold=5`` are parameters, the rest inputs.

    Raises
    ------
    ParameterError
        If a parameter has no value or a malformed name.
    """
    inputs: list[str] = []
    own: dict[str, Any] = {}
    steps: dict[str, dict[str, Any]] = {}
    position = 0
    while position < len(rest):
        word = rest[position]
        position += 1
        if not word.startswith("--"):
            inputs.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            if position >= len(rest) or rest[position].startswith("--"):
                raise ParameterError(f"--{name} has no value", f"write --{name}=VALUE")
            value = rest[position]
            position += 1
        parts = name.split(".")
        if len(parts) == 1:
            own[name.replace("-", "_")] = value
        elif parts[0] == "steps" and len(parts) == 3:
            steps.setdefault(parts[1], {})[parts[2]] = value
        else:
            raise ParameterError(f"--{name} is not a parameter", "write --steps.STEP.PARAMETER=VALUE")
    return inputs, own, steps


def profile_of(options: argparse.Namespace) -> Profile | None:
    """The cluster that the options ask for; None: no cluster.

    Raises
    ------
    ParameterError
        If they contradict each other, or the profile is wrong.
    """
    changes: dict[str, Any] = {}
    if options.workers is not None:
        changes["workers"] = options.workers
    if options.interface is not None:
        changes["interface"] = options.interface
    if options.insecure:
        changes["insecure"] = True
    if not (options.scheduler or options.cluster or options.workers):
        if changes:
            raise ParameterError("--interface and --insecure are for clusters", "add --workers or --cluster")
        return None
    from jwstdask.core.params import build
    from jwstdask.engine.profiles import Profile, read_profile

    if options.scheduler:
        if options.cluster or options.workers:
            raise ParameterError(
                "--scheduler is a cluster that runs already", "leave out --cluster and --workers, which start one"
            )
        changes |= {"kind": "scheduler", "address": options.scheduler}
    elif options.cluster:
        return read_profile(options.cluster, changes)
    profile, _ = build(Profile, [("command line", changes)], "cluster")
    assert isinstance(profile, Profile)
    return profile


def join_ranks(profile: Profile | None) -> None:
    """Under MPI every rank runs the command: return on the one that is this program, the others work and exit."""
    if profile is not None and profile.kind == "mpi":
        from jwstdask.engine.mpi import join

        join(profile)


def executor_of(options: argparse.Namespace, logs: str | None = None) -> Executor:
    """Where the options say that tasks run; jobs of a queue keep what they say in ``logs`` if no profile says where."""
    profile = profile_of(options)
    if profile is None:
        from jwstdask.engine.executor import Threads

        return Threads(options.threads)
    from jwstdask.engine.clusters import start
    from jwstdask.engine.profiles import QUEUES

    if logs is not None and profile.kind in QUEUES and profile.log_directory is None:
        with contextlib.suppress(OSError):
            os.makedirs(logs, exist_ok=True)
            profile = replace(profile, log_directory=os.path.abspath(logs))
    return start(profile)


def settings_of(
    options: argparse.Namespace, layers: Sequence[Layer], own: dict[str, Any], steps: dict[str, dict[str, Any]]
) -> Settings:
    """The request of the command line."""
    output_dir = own.get("output_dir")
    return Settings(
        layers=(*layers, Layer("command line", own, steps)),
        parameter_references=not options.disable_crds_steppars,
        context=options.context,
        output_dir=None if output_dir is None else os.path.expandvars(os.path.expanduser(output_dir)),
    )


def program_settings(
    options: argparse.Namespace, own: dict[str, Any], steps: dict[str, dict[str, Any]], files: Sequence[str] = ()
) -> tuple[Settings, dict[str, Settings]]:
    """The request for a whole program, and that for each of its pipelines.

    Raises
    ------
    ParameterError
        If a parameter is wrong, or not one that every pipeline has.
    """
    from jwstdask.core.step import Parameters
    from jwstdask.pipelines.settings import program_settings as for_pipelines

    common = {"output_dir"}
    for name in own:
        if name not in common:
            raise ParameterError(
                f"a whole program has no parameter {name!r}",
                suggest(name, [*common, *(field for field in Parameters.__dataclass_fields__)]),
            )
    base = settings_of(options, (), own, {})
    return base, for_pipelines(replace(base, layers=()), "command line", steps, files)
