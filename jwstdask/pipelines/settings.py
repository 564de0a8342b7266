"""The request for a whole program: which pipeline gets which parameters."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jwstdask.core.errors import ParameterError
from jwstdask.core.params import suggest
from jwstdask.core.pipeline import Pipeline
from jwstdask.core.settings import Layer, Settings
from jwstdask.pipelines.configure import check_layers, refuse_hooks
from jwstdask.pipelines.registry import PIPELINES, find
from jwstdask.refs.parameters import read_parameters


def file_layer(path: str | os.PathLike[str]) -> Layer:
    """A user's parameter file (.asdf or .cfg) as a layer."""
    found = read_parameters(path)
    steps = {name: dict(part.parameters) for name, part in found.steps.items()}
    return Layer(os.path.basename(os.fspath(path)), dict(found.parameters), steps, found.name)


def file_target(path: str | os.PathLike[str]) -> type:
    """The pipeline or step whose parameters a file holds.

    Raises
    ------
    ParameterError
        If the file does not say, or there is none of that name.
    """
    name = read_parameters(path).class_name
    if not name:
        raise ParameterError(f"{path} does not say whose parameters it holds", "it needs a line `class`")
    try:
        return find(name)
    except ParameterError as error:
        raise ParameterError(f"{path}: {error.message}", error.remedy) from None


def program_settings(
    settings: Settings,
    origin: str,
    steps: Mapping[str, Mapping[str, Any]],
    files: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, Settings]:
    """Requests for all pipelines of a program.

    Parameters
    ----------
    settings
        What holds for all.
    origin
        Where ``steps`` come from.
    steps
        Step name to its parameters, for every pipeline that has the step.
    files
        Parameter files, of pipelines or of steps, lowest precedence first; ``steps`` come above them.

    Returns
    -------
    requests
        Pipeline alias to its request.

    Raises
    ------
    ParameterError
        If no pipeline has a step of that name, or a parameter is wrong.
    """
    known = {name for pipeline in PIPELINES.values() for name in pipeline.step_defs}
    for name in steps:
        if name not in known:
            raise ParameterError(f"no pipeline has a step {name!r}", suggest(name, known))
    given = [(file_target(path), file_layer(path)) for path in files]
    requests = {}
    for alias, pipeline in PIPELINES.items():
        layers = [layer for layer in (_part(pipeline, *pair) for pair in given) if layer is not None]
        mine = {name: values for name, values in steps.items() if name in pipeline.step_defs}
        requests[alias] = replace(settings, layers=(*layers, Layer(origin, {}, mine)))
        check_layers(pipeline, requests[alias].layers)
        refuse_hooks(requests[alias].layers)
    return requests


def _part(pipeline: type[Pipeline], target: type, layer: Layer) -> Layer | None:
    """What a parameter file says about a pipeline: it may hold the parameters of one of its steps."""
    if target is pipeline:
        return layer
    names = [name for name, alias in pipeline.step_defs.items() if alias == target.alias]  # type: ignore[attr-defined]
    return Layer(layer.origin, {}, dict.fromkeys(names, layer.parameters)) if names else None
