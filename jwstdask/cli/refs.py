"""``jwstdask refs``: check, fetch or pack the reference files of a program before any pixel is read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from jwstdask.core.settings import Settings


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("jwstdask refs", description=__doc__, allow_abbrev=False)
    parser.add_argument("action", choices=("check", "sync", "pack", "unpack"))
    parser.add_argument("inputs", nargs="+", help="files, folders or associations; for unpack the .tar file")
    parser.add_argument("-o", "--output", metavar="PATH", help="pack: the .tar file; unpack: the folder")
    parser.add_argument("--through", type=int, choices=(1, 2, 3), default=3, help="last stage")
    parser.add_argument("--context", metavar="PMAP", help="CRDS context (default: CRDS_CONTEXT)")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be fetched, packed or unpacked, and stop"
    )
    parser.add_argument("--checksums", action="store_true", help="also compute SHA-1 sums")
    options = parser.parse_args(argv)
    from jwstdask.refs import maintain

    if options.action == "unpack":
        if options.dry_run:
            _list_pack(options.inputs[0], options.output or "crds_cache")
            return 0
        print(f"export CRDS_PATH={maintain.unpack(options.inputs[0], options.output or 'crds_cache')}")
        return 0
    choices = choices_of(options.inputs, options.through, options.context)
    if options.action == "sync" and not options.dry_run:
        # What a parameter reference asks for is known only once it is there.
        for _ in range(2):
            maintain.sync(choices, options.context, options.checksums)
            choices = choices_of(options.inputs, options.through, options.context)
    statuses = maintain.check(choices, options.checksums)
    print(maintain.format_statuses(statuses))
    lacking = [status for status in statuses if status.state != maintain.PRESENT]
    if options.dry_run and options.action == "sync":
        fetched = [status for status in lacking if status.name and not status.override]
        size = sum(status.expected_size or 0 for status in fetched) / 1e6
        print(f"{len(fetched)} files would be fetched" + (f", {size:.1f} MB" if size else ""))
        return 1 if len(fetched) < len(lacking) else 0
    if lacking:
        return 1
    if options.action == "pack":
        target = options.output or "references.tar"
        if options.dry_run:
            total = sum(status.size or 0 for status in statuses) / 1e6
            print(f"{len(statuses)} references, {total:.1f} MB, would be packed into {target}")
            return 0
        maintain.pack(choices, target, options.context)
        print(f"packed into {target}")
    return 0


def _list_pack(path: str, target: str) -> None:
    """What a pack holds."""
    import tarfile

    from jwstdask.core.errors import ReferenceFileError

    try:
        with tarfile.open(path) as archive:
            sizes = [member.size for member in archive if member.isfile()]
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ReferenceFileError(path, f"the pack cannot be read: {error}", "copy or make it again") from error
    print(f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB, would be unpacked into {target}")


def choices_of(inputs: Sequence[str], through: int, context: str | None) -> list[dict[str, Any]]:
    """References of all stages of a program."""
    from jwstdask.io.layout import open_layout
    from jwstdask.io.metadata import read_metadata
    from jwstdask.pipelines.inputs import find_inputs
    from jwstdask.pipelines.planner import Request, reference_choices
    from jwstdask.pipelines.registry import PIPELINES

    settings = Settings(context=context)
    program = find_inputs(inputs)
    choices = []
    for pipeline in PIPELINES.values():
        if pipeline.stage > through:
            continue
        requests = []
        for path, stage in program.exposures.items():
            if stage >= pipeline.stage:
                continue
            layout = open_layout(path)
            meta = {**read_metadata(layout), "meta.model_type": "ImageModel"}
            if meta.get("meta.exposure.type") in pipeline.exp_types:
                shape = tuple(layout.check_exposure().shape)
                # Later stages are planned on headers alone: their inputs need not exist yet.
                later = pipeline.stage > stage + 1
                requests.append(Request(path, meta=meta if later else None, shape=shape[-2:] if later else ()))
        choices += reference_choices(pipeline, requests, settings)
    return choices
