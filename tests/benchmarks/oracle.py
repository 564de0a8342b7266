"""The oracle in one process: ``python oracle.py PIPELINE OUTPUT_DIR INPUT...``."""

from __future__ import annotations

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
    for path in sys.argv[3:]:
        pipeline.call(path, save_results=True, output_dir=sys.argv[2])
