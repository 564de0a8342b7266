"""``jwstdask clusters``: profiles of clusters, the script of a job, and a trial."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from jwstdask.cli.arguments import cluster_options, profile_of
from jwstdask.core.errors import ParameterError
from jwstdask.engine.profiles import QUEUES, Profile, known, read_profile

_EPILOG = """
examples:
  jwstdask clusters                     profiles by name: those of the package and those in ~/.config/jwstdask
  jwstdask clusters slurm               what a profile says, and the script of its jobs
  jwstdask clusters mine.yaml --try     start it, run something on every worker, end it
  jwstdask clusters --keys              what a profile may say
"""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "jwstdask clusters",
        description="List profiles of clusters, or show or try one." + "\n" + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("profile", nargs="?", help="name or path")
    parser.add_argument("--keys", action="store_true", help="list what a profile may say")
    parser.add_argument("--try", action="store_true", dest="trial", help="start it, and run something on every worker")
    parser.add_argument("--dry-run", action="store_true", help="show what --try would start, and stop")
    cluster_options(parser)
    options = parser.parse_args(argv)
    if options.keys:
        print("\n".join(_keys()))
        return 0
    options.cluster = options.cluster or options.profile
    profile = profile_of(options)
    if profile is None:
        print("\n".join(_list()))
        return 0
    if options.trial and not options.dry_run:
        return _try(profile)
    print(_described(profile))
    return 0


def _list() -> list[str]:
    lines = []
    for name, path in sorted(known().items()):
        try:
            profile = read_profile(name)
        except ParameterError as error:
            lines.append(f"{name:12}{error}")
            continue
        lines.append(f"{name:12}{profile.kind:11}{profile.about}")
        lines.append(f"{'':23}{path}")
    return lines or ["no profiles found"]


def _keys() -> list[str]:
    return [
        f"{item.name:18}{item.metadata['par'].doc}"
        + (f" ({', '.join(item.metadata['par'].choices)})" if item.metadata["par"].choices else "")
        + (f" [{item.default}]" if item.default not in (None, "", ()) else "")
        for item in fields(Profile)
    ]


def _described(profile: Profile) -> str:
    found: list[str] = []
    for item in fields(Profile):
        value: Any = getattr(profile, item.name)
        if value not in (None, "", ()):
            found.append(f"{item.name:18}{', '.join(value) if isinstance(value, tuple) else value}")
    if profile.kind in QUEUES:
        from jwstdask.engine.jobs import job_script

        found += ["", job_script(profile).rstrip()]
    return "\n".join(found)


def _try(profile: Profile) -> int:
    """Start a cluster and say what its workers are; the exit status."""
    from jwstdask.cli.arguments import join_ranks
    from jwstdask.engine.clusters import facts, start

    join_ranks(profile)
    executor = start(profile)
    try:
        for line in facts(executor):
            print(line)
    finally:
        executor.close()
    return 0
