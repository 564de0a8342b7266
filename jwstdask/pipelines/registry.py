"""Every pipeline by its jwst alias and class name."""

from __future__ import annotations

from jwstdask.core.errors import ParameterError
from jwstdask.core.params import suggest
from jwstdask.core.pipeline import Pipeline
from jwstdask.pipelines.dark import DarkPipeline
from jwstdask.pipelines.detector1 import Detector1Pipeline
from jwstdask.pipelines.guider import GuiderPipeline
from jwstdask.pipelines.image2 import Image2Pipeline
from jwstdask.pipelines.image3 import Image3Pipeline
from jwstdask.steps.registry import CLASSES, step_class

PIPELINES: dict[str, type[Pipeline]] = {
    pipeline.alias: pipeline
    for pipeline in (DarkPipeline, Detector1Pipeline, GuiderPipeline, Image2Pipeline, Image3Pipeline)
}


def find(name: str) -> type:
    """The pipeline or step called ``name``: alias or jwst's class name, dotted or not.

    Raises
    ------
    ParameterError
        If there is none, with the nearest right name.
    """
    short = name.rsplit(".", 1)[-1]
    for alias, pipeline in PIPELINES.items():
        if short in (alias, pipeline.class_name):
            return pipeline
    try:
        return step_class(short)
    except ParameterError:
        names = [*PIPELINES, *(item.class_name for item in PIPELINES.values()), *CLASSES, *CLASSES.values()]
        raise ParameterError(f"There is no pipeline or step {name!r}", suggest(short, names)) from None
