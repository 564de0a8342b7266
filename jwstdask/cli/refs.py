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
    parser.add_argument("--checksums", action="store_true", help="also compute SHA-1 sums")
    options = parser.parse_args(argv)
    from jwstdask.refs import maintain

    if options.action == "unpack":
        print(f"export CRDS_PATH={maintain.unpack(options.inputs[0], options.output or 'crds_cache')}")
        return 0
    choices = choices_of(options.inputs, options.through, options.context)
    if options.action == "sync":
        # What a parameter reference asks for is known only once it is there.
        for _ in range(2):
            maintain.sync(choices, options.context, options.checksums)
            choices = choices_of(options.inputs, options.through, options.context)
    statuses = maintain.check(choices, options.checksums)
    print(maintain.format_statuses(statuses))
    if any(status.state != maintain.PRESENT for status in statuses):
        return 1
    if options.action == "pack":
        target = options.output or "references.tar"
        maintain.pack(choices, target, options.context)
        print(f"packed into {target}")
    return 0


def choices_of(inputs: Sequence[str], through: int, context: str | None) -> list[dict[str, Any]]:
    """References of all stages of a program."""
    from jwstdask.io.layout import open_layout
    from jwstdask.io.metadata import read_metadata
    from jwstdask.pipelines.planner import Request, reference_choices
    from jwstdask.pipelines.registry import PIPELINES
    from jwstdask.pipelines.run import find_inputs

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
