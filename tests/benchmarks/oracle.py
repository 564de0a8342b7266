"""The oracle in one process: ``python oracle.py PIPELINE OUTPUT_DIR INPUT... [--steps.NAME.PARAMETER=VALUE ...]``."""

from __future__ import annotations

import ast
import logging
import sys

from jwst.pipeline import Detector1Pipeline, Image2Pipeline, Image3Pipeline

PIPELINES = {
    "calwebb_detector1": Detector1Pipeline,
    "calwebb_image2": Image2Pipeline,
    "calwebb_image3": Image3Pipeline,
}

if __name__ == "__main__":
    logging.disable(logging.INFO)
    pipeline = PIPELINES[sys.argv[1]]
    steps: dict[str, dict[str, object]] = {}
    for word in sys.argv[3:]:
        if word.startswith("--steps."):
            name, _, value = word.removeprefix("--steps.").partition("=")
            step, _, parameter = name.partition(".")
            steps.setdefault(step, {})[parameter] = value if value.isupper() else ast.literal_eval(value)
    for path in sys.argv[3:]:
        if not path.startswith("--"):
            pipeline.call(path, save_results=True, output_dir=sys.argv[2], steps=steps)
