"""The oracle in one process: ``python oracle.py PIPELINE OUTPUT_DIR INPUT... [--steps.NAME.PARAMETER=VALUE ...]``.

With ``--costs=FILE``, CPU, wall and system time [s] since the start, a line for each exposure that is done.
"""

from __future__ import annotations

import ast
import logging
import os
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()

from jwst.pipeline import Detector1Pipeline, Image2Pipeline, Image3Pipeline  # noqa: E402 - importing counts

PIPELINES = {
    "calwebb_detector1": Detector1Pipeline,
    "calwebb_image2": Image2Pipeline,
    "calwebb_image3": Image3Pipeline,
}

if __name__ == "__main__":
    logging.disable(logging.INFO)
    pipeline = PIPELINES[sys.argv[1]]
    steps: dict[str, dict[str, object]] = {}
    costs: Path | None = None
    for word in sys.argv[3:]:
        if word.startswith("--costs="):
            costs = Path(word.partition("=")[2])
        if word.startswith("--steps."):
            name, _, value = word.removeprefix("--steps.").partition("=")
            step, _, parameter = name.partition(".")
            steps.setdefault(step, {})[parameter] = value if value.isupper() else ast.literal_eval(value)
    for path in sys.argv[3:]:
        if not path.startswith("--"):
            pipeline.call(path, save_results=True, output_dir=sys.argv[2], steps=steps)
            if costs is not None:
                used = os.times()
                with costs.open("a") as stream:
                    stream.write(f"{used.user + used.system} {time.perf_counter() - STARTED} {used.system}\n")
