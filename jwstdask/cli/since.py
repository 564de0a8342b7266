"""``--since RUN`` without inputs: the words of the earlier run, with those that are given now above them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from jwstdask.io.remote import is_url

_INHERITED = ("through", "min_members", "disable_crds_steppars")


def continued(
    parser: argparse.ArgumentParser, options: argparse.Namespace, rest: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
    """Options, and the words that are left over, of a command that goes back to an earlier run.

    Raises
    ------
    PlanError
        If the run's journal does not tell its inputs.
    """
    from jwstdask.pipelines.since import words_of

    words, folder = words_of(options.since)
    before, old = parser.parse_known_args(words)
    if before.target is None:
        before, old = continued(parser, before, old)
    options.target = _placed(before.target, folder)
    for name in _INHERITED:
        if not getattr(options, name):
            setattr(options, name, getattr(before, name))
    return options, [*(_placed(word, folder) for word in old), *rest]


def _placed(word: str, folder: str) -> str:
    """A path as seen from here; other words as they are."""
    name, equals, value = word.partition("=")
    if name == "--output_dir" and equals:
        return f"{name}={_placed_path(value, folder)}"
    return word if word.startswith("-") else _placed_path(word, folder)


def _placed_path(path: str, folder: str) -> str:
    if is_url(path) or os.path.isabs(path) or os.path.samefile(folder, os.getcwd()):
        return path
    place = os.path.join(folder, path)
    return place if os.path.exists(place) or os.sep in path else path
